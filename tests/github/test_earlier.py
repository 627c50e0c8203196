"""Whether the next attempt of a job resumes an earlier one's run: notes in, a choice out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from runnable_ci.errors import UsageError
from runnable_ci.github.action.earlier import JobAttempt, Note, PastJob, choose, decode, past_job

NOTE = Note(
    use="train-1000",
    attempt=1,
    run_id="train-1000",
    identity="a" * 32,
    status="FAIL",
    digest=f"sha256:{'0' * 64}",
    is_published=True,
    job="11",
)
DONE = replace(NOTE, status="SUCCESS")
OTHER = replace(NOTE, identity="b" * 32, job="12")


def chosen(*notes: Note, mode: str = "auto", is_told_apart: bool = True, past: PastJob | None = None) -> Note | None:
    """The note whose run is resumed."""
    return choose(notes, mode=mode, is_told_apart=is_told_apart, past=past).note


def test_what_nobody_left_is_not_resumed() -> None:
    """Also where the input insists: there is nothing to lose."""
    assert chosen() is chosen(mode="always") is None


def test_the_run_s_own_status_decides_where_github_does_not_tell() -> None:
    """A failed run is resumed; a finished one only where the input says so."""
    assert chosen(NOTE) == NOTE
    assert chosen(DONE) is None
    assert chosen(DONE, mode="always") == DONE


@pytest.mark.parametrize(
    ("outcome", "said"),
    [("failed", "failed"), ("cancelled", "was cancelled"), ("interrupted", "was interrupted"), ("", "failed")],
)
def test_how_the_run_ended_is_said(outcome: str, said: str) -> None:
    """By its outcome: a run that was cancelled has not failed."""
    choice = choose([replace(NOTE, outcome=outcome)], mode="auto", is_told_apart=True, past=None)
    assert choice.reason == f"the run of attempt 1 {said}"


@pytest.mark.parametrize(
    ("conclusion", "is_resumed"),
    [("failure", True), ("cancelled", True), ("timed_out", True), ("success", False), ("", False)],
)
@pytest.mark.parametrize("note", [NOTE, DONE])
def test_the_job_s_conclusion_decides(note: Note, conclusion: str, *, is_resumed: bool) -> None:
    """Whatever the run says: the job may have failed after it."""
    past = PastJob(conclusion, {"11"})
    assert (chosen(note, past=past) is not None) is is_resumed
    assert chosen(note, past=past, mode="always") == note


def test_the_newest_attempt_counts() -> None:
    """Of a job whose second attempt began a run of its own."""
    second = replace(OTHER, attempt=2)
    assert chosen(second, NOTE) == second
    assert chosen(NOTE, replace(DONE, attempt=2)) is None


@pytest.mark.promise
@pytest.mark.parametrize(
    "notes",
    [
        (NOTE, OTHER),
        (NOTE, OTHER, replace(NOTE, attempt=2, identity="c" * 32)),
    ],
)
def test_jobs_that_look_the_same_resume_nothing(notes: tuple[Note, ...]) -> None:
    """Of two runs in one attempt each may be another job's, for ever; the input that would help is named."""
    choice = choose(notes, mode="auto", is_told_apart=True, past=None)
    assert choice.note is None
    assert "run-id" in choice.hint
    with pytest.raises(UsageError, match="look the same"):
        choose(notes, mode="always", is_told_apart=True, past=None)
    assert chosen(*notes, past=PastJob("failure", {"12"})) == OTHER


def test_a_called_workflow_resumes_what_is_proven_its_own() -> None:
    """Of another leg, which never began, there is no note: one note alone proves nothing."""
    assert chosen(NOTE, is_told_apart=False) is None
    assert chosen(NOTE, is_told_apart=False, past=PastJob("failure", {"11"})) == NOTE
    assert chosen(NOTE, is_told_apart=False, past=PastJob("failure", {"13"})) is None


def test_a_job_is_known_by_its_name() -> None:
    """Its number is another one at each attempt; a name that two jobs have tells nothing."""
    alpha = [JobAttempt("11", "call (alpha) / train", 1, "failure"), JobAttempt("21", "call (alpha) / train", 2, "")]
    beta = [JobAttempt("12", "call (beta) / train", 1, "success"), JobAttempt("22", "call (beta) / train", 2, "")]
    assert past_job([*alpha, *beta], number="21", attempt=2) == PastJob("failure", frozenset({"11"}))
    assert past_job([*alpha, *beta], number="22", attempt=2) == PastJob("success", frozenset({"12"}))
    assert past_job([*alpha, *beta], number="23", attempt=2) is None
    same = [job._replace(name="train") for job in (*alpha, *beta)]
    assert past_job(same, number="21", attempt=2) is None
    assert past_job(alpha[1:], number="21", attempt=2) == PastJob("", frozenset())


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "../x"},
        {"digest": "sha256:0"},
        {"attempt": 0},
        {"attempt": True},
        {"attempt": "1"},
        {"is_published": "yes"},
        {"use": None},
        {"outcome": 7},
    ],
)
def test_a_note_that_is_none(change: dict[str, object]) -> None:
    """What cannot be a note is not used; a note comes back as it was."""
    assert decode(NOTE.encode()) == NOTE
    assert decode(json.dumps({**asdict(NOTE), **change}).encode()) is None
    assert decode(json.dumps({**asdict(NOTE), "added_later": 1}).encode()) == NOTE
    for text in (b"", b"[]", b'"use"', b"7", b"{}", b"[" * 100_000, b"\xff"):
        assert decode(text) is None
