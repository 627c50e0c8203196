"""Starting a retry in GitHub Actions and following it, by the real program, with a stand-in for GitHub's API."""

from __future__ import annotations

import json
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from github_api import TOKEN, GitHub, Run, github, refusal
from registry_server import Reply, registry
from support import wait_until

from runnable_ci.store.local import Layout

TOML = """
[parameters]
rate = 2
label = "1"
[steps.load]
run = "true"
[steps.fit]
run = "false"
"""
QUICK = ("--watch", "--interval", "0.1")


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A clone with one commit, whose remote is on GitHub; it is pushed as far as `server.git = project.folder` says."""
    made = workspace(tmp_path, {"runnable.toml": TOML})
    made.git("remote", "add", "origin", "git@github.com:owner/repo.git")
    return made


@pytest.fixture
def server(project: Workspace) -> Iterator[GitHub]:
    """A GitHub where the clone is pushed."""
    with github() as served:
        served.git = project.folder
        yield served


def client(project: Workspace, server: GitHub, **more: str) -> Workspace:
    """The same folder, with the variables that lead to the server."""
    return Workspace(project.folder, {**project.environ, **server.variables, **more})


def fail(run: Run) -> str:
    """A job that fails in its second step, and one that never begins."""
    job = run.job("retry")
    run.step(job, "Set up job")
    run.step(job, "Post cache", "skipped")
    run.step(job, "Run runnable/action", "failure")
    run.end(job, "failure")
    run.end(run.job("after"), "skipped")
    return "failure"


@pytest.mark.parametrize("kind", ["api.github.com", "ghes-3.17"])
def test_the_retry_is_started_and_its_url_printed(project: Workspace, kind: str) -> None:
    """The workflow of the default branch gets the run, the branch at hand, the step and the parameters; no more."""
    with github(kind="ghes-3.17" if kind == "ghes-3.17" else "api.github.com") as server:
        server.git = project.folder
        project.git("branch", "fix")
        project.git("checkout", "-q", "fix")
        arguments = ("--from", "fit", "-p", "rate=3", "-p", "label=2")
        done = client(project, server).runnable("dispatch", "brave-bohr-1200", *arguments)
        assert done.out == f"{server.page}/actions/runs/16000000001\n"
        assert done.err == ""
        [sent] = server.dispatched
        assert (sent["workflow"], sent["ref"]) == ("retry.yml", "main")
        assert json.loads(sent["inputs"].pop("parameters")) == {"rate": 3, "label": "2"}
        assert sent["inputs"] == {"run-id": "brave-bohr-1200", "ref": "fix", "from-step": "fit"}
        client(project, server).runnable("dispatch", "brave-bohr-1200")
        assert server.dispatched[1]["inputs"] == {"run-id": "brave-bohr-1200", "ref": "fix"}


def test_latest_is_the_newest_run_here(project: Workspace, server: GitHub) -> None:
    """`latest` stands for a run id; its own parameters say what is text, and warn of one that it does not have."""
    project.runnable("run", "--run-id", "r7", "-p", "mark=two", "-q", code=1)
    done = client(project, server).runnable("dispatch", "latest", "-p", "mark=3", "-p", "labl=x")
    assert done.err == "note: run r7 has no parameter labl; did you mean `label`?\n"
    inputs = server.dispatched[0]["inputs"]
    assert inputs["run-id"] == "r7"
    assert json.loads(inputs["parameters"]) == {"mark": "3", "labl": "x"}


NIGHTLY = 'name = "nightly"\n[parameters]\ndepth = "1"\n[steps.train]\nrun = "false"\n'


def test_the_run_s_own_pipeline_file_is_sent(project: Workspace, server: GitHub) -> None:
    """A run that is here says which file it is of, whose steps and parameters count; the folder's file is not sent."""
    project.write({"ml/nightly.toml": NIGHTLY})
    project.commit()
    project.runnable("run", "ml/nightly.toml", "--run-id", "n1", "-q", code=1)
    project.runnable("run", "--run-id", "r1", "-q", code=1)
    known = client(project, server)
    known.runnable("dispatch", "n1", "-f", "ml/nightly.toml", "--from", "train", "-p", "depth=2")
    assert server.dispatched[-1]["inputs"] == {
        "run-id": "n1",
        "ref": "main",
        "from-step": "train",
        "parameters": '{"depth": "2"}',
        "pipeline": "ml/nightly.toml",
    }
    known.runnable("dispatch", "r1")
    known.runnable("dispatch", "unknown")
    assert [sent["inputs"] for sent in server.dispatched[-2:]] == [
        {"run-id": "r1", "ref": "main"},
        {"run-id": "unknown", "ref": "main"},
    ]
    known.runnable("dispatch", "unknown", "-f", "ml/nightly.toml")
    assert server.dispatched[-1]["inputs"]["pipeline"] == "ml/nightly.toml"


def test_a_run_of_another_file_beside(project: Workspace, server: GitHub) -> None:
    """Without `-f` the run's own file is sent, `latest` is the newest of a file, and another file is refused."""
    project.write({"nightly.toml": NIGHTLY, "weekly.toml": NIGHTLY})
    project.commit()
    project.runnable("run", "nightly.toml", "--run-id", "n1", "-q", code=1)
    project.runnable("run", "--run-id", "r1", "-q", code=1)
    known = client(project, server)
    known.runnable("dispatch", "n1", "--from", "train")
    assert server.dispatched[-1]["inputs"]["pipeline"] == "nightly.toml"
    known.runnable("dispatch", "latest", "-f", "nightly.toml")
    assert server.dispatched[-1]["inputs"]["run-id"] == "n1"
    refused = known.runnable("dispatch", "n1", "-f", "weekly.toml", code=2).err
    assert refused.startswith("error: run `n1` belongs to the pipeline `nightly` (nightly.toml), not to `nightly`")
    assert refused.endswith("runnable-ci dispatch n1 -f weekly.toml --other-pipeline\n")
    known.runnable("dispatch", "n1", "-f", "weekly.toml", "--other-pipeline")
    sent = server.dispatched[-1]["inputs"]
    assert (sent["pipeline"], sent["other-pipeline"]) == ("weekly.toml", "true")
    project.git("rm", "-q", "--cached", "nightly.toml")
    (project.folder / "nightly.toml").unlink()
    assert "that file does not exist in" in known.runnable("dispatch", "n1", code=2).err
    known.runnable("dispatch", "n1", "--ref", "main")
    assert server.dispatched[-1]["inputs"]["pipeline"] == "nightly.toml"
    assert "--other-pipeline needs" in known.runnable("dispatch", "n1", "--other-pipeline", code=2).err
    hint = known.runnable("dispatch", "elsewhere", "--from", "train", code=2).err
    assert hint.endswith("; a run of another pipeline file than the folder's: name it with -f FILE\n")


def test_a_workflow_that_does_not_take_the_file(project: Workspace, server: GitHub) -> None:
    """A workflow of an older version is started without the pipeline file: what runs there asks the run."""
    project.write({"nightly.toml": NIGHTLY})
    project.commit()
    project.runnable("run", "nightly.toml", "--run-id", "n1", "-q", code=1)
    older = "on:\n  workflow_dispatch:\n    inputs:\n      run-id: {}\n      ref: {}\njobs: {}\n"
    server.workflows["retry.yml"] = older
    client(project, server).runnable("dispatch", "n1")
    assert [sent["inputs"] for sent in server.dispatched] == [{"run-id": "n1", "ref": "main"}]
    server.workflows["retry.yml"] = older.replace("ref: {}", "ref: {}\n      options: {}")
    client(project, server).runnable("dispatch", "n1", "--rerun-changed")
    assert server.dispatched[-1]["inputs"] == {"run-id": "n1", "ref": "main", "options": "--rerun-changed"}
    server.workflows["retry.yml"] = older
    renamed = ("dispatch", "n1", "-f", "nightly.toml", "--other-pipeline")
    assert "does not take these inputs" in client(project, server).runnable(*renamed, code=2).err


@pytest.mark.promise
def test_the_job_takes_what_was_looked_at(project: Workspace, server: GitHub, tmp_path: Path) -> None:
    """The digests of the parts that make up the run here go along, or the one that was named; a reference as it is."""
    with registry(tmp_path / "registry") as served:
        remote = served.repository()
        project.runnable("run", "--run-id", "r1", "--to", remote, "-q", code=1)
        digest = Layout(project.store).resolve("r1").digest
        here = client(project, server)
        here.runnable("dispatch", "r1")
        other = elsewhere(project, tmp_path)
        other.git("remote", "set-url", "origin", "git@github.com:owner/repo.git")
        other.runnable("pull", f"{remote}:r1")
        there = client(other, server)
        told = there.runnable("dispatch", "r1", "--rerun-changed")
        assert "note: written by A on main at " in told.err
        assert f"({digest})" in told.err
    named = f"sha256:{'1' * 64}"
    here.runnable("dispatch", f"r1@{named}")
    here.runnable("dispatch", f"ghcr.io/owner/repo/runs/pull-requests:r1@{named}")
    sent = [(it["inputs"]["run-id"], it["inputs"]["options"]) for it in server.dispatched]
    assert sent == [
        ("r1", f"--writers {digest}"),
        ("r1", f"--rerun-changed --writers {digest}"),
        ("r1", f"--writers {named}"),
        ("ghcr.io/owner/repo/runs/pull-requests:r1", f"--writers {named}"),
    ]
    server.workflows["retry.yml"] = (
        "on:\n  workflow_dispatch:\n    inputs:\n      run-id: {}\n      ref: {}\njobs: {}\n"
    )
    said = here.runnable("dispatch", f"r1@{named}")
    assert "retry.yml has no input `options`, so the job decides whose parts of the run it uses" in said.err
    assert server.dispatched[-1]["inputs"] == {"run-id": "r1", "ref": "main"}


def test_checkpoints_are_dropped_by_any_workflow(project: Workspace, server: GitHub) -> None:
    """`--checkpoint drop` goes along as an option of `retry`; a workflow that takes none is not started without it."""
    here = client(project, server)
    here.runnable("dispatch", "r", "--checkpoint", "drop")
    here.runnable("dispatch", "r", "--checkpoint", "use")
    assert [sent["inputs"].get("options") for sent in server.dispatched] == ["--checkpoint drop", None]
    server.workflows["retry.yml"] = (
        "on:\n  workflow_dispatch:\n    inputs:\n      run-id: {}\n      ref: {}\njobs: {}\n"
    )
    assert "does not take these inputs" in here.runnable("dispatch", "r", "--checkpoint", "drop", code=2).err
    assert len(server.dispatched) == 2


def chain_of(server: list[GitHub], *conclusions: str, title: str = "Retry r") -> Callable[[Run], str]:
    """Jobs of which each starts the next one before it ends, as a job does whose time budget was over."""

    def work(run: Run) -> str:
        number = len(server[0].runs)
        job = run.job("retry")
        if number < len(conclusions):
            time.sleep(1.1)  # GitHub tells whole seconds
            server[0].begin(server[0].add_run(title=title))
        run.end(job, conclusions[number - 1])
        return conclusions[number - 1]

    return work


@pytest.mark.parametrize("seen_after", [0, 2])
def test_watching_follows_the_chain(project: Workspace, seen_after: int) -> None:
    """Each run that a failed one started for the same run is followed, though it is seen late; the last one decides."""
    served: list[GitHub] = []
    with github(chain_of(served, "failure", "failure", "success")) as server:
        served.append(server)
        server.git, server.seen_after = project.folder, seen_after
        done = client(project, server).runnable("dispatch", "r", *QUICK)
    assert done.out == f"{server.page}/actions/runs/16000000001\n"
    for number, conclusion in ((1, "failure"), (2, "failure"), (3, "success")):
        assert (
            f"workflow run 1600000000{number}: {conclusion}: {server.page}/actions/runs/1600000000{number}" in done.err
        )
    assert done.err.count("another job continues it: ") == 2


@pytest.mark.parametrize(("last", "title"), [("failure", "Retry r"), ("success", "Retry r2")])
def test_watching_ends_with_the_chain(project: Workspace, last: str, title: str) -> None:
    """The exit code is that of the last one; a run that was started for another run is not followed."""
    served: list[GitHub] = []
    with github(chain_of(served, "failure", last, title=title)) as server:
        served.append(server)
        server.git = project.folder
        done = client(project, server).runnable("dispatch", "r", *QUICK, code=1)
    assert ("another job continues it" in done.err) is (title == "Retry r")


def test_a_later_retry_of_others_is_not_followed(project: Workspace) -> None:
    """What is started after a run has failed, though for the same run, was not started by it."""
    with github(fail) as server:
        server.git = project.folder
        server.answer("GET", "/runs?event", lambda _: later(server), times=3)
        done = client(project, server).runnable("dispatch", "r", *QUICK, code=1)
    assert "another job" not in done.err


def later(server: GitHub) -> Reply:
    """The list of runs, with one that was started tomorrow."""
    there = json.loads(server.listed().body)
    new = {**there["workflow_runs"][0], "id": 17_000_000_000, "created_at": "2999-01-01T00:00:00Z"}
    return Reply(200, {}, json.dumps({**there, "workflow_runs": [new, *there["workflow_runs"]]}).encode())


def test_other_workflow_and_refs(project: Workspace, server: GitHub) -> None:
    """`--workflow`, `--workflow-ref` and `--ref` are taken as they are given; the ref may be any commit."""
    commit = project.git("rev-parse", "HEAD")
    project.git("branch", "next")
    server.workflows["again.yaml"] = server.workflows.pop("retry.yml")
    arguments = ("--workflow", ".github/workflows/again.yaml", "--workflow-ref", "next", "--ref", commit[:10])
    client(project, server).runnable("dispatch", "r", *arguments)
    assert server.dispatched == [
        {"workflow": "again.yaml", "ref": "next", "inputs": {"run-id": "r", "ref": commit[:10]}}
    ]


def test_what_is_not_pushed_is_not_retried_unawares(project: Workspace, tmp_path: Path) -> None:
    """A branch or a commit that is not on the server is refused with the way out; being behind is only said."""
    project.git("clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    project.git("remote", "set-url", "--push", "origin", str(tmp_path / "bare.git"))
    with github() as server:
        server.git = tmp_path / "bare.git"

        def dispatch(*arguments: str, code: int = 0) -> str:
            return client(project, server).runnable("dispatch", "r", *arguments, code=code).err

        project.write({"runnable.toml": TOML + "# fixed\n"})
        assert "note: uncommitted changes are not included: modified: runnable.toml\n" in dispatch()
        new = project.commit()
        said = dispatch(code=2)
        assert said.startswith(f"error: main is at {new[:12]} here, 1 commit ahead, and at ")
        assert "hint: git push; or --ref main uses the commit there\n" in said
        assert dispatch("--ref", "main") == ""
        project.git("push", "-q", "origin", "main")
        assert dispatch() == ""
        project.git("reset", "-q", "--hard", "HEAD~1")
        assert f"note: main is at {new[:12]} on owner/repo, which is used; here it is at " in dispatch()
        project.git("checkout", "-q", "--detach")
        assert dispatch() == ""
        assert server.dispatched[-1]["inputs"]["ref"] == project.git("rev-parse", "HEAD")
        project.git("checkout", "-q", "-b", "fix")
        assert dispatch(code=2).endswith("hint: git push -u origin fix\n")
        assert dispatch("--ref", "nowhere", code=2).startswith("error: owner/repo has no branch, tag or commit nowhere")
        project.git("checkout", "-q", "--detach")
        project.write({"more": ""})
        project.commit()
        assert "is not on owner/repo\nhint: push it" in dispatch(code=2)


def test_another_repository_than_the_one_at_hand(tmp_path: Path) -> None:
    """With `--repo` alone the ref is left to the workflow; without any repository the option is named."""
    project = workspace(tmp_path, {"runnable.toml": TOML})
    with github() as server:
        done = client(project, server).runnable("dispatch", "r", "--repo", "owner/repo")
        assert (
            "note: this folder is not a clone of owner/repo: its default branch is used (--ref selects another)"
            in done.err
        )
        assert server.dispatched[0]["inputs"] == {"run-id": "r"}
        done = client(project, server).runnable("dispatch", "r", code=2)
        assert done.err.endswith("hint: name the repository: --repo OWNER/NAME\n")
        in_job = client(project, server, GITHUB_ACTIONS="true", GITHUB_REPOSITORY="owner/repo")
        in_job.runnable("dispatch", "r")
        assert len(server.dispatched) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["r", "-p", "1x=2"], "--param"),
        (["r", "-p", "PATH=2"], "--param"),
        (["r", "-p", "rate"], "expected name=value"),
        (["r", "--from", "fti"], "did you mean `fit`?"),
        (["r", "--from", "a b", "--ref", "main"], "no such step"),
        (["r", "--workflow", "../x.yml"], "not a file in .github/workflows"),
        (["latest"], "error: no runs in "),
        (["a b"], "is not a run id"),
        (["ghcr.io/owner/repo/runs:latest"], "hint: write it as ghcr.io/owner/repo/runs:RUN_ID"),
        ([f"ghcr.io/owner/repo/runs@sha256:{'0' * 64}"], "does not name a run by its id"),
        (["r@sha256:12"], "'sha256:12' is not a digest"),
        (["r", "--repo", "owner"], "hint: write it as OWNER/NAME"),
        (["r", "-p", f"text={'é' * 12_000}"], "the inputs are 72,064 characters long; GitHub takes 65,535"),
    ],
)
def test_what_makes_no_sense_is_not_sent(
    project: Workspace, server: GitHub, arguments: list[str], message: str
) -> None:
    """Wrong names, values and sizes are errors before anything is started."""
    done = client(project, server).runnable("dispatch", *arguments, code=2)
    assert message in done.err
    assert server.server.count("POST") == 0


NO_TRIGGER = "on: push\njobs: {}\n"
NO_REF = "on:\n  workflow_dispatch:\n    inputs:\n      run-id: {}\njobs: {}\n"
ONE_MORE = (
    "on:\n  workflow_dispatch:\n    inputs:\n      run-id: {}\n      ref: {}\n      who: {required: true}\njobs: {}\n"
)
INPUTS = "    on:\n      workflow_dispatch:\n        inputs:\n          run-id: { type: string, required: true }\n"


@pytest.mark.parametrize(
    ("workflow", "message", "hint"),
    [
        (
            None,
            "owner/repo has no workflow retry.yml on its default branch, main",
            "`runnable-ci init --github` writes",
        ),
        (NO_TRIGGER, "is not started by workflow_dispatch", INPUTS),
        (NO_REF, 'does not take these inputs: Unexpected inputs provided: ["ref"]', INPUTS),
        (ONE_MORE, "requires other inputs: Required input 'who' not provided", INPUTS),
    ],
)
def test_a_workflow_that_does_not_fit(
    project: Workspace, server: GitHub, workflow: str | None, message: str, hint: str
) -> None:
    """A workflow that is missing, not to be dispatched or without our inputs: each its own error, with the YAML."""
    del server.workflows["retry.yml"]
    if workflow:
        server.workflows["retry.yml"] = workflow
    done = client(project, server).runnable("dispatch", "r", code=2)
    assert message in done.err
    assert f"hint: {hint}" in done.err or hint in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("method", "reply", "code", "message", "hint"),
    [
        (
            "POST",
            refusal(403, "Resource not accessible by integration"),
            2,
            "the token of GITHUB_TOKEN may not do this in owner/repo: Resource not accessible by integration",
            "    permissions:\n      actions: write\n",
        ),
        (
            "GET",
            refusal(403, "Resource protected", X_GitHub_SSO="required; url=https://github.com/orgs/owner/sso?x=1"),
            2,
            "owner requires the token of GITHUB_TOKEN to be authorised by single sign-on",
            "hint: https://github.com/orgs/owner/sso?x=1\n",
        ),
        ("GET", refusal(404, "Not Found"), 2, "there is no owner/repo that the token of GITHUB_TOKEN can see", "check"),
        (
            "POST",
            refusal(422, "Cannot trigger a 'workflow_dispatch' on a disabled workflow"),
            2,
            "retry.yml cannot be started",
            "hint: `gh workflow enable retry.yml --repo owner/repo`\n",
        ),
        (
            "POST",
            refusal(422, "Actions has been disabled for this repository."),
            2,
            "retry.yml cannot be started: Actions has been disabled",
            "/owner/repo/settings/actions\n",
        ),
        ("POST", refusal(422, "No ref found for: main"), 2, "has no branch or tag main", "--workflow-ref takes"),
        ("POST", refusal(410, "Gone"), 2, "owner/repo: status 410: Gone", ""),
        ("POST", refusal(422, "Something new"), 2, "owner/repo: status 422: Something new", ""),
        (
            "GET",
            refusal(403, "API rate limit exceeded", X_RateLimit_Remaining="0", X_RateLimit_Reset="4102444800"),
            1,
            "GitHub's rate limit: no more requests until 00:00:01 UTC",
            "hint: try again then",
        ),
        ("POST", refusal(429, "secondary rate limit", Retry_After="3600"), 1, "in 60 min (secondary rate limit)", ""),
        (
            "POST",
            Reply(502, {}, b"<html>"),
            1,
            "keeps failing: status 502",
            "hint: the run may have started nevertheless; check before you try again: http",
        ),
        ("POST", Reply(200, {}, b'{"x": 1', cut=3), 1, "failed: the ", "the run may have started nevertheless"),
        ("GET", Reply(200, {}, b"[]"), 1, "returned an unexpected response", "GITHUB_API_URL"),
        ("POST", Reply(200, {}, b'{"workflow_run_id": -1}'), 1, "returned an unexpected response", "GITHUB_API_URL"),
    ],
)
def test_each_refusal_says_what_mends_it(
    project: Workspace, server: GitHub, method: str, reply: Reply, code: int, message: str, hint: str
) -> None:
    """Exit code 2 where nothing was started, 1 where GitHub fails; what to do; never the token."""
    server.answer(method, "/repos/owner/repo", reply)
    done = client(project, server).runnable("dispatch", "r", code=code)
    assert message in done.err
    assert hint in done.err
    assert done.out == ""
    assert TOKEN not in done.err
    assert server.server.count("POST") <= 1


def test_a_token_that_is_refused(project: Workspace, server: GitHub) -> None:
    """A wrong token is named by where it was found, and not shown."""
    wrong = {"GITHUB_TOKEN": "", "GH_TOKEN": "ghp_wrong", "RUNNABLE_CI_GITHUB_TOKEN": ""}
    done = client(project, server, **wrong).runnable("dispatch", "r", code=2)
    assert done.err.startswith("error: GitHub does not accept the token of GH_TOKEN: Bad credentials\nhint: ")
    done = client(project, server, **{**wrong, "GH_TOKEN": ""}).runnable("dispatch", "r", code=2)
    assert done.err.startswith("error: no token for github.com\nhint: set RUNNABLE_CI_GITHUB_TOKEN")
    client(project, server, **{**wrong, "RUNNABLE_CI_GITHUB_TOKEN": TOKEN}).runnable("dispatch", "r")


def test_no_step_gets_the_token(project: Workspace) -> None:
    """`RUNNABLE_CI_GITHUB_TOKEN` is ours alone."""
    project.write({"runnable.toml": '[steps.one]\nrun = "env"\n'})
    done = project.runnable("run", RUNNABLE_CI_GITHUB_TOKEN=TOKEN)
    assert "RUNNABLE_RUN_ID=" in done.out
    assert TOKEN not in done.out


def test_watching_a_run_that_succeeds(project: Workspace, server: GitHub) -> None:
    """A job's end is a line; stdout has the URL alone; the end offers the pull, from where the action publishes."""
    done = client(project, server).runnable("dispatch", "r", *QUICK)
    url = f"{server.page}/actions/runs/16000000001"
    assert done.out == f"{url}\n"
    lines = done.err.splitlines()
    assert set(lines[:-3]) <= {"retry | started"}  # unless it was over when it was looked at first
    assert lines[-3].rpartition(" in ")[0] == "retry | ✓ success"
    assert lines[-2:] == [
        f"workflow run 16000000001: success: {url}",
        "download the results: runnable-ci pull r --from ghcr.io/owner/repo/runs",
    ]
    known = client(project, server).runnable("dispatch", "r", *QUICK, RUNNABLE_CI_REGISTRY="ghcr.io/a/b")
    assert known.err.endswith("download the results: runnable-ci pull r\n")
    # Where another server's runs go is known to the workflow alone.
    other = client(project, server).runnable("dispatch", "r", *QUICK, "--repo", "ghe.example.org/owner/repo")
    assert other.err.endswith(f"workflow run 16000000003: success: {server.page}/actions/runs/16000000003\n")


@pytest.mark.parametrize("kind", ["api.github.com", "ghes-3.17"])
def test_watching_a_run_that_fails(project: Workspace, kind: str) -> None:
    """The exit code is 1, the failed job names its step, a skipped job is one line."""
    with github(fail, "ghes-3.17" if kind == "ghes-3.17" else "api.github.com") as server:
        server.git = project.folder
        done = client(project, server).runnable("dispatch", "r", *QUICK, code=1)
    assert "retry | ✗ failure in " in done.err
    assert ": Run runnable/action\n" in done.err
    assert "Post cache" not in done.err
    [after] = [line for line in done.err.splitlines() if line.startswith("after | ")]
    assert after.startswith("after | ✓ skipped")
    assert "workflow run 16000000001: failure: " in done.err


@pytest.mark.parametrize("conclusion", ["cancelled", "timed_out", "action_required", "skipped", "startup_failure"])
def test_nothing_but_success_is_success(project: Workspace, conclusion: str) -> None:
    """A run that was cancelled, timed out, waits for approval or did nothing exits 1, also without any job."""
    with github(lambda _: conclusion) as server:
        server.git = project.folder
        done = client(project, server).runnable("dispatch", "r", *QUICK, code=1)
    assert f"workflow run 16000000001: {conclusion.replace('_', ' ')}: " in done.err


def test_ctrl_c_stops_watching_and_not_the_run(project: Workspace) -> None:
    """SIGINT ends the program with 130 and the URL; the run goes on and GitHub is asked for nothing more."""
    proceed = threading.Event()

    def runner(run: Run) -> str:
        job = run.job("retry", "waiting")
        assert proceed.wait(60)
        run.end(job)
        return "success"

    with github(runner) as server:
        server.git = project.folder
        with client(project, server).start("dispatch", "r", *QUICK) as process:
            wait_until(lambda: server.server.count("GET", "/jobs") > 1, "a look at the jobs")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert process.returncode == 130
        waits = "retry | waiting for approval, or for another rule of its environment"
        assert err.decode() == f"{waits}\nstopped watching; the run continues: {out.decode()}"
        proceed.set()
        server.wait()
        assert [run.conclusion for run in server.runs.values()] == ["success"]


def test_a_run_that_waits_says_for_what(project: Workspace) -> None:
    """For its concurrency group it waits without any job, for approval with one; each is one line."""
    proceed = threading.Event()

    def runner(run: Run) -> str:
        run.status = "pending"
        assert proceed.wait(60)
        run.status = "in_progress"
        job = run.job("retry", "pending")
        assert allowed.wait(60)
        run.end(job)
        return "success"

    allowed = threading.Event()
    with github(runner) as server:
        server.git = project.folder
        with client(project, server).start("dispatch", "r", *QUICK) as process:
            wait_until(lambda: server.server.count("GET", "/jobs") > 3, "looks at the run")
            proceed.set()
            wait_until(lambda: server.server.count("GET", "/jobs") > 9, "looks at its job")
            allowed.set()
            _, err = process.communicate(timeout=20)
        server.wait()
    assert process.returncode == 0
    lines = err.decode().splitlines()
    assert lines[:2] == [
        "workflow run 16000000001: pending: it waits for others of its concurrency group",
        "retry | pending: it waits for others of its concurrency group",
    ]
    assert len(lines) == 5


def test_a_watch_outlives_what_passes(project: Workspace, server: GitHub) -> None:
    """A failing GitHub and a short rate limit are waited out; a token that expires ends the watch, and says so."""
    server.answer("GET", "/jobs", refusal(403, "You have exceeded a secondary rate limit", Retry_After="1"))
    server.answer("GET", "/jobs", Reply(502, {}, b""))  # later, as its own wait may exceed that of the limit
    done = client(project, server).runnable("dispatch", "r", *QUICK)
    assert done.err.startswith("GitHub's rate limit: continuing in 1 s\nretry | ")
    for reply, reason in (
        (refusal(401, "Bad credentials"), "GitHub does not accept the token"),
        (Reply(200, {}, b"[]"), "http://127.0.0.1"),
    ):
        server.answer("GET", "/jobs", reply)
        done = client(project, server).runnable("dispatch", "r", *QUICK, code=1)
        assert f"error: the run can no longer be watched: {reason}" in done.err
        assert f"hint: it continues: {done.out}" in done.err


def test_names_of_others_do_not_move_the_cursor(project: Workspace) -> None:
    """Names of jobs and steps, messages and links are shown without control characters, however they are sent."""
    hostile = "##[error]\x1b[2J\r\n::error::\u202e\x00"

    def runner(run: Run) -> str:
        job = run.job(f"::stop-commands::x{hostile}")
        run.step(job, f"step{hostile}")
        run.end(job)
        return "success"

    with github(runner) as server:
        server.git = project.folder
        done = client(project, server).runnable("dispatch", "r", *QUICK)
        bad = {"workflow_run_id": 16_000_000_001, "html_url": f"https://x/{hostile}", "run_url": "x"}
        server.answer("POST", "/dispatches", Reply(200, {}, json.dumps(bad).encode()))
        linked = client(project, server).runnable("dispatch", "r")
        server.answer("GET", "/repos/owner/repo", refusal(422, hostile))
        refused = client(project, server).runnable("dispatch", "r", code=2)
    assert linked.out == f"{server.page}/actions/runs/16000000001\n"
    for text in (done.err, linked.out, refused.err):
        assert all(c.isprintable() or c == "\n" for c in text), text
        assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert "##[" not in done.err


def test_rerun_failed_is_githubs_own_and_can_be_watched(project: Workspace) -> None:
    """The failed jobs run again as a new attempt of the same run, given its number or its URL."""
    with github(lambda run: "success" if run.attempt == 3 else "failure") as server:
        run = server.add_run(status="completed", conclusion="failure")
        url = server.html_url(run)
        done = client(project, server).runnable("rerun-failed", str(run.id), *QUICK, code=1)
        assert (done.out, done.err) == (f"{url}\n", f"workflow run {run.id} (attempt 2): failure: {url}\n")
        done = client(project, server).runnable("rerun-failed", f"{url}/attempts/2?pr=1")
        assert (done.out, done.err) == (f"{url}\n", "")
        server.wait()
        assert (run.attempt, run.conclusion) == (3, "success")


@pytest.mark.parametrize(
    ("fields", "reply", "message", "hint"),
    [
        ({"status": "in_progress"}, None, "has not finished: in_progress", "wait, or cancel it first: http"),
        ({"conclusion": "success"}, None, "succeeded: there is nothing to re-run", ""),
        ({}, refusal(403, "The workflow run containing this job is already running"), "has not finished", "wait"),
        (
            {"created_at": "2020-01-01T00:00:00Z"},
            refusal(403, "Unable to retry this workflow run because it was created over a month ago"),
            "is older than 30 days",
            "hint: `runnable-ci dispatch RUN_ID --repo owner/repo` resumes a published run of any age\n",
        ),
        ({"created_at": "2020-01-01T00:00:00Z"}, refusal(403, "No."), "is older than 30 days", "runnable-ci dispatch"),
        ({"attempt": 50}, refusal(403, "No."), "had 50 attempts; GitHub allows 50", "runnable-ci dispatch"),
        ({}, refusal(403, "This workflow run cannot be retried"), "cannot be retried", "did it fail before any job"),
        ({}, refusal(403, "Must have admin rights to Repository."), "may not do this", "actions: write"),
        ({}, refusal(404, "Not Found"), "there is no owner/repo", ""),
    ],
)
def test_a_rerun_that_github_refuses(
    project: Workspace, server: GitHub, fields: dict[str, object], reply: Reply | None, message: str, hint: str
) -> None:
    """A run that goes on, is too old, had too many attempts or did not fail: each its own error."""
    run = server.add_run(**{"status": "completed", "conclusion": "failure", **fields})
    if reply:
        server.answer("POST", "/rerun-failed-jobs", reply)
    done = client(project, server).runnable("rerun-failed", str(run.id), code=2)
    assert message in done.err
    assert hint in done.err
    assert (done.out, run.attempt) == ("", fields.get("attempt", 1))


@pytest.mark.parametrize("given", ["brave-bohr-1200", "0", "-1", "1.5", "https://github.com/owner/repo"])
def test_rerun_failed_takes_numbers(project: Workspace, server: GitHub, given: str) -> None:
    """A run id of ours, or anything else, is an error that tells the two commands apart."""
    done = client(project, server).runnable("rerun-failed", "--", given, code=2)
    assert ("`runnable-ci dispatch brave-bohr-1200`" in done.err) == (given == "brave-bohr-1200")
    assert server.server.seen == []


def test_a_run_that_is_not_there(project: Workspace, server: GitHub) -> None:
    """An unknown number says where the numbers are."""
    done = client(project, server).runnable("rerun-failed", "77", code=2)
    assert "error: owner/repo has no workflow run 77 that the token of GITHUB_TOKEN can see\nhint: http" in done.err


def test_finished_hours_are_asked_for(project: Workspace, server: GitHub) -> None:
    """Nothing is started for them; each of both commands that are printed starts the job with the person's word."""
    project.write({"load.sh": "sleep 0.2\n", "runnable.toml": TOML.replace('run = "true"', 'run = "bash load.sh"')})
    project.commit()
    project.runnable("run", "--run-id", "r1", "-q", code=1)
    known = client(project, server, RUNNABLE_CI_ASK_MINUTES="0.001")
    project.write({"load.sh": "sleep 0.3\n"})
    project.commit()
    refused = known.runnable("dispatch", "latest", "--interval", "0.1", code=2).err
    assert server.dispatched == []
    error, again, reuse = refused.splitlines()
    assert error.startswith("error: this would repeat 0.")
    assert again == "hint: to repeat it: runnable-ci dispatch r1 --interval 0.1 --rerun-changed"
    assert reuse == "to reuse it: runnable-ci dispatch r1 --interval 0.1 --accept load --reason '…'"
    known.runnable("dispatch", "r1", "--rerun-changed")
    known.runnable("dispatch", "r1", "--accept", "load:code", "--reason", "it's slower; same")
    known.runnable("dispatch", "r1", "--from", "load")
    known.runnable("dispatch", "r1", "--ref", "main~1")  # as the run had it
    sent = [sent["inputs"].get("options") for sent in server.dispatched]
    assert sent[0] == "--rerun-changed"
    assert shlex.split(sent[1]) == ["--accept", "load:code", "--reason", "it's slower; same"]
    assert sent[2:] == [None, None]
    assert "needs a reason" in known.runnable("dispatch", "r1", "--accept", "load", code=2).err
    assert len(server.dispatched) == 4


@pytest.fixture
def finished(project: Workspace, server: GitHub) -> Workspace:
    """A run `r1` whose first step has read two files, one of which git does not track; any repetition is asked for."""
    steps = TOML.replace('run = "true"', 'run = "bash load.sh; cat data.csv"')
    files = {"load.sh": "sleep 0.2\n", "runnable.toml": steps, ".gitignore": "data.csv\n", "data.csv": "1\n"}
    project.write(files)
    project.commit()
    project.runnable("run", "--run-id", "r1", "-q", code=1)
    return client(project, server, RUNNABLE_CI_ASK_MINUTES="0.001")


def test_what_is_only_here_is_no_reason(finished: Workspace, server: GitHub) -> None:
    """The job will not have edits that are not committed, nor files that git does not track."""
    finished.write({"load.sh": "sleep 0.3\n", "data.csv": "2\n"})
    done = finished.runnable("dispatch", "r1")
    assert done.err == "note: uncommitted changes are not included: modified: load.sh\n"
    assert [sent["inputs"] for sent in server.dispatched] == [{"run-id": "r1", "ref": "main"}]
    assert (finished.read("load.sh"), finished.git("status", "--porcelain")) == ("sleep 0.3\n", "M load.sh")


def test_the_plan_is_of_the_ref(finished: Workspace, server: GitHub) -> None:
    """A commit on another branch repeats finished work though nothing changed here, and is looked at without it."""
    finished.git("checkout", "-qb", "fix")
    finished.write({"load.sh": "sleep 0.3\n"})
    finished.commit()
    finished.git("checkout", "-q", "main")
    refused = finished.runnable("dispatch", "r1", "--ref", "fix", code=2).err
    assert refused.startswith("error: this would repeat 0.")
    assert "runnable-ci dispatch r1 --ref fix --rerun-changed" in refused
    assert server.dispatched == []
    assert (finished.git("branch", "--show-current"), finished.git("status", "--porcelain")) == ("main", "")
    finished.runnable("dispatch", "r1", "--ref", "fix", "--rerun-changed")
    finished.runnable("dispatch", "r1", "--ref", "main")
    assert [sent["inputs"]["ref"] for sent in server.dispatched] == ["fix", "main"]


def test_what_cannot_be_planned_is_said(finished: Workspace, server: GitHub, tmp_path: Path) -> None:
    """A commit that is not here, and one of which git alone cannot tell the files, are left to the job."""
    at = "what would run again at {} is not known here, so the job asks by itself: {}"
    finished.write({".gitattributes": "load.sh filter=lfs\n"})
    commit = finished.commit()
    done = finished.runnable("dispatch", "r1")
    assert at.format(commit[:12], "load.sh comes from git's filter `lfs`") in done.err
    finished.git("clone", "-q", ".", str(tmp_path / "theirs"))
    server.git = tmp_path / "theirs"
    theirs = Workspace(tmp_path / "theirs", finished.environ)
    theirs.write({"load.sh": "sleep 0.3\n"})
    commit = theirs.commit()
    done = finished.runnable("dispatch", "r1")
    assert at.format(commit[:12], "that commit is not in this clone") in done.err
    assert len(server.dispatched) == 2
