"""Files are compared by what is in them: lines, cells, numbers, pixels."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, PngImagePlugin
from pyarrow import parquet

from runnable_ci.analysis.comparison.contents.compare import ContentComparison, Reader, Tolerance, compare_files
from runnable_ci.analysis.comparison.requested import Requested
from runnable_ci.analysis.comparison.text import content_summary

EXACT = Tolerance()
READER = Reader(sys.executable, {"PATH": os.environ["PATH"]})


def differ(
    tmp_path: Path, name: str, before: str | bytes, after: str | bytes, tolerance: Tolerance = EXACT
) -> ContentComparison:
    """The comparison of two contents under one name."""
    paths = [tmp_path / side for side in ("a", "b")]
    for path, content in zip(paths, (before, after), strict=True):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return compare_files(name, *paths, reader=READER, tolerance=tolerance)


def saved(tmp_path: Path, save: Callable[[Any, Any], None], *values: Any) -> list[bytes]:
    """What a library writes for each value."""
    found = []
    for value in values:
        with (tmp_path / "saved").open("wb") as file:
            save(file, value)
        found.append((tmp_path / "saved").read_bytes())
    return found


def test_text_by_lines(tmp_path: Path) -> None:
    """Lines with their numbers, however far down."""
    before = "".join(f"line {i}\n" for i in range(1000))
    found = differ(tmp_path, "notes.txt", before, before.replace("line 700\n", "line seven hundred\n"))
    assert found.form == "text"
    assert found.lines[0] == "@@ -698,7 +698,7 @@"
    assert [line for line in found.lines if line[0] in "+-"] == ["-line 700", "+line seven hundred"]


def test_text_of_millions_of_lines_that_all_differ(tmp_path: Path) -> None:
    """No hour is spent on what nobody can read."""
    found = differ(tmp_path, "big.log", "a\n" * 200_000, "b\n" * 200_000)
    assert found.lines == ["lines 1 to 200000 of A, 1 to 200000 of B differ"]


def test_json_by_values(tmp_path: Path) -> None:
    """Each value by its path; order of keys and white space is none."""
    before = {"model": {"depth": 3, "rate": 0.1}, "scores": [1, 2]}
    after = {"scores": [1, 2, 3], "model": {"rate": 0.25, "depth": 3}}
    found = differ(tmp_path, "m.json", json.dumps(before), json.dumps(after, indent=2))
    assert sorted(map(tuple, found.places)) == [("model.rate", 0.1, 0.25), ("scores[2]", "(none)", 3)]
    same = differ(tmp_path, "m.json", json.dumps(before), json.dumps(before, indent=2))
    assert (same.different, list(same.notes)) == (0, ["the same values, written otherwise"])
    lines = differ(tmp_path, "m.jsonl", '{"a": 1}\n{"a": 2}\n', '{"a": 1}\n{"a": 3}\n')
    assert list(map(tuple, lines.places)) == [("[1].a", 2, 3)]


def test_true_and_1_are_two_values(tmp_path: Path) -> None:
    """JSON tells them apart; 1 and 1.0 are the same number in two spellings."""
    found = differ(tmp_path, "m.json", "[true, 1]", "[1, 1.0]", Tolerance(0.1))
    assert (found.different, found.near, found.is_near) == (1, 0, False)


def test_csv_by_cells(tmp_path: Path) -> None:
    """Each cell by its row and column, with the largest change."""
    found = differ(tmp_path, "t.csv", "id,x,y\na,1,0.5\nb,2,0.25\n", "id,x,y\na,1,0.5\nb,2,0.2\n")
    assert list(map(tuple, found.places)) == [("row 2, y", 0.25, 0.2)]
    assert found.largest == pytest.approx(0.05)
    assert found.largest_relative == pytest.approx(0.2)


def test_csv_with_new_rows_and_columns(tmp_path: Path) -> None:
    """A row that is new moves no other one; rows are known by their first cell."""
    found = differ(tmp_path, "t.csv", "id,x\na,1\nb,2\nc,3\n", "id,x,z\nnew,9,0\na,1,0\nb,5,0\nc,3,0\n")
    assert list(map(tuple, found.places)) == [("id = b, x", 2, 5)]
    assert set(found.notes) == {"column z only in B", "3 rows in A, 4 in B", "only in B: id = new"}


@pytest.mark.parametrize(
    ("before", "after", "where"),
    [
        ("a,a\n1,2\n", "a,a\n1,3\n", ["row 1, a (2)"]),
        ("id,id,x\n1,2,5\n", "id,id,x\n3,2,5\n", ["row 1, id"]),
        (",,x\n1,2,5\n", ",,x\n1,4,5\n", ["row 1, column 2"]),
        ("x,a,a\n5,1,2\n", "a,a,x\n1,3,5\n", ["row 1, a (2)"]),
        ("a,a\n1,2\n", "a,a\n1,2\n7,8\n", []),
        ("# by a tool\nid,x\n1,2\n", "# by a tool\nid,x\n1,3\n", ["row 2, column 2"]),
        ("\nid,x\n1,2\n", "\nid,x\n1,3\n", ["row 2, column 2"]),
        ("a\n1,2\n", "a\n1,2,3\n", ["row 1, column 3"]),
        ("a,b\n1,(none)\n", "a,b\n1\n", ["row 1, b"]),
    ],
)
@pytest.mark.parametrize("large", [False, True])
def test_csv_compares_every_cell(
    tmp_path: Path, before: str, after: str, where: list[str], large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the columns are called, and those without a name too."""
    if large:
        monkeypatch.setattr("runnable_ci.analysis.comparison.contents.delimited.CELLS_MAX", 1)
    found = differ(tmp_path, "t.csv", before, after)
    assert [place for place, _, _ in found.places] == where
    assert not found.is_near
    assert differ(tmp_path, "t.csv", before, before.replace("1", "01")).is_same


def test_json_compares_every_value(tmp_path: Path) -> None:
    """One under a repeated name too, and none is taken for one that is not there."""
    repeated = differ(tmp_path, "t.json", '{"a": 1, "a": 2}', '{"a": 3, "a": 2}')
    assert (repeated.form, repeated.is_near) == ("text", False)
    assert not differ(tmp_path, "t.json", '{"a": "(none)"}', "{}").is_near
    assert not differ(tmp_path, "t.jsonl", '"a\u2028b"\n', '"a","b"\n').is_near


def test_parquet_with_a_repeated_column(tmp_path: Path) -> None:
    """Those of one name are compared one by one."""
    tables = [pa.table([pa.array([1]), pa.array([value])], names=["a", "a"]) for value in (2, 3)]
    before, after = saved(tmp_path, lambda f, t: parquet.write_table(t, f), *tables)
    assert list(map(tuple, differ(tmp_path, "t.parquet", before, after).places)) == [("row 1, a (2)", 2, 3)]


@pytest.mark.parametrize(
    ("name", "text"), [("t.csv", "x\n{}\n"), ("t.json", '{{"x": {}}}'), ("t.tsv", "n\tx\n1\t{}\n")]
)
def test_tolerance(tmp_path: Path, name: str, text: str) -> None:
    """Numbers are near within the tolerance, and nothing else is."""
    for before, after, tolerance, is_near in (
        ("1.0", "1.001", Tolerance(0.01), True),
        ("1.0", "1.001", Tolerance(0.0001), False),
        ("1.0", "1.001", Tolerance(absolute=0.01), True),
        ("1.0", "1.001", Tolerance(), False),
        ("0", "1e-9", Tolerance(0.1), False),
        ("1.0", "NaN", Tolerance(10.0, 10.0), False),
    ):
        found = differ(tmp_path, name, text.format(before), text.format(after), tolerance)
        assert found.is_near is is_near, (before, after, tolerance)


def test_arrays(tmp_path: Path) -> None:
    """Numbers of arrays by their index; NaN equals NaN."""
    then = np.arange(12, dtype="float64").reshape(3, 4)
    then[0, 0] = np.nan
    now = then.copy()
    now[2, 1] = 9.5
    before, after = saved(tmp_path, np.save, then, now)
    found = differ(tmp_path, "x.npy", before, after, Tolerance(0.1))
    assert list(map(tuple, found.places)) == [("[2, 1]", 9.0, 9.5)]
    assert (found.compared, found.different, found.largest, found.is_near) == (12, 1, 0.5, True)
    other, changed = saved(tmp_path, np.save, then, then[:2])
    assert list(differ(tmp_path, "x.npy", other, changed).notes) == ["shape (3, 4) in A, (2, 4) in B"]


def test_large_integers(tmp_path: Path) -> None:
    """They are not within a tolerance that nobody gave, though as floats they are the same."""
    before, after = saved(tmp_path, np.save, np.array([2**53]), np.array([2**53 + 1]))
    assert not differ(tmp_path, "x.npy", before, after).is_near
    for then, now in ((2**53, 2**53 + 1), (float(2**53), 2**53 + 1)):
        assert not differ(tmp_path, "x.json", f"[{then}]", f"[{now}]").is_near


def test_headlines(tmp_path: Path) -> None:
    """One tells that a file differs, also where no value that both have does."""

    def headline(name: str, *contents: str | bytes, tolerance: Tolerance = EXACT) -> str:
        before, after = contents
        return content_summary(Requested(name, differ(tmp_path, name, before, after, tolerance)))

    assert headline("t.csv", "1.0,2\n", "1,2.0\n") == "0 of 2 values differ"
    assert headline("t.csv", "x\n1\n", "x\n1.5\n", tolerance=Tolerance(1)).endswith(", 1 of them within the tolerance")
    assert headline("t.csv", "id,x\na,1\n", "id,x\na,1\nb,2\n") == "differs, though none of the 2 values in both does"
    arrays = saved(tmp_path, np.save, np.ones(3), np.ones(4))
    assert headline("x.npy", *arrays) == "differs"
    archives = saved(tmp_path, lambda f, v: np.savez(f, **v), {"w": np.ones(3)}, {"w": np.ones(3), "b": np.ones(1)})
    assert headline("x.npz", *archives) == "differs, though none of the 3 values in both does"
    images = saved(tmp_path, lambda f, i: i.save(f, "PNG"), Image.new("L", (2, 2)), Image.new("L", (2, 3)))
    assert headline("x.png", *images) == "differs"


def test_archives_of_arrays(tmp_path: Path) -> None:
    """Each array by its name; other time stamps in the archive are no difference of values."""
    before, after = saved(
        tmp_path, lambda f, v: np.savez(f, **v), {"w": np.ones(3)}, {"w": np.ones(3), "b": np.zeros(1)}
    )
    assert list(differ(tmp_path, "x.npz", before, after).notes) == ["array b only in B"]


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    """What a hostile file would execute is not executed."""

    class Bad:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.system, (f"touch {tmp_path}/executed",)

    before, after = saved(tmp_path, np.save, np.array([Bad()], dtype=object), np.array([1, Bad()], dtype=object))
    found = differ(tmp_path, "x.npy", before, after)
    assert found.form == "bytes"
    assert "not readable as array" in found.notes[-1]
    pickles = differ(tmp_path, "x.pkl", pickle.dumps(Bad()), pickle.dumps([Bad()]))
    assert pickles.form == "bytes"
    assert not (tmp_path / "executed").exists()


def test_parquet(tmp_path: Path) -> None:
    """Cells of parquet files, whatever their compression."""
    tables = [pa.table({"id": ["a", "b"], "x": [1.0, value]}) for value in (2.0, 2.5)]
    before, after = saved(tmp_path, lambda f, t: parquet.write_table(t, f), *tables)
    found = differ(tmp_path, "t.parquet", before, after)
    assert list(map(tuple, found.places)) == [("row 2, x", 2.0, 2.5)]
    (packed,) = saved(tmp_path, lambda f, t: parquet.write_table(t, f, compression="gzip"), tables[0])
    assert list(differ(tmp_path, "t.parquet", before, packed).notes) == ["the same values, written otherwise"]


def test_images(tmp_path: Path) -> None:
    """Pixels, and where they differ; a text in the file alone is named."""
    image = Image.new("RGB", (20, 10), "white")
    changed = image.copy()
    changed.putpixel((3, 4), (255, 0, 0))
    changed.putpixel((7, 5), (254, 255, 255))
    before, after = saved(tmp_path, lambda f, i: i.save(f, "PNG"), image, changed)
    found = differ(tmp_path, "plot.png", before, after)
    assert (found.compared, found.different, found.largest) == (200, 2, 255)
    assert found.places[0][0] == "pixels (3, 4) to (7, 5)"
    text = PngImagePlugin.PngInfo()
    text.add_text("Creation Time", "now")
    (stamped,) = saved(tmp_path, lambda f, i: i.save(f, "PNG", pnginfo=text), image)
    same = differ(tmp_path, "plot.png", before, stamped)
    assert (same.different, list(same.notes)) == (0, ["the pixels are the same; the files differ in Creation Time"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.npy", b"\x93NUMPY\x01\x00broken"),
        ("x.npz", b"PK\x03\x04broken"),
        ("x.parquet", b"PAR1broken"),
        ("x.png", b"\x89PNG\r\n\x1a\nbroken"),
        ("x.bin", b"\x00\x01\xff"),
    ],
)
def test_what_cannot_be_read_is_compared_by_its_bytes(tmp_path: Path, name: str, content: bytes) -> None:
    """It is said, and nothing stops."""
    found = differ(tmp_path, name, content, content + b"!")
    assert found.form == "bytes"
    assert found.notes[0] == f"{len(content)} bytes in A, {len(content) + 1} in B"


def test_without_a_library(tmp_path: Path) -> None:
    """Where the interpreter has nothing that reads them, that is said with the packages."""
    before, after = saved(tmp_path, np.save, np.ones(1), np.zeros(1))
    for side, content in (("a", before), ("b", after)):
        (tmp_path / side).write_bytes(content)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    found = compare_files("x.npy", tmp_path / "a", tmp_path / "b", reader=Reader(str(bare), {}))
    assert "has none of numpy, which read array files" in found.notes[-1]


@pytest.mark.parametrize(("name", "content"), [("x.json", "{" * 100_000), ("x.csv", '"' * 1000), ("x.json", "NaN" * 3)])
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, content: str) -> None:
    """They are compared as text, or as far as they go."""
    assert differ(tmp_path, name, content, f"{content} ").form in ("text", "table")
    assert differ(tmp_path, name, "1,2\n\0,3\n", f"{content} ").form == "bytes"


def test_large_tables_are_compared_within_bounds(tmp_path: Path) -> None:
    """Rows that only one has are left out by their first cells, and what is not compared is said."""
    rows = [f"{at},{at / 7:.6f},{at % 5}" for at in range(200_000)]
    before = "\n".join(["id,x,y", *rows])
    fewer = differ(tmp_path, "t.csv", before, "\n".join(["id,x,y", *rows[2:9], "9,0,0", *rows[10:]]))
    assert fewer.notes == ["200000 rows in A, 199998 in B", "only in A: id = 0, 1"]
    assert (fewer.compared, fewer.different, [one[0] for one in fewer.places]) == (
        599_994,
        2,
        ["id = 9, x", "id = 9, y"],
    )
    turned = differ(tmp_path, "t.csv", before, "\n".join(["id,x,y", *reversed(rows[1:])]))
    assert turned.notes[1] == "compared by their place: these are too many rows to find those that belong together"
    other = differ(tmp_path, "t.csv", before, "\n".join(["id,x,y", *(f"{at}.5,-1,-1" for at in range(200_000))]))
    assert other.different == 500_001
    assert other.notes == ["not compared behind row 166667: 500,001 values differ until there"]
