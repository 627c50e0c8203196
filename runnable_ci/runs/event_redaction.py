"""The events of a run as they may be recorded: without secrets. Pure.

All texts of an event are redacted, also those of fields that nobody thought of here, but for names (of steps,
parameters, files) and digests: these stay, also should a secret be like one, since the run log hangs by them.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.events import Event, LogImported, PackStored
from runnable_ci.runs.model import ExceptionInfo, Invocation, Parameter, StepAttempt

M = TypeVar("M", bound=BaseModel)
NAMES = frozenset(
    {
        *("event", "run_id", "name", "step", "key", "internal_name", "environment", "source", "defaulted", "redacted"),
        *("kind", "status", "outcome", "action", "warning", "command", "stage", "step_type", "retry_indicator"),
        "ended_by",
        *("time", "start_time", "end_time", "dag_hash", "function_hash", "data_hash", "index_hash", "snapshot"),
        *("code_identifier", "code_identifier_type", "media_type", "catalog_relative_path", "catalog_handler_location"),
        *("changes", "modules", "lock_files", "identity", "parents", "store", "run_config"),
        *("code_state", "code_seen", "commit", "tree", "base", "kept", "bundles"),
        *(
            "log_level",
            "consumed",
            "reads",
            "reach",
            "made",
            "accepted_changes",
            "reused_from",
            "taken_from",
            "value_hash",
            "secret_values",
        ),
    }
)
"""Fields that are not redacted: what other parts of the log refer to, fixed words, digests, times; files' digests."""
_OF_AN_OBJECT = frozenset({"value", "description"})
"""What of an object is its name."""
_OF_AN_ATTEMPT = frozenset({"variables"})
"""Digests; an environment has values under this name."""


def cleaned(event: Event, redactor: Redactor) -> Event:
    """Return the event with a mask for each secret in it; where a parameter has one, it is marked as redacted."""
    match event:
        case PackStored() | LogImported():  # digests; a log from elsewhere, which stays as it is
            return event
        case _:
            return _record(event, redactor)


def redact_exception(exception: ExceptionInfo, redactor: Redactor) -> ExceptionInfo:
    """Return an exception whose texts have no secrets."""
    return _record(exception, redactor)


def _record(record: M, redactor: Redactor) -> M:
    """Return the record with each field that is no name without secrets, also those of a newer version."""
    names = NAMES | _OF_AN_OBJECT if isinstance(record, Parameter) and record.kind == "object" else NAMES
    names |= _OF_AN_ATTEMPT if isinstance(record, StepAttempt) else frozenset()
    found = {name: value for name, value in record if _may_hold(name, value, names)}
    clean = {name: _value(value, redactor) for name, value in found.items()}
    changed = {name: value for name, value in clean.items() if value != found[name]}
    match record:
        case Parameter(kind="json" | "metric" as kind) if "value" in changed:
            given = Parameter.of_json(changed["value"], kind, redacted=True)
            changed |= {"description": given.description, "redacted": True}
        case Invocation() if "parameters" in changed:
            redacted = [name for name, value in clean["parameters"].items() if value != record.parameters[name]]
            changed["redacted"] = sorted({*record.redacted, *redacted})
    return record.model_copy(update=changed) if changed else record


def _may_hold(name: str, value: Any, names: frozenset[str]) -> bool:
    """Return whether a field may have a secret in it.

    Of numbers only a parameter's value: a size that is like one is none.
    """
    if isinstance(value, int | float):
        return name == "value"
    return isinstance(value, BaseModel) or name not in names


def _value(value: Any, redactor: Redactor) -> Any:
    match value:
        case BaseModel():
            return _record(value, redactor)
        case dict():
            return {name: _value(item, redactor) for name, item in value.items()}
        case list():
            return [_value(item, redactor) for item in value]
        case _:
            return redactor.value(value)
