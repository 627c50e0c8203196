"""A retry of a run of which content is lost: the step that made it runs again, and its reason says so."""

from __future__ import annotations

from pathlib import Path

from cli import Workspace, elsewhere, workspace
from registry_server import registry
from support import blobs

from runnable_ci.runs.model import SUCCESS

PIPELINE = """
[steps.load]
run = "cat source.txt > data.bin; echo load >> ran.log"
catalog = { put = ["data.bin"] }
[steps.objects]
python = "work:make"
returns = { thing = "object" }
catalog = { get = ["data.bin"] }
[steps.aside]
needs = []
run = "echo aside > aside.bin; echo aside >> ran.log"
catalog = { get = [], put = ["aside.bin"] }
[steps.use]
needs = ["objects", "aside"]
python = "work:use"
returns = ["size"]
catalog = { get = [] }
"""
WORK = """
def note(name):
    with open("ran.log", "a") as file:
        file.write(name + "\\n")
def make():
    note("objects")
    return {"data": open("data.bin").read()}
def use(thing):
    note("use")
    return len(thing["data"]) + missing
"""
FILES = {"runnable.toml": PIPELINE, "work.py": WORK, "source.txt": "1234", ".gitignore": "*.bin\n*.log\n__pycache__/\n"}


def ran(project: Workspace) -> list[str]:
    """The steps that ran since this was asked last."""
    names = project.read("ran.log").split()
    (project.folder / "ran.log").unlink(missing_ok=True)
    return names


def failed(tmp_path: Path) -> tuple[Workspace, dict[str, str]]:
    """A project whose last step failed and is fixed, and the sha256 of what the others made, by name."""
    project = workspace(tmp_path, FILES)
    project.runnable("run", "-j", "1", "--run-id", "r", code=1)
    assert ran(project) == ["load", "objects", "aside", "use"]
    project.write({"work.py": WORK.replace(" + missing", "")})
    steps = project.log().steps
    made = {entry.name: entry.data_hash for step in steps.values() for entry in step.put_entries()}
    made["thing"] = steps["objects"].attempts[-1].output_parameters["thing"].data_hash
    return project, made


def lose(project: Workspace, *digests: str) -> None:
    """Remove content from the store, as a damaged disk or a clean-up by hand does."""
    for digest in digests:
        blobs(project.store)[digest].unlink()


def test_a_lost_object_is_made_again(tmp_path: Path) -> None:
    """The step that returned it runs, by the file that an earlier one made; what nobody needs may be lost."""
    project, made = failed(tmp_path)
    lose(project, made["thing"], made["aside.bin"])
    (project.folder / "aside.bin").unlink()
    planned = project.runnable("retry", "r", "-n").out
    assert "objects  run    `thing`, which it returned, is not in the store" in planned
    project.runnable("retry", "r", "-j", "1")
    assert ran(project) == ["objects", "use"]
    assert (project.log().status, project.log().steps["objects"].attempts[-1].reason) == (
        SUCCESS,
        "`thing`, which it returned, is not in the store",
    )


def test_what_it_was_made_from_is_lost_too(tmp_path: Path) -> None:
    """A step that runs again takes more, which may be lost as well: all that is needed runs."""
    project, made = failed(tmp_path)
    lose(project, made["thing"], made["data.bin"])
    (project.folder / "data.bin").unlink()
    project.runnable("retry", "r", "-j", "1")
    assert ran(project) == ["load", "objects", "use"]
    log = project.log()
    assert log.steps["load"].attempts[-1].reason == "data.bin, which it made, is not in the store"
    assert log.steps["use"].attempts[-1].output_parameters["size"].value == 4


def test_a_file_that_is_still_in_the_workspace_is_not_lost(tmp_path: Path) -> None:
    """The store need not have what lies in the workspace as it was made."""
    project, made = failed(tmp_path)
    lose(project, made["thing"], made["data.bin"])
    project.runnable("retry", "r", "-j", "1")
    assert ran(project) == ["objects", "use"]


def test_hours_of_lost_work_are_asked_for(tmp_path: Path) -> None:
    """Where that takes long a person must agree; there is nothing that could be accepted instead."""
    project, made = failed(tmp_path)
    lose(project, made["thing"])
    refused = project.runnable("retry", "r", code=2, RUNNABLE_CI_ASK_MINUTES="0")
    assert "to repeat it: runnable-ci retry r --rerun-changed" in refused.err
    assert "--accept" not in refused.err
    project.runnable("retry", "r", "-j", "1", "--rerun-changed", RUNNABLE_CI_ASK_MINUTES="0")
    assert ran(project) == ["objects", "use"]


def test_content_that_the_registry_lost(tmp_path: Path) -> None:
    """In another clone what cannot be fetched is made again; a registry that does not answer is an error instead."""
    project, made = failed(tmp_path)
    project.commit()
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("publish", "r", "--to", repository)
        other = elsewhere(project, tmp_path)
        other.runnable("pull", f"{repository}:r", "--only", "log")
        for path in (tmp_path / "registry").rglob(made["thing"]):
            (path / "data").unlink(missing_ok=True)
        other.runnable("retry", "r", "-j", "1")
        assert ran(other) == ["objects", "use"]
        reason = other.log().steps["objects"].attempts[-1].reason
        assert reason == f"`thing`, which it returned, is neither in the store nor in {repository}"
        third = elsewhere(project, tmp_path, "third")
        third.runnable("pull", f"{repository}:r", "--only", "log")
    unreachable = third.runnable("retry", "r", code=1)
    assert "error: " in unreachable.err
    assert ran(third) == []


CUT_OFF = """
[steps.source]
run = "head -c 3 source.txt > short.bin"
catalog = { put = ["short.bin"] }
[steps.middle]
run = "cat short.bin > middle.bin; echo middle >> ran.log"
catalog = { put = ["middle.bin"] }
[steps.last]
run = "cat middle.bin"
"""


def test_early_cut_off_in_another_clone(tmp_path: Path) -> None:
    """A step that is reused after all, since what it got is the same, gives its files there too."""
    project = workspace(tmp_path, FILES | {"runnable.toml": CUT_OFF.replace('cat middle.bin"', 'false"')})
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        project.runnable("run", "-j", "1", "--run-id", "r", "--to", repository, code=1)
        other = elsewhere(project, tmp_path)
        other.write({"source.txt": "1230", "runnable.toml": CUT_OFF})
        done = other.runnable("retry", f"{repository}:r", "-j", "1")
    assert done.out == "last   | 123\n"
    assert [len(step.attempts) for step in other.log().steps.values()] == [2, 1, 2]
    assert (ran(other), other.read("middle.bin")) == ([], "123")


def test_a_finished_run_is_made_whole_again(tmp_path: Path) -> None:
    """What is in the workspace is stored again; a step of which something is lost runs, though nothing else does."""
    project, made = failed(tmp_path)
    project.runnable("retry", "r")
    ran(project)
    lose(project, made["aside.bin"], made["data.bin"])
    (project.folder / "aside.bin").unlink()
    planned = project.runnable("retry", "r", "-n").out
    assert "aside    run    aside.bin, which it made, is not in the store" in planned
    project.runnable("retry", "r")
    assert (ran(project)[0], project.log().status) == ("aside", SUCCESS)
    done = project.runnable("retry", "r")
    assert "stored data.bin again, which the store had lost\n" in done.err
    assert ran(project) == []
    (project.folder / "data.bin").unlink()
    project.runnable("catalog", "r", "--get", "data.bin")
    assert project.read("data.bin") == "1234"


def test_lost_output_is_named(tmp_path: Path) -> None:
    """With the step, and the command that makes it again."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.say]\nrun = "echo said"\n'})
    project.runnable("run", "--run-id", "r")
    lose(project, *blobs(project.store))
    lost = project.runnable("logs", "r", code=1).err
    assert lost.startswith("error: the output of `say`, attempt 1, is lost: ")
    assert "; `runnable-ci retry r --from say` runs the step again\n" in lost
