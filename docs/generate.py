"""Writes what is generated: `python docs/generate.py`.

`reference/` and `schema/` come from the command line, the models and `action.yml`; the workflows that users copy from
those that `init --github` fills in.

A test holds the files against what this would write.
"""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import schemas
import yaml
from pydantic import BaseModel

from runnable_ci.pipeline.keys.tables import (
    CatalogConfig,
    ExecutorConfig,
    InputConfig,
    PutConfig,
    ResourcesConfig,
    RunnerConfig,
    WorkflowConfig,
)
from runnable_ci.pipeline.schema import PipelineConfig, StepConfig
from runnable_ci.pipeline.validation import RESERVED, RESERVED_PREFIXES
from runnable_ci.runs import model as runlog

FOLDER = Path(__file__).parent
WORKFLOWS = FOLDER.parent / "runnable_ci" / "github" / "workflows"


def pages() -> dict[str, str]:
    """Path below this folder → text of each page."""
    return {
        "reference/action.md": _action(),
        "reference/cli.md": _cli(),
        "reference/pipeline-file.md": _pipeline_file(),
        "reference/run-log.md": _run_log(),
        "schema/runnable.schema.json": _json(schemas.pipeline_schema()),
        "schema/run-log.schema.json": _json(schemas.run_log_schema()),
        "../runnable_ci/api/run-log.schema.json": _json(schemas.run_log_schema()),
        **{
            f"../workflows/{name}": (WORKFLOWS / name).read_text(encoding="utf-8")
            for name in ("ci.yml", "reproduce.yml", "retry.yml")
        },
    }


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _cli() -> str:
    command = [sys.executable, "-m", "typer", "runnable_ci.cli.app", "utils", "docs", "--name", "runnable-ci"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() + "\n"


def _action() -> str:
    action = yaml.safe_load((FOLDER.parent / "action.yml").read_text(encoding="utf-8"))
    inputs = [
        f"| `{name}` | {_cell(given['description'])} | {_default(given.get('default'))} |"
        for name, given in action["inputs"].items()
    ]
    outputs = [f"| `{name}` | {_cell(given['description'])} |" for name, given in action["outputs"].items()]
    parts = [
        "# The action",
        "`uses: runnable/action@v1`. How to use it is described in the [guide to GitHub](../github.md).",
        "## Inputs",
        "\n".join(["| input | meaning | default |", "| --- | --- | --- |", *inputs]),
        "## Outputs",
        "\n".join(["| output | meaning |", "| --- | --- |", *outputs]),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(value: str | None) -> str:
    """As GitHub shows it; an expression without its braces."""
    return f"`{value.removeprefix('${{').removesuffix('}}').strip()}`" if value else ""


def _pipeline_file() -> str:
    tables: dict[str, type[BaseModel]] = {
        "Top level": PipelineConfig,
        "`[steps.NAME]`": StepConfig,
        "`catalog`": CatalogConfig,
        "An entry of `put`": PutConfig,
        "`resources`": ResourcesConfig,
        "`runs-on`": RunnerConfig,
        "`[executors.NAME]`": ExecutorConfig,
        "`[inputs.NAME]`": InputConfig,
        "`[workflow]`": WorkflowConfig,
    }
    parts = [
        "# The pipeline file",
        "`runnable.toml`, or the table `[tool.runnable-ci]` of `pyproject.toml`. Unknown keys are errors. "
        "[A JSON schema](../schema/runnable.schema.json) serves editors.",
    ]
    for title, model in tables.items():
        rows = [
            f"| `{field.alias or name}` | {_type_of(model, name)} | {field.description} |"
            for name, field in model.model_fields.items()
            if field.description
        ]
        parts += [f"## {title}", "\n".join(["| key | type | meaning |", "| --- | --- | --- |", *rows])]
    prefixes = ", ".join(f"`{prefix}`" for prefix in RESERVED_PREFIXES)
    names = ", ".join(f"`{name}`" for name in sorted(RESERVED))
    parts += ["## Reserved parameter names", f"{names}, and all that begin with {prefixes}."]
    return "\n\n".join(parts) + "\n"


def _type_of(model: type[BaseModel], name: str) -> str:
    kind = inspect.get_annotations(model).get(name, "")
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return "`" + text.replace(" | None", "").replace("|", "or").replace("Any", "value") + "`"


def _run_log() -> str:
    parts = [
        "# The run log",
        f"JSON, one document a run, version {runlog.SCHEMA_VERSION} ([JSON schema](../schema/run-log.schema.json)). "
        "The structure is that of AstraZeneca's runnable, whose models read it unchanged; fields are added to it, none "
        "is renamed or left out. Readers keep fields that they do not know.",
    ]
    for node in schemas.records():
        parts += [f"## {node.name}", ast.get_docstring(node) or "", _fields(node)]
    return "\n\n".join(parts) + "\n"


def _fields(node: ast.ClassDef) -> str:
    rows = ["| field | type | meaning |", "| --- | --- | --- |"]
    for i, item in enumerate(node.body):
        if isinstance(item, ast.AnnAssign):
            follower = node.body[i + 1] if i + 1 < len(node.body) else None
            meaning = ""
            if isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant):
                meaning = str(follower.value.value)
            kind = ast.unparse(item.annotation).replace("|", "or")
            rows.append(f"| `{ast.unparse(item.target)}` | `{kind}` | {meaning} |")
    return "\n".join(rows)


if __name__ == "__main__":
    for name, text in pages().items():
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")
