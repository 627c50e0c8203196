"""`runnable-ci retry`: go on with a run from where it failed, by the same loop as `run`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runnable_ci.cli.format import closing, print_plan
from runnable_ci.engine.log_grants import require_declared_results, undeclared_parameters
from runnable_ci.engine.planner import Plan, PlanInputs, Scope, plan, same_json, unread_parameters
from runnable_ci.engine.preflight import parameter_warnings, require
from runnable_ci.engine.run_project import open_run
from runnable_ci.engine.session import (
    Options,
    code_of,
    redacting_errors,
    redactor_of,
    require_secret_names,
    run_session,
)
from runnable_ci.engine.staleness import changed_code, changed_inputs
from runnable_ci.errors import RunLogError, UsageError, did_you_mean
from runnable_ci.pipeline.command_line import http_option, is_default
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.project import PARAMETER_PREFIX, Project, environment_parameters, parse_param_options
from runnable_ci.pipeline.validation import check_parameter_name
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import Started
from runnable_ci.runs.model import (
    SUCCESS,
    CatalogEntry,
    Invocation,
    RunLog,
)
from runnable_ci.runs.paths import ORIGIN, run_folder
from runnable_ci.runs.reader import catalog_of, given_here
from runnable_ci.runs.reader import load as load_log
from runnable_ci.runs.recorder import reopen
from runnable_ci.steps import missing_secret
from runnable_ci.steps.interpreter import check_interpreter
from runnable_ci.util.clock import now
from runnable_ci.util.text import amount, short, size
from runnable_ci.vcs.identity import Code, find_actor

_NAMED_MAX = 5


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a retry is asked for beyond going on."""

    from_steps: list[str]
    params: list[str]
    rerun_changed: bool
    from_registry: str | None = None
    """Where to pull the run from first."""
    publish: bool = False
    to: str | None = None
    other_pipeline: bool = False
    """Resume the run with the specified pipeline file though it is not its own."""
    restore_all: bool = False
    """Bring back all files of reused steps, not only those that the steps which run may read."""


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """What a retry would do."""

    parameters: Mapping[str, Any]
    """As they really are."""
    inputs: PlanInputs
    redactor: Redactor
    plan: Plan
    notes: list[str]


def retry(given: Path | None, run: str, options: Options, wishes: Wishes, *, dry_run: bool) -> int:
    """Resume a run with its own pipeline file, or with `given`; the exit code."""
    source = None
    if "/" in run or wishes.from_registry is not None:
        from runnable_ci.runs.remote.registry_config import Registries

        source = Registries(options.settings, options.environ).run(run, wishes.from_registry)
    opened = open_run(run, file=given, other_pipeline=wishes.other_pipeline, environ=options.environ, source=source)
    project, run_id = opened.project, opened.run_id
    if given is None and not is_default(project.file):
        options.printer.say(f"note: run {run_id} is of the pipeline {project.identity()}")
    interpreter = check_interpreter(project.pipeline, project.workspace, options.environ)
    afterwards = None
    if wishes.publish:
        from runnable_ci.cli.registry import PublishOnExit

        afterwards = PublishOnExit.of(project, wishes.to or opened.registry, options)
    wishes = replace(wishes, from_registry=opened.registry)
    with redacting_errors(redactor_of(project.pipeline, project.pipeline.parameters, options)):
        number = _go_on(project, run_id, interpreter, options, wishes, dry_run=dry_run)
    return afterwards.publish(project.layout, run_id, number) if afterwards and not dry_run else number


def _go_on(project: Project, run_id: str, interpreter: str, options: Options, wishes: Wishes, *, dry_run: bool) -> int:
    code = code_of(project, options.environ)
    if dry_run:
        log = load_log(project.layout, run_id)
        prospect = _plan_retry(project, log, catalog_of(project.layout, log, project.workspace), code, wishes, options)
        for note in prospect.notes:
            options.printer.say(f"note: {note}")
        print_plan(prospect.plan.decisions)
        return 0
    with reopen(project.layout, load_log(project.layout, run_id)) as recorder:
        log = recorder.log
        catalog = catalog_of(project.layout, log, project.workspace, is_tracked=code.tracks)
        prospect = _plan_retry(project, log, catalog, code, wishes, options)
        recorder.redactor = prospect.redactor
        for note in prospect.notes:
            options.printer.say(f"note: {note}")
        _restore(project, prospect.plan, log, catalog, options, wishes)
        running = prospect.plan.running
        if not running and log.status == SUCCESS:
            options.printer.say(f"run {run_id}: nothing to do, {amount(len(prospect.plan.decisions), 'step')} done")
            options.printer.begin(list(prospect.plan.decisions), 0)
            for name, decision in prospect.plan.decisions.items():
                options.printer.say(f"{decision.action}: {decision.reason}", step=name)
            return 0
        identity = project.identity()
        if not wishes.other_pipeline:
            identity = identity.resuming(PipelineIdentity.recorded(log.name, log.run_config))
        recorder.record(
            Started(
                run_id=run_id,
                name=identity.name,
                dag_hash=project.pipeline.dag_hash(),
                run_config={**log.run_config, **identity.config()},
                invocation=Invocation(
                    number=log.invocation + 1,
                    command="retry",
                    start_time=now(),
                    parameters=dict(prospect.parameters),
                    actor=find_actor(project.workspace, options.environ),
                ),
            )
        )
        options.printer.begin(list(project.pipeline.steps), len(running))
        reused = len(prospect.plan.decisions) - len(running)
        options.printer.say(f"run {run_id}: {amount(len(running), 'step')} to run, {reused} reused")
        code_number = run_session(
            project,
            recorder,
            catalog,
            code,
            parameters=prospect.parameters,
            inputs=prospect.inputs,
            interpreter=interpreter,
            options=options,
        )
        options.printer.say(*closing(recorder.log, project, *_again(project, run_id, options, wishes)))
    return code_number


def _again(project: Project, run_id: str, options: Options, wishes: Wishes) -> list[str]:
    """What a retry needs beside the run: its files may still be where it was pulled from.

    The password of the settings goes to no registry that only the store names.
    """
    if not (run_folder(project.layout, run_id) / ORIGIN).exists():
        return []
    is_opened = wishes.from_registry is not None and options.settings.registry_password is not None
    named = ["--from-registry", wishes.from_registry] if is_opened and wishes.from_registry else []
    return [*named, *http_option(options.settings.plain_http)]


def _restore(project: Project, plan: Plan, log: RunLog, catalog: Catalog, options: Options, wishes: Wishes) -> None:
    """Have the files of reused steps in the workspace: those that may be read, or all."""
    files = {**plan.put, **plan.wanted} if wishes.restore_all else plan.wanted
    if (run_folder(project.layout, log.run_id) / ORIGIN).exists():
        _fetch(project, plan, log, files.values(), options, wishes)
    for name in catalog.get(files.values())[1]:
        options.printer.say(catalog.describe_replaced(name))


def _fetch(
    project: Project, plan: Plan, log: RunLog, files: Iterable[CatalogEntry], options: Options, wishes: Wishes
) -> None:
    """Have these files, and what else the steps that will run read of a run that was pulled in part; not the rest."""
    from runnable_ci.cli.terminal import watching
    from runnable_ci.engine.restore import required_blobs
    from runnable_ci.runs.remote.pull import fetch, missing_blobs, read_origin
    from runnable_ci.runs.remote.registry_config import Registries

    origin = read_origin(project.layout, log.run_id)
    wanted = required_blobs(plan, project.pipeline, log, project.workspace, files).values()
    if origin is None or not missing_blobs(project.layout, wanted):
        return
    registries = Registries(options.settings, options.environ)
    registry = registries.recorded(origin.registry, named=wishes.from_registry)
    with watching("fetched") as watch:
        fetched = fetch(project.layout, registry, origin, wanted, watch)
    left = missing_blobs(project.layout, layers(log).values())
    options.printer.say(
        f"fetched {size(fetched.size_bytes)} from {registry.label}, "
        f"left {size(sum(descriptor.size for descriptor in left))} behind"
    )


def _require_parameter_names(log: RunLog) -> None:
    """Raise for a name that would replace a variable which programs rely on: the log may come from anywhere."""

    def refused(message: str, hint: str) -> RunLogError:
        return RunLogError(f"the run log of {log.run_id} cannot be gone on with: {message}", hint=hint)

    for invocation in log.invocations[-1:]:
        for name in invocation.parameters:
            check_parameter_name(name, refused)
    for step in log.steps.values():
        for attempt in step.attempts[-1:]:
            for name in (*attempt.output_parameters, *attempt.user_defined_metrics):
                check_parameter_name(name, refused)


def _regiven_secrets(log: RunLog, given: Mapping[str, Any], project: Project, options: Options) -> dict[str, Any]:
    """The run's parameters that its log cannot give, as they are given again.

    Those are secrets, of which it has masks, and what the pipeline file does not declare. The file gives a secret only
    where that too is one: else the run had another value. Raises `UsageError`.
    """
    pipeline, last = project.pipeline, log.invocations[-1:]
    redacted = last[0].redacted if last else []
    recorded = {name: value for name, value in last[0].parameters.items() if name not in redacted} if last else {}
    foreign = undeclared_parameters(recorded, pipeline, given_here(project.layout, log.run_id))
    redactor = redactor_of(pipeline, pipeline.parameters, options)
    secret = {name: value for name, value in pipeline.parameters.items() if redactor.value(value) != value}
    places = [given, environment_parameters(options.environ, pipeline.parameters), secret]
    found = {name: place[name] for place in reversed(places) for name in (*redacted, *foreign) if name in place}
    if lost := [name for name in redacted if name not in found]:
        raise UsageError(
            f"parameter {lost[0]} was a secret: its value is not in the run log",
            hint=f"give it again: --param {lost[0]}=…, or {PARAMETER_PREFIX}{lost[0]} in the environment",
        )
    if lost := [name for name in foreign if name not in found]:
        values = ", ".join(f"{short(name)} = {short(redactor.value(recorded[name]))}" for name in lost[:_NAMED_MAX])
        again = " ".join(f"--param {short(name)}=…" for name in lost[:_NAMED_MAX])
        more = f" and {len(lost) - _NAMED_MAX} more" if len(lost) > _NAMED_MAX else ""
        raise UsageError(
            f"run `{log.run_id}` came with a parameter that {pipeline.file} does not declare, and that was not given "
            f"here: {values}{more}",
            hint=f"give `{again}` again, or declare it under [parameters]",
        )
    return found


def _check_kept(project: Project, prospect: Plan) -> None:
    """Raise `UsageError` where a step is to run that takes what a reused step returned and was a secret."""
    for name, scope in prospect.scopes.items():
        lost = missing_secret(project.pipeline.steps[name], project.workspace, scope.values())
        if lost:
            giver = list(project.pipeline.steps)[scope.parameters[lost].position]
            raise UsageError(
                f"step `{name}` takes `{lost}`, which `{giver}` returned: it was a secret, and is not in the run log",
                hint=f"--from {giver} runs that step again",
            )


def _plan_retry(
    project: Project, log: RunLog, catalog: Catalog, code: Code, wishes: Wishes, options: Options
) -> RetryPlan:
    pipeline = project.pipeline
    for step in wishes.from_steps:
        if step not in pipeline.steps:
            raise UsageError(
                f"--from {step}: there is no such step in {pipeline.file}",
                hint=did_you_mean(step, pipeline.steps, f"the steps are: {', '.join(pipeline.steps)}"),
            )
    _require_parameter_names(log)
    original = log.invocations[-1].parameters if log.invocations else {}
    given = parse_param_options(wishes.params, {**pipeline.parameters, **original})
    anew = _regiven_secrets(log, given, project, options)
    redactor = redactor_of(pipeline, {**pipeline.parameters, **given}, options).knowing(texts(list(anew.values())))

    def shown(value: Any) -> str:
        return json.dumps(redactor.value(value), ensure_ascii=False)

    added = {name: value for name, value in pipeline.parameters.items() if name not in original and name not in given}
    notes = [f"parameter {name} = {shown(value)} is new in {pipeline.file}" for name, value in added.items()]
    notes += [
        f"parameter {name} is {shown(value)} in {pipeline.file} now; the run keeps its {shown(original[name])} "
        f"(--param {name}=… changes it)"
        for name, value in pipeline.parameters.items()
        if name in original and name not in given and name not in anew and not same_json(original[name], value)
    ]
    original = {**original, **anew}
    changed = [name for name, value in given.items() if name not in original or not same_json(original[name], value)]
    doubtful = parameter_warnings(pipeline, project.workspace, given, known={**pipeline.parameters, **original})
    notes += doubtful.values()
    notes += [
        f"no finished step is known to have read {name}; --from STEP runs one again regardless"
        for name in unread_parameters(changed, pipeline, log)
        if name not in doubtful
    ]
    inputs = PlanInputs(
        forced={name: f"--from {step}" for step in reversed(wishes.from_steps) for name in pipeline.below(step)},
        changed_inputs=changed_inputs(pipeline, log, catalog),
        changed_code=changed_code(pipeline, log, catalog, code),
        rerun_changed=wishes.rerun_changed,
        mask=redactor.value,
    )
    parameters = {**original, **added, **given}
    require_secret_names(pipeline, parameters, options)
    planned = plan(pipeline, log, initial=Scope.initial(parameters), inputs=inputs)
    require_declared_results(pipeline, log, planned.reused)
    _check_kept(project, planned)
    require(pipeline, project.workspace, parameters, planned.running)
    return RetryPlan(parameters, inputs, redactor, planned, notes)
