"""Expressions that calculate, for conditions on metrics: `score < base - 0.01`. Pure.

What is calculated is a call of a function, so that nothing else knows of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from runnable_ci.pipeline.expressions.expression import Expression
from runnable_ci.pipeline.expressions.syntax import Call, Literal, Node, Parser, read_tree
from runnable_ci.pipeline.expressions.values import number

_NAMES: Final = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide"}
_BINDING: Final = ("+", "-"), ("*", "/")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?)(?![\w.])
    |(?P<name>[a-z_]\w*)|(?P<text>'(?:[^']|'')*')|(?P<sign>\|\||&&|[=!<>]=|[-!<>()\[\].,*+/]))""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


class _Calculator(Parser):
    """Numbers have no sign of their own, and names no dash: both calculate."""

    tokens = _TOKEN

    def unary(self) -> Node:
        """Read a sum."""
        return self._calculated(0)

    def _calculated(self, level: int) -> Node:
        if level == len(_BINDING):
            return self._signed()
        node = self._calculated(level + 1)
        while sign := self.takes(*_BINDING[level]):
            node = Call(_NAMES[sign], (node, self._calculated(level + 1)))
        return node

    def _signed(self) -> Node:
        """Read a value with what stands right before it."""
        if self.takes("+"):
            return self._signed()
        if not self.takes("-"):
            return super().unary()
        self.deeper()
        node = self._signed()
        self.depth -= 1
        if isinstance(node, Literal) and isinstance(node.value, int | float):
            return Literal(-node.value)
        return Call("subtract", (Literal(0), node))


def parse_calculation(text: str) -> Expression:
    """Return an expression that may calculate. Raises `ExpressionError`."""
    return Expression(text.strip(), read_tree(_Calculator(text)))


def _divide(one: Any, other: Any) -> float:
    divisor = number(other)
    return number(one) / divisor if divisor else math.nan


def numbers_in(of: Iterable[Any]) -> Iterator[int | float]:
    """Yield numbers, also those in lists and tables: a metric of a matrix is a list of its instances'."""
    for one in of:
        match one:
            case list():
                yield from numbers_in(one)
            case Mapping():
                yield from numbers_in(one.values())
            case _:
                yield number(one)


def _extreme(choose: Callable[[list[int | float]], int | float], of: Iterable[Any]) -> int | float:
    """Return the smallest or largest number; NaN where one is none, wherever it stands, or there are no numbers."""
    numbers = list(numbers_in(of))
    return math.nan if not numbers or any(one != one for one in numbers) else choose(numbers)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "add": lambda one, other: number(one) + number(other),
    "subtract": lambda one, other: number(one) - number(other),
    "multiply": lambda one, other: number(one) * number(other),
    "divide": _divide,
    "abs": lambda one: abs(number(one)),
    "min": lambda *of: _extreme(min, of),
    "max": lambda *of: _extreme(max, of),
}
"""What these expressions can call beside what all can."""
