"""The values of a Snakefile's expressions, as far as they are declarations: nothing of it is executed.

Known are constants, lists and tables, variables, `+`, f-strings, comprehensions over lists, `expand`, `glob_wildcards`
and the marks of files (`temp`, `touch`, …).
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from runnable_ci.cli.importers.wildcards import filled, found_in

MARKS: Final = frozenset(
    {"temp", "temporary", "protected", "directory", "ancient", "touch", "ensure", "report", "local"}
)
_METHODS: Final[Mapping[str, tuple[type, ...]]] = {
    "keys": (dict,),
    "values": (dict,),
    "get": (dict,),
    "join": (str,),
    "split": (str,),
    "replace": (str,),
    "lower": (str,),
    "upper": (str,),
}
_VALUES_MAX: Final = 100_000


class NotDeclarativeError(Exception):
    """An expression whose value only Python would know."""


@dataclass(frozen=True)
class Deferred:
    """A function of wildcards: its value is known for each instance."""

    argument: str
    body: ast.expr


class NamedValues(list[Any]):
    """What a directive of another rule lists: `rules.NAME.output`, of which parts have names."""

    def __init__(self, values: Iterable[Any], names: Mapping[str, tuple[int, int | None]]) -> None:
        super().__init__(values)
        self.names = names

    def named(self, name: str) -> Any:
        """Return the value of a name, or its values. Raises `KeyError`."""
        start, end = self.names[name]
        return self[start] if end is None else self[start:end]


@dataclass
class Evaluator:
    """Variables of a Snakefile and the files beside it, of which expressions are made."""

    variables: dict[str, Any]
    files: Callable[[], Iterable[str]]
    """The paths of the files that are there."""
    marked: list[tuple[str, Any]] = field(default_factory=list)
    """What was marked, such as `("temp", "a.bam")`, since this was emptied."""

    def assign(self, statement: ast.stmt) -> bool:
        """Take a variable or a function of wildcards from a statement; return whether it is one."""
        match statement:
            case ast.FunctionDef(name=name, args=ast.arguments(args=[ast.arg(arg=argument)]), body=body):
                match [it for it in body if not isinstance(it, ast.Expr)]:
                    case [ast.Return(value=ast.expr() as result)]:
                        self.variables[name] = Deferred(argument, result)
                        return True
                return False
            case ast.Assign(targets=[target], value=value) | ast.AnnAssign(target=target, value=ast.expr() as value):
                try:
                    return self._bind(target, self.value(value))
                except NotDeclarativeError:
                    return False
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                return True
            case _:
                return False

    def _bind(self, target: ast.expr, value: Any) -> bool:
        match target:
            case ast.Name(id=name):
                self.variables[name] = value
                return True
            case ast.Tuple(elts=names) | ast.List(elts=names):
                values = list(value.values()) if isinstance(value, dict) else value
                return len(names) == len(values) and all(map(self._bind, names, values))
            case _:
                return False

    def result(self, function: Deferred, wildcards: Mapping[str, str]) -> Any:
        """Return what a function gives for the wildcards of an instance."""
        inner = Evaluator({**self.variables, function.argument: dict(wildcards)}, self.files, self.marked)
        return inner.value(function.body)

    def value(self, node: ast.expr) -> Any:
        """Return the value of an expression. Raises `NotDeclarativeError`."""
        try:
            return self._value(node)
        except (TypeError, ValueError, LookupError, RecursionError) as e:  # as Python would, for `"a" + 1`
            raise NotDeclarativeError(ast.unparse(node)) from e

    def _value(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in self.variables:
                return self.variables[name]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [it for item in items for it in self._item(item)]
            case ast.Dict(keys=keys, values=values) if None not in keys:
                return {self.value(key): self.value(it) for key, it in zip(keys, values, strict=True) if key}
            case ast.Subscript(value=inner, slice=index):
                return self.value(inner)[self.value(index)]
            case ast.Attribute(value=inner, attr=name) if isinstance(table := self.value(inner), dict):
                return table[name]
            case ast.Attribute(value=inner, attr=name) if isinstance(values := self.value(inner), NamedValues):
                return values.named(name)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._sum(self.value(left), self.value(right))
            case ast.JoinedStr(values=parts):
                return "".join(map(self._formatted, parts))
            case ast.ListComp(elt=inner, generators=[ast.comprehension(target=target, iter=iterable, ifs=[])]):
                return self._comprehension(inner, target, self.value(iterable))
            case ast.Lambda(args=ast.arguments(args=[ast.arg(arg=argument)]), body=body):
                return Deferred(argument, body)
            case ast.Call():
                return self._call(node)
        raise NotDeclarativeError(ast.unparse(node))

    def _item(self, item: ast.expr) -> list[Any]:
        return list(self.value(item.value)) if isinstance(item, ast.Starred) else [self.value(item)]

    def _sum(self, left: Any, right: Any) -> Any:
        if isinstance(left, str) and isinstance(right, str):
            return left + right
        if isinstance(left, list) and isinstance(right, list):
            return left + right
        if isinstance(left, int | float) and isinstance(right, int | float):
            return left + right
        raise NotDeclarativeError("a sum")

    def _formatted(self, part: ast.expr) -> str:
        match part:
            case ast.Constant(value=text):
                return str(text)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                return str(self.value(value))
        raise NotDeclarativeError(ast.unparse(part))

    def _comprehension(self, inner: ast.expr, target: ast.expr, values: Any) -> list[Any]:
        if not isinstance(values, list | dict):
            raise NotDeclarativeError(ast.unparse(inner))
        made = []
        for value in values:
            each = Evaluator(dict(self.variables), self.files, self.marked)
            if not each._bind(target, value):
                raise NotDeclarativeError(ast.unparse(target))
            made.append(each.value(inner))
        return made

    def _call(self, node: ast.Call) -> Any:
        match node:
            case ast.Call(func=ast.Name(id="expand"), args=[pattern, *how]) if len(how) < 2:
                is_zipped = [ast.unparse(it) for it in how] == ["zip"]
                if how and not is_zipped:
                    raise NotDeclarativeError(ast.unparse(node))
                return _expanded(self.value(pattern), self._keywords(node), is_zipped=is_zipped)
            case ast.Call(func=ast.Name(id="glob_wildcards"), args=[pattern], keywords=[]):
                return found_in(str(self.value(pattern)), self.files())
            case ast.Call(func=ast.Name(id="multiext"), args=[prefix, *ends], keywords=[]):
                return [f"{self.value(prefix)}{self.value(end)}" for end in ends]
            case ast.Call(func=ast.Name(id=mark), args=[inner, *_]) if mark in MARKS:
                value = self.value(inner)
                self.marked.append((mark, value))
                return value
            case ast.Call(func=ast.Name(id="list" | "sorted" as name), args=[inner], keywords=[]):
                values = list(self.value(inner))
                return sorted(values) if name == "sorted" else values
            case ast.Call(func=ast.Name(id="range"), args=limits, keywords=[]):
                numbers = range(*(int(self.value(it)) for it in limits))
                return list(numbers[:_VALUES_MAX])
            case ast.Call(func=ast.Name(id="str" | "int" as name), args=[inner], keywords=[]):
                return {"str": str, "int": int}[name](self.value(inner))
            case ast.Call(func=ast.Attribute(value=inner, attr=method), keywords=[]) if method in _METHODS:
                value = self.value(inner)
                if isinstance(value, _METHODS[method]):
                    made = getattr(value, method)(*map(self.value, node.args))
                    return list(made) if method in ("keys", "values") else made
        raise NotDeclarativeError(ast.unparse(node))

    def _keywords(self, node: ast.Call) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            value = self.value(keyword.value)
            named |= value if keyword.arg is None and isinstance(value, dict) else {str(keyword.arg): value}
        return named


def _expanded(patterns: Any, values: dict[str, Any], *, is_zipped: bool) -> list[str]:
    """Return patterns filled with all combinations of values, or with those of one place each."""
    values.pop("allow_missing", None)
    made: list[str] = []
    for pattern in patterns if isinstance(patterns, list) else [patterns]:
        # `{{sample}}` stays a wildcard: `{sample}`.
        opened, closed = "\0", "\1"
        text = str(pattern).replace("{{", opened).replace("}}", closed)
        used = {name: _listed(value) for name, value in values.items() if f"{{{name}}}" in text}
        rows = zip(*used.values(), strict=False) if is_zipped else product(*used.values())
        for row in rows if used else [()]:
            made.append(filled(text, dict(zip(used, row, strict=True))).replace(opened, "{").replace(closed, "}"))
            if len(made) > _VALUES_MAX:
                raise NotDeclarativeError("too many files")
    return made


def _listed(value: Any) -> Sequence[Any]:
    return list(value) if isinstance(value, list | dict) else [value]
