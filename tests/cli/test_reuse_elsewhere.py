"""Results that runs of a branch left in a registry take the place of steps in another clone, and stay there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from preloaded import runnable
from registry_server import Served, described, registry

from runnable_ci.runs.reuse.index import encode
from runnable_ci.runs.reuse.index_tag import index_tag, read_index
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE

FILES = {
    "runnable.toml": """
name = "shared"
reuse = "any-run"
[steps.make]
run = "sed s/^/made-/ in.txt > big.txt; echo 1 >> calls"
catalog = { put = ["big.txt", "calls"] }
[steps.model]
python = "model:fit"
returns = { fitted = "object", score = "metric" }
[steps.use]
python = "model:use"
returns = ["answer"]
[steps.read]
needs = ["make"]
run = "wc -l < big.txt > lines.txt"
catalog = { get = ["big.txt"], put = ["lines.txt"] }
""",
    "in.txt": "a\nb\n",
    "model.py": "def fit():\n    return {'rows': open('big.txt').read().split()}, 3\n"
    "def use(fitted):\n    return len(fitted['rows'])\n",
    ".gitignore": ".runnable\n__pycache__\nbig.txt\nlines.txt\ncalls\n",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def clone(tmp_path: Path, served: Served) -> Workspace:
    """A fresh clone of a project of which a run of main is published."""
    made = workspace(tmp_path, FILES)
    made.environ["RUNNABLE_CI_REGISTRY"] = served.repository()
    made.runnable("run", "-j", "1", "--run-id", "first", "--publish")
    return _clone(made, tmp_path, "elsewhere")


def _clone(made: Workspace, tmp_path: Path, name: str) -> Workspace:
    other = elsewhere(made, tmp_path, name)
    other.environ["RUNNABLE_CI_REGISTRY"] = made.environ["RUNNABLE_CI_REGISTRY"]
    return other


@pytest.mark.promise
def test_another_clone_computes_nothing_again(clone: Workspace, tmp_path: Path) -> None:
    """All is reused, nothing of it is fetched; who pulls that run gets all of it."""
    done = clone.runnable("run", "-j", "1", "--run-id", "second", "--publish")
    assert "4 reused from main, saved " in done.err
    assert not (clone.folder / "big.txt").exists()
    assert clone.log("second").steps["make"].attempts[-1].taken_from == "first/make.1"
    other = _clone(clone, tmp_path, "third")
    other.runnable("pull", "second")
    other.runnable("catalog", "second", "--get", "big.txt", "--to", "copy.txt")
    assert other.read("copy.txt") == "made-a\nmade-b\n"


@pytest.mark.promise
def test_what_a_step_reads_is_fetched(clone: Workspace) -> None:
    """A changed step runs with the files and objects that others made elsewhere."""
    clone.write({"model.py": clone.read("model.py").replace("return len(", "return 10 * len(")})
    done = clone.runnable("run", "-j", "1", "--run-id", "second")
    assert "3 reused from main" in done.err
    assert clone.log("second").steps["use"].attempts[-1].output_parameters["answer"].value == 20
    clone.write({"runnable.toml": clone.read("runnable.toml").replace("wc -l", "wc -c")})
    done = clone.runnable("run", "-j", "1", "--run-id", "third")
    assert clone.read("lines.txt").strip() == "14"
    # A retry in this clone finds what it took, and what it left there.
    clone.write({"runnable.toml": clone.read("runnable.toml").replace("wc -c", "wc -w")})
    clone.runnable("retry", "third")
    assert clone.read("lines.txt").strip() == "2"


@pytest.mark.promise
def test_a_registry_that_is_down_keeps_nothing_from_running(clone: Workspace) -> None:
    """It is said, and all runs."""
    clone.environ["RUNNABLE_CI_REGISTRY"] = "127.0.0.1:9/none/here"
    done = clone.runnable("run", "-j", "1", "--run-id", "second")
    assert "note: nothing of main can be reused from 127.0.0.1:9/none/here" in done.err
    assert all(not it.taken_from for it in clone.log("second").invocations[-1].decisions.values())


@pytest.mark.promise
def test_what_is_gone_is_made_again(clone: Workspace, served: Served) -> None:
    """Where the contents of a hit are gone, the step that reads them fails with a hint; a retry makes them again."""
    clone.write({"runnable.toml": clone.read("runnable.toml").replace("wc -l", "wc -c")})
    for blob in (served.folder / "data" / "docker" / "registry" / "v2" / "blobs").rglob("data"):
        if b"vnd.runnable.reuse" not in blob.read_bytes():
            blob.unlink()
    gone = clone.runnable("run", "-j", "1", "--run-id", "second", code=1).err
    assert "what `make` made in run first" in gone
    assert "hint: a retry runs that step again" in gone
    clone.runnable("retry", "second")
    assert clone.read("lines.txt").strip() == "14"


def test_a_branch_is_named(clone: Workspace) -> None:
    """`--reuse BRANCH` looks at that one alone; a word that is neither run nor branch is an error where none can be."""
    clone.runnable("run", "-j", "1", "--run-id", "second", "--reuse", "main")
    assert len(clone.log("second").invocations[-1].decisions) == 4
    done = clone.runnable("run", "-j", "1", "--run-id", "third", "--reuse", "other")
    assert "reused from" not in done.err
    del clone.environ["RUNNABLE_CI_REGISTRY"]
    assert "error: --reuse other: there is no such run here" in clone.runnable("run", "--reuse", "other", code=2).err


def test_jobs_that_were_asked_for_reuse_nothing(clone: Workspace) -> None:
    """By the clock, by hand, or all again: a person wants it done, unless it is said."""
    job = {"GITHUB_ACTIONS": "true", "GITHUB_REF": "refs/heads/main", "GITHUB_REPOSITORY": "o/r"}
    for name, value in job.items():
        clone.environ[name] = value
    done = clone.runnable("run", "-j", "1", "--run-id", "a", GITHUB_EVENT_NAME="schedule")
    assert "nothing of other runs is reused: the workflow was started by `schedule`" in done.out + done.err
    done = clone.runnable("run", "-j", "1", "--run-id", "b", GITHUB_EVENT_NAME="push", GITHUB_RUN_ATTEMPT="2")
    assert "all jobs were started again" in done.out + done.err
    clone.runnable("run", "-j", "1", "--run-id", "c", "--reuse", "main", GITHUB_EVENT_NAME="schedule")
    assert all(it.taken_from for it in clone.log("c").invocations[-1].decisions.values())


@pytest.mark.parametrize(
    ("name", "said"), [("../../evil.txt", "names a file"), ("big.txt", ""), ("/evil.txt", "names a file")]
)
def test_an_entry_that_leads_elsewhere_is_a_sentence(clone: Workspace, name: str, said: str) -> None:
    """Whoever may write to the registry may write any entry: it is not used, which is said, and the run goes on."""
    remote = Registry(clone.environ["RUNNABLE_CI_REGISTRY"], environ={})

    there = read_index(remote, "main")
    for one in there:
        for file in next(iter(one.log["steps"].values())).get("data_catalog", ()):
            file["name"] = name if file["name"] == "big.txt" else file["name"]
    raw = remote.manifest(index_tag("main"))[1]
    hostile = encode(there)
    parsed = json.loads(raw)
    parsed["annotations"] = {"vnd.runnable.reuse": base64.b64encode(hostile).decode()}
    raw = json.dumps(parsed).encode()
    remote.tag(described(raw, MANIFEST_MEDIA_TYPE), index_tag("main"), raw)
    done = clone.runnable("run", "-j", "1", "--run-id", "second")
    assert (said in done.err) if said else ("cannot be used" not in done.err)
    assert bool(clone.log("second").steps["make"].attempts[-1].taken_from) == (not said)


def test_a_fresh_clone_is_told_what_it_could_have_reused(clone: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs of the branch left in the registry counts as what is in the store."""
    clone.write({"runnable.toml": clone.read("runnable.toml").replace('reuse = "any-run"', "")})
    monkeypatch.setattr("runnable_ci.engine.closing._WORTH_S", 0.0)
    monkeypatch.setattr("runnable_ci.engine.reuse.suggestion.WORTH_S", 0.001)
    code, output = runnable(clone.folder, "run", "-j", "1", "--run-id", "second", environ=clone.environ)
    assert code == 0
    assert "4 of 4 steps could be reused from main: " in output


def test_no_run_is_published_in_place_of_an_index(clone: Workspace) -> None:
    """A run's id is its tag, and those of indexes are no ids: it is refused before anything runs."""
    for run_id in (index_tag("main"), "_tags--record", "_branch--main"):
        err = clone.runnable("run", "--run-id", run_id, "--publish", code=2).err
        assert f"the run id {run_id} cannot be published" in err
