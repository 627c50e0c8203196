"""What is noted of a run beside what it did: by people, and whether it makes another one again."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runnable_ci.util.bounded_json import Record


class RunNotes(Record):
    """Notes on a run; of several versions of a run the newest notes count."""

    noted: str = ""
    """When they were written, UTC; empty for a run without any."""
    by: str = ""
    tag: str | None = None
    """The run's label, in place of that with which it began; None where it was not changed."""
    description: str = ""
    pinned: bool = False
    """`gc` and `prune` keep the run."""


Verdict = Literal[
    "reproduced", "within tolerance", "other hardware or packages", "different", "not comparable", "not judged"
]
"""Bit for bit; numbers that are near; not the same, on another machine or with other packages; not the same where all
is; where an input, or what it was, is not there. `not judged` by a later version."""


class StepVerdict(Record):
    """Of one step."""

    verdict: str
    reason: str = ""
    """What differs, or why nothing can be said, in one line."""
    follows: str = ""
    """The step before it from which the difference comes."""


class Variation(Record):
    """Of one step that gave something else from the same."""

    outputs: list[str] = Field(default_factory=list, fail_fast=True)
    """What of it differs, in words."""
    distinct: int = 0
    """How many different results there were."""
    culprits: list[str] = Field(default_factory=list, fail_fast=True)
    """What makes it vary, all of them together where it was proved, else the likeliest first."""
    proved: bool = False
    """With that held it was the same each time."""
    held_times: int = 0
    """How often, where it was proved."""
    evidence: list[str] = Field(default_factory=list, fail_fast=True)
    """What was seen in the contents."""
    refuted: list[str] = Field(default_factory=list, fail_fast=True)
    """With these held it still varied."""
    not_tried: str = ""
    """Why nothing could be held."""


class Reproduction(Record):
    """Of a run that was made to see whether another one comes out again."""

    run_id: str
    """That other run."""
    identity: str = ""
    """What tells it from others of its id."""
    verdict: str
    steps: dict[str, StepVerdict] = Field(default_factory=dict)
    rtol: float = 0.0
    atol: float = 0.0
    not_held: list[str] = Field(default_factory=list, fail_fast=True)
    """What could not be held equal, as it was known before anything ran."""
    left_out: list[str] = Field(default_factory=list, fail_fast=True)
    """Steps that were not run; what needs them had what they gave in the first run. The verdict is on the others."""
    times: int = 1
    """How often it was made."""
    varies: dict[str, Variation] = Field(default_factory=dict)
    """Where it was made several times: step → what of it was not the same each time, and why."""


class MadeFrom(Record):
    """Of a run that was made to find what moved a metric: the run, or the commit, that each part was taken from."""

    purpose: str
    """`why` or `bisect`."""
    code: str = ""
    data: str = ""
    values: str = ""
    packages: str = ""
    """Empty: those that are here."""
    key: str = ""
    """Digest of all that; what was made from the same need not be made once more."""

    def experiment(self) -> str:
        """Return for what the run was made, and of which runs."""
        from runnable_ci.runs.listing.summary import experiment  # few runs are experiments

        return experiment(self.model_dump())

    def __str__(self) -> str:
        parts = {name: getattr(self, name) for name in ("code", "data", "values", "packages")}
        by_source: dict[str, list[str]] = {}
        for name, source in parts.items():
            if source:
                by_source.setdefault(source, []).append(name)
        found = "; ".join(f"{', '.join(names)} of {source}" for source, names in by_source.items())
        return f"{found} (by {self.purpose})"


def note_annotations(notes: RunNotes, reproduction: Reproduction | None, made_from: MadeFrom | None) -> dict[str, str]:
    """Return what a listing of runs shows of all that."""
    return {
        "org.opencontainers.image.description": notes.description[:1000],
        "vnd.runnable.pinned": "true" if notes.pinned else "",
        "vnd.runnable.reproduces": f"{reproduction.run_id}: {reproduction.verdict}" if reproduction else "",
        "vnd.runnable.made-for": made_from.experiment() if made_from else "",
    }
