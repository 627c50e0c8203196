"""What speaks for a culprit in two contents that should be the same. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

from runnable_ci.analysis.reproduction.determinism.culprits import Culprit
from runnable_ci.analysis.reproduction.determinism.formats import parts

TEXT_MAX: Final = 4 * 1024 * 1024
NEAR: Final = 1e-9
"""Numbers of which the relative difference is at most that come from another order of the same sum."""


class ContentHint(NamedTuple):
    """What two contents tell."""

    culprits: tuple[Culprit, ...]
    """The likeliest first."""
    says: str
    weight: int = 1
    """2: it explains all that differs; 0: many things could look like that."""


ORDER: Final[tuple[Culprit, ...]] = ("hash-order", "listing-order", "completion-order", "random", "address")
_DAY: Final = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH: Final = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLASSES: Final[Sequence[tuple[Culprit, str, re.Pattern[str]]]] = (
    ("system-random", "uuids", re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I)),
    ("address", "memory addresses", re.compile(r"0x[0-9a-fA-F]{6,16}\b")),
    (
        "time",
        "dates and times",
        re.compile(
            r"\d{4}-\d\d-\d\d(?:[T ]\d\d[:-]?\d\d(?:[:-]?\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?|D:\d{14}"
            rf"|\b{_DAY},? (?:\d\d? {_MONTH}|{_MONTH} +\d\d?)[ ,]+[\d: ]+(?:[AP]M )?(?:[A-Z]{{3,4}} )?(?:\d{{4}})?"
            r"|\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b|\b1[5-9]\d{8}(?:\.\d+|\d{3}|\d{6}|\d{9})?\b|\b20\d{6}[-_T]?\d{6}\b"
        ),
    ),
    ("path", "paths of temporary files", re.compile(r"(?:/[\w.+-]+)*/(?:runnable-|tmp)[\w./+-]*|\btmp[\w]{6,10}\b")),
    ("system-random", "hexadecimal texts", re.compile(r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{16,}\b")),
)
_NUMBER: Final = re.compile(r"(?<![\w.])[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])")
_DURATION: Final = re.compile(r"second|elapsed|duration|took|time|\bms\b|\d ?s\b", re.IGNORECASE)
_PID: Final = re.compile(r"\bp?pid\b|process", re.IGNORECASE)


def evidence(name: str, a: bytes, b: bytes, *, ids: Collection[str] = (), host: str = "") -> list[ContentHint]:
    """Return what two contents of one file tell of why they differ, what says most first.

    `ids` are the names of the runs, `host` that of the machine.
    """
    found: list[ContentHint] = []
    one, other = parts(name, a), parts(name, b)
    if one is not None and other is not None and one.keys() == other.keys():
        for part in one:
            if one[part] != other[part]:
                found += [
                    ContentHint(it.culprits, f"{part}: {it.says}", it.weight)
                    for it in _texts(one[part], other[part], ids, host)
                ]
        return found
    texts = [content[:TEXT_MAX].decode("utf-8", "surrogateescape") for content in (a, b)]
    return [*_texts(texts[0], texts[1], ids, host)]


def _texts(a: str, b: str, ids: Collection[str], host: str) -> Iterator[ContentHint]:
    """Yield what two texts tell."""
    involved: list[tuple[Culprit, str]] = []
    named: list[tuple[Culprit, str, re.Pattern[str]]] = []
    if ids:
        run_id = re.compile("|".join(map(re.escape, sorted(ids, key=len, reverse=True))))
        named.append(("run-id", "names of the run", run_id))
    if host:
        named.append(("host-name", "names of the machine", re.compile(re.escape(host))))
    left = [a, b]
    for culprit, what, pattern in [*named, *_CLASSES]:
        matches = [pattern.findall(text) for text in left]
        if matches[0] != matches[1]:
            involved.append((culprit, what))
        left = [pattern.sub("…", text) for text in left]
    if involved and left[0] == left[1]:
        for culprit, what in involved:
            yield ContentHint((culprit,), f"nothing but {what} differ", 2)
        return
    if same := _same_in_another_order(a, b):
        yield ContentHint(ORDER, same, 2)
        return
    for culprit, what in involved:
        yield ContentHint((culprit,), f"{what} differ")
    yield from _numbers(left[0], left[1])


def _same_in_another_order(a: str, b: str) -> str:
    if _parsed(a) == _parsed(b) != _NOT_JSON:
        return "the same keys of JSON in another order"
    ways: list[tuple[str, Callable[[str], Sequence[str]]]] = [
        ("lines", str.splitlines),
        ("words", re.compile(r"[\w.+-]+").findall),
    ]
    for what, split in ways:
        words = split(a), split(b)
        if len(words[0]) > 1 and words[0] != words[1] and sorted(words[0]) == sorted(words[1]):
            return f"the same {what} in another order"
    return ""


_NOT_JSON: Final = object()


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOT_JSON


def _numbers(a: str, b: str) -> Iterator[ContentHint]:
    """Yield what the numbers of two texts tell, where all but them is the same."""
    if _NUMBER.sub("0", a) != _NUMBER.sub("0", b):
        return
    pairs = [(x, y) for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True) if x != y]
    if not pairs:
        return
    near = all(math.isclose(float(x), float(y), rel_tol=NEAR) and "." in x + y for x, y in pairs)
    if near:
        yield ContentHint(
            ("threads", "completion-order", "hash-order"), f"numbers differ by less than {NEAR:g} of them", 2
        )
    elif _PID.search(a) and all(x.isdecimal() and y.isdecimal() for x, y in pairs):
        yield ContentHint(("process-id",), "numbers beside the word for a process differ", 2)
    elif _DURATION.search(a):
        yield ContentHint(("time", "random"), "numbers that may be durations differ", 0)
    else:
        yield ContentHint(("random",), "numbers differ, and nothing else", 0)
