"""The run log as the JSON document that is stored and sent, also one that an earlier version wrote. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container, Iterable, Iterator
from typing import Any, Final

from pydantic_core import PydanticSerializationError

from runnable_ci.errors import RunLogError
from runnable_ci.redaction.redactor import MASK
from runnable_ci.runs.model import (
    BRANCHES_SCHEMA_VERSION,
    BYTES_PER_FIELD,
    FAIL,
    LINKS_SCHEMA_VERSION,
    SCHEMA_VERSION,
    SUCCESS,
    CatalogEntry,
    Invocation,
    Parameter,
    RunLog,
    RunOutcome,
    StepAttempt,
)
from runnable_ci.util.bounded_json import Allowance, RecordError, parse_json
from runnable_ci.util.text import unicode_of

_REPEATED_MAX: Final = 1000
"""Characters of JSON up to which a value stands in each attempt that had it."""


def encode(log: RunLog) -> bytes:
    """Return the run log as its JSON document, in which a large value is not repeated for each step that had it."""
    log = without_repeats(log)
    if any("." in name for name in log.steps):
        from runnable_ci.runs.branches.nesting import nested  # few runs have branches

        log = nested(log)
    try:
        return log.model_dump_json(indent=1).encode() + b"\n"
    except PydanticSerializationError:
        return json.dumps(unicode_of(log.model_dump()), indent=1).encode() + b"\n"


def decode(document: bytes, *, where: str) -> RunLog:
    """Read a run log. Raises `RunLogError` for what is none, or takes more memory than its bytes let expect."""
    try:
        found = parse_json(document)
        version = found.get("schema_version", SCHEMA_VERSION) if isinstance(found, dict) else SCHEMA_VERSION
        if isinstance(version, str):
            require_readable(version, where=where)
        allowance = Allowance()
        allowance.grow(len(document), bytes_per_field=BYTES_PER_FIELD)
        log = RunLog.model_validate(found, context=allowance)
        if any(step.branches for step in log.steps.values()):
            from runnable_ci.runs.branches.nesting import flat  # few runs have branches

            log = flat(log, allowance)
        return with_values(with_outcomes(log))
    except (ValueError, RecordError) as e:
        raise RunLogError(f"{where} is not a run log: {e}") from e


def value_hashes(values: Iterable[Any]) -> dict[str, Any]:
    """Return the large ones of some values, each by the sha256 of its JSON."""
    found = {}
    for value in values:
        if isinstance(value, str | list | dict) and value:
            text = json.dumps(value, sort_keys=True)
            if len(text) > _REPEATED_MAX:
                found[hashlib.sha256(text.encode()).hexdigest()] = value
    return found


def values_of(record: Invocation | StepAttempt) -> Iterator[Any]:
    """Yield the values that an invocation was given, or an attempt returned: each is in the log there."""
    if isinstance(record, Invocation):
        yield from record.parameters.values()
    else:
        yield from (parameter.value for parameter in record.output_parameters.values() if parameter.kind != "object")


def attempt_without_repeats(attempt: StepAttempt, known: Container[str]) -> StepAttempt:
    """Return an attempt whose large inputs have only their digests, as far as the log has them: the `known` ones."""
    slim = {
        name: parameter.model_copy(update={"value": None, "description": "", "value_hash": digest})
        for name, parameter in attempt.input_parameters.items()
        for digest in value_hashes([parameter.value])
        if digest in known
    }
    if not slim:
        return attempt
    return attempt.model_copy(update={"input_parameters": attempt.input_parameters | slim})


def without_repeats(log: RunLog) -> RunLog:
    """Return a log in which large values stand once, where they came from."""
    known = value_hashes(_values(log))
    if not known:
        return log
    steps = {
        name: step.model_copy(
            update={"attempts": [attempt_without_repeats(attempt, known) for attempt in step.attempts]}
        )
        for name, step in log.steps.items()
    }
    return log.model_copy(update={"steps": steps})


def with_values(log: RunLog) -> RunLog:
    """Fill in the large inputs; one that the log has not any more was masked since."""
    inputs = [
        parameter
        for step in log.steps.values()
        for attempt in step.attempts
        for parameter in attempt.input_parameters.values()
        if parameter.value_hash
    ]
    values = value_hashes(_values(log)) if inputs else {}
    for parameter in inputs:
        if parameter.value_hash in values:
            whole = Parameter.of_json(values[parameter.value_hash])
            parameter.value, parameter.description, parameter.value_hash = whole.value, whole.description, ""
        elif parameter.value is None:
            parameter.value, parameter.redacted = MASK, True
    return log


def log_value_hashes(log: RunLog) -> set[str]:
    """Return the digests of the large values that stand in a log where they came from."""
    return set(value_hashes(_values(log)))


def _values(log: RunLog) -> Iterator[Any]:
    for invocation in log.invocations:
        yield from values_of(invocation)
    for step in log.steps.values():
        for attempt in step.attempts:
            yield from values_of(attempt)


def require_readable(version: str, *, where: str) -> None:
    """Raise `RunLogError` for a schema of a later version."""
    known = (SCHEMA_VERSION, LINKS_SCHEMA_VERSION, BRANCHES_SCHEMA_VERSION)
    if version.split(".")[0] not in known:
        ours = f"{', '.join(known[:-1])} and {known[-1]}"
        raise RunLogError(
            f"{where} has run log schema {version[:100]}, this version reads {ours}",
            hint="upgrade runnable-ci",
        )


def schema_needed(entries: Iterable[CatalogEntry]) -> str:
    """Return the schema that a reader must know to read these entries rightly."""
    return SCHEMA_VERSION if all(map(_is_plain, entries)) else LINKS_SCHEMA_VERSION


def _is_plain(entry: CatalogEntry) -> bool:
    return (entry.stage == "get" and not entry.kept) or entry.has_content


def with_outcomes(log: RunLog) -> RunLog:
    """Fill in the fields that say how something ended, also where a version wrote it that had only messages.

    The one place that reads a message. A log that has the fields is left as it is.
    """
    attempts = [attempt for step in log.steps.values() for attempt in step.attempts]
    over: list[RunLog | Invocation | StepAttempt] = [log, *log.invocations, *attempts]
    for ended in over:
        if not ended.outcome and ended.status in (SUCCESS, FAIL):
            ended.outcome = _outcome_of(ended.status, ended.message)
            ended.interrupted = ended.outcome == "interrupted"
    for step in log.steps.values():
        if not step.outcome and step.status in (SUCCESS, FAIL):
            step.outcome = step.attempts[-1].outcome if step.attempts else _outcome_of(step.status, step.message)
    for invocation in log.invocations:
        for decision in invocation.decisions.values():
            if not decision.warning and decision.action == "reuse" and decision.reason.startswith("reused, but "):
                of_parameters = decision.reason.startswith("reused, but parameter ")
                decision.warning = "parameters_changed" if of_parameters else "code_changed"
    return log


def _outcome_of(status: str, message: str) -> RunOutcome:
    """Return the outcome by the words of versions without the field; no other message of theirs began like these."""
    if status == SUCCESS:
        return "succeeded"
    if message.startswith("interrupted: "):
        return "interrupted"
    if message == "cancelled" or re.fullmatch(r"cancelled by SIG[A-Z0-9]+", message):
        return "cancelled"
    return "timed_out" if re.fullmatch(r"timed out after [0-9.e+-]+ min", message) else "failed"
