"""What is checked at the start of a job: better said before hours of work than after them."""

from __future__ import annotations

from pathlib import Path

from runnable_ci.errors import PipelineError, RunnableError, StoreError, UsageError
from runnable_ci.github.action.job import Job
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.publish import require_room
from runnable_ci.runs.remote.readiness import Finding, check_registry, check_space, size_of_newest, stored_bytes
from runnable_ci.store.registry import Registry

_NEVER = "to publish nothing, set `publish: never`"


def require_registry(job: Job) -> None:
    """Raise `UsageError` where the run is to be published and nobody says where.

    A job that cannot publish at all is not kept from its work.
    """
    command = job.inputs.command
    if command == "pull" or (command != "publish" and not _is_to_publish(job)) or job.context.is_fork_pull_request:
        return
    try:
        advice = job.registry().advice
    except PipelineError:  # the command itself will tell of the file
        return
    except UsageError as e:
        if command != "publish":
            _offer_never(e)
        raise
    if advice:
        job.say(f"note: {advice.hint}")


def require_ready(job: Job, run_id: str, *, is_new: bool) -> None:
    """Raise for what would keep the run from being published or stored; warn of what may. Its log is here, or it
    `is_new`.

    Nothing is asked of a registry where nothing is published: in a fork's job, or with `publish: never`.
    """
    registry = None
    if _is_to_publish(job):
        require_room(run_id, job.environ)
        registry = _writable(job, run_id)
    known_bytes = _size_of_last(job, registry) if is_new else stored_bytes(load(job.layout, run_id))
    folder = job.layout.folder.parent
    _judge(job, check_space(folder, known_bytes, job.environ, is_fresh=True), "There may be too little space")


def _is_to_publish(job: Job) -> bool:
    return job.inputs.publish != "never" and not job.context.is_fork_pull_request


def _writable(job: Job, run_id: str) -> Registry | None:
    """Return the registry that the run goes to, if it answers."""
    try:
        registry = job.registry_of(run_id)
    except PipelineError:  # the command itself will tell of the file
        return None
    finding = check_registry(registry, job.environ)
    _judge(job, finding, "The registry cannot be reached now")
    return registry if finding.problem is None else None


def _size_of_last(job: Job, registry: Registry | None) -> int:
    """Return what the branch's newest run of the pipeline stored, as far as that is known."""
    if registry is None or not job.context.base_branch:
        return 0
    try:
        name = load_project(Path(job.inputs.pipeline)).pipeline.name
        return size_of_newest(job.branches_registry(), name, job.context.base_branch)
    except (PipelineError, StoreError):
        return 0


def _judge(job: Job, finding: Finding, title: str) -> None:
    """Raise what makes the run vain, and warn of everything else."""
    if (problem := finding.problem) is None:
        return
    if finding.is_fatal:
        if finding.subject == "registry":
            _offer_never(problem)
        raise problem
    job.warn(title, "\n".join(filter(None, (". ".join(filter(None, (problem.message, problem.hint))), problem.fix))))


def _offer_never(error: RunnableError) -> None:
    error.hint = f"{_NEVER}; otherwise {error.hint}" if error.hint else _NEVER
