"""Where each key of a TOML text is written: its line and columns. Pure.

`tomllib` checks the syntax and gives the values, without positions. This scanner only follows the structure of a text
that `tomllib` has accepted; of any other text it gives what comes before the first thing that it does not know.
Source: TOML 1.0.0.
"""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from typing import Final, NamedTuple

Path = tuple[str, ...]
"""The keys that lead to a value; an item of a list has its number as a key."""

_BLANK: Final = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_TEXT: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' r"|'''.*?'''(?:'{0,2})" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'", re.DOTALL
)
_BARE: Final = re.compile(r"[^,\]}#\n]+")


class Span(NamedTuple):
    """A key of a file, or an item of a list, as it is written."""

    line: int
    """Counted from 1."""
    start: int
    """Column, counted from 0."""
    end: int
    """The column behind it, on the same line."""


def key_spans(text: str) -> dict[Path, Span]:
    """Return where each key and each item of a list is; of several places (a table and its keys) the first."""
    scanner = _Scanner(text)
    with suppress(_UnknownSyntaxError, RecursionError):
        scanner.document()
    return scanner.spans


class _UnknownSyntaxError(Exception):
    """The text is no TOML from here on."""


class _Scanner:
    def __init__(self, text: str) -> None:
        self.spans: dict[Path, Span] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._counted_to = 0
        self._lists: dict[Path, int] = {}
        """Lists of tables → how many there are so far."""

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        is_list = self._text.startswith("[[", self._at)
        self._at += 2 if is_list else 1
        keys = self._keys()
        self._expect("]]" if is_list else "]")
        path: Path = ()
        for name, span in keys:
            path = (*path, name)
            self.spans.setdefault(path, span)
            if path in self._lists:
                path = (*path, str(self._lists[path] - 1))
        if is_list:
            base = path[:-1] if path[:-1] in self._lists else path
            number = self._lists.get(base, 0)
            self._lists[base] = number + 1
            path = (*base, str(number))
            self.spans.setdefault(path, keys[-1][1])
        return path

    def _pair(self, table: Path) -> None:
        path = table
        for name, span in self._keys():
            path = (*path, name)
            self.spans.setdefault(path, span)
        self._expect("=")
        self._value(path)

    def _keys(self) -> list[tuple[str, Span]]:
        """Read a key with its dots."""
        found: list[tuple[str, Span]] = []
        while True:
            self._skip(_SPACE)
            start = self._at
            word = self._take(_KEY)
            found.append((_unquoted(word), self._span(start)))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return found
            self._at += 1

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        if self._text.startswith("[", self._at):
            self._list(path)
        elif self._text.startswith("{", self._at):
            self._inline_table(path)
        elif not (match := _TEXT.match(self._text, self._at)):
            self._take(_BARE)
        else:
            self._at = match.end()

    def _list(self, path: Path) -> None:
        self._at += 1
        for number in range(len(self._text)):
            if self._closes("]"):
                return
            start, item = self._at, (*path, str(number))
            begin = self._span(start)  # before the value, which may end lines below
            self._value(item)
            width = len(self._text[start : self._at].partition("\n")[0].rstrip())
            self.spans.setdefault(item, begin._replace(end=begin.start + width))
            self._comma()

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while not self._closes("}"):
            self._pair(path)
            self._comma()

    def _closes(self, bracket: str) -> bool:
        self._skip(_BLANK)
        if not self._text.startswith(bracket, self._at):
            return False
        self._at += 1
        return True

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if not match:
            raise _UnknownSyntaxError
        self._at = match.end()
        return match[0]

    def _expect(self, word: str) -> None:
        self._skip(_SPACE)
        if not self._text.startswith(word, self._at):
            raise _UnknownSyntaxError
        self._at += len(word)

    def _span(self, start: int) -> Span:
        """Return the span from `start` to here; asked for in the order of the text, each line is counted once."""
        while (end := self._text.find("\n", self._counted_to, start)) >= 0:
            self._line, self._line_start, self._counted_to = self._line + 1, end + 1, end + 1
        return Span(self._line, start - self._line_start, max(self._at, start + 1) - self._line_start)


def _unquoted(word: str) -> str:
    if word[0] not in "\"'":
        return word
    try:
        return str(tomllib.loads(f"key = {word}")["key"])
    except ValueError as e:
        raise _UnknownSyntaxError from e
