"""What is done after a job of a run that several share: its part is published; the summary is that of who collects."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from runnable_ci.errors import RunnableError
from runnable_ci.github.action.handoff import Refusal
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.shared.place import artifact_name, is_carried, own_part
from runnable_ci.runs.model import FAIL, JOB, SUCCESS, RunLog
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.runs.remote.publish import publish
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.runs.reuse.candidates import publish_entries


def finish_part(job: Job, run_id: str, refusal: Refusal | None, limit_s: float | None) -> int:
    """Publish what the job did, in `limit_s` seconds, and set the outputs; the exit code tells of publishing."""
    if refusal is not None:
        job.warn("An error ended the command", ". ".join(filter(None, (refusal.message, refusal.hint, refusal.fix))))
    if not job.inputs.steps:  # it asked for instances, and made nothing
        job.set_outputs({"run-id": run_id, "status": FAIL if job.inputs.outcome == "failure" else SUCCESS})
        return 0
    try:
        run_id = resolve_id(job.layout, run_id)
        log = load(job.layout, run_id)
    except RunnableError as e:
        if run_id and refusal is None:
            job.warn("There is no run log", str(e))
        job.set_outputs({"status": FAIL})
        return 0
    outputs = {"run-id": run_id, "status": _status(job, log)}
    code = 0
    try:
        outputs |= carried(job, run_id) if is_carried(job) else _published(job, run_id, limit_s)
    except RunnableError as e:
        job.warn("Not published: the jobs after this one do not have what it made", "\n".join(e.lines()))
        code = 1
    job.set_outputs(outputs)
    return code


def carried(job: Job, run_id: str) -> dict[str, str]:
    """Return the outputs that have the job's part of the run uploaded; none where it left none."""
    folder = own_part(job)
    return {"artifact": artifact_name(job, run_id), "artifact-path": str(folder)} if folder.exists() else {}


def resuming_workflow(job: Job, folder: Path) -> str:
    """Return the file of the job's own workflow where that resumes the run; empty where a person wrote it."""
    from runnable_ci.github.job_graph.workflow_file import MARK  # who collects alone needs it

    name = PurePosixPath(job.use.workflow).name
    try:
        with (folder / name).open(encoding="utf-8", errors="replace") as file:
            return name if file.readline().rstrip("\n") == MARK else ""
    except OSError:
        return ""


def _published(job: Job, run_id: str, limit_s: float | None) -> dict[str, str]:
    registry = job.registry_of(run_id)
    elsewhere = Registries(job.settings, job.environ).recorded
    found = publish(job.layout, run_id, registry, environ=job.environ, limit_s=limit_s, open_registry=elsewhere)
    digest = found.manifest.digest
    indexed = [] if limit_s else publish_entries(job.layout, run_id, registry, digest, environ=job.environ)
    for note in (*found.notes, *indexed):
        job.say(note)
    job.say(f"published {found.reference}")
    return {"reference": found.reference, "digest": digest}


def _status(job: Job, log: RunLog) -> str:
    is_done = log.ended_by == JOB or log.status == SUCCESS
    return SUCCESS if is_done and job.inputs.outcome != "failure" else FAIL
