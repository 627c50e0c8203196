"""Which executor steps have: the one that they name, or one for all of them. Pure."""

from __future__ import annotations

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.keys.executors import LOCAL
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import shown


def check_executors(pipeline: Pipeline, outlined: Pipeline) -> None:
    """Raise `PipelineError` for a step whose executor the pipeline does not have."""
    for step in outlined.steps.values():
        if step.executor and step.executor not in pipeline.executors:
            hint = did_you_mean(step.executor, _names(pipeline), _known(pipeline))
            raise pipeline.error(step, f"executor: there is no {shown(step.executor)}", hint, key="executor")


def on_executor(pipeline: Pipeline, name: str) -> Pipeline:
    """Return the pipeline with all its steps on one executor. Raises `UsageError` for one that it does not have."""
    if name not in _names(pipeline):
        hint = did_you_mean(name, _names(pipeline), _known(pipeline))
        raise UsageError(f"--executor: {pipeline.file} has no executor {shown(name)}", hint=hint)
    executor = "" if name == LOCAL else name
    return pipeline._replace(steps={key: _step_on(step, executor) for key, step in pipeline.steps.items()})


def _step_on(step: Step, executor: str) -> Step:
    if step.branching is None:
        return step._replace(executor=executor)
    body = {name: _step_on(inner, executor) for name, inner in step.branching.body.items()}
    own = executor if step.branching.reduce else ""
    return step._replace(executor=own, branching=step.branching._replace(body=body))


def _names(pipeline: Pipeline) -> list[str]:
    return [LOCAL, *pipeline.executors]


def _known(pipeline: Pipeline) -> str:
    if not pipeline.executors:
        return 'the file has none: add one, such as [executors.node] with command = "ssh node {}"'
    return f"the executors are: {', '.join(_names(pipeline))}"
