"""What a run could have reused of other runs, had the pipeline file allowed it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain, islice
from typing import Final

from runnable_ci.engine.options import ReuseOptions
from runnable_ci.engine.provenance.changes import changed_definition
from runnable_ci.engine.provenance.environment_proof import (
    first_environment_difference,
    first_secret_difference,
    first_variable_difference,
)
from runnable_ci.engine.reuse.earlier_result import EarlierResult, may_be_reused
from runnable_ci.engine.reuse.opening import sources_of
from runnable_ci.engine.reuse.rules import reason_against
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog
from runnable_ci.runs.reuse.saved import Saved
from runnable_ci.util.text import format_duration

WORTH_S: Final = 10.0
"""Of less nothing is said."""
_RUNS_MAX: Final = 3


def suggestion(session: RunSession, log: RunLog, steps: Mapping[str, Step], options: ReuseOptions) -> str:
    """Return a line on what a run could have reused, empty where that is little; `steps` are those that were known.

    An attempt could have been spared where an earlier one has the same record of all that it was made from.
    """
    decisions = log.invocations[-1].decisions
    made_now = [name for name, it in log.steps.items() if it.attempts and it.attempts[-1].invocation == log.invocation]
    ran = {name: log.steps[name] for name in made_now if name in steps and steps[name].reuse is None}
    if sum(step.attempts[-1].seconds or 0.0 for step in ran.values()) < WORTH_S:
        return ""
    sources = sources_of(session, log.run_id, options, lambda _line: None)
    found = []
    for name, step in ran.items():
        others = chain.from_iterable(islice(source.of(name), _RUNS_MAX) for source in sources)
        for earlier in others if may_be_reused(step) else ():
            if is_same(log, step, earlier) and not reason_against(steps[name], step, earlier.reads, 0.0):
                found.append((step.attempts[-1], earlier.place or f"run {earlier.log.run_id}"))
                break
    could = Saved.of(found)
    if could.seconds < WORTH_S:
        return ""
    whole = len({*made_now, *(name for name in decisions if name in log.steps and log.steps[name].attempts)})
    return (
        f"{could.steps} of {whole} steps could be reused from {could.where}: {format_duration(could.seconds)}; "
        'set `reuse = "any-run"`'
    )


def is_same(log: RunLog, step: StepLog, earlier: EarlierResult) -> bool:
    """Return whether the records of two attempts name the same for all that they were made from."""
    one, other = step.attempts[-1], earlier.attempt
    here, there = log.environments.get(one.environment), earlier.log.environments.get(other.environment)
    if not one.reads or one.reads != other.reads or here is None or there is None:
        return False
    used = [name for name in one.consumed if name in one.input_parameters and one.input_parameters[name].redacted]
    imported = earlier.reads.distributions if earlier.reads and earlier.reads.imports_seen else None
    is_command = "run" in one.definition
    facts = ("consumed", "defaulted", "reach", "function_hash", "made")
    return (
        not changed_definition(other.definition, one.definition)
        and all(getattr(one, fact) == getattr(other, fact) for fact in facts)
        and _values(one) == _values(other)
        and _got(step) == _got(earlier.step)
        and not first_secret_difference(used, other.secret_values, one.secret_values)
        and not first_variable_difference(other.variables, one.variables)
        and not first_environment_difference(there, here, imported=imported, is_command=is_command)
    )


def _values(attempt: StepAttempt) -> list[tuple[str, str, str]]:
    used = {name: attempt.input_parameters[name] for name in attempt.consumed if name in attempt.input_parameters}
    return sorted((name, json.dumps(it.value, sort_keys=True), it.data_hash) for name, it in used.items())


def _got(step: StepLog) -> list[tuple[str, str]]:
    return sorted((entry.name, entry.data_hash) for entry in step.data_catalog if entry.stage == "get")
