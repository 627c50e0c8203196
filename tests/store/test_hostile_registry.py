"""What a hostile or broken registry may try; each case against a server that does it."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from registry_server import (
    AUTHORIZATION,
    PASSWORD,
    USERNAME,
    Reply,
    Seen,
    Server,
    described,
    manifest_of,
    serving,
    tls_server,
)

from runnable_ci.errors import (
    BlobCorruptError,
    RegistryAuthError,
    RegistryProtocolError,
    RunnableError,
    StoreError,
    UsageError,
)
from runnable_ci.store.copy import copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import Credentials
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor, verified

Answer = Callable[[Seen], Reply | None]
KNOWN = Credentials(USERNAME, PASSWORD)
BLOB = os.urandom(300_000)
RAW = manifest_of(described(b"{}"), described(BLOB))
MANIFEST = described(RAW, MANIFEST_MEDIA_TYPE)
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}


def registry_with(answer: Answer) -> Callable[[Seen, object], Reply]:
    """A hook for a registry that holds one run, except where `answer` has something else to say."""

    def hook(seen: Seen, _: object) -> Reply:
        reply = answer(seen)
        if reply is not None:
            return reply
        if "/manifests/" in seen.path:
            return Reply(200, {"Content-Type": MANIFEST_MEDIA_TYPE, "Docker-Content-Digest": MANIFEST.digest}, RAW)
        for content in (BLOB, b"{}"):
            if seen.path.endswith(described(content).digest):
                return Reply(200, {}, content)
        return Reply(404)

    return hook


def blob_reply(reply: Reply) -> Answer:
    return lambda seen: reply if described(BLOB).digest in seen.path else None


def manifest_reply(reply: Reply) -> Answer:
    return lambda seen: reply if "/manifests/" in seen.path else None


def registry_at(server: Server, *, credentials: Credentials | None = None) -> Registry:
    return Registry(server.repository(), environ={}, credentials=credentials, sleep=lambda _: None)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Layout]:
    """A local store; whatever happens, no file appears outside it and nothing unfinished stays in it."""
    layout = Layout(tmp_path / "store")
    layout.create()
    yield layout
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    blobs = {path.name for path in (tmp_path / "store" / "blobs" / "sha256").iterdir()}
    assert blobs <= {described(content).hex for content in (BLOB, b"{}", RAW)}


def test_the_honest_answers_are_accepted(here: Layout) -> None:
    """The other tests fail for their one lie, not for the server."""
    with serving(registry_with(lambda _: None)) as server:
        copy(registry_at(server), "run", here)
    assert here.resolve("run").digest == MANIFEST.digest


@pytest.mark.promise
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(blob_reply(Reply(200, {}, bytes([BLOB[0] ^ 1]) + BLOB[1:])), id="tampered"),
        pytest.param(blob_reply(Reply(200, {}, BLOB[:-1])), id="truncated"),
        pytest.param(blob_reply(Reply(200, {}, BLOB[:-1], chunked=True)), id="truncated, of unknown length"),
        pytest.param(blob_reply(Reply(200, {}, BLOB + b"!")), id="oversized"),
        pytest.param(blob_reply(Reply(200, {}, BLOB * 20, chunked=True)), id="oversized, of unknown length"),
        pytest.param(blob_reply(Reply(200, {}, b"")), id="empty"),
        pytest.param(blob_reply(Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(BLOB))), id="gzip"),
        pytest.param(blob_reply(Reply(200, {"Content-Encoding": "gzip"}, BLOB)), id="not even gzip"),
        pytest.param(blob_reply(Reply(206, {"Content-Range": "bytes 5-9/10"}, BLOB)), id="another part"),
        pytest.param(blob_reply(Reply(206, {}, BLOB[:-1])), id="some part"),
        pytest.param(manifest_reply(Reply(200, {"Content-Type": "text/html"}, b"<html>")), id="a login page"),
        pytest.param(
            manifest_reply(
                Reply(
                    200,
                    {"Content-Type": MANIFEST_MEDIA_TYPE, "Docker-Content-Digest": MANIFEST.digest},
                    RAW.replace(b"sha256", b"sha257"),
                )
            ),
            id="tampered manifest",
        ),
    ],
)
def test_content_that_is_not_what_was_asked_for_is_refused(here: Layout, answer: Answer) -> None:
    """Nothing of it stays in the store, and the tag is not set."""
    with serving(registry_with(answer)) as server, pytest.raises(StoreError):
        copy(registry_at(server), "run", here)
    assert list(here.tags()) == []
    assert not here.exists(described(BLOB))


def served_manifest(raw: bytes) -> Answer:
    digest = described(raw).digest
    return manifest_reply(Reply(200, {"Content-Type": MANIFEST_MEDIA_TYPE, "Docker-Content-Digest": digest}, raw))


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../evil", "../evil", "sha256:" + "A" * 64, "sha512:" + "a" * 128, ""]
)
def test_evil_digests_in_a_manifest_reach_no_path_and_no_url(here: Layout, digest: str) -> None:
    """A manifest whose own digest is right may still name what is no digest."""
    raw = RAW.replace(described(BLOB).digest.encode(), digest.encode())
    with serving(registry_with(served_manifest(raw))) as server, pytest.raises(BlobCorruptError):
        copy(registry_at(server), "run", here)
    assert all("/manifests/" in seen.path for seen in server.seen)


def test_a_digest_is_pinned(here: Layout) -> None:
    """A registry that answers a digest with another manifest is caught."""
    asked = described(b"another manifest", MANIFEST_MEDIA_TYPE)
    with serving(registry_with(lambda _: None)) as server, pytest.raises(BlobCorruptError, match=r"returned .* for"):
        copy(registry_at(server), asked.digest, here)


def test_a_huge_manifest_is_not_read(here: Layout) -> None:
    """300 MiB are refused at their announcement."""
    reply = Reply(
        200,
        {
            "Content-Type": MANIFEST_MEDIA_TYPE,
            "Docker-Content-Digest": MANIFEST.digest,
            "Content-Length": str(300 * 2**20),
        },
    )
    with serving(registry_with(manifest_reply(reply))) as server, pytest.raises(BlobCorruptError, match="4 MiB"):
        copy(registry_at(server), "run", here)
    assert [seen.method for seen in server.seen] == ["HEAD"]


def test_a_huge_manifest_of_unknown_size_is_not_kept(here: Layout) -> None:
    """Where HEAD tells nothing, reading stops past 4 MiB."""
    reply = Reply(200, {"Content-Type": MANIFEST_MEDIA_TYPE}, b" " * 9_000_000, chunked=True)
    with serving(registry_with(manifest_reply(reply))) as server, pytest.raises(BlobCorruptError, match="4 MiB"):
        copy(registry_at(server), "run", here)


def test_a_registry_whose_head_tells_no_digest_works(here: Layout) -> None:
    """The digest is then that of the bytes."""
    reply = Reply(200, {"Content-Type": MANIFEST_MEDIA_TYPE}, RAW)
    with serving(registry_with(manifest_reply(reply))) as server:
        assert copy(registry_at(server), "run", here).manifest == MANIFEST


def test_a_connection_that_always_breaks_is_given_up(here: Layout) -> None:
    """Truncation by hanging up is tried again a bounded number of times."""
    answer = blob_reply(Reply(200, {"Content-Length": str(len(BLOB))}, b"", cut=0))
    with serving(registry_with(answer)) as server, pytest.raises(StoreError, match="0 of 300000 bytes"):
        copy(registry_at(server), "run", here)
    assert server.count("GET", described(BLOB).digest) <= 6


@pytest.mark.promise
def test_a_redirect_gets_no_credentials(here: Layout) -> None:
    """Blob storage on another host sees the request without the password."""
    with serving(lambda _, __: Reply(200, {}, BLOB)) as storage:

        def answer(seen: Seen) -> Reply | None:
            if seen.authorization != AUTHORIZATION:
                return Reply(401, BASIC)
            return blob_reply(Reply(307, {"Location": f"http://{storage.host}/blob?sig=x"}))(seen)

        with serving(registry_with(answer)) as server:
            copy(registry_at(server, credentials=KNOWN), "run", here)
    assert [seen.path for seen in storage.seen] == ["/blob?sig=x"]
    assert storage.seen[0].authorization == ""
    assert here.exists(described(BLOB))


def test_another_host_that_asks_for_credentials_gets_none(here: Layout) -> None:
    """A 401 from where a redirect leads is a failure, not a challenge."""
    with serving(lambda _, __: Reply(401, BASIC)) as storage:
        answer = blob_reply(Reply(302, {"Location": f"http://{storage.host}/blob?sig=secret"}))
        with serving(registry_with(answer)) as server, pytest.raises(StoreError) as caught:
            copy(registry_at(server, credentials=KNOWN), "run", here)
    assert all(seen.authorization == "" for seen in storage.seen)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "location",
    [
        "http://storage.test/x",
        "http://169.254.169.254/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "//",
        "http://",
        "",
    ],
)
def test_a_redirect_leads_to_http_servers_only(here: Layout, location: str) -> None:
    """Not to plain http on other machines, not to files, not nowhere."""
    answer = blob_reply(Reply(307, {"Location": location}))
    with serving(registry_with(answer)) as server, pytest.raises(RunnableError):
        copy(registry_at(server), "run", here)
    assert not here.exists(described(BLOB))


def test_a_redirect_loop_ends(here: Layout) -> None:
    """After five hops it is an error."""
    answer = blob_reply(Reply(307, {"Location": f"?again={described(BLOB).digest}"}))
    with serving(registry_with(answer)) as server, pytest.raises(RegistryProtocolError, match="in a loop"):
        copy(registry_at(server), "run", here)
    assert server.count("GET", described(BLOB).digest) == 6


@pytest.mark.parametrize("what", ["a redirect", "an upload", "a token server"])
def test_https_does_not_step_down(tmp_path: Path, what: str) -> None:
    """A registry behind TLS cannot send its client to plain http, not even on this machine."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving(lambda _, __: Reply(200, {}, b'{"token": "x"}')) as lower:
        down = f"http://{lower.host}/x"
        reply = {
            "a redirect": Reply(307, {"Location": down}),
            "an upload": Reply(202, {"Location": down}),
            "a token server": Reply(401, {"WWW-Authenticate": f'Bearer realm="{down}"'}),
        }[what]
        with serving(lambda _, __: reply) as server:
            host = tls_server(server, authority)
            environ = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
            target = Registry(f"{host}/o/r", environ=environ, credentials=KNOWN, sleep=lambda _: None)
            with pytest.raises(RegistryProtocolError, match="not https"):
                if what == "an upload":
                    target.push(described(BLOB), io.BytesIO(BLOB))
                else:
                    target.resolve("run")
    assert len(server.seen) == 1
    assert lower.seen == []


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_a_challenge_from_elsewhere_is_not_answered(here: Layout, scheme: str) -> None:
    """Where a redirect leads cannot ask for the registry's credentials, or say where to take them."""

    def elsewhere(seen: Seen, _: object) -> Reply:
        return Reply(401, {"WWW-Authenticate": f'{scheme} realm="http://{seen.headers["Host"]}/token"'})

    with serving(elsewhere) as storage:
        answer = blob_reply(Reply(307, {"Location": f"http://{storage.host}/blob"}))
        with serving(registry_with(answer)) as server:
            source = registry_at(server, credentials=KNOWN)
            with pytest.raises(StoreError):
                copy(source, "run", here)
            assert source.exists(described(b"{}"))
    assert {(seen.path, seen.authorization) for seen in storage.seen} == {("/blob", "")}


@pytest.mark.parametrize("other_host", [False, True])
def test_an_upload_elsewhere_gets_no_credentials(other_host: bool) -> None:
    """The location of an upload may be on another host; the password stays."""
    with serving(lambda _, __: Reply(201)) as elsewhere:

        def hook(seen: Seen, _: object) -> Reply:
            if seen.authorization != AUTHORIZATION:
                return Reply(401, BASIC)
            place = f"http://{elsewhere.host}/up?state=1" if other_host else "/v2/up"
            return Reply(202, {"Location": place}) if seen.method == "POST" else Reply(201)

        with serving(hook) as server:
            registry_at(server, credentials=KNOWN).push(described(BLOB), io.BytesIO(BLOB))
    if other_host:
        assert [(seen.path, seen.authorization) for seen in elsewhere.seen] == [
            (f"/up?state=1&digest={described(BLOB).digest}", "")
        ]
        assert elsewhere.seen[0].body == BLOB
    else:
        assert server.seen[-1].path == f"/v2/up?digest={described(BLOB).digest}"


@pytest.mark.parametrize("location", ["", "http://storage.test/x", "file:///tmp/x", "http://[", "gopher://127.0.0.1/"])
def test_an_upload_goes_to_allowed_places_only(location: str) -> None:
    """No content is sent to plain http elsewhere, or to where no URL leads."""
    with (
        serving(lambda _, __: Reply(202, {"Location": location} if location else {})) as server,
        pytest.raises(RunnableError),
    ):
        registry_at(server).push(described(BLOB), io.BytesIO(BLOB))
    assert [seen.method for seen in server.seen] == ["POST"]


@pytest.mark.parametrize("realm", ["http://tokens.test/", "file:///x", "", "//x", "https://", "http://[", "http://x:y"])
def test_a_token_server_must_be_https(realm: str) -> None:
    """A realm on plain http elsewhere never sees the password."""
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}
    with serving(lambda _, __: Reply(401, challenge)) as server, pytest.raises((StoreError, UsageError)):
        registry_at(server, credentials=KNOWN).resolve("run")
    assert len(server.seen) == 1


def test_a_token_server_cannot_pass_the_password_on() -> None:
    """A redirect of the token request is not followed."""
    with serving(lambda _, __: Reply(200, {}, b'{"token": "x"}')) as other:

        def hook(seen: Seen, _: object) -> Reply:
            if seen.path.startswith("/token"):
                return Reply(307, {"Location": f"http://{other.host}/"})
            return Reply(401, {"WWW-Authenticate": f'Bearer realm="http://{seen.headers["Host"]}/token"'})

        with serving(hook) as server, pytest.raises(RegistryProtocolError, match="redirects to another server"):
            registry_at(server, credentials=KNOWN).resolve("run")
    assert other.seen == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"token": 1}', b'{"token": "a\\nb"}', b'{"token": "\\u00e9"}', b"[" * 60_000, b"x" * 10**6],
)
def test_a_token_that_is_none_is_refused(body: bytes) -> None:
    """Whatever a token server says, a header is made of a proper token only."""

    def hook(seen: Seen, _: object) -> Reply:
        if seen.path.startswith("/token"):
            return Reply(200, {}, body)
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="http://{seen.headers["Host"]}/token"'})

    with serving(hook) as server, pytest.raises(RegistryProtocolError, match="returned no token"):
        registry_at(server, credentials=KNOWN).resolve("run")


def test_a_registry_that_is_never_content_ends_in_an_error() -> None:
    """Endless challenges are not answered endlessly."""

    def hook(seen: Seen, _: object) -> Reply:
        if seen.path.startswith("/token"):
            return Reply(200, {}, b'{"access_token": "t"}')
        return Reply(401, {"WWW-Authenticate": f'Bearer realm="http://{seen.headers["Host"]}/token"'})

    with serving(hook) as server, pytest.raises(RegistryAuthError):
        registry_at(server).resolve("run")
    assert len(server.seen) <= 6


def test_an_error_echoes_no_secret_and_no_control_character() -> None:
    """What a server says is printed without our password and without terminal escapes."""

    def hook(seen: Seen, _: object) -> Reply:
        message = f"\x1b[2J you sent {seen.authorization} for {PASSWORD}\r\n::error::"
        body = json.dumps({"errors": [{"code": "DENIED", "message": message}]}).encode()
        return Reply(401, BASIC, body) if not seen.authorization else Reply(403, {}, body)

    with serving(hook) as server, pytest.raises(RegistryAuthError) as caught:
        list(registry_at(server, credentials=KNOWN).tags())
    text = str(caught.value)
    assert "DENIED" in text
    assert PASSWORD not in text
    assert AUTHORIZATION.split()[1] not in text
    assert "\x1b" not in text
    assert "\r" not in text


@pytest.mark.parametrize("before", [150, 190, 199])
def test_no_part_of_a_secret_is_echoed(before: int) -> None:
    """A message is shortened after our password was taken out of it, not in the middle of it."""

    def hook(seen: Seen, _: object) -> Reply:
        body = json.dumps({"errors": [{"message": "x" * before + PASSWORD}]}).encode()
        return Reply(401, BASIC, body) if not seen.authorization else Reply(403, {}, body)

    with serving(hook) as server, pytest.raises(RegistryAuthError) as caught:
        list(registry_at(server, credentials=KNOWN).tags())
    assert PASSWORD[:2] not in caught.value.message


@pytest.mark.parametrize(
    "link",
    [
        "http://127.0.0.1:1/v2/x/tags/list",
        "https://evil.test/",
        "//evil.test/v2/",
        "/v2/other/tags/list",
        "file:///x",
        "http://[",
    ],
)
def test_pages_of_tags_stay_in_the_repository(link: str) -> None:
    """Whatever server or path a link names, the next page is asked for in the same repository."""

    def hook(seen: Seen, _: object) -> Reply:
        is_first = "last=" not in seen.path
        return Reply(200, {"Link": f'<{link}>; rel="next"'} if is_first else {}, b'{"tags": ["%c"]}' % b"ba"[is_first])

    with serving(hook) as server:
        target = registry_at(server, credentials=KNOWN)
        assert list(target.tags()) == ["a", "b"]
    name = target.label.removeprefix(f"{server.host}/")
    assert [seen.path.partition("?")[0] for seen in server.seen] == [f"/v2/{name}/tags/list"] * 2


def test_a_tag_list_without_end_ends() -> None:
    """A page that brings nothing new is the last."""
    reply = Reply(200, {"Link": '<?n=1>; rel="next"'}, b'{"tags": ["a"]}')
    with serving(lambda _, __: reply) as server, pytest.raises(RegistryProtocolError, match="does not end"):
        list(registry_at(server).tags())


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tags": 1}', b'{"tags": "ab"}', b"[" * 60_000])
def test_a_tag_list_of_another_shape_is_refused(body: bytes) -> None:
    """What is no list at all is an error."""
    with serving(lambda _, __: Reply(200, {}, body)) as server, pytest.raises(RegistryProtocolError):
        list(registry_at(server).tags())


def test_what_is_no_tag_is_left_out_of_the_list() -> None:
    """Tags become parts of URLs and of output: only tags are taken, and one that is none hides no other."""
    body = json.dumps({"tags": ["../x", 1, "a", None, "b c", "\x1b[2J", "b"]}).encode()
    with serving(lambda _, __: Reply(200, {}, body)) as server:
        assert list(registry_at(server).tags()) == ["a", "b"]


@pytest.mark.parametrize("reference", ["../x", "a b", "", "a/b", "sha256:abc", "a?x", "%2e%2e", "a\n"])
def test_references_that_are_none_reach_no_url(reference: str) -> None:
    """A tag or digest is checked before it is sent."""
    with serving(lambda _, __: Reply(200)) as server:
        with pytest.raises(UsageError):
            registry_at(server).resolve(reference)
        with pytest.raises(UsageError):
            registry_at(server).tag(MANIFEST, reference)
    assert server.seen == []


def test_a_registry_that_stores_something_else_is_caught() -> None:
    """The digest that a registry confirms must be the one that was sent."""
    reply = Reply(201, {"Docker-Content-Digest": "sha256:" + "0" * 64})
    with serving(lambda _, __: reply) as server, pytest.raises(RegistryProtocolError, match="instead of"):
        registry_at(server).push(MANIFEST, io.BytesIO(RAW))


def test_a_stream_of_one_byte_reads_gives_up_in_time(here: Layout) -> None:
    """A server that breaks each connection after a few bytes cannot keep a client for ever."""

    def answer(seen: Seen) -> Reply | None:
        if described(BLOB).digest not in seen.path:
            return None
        start = int(seen.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {
            "Content-Range": f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}",
            "Content-Length": str(len(BLOB) - start),
        }
        return Reply(206 if start else 200, headers, BLOB[start:], cut=10)

    with serving(registry_with(answer)) as server, pytest.raises(StoreError):
        copy(registry_at(server), "run", here)
    assert server.count("GET", described(BLOB).digest) <= 6


def test_verified_reads_no_more_than_one_byte_too_many() -> None:
    """A stream without end is left after the byte that proves it wrong."""

    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1, /) -> bytes:
            self.taken += size
            return b"x" * size

    source = Endless()
    with pytest.raises(BlobCorruptError, match="longer"):
        list(verified(source, Descriptor("x", f"sha256:{'a' * 64}", 5), label="x"))  # type: ignore[arg-type]
    assert source.taken == 6
