"""A run that is only looked at can be written."""

from __future__ import annotations

import threading
from pathlib import Path

from cli import workspace

from runnable_ci.runs.paths import is_running
from runnable_ci.runs.reader import load
from runnable_ci.runs.recorder import reopen
from runnable_ci.store.local import Layout


def test_who_looks_whether_a_run_is_written_keeps_nobody_from_writing_it(tmp_path: Path) -> None:
    """A worker that has nothing to do looks all the time, and so does `show --watch`."""
    project = workspace(tmp_path, {"runnable.toml": "[steps.a]\nrun = 'true'\n"}, git=False)
    project.runnable("run", "--run-id", "r")
    layout, is_over = Layout(project.store), threading.Event()

    def look() -> None:
        while not is_over.is_set():
            is_running(layout, "r")

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            with reopen(layout, load(layout, "r")):
                pass
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
