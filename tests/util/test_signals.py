"""The second signal ends the program, whatever it is waiting for: real processes at awkward moments."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, is_alive, workspace
from support import python, wait_until

from runnable_ci.util.signals import LAST_S

SOON_S = 20.0
"""Far less than anything here would take by itself, far more than a busy machine needs."""
PAIRS = [
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGINT, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGTERM),
    (signal.SIGTERM, signal.SIGHUP),
]
STUBBORN = """
[steps.stubborn]
run = '''
trap "" INT TERM HUP
echo $$ > pid.part; mv pid.part pid
while :; do sleep 0.05; done
'''
"""


@contextmanager
def started(project: Workspace, *arguments: str, out: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """The program, which does not outlive the test."""
    process = subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=project.folder,
        env=project.environ,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ends_by(process: subprocess.Popen[bytes], first: signal.Signals, second: signal.Signals) -> int:
    """The exit code after two signals, the second of which comes when the first is known not to have ended it."""
    process.send_signal(first)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.0)  # a busy machine takes a while to let it handle the first: two of a kind become one
    process.send_signal(second)
    return process.wait(SOON_S)


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_second_signal_kills_what_ignores_the_first(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    """There is still time to record the run as cancelled, and to seal it."""
    project = workspace(tmp_path, {"runnable.toml": STUBBORN})
    with started(project, "run", "--run-id", "s") as process:
        wait_until(lambda: project.read("pid"), "the step")
        assert ends_by(process, first, second) == 128 + second
    assert not is_alive(project.read("pid"))
    log = project.log("s")
    assert log.steps["stubborn"].message == "cancelled"
    assert log.message.startswith("cancelled by ")


@pytest.mark.parametrize(
    ("jobs", "first", "second"),
    [("1", signal.SIGINT, signal.SIGINT), ("2", signal.SIGINT, signal.SIGTERM), ("2", signal.SIGTERM, signal.SIGTERM)],
)
def test_a_second_signal_ends_a_program_whose_output_nobody_takes(
    tmp_path: Path, jobs: str, first: signal.Signals, second: signal.Signals
) -> None:
    """A thread hangs in a write and has the printer's lock: neither the run nor its clean-up can come to an end."""
    project = workspace(
        tmp_path,
        {
            "runnable.toml": '[steps.loud]\nrun = "echo $$ > pid; exec yes"\n'
            '[steps.other]\nneeds = []\nrun = "sleep 60"\n'
        },
    )
    reader, writer = os.pipe()
    try:
        with started(project, "run", "--run-id", "s", "-j", jobs, out=writer) as process:
            wait_until(lambda: is_stuck(project.read("pid")), "the step's output to be stuck")
            assert ends_by(process, first, second) == 128 + second
        wait_until(lambda: not is_alive(project.read("pid")), "the step's end")
    finally:
        os.close(reader)
        os.close(writer)
    assert project.log("s").steps["loud"].message.startswith("interrupted")


def is_stuck(pid: str) -> bool:
    """Whether a process waits in a write to a pipe that is full."""
    return bool(pid) and "pipe" in Path(f"/proc/{pid.strip()}/wchan").read_text()


@pytest.mark.parametrize(("first", "second"), PAIRS[:2])
def test_a_second_signal_ends_a_program_that_waits_for_a_lock(
    tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    """Another process holds the store while the run is to be sealed; what was done is on record all the same."""
    project = workspace(
        tmp_path, {"runnable.toml": '[steps.a]\nrun = "echo > up; until [ -e go ]; do sleep 0.01; done"\n'}
    )
    with started(project, "run", "--run-id", "s") as process:
        wait_until(lambda: project.read("up"), "the step")
        with (project.store / "index.lock").open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            (project.folder / "go").touch()
            journal = project.store / "runs" / "s" / "journal.jsonl"
            wait_until(lambda: b'"ended"' in journal.read_bytes(), "the end of the run")
            assert ends_by(process, first, second) == 128 + second
    assert project.runnable("show", "s").out.count("SUCCESS")


def test_a_second_signal_ends_a_program_that_waits_for_git(tmp_path: Path) -> None:
    """A program that we started ourselves, and that does not come back, is not waited for either."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n'})
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(
        f"""#!/bin/sh
case " $* " in *" status "*) ;; *) exec {shutil.which("git")} "$@";; esac
trap "" INT; echo $$ > pid.part; mv pid.part "$HOME/pid"; exec sleep 60
"""
    )
    (programs / "git").chmod(0o755)
    project.environ["PATH"] = f"{programs}{os.pathsep}{project.environ['PATH']}"
    with started(project, "run", out=subprocess.DEVNULL) as process:
        pid = int(wait_until(lambda: project.read("../home/pid"), "git to hang"))
        try:
            assert ends_by(process, signal.SIGTERM, signal.SIGTERM) == 128 + signal.SIGTERM
        finally:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def silent() -> Iterator[str]:
    """A registry that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}/owner/repo"


@pytest.mark.parametrize("words", [("pull",), ("runs", "--from"), ("publish", "s", "--to"), ("run", "--to")])
def test_ctrl_c_ends_what_waits_for_a_registry(tmp_path: Path, silent: str, words: tuple[str, ...]) -> None:
    """One is enough, and nobody waits for the threads that hang in a read."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n'})
    project.runnable("run", "--run-id", "s")
    arguments = ["pull", f"{silent}:r"] if words == ("pull",) else [*words, silent]
    with started(project, *arguments) as process:
        wait_until(lambda: connections(process.pid), "a connection")
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 130


def connections(pid: int) -> bool:
    """Whether a process has a socket."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if "socket:" in str(descriptor.readlink()):
                return True
    return False


TWICE = """
import os, signal, sys, threading
from runnable_ci.util.signals import cancelling, end_at_second_interrupt

def wait():
    lock = threading.Lock()
    lock.acquire()
    with lock:
        pass

end_at_second_interrupt()
{body}
"""


@pytest.mark.parametrize(
    "body",
    [
        "try:\n    print('up', flush=True); wait()\nexcept KeyboardInterrupt:\n    print('again', flush=True); wait()",
        "try:\n    print('up', flush=True); wait()\nfinally:\n    print('again', flush=True); wait()",
        "with cancelling(lambda _: print('again', flush=True)):\n    print('up', flush=True); wait()",
    ],
)
def test_the_second_interruption_ends_a_program_in_its_clean_up(body: str) -> None:
    """It waits for a lock that nobody gives back."""
    process = subprocess.Popen(
        [sys.executable, "-c", TWICE.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"again\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(SOON_S) == 130
    finally:
        process.kill()
        process.communicate()


def test_the_third_signal_does_not_wait() -> None:
    """Of the time that the second one leaves, nothing is left."""
    done = python(
        "import os, signal, time\n"
        "from runnable_ci.util import signals\n"
        "signals.LAST_S = 600.0\n"
        "with signals.cancelling(lambda number: print(number.name, flush=True)):\n"
        "    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):\n"
        "        os.kill(os.getpid(), number)\n"
        "    time.sleep(600)\n"
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGHUP, "SIGTERM\nSIGINT\n")


def test_the_last_seconds_also_end_what_comes_after_the_block() -> None:
    """A program that was told twice does not begin to publish for minutes."""
    began = time.monotonic()
    done = python(
        "import os, signal, time\n"
        "from runnable_ci.util.signals import cancelling\n"
        "with cancelling(lambda number: None):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(600)\n"
    )
    assert done.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began >= LAST_S


def test_what_was_decided_about_ctrl_c_stays() -> None:
    """A background job of a shell ignores Ctrl-C: so do we."""
    done = python(
        "import signal\n"
        "from runnable_ci.util.signals import end_at_second_interrupt\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "end_at_second_interrupt()\n"
        "print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)\n"
    )
    assert done.stdout == "True\n"
