"""What is said of a run on its pull request, as Markdown: status, metrics beside the base branch, how to resume."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from runnable_ci.analysis.comparison.blocks import headlines, metric_row, metrics_shown
from runnable_ci.analysis.comparison.condition import Judgement
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.github.api.pull_requests import COMMENT_MAX, Conclusion
from runnable_ci.github.markdown import code, code_cell, cut, escaped, fence, table
from runnable_ci.runs.branches.labels import label_of
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.model import SUCCESS, RunLog
from runnable_ci.runs.reuse.saved import saved
from runnable_ci.util.text import format_duration, pluralize

_MARKS: Final = {"succeeded": "✅", "failed": "❌", "cancelled": "🚫"}
_METRICS_MAX: Final = 30


@dataclass(frozen=True, slots=True)
class CommentFacts:
    """What the comment has beside the run and its comparison."""

    base_branch: str
    base_run: str = ""
    """The run of the base branch that it is compared with; empty where there is none."""
    page: str = ""
    """The job's page."""
    retry_command: str = ""
    judgements: Sequence[Judgement] = ()
    not_compared: str = ""


def marker_of(pipeline: str, use: str) -> str:
    """Return the comment's first line, which is not shown: by it the comment of this use of the action is found."""
    key = hashlib.sha256(f"{pipeline}\n{use}".encode()).hexdigest()[:16]
    return f"<!-- runnable-ci {key} -->"


def comment(marker: str, log: RunLog, compared: RunComparison | None, facts: CommentFacts) -> str:
    """Return the comment, at most `COMMENT_MAX` characters; its last line has links."""
    blocks = [
        marker,
        f"### {_MARKS.get(log.outcome, '⏳')} {code(log.name or 'run', 100)} {log.outcome or 'is running'}"
        + (f" in {format_duration(log.seconds())}" if log.seconds() is not None else ""),
        *(_judged(one) for one in facts.judgements),
        _failed(log),
        _metrics(compared, facts),
        _changed(compared, facts),
        _reused(log),
        _resume(log, facts),
        _links(log, facts),
    ]
    text = "\n\n".join(block for block in blocks if block)
    return text if len(text) <= COMMENT_MAX else "\n\n".join((*blocks[:2], cut(blocks[-1], COMMENT_MAX // 2)))


def conclusion(log: RunLog, facts: CommentFacts) -> Conclusion:
    """Return what the check says: it fails with the run or with a condition, and is neutral where it cannot tell."""
    if log.status != SUCCESS or any(one.fails for one in facts.judgements):
        return "failure"
    return "neutral" if facts.not_compared else "success"


def _judged(one: Judgement) -> str:
    return f"{'❌ fails' if one.fails else '✅ passes'}: {code(one.condition)}, {escaped(one.reason)}"


def _failed(log: RunLog) -> str:
    lines = []
    for name in log.failed_steps()[:5]:
        message = log.steps[name].attempts[-1].message
        lines.append(f"- {code(label_of(log.steps, name))}: {escaped(message, 300)}")
    return "\n".join(lines)


def _metrics(compared: RunComparison | None, facts: CommentFacts) -> str:
    if compared is None or not (metrics := metrics_shown(compared, compared.all_metrics)):
        return ""
    rows = [
        (code_cell(name), code_cell(after), code_cell(before), code_cell(change) or " ")
        for name, before, after, change in map(metric_row, metrics[:_METRICS_MAX])
    ]
    more = f"\n\n… and {len(metrics) - _METRICS_MAX} more" if len(metrics) > _METRICS_MAX else ""
    head = ("Metric", "This run:", f"{code_cell(facts.base_branch, 60)}:", "Change:")
    return table(head, rows) + more


def _changed(compared: RunComparison | None, facts: CommentFacts) -> str:
    if compared is None:
        return escaped(facts.not_compared)
    first, *others = headlines(compared)
    return "\n".join([f"**{escaped(first)}**", *(f"- {escaped(line)}" for line in others)])


def _reused(log: RunLog) -> str:
    taken = saved(log) if any(one.taken_from for one in decisions_of(log).values()) else None
    if taken is not None:
        return f"♻️ {escaped(str(taken))}"
    reused = sum(one.action == "reuse" for one in decisions_of(log).values())
    return f"♻️ {pluralize(reused, 'step')} reused from earlier attempts" if reused else ""


def _resume(log: RunLog, facts: CommentFacts) -> str:
    if log.status == SUCCESS or not facts.retry_command:
        return ""
    return f'Resume it on your machine, or with "Re-run failed jobs":\n\n{fence(facts.retry_command, "sh")}'


def _links(log: RunLog, facts: CommentFacts) -> str:
    parts = [f"run {code(log.run_id)}"]
    if facts.base_run:
        parts.append(f"compared with {code(facts.base_run)} of {code(facts.base_branch)}")
    if facts.page:
        parts.append(f"[job]({facts.page})")
    return " · ".join(parts)
