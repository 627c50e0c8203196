"""Look at runs: `runnable-ci runs` lists them, `show` says what one did and why, `logs` what its steps wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from runnable_ci.cli.terminal import Printer
from runnable_ci.config import Settings
from runnable_ci.errors import BlobMissingError, UsageError, did_you_mean
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.code_states import unpublished
from runnable_ci.runs.document import encode
from runnable_ci.runs.model import PROCESSING, CodeIdentity, Environment, RunLog, StepAttempt, StepLog
from runnable_ci.runs.paths import is_pulled
from runnable_ci.runs.reader import Summary, load, output_of, resolve_id, summaries
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.process_output import Stream
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import (
    duration,
    format_duration,
    format_pairs,
    format_size,
    format_time,
    pluralize,
    table,
    truncate,
)


def show(layout: Layout, run: str, step: str | None = None, *, reads: bool = False, as_json: bool) -> None:
    """Print a run for a person, or its run log; of a `step` what it read, in short or with `reads` the whole record."""
    from runnable_ci.cli.show_reads import reads_of_steps, show_step  # `runs` and `logs` need none of it

    log = load(layout, resolve_id(layout, run))
    if step is not None:
        if step not in log.steps:
            raise _no_step(log, step)
        show_step(layout, log, log.steps[step], whole=reads, as_json=as_json)
        return
    if reads:
        raise UsageError("--reads needs a step", hint=command("show", run, "STEP", "--reads"))
    if as_json:
        console.json(encode(log).decode())
        return
    seen = reads_of_steps(layout, log)
    first, *blocks = filter(None, (_head(log), _steps(log), _failures(log), _parameters(log), seen, _files(log)))
    console.out(*first, *(line for block in blocks for line in ("", *block)))


def _no_step(log: RunLog, step: str) -> UsageError:
    known = did_you_mean(step, log.steps, f"the steps are: {', '.join(log.steps)}")
    return UsageError(f"run {log.run_id} has no step `{step}`", hint=known)


def _head(log: RunLog) -> list[str]:
    code = log.code()
    environment = next(reversed(log.environments.values()), None)
    lines = {
        "run": f"{log.run_id}  {_shown(log.status)}" + (f" ({log.message})" if log.message else ""),
        "pipeline": log.name + (f", tag {log.tag}" if log.tag else ""),
        "started": f"{format_time(log.start_time)} UTC, {_length(log)}",
        "commands": ", ".join(f"{i.command} {_shown(i.status)}" for i in log.invocations),
        "code": _code(code) if code else "",
        "changes": code.code_identifier_message if code else "",
        "warning": unpublished(log),
        "python": _python(environment) if environment else "",
        "metrics": format_pairs(log.metrics()),
    }
    return [f"{name:12} {value}" for name, value in lines.items() if value]


def _shown(status: str) -> str:
    return "RUNNING" if status == PROCESSING else status


def _length(log: RunLog) -> str:
    length = format_duration(log.seconds())
    return f"took {length}" if length else "still running"


def _code(code: CodeIdentity) -> str:
    state = "clean" if code.code_identifier_dependable else "dirty"
    parts = [code.code_identifier[:12] or "none", code.ref, code.code_identifier_url]
    return f"{' '.join(filter(None, parts))}" + (f" ({state})" if code.code_identifier else "")


def _python(environment: Environment) -> str:
    packages = f"{len(environment.packages)} packages" if environment.packages else ""
    found = [environment.interpreter_version, packages, environment.os, environment.architecture]
    return ", ".join(filter(None, found))


def _steps(log: RunLog) -> list[str]:
    rows = []
    decisions = log.invocations[-1].decisions if log.invocations else {}
    for name, step in log.steps.items():
        decision = decisions.get(name)
        last = step.attempts[-1] if step.attempts else None
        rows.append(
            (
                step.internal_name,
                _shown(step.status),
                str(len(step.attempts)),
                duration(last.start_time, last.end_time) if last else "",
                f"{decision.action}: {decision.reason}" if decision else _undecided(log),
            )
        )
    return table(("STEP", "STATUS", "ATTEMPTS", "DURATION", "REASON"), rows)


def _undecided(log: RunLog) -> str:
    return "no longer in the pipeline" if log.end_time else ""


def _failures(log: RunLog) -> list[str]:
    lines = []
    for name in log.failed_steps():
        last = log.steps[name].attempts[-1]
        lines.append(f"{name}, attempt {last.attempt_number}: {last.message}")
        if last.exception:
            lines.extend(f"    {line}" for line in last.exception.traceback.splitlines())
    return lines


def _parameters(log: RunLog) -> list[str]:
    rows = [(name, p.kind, truncate(p.object_type or p.value, 60)) for name, p in log.parameters.items()]
    return table(("PARAMETER", "KIND", "VALUE"), rows) if rows else []


def _files(log: RunLog) -> list[str]:
    rows = [row for step in log.steps.values() for row in _step_files(step)]
    return table(("FILE", "STAGE", "STEP", "SIZE", "SHA256"), rows) if rows else []


def _step_files(step: StepLog) -> Iterator[tuple[str, ...]]:
    entries = step.data_catalog
    for entry in entries[:20]:
        yield entry.name, entry.stage, step.internal_name, format_size(entry.size), entry.data_hash[:12]
    if len(entries) > 20:
        yield f"… and {len(entries) - 20} more", "", step.internal_name, "", ""


def runs(layout: Layout, *, as_json: bool) -> None:
    """List the runs of a store, the newest last."""
    _show(list(summaries(layout)), as_json=as_json, where=layout.label)


def runs_of_registry(source: str, *, settings: Settings, environ: Mapping[str, str], as_json: bool) -> None:
    """List the runs that a registry holds, the newest last, without fetching any."""
    from runnable_ci.runs.remote.registry_config import Registries
    from runnable_ci.runs.remote.remote_index import list_published

    registry = Registries(settings, environ).named(source, in_pipeline=lambda: None)
    found = list_published(registry)
    _show([holding.summary for holding in found], as_json=as_json, where=registry.label)
    number = Counter(holding.summary.run_id for holding in found)
    for holding in found:
        run_id = holding.summary.run_id
        if number[run_id] > 1:
            which = f"{registry.label}@{holding.newest.digest} is that {holding.beginning}"
            console.err(f"note: {number[run_id]} runs have the id `{run_id}`; {which}")


def _show(found: list[Summary], *, as_json: bool, where: str) -> None:
    if as_json:
        console.json(json.dumps([asdict(summary) for summary in found], indent=1))
    elif found:
        head = ("RUN", "STATUS", "STARTED (UTC)", "DURATION", "COMMIT", "FAILED", "METRICS")
        console.out(*table(head, [_row(summary) for summary in found]))
    else:
        console.err(f"no runs in {where}")


def _row(run: Summary) -> tuple[str, ...]:
    return (
        run.run_id,
        _shown(run.status),
        format_time(run.start_time),
        format_duration(run.seconds),
        run.commit[:7] + (" dirty" if run.dirty else ""),
        run.failed,
        format_pairs(run.metrics),
    )


def logs(
    layout: Layout, run: str, step: str | None, *, attempt: int | None, stdout: bool = False, stderr: bool = False
) -> None:
    """Write output to stdout in the order it came, both streams or one of them.

    Without a step that of all, each line with its step.
    """
    stream: Stream | None = None if stdout == stderr else "o" if stdout else "e"
    log = load(layout, resolve_id(layout, run))
    if step is not None and step not in log.steps:
        raise _no_step(log, step)
    chosen = list(_attempts(log, step, attempt))
    if not chosen:
        of = f"of {step or 'any step'} in run {log.run_id}"
        made = max((len(one.attempts) for name, one in log.steps.items() if step in (None, name)), default=0)
        hint = f"there {'is' if made == 1 else 'are'} {pluralize(made, 'attempt')}" if made else "it has not run yet"
        raise UsageError(f"there is no attempt {attempt or 'yet'} {of}", hint=hint)
    printer = Printer(console.stdout, console.stdout, terminal=False, colour=False, quiet=False)
    printer.begin(list(log.steps), len(chosen))
    for name, one in chosen:
        written = output_of(layout, log, f"{name}.{one.attempt_number}", one)
        chunks = console.quoted(chunk for written_to, chunk in written if stream in (None, written_to))
        with _naming_lost(layout, log, name, one):
            if step is not None:
                console.copy(chunks)
                continue
            for chunk in chunks:
                printer.output(name, "o", chunk)
        printer.finish_lines(name)


@contextmanager
def _naming_lost(layout: Layout, log: RunLog, step: str, attempt: StepAttempt) -> Iterator[None]:
    """Name in an error what is lost, and say how to have it again."""
    try:
        yield
    except BlobMissingError as e:
        again = f"`{of_store(layout, 'retry', log.run_id, '--from', step)}` runs the step again"
        hint = e.hint if is_pulled(layout, log.run_id) else f"{e.hint}; {again}"
        output = f"the output of `{step}`, attempt {attempt.attempt_number}, is lost"
        raise BlobMissingError(f"{output}: {e.message}", hint=hint) from e


def _attempts(log: RunLog, step: str | None, attempt: int | None) -> Iterator[tuple[str, StepAttempt]]:
    """Yield the selected attempts: by default the last of each step, in the order in which they began."""
    found = [
        (name, one)
        for name in ([step] if step else log.steps)
        for one in log.steps[name].attempts
        if one.attempt_number == (attempt or log.steps[name].attempts[-1].attempt_number)
    ]
    yield from sorted(found, key=lambda item: item[1].start_time)
