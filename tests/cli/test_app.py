"""Tests of the command line as a program: help, exit codes, errors, pipes and terminals."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli import PROGRAM, Workspace, terminal, workspace

COMMANDS = ("run", "retry", "runs", "show", "logs", "catalog", "checkout", "gc", "check", "init")


def test_help(tmp_path: Path) -> None:
    """The program and each command explain themselves, on stdout."""
    project = workspace(tmp_path, {}, git=False)
    with ThreadPoolExecutor(2) as pool:
        texts = pool.map(lambda words: project.runnable(*words, "--help").out, [(), *((c,) for c in COMMANDS)])
    whole, *each = texts
    for name, text in zip(COMMANDS, each, strict=True):
        assert f"\n  {name} " in whole
        assert text.startswith(f"Usage: runnable-ci {name} ")
        assert "[[" not in text


@pytest.mark.parametrize(
    ("words", "message", "hint", "command"),
    [
        (("rnus",), "no such command `rnus`", "did you mean `runs`?", ""),
        (("retyr", "x"), "no such command `retyr`", "did you mean `retry`?", ""),
        (("--versoin",), "no such option: --versoin", "did you mean `--version`?", ""),
        (("run", "--parms", "a=1"), "no such option: --parms", "did you mean `--param`?", "run"),
        (
            ("run", "--attempt", "2"),
            "no such option: --attempt",
            "--attempt is an option of other commands: `--attempt` of logs, catalog",
            "run",
        ),
        (
            ("show", "--from", "fit"),
            "no such option: --from",
            "--from is an option of other commands: `--from FOLDER` of run; `--from STEP` of ret",
            "show",
        ),
        (("gc", "--zzz"), "no such option: --zzz", "`runnable-ci gc --help` shows", "gc"),
        (("show",), "missing argument `RUN_ID|REFERENCE`", "`runnable-ci show --help` shows", "show"),
        (("run", "--jobs", "many"), "invalid value for `--jobs` / `-j`: must be a valid integer", "`runn", "run"),
        (("gc", "--keep", "-1"), "invalid value for `--keep`: must be greater than", "`runnable-ci gc --help`", "gc"),
        (("pull", "r", "--only", "x"), "invalid value for `--only`: `x` is not one of `log`", "`runn", "pull"),
        (("show", "a", "s", "b"), "got unexpected extra argument(s) (b)", "`runnable-ci show --help`", "show"),
        (("publish", "r", "--to"), "option `--to` requires an argument", "`runnable-ci publish --help`", "publish"),
        (("check", "--help=1"), "option `--help` does not take a value", "`runnable-ci check --help`", "check"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], message: str, hint: str, command: str) -> None:
    """Wrong usage has the form of every error, with the command's usage line, on stderr; the exit code is 2."""
    done = workspace(tmp_path, {}, git=False).runnable(*words, code=2)
    assert done.out == ""
    first, second, third = done.err.splitlines()
    assert first.startswith(f"error: {message}")
    assert second.startswith(f"hint: {hint}")
    assert third.startswith(f"usage: runnable-ci {command}".rstrip() + " [OPTIONS]")


def test_wrong_usage_in_a_job(tmp_path: Path) -> None:
    """A job shows wrong usage as an annotation, and a secret in the command line as a mask."""
    environ = {"GITHUB_ACTIONS": "true", "DB_PASSWORD": "hunter2hunter2"}
    done = workspace(tmp_path, {}, git=False).runnable("run", "--hunter2hunter2", code=2, **environ)
    assert "::error title=runnable-ci::no such option: --***%0Ahint: " in done.out + done.err
    assert "hunter2" not in done.out + done.err


def test_no_command(tmp_path: Path) -> None:
    """The program alone prints its help on stderr, and is wrong usage."""
    done = workspace(tmp_path, {}, git=False).runnable(code=2)
    assert done.out == ""
    assert done.err.startswith("Usage: runnable-ci [OPTIONS] COMMAND")


def test_errors_have_no_traceback(tmp_path: Path) -> None:
    """An error is `error: …` and `hint: …` on stderr, and nothing on stdout."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n"}, git=False)
    for words in (("run", "nowhere"), ("show", "latest"), ("retry", "latest"), ("run", "--params-file", "no.toml")):
        done = project.runnable(*words, code=2)
        assert done.out == ""
        assert re.fullmatch(r"error: .+\n(hint: .+\n)?", done.err), done.err
    jobs = project.runnable("run", code=2, RUNNABLE_CI_JOBS="many")
    assert jobs.err.startswith("error: RUNNABLE_CI_JOBS: ")


def piped(project: Workspace, command: str) -> tuple[str, str]:
    """stdout and stderr of a bash command line, in which `$program` is ours."""
    environ = {**project.environ, "program": PROGRAM}
    done = subprocess.run(["bash", "-c", command], cwd=project.folder, env=environ, capture_output=True, timeout=20)
    return done.stdout.decode(), done.stderr.decode()


def test_closed_pipe(tmp_path: Path) -> None:
    """A reader that has seen enough ends no run: it goes on, is sealed, and its output is kept."""
    steps = """
[steps.long]
run = "seq 200000"
[steps.last]
run = "echo the end"
"""
    project = workspace(tmp_path, {"runnable.toml": steps})
    assert piped(project, "$program run --run-id one 2>/dev/null | grep -m1 long") == ("long | 1\n", "")
    out, err = piped(project, "$program run --run-id two 2>&1 | head -n 2 | wc -l")
    assert (out, err) == ("2\n", "")
    for run in ("one", "two"):
        assert project.log(run).status == "SUCCESS"
        assert project.runnable("logs", run, "last").out == "the end\n"
        assert project.runnable("logs", run, "long").out.endswith("\n200000\n")
    assert piped(project, "$program logs latest long 2>/dev/null | head -n 1") == ("1\n", "")


HEAVY = {"pydantic", "git", "oras", "requests", "urllib3", "http", "asyncio", "ssl", "rich", "pydantic_settings"}


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (("--help",), set()),
        (("check",), {"pydantic"}),
        (("runs",), {"pydantic"}),
        (("run",), {"pydantic"}),
    ],
)
def test_loads_only_what_the_command_needs(tmp_path: Path, words: tuple[str, ...], needed: set[str]) -> None:
    """Help loads nothing heavy, and a run nothing that only the network needs: a short run is mostly start-up."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n"})
    command = [sys.executable, "-X", "importtime", "-m", "runnable_ci", *words]
    done = subprocess.run(command, cwd=project.folder, env=project.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "typer" in loaded
    assert loaded & HEAVY == needed


def test_terminal(tmp_path: Path) -> None:
    """A terminal shows colours and a status of what runs, never longer than a line, and none of it stays behind."""
    name = "a-step-with-a-rather-long-name"
    folders = [tmp_path / "one", tmp_path / "two"]  # two runs in one are not allowed
    for folder in folders:
        folder.mkdir()
    steps = f"[steps.{name}]\nrun = 'sleep 1.3; echo done'\n"
    first, second = (workspace(folder, {"runnable.toml": steps}) for folder in folders)
    with ThreadPoolExecutor(2) as pool:
        coloured = pool.submit(terminal, first, "run", "--run-id", "r")
        plain = pool.submit(terminal, second, "run", "--run-id", "s", columns=30, NO_COLOR="1")
    assert "\x1b[36m" in coloured.result()
    assert re.search(r"\x1b\[2m0 of 1 done, \d+ s: a-step-with…er-long-name \d+ s\x1b", coloured.result())
    assert not re.search(r"\x1b\[[0-9;]*m", plain.result())
    status = next(line for line in re.split(r"\r\n|\x1b\[J\r", plain.result()) if line.startswith("0 of 1"))
    assert len(status.partition("\r")[0]) < 30
    for run, text in (("r", coloured.result()), ("s", plain.result())):
        lines = [line.rpartition("\x1b[J\r")[2] for line in text.split("\r\n")]
        shown = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
        shown = [re.sub(r"\d+\.\d s$", "1.3 s", line) for line in shown]
        assert [line.replace("│", "|") for line in shown] == [
            f"run {run}: project, 1 step",
            "a-step-with…er-long-name | done",
            "a-step-with…er-long-name | ✓ 1.3 s",
            f"run {run}: SUCCESS",
            "",
        ]


def test_piped_output_is_plain(tmp_path: Path) -> None:
    """Where no terminal looks on there are neither colours nor a status, and of a progress bar its last state."""
    step = r"printf '1%%\r2%%\r3%%\n'; printf 'one\r\n'; sleep 1.1"
    project = workspace(tmp_path, {"runnable.toml": f"[steps.a]\nrun = '''{step}'''\n"})
    done = project.runnable("run")
    assert done.out == "a | 3%\na | one\r\n"
    assert project.runnable("logs", "latest", "a").out == "1%\r2%\r3%\none\r\n"
    assert "\x1b" not in done.out + done.err
    assert "[0/1]" not in done.err
