"""`metrics` of a step: which paths may be one. Pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from runnable_ci.pipeline.patterns import as_glob
from runnable_ci.pipeline.schema import RELATIVE, Place, StepConfig
from runnable_ci.pipeline.validation import check_relative, is_excluded, shown


def check_metrics(place: Place, table: str, step: StepConfig) -> None:
    """Raise `PipelineError` for what is no path of a file, or has the name of another metric or return."""
    names = dict.fromkeys(step.returns, "a return")
    for path in step.metrics:
        check_relative(path, lambda m: place.error(table, f"metrics: {m}", RELATIVE, key="metrics"))
        name = PurePosixPath(path).stem
        written = as_glob(path).replace("*", "") if "${{" in path else path
        if is_excluded(path) or set("*?[") & set(written):
            raise place.error(
                table, f"metrics: {shown(path)} is not the path of a file", "name each file", key="metrics"
            )
        if name in names:
            raise place.error(
                table, f"metrics: {shown(path)} has the same name as {names[name]}", "rename one of them", key="metrics"
            )
        names[name] = shown(path)
