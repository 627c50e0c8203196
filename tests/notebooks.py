"""Notebooks as Jupyter saves them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def code(source: str, *tags: str, **more: Any) -> dict[str, Any]:
    """A code cell."""
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cell["source"] = source.splitlines(keepends=True)
    return {**cell, **({"metadata": {"tags": list(tags)}} if tags else {}), **more}


def text(source: str) -> dict[str, Any]:
    """A cell of Markdown."""
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def notebook(*cells: dict[str, Any] | str, **metadata: Any) -> str:
    """The text of a notebook; its metadata name a kernel that no machine has."""
    kernel = {"display_name": "Somebody's", "language": "python", "name": "somebodys-kernel"}
    numbered: list[dict[str, Any]] = [
        {**(code(cell) if isinstance(cell, str) else cell), "id": f"cell-{number}"}
        for number, cell in enumerate(cells, 1)
    ]
    document = {
        "cells": numbered,
        "metadata": {"kernelspec": kernel, **metadata},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1)


def outputs(file: Path) -> list[str]:
    """What the cells of an executed notebook wrote."""
    return [
        "".join(output.get("text", ())) for cell in json.loads(file.read_text())["cells"] for output in streams_of(cell)
    ]


def streams_of(cell: dict[str, Any]) -> Sequence[dict[str, Any]]:
    """What a cell wrote to its streams."""
    return [output for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
