"""Tests of the globs of `catalog`: whether two can match one name, held against trying all names."""

from __future__ import annotations

from itertools import product
from pathlib import PurePosixPath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runnable_ci.pipeline import patterns
from runnable_ci.pipeline.overlaps import Overlap, find_overlap
from runnable_ci.pipeline.patterns import as_glob, can_overlap, globs_of, literal_prefix, matches, may_name, select

COMPONENTS = st.lists(st.sampled_from(["a", "b", "*", "?", "[ab]", "[!a]", "[", "b]"]), min_size=1, max_size=3).map(
    "".join
)
PATTERNS = st.lists(COMPONENTS | st.just("**"), min_size=1, max_size=3).map("/".join)
WORDS = ["".join(letters) for length in (1, 2, 3, 4) for letters in product("ab[]", repeat=length)]
SHORT = [word for word in WORDS if len(word) <= 2]
ODD = st.lists(st.sampled_from(["a", "b", ".", "..", "/", "//"]), max_size=6).map("".join)
NAMES = [*WORDS, *("/".join(parts) for parts in product(SHORT, repeat=2))]


@given(PATTERNS, PATTERNS)
def test_what_both_match_is_an_overlap(one: str, other: str) -> None:
    """No name of some thousands is matched by two globs that are said not to overlap, and prefixes never hide one."""
    shared = next((name for name in NAMES if matches(one, name) and matches(other, name)), None)
    if shared is not None:
        assert can_overlap(one, other), shared
        first, second = sorted((literal_prefix(one), literal_prefix(other)))
        assert second.startswith(first)


COMPONENT = st.text("ab*?", min_size=1, max_size=3).filter(lambda text: "**" not in text)


@given(COMPONENT, COMPONENT)
def test_an_overlap_is_what_both_match(one: str, other: str) -> None:
    """Of two globs in one folder that overlap there is a name; and the order does not matter."""
    assert can_overlap(one, other) == can_overlap(other, one)
    assert can_overlap(one, other) == any(matches(one, name) and matches(other, name) for name in WORDS_AND_MORE)


WORDS_AND_MORE = ["".join(letters) for length in range(1, 7) for letters in product("ab", repeat=length)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("out.txt", "out.txt", True),
        ("out.txt", "./out.txt", True),
        ("out.txt", "out2.txt", False),
        ("out", "out/a.txt", True),
        ("out", "output", False),
        ("a[1]", "a[[]1]", True),
        ("a[1]", "a1", True),
        ("a[1]", "a[1]", True),
        ("a[1]*", "a[[]1]", False),
        ("out/**", "out", True),
        ("*.csv", "data/*.csv", False),
        ("*.csv", "data*/*.csv", True),  # by a folder `data.csv`
        ("*.csv", "data", False),
        ("**/*.csv", "data/a.csv", True),
        ("**/*.csv", "data/a.png", True),  # by a folder `data/a.png`
        ("data/**/x", "data/x", True),
        ("part-[0-4].bin", "part-[5-9].bin", False),
        ("part-[0-5].bin", "part-[5-9].bin", True),
        ("[!a]", "a", False),
        ("[!a]", "[!b]", True),
        ("a*b*c", "ab*d*c", True),
        ("a*b", "*c", False),
        ("model-*.bin", "model-?.txt", False),
        ("[]]", "]", True),
        ("[a", "[a", True),
        ("[!]", "[!]", True),
        ("[!]", "x", False),
    ],
)
def test_pairs(one: str, other: str, expected: bool) -> None:
    """What people write."""
    assert can_overlap(one, other) is expected
    assert can_overlap(other, one) is expected


def test_only_steps_that_may_run_at_once_overlap() -> None:
    """A step may put what one put that it needs, also by others; of two that nothing orders the first pair is named."""
    chain = {"a": [], "b": ["a"], "c": ["b"]}
    same = {name: ["out/*"] for name in chain}
    assert find_overlap(chain, same) is None
    assert find_overlap({"a": [], "b": []}, {"a": [], "b": ["x"]}) is None
    fork = {"a": [], "b": ["a"], "c": ["a"]}
    assert find_overlap(fork, {"a": ["x"], "b": ["log", "out/1"], "c": ["out/*"]}) == Overlap(
        "b", "out/1", "c", "out/*"
    )


def test_thousands_of_steps_are_compared() -> None:
    """Side by side with a folder each, and in a chain with one folder for all."""
    many: dict[str, list[str]] = {f"s{i}": [] for i in range(3_000)}
    assert find_overlap(many, {name: [f"out/{name}/*", f"log-{name}*.txt"] for name in many}) == Overlap(
        "s1", "log-s1*.txt", "s10", "log-s10*.txt"
    )
    chain = {f"s{i}": [f"s{i - 1}"] if i else [] for i in range(1_000)}
    assert find_overlap(chain, {name: ["out/*"] for name in chain}) is None


@pytest.mark.parametrize(
    ("pattern", "names", "expected"),
    [
        ("r [1].txt", ["r 1.txt", "r [1].txt"], ["r [1].txt"]),
        ("r [1].txt", ["r 1.txt", "r 2.txt"], ["r 1.txt"]),
        ("d[0]", ["d[0]/x", "d0/x", "d[0]/deep/y"], ["d[0]/x", "d[0]/deep/y"]),
        ("d[0]/*.csv", ["d[0]/a.csv", "d0/b.csv"], ["d[0]/a.csv"]),
        ("d[0]/*.csv", ["d[0]/a.txt", "d0/b.csv"], ["d0/b.csv"]),
        ("*[0]", ["*[0]", "a0"], ["a0"]),
        ("d[[]0]", ["d[0]", "d[[]0]"], ["d[[]0]"]),
        ("d[[]0]", ["d[0]", "d0"], ["d[0]"]),
        ("a", ["a", "b"], ["a"]),
    ],
)
def test_a_name_that_exists_is_what_is_asked_for(pattern: str, names: list[str], expected: list[str]) -> None:
    """Brackets are a class only where no file has the name that they spell."""
    assert select(pattern, names) == expected
    assert all(may_name(pattern, name) for name in expected)


@given(ODD, ODD)
@example("a/b", "./a//b/./c")
@example("", "a")
def test_a_plain_pattern_means_a_name_and_all_below(pattern: str, name: str) -> None:
    """However both are written."""
    parts, of_name = PurePosixPath(pattern).parts, PurePosixPath(name).parts
    assert matches(pattern, name) == (of_name[: len(parts)] == parts)
    assert select(pattern, [name, "a"]) == [it for it in (name, "a") if matches(pattern, it)]


def test_most_names_are_left_out_at_a_glance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that gets one file of a thousand others, as each of a chain may, does not take all of them apart."""
    taken_apart = []

    def match(_pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
        taken_apart.append(name)
        return True

    monkeypatch.setattr(patterns, "_match", match)
    assert select("out/0007", [f"out/{number:04}" for number in range(1000)]) == ["out/0007"]
    assert taken_apart == [("out", "0007")]


@given(PATTERNS, st.lists(st.sampled_from(NAMES), max_size=8, unique=True))
def test_what_is_selected_may_be_named(pattern: str, names: list[str]) -> None:
    """What a glob selects among some files it may name whatever others there are; and it selects what it can."""
    found = select(pattern, names)
    assert all(may_name(pattern, name) for name in found)
    assert bool(found) == any(may_name(pattern, name) for name in names)


@given(PATTERNS, PATTERNS)
def test_what_both_may_name_is_an_overlap(one: str, other: str) -> None:
    """Parallel steps are refused also where one pattern means a literal name."""
    if any(may_name(one, name) and may_name(other, name) for name in SOME_NAMES):
        assert can_overlap(one, other)


SOME_NAMES = [*WORDS, *("/".join(parts) for parts in product(SHORT[:6], repeat=2))]


PIECES = st.lists(st.sampled_from(["a", "b.", "/", "${{ x }}", "${{ matrix.y }}"]), min_size=1, max_size=7)
VALUES = st.lists(st.sampled_from(["a", "b", "a/b", "b/a/a"]), min_size=7, max_size=7)


def pattern_and_name(pieces: list[str], values: list[str]) -> tuple[str, str]:
    """Return a path with expressions, and as it is with values in their places."""
    given = zip(pieces, values, strict=False)
    return "".join(pieces), "".join(value if piece.startswith("$") else piece for piece, value in given)


@given(PIECES, VALUES, VALUES)
def test_a_path_is_matched_whatever_its_values_are(pieces: list[str], values: list[str], others: list[str]) -> None:
    """Also where they have a `/`; and two with one name overlap."""
    pattern, name = pattern_and_name(pieces, values)
    assert matches(as_glob(pattern), name)
    assert can_overlap(as_glob(pattern), name.replace("a", "?"))
    rest, _ = pattern_and_name(pieces[::-1], others)
    if matches(as_glob(rest), name):
        assert can_overlap(as_glob(pattern), as_glob(rest))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("${{ matrix.p }}.up", "data/a.txt.up", True),
        ("${{ matrix.p }}.up", "data/a.txt", False),
        ("o/x-${{ p }}.csv", "o/x-1/2.csv", True),
        ("o/x-${{ p }}.csv", "o/y/x-1.csv", False),
        ("o/x-${{ p }}.csv", "o/x-1/2.csv.gz", False),
        ("o/${{ p }}-${{ q }}", "o/a/b-c/d", True),
        ("o/${{ p }}-${{ q }}", "o/a/b", False),
    ],
)
def test_a_value_may_become_several_names(pattern: str, name: str, expected: bool) -> None:
    """What stands around an expression is still there."""
    assert matches(as_glob(pattern), name) is expected
    assert globs_of(as_glob(pattern))[0].count("*") == pattern.count("${{")
