"""Run logs compared but for where and when each step ran: of one engine and another, of one job and several.

What an attempt read decides later whether it runs again, so that is compared too. One of both runs must have run its
steps one after the other: of those that run at once in one folder nobody knows which of them opened a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cli import Workspace

from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.observe.reads import FileRead, Grade, ListingRead, ReadSet
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog
from runnable_ci.runs.reader import catalog_of
from runnable_ci.store.local import Layout

_Read = TypeVar("_Read", FileRead, ListingRead)
OF_THE_RUN = {
    "run_id": "two runs of one store have two",
    "start_time": "a moment",
    "end_time": "a moment",
    "invocations": "of the newest one what it decided and was given is compared, of all of them the attempts",
    "environments": "compared with the attempts that name them",
    "code_states": "compared with the attempts that name them",
    "packs": "which files were made at one moment: their contents are compared",
    "steps": "compared in the order of their names",
}
"""What of a run is not compared as it is, and why."""
OF_THE_ATTEMPT = {
    "start_time": "a moment",
    "end_time": "a moment",
    "waited_s": "a while",
    "code_seen": "a moment",
    "environment": "a key: what it names is compared",
    "code_state": "a key: what it names is compared",
    "reads": "a digest: the document is compared",
    "reads_size": "as the document, which says that steps ran at the same time where they did",
    "code_identities": "without the remote and the branch, which are the clone's own",
    "data_catalog": "compared with the files of the step",
}
"""What of an attempt is not compared as it is, and why."""
OF_THE_FILE = {
    "mtime_ns": "a moment",
    "made_by": "begins with the run's id, without which it is compared",
    "catalog_relative_path": "the run's id and the name",
}
"""What of a file is not compared as it is, and why."""
OF_THE_MACHINE = {"disk_free": "of a moment", "virtualisation": "an engine of containers is one"}
"""What of a machine is not compared, and why: the engines of the tests run on one."""
BESIDE_ITS_PROJECT = ("BROKEN", "TRIED")
"""Variables of the tests that have a place of each project: only whether they counted is compared."""
GIT_LOOKS_AT = (".gitignore",)
"""What the run's own process asks git about while steps run elsewhere: whether they looked there too is not known."""


class Recorded(NamedTuple):
    """A run as its store has it."""

    log: RunLog
    reads: dict[str, ReadSet]
    """`STEP.ATTEMPT` → what it read, of those of which that was seen."""

    def with_attempts(self, run: str = "", **same: Any) -> Recorded:
        """Return the run under an id, with these values in all attempts."""
        log = self.log.model_copy(deep=True, update={"run_id": run or self.log.run_id})
        for step in log.steps.values():
            step.attempts = [attempt.model_copy(update=same) for attempt in step.attempts]
        return self._replace(log=log)

    def as_local(self, run: str = "") -> Recorded:
        """Return the run as if all of its steps had run on its own machine, under this id."""
        return self.with_attempts(run, executor="")

    def in_one_invocation(self) -> Recorded:
        """Return the run as if one invocation had made all attempts: each job has its own."""
        return self.with_attempts(invocation=1)


def recorded(project: Workspace, run: str) -> Recorded:
    """Return a run with what its attempts read, which its store must have."""
    log = project.log(run)
    catalog = catalog_of(Layout(project.store), log, project.folder)
    reads = {}
    for name, step in log.steps.items():
        for attempt in step.attempts:
            title = f"{name}.{attempt.attempt_number}"
            found = reads_of(catalog, title, attempt)
            assert (found is None) == (not attempt.reads), f"{title}: its reads are not in the store"
            if found is not None:
                outside = {_beside(path, project): digest for path, digest in found.outside.items()}
                reads[title] = found.model_copy(update={"outside": outside})
    return Recorded(log, reads)


def _beside(path: str, project: Workspace) -> str:
    """Return a path from the project, of what lies beside it."""
    return os.path.relpath(path, project.folder) if Path(path).is_relative_to(project.folder.parent) else path


def assert_equal(alone: Recorded, other: Recorded, *, shared: bool = False) -> None:
    """Fail where two runs differ in anything but machines and moments, by what does.

    `shared` says of the `other` run that its steps, and its own process, were at work in one folder at the same time.
    """
    if shared:
        allowed = {*GIT_LOOKS_AT, *(path for it in alone.reads.values() for path in (*it.files, *it.listings))}
        reads = {
            title: _as_alone(it, alone.reads[title], allowed) if title in alone.reads else it
            for title, it in other.reads.items()
        }
        other = Recorded(_surely(other.log), reads)
    found = [*differences(comparable(alone), comparable(other))]
    assert not found, "\n".join(found)


def comparable(run: Recorded) -> dict[str, Any]:
    """Return a run's log as it would be on any machine, under any run id."""
    log = run.log
    newest = log.invocations[-1]
    decisions = {
        name: said.model_dump(exclude={"reused_from", "accepted_by"}) for name, said in newest.decisions.items()
    }
    return {
        **log.model_dump(exclude={*OF_THE_RUN}),
        "steps": {name: _step(step, log) for name, step in sorted(log.steps.items())},
        "decisions": dict(sorted(decisions.items())),
        "given": newest.parameters,
        "redacted": newest.redacted,
        "reads": {title: it.model_dump() for title, it in sorted(run.reads.items())},
    }


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Yield where two documents differ, and in what."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from differences(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{where}[{at}]")
    elif one != other:
        yield f"{where}: {one!r}, and {other!r}"


def _step(step: StepLog, log: RunLog) -> dict[str, Any]:
    return {
        **step.model_dump(exclude={"attempts", "data_catalog"}),
        "attempts": [_attempt(one, log) for one in step.attempts],
        "files": [
            {f"{it.stage} {it.name}": it.model_dump(exclude={*OF_THE_FILE}) for it in entries}
            for entries in (step.data_catalog, *(attempt.data_catalog for attempt in step.attempts[:-1]))
        ],
        "made_by": sorted((it.name, it.made_by.replace(f"{log.run_id}/", "RUN/", 1)) for it in step.data_catalog),
    }


def _attempt(attempt: StepAttempt, log: RunLog) -> dict[str, Any]:
    codes = [
        (it.code_identifier, it.code_identifier_type, it.code_identifier_dependable) for it in attempt.code_identities
    ]
    state, environment = log.code_states.get(attempt.code_state), log.environments.get(attempt.environment)
    found = {
        **attempt.model_dump(exclude={*OF_THE_ATTEMPT}),
        "variables": {name: name in BESIDE_ITS_PROJECT or value for name, value in attempt.variables.items()},
        "code": codes,
        "state": state and state.model_dump(),
        "surroundings": environment and environment.model_dump(exclude={"machine": {*OF_THE_MACHINE}}),
    }
    if attempt.checkpoint:
        found["checkpoint"] |= {"time": "", "files": {n: f.data_hash for n, f in attempt.checkpoint.files.items()}}
    return found


def _surely(log: RunLog) -> RunLog:
    """Return a log in which no step runs again since it only may have read what it did read."""
    log = log.model_copy(deep=True)
    for attempt in (attempt for step in log.steps.values() for attempt in step.attempts):
        attempt.reason = _sure(attempt.reason)
    for decided in log.invocations[-1].decisions.values():
        decided.reason = _sure(decided.reason)
    return log


def _sure(reason: str) -> str:
    return re.sub(r"it may have (read|listed)$", r"it \1", reason)


def _as_alone(reads: ReadSet, alone: ReadSet, allowed: set[str]) -> ReadSet:
    """Return what a step read, without what others did meanwhile, as far as that is not known to be its own.

    What it read when it ran `alone` counts as it did then; what more it only may have read must be `allowed`.
    """
    listings = _graded(reads.listings, alone.listings, allowed)
    return reads.model_copy(
        update={
            "files": _graded(reads.files, alone.files, allowed),
            "listings": {folder: _settled(it, alone.listings.get(folder)) for folder, it in listings.items()},
            "absent": {path: _grade(it, alone.absent.get(path)) for path, it in reads.absent.items()},
        }
    )


def _graded(found: Mapping[str, _Read], alone: Mapping[str, _Read], allowed: set[str]) -> dict[str, _Read]:
    return {
        path: it.model_copy(update={"grade": _grade(it.grade, alone[path].grade)}) if path in alone else it
        for path, it in found.items()
        if path in alone or path not in allowed or it.grade == "seen"
    }


def _grade(grade: Grade, alone: Grade | None) -> Grade:
    return alone if alone and grade == "possible" else grade


def _settled(listing: ListingRead, alone: ListingRead | None) -> ListingRead:
    """Return a listing without the names that others made or removed meanwhile."""
    if alone is None:
        return listing
    names = {*listing.names} - {*listing.unsettled} | {*listing.unsettled} & {*alone.names}
    return listing.model_copy(update={"names": sorted(names), "unsettled": alone.unsettled})
