"""Which registry is used where none is specified, and with which credentials."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runnable_ci.config import INPUT_PREFIX, Settings
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.command_line import http_option
from runnable_ci.runs.reader import LATEST
from runnable_ci.store.auth import Advice
from runnable_ci.store.reference import (
    COMPONENT,
    GITHUB_REGISTRY,
    Credentials,
    Reference,
    component_of,
    parse_reference,
)
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import DIGEST
from runnable_ci.util.console import is_actions
from runnable_ci.util.github_host import GITHUB, github_host
from runnable_ci.util.shell_command import command

PULL_REQUESTS = "pull-requests"
"""Below the registry of the branches' runs, by default."""
REF_VARIABLES = ("GITHUB_HEAD_REF", "GITHUB_REF")
"""By these a job of a pull request is known: the first is set only for some of its events."""
_PASSWORD = "RUNNABLE_CI_REGISTRY_PASSWORD"  # noqa: S105 - the name of a variable
_USERNAME = "RUNNABLE_CI_REGISTRY_USERNAME: ${{ github.actor }}"


@dataclass(frozen=True, slots=True)
class Registries:
    """Opens registries by the settings.

    The settings' password goes only to a host that a person named: in the settings, or in what `given`, `named` or a
    reference hold. What a repository's file, a log or a default says is no such word.
    """

    settings: Settings
    environ: Mapping[str, str]

    def named(self, given: str | None, *, in_pipeline: Callable[[], str | None]) -> Registry:
        """Return the registry that was named, else that of the settings, of the pipeline file, of the GitHub
        repository.

        Raises `UsageError` where there is none, or where it is not a repository.
        """
        own = given or self.settings.registry
        text = given or self.default(in_pipeline=in_pipeline)
        if text is None:
            raise self._missing()
        try:
            where = parse_reference(text)
        except UsageError as e:
            e.fix = self._naming(self._example(github_host(self.environ)))
            raise
        if where.reference is not None:
            reason = f"{text} is the reference of a run, not a registry"
            raise UsageError(reason, hint=f"use {where.repository}", fix=self._naming(where.repository))
        return self.open(where, is_named=own is not None)

    def default(self, *, in_pipeline: Callable[[], str | None]) -> str | None:
        """Return the registry to use where none is specified."""
        return self.settings.registry or in_pipeline() or self._of_github()

    def run(self, run: str, source: str | None) -> tuple[Registry, str]:
        """Return the registry and the run id, `latest`, tag or digest that a reference names.

        Of an id `source` is the first.

        Raises `UsageError`.
        """
        if "/" not in run:
            return self.named(source, in_pipeline=lambda: None), run
        if source is not None:
            raise UsageError(f"{run} already includes its registry", hint="omit the option, or give only the run id")
        where = parse_reference(run)
        if where.reference is None:
            listing = command("runs", "--from", run, *http_option(self.settings.plain_http))
            raise UsageError(
                f"{run} does not specify a run", hint=f"{run}:latest is the newest; `{listing}` lists them"
            )
        return self.open(where), where.reference

    def recorded(self, repository: str, *, named: str | None = None) -> Registry:
        """Return a repository that a store names; `named` is the one that the command names."""
        where = parse_reference(repository)
        return self.open(where, is_named=named is not None and _is_same_host(parse_reference(named), where))

    def open(self, where: Reference, *, is_named: bool = True) -> Registry:
        """Return a repository; `is_named` where its host is a person's own word.

        With a registry in the settings, it alone is.

        `GITHUB_TOKEN` is there for `ghcr.io`, and only where it is one of github.com's.
        """
        own = self.settings.registry
        if own is not None:
            is_named = _is_same_host(parse_reference(own), where)
        username, password = self.settings.registry_username, self.settings.registry_password
        token = self.settings.github_token
        environ = {**self.environ, "GITHUB_TOKEN": token.get_secret_value()} if token else self.environ
        return Registry(
            Reference(where.host, where.path, None),
            environ=environ,
            credentials=Credentials(username or "", password.get_secret_value(), source=_PASSWORD)
            if password and is_named
            else None,
            plain_http=self.settings.plain_http,
            blob_max_bytes=self.settings.blob_max_mib * 1024**2,
            advice=self._advice(where, is_named=is_named),
        )

    def _advice(self, where: Reference, *, is_named: bool) -> Advice | None:
        """Return what to do should a registry refuse us, where something that we have is not for it."""
        if self.settings.registry_password and not is_named:
            own = self.settings.registry
            whose = (
                f"it is for {parse_reference(own).host} (RUNNABLE_CI_REGISTRY)"
                if own
                else "that host was not specified by you"
            )
            return Advice(
                f"{_PASSWORD} is not sent to {where.host}: {whose}; to allow it, set "
                f"RUNNABLE_CI_REGISTRY={where.repository}",
                fix=self._variables(f"RUNNABLE_CI_REGISTRY: {where.repository}"),
            )
        server = github_host(self.environ)
        has_token = bool(self.settings.github_token or self.environ.get("GITHUB_TOKEN"))
        if where.host == GITHUB_REGISTRY and has_token and server != GITHUB and not self.settings.registry_password:
            secret = f"{_PASSWORD}: ${{{{ secrets.GHCR_TOKEN }}}}"
            return Advice(
                f"the token belongs to {server} and is not sent to {where.host}: `docker login {where.host}`, or set "
                f"RUNNABLE_CI_REGISTRY={where.repository}, RUNNABLE_CI_REGISTRY_USERNAME and {_PASSWORD}",
                fix=self._variables(f"RUNNABLE_CI_REGISTRY: {where.repository}", _USERNAME, secret),
            )
        return None

    def _variables(self, *assigned: str) -> str:
        """Return lines of a workflow that set variables; empty outside of a job."""
        return "\n".join(["env:", *(f"  {line}" for line in assigned)]) if self._in_job and assigned else ""

    @property
    def _in_job(self) -> bool:
        return is_actions(self.environ)

    @property
    def _in_action(self) -> bool:
        return any(name.startswith(INPUT_PREFIX) for name in self.environ)

    @property
    def _is_of_pull_request(self) -> bool:
        head, ref = (self.environ.get(name, "") for name in REF_VARIABLES)
        return bool(head) or ref.startswith("refs/pull/")

    @property
    def _repository(self) -> str:
        """OWNER/NAME as the job, or a person, says it."""
        return self.environ.get("GITHUB_REPOSITORY", "").strip().lower()

    def _of_github(self) -> str | None:
        """Return where the runs of a job go by themselves: `ghcr.io` is that of github.com, and of no other server.

        Those of pull requests go elsewhere than those of branches, so that no retry of a branch finds them by an id.
        A repository whose name no registry takes has a similar one there; an owner has none, since any other name may
        be another owner's.
        """
        owner, _, name = self._repository.partition("/")
        if not self._in_job or github_host(self.environ) != GITHUB or not COMPONENT.fullmatch(owner) or not name:
            return None
        path = f"{owner}/{component_of(name)}/runs" + (f"/{PULL_REQUESTS}" if self._is_of_pull_request else "")
        return f"{GITHUB_REGISTRY}/{path}"

    def _missing(self) -> UsageError:
        """Return the error that says how to name a registry, in the words of where we are."""
        host = github_host(self.environ)
        example = self._example(host)
        reason = "" if host == GITHUB else f": {GITHUB_REGISTRY} is github.com's, and the server here is {host}"
        if not self._in_job:
            return UsageError(
                f"no registry is set{reason}",
                hint=f"specify one ({example}), set RUNNABLE_CI_REGISTRY, "
                f'or add it to the pipeline file: registry = "{example}"',
            )
        if host == GITHUB and self._repository:
            owner = self._repository.partition("/")[0]
            reason = f": no registry takes the owner's name, {owner}, so {GITHUB_REGISTRY} has no place for it"
        login = [] if host == GITHUB else [_USERNAME, f"{_PASSWORD}: ${{{{ github.token }}}}"]
        hint = f"name one {'where the action is used' if self._in_action else 'for the job'}, such as:"
        return UsageError(f"no registry is set{reason}", hint=hint, fix=self._naming(example, *login))

    def _naming(self, repository: str, *login: str) -> str:
        """Return lines of a workflow that name a registry, and how to log in; empty outside of a job."""
        if not self._in_action:
            return self._variables(f"RUNNABLE_CI_REGISTRY: {repository}", *login)
        return "\n".join(filter(None, [f"with:\n  registry: {repository}", self._variables(*login)]))

    def _example(self, host: str) -> str:
        """Return a likely registry at the server of the job; with a valid repository name."""
        owner = self._repository.partition("/")[0]
        words = [re.sub(r"[^a-z0-9]+", "-", word).strip("-") for word in self._repository.split("/")]
        path = "/".join(words) if len(words) == 2 and all(words) else "owner/repo"
        if host == GITHUB:
            return f"{GITHUB_REGISTRY if not owner or COMPONENT.fullmatch(owner) else 'HOST'}/{path}/runs"
        # Gitea and Forgejo have packages at their own host, GitHub's servers beside it.
        is_own = any(self.environ.get(name) == "true" for name in ("GITEA_ACTIONS", "FORGEJO_ACTIONS"))
        return f"{host if is_own else f'containers.{host}'}/{path}/runs"


def split_run(text: str) -> tuple[str, str, str]:
    """Return registry, run id and digest of `[HOST/PATH:]RUN_ID[@DIGEST]`. Raises `UsageError`."""
    before, _, digest = text.partition("@")
    if "/" not in before:
        if digest and not DIGEST.fullmatch(digest):
            raise UsageError(f"{text}: {digest!r} is not a digest", hint="only sha256 digests are accepted")
        return "", before, digest
    registry = parse_reference(text).repository
    if not (run_id := before.removeprefix(registry).removeprefix(":")) or run_id == LATEST:
        raise UsageError(f"{text} does not name a run by its id", hint=f"write it as {registry}:RUN_ID")
    return registry, run_id, digest


def _is_same_host(one: Reference, other: Reference) -> bool:
    return one.host.lower() == other.host.lower()
