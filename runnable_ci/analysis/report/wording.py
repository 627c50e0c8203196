"""Texts of a run as a page may show them: nothing in them turns its direction, hides or takes effect. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from markupsafe import Markup, escape

_UNSEEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)
"""What is not seen, turns the direction of text, or is no character by itself; but not lines and tabs.

Source: Unicode 16, the categories Cc, Cs, and of Cf what UTS 39 and UTR 36 warn of.
"""
_CODE: Final = re.compile(r"`([^`\n]+)`")


def visible(text: str) -> str:
    r"""Return text in which what could not be seen stands as its number: `\u202e`."""
    return _UNSEEN.sub(_numbered, text)


def finalized(value: Any) -> Any:
    """Return what the template shows of a value: all text goes through `visible`, but not what is HTML already."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def sentence(text: str) -> Markup:
    """Return a sentence as HTML, in which what stands between backticks is code."""
    parts = _CODE.split(visible(text))
    # Every other part stood between backticks.
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)
    )


def _numbered(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
