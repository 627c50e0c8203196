"""An expression: what it refers to, and its value. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.expressions import values
from runnable_ci.pipeline.expressions.syntax import (
    Call,
    Choose,
    Compare,
    ContextName,
    ExpressionError,
    Items,
    Literal,
    Lookup,
    Node,
    Not,
    children,
    parse_tree,
    text_of,
    walk,
)

Functions = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was parsed."""

    text: str
    tree: Node

    def __str__(self) -> str:
        """Return it as it was written."""
        return self.text

    def evaluate(self, contexts: Mapping[str, Any], functions: Functions = {}) -> Any:  # noqa: B006 - only read
        """Return the value; `functions` are those that the place adds. Raises `ExpressionError`."""
        return _value(self.tree, contexts, {name.lower(): function for name, function in functions.items()})

    def references(self) -> list[tuple[str, ...]]:
        """Return what it looks up, as far as that is written down: `steps.a.outputs` is ("steps", "a", "outputs").

        A key that is itself looked up, a number and a `*` end the path.
        """
        return [path for path, _ in self.places()]

    def places(self) -> Iterator[tuple[tuple[str, ...], int]]:
        """Yield what it looks up, with where that begins."""
        waiting: list[Node] = [self.tree]
        while waiting:
            node = waiting.pop()
            if (path := _path(node)) is not None:
                yield path
                continue
            waiting.extend(reversed(children(node)))

    def calls(self) -> list[Call]:
        """Return the functions that it calls."""
        return [node for node in walk(self.tree) if isinstance(node, Call)]

    def compared_lists(self, contexts: Mapping[str, Any], functions: Functions) -> list[str]:
        """Return the operands of comparisons that are lists or tables where the other one is none: never smaller or
        larger.
        """
        found: list[str] = []
        for node in walk(self.tree):
            if isinstance(node, Compare):
                sides = (node.left, node.right)
                lists = [one for one in sides if isinstance(_value(one, contexts, functions), list | Mapping)]
                if len(lists) == 1 or node.sign not in ("==", "!="):
                    found += map(text_of, lists)
        return found

    def require(self, contexts: Collection[str], functions: Collection[str] = ()) -> None:
        """Raise `ExpressionError` for a context or function that there is not where the expression stands.

        `functions` are those that the place adds, which take what arguments they like.
        """
        known = [one.name for one in values.FUNCTIONS.values()] + list(functions)
        for path, position in self.places():
            if path[0] not in contexts:
                words = {"True": "true", "False": "false", "None": "null"}
                hint = _near(words.get(path[0], path[0]), [*contexts, *words.values()], _listed("context", contexts))
                raise ExpressionError(f"there is no context `{path[0]}`", position, hint)
        for call in self.calls():
            if call.name not in {name.lower() for name in known}:
                hint = _near(call.name, known, _listed("function", known))
                raise ExpressionError(f"there is no function `{call.name}`", call.position, hint)
            if (one := values.FUNCTIONS.get(call.name)) and not one.least <= len(call.arguments) <= one.most:
                number = str(one.least) if one.least == one.most else f"{one.least} to {one.most}"
                raise ExpressionError(f"{one.name} takes {number} arguments, not {len(call.arguments)}", call.position)

    def bound(self, contexts: Mapping[str, Any]) -> Expression:
        """Return the expression with the values of these contexts in place of what it looks up in them."""
        tree = _bound(self.tree, contexts)
        return Expression(text_of(tree), tree)


def _listed(what: str, known: Collection[str]) -> str:
    return f"the {what}s here are: {', '.join(known)}" if known else f"there are no {what}s here, only literals"


def _near(name: str, known: Collection[str], otherwise: str) -> str:
    by_case = {one.lower(): one for one in known}
    return did_you_mean(by_case.get(name.lower(), name), known, otherwise)


@lru_cache(maxsize=1024)
def parse(text: str) -> Expression:
    """Return the expression of a text without `${{ }}`. Raises `ExpressionError`."""
    return Expression(text.strip(), parse_tree(text))


def _path(node: Node) -> tuple[tuple[str, ...], int] | None:
    """Return the path that begins at a context and has only names; None for what is no such path."""
    keys: list[str] = []
    while isinstance(node, Lookup) and isinstance(node.key, Literal):
        if isinstance(node.key.value, str):
            keys.append(node.key.value)
        else:  # the path ends before it
            keys.clear()
        node = node.of
    return ((node.name, *reversed(keys)), node.position) if isinstance(node, ContextName) else None


def _bound(node: Node, contexts: Mapping[str, Any]) -> Node:
    path = _path(node)
    if path is not None and path[0][0] in contexts:
        return Literal(_value(node, contexts, {}))
    match node:
        case Lookup(of, key, position):
            return Lookup(_bound(of, contexts), _bound(key, contexts), position)
        case Items(of):
            return Items(_bound(of, contexts))
        case Call(name, arguments, position):
            return Call(name, tuple(_bound(one, contexts) for one in arguments), position)
        case Not(of):
            return Not(_bound(of, contexts))
        case Compare(sign, left, right):
            return Compare(sign, _bound(left, contexts), _bound(right, contexts))
        case Choose(sign, of):
            return Choose(sign, tuple(_bound(one, contexts) for one in of))
        case _:
            return node


def _value(node: Node, contexts: Mapping[str, Any], functions: Functions) -> Any:
    match node:
        case Literal(value):
            return value
        case ContextName(name, position):
            if name not in contexts:
                raise ExpressionError(f"there is no context `{name}`", position)
            return contexts[name]
        case Lookup(of, key):
            return values.find(_value(of, contexts, functions), _value(key, contexts, functions))
        case Items(of):
            return values.items(_value(of, contexts, functions))
        case Not(of):
            return not values.is_true(_value(of, contexts, functions))
        case Compare(sign, left, right):
            return values.compare(sign, _value(left, contexts, functions), _value(right, contexts, functions))
        case Choose(sign, of):
            return _choice(sign, of, contexts, functions)
        case Call():
            return _called(node, contexts, functions)


def _choice(sign: str, of: tuple[Node, ...], contexts: Mapping[str, Any], functions: Functions) -> Any:
    """Return the value of `&&` or `||`; what stands behind it is not evaluated."""
    value = None
    for one in of:
        value = _value(one, contexts, functions)
        if values.is_true(value) == (sign == "||"):
            break
    return value


def _called(call: Call, contexts: Mapping[str, Any], functions: Functions) -> Any:
    given = [_value(one, contexts, functions) for one in call.arguments]
    one = values.FUNCTIONS.get(call.name)
    function = functions.get(call.name) or (one and one.call)
    if function is None:
        raise ExpressionError(f"there is no function `{call.name}`", call.position)
    try:
        return function(*given)
    except ExpressionError as e:
        raise type(e)(e.message, call.position, e.hint) from e
    except TypeError as e:
        raise ExpressionError(f"{call.name} takes other arguments: {e}", call.position) from e
    except OverflowError as e:
        hint = "compare it as it is"
        raise ExpressionError(f"a number is too large for {call.name}", call.position, hint) from e
