"""How a registry is reached: by TLS where it speaks it, with the certificates that are kept for it, in bounded time."""

from __future__ import annotations

import io
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from registry_server import Reply, described, pushed, registry, serving, tls_registry

from runnable_ci.errors import ManifestNotFoundError, StoreError, UsageError
from runnable_ci.store.certificates import certificate_folder
from runnable_ci.store.client import API_HEADER
from runnable_ci.store.registry import Registry
from runnable_ci.util.network.waiting import Waiting

Accept = Callable[[socket.socket], None]


@contextmanager
def listening(accept: Accept) -> Iterator[str]:
    """The host of a server that calls `accept` for each connection, in a thread of its own."""

    def loop() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            accept(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=loop, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says(words: bytes) -> Accept:
    return lambda connection: connection.sendall(words)


def behind(upstream: str, to_plain_http: Accept) -> Accept:
    """A front that leads TLS to `upstream`, and treats everything else in its own way."""

    def accept(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            to_plain_http(connection)
            return
        host, _, port = upstream.partition(":")
        with socket.create_connection((host, int(port))) as back:
            threading.Thread(target=relay, args=(back, connection), daemon=True).start()
            relay(connection, back)

    return accept


def relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    "to_plain_http",
    [
        lambda _: None,
        reset,
        says(b"\x15\x03\x01\x00\x02\x02\x46"),
        says(b"no\r\n"),
        says(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nspeak TLS"),
    ],
    ids=["hangs up", "resets", "alert", "garbage", "400", "400 and closes"],
)
def test_tls_on_this_machine_is_found_whatever_it_says_to_plain_http(tmp_path: Path, to_plain_http: Accept) -> None:
    """It is asked by a handshake, not recognised by its words; a request that writes finds it too."""
    with tls_registry(tmp_path) as served, listening(behind(served.host, to_plain_http)) as host:
        target = Registry(f"{host}/o/r", environ={"SSL_CERT_FILE": str(served.ca_file)})
        manifest = pushed(target, b"{}")
        target.tag(manifest, "x")
        assert target.resolve("x") == manifest


def test_who_speaks_no_tls_gets_no_second_chance() -> None:
    """The error is that of plain http, and nobody is asked for certificates."""
    asked: list[bytes] = []

    def accept(connection: socket.socket) -> None:
        asked.append(connection.recv(65536)[:4])

    with listening(accept) as host, pytest.raises(StoreError, match=f"the connection to http://{host}/"):
        Registry(f"{host}/o/r", environ={}, sleep=lambda _: None).resolve("x", tries=1)
    assert [it.startswith(b"\x16\x03") for it in asked] == [False, True]


def test_who_waits_for_a_registry_is_shown_so() -> None:
    """After some seconds a line names the server, and then each try; sixteen who wait for it say it once."""
    said: list[str] = []
    over = threading.Event()

    def silent() -> None:
        over.wait(20)

    with listening(lambda _: silent()) as host:
        target = Registry(f"{host}/o/r", environ={}, timeout_s=0.4, waiting=Waiting(said.append, after_s=0.1))
        with ThreadPoolExecutor(16) as pool:
            for future in [pool.submit(target.resolve, "x") for _ in range(16)]:
                assert isinstance(future.exception(), StoreError)
        over.set()
    lines = [f"waiting for {host} (", f"waiting for {host}, try 2 of 3 (", f"waiting for {host}, try 3 of 3 ("]
    assert [line[: line.index("(") + 1] for line in said] == lines


def test_who_is_refused_is_shown_waiting_too() -> None:
    """The waits between the tries count together."""
    said: list[str] = []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        waiting = Waiting(said.append, after_s=0.1)
        with pytest.raises(StoreError):
            Registry(f"{host}/o/r", environ={}, waiting=waiting, sleep=lambda _: time.sleep(0.08)).resolve("x")
    assert any(line.startswith(f"waiting for {host}, try ") for line in said)


def test_who_is_told_to_wait_is_shown_by_whom() -> None:
    """The line has the seconds that the registry asks for."""
    said: list[str] = []
    with serving(lambda _, __: Reply(429, {"Retry-After": "33"})) as server:
        waiting = Waiting(said.append, after_s=0.1)
        target = Registry(server.repository(), environ={}, waiting=waiting, sleep=lambda _: time.sleep(0.2))
        with pytest.raises(StoreError):
            target.resolve("x", tries=2)
    assert [line.rpartition(" (")[0] for line in said] == [
        f"waiting for {server.host}, which asks to wait 33 s, try 2 of 2"
    ]


def test_who_sends_is_not_shown_waiting(tmp_path: Path) -> None:
    """However long it takes, while the registry takes more."""
    said: list[str] = []

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            time.sleep(0.05)
            return super().read(min(size or 0, 32 * 1024))

    content = bytes(1024 * 1024)
    with registry(tmp_path) as served:
        target = Registry(served.repository(), environ={}, waiting=Waiting(said.append, after_s=1))
        target.push(described(content), Slow(content))
    assert said == []


@contextmanager
def private_registry(authority: trustme.CA, clients: trustme.CA) -> Iterator[str]:
    """The host of a server whose certificate and whose clients' are of two authorities that nobody else knows."""
    with serving(lambda _, __: Reply(404, {API_HEADER: "registry/2.0"})) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.issue_cert("127.0.0.1").configure_cert(context)
        clients.configure_trust(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server.host


def keep(folder: Path, authority: trustme.CA, clients: trustme.CA | None) -> None:
    """Write what docker and podman read: the authority, and who we are."""
    folder.mkdir(parents=True)
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    if clients is not None:
        mine = clients.issue_cert("me@client.test")
        mine.cert_chain_pems[0].write_to_path(str(folder / "client.cert"))
        mine.private_key_pem.write_to_path(str(folder / "client.key"))


@pytest.mark.parametrize("place", [".config/containers", ".config/docker", ".docker"])
def test_certificates_that_are_kept_for_a_host_are_used(tmp_path: Path, place: str) -> None:
    """Its authority and our own certificate, in each of the places, and for that host and port only."""
    authority, clients = trustme.CA(), trustme.CA()
    with private_registry(authority, clients) as host:
        keep(tmp_path / "all" / place / "certs.d" / host, authority, clients)
        keep(tmp_path / "half" / place / "certs.d" / host, authority, None)
        keep(tmp_path / "other" / place / "certs.d" / host.partition(":")[0], authority, clients)
        with pytest.raises(ManifestNotFoundError):
            Registry(f"{host}/o/r", environ={"HOME": str(tmp_path / "all")}).resolve("x")
        for home, words in (
            ("half", "certificate required|tls error|reset|closed|pipe"),
            ("other", "no trusted TLS connection"),
        ):
            with pytest.raises(StoreError, match=words):
                Registry(f"{host}/o/r", environ={"HOME": str(tmp_path / home)}, sleep=lambda _: None).resolve("x")


def test_who_requires_a_certificate_is_distinguished_from_plain_http(tmp_path: Path) -> None:
    """The hint is about the certificate, not about `--plain-http`."""
    clients = trustme.CA()

    def accept(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x03\x00\x02\x02\x74")  # certificate_required

    with listening(accept) as host, pytest.raises(StoreError) as caught:
        keep(tmp_path / ".docker" / "certs.d" / host, clients, clients)
        Registry(f"{host}/o/r", environ={"HOME": str(tmp_path)}, sleep=lambda _: None).resolve("x")
    assert "certs.d" in caught.value.hint


def test_the_first_folder_of_a_host_counts(tmp_path: Path) -> None:
    """podman's, then docker's; what is not there, or not a host, has none."""
    environ = {"HOME": str(tmp_path)}
    for place in (".docker", ".config/docker", ".config/containers"):
        folder = tmp_path / place / "certs.d" / "reg.test:5000"
        folder.mkdir(parents=True)
        assert certificate_folder("reg.test:5000", environ) == folder
    assert [certificate_folder(host, environ) for host in ("reg.test", "..", "", "a/../reg.test:5000")] == [None] * 4
    assert certificate_folder("reg.test:5000", {}) is None


def of_another_key(folder: Path) -> None:
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(folder / "client.key"))


def locked_key(folder: Path) -> None:
    key = load_pem_private_key((folder / "client.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "client.key").write_bytes(locked)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "client.key").unlink(), r"there is no .*/client\.key beside .*/client\.cert"),
        (lambda folder: (folder / "client.cert").unlink(), r"there is no .*/client\.cert beside .*/client\.key"),
        (lambda folder: (folder / "ca.crt").write_text("no"), r"the certificate .*/ca\.crt cannot be used: "),
        (lambda folder: (folder / "client.key").write_text("no"), r"the certificate .*/client\.cert cannot be used: "),
        (of_another_key, r"client\.cert cannot be used: key values mismatch"),
        (locked_key, r"client\.cert cannot be used: "),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    """Nothing is sent without what was kept to be sent, and nobody is asked for a password."""
    folder = tmp_path / ".docker" / "certs.d" / "reg.invalid"
    keep(folder, trustme.CA(), trustme.CA())
    damage(folder)
    with pytest.raises(UsageError, match=words) as caught:
        Registry("reg.invalid/o/r", environ={"HOME": str(tmp_path)}).resolve("x")
    assert "NAME.crt" in caught.value.hint or "PEM" in caught.value.hint
