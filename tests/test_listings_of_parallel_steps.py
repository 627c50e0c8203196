"""Tests of folders that python steps list while others make and remove names in them: the real program."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cli import Workspace, workspace

from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.observe.reads import ListingRead
from runnable_ci.runs.reader import catalog_of
from runnable_ci.store.local import Layout

MODULE = """
import os, pathlib, time
def wait_for(name):
    while not os.path.exists(os.environ["SIGNS"] + name):
        time.sleep(0.01)
def sign(name):
    open(os.environ["SIGNS"] + name, "w").close()
def one():
    first = os.environ["FIRST"]
    sign("one")
    if first == "list":
        found = os.listdir("data"); sign("listed"); wait_for("made")
    else:
        wait_for("made"); found = sorted(p.name for p in pathlib.Path("data").iterdir()); sign("listed")
    wait_for("written")
    return len(open("data/a.csv").read())
def two():
    wait_for("one")
    if os.environ["FIRST"] == "list":
        wait_for("listed")
    open("data/by_chance.tmp", "w").close()
    os.mkdir("data/sub")
    open("data/two.csv", "w").close()
    sign("made"); wait_for("listed")
    os.unlink("data/by_chance.tmp")
    open("data/sub/b.csv", "w").write("2")
    sign("written")
"""
STEPS = """
[steps.one]
needs = []
python = "m:one"
reuse = "any-run"
env-read = ["FIRST"]
returns = ["n"]
[steps.two]
needs = []
python = "m:two"
env-read = ["FIRST"]
catalog = { put = ["data/two.csv", "data/sub/*.csv"] }
[steps.last]
needs = ["one", "two"]
run = "exit 1"
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project where `one` lists a folder while `two` writes to it: which of them does first is in `FIRST`."""
    ignored = "__pycache__/\ndata/two.csv\ndata/sub/\n"
    return workspace(tmp_path, {"runnable.toml": STEPS, "m.py": MODULE, "data/a.csv": "1", ".gitignore": ignored})


def run(project: Workspace, first: str) -> str:
    """Run all with a clean folder, and return the run's id."""
    for name in ("data/two.csv", "data/sub/b.csv"):
        (project.folder / name).unlink(missing_ok=True)
    if (project.folder / "data/sub").exists():
        (project.folder / "data/sub").rmdir()
    with TemporaryDirectory() as signs:
        project.runnable("run", "-j", "2", code=1, FIRST=first, SIGNS=f"{signs}/")
    return project.log().run_id


def listing(project: Workspace) -> ListingRead:
    """Return what `one` listed in the newest run."""
    log = project.log()
    found = reads_of(catalog_of(Layout(project.store), log), "one.1", log.steps["one"].attempts[-1])
    assert found is not None
    return found.listings["data"]


def test_a_listing_is_what_was_shown(project: Workspace) -> None:
    """Names that came after it are not in it; those beside it are uncertain: no change, no cause, and no proof."""
    before = run(project, "list")
    assert listing(project) == ListingRead(names=["a.csv"])
    beside = run(project, "make")
    assert listing(project) == ListingRead(names=["a.csv"], unsettled=["by_chance.tmp", "sub", "two.csv"])
    plan = project.runnable("retry", beside, "--dry-run", FIRST="make").out
    assert [line.split()[:2] for line in plan.splitlines()][:2] == [["one", "reuse"], ["two", "reuse"]]
    compared = json.loads(project.runnable("diff", before, beside, "--json").out)
    one = next(step for step in compared["steps"] if step["name"] == "one")
    assert [it["name"] for it in one["inputs"]] == ["FIRST"]
    assert "data/two.csv is not known, as other steps ran beside it" in one["not_seen"]


def test_an_uncertain_listing_proves_nothing(project: Workspace) -> None:
    """Another run takes no result of a step that may have listed what a step beside it made."""
    run(project, "make")
    run(project, "make")
    reason = project.log().invocations[-1].decisions["one"].reason
    assert "whether it listed data/by_chance.tmp, data/sub, data/two.csv is not known" in reason


def test_what_a_person_adds_meanwhile_is_a_change(project: Workspace) -> None:
    """A name that no step made, and that is still there, counts: nobody knows whether it was listed."""
    run(project, "make")
    project.write({"data/two.csv": "", "data/c.csv": ""})
    plan = project.runnable("retry", "latest", "--dry-run", FIRST="make").out
    assert "c.csv is new in data, which it listed" in plan
