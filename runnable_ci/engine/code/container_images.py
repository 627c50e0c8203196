"""The containers of a pipeline's steps: their images are there before anything runs, or the run does not begin."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from runnable_ci.engine.options import Options
from runnable_ci.engine.preflight import outlined_names
from runnable_ci.errors import StepError
from runnable_ci.pipeline.branches.expansion import outlined_name
from runnable_ci.pipeline.container import OPEN
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.model import RunLog
from runnable_ci.steps.containers.image_names import resolved_images
from runnable_ci.steps.containers.step_containers import StepContainers
from runnable_ci.steps.earlier import chance_of
from runnable_ci.vcs.git_files import repository_root


def open_containers(project: Project, options: Options, log: RunLog, *, look_again: bool) -> StepContainers:
    """Return what runs steps in containers; nothing is looked for yet.

    An image that earlier attempts ran in by a registry's digest is that one, whatever its tag is now, unless it is to
    `look_again`.
    """
    workspace, layout = project.workspace, project.layout
    return StepContainers(
        workspace=workspace,
        shared=(_shared(workspace, options.environ), layout.folder),
        temporaries=layout.temporaries,
        environ=options.environ,
        secrets=frozenset(project.pipeline.secrets),
        python=project.pipeline.python,
        say=options.printer.say,
        chosen=options.settings.container_engine,
        resolved={} if look_again else resolved_images(log),
        is_looking_again=look_again,
    )


def _shared(workspace: Path, environ: Mapping[str, str]) -> Path:
    """Return the folder that containers get: the repository, but never all that a person has."""
    root = repository_root(workspace, environ)
    return workspace if root in (None, Path("/"), Path(environ.get("HOME", "/"))) else root or workspace


def require_images(containers: StepContainers | None, project: Project, running: Collection[str]) -> None:
    """Have the images of the steps that run, as far as no step before them may build one.

    Raises `PipelineError` where an image can neither be found nor pulled, or nothing runs containers.
    """
    pipeline = project.pipeline.outlined()
    for name in outlined_names(project.pipeline, running) if containers else ():
        step = pipeline.steps[name]
        if containers is None or step.container is None or OPEN in step.container.image:
            continue
        with _at(pipeline, name):
            _ = containers.engine
            if chance_of(pipeline, project.workspace, step, [step.container.image]) != "named":
                containers.image(step.container)


def images_now(containers: StepContainers, pipeline: Pipeline, finished: Collection[str]) -> Mapping[str, str]:
    """Return the digests of the images that finished steps would run in now. Raises as `require_images`."""
    found: dict[str, str] = {}
    pipeline = pipeline.outlined()
    for name in finished:
        container = pipeline.steps[outlined_name(name)].container
        if container and OPEN not in container.image:
            with _at(pipeline, outlined_name(name)):
                found[name] = containers.image(container).digest
    return found


@contextmanager
def _at(pipeline: Pipeline, step: str) -> Iterator[None]:
    try:
        yield
    except StepError as e:
        raise pipeline.error(pipeline.steps[step], e.message, e.hint, key="container") from e
