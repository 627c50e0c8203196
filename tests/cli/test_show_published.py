"""Tests of `show` and `logs`, also `--watch` and `-f`, of a run in a registry, while another machine writes it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, on_terminal, workspace
from published_runs import begun, do_step, opened, publisher, store
from registry_server import Reply, Seen, Served, registry, serving
from support import wait_until

from runnable_ci.cli.show.published import MOST_PAUSE_S, RemoteRun, opened_run, watch
from runnable_ci.config import Settings
from runnable_ci.errors import StoreError
from runnable_ci.runs.model import PROCESSING, SUCCESS
from runnable_ci.runs.recorder import create
from runnable_ci.runs.remote.publish import publish
from runnable_ci.runs.remote.pull import find

STEPS = """
[steps.first]
run = "echo one; echo bad >&2; echo two"
[steps.second]
run = "echo three; touch begun; until test -e gate; do sleep 0.05; done; echo four"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A run whose second step waits for a file `gate`."""
    return workspace(tmp_path, {"runnable.toml": STEPS, ".gitignore": ".runnable\ngate\nbegun\n"})


@dataclass
class Time:
    """A clock that only `sleep` moves; what happens at which time."""

    now_s: float = 0.0
    events: dict[float, Callable[[], None]] = field(default_factory=dict)

    def sleep(self, seconds: float) -> None:
        """Let time pass, and have happen what is due."""
        self.now_s += seconds
        for moment_s in sorted(self.events):
            if moment_s <= self.now_s:
                self.events.pop(moment_s)()

    def of(self, remote: RemoteRun) -> RemoteRun:
        """The run, by this clock."""
        remote.clock, remote.sleep = (lambda: self.now_s), self.sleep
        return remote


def test_a_run_that_is_long_silent_costs_few_requests(tmp_path: Path, served: Served) -> None:
    """While nothing is published each look is one request, two a minute; what is published is seen soon."""
    layout = store(tmp_path / "here")
    with serving(upstream=served) as server:
        path = served.repository().partition("/")[2]
        direct = opened(f"{served.host}/{path}")
        with create(layout, begun(layout)) as recorder:
            live = publisher(layout, direct)
            do_step(recorder, "a")
            live._publish()
            with opened_run(f"{server.host}/{path}:r", Settings(), {}) as remote:
                remote.look()
                server.seen.clear()
                asked: list[int] = []

                def next_step() -> None:
                    asked.append(len(server.seen))
                    do_step(recorder, "b")
                    live._publish()

                def end() -> None:
                    asked.append(len(server.seen))
                    live.close()

                time = Time(events={1800.0: next_step, 1830.0 + MOST_PAUSE_S: end})
                logs = time.of(remote).logs()
                assert next(logs).steps.keys() == {"a"}
                assert next(logs).steps.keys() == {"a", "b"}
                assert time.now_s <= 1800.0 + MOST_PAUSE_S
                assert {seen.method for seen in server.seen[: asked[0]]} == {"HEAD"}
                assert asked[0] <= 1800 / MOST_PAUSE_S + 5
                assert len(server.seen) - asked[0] <= 12
                assert remote.heard().startswith("heard ")


def test_it_ends_with_the_run(tmp_path: Path, served: Served) -> None:
    """The last log is that of the run's end, and nothing is said of signs of life."""
    layout, where = store(tmp_path / "here"), served.repository()
    with ExitStack() as stack:
        with create(layout, begun(layout)) as recorder:
            live = publisher(layout, opened(where))
            do_step(recorder, "a")
            live._publish()
            remote = stack.enter_context(opened_run(f"{where}:r", Settings(), {}))
            assert remote.log.status == PROCESSING
            live.close()
        publish(layout, "r", opened(where), environ={})
        watch(Time().of(remote))
        assert remote.log.status != PROCESSING
        assert remote.heard() == ""


def test_a_writer_that_is_gone_is_said(tmp_path: Path, served: Served, project: Workspace) -> None:
    """Once no sign of life came in time nobody waits any more: the run is a failed one, and it is said until when."""
    path = served.repository().partition("/")[2]

    def later(_seen: Seen, forward: Callable[[], Reply]) -> Reply:
        reply = forward()
        return Reply(reply.status, {**reply.headers, "Date": "Fri, 01 Jan 2100 00:00:00 GMT"}, reply.body)

    where = f"{served.host}/{path}"
    with project.start("run", "--run-id", "r", "--publish=as-you-go", "--to", where) as process:
        wait_until(lambda: is_published(where, "second"), "it to be published")
        process.send_signal(signal.SIGKILL)
    there = elsewhere(project, tmp_path)
    with serving(later, upstream=served) as server:
        done = there.runnable("show", f"{server.host}/{path}:r", "--watch")
        assert "note: nothing was heard of run r any more: last sign of life at 20" in done.err
        assert "run          r  FAIL" in done.out
        followed = there.runnable("logs", "-f", f"{server.host}/{path}:r", "first")
        assert sorted(followed.out.split()) == ["bad", "one", "two"]  # two streams come in some order
        assert "nothing was heard of run r any more" in followed.err
    (project.folder / "gate").touch()  # the killed run's step is there yet
    assert not (there.folder / ".runnable").exists()


def is_published(where: str, step: str) -> bool:
    """Whether a registry has a run `r` in which this step has begun."""
    try:
        return step in find(opened(where), "r").log.steps
    except Exception:  # noqa: BLE001 - not there yet
        return False


def test_another_machine_follows_a_run(tmp_path: Path, served: Served, project: Workspace) -> None:
    """What has ended is printed while the next step runs, the rest with the end of the run; then as `logs` has it."""
    where = served.repository()
    there = elsewhere(project, tmp_path)
    with project.start("run", "--run-id", "r", "--publish=as-you-go", "--to", where, "--quiet") as run:
        wait_until(lambda: is_published(where, "second"), "it to be published")
        shown = there.runnable("show", f"{where}:r")
        assert "RUNNING" in shown.out
        assert "still running" in shown.out
        assert "note: heard " in shown.err
        assert "note: r is in progress: last sign of life at " in there.runnable("runs", "--from", where).err
        assert "one" in there.runnable("logs", f"{where}:r").out
        with (
            there.start("logs", "-f", f"{where}:r") as followed,
            there.start("show", "--watch", f"{where}:r") as watched,
        ):
            assert followed.stdout
            with on_terminal(there, "show", "--watch", f"{where}:r") as terminal:
                terminal.read_until(r"run r: 1 done, 1 running, \d+ s\r\nSTEP")
                terminal.read_until(r"second +RUNNING +1 +\d+ s")
                terminal.read_until(r"heard \d+ s ago, again by \d\d:\d\d:\d\d UTC: ")
                terminal.process.send_signal(signal.SIGINT)
                terminal.rest()
            first = [followed.stdout.readline() for _ in range(3)]
            assert sorted(first) == [b"first  | bad\n", b"first  | one\n", b"first  | two\n"]
            (project.folder / "gate").touch()
            _, said = run.communicate(timeout=60)
            assert run.returncode == 0, said
            out, err = followed.communicate(timeout=60)
            assert out == b"second | three\nsecond | four\n"
            assert b"published when it has ended; by now it runs second" in err
            seen, _ = watched.communicate(timeout=60)
            assert (followed.returncode, watched.returncode) == (0, 0)
            assert b"run          r  SUCCESS" in seen
    assert there.runnable("logs", f"{where}:r", "second").out == "three\nfour\n"
    assert there.runnable("logs", f"{where}:r", "first", "--stderr").out == "bad\n"
    assert "no step `third`" in there.runnable("logs", f"{where}:r", "third", code=2).err
    assert not (there.folder / ".runnable").exists()


def test_a_registry_that_does_not_answer_is_asked_again(tmp_path: Path, served: Served) -> None:
    """Some times, and then it is an error."""
    layout = store(tmp_path / "here")
    path = served.repository().partition("/")[2]
    down: list[bool] = []

    def hook(_seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(status=400) if down else forward()

    with serving(hook, upstream=served) as server, create(layout, begun(layout)) as recorder:
        live = publisher(layout, opened(f"{served.host}/{path}"))
        do_step(recorder, "a")
        live._publish()
        with opened_run(f"{server.host}/{path}:r", Settings(), {}) as remote:
            remote.look()
            time = Time(
                events={5.0: lambda: down.append(True), 20.0: down.clear, 100.0: lambda: do_step(recorder, "b")}
            )
            time.events[101.0] = live._publish
            logs = time.of(remote).logs()
            assert next(logs).steps["a"].status == SUCCESS
            assert "b" in next(logs).steps
            down.append(True)
            with pytest.raises(StoreError):
                list(logs)
        live.close()
