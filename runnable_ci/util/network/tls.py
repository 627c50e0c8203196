"""TLS: whose certificates are trusted, and whether a server speaks it at all."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from runnable_ci.errors import UsageError

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_RECORDS = (b"\x15", b"\x16")
"""What a TLS server's first record begins with: an alert, or its part of the handshake."""


def tls_context(environ: Mapping[str, str], folder: Path | None = None) -> ssl.SSLContext:
    """Return a context with the authorities that the environment names, else with the system's and certifi's.

    A server's own `folder` adds authorities (`*.crt`) and says who we are (`NAME.cert` and `NAME.key`).
    Raises `UsageError` for a file that cannot be used.
    """
    context = _usual_context(environ)
    if folder is not None:
        try:
            _add(context, sorted(folder.iterdir()))
        except OSError as error:
            raise UsageError(f"the certificates in {folder} cannot be read: {error.strerror}") from error
    return context


def _add(context: ssl.SSLContext, files: list[Path]) -> None:
    for file in files:
        key, certificate = file.with_suffix(".key"), file.with_suffix(".cert")
        match file.suffix:
            case ".crt":
                _load(file, partial(context.load_verify_locations, file))
            case ".cert" if key in files:
                # Without a password OpenSSL would ask for one on the terminal.
                _load(file, partial(context.load_cert_chain, file, key, password=""))
            case ".cert" | ".key" if certificate not in files or key not in files:
                hint = "a client's certificate is NAME.cert beside NAME.key, that of an authority NAME.crt"
                raise UsageError(f"there is no {key if certificate in files else certificate} beside {file}", hint=hint)


def _load(file: Path, load: Callable[[], None]) -> None:
    try:
        load()
    except (OSError, ValueError) as error:
        reason = str(error.reason).replace("_", " ").lower() if isinstance(error, ssl.SSLError) else str(error)
        hint = "certificates and keys are PEM files; a key belongs to its certificate, and has no password"
        raise UsageError(f"the certificate {file} cannot be used: {reason}", hint=hint) from error


def _usual_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    for name in CA_VARIABLES:
        if place := environ.get(name):
            path = Path(place)
            try:
                return ssl.create_default_context(
                    cafile=None if path.is_dir() else place, capath=place if path.is_dir() else None
                )
            except OSError as error:
                raise UsageError(f"{name} names {place}, which cannot be read: {error}") from error
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def tls_hint(error: BaseException) -> str:
    """Return what to do about an error of TLS; empty for another error."""
    match error:
        case ssl.SSLCertVerificationError():
            return "for a private certificate authority set SSL_CERT_FILE to its certificate, or keep it in certs.d"
        case ssl.SSLError() if "ALERT" in (error.reason or ""):  # the server speaks TLS, and ended it
            return "if the server requires a certificate of yours, keep it in certs.d, as for docker or podman"
        case ssl.SSLError():
            return "if the server uses plain HTTP and the network is trusted: --plain-http"
        case _:
            return ""


def speaks_tls(host: str, port: int, *, timeout_s: float) -> bool:
    """Return whether a server answers the first message of a TLS handshake with TLS; nothing else is sent.

    Source: RFC 8446 section 5.1, TLSPlaintext.
    """
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=host)
    with suppress(ssl.SSLWantReadError):  # as there is no answer yet
        client.do_handshake()
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(outgoing.read())
            return connection.recv(1) in _RECORDS
    except OSError:
        return False
