"""`runnable-ci show`: what a run did and why."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from runnable_ci.analysis.history.query import shown_status
from runnable_ci.cli.show.machine import machine_line
from runnable_ci.cli.show.rows import step_rows, steps_table
from runnable_ci.errors import UsageError
from runnable_ci.pipeline import command_line
from runnable_ci.runs.branches.labels import failed_steps, is_only_branches, label_of, shortened, step_named
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.code_states import unpublished
from runnable_ci.runs.document import encode
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import JOB, SUCCESS, TIME_BUDGET, Invocation, RunLog, StepLog
from runnable_ci.runs.notes.notes_model import Reproduction
from runnable_ci.runs.paths import WRITERS, in_flight, run_folder
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import (
    format_duration,
    format_pairs,
    format_size,
    format_time,
    listed,
    table,
    truncate,
)


def show(
    layout: Layout,
    run: str,
    step: str | None = None,
    *,
    reads: bool = False,
    as_json: bool,
    watched: bool = False,
    where: str = "",
) -> None:
    """Print a run for a person, or its run log; of a `step` what it read, in short or with `reads` the whole record.

    One that is `watched` is printed when it is over. `where` is the reference of one that is only in a registry.
    """
    from runnable_ci.cli.show.checkpoints import checkpoints
    from runnable_ci.cli.show.reads import reads_of_steps, show_step

    run_id = resolve_id(layout, run)
    if watched:
        from runnable_ci.cli.show.watching import watch

        watch(layout, run_id)
    log = load(layout, run_id)
    if step is not None:
        show_step(layout, log, log.steps[step_named(log, step)], whole=reads, as_json=as_json)
        return
    if reads:
        raise UsageError("--reads needs a step", hint=command("show", run, "STEP", "--reads"))
    if as_json:
        console.json(encode(log).decode())
        return
    seen = reads_of_steps(layout, log)
    blocks = [_steps(log), _failures(log), checkpoints(log), _parameters(log), seen, _files(log), _writers(layout, log)]
    first, *blocks = filter(None, (_head(log, layout, where), *blocks))
    console.out(*first, *(line for block in blocks for line in ("", *block)))


def _head(log: RunLog, layout: Layout, where: str) -> list[str]:
    code = log.code()
    environment = next(reversed(log.environments.values()), None)
    lines = {
        "run": f"{log.run_id}  {shown_status(log.status)}" + (f" ({log.message})" if log.message else ""),
        "resume": _resume(log, layout, where),
        "elsewhere": _elsewhere(log, layout),
        "pipeline": log.name + (f", tag {log.tag}" if log.tag else ""),
        "description": log.notes.description + (" (pinned)" if log.notes.pinned else ""),
        "started": f"{format_time(log.start_time)} UTC, {_length(log)}",
        "job": _job(log),
        "commands": ", ".join(map(_command, log.invocations)),
        "branch": _branch(log, code) if code else "",
        "code": _code(code) if code else "",
        "changes": code.code_identifier_message if code else "",
        "image": listed(_images(log)),
        "warning": unpublished(log),
        "python": _python(environment) if environment else "",
        "machine": machine_line(environment.machine) if environment else "",
        "metrics": format_pairs(log.metrics()),
        "reused": _reused(log),
        "reproduces": _reproduces(log.reproduction) if log.reproduction else "",
        "made from": str(log.made_from) if log.made_from else "",
    }
    return [f"{name:12} {value}" for name, value in lines.items() if value]


def _reproduces(record: Reproduction) -> str:
    left_out = f"; left out: {listed(record.left_out)}" if record.left_out else ""
    return f"{record.run_id}: {record.verdict}{left_out}"


def _resume(log: RunLog, layout: Layout, where: str) -> str:
    """Return the command that resumes a run which nothing but the time ended; empty for any other."""
    if log.ended_by != TIME_BUDGET:
        return ""
    if where:
        return command("retry", where)
    from runnable_ci.engine.run_project import own_file  # few runs are ended so

    file = own_file(log, layout.folder.parent)
    return command_line.retry(log.run_id, file, layout) if file else command("retry", log.run_id)


def _elsewhere(log: RunLog, layout: Layout) -> str:
    """Return how attempts stand that outlived the run's own process; empty where there is none."""
    if not in_flight(layout, log.run_id):
        return ""
    from runnable_ci.runs.elsewhere.left_there import note_of  # few runs have steps elsewhere

    return note_of(layout, log)


def _reused(log: RunLog) -> str:
    """Return what results of other runs saved; empty where there is none."""
    if not any(decision.taken_from for decision in decisions_of(log).values()):
        return ""
    from runnable_ci.runs.reuse.saved import saved  # most runs take nothing of others

    return str(saved(log))


def _length(log: RunLog) -> str:
    length = format_duration(log.seconds())
    return f"took {length}" if length else "still running"


def _command(invocation: Invocation) -> str:
    by = f" by {invocation.actor}" if invocation.actor else ""
    if invocation.job_steps:
        status = SUCCESS if invocation.ended_by == JOB else invocation.status
        return f"job of {listed(invocation.job_steps)}{by} {shown_status(status)}"
    level = f" (log level {invocation.log_level})" if invocation.log_level else ""
    return f"{invocation.command}{by} {shown_status(invocation.status)}{level}"


def _job(log: RunLog) -> str:
    """Return the newest of GitHub's jobs that the run was in: its workflow, run, pull request and page."""
    jobs = [e.variables for e in log.environments.values() if e.variables.get("GITHUB_RUN_ID")]
    if not jobs:
        return ""
    job = defaultdict(str, jobs[-1])
    workflow = job["GITHUB_WORKFLOW_REF"].partition("@")[0].rpartition("/")[2]
    number = job["GITHUB_RUN_NUMBER"] and f"run #{job['GITHUB_RUN_NUMBER']}"
    attempt = job["GITHUB_RUN_ATTEMPT"] and f"attempt {job['GITHUB_RUN_ATTEMPT']}"
    pull = re.fullmatch(r"refs/pull/(\d+)/(?:merge|head)", job["GITHUB_REF"])
    parts = [workflow, number, attempt, pull and f"pull request #{pull[1]}", job["GITHUB_EVENT_NAME"]]
    page = f"{job['GITHUB_SERVER_URL']}/{job['GITHUB_REPOSITORY']}/actions/runs/{job['GITHUB_RUN_ID']}"
    return f"{', '.join(filter(None, parts))}: {page}"


def _branch(log: RunLog, code: CodeIdentity) -> str:
    """Return the branch or tag; of a pull request that from which it comes."""
    heads = [e.variables.get("GITHUB_HEAD_REF") for e in log.environments.values()]
    return next(filter(None, reversed(heads)), None) or code.ref


def _code(code: CodeIdentity) -> str:
    state = "clean" if code.code_identifier_dependable else "dirty"
    parts = [code.code_identifier[:12] or "none", code.code_identifier_url]
    return f"{' '.join(filter(None, parts))}" + (f" ({state})" if code.code_identifier else "")


def _images(log: RunLog) -> list[str]:
    """Return the images that the last attempts ran in, each with the steps that it is of, unless it is of all."""
    found: dict[str, list[str]] = {}
    ran = [name for name, step in log.steps.items() if step.attempts]
    for step in ran:
        for code in log.steps[step].attempts[-1].code_identities:
            if code.code_identifier_type == "docker" and code.code_identifier:
                name = f"{code.code_identifier_url}{code.ref and f':{code.ref}'}"
                found.setdefault(f"{name}@{code.code_identifier[:19]}".lstrip("@"), []).append(
                    label_of(log.steps, step)
                )
    return [
        image if len(steps) == len(ran) else f"{image} ({listed(steps, at_most=3)})" for image, steps in found.items()
    ]


def _python(environment: Environment) -> str:
    packages = f"{len(environment.packages)} packages" if environment.packages else ""
    found = [environment.interpreter_version, packages, environment.os, environment.architecture]
    return ", ".join(filter(None, found))


def _steps(log: RunLog) -> list[str]:
    return steps_table(step_rows(log))


def _writers(layout: Layout, log: RunLog) -> list[str]:
    """Return who else wrote parts of a run that was pulled, and which results are theirs."""
    if not (run_folder(layout, log.run_id) / WRITERS).exists():
        return []
    from runnable_ci.runs.remote.contributions import read_contributions  # most runs were never in a registry

    used = read_contributions(layout, log.run_id).used(log, list(log.steps))
    rows = [(listed(results) or "nothing that counts", str(writer)) for writer, results in used.items()]
    return table(("WRITTEN", "BY"), rows) if rows else []


def _failures(log: RunLog) -> list[str]:
    own = [log.steps[name] for name in failed_steps(log) if is_only_branches(log.steps[name])]
    lines = [f"{label_of(log.steps, step.name)}: {step.message}" for step in own]
    for name in log.failed_steps():
        last = log.steps[name].attempts[-1]
        lines.append(f"{label_of(log.steps, name)}, attempt {last.attempt_number}: {last.message}")
        if last.partial_output:
            values = {name: parameter.value for name, parameter in last.partial_output.items()}
            lines.append(f"    returned before: {format_pairs(values)}")
        if last.exception:
            lines.extend(f"    {line}" for line in last.exception.traceback.splitlines())
    return lines


def _parameters(log: RunLog) -> list[str]:
    rows = [(name, p.kind, truncate(p.object_type or p.value, 60)) for name, p in log.parameters.items()]
    return table(("PARAMETER", "KIND", "VALUE"), rows) if rows else []


def _files(log: RunLog) -> list[str]:
    shown = [name for name, _ in shortened([*log.steps], log.steps)]
    rows = [row for name in shown for row in _step_files(log.steps[name], label_of(log.steps, name))]
    return table(("FILE", "STAGE", "STEP", "SIZE", "SHA256"), rows) if rows else []


def _step_files(step: StepLog, label: str) -> Iterator[tuple[str, ...]]:
    entries = step.data_catalog
    for entry in entries[:20]:
        yield entry.name, entry.stage, label, format_size(entry.size), entry.data_hash[:12]
    if len(entries) > 20:
        yield f"… and {len(entries) - 20} more", "", label, "", ""
