"""Which steps of a pipeline a run has: those that were named, and all above them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.provenance.changes import has_attempts
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.pipeline_identity import SELECTED_STEPS, UNTIL_STEPS
from runnable_ci.runs.branches.labels import group_of
from runnable_ci.runs.model import RunLog
from runnable_ci.util.shell_command import command

if TYPE_CHECKING:
    from runnable_ci.runs.remote.writers import AcceptedWriters


class StepSelection(NamedTuple):
    """The steps that a run was asked for; all of the pipeline's where none is named."""

    steps: Sequence[str] = ()
    """These run, and nothing else: what they need is taken from an earlier run."""
    until: Sequence[str] = ()
    """These run, and all above them."""

    def __bool__(self) -> bool:
        return bool(self.steps or self.until)

    @classmethod
    def recorded(cls, run_config: Mapping[str, Any], pipeline: Pipeline) -> StepSelection:
        """Return the selection of a run, without the steps that the pipeline does not have any more."""

        def names(key: str) -> list[str]:
            found = run_config.get(key)
            return [name for name in found if name in pipeline.steps] if isinstance(found, list) else []

        return cls(names(SELECTED_STEPS), names(UNTIL_STEPS))

    def config(self) -> dict[str, Any]:
        """Return the entries of a log's `run_config`; none for a whole run, as in logs of earlier versions."""
        found = {SELECTED_STEPS: list(self.steps), UNTIL_STEPS: list(self.until)}
        return {key: names for key, names in found.items() if names}

    def require_known(self, pipeline: Pipeline) -> None:
        """Raise `UsageError` for a step that the pipeline does not have."""
        for names, option in ((self.steps, ""), (self.until, "--until: ")):
            for name in names:
                if (group := group_of(name)) in pipeline.steps and pipeline.steps[group].branching:
                    raise UsageError(
                        f"{option}`{name}` is a part of the step `{group}`, which runs as a whole",
                        hint=f"`{command('run', *(['--until'] if option else []), group)}` runs all of it; in a run "
                        f"that has it, `{command('retry', 'RUN', '--from', name)}` re-runs it and what depends on it",
                    )
                if name not in pipeline.steps:
                    known = did_you_mean(name, pipeline.steps, f"the steps are: {', '.join(pipeline.steps)}")
                    raise UsageError(f"{option}{pipeline.file} has no step `{name}`", hint=known)

    def running(self, pipeline: Pipeline) -> frozenset[str]:
        """Return the names of the steps that may run; those that are mocked do."""
        if not self:
            return frozenset(pipeline.steps)
        above = (pipeline.ancestors(name) for name in self.until)
        mocked = (name for name, step in pipeline.steps.items() if step.mock)
        return frozenset(self.steps).union(self.until, mocked, *above)

    def part_of(self, pipeline: Pipeline) -> Pipeline:
        """Return the pipeline with the steps that may run and all that they need, not what comes after them."""
        if not self:
            return pipeline
        running = self.running(pipeline)
        kept = running.union(*map(pipeline.ancestors, running))
        return pipeline._replace(steps={name: step for name, step in pipeline.steps.items() if name in kept})


class PartialOptions(NamedTuple):
    """What a run of some steps is asked for."""

    selection: StepSelection = StepSelection()
    from_run: str | None = None
    """The run whose results are taken; None: the newest one that has them."""
    accept: Sequence[str] = ()
    """`STEP`, `STEP:code` or `STEP:data`: take its result though that differs."""
    reason: str = ""
    """Why."""
    typed: Sequence[str] = ()
    """The command as it was typed, for messages."""
    accepted: AcceptedWriters | None = None
    """Whose results are used; None: everybody's."""


def require_taken(
    plan: Plan, log: RunLog, running: Collection[str], forced: Collection[str], hint: Callable[[str], str]
) -> None:
    """Raise `UsageError` for a step that would run though it was not selected, and not `forced` to run since.

    The plan is on the log that has the results of the others; `hint` returns how a step is run too.
    """
    for name in plan.running:
        step = name.partition(".")[0]
        if step not in running and step not in forced:
            known = f"its result cannot be taken from run `{log.run_id}`: {plan.decisions[name].reason}"
            why = known if has_attempts(log, name) else f"run `{log.run_id}` has no result of it"
            raise UsageError(f"step `{plan.pipeline.steps[name].shown}` was not selected, and {why}", hint=hint(step))
