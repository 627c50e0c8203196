"""The executed notebook of a step: without secrets, and the same bytes where its outputs are the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from runnable_ci.pipeline.step import Step
from runnable_ci.steps.base import StepContext
from runnable_ci.steps.notebook.notebook_step import EXECUTED_FILE
from runnable_ci.util.files import write_whole

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CELL_FILE: Final = re.compile(r"/(?:[^\s/:\"']+/)*ipykernel_[0-9]+/(?=[0-9]+\.py)")
"""The folder, named by its process, of the files that IPython pretends cells to be."""
_ADDRESS: Final = re.compile(r"(?<= at )0x[0-9a-fA-F]{6,16}(?=>)")
_WIDGET: Final = "application/vnd.jupyter.widget-view+json"
"""A view of what was in the kernel's memory; its ids are drawn by lot."""
_STREAM_MAX: Final = 8 * 1024 * 1024
_STREAMS: Final = ("stdout", "stderr")


def keep_executed(step: Step, context: StepContext, redact: Callable[[str], str]) -> None:
    """Lay the executed notebook where the step's `put` has it; nothing where none was left."""
    file = context.scratch / EXECUTED_FILE
    if not file.is_file():
        return
    document = json.loads(file.read_bytes())
    place = context.workspace / step.executed
    place.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(comparable(document, redact), indent=1, ensure_ascii=False)
    write_whole(place, f"{text}\n".encode(errors="backslashreplace"))


def comparable(document: Mapping[str, Any], redact: Callable[[str], str]) -> dict[str, Any]:
    """Return a notebook of format 4 with all texts redacted, and without what differs each time it is executed.

    That is how output was cut into pieces, when cells ran, colours, names of temporary files, addresses in memory.
    """
    cells = []
    for cell in document.get("cells", ()):
        metadata = {key: value for key, value in cell.get("metadata", {}).items() if key != "execution"}
        changed = {**cell, "metadata": metadata}
        if "outputs" in cell:
            changed["outputs"] = _whole_streams(map(_plain_output, cell["outputs"]))
        cells.append(_redacted(changed, redact))
    rest = {key: value for key, value in document.items() if key != "cells"}
    return {"cells": cells, **_redacted(rest, redact)}


def _plain_output(output: Mapping[str, Any]) -> Mapping[str, Any]:
    match output.get("output_type"):
        case "error":
            return {**output, "traceback": [_lasting(_ANSI.sub("", line)) for line in output.get("traceback", ())]}
        case "stream":
            return {**output, "text": _lasting(_joined(output.get("text", "")))}
    data = output.get("data")
    if not isinstance(data, dict):
        return output
    kept = {kind: content for kind, content in data.items() if kind != _WIDGET}
    lasting = {kind: _lasting(_joined(it)) if kind.startswith("text/") else it for kind, it in kept.items()}
    return {**output, "data": lasting}


def _lasting(text: str) -> str:
    """Return a text without names of temporary files, and addresses in memory."""
    plain = _CELL_FILE.sub("", text) if "/ipykernel_" in text else text  # a long word without would take for ever
    return _ADDRESS.sub("0x…", plain)


def _is_text(key: str) -> bool:
    """Return whether what an output has by this key is a text, which files have in lines."""
    return key in ("text", "source") or ("/" in key and not key.endswith("json"))


def _whole_streams(outputs: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Join what was written between two other outputs, of each stream: how it is cut and mixed is chance."""
    whole: list[Mapping[str, Any]] = []
    streams: dict[str, list[str]] = {}

    def flush() -> None:
        for name in sorted(streams, key=lambda name: _STREAMS.index(name) if name in _STREAMS else len(_STREAMS)):
            text = "".join(streams[name])
            if len(text) > _STREAM_MAX:
                text = f"{text[:_STREAM_MAX]}\n… and {len(text) - _STREAM_MAX} more characters, in the step's log\n"
            whole.append({"name": name, "output_type": "stream", "text": text})
        streams.clear()

    for output in outputs:
        if output.get("output_type") == "stream":
            streams.setdefault(str(output.get("name")), []).append(output["text"])
        else:
            flush()
            whole.append(output)
    flush()
    return whole


def _redacted(value: Any, redact: Callable[[str], str], key: str = "") -> Any:
    """Return a value with its texts redacted; one that is cut into lines as a whole: a secret may have several."""
    is_text = _is_text(key)
    match value:
        case str() | list() if is_text:
            return redact(_joined(value)).splitlines(keepends=True)
        case list() if key == "traceback":
            return redact("\n".join(map(str, value))).split("\n")
        case str():
            return redact(value)
        case list():
            return [_redacted(item, redact) for item in value]
        case dict():
            return {redact(name): _redacted(item, redact, name) for name, item in value.items()}
        case _:
            return value


def _joined(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text)
