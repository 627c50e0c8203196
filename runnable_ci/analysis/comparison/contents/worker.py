"""Compares two files that need a library to be read: arrays, parquet files, images.

The project's interpreter runs it, which has what wrote them: `python -I worker.py FORM RTOL ATOL A B`. It prints one
JSON object: a result of `cells.py`, or `{"missing": PACKAGES}` where no library for the form is installed. Nothing in
the files is unpickled.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import Any, Callable, Iterable, Sequence, Tuple

CELLS_MAX = 5_000_000
"""Of a parquet file; a larger one is compared as far as that."""
Rows = Tuple[Sequence[str], Sequence[Sequence[Any]]]
"""The names of the columns, and the rows."""


def _load(name: str) -> Any:
    """Return a module of this folder: in isolated mode the folder is on no path."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


cells = _load("cells")


def compare_arrays(counted: Any, a: str, b: str) -> None:
    """Compare `.npy` files, or all arrays in `.npz` files."""
    import numpy as np

    loaded: list[Any] = [np.load(path, allow_pickle=False) for path in (a, b)]
    then, now = ({name: one[name] for name in one.files} if hasattr(one, "files") else {"": one} for one in loaded)
    for name in sorted({*then, *now}):
        if name not in then or name not in now:
            counted.note(f"array {name} only in {'A' if name in then else 'B'}")
        else:
            _compare_array(counted, np, name, np.atleast_1d(then[name]), np.atleast_1d(now[name]))


def _compare_array(counted: Any, np: Any, name: str, then: Any, now: Any) -> None:
    if then.shape != now.shape:
        counted.note(f"{name} shape {then.shape} in A, {now.shape} in B".strip())
        return
    if then.dtype != now.dtype:
        counted.note(f"{name} type {then.dtype} in A, {now.dtype} in B".strip())
    same = then == now
    if then.dtype.kind in "fc" and now.dtype.kind in "fc":
        same = same | (np.isnan(then) & np.isnan(now))
    places = np.argwhere(~same)
    counted.compared += then.size
    counted.different += len(places)
    for place in places[: cells.SHOWN_MAX - len(counted.places)]:
        at = tuple(place)
        counted.places.append([f"{name}[{', '.join(map(str, at))}]", then[at].item(), now[at].item()])
    if not len(places):
        return
    if then.dtype.kind not in "biuf" or now.dtype.kind not in "biuf":
        counted.numbers_only = False
        return
    base, other = then[~same].astype("float64"), now[~same].astype("float64")
    change = np.abs(other - base)
    finite = np.isfinite(change)
    counted.numbers_only = counted.numbers_only and bool(finite.all())
    if finite.any():
        counted.largest = max(counted.largest, float(change[finite].max()))
    known = finite & (base != 0)
    if known.any():
        relative = float((change[known] / np.abs(base[known])).max())
        counted.largest_relative = max(counted.largest_relative, relative)
    most = counted.atol + counted.rtol * np.abs(base)
    counted.near += int(((change <= most) & (most > 0)).sum())


def compare_parquet(counted: Any, a: str, b: str) -> None:
    """Compare parquet files, cell by cell."""
    read = _parquet_reader()
    (columns, then), (others, now) = read(a), read(b)
    most = CELLS_MAX // max(1, len(columns))
    if max(len(then), len(now)) > most:
        counted.note(f"only the first {most} rows were compared")
    cells.compare_tables(counted, then[:most], now[:most], (columns, others))


def _parquet_reader() -> Callable[[str], Rows]:
    try:
        from pyarrow import parquet
    except ImportError:
        return _other_parquet_reader()

    def read(path: str) -> Rows:
        table = parquet.ParquetFile(path).read()
        return list(table.column_names), list(zip(*(_plain(column.to_pylist()) for column in table.columns)))

    return read


def _other_parquet_reader() -> Callable[[str], Rows]:
    try:
        import polars as pl
    except ImportError:
        import pandas as pd  # which needs fastparquet then

        def read(path: str) -> Rows:
            table = pd.read_parquet(path)
            return [str(name) for name in table.columns], [tuple(_plain(row)) for row in table.to_numpy().tolist()]

        return read

    def read_polars(path: str) -> Rows:
        table = pl.read_parquet(path)
        return list(table.columns), [tuple(_plain(row)) for row in table.rows()]

    return read_polars


def _plain(values: Iterable[Any]) -> Sequence[Any]:
    """Return values as JSON has them, others as text that represents them."""
    return [value if isinstance(value, (int, float, str, bool, type(None))) else repr(value) for value in values]


def compare_images(counted: Any, a: str, b: str) -> None:
    """Compare two images pixel by pixel; what else is in the files is noted."""
    from PIL import Image, ImageChops

    one, other = Image.open(a), Image.open(b)
    if one.size != other.size:
        sizes = [f"{image.size[0]} x {image.size[1]} pixels" for image in (one, other)]
        counted.note(f"{sizes[0]} in A, {sizes[1]} in B")
        return
    if one.mode != other.mode:
        counted.note(f"mode {one.mode} in A, {other.mode} in B")
    counted.compared = one.size[0] * one.size[1]
    bands = ImageChops.difference(one.convert("RGBA"), other.convert("RGBA")).split()
    changed = bands[0]
    for band in bands[1:]:
        changed = ImageChops.lighter(changed, band)
    histogram = changed.histogram()
    counted.different = sum(histogram[1:])
    if not counted.different:
        if _exactly(one) != _exactly(other):
            counted.note("the first picture in each is the same in 8 bits a colour; the files differ beyond that")
            return
        counted.is_same = True
        odd = sorted(str(k) for k in {**one.info, **other.info} if one.info.get(k) != other.info.get(k))
        counted.note(f"the pixels are the same; the files differ in {', '.join(odd) or 'how they are packed'}")
        return
    counted.numbers_only = False  # no tolerance is given for colours
    counted.largest = max(level for level, count in enumerate(histogram) if count)
    left, top, right, bottom = changed.getbbox() or (0, 0, 1, 1)
    counted.places.append([f"pixels ({left}, {top}) to ({right - 1}, {bottom - 1})", None, None])


def _exactly(image: Any) -> list[Any]:
    """Return what is shown, without any loss: of each picture in a file its pixels, colours and transparency."""
    from PIL import ImageSequence

    return [
        (it.mode, it.size, it.tobytes(), it.getpalette(), str(it.info.get("transparency")), it.info.get("duration"))
        for it in ImageSequence.Iterator(image)
    ]


FORMS: dict[str, tuple[Callable[[Any, str, str], None], list[str]]] = {
    "array": (compare_arrays, ["numpy"]),
    "parquet": (compare_parquet, ["pyarrow", "polars", "pandas"]),
    "image": (compare_images, ["pillow"]),
}


def main(form: str, rtol: str, atol: str, a: str, b: str) -> None:
    """Print the result of comparing two files."""
    compare, packages = FORMS[form]
    counted = cells.Counted(float(rtol), float(atol))
    found: dict[str, Any]
    try:
        compare(counted, a, b)
        found = counted.result(form)
    except ImportError:
        found = {"missing": packages}
    except Exception as error:  # whatever a library raises for what it cannot read
        found = {"unreadable": f"{type(error).__name__}: {str(error)[:200]}"}
    sys.stdout.write(json.dumps(found, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
