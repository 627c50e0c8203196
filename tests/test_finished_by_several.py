"""Several machines finish parts of one run that they share by a registry: none of it is done again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path

import pytest
from cli import elsewhere, workspace
from published_runs import contents, got, opened, sent, store
from registry_server import Served, registry

from runnable_ci.runs.events import AttemptSaved, InvocationFinished, PackStored, Started
from runnable_ci.runs.model import FAIL, SUCCESS, CatalogEntry, Invocation, RunLog, StepAttempt
from runnable_ci.runs.reader import catalog_of, load
from runnable_ci.runs.recorder import create, reopen
from runnable_ci.runs.remote.pull import keep_as, pull
from runnable_ci.runs.run_identity import heads
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry

PIPELINE = """
[steps.load]
run = "echo ran >> ../RAN; echo $RANDOM > load.txt"
catalog = { put = ["load.txt"] }
[steps.x]
needs = ["load"]
run = "test -e x.ok; cat load.txt > x.txt; echo $WHO >> x.txt"
catalog = { get = ["load.txt"], put = ["x.txt"] }
[steps.y]
needs = ["load"]
run = "test -e y.ok; cat load.txt > y.txt; echo $WHO >> y.txt"
catalog = { get = ["load.txt"], put = ["y.txt"] }
[steps.all]
needs = ["x", "y"]
run = "cat x.txt y.txt > all.txt"
catalog = { get = ["x.txt", "y.txt"], put = ["all.txt"] }
"""
FILES = {"runnable.toml": PIPELINE, ".gitignore": "*.txt\n*.ok\n"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def remote(served: Served) -> Registry:
    """A repository that nobody else uses."""
    return opened(served.repository())


def test_two_clones_fix_a_step_each(tmp_path: Path, remote: Registry) -> None:
    """A third one reuses what both have finished, runs what is left, and both find that when they pull."""
    base = workspace(tmp_path, FILES)
    base.runnable("run", "--run-id", "k", "--to", remote.label, code=1)
    ann, bob, eve = (elsewhere(base, tmp_path, name) for name in ("ann", "bob", "eve"))
    for clone, step in ((ann, "x"), (bob, "y")):
        clone.runnable("pull", f"{remote.label}:k")
        (clone.folder / f"{step}.ok").touch()
        clone.runnable("retry", "k", code=1, WHO=step)
    for clone in (ann, bob):
        clone.runnable("publish", "k", "--to", remote.label)
    eve.runnable("pull", f"{remote.label}:k")
    assert "FAIL (unfinished; 2 invocations had not seen each other)" in eve.runnable("show", "k").out
    planned = eve.runnable("retry", "k", "--dry-run").out
    assert [line.split()[1] for line in planned.splitlines()] == ["reuse", "reuse", "reuse", "run"]
    eve.runnable("retry", "k", "--publish", "--to", remote.label)
    first, x, second, y = eve.read("all.txt").split()
    assert (x, y, first) == ("x", "y", second)
    for clone in (ann, bob):
        clone.runnable("pull", f"{remote.label}:k")
        assert clone.log("k") == eve.log("k")
        assert "nothing to do, 4 steps done" in clone.runnable("retry", "k").err
    assert (tmp_path / "RAN").read_text() == "ran\n"


def test_a_listing_agrees_with_what_a_pull_brings(tmp_path: Path, remote: Registry) -> None:
    """Whoever published last: a later failure by who had not seen the success, and halves that nobody has merged."""

    def listed() -> list[dict[str, object]]:
        reader = elsewhere(base, tmp_path, f"reader-{next(numbers)}")
        reader.runnable("pull", f"{remote.label}:k")
        here, there = (
            json.loads(reader.runnable("runs", *words, "--json").out) for words in ([], ["--from", remote.label])
        )
        assert there == here
        return list(here)

    numbers = count()
    base = workspace(tmp_path, FILES)
    base.runnable("run", "--run-id", "k", "--to", remote.label, code=1)
    ann, bob, eve = (elsewhere(base, tmp_path, name) for name in ("ann", "bob", "eve"))
    for clone in (ann, bob, eve):
        clone.runnable("pull", f"{remote.label}:k")
    for clone, step in ((ann, "x"), (bob, "y")):
        (clone.folder / f"{step}.ok").touch()
        clone.runnable("retry", "k", "--publish", "--to", remote.label, code=1)
    assert [run["failed"] for run in listed()] == [""]
    assert [run["attempts"] for run in listed()] == [3]
    for step in ("x", "y"):
        (ann.folder / f"{step}.ok").touch()
    ann.runnable("retry", "k", "--publish", "--to", remote.label)
    assert [run["status"] for run in listed()] == ["SUCCESS"]
    eve.runnable("retry", "k", "--publish", "--to", remote.label, code=1)
    assert [(run["status"], run["failed"]) for run in listed()] == [("SUCCESS", "")]


def invoke(layout: Layout, steps: list[str], *, makes: str, hours: Iterator[int]) -> None:
    """Record an invocation, as by a machine with any clock, in which one step succeeded and all others failed."""
    known = load(layout, "r") if makes else RunLog(run_id="r")
    number = known.invocation + 1

    def moment() -> str:
        return f"2026-11-24T{next(hours):02}:00:00.000000+00:00"

    invocation = Invocation(
        number=number,
        command="retry" if makes else "run",
        start_time=moment(),
        identity=makes or "began",
        parents=heads(known.invocations),
    )
    started = Started(run_id="r", name="n", dag_hash="d", run_config={}, invocation=invocation)
    with reopen(layout, known) if makes else create(layout, started) as recorder:
        if makes:
            recorder.record(started)
        catalog = catalog_of(layout, recorder.log, layout.folder.parent)
        for step in steps:
            if step in known.steps and known.steps[step].status == SUCCESS:
                continue
            attempt = StepAttempt(attempt_number=number, start_time=moment(), invocation=number)
            recorder.record(AttemptSaved(step=step, attempt=attempt))
            attempt = attempt.model_copy(update={"end_time": moment()})
            attempt.end("succeeded" if step == makes else "failed")
            entries: list[CatalogEntry] = []
            if step == makes:
                (layout.folder.parent / f"{step}.txt").write_text(step)
                entries, packs = catalog.put([f"{step}.txt"])
                recorder.record(*(PackStored(digest=digest, pack=pack) for digest, pack in packs.items()))
            recorder.record(AttemptSaved(step=step, attempt=attempt, data_catalog=entries))
        recorder.record(InvocationFinished.of("failed", time=moment()))
        recorder.seal(catalog)


@pytest.mark.promise
def test_twelve_machines_fix_a_step_each(tmp_path: Path, remote: Registry) -> None:
    """Whatever their clocks say: whoever pulls has all twelve results, and so has a copy under another id."""
    hours = cycle([9, 3, 17, 3, 22, 0, 11])
    steps = [f"s{i:02}" for i in range(12)]
    base = store(tmp_path / "base")
    invoke(base, steps, makes="", hours=hours)
    sent(base, remote)
    writers = [got(tmp_path / step, remote)[0] for step in steps]
    for step, layout in zip(steps, writers, strict=True):
        invoke(layout, steps, makes=step, hours=hours)
    for layout in [*writers[5:], *reversed(writers[:5])]:
        sent(layout, remote)
    reader, pulled = got(tmp_path / "reader", remote)
    log = load(reader, "r")
    assert pulled.writers == 13
    assert {name: (step.status, len(step.attempts)) for name, step in log.steps.items()} == dict.fromkeys(
        steps, (SUCCESS, 13)
    )
    assert contents(reader) == {f"{step}.txt": step.encode() for step in steps}
    assert log.status == FAIL
    for layout in (writers[3], writers[8]):
        pull(layout, remote, "r")
        assert load(layout, "r") == log
    keep_as(reader, "r", "copy")
    assert {step.status for step in load(reader, "copy").steps.values()} == {SUCCESS}
    keep_as(reader, "r", "copy")
    assert contents(reader, "copy") == contents(reader)
