"""Which runs may go: by number, by age, by both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from runnable_ci.errors import UsageError
from runnable_ci.runs.retention import EARLIEST, KeepRule, Retention, before, plan_gc

MOMENT = datetime(2026, 11, 24, 12, tzinfo=UTC)
RUNS = [
    ("old", "2026-10-01T00:00:00+00:00"),
    ("week", "2026-11-16T12:00:00+00:00"),
    ("naive", "2026-11-22T12:00:00"),
    ("odd", "yesterday"),
    ("new", "2026-11-24T11:00:00+00:00"),
]


@pytest.mark.parametrize(
    ("keep", "older_than", "going"),
    [
        (None, None, []),
        (0, None, ["old", "week", "naive", "odd", "new"]),
        (2, None, ["old", "week", "naive"]),
        (9, None, []),
        (None, "1w", ["old", "week"]),
        (None, "8d", ["old"]),
        (None, "24h", ["old", "week", "naive"]),
        (4, "1w", ["old"]),
        (0, "0h", ["old", "week", "naive", "new"]),
    ],
)
def test_what_goes(keep: int | None, older_than: str | None, going: list[str]) -> None:
    """What is neither among the newest nor young goes; a run whose time cannot be read is never old."""
    outdated = Retention(keep, older_than).outdated([ended for _, ended in RUNS], moment=MOMENT)
    assert [RUNS[place][0] for place in sorted(outdated)] == going


@pytest.mark.parametrize(
    ("keep", "older_than", "going"),
    [(0, None, [0, 1, 2, 3, 4]), (1, None, [0, 1, 2]), (2, None, [0]), (3, None, []), (1, "1w", [0, 1])],
)
def test_an_experiment_is_none_of_the_newest(keep: int, older_than: str | None, going: list[int]) -> None:
    """Those that were made after the oldest run that stays, stay with it: here of the runs at 1 and 3."""
    ended = [ended for _, ended in RUNS]
    found = Retention(keep, older_than).outdated(ended, moment=MOMENT, experiments={0, 2, 4})
    assert sorted(found) == going


def test_two_runs_with_one_id_are_two() -> None:
    """Places tell runs apart, as ids do not in a registry."""
    assert Retention(1, None).outdated(["2026-11-01T00:00:00+00:00", "2026-11-02T00:00:00+00:00"], moment=MOMENT) == {0}


def test_a_blob_goes_with_the_last_run_that_refers_to_it() -> None:
    """What a run that stays needs stays, and nobody asks what one needs that goes: its log may be damaged."""
    references: dict[str, set[str]] = {"old": set(), "week": {"a", "shared"}, "new": {"b", "shared"}}
    blobs = [("a", 1), ("b", 2), ("shared", 4), ("nobody's", 8)]
    runs = [RUNS[0], RUNS[1], RUNS[4]]

    def plan(
        keep: int | None, pinned: Sequence[str] = (), unwanted: Sequence[str] = ()
    ) -> tuple[list[str], list[str], int]:
        rule = KeepRule(Retention(keep, None), pinned, unwanted)
        made = plan_gc(runs, blobs, referenced_by=references.__getitem__, rule=rule, moment=MOMENT)
        return list(made.removed), [digest for digest, _ in made.blobs], made.size_bytes

    assert plan(2) == (["old"], ["nobody's"], 8)
    assert plan(1) == (["old", "week"], ["a", "nobody's"], 9)
    assert plan(0) == (["old", "week", "new"], ["a", "b", "shared", "nobody's"], 15)
    assert plan(0, pinned=["week"]) == (["old", "new"], ["b", "nobody's"], 10)
    assert plan(None, unwanted=["new"]) == (["new"], ["b", "nobody's"], 10)


@pytest.mark.parametrize("text", ["", "1", "d", "1.5d", "-1d", "1d ", "9999999d"])
def test_no_age(text: str) -> None:
    """Anything but a length of time is refused; one that no calendar holds is longer than all."""
    with pytest.raises(UsageError, match="expected a length of time"):
        before(MOMENT, text, "--older-than")
    assert before(MOMENT, "30m", "") == MOMENT - timedelta(minutes=30)
    assert before(MOMENT, "999999d", "") == EARLIEST
