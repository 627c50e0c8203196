"""What is wrong with a text that is no TOML: the line, and how people who know another format would write it. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.diagnostics.place import excerpt
from runnable_ci.pipeline.diagnostics.positions import Span, key_spans
from runnable_ci.redaction.environment import names_a_secret

_POSITION: Final = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
"""How `tomllib` ends its messages; only Python 3.14 has the numbers apart."""
_GENERAL: Final = "the syntax is described at https://toml.io"
_LOOKED_AT_MAX: Final = 500
"""Characters of a line beyond which nobody wrote it by hand."""
_BARE_VALUE: Final = re.compile(r"^\s*([\w.\"'-]+)\s*=\s*([^\s\"'\[{#][^#\n]*?)\s*(#.*)?$")
_EMPTY_VALUE: Final = re.compile(r"^\s*([\w.\"'-]+)\s*=\s*(#.*)?$")
_COLON: Final = re.compile(r"^\s*([\w-]+)\s*:\s*(.*?)\s*$")
_BARE_LIST: Final = re.compile(r"^\s*([\w.-]+)\s*=\s*\[([^\"'\[\]{}#]*[A-Za-z_][^\"'\[\]{}#]*)\]\s*(#.*)?$")
_ODD_KEY: Final = re.compile(
    r"^\s*(\[+[^\"'\]]*[^\w.\s\[\]\"'-][^\"'\]]*\]+|\[+[^\"'\]]*\w\s+\w[^\"'\]]*\]+)\s*(#.*)?$", re.ASCII
)
_HEADER: Final = re.compile(r"^\s*\[+[^\]]*$")
_PAIR: Final = re.compile(r"^\s*([\w.\"'-]+)\s*=\s*")
_WORDS_FOR_VALUES: Final = {
    "True": "true",
    "False": "false",
    "yes": "true",
    "no": "false",
    "on": "true",
    "off": "false",
}


def syntax_error(text: str, shown: str, problem: str, *, hint: str = "") -> PipelineError:
    """Return the error of a file, called `shown`, that `tomllib` has this problem with.

    What is the value of something that is named as a secret is not shown.
    """
    lines = text.split("\n")
    found = _POSITION.search(problem)
    line, column = (int(found[1]), int(found[2]) - 1) if found and found[1] else (len(lines), 0)
    what = problem[: found.start()] if found else problem
    # A text that is not closed is found at the end of its line, or of the file: its line is the one to look at.
    while line > 1 and not lines[line - 1].strip():
        line, column = line - 1, len(lines[line - 2])
    is_found = found is not None
    content, is_secret = lines[line - 1], _is_secret(lines, line)
    if is_secret:
        content = f"{re.split('[=:]', content)[0].rstrip()} = …" if re.search("[=:]", content) else "…"
    return PipelineError(
        f"{shown}{f':{line}' if is_found else ''} is not TOML: {what[:1].lower()}{what[1:]}",
        hint=hint or _hint(text, line, is_secret=is_secret),
        excerpt=excerpt(content, Span(line, min(column, len(content)), column + 1)) if is_found else (),
        file=shown,
        line=line if is_found else 0,
    )


def _is_secret(lines: list[str], line: int) -> bool:
    """Return whether a line may hold a secret: by the key on it, or by the last one above it."""
    for content in reversed(lines[:line]):
        if re.search("[=:]", content):
            words = re.findall(r"[\w-]+", re.split("[=:]", content)[0])
            return any(word == "secrets" or names_a_secret(word) for word in words)
        if content.strip().startswith("["):
            return False
    return False


def _hint(text: str, line: int, *, is_secret: bool) -> str:
    """Return what would be right, by the line itself."""
    content = text.split("\n")[line - 1]
    if len(content) > _LOOKED_AT_MAX:
        return _GENERAL
    if opened := _open_text(text):
        return f"the text that begins in line {opened} has no end: close it by the same three quotes"
    if text.lstrip().startswith("{"):
        return "this is JSON; a pipeline is a TOML file, with a table [steps.NAME] for each step"
    if empty := _EMPTY_VALUE.match(content):
        return f'a value is missing: {empty[1]} = "…"'
    if bare := _BARE_VALUE.match(content):
        key, value = bare[1], "…" if is_secret else bare[2]
        if value in _WORDS_FOR_VALUES:
            return f"write {key} = {_WORDS_FOR_VALUES[value]}"
        return f"text needs quotes: {key} = {json.dumps(value, ensure_ascii=False)}"
    if (bare_list := _BARE_LIST.match(content)) and not is_secret:
        items = ", ".join(_quoted(item.strip()) for item in bare_list[2].split(",") if item.strip())
        return f"text needs quotes: {bare_list[1]} = [{items}]"
    if _ODD_KEY.match(content):
        return "without quotes a key has letters, digits, `_` and `-` only; so has the name of a step"
    if (pair := _PAIR.match(content)) and _is_open(content[pair.end() :]):
        return f'close the quote; text of several lines is between """ and """: {pair[1]} = """…"""'
    if (colon := _COLON.match(content)) and not is_secret:
        value = f"= {colon[2]}" if colon[2] else "= …, or a table [" + colon[1] + "]"
        return f"TOML has `=` where YAML has `:`: {colon[1]} {value}"
    if _HEADER.match(content):
        return f"close the bracket: {content.strip()}{']' * (2 if content.strip().startswith('[[') else 1)}"
    if re.search(r'"[^"]*\\[^"]*"', content):
        return "between double quotes a backslash begins an escape: write it twice, or use single quotes"
    if first := _first_of(text, line):
        return f"it is defined twice, first in line {first}: a table or a key can be written only once"
    return _GENERAL


def _open_text(text: str) -> int:
    """Return the line of three quotes that are not closed; 0 where there are none."""
    opened, line = "", 0
    for found in re.finditer(r'"""|\'\'\'', text):
        if not opened:
            opened, line = found[0], text.count("\n", 0, found.start()) + 1
        elif found[0] == opened:
            opened = ""
    return line if opened else 0


def _quoted(word: str) -> str:
    is_value = word in ("true", "false") or re.fullmatch(r"[+-]?[0-9][0-9_.]*", word)
    return word if is_value else json.dumps(word, ensure_ascii=False)


def _is_open(value: str) -> bool:
    """Return whether a text begins and does not end on this line."""
    quote = value[:1]
    return quote in ("'", '"') and not value.startswith(quote * 3) and not re.match(_CLOSED[quote], value)


_CLOSED: Final = {'"': r'"(?:\\.|[^"\\])*"', "'": r"'[^']*'"}


def _first_of(text: str, line: int) -> int:
    """Return the line that has the same key or table as this one, before it; 0 if none has."""
    lines = text.split("\n")
    content = lines[line - 1]
    if content.strip().startswith("["):
        above = key_spans("\n".join(lines[: line - 1]))
        names = list(key_spans(f"{content}\n"))
        span = above.get(names[-1]) if names else None
    else:
        header = next((at for at in range(line - 1, 0, -1) if lines[at - 1].strip().startswith("[")), 0)
        above = key_spans("\n".join(lines[header : line - 1]))
        names = list(key_spans(content))
        span = above.get(names[-1]) if names else None
        return header + span.line if span else 0
    return span.line if span else 0
