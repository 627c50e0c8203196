"""Run logs compared but for where and when each step ran: of one engine and another, of one job and several."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runnable_ci.runs.model import RunLog, StepAttempt, StepLog

_OF_THE_PLACE = {
    *("start_time", "end_time", "waited_s", "invocation", "environment", "variables", "secret_values"),
    *("code_state", "code_seen", "reads", "reads_size", "numeric_libraries", "data_catalog", "code_identities"),
}
"""What an attempt has that tells of its machine, its moment, or the place of its invocation among the others."""
_OF_THE_RUN = {"run_id", "start_time", "end_time", "invocations", "environments", "code_states", "packs", "steps"}


def comparable(log: RunLog) -> dict[str, Any]:
    """Return a run's log as it would be on any machine, under any run id, in however many jobs."""
    newest = log.invocations[-1]
    decisions = {
        name: said.model_dump(exclude={"reused_from", "accepted_by"}) for name, said in newest.decisions.items()
    }
    return {
        **log.model_dump(exclude=_OF_THE_RUN),
        "steps": {name: _step(step, log.run_id) for name, step in sorted(log.steps.items())},
        "decisions": dict(sorted(decisions.items())),
        "given": newest.parameters,
        "redacted": newest.redacted,
    }


def assert_equal(one: RunLog, other: RunLog) -> None:
    """Fail where two runs differ in anything but machines and moments, by what does."""
    differences = [*_differences(comparable(one), comparable(other), "")]
    assert not differences, "\n".join(differences)


def _differences(one: Any, other: Any, where: str) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from _differences(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, pair in enumerate(zip(one, other, strict=True)):
            yield from _differences(*pair, f"{where}[{at}]")
    elif one != other:
        yield f"{where}: {one!r}, and {other!r}"


def _step(step: StepLog, run_id: str) -> dict[str, Any]:
    return {
        **step.model_dump(exclude={"attempts", "data_catalog"}),
        "attempts": [_attempt(one) for one in step.attempts],
        "files": [
            sorted(
                (it.stage, it.name, it.data_hash, it.size, it.mode, it.kind, it.target, it.source, it.stored)
                for it in entries
            )
            for entries in (step.data_catalog, *(attempt.data_catalog for attempt in step.attempts[:-1]))
        ],
        "made_by": sorted((it.name, it.made_by.replace(f"{run_id}/", "RUN/", 1)) for it in step.data_catalog),
    }


def _attempt(attempt: StepAttempt) -> dict[str, Any]:
    codes = [
        (it.code_identifier, it.code_identifier_type, it.code_identifier_dependable) for it in attempt.code_identities
    ]
    found = {**attempt.model_dump(exclude=_OF_THE_PLACE), "code": codes}
    if attempt.checkpoint:
        found["checkpoint"] |= {"time": "", "files": {n: f.data_hash for n, f in attempt.checkpoint.files.items()}}
    return found
