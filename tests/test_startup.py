"""Tests of what is loaded on the way to the first step, and on the ways that do nothing: each module costs its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli import Workspace, workspace
from support import python

LOADED = """
import os, sys
started = []
def note(event, args):
    if event == "subprocess.Popen":
        started.append(os.path.basename(args[1][0]))
sys.addaudithook(note)
from runnable_ci.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
    sys.stderr.write("\\nLOADED " + " ".join(sys.modules) + "\\nSTARTED " + " ".join(started))
"""
LIBRARIES = {"git", "oras", "requests", "urllib3", "pydantic_settings", "rich", "asyncio", "ssl", "http", "logging"}
PARTS = {
    *("github", "api", "runs.remote", "runs.merge", "vcs.clone", "vcs.snapshot", "vcs.checkout.rebuild", "util.http"),
    *(
        "steps.python_result",
        "store.registry",
        "store.client",
        "store.copy",
        "redaction.secret_values",
        "redaction.credential_files",
    ),
}
OTHER_COMMANDS = {"catalog", "checkout", "check", "cleanup", "dispatch", "init", "preflight", "registry", "watch"}
STARTING = {
    "engine.execution",
    "engine.runner",
    "engine.attempt",
    "observe.watcher",
    "observe.trace",
    "observe.assemble",
}
"""What a retry with nothing to do need not know: how steps run, and how they are watched."""
UNTOUCHED = {f"runnable_ci.{name}" for name in (*PARTS, *(f"cli.{name}" for name in OTHER_COMMANDS))}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline of one shell step, in a clean repository, that has run once."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n', ".gitignore": ".runnable\n"})
    project.runnable("run", "--run-id", "first")
    return project


@pytest.mark.parametrize(
    ("words", "more", "most"),
    [
        (["run"], {"engine.provenance.staleness", "engine.provenance.foreign_code", "steps.reach"}, 162),
        (["retry", "first"], {*STARTING, "runs.products.recovery", "runs.products.baseline", "steps.reach"}, 140),
        (["runs"], {"engine", "steps", "vcs.identity", "vcs.status", "cli.show.run"}, 92),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_nothing_heavy_is_loaded(project: Workspace, words: list[str], more: set[str], most: int) -> None:
    """No library and no part of ours that a plain run, a retry with nothing to do and a list do not use."""
    done = python(LOADED, *words, environ=project.environ, cwd=project.folder)
    loaded = done.stderr.rpartition("\nLOADED ")[2].partition("\n")[0].split()
    assert "runnable_ci.runs.model" in loaded, done.stderr
    unwanted = LIBRARIES | UNTOUCHED | {f"runnable_ci.{name}" for name in more}
    assert [name for name in loaded if any(name == one or name.startswith(f"{one}.") for one in unwanted)] == []
    assert len([name for name in loaded if name.startswith("runnable_ci")]) <= most


def test_results_of_this_store_need_no_registry(tmp_path: Path) -> None:
    """A run that may take results of others, and has no registry to look in, loads nothing that talks to one."""
    pipeline = 'reuse = "any-run"\n[steps.a]\nrun = "cat in > out"\ncatalog = { put = ["out"] }\n'
    files = {"runnable.toml": pipeline, "in": "in\n", ".gitignore": ".runnable\nout\n"}
    project = workspace(tmp_path, files)
    project.runnable("run", "--run-id", "first")
    done = python(LOADED, "run", "--run-id", "second", environ=project.environ, cwd=project.folder)
    assert "1 reused from run first" in done.stderr
    loaded = done.stderr.rpartition("\nLOADED ")[2].partition("\n")[0].split()
    assert not {"requests", "runnable_ci.store.registry", "runnable_ci.runs.reuse.candidates"} & set(loaded)


@pytest.mark.parametrize(
    ("words", "started"),
    [(["run"], [*["git"] * 4, "bash"]), (["retry", "first"], []), (["runs"], [])],
    ids=lambda value: value[0] if value else "",
)
def test_no_process_is_started_in_vain(project: Workspace, words: list[str], started: list[str]) -> None:
    """In a clean tree a run asks git where it is, how it is set up, what it tracks and what differs; others nothing."""
    done = python(LOADED, *words, environ=project.environ, cwd=project.folder)
    assert done.stderr.rpartition("\nSTARTED ")[2].split() == started


@pytest.mark.parametrize("words", [["run", "--help"], ["no-such"], ["--help"], ["runs", "--json"], ["rum"], []])
def test_each_command_line_reads_as_with_all_commands(project: Workspace, words: list[str]) -> None:
    """Only the named command is looked at: what is said of a wrong word, and the help, know all of them."""
    code = "import sys; from runnable_ci.{} import {}; from runnable_ci.cli.errors import run; run({})"
    alone = python(code.format("cli", "command_line", "command_line(sys.argv[1:])"), *words, cwd=project.folder)
    among_all = python(code.format("cli.app", "app", "app"), *words, cwd=project.folder)
    assert (alone.returncode, alone.stdout, alone.stderr) == (
        among_all.returncode,
        among_all.stdout,
        among_all.stderr,
    )


def test_no_model_is_built_before_it_is_used(project: Workspace) -> None:
    """The models of the run log and of its events are prepared by who reads or writes one: many commands need few."""
    code = """
import sys
from pydantic import BaseModel
import runnable_ci.runs.events, runnable_ci.runs.model
def below(kind):
    for one in kind.__subclasses__():
        yield one
        yield from below(one)
ours = [one for one in below(BaseModel) if one.__module__.startswith("runnable_ci.runs.")]
assert len(ours) > 20
print(*(one.__name__ for one in ours if one.__pydantic_complete__))
"""
    assert python(code, environ=project.environ, cwd=project.folder).stdout.split() == []
