"""The environment in which the action was used, for its last steps: what the pipeline's steps set is not in it.

What a step writes to `GITHUB_ENV` and `GITHUB_PATH` is for later steps of the job, and the runner gives it to the
action's own last steps too: programs of the step's choice, a proxy and certificates by which they would send the token.
So the environment is written down before the pipeline begins, and a last step takes it in place of its own.

Imports nothing that the variables of a step could direct, such as OpenSSL.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from runnable_ci.github import commands as workflow
from runnable_ci.github.commands import Annotation
from runnable_ci.redaction.environment import OF_THE_JOB
from runnable_ci.util.console import console
from runnable_ci.util.process import exec_program
from runnable_ci.vcs.actor import is_pull_request

KEPT = "RUNNABLE_CI_JOB_ENVIRONMENT"
"""The variable with the file's path."""
OF_THE_STEP = frozenset(
    {"RUNNABLE_CI_GITHUB_TOKEN", "RUN_ID"}
    | {f"RUNNABLE_CI_ACTION_{name}" for name in ("COMMAND", "PIPELINE", "PUBLISH", "OUTCOME", "ARGS", "RELAY_MAX")}
    | {f"RUNNABLE_CI_ACTION_{name}" for name in ("WORKING_DIRECTORY", "SUMMARY", "RUN_ID", "MATRIX", "STEP")}
    | {f"RUNNABLE_CI_ACTION_{name}" for name in ("COMMENT", "FAIL_IF", "REPORT", "REPORT_URL", "MESSAGE")}
    | {f"RUNNABLE_CI_ACTION_{name}" for name in ("STEPS", "INSTANCES", "MATRIX_OF", "COLLECT")}
    | {f"RUNNABLE_CI_ACTION_JOB_{name}" for name in ("WORKFLOW_REF", "NUMBER", "TOKEN")}
    | {"GITHUB_ACTION", "GITHUB_ACTION_PATH"}
    | {f"GITHUB_{name}" for name in ("OUTPUT", "STEP_SUMMARY", "ENV", "PATH", "STATE")}
)
"""What `action.yml` and the runner set for a last step itself: no step before it can set these."""
_OF_THE_RUNNER = ("GITHUB_", "RUNNER_")
_GONE = "the environment that was kept for this step is gone: it runs without the variables of the job"


def keep(environ: Mapping[str, str], folder: Path) -> Path:
    """Write the environment into a new file that only this user may read, without the values of the job's tokens."""
    file = folder / f"environment-{os.urandom(8).hex()}.json"
    kept = {name: "" if name in OF_THE_JOB else value for name, value in environ.items()}
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
        json.dump(kept, opened)
    return file


def restored(environ: Mapping[str, str], kept: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a last step; without the one that was kept, what the runner sets and no more."""
    if kept is None:
        base = {name: value for name, value in environ.items() if name.startswith(_OF_THE_RUNNER)}
        base["PATH"] = os.defpath
    else:
        base = {name: environ.get(name, "") if name in OF_THE_JOB else value for name, value in kept.items()}
    return base | {name: environ[name] for name in OF_THE_STEP if name in environ}


def _take(file: Path, *, is_last: bool) -> dict[str, str] | None:
    """Return what was kept, for the last time or not; None where it is gone, or something else is in its place."""
    try:
        found = json.loads(file.read_bytes())
        if is_last:
            file.unlink()
        return {str(name): str(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def main() -> None:
    """Become one of the action's last steps, `finish` or `comment`, in the environment that was kept."""
    phase = sys.argv[1] if len(sys.argv) > 1 else "finish"
    is_last = phase == "comment" or not is_pull_request(os.environ.get("GITHUB_EVENT_NAME", ""))
    kept = _take(Path(os.environ.get(KEPT, "")), is_last=is_last)
    if kept is None:
        console.commands(workflow.annotate(Annotation("warning", _GONE, title="runnable-ci")))
    words = ["action", phase, f"--run-id={os.environ.get('RUN_ID', '')}"]
    exec_program([sys.executable, "-I", "-m", "runnable_ci", *words], restored(os.environ, kept))


if __name__ == "__main__":
    main()
