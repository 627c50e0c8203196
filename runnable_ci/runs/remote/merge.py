"""Several versions of one run's log as one: how a run that many machines wrote is read. Pure.

The order of the versions does not matter, nor how often one comes, nor whether some were merged before: an invocation
is known by its digest, an attempt by that and the moment it began, and each has one writer.

Why this holds: registries have no compare-and-swap, so machines write versions that know nothing of each other, and
every reader must come to the same log in whatever order it meets them. So a merge is a union, and where two versions of
one part differ, the greater one in an order that depends on their content alone: completeness first, then the time of
the end, and last the text, which means nothing but is the same everywhere. A maximum is commutative, associative and
idempotent. All else follows from the union: numbers, order, and which attempt counts. No clock is asked for any of it.
Source: Shapiro et al., "Conflict-free Replicated Data Types", 2011 (state-based objects, join semilattices).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from runnable_ci.errors import RunLogError
from runnable_ci.runs.causality.ancestry import Ancestry, decisions_of
from runnable_ci.runs.causality.selection import Selection, Try, completeness
from runnable_ci.runs.model import (
    FAIL,
    PROCESSING,
    SKIPPED,
    SUCCESS,
    DecisionRecord,
    Invocation,
    Parameter,
    RunLog,
    StepAttempt,
    StepLog,
)
from runnable_ci.runs.run_identity import invocation_digest, run_identity, with_parents

T = TypeVar("T")
_ACTIONS = ("skip", "reuse", "run")
_END = ("status", "outcome", "ended_by", "interrupted", "message", "end_time")
"""The fields of a run that say how it ended."""
_MERGED = {"start_time", "parameters", "steps", "invocations", "environments", "code_states", "packs", *_END}


def merge(logs: Sequence[RunLog]) -> RunLog:
    """Return the merge of these versions of one run; a single version is returned as it is.

    Invocations are in an order in which each comes after what it had seen, so are the attempts at a step, and the last
    one is the one that counts: a success that nothing followed, before any failure by who had not seen it. Of two
    versions of one attempt the result counts more than the mark of an interruption, and that more than an attempt in
    flight. Raises `RunLogError` for logs of different runs, also where these have one id.
    """
    first, *others = logs
    if strangers := {log.run_id for log in others} - {first.run_id}:
        raise RunLogError(f"the run logs of `{first.run_id}` and `{min(strangers)}` are not of the same run")
    if len(set(map(run_identity, logs))) > 1:
        raise RunLogError(f"two runs have the id `{first.run_id}`: their logs are not of the same run")
    if all(log == first for log in others):
        return first
    tries = _merge_tries(logs)
    invocations = _merge_invocations(logs)
    ancestry = Ancestry({digest: invocation.parents or () for digest, invocation in invocations.items()})
    finished = Counter(one.by for found in tries.values() for one in found if one.attempt.status == SUCCESS)
    invocations = {
        digest: invocations[digest].model_copy(update={"number": number})
        for number, digest in enumerate(ancestry.ordered(finished), start=1)
    }
    newest_last = sorted(logs, key=lambda log: _recency(log, invocations))
    merged = newest_last[-1].model_copy(
        update={
            "start_time": min((log.start_time for log in logs if log.start_time), default=""),
            "steps": _merge_steps(newest_last, tries, invocations, ancestry),
            "invocations": [*invocations.values()],
            "environments": _merge_maps([log.environments for log in newest_last]),
            "code_states": _merge_maps([log.code_states for log in newest_last]),
            "packs": _merge_maps([log.packs for log in newest_last]),
            "schema_version": max(log.schema_version for log in logs),
        }
    )
    notes = max((log.notes for log in logs), key=lambda one: (one.noted, one.model_dump_json()))
    noted = {"notes": notes, "tag": merged.tag if notes.tag is None else notes.tag}
    return merged.model_copy(update={**_end(merged, ancestry), "parameters": _parameters(merged), **noted})


def _recency(log: RunLog, invocations: Mapping[str, Invocation]) -> tuple[int, str, str]:
    """Return the sort key of a version: name and tag are those of the one that ends with the newest invocation."""
    last = invocations[invocation_digest(log.invocations[-1])].number if log.invocations else 0
    return last, _text(log, without=_MERGED | {"schema_version"}), _text(log)


def _merge_invocations(logs: Sequence[RunLog]) -> dict[str, Invocation]:
    versions: dict[str, list[Invocation]] = {}
    for log in logs:
        for invocation in with_parents(log.invocations):
            versions.setdefault(invocation_digest(invocation), []).append(invocation)
    return {digest: _merge_invocation(found) for digest, found in versions.items()}


def _merge_invocation(versions: Sequence[Invocation]) -> Invocation:
    said: dict[str, list[DecisionRecord]] = {}
    for version in versions:
        for step, decision in version.decisions.items():
            said.setdefault(step, []).append(decision)
    decisions = {step: max(records, key=_weight_of_decision) for step, records in said.items()}
    parents = sorted({parent for version in versions for parent in version.parents or ()})
    best = max(versions, key=lambda v: (completeness(v), v.end_time, _text(v, {"number", "decisions", "parents"})))
    return best.model_copy(update={"decisions": decisions, "parents": parents})


def _weight_of_decision(decision: DecisionRecord) -> tuple[int, str]:
    known = decision.action in _ACTIONS
    return _ACTIONS.index(decision.action) if known else len(_ACTIONS), _text(decision)


def _merge_tries(logs: Sequence[RunLog]) -> dict[str, list[Try]]:
    """Return each step's attempts, in no order yet."""
    found: dict[str, dict[tuple[str, str], list[Try]]] = {}
    for log in logs:
        digests = {invocation.number: invocation_digest(invocation) for invocation in log.invocations}
        for name, step in log.steps.items():
            of_step = found.setdefault(name, {})
            for attempt in _with_their_files(step):
                by = digests.get(attempt.invocation, str(attempt.invocation))
                of_step.setdefault((by, attempt.start_time), []).append(Try(by, attempt))
    return {
        name: [_greatest(versions, _weight_of_try) for versions in of_step.values()] for name, of_step in found.items()
    }


def _with_their_files(step: StepLog) -> list[StepAttempt]:
    """Return a step's attempts, each with its own files; in the log the last one's are the step's."""
    if not step.attempts:
        return []
    *earlier, last = step.attempts
    return [*earlier, last.model_copy(update={"data_catalog": step.data_catalog})]


def _weight_of_try(one: Try) -> tuple[int, str, str]:
    attempt = one.attempt
    return completeness(attempt), attempt.end_time, _text(attempt, without={"attempt_number", "invocation"})


def _merge_steps(
    logs: Sequence[RunLog],
    tries: Mapping[str, Sequence[Try]],
    invocations: Mapping[str, Invocation],
    ancestry: Ancestry,
) -> dict[str, StepLog]:
    places = {digest: invocation.number for digest, invocation in invocations.items()}
    in_order = {
        name: sorted(found, key=lambda one: (places.get(one.by, 0), one.attempt.start_time, one.by))
        for name, found in tries.items()
    }
    counting = Selection(in_order, invocations, ancestry).chosen()
    versions: dict[str, list[StepLog]] = {}
    for log in logs:
        for name, step in log.steps.items():
            versions.setdefault(name, []).append(step)
    merged: dict[str, StepLog] = {}
    for name, found in versions.items():
        attempts = in_order[name]
        if attempts:
            attempts.append(attempts.pop(counting[name]))
        state = _state(name, attempts, invocations, ancestry)
        merged[name] = _merge_step(found, attempts, places, state)
    newest = _newest_branches(logs, places)
    if newest:
        from runnable_ci.runs.branches.merging import with_branches  # few runs have branches

        return with_branches(merged, newest)
    return merged


def _newest_branches(logs: Sequence[RunLog], places: Mapping[str, int]) -> dict[str, StepLog]:
    """Return the steps with branches as the newest invocation that decided on them has them."""
    found: dict[str, tuple[int, str, StepLog]] = {}
    for log in logs:
        for name, step in log.steps.items():
            if step.branch_steps:
                deciding = (places[invocation_digest(it)] for it in log.invocations if name in it.decisions)
                version = (max(deciding, default=0), _text(step), step)
                found[name] = max(found.get(name, version), version, key=lambda one: one[:2])
    return {name: step for name, (_, _, step) in found.items()}


def _merge_step(
    versions: Sequence[StepLog], tries: Sequence[Try], places: Mapping[str, int], state: Mapping[str, str]
) -> StepLog:
    attempts = [
        attempt.model_copy(update={"attempt_number": number, "invocation": places.get(by, attempt.invocation)})
        for number, (by, attempt) in enumerate(tries, start=1)
    ]
    files = attempts[-1].data_catalog if attempts else []
    if attempts:
        attempts[-1] = attempts[-1].model_copy(update={"data_catalog": []})
    kept = {*state, "attempts", "data_catalog", "branches"}
    return max(versions, key=lambda step: _text(step, without=kept)).model_copy(
        update={
            **state,
            "attempts": attempts,
            "mock": bool(attempts) and attempts[-1].mock,
            "data_catalog": files,
            "branches": _merge_maps([step.branches for step in versions]),
        }
    )


def _state(
    name: str, tries: Sequence[Try], invocations: Mapping[str, Invocation], ancestry: Ancestry
) -> dict[str, str]:
    """Return status, outcome and message of a step: its last attempt's, unless all skipped it that decided on it since.

    Who had not seen that attempt does not count.
    """
    last = tries[-1] if tries else None
    deciding = [d for d, one in invocations.items() if name in one.decisions]
    since = [digest for digest in deciding if last is None or ancestry.had_seen(digest, last.by)]
    newest = ancestry.newest(since)
    decisions = [invocations[digest].decisions[name] for digest in since if digest in newest]
    if decisions and all(decision.action == "skip" for decision in decisions):
        return {"status": SKIPPED, "outcome": "", "message": decisions[-1].reason}
    if last is None:
        return {"status": SKIPPED, "outcome": "", "message": ""}
    return {"status": last.attempt.status, "outcome": last.attempt.outcome, "message": last.attempt.message}


def _end(log: RunLog, ancestry: Ancestry) -> dict[str, Any]:
    """Return how a run ended: as its newest invocation did.

    Of several that had not seen each other one that succeeded speaks for the run, if all that it left counts. Else the
    run is not finished, since nobody has looked at all of it.
    """
    digests = {invocation_digest(one): one for one in log.invocations}
    heads = ancestry.newest(digests)
    newest = [one for digest, one in digests.items() if digest in heads]
    if not newest:
        return {}
    made = {name: step.attempts[-1].invocation for name, step in log.steps.items() if step.attempts}
    by = {one.number: digest for digest, one in digests.items()}
    for one in reversed(newest):
        mine = (by.get(made.get(name, 0), "") for name in one.decisions)
        if one.status == SUCCESS and all(ancestry.had_seen(by[one.number], digest) for digest in mine):
            return {name: getattr(one, name) for name in _END}
    last = newest[-1]
    if len(newest) == 1 or last.status == PROCESSING:
        return {name: getattr(last, name) for name in _END}
    failed = [name for name in decisions_of(log) if name in made and log.steps[name].status == FAIL]
    what = f"failed: {', '.join(failed)}" if failed else "unfinished"
    message = f"{what}; {len(newest)} invocations had not seen each other"
    return {
        "status": FAIL,
        "outcome": "failed",
        "ended_by": "",
        "interrupted": False,
        "message": message,
        "end_time": max(one.end_time for one in newest),
    }


def _parameters(log: RunLog) -> dict[str, Parameter]:
    """Return what the newest invocation began with, and what the attempts gave, that of those which count last."""
    last = log.invocations[-1].parameters if log.invocations else {}
    found = {name: Parameter.of_json(value) for name, value in last.items()}
    from runnable_ci.runs.branches.merging import given  # where nothing is merged it is not needed

    for _, outputs in given(log):
        found |= outputs
    return found


def _greatest(versions: Sequence[T], weight: Callable[[T], Any]) -> T:
    """Return the greatest of some versions; most often they are the same, and comparing is quicker than weighing."""
    first, *others = versions
    return first if all(other == first for other in others) else max(versions, key=weight)


def _merge_maps(tables: Iterable[Mapping[str, T]]) -> dict[str, T]:
    """Return all entries; of two under one key the same one, whichever table comes first."""
    found: dict[str, T] = {}
    for table in tables:
        for key, value in table.items():
            found[key] = max(found[key], value, key=_text) if key in found else value
    return found


def _text(value: Any, without: set[str] | None = None) -> str:
    """Return a value as text that orders it among its equals, for choices that mean nothing but must always be
    the same.
    """
    plain = value.model_dump(exclude=without) if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True)
