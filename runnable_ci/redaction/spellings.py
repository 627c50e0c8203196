"""How a text is met in what programs print: each character in any of its spellings, escaped once or twice.

One table instead of a list of formats: a program that escapes by a rule of its own (which characters of a URL stay,
which quotes of HTML are named) still writes each character in one of these ways.

Sources: bash 5.2, lib/sh/shquote.c, strtrans.c (`set -x`, `printf %q`, `declare -p`), dash 0.5.12, mystring.c
(`export -p`); RFC 8259 (JSON), RFC 3986 (URL).
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Final


class Part:
    """A part of a text in all its spellings: one where it has only letters, digits and `_.-`, which nothing escapes."""

    __slots__ = ("_by_first", "_by_last", "firsts", "texts")

    def __init__(self, texts: Iterable[bytes]) -> None:
        self.texts = tuple(texts)
        self._by_first: dict[int, list[bytes]] = {}
        self._by_last: dict[int, list[bytes]] = {}
        for text in self.texts:
            self._by_first.setdefault(text[0], []).append(text)
            self._by_last.setdefault(text[-1], []).append(text)
        self.firsts = frozenset(self._by_first)

    def at(self, data: bytes, place: int) -> Sequence[bytes]:
        """Return the spellings that begin with the byte at a place; none at the end of the data."""
        return self._by_first.get(data[place], ()) if place < len(data) else ()

    def before(self, data: bytes, place: int) -> Sequence[bytes]:
        """Return the spellings that end with the byte before a place; none at the beginning of the data."""
        return self._by_last.get(data[place - 1], ()) if place else ()


_PART: Final = re.compile(r"[A-Za-z0-9_.-]+|'+|.", re.DOTALL)
_OF_C: Final = {"\0": "0", "\a": "a", "\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "eE"}
QUOTE_OF_BASH: Final = r"'\''"
_IN_SINGLE_QUOTES: Final = (QUOTE_OF_BASH, """'"'"'""")
"""A single quote in a text in single quotes: by bash; by dash and Python's `shlex`."""
_NAMES: Final = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}
_NOT_PLAIN: Final = re.compile(r"[^A-Za-z0-9_.-]")
_PUNCTUATION: Final = frozenset(string.punctuation) - {*"_.-"}
_JSON: Final = {'"': r"\"", "\\": r"\\"}
_MARKUP: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_AGAIN: Final = [
    str.maketrans(table)
    for table in (
        _JSON,
        {"'": r"\'", "\\": r"\\"},
        {character: f"\\{character}" for character in _PUNCTUATION},
        *({"'": quote} for quote in _IN_SINGLE_QUOTES),
        # JSON that may stand in HTML.
        *(
            _JSON | {character: f"\\u{ord(character):04{digits}}" for character in escaped}
            for escaped in ("<>&", "<>&'\"")
            for digits in "xX"
        ),
        # Which characters a URL keeps as they are differs; those of another escape it does not.
        *(
            {character: f"%{ord(character):02{digits}}" for character in escaped}
            for escaped in ({*_PUNCTUATION, " "}, "\\%&#;\"'")
            for digits in "xX"
        ),
        *(
            _MARKUP | {"'": one, '"': two}
            for one in ("'", "&#39;", "&#x27;", "&apos;")
            for two in ('"', "&quot;", "&#34;")
        ),
    )
]
"""How programs write a whole text that may be escaped already."""


def spelled(text: str) -> tuple[Part, ...]:
    """Return a text as its parts, each in all its spellings; a line break is never one as it is."""
    return tuple(_spellings(part) if _NOT_PLAIN.match(part) else Part([part.encode()]) for part in _PART.findall(text))


@cache
def _spellings(part: str) -> Part:
    once = dict.fromkeys([part[0], *filter(None, _escaped(part[0]))])
    twice = dict.fromkeys(again for text in once for again in (text, *map(text.translate, _AGAIN)))
    # A program escapes each of some quotes in a row, or puts all of them between others (dash).
    texts = [text * len(part) for text in twice]
    if "'" in part:
        texts += [f"""'"{part}"'""", f"""'"{part}\""""]
    found = dict.fromkeys(written for text in texts for written in encodings(text))
    return Part(text for text in found if b"\n" not in text)


def _escaped(character: str) -> Iterator[str]:
    """Yield a character in each way in which some program escapes it; empty for a way that is not for this one."""
    raw, code = encodings(character)[-1], ord(character)
    units = character.encode("utf-16-be", "surrogatepass").hex()
    yield f"\\{character}" if character.isascii() else ""  # a shell, JSON, Python, a regular expression, Markdown
    yield from _IN_SINGLE_QUOTES if character == "'" else ()
    yield from (f"\\{letter}" for letter in _OF_C.get(character, ""))
    yield "+" if character == " " else ""
    yield "".join(f"\\{byte:03o}" for byte in raw)
    yield from (f"&#{code:{width}};" for width in ("d", "02d", "03d"))
    yield f"&{_NAMES[character]};" if character in _NAMES else ""
    for form in (str.lower, str.upper):
        yield "".join(f"\\u{form(units[at : at + 4])}" for at in range(0, len(units), 4))
        yield "".join(f"\\x{form(f'{byte:02x}')}" for byte in raw)
        yield form(_percent(character))
        yield f"&#x{form(f'{code:x}')};"
        yield f"\\x{form(f'{code:02x}')}" if code < 0x100 else ""
        yield f"\\U{form(f'{code:08x}')}" if code > 0xFFFF else ""


def _percent(character: str) -> str:
    return "".join(map("%{:02X}".format, encodings(character)[-1]))


def encodings(text: str) -> list[bytes]:
    """Return a text as bytes; where it has bytes that are no UTF-8, last as those bytes, as a program writes them."""
    found = [text.encode(errors="surrogatepass")]
    with suppress(UnicodeEncodeError):  # a surrogate that represents no byte
        found.append(text.encode(errors="surrogateescape"))
    return found
