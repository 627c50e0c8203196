"""A Snakefile's text as rules and statements: read as text, never executed. Pure.

Its layout is Python's, so Python's own tokenizer finds the lines; what a directive has is Python's list of arguments.
Source: Snakemake's documentation, "Writing Workflows" and its grammar.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import cleandoc
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.errors import UsageError

_RULE: Final = re.compile(r"(?:rule|checkpoint)(?:[ \t]+(?P<name>\w+))?[ \t]*:")
_DIRECTIVE: Final = re.compile(r"(?P<key>[A-Za-z_]\w*)[ \t]*:(?P<rest>.*)", re.DOTALL)
_PYTHON: Final = frozenset({"else", "try", "finally"})
_NOT_PARSED: Final = (SyntaxError, ValueError, MemoryError, RecursionError)
"""What Python's parser raises for what it cannot read: wrong, with a NUL, or nested too deep."""
_SHOWN_MAX: Final = 80
_CODE: Final = frozenset({"run", "onsuccess", "onerror", "onstart"})
"""Directives that hold statements."""


class Line(NamedTuple):
    """A logical line: what Python reads as one, over several lines of the file."""

    number: int
    column: int
    text: str


@dataclass
class Rule:
    """A rule: its directives, each as a call whose arguments are what stands there."""

    name: str
    number: int
    directives: dict[str, ast.Call] = field(default_factory=dict)
    code: str = ""
    """The statements of `run`."""
    description: str = ""
    file: Path = field(default_factory=Path)
    """Where it stands."""


class Directive(NamedTuple):
    """A directive that is of no rule, such as `configfile: "config.yaml"`."""

    key: str
    arguments: ast.Call


class Unread(NamedTuple):
    """A line that is neither of a rule nor a declaration."""

    number: int
    text: str


Entry = Rule | Directive | Unread | ast.stmt


def parse_snakefile(content: str, source: str) -> Iterator[Entry]:
    """Yield what is in a Snakefile, in its order. Raises `UsageError` with the line of what cannot be read."""
    lines = [*_lines(content, source)]
    while lines:
        first, block = _taken(lines)
        if rule := _RULE.match(first.text):
            yield _rule(rule["name"] or f"rule_{first.number}", first, block, source)
            continue
        directive = _DIRECTIVE.fullmatch(first.text)
        if directive and directive["key"] not in _PYTHON and not _is_annotation(directive["rest"]):
            if directive["key"] in _CODE:
                yield Unread(first.number, directive["key"])
            else:
                yield Directive(directive["key"], _arguments(directive["rest"], block, first, source))
            continue
        text = "\n".join([first.text, *(" " * line.column + line.text for line in block)])
        try:
            statements = ast.parse(text).body
        except _NOT_PARSED:
            yield Unread(first.number, first.text.splitlines()[0][:_SHOWN_MAX])
        else:
            yield from (ast.increment_lineno(statement, first.number - 1) for statement in statements)


def _is_annotation(rest: str) -> bool:
    """Return whether `name: …` is Python's own: a variable with its type and value."""
    return bool(re.match(r"\s*[\w.\[\], |]+=(?!=)", rest))


def _lines(content: str, source: str) -> Iterator[Line]:
    lines = content.splitlines(keepends=True)
    start: tuple[int, int] | None = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(content).readline):
            if token.type in (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
                continue
            if start is None:
                start = token.start
            if token.type == tokenize.NEWLINE:
                yield Line(start[0], start[1], _between(lines, start, token.start))
                start = None
    except (tokenize.TokenError, SyntaxError) as e:
        number = e.args[1][0] if isinstance(e, tokenize.TokenError) else e.lineno
        raise UsageError(f"{source}:{number} cannot be read: {e.args[0]}") from e


def _between(lines: Sequence[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the text between two places; columns count characters, as the tokenizer's do."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    first, *middle = lines[start[0] - 1 : end[0]]
    return "".join([first[start[1] :], *middle[:-1], middle[-1][: end[1]]])


def _taken(lines: list[Line]) -> tuple[Line, list[Line]]:
    """Take a line from the front, with those that are further in below it."""
    first = lines.pop(0)
    block = [*takewhile(lambda line: line.column > first.column, lines)]
    del lines[: len(block)]
    return first, block


def _rule(name: str, first: Line, block: list[Line], source: str) -> Rule:
    rule = Rule(name, first.number)
    while block:
        line, inner = _taken(block)
        directive = _DIRECTIVE.fullmatch(line.text)
        if directive is None:
            if description := _description(line.text):
                rule.description = description
                continue
            raise UsageError(f"{source}:{line.number} is no directive of rule {name}")
        if directive["key"] in _CODE:
            column = inner[0].column if inner else 0
            lines = [" " * (it.column - column) + it.text for it in inner]
            rule.code = "\n".join([directive["rest"].strip(), *lines]).strip() or "pass"
        else:
            rule.directives[directive["key"]] = _arguments(directive["rest"], inner, line, source)
    return rule


def _description(text: str) -> str:
    """Return the text that a line is, empty where it is none."""
    try:
        value = ast.literal_eval(text)
    except _NOT_PARSED:
        return ""
    return cleandoc(value) if isinstance(value, str) else ""


def _arguments(rest: str, block: Sequence[Line], line: Line, source: str) -> ast.Call:
    """Return the arguments of a directive as a call has them."""
    text = "\n".join([rest, *(inner.text for inner in block)])
    try:
        call = ast.parse(f"_({text}\n)", mode="eval").body
    except _NOT_PARSED as e:
        raise UsageError(
            f"{source}:{line.number} cannot be read: {line.text.splitlines()[0].strip()[:_SHOWN_MAX]}"
        ) from e
    if not isinstance(call, ast.Call) or ast.unparse(call.func) != "_":
        raise UsageError(f"{source}:{line.number} cannot be read: {line.text.splitlines()[0].strip()[:_SHOWN_MAX]}")
    return call
