"""The page of a run that several machines made together: real clones, a real registry, real Chromium."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, chromium
from cli import PROGRAM, Workspace, elsewhere, workspace
from registry_server import Served, registry
from support import WAIT_S

FILES = {
    "runnable.toml": """
name = "shop"
[steps.load]
run = "sleep 0.3; echo 1 > load.txt"
catalog = { put = ["load.txt"] }
[steps.left]
needs = ["load"]
run = "sleep 0.6; test -e left.ok; cat load.txt > left.txt"
catalog = { get = ["load.txt"], put = ["left.txt"] }
[steps.right]
needs = ["load"]
run = "sleep 0.6; test -e right.ok; cat load.txt > right.txt"
catalog = { get = ["load.txt"], put = ["right.txt"] }
[steps.all]
needs = ["left", "right"]
run = "cat left.txt right.txt > all.txt"
catalog = { get = ["left.txt", "right.txt"], put = ["all.txt"] }
""",
    ".gitignore": "*.txt\n*.ok\n*.html\n.runnable\n",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as found:
        yield found


def on_one_core(clone: Workspace, *words: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start the program on a machine with, so to say, fewer cores; use as a context."""
    environ = {**clone.environ, **variables}
    return subprocess.Popen(["taskset", "-c", "0", PROGRAM, *words], cwd=clone.folder, env=environ)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Path:
    """A run that one machine began, two resumed at the same time, and a last one ended."""
    tmp_path, where = tmp_path_factory.mktemp("machines"), served.repository()
    base = workspace(tmp_path, FILES)
    base.runnable("run", "--run-id", "k", "--to", where, code=1)
    ann, bob, eve = (elsewhere(base, tmp_path, name) for name in ("ann", "bob", "eve"))
    for clone, step in ((ann, "left"), (bob, "right")):
        clone.git("config", "user.name", clone.folder.name)
        clone.runnable("pull", f"{where}:k")
        (clone.folder / f"{step}.ok").touch()
    with on_one_core(ann, "retry", "k", "--publish", "--to", where) as one:
        with bob.start("retry", "k", "--publish", "--to", where) as other:
            other.communicate(timeout=WAIT_S)
        one.wait(WAIT_S)
    assert (one.returncode, other.returncode) == (1, 1)
    job = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "77", "GITHUB_JOB": "train", "GITHUB_REPOSITORY": "o/r"}
    eve.runnable("pull", f"{where}:k")
    with on_one_core(
        eve, "retry", "k", "--writers", "*", "--publish", "--to", where, GITHUB_ACTOR="eve", **job
    ) as last:
        last.wait(WAIT_S)
    assert last.returncode == 0
    eve.runnable("report", "k", "-o", "k.html")
    return eve.folder / "k.html"


def test_what_several_machines_did_is_seen(page: Path, browser: Browser) -> None:
    """A row for each machine, no bar covers another one, and the attempt that counts is the one that was reused."""
    browser.open(page)
    assert browser.accessibility() == []
    rows = browser.js(
        "return [...document.querySelectorAll('.timeline li')].map((it) => [it.querySelector('.name').textContent,"
        " [...it.querySelectorAll('.bar')].map((one) => one.title.replace(/[\\d.]+ s/, 'T'))])"
    )
    assert [name for name, _ in rows] == ["machine 1", "machine 2", "machine 3", "load", "left", "right", "all"]
    titles = dict(rows)
    assert sorted(titles["machine 1"] + titles["machine 2"]) in (
        [
            "machine 1: invocation 1, run by A, T",
            f"machine 1: invocation {bobs}, retry by bob, T",
            f"machine 2: invocation {anns}, retry by ann, T",
        ]
        for bobs, anns in ((2, 3), (3, 2))
    )
    assert titles["machine 3"] == ["machine 3: invocation 4, retry by eve, T"]
    assert sorted(title.partition(": ")[2] for title in titles["left"]) == [
        "failed, T, on machine 1",
        "failed, T, on machine 1",
        "succeeded, reused since, T, on machine 2",
    ]
    covered = browser.js(
        "return [...document.querySelectorAll('.timeline li')].map((it) => {"
        " const all = [...it.querySelectorAll('.bar')].map((one) => one.getBoundingClientRect());"
        " return all.filter((a, at) => all.slice(at + 1).some((b) =>"
        "  a.left < b.right - 3 && b.left < a.right - 3 && a.top < b.bottom && b.top < a.bottom)).length; })"
    )
    assert set(covered) == {0}
    inside = browser.js(
        "return [...document.querySelectorAll('.bar')].every((it) => it.getBoundingClientRect().bottom <="
        " it.closest('li').getBoundingClientRect().bottom)"
    )
    assert inside


def test_the_chain_of_invocations(page: Path, browser: Browser) -> None:
    """Which followed which, who made it, where: two had not seen each other."""
    browser.open(page)
    rows = browser.js(
        "return [...document.querySelectorAll('#invocations tr')]"
        ".map((it) => [...it.cells].slice(0, 5).map((one) => one.textContent))"
    )
    assert rows[0] == ["#", "After", "Command", "By", "Where"]
    assert rows[1] == ["1", "", "run", "A", "machine 1"]
    assert sorted(row[1:] for row in rows[2:4]) == [
        ["1", "retry", "ann", "machine 2"],
        ["1", "retry", "bob", "machine 1"],
    ]
    assert rows[4] == ["4", "2, 3", "retry", "eve", "machine 3, job train"]
    headings = browser.js("return [...document.querySelectorAll('#environment h3')].map((it) => it.textContent)")
    assert headings == ["Machine 1", "Machines 2, 3"]
