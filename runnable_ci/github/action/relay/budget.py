"""How much time a run of this job has, so that it ends before GitHub ends the job."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from runnable_ci.errors import RunnableError
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.relay.job_limit import job_limit_minutes, reserve_s
from runnable_ci.github.action.use import workflow_file
from runnable_ci.pipeline.keys.durations import parse_budget
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.util.text import decode_text

_WORKFLOW_MAX_BYTES: Final = 512_000
"""GitHub takes no larger one."""
_NONE: Final = "the job's run has no time budget"
_FILE: Final = re.compile(r"\.github/workflows/[^/\\\0]+\.ya?ml")


def budget_options(job: Job, pipeline: str) -> Sequence[str]:
    """Return `--time-budget` for `run` and `retry`; nothing where the job's own end is not known.

    Nor where the pipeline file has a budget that is over before.
    """
    match job.inputs.time_budget:
        case "off":
            return []
        case "auto":
            now_s = time.time()
            moment_s = run_ends_s(job, now_s=now_s)
            if moment_s is None or now_s + _own_budget_s(pipeline) <= moment_s:
                return []
            moment = datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="seconds")
            return [f"--time-budget={moment.replace('+00:00', 'Z')}"]
        case given:
            return [f"--time-budget={given}"]


def run_ends_s(job: Job, *, now_s: float) -> float | None:
    """Return when a run of this job is to have ended, in seconds since 1970; None where its end is not known.

    The job began when the runner wrote the file of its event. A moment of which the job's time is over, or that is to
    come, is not that one.
    """
    limit = job_limit_minutes(_workflow_text(job), job.context.job, runner=job.environ.get("RUNNER_ENVIRONMENT", ""))
    if limit is None:
        job.debug(f"{_NONE}, as its workflow file does not say in a number when it will be ended")
        return None
    budget_s = 60 * limit - reserve_s(limit)
    began_s = _began_s(job)
    if began_s is None or not 0 <= now_s - began_s < budget_s:
        job.debug(f"{_NONE}, as the file of its event does not tell when it began: it is ended after {limit} min")
        return None
    job.debug(f"the job is ended after {limit} min: its run is to end {budget_s:.0f} s after the job began")
    return began_s + budget_s


def _began_s(job: Job) -> float | None:
    event = job.environ.get("GITHUB_EVENT_PATH")
    try:
        return Path(event).stat().st_mtime if event else None
    except (OSError, ValueError):
        return None


def _own_budget_s(pipeline: str) -> float:
    """Return what the pipeline file gives a run; infinity where it says nothing, or cannot be read."""
    try:
        given = load_project(Path(pipeline)).pipeline.time_budget
    except RunnableError:  # the command itself will tell
        return float("inf")
    return parse_budget(given).length_s if given else float("inf")


def _workflow_text(job: Job) -> str | None:
    """Return the file that the job is written in: as it was started where that commit is here, else as it is here."""
    started = workflow_file(job.context.workflow_ref)
    path = workflow_file(job.inputs.job_workflow_ref) or started
    prefix = f"{job.context.repository}/"
    name = path.removeprefix(prefix)
    if not path.startswith(prefix) or not _FILE.fullmatch(name):
        return None
    commit = job.environ.get("GITHUB_WORKFLOW_SHA", "") if path == started else ""
    content = _at_commit(job, commit, name) if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit) else None
    if content is None:
        with suppress(OSError), (Path(job.context.workspace or ".") / PurePosixPath(name)).open("rb") as file:
            content = file.read(_WORKFLOW_MAX_BYTES + 1)
    try:
        return None if content is None or len(content) > _WORKFLOW_MAX_BYTES else decode_text(content)
    except ValueError:
        return None


def _at_commit(job: Job, commit: str, name: str) -> bytes | None:
    from runnable_ci.vcs.clone import Clone  # late: it loads GitPython

    try:
        clone = Clone.around(Path(job.context.workspace or "."), job.environ)
        blob = f"{commit}:{name}"
        size = int(clone.git("cat-file", "-s", blob))
        return clone.git("cat-file", "blob", blob) if size <= _WORKFLOW_MAX_BYTES else None
    except (RunnableError, ValueError):
        return None
