"""What two contents tell of why they differ, and how a culprit is proved."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile

import pytest

from runnable_ci.analysis.reproduction.determinism.culprits import Culprit
from runnable_ci.analysis.reproduction.determinism.evidence import evidence
from runnable_ci.analysis.reproduction.determinism.proof import (
    STEP_RUNS_MAX,
    CulpritProof,
    Held,
    RunsLeft,
    times_needed,
)


def first(a: bytes, b: bytes, name: str = "out.txt") -> str:
    """The likeliest culprit."""
    found = sorted(evidence(name, a, b, ids={"run-1", "run-2"}, host="box7"), key=lambda one: -one.weight)
    return found[0].culprits[0] if found else ""


def zipped(year: int, content: str = "a") -> bytes:
    """A zip of one member of that year."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt", (year, 1, 1, 0, 0, 0)), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("a", "b", "name", "culprit"),
    [
        (b"at 2026-01-02T03:04:05Z x", b"at 2026-01-02T03:04:06Z x", "out.txt", "time"),
        (b"1767323045.5", b"1767323046.25", "out.txt", "time"),
        (b"<C object at 0x7f12345678>", b"<C object at 0x7f12345abc>", "out.txt", "address"),
        (b"in /tmp/tmpab12cd34/x", b"in /tmp/tmpzz12cd34/x", "out.txt", "path"),
        (b"made by run-1", b"made by run-2", "out.txt", "run-id"),
        (b"on box7 done", b"on box8 done", "out.txt", "host-name"),
        (b"a\nb\nc\n", b"c\na\nb\n", "out.txt", "hash-order"),
        (b'{"a": 1, "b": 2}', b'{"b": 2, "a": 1}', "out.json", "hash-order"),
        (b"1.2345678901234567", b"1.2345678901234569", "out.txt", "threads"),
        (b"0.52", b"0.77", "out.txt", "random"),
        (b"pid 12", b"pid 13", "out.txt", "process-id"),
        (b"took 0.52 seconds", b"took 0.77 seconds", "out.txt", "time"),
        (zipped(2020), zipped(2021), "out.zip", "time"),
        (zipped(2020, "0.5"), zipped(2020, "0.7"), "out.zip", "random"),
        (gzip.compress(b"a", mtime=1_700_000_000), gzip.compress(b"a", mtime=1_700_000_009), "out.gz", "time"),
        (pickle.dumps(["2026-01-02", 1]), pickle.dumps(["2026-01-03", 1]), "it", "time"),
        (pickle.dumps(["a", "b", "c"]), pickle.dumps(["c", "a", "b"]), "it", "hash-order"),
        (b"\x1f\x8bbroken", b"\x1f\x8bother", "out.gz", ""),
        (b"\x80\x04broken", b"\x80\x04other", "it", ""),
        (b"PK\x03\x04broken", b"PK\x03\x04other", "out.zip", ""),
        (b"cat", b"dog", "out.txt", ""),
    ],
)
def test_what_contents_tell(a: bytes, b: bytes, name: str, culprit: str) -> None:
    """Each kind of difference speaks for its culprit, and what is broken or says nothing for none."""
    assert first(a, b, name) == culprit


def test_a_single_culprit_is_proved() -> None:
    """The one with which it is the same each time, though others are likelier."""
    made: list[Held] = []

    def make(held: Held, _moment: int) -> str:
        made.append(held)
        return "same" if "time" in held else str(len(made))

    proof = CulpritProof(make, 5)
    assert proof.find(["random", "time"], ["path"]) == frozenset[Culprit](["time"])
    assert (proof.refuted, len(made)) == (["random"], 2 + 5)


def test_the_smallest_set_is_proved() -> None:
    """Where several make it vary, those and no more."""
    count = [0]

    def make(held: Held, _moment: int) -> str:
        count[0] += 1
        return "same" if {"time", "path"} <= held else str(count[0])

    assert CulpritProof(make, 3).find(["random"], ["time", "hash-order", "path"]) == frozenset[Culprit](
        ["time", "path"]
    )


def test_nothing_is_proved_where_it_varies_whatever_is_held() -> None:
    """Nor where the step ends in another way than it does without."""
    count = [0]

    def make(held: Held, _moment: int) -> str:
        count[0] += 1
        return str(count[0])

    assert CulpritProof(make, 3).find(["random"], ["time"]) is None
    assert CulpritProof(lambda _held, _moment: "", 3).find(["random"], ["time"]) is None


def test_few_results_are_not_the_same_by_chance() -> None:
    """The more often a result comes, the more runs have to be the same before that is a proof."""
    assert times_needed({"a": 1, "b": 1}) == times_needed({"a": 2, "b": 2}) == 7
    assert times_needed({"a": 3, "b": 1}) == 17
    assert times_needed(dict.fromkeys("abcd", 1)) == times_needed(dict.fromkeys("abcdefghijkl", 1)) == 5
    assert times_needed({"a": 4}) > STEP_RUNS_MAX


def test_the_runs_are_bounded() -> None:
    """No step takes more than so many runs, nor do all together; what was not tried to the end is not proved."""
    left = RunsLeft(50)
    proof = CulpritProof(lambda held, _moment: "same" if "time" in held else "random", 60, left)
    assert proof.find([], ["path"]) is None
    assert (proof.runs, left.number) == (50, 0)
    assert proof.cut_short == "50 runs were made with something held, and no more are made"
    slow = CulpritProof(lambda held, _moment: str(proof_runs(held)), 45)
    assert slow.find(["random", "time", "path"], []) is None
    assert slow.runs == STEP_RUNS_MAX
    rare = CulpritProof(lambda _held, _moment: "same", STEP_RUNS_MAX + 1)
    assert (rare.find(["random"], []), rare.runs) == (None, 0)
    assert rare.cut_short == "it varies too rarely: 81 runs would be needed"


def proof_runs(held: Held, counted: list[Held] = []) -> bool:  # noqa: B006 - it counts
    """Whether it is another result: each fortieth is."""
    counted.append(held)
    return len(counted) % 40 == 0


def test_a_clock_of_minutes_is_found() -> None:
    """Runs within a minute do not show it: held, the clock shows another one."""

    def make(held: Held, moment: int) -> str:
        made.append(held)
        stamp = str(moment) if "time" in held else "now"
        return stamp if "random" in held else f"{stamp} {len(made)}"

    made: list[Held] = []
    assert CulpritProof(make, 5).find(["random"], ["time", "path"]) == frozenset[Culprit](["random", "time"])


def test_what_the_held_clock_moves_is_no_clock() -> None:
    """Its hook is another program in the step: an address is another one with it, whatever the time."""

    def make(held: Held, _moment: int) -> str:
        made.append(held)
        return str(0x7000 + len(held)) if "address" in held else str(len(made))

    made: list[Held] = []
    assert CulpritProof(make, 5).find(["address"], ["time", "path"]) == frozenset[Culprit](["address"])


def test_a_step_that_follows_has_no_cause() -> None:
    """With those before it held it is the same: nothing of its own is said."""
    assert (
        CulpritProof(lambda _held, _moment: "same", 5).find(["random"], ["time"], varies_above=True)
        == frozenset[Culprit]()
    )
