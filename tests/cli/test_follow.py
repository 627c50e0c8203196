"""Tests of `logs -f` and `show --watch`: a run in another process, from its begin until nobody writes it any more."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli import Workspace, on_terminal, screen, workspace
from support import WAIT_S, wait_until

from runnable_ci.cli.show.follow import _index_from
from runnable_ci.cli.show.watching import steps_now
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog

GATE = "until test -e gate; do sleep 0.05; done"
STEPS = f"""
[steps.a]
run = "echo one; printf half; {GATE}; echo ' whole'; echo bad >&2; echo two"
needs = []
[steps.b]
run = "echo beside; {GATE}; echo beside too"
needs = []
[steps.last]
run = "echo end"
needs = ["a", "b"]
"""


@contextmanager
def running(tmp_path: Path, steps: str = STEPS) -> Iterator[tuple[Workspace, Callable[[], int]]]:
    """A run `r` whose steps wait for a file `gate`; what makes it and returns how the run ended."""
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": ".runnable\ngate\nbegun\n"})
    with project.start("run", "--run-id", "r", "--quiet") as run:

        def release() -> int:
            (project.folder / "gate").touch()
            run.communicate(timeout=WAIT_S)
            return run.returncode

        try:
            wait_until((project.store / "runs/r/logs/a.1.log").exists, "the first output")
            yield project, release
        finally:
            run.kill()


def read_until(followed: subprocess.Popen[bytes], text: bytes) -> bytes:
    """What was printed until all of this was there."""
    assert followed.stdout
    written = b""
    while not all(line in written for line in text.split(b"|")):
        data = os.read(followed.stdout.fileno(), 4096)
        assert data, written
        written += data
    return written


def rest_of(followed: subprocess.Popen[bytes]) -> bytes:
    """What was printed from here on, to its end, which is without an error."""
    out, err = followed.communicate(timeout=WAIT_S)
    assert (followed.returncode, err) == (0, b"")
    return out


def test_all_steps(tmp_path: Path) -> None:
    """Lines are printed while the run lasts, each with its step; in the end it is what `logs` prints, and no more."""
    with running(tmp_path) as (project, release), project.start("logs", "-f", "r") as followed:
        written = read_until(followed, b"a | one\n|b | beside\n")
        assert b"whole" not in written
        assert release() == 0
        lines = (written + rest_of(followed)).decode().splitlines()
        assert lines[-1] == "last | end"
        assert sorted(re.sub(" +", " ", line) for line in lines) == sorted(
            re.sub(" +", " ", line) for line in project.runnable("logs", "r").out.splitlines()
        )
        assert project.runnable("logs", "--follow", "r").out == project.runnable("logs", "r").out


@pytest.mark.parametrize(
    ("words", "first", "whole"),
    [
        ([], b"one\nhalf", b"one\nhalf whole\nbad\ntwo\n"),
        (["--stdout"], b"one\nhalf", b"one\nhalf whole\ntwo\n"),
        (["--stderr"], b"", b"bad\n"),
    ],
)
def test_one_step(tmp_path: Path, words: list[str], first: bytes, whole: bytes) -> None:
    """Bytes come as they were written, also of a line that has no end yet."""
    with running(tmp_path) as (project, release), project.start("logs", "-f", "r", "a", *words) as followed:
        written = read_until(followed, first) if first else b""
        assert written == first
        assert release() == 0
        printed = written + rest_of(followed)
        assert printed == project.runnable("logs", "r", "a", *words).raw  # two streams come in some order
        assert sorted(printed.splitlines()) == sorted(whole.splitlines())


def test_a_run_that_is_killed(tmp_path: Path) -> None:
    """It ends with the process that wrote the run, and has all that was written."""
    steps = f"[steps.a]\nrun = 'echo one; touch begun; {GATE}; echo two'\n"
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": ".runnable\ngate\nbegun\n"})
    with project.start("run", "--run-id", "r") as run:
        wait_until((project.folder / "begun").exists, "the step")
        with (
            project.start("logs", "-f", "r", "a") as followed,
            project.start("show", "--watch", "r") as watched,
        ):
            assert read_until(followed, b"one\n") == b"one\n"
            run.send_signal(signal.SIGKILL)
            assert rest_of(followed) == b""
            assert b"FAIL" in rest_of(watched)
        (project.folder / "gate").touch()
        project.runnable("retry", "r")  # which ends what the killed run left running


def test_what_becomes_a_secret_later(tmp_path: Path) -> None:
    """The output is written again without it: what was printed is not repeated, and nothing after it is left out."""
    script = f"echo value s3cr3t-value; {GATE}; echo '::add-mask::s3cr3t-value'; echo one; echo two"
    steps = f'[steps.a]\nrun = "{script}"\n'
    with running(tmp_path, steps) as (project, release), project.start("logs", "-f", "r", "a") as followed:
        written = read_until(followed, b"value")
        assert release() == 0
        written += rest_of(followed)
        assert project.runnable("logs", "r", "a").out == "value ***\none\ntwo\n"
        assert written.splitlines()[1:] == [b"one", b"two"]


def test_each_try_is_shown(tmp_path: Path) -> None:
    """A step that is tried again: what both attempts wrote, in their order."""
    script = f"echo try; {GATE}; test -e begun || {{ touch begun; exit 1; }}"
    steps = f"[steps.a]\nrun = '{script}'\nattempts = 2\n"
    with running(tmp_path, steps) as (project, release), project.start("logs", "-f", "r", "a") as followed:
        written = read_until(followed, b"try\n")
        assert release() == 0
        assert written + rest_of(followed) == b"try\ntry\n"
        assert project.runnable("logs", "-f", "r", "a").out == "try\n"


def test_a_step_that_has_not_begun(tmp_path: Path) -> None:
    """It is waited for; one that the run does not have is an error once that is known."""
    with (
        running(tmp_path) as (project, release),
        project.start("logs", "-f", "r", "last") as last,
        project.start("logs", "-f", "r", "lost") as lost,
    ):
        assert last.stderr
        assert last.stderr.readline() == b"step `last` has not begun\n"
        assert release() == 0
        assert rest_of(last) == b"end\n"
        _, err = lost.communicate(timeout=WAIT_S)
        assert lost.returncode == 2
        assert b"run r has no step `lost`\nhint: did you mean `last`?" in err


def test_watch_on_a_terminal(tmp_path: Path) -> None:
    """The steps are shown as they stand, in place; in the end there is the run as `show` prints it, alone."""
    with running(tmp_path) as (project, release), on_terminal(project, "show", "--watch", "r") as shown:
        shown.read_until(r"run r: 0 done, 2 running, \d+ s\r\nSTEP")
        shown.read_until(r"b +RUNNING +1 +\d+ s")
        assert release() == 0
        lines = screen(shown.rest())
        assert shown.process.wait() == 0
        assert [line.rstrip() for line in lines] == [*project.runnable("show", "r").out.split("\n")]


def test_watch_in_a_pipe(tmp_path: Path) -> None:
    """It waits for the end, and prints the run once."""
    with running(tmp_path) as (project, release), project.start("show", "--watch", "r") as watched:
        assert release() == 0
        assert rest_of(watched).decode() == project.runnable("show", "r").out


def test_more_steps_than_lines() -> None:
    """Those that run are shown before all others, and then the last ones; how many are left out is said."""
    begun = "2026-11-27T09:00:00+00:00"
    steps = {}
    for number in range(100):
        attempt = StepAttempt(start_time=begun)
        if number != 3:
            attempt = attempt.model_copy(update={"end_time": begun, "status": "SUCCESS"})
        status = "PROCESSING" if number == 3 else "SUCCESS"
        steps[f"s{number}"] = StepLog(name=f"s{number}", internal_name=f"s{number}", status=status, attempts=[attempt])
    shown = steps_now(RunLog(run_id="r", steps=steps, start_time=begun), "2026-11-27T09:12:10+00:00", lines=9)
    assert [line.split()[0] for line in shown] == ["run", "STEP", "s3", "s95", "s96", "s97", "s98", "s99", "…"]
    assert shown[0] == "run r: 99 done, 1 running, 12 min"
    assert shown[2].split()[1:4] == ["RUNNING", "1", "12"]


@pytest.mark.parametrize(("offset", "left"), [(0, "o 3\ne 2\no "), (2, "o 1\ne 2\no "), (3, "e 2\no "), (9, "o ")])
def test_the_index_of_what_comes_later(offset: int, left: str) -> None:
    """Which stream wrote what, from some byte on."""
    assert _index_from(b"o 3\ne 2\no ", offset) == left.encode()
