"""A retry is of the run's own pipeline: found wherever the command is typed, and no other runs under the run's id."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry
from support import write_old_journal

from runnable_ci.runs.model import FAIL, SUCCESS

MAIN = 'name = "main"\n[steps.deploy]\nrun = "echo deploy >> ran.log"\n'
NIGHTLY = """\
name = "nightly"
[steps.fetch]
run = "echo fetch >> ran.log"
[steps.train]
run = "echo train >> ran.log; exit 1"
"""
UNNAMED = NIGHTLY.partition("\n")[2]
IGNORED = {".gitignore": "*.log\n"}


def fixed(text: str) -> str:
    """The pipeline with its mistake repaired."""
    return text.replace("; exit 1", "")


def ran(project: Workspace, folder: str = ".") -> list[str]:
    """The steps that ran in a folder since this was asked last."""
    log = project.folder / folder / "ran.log"
    steps = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return steps


def repository(tmp_path: Path, files: dict[str, str]) -> Workspace:
    """A repository that does not see which steps ran."""
    return workspace(tmp_path, IGNORED | files)


def edit_log(project: Workspace, run_id: str, edit: Callable[[dict[str, object]], None], store: str = ".") -> None:
    """Let a run have a log that an older version wrote, by its journal's first line."""
    folder = project.folder / store / ".runnable"
    first, *others = (folder / "runs" / run_id / "journal.jsonl").read_text().splitlines()
    event = json.loads(first)
    edit(event["run_config"])
    write_old_journal(folder, run_id, [json.dumps(event, separators=(",", ":")), *others])


def test_the_log_has_the_way_from_the_repository_s_root(tmp_path: Path) -> None:
    """A run knows its pipeline file from the root, wherever it was started, and whether the file names the pipeline."""
    project = repository(tmp_path, {"lab/tp2/nightly.toml": NIGHTLY, "lab/runnable.toml": UNNAMED})
    project.runnable("run", "nightly.toml", "--run-id", "a", at="lab/tp2", code=1)
    project.runnable("run", str(project.folder / "lab"), "--run-id", "b", at="lab/tp2", code=1)
    a = project.runnable("show", "a", "--json", "--store", "lab/tp2").out
    b = project.runnable("show", "b", "--json", "--store", "lab").out
    assert json.loads(a)["run_config"] == {
        "executor": "local",
        "pipeline_file": "lab/tp2/nightly.toml",
        "pipeline_base": "repository",
        "pipeline_is_named": True,
    }
    assert json.loads(b)["run_config"]["pipeline_file"] == "lab/runnable.toml"
    assert json.loads(b)["run_config"]["pipeline_is_named"] is False


@pytest.mark.parametrize("git", [True, False])
def test_the_run_s_own_file_is_taken(tmp_path: Path, git: bool) -> None:
    """Without `-f` a run is resumed with the file that it was made with, not with the folder's `runnable.toml`."""
    project = workspace(tmp_path, {**IGNORED, "runnable.toml": MAIN, "nightly.toml": NIGHTLY}, git=git)
    failed = project.runnable("run", "nightly.toml", "--run-id", "n1", code=1)
    assert failed.err.endswith("hint: runnable-ci retry n1 -f nightly.toml\n")
    assert ran(project) == ["fetch", "train"]
    project.write({"nightly.toml": fixed(NIGHTLY)})
    done = project.runnable("retry", "n1")
    assert done.err.startswith("note: run n1 belongs to the pipeline `nightly` (nightly.toml)\n")
    assert ran(project) == ["train"]
    log = project.log("n1")
    assert (log.name, log.status, set(log.steps)) == ("nightly", SUCCESS, {"fetch", "train"})


def test_from_any_folder_of_the_repository(tmp_path: Path) -> None:
    """A folder without a pipeline file of its own is as good as the root."""
    project = repository(tmp_path, {"runnable.toml": MAIN, "ml/nightly.toml": NIGHTLY, "nightly.toml": NIGHTLY})
    (project.folder / "deep" / "er").mkdir(parents=True)
    project.runnable("run", "nightly.toml", "--run-id", "n1", code=1)
    ran(project)
    hint = project.runnable("retry", "n1", at="deep/er", code=1).err
    assert hint.endswith("hint: runnable-ci retry n1 -f ../../nightly.toml\n")
    assert ran(project) == ["train"]


def test_another_pipeline_is_refused(tmp_path: Path) -> None:
    """`-f` with another file is an error that names both pipelines and both ways out; nothing ran, nothing is noted."""
    project = repository(tmp_path, {"runnable.toml": MAIN, "a b.toml": NIGHTLY})
    project.runnable("run", "a b.toml", "--run-id", "n1", code=1)
    ran(project)
    before = project.log("n1")
    refused = project.runnable("retry", "n1", "-f", "runnable.toml", code=2)
    assert refused.err == (
        "error: run `n1` belongs to the pipeline `nightly` (a b.toml), not to `main` (runnable.toml)\n"
        "hint: `runnable-ci retry n1 -f 'a b.toml'` resumes it with its own file; "
        "if this one is the same file, renamed: runnable-ci retry n1 -f runnable.toml --other-pipeline\n"
    )
    assert ran(project) == []
    assert project.log("n1") == before


def test_a_renamed_file(tmp_path: Path) -> None:
    """A renamed file is refused until it is given with `--other-pipeline`; from then on the run is of that file."""
    project = repository(tmp_path, {"runnable.toml": MAIN, "nightly.toml": NIGHTLY})
    project.runnable("run", "nightly.toml", "--run-id", "n1", code=1)
    ran(project)
    project.git("mv", "nightly.toml", "weekly.toml")
    project.commit()
    gone = project.runnable("retry", "n1", code=2).err
    assert gone.startswith(
        "error: run `n1` belongs to the pipeline `nightly` (nightly.toml), and that file does not exist in "
    )
    assert gone.endswith("hint: if it was renamed: runnable-ci retry n1 -f FILE --other-pipeline\n")
    assert "not to `nightly` (weekly.toml)" in project.runnable("retry", "n1", "-f", "weekly.toml", code=2).err
    assert project.runnable("retry", "n1", "--other-pipeline", code=2).err == (
        "error: --other-pipeline needs the pipeline file\nhint: name it with -f FILE\n"
    )
    assert ran(project) == []
    project.runnable("retry", "n1", "-f", "weekly.toml", "--other-pipeline", code=1)
    project.runnable("retry", "n1", code=1)
    assert ran(project) == ["train", "train"]
    assert project.log("n1").run_config["pipeline_file"] == "weekly.toml"


def test_another_name_in_the_same_file(tmp_path: Path) -> None:
    """A file that holds another pipeline by now is refused with both names; one that got its first name, too."""
    project = repository(tmp_path, {"runnable.toml": NIGHTLY})
    project.runnable("run", "--run-id", "n1", code=1)
    ran(project)
    project.write({"runnable.toml": MAIN})
    refused = project.runnable("retry", "latest", code=2).err
    assert refused == (
        "error: run `n1` belongs to the pipeline `nightly` (runnable.toml), and the one here is `main` (runnable.toml)"
        "\nhint: if it is the same file under a new name: runnable-ci retry latest -f runnable.toml --other-pipeline\n"
    )
    project.write({"runnable.toml": UNNAMED})
    assert "the one here is `project` (runnable.toml)" in project.runnable("retry", "n1", code=2).err
    assert ran(project) == []


def test_latest_is_the_newest_run_of_the_file(tmp_path: Path) -> None:
    """`latest` with `-f` is the newest run of that pipeline; alone it is the newest of all, with its own file."""
    project = repository(
        tmp_path, {"a.toml": NIGHTLY, "b.toml": fixed(NIGHTLY).replace("nightly", "b"), "c.toml": MAIN}
    )
    project.runnable("run", "a.toml", "--run-id", "ra", code=1)
    project.runnable("run", "b.toml", "--run-id", "rb")
    ran(project)
    project.runnable("retry", "latest", "-f", "a.toml", code=1)
    assert ran(project) == ["train"]
    assert (project.log("ra").status, project.log("rb").status) == (FAIL, SUCCESS)
    assert project.log("ra").invocation == 2
    assert "run rb: nothing to do" in project.runnable("retry", "latest", "-f", "b.toml").err
    none = project.runnable("retry", "latest", "-f", "c.toml", code=2)
    assert none.err.startswith("error: no runs of the pipeline `main` (c.toml) in ")
    assert none.err.endswith("hint: `runnable-ci runs` lists all\n")
    project.runnable("retry", "latest", code=1)
    assert ran(project) == ["train"]


def test_in_pyproject_toml(tmp_path: Path) -> None:
    """A table of `pyproject.toml` is a pipeline file like any other, also below a `runnable.toml`."""
    table = '[tool.runnable-ci]\nname = "t"\n[tool.runnable-ci.steps.a]\nrun = "echo a >> ran.log; exit 1"\n'
    project = repository(tmp_path, {"runnable.toml": MAIN, "ml/pyproject.toml": table})
    failed = project.runnable("run", "ml", "--run-id", "p", code=1)
    assert failed.err.endswith("hint: runnable-ci retry p -f ml/pyproject.toml\n")
    ran(project, "ml")
    project.runnable("retry", "p", "-f", "ml", code=1)
    project.runnable("retry", "p", code=1, at="ml")
    assert ran(project, "ml") == ["a", "a"]


@pytest.mark.parametrize("logged", ["nightly.toml", "/x/y/project/nightly.toml", "project/nightly.toml"])
def test_a_log_of_an_older_version(tmp_path: Path, logged: str) -> None:
    """Its path begins anywhere: it is taken for the file with that end beside the store, if the name is the same."""
    project = repository(tmp_path, {"runnable.toml": MAIN, "nightly.toml": NIGHTLY})
    project.runnable("run", "nightly.toml", "--run-id", "n1", code=1)

    def older(config: dict[str, object]) -> None:
        config.clear()
        config.update(executor="local", pipeline_file=logged)

    edit_log(project, "n1", older)
    ran(project)
    assert "not to `main` (runnable.toml)" in project.runnable("retry", "n1", "-f", "runnable.toml", code=2).err
    project.runnable("retry", "n1", "-f", "nightly.toml", code=1)
    edit_log(project, "n1", older)
    project.runnable("retry", "n1", code=1)
    assert ran(project) == ["train", "train"]
    assert project.log("n1").run_config["pipeline_file"] == "nightly.toml"


def test_a_log_that_names_no_file(tmp_path: Path) -> None:
    """Its pipeline is told by the name alone: that of the folder's file, else it must be given."""
    project = repository(tmp_path, {"runnable.toml": NIGHTLY, "b.toml": MAIN})
    project.runnable("run", "--run-id", "n1", code=1)
    edit_log(project, "n1", lambda config: config.clear())
    ran(project)
    assert (
        "belongs to the pipeline `nightly`, not to `main` (b.toml)"
        in project.runnable("retry", "n1", "-f", "b.toml", code=2).err
    )
    project.runnable("retry", "n1", code=1)
    assert ran(project) == ["train"]


@pytest.mark.parametrize("way_out", ["../evil.toml", "/etc/evil.toml", "link.toml", "sub/../../evil.toml", "a\0b"])
def test_a_log_leads_nowhere_else(tmp_path: Path, way_out: str) -> None:
    """A log may come from anyone: a path that leaves the repository is no pipeline file."""
    project = repository(tmp_path, {"runnable.toml": NIGHTLY, "sub/x": ""})
    (tmp_path / "evil.toml").write_text(NIGHTLY.replace("echo", "touch ../evil; echo"))
    (project.folder / "link.toml").symlink_to(tmp_path / "evil.toml")
    project.runnable("run", "--run-id", "n1", code=1)
    edit_log(project, "n1", lambda config: config.update(pipeline_file=way_out))
    assert "that file does not exist in" in project.runnable("retry", "n1", code=2).err
    assert not (tmp_path / "evil").exists()


def test_a_file_that_git_does_not_know(tmp_path: Path) -> None:
    """A run from elsewhere names no file that is only lying there, as one that an earlier run put; `-f` may."""
    project = repository(tmp_path, {"runnable.toml": MAIN, "nightly.toml": NIGHTLY})
    with registry(tmp_path / "registry") as server:
        runs = f"{server.host}/o/n/runs"
        project.runnable("run", "nightly.toml", "--run-id", "n1", "--publish", "--to", runs, code=1)
        clone = elsewhere(project, tmp_path)
        clone.git("rm", "-q", "--cached", "nightly.toml")
        refused = clone.runnable("retry", f"{runs}:n1", code=2)
        assert "was made elsewhere, with the pipeline file nightly.toml, which git does not track here" in refused.err
        assert ran(clone) == []
        hint = f"hint: if you trust that file: runnable-ci retry {runs}:n1 -f nightly.toml\n"
        assert refused.err.endswith(hint)
        clone.runnable("retry", f"{runs}:n1", "-f", "nightly.toml", code=1)
        assert "which git does not track here" in clone.runnable("retry", "n1", code=2).err
        clone.git("add", "nightly.toml")
        clone.runnable("retry", "n1", code=1)
        assert ran(clone) == ["train", "train"]


def test_a_file_whose_name_is_a_secret(tmp_path: Path) -> None:
    """The name of a file is never redacted: the run would be of no file any more."""
    project = repository(tmp_path, {"runnable.toml": MAIN, "nightly.toml": 'secrets = ["STAGE"]\n' + NIGHTLY})
    project.runnable("run", "nightly.toml", "--run-id", "n1", code=1, STAGE="nightly")
    project.runnable("retry", "n1", code=1, STAGE="nightly")
    assert project.log("n1").run_config["pipeline_file"] == "nightly.toml"


def test_a_clone_of_another_name(tmp_path: Path) -> None:
    """A published run finds its file in any clone, from any folder, whatever the clone is called."""
    files = {"runnable.toml": MAIN, "ml/runnable.toml": UNNAMED, "docs/x": ""}
    project = repository(tmp_path, files)
    with registry(tmp_path / "registry") as server:
        runs = f"{server.host}/o/n/runs"
        project.runnable("run", "ml", "--run-id", "n1", "--publish", "--to", runs, code=1)
        clone = elsewhere(project, tmp_path)
        for typed in ([f"{runs}:n1"], ["n1", "--from-registry", runs], [f"{runs}:latest"]):
            failed = clone.runnable("retry", *typed, at="docs", code=1)
            assert "note: run n1 belongs to the pipeline `ml` (ml/runnable.toml)\n" in failed.err
            assert ran(clone, "ml") == ["train"]
        assert failed.err.endswith("hint: runnable-ci retry n1 -f ../ml/runnable.toml\n")
        assert (ran(clone), ran(clone, "docs")) == ([], [])


def test_the_same_path_in_another_repository(tmp_path: Path) -> None:
    """A file that only has the same path, and no name, is another pipeline: its repository lacks the run's commit."""
    project = repository(tmp_path, {"runnable.toml": UNNAMED})
    (tmp_path / "b").mkdir()
    other = workspace(tmp_path / "b", {**IGNORED, "runnable.toml": MAIN.partition("\n")[2]}, name="other")
    with registry(tmp_path / "registry") as server:
        runs = f"{server.host}/o/n/runs"
        project.runnable("run", "--run-id", "n1", "--publish", "--to", runs, code=1)
        refused = other.runnable("retry", f"{runs}:n1", code=2)
        names = (
            "run `n1` belongs to the pipeline `project` (runnable.toml), and the one here is `other` (runnable.toml)"
        )
        assert refused.err.startswith(f"error: {names}\n")
        assert refused.err.endswith(f"runnable-ci retry {runs}:n1 -f runnable.toml --other-pipeline\n")
        assert not other.store.exists()
        assert other.runnable("retry", f"{runs}:latest", "-f", ".", code=2).err.startswith(
            "error: no runs of the pipeline `other` (runnable.toml) in "
        )


def test_the_newest_published_run_of_a_file(tmp_path: Path) -> None:
    """`REGISTRY:latest -f FILE` is the newest one there of that pipeline."""
    project = repository(tmp_path, {"a.toml": NIGHTLY, "b.toml": MAIN})
    with registry(tmp_path / "registry") as server:
        runs = f"{server.host}/o/n/runs"
        project.runnable("run", "a.toml", "--run-id", "ra", "--publish", "--to", runs, code=1)
        project.runnable("run", "b.toml", "--run-id", "rb", "--publish", "--to", runs)
        clone = elsewhere(project, tmp_path)
        clone.runnable("retry", f"{runs}:latest", "-f", "a.toml", code=1)
        assert ran(clone) == ["train"]
        assert "run rb: nothing to do" in clone.runnable("retry", f"{runs}:latest").err


def test_a_copied_folder_without_git(tmp_path: Path) -> None:
    """A copy of the folder with its store resumes its runs under whatever name it has."""
    project = workspace(tmp_path, {"runnable.toml": UNNAMED}, git=False)
    project.runnable("run", "--run-id", "n1", code=1)
    shutil.copytree(project.folder, tmp_path / "copy")
    copy = Workspace(tmp_path / "copy", project.environ)
    ran(copy)
    copy.runnable("retry", "latest", code=1)
    assert ran(copy) == ["train"]
    assert copy.log().name == "project"
