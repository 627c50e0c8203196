"""Steps on machines that share no folder with that of their run: by a real registry and sshd, in another clone."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from cli import PROGRAM_THERE, Workspace, elsewhere, workspace
from equal_logs import assert_equal, recorded
from kinds_of_steps import FILES as KINDS_FILES
from kinds_of_steps import run_broken_and_resumed, steps_of_each_kind
from podman import podman_with_image
from registry_server import PASSWORD, USERNAME, Reply, Seen, Served, password_registry, registry, serving
from slurm import Slurm, slurm_server
from sshd import Ssh, ssh_server
from support import guards, wait_until

from runnable_ci.runs.elsewhere import parcels
from runnable_ci.runs.elsewhere.fragment import Fragment, document_of
from runnable_ci.runs.elsewhere.parcels import post, sealed
from runnable_ci.runs.model import StepAttempt
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.util.process import start_time

STEPS = """
[parameters]
lr = 2
[steps.make]
run = "echo made; echo broken >&2; echo data > out.txt; echo value=3 >> $RUNNABLE_OUTPUT"
returns = ["value"]
catalog = { put = ["out.txt"] }
[steps.use]
python = "code:use"
needs = ["make"]
returns = { more = "metric", model = "object" }
catalog = { get = ["out.txt"], put = ["deep/use.txt"] }
[steps.last]
python = "code:last"
needs = ["make", "use"]
returns = ["found"]
catalog = { put = ["last.txt"] }
"""
CODE = """
from pathlib import Path

def use(value, lr):
    Path("deep").mkdir(exist_ok=True)
    Path("deep/use.txt").write_text(Path("out.txt").read_text() * lr)
    return {"more": value + lr, "model": {"w": [value]}}

def last(more, model):
    Path("last.txt").write_text(Path("deep/use.txt").read_text() + str(model))
    print("more is", more)
    return {"found": more}
"""
FILES = {"code.py": CODE, ".gitignore": "*.txt\n__pycache__\n.runnable\n"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Yield a real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    """Yield a real sshd."""
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """Yield a real Slurm of two nodes."""
    with slurm_server() as cluster:
        yield cluster


class Machines:
    """A project here, and its clone on a machine that sees none of its files."""

    def __init__(self, folder: Path, launcher: str, registry_name: str, steps: str, files: dict[str, str]) -> None:
        for name in ("near", "far"):
            (folder / name).mkdir()
        toml = f"""
            name = "apart"
            registry = "{registry_name}"
            SECRETS
            [executors.far]
            {launcher}
            project = "{folder / "far" / "clone"}"
            program = "{PROGRAM_THERE}"
            """
        secrets, steps = steps.split("\n", 1) if steps.startswith("secrets") else ("", steps)
        toml = dedent(toml).replace("SECRETS", secrets)
        self.registry = registry_name
        self.near = workspace(folder / "near", {**FILES, **files, "runnable.toml": toml + steps})
        self.far = elsewhere(self.near, folder / "far", "clone")


@pytest.fixture
def by_ssh(ssh: Ssh, served: Served, tmp_path: Path) -> Callable[..., Machines]:
    """Return what makes a project with a clone behind the server."""

    def make(steps: str, **files: str) -> Machines:
        return Machines(tmp_path, f"command = '{ssh.command}'", served.repository(), steps, files)

    return make


def attempt_at(project: Workspace, step: str, run: str = "latest") -> StepAttempt:
    """Return the newest attempt at a step."""
    return project.log(run).steps[step].attempts[-1]


def test_a_run_without_shared_files(by_ssh: Callable[..., Machines], ssh: Ssh) -> None:
    """Values, objects, files and output are as of a local run, and the clone is as it was."""
    machines = by_ssh(STEPS)
    near, far = machines.near, machines.far
    near.write({"code.py": CODE.replace("more is", "now it is")})  # nobody has committed it
    near.runnable("run", "--run-id", "local")
    for name in ("out.txt", "deep/use.txt", "last.txt"):
        (near.folder / name).unlink()
    done = near.runnable("run", "--run-id", "r", "--executor", "far")
    assert "made" in done.out
    assert "broken" in done.out + done.err
    log = near.log("r")
    assert {one.executor for step in log.steps.values() for one in step.attempts} == {"far"}
    assert_equal(recorded(near, "local"), recorded(near, "r").as_local("local"))
    assert near.read("last.txt") == "data\ndata\n{'w': [3]}"
    assert "now it is 5" in near.runnable("logs", "r", "last").out
    assert not far.git("status", "--porcelain")
    assert not (far.folder / "out.txt").exists()
    assert json.loads(far.runnable("runs", "--json").out) == []
    assert not (near.store / "elsewhere" / "r").exists()
    assert not [*(far.store / "tmp").iterdir()]
    assert json.loads(near.runnable("runs", "--from", machines.registry, "--json").out) == []
    assert "nothing to do" in near.runnable("retry", "r", "--executor", "far").err


def test_a_failure_resumes(by_ssh: Callable[..., Machines]) -> None:
    """A step that fails there fails here, and runs again once its code is right, which nobody has committed."""
    steps = '[steps.a]\npython = "code:a"\nreturns = ["it"]\n[steps.b]\nrun = "echo $it"\n'
    broken = "def a():\n    raise ValueError('what it says')\n"
    near = by_ssh(steps.replace("returns", 'executor = "far"\nreturns'), **{"code.py": broken}).near
    done = near.runnable("run", "--run-id", "r", code=1)
    assert "ValueError: what it says" in done.out + done.err
    near.write({"code.py": "def a():\n    return 7\n"})
    assert "b | 7" in near.runnable("retry", "r").out.replace("  ", " ")
    log = near.log("r")
    assert [len(step.attempts) for step in log.steps.values()] == [2, 1]
    assert log.status == "SUCCESS"


SLOW = """
[steps.slow]
run = '''
echo begin >> {beside}/begun; echo x > out.txt
while [ ! -e {beside}/go ]; do sleep 0.1; done
echo y >> out.txt
'''
executor = "far"
catalog = {{ put = ["out.txt"] }}
[steps.then]
run = "cat out.txt"
needs = ["slow"]
"""


@pytest.mark.promise
def test_a_killed_run_attaches(by_ssh: Callable[..., Machines], tmp_path: Path) -> None:
    """A retry takes what was published while no process of the run was there, and nothing runs twice."""
    near = by_ssh(SLOW.format(beside=tmp_path)).near
    begun = tmp_path / "begun"
    with near.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        process.send_signal(signal.SIGKILL)
    assert attempt_at(near, "slow", "r").status == "PROCESSING"
    (tmp_path / "go").touch()
    assert "attached to attempt 1 on far" in near.runnable("retry", "r").err
    assert begun.read_text() == "begin\n"
    log = near.log("r")
    assert [len(step.attempts) for step in log.steps.values()] == [1, 1]
    assert log.steps["slow"].attempts[0].outcome == "succeeded"
    assert near.read("out.txt") == "x\ny\n"


BESIDE = """
[steps.a]
needs = []
run = "ls data > /dev/null; cat data/a > a.txt; sleep 2"
catalog = { put = ["a.txt"] }
[steps.b]
needs = []
run = "cat data/b > b.txt; sleep 2"
catalog = { put = ["b.txt"] }
"""


@pytest.mark.promise
def test_what_steps_read_beside_each_other(by_ssh: Callable[..., Machines]) -> None:
    """Each has a folder of its own, so it is known which of them it was, as if they had run one after the other."""
    near = by_ssh(BESIDE, **{"data/a": "a\n", "data/b": "b\n"}).near
    near.runnable("run", "--run-id", "local", "--jobs", "1")
    near.runnable("run", "--run-id", "r", "--executor", "far")
    assert_equal(recorded(near, "local"), recorded(near, "r").as_local("local"))


def test_an_attempt_that_blocks_nothing(by_ssh: Callable[..., Machines], tmp_path: Path) -> None:
    """An attempt that was left behind has a folder of its own on its machine, so other runs may work here."""
    near = by_ssh(SLOW.format(beside=tmp_path) + '[steps.beside]\nneeds = []\nrun = "echo works"\n').near
    with near.start("run", "slow", "--run-id", "r") as process:
        wait_until((tmp_path / "begun").exists, "the step runs elsewhere")
        process.send_signal(signal.SIGKILL)
    assert "works" in near.runnable("run", "beside").out
    refused = near.runnable("rm", "r", code=1).err
    assert "`slow` runs on far (far) or was lost there" in refused
    assert "Ctrl-C in it ends the step" in refused
    (tmp_path / "go").touch()
    assert "attached to attempt 1 on far" in near.runnable("retry", "r").err


@pytest.mark.promise
def test_a_lost_machine(by_ssh: Callable[..., Machines], ssh: Ssh, tmp_path: Path) -> None:
    """Where the launcher ends and nothing came back the attempt is lost, and a retry runs it again."""
    near = by_ssh(SLOW.format(beside=tmp_path)).near
    begun = tmp_path / "begun"
    with near.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        ssh.cut()
    assert process.returncode == 1
    lost = attempt_at(near, "slow", "r")
    assert (lost.outcome, lost.interrupted) == ("interrupted", True)
    assert lost.message.startswith("lost on far")
    (tmp_path / "go").touch()
    near.runnable("retry", "r")
    assert begun.read_text() == "begin\n" * 2


TWICE = """
    [steps.slow]
    run = "echo $$ $PPID >> {beside}/pids; [ $(wc -l < {beside}/pids) = 2 ] || sleep 60; seq 3 > out.txt"
    attempts = 2
    executor = "far"
    catalog = {{ put = ["out.txt"] }}
    """


@pytest.mark.promise
@pytest.mark.parametrize("is_guard_killed", [False, True])
def test_a_killed_worker(by_ssh: Callable[..., Machines], tmp_path: Path, *, is_guard_killed: bool) -> None:
    """What it ran is ended on its machine before the next try runs there."""
    near = by_ssh(TWICE.format(beside=tmp_path)).near
    pids = tmp_path / "pids"
    with near.start("run", "--run-id", "r") as process:
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"), "the step runs elsewhere")
        step, worker = map(int, pids.read_text().split())
        assert b"attempt" in Path(f"/proc/{worker}/cmdline").read_bytes()
        for each in (*(guards(worker) if is_guard_killed else ()), worker):
            os.kill(each, signal.SIGKILL)
        wait_until(lambda: pids.read_text().count("\n") == 2, "the next try begins")
        assert not start_time(step)
    assert process.returncode == 0
    assert [it.outcome for it in near.log("r").steps["slow"].attempts] == ["interrupted", "succeeded"]


def test_cancelled(by_ssh: Callable[..., Machines], ssh: Ssh, tmp_path: Path) -> None:
    """Ctrl-C ends the step on the other machine."""
    steps = SLOW.format(beside=tmp_path).replace("sleep 0.1", f"sleep 0.1; date +%s.%N > {tmp_path}/alive")
    near = by_ssh(steps).near
    with near.start("run", "--run-id", "r") as process:
        wait_until((tmp_path / "alive").exists, "the step runs elsewhere")
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert attempt_at(near, "slow", "r").outcome == "cancelled"

    def is_still() -> bool:
        before = (tmp_path / "alive").read_text()
        time.sleep(0.5)
        return (tmp_path / "alive").read_text() == before

    wait_until(is_still, "the step has ended", timeout_s=30)


@pytest.mark.promise
def test_secrets_stay(by_ssh: Callable[..., Machines], served: Served) -> None:
    """No secret goes to the registry: a step takes it from the environment there, else it fails by that."""
    steps = """secrets = ["token"]
[parameters]
token = ""
max_tokens = 2
[steps.a]
run = "echo it is $token $max_tokens $SEEN"
executor = "far"
"""
    machines = by_ssh(steps)
    value = "sesame-open-wide"
    done = machines.near.runnable("run", "--run-id", "r", code=1, RUNNABLE_PRM_token=value, SEEN="named")
    assert "parameter `token` is a secret, which no registry gets" in done.out + done.err
    assert "RUNNABLE_PRM_token" in done.out + done.err
    text = machines.near.read("runnable.toml").replace(PROGRAM_THERE, f"env RUNNABLE_PRM_token={value} {PROGRAM_THERE}")
    machines.near.write({"runnable.toml": text})
    done = machines.near.runnable("retry", "r", RUNNABLE_PRM_token=value, SEEN="named")
    assert "it is *** 2 named" in done.out
    for path in (it for it in served.folder.rglob("*") if it.is_file()):
        assert value.encode() not in path.read_bytes()


@pytest.mark.promise
def test_what_others_write_is_not_used(by_ssh: Callable[..., Machines], tmp_path: Path) -> None:
    """An answer counts only with the seal of the worker that was started: one of another writer changes nothing."""
    machines = by_ssh(SLOW.format(beside=tmp_path))
    near = machines.near
    with near.start("run", "--run-id", "r") as process:
        wait_until((tmp_path / "begun").exists, "the step runs elsewhere")
        there = Registry(parse_reference(machines.registry), environ=near.environ)
        [letter] = there.tags()
        attempt = StepAttempt(attempt_number=1)
        attempt.end("succeeded", "forged")
        forged = sealed(document_of(Fragment(step="slow", attempt=attempt)), "0" * 64)
        layout = Layout(tmp_path / "store")
        layout.create()
        post(layout, there, letter.replace("-letter", "-answer"), forged, [], files={})
        time.sleep(7)  # it is asked for after five seconds
        assert process.poll() is None
        (tmp_path / "go").touch()
    assert process.returncode == 0
    assert attempt_at(near, "slow", "r").message == ""
    assert near.read("out.txt") == "x\ny\n"


def test_a_registry_that_is_away(ssh: Ssh, served: Served, tmp_path: Path) -> None:
    """What a step made is sent back once the registry is there again: it is neither lost nor made twice."""
    is_away = threading.Event()

    def hook(_seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(404, body=b"away") if is_away.is_set() else forward()

    with serving(hook, upstream=served) as proxy:
        command = f"command = '{ssh.command}'"
        near = Machines(tmp_path, command, proxy.repository(), SLOW.format(beside=tmp_path), {}).near
        with near.start("run", "--run-id", "r") as process:
            wait_until((tmp_path / "begun").exists, "the step runs elsewhere")
            is_away.set()
            (tmp_path / "go").touch()
            before = proxy.count("POST")
            wait_until(lambda: proxy.count("POST") > before, "it is sent back in vain")
            time.sleep(0.5)
            is_away.clear()
        assert process.returncode == 0
    assert (tmp_path / "begun").read_text() == "begin\n"
    assert near.read("out.txt") == "x\ny\n"


def test_a_registry_that_is_gone(ssh: Ssh, served: Served, tmp_path: Path) -> None:
    """It is said once, and Ctrl-C ends the run within seconds, with its summary and how to resume it."""
    is_away = threading.Event()

    def hook(_seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(503, body=b"away") if is_away.is_set() else forward()

    with serving(hook, upstream=served) as proxy:
        command = f"command = '{ssh.command}'"
        near = Machines(tmp_path, command, proxy.repository(), SLOW.format(beside=tmp_path), {}).near
        with near.start("run", "--run-id", "r") as process:
            wait_until((tmp_path / "begun").exists, "the step runs elsewhere")
            before = proxy.count("GET")
            is_away.set()
            wait_until(lambda: proxy.count("GET") > before + 6, "it is asked in vain", timeout_s=120)
            begin = time.monotonic()
            process.send_signal(signal.SIGINT)
            said = process.communicate()[1].decode()
        assert time.monotonic() - begin < 10
    assert process.returncode == 130, said
    assert said.count("far: cannot take what comes back: ") == 1
    assert "waiting for" not in said
    assert "runnable-ci retry r" in said
    assert "cancelled" in near.runnable("show", "r").out
    assert attempt_at(near, "slow", "r").outcome == "cancelled"


def test_a_registry_that_asks_for_a_password(ssh: Ssh, tmp_path: Path) -> None:
    """Each machine logs in by itself: a step that cannot be sent, or fetched there, fails with what to do."""
    steps = '[steps.a]\nrun = "echo it works"\nexecutor = "far"\n'
    with password_registry(tmp_path / "registry") as private:
        name = private.repository()
        login = {"RUNNABLE_CI_REGISTRY": name, "RUNNABLE_CI_REGISTRY_USERNAME": USERNAME}
        login["RUNNABLE_CI_REGISTRY_PASSWORD"] = PASSWORD
        machines = Machines(tmp_path, f"command = '{ssh.command}'", name, steps, {})
        near = machines.near
        done = near.runnable("run", "--run-id", "r", code=1)
        assert "it cannot be sent: " in done.err
        assert f"docker login {private.host}" in done.err
        near.environ.update(login)
        done = near.runnable("retry", "r", code=1)
        assert "lost on far: error: " in done.err
        assert f"docker login {private.host}" in done.err
        words = " ".join(f"{variable}={value}" for variable, value in login.items())
        near.replace("runnable.toml", PROGRAM_THERE, f"env {words} {PROGRAM_THERE}")
        assert "it works" in near.runnable("retry", "r").out


def test_old_letters_are_pruned(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody read of attempts on other machines leaves the registry with old runs, and nothing younger does."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'"})
    name, layout = served.repository(), Layout(tmp_path / "store")
    layout.create()
    there = Registry(parse_reference(name), environ=project.environ)
    post(layout, there, "_attempt--young-letter", b"young", [], files={})
    monkeypatch.setattr(parcels, "now", lambda: "2026-01-01T00:00:00.000000+00:00")
    post(layout, there, "_attempt--old-letter", b"old", [], files={})
    for option in (["--dry-run"], []):
        done = project.runnable("prune", "--from", name, "--keep", "5", *option)
        assert "1 part of attempts on other machines" in done.err
    assert [*there.tags()] == ["_attempt--young-letter"]


def test_a_commit_that_was_not_pushed(by_ssh: Callable[..., Machines]) -> None:
    """A step whose code the clone can find nowhere fails by that, and how to mend it is said."""
    machines = by_ssh(STEPS)
    near = machines.near
    near.write({"code.py": f"{CODE}# later"})
    near.commit()
    machines.far.git("remote", "remove", "origin")
    done = near.runnable("run", "make", "--executor", "far", code=1)
    assert "the code of the run cannot be made from" in done.err
    assert "push the commit" in done.out + done.err


def test_what_is_missing_is_said_first(by_ssh: Callable[..., Machines]) -> None:
    """Without a registry, or a commit, nothing runs."""
    machines = by_ssh(STEPS)
    near = machines.near
    near.replace("runnable.toml", f'registry = "{machines.registry}"', "")
    refused = near.runnable("run", "--executor", "far", code=2).err
    assert "executor `far` has `project`, so its steps go by a registry: no registry is set" in refused
    near.runnable("check")  # no step names the executor
    near.replace("runnable.toml", "[steps.make]", "[steps.make]\nexecutor = 'far'")
    assert "executor `far` has `project`, so its steps go by a registry" in near.runnable("check", code=2).err
    near.runnable("check", RUNNABLE_CI_REGISTRY=machines.registry)
    near.replace("runnable.toml", "executor = 'far'", "")
    near.runnable("run", "--run-id", "here")
    (near.folder / ".git").rename(near.folder / "no-git")
    registry_set = {"RUNNABLE_CI_REGISTRY": machines.registry}
    refused = near.runnable("run", "--executor", "far", code=2, **registry_set).err
    assert "is in no git repository" in refused
    assert [run["run_id"] for run in json.loads(near.runnable("runs", "--json").out)] == ["here"]


def test_a_file_that_git_ignores_is_not_there(by_ssh: Callable[..., Machines]) -> None:
    """It is said before anything runs, with how it gets there; and so it does."""
    steps = """
[steps.before]
run = "touch began"
[steps.use]
executor = "far"
run = "cat data.txt *.md > used"
catalog = { get = ["data.txt", "*.md"], put = ["used"] }
"""
    near = by_ssh(steps, **{"read.md": "read\n"}).near
    near.write({"data.txt": "data\n"})
    refused = near.runnable("run", code=2).err
    assert "step `use` gets `data.txt`, which git ignores: executor `far` has it nowhere" in refused
    assert 'hint: let a step before it that runs here (executor = "local") `put` it' in refused
    assert not (near.folder / "began").exists()
    near.runnable("run", "--executor", "local")
    near.replace("runnable.toml", 'run = "touch began"', 'run = "touch data.txt"\ncatalog = { put = ["data.txt"] }')
    near.runnable("run")
    assert near.read("used") == "data\nread\n"


def test_every_kind_of_step_by_slurm(slurm: Slurm, served: Served, tmp_path: Path) -> None:
    """Python, notebook, shell and container steps, one that resumes from its checkpoint, by jobs of a real Slurm."""
    launcher, steps = 'slurm = { partition = "all", time = "10m" }', steps_of_each_kind(str(tmp_path))
    near = Machines(tmp_path, launcher, served.repository(), steps, KINDS_FILES).near
    near.environ.update(slurm.environ)
    well = str(tmp_path / "well")
    with podman_with_image() as podman:
        run_broken_and_resumed(near, podman, well, "local", "--jobs", "1")
        run_broken_and_resumed(near, podman, well, "r", "--executor", "far")
    log = near.log("r")
    assert {one.executor for step in log.steps.values() for one in step.attempts} == {"far"}
    assert_equal(recorded(near, "local"), recorded(near, "r").as_local("local"))


def test_a_lost_node(slurm: Slurm, served: Served, tmp_path: Path) -> None:
    """A node that is gone is a lost attempt, with what Slurm says of it, and the retry runs it again."""
    steps = SLOW.format(beside=tmp_path)
    machines = Machines(tmp_path, 'slurm = { partition = "all" }', served.repository(), steps, {})
    near, begun = machines.near, tmp_path / "begun"
    near.environ.update(slurm.environ)
    with near.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        [job] = slurm.jobs()
        slurm.set_down(slurm.job(job)["NodeList"])
    assert process.returncode == 1
    assert "Slurm says NODE_FAIL" in attempt_at(near, "slow", "r").message
    slurm.restore()
    (tmp_path / "go").touch()
    near.runnable("retry", "r")
    assert begun.read_text() == "begin\n" * 2
