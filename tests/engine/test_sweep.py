"""Tests of how a sweep is read: its values, and the runs that it makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.engine.parts.sweep import split_values, swept_runs


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3,5", ["3", "5"]),
        ("3", ["3"]),
        ("[1,2],[3]", ["[1,2]", "[3]"]),
        ('{"a": [1, "]"]},{}', ['{"a": [1, "]"]}', "{}"]),
        ('"a,b",c', ['"a,b"', "c"]),
        ("a,,b", ["a", "", "b"]),
        ("]a,b", ["]a", "b"]),
        ("", [""]),
    ],
)
def test_values(text: str, values: list[str]) -> None:
    """They are divided by commas outside of brackets and quotes."""
    assert list(split_values(text)) == values


@given(st.lists(st.lists(st.integers(), unique=True, min_size=1, max_size=4), min_size=1, max_size=3))
def test_each_combination_once(axes: list[list[int]]) -> None:
    """The last parameter varies first; ids sort as the runs do, and tell all of them apart."""
    runs = swept_runs([f"p{i}={','.join(map(str, values))}" for i, values in enumerate(axes)], [], "s")
    expected = 1
    for values in axes:
        expected *= len(values)
    assert len({tuple(run.params) for run in runs}) == len(runs) == expected
    ids = [run.run_id for run in runs]
    assert ids == sorted(ids)
    assert [run.params[0] for run in runs] == [f"p0={v}" for v in axes[0] for _ in range(expected // len(axes[0]))]
