"""Which runs may go, by their number and their age. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from runnable_ci.errors import UsageError
from runnable_ci.util.text import duration_s

EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Retention:
    """Which runs stay: the `keep` newest, and those that ended less than `older_than` (`30m`, `12h`, `8w`) ago."""

    keep: int | None
    older_than: str | None

    def outdated(self, ended: Sequence[str], *, moment: datetime, experiments: Collection[int] = ()) -> frozenset[int]:
        """Return the places of the runs that may go, by the times of their ends, the newest last; without a rule none.

        `experiments` are the places of those that do not count as one of the newest: they go with the runs of their
        time. Raises `UsageError` for what is no age.
        """
        oldest = None if self.older_than is None else before(moment, self.older_than, "--older-than")
        if self.keep is None and oldest is None:
            return frozenset()
        counted = [place for place in range(len(ended)) if place not in experiments]
        keep = self.keep or 0
        candidates = ended[: 0 if keep > len(counted) else [*counted, len(ended)][-keep - 1]]
        return frozenset(
            place for place, time in enumerate(candidates) if oldest is None or _time(time, otherwise=moment) < oldest
        )


@dataclass(frozen=True, slots=True)
class KeepRule:
    """Which runs of a store stay."""

    retention: Retention
    pinned: Collection[str] = ()
    """They stay whatever the retention says."""
    unwanted: Collection[str] = ()
    """They go."""
    experiments: Collection[str] = ()
    """They do not count as one of the newest."""


@dataclass(frozen=True, slots=True)
class GcPlan:
    """What goes from a store: runs, and the blobs that no run which stays refers to."""

    removed: Sequence[str]
    kept: Sequence[str]
    blobs: Sequence[tuple[str, int]]
    """Digest and size in bytes."""

    @property
    def size_bytes(self) -> int:
        """What that frees."""
        return sum(size for _, size in self.blobs)


def plan_gc(
    runs: Sequence[tuple[str, str]],
    blobs: Iterable[tuple[str, int]],
    *,
    referenced_by: Callable[[str], Collection[str]],
    rule: KeepRule,
    moment: datetime,
) -> GcPlan:
    """Return what goes of `runs` (id and time of the end, the newest last) and of `blobs` (digest and size).

    `referenced_by` gives the digests of all that a run needs; it is asked for runs that stay.
    """
    experiments = {place for place, (run_id, _) in enumerate(runs) if run_id in rule.experiments}
    outdated = rule.retention.outdated([ended for _, ended in runs], moment=moment, experiments=experiments)
    old = {run_id for place, (run_id, _) in enumerate(runs) if place in outdated}
    going = old - set(rule.pinned) | set(rule.unwanted)
    removed = [run_id for run_id, _ in runs if run_id in going]
    kept = [run_id for run_id, _ in runs if run_id not in going]
    referenced = {digest for run_id in kept for digest in referenced_by(run_id)}
    return GcPlan(removed, kept, [(digest, size) for digest, size in blobs if digest not in referenced])


def before(moment: datetime, text: str, option: str) -> datetime:
    """Return the time that is a length of time before a moment. Raises `UsageError` for what is none."""
    length_s = duration_s(text)
    if length_s is None:
        raise UsageError(f"{option} {text}: expected a length of time", hint="such as 30m, 12h, 30d or 8w")
    try:
        return moment - timedelta(seconds=length_s)
    except OverflowError:  # there was no year before the first
        return EARLIEST


def _time(text: str, *, otherwise: datetime) -> datetime:
    """Return a time of a run log; one that cannot be read counts as now, so that its run stays."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return found if found.tzinfo else found.replace(tzinfo=UTC)
