"""Our own settings, from environment variables `RUNNABLE_CI_…`; nothing else reads those."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from runnable_ci.errors import UsageError, did_you_mean

PREFIX = "RUNNABLE_CI_"
INPUT_PREFIX = f"{PREFIX}ACTION_"
IMAGE = r"^([A-Za-z0-9][A-Za-z0-9._:/-]{0,250}@)?sha256:[0-9a-f]{64}$|^$"
GITHUB_TOKEN = f"{PREFIX}GITHUB_TOKEN"
SAFE_STORES = f"{PREFIX}SAFE_STORES"
SECRETS = frozenset({f"{PREFIX}REGISTRY_PASSWORD", GITHUB_TOKEN})
"""Variables that are never passed to steps."""
SECRETS_SETTING = f"{PREFIX}SECRETS (the action's input secrets)"
"""How a message calls the setting `secrets`."""

Untracked = Literal["all", "listed", "none"]
"""Which untracked files a run keeps."""


class Settings(BaseModel):
    """What can be set for all commands; an option on the command line goes first."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    ask_minutes: float = Field(
        10.0, ge=0, description="A retry that would automatically repeat more finished work than this asks, or stops."
    )
    jobs: int | None = Field(
        None, ge=1, description="Number of steps that run in parallel. Default: the number of CPUs."
    )
    registry: str | None = Field(None, description="Where runs are published, such as `ghcr.io/owner/repo/runs`.")
    registry_username: str | None = Field(
        None, description="User name for that registry. Default: docker's credentials."
    )
    registry_password: SecretStr | None = Field(
        None, description="Password or token of that user, for that registry, else for one specified by an option."
    )
    plain_http: bool = Field(False, description="Allow plain HTTP for registries on other machines too.")
    github_token: SecretStr | None = Field(
        None, description="Token for GitHub's REST API and, where it is github.com's, for ghcr.io."
    )
    container_image_digest: str = Field(
        "", pattern=IMAGE, description="Image of the container in which this runs, `NAME@sha256:…` or a digest."
    )
    safe_stores: str = Field(
        "",
        description="Folders with a store of another user that may be used, separated as in "
        "`PATH`; `*` is all of them.",
    )
    secrets: str = Field("", description="Names of environment variables whose values are removed from all records.")

    untracked: Untracked | None = Field(
        None, description="Which untracked files a run includes, as in the pipeline file."
    )

    @property
    def secret_names(self) -> list[str]:
        """The names in `secrets`, which commas, spaces and line breaks part."""
        return self.secrets.replace(",", " ").split()


class Inputs(BaseModel):
    """The inputs of the GitHub action, as `action.yml` hands them over; what they mean is said there."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    command: Literal["run", "retry", "publish", "pull"] = "run"
    pipeline: str = "."
    run_id: str = ""
    from_step: str = ""
    parameters: str = ""
    resume: Literal["auto", "never"] = "auto"
    publish: Literal["always", "on-failure", "never"] = "always"
    restore: Literal["all", "needed"] = "all"
    working_directory: str = "."
    summary: bool = True
    args: str = ""
    matrix: str = ""
    """The job's matrix leg as JSON; not an input that people set."""
    outcome: str = ""
    """How the action's first step ended, as GitHub says it; not an input either."""


_Model = TypeVar("_Model", bound=BaseModel)


def load(environ: Mapping[str, str]) -> Settings:
    """Return the settings; pydantic-settings is loaded only where a variable is set, since that takes longer than
    a step.
    """
    given = {name: value for name, value in environ.items() if name.upper().startswith(PREFIX) and value}
    if not given:
        return Settings.model_construct()  # the defaults need no check, which takes 2 ms to prepare
    return _read(Settings, PREFIX, given, named=lambda field: f"{PREFIX}{field.upper()}")


def load_inputs(environ: Mapping[str, str]) -> Inputs:
    """Return the action's inputs; what is left empty in a workflow counts as not given."""
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    return _read(Inputs, INPUT_PREFIX, given, named=lambda field: f"input {field.replace('_', '-')}")


def _read(model: type[_Model], prefix: str, environ: Mapping[str, str], *, named: Callable[[str], str]) -> _Model:
    from pydantic import ValidationError
    from pydantic_settings import EnvSettingsSource

    # The models are no `BaseSettings`, which takes 0.1 s to load, and reads the process's environment only.
    source = EnvSettingsSource(model, env_prefix=prefix)  # type: ignore[arg-type]
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    try:
        return model.model_validate(source())
    except ValidationError as e:
        first = e.errors()[0]
        allowed = str(first.get("ctx", {}).get("expected", ""))
        hint = (
            did_you_mean(str(first["input"]), re.findall(r"'([^']*)'", allowed), f"one of {allowed}") if allowed else ""
        )
        raise UsageError(f"{named(str(first['loc'][0]))}: {first['msg']}", hint=hint) from e
