"""The summary of a run on its job's page, as GitHub's Markdown: how it ended, why, and what to do next.

All names, messages and paths may come from anyone: they are shown as they are and never take effect.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runnable_ci.analysis.states import State, state_of, step_edges
from runnable_ci.github.graph import GRAPH_MAX_STEPS, flowchart
from runnable_ci.github.markdown import code, code_cell, cut, details, escaped, escaped_cell, fence, table
from runnable_ci.runs.branches.labels import (
    failed_steps,
    is_only_branches,
    label_of,
    labels_of,
    last_attempt,
    shortened,
)
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.code_states import code_state_of, why_unknown
from runnable_ci.runs.model import SUCCESS, TIME_BUDGET, CatalogEntry, RunLog, StepAttempt
from runnable_ci.runs.reuse.saved import saved
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import as_pair, duration, format_duration, format_size

LIMIT_BYTES = 1024 * 1024
"""Of all summaries of a step. Source: actions/runner, FileCommandManager.cs, `AttachmentSizeLimit`."""

_MARKS: Mapping[State, str] = {
    "succeeded": "✅",
    "reused": "♻️",
    "failed": "❌",
    "cancelled": "🚫",
    "skipped": "⏭️",
    "running": "⏳",
    "removed": "▫️",
}
_SHOWN_FIRST: Sequence[State] = ("failed", "cancelled", "running", "succeeded", "skipped", "reused", "removed")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REMOTE = re.compile(r"https://[A-Za-z0-9.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+?(?=(?:\.git)?/?$)")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the reader should know, and the YAML that changes it."""

    title: str
    text: str
    """Plain text; only words between backticks are marked up."""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class NextSteps:
    """How the run is had and retried elsewhere; what is empty cannot be done."""

    reference: str = ""
    """HOST/REPOSITORY:RUN_ID, where it is published."""
    digest: str = ""
    """Of what is published there."""
    workflow: str = ""
    """The file name of the retry workflow, `retry.yml`."""
    ref: str = ""
    """The branch that the retry workflow would check out."""
    github_run_id: str = ""
    """The run of GitHub Actions that can be re-run."""
    repository: str = ""
    """The repository of that run, as `--repo` takes it."""
    run: str = ""
    """The run as `dispatch` takes it, where its id is not enough."""
    retry_command: str = ""
    """Where resuming the published run on one's machine takes more than its reference."""
    dispatch_options: Sequence[str] = ()
    pull_options: Sequence[str] = ()
    is_continued: bool = False
    """Whether another job resumes the run."""


@dataclass(frozen=True, slots=True)
class _Detail:
    """How much is shown: rows of each table, characters of each text."""

    rows: int
    characters: int


_DETAILS = (_Detail(300, 20_000), _Detail(100, 4_000), _Detail(30, 1_000), _Detail(10, 200), _Detail(1, 50))


def render(
    log: RunLog,
    *,
    needs: Mapping[str, Sequence[str]] | None = None,
    base: Mapping[str, Any] | None = None,
    base_label: str = "",
    next_steps: NextSteps | None = None,
    notices: Sequence[Notice] = (),
    tails: Mapping[str, str] | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> str:
    """Return the summary of a run in at most `limit_bytes` bytes of UTF-8, with as much detail as fits.

    `needs` are the pipeline's edges (else those of the log's attempts), `base` the metrics of an earlier run that
    `base_label` names, `tails` the last lines that failed steps wrote.
    """
    for detail in _DETAILS:
        text = "\n\n".join(
            block.rstrip()
            for block in (
                _head(log, detail),
                *(_notice(notice, detail) for notice in notices[: detail.rows]),
                _failures(log, tails or {}, detail),
                _next_steps(log, next_steps or NextSteps()),
                _graph(log, step_edges(log, needs)) if detail.rows >= 30 else "",
                _steps(log, detail),
                _metrics(log.metrics(), base, base_label, detail),
                _files(log, detail),
                _code(log, next_steps or NextSteps(), detail),
            )
            if block
        )
        if len(text.encode()) < limit_bytes:
            return f"{text}\n"
    return cut(f"{_MARKS['succeeded' if log.status == SUCCESS else 'failed']} {log.status}", limit_bytes // 4)


def _head(log: RunLog, detail: _Detail) -> str:
    states = {name: state_of(log, name) for name, step in log.steps.items() if not is_only_branches(step)}
    failed = [label_of(log.steps, name) for name in _failed(log)]
    name = code(log.name or "run", 100)
    if log.status == SUCCESS:
        title = f"## ✅ {name} succeeded"
    elif log.ended_by == TIME_BUDGET:
        title = f"## ⏳ {name} was ended by its time budget"
    elif log.outcome == "cancelled":
        title = f"## 🚫 {name} was cancelled"
    elif not log.end_time:
        title = f"## ⏳ {name} has not ended"
    else:
        title = f"## ❌ {name} failed" + (f" at {code(failed[0], 100)}" if failed else "")
    counts = Counter(states.values())
    invocation = log.invocations[-1] if log.invocations else None
    facts = [
        f"run {code(log.run_id, 130)}",
        *(f"{counts[state]} {state}" for state in _SHOWN_FIRST if counts[state] and state != "removed"),
        duration(invocation.start_time, invocation.end_time) if invocation else "",
        f"invocation {invocation.number} ({code(invocation.command, 40)})"
        if invocation and invocation.number > 1
        else "",
        f"tag {code(log.tag, 100)}" if log.tag else "",
        *([escaped(str(saving), 200)] if (saving := saved(log)).steps else []),
        f"**{mocked} mocked**" if (mocked := sum(step.mock for step in log.steps.values())) else "",
    ]
    known = log.outcome == "succeeded" or (log.outcome == "failed" and failed)  # said by the title, and by each step
    message = "" if known else escaped(log.message, min(detail.characters, 500))
    return "\n\n".join(filter(None, [title, " · ".join(filter(None, facts)), message]))


def alert(notice: Notice) -> str:
    """Return a notice alone, for a summary that was written before it was known."""
    return _notice(notice, _DETAILS[0])


def _notice(notice: Notice, detail: _Detail) -> str:
    """Return an alert. Source: GitHub Docs, basic writing and formatting syntax, alerts."""
    title = escaped_cell(notice.title) or "Notice"
    lines = ["[!IMPORTANT]", f"**{title}**", "", *escaped(notice.text, detail.characters).split("\n")]
    if notice.fix:
        lines += ["", *fence(cut(notice.fix, detail.characters), "yaml").split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _failures(log: RunLog, tails: Mapping[str, str], detail: _Detail) -> str:
    failed = _failed(log)
    shown = failed[: min(detail.rows, 20)]
    blocks = [
        _failure(label_of(log.steps, name), last_attempt(log.steps[name]), tails.get(name, ""), detail)
        for name in shown
    ]
    if more := len(failed) - len(shown):
        blocks.append(f"… and {more} more failed")
    return "\n\n".join(blocks)


def _failed(log: RunLog) -> list[str]:
    return [name for name in failed_steps(log) if state_of(log, name) in ("failed", "cancelled")]


def _failure(name: str, attempt: StepAttempt, tail: str, detail: _Detail) -> str:
    found = attempt.exception
    title = f"### {code(name, 100)} failed" + (
        f" (attempt {attempt.attempt_number})" if attempt.attempt_number > 1 else ""
    )
    blocks = [title]
    blocks.append(fence(cut(attempt.message, detail.characters), "text"))
    if found and found.traceback:
        blocks.append(details("Traceback", fence(_end_of(found.traceback, detail.characters), "text")))
    if tail.strip():
        blocks.append(details("Last lines of its output", fence(_end_of(tail, detail.characters), "text")))
    return "\n\n".join(blocks)


def _end_of(text: str, characters: int) -> str:
    if len(text) <= characters:
        return text
    return "…\n" + text[-characters:].partition("\n")[2]


def _next_steps(log: RunLog, next_steps: NextSteps) -> str:
    reference = next_steps.reference
    pinned = f"{reference}@{next_steps.digest}" if next_steps.digest else reference
    at = ["--repo", next_steps.repository] if next_steps.repository else []
    lines = []
    if log.status != SUCCESS and not next_steps.is_continued:
        if reference:
            lines += ["# on your machine, in a clone with the fix"]
            lines += [next_steps.retry_command or command("retry", pinned)]
        if reference and next_steps.workflow:
            options = [] if next_steps.workflow == "retry.yml" else ["--workflow", next_steps.workflow]
            options += ["--ref", next_steps.ref or "BRANCH", *next_steps.dispatch_options, *at]
            lines += [
                "# in GitHub Actions, with the fix pushed",
                command("dispatch", next_steps.run or log.run_id, *options),
            ]
        if next_steps.github_run_id:
            lines += ["# the same commit again (also: Re-run failed jobs)"]
            lines += [command("rerun-failed", next_steps.github_run_id, *at)]
    if reference:
        lines += ["# download this run"] if lines else []
        lines.append(command("pull", pinned, *next_steps.pull_options))
    if not lines:
        return ""
    title = "### Next steps" if log.status != SUCCESS and not next_steps.is_continued else "### Inspect"
    return f"{title}\n\n{fence(chr(10).join(lines), 'sh')}"


def _graph(log: RunLog, needs: Mapping[str, Sequence[str]]) -> str:
    if len(needs) < 2:
        return ""
    chosen = _chosen(log, list(needs), GRAPH_MAX_STEPS)
    needs = {name: found for name, found in needs.items() if "." not in name}
    chosen = [name for name in chosen if name in needs]
    shown = flowchart({name: needs[name] for name in chosen}, {name: state_of(log, name) for name in chosen})
    note = f"\n\nThe graph shows {len(chosen)} of {len(needs)} steps." if len(chosen) < len(needs) else ""
    return fence(shown, "mermaid") + note


def _chosen(log: RunLog, names: Sequence[str], most: int) -> list[str]:
    """Return at most so many steps in their order: what failed and what ran before what is as it was."""
    if len(names) <= most:
        return list(names)
    ranked = sorted(names, key=lambda name: _SHOWN_FIRST.index(state_of(log, name)))
    kept = set(ranked[:most])
    return [name for name in names if name in kept]


def _steps(log: RunLog, detail: _Detail) -> str:
    rows: list[tuple[str, ...]] = []
    listed = [name for name, _ in shortened([*log.steps], log.steps)]
    chosen = _chosen(log, listed, detail.rows)
    decisions = decisions_of(log)
    for name in chosen:
        step, state = log.steps[name], state_of(log, name)
        last = step.attempts[-1] if step.attempts and state != "skipped" else None
        decision = decisions.get(name)
        rows.append(
            (
                f"{_MARKS[state]} {code_cell(label_of(log.steps, name), 100)}",
                (state if state != "removed" else "no longer in the pipeline") + (" (mock)" if step.mock else ""),
                format_duration(last.seconds) if last else "",
                str(last.attempt_number) if last else "",
                escaped_cell(decision.reason, min(detail.characters, 200)) if decision else "",
            )
        )
    if more := len(log.steps) - len(chosen):
        rows.append((f"… and {more} more", *[""] * 4))
    return f"### Steps\n\n{table(('Step', 'State', 'Duration:', 'Attempt:', 'Reason'), rows)}" if rows else ""


def _metrics(metrics: Mapping[str, Any], base: Mapping[str, Any] | None, label: str, detail: _Detail) -> str:
    width = min(detail.characters, 100)
    gone = [name for name in base or {} if name not in metrics]
    names = [*metrics, *gone]
    rows = []
    for name in names[: detail.rows]:
        there = (name in metrics, base is not None and name in base)
        texts = as_pair(metrics.get(name), (base or {}).get(name), shown=_value)
        cells = [code_cell(text, width) if known else "-" for text, known in zip(texts, there, strict=True)]
        row = [code_cell(name, width), cells[0]]
        if base is not None:
            row += [cells[1], _change(base.get(name), metrics.get(name))]
        rows.append(row)
    if not rows:
        return ""
    head = ["Metric", "Value:"]
    if base is not None:
        head += [f"{code_cell(label, 100) or 'Before'}:", "Change:"]
    if more := len(names) - len(rows):
        rows.append([f"… and {more} more", *[""] * (len(head) - 1)])
    return f"### Metrics\n\n{table(head, rows)}"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _change(before: Any, now: Any) -> str:
    """Return the difference of two numbers, with the part of the earlier one that it is; empty for anything else."""
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in (before, now)):
        return ""
    try:
        difference = now - before
        part = f" ({difference / abs(before):+.1%})" if before and difference else ""
        text = f"{difference:+.6g}{part}"
    except OverflowError:
        return ""
    return text if difference else "same"


def _files(log: RunLog, detail: _Detail) -> str:
    shown = labels_of(log.steps)
    entries = [(shown[name], entry) for name, step in log.steps.items() for entry in step.put_entries()]
    if not entries:
        return ""
    rows = [_file(step, entry, detail) for step, entry in entries[: detail.rows]]
    if more := len(entries) - len(rows):
        rows.append((f"… and {more} more", "", "", ""))
    total = format_size(sum(entry.size for _, entry in entries))
    files = "1 file" if len(entries) == 1 else f"{len(entries)} files"
    return details(f"{files}, {total}", table(("File", "Step", "Size:", "SHA-256"), rows))


def _file(step: str, entry: CatalogEntry, detail: _Detail) -> tuple[str, str, str, str]:
    return (
        code_cell(entry.name, min(detail.characters, 300)),
        code_cell(step, 100),
        format_size(entry.size),
        code_cell(entry.data_hash[:12]),
    )


def _code(log: RunLog, next_steps: NextSteps, detail: _Detail) -> str:
    lines = []
    attempt = log.newest_with_code()
    if attempt:
        identity, at = attempt.code_identities[0], code_state_of(log, attempt)
        lines += [f"Code: {_code_state(identity, at, is_known=not why_unknown(log, attempt))}", ""]
        changes = list(at.changes.items()) if at else []
        lines += [
            f"- {escaped_cell(kind, 40)} {code(path, 300)}" for path, (kind, _) in changes[: min(detail.rows, 20)]
        ]
        if more := len(changes) - min(len(changes), detail.rows, 20):
            lines.append(f"- … and {more} more")
        if not changes and identity.code_identifier_message:
            lines.append(f"- {code(identity.code_identifier_message, min(detail.characters, 500))}")
    if next_steps.digest:
        lines += ["", f"Published: {code(f'{next_steps.reference}@{next_steps.digest}', 500)}"]
    return "\n".join(lines)


def _code_state(identity: CodeIdentity, state: CodeState | None, *, is_known: bool) -> str:
    """Return the commit, its branch, and what is known of how the code differs from it."""
    if identity.code_identifier_dependable:
        differs = "clean"
    elif is_known:
        differs = "**with uncommitted changes**" if state and state.changes else "**not as in the commit**"
    elif identity.code_identifier:
        differs = "**whether it was changed is not known**"
    else:
        return "**not known**"
    return " ".join(filter(None, [_commit(identity), f"on {code(identity.ref, 100)}" if identity.ref else "", differs]))


def _commit(identity: CodeIdentity) -> str:
    """Return the commit, as a link where its remote is a plain web address."""
    commit = identity.code_identifier
    remote = _REMOTE.match(identity.code_identifier_url)
    shown = code(commit[:12], 12) or "no commit"
    return f"[{shown}]({remote[0]}/commit/{commit})" if remote and _COMMIT.fullmatch(commit) else shown
