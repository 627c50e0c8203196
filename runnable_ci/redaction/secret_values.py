"""Secrets that stand in a text: values of names that say so, passwords in URLs, logins. Pure.

A value is a literal. What is a reference (`${X}`, `{{ x }}`), an expression (`os.environ["X"]`), a placeholder
(`<token>`, `changeme`) or prose is none; what is left of it without references is judged as a variable's value is.

Names are found by the few words that make them secret: one expression for all names would take a hundred times as long.
"""

from __future__ import annotations

import base64
import re
from binascii import Error as Base64Error
from collections.abc import Iterator
from typing import Final

from runnable_ci.redaction.environment import is_secret, is_telling, names_a_secret, passwords_in_urls

_WORDS: Final = (b"secret", b"pass", b"pwd", b"token", b"key", b"credential")
"""In lower case: each name that `names_a_secret` has one of them."""
_OF_NAMES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_NAME_MAX: Final = 100
_LINE_MAX: Final = 256
"""So much is looked at before and after a name, whatever the length of the line."""
_LEAST_DIFFERENT: Final = 4

# What comes after such a word, in lower case, up to a value: the rest of the name, and one of
# - `"value": …` in the same or the next line, after `"name": "NAME"` or `key="NAME"`
# - `= …`, `": …`, `"] = …`, `: str = …`, `=> …`, `:= …`
# - `>…</`, after `<`
# - `", "…"`, after `("`, as of `setdefault`
_AFTER: Final = re.compile(
    rb"""(?P<rest>[a-z0-9_.-]{0,100}+)(?:
    (?P<pair>\\?["']?[\s,+-]*+\\?["']?value\\?["']?\s*+[:=][ \t]*+)
    | (?P<assigned>(?:\\?["'`]|\])*+(?P<blank>[ \t]*+)
      (?:\?|:[ \t]*+[a-z_&*][\w.\[\], |<>&*'?]{0,100}+(?==))?(?:=>|:=|\|\|=|\+?=|:)(?![=:])[ \t]*+)
    | (?P<element>(?:\s[^<>\n]{0,200}+)?>)
    | (?P<argument>\\?["']\s*+,\s*+(?=\\?["'])))""",
    re.VERBOSE,
)
_BEFORE: Final = {
    "pair": re.compile(rb"""\b(?:name|key)\\?["']?\s*[:=]\s*\\?["']?\Z"""),
    "assigned": re.compile(rb"(?<!://)\Z"),
    "element": re.compile(rb"<(?:[a-z]+:)?\Z"),
    "argument": re.compile(rb"""\(\s*\\?["']\Z"""),
}
_QUOTED: Final = re.compile(
    rb"""(?P<prefix>[@A-Za-z]{0,2})(?P<quote>\\?(?:"{3}|'{3}|["'`]))"""
    rb"""(?P<text>(?:\\[^\n"'`]|(?!(?P=quote))[^\n]){0,4096}+)(?P=quote)"""
)
# In code: else it is a part of an expression.
_ENDS_A_VALUE: Final = re.compile(rb"[ \t]*(?:\Z|[,;)\]}#<>\"'\\\r\n&|]|//|/>|--|\w+=|or\b|if\b)")
_BLOCK: Final = re.compile(rb"[|>][-+]?[ \t]*\r?\n[-+ \t]*(?P<line>[^\n]*)")
"""Of YAML: the value begins in the next line."""
_COMMENT: Final = re.compile(r"[ \t]+[#;].*|[,;]$")
_CALL: Final = re.compile(r"[A-Za-z_][\w.]*[(\[]")

_REFERENCE: Final = re.compile(
    r"""(?=[$%{#<\[@_])(?:\$\{\{[^{}]*+\}\} | \$\{\w++:?[-=](?P<default>[^{}]*+)\} | \$\{[^{}]*+\} | \$\([^()]*+\)
    | (?<![\w$])\$(?:env:)?[A-Za-z_]\w*+ | \{\{[^{}]*+\}\} | \{%[^%]*+%\} | <%[^%]*+%> | \#\{[^{}]*+\} | %\(\w++\)[sdr]
    | %[A-Za-z_]\w*% | (?<!%)%[sdrv] | \{[\w.!:\[\]]*+\} | <[^<>]*+> | \[[A-Z_ ]*+\] | @\w++@ | __\w+__)""",
    re.VERBOSE,
)
_REGULAR_EXPRESSION: Final = re.compile(r"\\[wdsbAZ]|\(\?|\[[^\]]*\][+*{]|\.[*+]")
_PLACEHOLDER: Final = re.compile(
    r"\.\.\.|…|•|x{4,}|\*{3,}|change[-_]?(me|it)|your[-_]|[-_]here\b|replace[-_]?(me|with)|placeholder|redacted|dummy"
    r"|(?<![A-Za-z])(example|sample|fake|mock)(?![A-Za-z])|^(test|default)(?![A-Za-z])",
    re.IGNORECASE,
)
_FOREIGN: Final = re.compile(r"[\u0370-\U0010ffff]")
"""Letters of other alphabets: in a text without blanks they are prose too."""
_ENDS_A_LINE: Final = re.compile(r"(\\+[nrt])+$")
_ELSEWHERE: Final = ("ENC[", "ENC(", "{cipher}", "arn:", "projects/", "$(", "${", "{{")
"""What an encrypted value begins with, the name of one that is kept elsewhere, a reference with blanks in it."""

_URL: Final = re.compile(rb"://[^\s/?#:@]*+:[^\s/?#@]++@")
_NETRC: Final = re.compile(rb"login\s+\S+\s+password\s+(\S+)")
_HEADER: Final = re.compile(
    rb"""authorization\\?["']?\s*[:=,]\s*\\?["'`]?(?:basic|bearer|token)\s+([^\s"'`\\]{8,1000})"""
)
_AUTH: Final = re.compile(rb"""auth["']?\s*[:=]\s*["']?([A-Za-z0-9+/]{8,1000}={0,2})(?![A-Za-z0-9+/=])""")


def secret_in(text: bytes, *, code: bool) -> str:
    """Return what secret stands in a text, such as `a value for DB_PASSWORD`; empty for none.

    In `code` only a quoted text is a value: what stands after `=` else is an expression.
    """
    lower = text.lower()
    if name := next(_names(text, lower, code=code), ""):
        return f"a value for {name}"
    if any(_is_literal(password) for url in _URL.findall(text) for password in passwords_in_urls(_text(url))):
        return "a password in a URL"
    if any(_is_literal(_text(found[1])) for found in _NETRC.finditer(text)):
        return "a login with its password"
    if any(_is_literal(_text(text[slice(*found.span(1))])) for found in _HEADER.finditer(lower)):
        return "an Authorization header"
    return "a login in base64" if b"auth" in text and any(map(_is_login, _AUTH.findall(text))) else ""


def _names(text: bytes, lower: bytes, *, code: bool) -> Iterator[str]:
    """Yield the names whose values are secrets."""
    for word in _WORDS:
        at = lower.find(word)
        while at >= 0:
            if after := _AFTER.match(lower, at + len(word)):
                begin = _name_begin(text, at)
                name = _text(text[begin : after.end("rest")])
                before = lower[max(0, begin - _NAME_MAX) : begin]
                if names_a_secret(name) and _BEFORE[after.lastgroup or ""].search(before):
                    value = _value(text, begin, after, code=code)
                    is_pattern = code and _REGULAR_EXPRESSION.search(value)
                    if _is_literal(value) and not is_pattern and is_secret(name, _without_references(value)):
                        yield name
            at = lower.find(word, at + len(word))


def _name_begin(text: bytes, at: int) -> int:
    """Return where the name begins that has something at a place."""
    left = text[max(0, at - _NAME_MAX) : at]
    return at - len(left[len(left.rstrip(_OF_NAMES)) :].lstrip(b"-.0123456789"))


def _value(text: bytes, begin: int, after: re.Match[bytes], *, code: bool) -> str:
    """Return the literal that comes after a name; empty where there is none."""
    place = after.end()
    if after.lastgroup == "element":
        value, closed, _ = text[place : place + _LINE_MAX].partition(b"</")
        return _text(value) if closed else ""
    before = text[max(0, begin - _LINE_MAX) : begin].rpartition(b"\n")[2]
    if quoted := _QUOTED.match(text, place):
        return "" if code and not _is_whole(quoted, before + after[0]) else _text(quoted["text"])
    if code:
        return ""
    if block := _BLOCK.match(text, place):
        return _text(block["line"])
    rest = _without_references(_text(text[place : place + _LINE_MAX].partition(b"\n")[0].rstrip()))
    if _CALL.match(rest):
        return ""
    if after[0].endswith(b"=") and not after["blank"]:  # as a shell has it
        return _until(r"""\s;&|,"'`""", rest)
    around = [quote for quote in "\"'`" if before.count(quote.encode()) % 2] + ([",", "}"] if b"{" in before else [])
    return _until("".join(around), _COMMENT.sub("", rest) if any(end in rest for end in "#;,") else rest)


def _is_whole(quoted: re.Match[bytes], before: bytes) -> bool:
    """Return whether a text in quotes is all of a value in code: no pattern, no part of an expression or of
    another text.
    """
    quote = quoted["quote"]
    opened = before.count(quote) - (0 if quote.startswith(b"\\") else before.count(b"\\" + quote))
    within = opened % 2 and not before.endswith((b" ", b"\t"))  # as in "…?token=" + token
    return (
        not within and b"r" not in quoted["prefix"].lower() and bool(_ENDS_A_VALUE.match(quoted.string, quoted.end()))
    )


def _until(ends: str, text: str) -> str:
    """Return the text up to the first of some characters."""
    found = re.search(f"[{ends}]", text) if ends else None
    return text[: found.start()] if found else text


def _is_literal(value: str) -> bool:
    """Return whether a value is neither prose nor a placeholder, and says something without its references."""
    left = _without_references(_ENDS_A_LINE.sub("", value.strip())).strip()
    if re.search(r"\s", left) or left.startswith(_ELSEWHERE):
        return False
    rest = left.strip(".:!?,;-_/")
    return (
        is_telling(rest)
        and rest.isprintable()
        and len(set(rest)) >= _LEAST_DIFFERENT
        and any(character.isalpha() for character in rest)
        and not (_PLACEHOLDER.search(value) or _FOREIGN.search(value))
    )


def _without_references(value: str) -> str:
    if "__" not in value and not any(sign in value for sign in "$%{<[@"):
        return value
    return _REFERENCE.sub(lambda found: found["default"] or "", value)


def _is_login(text: bytes) -> bool:
    """Return whether a text is `user:password` in base64."""
    try:
        login = base64.b64decode(text, validate=True).decode("ascii")
    except (Base64Error, ValueError):
        return False
    return login.isprintable() and ":" in login.strip(":")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
