"""In which kinds two runs differ: code, data, values, packages. And what else differs, which no run can take over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

from runnable_ci.analysis.attribution.effects import Kind
from runnable_ci.analysis.comparison.model import RunComparison, RunDifference
from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.analysis.comparison.wording import in_words
from runnable_ci.engine.provenance.staleness import PROGRAMS
from runnable_ci.runs.model import RunLog
from runnable_ci.store.opening import STORE_NAME

_OWN = frozenset({"__pycache__", ".git", STORE_NAME})
_HELD_OTHERWISE = frozenset({"image", "variable", "platform"})


@dataclass(frozen=True, slots=True)
class KindDifference:
    """What differs of one kind."""

    kind: Kind
    names: tuple[str, ...] = ()
    """In words; none where nothing does."""
    not_comparable: str = ""
    """Why it cannot be taken from one run for the other; empty where it can."""

    @property
    def is_swapped(self) -> bool:
        """Whether runs are made in which it is of the other run."""
        return bool(self.names) and not self.not_comparable


class _Files(NamedTuple):
    """What the steps of a run did with files, by their paths in the workspace."""

    modules: frozenset[str]
    read: frozenset[str]
    made: frozenset[str]
    put: frozenset[str]
    """Those of what they made that the catalog has."""

    @classmethod
    def of(cls, run: RunRead) -> _Files:
        """Gather them."""
        steps = run.log.steps.values()
        attempts = [attempt for step in steps for attempt in step.attempts]
        put = frozenset(entry.name for step in steps for entry in step.put_entries())
        inputs = {entry.name for step in steps for entry in step.data_catalog if entry.is_input and not entry.kind}
        return cls(
            frozenset(path for attempt in attempts for path in attempt.modules),
            frozenset(path for reads in run.reads.values() for path in reads.files) | inputs,
            put.union(path for attempt in attempts for path in attempt.made),
            put,
        )


def data_files(run: RunRead) -> frozenset[str]:
    """Return the files that steps of a run read, that no step made and that are no code; relative to the workspace."""
    files = _Files.of(run)
    found = files.read - files.modules - files.made
    return frozenset(path for path in found if not _is_code(path) and not path.startswith("/"))


def _is_code(path: str) -> bool:
    return PurePath(path).suffix in PROGRAMS or any(part in _OWN for part in PurePath(path).parts)


def values_of(log: RunLog) -> dict[str, Any]:
    """Return the parameters with which a run began; not those that were secrets."""
    last = log.invocations[-1] if log.invocations else None
    return {name: value for name, value in last.parameters.items() if name not in last.redacted} if last else {}


def code_names(compared: RunComparison, data: Iterable[str], prefix: str, runs: Iterable[RunRead]) -> tuple[str, ...]:
    """Return the files of code that differ, those that steps of the `runs` used first, and not what steps made.

    `prefix` is the path of the workspace in the repository.
    """
    if compared.code.not_known:
        return (f"{compared.code.commit_a[:12]} and {compared.code.commit_b[:12]}: {compared.code.not_known}",)
    files = [_Files.of(run) for run in runs]
    used = {f"{prefix}{path}" for one in files for path in one.modules | one.read}
    others = {f"{prefix}{path}" for path in data}.union(f"{prefix}{path}" for one in files for path in one.put)
    names = [one.name for one in compared.code.files if one.name not in others]
    return tuple(sorted(names, key=lambda name: name not in used))


def data_names(data: Iterable[str], contents: Mapping[str, tuple[str, str]]) -> tuple[str, ...]:
    """Return the files of data that differ; `contents` has the sha256 in both runs, empty where one has none."""
    return tuple(path for path in sorted(data) if contents[path][0] != contents[path][1])


def value_names(compared: RunComparison, a: RunLog, b: RunLog) -> tuple[str, ...]:
    """Return the parameters that differ."""
    known = {*values_of(a), *values_of(b)}
    return tuple(in_words(one) for one in compared.parameters if one.name in known)


def package_names(compared: RunComparison) -> tuple[str, ...]:
    """Return the packages, and the interpreter, in which steps differ that use them."""
    found = (one for step in compared.steps for one in step.inputs if one.kind in ("package", "interpreter"))
    return tuple(dict.fromkeys(in_words(one) for one in found if one.counts))


def other_differences(compared: RunComparison, a: RunLog, b: RunLog) -> tuple[str, ...]:
    """Return what differs beside the kinds, which no run here can take from A or B."""
    found: dict[str, None] = {}
    for step in compared.steps:
        for one in step.inputs:
            if one.kind in _HELD_OTHERWISE and not _is_own(one):
                found[in_words(one)] = None
    for log in (a, b):
        last = log.invocations[-1] if log.invocations else None
        for name in last.redacted if last else ():
            found[f"`{name}` was a secret, which the run log does not have"] = None
        for name, recorded in log.steps.items():
            if recorded.attempts and recorded.attempts[-1].mock:
                found[f"`{name}` was mocked in run {log.run_id}"] = None
    return tuple(found)


def _is_own(one: RunDifference) -> bool:
    return one.kind == "variable" and one.name == "RUNNABLE_RUN_ID"
