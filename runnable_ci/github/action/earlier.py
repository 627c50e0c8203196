"""What earlier attempts of a job left of their runs, and whether the next attempt resumes one. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

from runnable_ci.errors import UsageError
from runnable_ci.runs.model import SUCCESS
from runnable_ci.store.target import DIGEST, TAG

RESUMED = frozenset({"failure", "cancelled", "timed_out"})
"""The conclusions of a job after which GitHub's "Re-run failed jobs" starts it again."""
_ENDINGS = {"cancelled": "was cancelled", "interrupted": "was interrupted"}
APART = "set the input run-id, such as `run-id: ${{ github.run_id }}-NAME`, to what tells it apart from the others"


@dataclass(frozen=True, slots=True)
class Note:
    """What an attempt leaves for the next one, where only jobs of its own workflow run can write."""

    use: str
    attempt: int
    run_id: str
    identity: str
    """Of the run, which no other run has."""
    status: str
    digest: str
    """Of its manifest."""
    is_published: bool
    """Else the run is in the artifact itself."""
    job: str
    """GitHub's number for the job; empty where the runner does not tell."""
    outcome: str = ""
    """How the run ended, where it is not the success or failure that the status tells."""

    def encode(self) -> bytes:
        """Return the note as JSON."""
        return json.dumps(asdict(self)).encode()


def decode(document: bytes) -> Note | None:
    """Return a note, of which another version may have written less or more; None for anything else."""
    try:
        found = json.loads(document)
        note = Note(**{it.name: found[it.name] for it in fields(Note) if it.name in found})
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (note.use, note.run_id, note.identity, note.status, note.digest, note.job, note.outcome)
    is_sound = all(isinstance(text, str) for text in texts) and type(note.attempt) is int and note.attempt > 0
    is_sound = is_sound and type(note.is_published) is bool
    return note if is_sound and TAG.fullmatch(note.run_id) and DIGEST.fullmatch(note.digest) else None


class JobAttempt(NamedTuple):
    """An attempt of a job of the workflow run, as GitHub lists it."""

    number: str
    name: str
    attempt: int
    conclusion: str


class PastJob(NamedTuple):
    """What GitHub says of the earlier attempts of this very job."""

    conclusion: str
    """Of the last one."""
    numbers: Collection[str]
    """Of each."""


class Choice(NamedTuple):
    """What is resumed, and why."""

    note: Note | None
    reason: str
    hint: str = ""


def choose(notes: Sequence[Note], *, mode: str, is_told_apart: bool, past: PastJob | None) -> Choice:
    """Choose the run to resume, by what the earlier attempts of this use of the action left.

    `past` is None where GitHub cannot be asked. Raises `UsageError` where `mode` is `always` and it is not known which
    run that would be.
    """
    if past is not None:
        notes = [note for note in notes if note.job in past.numbers]
    if not notes:
        return Choice(None, "no earlier attempt of the job left one")
    if past is None and (reason := doubt(notes, is_told_apart=is_told_apart)):
        if mode == "always":
            raise UsageError(f"resume: always: {reason}", hint=APART)
        return Choice(None, reason, APART)
    newest = max(notes, key=lambda note: note.attempt)
    last = f"attempt {newest.attempt}"
    if mode == "always":
        return Choice(newest, "resume: always")
    if past is not None:
        is_resumed = past.conclusion in RESUMED
        reason = f"{last} of the job ended with {past.conclusion or 'no conclusion'}"
        hint = "`resume: always` would use its run"
    else:
        is_resumed = newest.status != SUCCESS
        reason = f"the run of {last} {_ENDINGS.get(newest.outcome, 'failed') if is_resumed else 'succeeded'}"
        hint = (
            "with the permission `actions: read` the job's own result would decide; `resume: always` would use the run"
        )
    return Choice(newest, reason) if is_resumed else Choice(None, reason, hint)


def doubt(notes: Sequence[Note], *, is_told_apart: bool) -> str:
    """Return why a note may be another job's; empty where it is not.

    That a run could not have the id which it was to have tells nothing: any run may have had that.
    """
    runs: dict[int, set[str]] = {}
    for note in notes:
        runs.setdefault(note.attempt, set()).add(note.identity)
    if any(len(found) > 1 for found in runs.values()):
        return (
            "several jobs of this workflow run look the same to the action, so none resumes what may be another's run"
        )
    if not is_told_apart:
        return "the job is of a called workflow, where the jobs that call it look the same to the action"
    return ""


def past_job(jobs: Sequence[JobAttempt], *, number: str, attempt: int) -> PastJob | None:
    """Return the earlier attempts of the job that has this number; None where others may be taken for it.

    A job has another number at each attempt and keeps its name, which counts where it is the only one of its name.
    """
    names = {job.name for job in jobs if job.number == number}
    named = [job for job in jobs if job.name in names and job.attempt <= attempt]
    if not names or len({job.attempt for job in named}) != len(named):
        return None
    earlier = sorted((job for job in named if job.attempt < attempt), key=lambda job: job.attempt)
    return PastJob(earlier[-1].conclusion if earlier else "", frozenset(job.number for job in earlier))
