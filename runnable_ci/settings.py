"""Our own settings, from environment variables `RUNNABLE_CI_…`; nothing else reads those."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from runnable_ci.errors import UsageError

PREFIX = "RUNNABLE_CI_"
SECRETS = frozenset({f"{PREFIX}REGISTRY_PASSWORD"})
"""Variables that are nobody's business but ours: no step gets them."""


class Settings(BaseModel):
    """What can be set for all commands; an option on the command line goes first."""

    model_config = ConfigDict(extra="forbid", defer_build=True)

    jobs: int | None = Field(None, ge=1, description="How many steps run at once. Default: the number of cores.")
    registry: str | None = Field(None, description="Where runs are published, such as `ghcr.io/owner/repo/runs`.")
    registry_username: str | None = Field(None, description="User of that registry. Default: docker's credentials.")
    registry_password: SecretStr | None = Field(None, description="That user's password or token.")
    plain_http: bool = Field(False, description="Speak plain http to registries on other machines too.")


def load(environ: Mapping[str, str]) -> Settings:
    """The settings; pydantic-settings is loaded only where a variable is set, since that takes longer than a step."""
    if not any(name.upper().startswith(PREFIX) for name in environ):
        return Settings(jobs=None)
    from pydantic import ValidationError
    from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

    class FromEnvironment(Settings, BaseSettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_usual: PydanticBaseSettingsSource, **_named: object
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            given = EnvSettingsSource(settings_cls)
            given.env_vars = {name.lower(): value for name, value in environ.items()}
            return (given,)

    try:
        return FromEnvironment()
    except ValidationError as e:
        first = e.errors()[0]
        raise UsageError(f"{PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}") from e
