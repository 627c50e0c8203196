"""Everything that can go wrong, as data: one class a cause, each with its exit code.

Raised where the cause is known, caught once in `cli.py`. A traceback on the terminal is an unexpected error.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

TOO_LITTLE = "a limit on processes or memory is reached: raise it, or run fewer steps in parallel (--jobs)"
"""The hint where the system refuses another thread or process."""

STOPPED_IN_TIME = 75
"""The exit code of a run that its time budget ended: a retry resumes it. EX_TEMPFAIL of sysexits(3)."""

FREE_SPACE = "free some space, then try again"
_TOO_FEW_FILES = "raise the limit on open files (ulimit -n), or run fewer steps in parallel (--jobs)"
_GONE = "it was removed meanwhile: run again"
_IN_THE_WAY = "move it away"
_CLOSED = "check whose it is, and its permissions"
_HINTS = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EROFS: "make it writable, then try again",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EMFILE: _TOO_FEW_FILES,
    errno.ENFILE: _TOO_FEW_FILES,
    errno.E2BIG: "put large parameters and variables into files",
    errno.EAGAIN: TOO_LITTLE,
    errno.ENOMEM: TOO_LITTLE,
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.EIO: "check the disk: the system's log says more",
}


class RunnableError(Exception):
    """A cause that the user can act upon: what and where in `message`, what to do in `hint`.

    `fix` is what to write into a file for it, as it stands there, such as lines of a workflow.
    """

    exit_code = 1
    excerpt: Sequence[str] = ()
    """The lines of a file that are shown between message and hint."""

    def __init__(self, message: str, *, hint: str = "", fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fix = fix

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """Return what a person reads, line by line; a hint may have several."""
        hint = f"hint: {self.hint}".split("\n") if self.hint else []
        return [f"error: {self.message}", *self.excerpt, *hint, *self.fix.splitlines()]


class OutputError(RunnableError):
    """What a command was asked for cannot be written to stdout."""

    @classmethod
    def of(cls, e: OSError) -> OutputError:
        """Return what such an error says to a person."""
        return cls(f"stdout cannot be written: {e.strerror}")


class PipelineError(RunnableError):
    """The pipeline file cannot be used; nothing was run."""

    exit_code = 2

    def __init__(
        self, message: str, *, hint: str = "", excerpt: Sequence[str] = (), file: str = "", line: int = 0
    ) -> None:
        super().__init__(message, hint=hint)
        self.excerpt = excerpt
        self.file = file
        """As messages name it."""
        self.line = line
        """0 where it is not known."""


class UsageError(RunnableError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class RunNotFoundError(RunnableError):
    """No run of that id or reference."""

    exit_code = 2


class RunExistsError(UsageError):
    """A new run has the id of another one."""


class RunInUseError(RunnableError):
    """Another process is writing this run."""


class RunLogError(RunnableError):
    """A run log that cannot be read: damaged, or written by something else."""


class StoreError(RunnableError):
    """A store (layout or registry) could not be read or written."""


class ManifestNotFoundError(StoreError):
    """The store has no manifest of that tag or digest."""

    exit_code = 2


class BlobMissingError(StoreError):
    """The store does not hold that content."""


class BlobCorruptError(StoreError):
    """Content that does not match its digest or size; it was not used."""


class RegistryAuthError(StoreError):
    """The registry does not let us in, or not that far."""


class RegistryProtocolError(StoreError):
    """The server answers in a way that no registry should; nothing of the response was used."""


class ManifestRefusedError(RegistryProtocolError):
    """The registry takes no manifest of that kind; another one may be taken."""


class UnsafePathError(RunnableError):
    """A path that would leave the folder it belongs to."""


class CodeIdentityError(RunnableError):
    """The code of a run cannot be recorded or rebuilt."""


class NotARepositoryError(CodeIdentityError):
    """A folder that is not in a git repository."""


class SystemCallError(RunnableError):
    """The operating system refused something: a full or broken disk, a limit, a file that is in the way or gone."""

    @classmethod
    def of(cls, e: OSError, *, where: str = "") -> SystemCallError:
        """Return what such an error says to a person: which file, else `where`; why, and what to do."""
        path = e.filename2 or e.filename
        if isinstance(path, bytes):
            path = path.decode(errors="backslashreplace")
        name = f"{path}" if path and not isinstance(path, int) else where
        reason = e.strerror or str(e) or type(e).__name__
        return cls(f"cannot use {name}: {reason}" if name else reason, hint=_HINTS.get(e.errno or 0, ""))


@contextmanager
def system_errors(where: str = "") -> Iterator[None]:
    """Turn what the operating system refuses in the block into a `SystemCallError`; `where` names a nameless file."""
    try:
        yield
    except OSError as e:
        raise SystemCallError.of(e, where=where) from e


class StepError(RunnableError):
    """A step cannot be started or its results cannot be taken."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint naming the closest of `known` (or one of the same letters), or `otherwise` where nothing is
    close.
    """
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6) or [n for n in names if sorted(n) == sorted(word)]
    return f"did you mean `{close[0]}`?" if close else otherwise
