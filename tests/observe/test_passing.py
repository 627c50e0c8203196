"""Tests of names that come and go beside an attempt: real files, and each order of listings and changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runnable_ci.observe.inotify import ACCESS, CREATE, DELETE, FOLDER, MOVED_TO, OPEN
from runnable_ci.observe.observer import Observer
from runnable_ci.observe.trace import PassingName, Window, trace
from runnable_ci.observe.watcher import Event

OPENED, LISTED = Event("data", OPEN | FOLDER), Event("data", ACCESS | FOLDER)
LOOK = [OPENED, LISTED]


def change(mask: int, name: str = "x") -> list[Event]:
    """Return the event of a name in the folder."""
    return [Event(f"data/{name}", mask)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([*LOOK, *change(CREATE)], PassingName(was_there=False, is_listed=False)),
        ([*change(CREATE), *LOOK], PassingName(was_there=False, is_listed=None)),
        ([*change(CREATE), *change(DELETE), *LOOK], PassingName(was_there=False, is_listed=False)),
        ([*change(CREATE), *LOOK, *change(DELETE)], PassingName(was_there=False, is_listed=None)),
        ([*LOOK, *change(CREATE), LISTED], PassingName(was_there=False, is_listed=None)),  # a folder in two pieces
        ([*LOOK, *change(DELETE)], PassingName(was_there=True, is_listed=True)),
        ([*change(DELETE), *LOOK], PassingName(was_there=True, is_listed=False)),
        ([*LOOK, *change(DELETE), *LOOK], PassingName(was_there=True, is_listed=None)),
        ([*LOOK, *change(DELETE), *change(CREATE), *LOOK], PassingName(was_there=True, is_listed=None)),
        ([*LOOK, *change(MOVED_TO)], PassingName(was_there=False, is_listed=None)),  # it may have replaced a file
        (change(CREATE), PassingName(was_there=False, is_listed=None)),  # a listing that was not seen
        ([LISTED, *change(CREATE)], PassingName(was_there=False, is_listed=None)),  # the program's own
    ],
)
def test_whether_a_name_was_listed(events: list[Event], expected: PassingName) -> None:
    """By the order of events a name was there at each listing, at none, or it is not known."""
    window = Window(0, len(events))
    assert trace(events, window, [window]).passing.among("data") == {"x": expected}
    assert trace(events, window).passing.among("data") == {}  # alone: who else


def test_what_came_before_the_window() -> None:
    """A name that a step beside made before the attempt began counts, not one that was there before both."""
    events = [*change(CREATE, "old"), *change(CREATE, "new"), *LOOK]
    found = trace(events, Window(2, 4), [Window(1, 4)], first=0)
    assert found.passing.among("data") == {"new": PassingName(was_there=False, is_listed=None)}
    assert set(found.listed) == {"data"}


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    """An observer of a folder with data."""
    (tmp_path / "data").mkdir()
    made = Observer(tmp_path, tmp_path / ".runnable")
    yield made
    made.close()


def test_what_came_after_the_end(observer: Observer, tmp_path: Path) -> None:
    """What happens between an attempt's end and its record is told once, where another step runs."""

    def make(name: str) -> None:
        (tmp_path / "data" / name).touch()

    observer.begin("beside")
    observer.begin("one")
    make("during")
    one = observer.end("one")
    make("after")
    assert one.trace is not None
    assert set(one.trace.passing.among("data")) == {"during"}
    assert {event.path for event in one.later()} == {"data/after"}
    assert list(one.later()) == []
    observer.end("beside")
    observer.begin("alone")
    alone = observer.end("alone")
    make("later")
    assert list(alone.later()) == []
