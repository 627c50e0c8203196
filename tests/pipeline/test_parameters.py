"""Tests of a run's parameters: which of several counts, and what may be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runnable_ci.errors import PipelineError, RunLogError, UsageError
from runnable_ci.pipeline.model import Pipeline, resolve
from runnable_ci.pipeline.parameters import (
    ParameterSource,
    assemble_parameters,
    environment_parameters,
    parameter_overrides,
    parse_param_options,
)


def write(folder: Path, text: str, name: str) -> Path:
    """A file."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def pipeline(**parameters: Any) -> Pipeline:
    """A pipeline with parameters."""
    table = {"parameters": parameters, "steps": {"a": {"run": "x", "env": {"LEVEL": "1"}}}}
    return resolve(table, file="runnable.toml", default_name="n")


def parameters(
    made: Pipeline,
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    given: list[str] | None = None,
) -> dict[str, Any]:
    """The parameters of a new run."""
    overrides = parameter_overrides(
        made, params_files=[file] if file else [], environ=environ or {}, options=given or []
    )
    return assemble_parameters(made, made.parameters, overrides)


def test_precedence(tmp_path: Path) -> None:
    """The pipeline's file, then the parameter file, then the environment, then the command line: the last counts."""
    file = write(tmp_path, "b = 2\nc = 2\nd = 2\nextra = true", "more.toml")
    made = pipeline(a=1, b=1, c=1, d=1)
    environ = {"RUNNABLE_PRM_c": "3", "RUNNABLE_PRM_d": "3", "c": "9", "RUNNABLE_CI_JOBS": "9"}
    assert parameters(made, file=file, environ=environ, given=["d=4"]) == {
        "a": 1,
        "b": 2,
        "c": 3,
        "d": 4,
        "extra": True,
    }
    assert made.parameters == {"a": 1, "b": 1, "c": 1, "d": 1}


@pytest.mark.parametrize(
    ("known", "text", "value"),
    [
        ("text", "3", "3"),
        ("text", "true", "true"),
        ("text", "", ""),
        (1, "2", 2),
        (1, "0.5", 0.5),
        (1, "[1, 2]", [1, 2]),
        (1, "a=b", "a=b"),
        (1, "text", "text"),
        (True, "false", False),
        (True, "False", "False"),
        (None, '{"a": null}', {"a": None}),
        (None, "null", None),
    ],
)
def test_types(known: Any, text: str, value: Any) -> None:
    """Text for a parameter that is text stays text; else JSON is its value, and what is no JSON is text."""
    made = pipeline(x=known)
    for found in (parameters(made, given=[f"x={text}"]), parameters(made, environ={"RUNNABLE_PRM_x": text})):
        assert found == {"x": value}
        assert type(found["x"]) is type(value)


def test_type_is_that_of_the_value_before(tmp_path: Path) -> None:
    """What counts as text is what the parameter was before, wherever that came from."""
    file = write(tmp_path, 'x = "text"', "more.toml")
    assert parameters(pipeline(x=1), file=file, given=["x=2"]) == {"x": "2"}


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("p.toml", "x = 1", {"x": 1}),
        ("p.toml", "[parameters]\nx = 1", {"x": 1}),
        ("p.toml", "[parameters]\n", {}),
        ("p.toml", "", {}),
        ("p.json", '{"x": {"a": [1]}}', {"x": {"a": [1]}}),
    ],
)
def test_parameter_file(tmp_path: Path, name: str, text: str, found: Mapping[str, Any]) -> None:
    """A parameter file is TOML, with or without a table around it, or JSON."""
    assert parameters(pipeline(), file=write(tmp_path, text, name)) == found


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", "[1]", "is not a table of parameters"),
        ("p.json", "{", "is not a table of parameters"),
        ("p.toml", "parameters = 3", "is not a table of parameters"),
        ("p.toml", "x = 2026-01-01", "p.toml: x: a date is not a JSON value"),
        ("p.toml", "PATH = 3", "p.toml: the parameter name `PATH` is reserved"),
        ("p.json", json.dumps({"a b": 1}), 'p.json: "a b" is not a valid parameter name'),
        ("p.toml", "LEVEL = 3", "the parameter `LEVEL` is also set by `env` in runnable.toml, step `a`"),
    ],
)
def test_bad_parameter_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    """What cannot be a parameter is refused, wherever it comes from."""
    with pytest.raises(UsageError) as caught:
        parameters(pipeline(), file=write(tmp_path, text, name))
    assert message in caught.value.message
    assert (bool(caught.value.hint), caught.value.exit_code) == (True, 2)


def test_parameter_file_that_is_missing_or_broken(tmp_path: Path) -> None:
    """A parameter file that cannot be read is named."""
    with pytest.raises(
        UsageError, match=r"--params-file .*none\.toml cannot be read: no such file or directory"
    ) as caught:
        parameters(pipeline(), file=tmp_path / "none.toml")
    assert caught.value.hint == "a file of TOML, or of JSON with the suffix .json"
    with pytest.raises(UsageError, match=r"p\.yaml is YAML") as caught:
        parameters(pipeline(), file=write(tmp_path, "x: 1", "p.yaml"))
    assert caught.value.hint == "a file of TOML, or of JSON with the suffix .json"
    with pytest.raises(PipelineError, match=r"p\.toml is not TOML"):
        parameters(pipeline(), file=write(tmp_path, "x = ", "p.toml"))


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ("x", "--param x: expected name=value"),
        ("=1", "--param =1: expected name=value"),
        ("PATH=1", "--param: [parameters] the parameter name `PATH` is reserved"),
        ("x-y=1", '--param: "x-y" is not a valid parameter name'),
        ("x=\udcff", "--param: x: the text has characters that are not Unicode"),
    ],
)
def test_bad_param(given_: str, message: str) -> None:
    """A `--param` that cannot be understood is refused."""
    with pytest.raises(UsageError) as caught:
        parse_param_options([given_], {})
    assert caught.value.message == message.replace("[parameters] ", "")


def test_environment_variable_that_names_nothing() -> None:
    """A variable with our prefix and a name that no parameter may have is refused."""
    for name in ("", "a-b", "HOME"):
        with pytest.raises(UsageError, match=f"RUNNABLE_PRM_{name} in the environment: "):
            parameters(pipeline(), environ={f"RUNNABLE_PRM_{name}": "1"})


def test_param_given_twice() -> None:
    """The last of several `--param` of one name counts."""
    assert parse_param_options(["x=1", "y=", "x=2"], {}) == {"x": 2, "y": ""}


def test_only_the_variables_that_are_asked_for() -> None:
    """What else the environment sets is not even looked at."""
    environ = {"RUNNABLE_PRM_a": "1", "RUNNABLE_PRM_HOME": "x"}
    assert environment_parameters(environ, {}, only=["a", "b"]) == {"a": 1}


@pytest.mark.parametrize("name", ["PATH", "RUNNABLE_X", "a b", ""])
def test_every_source_is_checked(name: str) -> None:
    """Whoever names a parameter that none may be gets the error of that place."""
    with pytest.raises(RunLogError, match=r"^error: the log of r1: "):
        ParameterSource("the log of r1", {name: 1}, RunLogError)


def test_assembled_in_order() -> None:
    """Of two places that give a parameter the later counts; one that a step's `env` sets is refused from any place."""
    made = pipeline()
    assert assemble_parameters(made, {"a": 1, "b": 1}, {"b": 2}) == {"a": 1, "b": 2}
    with pytest.raises(UsageError, match="`LEVEL` is also set by `env`"):
        assemble_parameters(made, {"LEVEL": 1}, {})


def test_byte_order_mark(tmp_path: Path) -> None:
    """A mark that some editors write before the text is none of it."""
    (tmp_path / "p.toml").write_text("x = 1", encoding="utf-8-sig")
    assert parameters(pipeline(), file=tmp_path / "p.toml") == {"x": 1}
