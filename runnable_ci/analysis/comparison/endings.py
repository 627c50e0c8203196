"""Why a step did not succeed in a run: its own cause, or the step before it that had one. Pure."""

from __future__ import annotations

import re
from typing import Final

from runnable_ci.runs.branches.labels import labels_of
from runnable_ci.runs.model import SUCCESS, RunLog, StepLog

_WORDS: Final = {"timed_out": "timed out", "cancelled": "was cancelled", "interrupted": "was interrupted"}
_BEFORE: Final = re.compile(r"`([^`]+)` was skipped", re.DOTALL)
_FOLLOWS: Final = re.compile(
    r"`.+` (?:failed|was cancelled|was interrupted)|`.+` was skipped.*|`.+`, .* was skipped", re.DOTALL
)
EXTERNAL: Final = frozenset({"cancelled", "interrupted"})
"""Endings that came from outside, whatever the step was made from."""
_KILLED: Final = re.compile(r"ended by SIG|(?:timed out )?after [\d.]+ min")


def ended_in_words(ended: str) -> str:
    """Return how a step ended as a verb in the past, such as `timed out`."""
    return {**_WORDS, "skipped": "was skipped", "running": "was running"}.get(ended, ended)


def short_why(why: str) -> str:
    """Return why a step did not succeed as it follows on how it ended: `timed out in B: after 5 min`."""
    return re.sub(r"^(?:interrupted: |cancelled (?=by )|timed out (?=after ))", "", why)


def was_killed(why: str) -> bool:
    """Return whether something ended a step that might have succeeded: a signal, or its time was over."""
    return _KILLED.search(why) is not None


def follows_another(why: str) -> bool:
    """Return whether a step was skipped for what became of another one, or of the run, and not by its own condition."""
    return _FOLLOWS.fullmatch(why) is not None or why.startswith("the run was cancelled")


def why_not_succeeded(log: RunLog, name: str) -> str:
    """Return why a step of a run did not succeed, in a few words; empty where it did, or still runs."""
    step = log.steps.get(name)
    if step is None:
        return _not_reached(log)
    if not step.attempts or step.outcome == "":
        return _why_skipped(log, step)
    last = step.attempts[-1]
    if last.status == SUCCESS:
        return ""
    if last.outcome == "cancelled" and log.outcome == "cancelled":
        return log.message or last.message
    error = last.exception
    return last.message or (f"{error.type}: {error.message}" if error else "")


def _not_reached(log: RunLog) -> str:
    if not log.interrupted:
        return ""
    labels = labels_of(log.steps)
    ended = [labels[name] for name, step in log.steps.items() if step.outcome == "interrupted"]
    return f"`{ended[0]}` was interrupted" if ended else log.message


def _why_skipped(log: RunLog, step: StepLog) -> str:
    """Return why a step was skipped; where that is since another one was, why that was."""
    named = {label: name for name, label in labels_of(log.steps).items()}
    why = step.message
    for _ in log.steps:
        before = _BEFORE.fullmatch(why)
        found = log.steps.get(named.get(before[1], "")) if before else None
        if found is None or not found.message:
            break
        if not follows_another(found.message):
            return f"{why}: {found.message}"
        why = found.message
    return why
