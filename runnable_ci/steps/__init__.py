"""How each kind of step becomes a process, and what comes back from it."""

from __future__ import annotations

from typing import assert_never

from runnable_ci.pipeline import Step
from runnable_ci.steps import python, shell
from runnable_ci.steps.launch import Launch, Returned, Surroundings


def prepare(step: Step, around: Surroundings) -> Launch:
    """The process that runs a step."""
    match step.kind:
        case "run":
            return shell.prepare(step, around)
        case "python":
            return python.prepare(step, around)
        case kind:
            assert_never(kind)


def collect(step: Step, around: Surroundings) -> Returned:
    """What a step whose process has ended gave back."""
    match step.kind:
        case "run":
            return shell.collect(step, around)
        case "python":
            return python.collect(step, around)
        case kind:
            assert_never(kind)
