"""The judge of reuse across runs: after any edit, a new run that may reuse others gives what one gives that cannot."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from preloaded import runnable
from random_pipelines import commit, contents, fresh_copy, world
from test_resume_equals_fresh import outcome, same_files

from runnable_ci import open_run

EDITS = int(os.environ.get("JUDGE_EDITS", "20"))
EDITS_A_WORLD = 5
FIRST_SEED = int(os.environ.get("JUDGE_SEED", "0"))


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + max(1, EDITS // EDITS_A_WORLD)))
def test_reuse_is_as_good_as_a_fresh_run(seed: int, tmp_path: Path, environ: dict[str, str]) -> None:
    """After each of some edits, a run leaves the same bytes with reuse and, in a copy of the folder, without."""
    choose = random.Random(seed)  # noqa: S311 - nothing secret: the same seed gives the same world
    made = world(choose, tmp_path / "environment")
    made.reuse = "any-run"
    lived = tmp_path / "lived"
    fresh_copy(made, lived, environ)
    code, said = runnable(lived, "run", "--run-id", "r0", "-j", "1", environ=environ)
    assert code in (0, 1), said
    story = [made.code()["runnable.toml"], f"run: {code}", said]
    for number in range(1, EDITS_A_WORLD + 1):
        story.append(f"edit {number}: {made.edit(choose, lived)}")
        if choose.random() < 0.5:
            commit(lived, environ)
        given = [word for name, value in made.given.items() for word in ("--param", f"{name}={value}")]
        run = ["run", "--run-id", f"r{number}", "-j", "1", *given]
        shutil.copytree(lived, copied := tmp_path / f"copied{number}", symlinks=True)
        again, all_said = runnable(copied, *run, "--reuse", "never", environ=environ)
        code, said = runnable(lived, *run, environ=environ)
        story += [f"with reuse: {code}", said, f"without: {again}", all_said]
        assert code in (0, 1), "\n".join(story)
        assert (outcome(lived, f"r{number}"), code) == (outcome(copied, f"r{number}"), again), "\n".join(story)
        same_files(contents(lived), contents(copied), [], story)
    taken = [step["taken_from"] for step in open_run(f"r{number}", lived).steps if step["attempts"]]
    print(seed, sum(map(bool, taken)), len(taken))
