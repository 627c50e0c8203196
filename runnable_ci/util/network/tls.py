"""TLS: whose certificates are trusted, and whether a server speaks it at all."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from runnable_ci.errors import UsageError

CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_RECORDS = (b"\x15", b"\x16")
"""What a TLS server's first record begins with: an alert, or its part of the handshake."""


def tls_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return a context with the authorities that the environment names, else with the system's and certifi's."""
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
