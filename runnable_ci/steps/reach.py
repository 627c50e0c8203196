"""Which code of the workspace a function reaches, as a digest that changes when any of it does.

Of the modules that a step loaded, everything counts but functions whose name occurs nowhere in what counts: not as a
name, an attribute or a word of a text. Where code finds functions in ways that no name shows, everything counts.
Comments and blank lines do not. Reads text, imports nothing. Pure.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_WORD: Final = re.compile(r"[^\W\d]\w*")
_FINDS_BY_ANY_NAME: Final = frozenset(
    {
        "eval",
        "exec",
        "globals",
        "locals",
        "vars",
        "__dict__",
        "__import__",
        "import_module",
        "attrgetter",
        "methodcaller",
    }
    | {"getmembers", "__globals__", "modules", "run_path", "run_module", "__subclasses__"}
)


@dataclass(slots=True)
class _Unit:
    """A piece of a module: a function, or all the rest; `words` are the names that occur in it."""

    text: str
    words: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Module:
    rest: _Unit
    functions: dict[str, list[_Unit]]
    """Functions of the module's top by name: those that may be left out."""
    renames: dict[str, str]
    """Name that an import binds → the name that it has where it comes from."""


def reach_digest(function: str, sources: Mapping[str, bytes]) -> str:
    """Return the digest of what a function reaches.

    `function` is its qualified name, `sources` maps each module of the workspace that was loaded, by its path, to its
    text. Equal digests mean equal code; other comments, or other code that is not reached, change nothing.
    """
    modules = {path: _parsed(source) for path, source in sources.items()}
    counted = {(path, ""): module.rest for path, module in modules.items()}
    words = set(_WORD.findall(function))
    waiting = list(counted.values())
    while True:
        for unit in waiting:
            words |= unit.words
        for module in modules.values():
            words |= {original for bound, original in module.renames.items() if bound in words}
        everything = not words.isdisjoint(_FINDS_BY_ANY_NAME)
        waiting = []
        for path, module in modules.items():
            for name, units in module.functions.items():
                if (everything or name in words) and (path, name) not in counted:
                    whole = _Unit("\n".join(unit.text for unit in units), {w for unit in units for w in unit.words})
                    counted[path, name] = whole
                    waiting.append(whole)
        if not waiting:
            break
    digest = hashlib.sha256()
    for (path, name), unit in sorted(counted.items()):
        for part in (path, name, unit.text):
            digest.update(f"{len(part)}:".encode() + part.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _parsed(source: bytes) -> _Module:
    """Return a module in pieces; one that this interpreter cannot read is one piece, with every word in it."""
    try:
        with warnings.catch_warnings(action="ignore"):  # the user's interpreter gives them where they belong
            tree = ast.parse(source)
        lines = _lines_without_comments(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError):
        text = source.decode(errors="replace")
        return _Module(_Unit(text, set(_WORD.findall(text))), {}, {})
    functions: dict[str, list[_Unit]] = {}
    renames: dict[str, str] = {}
    rest = _Unit("")
    left_out: set[int] = set()
    for node in tree.body:
        if _is_main_block(node):
            left_out.update(_span(node))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _binds_only(node):
            span = _span(node)
            unit = _Unit(_joined(lines, span))
            _collect(node, unit.words, renames)
            functions.setdefault(node.name, []).append(unit)
            left_out.update(span)
        else:
            _collect(node, rest.words, renames)
    rest.text = _joined(lines, (number for number in range(len(lines)) if number not in left_out))
    if "__getattr__" in functions:  # gives any name
        rest.words.add("__dict__")
    return _Module(rest, functions, renames)


def _binds_only(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether to define a function does nothing but bind its name, on lines of its own."""
    arguments = node.args
    defaults = [*arguments.defaults, *(default for default in arguments.kw_defaults if default is not None)]
    return not node.decorator_list and all(isinstance(default, ast.Constant) for default in defaults)


def _is_main_block(node: ast.stmt) -> bool:
    """Whether a statement is `if __name__ == "__main__":`, which no import runs."""
    match node:
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]
            ),
            orelse=[],
        ):
            return True
    return False


def _collect(node: ast.AST, words: set[str], renames: dict[str, str]) -> None:
    """Add the names that occur below a node; those that an import binds count once they are used."""
    for below in ast.walk(node):
        match below:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.keyword(arg=str() as name):
                words.add(name)
            case ast.Constant(value=str() as text):
                words.update(_WORD.findall(text))
            case ast.Constant(value=bytes() as content):
                words.update(_WORD.findall(content.decode("latin-1")))
            case ast.ImportFrom(names=aliases):
                for alias in aliases:
                    renames[alias.asname or alias.name] = alias.name
            case ast.Call(func=ast.Name(id="getattr"), args=[_, name, *_]) if not isinstance(name, ast.Constant):
                words.add("__dict__")


def _span(node: ast.stmt) -> range:
    return range(node.lineno - 1, node.end_lineno or node.lineno)


def _lines_without_comments(source: bytes) -> list[str]:
    """Return the lines of a text, comments cut off: by tokens, as a `#` may stand in a text."""
    tokens = list(tokenize.tokenize(io.BytesIO(source).readline))
    encoding = tokens[0].string
    # As Python counts lines: a form feed or U+2028 ends none.
    lines = source.decode(encoding).replace("\r\n", "\n").split("\n")
    for token in tokens:
        if token.type == tokenize.COMMENT:
            number, column = token.start
            lines[number - 1] = lines[number - 1][:column].rstrip()
    return lines


def _joined(lines: list[str], numbers: Iterator[int] | range) -> str:
    return "\n".join(line for number in numbers if (line := lines[number]).strip())
