"""Which registry is meant where none is named, and as whom each is spoken to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runnable_ci.command_line import http_option
from runnable_ci.errors import UsageError
from runnable_ci.settings import Settings
from runnable_ci.shell_command import command
from runnable_ci.store.access import GITHUB_REGISTRY, Credentials, Reference, parse_reference
from runnable_ci.store.registry import Registry


@dataclass(frozen=True, slots=True)
class Registries:
    """Opens registries by the settings."""

    settings: Settings
    environ: Mapping[str, str]

    def named(self, given: str | None, *, in_pipeline: Callable[[], str | None]) -> Registry:
        """The registry that was named, else that of the settings, of the pipeline file, of the GitHub repository.

        Raises `UsageError` where there is none, or where it is not a repository.
        """
        text = given or self.default(in_pipeline=in_pipeline)
        if text is None:
            raise UsageError(
                "no registry is known",
                hint="name one (ghcr.io/owner/repo/runs), set RUNNABLE_CI_REGISTRY, "
                'or add it to the pipeline file: registry = "ghcr.io/owner/repo/runs"',
            )
        where = parse_reference(text)
        if where.reference is not None:
            raise UsageError(f"{text} names one run, not a registry", hint=f"use {where.repository}")
        return self.open(where)

    def default(self, *, in_pipeline: Callable[[], str | None]) -> str | None:
        """The registry that is meant where none is named."""
        return self.settings.registry or in_pipeline() or self._of_github()

    def run(self, run: str, source: str | None) -> tuple[Registry, str]:
        """The registry and the run id, `latest`, tag or digest that a reference names; of an id `source` is the first.

        Raises `UsageError`.
        """
        if "/" not in run:
            return self.named(source, in_pipeline=lambda: None), run
        if source is not None:
            raise UsageError(f"{run} names its registry already", hint="leave it away, or give the run id alone")
        where = parse_reference(run)
        if where.reference is None:
            listing = command("runs", "--from", run, *http_option(self.settings.plain_http))
            raise UsageError(f"{run} names no run", hint=f"{run}:latest is the newest; `{listing}` lists them")
        return self.open(where), where.reference

    def recorded(self, repository: str, *, in_pipeline: Callable[[], str | None]) -> Registry:
        """A repository that a store names: as such it is no place where the settings' password goes."""
        where = parse_reference(repository)
        default = self.default(in_pipeline=in_pipeline)
        return self.open(where, is_meant=default is not None and parse_reference(default).host == where.host)

    def open(self, where: Reference, *, is_meant: bool = True) -> Registry:
        """A repository; `is_meant` where its name is the user's own word."""
        if self.settings.registry is not None:
            is_meant = parse_reference(self.settings.registry).host == where.host
        username, password = self.settings.registry_username, self.settings.registry_password
        known = Credentials(username or "", password.get_secret_value()) if password and is_meant else None
        token = self.settings.github_token
        environ = {**self.environ, "GITHUB_TOKEN": token.get_secret_value()} if token else self.environ
        return Registry(
            Reference(where.host, where.path, None),
            environ=environ,
            credentials=known,
            plain_http=self.settings.plain_http,
        )

    def _of_github(self) -> str | None:
        repository = self.environ.get("GITHUB_REPOSITORY", "")
        if self.environ.get("GITHUB_ACTIONS") != "true" or not repository:
            return None
        return f"{GITHUB_REGISTRY}/{repository.lower()}/runs"
