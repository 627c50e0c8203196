"""Tests of text as a value: it keeps its text, or is what is declared."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.pipeline.values.value_reader import environment_text, read_boolean, read_metric, read_untyped

UNTYPED: list[tuple[str, Any]] = [
    ("1", 1),
    ("-1", -1),
    ("0.5", 0.5),
    ("1.0", 1.0),
    ("1e-5", 1e-5),
    ("1e-05", 1e-5),
    ("1E-5", 1e-5),
    ("2.5e+20", 2.5e20),
    ("2.5e20", 2.5e20),
    ("true", True),
    ("null", None),
    ('{"a": [1]}', {"a": [1]}),
    ('{"a": 1.10}', {"a": 1.1}),
    ("[ 1,2 ]", [1, 2]),
    *((text, text) for text in ("6063e25", "1.10", "007", "01", "+5", "-0", "1e5", "1e00016", "1_000", " 5", "5 ")),
    *((text, text) for text in ("True", "no", "NaN", "-Infinity", "1e999", '"quoted"', "text", "", ".5", "5.", "0x1f")),
    *((text, text) for text in ("[" * 100_000, "9" * 5000, "9" * 2000, '["\\udcff"]', '{"a": 1e999}', "[NaN]")),
]


@pytest.mark.parametrize(("text", "value"), UNTYPED, ids=[text[:10] for text, _ in UNTYPED])
def test_untyped(text: str, value: Any) -> None:
    """Text is a value only where writing that gives the same text; two spellings of an exponent are the same."""
    assert read_untyped(text) == value
    assert type(read_untyped(text)) is type(value)


def spelled(number: str) -> str:
    """A number with its exponent in one of its spellings."""
    return re.sub(r"e\+?(-?)0?(\d)", r"e\1\2", number.lower())


@given(st.from_regex(r"[-+]?[0-9.]{0,8}([eE][-+]?[0-9]{1,4})?|[0-9a-f]{1,9}", fullmatch=True))
def test_untyped_keeps_its_text(text: str) -> None:
    """Whatever looks like a number comes back, as a variable, as it was."""
    assert spelled(environment_text(read_untyped(text))) == spelled(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(JSON)
def test_value_survives_the_environment(value: Any) -> None:
    """A parameter that a step reads and returns is the same parameter, except text that looks like JSON."""
    text = environment_text(value)
    assert text == value if isinstance(value, str) else read_untyped(text) == value


METRICS: list[tuple[str, Any]] = [
    *((text, "NaN") for text in ("nan", "NaN", "-nan", "NAN", "nan(0x8000)", "NA")),
    *((text, "Infinity") for text in ("inf", "Inf", "+inf", "Infinity", "INF")),
    *((text, "-Infinity") for text in ("-inf", "-Inf", "-Infinity")),
    *((".50", 0.5), ("-.5", -0.5), ("+0.5", 0.5), ("5.", 5.0), ("007", 7), ("1.10", 1.1), ("1E+05", 1e5)),
    *((" 12\r", 12), ("0.1e-1", 0.01), ("[1, 2.5]", [1, 2.5]), ('{"a": {"b": -Infinity}}', {"a": {"b": "-Infinity"}})),
]


@pytest.mark.parametrize(("text", "value"), METRICS)
def test_metric(text: str, value: Any) -> None:
    """What C, Python, bc and R print is a number."""
    assert json.dumps(read_metric(text)) == json.dumps(value)


@pytest.mark.parametrize(
    "text", ["", "high", "true", "null", '"1"', "1,5", "95%", "0x1f", "1_000", "1e999", "[true]", '{"a": null}', "--1"]
)
def test_no_metric(text: str) -> None:
    """What no program prints for a number is none."""
    with pytest.raises(ValueError, match=r"^is (not a number|too large)"):
        read_metric(text)


def test_boolean() -> None:
    """The words for true and false of the common formats, in any letter case, and no other."""
    assert [read_boolean(text) for text in ("true", "YES", "On", "1")] == [True] * 4
    assert [read_boolean(text) for text in ("false", "No", "oFF", " 0 ")] == [False] * 4
    for text in ("", "2", "t", "nil", "yes!"):
        with pytest.raises(ValueError, match="is not a boolean"):
            read_boolean(text)
