"""All that the page of a run shows, as plain data; the template only lays it out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.report.graph import Graph, graph_of
from runnable_ci.analysis.report.plots import Plot
from runnable_ci.analysis.report.previews import Preview
from runnable_ci.analysis.report.timeline import Timeline, timeline_of
from runnable_ci.analysis.states import State, state_of, step_edges
from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.branches.labels import is_only_branches, labels_of
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import CatalogEntry, Parameter, RunLog, StepAttempt, StepLog
from runnable_ci.util.text import duration, format_duration, format_size, format_time, listed, truncate

MARKS: Mapping[str, str] = {
    "succeeded": "✓",
    "reused": "↺",
    "failed": "✗",
    "cancelled": "⊘",
    "timed_out": "⊘",
    "interrupted": "⊘",
    "skipped": "-",
    "running": "…",
    "removed": "▫",
}
_VALUE_MAX = 200


@dataclass(frozen=True, slots=True)
class Found:
    """What was read beside the log, for the page."""

    outputs: Mapping[str, tuple[Markup, str]] = field(default_factory=dict)
    """`STEP.ATTEMPT` → what it printed, and what of it is left out."""
    reads: Mapping[str, ReadSet] = field(default_factory=dict)
    previews: Mapping[tuple[str, str], Preview] = field(default_factory=dict)
    """Step and name of a file → what it looks like."""
    plots: Sequence[Plot] = ()
    dirty: str = ""
    """The difference of the work tree from its commit, as text."""
    dirty_note: str = ""
    comparison: RunComparison | None = None
    other_note: str = ""
    """Why there is no comparison."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A name with a value."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class AttemptView:
    """One attempt."""

    number: int
    state: str
    started: str
    took: str
    reason: str
    message: str
    traceback: str
    facts: Sequence[Pair]
    given: Sequence[Pair]
    returned: Sequence[Pair]
    read: Sequence[Pair]
    output: Markup
    output_note: str


@dataclass(frozen=True, slots=True)
class FileView:
    """A file of a step."""

    name: str
    stage: str
    size: str
    sha256: str
    preview: Preview | None


@dataclass(frozen=True, slots=True)
class StepView:
    """One step."""

    place: int
    label: str
    state: State
    mark: str
    took: str
    attempts: Sequence[AttemptView]
    reason: str
    command: str
    files: Sequence[FileView]


@dataclass(frozen=True, slots=True)
class Page:
    """The page."""

    title: str
    state: str
    mark: str
    message: str
    facts: Sequence[Pair]
    counts: Sequence[tuple[str, int]]
    """State → number of steps."""
    metrics: Sequence[Pair]
    plots: Sequence[Plot]
    parameters: Sequence[Pair]
    steps: Sequence[StepView]
    graph: Graph | None
    timeline: Timeline | None
    invocations: Sequence[Sequence[str]]
    code: Sequence[Pair]
    dirty: str
    dirty_note: str
    environment: Sequence[Pair]
    packages: Sequence[tuple[str, str]]
    comparison: RunComparison | None
    other_note: str


def page_of(log: RunLog, found: Found, needs: Mapping[str, Sequence[str]] | None = None) -> Page:
    """Return what the page of a run shows."""
    labels = labels_of(log.steps)
    names = [name for name, step in log.steps.items() if not is_only_branches(step)]
    states = {name: state_of(log, name) for name in log.steps}
    steps = [_step(log, name, place, labels[name], states[name], found) for place, name in enumerate(names)]
    environment = _newest_environment(log)
    outcome = log.outcome or ("succeeded" if log.status == "SUCCESS" else "running")
    return Page(
        title=f"{log.name or 'run'} {log.run_id}",
        state=outcome,
        mark=MARKS.get(outcome, "…"),
        message=log.message,
        facts=_facts(log),
        counts=_counts(steps),
        metrics=[Pair(name, _text(value)) for name, value in log.metrics().items()],
        plots=found.plots,
        parameters=[_parameter(name, one) for name, one in log.parameters.items()],
        steps=steps,
        graph=_graph(log, labels, states, {name: place for place, name in enumerate(names)}, needs),
        timeline=timeline_of(log, labels),
        invocations=[_invocation(log, at) for at in range(len(log.invocations))],
        code=_code(log),
        dirty=found.dirty,
        dirty_note=found.dirty_note,
        environment=_environment(environment),
        packages=sorted(environment.packages.items()),
        comparison=found.comparison,
        other_note=found.other_note,
    )


def _graph(
    log: RunLog,
    labels: Mapping[str, str],
    states: Mapping[str, State],
    places: Mapping[str, int],
    needs: Mapping[str, Sequence[str]] | None,
) -> Graph | None:
    """Return the graph of the pipeline's steps; the instances of one are a single node."""
    edges = {name: found for name, found in step_edges(log, needs).items() if "." not in name}
    numbers = {name: len(step.instances) for name, step in log.steps.items() if step.instances}
    shown = {
        name: f"{numbers[name]} of {labels[name]}" if name in numbers else labels.get(name, name) for name in edges
    }
    whole = {name: states.get(name) or state_of(log, name) for name in edges}
    return graph_of(edges, shown, whole, places)


def _counts(steps: Sequence[StepView]) -> list[tuple[str, int]]:
    numbers: dict[str, int] = {}
    for step in steps:
        numbers[step.state] = numbers.get(step.state, 0) + 1
    return [(state, numbers[state]) for state in MARKS if state in numbers]


def _facts(log: RunLog) -> list[Pair]:
    code = log.code()
    last = log.invocations[-1] if log.invocations else None
    facts = {
        "Run": log.run_id,
        "Pipeline": log.name,
        "Tag": log.tag,
        "Started": f"{format_time(log.start_time)} UTC" if log.start_time else "",
        "Took": format_duration(log.seconds()) or "still running",
        "By": last.actor if last else "",
        "Branch": code.ref if code else "",
        "Commit": code.code_identifier if code and code.code_identifier_type == "git" else "",
    }
    return [Pair(name, value) for name, value in facts.items() if value]


def _step(log: RunLog, name: str, place: int, label: str, state: State, found: Found) -> StepView:
    step = log.steps[name]
    last = step.attempts[-1] if step.attempts else None
    decision = decisions_of(log).get(name)
    return StepView(
        place=place,
        label=label,
        state=state,
        mark=MARKS[state],
        took=duration(last.start_time, last.end_time) if last else "",
        attempts=[_attempt(step, one, found) for one in reversed(step.attempts)],
        reason=f"{decision.action}: {decision.reason}" if decision else "",
        command=_command(last) if last else "",
        files=[_file(name, entry, found) for entry in step.data_catalog],
    )


def _command(attempt: StepAttempt) -> str:
    for kind in ("run", "python", "notebook"):
        if kind in attempt.definition:
            return f"{kind}: {attempt.definition[kind]}"
    return ""


def _attempt(step: StepLog, one: StepAttempt, found: Found) -> AttemptView:
    title = f"{step.name}.{one.attempt_number}"
    output, note = found.outputs.get(title, (Markup(""), ""))
    exception = one.exception
    facts = {
        "Exit code": "" if one.exit_code is None else str(one.exit_code),
        "Taken from": one.taken_from,
        "First made by": one.taken_by,
        "Code": listed(f"{it.code_identifier_type} {it.code_identifier[:12]}" for it in one.code_identities),
        "Not seen": one.not_seen,
    }
    returned = one.output_parameters | one.user_defined_metrics
    return AttemptView(
        number=one.attempt_number,
        state=one.outcome or "running",
        started=f"{format_time(one.start_time)} UTC",
        took=duration(one.start_time, one.end_time),
        reason=one.reason,
        message=one.message,
        traceback=exception.traceback if exception else "",
        facts=[Pair(name, value) for name, value in facts.items() if value],
        given=[_parameter(name, p, one.consumed) for name, p in one.input_parameters.items() if _is_used(one, name)],
        returned=[_parameter(name, value) for name, value in returned.items()],
        read=_reads(found.reads.get(title)),
        output=output,
        output_note=note,
    )


def _is_used(one: StepAttempt, name: str) -> bool:
    return name in one.consumed or not one.was_observed


def _reads(reads: ReadSet | None) -> list[Pair]:
    if reads is None:
        return []
    kinds = {
        "files": [*reads.files],
        "folders listed": [folder or "." for folder in reads.listings],
        "looked for, not there": [*reads.absent],
        "outside of the repository": [*reads.outside],
        "packages": [f"{name} {version}".rstrip() for name, version in reads.distributions.items()],
        "network": reads.connected,
    }
    return [Pair(f"{kind}: {len(names)}", listed(names, at_most=30)) for kind, names in kinds.items() if names]


def _file(step: str, entry: CatalogEntry, found: Found) -> FileView:
    shown = found.previews.get((step, entry.name)) if entry.stage == "put" else None
    return FileView(entry.name, entry.stage, format_size(entry.size), entry.data_hash, shown)


def _parameter(name: str, one: Parameter, consumed: Mapping[str, str] | None = None) -> Pair:
    value = f"{one.object_type or 'object'}, sha256 {one.data_hash[:12]}" if one.kind == "object" else _text(one.value)
    is_possible = consumed is not None and consumed.get(name) == "possible"
    return Pair(name, value, "may have been read" if is_possible else "")


def _text(value: Any) -> str:
    return truncate(value, _VALUE_MAX)


def _invocation(log: RunLog, at: int) -> tuple[str, ...]:
    one = log.invocations[at]
    ran = sum(decision.action == "run" for decision in one.decisions.values())
    reused = sum(decision.action == "reuse" for decision in one.decisions.values())
    return (
        str(one.number),
        one.command,
        one.actor,
        f"{format_time(one.start_time)} UTC",
        duration(one.start_time, one.end_time),
        one.outcome or "running",
        f"{ran} ran, {reused} reused",
        one.message,
    )


def _code(log: RunLog) -> list[Pair]:
    code = log.code()
    if code is None:
        return []
    facts = {
        "Commit": code.code_identifier,
        "Branch or tag": code.ref,
        "Repository": code.code_identifier_url,
        "Work tree": "clean" if code.code_identifier_dependable else code.code_identifier_message or "not clean",
    }
    return [Pair(name, value) for name, value in facts.items() if value]


def _newest_environment(log: RunLog) -> Environment:
    newest = log.newest_attempt()
    known = log.environments.get(newest.environment) if newest else None
    return known or next(reversed(log.environments.values()), Environment())


def _environment(one: Environment) -> list[Pair]:
    machine = one.machine
    facts = {
        "Python": one.interpreter_version,
        "Interpreter": one.interpreter,
        "System": " ".join(filter(None, (one.os, one.architecture, one.distribution))),
        "C library": one.libc,
        "Processor": machine.cpu or machine.cpu_id,
        "Instruction sets": listed(machine.cpu_features, at_most=12),
        "Cores": f"{machine.cores}" if machine.cores else "",
        "Memory": format_size(machine.memory) if machine.memory else "",
        "GPUs": listed(machine.gpus),
        "GPU driver": machine.gpu_driver,
        "Runner image": machine.runner_image,
        "runnable-ci": one.tool_version,
    }
    return [Pair(name, value) for name, value in facts.items() if value]
