"""The steps of the composite action that run this program, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Phase = Literal["earlier", "begin", "finish", "comment"]


def run_phase(phase: Phase, environ: Mapping[str, str], run_id: str) -> int:
    """Run one of them; return its exit code. Each loads what it needs alone."""
    match phase:
        case "earlier":
            from runnable_ci.github.action.attempts import locate

            locate(environ)
            return 0
        case "begin":
            from runnable_ci.github.action.begin import begin_and_run

            begin_and_run(environ)
            return 0
        case "finish":
            from runnable_ci.github.action.finish import finish

            return finish(environ, run_id)
        case "comment":
            from runnable_ci.github.action.on_pull_request.send import send

            send(environ)
            return 0
