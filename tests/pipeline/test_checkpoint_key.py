"""`checkpoint` in the pipeline file: what it may be, and what it makes of a step."""

from __future__ import annotations

import tomllib

import pytest

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve


def pipeline(text: str) -> Pipeline:
    """The pipeline of a file."""
    return resolve(tomllib.loads(text), file="runnable.toml", default_name="p", text=text)


def test_a_list_or_a_table() -> None:
    """Both name globs; a table also says how often they are kept; what makes the result is the same without it."""
    steps = pipeline(
        '[steps.a]\nrun = "true"\ncheckpoint = ["ckpt/**"]\n'
        '[steps.b]\nrun = "true"\ncheckpoint = { path = ["b/*", "c"], every-minutes = 20 }\n[steps.c]\nrun = "true"\n'
    ).steps
    assert [(step.checkpoint, step.checkpoint_s) for step in steps.values()] == [
        (("ckpt/**",), 300.0),
        (("b/*", "c"), 1200.0),
        ((), 300.0),
    ]
    assert steps["a"].definition() == steps["c"]._replace(needs=()).definition()
    assert not steps["a"].counts("ckpt/x")
    assert steps["a"].counts("data.csv")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('checkpoint = ["../x"]', "a path outside the workspace"),
        ('checkpoint = [".git/x"]', "is never stored"),
        ("checkpoint = []", "names no path"),
        ('checkpoint = { path = ["x"], every = 5 }', "unknown key"),
        ('checkpoint = { path = ["x"], every-minutes = 0 }', "must be"),
        ('checkpoint = ["out/**"]\ncatalog = { put = ["out/model.bin"] }', "of `catalog.put`"),
        ('checkpoint = ["m.json"]\nmetrics = ["m.json"]', "of `catalog.put`"),
        ('checkpoint = ["x/*"]\ncatalog = { get = ["x/y"] }', "of `catalog.get`"),
        ('checkpoint = ["x/*"]\n[steps.b]\nrun = "true"\ncatalog = { get = ["x/y"] }', "of step `b`"),
        ('checkpoint = ["x/*"]\n[steps.b]\nrun = "true"\ncheckpoint = ["x/y"]', "of step `a`"),
        ('checkpoint = ["x/*"]\nstrategy = { matrix = { fold = [1, 2] } }', "is the same for each `fold`"),
    ],
)
def test_what_cannot_be_one(keys: str, message: str) -> None:
    """One clear error, with a hint."""
    with pytest.raises(PipelineError) as raised:
        pipeline(f'[steps.a]\nrun = "true"\n{keys}\n')
    assert message in raised.value.message
    assert raised.value.hint


def test_each_instance_has_its_own() -> None:
    """The value of an axis in the path keeps instances apart."""
    found = pipeline(
        '[steps.a]\nrun = "true"\ncheckpoint = ["x/${{ matrix.fold }}/**"]\nstrategy = { matrix = { fold = [1, 2] } }\n'
    )
    assert found.steps["a"].checkpoint == ()
