"""What a run's comment on its pull request and its check are to say: the run compared with the base branch's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.condition import Judgement, judge, parse_condition
from runnable_ci.analysis.comparison.runs import compare
from runnable_ci.analysis.comparison.which import ComparedRun, run_finder
from runnable_ci.errors import RunnableError
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.on_pull_request.message import Check, Message
from runnable_ci.github.api.pull_requests import COMMENT_MAX
from runnable_ci.github.pull_request import CommentFacts, comment, conclusion, marker_of
from runnable_ci.github.summary import Notice
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.vcs.actor import is_pull_request
from runnable_ci.vcs.git import Git
from runnable_ci.vcs.git_files import repository_root

if TYPE_CHECKING:
    from runnable_ci.analysis.comparison.model import RunComparison


def prepare(job: Job, log: RunLog, base: Summary | None, retry_command: str) -> Path | Notice | None:
    """Keep for a later step what is to be written on the job's pull request, and with `fail-if` a check.

    Return the file; None where nothing is to be written, or what is in the way. `base` is the newest run of the base
    branch. Nothing is raised: the run has ended as it has.
    """
    number = _number(job)
    wanted = job.inputs.comment != "never" or job.inputs.fail_if.strip()
    if number is None or not wanted or job.inputs.command not in ("run", "retry") or job.inputs.outcome == "cancelled":
        return None
    if job.context.is_fork_pull_request:
        job.say("note: the pull request comes from a fork: its token may write no comment and no check")
        return None
    try:
        conditions = [parse_condition(line.strip()) for line in job.inputs.fail_if.splitlines() if line.strip()]
        compared, why_not = _compared(job, log, base)
        judgements: Sequence[Judgement] = [judge(one, compared) for one in conditions] if compared else []
        facts = CommentFacts(
            base_branch=job.context.base_branch,
            base_run=base.run_id if base and compared else "",
            page=job.context.run_url,
            retry_command=retry_command,
            judgements=judgements,
            not_compared=why_not,
        )
        return _message(job, number, log, compared, facts, with_check=bool(conditions)).keep(job.folder)
    except RunnableError as e:
        return Notice("Nothing is written on the pull request", ". ".join(filter(None, (e.message, e.hint))))
    except OSError as e:
        return Notice("Nothing is written on the pull request", str(e))


def _number(job: Job) -> int | None:
    """Return the number of the pull request that the job runs for; None for none."""
    if not is_pull_request(job.context.event_name):
        return None
    pull = job.context.event.get("pull_request")
    found = pull.get("number") if isinstance(pull, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else None


def _compared(job: Job, log: RunLog, base: Summary | None) -> tuple[RunComparison | None, str]:
    """Return the comparison with the base branch's run; else why there is none."""
    if base is None or base.run_id == log.run_id:
        return None, f"There is no other run of `{job.context.base_branch}` to compare with."
    registry = job.branches_registry()
    registries = Registries(job.settings, job.environ)
    with run_finder(job.layout, registries, job.branches_registry) as finder:
        earlier = finder.from_registry(registry, base.run_id)
        root = repository_root(Path(job.context.workspace or "."), job.environ)
        git = Git(str(root), job.environ) if root else None
        code = compare_code(earlier.log, log, git)
        names = (f"run {earlier.log.run_id}", f"run {log.run_id}")
        found = compare(earlier.read(), ComparedRun(job.layout, log).read(), code, names)
    return found, ""


def _message(
    job: Job, number: int, log: RunLog, compared: RunComparison | None, facts: CommentFacts, *, with_check: bool
) -> Message:
    marker = marker_of(log.name, f"{job.context.workflow_ref.partition('@')[0]} {job.use.place}")
    check = None
    if with_check:
        failing = [one.condition for one in facts.judgements if one.fails]
        title = job.clean(f"fails: {failing[0]}" if failing else facts.not_compared or log.outcome)
        name = job.clean(f"runnable-ci: {log.name or log.run_id}")
        check = Check(name=name, sha=_head(job), conclusion=conclusion(log, facts), title=title)
    text = job.clean(comment(marker, log, compared, facts))
    return Message(
        number=number,
        marker=marker,
        text=text[:COMMENT_MAX],
        is_comment=job.inputs.comment != "never",
        check=check,
        page=facts.page,
    )


def _head(job: Job) -> str:
    """Return the commit that the pull request shows: its head, not the merge that was checked out."""
    pull = job.context.event.get("pull_request")
    head = pull.get("head") if isinstance(pull, dict) else None
    sha = head.get("sha") if isinstance(head, dict) else None
    return sha if isinstance(sha, str) else job.context.sha
