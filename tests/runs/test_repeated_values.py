"""Tests of large values in a run log: each stands once, whatever the number of steps that had it."""

from __future__ import annotations

import json
from pathlib import Path

from cli import Workspace, workspace

from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.events import decode_events
from runnable_ci.runs.model import RunLog

WORK = """
def make():
    return [f"row {number}" for number in range(5000)], "x" * 30_000
def use(rows, text, config):
    return len(rows) + len(text) + len(config)
"""
MAKE = '[parameters]\nconfig = "{}"\n[steps.make]\npython = "work:make"\nreturns = ["rows", "text"]\n'
USE = '[steps.use{0}]\npython = "work:use"\nreturns = {{ size{0} = "metric" }}\n'


def project_with(tmp_path: Path, uses: int) -> Workspace:
    """A repository with one step that returns large values, and some that take them."""
    steps = MAKE.format("c" * 20_000) + "".join(USE.format(number) for number in range(uses))
    folder = tmp_path / str(uses)
    folder.mkdir()
    return workspace(folder, {"runnable.toml": steps, "work.py": WORK})


def sizes(project: Workspace) -> tuple[int, int]:
    """Bytes of the journal, and of the document."""
    journal = project.store / "runs/r/journal.jsonl"
    return journal.stat().st_size, len(project.runnable("show", "r", "--json").raw)


def test_a_log_grows_by_what_is_new(tmp_path: Path) -> None:
    """Twelve steps more that take 120 kB each add less than these once; they are read back whole."""
    few, many = project_with(tmp_path, 2), project_with(tmp_path, 14)
    for project in (few, many):
        project.runnable("run", "--run-id", "r")
    for small, large in zip(sizes(few), sizes(many), strict=True):
        assert large - small < 100_000
        assert small < 400_000
    log = many.log("r")
    given = log.steps["use13"].attempts[0].input_parameters
    assert given["rows"].value == [f"row {number}" for number in range(5000)]
    assert (given["text"].value, given["config"].value) == ("x" * 30_000, "c" * 20_000)
    assert log.steps["use13"].attempts[0].user_defined_metrics["size13"].value == 55_000
    done = many.runnable("retry", "r", "-n")
    assert "reuse  unchanged" in done.out
    assert "run" not in {line.split()[1] for line in done.out.splitlines()}
    many.write({"work.py": WORK.replace("5000", "4999")})
    many.runnable("retry", "r")
    assert many.log("r").steps["use13"].attempts[-1].input_parameters["rows"].value[-1] == "row 4998"


def test_a_large_value_that_is_masked_later_is_nowhere(tmp_path: Path) -> None:
    """An input that only refers to it has a mask, which a retry takes for the same."""
    secret = "quite-a-secret-" + "0123456789"
    work = WORK.replace('"x" * 30_000', f'"x" * 2_000 + "{secret[:5]}" + "{secret[5:]}"')
    steps = MAKE.format("c") + USE.format(0) + f"[steps.mask]\nrun = \"echo '::add-mask::{secret}'\"\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "work.py": work})
    project.runnable("run", "--run-id", "r")
    raw = project.runnable("show", "r", "--json").raw
    journal = (project.store / "runs/r/journal.jsonl").read_bytes()
    assert secret.encode() not in raw + journal
    given = decode(raw, where="show").steps["use0"].attempts[0].input_parameters
    assert given["text"].redacted
    assert secret not in given["text"].value


def test_a_log_that_repeats_is_read(tmp_path: Path) -> None:
    """Earlier versions wrote each value whole; such a log stays what it was."""
    project = project_with(tmp_path, 1)
    project.runnable("run", "--run-id", "r")
    log = project.log("r")
    whole = json.dumps(log.model_dump()).encode()
    assert len(whole) > len(encode(log))
    assert decode(whole, where="it") == log == decode(encode(log), where="it")
    with (project.store / "runs/r/journal.jsonl").open("rb") as lines:
        found = decode_events(lines, where="it")
    assert isinstance(found, RunLog)
    assert found.steps["use0"].attempts[0].input_parameters == log.steps["use0"].attempts[0].input_parameters
