"""What a job of GitHub Actions knows about itself, from its environment and event.

Source: GitHub Actions, "Variables reference" (default environment variables) and "Webhook events and payloads".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runnable_ci.runs.remote.writers import ref_label
from runnable_ci.util.console import is_actions
from runnable_ci.util.urls import is_loopback
from runnable_ci.vcs.actor import is_pull_request

EVENT_MAX_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Context:
    """A job at work; texts are empty where the runner does not say."""

    repository: str
    """`owner/name`."""
    run_id: str
    run_attempt: int
    """Counted from 1; more after a re-run."""
    job: str
    """The job's key in its workflow file."""
    workflow_ref: str = ""
    """The file of the workflow that was started, with its repository and ref."""
    event_name: str = ""
    ref: str = ""
    sha: str = ""
    """The commit that started the job; another may have been checked out."""
    head_ref: str = ""
    """The branch of a pull request."""
    base_ref: str = ""
    """The branch that a pull request would change."""
    default_branch: str = ""
    server_url: str = "https://github.com"
    workspace: str = ""
    event: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def is_public_job(cls, environ: Mapping[str, str]) -> bool:
        """Return whether this is a job whose event does not say that the repository is private."""
        job = cls.of(environ)
        return job is not None and not job.is_private

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Context | None:
        """Return the context of this job; None outside GitHub Actions."""
        if not is_actions(environ):
            return None
        event = _read_event(environ.get("GITHUB_EVENT_PATH", ""))
        attempt = environ.get("GITHUB_RUN_ATTEMPT", "")
        return cls(
            repository=environ.get("GITHUB_REPOSITORY", ""),
            run_id=environ.get("GITHUB_RUN_ID", ""),
            run_attempt=int(attempt) if attempt.isdecimal() else 1,
            job=environ.get("GITHUB_JOB", ""),
            workflow_ref=environ.get("GITHUB_WORKFLOW_REF", ""),
            event_name=environ.get("GITHUB_EVENT_NAME", ""),
            ref=environ.get("GITHUB_REF", ""),
            sha=environ.get("GITHUB_SHA", ""),
            head_ref=environ.get("GITHUB_HEAD_REF", ""),
            base_ref=environ.get("GITHUB_BASE_REF", ""),
            default_branch=_text(event, "repository", "default_branch"),
            server_url=environ.get("GITHUB_SERVER_URL", "") or "https://github.com",
            workspace=environ.get("GITHUB_WORKSPACE", ""),
            event=event,
        )

    @property
    def branch(self) -> str:
        """The branch that the job runs for; empty on tags and pull requests."""
        is_branch = self.ref.startswith("refs/heads/") and not self.head_ref
        return self.ref.removeprefix("refs/heads/") if is_branch else ""

    @property
    def fix_ref(self) -> str:
        """Where a fix of this job's code would be: the ref that a retry checked out, else the branch."""
        return _text(self.event, "inputs", "ref") or self.branch or self.head_ref

    @property
    def base_branch(self) -> str:
        """The branch whose last run this one is compared with: a pull request's base, else its own."""
        return self.base_ref or self.branch or self.default_branch

    @property
    def accepted_refs(self) -> frozenset[str]:
        """The branches whose runs the job may resume: who pushes to one of them decides anyway what runs here.

        These are its own and the default branch, the ref that a retry checks out, and the base of a pull request. Its
        head is among them only where the code is the head's and the rights are no more than that.
        """
        own = ref_label({"GITHUB_REF": self.ref, "GITHUB_HEAD_REF": self.head_ref})
        head = self.head_ref if self.event_name == "pull_request" and not self.is_fork_pull_request else ""
        resumed = _text(self.event, "inputs", "ref").removeprefix("refs/heads/")
        return frozenset(filter(None, (own, self.default_branch, self.base_ref, head, resumed)))

    @property
    def is_fork_pull_request(self) -> bool:
        """Whether the job is of a fork's pull request, and with it has a token that only reads and no secrets.

        That is so for the events of a pull request that run its code, such as `pull_request_review`. The others
        (`pull_request_target`, `issue_comment`, `workflow_run`) run the repository's own, with its token.
        """
        if not is_pull_request(self.event_name):
            return False
        head = _text(self.event, "pull_request", "head", "repo", "full_name")
        return head.lower() != self.repository.lower()

    @property
    def full_name(self) -> str:
        """The repository as it is named anywhere: with its host, where that is not github.com."""
        host = urlsplit(self.server_url).netloc
        return self.repository if host == "github.com" or not self.repository else f"{host}/{self.repository}"

    @property
    def takes_artifacts(self) -> bool:
        """Whether the server keeps artifacts of a workflow run in the way that `actions/upload-artifact` knows.

        Source: actions/toolkit, packages/artifact, `isGhes`.
        """
        host = urlsplit(self.server_url).hostname or ""
        return host == "github.com" or host.endswith(".ghe.com") or is_loopback(host)

    @property
    def is_private(self) -> bool:
        """Whether the event says that the repository is not for all to read."""
        repository = self.event.get("repository")
        found = repository if isinstance(repository, dict) else {}
        return found.get("private") is True or found.get("visibility") in ("private", "internal")

    @property
    def run_url(self) -> str:
        """The page of the workflow run."""
        return f"{self.server_url}/{self.repository}/actions/runs/{self.run_id}"


def _read_event(path: str) -> dict[str, Any]:
    """Return the event's payload; empty where it cannot be read, since all that hangs on it is a message."""
    try:
        file = Path(path)
        event = json.loads(file.read_bytes()) if path and file.stat().st_size <= EVENT_MAX_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _text(event: Mapping[str, Any], *keys: str) -> str:
    found: Any = event
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""


def why_no_reuse(environ: Mapping[str, str], *, is_new: bool) -> str:
    """Return why a job reuses nothing of other runs unless that is specified; empty where it does.

    Who starts a workflow by hand, by the clock, or again as a whole, wants it to be done.
    """
    event = environ.get("GITHUB_EVENT_NAME", "")
    if event in ("schedule", "workflow_dispatch"):
        return f"the workflow was started by `{event}`"
    return "all jobs were started again" if is_new and environ.get("GITHUB_RUN_ATTEMPT", "1") != "1" else ""
