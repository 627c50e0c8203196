"""Tests of what the importers share: which step needs which, by paths."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.cli.importers.imported import needed, overlaps, strategy

steps = st.sampled_from("abc")
paths = st.lists(st.sampled_from(["x", "y", "xy"]), min_size=1, max_size=3).map("/".join)
files = st.dictionaries(steps, st.lists(paths, max_size=3))


@given(files, files)
def test_needs_are_overlaps(reads: dict[str, list[str]], writes: dict[str, list[str]]) -> None:
    """A step needs just those that write what overlaps with a path that it reads, in the order of the file."""
    assert needed(reads, writes) == {
        step: [
            other
            for other, outs in writes.items()
            if other != step and any(overlaps(path, out) for path in inputs for out in outs)
        ]
        for step, inputs in reads.items()
    }


def test_a_product_is_axes_and_anything_else_a_list() -> None:
    """Equal values of other types are others; the order of the instances is kept."""
    assert strategy([{"a": 1, "b": "x"}, {"a": 1, "b": "y"}]) == {"matrix": {"a": [1], "b": ["x", "y"]}}
    assert strategy([{"a": 1}, {"a": True}]) == {"matrix": {"a": [1, True]}}
    backwards = [{"a": 2, "b": 1}, {"a": 1, "b": 2}]
    assert strategy(backwards) == {"matrix": {"include": backwards}}
