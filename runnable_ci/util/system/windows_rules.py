"""Rules of Windows that are functions of text: which names a file can have there, and which `bash` is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

GIT_SHELLS = ("bash", "sh")
_NOT_IN_NAMES = frozenset('<>:"|?*\\') | {chr(code) for code in range(32)}
# Source: learn.microsoft.com, "Naming Files, Paths, and Namespaces".
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³")})


def is_valid_filename(name: str) -> bool:
    """Whether a file can have that path, whose parts are separated by `/`."""
    return all(
        _NOT_IN_NAMES.isdisjoint(part)
        and part.rstrip(". ") == part
        and part.partition(".")[0].rstrip().casefold() not in _DEVICES
        for part in name.split("/")
    )


def git_shell(name: str, which: Callable[[str], str | None], is_file: Callable[[Path], bool]) -> str | None:
    """`bash` or `sh` as GitHub's runners mean it: the one of Git for Windows, wherever its `git` is found.

    `which` finds programs on the PATH. What it finds in Windows' own folder under that name starts a Linux in a virtual
    machine, which knows no path of Windows: it is never meant.
    """
    found = which(name)
    if found is not None and Path(found).parent.name.casefold() not in ("system32", "sysnative", "windowsapps"):
        return found
    return next((str(path) for path in _of_git(name, which("git")) if is_file(path)), None)


def _of_git(name: str, git: str | None) -> Iterator[Path]:
    # `git` is in `cmd`, `bin` or `mingw64/bin` of the folder that has the shells in its `bin`.
    for folder in Path(git).parents[1:3] if git else ():
        yield folder / "bin" / f"{name}.exe"
