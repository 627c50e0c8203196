"""Tests of the index of products: what it remembers, and that what is not whole or not ours is not believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import sha256

from runnable_ci.runs.products import index as module
from runnable_ci.runs.products.index import FILE, Product, ProductsIndex, StoredContent
from runnable_ci.store.local import Layout
from runnable_ci.util.bounded_json import without_check


def content(number: int) -> StoredContent:
    """A content that no store needs to have."""
    return StoredContent(f"{number:064x}", number)


def product(path: str = "a.txt", number: int = 1, step: str = "make") -> Product:
    """A product of a step."""
    return Product(path, content(number), step, "r", f"r/{step}.1")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty store."""
    made = Layout(tmp_path / ".runnable")
    made.create()
    return made


def test_what_was_recorded_is_known_to_the_next_process(layout: Layout) -> None:
    """All of it, under its path and content; of one path the last counts, and some before it are known."""
    packed = replace(content(7), pack=("a" * 64, 4096, 512))
    full = Product("b/c.txt", packed, "s", "r", "q/s.1", was=content(3), folder="b", seen=(1, 2, 3, 4))
    ProductsIndex(layout).record([product(), product(number=2), full])
    ProductsIndex(layout).record([product(number=3, step="other")])
    index = ProductsIndex(layout)
    assert index.lookup("b/c.txt") == full
    assert index.lookup("a.txt") == product(number=3, step="other")
    assert [index.is_generated("a.txt", content(number).sha256) for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert (index.lookup("a.txt", content(2).sha256), index.lookup("x")) == (product(number=2), None)
    assert sorted(index.paths_of({"make"})) == ["a.txt"]
    assert sorted(index.paths_of({"s", "other"})) == ["a.txt", "b/c.txt"]


def test_it_does_not_grow_without_end(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that do not count any more go, once they are many; what is known stays the same."""
    monkeypatch.setattr(module, "_SPARE_LINES", 10)
    for number in range(200):
        ProductsIndex(layout).record([product(number=number), product("b.txt")])
    known = [ProductsIndex(layout).is_generated("a.txt", content(number).sha256) for number in range(200)]
    assert known == [False] * 196 + [True] * 4
    assert len((layout.folder / FILE).read_bytes().splitlines()) < 40


def test_a_line_that_was_cut_off_is_lost_alone(layout: Layout) -> None:
    """What is recorded after it stands in a line of its own."""
    ProductsIndex(layout).record([product("a.txt"), product("b.txt")])
    file = layout.folder / FILE
    file.write_bytes(file.read_bytes()[:-20])
    ProductsIndex(layout).record([product("c.txt")])
    index = ProductsIndex(layout)
    assert [index.lookup(path) for path in ("a.txt", "b.txt", "c.txt")] == [product("a.txt"), None, product("c.txt")]


@pytest.mark.parametrize(("said", "damaged"), [("make", "bake"), ('"seen":[1,', '"seen":[2,'), ("a.txt", "b.txt")])
def test_a_line_that_was_changed_is_lost_alone(layout: Layout, said: str, damaged: str) -> None:
    """Whatever it says then, nobody said: the file is the user's."""
    ProductsIndex(layout).record([replace(product("a.txt"), seen=(1, 2, 3, 4)), product("c.txt")])
    file = layout.folder / FILE
    assert said in file.read_text()
    file.write_text(file.read_text().replace(said, damaged, 1))
    index = ProductsIndex(layout)
    assert [index.lookup(path) for path in ("a.txt", "b.txt", "c.txt")] == [None, None, product("c.txt")]


@given(st.recursive(st.none() | st.integers() | st.text() | st.booleans(), st.lists))
def test_a_line_of_anybody_is_none(value: object) -> None:
    """Whatever stands in a field, or in place of a line: it is read as nothing, or as what it says."""
    line = json.loads(without_check(module._encode(product())))
    assert module._decode(json.dumps(value).encode()) is None
    for name in line:
        found = module._decode(json.dumps({**line, name: value}).encode())
        assert found is None or json.loads(module._encode(found))[name] == value or name in ("path", "mode")


@pytest.mark.parametrize("path", ["../a", "/a", "~/a", ".git/hooks/a", "x/.runnable/a", "", "a/../../b"])
def test_no_path_leads_anywhere(path: str) -> None:
    """Out of the workspace, or into a repository or a store."""
    assert module._decode(module._encode(product(path))) is None


def test_what_logs_tell_is_not_observed(layout: Layout) -> None:
    """Where there is no index, the logs of runs are read once; what versions without it recorded moves no file."""
    asked = []

    def logged() -> list[Product]:
        asked.append(1)
        return [product()]

    index = ProductsIndex(layout, logged)
    found = index.lookup("a.txt")
    assert found is not None
    assert not found.observed
    assert not index.is_generated("a.txt", content(1).sha256)
    index.record([product("b.txt")])
    again = ProductsIndex(layout, logged)
    assert again.lookup("a.txt") == found
    assert again.is_generated("b.txt", content(1).sha256)
    assert asked == [1]


def test_the_index_is_not_read_behind_a_link(layout: Layout, tmp_path: Path) -> None:
    """A link in its place is an error, not somebody's file."""
    other = tmp_path / "other"
    other.write_bytes(module._encode(product()))
    (layout.folder / FILE).symlink_to(other)
    with pytest.raises(OSError, match="Too many levels"):
        ProductsIndex(layout).lookup("a.txt")


def test_links_folders_and_times_are_known_again(layout: Layout) -> None:
    """What is needed to restore a file of the user, or to recognize a product, survives in the index."""
    made = [
        replace(product("l"), content=StoredContent(sha256(b"v1"), 2, 0o777, kind="link", target="v1", mtime_ns=5)),
        replace(product("f"), content=StoredContent(sha256(b""), 0, 0o755, kind="folder", mtime_ns=7)),
        replace(product("s"), content=StoredContent(sha256(b"s"), 9_000_000, 0o644, sparse=True, mtime_ns=-1)),
        replace(product("u"), content=StoredContent(sha256(b"u"), 1, stored=False), was=content(3)),
    ]
    ProductsIndex(layout).record(made)
    again = ProductsIndex(layout)
    assert [again.lookup(one.path) for one in made] == made
    assert again.lookup("l", sha256(b"v1"), kind="link") == made[0]
    assert again.lookup("l", sha256(b"v1"), kind="") is None
