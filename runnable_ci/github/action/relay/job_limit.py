"""After how many minutes GitHub ends a job, as its workflow file says it. Pure.

Source: GitHub docs, "Workflow syntax", `jobs.<job_id>.timeout-minutes` (default: 360, on every runner); "Actions
limits", job execution time (6 hours on a hosted runner).
"""

from __future__ import annotations

from typing import Any, Final

from runnable_ci.pipeline.values.yaml_document import read_yaml

DEFAULT_MINUTES: Final = 360
_HOSTED: Final = "github-hosted"
_KEY: Final = "timeout-minutes"
_LEAST_RESERVE_S: Final = 30.0
_RESERVE_MAX_S: Final = 600.0
_RESERVE: Final = 0.05


def job_limit_minutes(workflow: str | None, job: str, *, runner: str) -> int | None:
    """Return after how many minutes the job is ended; None where that is not known.

    `workflow` is the text of the file that the job is written in, None where it is not here; `runner` is what the
    runner says of itself in `RUNNER_ENVIRONMENT`, which is empty on servers that are not GitHub's.
    """
    found = _table(_table(_read(workflow), "jobs"), job)
    given = found.get(_KEY)
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return min(given, DEFAULT_MINUTES) if runner == _HOSTED else given
    is_default = runner and "steps" in found and _KEY not in found
    return DEFAULT_MINUTES if is_default or runner == _HOSTED else None


def reserve_s(limit_minutes: int) -> float:
    """Return what is left of a job's time for publishing its run, and for what the job does after it."""
    return min(max(_RESERVE * 60 * limit_minutes, _LEAST_RESERVE_S), _RESERVE_MAX_S)


def _read(text: str | None) -> Any:
    try:
        return read_yaml(text) if text is not None else None
    except ValueError:
        return None


def _table(value: Any, key: str = "") -> dict[str, Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}
