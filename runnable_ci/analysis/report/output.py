"""What a step printed, as HTML: its colours, and nothing else of what terminals do. Pure."""

from __future__ import annotations

import io
import re
from typing import Final

from markupsafe import Markup, escape
from rich.ansi import AnsiDecoder
from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme

from runnable_ci.analysis.report.wording import visible

BACKGROUND: Final = (13, 17, 23)
_THEME: Final = TerminalTheme(
    BACKGROUND,
    (230, 237, 243),
    [
        *((125, 133, 144), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((121, 192, 255), (210, 168, 255), (86, 212, 221), (230, 237, 243)),
    ],
    [
        *((145, 152, 161), (255, 161, 152), (86, 211, 100), (227, 179, 65)),
        *((165, 214, 255), (226, 197, 255), (118, 227, 234), (255, 255, 255)),
    ],
)
"""Sixteen colours, each legible on the background (WCAG 2.2, contrast of at least 4.5)."""
_OTHER_SEQUENCES: Final = re.compile(
    r"\x1b(?:\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_].*?\x1b\\|\[[0-9;?]*[A-Za-ln-z])", re.DOTALL
)
"""Links, titles, movements of the cursor: all but colours (`…m`)."""


def output_html(text: str) -> Markup:
    """Return text that a program wrote for a terminal as HTML; of a line that was written over its last form.

    Of colours the nearest of the sixteen is taken, and no background: so all is legible.
    """
    text = _OTHER_SEQUENCES.sub("", "\n".join(map(_last_form, text.split("\n"))))
    if "\x1b" not in text:
        return escape(visible(text))
    console = Console(file=io.StringIO(), color_system="truecolor", legacy_windows=False)
    parts = []
    for line in AnsiDecoder().decode(text):
        for segment in line.render(console):
            css = _css(segment.style) if segment.style else ""
            shown = escape(visible(segment.text))
            parts.append(Markup('<span style="{}">{}</span>').format(css, shown) if css else shown)
        parts.append(Markup("\n"))
    return Markup("").join(parts)


def _last_form(line: str) -> str:
    return line.rstrip("\r").rsplit("\r", 1)[-1]


def _css(style: Style) -> str:
    found = []
    if style.color is not None and not style.color.is_default:
        near = style.color.downgrade(ColorSystem.STANDARD).get_truecolor(_THEME)
        found.append(f"color:{near.hex}")
    if style.bold:
        found.append("font-weight:bold")
    if style.italic:
        found.append("font-style:italic")
    if style.underline:
        found.append("text-decoration:underline")
    return ";".join(found)
