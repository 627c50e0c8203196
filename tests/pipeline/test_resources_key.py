"""`resources` in the pipeline file: what it may be, and what it makes of a step."""

from __future__ import annotations

import tomllib

import pytest

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.keys.resources import Share, share_of
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve

GIB = 1024**3


def pipeline(text: str) -> Pipeline:
    """The pipeline of a file."""
    return resolve(tomllib.loads(text), file="runnable.toml", default_name="p", text=text)


def share(keys: str, number: int = 1) -> Share:
    """What a try of a step with these keys takes."""
    return share_of(pipeline(f'[steps.a]\nrun = "true"\n{keys}\n').steps["a"].resources, number)


def test_what_a_step_takes() -> None:
    """What it does not say is one core, any memory and no GPU."""
    assert share("") == share_of(None) == Share(1, 0, 0)
    assert share('resources = { memory = "2G" }') == Share(1, 2 * GIB, 0)
    assert share('resources = { cpus = 8, memory = "32G", gpus = 1 }') == Share(8, 32 * GIB, 1)


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", GIB // 2), ("1.5G", 3 * GIB // 2), ("1 TiB", 1024 * GIB), ("2048k", 2 * 1024**2), ("3gb", 3 * GIB)],
)
def test_memory_has_a_unit(text: str, size: int) -> None:
    """1024 of each are the next, as schedulers have it."""
    assert share(f'resources = {{ memory = "{text}" }}').memory == size


def test_a_try_may_take_more_than_the_one_before() -> None:
    """The last value holds for all that follow; what is no list is the same for each."""
    keys = 'attempts = 4\nresources = { cpus = 2, memory = ["1G", "4G"] }'
    assert [share(keys, number) for number in (1, 2, 3, 4)] == [
        Share(2, GIB),
        *[Share(2, 4 * GIB)] * 3,
    ]


def test_it_is_no_part_of_what_makes_a_result() -> None:
    """A step that takes more is the same step: nothing runs again."""
    with_it, without = (
        pipeline(f'[steps.a]\nrun = "true"\n{key}\n') for key in ("resources = { cpus = 8, gpus = 1 }", "")
    )
    assert with_it.steps["a"].definition() == without.steps["a"].definition()
    assert with_it.dag_hash() == without.dag_hash()


def test_steps_have_it_by_default() -> None:
    """A step's own table takes the place of the default one, whole."""
    steps = pipeline(
        '[defaults]\nresources = { cpus = 2, memory = "1G" }\n[steps.a]\nrun = "true"\n'
        '[steps.b]\nrun = "true"\nresources = { cpus = 4 }\n'
    ).steps
    assert [share_of(step.resources) for step in steps.values()] == [Share(2, GIB), Share(4)]


def test_each_instance_has_it() -> None:
    """The step after them has no process, and takes nothing."""
    found = pipeline('[steps.a]\nrun = "true"\nresources = { cpus = 2 }\nstrategy = { matrix = { x = [1, 2] } }\n')
    steps = found.outlined().steps
    assert {name: step.resources and step.resources.cpus for name, step in steps.items()} == {"a.0.a": (2,), "a": None}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("resources = 4", "must be a table"),
        ("resources = { cpu = 4 }", "unknown key `cpu`"),
        ("resources = { cpus = 0 }", "cpus: must be from 1 to"),
        ("resources = { cpus = -1 }", "cpus: must be from 1 to"),
        ("resources = { cpus = 1.5 }", "cpus: must be a whole number or a list"),
        ("resources = { cpus = true }", "cpus: must be a whole number or a list"),
        ("resources = { cpus = [] }", "cpus: the list is empty"),
        ("resources = { gpus = -1 }", "gpus: must be from 0 to"),
        ('resources = { gpus = "all" }', "gpus: must be a whole number or a list"),
        ("resources = { memory = 32 }", "memory: must be a string or a list"),
        ('resources = { memory = "32" }', 'memory: "32" is not an amount of memory'),
        ('resources = { memory = "lots" }', 'memory: "lots" is not an amount of memory'),
        ('resources = { memory = "1k" }', "no step's memory"),
        ('resources = { memory = ["1G", "2G"] }', "memory has 2 values, but the step is tried once"),
        ("attempts = 2\nresources = { cpus = [1, 2, 3] }", "cpus has 3 values, but the step is tried 2 times"),
    ],
)
def test_what_cannot_be_one(keys: str, message: str) -> None:
    """One clear error at its place, with a hint."""
    with pytest.raises(PipelineError) as raised:
        pipeline(f'[steps.a]\nrun = "true"\n{keys}\n')
    assert message in raised.value.message
    assert "[steps.a" in raised.value.message
    assert raised.value.hint
