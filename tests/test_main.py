"""Tests of the entry point."""

from __future__ import annotations

from support import python

ON_WINDOWS = """
import sys
from runnable_ci.__main__ import main
sys.platform = "win32"
try:
    main()
except SystemExit as end:
    print(end.code, sorted({"typer", "pydantic", "subprocess", "runnable_ci.cli"} & set(sys.modules)))
"""


def test_on_windows_it_says_where_it_runs() -> None:
    """One line that names WSL, as wrong usage, before anything is loaded that may not be there."""
    done = python(ON_WINDOWS)
    assert done.stdout == "2 []\n"
    assert done.stderr == "error: this program runs on Linux and macOS; on Windows, use WSL: https://aka.ms/wsl\n"
