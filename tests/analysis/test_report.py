"""`report` writes the page of any run: one that still runs, was killed, is elsewhere, is large, or of an old log."""

from __future__ import annotations

import base64
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium
from cli import Workspace, elsewhere, workspace
from registry_server import registry
from support import WAIT_S

from runnable_ci.analysis.report.html import html
from runnable_ci.analysis.report.output import output_html
from runnable_ci.analysis.report.page import FoundForPage, page_of
from runnable_ci.runs.document import decode
from runnable_ci.runs.model import (
    CatalogEntry,
    DecisionRecord,
    ExceptionInfo,
    Invocation,
    Parameter,
    RunLog,
    StepAttempt,
    StepLog,
)

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
depth = 3
[steps.first]
run = "echo $depth > first.txt; echo printed by first"
catalog = { put = ["first.txt"] }
[steps.second]
run = "if [ -f wait ]; then echo waits; sleep 600; fi; cat first.txt"
""",
    ".gitignore": ".runnable\nfirst.txt\nwait\n*.html\n",
}
FILE_MAX_BYTES = 5_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline of two steps, that has not run."""
    return workspace(tmp_path, FILES)


def page(project: Workspace, *words: str) -> str:
    """The page that `report` writes."""
    name = project.runnable("report", *words).out.strip()
    return project.read(name)


def steps_of(text: str) -> dict[str, str]:
    """Label → state of the steps on a page."""
    return dict(re.findall(r"<b>([^<]*)</b> <span class=\"state\">([^<]*)</span>", text))


def test_the_file_has_the_run_s_name(project: Workspace) -> None:
    """Unless a place is given; an unwritable place is one clear error."""
    project.runnable("run", "--run-id", "r")
    assert project.runnable("report").out == ".runnable/reports/r.html\n"
    assert project.git("status", "--porcelain") == ""
    assert project.runnable("report", "r", "-o", "a.html").out == "a.html\n"
    assert project.read("a.html") == project.read(".runnable/reports/r.html")
    failed = project.runnable("report", "r", "-o", "no/such/folder/a.html", code=2)
    assert "no/such/folder" in failed.err


def test_a_run_that_still_runs_and_one_that_was_killed(project: Workspace) -> None:
    """The page says so; what is done is there."""
    project.write({"wait": ""})
    with project.start("run", "--run-id", "r") as running:
        deadline = time.monotonic() + WAIT_S
        while "waits" not in project.runnable("logs", "r").out if (project.store / "runs" / "r").exists() else True:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        text = page(project, "r")
        assert steps_of(text) == {"first": "succeeded", "second": "running"}
        assert '<span class="badge running"><span aria-hidden="true">…</span> running</span>' in text
        assert "printed by first\n" in text
        assert "still running" in text
        os.kill(running.pid, signal.SIGKILL)
    text = page(project, "r")
    assert "printed by first\n" in text
    (project.folder / "wait").unlink()
    project.runnable("retry", "r")
    assert steps_of(page(project, "r")) == {"first": "reused", "second": "succeeded"}


def test_a_run_of_a_registry_and_one_without_files(project: Workspace, tmp_path: Path) -> None:
    """A reference is shown with its files; of a run of which only the log was pulled, all but these."""
    with registry(tmp_path / "registry") as served:
        reference = served.repository()
        project.runnable("run", "--run-id", "r")
        project.runnable("publish", "r", "--to", reference)
        there = elsewhere(project, tmp_path)
        text = page(there, f"{reference}:r")
        assert "printed by first\n" in text
        assert '<pre tabindex="0">3\n</pre>' in text
        there.runnable("pull", f"{reference}:r", "--only", "log")
        text = page(there, "r")
        assert "printed by first\n" not in text
        assert "first.txt" in text
        assert steps_of(text) == {"first": "succeeded", "second": "succeeded"}


def test_secrets(tmp_path: Path) -> None:
    """Those in files of a run and in what differed from its commit are masked, by their form or by their variable."""
    token = "ghp_" + "a1B2c3D4e5" * 3 + "F6g7H8"
    made = workspace(
        tmp_path,
        {
            "runnable.toml": '[steps.a]\nrun = "python make.py"\ncatalog = { put = ["a.*"] }\n',
            "make.py": """
import json
secret = "ghp_" + "a1B2c3D4e5" * 3 + "F6g7H8"
for name in ("a.txt", "a.csv", "a.svg"):
    open(name, "w").write(f"<svg>{secret}, own-secret-word</svg>\\n")
cell = {"cell_type": "code", "source": secret, "outputs": [{"output_type": "stream", "text": "own-secret-word"}]}
json.dump({"cells": [cell]}, open("a.ipynb", "w"))
""",
            ".gitignore": ".runnable\n*.html\n*.txt\n*.csv\n*.ipynb\n*.svg\n",
            "other.py": "x = 1\n",
        },
    )
    made.write({"other.py": f"x = '{token}'\n"})
    made.environ.update(MINE="own-secret-word", RUNNABLE_CI_SECRETS="MINE")
    made.runnable("run", "--run-id", "r")
    text = page(made, "r")
    pictures = [base64.b64decode(one) for one in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)]
    assert len(pictures) == 1
    for secret in (token, "own-secret-word"):
        assert secret not in text
        assert secret.encode() not in pictures[0]
    assert "Of what differed from the commit this was not kept: <code>other.py</code>" in text


def test_nothing_ran(browser: Browser, tmp_path: Path) -> None:
    """A run without steps has a page that says what is not there."""
    file = tmp_path / "page.html"
    file.write_text(html(page_of(RunLog(run_id="r"), FoundForPage())))
    browser.open(file)
    assert browser.accessibility() == []
    said = browser.js("return [...document.querySelectorAll('.empty')].map((it) => it.textContent)")
    assert len(said) == 3


def test_a_log_of_the_first_version() -> None:
    """It has no decisions, outcomes or environments, and is shown for what it has."""
    log = decode((Path(__file__).parent.parent / "data" / "runlog-example.json").read_bytes(), where="example")
    text = html(page_of(log, FoundForPage()))
    assert steps_of(text)
    assert log.run_id in text


def large(steps: int, files: int = 0) -> RunLog:
    """A run of many steps, each tenth failed; each with values, a traceback where it failed, and files."""
    log = RunLog(run_id="large", name="large", status="FAIL", start_time="2026-01-01T00:00:00Z")
    log.end_time, log.outcome = "2026-01-01T01:00:00Z", "failed"
    names = [f"step_{at}" for at in range(steps)]
    for at, name in enumerate(names):
        begin, end = (f"2026-01-01T00:{at % 3600 // 60:02}:{at % 60:02}Z", f"2026-01-01T00:{at % 3600 // 60:02}:59Z")
        attempt = StepAttempt(start_time=begin, end_time=end)
        attempt.input_parameters = {f"value_{n}": Parameter(kind="json", value=n) for n in range(20)}
        attempt.end("failed" if at % 10 == 0 else "succeeded", "it failed" if at % 10 == 0 else "")
        if at % 10 == 0:
            trace = "\n".join(f'  File "train.py", line {n}, in fit' for n in range(30))
            attempt.exception = ExceptionInfo(type="ValueError", message="bad", traceback=trace)
        step = StepLog(name=name, internal_name=name, status=attempt.status, attempts=[attempt])
        step.outcome = attempt.outcome
        step.data_catalog = [
            CatalogEntry(name=f"file_{n}.txt", data_hash=f"{n:064x}", size=9, stage="put") for n in range(files)
        ]
        log.steps[name] = step
    decisions = {name: DecisionRecord(action="run", reason="new") for name in names}
    log.invocations = [Invocation(number=1, command="run", start_time=log.start_time, decisions=decisions)]
    return log


def test_a_thousand_steps(browser: Browser, tmp_path: Path) -> None:
    """The page stays small enough to open and filter on a phone: by its bytes and its elements, not by the clock."""
    log = large(1000, files=10)
    output = output_html("".join(f"\x1b[3{at % 8}mline {at}\x1b[0m\n" for at in range(30)))
    outputs = {f"{name}.1": (output, "") for name in log.steps}
    needs = {name: [f"step_{at // 2}"] if at else [] for at, name in enumerate(log.steps)}
    file = tmp_path / "page.html"
    file.write_text(html(page_of(log, FoundForPage(outputs=outputs), needs)))
    assert file.stat().st_size < FILE_MAX_BYTES
    browser.open(file)
    assert browser.js("return document.getElementsByTagName('*').length") < 160_000
    # What is not in sight is not laid out: a closed step costs its line.
    assert browser.js("return getComputedStyle(document.querySelector('.step')).contentVisibility") == "auto"
    assert browser.js("return document.querySelectorAll('.step[open]').length") == 3
    browser.driver.find_element("id", "find").send_keys("step_77")
    shown = browser.js("return document.querySelectorAll('.step:not([hidden])').length")
    assert shown == 11
    assert browser.js("return document.getElementById('count').textContent") == "11 of 1000 steps"
    assert browser.complaints() == []


def test_ten_thousand_files() -> None:
    """Some of them are on the page, with how many more there are."""
    text = html(page_of(large(1, files=10_000), FoundForPage()))
    assert text.count('class="file"') == 100
    assert "and 9900 more files" in text
    assert len(text) < 200_000


def test_fifty_megabytes_of_output(tmp_path: Path) -> None:
    """The page has how it began and how it ended."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": '[steps.a]\nrun = "echo begins; python much.py; echo ends"\n',
            "much.py": 'print("0123456789abcde\\n" * 3276800)\n',
            ".gitignore": ".runnable\n*.html\n",
        },
    )
    made.runnable("run", "--run-id", "r", "--quiet")
    text = page(made, "r")
    assert "begins\n" in text
    assert "\nends\n" in text
    assert "bytes are left out" in text
    assert len(text) < 100_000
