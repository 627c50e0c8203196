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

from runnable_ci.secret_names import is_secret, is_telling, names_a_secret, passwords_in_urls

_WORDS: Final = (b"secret", b"pass", b"pwd", b"token", b"key", b"credential")
"""In lower case: each name that `names_a_secret` has one of them."""
_OF_NAMES: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"
_NAME_MAX: Final = 100
_LINE_MAX: Final = 4096
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
      (?:\?|:[ \t]*+[a-z_&*][\w.\[\], |<>&*'?]*+(?==))?(?:=>|:=|\|\|=|\+?=|:)(?![=:])[ \t]*+)
    | (?P<element>>)
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
    rb"""(?P<text>(?:\\[^\n"'`]|(?!(?P=quote))[^\n])*+)(?P=quote)"""
)
# In code: else it is a part of an expression.
_ENDS_A_VALUE: Final = re.compile(rb"[ \t]*(?:\Z|[,;)\]}#<>\"'\\\r\n&|]|//|/>|--|\w+=|or\b|if\b)")
_CALL: Final = re.compile(r"[A-Za-z_][\w.]*[(\[]")

_REFERENCE: Final = re.compile(
    r"""\$\{\{[^}]*\}\} | \$\{\w+:?[-=](?P<default>[^}]*)\} | \$\{[^}]*\} | \$\([^)]*\)
    | (?<![\w$])\$(?:env:)?[A-Za-z_]\w* | \{\{[^}]*\}\} | \{%[^%]*%\} | <%[^%]*%> | \#\{[^}]*\} | %\(\w+\)[sdr]
    | %[A-Za-z_]\w*% | (?<!%)%[sdrv] | \{[\w.!:\[\]]*\} | <[^<>]*> | \[[A-Z_ ]*\] | @\w+@ | __\w+__""",
    re.VERBOSE,
)
_REGULAR_EXPRESSION: Final = re.compile(r"\\[wdsbAZ]|\(\?|\[[^\]]*\][+*{]|\.[*+]")
_PLACEHOLDER: Final = re.compile(
    r"\.\.\.|…|•|x{4,}|\*{3,}|change[-_]?(me|it)|your[-_]|[-_]here\b|replace[-_]?(me|with)|placeholder|redacted|dummy"
    r"|(?<![A-Za-z])(example|sample|fake|mock)(?![A-Za-z])",
    re.IGNORECASE,
)
_ENDS_A_LINE: Final = re.compile(r"(\\+[nrt])+$")
_ENCRYPTED: Final = ("ENC[", "ENC(", "{cipher}", "arn:")

_URL: Final = re.compile(rb"://[^\s/?#:@]*+:[^\s/?#@]++@")
_NETRC: Final = re.compile(rb"login\s+\S+\s+password\s+(\S+)")
_HEADER: Final = re.compile(
    rb"""authorization\\?["']?\s*[:=,]\s*\\?["'`]?(?:basic|bearer|token)\s+([^\s"'`\\]{8,1000})"""
)
_AUTH: Final = re.compile(rb"""auth["']?\s*[:=]\s*["']?([A-Za-z0-9+/]{8,1000}={0,2})(?![A-Za-z0-9+/=])""")


def secret_in(text: bytes, *, code: bool) -> str:
    """What secret stands in a text, such as `a value for DB_PASSWORD`; empty for none.

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
    """The names whose values are secrets."""
    for word in _WORDS:
        at = lower.find(word)
        while at >= 0:
            if after := _AFTER.match(lower, at + len(word)):
                begin = _name_begin(text, at)
                name = _text(text[begin : after.end("rest")])
                before = lower[max(0, begin - _NAME_MAX) : begin]
                if names_a_secret(name) and _BEFORE[after.lastgroup or ""].search(before):
                    value = _value(text, begin, after, code=code)
                    if _is_literal(value) and is_secret(name, _without_references(value)):
                        yield name
            at = lower.find(word, at + len(word))


def _name_begin(text: bytes, at: int) -> int:
    """Where the name begins that has something at a place."""
    left = text[max(0, at - _NAME_MAX) : at]
    return at - len(left[len(left.rstrip(_OF_NAMES)) :].lstrip(b"-.0123456789"))


def _value(text: bytes, begin: int, after: re.Match[bytes], *, code: bool) -> str:
    """The literal that comes after a name; empty where there is none."""
    place = after.end()
    if after.lastgroup == "element":
        value, end, tag = text[place : place + _LINE_MAX].partition(b"</")
        return _text(value) if end and tag and not value.isspace() else ""
    if quoted := _QUOTED.match(text, place):
        is_literal = not code or (_ENDS_A_VALUE.match(text, quoted.end()) and b"r" not in quoted["prefix"].lower())
        return _text(quoted["text"]) if is_literal else ""
    if code:
        return ""
    rest = _without_references(_text(text[place : place + _LINE_MAX].partition(b"\n")[0].rstrip()))
    if _CALL.match(rest):
        return ""
    if after[0].endswith(b"=") and not after["blank"]:  # as a shell has it
        return _until(r"""\s;&|,"'`""", rest)
    before = _text(text[max(text.rfind(b"\n", 0, begin) + 1, begin - _LINE_MAX) : begin])
    around = [quote for quote in "\"'`" if before.count(quote) % 2] + ([",", "}"] if "{" in before else [])
    return _until("".join(around), re.sub(r"[ \t]+[#;].*|[,;]$", "", rest))


def _until(ends: str, text: str) -> str:
    """The text up to the first of some characters."""
    found = re.search(f"[{ends}]", text) if ends else None
    return text[: found.start()] if found else text


def _is_literal(value: str) -> bool:
    """Whether a value is neither prose nor a placeholder, and says something without its references."""
    value = _ENDS_A_LINE.sub("", value.strip())
    if not value or re.search(r"\s", value) or value.startswith(_ENCRYPTED):
        return False
    rest = _without_references(value).strip(".:!?,;-_/")
    return (
        is_telling(rest)
        and rest.isprintable()
        and "\ufffd" not in rest
        and len(set(rest)) >= _LEAST_DIFFERENT
        and any(character.isalpha() for character in rest)
        and not (_REGULAR_EXPRESSION.search(value) or _PLACEHOLDER.search(value))
    )


def _without_references(value: str) -> str:
    return _REFERENCE.sub(lambda found: found["default"] or "", value)


def _is_login(text: bytes) -> bool:
    """Whether a text is `user:password` in base64."""
    try:
        login = base64.b64decode(text, validate=True).decode("ascii")
    except (Base64Error, ValueError):
        return False
    return login.isprintable() and ":" in login.strip(":")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
