"""Takes secrets out of what a step writes and of what is recorded: each becomes `***`.

A secret is a value that is known, in whatever encoding it is usually met, or text in the format of a well-known token.
Where two of them overlap, they go together. Pure: bytes and values in, bytes and values out.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runnable_ci.redaction import tokens

if TYPE_CHECKING:  # loaded where there is a secret
    from runnable_ci.redaction.search import Form, Search

MASK: Final = "***"
LEAST_CHARACTERS: Final = 4
"""A value that is shorter cannot be kept out of anything."""
_ENCODED_LEAST_BYTES: Final = 8
"""An encoded value, or a line of one, that is shorter is too short to be distinguished from other text."""
_WRAPPED_AT: Final = (64, 76)
"""Where programs break lines of base64."""
_MASK: Final = MASK.encode()
_LINE_END: Final = re.compile("\r\n|\r|\n")
PEM_BOUNDARY: Final = re.compile(r"\s*-{5}(BEGIN|END) [^-]*-{5}\s*")
"""The line before a key or a certificate, or after it."""


class Redactor:
    """Knows some secrets, and how they are written; more can be learned while others use it, in any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = frozenset(secrets)
        self._known = _Known().plus(known) if known else _Known()
        self._lock = threading.Lock()
        self.learned = 0
        """How often it has learned more: what was redacted before that may have a secret."""

    @property
    def known(self) -> frozenset[str]:
        """All secrets that it knows."""
        return self._known.secrets

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
        if known.search:
            found, is_odd = known.search.occurrences(data, start)
            scan.found.extend(found)
            if is_odd:
                self._adapt(known, known.search.suited_to(data, known.forms))
        return scan if last else scan._replace(open_from=min(scan.open_from, known.begun_at(data, start)))

    def _adapt(self, known: _Known, search: Search) -> None:
        """Look for what is known in another way; not where more was learned meanwhile."""
        with self._lock:
            if self._known is known:
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


def _forms(secret: str) -> Iterator[Form]:
    """Yield how a secret is met: itself or each of its lines, all of it in one line, in base64 of a longer text,
    in hex.
    """
    from runnable_ci.redaction.search import Form
    from runnable_ci.redaction.spellings import Part, encodings, spelled

    secret = secret.strip()
    if len(secret) < LEAST_CHARACTERS:
        return
    for text in dict.fromkeys((*secret_lines(secret), secret)):
        yield Form(spelled(text))
    raw = encodings(secret)[-1]
    for encoded in _base64(raw):
        if len(encoded) >= _ENCODED_LEAST_BYTES:
            yield Form([Part([encoded])])
            if b"+" in encoded or b"/" in encoded:
                yield Form([Part([encoded.translate(bytes.maketrans(b"+/", b"-_"))])])
    for digits in dict.fromkeys((raw.hex(), raw.hex().upper())):
        yield Form([Part([digits.encode()])])


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


class _Peeked(NamedTuple):
    """What was found in a chunk before it is fed."""

    chunk: bytes
    learned: int
    scan: tokens.Scan


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Known:
    """Secrets, and in which forms they are looked for. Never changed in place: others may be reading it."""

    secrets: frozenset[str] = frozenset()
    forms: Mapping[Form, None] = field(default_factory=dict)
    """In the order in which they became known."""
    longest: int = 0
    begun: Mapping[int, Mapping[int, Sequence[Form]]] = field(default_factory=dict)
    """A byte → the one that follows it → the forms that may begin with both."""
    search: Search | None = None

    def plus(self, secrets: frozenset[str]) -> _Known:
        """Return the forms with these secrets added."""
        from runnable_ci.redaction.search import Search

        forms = {form: None for secret in sorted(secrets) for form in _forms(secret) if form not in self.forms}
        begun = {byte: dict(by_next) for byte, by_next in self.begun.items()}
        for form in forms:
            for byte, following in form.heads:
                by_next = begun.setdefault(byte, {})
                by_next[following] = (*by_next.get(following, ()), form)
        return _Known(
            self.secrets | secrets,
            {**self.forms, **forms},
            max([self.longest, *(form.longest for form in forms)]),
            begun,
            (self.search or Search()).plus(forms),
        )

    def begun_at(self, data: bytes, start: int) -> int:
        """Return from where on the end of the data may be the beginning of a form; those have no line breaks."""
        if not self.begun:
            return len(data)
        from runnable_ci.redaction.search import ANY

        # So whatever stands before the last line break is settled, and a log of lines holds nothing back.
        begin = max(start, len(data) - self.longest + 1, data.rfind(b"\n", start) + 1)
        tail = data[begin:]
        least = len(tail)
        last = least - 1
        for byte, by_next in self.begun.items() if tail else ():
            place = tail.find(byte)
            while 0 <= place < least:
                if place == last or any(
                    form.is_begun(tail, place)
                    for following in (tail[place + 1], ANY)
                    for form in by_next.get(following, ())
                ):
                    least = place
                place = tail.find(byte, place + 1)
        return begin + least
