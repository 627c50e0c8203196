"""Tests of what a function reaches: what counts as its code, and what is left out."""

from __future__ import annotations

import pytest

from runnable_ci.steps.reach import reach_digest

MODULE = """\
import json
from helper import used as renamed, unused

LIMIT = 3


def step(x):
    return inner(x) + renamed(x)


def inner(x):
    return x * LIMIT  # a remark


def other(x):
    return x


class Model:
    def predict(self):
        return 1


if __name__ == "__main__":
    print(step(1))
"""
HELPER = """\
def used(x):
    return x


def unused(x):
    return x
"""


def digest(module: str = MODULE, helper: str = HELPER, function: str = "step") -> str:
    """Return the digest of a function of two modules."""
    return reach_digest(function, {"m.py": module.encode(), "helper.py": helper.encode()})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return inner(x) + renamed(x)", "return inner(x) - renamed(x)"),
        ("return x * LIMIT", "return x * LIMIT + 1"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("        return 1\n", "        return 2\n"),
        ("import json\n", "import json, re\n"),
        ("def step(x):", "def step(x=other(1)):"),
    ],
)
def test_reached_code_counts(old: str, new: str) -> None:
    """The function, what it calls, module bodies and classes are its code."""
    assert old in MODULE
    assert digest(MODULE.replace(old, new)) != digest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def other(x):\n    return x\n", "def other(x):\n    return x + 1\n"),
        ("  # a remark", "  # another one"),
        ("\n\n\ndef other", "\n\n# between\n\ndef other"),
        ("    print(step(1))", "    print(step(2))"),
        ("def other(x):", "def other(x, y=2):"),
    ],
)
def test_what_is_not_reached_does_not_count(old: str, new: str) -> None:
    """Functions that nothing names, comments and what only a script runs are no part of it."""
    assert old in MODULE
    assert digest(MODULE.replace(old, new)) == digest()


def test_follows_names_through_imports() -> None:
    """A function that is imported under another name counts where that is used, one that is only imported does not."""
    assert digest(helper=HELPER.replace("def used(x):\n    return x", "def used(x):\n    return -x")) != digest()
    assert digest(helper=HELPER.replace("def unused(x):\n    return x", "def unused(x):\n    return -x")) == digest()


@pytest.mark.parametrize(
    "call",
    ["globals()[name](x)", "eval(name)(x)", "getattr(m, name)(x)", "vars(m)[name](x)", "m.__dict__[name](x)"],
)
def test_counts_everything_where_names_do_not_tell(call: str) -> None:
    """Code that finds functions by names that are made while it runs reaches all of them."""
    module = MODULE.replace("return inner(x) + renamed(x)", f"return {call}")
    changed = module.replace("def other(x):\n    return x\n", "def other(x):\n    return x + 1\n")
    assert digest(changed) != digest(module)


@pytest.mark.parametrize(
    "mention", ['"other"', "'call other, please'", "m.other", "dict(other=1)", 'getattr(m, "other")']
)
def test_a_mention_is_enough(mention: str) -> None:
    """A function counts as soon as its name occurs: as an attribute, a word of a text, an argument's name."""
    module = MODULE.replace("LIMIT = 3", f"LIMIT = {mention}")
    changed = module.replace("def other(x):\n    return x\n", "def other(x):\n    return x + 1\n")
    assert digest(changed) != digest(module)


def test_a_decorated_function_counts() -> None:
    """What a decorator may register is reached without a name."""
    module = MODULE.replace("def other", "@register\ndef other")
    changed = module.replace("def other(x):\n    return x\n", "def other(x):\n    return x + 1\n")
    assert digest(changed) != digest(module)


def test_both_definitions_of_a_name_count() -> None:
    """Of two functions with one name any may be the one that runs."""
    module = MODULE + "\n\ndef inner(x):\n    return 0\n"
    assert digest(module.replace("return 0", "return 5")) != digest(module)


def test_unreadable_module_counts_as_a_whole() -> None:
    """A module in a syntax that is not known here is compared as text."""
    assert digest(helper="def used(x:\n  1") != digest(helper="def used(x:\n  2")


def test_a_hash_in_a_text_is_no_comment() -> None:
    """Only real comments are left out."""
    module = MODULE.replace("LIMIT = 3", 'LIMIT = """\n# one\n"""')
    assert digest(module) != digest(module.replace("# one", "# two"))
