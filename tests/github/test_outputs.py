"""Tests of the action's outputs that may be of any size."""

from __future__ import annotations

import json
import subprocess

from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.github.action.outputs import MOST_CHARACTERS, metrics_output, names_output


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)))
def test_metrics_that_fit_are_there(metrics: dict[str, object]) -> None:
    """As any JSON of them."""
    assert metrics_output(metrics) == (json.dumps(metrics), [])


def test_a_metric_that_is_too_large_keeps_no_other_out() -> None:
    """Each is there whole or not at all, in its order; and what is there can be a step's variable."""
    metrics = {
        **{f"table.k{n}": n for n in range(9_000)},
        "first": 1.5,
        "matrix": ["\u00e9" * 10] * 9_000,
        **{f"m{n}": n / 7 for n in range(9_000)},
        "last": 1,
    }
    found = metrics_output(metrics)
    kept = json.loads(found.text)
    assert MOST_CHARACTERS - 100 < len(found.text) <= MOST_CHARACTERS
    assert list(kept) == [name for name in metrics if name in kept]
    assert {"first", "m1"} <= kept.keys()
    assert "matrix" in found.left_out
    assert {**kept, **{name: metrics[name] for name in found.left_out}} == metrics
    assert subprocess.run(["true"], env={"METRICS": found.text}, check=True).returncode == 0


def test_names_are_never_cut() -> None:
    """Those that do not fit are left out, and said."""
    names = [f"step-{number}" for number in range(20_000)]
    found = names_output(names)
    assert len(found.text) <= MOST_CHARACTERS
    assert [*found.text.split(","), *found.left_out] == names
    assert names_output([]) == ("", [])
