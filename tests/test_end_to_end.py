"""The iris example, as its reader goes through it: a real pipeline fails, its code is fixed, and it is resumed."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path

from cli import Workspace, elsewhere, workspace
from registry_server import PASSWORD, USERNAME, token_registry

from runnable_ci.runs.model import FAIL, SUCCESS

EXAMPLE = Path(__file__).parent.parent / "examples" / "iris"
WORKS, BREAKS = "logreg.fit(train_X, train_Y)", "logreg.fit(train_X, train_y)"

# The fields of the reference system's run log: ours has more, and drops none.
RUN = {"run_id", "dag_hash", "tag", "status", "parameters", "run_config", "steps"}
STEP = {"name", "internal_name", "status", "step_type", "message", "mock", "branches", "attempts", "data_catalog"}
ATTEMPT = {
    *("attempt_number", "start_time", "end_time", "status", "message", "retry_indicator", "input_parameters"),
    *("output_parameters", "user_defined_metrics", "code_identities"),
}
CODE = {
    *("code_identifier", "code_identifier_type", "code_identifier_dependable", "code_identifier_url"),
    "code_identifier_message",
}
FILE = {"name", "data_hash", "catalog_relative_path", "catalog_handler_location", "stage"}
OBJECT = {"kind": "object", "reduced": True}


def broken_iris(tmp_path: Path) -> tuple[Workspace, str, str]:
    """The example with its mistake committed, its code without it, and the commit."""
    project = workspace(tmp_path, {"readme.txt": "", ".gitignore": "__pycache__\n"})
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, project.folder)
    code = project.read("iris.py")
    assert WORKS in code
    project.write({"iris.py": code.replace(WORKS, BREAKS)})
    return project, code, project.commit()


def test_iris(tmp_path: Path) -> None:
    """The example breaks by an edit, is fixed, and only the failed step and those below it run."""
    project, code, broken = broken_iris(tmp_path)
    line = project.read("iris.py").splitlines().index(f"    {BREAKS}") + 1

    done = project.runnable("run", "--run-id", "r", code=1)
    assert f"NameError: name 'train_y' is not defined (iris.py:{line})" in done.err
    assert done.err.endswith("run r: FAIL, failed: fit\nhint: runnable-ci retry r\n")
    assert [step.status for step in project.log().steps.values()] == [SUCCESS, FAIL, "SKIPPED", "SKIPPED"]

    project.write({"iris.py": code})
    fixed = project.commit()
    done = project.runnable("retry", "r")
    assert "load     | reuse: unchanged since attempt 1\n" in done.err
    assert "test samples)" in done.out

    log = json.loads(project.runnable("show", "r", "--json").out)
    assert log.keys() >= RUN
    assert {name: len(step["attempts"]) for name, step in log["steps"].items()} == {
        "load": 1,
        "fit": 2,
        "evaluate": 1,
        "plot": 1,
    }
    for name, step in log["steps"].items():
        assert step.keys() >= STEP
        assert (step["name"], step["internal_name"], step["status"], step["step_type"]) == (name, name, SUCCESS, "task")
        for attempt in step["attempts"]:
            assert attempt.keys() >= ATTEMPT
            (identity,) = attempt["code_identities"]
            assert identity.keys() >= CODE
            assert identity["code_identifier_type"] == "git"
            assert identity["code_identifier_dependable"] is True
    assert log["status"] == SUCCESS
    identities = [a["code_identities"][0]["code_identifier"] for a in log["steps"]["fit"]["attempts"]]
    assert identities == [broken, fixed]
    for name in ("X", "Y", "logreg"):
        described = {"value": name, "description": f"Pickled object stored in catalog as: {name}"}
        assert log["parameters"][name].items() >= {**OBJECT, **described}.items()
    score = log["parameters"]["score"]
    assert (score["kind"], score["description"], score["reduced"]) == ("metric", score["value"], True)
    assert 0.5 < score["value"] < 1
    assert log["steps"]["evaluate"]["attempts"][0]["user_defined_metrics"] == {"score": score}
    fit = log["steps"]["fit"]["attempts"][1]
    assert set(fit["consumed"]) == {"X", "Y", "test_size", "regularisation", "seed"}
    assert set(fit["output_parameters"]) == {"logreg"}
    (picture,) = log["steps"]["plot"]["data_catalog"]
    assert picture.keys() >= FILE
    assert (picture["name"], picture["stage"]) == ("iris_logistic.png", "put")
    assert picture["catalog_relative_path"] == "r/iris_logistic.png"

    project.runnable("catalog", "r", "--get", "iris_logistic.png", "--to", "picture.png")
    assert (project.folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    packages = next(iter(log["environments"].values()))["packages"]
    assert {"scikit-learn", "matplotlib", "numpy"} <= packages.keys()


def test_iris_travels(tmp_path: Path) -> None:
    """The run fails and is published; another user, with a clone and the registry, fixes the code, goes on from the
    failed step and publishes; the first user then reads the whole run.

    The registry gives out tokens. One user has logged in with docker, the other has a name and a password.
    """
    project, code, broken = broken_iris(tmp_path)
    with token_registry(tmp_path / "registry") as (served, _, _):
        repository = served.repository()
        logged_in = {"auths": {served.host: {"auth": base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()}}}
        (Path(project.environ["HOME"]) / ".docker").mkdir()
        (Path(project.environ["HOME"]) / ".docker" / "config.json").write_text(json.dumps(logged_in))
        done = project.runnable("run", "--run-id", "r", "--to", repository, code=1)
        reference = re.findall(r"published (\S+:r@sha256:[0-9a-f]{64}): sent", done.err)[0]

        other = elsewhere(project, tmp_path)
        assert "docker login" in other.runnable("retry", reference, code=1).err
        known = {"RUNNABLE_CI_REGISTRY_USERNAME": USERNAME, "RUNNABLE_CI_REGISTRY_PASSWORD": PASSWORD}
        other = Workspace(other.folder, other.environ | known)
        other.write({"iris.py": code})
        fixed = other.commit()
        done = other.runnable("retry", reference, "--publish")
        assert re.search(r"fetched \S+ KiB from .*, \S+ K?i?B not downloaded\n", done.err)
        assert "load     | reuse: unchanged since attempt 1\n" in done.err
        assert "test samples)" in done.out
        assert (other.folder / "iris_logistic.png").exists()

        assert "merged from 2 writers" in project.runnable("pull", "r", "--from", repository).err
        listed = json.loads(project.runnable("runs", "--from", repository, "--json").out)
    assert [(run["run_id"], run["status"], run["attempts"], run["commit"]) for run in listed] == [
        ("r", SUCCESS, 2, fixed)
    ]
    log = project.log("r")
    assert (log.status, [invocation.status for invocation in log.invocations]) == (SUCCESS, [FAIL, SUCCESS])
    assert {name: len(step.attempts) for name, step in log.steps.items()} == {
        "load": 1,
        "fit": 2,
        "evaluate": 1,
        "plot": 1,
    }
    codes = [attempt.code_identities[0].code_identifier for attempt in log.steps["fit"].attempts]
    assert codes == [broken, fixed]
    assert "NameError" in project.runnable("logs", "r", "fit", "--attempt", "1").out
    project.runnable("catalog", "r", "--get", "iris_logistic.png", "--to", "picture.png")
    assert (project.folder / "picture.png").read_bytes() == (other.folder / "iris_logistic.png").read_bytes()
