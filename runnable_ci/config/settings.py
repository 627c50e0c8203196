"""The settings as a value, and the names of the variables that they come from."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

PREFIX = "RUNNABLE_CI_"
INPUT_PREFIX = f"{PREFIX}ACTION_"
IMAGE = r"^([A-Za-z0-9][A-Za-z0-9._:/-]{0,250}@)?sha256:[0-9a-f]{64}$|^$"
GITHUB_TOKEN = f"{PREFIX}GITHUB_TOKEN"
SAFE_STORES = f"{PREFIX}SAFE_STORES"
REUSE_KEY = f"{PREFIX}REUSE_KEY"
SECRETS = frozenset({f"{PREFIX}REGISTRY_PASSWORD", GITHUB_TOKEN, REUSE_KEY})
"""Variables that are never passed to steps."""
WRITERS = f"{PREFIX}WRITERS"
SECRETS_SETTING = f"{PREFIX}SECRETS (the action's input secrets)"
"""How a message calls the setting `secrets`."""

LOG_LEVEL = "RUNNABLE_LOG_LEVEL"
"""The variable that tells steps what to log."""
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
"""What a run's steps are asked to log: this, and what is more important."""
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
    writers: str | None = Field(
        None,
        description="Whose parts of a published run are used, as in `--writers`. Default: in a job those of its own "
        "branch and of the default branch, elsewhere everybody's.",
    )
    publish: Literal["at-end", "as-you-go"] | None = Field(
        None, description="When `run` and `retry` publish, without `--publish`. Default: they do not."
    )
    plain_http: bool = Field(False, description="Allow plain HTTP for registries on other machines too.")
    blob_max_mib: int = Field(
        4096, ge=1, description="Content larger than so many MiB is published in pieces of that size."
    )
    github_token: SecretStr | None = Field(
        None, description="Token for GitHub's REST API and, where it is github.com's, for ghcr.io."
    )
    container_image_digest: str = Field(
        "", pattern=IMAGE, description="Image of the container in which this runs, `NAME@sha256:…` or a digest."
    )
    container_engine: Literal["docker", "podman", "apptainer", "singularity"] | None = Field(
        None, description="What runs steps with `container`. Default: the first of these that is there and answers."
    )
    reuse_key: SecretStr | None = Field(
        None,
        description="A secret of your own by which secrets that a step reads are compared with those of another run. "
        "Default: a step that reads a secret is not reused across runs.",
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
