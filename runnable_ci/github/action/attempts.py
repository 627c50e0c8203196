"""How a job finds the run of its earlier attempt, and what it leaves for the next one.

What is left is an artifact of the workflow run: only its own jobs can write it, so what it names is resumed by its
digest, whatever else others have put into the registry by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path

from runnable_ci.errors import RunnableError, StoreError, UsageError
from runnable_ci.github.accepted_writers import accepted_writers
from runnable_ci.github.action import earlier
from runnable_ci.github.action.earlier import Choice, JobAttempt, Note, PastJob
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.shared import place
from runnable_ci.github.markdown import escaped
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import shared
from runnable_ci.runs.reader import load, run_ids
from runnable_ci.runs.recorder import ensure_sealed
from runnable_ci.runs.remote.publish import Published, job_prefix
from runnable_ci.runs.remote.pull import find, take
from runnable_ci.runs.run_identity import run_identity
from runnable_ci.store.copy import copy
from runnable_ci.store.local import Layout
from runnable_ci.util.files import write_whole
from runnable_ci.util.shell_command import command

NOTE = "attempt.json"
_NOTE_MAX_BYTES = 1 << 16


def locate(environ: Mapping[str, str]) -> None:
    """Set the outputs `pattern`, what earlier attempts of the job left, or other jobs, and `path`, where to download it
    to.

    Nothing is set on a server that keeps no artifacts.
    """
    job = Job.of(environ)
    if not job.context.takes_artifacts:
        return
    if place.is_shared(job):  # what jobs share is in the registry, where they may write there
        if place.is_carried(job):
            name = place.pattern(job.inputs.run_id or place.shared_id(job))
            job.set_outputs({"pattern": name, "path": str(place.downloads(job))})
        return
    job.set_outputs({"pattern": f"runnable-{job.use.key}-*", "path": str(_downloads(job))})


def resume_earlier(job: Job) -> Note | None:
    """Return what names an earlier attempt's run, whose log is here from now on; None where the job begins another one.

    What was decided is said. Raises `RunnableError` where the input `resume` insists and the run is not available.
    """
    mode, number = job.inputs.resume, job.context.run_attempt
    if number == 1 or mode == "never":
        return None
    try:
        choice = _choose(job)
        choice = _lost(job, since=max((note.attempt for note, _ in _notes(job)), default=0)) or choice
        if (note := choice.note) is not None:
            _bring(job, note)
            _tell(job, f"attempt {number} resumes run `{note.run_id}` ({note.digest}): {choice.reason}")
            return note
    except RunnableError as e:
        if mode == "always":
            raise
        choice = Choice(None, f"that of an earlier attempt cannot be used: {e.message}", e.hint)
        job.warn("The run of an earlier attempt cannot be resumed", f"{e.message}. {e.hint}".strip(" ."))
    _tell(job, f"attempt {number} begins a run of its own: {choice.reason}", choice.hint)
    return None


def _lost(job: Job, *, since: int) -> Choice | None:
    """Return the run of earlier attempts of which the last one, after `since`, left nothing but what it had published.

    Its runner was lost. The run is known by its id and the tag that only this job of this workflow run would move, and
    used as any run from a registry: if those are accepted who made it.
    """
    if not job.use.is_told_apart:
        return None
    use, choices = job.use, list[Note]()
    for number in range(job.context.run_attempt - 1, 0, -1):
        run_id = use.name if number == 1 else f"{use.name}-attempt{number}"
        if note := _published_by_lost(job, run_id, since=since):
            choices.append(note)
    if not choices:
        return None
    note = max(choices, key=lambda note: note.attempt)
    return Choice(note, f"attempt {note.attempt} was lost, and had published that much")


def _published_by_lost(job: Job, run_id: str, *, since: int) -> Note | None:
    """Return what the last attempt of the job after `since` that was lost had published of a run: all it had then."""
    if job.inputs.publish != "always" or job.context.is_fork_pull_request:
        return None
    try:
        found = find(job.registry(), run_id, accepted=accepted_writers(job.settings, job.environ))
    except RunnableError:
        return None
    for number in range(job.context.run_attempt - 1, since, -1):
        tag = job_prefix({**job.environ, "GITHUB_RUN_ATTEMPT": str(number)})
        parts = [part for part in found.parts if any(name.startswith(tag) for name in part.names)]
        if len(parts) == 1 and parts[0].sign:
            digest, identity = parts[0].manifest.digest, run_identity(found.log)
            return Note(job.use.key, number, run_id, identity, found.log.status, digest, is_published=True, job="")
        if parts:
            return None
    return None


def published_earlier(job: Job, run: str) -> str:
    """Return the digest of what earlier attempts of the job, a retry of `run`, published; empty where none is known.

    Others may have published since: what they did is not for this job, unless its first attempt begins with it.
    """
    if job.context.run_attempt == 1 or job.inputs.resume == "never":
        return ""
    notes = [note for note, _ in _notes(job) if note.is_published]
    if earlier.doubt(notes, is_told_apart=job.use.is_told_apart):
        return ""
    note = max(notes, key=lambda note: note.attempt, default=None)
    run_id = run.partition("@")[0].rpartition("/")[2].rpartition(":")[2]
    note = _published_by_lost(job, run_id, since=note.attempt if note else 0) or note
    if note is None:
        return ""
    said = f"run `{note.run_id}` ({note.digest}), which attempt {note.attempt} published"
    _tell(job, f"attempt {job.context.run_attempt} resumes {said}")
    return note.digest


def first_id(job: Job) -> str:
    """Return the id of the run that this attempt of the job begins."""
    use, number = job.use, job.context.run_attempt
    is_free = use.run_id and not any(note.run_id == use.run_id for note, _ in _notes(job))
    name = use.name if number == 1 or is_free else f"{use.name}-attempt{number}"
    return name if use.run_id else _free(job, name)


def _free(job: Job, name: str) -> str:
    """Return an id that no run here has: `act` counts neither its workflow runs nor their attempts."""
    there = set(run_ids(job.layout))
    return name if name not in there else next(it for n in count(2) if (it := f"{name}-{n}") not in there)


def leave_note(job: Job, log: RunLog, published: Published | None) -> dict[str, str]:
    """Leave what the next attempt of the job needs to resume this run; return the outputs that have it uploaded.

    An unpublished run is left whole: its store is the artifact.
    """
    layout = job.layout
    ensure_sealed(layout, log.run_id)
    note = Note(
        use=job.use.key,
        attempt=job.context.run_attempt,
        run_id=log.run_id,
        identity=run_identity(log),
        status=log.status,
        digest=(published.manifest if published else layout.resolve(log.run_id)).digest,
        is_published=published is not None,
        job=job.inputs.job_number,
        outcome=log.outcome,
    )
    folder = job.folder / "left" / log.run_id if published else layout.folder
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NOTE, note.encode())
    return {"artifact": artifact_name(job, log), "artifact-path": str(folder)}


def artifact_name(job: Job, log: RunLog) -> str:
    """Return what no other artifact of the workflow run is called, of any attempt or job."""
    return f"runnable-{job.use.key}-{job.context.run_attempt}-{run_identity(log)[:12]}"


def _downloads(job: Job) -> Path:
    return job.folder / "earlier" / job.use.key


def _notes(job: Job) -> list[tuple[Note, Path]]:
    """Return what was downloaded: each note, and its folder."""
    found = []
    for path in sorted(_downloads(job).rglob(NOTE)):
        with path.open("rb") as file:
            note = earlier.decode(file.read(_NOTE_MAX_BYTES))
        if note is not None and note.use == job.use.key and note.attempt < job.context.run_attempt:
            found.append((note, path.parent))
    return found


def _choose(job: Job) -> Choice:
    notes = [note for note, _ in _notes(job)]
    if not job.context.takes_artifacts:
        raise StoreError(
            f"{job.context.server_url} keeps no artifacts that tell which run was this job's",
            hint=f"resume it with command: retry, or by `{command('retry', 'REFERENCE')}`",
        )
    if not notes and job.inputs.downloaded not in ("success", ""):
        raise StoreError(
            "what earlier attempts left could not be downloaded from the workflow run's artifacts",
            hint="`resume: never` begins a run of its own",
        )
    for note in notes:
        job.debug(f"an earlier attempt left {note}")
    past = _past(job) if notes else None
    job.debug(f"of the job's earlier attempts GitHub says {past}")
    choice = earlier.choose(notes, mode=job.inputs.resume, is_told_apart=job.use.is_told_apart, past=past)
    changing = "where `matrix` has a date, or the number of the attempt, each attempt looks like another job"
    return choice if notes or not job.use.is_matrix_given else choice._replace(hint=changing)


def _past(job: Job) -> PastJob | None:
    """Return what GitHub says of the job's earlier attempts; None where it does not."""
    number, run = job.inputs.job_number, job.context.run_id
    if not (number.isdecimal() and run.isdecimal() and job.inputs.job_token):
        return None
    from runnable_ci.github.api.connection import connect_job  # late: HTTP

    try:
        jobs = connect_job(job.inputs.job_token, job.environ).jobs(int(run), of_all_attempts=True)
    except RunnableError as e:
        job.say(f"note: how the earlier attempts of the job ended is not known: {e.message}")
        return None
    listed = [JobAttempt(str(it.id), it.name, it.run_attempt, it.conclusion or "") for it in jobs]
    return earlier.past_job(listed, number=number, attempt=job.context.run_attempt)


def _bring(job: Job, note: Note) -> None:
    """Have the run here: its log, from the registry by the digest, or all of it, from the artifact."""
    if note.is_published:
        found = find(job.registry(), note.digest)
        if (found.log.run_id, run_identity(found.log)) != (note.run_id, note.identity):
            raise UsageError(f"{note.digest} is not run `{note.run_id}` of attempt {note.attempt}")
        take(job.layout, found, only_log=True, is_taken_over=True)  # this job's own earlier attempt is over
        return
    if note.run_id in run_ids(job.layout):
        if run_identity(load(job.layout, note.run_id)) == note.identity:
            return
        raise UsageError(f"another run `{note.run_id}` is in {job.layout.label}")
    kept = Layout(next(folder for other, folder in _notes(job) if other == note))
    kept.inspect()
    job.layout.create()
    with shared(job.layout):
        copy(kept, note.digest, job.layout, as_reference=note.run_id)


def _tell(job: Job, text: str, hint: str = "") -> None:
    """Print a line in the log and add it to the summary."""
    line = f"{text}; {hint}" if hint else text
    job.say(line)
    if job.inputs.summary:
        job.summarise(f"{escaped(job.clean(line))}\n\n")
