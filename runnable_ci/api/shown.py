"""How runs look in a notebook: short, and as tables of HTML in which nothing but text comes from a run. Pure."""

from __future__ import annotations

from html import escape
from typing import Any, Iterable, Mapping, Sequence


def status(word: str) -> str:
    """Return a status of the run log as people say it."""
    return "RUNNING" if word == "PROCESSING" else word


def code(row: Mapping[str, Any]) -> str:
    """Return branch and commit of a run, as `main 0f7dd28 dirty`."""
    return " ".join(filter(None, (row["ref"], row["commit"][:7], "dirty" if row["dirty"] else "")))


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """Return a table of texts."""
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"
