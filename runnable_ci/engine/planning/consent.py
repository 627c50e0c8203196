"""What a retry needs a person's word for: hours of finished work repeated, or reused though something differs. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, get_args

from runnable_ci.engine.planning.plan import Plan
from runnable_ci.engine.provenance.changes import Acceptance, Change, Kind
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import groups_of
from runnable_ci.runs.model import SUCCESS, RunLog
from runnable_ci.runs.run_identity import is_after
from runnable_ci.util.text import format_duration

_KINDS = frozenset[Kind](get_args(Kind))


@dataclass(frozen=True, slots=True)
class Acceptances:
    """Which changes of finished steps were accepted, now or in earlier retries."""

    steps: Mapping[str, frozenset[Kind]]
    """Step → what of it is accepted now, whatever it is."""
    word: Acceptance
    remembered: Mapping[tuple[str, str], Acceptance]
    """Step and digest of a change → who accepted it earlier."""

    def find(self, step: str, change: Change) -> Acceptance | None:
        """Return who accepted a change of a step, if anybody did."""
        if any(change.kind in self.steps.get(name, ()) for name in (step, *groups_of(step))):
            return self.word
        return self.remembered.get((step, change.digest()))


def acceptances(
    accept: Iterable[str], reason: str, *, by: str, pipeline: Pipeline, log: RunLog, forced: Mapping[str, str]
) -> Acceptances:
    """Return what is accepted by `accept`, each `STEP`, `STEP:code` or `STEP:data`, and by the log.

    Raises `UsageError` for a step that cannot be reused, and where the reason is missing or is one for nothing.
    """
    steps: dict[str, frozenset[Kind]] = {}
    for word in accept:
        step, kinds = _parse(word, pipeline, log)
        past = log.steps.get(step)
        if past is None or past.status != SUCCESS or (past.attempts and past.attempts[-1].status != SUCCESS):
            raise UsageError(f"--accept {word}: the last attempt at the step has not succeeded: there is no result")
        if step in forced:
            raise UsageError(f"--accept {word}: {forced[step]} runs the step again", hint="give one of the two")
        steps[step] = steps.get(step, frozenset()) | kinds
    reason = " ".join(reason.split())
    if steps and not reason:
        raise UsageError(
            "--accept needs a reason, which is kept in the run log", hint='such as --reason "comments only"'
        )
    if reason and not steps:
        raise UsageError("--reason is for --accept, which names a step")
    return Acceptances(steps, Acceptance(by, reason), _remembered(log))


def without_effect(accept: Iterable[str], plan: Plan, pipeline: Pipeline, log: RunLog) -> list[str]:
    """Return a note for each word of `accept` that changes nothing: its step runs nevertheless, or is reused anyway."""
    notes = []
    for word in accept:
        step, _ = _parse(word, pipeline, log)
        decisions = [it for name, it in plan.decisions.items() if step in (name, *groups_of(name))]
        if decisions and all(it.acceptance is None and not it.is_tentative for it in decisions):
            happens = {"run": "the step runs", "reuse": "the step is reused anyway", "skip": "the step is skipped"}
            first = decisions[0]
            notes.append(f"note: --accept {word} has no effect: {happens[first.action]} ({first.reason})")
    return notes


def _parse(word: str, pipeline: Pipeline, log: RunLog) -> tuple[str, frozenset[Kind]]:
    from runnable_ci.engine.planning.named_steps import step_of  # only who accepts something needs it
    from runnable_ci.runs.branches.labels import labels

    named, colon, kind = word.rpartition(":")
    if not colon or word in labels(log):  # of an instance it may have one
        named, colon, kind = word, "", ""
    step = step_of(named, pipeline, log, f"--accept {word}: {pipeline.file} has no step `{named}`")
    kinds = frozenset(known for known in _KINDS if not colon or known == kind)
    if not kinds:
        raise UsageError(f"--accept {word}: `{kind}` is no kind of change", hint="one of code, data; or the step alone")
    return step, kinds


def _remembered(log: RunLog) -> dict[tuple[str, str], Acceptance]:
    """Return what was accepted since the last attempt at each step: another attempt has seen what differs."""
    since = {name: step.attempts[-1].invocation for name, step in log.steps.items() if step.attempts}
    return {
        (name, digest): Acceptance(decision.accepted_by, decision.accepted_reason)
        for invocation in log.invocations
        for name, decision in invocation.decisions.items()
        if decision.accepted_changes and name in since and is_after(log, invocation.number, since[name])
        for digest in decision.accepted_changes
    }


class RepeatedWork(NamedTuple):
    """Finished work that a retry would do again though nobody asked for that."""

    seconds: Mapping[str, float]
    """Step → how long its last attempt took."""
    to_accept: Sequence[str]
    """The steps that would have to be accepted to reuse all of them."""

    @property
    def total_s(self) -> float:
        """How long all of it took."""
        return sum(self.seconds.values())

    def __str__(self) -> str:
        steps = ", ".join(f"`{name}` ({format_duration(seconds)})" for name, seconds in self.seconds.items())
        return f"{format_duration(self.total_s)} of finished work: {steps}"


def finished_seconds(log: RunLog) -> float:
    """Return how long all finished work of a run took: no plan repeats more."""
    last = (step.attempts[-1] for step in log.steps.values() if step.attempts)
    return sum(one.seconds or 0.0 for one in last if one.status == SUCCESS)


def repeated_work(plan: Plan, log: RunLog, *, agreed: Container[str | None] = ()) -> RepeatedWork:
    """Return what a plan repeats of what had succeeded.

    What the person asked for does not count, nor what runs for a kind of change that was `agreed` to, nor do steps that
    only wait for such ones.
    """
    requested: set[str] = set()
    seconds: dict[str, float] = {}
    to_accept: list[str] = []
    for name in plan.running:
        decision = plan.decisions[name]
        causes = {need for need in plan.pipeline.steps[name].needs if need in plan.running}
        is_requested = decision.is_requested or decision.kind in agreed
        if is_requested or (decision.is_tentative and causes <= requested):
            requested.add(name)
            continue
        past = log.steps.get(name)
        if past is None or not past.attempts or past.attempts[-1].status != SUCCESS:
            continue
        last = past.attempts[-1]
        seconds[name] = last.seconds or 0.0
        if not decision.is_lost and (not decision.is_tentative or causes - seconds.keys()):
            to_accept.append(name)
    shown = {name: plan.pipeline.steps[name].shown for name in seconds}
    return RepeatedWork({shown[name]: took for name, took in seconds.items()}, [shown[name] for name in to_accept])
