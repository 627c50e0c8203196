"""Which run the jobs of a workflow run share, and where they meet: in the registry, or in its artifacts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath

from runnable_ci.errors import StoreError, UsageError
from runnable_ci.github.action.job import Job
from runnable_ci.runs.remote.registry_config import PULL_REQUESTS, Registries
from runnable_ci.store.registry import Registry

_PREFIX = "runnable-part"


def is_shared(job: Job) -> bool:
    """Return whether this use of the action is a job of a run that several share."""
    given = job.inputs
    return bool(given.steps or given.collect or given.matrix_of)


def shared_id(job: Job) -> str:
    """Return the run's id, the same in all jobs and attempts of the workflow run."""
    use = job.use
    file = PurePosixPath(use.called_workflow or use.workflow).stem
    return use._replace(job=file or "run", matrix="", step="").name


def is_carried(job: Job) -> bool:
    """Return whether artifacts carry the run from job to job: a fork's token may not write to the registry."""
    return job.context.is_fork_pull_request


def require_place(job: Job) -> None:
    """Raise where the jobs cannot meet."""
    if job.inputs.publish not in ("always", "at-end"):
        raise UsageError(
            f"publish: {job.inputs.publish}: jobs that share a run find it where the others have published it",
            hint="leave out the input publish, or set it to `at-end`",
        )
    if not is_carried(job):
        return
    if not job.context.takes_artifacts:
        raise StoreError(
            f"{job.context.server_url} takes no artifacts, and a fork's pull request may not publish: its jobs cannot "
            "share a run",
            hint="run the pipeline of such pull requests in one job",
        )
    if job.inputs.downloaded not in ("success", ""):
        raise StoreError(
            "what other jobs left could not be downloaded from the workflow run's artifacts", hint="re-run the job"
        )


def meeting_place(job: Job, named: str) -> Registry:
    """Return the registry where the jobs meet: the job's own, or, where it is `named`, that of its pull requests.

    Raises `UsageError` for any other: the job could not leave its part there.
    """
    own = job.registry()
    if named in ("", own.label):
        return own
    if named != f"{own.label}/{PULL_REQUESTS}":
        raise UsageError(f"run-id: {named} is not where these jobs publish", hint=f"set the input registry: {named}")
    return Registries(job.settings, job.environ).recorded(named)


def pattern(run_id: str) -> str:
    """Return which artifacts hold parts of the run."""
    return f"{_PREFIX}-{run_id}-*"


def downloads(job: Job) -> Path:
    """Return where they are downloaded to."""
    return job.folder / "parts"


def own_part(job: Job) -> Path:
    """Return the folder that this job leaves."""
    return job.folder / "part"


def artifact_name(job: Job, run_id: str) -> str:
    """Return what no other artifact of the workflow run is called, of any attempt or job."""
    given, use = job.inputs, job.use
    facts = [use.job, use.matrix, use.step, given.steps, given.instances, given.matrix_of, str(given.collect)]
    own = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return f"{_PREFIX}-{run_id}-{own}-{job.context.run_attempt}"
