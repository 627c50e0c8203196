"""The action's last step has the environment of the job, whatever the pipeline's steps wrote for later steps."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from action_steps import STEPS, ActionRun
from cli import workspace

from runnable_ci.github.action.job_environment import OF_THE_STEP, keep, restored

TOKEN = "ghs_" + "t0K3n" * 8
PIPELINE = """
[steps.set]
run = '''
{
  for name in HTTPS_PROXY https_proxy ALL_PROXY SSL_CERT_FILE REQUESTS_CA_BUNDLE CURL_CA_BUNDLE OPENSSL_CONF \
    GIT_SSH_COMMAND GIT_CONFIG_GLOBAL DOCKER_CONFIG HOME TMPDIR PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONWARNINGS \
    RUNNABLE_CI_REGISTRY RUNNABLE_CI_SECRETS RUNNABLE_CI_ACTION_ARGS RUNNABLE_CI_UNTRACKED RUNNABLE_CI_STORE NEW
  do echo "$name=$EVIL"; done
  echo "BASH_ENV=$EVIL/script"; echo "ENV=$EVIL/script"
  echo "LD_PRELOAD=$EVIL/script"; echo "LD_AUDIT=$EVIL/script"; echo "LD_LIBRARY_PATH=$EVIL"
} >> "$GITHUB_ENV"
echo "$EVIL" >> "$GITHUB_PATH"
'''
"""
SHELLS = [["/bin/sh"], *([["sh"]] if shutil.which("bash") else [])]
"""The system's, and what it is elsewhere: bash by that name."""


def script(path: Path, text: str) -> Path:
    """A program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A folder of programs and modules that say so when they are used."""
    folder = tmp_path / "evil"
    folder.mkdir()
    for name in ("script", "sh", "bash", "env", "python", "python3", "git", "exec"):
        script(folder / name, f"touch {tmp_path}/used-$(basename $0)")
    for name in ("json", "os", "sitecustomize", "runnable_ci"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / f'used-{name}')!r}, 'w')")
    return folder


def last_step(action: ActionRun, tmp_path: Path, shell: str, name: str = "finish") -> tuple[str, dict[str, str]]:
    """Run a last step as `action.yml` has it, up to the program that it becomes: the text, the environment."""
    found = tmp_path / "environment"
    ended = script(tmp_path / "ended", f"exec {sys.executable} -I -c {shlex.quote(DUMP)} {found}")
    code = f"import sys; sys.executable = {str(ended)!r}; from runnable_ci.github.action import job_environment as it"
    program = f"{sys.executable} -I -c {shlex.quote(f'{code}; del sys.argv[1:4]; it.main()')}"
    python = script(tmp_path / "python", f'exec {program} "$@"')
    environ = action.environment(name) | {"RUNNABLE_CI_PYTHON": str(python)}
    file = tmp_path / "finish.sh"
    file.write_text(STEPS[name]["run"])
    words = shlex.split(STEPS[name]["shell"].replace("/bin/sh", shell).replace("{0}", str(file)))
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    variables = found.read_bytes().decode().split("\0")
    environ = dict(line.split("=", 1) for line in variables if line)
    of_a_shell = {"PWD", "OLDPWD", "SHLVL", "_"}  # by which it is read here
    return done.stdout + done.stderr, {name: environ[name] for name in environ.keys() - of_a_shell}


DUMP = "import sys; open(sys.argv[1], 'wb').write(open('/proc/self/environ', 'rb').read())"


def job(tmp_path: Path, evil: Path, **variables: str) -> ActionRun:
    """A use of the action whose pipeline sets all of it, after its first step."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE})
    runner = {"GITHUB_RUN_ID": "1000", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "train", "GITHUB_REPOSITORY": "o/r"}
    environ = {**project.environ, **runner, "EVIL": str(evil), **variables}
    action = ActionRun(project.folder, tmp_path / "temp", environ, {"token": TOKEN, "publish": "never"}, is_quick=False)
    ran = action.step("run")
    assert ran.code == 0, ran.text
    return action


@pytest.mark.promise
@pytest.mark.parametrize("words", SHELLS, ids=lambda words: words[0])
def test_the_last_step_has_nothing_of_the_pipelines_steps(tmp_path: Path, evil: Path, words: list[str]) -> None:
    """What they set for later steps of the job is there for these: neither shell, loader, Python nor we follow it."""
    shell = words[0]
    if shell == "sh":
        (tmp_path / "sh").symlink_to(str(shutil.which("bash")))
        shell = str(tmp_path / "sh")
    action = job(tmp_path, evil, RUNNABLE_CI_UNTRACKED="none", LD_LIBRARY_PATH="/opt/lib", HTTPS_PROXY="http://p:1")
    before = ActionRun(action.workspace, action.temp, action.environ, action.inputs).environment("setup")
    assert action.variables["BASH_ENV"] == f"{evil}/script"
    assert action.environment("any")["PATH"].startswith(f"{evil}:")
    action.variables |= {
        "SHELLOPTS": "xtrace",
        "PS4": f"$({evil}/script)",
        "BASH_FUNC_exec%%": f"() {{ {evil}/exec; }}",
    }
    text, environ = last_step(action, tmp_path, shell)
    assert text == ""
    assert [path.name for path in tmp_path.glob("used-*")] == []
    assert {name: environ[name] for name in environ.keys() - OF_THE_STEP} == {
        name: value for name, value in before.items() if name not in OF_THE_STEP
    }
    assert environ["HTTPS_PROXY"] == "http://p:1"
    assert environ["RUNNABLE_CI_GITHUB_TOKEN"] == TOKEN
    assert environ["GITHUB_OUTPUT"].endswith("finish.output")


def test_what_the_last_step_sets_itself_is_what_is_taken() -> None:
    """The list of names is that of `action.yml`, and each shell there is the system's own."""
    said = {name for step in ("finish", "comment") for name in STEPS[step]["env"] if name.startswith("RUN")}
    here = {"RUNNABLE_CI_PYTHON", "RUNNABLE_CI_JOB_ENVIRONMENT"}
    assert said - here == {name for name in OF_THE_STEP if name.startswith("RUN")}
    assert {step["shell"] for step in STEPS.values() if "run" in step} == {"/bin/sh -e {0}"}


def test_the_job_s_environment_is_kept_without_its_tokens(tmp_path: Path) -> None:
    """No other user may read it, and a token of the job, which has not changed, is taken from where it is."""
    environ = {"GITHUB_TOKEN": TOKEN, "RUNNABLE_CI_REGISTRY_PASSWORD": "pa55word", "A": "1\n\udcff", "PATH": "/bin"}
    file = keep(environ, tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert TOKEN not in file.read_text()
    assert "pa55word" not in file.read_text()
    kept = {
        name: "" if name in ("GITHUB_TOKEN", "RUNNABLE_CI_REGISTRY_PASSWORD") else environ[name] for name in environ
    }
    now = {**environ, "PATH": "/evil", "GH_TOKEN": "a-step-s", "RUN_ID": "one"}
    assert restored(now, kept) == {**environ, "RUN_ID": "one"}


def test_the_step_of_the_comment_runs_like_the_last_one() -> None:
    """Neither loader nor shell follows what the pipeline's steps set."""
    finish, comment = STEPS["finish"]["env"], STEPS["comment"]["env"]
    loaders = {name: value for name, value in finish.items() if not name.startswith("RUN")}
    assert {name: value for name, value in comment.items() if not name.startswith("RUN")} == loaders


@pytest.mark.parametrize("event", ["push", "pull_request"])
def test_the_environment_is_there_for_the_step_of_the_comment(tmp_path: Path, evil: Path, event: str) -> None:
    """A job of a pull request has that step too: the environment is gone after it, else after the one before."""
    action = job(tmp_path, evil, GITHUB_EVENT_NAME=event, HTTPS_PROXY="http://p:1")
    kept = Path(action.outputs["setup"]["environment"])
    last_step(action, tmp_path, "/bin/sh")
    assert kept.exists() == (event == "pull_request")
    if kept.exists():
        text, environ = last_step(action, tmp_path, "/bin/sh", "comment")
        assert (text, environ["HTTPS_PROXY"]) == ("", "http://p:1")
        assert not kept.exists()


@pytest.mark.parametrize("left", [None, "[]", "{"])
def test_a_step_that_removes_the_kept_environment_loses_it(tmp_path: Path, evil: Path, left: str | None) -> None:
    """The last step goes on with what the runner sets, and says so."""
    action = job(tmp_path, evil, HTTPS_PROXY="http://p:1")
    file = Path(action.outputs["setup"]["environment"])
    file.unlink()
    if left is not None:
        file.write_text(left)
    text, environ = last_step(action, tmp_path, "/bin/sh")
    assert text.startswith("::warning title=runnable-ci::the environment that was kept for this step is gone")
    assert environ["PATH"] == os.defpath
    assert not environ.keys() & {"HTTPS_PROXY", "HOME", "NEW", "BASH_ENV", "LD_PRELOAD"}
    assert environ["RUN_ID"] == "train-1000"


def test_the_environment_is_gone_after_the_last_step(tmp_path: Path, evil: Path) -> None:
    """It is read once; the step itself works."""
    action = job(tmp_path, evil)
    done = action.step("finish")
    assert done.code == 0, done.text
    assert action.outputs["finish"]["status"] == "SUCCESS"
    assert not Path(action.outputs["setup"]["environment"]).exists()
    assert [path.name for path in tmp_path.glob("used-*")] == []


def test_a_missing_variable_is_no_empty_one() -> None:
    """What the runner does not set for the step is not there."""
    environ: Mapping[str, str] = {"A": "1"}
    assert restored(environ, {"A": "2"}) == {"A": "2"}
