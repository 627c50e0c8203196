"""`reproduce` runs no deploy again by itself, and leaves out what it is asked to; what needs that has it as it was."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli import Workspace, workspace

IGNORED = ".runnable\n__pycache__\nout*\ndata\n.venv\n"


def pipeline(tmp_path: Path, toml: str, **files: str) -> Workspace:
    """A pipeline in a repository, with a file outside of it to which its steps write that they ran."""
    made = workspace(tmp_path, {"runnable.toml": toml, ".gitignore": IGNORED, **files})
    made.environ["RAN"] = str(tmp_path / "ran")
    return made


def reproduced(made: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    """What `reproduce --json` prints of the run `first`."""
    found: dict[str, Any] = json.loads(made.runnable("reproduce", "first", *words, "--json", "-q", code=code).out)
    return found


def ran(made: Workspace) -> list[str]:
    """Which steps wrote that they ran since the last question."""
    file = Path(made.environ["RAN"])
    found = file.read_text().split() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def own_address() -> str:
    """An address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.connect(("192.0.2.1", 9))  # sends nothing
        return str(asked.getsockname()[0])


@contextmanager
def served(address: str) -> Iterator[str]:
    """A server that takes what is sent to it; its HOST:PORT."""

    class Taking(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer((address, 0), Taking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{address}:{server.server_port}"
        server.shutdown()


DEPLOY = """import os, urllib.request
def note(name):
    with open(os.environ["RAN"], "a") as file:
        file.write(name + "\\n")
def deploy(where):
    note("deploy")
    urllib.request.urlopen(f"http://{where}/", data=open("out.txt", "rb").read())
def check():
    note("check")
    assert open("out.txt").read() == "1\\n"
def load(where):
    note("load")
    urllib.request.urlopen(f"http://{where}/", data=b"1")
    return 1
"""
PIPELINE = """
[parameters]
where = ""
[steps.make]
run = "echo make >> $RAN; echo 1 > out.txt"
catalog = { put = ["out.txt"] }
[steps.check]
python = "m:check"
[steps.load]
python = "m:load"
returns = ["loaded"]
[steps.deploy]
python = "m:deploy"
[steps.script]
run = "echo script >> $RAN"
[steps.send]
run = "echo send >> $RAN; curl --version > $(mktemp)"
"""


def test_a_deploy_is_not_run_again(tmp_path: Path) -> None:
    """What gave nothing and connected, or may have, is left out, and that is said first; what gives something runs."""
    made = pipeline(tmp_path, PIPELINE, **{"m.py": DEPLOY})
    with served(own_address()) as where:
        made.runnable("run", "-q", "--run-id", "first", "--param", f"where={where}")
        assert sorted(ran(made)) == ["check", "deploy", "load", "make", "script", "send"]
        done = made.runnable("reproduce", "first")
        assert sorted(ran(made)) == ["check", "load", "make"]
        said, _, ran_then = done.err.partition("run first-again-1:")
        assert re.search(r"^deploy +\| ✓ mocked$", ran_then, re.MULTILINE)
        nothing = "it gives nothing that could be compared, and"
        assert f"left out: `deploy`: {nothing} connected to {where}; `--include deploy` runs it" in said
        assert f"left out: `script`: {nothing} whether it connects to other machines is not seen" in said
        assert f"left out: `send`: {nothing} may connect to other machines (`curl`)" in said
        assert f"not held equal: `load` connected to {where}; `--skip load` leaves it out" in said
        assert "run first: reproduced; left out: `deploy`, `script`, `send`" in done.out
        said = made.runnable("show", "first-again-1").out
        assert "reproduces   first: reproduced; left out: deploy, script, send" in said
        ran(made)
        found = reproduced(made, "--include", "deploy", "--include", "send", "--skip", "load")
        assert sorted(ran(made)) == ["check", "deploy", "make", "send"]
        assert found["left_out"] == ["load", "script"]
        assert found["steps"]["load"] == {"verdict": "not comparable", "reason": "left out: `--skip`", "follows": ""}
        assert found["steps"]["deploy"]["verdict"] == "reproduced"


def test_a_step_alone_many_times(tmp_path: Path) -> None:
    """What was left out never runs, neither each time nor in a proof; the step has what that gave, and is named."""
    toml = """
[steps.make]
run = "echo make >> $RAN; echo 1 > kept.txt; echo 2 > side.txt; echo rows=3 >> $RUNNABLE_OUTPUT"
catalog = { put = ["kept.txt"] }
returns = ["rows"]
[steps.send]
run = "echo send >> $RAN; curl --version > $(mktemp)"
[steps.fit]
run = "cat kept.txt side.txt > out.txt; echo $rows $RANDOM >> out.txt"
catalog = { put = ["out.txt"] }
"""
    made = pipeline(tmp_path, toml)
    made.runnable("run", "-q", "--run-id", "first")
    ran(made)
    found = reproduced(made, "--skip", "make", "--times", "3", code=1)
    assert ran(made) == []
    assert found["left_out"] == ["make", "send"]
    assert list(found["varies"]) == ["fit"]
    assert (found["varies"]["fit"]["proved"], found["varies"]["fit"]["culprits"]) == (True, ["random"])
    (made.folder / "side.txt").write_text("other\n")
    found = reproduced(made, "--skip", "make", "--times", "2", code=4)
    assert found["steps"]["fit"]["verdict"] == "not comparable"
    assert "side.txt, which it read, is another file now" in found["steps"]["fit"]["reason"]


def test_a_step_on_the_loopback_alone(tmp_path: Path) -> None:
    """A check that asks a server of this machine is no deploy."""
    made = pipeline(
        tmp_path, '[parameters]\nwhere = ""\n[steps.deploy]\npython = "m:load"\n', **{"m.py": DEPLOY + "    return 2\n"}
    )
    with served("127.0.0.1") as where:
        made.runnable("run", "-q", "--run-id", "first", "--param", f"where={where}")
        ran(made)
        assert reproduced(made)["left_out"] == []
    assert ran(made) == ["load"]


def test_what_needs_a_skipped_step_has_what_that_gave(tmp_path: Path) -> None:
    """Its files, values, objects and metrics are those of the first run, though it would give others now."""
    made = pipeline(
        tmp_path,
        """
[steps.make]
python = "m:make"
returns = { model = "object", score = "metric", name = "json" }
catalog = { put = ["out.txt", "out/many"] }
[steps.part]
strategy = { matrix = { n = [1, 2] } }
run = 'cat /proc/sys/kernel/random/uuid > out-$n.txt; echo "u=$(cat out-$n.txt)" >> $RUNNABLE_OUTPUT'
returns = ["u"]
catalog = { put = ["out-${{ matrix.n }}.txt"] }
[steps.use]
python = "m:use"
needs = ["make", "part"]
returns = { all = "json" }
""",
        **{
            "m.py": """import os, uuid
def make():
    os.makedirs("out/many")
    for n in range(30):
        open(f"out/many/{n}", "w").write(str(uuid.uuid4()))
    open("out.txt", "w").write(str(uuid.uuid4()))
    return {"id": str(uuid.uuid4())}, uuid.uuid4().int % 1000, str(uuid.uuid4())
def use(model, score, name, u):
    files = ["out.txt", "out-1.txt", "out-2.txt", *(f"out/many/{n}" for n in range(30))]
    return [model, score, name, u, *(open(file).read() for file in files)]
"""
        },
    )
    made.runnable("run", "-q", "--run-id", "first")
    found = reproduced(made, code=1)
    assert found["steps"]["make"]["verdict"] == "different"
    found = reproduced(made, "--skip", "make", "--skip", "part")
    assert found["steps"]["use"]["verdict"] == "reproduced", found
    assert found["left_out"] == ["make", "part.1.part", "part.2.part"], found
    assert reproduced(made, "--skip", "make", "--skip", "part", "--times", "2")["verdict"] == "reproduced"


def test_a_deploy_in_another_file(tmp_path: Path) -> None:
    """Of the steps of another file the deploy alone is left out, and what comes after them has what they gave."""
    made = pipeline(
        tmp_path,
        """
[steps.make]
run = "echo make >> $RAN; echo 1 > out-1.txt"
catalog = { put = ["out-1.txt"] }
[steps.release]
uses = "release.toml"
[steps.each]
strategy = { matrix = { n = [1, 2] } }
run = "echo each-$n >> $RAN"
[steps.last]
run = "echo last >> $RAN; cat out-2.txt > out-3.txt"
catalog = { put = ["out-3.txt"] }
""",
        **{
            "release.toml": """
[steps.build]
run = "echo build >> $RAN; cat /proc/sys/kernel/random/uuid out-1.txt > out-2.txt"
catalog = { put = ["out-2.txt"] }
[steps.deploy]
run = "echo deploy >> $RAN; scp -V 2> out-said || true"
"""
        },
    )
    made.runnable("run", "-q", "--run-id", "first")
    ran(made)
    done = made.runnable("reproduce", "first", code=1)
    assert sorted(ran(made)) == ["build", "last", "make"]
    assert "left out: `release.deploy`: it has no `put` or `returns`, and may connect" in done.err
    assert "left out: `each`: it gives nothing" in done.err
    assert re.search(r"release / deploy +not comparable +left out", done.out)
    found = reproduced(made, "--skip", "release.build", "--include", "each", "--include", "release")
    assert sorted(ran(made)) == ["deploy", "each-1", "each-2", "last", "make"]
    assert found["verdict"] == "reproduced"
    assert [name.rpartition(".")[2] for name in found["left_out"]] == ["build"]
    assert reproduced(made, "--skip", "release")["steps"]["last"]["verdict"] == "reproduced"
    assert sorted(ran(made)) == ["last", "make"]


def test_what_the_run_did_not_come_to_is_not_tried(tmp_path: Path) -> None:
    """A deploy that waited for what failed then does not run since that succeeds now."""
    made = pipeline(
        tmp_path,
        """
[steps.flaky]
run = "test -e $HOME/well; echo 1 > out.txt"
catalog = { put = ["out.txt"] }
[steps.deploy]
run = "echo deploy >> $RAN; echo 1 > out2.txt"
catalog = { put = ["out2.txt"] }
""",
    )
    made.runnable("run", "-q", "--run-id", "first", code=1)
    (Path(made.environ["HOME"]) / "well").touch()
    found = reproduced(made, code=4)  # what it found outside of the repository is another thing now
    assert [*found["steps"]] == ["flaky"]
    assert "it failed then, and succeeded now" in found["steps"]["flaky"]["reason"]
    assert ran(made) == []


def test_a_step_that_is_not_there(tmp_path: Path) -> None:
    """Names are checked before anything runs."""
    made = pipeline(tmp_path, '[steps.make]\nrun = "echo 1 > out.txt"\ncatalog = { put = ["out.txt"] }\n')
    made.runnable("run", "-q", "--run-id", "first")
    for option in ("--skip", "--include"):
        done = made.runnable("reproduce", "first", option, "mak", code=2)
        assert f"error: {option} mak: there is no such step\nhint: did you mean `make`?" in done.err


def test_no_hint_that_cannot_work(tmp_path: Path) -> None:
    """A reproduction that fails says nothing of a retry in a folder that is gone, nor by whom git knows elsewhere."""
    made = pipeline(tmp_path, '[steps.make]\nrun = "exit 3"\ncatalog = { put = ["out.txt"] }\n')
    made.git("config", "user.name", "Local Person")
    made.runnable("run", "-q", "--run-id", "first", code=1)
    done = made.runnable("reproduce", "first")
    assert "exit code 3" in done.err
    assert "retry" not in done.err + done.out
    logs = [made.log(name) for name in ("first", "first-again-1")]
    assert [log.invocations[-1].actor for log in logs] == ["Local Person", "Local Person"]
    assert logs[0].name == logs[1].name == "project"


def test_undeclared_files_of_what_is_left_out(tmp_path: Path) -> None:
    """A step that downloads without a `put` looks like a deploy: what it made is an input, by its hash."""
    made = pipeline(
        tmp_path,
        """
[steps.load]
run = "echo load >> $RAN; scp -V 2> out-said || true; echo 1 > out-data.txt"
[steps.use]
run = "echo use >> $RAN; cat out-data.txt > out.txt"
catalog = { put = ["out.txt"] }
""",
    )
    made.runnable("run", "-q", "--run-id", "first")
    ran(made)
    assert reproduced(made)["steps"]["use"]["verdict"] == "reproduced"
    assert ran(made) == ["use"]
    made.write({"out-data.txt": "2\n"})
    found = reproduced(made, code=4)
    assert found["steps"]["use"]["reason"] == "out-data.txt, which it read, is another file now"
    assert reproduced(made, "--include", "load")["verdict"] == "reproduced"
