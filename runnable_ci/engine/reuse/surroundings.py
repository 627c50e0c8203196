"""What a step would run in now, beside what an attempt in another run ran in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from runnable_ci.engine.options import Options, job_container
from runnable_ci.engine.planner import Scope
from runnable_ci.engine.provenance.environment_changes import whole_image_difference
from runnable_ci.engine.provenance.environment_proof import (
    first_environment_difference,
    first_secret_difference,
    first_variable_difference,
)
from runnable_ci.engine.provenance.step_variables import VariableRecorder, secret_values_of
from runnable_ci.engine.reuse.earlier_result import EarlierResult
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import StepAttempt
from runnable_ci.steps.containers.image_names import step_image

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


class Environments(Protocol):
    """In what steps run now."""

    def of(self, step: Step, containers: StepContainers | None) -> Environment | None:
        """Return that of a step; None where it cannot be seen."""

    def imported_from(self, step: Step, around: str) -> str:
        """Return a folder that a command's python imports from beside what is installed, and not in that one."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Surroundings:
    """This machine with its interpreters and variables, and the images that steps run in."""

    options: Options
    environments: Environments
    around: str
    """The folder in which changes of files are seen."""
    variables: VariableRecorder
    containers: StepContainers | None

    def difference(self, step: Step, found: EarlierResult, scope: Scope) -> str:
        """Return in what they differ from those of an attempt; empty where in nothing that counts."""
        last, values = found.attempt, scope.values()
        secret = [name for name in last.consumed if name in values and self._is_secret(name, last)]
        now = secret_values_of(secret, values, self.variables.digests)
        return (
            first_secret_difference(secret, last.secret_values, now)
            or first_variable_difference(last.variables, self.variables.now(step, values))
            or (self._own_image(step, last) if step.container else self._whole_image(last))
            or self._of_environment(step, found)
        )

    def _is_secret(self, name: str, last: StepAttempt) -> bool:
        return name in last.secret_values or (name in last.input_parameters and last.input_parameters[name].redacted)

    def _own_image(self, step: Step, last: StepAttempt) -> str:
        then = step_image(last.code_identities)
        if then is None or not then.code_identifier_dependable or self.containers is None or step.container is None:
            return "the digest of its image is not known"
        now = self.containers.image(step.container)
        return "" if now.digest == then.code_identifier else f"image {then.code_identifier} → {now.digest}"

    def _whole_image(self, last: StepAttempt) -> str:
        container = job_container(self.options)
        return whole_image_difference(last, container.code_identifier if container else "")

    def _of_environment(self, step: Step, found: EarlierResult) -> str:
        then = found.log.environments.get(found.attempt.environment)
        if then is None:
            return "what it ran in was not recorded"
        now = self.environments.of(step, self.containers)
        if now is None:
            return "in what it would run cannot be seen"
        if step.container is not None:  # the rest is that of its image
            return "" if then.architecture == now.architecture else f"{then.architecture} → {now.architecture}"
        if place := self.environments.imported_from(step, self.around):
            return f"its python imports from {place} too, where nothing is compared"
        imported = found.reads.distributions if found.reads is not None and found.reads.imports_seen else None
        return first_environment_difference(then, now, imported=imported, is_command=step.kind == "run")
