"""A text with `${{ … }}` in it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from runnable_ci.pipeline.expressions import values
from runnable_ci.pipeline.expressions.expression import Expression, Functions, parse
from runnable_ci.pipeline.expressions.syntax import ExpressionError, Literal, text_of

OPEN: Final = "${{"
_CLOSE: Final = "}}"


@dataclass(frozen=True, slots=True)
class Template:
    """A text, cut into what stands there and the expressions."""

    text: str
    parts: tuple[str | Expression, ...]

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The expressions in it."""
        return tuple(part for part in self.parts if isinstance(part, Expression))

    @property
    def is_value(self) -> bool:
        """Whether the text is one expression, and so may be any value."""
        return len(self.parts) == 1 and isinstance(self.parts[0], Expression)

    def references(self) -> list[tuple[str, ...]]:
        """Return what its expressions look up."""
        return [path for expression in self.expressions for path in expression.references()]

    def render(
        self,
        contexts: Mapping[str, Any],
        functions: Functions = {},  # noqa: B006 - only read
        escape: Callable[[str], str] | None = None,
    ) -> str:
        """Return the text with values, each changed by `escape`, in it. Raises `ExpressionError`."""
        return "".join(
            part if isinstance(part, str) else (escape or str)(values.text(part.evaluate(contexts, functions)))
            for part in self.parts
        )

    def value(self, contexts: Mapping[str, Any], functions: Functions = {}) -> Any:  # noqa: B006 - only read
        """Return the value itself where the text is one expression, else the text."""
        if self.is_value and isinstance(only := self.parts[0], Expression):
            return only.evaluate(contexts, functions)
        return self.render(contexts, functions)

    def bound(self, contexts: Mapping[str, Any], escape: Callable[[str], str] | None = None) -> str:
        """Return the text with the values of these contexts in it, to be rendered again once the others are known.

        A value stays an expression where it could be read as one, so that none becomes one.
        """
        return "".join(
            part if isinstance(part, str) else _written(part.bound(contexts), escape or str) for part in self.parts
        )


def _is_open(expression: Expression) -> bool:
    return bool(expression.references()) or any(call.name not in values.FUNCTIONS for call in expression.calls())


def _written(expression: Expression, escape: Callable[[str], str]) -> str:
    """Return an expression as it stands in a text that is rendered again: its value where that is known."""
    if _is_open(expression):
        return f"{OPEN} {expression.text} {_CLOSE}"
    text = values.text(expression.evaluate({}))
    return f"{OPEN} {text_of(Literal(text))} {_CLOSE}" if set("${") & set(text) else escape(text)


@lru_cache(maxsize=4096)
def template(text: str) -> Template:
    """Return the template of a text. Raises `ExpressionError`, whose position counts from the text's begin."""
    parts: list[str | Expression] = []
    at = 0
    while (begin := text.find(OPEN, at)) >= 0:
        end = _end_of(text, begin + len(OPEN))
        if begin > at:
            parts.append(text[at:begin])
        inner = text[begin + len(OPEN) : end]
        try:
            parts.append(parse(inner))
        except ExpressionError as e:
            raise ExpressionError(e.message, begin + len(OPEN) + e.position, e.hint) from e
        at = end + len(_CLOSE)
    if at < len(text) or not parts:
        parts.append(text[at:])
    return Template(text, tuple(parts))


def _end_of(text: str, begin: int) -> int:
    """Return where an expression ends: at the first `}}` that is in no quotes."""
    at = begin
    while at < len(text):
        if text[at] == "'":
            closing = text.find("'", at + 1)
            at = len(text) if closing < 0 else closing + 1
        elif text.startswith(_CLOSE, at):
            return at
        else:
            at += 1
    raise ExpressionError("`${{` is not closed", begin - len(OPEN), "an expression ends with `}}`")
