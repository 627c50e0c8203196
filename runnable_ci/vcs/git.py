"""The git program: the only importer of GitPython, which takes tens of milliseconds to import; import this late."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import BinaryIO, Final, cast

from runnable_ci.errors import TOO_LITTLE, CodeIdentityError, NotARepositoryError

# Importing GitPython fails where git is not installed, unless told not to; the steps' environment must not see that.
_refresh = os.environ.get("GIT_PYTHON_REFRESH")
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
try:
    from git.cmd import Git as _GitPython
    from git.exc import GitCommandNotFound
except ImportError as e:  # it starts git to see whether it can
    if not isinstance(e.__cause__, OSError):
        raise
    raise CodeIdentityError(f"git cannot be started: {e.__cause__.strerror}", hint=TOO_LITTLE) from e
finally:
    if _refresh is None:
        del os.environ["GIT_PYTHON_REFRESH"]
    else:
        os.environ["GIT_PYTHON_REFRESH"] = _refresh

COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
PATHS_PER_CALL: Final = 256
"""How many paths go on one command line: 256 of the longest possible stay below Linux's limit."""

# Set by git for its hooks: with them, git would look at (and `rebuild` write to) another repository than ours.
_NOT_INHERITED: Final = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS"),
    *("GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE"),
)
# No program that a repository's own configuration names is started, and nothing of the user's is written. Filters stay:
# without them every file of git-lfs would count as changed.
_SAFE_OPTIONS: Final = (
    *("--no-pager", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false"),
    *("-c", "core.safecrlf=false"),
)
_SAFE_ENVIRONMENT: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}


@dataclass(frozen=True, slots=True)
class Git:
    """git in one folder, with all switched off that a repository could make it run."""

    folder: str
    environ: Mapping[str, str]

    def __call__(
        self,
        *arguments: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        stdin: bytes = b"",
    ) -> bytes:
        """Its standard output. `CodeIdentityError` where git fails, says no, or is not installed."""
        inherited = [name for name in _NOT_INHERITED if name in os.environ or name in self.environ]
        command = ["env", *(f"--unset={name}" for name in inherited)] if inherited else []
        command += ["git", "-C", self.folder, *_SAFE_OPTIONS, *options, *arguments]
        with TemporaryFile() as source:
            source.write(stdin)
            source.seek(0)
            try:
                status, output, complaint = _GitPython().execute(
                    command,
                    cast("BinaryIO", source),
                    with_extended_output=True,
                    with_exceptions=False,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    env={**self.environ, **_SAFE_ENVIRONMENT, **(environ or {})},
                )
            except GitCommandNotFound as error:
                hint = "install git, so that runs know their code"
                raise CodeIdentityError("git is not installed", hint=hint) from error
            except OSError as error:
                raise CodeIdentityError(f"git cannot be started: {error.strerror}") from error
        if status:
            raise _refusal(complaint, arguments[0])
        return output

    def has_commit(self, commit: str) -> bool:
        """Whether the repository holds that commit; a shallow clone may not."""
        try:
            self("cat-file", "-e", f"{commit}^{{commit}}")
        except CodeIdentityError:
            return False
        return True


def _refusal(complaint: str | bytes, verb: str) -> CodeIdentityError:
    """What git says as an error of ours: it has one exit code, 128, for all that stops it, and tells by words alone."""
    text = complaint if isinstance(complaint, str) else complaint.decode(errors="replace")
    if "dubious ownership" in text:
        found = re.search(r"repository at '(.*)'", text)
        command = f"git config --global --add safe.directory {found[1] if found else '<folder>'}"
        return CodeIdentityError(f"git refuses this folder, another user's (safe.directory): run `{command}`")
    if "not a git repository" in text:
        return NotARepositoryError("not a git repository")
    if "must be run in a work tree" in text:
        return CodeIdentityError("a bare repository or a .git folder: no work tree")
    lines = [line for line in text.splitlines() if line.startswith(("fatal:", "error:"))] or text.splitlines()[-1:]
    return CodeIdentityError(f"git {verb} failed: {redacted('; '.join(lines[:3]))}")


def redacted(text: str) -> str:
    """A message of git without what URLs in it may carry: credentials and queries."""
    text = re.sub(r"://[^\s'\"]*@", "://", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)


def clean_url(url: str) -> str:
    """A remote's URL without password, token or query; `git@host:path` and local paths stay as they are."""
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
    """Text that can be written as JSON, whatever bytes it came from: those that are not UTF-8 become `\\xNN`."""
    return text.decode("utf-8", "backslashreplace")
