"""What a run log from elsewhere may give to a retry: what the pipeline file declares, and not a thing more."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from hypothesis import given, settings
from hypothesis import strategies as st
from published_runs import forge
from registry_server import Served, described, registry
from support import sha256

from runnable_ci.engine.log_grants import undeclared_parameters
from runnable_ci.pipeline.patterns import matches
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.validation import is_excluded
from runnable_ci.runs.catalog import Catalog
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry

PIPELINE = """
[parameters]
rate = 2
[steps.one]
run = "echo one > one.txt; echo score=1 >> $RUNNABLE_OUTPUT"
returns = { score = "metric" }
catalog = { put = ["*.txt"] }
[steps.two]
python = "work:two"
[steps.three]
run = "env > ../THREE; test -e go"
"""
WORK = "def two(score): pass\n"
FILES = {"runnable.toml": PIPELINE, "work.py": WORK, ".gitignore": "*.txt\n__pycache__\ngo\n"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A run `r` that failed at its last step."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "--run-id", "r", code=1)
    (tmp_path / "THREE").unlink()
    return made


def pulled(project: Workspace, tmp_path: Path, served: Served, change: Callable[[dict[str, Any]], None]) -> Workspace:
    """Another user's clone that has the fix, and pulled the run with a changed log."""
    document = json.loads(project.runnable("show", "r", "--json").out)
    change(document)
    repository = served.repository()
    digest = forge(Registry(repository, environ={}), Layout(project.store), json.dumps(document).encode())
    other = elsewhere(project, tmp_path)
    other.write({"go": ""})
    other.runnable("pull", f"{repository}@{digest}")
    return other


@pytest.mark.promise
@pytest.mark.parametrize(
    "name",
    ["GIT_SSH_COMMAND", "PERL5OPT", "NODE_OPTIONS", "PIP_INDEX_URL", "HTTPS_PROXY", "PROMPT_COMMAND", "seed", "Rate"],
)
def test_a_parameter_that_nobody_declared(project: Workspace, tmp_path: Path, served: Served, name: str) -> None:
    """It stops the retry before a step, by name and value; given again, or declared, it is taken."""
    other = pulled(project, tmp_path, served, lambda log: log["invocations"][0]["parameters"].update({name: "evil"}))
    for more in ([], ["--dry-run"], ["--from", "one"], ["--param", "rate=3"]):
        stopped = other.runnable("retry", "r", *more, code=2)
        assert f"a parameter that runnable.toml does not declare, and that was not specified here: {name} = evil" in (
            stopped.err
        )
        assert f"hint: specify `--param {name}=…` again, or declare it under [parameters]\n" in stopped.err
    assert not (tmp_path / "THREE").exists()
    assert len(other.log().invocations) == 1
    other.runnable("retry", "r", "--param", f"{name}=mine")
    assert f"\n{name}=mine\n" in (tmp_path / "THREE").read_text()


def test_many_parameters_that_nobody_declared(project: Workspace, tmp_path: Path, served: Served) -> None:
    """The first few are named."""
    many = {f"p{i}": i for i in range(50_000)}
    other = pulled(project, tmp_path, served, lambda log: log["invocations"][0]["parameters"].update(many))
    stopped = other.runnable("retry", "r", code=2)
    assert "p0 = 0, p1 = 1, p2 = 2, p3 = 3, p4 = 4 and 49995 more\n" in stopped.err
    assert len(stopped.err) < 1000


def test_a_store_that_cannot_be_written_is_planned_from(project: Workspace, tmp_path: Path, served: Served) -> None:
    """Whether a parameter was given here is told without writing to the store."""
    other = pulled(project, tmp_path, served, lambda log: log["invocations"][0]["parameters"].update(extra=1))
    before = sorted(other.store.rglob("*"))
    (other.store / "writer").unlink(missing_ok=True)
    assert "extra = 1" in other.runnable("retry", "r", "--dry-run", code=2).err
    assert sorted(other.store.rglob("*")) == [path for path in before if path.name != "writer"]


def test_a_parameter_that_a_person_gave_here(project: Workspace, tmp_path: Path, served: Served) -> None:
    """A run of this store keeps what it was given; elsewhere it is given again, by option or environment."""
    project.runnable("run", "--run-id", "mine", "--param", "extra=[1, 2]", "--to", (at := served.repository()), code=1)
    project.runnable("retry", "mine", code=1)
    assert "\nextra=[1, 2]\n" in (tmp_path / "THREE").read_text()
    moved = project.folder.rename(tmp_path / "moved")
    home = Workspace(moved, project.environ)
    home.runnable("retry", "mine", code=1)
    other = elsewhere(home, tmp_path)
    other.runnable("retry", f"{at}:mine", code=2)
    other.runnable("retry", "mine", "--publish", "--to", at, code=1, RUNNABLE_PRM_extra="[1, 2]")
    assert "unchanged since" in other.runnable("retry", "mine", "--dry-run").out
    other.runnable("retry", "mine", "--param", "extra=[3]", code=1)
    other.runnable("retry", "mine", "--publish", "--to", at, code=1)  # more was done there than here, so that it counts
    home.runnable("pull", f"{at}:mine")
    stopped = home.runnable("retry", "mine", code=2)
    assert "extra = [3]" in stopped.err
    home.write({"runnable.toml": PIPELINE.replace("rate = 2", "rate = 2\nextra = 0")})
    home.runnable("retry", "mine", code=1)
    assert "\nextra=[3]\n" in (tmp_path / "THREE").read_text()


def test_a_copy_of_a_store_gives_no_more_than_a_pull(project: Workspace, tmp_path: Path) -> None:
    """What the journal of a copied store says was given was given to the other one."""
    project.runnable("run", "--run-id", "mine", "--param", "extra=1", code=1)
    other = elsewhere(project, tmp_path)
    shutil.copytree(project.store, other.store)
    assert "extra = 1" in other.runnable("retry", "mine", code=2).err
    other.runnable("retry", "mine", "--param", "extra=1", code=1)
    other.runnable("retry", "mine", code=1)
    project.runnable("retry", "mine", code=1)


def test_a_step_that_names_its_parameters_declares_them(project: Workspace, tmp_path: Path, served: Served) -> None:
    """What a step lists under `parameters`, or returns, is declared as what stands under [parameters]."""

    def change(log: dict[str, Any]) -> None:
        log["invocations"][0]["parameters"] |= {"depth": 3, "score": 0}

    other = pulled(project, tmp_path, served, change)
    assert "depth = 3" in other.runnable("retry", "r", code=2).err
    other.write({"runnable.toml": PIPELINE + 'parameters = ["depth"]\n'})
    other.runnable("retry", "r")
    assert "\ndepth=3\n" in (tmp_path / "THREE").read_text()


class Evil:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def output(name: str, parameter: dict[str, Any], field: str = "output_parameters") -> Callable[[dict[str, Any]], None]:
    """Gives a result of step `one` to a log."""

    def change(log: dict[str, Any]) -> None:
        log["steps"]["one"]["attempts"][0][field][name] = parameter

    return change


def put(name: str) -> Callable[[dict[str, Any]], None]:
    """Renames the file that step `one` put."""

    def change(log: dict[str, Any]) -> None:
        log["steps"]["one"]["data_catalog"][0]["name"] = name

    return change


@pytest.mark.promise
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (output("PERL5OPT", {"kind": "json", "value": "-e1"}), "returned `PERL5OPT` as json"),
        (output("x", {"kind": "metric", "value": 1}, "user_defined_metrics"), "returned `x` as metric"),
        (output("score", {"kind": "json", "value": 1}), "returned `score` as json"),
        (put(".bashrc"), "put the file `.bashrc`"),
        (put("work.py"), "put the file `work.py`"),
        (put(".github/workflows/ci.yml"), "put the file `.github/workflows/ci.yml`"),
        (put("in/one.txt"), "put the file `in/one.txt`"),
        (put("a.TXT"), "put the file `a.TXT`"),
    ],
)
def test_a_result_that_the_step_does_not_declare(
    project: Workspace, tmp_path: Path, served: Served, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    """A retry takes none of it: it ends before it restores or runs anything, and `--from` runs the step again."""
    other = pulled(project, tmp_path, served, change)
    before = sorted(path.name for path in other.folder.iterdir())
    for more in ([], ["--dry-run"], ["--restore", "all"], ["--from", "three"]):
        stopped = other.runnable("retry", "r", *more, code=1)
        assert f"does not match runnable.toml: step `one` {complaint}" in stopped.err
        assert "--from one re-runs that step" in stopped.err
    assert sorted(path.name for path in other.folder.iterdir()) == before
    assert (other.read("work.py"), (tmp_path / "THREE").exists()) == (WORK, False)
    other.runnable("retry", "r", "--from", "one")
    assert "PERL5OPT" not in (tmp_path / "THREE").read_text()


def test_a_declared_number_is_never_unpickled(project: Workspace, tmp_path: Path, served: Served) -> None:
    """A log that calls the metric of a step an object has no pickle of it loaded by the step that takes it."""
    content = pickle.dumps(Evil(tmp_path / "evil"))
    Layout(project.store).put_bytes(content, "application/octet-stream")
    forged = {"kind": "object", "value": "score", "data_hash": sha256(content), "size": len(content)}

    def change(log: dict[str, Any]) -> None:
        output("score", forged)(log)
        log["steps"]["two"]["attempts"][0]["status"] = "FAIL"

    document = json.loads(project.runnable("show", "r", "--json").out)
    change(document)
    remote = Registry(served.repository(), environ={})
    remote.push(described(content), io.BytesIO(content))
    other = elsewhere(project, tmp_path)
    other.write({"go": ""})
    digest = forge(remote, Layout(project.store), json.dumps(document).encode())
    other.runnable("pull", f"{remote.label}@{digest}", "--only", "log")
    shutil.copy(project.store / "blobs/sha256" / sha256(content), other.store / "blobs/sha256")
    stopped = other.runnable("retry", "r", code=1)
    assert "step `one` returned `score` as object" in stopped.err
    assert not (tmp_path / "evil").exists()


def test_a_file_that_git_tracks_is_not_replaced_without_a_word(
    project: Workspace, tmp_path: Path, served: Served
) -> None:
    """Where a run's file takes the place of a tracked one, that is said, and the tracked one is kept aside."""
    other = pulled(project, tmp_path, served, put("kept.txt"))
    other.write({"kept.txt": "mine"})
    other.git("add", "-f", "kept.txt")
    other.commit()
    done = other.runnable("retry", "r")
    assert "replaced kept.txt, which git tracks, by the run's version; yours was moved to " in done.err
    assert other.read(".runnable/runs/r/replaced/kept.txt") == "mine"
    assert other.read("kept.txt") == "one\n"
    # Also where the store has the content, as of an earlier attempt, and nothing would be lost.
    project.write({"one.txt": "one\n"})
    project.git("add", "-f", "one.txt")
    project.commit()
    project.runnable("retry", "r", "--from", "one", code=1)
    project.write({"one.txt": "two\n"})
    project.runnable("run", "--run-id", "s", code=1)
    project.write({"runnable.toml": PIPELINE.replace("echo one >", "echo two >")})
    project.runnable("retry", "r", "--from", "one", code=1)
    project.write({"one.txt": "one\n", "go": ""})
    done = project.runnable("retry", "r", "--from", "three")
    assert "replaced one.txt, which git tracks, by the run's" in done.err
    assert project.read("one.txt") == "two\n"


TREE = ("a.txt", "b.csv", ".hidden", "out/a.txt", "out/b/c.txt", "out/.x/y", "data[1]/a", "x/y/z/a.csv", "B.TXT")
PATTERNS = st.lists(
    st.sampled_from(
        ["*", "**", "?.txt", "*.txt", "out", "out/", "./out", "[ab]*", "[!a]*", ".*", "x", "y", "data[[]1]"]
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@settings(max_examples=300, deadline=None)
@given(pattern=PATTERNS)
def test_what_a_pattern_puts_it_may_restore(tmp_path_factory: pytest.TempPathFactory, pattern: str) -> None:
    """Each file that a `put` finds in a workspace is one that the same `put` lets a log restore."""
    folder = tmp_path_factory.getbasetemp() / "tree"
    for name in TREE:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    catalog = Catalog(Layout(folder / ".runnable"), folder, folder / ".runnable/runs/r")
    for name in catalog.files.expand([pattern])[pattern]:
        assert matches(pattern, name)
        assert not is_excluded(name)


VALUES = st.sampled_from([0, 1, 1.0, True, "1", [1], {"a": 1}, None])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), VALUES),
    st.lists(st.dictionaries(st.sampled_from("abcdef"), VALUES), max_size=3),
)
def test_which_parameters_are_undeclared(recorded: dict[str, Any], given_here: list[dict[str, Any]]) -> None:
    """All but those declared, and those given here with that very value: 1, 1.0 and true are three."""
    table = {
        "parameters": {"a": 0},
        "steps": {
            "s": {"run": "true", "returns": {"b": "metric"}},
            "t": {"run": "true", "parameters": ["c"]},
        },
    }
    found = undeclared_parameters(recorded, resolve(table, file="f", default_name="n"), given_here)
    expected = [
        name
        for name, value in recorded.items()
        if name not in "abc"
        and all(name not in own or (type(own[name]), own[name]) != (type(value), value) for own in given_here)
    ]
    assert found == expected
