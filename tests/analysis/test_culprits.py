"""`reproduce --times` finds the step that is not the same each time, and names and proves what makes it so.

Of the planted culprits some are drawn; all of them with `CULPRITS=all`. `CULPRITS_SEED` draws the same again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from culprits import BEFORE, CULPRITS, GITIGNORE, WRITTEN_OTHERWISE, shell

from runnable_ci.analysis.reproduction.determinism.holds import can_be_held
from runnable_ci.analysis.reproduction.determinism.results import of_definition
from runnable_ci.runs.model import StepAttempt

ALL = os.environ.get("CULPRITS") == "all"
SLOTS = len(CULPRITS) if ALL else 5
SEED = os.environ.get("CULPRITS_SEED") or os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(time.time_ns())


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A folder for the trees on a file system that lists what is newest first."""
    if not Path("/dev/shm").is_dir():  # noqa: S108
        yield {}
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield {"TMPDIR": folder}


def varying(made: Workspace, *words: str, code: int = 1, **variables: str) -> dict[str, Any]:
    """What `reproduce --times` says of the run `first`."""
    done = made.runnable("reproduce", "first", "--json", "-q", *words, code=code, **variables)
    found: dict[str, Any] = json.loads(done.out)
    return found


@pytest.mark.parametrize("slot", range(SLOTS))
def test_the_planted_culprit_is_named(slot: int, tmp_path: Path, listing: dict[str, str]) -> None:
    """The step is found, and its culprit named: proved by a run with that one thing held where that can be."""
    name = list(CULPRITS)[slot] if ALL else random.Random(SEED).sample(sorted(CULPRITS), SLOTS)[slot]  # noqa: S311
    print(f"CULPRITS_SEED={SEED}: {name}")
    planted = CULPRITS[name]
    assert [module for module in planted.needs if importlib.util.find_spec(module) is None] == []
    made = workspace(tmp_path, planted.files)
    made.runnable("run", "-q", "--run-id", "first")
    code = 0 if name in WRITTEN_OTHERWISE else 1
    found = varying(made, "--times", "4", code=code, **(listing if "listing-order" in planted.culprits else {}))
    said = f"{name}, CULPRITS_SEED={SEED}: {json.dumps(found['varies'], indent=1)}"
    assert list(found["varies"]) == ["it"], said
    it = found["varies"]["it"]
    assert tuple(it["culprits"][: len(planted.culprits)]) == planted.culprits, said
    assert it["proved"] == (planted.proved and all(map(can_be_held, planted.culprits))), said
    assert not it["proved"] or len(it["culprits"]) == len(planted.culprits), said


def test_no_culprit_for_what_is_the_same(tmp_path: Path) -> None:
    """A deterministic pipeline is made as often as was asked for, and nothing is named nor held."""
    made = workspace(tmp_path, {"runnable.toml": BEFORE, ".gitignore": GITIGNORE})
    made.runnable("run", "-q", "--run-id", "first")
    done = made.runnable("reproduce", "first", "--times", "3", "--json")
    found = json.loads(done.out)
    assert (found["verdict"], found["times"], found["varies"]) == ("reproduced", 3, {})
    assert "held at a time" not in done.err
    assert sorted(path.name for path in made.store.joinpath("runs").iterdir() if "again" in path.name) == [
        *[path.name for path in made.store.joinpath("runs").iterdir() if path.name.startswith("first-again-1")]
    ]


def test_what_is_said(tmp_path: Path) -> None:
    """As text: the step, what of it varies, the culprit, and that what follows from it is none of its own."""
    files = {**CULPRITS["python's random"].files}
    files["runnable.toml"] += "[steps.after]\nrun = 'echo $it > out.txt'\ncatalog = { put = ['out.txt'] }\n"
    made = workspace(tmp_path, files)
    made.runnable("run", "-q", "--run-id", "first")
    done = made.runnable("reproduce", "first", "--times", "3", code=1)
    assert "it varies, 3 results: the metric `it`" in done.out
    assert "proved: with random numbers without a seed (`random`, numpy) held it is the same 5 times" in done.out
    assert "after varies" not in done.out
    assert "run first: different, made 3 times" in done.out
    log = made.log("first-again-1")
    assert log.reproduction is not None
    assert log.reproduction.varies["it"].culprits == ["random"]
    assert [run for run in made.runnable("runs", "--experiments", "--json").out.splitlines() if "held" in run] == []


def test_a_second_step_has_its_own(tmp_path: Path) -> None:
    """What is made from something that varies, and varies itself, has its own culprit; what only follows has none."""
    toml = """name = "chain"
[steps.first]
python = "m:first"
catalog = { put = ["out-1.txt"] }
[steps.second]
python = "m:second"
catalog = { put = ["out-2.txt"] }
[steps.third]
run = "cat out-2.txt > out-3.txt"
catalog = { put = ["out-3.txt"] }
"""
    module = """import pathlib, random, uuid

def first():
    pathlib.Path("out-1.txt").write_text(str(uuid.uuid4()))

def second():
    pathlib.Path("out-2.txt").write_text(pathlib.Path("out-1.txt").read_text() + str(random.random()))
"""
    made = workspace(tmp_path, {"runnable.toml": toml, "m.py": module, ".gitignore": GITIGNORE})
    made.runnable("run", "-q", "--run-id", "first")
    found = varying(made, "--times", "3")
    named = {name: (one["culprits"], one["proved"]) for name, one in found["varies"].items()}
    assert named == {"first": (["system-random"], True), "second": (["random"], True)}, found


def test_what_cannot_be_held_is_not_likely(tmp_path: Path) -> None:
    """What was held while the step still varied is not called likely; what follows from that step is said, too."""
    script = "date > /dev/null; perl -e 1; od -An -N8 -tx1 /dev/urandom > out.txt"
    files = dict(shell(script, "system-random").files)
    files["runnable.toml"] += "[steps.after]\nrun = 'cat out.txt > out-2.txt'\ncatalog = { put = ['out-2.txt'] }\n"
    made = workspace(tmp_path, files)
    made.runnable("run", "-q", "--run-id", "first")
    done = made.runnable("reproduce", "first", "--times", "2", code=1)
    assert "likely:" not in done.out
    assert "with it held it still varied: random bytes of the system" in done.out
    assert "not proved: it varies with all held that can be, but nothing is in `perl`" in done.out
    assert "after varies, 2 results: out-2.txt" in done.out
    assert "what varies before it, in it, is not held" in done.out


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        *[("stat m.py", ["time"]), ("stat -c %y m.py | cut -c1-4", ["time"]), ("stat -c %i m.py", [])],
        *[("pwd > a; stat --format=%s a", ["path"]), ("ls -l", ["time"])],
    ],
)
def test_what_a_script_tells(script: str, expected: list[str]) -> None:
    """Only what tells a time speaks for the clock."""
    hints = of_definition(StepAttempt(definition={"run": script}))
    assert [culprit for one in hints for culprit in one.culprits] == expected
