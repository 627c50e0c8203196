"""Tests of the run log: how events become it, what a crash or damage leaves of it, and who can read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from example_run import CLEAN, RUN_ID, attempt, events, file, journal, moment, run_log, saved, sha256, started
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from runnable_ci.errors import RunLogError
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.events import (
    AttemptSaved,
    Decided,
    Event,
    InvocationFinished,
    LogImported,
    apply,
    decode_events,
    encode_event,
    mark_interrupted,
)
from runnable_ci.runs.model import (
    FAIL,
    PROCESSING,
    SCHEMA_VERSION,
    SKIPPED,
    SUCCESS,
    CatalogEntry,
    DecisionRecord,
    ExceptionInfo,
    Parameter,
    RunLog,
    StepAttempt,
    StepLog,
)

EXAMPLE = Path(__file__).parents[1] / "data" / "runlog-example.json"


def folded(*more: Event) -> RunLog:
    """The log of some events after a first start."""
    log = RunLog(run_id=RUN_ID)
    for event in (started(1, 0), *more):
        log = apply(log, event)
    return log


def test_events_add_up_to_the_run() -> None:
    """The events of a run that failed and was retried give its whole story."""
    log = run_log()
    assert (log.run_id, log.name, log.dag_hash, log.status, log.message) == (RUN_ID, "iris", "36d6", SUCCESS, "")
    assert (log.start_time, log.end_time, log.seconds()) == (moment(0), moment(15), 10)
    assert [(i.number, i.command, i.status, i.message) for i in log.invocations] == [
        (1, "run", FAIL, "failed: fit"),
        (2, "retry", SUCCESS, ""),
    ]
    assert {name: (d.action, d.reason) for name, d in log.invocations[0].decisions.items()} == {
        "load": ("run", "first attempt"),
        "fit": ("run", "first attempt"),
        "plot": ("skip", "`fit` failed"),
    }
    assert {name: d.action for name, d in log.invocations[1].decisions.items()} == {
        "load": "reuse",
        "fit": "run",
        "plot": "run",
    }
    assert {name: (s.status, len(s.attempts)) for name, s in log.steps.items()} == {
        "load": (SUCCESS, 1),
        "fit": (SUCCESS, 2),
        "plot": (SUCCESS, 1),
    }
    assert log.parameters.keys() == {"rate", "X", "score"}
    assert log.parameters["X"].data_hash == sha256("X of fit")
    assert (log.metrics(), log.failed_steps(), log.invocation) == ({"score": 0.6}, [], 2)
    assert log.environments["e1"].packages == {"numpy": "2.0"}
    assert log.packs[sha256("pack")].members[sha256("content 1")] == (1536, 9)
    code = log.code()
    assert code is not None
    assert code.code_identifier_message == "modified: iris.py"


def test_superseded_attempt_keeps_its_files() -> None:
    """What a failed attempt put stays with it when the next one takes its place in the step."""
    fit = run_log().steps["fit"]
    assert [entry.data_hash for entry in fit.attempts[0].data_catalog] == [sha256("half a model")]
    assert fit.attempts[1].data_catalog == []
    assert [(entry.name, entry.stage) for entry in fit.data_catalog] == [("data/0000.csv", "get"), ("model.csv", "put")]
    assert [entry.data_hash for entry in fit.put_entries()] == [sha256("a model")]


def test_skipped_step() -> None:
    """A step that was skipped says so, and why."""
    log = decode_events(journal()[:9], where="journal")
    assert log is not None
    assert (log.status, log.failed_steps()) == (FAIL, ["fit"])
    assert (log.steps["plot"].status, log.steps["plot"].message) == (SKIPPED, "`fit` failed")
    assert log.steps["plot"].attempts == []


def test_a_retry_opens_the_run_again() -> None:
    """Once a retry began the run is not over, and begins when it first began."""
    log = decode_events(journal()[:10], where="journal")
    assert log is not None
    assert (log.status, log.message, log.end_time, log.start_time) == (PROCESSING, "", "", moment(0))
    assert log.seconds() is None


def test_tag_is_kept() -> None:
    """A retry without a tag does not take the run's away."""
    log = folded()
    apply(log, started(2, 10).model_copy(update={"tag": "night"}))
    apply(log, started(3, 20))
    assert log.tag == "night"


def test_document_takes_the_place_of_all() -> None:
    """A log that came from elsewhere is the base of the events after it."""
    log = run_log()
    lines = [encode_event(LogImported(run_log=log)), encode_event(started(3, 20))]
    found = decode_events(lines, where="journal")
    assert found is not None
    assert (found.invocation, found.steps) == (3, log.steps)


def test_events_survive_the_journal() -> None:
    """What is read back of each line is what was written."""
    log = RunLog(run_id=RUN_ID)
    for event in events():
        log = apply(log, event)
    assert run_log() == log


def test_document_survives() -> None:
    """What is read back of a document is what was written, in the same bytes."""
    log = run_log()
    assert decode(encode(log), where="log") == log
    assert encode(decode(encode(log), where="log")) == encode(log)
    assert encode(log).endswith(b"}\n")


def test_journal_cut_anywhere() -> None:
    """A journal cut off at any byte is a readable log of its whole lines, and shows what was in flight."""
    lines = journal()
    whole = b"".join(lines)
    ends = [0]
    for line in lines:
        ends.append(ends[-1] + len(line))
    for cut in range(len(whole) + 1):
        log = decode_events(whole[:cut].splitlines(keepends=True), where="journal")
        count = sum(end <= cut for end in ends) - 1
        if cut not in ends:
            assert log == decode_events(lines[:count], where="journal")
            continue
        if count == 0:
            assert log is None
            continue
        assert log is not None
        assert (log.run_id, decode(encode(log), where="log")) == (RUN_ID, log)
        in_flight = [name for name, step in log.steps.items() if step.status == PROCESSING]
        for event in mark_interrupted(log, time=moment(59)):
            log = apply(log, event)
        assert log.status != PROCESSING
        assert log.failed_steps()[: len(in_flight)] == in_flight
        for name in in_flight:
            last = log.steps[name].attempts[-1]
            assert (last.status, last.end_time, log.steps[name].status) == (FAIL, moment(59), FAIL)
            assert "killed" in last.message


def test_interrupted_run() -> None:
    """The attempt that was in flight, its invocation and the run fail; the attempts that ended stay as they are."""
    log = decode_events(journal()[:6], where="journal")
    assert log is not None
    load = log.steps["load"].model_copy(deep=True)
    for event in mark_interrupted(log, time=moment(59)):
        log = apply(log, event)
    assert (log.status, log.invocations[-1].status, log.end_time) == (FAIL, FAIL, moment(59))
    assert log.message == "interrupted: the run was killed"
    assert (log.outcome, log.interrupted, log.invocations[-1].interrupted) == ("interrupted", True, True)
    assert (log.steps["fit"].outcome, log.steps["fit"].attempts[0].interrupted) == ("interrupted", True)
    assert (log.steps["load"], len(log.steps["fit"].attempts)) == (load, 1)
    assert mark_interrupted(log, time=moment(59)) == []


OLD = {
    "succeeded": (SUCCESS, "", SUCCESS, "", "succeeded", "succeeded"),
    "failed": (FAIL, "exit code 1", FAIL, "failed: a", "failed", "failed"),
    "a step by that name": (FAIL, "exit code 1", FAIL, "failed: cancelled_orders, interrupted", "failed", "failed"),
    "an exception by that name": (FAIL, "a.cancelled: timed out after 5 min", FAIL, "failed: a", "failed", "failed"),
    "timed out": (FAIL, "timed out after 0.005 min", FAIL, "failed: a", "timed_out", "failed"),
    "timed out late": (FAIL, "timed out after 1e+06 min", FAIL, "failed: a", "timed_out", "failed"),
    "cancelled": (FAIL, "cancelled", FAIL, "cancelled by SIGTERM", "cancelled", "cancelled"),
    "cancelled after a failure": (FAIL, "exit code 2", FAIL, "cancelled by SIGINT", "failed", "cancelled"),
    "killed": (
        FAIL,
        "interrupted: the process that ran it was killed",
        FAIL,
        "interrupted: the run was killed",
        "interrupted",
        "interrupted",
    ),
    "in flight": (PROCESSING, "", PROCESSING, "", "", ""),
}


@pytest.mark.parametrize(("status", "message", "of_run", "why", "outcome", "of_all"), OLD.values(), ids=OLD)
def test_a_log_without_outcomes(status: str, message: str, of_run: str, why: str, outcome: str, of_all: str) -> None:
    """A log of a version that had only messages is read, as a journal and as a document, as if it had the fields."""
    happened: list[Event] = [AttemptSaved(step="a", attempt=StepAttempt(status=status, message=message))]
    if of_run != PROCESSING:
        happened.append(InvocationFinished(time=moment(9), status=of_run, message=why))
    journalled = decode_events([encode_event(event) for event in (started(1, 0), *happened)], where="journal")
    document = decode(encode(folded(*happened)), where="document")
    for log in (journalled, document):
        assert log is not None
        (attempt,), (invocation,) = log.steps["a"].attempts, log.invocations
        assert (attempt.outcome, log.steps["a"].outcome) == (outcome, outcome)
        assert (invocation.outcome, log.outcome) == (of_all, of_all)
        assert attempt.interrupted == (outcome == "interrupted")
        assert invocation.interrupted == log.interrupted == (of_all == "interrupted")


@pytest.mark.parametrize(
    ("reason", "warning"),
    [
        ("unchanged since attempt 1", ""),
        ("reused, but a.py changed since (1234567)", "code_changed"),
        ("reused, but the code changed since 1234567 (not in this clone)", "code_changed"),
        ("reused, but parameter a changed since (not seen to read it; --from runs it again)", "parameters_changed"),
    ],
)
def test_a_reuse_without_a_warning(reason: str, warning: str) -> None:
    """What an older version said against a reuse is a field too."""
    decided = Decided(step="a", decision=DecisionRecord(action="reuse", reason=reason))
    assert decode(encode(folded(decided)), where="log").invocations[0].decisions["a"].warning == warning


def test_a_field_counts_more_than_a_message() -> None:
    """What a log says in a field is not read out of its messages again."""
    failed = StepAttempt(status=FAIL, message="cancelled", outcome="failed")
    log = decode(encode(folded(AttemptSaved(step="a", attempt=failed))), where="log")
    assert log.steps["a"].attempts[0].outcome == "failed"


def test_nothing_to_interrupt() -> None:
    """A run that ended, or never began, is left alone."""
    assert mark_interrupted(run_log(), time=moment(59)) == []
    assert mark_interrupted(RunLog(run_id=RUN_ID), time=moment(59)) == []


DAMAGE = {
    "not JSON": b"{garbage\n",
    "zeros": b"\0\0\0\n",
    "not UTF-8": b"\xff\xfe\n",
    "empty line": b"\n",
    "another thing": b'["a"]\n',
    "unknown event": b'{"event":"dreamt"}\n',
    "event without its fields": b'{"event":"attempt"}\n',
    "half a line": b'{"event":"ended","time":\n',
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_line(damage: bytes) -> None:
    """A line in the middle that cannot be read is named by its number; nothing is guessed."""
    lines = journal()
    lines[4] = damage
    with pytest.raises(RunLogError, match=r"^error: journal.jsonl, line 5: not an event") as caught:
        decode_events(lines, where="journal.jsonl")
    assert "damaged" in caught.value.hint


@pytest.mark.parametrize(
    "base", [[], [encode_event(LogImported(run_log=RunLog(run_id="x")))]], ids=["none", "document"]
)
def test_event_without_a_start(base: list[bytes]) -> None:
    """An event of a run that was not started is damage too."""
    with pytest.raises(RunLogError, match=f"line {len(base) + 1}: an event before the run was started") as caught:
        decode_events([*base, encode_event(InvocationFinished(time="", status=FAIL))], where="journal")
    assert caught.value.hint


@given(st.lists(st.sampled_from(journal()) | st.binary(max_size=9).map(lambda line: line + b"\n"), max_size=8))
def test_any_lines_are_a_log_or_one_error(lines: list[bytes]) -> None:
    """Whatever lines a journal has, they are a log, nothing yet, or a `RunLogError`."""
    try:
        log = decode_events(lines, where="journal")
    except RunLogError as e:
        assert re.search(r"journal, line \d", e.message)
    else:
        assert (log is None) == (not lines)


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff", b'{"status": "FAIL"}', b'{"run_id": "x", "steps": 3}'])
def test_damaged_document(damage: bytes) -> None:
    """A document that is no run log is refused with its name."""
    with pytest.raises(RunLogError, match=r"^error: blob is not a run log: "):
        decode(damage, where="blob")


@pytest.mark.parametrize("version", ["4", "4.1", "10"])
def test_newer_schema(version: str) -> None:
    """A log of a newer schema is refused, with the way out, even if it looks nothing like ours."""
    with pytest.raises(RunLogError, match=f"run log schema {version}, this version reads 1, 2 and 3") as caught:
        decode(json.dumps({"schema_version": version, "steps": []}).encode(), where="blob")
    assert caught.value.hint == "upgrade runnable-ci"


def test_newer_fields_are_kept() -> None:
    """A log of a newer minor version is read, and what we do not know of it is written back."""
    document = json.loads(encode(run_log()))
    document |= {"schema_version": f"{SCHEMA_VERSION}.7", "newer": {"a": [1]}}
    document["steps"]["fit"]["newer"] = "b"
    document["steps"]["fit"]["attempts"][1]["newer"] = 1
    document["steps"]["fit"]["attempts"][1]["input_parameters"]["rate"]["newer"] = None
    assert json.loads(encode(decode(json.dumps(document).encode(), where="log"))) == document


def test_newer_fields_survive_the_journal() -> None:
    """An event keeps what it holds of a newer version."""
    attempt_ = StepAttempt.model_validate({"attempt_number": 2, "newer": [1, 2]})
    line = encode_event(AttemptSaved(step="a", attempt=attempt_))
    log = decode_events([encode_event(started(1, 0)), line], where="journal")
    assert log is not None
    assert log.steps["a"].attempts[0].model_dump()["newer"] == [1, 2]


def test_text_that_is_not_unicode() -> None:
    """A byte of a path or a message that was not UTF-8 is shown, and never keeps a log from being written."""
    failure = ExceptionInfo(type="OSError", message="no \udcff", traceback="no \udcff")
    entry = CatalogEntry(name="bad\udcff.csv", stage="put")
    event = AttemptSaved(step="a", attempt=attempt(1, 1, message="no \udcff", exception=failure), data_catalog=[entry])
    log = decode_events([encode_event(started(1, 0)), encode_event(event)], where="journal")
    assert log is not None
    assert log.steps["a"].message == "no \\udcff"
    written = decode(encode(folded(event)), where="log")
    assert written.steps["a"].data_catalog[0].name == "bad\\udcff.csv"
    assert written == log


@pytest.mark.parametrize(
    ("parameter", "description"),
    [
        (Parameter.of_json(0.6, "metric"), 0.6),
        (Parameter.of_json("exactly 10"), "exactly 10"),
        (Parameter.of_json("more than 10"), "more than ..."),
        (
            Parameter.of_object("X", data_hash="a", size=1, object_type="T"),
            "Pickled object stored in catalog as: X",
        ),
    ],
)
def test_parameters_describe_themselves(parameter: Parameter, description: Any) -> None:
    """A description is what the reference system writes."""
    assert parameter.description == description


def test_code_of_a_run_without_any() -> None:
    """A run that recorded no code has none."""
    assert RunLog(run_id=RUN_ID).code() is None
    assert folded(*saved("a", attempt(1, 1, CLEAN), file("a.csv", "a"))).code() == CLEAN


MODELS: dict[str, tuple[type[BaseModel], tuple[str, ...]]] = {
    "run": (RunLog, ()),
    "parameter": (Parameter, ("parameters", "score")),
    "step": (StepLog, ("steps", "fit")),
    "attempt": (StepAttempt, ("steps", "fit", "attempts", "0")),
    "code identity": (CodeIdentity, ("steps", "fit", "attempts", "0", "code_identities", "0")),
    "catalog entry": (CatalogEntry, ("steps", "fit", "data_catalog", "0")),
}


@pytest.mark.parametrize(("model", "path"), MODELS.values(), ids=MODELS)
def test_the_references_fields_are_ours(model: type[BaseModel], path: tuple[str, ...]) -> None:
    """No field of the reference system's log is renamed or left out, and each is written even where it is empty."""
    example: Any = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    ours: Any = json.loads(encode(run_log()))
    for key in path:
        example, ours = (part[int(key)] if isinstance(part, list) else part[key] for part in (example, ours))
    assert example.keys() <= model.model_fields.keys()
    assert example.keys() <= ours.keys()


def test_the_references_log_is_read() -> None:
    """A log that the reference system wrote is read with all that is in it."""
    log = decode(EXAMPLE.read_bytes(), where="example")
    assert (log.metrics(), log.failed_steps(), log.invocation) == ({"score": 0.6}, [], 0)
    assert log.steps["fit"].attempts[0].code_identities[0].code_identifier_message == "changes found in docs/concepts/"
    assert log.steps["fit"].put_entries()[0].name == "iris_logistic.png"
    assert has_all(log.model_dump(), json.loads(EXAMPLE.read_bytes()))
    assert {step.outcome for step in log.steps.values()} == {"succeeded"}


def has_all(found: Any, wanted: Any) -> bool:
    """Whether a JSON value has all that is in another one."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(key in found and has_all(found[key], value) for key, value in wanted.items())
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(has_all, found, wanted))
    return bool(found == wanted)
