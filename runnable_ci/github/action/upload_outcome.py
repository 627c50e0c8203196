"""What is said of a run that goes into an artifact: whether it is kept is known only when the upload has ended."""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.github import commands as workflow
from runnable_ci.github.action.clone_commands import CloneCommands
from runnable_ci.github.action.job import Job
from runnable_ci.github.commands import Annotation
from runnable_ci.github.markdown import escaped
from runnable_ci.github.summary import Notice, alert
from runnable_ci.util.console import line
from runnable_ci.util.shell_command import path

_HOSTED = "github-hosted"
_REGISTRY = "with:\n  registry: HOST/OWNER/REPO/runs"


def sentences(job: Job, run_id: str, artifact: str, reference: str) -> Mapping[str, str]:
    """Return the outputs that the action's last step prints, for either outcome: a line of the log, and of the summary.

    `reference` is that of a published run, of which the artifact has only a note; empty for one that is in it.
    """
    kept = "" if reference else job.clean(CloneCommands.of(job).kept(run_id, artifact))
    lost = of_failure(job, reference, f"The upload of the artifact `{artifact}` failed")
    lost = Notice(lost.title, job.clean(lost.text), lost.fix)
    is_summarised = job.inputs.summary
    return {
        "kept": line(kept),
        "kept-summary": escaped(kept) if is_summarised else "",
        "lost": workflow.annotate(Annotation("warning", "\n".join(filter(None, (lost.text, lost.fix))), lost.title)),
        "lost-summary": alert(lost) if is_summarised else "",
    }


def of_failure(job: Job, reference: str, why: str) -> Notice:
    """Return what it means for a run, published or not, that no artifact has it."""
    return not_resumable(job, reference, why) if reference else not_kept(job, why)


def not_kept(job: Job, why: str) -> Notice:
    """Return what becomes of a run that is neither published nor an artifact, and how that is avoided."""
    store = f"`{path(job.layout.folder)}`"
    is_discarded = job.environ.get("RUNNER_ENVIRONMENT") == _HOSTED
    fate = (
        f"It is only in {store} on this runner, which is discarded after the job"
        if is_discarded
        else f"It is only in {store} on this runner, until that is discarded or cleaned, as the next checkout does"
    )
    title = "The run is lost" if is_discarded else "The run is not kept"
    if job.settings.registry:  # why it did not take the run is said already
        return Notice(
            title, f"{why}. {fate}. To keep a run also without the registry, keep {store} in a step of your own"
        )
    text = f"{why}. {fate}. To keep runs, publish them to a registry, or keep {store} in a step of your own"
    return Notice(title, text, fix=_REGISTRY)


def not_resumable(job: Job, reference: str, why: str) -> Notice:
    """Return how a published run is resumed where the next attempt of the job will not know of it."""
    resume = CloneCommands.of(job).retry(reference)
    return Notice(
        "The next attempt of this job cannot resume the run", f"{why}. It is published: `{resume}` resumes it"
    )
