"""JSON schemas of the two formats that others read and write: the pipeline file, and the run log."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from runnable_ci.pipeline.schema import PipelineConfig
from runnable_ci.runs import code_model
from runnable_ci.runs import model as runlog
from runnable_ci.runs.files import checkpoint_model, log_file
from runnable_ci.runs.machines import environment_model

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def pipeline_schema() -> dict[str, Any]:
    """The schema of `runnable.toml`, for editors; what only the whole file tells, such as a cycle, it cannot know."""
    return {"$schema": DIALECT, **PipelineConfig.model_json_schema(by_alias=True, schema_generator=_OfToml)}


def run_log_schema() -> dict[str, Any]:
    """The schema of a run log document, with the docstring of each field as its description."""
    schema = runlog.RunLog.model_json_schema(schema_generator=_Untitled)
    tables = {**schema["$defs"], "RunLog": schema}
    for node in records():
        if node.name in tables:
            for name, meaning in _docstrings(node):
                tables[node.name]["properties"][name]["description"] = meaning
    return {"$schema": DIALECT, **schema}


def records() -> list[ast.ClassDef]:
    """The classes of which a run log is made, as they are written."""
    trees = [
        ast.parse(inspect.getsource(module))
        for module in (runlog, log_file, checkpoint_model, environment_model, code_model)
    ]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    return [node for node in classes if [ast.unparse(base) for base in node.bases] == ["Record"]]


class _Untitled(GenerateJsonSchema):
    """Fields have their names, and titles would only say them again."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the interface's
        return False


class _OfToml(_Untitled):
    """TOML has no null: what can be left out is left out."""

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


def _docstrings(node: ast.ClassDef) -> list[tuple[str, str]]:
    """Field → the text under it."""
    return [
        (field.target.id, text.value.value)
        for field, text in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    ]
