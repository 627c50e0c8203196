"""Tests of `runnable-ci run`: the real program on real pipelines."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from pathlib import Path

import pytest
from cli import PROGRAM, is_alive, workspace
from support import WAIT_S, wait_until

from runnable_ci.runs.model import FAIL, SKIPPED, SUCCESS

DIAMOND = """
[steps.top]
run = "echo top >> order.log; echo to stdout; echo to stderr >&2"
[steps.left]
needs = ["top"]
run = "echo side >> order.log"
[steps.right]
needs = ["top"]
run = "echo side >> order.log"
[steps.bottom]
needs = ["left", "right"]
run = "echo bottom >> order.log; printf 'no end of line'"
"""


def test_order_output_and_log(tmp_path: Path) -> None:
    """Steps run after what they need; each line is prefixed, streams stay apart, and every attempt is recorded."""
    project = workspace(tmp_path, {"runnable.toml": DIAMOND, ".gitignore": "*.log\n"})
    head = project.git("rev-parse", "HEAD")
    done = project.runnable("run", "--run-id", "first", "--tag", "trial")
    assert project.read("order.log").split() == ["top", "side", "side", "bottom"]
    assert done.out == "top    | to stdout\nbottom | no end of line\n"
    assert "top    | to stderr\n" in done.err
    assert done.err.startswith("run first: project, 4 steps\n")
    assert done.err.endswith("run first: SUCCESS\n")
    log = project.log()
    assert (log.run_id, log.status, log.tag, log.name) == ("first", SUCCESS, "trial", "project")
    assert list(log.steps) == ["top", "left", "right", "bottom"]
    for step in log.steps.values():
        (attempt,) = step.attempts
        assert (step.status, attempt.status, attempt.exit_code) == (SUCCESS, SUCCESS, 0)
        assert (attempt.attempt_number, attempt.reason) == (1, "first attempt")
        assert attempt.start_time < attempt.end_time
        (code,) = attempt.code_identities
        assert (code.code_identifier, code.ref, code.code_identifier_dependable) == (head, "main", True)
        assert log.environments[attempt.environment].interpreter_version.startswith("cpython 3.")
    assert "pydantic" in log.environments[log.steps["top"].attempts[0].environment].packages


def test_output_is_live(tmp_path: Path) -> None:
    """What a step writes is shown, kept and readable while the step still runs."""
    step = "echo begun; until [ -e go.log ]; do sleep 0.01; done"
    project = workspace(tmp_path, {"runnable.toml": f"[steps.slow]\nrun = '{step}'\ntimeout-minutes = 0.5"})
    with project.start("run", "--run-id", "live") as running:
        assert running.stdout
        assert running.stdout.readline() == b"slow | begun\n"
        assert project.runnable("logs", "live", "slow").out == "begun\n"
        log = project.log()
        assert (log.status, log.steps["slow"].status) == ("PROCESSING", "PROCESSING")
        assert "live  RUNNING" in project.runnable("runs").out
        refused = project.runnable("retry", "live", code=2)
        assert " is in use by run live (run, process " in refused.err
        (project.folder / "go.log").touch()
        assert running.wait() == 0


def test_output_of_python_is_live(tmp_path: Path) -> None:
    """What a function prints is shown line by line while it runs, though it writes into a pipe."""
    work = """
import os, time

def slow():
    print("first")
    while not os.path.exists("go.log"):
        time.sleep(0.01)
"""
    steps = "[steps.slow]\npython = 'work:slow'\ntimeout-minutes = 0.1\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "work.py": work})
    with project.start("run", "--run-id", "live") as running:
        assert running.stdout
        assert running.stdout.readline() == b"slow | first\n"
        (project.folder / "go.log").touch()
        assert running.wait() == 0
    assert project.runnable("logs", "live", "slow").out == "first\n"


def test_jobs(tmp_path: Path) -> None:
    """With two jobs two steps meet; with one job they never do."""
    meet = "touch $RUNNABLE_STEP.log; until [ -e $other.log ]; do sleep 0.01; done"
    alone = "mkdir alone; sleep 0.05; rmdir alone"
    steps = "\n".join(
        f"[steps.{name}]\nneeds = []\nenv.other = '{other}'\ntimeout-minutes = 0.3\nrun = '''{{0}}'''"
        for name, other in (("a", "b"), ("b", "a"))
    )
    project = workspace(
        tmp_path, {"together.toml": steps.replace("{0}", meet), "apart.toml": steps.replace("{0}", alone)}
    )
    project.runnable("run", "together.toml", "--jobs", "2")
    project.runnable("run", "apart.toml", "--jobs", "1")
    project.runnable("run", "apart.toml", RUNNABLE_CI_JOBS="1")


SHELLS = """
env = { EVERYWHERE = "yes" }
[parameters]
text = "two words"
rate = 0.5
layers = [1, 2]
unused = 1

[steps.environment]
run = '''
echo "$text|$rate|$layers|$EVERYWHERE|$HERE|$FROM_OUTSIDE|$RUNNABLE_STEP|$RUNNABLE_RUN_ID"
echo "score=0.75" >> "$RUNNABLE_OUTPUT"
echo "words<<EOF
first
second
EOF" >> "$RUNNABLE_OUTPUT"
echo 'table={"a": [1]}' >> "$RUNNABLE_OUTPUT"
'''
env = { HERE = "too" }
returns = { score = "metric", words = "text", table = "json" }

[steps.after]
run = 'echo "$score|$words|$table"'

[steps.pipefail]
run = "false | true; echo not reached"
continue-on-error = true

[steps.sh]
shell = "sh"
run = "echo $0; echo $(( 1 + 1 ))"

[steps.interpreter]
shell = "python"
run = "import os; print(os.environ['rate'] * 2)"

[steps.template]
shell = "cat -n {0}"
run = "the script"

[steps.elsewhere]
run = "basename $PWD"
working-directory = "folder"

[steps.listed]
parameters = ["rate"]
run = 'echo "${text-unset} $rate"'
"""


def test_shell_steps(tmp_path: Path) -> None:
    """A shell step gets environment and parameters, is strict as on GitHub, returns values, and can be of any shell."""
    project = workspace(tmp_path, {"runnable.toml": SHELLS, "folder/a.txt": ""})
    done = project.runnable("run", "--run-id", "x", FROM_OUTSIDE="secret")
    shown = [line.replace(" ", "") for line in done.out.splitlines()]
    assert shown == [
        "environment|twowords|0.5|[1,2]|yes|too|secret|environment|x",
        "after|0.75|first",
        'after|second|{"a":[1]}',
        "sh|sh",
        "sh|2",
        "interpreter|0.50.5",
        "template|1\tthescript",
        "elsewhere|folder",
        "listed|unset0.5",
    ]
    log = project.log()
    assert log.metrics() == {"score": 0.75}
    assert (log.parameters["words"].value, log.parameters["table"].value) == ("first\nsecond", {"a": [1]})
    assert (log.steps["pipefail"].status, log.steps["pipefail"].message, log.status) == (FAIL, "exit code 1", SUCCESS)
    consumed = {name: set(step.attempts[0].consumed) for name, step in log.steps.items()}
    assert consumed["environment"] == {"text", "rate", "layers"}
    assert consumed["after"] == {"score", "words", "table"}
    assert consumed["interpreter"] == consumed["listed"] == {"rate"}
    assert consumed["sh"] == set()
    assert "FROM_OUTSIDE" not in log.environments[log.steps["sh"].attempts[0].environment].variables


def test_failure_stops_what_is_below(tmp_path: Path) -> None:
    """A failed step is exit code 1; what needs it is skipped, what does not goes on."""
    project = workspace(
        tmp_path,
        {
            "runnable.toml": """
[steps.fails]
run = "exit 3"
[steps.below]
run = "touch ran.log"
[steps.beside]
needs = []
run = "echo beside"
[steps.returns]
needs = []
run = "true"
returns = ["missing"]
[steps.puts]
needs = []
run = "true"
catalog = { put = ["nothing/*.csv"] }
[steps.gets]
needs = ["beside"]
run = "true"
catalog = { get = ["absent.csv"] }
[steps.absent]
needs = []
shell = "no-such-shell {0}"
run = "true"
"""
        },
    )
    done = project.runnable("run", code=1)
    assert not project.read("ran.log")
    assert "beside  | beside\n" in done.out
    log = project.log()
    assert log.status == FAIL
    assert {name: step.message for name, step in log.steps.items()} == {
        "fails": "exit code 3",
        "below": "`fails` failed",
        "beside": "",
        "returns": "it did not return `missing`: no line `missing=…` in $RUNNABLE_OUTPUT",
        "puts": "catalog put `nothing/*.csv` matches no file",
        "gets": "catalog get `absent.csv` matches no file that an earlier step stored, and none in the workspace",
        "absent": "`no-such-shell` is not installed, or not on PATH",
    }
    assert log.steps["below"].status == SKIPPED
    assert "puts    | hint: the step wrote no other file\n" in done.err
    assert done.err.splitlines()[-1] == f"hint: runnable-ci retry {log.run_id}"


def test_timeout(tmp_path: Path) -> None:
    """A step that takes too long is ended with all its processes, and the log says so."""
    project = workspace(
        tmp_path,
        {
            "runnable.toml": """
[steps.hangs]
run = '''
sleep 60 & echo $! > child.log
wait
'''
timeout-minutes = 0.005
"""
        },
    )
    done = project.runnable("run", code=1)
    assert "hangs | ✗ failed after" in done.err
    log = project.log()
    assert log.steps["hangs"].message == "timed out after 0.005 min"
    assert (log.steps["hangs"].outcome, log.outcome) == ("timed_out", "failed")
    assert not is_alive(project.read("child.log"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_cancelled(tmp_path: Path, number: signal.Signals) -> None:
    """A signal ends all processes of the steps; the run is recorded, sealed and can be gone on with."""
    project = workspace(
        tmp_path,
        {
            "runnable.toml": """
[steps.hangs]
run = '''
if [ -e child.log ]; then exit 0; fi
(trap "" INT TERM; exec sleep 60 > /dev/null 2>&1) & echo $! > child.part
mv child.part child.log
sleep 60
'''
[steps.below]
run = "echo below"
"""
        },
    )
    with project.start("run", "--run-id", "c") as running:
        wait_until(lambda: project.read("child.log"), "the step")
        running.send_signal(number)
        assert running.wait(10) == 128 + number
        assert running.stderr
        assert f"run c: FAIL, cancelled by {number.name}\nhint: runnable-ci retry c\n" in running.stderr.read().decode()
    assert not is_alive(project.read("child.log"))
    log = project.log()
    assert (log.status, log.message) == (FAIL, f"cancelled by {number.name}")
    assert (log.steps["hangs"].status, log.steps["hangs"].message) == (FAIL, "cancelled")
    assert (log.outcome, log.steps["hangs"].outcome, log.steps["below"].outcome) == ("cancelled", "cancelled", "")
    assert log.steps["below"].status == SKIPPED
    subprocess.run(["skopeo", "inspect", "--raw", f"oci:{project.store}:c"], check=True, capture_output=True)
    assert "below | below\n" in project.runnable("retry", "c").out


SIDE_BY_SIDE = {
    "runnable.toml": "".join(f'[steps.{name}]\nneeds = []\nrun = "sleep 0.1; echo {name}"\n' for name in "abc")
}


@pytest.mark.parametrize(
    ("refused", "failed"),
    [("0", 0), ("1", 0), ("2", 1), ("3", 1), ("4", 1), ("5", 0), ("4-", 1), ("3-", 2), ("0-", 3)],
)
def test_a_step_whose_thread_cannot_start_fails(tmp_path: Path, refused: str, failed: int) -> None:
    """The others run, the run ends and says why, and a retry runs what failed. The first two threads are no step's."""
    project = workspace(tmp_path, SIDE_BY_SIDE, git=False)
    done = project.with_threads(refused, "run", "-j", "3", code=1 if failed else 0)
    assert done.err.count("error: cannot start a thread\n") == failed
    assert done.err.count("hint: a limit on processes or memory is reached: ") == failed
    log = project.log()
    attempts = [attempt for step in log.steps.values() for attempt in step.attempts]
    assert [a.message for a in attempts if a.status == FAIL] == ["cannot start a thread"] * failed
    assert [a.status for a in attempts].count(SUCCESS) == 3 - failed
    assert len(log.environments) == 1
    if failed:
        assert project.runnable("retry", "latest").err.count(" | ✓ ") == failed


def test_threads_are_refused_to_a_retry_too(tmp_path: Path) -> None:
    """One loop: a retry that cannot have a thread fails its step and goes on being a run."""
    project = workspace(tmp_path, SIDE_BY_SIDE, git=False)
    project.with_threads("0-", "run", "-j", "3", code=1)
    project.with_threads("3-", "retry", "latest", "-j", "3", code=1)
    assert project.runnable("retry", "latest").err.count(" | ✓ ") == 2


def test_a_limit_on_memory_hangs_nothing(tmp_path: Path) -> None:
    """Whatever is refused first, the run ends, and there is a run that can be read and resumed or none at all."""
    project = workspace(tmp_path, SIDE_BY_SIDE, git=False)
    limited = 'ulimit -v "$1"; shift; exec "$@"'
    for kib in (40_000, 55_000, 60_000, 70_000):
        subprocess.run(
            ["bash", "-c", limited, "-", str(kib), PROGRAM, "run", "-j", "3"],
            cwd=project.folder,
            env=project.environ,
            capture_output=True,
            timeout=WAIT_S,
        )
    for run in project.runnable("runs").out.splitlines()[1:]:
        project.runnable("retry", run.split()[0])


PYTHON = """
import sys
from dataclasses import dataclass

import pydantic


class Settings(pydantic.BaseModel):
    rate: float
    layers: list[int]


@dataclass
class Pair:
    left: int
    right: int = 2


class Model:
    def __init__(self, rate):
        self.rate = rate


def train(settings: Settings, pair: Pair, rate, epochs=3):
    print(settings, pair, type(rate).__name__)
    return Model(rate), {"loss": 0.5}, epochs, lambda x: x + 1


def evaluate(model, inc, score_at: "int" = 1):
    print(model.rate, inc(1), score_at)


def leaves():
    print("bye")
    sys.exit(0)


def fails(rate):
    return helper(rate)


def helper(rate):
    return 1 / (rate - rate)


def wrong():
    return 1, 2, 3


def needs(something_else: "int"):
    pass
"""
STEPS = """
[parameters]
rate = 0.5
layers = [1, 2]
pair = { left = 1 }
unused = "x"
[steps.train]
python = "work:train"
returns = { model = "object", loss = "metric", epochs = "json", inc = "object" }
[steps.evaluate]
python = "work:evaluate"
[steps.leaves]
python = "work:leaves"
[steps.fails]
python = "work:fails"
[steps.wrong]
needs = []
python = "work:wrong"
returns = ["a", "b"]
[steps.needs]
needs = []
python = "work:needs"
"""


def test_python_steps(tmp_path: Path) -> None:
    """Functions get what their arguments name, and give objects, metrics and values; failures show the user's code."""
    project = workspace(tmp_path, {"runnable.toml": STEPS, "work.py": PYTHON})
    done = project.runnable("run", code=1)
    assert "train    | rate=0.5 layers=[1, 2] Pair(left=1, right=2) float\n" in done.out
    assert "evaluate | 0.5 2 1\n" in done.out
    assert "leaves   | bye\n" in done.out
    log = project.log()
    train, evaluate = log.steps["train"].attempts[0], log.steps["evaluate"].attempts[0]
    assert (log.metrics(), log.parameters["epochs"].value) == ({"loss.loss": 0.5}, 3)
    assert log.parameters["model"].object_type == "work.Model"
    assert sorted(train.consumed) == ["layers", "pair", "rate"]
    assert {"layers", "pair", "rate", "unused"} <= set(train.input_parameters)
    assert train.defaulted == ["epochs"]
    assert list(train.modules) == ["work.py"]
    assert list(evaluate.consumed) == ["model", "inc"]
    assert log.steps["leaves"].status == SUCCESS
    failed = log.steps["fails"].attempts[0]
    assert failed.exception
    line = PYTHON.splitlines().index("    return 1 / (rate - rate)") + 1
    assert (failed.exception.type, failed.exception.file, failed.exception.line) == (
        "ZeroDivisionError",
        "work.py",
        line,
    )
    assert failed.message == f"ZeroDivisionError: float division by zero (work.py:{line})"
    assert [frame for frame in failed.exception.traceback.splitlines() if "File" in frame] == [
        f'  File "{project.folder}/work.py", line {line - 4}, in fails',
        f'  File "{project.folder}/work.py", line {line}, in helper',
    ]
    for text in (done.err, project.runnable("logs", "latest", "fails").out):
        assert "return 1 / (rate - rate)" in text
        assert "python_step.py" not in text
    assert "function `work:wrong` returned 3 values, the step's `returns` names 2 (a, b)" in log.steps["wrong"].message
    assert "needs `something_else`, which no parameter or earlier step provides" in log.steps["needs"].message


def test_parameters(tmp_path: Path) -> None:
    """A parameter is the file's, then --params-file's, then the environment's, then --param's; types are kept."""
    steps = "[parameters]\na = 1\nb = 1\nc = 1\nd = 1\nname = 'x'\n[steps.show]\nrun = 'echo $a $b $c $d $name $new'"
    project = workspace(tmp_path, {"runnable.toml": steps, "given.toml": "b = 2\nc = 2\nd = 2\n"})
    given = ("--params-file", "given.toml", "--param", "d=4.5", "-p", "name=5", "-p", 'new=[1, "two"]')
    done = project.runnable("run", *given, RUNNABLE_PRM_c="3", RUNNABLE_PRM_d="3")
    assert done.out == 'show | 1 2 3 4.5 5 [1, "two"]\n'
    log = project.log()
    assert {name: p.value for name, p in log.parameters.items()} == {
        "a": 1,
        "b": 2,
        "c": 3,
        "d": 4.5,
        "name": "5",
        "new": [1, "two"],
    }
    assert project.runnable("run", "-p", "d", code=2).err == (
        "error: --param d: expected name=value\nhint: such as --param rate=0.5\n"
    )
    assert "the parameter name `PATH` is reserved" in project.runnable("run", "-p", "PATH=1", code=2).err


def test_run_ids_and_dry_run(tmp_path: Path) -> None:
    """A dry run touches nothing; a run id is used once; each of them says what it will not do."""
    project = workspace(tmp_path, {"runnable.toml": DIAMOND, ".gitignore": "*.log\n"})
    dry = project.runnable("run", "--dry-run")
    assert dry.out == "".join(f"{name:6}  run    first attempt\n" for name in ("top", "left", "right", "bottom"))
    assert not project.store.exists()
    assert not project.read("order.log")
    project.runnable("run", "--run-id", "mine", "--quiet")
    again = project.runnable("run", "--run-id", "mine", code=2)
    assert again.err == "error: there is already a run `mine`\nhint: `runnable-ci retry mine` resumes it\n"
    assert "cannot be a run id" in project.runnable("run", "--run-id", "latest", code=2).err
    assert "cannot be a run id" in project.runnable("run", "--run-id", "../up", code=2).err
    assert "cannot be a run id" in project.runnable("run", "-n", "--run-id", "../up", code=2).err
    assert project.runnable("run", "-n", "--run-id", "mine", code=2).err == again.err


def test_without_git_and_from_below(tmp_path: Path) -> None:
    """Outside a repository the log says so; a pipeline file further up is another project's, and named as such."""
    content = '[project]\nname = "p"\n[tool.runnable-ci]\nname = "mine"\n[tool.runnable-ci.steps.a]\nrun = "pwd"\n'
    project = workspace(tmp_path, {"pyproject.toml": content, "deep/er/a.txt": ""}, git=False)
    below = project.runnable("run", at="deep/er", code=2)
    assert f"hint: {project.folder}/pyproject.toml is in a parent folder outside any git repository" in below.err
    done = project.runnable("run")
    assert done.out == f"a | {project.folder}\n"
    assert "mine" in project.runnable("runs", "--json").out
    log = project.log()
    (code,) = log.steps["a"].attempts[0].code_identities
    assert (code.code_identifier, code.code_identifier_dependable) == ("", False)
    assert "git" in code.code_identifier_message
    assert list(log.environments[log.steps["a"].attempts[0].environment].lock_files) == ["pyproject.toml"]


def test_dirty_tree(tmp_path: Path) -> None:
    """What the pipeline makes leaves the tree clean, even a tracked file; anything else makes it dirty, by name."""
    steps = (
        "[steps.a]\nrun = 'date +%N > made.txt; mkdir -p sub; touch sub/new.txt'\ncatalog.put = ['made.txt', 'sub']\n"
    )
    project = workspace(tmp_path, {"runnable.toml": steps + "[steps.b]\nrun = 'true'", "made.txt": "old"})
    project.git("remote", "add", "origin", "https://somebody:hidden-token@example.org/team/p.git")
    for run in ("first", "second"):
        project.runnable("run", "--run-id", run)
        for step in project.log().steps.values():
            (code,) = step.attempts[0].code_identities
            assert (code.code_identifier_dependable, code.code_identifier_message) == (True, "")
            assert code.code_identifier_url == "https://example.org/team/p.git"
    project.write({"notes.txt": "mine"})
    project.runnable("run", "--run-id", "third")
    (code,) = project.log().steps["b"].attempts[0].code_identities
    assert (code.code_identifier_dependable, code.code_identifier_message) == (False, "untracked: notes.txt")
    assert project.log().code_states[project.log().steps["b"].attempts[0].code_state].kept
    assert not any(b"hidden-token" in path.read_bytes() for path in project.store.rglob("*") if path.is_file())
    listed = project.runnable("runs").out.splitlines()
    assert ["dirty" in line for line in listed[1:]] == [False, False, True]


def test_files_of_steps(tmp_path: Path) -> None:
    """A step gets what an earlier one put, else an input of the workspace; both stand in the log with their hash."""
    steps = """
[steps.put]
run = "echo data > data.csv"
catalog = { put = ["data.csv"] }
[steps.remove]
run = "rm data.csv"
[steps.get]
run = "cat data.csv input.txt"
catalog = { get = ["data.csv", "*.txt"] }
"""
    project = workspace(tmp_path, {"runnable.toml": steps, "input.txt": "input\n"})
    assert project.runnable("run").out == "get    | data\nget    | input\n"
    entries = {entry.name: entry for entry in project.log().steps["get"].data_catalog}
    assert (entries["data.csv"].source, entries["input.txt"].source) == ("put", "")
    assert entries["data.csv"].data_hash == "6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f"
    assert {entry.stage for entry in entries.values()} == {"get"}


def test_large_output(tmp_path: Path) -> None:
    """Output that is too large for a pack is moved into the store as it was hashed when it was written."""
    at = workspace(tmp_path, {"runnable.toml": '[steps.one]\nrun = "seq 100000; echo end >&2"\n'})
    at.runnable("run", "--run-id", "r", "--quiet")
    assert list((at.store / "runs" / "r" / "logs").iterdir()) == []
    log = at.log("r").steps["one"].attempts[0].log
    assert log is not None
    content = "".join(f"{number}\n" for number in range(1, 100001)).encode()
    assert (log.size, log.stdout_bytes) == (len(content) + 4, len(content))
    blob = at.store / "blobs" / "sha256" / log.data_hash
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == log.data_hash
    assert at.runnable("logs", "r", "one", "--stdout").raw == content
    at.runnable("run", "--run-id", "again", "--quiet")
    assert at.runnable("logs", "again", "one", "--stdout").raw == content


def test_a_full_disk_fails_the_step_that_prints(tmp_path: Path) -> None:
    """The step has failed and says what to do, the rest is skipped, and a retry goes on from there."""
    # The disk is full for the output of `b` alone: the step before it puts the device that has no space in its place.
    file = "[steps.a]\nrun = 'ln -s /dev/full .runnable/runs/full/logs/b.1.log'\n"
    file += "[steps.b]\nrun = 'head -c 200000 /dev/zero'\n[steps.c]\nrun = 'true'\n"
    project = workspace(tmp_path, {"runnable.toml": file})
    done = project.runnable("run", "--run-id", "full", code=1)
    assert "b | error: no space left on the disk of" in done.err
    assert "b | hint: free some space, then try again" in done.err
    statuses = {name: step.status for name, step in project.log("full").steps.items()}
    assert statuses == {"a": SUCCESS, "b": FAIL, "c": SKIPPED}
    project.runnable("retry", "full")
    assert [len(step.attempts) for step in project.log("full").steps.values()] == [1, 2, 1]


def test_undeclared_returns_are_told_of(tmp_path: Path) -> None:
    """A value that nobody declared is not kept, and one line says so."""
    file = (
        """[steps.a]\nrun = 'echo "x=1" >> "$RUNNABLE_OUTPUT"; echo "typo=2" >> "$RUNNABLE_OUTPUT"'\nreturns = ["x"]"""
    )
    project = workspace(tmp_path, {"runnable.toml": file})
    done = project.runnable("run")
    assert "a | note: ignored, `returns` does not declare it: `typo`\n" in done.err
    assert list(project.log().parameters) == ["x"]
