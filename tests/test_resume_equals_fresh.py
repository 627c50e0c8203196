"""The judge of resuming: after any edit, a retry gives byte for byte what a fresh run gives in a clean copy."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from preloaded import runnable
from random_pipelines import commit, contents, fresh_copy, world

from runnable_ci import open_run

EDITS = int(os.environ.get("JUDGE_EDITS", "20"))
EDITS_A_WORLD = 5
FIRST_SEED = int(os.environ.get("JUDGE_SEED", "0"))


def outcome(folder: Path, run_id: str) -> dict[str, Any]:
    """Return what a run came to: each step's status and what it returned."""
    log = open_run(run_id, folder).log
    steps = {}
    for name, step in log["steps"].items():
        ran = step["attempts"] and step["status"] != "SKIPPED"
        last = step["attempts"][-1]["output_parameters"] if ran else {}
        steps[name] = (step["status"], {n: p["value"] for n, p in last.items()})
    return {"status": log["status"], "steps": steps}


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(1, EDITS // EDITS_A_WORLD)))
def test_retry_is_as_good_as_a_fresh_run(seed: int, tmp_path: Path, environ: dict[str, str]) -> None:
    """After each of some edits, a retry and a run in a clean copy leave the same files, values and statuses."""
    choose = random.Random(seed)  # noqa: S311 - nothing secret: the same seed gives the same world
    made = world(choose, tmp_path / "environment")
    lived = tmp_path / "lived"
    fresh_copy(made, lived, environ)
    code, said = runnable(lived, "run", "--run-id", "r", "-j", "1", environ=environ)
    assert code in (0, 1), said
    story = [made.code()["runnable.toml"], f"run: {code}", said]
    for number in range(EDITS_A_WORLD):
        story.append(f"edit {number}: {made.edit(choose, lived)}")
        if choose.random() < 0.5:
            commit(lived, environ)
        given = [word for name, value in made.given.items() for word in ("--param", f"{name}={value}")]
        given += [word for what in made.rerun for word in ("--rerun", what)]
        code, said = runnable(lived, "retry", "r", "-j", "1", *given, environ=environ)
        story.append(f"retry: {code}\n{said}")
        assert code in (0, 1), "\n".join(story)
        clean = tmp_path / "clean"
        fresh_copy(made, clean, environ)
        again, said = runnable(clean, "run", "--run-id", "r", "-j", "1", environ=environ)
        assert again in (0, 1), said
        expected, found = outcome(clean, "r"), outcome(lived, "r")
        assert (found, code) == (expected, again), "\n".join([*story, f"fresh: {again}", said])
        skipped = {name for name, (status, _) in expected["steps"].items() if status == "SKIPPED"}
        same_files(contents(lived), contents(clean), made.products_of(skipped), story)


def same_files(
    found: Mapping[str, bytes], expected: Mapping[str, bytes], kept: Sequence[str], story: list[str]
) -> None:
    """Assert that two folders hold the same files, and name the first that differs.

    A step that was skipped has what it made earlier again; `kept` are its patterns.
    """
    different = [path for path in {**found, **expected} if found.get(path) != expected.get(path)]
    different = sorted(path for path in different if not any(fnmatch(path, pattern) for pattern in kept))
    if different:
        path = different[0]
        told = [f"{path}: {found.get(path)!r} here, {expected.get(path)!r} fresh", *story]
        raise AssertionError(f"{len(different)} files differ: {different[:5]}\n" + "\n".join(told))


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(1, EDITS // EDITS_A_WORLD // 2)))
def test_some_steps_are_as_good_as_a_whole_run(seed: int, tmp_path: Path, environ: dict[str, str]) -> None:
    """After each of some edits, a run of random steps gives what these give in a whole run in a clean copy.

    Where the result of a step that was not selected is out of date, nothing runs; with all that it needs it does.
    """
    choose = random.Random(seed)  # noqa: S311 - nothing secret: the same seed gives the same world
    made = world(choose, tmp_path / "environment")
    lived = tmp_path / "lived"
    fresh_copy(made, lived, environ)
    code, said = runnable(lived, "run", "--run-id", "whole", "-j", "1", environ=environ)
    story = [made.code()["runnable.toml"], f"run: {code}", said]
    for number in range(EDITS_A_WORLD):
        story.append(f"edit {number}: {made.edit(choose, lived)}")
        names = [step.name for step in made.steps]
        # Without being asked for, another package runs nothing again.
        chosen = names if made.rerun else choose.sample(names, choose.randrange(1, len(names) + 1))
        given = [word for name, value in made.given.items() for word in ("--param", f"{name}={value}")]
        code, said = runnable(lived, "run", *chosen, "--run-id", f"r{number}", *given, "-j", "1", environ=environ)
        story.append(f"run {chosen}: {code}\n{said}")
        if code == 2:
            until = [word for name in chosen for word in ("--until", name)]
            code, said = runnable(lived, "run", *until, "--run-id", f"r{number}", *given, "-j", "1", environ=environ)
            story.append(f"run {until}: {code}\n{said}")
        assert code in (0, 1), "\n".join(story)
        clean = tmp_path / "clean"
        fresh_copy(made, clean, environ)
        assert runnable(clean, "run", "--run-id", "r", "-j", "1", environ=environ)[0] in (0, 1)
        expected, found = outcome(clean, "r")["steps"], outcome(lived, f"r{number}")["steps"]
        assert found.keys() >= set(chosen), "\n".join(story)
        assert found == {name: expected[name] for name in found}, "\n".join(story)


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(1, EDITS // EDITS_A_WORLD // 4)))
def test_nothing_of_a_mock_is_left_once_it_is_retried(seed: int, tmp_path: Path, environ: dict[str, str]) -> None:
    """A run in which random steps are mocked, by what they gave before some edits, and then retried without mocks."""
    choose = random.Random(seed)  # noqa: S311 - nothing secret: the same seed gives the same world
    made = world(choose, tmp_path / "environment")
    lived = tmp_path / "lived"
    fresh_copy(made, lived, environ)
    runnable(lived, "run", "--run-id", "whole", "-j", "1", environ=environ)
    story = [made.code()["runnable.toml"]]
    for number in range(EDITS_A_WORLD):
        story.append(f"edit {number}: {made.edit(choose, lived)}")
        names = [step.name for step in made.steps]
        mocked = [
            word for name in choose.sample(names, choose.randrange(1, len(names) + 1)) for word in ("--mock", name)
        ]
        given = [word for name, value in made.given.items() for word in ("--param", f"{name}={value}")]
        run = f"r{number}"
        code, said = runnable(lived, "run", *mocked, "--run-id", run, *given, "-j", "1", environ=environ)
        story.append(f"run {mocked}: {code}\n{said}")
        code, said = runnable(lived, "retry", run, "-j", "1", environ=environ)
        story.append(f"retry: {code}\n{said}")
        assert code in (0, 1), "\n".join(story)
        clean = tmp_path / "clean"
        fresh_copy(made, clean, environ)
        again, said = runnable(clean, "run", "--run-id", run, "-j", "1", environ=environ)
        expected, found = outcome(clean, run), outcome(lived, run)
        assert (found, code) == (expected, again), "\n".join([*story, f"fresh: {again}", said])
        skipped = {name for name, (status, _) in expected["steps"].items() if status == "SKIPPED"}
        same_files(contents(lived), contents(clean), made.products_of(skipped), story)
