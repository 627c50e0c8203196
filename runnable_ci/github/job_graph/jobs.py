"""The jobs of a pipeline: which steps they run, what they wait for, when and for how long. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from math import ceil
from typing import Final, NamedTuple

from runnable_ci.engine.spread.job import parts_of_matrix
from runnable_ci.github.job_graph.conditions import begins_if
from runnable_ci.github.job_graph.durations import job_minutes, total_s
from runnable_ci.github.job_graph.grouping import grouped, is_spread
from runnable_ci.github.job_graph.instances import literal_keys
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Runner

USUAL_RUNNER: Final = Runner(("ubuntu-latest",))
ID_MAX: Final = 99
"""Characters in the id of a job; none begins with `__`. Source: actions/runner, IdBuilder.cs."""
MATRIX_OUTPUT: Final = "matrix"
"""The output of a job that asks for legs: a JSON object, step → list of what each leg runs."""


class Legs(NamedTuple):
    """The legs of a job of which each runs some instances of a step."""

    known: Sequence[str] = ()
    """What each runs: the key of an instance, or a chunk `K/N` of them."""
    asked_in: str = ""
    """Where only a run can tell: the job that asks for them."""
    max_parallel: int | None = None
    fail_fast: bool = True


class PlannedJob(NamedTuple):
    """A job."""

    id: str
    steps: Sequence[str] = ()
    """In the order of the pipeline; none in a job that only asks for the legs of others, or collects."""
    needs: Sequence[str] = ()
    """Jobs."""
    condition: str = ""
    """An expression of GitHub's; empty for its own."""
    runs_on: Runner = USUAL_RUNNER
    minutes: int | None = None
    """How long it may take; None for GitHub's own limit."""
    legs: Legs | None = None
    asks: Sequence[str] = ()
    """The steps whose instances are asked for after its own steps: other jobs run them."""
    collects: bool = False
    """Whether it brings the parts of all jobs together."""


def jobs_of(pipeline: Pipeline) -> list[PlannedJob]:
    """Return the jobs of a pipeline, the last of which collects. Raises `PipelineError`."""
    groups = grouped(pipeline)
    ids = _ids(pipeline, groups)
    job_of = {name: job for job, steps in ids.items() for name in steps}
    reducing = {job: _free(job, ids, "-reduce") for job, steps in ids.items() if _is_reduced(pipeline, steps)}
    job_of |= {ids[job][0]: other for job, other in reducing.items()}
    jobs = {}
    for job, steps in ids.items():
        needs = dict.fromkeys(job_of[need] for name in steps for need in pipeline.steps[name].needs)
        runner = pipeline.steps[steps[0]].runs_on or USUAL_RUNNER
        if any(label.lower().startswith("windows") for label in runner.labels):
            message = "runs-on: the action runs on Linux and macOS alone"
            raise pipeline.error(pipeline.steps[steps[0]], message, "name another runner", key="runs-on")
        jobs[job] = PlannedJob(job, steps, [need for need in needs if need != job], runs_on=runner)
    for job in ids:
        jobs[job] = _with_legs(pipeline, jobs[job])
    small = _usual_runner(pipeline)
    for job in ids:
        _ask_for_legs(jobs, job, small)
    for job, other in reducing.items():
        jobs[other] = PlannedJob(other, ids[job], [job], runs_on=jobs[job].runs_on)
    jobs = {job: _with_condition(pipeline, one, jobs) for job, one in jobs.items()}
    needed = {need for one in jobs.values() for need in one.needs}
    last = [job for job in jobs if job not in needed]
    collecting = _free("collect", jobs)
    return [*jobs.values(), PlannedJob(collecting, (), last, "always()", small, collects=True)]


def _is_reduced(pipeline: Pipeline, steps: Sequence[str]) -> bool:
    """Return whether a function makes one value of what the legs of a job return: none of them has seen the others."""
    first = pipeline.steps[steps[0]]
    return is_spread(first) and first.branching is not None and bool(first.branching.reduce)


def _ids(pipeline: Pipeline, groups: Sequence[tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return the steps of each job by its id: its `job`, else its first step. GitHub does not tell case."""
    taken: dict[str, str] = {}
    for step in pipeline.steps.values():
        if step.job and step.job != _as_id(step.job):
            message = (
                f"job: `{step.job}` cannot be the id of a job: GitHub takes {ID_MAX} characters, and no `__` first"
            )
            raise pipeline.error(step, message, "use another name", key="job")
        if step.job and taken.setdefault(step.job.lower(), step.job) != step.job:
            message = f"job: `{step.job}` differs from `{taken[step.job.lower()]}` by case alone"
            raise pipeline.error(step, message, "GitHub does not distinguish them: use another name", key="job")
    ids: dict[str, tuple[str, ...]] = {}
    for steps in groups:
        job = pipeline.steps[steps[0]].job or _free(steps[0], [*taken.values(), *ids])
        ids[job] = steps
    return ids


def _free(wanted: str, taken: Iterable[str], ending: str = "") -> str:
    """Return an id that none of these is, in whatever case: what is wanted, with the ending, as far as it is one."""
    others = {one.lower() for one in taken}
    endings = chain([ending], (f"{ending}-{number}" for number in count(2)))
    names = (_as_id(wanted, end) for end in endings)
    return next(name for name in names if name.lower() not in others)


def _as_id(name: str, ending: str = "") -> str:
    """Return a step's name as the id of a job."""
    whole = f"step{name}" if name.startswith("__") else name
    return f"{whole[: ID_MAX - len(ending)]}{ending}"


def _usual_runner(pipeline: Pipeline) -> Runner:
    """Return where jobs run that need nothing of their own: where most steps do."""
    return Counter(step.runs_on or USUAL_RUNNER for step in pipeline.steps.values()).most_common(1)[0][0]


def _with_legs(pipeline: Pipeline, job: PlannedJob) -> PlannedJob:
    """Return a job with its limit, and its legs as far as the file has them."""
    steps = [pipeline.steps[name] for name in job.steps]
    branching = steps[0].branching
    if branching is None or branching.matrix is None or not is_spread(steps[0]):
        return job._replace(minutes=job_minutes(total_s(steps)))
    own = Legs(max_parallel=branching.max_parallel, fail_fast=branching.fail_fast)
    keys = literal_keys(branching.matrix)
    if keys is None:
        return job._replace(legs=own)
    known = parts_of_matrix(keys)
    branch_s = total_s(branching.body.values())
    leg_s = None if branch_s is None else branch_s * ceil(len(keys) / len(known))
    return job._replace(legs=own._replace(known=known), minutes=job_minutes(leg_s))


def _ask_for_legs(jobs: dict[str, PlannedJob], name: str, runs_on: Runner) -> None:
    """Let an earlier job ask for the legs of one, where the file does not have them.

    That is the one which it waits for, if that runs once: all that the values can be made of is known then. Else it is
    a job of its own.
    """
    job = jobs[name]
    if job.legs is None or job.legs.known:
        return
    (step,) = job.steps
    direct = [need for need in job.needs if not any(need in _above(other, jobs) for other in job.needs)]
    if len(direct) == 1 and jobs[direct[0]].legs is None:
        asking = jobs[direct[0]]
    else:
        asking = PlannedJob(_free(step, jobs, "-instances"), needs=job.needs, runs_on=runs_on)
    jobs[asking.id] = asking._replace(asks=[*asking.asks, step])
    needs = [*dict.fromkeys([*job.needs, asking.id])]
    jobs[name] = job._replace(needs=needs, legs=job.legs._replace(asked_in=asking.id))


def _above(name: str, jobs: Mapping[str, PlannedJob]) -> set[str]:
    """Return the jobs that are over before one begins."""
    found: set[str] = set()
    waiting = [*jobs[name].needs]
    while waiting:
        job = waiting.pop()
        if job not in found:
            found.add(job)
            waiting.extend(jobs[job].needs)
    return found


def _with_condition(pipeline: Pipeline, job: PlannedJob, jobs: Mapping[str, PlannedJob]) -> PlannedJob:
    steps = job.steps or job.asks
    before = {name for other in _above(job.id, jobs) for name in jobs[other].steps}
    condition = begins_if(pipeline, steps, before.difference(steps))
    if job.legs is not None and job.legs.asked_in:
        # Without any there is nothing to run, and GitHub would fail.
        condition = " && ".join(filter(None, [condition, f"{asked_legs(job.legs, job.steps[0])}[0]"]))
    return job._replace(condition=condition)


def asked_legs(legs: Legs, step: str) -> str:
    """Return the expression of the list of legs that another job has asked for; nothing where that has failed."""
    return f"fromJSON(needs.{legs.asked_in}.outputs.{MATRIX_OUTPUT} || '{{}}')['{step}']"
