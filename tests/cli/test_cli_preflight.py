"""Tests of `runnable-ci preflight`: what it finds, with a real registry and a real git, and how it says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import Workspace, workspace
from registry_server import Reply, Seen, registry, serving

from runnable_ci.runs.remote import readiness
from runnable_ci.runs.remote.readiness import check_space

TOML = """
name = "flowers"
[steps.load]
run = "touch ran"
[steps.fit]
python = "code:fit"
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline with steps of both kinds, in a clean repository."""
    return workspace(tmp_path, {"runnable.toml": TOML, "code.py": "def fit():\n    pass\n"})


def states(project: Workspace, *words: str, code: int = 0) -> dict[str, str]:
    """What was looked at, and the outcome of each."""
    found = json.loads(project.runnable("preflight", "--json", *words, code=code).out)
    return {finding["subject"]: finding["state"] for finding in found}


def test_all_is_well(project: Workspace, tmp_path: Path) -> None:
    """Everything is listed, a registry is asked whether it takes an upload, and nothing of the pipeline runs."""
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        lines = project.runnable("preflight", "--to", repository).out.splitlines()
        assert [line.split()[:2] for line in lines] == [
            ["ok", subject] for subject in ("pipeline", "python", "git", "registry", "disk")
        ]
        assert f"{repository} takes uploads" in lines[3]
        assert set(states(project, "--to", repository).values()) == {"ok"}
    assert not (project.folder / "ran").exists()
    assert "runs stay on this machine" in project.runnable("preflight").out


@pytest.mark.parametrize("server", ["https://github.com", "https://git.acme.example"])
def test_in_a_job_it_is_an_error_where_the_job_would_stop(project: Workspace, server: str) -> None:
    """There a run is to be published: a default that cannot be used, or none, is what `run --publish` says."""
    job = {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": server, "GITHUB_REPOSITORY": ".Octo-/a..b"}
    done = project.runnable("preflight", "--json", code=2, **job)
    [found] = [finding for finding in json.loads(done.out) if finding["subject"] == "registry"]
    assert found["state"] == "error"
    assert found["message"] in project.runnable("run", "--publish", code=2, **job).out


def test_a_registry_that_refuses_is_an_error_and_one_that_is_down_a_warning(project: Workspace) -> None:
    """The exit code tells them apart; what to do stands below the line."""

    def closed(_seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        return Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}, b"{}")

    with serving(closed) as server:
        done = project.runnable("preflight", "--to", server.repository(), code=1)
        assert f"error    registry  {server.host} refuses anonymous access to owner/" in done.out
        assert f"hint: docker login {server.host}" in done.out
    assert states(project, "--to", "127.0.0.1:9/octo/runs")["registry"] == "warning"
    assert states(project, "--to", "octo/runs", code=2)["registry"] == "error"


def test_each_thing_is_looked_at_though_another_one_is_wrong(project: Workspace, tmp_path: Path) -> None:
    """A missing input, a module that is not there, a folder that is in no repository; a wrong file ends it."""
    lacking = 'run = "touch ran"\ncatalog = { get = ["nowhere.csv"] }'
    project.write({"runnable.toml": TOML.replace('run = "touch ran"', lacking)})
    found = states(project, code=2)
    assert (found["files"], found["python"], found["registry"], found["disk"]) == ("error", "ok", "ok", "ok")
    project.write({"runnable.toml": TOML.replace("code:fit", "not_installed:fit")})
    assert states(project)["python"] == "warning"  # the step before it may make the module
    (project.folder / ".git").rename(tmp_path / "elsewhere")
    assert states(project)["git"] == "warning"
    project.write({"runnable.toml": "steps = 1"})
    assert states(project, code=2) == {"pipeline": "error"}


def test_space_is_compared_with_what_the_last_run_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk is small for a run that stores more than is free, twice as much where its files come there too."""
    hosted = {"RUNNER_ENVIRONMENT": "github-hosted", "RUNNER_OS": "Linux"}
    free = check_space(tmp_path, 0, {}, is_fresh=True)
    assert free.state == "ok"
    assert "are free on the disk of" in free.message
    huge = 1 << 60
    for is_fresh in (True, False):
        short = check_space(tmp_path, huge, hosted, is_fresh=is_fresh)
        assert short.state == "warning"
        assert "the last run stored" in short.message
        assert ("twice as much" in short.message) == is_fresh
        assert short.problem
        assert "sudo rm -rf" in short.problem.fix
    monkeypatch.setattr(readiness, "FULL_BYTES", huge)
    monkeypatch.setattr(readiness, "LOW_BYTES", huge)
    assert check_space(tmp_path, 0, {}, is_fresh=True).state == "error"


def test_the_last_run_is_known(project: Workspace) -> None:
    """Its size is part of what is said of the disk."""
    project.write({"runnable.toml": '[steps.one]\nrun = "seq 100000 > a.txt"\ncatalog = { put = ["a.txt"] }\n'})
    project.runnable("run")
    disk = project.runnable("preflight").out.splitlines()[-1]
    assert "; the last run stored 5" in disk
    assert "KiB" in disk
