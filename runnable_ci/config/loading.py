"""The settings of an environment, without pydantic-settings where none is set: loading it takes longer than a step."""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.config.settings import PREFIX, Settings


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises `UsageError` for a value that makes no sense."""
    given = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX) and value}
    if not given:
        return Settings.model_construct()  # the defaults need no check, which takes 2 ms to prepare
    from runnable_ci.config.environment import read_settings

    return read_settings(given)
