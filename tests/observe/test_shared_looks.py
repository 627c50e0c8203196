"""Tests of the file in which the processes of this program on one machine say what they open."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from runnable_ci.observe.looks import announced_git
from runnable_ci.observe.looks.own import OwnLooks
from runnable_ci.observe.looks.shared import Announced, Announcer, announce_to_watchers, stop_announcing

TRIES_S = 1.5


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The file that is shared."""
    return str(tmp_path / "openings")


def other(one: Announced | Announcer) -> None:
    """Have it be another process's."""
    one._me = b"1:"


def test_what_another_one_says_is_heard_once(file: str, tmp_path: Path) -> None:
    """Below the root, however the path is written, and not what a process says itself."""
    listener, announcer = Announced(file), Announcer(file, str(tmp_path))
    (tmp_path / "own.txt").write_text("")
    other(announcer)
    (tmp_path / "a.txt").write_text("")
    os.close(os.open(tmp_path / "b.txt", os.O_CREAT))
    with open(os.path.relpath(tmp_path / "c.txt"), "w"):
        pass
    list(os.scandir("/"))
    list(tmp_path.iterdir())
    announcer.close()
    (tmp_path / "later.txt").write_text("")
    said = [os.path.normpath(path) for path in listener.take()]
    assert said == [*(str(tmp_path / f"{name}.txt") for name in "abc"), str(tmp_path)]
    assert listener.take() == []
    listener.close()
    listener.close()
    assert listener.take() == []


def test_nobody_announces_what_nobody_hears(file: str, tmp_path: Path) -> None:
    """The file of a run that was killed is no reason to; the last one that listens removes it."""
    announce_to_watchers(str(tmp_path), file)
    assert not Path(file).exists()
    Path(file).write_text("1:/left by a killed run\n")
    announce_to_watchers(str(tmp_path), file)
    (tmp_path / "a.txt").write_text("")
    assert Path(file).read_text() == "1:/left by a killed run\n"
    first, second = Announced(file), Announced(file)
    assert Path(file).read_text() == ""
    announce_to_watchers(str(tmp_path), file)
    (tmp_path / "a.txt").write_text("")
    stop_announcing()
    assert Path(file).read_text() == f"{os.getpid()}:{tmp_path}/a.txt\n"
    first.close()
    assert Path(file).exists()
    second.close()
    assert not Path(file).exists()


def test_a_git_counts_for_as_long_as_it_was_asked(file: str, tmp_path: Path) -> None:
    """Also for who hears of it late: what counts is when. One that was killed asks no more after a minute."""
    listener, announcer = Announced(file), Announcer(file, str(tmp_path))
    other(announcer)
    before = time.monotonic()
    assert not listener.asked_git_since(0.5)
    with announced_git():
        listener.take()
        assert listener.asked_git_since(time.monotonic())
    between = time.monotonic()
    listener.take()
    assert listener.asked_git_since(before)
    assert not listener.asked_git_since(between)
    with open(file, "a") as shared:
        shared.write(f"2:\x01{time.monotonic() - 3600}\n3:\x014:/torn\n5:\x02\n6\n:\n\n")
    listener.take()
    assert not listener.asked_git_since(time.monotonic())
    announcer.close()
    listener.close()


@pytest.mark.parametrize("damage", ["folder", "link", "foreign", "open to others"])
def test_a_file_that_cannot_be_shared(file: str, tmp_path: Path, damage: str) -> None:
    """Who watches and who looks go on without it."""
    if damage == "folder":
        Path(file).mkdir()
    elif damage == "link":
        Path(file).symlink_to(tmp_path / "target")
    elif damage == "foreign":
        os.mkfifo(file)
    else:
        tmp_path.chmod(0o777)
    announce_to_watchers(str(tmp_path), file)
    own = OwnLooks(str(tmp_path), shared=file)
    (tmp_path / "a.txt").write_text("")
    own.hear_others(time.monotonic())
    assert not own.take("a.txt")
    own.close()


def test_nothing_is_written_into_a_file_that_got_the_number(file: str, tmp_path: Path) -> None:
    """One thread opens files and asks git while another ends to share that: no file has a foreign line."""
    current = [Announcer(file, str(tmp_path))]
    is_over = threading.Event()

    def come_and_go() -> None:
        while not is_over.is_set():
            ended, current[0] = current[0], Announcer(file, str(tmp_path))
            current.append(ended)
            ended.close()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        until = time.monotonic() + TRIES_S
        while time.monotonic() < until:
            with open(tmp_path / "file", "wb") as written:
                for looks in (*current[-3:], current[0]):
                    looks.ask_git(begins=True)
                    looks.say(os.fsencode(tmp_path / "file"))
                written.write(b"content")
            assert (tmp_path / "file").read_bytes() == b"content"
    finally:
        is_over.set()
        thread.join()
        stop_announcing()
