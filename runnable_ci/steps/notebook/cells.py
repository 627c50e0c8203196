"""The code of a notebook: its cells as Jupyter stores them, and which names they take from outside. Pure but `read`."""

from __future__ import annotations

import ast
import builtins
import json
import re
import symtable
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from runnable_ci.errors import StepError

PARAMETERS: Final = "parameters"
INJECTED: Final = "injected-parameters"
"""Tags of cells. Source: papermill, Parametrize."""
_MAX_BYTES: Final = 256 * 1024 * 1024
_WORD: Final = re.compile(r"[^\W\d]\w*")
_TRANSPARENT: Final = re.compile(r"%%(time|timeit|capture|prun)\b[^\n]*")
"""Cell magics whose cell is Python like any other."""
_MAGIC: Final = re.compile(r"^(?P<before>\s*)(?P<text>[%!?].*|[\w.]+\?{1,2})\s*$")
_INSERTED: Final = re.compile(r"[{$]([^\W\d]\w*)")
_ASSIGNED: Final = re.compile(r"^(?P<before>\s*[\w.,\[\] ]+=\s*)(?P<text>[%!].*)$")


class Cell(NamedTuple):
    """A code cell."""

    number: int
    """Its place among all cells, from 1."""
    source: str
    tags: tuple[str, ...] = ()


class Notebook(NamedTuple):
    """A notebook, as far as it is code."""

    text: str
    """All of it, as it is in its file."""
    cells: tuple[Cell, ...]
    language: str
    """In small letters, empty where the notebook does not say."""
    parameters: tuple[str, ...] | None
    """What the cell tagged `parameters` assigns; None where there is none."""
    free: tuple[str, ...]
    """Names that the code uses before it has bound them itself."""
    settings: frozenset[str]
    """Names to which it gives a value that is written there, such as a number."""

    @property
    def is_python(self) -> bool:
        """Whether it is written in Python, as far as it says."""
        return not self.language or "python" in self.language

    def names(self) -> tuple[str, ...]:
        """Return the parameters that the notebook takes: none where it is not written in Python."""
        if not self.is_python:
            return ()
        return tuple(dict.fromkeys([*(self.parameters or ()), *self.free]))

    def code(self) -> str:
        """Return the code of all cells as one text, in which what is IPython's own is text in quotes."""
        return "\n".join(as_python(cell.source) for cell in self.cells)


def read_notebook(file: Path) -> Notebook:
    """Return a notebook. Raises `StepError` where the file is none."""
    try:
        stat = file.stat()
        return _read(file, (stat.st_mtime_ns, stat.st_size))
    except FileNotFoundError as e:
        raise StepError(f"there is no {file.name}") from e
    except OSError as e:
        raise StepError(f"{file.name} cannot be read: {e.strerror}") from e


@lru_cache(maxsize=16)
def _read(file: Path, version: tuple[int, int]) -> Notebook:
    if version[1] > _MAX_BYTES:
        raise StepError(f"{file.name} is larger than 256 MiB", hint="clear its outputs, and save it")
    try:
        text = file.read_text(encoding="utf-8-sig")
        return parse(text)
    except UnicodeDecodeError as e:
        raise StepError(f"{file.name} is not a notebook: it is not UTF-8", hint="save it in Jupyter") from e
    except (ValueError, RecursionError) as e:
        raise StepError(f"{file.name} is not a notebook: {e}", hint="save it in Jupyter") from e


def parse(text: str) -> Notebook:
    """Return the notebook of a file's text. Raises `ValueError` where it is none.

    Source: nbformat, schemas of versions 3 and 4.
    """
    document = json.loads(text)
    version = document.get("nbformat") if isinstance(document, dict) else None
    if version not in (3, 4):
        raise ValueError("it has no `nbformat`" if version is None else f"its `nbformat` is {version}, not 3 or 4")
    parts = [document] if version == 4 else _objects(document.get("worksheets", []))
    found = [cell for part in parts for cell in _objects(part.get("cells", []))]
    for number, cell in enumerate(found, 1):
        if lacks := next((key for key in ("cell_type", "metadata") if key not in cell), None):
            raise ValueError(f"cell {number} has no `{lacks}`")
    if "metadata" not in document:
        raise ValueError("it has no `metadata`")
    cells = tuple(_cells(found, "source" if version == 4 else "input"))
    language = _language(document["metadata"])
    sources = [as_python(cell.source) for cell in cells]
    settings = frozenset(name for source in sources for name in _settings(source))
    tagged = [as_python(cell.source) for cell in cells if PARAMETERS in cell.tags]
    assigned = {name for source in tagged for name in _assigned(source)}
    return Notebook(text, cells, language, tuple(sorted(assigned)) if tagged else None, _free(sources), settings)


def _objects(found: object) -> list[Mapping[str, Any]]:
    if isinstance(found, list) and all(isinstance(item, dict) for item in found):
        return found
    raise ValueError("its cells are not a list of objects")


def _cells(found: Iterable[Mapping[str, Any]], key: str) -> Iterator[Cell]:
    """Yield the code cells that have code, without parameters that another tool injected."""
    for number, cell in enumerate(found, 1):
        source = cell.get(key, "")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        metadata = cell.get("metadata")
        tags = metadata.get("tags") if isinstance(metadata, dict) else None
        tags = tuple(map(str, tags)) if isinstance(tags, list) else ()
        if cell.get("cell_type") == "code" and source.strip() and INJECTED not in tags:
            yield Cell(number, source, tags)


def _language(metadata: Any) -> str:
    for table, key in (("language_info", "name"), ("kernelspec", "language")):
        given = metadata.get(table) if isinstance(metadata, dict) else None
        if isinstance(given, dict) and isinstance(name := given.get(key), str) and name:
            return name.lower()
    return ""


@lru_cache(maxsize=4096)
def as_python(source: str) -> str:
    """Return a cell's source with the lines that only IPython understands as texts in quotes: their words count too."""
    source = _TRANSPARENT.sub("", source.strip("\n"), count=1)
    if source.lstrip().startswith("%%"):
        return _quoted(source)
    if _tree(source) is not None:
        return source
    lines = []
    for line in source.split("\n"):
        found = _ASSIGNED.match(line) or _MAGIC.match(line)
        lines.append(f"{found['before']}{_quoted(found['text'])}" if found else line)
    plain = "\n".join(lines)
    return plain if _tree(plain) is not None else source


def _quoted(text: str) -> str:
    """Return a text as Python, beside the names whose values IPython puts into it."""
    return f"({', '.join([repr(text), *dict.fromkeys(_INSERTED.findall(text))])},)"


def _tree(source: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _assigned(source: str) -> Iterator[str]:
    """Yield the names to which code assigns values: not what it imports, nor its functions and classes."""
    tree = _tree(source)
    table = _table(tree) if tree else None
    for symbol in table.get_symbols() if table else ():
        if symbol.is_assigned() and not symbol.is_namespace() and not symbol.is_imported():
            yield symbol.get_name()


def _settings(source: str) -> Iterator[str]:
    """Yield the names to which code gives a number, a text or the like."""
    tree = _tree(source)
    for statement in tree.body if tree else ():
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant() | ast.UnaryOp(operand=ast.Constant())):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant() | ast.UnaryOp(operand=ast.Constant())):
                yield name


def _free(sources: Iterable[str]) -> tuple[str, ...]:
    """Return the names that code uses before it has bound them; it is run in order.

    What a function uses counts at its end, as it is called later. Of code that cannot be read every word may be used.
    """
    free: dict[str, None] = {}
    later: dict[str, None] = {}
    bound: set[str] = set()
    for source in sources:
        tree = _tree(source)
        if tree is None:
            later.update(dict.fromkeys(_WORD.findall(source)))
            continue
        for statement in tree.body:
            used, used_later, binds = _statement(statement)
            # The value of an assignment is known before its name; the body of a loop after it.
            known = bound | (binds if hasattr(statement, "body") else set())
            free.update(dict.fromkeys(sorted(used - known)))
            later.update(dict.fromkeys(sorted(used_later)))
            bound |= binds
    free.update((name, None) for name in later if name not in bound)
    return tuple(name for name in free if not hasattr(builtins, name))


class _Generators(ast.NodeTransformer):
    """Makes generators of comprehensions, whose variables Python 3.12 takes for those of the code around."""

    def visit(self, node: ast.AST) -> ast.AST:
        """Return what stands in the place of a node."""
        match self.generic_visit(node):
            case ast.ListComp(elt=element, generators=generators) | ast.SetComp(elt=element, generators=generators):
                return ast.GeneratorExp(element, generators)
            case ast.DictComp(key=key, value=value, generators=generators):
                return ast.GeneratorExp(ast.Tuple([key, value], ast.Load()), generators)
            case other:
                return other


def _table(tree: ast.Module | ast.stmt) -> symtable.SymbolTable | None:
    """Return what code has for names; None where only the parser can read it."""
    try:
        return symtable.symtable(ast.unparse(_Generators().visit(tree)), "cell", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return None


def _statement(statement: ast.stmt) -> tuple[set[str], set[str], set[str]]:
    """Return the names that a statement uses at once, those that functions in it use, and those that it binds."""
    top = _table(statement)
    if top is None:
        return set(), set(), set()
    used = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        used.add(statement.target.id)
    binds = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    later: set[str] = set()
    waiting = list(top.get_children())
    while waiting:
        table = waiting.pop()
        symbols = [symbol for symbol in table.get_symbols() if symbol.is_global()]
        names = {symbol.get_name() for symbol in symbols if symbol.is_referenced()}
        is_at_once = table.get_type() == "class" or table.get_name() == "genexpr"
        (used if is_at_once else later).update(names)
        binds |= {symbol.get_name() for symbol in symbols if symbol.is_assigned()}
        waiting.extend(table.get_children())
    return used, later, binds
