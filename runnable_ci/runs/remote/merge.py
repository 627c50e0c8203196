"""Several versions of one run's log as one: how a run that many machines wrote is read. Pure.

The order of the versions does not matter, nor how often one comes, nor whether some were merged before: an invocation
is known by the moment it began, an attempt by that and its own, and each has one writer.

Why this holds: registries have no compare-and-swap, so machines write versions that know nothing of each other, and
every reader must come to the same log in whatever order it meets them. So a merge is a union, and where two versions of
one part differ, the greater one in an order that depends on their content alone: completeness first, then the time of
the end, and last the text, which means nothing but is the same everywhere. A maximum is commutative, associative and
idempotent.
Numbers of invocations and attempts are no part of that: they are counted again in the order of the beginnings.
Source: Shapiro et al., "Conflict-free Replicated Data Types", 2011 (state-based objects, join semilattices).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from runnable_ci.errors import RunLogError
from runnable_ci.runs.model import (
    PROCESSING,
    SKIPPED,
    DecisionRecord,
    Invocation,
    Parameter,
    RunLog,
    StepAttempt,
    StepLog,
)
from runnable_ci.runs.run_identity import run_identity

T = TypeVar("T")
_Moment = tuple[str, str]
"""Start time and command: what an invocation is known by."""
_ACTIONS = ("skip", "reuse", "run")
_END = ("status", "outcome", "interrupted", "message", "end_time")
"""The fields of a run that are those of its newest invocation."""


def merge(logs: Sequence[RunLog]) -> RunLog:
    """Return the merge of these versions of one run; a single version is returned as it is.

    Attempts and invocations are renumbered in the order in which they began. Of two versions of one attempt the
    result counts more than the mark of an interruption, and that more than an attempt in flight. Step and run have the
    state of the newest. Raises `RunLogError` for logs of different runs, also where these have one id.
    """
    first, *others = logs
    if strangers := {log.run_id for log in others} - {first.run_id}:
        raise RunLogError(f"the run logs of `{first.run_id}` and `{min(strangers)}` are not of the same run")
    if len(set(map(run_identity, logs))) > 1:
        raise RunLogError(f"two runs have the id `{first.run_id}`: their logs are not of the same run")
    if all(log == first for log in others):
        return first
    newest_first = sorted(logs, key=lambda log: (_recency(log), _text(log)), reverse=True)
    invocations = _merge_invocations(newest_first)
    numbers = {_moment(invocation): invocation.number for invocation in invocations}
    steps = _merge_steps(newest_first, invocations, numbers)
    last = invocations[-1] if invocations else None
    return newest_first[0].model_copy(
        update={
            **{name: getattr(last or newest_first[0], name) for name in _END},
            "start_time": min((log.start_time for log in logs if log.start_time), default=""),
            "parameters": _parameters(last, steps.values()),
            "steps": steps,
            "invocations": invocations,
            "environments": _merge_maps([log.environments for log in newest_first]),
            "code_states": _merge_maps([log.code_states for log in newest_first]),
            "packs": _merge_maps([log.packs for log in newest_first]),
            "schema_version": max(log.schema_version for log in logs),
        }
    )


def _recency(log: RunLog) -> tuple[_Moment, str]:
    """Return the sort key of a version: name and tag are those of the one with the newest invocation."""
    newest = max(map(_moment, log.invocations), default=("", ""))
    merged = {"start_time", "parameters", "steps", "invocations", "environments", "code_states", "packs"}
    return newest, _text(log, without=merged.union(_END, ["schema_version"]))


def _merge_invocations(logs: Sequence[RunLog]) -> list[Invocation]:
    versions: dict[_Moment, list[Invocation]] = {}
    for log in logs:
        for invocation in log.invocations:
            versions.setdefault(_moment(invocation), []).append(invocation)
    return [
        _merge_invocation(versions[moment]).model_copy(update={"number": number})
        for number, moment in enumerate(sorted(versions), start=1)
    ]


def _merge_invocation(versions: Sequence[Invocation]) -> Invocation:
    said: dict[str, list[DecisionRecord]] = {}
    for version in versions:
        for step, decision in version.decisions.items():
            said.setdefault(step, []).append(decision)
    decisions = {step: max(records, key=_weight_of_decision) for step, records in said.items()}
    best = max(versions, key=lambda v: (_completeness(v), v.end_time, _text(v, without={"number", "decisions"})))
    return best.model_copy(update={"decisions": decisions})


def _weight_of_decision(decision: DecisionRecord) -> tuple[int, str]:
    known = decision.action in _ACTIONS
    return _ACTIONS.index(decision.action) if known else len(_ACTIONS), _text(decision)


def _merge_steps(
    logs: Sequence[RunLog], invocations: Sequence[Invocation], numbers: Mapping[_Moment, int]
) -> dict[str, StepLog]:
    versions: dict[str, list[tuple[StepLog, list[StepAttempt]]]] = {}
    for log in logs:
        renumbered = {invocation.number: numbers[_moment(invocation)] for invocation in log.invocations}
        for name, step in log.steps.items():
            attempts = [
                attempt.model_copy(update={"invocation": renumbered.get(attempt.invocation, attempt.invocation)})
                for attempt in _with_their_files(step)
            ]
            versions.setdefault(name, []).append((step, attempts))
    return {name: _merge_step(name, found, invocations) for name, found in versions.items()}


def _with_their_files(step: StepLog) -> list[StepAttempt]:
    """Return a step's attempts, each with its own files; in the log the last one's are the step's."""
    if not step.attempts:
        return []
    *earlier, last = step.attempts
    return [*earlier, last.model_copy(update={"data_catalog": step.data_catalog})]


def _merge_step(
    name: str, versions: Sequence[tuple[StepLog, Sequence[StepAttempt]]], invocations: Sequence[Invocation]
) -> StepLog:
    tries: dict[tuple[str, int], list[StepAttempt]] = {}
    for _, attempts in versions:
        for attempt in attempts:
            tries.setdefault((attempt.start_time, attempt.invocation), []).append(attempt)
    merged = [
        max(tries[begun], key=_weight_of_attempt).model_copy(update={"attempt_number": number})
        for number, begun in enumerate(sorted(tries), start=1)
    ]
    files = merged[-1].data_catalog if merged else []
    if merged:
        merged[-1] = merged[-1].model_copy(update={"data_catalog": []})
    state = _state(name, merged, invocations)
    kept = {*state, "attempts", "data_catalog", "branches"}
    steps = [step for step, _ in versions]
    return max(steps, key=lambda step: _text(step, without=kept)).model_copy(
        update={
            **state,
            "attempts": merged,
            "data_catalog": files,
            "branches": _merge_maps([step.branches for step in steps]),
        }
    )


def _weight_of_attempt(attempt: StepAttempt) -> tuple[int, str, str]:
    return _completeness(attempt), attempt.end_time, _text(attempt, without={"attempt_number", "invocation"})


def _completeness(of: StepAttempt | Invocation) -> int:
    """Return how much is known of the end: nothing yet, that its process was gone, or the end itself."""
    if of.status == PROCESSING:
        return 0
    return 1 if of.interrupted else 2


def _state(name: str, attempts: Sequence[StepAttempt], invocations: Sequence[Invocation]) -> dict[str, str]:
    """Return status, outcome and message of a step: its last attempt's, unless a later invocation skipped it."""
    last = attempts[-1] if attempts else None
    for invocation in reversed(invocations):
        if last and invocation.number <= last.invocation:
            break
        decision = invocation.decisions.get(name)
        if decision is not None and decision.action == "skip":
            return {"status": SKIPPED, "outcome": "", "message": decision.reason}
    if last is None:
        return {"status": SKIPPED, "outcome": "", "message": ""}
    return {"status": last.status, "outcome": last.outcome, "message": last.message}


def _parameters(last: Invocation | None, steps: Iterable[StepLog]) -> dict[str, Parameter]:
    """Return what the newest invocation began with, and what the attempts gave, the later one winning."""
    found = {name: Parameter.of_json(value) for name, value in (last.parameters if last else {}).items()}
    attempts = [(attempt.start_time, step.name, attempt) for step in steps for attempt in step.attempts]
    for _, _, attempt in sorted(attempts, key=lambda item: item[:2]):
        found |= attempt.output_parameters | attempt.user_defined_metrics
    return found


def _merge_maps(tables: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """Return all entries; of two under one key the same one, whichever table comes first."""
    found: dict[str, T] = {}
    for table in tables:
        for key, value in table.items():
            found[key] = max(found[key], value, key=_text) if key in found else value
    return found


def _moment(invocation: Invocation) -> _Moment:
    return invocation.start_time, invocation.command


def _text(value: Any, without: set[str] | None = None) -> str:
    """Return a value as text that orders it among its equals, for choices that mean nothing but must always be
    the same.
    """
    plain = value.model_dump(exclude=without) if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True)
