"""Tests of what a terminal shows while a run lasts: one line, of what runs now, and nothing of it afterwards."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from cli import Workspace, on_terminal, screen, terminal, workspace
from support import WAIT_S, wait_until

from runnable_ci.cli.terminal import Running, shown_form, status_text
from runnable_ci.util.text import fitted, format_elapsed, width

BAR = r"""
import pathlib, sys, time
for done in (1, 2):
    sys.stderr.write(f"\r {done * 25}%|##  | {done}/4")
    sys.stderr.flush()
while not pathlib.Path("gate").exists():
    time.sleep(0.05)
sys.stderr.write("\r100%|####| 4/4\n")
"""
STEPS = """
[steps.train]
run = "python bar.py"
needs = []
[steps.watch]
run = "echo seen; until test -e gate; do sleep 0.05; done"
needs = []
[steps.last]
run = "echo end"
needs = ["train", "watch"]
"""
STATUS = "0 of 3 done, "


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """Two steps beside each other, of which one has a progress bar, that wait for the file `gate`."""
    files = {"runnable.toml": STEPS, "bar.py": BAR, ".gitignore": ".runnable\ngate\n"}
    return workspace(tmp_path, files)


def test_two_steps_and_a_progress_bar(project: Workspace) -> None:
    """Both steps are seen with the bar as it stands; it is recorded whole, and nothing of the status stays."""
    with on_terminal(project, "run", "--run-id", "r") as shown:
        shown.read_until(STATUS + r"\d+ s: train \d+ s 50%\|##  \| 2/4, watch \d+ s\r|watch \d+ s, train \d+ s 50%")
        (project.folder / "gate").touch()
        lines = screen(shown.rest())
        assert shown.process.wait() == 0
    assert lines[0] == "run r: project, 3 steps"
    assert lines[-2:] == ["run r: SUCCESS", ""]
    assert {re.sub(r"\d+\.\d s", "T s", line) for line in lines[1:-2]} == {
        "train | 100%|####| 4/4",
        "train | ✓ T s",
        "watch | seen",
        "watch | ✓ T s",
        "last  | end",
        "last  | ✓ T s",
    }
    assert project.runnable("logs", "r", "train").out == "\r 25%|##  | 1/4\r 50%|##  | 2/4\r100%|####| 4/4\n"


def test_each_status_can_be_erased_in_a_narrower_terminal(project: Workspace) -> None:
    """The cursor is put at the begin of the line, which all terminals keep there; it is erased before what comes."""
    with on_terminal(project, "run") as shown:
        shown.read_until(STATUS)
        (project.folder / "gate").touch()
        written = shown.rest()
    statuses = re.split(r"(?=\d of 3 done)", written)[1:]
    assert statuses
    assert all(re.match(r"[^\r\n]*\r\r\x1b\[K\x1b\[C\x1b\[J\r", text) for text in statuses)


def test_ctrl_c(project: Workspace) -> None:
    """Neither the status nor what the terminal shows of the key is in what stays."""
    with on_terminal(project, "run", "--run-id", "r") as shown:
        shown.read_until(STATUS)
        os.write(shown.master, b"\x03")
        lines = screen(shown.rest())
        assert shown.process.wait() == 128 + signal.SIGINT
    assert "^C" in shown.written
    assert [line for line in lines if "done" in line or "^C" in line] == []
    assert lines[-1] == ""


def test_a_signal_that_ends_it_at_once(project: Workspace) -> None:
    """Also the third Ctrl-C leaves no status."""
    steps = "[steps.a]\nrun = \"trap '' INT TERM; touch begun; until test -e gate; do sleep 0.05; done\"\n"
    project.write({"runnable.toml": steps})
    with on_terminal(project, "run", "--run-id", "r") as shown:
        wait_until((project.folder / "begun").exists, "the step")
        shown.read_until("0 of 1 done")
        for _ in range(3):
            os.write(shown.master, b"\x03")
        lines = screen(shown.rest())
        assert shown.process.wait(WAIT_S) == 128 + signal.SIGINT
    assert [line for line in lines if "of 1 done" in line] == []


@pytest.mark.parametrize(
    ("words", "kind", "job"), [(["--quiet"], "xterm", ""), ([], "dumb", ""), ([], "xterm", "true")]
)
def test_where_there_is_no_status(tmp_path: Path, words: list[str], kind: str, job: str) -> None:
    """Nothing is written over where it was not asked for, or cannot be: in a job a terminal is a file."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'sleep 1.7'\n"})
    written = terminal(project, "run", *words, TERM=kind, CI=job)
    assert "of 1 done" not in written
    assert "\r" not in written.replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        (80, "3 of 9 done, 1 h 02 min: train 12 min 45%|████      | 450/1000, eval (gut) 3 s"),
        (60, "3 of 9 done, 1 h 02 min: train 12 min 45%|█…, eval (gut) 3 s"),
        (54, "3 of 9 done, 1 h 02 min: train 12 min, eval (gut) 3 s"),
        (50, "3 of 9 done, 1 h 02 min: train 12 min and 1 more"),
        (49, "3 of 9 done, 1 h 02 min: train 12 min and 1 more"),
    ],
)
def test_what_fits(columns: int, text: str) -> None:
    """Steps come before their progress bars, and what is left out is said."""
    running = [Running("train", 12 * 60 + 31, "45%|████      | 450/1000"), Running("eval (gut)", 3.9)]
    shown = status_text(3, 9, 3723, running, columns=columns)
    assert shown == text
    assert width(shown) <= columns


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"\r 45%|##  |", "45%|##  |"),
        (b"1%\r2%\r", "2%"),
        (b"50%\r      \r", ""),
        (b"\x1b[2K\x1b[1G\x1b[32m5/9\x1b[0m", "5/9"),
        (b"\x1b]8;;http://a\x07link\x1b]8;;\x07", "link"),
        ("é".encode()[:1], "�"),
        (b"a\x08\x00b", "a??b"),
    ],
)
def test_the_last_form_of_a_line(line: bytes, shown: str) -> None:
    """What was written over, colours and moves of the cursor are not shown."""
    assert shown_form(line) == shown


def test_wide_characters_take_two_columns() -> None:
    """A status that were longer than the terminal's line could not be erased."""
    assert width("日本 a") == 6
    assert fitted("日本 abc", 6) == "日本 …"
    assert width(fitted("日本語", 4)) <= 4
    assert fitted("abc", 0) == ""
    assert [format_elapsed(s) for s in (7.9, 185, 725, 3723)] == ["7 s", "3 min 05 s", "12 min", "1 h 02 min"]
