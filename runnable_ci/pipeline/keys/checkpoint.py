"""`checkpoint` of a step: which globs may be one. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from runnable_ci.pipeline.branches.put_patterns import put_patterns
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import as_glob, can_overlap
from runnable_ci.pipeline.schema import RELATIVE, Place
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import check_relative, is_excluded, shown

_HINT = "keep checkpoints in a folder of their own, such as `ckpt`"


def check_paths(place: Place, table: str, paths: Sequence[str]) -> None:
    """Raise `PipelineError` for a path of `checkpoint` that cannot be one."""
    for path in paths:
        check_relative(path, lambda m: place.error(table, f"checkpoint: {m}", RELATIVE, key="checkpoint"))
        if is_excluded(path):
            message = f"checkpoint: {shown(path)} is never stored"
            raise place.error(
                table, message, "`.git` and `.runnable` are left out: use another folder", key="checkpoint"
            )


def check_checkpoints(pipeline: Pipeline, outlined: Pipeline) -> None:
    """Raise where a file of a checkpoint can be a product, what a step gets, or of another step's checkpoint."""
    steps = outlined.steps
    kept = put_patterns(pipeline.steps, {name: it._replace(put=it.checkpoint) for name, it in steps.items()})
    put = put_patterns(pipeline.steps, steps)
    for name, pattern, other, key, second in (*_beside(steps, kept, put), *_between(kept)):
        if can_overlap(pattern, second):
            whose = f"`{key}`" if other == name else f"`{key}` of step `{steps[other].shown}`"
            message = f"checkpoint: `{pattern}` can match the same file as `{second}` of {whose}"
            raise pipeline.error(steps[name], f"{message}: a checkpoint is the step's own", _HINT, key="checkpoint")


def _beside(
    steps: Mapping[str, Step], kept: Mapping[str, Sequence[str]], put: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield a step and a glob of its checkpoint with a step and a glob that is a product or gotten, and its key."""
    for name, patterns in kept.items():
        for pattern in patterns:
            for other, step in steps.items():
                yield from ((name, pattern, other, "catalog.put", glob) for glob in put[other])
                yield from ((name, pattern, other, "catalog.get", as_glob(glob)) for glob in step.get or ())


def _between(kept: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, str, str, str]]:
    for one, other in combinations(kept, 2):
        yield from ((other, second, one, "checkpoint", first) for first in kept[one] for second in kept[other])
