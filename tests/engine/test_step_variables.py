"""Tests of which environment variables an attempt records: which count, as digests, and nothing of a secret."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from cli import Workspace, workspace

from runnable_ci.engine.provenance.step_variables import ValueDigests, variables_of
from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.model import StepAttempt

SECRET = "Tr0ub4dor-and-3"
KEY = "a key of mine"


def step_of(**table: object) -> Step:
    """The only step of a pipeline."""
    return resolve({"steps": {"a": table}}, file="runnable.toml", default_name="p").steps["a"]


def names_of(environ: dict[str, str], *, parameters: tuple[str, ...] = (), **table: object) -> set[str]:
    """The variables that count for a step."""
    digests = ValueDigests(Redactor(), ())
    return {*variables_of(step_of(**table), environ, digests, parameters=parameters, folder=Path("/w"))}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


SET = dict.fromkeys(("FOO", "BAR", "HOME", "TZ", "GITHUB_OUTPUT", "RUNNABLE_STEP", "RUNNABLE_RUN_ID", "PATH"), "1")


@pytest.mark.parametrize(
    ("table", "parameters", "counted"),
    [
        ({"run": "true"}, (), {"TZ"}),
        ({"run": "echo ${FOO:-3} $UNSET FOOBAR"}, (), {"TZ", "FOO", "UNSET"}),
        ({"run": "python -c 'import os; os.environ[\"BAR\"]'"}, (), {"TZ", "BAR"}),
        ({"run": "echo $FOO $TZ"}, ("FOO", "TZ"), set()),
        ({"run": "echo $FOO", "env": {"FOO": "2"}}, (), {"TZ"}),
        ({"run": "echo x >> $GITHUB_OUTPUT; echo $RUNNABLE_STEP $RUNNABLE_RUN_ID"}, (), {"TZ", "RUNNABLE_RUN_ID"}),
        ({"run": "true", "env-read": ["BAR", "NONE"]}, (), {"TZ", "BAR", "NONE"}),
        ({"python": "m:f", "env-read": ["BAR"]}, ("BAR",), {"TZ", "BAR"}),
        ({"run": "env | sort > all"}, (), {"TZ", "*"}),
        ({"run": 'eval "$FOO"'}, (), {"TZ", "FOO", "*"}),
        ({"run": 'eval "$FOO"', "env-read": ["FOO"]}, (), {"TZ", "FOO"}),
        ({"run": "cat $RUNNABLE_PARAMETERS; set -e; .venv/bin/python x.py"}, (), {"TZ"}),
    ],
)
def test_which_variables_count(table: dict[str, object], parameters: tuple[str, ...], counted: set[str]) -> None:
    """Those that `env-read` has, that a command names, and a few that always count; not what is compared elsewhere."""
    assert names_of(SET, parameters=parameters, **table) == counted


def test_the_working_directory_is_what_a_shell_makes_of_it() -> None:
    """Not the folder that the program was started in."""
    digests = ValueDigests(Redactor(), ())
    found = variables_of(step_of(run="echo $PWD"), {"PWD": "/else"}, digests, parameters=(), folder=Path("/w/sub"))
    assert found == {"PWD": sha256("/w/sub")}


@pytest.mark.parametrize(
    ("key", "recorded"),
    [("", "secret"), (KEY, f"hmac:{hmac.new(KEY.encode(), SECRET.encode(), 'sha256').hexdigest()}")],
)
@pytest.mark.parametrize("why", ["declared", "named so", "in a text", "of the job"])
def test_no_digest_of_a_secret_can_be_guessed_from(key: str, recorded: str, why: str) -> None:
    """A secret is recorded by the person's key, or as nothing: a plain sha256 of it could be tried."""
    name = {"declared": "LOGIN", "named so": "DB_PASSWORD", "in a text": "LOGIN", "of the job": "GITHUB_TOKEN"}[why]
    known = [SECRET] if why == "in a text" else []
    digests = ValueDigests(Redactor(known), {"LOGIN"} if why == "declared" else (), key)
    step = step_of(run=f"echo ${name}")
    assert variables_of(step, {name: SECRET}, digests, parameters=(), folder=Path("/w")) == {name: recorded}
    own = step_of(run="true", env={name: SECRET})  # its definition will have a mask
    assert variables_of(own, {name: SECRET}, digests, parameters=(), folder=Path("/w")) == {name: recorded}


@pytest.mark.parametrize(
    ("names", "problem"),
    [(["$FOO"], 'env-read: "$FOO" is not the name of a variable'), (["RUNNABLE_STEP"], "is set by runnable-ci")],
)
def test_what_cannot_be_read(names: list[str], problem: str) -> None:
    """One clear error."""
    with pytest.raises(PipelineError, match=r"env-read") as refused:
        step_of(run="true", **{"env-read": names})
    assert problem in refused.value.message
    assert refused.value.hint


PIPELINE = """
secrets = ["PIN"]
[parameters]
PIN = "12345678"
size = 3
[steps.a]
run = "echo $PIN $FOO $size"
[steps.b]
run = "true"
[steps.c]
python = "m:f"
env-read = ["FOO"]
"""


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline with a secret parameter, a command that names a variable, and a function that is said to."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE, "m.py": "def f(PIN):\n    return None\n"})


def attempts(project: Workspace, run: str) -> dict[str, StepAttempt]:
    return {name: step.attempts[-1] for name, step in project.log(run).steps.items()}


def test_an_attempt_records_what_its_process_had(project: Workspace) -> None:
    """With the key also its secret parameters; without it none of them, and neither the value nor its digest."""
    for run, key in (("r1", ""), ("r2", KEY)):
        project.runnable("run", "--run-id", run, FOO="1", PYTHONHASHSEED="0", RUNNABLE_CI_REUSE_KEY=key)
        made = attempts(project, run)
        assert made["a"].variables == {"FOO": sha256("1"), "PYTHONHASHSEED": sha256("0")}
        assert made["b"].variables == {"PYTHONHASHSEED": sha256("0")}
        assert made["c"].variables == made["a"].variables
        assert [{*it.secret_values} for it in made.values()] == [
            {"PIN"} if key else set(),
            set(),
            {"PIN"} if key else set(),
        ]
        text = project.runnable("show", run, "--json").out
        assert "12345678" not in text
        assert sha256('"12345678"') not in text
        assert KEY not in text
    project.runnable("run", "--run-id", "r3", FOO="1", RUNNABLE_CI_REUSE_KEY=KEY)
    assert attempts(project, "r3")["a"].secret_values == made["a"].secret_values


def test_the_key_is_kept_from_steps(project: Workspace) -> None:
    """And from the log, should a step find it nevertheless."""
    (project.folder / "runnable.toml").write_text('[steps.a]\nrun = "printenv | grep -c REUSE_KEY || echo none"\n')
    done = project.runnable("run", "--run-id", "r", RUNNABLE_CI_REUSE_KEY=KEY)
    assert "a | none" in done.out


def test_a_log_without_variables_has_no_field_of_them(tmp_path: Path) -> None:
    """Nothing is written where nothing counts."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n'})
    project.runnable("run", "--run-id", "r")
    journal = (project.folder / ".runnable" / "runs" / "r" / "journal.jsonl").read_text()
    assert '"variables":' not in journal.partition('"event":"environment"')[0].rpartition("\n")[0]
