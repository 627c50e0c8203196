"""The texts in a value, the expressions in them, and what these look up. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runnable_ci.pipeline.expressions.expression import Expression, parse
from runnable_ci.pipeline.expressions.syntax import Choose, ContextName, Literal, Lookup, Node, children
from runnable_ci.pipeline.expressions.template import template
from runnable_ci.pipeline.step import Step


def texts_in(value: Any) -> Iterator[str]:
    """Yield the texts in a value: itself, or those in its lists and tables."""
    match value:
        case str():
            yield value
        case Mapping():
            for item in value.values():
                yield from texts_in(item)
        case list() | tuple():
            for item in value:
                yield from texts_in(item)


def expressions_in(*values: Any) -> Iterator[Expression]:
    """Yield the expressions in the texts of some values."""
    for text in texts_in(values):
        yield from template(text).expressions


def texts_with_values(step: Step) -> list[Any]:
    """Return the texts of a step in which values take the place of expressions."""
    paths = (
        *(step.get or ()),
        *step.put,
        *(step.reads or ()),
        *step.ignore_reads,
        *step.checkpoint,
        step.working_directory,
    )
    matrix = step.branching.matrix if step.branching else None
    return [step.arguments, step.env, paths, matrix.definition() if matrix else ()]


def condition_of(text: str) -> Expression:
    """Return the expression that a condition is, with `${{ }}` around it or not. Raises `ExpressionError`."""
    part = template(text.strip()).parts[0]
    return parse(text) if isinstance(part, str) else part


def parameter_of(expression: Expression) -> tuple[str, Node | None]:
    """Return the parameter that an expression is, and which item of it; an empty name for any other expression.

    Only so can it be an object, which has no other value.
    """
    match expression.tree:
        case Lookup(ContextName("parameters"), Literal(str() as name)):
            return name, None
        case Lookup(Lookup(ContextName("parameters"), Literal(str() as name)), key):
            return name, key
        case _:
            return "", None


def parameters_in(step: Step, condition: str = "") -> set[str]:
    """Return the parameters that the expressions of a step look up, and a condition."""
    expressions = [*expressions_in(texts_with_values(step)), *([parse(condition)] if condition else [])]
    paths = (path for expression in expressions for path in expression.references())
    return {path[1] for path in paths if path[0] == "parameters" and len(path) > 1}


def parameters_required(step: Step) -> set[str]:
    """Return those without which an expression of a step is nothing: not those that others may replace by `||`."""
    found: set[str] = set()
    waiting = [expression.tree for expression in expressions_in(texts_with_values(step))]
    while waiting:
        match node := waiting.pop():
            case Choose("||"):
                continue
            case Lookup(ContextName("parameters"), Literal(str() as name)):
                found.add(name)
            case _:
                waiting.extend(children(node))
    return found


def by_own_name(name: str, others: Iterable[str]) -> dict[str, str]:
    """Return steps by the names that a step's file has for them: those of its own branch before others, and a step
    before its branches.
    """
    prefix = name.rpartition(".")[0]
    found: dict[str, str] = {}
    for other in sorted(others, key=lambda one: (one.rpartition(".")[0] != prefix, one.count("."), one)):
        found.setdefault(other.rpartition(".")[2], other)
    return found
