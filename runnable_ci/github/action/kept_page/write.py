"""The page of a run as a file that the action uploads as it is, so that a browser shows it."""

from __future__ import annotations

from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.report.collect import collect
from runnable_ci.analysis.report.html import html
from runnable_ci.analysis.report.page import page_of
from runnable_ci.errors import RunnableError
from runnable_ci.github.action.job import Job
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.model import RunLog
from runnable_ci.util.files import write_whole


def write_page(job: Job, log: RunLog) -> str:
    """Write the page of a run; return its path, empty where it is not wanted, not kept here, or cannot be made.

    The file's name is that of the artifact, which a workflow run has once: it has the attempt in it.
    """
    if (
        job.inputs.command not in ("run", "retry")
        or not job.inputs.report
        or not job.context.takes_artifacts
        or job.inputs.outcome == "cancelled"
    ):
        return ""
    name = f"report-{log.run_id}-{job.context.run_attempt}.html"
    try:
        found = collect(ComparedRun(job.layout, log), None, None, environ=job.environ, redactor=Redactor(job.secrets()))
        write_whole(job.folder / name, job.clean(html(page_of(log, found))).encode(), through=job.folder)
    except (RunnableError, OSError) as e:
        job.say(f"note: there is no page of the run: {e}")
        return ""
    return str(job.folder / name)
