"""What a run of some steps takes from an earlier run: attempts with all that they refer to, as they are. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import cast

from runnable_ci.engine.parts.source import has_branches
from runnable_ci.runs.artifact import contents
from runnable_ci.runs.events import (
    AttemptSaved,
    BranchesBegun,
    CodeStateRecorded,
    EnvironmentRecorded,
    Event,
    PackStored,
)
from runnable_ci.runs.model import BranchKind, CatalogEntry, RunLog, StepLog


def results_of(log: RunLog, names: Collection[str]) -> RunLog:
    """Return the log of a run with the last attempts at these steps alone, and what they refer to.

    Each says where it is from.
    """
    steps = {
        key: _last_result(log.run_id, step)
        for key, step in log.steps.items()
        if (step.attempts or has_branches(step)) and key.partition(".")[0] in names
    }
    attempts = [step.attempts[-1] for step in steps.values() if step.attempts]
    states = _code_states(log, [attempt.code_state for attempt in attempts])
    environments = {attempt.environment for attempt in attempts}
    taken = log.model_copy(
        update={
            "steps": steps,
            "code_states": {key: log.code_states[key] for key in states},
            "environments": {key: it for key, it in log.environments.items() if key in environments},
        }
    )
    needed = {content.hex for _, content in contents(taken)}
    packs = {digest: pack for digest, pack in log.packs.items() if not needed.isdisjoint(pack.members)}
    return taken.model_copy(update={"packs": packs})


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


def taking(results: RunLog, run_id: str) -> Iterator[Event]:
    """Yield the events by which a new run has these results, beside its own."""
    for key, environment in results.environments.items():
        yield EnvironmentRecorded(key=key, environment=environment)
    for key, state in results.code_states.items():
        yield CodeStateRecorded(key=key, state=state)
    for digest, pack in results.packs.items():
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
