"""Tests of the entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_text_in_a_locale_of_ascii(tmp_path: Path) -> None:
    """Where Python is told to know ASCII alone, words and parameters in UTF-8 are what they are everywhere else."""
    pipeline = "[parameters]\nname = 'x'\n[steps.a]\nrun = 'echo é $name $PYTHONUTF8'\n"
    (tmp_path / "runnable.toml").write_text(pipeline, encoding="utf-8")
    environ = {**os.environ, "LC_ALL": "POSIX", "PYTHONUTF8": "0", "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "runnable_ci", "run", "--param", "name=größe"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, timeout=60, check=False)
    assert done.stdout.decode() == "a | é größe 0\n", done.stderr
