"""Two runs compared, step by step. Pure: what it needs of a store was read before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from runnable_ci.analysis.comparison.attempts import (
    Attempted,
    environment_facts,
    input_differences,
    machine_facts,
    not_seen,
    output_differences,
    table_differences,
)
from runnable_ci.analysis.comparison.causes import first_divergence, further_divergences
from runnable_ci.analysis.comparison.endings import why_not_succeeded
from runnable_ci.analysis.comparison.model import (
    A_AND_B,
    RUNNING,
    CodeComparison,
    MetricChange,
    RunComparison,
    RunDifference,
    RunFacts,
    StepComparison,
)
from runnable_ci.analysis.facts import is_number, newest_environment
from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.branches.labels import is_only_branches, labels_of
from runnable_ci.runs.branches.metrics import instance_metrics
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import PROCESSING, RunLog, StepAttempt, StepLog


@dataclass(frozen=True, slots=True)
class RunRead:
    """A run, read for a comparison."""

    log: RunLog
    where: str = ""
    """The registry it was read from; empty for the store here."""
    reads: Mapping[str, ReadSet] = field(default_factory=dict)
    """Step → what its last attempt read, where that was seen and is known."""

    def facts(self) -> RunFacts:
        """Return which run it is."""
        log = self.log
        code = log.code()
        last = log.invocations[-1] if log.invocations else None
        return RunFacts(
            run_id=log.run_id,
            name=log.name,
            status=log.status,
            outcome=log.outcome,
            start_time=log.start_time,
            seconds=log.seconds(),
            commit=code.code_identifier if code and code.code_identifier_type == "git" else "",
            ref=code.ref if code else "",
            dirty=bool(code and not code.code_identifier_dependable),
            actor=last.actor if last else "",
            tag=log.tag,
            where=self.where,
        )


def compare(a: RunRead, b: RunRead, code: CodeComparison, names: tuple[str, str] = A_AND_B) -> RunComparison:
    """Return what differs between two runs, whose `code` was compared already; sentences call them by `names`."""
    steps = tuple(_steps(a, b, code, names))
    metrics = tuple(_metrics(a.log.metrics(), b.log.metrics()))
    return RunComparison(
        a=a.facts(),
        b=b.facts(),
        first=first_divergence(steps, names),
        further=further_divergences(steps, names),
        code=code,
        pipeline=tuple(_pipeline(a.log, b.log)),
        parameters=tuple(table_differences("value", *(_begun_with(run.log) for run in (a, b)))),
        environment=tuple(_environments(a.log, b.log)),
        steps=steps,
        metrics=tuple(one for one in metrics if one.before != one.after),
        all_metrics=metrics,
        instance_metrics=tuple(_instance_metrics(a.log, b.log)),
        names=names,
    )


def _begun_with(log: RunLog) -> dict[str, Any]:
    return log.invocations[-1].parameters if log.invocations else {}


def _environments(a: RunLog, b: RunLog) -> Iterator[RunDifference]:
    """Yield what differs between the environments of the steps that ran in both runs, each difference once.

    Steps have different ones: a shell step has the `python` on PATH, a python step that of the pipeline.
    """
    keys = dict.fromkeys((_environment_key(a, name), _environment_key(b, name)) for name in b.steps)
    pairs = [
        (a.environments[then], b.environments[now])
        for then, now in keys
        if then in a.environments and now in b.environments
    ]
    newest = (newest_environment(a), newest_environment(b))
    found: list[RunDifference] = []
    for pair in pairs or [newest]:
        found += [one for one in _whole_environment(*pair) if one not in found]
    yield from found


def _environment_key(log: RunLog, step: str) -> str:
    attempts = log.steps[step].attempts if step in log.steps else ()
    return attempts[-1].environment if attempts else ""


def _whole_environment(then: Environment, now: Environment) -> Iterator[RunDifference]:
    if then.interpreter_version and now.interpreter_version:
        yield from table_differences(
            "interpreter", {"python": then.interpreter_version}, {"python": now.interpreter_version}
        )
    if then.packages and now.packages:
        yield from table_differences("package", then.packages, now.packages)
    yield from table_differences("variable", then.variables, now.variables)
    yield from table_differences("read", then.lock_files, now.lock_files)
    yield from environment_facts("platform", then, now)
    yield from machine_facts(then, now)


def _pipeline(a: RunLog, b: RunLog) -> Iterator[RunDifference]:
    """Yield the steps that only one run has, and those that wait for others."""
    names = [_in_pipeline(log) for log in (a, b)]
    for name in [*names[1], *(name for name in names[0] if name not in names[1])]:
        if name not in names[0]:
            if not _is_cut_short(a):
                yield RunDifference("step", name, "added")
        elif name not in names[1]:
            if not _is_cut_short(b):
                yield RunDifference("step", name, "removed")
        else:
            then, now = (_needs(log.steps[name]) for log in (a, b))
            if then is not None and now is not None and then != now:
                yield RunDifference("needs", name, "changed", then, now)


def _is_cut_short(log: RunLog) -> bool:
    """Return whether a run did not come to all of its steps, so that these are not known."""
    return log.interrupted or not log.end_time


def _needs(step: StepLog) -> list[str] | None:
    return step.attempts[-1].definition.get("needs") if step.attempts else None


def _in_pipeline(log: RunLog) -> list[str]:
    """Return the steps that the newest invocation knew, those of branches left out."""
    decided = log.invocations[-1].decisions if log.invocations and log.end_time else {}
    return [name for name in log.steps if "." not in name and (not decided or name in decided)]


def _steps(a: RunRead, b: RunRead, code: CodeComparison, names: tuple[str, str]) -> Iterator[StepComparison]:
    labels = labels_of(a.log.steps) | labels_of(b.log.steps)
    around = [_around(run.log) for run in (a, b)]
    places = [{name: at for at, name in enumerate(run.log.steps)} for run in (a, b)]
    gone = [name for name in a.log.steps if name not in b.log.steps]
    for name in [*b.log.steps, *gone]:
        steps = [run.log.steps.get(name) for run in (a, b)]
        if any(step is not None and is_only_branches(step) for step in steps):
            continue  # its branches are compared
        last = [step.attempts[-1] if step and step.attempts else None for step in steps]
        ended = [_ended(run.log, step) for run, step in zip((a, b), steps, strict=True)]
        inputs: tuple[RunDifference, ...] = ()
        outputs: tuple[RunDifference, ...] = ()
        hidden = ""
        is_same = all(last) and _origin(a.log, name, last[0]) == _origin(b.log, name, last[1])
        if steps[0] and steps[1] and last[0] and last[1] and not is_same and RUNNING not in ended:
            tried = [
                Attempted(
                    step,
                    attempt,
                    run.log.environments.get(attempt.environment, Environment()),
                    run.reads.get(name),
                    maker=(maker := _maker_for(name, places[at][name], around[at][0])),
                    waits_for=waits_for(run.log, name),
                    giver=_maker_for(name, places[at][name], around[at][1]),
                    content=_content_in(run, at, code, maker),
                    begun_with=_begun_with(run.log),
                )
                for at, (run, step, attempt) in enumerate(((a, steps[0], last[0]), (b, steps[1], last[1])))
            ]
            inputs, outputs = input_differences(*tried), output_differences(*tried)
            hidden = not_seen(tried[0], tried[1], names)
        seconds = [one.seconds if one else None for one in last]
        whys = [why_not_succeeded(run.log, name) if how else "" for run, how in zip((a, b), ended, strict=True)]
        yield StepComparison(
            name,
            labels[name],
            ended[0],
            ended[1],
            is_same_attempt=bool(is_same),
            inputs=inputs,
            outputs=outputs,
            not_seen=hidden,
            seconds_a=seconds[0],
            seconds_b=seconds[1],
            why_a=whys[0],
            why_b=whys[1],
        )


def _origin(log: RunLog, name: str, attempt: StepAttempt | None) -> tuple[str, str] | None:
    """Return what tells an attempt from all others, wherever its result was taken to."""
    if attempt is None:
        return None
    identity = log.invocations[0].identity if log.invocations else log.run_id
    return (
        (attempt.taken_from, "") if attempt.taken_from else (f"{log.run_id}/{name}.{attempt.attempt_number}", identity)
    )


def _ended(log: RunLog, step: StepLog | None) -> str:
    if step is None:
        return "skipped" if log.interrupted else ""
    if not step.attempts or step.outcome == "":
        return RUNNING if step.attempts and step.attempts[-1].status == PROCESSING else "skipped"
    return step.outcome


def _content_in(
    run: RunRead, at: int, code: CodeComparison, maker: Callable[[str], str]
) -> Callable[[str], str | None]:
    """Return what tells the sha256 of a file in one of two runs, as far as it is known; empty where there is none.

    `at` tells which of the two it is, `maker` which step made a file.
    """

    def content(path: str) -> str | None:
        if made_by := maker(path):
            return next(e.data_hash for e in run.log.steps[made_by].put_entries() if e.name == path)
        for one in code.files:
            if one.name == path:
                known = (one.before, one.after)[at]
                return known or ("" if one.change == ("added", "removed")[at] else None)
        in_files = (reads.files[path].digest for reads in run.reads.values() if path in reads.files)
        outside = (reads.outside[path] for reads in run.reads.values() if path in reads.outside)
        return next(chain(in_files, outside), None) or None

    return content


_Makers = dict[str, list[tuple[int, str]]]
"""What was made → by which steps, with their places in the run."""


def _around(log: RunLog) -> tuple[_Makers, _Makers]:
    """Return which steps made which file, and which gave which value."""
    files, values = _Makers(), _Makers()
    for at, (name, step) in enumerate(log.steps.items()):
        for entry in step.put_entries():
            files.setdefault(entry.name, []).append((at, name))
        for attempt in step.attempts[-1:]:
            for value in {**attempt.output_parameters, **attempt.user_defined_metrics}:
                values.setdefault(value, []).append((at, name))
    return files, values


def _maker_for(step: str, place: int, makers: _Makers) -> Callable[[str], str]:
    """Return what tells which step made a thing that a step received; not that step, nor a later round of its loop."""
    group = step.partition(".")[0]

    def maker(thing: str) -> str:
        found = makers.get(thing, ())
        return next((name for at, name in reversed(found) if at < place or name.partition(".")[0] != group), "")

    return maker


def waits_for(log: RunLog, name: str) -> Callable[[str], bool]:
    """Return what tells whether a step begins only once another one is over; yes where that is not known."""
    waiting, found = [name.partition(".")[0]], set[str]()
    while waiting:
        step = log.steps.get(one := waiting.pop())
        needs = _needs(step) if step else []
        if needs is None:  # only its branches were run
            return lambda _other: True
        found.add(one)
        waiting += set(needs) - found
    return lambda other: other.partition(".")[0] in found


def _instance_metrics(a: RunLog, b: RunLog) -> Iterator[MetricChange]:
    before, after = instance_metrics(a), instance_metrics(b)
    for metric in dict.fromkeys((*after, *before)):
        for one in _metrics(before.get(metric, {}), after.get(metric, {})):
            yield replace(one, name=metric, instance=one.name)


def _metrics(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[MetricChange]:
    for name in [*after, *(name for name in before if name not in after)]:
        then, now = before.get(name), after.get(name)
        change = relative = None
        if is_number(then) and is_number(now):
            change, relative = _change(then, now)
        yield MetricChange(name, then, now, change, relative)


def _change(then: float, now: float) -> tuple[float | None, float | None]:
    """Return the change, and that by the value before; None for what is too large for any number."""
    try:
        change = now - then
        relative = change / abs(then) if then else None
    except OverflowError:
        return None, None
    return (change if is_number(change) else None), (relative if is_number(relative) else None)
