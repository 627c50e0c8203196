"""The action's first step: which command it becomes."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runnable_ci.config import INPUT_PREFIX, REUSE_KEY, SECRETS, SECRETS_SETTING, WRITERS
from runnable_ci.config.handed_over import hand_over
from runnable_ci.engine.run_project import OpenedRun, open_run
from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.github import commands as workflow
from runnable_ci.github.accepted_writers import accepted_writers
from runnable_ci.github.action import handoff
from runnable_ci.github.action.attempts import first_id, published_earlier, resume_earlier
from runnable_ci.github.action.job import Job
from runnable_ci.github.action.preflight import require_ready, require_registry
from runnable_ci.github.action.relay.budget import budget_options
from runnable_ci.github.action.shared.place import is_shared
from runnable_ci.pipeline.command_line import is_default
from runnable_ci.pipeline.parameters import PARAMETER_PREFIX, ParameterSource
from runnable_ci.redaction.environment import require_variables
from runnable_ci.runs.reader import LATEST, load, resolve_id, run_ids
from runnable_ci.runs.remote.pull import pull, read_origin
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.runs.remote.writers import AcceptedWriters
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import console
from runnable_ci.util.files import replacing
from runnable_ci.util.process import exec_program
from runnable_ci.util.shell_command import path

# One `args` serves the first attempt of a job, which runs, and the next, which resumes with the parameters that the run
# has. Option → has it a value?
_OF_RUN_ALONE = {"--tag": True, "--params-file": True}
_OF_RETRY_ALONE = {
    "--rerun-changed": False,
    "--other-pipeline": False,
    "--accept": True,
    "--reason": True,
    "--writers": True,
    "--checkpoint": True,
}
# What changed in a job's steps runs again anyway, where several jobs share a run.
_NOT_OF_JOBS = {"--rerun-changed": False}
_AS_IT_GOES = "--publish=until-end"
_INPUTS_INSTEAD = {
    "--run-id": "use the input run-id",
    "--publish": "use the input publish",
    "--to": "use the input registry",
    "--time-budget": "use the input time-budget",
    "--from-registry": "use the input registry",
    "--step": "use the input steps",
    "--instances": "use the input instances",
    "--matrix-of": "use the input matrix-of",
    "--collect": "use the input collect",
}


def begin(environ: Mapping[str, str]) -> list[str]:
    """Return the arguments of the command that this step becomes; empty if only `finish` has work to do.

    The output `run-id` is set before that command begins, and `pipeline` where only the run knows its file: whatever
    happens then, `finish` knows the run.
    """
    handoff.read_and_delete(environ)
    job = Job.of(environ)
    _mask(job)
    _require_secret_names(job)
    require_registry(job)
    given = job.inputs
    more = _split(given.args)
    if is_shared(job):
        return _shared(job, more)
    match given.command:
        case "run":
            if given.from_step:
                raise UsageError("input from-step is for command `retry`", hint="command: retry, with a run-id")
            _require_told_apart(job)
            resumed = resume_earlier(job)
            run_id = resumed.run_id if resumed else first_id(job)
            require_ready(job, run_id, is_new=not resumed)
            job.set_outputs({"run-id": run_id})
            if resumed:
                words = _with_parameters(job, _without(more, _OF_RUN_ALONE))
                return _retry(job, run_id, given.pipeline, words, AcceptedWriters((resumed.digest,)))
            words = _with_parameters(job, _without(more, _OF_RETRY_ALONE))
            options = [*_as_it_goes(job, run_id), *budget_options(job, given.pipeline)]
            return ["run", f"--run-id={run_id}", *options, *words, "--", given.pipeline]
        case "retry":
            opened = _opened(job, other_pipeline="--other-pipeline" in more)
            run_id, file = opened.run_id, path(opened.project.file)
            require_ready(job.with_pipeline(file), run_id, is_new=False)
            is_told = is_default(opened.project.file, Path(given.pipeline))
            job.set_outputs({"run-id": run_id, **({} if is_told else {"pipeline": file})})
            words = [*_from_step(job, opened), *_with_parameters(job, _once(job, opened, more))]
            return _retry(job, run_id, file, words, opened.accepted)
        case "pull":
            run_id = _pulled(job, _required_run(job))
            job.set_outputs({"run-id": run_id})
            run = given.run_id if "@" in given.run_id else run_id
            return ["pull", f"--store={job.layout.folder.parent}", *more, "--", run]
        case "publish":
            job.set_outputs({"run-id": resolve_id(job.layout, given.run_id or "latest")})
            return []


def _shared(job: Job, more: Sequence[str]) -> list[str]:
    """Return the command of a job that shares a run with others. Raises `UsageError` for another command's inputs."""
    if job.inputs.command != "run":
        raise UsageError(
            f"command {job.inputs.command} takes none of the inputs steps, matrix-of and collect",
            hint="use command: run, also to resume the run that jobs share",
        )
    from runnable_ci.github.action.shared.begin import shared_command  # few jobs share a run

    return shared_command(job, _with_parameters(job, _without(more, _NOT_OF_JOBS)))


def begin_and_run(environ: Mapping[str, str]) -> None:
    """Begin, and become the command that the inputs ask for, where they ask for one."""
    if words := begin(environ):
        kept = environment(environ, words)
        # A step can read with what the process was started that started it.
        secret = {name: value for name, value in kept.items() if name in SECRETS}
        left = {name: value for name, value in kept.items() if name not in SECRETS}
        handed = hand_over(secret) if secret else {}
        exec_program([sys.executable, "-I", "-m", "runnable_ci", *words], {**left, **handed})


def parameters(text: str) -> tuple[Mapping[str, Any], Sequence[str]]:
    """Split the input `parameters` into the values of a JSON object and the words of `--param`; one of them is empty.

    A value of JSON keeps its type; a line `NAME=VALUE` is read as on the command line. Raises `UsageError`.
    """
    if not text.lstrip().startswith("{"):
        lines = (line.strip() for line in text.replace("\r\n", "\n").split("\n"))
        return {}, [line for line in lines if line and not line.startswith("#")]
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"input parameters is not JSON: {e}", hint='such as {"seed": 7}') from e
    return ParameterSource("input parameters", table).values, []


def environment(environ: Mapping[str, str], words: Sequence[str]) -> dict[str, str]:
    """Return what the command gets: no input, and no token where it needs none.

    A step can read the environment of the process that started it. A variable of a parameter that the input gives as
    JSON goes too: it would count before the file that has these.
    """
    is_published = any(word.startswith("--publish=") for word in words)
    needless = set(SECRETS) - {REUSE_KEY} if words[0] == "run" and not is_published else set[str]()
    needless |= {WRITERS} if words[0] == "retry" else set[str]()  # `_retry` has made an option of it
    values, _ = parameters(environ.get(f"{INPUT_PREFIX}PARAMETERS", ""))
    needless |= {f"{PARAMETER_PREFIX}{name}" for name in values}
    return {
        name: value for name, value in environ.items() if not name.startswith(INPUT_PREFIX) and name not in needless
    }


def _with_parameters(job: Job, options: Sequence[str]) -> list[str]:
    """Return the options with the input's parameters: a file for JSON, so that nothing needs quotes.

    Those of the input `args` count before a `--param` of the input, and after a file of it.
    """
    values, words = parameters(job.inputs.parameters)
    if not values:
        return [*(f"--param={word}" for word in words), *options]
    file = job.folder / "parameters.json"
    with replacing(file, mode=0o600) as new:
        new.write(json.dumps(values).encode())
    return [*options, f"--params-file={file}"]


def _require_secret_names(job: Job) -> None:
    """Raise `UsageError` for a name in the input `secrets` that nothing has; `run` and `retry` look for themselves."""
    if job.inputs.command in ("publish", "pull"):
        require_variables(job.settings.secret_names, job.environ, where=SECRETS_SETTING)


def _from_step(job: Job, opened: OpenedRun) -> list[str]:
    """Return `--from`, unless an earlier attempt of this job has run the step: a re-run resumes where that failed."""
    step = job.inputs.from_step
    if not step:
        return []
    if step in _tried_earlier(job, opened):
        job.say(f"an earlier attempt of this job has run {step}: the run is resumed from there")
        return []
    return [f"--from={step}"]


def _once(job: Job, opened: OpenedRun, words: Sequence[str]) -> list[str]:
    """Return the options of a retry without `--checkpoint` where an earlier attempt of this job has started steps over.

    What it kept of their work is not to be dropped again.
    """
    return _without(words, {"--checkpoint": True} if _tried_earlier(job, opened) else {})


def _tried_earlier(job: Job, opened: OpenedRun) -> set[str]:
    """Return the steps that earlier attempts of this job have run."""
    if job.context.run_attempt == 1:
        return set()
    log = load(opened.project.layout, opened.run_id)
    mine = {
        key for key, found in log.environments.items() if found.variables.get("GITHUB_RUN_ID") == job.context.run_id
    }
    return {name for name, step in log.steps.items() if any(it.environment in mine for it in step.attempts)}


def _mask(job: Job) -> None:
    """Make the runner show `***` in place of each secret, also where another program prints it."""
    for secret in sorted(job.secrets()):
        console.commands(*workflow.add_mask(secret))


def _split(args: str) -> list[str]:
    try:
        words = shlex.split(args)
    except ValueError as e:
        raise UsageError(f"input args cannot be split into words: {e}") from e
    for word in words:
        if (name := word.partition("=")[0]) in _INPUTS_INSTEAD:
            raise UsageError(f"input args: {name} is set by the action", hint=_INPUTS_INSTEAD[name])
    return words


def _without(words: Sequence[str], options: Mapping[str, bool]) -> list[str]:
    """Return the words without these options, of which some take a value."""
    found: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, _ = word.partition("=")
        if name not in options:
            found.append(word)
        elif options[name] and not equals:
            next(left, None)
    return found


def _retry(job: Job, run_id: str, pipeline: str, more: Sequence[str], accepted: AcceptedWriters | None) -> list[str]:
    words = _without(more, {"--writers": True})  # a digest that was named counts before it
    by = [f"--writers={accepted}"] if accepted and accepted.patterns else []
    options = [f"--file={pipeline}", f"--restore={job.inputs.restore}", *_as_it_goes(job, run_id)]
    options += budget_options(job, pipeline)
    return ["retry", *options, *by, *words, "--", run_id]


def _as_it_goes(job: Job, run_id: str) -> list[str]:
    """Return the option that has the run published after each step; its end is published by `finish`.

    Not where a command takes another registry than `finish` does: that of a pull request's run is not a branch's.
    """
    if job.inputs.publish != "always" or job.context.is_fork_pull_request:
        return []
    try:
        is_usual = job.registry_of(run_id).label == job.registry().label
    except RunnableError:  # the command itself will tell
        return []
    return [_AS_IT_GOES] if is_usual else []


def _require_told_apart(job: Job) -> None:
    """Raise `UsageError` for a use of the action that a re-run could not tell from an earlier one in the same job."""
    if job.inputs.run_id:
        return
    uses = job.folder / f"uses-{job.context.run_id}-{job.context.run_attempt}"
    place = job.use.place
    known = uses.read_text("utf-8").split() if uses.exists() else []
    if place in known:
        raise UsageError(
            "this job has used the action with the same inputs before: a re-run could not tell their runs apart",
            hint="give both steps an `id:`, or, where that is in another action's steps, set the input run-id",
        )
    uses.write_text("\n".join([*known, place]), "utf-8")


def _opened(job: Job, *, other_pipeline: bool) -> OpenedRun:
    """Return the run that is to be resumed, its log here, and its own project.

    A folder as `pipeline` only says where to look: which file the run is of is the run's to say.
    """
    run, pipeline = _required_run(job), Path(job.inputs.pipeline)
    file = pipeline if pipeline.is_file() or other_pipeline or not pipeline.exists() else None
    digest = published_earlier(job, run)
    opened = open_run(
        run,
        file=file,
        other_pipeline=other_pipeline,
        environ=job.environ,
        source=_source(job, run, digest),
        accepted=_accepted(job),
        layout=job.layout,
        take_over=bool(digest),  # who wrote that is over
    )
    job.say_all(opened.notes)
    return opened


def _pulled(job: Job, run: str) -> str:
    """Return the id of a run whose log is here, pulled if it is not."""
    source = _source(job, run)
    return pull(job.layout, *source, accepted=_accepted(job), only_log=True).run_id if source else run


def _accepted(job: Job) -> AcceptedWriters:
    """Return whose parts of a run are used: by `args`, else as for any command."""
    given = _value_of("--writers", _split(job.inputs.args))
    settings = job.settings if given is None else job.settings.model_copy(update={"writers": given})
    return accepted_writers(settings, job.environ)


def _value_of(option: str, words: Sequence[str]) -> str | None:
    """Return the last value of an option among the words."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == option:
            found = value if equals else following
    return found


def _required_run(job: Job) -> str:
    if not job.inputs.run_id:
        raise UsageError(f"command {job.inputs.command} needs the input run-id", hint="a run id, latest or a reference")
    return job.inputs.run_id


def _source(job: Job, run: str, digest: str = "") -> tuple[Registry, str] | None:
    """Return where a run comes from, and what it is called there, or its `digest`; None for one of this job."""
    if "/" in run:
        where = parse_reference(run)
        return Registries(job.settings, job.environ).open(where), digest or where.reference or LATEST
    if digest:
        return job.registry(), digest
    if run in run_ids(job.layout) and read_origin(job.layout, run) is None:
        return None
    return job.registry(), run
