"""The pipeline: the resolved steps that the rest of the house works with. Pure; `resolve.py` makes it of a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from runnable_ci.config import LogLevel, Untracked
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.inputs import Input
from runnable_ci.pipeline.keys.tables import WorkflowConfig
from runnable_ci.pipeline.schema import Place
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.values.value_reader import Declared
from runnable_ci.redaction.environment import names_a_secret

if TYPE_CHECKING:
    from runnable_ci.pipeline.keys.executors import Executor


def parameters_looked_up(step: Step, *, with_condition: bool = True) -> set[str]:
    """Return the parameters that a step's expressions look up, and its condition."""
    if not step.arguments and not (with_condition and step.condition) and not step.has_expressions():
        return set()
    from runnable_ci.pipeline.expressions.lookups import parameters_in  # few steps need it

    return parameters_in(step, step.condition if with_condition else "")


def parameters_required(step: Step) -> set[str]:
    """Return those without which a text of a step has no value."""
    if not step.arguments and not step.has_expressions():
        return set()
    from runnable_ci.pipeline.expressions import lookups  # few steps need it

    return lookups.parameters_required(step)


class Pipeline(NamedTuple):
    """A checked pipeline; `steps` are in an order in which each comes after what it needs."""

    name: str
    file: str
    """How messages name the pipeline file."""
    python: str | None
    parameters: Mapping[str, Any]
    steps: Mapping[str, Step]
    registry: str | None = None
    secrets: tuple[str, ...] = ()
    """Names of environment variables."""
    untracked: Untracked | None = None
    log_level: LogLevel | None = None
    time_budget: str | None = None
    """How long an invocation may take."""
    is_named: bool = True
    """Whether the file gives the name."""
    place: Place = Place("")
    """The pipeline file, for errors that are found later."""
    inputs: Mapping[str, Input] = MappingProxyType({})
    """Parameters of which the file says more than a value; `parameters` has those with a default too."""
    workflow: WorkflowConfig | None = None
    """What the file says of the workflow that spreads a run over jobs."""
    executors: Mapping[str, Executor] = MappingProxyType({})
    """Where steps run that name one of these."""

    def outlined(self) -> Pipeline:
        """Return the pipeline with one branch for all those of a step, which can be checked before any is known."""
        if all(step.branching is None for step in self.steps.values()):
            return self
        from runnable_ci.pipeline.branches.expansion import outlined_steps  # few pipelines need it

        return self._replace(steps=outlined_steps(self.steps))

    def reuses_others(self, said: str | None) -> bool:
        """Return whether results of other runs may take the place of steps, by the file and by what a person `said`.

        That is a run or a branch, or `never`.
        """
        if said is not None:
            return said != "never"
        return any(step.reuse == "any-run" for step in self.outlined().steps.values())

    def error(
        self, step: Step, message: str, hint: str = "", *, key: str | Sequence[str] = (), table: str = ""
    ) -> PipelineError:
        """Return the error of a step, or of a key of it, or of a `table` in it, which names and shows where that is."""
        parts = ["steps", step.name.rpartition(".")[2], table]
        return (step.place or self.place).error(".".join(filter(None, parts)), message, hint, key=key)

    def declared(self) -> dict[str, Declared]:
        """Return what the file says of the types of parameters."""
        by_value = {name: Declared.by_value(value, self.file) for name, value in self.parameters.items()}
        declared = by_value | {name: one.declared for name, one in self.inputs.items()}
        secrets = {name.upper() for name in self.secrets}
        return {n: one.hidden() if n.upper() in secrets or names_a_secret(n) else one for n, one in declared.items()}

    def dag_hash(self) -> str:
        """Return sha1 of all definitions, as the reference system's run log has it.

        The order of returns is part of them.
        """
        definitions = {name: self.steps[name].definition() for name in sorted(self.steps)}
        return hashlib.sha1(json.dumps(definitions).encode(), usedforsecurity=False).hexdigest()

    def ancestors(self, name: str) -> frozenset[str]:
        """Return all steps that must be over before this one starts."""
        found: set[str] = set()
        waiting = list(self.steps[name].needs)
        while waiting:
            step = waiting.pop()
            if step not in found:
                found.add(step)
                waiting.extend(self.steps[step].needs)
        return frozenset(found)

    def below(self, name: str) -> frozenset[str]:
        """Return the step and all that need it, directly or not."""
        found = {name}
        for step in self.steps.values():
            if found.intersection(step.needs):
                found.add(step.name)
        return frozenset(found)
