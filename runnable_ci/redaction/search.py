"""Finds forms of secrets in bytes: quickly where there are none, in whatever spelling where there is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from runnable_ci.redaction.spellings import Part

_NEEDLE_BYTES: Final = 64
_COST_OF_TEXTS: Final = 300.0
"""Microseconds for 64 KiB, by a text of one byte."""
_ALONE: Final = [frozenset([byte]) for byte in range(256)]
ANY: Final = -1
"""In place of a byte, where it may be any."""
_FEW: Final = 8
_OF_BYTES: Final = 64 * 1024
"""Bytes are counted in so many, which a pipe gives at once."""
_COMMON: Final = b" etaoinrslcdpumhgf0123456789_-./y:b=\n,vwkSTARENICDLPOMFUxBGHVWYjqzKXJQZ"
"""Bytes of logs, the most common first; what is not here is rarer."""


def _guessed_counts() -> dict[int, int]:
    return dict.fromkeys(range(256), 0) | {byte: len(_COMMON) - at for at, byte in enumerate(_COMMON)}


class Anchor(NamedTuple):
    """A byte by which a form is found: where it is in one spelling of one of the parts."""

    part: int
    text: bytes
    offset: int

    @property
    def byte(self) -> int:
        """The byte."""
        return self.text[self.offset]

    @property
    def following(self) -> int:
        """The byte after it; one that is none where that is of another part."""
        return self.text[self.offset + 1] if self.offset + 1 < len(self.text) else ANY


class Form:
    """Something that is looked for: parts that follow each other, each in one of some spellings."""

    __slots__ = ("_needle", "_texts", "cost", "heads", "longest", "parts", "ways")

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.longest = sum(max(map(len, part.texts)) for part in self.parts)
        self.heads = frozenset((text[0], text[1] if len(text) > 1 else ANY) for text in self.parts[0].texts)
        """The first byte of the whole, and the one that follows it."""
        texts = self._texts = tuple(part.texts for part in self.parts)
        self._needle = min(range(len(texts)), key=lambda at: (len(texts[at]), -len(texts[at][0])))
        self.cost = sum(_COST_OF_TEXTS / min(_NEEDLE_BYTES, len(text)) for text in texts[self._needle])
        """What it costs to look for it as a text, in microseconds: a long one is found sooner."""
        self.ways: dict[frozenset[int], tuple[int, int]] = {}
        """Bytes of which each occurrence has at least one → the part that has them, and where it has."""
        for at, part in enumerate(self.parts):
            if len(part.texts) > 1:
                self.ways.setdefault(part.firsts, (at, 0))
            else:
                for offset, byte in enumerate(part.texts[0]):
                    self.ways.setdefault(_ALONE[byte], (at, offset))

    def anchors(self, way: frozenset[int]) -> list[Anchor]:
        """Return how it is found by these bytes."""
        at, offset = self.ways[way]
        return [Anchor(at, text, offset) for text in self.parts[at].texts]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Form) and self._texts == other._texts

    def __hash__(self) -> int:
        return hash(self._texts)

    def around(self, data: bytes, at: int, place: int, end: int, start: int) -> list[tuple[int, int]]:
        """Return where the form is of which a part is at a place, as much of it as may be, if it is there."""
        begins, ends = {place}, {end}
        for part in self.parts[at + 1 :]:
            ends = {stop + len(text) for stop in ends for text in part.at(data, stop) if data.startswith(text, stop)}
            if not ends:
                return []
        for part in reversed(self.parts[:at]):
            begins = {
                begin - len(text)
                for begin in begins
                for text in part.before(data, begin)
                if data.endswith(text, start, begin)
            }
            if not begins:
                return []
        return [(min(begins), max(ends))]

    def at(self, data: bytes, anchor: Anchor, place: int, start: int) -> Iterator[tuple[int, int]]:
        """Yield where the form is that has an anchor's byte at a place, if there is one."""
        begin = place - anchor.offset
        if begin >= start and data.startswith(anchor.text, begin):
            yield from self.around(data, anchor.part, begin, begin + len(anchor.text), start)

    def is_begun(self, data: bytes, place: int) -> bool:
        """Return whether more data may decide what begins at a place: whether it is the form, or more of it."""
        places = {place}
        for part in self.parts:
            if len(data) in places:
                return True
            following = set[int]()
            for at in places:
                for text in part.at(data, at):
                    if data.startswith(text, at):
                        following.add(at + len(text))
                    elif len(data) - at < len(text) and text.startswith(data[at:]):
                        return True
            places = following
            if not places:
                return False
        return False

    def occurrences(self, data: bytes, start: int) -> Iterator[tuple[int, int]]:
        """Yield where the form is, found by the part that has the fewest spellings."""
        for text in self.parts[self._needle].texts:
            # A part of a long text is found sooner than all of it.
            needle = text[:_NEEDLE_BYTES]
            place = data.find(needle, start)
            while place >= 0:
                end = place + len(text)
                if data.startswith(text, place):
                    yield from self.around(data, self._needle, place, end, start)
                place = data.find(needle, place + 1)


class Search:
    """How forms are looked for: by one byte of each, as few different ones as will do, and as rare."""

    # One byte is found ten times as quickly as a text, as long as it is rare: each place of it costs too. Which bytes
    # are rare is guessed at first, and then known: where one is met more often than was expected, the bytes of these
    # data are counted, and the search is planned again.

    __slots__ = ("by_byte", "counts", "others")

    def __init__(
        self,
        counts: Mapping[int, int] | None = None,
        by_byte: Mapping[int, Mapping[int, Sequence[tuple[Form, Anchor]]]] | None = None,
        others: Sequence[Form] = (),
    ) -> None:
        self.counts = counts or _guessed_counts()
        """How often a byte is met in so many data."""
        self.by_byte = by_byte or {}
        """The byte → the one that follows it → what is found by both."""
        self.others = others

    def plus(self, forms: Iterable[Form]) -> Search:
        """Return the search for these forms too, by the bytes that are looked for anyway as far as these will do."""
        left = dict.fromkeys(forms)
        by_byte = {byte: dict(by_next) for byte, by_next in self.by_byte.items()}
        while left:
            ways = Counter(way for form in left for way in form.ways)
            costs = {way: sum(1 + self.counts[byte] / 5 for byte in way - by_byte.keys()) for way in ways}
            best = min(ways, key=lambda way: (costs[way] / ways[way], sorted(way)), default=frozenset[int]())
            found = [form for form in left if best in form.ways]
            if costs.get(best, 0) >= sum(form.cost for form in found):
                break
            for form in found:
                del left[form]
                for anchor in form.anchors(best):
                    by_next = by_byte.setdefault(anchor.byte, {})
                    by_next[anchor.following] = (*by_next.get(anchor.following, ()), (form, anchor))
        return Search(self.counts, by_byte, [*self.others, *left])

    def occurrences(self, data: bytes, start: int) -> tuple[list[tuple[int, int]], bool]:
        """Return where forms are, and whether these data have a byte much more often than was expected."""
        found: list[tuple[int, int]] = []
        is_odd = False
        last = len(data) - 1
        for byte, by_next in self.by_byte.items():
            place, left = data.find(byte, start), _FEW + 2 * self.counts[byte] * len(data) // _OF_BYTES
            wherever = by_next.get(ANY, ())
            while place >= 0 and left:
                # The commonest case by far is that nothing has both bytes.
                if place < last and (entries := by_next.get(data[place + 1])):
                    for form, anchor in entries:
                        found += form.at(data, anchor, place, start)
                for form, anchor in wherever:
                    found += form.at(data, anchor, place, start)
                place, left = data.find(byte, place + 1), left - 1
            if place >= 0:
                is_odd = True
                for form in {form for entries in by_next.values() for form, _ in entries}:
                    found += form.occurrences(data, start)
        for form in self.others:
            found += form.occurrences(data, start)
        return found, is_odd

    def suited_to(self, data: bytes, forms: Iterable[Form]) -> Search:
        """Return the search for these forms, all that there are, in data such as these."""
        met = Counter(data)
        counts = {byte: max(count, met[byte] * _OF_BYTES // len(data)) for byte, count in self.counts.items()}
        return Search(counts).plus(forms)
