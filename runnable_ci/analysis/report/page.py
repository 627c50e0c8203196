"""All that the page of a run shows, as plain data; the template only lays it out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.facts import command_of, newest_environment
from runnable_ci.analysis.report.chain import invocation_table
from runnable_ci.analysis.report.failures import FAILURES_MAX, ShownFailure, failures_of
from runnable_ci.analysis.report.graph import Graph, graph_of
from runnable_ci.analysis.report.machines import ShownMachine, machine_names, machines_of
from runnable_ci.analysis.report.metrics import Metric, metrics_of
from runnable_ci.analysis.report.pairs import Pair, bounded, pairs
from runnable_ci.analysis.report.plots import Plot
from runnable_ci.analysis.report.previews import Preview
from runnable_ci.analysis.report.surroundings import code_of, environment_of
from runnable_ci.analysis.report.timeline import Timeline, timeline_of
from runnable_ci.analysis.states import State, state_of, step_edges
from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.branches.labels import is_only_branches, labels_of
from runnable_ci.runs.branches.metrics import instance_metrics
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.listing.summary import by_shown_name, made_for
from runnable_ci.runs.model import FAIL, CatalogEntry, Parameter, RunLog, StepAttempt, StepLog
from runnable_ci.runs.notes.notes_model import note_annotations
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import format_duration, format_size, format_time, listed, pluralize, truncate

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
_NAMES_MAX = 30
FILES_MAX = 100
"""Of one step; and of all steps twenty times as many."""
ATTEMPTS_MAX = 20
"""Of one step, the newest."""
PACKAGES_MAX = 1000
OPEN_MAX = 3
"""Failed steps that are open when the page is."""


@dataclass(frozen=True, slots=True)
class FoundForPage:
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
class ShownAttempt:
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
    not_seen: str


@dataclass(frozen=True, slots=True)
class ShownFile:
    """A file of a step."""

    name: str
    stage: str
    size: str
    sha256: str
    preview: Preview | None


@dataclass(frozen=True, slots=True)
class ShownStep:
    """One step."""

    place: int
    label: str
    state: State
    mark: str
    took: str
    attempts: Sequence[ShownAttempt]
    reason: str
    command: str
    files: Sequence[ShownFile]
    files_left_out: int
    attempts_left_out: int
    is_open: bool


@dataclass(frozen=True, slots=True)
class Page:
    """The page."""

    title: str
    state: str
    state_text: str
    mark: str
    message: str
    facts: Sequence[Pair]
    counts: Sequence[tuple[str, int]]
    """State → number of steps."""
    failures: Sequence[ShownFailure]
    failures_left_out: int
    resume: str
    """The command that resumes the run; empty where nothing is left to do."""
    metrics: Sequence[Metric]
    parameters: Sequence[Pair]
    steps: Sequence[ShownStep]
    graph: Graph | None
    timeline: Timeline | None
    invocations: Sequence[Sequence[str]]
    """The first row is the head."""
    code: Sequence[Pair]
    dirty: str
    dirty_note: str
    environment: Sequence[Pair]
    machines: Sequence[ShownMachine]
    packages: Sequence[tuple[str, str]]
    packages_left_out: int
    comparison: RunComparison | None
    other_note: str


def page_of(log: RunLog, found: FoundForPage, needs: Mapping[str, Sequence[str]] | None = None) -> Page:
    """Return what the page of a run shows."""
    labels = labels_of(log.steps)
    names = [name for name, step in log.steps.items() if not is_only_branches(step)]
    states = {name: state_of(log, name) for name in log.steps}
    places = {name: place for place, name in enumerate(names)}
    steps = _steps(log, names, labels, states, found)
    failures = failures_of(log, labels, places)
    environment = newest_environment(log)
    outcome = log.outcome or ("succeeded" if log.status == "SUCCESS" else "running")
    return Page(
        title=f"{log.name or 'run'} {log.run_id}",
        state=outcome,
        state_text=outcome.replace("_", " "),
        mark=MARKS.get(outcome, "…"),
        message=log.message,
        facts=_facts(log),
        counts=_counts(steps),
        failures=failures[:FAILURES_MAX],
        failures_left_out=max(0, len(failures) - FAILURES_MAX),
        resume=command("retry", log.run_id) if log.status == FAIL else "",
        metrics=metrics_of(log.metrics() | by_shown_name(instance_metrics(log)), found.comparison, found.plots),
        parameters=bounded([_parameter(name, one) for name, one in log.parameters.items()], 5 * _NAMES_MAX),
        steps=steps,
        graph=_graph(log, labels, states, places, needs),
        timeline=timeline_of(log, labels, states, machine_names(log)),
        invocations=invocation_table(log),
        code=code_of(log),
        dirty=found.dirty,
        dirty_note=found.dirty_note,
        environment=environment_of(environment),
        machines=machines_of(log),
        packages=sorted(environment.packages.items())[:PACKAGES_MAX],
        packages_left_out=max(0, len(environment.packages) - PACKAGES_MAX),
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
    shown = {name: _with_number(log.steps.get(name), labels.get(name, name)) for name in edges}
    first: dict[str, int] = {}
    for name, place in places.items():  # branches have no node of their own: that of their step leads to the first one
        first.setdefault(name.partition(".")[0], place)
    whole = {name: states.get(name) or state_of(log, name) for name in edges}
    return graph_of(edges, shown, whole, first)


def _with_number(step: StepLog | None, label: str) -> str:
    """Return the text of a node: of a step with branches how many these are."""
    if step is None or not step.instances:
        return label
    if step.step_type == "loop":
        return f"{label}, {pluralize(len(step.instances), 'round')}"
    return label if len(step.instances) < 2 else f"{len(step.instances)} of {label}"


def _counts(steps: Sequence[ShownStep]) -> list[tuple[str, int]]:
    numbers: dict[str, int] = {}
    for step in steps:
        numbers[step.state] = numbers.get(step.state, 0) + 1
    return [(state, numbers[state]) for state in MARKS if state in numbers]


def _facts(log: RunLog) -> list[Pair]:
    code = log.code()
    last = log.invocations[-1] if log.invocations else None
    facts = {
        "Tag": log.tag,
        "Made for": made_for(note_annotations(log.notes, log.reproduction, log.made_from)),
        "Started": f"{format_time(log.start_time)} UTC" if log.start_time else "",
        "Took": format_duration(log.seconds()) or ("" if log.end_time else "still running"),
        "By": last.actor if last else "",
        "Branch": code.ref if code else "",
        "Commit": code.code_identifier[:12] if code and code.code_identifier_type == "git" else "",
        "Work tree": "" if code is None or code.code_identifier_dependable else "with changes that had no commit",
    }
    return pairs(facts)


def _steps(
    log: RunLog, names: Sequence[str], labels: Mapping[str, str], states: Mapping[str, State], found: FoundForPage
) -> list[ShownStep]:
    steps: list[ShownStep] = []
    room = 20 * FILES_MAX
    opened = 0
    for place, name in enumerate(names):
        files = min(FILES_MAX, room)
        opened += states[name] == "failed"
        is_open = states[name] == "failed" and opened <= OPEN_MAX
        steps.append(_step(log, name, place, labels[name], states[name], found, files, is_open))
        room -= len(steps[-1].files)
    return steps


def _step(
    log: RunLog, name: str, place: int, label: str, state: State, found: FoundForPage, files: int, is_open: bool
) -> ShownStep:
    step = log.steps[name]
    last = step.attempts[-1] if step.attempts else None
    decision = decisions_of(log).get(name)
    return ShownStep(
        place=place,
        label=label,
        state=state,
        mark=MARKS[state],
        took=format_duration(last.seconds) if last else "",
        attempts=[_attempt(step, one, found) for one in reversed(step.attempts[-ATTEMPTS_MAX:])],
        reason=f"{decision.action}: {decision.reason}" if decision else "",
        command=command_of(last) if last else "",
        files=[_file(name, entry, found) for entry in _shown_first(name, step.data_catalog, found)[:files]],
        files_left_out=max(0, len(step.data_catalog) - files),
        attempts_left_out=max(0, len(step.attempts) - ATTEMPTS_MAX),
        is_open=is_open,
    )


def _shown_first(step: str, entries: Sequence[CatalogEntry], found: FoundForPage) -> list[CatalogEntry]:
    """Return the files of a step: those that it made and of which something is shown, the others it made, the rest."""
    return sorted(entries, key=lambda entry: (entry.stage != "put", (step, entry.name) not in found.previews))


def _attempt(step: StepLog, one: StepAttempt, found: FoundForPage) -> ShownAttempt:
    title = f"{step.name}.{one.attempt_number}"
    output, note = found.outputs.get(title, (Markup(""), ""))
    exception = one.exception
    facts = {
        "Exit code": "" if one.exit_code is None else str(one.exit_code),
        "Executor": one.executor,
        "Waited for a worker": format_duration(one.waited_s) if one.waited_s else "",
        "Resources": str(one.resources or ""),
        "Taken from": one.taken_from,
        "Resumed from": f"what attempt {one.checkpoint_used.attempt} kept" if one.checkpoint_used else "",
        "First made by": one.taken_by,
        "Code": listed(f"{it.code_identifier_type} {it.code_identifier[:12]}" for it in one.code_identities),
    }
    returned = one.output_parameters | one.user_defined_metrics
    return ShownAttempt(
        number=one.attempt_number,
        state=one.outcome or "running",
        started=f"{format_time(one.start_time)} UTC",
        took=format_duration(one.seconds),
        reason=one.reason,
        message=one.message,
        traceback=exception.traceback if exception else "",
        facts=pairs(facts),
        given=bounded(
            [_parameter(name, p, one.consumed) for name, p in one.input_parameters.items() if _is_used(one, name)]
        ),
        returned=bounded([_parameter(name, value) for name, value in returned.items()]),
        read=_reads(found.reads.get(title)),
        output=output,
        output_note=note,
        not_seen=one.not_seen,
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
    return [Pair(f"{kind}: {len(names)}", listed(names, at_most=_NAMES_MAX)) for kind, names in kinds.items() if names]


def _file(step: str, entry: CatalogEntry, found: FoundForPage) -> ShownFile:
    shown = found.previews.get((step, entry.name)) if entry.stage == "put" else None
    return ShownFile(entry.name, entry.stage, format_size(entry.size), entry.data_hash, shown)


def _parameter(name: str, one: Parameter, consumed: Mapping[str, str] | None = None) -> Pair:
    value = f"{one.object_type or 'object'}, sha256 {one.data_hash[:12]}" if one.kind == "object" else _text(one.value)
    is_possible = consumed is not None and consumed.get(name) == "possible"
    return Pair(name, value, "may have been read" if is_possible else "")


def _text(value: Any) -> str:
    return truncate(value, _VALUE_MAX)
