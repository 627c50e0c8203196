"""Metrics of instances of a matrix, rounds of a loop and steps of another file stand beside those of another run."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium
from cli import Workspace, workspace

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.runs import RunRead, compare
from runnable_ci.github.pull_request import CommentFacts, comment

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
lr = 0.1
error = 1.0
organs = ["gut", "heart", "brain"]
[steps.train]
python = "train:fit"
returns = { score = "metric" }
strategy = { matrix = { organ = "${{ parameters.organs }}" } }
[steps.tune]
needs = []
python = "train:tune"
returns = { error = "metric" }
loop = { until = "parameters.error < 0.3", max = 4 }
[steps.inner]
needs = []
uses = "./inner.toml"
""",
    "inner.toml": '[parameters]\nlr = 0.1\n[steps.a]\npython = "train:inner"\nreturns = { depth = "metric" }\n',
    "train.py": "def fit(organ, lr):\n    return len(organ) * lr\ndef tune(error):\n    return error / 2\n"
    "def inner(lr):\n    return 4\n",
    ".gitignore": ".runnable\n*.html\n__pycache__\n",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two runs, of which the second has another value, another organ, and one round more."""
    made = workspace(tmp_path_factory.mktemp("instances"), FILES)
    made.runnable("run", "--run-id", "one")
    more = ("lr=0.2", 'organs=["gut", "lung"]', "error=2.0")
    made.runnable("run", "--run-id", "two", *(word for one in more for word in ("--param", one)))
    return made


ROWS = {
    ("score", "train (gut)"): (0.3, 0.6),
    ("score", "train (lung)"): (None, 0.8),
    ("score", "train (heart)"): (0.5, None),
    ("score", "train (brain)"): (0.5, None),
    ("error", "tune (round 1)"): (0.5, 1.0),
    ("error", "tune (round 2)"): (0.25, 0.5),
    ("error", "tune (round 3)"): (None, 0.25),
    ("depth", "inner / a"): (4, 4),
}


def test_each_beside_the_other(project: Workspace) -> None:
    """Also those that only one run has; `diff` shows what differs in place of the list, in all forms."""
    found = json.loads(project.runnable("diff", "one", "two", "--json").out)["instance_metrics"]
    rows = {(one["name"], one["instance"]): (one["before"], one["after"]) for one in found}
    assert rows.keys() == ROWS.keys()
    for key, (before, after) in ROWS.items():
        assert rows[key] == (pytest.approx(before) if before else None, pytest.approx(after) if after else None)
    text = project.runnable("diff", "one", "two").out
    assert "also: `tune (round 1)` gives something else: `error` 1 → 2\n" in text
    assert "`error` (by tune (round 1))" in text
    assert "score: train (gut)     0.3   0.6   +0.3 (+100.0%)\n" in text
    assert "score: train (heart)   0.5   -\n" in text
    assert "depth" not in text
    assert "[0.3" not in text
    assert "| `score: train (lung)` | `-` | `0.8` |" in project.runnable("diff", "one", "two", "--markdown").out
    assert ">score: train (lung)</th><td>-</td><td>0.8</td>" in project.runnable("diff", "one", "two", "--html").out


def test_over_runs(project: Workspace) -> None:
    """`metrics` has each instance by itself, by the metric's name or its own; the listings have them too."""
    out = project.runnable("metrics", "score").out
    assert [line.split("  ")[-1].strip() for line in out.splitlines() if line.startswith("RUN")] == [
        f"score: train ({organ})" for organ in ("gut", "heart", "brain", "lung")
    ]
    assert "score" not in project.runnable("metrics", "error: tune (round 3)").out
    assert "did you mean" in project.runnable("metrics", "score: train (gutt)", code=2).err
    (row, _) = csv.DictReader(io.StringIO(project.runnable("runs", "--csv").out))
    assert float(row["instances.score.train (gut)"]) == pytest.approx(0.3)
    listed = json.loads(project.runnable("runs", "--json").out)[1]["instance_metrics"]
    assert listed["error"] == {"tune (round 1)": 1.0, "tune (round 2)": 0.5, "tune (round 3)": 0.25}


def test_on_a_pull_request(project: Workspace) -> None:
    """The comment has them below their metric."""
    one, two = project.log("one"), project.log("two")
    compared = compare(RunRead(one), RunRead(two), compare_code(one, two, None))
    text = comment("", two, compared, CommentFacts("main"))
    assert "| `score: train (gut)` | `0.6` | `0.3` | `+0.3 (+100.0%)` |" in text
    assert "| `score: train (brain)` | `-` | `0.5` |" in text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as found:
        yield found


def test_in_the_report(project: Workspace, browser: Browser) -> None:
    """Each has its value, its change and its line over the runs."""
    page = project.folder / "two.html"
    project.runnable("report", "two", "-o", str(page), "--against", "one")
    browser.open(page)
    shown = browser.js("return [...document.querySelectorAll('.metrics li')].map((it) => it.textContent)")
    (gut,) = (text for text in shown if text.startswith("score: train (gut)"))
    assert "+0.3 (+100.0%) from 0.3" in gut
    assert "2 runs since one: 0.3 to 0.6" in gut
    assert browser.accessibility() == []


def test_the_page_of_a_comparison(project: Workspace, browser: Browser, tmp_path: Path) -> None:
    """It is one file that asks for nothing, and says what the text says."""
    options = ("--fail-if", "error > 0", "--logs", "tune (round 1)")
    page = tmp_path / "diff.html"
    page.write_text(project.runnable("diff", "one", "two", "--html", *options, code=1).out)
    browser.open(page, width=390, dark=True)
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    assert browser.accessibility() == []
    shown = browser.js("return document.body.textContent")
    for line in project.runnable("diff", "one", "two").out.splitlines():
        if line.startswith(("first difference", "also:")):
            assert line.replace("`", "") in shown
    assert "fails" in shown
    assert "--json and --html" in project.runnable("diff", "one", "two", "--html", "--json", code=2).err
