"""Jobs on machines of their own share one run: each runs its steps, and the collected run is that of one machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from cli import Done, Workspace, elsewhere, workspace
from equal_logs import Recorded, assert_equal, recorded
from registry_server import Served, registry
from support import WAIT_S, wait_until

from runnable_ci.runs.model import RunLog

PIPELINE = """
name = "diamond"
[parameters]
seed = 7
[steps.list]
run = 'echo $seed > data.txt; echo "parts=[\\"a\\",\\"b\\",\\"c\\"]" >> $RUNNABLE_OUTPUT'
returns = ["parts"]
catalog = { put = ["data.txt"] }
[steps.quant]
needs = ["list"]
run = '''
cat data.txt > $s.q.txt
if [ $s = b ]; then test -e b.ok; fi
echo "size={\\"v\\":1}" >> $RUNNABLE_OUTPUT
'''
strategy = { matrix = { s = "${{ parameters.parts }}" }, fail-fast = false }
returns = ["size"]
catalog = { get = ["data.txt"], put = ["${{ matrix.s }}.q.txt"] }
[steps.other]
needs = ["list"]
run = "wc -l < data.txt > other.txt"
catalog = { get = ["data.txt"], put = ["other.txt"] }
[steps.small]
needs = ["list"]
if = "parameters.seed < 5"
run = "touch small.txt"
[steps.join]
needs = ["quant", "other", "small"]
run = "cat *.q.txt other.txt > join.txt"
catalog = { get = ["*.q.txt", "other.txt"], put = ["join.txt"] }
[steps.tidy]
needs = ["join"]
if = "always()"
run = "echo over > tidy.txt"
catalog = { put = ["tidy.txt"] }
"""
FILES = {"runnable.toml": PIPELINE, ".gitignore": "*.txt\n*.ok\n.runnable\n"}
STEPS = ("list", "quant", "other", "small", "join", "tidy")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


class Jobs:
    """Jobs of one run, each on a machine of its own."""

    def __init__(self, base: Workspace, folder: Path, where: list[str]) -> None:
        self.base, self.folder, self.where = base, folder, where
        self.numbers = count()

    def machine(self, *files: str) -> Workspace:
        """A new machine, with these files beside the clone."""
        made = elsewhere(self.base, self.folder, f"machine-{next(self.numbers)}")
        for name in files:
            (made.folder / name).touch()
        return made

    def job(self, *words: str, code: int = 0, files: tuple[str, ...] = (), at: Workspace | None = None) -> Done:
        """Run a job to its end."""
        return (at or self.machine(*files)).runnable("run", "--run-id", "shared", *words, *self.where, code=code)

    def collect(self, code: int = 0) -> RunLog:
        """Collect the run; its log."""
        return self._collected(code).log("shared")

    def collected(self, code: int = 0) -> Recorded:
        """Collect the run, with what all of its attempts read."""
        return recorded(self._collected(code), "shared")

    def _collected(self, code: int) -> Workspace:
        last = self.machine()
        self.job("--collect", code=code, at=last)
        return last


@pytest.fixture(params=["registry", "folders"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path, served: Served) -> Jobs:
    """Jobs that meet in a registry, or in a folder."""
    base = workspace(tmp_path, FILES)
    if request.param == "registry":
        return Jobs(base, tmp_path, ["--to", served.repository()])
    parts = tmp_path / "parts"
    parts.mkdir()
    return Jobs(base, tmp_path, ["--to", str(parts), "--from", str(parts)])


def at_once(*works: Callable[[], object]) -> None:
    """Do all of it at the same time."""
    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(work) for work in works]:
            future.result()


def here(base: Workspace, tmp_path: Path, *, files: tuple[str, ...] = (), code: int = 0) -> Workspace:
    """The same run on one machine."""
    made = elsewhere(base, tmp_path, "one")
    for name in files:
        (made.folder / name).touch()
    # One after the other: of steps that run at once in one folder it is not known which of them looked for a file.
    made.runnable("run", "--run-id", "shared", "--jobs", "1", code=code)
    return made


def ran(log: RunLog) -> dict[str, int]:
    """How many attempts each step had."""
    return {name: len(step.attempts) for name, step in log.steps.items() if step.attempts}


@pytest.mark.promise
def test_the_collected_run_is_that_of_one_machine(jobs: Jobs, tmp_path: Path) -> None:
    """Jobs in parallel, an instance each, conditions, and a step that always runs; all is made once."""
    first = jobs.job("--step", "list", "--matrix-of", "quant")
    assert json.loads(first.out) == {"quant": ["a", "b", "c"]}
    at_once(
        *(lambda key=key: jobs.job("--step", "quant", "--instances", key, files=("b.ok",)) for key in "abc"),
        lambda: jobs.job("--step", "other", "--step", "small"),
    )
    jobs.job("--step", "join", files=("b.ok",))  # it lists the folder in which that is
    jobs.job("--step", "tidy")
    run = jobs.collected()
    one = here(jobs.base, tmp_path, files=("b.ok",))
    assert_equal(recorded(one, "shared").in_one_invocation(), run.in_one_invocation())
    assert set(ran(run.log).values()) == {1}


@pytest.mark.promise
def test_a_failed_instance_alone_runs_again(jobs: Jobs, tmp_path: Path) -> None:
    """With what follows; the same commands with the same id find the rest, as a retry on one machine does."""
    jobs.job("--step", "list")
    jobs.job("--step", "quant", "--instances", "1/2")
    failed = jobs.job("--step", "quant", "--instances", "2/2", "--jobs", "1", code=1)
    assert "failed: quant (b)" in failed.err
    jobs.job("--step", "other", "--step", "small")
    not_run = jobs.job("--step", "join", code=1)
    assert "`quant` failed" in not_run.err
    jobs.job("--step", "tidy")
    run = jobs.collected(code=1)
    one = here(jobs.base, tmp_path, code=1)
    assert_equal(recorded(one, "shared").in_one_invocation(), run.in_one_invocation())

    again = jobs.job("--step", "quant", files=("b.ok",))
    assert "quant (a) | reuse" in again.err
    jobs.job("--step", "join")
    jobs.job("--step", "tidy")
    log = jobs.collect()
    (one.folder / "b.ok").touch()
    one.runnable("retry", "shared", "--jobs", "1")
    assert ran(log) == ran(one.log("shared")) == {**dict.fromkeys(ran(log), 1), "quant.b.quant": 2, "tidy": 2}
    assert {name: step.status for name, step in log.steps.items()} == {
        name: step.status for name, step in one.log("shared").steps.items()
    }
    assert (log.status, log.invocations[-1].decisions["quant.a.quant"].action) == ("SUCCESS", "reuse")


ROUNDS = """
name = "diamond"
[steps.first]
run = "true"
[steps.train]
needs = ["first"]
loop = { until = "parameters.count >= 3", max = 4 }
returns = ["count"]
run = 'echo "count=$((${count:-0} + 1))" >> "$RUNNABLE_OUTPUT"'
[steps.last]
needs = ["train"]
run = "echo it was $count"
"""


def test_all_rounds_of_a_loop_are_one_job_s(jobs: Jobs, tmp_path: Path) -> None:
    """Though how many there are is known only as they come."""
    jobs.base.write({"runnable.toml": ROUNDS})
    jobs.base.commit()
    for step in ("first", "train", "last"):
        jobs.job("--step", step)
    run = jobs.collected()
    one = here(jobs.base, tmp_path)
    assert_equal(recorded(one, "shared").in_one_invocation(), run.in_one_invocation())
    assert set(ran(run.log)) == {"first", "last", *(f"train.{number}.train" for number in (1, 2, 3))}


def test_jobs_that_begin_at_once_begin_one_run(jobs: Jobs) -> None:
    """None of them has seen the others, and the run is one."""
    jobs.base.write(
        {"runnable.toml": 'name = "roots"\n' + "".join(f'[steps.{s}]\nneeds = []\nrun = "echo {s}"\n' for s in "wxyz")}
    )
    jobs.base.commit()
    at_once(*(lambda step=step: jobs.job("--step", step) for step in "wxyz"))
    log = jobs.collect()
    assert (log.status, ran(log)) == ("SUCCESS", dict.fromkeys("wxyz", 1))
    assert [one.command for one in log.invocations].count("run") == 4


@pytest.mark.promise
def test_a_job_that_was_killed_is_lost(jobs: Jobs) -> None:
    """What it had published of the step in flight is a failure; its steps run again, and nothing else."""
    slow = PIPELINE.replace('run = "wc', 'run = "test -e quick.ok || sleep 60; wc')
    jobs.base.write({"runnable.toml": slow})
    jobs.base.commit()
    jobs.job("--step", "list")
    victim = jobs.machine()
    with victim.start("run", "--run-id", "shared", "--step", "other", *jobs.where) as running:
        journal = victim.store / "runs" / "shared" / "journal.jsonl"
        wait_until(lambda: journal.exists() and b'"step":"other"' in journal.read_bytes(), "the step has begun")
        running.send_signal(signal.SIGKILL)
        running.wait(WAIT_S)
    jobs.job("--step", "quant", "--step", "small", files=("b.ok",))
    jobs.job("--step", "join", code=1)
    log = jobs.collect(code=1)
    assert "other" in log.message and log.status == "FAIL"
    assert log.steps["join"].status == "SKIPPED"
    jobs.job("--step", "other", files=("quick.ok",))
    jobs.job("--step", "join", "--step", "tidy")
    log = jobs.collect()
    assert (log.status, log.message) == ("SUCCESS", "")
    assert {len(step.attempts) for name, step in log.steps.items() if name.startswith("quant.")} == {1}


def test_a_job_that_never_came_is_lost(jobs: Jobs) -> None:
    """Who collects says which, and the run is resumable."""
    jobs.job("--step", "list", "--step", "quant", "--step", "small", files=("b.ok",))
    log = jobs.collect(code=1)
    assert log.message == "lost: other, tidy"
    assert log.steps["other"].message == "no job has run it: its job was lost, or never began"
    jobs.job("--step", "other")
    jobs.job("--step", "join", "--step", "tidy")
    assert jobs.collect().status == "SUCCESS"


def test_a_job_says_what_finished_work_it_repeats(jobs: Jobs) -> None:
    """In one line, with why; what is accepted is reused, and what ran for the first time repeats nothing."""
    first = jobs.job("--step", "list")
    assert "this repeats" not in first.err
    jobs.base.replace("runnable.toml", "echo $seed", "echo 1$seed")
    jobs.base.commit()
    accepted = jobs.job("--step", "list", "--accept", "list", "--reason", "the same")
    assert "reuse" in accepted.err
    assert "this repeats" not in accepted.err
    jobs.base.replace("runnable.toml", "echo 1$seed", "echo 2$seed")
    jobs.base.commit()
    again = jobs.job("--step", "list")
    (line,) = (line for line in again.err.splitlines() if "this repeats" in line)
    assert re.fullmatch(r"note: this repeats [\d.]+ s of finished work: `list` \([\d.]+ s\); its `run` changed", line)


def test_a_stale_result_is_not_used(jobs: Jobs) -> None:
    """What a step needs ran again and made something else; until its own job has looked at that, nothing uses it."""
    jobs.job(
        "--step", "list", "--step", "other", "--step", "quant", "--step", "small", "--step", "join", files=("b.ok",)
    )
    jobs.job("--step", "tidy")
    assert jobs.collect().status == "SUCCESS"
    jobs.job("--step", "list", "-p", "seed=8")
    stale = jobs.job("--step", "join", code=1)
    assert "no job has run it since `list` ran again" in stale.err
    jobs.job("--step", "other", "--step", "small")
    jobs.job("--step", "quant", files=("b.ok",))
    jobs.job("--step", "join", "--step", "tidy")
    log = jobs.collect()
    assert log.status == "SUCCESS"
    assert set(ran(log).values()) == {2}


def test_what_a_job_must_be_told(tmp_path: Path, served: Served) -> None:
    """Mistakes are errors with a hint, before anything runs."""
    base = workspace(tmp_path, FILES)
    to = ["--to", served.repository()]
    for words, said in (
        (["--step", "list"], "--step needs the id"),
        (["--run-id", "s", "--step", "lis"], "has no step `lis`"),
        (["--run-id", "s", "--step", "list", "--instances", "1/2"], "--instances needs one step that has a matrix"),
        (["--run-id", "s", "--step", "quant", "--instances", "3/2"], "there is no such part"),
        (["--run-id", "s", "--step", "quant", "--instances", "a,,b"], "an instance without a key"),
        (["--run-id", "s", "--step", "quant", "--instances", ""], "--instances names no instance"),
        (["--run-id", "s", "--step", "quant", "--instances", " "], "--instances names no instance"),
        (["--run-id", "s", "--instances", "a"], "--instances is for a job"),
        (["--run-id", "s", "--instances", ""], "--instances is for a job"),
        (["--run-id", "s", "--collect", "--step", "list"], "--collect runs no step"),
        (["--run-id", "s", "--step", "list", "--until", "join"], "--until is for a whole run"),
        (["--run-id", "s", "--matrix-of", "list"], "has no matrix"),
        (["--run-id", "latest", "--step", "list"], "cannot be a run id"),
        (["--run-id", "s", "--step", "list", "--from", "nowhere"], "there is no such folder"),
    ):
        where = [] if "--from" in words else to
        assert said in base.runnable("run", *words, *where, code=2).err
    missing = base.runnable("run", "--run-id", "s", "--collect", *to, code=2)
    assert "no job has published anything of run `s`" in missing.err
    assert "no registry" in base.runnable("run", "--run-id", "s", "--step", "list", code=2).err
    assert not (base.folder / "data.txt").exists()
    base.runnable("run", "--run-id", "s", "--step", "list", *to)
    wrong = elsewhere(base, tmp_path).runnable(
        "run", "--run-id", "s", "--step", "quant", "--instances", "d", *to, code=2
    )
    assert "has no instance `d`" in wrong.err


def in_folders(tmp_path: Path, files: dict[str, str]) -> Jobs:
    """Jobs that meet in one folder."""
    parts = tmp_path / "parts"
    parts.mkdir()
    return Jobs(workspace(tmp_path, files), tmp_path, ["--to", str(parts), "--from", str(parts)])


@pytest.mark.parametrize("instances", [[], ["--instances", "9"], ["--instances", "1/2"]])
def test_a_job_whose_step_did_not_run_fails(tmp_path: Path, instances: list[str]) -> None:
    """Whichever instances it has: that none are known is no success. The run can be finished nevertheless."""
    jobs = in_folders(tmp_path, FILES)
    early = jobs.job("--step", "quant", *instances, code=1)
    assert "not run: quant" in early.err
    jobs.job("--step", "list", "--step", "quant", "--step", "other", "--step", "small", files=("b.ok",))
    jobs.job("--step", "join", "--step", "tidy")
    assert jobs.collect().status == "SUCCESS"


def test_a_job_whose_step_is_left_out(tmp_path: Path) -> None:
    """Its condition leaves it out: that is no failure. An instance that there is not is one, in the first job too."""
    pipeline = """
[parameters]
sizes = [3, 4]
[steps.out]
if = "1 > 2"
run = "true"
strategy = { matrix = { size = "${{ parameters.sizes }}" } }
[steps.each]
needs = []
run = "true"
strategy = { matrix = { size = "${{ parameters.sizes }}" } }
"""
    jobs = in_folders(tmp_path, {"runnable.toml": pipeline, ".gitignore": ".runnable\n"})
    assert "has no instance `9`" in jobs.job("--step", "each", "--instances", "9", code=2).err  # nobody began the run
    assert "has no instance `9`" in jobs.job("--step", "each", "--instances", "9", "--dry-run", code=2).err
    jobs.job("--step", "out", "--instances", "3")


def test_a_secret_stays_in_its_job(tmp_path: Path) -> None:
    """The hint is one that the command of a job knows."""
    pipeline = """
secrets = ["v"]
[steps.one]
run = 'echo "v=c0rrect-$(echo h0rse)" >> $RUNNABLE_OUTPUT'
returns = ["v"]
[steps.two]
needs = ["one"]
run = "test $v = c0rrect-$(echo h0rse)"
"""
    jobs = in_folders(tmp_path, {"runnable.toml": pipeline, ".gitignore": ".runnable\n"})
    jobs.job("--step", "one")
    for steps in (["two"], ["one", "two"]):
        lost = jobs.job(*(word for step in steps for word in ("--step", step)), code=2)
        assert "`v`, which `one` returned: it is a secret" in lost.err
        assert "hint: a new run, with another --run-id, runs `one`" in lost.err
        assert "--from" not in lost.err
    together = jobs.machine()
    together.runnable("run", "--run-id", "other", "--step", "one", "--step", "two", *jobs.where)


def test_folders_are_carried_one_for_each_job(tmp_path: Path) -> None:
    """As artifacts are: each has what its job made, and all together the run."""
    base = workspace(tmp_path, FILES)
    jobs, got = Jobs(base, tmp_path, []), tmp_path / "got"
    got.mkdir()
    for number, words in enumerate((["list"], ["other", "small"], ["quant"], ["join", "tidy"])):
        steps = [word for step in words for word in ("--step", step)]
        jobs.job(*steps, "--from", str(got), "--to", str(tmp_path / "left"), files=("b.ok",))
        shutil.move(tmp_path / "left", got / f"part-{number}")
    last = jobs.machine()
    jobs.job("--collect", "--from", str(got), "--to", str(tmp_path / "whole"), at=last)
    assert last.log("shared").status == "SUCCESS"
    blobs = [{it.name for it in (got / f"part-{n}" / "blobs" / "sha256").iterdir()} for n in range(4)]
    assert len(set.intersection(*blobs)) == 1  # the config of every artifact, `{}`


def stored(blobs: Path, content: bytes) -> dict[str, object]:
    """What names a new blob, by a digest that is right."""
    name = hashlib.sha256(content).hexdigest()
    (blobs / name).write_bytes(content)
    return {"digest": f"sha256:{name}", "size": len(content)}


@pytest.mark.promise
@pytest.mark.parametrize("how", ["link", "other run", "damaged log", "index", "no run", "step name", "pipe", "outside"])
def test_a_hostile_folder_changes_nothing(tmp_path: Path, how: str) -> None:
    """It is refused with an error, and what is here stays as it is."""
    base = workspace(tmp_path, FILES)
    jobs, parts = Jobs(base, tmp_path, []), tmp_path / "parts"
    mine = jobs.machine()
    jobs.job("--step", "list", "--to", str(parts), at=mine)
    before = mine.log("shared")
    blobs = parts / "blobs" / "sha256"
    index = json.loads((parts / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    log = (
        blobs
        / next(it["digest"] for it in manifest["layers"] if "run-log" in it["mediaType"] or "log" in it["mediaType"])[
            7:
        ]
    )
    match how:
        case "link":
            shutil.move(log, tmp_path / "log")
            log.symlink_to(tmp_path / "log")
        case "pipe":
            log.unlink()
            os.mkfifo(log)
        case "outside":
            forged = log.read_bytes().replace(b'"data.txt"', b'"../data.txt"')
            layer = next(it for it in manifest["layers"] if it["digest"].endswith(log.name))
            layer |= stored(blobs, forged)
            index["manifests"][0] |= stored(blobs, json.dumps(manifest).encode())
            (parts / "index.json").write_text(json.dumps(index))
        case "other run":
            other = workspace(tmp_path, {**FILES, "runnable.toml": PIPELINE.replace("diamond", "else")}, name="other")
            shutil.rmtree(parts)
            other.runnable("run", "--run-id", "shared", "--step", "list", "--to", str(parts))
        case "damaged log":
            log.chmod(0o644)
            log.write_bytes(log.read_bytes().replace(b"SUCCESS", b"FAILURE"))
        case "index":
            index["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
            (parts / "index.json").write_text(json.dumps(index))
        case "no run":
            index["manifests"][0] |= {"digest": manifest["config"]["digest"], "size": manifest["config"]["size"]}
            (parts / "index.json").write_text(json.dumps(index))
        case "step name":
            (parts / "index.json").unlink()
            (parts / "index.json").mkdir()
    refused = mine.runnable(
        "run", "--run-id", "shared", "--step", "other", "--from", str(parts), code=1 if how != "other run" else 2
    )
    assert "error:" in refused.err
    assert mine.log("shared") == before


def test_the_first_job_may_only_ask_for_instances(tmp_path: Path, served: Served) -> None:
    """Of a matrix that parameters give: it begins no run, which the jobs after it do."""
    matrix = 'strategy = { matrix = { size = "${{ parameters.sizes }}" } }'
    pipeline = f"[parameters]\nsizes = [1]\n[steps.each]\nrun = 'echo $size'\n{matrix}\n"
    project = workspace(tmp_path, {"runnable.toml": pipeline, ".gitignore": ".runnable\n"})
    words = ["run", "--run-id", "asked", "--param", "sizes=[3, 4]", "--to", f"{served.host}/asked/runs"]
    assert json.loads(project.runnable(*words, "--matrix-of", "each").out) == {"each": ["3", "4"]}
    assert "asked" not in project.runnable("runs").out
    other = elsewhere(project, tmp_path, "other")
    other.runnable(*words, "--step", "each", "--instances", "4")
    assert ran(other.log("asked")) == {"each.4.each": 1}
