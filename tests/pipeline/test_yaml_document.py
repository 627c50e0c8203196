"""Tests of YAML: what its versions read alike is that value, the rest is text, refused, or left to a declared type."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runnable_ci.pipeline.values.value_reader import AmbiguousText
from runnable_ci.pipeline.values.yaml_document import read_yaml

VALUES: list[tuple[str, Any]] = [
    ("1", 1),
    ("-7", -7),
    ("0.5", 0.5),
    (".5", 0.5),
    ("1.10", 1.1),
    ("1e-3", 0.001),
    ("2.5e3", 2500.0),
    ("6063e25", "6063e25"),
    ("null", None),
    ("~", None),
    ("", None),
    ("True", True),
    ("false", False),
    ("'no'", "no"),
    ('"1.10"', "1.10"),
    ("!!str 5", "5"),
    ("2026-01-31", "2026-01-31"),
    ("1.2.3", "1.2.3"),
    (".", "."),
    ("|\n  a\n  b\n", "a\nb\n"),
    ("[1, x, [2]]", [1, "x", [2]]),
    ("{a: {b: 1}}", {"a": {"b": 1}}),
    ("{1: x, no: y}", {"1": "x", "no": "y"}),
    (
        "[&a {x: 1}, *a, {<<: *a, y: 2}, {<<: [*a, {z: 3}], x: 4}]",
        [{"x": 1}] * 2 + [{"x": 1, "y": 2}, {"x": 4, "z": 3}],
    ),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_values(text: str, value: Any) -> None:
    """Each form is the value that JSON has for it, keys are text."""
    found = read_yaml(f"x: {text}")["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["no", "Yes", "on", "OFF", "y", "012", "0x1F", "1_000", "12:30", ".inf", "-.INF", ".NaN"]
)
def test_read_in_two_ways(text: str) -> None:
    """A word that is something else for another reader is marked."""
    assert type(read_yaml(f"x: {text}")["x"]) is AmbiguousText


@pytest.mark.parametrize("text", ["a: [1, {b: c}]", "- 1.5\n- true\n- null", "{a: 'x', b: [y, -1]}", "k: plain text"])
def test_as_others_read_it(text: str) -> None:
    """What is plain is what the common reader makes of it."""
    assert read_yaml(text) == yaml.safe_load(text)


LEVELS = "\n".join(
    f"{name}: &{name} [{','.join([f'*{below}'] * 10)}]" for below, name in zip("abcdef", "bcdefg", strict=True)
)
MISTAKES = {
    "not closed": ("a: 1\nb: [", "line 2: "),
    "twice": ("a: 1\nb: 2\na: 3", 'line 3: the key "a" is there twice'),
    "a tag": ("a: !foo x", 'line 1: the tag "!foo" is not JSON'),
    "a tag of a table": ("a: !!python/object:os.system {}", "is not JSON"),
    "within itself": ("a: &a [*a]", "line 1: too much is nested, or repeated by aliases"),
    "a bomb": (f"a: &a [{','.join('x' * 10)}]\n{LEVELS}", "too much is nested, or repeated by aliases"),
    "a list for a key": ("? [1]\n: 2", "line 1: a key is not text"),
    "two documents": ("--- 1\n--- 2", "line 2: but found another document"),
    "deep": ("[" * 5000, "it is not YAML: maximum recursion depth exceeded"),
    "a control character": ("a: 1\nb: \x01", "line 2: special characters are not allowed"),
    "a tab": ("a:\n\tb: 1", "line 2: found character '\\t' that cannot start any token"),
    "no such alias": ("- 1\n- *b", "line 2: found undefined alias 'b'"),
    "merged with text": ("<<: x", "line 1: `<<` needs a table"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(text: str, message: str) -> None:
    """What is wrong is said with its line."""
    with pytest.raises(ValueError, match=r"^(line [0-9]+: |it is not YAML)") as caught:
        read_yaml(text)
    assert message in str(caught.value)
