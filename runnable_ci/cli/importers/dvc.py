"""A dvc.yaml as a pipeline file: stages are steps, with their dependencies, outputs and parameters.

Source: DVC's documentation, "dvc.yaml" and "templating".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any, Final

from runnable_ci.cli.importers.dvc_values import DvcValues, flat_axes
from runnable_ci.cli.importers.imported import READS, ImportedPipeline, Values, needed, overlaps, strategy
from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.pipeline.schema import STEP_NAME
from runnable_ci.pipeline.values.params_file import read_file

_PARAMS: Final = "params.yaml"
_NUMBERS: Final = (".json", ".yaml", ".yml", ".toml")
_SECTIONS: Final = {
    "stages": "",
    "vars": "",
    "params": "",
    "metrics": "",
    "plots": "plots are files of the run here; how they are drawn is not kept",
    "artifacts": "artifacts have no registry of models here: a run is found by its id, a file by its sha256",
    "datasets": "datasets are not fetched",
}
_KEYS: Final = {
    "frozen": "frozen: a step that is not to run again has no key here; `retry --accept STEP` reuses it",
    "always_changed": "always_changed: `retry --from` runs it again",
}
_SAME: Final = frozenset(
    {"cmd", "deps", "outs", "params", "metrics", "plots", "wdir", "desc", "meta", "vars", "matrix"}
)


@dataclass
class _Stage:
    """A stage as it is written, with its instances."""

    name: str
    """As a step has it."""
    table: Mapping[str, Any]
    values: DvcValues
    instances: Sequence[Values]
    """One without axes where the stage is no matrix."""
    folder: PurePosixPath = field(default_factory=PurePosixPath)
    """Where it runs, still with its `${…}`, as are the paths."""
    reads: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)

    @property
    def axes(self) -> Values:
        """The axes, by the values of the first instance."""
        return self.instances[0]

    def paths(self, texts: Sequence[str]) -> set[str]:
        """Return paths as they are for each instance."""
        return {self.values.text(text, instance) for text in texts for instance in self.instances}


def import_dvc(file: Path) -> ImportedPipeline:
    """Return the pipeline of a dvc.yaml. Raises `UsageError` for one that cannot be understood."""
    imported = ImportedPipeline(file.name, file.parent)
    table = _read(file)
    if not isinstance(table, Mapping) or not isinstance(table.get("stages"), Mapping) or not table["stages"]:
        raise UsageError(f"{file} has no stages", hint="only the `stages` of a dvc.yaml can be imported")
    values = DvcValues(str(file), {})
    if (file.parent / _PARAMS).exists():
        values.merge(_read(file.parent / _PARAMS) or {})
    _take_vars(values, table.get("vars"), file.parent)
    stages = [_stage(imported, values, name, it, file.parent) for name, it in table["stages"].items()]
    for stage in stages:
        _connect(imported, stage)
    steps = {stage.name: _step(imported, stage) for stage in stages}
    _take_metrics(imported, table, stages, steps)
    needs = needed(
        {stage.name: stage.paths(stage.reads) for stage in stages},
        {stage.name: stage.paths(stage.writes) for stage in stages},
    )
    for section in table:
        if text := _SECTIONS.get(section, f"{section}: has no counterpart"):
            imported.note(text)
    if values.parameters:
        imported.note(
            f"[parameters] has the values that commands take by ${{…}}, as they are in {_PARAMS} and vars now."
        )
    imported.table = {
        "name": file.resolve().parent.name,
        **({"parameters": values.parameters} if values.parameters else {}),
        "steps": {name: {**_first(step, needs[name])} for name, step in steps.items()},
    }
    return imported


def _first(step: Mapping[str, Any], needs: Sequence[str]) -> dict[str, Any]:
    """Return a step with its needs at the top: that of DVC is a graph, ours is the order of the file without them."""
    return {"needs": list(needs), **step}


def _read(file: Path) -> Any:
    try:
        return read_file(file)
    except OSError as e:
        raise UsageError(f"{file} cannot be read: {(e.strerror or str(e)).lower()}") from e
    except (ValueError, PipelineError) as e:
        raise UsageError(f"{file}: {e}") from e


def _take_vars(values: DvcValues, entries: Any, folder: Path) -> None:
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, Mapping):
            values.merge(entry)
            continue
        name, _, keys = str(entry).partition(":")
        read = _read(folder / name)
        if isinstance(read, Mapping):
            values.merge({key: read[key] for key in (keys.split(",") if keys else read) if key in read})


def _stage(imported: ImportedPipeline, values: DvcValues, name: str, table: Any, folder: Path) -> _Stage:
    if not isinstance(table, Mapping):
        raise UsageError(f"{values.source}: stage {name} is not a table")
    step = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    step = step if STEP_NAME.fullmatch(step) else f"stage_{step}"[:100]
    if step != name:
        imported.note(f"In DVC the stage is called {name}.", step=step)
    inner: Any = table.get("do", table)
    if "foreach" in table:
        instances = _foreach(values, table["foreach"])
    elif "matrix" in table:
        instances = _matrix(values, table["matrix"])
    else:
        instances = [{}]
    if not instances or not isinstance(inner, Mapping) or "cmd" not in inner:
        raise UsageError(f"{values.source}: stage {name} has no {'cmd' if instances else 'values to run for'}")
    own = DvcValues(values.source, {}, values.parameters)
    own.merge(values.known)
    _take_vars(own, inner.get("vars"), folder)
    return _Stage(step, inner, own, instances)


def _foreach(values: DvcValues, items: Any) -> list[Values]:
    found = values.whole(items, {})
    if isinstance(found, Mapping):
        return [{"key": key, **flat_axes("item", values.whole(item, {}))} for key, item in found.items()]
    return [flat_axes("item", values.whole(item, {})) for item in found] if isinstance(found, list) else []


def _matrix(values: DvcValues, axes: Any) -> list[Values]:
    found = values.whole(axes, {})
    if not isinstance(found, Mapping):
        return []
    axes = {name: values.whole(items, {}) for name, items in found.items()}
    if not all(isinstance(items, list) for items in axes.values()):
        return []
    lists = [[(name, values.whole(it, {})) for it in items] for name, items in axes.items()]
    return [
        {key: value for name, item in combination for key, value in flat_axes(f"item.{name}", item).items()}
        for combination in product(*lists)
    ]


def _connect(imported: ImportedPipeline, stage: _Stage) -> None:
    """Find what a stage reads and writes."""
    table = stage.table
    stage.folder = PurePosixPath(str(table.get("wdir", ".")))
    for path, _ in _entries(table.get("deps")):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) or path.startswith(("/", "#")):
            imported.note(f"deps: {path} is outside of the repository, and not compared", step=stage.name)
        else:
            stage.reads.append(_joined(stage.folder, path))
    for path, keys in _params(table.get("params")):
        name = _joined(stage.folder, path)
        stage.reads.append(name)
        if keys:
            imported.note(
                f"params: of {name}, DVC compares {', '.join(keys)}; here it is the whole file", step=stage.name
            )
    for section in ("outs", "metrics", "plots"):
        stage.writes += [_joined(stage.folder, path) for path, _ in _entries(table.get(section))]


def _step(imported: ImportedPipeline, stage: _Stage) -> dict[str, Any]:
    table, values = stage.table, stage.values
    if description := table.get("desc"):
        imported.notes.setdefault(("steps", stage.name), []).insert(0, str(description))
    for key in (key for key in table if key not in _SAME):
        imported.note(_KEYS.get(key, f"{key}: has no counterpart"), step=stage.name)
    commands = table["cmd"] if isinstance(table["cmd"], list) else [table["cmd"]]
    script = "\n".join(values.command(str(command).strip(), stage.axes) for command in commands)
    step: dict[str, Any] = {}
    if stage.axes:
        step["strategy"] = strategy(stage.instances)
    step["run"] = script if "\n" not in script else f"{script}\n"
    if stage.folder != PurePosixPath():
        step["working-directory"] = values.path(str(stage.folder), stage.axes)
    metrics = [_joined(stage.folder, path) for path, _ in _entries(table.get("metrics"))]
    counted = [] if stage.axes else _countable(metrics)
    for path in (path for path in metrics if path not in counted):
        imported.note(f"metrics: the numbers of {path} are not read, it is a file of the run", step=stage.name)
    catalog: dict[str, Any] = {}
    if stage.reads:
        catalog["get"] = _once(values.path(path, stage.axes) for path in stage.reads)
    if put := _once(values.path(path, stage.axes) for path in stage.writes if path not in counted):
        catalog["put"] = put
    if any(options.get("persist") for _, options in _entries(table.get("outs"))):
        catalog["persist"] = True
    if catalog:
        step["catalog"] = catalog
    if stage.axes:
        imported.note(READS)
        step["reads"] = []
    if counted:
        step["metrics"] = [values.path(path, stage.axes) for path in counted]
    return step


def _take_metrics(
    imported: ImportedPipeline, table: Mapping[str, Any], stages: Sequence[_Stage], steps: dict[str, dict[str, Any]]
) -> None:
    """Give the metrics that stand at the top of the file to the stages that write them."""
    for path in table.get("metrics") or []:
        stage = next((it for it in stages if any(overlaps(path, out) for out in it.writes)), None)
        if stage is None or stage.axes or not (counted := _countable([path])):
            imported.note(f"metrics: the numbers of {path} are not read")
        elif path not in steps[stage.name].get("metrics", []):
            steps[stage.name]["metrics"] = [*steps[stage.name].get("metrics", []), *counted]


def _countable(paths: Sequence[str]) -> list[str]:
    """Return which files have numbers that can be read, by the names of the files."""
    found = {PurePosixPath(path).stem: path for path in paths if PurePosixPath(path).suffix in _NUMBERS}
    return [path for path in found.values() if not set("*?[$") & set(path)]


def _entries(section: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the paths of a list of them, each with its options."""
    for entry in [] if section is None else section if isinstance(section, list) else [section]:
        if isinstance(entry, Mapping):
            for path, options in entry.items():
                yield str(path), options if isinstance(options, Mapping) else {}
        else:
            yield str(entry), {}


def _params(section: Any) -> Iterator[tuple[str, list[str]]]:
    """Yield the parameter files, each with the keys that are compared; none are all."""
    own: list[str] = []
    for entry in section if isinstance(section, list) else []:
        if isinstance(entry, Mapping):
            yield from ((str(path), [*map(str, keys or [])]) for path, keys in entry.items())
        else:
            own.append(str(entry))
    if own:
        yield _PARAMS, own


def _joined(folder: PurePosixPath, path: str) -> str:
    """Return a path of a stage's folder as one of the file's folder."""
    parts: list[str] = []
    for part in (folder / path).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts) or "."


def _once(paths: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(paths))
