"""What a run log may give to a retry: it may come from anywhere, and gives no more than the pipeline file asks for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.provenance.changes import same_json
from runnable_ci.errors import RunLogError, UsageError
from runnable_ci.pipeline.model import Pipeline, parameters_looked_up
from runnable_ci.pipeline.patterns import as_glob, may_name
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.schema import recorded_kind
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import check_parameter_name
from runnable_ci.runs.model import RunLog, StepLog
from runnable_ci.runs.paths import WRITERS, run_folder
from runnable_ci.steps import missing_secret
from runnable_ci.store.local import Layout
from runnable_ci.util.text import listed

if TYPE_CHECKING:
    from runnable_ci.runs.remote.writers import AcceptedWriters


def undeclared_parameters(
    parameters: Mapping[str, Any], pipeline: Pipeline, given_here: Collection[Mapping[str, Any]]
) -> list[str]:
    """Return the names of parameters that a log must not give.

    They are not declared in the pipeline file, by `[parameters]`, a step's `parameters` or `returns`, nor were they
    `given_here`, with that value, in an invocation that this store recorded.
    """
    steps = pipeline.outlined().steps.values()
    declared = {
        *pipeline.parameters,
        *pipeline.inputs,
        *(name for step in steps for name in (*step.returns, *(step.parameters or ()))),
        *(name for step in steps for name in parameters_looked_up(step)),
    }
    return [
        name
        for name, value in parameters.items()
        if name not in declared and not any(name in own and same_json(own[name], value) for own in given_here)
    ]


def require_result_names(log: RunLog) -> None:
    """Raise `RunLogError` where a step returned by a name that would replace a variable which programs rely on."""
    for step in log.steps.values():
        for attempt in step.attempts[-1:]:
            for name in (*attempt.output_parameters, *attempt.user_defined_metrics):
                check_parameter_name(
                    name, lambda message, hint: RunLogError(f"{refused_log(log)}: {message}", hint=hint)
                )


def others_results(layout: Layout, log: RunLog, plan: Plan, accepted: AcceptedWriters | None) -> list[str]:
    """Return for each writer whose part was pulled which results of theirs a plan uses, in a line each.

    Raises `UsageError`, before any of it is used, where the run has something of a writer who is not accepted: the
    store may have got it before, or by another command, which accepted more.
    """
    if not (run_folder(layout, log.run_id) / WRITERS).exists():
        return []
    from runnable_ci.runs.branches.labels import labels_of
    from runnable_ci.runs.remote.contributions import (  # most runs were never in a registry
        read_contributions,
        require_accepted,
    )

    if accepted is not None:
        require_accepted(layout, log, accepted)
    if not plan.running:
        return []
    reused = [name for name, decision in plan.decisions.items() if decision.action == "reuse" or decision.is_tentative]
    labels = labels_of(log.steps)
    used = read_contributions(layout, log.run_id).used(log, [name for name in reused if name in log.steps])
    return [
        f"written by {writer}, used of it: {listed([labels.get(name, name) for name in results]) or 'nothing'}"
        for writer, results in used.items()
    ]


def refused_log(log: RunLog) -> str:
    """Return what an error says of a run log that gives what it must not."""
    return f"the run log of {log.run_id} cannot be resumed"


def require_declared_results(
    pipeline: Pipeline, log: RunLog, reused: Iterable[str], again: Callable[[str], str]
) -> None:
    """Raise `RunLogError` where a reused step would give what the pipeline file does not let it give.

    That is a value or a kind of value that `returns` does not declare, or a file that no pattern of `put` matches.
    `again` returns how a step is run that would be reused.
    """
    for name in reused:
        step, recorded = pipeline.steps[name], log.steps[name]
        for what in (_foreign_value(step, recorded), _foreign_file(step, recorded)):
            if what:
                raise RunLogError(
                    f"the run log of {log.run_id} does not match {pipeline.file}: step `{step.shown}` {what}; "
                    "nothing was used",
                    hint=f"the log was modified; {again(step.shown)}",
                )


def _foreign_value(step: Step, recorded: StepLog) -> str:
    last = recorded.attempts[-1]
    given = [*last.output_parameters.items(), *last.user_defined_metrics.items()]
    for name, parameter in given:
        kind = step.returns.get(name)
        is_text = kind != "text" or isinstance(parameter.value, str)
        if kind is None or recorded_kind(kind) != parameter.kind or not is_text:
            return f"returned `{name}` as {parameter.kind}, which its `returns` does not declare"
    return ""


def _foreign_file(step: Step, recorded: StepLog) -> str:
    names = [entry.name for entry in recorded.put_entries()]
    foreign = next((name for name in names if not any(may_name(as_glob(pattern), name) for pattern in step.put)), None)
    return "" if foreign is None else f"put the file `{foreign}`, which its `put` does not name"


def require_kept(project: Project, planned: Plan, again: Callable[[str], str]) -> None:
    """Raise `UsageError` where a step is to run that takes what a reused step returned and was a secret.

    `again` returns how a step is run that would be reused.
    """
    steps = planned.pipeline.steps
    for name, scope in planned.scopes.items():
        lost = missing_secret(steps[name], project.workspace, scope.values())
        if lost:
            giver = scope.parameters[lost].giver
            giver = steps[giver].shown if giver in steps else giver
            raise UsageError(
                f"step `{steps[name].shown}` takes `{lost}`, which `{giver}` returned: it is a secret, and not in the "
                "run log",
                hint=again(giver),
            )
