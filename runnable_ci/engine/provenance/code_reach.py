"""The code that a step's function or notebook reaches, in the workspace's modules as they are now."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from runnable_ci.observe.source_files import read_source
from runnable_ci.pipeline.step import Step
from runnable_ci.steps.reach import reach_digest


def reach_of(step: Step, modules: Mapping[str, str], root: str) -> str:
    """Return the digest of what a step's function or notebook reaches in modules of the workspace (path → sha256).

    Empty where one of them is not there with that content.
    """
    sources = {}
    for path, digest in modules.items():
        source = read_source(f"{root}/{path}")
        if not digest or hashlib.sha256(source).hexdigest() != digest:
            return ""
        sources[path] = source
    return reach_digest(_names(step, root), sources) if sources else ""


def _names(step: Step, root: str) -> str:
    """Return a text with all names by which a step reaches into modules."""
    if step.kind == "notebook":
        from runnable_ci.steps.notebook.notebook_step import is_there, notebook_of  # few pipelines have one

        return notebook_of(step, Path(root)).code() if is_there(step, Path(root)) else ""
    return step.command.partition(":")[2]
