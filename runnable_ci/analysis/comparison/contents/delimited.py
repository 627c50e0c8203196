"""Two files of rows, such as CSV, compared cell by cell: read row by row, as far as is bounded."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from runnable_ci.analysis.comparison.contents.cells import (
    Counted,
    columns_of,
    compare_rows,
    compare_tables,
    key_of,
    note_rows,
)

CELLS_MAX: Final = 500_000
"""Cells of a table that are held at once, to find the rows that belong together where some are new."""
KEYS_MAX: Final = 1_000_000
"""Rows of which the first cells are held, to leave out those that only one table has."""
DIFFERENT_MAX: Final = 500_000
"""Values that differ of which more are not looked for."""
_NUMBER: Final = re.compile(r"\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*|\s*[+-]?(?:nan|inf)\s*", re.IGNORECASE)
_LONGEST: Final = 400
"""Characters of a number."""


class _Table(NamedTuple):
    file: Path
    encoding: str
    separator: str
    head: list[str]
    has_head: bool
    length: int
    """Its rows, without the head."""
    widest: int
    keys: set[str] | None
    """Its rows' first cells; None where these are not one of a kind, or too many."""

    def rows(self) -> Iterator[list[str]]:
        """Yield the rows, without the head."""
        with self.file.open(encoding=self.encoding, newline="") as opened:
            yield from islice(csv.reader(opened, delimiter=self.separator), int(self.has_head), None)


def compare_delimited(counted: Counted, files: Sequence[Path], encodings: Sequence[str], separator: str) -> None:
    """Compare two tables that are text. Raises `csv.Error` for what is none.

    Rows at the same place are compared one by one. Where one table has more rows, those that belong together are found
    in tables of at most `CELLS_MAX` cells, in larger ones by their first cells, where both have them in the same order;
    else they are compared by their place, which is noted.
    """
    then, now = (_opened(file, encoding, separator) for file, encoding in zip(files, encodings, strict=True))
    is_small = max(one.length * max(1, one.widest) for one in (then, now)) <= CELLS_MAX
    if then.length != now.length and is_small:
        rows = [[[value_of(cell) for cell in row] for row in one.rows()] for one in (then, now)]
        compare_tables(counted, rows[0], rows[1], (then.head, now.head))
        return
    shared = columns_of(counted, then.head, now.head)
    labelled = _by_place(then, now)
    if then.length != now.length:
        counted.note(f"{then.length} rows in A, {now.length} in B")
        if _have_same_order(then, now):
            labelled = _by_key(then, now)
            note_rows(counted, _keys_only_in(then, now), "A", key_of(then.head))
            note_rows(counted, _keys_only_in(now, then), "B", key_of(now.head))
        else:
            counted.note("compared by their place: these are too many rows to find those that belong together")
    is_alike = then.head == now.head
    for label, one, other in labelled:
        if is_alike and one == other:
            counted.compared += max(len(one), len(then.head))
            continue
        compare_rows(counted, label, one, other, shared, value_of)
        if counted.different >= DIFFERENT_MAX:
            counted.note(f"not compared behind {label}: {counted.different:,} values differ until there")
            return


def _by_place(then: _Table, now: _Table) -> Iterator[tuple[str, list[str], list[str]]]:
    for number, (one, other) in enumerate(zip(then.rows(), now.rows(), strict=False), start=1):
        yield f"row {number}", one, other


def _by_key(then: _Table, now: _Table) -> Iterator[tuple[str, list[str], list[str]]]:
    for one, other in zip(_shared_rows(then, now), _shared_rows(now, then), strict=True):
        yield f"{key_of(then.head)} = {one[0]}", one, other


def _have_same_order(then: _Table, now: _Table) -> bool:
    """Return whether the rows whose first cells both tables have come in the same order, and there are some."""
    if then.keys is None or now.keys is None or then.keys.isdisjoint(now.keys):
        return False
    pairs = zip(_shared_rows(then, now), _shared_rows(now, then), strict=True)
    return all(one[0] == other[0] for one, other in pairs)


def _keys_only_in(of: _Table, other: _Table) -> Iterator[str]:
    keys = other.keys or set()
    return (row[0] for row in of.rows() if row and row[0] not in keys)


def _shared_rows(of: _Table, other: _Table) -> Iterator[list[str]]:
    keys = other.keys or set()
    return (row for row in of.rows() if row and row[0] in keys)


def _opened(file: Path, encoding: str, separator: str) -> _Table:
    with file.open(encoding=encoding, newline="") as opened:
        reader = csv.reader(opened, delimiter=separator)
        head = next(reader, [])
        has_head = not all(isinstance(value_of(cell), float | int) for cell in head)
        is_first = bool(head) and not has_head
        count, widest, keys = int(is_first), len(head), {*head[:1]} if is_first else set[str]()
        has_null = "\0" in "".join(head)
        for row in reader:
            count += 1
            has_null = has_null or "\0" in "".join(row)
            widest = max(widest, len(row))
            if count <= KEYS_MAX:
                keys.update(row[:1])
    if has_null:
        raise csv.Error("it is no text")
    names = [f"column {at}" for at in range(1, len(head) + 1)] if is_first else head
    are_keys = len(keys) == count
    return _Table(file, encoding, separator, names, not is_first, count, widest, keys if are_keys else None)


def value_of(text: str) -> Any:
    """Return a cell as a number where it is one."""
    if len(text) > _LONGEST or not _NUMBER.fullmatch(text):
        return text
    stripped = text.strip()
    return int(stripped) if stripped.lstrip("+-").isdecimal() else float(stripped)
