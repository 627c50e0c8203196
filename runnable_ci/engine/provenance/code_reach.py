"""The code that a python step's function reaches, in the workspace's modules as they are now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from runnable_ci.observe.source_files import read_source
from runnable_ci.steps.reach import reach_digest


def reach_of(command: str, modules: Mapping[str, str], root: str) -> str:
    """Return the digest of what a python step's function reaches in modules of the workspace (path → sha256).

    Empty where one of them is not there with that content.
    """
    sources = {}
    for path, digest in modules.items():
        source = read_source(f"{root}/{path}")
        if not digest or hashlib.sha256(source).hexdigest() != digest:
            return ""
        sources[path] = source
    return reach_digest(command.partition(":")[2], sources) if sources else ""
