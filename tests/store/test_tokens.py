"""Which host gets which token and password, as the real program sends them: a stand-in for ghcr.io records it all."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme
from action_steps import ActionRun
from cli import Workspace, elsewhere, workspace
from registry_server import (
    PASSWORD,
    USERNAME,
    Reply,
    Seen,
    Served,
    Server,
    leading_to,
    password_registry,
    registry,
    serving,
)

TOKEN = "ghs_" + "t0K3n" * 8
PIPELINE = """
name = "flowers"
[steps.load]
run = "echo loaded > data.txt; touch ran"
catalog = { put = ["data.txt"] }
"""
GITHUB_COM = {"GITHUB_SERVER_URL": "https://github.com"}
OTHER_SERVERS = [
    {"GITHUB_SERVER_URL": "https://acme.ghe.com", "GITHUB_API_URL": "https://api.acme.ghe.com"},
    {"GITHUB_SERVER_URL": "https://ghe.example.org", "GITHUB_API_URL": "https://ghe.example.org/api/v3"},
    {"GITHUB_SERVER_URL": "https://codeberg.org", "FORGEJO_ACTIONS": "true"},
    {"GITHUB_SERVER_URL": "http://127.0.0.1:3000", "GITEA_ACTIONS": "true"},
]


@dataclass(frozen=True)
class Ghcr:
    """A stand-in for ghcr.io on which one token may write and everybody may read; a wrong token is denied."""

    server: Server
    variables: Mapping[str, str]
    """What leads the program to it, and lets it trust its certificate."""

    def credentials(self) -> list[str]:
        """What was sent to prove something to the token server, in order."""
        sent = [seen.authorization for seen in self.server.seen if seen.path.startswith("/token")]
        return [base64.b64decode(text.removeprefix("Basic ")).decode() for text in sent]


def answer(seen: Seen, server: Server) -> Reply:
    known = "Basic " + base64.b64encode(f"octocat:{TOKEN}".encode()).decode()
    if seen.path.startswith("/token"):
        if seen.authorization not in ("", known):
            return Reply(403, {}, b'{"errors": [{"code": "DENIED", "message": "denied"}]}')
        return Reply(200, {}, json.dumps({"token": "writes" if seen.authorization else "reads"}).encode())
    if not seen.authorization:
        return Reply(401, {"WWW-Authenticate": 'Bearer realm="https://ghcr.io/token",service="ghcr.io"'}, b"{}")
    if seen.authorization == "Bearer reads" and seen.method not in ("GET", "HEAD"):
        return Reply(403, {}, b'{"errors": [{"code": "DENIED"}]}')
    return server.forward(replace(seen, headers={**seen.headers, "X-Forwarded-Proto": "https"}))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("plain")) as served:
        yield served


@pytest.fixture
def ghcr(plain: Served, tmp_path: Path) -> Iterator[Ghcr]:
    """A stand-in whose content other tests may have written."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def hook(seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        return answer(seen, server)

    with serving(hook, upstream=plain) as server, leading_to(server, authority, "ghcr.io") as proxy:
        yield Ghcr(server, {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(tmp_path / "ca.pem")})


def job(
    tmp_path: Path, ghcr: Ghcr, variables: Mapping[str, str], files: Mapping[str, str] | None = None, **inputs: str
) -> tuple[ActionRun, Workspace]:
    """The action in a job of some server, with that server's token."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": "ran\n", **(files or {})})
    event = tmp_path / "event.json"
    if not event.exists():
        event.write_text("{}")
    environ = {
        **project.environ,
        **ghcr.variables,
        "GITHUB_REPOSITORY": "Octo/Flowers",
        "GITHUB_ACTOR": "octocat",
        "GITHUB_RUN_ID": "1000",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_JOB": "train",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "push",
        "GITHUB_EVENT_PATH": str(event),
        **variables,
    }
    named = {name.replace("_", "-"): value for name, value in {"token": TOKEN, **inputs}.items()}
    return ActionRun(project.folder, tmp_path / "temp", environ, named), project


def test_a_job_of_github_com_publishes_to_ghcr_by_itself(tmp_path: Path, ghcr: Ghcr) -> None:
    """There the job's token is what opens it."""
    action, _ = job(tmp_path, ghcr, GITHUB_COM)
    ran = action.all()
    assert ran.code == 0, ran.text
    assert action.outputs["finish"]["reference"].startswith("ghcr.io/octo/flowers/runs:train-1000@sha256:")
    assert set(ghcr.credentials()) == {f"octocat:{TOKEN}"}


@pytest.mark.parametrize("server", OTHER_SERVERS)
@pytest.mark.parametrize("command", ["run", "publish"])
def test_a_job_of_another_server_is_told_before_its_run(
    tmp_path: Path, ghcr: Ghcr, server: Mapping[str, str], command: str
) -> None:
    """Nothing runs, nobody is spoken to, and the workflow's lines that were missing are in log and summary."""
    action, project = job(tmp_path, ghcr, server, command=command)
    ran = action.all()
    assert ran.code == 2
    assert not (project.folder / "ran").exists()
    assert ghcr.server.seen == []
    host = server["GITHUB_SERVER_URL"].partition("://")[2]
    named = host if {"FORGEJO_ACTIONS", "GITEA_ACTIONS"} & server.keys() else f"containers.{host}"
    fix = (
        f"with:\n  registry: {named}/octo/flowers/runs\n"
        "env:\n"
        "  RUNNABLE_CI_REGISTRY_USERNAME: ${{ github.actor }}\n"
        "  RUNNABLE_CI_REGISTRY_PASSWORD: ${{ github.token }}"
    )
    assert f"no registry is set: ghcr.io is github.com's, and the server here is {host}" in ran.text.replace("%3A", ":")
    assert fix.replace("\n", "%0A") in ran.text
    assert f"```yaml\n{fix}\n```" in action.summary.replace("\n> ", "\n")
    assert ("publish: never" in ran.text) == (command == "run")


def test_a_job_that_publishes_nothing_needs_no_registry(tmp_path: Path, ghcr: Ghcr) -> None:
    """It runs as ever, and speaks to nobody."""
    action, project = job(tmp_path, ghcr, OTHER_SERVERS[0], publish="never")
    ran = action.all()
    assert ran.code == 0, ran.text
    assert (project.folder / "ran").exists()
    assert ghcr.server.seen == []


def test_a_fork_s_pull_request_needs_no_registry(tmp_path: Path, ghcr: Ghcr) -> None:
    """It cannot publish anyway, and its run must not fail for that."""
    event = {"pull_request": {"head": {"repo": {"fork": True, "full_name": "eve/flowers"}, "sha": "a" * 40}}}
    (tmp_path / "event.json").write_text(json.dumps(event))
    action, project = job(tmp_path, ghcr, {**OTHER_SERVERS[0], "GITHUB_EVENT_NAME": "pull_request"})
    ran = action.all()
    assert ran.code == 0, ran.text
    assert (project.folder / "ran").exists()
    assert ghcr.server.seen == []


def test_a_token_of_another_server_does_not_go_where_ghcr_is_named(tmp_path: Path, ghcr: Ghcr) -> None:
    """Who wants ghcr.io gives credentials of its own; before the run it is said that the token is none."""
    action, project = job(tmp_path, ghcr, OTHER_SERVERS[0], registry="ghcr.io/octo/named/runs")
    ran = action.all()
    assert ran.code == 1
    assert not (project.folder / "ran").exists()
    assert "note: the token belongs to acme.ghe.com and is not sent to ghcr.io: `docker login ghcr.io`" in ran.text
    assert "RUNNABLE_CI_REGISTRY_PASSWORD: ${{ secrets.GHCR_TOKEN }}" in action.summary
    assert set(ghcr.credentials()) == {""}

    own = {"RUNNABLE_CI_REGISTRY_USERNAME": "octocat", "RUNNABLE_CI_REGISTRY_PASSWORD": TOKEN}
    (tmp_path / "again").mkdir()
    other, _ = job(tmp_path / "again", ghcr, {**OTHER_SERVERS[0], **own}, registry="ghcr.io/octo/own/runs", token="ghe")
    assert other.all().code == 0
    assert other.outputs["finish"]["reference"].startswith("ghcr.io/octo/own/runs:")
    assert f"octocat:{TOKEN}" in ghcr.credentials()
    assert not any("ghe" in sent for sent in ghcr.credentials())


@pytest.fixture
def public(tmp_path: Path, ghcr: Ghcr) -> Workspace:
    """Another user's clone; a run that everybody may read is on ghcr.io."""
    (tmp_path / "job").mkdir()
    action, project = job(tmp_path / "job", ghcr, GITHUB_COM, registry="ghcr.io/octo/public/runs", run_id="r")
    assert action.all().code == 0
    ghcr.server.seen.clear()
    laptop = elsewhere(project, tmp_path)
    return Workspace(laptop.folder, {**laptop.environ, **ghcr.variables})


@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({}, [""]),
        ({"GITHUB_TOKEN": TOKEN, "GITHUB_ACTOR": "octocat"}, [f"octocat:{TOKEN}"]),
        ({"GITHUB_TOKEN": "stale", "GITHUB_ACTOR": "me"}, ["me:stale", ""]),
        ({"RUNNABLE_CI_GITHUB_TOKEN": "stale", "GITHUB_ACTOR": "me"}, ["me:stale", ""]),
        ({"GITHUB_TOKEN": "ghe", "GH_HOST": "acme.ghe.com"}, [""]),
        ({"GITHUB_TOKEN": "ghe", "GITHUB_SERVER_URL": "https://ghe.example.org"}, [""]),
        ({"RUNNABLE_CI_GITHUB_TOKEN": "ghe", "GH_HOST": "acme.ghe.com"}, [""]),
    ],
)
def test_a_public_run_is_read_whatever_tokens_there_are(
    public: Workspace, ghcr: Ghcr, variables: Mapping[str, str], sent: list[str]
) -> None:
    """One of github.com goes along, one that is refused is left away, one of another server never goes there."""
    at = Workspace(public.folder, {**public.environ, **variables})
    at.runnable("pull", "ghcr.io/octo/public/runs:r")
    assert ghcr.credentials() == sent
    assert at.log("r").run_id == "r"


def test_a_laptop_of_another_server_is_told_before_the_run(public: Workspace, ghcr: Ghcr) -> None:
    """With no registry named nothing runs; with ghcr.io named it is said that the token does not go there."""
    at = Workspace(public.folder, {**public.environ, "GH_HOST": "acme.ghe.com", "GITHUB_TOKEN": "ghe"})
    done = at.runnable("run", "--publish", code=2)
    assert done.err.startswith(
        "error: no registry is set: ghcr.io is github.com's, and the server here is acme.ghe.com\n"
    )
    assert "hint: specify one (containers.acme.ghe.com/owner/repo/runs), set RUNNABLE_CI_REGISTRY" in done.err
    assert not (at.folder / "ran").exists()
    done = at.runnable("run", "--to", "ghcr.io/octo/mine/runs", code=1)
    note = "note: the token belongs to acme.ghe.com and is not sent to ghcr.io: `docker login ghcr.io`"
    assert done.err.index(note) < done.err.index("run ")
    assert "ghcr.io refuses anonymous access to octo/mine/runs" in done.err
    assert set(ghcr.credentials()) == {""}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with password_registry(tmp_path_factory.mktemp("locked")) as served:
        yield served


@pytest.mark.promise
@pytest.mark.parametrize("file", ["runnable.toml", "pyproject.toml"])
def test_a_password_does_not_follow_a_repository_s_file(tmp_path: Path, locked: Served, file: str) -> None:
    """Who clones a repository has not named its registry: it is said before the run, and how to name it."""
    with serving(upstream=locked) as proxy:
        repository = proxy.repository()
        table, prefix = ("", "") if file == "runnable.toml" else ("[tool.runnable-ci]\n", "tool.runnable-ci.")
        text = f'{table}registry = "{repository}"\n[{prefix}steps.one]\nrun = "true"\n'
        project = workspace(tmp_path, {file: text})
        known = {"RUNNABLE_CI_REGISTRY_USERNAME": USERNAME, "RUNNABLE_CI_REGISTRY_PASSWORD": PASSWORD}
        at = Workspace(project.folder, {**project.environ, **known})
        done = at.runnable("run", "--run-id", "r", "--publish", code=1)
        note = f"note: RUNNABLE_CI_REGISTRY_PASSWORD is not sent to {proxy.host}: that host was not specified by you; "
        assert done.err.index(note) < done.err.index("run r: ")
        for words in (["publish", "r"], ["pull", "other"], ["prune", "--keep", "1"]):
            refused = at.runnable(*words, code=1)
            assert f"set RUNNABLE_CI_REGISTRY={repository}" in refused.err
        assert not any(seen.authorization for seen in proxy.seen)
        # Once a person says it, it is used; the note of a pulled run alone is no such word.
        at.runnable("publish", "r", RUNNABLE_CI_REGISTRY=repository)
        other = elsewhere(project, tmp_path)
        pulled = Workspace(other.folder, {**other.environ, **known})
        pulled.runnable("pull", f"{repository}:r", "--only", "log")
        proxy.seen.clear()
        assert "is not sent to" in pulled.runnable("pull", "r", code=1).err
        assert not any(seen.authorization for seen in proxy.seen)
        pulled.runnable("pull", "r", "--from", repository)


def test_a_job_is_told_that_its_password_does_not_follow_the_file(tmp_path: Path, locked: Served, ghcr: Ghcr) -> None:
    """Before the run, in place of it, with the lines for the workflow."""
    with serving(upstream=locked) as proxy:
        repository = proxy.repository()
        known = {"RUNNABLE_CI_REGISTRY_USERNAME": USERNAME, "RUNNABLE_CI_REGISTRY_PASSWORD": PASSWORD}
        files = {"runnable.toml": f'registry = "{repository}"\n{PIPELINE}'}
        action, _ = job(tmp_path, ghcr, {**GITHUB_COM, **known}, files)
        ran = action.all()
        assert ran.code == 1
        assert "note: RUNNABLE_CI_REGISTRY_PASSWORD is not sent to " in ran.text
        assert f"```yaml\nenv:\n  RUNNABLE_CI_REGISTRY: {repository}\n```" in action.summary.replace("\n> ", "\n")
        assert not any(seen.authorization for seen in proxy.seen)
