"""Whether a published run is being written at this moment, by all that its parts say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from runnable_ci.runs.live.life_sign import LifeSign, WriterElsewhere
from runnable_ci.runs.model import PROCESSING, RunLog
from runnable_ci.runs.run_identity import invocation_digest


class LivePart(Protocol):
    """What one writer published of a run."""

    @property
    def log(self) -> RunLog:
        """As it was then."""

    @property
    def sign(self) -> LifeSign | None:
        """Of a part of a run in progress."""

    @property
    def writer(self) -> object:
        """Who wrote it, as text."""


def writer_now(parts: Iterable[LivePart], merged: RunLog, *, registry: str, now_s: float) -> WriterElsewhere | None:
    """Return who is writing the run, by the sign of life that lasts longest; None where nobody is.

    What another part says of the end of an invocation counts, though its process may still be at it.
    """
    ended = {invocation_digest(one) for one in merged.invocations if one.status != PROCESSING}
    alive = [
        WriterElsewhere(part.sign, str(part.writer), registry)
        for part in parts
        if part.sign is not None
        and part.sign.is_alive(now_s)
        and part.log.invocations
        and invocation_digest(part.log.invocations[-1]) not in ended
    ]
    return max(alive, key=lambda one: one.sign.until_s, default=None)
