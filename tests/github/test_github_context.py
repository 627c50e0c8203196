"""What a job knows about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runnable_ci.github.job import Context

JOB = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_REPOSITORY": "Octo/Flowers",
    "GITHUB_RUN_ID": "77",
    "GITHUB_RUN_ATTEMPT": "2",
    "GITHUB_JOB": "train",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_EVENT_NAME": "push",
}


def of(tmp_path: Path, event: Any = None, **variables: str) -> Context:
    """The context of a job with this event."""
    path = tmp_path / "event.json"
    path.write_text(event if isinstance(event, str) else json.dumps(event))
    found = Context.of({**JOB, "GITHUB_EVENT_PATH": str(path), **variables})
    assert found is not None
    return found


def pull_request(repo: Any) -> dict[str, Any]:
    """The event of a pull request whose head is in this repository."""
    return {"pull_request": {"head": {"repo": repo}}}


def test_outside_of_a_job() -> None:
    """Anywhere else there is no context."""
    assert Context.of({}) is None
    assert Context.of({**JOB, "GITHUB_ACTIONS": "false"}) is None


def test_a_push(tmp_path: Path) -> None:
    """A push to a branch is compared with that branch."""
    found = of(tmp_path, {})
    assert (found.run_attempt, found.branch, found.base_branch) == (2, "main", "main")
    assert found.run_url == "https://github.com/Octo/Flowers/actions/runs/77"
    assert not found.is_fork_pull_request


def test_a_tag(tmp_path: Path) -> None:
    """A tag is no branch; it is compared with the default branch."""
    event = {"repository": {"default_branch": "trunk"}}
    found = of(tmp_path, event, GITHUB_REF="refs/tags/v1")
    assert (found.branch, found.base_branch) == ("", "trunk")


@pytest.mark.parametrize(
    ("repo", "is_fork"),
    [({"full_name": "octo/flowers"}, False), ({"full_name": "someone/flowers"}, True), (None, True), ("x", True)],
)
def test_a_pull_request(tmp_path: Path, repo: Any, is_fork: bool) -> None:
    """A pull request is a fork's unless its head is of this repository; one whose head is gone counts as one."""
    variables = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge", "GITHUB_BASE_REF": "main"}
    found = of(tmp_path, pull_request(repo), **variables)
    assert found.is_fork_pull_request == is_fork
    assert (found.branch, found.base_branch) == ("", "main")


@pytest.mark.parametrize(
    ("event_name", "is_fork"),
    [
        ("pull_request_review", True),
        ("pull_request_review_comment", True),
        ("pull_request_sync", True),
        ("pull_request_target", False),
        ("issue_comment", False),
        ("workflow_run", False),
        ("merge_group", False),
        ("push", False),
    ],
)
def test_which_events_of_a_fork_only_read(tmp_path: Path, event_name: str, is_fork: bool) -> None:
    """Those that run the fork's code, of whatever activity; those that run the repository's own have its token."""
    fork = {**pull_request({"full_name": "someone/flowers"}), "workflow_run": {"head_repository": {"fork": True}}}
    assert of(tmp_path, fork, GITHUB_EVENT_NAME=event_name).is_fork_pull_request == is_fork
    own = pull_request({"full_name": "octo/flowers"})
    assert not of(tmp_path, own, GITHUB_EVENT_NAME=event_name).is_fork_pull_request


@pytest.mark.parametrize("event", ["", "[1]", "{", '{"repository": 3}', "[" * 100_000])
def test_an_event_that_cannot_be_read(tmp_path: Path, event: str) -> None:
    """All that hangs on it is a message: it stops nothing."""
    assert of(tmp_path, event).event in ({}, {"repository": 3})


def test_a_number_that_is_none(tmp_path: Path) -> None:
    """An attempt that is no number is the first."""
    assert of(tmp_path, {}, GITHUB_RUN_ATTEMPT="two").run_attempt == 1
