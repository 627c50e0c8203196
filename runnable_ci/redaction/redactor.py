"""Takes secrets out of what a step writes and of what is recorded: each becomes `***`.

A secret is a value that is known, in whatever encoding it is usually met, or text in the format of a well-known token.
Where two of them overlap, they go together. Pure: bytes and values in, bytes and values out.
"""

from __future__ import annotations

import base64
import json
import re
import string
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from runnable_ci.redaction import tokens

MASK: Final = "***"
LEAST_CHARACTERS: Final = 4
"""A value that is shorter cannot be kept out of anything."""
_ENCODED_LEAST_BYTES: Final = 8
"""An encoded value, or a line of one, that is shorter is too short to be distinguished from other text."""
_WRAPPED_AT: Final = (64, 76)
"""Where programs break lines of base64."""
_PART_BYTES: Final = 20
_FEW: Final = 8
_RARE_BYTES: Final = 2048
"""A byte is rare that is met once in so many."""
_COMMON: Final = b" etaoinrslcdpumhgf0123456789_-./y:b=\n,vwkSTARENICDLPOMFUxBGHVWYjqzKXJQZ"
"""Bytes of logs, the most common first; what is not here is rarer."""
_MASK: Final = MASK.encode()
_PLAIN: Final = frozenset(f"{string.ascii_letters}{string.digits}-._~".encode())
_LINE_END: Final = re.compile("\r\n|\r|\n")
PEM_BOUNDARY: Final = re.compile(r"\s*-{5}(BEGIN|END) [^-]*-{5}\s*")
"""The line before a key or a certificate, or after it."""


class Redactor:
    """Knows some secrets, and how they are written; more can be learned while others use it, in any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known = _Known().plus(frozenset(secrets))
        self._lock = threading.Lock()
        self.learned = 0
        """How often it has learned more: what was redacted before that may have a secret."""

    def knowing(self, secrets: Iterable[str]) -> Redactor:
        """Return a redactor that also knows these secrets."""
        return Redactor(self._known.secrets.union(secrets))

    def learn(self, secrets: Iterable[str]) -> None:
        """Add these secrets, from now on."""
        with self._lock:
            if more := frozenset(secrets) - self._known.secrets:
                self._known = self._known.plus(more)
                self.learned += 1

    def data(self, data: bytes) -> bytes:
        """Return the bytes without secrets."""
        redaction = Redaction(self)
        return redaction.feed(data) + redaction.close()

    def text(self, text: str) -> str:
        """Return the text without secrets."""
        data = text.encode(errors="surrogatepass")
        return self.data(data).decode(errors="surrogatepass") if self.finds(data) else text

    def value(self, value: Any) -> Any:
        """Return the JSON value with each text in it, and each number that is a secret, without secrets; names stay."""
        match value:
            case str():
                return self.text(value)
            case dict():
                return {name: self.value(item) for name, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
            case None | bool():
                return value
            case _:
                return MASK if str(value) in self._known.secrets and len(str(value)) >= LEAST_CHARACTERS else value

    def finds(self, data: bytes) -> bool:
        """Return whether there is a secret in the bytes."""
        return bool(self.scan(data, 0, last=True).found)

    def holds(self, chunks: Iterable[bytes]) -> bool:
        """Return whether there is a secret in the chunks together."""
        kept, start = b"", 0
        for chunk in chunks:
            data = kept + chunk
            scan = self.scan(data, start, last=False)
            if scan.found:
                return True
            kept, start = _context(data, scan.open_from)
        return bool(self.scan(kept, start, last=True).found)

    def scan(self, data: bytes, start: int, *, last: bool) -> tokens.Scan:
        """Return where secrets are that begin at `start` or later."""
        known = self._known
        scan = tokens.scan(data, start, last=last)
        scan.found.extend(self._occurrences(known, data, start))
        return scan if last else scan._replace(open_from=min(scan.open_from, known.begun_at(data, start)))

    def _occurrences(self, known: _Known, data: bytes, start: int) -> Iterator[tuple[int, int]]:
        """Yield where known secrets are: looked for by a byte that is rare, since one byte is found ten times as
        quickly.
        """
        search, most = known.search, _FEW + len(data) // _RARE_BYTES
        for byte, by_next in search.by_byte.items():
            place, left = data.find(byte, start), most
            while 0 <= place < len(data) - 1 and left:
                for form, offset in by_next.get(data[place + 1], ()):
                    if place - offset >= start and data.startswith(form, place - offset):
                        yield place - offset, place - offset + len(form)
                place, left = data.find(byte, place + 1), left - 1
            if place >= 0 and not left:  # this output has it often: another one from now on
                self._avoid(known, byte)
                for form, offset in (found for forms in by_next.values() for found in forms):
                    yield from _occurrences(form, data, max(start, place - offset))
        for form in search.others:
            yield from _occurrences(form, data, start)

    def _avoid(self, known: _Known, byte: int) -> None:
        """Look for what is known by other bytes than this one; not where more was learned meanwhile."""
        with self._lock:
            if self._known is known:
                search = _Search.of(known.forms, known.search.frequent | {byte})
                self._known = replace(known, search=search)


class Redaction:
    """Redacts what comes in pieces: all of what it gives is the same, wherever the pieces end.

    It keeps back only what may be the beginning of a secret.
    """

    # A pipe gives output in pieces that end anywhere, also within a secret, and two pieces that are searched one by one
    # would both pass. To hold back as many bytes as the longest secret has would be simple and wrong: a private key may
    # have 32 KiB, and a step that waits after `rows: 7` without a line end would show nothing. So a piece is given out
    # up to the first byte at which something may begin, or become longer, that only the next piece decides
    # (`Scan.open_from`). Three things make the result the same as that of the whole:
    # - what is open is searched again together with the next piece, from its first byte on;
    # - the byte before it stays too where it is of a word (`_done`), since no token begins within a word;
    # - of found places that overlap, also across pieces, the union becomes one mask (`_covered`): of two secrets that
    #   share bytes nothing may be left of either.

    __slots__ = ("_covered", "_done", "_kept", "_peeked", "_redactor")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._kept = b""
        self._done = 0
        """So many bytes of what is kept are given out already; they tell whether a word begins after them."""
        self._covered = 0
        """So many bytes of what is kept are of a secret that was given out as a mask."""
        self._peeked: _Peeked | None = None

    def mentions_mask(self, chunk: bytes) -> bool:
        """Return whether `-mask` is in a chunk that may be fed next: both cost as much as one of them."""
        learned = self._redactor.learned
        scan = self._redactor.scan(self._with_kept(chunk), self._done, last=False)
        self._peeked = _Peeked(chunk, learned, scan)
        return scan.mentions_mask

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be given out, now that this came."""
        peeked, self._peeked = self._peeked, None
        data = self._with_kept(chunk)
        if peeked and peeked.chunk is chunk and peeked.learned == self._redactor.learned:
            return self._advance(data, peeked.scan)
        return self._advance(data, self._redactor.scan(data, self._done, last=False))

    def close(self) -> bytes:
        """Return the rest."""
        return self._advance(self._kept, self._redactor.scan(self._kept, self._done, last=True)) if self._kept else b""

    def _with_kept(self, chunk: bytes) -> bytes:
        return self._kept + chunk if self._kept else chunk

    def _advance(self, data: bytes, scan: tokens.Scan) -> bytes:
        open_from = scan.open_from
        position = max(self._done, self._covered)
        if not scan.found and position >= self._done and open_from == len(data):
            given, covered = data[position:] if position else data, 0
        else:
            given, covered = self._masked(data, scan.found, open_from)
        self._kept, self._done = _context(data, open_from)
        self._covered = max(0, covered - (open_from - self._done))
        return given

    def _masked(self, data: bytes, found: list[tuple[int, int]], end: int) -> tuple[bytes, int]:
        """Return the data from what was given out to `end` with masks, and up to where the last mask stands."""
        parts: list[bytes] = []
        position = max(self._done, self._covered)
        covered = self._covered
        for begin, stop in sorted(found):
            if begin >= end:
                break
            if begin >= covered:
                parts += (data[position:begin], _MASK)
            position = covered = max(covered, stop)
        parts.append(data[position:end])
        return b"".join(parts), covered


def texts(value: Any) -> Iterator[str]:
    """Yield all texts and numbers in a JSON value, numbers as they are written."""
    match value:
        case dict():
            for item in value.values():
                yield from texts(item)
        case list():
            for item in value:
                yield from texts(item)
        case str() | int() | float() if not isinstance(value, bool):
            yield str(value)


def secret_lines(secret: str) -> list[str]:
    """Return a secret as lines of text show it: itself, or where it has several lines, each that tells it from
    other text.

    Brackets, rulers, the borders of a PEM block and all lines of fewer than eight characters are met elsewhere too.
    Empty for a secret that is too short to be distinguished from other text.
    """
    secret = secret.strip()
    lines = [line.strip() for line in _LINE_END.split(secret)]
    if len(lines) == 1:
        return [secret] if len(secret) >= LEAST_CHARACTERS else []
    return [line for line in dict.fromkeys(lines) if len(line) >= _ENCODED_LEAST_BYTES and _is_telling(line)]


def _is_telling(line: str) -> bool:
    return any(map(str.isalnum, line)) and not PEM_BOUNDARY.fullmatch(line)


def _context(data: bytes, open_from: int) -> tuple[bytes, int]:
    """Return what is kept of data that is settled up to a place: the rest, after the byte before it if that is of
    a word.
    """
    before = data[open_from - 1 : open_from]
    return (data[open_from - 1 :], 1) if before.isalnum() else (data[open_from:], 0)


def _forms(secret: str) -> Iterator[bytes]:
    """Yield how a secret is met: as it is or each of its lines, in base64 of a longer text, escaped for JSON,
    Python, URL.
    """
    secret = secret.strip()
    if len(secret) < LEAST_CHARACTERS:
        return
    raw = _encodings(secret)[-1]
    escaped = [json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]]
    quoted = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)
    for text in (*secret_lines(secret), *escaped, quoted, quoted.replace("%20", "+")):
        if "\n" not in text:
            yield from _encodings(text)
    for encoded in _base64(raw):
        if len(encoded) >= _ENCODED_LEAST_BYTES:
            yield encoded
            if b"+" in encoded or b"/" in encoded:
                yield encoded.translate(bytes.maketrans(b"+/", b"-_"))


def _encodings(text: str) -> list[bytes]:
    """Return a text as bytes; where it has bytes that are no UTF-8, last as those bytes, as a program writes them."""
    found = [text.encode(errors="surrogatepass")]
    with suppress(UnicodeEncodeError):  # a surrogate that represents no byte
        found.append(text.encode(errors="surrogateescape"))
    return found


def _base64(raw: bytes) -> Iterator[bytes]:
    """Yield what of base64 only the bytes themselves decide, whatever stands before and after them."""
    # Three bytes are four characters of six bits. By how many bytes come before, a secret is met in three forms; the
    # characters at its borders have bits of its neighbours, which nobody knows, and are left out.
    # Source: RFC 4648, section 4; the widths at which lines are broken: RFC 7468 (64), RFC 2045 (76).
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        whole = len(encoded.rstrip(b"="))
        begin, end = (0, 2, 3)[before], whole - (whole < len(encoded))
        yield encoded[begin:end]
        if not before:
            for width in _WRAPPED_AT:
                if end > width:
                    yield from (encoded[at : min(at + width, end)] for at in range(0, end, width))


def _occurrences(form: bytes, data: bytes, start: int) -> Iterator[tuple[int, int]]:
    # A part of a long form is found sooner than all of it.
    part = form[:_PART_BYTES]
    place = data.find(part, start)
    while place >= 0:
        if data.startswith(form, place):
            yield place, place + len(form)
        place = data.find(part, place + 1)


class _Peeked(NamedTuple):
    """What was found in a chunk before it is fed."""

    chunk: bytes
    learned: int
    scan: tokens.Scan


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Search:
    """How forms are looked for: by one byte of each, as few different ones as will do, and as rare."""

    frequent: frozenset[int] = frozenset()
    """Bytes that will not do."""
    by_byte: Mapping[int, Mapping[int, Sequence[tuple[bytes, int]]]] = field(default_factory=dict)
    """The byte → the one that follows it → the forms that are found by both, each with where they are in it."""
    others: Sequence[bytes] = ()

    @classmethod
    def of(cls, forms: Iterable[bytes], frequent: frozenset[int]) -> _Search:
        left = {form: set(form[:-1]) - frequent for form in forms}
        by_byte: dict[int, dict[int, list[tuple[bytes, int]]]] = {}
        while any(left.values()):
            counts = Counter(byte for has in left.values() for byte in has)
            best = max(counts, key=lambda byte: (counts[byte] * (_COMMON.find(byte) + 1 or len(_COMMON) + 1), byte))
            by_next = by_byte[best] = {}
            for form in (form for form, has in left.items() if best in has):
                offset = form.index(best)
                by_next.setdefault(form[offset + 1], []).append((form, offset))
            left = {form: has for form, has in left.items() if best not in has}
        return cls(frequent, by_byte, list(left))

    def plus(self, forms: Iterable[bytes]) -> _Search:
        """Return the search for these forms too, by the bytes that are looked for anyway as far as they have one."""
        by_byte: dict[int, dict[int, Sequence[tuple[bytes, int]]]] = {}
        strange: list[bytes] = []
        for form in forms:
            byte = next((byte for byte in self.by_byte if byte in form[:-1]), None)
            if byte is None:
                strange.append(form)
                continue
            by_next = by_byte.setdefault(byte, dict(self.by_byte[byte]))
            offset = form.index(byte)
            by_next[form[offset + 1]] = (*by_next.get(form[offset + 1], ()), (form, offset))
        added = self.of(strange, self.frequent)
        return _Search(self.frequent, {**self.by_byte, **by_byte, **added.by_byte}, [*self.others, *added.others])


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Known:
    """Secrets, and in which forms they are looked for. Never changed in place: others may be reading it."""

    secrets: frozenset[str] = frozenset()
    forms: frozenset[bytes] = frozenset()
    longest: int = 0
    search: _Search = field(default_factory=_Search)

    def plus(self, secrets: frozenset[str]) -> _Known:
        """Return the forms with these secrets added."""
        forms = frozenset(form for secret in secrets for form in _forms(secret)) - self.forms
        return _Known(
            self.secrets | secrets,
            self.forms | forms,
            max([self.longest, *map(len, forms)]),
            self.search.plus(sorted(forms)),
        )

    def begun_at(self, data: bytes, start: int) -> int:
        """Return from where on the end of the data may be the beginning of a form; those have no line breaks."""
        # So whatever stands before the last line break is settled, and a log of lines holds nothing back.
        begin = max(start, len(data) - self.longest + 1, data.rfind(b"\n", start) + 1)
        tail = data[begin:]
        least = len(tail)
        for form in self.forms if tail else ():
            place = tail.find(form[:1])
            while 0 <= place < least:
                if len(tail) - place < len(form) and form.startswith(tail[place:]):
                    least = place
                place = tail.find(form[:1], place + 1)
        return begin + least
