"""Settings and the action's inputs as pydantic-settings reads them. Loaded only where a variable is set."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from runnable_ci.config.settings import INPUT_PREFIX, PREFIX, Settings
from runnable_ci.errors import UsageError, did_you_mean


class _FromEnvironment(BaseSettings):
    """What variables of an environment that was handed over say; the process's own, and files, have no say."""

    model_config = SettingsConfigDict(extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings passes it
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given, and nothing else."""
        return (init_settings,)


class EnvironmentSettings(_FromEnvironment, Settings):
    """The settings that variables give."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)


class Inputs(_FromEnvironment):
    """The inputs of the GitHub action, as `action.yml` hands them over; what they mean is said there."""

    model_config = SettingsConfigDict(env_prefix=INPUT_PREFIX)

    command: Literal["run", "retry", "publish", "pull"] = "run"
    pipeline: str = "."
    run_id: str = ""
    from_step: str = ""
    parameters: str = ""
    resume: Literal["auto", "always", "never"] = "auto"
    publish: Literal["always", "at-end", "on-failure", "never"] = "always"
    restore: Literal["all", "needed"] = "all"
    steps: str = ""
    """Of a run that several jobs share: the names of this one's steps."""
    instances: str = ""
    matrix_of: str = ""
    collect: bool = False
    working_directory: str = "."
    summary: bool = True
    report: bool = True
    time_budget: str = "auto"
    relay_max: int = Field(default=10, ge=0)
    comment: Literal["auto", "always", "never"] = "auto"
    fail_if: str = ""
    """Conditions on metrics, one a line."""
    args: str = ""
    matrix: str = ""
    """What tells the job's matrix leg apart: by default `own_matrix`."""
    step: str = ""
    """The `id` of the step that uses the action; not an input that people set."""
    own_matrix: str = ""
    """The job's matrix leg as JSON; not an input either."""
    job_workflow_ref: str = ""
    """The workflow file that the job is written in, with its repository and ref; not an input either."""
    job_number: str = ""
    """GitHub's number for the job; not an input either."""
    job_token: str = ""
    """The job's token, for the API of its server; not an input either."""
    downloaded: str = ""
    """How the step ended that downloads what earlier attempts of the job left; not an input either."""
    message: str = ""
    """The file of what is to be written on the pull request; not an input either."""
    report_url: str = ""
    """The address of the run's page, once it is uploaded; not an input either."""
    outcome: str = ""
    """How the action's first step ended, as GitHub says it; not an input either."""


class _MappingSource(EnvSettingsSource):
    """Variables by the rules of pydantic-settings, from a mapping in place of the process's environment."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self.env_vars = {name.lower(): value for name, value in environ.items()}


_Settings = TypeVar("_Settings", bound=_FromEnvironment)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings. Raises `UsageError`."""
    return _read(EnvironmentSettings, environ, named=lambda field: f"{PREFIX}{field.upper()}")


def read_inputs(environ: Mapping[str, str]) -> Inputs:
    """Return the action's inputs; what is left empty in a workflow counts as not given. Raises `UsageError`."""
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    return _read(Inputs, given, named=lambda field: f"input {field.replace('_', '-')}")


def _read(model: type[_Settings], environ: Mapping[str, str], *, named: Callable[[str], str]) -> _Settings:
    try:
        return model(**_MappingSource(model, environ)())
    except ValidationError as e:
        first = e.errors()[0]
        allowed = str(first.get("ctx", {}).get("expected", ""))
        hint = (
            did_you_mean(str(first["input"]), re.findall(r"'([^']*)'", allowed), f"one of {allowed}") if allowed else ""
        )
        raise UsageError(f"{named(str(first['loc'][0]))}: {first['msg']}", hint=hint) from e
