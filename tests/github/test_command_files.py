"""Tests of the runner's files: what steps write reaches them well formed or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from actions_runner import variables
from cli import workspace
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.github.command_files import FILES, JobCommandFiles
from runnable_ci.redaction.redactor import Redactor

SECRET = "correct horse battery"


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """A job's environment with the runner's files, empty."""
    (tmp_path / "runner").mkdir()
    files = {name: str(tmp_path / "runner" / name) for name in FILES}
    for path in files.values():
        Path(path).touch()
    return {"GITHUB_ACTIONS": "true", **files}


def hand_on(job: dict[str, str], folder: Path, written: dict[str, str | bytes], *, succeeded: bool = True) -> list[str]:
    """Let an attempt write these, and hand them on; the notes."""
    folder.mkdir(exist_ok=True)
    files = JobCommandFiles(job)
    given = files.create(folder)
    for name, content in written.items():
        Path(given[name]).write_bytes(content if isinstance(content, bytes) else content.encode())
    return files.forward(folder, succeeded=succeeded, clean=Redactor([SECRET]).text)


def test_each_attempt_has_files_of_its_own(job: dict[str, str], tmp_path: Path) -> None:
    """No step sees the runner's own."""
    given = JobCommandFiles(job).create(tmp_path)
    assert set(given) == set(FILES)
    assert all(Path(path).read_bytes() == b"" for path in given.values())
    assert not set(given.values()) & set(job.values())


def test_outside_of_a_job_there_are_none(job: dict[str, str], tmp_path: Path) -> None:
    """On a laptop the variables are nobody's business, even where they are set."""
    files = JobCommandFiles({**job, "GITHUB_ACTIONS": ""})
    assert files.create(tmp_path) == {}
    assert files.forward(tmp_path, succeeded=True, clean=str) == []


def test_what_is_well_formed_goes_on(job: dict[str, str], tmp_path: Path) -> None:
    """Variables and paths for the job's later steps, the summary as it is; outputs and state are dropped."""
    notes = hand_on(
        job,
        tmp_path / "a",
        {
            "GITHUB_ENV": "A=1\nB<<EOF\nx\nC=2\nEOF\n",
            "GITHUB_PATH": "/opt/a\n\n/opt/b",
            "GITHUB_STEP_SUMMARY": "# Hi",
            "GITHUB_OUTPUT": "a=b\n",
            "GITHUB_STATE": "a=b\n",
        },
    )
    assert notes == []
    assert dict(variables(Path(job["GITHUB_ENV"]).read_text())) == {"A": "1", "B": "x\nC=2"}
    assert Path(job["GITHUB_PATH"]).read_text() == "/opt/a\n/opt/b\n"
    assert Path(job["GITHUB_STEP_SUMMARY"]).read_text() == "# Hi\n"
    assert Path(job["GITHUB_OUTPUT"]).read_text() == Path(job["GITHUB_STATE"]).read_text() == ""


def test_a_failed_attempt_leaves_its_summary_only(job: dict[str, str], tmp_path: Path) -> None:
    """A test report is wanted above all when tests fail; variables of a failed step are not."""
    hand_on(job, tmp_path / "a", {"GITHUB_ENV": "A=1\n", "GITHUB_STEP_SUMMARY": "# Hi\n"}, succeeded=False)
    assert Path(job["GITHUB_ENV"]).read_text() == ""
    assert Path(job["GITHUB_STEP_SUMMARY"]).read_text() == "# Hi\n"


def test_no_secret_is_shown(job: dict[str, str], tmp_path: Path) -> None:
    """Not in the summary, not in a note; a variable of the job keeps its value."""
    hand_on(job, tmp_path / "a", {"GITHUB_ENV": f"A={SECRET}\n", "GITHUB_STEP_SUMMARY": f"it is {SECRET}\n"})
    assert Path(job["GITHUB_STEP_SUMMARY"]).read_text() == "it is ***\n"
    assert dict(variables(Path(job["GITHUB_ENV"]).read_text())) == {"A": SECRET}
    notes = hand_on(job, tmp_path / "b", {"GITHUB_ENV": f"{SECRET}\n"})
    assert notes == ["GITHUB_ENV: ignored, line 1: expected `name=value` or `name<<EOF`, got `***`"]


@pytest.mark.parametrize("name", ["NODE_OPTIONS", "node_options", "GITHUB_TOKEN", "RUNNER_TEMP", "a b", "1"])
def test_some_names_are_refused(job: dict[str, str], tmp_path: Path, name: str) -> None:
    """What the runner refuses, and what is no variable's name; the others go on."""
    notes = hand_on(job, tmp_path / "a", {"GITHUB_ENV": f"{name}=x\nA=1\n"})
    assert len(notes) == 1
    assert notes[0].startswith("GITHUB_ENV: ")
    assert name in notes[0]
    assert dict(variables(Path(job["GITHUB_ENV"]).read_text())) == {"A": "1"}


@pytest.mark.parametrize(
    "content", ["A=1\nno pair\n", "A<<EOF\nopen\n", "=x\n", b"A=\xff\n", b"A=" + b"x" * (1 << 20)], ids=range(5)
)
def test_what_is_malformed_is_ignored_whole(job: dict[str, str], tmp_path: Path, content: str | bytes) -> None:
    """A file that the runner would fail over does not reach it."""
    notes = hand_on(job, tmp_path / "a", {"GITHUB_ENV": content})
    assert len(notes) == 1
    assert notes[0].startswith("GITHUB_ENV: ignored, ")
    assert Path(job["GITHUB_ENV"]).read_text() == ""


@given(st.text(st.sampled_from("A=<\nEOF \r1\0é")))
def test_the_runner_reads_what_was_handed_on(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    """Whatever a step wrote, the runner can read its file."""
    folder = tmp_path_factory.mktemp("job")
    file = folder / "env"
    file.touch()
    hand_on({"GITHUB_ACTIONS": "true", "GITHUB_ENV": str(file)}, folder / "a", {"GITHUB_ENV": content})
    for name, value in variables(file.read_bytes().decode()):
        assert name.replace("_", "A").isalnum()
        assert "\0" not in value


def test_the_summary_stays_below_the_limit(job: dict[str, str], tmp_path: Path) -> None:
    """One step's large summary does not lose those of the others."""
    assert hand_on(job, tmp_path / "a", {"GITHUB_STEP_SUMMARY": "a" * 600_000}) == []
    notes = hand_on(job, tmp_path / "b", {"GITHUB_STEP_SUMMARY": "b" * 600_000})
    assert notes == ["GITHUB_STEP_SUMMARY: ignored, with it the summary would be larger than GitHub's 1 MiB"]
    assert hand_on(job, tmp_path / "c", {"GITHUB_STEP_SUMMARY": "c"}) == []
    assert Path(job["GITHUB_STEP_SUMMARY"]).read_text() == "a" * 600_000 + "\nc\n"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "gone"])
def test_something_else_in_its_place_is_not_read(job: dict[str, str], tmp_path: Path, kind: str) -> None:
    """A link to a file elsewhere is not followed, and nothing waits for a pipe."""
    secret = tmp_path / "secret"
    secret.write_text("A=1\n")
    files = JobCommandFiles(job)
    path = Path(files.create(tmp_path)["GITHUB_ENV"])
    path.unlink()
    match kind:
        case "link":
            path.symlink_to(secret)
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    assert len(files.forward(tmp_path, succeeded=True, clean=str)) == (kind != "gone")
    assert Path(job["GITHUB_ENV"]).read_text() == ""


def test_a_run_keeps_the_files_whole(job: dict[str, str], tmp_path: Path) -> None:
    """With the real program: steps side by side write, the runner's files hold what the succeeded ones meant."""
    steps = [
        f"""[steps.s{i}]
needs = []
run = '''
echo "V{i}=value {i}" >> "$GITHUB_ENV"
echo "report {i}" >> "$GITHUB_STEP_SUMMARY"
printf 'torn<<' >> "$GITHUB_OUTPUT"
'''
"""
        for i in range(6)
    ]
    broken = "[steps.broken]\nneeds = []\nrun = 'echo NODE_OPTIONS=-r >> $GITHUB_ENV; echo x >> $GITHUB_ENV'\n"
    made = workspace(tmp_path, {"runnable.toml": "\n".join([*steps, broken])})
    made.environ.update(job)
    done = made.runnable("run")
    assert dict(variables(Path(job["GITHUB_ENV"]).read_text())) == {f"V{i}": f"value {i}" for i in range(6)}
    assert sorted(Path(job["GITHUB_STEP_SUMMARY"]).read_text().split("\n")) == ["", *(f"report {i}" for i in range(6))]
    assert Path(job["GITHUB_OUTPUT"]).read_text() == ""
    assert "broken | note: GITHUB_ENV: ignored, line 2" in done.out
