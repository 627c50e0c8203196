"""What happens to a run log, as events: how they are written, one line each, and how they add up to the log. Pure."""

import json
from collections.abc import Collection, Iterable
from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from runnable_ci.errors import RunLogError
from runnable_ci.runs.branches.branch_model import BranchKind, BranchRecord
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.document import require_readable, schema_needed, with_outcomes, with_values
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import (
    BRANCHES_SCHEMA_VERSION,
    FAIL,
    PROCESSING,
    SCHEMA_VERSION,
    SKIPPED,
    SUCCESS,
    CatalogEntry,
    DecisionRecord,
    Invocation,
    Pack,
    Parameter,
    RunLog,
    RunOutcome,
    StepAttempt,
    StepLog,
    status_of,
)
from runnable_ci.util.bounded_json import Allowance, RecordError, first_problem, parse_json
from runnable_ci.util.text import listed, unicode_of

STARTED_LINE_END = b',"event":"started"}\n'
"""How a line ends that begins an invocation: nothing within a text can look so."""
_BYTES_PER_FIELD = 3
"""A line leaves out fields that have their default: of a small parameter all but three."""
_DAMAGED = "the file was damaged, or written by a newer version of runnable-ci"


class BaseEvent(BaseModel):
    """Something that changed a run log."""

    model_config = ConfigDict(defer_build=True)


class Started(BaseEvent):
    """The run is opened, for the first time or again."""

    event: Literal["started"] = "started"
    run_id: str
    name: str
    tag: str = ""
    dag_hash: str
    run_config: dict[str, Any]
    invocation: Invocation
    store: str = ""
    """Which store recorded it: what a person gave there, and not in a copy of it, is known by that."""


class Decided(BaseEvent):
    """A step was reused or skipped."""

    event: Literal["decided"] = "decided"
    step: str
    decision: DecisionRecord = Field(default_factory=lambda: DecisionRecord(action="run", reason="its branches"))


class AttemptSaved(BaseEvent):
    """An attempt began or ended; the later event of one attempt number takes the place of the earlier."""

    event: Literal["attempt"] = "attempt"
    step: str
    attempt: StepAttempt
    data_catalog: list[CatalogEntry] = Field(default_factory=list)


class BranchesBegun(BaseEvent):
    """The branches of a step are known: what follows has their steps."""

    event: Literal["branches"] = "branches"
    step: str
    kind: BranchKind
    branches: list[BranchRecord]
    steps: list[str]
    """The names of the steps in each."""
    returns: list[str]


class BranchesEnded(BaseEvent):
    """All branches of a step are over."""

    event: Literal["joined"] = "joined"
    step: str
    outcome: str
    """`succeeded` or `failed`; empty for skipped."""
    message: str = ""
    decision: DecisionRecord = Field(default_factory=lambda: DecisionRecord(action="run", reason="its branches"))


class EnvironmentRecorded(BaseEvent):
    """The environment in which attempts run."""

    event: Literal["environment"] = "environment"
    key: str
    environment: Environment


class CodeStateRecorded(BaseEvent):
    """What the code is when attempts begin."""

    event: Literal["code"] = "code"
    key: str
    state: CodeState


class PackStored(BaseEvent):
    """Small contents were stored together."""

    event: Literal["packed"] = "packed"
    digest: str
    pack: Pack


class InvocationFinished(BaseEvent):
    """The invocation is over."""

    event: Literal["ended"] = "ended"
    time: str
    status: str
    message: str = ""
    outcome: str = ""
    ended_by: str = ""
    interrupted: bool = False
    code_identities: list[CodeIdentity] = Field(default_factory=list)
    code_state: str = ""

    @classmethod
    def of(cls, outcome: RunOutcome, *, time: str, message: str = "", ended_by: str = "") -> Self:
        """Return the end of an invocation, seen as it happened."""
        return cls(time=time, status=status_of(outcome), message=message, outcome=outcome, ended_by=ended_by)


class SchemaRaised(BaseEvent):
    """What follows is read rightly by those only who know this schema; versions before it refuse the event."""

    event: Literal["schema"] = "schema"
    version: str


class LogImported(BaseEvent):
    """A whole run log from elsewhere, on which later events build."""

    event: Literal["document"] = "document"
    run_log: RunLog


Event = (
    Started
    | Decided
    | AttemptSaved
    | BranchesBegun
    | BranchesEnded
    | EnvironmentRecorded
    | CodeStateRecorded
    | PackStored
    | InvocationFinished
    | SchemaRaised
    | LogImported
)


@cache
def _reader() -> TypeAdapter[Event]:
    """Return what reads events, after the records in them are prepared: else it prepares each of them once more."""
    RunLog.model_rebuild()
    return TypeAdapter(
        Annotated[
            Started
            | Decided
            | AttemptSaved
            | BranchesBegun
            | BranchesEnded
            | EnvironmentRecorded
            | CodeStateRecorded
            | PackStored
            | InvocationFinished
            | SchemaRaised
            | LogImported,
            Field(discriminator="event"),
        ],
        config=ConfigDict(defer_build=True),
    )


def apply(log: RunLog, event: Event) -> RunLog:
    """Return the log with the event in it (changed in place, except that a `LogImported` takes its place)."""
    match event:
        case Started():
            log.name, log.dag_hash, log.run_config = event.name, event.dag_hash, event.run_config
            log.tag = event.tag or log.tag
            log.start_time = log.start_time or event.invocation.start_time
            log.status, log.message, log.end_time = PROCESSING, "", ""
            log.outcome, log.ended_by, log.interrupted = "", "", False
            log.invocations.append(event.invocation)
            redacted = event.invocation.redacted
            for name, value in event.invocation.parameters.items():
                log.parameters[name] = Parameter.of_json(value, redacted=name in redacted)
        case Decided():
            log.invocations[-1].decisions[event.step] = event.decision
            step = log.steps.setdefault(event.step, StepLog(name=event.step, internal_name=event.step))
            if event.decision.action == "skip":
                step.status, step.message, step.outcome = SKIPPED, event.decision.reason, ""
            elif step.attempts:
                _show_attempt(step, step.attempts[-1])
        case AttemptSaved():
            _save_attempt(log, event)
        case BranchesBegun():
            step = log.steps.setdefault(event.step, StepLog(name=event.step, internal_name=event.step))
            step.step_type, step.instances = event.kind, event.branches
            step.branch_steps, step.branch_returns = event.steps, event.returns
            step.status, step.message, step.outcome = PROCESSING, "", ""
            log.invocations[-1].decisions[event.step] = DecisionRecord(action="run", reason="its branches are known")
        case BranchesEnded():
            _end_branches(log, event)
        case EnvironmentRecorded():
            log.environments[event.key] = event.environment
        case CodeStateRecorded():
            log.code_states[event.key] = event.state
        case PackStored():
            log.packs[event.digest] = event.pack
        case InvocationFinished():
            last = log.invocations[-1]
            log.end_time = last.end_time = event.time
            log.status = last.status = event.status
            log.message = last.message = event.message
            log.outcome, log.ended_by = last.outcome, last.ended_by = event.outcome, event.ended_by
            log.interrupted = last.interrupted = event.interrupted
            last.code_identities, last.code_state = event.code_identities, event.code_state
        case SchemaRaised():
            require_readable(event.version, where=f"the journal of {log.run_id}")
            log.schema_version = max(log.schema_version, event.version)
        case LogImported():
            return event.run_log
    return log


def with_schema(event: Event, log: RunLog | None) -> list[Event]:
    """Return the event to be recorded, with that before or after it which has older versions refuse the log."""
    match event:
        case AttemptSaved() if log and (needed := schema_needed(event.data_catalog)) > log.schema_version:
            return [SchemaRaised(version=needed), event]
        case BranchesBegun() if log and log.schema_version < BRANCHES_SCHEMA_VERSION:
            return [SchemaRaised(version=BRANCHES_SCHEMA_VERSION), event]
        case LogImported() if event.run_log.schema_version.split(".")[0] > SCHEMA_VERSION:
            return [event, SchemaRaised(version=event.run_log.schema_version)]
        case _:
            return [event]


def _save_attempt(log: RunLog, event: AttemptSaved) -> None:
    step = log.steps.setdefault(event.step, StepLog(name=event.step, internal_name=event.step))
    attempt = event.attempt
    if step.attempts and step.attempts[-1].attempt_number == attempt.attempt_number:
        step.attempts[-1] = attempt
    else:
        if step.attempts:
            step.attempts[-1].data_catalog = step.data_catalog
        step.attempts.append(attempt)
        log.invocations[-1].decisions[event.step] = DecisionRecord(action="run", reason=attempt.reason)
    _show_attempt(step, attempt)
    step.data_catalog = event.data_catalog
    if "." not in event.step:  # what branches give is known once all of them are over
        log.parameters.update(attempt.output_parameters)
        log.parameters.update(attempt.user_defined_metrics)


def _end_branches(log: RunLog, event: BranchesEnded) -> None:
    step = log.steps.setdefault(event.step, StepLog(name=event.step, internal_name=event.step))
    log.invocations[-1].decisions[event.step] = event.decision
    step.status = {"succeeded": SUCCESS, "failed": FAIL}.get(event.outcome, SKIPPED)
    step.outcome, step.message = event.outcome, event.message
    if event.outcome == "succeeded" and "." not in event.step:
        from runnable_ci.runs.branches.values import outputs_of_step  # few runs have branches

        log.parameters.update(outputs_of_step(log.steps, step))


def _show_attempt(step: StepLog, attempt: StepAttempt) -> None:
    """Set the step's fields from its last attempt."""
    step.status, step.message, step.outcome = attempt.status, attempt.message, attempt.outcome
    step.mock = attempt.mock


def mark_interrupted(log: RunLog, *, time: str, elsewhere: Collection[str] = ()) -> list[Event]:
    """Return the events that end a run whose process is gone: the attempts in flight and the invocation become
    failures.

    Those that are `elsewhere`, as `STEP.ATTEMPT`, may still run: who resumes the run attaches to them.
    """
    if not log.invocations or log.invocations[-1].status != PROCESSING:
        return []
    seen_later = {"status": FAIL, "outcome": "interrupted", "interrupted": True}
    gone = {**seen_later, "end_time": time, "message": "interrupted: the process that ran it was killed"}
    open_ones = {n: s for n, s in log.steps.items() if s.attempts and s.attempts[-1].status == PROCESSING}
    away = [name for name, step in open_ones.items() if f"{name}.{step.attempts[-1].attempt_number}" in elsewhere]
    events: list[Event] = [
        AttemptSaved(step=name, attempt=step.attempts[-1].model_copy(update=gone), data_catalog=step.data_catalog)
        for name, step in open_ones.items()
        if name not in away
    ]
    events += [
        BranchesEnded(step=name, outcome="failed", message="interrupted: the run was killed")
        for name, step in log.steps.items()
        if not step.attempts and step.instances and step.status == PROCESSING
    ]
    message = "interrupted: the run was killed"
    if away:
        message += f" while it had {listed(f'`{name}`' for name in away)} elsewhere; a retry attaches to that"
    return [*events, InvocationFinished(time=time, message=message, **seen_later)]


def encode_event(event: Event) -> bytes:
    """Return one line of a journal; defaults are left out and restored when it is read."""
    try:
        body = event.model_dump_json(exclude_defaults=True)
    except PydanticSerializationError:
        body = json.dumps(unicode_of(event.model_dump(exclude_defaults=True)))
    return f'{body[:-1]},"event":"{event.event}"}}\n'.encode()


def decode_event(line: bytes, *, where: str, allowance: Allowance | None = None) -> Event:
    """Return the event of one line, within what is left of an `allowance`.

    Raises `RunLogError` for a line that is none.
    """
    allowed = allowance or Allowance()
    allowed.grow(len(line), bytes_per_field=_BYTES_PER_FIELD)
    try:
        return _reader().validate_python(parse_json(line), context=allowed)
    except ValidationError as e:
        raise RunLogError(f"{where}: not an event of a run log ({first_problem(e)})", hint=_DAMAGED) from e
    except (ValueError, RecordError) as e:
        raise RunLogError(f"{where}: not an event of a run log ({e})", hint=_DAMAGED) from e


def decode_events(lines: Iterable[bytes], *, where: str) -> RunLog | None:
    """Return the run log that a journal's lines add up to, None where there is not one whole line.

    A last line without its newline was cut off by a crash and does not count. Raises `RunLogError` for any other
    line that cannot be read.
    """
    log: RunLog | None = None
    allowance = Allowance()
    for number, line in enumerate(lines, start=1):
        if not line.endswith(b"\n"):
            break
        event = decode_event(line, where=f"{where}, line {number}", allowance=allowance)
        match event, log:
            case Started(), None:
                log = apply(RunLog(run_id=event.run_id), event)
            case LogImported(), _:
                log = event.run_log
            case _, RunLog() if log.invocations or isinstance(event, Started):
                log = apply(log, event)
            case _:
                raise RunLogError(f"{where}, line {number}: an event before the run was started", hint=_DAMAGED)
    return with_values(with_outcomes(log)) if log else None
