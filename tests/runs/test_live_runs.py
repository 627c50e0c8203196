"""A run that is published while it runs: what others see of it, what that costs, and what a lost machine loses."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from published_runs import begun, do_step, opened, publisher, run_tags, store
from registry_server import Reply, Seen, Served, registry, serving
from support import wait_until

from runnable_ci.errors import RunLogError
from runnable_ci.runs.live.life_sign import LifeSign
from runnable_ci.runs.live.publisher import LivePublisher
from runnable_ci.runs.live.segments import log_of_segments
from runnable_ci.runs.model import FAIL, PROCESSING, SUCCESS
from runnable_ci.runs.reader import catalog_of, load
from runnable_ci.runs.recorder import create
from runnable_ci.runs.remote.listing import list_published
from runnable_ci.runs.remote.pull import find, take

CHAIN = "".join(
    f"""
[steps.s{number}]
run = 'sleep 0.4; echo {number} > {number}.txt; echo x >> ../ran.s{number}; test "$HOLD" != s{number} || sleep 60'
catalog = {{ put = ["{number}.txt"] }}
"""
    for number in range(4)
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    return workspace(tmp_path, {"runnable.toml": CHAIN, ".gitignore": "*.txt\n.runnable\n"})


def cost_of(tmp_path: Path, served: Served, steps: int) -> tuple[int, int]:
    """Requests and bytes of a run that is published after each of its steps."""
    layout = store(tmp_path / f"run-{steps}")
    with serving(upstream=served) as server:
        remote = opened(f"{server.host}/{served.repository().partition('/')[2]}")
        with create(layout, begun(layout)) as recorder:
            live = publisher(layout, remote)
            for number in range(steps):
                do_step(recorder, f"s{number}")
                live._publish()
            live.close()
        log = find(remote, "r").log
        assert [step.status for step in log.steps.values()] == [SUCCESS] * steps
        return len(server.seen), sum(len(seen.body) for seen in server.seen)


def test_publishing_after_each_step_is_not_quadratic(tmp_path: Path, served: Served) -> None:
    """Four times as many steps take four times as many requests, and little more than so many bytes."""
    few, many = cost_of(tmp_path, served, 16), cost_of(tmp_path, served, 64)
    assert many[0] <= 4.2 * few[0]
    assert many[1] <= 7.0 * few[1]  # n log n: 5.7; quadratic: 16


def test_what_is_published_is_the_run_by_then(tmp_path: Path, served: Served) -> None:
    """Log and files come whole in another store, where the run is in progress; the next publish brings what is new."""
    layout, remote = store(tmp_path / "here"), opened(served.repository())
    with create(layout, begun(layout)) as recorder:
        live = publisher(layout, remote)
        for name in ("a", "b"):
            do_step(recorder, name, size=300_000 if name == "b" else 10)
            live._publish()
            there = store(tmp_path / f"there-{name}")
            pulled = take(there, find(remote, "r", layout=there))
            assert pulled.left.blobs == 0
            assert load(there, "r").steps[name] == recorder.log.steps[name]
            assert load(there, "r").status == PROCESSING
            catalog = catalog_of(there, load(there, "r"))
            for step in load(there, "r").steps.values():
                (entry,) = step.put_entries()
                content = b"".join(catalog.read(entry.data_hash, entry.size))
                assert content == (layout.folder.parent / entry.name).read_bytes()
        live.close()
    assert [run.summary.status for run in list_published(remote)] == [PROCESSING]


def test_lines_that_are_written_again_are_sent_again(tmp_path: Path, served: Served) -> None:
    """A value that became a secret is not in what is published from then on."""
    layout, remote = store(tmp_path / "here"), opened(served.repository())
    with create(layout, begun(layout)) as recorder:
        live = publisher(layout, remote)
        do_step(recorder, "one", reason="hidden-word")
        live._publish()
        assert find(remote, "r").log.steps["one"].attempts[0].reason == "hidden-word"
        recorder.redactor.learn(["hidden-word"])
        recorder.redact_past(outputs=(), replaced={})
        do_step(recorder, "other")
        live._publish()
        live.close()
        assert recorder.log.steps["one"].attempts[0].reason == "***"
        assert find(remote, "r").log.steps == recorder.log.steps


def test_signs_of_life_become_rarer_and_end() -> None:
    """While a step is long they come at most every ten minutes, and each is believed until after the next one."""
    for silent_s in (0.0, 100.0, 3000.0, 100_000.0):
        sign = LifeSign.next_after(silent_s, now_s=1000.0)
        assert LifeSign.of(sign.annotations()) == sign
        assert sign.is_alive(1000.0 + 120.0)
        assert not sign.is_alive(1000.0 + 1000.0)
    assert LifeSign.of({"vnd.runnable.alive": "soon"}) is None


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"{}\n",
        b'{"event":"started"',
        b'{"step":"a","event":"decided"}\n',
        b'{"step":"a","event":"joined","outcome":"succeeded"}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_hostile_journal_is_refused(journal: bytes) -> None:
    """What does not add up to a run log is an error of ours."""
    with pytest.raises(RunLogError):
        log_of_segments([journal], where="there")


def test_a_lost_machine_loses_one_step(tmp_path: Path, served: Served, project: Workspace) -> None:
    """kill -9 in the last step: another clone pulls the run, refuses while there are signs of life, and takes over."""
    where = served.repository()
    with project.start("run", "--run-id", "r", "--publish=as-you-go", "--to", where, HOLD="s3") as process:
        wait_until((project.folder.parent / "ran.s3").exists, "the last step")
        wait_until(lambda: statuses(where).get("s3") == PROCESSING, "it to be published")
        process.send_signal(signal.SIGKILL)
    there = elsewhere(project, tmp_path)
    refused = there.runnable("retry", f"{where}:r", code=1, HOLD="")
    assert "is in progress" in refused.err
    assert "--take-over" in refused.err
    listed = there.runnable("runs", "--from", where)
    assert "RUNNING" in listed.out
    there.runnable("pull", f"{where}:r")
    assert "RUNNING" in there.runnable("runs").out
    assert "RUNNING" in there.runnable("show", "r").out
    assert "is in progress" in there.runnable("retry", "r", code=1, HOLD="").err
    done = there.runnable("retry", f"{where}:r", "--take-over", "--publish", HOLD="")
    assert done.err.count("| reuse:") == 3
    assert [len((tmp_path / f"ran.s{number}").read_text().splitlines()) for number in range(4)] == [1, 1, 1, 2]
    log = there.log("r")
    assert [attempt.outcome for attempt in log.steps["s3"].attempts] == ["interrupted", "succeeded"]
    assert log.invocations[0].interrupted
    assert find(opened(where), "r").log.status == SUCCESS


def statuses(where: str) -> dict[str, str]:
    try:
        return {name: step.status for name, step in find(opened(where), "r").log.steps.items()}
    except Exception:  # noqa: BLE001 - not there yet
        return {}


def test_whoever_gives_no_sign_of_life_is_gone(tmp_path: Path, served: Served, project: Workspace) -> None:
    """Once the time has passed by which the next sign was to come a retry takes over by itself."""
    path = served.repository().partition("/")[2]

    def later(_seen: Seen, forward: Callable[[], Reply]) -> Reply:
        reply = forward()
        return Reply(reply.status, {**reply.headers, "Date": "Fri, 01 Jan 2100 00:00:00 GMT"}, reply.body)

    with project.start("run", "--run-id", "r", "--publish=as-you-go", "--to", f"{served.host}/{path}", HOLD="s2") as it:
        wait_until(lambda: statuses(f"{served.host}/{path}").get("s2") == PROCESSING, "it to be published")
        it.send_signal(signal.SIGKILL)
    there = elsewhere(project, tmp_path)
    with serving(later, upstream=served) as server:
        assert [run.summary.status for run in list_published(opened(f"{server.host}/{path}"))] == [FAIL]
        done = there.runnable("retry", f"{server.host}/{path}:r", HOLD="")
    assert done.err.count("| reuse:") == 2


def test_a_registry_that_is_down_does_not_hold_up_a_run(tmp_path: Path, served: Served, project: Workspace) -> None:
    """It is said once, the run goes on, and the publish at the end tries again."""
    path = served.repository().partition("/")[2]
    is_down = True

    def hook(_seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(status=503) if is_down else forward()

    with serving(hook, upstream=served) as server:
        begin_s = time.monotonic()
        with project.start("run", "--run-id", "r", "--publish=as-you-go", "--to", f"{server.host}/{path}") as process:
            wait_until((project.folder / "2.txt").exists, "some steps")
            is_down = False
            _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert time.monotonic() - begin_s < 60
    assert said.count(b"not published as it goes") <= 1
    assert find(opened(f"{served.host}/{path}"), "r").log.status == SUCCESS


def test_a_registry_whose_tags_stay_is_left_alone(tmp_path: Path, served: Served) -> None:
    """Where no tag can be moved only the end is published after the first time; that is said."""
    path, tagged = served.repository().partition("/")[2], set[str]()

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        if seen.method == "PUT" and "/manifests/" in seen.path and "sha256:" not in seen.path:
            if seen.path in tagged:
                return Reply(status=403)
            tagged.add(seen.path)
        return forward()

    said: list[str] = []
    layout = store(tmp_path / "here")
    with serving(hook, upstream=served) as server, create(layout, begun(layout)) as recorder:
        live = LivePublisher(
            layout,
            "r",
            opened(f"{server.host}/{path}"),
            environ={},
            say=said.append,
            first_after_s=0.0,
            least_pause_s=0.0,
        )
        recorder.changed = live.changed
        live.start()
        for number in range(3):
            do_step(recorder, f"s{number}")
            time.sleep(0.3)
        wait_until(lambda: said, "the note")
        live.close()
    assert len(said) == 1
    assert "lets no tag be moved" in said[0]


def test_a_run_that_is_published_as_it_goes_ends_as_any_other(
    tmp_path: Path, served: Served, project: Workspace
) -> None:
    """Its tags are those of a publish at the end alone, and other stores get the same digest."""
    where = served.repository()
    done = project.runnable("run", "--run-id", "r", "--publish=as-you-go", "--to", where, HOLD="")
    assert f"published {where}:r@" in done.err
    assert len([tag for tag in run_tags(opened(where)) if not tag.startswith("_")]) == 2
    found = find(opened(where), "r")
    assert found.log.status == SUCCESS
    assert found.parts[0].sign is None
    assert len(found.parts) == 1
    index = json.loads((project.store / "index.json").read_bytes())
    assert found.parts[0].manifest.digest == index["manifests"][-1]["digest"]
    again = project.runnable("publish", "r", "--to", where)
    assert "already up to date" in again.err
    shutil.rmtree(project.store)


def test_an_unknown_mode_is_an_error(project: Workspace) -> None:
    """Only the words that are documented are taken."""
    assert "as-you-go" in project.runnable("run", "--publish=soon", code=2).err
