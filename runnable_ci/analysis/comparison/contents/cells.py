"""Values compared one by one, and tables of them. The standard library only: the project's interpreter runs it too.

Pure. A place is `[where, before, after]`; a result is a dict of JSON, see `Counted.result`.
"""

from __future__ import annotations

import difflib
import math
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence, Tuple

SHOWN_MAX = 20
"""Places that a result names."""
ALIGNED_MAX = 5000
"""Rows of tables without a key that are aligned when some are new; larger ones are compared row by row."""


class _Missing(str):
    """In place of a value that is not there: it equals no text of a file."""


MISSING = _Missing("(none)")


class SharedColumns(NamedTuple):
    """The columns of two tables that are compared with each other."""

    named: Sequence[Tuple[str, int, int]]
    """What each is called, with its places in both."""
    widths: Tuple[int, int]
    """How many have a name in each; cells beyond these are compared by their place."""


class Counted:
    """Counts what differs of many values, and keeps the first places."""

    def __init__(self, rtol: float = 0.0, atol: float = 0.0) -> None:
        """Take the tolerance: numbers are near if |b - a| <= atol + rtol * |a|."""
        self.rtol, self.atol = rtol, atol
        self.compared = self.different = self.near = 0
        self.largest = self.largest_relative = 0.0
        self.numbers_only = True
        self.places: list[list[Any]] = []
        self.notes: list[str] = []
        self.is_same = False
        """What the files hold is the same, whatever is noted beside that."""

    def add(self, where: str, before: Any, after: Any) -> None:
        """Compare one value with another."""
        self.compared += 1
        are_numbers = _is_number(before) and _is_number(after)  # of which 1 and 1.0 are one
        if (are_numbers or type(before) is type(after)) and (before == after or _both_nan(before, after)):
            return
        self.different += 1
        if len(self.places) < SHOWN_MAX:
            self.places.append([where, before, after])
        if not are_numbers:
            self.numbers_only = False
            return
        try:
            change = abs(after - before)
            relative = change / abs(before) if before else 0.0
            most = self.atol + self.rtol * abs(before)
            is_near = change <= most and most > 0
            is_calculated = math.isfinite(change)
        except OverflowError:  # an integer that no float can hold
            is_calculated = False
        if not is_calculated:
            self.numbers_only = False
            return
        self.largest = max(self.largest, change)
        self.largest_relative = max(self.largest_relative, relative)
        self.near += is_near

    def note(self, text: str) -> None:
        """Note what differs beside values, such as a shape: no tolerance helps there."""
        self.notes.append(text)
        self.numbers_only = False

    def result(self, form: str) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "form": form,
            "compared": self.compared,
            "different": self.different,
            "near": self.near,
            "largest": self.largest,
            "largest_relative": self.largest_relative,
            "numbers_only": self.numbers_only,
            "places": self.places,
            "notes": self.notes,
            "is_same": self.is_same or not (self.different or self.notes),
        }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _both_nan(one: Any, other: Any) -> bool:
    return isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)


def compare_values(counted: Counted, before: Any, after: Any, where: str = "") -> None:
    """Compare two values of JSON, whatever is in them."""
    waiting = [(where, before, after)]
    while waiting:
        place, then, now = waiting.pop()
        if isinstance(then, dict) and isinstance(now, dict):
            keys = [*then, *(key for key in now if key not in then)]
            pairs = [(_below(place, key), then.get(key, MISSING), now.get(key, MISSING)) for key in keys]
        elif isinstance(then, list) and isinstance(now, list):
            length = max(len(then), len(now))
            pairs = [(f"{place}[{at}]", _at(then, at), _at(now, at)) for at in range(length)]
        else:
            counted.add(place or "the value", then, now)
            continue
        waiting.extend(reversed(pairs))


def _below(place: str, key: str) -> str:
    return f"{place}.{key}" if place else str(key)


def _at(values: Sequence[Any], at: int) -> Any:
    return values[at] if at < len(values) else MISSING


def compare_tables(
    counted: Counted,
    before: Sequence[Sequence[Any]],
    after: Sequence[Sequence[Any]],
    columns: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Compare the rows of two tables, cell by cell; rows that only one has are noted."""
    shared = columns_of(counted, columns[0], columns[1])
    for label, one, other in _aligned(before, after, counted, key_of(columns[0])):
        compare_rows(counted, label, one, other, shared)


def columns_of(counted: Counted, then: Sequence[str], now: Sequence[str]) -> SharedColumns:
    """Return the columns that two tables share; what else differs of them is noted.

    Of columns with one name the first of one table is compared with the first of the other, and so on.
    """
    heads = [_numbered(head) for head in (then, now)]
    for one, other, run in ((heads[0], heads[1], "A"), (heads[1], heads[0], "B")):
        for column, at in one.items():
            if column not in other:
                counted.note(f"column {_called(*column) or at + 1} only in {run}")
    if not counted.notes and list(then) != list(now):
        counted.note("the columns are in another order")
    shared = [column for column in heads[0] if column in heads[1]]
    named = [(_called(*it) or f"column {heads[0][it] + 1}", heads[0][it], heads[1][it]) for it in shared]
    return SharedColumns(named, (len(then), len(now)))


def _numbered(head: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return the places of columns by their names, each with its number among those of that name."""
    found: dict[tuple[str, int], int] = {}
    seen: dict[str, int] = {}
    for at, name in enumerate(head):
        seen[name] = seen.get(name, 0) + 1
        found[name, seen[name]] = at
    return found


def _called(name: str, number: int) -> str:
    return f"{name} ({number})" if name and number > 1 else name


def compare_rows(
    counted: Counted,
    label: str,
    one: Sequence[Any],
    other: Sequence[Any],
    columns: SharedColumns,
    value_of: Callable[[Any], Any] = lambda cell: cell,
) -> None:
    """Compare the cells of two rows, by what they are the text of where that is said."""
    first, second = columns.widths
    beyond = range(max(len(one) - first, len(other) - second))
    unnamed = [(f"column {first + at + 1}", first + at, second + at) for at in beyond]
    for name, at, place in (*columns.named, *unnamed):
        then = value_of(one[at]) if at < len(one) else MISSING
        now = value_of(other[place]) if place < len(other) else MISSING
        counted.add(f"{label}, {name}", then, now)


def _aligned(
    before: Sequence[Sequence[Any]], after: Sequence[Sequence[Any]], counted: Counted, name: str
) -> Iterator[tuple[str, Sequence[Any], Sequence[Any]]]:
    """Yield the pairs of rows that belong together."""
    if len(before) == len(after):
        yield from ((f"row {at}", *pair) for at, pair in enumerate(zip(before, after), start=1))
        return
    counted.note(f"{len(before)} rows in A, {len(after)} in B")
    keys = [_keys(rows) for rows in (before, after)]
    if keys[0] is not None and keys[1] is not None and keys[0].keys() & keys[1].keys():
        yield from ((f"{name} = {key}", row, keys[1][key]) for key, row in keys[0].items() if key in keys[1])
        note_rows(counted, [key for key in keys[0] if key not in keys[1]], "A", name)
        note_rows(counted, [key for key in keys[1] if key not in keys[0]], "B", name)
        return
    if max(len(before), len(after)) > ALIGNED_MAX:
        yield from ((f"row {at}", *pair) for at, pair in enumerate(zip(before, after), start=1))
        return
    texts = [[repr(row) for row in rows] for rows in (before, after)]
    matcher = difflib.SequenceMatcher(None, texts[0], texts[1], autojunk=False)
    for _, start, end, begin, stop in matcher.get_opcodes():
        for offset in range(min(end - start, stop - begin)):
            yield f"row {start + offset + 1}", before[start + offset], after[begin + offset]


def _keys(rows: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]] | None:
    """Return the rows by their first cell; None where it is not one of a kind."""
    found = {str(row[0]): row for row in rows if row}
    return found if len(found) == len(rows) else None


def key_of(head: Sequence[str]) -> str:
    """Return what the column is called by whose cells rows are found."""
    return (head[0] if head else "") or "column 1"


def note_rows(counted: Counted, keys: Iterable[str], run: str, name: str) -> None:
    """Note the rows that only one run has, by their first cells; `name` is what these are called."""
    found = list(keys)
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        counted.note(f"only in {run}: {name} = {', '.join(found[:5])}{more}")
