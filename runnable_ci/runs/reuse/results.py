"""What a run takes from another run: attempts with all that they refer to, as they are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from typing import TypeVar, cast, get_args

from runnable_ci.runs.artifact import contents
from runnable_ci.runs.branches.branch_model import BranchKind
from runnable_ci.runs.events import (
    AttemptSaved,
    BranchesBegun,
    CodeStateRecorded,
    EnvironmentRecorded,
    Event,
    PackStored,
)
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import CatalogEntry, RunLog, StepLog

_T = TypeVar("_T")


def results_of(log: RunLog, keys: Iterable[str], packs: PackIndex | None = None) -> RunLog:
    """Return the log of a run with the last attempts at these steps alone, and what they refer to.

    Each says where it is from. A step of a branch has a key of its own: `of_steps` gives all of some steps. Who asks
    often gives the index of the log's packs, so that it is made once.
    """
    packs = PackIndex(log.packs) if packs is None else packs
    chosen = ((key, log.steps[key]) for key in keys if key in log.steps)
    steps = {key: _last_result(log.run_id, step) for key, step in chosen if step.attempts or has_branches(step)}
    attempts = [step.attempts[-1] for step in steps.values() if step.attempts]
    states = _code_states(log, [attempt.code_state for attempt in attempts])
    environments = {attempt.environment for attempt in attempts}
    taken = log.model_copy(
        update={
            "steps": steps,
            "code_states": {key: log.code_states[key] for key in states},
            "environments": {key: log.environments[key] for key in sorted(environments & log.environments.keys())},
        }
    )
    needed = dict.fromkeys(packs[content.hex][0] for _, content in contents(taken) if content.hex in packs)
    return taken.model_copy(update={"packs": {digest: log.packs[digest] for digest in needed}})


def of_steps(log: RunLog, names: Collection[str]) -> list[str]:
    """Return the keys of these steps of a run, and of all that is in their branches, in its order."""
    return [key for key in log.steps if key.partition(".")[0] in names]


def has_branches(step: StepLog) -> bool:
    """Return whether what a step did is in its branches, of which there may be none."""
    return step.step_type in get_args(BranchKind)


def _last_result(run_id: str, step: StepLog) -> StepLog:
    if not step.attempts:
        return step
    last = step.attempts[-1]
    origin = last.taken_from or f"{run_id}/{step.name}.{last.attempt_number}"
    files = [_with_maker(entry, origin) for entry in step.data_catalog]
    attempt = last.model_copy(update={"taken_from": origin})
    return step.model_copy(update={"attempts": [attempt], "data_catalog": files})


def _with_maker(entry: CatalogEntry, origin: str) -> CatalogEntry:
    return entry.model_copy(update={"made_by": entry.made_by or origin}) if entry.stage == "put" else entry


def taking(results: RunLog, run_id: str, known: RunLog | None = None) -> Iterator[Event]:
    """Yield the events by which a run has these results, beside its own.

    What a log knows already is left as it is: the results may come from anybody.
    """
    for key, environment in _new(results.environments, known.environments if known else {}):
        yield EnvironmentRecorded(key=key, environment=environment)
    for key, state in _new(results.code_states, known.code_states if known else {}):
        yield CodeStateRecorded(key=key, state=state)
    for digest, pack in _new(results.packs, known.packs if known else {}):
        yield PackStored(digest=digest, pack=pack)
    for key, step in results.steps.items():
        if has_branches(step):
            kind = cast("BranchKind", step.step_type)
            steps, returns = step.branch_steps, step.branch_returns
            yield BranchesBegun(step=key, kind=kind, branches=step.instances, steps=steps, returns=returns)
        if not step.attempts:
            continue
        files = [
            entry.model_copy(update={"catalog_relative_path": f"{run_id}/{entry.name}"}) for entry in step.data_catalog
        ]
        attempt = step.attempts[-1].model_copy(update={"invocation": 0})  # none of the new run's has made it
        yield AttemptSaved(step=key, attempt=attempt, data_catalog=files)


def _new(found: Mapping[str, _T], known: Container[str]) -> Iterator[tuple[str, _T]]:
    return ((key, value) for key, value in found.items() if key not in known)


def _code_states(log: RunLog, keys: Collection[str]) -> list[str]:
    """Return these states of the code after those on which they build."""
    found: dict[str, None] = {}
    waiting = [key for key in dict.fromkeys(keys) if key in log.code_states]
    while waiting:
        key = waiting.pop()
        found.pop(key, None)
        found[key] = None
        base = log.code_states[key].base
        if base in log.code_states and base not in waiting:
            waiting.append(base)
    return list(reversed(found))
