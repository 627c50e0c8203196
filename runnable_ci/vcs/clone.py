"""A repository as GitPython's objects. It takes tens of milliseconds to import: for commands that run no step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from configparser import Error as ConfigError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnable_ci.errors import CodeIdentityError
from runnable_ci.observe.looks import announced_git
from runnable_ci.vcs.git import NOT_INHERITED, Git, clean_url, closed_environment, redacted, safe_options


@contextmanager
def _own_environment(**values: str | None) -> Iterator[None]:
    """Replace environment variables that GitPython reads, in the block; not thread-safe."""
    earlier = {name: os.environ.pop(name, None) for name in values}
    os.environ.update({name: value for name, value in values.items() if value is not None})
    try:
        yield
    finally:
        for name, value in earlier.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


with _own_environment(GIT_PYTHON_REFRESH="quiet"):  # else, where git is missing, it cannot even be imported
    import git


class _SafeGit(git.cmd.Git):
    """How GitPython starts git, made as safe as our own way: see `vcs.git`."""

    def execute(self, command: str | Sequence[Any], *arguments: Any, **options: Any) -> Any:
        """Run git."""
        words = [command] if isinstance(command, str) else list(command)
        # GitPython adds our own process's environment to what it was given.
        surplus = [f"--unset={name}" for name in os.environ if name not in self.environment()]
        cleaned = ["env", *surplus] if surplus else []
        safe = safe_options(str(self.working_dir or Path.cwd()), self.environment())
        with announced_git():
            return super().execute([*cleaned, words[0], *safe, *words[1:]], *arguments, **options)


class _SafeRepo(git.Repo):
    GitCommandWrapperType = _SafeGit


@dataclass(frozen=True, slots=True)
class Clone:
    """The git repository around a folder."""

    root: Path
    repo: git.Repo
    git: Git
    """For what GitPython reads from files that newer repositories no longer have, such as branches (reftable)."""

    @classmethod
    def around(cls, folder: Path, environ: Mapping[str, str]) -> Clone:
        """Raise `NotARepositoryError` where there is none, `CodeIdentityError` where git refuses the folder."""
        ask = Git(str(folder.resolve()), environ)
        root = Path(os.fsdecode(ask("rev-parse", "--show-toplevel")).removesuffix("\n"))
        with _errors(), _own_environment(**dict.fromkeys(NOT_INHERITED)):
            repo = _SafeRepo(root, expand_vars=False)
        repo.git.update_environment(**closed_environment(environ))
        return cls(root, repo, Git(str(root), environ))

    def head(self) -> str:
        """Return the commit that is checked out; empty where there is none."""
        return self._line("rev-parse", "--verify", "--quiet", "HEAD")

    def branch(self) -> str:
        """Return the branch that is checked out, also one without a commit; empty where HEAD is detached."""
        return self._line("symbolic-ref", "--quiet", "--short", "HEAD")

    def remote_url(self) -> str:
        """Return the URL of `origin`, else of the first remote, empty without one.

        What `url.….insteadOf` says counts.
        """
        return next(iter(self._urls()), "")

    def remote_urls(self) -> list[str]:
        """Return the URLs of all remotes, `origin` first, without credentials."""
        return [url for url in map(clean_url, self._urls()) if url]

    def commits_between(self, old: str, new: str) -> int | None:
        """Return how many commits `new` is ahead of `old`; None where it does not build on that, or one is not here."""
        try:
            first, last = self.repo.commit(old), self.repo.commit(new)
            if not self.repo.is_ancestor(first, last):
                return None
            return sum(1 for _ in self.repo.iter_commits(f"{first.hexsha}..{last.hexsha}"))
        except (git.exc.GitError, git.exc.ODBError, ValueError):
            return None

    def default_branch(self) -> str:
        """Return what a remote calls its HEAD, `origin` first; else main or master, where there is one.

        Else the current.
        """
        listed = self.git("for-each-ref", "--format=%(refname) %(symref)", "refs/heads", "refs/remotes")
        refs = dict(line.split(" ", 1) for line in listed.decode(errors="replace").splitlines())
        for prefix in (f"refs/remotes/{name}/" for name in self._remotes()):
            target = refs.get(f"{prefix}HEAD", "")
            if target.startswith(prefix):
                return target.removeprefix(prefix)
        for usual in ("main", "master"):
            if not refs.keys().isdisjoint({f"refs/heads/{usual}", f"refs/remotes/origin/{usual}"}):
                return usual
        return self.branch() or "main"

    def _remotes(self) -> list[str]:
        """Return the names of the remotes, `origin` first. GitPython's parser refuses settings that git reads."""
        return sorted(os.fsdecode(self.git("remote")).splitlines(), key=lambda name: name != "origin")

    def _urls(self) -> Iterator[str]:
        for name in self._remotes():
            with suppress(CodeIdentityError):  # it has none
                yield from os.fsdecode(self.git("remote", "get-url", "--all", "--", name)).splitlines()

    def _line(self, *arguments: str) -> str:
        try:
            return self.git(*arguments).decode(errors="replace").strip()
        except CodeIdentityError:
            return ""


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (git.exc.GitError, ConfigError, OSError) as e:
        raise CodeIdentityError(f"the repository cannot be read: {redacted(str(e))}") from e
