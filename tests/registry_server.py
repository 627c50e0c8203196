"""Real registries on loopback for tests: Debian's docker-registry, a token server, and a proxy that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import jwt
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor, Target

USERNAME = "ada"
PASSWORD = "correct-horse"
AUTHORIZATION = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
HOP_BY_HOP = ("connection", "transfer-encoding")
SERVICE = "test-registry"
ISSUER = "test-issuer"


@dataclass(frozen=True)
class Served:
    """A running registry."""

    host: str
    """`127.0.0.1:PORT`, as references write it."""
    folder: Path
    ca_file: Path | None = None

    def repository(self) -> str:
        """A repository that nobody else uses."""
        return f"{self.host}/owner/repo-{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Seen:
    """One request as a server saw it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")


@dataclass(frozen=True)
class Reply:
    """What to answer: `cut` sends only so many bytes of the body and then drops the connection.

    By `how`: closed in order, reset, or silent until the client hangs up.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    how: Literal["closed", "reset", "silent"] = "closed"
    chunked: bool = False
    """Without a Content-Length."""


Hook = Callable[[Seen, Callable[[], Reply]], Reply]
"""(request, forward) → reply: `forward()` asks the real registry behind."""


class Server(ThreadingHTTPServer):
    """An HTTP server on a free loopback port that answers by `hook` and remembers what it saw."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hook: Hook, upstream: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hook = hook
        self.upstream = upstream
        self.seen: list[Seen] = []

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def repository(self) -> str:
        return f"{self.host}/owner/repo-{uuid.uuid4().hex[:12]}"

    def count(self, method: str, part: str = "") -> int:
        """How many requests of this method had `part` in their path."""
        return sum(1 for seen in self.seen if seen.method == method and part in seen.path)

    def forward(self, seen: Seen) -> Reply:
        assert self.upstream is not None
        parts = urlsplit(seen.path)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with closing(http.client.HTTPConnection(self.upstream, timeout=20)) as connection:
            connection.request(seen.method, path, body=seen.body or None, headers=dict(seen.headers))
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = Seen(self.command, self.path, dict(self.headers.items()), body)
        self.server.seen.append(seen)
        reply = self.server.hook(seen, lambda: self.server.forward(seen))
        self.send_response_only(reply.status)
        headers = {name: value for name, value in reply.headers.items() if name.lower() not in HOP_BY_HOP}
        if not any(name.lower() == "date" for name in headers):  # of what is forwarded there is one already
            headers["Date"] = self.date_time_string()
        if "Content-Length" not in headers and not reply.chunked:
            headers["Content-Length"] = str(len(reply.body))
        if reply.chunked:
            headers["Connection"] = "close"
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
        if reply.cut is not None:
            self.wfile.flush()
            self._drop(reply.how)
            self.close_connection = True

    def do_CONNECT(self) -> None:
        """Be a proxy for TLS: bytes go both ways until one side hangs up."""
        self.server.seen.append(Seen("CONNECT", self.path, dict(self.headers.items()), b""))
        host, _, port = self.path.rpartition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port)), timeout=20) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_relay, args=(upstream, self.connection), daemon=True)
            back.start()
            _relay(self.connection, upstream)
            back.join()

    def _drop(self, how: str) -> None:
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif how == "silent":
            self.connection.settimeout(20)
            self.connection.recv(1)
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 (names of http.server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (name of http.server)
        """Quiet."""


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def described(content: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    """What stands for the content."""
    return Descriptor(media_type, f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


def manifest_of(*blobs: Descriptor) -> bytes:
    """A manifest whose config is the first of the blobs."""
    entries = [{"mediaType": b.media_type, "digest": b.digest, "size": b.size} for b in blobs]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST_MEDIA_TYPE, "config": entries[0], "layers": entries[1:]}
    ).encode()


def pushed(target: Target, *contents: bytes) -> Descriptor:
    """A manifest with these blobs (the first is its config), in the target."""
    for content in contents:
        target.push(described(content), io.BytesIO(content))
    raw = manifest_of(*map(described, contents))
    manifest = described(raw, MANIFEST_MEDIA_TYPE)
    target.push(manifest, io.BytesIO(raw))
    return manifest


@contextmanager
def serving(hook: Hook = lambda _, forward: forward(), *, upstream: Served | None = None) -> Iterator[Server]:
    """A server that answers by `hook`; before `upstream`, if given, as a reverse proxy (or a forward one)."""
    server = Server(hook, upstream.host if upstream else None)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class TokenIssuer:
    """A token server: `hook` for `serving`. It knows one user, and lets anybody pull where `anonymous`."""

    def __init__(self, authority: trustme.CA, *, anonymous: bool = False) -> None:
        certificate = authority.issue_cert("token.test")
        self._key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
        chain = [load_pem_x509_certificate(blob.bytes()) for blob in certificate.cert_chain_pems]
        self._x5c = [base64.b64encode(link.public_bytes(Encoding.DER)).decode() for link in chain]
        self.anonymous = anonymous
        self.expired = 0
        """So many of the next tokens have expired when they are given out."""

    def hook(self, seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        query = parse_qs(urlsplit(seen.path).query)
        asked = [scope.split(":") for scope in query["scope"]]
        known = seen.authorization == AUTHORIZATION
        if not known and (seen.authorization or not self.anonymous):
            return Reply(401, {}, b'{"errors": [{"code": "UNAUTHORIZED", "message": "who are you"}]}')
        access = [
            {"type": "repository", "name": name, "actions": actions.split(",") if known else ["pull"]}
            for _, name, actions in asked
        ]
        now = int(time.time())
        if self.expired:
            self.expired -= 1
            now -= 3600
        claims = {
            "iss": ISSUER,
            "sub": USERNAME,
            "aud": query["service"][0],
            "exp": now + 300,
            "nbf": now - 10,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": access,
        }
        token = jwt.encode(claims, self._key, algorithm="ES256", headers={"x5c": self._x5c})  # type: ignore[arg-type]
        return Reply(
            200, {"Content-Type": "application/json"}, json.dumps({"token": token, "expires_in": 300}).encode()
        )


@contextmanager
def token_registry(folder: Path, *, anonymous: bool = False) -> Iterator[tuple[Served, Server, TokenIssuer]]:
    """A registry that asks for bearer tokens, and its token server."""
    authority = trustme.CA()
    issuer = TokenIssuer(authority, anonymous=anonymous)
    folder.mkdir(parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(str(folder / "token-ca.pem"))
    with serving(issuer.hook) as tokens:
        auth = {
            "token": {
                "realm": f"http://{tokens.host}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(folder / "token-ca.pem"),
            }
        }
        with registry(folder, auth=auth) as served:
            yield served, tokens, issuer


@contextmanager
def password_registry(folder: Path) -> Iterator[Served]:
    """A registry that asks for `USERNAME` and `PASSWORD`."""
    folder.mkdir(parents=True, exist_ok=True)
    line = subprocess.run(
        [program("htpasswd", "apache2-utils"), "-Bbn", "-C", "4", USERNAME, PASSWORD], capture_output=True, check=True
    )
    (folder / "htpasswd").write_bytes(line.stdout)
    with registry(folder, auth={"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}) as served:
        yield served


@contextmanager
def tls_registry(folder: Path) -> Iterator[Served]:
    """A registry behind TLS whose certificate only `ca_file` vouches for."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    tls = {"certificate": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    with registry(folder, tls=tls, ca_file=folder / "ca.pem") as served:
        yield served


@contextmanager
def registry(
    folder: Path,
    *,
    auth: Mapping[str, Any] | None = None,
    tls: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    delete: bool = True,
) -> Iterator[Served]:
    """Debian's docker-registry with its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(5):
        host = f"127.0.0.1:{_free_port()}"
        config = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": delete}},
            "http": {"addr": host, **({"tls": dict(tls)} if tls else {})},
            **({"auth": dict(auth)} if auth else {}),
        }
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        with (folder / "registry.log").open("wb") as log:
            process = subprocess.Popen(
                [program("docker-registry", "docker-registry"), "serve", str(folder / "config.yml")],
                stdout=log,
                stderr=log,
            )
        try:
            if _answers(process, host):
                yield Served(host, folder, ca_file)
                return
        finally:
            process.terminate()
            process.wait()
    raise RuntimeError(f"docker-registry does not start: {(folder / 'registry.log').read_text()}")


def collect_garbage(served: Served) -> None:
    """What the keeper of a registry does from time to time: content that no manifest names is gone."""
    command = [program("docker-registry", "docker-registry"), "garbage-collect", str(served.folder / "config.yml")]
    subprocess.run(command, check=True, capture_output=True)


def program(name: str, package: str) -> str:
    """The path of a program that the tests cannot do without."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")  # daemons are not on everybody's PATH
    if path is None:
        raise RuntimeError(f"{name} is missing; the tests need it: apt-get install {package}")
    return path


def tls_server(server: Server, authority: trustme.CA) -> str:
    """Let a server that serves already speak TLS; its address as other machines' are written, not as loopback's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return f"127.1:{server.server_address[1]}"


@contextmanager
def leading_to(server: Server, authority: trustme.CA, *hosts: str) -> Iterator[str]:
    """A proxy for https that leads each connection to a server, which from now on is these hosts; the proxy's URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*hosts).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)

    class Tunnel(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", server.server_address[1])) as behind:
                back = threading.Thread(target=_pump, args=(behind, self.connection), daemon=True)
                back.start()
                _pump(self.connection, behind)
                back.join()

    class Proxy(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that hang up are part of the tests."""

    with Proxy(("127.0.0.1", 0), Tunnel) as proxy:
        threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}"
        finally:
            proxy.shutdown()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], host: str) -> bool:
    address, port = host.split(":")
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection((address, int(port)), timeout=1):
            return True
        time.sleep(0.01)
    return False
