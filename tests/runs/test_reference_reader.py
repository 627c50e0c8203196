"""Test that the reference system, as it is on PyPI, reads our run log."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from example_run import CLEAN, RUN_ID, run_log

from runnable_ci.runs.document import encode
from runnable_ci.runs.model import FAIL, SUCCESS

REFERENCE_VERSION = "0.50.0"


@pytest.fixture(scope="session")
def reference_python() -> Path:
    """The interpreter of an environment that has the reference system; made once, and kept."""
    root = Path(os.environ.get("RUNNABLE_TEST_CACHE") or Path(__file__).parents[2] / ".cache").resolve()
    folder = root / f"reference-{REFERENCE_VERSION}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python = folder / "bin" / "python"
    if not python.exists():
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=root, prefix=".making-"))
        try:
            subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
            install = ["-m", "pip", "install", "--quiet", f"runnable=={REFERENCE_VERSION}"]
            subprocess.run([str(made / "bin" / "python"), *install], check=True)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return python


READ = """
import json, sys
from runnable.datastore import RunLog
log = RunLog.model_validate(json.load(open(sys.argv[1], encoding="utf-8")))
fit = log.steps["fit"]
print(json.dumps({
    "run": [log.run_id, log.status, log.dag_hash],
    "score": log.parameters["score"].value,
    "fit": [fit.status, [a.status for a in fit.attempts], [c.name for c in fit.data_catalog]],
    "code": fit.attempts[1].code_identities[0].code_identifier,
    "steps": list(log.steps),
}))
"""


def test_the_reference_system_reads_ours(reference_python: Path, tmp_path: Path, environ: Mapping[str, str]) -> None:
    """The reference system's own models read our document unchanged."""
    document = tmp_path / "run-log.json"
    document.write_bytes(encode(run_log()))
    done = subprocess.run(
        [reference_python, "-c", READ, document], env=environ, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "run": [RUN_ID, SUCCESS, "36d6"],
        "score": 0.6,
        "fit": [SUCCESS, [FAIL, SUCCESS], ["data/0000.csv", "model.csv"]],
        "code": CLEAN.code_identifier,
        "steps": ["load", "fit", "plot"],
    }
