"""Steps as a person names them in a command: by their name, or an instance by how it is shown. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.branches.labels import find_step, labels_of
from runnable_ci.runs.model import RunLog


def from_steps(words: Iterable[str], pipeline: Pipeline, log: RunLog, where: str) -> dict[str, str]:
    """Return the steps that run since a person said so → why: these and all below them.

    Of an instance it is itself and what comes after all instances; what follows it instance by instance runs where it
    gives something else. Raises `UsageError` for a step that there is not.
    """
    found: dict[str, str] = {}
    for word in words:
        name = step_of(word, pipeline, log, f"--from {word}: {where} has no such step")
        top = name.partition(".")[0]
        below = pipeline.below(top)
        if name != top:
            steps = (pipeline.steps[one] for one in below - {top})
            below = frozenset(one.name for one in steps if not (one.branching and top in one.branching.follows))
        for one in (name, *below):
            found.setdefault(one, f"--from {word}")
    return found


def step_of(word: str, pipeline: Pipeline, log: RunLog, problem: str) -> str:
    """Return the name of a step of the pipeline, or of a branch that the log has. Raises `UsageError`."""
    if word in pipeline.steps:
        return word
    name = find_step(log, word)
    if name is not None and name.partition(".")[0] in pipeline.steps:
        return name
    branches = [label for name, label in labels_of(log.steps).items() if "." in name]
    known = did_you_mean(word, [*pipeline.steps, *branches], f"the steps are: {', '.join(pipeline.steps)}")
    raise UsageError(problem, hint=known)
