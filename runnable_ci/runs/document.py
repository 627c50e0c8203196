"""The run log as the JSON document that is stored and sent, also one that an earlier version wrote. Pure."""

from __future__ import annotations

import json
import re

from pydantic_core import PydanticSerializationError

from runnable_ci.errors import RunLogError
from runnable_ci.runs.model import (
    BYTES_PER_FIELD,
    FAIL,
    SCHEMA_VERSION,
    SUCCESS,
    Invocation,
    RunLog,
    RunOutcome,
    StepAttempt,
)
from runnable_ci.util.bounded_json import Allowance, RecordError, parse_json
from runnable_ci.util.text import unicode_of


def encode(log: RunLog) -> bytes:
    """Return the run log as its JSON document."""
    try:
        return log.model_dump_json(indent=1).encode() + b"\n"
    except PydanticSerializationError:
        return json.dumps(unicode_of(log.model_dump()), indent=1).encode() + b"\n"


def decode(document: bytes, *, where: str) -> RunLog:
    """Read a run log. Raises `RunLogError` for what is none, or takes more memory than its bytes let expect."""
    try:
        found = parse_json(document)
        version = found.get("schema_version", SCHEMA_VERSION) if isinstance(found, dict) else SCHEMA_VERSION
        if isinstance(version, str) and version.split(".")[0] != SCHEMA_VERSION:
            raise RunLogError(
                f"{where} has run log schema {version[:100]}, this version reads {SCHEMA_VERSION}",
                hint="upgrade runnable-ci",
            )
        allowance = Allowance()
        allowance.grow(len(document), bytes_per_field=BYTES_PER_FIELD)
        return with_outcomes(RunLog.model_validate(found, context=allowance))
    except (ValueError, RecordError) as e:
        raise RunLogError(f"{where} is not a run log: {e}") from e


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
