"""Which steps a machine has room for."""

from __future__ import annotations

import heapq
import random

import pytest

from runnable_ci.engine.planning.room import Room
from runnable_ci.pipeline.keys.resources import Resources
from runnable_ci.pipeline.schema import Place
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.machines.environment_model import Capacity

GIB = 1024**3


def step(name: str, cpus: int = 0, memory: int = 0, gpus: int = 0) -> Step:
    """A step that takes this; one that says nothing where it takes nothing."""
    says = cpus or memory or gpus
    resources = Resources((cpus or 1,), (memory * GIB,), (gpus,)) if says else None
    return Step(
        name=name, kind="run", command="true", needs=(), returns={}, get=None, put=(), persist=False, parameters=None,
        env={}, shell="", working_directory=".", timeout_s=None, continue_on_error=False, resources=resources,
        place=Place(""),
    )  # fmt: skip


def room(cpus: int = 4, memory: int = 16, gpus: int = 0, jobs: int = 0) -> Room:
    """What a machine leaves that runs nothing yet."""
    return Room(Capacity(cpus, memory * GIB, tuple(map(str, range(gpus)))), jobs or cpus)


def test_steps_are_packed_by_cores_and_memory() -> None:
    """Each takes its share, and gives it back."""
    here = room()
    assert here.admit(step("a", cpus=3, memory=8), 1)
    assert not here.admit(step("b", cpus=2), 1)
    assert here.due() == []
    here.leave("a")
    assert here.due() == ["b"]
    assert here.admit(step("b", cpus=2), 1)
    assert here.admit(step("c", memory=16), 1)
    assert not here.admit(step("d", memory=1), 1)


def test_what_says_nothing_counts_as_one_core() -> None:
    """As many as there are cores, beside those that say what they take."""
    here = room()
    assert here.admit(step("a", cpus=2), 1)
    assert [here.admit(step(name), 1) for name in "bcd"] == [True, True, False]
    assert here.is_full


def test_more_jobs_than_cores_are_for_what_says_nothing() -> None:
    """`--jobs 8` on 4 cores runs 8 of them at once; what takes two cores waits for two that nobody has."""
    here = room(jobs=8)
    assert [here.admit(step(str(i)), 1) for i in range(3)] == [True] * 3
    assert not here.admit(step("wide", cpus=2), 1)
    here.leave("0")
    assert here.due() == ["wide"]
    assert here.admit(step("wide", cpus=2), 1)
    assert [here.admit(step(f"more {i}"), 1) for i in range(5)] == [True] * 4 + [False]


def test_what_takes_more_than_there_is_runs_alone() -> None:
    """Rather than never; and it says so."""
    here, wide = room(), step("wide", cpus=64, memory=32)
    assert here.admit(step("a"), 1)
    assert not here.admit(wide, 1)
    assert not here.admit(step("b"), 1)
    here.leave("a")
    assert here.due() == ["wide"]
    assert here.admit(wide, 1)
    assert not here.admit(step("c"), 1)
    assert here.note(wide, 1).startswith("note: it takes 64 cores, and this machine has 4; ")
    assert here.note(wide, 1).endswith("it runs alone")
    assert here.note(step("a", cpus=4), 1) == ""
    here.leave("wide")
    assert here.due() == ["b", "c"]


def test_each_has_gpus_of_its_own() -> None:
    """They are told apart by their names; what takes more than there are is refused."""
    here = room(gpus=2)
    assert here.admit(step("a", gpus=1), 1)
    assert here.admit(step("b", gpus=1), 1)
    assert (here.gpus("a"), here.gpus("b")) == (("0",), ("1",))
    assert not here.admit(step("c", gpus=1), 1)
    here.leave("b")
    assert here.due() == ["c"]
    assert here.gpus("c") == ("1",)
    assert here.refusal(step("d", gpus=2), 1) == ""
    assert here.refusal(step("d", gpus=3), 1) == "it takes 3 GPUs, and this machine has 2"
    assert room().refusal(step("d", gpus=1), 1) == "it takes 1 GPU, and this machine has none"


def test_a_large_one_is_not_passed_for_ever() -> None:
    """What began after it waits leaves room for it beside: it begins once those have ended that ran by then."""
    here = room()
    assert all(here.admit(step(name), 1) for name in "abc")
    assert not here.admit(step("large", cpus=3), 1)
    assert here.admit(step("beside"), 1)
    for name in "ab":
        here.leave(name)
        assert not here.admit(step(f"after {name}"), 1)
        assert here.due() == []
    here.leave("c")
    assert here.due() == ["large"]


def test_a_try_may_take_more() -> None:
    """As its number says."""
    more = step("a")._replace(resources=Resources((1, 4), (0,), (0,)))
    here = room()
    assert here.admit(step("b"), 1)
    assert here.admit(more, 1)
    here.leave("a")
    assert not here.admit(more, 2)


def test_what_does_not_run_after_all_gives_its_room_back() -> None:
    """Such as a step that waited, and was decided on anew."""
    here = room()
    assert here.admit(step("a", cpus=4), 1)
    assert not here.admit(step("b", cpus=4), 1)
    assert not here.admit(step("c", cpus=4), 1)
    here.leave("a")
    assert here.due() == ["b"]
    here.leave("b")
    assert here.due() == ["c"]


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(200))
def test_any_steps_in_any_order(seed: int) -> None:
    """No more is taken than there is but by what runs alone; all run; the one that has waited longest begins at the
    latest when those have ended that ran when it was the first one to wait.
    """
    chance = random.Random(seed)  # noqa: S311
    here = room(cpus=4, memory=8, gpus=2, jobs=chance.choice([4, 4, 6]))
    steps = {}
    for number in range(40):
        one = step(f"s{number}")
        if chance.random() < 0.7:
            one = step(one.name, chance.randint(1, 6), chance.randint(0, 10), chance.randint(0, 2))
        steps[one.name] = one
    ready, running, ran = sorted(steps), set[str](), list[str]()
    waits, ran_then = list[str](), set[str]()
    while ready or running or waits:
        due = here.due()
        assert not waits or ran_then & running or waits[0] in due
        for name in due:
            heapq.heappush(ready, name)
            if name == waits.pop(waits.index(name)) and name == due[0]:
                ran_then = {*running, *due}
        while ready and len(running) < here.jobs and not here.is_full:
            name = heapq.heappop(ready)
            if here.admit(steps[name], 1):
                running.add(name)
                ran.append(name)
            else:
                waits.append(name)
                ran_then = set(running) if len(waits) == 1 else ran_then
        assert running, "nothing runs, and something waits"
        _check(here, [steps[name] for name in running])
        for name in chance.sample(sorted(running), chance.randint(1, len(running))):
            running.remove(name)
            ran_then.discard(name)
            here.leave(name)
    assert sorted(ran) == sorted(steps)


def _check(here: Room, running: list[Step]) -> None:
    """What runs is no more than there is, and no two have the same GPU."""
    saying = [one.resources for one in running]
    shares = [it.of_try(1) for it in saying if it]
    if len(running) > 1:
        cores = sum(share.cpus for share in shares) + saying.count(None)
        assert cores <= (here.jobs if None in saying else here.capacity.cpus)
        assert sum(share.memory for share in shares) <= here.capacity.memory
    used = [gpu for one in running for gpu in here.gpus(one.name)]
    assert len(used) == len(set(used)) == sum(share.gpus for share in shares)
