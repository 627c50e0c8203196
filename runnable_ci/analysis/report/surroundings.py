"""In what a run's steps ran: code, interpreter, system. Pure."""

from __future__ import annotations

from runnable_ci.analysis.report.pairs import Pair, pairs
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import RunLog

_DIRTY = "not clean"


def code_of(log: RunLog) -> list[Pair]:
    """Return which code ran."""
    code = log.code()
    if code is None:
        return []
    return pairs(
        {
            "Commit": code.code_identifier,
            "Branch or tag": code.ref,
            "Repository": code.code_identifier_url,
            "Work tree": "clean" if code.code_identifier_dependable else code.code_identifier_message or _DIRTY,
        }
    )


def environment_of(one: Environment) -> list[Pair]:
    """Return the interpreter and the system."""
    return pairs(
        {
            "Python": one.interpreter_version,
            "Interpreter": one.interpreter,
            "System": " ".join(filter(None, (one.os, one.architecture, one.distribution))),
            "C library": one.libc,
            "runnable-ci": one.tool_version,
        }
    )
