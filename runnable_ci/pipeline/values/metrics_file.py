"""Metrics that a step leaves in a file: the numbers in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from runnable_ci.errors import PipelineError, StepError
from runnable_ci.pipeline.values.params_file import read_file
from runnable_ci.pipeline.values.value_reader import AmbiguousText, read_metric, type_of
from runnable_ci.util.text import decode_text, listed, printable

_MAX_BYTES: Final = 16 * 1024 * 1024


def take_metrics(paths: Iterable[str], workspace: Path, found: dict[str, Any]) -> Iterator[str]:
    """Add the numbers of these files to what was `found`, by their names; yield notes of what is left out."""
    for path in paths:
        if not (file := workspace / path).is_file():
            continue  # it fails the step as one that it puts
        found[PurePosixPath(path).stem], left_out = read_metrics_file(file, path)
        if left_out:
            yield f"note: {path}: left out, no number: {listed(map(printable, left_out), at_most=5)}"


def read_metrics_file(file: Path, path: str) -> tuple[Any, list[str]]:
    """Return the numbers of a file that messages call `path`, and the names of what is none: text, lists, booleans.

    Raises `StepError` for a file that cannot be read, or has no number.
    """
    if file.stat().st_size > _MAX_BYTES:
        raise StepError(f"{path} is larger than 16 MiB", hint="a few numbers are metrics; store data by catalog.put")
    try:
        # Programs write NaN and infinity into JSON, though it has none.
        parsed = json.loads(decode_text(file.read_bytes()), parse_constant=str) if _is_json(file) else read_file(file)
    except (OSError, ValueError, RecursionError, PipelineError) as e:
        reason = e.strerror if isinstance(e, OSError) else e.message if isinstance(e, PipelineError) else e
        raise StepError(f"the metrics in {path} cannot be read: {reason}") from e
    left_out: list[str] = []
    numbers = _numbers(parsed, "", left_out)
    if numbers is None or numbers == {}:
        raise StepError(f"{path} has no number", hint='a table of numbers, such as {"accuracy": 0.9}')
    return numbers, left_out


def _is_json(file: Path) -> bool:
    return file.suffix == ".json"


def _numbers(value: Any, name: str, left_out: list[str]) -> Any:
    """Return a value without what is no number; None where nothing is left."""
    if isinstance(value, dict):
        found = {key: _numbers(item, f"{name}.{key}" if name else key, left_out) for key, item in value.items()}
        return {key: item for key, item in found.items() if item is not None and item != {}}
    if type_of(value) == "number" and (isinstance(value, int) or value - value == 0):
        return value
    if isinstance(value, AmbiguousText) or value in ("NaN", "Infinity", "-Infinity") or isinstance(value, float):
        try:
            return read_metric(str(value).replace(".inf", "inf").replace(".nan", "nan").lower())
        except ValueError:
            pass
    left_out.append(name or "its value")
    return None
