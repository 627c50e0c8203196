"""How people know the steps of branches. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from runnable_ci.errors import RunnableError, UsageError, did_you_mean
from runnable_ci.runs.model import FAIL, SUCCESS, RunLog, StepAttempt, StepLog
from runnable_ci.util.text import listed

_OF_BRANCH: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*) (?:\(.*\)|/ ).*", re.DOTALL)
SHOWN_MAX: Final = 20
"""Branches of a step that a list shows, those that did not succeed first."""


def label_of(steps: Mapping[str, StepLog], name: str) -> str:
    """Return how people know a step: `quant (gut)`, `train (round 2)`, `prepare / clean`, or by its name alone."""
    return labels_of(steps, [name])[name]


def labels_of(steps: Mapping[str, StepLog], names: Iterable[str] | None = None) -> dict[str, str]:
    """Return how people know each of some steps, by default of all."""
    of_branches: dict[str, dict[str, str]] = {}

    def label(name: str) -> str:
        parts = name.split(".")
        text, last = parts[0], parts[0]
        for end in range(1, len(parts) - 1, 2):
            group, key, inner = ".".join(parts[:end]), parts[end], parts[end + 1]
            if group not in of_branches:
                of_branches[group] = {one.name: one.label for one in steps[group].instances} if group in steps else {}
            found = of_branches[group].get(key, key)
            text += f" ({found})" if found else ""
            text += "" if inner == last else f" / {inner}"
            last = inner
        return text

    return {name: label(name) for name in (steps if names is None else names)}


def group_of(label: str) -> str:
    """Return the step of whose branches one has this label, by how it is written; empty for what is none."""
    found = _OF_BRANCH.fullmatch(label)
    return found[1] if found else ""


def find_step(log: RunLog, word: str) -> str | None:
    """Return the name of a step that a person calls so: by its name, its label, or the branch that it alone is."""
    if word in log.steps:
        return word
    alone = f"{word}.{word.split('.')[-3] if word.count('.') >= 2 else word.partition('.')[0]}"
    if alone in log.steps:
        return alone
    return next((name for name, label in labels_of(log.steps).items() if label == word), None)


def step_named(log: RunLog, word: str, error: type[RunnableError] = UsageError) -> str:
    """Return the step that a person calls so. Raises `error` where the run has none."""
    if (found := find_step(log, word)) is not None:
        return found
    known = labels(log)
    hint = did_you_mean(word, known, f"the steps are: {listed(known, at_most=50)}")
    raise error(f"run {log.run_id} has no step `{word}`", hint=hint)


def labels(log: RunLog) -> list[str]:
    """Return how people know all steps."""
    return [*labels_of(log.steps).values()]


def is_only_branches(step: StepLog) -> bool:
    """Return whether a step never ran as a process: its branches did."""
    return step.step_type in ("map", "loop", "dag") and not step.attempts


def failed_steps(log: RunLog) -> list[str]:
    """Return the steps that failed; of one with branches, these where one of them failed."""
    failed = [name for name, step in log.steps.items() if step.status == FAIL]
    above = {name.rpartition(".")[0].rpartition(".")[0] for name in failed}
    return [name for name in failed if name not in above or log.steps[name].attempts]


def failed_below(group: str, steps: Mapping[str, StepLog]) -> list[str]:
    """Return which steps in the branches of a step failed."""
    return [
        name for name, step in steps.items() if name.startswith(f"{group}.") and step.status == FAIL and step.attempts
    ]


def last_attempt(step: StepLog) -> StepAttempt:
    """Return the last attempt at a step; of one that never ran as a process, what is known of its end."""
    if step.attempts:
        return step.attempts[-1]
    return StepAttempt(status=step.status, outcome=step.outcome, message=step.message)


def shortened(names: Sequence[str], steps: Mapping[str, StepLog]) -> list[tuple[str, int]]:
    """Return the steps to be listed, and how many of its branches are left out after it."""
    left: dict[str, int] = {}
    inner: dict[str, list[str]] = {}
    for name in names:
        if "." in name:
            inner.setdefault(name.partition(".")[0], []).append(name)
    kept = set()
    for group, found in inner.items():
        first = sorted(found, key=lambda name: steps[name].status == SUCCESS)[:SHOWN_MAX]
        kept |= {*first}
        left[group] = len(found) - len(first)
    shown = [name for name in names if "." not in name or name in kept]
    last = {name.partition(".")[0]: name for name in shown}
    return [
        (name, left.get(name.partition(".")[0], 0) if last[name.partition(".")[0]] == name else 0) for name in shown
    ]
