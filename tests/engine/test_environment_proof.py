"""Tests of the proof that two environments are equal, and of the environment that commands really have."""

from __future__ import annotations

import os
import sys
import venv
from pathlib import Path

import pytest
from cli import workspace

from runnable_ci.engine.provenance.environment_proof import (
    first_environment_difference,
    first_secret_difference,
    first_variable_difference,
)
from runnable_ci.engine.provenance.step_environments import StepEnvironments, python_on_path, pythons_of
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.runs.machines.environment_model import Environment

HERE = Environment(
    os="Linux 6.1.0-18",
    libc="glibc 2.36",
    distribution="debian 12",
    architecture="x86_64",
    interpreter="/usr/bin/python3",
    interpreter_version="cpython 3.11.2",
    packages={"numpy": "1.26", "typing-extensions": "4.0"},
    lock_files={"uv.lock": "a" * 64, "pyproject.toml": "b" * 64},
)
NO_PYTHON = {"interpreter": "", "interpreter_version": "", "packages": {}}


@pytest.mark.parametrize(
    ("change", "imported", "reason"),
    [
        ({"os": "Linux 6.5.0-1", "interpreter": "/opt/python", "tool_version": "9", "cpu_count": 64}, None, ""),
        ({"os": "Darwin 23"}, {}, "system Linux → Darwin"),
        ({"distribution": ""}, {}, "system debian 12 → unknown"),
        ({"libc": "glibc 2.39"}, {}, "C library glibc 2.36 → glibc 2.39"),
        ({"architecture": "aarch64"}, {}, "architecture x86_64 → aarch64"),
        ({"interpreter_version": "cpython 3.11.9"}, {}, "python cpython 3.11.2 → cpython 3.11.9"),
        ({"packages": {"numpy": "2.0"}}, {"numpy": "1.26"}, "numpy 1.26 → 2.0"),
        ({"packages": {"numpy": "2.0"}}, {}, ""),
        ({"packages": {}}, {"Typing_Extensions": "4.0"}, "typing-extensions 4.0 → not installed"),
        ({"packages": HERE.packages | {"extra": "1"}}, None, "extra not installed → 1"),
        ({"packages": HERE.packages | {"extra": "1"}}, {"numpy": "1.26"}, ""),
        ({"lock_files": {}}, None, ""),
    ],
)
def test_what_a_python_step_demands(change: dict[str, object], imported: dict[str, str] | None, reason: str) -> None:
    """Equal versions of what it imported, of all that is installed where that was not seen; a kernel may differ."""
    now = HERE.model_copy(update=change)
    assert first_environment_difference(HERE, now, imported=imported, is_command=False) == reason


@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        ({}, {"packages": HERE.packages | {"extra": "1"}}, "extra not installed → 1"),
        ({}, {"lock_files": {"uv.lock": "c" * 64}}, "uv.lock was changed"),
        ({}, {"lock_files": {}}, "uv.lock was removed"),
        ({}, {"lock_files": HERE.lock_files | {"renv.lock": "d" * 64}}, "renv.lock was added"),
        ({}, {"lock_files": HERE.lock_files | {"pyproject.toml": "d" * 64}}, ""),
        (NO_PYTHON, NO_PYTHON, ""),
        (NO_PYTHON, {}, "python unknown → cpython 3.11.2"),
        (
            NO_PYTHON | {"lock_files": {"pyproject.toml": "b" * 64}},
            NO_PYTHON | {"lock_files": {"pyproject.toml": "b" * 64}},
            "neither a python nor a lock file tells what its command runs with",
        ),
    ],
)
def test_what_a_command_demands(then: dict[str, object], now: dict[str, object], reason: str) -> None:
    """All packages of its python and the lock files, and one of the two at least, whatever was seen to be imported."""
    before, after = HERE.model_copy(update=then), HERE.model_copy(update=now)
    assert first_environment_difference(before, after, imported={}, is_command=True) == reason


@pytest.mark.parametrize(
    ("then", "now", "reason"),
    [
        ({"A": "1", "B": ""}, {"A": "1", "B": ""}, ""),
        ({"PYTHONHASHSEED": "1"}, {}, "PYTHONHASHSEED differs"),
        ({}, {"TZ": "1"}, "TZ differs"),
        ({"A": ""}, {}, ""),
        ({"A": "1"}, {}, "A differs"),
        ({}, {"A": ""}, "A was not recorded"),
        ({"A": "secret"}, {"A": "secret"}, "A is secret, and there is no reuse key to compare it by"),
        ({"A": "hmac:1"}, {"A": "hmac:1"}, ""),
        ({"A": "hmac:1"}, {"A": "hmac:2"}, "A differs"),
        (
            {"*": "secret"},
            {"*": "secret"},
            "its command may read any variable, and `env-read` does not say which it reads",
        ),
    ],
)
def test_which_variables_are_equal(then: dict[str, str], now: dict[str, str], reason: str) -> None:
    """Each that counts, on either side; what is a secret without a key is equal to nothing, also not to itself."""
    assert first_variable_difference(then, now) == reason


def test_secret_parameters_are_compared_by_the_key_alone() -> None:
    """Where one side has none, nobody knows."""
    assert first_secret_difference(["a"], {"a": "hmac:1"}, {"a": "hmac:1"}) == ""
    assert first_secret_difference(["a"], {"a": "hmac:1"}, {"a": "hmac:2"}) == "parameter a differs"
    assert "no reuse key" in first_secret_difference(["a"], {}, {"a": "hmac:2"})


def test_commands_have_the_environment_of_the_python_that_they_find(tmp_path: Path) -> None:
    """By the step's own PATH: of an environment, of the system, or of none; each is asked and recorded once."""
    venv.create(tmp_path / "env", with_pip=False)
    site = tmp_path / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for version in ("1.0", "2.0"):
        (site / f"thing-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n"
        (site / f"thing-{version}.dist-info" / "METADATA").write_text(text)
    (hidden := tmp_path / "hidden").mkdir()
    (site / "thing-2.0.dist-info").rename(hidden / "thing-2.0.dist-info")
    (bare := tmp_path / "bare").mkdir()
    (tmp_path / "w").mkdir()
    for program in ("bash", "sh", "rm", "mv"):
        (bare / program).symlink_to(next(p for d in os.defpath.split(":") if (p := Path(d, program)).exists()))
    path = f'env = {{ PATH = "{tmp_path}/env/bin:{bare}" }}'
    project = workspace(
        tmp_path / "w",
        {
            "runnable.toml": f'[steps.plain]\nrun = "true"\n'
            f'[steps.own]\nrun = "true"\n{path}\n'
            f'[steps.again]\nrun = "true"\n{path}\n'
            f'[steps.none]\nrun = "true"\nenv = {{ PATH = "{bare}" }}\n'
            f'[steps.install]\nrun = "rm -r {site}/thing-1.0.dist-info; mv {hidden}/* {site}"\n{path}\n'
            f'[steps.after]\nrun = "true"\n{path}\n'
        },
    )
    project.runnable("run", "--run-id", "r")
    log = project.log("r")
    found = {name: log.environments[step.attempts[0].environment] for name, step in log.steps.items()}
    assert found["own"].interpreter == str(tmp_path / "env/bin/python")
    assert found["own"].packages == {"thing": "1.0"}
    assert found["own"] is found["again"]
    assert (found["none"].interpreter, found["none"].packages) == ("", {})
    assert found["plain"].interpreter not in ("", found["own"].interpreter)
    assert found["after"].packages == {"thing": "2.0"}
    assert len(log.environments) == 4
    resumed = project.runnable("retry", "r", "--from", "after").err
    assert "note: other than for reused steps: thing 1.0 → 2.0 (own, again); --rerun packages" in resumed


def test_where_a_command_looks_for_its_python(tmp_path: Path) -> None:
    """In its own folder, where its PATH says so."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    assert python_on_path({"PATH": "nowhere:bin"}, tmp_path) == str(tmp_path / "bin" / "python3")
    assert python_on_path({"PATH": "bin"}, tmp_path / "bin") == ""


def test_which_interpreters_a_command_names(tmp_path: Path) -> None:
    """By path, also through variables and quotes, or by activating an environment; else that on its PATH."""
    for name in ("env/bin/python", "env/bin/python3.11", "other/python3", "bin/python", "bin/python3.12"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).symlink_to(sys.executable)
    environ = {"PATH": "bin", "HOME": str(tmp_path), "AT": f"{tmp_path}/env"}

    def named(command: str) -> list[str]:
        return [str(Path(found).relative_to(tmp_path)) for found in pythons_of(command, environ, tmp_path)]

    assert named("python x.py; ls env/bin; cat lib/python3.11/x") == ["bin/python"]
    for command in (
        "env/bin/python x",
        '"$AT/bin/python" x',
        "${AT}/bin/python x",
        "~/env/bin/python",
        "X=1 ./env/bin/python",
    ):
        assert named(command) == ["env/bin/python"]
    assert named(". env/bin/activate && python x.py") == ["env/bin/python"]
    assert named("python3.12 x.py") == ["bin/python3.12"]
    assert named("env/bin/python3.11 x && other/python3 y") == ["env/bin/python3.11", "other/python3"]
    assert named("gone/bin/python x") == ["bin/python"]
    assert pythons_of("true", {"PATH": "gone"}, tmp_path) == [""]


def test_several_interpreters_are_compared_together(tmp_path: Path) -> None:
    """A change in any of them shows."""
    for name, version in (("a", "1.0"), ("b", "2.0")):
        venv.create(tmp_path / name, with_pip=False)
        site = tmp_path / name / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (site / "thing.dist-info").mkdir()
        (site / "thing.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n")
    step = resolve({"steps": {"s": {"run": "a/bin/python x; b/bin/python y"}}}, file="f", default_name="p").steps["s"]
    environments = StepEnvironments("", tmp_path, os.environ)
    found = environments.of(step)
    assert found.packages == {"thing": "1.0, 2.0"}
    assert found.interpreter == f"{tmp_path}/a/bin/python, {tmp_path}/b/bin/python"
    assert environments.of(step) == found
