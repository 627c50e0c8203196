"""Which tests a run of all has, and where its time went.

A test that is marked `long` takes long by its nature, and says why; shorter ones hold the same rules. `LONG_TESTS=4`
runs one in four of them, drawn by `LONG_TESTS_SEED`; without it, all are run.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict

import pytest

SHARE = os.environ.get("LONG_TESTS", "all")
FILES_SHOWN = 30
_seconds: dict[str, list[float]] = defaultdict(list)
_left_out: set[str] = set()


def drawn(long: list[str], share: int, seed: int) -> set[str]:
    """One in so many of these tests, by their ids; at least one."""
    return set(random.Random(seed).sample(sorted(long), -(-len(long) // share)))  # noqa: S311 - to repeat it


def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, which all workers inherit."""
    os.environ.setdefault("LONG_TESTS_SEED", str(time.time_ns() % 1_000_000))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests that are not drawn."""
    if SHARE == "all":
        return
    long = [item.nodeid for item in items if item.get_closest_marker("long")]
    left_out = {*long} - drawn(long, int(SHARE), int(os.environ["LONG_TESTS_SEED"]))
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid in left_out])
    items[:] = [item for item in items if item.nodeid not in left_out]
    _left_out.update(left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that shows the results what this worker left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = sorted(_left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Take what a worker left out."""
    _left_out.update(getattr(node, "workeroutput", {}).get("left_out", ()))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take the time of a test, its set-up and the end of that."""
    _seconds[report.nodeid].append(report.duration)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was left out, and in which files the time went."""
    if _left_out:
        seed = os.environ["LONG_TESTS_SEED"]
        terminalreporter.section(f"long tests left out: {len(_left_out)}, LONG_TESTS={SHARE} LONG_TESTS_SEED={seed}")
        for test in sorted(_left_out):
            terminalreporter.line(test)
    if len(_seconds) < FILES_SHOWN:
        return
    files: dict[str, list[float]] = defaultdict(list)
    for test, seconds in _seconds.items():
        files[test.partition("::")[0]].append(sum(seconds))
    terminalreporter.section("slowest files")
    for file, its in sorted(files.items(), key=lambda one: -sum(one[1]))[:FILES_SHOWN]:
        terminalreporter.line(f"{sum(its):8.1f} s in {len(its):4} tests  {file}")
    terminalreporter.line(f"{sum(map(sum, files.values())):8.1f} s in {len(_seconds):4} tests  all")
