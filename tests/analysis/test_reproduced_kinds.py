"""Steps of each kind come out again: in containers, notebooks, with checkpoints, tries, conditions, other files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from notebooks import notebook
from podman import IMAGE, Podman, podman_with_image, python_volumes
from registry_server import Served, registry

from runnable_ci.analysis.comparison import which
from runnable_ci.analysis.comparison.contents.compare import Reader
from runnable_ci.analysis.reproduction.again import ReproduceOptions, make_again, prepared_tree
from runnable_ci.analysis.reproduction.determinism.silence import Silence
from runnable_ci.engine.options import Options
from runnable_ci.runs.reader import load
from runnable_ci.store.local import Layout

IGNORED = ".runnable\n__pycache__\nout*\ndata\n.venv\nexecuted\nckpt\n"


def pipeline(tmp_path: Path, toml: str, **files: str) -> Workspace:
    """A pipeline in a repository."""
    return workspace(tmp_path, {"runnable.toml": toml, ".gitignore": IGNORED, **files})


def reproduced(made: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    """What `reproduce --json` prints of the run `first`."""
    found: dict[str, Any] = json.loads(made.runnable("reproduce", "first", *words, "--json", "-q", code=code).out)
    return found


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    """Step → its verdict."""
    return {name: step["verdict"] for name, step in found["steps"].items()}


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """Podman with the image, once for all tests."""
    with podman_with_image() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry of this machine."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def push_as(podman: Podman, name: str, content: str) -> None:
    """Let a tag of a registry be the image with this content in it; nothing of that stays here."""
    file = podman.folder / "next"
    file.write_text(f"FROM {IMAGE}\nENV CONTENT={content}\n")
    podman("build", "--quiet", "--file", str(file), "--tag", name, str(podman.folder / "context"))
    podman("push", "--quiet", name)
    podman("rmi", name)


def test_containers(tmp_path: Path, podman: Podman, served: Served) -> None:
    """In another image it is that, said first; on request in the recorded one; in none it is not comparable."""
    podman.allow(served.host)
    name = f"{served.repository()}:v1"
    push_as(podman, name, "first")
    made = pipeline(
        tmp_path,
        f"""
python = ".venv/bin/python"
[steps.plain]
run = "echo 1 > out-1.txt"
catalog = {{ put = ["out-1.txt"] }}
[steps.inside]
container = "{name}"
run = "echo $CONTENT > out-2.txt"
catalog = {{ put = ["out-2.txt"] }}
[steps.after]
run = "cat out-2.txt > out-3.txt"
catalog = {{ put = ["out-3.txt"] }}
""",
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=made.folder, check=True)
    made.environ["PATH"] = f"{made.folder / '.venv/bin'}:{made.environ['PATH']}"
    made.environ.update(podman.environ, RUNNABLE_CI_CONTAINER_ENGINE="podman")
    made.runnable("run", "-q", "--run-id", "first")
    assert verdicts(reproduced(made)) == dict.fromkeys(("plain", "inside", "after"), "reproduced")

    push_as(podman, name, "second")
    podman("rmi", "--all", "--force", check=False)
    done = made.runnable("reproduce", "first", code=3)
    said, _, _ = done.err.partition("run first-again")
    assert "not held equal: `inside`: image" in said
    assert "other hardware or packages" in done.out
    podman("rmi", "--all", "--force", check=False)
    found = reproduced(made, "--environment", "recorded")
    assert verdicts(found) == dict.fromkeys(("plain", "inside", "after"), "reproduced")
    assert found["not_held"] == []

    podman("rmi", "--all", "--force", check=False)
    made.environ.update(podman.another().environ)  # which may not speak plain HTTP with the registry
    done = made.runnable("reproduce", "first", code=4)
    said, _, _ = done.err.partition("run first-again")
    assert re.search(f"not comparable: `inside`: .*the image {re.escape(name)} cannot be pulled", said)
    found = reproduced(made, "--environment", "recorded", code=4)
    assert verdicts(found) == {"plain": "reproduced", "inside": "not comparable", "after": "reproduced"}
    assert (found["verdict"], found["left_out"]) == ("not comparable", [])
    assert reproduced(made, "--skip", "inside")["left_out"] == ["inside"]
    made.environ["RUNNABLE_CI_CONTAINER_ENGINE"] = "apptainer"
    if shutil.which("apptainer") is None:
        assert "`apptainer` is not on PATH" in reproduced(made, code=4)["steps"]["inside"]["reason"]


def test_python_and_notebooks_in_a_container(tmp_path: Path, podman: Podman) -> None:
    """The interpreter is the image's, whose packages are not installed here where recorded ones are asked for."""
    with podman_with_image() as own:
        volumes = json.dumps([*python_volumes(), f"{sys.prefix}:{sys.prefix}:ro"])
        container = (
            f'{{ image = "{IMAGE}", volumes = {volumes}, env = {{ LD_LIBRARY_PATH = "{sys.base_prefix}/lib" }} }}'
        )
        made = pipeline(
            tmp_path,
            f"""
python = "{sys.executable}"
[steps.make]
python = "work:make"
returns = {{ thing = "object" }}
container = {container}
[steps.show]
notebook = "n.ipynb"
returns = ["total"]
container = {container}
""",
            **{
                "work.py": "def make():\n    return [1, 2, 3]\n",
                "n.ipynb": notebook("total = sum(thing)\nprint(total)"),
            },
        )
        made.environ.update(own.environ, RUNNABLE_CI_CONTAINER_ENGINE="podman")
        made.runnable("run", "-q", "--run-id", "first")
        for words in ((), ("--environment", "recorded")):
            assert verdicts(reproduced(made, *words)) == {"make": "reproduced", "show": "reproduced"}


def test_notebooks(tmp_path: Path) -> None:
    """The executed one is the same: cells and outputs, without times; what a cell prints otherwise is another one."""
    made = pipeline(
        tmp_path,
        f'python = "{sys.executable}"\n[parameters]\ndepth = 3\n'
        '[steps.show]\nnotebook = "n.ipynb"\nreturns = ["total"]\n',
        **{"n.ipynb": notebook("total = 2 * depth\nprint(total)", "import os\nprint(os.environ.get('SAYS'))")},
    )
    made.runnable("run", "-q", "--run-id", "first")
    assert reproduced(made)["verdict"] == "reproduced"
    made.environ["SAYS"] = "else"
    found = reproduced(made, code=1)
    assert found["steps"]["show"]["reason"] == "executed/show.ipynb changed"


PNG = """
import struct, sys, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def write(path, when, colour=0):
    rows = b"".join(b"\\0" + bytes([colour, 0, 0] * 4) for _ in range(4))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
    text = chunk(b"tEXt", b"Creation Time\\0" + when.encode())
    with open(path, "wb") as file:
        file.write(b"\\x89PNG\\r\\n\\x1a\\n" + head + text + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
"""


def test_a_picture_that_differs_in_its_time_stamp(tmp_path: Path) -> None:
    """Its pixels are the same, written otherwise: within tolerance, and the culprit is the clock; others are not."""
    made = pipeline(
        tmp_path,
        f'python = "{sys.executable}"\n[steps.draw]\npython = "m:draw"\ncatalog = {{ put = ["out.png"] }}\n',
        **{"m.py": f"{PNG}\nimport time\ndef draw():\n    write('out.png', str(time.time_ns()))\n"},
    )
    made.runnable("run", "-q", "--run-id", "first")
    found = reproduced(made)
    assert found["steps"]["draw"]["verdict"] == "within tolerance"
    assert (
        "out.png changed (the pixels are the same; the files differ in Creation Time)"
        in found["steps"]["draw"]["reason"]
    )
    found = reproduced(made, "--times", "3")
    assert (found["varies"]["draw"]["culprits"], found["varies"]["draw"]["proved"]) == (["time"], True)
    made.write({"m.py": f"{PNG}\nimport time\ndef draw():\n    write('out.png', '', time.time_ns() % 251)\n"})
    made.runnable("run", "-q", "--run-id", "first-2")
    for _ in range(2):  # of two times one may be the same colour
        done = made.runnable("reproduce", "first-2", "--rtol", "1", "--atol", "255", code=1)
    assert "different" in done.out


def test_tries_conditions_and_other_files(tmp_path: Path) -> None:
    """A step that was tried twice, one that was skipped, and the steps of another file."""
    made = pipeline(
        tmp_path,
        """
[parameters]
deep = false
[steps.often]
run = "test -e out-tried || { touch out-tried; exit 1; }; echo 1 > out-1.txt"
attempts = 3
catalog = { put = ["out-1.txt"] }
[steps.deep]
if = "parameters.deep"
run = "echo 2 > out-2.txt"
catalog = { put = ["out-2.txt"] }
[steps.other]
uses = "other.toml"
needs = ["often"]
[steps.last]
needs = ["deep", "other"]
if = "always()"
run = "cat out-4.txt > out-5.txt"
catalog = { put = ["out-5.txt"] }
""",
        **{
            "other.toml": '[steps.one]\nrun = "echo 3 > out-3.txt"\ncatalog = { put = ["out-3.txt"] }\n'
            '[steps.two]\nrun = "cat out-3.txt > out-4.txt"\ncatalog = { put = ["out-4.txt"] }\n'
        },
    )
    made.runnable("run", "-q", "--run-id", "first")
    found = reproduced(made)
    assert set(verdicts(found).values()) == {"reproduced"}, found
    assert "deep" not in found["steps"]
    assert {"often", "last"} < found["steps"].keys()
    assert len(found["steps"]) == 4


def test_a_step_that_resumed_from_a_checkpoint(tmp_path: Path) -> None:
    """It starts over, said first; the same result is reproduced, another one cannot be compared."""
    made = pipeline(
        tmp_path,
        '[steps.train]\nrun = "sh train.sh"\ncheckpoint = "ckpt/**"\ncatalog = { put = ["out.txt"] }\n',
        **{
            "train.sh": "mkdir -p ckpt; test -e ckpt/1 && echo 1 $EXTRA > out.txt && exit; echo 1 > ckpt/1\n"
            "test -e $HOME/well || exit 3; echo 1 > out.txt\n"
        },
    )
    made.runnable("run", "-q", "--run-id", "first", code=1)
    (Path(made.environ["HOME"]) / "well").touch()
    made.runnable("retry", "-q", "first")
    log = made.log("first")
    assert log.steps["train"].attempts[-1].checkpoint_used is not None
    done = made.runnable("reproduce", "first")
    assert "not held equal: `train` resumed from a checkpoint; it starts over" in done.err
    assert "run first: reproduced" in done.out


def test_a_run_over_several_commits(tmp_path: Path) -> None:
    """All is made again from the code of its last attempt; the steps that ran other code are named first."""
    made = pipeline(
        tmp_path,
        '[steps.a]\npython = "one:f"\nreturns = ["x"]\n[steps.b]\npython = "two:f"\nreturns = ["y"]\n',
        **{"one.py": "def f():\n    return 1\n", "two.py": "def f(x):\n    raise ValueError\n"},
    )
    made.runnable("run", "-q", "--run-id", "first", code=1)
    first = made.git("rev-parse", "HEAD")
    made.write({"two.py": "def f(x):\n    return x\n"})
    second = made.commit()
    made.runnable("retry", "-q", "first")
    found = reproduced(made)
    assert found["verdict"] == "reproduced"
    assert found["not_held"] == [f"`a` ran other code, {first[:12]}; all is made again from {second[:12]}"]
    assert made.log(found["kept_as"]).steps["b"].attempts[-1].code_identities[0].code_identifier == second


def test_a_dirty_tree_with_what_is_new_and_what_is_gone(tmp_path: Path) -> None:
    """It is made again as it was: untracked files are there, deleted ones are not."""
    made = pipeline(
        tmp_path,
        '[steps.s]\nrun = "ls > out.txt; cat new.txt kept.txt >> out.txt"\ncatalog = { put = ["out.txt"] }\n',
        **{"kept.txt": "1\n", "gone.txt": "1\n"},
    )
    made.write({"new.txt": "new\n", "kept.txt": "changed\n"})
    (made.folder / "gone.txt").unlink()
    made.runnable("run", "-q", "--run-id", "first")
    made.git("stash", "-q", "--include-untracked")
    found = reproduced(made)
    assert found["verdict"] == "reproduced", found
    assert made.git("status", "--short") == ""


def test_secrets_that_are_not_here(tmp_path: Path) -> None:
    """Who does not have a secret is told which, before anything runs; with it the run comes out again."""
    made = pipeline(
        tmp_path,
        'secrets = ["TOKEN"]\n[steps.s]\nrun = "test \\"$TOKEN\\" = hunter2-hunter2; echo 1 > out.txt"\n'
        'catalog = { put = ["out.txt"] }\n',
    )
    made.runnable("run", "-q", "--run-id", "first", TOKEN="hunter2-hunter2")
    done = made.runnable("reproduce", "first", code=2)
    assert "TOKEN" in done.err
    assert "run first-again" not in done.err
    done = made.runnable("reproduce", "first", TOKEN="hunter2-hunter2")
    assert "run first: reproduced" in done.out


def test_a_run_of_a_registry_in_a_fresh_clone(tmp_path: Path, served: Served) -> None:
    """A run with a matrix, objects and a dirty tree comes out in a clone that never saw it, pulled or by reference."""
    made = pipeline(
        tmp_path,
        """
[steps.part]
strategy = { matrix = { n = [1, 2] } }
run = "sh part.sh $n > out-$n.txt"
catalog = { put = ["out-${{ matrix.n }}.txt"] }
[steps.model]
python = "m:f"
returns = { model = "object" }
""",
        **{"m.py": "def f():\n    return {'rows': open('out-1.txt').read()}\n", "part.sh": "echo one $1\n"},
    )
    made.write({"part.sh": "echo changed $1\n"})
    made.runnable("run", "-q", "--run-id", "first")
    reference = made.runnable("publish", "first", "--to", f"{served.repository()}/runs").out.strip()
    other = elsewhere(made, tmp_path)
    found = json.loads(other.runnable("reproduce", reference, "--json", "-q").out)
    assert found["verdict"] == "reproduced"
    other.runnable("pull", reference)
    assert reproduced(other)["verdict"] == "reproduced"
    assert other.git("status", "--short") == ""


def test_what_steps_read_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of each step is decoded once for all that looks at it."""
    asked: list[str] = []
    monkeypatch.setattr(which, "reads_of", lambda _catalog, title, _last: asked.append(title))
    made = pipeline(tmp_path, '[steps.s]\nrun = "echo 1 > out.txt"\ncatalog = { put = ["out.txt"] }\n')
    made.runnable("run", "-q", "--run-id", "first")
    layout = Layout(made.store)
    found = which.ComparedRun(layout, load(layout, "first"))
    options = Options(jobs=1, environ=made.environ, printer=Silence())
    with prepared_tree(found, made.folder, options, ReproduceOptions()) as tree:
        make_again(found, tree, "again", ReproduceOptions(), Reader(sys.executable, made.environ))
    assert asked == ["s.1", "s.1"]  # of the first run and of the other one


def test_secret_parameters_that_are_not_given(tmp_path: Path) -> None:
    """The value of the file takes their place: that is said first, and what comes of it says nothing."""
    made = pipeline(
        tmp_path,
        '[parameters]\nkey = ""\n[steps.s]\npython = "m:f"\nreturns = ["n"]\n',
        **{"m.py": "def f(key):\n    return len(key)\n"},
    )
    made.environ["RUNNABLE_CI_SECRETS"] = "KEY"
    made.environ["KEY"] = "hunter2-hunter2"
    made.runnable("run", "-q", "--run-id", "first", "--param", "key=hunter2-hunter2")
    done = made.runnable("reproduce", "first", code=4)
    said, _, _ = done.err.partition("run first-again-1")
    assert "`s` was given secrets, which the run log does not have: key" in said
    assert "it was given something else: `key`" in done.out
    assert "hunter2" not in done.out + done.err
    assert reproduced(made, "--param", "key=hunter2-hunter2")["verdict"] == "reproduced"
