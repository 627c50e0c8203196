"""Where a cell stands in the file of its notebook."""

from __future__ import annotations

import json
from json.decoder import JSONArray, JSONObject, scanstring  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any, Final

_MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a larger file the line is not looked for: that takes seconds."""


class _Text(str):
    """A text of a JSON document that knows where in it its value ends."""

    __slots__ = ("end",)
    end: int


def line_of(file: Path, cell: int, line: int) -> int:
    """Return the line of a notebook's file in which a line of a cell stands, both counted from 1; 0 where unknown."""
    try:
        if file.stat().st_size > _MAX_BYTES:
            return 0
        text = file.read_text(encoding="utf-8-sig")
        document = _decoder().decode(text)
        parts = document.get("worksheets", [document])
        found = [it for part in parts for it in part["cells"]][cell - 1]
        source = found.get("source", found.get("input"))
        lines = source if isinstance(source, list) else [source]
        return text.count("\n", 0, lines[min(max(line, 1), len(lines)) - 1].end) + 1
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return 0


def _decoder() -> json.JSONDecoder:
    """Return a decoder whose texts know their place: the one in C tells of none."""

    def parse_string(text: str, begin: int, strict: bool) -> tuple[str, int]:
        content, end = scanstring(text, begin, strict)
        placed = _Text(content)
        placed.end = end
        return placed, end

    decoder: Any = json.JSONDecoder()
    decoder.parse_string, decoder.parse_array, decoder.parse_object = parse_string, JSONArray, JSONObject
    decoder.scan_once = py_make_scanner(decoder)
    made: json.JSONDecoder = decoder
    return made
