"""In what the environment of a session differs from that in which finished steps of a run ran."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from runnable_ci.engine.options import job_container
from runnable_ci.engine.provenance.environment_changes import EnvironmentChanges, EnvironmentNow, environment_changes
from runnable_ci.engine.provenance.step_environments import StepEnvironments, step_named
from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.engine.session import RunSession
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import SUCCESS, RunLog

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


def environment_here(
    session: RunSession, log: RunLog, catalog: Catalog, containers: StepContainers | None
) -> EnvironmentChanges:
    """Return in what the environment differs from that of finished steps."""
    steps = session.project.pipeline.steps
    finished = [
        name
        for name, step in log.steps.items()
        if name.partition(".")[0] in steps and step.attempts and step.attempts[-1].status == SUCCESS
    ]
    here = StepEnvironments(session.interpreter, session.project.workspace, session.options.environ)
    images: Mapping[str, str] = {}
    if containers and containers.is_looking_again:
        from runnable_ci.engine.code.container_images import images_now  # few pipelines need it

        images = images_now(containers, session.project.pipeline, finished)
    container = job_container(session.options)
    digest = container.code_identifier if container else ""
    now = EnvironmentNow(lambda name, then: here.to_compare(step_named(name, steps), then), digest, images)
    return environment_changes(finished, log, now, partial(reads_of, catalog))
