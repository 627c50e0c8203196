"""A Snakefile as a pipeline file: rules are steps, wildcards are a matrix.

Which jobs there are is found as Snakemake finds it, from the first rule's files back. Only declarations count: what
would have to be executed to be known is a comment.
Source: Snakemake's documentation, "Snakefiles and Rules".
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from runnable_ci.cli.importers.evaluator import Deferred, Evaluator, NotDeclarativeError
from runnable_ci.cli.importers.imported import READS, ImportedPipeline, needed, strategy
from runnable_ci.cli.importers.snakefile import Directive, Rule, Unread, parse_snakefile
from runnable_ci.cli.importers.snakemake_jobs import (
    DirectiveValues,
    ReadRule,
    constraints_of,
    files_of,
    find_jobs,
    read_rule,
)
from runnable_ci.cli.importers.snakemake_script import RuleValues, of_python_script, of_shell
from runnable_ci.cli.importers.wildcards import as_expression, filled
from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.pipeline.validation import RESERVED, RESERVED_PREFIXES
from runnable_ci.pipeline.values.params_file import read_file
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import decode_text

_CONTAINERS: Final = ("container", "singularity")
_OTHERS: Final = frozenset({"notebook", "wrapper", "cwl", "template_engine"})
"""What else a rule may run."""
_SAME: Final = frozenset(
    {"input", "output", "params", "log", "shell", "script", "threads", "retries", "wildcard_constraints"}
    | {*_CONTAINERS, *_OTHERS}
)
_HINTS: Final = {
    "conda": "conda: activate the environment before the run, or in the script",
    "resources": "resources are not counted: `--jobs` limits how many steps run at once",
    "benchmark": "benchmark: a run has the duration of each attempt",
    "localrules": "",
}
_TEMPORARY: Final = f"temp: files stay until `{command('gc')}` removes the run"
_MARKS: Final = {
    "temp": _TEMPORARY,
    "temporary": _TEMPORARY,
    "protected": "protected: files keep the permissions that they have",
}
_EVERY_CONTAINER: Final = "container of every rule"
"""No name that a Snakefile could have."""
_WANTED: Final = "the first rule says which files are wanted: write them as a list"
_FILES_MAX: Final = 100_000


def import_snakefile(file: Path) -> ImportedPipeline:
    """Return the pipeline of a Snakefile. Raises `UsageError` for one that cannot be understood."""
    folder = file.parent.parent if file.resolve().parent.name == "workflow" else file.parent
    imported = ImportedPipeline(file.name, folder)
    evaluator = Evaluator({"config": {}, "rules": {}}, cache(lambda: [*_files(folder)]))
    constraints: dict[str, str] = {}
    rules = [*_read(imported, file, evaluator, constraints)]
    if twice := [rule.name for i, rule in enumerate(rules) if any(rule.name == it.name for it in rules[:i])]:
        raise UsageError(f"{file}: two rules have the name {twice[0]}")
    read = [read_rule(imported, rule, evaluator, constraints) for rule in rules]
    read.sort(key=lambda rule: rule.rule.file != file)  # what is wanted is said by the first rule of the file itself
    try:
        find_jobs(imported, read, evaluator)
    except (NotDeclarativeError, ValueError) as e:
        raise UsageError(f"{file}: which files are wanted is not declared: {e}", hint=_WANTED) from e
    steps: dict[str, dict[str, Any]] = {}
    done = [rule for rule in read if rule.jobs and not _is_target(rule)]
    if unused := [rule.name for rule in read if not rule.jobs]:
        imported.note(f"rules that make nothing that rule {read[0].name} wants: {', '.join(unused)}")
    for rule in done:
        steps[rule.name] = _step(imported, rule, evaluator)
    if not steps:
        unknown = imported.notes.get(("steps", read[0].name), []) if read else []
        raise UsageError("; ".join([f"{file} has no rules that would run", *unknown]), hint=_WANTED)
    reads = {rule.name: {*_paths(rule, rule.items["input"], evaluator)} for rule in done}
    writes = {rule.name: {*_paths(rule, rule.items["output"], evaluator)} for rule in done}
    needs = needed(reads, writes)
    imported.table = {
        "name": folder.resolve().name,
        "steps": {name: {"needs": needs[name], **step} for name, step in steps.items()},
    }
    return imported


def _is_target(rule: ReadRule) -> bool:
    """Return whether a rule only says what is wanted."""
    return not rule.items["output"].values and not {"shell", "script", *_OTHERS} & rule.rule.directives.keys()


def _paths(rule: ReadRule, items: DirectiveValues, evaluator: Evaluator) -> Iterator[str]:
    for job in rule.jobs:
        yield from files_of(items, job, evaluator)


def _files(folder: Path) -> Iterator[str]:
    """Yield the files below a folder, but for hidden ones, as `glob_wildcards` sees them."""
    for count, path in enumerate(sorted(folder.rglob("*"))):
        if count > _FILES_MAX:
            return
        relative = path.relative_to(folder)
        if not any(part.startswith(".") for part in relative.parts) and path.is_file():
            yield relative.as_posix()


def _read(
    imported: ImportedPipeline,
    file: Path,
    evaluator: Evaluator,
    constraints: dict[str, str],
    above: tuple[Path, ...] = (),
) -> Iterator[Rule]:
    """Yield the rules of a file and of those that it includes; take its variables, configuration and constraints."""
    if file.resolve() in above:
        raise UsageError(f"{file} includes itself")
    try:
        content = decode_text(file.read_bytes())
    except (OSError, ValueError) as e:
        raise UsageError(f"{file} cannot be read: {e}") from e
    for entry in parse_snakefile(content, str(file)):
        match entry:
            case Rule():
                yield replace(entry, file=file)
            case Directive(key="include", arguments=ast.Call(args=[ast.Constant(value=str(name))])):
                yield from _read(imported, file.parent / name, evaluator, constraints, (*above, file.resolve()))
            case Directive():
                _take(imported, entry, evaluator, constraints)
            case Unread(number=number, text=text):
                imported.note(f"{file.name}, line {number}: {text}: not a declaration")
            case ast.stmt() if not evaluator.assign(entry):
                text = ast.unparse(entry).splitlines()[0].rstrip(":")
                imported.note(f"{file.name}, line {entry.lineno}: {text}: not read")


def _take(imported: ImportedPipeline, directive: Directive, evaluator: Evaluator, constraints: dict[str, str]) -> None:
    key, call = directive
    match key, call.args:
        case "configfile", [ast.Constant(value=str(name))]:
            _take_config(imported, evaluator, imported.folder / name)
        case "wildcard_constraints", _:
            constraints |= constraints_of(imported, call, evaluator)
        case key, [ast.Constant(value=str(image))] if key in _CONTAINERS:
            evaluator.variables[_EVERY_CONTAINER] = image
        case _ if text := _HINTS.get(key, f"{key}: has no counterpart"):
            imported.note(text)


def _take_config(imported: ImportedPipeline, evaluator: Evaluator, file: Path) -> None:
    try:
        read = read_file(file)
    except (OSError, ValueError, PipelineError) as e:
        raise UsageError(f"{file} cannot be read: {e}") from e
    if isinstance(read, dict):
        evaluator.variables["config"] |= read
        imported.note(f"the values of {file.name} are those of now: import again where they change")


def _step(imported: ImportedPipeline, rule: ReadRule, evaluator: Evaluator) -> dict[str, Any]:
    directives = rule.rule.directives
    if rule.rule.description:
        imported.notes.setdefault(("steps", rule.name), []).insert(0, rule.rule.description)
    axes = {name: _axis(name) for name in rule.wildcards}
    instances: list[dict[str, Any]] = [{axes[name]: job[name] for name in rule.wildcards} for job in rule.jobs]
    items = {key: _known(imported, rule, key, evaluator, instances) for key in ("input", "output", "log", "params")}
    for key in directives:
        if key not in _SAME and (text := _HINTS.get(key, f"{key}: has no counterpart")):
            imported.note(text, step=rule.name)
    for mark, _ in rule.marked:
        if mark in _MARKS:
            imported.note(_MARKS[mark], step=rule.name)
    step: dict[str, Any] = {"strategy": strategy(instances)} if instances[0] else {}
    step |= _container(imported, rule, evaluator)
    numbers = {**evaluator.variables, "threads": _number(rule, "threads", evaluator, 1), "resources": {}}
    touched = [path for mark, value in rule.marked if mark == "touch" for path in _listed(value)]
    logs = [*map(str, items["log"].values)]
    made = [*map(str, items["output"].values), *logs]
    values = RuleValues(items, {**axes, **_extra(instances, axes)}, numbers, rule.name, made, touched)
    step |= _script(imported, rule, values, evaluator)
    keys = ("output", "log") if "{log" in _text(rule) else ("output",)  # a log that is not named is not written
    catalog = {
        "get": _catalog(items["input"], values, instances),
        "put": [path for key in keys for path in _catalog(items[key], values, instances)],
    }
    if found := {key: list(dict.fromkeys(paths)) for key, paths in catalog.items() if paths}:
        step["catalog"] = found
    if isinstance(retries := _number(rule, "retries", evaluator, 0), int) and retries:
        step["attempts"] = retries + 1
    if instances[0]:
        imported.note(READS)
        step["reads"] = _code(imported, rule, evaluator)
    return step


def _code(imported: ImportedPipeline, rule: ReadRule, evaluator: Evaluator) -> list[str]:
    """Return what counts as read beside the inputs: a script, and what is beside it."""
    call = rule.rule.directives.get("script")
    try:
        path = _script_path(imported, rule, str(evaluator.value(call.args[0]))) if call and call.args else ""
    except NotDeclarativeError:
        return []
    return [f"{posixpath.dirname(path) or '.'}/**"] if path else []


def _script_path(imported: ImportedPipeline, rule: ReadRule, path: str) -> str:
    return os.path.relpath(rule.rule.file.parent / path, imported.folder)


def _axis(name: str) -> str:
    """Return the name of the axis for a wildcard: one that a variable of a script can have."""
    return f"wildcard_{name}" if name in RESERVED or name.startswith(RESERVED_PREFIXES) else name


def _extra(instances: Sequence[Mapping[str, Any]], axes: Mapping[str, str]) -> dict[str, str]:
    return {name: name for name in instances[0] if name not in axes.values()}


def _known(
    imported: ImportedPipeline, rule: ReadRule, key: str, evaluator: Evaluator, instances: list[dict[str, Any]]
) -> DirectiveValues:
    """Return what a directive lists, where what a function gives is a value, or an axis where it is not always one."""
    known = DirectiveValues()
    for name, values, is_list in rule.items[key].arguments():
        made: list[Any] = []
        for value in values:
            try:
                results = [evaluator.result(value, job) for job in rule.jobs] if isinstance(value, Deferred) else []
            except NotDeclarativeError as e:
                imported.note(f"{key}: {e} is not a declaration: add what it is", step=rule.name)
                continue
            rows = [[filled(str(it), job) for it in _listed(one)] for one, job in zip(results, rule.jobs, strict=False)]
            if len({len(row) for row in rows}) > 1:
                rows = [[" ".join(row)] for row in rows]
            columns = zip(*rows, strict=True) if rows else []
            axis = f"{key}_{name}" if name and len(values) == 1 else f"{key}_{len(known.values)}"
            made += [_as_axis(f"{axis}_{i}" if i else axis, column, instances) for i, column in enumerate(columns)]
            made += [] if rows else [value]
        known.add(name, made, is_list=is_list or len(made) > 1)
    return known


def _as_axis(name: str, column: Sequence[str], instances: list[dict[str, Any]]) -> str:
    """Return the one value of all instances, or the pattern of an axis that has them."""
    if len(set(column)) == 1:
        return column[0]
    for instance, value in zip(instances, column, strict=True):
        instance[name] = value
    return f"{{{name}}}"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _container(imported: ImportedPipeline, rule: ReadRule, evaluator: Evaluator) -> dict[str, str]:
    """Return the key for the image that a rule runs in, where it is one of a registry."""
    own = next((call.args for key, call in rule.rule.directives.items() if key in _CONTAINERS), [])
    try:
        image = evaluator.value(own[0]) if own else evaluator.variables.get(_EVERY_CONTAINER)
    except NotDeclarativeError as e:
        image = str(e)
    if not image:
        return {}
    if str(image).startswith("docker://"):
        return {"container": str(image).removeprefix("docker://")}
    imported.note(f"container: {image} is no image of a registry", step=rule.name)
    return {}


def _number(rule: ReadRule, key: str, evaluator: Evaluator, default: int) -> Any:
    call = rule.rule.directives.get(key)
    try:
        return evaluator.value(call.args[0]) if call and call.args else default
    except NotDeclarativeError:
        return default


def _text(rule: ReadRule) -> str:
    """Return the source of a rule's script, in which its log is named or not."""
    call = rule.rule.directives.get("shell")
    return ast.unparse(call) if call else "{log}" if "script" in rule.rule.directives else ""


def _script(imported: ImportedPipeline, rule: ReadRule, values: RuleValues, evaluator: Evaluator) -> dict[str, Any]:
    """Return the keys that say what runs. What cannot be said fails, with its reason: it is not left out silently."""
    try:
        return _script_of(imported, rule, values, evaluator)
    except (NotDeclarativeError, IndexError) as e:
        text = re.sub(r"[^\w .,:/{}()\[\]-]", " ", str(e))
        imported.note(f"{e}: write what the step does in place of `exit 1`", step=rule.name)
        for line in rule.rule.code.splitlines():
            imported.note(f"    {line}", step=rule.name)
        return {"run": f"echo 'not imported: {text}' >&2\nexit 1\n"}


def _script_of(imported: ImportedPipeline, rule: ReadRule, values: RuleValues, evaluator: Evaluator) -> dict[str, Any]:
    directives = rule.rule.directives
    if "shell" in directives:
        return {"run": of_shell(str(evaluator.value(directives["shell"].args[0])), values)}
    if "script" in directives:
        path = str(evaluator.value(directives["script"].args[0]))
        if path.endswith(".py"):
            return {"shell": "python", "run": of_python_script(_script_path(imported, rule, path), values)}
        raise NotDeclarativeError(f"the script {path}: only Python's are run with the object that they expect")
    if rule.rule.code:
        raise NotDeclarativeError(f"run: {rule.rule.code.splitlines()[0]}")
    if other := _OTHERS & directives.keys():
        raise NotDeclarativeError(f"{min(other)}")
    return {"run": "\n".join(f"touch {path}" for path in values.touched) or "true"}


def _catalog(items: DirectiveValues, values: RuleValues, instances: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the paths of a directive; what is several files in one text has none of its own."""
    several = {f"{{{name}}}" for it in instances for name, value in it.items() if " " in str(value)}
    texts = [str(value) for value in items.values if value != "" and value not in several]
    paths = [as_expression(text, values.variables) for text in texts]
    return [path for path in paths if not path.startswith("/") and "://" not in path]
