"""Processes: output as it comes, time limits, and an end for everything that a step started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from support import python, wait_until

from runnable_ci.errors import StepError
from runnable_ci.util.leftovers import VARIABLE as LEFTOVER_MARKS
from runnable_ci.util.process import DRAIN_S, Exit, Supervisor, check_output, end_outliving, start_by_ps, start_time
from runnable_ci.util.process_output import Stream

SLACK_S = 5.0
"""What a busy machine may add to a time that is measured."""
GRACE_S = 0.4
STUBBORN = "trap '' TERM INT; while :; do sleep 0.05; done"


class Said:
    """The output of a process, with the moment at which each chunk came."""

    def __init__(self) -> None:
        self.chunks: list[tuple[Stream, bytes, float]] = []

    def __call__(self, stream: Stream, chunk: bytes) -> None:
        self.chunks.append((stream, chunk, time.monotonic()))

    def of(self, stream: Stream) -> bytes:
        """All that came from one stream."""
        return b"".join(chunk for of, chunk, _ in self.chunks if of == stream)

    def number(self) -> int:
        """The number that a process printed on stdout, waited for."""
        wait_until(lambda: self.of("o").endswith(b"\n"), "a number on stdout")
        return int(self.of("o"))


Run = Callable[..., Exit]


@pytest.fixture(params=["descriptor", "polling"])
def way_to_see_the_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to see that a process has ended: macOS has no descriptor for it."""
    if request.param == "polling":
        monkeypatch.delattr(os, "pidfd_open")
    return cast("str", request.param)


@pytest.fixture
def supervisor(way_to_see_the_end: str) -> Iterator[Supervisor]:
    """A supervisor that is closed after the test."""
    supervisor = Supervisor(grace_s=GRACE_S)
    yield supervisor
    supervisor.close()


@pytest.fixture
def said() -> Said:
    """Takes the output."""
    return Said()


@pytest.fixture
def run(supervisor: Supervisor, said: Said, tmp_path: Path) -> Run:
    """Runs a bash script to its end."""

    def run(
        script: str,
        *,
        timeout_s: float | None = None,
        env: Mapping[str, str] = os.environ,
        started: Callable[[int], None] = lambda _: None,
        output: Callable[[Stream, bytes], None] = said,
    ) -> Exit:
        return supervisor.run(
            ["bash", "-c", script], cwd=tmp_path, env=env, output=output, started=started, timeout_s=timeout_s
        )

    return run


class InThread:
    """A run that goes on while the test looks."""

    def __init__(self, run: Run, script: str, **more: object) -> None:
        self._result: list[Exit] = []
        self._thread = threading.Thread(target=lambda: self._result.append(run(script, **more)))
        self._thread.start()

    def exit(self, timeout_s: float = 3 * GRACE_S + SLACK_S) -> Exit:
        """How it ended."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the process did not end"
        return self._result[0]


def is_gone(pid: int) -> bool:
    """Whether a process is dead, be it reaped or not."""
    return not start_time(pid)


def test_output_comes_while_the_process_runs(run: Run, said: Said, tmp_path: Path) -> None:
    """The first chunk is there before the process, which waits for it, ends."""
    running = InThread(run, "echo first; until [ -e go ]; do sleep 0.01; done; echo second >&2")
    wait_until(lambda: said.of("o") == b"first\n", "the first line")
    assert said.of("e") == b""
    (tmp_path / "go").touch()
    assert running.exit() == Exit(0)
    assert said.of("e") == b"second\n"


def test_output_is_binary_and_its_streams_are_told_apart(run: Run, said: Said) -> None:
    """Every byte comes through, from the stream that wrote it, and an unfinished line is not lost."""
    script = r"printf '\0\1\377\r\n'; printf '\200err' >&2; printf 'no newline'"
    assert run(script) == Exit(0)
    assert said.of("o") == b"\0\1\xff\r\nno newline"
    assert said.of("e") == b"\x80err"


@pytest.mark.parametrize("code", [0, 1, 2, 42, 127, 255])
def test_the_exit_code_is_the_process_s(run: Run, code: int) -> None:
    """Each exit code is given as it is."""
    assert run(f"exit {code}") == Exit(code)


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "INT"])
def test_a_process_that_a_signal_ended_has_its_negative_number(run: Run, name: str) -> None:
    """A crash is told from an exit code; it is neither a time-out nor a cancellation."""
    assert run(f"kill -{name} $$; sleep 5") == Exit(-getattr(signal, f"SIG{name}"))


def test_a_process_gets_its_folder_environment_and_no_input(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    """Nothing else is inherited: the environment is what was given, stdin is empty, no descriptor leaks in."""
    code = (
        "import os, sys, json\n"
        "print(json.dumps([os.getcwd(), dict(os.environ), sys.stdin.read(), os.listdir('/proc/self/fd')]))"
    )
    given = {"ONLY": "this", "LC_ALL": "C.UTF-8"}
    supervisor.run([sys.executable, "-I", "-c", code], cwd=tmp_path, env=given, output=said)
    folder, environ, stdin, descriptors = json.loads(said.of("o"))
    assert Path(folder) == tmp_path.resolve()
    assert environ == given
    assert stdin == ""
    assert len(descriptors) == 4  # 0, 1, 2 and the listing's own


def test_started_gets_the_pid_at_once(run: Run, said: Said) -> None:
    """The pid is that of the process, which leads its own group."""
    pids: list[int] = []
    assert run("echo $$; ps -o pgid= -p $$", started=pids.append) == Exit(0)
    assert said.of("o").split() == [str(pids[0]).encode()] * 2


def test_a_time_out_ends_the_whole_group(run: Run, said: Said) -> None:
    """Even a grandchild that ignores SIGTERM is gone, and the result says that it was the time."""
    began = time.monotonic()
    ended = run(f"({STUBBORN}) & echo $!; wait", timeout_s=0.3)
    assert ended.timed_out
    assert not ended.cancelled
    assert ended.code == -signal.SIGTERM
    wait_until(lambda: is_gone(said.number()), "the grandchild's end")
    assert time.monotonic() - began < 0.3 + GRACE_S + DRAIN_S + SLACK_S


def test_a_process_that_ignores_sigterm_is_killed_after_a_grace(run: Run) -> None:
    """The time-out is kept whatever the process does about signals."""
    began = time.monotonic()
    assert run(STUBBORN, timeout_s=0.2) == Exit(-signal.SIGKILL, timed_out=True)
    assert GRACE_S <= time.monotonic() - began < 0.2 + GRACE_S + SLACK_S


def test_a_process_may_clean_up_when_its_time_is_out(run: Run, said: Said) -> None:
    """SIGTERM comes first, and what it prints then is kept."""
    ended = run("trap 'echo cleaned; exit 3' TERM; echo $$; while :; do sleep 0.02; done", timeout_s=0.3)
    assert ended == Exit(3, timed_out=True)
    assert said.of("o").endswith(b"cleaned\n")


def test_a_time_out_that_is_not_reached_changes_nothing(run: Run) -> None:
    """A process that is done in time just ended."""
    assert run("exit 3", timeout_s=60) == Exit(3)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_cancelling_gives_the_signal_to_all_processes(run: Run, supervisor: Supervisor, number: signal.Signals) -> None:
    """Each group gets the signal and may clean up; each result says that it was cancelled."""
    seen = [Said(), Said()]
    script = f"trap 'echo cleaned; exit 5' {number.name}; echo ready; while :; do sleep 0.02; done"
    running = [InThread(run, script, output=said) for said in seen]
    wait_until(lambda: all(said.of("o") for said in seen), "the processes to be ready")
    supervisor.cancel(number)
    assert supervisor.cancelled_by is number
    for process, said in zip(running, seen, strict=True):
        assert process.exit() == Exit(5, cancelled=True)
        assert said.of("o") == b"ready\ncleaned\n"


@pytest.mark.parametrize(
    ("ignored", "by", "ended_by"),
    [
        ("INT", signal.SIGINT, signal.SIGTERM),
        ("INT TERM", signal.SIGINT, signal.SIGKILL),
        ("TERM", signal.SIGTERM, signal.SIGKILL),
    ],
)
def test_cancelling_gets_harder(
    run: Run, supervisor: Supervisor, said: Said, ignored: str, by: signal.Signals, ended_by: signal.Signals
) -> None:
    """What ignores a signal gets the next one after a grace, SIGKILL at last."""
    running = InThread(run, f"trap '' {ignored}; echo ready; while :; do sleep 0.05; done")
    wait_until(lambda: said.of("o"), "the process to be ready")
    began = time.monotonic()
    supervisor.cancel(by)
    assert running.exit() == Exit(-ended_by, cancelled=True)
    assert time.monotonic() - began >= GRACE_S


def test_cancelling_twice_kills_at_once(run: Run, supervisor: Supervisor, said: Said) -> None:
    """A second Ctrl-C does not wait for anybody."""
    running = InThread(run, f"echo ready; {STUBBORN}")
    wait_until(lambda: said.of("o"), "the process to be ready")
    time.sleep(0.05)
    began = time.monotonic()
    supervisor.cancel(signal.SIGINT)
    supervisor.cancel(signal.SIGINT)
    assert running.exit() == Exit(-signal.SIGKILL, cancelled=True)
    assert time.monotonic() - began < GRACE_S


def test_cancelling_leaves_no_grandchild(run: Run, supervisor: Supervisor, said: Said) -> None:
    """When the leader has gone by the first signal, its stubborn child is killed."""
    running = InThread(run, f"({STUBBORN}) & echo $!; wait")
    child = said.number()
    supervisor.cancel(signal.SIGTERM)
    assert running.exit() == Exit(-signal.SIGTERM, cancelled=True)
    wait_until(lambda: is_gone(child), "the grandchild's end")


def test_nothing_starts_after_a_cancellation(run: Run, supervisor: Supervisor, tmp_path: Path) -> None:
    """A step that comes too late is cancelled without having run."""
    supervisor.cancel(signal.SIGTERM)
    assert run("touch ran") == Exit(-signal.SIGTERM, cancelled=True)
    assert not (tmp_path / "ran").exists()


def test_a_process_that_starts_while_all_is_cancelled_ends_too(tmp_path: Path) -> None:
    """Whatever the moment of the cancellation, no process is forgotten."""
    for delay_s in (0, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004):
        supervisor, said = Supervisor(grace_s=SLACK_S), Said()

        def run(script: str, supervisor: Supervisor = supervisor, said: Said = said) -> Exit:
            return supervisor.run(["bash", "-c", script], cwd=tmp_path, env=os.environ, output=said)

        running = InThread(run, "sleep 60")
        time.sleep(delay_s)
        supervisor.cancel(signal.SIGTERM)
        began = time.monotonic()
        assert running.exit() == Exit(-signal.SIGTERM, cancelled=True)
        assert time.monotonic() - began < SLACK_S
        supervisor.close()


def test_a_background_child_does_not_hold_up_the_step(run: Run, said: Said) -> None:
    """A daemon that keeps stdout open is waited for a moment only, and is left running."""
    began = time.monotonic()
    assert run("echo before; (sleep 30) & echo $! >&2; exit 4") == Exit(4)
    assert DRAIN_S * 0.9 <= time.monotonic() - began < DRAIN_S + SLACK_S
    assert said.of("o") == b"before\n"
    child = int(said.of("e"))
    assert not is_gone(child)
    os.kill(child, signal.SIGKILL)


def test_late_output_of_a_pipeline_is_not_lost(run: Run, said: Said) -> None:
    """What a child writes shortly after its parent ended is kept."""
    assert run("(sleep 0.2; echo late) & exit 0") == Exit(0)
    assert said.of("o") == b"late\n"


def test_a_process_that_closes_its_output_is_waited_for(run: Run) -> None:
    """The end is the end of the process, not of its pipes."""
    assert run("exec >&- 2>&-; sleep 0.2; exit 6") == Exit(6)


def test_a_child_that_left_the_group_does_not_hold_up_a_time_out(run: Run) -> None:
    """A process that took a session of its own cannot keep the step waiting."""
    began = time.monotonic()
    assert run("setsid sleep 8 & sleep 60", timeout_s=0.2).timed_out
    assert time.monotonic() - began < 0.2 + DRAIN_S + SLACK_S


@pytest.mark.parametrize(
    ("argv", "cwd", "says"),
    [
        (["no-such-program-7"], ".", "`no-such-program-7` is not installed"),
        (["true"], "absent", "absent does not exist"),
        (["true"], "file", "file does not exist"),
        (["./file"], ".", "Permission denied"),
        (["./folder"], ".", "Permission denied"),
        (["./not-a-program"], ".", "Exec format error"),
        (["true", "x" * 3_000_000], ".", "Argument list too long"),
        (["true", "a\0b"], ".", "cannot be started"),
    ],
)
def test_what_cannot_be_started_is_an_error_of_the_step(
    supervisor: Supervisor, said: Said, tmp_path: Path, argv: list[str], cwd: str, says: str
) -> None:
    """The message names what was to be started, or the folder that is not there."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "not-a-program").write_bytes(b"\0\1")
    (tmp_path / "not-a-program").chmod(0o755)
    with pytest.raises(StepError) as caught:
        supervisor.run(argv, cwd=tmp_path / cwd, env=os.environ, output=said)
    assert says in caught.value.message
    assert len(caught.value.message) < 1000


def test_an_environment_that_no_process_can_have_is_an_error_of_the_step(run: Run) -> None:
    """A NUL in a variable, as a JSON parameter may hold it, is refused, not a crash."""
    with pytest.raises(StepError, match="cannot be started"):
        run("true", env={**os.environ, "text": "a\0b"})


def test_a_limit_on_processes_is_an_error_of_the_step() -> None:
    """A fork that the system refuses says so, with what to do."""
    code = """
import os, resource, sys
from pathlib import Path
from runnable_ci.util.process import Supervisor, check_output
supervisor = Supervisor()
if os.getuid() == 0:  # whom the limit does not bind
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
assert check_output(["/bin/true"], cwd=Path("/"), env={}, timeout_s=5) is None
try:
    supervisor.run(["/bin/true"], cwd=Path("/"), env={}, output=print)
except Exception as e:
    print(e)
"""
    done = python(code)
    assert done.stdout == (
        "error: `/bin/true` cannot be started: the system allows no more processes\n"
        "hint: a limit on processes or memory is reached: raise it, or run fewer steps in parallel (--jobs)\n"
    ), done.stderr


def test_too_many_open_files_are_an_error_of_the_step() -> None:
    """At each number of descriptors that are left, the step fails with a sentence or runs, and nothing is left open."""
    code = """
import os
from pathlib import Path
from runnable_ci.errors import StepError
from runnable_ci.util.process import Supervisor
import resource
supervisor, seen = Supervisor(), set()
supervisor.run(["/bin/true"], cwd=Path("/"), env={}, output=print)
taken = len(os.listdir("/proc/self/fd")) - 1
for more in range(16):
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken + more, 4096))
    try:
        supervisor.run(["/bin/true"], cwd=Path("/"), env={}, output=print)
        seen.add("ran")
    except StepError as e:
        seen.add(str(e))
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    assert len(os.listdir("/proc/self/fd")) - 1 == taken, more
print(*sorted(seen), sep="\\n")
"""
    done = python(code)
    refused, hint, ran = done.stdout.splitlines()
    assert (refused, ran) == ("error: `/bin/true` cannot be started: Too many open files", "ran"), done.stderr
    assert hint == "hint: raise the limit on open files (ulimit -n), or run fewer steps in parallel (--jobs)"


@pytest.mark.parametrize("how", ["time", "SIGINT", "SIGTERM", "failure"])
def test_a_process_that_cannot_be_ended_is_not_waited_for(tmp_path: Path, how: str) -> None:
    """After the last signal the step is over, and says what it left running."""
    pids: list[int] = []
    said = Said()

    def started(pid: int) -> None:
        pids.append(pid)
        if how == "failure":
            raise ZeroDivisionError
        if how.startswith("SIG"):
            theirs.cancel(signal.Signals[how])

    theirs = Supervisor(grace_s=0.1, send=lambda *_: None)  # as to a process of another user, which `sudo` runs
    try:
        with closing(theirs), pytest.raises(ZeroDivisionError) if how == "failure" else nullcontext():
            ended = theirs.run(
                ["sleep", "60"], cwd=tmp_path, env=os.environ, output=said, started=started, timeout_s=0.2
            )
            assert ended == Exit(-signal.SIGKILL, timed_out=how == "time", cancelled=how != "time")
            assert said.of("e") == f"process {pids[0]} survives SIGKILL: it is left running\n".encode()
        assert not is_gone(pids[0])
    finally:
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)


def test_a_program_that_cannot_be_executed_is_an_error() -> None:
    """Arguments that no process can have are refused with a sentence, and nothing has changed."""
    done = python("from runnable_ci.util.process import exec_program; exec_program(['/bin/true', 'x' * 3_000_000], {})")
    assert "RunnableError: error: `/bin/true` cannot be started: Argument list too long\n" in done.stderr


@pytest.mark.parametrize("where", ["output", "started"])
def test_a_failure_of_ours_ends_the_process(run: Run, where: str) -> None:
    """Where output cannot be taken, the process does not go on unseen."""
    pids: list[int] = []

    def started(pid: int) -> None:
        pids.append(pid)
        if where == "started":
            raise ZeroDivisionError

    def output(_stream: Stream, _chunk: bytes) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("echo x; sleep 60", started=started, output=output)
    assert is_gone(pids[0])


def test_much_output_needs_little_memory_and_time(tmp_path: Path) -> None:
    """200 MB on both streams come through whole, at more than 40 MB a second, in a few MB of memory."""
    code = (
        "import os, resource, sys, time; from pathlib import Path\n"
        "from runnable_ci.util.process import Supervisor\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "count = {'o': 0, 'e': 0}\n"
        "def take(stream, chunk): count[stream] += len(chunk)\n"
        "supervisor = Supervisor(); before = peak(); began = time.monotonic()\n"
        "script = 'head -c 100000000 /dev/zero & head -c 100000000 /dev/zero >&2; wait'\n"
        "supervisor.run(['bash', '-c', script], cwd=Path(sys.argv[1]), env=os.environ, output=take)\n"
        "assert count == {'o': 100_000_000, 'e': 100_000_000}\n"
        "print(peak() - before, time.monotonic() - began)"
    )
    done = python(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    grown_kib, took_s = map(float, done.stdout.split())
    assert grown_kib < 10_000
    assert took_s < 5


def test_many_runs_leak_no_descriptor_and_no_child(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    """After 200 processes, some of which could not start, as many descriptors are open as before."""
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is needed
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    earlier = set(children.read_text().split())  # what other tests left is adopted
    for i in range(200):
        supervisor.run(["/bin/true"], cwd=tmp_path, env={}, output=said)
        if i % 20 == 0:
            with pytest.raises(StepError):
                supervisor.run(["no-such-program-7"], cwd=tmp_path, env={}, output=said)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= len(before), "all descriptors to be closed")  # noqa: PTH208
    assert set(children.read_text().split()) <= earlier


def test_many_processes_at_once_keep_their_output_to_themselves(run: Run) -> None:
    """Sixteen threads each get what their own process wrote."""
    seen = [Said() for _ in range(16)]
    running = [InThread(run, f"for i in $(seq 50); do echo {n}; done", output=said) for n, said in enumerate(seen)]
    for n, (process, said) in enumerate(zip(running, seen, strict=True)):
        assert process.exit() == Exit(0)
        assert said.of("o") == f"{n}\n".encode() * 50


def test_what_outlives_its_run_is_ended_where_it_is_known(tmp_path: Path) -> None:
    """A pid alone is not an identity: the time of its start must be the same. All that descends from it ends too."""
    child = f"env -i setsid bash -c '{STUBBORN}' & echo $!; ({STUBBORN}) & echo $!; wait"
    process = subprocess.Popen(["bash", "-c", child], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout
    children = [int(process.stdout.readline()) for _ in range(2)]
    process.stdout.close()
    wait_until(lambda: os.getsid(children[0]) != os.getsid(process.pid), "a session of its own")
    started = start_time(process.pid)
    assert started.isdigit()
    for other in ("", "1", str(int(started) + 1), "junk"):
        end_outliving({process.pid: other}, ())
    assert process.poll() is None
    end_outliving({process.pid: started}, ())
    assert process.wait() == -signal.SIGKILL
    wait_until(lambda: all(map(is_gone, children)), "the end of the others")


def test_what_outlives_its_run_is_ended_by_its_mark(tmp_path: Path) -> None:
    """Wherever it went, if it has one of the marks, and no other one."""
    marks = {"1" * 32: "sleep", "2" * 32: "sleep", "3" * 32: "sleep"}
    processes = [
        subprocess.Popen([name, "60"], env={LEFTOVER_MARKS: f"outer,{mark}"}, start_new_session=True)
        for mark, name in marks.items()
    ]
    end_outliving({}, {"1" * 32, "2" * 32})
    assert [process.wait() for process in processes[:2]] == [-signal.SIGKILL] * 2
    assert processes[2].poll() is None
    processes[2].kill()
    processes[2].wait()


def test_the_start_time_of_no_process_is_empty() -> None:
    """A pid that is free, or of a process that has died and was not reaped, has none."""
    process = subprocess.Popen(["/bin/true"])
    wait_until(lambda: start_time(process.pid) == "", "the process to die")
    process.wait()
    assert start_time(process.pid) == ""
    assert start_time(os.getpid()) == start_time(os.getpid()) != ""


def test_ps_tells_a_start_where_there_is_no_proc() -> None:
    """Where the system has no `/proc`, as macOS, `ps` tells when a process was started, and nothing of a dead one."""
    process = subprocess.Popen(["sleep", "60"])
    started = start_by_ps(process.pid)
    moment = datetime.strptime(started, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    assert datetime.now(UTC) - moment < timedelta(hours=1)
    assert start_by_ps(process.pid) == started
    process.kill()
    wait_until(lambda: start_by_ps(process.pid) == "", "the process to die")
    process.wait()
    assert start_by_ps(process.pid) == ""


def test_check_output_gives_stdout_or_nothing(tmp_path: Path) -> None:
    """A short program's stdout; None where it fails, is missing, or takes too long."""

    def captured(*argv: str, timeout_s: float = 20) -> bytes | None:
        return check_output(argv, cwd=tmp_path, env=os.environ, timeout_s=timeout_s)

    assert captured("bash", "-c", "echo out; echo err >&2") == b"out\n"
    assert captured("bash", "-c", "echo out; exit 1") is None
    assert captured("no-such-program-7") is None
    began = time.monotonic()
    assert captured("sleep", "60", timeout_s=0.1) is None
    assert time.monotonic() - began < SLACK_S
