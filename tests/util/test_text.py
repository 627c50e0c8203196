"""Tests of how values are shown to people."""

from __future__ import annotations

import pytest

from runnable_ci.util.text import as_pair, duration_s, format_age, format_pairs, padded, truncate


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        *((None, ""), (-3.0, "0 s"), (0.4, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (3599.9, "59 min")),
        *((3600.0, "1 h"), (86399.0, "23 h"), (86400.0, "1 day"), (3e6, "34 days")),
    ],
)
def test_age(seconds: float | None, shown: str) -> None:
    """An age has one unit, the largest that it reaches."""
    assert format_age(seconds) == shown


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(
            ("90s", 90),
            ("30m", 1800),
            ("5h30m", 19800),
            ("1d2h3m4s", 93784),
            ("7d", 604800),
            ("2w1h", 1213200),
            ("0h", 0),
        ),
        *(("", None), ("h", None), ("5 h", None), ("30m5h", None), ("-5m", None), ("5", None), ("1234567d", None)),
    ],
)
def test_lengths_of_time(text: str, seconds: float | None) -> None:
    """They are numbers with units, the larger first."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("width", [None, 10, 30, 45, 60, 1000])
def test_rows_fit(width: int | None) -> None:
    """All rows have the width of the widest, at most the one that is there; what is first stays whole."""
    rows = [("NAME", "A", "LONG"), ("a-long-name", "x" * 20, "y" * 40), ("b", "", "z")]
    lines = ["  ".join(cells) for cells in padded(rows, width)]
    assert len({len(line) for line in lines}) == 1
    assert len(lines[0]) == min(max(width or 75, 11), 75) or (width and 11 <= len(lines[0]) <= width)
    assert lines[1].startswith("a-long-name")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "true"), (None, "null"), ({"a": [1, None]}, '{"a": [1, null]}'), ("True", "True"), (0.1 + 0.2, "0.3")],
)
def test_values_are_shown_as_json(value: object, shown: str) -> None:
    """People write parameters as JSON or TOML; how Python would print them they never see."""
    assert truncate(value) == shown


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        (0.5, 0.7, ("0.5", "0.7")),
        (0.1234567, 0.1234568, ("0.1234567", "0.1234568")),
        (0.3, 0.1 + 0.2, ("0.3", "0.30000000000000004")),
        (1, 1.0000001, ("1", "1.0000001")),
        (1, 1.0, ("1", "1")),
        (10**60, 10**60 + 1, (f"1{'0' * 60}", f"1{'0' * 59}1")),
        (float("nan"), float("nan"), ("nan", "nan")),
        (float("inf"), 1.0, ("inf", "1")),
        ([1.0], 1.0, ("[1.0]", "1")),
        (True, 1.0, ("true", "1")),
    ],
)
def test_numbers_that_differ_are_never_shown_as_the_same(before: object, after: object, shown: tuple[str, str]) -> None:
    """As many digits as make them differ, and no more."""
    assert as_pair(before, after) == shown
    assert format_pairs({"a": before, "b": after}) == f"a = {shown[0]}, b = {shown[1]}"
