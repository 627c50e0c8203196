"""What becomes of a run that the time budget of its job ended: a further job resumes it, or it is said how one does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

from runnable_ci.errors import RunnableError
from runnable_ci.github.action.clone_commands import CloneCommands
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.relay.chain import JobChain, is_ended_by_budget
from runnable_ci.github.api.errors import PermissionMissingError, RefusedError
from runnable_ci.github.retry_workflow import (
    RETRY_WORKFLOW,
    RetryRequest,
    find_started,
    pipeline_input,
    start_retry,
)
from runnable_ci.github.summary import Notice
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.model import RunLog
from runnable_ci.util.shell_command import command

PERMISSION: Final = "permissions:\n  contents: read\n  packages: write\n  actions: write"
_LOOK_EVERY_S: Final = 1.0
_GOES_ON: Final = "The run continues in another job"
_STOPS: Final = "No other job continues the run"
_CARRIED: Final = {
    **dict.fromkeys(("--jobs", "-j", "--env-file", "--log-level", "--rerun"), True),
    **dict.fromkeys(("--quiet", "-q", "--rerun-changed"), False),
}
"""Options of a job that the next one is given too; the parameters are recorded in the run. Option → has it a value?"""


class NextJob(NamedTuple):
    """The job that resumes a run, or why there is none."""

    url: str
    """The page of its workflow run; empty where there is none, or where its page is not known."""
    is_started: bool
    notice: Notice


def relay(job: Job, log: RunLog, run: str, digest: str) -> NextJob | None:
    """Start the job that resumes a run which its time budget ended; None for a run that ended in another way.

    `run` is how a retry finds it, and `digest` what is published; both are empty where it is not. Nothing is raised:
    the run has ended as it has, and is published.
    """
    if job.inputs.command not in ("run", "retry") or job.inputs.outcome == "cancelled":
        return None
    if not log.invocations or not is_ended_by_budget(log.invocations[-1]):
        return None
    if job.context.is_fork_pull_request:
        return _stopped("A pull request from a fork has no token that may start a job")
    if not digest:
        return _stopped("It is not published, so that no other job finds it")
    ref = _checked_out(job)
    by_hand = f"`{_dispatch_command(job, run, digest, ref)}` continues it"
    if why := JobChain.of(log).end(job.inputs.relay_max):
        return _stopped(f"{why}. {by_hand}")
    try:
        return _started(job, log, run, digest, ref)
    except PermissionMissingError as e:
        return _stopped(f"{e.message}. {by_hand}", PERMISSION)
    except RunnableError as e:
        return _stopped(". ".join(filter(None, (e.message, e.hint.partition("\n")[0], by_hand))), e.fix)


def _started(job: Job, log: RunLog, run: str, digest: str, ref: str) -> NextJob:
    from runnable_ci.github.api.connection import connect_job  # late: HTTP

    if not job.inputs.job_token:
        raise RefusedError("The action was given no token of the job")
    actions = connect_job(job.inputs.job_token, job.environ)
    default_branch = actions.default_branch()
    if ref and actions.commit_of(ref) is None:
        raise RefusedError(f"The commit {ref[:12]} that is checked out is not in {job.context.full_name}")
    request = RetryRequest(
        run=run,
        ref=ref,
        pipeline=_pipeline(job, log),
        options=carried(shlex.split(job.inputs.args)),
        writers=[digest],
    )
    started = start_retry(
        actions,
        RETRY_WORKFLOW,
        request.inputs(),
        ref=default_branch,
        default_branch=default_branch,
        needs_options=False,
        note=job.say,
    )
    try:
        url = (started or find_started(actions, RETRY_WORKFLOW, log.run_id, every_s=_LOOK_EVERY_S)).url
    except RunnableError as e:
        job.say(f"note: {e.message}")
        url = actions.workflow_page(RETRY_WORKFLOW)
    chain = JobChain.of(log)
    text = (
        f"Its time budget ended it before GitHub would have ended this job. {url} resumes it, "
        f"job {chain.jobs + 1} of at most {job.inputs.relay_max + 1}. This job is marked as failed since its run is "
        "not finished; the other job's result is the run's"
    )
    return NextJob(url, True, Notice(_GOES_ON, text))


def carried(words: Sequence[str]) -> list[str]:
    """Return those options of a job that the job which continues its run is given too."""
    found: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, _ = word.partition("=")
        if re.fullmatch(r"-j[0-9]+", word):
            found.append(word)
        elif name in _CARRIED:
            found.append(word)
            if _CARRIED[name] and not equals:
                found += [value] if (value := next(left, "")) else []
    return found


def _stopped(text: str, fix: str = "") -> NextJob:
    return NextJob("", False, Notice(_STOPS, text, fix))


def _checked_out(job: Job) -> str:
    """Return the commit that the pipeline is of here; else the branch of the job's code."""
    from runnable_ci.vcs.clone import Clone  # late: it loads GitPython

    try:
        return Clone.around(job.layout.folder.parent, job.environ).head() or job.context.fix_ref
    except RunnableError:
        return job.context.fix_ref


def _pipeline(job: Job, log: RunLog) -> str:
    """Return the pipeline file where the retry needs it: it alone has the run's registry, or the run says no more."""
    options = CloneCommands.of(job).dispatch_options
    return options[1] if len(options) == 2 else pipeline_input(PipelineIdentity.recorded(log.name, log.run_config))


def _dispatch_command(job: Job, run: str, digest: str, ref: str) -> str:
    where = ["--repo", job.context.full_name] if job.context.full_name else []
    at = ["--ref", ref] if ref else []
    return command("dispatch", f"{run}@{digest}", *at, *CloneCommands.of(job).dispatch_options, *where)
