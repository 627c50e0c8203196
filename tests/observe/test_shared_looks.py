"""Tests of the file in which the processes of one run say what they open."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from runnable_ci.observe.shared_looks import SharedLooks

TRIES_S = 1.5


def test_what_another_one_says_is_heard_once(tmp_path: Path) -> None:
    """Below the root, and not what a process says itself."""
    one, other = (SharedLooks(tmp_path / "looks", str(tmp_path)) for _ in range(2))
    other._me = b"1:"
    other.say(tmp_path / "a.txt")
    other.say("/elsewhere")
    one.say(tmp_path / "own")
    assert one.take() == [str(tmp_path / "a.txt")]
    assert one.take() == []
    one.close()
    one.close()
    assert one.take() == []


def test_a_git_counts_for_as_long_as_it_was_asked(tmp_path: Path) -> None:
    """Whoever hears of it late, or not before it is over, takes nothing for that git's; nor of one that was killed."""
    one, other = (SharedLooks(tmp_path / "looks", str(tmp_path)) for _ in range(2))
    other._me = b"1:"
    other.ask_git(True)
    one.take()
    assert one.others_ask_git()
    other.ask_git(False)
    time.sleep(0.2)
    one.take()
    assert not one.others_ask_git()
    assert not SharedLooks(tmp_path / "looks", str(tmp_path)).others_ask_git()
    with (tmp_path / "looks").open("a") as file:
        file.write(f"2:\x01{time.monotonic() - 3600}\n")
    one.take()
    assert not one.others_ask_git()


def test_nothing_is_written_into_a_file_that_got_the_number(tmp_path: Path) -> None:
    """One thread opens files and asks git while another ends to share that: no file has a foreign line."""
    current = [SharedLooks(tmp_path / "looks", str(tmp_path))]
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            ended, current[0] = current[0], SharedLooks(tmp_path / "looks", str(tmp_path))
            current.append(ended)
            ended.close()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        until = time.monotonic() + TRIES_S
        while time.monotonic() < until:
            with open(tmp_path / "file", "wb") as file:
                for looks in (*current[-3:], current[0]):
                    looks.ask_git(True)
                    looks.say(tmp_path / "file")
                file.write(b"content")
            assert (tmp_path / "file").read_bytes() == b"content"
    finally:
        is_over.set()
        thread.join()
