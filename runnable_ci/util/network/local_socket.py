"""Questions to a service of this machine that listens on a socket of the file system, such as docker's."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any, Final

_TIMEOUT_S: Final = 5.0
_ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024


def ask_socket(path: str, resource: str) -> Any:
    """Return the JSON that a service has at a resource; None where it does not answer with that.

    Source: RFC 1945 (HTTP/1.0, whose answer ends with the connection), Docker Engine API v1.24.
    """
    answer = b""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as service:
        service.settimeout(_TIMEOUT_S)
        service.connect(path)
        service.sendall(f"GET {resource} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        while len(answer) < _ANSWER_MAX_BYTES and (chunk := service.recv(65536)):
            answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.split(b" ")[1:2] == [b"200"]:
            return json.loads(body)
    return None
