"""The comment on a pull request and its check: the action's steps, a real registry, GitHub's described API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from action_steps import ActionRun, Repository, Stepped
from cli import Workspace
from github_api import GitHub, github
from registry_server import Reply, Served, registry

from runnable_ci.github.action.on_pull_request.message import report_link

PIPELINE = """
name = "flowers"
[parameters]
rate = 2.0
[steps.fit]
run = '''echo "score=$(cat score.txt)" >> "$RUNNABLE_OUTPUT"; test "$(cat score.txt)" != 0'''
returns = { score = "metric" }
"""
HEAD = "a" * 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@dataclass
class Pull:
    """A repository with a pull request whose head has another score."""

    repository: Repository
    server: GitHub
    number: int = 0

    def job(
        self,
        score: str,
        given: Mapping[str, str] | None = None,
        *,
        fork: str = "owner/repo",
        is_page_refused: bool = False,
    ) -> Stepped:
        """Run a job of pull request 7, whose code has this score; empty for a job of main."""
        self.number += 1
        is_pull = bool(score)
        head = {"ref": "topic", "sha": HEAD, "repo": {"full_name": fork}}
        event: dict[str, Any] = {"repository": {"default_branch": "main"}}
        variables = {"GITHUB_REPOSITORY": "owner/repo", "GITHUB_RUN_ID": str(1000 + self.number)}
        if is_pull:
            event["pull_request"] = {"number": 7, "head": head}
            variables |= {
                "GITHUB_EVENT_NAME": "pull_request",
                "GITHUB_REF": "refs/pull/7/merge",
                "GITHUB_HEAD_REF": "topic",
                "GITHUB_BASE_REF": "main",
            }
        self.action, self.project = self.repository.job(
            event=event,
            variables={**self.server.variables, **variables},
            context={"github.token": self.server.token},
            given=given or {},
        )
        if is_pull:
            self.project.write({"score.txt": score})
        self.action.artifacts = self.repository.tmp_path / f"artifacts-{self.number}"
        self.action.artifacts.mkdir()
        self.action.is_page_refused = is_page_refused
        return self.action.all()

    action: ActionRun | None = None
    project: Workspace | None = None

    def comments(self) -> list[str]:
        """What stands on the pull request."""
        return [one["answer"]["body"] for one in self.server.comments if one["issue"] == 7]


@pytest.fixture
def pull(tmp_path: Path, served: Served) -> Iterator[Pull]:
    """A pull request whose base has a published run."""
    with github(lambda _: "success") as server:
        files = {"runnable.toml": PIPELINE, "score.txt": "8", ".gitignore": ".runnable\n"}
        made = Pull(Repository(tmp_path, served.repository(), files), server)
        done = made.job("")
        assert done.code == 0, done.text
        assert made.server.comments == []
        yield made


def test_one_comment_is_updated_in_place(pull: Pull) -> None:
    """Status, the metric beside the base branch, what changed; a later push changes the same comment."""
    done = pull.job("9")
    assert done.code == 0, done.text
    (text,) = pull.comments()
    assert "✅ `flowers` succeeded" in text
    assert "| `score` | `9` | `8` | `+1 (+12.5%)` |" in text
    assert "score.txt changed" in text.replace("\\", "")
    assert pull.server.checks == []
    failed = pull.job("0")
    assert failed.code == 1
    (text,) = pull.comments()
    assert "❌ `flowers` failed" in text
    assert "runnable-ci retry" in text


def test_the_comment_and_the_check_link_to_the_report(pull: Pull) -> None:
    """By one look for the comment and one request that writes it, as the page has its address by then."""
    pull.server.server.seen.clear()
    pull.job("9", {"fail-if": "score < base"})
    (text,) = pull.comments()
    assert pull.action
    url = pull.action.outputs["page"]["artifact-url"]
    assert text.endswith(f" · [report]({url})")
    (check,) = pull.server.checks
    assert check["details_url"] == url
    assert f"[report]({url})" in check["output"]["summary"]
    methods = [(one.method, one.path.partition("?")[0].rpartition("/")[2]) for one in pull.server.server.seen]
    assert methods == [("GET", "comments"), ("POST", "comments"), ("POST", "check-runs")]


@pytest.mark.parametrize("given", [{"report": "false"}, {}], ids=["not wanted", "refused"])
def test_without_a_report_there_is_no_link_to_one(pull: Pull, given: dict[str, str]) -> None:
    """The comment and the check are written nevertheless, and lead to the workflow run."""
    done = pull.job("9", {**given, "fail-if": "score < base"}, is_page_refused=not given)
    assert done.code == 0, done.text
    (text,) = pull.comments()
    assert "report]" not in text
    (check,) = pull.server.checks
    assert check["details_url"].endswith("/actions/runs/1002")


@pytest.mark.parametrize(
    "url", ["https://evil.example/a", "https://github.com/a) [x](https://evil.example", "https://github.com.evil/a", ""]
)
def test_an_address_of_elsewhere_is_no_link(url: str) -> None:
    """What the upload's output has is only taken for an address of the job's own server."""
    assert report_link(url, "https://github.com") == ""


def test_what_was_to_be_written_is_gone(pull: Pull) -> None:
    """A warning in the log and in the summary, and no error."""
    done = pull.job("9")
    assert done.code == 0
    assert pull.action
    before = pull.action.summary
    again = pull.action.step("comment")
    assert again.code == 0
    assert "::warning title=Not all was written on the pull request::" in again.text
    assert "What was to be written is gone" in pull.action.summary.removeprefix(before)


def test_the_check_needs_no_comment(pull: Pull) -> None:
    """A job that may add checks and write no comment adds the check."""
    pull.server.permissions = {"checks"}
    done = pull.job("9", {"fail-if": "score < base"})
    assert "note: no comment on the pull request" in done.text
    assert len(pull.server.checks) == 1


def test_a_check_by_a_condition(pull: Pull) -> None:
    """It fails where the condition holds, on the head of the pull request, whatever the run's own result."""
    given = {"fail-if": "score < base - 0.5\nscore > 100"}
    assert pull.job("7", given).code == 0
    assert pull.job("9", given).code == 0
    first, second = pull.server.checks
    assert (first["head_sha"], first["conclusion"]) == (HEAD, "failure")
    assert first["output"]["title"] == "fails: score < base - 0.5"
    assert second["conclusion"] == "success"
    assert first["name"] == "runnable-ci: flowers"


def test_without_a_base_nothing_is_judged(tmp_path: Path, served: Served) -> None:
    """The first run of all passes no condition: the check is neutral, and says why."""
    with github(lambda _: "success") as server:
        files = {"runnable.toml": PIPELINE, "score.txt": "8", ".gitignore": ".runnable\n"}
        made = Pull(Repository(tmp_path, served.repository(), files), server)
        assert made.job("9", {"fail-if": "score < base"}).code == 0
        (check,) = server.checks
        assert check["conclusion"] == "neutral"
        assert "There is no other run of `main`" in check["output"]["title"]


def test_a_comment_of_somebody_else_is_left_alone(pull: Pull) -> None:
    """Who copies the mark of our comment into theirs has it changed by nobody."""
    pull.job("9")
    (ours,) = pull.comments()
    pull.server.comments.clear()
    pull.server.comment(7, ours, "mallory")
    for number in range(150):
        pull.server.comment(7, f"comment {number}", "ada")
    pull.job("10")
    pull.job("11")
    texts = pull.comments()
    assert texts[0] == ours
    assert len(texts) == 152
    assert "| `score` | `11` |" in texts[-1]


def test_without_permission(pull: Pull) -> None:
    """By default a line in the log; where it was asked for a warning, with what to write into the workflow."""
    pull.server.permissions = set()
    done = pull.job("9")
    assert done.code == 0
    assert "note: no comment on the pull request" in done.text
    assert "::warning" not in done.text
    asked = pull.job("9", {"comment": "always"})
    assert asked.code == 0
    assert "Not all was written on the pull request" in asked.text
    assert "pull-requests: write" in asked.text


def test_a_fork_writes_nothing(pull: Pull) -> None:
    """Its token only reads: nothing is tried."""
    done = pull.job("9", fork="mallory/repo")
    assert "its token may write no comment" in done.text
    assert pull.server.comments == []


def test_not_wanted(pull: Pull) -> None:
    """No request is made."""
    assert pull.job("9", {"comment": "never"}).code == 0
    assert pull.server.comments == []


def test_an_api_that_is_down_fails_nothing(pull: Pull) -> None:
    """The run is what it is: a warning."""
    pull.server.answer("GET", "/comments", Reply(500, {}, b""), times=50)
    done = pull.job("9")
    assert done.code == 0
    assert "Not all was written on the pull request" in done.text


def test_a_wrong_condition_is_said(pull: Pull) -> None:
    """What is wrong in it, and nothing is judged."""
    done = pull.job("9", {"fail-if": "scor < base"})
    assert "did you mean `score`?" in done.text
    assert pull.server.checks == []
