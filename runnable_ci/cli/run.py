"""`runnable-ci run`: a new run of a pipeline."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from runnable_ci.cli.format import closing, print_plan
from runnable_ci.engine.planner import PlanInputs, Scope, plan
from runnable_ci.engine.preflight import load_project, parameter_warnings, require
from runnable_ci.engine.run_project import own_file
from runnable_ci.engine.session import (
    Options,
    code_of,
    redacting_errors,
    redactor_of,
    require_secret_names,
    run_session,
)
from runnable_ci.errors import RunExistsError, RunnableError
from runnable_ci.pipeline import command_line
from runnable_ci.pipeline.project import Project, override_parameters, resolve_parameters
from runnable_ci.runs.events import Started
from runnable_ci.runs.model import Invocation, RunLog
from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.reader import catalog_of, check_run_id
from runnable_ci.runs.reader import load as load_log
from runnable_ci.runs.recorder import create, require_unused
from runnable_ci.runs.run_identity import run_id as new_run_id
from runnable_ci.steps.interpreter import check_interpreter
from runnable_ci.util.clock import now
from runnable_ci.util.text import amount
from runnable_ci.vcs.identity import find_actor


def run(
    given: Path | None,
    options: Options,
    *,
    run_id: str | None,
    tag: str,
    params_file: Path | None,
    params: list[str],
    dry_run: bool,
    publish: bool = False,
    to: str | None = None,
) -> int:
    """Run the pipeline in or at `given`, and `publish` it, however it ends; the exit code."""
    project = load_project(given).opened(options.environ)
    interpreter = check_interpreter(project.pipeline, project.workspace, options.environ)
    pipeline = project.pipeline
    asked = override_parameters(pipeline, params_file=params_file, environ=options.environ, given=params)
    parameters = resolve_parameters(pipeline, asked)
    require_secret_names(pipeline, parameters, options)
    require(pipeline, project.workspace, parameters, pipeline.steps)
    for doubt in parameter_warnings(pipeline, project.workspace, asked, known=pipeline.parameters).values():
        options.printer.say(f"note: {doubt}")
    redactor = redactor_of(pipeline, parameters, options)
    if run_id is not None:
        check_run_id(run_id)
        with _hint_at_retry(project, run_id):
            require_unused(project.layout, run_id)
    if dry_run:
        print_plan(plan(pipeline, RunLog(run_id=""), initial=Scope.initial(parameters), inputs=PlanInputs()).decisions)
        return 0
    afterwards = None
    if publish:
        from runnable_ci.cli.registry import PublishOnExit

        afterwards = PublishOnExit.of(project, to, options)
        if run_id is not None:
            afterwards.require_free(run_id)
    while run_id is None:
        candidate = new_run_id(datetime.now(UTC), random.SystemRandom().choice)
        run_id = None if run_folder(project.layout, candidate).exists() else candidate
    started = Started(
        run_id=run_id,
        name=pipeline.name,
        tag=tag,
        dag_hash=pipeline.dag_hash(),
        run_config={"executor": "local", **project.identity().config()},
        invocation=Invocation(
            number=1,
            command="run",
            start_time=now(),
            parameters=parameters,
            identity=secrets.token_hex(16),
            actor=find_actor(project.workspace, options.environ),
        ),
    )
    with (
        redacting_errors(redactor),
        _hint_at_retry(project, run_id),
        create(project.layout, started, redactor) as recorder,
    ):
        options.printer.begin(list(pipeline.steps), len(pipeline.steps))
        options.printer.say(f"run {run_id}: {pipeline.name}, {amount(len(pipeline.steps), 'step')}")
        code = code_of(project, options.environ)
        exit_code = run_session(
            project,
            recorder,
            catalog_of(project.layout, recorder.log, project.workspace, is_tracked=code.tracks),
            code,
            parameters=parameters,
            inputs=PlanInputs(mask=redactor.value),
            interpreter=interpreter,
            options=options,
        )
        options.printer.say(*closing(recorder.log, project))
    return afterwards.publish(project.layout, run_id, exit_code) if afterwards else exit_code


@contextmanager
def _hint_at_retry(project: Project, run_id: str) -> Iterator[None]:
    """Within the block, the run that has the id already is offered to be resumed, with its own pipeline file."""
    try:
        yield
    except RunExistsError as e:
        file = None
        with suppress(RunnableError):  # its log cannot be read, or is only just being written
            file = own_file(load_log(project.layout, run_id), project.workspace)
        e.hint = f"`{command_line.retry(run_id, file or project.file, project.layout)}` resumes it"
        raise
