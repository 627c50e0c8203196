"""Plain values as YAML that every reader takes for just these values, whatever the texts among them are. Pure.

PyYAML would choose styles by its version and break long lines; this file is compared byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z_./][A-Za-z0-9_./@-]*")
_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", ".nan", ".inf", "."})
"""What readers of YAML 1.1 or 1.2 take for other values than texts."""
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


class GitHubExpression(str):
    """A text in which `${{ }}` is an expression: of this program's own."""

    __slots__ = ()


class Commented(tuple[str, str]):
    """A text with the comment behind it."""

    __slots__ = ()


def expression(text: str) -> GitHubExpression:
    """Return an expression of GitHub's as a value."""
    return GitHubExpression(f"${{{{ {text} }}}}")


def literal(text: str) -> str:
    """Return a text of GitHub's expressions, quoted. Source: GitHub docs, "Evaluate expressions", literals."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def yaml_lines(value: Mapping[str, Any], indent: int = 0) -> Iterator[str]:
    """Yield the lines of a table: of tables, lists, texts, numbers, truth values and None.

    Only an `GitHubExpression` is one: a `${{` in any other text is written so that GitHub reads just that.
    """
    space = " " * indent
    for key, item in value.items():
        # The one key of GitHub's that YAML 1.1 takes for a truth value, and everybody writes as it is.
        name = key if key == "on" and indent == 0 else _key(key)
        yield from _lines(f"{space}{name}:", item, indent)


def _lines(head: str, value: Any, indent: int) -> Iterator[str]:
    match value:
        case Mapping() if value:
            yield head
            yield from yaml_lines(value, indent + 2)
        case list() if value and all(item and isinstance(item, Mapping) for item in value):
            yield head
            for item in value:
                first, *others = yaml_lines(item, indent + 4)
                yield f"{' ' * (indent + 2)}- {first.lstrip(' ')}"
                yield from others
        case _:
            yield f"{head} {_inline(value)}"


def _inline(value: Any) -> str:
    match value:
        case Commented():
            return f"{_scalar(value[0])} # {value[1]}"
        case list():
            return f"[{', '.join(_inline(item) for item in value)}]"
        case Mapping():
            return "{" + ", ".join(f"{_key(key)}: {_inline(item)}" for key, item in value.items()) + "}"
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case _:
            return _scalar(str(value) if not isinstance(value, str) else value)


def _key(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else _quoted(text)


def _scalar(text: str) -> str:
    if isinstance(text, GitHubExpression):
        return text if re.fullmatch(r"\$\{\{ [^\"\\:#\n]* \}\}", text) else _quoted(text)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if '"' in text and text.isascii() and text.isprintable() and "'" not in text and "${{" not in text:
        return f"'{text}'"
    return _quoted(text.replace("${{", expression(literal("${{"))))


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(letter: str) -> str:
    """Return a character in a double-quoted text. Source: YAML 1.2.2, 5.7."""
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isprintable() and letter != "\ufeff":
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
