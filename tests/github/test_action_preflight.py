"""Tests of what a job looks at before its run begins, on real registries, and on one that refuses."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from action_steps import PIPELINE, Repository
from registry_server import Reply, Seen, Served, password_registry, registry, serving

from runnable_ci.errors import StoreError
from runnable_ci.runs.remote import readiness
from runnable_ci.store.registry import Registry

FORK = {"pull_request": {"head": {"repo": {"full_name": "stranger/flowers"}}}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


def repository_of(tmp_path: Path, where: str) -> Repository:
    """A repository whose pipeline says that it ran, in a file."""
    files = {"runnable.toml": PIPELINE.replace("echo", "touch ran; echo", 1), "fixed": "", ".gitignore": "ran\n"}
    return Repository(tmp_path, where, files, is_quick=False)  # a fork is quick enough to publish meanwhile


class Asked(list[str]):
    """The methods of the requests before the step of a job has run: later ones may publish the run as it goes."""

    project: Path

    def hook(self, seen: Seen, forward: Callable[[], Reply]) -> Reply:
        """Note a request."""
        if not (self.project / "ran").exists():
            self.append(seen.method)
        return forward()


def refusing(status: int, body: bytes = b"") -> Callable[[Seen, Callable[[], Reply]], Reply]:
    """A registry that everybody may read and that answers so to an upload."""

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(status, {}, body) if seen.method == "POST" else forward()

    return hook


def test_what_a_job_asks_a_registry_that_takes_all(tmp_path: Path, served: Served) -> None:
    """Whether it takes an upload, which is cancelled, and how much the branch's newest run has; nothing is left."""
    asked = Asked()
    with serving(asked.hook, upstream=served) as server:
        repository = repository_of(tmp_path, server.repository())
        action, project = repository.job()
        asked.project = project.folder
        assert action.step("run").code == 0
        assert asked == ["POST", "DELETE", "HEAD"]
        assert action.step("finish").code == 0
        assert list(served.folder.rglob("_uploads/*/data")) == []
        asked.clear()
        again, project = repository.job(variables={"GITHUB_RUN_ID": "1001"})
        asked.project = project.folder
        assert again.step("run").code == 0
        assert asked == ["POST", "DELETE", "HEAD", "GET"]


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (403, b'{"errors": [{"code": "DENIED", "message": "permission_denied: write_package"}]}', "write_package"),
        (404, b'{"errors": [{"code": "NAME_UNKNOWN", "message": "no such repository"}]}', "no such repository"),
        (405, b"", "not supported by"),
        (200, b"<html>Welcome!</html>", "starts an upload without a location"),
    ],
)
def test_a_registry_that_takes_no_upload_stops_the_job_before_its_run(
    tmp_path: Path, served: Served, status: int, body: bytes, said: str
) -> None:
    """What refuses the first upload would refuse it after hours too; how to go on without is said."""
    with serving(refusing(status, body), upstream=served) as server:
        action, project = repository_of(tmp_path, server.repository()).job()
        ran = action.all()
    assert ran.code == 1
    assert said in ran.text
    told = action.summary.replace("\\", "")
    assert said in told
    assert "to publish nothing, set `publish: never`" in told
    assert not (project.folder / "ran").exists()


@pytest.mark.parametrize("inputs", [{"publish": "never"}, {"event": FORK}])
def test_a_job_that_publishes_nothing_is_not_kept_from_its_run(
    tmp_path: Path, served: Served, inputs: dict[str, object]
) -> None:
    """Nobody is asked whether it might."""
    variables = {"GITHUB_EVENT_NAME": "pull_request" if "event" in inputs else "push"}
    with serving(refusing(403), upstream=served) as server:
        repository = repository_of(tmp_path, server.repository())
        action, project = repository.job(variables=variables, **inputs)  # type: ignore[arg-type]
        assert action.step("run").code == 0
        assert server.seen == []
    assert (project.folder / "ran").exists()


@pytest.mark.parametrize(("status", "headers"), [(503, {}), (429, {"Retry-After": "7200"}), (None, {})])
def test_a_registry_that_may_be_back_later_is_only_warned_of(
    tmp_path: Path, served: Served, status: int | None, headers: dict[str, str]
) -> None:
    """It is asked once: a run of hours does not wait for it, and the run begins."""

    asked = Asked()

    def hook(seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        return asked.hook(seen, lambda: Reply(status or 0, headers))

    with serving(hook, upstream=served) as server:
        where = server.repository() if status else "127.0.0.1:9/octo/runs"
        action, project = repository_of(tmp_path, where).job()
        asked.project = project.folder
        ran = action.step("run")
        assert len(asked) == (1 if status else 0)
    assert ran.code == 0, ran.text
    assert "::warning title=The registry cannot be reached now::" in ran.text
    assert "the run can begin" in ran.text
    assert "the same command" not in ran.text
    assert (project.folder / "ran").exists()


def test_a_silent_registry_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, and waited for only as long as that takes."""
    monkeypatch.setattr(readiness, "SILENT_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        where = f"127.0.0.1:{silent.getsockname()[1]}/octo/runs"
        finding = readiness.check_registry(Registry(where, environ={}), {})
        with pytest.raises(StoreError, match="timed out"):
            readiness.size_of_newest(Registry(where, environ={}), "flowers", "main")
    assert finding.state == "warning"
    assert finding.problem is not None
    assert "timed out" in finding.problem.message


def test_a_retry_is_looked_at_before_it_runs_too(tmp_path: Path, served: Served) -> None:
    """It may read what it resumes, and yet have no right to publish what it makes of it."""
    with serving(upstream=served) as server:
        repository = repository_of(tmp_path, server.repository())
        failing = {"runnable.toml": PIPELINE.replace("test -e fixed", "false")}
        assert repository.job(files=failing)[0].all().code == 1
        server.hook = refusing(403)
        action, _ = repository.job(command="retry", run_id="train-1000")
        ran = action.all()
        assert ran.code == 1
        assert "to publish nothing" in ran.text
        assert "reuse" not in ran.text
        server.hook = refusing(403)
        only, _ = repository.job(command="retry", run_id="train-1000", publish="never")
        assert only.step("run").code == 0


def test_a_job_without_a_login_is_told_how_to_give_one(tmp_path: Path) -> None:
    """Of a registry that is not GitHub's no permission of the job opens it: the lines are those of a login."""
    with password_registry(tmp_path / "registry") as closed:
        where = closed.repository()
        action, project = repository_of(tmp_path, where).job()
        assert action.all().code == 1
    assert f"RUNNABLE_CI_REGISTRY: {where}" in action.summary
    assert "RUNNABLE_CI_REGISTRY_PASSWORD: ${{ secrets.REGISTRY_PASSWORD }}" in action.summary
    assert "packages: write" not in action.summary
    assert not (project.folder / "ran").exists()
