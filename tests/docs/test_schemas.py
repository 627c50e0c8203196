"""Tests of the JSON schemas: they are what the models say, and take what the models take."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from schemas import pipeline_schema, run_log_schema

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.resolve import resolve

ROOT = Path(__file__).parents[2]
FILES: dict[str, Callable[[], dict[str, Any]]] = {
    "runnable.schema.json": pipeline_schema,
    "run-log.schema.json": run_log_schema,
}
PIPELINES = sorted({*ROOT.glob("examples/**/*.toml"), *ROOT.glob("tests/pipelines/**/runnable.toml")})


@pytest.mark.parametrize("name", FILES)
def test_the_written_schema_is_up_to_date(name: str) -> None:
    """The file under `docs/schema/` is, byte for byte, what the models generate."""
    schema = FILES[name]()
    Draft202012Validator.check_schema(schema)
    written = (ROOT / "docs/schema" / name).read_text(encoding="utf-8")
    assert written == json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_good_pipeline_file(path: Path) -> None:
    """Each pipeline of ours is valid for an editor too."""
    Draft202012Validator(pipeline_schema()).validate(tomllib.loads(path.read_text(encoding="utf-8")))


GOOD = {
    "run": 'steps.a.run = "x"',
    "python": 'steps.a.python = "m:f"',
    "everything": """
        name = "iris"
        python = ".venv/bin/python"
        env = { A = "1" }
        parameters = { rate = 0.5, deep = { list = [1, "a"] } }
        [steps.a_b-1]
        run = "make"
        needs = []
        returns = { x = "metric", y = "json" }
        catalog = { get = ["in/**"], put = ["out.csv"] }
        parameters = ["rate"]
        env = { B = "2" }
        shell = "perl {0}"
        working-directory = "sub"
        timeout-minutes = 30
        continue-on-error = true
    """,
    "returns by names": 'steps.a = { run = "x", returns = ["x", "y"] }',
    "object": 'steps.a = { python = "m:f", returns = { x = "object" } }',
}
BAD = {
    "no steps": 'name = "x"',
    "empty steps": "[steps]",
    "unknown top-level key": 'nmae = "x"\nsteps.a.run = "x"',
    "unknown step key": 'steps.a = { run = "x", rum = "x" }',
    "underscore for dash": 'steps.a = { run = "x", timeout_minutes = 3 }',
    "unknown catalog key": 'steps.a = { run = "x", catalog = { puts = ["x"] } }',
    "two kinds of step": 'steps.a = { run = "x", python = "m:f" }',
    "no kind of step": "steps.a.needs = []",
    "kind": 'steps.a = { python = "m:f", returns = { x = "metrics" } }',
    "returns twice": 'steps.a = { run = "x", returns = ["x", "x"] }',
    "needs not a list": 'steps.a = { run = "x", needs = "b" }',
    "env of numbers": 'steps.a = { run = "x", env = { N = 1 } }',
    "timeout zero": 'steps.a = { run = "x", timeout-minutes = 0 }',
    "step name": '[steps."a b"]\nrun = "x"',
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_the_program_takes_the_schema_takes(text: str) -> None:
    """An editor finds no fault where the program finds none."""
    table = tomllib.loads(text)
    assert resolve(table, file="f", default_name="n").steps
    Draft202012Validator(pipeline_schema()).validate(table)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_the_schema_refuses_the_program_refuses(text: str) -> None:
    """An editor shows the mistakes that can be seen without looking at other steps."""
    table = tomllib.loads(text)
    with pytest.raises(PipelineError):
        resolve(table, file="runnable", default_name="n")
    assert not Draft202012Validator(pipeline_schema()).is_valid(table)


def test_each_field_of_the_pipeline_file_is_described() -> None:
    """An editor can say what each key is for."""
    schema = pipeline_schema()
    for table in (schema, *schema["$defs"].values()):
        assert all(field["description"] for field in table["properties"].values())
    assert "null" not in json.dumps(schema)


def test_run_log_schema_carries_the_docstrings() -> None:
    """The text under a field of the model stands in the schema."""
    schema = run_log_schema()
    assert schema["$defs"]["StepAttempt"]["properties"]["reason"]["description"] == "Why the step ran, in one line."
    assert schema["properties"]["packs"]["description"] == "sha256 of the pack → what is in it."


def test_run_log_schema_takes_the_reference_and_what_is_newer() -> None:
    """A log of the reference system is valid, with fields that nobody knows yet, but not without a run id."""
    validator = Draft202012Validator(run_log_schema())
    document = json.loads((ROOT / "tests/data/runlog-example.json").read_text(encoding="utf-8"))
    validator.validate(document | {"newer": 1})
    del document["run_id"]
    assert not validator.is_valid(document)
