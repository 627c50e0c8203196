"""Tests of a run's parameters: which of several counts, and what may be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runnable_ci.errors import PipelineError, RunLogError, UsageError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.parameters import (
    KnownParameters,
    ParameterSource,
    assemble_parameters,
    environment_parameters,
    parameter_overrides,
    parse_param_options,
)
from runnable_ci.pipeline.resolve import resolve


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
        (1, "1e-3", 0.001),
        (1, ".5", 0.5),
        (1, "+007", 7),
        (1, "null", None),
        (0.5, "2", 2),
        (True, "false", False),
        (True, "False", False),
        (True, "no", False),
        (True, "OFF", False),
        (True, "0", False),
        (False, "1", True),
        (False, "Yes", True),
        (True, "null", None),
        ([1], "[]", []),
        ([1], '["x"]', ["x"]),
        ({"a": 1}, '{"b": "x"}', {"b": "x"}),
        ({"a": 1}, '{"a": "2"}', {"a": 2}),
        (None, '{"a": null}', {"a": None}),
        (None, "null", None),
        (None, "a=b", "a=b"),
        (None, "1.10", "1.10"),
        (None, "6063e25", "6063e25"),
        (None, "False", "False"),
    ],
)
def test_types(known: Any, text: str, value: Any) -> None:
    """Text is read as the type that the pipeline file has; without one it is a value where that has the same text."""
    made = pipeline(x=known)
    for found in (parameters(made, given=[f"x={text}"]), parameters(made, environ={"RUNNABLE_PRM_x": text})):
        assert found == {"x": value}
        assert type(found["x"]) is type(value)


@pytest.mark.parametrize(
    ("known", "text", "what", "hint"),
    [
        (True, "maybe", 'x is a boolean in runnable.toml, not "maybe"', "true or false"),
        (True, "", 'x is a boolean in runnable.toml, not ""', "true or false"),
        (True, "2", 'x is a boolean in runnable.toml, not "2"', "true or false"),
        (1, "five", 'x is a number in runnable.toml, not "five"', "such as 5"),
        (1, "true", 'x is a number in runnable.toml, not "true"', "such as 5"),
        (1, "0x1f", 'x is a number in runnable.toml, not "0x1f"', "such as 5"),
        (1, "nan", 'x is a number in runnable.toml, not "nan"', "such as 5"),
        (1, "1e999", 'x is a number in runnable.toml, not "1e999"', "such as 5"),
        (1, "9" * 5000, "x is a number in runnable.toml, not ", "such as 5"),
        ([1], "1, 2", 'x is a list in runnable.toml, not "1, 2"', "as JSON"),
        ([1], '{"a": 1}', "x is a list in runnable.toml, not ", "as JSON"),
        ({"a": 1}, "[1]", 'x is a table in runnable.toml, not "[1]"', "one key"),
        ({"a": {"b": True}}, '{"a": {"b": 3}}', "x.a.b is a boolean in runnable.toml, not 3", "true or false"),
    ],
)
def test_what_is_not_of_its_type(known: Any, text: str, what: str, hint: str) -> None:
    """It is refused by its name and place, with what it could be."""
    for place, given in (
        ("--param", {"given": [f"x={text}"]}),
        ("RUNNABLE_PRM_x", {"environ": {"RUNNABLE_PRM_x": text}}),
    ):
        with pytest.raises(UsageError) as caught:
            parameters(pipeline(x=known), **given)
        assert what in caught.value.message
        assert caught.value.message.startswith(place)
        assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["pin", "db_password"])
def test_no_message_shows_a_secret(name: str) -> None:
    """A value that is refused is not shown where its parameter is a secret."""
    table = {"secrets": ["PIN"], "parameters": {name: 1, "t": {"x": 1}}, "steps": {"a": {"run": "x"}}}
    made = resolve(table, file="runnable.toml", default_name="n")
    for given in ({"given": [f"{name}=hunter2"]}, {"environ": {f"RUNNABLE_PRM_{name}": "hunter2"}}):
        with pytest.raises(UsageError, match=f"{name} is a number in runnable.toml, not what is given for it"):
            parameters(made, **given)


def test_types_of_files(tmp_path: Path) -> None:
    """Values of a file have types of their own: those that say the same are taken, others are refused."""
    made = pipeline(flag=True, rate=0.5, sizes=[1], name="x", model={"depth": 3, "kind": "tree"})
    text = '{"flag": 0, "rate": "1e-3", "sizes": [], "name": null, "model": {"depth": "4"}}'
    assert parameters(made, file=write(tmp_path, text, "p.json")) == {
        "flag": False,
        "rate": 0.001,
        "sizes": [],
        "name": None,
        "model": {"depth": 4, "kind": "tree"},
    }
    for wrong in ('{"flag": 2}', '{"rate": true}', '{"sizes": 1}', '{"name": 1.10}', '{"model": {"kind": 1}}'):
        with pytest.raises(UsageError, match=r"^error: --params-file .*p\.json: .* is .* in runnable\.toml, not "):
            parameters(made, file=write(tmp_path, wrong, "p.json"))


def test_type_of_the_pipeline_file_counts_first(tmp_path: Path) -> None:
    """What a parameter file has is of the type that the pipeline file has; else it says what later places give."""
    with pytest.raises(UsageError, match=r'x is a number in runnable\.toml, not "text"'):
        parameters(pipeline(x=1), file=write(tmp_path, 'x = "text"', "more.toml"))
    assert parameters(pipeline(), file=write(tmp_path, 'x = "text"', "more.toml"), given=["x=2"]) == {"x": "2"}
    with pytest.raises(UsageError, match="x is a boolean in --params-file, not"):
        parameters(pipeline(), file=write(tmp_path, "x = true", "more.toml"), given=["x=2"])


def test_words_of_yaml(tmp_path: Path) -> None:
    """A word that readers of YAML take for a boolean or for text is what the pipeline file has, or refused."""
    made = pipeline(flag=True, country="de", rate=1, model={"flag": True})
    file = write(tmp_path, "flag: no\ncountry: no\nmodel:\n  flag: off\n", "p.yaml")
    found = parameters(made, file=file)
    assert found == {"flag": False, "country": "no", "rate": 1, "model": {"flag": False}}
    assert type(found["country"]) is str
    for text, name in (
        ("other: no", "other"),
        ("rate: 012", "rate"),
        ("l: [1, yes]", r"l\[1\]"),
        ("t: {a: on}", r"t\.a"),
    ):
        with pytest.raises(UsageError, match=rf"p\.yaml: {name}: \w+ is read in two ways"):
            parameters(made, file=write(tmp_path, text, "p.yaml"))


def test_several_files_in_order(tmp_path: Path) -> None:
    """Of several files the later counts, key by key of a table."""
    made = pipeline(model={"kind": "tree", "depth": 3, "fit": {"a": 1, "b": 2}}, sizes=[1])
    files = [
        write(tmp_path, "model: {depth: 4, fit: {b: 3}}\nsizes: [2, 3]\nextra: {x: 1}", "base.yaml"),
        write(tmp_path, '{"model": {"depth": 5}, "extra": {"y": 2}}', "more.json"),
        write(tmp_path, "[model]\nkind = 'forest'\n", "last.toml"),
    ]
    assert parameter_overrides(made, params_files=files, environ={}, options=["extra.x=9"]) == {
        "model": {"kind": "forest", "depth": 5, "fit": {"a": 1, "b": 3}},
        "sizes": [2, 3],
        "extra": {"x": 9, "y": 2},
    }


def test_one_key_of_a_table() -> None:
    """A way with dots changes one key, of its own type, and leaves its neighbours, also when given twice."""
    model = {"kind": "tree", "fit": {"depth": 3, "on": True}}
    made = pipeline(model=model)
    found = parameters(made, given=["model.fit.depth=5", "model.kind=1.10", "model.fit.on=no", "model.seed=7"])
    assert found == {"model": {"kind": "1.10", "fit": {"depth": 5, "on": False}, "seed": 7}}
    assert made.parameters == {"model": {"kind": "tree", "fit": {"depth": 3, "on": True}}}
    found = parameters(made, environ={"RUNNABLE_PRM_model": '{"kind": "x"}'}, given=["model.seed=1"])
    assert found == {"model": {"kind": "x", "seed": 1}}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.knid=x", "--param: there is no key `knid` in `model`"),
        ("modle.kind=x", "--param: there is no parameter `modle`"),
        ("other.kind=x", "--param: there is no table `other`"),
        ("model.=1", "--param: `model.` has a key without a name"),
        ("model.kind.x=1", "--param: `model.kind` is not a table: it has no key `x`"),
        ("model.fit.depth.x=1", "--param: `model.fit.depth` is not a table: it has no key `x`"),
        ("model.new.x=1", "--param: there is no table `model.new`"),
        ("model.fit.depth=x", '--param: model.fit.depth is a number in runnable.toml, not "x"'),
    ],
)
def test_no_such_key(option: str, message: str) -> None:
    """A way that leads nowhere, or to a name that is nearly one, is refused."""
    made = pipeline(model={"kind": "tree", "fit": {"depth": 3}})
    with pytest.raises(UsageError) as caught:
        parameters(made, given=[option])
    assert (caught.value.message, bool(caught.value.hint)) == (message, True)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("p.toml", "x = 1", {"x": 1}),
        ("p.toml", "[parameters]\nx = 1", {"x": 1}),
        ("p.toml", "[parameters]\n", {}),
        ("p.toml", "", {}),
        ("p.json", '{"x": {"a": [1]}}', {"x": {"a": [1]}}),
        ("p.yaml", "x:\n  a: [1]\n  b: null\n", {"x": {"a": [1], "b": None}}),
        ("p.yml", "# nothing\n", {}),
    ],
)
def test_parameter_file(tmp_path: Path, name: str, text: str, found: Mapping[str, Any]) -> None:
    """A parameter file is TOML, with or without a table around it, or JSON."""
    assert parameters(pipeline(), file=write(tmp_path, text, name)) == found


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.json", "[1]", "is not a table of parameters"),
        ("p.json", "{", "p.json: is not JSON: expecting property name enclosed in double quotes at line 1, column 2"),
        ("p.json", '{"a": NaN}', "p.json: is not JSON: NaN is not a JSON number"),
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
    assert caught.value.hint == "a file of TOML, or with the suffix .json, .yaml or .yml"
    with pytest.raises(UsageError, match=r"--params-file .*p\.yaml: line 2: "):
        parameters(pipeline(), file=write(tmp_path, "x: 1\ny: [", "p.yaml"))
    with pytest.raises(PipelineError, match=r"p\.toml:1 is not TOML"):
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
        parse_param_options([given_], KnownParameters({}, {}))
    assert caught.value.message == message.replace("[parameters] ", "")


def test_environment_variable_that_names_nothing() -> None:
    """A variable with our prefix and a name that no parameter may have is refused."""
    for name in ("", "a-b", "HOME"):
        with pytest.raises(UsageError, match=f"RUNNABLE_PRM_{name} in the environment: "):
            parameters(pipeline(), environ={f"RUNNABLE_PRM_{name}": "1"})


def test_param_given_twice() -> None:
    """The last of several `--param` of one name counts."""
    assert parse_param_options(["x=1", "y=", "x=2"], KnownParameters({}, {})) == {"x": 2, "y": ""}


def test_only_the_variables_that_are_asked_for() -> None:
    """What else the environment sets is not even looked at."""
    environ = {"RUNNABLE_PRM_a": "1", "RUNNABLE_PRM_HOME": "x"}
    assert environment_parameters(environ, KnownParameters({}, {}), only=["a", "b"]) == {"a": 1}


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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    """A mark that some editors write before the text is none of it, and the encoding that it names is read."""
    (tmp_path / "p.toml").write_text("y = 'ä'\r\nx = 1", encoding=encoding, newline="")
    assert parameters(pipeline(), file=tmp_path / "p.toml") == {"y": "ä", "x": 1}


def test_other_encoding(tmp_path: Path) -> None:
    """Text in an encoding that nothing names is refused with the line."""
    (tmp_path / "p.toml").write_bytes("x = 1\ny = 'ä'".encode("latin-1"))
    with pytest.raises(UsageError, match=r"p\.toml: line 2 is not UTF-8 text"):
        parameters(pipeline(), file=tmp_path / "p.toml")
