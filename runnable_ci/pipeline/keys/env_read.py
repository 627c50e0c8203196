"""`env-read`: which names may be those of variables that a step reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from runnable_ci.pipeline.schema import Place
from runnable_ci.pipeline.validation import shown

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_env_read(place: Place, table: str, names: Iterable[str]) -> None:
    """Raise `PipelineError` for what is not the name of a variable, or that of one that runnable-ci sets."""
    for name in names:
        if not _VARIABLE.fullmatch(name):
            hint = "write names alone, without `$` or a value"
            raise place.error(table, f"env-read: {shown(name)} is not the name of a variable", hint, key="env-read")
        if name.startswith("RUNNABLE_"):
            hint = "remove it: what runnable-ci sets is not compared"
            raise place.error(table, f"env-read: `{name}` is set by runnable-ci", hint, key="env-read")
