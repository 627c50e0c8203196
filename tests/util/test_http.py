"""The HTTP layer: where it connects, how long it waits, how much it reads, and what it tries again."""

from __future__ import annotations

import io
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme
from registry_server import Reply, Seen, serving, tls_server
from support import python

from runnable_ci.errors import RunnableError, StoreError, UsageError
from runnable_ci.util.http import Failure, Session
from runnable_ci.util.responses import Later, Response, TransientError, later, retry
from runnable_ci.util.urls import proxy_of, safe_url


class UnavailableError(StoreError):
    """What these tests are told where a server cannot be reached."""


class ProtocolError(StoreError):
    """What these tests are told where a server misbehaves."""


def session(*, environ: Mapping[str, str] | None = None, plain_http: bool = False, timeout_s: float = 20) -> Session:
    def unavailable(failure: Failure) -> RunnableError:
        return UnavailableError(failure.message, hint=failure.hint)

    return Session(
        environ=environ or {},
        unavailable=unavailable,
        protocol_error=ProtocolError,
        plain_http=plain_http,
        timeout_s=timeout_s,
    )


def none(_: str) -> Mapping[str, str]:
    return {}


def anywhere(_: str) -> None:
    """Follow every redirect."""


@contextmanager
def dripping(start: bytes, drop: bytes, *, every_s: float) -> Iterator[str]:
    """The host of a server that answers with `start`, and then with one `drop` after the other, for ever."""

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(start)
                while not over.wait(every_s):
                    connection.sendall(drop)
            except OSError:
                return  # the client has hung up

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


# -- where requests go


@pytest.mark.parametrize(
    ("url", "no_proxy", "direct"),
    [
        ("https://reg.corp.test", "corp.test", True),
        ("https://reg.corp.test", ".corp.test", True),
        ("https://reg.corp.test", "*.corp.test", True),
        ("https://corp.test", ".corp.test", True),
        ("https://evilcorp.test", "corp.test", False),
        ("https://REG.corp.test", "Reg.Corp.Test", True),
        ("https://reg.corp.test:5000", "reg.corp.test:5000", True),
        ("https://reg.corp.test:5001", "reg.corp.test:5000", False),
        ("https://reg.corp.test", "reg.corp.test:443", True),
        ("https://a.test", "*", True),
        ("https://a.test", "b.test, a.test", True),
        ("https://a.test", "b.test c.test\ta.test", True),
        ("https://a.test", "", False),
        ("https://a.test", ",,", False),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3:5000", "10.0.0.0/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "10.1.2.3:444", False),
        ("https://10.1.2.34", "10.1.2.3", False),
        ("https://[fd00::1]:5000", "fd00::/8", True),
        ("https://[fd00::1]", "[fd00::1]", True),
        ("https://[fd00::1]:5000", "[fd00::1]:5000", True),
        ("https://[fe80::1]", "fd00::/8", False),
        ("https://ten.test", "10.0.0.0/8", False),
        ("https://a.test", "10.0.0.0/99, a.test:x", False),
    ],
)
def test_no_proxy_lists_domains_addresses_and_networks(url: str, no_proxy: str, direct: bool) -> None:
    """As curl and Go read it: a domain has its subdomains, a network its addresses, a port only itself."""
    for name in ("NO_PROXY", "no_proxy"):
        found = proxy_of(url, {"HTTPS_PROXY": "http://proxy.test:3128", name: no_proxy})
        assert found == (None if direct else "http://proxy.test:3128")


@pytest.mark.parametrize("host", ["localhost", "app.localhost", "127.0.0.1", "127.8.9.1", "[::1]"])
def test_this_machine_is_never_reached_by_a_proxy(host: str) -> None:
    """What runs here cannot be seen from a proxy elsewhere, whether or not `NO_PROXY` says so."""
    environ = {"http_proxy": "http://proxy.test", "https_proxy": "http://proxy.test", "all_proxy": "http://proxy.test"}
    assert proxy_of(f"http://{host}:5000/v2/", environ) is None
    assert proxy_of(f"https://{host}/v2/", environ) is None


@pytest.mark.parametrize("proxy", ["ftp://proxy.test", "http://", "http://["])
def test_a_proxy_that_cannot_be_used_is_named(proxy: str) -> None:
    """The error is about the proxy, not about the server behind it."""
    with pytest.raises(UsageError, match="proxy"):
        session(environ={"HTTPS_PROXY": proxy}).open("GET", "https://a.test/", headers=none)


WITHOUT_SOCKS = """
import sys
sys.modules["socks"] = None  # as where nobody installed it
from test_http import none, session
from runnable_ci.errors import UsageError
try:
    session(environ={"HTTPS_PROXY": "socks5://proxy.test"}).open("GET", "https://a.test/", headers=none)
except UsageError as e:
    print(e.message)
"""


def test_a_proxy_that_needs_another_package_is_named() -> None:
    """A browser's driver brings that package along into the environment of the tests."""
    done = python(WITHOUT_SOCKS, environ={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert "proxy" in done.stdout, done.stderr


def test_a_user_in_a_redirect_is_not_sent_along() -> None:
    """A server cannot replace our authorization, or make us log in elsewhere, by a URL with a user in it."""
    with serving(lambda _, __: Reply(200)) as other:

        def hook(seen: Seen, _: Callable[[], Reply]) -> Reply:
            if seen.path == "/a":
                return Reply(302, {"Location": f"http://eve:secret@{seen.headers['Host']}/b"})
            return Reply(302, {"Location": f"http://eve:secret@{other.host}/c"})

        with serving(hook) as server:

            def headers(url: str) -> Mapping[str, str]:
                return {"Authorization": "Bearer ours"} if other.host not in url else {}

            stream = session().open("GET", f"http://{server.host}/a", headers=headers, on_redirect=anywhere)
            assert stream.response().status == 200
    assert [seen.authorization for seen in server.seen] == ["Bearer ours"] * 2
    assert [seen.authorization for seen in other.seen] == [""]


def test_cookies_are_not_kept() -> None:
    """A server that sees a cookie again may take us for a browser."""
    with serving(lambda _, __: Reply(200, {"Set-Cookie": "a=b"})) as server:
        both = session()
        for _ in range(2):
            both.open("GET", f"http://{server.host}/", headers=none).response()
    assert not [seen for seen in server.seen if "Cookie" in seen.headers]


@pytest.mark.parametrize("status", [307, 308])
def test_an_upload_follows_a_redirect_with_all_of_its_body(status: int) -> None:
    """The second server gets the content from its first byte."""
    content = bytes(range(256)) * 4000

    class Body(io.BytesIO):
        def __len__(self) -> int:
            return len(content)

    with serving(lambda _, __: Reply(201)) as other:
        moved = Reply(status, {"Location": f"http://{other.host}/there"})
        with serving(lambda _, __: moved) as server:
            stream = session().open(
                "PUT", f"http://{server.host}/", headers=none, body=Body(content), on_redirect=anywhere
            )
            assert stream.response().ok
    assert [seen.body == content for seen in other.seen] == [True]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_request_that_changes_something_does_not_become_another(status: int) -> None:
    """Redirects after which other clients turn POST into GET are returned as they are."""
    with serving(lambda _, __: Reply(status, {"Location": "/b"})) as server:
        stream = session().open("POST", f"http://{server.host}/a", headers=none, body=b"x", on_redirect=anywhere)
        assert stream.response().status == status
    assert len(server.seen) == 1


@pytest.mark.parametrize("location", ["", "http://[", "http://a.test:99999999/", "http://a b/", "ftp://127.0.0.1/"])
def test_a_redirect_that_leads_to_no_server_is_an_error_of_the_server(location: str) -> None:
    """Whatever a server writes there is one kind of error."""
    with (
        serving(lambda _, __: Reply(302, {"Location": location})) as server,
        pytest.raises((ProtocolError, UsageError)),
    ):
        session().open("GET", f"http://{server.host}/", headers=none, on_redirect=anywhere)


def test_a_url_in_a_message_has_neither_user_nor_query() -> None:
    """Both may be secret."""
    assert safe_url("https://me:secret@a.test/b?sig=secret#secret") == "https://a.test/b"
    assert safe_url("http://[") == "an unusable URL"


# -- how long


def test_a_body_that_comes_byte_by_byte_is_given_up() -> None:
    """Each byte comes in time, but the whole never does: that counts as silence."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    with dripping(start, b"x", every_s=0.02) as host:
        stream = session(timeout_s=0.3).open("GET", f"http://{host}/", headers=none)
        with pytest.raises(TransientError, match=r"timed out: [0-9]+ bytes in") as caught:
            stream.response()
    assert caught.value.tries == 3


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: a"])
def test_headers_that_come_byte_by_byte_are_given_up(start: bytes) -> None:
    """Whichever line of them it is."""
    with (
        dripping(start, b"1", every_s=0.02) as host,
        pytest.raises(TransientError, match=r"timed out: [0-9]+ bytes in") as caught,
    ):
        session(timeout_s=0.3).open("GET", f"http://{host}/", headers=none)
    assert caught.value.tries == 3


@pytest.mark.parametrize("taken_bytes", [0, 100])
@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_an_upload_that_is_hardly_taken_is_given_up(taken_bytes: int, kind: str) -> None:
    """A server that reads nothing, or some bytes now and then, counts as silent."""
    size = 32 * 1024 * 1024

    class Body(io.BytesIO):
        def __len__(self) -> int:
            return size

    def take() -> None:
        connection, _ = listening.accept()
        with connection:
            while not over.wait(0.02):
                if taken_bytes:
                    connection.recv(taken_bytes)

    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=take, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(TransientError, match="timed out") as caught:
            session(timeout_s=0.3).open(
                "PUT", url, headers=none, body=bytes(size) if kind == "bytes" else Body(bytes(size))
            )
        over.set()
    assert caught.value.tries == 3


def test_a_large_upload_has_its_time_piece_by_piece() -> None:
    """A time-out is for a piece, not for the whole, also where all of it is in memory."""
    size = 16 * 1024 * 1024

    def take() -> None:
        connection, _ = listening.accept()
        with connection:
            left = size
            while left > 0:
                left -= len(connection.recv(256 * 1024))
                time.sleep(0.01)
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=take, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        stream = session(timeout_s=0.5).open("PUT", url, headers=none, body=bytes(size))
    assert stream.status == 201


def test_a_slow_reader_does_not_find_the_server_slow() -> None:
    """Only the time that is spent waiting for bytes counts."""
    with serving(lambda _, __: Reply(200, {}, b"x" * 20)) as server:
        stream = session(timeout_s=0.1).open("GET", f"http://{server.host}/", headers=none)
        body = b""
        while chunk := stream.read(1):
            body += chunk
            time.sleep(0.02)
    assert body == b"x" * 20


def test_silence_is_tried_less_often_than_refusal() -> None:
    """Each wait for a silent server takes a whole time-out, a refusal takes nothing."""
    tried: list[str] = []
    with dripping(b"", b"", every_s=0.05) as host, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        for server in (host, f"127.0.0.1:{taken.getsockname()[1]}"):

            def once(server: str = server) -> None:
                tried.append(server)
                session(timeout_s=0.1).open("GET", f"http://{server}/", headers=none)

            with pytest.raises(UnavailableError):
                retry(once, sleep=lambda _: None)
    assert [tried.count(server) for server in dict.fromkeys(tried)] == [3, 5]


def test_who_waits_is_told() -> None:
    """Before each wait the reason, the seconds and the next try's number are known to the caller."""
    told: list[tuple[str, float, int]] = []
    slept: list[float] = []

    def once() -> None:
        raise TransientError(UnavailableError("no luck"), delay_s=7.0)

    with pytest.raises(UnavailableError, match="no luck"):
        retry(once, sleep=slept.append, tries=3, waiting=lambda *what: told.append((str(what[0]), *what[1:])))
    assert told == [("no luck", 7.0, 2), ("no luck", 7.0, 3)]
    assert slept == [7.0] * 2


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(0.0, 2.0, 4.0), (7.0, 7.0, 7.0), (7200.0, 60.0, 60.0)])
def test_a_server_may_ask_for_more_patience_only(asked_s: float, least_s: float, most_s: float) -> None:
    """Who is told to come again at once waits as if nothing were said, and nobody waits for hours."""
    slept: list[float] = []

    def once() -> None:
        raise TransientError(UnavailableError("no luck"), asked_s=asked_s)

    with pytest.raises(UnavailableError):
        retry(once, sleep=slept.append, tries=4)
    assert least_s <= slept[-1] <= most_s


# -- how much


def test_only_the_start_of_a_body_is_read() -> None:
    """What is longer than asked for is cut, or an error where all of it is needed."""
    with serving(lambda _, __: Reply(200, {}, b"x" * 100_000)) as server:
        url = f"http://{server.host}/"
        assert session().open("GET", url, headers=none).response(at_most=10).body == b"x" * 10
        assert len(session().open("GET", url, headers=none).response().body) == 64 * 1024
        with pytest.raises(ProtocolError, match="longer than 64 KiB"):
            session().open("GET", url, headers=none).response(whole=True)


def test_connections_are_used_again() -> None:
    """A response that was read leaves its connection to the next request."""
    ports: list[object] = []
    with serving(lambda _, __: Reply(200, {}, b"x")) as server:
        accept = server.get_request

        def counted() -> tuple[socket.socket, object]:
            connection, address = accept()
            ports.append(address)
            return connection, address

        server.get_request = counted  # type: ignore[method-assign]
        both = session()
        for method in ("GET", "HEAD", "GET", "POST"):
            both.open(method, f"http://{server.host}/", headers=none).response()
    assert len(ports) == 1


# -- what a server says


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"errors": [{"code": "DENIED", "message": "no"}, {"code": "X"}]}', "DENIED: no"),
        (b'{"errors": [{"code": "DENIED"}]}', "DENIED"),
        (b'{"message": "Bad \\u001b[2J credentials", "errors": []}', "Bad ?[2J credentials"),
        (b"too\r\nmany requests", "too many requests"),
        (b"<html>no</html>", ""),
        (b'{"errors": ["x"]}', ""),
        (b'{"errors": {}}', ""),
        (b"[]", ""),
        (b"[" * 60_000, "[" * 200),
        ("grün".encode(), "grün"),
        (b"\xff", "\ufffd"),
        (b"", ""),
    ],
)
def test_what_a_server_says_went_wrong(body: bytes, message: str) -> None:
    """A registry's JSON, GitHub's, or plain text, as one printable line."""
    assert Response(400, {}, body, "https://x").error_message() == message


def test_codes_of_a_registrys_errors() -> None:
    """All of them, or none where the body has another shape."""
    body = b'{"errors": [{"code": "A"}, {"code": "B", "message": "C"}]}'
    assert Response(400, {}, body, "https://x").error_codes() == {"A", "B"}
    for other in (b"", b"[]", b'{"errors": [1]}', b'{"errors": [{}]}', b'{"errors": [{"code": []}]}', b"[" * 60_000):
        assert Response(400, {}, other, "https://x").error_codes() == frozenset()


@pytest.mark.parametrize(
    ("status", "headers", "message", "expected"),
    [
        (200, {"Retry-After": "5"}, "", None),
        (404, {"Retry-After": "5"}, "", None),
        (501, {}, "", None),
        (503, {"Retry-After": "5"}, "", Later(is_rate_limit=False, wait_s=5.0)),
        (503, {"Retry-After": "-5"}, "", Later(is_rate_limit=False, wait_s=None)),
        (429, {}, "retry-after: 1.5m", Later(is_rate_limit=True, wait_s=90.0)),
        (429, {}, "retry after 692.528µs", Later(is_rate_limit=True, wait_s=692.528e-6)),
        (429, {}, "retry after 1.2.3", Later(is_rate_limit=True, wait_s=None)),
        (403, {}, "denied", None),
        (403, {}, "secondary rate limit", Later(is_rate_limit=True, wait_s=60.0)),
        (403, {"Retry-After": "7200"}, "", Later(is_rate_limit=True, wait_s=7200.0)),
        (429, {"Retry-After": "Thu, 01 Jan 1970 00:01:40 GMT"}, "", Later(is_rate_limit=True, wait_s=0.0)),
    ],
)
def test_what_may_work_later(status: int, headers: dict[str, str], message: str, expected: Later | None) -> None:
    """By the status, a header or the server's words; the wait is what the server asks for."""
    assert later(Response(status, headers, b"", "https://x"), message=message, now_s=1000.0) == expected


def test_a_certificate_of_nobody_is_not_tried_again(tmp_path: Path) -> None:
    """A new try cannot mend it, and the error says which variable can."""
    with serving(lambda _, __: Reply(200)) as server:
        host = tls_server(server, trustme.CA())
        with pytest.raises(UnavailableError, match=r"no trusted TLS connection to https://127\.1") as caught:
            session().open("GET", f"https://{host}/", headers=none)
    assert "SSL_CERT_FILE" in caught.value.hint


def test_a_plain_server_behind_https_is_not_tried_again() -> None:
    """The hint names the way to speak plain http."""
    with serving(lambda _, __: Reply(200)) as server, pytest.raises(UnavailableError) as caught:
        session().open("GET", f"https://{server.host}/", headers=none)
    assert "--plain-http" in caught.value.hint


def test_requests_are_logged_without_what_may_be_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where debug logging is on: also one without a response; no user, password, query, header or body."""
    monkeypatch.setenv("RUNNER_DEBUG", "1")
    headers = {"Authorization": "Bearer s3cret-1", "Cookie": "s3cret-2"}
    with serving(lambda *_: Reply(404, {"Set-Cookie": "s3cret-3"}, b"s3cret-4")) as server:
        host = server.host
        session().open("PUT", f"http://u:s3cret-5@{host}/a/b?sig=s3cret-6", headers=lambda _: headers, body=b"s3cret-7")
    with pytest.raises(TransientError):
        session().open("GET", f"http://{host}/c", headers=none)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"debug: PUT {host}/a/b: status 404 in ")
    assert second.startswith(f"debug: GET {host}/c: no response in ")
    assert "s3cret" not in first + second
    monkeypatch.setenv("RUNNER_DEBUG", "")
    with pytest.raises(TransientError):
        session().open("GET", f"http://{host}/c", headers=none)
    assert not capsys.readouterr().err
