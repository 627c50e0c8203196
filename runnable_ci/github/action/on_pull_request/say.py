"""A run's comment on its pull request, updated in place, and its check, by the action's last step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.condition import Judgement, judge, parse_condition
from runnable_ci.analysis.comparison.runs import compare
from runnable_ci.analysis.comparison.which import ComparedRun, run_finder
from runnable_ci.errors import RunnableError
from runnable_ci.github.action.job import Job
from runnable_ci.github.api.errors import RefusedError
from runnable_ci.github.pull_request import CommentFacts, comment, conclusion, marker_of
from runnable_ci.github.summary import Notice
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import Summary
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.vcs.actor import is_pull_request
from runnable_ci.vcs.git import Git
from runnable_ci.vcs.git_files import repository_root

if TYPE_CHECKING:
    from runnable_ci.analysis.comparison.model import RunComparison

PERMISSION: Final = "permissions:\n  contents: read\n  packages: write\n  pull-requests: write\n  checks: write"


def say_on_pull_request(job: Job, log: RunLog, base: Summary | None, retry_command: str) -> list[Notice]:
    """Write the comment on the job's pull request, and with `fail-if` a check; return what is to be said of that.

    `base` is the newest run of the base branch. Nothing is raised: the run has ended as it has.
    """
    number = _number(job)
    wanted = job.inputs.comment != "never" or job.inputs.fail_if.strip()
    if number is None or not wanted or job.inputs.command not in ("run", "retry") or job.inputs.outcome == "cancelled":
        return []
    if job.context.is_fork_pull_request:
        job.say("note: the pull request comes from a fork: its token may write no comment and no check")
        return []
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
        _send(job, number, log, compared, facts, with_check=bool(conditions))
    except RefusedError as e:
        if job.inputs.comment == "auto" and not job.inputs.fail_if.strip():
            job.say(f"note: no comment on the pull request: {e.message}; {e.hint}")
            return []
        return [Notice("Nothing was written on the pull request", f"{e.message}. {e.hint}", PERMISSION)]
    except RunnableError as e:
        text = ". ".join(filter(None, (e.message, e.hint)))
        return [Notice("Nothing was written on the pull request", text)]
    return []


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
        found = compare(earlier.read(), ComparedRun(job.layout, log).read(), compare_code(earlier.log, log, git))
    return found, ""


def _send(
    job: Job, number: int, log: RunLog, compared: RunComparison | None, facts: CommentFacts, *, with_check: bool
) -> None:
    from runnable_ci.github.api.connection import connect_pull_request  # late: HTTP

    if not job.inputs.job_token:
        raise RefusedError("the action was given no token of the job", hint="leave its input `job-token` as it is")
    pull = connect_pull_request(job.inputs.job_token, number, job.environ)
    marker = marker_of(log.name, f"{job.context.workflow_ref.partition('@')[0]} {job.use.place}")
    text = job.clean(comment(marker, log, compared, facts))
    if job.inputs.comment != "never":
        job.say(f"comment on the pull request: {pull.put_comment(marker, text)}")
    if with_check:
        ended = conclusion(log, facts)
        failing = [one.condition for one in facts.judgements if one.fails]
        title = job.clean(f"fails: {failing[0]}" if failing else facts.not_compared or log.outcome)
        name = f"runnable-ci: {log.name or log.run_id}"
        sha = _head(job)
        page = pull.put_check(name, sha, ended, title=title, summary=text.partition("\n")[2], page=facts.page)
        job.say(f"check on {sha[:12]}, {ended}: {page}")


def _head(job: Job) -> str:
    """Return the commit that the pull request shows: its head, not the merge that was checked out."""
    pull = job.context.event.get("pull_request")
    head = pull.get("head") if isinstance(pull, dict) else None
    sha = head.get("sha") if isinstance(head, dict) else None
    return sha if isinstance(sha, str) else job.context.sha
