"""`--environment recorded` with packages that no index has: a folder of wheels stands for all indexes."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from cli import Workspace, workspace

from runnable_ci.analysis.reproduction.recorded_packages import RecordedPackages, install, sorted_packages
from runnable_ci.errors import StepError
from runnable_ci.runs.machines.environment_model import Environment

PIP = ("-m", "pip", "--python", ".venv/bin/python", "install", "-q", "--disable-pip-version-check", "--no-deps")
SETUP = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
BACKEND = """
import shutil
def build_wheel(folder, settings=None, metadata=None):
    shutil.copy({wheel!r}, folder)
    return {name!r}
build_editable = build_wheel
"""


def wheel(folder: Path, name: str, version: str, *, value: int = 1) -> Path:
    """A package with one module that has a `VALUE`."""
    folder.mkdir(exist_ok=True)
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VALUE = {value}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(text.encode())}\n")
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for path, text in {**files, f"{about}/RECORD": "".join([*lines, f"{about}/RECORD,,\n"])}.items():
            archive.writestr(path, text)
    return made


class Index(NamedTuple):
    """A folder of wheels, in place of all indexes."""

    folder: Path

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which pip and uv use it, and nothing else."""
        place = str(self.folder)
        return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": place, "UV_OFFLINE": "1", "UV_FIND_LINKS": place}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index with two packages."""
    for name, version, value in (("first", "1.0", 1), ("first", "2.0", 2), ("other", "1.0", 10)):
        wheel(tmp_path / "index", name, version, value=value)
    return Index(tmp_path / "index")


@pytest.fixture
def project(tmp_path: Path, index: Index) -> Workspace:
    """A step that uses the package `first`, in an environment of its own."""
    made = workspace(
        tmp_path,
        {
            "runnable.toml": 'name = "p"\npython = ".venv/bin/python"\n[parameters]\nx = 1\n[steps.s]\n'
            'python = "m:f"\nreturns = { score = "metric" }\n',
            "m.py": "import first\ndef f(x):\n    return x + first.VALUE\n",
            ".gitignore": ".runnable\n.venv\n__pycache__\n",
        },
    )
    empty_environment(made.folder)
    made.environ.update(index.environ)
    put(made, "first==1.0", "other==1.0")
    return made


def empty_environment(folder: Path) -> None:
    """Make `.venv` in a folder."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=folder, check=True)


def put(project: Workspace, *words: str) -> None:
    """Install into the environment of the project."""
    subprocess.run([sys.executable, *PIP, *words], cwd=project.folder, check=True, env=project.environ)


def local_source(tmp_path: Path, name: str) -> str:
    """A folder that a package is installed from, beside the project."""
    built, source = wheel(tmp_path / "built", name, "1.0", value=100), tmp_path / f"source-{name}"
    source.mkdir()
    (source / "pyproject.toml").write_text(f'{SETUP}[project]\nname = "{name}"\nversion = "1.0"\n')
    (source / "backend.py").write_text(BACKEND.format(wheel=str(built), name=built.name))
    return str(source)


def test_a_package_that_a_step_needs_and_no_index_has(project: Workspace, tmp_path: Path) -> None:
    """It is left out, which is said before anything runs: then the packages are why the step comes out otherwise."""
    put(project, "--editable", local_source(tmp_path, "helper"))
    project.write({"m.py": "import first, helper\ndef f(x):\n    return x + first.VALUE + helper.VALUE\n"})
    project.commit()
    project.runnable("run", "--run-id", "first")
    (environment,) = project.log("first").environments.values()
    assert environment.origins == {"helper": "editable"}
    done = project.runnable("reproduce", "first", "--environment", "recorded", "-j", "1", code=3)
    line = "not held equal: package helper 1.0 was installed from a folder, as editable, not an index: it is left out"
    assert line in done.err.partition("run first-again")[0]
    assert "run first: other hardware or packages" in done.out
    assert "the package helper only in A: 1.0" in done.out


@pytest.mark.long("it installs much; the tests below hold what is left out")
def test_why_leaves_out_a_package_that_no_step_needs(project: Workspace, tmp_path: Path) -> None:
    """The others are taken from both runs."""
    put(project, local_source(tmp_path, "helper"))
    project.runnable("run", "--run-id", "a")
    put(project, "first==2.0")
    project.runnable("run", "--run-id", "b", "--param", "x=5")
    found = json.loads(project.runnable("why", "a", "b", "--metric", "score", "--json", "-j", "1").out)
    assert found["moved_by"] == ["values", "packages"]
    assert found["not_held"] == ["package helper 1.0 was installed from a folder, not an index: it is left out"]


@pytest.mark.long("it installs much; the tests below hold what is left out")
def test_why_takes_no_packages_of_which_a_step_needs_one(project: Workspace, tmp_path: Path) -> None:
    """Else the step would fail, and nothing were known of what else differs."""
    put(project, local_source(tmp_path, "helper"))
    project.write({"m.py": "import first, helper\ndef f(x):\n    return x + first.VALUE\n"})
    project.commit()
    project.runnable("run", "--run-id", "a")
    put(project, "first==2.0")
    project.runnable("run", "--run-id", "b", "--param", "x=5")
    found = json.loads(project.runnable("why", "a", "b", "--metric", "score", "--json", "-j", "1", code=4).out)
    [packages] = [one for one in found["kinds"] if one["kind"] == "packages"]
    assert packages["not_comparable"] == "package helper 1.0 was installed from a folder, not an index"


class Installed(NamedTuple):
    """What became of packages that were installed again."""

    lacking: dict[str, str]
    there: set[str]


def installed(folder: Path, environ: dict[str, str], packages: RecordedPackages) -> Installed:
    """Install packages as a reproduction does, by pip."""
    empty_environment(folder)
    installer = [sys.executable, *PIP]
    installer[installer.index(".venv/bin/python")] = str(folder / ".venv/bin/python")
    lacking = install(packages, installer, folder, {**os.environ, **environ})
    names = {path.name.partition("-")[0] for path in folder.glob(".venv/lib/*/site-packages/*.dist-info")}
    return Installed(lacking, names)


def test_where_packages_can_be_had() -> None:
    """By where they came from, their version and whose they are; earlier versions recorded no origin."""
    packages = {"a": "1", "b": "1", "c": "1+cpu", "p-1": "1", "pip": "23", "d": "1, 2"}
    found = sorted_packages(Environment(packages=packages, origins={"b": "git", "p-1": "editable"}), {"p-1"})
    assert (found.indexed, found.local, found.is_project_installed) == (["a==1"], ["c==1+cpu"], True)
    assert found.others == {
        "b": "package b 1 was installed from a git repository, not an index",
        "d": "package d was there in several versions, 1, 2",
    }
    assert not sorted_packages(Environment(packages={"a": "1"}), {"p-1"}).is_project_installed


def test_a_local_version(index: Index, tmp_path: Path) -> None:
    """It is installed where an index here has it, as some do; else left out."""
    wheel(index.folder, "other", "1.0+cpu")
    found = installed(tmp_path, index.environ, RecordedPackages(["first==1.0"], ["other==1.0+cpu"], {}, False))
    assert found == ({}, {"first", "other"})
    (index.folder / "other-1.0+cpu-py3-none-any.whl").unlink()
    (tmp_path / "again").mkdir()
    found = installed(
        tmp_path / "again", index.environ, RecordedPackages(["first==1.0"], ["other==1.0+cpu"], {}, False)
    )
    assert found.there == {"first"}
    assert found.lacking == {"other": "package other 1.0+cpu has a local version, which no index here has"}


def test_a_version_that_was_removed_from_the_index(index: Index, tmp_path: Path) -> None:
    """One line says which, with a hint."""
    packages = RecordedPackages(["first==1.0", "other==0.9"], [], {}, False)
    with pytest.raises(StepError, match=r"cannot be made: no index here has other 0\.9\n") as raised:
        installed(tmp_path, index.environ, packages)
    assert raised.value.hint.startswith("it may have been removed")


def test_one_that_the_installer_does_not_name(index: Index, tmp_path: Path) -> None:
    """It is found by halves."""
    names = [f"more{number}" for number in range(5)]
    for name in names:
        wheel(index.folder, name, "1.0")
    (index.folder / "more3-1.0-py3-none-any.whl").write_bytes(b"no archive")
    with pytest.raises(StepError, match=r"cannot be made: more3 1\.0 cannot be installed: "):
        installed(tmp_path, index.environ, RecordedPackages([f"{name}==1.0" for name in names], [], {}, False))
