"""What is said before the plan of a retry: that the run still lives, and from which checkpoints steps would resume."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runnable_ci.runs.branches.labels import label_of
from runnable_ci.runs.checkpoints.newest import newest_checkpoints
from runnable_ci.runs.live.life_sign import writer_elsewhere
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import in_flight, is_running, last_write_time, run_folder
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now
from runnable_ci.util.text import format_age, format_time, pluralize, seconds_between

if TYPE_CHECKING:
    from runnable_ci.engine.planning.plan import Plan

_IF_ENDED = "the plan is that for a run that ended now"


def notes(layout: Layout, log: RunLog, running: Sequence[str], *, drops_checkpoints: bool) -> Iterator[str]:
    """Yield a line each, for a plan by which the steps of `running` run."""
    if is_running(layout, log.run_id):
        sign = format_age(seconds_between(last_write_time(run_folder(layout, log.run_id)), now()))
        yield f"note: run {log.run_id} is in progress here, last sign of life {sign} ago; {_IF_ENDED}"
    elif elsewhere := writer_elsewhere(layout, log.run_id, now_s=time.time()):
        yield f"note: run {log.run_id} is in progress: {elsewhere.writer}, {elsewhere.sign}; {_IF_ENDED}"
    for name, (attempt, kept) in newest_checkpoints(log).items():
        if name not in running:
            continue
        which = f"the checkpoint of attempt {attempt.attempt_number}"
        of = f"generation {kept.generation}, kept {format_time(kept.time)} UTC, {pluralize(len(kept.files), 'file')}"
        how = f"starts over without {which}" if drops_checkpoints else f"resumes from {which}"
        yield f"note: `{label_of(log.steps, name)}` {how} ({of})"


def lines(layout: Layout, log: RunLog, plan: Plan) -> list[str]:
    """Return the lines of a plan, with what becomes of attempts that other machines have."""
    if not in_flight(layout, log.run_id):
        return plan.lines()
    from runnable_ci.runs.elsewhere.left_there import left_there  # few runs have steps elsewhere

    reasons = {it.step: it.at_retry() for it in left_there(layout, log)}
    decisions = {name: it._replace(reason=reasons.get(name, it.reason)) for name, it in plan.decisions.items()}
    return plan._replace(decisions=decisions).lines()
