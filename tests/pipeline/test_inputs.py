"""Tests of `[inputs]`: what the file may say of a parameter, and what is then taken for it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.pipeline.inputs import input_lines
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.parameters import assemble_parameters, parameter_overrides
from runnable_ci.pipeline.resolve import resolve

INPUTS = """
[parameters]
model = { depth = 3 }
api_token = "tok-12345678"
[inputs.n_est]
type = "number"
default = 50
options = [20, 50]
description = "how many trees"
[inputs.mode]
type = "choice"
options = ["fast", "slow"]
required = true
[inputs.flag]
type = "boolean"
[inputs.name]
"""


def pipeline(text: str, steps: str = "[steps.a]\nrun = 'x'") -> Pipeline:
    """A pipeline with these inputs."""
    return resolve(tomllib.loads(f"{text}\n{steps}"), file="runnable.toml", default_name="n")


def given(made: Pipeline, *options: str, **environ: str) -> dict[str, Any]:
    """The parameters of a run that these are given for."""
    overrides = parameter_overrides(made, params_files=[], environ=environ, options=options)
    return assemble_parameters(made, made.parameters, overrides)


def test_values_of_inputs() -> None:
    """A default is a parameter, what is given is of the input's type, and one without either is not set."""
    made = pipeline(INPUTS)
    assert {**given(made, "mode=fast"), "api_token": ""} == {
        "model": {"depth": 3},
        "api_token": "",
        "n_est": 50,
        "mode": "fast",
    }
    found = given(made, "mode=slow", "n_est=20", "flag=no", RUNNABLE_PRM_name="007")
    assert (found["n_est"], found["flag"], found["name"]) == (20, False, "007")


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ([], "runnable.toml: the input `mode` is required", "--param mode=…"),
        (["mode=fsat"], '--param: mode is one of "fast", "slow" in runnable.toml, not "fsat"', "did you mean `fast`?"),
        (["mode=fast", "n_est=30"], "--param: n_est is one of 20, 50 in runnable.toml, not 30", "give one of these"),
        (["mode=fast", "n_est=x"], '--param: n_est is a number in runnable.toml, not "x"', "such as 5"),
        (["mode=fast", "flag=maybe"], '--param: flag is a boolean in runnable.toml, not "maybe"', "true or false"),
    ],
)
def test_refused_values(options: list[str], message: str, hint: str) -> None:
    """A missing or another value is refused by its name, before anything runs."""
    with pytest.raises(UsageError) as caught:
        given(pipeline(INPUTS), *options)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


MISTAKES = {
    "in both tables": ("[parameters]\nx = 1\n[inputs.x]", "[inputs.x] `x` is also in [parameters]"),
    "no options": ('[inputs.x]\ntype = "choice"', "[inputs.x] a choice has no options"),
    "a default of another type": ('[inputs.x]\ntype = "number"\ndefault = "many"', "[inputs.x] default is a number"),
    "a default in quotes": ('[inputs.x]\ntype = "number"\ndefault = "5"', "[inputs.x] default: '5' is not of the type"),
    "a default that is no option": (
        "[inputs.x]\ndefault = 'c'\noptions = ['a', 'b']",
        "[inputs.x] default is one of",
    ),
    "an option of another type": (
        "[inputs.x]\noptions = ['a', 5]",
        "[inputs.x] options is text in runnable.toml",
    ),
    "a date": ("[inputs.x]\ndefault = 2026-01-31", "[inputs.x] default is text in runnable.toml, not a date"),
    "a list": ("[inputs.x]\ndefault = [1]", "[inputs.x] default is text in runnable.toml, not a list"),
    "an unknown type": ('[inputs.x]\ntype = "strin"', '[inputs.x] type: there is no "strin"'),
    "an unknown key": ("[inputs.x]\ndefalt = 1", "[inputs.x] unknown key `defalt`"),
    "no table": ("inputs.x = 5", "[inputs.x] must be a table, not 5"),
    "a reserved name": ("[inputs.PATH]", "[inputs] the parameter name `PATH` is reserved"),
    "a variable of a step": ("[inputs.LEVEL]\ndefault = '1'\n[steps.b]\nrun = 'x'\nenv = { LEVEL = '2' }", "LEVEL"),
}


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(text: str, message: str) -> None:
    """What an input cannot be is an error that names it, with a hint."""
    with pytest.raises(PipelineError) as caught:
        pipeline(text)
    assert message in caught.value.message
    assert caught.value.hint


def test_help() -> None:
    """A table says what a run can be given; what is secret by its name is not shown."""
    made = pipeline(INPUTS)
    assert input_lines(made.parameters, made.inputs, secrets=["API_TOKEN"]) == [
        "INPUT      TYPE     DEFAULT       DESCRIPTION",
        "n_est      number   50            one of 20, 50; how many trees",
        'mode       choice                 required; one of "fast", "slow"',
        "flag       boolean",
        "name       string",
        'model      table    {"depth": 3}',
        "api_token  string   ***",
    ]
    assert input_lines({}, {}, secrets=[]) == ["no inputs, no parameters"]
