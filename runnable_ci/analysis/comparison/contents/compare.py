"""Two files compared by what is in them; which way depends on what they are."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final, Literal

from runnable_ci.analysis.comparison.contents.cells import Counted, compare_values
from runnable_ci.analysis.comparison.contents.delimited import compare_delimited
from runnable_ci.util.bounded_json import parse_own
from runnable_ci.util.process import check_output
from runnable_ci.util.text import decode_text, encoding_of

TEXT_MAX_BYTES: Final = 64 * 1024 * 1024
LINES_MAX: Final = 10_000
"""Lines between the first and the last that differ; of more only their numbers are compared."""
DIFF_MAX: Final = 200
"""Lines of a difference that are shown."""
_WORKER: Final = Path(__file__).with_name("worker.py")
_WORKER_S: Final = 120.0
_SAME_VALUES: Final = "the same values, written otherwise"
LibraryForm = Literal["array", "parquet", "image"]
_MAGIC: Final = (
    (b"\x93NUMPY", ".npy"),
    (b"PAR1", ".parquet"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
)
_IMAGES: Final = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_SUFFIXES: Final[Mapping[str, LibraryForm]] = {
    **dict.fromkeys((".npy", ".npz"), "array"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys(_IMAGES, "image"),
}
Form = Literal["text", "json", "table", "array", "parquet", "image", "bytes"]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far numbers may be apart and count as near: |b - a| <= absolute + relative * |a|."""

    relative: float = 0.0
    absolute: float = 0.0


@dataclass(frozen=True, slots=True)
class Reader:
    """The interpreter that has libraries for arrays, parquet files and images."""

    interpreter: str
    environ: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ContentComparison:
    """In what two files differ that are not the same bytes."""

    form: Form
    compared: int = 0
    """Values or lines."""
    different: int = 0
    near: int = 0
    """Of these, how many are numbers within the tolerance."""
    largest: float = 0.0
    """The largest change of a number."""
    largest_relative: float = 0.0
    numbers_only: bool = False
    """All that differs are finite numbers."""
    is_same: bool = False
    """What both hold is the same: only how it is written differs, or what a picture says beside its pixels."""
    places: Sequence[tuple[str, Any, Any]] = ()
    """The first that differ: where, and what A and B have."""
    notes: Sequence[str] = ()
    """What else differs, and what could not be compared."""
    lines: Sequence[str] = ()
    """Of text a difference by lines."""

    @property
    def is_near(self) -> bool:
        """Whether numbers are all that differs, each within the tolerance; or nothing but how the same is written."""
        return self.is_same or (self.numbers_only and self.near == self.different and not self.notes)


def compare_files(
    name: str, a: Path, b: Path, *, reader: Reader | None = None, tolerance: Tolerance = Tolerance()
) -> ContentComparison:
    """Return in what two files differ; `name` tells what they are, where their first bytes do not.

    Nothing in them is executed or unpickled. Arrays, parquet files and images are read by `reader`, in a process of its
    own.
    """
    form = _form_of(name, a)
    if form is not None:
        return _by_worker(form, a, b, reader, tolerance)
    if max(a.stat().st_size, b.stat().st_size) > TEXT_MAX_BYTES:
        return _bytes(a, b, "too large to be compared line by line")
    suffix = PurePath(name).suffix.lower()
    if suffix in (".csv", ".tsv", ".tab") and (found := _delimited(a, b, "," if suffix == ".csv" else "\t", tolerance)):
        return found
    contents = a.read_bytes(), b.read_bytes()
    try:
        texts = decode_text(contents[0]), decode_text(contents[1])
    except ValueError as e:
        is_binary = any(b"\0" in content for content in contents)
        return _bytes(a, b, "" if is_binary else f"not compared line by line: {e}")
    if any("\0" in text for text in texts):
        return _bytes(a, b)
    counted = Counted(tolerance.relative, tolerance.absolute)
    if suffix in (".json", ".geojson", ".ipynb") and (values := _parsed(texts)) is not None:
        compare_values(counted, *values)
        return _counted(counted, "json", _text_lines(texts))
    if suffix in (".jsonl", ".ndjson") and (values := _parsed(tuple(map(_as_list, texts)))) is not None:
        compare_values(counted, *values)
        return _counted(counted, "json", _text_lines(texts))
    return _text(texts)


def _delimited(a: Path, b: Path, separator: str, tolerance: Tolerance) -> ContentComparison | None:
    """Return how two tables differ that are text; None for what is not read as such."""
    counted = Counted(tolerance.relative, tolerance.absolute)
    try:
        compare_delimited(counted, (a, b), [_encoding(file) for file in (a, b)], separator)
    except (ValueError, csv.Error):
        return None
    return _counted(counted, "table", [])


def _encoding(file: Path) -> str:
    with file.open("rb") as opened:
        return encoding_of(opened.read(4))


def _form_of(name: str, file: Path) -> LibraryForm | None:
    with file.open("rb") as opened:
        head = opened.read(8)
    return _SUFFIXES.get(
        next((suffix for magic, suffix in _MAGIC if head.startswith(magic)), PurePath(name).suffix.lower())
    )


def _by_worker(form: LibraryForm, a: Path, b: Path, reader: Reader | None, tolerance: Tolerance) -> ContentComparison:
    if reader is None:
        return _bytes(a, b, f"no interpreter is known that reads {form} files")
    words = [form, repr(tolerance.relative), repr(tolerance.absolute), str(a), str(b)]
    argv = [reader.interpreter, "-I", "-B", str(_WORKER), *words]
    output = check_output(argv, cwd=a.parent, env=reader.environ, timeout_s=_WORKER_S)
    found = parse_own(output) if output else None
    if not isinstance(found, dict):
        return _bytes(a, b, f"{reader.interpreter} could not compare them")
    if "missing" in found:
        return _bytes(a, b, f"{reader.interpreter} has none of {', '.join(found['missing'])}, which read {form} files")
    if "unreadable" in found:
        return _bytes(a, b, f"not readable as {form}: {found['unreadable']}")
    return ContentComparison(
        form,
        compared=int(found["compared"]),
        different=int(found["different"]),
        near=int(found["near"]),
        largest=float(found["largest"]),
        largest_relative=float(found["largest_relative"]),
        numbers_only=bool(found["numbers_only"] and found["different"]),
        is_same=bool(found["is_same"]),
        places=[(where, then, now) for where, then, now in found["places"]],
        notes=found["notes"] or ([] if found["different"] else [_SAME_VALUES]),
    )


def _counted(counted: Counted, form: Form, lines: Sequence[str]) -> ContentComparison:
    return ContentComparison(
        form,
        compared=counted.compared,
        different=counted.different,
        near=counted.near,
        largest=counted.largest,
        largest_relative=counted.largest_relative,
        numbers_only=counted.numbers_only and counted.different > 0,
        is_same=not (counted.different or counted.notes),
        places=[(where, then, now) for where, then, now in counted.places],
        notes=counted.notes or ([] if counted.different else [_SAME_VALUES]),
        lines=lines if not counted.different else (),
    )


def _parsed(texts: Sequence[str]) -> tuple[Any, Any] | None:
    try:
        then, now = (json.loads(text, object_pairs_hook=_object) for text in texts)
    except (ValueError, RecursionError):
        return None
    return then, now


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON. Raises `ValueError` for one with a repeated name: it would lose a value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is repeated")
    return found


def _as_list(lines: str) -> str:
    """Return lines of JSON as one list."""
    values = [line for line in lines.split("\n") if line.strip()]
    return f"[{','.join(values)}]"


def _text(texts: Sequence[str]) -> ContentComparison:
    lines = _text_lines(texts)
    changed = sum(line[:1] in ("+", "-") for line in lines)
    length = max(text.count("\n") for text in texts)
    return ContentComparison("text", compared=length, different=changed, lines=lines)


def _text_lines(texts: Sequence[str]) -> list[str]:
    """Return a difference by lines, with three lines around each."""
    then, now = (text.splitlines() for text in texts)
    start = next((at for at, (one, other) in enumerate(zip(then, now, strict=False)) if one != other), None)
    start = min(len(then), len(now)) if start is None else start
    most = min(len(then), len(now)) - start
    end = next((at for at in range(most) if then[-1 - at] != now[-1 - at]), most)
    if max(len(then), len(now)) - start - end > LINES_MAX:
        return [f"lines {start + 1} to {len(then) - end} of A, {start + 1} to {len(now) - end} of B differ"]
    around = max(0, start - 3)
    cut = [lines[around : len(lines) - max(0, end - 3)] for lines in (then, now)]
    found = list(_unified(cut[0], cut[1], around))
    return found if len(found) <= DIFF_MAX else [*found[:DIFF_MAX], f"… and {len(found) - DIFF_MAX} more lines"]


def _unified(then: Sequence[str], now: Sequence[str], before: int) -> Iterator[str]:
    for line in list(difflib.unified_diff(then, now, lineterm="", n=3))[2:]:
        if place := re.match(r"@@ -(\d+)(.*) \+(\d+)(.*) @@", line):
            yield f"@@ -{int(place[1]) + before}{place[2]} +{int(place[3]) + before}{place[4]} @@"
        else:
            yield line


def _bytes(a: Path, b: Path, note: str = "") -> ContentComparison:
    sizes = a.stat().st_size, b.stat().st_size
    notes = [f"{sizes[0]:,} bytes in A, {sizes[1]:,} in B" if sizes[0] != sizes[1] else f"{sizes[0]:,} bytes each"]
    return ContentComparison("bytes", different=1, notes=[*notes, *([note] if note else [])])
