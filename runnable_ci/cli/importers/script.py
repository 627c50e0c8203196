"""Shell scripts in which another tool puts values: here the shell does it, by variables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_NAME_GOES_ON = re.compile(r"[A-Za-z0-9_]")


class Variable(NamedTuple):
    """A place of a script where a value is put."""

    name: str


Part = str | Variable


def shell_script(parts: Iterable[Part]) -> str:
    """Return a script with a variable in each of the places.

    The other tool puts the text of the value there, before the shell reads it. A variable without quotes is the closest
    to that (a value of two words is two words), and within single quotes, where the shell sees none, they are closed
    around it.
    """
    pending, quote, text = [*parts], "", ""
    for i, part in enumerate(pending):
        if isinstance(part, str):
            text += part
            quote = _quote_after(part, quote)
            continue
        following = pending[i + 1] if i + 1 < len(pending) else ""
        is_braced = isinstance(following, str) and _NAME_GOES_ON.match(following)
        variable = f"${{{part.name}}}" if is_braced and quote != "'" else f"${part.name}"
        text += f"'\"{variable}\"'" if quote == "'" else variable
    return text


def _quote_after(text: str, quote: str) -> str:
    """Return the quote that is open at the end of a text of a shell, when `quote` is at its beginning."""
    i = 0
    while i < len(text):
        character = text[i]
        if character == "\\" and quote != "'":
            i += 1
        elif character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        elif character == "#" and not quote and (i == 0 or text[i - 1].isspace()):
            i = text.find("\n", i) if "\n" in text[i:] else len(text)  # an apostrophe of a comment opens nothing
        i += 1
    return quote
