"""Tests of a system that refuses: at each place where the program calls it, once; a retry must find nothing lost."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fault_points import Doors, Fault
from preloaded import runnable
from random_pipelines import contents

from runnable_ci import open_run
from runnable_ci.errors import RunNotFoundError

LONG = os.environ.get("FAULTS") == "all"
"""Every call, and every error number, in place of the first call at each place and one or the other of two."""
NUMBERS = (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.EACCES, errno.EROFS) if LONG else (errno.EIO, errno.ENOSPC)
PARTS = 40 if LONG else 2
SAMPLE = None if LONG else int(os.environ.get("FAULTS", "40"))
"""So many of a part's calls, by chance; all of them by `--long`."""
SEED = int(os.environ.get("FAULTS_SEED", time.time_ns() % 1_000_000))
ONLY_LOOKING = ("stat", "lstat", "fstat", "statvfs", "access", "readlink")
READING = ("read", "file.read", "file.readline", "file.readinto", "scandir", "listdir")
"""What no full disk keeps from working."""
FILE = '''
name = "faults"
[steps.make]
run = """
mkdir many
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do echo $i > many/$i.txt; done
echo more >> notes.txt
echo n=5 >> "$RUNNABLE_OUTPUT"
echo out
echo error >&2
"""
returns = ["n"]
catalog = { put = ["many/*.txt", "notes.txt"] }
[steps.report]
run = "test -e gate; cat many/1.txt notes.txt > report.txt; echo reported"
catalog = { get = ["many/1.txt"], put = ["report.txt"] }
'''
TRAIN = """
[steps.train]
python = "work:train"
returns = { model = "object" }
"""
GATE = "gate"
"""`report` fails where this file is not there."""


@dataclass(frozen=True)
class Scene:
    """A command in a folder, and where it calls the system → how often."""

    folder: Path
    words: tuple[str, ...]
    places: Mapping[str, int]

    def faults(self, others: Collection[str]) -> Iterator[Fault]:
        """The calls that are to fail; places that another scene has are left to that."""
        seen = set(map(_line, others))
        for place, count in sorted(self.places.items()):
            line = _line(place)
            if LONG:
                yield from (Fault(place, nth, number) for nth in range(1, count + 1) for number in NUMBERS)
            elif line not in seen and line[1] not in ONLY_LOOKING:
                seen.add(line)
                yield Fault(place, 1, NUMBERS[0 if line[1] in READING else len(seen) % len(NUMBERS)])


def _line(place: str) -> tuple[str, str]:
    """Return the line of the program that calls, and what it calls."""
    return place.partition(" < ")[0], place.rpartition(": ")[2]


@dataclass(frozen=True)
class Made:
    """Projects in which a command is about to be given, and what comes of all of them."""

    top: Path
    environ: Mapping[str, str]
    scenes: Mapping[str, Scene]
    files: Mapping[str, bytes]
    outcome: Mapping[str, Any]

    def give(self, folder: Path, *words: str, **hooks: Callable[[], None]) -> tuple[int, str]:
        """Give a command in a folder: its exit code, and what it says."""
        return runnable(folder, *words, environ=self.environ, **hooks)

    def problem(self, scene: Scene, fault: Fault, folder: Path) -> str:
        """What the command with a fault, and a retry after it, do not do as they should; empty where they do."""
        shutil.copytree(scene.folder, folder, symlinks=True)
        before = attempts(folder)
        code, said = self.give(folder, *scene.words, prepare=Doors(fault).install)
        if code not in (0, 1, 2) or "Traceback" in said:
            return f"exit code {code}: {said}"
        if code and "error: " not in said and "FAIL" not in said:
            return f"not a word: {said}"
        known = attempts(folder)
        if code or visible(folder) != self.files:
            again = ("retry", "r", "-j", "1") if known is not None else scene.words
            code, more = self.give(folder, *again)
            said = f"{said}\n{again}:\n{more}"
            if code:
                return f"exit code {code}: {said}"
        if there := different(visible(folder), self.files):
            return f"files differ: {there}: {said}"
        if (came := outcome(folder)) != self.outcome:
            return f"{came}: {said}"
        now = attempts(folder)
        lost = [tried for tried in (before, known) if not is_continued(tried or {}, now or {})]
        return f"lost attempts: {lost}, then {now}: {said}" if lost else ""


def outcome(folder: Path) -> dict[str, Any]:
    """What a run came to: its status, and of each step its status and values."""
    log = open_run("r", folder).log
    values = {
        name: {n: p["value"] for n, p in step["attempts"][-1]["output_parameters"].items()}
        for name, step in log["steps"].items()
    }
    return {"status": log["status"], "steps": {n: step["status"] for n, step in log["steps"].items()}, "values": values}


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a project that people see."""
    return {name: content for name, content in contents(folder).items() if "__pycache__" not in name}


def different(some: Mapping[str, bytes], others: Mapping[str, bytes]) -> list[str]:
    """The names of files that are not the same in two folders."""
    return [name for name in {**some, **others} if some.get(name) != others.get(name)]


def attempts(folder: Path) -> dict[str, list[str]] | None:
    """The attempts at each step, with how they ended; None where no run was recorded."""
    try:
        log = open_run("r", folder).log
    except RunNotFoundError:
        return None
    return {name: [attempt["status"] for attempt in step["attempts"]] for name, step in log["steps"].items()}


def is_continued(tried: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> bool:
    """Whether all attempts are still there."""
    return all(now[name][: len(statuses)] == statuses for name, statuses in tried.items())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A project before its run, one before its retry, and one before its garbage is collected."""
    top = tmp_path_factory.mktemp("faults")
    home, new, failed, done = (top / name for name in ("home", "new", "failed", "done"))
    home.mkdir()
    new.mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {"HOME": str(home), "PATH": path, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": str(top)}
    (new / "runnable.toml").write_text(FILE + TRAIN * LONG)
    (new / "work.py").write_text("def train(n):\n    print('trained', n)\n    return {1, n}\n")
    (new / "notes.txt").write_text("mine\n")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "work"]):
        subprocess.run(["git", *command], cwd=new, env=environ, check=True)
    shutil.copytree(new, failed)
    run, retry = ("run", "--run-id", "r", "-j", "1"), ("retry", "r", "-j", "1")
    assert runnable(failed, *run, environ=environ)[0] == 1  # and the caches in HOME are filled
    for folder in (new, failed):
        (folder / GATE).touch()
    shutil.copytree(failed, done, symlinks=True)
    assert runnable(done, *retry, environ=environ)[0] == 0
    scenes: dict[str, Scene] = {}
    for name, folder, words in (("run", new, run), ("retry", failed, retry), ("gc", done, ("gc", "--keep", "1"))):
        lived, doors, found = top / f"{name}-lived", Doors(), top / f"{name}-places"
        shutil.copytree(folder, lived, symlinks=True)

        def note(found: Path = found, doors: Doors = doors) -> None:
            found.write_text(json.dumps(doors.places))

        code, said = runnable(lived, *words, environ=environ, prepare=doors.install, finish=note)
        assert code == 0, said
        scenes[name] = Scene(folder, words, json.loads(found.read_text()))
    return Made(top, environ, scenes, visible(lived), outcome(lived))


@pytest.mark.promise
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", ["run", "retry", "gc"])
def test_one_refusal_of_the_system_costs_a_retry_at_most(made: Made, name: str, part: int, tmp_path: Path) -> None:
    """No traceback, no hang, a word and an exit code; afterwards a retry leaves files, values and attempts complete."""
    scene = made.scenes[name]
    earlier = list(made.scenes)[: list(made.scenes).index(name)]
    others = () if LONG else {place for scene in earlier for place in made.scenes[scene].places}
    problems = []
    faults = list(islice(scene.faults(others), part, None, PARTS))
    print(f"FAULTS_SEED={SEED}: {SAMPLE or len(faults)} of {len(faults)} calls")
    if SAMPLE is not None and len(faults) > SAMPLE:
        faults = random.Random(SEED + part).sample(faults, SAMPLE)  # noqa: S311 - which are tried today
    for number, fault in enumerate(faults):
        if problem := made.problem(scene, fault, tmp_path / str(number)):
            problems.append(f"{fault.place}, call {fault.nth}, {errno.errorcode[fault.number]}: {problem}")
        shutil.rmtree(tmp_path / str(number))
    assert not problems, f"{len(problems)} faults\n" + "\n\n".join(problems[:5])
