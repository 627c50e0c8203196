"""Tests of what a run is given and leaves, end to end: inputs, secrets of a file, a log level, metrics in files."""

from __future__ import annotations

import json
from pathlib import Path

from cli import workspace

PIPELINE = """
log-level = "info"
[inputs.size]
type = "number"
default = 3
description = "how many"
[steps.make]
run = '''
echo "level $RUNNABLE_LOG_LEVEL key $API_TOKEN"
echo '{"acc": 0.9, "name": "rf", "deep": {"f1": 1}}' > eval/metrics.json
printf 'auc: .5\\n' > scores.yaml
{ printf 'big='; head -c 300000 /dev/zero | tr '\\0' x; echo; } >> "$RUNNABLE_OUTPUT"
echo 'small=1' >> "$RUNNABLE_OUTPUT"
'''
returns = { big = "text", small = "auto" }
metrics = ["eval/metrics.json", "scores.yaml"]
[steps.read]
run = '''
echo "${big:-left out} $small $size"
python3 values.py
'''
[steps.log]
python = "steps:log"
"""
VALUES = """
import json, os
with open(os.environ["RUNNABLE_PARAMETERS"]) as file:
    print({name: len(str(value)) for name, value in json.load(file).items()})
"""
STEPS = """
import logging

def log(size: int):
    logging.getLogger("mine").info("size %d", size)
    logging.getLogger("mine").debug("not shown")
"""


def test_a_run_with_all_of_it(tmp_path: Path) -> None:
    """Metrics of files are shown, the values of a secret file nowhere, the level reaches steps, large values fit."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, "steps.py": STEPS, "values.py": VALUES, "eval/.keep": ""})
    project.write({"prod.secrets": "API_TOKEN=abcd-efgh-1\nRUNNABLE_PRM_size=4\n"})
    done = project.runnable("run", "--run-id", "x", "--env-file", "prod.secrets")
    assert "run x: SUCCESS, metrics.acc = 0.9, metrics.deep.f1 = 1, scores.auc = 0.5" in done.err
    assert "make | note: eval/metrics.json: left out, no number: name\n" in done.err
    assert "read | note: too large for the environment, only in $RUNNABLE_PARAMETERS: big (293.0 KiB)\n" in done.err
    assert "read | left out 1 4\nread | {'size': 1, 'big': 300000, 'small': 1}\n" in done.out
    assert "size 4" in done.err
    assert "not shown" not in done.err
    assert "make | level INFO key ***\n" in done.out
    stored = [path for path in (project.folder / ".runnable").rglob("*") if path.is_file()]
    assert [path for path in stored if b"abcd-efgh-1" in path.read_bytes()] == []
    log = json.loads(project.runnable("show", "x", "--json").out)
    assert [invocation["log_level"] for invocation in log["invocations"]] == ["info"]
    assert "SUCCESS (log level info)\n" in project.runnable("show", "x").out
    assert {entry["name"] for entry in log["steps"]["make"]["data_catalog"] if entry["stage"] == "put"} == {
        "eval/metrics.json",
        "scores.yaml",
    }

    done = project.runnable("retry", "x", "--from", "log", "--log-level", "DEBUG", "--env-file", "prod.secrets")
    assert "not shown" in done.err
    assert "metrics.acc = 0.9" in done.err


def test_what_a_run_can_be_given(tmp_path: Path) -> None:
    """`--help-inputs` prints it and runs nothing; a value of another type is refused, and a missing metrics file."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, "steps.py": STEPS, "values.py": VALUES, "eval/.keep": ""})
    assert project.runnable("run", "--help-inputs").out == (
        "INPUT  TYPE    DEFAULT  DESCRIPTION\nsize   number  3        how many\n"
    )
    done = project.runnable("run", "--param", "size=many", code=2)
    assert (
        done.err
        == 'error: --param: size is a number in runnable.toml, not "many"\nhint: such as 5, 0.5 or 1e-3; or null\n'
    )
    assert "no NAME.env" not in project.runnable("run", "--env-file", "none.env", code=2).out
    assert not (project.folder / ".runnable").exists()
    project.write({"runnable.toml": PIPELINE.replace("> scores.yaml", "> other.yaml")})
    project.write({"prod.secrets": "API_TOKEN=abcd-efgh-1\n"})
    done = project.runnable("run", "--run-id", "y", "--env-file", "prod.secrets", code=1)
    assert "`scores.yaml`" in done.err
    assert "hint: runnable-ci retry y --env-file prod.secrets\n" in done.err
    project.write({"runnable.toml": PIPELINE.replace("auc: .5", "auc: high")})
    done = project.runnable("run", "--run-id", "z", code=1)
    assert "make | ✗ failed after" in done.err
    assert "scores.yaml has no number" in done.err
    entries = project.log("z").steps["make"].data_catalog
    assert {(entry.name, entry.stage) for entry in entries} == {
        ("eval/metrics.json", "failed"),
        ("scores.yaml", "failed"),
    }
