"""A registry as a target, against real docker-registry servers."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from registry_server import (
    AUTHORIZATION,
    PASSWORD,
    USERNAME,
    Reply,
    Seen,
    Served,
    Server,
    TokenIssuer,
    described,
    manifest_of,
    password_registry,
    pushed,
    registry,
    serving,
    tls_registry,
    token_registry,
)

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RegistryAuthError,
    StoreError,
    UsageError,
)
from runnable_ci.store.auth import Challenge, parse_challenge
from runnable_ci.store.reference import Credentials, Reference, find_credentials, parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor, verified
from runnable_ci.util.responses import retry
from runnable_ci.util.urls import proxy_of

KNOWN = Credentials(USERNAME, PASSWORD)
HEX = "a" * 64


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("plain")) as served:
        yield served


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with password_registry(tmp_path_factory.mktemp("locked")) as served:
        yield served


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[tuple[Served, Server, TokenIssuer]]:
    with token_registry(tmp_path / "token") as everything:
        yield everything


def read(target: Registry, descriptor: Descriptor) -> bytes:
    with target.fetch(descriptor) as source:
        return b"".join(verified(source, descriptor, label=target.label))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ghcr.io/o/r/runs", Reference("ghcr.io", "o/r/runs", None)),
        ("ghcr.io/o/r/runs:latest", Reference("ghcr.io", "o/r/runs", "latest")),
        ("ghcr.io/o/r:a.b-c_d", Reference("ghcr.io", "o/r", "a.b-c_d")),
        (f"ghcr.io/o/r@sha256:{HEX}", Reference("ghcr.io", "o/r", f"sha256:{HEX}")),
        (f"ghcr.io/o/r:tag@sha256:{HEX}", Reference("ghcr.io", "o/r", f"sha256:{HEX}")),
        ("localhost:5000/runs:x", Reference("localhost:5000", "runs", "x")),
        ("127.0.0.1:5000/o/a__b/c-d.e:1", Reference("127.0.0.1:5000", "o/a__b/c-d.e", "1")),
        ("[::1]:5000/o/r", Reference("[::1]:5000", "o/r", None)),
    ],
)
def test_a_reference_is_split_into_host_path_and_tag_or_digest(text: str, expected: Reference) -> None:
    """Nothing is guessed: not the host, and not the tag."""
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "runs",
        "owner/runs:tag",
        "ghcr.io",
        "ghcr.io/",
        "http://ghcr.io/o/r",
        "oci://oci://ghcr.io/o/r",
        "https://",
        "file:///o/r",
        "ghcr.io/o/r:",
        "ghcr.io/o/r:-tag",
        "ghcr.io/o/r@sha256:abc",
        "ghcr.io/o/r@md5:" + HEX,
        f"ghcr.io/o/r@sha256:{HEX.upper()}",
        "ghcr.io/../../etc:x",
        "ghcr.io/o//r",
        "ghcr.io/o/r:a b",
        "ghcr.io/o/r:a\nb",
        "ghcr.io/o/r\n",
        "ghcr.io/o/r?x=1",
        "ghcr.io/o/r#x",
        "evil.example\\@ghcr.io/o/r",
        "ghcr.io:port/o/r",
        "-ghcr.io/o/r",
        "ghcr.io/o/" + "r" * 700,
        "ghcr.io/" + "a-" * 250 + "!",
    ],
)
def test_nonsense_is_not_a_reference(text: str) -> None:
    """Whatever does not fit the grammar is refused before it gets near a URL."""
    with pytest.raises(UsageError):
        parse_reference(text)


def test_a_password_in_a_reference_is_not_printed() -> None:
    """The error for `user:password@host/…` names the reference without them."""
    with pytest.raises(UsageError) as caught:
        parse_reference("ada:correct-horse@ghcr.io/o/r")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://reg.test/o/r", Reference("reg.test", "o/r", None)),
        ("HTTPS://reg.test:5000/o/r/", Reference("reg.test:5000", "o/r", None)),
        ("oci://reg.test/o/r:Tag", Reference("reg.test", "o/r", "Tag")),
        (f"docker://reg.test/o/r@sha256:{HEX}", Reference("reg.test", "o/r", f"sha256:{HEX}")),
        ("reg.test/o/r//", Reference("reg.test", "o/r", None)),
        ("Reg.Test/Octo/Repo:x", Reference("reg.test", "octo/repo", "x")),
    ],
)
def test_what_people_write_around_a_reference_is_taken(text: str, expected: Reference) -> None:
    """Another tool's prefix, a slash at the end, capitals of a GitHub name; a tag keeps its own."""
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("http://reg.test/o/r", "--plain-http"),
        ("https://reg.test", "such as reg.test/owner/repo/runs"),
        ("reg.test/.github/runs", "letters and digits"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said(text: str, hint: str) -> None:
    """With the option, the example or the grammar that helps."""
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert hint in (caught.value.hint or "")


def test_what_was_pushed_is_found_by_tag_and_digest(plain: Served) -> None:
    """Push, tag, resolve and fetch give the same bytes back."""
    target = Registry(plain.repository(), environ={})
    big = uuid.uuid4().bytes * 50_000
    manifest = pushed(target, b"{}", b"", big)
    target.tag(manifest, "run-1")
    assert target.resolve("run-1") == target.resolve(manifest.digest) == manifest
    assert [read(target, described(content)) for content in (b"{}", b"", big)] == [b"{}", b"", big]
    assert read(target, manifest) == manifest_of(described(b"{}"), described(b""), described(big))
    assert list(target.tags()) == ["run-1"]
    assert target.exists(described(big))
    assert target.exists(manifest)


def test_what_is_not_there_is_said_so(plain: Served) -> None:
    """A missing tag, blob and repository are three plain answers."""
    target = Registry(plain.repository(), environ={})
    with pytest.raises(ManifestNotFoundError, match="run-1"):
        target.resolve("run-1")
    with pytest.raises(BlobMissingError, match=HEX):
        target.fetch(Descriptor("x", f"sha256:{HEX}", 1))
    assert not target.exists(Descriptor("x", f"sha256:{HEX}", 1))
    assert list(target.tags()) == []


def test_a_tag_can_be_moved_by_another_client(plain: Served) -> None:
    """Tagging needs no memory of the push: the stored manifest is read again."""
    repository = plain.repository()
    first = Registry(repository, environ={})
    old, new = pushed(first, b"{}", b"old"), pushed(first, b"{}", b"new")
    first.tag(old, "latest")
    Registry(repository, environ={}).tag(new, "latest")
    assert first.resolve("latest") == new


def test_a_deleted_manifest_takes_its_tags_along(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """Deleting needs a token of its own, and is no error the second time."""
    target = Registry(tokens[0].repository(), environ={}, credentials=KNOWN)
    kept, gone = pushed(target, b"{}", b"kept"), pushed(target, b"{}", b"gone")
    target.tag(kept, "kept")
    target.tag(gone, "gone")
    target.delete(gone)
    target.delete(gone)
    assert list(target.tags()) == ["kept"]
    with pytest.raises(ManifestNotFoundError):
        target.resolve("gone")


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("fault", ["changed", "shorter", "longer"])
def test_bytes_that_do_not_match_are_not_stored(plain: Served, size: int, fault: str) -> None:
    """A damaged local copy is refused, small or large."""
    target = Registry(plain.repository(), environ={})
    content = uuid.uuid4().bytes * (size // 16 + 1)
    damaged = {"changed": bytes([content[0] ^ 1]) + content[1:], "shorter": content[:-1], "longer": content + b"!"}[
        fault
    ]
    with pytest.raises(BlobCorruptError):
        target.push(described(content), io.BytesIO(damaged))
    assert not target.exists(described(content))


def test_a_manifest_that_does_not_match_is_not_sent(plain: Served) -> None:
    """Manifests are checked here: the registry would store any."""
    target = Registry(plain.repository(), environ={})
    with pytest.raises(BlobCorruptError):
        target.push(described(b"{}", MANIFEST_MEDIA_TYPE), io.BytesIO(b"[]"))


def test_a_manifest_without_its_blobs_is_refused(plain: Served) -> None:
    """The registry's refusal says which side lacks what."""
    raw = manifest_of(described(b"{}"), described(b"not there"))
    target = Registry(plain.repository(), environ={})
    with pytest.raises(BlobMissingError, match="lacks a blob"):
        target.push(described(raw, MANIFEST_MEDIA_TYPE), io.BytesIO(raw))


def test_a_stream_can_start_anywhere(plain: Served) -> None:
    """A consumer that kept a part reads only the rest."""
    target = Registry(plain.repository(), environ={})
    content = uuid.uuid4().bytes * 1000
    target.push(described(content), io.BytesIO(content))
    with target.fetch(described(content)) as source:
        source.seek(15_000)
        assert source.read() == content[15_000:]


def test_a_password_is_sent_when_it_is_asked_for(locked: Served) -> None:
    """Basic authentication works for pushing and pulling."""
    target = Registry(locked.repository(), environ={}, credentials=KNOWN)
    manifest = pushed(target, b"{}", b"secret")
    assert read(target, described(b"secret")) == b"secret"
    assert target.resolve(manifest.digest) == manifest


def test_a_wrong_password_is_an_error_that_does_not_print_it(locked: Served) -> None:
    """The error names the registry and `docker login`, not the password."""
    target = Registry(locked.repository(), environ={}, credentials=Credentials(USERNAME, "wrong-horse"))
    with pytest.raises(RegistryAuthError) as caught:
        target.resolve("latest")
    assert f"docker login {locked.host}" in str(caught.value)
    assert "wrong-horse" not in str(caught.value)


def test_a_refused_password_is_sent_once_by_many_threads(locked: Served) -> None:
    """Whoever comes later gets the same error without a request: the registry may lock the account."""
    with serving(upstream=locked) as proxy:
        wrong = Credentials(USERNAME, "wrong-horse", source="`reg.test` in /x/config.json")
        target = Registry(proxy.repository(), environ={}, credentials=wrong)
        refusals = []
        for jobs in (1, 16):
            with ThreadPoolExecutor(jobs) as pool:
                refusals += [
                    str(future.exception()) for future in [pool.submit(target.resolve, "x") for _ in range(jobs)]
                ]
    assert len({*refusals}) == 1
    assert "refuses these credentials (`reg.test` in /x/config.json) to owner/repo" in refusals[0]
    assert [seen.path for seen in proxy.seen if seen.authorization][1:] == ["/v2/"]


def test_a_request_that_a_good_password_may_not_make_closes_no_other(locked: Served) -> None:
    """Some registries refuse by the same status to show what there is not yet."""

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        hidden = seen.authorization and seen.path.endswith("/none")
        return Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}) if hidden else forward()

    with serving(hook, upstream=locked) as proxy:
        target = Registry(proxy.repository(), environ={}, credentials=KNOWN)
        with pytest.raises(RegistryAuthError):
            target.resolve("none")
        with pytest.raises(ManifestNotFoundError):
            target.resolve("other")


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refused_login_is_tried_once_by_many_threads(status: int) -> None:
    """The token server that refused it is not asked again by any thread, for reading and for writing each."""
    with serving(lambda _, __: Reply(status)) as tokens:
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{tokens.host}/token",service="s"'}
        with serving(lambda _, __: Reply(401, challenge)) as server:
            target = Registry(server.repository(), environ={}, credentials=KNOWN)
            target_of = [lambda: target.resolve("x", to_write=True)] * 16
            with ThreadPoolExecutor(16) as pool:
                errors = [future.exception() for future in [pool.submit(each) for each in target_of]]
    assert {type(error) for error in errors} == {RegistryAuthError}
    assert len(tokens.seen) == 1


def test_no_password_is_an_error_with_what_to_do(locked: Served) -> None:
    """Anonymous access to a closed registry says how to log in."""
    with pytest.raises(RegistryAuthError, match="refuses anonymous access"):
        Registry(locked.repository(), environ={}).resolve("latest")


def test_docker_login_is_enough(locked: Served, tmp_path: Path) -> None:
    """What `docker login` wrote is used, and only for that registry."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {locked.host: {"auth": AUTHORIZATION.split()[1]}}}))
    target = Registry(locked.repository(), environ={"DOCKER_CONFIG": str(tmp_path)})
    assert list(target.tags()) == []
    assert find_credentials("ghcr.io", {"DOCKER_CONFIG": str(tmp_path)}) is None


@pytest.mark.parametrize(
    ("host", "config"),
    [
        ("ghcr.io", {"auths": {"https://ghcr.io": {"auth": base64.b64encode(b"ada:pa:ss").decode()}}}),
        ("ghcr.io", {"auths": {"ghcr.io": {"username": "ada", "password": "pa:ss"}}}),
        ("docker.io", {"auths": {"https://index.docker.io/v1/": {"auth": base64.b64encode(b"ada:pa:ss").decode()}}}),
    ],
)
def test_all_spellings_of_dockers_configuration_are_read(tmp_path: Path, host: str, config: object) -> None:
    """Keys with a scheme, entries with plain fields, and docker.io's historic key."""
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    found = find_credentials(host, {"HOME": str(tmp_path)})
    assert found == Credentials("ada", "pa:ss")
    assert "pa:ss" not in repr(found)


def test_a_credential_helper_is_asked(tmp_path: Path) -> None:
    """docker's helper programs work, for the registry that they are configured for."""
    helper = tmp_path / "docker-credential-test"
    helper.write_text('#!/bin/sh\nread host\necho "{\\"Username\\": \\"ada\\", \\"Secret\\": \\"for-$host\\"}"\n')
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"reg.test": "test"}}))
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.defpath}"}
    assert find_credentials("reg.test", environ) == Credentials("ada", "for-reg.test")
    assert find_credentials("other.test", environ) is None


def test_a_login_for_one_path_is_for_that_path(locked: Served, tmp_path: Path) -> None:
    """Another path's login, which would be refused, is not sent, wherever it stands in the file."""
    wrong = {"auth": base64.b64encode(b"eve:wrong").decode()}
    auths = {f"{locked.host}/other": wrong, locked.host: {"auth": AUTHORIZATION.split()[1] + "\n"}}
    for entries in (auths, dict(reversed(auths.items()))):
        (tmp_path / "config.json").write_text(json.dumps({"auths": entries}))
        assert list(Registry(locked.repository(), environ={"DOCKER_CONFIG": str(tmp_path)}).tags()) == []
        with pytest.raises(RegistryAuthError, match="refuses these credentials"):
            list(Registry(f"{locked.host}/other/r", environ={"DOCKER_CONFIG": str(tmp_path)}).tags())


def test_a_damaged_docker_configuration_is_named(tmp_path: Path) -> None:
    """Guessing "anonymous" from a broken file would end in a misleading refusal."""
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RegistryAuthError, match=r"config\.json"):
        find_credentials("ghcr.io", {"DOCKER_CONFIG": str(tmp_path)})


def test_the_jobs_token_is_for_ghcr_only() -> None:
    """`GITHUB_TOKEN` is never offered to another registry."""
    environ = {"GITHUB_TOKEN": "ghs_x", "GITHUB_ACTOR": "octocat"}
    assert find_credentials("ghcr.io", environ) == Credentials("octocat", "ghs_x")
    for host in ("ghcr.io.evil.test", "evil.test", "docker.io", "ghcr.io:444", "127.0.0.1:5000"):
        assert find_credentials(host, environ) is None


@pytest.mark.parametrize(
    "variables",
    [
        {"GH_HOST": "acme.ghe.com"},
        {"GITHUB_SERVER_URL": "https://ghe.example.org"},
        {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://codeberg.org"},
    ],
)
def test_the_token_of_another_server_is_for_no_registry(tmp_path: Path, variables: Mapping[str, str]) -> None:
    """`ghcr.io` is github.com's; a login that is docker's own for it still counts."""
    environ = {"GITHUB_TOKEN": "ghs_x", "GITHUB_ACTOR": "octocat", **variables}
    for host in ("ghcr.io", "containers.acme.ghe.com", "ghe.example.org", "codeberg.org"):
        assert find_credentials(host, environ) is None
    login = {"auths": {"ghcr.io": {"username": "ada", "password": "own"}}}
    (tmp_path / "config.json").write_text(json.dumps(login))
    assert find_credentials("ghcr.io", {**environ, "DOCKER_CONFIG": str(tmp_path)}) == Credentials("ada", "own")


def test_netrc_is_not_read(locked: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `~/.netrc` neither logs in nor gets in the way."""
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USERNAME} password {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(RegistryAuthError):
        list(Registry(locked.repository(), environ={}).tags())


def test_a_token_for_pulling_is_upgraded_for_pushing(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """One token for looking, one for pushing, none more for anything after it."""
    served, server, _ = tokens
    with serving(upstream=served) as proxy:
        target = Registry(proxy.repository(), environ={}, credentials=KNOWN)
        with pytest.raises(ManifestNotFoundError):
            target.resolve("latest")
        manifest = pushed(target, b"{}", b"one", b"two")
        target.tag(manifest, "latest")
        assert target.resolve("latest") == manifest
        assert proxy.count("POST") == 3
    scopes = [seen.path.split("scope=")[1].rpartition("%3A")[2] for seen in server.seen]
    assert scopes == ["pull", "pull%2Cpush"]


def test_an_expired_token_is_renewed(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """A token that the registry no longer takes is replaced by a new one, once."""
    served, server, issuer = tokens
    target = Registry(served.repository(), environ={}, credentials=KNOWN, sleep=lambda _: None)
    issuer.expired = 1
    content = uuid.uuid4().bytes * 100_000
    target.push(described(content), io.BytesIO(content))
    assert target.exists(described(content))
    assert len(server.seen) == 2


def test_a_token_is_renewed_before_it_expires(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """A token near its end is not used for one more request."""
    served, server, _ = tokens
    now = [1000.0]
    target = Registry(served.repository(), environ={}, credentials=KNOWN, clock=lambda: now[0])
    list(target.tags())
    now[0] += 295
    list(target.tags())
    assert len(server.seen) == 2


def test_a_registry_behind_another_name_says_what_its_tokens_are_for() -> None:
    """The challenge's own resource is asked for, with the actions that we need; ours where it names none."""
    asked = []

    def hook(seen: Seen, _: object) -> Reply:
        if seen.path.startswith("/token"):
            asked.append(parse_qs(urlsplit(seen.path).query)["scope"][0])
            return Reply(200, {}, b'{"token": "t"}')
        if seen.authorization != "Bearer t":
            resource = "aws" if "public" in seen.path else "repository:inside/o/r:pull"
            challenge = f'Bearer realm="http://{server.host}/token",service="s",scope="{resource}"'
            return Reply(401, {"WWW-Authenticate": challenge})
        return Reply(200, {}, b'{"tags": ["a"]}') if seen.method == "GET" else Reply(404)

    with serving(hook) as server:
        for name in ("vanity/r", "public/r"):
            target = Registry(f"{server.host}/{name}", environ={}, credentials=KNOWN)
            assert list(target.tags()) == ["a"]
            with pytest.raises(ManifestNotFoundError):
                target.resolve("none", to_write=True)
    inside, public = "repository:inside/o/r", "repository:public/r"
    assert asked == [f"{inside}:pull", f"{inside}:pull,push", f"{public}:pull", f"{public}:pull,push"]


def test_many_threads_share_one_token(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """Eight workers that meet the first challenge together ask for one token."""
    served, server, _ = tokens
    target = Registry(served.repository(), environ={}, credentials=KNOWN)
    with ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(target.exists, [Descriptor("x", f"sha256:{HEX}", 1)] * 32))
    assert len(server.seen) == 1


def test_a_token_server_that_refuses_is_an_auth_error(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """Wrong credentials at the token server are reported as such."""
    served, _, _ = tokens
    with pytest.raises(RegistryAuthError, match="who are you"):
        Registry(served.repository(), environ={}, credentials=Credentials("eve", "x")).resolve("latest")


@pytest.mark.parametrize("credentials", [Credentials("eve", "x"), Credentials("", "", identity_token="stale")])
def test_refused_credentials_do_not_close_what_everybody_may_read(tmp_path: Path, credentials: Credentials) -> None:
    """Reading is tried without them, once they were refused; writing is not."""
    with token_registry(tmp_path, anonymous=True) as (served, server, issuer):
        repository = served.repository()
        manifest = pushed(Registry(repository, environ={}, credentials=KNOWN), b"{}", b"content")

        def refuse_forms(seen: Seen, forward: Callable[[], Reply]) -> Reply:
            return Reply(403, {}, b'{"errors": [{"code": "DENIED"}]}') if seen.body else issuer.hook(seen, forward)

        server.hook = refuse_forms
        server.seen.clear()
        target = Registry(repository, environ={}, credentials=credentials)
        assert target.resolve(manifest.digest) == manifest
        assert read(target, described(b"content")) == b"content"
        first, second = server.seen
        assert first.authorization or b"stale" in first.body
        assert not second.authorization
        assert not second.body
        with pytest.raises(RegistryAuthError, match="refuses these credentials"):
            pushed(target, b"{}", b"more")
        assert target.resolve(manifest.digest) == manifest
        assert not any("push" in seen.path for seen in server.seen if not seen.authorization)


def test_what_nobody_may_read_is_refused_with_both_tries_named(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """Both are asked for once: what was refused is not tried again."""
    served, server, _ = tokens
    target = Registry(served.repository(), environ={}, credentials=Credentials("eve", "x"))
    for requests in (2, 0):
        server.seen.clear()
        with pytest.raises(RegistryAuthError, match="refuses these credentials, and anonymous access, to owner/repo"):
            target.resolve("latest")
        assert len(server.seen) == requests


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_opens_nothing_is_left_away_for_reading(status: int) -> None:
    """A server may give credentials a token, and let it in nowhere: single sign-on is missing, for example."""
    content = manifest_of(described(b"{}"))

    def answer(seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        if "/token" in seen.path:
            return Reply(200, {}, json.dumps({"token": "known" if seen.authorization else "anybody"}).encode())
        if seen.authorization == "Bearer anybody" and seen.method != "POST":
            found = {"Content-Type": MANIFEST_MEDIA_TYPE, "Docker-Content-Digest": described(content).digest}
            return Reply(200, found, content)
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token",service="x"'}
        return Reply(status if seen.authorization else 401, challenge, b"{}")

    with serving(answer) as server:
        target = Registry(server.repository(), environ={}, credentials=KNOWN)
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(target.resolve, ["latest"] * 8))
        assert {manifest.digest for manifest in found} == {described(content).digest}
        server.seen.clear()
        target.resolve("latest")
        assert [seen.authorization for seen in server.seen] == ["Bearer anybody"]
        with pytest.raises(RegistryAuthError):
            target.push(described(b"new"), io.BytesIO(b"new"))
        assert all(seen.authorization in (AUTHORIZATION, "Bearer known") for seen in server.seen[1:])


def test_a_rate_limit_is_no_refusal() -> None:
    """A 403 that says when to come again is waited for, with the same credentials."""
    content = manifest_of(described(b"{}"))
    refusals = [Reply(403, {"Retry-After": "3"}, b"{}")]

    def answer(seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        if "/token" in seen.path:
            return Reply(200, {}, b'{"token": "known"}')
        if not seen.authorization:
            return Reply(401, {"WWW-Authenticate": f'Bearer realm="http://{server.host}/token",service="x"'}, b"{}")
        found = {"Content-Type": MANIFEST_MEDIA_TYPE, "Docker-Content-Digest": described(content).digest}
        return refusals.pop() if refusals else Reply(200, found, content)

    naps: list[float] = []
    with serving(answer) as server:
        target = Registry(server.repository(), environ={}, credentials=KNOWN, sleep=naps.append)
        assert target.resolve("latest").digest == described(content).digest
        asked = [seen for seen in server.seen if "/token" in seen.path]
    assert naps == [3.0]
    assert [seen.authorization for seen in asked] == [AUTHORIZATION]


def test_anybody_may_pull_where_the_registry_lets_them(tmp_path: Path) -> None:
    """Anonymous pulls get an anonymous token; anonymous pushes get an error."""
    with token_registry(tmp_path, anonymous=True) as (served, _, _):
        repository = served.repository()
        manifest = pushed(Registry(repository, environ={}, credentials=KNOWN), b"{}")
        anonymous = Registry(repository, environ={})
        assert anonymous.resolve(manifest.digest) == manifest
        with pytest.raises(RegistryAuthError, match="anonymous access"):
            anonymous.push(described(b"x"), io.BytesIO(b"x"))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="test"', Challenge("basic", "test", "")),
        (
            'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:o/r:pull"',
            Challenge("bearer", "https://ghcr.io/token", "ghcr.io", "repository:o/r"),
        ),
        ('Bearer realm="https://t",service="s",scope="aws"', Challenge("bearer", "https://t", "s")),
        ('Bearer realm="https://t",scope="repository:a/../b?x:pull"', Challenge("bearer", "https://t", "")),
        (
            'Bearer realm="https://t",scope="repository(plugin):real/o/r:pull,push"',
            Challenge("bearer", "https://t", "", "repository(plugin):real/o/r"),
        ),
        ('Basic realm="b", Bearer realm="https://t/x", service=s', Challenge("bearer", "https://t/x", "s")),
        ('bearer service="a Basic day", realm="https://t"', Challenge("bearer", "https://t", "a Basic day")),
        ('Bearer realm="https://t/a, Basic b", service="x"', Challenge("bearer", "https://t/a, Basic b", "x")),
        ('Bearer service="", realm="https://t"', Challenge("bearer", "https://t", "")),
        ('Negotiate, Digest realm="x"', None),
        ("", None),
    ],
)
def test_challenges_are_read(header: str, expected: Challenge | None) -> None:
    """The strongest scheme that we speak, with its own parameters."""
    assert parse_challenge(header) == expected


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_private_authority_is_trusted_by_the_usual_variables(tmp_path: Path, variable: str) -> None:
    """TLS with a company's own certificate needs one variable, and is refused without it."""
    with tls_registry(tmp_path) as served:
        target = Registry(served.repository(), environ={variable: str(served.ca_file)})
        manifest = pushed(target, b"{}")
        assert target.resolve(manifest.digest) == manifest
        with pytest.raises(StoreError, match="SSL_CERT_FILE"):
            Registry(served.repository(), environ={}, sleep=lambda _: None).resolve("latest")


def test_a_missing_authority_file_is_named() -> None:
    """A variable that names no file is an error about that variable."""
    with pytest.raises(UsageError, match="SSL_CERT_FILE names /nowhere"):
        Registry("reg.invalid/o/r", environ={"SSL_CERT_FILE": "/nowhere"}).resolve("latest")


def test_proxies_are_used(plain: Served) -> None:
    """`HTTP_PROXY` carries the requests, with the registry's name in them."""
    with serving(upstream=plain) as proxy:
        name = f"registry.test/o/r-{uuid.uuid4().hex[:8]}"
        target = Registry(name, environ={"http_proxy": f"http://{proxy.host}"}, plain_http=True)
        assert list(target.tags()) == []
        assert proxy.seen[0].path.startswith("http://registry.test/v2/")


def test_no_proxy_excludes_hosts() -> None:
    """`NO_PROXY` is honoured, with and without ports and for subdomains."""
    environ = {"HTTPS_PROXY": "proxy.test:3128", "NO_PROXY": "localhost,.corp.test"}
    assert proxy_of("https://ghcr.io", environ) == "http://proxy.test:3128"
    assert proxy_of("https://reg.corp.test:5000", environ) is None
    assert proxy_of("http://ghcr.io", environ) is None


def test_a_refused_connection_is_named_in_our_words() -> None:
    """Where no registry listens the host is named, and nothing of a library's insides."""
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StoreError) as caught:
            Registry(f"{host}/o/r", environ={}, sleep=lambda _seconds: None).resolve("latest")
    assert caught.value.message == f"connection refused by {host}"
    assert caught.value.hint.startswith("check that it is running, and the port")


def test_plain_http_is_for_this_machine_only(plain: Served) -> None:
    """Another host is spoken to by https, whatever it answers."""
    seen: list[float] = []
    target = Registry("reg.invalid:1/o/r", environ={}, sleep=seen.append)
    with pytest.raises(StoreError, match=r"https://reg\.invalid:1/"):
        target.resolve("latest")
    assert len(seen) == 4
    assert Registry(plain.repository(), environ={}).exists(Descriptor("x", f"sha256:{HEX}", 1)) is False


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204])
def test_any_success_is_one(status: int) -> None:
    """Registries choose between 200, 201, 202 and 204 as they like, at each step of a push and for a removal."""

    def hook(seen: Seen, _: object) -> Reply:
        begun = seen.method == "POST" and status == 201
        return Reply(status, {} if begun else {"Location": "/v2/upload"})

    content, raw = b"x" * 10, manifest_of(described(b"{}"))
    with serving(hook) as server:
        target = Registry(server.repository(), environ={})
        target.push(described(content), io.BytesIO(content))
        target.push(described(raw, MANIFEST_MEDIA_TYPE), io.BytesIO(raw))
        target.tag(described(raw, MANIFEST_MEDIA_TYPE), "run-1")
        target.delete(described(raw, MANIFEST_MEDIA_TYPE))
    uploads = ["POST"] if status == 201 else ["POST", "PUT"]
    assert [seen.method for seen in server.seen] == [*uploads, "PUT", "PUT", "DELETE"]


@pytest.mark.parametrize("code", ["BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UNKNOWN"])
def test_an_upload_that_the_registry_has_lost_is_begun_anew(plain: Served, code: str) -> None:
    """Each registry has its own code for a session that is gone."""
    lost = [Reply(404, {}, json.dumps({"errors": [{"code": code}]}).encode())]
    content = uuid.uuid4().bytes

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return lost.pop() if lost and seen.method == "PUT" else forward()

    with serving(hook, upstream=plain) as proxy:
        target = Registry(proxy.repository(), environ={}, sleep=lambda _: None)
        target.push(described(content), io.BytesIO(content))
        assert read(target, described(content)) == content
        assert proxy.count("POST") == 2


def test_pages_of_tags_are_followed(plain: Served) -> None:
    """All tags come, each once, however many pages the registry makes of them."""
    pages = {"": ["a", "b"], "b": ["c", "b"], "c": ["d"]}

    def hook(seen: Seen, _: object) -> Reply:
        last = seen.path.partition("last=")[2]
        after = {"": "b", "b": "c", "c": None}[last]
        path = seen.path.partition("?")[0]
        link = {"Link": f'<{path}?n=2&last={after}>; rel="next"'} if after else {}
        return Reply(200, link, json.dumps({"name": "x", "tags": pages[last]}).encode())

    with serving(hook) as server:
        assert list(Registry(server.repository(), environ={}).tags()) == ["a", "b", "c", "d"]


def test_waiting_grows_and_ends() -> None:
    """Five tries, with waits that grow and differ, then the error."""
    waits: list[float] = []
    target = Registry("127.0.0.1:9/o/r", environ={}, sleep=waits.append)
    with pytest.raises(StoreError, match="then run the same command"):
        target.resolve("latest")
    assert len(waits) == 4
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, [(0.5, 1), (1, 2), (2, 4), (4, 8)], strict=True))
    assert retry(lambda: 7, sleep=waits.append) == 7


def test_a_blob_is_taken_over_by_a_token_for_both_repositories(tokens: tuple[Served, Server, TokenIssuer]) -> None:
    """The token that writes to one repository may read the other one; what that has not is not taken over."""
    served, server, _ = tokens
    source, target = (Registry(served.repository(), environ={}, credentials=KNOWN) for _ in range(2))
    source.push(described(b"content"), io.BytesIO(b"content"))
    server.seen.clear()
    blobs = [described(b"content"), described(b"not there")]
    assert target.mount(blobs, parse_reference(source.label)) == blobs[:1]
    assert any(seen.path.count("scope=") == 2 for seen in server.seen)
    assert read(target, blobs[0]) == b"content"
    assert not target.exists(blobs[1])
