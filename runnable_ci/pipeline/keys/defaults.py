"""`[defaults]`: keys that steps have which do not have them themselves. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.schema import Place, StepConfig

KEYS: Final = (
    *("shell", "working-directory", "timeout-minutes", "attempts", "container", "resources", "runs-on", "executor"),
)


def with_defaults(place: Place, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a file's table whose steps have what its `[defaults]` says, where they do not say it themselves.

    A `shell` is for commands; a step that uses another file has that file's own defaults, but runs where this one says.
    Raises `PipelineError` for
    a key that cannot be here, or whose value is wrong.
    """
    defaults, steps = table["defaults"], table.get("steps")
    if not isinstance(defaults, Mapping) or not isinstance(steps, Mapping):
        return table
    for key in defaults:
        if key not in KEYS:
            hint = did_you_mean(key, KEYS, f"the keys are: {', '.join(KEYS)}")
            raise place.error("defaults", f"unknown key `{key}`", hint, key=key)
    try:
        StepConfig.model_validate({"run": "true", **defaults})
    except ValidationError as e:
        from runnable_ci.pipeline.diagnostics.mistakes import validation_error  # what is right needs none of it

        raise validation_error(place, e, of_step="defaults") from e
    return {**table, "steps": {name: _step(defaults, step) for name, step in steps.items()}}


def _step(defaults: Mapping[str, Any], step: Any) -> Any:
    if not isinstance(step, Mapping):
        return step
    if "uses" in step:
        given = {key: value for key, value in defaults.items() if key == "runs-on"}
    else:
        given = {key: value for key, value in defaults.items() if key != "shell" or "run" in step}
    return {**given, **step}
