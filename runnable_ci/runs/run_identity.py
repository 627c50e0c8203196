"""Which run a run log is of. Its id does not tell: people choose it, and two runs may have the same one. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from runnable_ci.runs.model import Invocation, RunLog

IDENTITY = "vnd.runnable.identity"
BEGUN_BY = "vnd.runnable.begun-by"
CREATED = "org.opencontainers.image.created"
REVISION = "org.opencontainers.image.revision"


def run_identity(log: RunLog) -> str:
    """Return what the logs of one run share, and those of no other run.

    It is made when a run begins. For a run that an earlier version began, which made none, it is the digest of what
    was recorded then. A log in which two beginnings were once mixed has the identity of neither.
    """
    identities = {invocation.identity or _digest(_as_begun(invocation)) for invocation in beginnings(log)}
    return identities.pop() if len(identities) == 1 else _digest(sorted(identities))


def beginnings(log: RunLog) -> list[Invocation]:
    """Return the invocation that began the run (not always the first: clocks differ between machines)."""
    return [invocation for invocation in log.invocations if invocation.command == "run"] or log.invocations[:1]


def describe_beginning(annotations: Mapping[str, str]) -> str:
    """Return who began a run, when and with which code, as far as the annotations of its manifest say."""
    time = annotations.get(CREATED, "")[:19].replace("T", " ")
    actor, commit = annotations.get(BEGUN_BY, ""), annotations.get(REVISION, "")[:7]
    parts = [f"by {actor[:100]}" if actor else "", f"at {time} UTC" if time else "", f"with code {commit}"]
    return " ".join(["begun", *filter(None, parts if commit else parts[:2])]) if time or actor else "of unknown origin"


def _as_begun(invocation: Invocation) -> list[object]:
    """Return the fields that never change after an invocation has begun."""
    return [invocation.start_time, invocation.command, invocation.parameters, invocation.redacted]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
