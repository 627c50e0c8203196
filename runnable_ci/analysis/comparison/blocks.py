"""What all who show a comparison say, in the order in which it matters: only what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from runnable_ci.analysis.comparison.endings import ended_in_words
from runnable_ci.analysis.comparison.model import (
    LISTED,
    CodeComparison,
    MetricChange,
    RunComparison,
    RunDifference,
    RunFacts,
    StepComparison,
)
from runnable_ci.analysis.comparison.wording import how, noun_of, shown
from runnable_ci.analysis.history.query import shown_status
from runnable_ci.runs.model import PROCESSING
from runnable_ci.util.text import as_pair, format_duration, format_time, listed, pluralize

ROWS_MAX: Final = 20
"""Of one kind; the JSON has all."""
FURTHER_MAX: Final = 5
_SLOWER_S: Final = 1.0
_SLOWER: Final = 0.1


@dataclass(frozen=True, slots=True)
class Block:
    """A heading and a table below it."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0
    """Rows that are not shown."""


def headlines(found: RunComparison) -> list[str]:
    """Return what matters most, a sentence each: the first difference, and others that do not follow from it."""
    unfinished = _unfinished(found)
    if found.first is None:
        return unfinished or [_nothing_diverges(found)]
    others = [f"also: {one.explanation}" for one in found.further[:FURTHER_MAX]]
    more = len(found.further) - len(others)
    others += [f"… and {more} more"] if more else []
    return [f"first difference: {found.first.explanation}", *others, *unfinished]


def _unfinished(found: RunComparison) -> list[str]:
    runs = [name for name, one in zip(found.names, (found.a, found.b), strict=True) if one.status == PROCESSING]
    verb = "are" if len(runs) > 1 else "is"
    return [f"{' and '.join(runs)} {verb} in progress: only steps that are over are compared"] if runs else []


def _nothing_diverges(found: RunComparison) -> str:
    if not found.differs and not found.code.differs:
        printed = _printed_otherwise(found)
        return f"nothing differs that was recorded, but for times{printed and f', and {printed}'}"
    ended = [one for one in found.steps if one.in_a != one.in_b]
    if ended:
        names = listed(f"`{one.label}`" for one in ended)
        return f"{names} ended otherwise, or ran in one of the runs only"
    same = "the files, values and metrics of both runs are the same, though what they were made from differs"
    return "; ".join(filter(None, (same, _printed_otherwise(found))))


def _printed_otherwise(found: RunComparison) -> str:
    """Return which steps printed another text, or ran on another machine."""
    words = {"output": "printed another text", "machine": "ran on another machine"}
    said = []
    for kind, what in words.items():
        names = [f"`{one.label}`" for one in found.steps if any(it.kind == kind for it in (*one.inputs, *one.outputs))]
        said += [f"{listed(names)} {what}"] * bool(names)
    return ", and ".join(said)


def blocks(found: RunComparison) -> Iterator[Block]:
    """Yield the parts of a comparison in which something differs."""
    labels = {one.name: one.label for one in found.steps}
    made = [
        _block("metrics", ("METRIC", "A", "B", "CHANGE"), map(metric_row, metrics_shown(found, found.metrics))),
        _block("values", ("PARAMETER", "A", "B"), map(_row, found.parameters)),
        _block("pipeline", ("PIPELINE", "DIFFERENCE"), (_short_row(one, found.names) for one in found.pipeline)),
        _block("code", ("CODE", "DIFFERENCE"), _code_rows(found.code, found.names)),
        _block("commits", ("COMMITS", "SUBJECT"), _commit_rows(found.code)),
        _block("environment", ("ENVIRONMENT", "A", "B"), map(_row, found.environment)),
        _block("steps", ("STEP", "", "WHAT", "A", "B"), (row for one in found.steps for row in step_rows(one, labels))),
        _block("durations", ("DURATION", "A", "B", "CHANGE"), _duration_rows(found.steps)),
    ]
    yield from (one for one in made if one.rows)


def _block(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Block:
    found = [*rows]
    return Block(title, head, found[:ROWS_MAX], max(0, len(found) - ROWS_MAX))


def facts_line(run: RunFacts) -> str:
    """Return a run in one line."""
    code = f"{run.commit[:12]}{' (dirty)' if run.dirty else ''}" if run.commit else "no commit"
    parts = [
        f"{run.run_id}  {shown_status(run.status)}",
        f"{format_time(run.start_time)} UTC",
        format_duration(run.seconds),
        " ".join(filter(None, (run.ref, code))),
        run.actor and f"by {run.actor}",
        run.where,
    ]
    return ", ".join(filter(None, parts))


def metrics_shown(found: RunComparison, metrics: Iterable[MetricChange]) -> list[MetricChange]:
    """Return some of a comparison's metrics with those of instances that differ, each after its metric.

    What a matrix gave as a list is left out where its instances' own values are known.
    """
    inner: dict[str, list[MetricChange]] = {}
    for one in found.instance_metrics:
        inner.setdefault(one.name, []).append(one)
    own = [one for one in metrics if one.name not in inner or not isinstance(one.after or one.before, list)]
    shown = [each for one in own for each in (one, *_different(inner.pop(one.name, ())))]
    return [*shown, *(one for left in inner.values() for one in _different(left))]


def _different(metrics: Iterable[MetricChange]) -> list[MetricChange]:
    return [one for one in metrics if one.before != one.after]


def metric_row(one: MetricChange) -> tuple[str, ...]:
    """Return a metric with its change."""
    change = "" if one.change is None else f"{one.change:+.6g}"
    change += "" if one.relative is None else f" ({one.relative:+.1%})"
    return shown_name(one), *_cells(one.before, one.after), change


def shown_name(one: MetricChange) -> str:
    """Return how a metric is called, such as `score` or `score: train (gut)`."""
    return f"{one.name}: {one.instance}" if one.instance else one.name


def _cells(before: object, after: object) -> tuple[str, str]:
    return as_pair(before, after, shown=lambda value: "-" if value is None else shown(value))


def _row(one: RunDifference) -> tuple[str, ...]:
    if one.kind == "read":
        return one.name, *_by_content(one)
    name = f"{one.name} ({one.note})" if one.note else one.name
    return name, *_cells(one.before, one.after)


def _by_content(one: RunDifference) -> tuple[str, str]:
    if one.note == LISTED:
        return ("not listed", "listed") if one.change == "added" else ("listed", "not listed")
    then, now = ("-" if value is None else f"sha256:{str(value)[:12]}" for value in (one.before, one.after))
    return then, now


def _short_row(one: RunDifference, names: tuple[str, str]) -> tuple[str, ...]:
    return one.name, how(one, names)


def _code_rows(code: CodeComparison, names: tuple[str, str]) -> Iterator[tuple[str, ...]]:
    if code.not_known:
        yield "", f"files were not compared: {code.not_known}"
    yield from (_short_row(one, names) for one in code.files)
    for run, dirty in zip(names, (code.dirty_a, code.dirty_b), strict=True):
        if dirty and code.dirty_a != code.dirty_b:
            yield "", f"{run} had changes without a commit: {dirty}"


def _commit_rows(code: CodeComparison) -> Iterator[tuple[str, ...]]:
    for sign, commits in (("+", code.commits), ("-", code.commits_back)):
        for commit in commits:
            sha, _, subject = commit.partition(" ")
            yield f"{sign} {sha}", subject


def step_rows(one: StepComparison, labels: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield what differs of a step: how it ended, what it was made from, what it gave; `labels` are those of all."""
    if one.in_a != one.in_b:
        ended = (ended_in_words(how) or "-" for how in (one.in_a, one.in_b))
        yield one.label, "ended", "; ".join(dict.fromkeys(filter(None, (one.why_a, one.why_b)))), *ended
    for sign, differences in (("from", one.inputs), ("gave", one.outputs)):
        for found in differences:
            if found.kind == "ended" and found.name == "outcome":
                continue  # said above
            maker = found.made_by and f"by {_maker(found.made_by, one.name, labels)}"
            note = maker if found.note in ("", LISTED) else found.note
            what = f"{noun_of(found)}{f' ({note})' if note else ''}"
            cells = _by_content(found) if _is_content(found) else _cells(found.before, found.after)
            yield one.label, sign, what, *cells


def _maker(name: str, step: str, labels: Mapping[str, str]) -> str:
    """Return how people know what made a thing: a step, or all branches of one for who is in none of them."""
    group = name.partition(".")[0]
    return labels.get(name, name) if group in (name, step.partition(".")[0]) else group


def _is_content(one: RunDifference) -> bool:
    return one.kind in ("code", "read", "file", "output", "variable")


def _duration_rows(steps: Iterable[StepComparison]) -> Iterator[tuple[str, ...]]:
    for one in steps:
        a, b = one.seconds_a, one.seconds_b
        if one.is_same_attempt or a is None or b is None:
            continue
        if abs(b - a) > _SLOWER_S and abs(b - a) > _SLOWER * max(a, b):
            change = f"{(b - a) / a:+.0%}" if a else ""
            yield one.label, format_duration(a), format_duration(b), change


def same_line(found: RunComparison) -> str:
    """Return how many steps are the same."""
    same = [one for one in found.steps if not one.differs]
    taken = sum(one.is_same_attempt for one in same) if found.a.run_id != found.b.run_id else 0
    words = f"{pluralize(len(same), 'step')} of {len(found.steps)} the same"
    return f"{words}, {taken} of them by reuse" if taken else words
