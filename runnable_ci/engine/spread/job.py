"""Which steps of a run a job runs, where several jobs share it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple, Self

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.events import Started

CHUNKS_MAX: Final = 256
"""GitHub starts at most so many jobs for one matrix. Source: GitHub docs, "Actions limits"."""
_CHUNK: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


class JobSteps(NamedTuple):
    """The steps that one job runs; what the others are is left to other jobs, and is taken as these have left it."""

    names: Sequence[str] = ()
    """Of the pipeline; none in the job that collects."""
    keys: Sequence[str] = ()
    """Of the one step with a matrix only these instances, by their keys."""
    chunk: tuple[int, int] | None = None
    """Or the K-th of N parts of its instances, counted from 1."""
    collects: bool = False
    """Whether it settles all steps by what the other jobs did, and ends the run."""

    @classmethod
    def of(cls, names: Sequence[str], instances: str | None, pipeline: Pipeline) -> Self:
        """Return the steps of a job by what was typed; None for all instances. Raises `UsageError`."""
        for name in names:
            if name not in pipeline.steps:
                known = did_you_mean(name, pipeline.steps, f"the steps are: {', '.join(pipeline.steps)}")
                raise UsageError(f"--step: {pipeline.file} has no step `{name}`", hint=known)
        names = list(dict.fromkeys(names))
        if instances is None:
            return cls(names)
        if len(names) != 1 or not is_matrix(names[0], pipeline):
            raise UsageError(
                "--instances needs one step that has a matrix",
                hint="name that step alone: --step NAME --instances 1/4",
            )
        if found := _CHUNK.fullmatch(instances):
            number, of = int(found[1]), int(found[2])
            if not 1 <= number <= of:
                raise UsageError(f"--instances {instances}: there is no such part", hint="K/N, K being 1 to N: 2/4")
            return cls(names, chunk=(number, of))
        keys = [key.strip() for key in instances.split(",")]
        if keys == [""]:  # such as an expression of a workflow that has no value
            hint = "name some of them, A,B or K/N; without --instances all of them are this job's"
            raise UsageError("--instances names no instance", hint=hint)
        if "" in keys:
            hint = "the keys of instances, A,B,…, as --matrix-of prints them, or the part K/N of them"
            raise UsageError(f"--instances {instances}: an instance without a key", hint=hint)
        return cls(names, keys)

    @property
    def has_some_instances(self) -> bool:
        """Whether other jobs have other instances of its step: then the step as a whole is not its own."""
        return bool(self.keys) or self.chunk is not None

    def chosen(self, step: str, keys: Sequence[str]) -> Collection[str]:
        """Return which of the branches of a step, by their keys, are the job's own."""
        if step not in self.names:
            return ()
        if self.chunk is not None:
            number, of = self.chunk
            return frozenset(keys[(number - 1) * len(keys) // of : number * len(keys) // of])
        return frozenset(self.keys or keys)

    def owns(self, step: str, chosen: Mapping[str, Collection[str]]) -> bool:
        """Return whether a step is the job's own; `chosen` has the branches of those whose branches are known.

        Of one that never came to have any, what became of it is the answer to each job that asked for some.
        """
        top, _, inner = step.partition(".")
        if top not in self.names:
            return False
        if inner:
            return inner.partition(".")[0] in chosen.get(top, ())
        return not self.has_some_instances or top not in chosen

    def begun(self, started: Started, dag_hash: str) -> Started:
        """Return the beginning of the job's invocation, in a run of the whole pipeline."""
        invocation = started.invocation.model_copy(update={"job_steps": [*self.names]})
        return started.model_copy(update={"dag_hash": dag_hash, "invocation": invocation})

    def part_of(self, pipeline: Pipeline) -> Pipeline:
        """Return the pipeline with the job's steps and all that they need; all of it where the job collects."""
        if self.collects:
            return pipeline
        kept = set(self.names).union(*map(pipeline.ancestors, self.names))
        return pipeline._replace(steps={name: step for name, step in pipeline.steps.items() if name in kept})


def is_matrix(name: str, pipeline: Pipeline) -> bool:
    """Return whether a step becomes instances."""
    branching = pipeline.steps[name].branching
    return branching is not None and (branching.matrix is not None or bool(branching.follows))


def parts_of_matrix(keys: Sequence[str]) -> list[str]:
    """Return what `--instances` takes for each job of a matrix: a key, or of too many instances a part of them.

    These are in as few jobs as then run no more instances each.
    """
    if len(keys) <= CHUNKS_MAX:
        return [*keys]
    size = -(-len(keys) // CHUNKS_MAX)
    count = -(-len(keys) // size)
    return [f"{number}/{count}" for number in range(1, count + 1)]
