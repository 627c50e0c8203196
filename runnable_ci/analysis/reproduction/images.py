"""The images of a run that is made again: the recorded ones by digest, or what their names are now."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress
from typing import NamedTuple

from runnable_ci.engine.code.container_images import images_now, open_containers, require_images
from runnable_ci.engine.options import Options
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.branches.labels import labels_of
from runnable_ci.runs.model import RunLog
from runnable_ci.steps.containers.image_names import CONTAINER
from runnable_ci.steps.containers.step_containers import StepContainers


class FoundImages(NamedTuple):
    """What is known of the images before anything runs in them."""

    missing: dict[str, str]
    """Step of the pipeline → why its image is not there."""
    others: list[str]
    """The steps whose image is another one, a line each."""


def find_images(
    project: Project, options: Options, log: RunLog, left_out: Container[str], *, is_recorded: bool
) -> FoundImages:
    """Find or pull the images in which steps would run: those that the run recorded, or what their names are now."""
    pipeline = project.pipeline
    if not any(step.container for step in pipeline.outlined().steps.values()):
        return FoundImages({}, [])
    containers = open_containers(project, options, log if is_recorded else RunLog(run_id=""), look_again=False)
    missing: dict[str, str] = {}
    for name in pipeline.steps:
        if name not in left_out:
            try:
                require_images(containers, project, [name])
            except PipelineError as e:
                missing[name] = e.message
    unknown = {name for name in pipeline.steps if name in missing or name in left_out}
    return FoundImages(missing, [*_others(log, containers, pipeline, unknown)])


def _others(log: RunLog, containers: StepContainers, pipeline: Pipeline, unknown: Container[str]) -> Iterator[str]:
    labels = labels_of(log.steps)
    for name, step in log.steps.items():
        group = name.partition(".")[0]
        if group in unknown or group not in pipeline.steps:
            continue
        for image in (code for last in step.attempts[-1:] for code in last.code_identities):
            if not image.code_identifier_message.startswith(CONTAINER):
                continue
            with suppress(PipelineError, KeyError):  # a step that is no more in what it uses
                now = images_now(containers, pipeline, [name])
                if now and now[name] != image.code_identifier:
                    yield f"`{labels[name]}`: image {image.code_identifier_url} {image.code_identifier} → {now[name]}"
