"""What was asked of which server, for a job that is re-run with debug logging."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from runnable_ci.util.console import console
from runnable_ci.util.urls import host_of


def log_request(method: str, url: str, outcome: str, *, began_s: float) -> None:
    """Print a request and what came of it: no header, no query and no body, any of which may have a secret."""
    took_ms = round((time.monotonic() - began_s) * 1000)
    console.debug(f"{method} {host_of(url)}{urlsplit(url).path}: {outcome} in {took_ms} ms")
