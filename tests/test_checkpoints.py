"""A training of ten epochs is broken in all ways and resumed: its losses are those of one that nothing broke."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry as docker_registry
from support import wait_until

from runnable_ci.runs.paths import JOURNAL

KILLS = int(os.environ.get("CHECKPOINT_KILLS", "2"))
EPOCHS = 10
EVERY_S = 0.6
SLACK_S = 4.0
"""What a loaded machine may be late by."""
TRAIN = """
import json, os, pathlib, random, signal, sys, time

EPOCH_S, FAIL, IGNORES = float(os.environ.get("EPOCH_S", "0.3")), os.environ.get("FAIL"), os.environ.get("IGNORES")
IN_PLACE = bool(os.environ.get("IN_PLACE"))
if IGNORES:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
checkpoint = pathlib.Path("ckpt/state.json")
checkpoint.parent.mkdir(exist_ok=True)
state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"epoch": 0, "weight": 0.5, "losses": []}
begins = open(os.environ["BEGINS"], "a")
begins.write(f"{state['epoch']}\\n")
begins.flush()
log = open("ckpt/open.log", "w")
for epoch in range(state["epoch"], 10):
    data = random.Random(epoch)
    for _ in range(1000):
        state["weight"] -= 0.01 * (state["weight"] - data.random())
    state["losses"].append(state["weight"] ** 2)
    state["epoch"] = epoch + 1
    text = json.dumps(state)
    if IN_PLACE:
        with checkpoint.open("w") as file:
            file.write(text[:20])
            file.flush()
            time.sleep(EPOCH_S / 4)
            file.write(text[20:])
    else:
        new = pathlib.Path("ckpt/state.json.new")
        new.write_text(text)
        new.replace(checkpoint)
    pathlib.Path(f"ckpt/epoch-{epoch}.txt").write_text(str(epoch))
    log.write("."), log.flush()
    with open(os.environ["DONE"], "a") as done:
        done.write(f"{epoch + 1} {time.time()}\\n")
    if FAIL == str(epoch):
        sys.exit("the data is bad")
    time.sleep(EPOCH_S)
pathlib.Path("losses.json").write_text(json.dumps(state["losses"]))
"""
PIPELINE = f"""
[steps.train]
run = "{sys.executable} train.py"
checkpoint = {{ path = ["ckpt/**"], every-minutes = {EVERY_S / 60} }}
catalog = {{ put = ["losses.json"] }}
TIMEOUT
[steps.report]
run = "ls ckpt 2>/dev/null; cat losses.json"
catalog = {{ get = ["losses.json"] }}
"""


def losses() -> str:
    """What the training gives that nothing breaks."""
    weight, found = 0.5, []
    for epoch in range(EPOCHS):
        data = random.Random(epoch)  # noqa: S311
        for _ in range(1000):
            weight -= 0.01 * (weight - data.random())
        found.append(weight**2)
    return json.dumps(found)


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A clone with the training in it."""
    files = {"runnable.toml": PIPELINE.replace("TIMEOUT\n", ""), "train.py": TRAIN, ".gitignore": ".runnable\n"}
    made = workspace(tmp_path, files)
    made.environ.update({"BEGINS": str(tmp_path / "begins"), "DONE": str(tmp_path / "done")})
    return made


def begins(project: Workspace) -> list[int]:
    """The epochs at which the training began, each time."""
    return [int(line) for line in Path(project.environ["BEGINS"]).read_text().split()]


def epochs(project: Workspace) -> list[tuple[int, float]]:
    """The epochs that were finished, and when."""
    file = Path(project.environ["DONE"])
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(epoch), float(moment)) for epoch, moment in (line.split() for line in lines)]


@contextmanager
def running(project: Workspace, *arguments: str, epoch: int, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose training has come to an epoch."""
    before = len(epochs(project))
    with project.start(*arguments, **variables) as process:
        wait_until(lambda: any(it >= epoch for it, _ in epochs(project)[before:]), f"epoch {epoch}")
        yield process
        process.communicate(timeout=30)


def pid_of(project: Workspace, run_id: str) -> int:
    """The process of the step that runs."""
    noted = (project.store / "runs" / run_id / "processes").read_text().split()
    return next(int(word) for word in noted if word.isdigit())


def assert_little_is_lost(project: Workspace, ended_s: float, *, before: int) -> None:
    """The newest attempt began at most one interval before where the one before it was."""
    begun = begins(project)[-1]
    moments = dict(epochs(project)[:before])
    first = min(moments.values())
    assert ended_s - moments.get(begun, first) <= EVERY_S + SLACK_S
    assert begun > 0, "nothing was kept"


def assert_resumed(project: Workspace, run_id: str, ended_s: float) -> None:
    """A retry ends as if nothing had been broken."""
    before = len(epochs(project))
    project.runnable("retry", run_id)
    assert project.read("losses.json") == losses()
    assert_little_is_lost(project, ended_s, before=before)
    assert_nothing_is_kept(project, run_id)


def assert_nothing_is_kept(project: Workspace, run_id: str) -> None:
    """A run that is over has no checkpoint: neither in its folder nor in its artifact."""
    assert not (project.store / "runs" / run_id / "checkpoints").exists()
    titles = layers(project, run_id)
    assert [title for title in titles if title.startswith("checkpoints/")] == []


def layers(project: Workspace, run_id: str) -> list[str]:
    """What the artifact of a run has."""
    index = json.loads((project.store / "index.json").read_bytes())["manifests"]
    [entry] = [it for it in index if it["annotations"]["org.opencontainers.image.ref.name"] == run_id]
    manifest = json.loads((project.store / "blobs/sha256" / entry["digest"][7:]).read_bytes())
    return [layer["annotations"]["org.opencontainers.image.title"] for layer in manifest["layers"]]


def attempts(project: Workspace, run_id: str) -> list[Any]:
    """The attempts at the training."""
    return project.log(run_id).steps["train"].attempts


def test_a_step_that_fails_resumes_where_it_was(project: Workspace) -> None:
    """At epoch 6 it fails; the retry begins behind that, and nothing but the training's own result is a product."""
    failed = project.runnable("run", "--run-id", "r", code=1, FAIL="6", EPOCH_S="0.02")
    assert "matches no file" not in failed.err
    [first] = attempts(project, "r")
    assert first.checkpoint.files.keys() == {"ckpt/state.json", "ckpt/open.log"} | {
        f"ckpt/epoch-{epoch}.txt" for epoch in range(7)
    }
    assert "checkpoints/train.1/ckpt/state.json" in layers(project, "r")
    assert "CHECKPOINT OF" in project.runnable("show", "r").out
    again = project.runnable("retry", "r")
    assert "resumes from the checkpoint of attempt 1: 9 files" in again.err
    assert begins(project) == [0, 7]
    assert project.read("losses.json") == losses()
    second = attempts(project, "r")[-1]
    assert (second.checkpoint, second.checkpoint_used.attempt) == (None, 1)
    assert (second.checkpoint_used.is_foreign, second.checkpoint_used.not_seen) == (False, False)
    assert_nothing_is_kept(project, "r")
    assert [entry.name for entry in project.log("r").steps["train"].put_entries()] == ["losses.json"]
    assert "nothing to do" in project.runnable("retry", "r").err
    assert second.code_identities[0].code_identifier_dependable


def test_a_new_run_starts_over(project: Workspace) -> None:
    """What an earlier run left is moved away, a person's file stays, and a finished step is no other for its key."""
    project.write({"ckpt/mine.txt": "mine"})
    project.runnable("run", "--run-id", "a", code=1, FAIL="3", EPOCH_S="0.02")
    said = project.runnable("run", "--run-id", "b", EPOCH_S="0.02").err
    assert "set aside 6 files of an earlier checkpoint" in said
    assert begins(project) == [0, 0]
    assert project.read("ckpt/mine.txt") == "mine"
    assert (project.store / "runs/b/replaced/1/train/ckpt/state.json").exists()
    pipeline = project.read("runnable.toml")
    project.write({"runnable.toml": "\n".join(it for it in pipeline.splitlines() if "checkpoint =" not in it)})
    assert "nothing to do" in project.runnable("retry", "b").err


@pytest.mark.parametrize("in_place", ["", "1"], ids=["renamed", "in place"])
@pytest.mark.parametrize("end", ["kill the program", "kill the step", "SIGTERM", "time-out"])
def test_however_it_ends(project: Workspace, end: str, in_place: str) -> None:
    """The retry finds a whole checkpoint that is at most one interval old, and no half-written file."""
    if end == "time-out":
        project.write({"runnable.toml": PIPELINE.replace("TIMEOUT", "timeout-minutes = 0.04")})
        project.runnable("run", "--run-id", "r", code=1, IN_PLACE=in_place)
        project.write({"runnable.toml": PIPELINE.replace("TIMEOUT\n", "")})
    else:
        with running(project, "run", "--run-id", "r", epoch=6, IN_PLACE=in_place) as process:
            if end == "kill the step":
                os.killpg(pid_of(project, "r"), signal.SIGKILL)
            else:
                process.send_signal(signal.SIGKILL if end == "kill the program" else signal.SIGTERM)
    assert_resumed(project, "r", time.time())


def test_tries_of_one_run_resume_one_another(project: Workspace) -> None:
    """With `attempts` the next try goes on where the last one failed, and is no foreign one."""
    project.write({"runnable.toml": PIPELINE.replace("TIMEOUT", "attempts = 2")})
    project.commit()
    train = project.read("train.py").replace("if FAIL == str(epoch):", "if epoch == 4 and len(begun()) < 2:")
    counted = "def begun():\n    return open(os.environ['BEGINS']).read().split()\n"
    project.write({"train.py": train.replace("EPOCH_S, FAIL", f"{counted}EPOCH_S, FAIL")})
    project.runnable("run", "--run-id", "r", EPOCH_S="0.02")
    assert begins(project) == [0, 5]
    assert project.read("losses.json") == losses()
    assert not attempts(project, "r")[-1].checkpoint_used.is_foreign


def test_other_code_and_values_are_told(project: Workspace) -> None:
    """A checkpoint that other code made is used, and said everywhere; `--checkpoint drop` starts over for good."""
    project.runnable("run", "--run-id", "r", code=1, FAIL="6", EPOCH_S="0.02")
    project.write({"train.py": project.read("train.py") + "# another\n"})
    said = project.runnable("retry", "r", code=1, FAIL="8", EPOCH_S="0.02").err
    assert "its code differed from now: retry --checkpoint drop starts over" in said
    used = attempts(project, "r")[-1].checkpoint_used
    assert (used.attempt, used.is_foreign, used.differs) == (1, True, ["code"])
    assert "attempt 2 resumed from it; its code differed" in project.runnable("show", "r").out
    # What was resumed from a foreign one is foreign, too.
    project.runnable("retry", "r", code=1, FAIL="9", EPOCH_S="0.02")
    used = attempts(project, "r")[-1].checkpoint_used
    assert (used.attempt, used.is_foreign, used.differs) == (2, True, [])
    project.runnable("retry", "r", "--checkpoint", "drop", code=1, FAIL="0", EPOCH_S="0.02")
    assert begins(project)[-1] == 0
    assert attempts(project, "r")[-1].checkpoint_dropped
    project.runnable("retry", "r", EPOCH_S="0.02")
    assert begins(project)[-1] == 1
    assert project.read("losses.json") == losses()


def test_another_clone_resumes_it(project: Workspace, tmp_path: Path) -> None:
    """A killed run is published, pulled in another clone and resumed there, at most one interval behind."""
    with docker_registry(tmp_path / "registry") as registry:
        repository = registry.repository()
        with running(project, "run", "--run-id", "r", epoch=6) as process:
            process.kill()
        ended_s, before = time.time(), len(epochs(project))
        project.runnable("publish", "r", "--to", repository)
        other = elsewhere(project, tmp_path)
        other.environ.update({name: project.environ[name] for name in ("BEGINS", "DONE")})
        other.runnable("pull", f"{repository}:r", "--only", "log")
        said = other.runnable("retry", "r", EPOCH_S="0.02").err
        assert "resumes from the checkpoint of attempt 1" in said
        assert other.read("losses.json") == losses()
        assert_little_is_lost(project, ended_s, before=before)
        assert_nothing_is_kept(other, "r")


def test_a_lost_machine(project: Workspace, tmp_path: Path) -> None:
    """Published as it goes, a training whose machine is gone with its store is resumed elsewhere."""
    with docker_registry(tmp_path / "registry") as registry:
        where = registry.repository()
        with running(
            project, "run", "--run-id", "r", "--publish=as-you-go", "--to", where, epoch=9, EPOCH_S="0.7"
        ) as it:
            os.killpg(pid_of(project, "r"), signal.SIGSTOP)  # it does not outlive its machine
            it.kill()
        os.killpg(pid_of(project, "r"), signal.SIGKILL)
        shutil.rmtree(project.store)
        other = elsewhere(project, tmp_path)
        other.environ.update({name: project.environ[name] for name in ("BEGINS", "DONE")})
        said = other.runnable("retry", f"{where}:r", "--take-over", EPOCH_S="0.02").err
        assert "resumes from the checkpoint of attempt 1" in said
        assert begins(project)[-1] > 0
        assert other.read("losses.json") == losses()
        assert_nothing_is_kept(other, "r")


def test_a_lost_checkpoint_stops_nothing(project: Workspace) -> None:
    """Where the store has lost it, that is said and the step starts over."""
    project.runnable("run", "--run-id", "r", code=1, FAIL="6", EPOCH_S="0.02")
    [first] = attempts(project, "r")
    lost = first.checkpoint.files["ckpt/state.json"].data_hash
    (project.store / "blobs/sha256" / lost).unlink()
    said = project.runnable("retry", "r", EPOCH_S="0.02").err
    assert "the checkpoint of attempt 1 is lost: ckpt/state.json is in no store" in said
    assert begins(project) == [0, 0]
    assert project.read("losses.json") == losses()


def test_a_pattern_that_matches_nothing(project: Workspace) -> None:
    """It is said when the step ends, and the run goes on."""
    project.write({"runnable.toml": '[steps.a]\nrun = "true"\ncheckpoint = ["nowhere/*"]\n'})
    said = project.runnable("run").err
    assert "note: `checkpoint` has `nowhere/*`, which matches no file" in said


def test_a_short_step_that_leaves_files(project: Workspace) -> None:
    """Where it ends before any look, nothing is said that is not so."""
    project.write({"runnable.toml": '[steps.a]\nrun = "mkdir -p ckpt; echo > ckpt/state"\ncheckpoint = ["ckpt/*"]\n'})
    assert "note" not in project.runnable("run").err


def test_names_and_links_of_all_kinds(project: Workspace) -> None:
    """Names with line breaks and quotes, and links within, come back; what no checkpoint can hold is said."""
    script = """
mkdir -p ckpt
echo 1 > ckpt/epoch
printf 2 > "$(printf 'ckpt/a\\nb')"
printf 3 > "ckpt/it's \\"so\\" \\$5"
printf 4 > "$(printf 'ckpt/\\377')"
ln -sfn epoch ckpt/latest
ln -sfn "$PWD/ckpt/epoch" ckpt/whole
ln -sfn /etc/hostname ckpt/outside
test -e ok
"""
    project.write(
        {"runnable.toml": '[steps.train]\nrun = "sh train.sh"\ncheckpoint = ["ckpt/*"]\n', "train.sh": script}
    )
    said = project.runnable("run", "--run-id", "r", code=1).err
    assert "not in the checkpoint: `ckpt/outside` is behind a link that points outside the workspace" in said
    assert "is not UTF-8" in said
    [attempt] = attempts(project, "r")
    names = {"ckpt/epoch", "ckpt/a\nb", 'ckpt/it\'s "so" $5', "ckpt/latest", "ckpt/whole"}
    assert attempt.checkpoint.files.keys() == names
    shutil.rmtree(project.folder / "ckpt")
    project.write({"train.sh": "cat ckpt/latest ckpt/whole; ls ckpt | wc -l"})
    assert project.runnable("retry", "r").out.split() == ["train", "|", "1", "train", "|", "1", "train", "|", "6"]


def test_what_a_step_writes_is_no_code_of_those_beside_it(project: Workspace) -> None:
    """A large checkpoint that is being written does not make the code of other steps undependable."""
    grow = """
import os, time
os.makedirs("ckpt")
with open("ckpt/state.new", "wb") as file:
    file.truncate(1 << 40)  # more than is ever hashed, and nothing on disk
    time.sleep(3)
os.remove("ckpt/state.new")
"""
    beside = [f'[steps.s{n}]\nrun = "sleep 0.2"\nneeds = {[f"s{n - 1}"] if n else []}\n' for n in range(8)]
    train = f'[steps.train]\nrun = "{sys.executable} train.py"\nneeds = []\ncheckpoint = ["ckpt/*"]\n'
    project.write({"runnable.toml": train + "".join(beside), "train.py": grow})
    project.commit()
    project.runnable("run", "--run-id", "r", "--jobs", "4")
    found = [step.attempts[-1].code_identities[0] for step in project.log("r").steps.values()]
    assert [it.code_identifier_message for it in found if not it.code_identifier_dependable] == []


def test_one_generation_stays_while_the_next_is_made(project: Workspace) -> None:
    """At each moment all that the journal's newest generation has is on disk, and little else."""
    with project.start("run", "--run-id", "r", EPOCH_S="0.4") as process:
        journal = project.store / "runs/r" / JOURNAL
        seen: set[int] = set()
        while process.poll() is None:
            time.sleep(0.01)
            lines = journal.read_bytes().splitlines(keepends=True) if journal.exists() else []
            events = [json.loads(line) for line in lines if line.endswith(b"\n") and b'"generation"' in line]
            if not events or "outcome" in events[-1]["attempt"]:
                continue
            kept = events[-1]["attempt"]["checkpoint"]
            names = {path.name for path in (project.store / "runs/r/checkpoints/train").glob("*")}
            newest = [json.loads(it) for it in journal.read_bytes().splitlines() if b'"generation"' in it]
            if newest == events and process.poll() is None and names:
                assert {file["data_hash"] for file in kept["files"].values()} <= names
                seen.add(kept["generation"])
        process.communicate()
    assert len(seen) > 1


def test_killed_at_random(project: Workspace) -> None:
    """Two kills of the program or of the step, more by `tests/run.sh --long`, wherever it is; each retry goes on."""
    seed = os.environ.get("CHECKPOINT_SEED") or str(time.time_ns())
    chance = random.Random(seed)  # noqa: S311
    kills = runs = 0
    command = ["run", "--run-id", "r0"]
    while kills < KILLS:
        run_id = f"r{runs}"
        with project.start(*command, IN_PLACE=chance.choice(["", "1"]), EPOCH_S="0.25") as process:
            time.sleep(chance.uniform(0.8, 2.5))
            if process.poll() is None:
                kills += 1
                if chance.random() < 0.5:
                    process.kill()
                else:
                    with suppress(OSError, StopIteration):  # it is over
                        os.killpg(pid_of(project, run_id), signal.SIGKILL)
            process.communicate(timeout=30)
        if (project.store / "runs" / run_id / JOURNAL).exists():  # else it was killed before it had begun
            command = ["retry", run_id]
        if process.returncode == 0:
            assert project.read("losses.json") == losses(), f"seed {seed}"
            runs += 1
            command = ["run", "--run-id", f"r{runs}"]
    project.runnable(*command, EPOCH_S="0.02")
    assert project.read("losses.json") == losses(), f"seed {seed}"
    assert_nothing_is_kept(project, f"r{runs}")
