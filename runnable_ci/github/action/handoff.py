"""Why a command could not start or continue, handed from the action's first step to its second."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that ended a command."""

    message: str
    hint: str
    by_registry: bool
    """Whether it was a registry that did not let us in."""
    fix: str = ""


def write(environ: Mapping[str, str], refusal: Refusal) -> None:
    """Store it for the next step; do nothing outside of the action."""
    file = _file(environ)
    if file is not None and file.parent.is_dir():
        file.write_text(json.dumps(asdict(refusal)), "utf-8")


def read_and_delete(environ: Mapping[str, str]) -> Refusal | None:
    """Return what was left, once; None where there is nothing, or what a step put there in its place."""
    file = _file(environ)
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_bytes()[:_MAX_BYTES])
        file.unlink()
        return Refusal(str(found["message"]), str(found["hint"]), bool(found["by_registry"]), str(found["fix"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _file(environ: Mapping[str, str]) -> Path | None:
    temp = environ.get("RUNNER_TEMP")
    return Path(temp) / "runnable-ci" / "refused.json" if temp else None
