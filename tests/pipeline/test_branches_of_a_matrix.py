"""Tests of a matrix: which instances it makes, and how each is known."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.pipeline.branches.matrix import BRANCHES_MAX, AxisError, canonical, combinations, instances, told_apart

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_the_example_of_github_s_documentation() -> None:
    """Additions go to the combinations that they fit, in order; what fits none is an instance of its own."""
    include = [
        {"color": "green"},
        {"color": "pink", "animal": "cat"},
        {"fruit": "apple", "shape": "circle"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]
    made = combinations({"fruit": ["apple", "pear"], "animal": ["cat", "dog"]}, include)
    assert made == [
        {"fruit": "apple", "animal": "cat", "color": "pink", "shape": "circle"},
        {"fruit": "apple", "animal": "dog", "color": "green", "shape": "circle"},
        {"fruit": "pear", "animal": "cat", "color": "pink"},
        {"fruit": "pear", "animal": "dog", "color": "green"},
        {"fruit": "banana"},
        {"fruit": "banana", "animal": "cat"},
    ]


@given(st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(0, 3), max_size=4), min_size=1), st.data())
def test_what_is_excluded_is_gone(axes: dict[str, list[int]], data: st.DataObject) -> None:
    """All combinations are made, the last axis changing fastest, but those with all values of an exclusion."""
    wrong = data.draw(st.dictionaries(st.sampled_from(sorted(axes)), st.integers(0, 3), min_size=1))
    every = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    assert combinations(axes) == every
    left = [one for one in every if any(one[name] != value for name, value in wrong.items())]
    assert combinations(axes, exclude=[wrong]) == left


@given(st.lists(JSON, max_size=8))
def test_an_instance_is_its_value(values: list[Any]) -> None:
    """Its key depends on its value alone, differs for each, and is fit for a file's name; its label shows the value."""
    made = instances(combinations({"x": values}), ["x"])
    assert [branch.values["x"] for branch in made] == values
    assert [branch.key for branch in reversed(instances(combinations({"x": values[::-1]}), ["x"]))] == [
        branch.key for branch in made
    ]
    keys = {canonical(branch.values): branch.key for branch in made}
    assert len(set(keys.values())) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", branch.key) for branch in made)
    shown = [v if isinstance(v, str) else canonical(v) for v in values]
    exact = [f"x={canonical(v)}" for v in values]
    assert all(branch.label in (text, named) for branch, text, named in zip(made, shown, exact, strict=True))
    labels = {branch.key: branch.label for branch in made}
    assert len({*labels.values(), ""}) == len(labels) + 1


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1, "1", "2"], ["x=1", 'x="1"', "2"]),
        (["", "a"], ['x=""', "a"]),
        ([1, "1", "x=1"], ["x=1", 'x="1"', 'x="x=1"']),
        (["a", "a", "b"], ["a", "a", "b"]),
    ],
)
def test_two_instances_never_look_alike(values: list[Any], labels: list[str]) -> None:
    """Where their values read the same, the axes and the values' types tell; a value that is twice there is one."""
    assert [branch.label for branch in instances(combinations({"x": values}), ["x"])] == labels


def test_instances_of_other_axes_never_look_alike() -> None:
    """Two additions with one value, each of another axis, are told apart by the axis."""
    made = instances(combinations({}, [{"a": 1.5}, {"b": 1.5}, {"b": 2}]), [])
    assert [branch.label for branch in made] == ["a=1.5", "b=1.5", "2"]


def test_a_label_of_the_file_that_is_the_same_for_several() -> None:
    """It stays, and what tells its instances apart follows."""
    made = instances(combinations({"x": [1, 2, 3]}), ["x"])
    named = [branch._replace(label=label) for branch, label in zip(made, ["same", "same", "other"], strict=True)]
    assert [branch.label for branch in told_apart(named, is_written=True)] == ["same, x=1", "same, x=2", "other"]


def test_plain_values_are_their_own_keys() -> None:
    """So that people can read them; what looks like another type, or has another character, has a digest."""
    values = ["gut", "gut-1", 7, "7", True, "true", 0.5, "a.b", "", "x" * 41]
    keys = [branch.key for branch in instances(combinations({"x": values}), ["x"])]
    assert keys[:3] == ["gut", "gut-1", "7"]
    assert keys[4] == "true"
    digested = [keys[3], *keys[5:]]
    assert all(re.fullmatch(r"([A-Za-z0-9_-]+-)?[0-9a-f]{12}", key) for key in digested)
    two = instances(combinations({"b": [1], "a": ["x"]}), ["b", "a"])[0]
    assert two.label == "1, x"
    assert two.key == instances(combinations({"a": ["x"], "b": [1]}), ["a", "b"])[0].key


@pytest.mark.parametrize(
    ("axes", "include", "exclude", "message"),
    [
        ({"a": "x"}, (), (), "the axis `a` is a text, not a list"),
        ({"a": {"b": 1}}, (), (), "the axis `a` is a table, not a list"),
        ({"a": [1]}, {"b": 1}, (), "`include` is a table, not a list of tables"),
        ({"a": [1]}, ["b"], (), "`include` has a text, not a table"),
        ({"a": [1]}, (), [7], "`exclude` has a number, not a table"),
        ({"a": [*range(200)], "b": [*range(51)]}, (), (), f"10,200 instances, more than {BRANCHES_MAX:,}"),
    ],
)
def test_what_makes_no_matrix(axes: dict[str, Any], include: Any, exclude: Any, message: str) -> None:
    """It is refused by name."""
    with pytest.raises(AxisError, match=re.escape(message)):
        combinations(axes, include, exclude)


def test_one_value_of_different_axes() -> None:
    """They are two instances: only where there is one axis is its value enough."""
    combined = combinations({}, [{"a": 1}, {"b": 1}])
    assert len({branch.key for branch in instances(combined, [])}) == 2
    assert [branch.key for branch in instances(combinations({"a": [1]}, [{"a": 2}]), ["a"])] == ["1", "2"]


def test_two_that_could_not_be_distinguished() -> None:
    """A value that looks like another one with its digest is refused, and equal ones are one."""
    other = instances(combinations({"x": ["a.b"]}), ["x"])[0].key
    with pytest.raises(AxisError, match=f"two instances have the key `{other}`"):
        instances(combinations({"x": ["a.b", other]}), ["x"])
    twice = instances(combinations({"x": [json.loads("[1]"), [1]]}), ["x"])
    assert twice[0] == twice[1]
