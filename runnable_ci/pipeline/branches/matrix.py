"""Steps that become branches: the instances of a matrix, the steps of another file, the rounds of a loop. Pure.

A branch has a key, by which the run log knows its steps, `STEP.BRANCH.STEP`, and a label, by which people do. The key
is made from what the branch is, its axis values, never from its place: a value that is added adds one branch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Any, Final, NamedTuple

BRANCHES_MAX: Final = 10_000
"""Of one step: GitHub has at most 256 jobs of a matrix; an error in a list should not start a million."""
ONLY_KEY: Final = "uses"
"""The key of the one branch that a step without matrix and loop has."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,39}")
_SLUG_MAX: Final = 40


class Matrix(NamedTuple):
    """What makes the instances of a step: lists, or expressions that give them."""

    axes: Mapping[str, Any] = MappingProxyType({})
    include: Any = ()
    exclude: Any = ()
    whole: str = ""
    """An expression that gives the three, in place of them."""

    @property
    def is_open(self) -> bool:
        """Whether an expression may give it axes."""
        included = self.include if isinstance(self.include, list | tuple) else [self.include]
        return bool(self.whole) or not all(isinstance(one, Mapping) for one in included)

    def names(self) -> list[str]:
        """Return the names of its values, as far as they are known without evaluating anything."""
        included = [name for one in self.include if isinstance(one, Mapping) for name in one]
        return [*dict.fromkeys([*self.axes, *included])]

    def definition(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        parts = {"matrix": self.whole or dict(self.axes), "include": self.include, "exclude": self.exclude}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in parts.items() if value}


class Loop(NamedTuple):
    """When a step that is repeated has come to its end."""

    until: str
    """An expression; it sees what the last round returned."""
    most: int
    """Rounds at most."""


class Branch(NamedTuple):
    """One branch of a step."""

    key: str
    """`[A-Za-z0-9_-]+`, of its own among the branches of the step."""
    label: str
    """How people know it: `gut, 7`, or `round 2`."""
    values: Mapping[str, Any]
    """Axis → value, JSON: its steps find them as parameters."""
    given: Mapping[str, Any] = MappingProxyType({})
    """What else they find as parameters, which is no part of what the branch is."""


class AxisError(Exception):
    """Axis values that make no matrix: `key` is where that is said, below `strategy`."""

    def __init__(self, key: Sequence[str], message: str, hint: str = "") -> None:
        super().__init__(message)
        self.key, self.message, self.hint = key, message, hint


def combinations(
    axes: Mapping[str, Any], include: Iterable[Any] = (), exclude: Iterable[Any] = ()
) -> list[dict[str, Any]]:
    """Return the axis values of each instance, in the order of the file: the last axis changes fastest.

    As GitHub has it: an `exclude` removes each combination that has all of its values; an `include` is added to each
    combination of which it replaces no axis value, and is one of its own where there is none. Raises `AxisError`.
    """
    for axis, values in axes.items():
        if not isinstance(values, list):
            hint = f'such as {axis} = ["a", "b"], or an expression that gives one'
            raise AxisError(("matrix", axis), f"the axis `{axis}` is {kind_of(values)}, not a list", hint)
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > BRANCHES_MAX:
        raise AxisError(("matrix",), f"{count:,} instances, more than {BRANCHES_MAX:,}", "divide it into several steps")
    made = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    made = [one for one in made if not any(_has(one, wrong) for wrong in _tables("exclude", exclude))]
    originals = [dict(one) for one in made]
    more: list[dict[str, Any]] = []
    for addition in _tables("include", include):
        fits = [i for i, one in enumerate(originals) if all(_same(one[k], v) for k, v in addition.items() if k in one)]
        for i in fits:
            made[i] |= addition
        if not fits:
            more.append(dict(addition))
    if len(made) + len(more) > BRANCHES_MAX:
        raise AxisError(("matrix", "include"), f"more than {BRANCHES_MAX:,} instances")
    return [*made, *more]


def instances(combined: Iterable[Mapping[str, Any]], axes: Iterable[str]) -> list[Branch]:
    """Return a branch for each combination, `axes` telling the order of labels; equal ones are one branch, twice.

    Raises `AxisError` where two that differ cannot be distinguished.
    """
    order = [*axes]
    found: dict[str, str] = {}
    branches = []
    for values in combined:
        identity = canonical(values)
        key = _key_of(values, identity, is_only_axis=order == [*values])
        if found.setdefault(key, identity) != identity:
            raise AxisError(("matrix",), f"two instances have the key `{key}`", "change one of the values")
        names = [*(name for name in order if name in values), *(name for name in values if name not in order)]
        branches.append(Branch(key, ", ".join(_text(values[name]) for name in names), dict(values)))
    return told_apart(branches)


def told_apart(branches: Sequence[Branch], *, is_written: bool = False) -> list[Branch]:
    """Return branches of which no two have one label, and none an empty one: where they would, their axes are named.

    A label becomes `sample="1"`, or, where `is_written` in the file, `control, sample="1"`.
    """
    labels = {branch.key: branch.label for branch in branches}
    if not _alike(labels):
        return [*branches]
    exact: dict[str, str] = {}
    for branch in branches:
        named = ", ".join(f"{name}={canonical(value)}" for name, value in sorted(branch.values.items()))
        exact[branch.key] = f"{branch.label}, {named}" if is_written and branch.label else named
    while alike := _alike(labels) & exact.keys():
        labels |= {key: exact.pop(key) for key in alike}  # which may be what another is called
    return [branch._replace(label=labels[branch.key]) for branch in branches]


def _alike(labels: Mapping[str, str]) -> set[str]:
    count = Counter(labels.values())
    return {key for key, label in labels.items() if count[label] > 1 or not label}


def round_branch(number: int) -> Branch:
    """Return a round of a loop, counted from 1."""
    return Branch(str(number), f"round {number}", {})


def only_branch() -> Branch:
    """Return the branch of a step that has just one."""
    return Branch(ONLY_KEY, "", {})


def canonical(value: Any) -> str:
    """Return the JSON of a value, the same whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _key_of(values: Mapping[str, Any], identity: str, *, is_only_axis: bool) -> str:
    """Return the key of an instance; the plain value of the only axis is one, as it needs no name."""
    texts = [_text(value) for _, value in sorted(values.items())]
    if len(values) == 1 and is_only_axis:
        (value,) = values.values()
        is_plain = _PLAIN.fullmatch(texts[0]) and (not isinstance(value, str) or not _reads_as_json(value))
        if is_plain and not isinstance(value, float):
            return texts[0]
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(texts)).strip("-")[:_SLUG_MAX].rstrip("-")
    digest = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{slug}-{digest}" if slug else digest


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)


def _tables(key: str, given: Iterable[Any]) -> Iterator[Mapping[str, Any]]:
    if not isinstance(given, list | tuple):
        raise AxisError(("matrix", key), f"`{key}` is {kind_of(given)}, not a list of tables")
    for one in given:
        if not isinstance(one, Mapping):
            raise AxisError(("matrix", key), f"`{key}` has {kind_of(one)}, not a table", 'such as { sample = "gut" }')
        yield one


def _has(combination: Mapping[str, Any], wrong: Mapping[str, Any]) -> bool:
    return all(name in combination and _same(combination[name], value) for name, value in wrong.items())


def _same(one: Any, other: Any) -> bool:
    return canonical(one) == canonical(other)


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    kinds = {str: "a text", bool: "true or false", dict: "a table", list: "a list", type(None): "nothing"}
    return kinds.get(type(value), "a number")
