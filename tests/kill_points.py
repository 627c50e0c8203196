"""Kills a command at each place in our code where it changes a store, just before the change.

A program of its own, since it forks: `python kill_points.py FOLDER COMMAND… [-- COMMAND…]`. A command runs in FOLDER
again and again, is killed at the first place where none was killed before, and comes to its end once there is no such
place; `{}` in it is the number of the time. After each time a line of JSON has the exit code, the place, the names in
the store, and the exit code of `runs` then. With KILL_PLACES=3:SEED one place in three is taken, by chance.
"""

from __future__ import annotations

import json
import os
import pkgutil
import signal
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import count, islice
from pathlib import Path
from types import FrameType
from typing import Any

import runnable_ci
from runnable_ci.cli.app import app
from runnable_ci.cli.errors import run as command_line

CHANGES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PACKAGE = str(Path(runnable_ci.__file__).parent)
CALLERS = 3
"""How many of our own frames tell two places apart: the same helper is another place in another caller."""


def touches_store(event: str, arguments: Sequence[Any]) -> bool:
    """Whether something of Python's own changes what is in a store."""
    if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
        return False
    return any(".runnable" in os.fsdecode(word) for word in arguments if isinstance(word, str | bytes | os.PathLike))


EACH, _, SEED = os.environ.get("KILL_PLACES", "1").partition(":")


def is_chosen(place: str) -> bool:
    """Whether a place is in the sample."""
    return zlib.crc32(f"{SEED} {place}".encode()) % int(EACH) == 0


def frames(frame: FrameType | None) -> Iterator[str]:
    """Where our own code is, the innermost first."""
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            yield f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back


def exit_code(words: Sequence[str], killed: Callable[[], None] = lambda: None) -> int:
    """How the command ends in a process of its own, which `killed` prepares."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    killed()
    os.dup2(2, 1)
    sys.argv = ["runnable-ci", *words]
    return command_line(app)


def kill_elsewhere(known: set[str], told: int) -> None:
    """Have this process killed at the first place that is not known; that one is told."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not touches_store(event, arguments):
            return
        place = " ".join([event, *islice(frames(sys._getframe(1)), CALLERS)])
        if place not in known and is_chosen(place):
            os.write(told, place.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def killed_everywhere(words: Sequence[str], known: set[str]) -> None:
    """A line for each place, and one for the end."""
    store = Path(".runnable")
    for number in count():
        reading, telling = os.pipe()
        command = [word.replace("{}", str(number)) for word in words]
        code = exit_code(command, partial(kill_elsewhere, known, telling))
        os.close(telling)
        place = os.read(reading, 1 << 16).decode()
        os.close(reading)
        names = sorted(path.relative_to(store).as_posix() for path in store.rglob("*"))
        told = {"code": code, "place": place.replace(PACKAGE, ""), "names": names, "runs": exit_code(["runs"])}
        print(json.dumps(told), flush=True)
        if not place:
            return
        known.add(place)


def main(folder: Path, words: Sequence[str]) -> None:
    """One command after the other."""
    for module in pkgutil.walk_packages(runnable_ci.__path__, "runnable_ci."):
        if not module.name.endswith(("__main__", "worker.step")):
            import_module(module.name)
    os.chdir(folder)
    known: set[str] = set()
    left = list(words)
    while left:
        end = left.index("--") if "--" in left else len(left)
        killed_everywhere(left[:end], known)
        left = left[end + 1 :]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
