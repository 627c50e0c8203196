"""What we ask GitHub Actions for: start a workflow, look at a run and its jobs, re-run what failed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from runnable_ci.github.api.answers import (
    BranchAnswer,
    CommitAnswer,
    DispatchAnswer,
    JobsAnswer,
    RepositoryAnswer,
    RunsAnswer,
    WorkflowJob,
    WorkflowRun,
)
from runnable_ci.github.api.client import Rest, described, error_message, read_as, segment
from runnable_ci.github.api.errors import (
    GitHubError,
    GitHubUnavailableError,
    InputsUnknownError,
    PermissionMissingError,
    RefusedError,
)
from runnable_ci.github.api.repository import Repository
from runnable_ci.util.responses import Response
from runnable_ci.util.shell_command import command

PERMISSION: Final = "permissions:\n  actions: write"
TRIGGER: Final = """on:
  workflow_dispatch:
    inputs:
      run-id: { type: string, required: true }
      ref: { type: string }
      from-step: { type: string }
      parameters: { type: string }
      pipeline: { type: string }
      other-pipeline: { type: boolean }
      options: { type: string }"""
PAGE: Final = 100
MOST_PAGES: Final = 30
MOST_ATTEMPTS: Final = 50
MOST_DAYS: Final = 30
SEEN_WITHIN_S: Final = 90.0
"""How long a run that was started may take to be seen in the list of runs."""


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that was started."""

    run: int
    url: str


class Actions:
    """The workflows of one repository."""

    def __init__(
        self,
        rest: Rest,
        repository: Repository,
        *,
        in_actions: bool,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set up the API; `in_actions` in a job of GitHub Actions, whose workflow must have a missing permission."""
        self._rest = rest
        self._repository = repository
        self._in_actions = in_actions
        self._sleep = sleep
        self._clock = clock
        self._server_time_s = clock()
        self.page = f"https://{repository.host}/{repository.owner}/{repository.name}"

    def default_branch(self) -> str:
        """Return the branch whose workflows can be started. Raises `RefusedError`."""
        response = self._rest.get(self._repository.path)
        self._require_ok(response)
        self._server_time_s = response.server_time_s(self._clock())
        found = read_as(response, RepositoryAnswer)
        self.page = self._link(found.html_url, self.page)
        return found.default_branch

    def commit_of_branch(self, branch: str) -> str | None:
        """Return the commit that a branch is at on the server; None where it has no such branch."""
        response = self._rest.get(f"{self._repository.path}/branches/{segment(branch)}")
        if response.status == 404:
            return None
        self._require_ok(response)
        return read_as(response, BranchAnswer).commit.sha

    def commit_of(self, ref: str) -> str | None:
        """Return the commit that a branch, tag or commit points to on the server; None where it does not know it."""
        response = self._rest.get(f"{self._repository.path}/commits/{segment(ref)}", per_page=1)
        if response.status in (404, 409, 422):
            return None
        self._require_ok(response)
        return read_as(response, CommitAnswer).sha

    def workflow_page(self, workflow: str) -> str:
        """Return where a browser shows the runs of a workflow."""
        return f"{self.page}/actions/workflows/{segment(workflow)}"

    def dispatch(self, workflow: str, *, ref: str, inputs: Mapping[str, str], default_branch: str) -> StartedRun | None:
        """Start a workflow as it is at `ref`; None where the server does not say which run that is (`find` does).

        Raises `RefusedError` where nothing was started.
        """
        path = f"{self._repository.path}/actions/workflows/{segment(workflow)}/dispatches"
        body = {"ref": ref, "inputs": dict(inputs)}
        try:
            response = self._rest.post(path, {**body, "return_run_details": True})
            if response.status in (400, 422) and "return_run_details" in error_message(response):
                # GitHub Enterprise Server up to 3.20: "is not a permitted key"
                response = self._rest.post(path, body)
        except GitHubUnavailableError as e:
            hint = f"the run may have started nevertheless; check before you try again: {self.workflow_page(workflow)}"
            raise GitHubUnavailableError(e.message, hint=hint) from e
        if response.status == 204:
            return None
        if response.status != 200:
            raise self._refused_dispatch(response, workflow, ref=ref, default_branch=default_branch)
        found = read_as(response, DispatchAnswer)
        return StartedRun(found.workflow_run_id, self._link(found.html_url, self._run_page(found.workflow_run_id)))

    def find(self, workflow: str, title_part: str, *, every_s: float) -> StartedRun | None:
        """Return the run that was started since `default_branch` was asked, by its title.

        None where it is not to be seen.
        """
        since = datetime.fromtimestamp(self._server_time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        waited_s = 0.0
        while True:
            runs = [run for run in self._dispatched(workflow) if run.created_at >= since]
            titled = [run for run in runs if _is_titled(run, title_part)]
            if titled or (len(runs) == 1 and waited_s > 5 * every_s):
                run = max(titled or runs, key=lambda run: run.id)
                return StartedRun(run.id, self.link_of(run))
            if waited_s >= SEEN_WITHIN_S:
                return None
            self._sleep(every_s)
            waited_s += every_s

    def next_of(self, run: WorkflowRun, workflow: str, title_part: str) -> StartedRun | None:
        """Return the run of a workflow that was started while `run` was under way, by its title; the newest of them."""
        later = [
            it
            for it in self._dispatched(workflow)
            if it.id > run.id and run.created_at <= it.created_at <= run.updated_at and _is_titled(it, title_part)
        ]
        found = max(later, key=lambda it: it.id, default=None)
        return StartedRun(found.id, self.link_of(found)) if found else None

    def _dispatched(self, workflow: str) -> tuple[WorkflowRun, ...]:
        """Return the newest runs of a workflow that were started by a dispatch."""
        path = f"{self._repository.path}/actions/workflows/{segment(workflow)}/runs"
        response = self._rest.get(path, event="workflow_dispatch", per_page=PAGE)
        self._require_ok(response)
        return read_as(response, RunsAnswer).workflow_runs

    def run(self, run: int) -> WorkflowRun:
        """Return a run as it is now. Raises `RefusedError`."""
        response = self._rest.get(f"{self._repository.path}/actions/runs/{run}")
        if response.status == 404:
            raise RefusedError(
                f"{self._repository} has no workflow run {run} that the token of {self._rest.token_source} can see",
                hint=f"{self.page}/actions lists them: the number at the end of a URL, not a run id of runnable-ci",
            )
        self._require_ok(response)
        self._server_time_s = response.server_time_s(self._clock())
        return read_as(response, WorkflowRun)

    def link_of(self, run: WorkflowRun) -> str:
        """Return where a browser shows a run."""
        return self._link(run.html_url, self._run_page(run.id))

    def jobs(self, run: int, *, of_all_attempts: bool = False) -> list[WorkflowJob]:
        """Return the jobs of the newest attempt of a run, or of all."""
        found: dict[int, WorkflowJob] = {}
        for page in range(1, MOST_PAGES + 1):
            path = f"{self._repository.path}/actions/runs/{run}/jobs"
            response = self._rest.get(path, filter="all" if of_all_attempts else "latest", per_page=PAGE, page=page)
            self._require_ok(response)
            read = read_as(response, JobsAnswer)
            found |= {job.id: job for job in read.jobs}
            if len(read.jobs) < PAGE:
                break
        return list(found.values())

    def rerun_failed(self, run: WorkflowRun) -> None:
        """Start a new attempt of the failed jobs, and those that need them. Raises `RefusedError`."""
        if run.status != "completed":
            raise RefusedError(
                f"workflow run {run.id} has not finished: {run.status}",
                hint=f"wait, or cancel it first: {self.link_of(run)}",
            )
        if run.conclusion == "success":
            raise RefusedError(f"workflow run {run.id} succeeded: there is nothing to re-run")
        response = self._rest.post(f"{self._repository.path}/actions/runs/{run.id}/rerun-failed-jobs")
        if not response.ok:
            raise self._refused_rerun(response, run)

    def _refused_rerun(self, response: Response, run: WorkflowRun) -> GitHubError:
        if response.status not in (400, 403, 409, 422):
            return self._unexpected(response)
        message = error_message(response)
        dispatch = command("dispatch", "RUN_ID", "--repo", str(self._repository))
        elsewhere = f"`{dispatch}` resumes a published run of any age"
        if "already running" in message or "in progress" in message:
            return RefusedError(f"workflow run {run.id} has not finished", hint="wait until it is")
        if run.run_attempt >= MOST_ATTEMPTS:
            return RefusedError(
                f"workflow run {run.id} had {run.run_attempt} attempts; GitHub allows {MOST_ATTEMPTS}", hint=elsewhere
            )
        if "month ago" in message or self._age_days(run) > MOST_DAYS:
            return RefusedError(
                f"workflow run {run.id} is older than {MOST_DAYS} days: GitHub does not re-run it", hint=elsewhere
            )
        if "retried" in message or "re-run" in message:
            return RefusedError(
                f"GitHub does not re-run {run.id}: {message}",
                hint=f"did it fail before any job started, for an error in the workflow file? {self.link_of(run)}",
            )
        return self._unexpected(response)

    def _age_days(self, run: WorkflowRun) -> float:
        try:
            created_s = datetime.fromisoformat(run.created_at).timestamp()
        except (ValueError, OverflowError):
            return 0.0
        return (self._server_time_s - created_s) / 86400

    def _refused_dispatch(self, response: Response, workflow: str, *, ref: str, default_branch: str) -> GitHubError:
        message = error_message(response)
        file = f".github/workflows/{workflow}"
        if response.status == 404:
            return RefusedError(
                f"{self._repository} has no workflow {workflow} on its default branch, {default_branch}",
                hint=f"`{command('init', '--github')}` writes {file}; commit it on {default_branch} and push, "
                "or select another with --workflow",
            )
        if response.status != 422:
            return self._unexpected(response)
        if "No ref found" in message:
            return RefusedError(
                f"{self._repository} has no branch or tag {ref} to take the workflow from",
                hint="--workflow-ref takes a branch or tag, no commit; --ref is for the code that is retried",
            )
        if "Unexpected inputs" in message:
            unknown = InputsUnknownError(
                f"{file} at {ref} does not take these inputs: {message}", hint=f"it must have\n\n{_indented(TRIGGER)}"
            )
            unknown.names = frozenset(re.findall(r'"([^"]+)"', message))
            return unknown
        if "input" in message and "workflow_dispatch" not in message:
            return RefusedError(
                f"{file} at {ref} requires other inputs: {message}",
                hint=f"only run-id may be required:\n\n{_indented(TRIGGER)}",
            )
        if "disabled" in message:
            enabling = f"gh workflow enable {workflow} --repo {self._repository}"
            hint = f"`{enabling}`" if "disabled workflow" in message else f"{self.page}/settings/actions"
            return RefusedError(f"{workflow} cannot be started: {message}", hint=hint)
        if "workflow_dispatch" in message:
            return RefusedError(
                f"{file} at {ref} is not started by workflow_dispatch: {message}",
                hint=f"it must be valid, and have\n\n{_indented(TRIGGER)}",
            )
        return self._unexpected(response)

    def _require_ok(self, response: Response) -> None:
        if not response.ok:
            raise self._unexpected(response)

    def _unexpected(self, response: Response) -> GitHubError:
        """Return the error for an answer that was not hoped for, by its cause."""
        message = error_message(response)
        source, repository = self._rest.token_source, self._repository
        if response.status == 401:
            return RefusedError(
                f"GitHub does not accept the token of {source}: {message or 'status 401'}",
                hint="is it expired or revoked, or one for another server? `gh auth login` makes a new one",
            )
        if response.status == 403 and "X-GitHub-SSO" in response.headers:
            return RefusedError(
                f"{repository.owner} requires the token of {source} to be authorised by single sign-on",
                hint=_first_link(response.headers["X-GitHub-SSO"]) or "https://github.com/settings/tokens",
            )
        if response.status == 403:
            return PermissionMissingError(
                f"the token of {source} may not do this in {repository}: {message or 'status 403'}",
                hint=self._permission_hint(),
            )
        if response.status == 404:
            return RefusedError(
                f"there is no {repository} that the token of {source} can see",
                hint="check the name, and that the token is for this repository",
            )
        if 400 <= response.status < 500:
            return RefusedError(f"{repository}: {described(response)}")
        return GitHubError(f"{repository}: unexpected response: {described(response)}")

    def _permission_hint(self) -> str:
        if self._in_actions:
            return f"in the workflow that runs this, add to the job\n\n{_indented(PERMISSION)}"
        return (
            "a fine-grained token needs the repository permission Actions: read and write, a classic one the scope "
            f"repo; in a workflow the job needs\n\n{_indented(PERMISSION)}"
        )

    def _run_page(self, run: int) -> str:
        return f"{self.page}/actions/runs/{run}"

    def _link(self, url: str, otherwise: str) -> str:
        """Return a URL that the server gave, if it is one that can be printed and opened."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return otherwise
        is_plain = url.isascii() and url.isprintable() and " " not in url and len(url) < 2000
        return url if is_plain and parts.scheme in ("https", "http") and parts.hostname else otherwise


def _is_titled(run: WorkflowRun, part: str) -> bool:
    """Return whether a run's title has a run id in it, whole."""
    words = re.compile(rf"(?<![\w.-]){re.escape(part)}(?![\w.-])")
    return bool(words.search(run.display_title) or words.search(run.name or ""))


def _indented(yaml: str) -> str:
    return "\n".join(f"    {line}" for line in yaml.splitlines())


def _first_link(header: str) -> str:
    """Return the URL in `required; url=…`. Source: GitHub docs, "Authenticating to the REST API", SAML SSO."""
    found = re.search(r"url=(https://[\x21-\x7e]+)", header)
    return found[1] if found else ""
