"""The client of GitHub's API: where the token goes, what is tried again, what is believed of an answer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from github_api import TOKEN, GitHub, github, json_reply, refusal
from github_description import DescriptionError, check
from registry_server import Reply, Seen, Server, serving, tls_server
from support import python

from runnable_ci.config import load
from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.github.api.actions import Actions
from runnable_ci.github.api.client import RESPONSE_MAX_BYTES, Rest, rate_limit_wait_s
from runnable_ci.github.api.credentials import ApiToken, find_token
from runnable_ci.github.api.errors import (
    GitHubError,
    GitHubUnavailableError,
    RateLimitError,
    RefusedError,
)
from runnable_ci.github.api.repository import Api, Repository, api_of, parse_remote, parse_repository
from runnable_ci.util.responses import Response

REPOSITORY = Repository("github.com", "owner", "repo")
KNOWN = ApiToken(TOKEN, "GITHUB_TOKEN")


@dataclass
class Slept:
    """Sleeps that are over at once, and a clock that they move."""

    naps: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.naps.append(seconds)

    def clock(self) -> float:
        return 1_800_000_000.0 + sum(self.naps)


def rest_at(server: Server, slept: Slept | None = None, **environ: str) -> Rest:
    slept = slept or Slept()
    return Rest(f"http://{server.host}", KNOWN, environ=environ, sleep=slept, clock=slept.clock)


def actions_at(served: GitHub, slept: Slept) -> Actions:
    rest = Rest(served.base, KNOWN, environ={}, sleep=slept, clock=slept.clock)
    return Actions(rest, REPOSITORY, in_actions=False, sleep=slept, clock=slept.clock)


@contextmanager
def answering(*replies: Reply | Callable[[Seen], Reply]) -> Iterator[Server]:
    """A server that gives these answers in turn, the last one for ever."""
    left = list(replies)

    def hook(seen: Seen, _: object) -> Reply:
        reply = left.pop(0) if len(left) > 1 else left[0]
        return reply(seen) if callable(reply) else reply

    with serving(hook) as server:
        yield server


# -- where the token goes


def test_a_redirect_elsewhere_is_not_followed() -> None:
    """A link to another host, or to another port of the same, gets neither the token nor a request."""
    with answering(json_reply(200, {})) as other:
        for status in (301, 302, 307, 308):
            with answering(Reply(status, {"Location": f"http://{other.host}/repos/o/r"})) as server:
                with pytest.raises(GitHubError, match="nothing was sent there"):
                    rest_at(server).get("/repos/o/r")
                if status > 302:
                    with pytest.raises(GitHubError, match="nothing was sent there"):
                        rest_at(server).post("/repos/o/r", {})
        assert other.seen == []


def test_a_renamed_repository_is_found() -> None:
    """GitHub answers for an old name with the new place on the same host: token, method and body go there."""
    moved = Reply(307, {"Location": "/repositories/1?x=2"})
    with answering(moved, json_reply(200, {})) as server:
        assert rest_at(server).post("/repos/o/r", {"a": 1}).status == 200
    assert [(seen.method, seen.path, seen.body) for seen in server.seen] == [
        ("POST", "/repos/o/r", b'{"a": 1}'),
        ("POST", "/repositories/1?x=2", b'{"a": 1}'),
    ]
    assert {seen.authorization for seen in server.seen} == {f"Bearer {TOKEN}"}


def test_redirects_end() -> None:
    """A server that leads in circles, or nowhere, is left."""
    with answering(lambda seen: Reply(302, {"Location": seen.path + "x"})) as server:
        with pytest.raises(GitHubError, match="in a loop"):
            rest_at(server).get("/a")
        assert len(server.seen) == 4
    for location in ({}, {"Location": "/a"}, {"Location": "http://["}, {"Location": "file:///etc/passwd"}):
        with answering(Reply(302, location)) as server, pytest.raises(GitHubError):
            rest_at(server).get("/a")


def test_no_other_login_takes_the_tokens_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `~/.netrc` has for the host, as git and curl use it, is not sent."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with answering(json_reply(200, {})) as server:
        rest_at(server).get("/a")
    assert server.seen[0].authorization == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    "base",
    [
        "http://github.test",
        "ftp://127.0.0.1",
        "github.com",
        "https://",
        "https://me:x@ghe.test",
        "https://h?x",
        "http://[",
        "",
    ],
)
def test_a_base_that_may_not_have_a_token(base: str) -> None:
    """Plain http to other machines, and what is no URL, is refused before anything is sent."""
    with pytest.raises(UsageError) as caught:
        Rest(base, KNOWN, environ={})
    assert "me:x" not in str(caught.value)


def test_tls_is_checked_against_the_authorities_that_are_named(tmp_path: Path) -> None:
    """A private authority works with `SSL_CERT_FILE`, and is an error that names the variable without."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with answering(json_reply(200, {})) as server:
        base = f"https://{tls_server(server, authority)}"
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            rest = Rest(base, KNOWN, environ={name: str(tmp_path / "ca.pem")})
            assert rest.get("/a").status == 200
        with pytest.raises(GitHubUnavailableError, match="no trusted TLS") as caught:
            Rest(base, KNOWN, environ={}, sleep=lambda _: None).get("/a")
        assert "SSL_CERT_FILE" in caught.value.hint
    assert len(server.seen) == 2


def test_a_proxy_is_used_and_its_password_not_shown(tmp_path: Path) -> None:
    """`https_proxy` counts, `no_proxy` goes first, and a proxy that is down is not quoted with its password."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
    with answering(json_reply(200, {})) as server, answering(Reply(200)) as proxy:
        host = tls_server(server, authority)
        environ = {**trusted, "https_proxy": f"http://me:hidden@{proxy.host}"}
        assert Rest(f"https://{host}/api", KNOWN, environ=environ).get("/a").status == 200
        assert [(seen.method, seen.path) for seen in proxy.seen] == [("CONNECT", host)]
        assert proxy.seen[0].headers["Proxy-Authorization"].startswith("Basic ")
        assert "Authorization" not in proxy.seen[0].headers
        assert server.seen[0].path == "/api/a"
        down = {**trusted, "https_proxy": "http://me:hidden@127.0.0.1:1"}
        direct = Rest(f"https://{host}", KNOWN, environ={**down, "no_proxy": "*"})
        assert direct.get("/b").status == 200
        with pytest.raises(GitHubUnavailableError, match="the proxy does not answer") as caught:
            Rest(f"https://{host}", KNOWN, environ=down, sleep=Slept()).get("/a")
    assert "hidden" not in str(caught.value)


# -- what is tried again


def test_what_only_reads_is_tried_again() -> None:
    """A broken answer, an overload and an error of the server pass; after five tries it is an error."""
    slept = Slept()
    broken = Reply(200, {}, b'{"a": 1}', cut=2)
    with answering(Reply(502), broken, Reply(500), json_reply(200, {"a": 1})) as server:
        assert rest_at(server, slept).get("/a").body == b'{"a": 1}'
    assert [0.5 <= nap / 2**i <= 1 for i, nap in enumerate(slept.naps)] == [True] * 3
    with answering(Reply(503, {}, b'{"message": "we are down"}')) as server:
        with pytest.raises(GitHubUnavailableError, match="keeps failing: status 503: we are down"):
            rest_at(server, Slept()).get("/a")
        assert len(server.seen) == 5
    with pytest.raises(GitHubUnavailableError, match="failed: connection refused"):
        rest_at(server, Slept()).get("/a")


@pytest.mark.parametrize("reply", [Reply(502), Reply(200, {}, b"{}  ", cut=1)])
def test_what_starts_something_is_sent_once(reply: Reply) -> None:
    """Whether a lost request was carried out cannot be known, so it is not repeated."""
    with answering(reply) as server, pytest.raises(GitHubUnavailableError):
        rest_at(server).post("/a", {})
    assert len(server.seen) == 1


def test_a_short_rate_limit_is_waited_for() -> None:
    """Reading and starting alike: a request that GitHub did not take is sent again when GitHub says."""
    limited = refusal(403, "You have exceeded a secondary rate limit", Retry_After="7")
    for verb in ("get", "post"):
        slept = Slept()
        with answering(limited, limited, json_reply(200, {})) as server:
            assert getattr(rest_at(server, slept), verb)("/a").status == 200
        assert slept.naps == [7.0, 7.0]
        with answering(limited) as server, pytest.raises(RateLimitError):
            getattr(rest_at(server), verb)("/a")
        assert len(server.seen) == 5


def test_a_long_rate_limit_is_an_error_with_its_end() -> None:
    """The time is the server's: a clock that is wrong here does not matter."""
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700003599", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    answer = Response(
        403, headers, b'{"message": "API rate limit exceeded for user ID 1."}', "https://api.github.com/a"
    )
    assert rate_limit_wait_s(answer, now_s=5.0) == 3600.0
    with answering(refusal(403, "limit", Retry_After="3600")) as server, pytest.raises(RateLimitError) as caught:
        rest_at(server).get("/a")
    assert caught.value.until_s == 1_800_003_600.0
    assert "until 09:00:00 UTC, in 60 min" in caught.value.message


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait"),
    [
        (200, {"Retry-After": "5"}, b"{}", None),
        (403, {}, b'{"message": "Resource not accessible by integration"}', None),
        (403, {"X-RateLimit-Remaining": "12", "X-RateLimit-Reset": "9"}, b"{}", None),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "nonsense"}, b"{}", None),
        (403, {}, b'{"message": "You have exceeded a secondary rate limit"}', 60.0),
        (403, {"Retry-After": "-1"}, b"rate limit", None),
        (429, {}, b"", 60.0),
        (429, {"Retry-After": "9" * 40}, b"", 60.0),
        (429, {"Retry-After": "30", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999"}, b"", 30.0),
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}, b"{}", 1.0),
    ],
)
def test_what_is_a_rate_limit(status: int, headers: dict[str, str], body: bytes, wait: float | None) -> None:
    """Told from other refusals by GitHub's rules: header, used-up budget, or the words."""
    assert rate_limit_wait_s(Response(status, headers, body, "https://x"), now_s=100.0) == wait


# -- what is believed


def test_an_answer_without_end_is_left() -> None:
    """More than a page of jobs can be is not read; a compressed answer is not unpacked into one."""
    for status in (200, 302):
        with (
            answering(Reply(status, {"Location": "/b"}, b" " * (RESPONSE_MAX_BYTES + 1))) as server,
            pytest.raises(GitHubError, match="longer than 16 MiB"),
        ):
            rest_at(server).get("/a")
    bomb = gzip.compress(b" " * (RESPONSE_MAX_BYTES * 2))
    with answering(Reply(200, {"Content-Encoding": "gzip"}, bomb)) as server:
        with pytest.raises(GitHubError, match="longer than 16 MiB"):
            rest_at(server).get("/a")
        assert server.seen[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"jobs": []}',
        b'{"total_count": 1, "jobs": [{"id": "1", "name": "x", "status": "queued", "conclusion": null}]}',
        b'{"total_count": 1, "jobs": [{"id": 1, "name": null, "status": "queued", "conclusion": null}]}',
        b'{"total_count": 1, "jobs": [{"id": 1, "name": "x", "status": {"\\u001b[2J": 1}, "conclusion": null}]}',
        b'{"total_count": 1, "jobs": {"\\u001b[2J": 1}}',
    ],
)
def test_an_answer_of_another_shape_is_refused(body: bytes) -> None:
    """Wrong types, missing fields and what is no JSON at all are one error, in printable words."""
    with github() as served:
        served.answer("GET", "/jobs", Reply(200, {}, body))
        with pytest.raises(GitHubError, match="returned an unexpected response") as caught:
            actions_at(served, Slept()).jobs(1)
    assert caught.value.message.isprintable()


def test_messages_are_printable_and_hold_no_token() -> None:
    """What a server says is quoted in one line, without terminal escapes, and never with the token in it."""
    with github() as served:
        served.answer("GET", "/repos", refusal(403, f"\x1b[2J\r\n{'x' * 50}\u2028 you sent {TOKEN} " + "y" * 9999))
        with pytest.raises(RunnableError) as caught:
            actions_at(served, Slept()).default_branch()
    assert TOKEN not in str(caught.value)
    assert "you sent ***" in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 500


def test_all_pages_of_jobs_are_read() -> None:
    """A matrix of more jobs than a page has is followed whole."""
    with github() as served:
        run = served.add_run()
        for i in range(230):
            run.job(f"job {i}")
        assert [job.name for job in actions_at(served, Slept()).jobs(run.id)] == [f"job {i}" for i in range(230)]
        assert served.server.count("GET", "/jobs") == 3


# -- older servers


def test_a_run_that_is_slow_to_be_listed_is_found() -> None:
    """Without the run's number in the answer it is found by its title, among others, once it is listed."""
    with github(kind="ghes-3.17") as served:
        served.add_run(title="Retry r", created_at="2020-01-01T00:00:00Z", status="completed")
        slept = Slept()
        actions = actions_at(served, slept)
        assert actions.default_branch() == "main"
        served.add_run(title="Retry r-2")
        served.add_run(title="Retry my-r")
        assert actions.dispatch("retry.yml", ref="main", inputs={"run-id": "r"}, default_branch="main") is None
        served.seen_after = 3
        found = actions.find("retry.yml", "r", every_s=1.0)
        assert found is not None
        assert served.runs[found.run].title == "Retry r"
        assert slept.naps == [1.0] * 3
        assert found.url == f"{served.page}/actions/runs/{found.run}"


def test_a_run_without_a_telling_title() -> None:
    """A single new run is the one, after some looks; of several none is guessed."""
    with github(kind="ghes-3.17") as served:
        served.workflows["retry.yml"] = "on:\n  workflow_dispatch:\n    inputs:\n      run-id: {}\njobs: {}\n"
        slept = Slept()
        actions = actions_at(served, slept)
        actions.default_branch()
        actions.dispatch("retry.yml", ref="main", inputs={"run-id": "r"}, default_branch="main")
        found = actions.find("retry.yml", "r", every_s=1.0)
        assert found is not None
        assert len(slept.naps) == 6
        served.add_run(title="another")
        assert actions.find("retry.yml", "r", every_s=1.0) is None
        assert sum(slept.naps) < 100


def test_a_server_that_ignores_the_wish_for_details() -> None:
    """An empty 204 to the first request is taken as the start that it is: nothing is started twice."""
    with github() as served:
        actions = actions_at(served, Slept())
        served.answer("POST", "/dispatches", Reply(204))
        assert actions.dispatch("retry.yml", ref="main", inputs={}, default_branch="main") is None
        assert served.server.count("POST") == 1


# -- which repository


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://github.com/owner/repo.git", "owner/repo"),
        ("https://github.com/owner/repo/", "owner/repo"),
        ("https://me:ghp_x@github.com/owner/repo", "owner/repo"),
        ("http://127.0.0.1:8080/owner/repo.git", "127.0.0.1:8080/owner/repo"),
        ("git@github.com:owner/repo.git", "owner/repo"),
        ("github.com:owner/my.repo-1", "owner/my.repo-1"),
        ("ssh://git@github.com/owner/repo.git", "owner/repo"),
        ("ssh://git@ssh.github.com:443/owner/repo.git", "owner/repo"),
        ("ssh://git@ghe.example.org:2222/owner/repo.git", "ghe.example.org/owner/repo"),
        ("git@GHE.example.org:owner/repo", "ghe.example.org/owner/repo"),
        ("https://octo.ghe.com/owner/repo", "octo.ghe.com/owner/repo"),
        ("https://github.com/owner", None),
        ("https://github.com/owner/repo/tree/main", None),
        ("https://github.com/owner/..", None),
        ("https://github.com/owner/a b", None),
        ("https://[/owner/repo", None),
        ("https://github.com:x/owner/repo", None),
        ("/home/me/repo", None),
        ("../owner/repo", None),
        ("file:///owner/repo", None),
        ("ext::sh -c x", None),
        ("", None),
    ],
)
def test_repositories_of_remotes(url: str, expected: str | None) -> None:
    """Https, ssh and the short form; anything else is no repository on a server."""
    found = parse_remote(url)
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/repo", "owner/repo"),
        ("ghe.example.org/owner/repo", "ghe.example.org/owner/repo"),
        ("https://ghe.example.org/owner/repo", "ghe.example.org/owner/repo"),
    ],
)
def test_repositories_by_name(text: str, expected: str) -> None:
    """`--repo` takes what `gh` takes."""
    assert str(parse_repository(text)) == expected


@pytest.mark.parametrize("text", ["repo", "a/b/c/d", "owner/", "/repo", "o/r?x", "../repo", "https://me:secret@x/y"])
def test_names_that_are_no_repositories(text: str) -> None:
    """They reach no URL."""
    with pytest.raises(UsageError) as caught:
        parse_repository(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "environ", "expected"),
    [
        ("github.com", {}, Api("https://api.github.com", is_meant=True)),
        ("octo.ghe.com", {}, Api("https://api.octo.ghe.com", is_meant=True)),
        ("ghe.example.org", {}, Api("https://ghe.example.org/api/v3", is_meant=False)),
        ("github.com", {"GITHUB_API_URL": "https://ghe/api/v3/"}, Api("https://ghe/api/v3", is_meant=True)),
        # A token beside a variable that names a server is that server's, and nobody else's.
        ("github.com", {"GH_HOST": "github.com"}, Api("https://api.github.com", is_meant=True)),
        ("github.com", {"GH_HOST": "octo.ghe.com"}, Api("https://api.github.com", is_meant=False)),
        ("github.com", {"GITHUB_SERVER_URL": "https://ghe"}, Api("https://api.github.com", is_meant=False)),
        ("octo.ghe.com", {"GH_HOST": "octo.ghe.com"}, Api("https://api.octo.ghe.com", is_meant=True)),
        ("octo.ghe.com", {"GH_HOST": "evil.ghe.com"}, Api("https://api.octo.ghe.com", is_meant=False)),
        ("ghe.example.org", {"GH_HOST": "ghe.example.org"}, Api("https://ghe.example.org/api/v3", is_meant=True)),
        ("ghe.example.org", {"GH_HOST": "ghe.other.org"}, Api("https://ghe.example.org/api/v3", is_meant=False)),
    ],
)
def test_where_the_api_is(host: str, environ: dict[str, str], expected: Api) -> None:
    """Of github.com, of a company's part of it, of an enterprise server, or where the environment says."""
    assert api_of(Repository(host, "o", "r"), is_named=False, environ=environ) == expected
    assert api_of(Repository(host, "o", "r"), is_named=True, environ=environ).is_meant


# -- which token

GH = """#!/bin/sh
[ "$*" = "auth token --hostname $EXPECTED" ] && [ -z "$GITHUB_TOKEN$GH_TOKEN$RUNNABLE_CI_GITHUB_TOKEN" ] || exit 1
printf '%b' "$ANSWER"
"""


def gh(tmp_path: Path, host: str, answer: str = "gho_of_gh\\n") -> dict[str, str]:
    """An environment with a `gh` program that is logged in to one host."""
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    return {"PATH": f"{tmp_path}:/bin:/usr/bin", "EXPECTED": host, "ANSWER": answer}


def token(host: str, environ: dict[str, str], *, is_named: bool = False) -> ApiToken:
    repository = Repository(host, "o", "r")
    return find_token(repository, api_of(repository, is_named=is_named, environ=environ), load(environ), environ)


def test_the_order_of_tokens(tmp_path: Path) -> None:
    """Our own variable, `GITHUB_TOKEN`, `GH_TOKEN`, then what `gh` keeps for the host."""
    environ = gh(tmp_path, "github.com")
    given = {"RUNNABLE_CI_GITHUB_TOKEN": "a", "GITHUB_TOKEN": "b", "GH_TOKEN": " c\n"}
    for name, secret in (("RUNNABLE_CI_GITHUB_TOKEN", "a"), ("GITHUB_TOKEN", "b"), ("GH_TOKEN", "c")):
        assert token("github.com", environ | given) == ApiToken(secret, name)
        del given[name]
    assert token("github.com", environ) == ApiToken("gho_of_gh", "gh auth token")
    assert "gho" not in repr(token("github.com", environ))


def test_without_a_token(tmp_path: Path) -> None:
    """No `gh`, one that is not logged in, or one whose answer is no token: how to get one is said."""
    for environ in ({"PATH": "/nowhere"}, gh(tmp_path, "elsewhere")):
        with pytest.raises(RefusedError, match=r"no token for github\.com") as caught:
            token("github.com", environ)
        assert "gh auth login`" in caught.value.hint
    with pytest.raises(RefusedError, match="gh auth token holds no token") as caught:
        token("github.com", gh(tmp_path, "github.com", "two words"))
    assert "two words" not in str(caught.value)
    with pytest.raises(RefusedError, match="GH_TOKEN holds no token"):
        token("github.com", {"GH_TOKEN": "a\nHost: b"})


@pytest.mark.promise
def test_a_server_that_a_clone_names_gets_no_token_unasked(tmp_path: Path) -> None:
    """The remote of a repository that somebody else set up does not decide where the token goes."""
    environ = {"PATH": "/nowhere", "GITHUB_TOKEN": "secret"}
    with pytest.raises(RefusedError, match="GITHUB_TOKEN is not sent there automatically") as caught:
        token("ghe.test", environ)
    assert "--repo ghe.test/o/r, or GITHUB_API_URL=https://ghe.test/api/v3" in caught.value.hint
    assert token("ghe.test", environ, is_named=True).secret == "secret"
    assert token("ghe.test", environ | {"GITHUB_API_URL": "https://ghe.test/api/v3"}).secret == "secret"
    assert token("ghe.test", environ | gh(tmp_path, "ghe.test")).source == "gh auth token"


# -- the stand-in itself


DISPATCHES = "/repos/o/r/actions/workflows/retry.yml/dispatches"


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("POST", DISPATCHES, {}, {"inputs": {}}),
        ("POST", DISPATCHES, {}, {"ref": 1}),
        ("POST", DISPATCHES, {}, {"ref": "main", "inputs": {f"i{i}": "" for i in range(26)}}),
        ("POST", DISPATCHES, {}, {"ref": "main", "inputs": []}),
        ("POST", DISPATCHES + "/x", {}, {"ref": "main"}),
        ("GET", DISPATCHES, {}, None),
        ("GET", "/repos/o/r/actions/runs/five", {}, None),
        ("GET", "/repos/o/r/actions/runs/5/jobs", {"per_page": "many"}, None),
        ("GET", "/repos/o/r/actions/runs/5/jobs", {"filter": "newest"}, None),
    ],
)
def test_github_would_not_take_it(method: str, path: str, query: dict[str, str], body: object) -> None:
    """The description refuses what GitHub does not take: the tests' requests are held to something."""
    with pytest.raises(DescriptionError):
        check("api.github.com", method, path, query=query, body=b"" if body is None else json.dumps(body).encode())


def test_github_would_not_answer_so() -> None:
    """Answers of the stand-in are held to the description, too."""
    body = json.dumps({"ref": "main"}).encode()
    details = {"workflow_run_id": 1, "run_url": "https://x", "html_url": "https://x"}
    check("api.github.com", "POST", DISPATCHES, query={}, body=body, status=204)
    check("api.github.com", "POST", DISPATCHES, query={}, body=body, status=200, answer=json.dumps(details).encode())
    for status, answer in (
        (201, {}),
        (200, {}),
        (200, details | {"workflow_run_id": "1"}),
        (404, ["x"]),
        (404, {"x": 1}),
    ):
        with pytest.raises(DescriptionError):
            encoded = json.dumps(answer).encode()
            check("api.github.com", "POST", DISPATCHES, query={}, body=body, status=status, answer=encoded)
    with pytest.raises(DescriptionError):
        check("ghes-3.17", "POST", DISPATCHES, query={}, body=body, status=200, answer=json.dumps(details).encode())


def test_the_stand_in_fails_the_test_that_misuses_it() -> None:
    """A wrong request is an error of the test, whatever the client makes of the answer."""
    with pytest.raises(AssertionError, match="failures of the stand-in"), github() as served:
        Rest(served.base, KNOWN, environ={}).get("/repos/owner/repo/actions/runs/x")
    with pytest.raises(AssertionError, match="failures of the stand-in"), github(lambda _: str(1 // 0)) as served:
        actions_at(served, Slept()).dispatch("retry.yml", ref="main", inputs={"run-id": "r"}, default_branch="main")


def test_requests_is_not_loaded_for_anything_else() -> None:
    """Finding the repository and the token, which the action does too, does not pay for the client."""
    modules = "runnable_ci.github.api.credentials, runnable_ci.github.api.repository"
    code = f"import sys, {modules}; print('requests' in sys.modules)"
    assert python(code).stdout == "False\n"
