"""Tests of `[defaults]`: what steps have by it, and what it cannot say."""

from __future__ import annotations

import tomllib

import pytest

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve

PIPELINE = """
[defaults]
shell = "sh"
working-directory = "w"
timeout-minutes = 2
attempts = 3
container = "busybox"
[steps.a]
run = "true"
[steps.b]
run = "true"
shell = "python"
working-directory = "."
attempts = { max = 1 }
container = "debian"
[steps.c]
python = "m:f"
"""


def pipeline(text: str) -> Pipeline:
    """The pipeline of a file."""
    return resolve(tomllib.loads(text), file="runnable.toml", default_name="d", text=text)


def test_a_step_has_what_it_does_not_say_itself() -> None:
    """Its own keys count before the defaults, and a function has no shell."""
    steps = pipeline(PIPELINE).steps
    assert [(one.shell, one.working_directory, one.timeout_s, one.attempts.most) for one in steps.values()] == [
        ("sh", "w", 120, 3),
        ("python", ".", 120, 1),
        ("", "w", 120, 3),
    ]
    assert [one.container and one.container.image for one in steps.values()] == ["busybox", "debian", "busybox"]


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ('python = "x:y"', "[defaults] unknown key `python`", "the keys are: shell"),
        ('shel = "sh"', "[defaults] unknown key `shel`", "did you mean `shell`?"),
        ('timeout-minutes = "2"', "[defaults] timeout-minutes: ", ""),
        ("attempts = 0", "[defaults] attempts", ""),
        ('container = { img = "x" }', "[defaults", ""),
    ],
)
def test_what_cannot_be_there(table: str, message: str, hint: str) -> None:
    """It is said of this table, though it is of all steps."""
    with pytest.raises(PipelineError) as caught:
        pipeline(f'[defaults]\n{table}\n[steps.a]\nrun = "true"\n')
    assert message in caught.value.message
    assert hint in caught.value.hint
