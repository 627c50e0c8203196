"""The git program: one function that starts it, with all switched off that a repository could make it run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runnable_ci.errors import TOO_LITTLE, CodeIdentityError, NotARepositoryError
from runnable_ci.observe.looks import announced_git
from runnable_ci.util.console import is_actions
from runnable_ci.util.process import run_together, run_with_input
from runnable_ci.util.process_output import Finished
from runnable_ci.vcs.git_files import is_bare, repository_root

COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
PATHS_PER_CALL: Final = 256
"""How many paths a command line may have: 256 of the longest possible are below Linux's limit."""
NO_PROTOCOL: Final = "none"
_FATAL: Final = 128
"""The one exit code of git for all that stops it. Source: git's api-error-handling, `die`."""

NOT_INHERITED: Final = frozenset(
    {
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"),
        *("GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
    }
)
"""Set by git for its hooks: with them, git would look at (and `rebuild` write to) another repository than ours."""
SAFE_OPTIONS: Final = (
    *("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"),
    *("-c", "core.safecrlf=false", "-c", "safe.bareRepository=explicit"),
)
"""No program that a repository's own configuration names is started, and nothing of the user's is written.

A bare repository that lies in a clone as plain files would bring a configuration of its own.
"""
_SAFE_ENVIRONMENT: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}


def closed_environment(environ: Mapping[str, str], *, protocols: str = NO_PROTOCOL) -> dict[str, str]:
    """Return the environment of a git that stays in its repository, and transfers by no protocol but these
    (`https:ssh`).
    """
    inherited = {name: value for name, value in environ.items() if name not in NOT_INHERITED}
    return {**inherited, **_SAFE_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": protocols}


def safe_options(folder: str, environ: Mapping[str, str]) -> list[str]:
    """Return git's options in a folder: `SAFE_OPTIONS`, and in a job that it reads the checkout of another user.

    In a container job that is often another user, and git would refuse it. Source: git-config, safe.directory; before
    git 2.38 it counts in files alone.
    """
    workspace = environ.get("GITHUB_WORKSPACE", "") if is_actions(environ) else ""
    root = repository_root(Path(folder).resolve(), environ) if workspace else None
    is_checkout = root is not None and root.is_relative_to(Path(workspace).resolve())
    return [*SAFE_OPTIONS, *(("-c", f"safe.directory={root}") if is_checkout else ())]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Git:
    """git in one folder. A missing object is not fetched, unless transfer by some `protocols` is allowed."""

    folder: str
    environ: Mapping[str, str]
    protocols: str = NO_PROTOCOL

    def __call__(
        self,
        *arguments: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        no: int = 0,
    ) -> bytes:
        """Return git's standard output. Raises `CodeIdentityError` where git fails, refuses, or is not installed.

        `no` is an exit code by which a command answers so, and does not fail.
        """
        if not options:  # which may name the repository
            self._require_work_tree()
        closed = {**self._environment(), **(environ or {})}
        with _starting():
            done = run_with_input(self._command(*options, *arguments), stdin=stdin, env=closed)
        return done.stdout if done.code == no else self._output(arguments[0], done)

    def together(self, *commands: Sequence[str]) -> list[bytes]:
        """Return git's standard outputs of several commands that run at the same time. Raises the same."""
        self._require_work_tree()
        with _starting():
            done = run_together([self._command(*command) for command in commands], env=self._environment())
        return [self._output(command[0], one) for command, one in zip(commands, done, strict=True)]

    def _require_work_tree(self) -> None:
        """Refuse a bare repository: as plain files of a clone it brings settings. git before 2.38 would read them."""
        if is_bare(Path(self.folder).resolve(), self.environ):
            raise CodeIdentityError("a bare repository or a .git folder: no work tree")

    def _command(self, *words: str) -> list[str]:
        return ["git", "-C", self.folder, *safe_options(self.folder, self.environ), *words]

    def _environment(self) -> dict[str, str]:
        return closed_environment(self.environ, protocols=self.protocols)

    def _output(self, verb: str, done: Finished) -> bytes:
        if done.code:
            raise _refusal(self.folder, self.environ, verb, done.code, done.stderr)
        return done.stdout

    def has_commit(self, commit: str) -> bool:
        """Return whether the repository holds that commit; a shallow clone may not."""
        try:
            self("cat-file", "-e", f"{commit}^{{commit}}")
        except CodeIdentityError:
            return False
        return True


@contextmanager
def _starting() -> Iterator[None]:
    try:
        with announced_git():
            yield
    except FileNotFoundError as error:
        hint = "install git, so that runs record their code"
        raise CodeIdentityError("git is not installed", hint=hint) from error
    except (OSError, MemoryError) as error:
        why = error.strerror if isinstance(error, OSError) else "no memory"
        raise CodeIdentityError(f"git cannot be started: {why}", hint=TOO_LITTLE) from error


def _refusal(folder: str, environ: Mapping[str, str], verb: str, code: int, complaint: bytes) -> CodeIdentityError:
    """Return git's message as an error of this program.

    That there is no repository is looked up: git tells it by words alone.
    """
    place = Path(folder).resolve()
    if code == _FATAL and place.is_dir() and repository_root(place, environ) is None:
        return NotARepositoryError("not a git repository")
    text = complaint.decode(errors="replace")
    if "dubious ownership" in text:
        found = re.search(r"repository at '(.*)'", text)
        command = f"git config --global --add safe.directory {found[1] if found else '<folder>'}"
        return CodeIdentityError(f"git reports dubious ownership of this folder (safe.directory): run `{command}`")
    lines = [line for line in text.splitlines() if line.startswith(("fatal:", "error:"))] or text.splitlines()[-1:]
    return CodeIdentityError(f"git {verb} failed: {redacted('; '.join(lines[:3]))}")


def redacted(text: str) -> str:
    """Return a message of git without what URLs in it may carry: credentials and queries."""
    text = re.sub(r"://[^\s'\"]*@", "://", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)


def clean_url(url: str) -> str:
    """Return a remote's URL without password, token or query; `git@host:path` and local paths stay as they are."""
    if "::" in url.split("/", 1)[0]:  # a remote helper's own syntax (`ext::sh -c …`): anything may be in it
        return ""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return re.sub(r"^[^/:]*:[^/]*@", "", url)
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    if "@" in path and re.fullmatch(r"[^@:[]*:(?!\d*$)[^@]*", host):  # not a port: a password with a bare slash in it
        host, slash, path = path.rpartition("@")[2].partition("/")
    user, at, host = host.rpartition("@")
    login = user.partition(":")[0] if scheme.endswith("ssh") else ""
    return f"{scheme}://{login}{at if login else ''}{host}{slash}{path}"


def printable(text: bytes) -> str:
    """Return text that can be written as JSON, whatever bytes it came from: those that are not UTF-8 become `\\xNN`."""
    return text.decode("utf-8", "backslashreplace")
