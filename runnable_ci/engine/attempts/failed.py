"""What an attempt that failed says, and what it had returned before."""

from __future__ import annotations

from collections.abc import Collection

from runnable_ci import steps
from runnable_ci.engine.step_output import Masks
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.redactor import texts
from runnable_ci.runs.model import StepAttempt
from runnable_ci.steps.base import StepContext, StepResult
from runnable_ci.steps.failure import Explanation, explain_exit, place_of
from runnable_ci.util.process import Exit
from runnable_ci.util.text import printable


def keep_partial_output(
    step: Step, attempt: StepAttempt, step_context: StepContext, masks: Masks, secret_names: Collection[str]
) -> None:
    """Record what an attempt had returned before it failed, as its own; what is secret by its name stays so."""
    given = attempt.output_parameters | attempt.user_defined_metrics
    values = {name: parameter for name, parameter in given.items() if parameter.kind != "object"}
    if step.kind == "run":
        values = steps.shell.partial_output(step, step_context) | values
    masks.learn(texts([it.value for name, it in values.items() if name.upper() in secret_names]))
    attempt.partial_output = values
    attempt.output_parameters = {name: it for name, it in attempt.output_parameters.items() if name not in values}
    attempt.user_defined_metrics = {}


def fail(
    step: Step,
    attempt: StepAttempt,
    returned: StepResult,
    ended: Exit,
    step_context: StepContext,
    masks: Masks,
    *,
    is_out_of_memory: bool,
) -> None:
    """Say why an attempt failed that came to its own end."""
    explained = Explanation(returned.problem)
    if not returned.problem:
        explained = explain_exit(step, step_context, ended.code, is_out_of_memory=is_out_of_memory)
    problem = masks.redactor.text(explained.message)
    attempt.end("failed", f"{problem}{place_of(step, returned.exception)}")
    if returned.problem and not returned.exception:
        masks.printer.output(step.shown, "e", f"{printable(problem)}\n".encode())
    if explained.hint:
        masks.printer.say(f"hint: {masks.redactor.text(explained.hint)}", step=step.shown)
