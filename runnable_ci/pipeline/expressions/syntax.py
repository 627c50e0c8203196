"""The text of an expression as a tree, and the tree as text again. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NoReturn

LENGTH_MAX: Final = 21_000
DEPTH_MAX: Final = 50
"""Both as GitHub has them."""
_COMPARING: Final = ("==", "!="), ("<", "<=", ">", ">=")
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<number>[+-]?(?:0x[0-9a-f]+|0o[0-7]+|[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?))(?![\w.])
    |(?P<name>[a-z_][\w-]*)|(?P<text>'(?:[^']|'')*')|(?P<sign>\|\||&&|[=!<>]=|[!<>()\[\].,*]))""",
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)
_DIGITS_MAX: Final = 1000
_WORDS: Final[dict[str, Any]] = {
    "true": True,
    "false": False,
    "null": None,
    "NaN": float("nan"),
    "Infinity": float("inf"),
}
_OTHER_FORMS: Final = {
    '"': "a text is in single quotes: 'heads'",
    "=": "`==` compares",
    "&": "both must hold: `&&`",
    "|": "one must hold: `||`",
    "and": "both must hold: `&&`",
    "or": "one must hold: `||`",
    "not": "the opposite is `!`",
    "in": "contains(list, item) tells whether it is in",
    "is": "`==` compares",
    "$": "write it without ${{ }} inside of an expression",
    **dict.fromkeys("+-*/%", "expressions do not calculate: let a step return the number"),
    "'": "a quote within a text is written twice: 'it''s'",
}
"""What begins with other languages' signs → how it is written here."""


class ExpressionError(ValueError):
    """What is wrong with an expression, at which character of it, and what would be right."""

    def __init__(self, message: str, position: int = 0, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is written down."""

    value: Any


@dataclass(frozen=True, slots=True)
class ContextName:
    """A context by its name: `parameters`."""

    name: str
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What is found in something by a key: `of.key`, `of['key']`, `of[0]`."""

    of: Node
    key: Node
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Items:
    """All that is in something: `of.*`. What follows is looked for in each."""

    of: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function's value; its name is in lower case."""

    name: str
    arguments: tuple[Node, ...]
    position: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    of: Node


@dataclass(frozen=True, slots=True)
class Compare:
    """Two values compared."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Choose:
    """The first of several values that is false (`&&`) or true (`||`), else the last."""

    sign: str
    of: tuple[Node, ...]


Node = Literal | ContextName | Lookup | Items | Call | Not | Compare | Choose


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes right below one."""
    match node:
        case Lookup(of, key):
            return (of, key)
        case Items(of) | Not(of):
            return (of,)
        case Call(_, arguments):
            return arguments
        case Compare(_, left, right):
            return (left, right)
        case Choose(_, of):
            return of
        case _:
            return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all below it."""
    waiting = [node]
    while waiting:
        yield (one := waiting.pop())
        waiting.extend(reversed(children(one)))


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse_tree(text: str) -> Node:
    """Return the tree of an expression. Raises `ExpressionError`."""
    return read_tree(Parser(text))


def read_tree(parser: Parser) -> Node:
    """Return the tree of all that a parser reads. Raises `ExpressionError`."""
    if parser.token.kind == "end":
        raise ExpressionError("it is empty", hint="such as parameters.depth > 3")
    node = parser.alternatives()
    if parser.token.kind != "end":
        parser.refuse("an operator")
    _check_depth(node)
    return node


def _check_depth(node: Node) -> None:
    """Raise for a chain, such as `a == b == …`, that would take as many calls to evaluate as it has parts."""
    level, depth = [node], 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise ExpressionError(f"it is nested more than {DEPTH_MAX} deep")
        level = [below for one in level for below in children(one)]


class Parser:
    """Reads tokens from left to right; each method takes all of what it is named after."""

    tokens = _TOKEN

    def __init__(self, text: str) -> None:
        if len(text) > LENGTH_MAX:
            raise ExpressionError(f"it is longer than {LENGTH_MAX} characters")
        self.text = text
        self.depth = 0
        self.token = _Token("", "", 0)
        self._end = 0
        self.advance()

    def advance(self) -> str:
        """Return the text of the token, and read the next one."""
        text = self.token.text
        found = self.tokens.match(self.text, self._end)
        if found:
            kind = found.lastgroup or ""
            self.token = _Token(kind, found[kind], found.start(kind))
            self._end = found.end()
        else:
            rest = self.text[self._end :].lstrip()
            self.token = _Token("unknown" if rest else "end", rest[:1], len(self.text) - len(rest))
        return text

    def takes(self, *signs: str) -> str:
        """Take one of some signs; empty where another token comes."""
        return self.advance() if self.token.kind == "sign" and self.token.text in signs else ""

    def refuse(self, expected: str) -> NoReturn:
        """Raise for the token that comes."""
        kind, text, position = self.token
        rest = self.text[position : position + 20].split("\n")[0]
        found = f"at `{rest}`" if kind != "end" else "at its end"
        hint = _OTHER_FORMS.get(text) or _OTHER_FORMS.get(text[:1], "") if text else ""
        raise ExpressionError(f"{expected} is missing {found}", position, hint)

    def expect(self, sign: str) -> None:
        """Take a sign that must come."""
        if not self.takes(sign):
            self.refuse(f"`{sign}`")

    def deeper(self) -> None:
        """Count what is within brackets or behind `!`."""
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ExpressionError(f"it is nested more than {DEPTH_MAX} deep", self.token.position)

    def alternatives(self) -> Node:
        """Read what `||` joins."""
        self.deeper()
        parts = [self.conjunction()]
        while self.takes("||"):
            parts.append(self.conjunction())
        self.depth -= 1
        return parts[0] if len(parts) == 1 else Choose("||", tuple(parts))

    def conjunction(self) -> Node:
        """Read what `&&` joins."""
        parts = [self.comparison()]
        while self.takes("&&"):
            parts.append(self.comparison())
        return parts[0] if len(parts) == 1 else Choose("&&", tuple(parts))

    def comparison(self, level: int = 0) -> Node:
        """Read what is compared: `<` binds more than `==`."""
        if level == len(_COMPARING):
            return self.unary()
        node = self.comparison(level + 1)
        while sign := self.takes(*_COMPARING[level]):
            node = Compare(sign, node, self.comparison(level + 1))
        return node

    def unary(self) -> Node:
        """Read a value, or its opposite."""
        if not self.takes("!"):
            return self.path()
        self.deeper()
        node = Not(self.unary())
        self.depth -= 1
        return node

    def path(self) -> Node:
        """Read a value and what is looked for in it."""
        node = self.primary()
        while True:
            position = self.token.position
            if self.takes("."):
                if self.takes("*"):
                    node = Items(node)
                elif self.token.kind == "name":
                    node = Lookup(node, Literal(self.advance()), position)
                else:
                    self.refuse("a name")
            elif self.takes("["):
                node = Items(node) if self.takes("*") else Lookup(node, self.alternatives(), position)
                self.expect("]")
            else:
                return node

    def primary(self) -> Node:
        """Read a literal, a context, a call, or what is in parentheses."""
        kind, text, position = self.token
        if kind == "text":
            return Literal(self.advance()[1:-1].replace("''", "'"))
        if kind == "number":
            if len(text) > _DIGITS_MAX:
                raise ExpressionError("the number has too many digits", position)
            return Literal(number_of(self.advance()))
        if kind == "name":
            self.advance()
            if text in _WORDS:
                return Literal(_WORDS[text])
            return Call(text.lower(), self.arguments(), position) if self.takes("(") else ContextName(text, position)
        if not self.takes("("):
            self.refuse("a value")
        node = self.alternatives()
        self.expect(")")
        return node

    def arguments(self) -> tuple[Node, ...]:
        """Read what a function is called with, after its parenthesis."""
        found: list[Node] = []
        while not self.takes(")"):
            if found:
                self.expect(",")
            found.append(self.alternatives())
        return tuple(found)


def number_of(text: str) -> int | float:
    """Return a number as expressions write it. Raises `ValueError`."""
    sign, digits = (-1 if text.startswith("-") else 1), text.lstrip("+-").lower()
    if digits.startswith(("0x", "0o")):
        return sign * int(digits, 0)
    return sign * int(digits) if digits.isdecimal() else sign * float(digits)


def text_of(node: Node) -> str:
    """Return a tree as an expression that has the same tree."""
    match node:
        case Literal(value):
            return _written(value)
        case ContextName(name):
            return name
        case Lookup(of, Literal(str() as key)) if re.fullmatch(r"[A-Za-z_][\w-]*", key, re.ASCII):
            return f"{_operand(of)}.{key}"
        case Lookup(of, key):
            return f"{_operand(of)}[{text_of(key)}]"
        case Items(of):
            return f"{_operand(of)}.*"
        case Call(name, arguments):
            return f"{name}({', '.join(map(text_of, arguments))})"
        case Not(of):
            return f"!{_operand(of)}"
        case Compare(sign, left, right):
            return f"{_operand(left)} {sign} {_operand(right)}"
        case Choose(sign, of):
            return f" {sign} ".join(map(_operand, of))


def _operand(node: Node) -> str:
    text = text_of(node)
    is_number = isinstance(node, Literal) and not isinstance(node.value, str | None)
    return f"({text})" if is_number or isinstance(node, Not | Compare | Choose) else text


def _written(value: Any) -> str:
    match value:
        case None | bool():
            return json.dumps(value)
        case int() | float():
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-1e999"}.get(text := repr(value), text)
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return f"fromjson({_written(json.dumps(value))})"
