"""Whether a step would run in the same environment as an attempt did: the first difference, in one line. Pure.

Where a resume trusts the person and only names what differs (`environment_changes`), this demands that all is known
and equal: it decides on results of another run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final

from runnable_ci.engine.provenance.environment_changes import normalized
from runnable_ci.engine.provenance.step_variables import ALWAYS, ANY, SECRET
from runnable_ci.runs.machines.environment_model import Environment

_NO_LOCKS: Final = ("pyproject.toml",)
"""Among the files that are recorded those that lock nothing; where a step reads one, that is compared."""


def first_environment_difference(
    then: Environment, now: Environment, *, imported: Mapping[str, str] | None, is_command: bool
) -> str:
    """Return in what the environment differs from that of an attempt; empty where it is proven to be equal.

    `imported` are the distributions that a step was seen to import, name → version; None where that was not seen: all
    that is installed counts. A command (`is_command`) may use all packages of its python, and what the lock files of
    the workspace list.
    """
    return next(_differences(then, now, None if is_command else imported, is_command=is_command), "")


def first_variable_difference(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return which variable differs, of those that count: those of an attempt, and those of its step now.

    Values are never shown: only digests are known.
    """
    if ANY in {**then, **now}:
        return "its command may read any variable, and `env-read` does not say which it reads"
    for name in sorted({*then, *now}):
        if SECRET in (then.get(name), now.get(name)):
            return f"{name} is secret, and there is no reuse key to compare it by"
        # What is not set is recorded as such where it counted: else nobody knows what it was.
        was_unknown = name not in then and name not in ALWAYS
        if was_unknown and not now[name]:
            return f"{name} was not recorded"
        if then.get(name, "") != now.get(name, ""):
            return f"{name} differs"
    return ""


def first_secret_difference(names: Collection[str], then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return which of these secret parameters is not proven to be equal: by the `secret_values` of an attempt."""
    for name in names:
        if name not in then or name not in now:
            return f"parameter {name} is secret, and there is no reuse key to compare it by"
        if then[name] != now[name]:
            return f"parameter {name} differs"
    return ""


def _differences(
    then: Environment, now: Environment, imported: Mapping[str, str] | None, *, is_command: bool
) -> Iterator[str]:
    yield from _changed("system", _kernel(then.os), _kernel(now.os))
    yield from _changed("architecture", then.architecture, now.architecture)
    yield from _changed("system", then.distribution, now.distribution)
    yield from _changed("C library", then.libc, now.libc)
    has_python = bool(then.interpreter and then.interpreter_version)
    locks, locks_now = _locks(then), _locks(now)
    if is_command and not has_python and not locks:
        yield "neither a python nor a lock file tells what its command runs with"
    if not is_command and not has_python:
        yield "what its interpreter is was not recorded"
    yield from _changed("python", then.interpreter_version, now.interpreter_version)
    packages = then.packages if imported is None else {normalized(name): it for name, it in imported.items()}
    names = {*packages, *now.packages} if imported is None else packages
    for name in sorted(names):
        yield from _changed(name, packages.get(name, ""), now.packages.get(name, ""), absent="not installed")
    if is_command:
        for name in sorted({*locks, *locks_now}):
            if locks.get(name) != locks_now.get(name):
                yield f"{name} was {'changed' if name in locks and name in locks_now else _side(name, locks)}"


def _side(name: str, then: Mapping[str, str]) -> str:
    return "removed" if name in then else "added"


def _changed(what: str, then: str, now: str, *, absent: str = "unknown") -> Iterator[str]:
    if then != now:
        yield f"{what} {then or absent} → {now or absent}"


def _kernel(text: str) -> str:
    """Return the system without its release, which changes with each update."""
    return text.partition(" ")[0]


def _locks(environment: Environment) -> dict[str, str]:
    return {name: digest for name, digest in environment.lock_files.items() if name not in _NO_LOCKS}
