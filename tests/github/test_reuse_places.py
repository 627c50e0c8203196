"""In which indexes a run looks: those whose writers have at least its own rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from runnable_ci.config import Settings
from runnable_ci.errors import UsageError
from runnable_ci.github.reuse_places import ReusePlaces, reuse_places

RUNS = "ghcr.io/o/r/runs"


def places(environ: dict[str, str], folder: Path, named: str = "", **settings: Any) -> ReusePlaces:
    return reuse_places(Settings(**settings), environ, in_pipeline=lambda: None, workspace=folder, named=named)


def looked(found: ReusePlaces) -> list[tuple[str, str]]:
    return [(it.registry.label, it.branch) for it in found.indexes]


def job(
    folder: Path, ref: str, event: str = "push", more: Mapping[str, str] = MappingProxyType({}), *, fork: bool = False
) -> dict[str, str]:
    """The environment of a job of the repository `o/r`, whose default branch is main."""
    head = {"repo": {"full_name": "stranger/r" if fork else "o/r"}}
    payload = {"repository": {"default_branch": "main"}, "pull_request": {"head": head}}
    (folder / "event.json").write_text(json.dumps(payload))
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        "GITHUB_EVENT_NAME": event,
        "GITHUB_REF": ref,
        **more,
    }


PULL = {"GITHUB_HEAD_REF": "topic", "GITHUB_BASE_REF": "main"}


@pytest.mark.parametrize(
    ("ref", "event", "fork", "more", "expected"),
    [
        ("refs/heads/main", "push", False, {}, [(RUNS, "main")]),
        ("refs/heads/topic", "push", False, {}, [(RUNS, "topic"), (RUNS, "main")]),
        ("refs/tags/v1", "push", False, {}, [(RUNS, "main")]),
        (
            "refs/pull/12/merge",
            "pull_request",
            False,
            PULL,
            [(f"{RUNS}/pull-requests", "pull:12"), (RUNS, "main"), (RUNS, "topic")],
        ),
        ("refs/pull/12/merge", "pull_request", True, PULL, [(RUNS, "main")]),
    ],
    ids=["default branch", "branch", "tag", "pull request", "fork"],
)
def test_a_job_looks_where_writers_have_its_rights(
    tmp_path: Path, ref: str, event: str, *, fork: bool, more: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    """A pull request reads what its base has made; the default branch reads nothing but its own; at most 3 requests."""
    found = places(job(tmp_path, ref, event, more, fork=fork), tmp_path)
    assert looked(found) == expected
    assert found.accepted.refs is not None
    assert {branch for _, branch in expected} <= found.accepted.refs
    if ref == "refs/heads/main":
        assert set(found.accepted.refs) == {"main"}


def test_a_registry_that_is_set_is_one_for_all(tmp_path: Path) -> None:
    """Branch and pull request are told apart by the index then."""
    environ = job(tmp_path, "refs/pull/12/merge", "pull_request", PULL)
    assert looked(places(environ, tmp_path, registry="host.example/x"))[:2] == [
        ("host.example/x", "pull:12"),
        ("host.example/x", "main"),
    ]


def test_a_branch_can_be_named(tmp_path: Path) -> None:
    """It is looked at alone; a pull request's results are for its own jobs."""
    main = job(tmp_path, "refs/heads/main")
    found = places(main, tmp_path, "release")
    assert looked(found) == [(RUNS, "release")]
    assert set(found.accepted.refs or ()) == {"main", "release"}
    for named in ("pull:12", "tag:v1"):
        with pytest.raises(UsageError, match="not a branch"):
            places(main, tmp_path, named)
    own = job(tmp_path, "refs/pull/12/merge", "pull_request", PULL)
    assert looked(places(own, tmp_path, "pull:12")) == [(f"{RUNS}/pull-requests", "pull:12")]


def test_on_a_laptop_it_is_the_branch_here_and_the_default_one(
    tmp_path: Path, environ: dict[str, str], git: Callable[..., str]
) -> None:
    """As the remote calls it, whatever that is; nothing without a repository or a registry."""
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    origin.mkdir()
    assert looked(places(environ, origin, registry=RUNS)) == []
    git(origin, "init", "-q", "-b", "trunk")
    git(origin, "commit", "-q", "--allow-empty", "-m", "x")
    assert looked(places(environ, origin, registry=RUNS)) == [(RUNS, "trunk")]
    git(tmp_path, "clone", "-q", str(origin), str(clone))
    git(clone, "switch", "-q", "-c", "topic/a")
    assert looked(places(environ, clone, registry=RUNS)) == [(RUNS, "topic/a"), (RUNS, "trunk")]
    git(clone, "checkout", "-q", "--detach")
    assert looked(places(environ, clone, registry=RUNS)) == [(RUNS, "trunk")]
    git(clone, "remote", "remove", "origin")
    git(clone, "branch", "main")
    assert looked(places(environ, clone, registry=RUNS)) == [(RUNS, "main")]
    assert looked(places(environ, clone)) == []
    assert places(environ, clone, registry=RUNS, writers="main").accepted.patterns == ("main",)
