"""The events of a run as they may be recorded: without secrets. Pure.

Names (of steps, parameters, files) and digests stay, also should a secret be like one: the run log hangs by them.
"""

from __future__ import annotations

from runnable_ci.journal import (
    AttemptSaved,
    Decided,
    Ended,
    EnvironmentSeen,
    Event,
    Started,
)
from runnable_ci.redact import Redactor
from runnable_ci.runlog import (
    CodeIdentity,
    DecisionRecord,
    ExceptionInfo,
    Invocation,
    Parameter,
    StepAttempt,
)


def cleaned(event: Event, redactor: Redactor) -> Event:
    """The event with a mask for each secret in it; where a parameter has one, it is marked as redacted."""
    match event:
        case Started():
            changed: dict[str, object] = {
                "tag": redactor.text(event.tag),
                "run_config": redactor.value(event.run_config),
                "invocation": _invocation(event.invocation, redactor),
            }
        case Decided():
            reason = redactor.text(event.decision.reason)
            changed = {"decision": DecisionRecord(action=event.decision.action, reason=reason)}
        case AttemptSaved():
            changed = {"attempt": _attempt(event.attempt, redactor)}
        case EnvironmentSeen():
            variables = redactor.value(event.environment.variables)
            changed = {"environment": event.environment.model_copy(update={"variables": variables})}
        case Ended():
            changed = {"message": redactor.text(event.message)}
        case _:
            return event
    return event.model_copy(update=changed)


def cleaned_exception(exception: ExceptionInfo, redactor: Redactor) -> ExceptionInfo:
    """An exception whose texts have no secrets."""
    texts = {name: redactor.text(getattr(exception, name)) for name in ("message", "traceback", "file")}
    return exception.model_copy(update=texts)


def _invocation(invocation: Invocation, redactor: Redactor) -> Invocation:
    parameters = {name: redactor.value(value) for name, value in invocation.parameters.items()}
    redacted = [name for name, value in parameters.items() if value != invocation.parameters[name]]
    return invocation.model_copy(
        update={"parameters": parameters, "redacted": sorted({*invocation.redacted, *redacted})}
    )


def _attempt(attempt: StepAttempt, redactor: Redactor) -> StepAttempt:
    parameters = {
        name: {key: _parameter(parameter, redactor) for key, parameter in getattr(attempt, name).items()}
        for name in ("input_parameters", "output_parameters", "user_defined_metrics")
    }
    return attempt.model_copy(
        update={
            **parameters,
            "message": redactor.text(attempt.message),
            "reason": redactor.text(attempt.reason),
            "definition": redactor.value(attempt.definition),
            "exception": attempt.exception and cleaned_exception(attempt.exception, redactor),
            "code_identities": [_identity(identity, redactor) for identity in attempt.code_identities],
        }
    )


def _parameter(parameter: Parameter, redactor: Redactor) -> Parameter:
    if parameter.kind == "object":
        return parameter
    value = redactor.value(parameter.value)
    return parameter if value == parameter.value else Parameter.of_json(value, parameter.kind, redacted=True)


def _identity(identity: CodeIdentity, redactor: Redactor) -> CodeIdentity:
    texts = ("code_identifier_url", "code_identifier_message", "ref")
    return identity.model_copy(update={name: redactor.text(getattr(identity, name)) for name in texts})
