"""Python steps: a function in the user's own interpreter, run by a worker that needs nothing installed there."""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import os
import warnings
from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from runnable_ci.errors import StepError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import as_glob, can_overlap
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Parameter
from runnable_ci.steps.base import ProcessSpec, StepContext

WORKER = Path(__file__).parent / "worker" / "python_step.py"
_NO_MODELS = frozenset(
    {
        *(*vars(builtins), "Any", "Collection", "Dict", "FrozenSet", "Iterable", "List", "Literal", "Mapping"),
        *("Sequence", "Set", "Tuple", "Path", "PurePath", "date", "datetime", "time", "timedelta"),
        *("Decimal", "Fraction", "UUID"),
    }
)
"""Annotations in which other parameters have no part: an argument is built from the value of its own name alone."""
_GENERICS = _NO_MODELS | {"Union"}
_ENUMS = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"})


def prepare(step: Step, context: StepContext) -> ProcessSpec:
    """Return the process that calls a python step's function, with its request written to the scratch folder."""
    if step.container is None and not os.access(context.interpreter, os.X_OK):
        hint = "if a step that was reused makes it: `retry --from` that step makes it again"
        raise StepError(f"the interpreter {context.interpreter} is not there, or not executable", hint=hint)
    parameters: dict[str, Mapping[str, object]] = {}
    objects = objects_taken(step, context.workspace, context.parameters)
    for name, parameter in context.parameters.items():
        if name in objects or parameter.kind != "object":
            parameters[name] = context.source(parameter)
    request = {
        "function": step.command,
        "path": [str(folder) for folder in _folders(step, context.workspace)],
        "workspace": str(context.workspace),
        "parameters": parameters,
        "returns": [[name, "json" if kind == "auto" else kind] for name, kind in step.returns.items()],
        "objects": str(context.scratch),
    }
    file = context.scratch / "request.json"
    file.write_text(json.dumps(request), encoding="utf-8")
    return ProcessSpec(
        argv=(context.interpreter, str(WORKER), str(file), str(context.scratch / "response.json")),
        cwd=context.workspace / step.working_directory,
        env={**context.environ, **step.env, "RUNNABLE_STEP": step.name},
        given=tuple(parameters),
    )


class Source(NamedTuple):
    """Where a function is written: the module's file, and the function's own text, empty where it is not plain."""

    file: Path
    text: str
    arguments: tuple[str, ...] | None = None
    """The names of its arguments; None where the text does not tell."""
    required: tuple[str, ...] = ()
    """Those without which it cannot be called, as far as the text tells: what it cannot tell is not here."""
    takes_more: bool = True
    """Whether other parameters may reach it: through `**kwargs`, as fields of a model, or by what is not plain."""
    is_parsed: bool = True
    """Whether this interpreter can read the module."""

    def hash(self) -> str:
        """Return sha256 of the function's text, empty where that is not known."""
        return hashlib.sha256(self.text.encode()).hexdigest() if self.text else ""


def find_source(step: Step, workspace: Path) -> Source | None:
    """Return where a step's function is written; None where its module is not in the workspace.

    Reads, never imports. Raises `StepError` where the module is there and can have no such function.
    """
    qualified = step.command.partition(":")[2]
    file = find_module(step, workspace)
    if file is None:
        return None
    stat = file.stat()
    tree = _parse(file, (stat.st_mtime_ns, stat.st_size))
    if tree is None:
        return Source(file, "", is_parsed=False)
    name, _, rest = qualified.partition(".")
    defined = _defined(tree)
    if name not in defined:
        if "*" in defined or "__getattr__" in defined:
            return Source(file, "")
        raise StepError(f"{file.name} has no function `{name}`", hint=did_you_mean(name, defined, _has(defined)))
    node = defined[name]
    if rest or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return Source(file, "")
    # Split as Python counts lines: a form feed or U+2028 ends none.
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    text = "\n".join(lines[first - 1 : node.end_lineno])
    if node.decorator_list:
        return Source(file, text)
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return Source(
        file,
        text,
        tuple(argument.arg for argument in arguments),
        _required(node.args, defined) if _is_bound_last(node, tree, defined.get("*")) else (),
        takes_more=node.args.kwarg is not None or not all(_is_plain(it.annotation, defined) for it in arguments),
    )


def find_module(step: Step, workspace: Path) -> Path | None:
    """Return the file of a step's module, if it is in the workspace."""
    module = step.command.partition(":")[0]
    files = [file for folder in search_path(step, workspace) for file in _module_files(folder, module)]
    return next(filter(Path.is_file, files), None)


def is_put_before(pipeline: Pipeline, step: Step, path: str) -> bool:
    """Return whether a step that runs before `step` declares that it makes this file: what is there now may be old."""
    before = (pipeline.steps[name] for name in pipeline.ancestors(step.name))
    return any(can_overlap(as_glob(put), path) for one in before for put in one.put)


def _required(arguments: ast.arguments, defined: Mapping[str, ast.AST]) -> tuple[str, ...]:
    """Return the arguments that have no default, and are not built from other parameters."""
    positional = [*arguments.posonlyargs, *arguments.args]
    without = positional[: len(positional) - len(arguments.defaults)]
    without += [a for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return tuple(argument.arg for argument in without if _is_plain(argument.annotation, defined))


def _is_plain(annotation: ast.expr | None, defined: Mapping[str, ast.AST]) -> bool:
    """Return whether the parameter of its name alone can give an argument: what else its annotation names may be
    a model.
    """
    match annotation:
        case None | ast.Constant(value=None):
            return True
        case ast.Name(id=name) if isinstance(own := defined.get(name), ast.ClassDef):
            return any(isinstance(base, ast.Name | ast.Attribute) and _last_name(base) in _ENUMS for base in own.bases)
        case ast.Name() | ast.Attribute():
            return _last_name(annotation) in _NO_MODELS
        case ast.Subscript(value=ast.Name() | ast.Attribute() as generic, slice=ast.Tuple(elts=parts)):
            others = parts if _last_name(generic) == "Union" else []
            return _last_name(generic) in _GENERICS and all(_is_plain(part, defined) for part in others)
        case ast.Subscript(value=ast.Name() | ast.Attribute() as generic, slice=part):
            is_union = _last_name(generic) in ("Optional", "Union")
            return _is_plain(part, defined) if is_union else _last_name(generic) in _GENERICS
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_plain(left, defined) and _is_plain(right, defined)
        case _:
            return False


def _last_name(node: ast.Name | ast.Attribute) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr


def _is_bound_last(node: ast.stmt, tree: ast.Module, star: ast.AST | None) -> bool:
    """Return whether this is surely the function: not one of several under an `if`, no star import may replace it."""
    return node in tree.body and (not isinstance(star, ast.ImportFrom) or star.lineno < node.lineno)


def _has(defined: Mapping[str, ast.AST]) -> str:
    functions = [name for name, node in defined.items() if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return f"it has {', '.join(functions[:5])}{', …' if functions[5:] else ''}" if functions else "it has no functions"


def objects_taken(
    step: Step, workspace: Path, parameters: Mapping[str, Parameter], *, coming: Collection[str] = ()
) -> set[str]:
    """Return the object parameters that the function may take: those it names, or all where an argument is none
    of them.

    `coming` are parameters that steps before this one will give. Raises `StepError` as `find_source` does.
    """
    source = find_source(step, workspace)
    objects = {name for name, parameter in parameters.items() if parameter.kind == "object"}
    if source is None or source.arguments is None or not {*parameters, *coming}.issuperset(source.arguments):
        return objects
    return objects.intersection(source.arguments)


def takes(step: Step, workspace: Path) -> Collection[str] | None:
    """Return the names of the arguments that a function takes; None where its text does not tell."""
    source = find_source(step, workspace)
    return None if source is None else source.arguments


def _folders(step: Step, workspace: Path) -> list[Path]:
    return list(dict.fromkeys([workspace / step.working_directory, workspace]))


def search_path(step: Step, workspace: Path) -> list[Path]:
    """Return the folders of the workspace in which Python looks for a step's module, also by its `PYTHONPATH`."""
    folder = workspace / step.working_directory
    named = [Path(os.path.normpath(folder / name)) for name in step.env.get("PYTHONPATH", "").split(os.pathsep) if name]
    inside = [path for path in named if path.is_relative_to(workspace)]
    return list(dict.fromkeys([*_folders(step, workspace), *inside]))


@lru_cache(maxsize=256)
def _parse(file: Path, _version: tuple[int, int]) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # the user's interpreter gives them where they belong
            return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError):  # the user's interpreter may know a newer syntax: it will tell
        return None


def _module_files(folder: Path, module: str) -> list[Path]:
    base = folder.joinpath(*module.split("."))
    return [base / "__init__.py", base.with_name(f"{base.name}.py")]


def _defined(tree: ast.Module) -> dict[str, ast.AST]:
    """Return the names that a module binds, also under `if`, `try` and the like; `*` for a star import."""
    names: dict[str, ast.AST] = {}
    waiting: list[ast.AST] = [tree]
    while waiting:
        match node := waiting.pop():
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names[node.name] = node
            case ast.Import() | ast.ImportFrom():
                names |= {(alias.asname or alias.name.split(".")[0]): node for alias in node.names}
            case ast.Name(ctx=ast.Store()):
                names[node.id] = node
            case _:
                waiting.extend(reversed(list(ast.iter_child_nodes(node))))
    return names
