"""Steps that run elsewhere: through ssh on a real server, and attached to again when the run's own process is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from cli import Workspace, workspace
from sshd import Ssh, ssh_server
from support import wait_until

from runnable_ci.engine.elsewhere.life import GRACE_S
from runnable_ci.runs.elsewhere.places import ElsewhereFolder
from runnable_ci.runs.model import StepAttempt
from runnable_ci.store.local import Layout
from runnable_ci.util.process import start_time

FILES = {
    "runnable.toml": """
        [executors.node]
        command = "{ssh}"

        [steps.make]
        run = "echo made; echo data > out.txt; echo value=3 >> $RUNNABLE_OUTPUT"
        executor = "node"
        returns = ["value"]
        catalog = {{ put = ["out.txt"] }}

        [steps.use]
        python = "code:use"
        executor = "node"
        needs = ["make"]
        returns = ["more"]

        [steps.here]
        run = "cat out.txt; echo $value $more $FAR"
        needs = ["make", "use"]
        """,
    "code.py": """
        import os

        def use(value):
            print("far is", os.environ.get("FAR"))
            return {"more": value + 1}
        """,
}


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    """Yield a real sshd."""
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server") as server:
        yield server


def project_on(ssh: Ssh, folder: Path, toml: str = FILES["runnable.toml"], **more: str) -> Workspace:
    """Return a project whose executor `node` is the server."""
    files = {"code.py": dedent(FILES["code.py"]), **more, "runnable.toml": dedent(toml).format(ssh=ssh.command)}
    return workspace(folder, files)


def attempt_at(project: Workspace, step: str, run: str = "latest") -> StepAttempt:
    """Return the newest attempt at a step."""
    return project.log(run).steps[step].attempts[-1]


def test_a_run_over_ssh(ssh: Ssh, tmp_path: Path) -> None:
    """Values, files, output and the far machine's environment are in the run log as of any other step."""
    project = project_on(ssh, tmp_path)
    done = project.runnable("run")
    assert "made" in done.out
    log = project.log()
    make, use, here = (log.steps[name].attempts[-1] for name in ("make", "use", "here"))
    assert (make.executor, use.executor, here.executor) == ("node", "node", "")
    assert make.output_parameters["value"].value == 3
    assert use.output_parameters["more"].value["more"] == 4
    assert [entry.name for entry in log.steps["make"].data_catalog] == ["out.txt"]
    assert make.log is not None
    assert log.environments[make.environment].machine is not None
    assert "data" in project.runnable("logs", "latest", "here").out
    rows = [line.split() for line in project.runnable("show", "latest").out.splitlines() if " SUCCESS " in line]
    assert [("node" in row, row[0]) for row in rows if row[0] in log.steps] == [
        (True, "make"),
        (True, "use"),
        (False, "here"),
    ]
    assert not (project.store / "elsewhere" / log.run_id).exists()
    assert not ssh.sessions()


def test_a_failure_resumes(ssh: Ssh, tmp_path: Path) -> None:
    """A step that fails there fails here, with its exit code and output, and only it and what follows runs again."""
    toml = FILES["runnable.toml"].replace("echo made;", "echo made; echo broken >&2; test -e ok || exit 7;")
    project = project_on(ssh, tmp_path, toml)
    done = project.runnable("run", code=1)
    assert "broken" in done.out + done.err
    assert attempt_at(project, "make").exit_code == 7
    project.write({"ok": ""})
    project.runnable("retry", "latest")
    assert [len(step.attempts) for step in project.log().steps.values()] == [2, 1, 1]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    """Where no worker can be started, the step fails with what the launcher said, and can be resumed."""
    toml = """
        [executors.node]
        command = "sh -c 'echo no route to host >&2; exit 255 # {}'"

        [steps.a]
        run = "true"
        executor = "node"
        """
    project = workspace(tmp_path, {"runnable.toml": dedent(toml)})
    done = project.runnable("run", code=1)
    assert "no worker on node: no route to host" in done.out + done.err
    project.replace("runnable.toml", "echo no route to host >&2; exit 255 # {}", "{}")
    project.runnable("retry", "latest")


SLOW = """
    [executors.node]
    command = "{ssh}"

    [steps.slow]
    run = "echo begin >> ../begun; echo x > out.txt; while [ ! -e ../go ]; do sleep 0.1; done; echo y >> out.txt"
    executor = "node"
    catalog = {{ put = ["out.txt"] }}

    [steps.then]
    run = "cat out.txt"
    needs = ["slow"]
    """


@pytest.mark.promise
def test_a_killed_run_attaches(ssh: Ssh, tmp_path: Path) -> None:
    """What runs elsewhere outlives a kill of the run's process: a retry attaches to it, and nothing runs twice."""
    project = project_on(ssh, tmp_path, SLOW)
    begun = project.folder.parent / "begun"
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        process.send_signal(signal.SIGKILL)
    assert attempt_at(project, "slow", "r").status == "PROCESSING"
    assert "slow" in project.runnable("retry", "r", "-n").out
    refused = project.runnable("run", code=2).err
    assert "run r may still work in " in refused
    assert "`runnable-ci retry r` waits for it, then continues: it finds out if the step is gone, and Ctrl-C" in refused
    with project.start("retry", "r") as retry:
        time.sleep(1)
        (project.folder.parent / "go").touch()
    assert retry.returncode == 0
    assert begun.read_text() == "begin\n"
    log = project.log("r")
    assert [len(step.attempts) for step in log.steps.values()] == [1, 1]
    assert log.steps["slow"].attempts[0].outcome == "succeeded"
    assert project.read("out.txt") == "x\ny\n"
    project.runnable("run")


def test_an_end_that_nobody_saw(ssh: Ssh, tmp_path: Path) -> None:
    """What ended elsewhere while no process of the run was there counts when the run is resumed."""
    project = project_on(ssh, tmp_path, SLOW)
    begun = project.folder.parent / "begun"
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        process.send_signal(signal.SIGKILL)
    (project.folder.parent / "go").touch()
    wait_until(lambda: not ssh.sessions(), "its worker leaves", timeout_s=60)
    project.runnable("retry", "r")
    assert begun.read_text() == "begin\n"
    assert [len(step.attempts) for step in project.log("r").steps.values()] == [1, 1]


@pytest.mark.promise
def test_a_lost_worker(ssh: Ssh, tmp_path: Path) -> None:
    """An attempt whose machine is gone fails as lost, what it wrote is undone, and a retry runs it again."""
    project = project_on(ssh, tmp_path, SLOW)
    begun = project.folder.parent / "begun"
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        os.kill(taken_by(project), signal.SIGKILL)
        ssh.cut()
    assert process.returncode == 1
    lost = attempt_at(project, "slow", "r")
    assert (lost.outcome, lost.interrupted) == ("interrupted", True)
    assert lost.message.startswith("lost on node")
    assert not (project.folder / "out.txt").exists()
    (project.folder.parent / "go").touch()
    project.runnable("retry", "r")
    assert begun.read_text() == "begin\n" * 2


@pytest.mark.promise
@pytest.mark.parametrize("is_driver_killed", [False, True])
def test_a_cut_connection(ssh: Ssh, tmp_path: Path, *, is_driver_killed: bool) -> None:
    """A worker that outlives what started it goes on, its attempt counts, and nothing runs beside it."""
    toml = SLOW.replace('catalog = {{ put = ["out.txt"] }}', 'catalog = {{ put = ["out.txt"] }}\n    attempts = 2')
    project = project_on(ssh, tmp_path, toml)
    begun = project.folder.parent / "begun"
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        if is_driver_killed:
            process.send_signal(signal.SIGKILL)
        ssh.cut()
        if not is_driver_killed:
            time.sleep(GRACE_S + 3)
            (project.folder.parent / "go").touch()
    if is_driver_killed:
        with project.start("retry", "r") as process:
            time.sleep(GRACE_S + 3)
            (project.folder.parent / "go").touch()
    assert process.returncode == 0
    assert begun.read_text() == "begin\n"
    assert [len(step.attempts) for step in project.log("r").steps.values()] == [1, 1]
    assert project.read("out.txt") == "x\ny\n"


@pytest.mark.promise
def test_a_worker_that_was_given_up(ssh: Ssh, tmp_path: Path) -> None:
    """One that comes back to life ends its step at once, and undoes nothing of the attempt that took its place."""
    project = project_on(ssh, tmp_path, SLOW)
    begun, out = project.folder.parent / "begun", project.folder / "out.txt"
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        worker = taken_by(project)
        os.kill(worker, signal.SIGSTOP)
        ssh.cut()
    assert process.returncode == 1
    assert attempt_at(project, "slow", "r").message.startswith("lost on node")
    with project.start("retry", "r") as retry:
        wait_until(lambda: begun.read_text() == "begin\n" * 2, "the step runs again")
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not start_time(worker), "the first worker leaves")
        assert out.read_text() == "x\n"
        (project.folder.parent / "go").touch()
    assert retry.returncode == 0
    assert out.read_text() == "x\ny\n"


def test_an_executor_that_is_gone(ssh: Ssh, tmp_path: Path) -> None:
    """What it runs is ended before the step runs somewhere else."""
    project = project_on(ssh, tmp_path, SLOW)
    begun = project.folder.parent / "begun"
    with project.start("run", "--run-id", "r") as process:
        wait_until(begun.exists, "the step runs elsewhere")
        process.send_signal(signal.SIGKILL)
    worker = taken_by(project)
    project.replace("runnable.toml", "executors.node", "executors.other")
    project.replace("runnable.toml", 'executor = "node"', 'executor = "other"')
    with project.start("retry", "r") as retry:
        wait_until(lambda: begun.read_text() == "begin\n" * 2, "the step runs again")
        assert not start_time(worker)
        (project.folder.parent / "go").touch()
    assert retry.returncode == 0
    first, second = project.log("r").steps["slow"].attempts
    assert first.message == "lost on node: its executor is in the pipeline file no more"
    assert second.executor == "other"


def taken_by(project: Workspace) -> int:
    """Return the worker that runs the slow step."""
    folder = ElsewhereFolder.of(Layout(project.store), "r").attempt("slow.1")
    wait_until(folder.life.exists, "its worker lives")
    return int(folder.noted("taken")["pid"])


def test_cancelled(ssh: Ssh, tmp_path: Path) -> None:
    """Ctrl-C ends what runs elsewhere as it ends what runs here."""
    project = project_on(ssh, tmp_path, SLOW)
    with project.start("run", "--run-id", "r") as process:
        wait_until((project.folder.parent / "begun").exists, "the step runs elsewhere")
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert attempt_at(project, "slow", "r").outcome == "cancelled"
    wait_until(lambda: not ssh.sessions(), "nothing of it runs", timeout_s=30)


def test_secrets(ssh: Ssh, tmp_path: Path) -> None:
    """A secret that a step prints elsewhere is masked, as is a value that it masks there for the steps after it."""
    toml = """
        secrets = ["API_KEY"]
        [executors.node]
        command = "{ssh}"
        [steps.a]
        run = "echo key $API_KEY; echo '::add-mask::another-secret'; echo another-secret"
        executor = "node"
        [steps.b]
        run = "echo another-secret $API_KEY"
        needs = ["a"]
        """
    project = project_on(ssh, tmp_path, toml)
    done = project.runnable("run", API_KEY="sesame-open-wide")
    assert "key ***" in done.out
    for place in [path for path in project.store.rglob("*") if path.is_file()]:
        content = place.read_bytes()
        assert b"sesame-open-wide" not in content
        assert b"another-secret" not in content.replace(b"::add-mask::another-secret", b"").replace(
            b"echo another-secret", b""
        )
