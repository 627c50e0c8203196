"""A step that was killed or failed has its own cause in `diff` and `explain`; what it did not come to is none."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
lr = 0.1
[steps.clean]
run = "bash clean.sh"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric" }
[steps.report]
run = "echo $score > report.txt"
catalog = { put = ["report.txt"] }
[steps.send]
run = "cat report.txt"
""",
    "data/raw.csv": "c,3\nb,2\na,1\n",
    "clean.sh": "set -e\n[ ! -e ../killed ] || kill -9 $$\nsort data/raw.csv > clean.csv\n",
    "train.py": "import os, time\n\n\ndef fit(lr):\n    rows = open('clean.csv').read().split()\n"
    "    return lr * sum(int(row.split(',')[1]) for row in rows)\n",
    ".gitignore": ".runnable\nclean.csv\nreport.txt\npid.tmp\n__pycache__\n",
}
WAITING = "def fit(lr):\n    open('pid.tmp', 'w').write(str(os.getpid()))\n    time.sleep(60)\n"


def _kill(made: Workspace, tool: subprocess.Popen[bytes]) -> None:
    os.kill(int(made.read("pid.tmp")), signal.SIGKILL)


def _kill_all(made: Workspace, tool: subprocess.Popen[bytes]) -> None:
    tool.kill()
    _kill(made, tool)


def _cancel(made: Workspace, tool: subprocess.Popen[bytes]) -> None:
    tool.send_signal(signal.SIGINT)


@dataclass(frozen=True)
class Ending:
    """What is changed for the second run, or done to it, and what is said of the step that ends otherwise."""

    step: str
    ends: str
    why: str
    differs: str = ""
    """What is said of its inputs; empty for nothing."""
    replaced: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
    """Files that are written before; one without content is removed."""
    done: Callable[[Workspace, subprocess.Popen[bytes]], None] | None = None
    """What is done once the step waits."""
    first: str = ""
    """Another step, which gives something else before it."""
    skipped: str = "`{step}` failed"
    """Why the steps behind it did not run."""


ENDINGS = {
    "killed": Ending("train", "failed", "ended by SIGKILL", "train.py changed", done=_kill),
    "killed, and nothing changed": Ending("clean", "failed", "ended by SIGKILL", written={"../killed": "1"}),
    "killed with the program": Ending(
        "train",
        "was interrupted",
        "the process that ran it was killed",
        done=_kill_all,
        skipped="`{step}` was interrupted",
    ),
    "cancelled": Ending("train", "was cancelled", "by SIGINT", done=_cancel, skipped="`{step}` was cancelled"),
    "its time was over": Ending(
        "train",
        "timed out",
        "after 0.02 min",
        "train.py changed",
        {
            "train.py": ("def fit(lr):\n", "def fit(lr):\n    time.sleep(60)\n"),
            "runnable.toml": (
                'returns = { score = "metric" }',
                'returns = { score = "metric" }\ntimeout-minutes = 0.02',
            ),
        },
    ),
    "an exit code": Ending(
        "clean", "failed", "exit code 7", "clean.sh changed", {"clean.sh": ("sort", "exit 7; sort")}
    ),
    "a signal in a script": Ending(
        "clean",
        "failed",
        "exit code 137: usually a command that was ended by SIGKILL",
        "clean.sh changed",
        {"clean.sh": ("sort", "sh -c 'kill -9 $$'\nsort")},
    ),
    "a crash": Ending(
        "train",
        "failed",
        "ended by SIGSEGV",
        "train.py changed",
        {"train.py": ("    rows", "    os.kill(os.getpid(), 11)\n    rows")},
    ),
    "an exception": Ending(
        "train",
        "failed",
        "ValueError: odd rows (train.py:5)",
        "train.py changed",
        {"train.py": ("    rows", "    raise ValueError('odd rows')\n    rows")},
    ),
    "a module that is missing": Ending(
        "train",
        "failed",
        "ModuleNotFoundError: No module named 'nowhere' (train.py:1)",
        "train.py changed",
        {"train.py": ("import os", "import nowhere, os")},
    ),
    "a file that is missing": Ending(
        "clean", "failed", "exit code 2", "data/raw.csv only in A", written={"data/raw.csv": ""}
    ),
    "data": Ending(
        "train",
        "failed",
        "ValueError: invalid literal for int() with base 10: 'two' (train.py:6)",
        "clean.csv changed",
        {"data/raw.csv": ("b,2", "b,two")},
        first="clean",
    ),
}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_its_own_cause_comes_first(ending: Ending, tmp_path: Path) -> None:
    """Of a pair, both ways round: how the step ended and why, what differs, and that those behind it follow."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "-j", "1", "-q", "--run-id", "good")
    _run_badly(made, ending)
    for words, names in (("good", "bad"), "AB"), (("bad", "good"), "BA"):
        found: dict[str, Any] = json.loads(made.runnable("diff", *words, "--json").out)
        said = [one["explanation"] for one in (found["first"], *found["further"])]
        if ending.first:
            assert said.pop(0).startswith(f"`{ending.first}` gives something else: ")
        how = {"A": "succeeded", "B": ending.ends}
        ends = " and ".join(f"{how[name]} in {'AB'[at]}" for at, name in enumerate(names))
        why = ending.why if names == "AB" else f"in A {ending.why}"
        differs = ending.differs if names == "AB" else _turned(ending.differs)
        assert said == [f"`{ending.step}` {ends}: {why}{differs and f'; {differs}'}"]
        assert found["pipeline"] == []
        steps = {one["name"]: one for one in found["steps"]}
        behind = [*steps][[*steps].index(ending.step) + 1 :]
        assert behind[-1] == "send"
        for name in behind:
            ended, whys = ([steps[name][f"{word}_{run}"] for run in "ab"] for word in ("in", "why"))
            assert sorted(ended) == ["skipped", "succeeded"]
            assert [*filter(None, whys)] == [ending.skipped.format(step=ending.step)]


def _run_badly(made: Workspace, ending: Ending) -> None:
    for name, (old, new) in ending.replaced.items():
        made.replace(name, old, new)
    for name, content in ending.written.items():
        made.write({name: content}) if content else (made.folder / name).unlink()
    if ending.done is None:
        made.runnable("run", "-j", "1", "-q", "--run-id", "bad", code=1)
        return
    made.replace("train.py", "def fit(lr):\n", WAITING)
    with made.start("run", "-j", "1", "-q", "--run-id", "bad") as tool:
        until = time.monotonic() + 60
        while not ((file := made.folder / "pid.tmp").exists() and file.read_text()) and time.monotonic() < until:
            time.sleep(0.05)
        ending.done(made, tool)
        tool.communicate(timeout=60)


def _turned(text: str) -> str:
    """What is said of the same difference with the runs the other way round."""
    return re.sub(r"only in ([AB])", lambda it: f"only in {'B' if it[1] == 'A' else 'A'}", text)


def test_both_failed(tmp_path: Path) -> None:
    """Of a step that failed in both runs, differently: each cause, and in which run."""
    made = workspace(tmp_path, FILES)
    made.replace("clean.sh", "sort", "exit 3; sort")
    made.runnable("run", "-q", "--run-id", "first", code=1)
    made.replace("clean.sh", "exit 3; sort", "exit 4; sort")
    made.runnable("run", "-q", "--run-id", "second", code=1)
    out = made.runnable("diff", "first", "second").out
    assert "first difference: `clean` failed in both: in A exit code 3, in B exit code 4; clean.sh changed\n" in out


def test_a_condition_is_a_cause(tmp_path: Path) -> None:
    """A step that its own condition skips is named with it, and those behind follow."""
    files = {
        **FILES,
        "runnable.toml": FILES["runnable.toml"].replace("[steps.report]", '[steps.report]\nif = "parameters.lr < 1"'),
    }
    made = workspace(tmp_path, files)
    made.runnable("run", "-q", "--run-id", "first")
    made.runnable("run", "-q", "--run-id", "second", "--param", "lr=1.5", code=1)
    out = made.runnable("diff", "first", "second").out
    assert "also: `report` succeeded in A and was skipped in B: the condition parameters.lr < 1 is false" in out


def test_explain_says_why(tmp_path: Path) -> None:
    """A killed step has no line that nobody knows, and each step behind it names the one that failed."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "-q", "--run-id", "good")
    made.write({"../killed": "1"})
    made.runnable("run", "-q", "--run-id", "bad", code=1)
    out = made.runnable("explain", "bad").out
    assert "`clean` failed: ended by SIGKILL\n" in out
    assert "".join(f"`{name}` did not run: `clean` failed\n" for name in ("train", "report", "send")) in out
    found = json.loads(made.runnable("explain", "bad", "--json").out)
    assert found["failures"][0]["message"] == "ended by SIGKILL"
    assert found["steps"]["skipped_because"] == dict.fromkeys(("train", "report", "send"), "`clean` failed")
