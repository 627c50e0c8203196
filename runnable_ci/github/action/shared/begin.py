"""The command of a job that shares a run with others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from runnable_ci.errors import RunNotFoundError, UsageError
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.preflight import require_ready
from runnable_ci.github.action.relay.budget import budget_options
from runnable_ci.github.action.shared.place import (
    downloads,
    is_carried,
    meeting_place,
    own_part,
    require_place,
    shared_id,
)
from runnable_ci.runs.remote.registry_config import split_run
from runnable_ci.runs.remote.remote_index import find_occupant
from runnable_ci.store.registry import Registry
from runnable_ci.util.shell_command import command


def shared_command(job: Job, options: Sequence[str]) -> list[str]:
    """Return the arguments of `run` for the job, with these `options` of the inputs; the output `run-id` is set.

    Raises `UsageError`, `StoreError`.
    """
    given = job.inputs
    if given.from_step:
        raise UsageError("input from-step is for command `retry`", hint="the jobs of a run resume it by themselves")
    if given.resume == "never":
        raise UsageError("resume: never: jobs that share a run resume it", hint="set another run-id for a new run")
    require_place(job)
    named, run_id, digest = split_run(given.run_id or shared_id(job))
    if given.resume == "always" and not is_carried(job):
        _require_there(meeting_place(job, named), run_id)
    require_ready(job, run_id, is_new=True)
    job.set_outputs({"run-id": run_id})
    words = ["run", f"--run-id={run_id}", *_where(job), *([f"--to={named}"] if named else [])]
    words += [f"--writers={digest}"] if digest else []
    words += [f"--step={name}" for name in names(given.steps)]
    words += [f"--matrix-of={name}" for name in names(given.matrix_of)]
    words += [f"--instances={given.instances}"] if given.instances else []
    words += ["--collect"] if given.collect else budget_options(job, given.pipeline)
    return [*words, *options, f"--file={given.pipeline}"]


def _require_there(registry: Registry, run_id: str) -> None:
    """Raise where a run is to be resumed that is not in the registry, so that no mistyped id begins a new one."""
    if find_occupant(registry, run_id) is None:
        hint = f"`{command('runs', '--from', registry.label)}` lists its runs"
        raise RunNotFoundError(f"there is no run `{run_id}` in {registry.label}", hint=hint)


def names(text: str) -> list[str]:
    """Return the names in an input, with commas or line breaks between them."""
    return [word for word in re.split(r"[,\s]+", text) if word]


def _where(job: Job) -> list[str]:
    """Return where the job meets the others; what it publishes at its end is published by `finish`."""
    if not is_carried(job):
        return ["--publish=until-end" if job.inputs.publish == "always" else "--publish=at-end"]
    found = downloads(job)
    found.mkdir(parents=True, exist_ok=True)
    return [f"--from={found}", f"--to={own_part(job)}"]
