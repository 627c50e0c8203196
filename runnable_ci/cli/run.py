"""`runnable-ci run`: a new run of a pipeline."""

from __future__ import annotations

from pathlib import Path

from runnable_ci.engine.new_run import RunOptions, prepare_run
from runnable_ci.engine.options import Options
from runnable_ci.engine.planner import plan_lines
from runnable_ci.engine.preflight import load_project
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.inputs import input_lines
from runnable_ci.util.console import console


def print_inputs(file: Path | None) -> int:
    """Print the inputs and parameters of a pipeline; the exit code."""
    pipeline = load_project(file).pipeline
    console.out(*input_lines(pipeline.parameters, pipeline.inputs, secrets=pipeline.secrets))
    return 0


def run(
    file: Path | None,
    options: Options,
    run_options: RunOptions,
    *,
    dry_run: bool = False,
    publish: bool = False,
    to: str | None = None,
) -> int:
    """Run the pipeline of `file`, and publish the run if requested or if `to` is set; return the exit code."""
    project = load_project(file).opened(options.environ)
    new_run = prepare_run(RunSession.of(project, options), run_options)
    if dry_run:
        console.out(*plan_lines(new_run.plan().decisions))
        return 0
    if not publish and to is None:
        return new_run.execute()[1]
    from runnable_ci.cli.registry import PublishOnExit

    publication = PublishOnExit.of(project, to, options)
    if run_options.run_id is not None:
        publication.require_free(run_options.run_id)
    run_id, exit_code = new_run.execute()
    return publication.publish(project.layout, run_id, exit_code)
