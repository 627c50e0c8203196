"""The text of a pipeline file: a table as people write it, the same bytes for the same table. Pure.

The library that writes TOML elsewhere is not in the user's interpreter, and puts scripts into one line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
"""What TOML allows in no literal string; a line feed and a tab it does."""
_TABLES_OF_TABLES = ("inputs", "steps")
_WIDE = 100


def toml_text(table: Mapping[str, Any], *, comments: Mapping[tuple[str, ...], Sequence[str]] | None = None) -> str:
    """Return a pipeline file: its simple keys, then each table, each step and each input under a header of its own.

    `comments` has lines that stand above a header, by the header's path; the empty path is the top of the file.
    Raises `TypeError` and `ValueError` for what TOML cannot express.
    """
    notes = comments or {}
    simple = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    blocks = ["".join(f"{line}\n" for line in _comment(notes.get((), ()))), _assignments(simple)]
    for path, content in _headed(table):
        header = f"[{'.'.join(map(_key, path))}]\n"
        blocks.append("".join(f"{line}\n" for line in _comment(notes.get(path, ()))) + header + _assignments(content))
    return "\n".join(filter(None, blocks))


def _headed(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    for key, value in table.items():
        is_of_tables = key in _TABLES_OF_TABLES and isinstance(value, Mapping) and value
        if is_of_tables and all(isinstance(inner, Mapping) for inner in value.values()):
            yield from (((key, name), inner) for name, inner in value.items())
        elif isinstance(value, Mapping):
            yield (key,), value


def _comment(lines: Sequence[str]) -> Iterator[str]:
    """Return lines as comments; whatever is in them, none is more than that."""
    for text in lines:
        for line in text.splitlines() or [""]:
            yield f"# {_CONTROL.sub('?', line)}".rstrip()


def _assignments(table: Mapping[str, Any], above: str = "") -> str:
    """Return a line for each key; a table that is too wide for one has a line for each of its own keys."""
    lines = []
    for key, value in table.items():
        name = f"{above}{_key(key)}"
        line = f"{name} = {_value(value, name, is_outer=True)}\n"
        is_wide = len(line) > _WIDE and isinstance(value, Mapping) and value
        lines.append(_assignments(value, f"{name}.") if is_wide else line)
    return "".join(lines)


def _key(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be text, not {key!r}")
    return key if _BARE_KEY.fullmatch(key) else _basic(key)


def _value(value: Any, where: str, *, is_outer: bool = False) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value, is_outer=is_outer)
        case int():
            return int.__repr__(value)
        case float():
            return float.__repr__(value) if math.isfinite(value) else f"{value:.0f}"
        case Mapping():
            inner = ", ".join(f"{_key(key)} = {_value(it, f'{where}.{key}')}" for key, it in value.items())
            return f"{{ {inner} }}" if inner else "{}"
        case list() | tuple() | range():
            return _list([_value(it, where) for it in value], is_outer=is_outer)
        case None:
            raise TypeError(f"{where}: TOML has no value for None")
        case _:
            raise TypeError(f"{where}: a {type(value).__name__} is not a value of a pipeline file")


def _list(items: Sequence[str], *, is_outer: bool) -> str:
    line = f"[{', '.join(items)}]"
    if len(line) <= _WIDE or not is_outer:  # within an inline table, TOML 1.0 has no line breaks
        return line
    return "[\n" + "".join(f"  {item},\n" for item in items) + "]"


def _text(text: str, *, is_outer: bool) -> str:
    """Return text as it reads best: a script over several lines, without escapes where it can be."""
    is_literal = "'" not in text and not _CONTROL.search(text)
    if "\n" in text and is_outer and "'''" not in text and not text.endswith("'") and not _CONTROL.search(text):
        return f"'''\n{text}'''"
    if is_literal and "\n" not in text and ('"' in text or "\\" in text):
        return f"'{text}'"
    return _basic(text)


def _basic(text: str) -> str:
    text.encode()  # what is no Unicode has no place in a file of UTF-8
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
