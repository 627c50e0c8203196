"""The action's first step: which command it becomes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runnable_ci.commands.action.job import Job
from runnable_ci.errors import RunNotFoundError, StoreError, UsageError
from runnable_ci.github import workflow
from runnable_ci.redact import LEAST_CHARACTERS
from runnable_ci.registries import Registries
from runnable_ci.remote import pull, read_origin
from runnable_ci.runs import resolve_id, run_ids
from runnable_ci.settings import INPUT_PREFIX
from runnable_ci.store.access import parse_reference


def begin(environ: Mapping[str, str]) -> list[str]:
    """The arguments of the command that this step is to become; empty where all is left to `finish`.

    The output `run-id` is set before that command begins: whatever happens then, `finish` knows the run.
    """
    job = Job.of(environ)
    _mask(job)
    pipeline, given = job.inputs.pipeline, job.inputs
    more = [f"--param={word}" for word in parameters(given.parameters)] + _split(given.args)
    match given.command:
        case "run":
            if given.from_step:
                raise UsageError("input from-step is for command `retry`", hint="command: retry, with a run-id")
            run_id = given.run_id or job.run_id(_nth_use(job))
            job.set_outputs({"run-id": run_id})
            if given.resume == "auto" and job.context.run_attempt > 1 and _is_resumable(job, run_id):
                return _retry(job, run_id, more)
            return ["run", f"--run-id={run_id}", *more, "--", pipeline]
        case "retry":
            run_id = _pulled(job, given.run_id)
            job.set_outputs({"run-id": run_id})
            from_step = [f"--from={given.from_step}"] if given.from_step else []
            return _retry(job, run_id, [*from_step, *more])
        case "pull":
            run_id = _pulled(job, given.run_id)
            job.set_outputs({"run-id": run_id})
            return ["pull", *more, "--", run_id]
        case "publish":
            job.set_outputs({"run-id": resolve_id(job.layout, given.run_id or "latest")})
            return []


def parameters(text: str) -> list[str]:
    """The input `parameters`, a JSON object or lines `NAME=VALUE`, as the words of `--param`."""
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise UsageError(f"input parameters is not JSON: {e}", hint='such as {"seed": 7}') from e
        return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in table.items()]
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the command gets: the inputs are nobody's business any more."""
    return {name: value for name, value in environ.items() if not name.startswith(INPUT_PREFIX)}


def _mask(job: Job) -> None:
    """Have the runner show `***` in place of each secret, also where it is printed by what is none of ours."""
    for secret in sorted(job.secrets()):
        if len(secret.strip()) >= LEAST_CHARACTERS:
            sys.stdout.writelines(f"{line}\n" for line in workflow.add_mask(secret))


def _split(args: str) -> list[str]:
    try:
        return shlex.split(args)
    except ValueError as e:
        raise UsageError(f"input args cannot be split into words: {e}") from e


def _retry(job: Job, run_id: str, more: Sequence[str]) -> list[str]:
    return ["retry", f"--file={job.inputs.pipeline}", f"--restore={job.inputs.restore}", *more, "--", run_id]


def _nth_use(job: Job) -> int:
    """How often the action was used for one run id in this job, this time included."""
    folder = Path(job.environ.get("RUNNER_TEMP") or ".") / "runnable-ci"
    uses = folder / f"{job.run_id(1)}.uses"
    folder.mkdir(parents=True, exist_ok=True)
    with uses.open("a") as file:
        file.write(".")
    return uses.stat().st_size


def _is_resumable(job: Job, run_id: str) -> bool:
    """Whether an earlier attempt of the job left a run; its log is here from now on."""
    attempt = f"attempt {job.context.run_attempt} of the job"
    try:
        pull(job.layout, job.registry(), run_id, only_log=True)
    except RunNotFoundError:
        job.say(f"{attempt}: no earlier one published run {run_id}")
    except StoreError as e:
        job.warn("An earlier attempt's run could not be looked for", f"{attempt}, run {run_id}: {e}")
    return run_id in run_ids(job.layout)


def _pulled(job: Job, run: str) -> str:
    """The id of a run whose log is here, pulled if it is not."""
    if not run:
        raise UsageError(f"command {job.inputs.command} needs the input run-id", hint="a run id, latest or a reference")
    if "/" in run:
        where = parse_reference(run)
        registry = Registries(job.settings, job.environ).open(where)
        return pull(job.layout, registry, where.reference or "latest", only_log=True).run_id
    if run in run_ids(job.layout) and read_origin(job.layout, run) is None:
        return run
    return pull(job.layout, job.registry(), run, only_log=True).run_id
