"""Pipelines of many kinds come out again: matrices, loops, retries, links, folders, submodules, one killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry

from runnable_ci.analysis.comparison.contents.compare import Reader
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.again import ReproduceOptions, make_again, prepared_tree
from runnable_ci.analysis.reproduction.determinism.silence import Silence
from runnable_ci.engine.options import Options
from runnable_ci.runs.reader import load
from runnable_ci.store.local import Layout

IGNORED = ".runnable\n__pycache__\nout*\ndata\n.venv\nstate*\n"


def reproduced(made: Workspace, *words: str, code: int = 0, at: str = ".") -> dict[str, Any]:
    """What `reproduce --json` prints of the run `first`."""
    found: dict[str, Any] = json.loads(
        made.runnable("reproduce", "first", *words, "--json", "-q", code=code, at=at).out
    )
    return found


def pipeline(tmp_path: Path, toml: str, **files: str) -> Workspace:
    """A pipeline in a repository."""
    return workspace(tmp_path, {"runnable.toml": toml, ".gitignore": IGNORED, **files})


def test_matrices_and_loops(tmp_path: Path) -> None:
    """Each instance and each round has its verdict."""
    made = pipeline(
        tmp_path,
        """
[steps.part]
strategy = { matrix = { n = [1, 2, 3] } }
run = 'echo $n > out-$n.txt; echo "double=$((n * 2))" >> $RUNNABLE_OUTPUT'
returns = { double = "json" }
catalog = { put = ["out-${{ matrix.n }}.txt"] }
[steps.again]
loop = { until = "parameters.level > 2", max = 5 }
python = "m:f"
returns = { level = "json" }
""",
        **{"m.py": "def f(level=0):\n    return level + 1\n"},
    )
    made.runnable("run", "-q", "--run-id", "first")
    found = reproduced(made)
    assert found["verdict"] == "reproduced", found
    assert len(found["steps"]) >= 6


def test_a_run_of_several_invocations(tmp_path: Path) -> None:
    """What was reused in a retry is made again too, with the code that each run ended with."""
    made = pipeline(
        tmp_path,
        '[steps.a]\nrun = "echo 1 > out.txt"\ncatalog = { put = ["out.txt"] }\n'
        '[steps.b]\npython = "m:f"\nreturns = ["x"]\n',
        **{"m.py": "def f():\n    raise ValueError\n"},
    )
    made.runnable("run", "-q", "--run-id", "first", code=1)
    made.write({"m.py": "def f():\n    return open('out.txt').read()\n"})
    made.runnable("retry", "-q", "first")
    found = reproduced(made)
    assert {name: one["verdict"] for name, one in found["steps"].items()} == {"a": "reproduced", "b": "reproduced"}


def test_a_pipeline_in_a_sub_folder(tmp_path: Path) -> None:
    """Its paths count from its own folder, data outside of git lie there too, and code above is found."""
    made = workspace(
        tmp_path,
        {
            "sub/runnable.toml": '[steps.s]\nrun = "cat data/in.csv ../shared.txt > out.txt"\n'
            'catalog = { put = ["out.txt"] }\n',
            "shared.txt": "shared\n",
            ".gitignore": IGNORED,
        },
    )
    made.write({"sub/data/in.csv": "1\n"})
    made.runnable("run", "-q", "--run-id", "first", at="sub")
    assert reproduced(made, at="sub")["verdict"] == "reproduced"
    made.write({"sub/data/in.csv": "2\n"})
    assert reproduced(made, at="sub", code=4)["verdict"] == "not comparable"


def test_links_and_folders_of_many_files(tmp_path: Path) -> None:
    """Data behind a link and a folder of 1,000 files are brought along."""
    made = pipeline(
        tmp_path,
        '[steps.s]\nrun = "cat data/link.csv data/many/* > out.txt"\ncatalog = { put = ["out.txt"] }\n',
    )
    made.write({f"data/many/{n:04}.csv": f"{n}\n" for n in range(1000)} | {"data/real.csv": "x\n"})
    (made.folder / "data/link.csv").symlink_to("real.csv")
    made.runnable("run", "-q", "--run-id", "first")
    found = reproduced(made)
    assert found["verdict"] == "reproduced", found


def test_data_by_a_link_that_leads_out(tmp_path: Path) -> None:
    """A folder of data that lies elsewhere, linked into the workspace, is read where it is, or said not to be there."""
    made = pipeline(tmp_path, '[steps.s]\nrun = "cat data/in.csv > out.txt"\ncatalog = { put = ["out.txt"] }\n')
    (tmp_path / "far").mkdir()
    (tmp_path / "far/in.csv").write_text("1\n")
    (made.folder / "data").symlink_to(tmp_path / "far")
    made.runnable("run", "-q", "--run-id", "first")
    assert reproduced(made)["verdict"] == "reproduced"
    (tmp_path / "far/in.csv").write_text("2\n")
    assert reproduced(made, code=4)["verdict"] == "not comparable"


def test_what_is_built_up(tmp_path: Path) -> None:
    """A product that a step builds up begins as it was, where the run has that, or cannot be compared."""
    made = pipeline(
        tmp_path,
        '[steps.s]\nrun = "echo x >> state.txt"\ncatalog = { put = ["state.txt"], persist = true }\n',
    )
    made.runnable("run", "-q", "--run-id", "zero")
    made.runnable("run", "-q", "--run-id", "first")
    found = json.loads(made.runnable("reproduce", "zero", "--json", "-q").out)
    assert found["verdict"] == "reproduced"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("runnable-ci")), "reproduce", "first", "--json", "-q"],
        cwd=made.folder,
        env=made.environ,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["verdict"] != "different", done.stdout


def test_a_submodule(tmp_path: Path) -> None:
    """Its files are as they were."""
    other = workspace(tmp_path, {"code.sh": "echo from the submodule\n"}, name="other")
    made = workspace(
        tmp_path,
        {
            "runnable.toml": '[steps.s]\nrun = "sh lib/code.sh > out.txt"\ncatalog = { put = ["out.txt"] }\n',
            ".gitignore": IGNORED,
        },
    )
    made.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other.folder), "lib")
    made.git("commit", "-qm", "lib")
    made.runnable("run", "-q", "--run-id", "first")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("runnable-ci")), "reproduce", "first", "--json", "-q"],
        cwd=made.folder,
        env=made.environ,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert found["verdict"] in ("reproduced", "not comparable"), done.stdout + done.stderr


def test_a_project_that_is_installed_in_place(tmp_path: Path) -> None:
    """What is imported from the workspace here, and is other code now, says nothing; the same code does."""
    made = pipeline(
        tmp_path,
        '[steps.s]\npython = "m:f"\nreturns = ["x"]\n',
        **{"m.py": "import pkg\ndef f():\n    return pkg.X\n", "src/pkg/__init__.py": "X = 1\n"},
    )
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=made.folder, check=True)
    (site,) = (made.folder / ".venv/lib").glob("python*/site-packages")
    (site / "pkg.pth").write_text(f"{made.folder / 'src'}\n")
    made.runnable("run", "-q", "--run-id", "first")
    assert reproduced(made)["verdict"] == "reproduced"
    made.write({"src/pkg/__init__.py": "X = 1  # another code\n"})
    found = reproduced(made, code=4)
    assert "of the workspace here, not of the recorded code" in found["steps"]["s"]["reason"]


def test_why_the_recorded_packages_cannot_be_installed(tmp_path: Path) -> None:
    """The line that says so is in the message, not the installer's own advice below it."""
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin/uv"
    uv.write_text(
        "#!/bin/sh\n[ \"$1\" = venv ] && exit 0\necho 'no six in any index' >&2\necho 'hint: look' >&2\nexit 1\n"
    )
    uv.chmod(0o755)
    made = pipeline(tmp_path, '[steps.s]\npython = "m:f"\n', **{"m.py": "def f():\n    pass\n"})
    made.runnable("run", "-q", "--run-id", "first")
    path = f"{tmp_path / 'bin'}{os.pathsep}{made.environ['PATH']}"
    done = made.runnable("reproduce", "first", "--environment", "recorded", code=1, PATH=path)
    said = r"^error: the recorded environment cannot be made: .+: no six in any index$"
    assert re.search(said, done.err, re.MULTILINE)


def test_published_beside_the_first(tmp_path: Path) -> None:
    """A run is reproduced by its reference in another clone; the verdict is in the same registry, for all to see."""
    made = pipeline(
        tmp_path,
        '[steps.s]\nrun = "sort data/in.csv > out.txt"\ncatalog = { put = ["out.txt"], get = ["data/in.csv"] }\n',
    )
    made.write({"data/in.csv": "b\na\n"})
    made.runnable("run", "-q", "--run-id", "first")
    with registry(tmp_path / "registry") as served:
        where = f"{served.repository()}/runs"
        reference = made.runnable("publish", "first", "--to", where).out.strip()
        other = elsewhere(made, tmp_path)
        other.write({"data/in.csv": "b\na\n"})
        found = json.loads(other.runnable("reproduce", reference, "--publish", "--json", "-q").out)
        assert found["verdict"] == "reproduced"
        assert found["published"].startswith(f"{where}:first-again-2")
        listed = json.loads(made.runnable("runs", "--from", where, "--experiments", "--json").out)
        assert {run["run_id"]: run["reproduces"] for run in listed} == {
            "first": "",
            found["kept_as"]: "first: reproduced",
        }
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{found['published'].partition('@')[0]}"],
            capture_output=True,
            check=True,
            env=made.environ,
        ).stdout
        assert json.loads(raw)["annotations"]["vnd.runnable.reproduces"] == "first: reproduced"


def test_other_machine_facts(tmp_path: Path) -> None:
    """Where the recorded machine was another one, a difference is laid to that; what is the same is reproduced."""
    made = pipeline(
        tmp_path,
        '[steps.a]\nrun = "echo 1 > out.txt"\ncatalog = { put = ["out.txt"] }\n'
        '[steps.b]\nrun = "cat /proc/sys/kernel/random/uuid > out-b.txt"\ncatalog = { put = ["out-b.txt"] }\n',
    )
    made.runnable("run", "-q", "--run-id", "first")
    layout = Layout(made.store)
    log = load(layout, "first")
    for environment in log.environments.values():
        environment.machine.cpu = "Another CPU"
    found = ComparedRun(layout, log)
    options = Options(jobs=1, environ=made.environ, printer=Silence())
    asked = ReproduceOptions()
    with prepared_tree(found, made.folder, options, asked) as tree:
        assert any("cpu: Another CPU then" in line for line in tree.not_held)
        again = make_again(found, tree, "again", asked, Reader(sys.executable, made.environ))
    assert {name: one.verdict for name, one in again.record.steps.items()} == {
        "a": "reproduced",
        "b": "other hardware or packages",
    }
    assert "cpu" in again.record.steps["b"].reason


@pytest.mark.parametrize(
    ("name", "write", "module"),
    [
        ("out.npy", "import numpy\n    numpy.save('out.npy', numpy.array([1.0, x]))", "numpy"),
        (
            "out.parquet",
            "import pyarrow, pyarrow.parquet as p\n    p.write_table(pyarrow.table({'a': [1.0, x]}), 'out.parquet')",
            "pyarrow",
        ),
        ("out.csv", "open('out.csv', 'w').write(f'name,value\\na,{x}\\n')", "csv"),
        ("out.json", "import json\n    json.dump({'deep': [x, 'a']}, open('out.json', 'w'))", "json"),
    ],
)
def test_products_within_tolerance(name: str, write: str, module: str, tmp_path: Path) -> None:
    """Numbers in files of each kind that has a form are near where that is asked for, and different where not."""
    pytest.importorskip(module)
    made = pipeline(
        tmp_path,
        f'[steps.s]\npython = "m:f"\ncatalog = {{ put = ["{name}"] }}\n',
        **{"m.py": f"import os\ndef f():\n    x = 1 + int.from_bytes(os.urandom(3), 'big') * 1e-12\n    {write}\n"},
    )
    made.runnable("run", "-q", "--run-id", "first")
    assert reproduced(made, "--rtol", "1e-3")["verdict"] == "within tolerance"
    assert reproduced(made, code=1)["verdict"] == "different"
