"""What a program leaves running: found wherever it went, and ended with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import wait_until

from runnable_ci.util import leftovers
from runnable_ci.util.leftovers import VARIABLE, Leftover, ProcessTable, Row, belonging
from runnable_ci.util.process import Exit, Supervisor, start_time

MARK = os.urandom(8).hex()
"""Other processes run these tests beside this one."""
GRACE_S = 0.4


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """A supervisor that is closed after the test."""
    supervisor = Supervisor(grace_s=GRACE_S)
    yield supervisor
    supervisor.close()


def run(
    supervisor: Supervisor, script: str, folder: Path, *, mark: str = MARK, timeout_s: float | None = None
) -> tuple[Exit, list[int]]:
    """How a script ended, and the processes whose ids it wrote to `pids`."""
    environ = {"PATH": os.environ["PATH"], VARIABLE: f"outer,{mark}"}
    ended = supervisor.run(
        ["bash", "-c", script], cwd=folder, env=environ, output=lambda *_: None, mark=mark, timeout_s=timeout_s
    )
    return ended, [int(word) for word in (folder / "pids").read_text().split()]


QUIET = ">/dev/null 2>&1 &"
DAEMON = f"""
{sys.executable} -c '
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("pids", "w").write(str(os.getpid()))
        os.closerange(0, 100)
        time.sleep(60)
    os._exit(0)
'; until [ -s pids ]; do sleep 0.01; done
"""


UNKNOWN = f"env -i setsid sleep 60 {QUIET} echo $! > pids"
TWICE = "env -i setsid sh -c 'setsid sleep 60 >/dev/null 2>&1 & echo $! > pids'"


@pytest.mark.promise
@pytest.mark.parametrize(
    "script",
    [
        f"sleep 60 {QUIET} echo $! > pids",
        "sleep 60 & echo $! > pids",
        f"nohup sleep 60 {QUIET} echo $! > pids",
        f"set -m; sleep 60 {QUIET} echo $! > pids",
        f"setsid sleep 60 {QUIET} echo $! > pids; sleep 0.1",
        f"env -i sleep 60 {QUIET} echo $! > pids",
        f"(trap '' TERM HUP; while :; do sleep 0.05; done) {QUIET} echo $! > pids",
        f"sleep 60 {QUIET} echo $! > pids; kill -STOP $!",
        DAEMON,
        UNKNOWN,
        TWICE,
    ],
    ids=[
        *("background", "holds the pipes", "nohup", "own group", "setsid", "env -i", "stubborn", "stopped", "daemon"),
        *("neither session nor mark", "twice"),
    ],
)
def test_what_is_left_is_ended(supervisor: Supervisor, tmp_path: Path, script: str) -> None:
    """By whatever way it left its parent; the exit code is the program's own."""
    ended, pids = run(supervisor, f"{script}\nexit 7", tmp_path)
    assert ended.code == 7
    assert {process.pid for process in ended.ended} >= set(pids)
    assert not any(map(start_time, pids))


def test_what_ends_by_itself_is_no_leftover(supervisor: Supervisor, tmp_path: Path) -> None:
    """A helper that sees its program end may tidy up."""
    script = f"(sleep 0.05; echo tidy > tidied) {QUIET} echo $! > pids"
    assert run(supervisor, script, tmp_path)[0] == Exit(0)
    assert (tmp_path / "tidied").read_text() == "tidy\n"


def test_sigterm_comes_first(supervisor: Supervisor, tmp_path: Path) -> None:
    """What is left may clean up."""
    script = f"""
    (trap 'echo cleaned > cleaned; exit' TERM; touch ready; while :; do sleep 0.01; done) {QUIET} echo $! > pids
    until [ -e ready ]; do sleep 0.01; done
    """
    ended, pids = run(supervisor, script, tmp_path)
    assert pids[0] in [process.pid for process in ended.ended]
    assert (tmp_path / "cleaned").exists()


@pytest.mark.promise
def test_after_a_time_out_too(supervisor: Supervisor, tmp_path: Path) -> None:
    """What has left the group is ended with a program whose time is out."""
    ended, pids = run(supervisor, f"setsid sleep 60 {QUIET} echo $! > pids; sleep 60", tmp_path, timeout_s=0.3)
    assert ended.timed_out
    assert not any(map(start_time, pids))


def test_others_stay(tmp_path: Path) -> None:
    """A process with another mark, and one that began before, are not the program's."""
    environ = {"PATH": os.environ["PATH"], VARIABLE: MARK}
    before = os.posix_spawn("/bin/sleep", ["sleep", "60"], environ, setsid=True)
    table = ProcessTable()
    other = os.posix_spawn("/bin/sleep", ["sleep", "60"], {**environ, VARIABLE: MARK[:-1]}, setsid=True)
    try:
        assert table.left(2**22, MARK) == []
        assert [process.pid for process in table.left(2**22, MARK[:-1])] == [other]
        assert other in [process.pid for process in table.left(2**22, "", is_alone=lambda: True)]
        assert table.left(2**22, MARK[:-1], leaders={other}) == []
        table.spare(other)
        assert table.left(2**22, MARK[:-1]) == []
    finally:
        for pid in (before, other):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_one_that_just_became_another_program_is_found() -> None:
    """The system tells of its start a moment before its environment can be read."""
    environ = {"PATH": os.environ["PATH"], VARIABLE: MARK}
    for _ in range(100):
        table = ProcessTable()
        pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], environ, setsid=True)
        try:
            assert [process.pid for process in table.left(2**22, MARK)] == [pid]
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_what_nothing_but_its_parent_tells_waits_for_all_that_may_have_started_it(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    """While another program runs it may be of that one; it ends with the last."""
    (tmp_path / "other").mkdir()
    other = "until [ -e go ]; do sleep 0.01; done; touch pids"
    with ThreadPoolExecutor() as threads:
        later = threads.submit(run, supervisor, f"touch began; {other}", tmp_path / "other", mark=MARK[::-1])
        wait_until((tmp_path / "other/began").exists, "the other one")
        ended, (pid,) = run(supervisor, UNKNOWN, tmp_path)
        is_alive = bool(start_time(pid))
        (tmp_path / "other/go").touch()
        assert (ended, is_alive) == (Exit(0), True)
        assert [process.pid for process in later.result()[0].ended] == [pid]
    assert not start_time(pid)


def test_what_may_be_of_a_program_that_may_leave_something_stays(supervisor: Supervisor, tmp_path: Path) -> None:
    """Once there was one, nothing is ended that only its parent tells of."""
    supervisor.run(["true"], cwd=tmp_path, env=os.environ, output=lambda *_: None)
    ended, (pid,) = run(supervisor, UNKNOWN, tmp_path)
    assert (ended, bool(start_time(pid))) == (Exit(0), True)
    os.kill(pid, signal.SIGKILL)


def test_adopted_processes_that_ended_are_let_go(supervisor: Supervisor, tmp_path: Path) -> None:
    """They leave no entry in the table of processes, and nobody else's exit code is taken."""
    with subprocess.Popen(["sh", "-c", "exit 3"]) as mine:
        wait_until(lambda: not start_time(mine.pid), "its end")
        script = f"for i in 1 2 3 4 5; do env -i setsid true & done; sleep 60 {QUIET} echo $! > pids"
        assert run(supervisor, script, tmp_path)[0].code == 0
        assert zombies() == {mine.pid}
        assert mine.wait() == 3


def zombies() -> set[int]:
    """The children of this process that have ended."""
    children = map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return {pid for pid in children if not start_time(pid)}


def test_nothing_is_ended_without_a_mark(supervisor: Supervisor, tmp_path: Path) -> None:
    """A program that may leave something has none."""
    script = f"sleep 60 {QUIET} echo $!"
    said: list[bytes] = []
    ended = supervisor.run(
        ["bash", "-c", script], cwd=tmp_path, env=os.environ, output=lambda _, chunk: said.append(chunk)
    )
    pid = int(b"".join(said))
    assert ended == Exit(0)
    assert start_time(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_system_without_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """There the process group is what is ended; a name is not known."""
    monkeypatch.setattr(sys, "platform", "darwin")
    group = os.posix_spawn("/bin/sleep", ["sleep", "60"], {}, setsid=True)
    table = ProcessTable()
    assert table.left(group, MARK) == [Leftover(-group, "a process")]
    ended = table.end(group, MARK, grace_s=GRACE_S, is_urgent=lambda: True)
    assert next(ended) == Leftover(-group, "a process")
    assert os.waitpid(group, 0)[1] == signal.SIGKILL
    assert list(ended) == []


def test_a_mark_is_found_by_ps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As macOS lists processes, what has left its group is found by its mark, and named."""
    monkeypatch.setattr(sys, "platform", "darwin")
    ps = ["ps", "axeww", "-o", "pid=,ppid=,pgid=,stat=,args="]  # procps' way to show an environment
    table = ProcessTable(lambda: subprocess.run(ps, capture_output=True, check=True).stdout)
    environ = {VARIABLE: f"outer,{MARK}", "LAST": "a b"}
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], environ, setsid=True)
    wait_until(lambda: table.left(2**22, MARK), "the process")
    assert table.left(2**22, MARK) == [Leftover(pid, "sleep")]
    assert table.left(2**22, MARK[:-1]) == []
    assert list(table.end(2**22, MARK, grace_s=GRACE_S, is_urgent=lambda: True)) == [Leftover(pid, "sleep")]
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


def test_what_belongs_to_programs() -> None:
    """Their sessions, all that descends from them, and what has a mark; nothing of our own session."""
    rows = [
        Row(10, 1, 10, "leader", frozenset()),
        Row(11, 10, 11, "child elsewhere", frozenset()),
        Row(12, 11, 12, "grandchild", frozenset()),
        Row(13, 1, 10, "in the session", frozenset()),
        Row(14, 1, 14, "marked", frozenset({"m", "n"})),
        Row(15, 14, 5, "our own", frozenset({"m"})),
        Row(16, 1, 16, "a stranger", frozenset({"o"})),
    ]
    assert [row.pid for row in belonging(rows, {10}, {"m"}, 5)] == [10, 11, 12, 13, 14]
    assert belonging(rows, (), (), 5) == []


def test_a_look_at_nothing_reads_no_other_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A step that leaves nothing pays for one list of the machine's processes."""
    table = ProcessTable()
    looked: list[int] = []
    monkeypatch.setattr(leftovers, "_leftover", lambda pid, *_: looked.append(pid))
    monkeypatch.setattr(leftovers, "_pids", lambda: table._older)
    assert table.left(2**22, MARK) == []
    assert looked == []


def test_the_end_is_waited_for(tmp_path: Path) -> None:
    """What was found is gone when the last one is said."""
    table = ProcessTable()
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {VARIABLE: f"{MARK},inner"}, setsid=True)
    began = time.monotonic()
    wait_until(lambda: table.left(0, MARK), "the process")
    assert list(table.end(0, MARK, grace_s=GRACE_S, is_urgent=lambda: False)) == [Leftover(pid, "sleep")]
    assert time.monotonic() - began >= leftovers.SETTLE_S
    assert os.waitpid(pid, 0)[1] == signal.SIGTERM
