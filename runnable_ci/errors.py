"""Everything that can go wrong, as data: one class a cause, each with its exit code.

Raised where the cause is known, caught once in `cli.py`. A traceback on the terminal is an unexpected error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

TOO_LITTLE = "a limit on processes or memory is reached: raise it, or run fewer steps in parallel (--jobs)"
"""The hint where the system refuses another thread or process."""


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


class UnsafePathError(RunnableError):
    """A path that would leave the folder it belongs to."""


class CodeIdentityError(RunnableError):
    """The code of a run cannot be recorded or rebuilt."""


class NotARepositoryError(CodeIdentityError):
    """A folder that is not in a git repository."""


class StepError(RunnableError):
    """A step cannot be started or its results cannot be taken."""


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return a hint naming the closest of `known` (or one of the same letters), or `otherwise` where nothing is
    close.
    """
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6) or [n for n in names if sorted(n) == sorted(word)]
    return f"did you mean `{close[0]}`?" if close else otherwise
