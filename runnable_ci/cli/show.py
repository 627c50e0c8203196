"""`runnable-ci show`: one run, what it did and why."""

from __future__ import annotations

from collections.abc import Iterator

from runnable_ci.runs.model import PROCESSING, CodeIdentity, Environment, RunLog, StepLog, encode
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.text import duration, format_duration, moment, pairs, short, size, table


def show(layout: Layout, run: str, *, as_json: bool) -> None:
    """Print a run for a person, or its run log."""
    log = load(layout, resolve_id(layout, run))
    if as_json:
        console.json(encode(log).decode())
        return
    first, *blocks = filter(None, (_head(log), _steps(log), _failures(log), _parameters(log), _files(log)))
    console.out(*first, *(line for block in blocks for line in ("", *block)))


def _head(log: RunLog) -> list[str]:
    code = log.code()
    environment = next(reversed(log.environments.values()), None)
    lines = {
        "run": f"{log.run_id}  {log.status}" + (f" ({log.message})" if log.message else ""),
        "pipeline": log.name + (f", tag {log.tag}" if log.tag else ""),
        "started": f"{moment(log.start_time)} UTC, took {format_duration(log.seconds()) or 'not yet known'}",
        "invocations": ", ".join(f"{i.command} {i.status}" for i in log.invocations),
        "code": _code(code) if code else "",
        "differs": code.code_identifier_message if code else "",
        "python": _python(environment) if environment else "",
        "metrics": pairs(log.metrics()),
    }
    return [f"{name:12} {value}" for name, value in lines.items() if value]


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
                "RUNNING" if step.status == PROCESSING else step.status,
                str(len(step.attempts)),
                duration(last.start_time, last.end_time) if last else "",
                f"{decision.action}: {decision.reason}" if decision else _undecided(log),
            )
        )
    return table(("STEP", "STATUS", "ATTEMPTS", "TOOK", "WHY"), rows)


def _undecided(log: RunLog) -> str:
    return "not in the pipeline any more" if log.end_time else ""


def _failures(log: RunLog) -> list[str]:
    lines = []
    for name in log.failed_steps():
        last = log.steps[name].attempts[-1]
        lines.append(f"{name}, attempt {last.attempt_number}: {last.message}")
        if last.exception:
            lines.extend(f"    {line}" for line in last.exception.traceback.splitlines())
    return lines


def _parameters(log: RunLog) -> list[str]:
    rows = [(name, p.kind, short(p.object_type or p.value, 60)) for name, p in log.parameters.items()]
    return table(("PARAMETER", "KIND", "VALUE"), rows) if rows else []


def _files(log: RunLog) -> list[str]:
    rows = [row for step in log.steps.values() for row in _step_files(step)]
    return table(("FILE", "STAGE", "STEP", "SIZE", "SHA256"), rows) if rows else []


def _step_files(step: StepLog) -> Iterator[tuple[str, ...]]:
    entries = step.data_catalog
    for entry in entries[:20]:
        yield entry.name, entry.stage, step.internal_name, size(entry.size), entry.data_hash[:12]
    if len(entries) > 20:
        yield f"… and {len(entries) - 20} more", "", step.internal_name, "", ""
