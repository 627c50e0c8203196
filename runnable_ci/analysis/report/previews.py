"""What a file looks like, as data for the page: images, tables, notebooks, text. Pure: it gets the content.

Nothing in a file takes effect: images are shown by `img`, where no script of an SVG runs; all else is text.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, Literal

from runnable_ci.util.text import decode_text

IMAGE_MAX_BYTES: Final = 2 * 1024 * 1024
TEXT_MAX_BYTES: Final = 2 * 1024 * 1024
_ROWS: Final = 20
_COLUMNS: Final = 20
_LINES: Final = 60
_CELLS: Final = 60
_CHARACTERS: Final = 8000
_IMAGES: Final = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}
_TEXTS: Final = (".txt", ".md", ".log", ".json", ".jsonl", ".yaml", ".yml", ".toml", ".ini", ".html", ".xml", ".tex")


@dataclass(frozen=True, slots=True)
class NotebookCell:
    """A cell of a notebook: its source, or something that it gave."""

    kind: Literal["markdown", "code", "output", "error", "image"]
    text: str
    """Of an image its data URI."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What is shown of a file."""

    kind: Literal["image", "table", "notebook", "text"]
    image: str = ""
    """As a data URI."""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    cells: Sequence[NotebookCell] = ()
    text: str = ""
    more: str = ""
    """What is left out."""

    @property
    def size(self) -> int:
        """How many characters it is, about."""
        cells = sum(len(cell.text) for cell in self.cells)
        return len(self.image) + len(self.text) + cells + sum(len(cell) + 9 for row in self.rows for cell in row)


def can_preview(name: str, size: int) -> bool:
    """Return whether a file of this name and size is shown at all."""
    suffix = PurePath(name).suffix.lower()
    if suffix in _IMAGES:
        return size <= IMAGE_MAX_BYTES
    return suffix in (".csv", ".tsv", ".ipynb", *_TEXTS) and size <= TEXT_MAX_BYTES


def is_text(name: str) -> bool:
    """Return whether what is shown of a file of this name is text, or drawn from text."""
    return _IMAGES.get(PurePath(name).suffix.lower(), "image/svg+xml") == "image/svg+xml"


def preview(name: str, content: bytes) -> Preview | None:
    """Return what is shown of a file; None where it is not what its name says."""
    suffix = PurePath(name).suffix.lower()
    if media_type := _IMAGES.get(suffix):
        return Preview("image", image=data_uri(media_type, content))
    try:
        text = decode_text(content)
    except ValueError:
        return None
    if suffix in (".csv", ".tsv"):
        return _table(text, "\t" if suffix == ".tsv" else ",")
    if suffix == ".ipynb":
        return _notebook(text)
    lines = text[:_CHARACTERS].split("\n")
    shown = "\n".join(lines[:_LINES])
    return Preview("text", text=shown, more="" if shown.rstrip() == text.rstrip() else "the rest is left out")


def data_uri(media_type: str, content: bytes) -> str:
    """Return content as an address that needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _table(text: str, separator: str) -> Preview | None:
    try:
        rows = [
            row for _, row in zip(range(_ROWS + 1), csv.reader(io.StringIO(text), delimiter=separator), strict=False)
        ]
    except csv.Error:
        return None
    if not rows:
        return None
    cut = [[cell[:100] for cell in row[:_COLUMNS]] for row in rows]
    left = max(0, text.count("\n") - len(rows))
    wide = max(len(row) for row in rows) > _COLUMNS
    more = [f"{left} more lines"] * bool(left) + ["more columns"] * wide
    width = max(map(len, cut))
    return Preview(
        "table", head=_filled(cut[0], width), rows=[_filled(row, width) for row in cut[1:]], more=", ".join(more)
    )


def _filled(row: Sequence[str], width: int) -> list[str]:
    return [*row, *[""] * (width - len(row))]


def _notebook(text: str) -> Preview | None:
    try:
        found = json.loads(text)
        cells = [cell for it in found["cells"] for cell in _cells(it)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    more = f"{len(cells) - _CELLS} more parts" if len(cells) > _CELLS else ""
    return Preview("notebook", cells=cells[:_CELLS], more=more)


def _cells(cell: dict[str, Any]) -> list[NotebookCell]:
    source = _joined(cell.get("source"))
    if cell.get("cell_type") != "code":
        return [NotebookCell("markdown", source)] if source.strip() else []
    outputs = [shown for output in cell.get("outputs") or [] if (shown := _output(output)) is not None]
    return [*([NotebookCell("code", source)] if source.strip() else []), *outputs]


def _output(output: dict[str, Any]) -> NotebookCell | None:
    if output.get("output_type") == "error":
        return NotebookCell("error", _joined(output.get("traceback"), "\n"))
    if output.get("output_type") == "stream":
        return NotebookCell("output", _joined(output.get("text")))
    data = output.get("data") or {}
    for media_type in ("image/png", "image/jpeg"):
        if picture := "".join(_joined(data.get(media_type)).split()):
            content = base64.b64decode(picture, validate=True)  # raises where it is none: nothing else gets into a URI
            return NotebookCell("image", data_uri(media_type, content)) if len(content) <= IMAGE_MAX_BYTES else None
    plain = _joined(data.get("text/plain"))
    return NotebookCell("output", plain) if plain else None


def _joined(parts: Any, separator: str = "") -> str:
    text = separator.join(map(str, parts)) if isinstance(parts, list) else str(parts or "")
    return text[:_CHARACTERS]
