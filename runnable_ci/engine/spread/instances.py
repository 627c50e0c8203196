"""Which instances the matrix of a step has in a run that several jobs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.spread.job import JobSteps
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.util.text import listed

_LISTED_MAX = 20


class KnownInstances(NamedTuple):
    """The instances of a step, by their keys."""

    keys: Sequence[str]
    why_none: str = ""


def instances_in(planned: Plan, step: str) -> KnownInstances:
    """Return the instances of a step in the plan of a job that has it."""
    inner = [name.split(".") for name in planned.decisions if name.startswith(f"{step}.")]
    if not inner and (decision := planned.decisions.get(step)) is not None:
        return KnownInstances((), decision.reason)
    return KnownInstances(list(dict.fromkeys(parts[1] for parts in inner)))


def require_instances(planned: Plan, job: JobSteps) -> None:
    """Raise `UsageError` for an instance that the step of a job does not have, as far as its plan knows them."""
    known = instances_in(planned, job.names[0]).keys
    for key in job.keys if known else ():
        if key not in known:
            hint = did_you_mean(key, known, f"its instances are: {listed(known, at_most=_LISTED_MAX)}")
            raise UsageError(f"--instances: step `{job.names[0]}` has no instance `{key}`", hint=hint)
