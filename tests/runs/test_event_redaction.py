"""Tests of what is taken out of a run's events before they are recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.event_redaction import NAMES, cleaned
from runnable_ci.runs.events import (
    AttemptSaved,
    CodeStateRecorded,
    Decided,
    EnvironmentRecorded,
    Event,
    InvocationFinished,
    LogImported,
    Started,
)
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import (
    CatalogEntry,
    DecisionRecord,
    ExceptionInfo,
    Invocation,
    Parameter,
    RunLog,
    StepAttempt,
)

SECRET = "hunter2hunter2"
NUMBER = 48151623
REDACTOR = Redactor([SECRET, str(NUMBER)])
HIDDEN = f"a {SECRET}."


def filled(model: type[BaseModel], **given: Any) -> Any:
    """A record in which each field that can hold any text, or any JSON value, holds a secret."""
    values: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        for value in (HIDDEN, [HIDDEN], {"a": HIDDEN}, {"a": [HIDDEN, NUMBER]}):
            try:
                model.__pydantic_validator__.validate_assignment(model.model_construct(), name, value)
            except ValueError:
                continue
            values.setdefault(name, value)
        assert name in values or name in given or field.annotation in (int, bool) or not field.is_required(), name
    return model.model_validate({**values, "newer": [HIDDEN], **given})


ATTEMPT = filled(
    StepAttempt,
    input_parameters={"a": filled(Parameter, kind="json"), "n": Parameter.of_json(NUMBER, "metric")},
    output_parameters={"o": filled(Parameter, kind="object", value=SECRET, description=SECRET)},
    code_identities=[filled(CodeIdentity, changes={})],
    exception=filled(ExceptionInfo),
    log=LogFile(data_hash=SECRET, size=NUMBER, stdout_bytes=1, stderr_bytes=2),
    user_defined_metrics={},
    data_catalog=[],
)
EVENTS: dict[str, Event] = {
    "started": filled(
        Started, event="started", invocation=filled(Invocation, number=1, decisions={}, parameters={"p": HIDDEN})
    ),
    "decided": filled(Decided, event="decided", decision=filled(DecisionRecord)),
    "attempt": filled(AttemptSaved, event="attempt", attempt=ATTEMPT, data_catalog=[filled(CatalogEntry)]),
    "code": filled(CodeStateRecorded, event="code", state=filled(CodeState, changes={}, bundles={})),
    "environment": filled(EnvironmentRecorded, event="environment", environment=filled(Environment)),
    "ended": filled(InvocationFinished, event="ended"),
}


def holding(value: Any, field: str = "") -> Iterator[str]:
    """The fields of records in which there is a secret, as `Model.field`."""
    match value:
        case BaseModel():
            for name, inner in value:
                yield from holding(inner, f"{type(value).__name__}.{name}")
        case dict():
            for inner in value.values():
                yield from holding(inner, field)
        case list() | tuple():
            for inner in value:
                yield from holding(inner, field)
        case _ if SECRET in str(value) or (value == NUMBER and not field.endswith(".size")):
            yield field


@pytest.mark.parametrize("name", EVENTS)
def test_every_text_of_an_event_is_redacted(name: str) -> None:
    """Of all fields, also of those of a newer version, only names and digests are left as they were."""
    before, after = set(holding(EVENTS[name])), set(holding(cleaned(EVENTS[name], REDACTOR)))
    assert len(before) > len(after)
    after -= {"StepAttempt.variables"}  # digests; an environment has values under that name
    assert {field.rpartition(".")[2] for field in after} <= NAMES | {"value", "description"}
    assert {field for field in after if field.startswith("Parameter.")} <= {
        *("Parameter.value", "Parameter.description", "Parameter.data_hash"),  # of the object: its name
        "Parameter.value_hash",  # a digest
    }


def test_what_a_redacted_parameter_says() -> None:
    """It is marked, and describes itself by the mask; an object and the name of a parameter stay."""
    event = cleaned(EVENTS["attempt"], REDACTOR)
    assert isinstance(event, AttemptSaved)
    taken = event.attempt.input_parameters
    assert [(p.value, p.description, p.redacted) for p in taken.values()] == [
        ("a ***.", "a ***.", True),
        ("***",) * 2 + (True,),
    ]
    assert event.attempt.output_parameters["o"].value == SECRET
    assert event.attempt.log is not None
    assert event.attempt.log.size == NUMBER
    begun = cleaned(EVENTS["started"], REDACTOR)
    assert isinstance(begun, Started)
    assert "p" in begun.invocation.redacted


def test_a_warning_outlives_redaction() -> None:
    """A reason that has a secret in it loses nothing else of its decision."""
    decision = DecisionRecord(action="reuse", reason=HIDDEN, warning="code_changed")
    event = cleaned(Decided(step="a", decision=decision), REDACTOR)
    assert isinstance(event, Decided)
    assert event.decision == DecisionRecord(action="reuse", reason="a ***.", warning="code_changed")


def test_a_log_from_elsewhere_stays() -> None:
    """What others recorded is not changed."""
    event = LogImported(run_log=RunLog(run_id="r", message=HIDDEN))
    assert cleaned(event, REDACTOR) is event
