"""URLs: to which origin they lead, through which proxy, and how a message may show them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_PORT = re.compile(r"(.*):(\d{1,5})")


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port: what credentials are bound to. Raises `ValueError` for what is no URL."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def host_of(url: str) -> str:
    """Return host and port of a URL as an error may print them: no user, no odd characters."""
    return _UNPRINTABLE.sub("?", urlsplit(url).netloc.rpartition("@")[2])


def safe_url(url: str) -> str:
    """Return a URL as an error may print it: no user, no query (signed URLs carry secrets there), no odd characters."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an unusable URL"
    return _UNPRINTABLE.sub("?", f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:200]) if url else ""


def is_loopback(host: str) -> bool:
    """Return whether `host` (a name or an address, no port) is this machine."""
    address = _address(host)
    return host == "localhost" or host.endswith(".localhost") or (address is not None and address.is_loopback)


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the proxy that the usual variables name for a URL; None for this machine and what `NO_PROXY` lists."""
    scheme, host, port = origin(url)
    if is_loopback(host) or _is_listed(host, port, environ.get("no_proxy") or environ.get("NO_PROXY") or ""):
        return None
    for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY"):
        if value := environ.get(name):
            return value if "://" in value else f"http://{value}"
    return None


def _is_listed(host: str, port: int, no_proxy: str) -> bool:
    """Return whether a list has the host: by `*`, its address, a network (`10.0.0.0/8`), or a domain.

    Perhaps `:PORT`.
    """
    address = _address(host)
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        if entry == "*":
            return True
        found = _PORT.fullmatch(entry) if entry.count(":") == 1 or "]:" in entry else None
        name, listed_port = (found[1], int(found[2])) if found else (entry, port)
        name = name.strip("[]")
        try:
            network = ipaddress.ip_network(name, strict=False)
        except ValueError:
            domain = name.removeprefix("*").strip(".")
            is_listed = domain != "" and f".{host}".endswith(f".{domain}")
        else:
            is_listed = address is not None and address in network
        if is_listed and listed_port == port:
            return True
    return False


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
