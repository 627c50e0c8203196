"""Tests of `runnable-ci retry`: the real program goes on with real runs that failed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from cli import Workspace, is_alive, workspace
from support import wait_until

from runnable_ci.runs.model import FAIL, SUCCESS
from runnable_ci.util.clock import now

# Each step that runs leaves its name in `ran.log`, which git does not see.
CHAIN = """
[parameters]
rate = 1
other = 1
[steps.load]
run = "echo load >> ran.log; echo $rate > data.csv"
catalog = { put = ["data.csv"] }
[steps.fit]
run = "echo fit >> ran.log; exit 1"
[steps.report]
run = "echo report >> ran.log; cat data.csv"
"""
FIXED = CHAIN.replace("; exit 1", "")


def ran(project: Workspace) -> list[str]:
    """The steps that ran since this was asked last."""
    names = project.read("ran.log").split()
    (project.folder / "ran.log").unlink(missing_ok=True)
    return names


def decisions(project: Workspace, *arguments: str) -> dict[str, tuple[str, str]]:
    """Step → (action, reason) as `retry --dry-run` prints them."""
    lines = project.runnable("retry", "latest", "--dry-run", *arguments).out.splitlines()
    return {words[0]: (words[1], words[2]) for words in (line.split(maxsplit=2) for line in lines)}


def failed_chain(tmp_path: Path) -> Workspace:
    """A project whose run `r` has failed in its second of three steps."""
    project = workspace(tmp_path, {"runnable.toml": CHAIN, ".gitignore": "*.log\n*.csv\n"})
    project.runnable("run", "--run-id", "r", code=1)
    assert ran(project) == ["load", "fit"]
    return project


def test_fixed_failed_step(tmp_path: Path) -> None:
    """A fixed failed step and those below run, the rest is reused and restored; every attempt stays, with its code."""
    project = failed_chain(tmp_path)
    first = project.git("rev-parse", "HEAD")
    assert decisions(project) == {
        "load": ("reuse", "unchanged since attempt 1"),
        "fit": ("run", "attempt 1 failed: exit code 1"),
        "report": ("run", "first attempt"),
    }
    project.write({"runnable.toml": FIXED.replace("echo fit", "echo  fit")})
    second = project.commit()
    (project.folder / "data.csv").unlink()
    done = project.runnable("retry", "r")
    assert ran(project) == ["fit", "report"]
    assert done.out == "report | 1\n"
    assert "load   | reuse: unchanged since attempt 1\n" in done.err
    log = project.log()
    assert (log.status, [i.status for i in log.invocations]) == (SUCCESS, [FAIL, SUCCESS])
    assert [len(step.attempts) for step in log.steps.values()] == [1, 2, 1]
    fit = log.steps["fit"].attempts
    assert [(a.attempt_number, a.status, a.invocation) for a in fit] == [(1, FAIL, 1), (2, SUCCESS, 2)]
    assert [a.code_identities[0].code_identifier for a in fit] == [first, second]
    assert log.invocations[-1].decisions["load"].reason == "unchanged since attempt 1"
    shown = project.runnable("show", "latest").out
    assert "run: attempt 1 failed: exit code 1" in shown
    again = project.runnable("retry", "latest")
    assert again.err.startswith("run r: nothing to do, 3 steps done\n")
    assert ran(project) == []
    assert [len(step.attempts) for step in project.log().steps.values()] == [1, 2, 1]


def test_failing_again(tmp_path: Path) -> None:
    """A retry that fails is exit code 1, with another attempt in the log."""
    project = failed_chain(tmp_path)
    done = project.runnable("retry", "latest", code=1)
    assert done.err.endswith("run r: FAIL, failed: fit\nhint: runnable-ci retry r\n")
    assert ran(project) == ["fit"]
    log = project.log()
    assert (log.status, len(log.steps["fit"].attempts)) == (FAIL, 2)
    assert project.runnable("retry", "nobody", code=2).err.startswith("error: no run `nobody` in ")


def test_changed_definition(tmp_path: Path) -> None:
    """A changed finished step is named, and runs with all below it; what is beside it is reused; new steps run."""
    steps = """
[steps.a]
run = "echo a >> ran.log"
[steps.b]
run = "echo b >> ran.log"
[steps.beside]
needs = ["a"]
run = "echo beside >> ran.log"
[steps.c]
needs = ["b"]
run = "echo c >> ran.log"
"""
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "*.log\n"})
    project.runnable("run")
    ran(project)
    changed = steps.replace("echo b >", "echo  b >") + "[steps.new]\nrun = 'echo new >> ran.log'\n"
    project.write({"runnable.toml": changed + "timeout-minutes = 3"})
    assert decisions(project) == {
        "a": ("reuse", "unchanged since attempt 1"),
        "b": ("run", "its `run` changed"),
        "beside": ("reuse", "unchanged since attempt 1"),
        "c": ("run", "`b` runs first, reused if that changes nothing"),
        "new": ("run", "first attempt"),
    }
    project.runnable("retry", "latest", "--jobs", "1")
    assert ran(project) == ["b", "c", "new"]


def test_from_step(tmp_path: Path) -> None:
    """`--from` runs a step and all below it again; an unknown one is an error with the closest name."""
    project = workspace(tmp_path, {"runnable.toml": FIXED, ".gitignore": "*.log\n*.csv\n"})
    project.runnable("run")
    ran(project)
    project.runnable("retry", "latest", "--from", "fit")
    assert ran(project) == ["fit", "report"]
    assert project.log().steps["fit"].attempts[-1].reason == "--from fit"
    both = project.runnable("retry", "latest", "-n", "--from", "report", "--from", "fit").out.splitlines()
    assert both[-2:] == ["fit     run    --from fit", "report  run    --from report"]
    wrong = project.runnable("retry", "latest", "--from", "fit", "--from", "fitt", code=2)
    assert wrong.err == "error: --from fitt: runnable.toml has no such step\nhint: did you mean `fit`?\n"


def test_parameters(tmp_path: Path) -> None:
    """The parameters are those of the run, though the file has changed; one that is given re-runs what consumed it."""
    steps = """
[parameters]
rate = 1
other = 1
[steps.a]
run = "echo a >> ran.log; echo $rate"
[steps.b]
needs = []
run = "echo b >> ran.log; echo $other"
[steps.c]
needs = []
python = "work:c"
"""
    work = "def c(epochs=3):\n    print(epochs, file=open('ran.log', 'a'))\n"
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "*.log\n__pycache__\n", "work.py": work})
    project.runnable("run")
    ran(project)
    project.write({"runnable.toml": steps.replace("rate = 1", "rate = 2")})
    done = project.runnable("retry", "latest", "--param", "other=5")
    assert ran(project) == ["b"]
    assert done.err.startswith(
        "note: parameter rate is 2 in runnable.toml; the run keeps its 1 (--param rate=… changes it)\n"
    )
    assert done.out == "b | 5\n"
    assert project.log().steps["b"].attempts[-1].reason == "parameter other changed: 1 → 5"
    project.write({"next.json": '{"other": 7, "epochs": 4}'})
    from_file = decisions(project, "--params-file", "next.json", "--param", "other=5")
    assert from_file["c"] == ("run", "parameter epochs is now set: 4")
    assert from_file["b"] == decisions(project)["b"]
    assert decisions(project, "--param", "epochs=4")["c"] == ("run", "parameter epochs is now set: 4")
    unread = project.runnable("retry", "latest", "--param", "unread=4")
    assert "note: unknown parameter unread: no step takes it\n" in unread.err
    assert "nothing to do" in unread.err
    assert ran(project) == []
    project.write({"runnable.toml": f"{steps}\nenv = {{ LEVEL = '1' }}\n"})
    refused = project.runnable("retry", "latest", "--param", "LEVEL=2", code=2)
    assert refused.err.startswith("error: the parameter `LEVEL` is also set by `env` in runnable.toml, step `c`\n")
    assert project.runnable("retry", "latest", "--param", "PATH=2", code=2).err.startswith(
        "error: --param: the parameter name `PATH` is reserved\n"
    )


MODULES = """
from helper import one

def load():
    print("load", file=open("ran.log", "a"))
    return [one]

def fit(X):
    print("fit", file=open("ran.log", "a"))
    raise ValueError(X)
"""


def test_changed_code(tmp_path: Path) -> None:
    """Code that a finished step read or reaches runs it again, with its file named; other code gives no note."""
    steps = """
[steps.load]
python = "work:load"
returns = { X = "object" }
[steps.shell]
run = "bash script.sh"
catalog = { get = ["*.csv"], put = ["*.txt"] }
[steps.fit]
python = "work:fit"
"""
    script = "echo shell >> ran.log; cat *.csv > made.txt"
    ignored = "*.log\n__pycache__\n"
    files = {"work.py": MODULES, "helper.py": "one = 1\n", "script.sh": script, "in.csv": "1\n", ".gitignore": ignored}
    project = workspace(tmp_path, {"runnable.toml": steps, **files})
    project.runnable("run", code=1)
    assert ran(project) == ["load", "shell", "fit"]
    fit = MODULES.replace("raise ValueError(X)", "print(X)")
    project.write({"work.py": fit})
    unchanged = ("reuse", "unchanged since attempt 1")
    assert decisions(project) == {
        "load": unchanged,
        "shell": unchanged,
        "fit": ("run", "attempt 1 failed: ValueError: [1] (work.py:10)"),
    }
    project.write({"script.sh": script + "\n"})
    project.commit()
    project.write({"helper.py": "one = 1 + 1\n"})
    found = decisions(project)
    assert found["load"] == ("run", "helper.py, work.py changed, which it read")
    assert found["shell"] == ("run", "`load` runs first, reused if that changes nothing")
    project.write({"helper.py": "one = 1\n"})
    assert decisions(project)["shell"] == ("run", "script.sh changed, which it read")
    project.write({"script.sh": script})
    (project.folder / "made.txt").write_text("my own")
    done = project.runnable("retry", "latest")
    assert ran(project) == ["fit"]
    assert done.out == "fit   | [1]\n"
    assert project.read("made.txt") == "1\n"
    assert project.read(f".runnable/runs/{project.log().run_id}/replaced/made.txt") == "my own"
    assert "nothing to do" in project.runnable("retry", "latest").err
    project.write({"in.csv": "2\n"})
    assert decisions(project)["shell"] == ("run", "input in.csv changed")
    project.write({"in.csv": "1\n", "more.csv": "3\n"})
    assert decisions(project)["shell"] == ("run", "input more.csv is new")
    (project.folder / "more.csv").unlink()
    (project.folder / "in.csv").rename(project.folder / "other.csv")
    assert decisions(project)["shell"] == ("run", "input in.csv is gone; other.csv is new")


def test_elsewhere(tmp_path: Path) -> None:
    """A copy of `.runnable/` in a fresh clone is enough to go on; so is the run alone, copied by another OCI client."""
    steps = """
[steps.load]
python = "work:load"
returns = { X = "object", rows = "json" }
catalog = { put = ["out"] }
[steps.fit]
python = "work:fit"
"""
    work = """
def load():
    import os
    os.makedirs("out", exist_ok=True)
    for i in range(30):
        open(f"out/{i}.csv", "w").write(str(i))
    print("load", file=open("ran.log", "a"))
    return {1, 2}, 30

def fit(X, rows):
    print(X, rows, open("out/29.csv").read())
    raise ValueError
"""
    project = workspace(tmp_path, {"runnable.toml": steps, "work.py": work, ".gitignore": "*.log\nout\n__pycache__\n"})
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"work.py": work.replace("raise ValueError", "return")})
    project.commit()
    for name in ("copied", "pulled"):
        clone = Workspace(tmp_path / name, project.environ)
        project.git("clone", "-q", str(project.folder), str(clone.folder))
        if name == "copied":
            shutil.copytree(project.store, clone.store)
        else:
            copy = ["skopeo", "copy", "-q", f"oci:{project.store}:r", f"oci:{clone.store}:r"]
            subprocess.run(copy, check=True, env=project.environ, capture_output=True)
            assert not (clone.store / "runs").exists()
        assert "r    FAIL  " in clone.runnable("runs").out
        assert "{1, 2} 30 29\n" in clone.runnable("logs", "r", "fit").out
        done = clone.runnable("retry", "r")
        assert done.out == "fit  | {1, 2} 30 29\n"
        assert "load | reuse: unchanged since attempt 1\n" in done.err
        assert ran(clone) == []
        log = clone.log()
        assert (log.status, [len(step.attempts) for step in log.steps.values()]) == (SUCCESS, [1, 2])
        assert clone.read("out/7.csv") == "7"
        assert len(clone.runnable("logs", "r", "fit", "--attempt", "1").out.splitlines()) > 2


def test_restore_all(tmp_path: Path) -> None:
    """With `--restore all` the workspace has every file of the reused steps, the last put of a name, though none reads
    it; also where nothing is left to run.
    """
    steps = """
[steps.one]
run = "echo 1 > a.txt; echo 1 > b.txt"
catalog = { put = ["*.txt"] }
[steps.two]
run = "echo 2 > b.txt"
catalog = { put = ["b.txt"] }
[steps.three]
run = "cat c.txt; echo 3 > b.txt"
catalog = { get = [], put = ["b.txt"] }
"""
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "*.txt\n"})

    def forget() -> None:
        for name in ("a.txt", "b.txt"):
            (project.folder / name).unlink(missing_ok=True)

    project.runnable("run", "--run-id", "r", code=1)
    forget()
    project.runnable("retry", "r", code=1)
    assert (project.read("a.txt"), project.read("b.txt")) == ("", "")
    project.runnable("retry", "r", "--restore", "all", code=1)
    assert (project.read("a.txt"), project.read("b.txt")) == ("1\n", "2\n")
    project.write({"c.txt": "c"})
    project.runnable("retry", "r", "--restore", "all")
    forget()
    assert "nothing to do" in project.runnable("retry", "r").err
    assert project.read("a.txt") == ""
    assert "nothing to do" in project.runnable("retry", "r", "--restore", "all").err
    assert (project.read("a.txt"), project.read("b.txt")) == ("1\n", "3\n")
    assert len(project.log().invocations) == 4


def test_damaged_content(tmp_path: Path) -> None:
    """Stored content that was tampered with is named and refused; content that is gone is made again."""
    project = failed_chain(tmp_path)
    project.write({"runnable.toml": FIXED})
    (project.folder / "data.csv").unlink()
    (entry,) = project.log().steps["load"].data_catalog
    blob = project.store / "blobs" / "sha256" / entry.data_hash
    blob.chmod(0o644)
    blob.write_text("2\n")
    refused = project.runnable("retry", "r", code=1)
    assert "`data.csv`" in refused.err
    assert entry.data_hash in refused.err
    assert "hint: " in refused.err
    assert ran(project) == []
    assert not project.read("data.csv")
    assert not (project.folder / "data.csv").exists()
    blob.unlink()
    assert project.runnable("retry", "r").out == "report | 1\n"
    assert ran(project) == ["load", "fit", "report"]
    assert blob.read_text() == "1\n"


def test_damaged_object(tmp_path: Path) -> None:
    """A tampered object is never unpickled: the step that needs it fails, and can be run once it is repaired."""
    work = "def load():\n    return {1}\n\ndef fit(X):\n    print(X)\n"
    steps = "[steps.load]\npython = 'work:load'\nreturns = { X = 'object' }\n[steps.fit]\npython = 'work:fit'\n"
    project = workspace(tmp_path, {"runnable.toml": steps, "work.py": work, ".gitignore": "__pycache__\n"})
    project.runnable("run")
    digest = project.log().parameters["X"].data_hash
    blob = project.store / "blobs" / "sha256" / digest
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(b"cos\nsystem\n(S'touch unpickled.log'\ntR.".ljust(len(content)))
    refused = project.runnable("retry", "latest", "--from", "fit", code=1)
    assert digest in refused.err
    assert not (project.folder / "unpickled.log").exists()
    blob.write_bytes(content)
    assert project.runnable("retry", "latest").out == "fit  | {1}\n"


def test_killed_run(tmp_path: Path) -> None:
    """A killed run is a failed run whose attempt is marked; a retry ends what it left running, and goes on."""
    steps = """
[steps.load]
run = "echo load >> ran.log"
[steps.hangs]
run = '''
if [ -e pid.log ]; then echo again; exit 0; fi
echo before the kill; echo $$ > pid.part; mv pid.part pid.log
sleep 60
'''
"""
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "*.log\n"})
    with project.start("run", "--run-id", "r") as running:
        wait_until(lambda: project.read("pid.log"), "the step")
        assert running.stdout
        assert running.stdout.readline() == b"hangs | before the kill\n"
        running.kill()
    pid = project.read("pid.log")
    assert is_alive(pid)
    looked = now()
    log = project.log("r")
    assert (log.status, log.message) == (FAIL, "interrupted: the run was killed")
    assert (log.outcome, log.interrupted, log.steps["hangs"].attempts[-1].interrupted) == ("interrupted", True, True)
    assert log.steps["load"].status == SUCCESS
    assert log.end_time < looked
    assert log.steps["hangs"].message == "interrupted: the process that ran it was killed"
    assert project.runnable("logs", "r", "hangs").out == "before the kill\n"
    done = project.runnable("retry", "r")
    assert not is_alive(pid)
    assert done.out == "hangs | again\n"
    assert ran(project) == ["load"]
    log = project.log()
    assert (log.status, [a.status for a in log.steps["hangs"].attempts]) == (SUCCESS, [FAIL, SUCCESS])
    assert project.runnable("logs", "r", "hangs", "--attempt", "1").out == "before the kill\n"


def test_same_name_twice(tmp_path: Path) -> None:
    """Where two steps put the same name, each version is kept, and a step gets the one of the step before it."""
    steps = """
[steps.a]
run = "echo a > x.csv"
catalog = { put = ["x.csv"] }
[steps.b]
run = "echo b >> x.csv"
catalog = { get = ["x.csv"], put = ["x.csv"] }
[steps.c]
needs = ["a"]
run = "cat x.csv >> ran.log"
catalog = { get = ["x.csv"] }
[steps.d]
needs = ["b", "c"]
run = "cat x.csv >> ran.log"
catalog = { get = ["x.csv"] }
"""
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "*.log\n*.csv\n"})
    project.runnable("run", "--jobs", "1")
    assert ran(project) == ["a", "a", "b"]
    (project.folder / "x.csv").unlink()
    project.runnable("retry", "latest", "--from", "b", "--jobs", "1")
    assert ran(project) == ["a", "b"]
    for arguments, content in (((), "a\nb\n"), (("--step", "a"), "a\n"), (("--step", "b", "--attempt", "1"), "a\nb\n")):
        project.runnable("catalog", "latest", "--get", "x.csv", "--to", "got.log", "--force", *arguments)
        assert project.read("got.log") == content


def test_mode_of_restored_files(tmp_path: Path) -> None:
    """A restored program can be run: the mode comes back with the content."""
    steps = """
[steps.build]
run = "printf '#!/bin/sh\\necho built' > tool.log; chmod +x tool.log"
catalog = { put = ["tool.log"] }
[steps.use]
run = "./tool.log"
catalog = { get = ["tool.log"] }
"""
    project = workspace(tmp_path, {"runnable.toml": steps.replace("\\n", "\\\\n"), ".gitignore": "*.log\n"})
    project.runnable("run")
    (project.folder / "tool.log").unlink()
    assert project.runnable("retry", "latest", "--from", "use").out == "use   | built\n"
    assert os.access(project.folder / "tool.log", os.X_OK)


def test_variables_that_are_for_new_runs_are_named(tmp_path: Path) -> None:
    """A retry keeps the run's parameters; one that is set in the environment and differs is said, without its value."""
    steps = '[parameters]\nn = 1\n[steps.a]\nrun = "echo $n; exit 1"\n'
    project = workspace(tmp_path, {"runnable.toml": steps})
    project.runnable("run", "--run-id", "r", code=1)
    done = project.runnable("retry", "r", code=1, RUNNABLE_PRM_n="5", RUNNABLE_PRM_other="secret")
    assert "note: RUNNABLE_PRM_n is for new runs: this one keeps n = 1 (--param n=… changes that)\n" in done.err
    assert "note: RUNNABLE_PRM_other is for new runs: this one has no parameter other" in done.err
    assert "secret" not in done.err
    for same in ({"RUNNABLE_PRM_n": "1"}, {}):
        assert "RUNNABLE_PRM" not in project.runnable("retry", "r", code=1, **same).err
    assert "RUNNABLE_PRM" not in project.runnable("retry", "r", "-p", "n=5", code=1, RUNNABLE_PRM_n="6").err


def test_a_plan_says_that_the_run_lives_and_what_it_resumes_from(tmp_path: Path) -> None:
    """No attempt of it failed; once it was killed, the plan names the checkpoint that the step resumes from."""
    step = '[steps.train]\nrun = "mkdir ck; echo 1 > ck/i; touch asleep; sleep 60"\n'
    files = {
        "runnable.toml": f'{step}checkpoint = {{ path = ["ck/*"], every-minutes = 0.01 }}\n',
        ".gitignore": ".runnable\nck\nasleep\n",
    }
    project = workspace(tmp_path, files)
    with project.start("run", "--run-id", "r") as running:
        wait_until((project.folder / "asleep").exists, "the step")
        planned = project.runnable("retry", "r", "-n")
        assert re.search(r"note: run r is in progress here, last sign of life \d s ago; the plan is", planned.err)
        assert "train  run    attempt 1 has not ended\n" in planned.out
        wait_until(lambda: project.log("r").steps["train"].attempts[-1].checkpoint is not None, "a checkpoint")
        running.kill()
    planned = project.runnable("retry", "r", "-n")
    assert "in progress" not in planned.err
    assert "note: `train` resumes from the checkpoint of attempt 1 (generation 1, kept 2" in planned.err
    project.write({"runnable.toml": files["runnable.toml"].replace("sleep 60", "true").replace("mkdir", "mkdir -p")})
    dropped = project.runnable("retry", "r", "-n", "--checkpoint", "drop").err
    assert "note: `train` starts over without the checkpoint of attempt 1 (generation 1" in dropped
    project.runnable("retry", "r")
    assert project.runnable("retry", "r", "-n").err == ""
