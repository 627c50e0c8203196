"""Tests of which untracked files a run keeps, and of what is said of that, by the real program."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cli import Workspace, workspace
from registry_server import registry

from runnable_ci.engine.code.untracked import notes
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.code_states import kept_untracked, states
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog

PASSWORD = "hunter2-" + "hunter2"
PIPELINE = """
[steps.prepare]
run = "cd . && sh ./tools/prepare.sh <input.csv; true"
catalog = { get = ["data/*.csv"] }
[steps.fit]
python = "model:fit"
working-directory = "src"
[steps.report]
run = "cat notes.txt"
working-directory = "src"
"""
UNTRACKED = {
    "tools/prepare.sh": "true\n",
    "input.csv": "1\n",
    "data/1.csv": "1\n",
    "src/model.py": "def fit():\n    pass\n",
    "src/notes.txt": "n\n",
    "notes.txt": "not the step's\n",
    "data/1.json": "1\n",
}
LISTED = ["data/1.csv", "input.csv", "src/model.py", "src/notes.txt", "tools/prepare.sh"]
ALL = sorted(UNTRACKED)


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A repository whose pipeline needs untracked files; a tracked file is changed too."""
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, "tracked.txt": "a\n"})
    made.write({**UNTRACKED, ".netrc": "x", "tracked.txt": "b\n"})
    return made


def code_of(project: Workspace) -> CodeState:
    """The code of the newest run."""
    (code,) = states(project.log())
    return code


def kept_in(project: Workspace, folder: str = "copy") -> list[str]:
    """The untracked files that a checkout of the newest run has."""
    project.runnable("checkout", "latest", folder, code=1)
    found = (path for path in (project.folder / folder).rglob("*") if path.is_file() and ".git" not in path.parts)
    names = [path.relative_to(project.folder / folder).as_posix() for path in found]
    assert (project.folder / folder / "tracked.txt").read_text() == "b\n"
    return sorted(set(names) - {"runnable.toml", "tracked.txt"})


def test_all_are_kept_and_named(project: Workspace) -> None:
    """By default all untracked files are kept but those of credentials; a line names them, another what is left out."""
    err = project.runnable("run").err
    assert (
        "kept 7 untracked files with the run: data/1.csv, data/1.json, input.csv, notes.txt, src/model.py and 2 more; "
        '`untracked = "none"` leaves them out\n' in err
    )
    assert "left out of the run: .netrc (a credential file by its name)\n" in err
    assert kept_untracked(code_of(project)) == ALL
    assert kept_in(project) == ALL


def test_a_clean_tree_is_not_talked_about(project: Workspace) -> None:
    """Where nothing is untracked, nothing is said."""
    project.git("add", ".")
    project.git("commit", "-qm", "all")
    assert "of the run" not in (err := project.runnable("run").err)
    assert "with the run" not in err


@pytest.mark.parametrize("by", ["file", "setting"])
@pytest.mark.parametrize(("policy", "expected"), [("all", ALL), ("listed", LISTED), ("none", [])])
def test_a_choice(project: Workspace, policy: str, expected: list[str], by: str) -> None:
    """The setting, else the pipeline file, says which are kept; all others are named, and have their hashes."""
    first = policy if by == "file" else "all" if policy == "none" else "none"
    project.write({"runnable.toml": f'untracked = "{first}"\n{PIPELINE}'})
    project.git("add", "runnable.toml")
    err = project.runnable("run", RUNNABLE_CI_UNTRACKED=policy if by == "setting" else "").err
    code = code_of(project)
    assert kept_untracked(code) == expected
    assert ("untracked files with the run: " in err) == bool(expected)
    assert {name for name, (kind, digest) in code.changes.items() if kind == "untracked" and digest} == {*ALL, ".netrc"}
    assert list(code.omitted) == sorted({*ALL, ".netrc"} - set(expected))
    assert kept_in(project) == expected


def test_what_is_not_rebuilt_is_named(project: Workspace) -> None:
    """A checkout names each untracked file that was not kept, and why."""
    project.runnable("run", RUNNABLE_CI_UNTRACKED="listed")
    err = project.runnable("checkout", "latest", "copy", code=1).err
    assert "note: not rebuilt: data/1.json: untracked, and not named in the pipeline\n" in err
    project.runnable("run", RUNNABLE_CI_UNTRACKED="none")
    err = project.runnable("checkout", "latest", "other", code=1).err
    assert 'note: not rebuilt: input.csv: untracked, and `untracked = "none"`\n' in err


def test_a_pipeline_file_that_is_untracked_itself(tmp_path: Path) -> None:
    """The pipeline file is listed, also in a folder of the repository; files elsewhere count if a step names them."""
    at = workspace(tmp_path, {"README": "x"})
    at.write(
        {
            "app/runnable.toml": 'untracked = "listed"\n[steps.one]\nrun = "sh ../shared/go.sh && cat ./x"\n',
            "shared/go.sh": "true\n",
            "shared/other.sh": "true\n",
            "app/x": "x\n",
            "x": "x\n",
        }
    )
    at.runnable("run", at="app")
    log = RunLog.model_validate_json(at.runnable("show", "latest", "--json", at="app").raw)
    (code,) = states(log)
    assert kept_untracked(code) == ["app/runnable.toml", "app/x", "shared/go.sh"]


def test_in_a_submodule(tmp_path: Path) -> None:
    """The choice holds in submodules, whose files are named with the way to them."""
    other = workspace(tmp_path, {"a.py": "a\n"}, name="other")
    at = workspace(tmp_path, {"runnable.toml": '[steps.one]\nrun = "sh lib/go.sh"\n'})
    at.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other.folder), "lib")
    at.commit()
    at.write({"lib/go.sh": "true\n", "lib/.npmrc": "x", "lib/b.txt": "b\n", "lib/a.py": f"token = '{PASSWORD}'\n"})
    at.runnable("run")
    assert kept_untracked(code_of(at)) == ["lib/b.txt", "lib/go.sh"]
    assert code_of(at).omitted == {
        "lib/.npmrc": "a credential file by its name",
        "lib/a.py": "holds a value for token",
    }
    at.runnable("run", RUNNABLE_CI_UNTRACKED="listed")
    assert kept_untracked(code_of(at)) == ["lib/go.sh"]
    err = at.runnable("run", RUNNABLE_CI_UNTRACKED="none").err
    assert kept_untracked(code_of(at)) == []
    assert 'lib/b.txt, lib/go.sh (untracked, and `untracked = "none"`)' in err


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ({"private": False}, []),
        ({"private": False, "visibility": "public"}, []),
        ({"private": True, "visibility": "private"}, ALL),
        ({"private": True, "visibility": "internal"}, ALL),
        ({"visibility": "internal"}, ALL),
        ({}, []),
        (None, []),
    ],
)
def test_in_a_job_of_github(
    project: Workspace, tmp_path: Path, repository: dict[str, object] | None, expected: list[str]
) -> None:
    """In a job none are kept by default, unless its event says that the repository is private."""
    event = tmp_path / "event.json"
    event.write_text(json.dumps({} if repository is None else {"repository": repository}))
    job = replace(project, environ={**project.environ, "GITHUB_ACTIONS": "true", "GITHUB_EVENT_PATH": str(event)})
    out = job.runnable("run").out
    assert kept_untracked(code_of(project)) == expected
    public = 'src/model.py and 2 more (untracked, in a job of a public repository; `untracked = "all"` keeps them)\n'
    assert (public in out) == (expected == [])
    job.runnable("run", RUNNABLE_CI_UNTRACKED="all")
    assert kept_untracked(code_of(project)) == ALL


def test_a_wrong_choice(project: Workspace) -> None:
    """A word that is none of the three is an error, in the file and in the setting."""
    done = project.runnable("run", code=2, RUNNABLE_CI_UNTRACKED="some")
    assert "RUNNABLE_CI_UNTRACKED" in done.err
    project.write({"runnable.toml": f'untracked = "list"\n{PIPELINE}'})
    done = project.runnable("check", code=2)
    assert done.err.startswith('error: runnable.toml:1: untracked: there is no "list"\n')
    assert done.err.endswith("\nhint: did you mean `listed`?\n")


def test_published_files_are_named(project: Workspace, tmp_path: Path) -> None:
    """`publish` names the untracked files that leave the machine and what does not, also of earlier invocations."""
    project.runnable("run", "--run-id", "r")
    project.write({"later.txt": "x\n"})
    project.runnable("retry", "r", "--from", "report")
    with registry(tmp_path / "registry") as served:
        err = project.runnable("publish", "r", "--to", served.repository()).err
        lines = err.splitlines()
        assert lines[0].startswith(
            "kept 8 untracked files with the run: data/1.csv, data/1.json, input.csv, notes.txt, "
        )
        assert lines[0].endswith('src/model.py and 3 more; `untracked = "none"` leaves them out')
        assert lines[1] == "left out of the run: .netrc (a credential file by its name)"
        err = project.runnable("run", "--run-id", "s", "--to", served.repository()).err
        assert err.count("kept 8 untracked files with the run: ") == 1
        err = project.runnable("retry", "r", "--from", "report", "--to", served.repository()).err
        assert err.count("kept 8 untracked files with the run: ") == 2


def log_with(**code: object) -> RunLog:
    """A run log with one attempt of that code."""
    attempt = StepAttempt(code_identities=[CodeIdentity.model_validate(code)])
    return RunLog(run_id="r", steps={"a": StepLog(name="a", internal_name="a", attempts=[attempt])})


def test_a_log_of_an_earlier_version() -> None:
    """Where the log does not list the files that were kept, they are those that differ and were not left out."""
    changes = {"a": ("untracked", "1"), "b": ("untracked", "2"), "c": ("modified", "3")}
    old = log_with(changes=changes, snapshot="d", snapshot_omitted=["b: over the limit"])
    assert list(notes(old)) == [
        'kept 1 untracked file with the run: a; `untracked = "none"` leaves them out',
        "left out of the run: b (over the limit)",
    ]
    assert list(notes(log_with(changes=changes))) == []
    (_, warning) = notes(log_with(changes={".env": ("untracked", "1"), "b": ("untracked", "2")}, snapshot="d"))
    assert warning == "warning: an earlier version stored credentials with the run: .env"


def test_lines_are_bounded_and_plain() -> None:
    """However many files there are, whatever their names, there are two lines of bounded length."""
    names = [f"evil\x1b[31m\n::warning::{n}" + "x" * 1000 for n in range(1000)]
    log = log_with(snapshot="d", snapshot_untracked=names, snapshot_omitted=[f"{name}: why {name}" for name in names])
    found = list(notes(log))
    assert len(found) == 2
    assert all(len(line) <= 600 and line.isprintable() for line in found)
    assert found[0].startswith("kept 1000 untracked files with the run: evil?[31m ::warning::0x")
