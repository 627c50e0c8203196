"""A stand-in for GitHub's REST API on loopback; GitHub's own description knows its every request and answer.

    with github(on_dispatch=act) as server:
        project.runnable("dispatch", "RUN_ID", GITHUB_API_URL=server.base, GITHUB_TOKEN=server.token)

`on_dispatch` gets the run that was asked for, may take its time, tells of jobs and steps, and returns the conclusion.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml
from github_description import Server as Kind
from github_description import check, example
from registry_server import Reply, Seen, Server, serving

import runnable_ci

TOKEN = "ghp_" + "T0ken" * 7 + "9"
SHA = "5f0e9a" + "0" * 34
RETRY_WORKFLOW = Path(runnable_ci.__file__).parent / "github" / "workflows" / "retry.yml"


@dataclass
class Run:
    """A run of a workflow, and how the one who runs it tells of it."""

    id: int
    workflow: str
    ref: str
    inputs: Mapping[str, str]
    title: str
    created_at: str
    attempt: int = 1
    status: str = "queued"
    conclusion: str | None = None
    jobs: list[dict[str, Any]] = field(default_factory=list)
    ended_at: str = ""

    def job(self, name: str, status: str = "in_progress") -> dict[str, Any]:
        """A job that begins, or waits; what it gets to know by `step` and `end`."""
        job = {
            **example("job-paginated")["jobs"][0],
            "id": self.id * 10_000 + self.attempt * 1000 + len(self.jobs),
            "run_id": self.id,
            "run_attempt": self.attempt,
            "name": name,
            "status": status,
            "conclusion": None,
            "created_at": now(),
            "started_at": now(),
            "completed_at": None,
            "head_branch": self.ref,
            "workflow_name": self.workflow,
            "steps": [],
        }
        self.jobs.append(job)
        return job

    def step(self, job: dict[str, Any], name: str, conclusion: str = "success") -> None:
        """A step of a job that is over."""
        job["status"] = "in_progress"
        step = {"name": name, "status": "completed", "conclusion": conclusion, "number": len(job["steps"]) + 1}
        job["steps"] = [*job["steps"], {**step, "started_at": now(), "completed_at": now()}]

    def end(self, job: dict[str, Any], conclusion: str = "success") -> None:
        """A job is over."""
        job.update(conclusion=conclusion, completed_at=now(), status="completed")


Runner = Callable[[Run], str]
"""Runs what was asked for, in a thread of its own; returns the conclusion."""


def succeed(run: Run) -> str:
    """One job with two steps."""
    job = run.job("retry")
    run.step(job, "Set up job")
    run.step(job, "Run runnable/action")
    run.end(job)
    return "success"


@dataclass
class Package:
    """A container package, whose versions are the manifests of a registry."""

    name: str
    digests: Callable[[], list[str]]
    """What the registry holds, in any order."""
    delete: Callable[[str], None]
    kind: str = "orgs"
    may_delete: bool = True
    _numbers: dict[str, int] = field(default_factory=dict)

    def answer(self, method: str, kind: str, rest: list[str], query: Mapping[str, str]) -> Reply:
        """Refusals are in GitHub's own words."""
        if kind != self.kind:
            return refusal(404, "Package not found.")
        for digest in self.digests():
            self._numbers.setdefault(digest, 245_301 + len(self._numbers))
        there = {number: digest for digest, number in self._numbers.items() if digest in self.digests()}
        if method == "GET":
            size, page = int(query.get("per_page", "30")), int(query.get("page", "1"))
            return json_reply(200, [*map(self._version, there.items())][size * (page - 1) : size * page])
        if not self.may_delete:
            return refusal(403, "You need at least delete:packages scope to delete a package.")
        if int(rest[0]) not in there:
            return refusal(404, "Package not found.")
        if len(there) == 1:
            message = "You cannot delete the last version of a package. You must delete the package instead."
            return refusal(400, message)
        self.delete(there[int(rest[0])])
        return Reply(204)

    def _version(self, version: tuple[int, str]) -> dict[str, Any]:
        number, digest = version
        metadata = {"package_type": "container", "container": {"tags": []}}
        return {**example("package-versions-for-org")[0], "id": number, "name": digest, "metadata": metadata}


class GitHub:
    """The state of the stand-in. Change what a test needs to be different."""

    def __init__(self, runner: Runner, kind: Kind) -> None:
        self.runner = runner
        self.kind = kind
        self.owner, self.name = "owner", "repo"
        self.default_branch = "main"
        self.token = TOKEN
        self.given: dict[str, str] = {"main": SHA}
        """Branches and tags, each with its commit."""
        self.git: Path | None = None
        """A repository to take them from instead, as it is at the moment."""
        self.workflows: dict[str, str] = {"retry.yml": RETRY_WORKFLOW.read_text(encoding="utf-8")}
        """What is in `.github/workflows` on the default branch."""
        self.tells_run = kind == "api.github.com"
        """Whether `return_run_details` is known."""
        self.seen_after = 0
        """How many looks at the list of runs do not show a new one yet."""
        self.runs: dict[int, Run] = {}
        self.dispatched: list[dict[str, Any]] = []
        self.failures: list[BaseException] = []
        self.comments: list[dict[str, Any]] = []
        """On all issues and pull requests; `issue` is the number."""
        self.checks: list[dict[str, Any]] = []
        self.permissions = {"issues", "checks"}
        """What the token may write, beside what it may start."""
        self.package: Package | None = None
        """A container package of the owner."""
        self.server: Server
        self._answers: list[tuple[str, str, Callable[[Seen], Reply], int]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def branches(self) -> dict[str, str]:
        """Branches and tags, each with its commit."""
        if self.git is None:
            return self.given
        command = ["git", "-C", str(self.git), "for-each-ref", "--format=%(refname) %(objectname)"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        return {name.split("/", 2)[2]: sha for name, _, sha in (line.partition(" ") for line in lines)}

    def resolve(self, ref: str) -> str | None:
        """The commit of a branch, a tag or a commit."""
        found = self.branches.get(ref)
        if found is None and self.git is not None:
            command = ["git", "-C", str(self.git), "rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}"]
            found = subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
        return found or (ref if ref in self.branches.values() else None)

    @property
    def base(self) -> str:
        """What to set `GITHUB_API_URL` to."""
        return f"http://{self.server.host}" + ("" if self.kind == "api.github.com" else "/api/v3")

    @property
    def page(self) -> str:
        """Where a browser would find the repository."""
        return f"http://{self.server.host}/{self.owner}/{self.name}"

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the client."""
        return {"GITHUB_API_URL": self.base, "GITHUB_TOKEN": self.token}

    def answer(self, method: str, part: str, reply: Reply | Callable[[Seen], Reply], times: int = 1) -> None:
        """Answer the next `times` requests of this method whose path has `part` in this way, right or wrong."""
        self._answers.append((method, part, reply if callable(reply) else lambda _: reply, times))

    def wait(self, timeout_s: float = 60.0) -> None:
        """Wait for all runs to be over."""
        for thread in self._threads:  # also what these start
            thread.join(timeout_s)
            assert not thread.is_alive(), "a run is not over"

    def __call__(self, seen: Seen, _forward: object) -> Reply:
        """The answer to a request: `hook` for `serving`."""
        with self._lock:
            for i, (method, part, reply, times) in enumerate(self._answers):
                if seen.method == method and part in seen.path:
                    self._answers[i : i + 1] = [(method, part, reply, times - 1)] if times > 1 else []
                    return reply(seen)
            try:
                return self._checked(seen)
            except Exception as e:  # noqa: BLE001 - it fails the test when the server ends
                self.failures.append(e)
                return refusal(400, str(e))

    def _checked(self, seen: Seen) -> Reply:
        parts = urlsplit(seen.path)
        path = parts.path.removeprefix("" if self.kind == "api.github.com" else "/api/v3")
        query = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        assert seen.headers["X-GitHub-Api-Version"] == "2022-11-28"
        assert seen.headers["Accept"] == "application/vnd.github+json"
        assert seen.headers["User-Agent"] == "runnable-ci"
        check(self.kind, seen.method, path, query=query, body=seen.body)
        if seen.authorization != f"Bearer {self.token}":
            reply = refusal(401, "Bad credentials")
        else:
            reply = self._answered(seen, [unquote(part) for part in path.split("/")[1:]], query)
        check(self.kind, seen.method, path, query=query, body=seen.body, status=reply.status, answer=reply.body)
        limits = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4999", "X-RateLimit-Reset": "4102444800"}
        return Reply(reply.status, {"Content-Type": "application/json; charset=utf-8", **limits}, reply.body)

    def _answered(self, seen: Seen, parts: list[str], query: Mapping[str, str]) -> Reply:
        if self.package and parts[1:5] == [self.owner, "packages", "container", self.package.name]:
            return self.package.answer(seen.method, parts[0], parts[6:], query)
        if parts[1:3] != [self.owner, self.name]:
            return refusal(404, "Not Found")
        match [seen.method, *parts[3:]]:
            case ["GET"]:
                return json_reply(200, self._repository())
            case ["GET", "branches", branch]:
                sha = self.branches.get(branch)
                if sha is None:
                    return refusal(404, "Branch not found")
                body = example("branch-get")
                return json_reply(200, body | {"commit": body["commit"] | {"sha": sha}})
            case ["GET", "commits", ref]:
                sha = self.resolve(ref)
                if sha is None:
                    return refusal(422, f"No commit found for SHA: {ref}")
                return json_reply(200, {**example("commit"), "sha": sha, "files": []})
            case ["GET", "issues", number, "comments"]:
                page, size = int(query.get("page", "1")), int(query.get("per_page", "30"))
                found = [one["answer"] for one in self.comments if one["issue"] == int(number)]
                return json_reply(200, found[size * (page - 1) : size * page])
            case ["POST", "issues", number, "comments"]:
                return self._comment(int(number), json.loads(seen.body)["body"])
            case ["PATCH", "issues", "comments", number]:
                return self._comment_again(int(number), json.loads(seen.body)["body"])
            case ["POST", "check-runs"]:
                return self._check(json.loads(seen.body))
            case ["POST", "actions", "workflows", workflow, "dispatches"]:
                return self._dispatch(workflow, json.loads(seen.body))
            case ["GET", "actions", "workflows", workflow, "runs"]:
                return self._list(workflow, query)
            case ["GET", "actions", "runs", number] if int(number) in self.runs:
                return json_reply(200, self._run(self.runs[int(number)]))
            case ["GET", "actions", "runs", number, "jobs"] if int(number) in self.runs:
                return self._jobs(self.runs[int(number)], query)
            case ["POST", "actions", "runs", number, "rerun-failed-jobs"] if int(number) in self.runs:
                return self._rerun(self.runs[int(number)])
        return refusal(404, "Not Found")

    def comment(self, issue: int, body: str, login: str) -> dict[str, Any]:
        """Add a comment by somebody."""
        answer: dict[str, Any] = example("issue-comment")
        answer |= {"id": 7000 + len(self.comments), "body": body}
        answer["user"] = {**answer["user"], "login": login}
        self.comments.append({"issue": issue, "answer": answer})
        return answer

    def _comment(self, issue: int, body: str) -> Reply:
        if "issues" not in self.permissions:
            return refusal(403, "Resource not accessible by integration")
        assert len(body) <= 65_536
        return json_reply(201, self.comment(issue, body, "github-actions[bot]"))

    def _comment_again(self, number: int, body: str) -> Reply:
        for one in self.comments:
            if one["answer"]["id"] == number:
                one["answer"]["body"] = body
                return json_reply(200, one["answer"])
        return refusal(404, "Not Found")

    def _check(self, body: dict[str, Any]) -> Reply:
        if "checks" not in self.permissions:
            return refusal(403, "Resource not accessible by integration")
        self.checks.append(body)
        answer = example("check-run-example-of-completed-conclusion")
        kept = {key: body[key] for key in ("name", "head_sha", "status", "conclusion")}
        output = {**answer["output"], "title": body["output"]["title"], "summary": body["output"]["summary"]}
        return json_reply(201, {**answer, **kept, "output": output})

    def _dispatch(self, workflow: str, body: dict[str, Any]) -> Reply:
        """Refusals in GitHub's own words and order."""
        if not self.tells_run and "return_run_details" in body:
            return refusal(400, 'Invalid request.\n\n"return_run_details" is not a permitted key.')
        if workflow not in self.workflows:
            return refusal(404, "Not Found")
        if body["ref"] not in self.branches:
            return refusal(422, f"No ref found for: {body['ref']}")
        parsed = yaml.load(self.workflows[workflow], Loader=yaml.BaseLoader)  # noqa: S506 (`on` stays a word)
        trigger = parsed["on"].get("workflow_dispatch") if isinstance(parsed["on"], dict) else None
        if trigger is None:
            return refusal(422, "Workflow does not have 'workflow_dispatch' trigger")
        inputs = body.get("inputs", {})
        assert len(json.dumps(inputs)) <= 65_535
        known = trigger.get("inputs") or {}
        if unknown := [name for name in inputs if name not in known]:
            return refusal(422, f"Unexpected inputs provided: {json.dumps(unknown)}")
        for name, options in known.items():
            if options.get("required") == "true" and name not in inputs:
                return refusal(422, f"Required input '{name}' not provided")
        self.dispatched.append({"workflow": workflow, "ref": body["ref"], "inputs": inputs})
        title = re.sub(r"\$\{\{ inputs\.([\w-]+) }}", lambda m: inputs.get(m[1], ""), parsed.get("run-name", workflow))
        run = self.add_run(workflow=workflow, ref=body["ref"], inputs=inputs, title=title)
        self._start(run)
        if not (self.tells_run and body.get("return_run_details")):
            return Reply(204)
        url = f"{self.base}/repos/{self.owner}/{self.name}/actions/runs/{run.id}"
        return json_reply(200, {"workflow_run_id": run.id, "run_url": url, "html_url": self.html_url(run)})

    def add_run(self, **fields: Any) -> Run:
        """A run that is there already, or soon."""
        given = {"workflow": "retry.yml", "ref": "main", "inputs": {}, "title": "Retry", "created_at": now()}
        run = Run(**{"id": 16_000_000_001 + len(self.runs), **given, **fields})
        self.runs[run.id] = run
        return run

    def html_url(self, run: Run) -> str:
        """Where a browser would find a run."""
        return f"{self.page}/actions/runs/{run.id}"

    def listed(self) -> Reply:
        """The list of the runs of the retry workflow."""
        return self._list("retry.yml", {"event": "workflow_dispatch"})

    def begin(self, run: Run) -> None:
        """Have a run begin that was added."""
        self._start(run)

    def _start(self, run: Run) -> None:
        def work() -> None:
            run.status = "in_progress"
            try:
                run.conclusion = self.runner(run)
            except BaseException as e:  # noqa: BLE001 - it fails the test when the server ends
                self.failures.append(e)
                run.conclusion = "failure"
            run.status, run.ended_at = "completed", now()

        self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads[-1].start()

    def _rerun(self, run: Run) -> Reply:
        if run.status != "completed":
            return refusal(403, "This workflow is already running")
        run.attempt, run.jobs, run.conclusion, run.status = run.attempt + 1, [], None, "queued"
        run.ended_at = ""
        self._start(run)
        return json_reply(201, {})

    def _list(self, workflow: str, query: Mapping[str, str]) -> Reply:
        assert query["event"] == "workflow_dispatch"
        found = [run for run in reversed(self.runs.values()) if run.workflow == workflow]
        if self.seen_after:
            self.seen_after -= 1
            found = found[1:]
        return json_reply(200, {"total_count": len(found), "workflow_runs": [self._run(run) for run in found]})

    def _jobs(self, run: Run, query: Mapping[str, str]) -> Reply:
        size, page = int(query.get("per_page", "30")), int(query.get("page", "1"))
        jobs = [job for job in run.jobs if query["filter"] == "all" or job["run_attempt"] == run.attempt]
        return json_reply(200, {"total_count": len(jobs), "jobs": jobs[size * (page - 1) : size * page]})

    def _run(self, run: Run) -> dict[str, Any]:
        own = {
            "id": run.id,
            "name": "Retry",
            "display_title": run.title,
            "event": "workflow_dispatch",
            "status": run.status,
            "conclusion": run.conclusion,
            "run_attempt": run.attempt,
            "created_at": run.created_at,
            "run_started_at": run.created_at,
            "updated_at": run.ended_at or now(),
            "html_url": self.html_url(run),
            "head_branch": run.ref,
        }
        return {**example("workflow-run"), **own}

    def _repository(self) -> dict[str, Any]:
        body = example("full-repository-default-response")
        own = {
            "name": self.name,
            "full_name": f"{self.owner}/{self.name}",
            "default_branch": self.default_branch,
            "html_url": self.page,
            "language": "Python",
        }
        return {name: value for name, value in body.items() if name not in ("source", "parent")} | own


def json_reply(status: int, body: Any) -> Reply:
    """An answer in JSON."""
    return Reply(status, {}, json.dumps(body).encode())


def refusal(status: int, message: str, **headers: str) -> Reply:
    """One of GitHub's errors."""
    url = "https://docs.github.com/rest"
    body = {"message": message, "documentation_url": url, "status": str(status)}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"Content-Type": "application/json; charset=utf-8", **named}, json.dumps(body).encode())


def now() -> str:
    """The time as GitHub writes it."""
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def github(on_dispatch: Runner = succeed, kind: Kind = "api.github.com") -> Iterator[GitHub]:
    """The stand-in, served. Fails at its end if a request or answer was not as GitHub describes it, or a run broke."""
    state = GitHub(on_dispatch, kind)
    with serving(state) as server:
        state.server = server
        yield state
        state.wait()
    if state.failures:
        raise AssertionError(f"{len(state.failures)} failures of the stand-in") from state.failures[0]
