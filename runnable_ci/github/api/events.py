"""What is new about the jobs of a run since they were looked at last: values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from runnable_ci.github.api.actions import Job, JobStep

FINE = frozenset({"success", "neutral"})
"""The conclusions that are no failure; `skipped` is one for a job, not for a run that was to do something."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One thing that happened to a job: it waits, it began, a step of it is over, it is over."""

    job: Job
    kind: Literal["waits", "began", "step", "over"]
    step: JobStep | None = None


def news(before: Mapping[int, Job], jobs: Iterable[Job]) -> Iterator[JobEvent]:
    """What happened, job by job, in order. Steps that were skipped are no news."""
    for job in jobs:
        old = before.get(job.id)
        is_new = old is None or old.status != job.status
        if is_new and job.status not in ("in_progress", "completed"):
            yield JobEvent(job, "waits")
        has_begun = old is not None and old.status in ("in_progress", "completed")
        if job.status in ("in_progress", "completed") and not has_begun:
            yield JobEvent(job, "began")
        known = {step.number for step in _over(old)}
        yield from (JobEvent(job, "step", step) for step in _over(job) if step.number not in known)
        if is_new and job.status == "completed":
            yield JobEvent(job, "over")


def _over(job: Job | None) -> list[JobStep]:
    steps = (job.steps or ()) if job else ()
    return [step for step in steps if step.status == "completed" and step.conclusion != "skipped"]
