"""Tests of values that a shell puts where another tool did: what a real shell makes of each script."""

from __future__ import annotations

import subprocess

import pytest

from runnable_ci.cli.importers.script import Variable, shell_script

X = Variable("x")


@pytest.mark.parametrize(
    ("parts", "output"),
    [
        (["echo ", X], "one two\n"),
        (["printf '%s.' ", X], "one.two."),
        (["printf '%s.' \"", X, '"'], "one two."),
        (["printf '%s.' '", X, "b'"], "one twob."),
        (["printf '%s.' \"'", X, "'\""], "'one two'."),
        (["printf %s. a", X, "_b"], "aone.two_b."),
        (["printf %s. \\'", X], "'one.two."),
        (["# it's\nprintf %s. '", X, "'"], "one two."),
        (["printf %s. a#'b\" ", X, '\'"" ', X], 'a#b" one two.one.two.'),
        (["printf %s. ", X, X], "one.twoone.two."),
    ],
)
def test_a_value_is_where_it_was(parts: list[str | Variable], output: str) -> None:
    """Outside of quotes, in each kind of them, beside names and after apostrophes that open nothing."""
    done = subprocess.run(
        ["bash", "-c", shell_script(parts)], env={"x": "one two"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == output
