"""`runnable-ci init`: a pipeline file to start from."""

from __future__ import annotations

from pathlib import Path

import tomli_w

from runnable_ci.errors import UsageError
from runnable_ci.pipeline.project import FILE_NAME
from runnable_ci.store.opening import STORE_NAME
from runnable_ci.util.console import console
from runnable_ci.util.files import sweep, write_whole
from runnable_ci.util.shell_command import in_folder

_STARTER = """\
# A pipeline of runnable-ci. `runnable-ci check` validates it, `runnable-ci run` runs it.
{name}
{python}
# Steps take parameters by name. `runnable-ci run --param greeting=hi` changes one.
[parameters]
greeting = "hello"

# A shell step: parameters are environment variables. It returns values by lines in $RUNNABLE_OUTPUT,
# and files by `put`; both are kept with the run.
[steps.prepare]
run = '''
echo "$greeting" > greeting.txt
echo "characters=$(wc -c < greeting.txt)" >> "$RUNNABLE_OUTPUT"
'''
returns = {{ characters = "metric" }}
catalog = {{ put = ["greeting.txt"] }}

# It starts when the step above it is over; `needs = ["prepare"]` says the same.
[steps.report]
run = "cat greeting.txt"
catalog = {{ get = ["greeting.txt"] }}

# A python step: a function of yours, unchanged. Arguments are filled by name from the parameters.
# [steps.train]
# python = "my_module:train"
# returns = {{ model = "object", score = "metric" }}
"""


def init(folder: Path) -> None:
    """Write a commented starter file, and keep the store out of git. Raises `UsageError` where there is one."""
    file = folder / FILE_NAME
    if file.exists():
        raise UsageError(f"{file} exists already", hint=f"`{in_folder(folder, 'check')}` validates it")
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    sweep(folder)
    write_whole(file, starter(folder))
    ignore_store(folder / ".gitignore")
    console.out(f"wrote {file}; next: {in_folder(folder, 'run')}")


def starter(folder: Path) -> bytes:
    """The content of a starter file for a folder."""
    environment = folder / ".venv" / "bin" / "python"
    python = tomli_w.dumps({"python": ".venv/bin/python"}) if environment.exists() else ""
    name = tomli_w.dumps({"name": folder.resolve().name}).strip()
    return _STARTER.format(name=name, python=python).encode()


def ignore_store(path: Path) -> None:
    """Name the store in a `.gitignore`, unless it is."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    if not {STORE_NAME, f"{STORE_NAME}/", f"/{STORE_NAME}/"}.intersection(map(str.strip, lines)):
        write_whole(path, "".join(f"{line}\n" for line in [*lines, f"{STORE_NAME}/"]).encode())
