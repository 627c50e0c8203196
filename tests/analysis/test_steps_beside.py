"""What a step that ran beside another one read is none of that one's inputs, when two runs are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli import workspace

from runnable_ci.analysis.comparison.attempts import Attempted, input_differences, not_seen
from runnable_ci.observe.reads import FileRead, ListingRead, ReadSet
from runnable_ci.runs.model import StepAttempt, StepLog

PIPELINE = """
name = "beside"
[steps.first]
needs = []
python = "m:first"
catalog = { put = ["out.txt"] }

[steps.other]
needs = []
run = "for i in $(seq 30); do [ -f out.txt ] || sleep 0.1; done; od -An -N8 -tx1 /dev/urandom > n.txt"
catalog = { put = ["n.txt"] }
"""
MODULE = """
import os, pathlib, time

def first():
    while os.environ.get("LATE") and not os.path.exists("n.txt"):
        time.sleep(0.1)
    time.sleep(0.5)
    os.listdir(".")
    open("data.csv").read()
    pathlib.Path("out.txt").write_text("the same")
"""
FILES = {"runnable.toml": PIPELINE, "m.py": MODULE, "data.csv": "a,b\n", ".gitignore": ".runnable\n*.txt\nj.json\n"}


def tried(reads: ReadSet, *, made_by: str = "", there: str | None = "", waits: bool = False) -> Attempted:
    """An attempt that read this; `there` is what its run has at each path, made by one step or none."""
    attempt = StepAttempt(status="SUCCESS", definition={"run": "x"})
    return Attempted(
        StepLog(name="other", internal_name="other"),
        attempt,
        reads=reads,
        maker=lambda _path: made_by,
        waits_for=lambda _step: waits,
        content=lambda _path: there,
    )


def read(digest: str, grade: str = "possible") -> ReadSet:
    """A record of one file."""
    return ReadSet(files={"x": FileRead.model_validate({"digest": digest, "grade": grade})})


def listed(grade: str, *names: str) -> ReadSet:
    """A record of one listing."""
    return ReadSet(listings={"": ListingRead.model_validate({"names": names, "grade": grade})})


def found(a: Attempted, b: Attempted) -> list[str]:
    """The names of the inputs that differ, in both directions."""
    names = [one.name for one in input_differences(a, b)]
    assert names == [one.name for one in input_differences(b, a)]
    return names


@pytest.mark.parametrize(
    ("grade", "there", "expected"),
    [
        *[("possible", "1", []), ("possible", "2", []), ("possible", "", ["x"]), ("possible", None, ["x"])],
        ("seen", "1", ["x"]),
    ],
)
def test_what_only_one_may_have_read(grade: str, there: str | None, expected: list[str]) -> None:
    """It is no input where the run that surely did not read it had it too; else it may be one."""
    assert found(tried(ReadSet(), there=there), tried(read("1", grade), there="1")) == expected


@pytest.mark.parametrize(("waits", "grade", "expected"), [(False, "possible", []), (True, "possible", ["x"])])
def test_what_a_step_beside_made(waits: bool, grade: str, expected: list[str]) -> None:
    """What a step gave for which another one does not wait is no input of that, if it only may have read it."""
    one, other = (tried(read(digest, grade), made_by="first", there=digest, waits=waits) for digest in "12")
    assert found(one, other) == expected
    seen = (tried(read(digest, "seen"), made_by="first", there=digest) for digest in "12")
    assert found(*seen) == ["x"]


@pytest.mark.parametrize("grades", [("possible", "possible"), ("seen", "possible"), ("seen", "seen")])
def test_what_only_one_listing_has(grades: tuple[str, str]) -> None:
    """A name counts where one of the attempts surely listed the folder; else it is said that this is not known."""
    one, other = tried(listed(grades[0], "a", "j.json")), tried(listed(grades[1], "a"))
    is_sure = "seen" in grades
    assert found(one, other) == ["j.json"] * is_sure
    assert ("whether it listed j.json is not known" in not_seen(one, other, ("A", "B"))) is not is_sure


@pytest.mark.long("it starts each step again and again; the other tests of this file hold the rules")
def test_each_of_two_parallel_steps_has_its_own(tmp_path: Path) -> None:
    """Of steps that run at the same time none follows from another; each that is different is looked at, or it is said.

    What is the same each time now, but not as it was, takes what is not recorded.
    """
    module = MODULE.replace('"the same"', "str(os.urandom(4))").replace('open("data.csv").read()', "")
    module += '\ndef third():\n    return os.environ["LIMIT"]\n'
    toml = PIPELINE + '[steps.third]\nneeds = []\npython = "m:third"\nreturns = { limit = "json" }\n'
    made = workspace(tmp_path, FILES | {"m.py": module, "runnable.toml": toml})
    made.runnable("run", "-q", "--run-id", "first", "--jobs", "3", LIMIT="1")
    done = made.runnable("reproduce", "first", "--times", "2", code=1, LIMIT="2")
    assert "first varies, 2 results" in done.out
    assert "other varies, 2 results" in done.out
    print(done.out)
    assert "third is the same each time now: it differs from the run by what is not recorded" in done.out
    assert "follows from" not in done.out


def test_a_run_whose_steps_overlap_otherwise(tmp_path: Path) -> None:
    """A step that varies is `different`, though one beside it read a committed file, and listed what is left here."""
    made = workspace(tmp_path, FILES)
    made.write({"j.json": "{}"})
    made.runnable("run", "-q", "--run-id", "late", "--jobs", "2", LATE="1")
    done = json.loads(made.runnable("reproduce", "late", "--json", "-q", code=1).out)
    assert done["steps"]["other"]["verdict"] == "different", done
    assert "something else" not in done["steps"]["other"]["reason"]
    compared = json.loads(made.runnable("diff", "late", "late-again-1", "--json").out)
    assert [one["inputs"] for one in compared["steps"] if one["name"] == "other"] == [[]]
