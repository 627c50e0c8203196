"""The packages that a run recorded, installed again by uv or pip: which an index may have, and which it lacks."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.engine.provenance.environment_changes import normalized
from runnable_ci.errors import StepError
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.util.process import run_bounded
from runnable_ci.util.text import printable

_INSTALL_S: Final = 1800.0
_OUTPUT_MAX: Final = 16 * 1024 * 1024
_NOT_INSTALLED: Final = frozenset({"pip", "setuptools", "wheel"})
_HALVES_MAX: Final = 12
"""How often half of the packages that are left is tried, to find the one that cannot be installed: 4,096 of them."""
_LACKING: Final = re.compile(
    r"no matching distribution|no versions? of|not found in the|no wheels? with|are no versions", re.IGNORECASE
)
_UNREACHABLE: Final = re.compile(r"Retrying \(|failed to fetch|connection error", re.IGNORECASE)
_IN_WORDS: Final = {
    "editable": "a folder, as editable",
    "folder": "a folder",
    "file": "a file",
    "url": "a URL",
    "git": "a git repository",
    "repository": "a repository",
}


class RecordedPackages(NamedTuple):
    """The packages of a run, by where they are available."""

    indexed: Sequence[str]
    """`NAME==VERSION`, which an index has."""
    local: Sequence[str]
    """The same with a local version (`1.0+cpu`), which few indexes have, and none that anybody may publish to."""
    others: Mapping[str, str]
    """Those that came from no index, with why."""
    is_project_installed: bool
    """Whether the project itself was, which is in the tree."""


def sorted_packages(recorded: Environment, own: Container[str]) -> RecordedPackages:
    """Sort the packages of a run by where they are available; `own` are the names of the project itself."""
    indexed: list[str] = []
    local: list[str] = []
    others, is_project_installed = {}, False
    for name, version in recorded.packages.items():
        if (key := normalized(name)) in own:
            is_project_installed = True
        elif name in recorded.origins:
            origin = recorded.origins[name]
            others[name] = f"package {name} {version} was installed from {_IN_WORDS.get(origin, origin)}, not an index"
        elif ", " in version:  # as several interpreters of one step had it
            others[name] = f"package {name} was there in several versions, {version}"
        elif key not in _NOT_INSTALLED:
            (local if "+" in version else indexed).append(f"{name}=={version}")
    return RecordedPackages(indexed, local, others, is_project_installed)


def install(
    packages: RecordedPackages, installer: Sequence[str], tree: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Install the packages, and the project from the tree; return those that are not available, with why.

    `installer` is the command to which requirements are added. Raises `StepError` where one cannot be installed that
    an index had.
    """
    lacking = dict(packages.others)
    if packages.indexed and (said := _problem([*installer, *packages.indexed], environ)):
        raise _not_installed(*_culprit(packages.indexed, said, installer, environ))
    for requirement in packages.local:
        if _problem([*installer, requirement], environ):
            name, _, version = requirement.partition("==")
            lacking[name] = f"package {name} {version} has a local version, which no index here has"
    if packages.is_project_installed:
        run([*installer, "--editable", str(tree)], environ)
    return lacking


def run(argv: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run a command that makes a part of the environment. Raises `StepError` where it fails."""
    if said := _problem(argv, environ):
        raise StepError(f"the recorded environment cannot be made: {_last_line(said)}", hint=_use_these())


def _problem(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return what a command says that fails; empty where it succeeds. Raises `StepError` where it cannot run."""
    try:
        done = run_bounded(list(argv), stdin=b"", env=environ, timeout_s=_INSTALL_S, most=_OUTPUT_MAX)
    except (OSError, TimeoutError, OverflowError) as e:
        raise StepError(f"the recorded environment cannot be made: {e}", hint=_use_these()) from e
    return ((done.stderr or done.stdout).decode(errors="replace").strip() or "it failed") if done.code else ""


def _culprit(
    requirements: Sequence[str], said: str, installer: Sequence[str], environ: Mapping[str, str]
) -> tuple[str, str]:
    """Return which of the requirements cannot be installed, and what is said of it.

    Where it is not named, half of those that are left is tried, again and again; empty where that finds none.
    """
    named = [it for it in requirements if re.search(rf"(?<![\w.-]){re.escape(it)}(?![\w+!-]|\.\w)", said)]
    if len(named) == 1:
        return named[0], said
    left = list(named or requirements)
    for _ in range(_HALVES_MAX):
        if len(left) == 1:
            alone = _problem([*installer, *left], environ)
            return (left[0], alone) if alone else ("", said)
        half = left[: len(left) // 2]
        left = half if _problem([*installer, *half], environ) else left[len(half) :]
    return "", said


def _not_installed(requirement: str, said: str) -> StepError:
    problem = "the recorded environment cannot be made"
    if not requirement:
        return StepError(f"{problem}: {_last_line(said)}", hint=_use_these())
    name, _, version = requirement.partition("==")
    if _LACKING.search(said) and not _UNREACHABLE.search(said):
        return StepError(
            f"{problem}: no index here has {name} {version}",
            hint=f"it may have been removed, or be on another index, which PIP_EXTRA_INDEX_URL or UV_INDEX names; "
            f"{_use_these()}",
        )
    return StepError(f"{problem}: {name} {version} cannot be installed: {_last_line(said)}", hint=_use_these())


def _use_these() -> str:
    return "without --environment recorded the packages that are here are used, and named"


def _last_line(said: str) -> str:
    """Return the last line of what an installer said that is not its own advice."""
    lines = [line for line in said.splitlines() if line.strip() and not line.strip().startswith(("hint:", "note:"))]
    return printable(lines[-1].strip()) if lines else "it failed"
