"""A retry in another environment: what differs is named once, and re-runs nothing unless that is asked for."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from cli import Workspace, workspace

PIPELINE = """
python = ".venv/bin/python"
[steps.one]
needs = []
python = "work:one"
[steps.two]
needs = []
python = "work:two"
[steps.child]
needs = []
python = "work:child"
[steps.last]
needs = []
run = "exit 3"
"""
WORK = """
def one():
    import alpha_x
def two():
    import beta
def child():
    import subprocess, sys
    subprocess.run([sys.executable, "-c", "import beta"], check=True)
"""


def install(project: Workspace, name: str, version: str) -> None:
    """Put a distribution of one module into the project's environment, in place of another version."""
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(project.folder / ".venv")}))
    for old in packages.glob(f"{name}-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{name}.py,,\n")
    (packages / f"{name}.py").write_text(f"VERSION = '{version}'\n")


def become(project: Workspace, version: str) -> None:
    """Have the project's interpreter say that it is of another version."""
    packages = Path(sysconfig.get_path("purelib", "venv", vars={"base": str(project.folder / ".venv")}))
    (packages / "sitecustomize.py").write_text(
        f"import sys\nsys.version = '{version} ' + sys.version.partition(' ')[2]\n"
    )


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A project whose last step has failed, with two packages in its environment."""
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, "work.py": WORK, ".gitignore": ".venv/\n__pycache__\n"})
    venv.create(made.folder / ".venv", symlinks=True)
    install(made, "alpha_x", "1.0")
    install(made, "beta", "1.0")
    made.runnable("run", "--run-id", "r", "-j", "1", code=1)
    return made


def plan(project: Workspace, *arguments: str) -> tuple[dict[str, str], list[str]]:
    """Step → what a retry would do with it, and why; and the notes."""
    done = project.runnable("retry", "r", "-n", *arguments)
    lines = (line.split(maxsplit=1) for line in done.out.splitlines())
    return {name: " ".join(rest.split()) for name, rest in lines}, done.err.splitlines()


def test_a_changed_package_is_named_with_who_imported_it(project: Workspace) -> None:
    """One note for the run, and no step runs again; of a step with child processes anything may have been imported."""
    install(project, "alpha_x", "2.0")
    decisions, notes = plan(project)
    assert {name: reason for name, reason in decisions.items() if name != "last"} == dict.fromkeys(
        ("one", "two", "child"), "reuse unchanged since attempt 1"
    )
    assert notes == ["note: other than for reused steps: alpha-x 1.0 → 2.0 (one, child); --rerun packages re-runs them"]
    done = project.runnable("retry", "r", "-j", "1", code=1)
    assert done.err.count("alpha-x 1.0 → 2.0") == 1


def test_rerun_packages(project: Workspace) -> None:
    """On request the steps run again that imported what changed, and no others; that needs no further word."""
    install(project, "alpha_x", "2.0")
    decisions, notes = plan(project, "--rerun", "packages")
    assert decisions == {
        "one": "run --rerun packages: alpha-x 1.0 → 2.0",
        "two": "reuse unchanged since attempt 1",
        "child": "run --rerun packages: alpha-x 1.0 → 2.0",
        "last": "run attempt 1 failed: exit code 3",
    }
    assert notes == []
    project.runnable("retry", "r", "--rerun", "packages", "-j", "1", code=1, RUNNABLE_CI_ASK_MINUTES="0")
    assert plan(project)[0]["one"] == "reuse unchanged since attempt 2"


def test_a_new_and_a_removed_package(project: Workspace) -> None:
    """A package that is new or gone is a difference for steps that may have imported it."""
    install(project, "gamma", "0.1")
    assert plan(project)[1] == [
        "note: other than for reused steps: gamma not installed → 0.1 (child); --rerun packages re-runs them"
    ]


def test_another_image(project: Workspace) -> None:
    """Another container image is named with the steps that ran in another or none; on request they run again."""
    inside = Workspace(
        project.folder, {**project.environ, "RUNNABLE_CI_CONTAINER_IMAGE_DIGEST": f"img@sha256:{'a' * 64}"}
    )
    difference = f"image none → sha256:{'a' * 64}"
    notes = inside.runnable("retry", "r", "-n").err
    assert notes.startswith(f"note: other than for reused steps: {difference} (one, two, child); ")
    inside.runnable("retry", "r", "--rerun", "packages", "-j", "1", code=1, RUNNABLE_CI_ASK_MINUTES="0")
    attempts = {name: step.attempts for name, step in project.log().steps.items()}
    assert attempts.pop("last")[-1].reason == "attempt 1 failed: exit code 3"
    assert {name: found[-1].reason for name, found in attempts.items()} == dict.fromkeys(
        attempts, f"--rerun packages: {difference}"
    )
    assert "other than for" not in inside.runnable("retry", "r", "-n").err
    back = project.runnable("retry", "r", "-n").err
    assert f"image sha256:{'a' * 64} → none (one, two, child)" in back


def test_another_python(project: Workspace) -> None:
    """Another X.Y is named with all that ran with the earlier one; on request they run again.

    A command, which finds another Python on its PATH, is none of them.
    """
    project.write({"runnable.toml": PIPELINE.replace("exit 3", "exit 0") + "[steps.end]\nrun = 'false'\n"})
    project.runnable("retry", "r", "-j", "1", code=1)
    become(project, "3.99.1")
    decisions, notes = plan(project)
    assert {reason.split()[0] for name, reason in decisions.items() if name != "end"} == {"reuse"}
    [note] = notes
    before = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert note == (
        f"note: other than for reused steps: cpython {before} → cpython 3.99 (one, two, child); "
        "--rerun packages re-runs them"
    )
    again, _ = plan(project, "--rerun", "packages")
    reason = f"run --rerun packages: cpython {before} → cpython 3.99"
    assert {name: text for name, text in again.items() if text == reason} == dict.fromkeys(
        ("one", "two", "child"), reason
    )
    project.runnable("retry", "r", "--rerun", "packages", "-j", "1", code=1)
    become(project, "3.99.2")
    assert plan(project)[1] == []


def test_what_is_whole_comes_first(project: Workspace) -> None:
    """However many packages differ, the interpreter is named."""
    for number in range(7):
        install(project, f"extra{number}", "1.0")
    become(project, "3.99.1")
    decisions, [note] = plan(project)
    assert note.startswith("note: other than for reused steps: cpython 3.")
    assert note.endswith("extra3 not installed → 1.0 (child) and 3 more; --rerun packages re-runs them")
    decisions, _ = plan(project, "--rerun", "packages")
    assert decisions["child"].endswith("extra3 not installed → 1.0 and 3 more")


@pytest.mark.parametrize(
    ("option", "code"), [([], 2), (["--rerun", "data"], 2), (["--rerun", "code"], 0), (["--rerun-changed"], 0)]
)
def test_consent_to_one_kind(tmp_path: Path, option: list[str], code: int) -> None:
    """`--rerun code` is the word for long work that code changed for, and for no other."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'sh a.sh'\n", "a.sh": "true\n"})
    project.runnable("run", "--run-id", "r")
    project.write({"a.sh": "echo changed\n"})
    project.runnable("retry", "r", *option, code=code, RUNNABLE_CI_ASK_MINUTES="0")
