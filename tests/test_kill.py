"""kill -9 at random moments: what is left is readable, nothing half-written is taken for whole, and the run goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import blobs, environment, index_of, leftovers, sha256, start, wait_until

from runnable_ci.errors import RunNotFoundError
from runnable_ci.runs.model import FAIL, PROCESSING, SUCCESS, RunLog
from runnable_ci.runs.paths import JOURNAL, is_running
from runnable_ci.runs.reader import catalog_of, load, run_ids
from runnable_ci.store.local import Layout
from runnable_ci.store.target import manifest_parts, read_manifest
from runnable_ci.util.process import start_time

RUN_ID = "killed"
SHARES = int(os.environ.get("KILL_SHARES", "2"))
KILLS_A_SHARE = 10
KILLS_A_RUN_MAX = 5
BIG_BYTES = 30_000_000
SMALL_FILES = 40
BIG = (b"big\n" * (BIG_BYTES // 4 + 1))[:BIG_BYTES]
BIG_SHA256 = sha256(BIG)

# A step writes under final names only what is whole: any part of a file that is found there is then ours.
PIPELINE = f"""
python = "{sys.executable}"
[parameters]
size = 7
[steps.make]
run = '''
new=making.$$; mkdir $new $new/small
head -c {BIG_BYTES} < <(yes big) > $new/big.bin
for i in $(seq {SMALL_FILES}); do echo "content $i" > $new/small/$i.txt; done
rm -rf small; mv -T $new/small small; mv $new/big.bin big.bin; rmdir $new
'''
catalog = {{ put = ["big.bin", "small"] }}
[steps.train]
needs = []
python = "work:train"
returns = {{ model = "object", loss = "metric" }}
[steps.lose]
needs = ["make"]
run = "echo losing; echo noise >&2; rm -rf big.bin small; echo lost"
[steps.take]
run = '''
sha256sum big.bin small/*.txt > sums.$$; mv sums.$$ sums.txt
echo "big=$(wc -c < big.bin)" >> $RUNNABLE_OUTPUT
'''
returns = ["big"]
catalog = {{ get = ["big.bin", "small/*"], put = ["sums.txt"] }}
[steps.check]
needs = ["take", "train"]
python = "work:check"
returns = {{ verdict = "json" }}
catalog = {{ get = ["sums.txt"] }}
"""
WORK = """
import time
def train(size):
    time.sleep(0.1)
    return list(range(size)), 0.5
def check(model, big):
    return f"{sum(model)} {big} {len(open('sums.txt').readlines())}"
"""
VERDICT = f"21 {BIG_BYTES} {SMALL_FILES + 1}"


@dataclass(frozen=True)
class Project:
    """A folder with the pipeline in it."""

    folder: Path
    environ: Mapping[str, str]
    log: Path

    @property
    def store(self) -> Path:
        """Its store."""
        return self.folder / ".runnable"

    @property
    def layout(self) -> Layout:
        """Its store as a new process sees it."""
        return Layout(self.store)

    @property
    def journal(self) -> Path:
        """The journal of its run."""
        return self.store / "runs" / RUN_ID / JOURNAL

    def start(self) -> subprocess.Popen[bytes]:
        """A process that begins the run, or goes on with it where there is one."""
        known = RUN_ID in run_ids(self.layout) if self.store.exists() else False
        words = ["retry", RUN_ID] if known else ["run", "--run-id", RUN_ID]
        return start(self.folder, *words, "--jobs", "2", environ=self.environ, log=self.log)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A repository with the pipeline and one change that is not committed."""
    folder = tmp_path_factory.mktemp("template")
    environ = environment(tmp_path_factory.mktemp("home"))
    (folder / "runnable.toml").write_text(PIPELINE)
    (folder / "work.py").write_text(WORK)
    (folder / ".gitignore").write_text("making.*\nsums.*\n__pycache__\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "a"]):
        subprocess.run(["git", *words], cwd=folder, env=environ, check=True)
    (folder / "work.py").write_text(WORK + "# changed\n")
    return Project(folder, environ, folder.with_name("log"))


@pytest.fixture(scope="module")
def durations_s(template: Project, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, float]:
    """How long a run takes on this machine until it has a journal, and in all."""
    project = copy_of(template, tmp_path_factory.mktemp("whole"))
    began = time.monotonic()
    process = project.start()
    wait_until(project.journal.exists, "the journal")
    opened = time.monotonic()
    assert process.wait() == 0, project.log.read_text()
    ended = time.monotonic()
    check_finished(project)
    return opened - began, ended - began


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """A copy of the project, in which nothing was run."""
    return copy_of(template, tmp_path)


def copy_of(template: Project, folder: Path) -> Project:
    shutil.copytree(template.folder, folder / "project")
    return Project(folder / "project", template.environ, folder / "log")


def check_after_kill(project: Project) -> None:
    """Everything that must hold whenever the tool was killed."""
    check_contents(project)
    if RUN_ID not in run_ids(project.layout):
        return
    # A process that was just being started is a copy of the tool, with its lock, until it has become the other program.
    wait_until(lambda: not is_running(project.layout, RUN_ID), "the lock to be free")
    log = load(project.layout, RUN_ID)
    assert log.status in (FAIL, SUCCESS)
    for (step, number), status in attempts_in_journal(project).items():
        attempt = next(a for a in log.steps[step].attempts if a.attempt_number == number)
        if status == PROCESSING:
            assert attempt.status == FAIL
            assert attempt.message.startswith("interrupted")
        else:
            assert attempt.status == status


def check_contents(project: Project) -> None:
    """Blobs are what their names say, the index is valid, restored files are whole or absent."""
    for digest, path in blobs(project.store).items():
        assert sha256(path) == digest
    if (project.store / "index.json").exists():
        assert index_of(project.store)["schemaVersion"] == 2
        for descriptor in project.layout.manifests().values():
            with project.layout.fetch(descriptor) as file:
                raw = read_manifest(file, descriptor, label="the store")
            for part in manifest_parts(raw, descriptor, label="the store"):
                assert project.layout.is_intact(part)
    big = project.folder / "big.bin"
    assert not big.exists() or sha256(big) == BIG_SHA256
    for path in (project.folder / "small").glob("*"):
        assert path.read_text() == f"content {path.stem}\n"
    assert [name for name in leftovers(project.folder) if not name.startswith(".runnable/tmp/")] == []


def attempts_in_journal(project: Project) -> dict[tuple[str, int], str]:
    """The last status of each attempt that whole lines of the journal tell."""
    found = {}
    for line in project.journal.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n") and (event := json.loads(line))["event"] == "attempt":
            attempt = event["attempt"]
            found[event["step"], attempt.get("attempt_number", 1)] = attempt.get("status", PROCESSING)
    return found


def check_finished(project: Project) -> RunLog:
    """A run that ended well, with everything that it should have made."""
    check_contents(project)
    log = load(project.layout, RUN_ID)
    assert log.status == SUCCESS
    assert {name: step.status for name, step in log.steps.items()} == dict.fromkeys(log.steps, SUCCESS)
    assert len(log.steps) == 5
    assert log.steps["check"].attempts[-1].output_parameters["verdict"].value == VERDICT
    assert sha256(project.folder / "big.bin") == BIG_SHA256
    assert len(list((project.folder / "small").iterdir())) == SMALL_FILES
    catalog = catalog_of(project.layout, log)
    for step in log.steps.values():
        for entry in step.data_catalog:
            for _ in catalog.read(entry.data_hash, entry.size):
                pass
    # As the next invocation does: a child of the killed process may have held a lock a little longer than the last one.
    project.layout.sweep()
    assert leftovers(project.store) == []
    return log


def finish(project: Project) -> None:
    """Let the run come to its end."""
    process = project.start()
    assert process.wait(timeout=60) == 0, project.log.read_text()
    check_finished(project)
    assert RUN_ID in project.layout.manifests()


@pytest.mark.promise
@pytest.mark.parametrize("share", range(SHARES))
def test_a_run_that_is_killed_again_and_again_at_random_moments_comes_to_its_end(
    share: int, template: Project, durations_s: tuple[float, float], tmp_path: Path
) -> None:
    """After each kill the run log reads and nothing half-written counts; a retry finishes the run."""
    seed = int(os.environ.get("KILL_SEED", time.time_ns() % 1_000_000)) + share
    print(f"KILL_SEED={seed - share} share {share}, a whole run takes {durations_s}")
    chance = random.Random(seed)  # noqa: S311 - moments to kill at
    kills = rounds = 0
    while kills < KILLS_A_SHARE:
        project = copy_of(template, tmp_path / str(rounds))
        rounds += 1
        for _ in range(chance.randint(2, KILLS_A_RUN_MAX)):
            process = project.start()
            time.sleep(chance.uniform(0.8 * durations_s[0], durations_s[1]))
            process.kill()
            if process.wait() != -signal.SIGKILL:
                break
            kills += 1
            check_after_kill(project)
        finish(project)
        shutil.rmtree(tmp_path / str(rounds - 1))


def in_put(project: Project) -> bool:
    """Whether a large file is being stored."""
    return any(size > BIG_BYTES / 10 for size in sizes_of_temporaries(project))


def in_get(project: Project) -> bool:
    """Whether a file is being restored."""
    if not project.journal.exists() or b'"step":"take"' not in project.journal.read_bytes():
        return False
    return any(size > BIG_BYTES / 10 for size in sizes_of_temporaries(project))


def in_seal(project: Project) -> bool:
    """Whether the run has ended and is being made an artifact."""
    return project.journal.exists() and b'"event":"ended"' in project.journal.read_bytes()


def sizes_of_temporaries(project: Project) -> list[int]:
    found = []
    for path in (project.store / "tmp").glob(".*.tmp"):
        with suppress(FileNotFoundError):
            found.append(path.stat().st_size)
    return found


@pytest.mark.parametrize("moment", [in_put, in_get, in_seal])
def test_a_run_that_is_killed_while_it_moves_files_comes_to_its_end(
    moment: Callable[[Project], bool], project: Project
) -> None:
    """A kill in the midst of a put, a get or the sealing leaves nothing half, and a retry finishes the run."""
    process = project.start()
    wait_until(lambda: moment(project), moment.__name__, poll_s=0.0005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the moment was over already"
    check_after_kill(project)
    finish(project)


def test_a_retry_ends_the_processes_that_a_killed_run_left(tmp_path: Path) -> None:
    """A step that outlived its run writes nothing more once the retry begins."""
    endless = "echo $$ > pid; until [ -e go ]; do echo tick >> ticks; sleep 0.01; done"
    (tmp_path / "runnable.toml").write_text(f'[steps.endless]\nrun = "{endless}"\n')
    project = Project(tmp_path, environment(tmp_path / "home"), tmp_path / "log")
    ticks = tmp_path / "ticks"
    process = project.start()
    wait_until(lambda: ticks.exists() and ticks.stat().st_size > 20, "the step's first ticks")
    process.kill()
    process.wait()
    size = ticks.stat().st_size
    wait_until(lambda: ticks.stat().st_size > size, "the step to outlive the run")
    orphan = int((tmp_path / "pid").read_text())
    (tmp_path / "runnable.toml").write_text('[steps.endless]\nrun = "cp ticks before; sleep 0.1; cmp ticks before"\n')
    retry = start(tmp_path, "retry", RUN_ID, environ=project.environ, log=project.log)
    try:
        assert retry.wait(timeout=60) == 0, project.log.read_text()
        assert start_time(orphan) == ""
    finally:
        (tmp_path / "go").touch()


@pytest.mark.promise
def test_a_retry_ends_what_left_the_session_of_a_killed_run(tmp_path: Path) -> None:
    """Also what the step's own end, or an environment of its own, has parted from it; a noted server stays."""
    tick = "until [ -e go ]; do echo tick >> $1; sleep 0.01; done"
    (tmp_path / "tick.sh").write_text(f"{tick}\n")
    steps = """
    [steps.server]
    background = true
    run = "setsid sh tick.sh served > /dev/null 2>&1 &"
    [steps.endless]
    run = "setsid sh tick.sh marked > /dev/null 2>&1 & env -i PATH=$PATH setsid sh tick.sh descends & sleep 60"
    """
    (tmp_path / "runnable.toml").write_text(steps)
    project = Project(tmp_path, environment(tmp_path / "home"), tmp_path / "log")
    names = ("served", "marked", "descends")
    process = project.start()
    wait_until(lambda: all((tmp_path / name).exists() for name in names), "the ticks of all")
    process.kill()
    process.wait()
    (tmp_path / "runnable.toml").write_text(
        f'{steps.partition("[steps.endless]")[0]}[steps.endless]\nrun = "sh look.sh"\n'
    )
    (tmp_path / "look.sh").write_text(
        "for n in served marked descends; do cp $n $n.was; done; sleep 0.3\n"
        "cmp marked marked.was && cmp descends descends.was && ! cmp -s served served.was\n"
    )
    retry = start(tmp_path, "retry", RUN_ID, environ=project.environ, log=project.log)
    try:
        assert retry.wait(timeout=60) == 0, project.log.read_text()
    finally:
        (tmp_path / "go").touch()


def test_a_kill_before_the_first_line_of_the_journal_leaves_no_run(tmp_path: Path) -> None:
    """A run that never began is not listed, and its id can be used."""
    (tmp_path / "runnable.toml").write_text('[steps.one]\nrun = "true"\n')
    folder = tmp_path / ".runnable" / "runs" / RUN_ID
    project = Project(tmp_path, environment(tmp_path / "home"), tmp_path / "log")
    project.layout.create()
    folder.mkdir(parents=True)
    assert RUN_ID not in run_ids(project.layout)
    with pytest.raises(RunNotFoundError):
        load(project.layout, RUN_ID)
    assert project.start().wait() == 0
    assert load(project.layout, RUN_ID).status == SUCCESS
