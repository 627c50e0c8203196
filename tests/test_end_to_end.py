"""The iris example, as its reader goes through it: a real pipeline fails, its code is fixed, and it is resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from cli import workspace

from runnable_ci.runlog import FAIL, SUCCESS

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


def test_iris(tmp_path: Path) -> None:
    """The example breaks by an edit, is fixed, and only the failed step and those below it run."""
    project = workspace(tmp_path, {"readme.txt": "", ".gitignore": "__pycache__\n"})
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, project.folder)
    code = project.read("iris.py")
    assert WORKS in code
    project.write({"iris.py": code.replace(WORKS, BREAKS)})
    broken = project.commit()
    line = project.read("iris.py").splitlines().index(f"    {BREAKS}") + 1

    done = project.runnable("run", "--run-id", "r", code=1)
    assert f"NameError: name 'train_y' is not defined (iris.py:{line})" in done.err
    assert done.err.endswith("run r: FAIL, failed: fit\nhint: runnable-ci retry r\n")
    assert [step.status for step in project.log().steps.values()] == [SUCCESS, FAIL, "SKIPPED", "SKIPPED"]

    project.write({"iris.py": code})
    fixed = project.commit()
    done = project.runnable("retry", "r")
    assert "load     | reuse: reused, but iris.py changed since (function load is the same)\n" in done.err
    assert "flowers told right" in done.out

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
    assert set(fit["input_parameters"]) == {"X", "Y", "test_size", "regularisation", "seed"}
    assert set(fit["output_parameters"]) == {"logreg"}
    (picture,) = log["steps"]["plot"]["data_catalog"]
    assert picture.keys() >= FILE
    assert (picture["name"], picture["stage"]) == ("iris_logistic.png", "put")
    assert picture["catalog_relative_path"] == "r/iris_logistic.png"

    project.runnable("catalog", "r", "--get", "iris_logistic.png", "--to", "picture.png")
    assert (project.folder / "picture.png").read_bytes().startswith(b"\x89PNG")
    packages = next(iter(log["environments"].values()))["packages"]
    assert {"scikit-learn", "matplotlib", "numpy"} <= packages.keys()
