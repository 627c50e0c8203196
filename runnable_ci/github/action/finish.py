"""The action's second step: publishes the run, and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runnable_ci.engine.code.untracked import notes
from runnable_ci.errors import RegistryAuthError, RunnableError, StoreError
from runnable_ci.github import summary
from runnable_ci.github.action import handoff
from runnable_ci.github.action.attempts import leave_note
from runnable_ci.github.action.clone_commands import CloneCommands
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.outputs import metrics_output, names_output
from runnable_ci.github.action.relay.next_job import NextJob, relay
from runnable_ci.github.action.shared.place import is_shared
from runnable_ci.github.action.upload_outcome import not_kept, of_failure, sentences
from runnable_ci.github.job import Context
from runnable_ci.github.summary import NextSteps, Notice
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.runs.listing.summary import Summary
from runnable_ci.runs.model import FAIL, SUCCESS, RunLog
from runnable_ci.runs.reader import last_output, load, resolve_id
from runnable_ci.runs.remote.listing import keep_as_newest, newest_of_branch
from runnable_ci.runs.remote.publish import IdTakenError, Published, publish
from runnable_ci.runs.remote.pull import keep_as
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.runs.remote.writers import ref_label
from runnable_ci.runs.reuse.candidates import publish_entries
from runnable_ci.runs.run_identity import run_identity
from runnable_ci.store.registry import Registry
from runnable_ci.util.clock import now
from runnable_ci.util.shell_command import command
from runnable_ci.vcs.actor import is_pull_request

TAIL_BYTES = 16 * 1024
TAIL_LINES = 20
SOME = 5
OWN_ID_MAX = 50
CANCELLED_LIMIT_S = 120.0
"""A cancelled job is ended after five minutes, and where the run is not published its upload as an artifact follows."""
_PERMISSIONS = "permissions:\n  contents: read\n  packages: write"


class _ForkError(RunnableError):
    """A job with a fork's code has a token that only reads."""


@dataclass(slots=True)
class Report:
    """What `finish` found: the outputs, and the notices."""

    run_id: str = ""
    log: RunLog | None = None
    published: Published | None = None
    artifact: dict[str, str] = field(default_factory=dict)
    """The outputs that have something kept with the workflow run."""
    base: Summary | None = None
    """The newest run of the base branch, to compare with."""
    retry_command: str = ""
    """Resumes the published run in a clone."""
    message: str = ""
    """The file of what a later step of the action writes on the pull request."""
    next_job: NextJob | None = None
    """What resumes the run, where the time budget ended it."""
    notices: list[Notice] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """Where the run is published; empty where it is not."""
        return self.published.reference if self.published else ""


def finish(environ: Mapping[str, str], run_id: str) -> int:
    """Publish the run that `begin` named, set the outputs, write the summary; the exit code.

    The exit code tells of publishing only where that was the command: else a run's result is the run's alone.
    """
    job = Job.of(environ)
    report = Report()
    code = 0
    refusal = handoff.read_and_delete(environ)
    if is_shared(job) and not job.inputs.collect:
        from runnable_ci.github.action.shared.finish import finish_part  # few jobs share a run

        return finish_part(job, run_id, refusal, _limit_s(job))
    try:
        report.run_id = resolve_id(job.layout, run_id)
        report.log = load(job.layout, report.run_id)
    except RunnableError as e:
        if run_id and refusal is None:
            report.notices.append(Notice("There is no run log", str(e)))
    if report.log is not None and report.log.status == SUCCESS and job.inputs.outcome == "failure":
        report.log = None  # what it tells is of an earlier command
    if refusal is not None:
        text = _sentences(refusal.message, refusal.hint)
        fix = refusal.fix or (_PERMISSIONS if refusal.by_registry else "")
        report.notices.append(Notice("An error ended the command", text, fix))
    if report.log is not None and _is_to_be_published(job, report.log):
        try:
            _publish(job, report, report.log)
        except RunnableError as e:
            report.notices.append(_why_not(e))
            code = 1 if job.inputs.command == "publish" else 0
        report.artifact = _leave_note(job, report, report.log)
    if report.log is not None:
        report.next_job = _relay(job, report, report.log)
        report.retry_command = CloneCommands.of(job).retry(report.reference) if report.reference else ""
        _on_pull_request(job, report, report.log)
    outputs = _outputs(job, report)
    # Before they are Markdown, whose escapes would hide a secret.
    report.notices = [Notice(job.clean(it.title), job.clean(it.text), it.fix) for it in report.notices]
    job.set_outputs(outputs)
    for notice in report.notices:
        job.warn(notice.title, "\n".join(filter(None, (notice.text, notice.fix))))
    if job.inputs.summary:
        job.summarise(_summary(job, report))
    return code


def _is_to_be_published(job: Job, log: RunLog) -> bool:
    match job.inputs.command:
        case "publish":
            return True
        case "pull":
            return False
        case _:
            when = job.inputs.publish
            return when in ("always", "at-end") or (when == "on-failure" and log.status != SUCCESS)


def _publish(job: Job, report: Report, log: RunLog) -> None:
    """Publish and compare; the base's run is read before this one may replace it."""
    if job.context.is_fork_pull_request:
        raise _ForkError("the pull request comes from a fork: its token may only read")
    registry = job.registry_of(report.run_id)
    for note in notes(log):
        job.say(note)
    limit_s = _limit_s(job)
    try:
        report.published = _send(job, report.run_id, registry, limit_s)
    except IdTakenError as e:
        log = _under_own_id(job, report, log, e)
        report.published = _send(job, report.run_id, registry, limit_s)
    digest = report.published.manifest.digest
    indexed = publish_entries(job.layout, report.run_id, registry, digest, environ=job.environ) if not limit_s else []
    for note in (*report.published.notes, *indexed):
        job.say(note)
    try:
        report.base = newest_of_branch(job.branches_registry(), log.name, job.context.base_branch)
        if log.status == SUCCESS and is_of_branch(job.context, log):
            keep_as_newest(registry, report.published.manifest, log.name, job.context.branch)
    except StoreError as e:  # the run itself is published nevertheless
        report.notices.append(Notice("Published, but not compared with the base branch", e.message))


def _limit_s(job: Job) -> float | None:
    return CANCELLED_LIMIT_S if job.inputs.outcome == "cancelled" else None


def _send(job: Job, run_id: str, registry: Registry, limit_s: float | None) -> Published:
    elsewhere = Registries(job.settings, job.environ).recorded
    return publish(job.layout, run_id, registry, environ=job.environ, limit_s=limit_s, open_registry=elsewhere)


def _relay(job: Job, report: Report, log: RunLog) -> NextJob | None:
    run, _, digest = _dispatched(job, report.run_id, report.reference).rpartition("@")
    found = None if job.inputs.collect else relay(job, log, run, digest)
    if found is not None:
        report.notices.insert(0, found.notice)
    return found


def _on_pull_request(job: Job, report: Report, log: RunLog) -> None:
    if not is_pull_request(job.context.event_name):
        return
    from runnable_ci.github.action.on_pull_request.say import prepare  # few jobs run for one

    match prepare(job, log, report.base, report.retry_command):
        case Notice() as notice:
            report.notices.append(notice)
        case Path() as file:
            report.message = str(file)
        case None:
            pass


def _page(job: Job, log: RunLog) -> str:
    from runnable_ci.github.action.kept_page.write import write_page  # late: it makes HTML

    return write_page(job, log)


def _leave_note(job: Job, report: Report, log: RunLog) -> dict[str, str]:
    """Have the run, or a note of it, uploaded; return the outputs for that."""
    reference = report.reference
    if not job.context.takes_artifacts:
        if not reference:
            report.notices.append(not_kept(job, f"{job.context.server_url} takes no artifact of the action"))
        return {}
    if reference and (job.inputs.command == "publish" or job.inputs.collect):
        return {}
    if job.inputs.collect:
        from runnable_ci.github.action.shared.finish import carried  # few jobs share a run

        return carried(job, report.run_id)
    try:
        left = leave_note(job, log, report.published)
        return {**left, **sentences(job, report.run_id, left["artifact"], reference)}
    except (RunnableError, OSError) as e:
        report.notices.append(of_failure(job, reference, f"The artifact cannot be made: {e}"))
        return {}


def _under_own_id(job: Job, report: Report, log: RunLog, taken: IdTakenError) -> RunLog:
    """Give the run an id that no other one has, as nobody is there to choose one; return its log under that id."""
    own = f"{log.run_id[:OWN_ID_MAX]}-{run_identity(log)[:8]}"
    keep_as(job.layout, log.run_id, own)
    report.run_id, report.log = own, load(job.layout, own)
    report.notices.append(Notice("Published under another run id", f"{taken.message}. Here it is `{own}`"))
    return report.log


def is_of_branch(context: Context, log: RunLog) -> bool:
    """Return whether a run may be the branch's base for comparisons: all its results are of its code, known and clean.

    A job that runs for a branch may have checked out something else: the fix of a retry, a pull request's head.
    """
    code = log.code()
    last = [step.attempts[-1] for step in log.steps.values() if step.attempts]
    made_for = {
        ref_label(log.environments[attempt.environment].variables) if attempt.environment in log.environments else ""
        for attempt in last
    }
    is_clean = all(
        any(it.code_identifier_type == "git" and it.code_identifier_dependable for it in attempt.code_identities)
        for attempt in last
    )
    is_newest = code is not None and bool(context.sha) and code.code_identifier == context.sha
    return bool(context.branch) and made_for == {context.branch} and is_clean and is_newest


def _why_not(error: RunnableError) -> Notice:
    """Return why the run is not published, and what to write into the workflow so that it will be."""
    if isinstance(error, _ForkError):
        return Notice("Not published: the pull request comes from a fork", error.message)
    if isinstance(error, RegistryAuthError):
        text = _sentences(error.message, error.hint if error.fix else "")
        return Notice("Not published: the registry refused", text, fix=error.fix or _PERMISSIONS)
    return Notice("Not published", _sentences(error.message, error.hint), fix=error.fix)


def _sentences(*texts: str) -> str:
    return ". ".join(filter(None, texts))


def _outputs(job: Job, report: Report) -> dict[str, str]:
    log, reference = report.log, report.reference
    if log is None:
        return {} if job.inputs.outcome == "success" else {"status": FAIL}
    unpublished = not reference and _is_to_be_published(job, log)
    failed, metrics = names_output(log.failed_steps()), metrics_output(log.metrics())
    for output, fitted in (("failed-step", failed), ("metrics", metrics)):
        if fitted.left_out:
            report.notices.append(_does_not_fit(output, fitted.left_out, report.run_id))
    return {
        "run-id": report.run_id,
        "status": log.status,
        "failed-step": failed.text,
        "metrics": metrics.text,
        "reference": reference,
        "digest": reference.rpartition("@")[2],
        "retry-command": report.retry_command,
        "continued-by": report.next_job.url if report.next_job else "",
        "page": _page(job, log),
        "message": report.message,
        "unpublished-store": str(job.layout.folder) if unpublished else "",
        **report.artifact,
    }


def _does_not_fit(output: str, left_out: Sequence[str], run_id: str) -> Notice:
    names = ", ".join(f"`{name}`" for name in left_out[:SOME])
    more = f" and {len(left_out) - SOME:,} more" if len(left_out) > SOME else ""
    text = f"It lacks {names}{more}. All are in the run log: `{command('show', run_id, '--json')}`"
    return Notice(f"The output `{output}` is not complete: GitHub limits what outputs hold", text)


def _summary(job: Job, report: Report) -> str:
    reference = report.reference
    base = report.base if report.base and report.base.run_id != report.run_id else None
    clone_commands = CloneCommands.of(job)
    return summary.render(
        report.log
        or RunLog(
            run_id=report.run_id or "?",
            status=FAIL,
            outcome="failed",
            message="the command did not start",
            end_time=now(),
        ),
        needs=_needs(job) if report.log else {},
        base=base.metrics if base else None,
        base_label=f"{base.run_id} ({job.context.base_branch})" if base else "",
        next_steps=NextSteps(
            reference=reference.partition("@")[0],
            digest=reference.partition("@")[2],
            workflow=_retry_workflow(job),
            ref=job.context.fix_ref,
            github_run_id=job.context.run_id,
            repository=job.context.full_name,
            run=_dispatched(job, report.run_id, reference),
            retry_command=report.retry_command,
            dispatch_options=clone_commands.dispatch_options,
            pull_options=clone_commands.http_option,
            is_continued=report.next_job is not None and report.next_job.is_started,
        ),
        notices=report.notices,
        tails=_tails(job, report.log) if report.log else {},
    )


def _dispatched(job: Job, run_id: str, reference: str) -> str:
    """Return a published run as `dispatch` takes it: by its digest, and by its registry where that is not the usual."""
    if not reference:
        return ""
    where, _, digest = reference.partition("@")
    is_usual = where == f"{job.branches_registry().label}:{run_id}"
    return f"{run_id}@{digest}" if is_usual else reference


def _needs(job: Job) -> dict[str, tuple[str, ...]] | None:
    """Return what each step needs: of steps that were never tried the run log does not tell.

    None for an unusable file.
    """
    try:
        pipeline = load_project(Path(job.inputs.pipeline)).pipeline
    except RunnableError:
        return None
    return {step.name: step.needs for step in pipeline.steps.values()}


def _retry_workflow(job: Job) -> str:
    """Return the retry workflow of the repository; empty where it has none."""
    folder, name = Path(job.context.workspace) / ".github" / "workflows", "retry.yml"
    if job.inputs.collect:
        from runnable_ci.github.action.shared.finish import resuming_workflow  # few jobs share a run

        name = resuming_workflow(job, folder) or name
    return name if (folder / name).is_file() else ""


def _tails(job: Job, log: RunLog) -> dict[str, str]:
    """Return the last lines that each failed step wrote."""
    written = {name: last_output(job.layout, log, name, limit_bytes=TAIL_BYTES) for name in log.failed_steps()}
    return {name: "\n".join(text.splitlines()[-TAIL_LINES:]) for name, text in written.items()}
