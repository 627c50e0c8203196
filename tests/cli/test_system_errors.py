"""Tests of what the operating system refuses: a sentence with the place and the way out, and no traceback."""

from __future__ import annotations

import re
import resource
import subprocess
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, workspace
from support import WAIT_S

FILE = "[steps.a]\nrun = 'echo 1 > a.txt'\ncatalog = { put = ['a.txt'] }\n[steps.b]\nrun = 'echo two'\n"
READING = ("show r", "logs r", "runs", "catalog r", "check")
COMMANDS = ("run", "retry r", "gc", "publish r --to localhost:1/x", *READING)


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """Two steps that ran once."""
    made = workspace(tmp_path, {"runnable.toml": FILE})
    made.runnable("run", "--run-id", "r")
    return made


def ended(project: Workspace, script: str) -> tuple[int, str]:
    """How a script of `sh` ends in the folder, with a new user of its own who may mount, and what it prints of errors.

    `$0` is the program.
    """
    done = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, PROGRAM],
        cwd=project.folder,
        env=project.environ,
        capture_output=True,
        timeout=WAIT_S,
    )
    err = done.stderr.decode()
    assert "Traceback" not in err, err
    return done.returncode, err


def each(*commands: str) -> str:
    """The part of a script that gives each command, and prints which, with the exit code, before the next."""
    return "".join(f'"$0" {command} > /dev/null; echo "{command}: $?" >&2\n' for command in commands)


def test_a_working_folder_that_is_gone(project: Workspace) -> None:
    """Each command says so."""
    _, err = ended(project, f"mkdir gone; cd gone; rmdir ../gone\n{each(*COMMANDS)}")
    sentence = "error: the current folder is gone\nhint: change into one that exists\n"
    assert err == "".join(f"{sentence}{command}: 2\n" for command in COMMANDS)


def test_a_store_that_is_read_only(project: Workspace) -> None:
    """What writes says that it cannot; what reads works."""
    _, err = ended(project, f"mount --bind .runnable .runnable; mount -o remount,bind,ro .runnable\n{each(*COMMANDS)}")
    writing = COMMANDS[: -len(READING)]
    refused = rf"error: cannot use {project.store}/\S+: Read-only file system\nhint: make it writable, then try again\n"
    err = re.sub(r"^store: .*\n", "", err, flags=re.MULTILINE)  # what `gc` removes from
    expected = "".join([*(f"{refused}{command}: 1\n" for command in writing), *(f"{c}: 0\n" for c in READING)])
    assert re.fullmatch(expected, err), err


@pytest.mark.parametrize("limit", [8, 12, 16, 20, 24])
def test_few_open_files(project: Workspace, limit: int) -> None:
    """The run or its step fails by that, with what to do; with more of them a retry finishes it."""

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    done = subprocess.run(
        [PROGRAM, "run", "--run-id", "few"],
        cwd=project.folder,
        env=project.environ,
        capture_output=True,
        timeout=WAIT_S,
        preexec_fn=few,
    )
    err = done.stderr.decode()
    assert "Traceback" not in err, err
    if done.returncode:
        assert "Too many open files\n" in err
        assert "ulimit -n" in err
    known = "few" in project.runnable("runs").out
    project.runnable(*(("retry", "few") if known else ("run", "--run-id", "few")))
    assert project.log("few").status == "SUCCESS"


def test_no_room_for_another_file(project: Workspace) -> None:
    """What is missing is inodes, not space; once there are some, a retry resumes."""
    fill = "i=0; while : > f$i; do i=$((i+1)); done 2> /dev/null; echo full >&2"
    (project.folder / "runnable.toml").write_text(f"{FILE}[steps.fill]\nrun = '{fill}'\n")
    script = """
    mkdir disk; mount -t tmpfs -o nr_inodes=60,size=9m none disk; cp runnable.toml disk; cd disk
    "$0" run --run-id full; test $? = 1 || exit 9
    "$0" retry full; test $? = 1 || exit 9
    rm f*
    sed -i '/fill/,$d' runnable.toml
    "$0" retry full || exit 9
    test -n "$("$0" show full | grep SUCCESS)"
    """
    code, err = ended(project, script)
    assert code == 0, err
    assert "error: no room for more files on the disk of " in err
    assert "hint: remove some files (`df -i` counts them), then try again" in err


@pytest.mark.promise
def test_a_disk_that_is_full(project: Workspace) -> None:
    """How the run ended is recorded though it cannot be sealed, and a retry with space seals it."""
    fill = "dd if=/dev/zero of=big bs=4k 2> /dev/null || true; rm -f spare"
    (project.folder / "runnable.toml").write_text(f"{FILE}[steps.fill]\nrun = '{fill}'\n")
    script = """
    mkdir disk; mount -t tmpfs -o size=1m none disk; cp runnable.toml disk; cd disk
    dd if=/dev/zero of=spare bs=4k count=2 2> /dev/null
    "$0" run --run-id full; test $? = 1 || exit 9
    "$0" show full || exit 9
    rm big
    "$0" retry full || exit 9
    grep -q full .runnable/index.json
    """
    code, err = ended(project, script)
    assert code == 0, err
    assert "error: no space left on the disk of " in err


def test_a_worker_whose_disk_is_full(project: Workspace) -> None:
    """It says so and leaves, though nothing that it gave can be kept; the run waits no longer for it."""
    fill = "dd if=/dev/zero of=big bs=4k 2> /dev/null || true; echo full"
    executor = '[executors.node]\ncommand = "sh -c {}"\n'
    (project.folder / "runnable.toml").write_text(f"{executor}[steps.fill]\nrun = '{fill}'\nexecutor = 'node'\n")
    script = """
    mkdir disk; mount -t tmpfs -o size=3m none disk; cp runnable.toml disk; cd disk
    timeout 30 "$0" run --run-id full >&2; test $? = 1
    """
    code, err = ended(project, script)
    assert code == 0, err
    assert "no space left" in err


@pytest.mark.parametrize(
    "name", ["index.json", "runs/r/journal.jsonl", "products.jsonl", "store.lock", "runs/r/lock", "blob"]
)
def test_a_folder_where_a_file_should_be(project: Workspace, name: str) -> None:
    """Each command says which, or needs it not."""
    place = next(project.store.glob("blobs/sha256/*")) if name == "blob" else project.store / name
    place.unlink(missing_ok=True)
    place.mkdir()
    for command in ("run", "retry r", "gc", "runs", "show r", "catalog r"):
        code, err = ended(project, f'exec "$0" {command}')
        assert not code or (place.name in err and "hint: " in err), f"{command}: {err}"


REMOVALS = ("git clean -fdxq", "rm -rf .runnable", "rm -rf .runnable/runs", "rm -rf .runnable/tmp")


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_step_that_removes_the_store(tmp_path: Path, removal: str) -> None:
    """The store is made again with all that the run knows; the step's output and files are kept, a retry resumes."""
    first = f"echo before; echo too >&2; {removal}; echo after; echo also >&2; echo 1 > a.txt"
    file = f"[steps.a]\nrun = '{first}'\ncatalog = {{ put = ['a.txt'] }}\n[steps.b]\nrun = 'false'\n"
    project = workspace(tmp_path, {"runnable.toml": file})
    err = project.runnable("run", "--run-id", "r", code=1).err
    assert ("was removed while a step ran, and is made again" in err) == (removal != REMOVALS[-1])
    assert project.git("status", "--short") == "?? a.txt"  # the store is ignored again
    said = project.runnable("logs", "r", "a").out.splitlines()
    assert sorted(said) == ["after", "also", "before", "too"]
    assert "r" in project.read(".runnable/index.json")
    project.write({"runnable.toml": file.replace("false", "true")})
    assert "reuse: unchanged" in project.runnable("retry", "r").err
    log = project.log("r")
    assert [step.status for step in log.steps.values()] == ["SUCCESS"] * 2
    assert project.runnable("catalog", "r").code == 0
    assert project.read("a.txt") == "1\n"


def test_a_step_that_removes_what_earlier_ones_made(project: Workspace) -> None:
    """It fails by that and says how to spare it; without the removal a retry makes everything again."""
    file = f"{FILE}[steps.clean]\nrun = 'git clean -fdxq'\n[steps.after]\nrun = 'cat a.txt'\n"
    file += "catalog = { get = ['a.txt'] }\n"
    project.write({"runnable.toml": file, ".gitignore": "a.txt\n"})
    err = project.runnable("run", "--run-id", "again", code=1).err
    assert f"error: the store {project.store} was removed while it ran, and with it what steps made: a.txt\n" in err
    assert "hint: `git clean -dx` leaves it with `-e .runnable`" in err
    log = project.log("again")
    assert [step.status for step in log.steps.values()] == ["SUCCESS", "SUCCESS", "FAIL", "SKIPPED"]
    assert log.outcome == "failed"
    project.runnable("logs", "again")
    project.write({"runnable.toml": file.replace("-fdxq", "-fdxq -e .runnable")})
    assert "after | 1" in project.runnable("retry", "again", "--from", "a").out
