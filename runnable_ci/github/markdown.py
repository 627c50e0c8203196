"""Text of others in GitHub's Markdown: shown as it is, whatever it holds.

Nothing in it becomes a link, an image, a mention, a table's bar or HTML. Source: GitHub Flavored Markdown Spec 0.29,
§2.4 backslash escapes, §4.5 fenced code blocks, §4.10 tables, §6.3 code spans.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from runnable_ci.util.text import printable

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_NOTHING = "\u200b"  # zero-width space: ends what would be a mention, an issue's number or an escaped bar


def cut(text: str, characters: int) -> str:
    """Return at most so many characters of a text."""
    return text if len(text) <= characters else text[: max(0, characters - 1)] + "…"


def code(text: str, characters: int = 200) -> str:
    """Return a text of one line in a code span; empty for one that has nothing to show."""
    line = cut(" ".join(printable(text).split()), characters)
    if not line:
        return ""
    marks = "`" * (_longest_run(line) + 1)
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{marks}{space}{line}{space}{marks}"


def code_cell(text: str, characters: int = 200) -> str:
    """Return a text of one line in a code span that can stand in a table."""
    return re.sub(r"\\(?=\|)", rf"\\{_NOTHING}", code(text, characters)).replace("|", r"\|")


def escaped(text: str, characters: int = 2000) -> str:
    """Return a text in which only words between backticks are marked up, as code; its lines stay lines."""
    lines = "\n".join(map(printable, cut(text, characters).split("\n"))).strip().split("\n")
    return "\\\n".join(_escaped_line(line.strip(), code) for line in lines if line.strip())


def escaped_cell(text: str, characters: int = 200) -> str:
    """Return the same for a text of one line that can stand in a table."""
    return _escaped_line(" ".join(printable(cut(text, characters)).split()), code_cell)


def fence(text: str, language: str = "") -> str:
    """Return a text of several lines in a block that it cannot end."""
    lines = [printable(line) for line in text.strip("\n").split("\n")]
    marks = "`" * max(3, _longest_run("\n".join(lines)) + 1)
    return "\n".join([f"{marks}{language}", *lines, marks])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown already. A heading that ends with a colon has its column to the right."""
    lines = [[cell.removesuffix(":") for cell in head], ["---:" if cell.endswith(":") else "---" for cell in head]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [*lines, *rows])


def details(summary: str, body: str) -> str:
    """Return a body that is shown after a click on its summary, a text of this program."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>"


def _escaped_line(line: str, code_span: Callable[[str], str]) -> str:
    parts = re.split(r"`([^`]{1,150})`", line)
    return "".join(code_span(part) if i % 2 else _escape(part) for i, part in enumerate(parts))


def _escape(text: str) -> str:
    return re.sub(r"([@#])", rf"\1{_NOTHING}", _PUNCTUATION.sub(r"\\\1", text))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
