"""What looks like a secret of any issuer: the formats of well-known tokens, JSON web tokens, private keys.

A format is looked for by one byte of its prefix, which costs little where that is rare: one regular expression for all
formats would take five times as long as writing and hashing what it reads.

Sources: GitHub, "Behind GitHub's new authentication token formats" (prefixes, 36 characters and more); RFC 7519 (a JSON
web token is three parts of base64url, and `eyJ` is how `{"` begins there); RFC 7468 (the borders of a private key); the
documentation of each maker for the others.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

LONGEST_BYTES: Final = 32 * 1024
"""No token or key is longer, nor what is held back since it may become one."""
_SHORT_BYTES: Final = 256
_OF_TOKENS: Final = f"{string.ascii_letters}{string.digits}_.-".encode()
_FEW: Final = 16
"""So often a byte is looked for alone; a regular expression is quicker where there are more of it."""


class _Anchor(NamedTuple):
    """A byte in the prefix of some formats, with what follows it in all of them."""

    byte: bytes
    look: str
    """The byte and what follows it, as a regular expression."""
    formats: tuple[tuple[int, str], ...]
    """How far the byte is from where a token begins, and the expression of the token."""
    frequent: bool = False
    """Whether most output has it often."""


# A token does not begin within a word, and is as long as possible.
_ANCHORS: Final = (
    _Anchor(
        b"_",
        "_[A-Za-z0-9]{16}",
        (
            (3, "gh[pousr]_[A-Za-z0-9]{36,255}"),
            (10, "github_pat_[A-Za-z0-9_]{22,255}"),
            (3, "npm_[A-Za-z0-9]{36,255}"),
            (2, "hf_[A-Za-z0-9]{30,255}"),
        ),
        frequent=True,
    ),
    _Anchor(
        b"-",
        "-(?:[A-Za-z0-9_][A-Za-z0-9_-]{15}|-(?!---)[A-Za-z0-9_-]{15}|----BEGIN |[mM][aA][sS][kK])",
        (
            (5, "glpat-[A-Za-z0-9_-]{20,255}"),
            (4, "xox[abeoprs]-[A-Za-z0-9-]{20,255}"),
            (4, "pypi-[A-Za-z0-9_-]{50,1024}"),
            # OpenAI, Anthropic and others; but not names such as `sk-estimator-doc-link` in the pages of scikit-learn.
            (2, "sk-[A-Za-z0-9]{32,255}"),
            *((2, f"sk-{kind}-[A-Za-z0-9_-]{{20,255}}") for kind in ("ant", "proj", "admin", "svcacct", "or-v1")),
        ),
        frequent=True,
    ),
    _Anchor(b"K", "KIA[A-Z0-9]{16}", ((1, "AKIA[A-Z0-9]{16}"),)),
    _Anchor(b"z", "za[A-Za-z0-9_-]{35}", ((2, "AIza[A-Za-z0-9_-]{35}"),)),
    _Anchor(
        b"J",
        "J[A-Za-z0-9_-]{8}",
        ((2, r"eyJ[A-Za-z0-9_-]{8,8000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,8000}"),),
    ),
)
_NOT_WITHIN_A_WORD: Final = "(?<![A-Za-z0-9])"

_KEY_BEGIN: Final = b"-----BEGIN "
_KEY_NAME: Final = "[A-Z0-9 ]{0,32}PRIVATE KEY(?: BLOCK)?-----"
_KEY_BODY: Final = r"[A-Za-z0-9+/=\s\\:,.()-]"
_KEY: Final = f"-----BEGIN {_KEY_NAME}{_KEY_BODY}{{1,16000}}?-----END {_KEY_NAME}"
_KEY_BEGUN: Final = rf"-----BEGIN {_KEY_NAME}{_KEY_BODY}{{0,16100}}\Z"
_KEY_BEGIN_BYTES: Final = 80


class Scan(NamedTuple):
    """What is found in some data."""

    found: list[tuple[int, int]]
    """Where secrets are, each as (begin, end)."""
    open_from: int
    """From where on more data may change that."""
    mentions_mask: bool
    """Whether `-mask` is in the data: looked for here, as `-` is anyway, since a search of its own costs more."""


def scan(data: bytes, start: int, *, last: bool) -> Scan:
    """Return where tokens are in `data`.

    Only tokens that begin at `start` or later count; the byte before it tells whether a word begins there. `last` says
    that no more data comes.
    """
    found: list[tuple[int, int]] = []
    open_from = len(data)
    mentions_mask = False
    for anchor in _ANCHORS:
        first = data.find(anchor.byte, start)
        for place in _places(data, anchor, first) if first >= 0 else ():
            found += _tokens(data, anchor, place, start)
            mentions_mask = mentions_mask or data[place : place + 5].lower() == b"-mask"
            if data.startswith(_KEY_BEGIN, place):
                if match := _compiled(_KEY).match(data, place):
                    found.append(match.span())
                elif _compiled(_KEY_BEGUN).match(data, place):
                    open_from = min(open_from, place)
    if last:
        return Scan([*found, (open_from, len(data))] if open_from < len(data) else found, len(data), mentions_mask)
    return Scan(found, min(open_from, _begun_at(data, start)), mentions_mask)


def _tokens(data: bytes, anchor: _Anchor, place: int, start: int) -> Iterator[tuple[int, int]]:
    for distance, form in anchor.formats:
        if place - distance >= start:
            match = _compiled(f"{_NOT_WITHIN_A_WORD}{form}").match(data, place - distance)
            if match:
                yield match.span()


def _places(data: bytes, anchor: _Anchor, place: int) -> Iterator[int]:
    """Yield where an anchor is together with what follows it; its byte is at `place` first."""
    look = _compiled(anchor.look)
    for _ in range(0 if anchor.frequent else _FEW):
        if look.match(data, place):
            yield place
        place = data.find(anchor.byte, place + 1)
        if place < 0:
            return
    while found := look.search(data, place):
        yield found.start()
        place = found.start() + 1


def _begun_at(data: bytes, start: int) -> int:
    """Return from where on the end of `data` may be the beginning of a token or a key."""
    if data.endswith(b"\n"):
        return len(data)
    # Every format is one word, but for the border of a key: only the last word can become a token, or a longer one.
    word = _word_at_end(data, start)
    found = [len(data)]
    if word < len(data) and (match := _token_begun().search(data, word)):
        found.append(match.start())
    near = max(start, len(data) - _KEY_BEGIN_BYTES)
    if b"-" in data[near:] and (match := _compiled(_key_begin_begun()).search(data, near)):
        found.append(match.start())
    return min(found)


def _word_at_end(data: bytes, start: int) -> int:
    """Return where the word begins that the data ends in; the end where it ends in none."""
    for size in (_SHORT_BYTES, LONGEST_BYTES):
        tail = data[max(start, len(data) - size) :]
        word = tail.rstrip(_OF_TOKENS)
        if word:
            break
    return len(data) - len(tail) + len(word)


@cache
def _token_begun() -> re.Pattern[bytes]:
    """Return what may become a token, or a longer one."""
    forms = [_begun(form) for anchor in _ANCHORS for _, form in anchor.formats]
    return _compiled(rf"{_NOT_WITHIN_A_WORD}(?:{'|'.join(forms)})\Z")


@cache
def _key_begin_begun() -> str:
    return rf"-{{1,5}}\Z|{_begun('-----BEGIN [A-Z0-9 ]{0,50}-{0,4}')}\Z"


def _begun(form: str) -> str:
    """Return the expression of what a token of some form begins with: at least one byte, and not what is whole
    already.
    """
    # `ab[x]{9}` becomes `a(?:b(?:[x]{0,8})?)?`: each byte may be there only where the one before it is. With nine it
    # is whole and cannot grow.
    *atoms, body = re.findall(r"(?:\[[^]]*\]|\\.|.)(?:\{[^}]*\})?", form)
    rest = re.sub(r"\{(\d+)\}", lambda found: f"{{0,{int(found[1]) - 1}}}", body)
    for atom in reversed([*atoms, rest]):
        part = re.sub(r"\{\d+,", "{0,", atom)
        rest = part if atom is rest else f"{part}(?:{rest})?"
    return rest


@cache
def _compiled(expression: str) -> re.Pattern[bytes]:
    return re.compile(expression.encode())
