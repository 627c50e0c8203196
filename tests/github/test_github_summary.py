"""Tests of the job summary: what it says, that nothing in it takes effect, and that it always fits."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

import pytest
from example_run import DIRTY, attempt, events, moment, run_log, saved, started
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from runnable_ci.github.annotations import SourceMap, annotations_for
from runnable_ci.github.graph import flowchart
from runnable_ci.github.summary import LIMIT_BYTES, NextSteps, Notice, render
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.events import InvocationFinished, apply
from runnable_ci.runs.model import (
    FAIL,
    SUCCESS,
    CatalogEntry,
    DecisionRecord,
    ExceptionInfo,
    Invocation,
    Parameter,
    RunLog,
    StepAttempt,
    StepLog,
)

MARKDOWN = MarkdownIt("gfm-like")
PUBLISHED = NextSteps("ghcr.io/owner/iris/runs:best-hamilton-0300", "sha256:" + "ab" * 32, "retry.yml", "fix", "77")
MENTION = re.compile(r"(^|\W)@[A-Za-z0-9]")
NASTY = [
    "a|b",
    "\\|",
    "\\",
    "`",
    "``a```b`",
    "a\n\n# b",
    "| a | b |",
    "<img src=x onerror=alert(1)>",
    "</details>",
    "<!--",
    "@everyone",
    "a @b #12",
    "![a](https://example.org/a.png)",
    "[a](https://example.org)",
    "https://example.org/?a=b",
    "www.example.org",
    "a@example.org",
    "*a* _b_ ~~c~~",
    "```\n@a\n```",
    "~~~",
    "&lt;b&gt;",
    "- [ ] a",
    "> [!WARNING]",
    "$a$",
    "\x1b[31m",
    "\u202e",
    "\udcff",
    '"]:::x;click s0 "https://example.org"',
    "end",
    "",
]


def tokens_of(text: str) -> list[Token]:
    """The document's tokens, those within a line included."""
    return [inner for token in MARKDOWN.parse(text) for inner in (token, *(token.children or ()))]


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, as they are shown."""
    found: list[list[str]] = []
    tokens = iter(MARKDOWN.parse(text))
    for token in tokens:
        if token.type == "inline" and token.content == heading:
            break
    for token in tokens:
        if token.type == "tr_open":
            found.append([])
        elif token.type == "inline" and found:
            found[-1].append("".join(inner.content for inner in token.children or ()))
        elif token.type == "table_close":
            break
    return found


def nasty_log(text: str) -> RunLog:
    """A failed run in which everything that can be any text is this text."""
    code = CodeIdentity(
        code_identifier=text,
        code_identifier_url=text,
        ref=text,
        code_identifier_message=text,
        changes={text: (text, "")},
    )
    attempt = StepAttempt(
        status=FAIL,
        message=text,
        start_time=moment(1),
        end_time=moment(2),
        code_identities=[code],
        definition={"needs": [text]},
        exception=ExceptionInfo(type=text, message=text, traceback=text, file=text, line=3),
        user_defined_metrics={
            text: Parameter(kind="metric", value={text: text}),
            "n": Parameter(kind="metric", value=1),
        },
    )
    entry = CatalogEntry(name=text, data_hash=text, stage="put", size=3)
    step = StepLog(name=text, internal_name=text, status=FAIL, message=text, attempts=[attempt], data_catalog=[entry])
    invocation = Invocation(
        number=2,
        command=text,
        start_time=moment(1),
        end_time=moment(3),
        decisions={name: DecisionRecord(action="run", reason=text) for name in (text, "b")},
    )
    return RunLog(
        run_id=text,
        name=text,
        tag=text,
        status=FAIL,
        message=text,
        end_time=moment(3),
        steps={text: step, "b": step.model_copy(update={"name": "b"})},
        invocations=[invocation],
    )


@pytest.mark.promise
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(NASTY), min_size=1, max_size=4).map("".join) | st.text(max_size=30))
@example("\\|")
def test_nothing_of_others_takes_effect(text: str) -> None:
    """Names, messages, paths and tracebacks are no link, image, mention, HTML, heading or table of their own."""
    rendered = render(
        nasty_log(text),
        base={text: text, "n": 2},
        base_label=text,
        next_steps=NextSteps(text, text, text, text, text),
        notices=[Notice(text, text, text)],
        tails={text: text},
    )
    for token in tokens_of(rendered):
        assert token.type not in ("image", "link_open", "html_inline", "hr", "list_item_open" * (token.level > 2))
        if token.type == "html_block":
            assert re.fullmatch(r"</details>\n?|<details><summary>[A-Za-z0-9 ,.]+</summary>\n?", token.content)
        if token.type == "text":
            assert not MENTION.search(token.content)
            assert not re.search(r"#\d", token.content)
    tokens = MARKDOWN.parse(rendered)
    assert [token.tag for token in tokens if token.type == "heading_open"] == [
        "h2",
        *["h3"] * (2 + bool(text) + len({text, "b"})),
    ]
    assert len([token for token in tokens if token.type == "table_open"]) == 3
    assert len(rows_of(rendered, "Steps")) == len({text, "b"}) + 1
    assert {len(row) for row in rows_of(rendered, "Steps")} == {5}
    assert {len(row) for row in rows_of(rendered, "Metrics")} == {4}
    rendered.encode()


@pytest.mark.parametrize("text", ["a|b", "`a```b", "<b>@x", "a\\b", "a\\|b"])
def test_names_are_shown_as_they_are(text: str) -> None:
    """What is made harmless still reads as it was written."""
    rendered = render(nasty_log(text))
    row = rows_of(rendered, "Steps")[1]
    assert row[0].replace("\u200b", "") == f"❌ {text}"
    assert row[4].replace("\u200b", "").replace("`", "") == text.replace("`", "")


def test_a_finished_run_is_told_whole() -> None:
    """Status, steps with their reasons, files, code and the way to look at it; no way to retry."""
    rendered = render(run_log(), next_steps=PUBLISHED)
    assert rendered.startswith("## ✅ `iris` succeeded\n")
    assert "1 reused" in rendered
    assert rows_of(rendered, "Steps") == [
        ["Step", "State", "Duration", "Attempt", "Reason"],
        ["♻️ load", "reused", "1.0 s", "1", "unchanged since attempt 1"],
        ["✅ fit", "succeeded", "1.0 s", "2", "first attempt"],
        ["✅ plot", "succeeded", "1.0 s", "2", "first attempt"],
    ]
    assert "`iris_logistic.png`" in rendered
    assert "modified `iris.py`" in rendered
    assert f"(https://github.com/owner/iris/commit/{DIRTY.code_identifier})" in rendered
    assert "runnable-ci pull ghcr.io/owner/iris/runs:best-hamilton-0300" in rendered
    assert f"runs:best-hamilton-0300@sha256:{'ab' * 32}" in rendered
    assert "runnable-ci retry" not in rendered


def failed_log() -> RunLog:
    """The run after its first invocation."""
    log = RunLog(run_id="best-hamilton-0300")
    for event in events():
        log = apply(log, event)
        if event.event == "ended":
            break
    return log


def test_a_failed_run_says_why_and_how_to_go_on() -> None:
    """The exception, its place and traceback, what was skipped, and each way to retry."""
    rendered = render(failed_log(), next_steps=PUBLISHED, tails={"fit": "epoch 1\nepoch 2"})
    assert rendered.startswith("## ❌ `iris` failed at `fit`\n")
    assert "\nValueError: no ünits (iris.py:3)\n" in rendered
    assert "epoch 2" in rendered
    assert rows_of(rendered, "Steps")[3] == ["⏭️ plot", "skipped", "", "", "fit failed"]
    for line in (
        f"runnable-ci retry ghcr.io/owner/iris/runs:best-hamilton-0300@{PUBLISHED.digest}",
        "runnable-ci dispatch best-hamilton-0300 --ref fix",
        "runnable-ci rerun-failed 77",
        f"runnable-ci pull ghcr.io/owner/iris/runs:best-hamilton-0300@{PUBLISHED.digest}",
    ):
        assert f"\n{line}\n" in rendered
    assert "fit" in next(t.content for t in MARKDOWN.parse(rendered) if t.info == "mermaid")


def test_each_command_is_whole() -> None:
    """With the repository, and what the registry and the pipeline file need, each may be typed anywhere; quoted."""
    more = NextSteps(
        reference="ghcr.io/o/n/runs:r",
        workflow="a b.yml",
        ref="fix",
        github_run_id="77",
        repository="ghe.example.org/o/n",
        retry_command="runnable-ci retry ghcr.io/o/n/runs:r -f ml/x.toml",
        dispatch_options=["-f", "m l/x.toml"],
        pull_options=["--plain-http"],
    )
    lines = render(failed_log(), next_steps=more).splitlines()
    assert [line for line in lines if line.startswith("runnable-ci")] == [
        "runnable-ci retry ghcr.io/o/n/runs:r -f ml/x.toml",
        "runnable-ci dispatch best-hamilton-0300 --workflow 'a b.yml' --ref fix -f 'm l/x.toml' "
        "--repo ghe.example.org/o/n",
        "runnable-ci rerun-failed 77 --repo ghe.example.org/o/n",
        "runnable-ci pull ghcr.io/o/n/runs:r --plain-http",
    ]


@pytest.mark.parametrize("step", ["cancelled_orders", "interrupted", "timed_out", "failed"])
def test_a_name_does_not_say_how_the_run_ended(step: str) -> None:
    """A step may have any name, and the run's message has it: the title is by the outcome alone."""
    log = RunLog(run_id="r")
    failed = attempt(1, 1, status=FAIL, message="exit code 3")
    for event in (
        started(1, 0),
        *saved(step, failed),
        InvocationFinished.of("failed", time=moment(9), message=f"failed: {step}"),
    ):
        log = apply(log, event)
    rendered = render(log)
    assert rendered.startswith(f"## ❌ `iris` failed at `{step}`\n")
    assert f"failed: {step}" not in rendered
    log.outcome, log.message = "cancelled", "as it was wished"
    assert render(log).startswith("## 🚫 `iris` was cancelled\n")
    assert "\nas it was wished\n" in render(log)


def test_what_cannot_be_done_is_not_offered() -> None:
    """A run that is not published cannot be pulled anywhere."""
    rendered = render(failed_log())
    assert "runnable-ci" not in rendered


@pytest.mark.parametrize(
    ("metrics", "base", "row"),
    [
        ({"a": 0.6}, {"a": 0.5}, ["a", "0.6", "0.5", "+0.1 (+20.0%)"]),
        ({"a": 3}, {"a": 3}, ["a", "3", "3", "same"]),
        ({"a": 1}, {"a": -2}, ["a", "1", "-2", "+3 (+150.0%)"]),
        ({"a": 1}, {"a": 0}, ["a", "1", "0", "+1"]),
        ({"a": 1}, {}, ["a", "1", "-", ""]),
        ({}, {"a": 1}, ["a", "-", "1", ""]),
        ({"a": [1]}, {"a": "NaN"}, ["a", "[1]", "NaN", ""]),
        ({"a": 10**400}, {"a": 0.5}, ["a", "1" + "0" * 98 + "…", "0.5", ""]),
    ],
)
def test_metrics_are_compared(metrics: dict[str, Any], base: dict[str, Any], row: list[str]) -> None:
    """Numbers with their difference from the base; what is missing or no number without."""
    log = run_log()
    log.steps["fit"].attempts[-1].user_defined_metrics = {
        name: Parameter(kind="metric", value=value) for name, value in metrics.items()
    }
    rows = rows_of(render(log, base=base, base_label="main"), "Metrics")
    assert rows == [["Metric", "Value", "main", "Change"], row]


def test_without_a_base_metrics_stand_alone() -> None:
    """No base run, no empty columns."""
    assert rows_of(render(run_log()), "Metrics") == [["Metric", "Value"], ["score", "0.6"]]


def test_a_notice_brings_its_fix() -> None:
    """What went wrong, and the YAML for it, in a box."""
    rendered = render(run_log(), notices=[Notice("Not published", "no `packages: write`", "permissions:\n  a: b")])
    assert (
        "> [!IMPORTANT]\n> **Not published**\n>\n> no `packages: write`\n>\n> ```yaml\n> permissions:\n>   a: b\n"
        in rendered
    )


def large_log(steps: int, text: str) -> RunLog:
    """A failed run with so many steps, each with this text wherever one fits."""
    log = RunLog(run_id="large")
    log = apply(log, started(1, 0))
    for i in range(steps):
        found = ExceptionInfo(type="E", message=text, traceback=text, file="a.py", line=1)
        one = attempt(1, 1, status=FAIL if i % 2 else SUCCESS, message=text, exception=found if i % 2 else None)
        one.user_defined_metrics = {f"m{i}": Parameter(kind="metric", value=i)}
        one.definition["needs"] = [f"step-{j}" for j in range(max(0, i - 3), i)]
        entries = [CatalogEntry(name=f"{i}/{text}", stage="put", size=1, data_hash="ab" * 32)]
        for event in saved(f"step-{i}", one, *entries):
            log = apply(log, event)
    log.status, log.message, log.end_time = FAIL, text, moment(9)
    return log


@pytest.mark.parametrize(("steps", "length"), [(10_000, 20), (300, 30_000), (1, 3_000_000)])
def test_the_largest_run_fits(steps: int, length: int) -> None:
    """Ten thousand steps or endless messages: below the limit, and the failures are still told."""
    rendered = render(large_log(steps, "ü`|<" * (length // 4)))
    assert len(rendered.encode()) < LIMIT_BYTES
    assert "### `step-1` failed" in rendered or steps == 1
    assert "more" in rendered or steps == 1
    assert rows_of(rendered, "Steps")


@given(st.lists(st.sampled_from(NASTY) | st.text(max_size=60), min_size=2, max_size=10, unique=True))
def test_names_cannot_break_the_graph(names: list[str]) -> None:
    """Each line is a node, an edge or a style of ours; a name is letters, digits and numbered characters."""
    needs = {name: names[:i] for i, name in enumerate(names)}
    first, *lines = flowchart(needs, dict.fromkeys(names, "failed")).split("\n")
    assert first in ("flowchart LR", "flowchart TD")
    for line in lines:
        assert re.fullmatch(
            r's\d+\["([^\W_]|[_-]|#\d+;)*"\]:::failed|s\d+ --> s\d+|classDef failed [a-z0-9:,#-]+', line
        )
    assert len(lines) == len(names) + sum(range(len(names))) + 1


def test_a_huge_graph_is_cut() -> None:
    """Mermaid refuses more than 500 edges or 50,000 characters; what failed is among the steps that are shown."""
    log = large_log(600, "x")
    for name in log.steps:
        log.steps[name].status = FAIL if name == "step-599" else SUCCESS
    rendered = render(log)
    graph = next(token.content for token in MARKDOWN.parse(rendered) if token.info == "mermaid")
    assert len(graph) < 50_000
    assert graph.count("-->") <= 400
    assert graph.count("]:::") == 100
    assert '["step-599"]:::failed' in graph
    assert "The graph shows 100 of 600 steps." in rendered


SHARED = large_log(60, "😀|`\n" * 300)


@settings(deadline=None, max_examples=40)
@given(st.integers(min_value=10, max_value=60_000))
def test_any_limit_is_kept(limit_bytes: int) -> None:
    """However little room there is, the summary fits and says how the run ended."""
    rendered = render(SHARED, limit_bytes=limit_bytes)
    assert len(rendered.encode()) <= limit_bytes
    assert "❌" in rendered or limit_bytes < 20


@pytest.mark.parametrize(
    ("identity", "states", "shown"),
    [
        (CodeIdentity(code_identifier="a" * 40, code_identifier_dependable=True, ref="main"), {}, "on `main` clean"),
        (DIRTY, {}, "**with uncommitted changes**"),
        (CodeIdentity(code_identifier_message="git says no"), {}, "Code: **not known**"),
        (CodeIdentity(code_identifier="b" * 40, code_identifier_message="git says no"), {}, "not known**"),
        (CodeIdentity(code_identifier="c" * 40, code_identifier_message="ignored"), {"k": "d" * 40}, "in the commit**"),
    ],
)
def test_what_is_known_of_the_code(identity: CodeIdentity, states: dict[str, str], shown: str) -> None:
    """Clean, changed, not what is in the commit, or unknown: each in its own words, whatever the message."""
    log = RunLog(run_id="r", code_states={key: CodeState(tree=tree) for key, tree in states.items()})
    finished = attempt(1, 1, identity, code_state="".join(states))
    for event in (started(1, 0), *saved("fit", finished), InvocationFinished.of("succeeded", time=moment(9))):
        log = apply(log, event)
    (line,) = (line for line in render(log).splitlines() if line.startswith("Code: "))
    assert shown in line
    titles = [one.title for one in annotations_for(log, SourceMap(PurePath("/"), PurePath("/"), PurePath("/")))]
    assert titles == (["the code of this run is not known"] if "not known" in line else [])


def test_mocked_steps_are_marked() -> None:
    """In the first line, and in the row of each."""
    log = run_log()
    name = next(name for name, step in log.steps.items() if step.attempts)
    log.steps[name].mock = True
    text = render(log)
    assert "1 mocked" in text.partition("### ")[0]
    marked = [row for row in rows_of(text, "Steps") if row[1].endswith(" (mock)")]
    assert [name in row[0] for row in marked] == [True]
