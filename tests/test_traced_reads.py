"""What was watched contains what the kernel traced: `strace` is the judge of what a step opened."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from cli import workspace

_OPENED = re.compile(r"\bopen(?:at)?\((?P<arguments>.*)\) = \d+<(?P<path>/[^>]*)>$")
PIPELINE = """
[steps.shell]
run = "strace -ff -y -e trace=%file -o {trace}/shell sh pipeline.sh"
[steps.python]
python = "work:look"
"""
FILES = {
    "pipeline.sh": "sort data/*.txt | grep -f patterns | while read w; do cat words/$w; done\nls conf\n. ./more.sh\n",
    "patterns": "a\n",
    "more.sh": "python3 tool.py < input.json\n",
    "tool.py": "import json, sys, helper\nprint(json.load(sys.stdin), open(helper.NAME).read())\n",
    "helper.py": "NAME = 'conf/name'\n",
    "input.json": "{}",
    "conf/name": "n\n",
    "data/1.txt": "a\n",
    "data/2.txt": "b\n",
    "words/a": "word\n",
    "work.py": "from glob import glob\nimport own\ndef look():\n    return [open(p).read() for p in glob('data/*')]\n",
    "own.py": "VALUE = open('conf/name').read()\n",
    ".gitignore": "__pycache__/\n",
}


def traced(root: Path, *files: Path) -> tuple[set[str], set[str]]:
    """The files below a folder that were opened for reading, byte code as its source, and the folders."""
    opened, listed = set(), set()
    for line in (line for file in files for line in file.read_text(errors="replace").splitlines()):
        found = _OPENED.search(line)
        if found is None or "O_WRONLY" in found["arguments"] or not Path(found["path"]).is_relative_to(root):
            continue
        path = Path(found["path"]).relative_to(root)
        if path.parts and path.parts[0] in (".runnable", ".git"):
            continue
        if "O_DIRECTORY" in found["arguments"]:
            listed.add("" if str(path) == "." else str(path))
        elif path.parent.name == "__pycache__":
            opened.add(str(path.parent.parent / f"{path.name.partition('.')[0]}.py"))
        else:
            opened.add(str(path))
    return opened, {folder for folder in listed if "__pycache__" not in folder}


def test_what_was_watched_contains_what_was_traced(tmp_path: Path) -> None:
    """Of a shell pipeline with programs in programs, and of a python step: every file and folder that it opened."""
    trace = tmp_path / "trace"
    trace.mkdir()
    interpreter = tmp_path / "traced-python"
    interpreter.write_text(f'#!/bin/sh\nexec strace -ff -y -e trace=%file -o {trace}/python {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    pipeline = f'python = "{interpreter}"\n{PIPELINE.format(trace=trace)}'
    project = workspace(tmp_path, {**FILES, "runnable.toml": pipeline})
    project.runnable("run", "-j", "1", "--run-id", "r")
    root = project.folder.resolve()
    for step in ("shell", "python"):
        record = json.loads(project.runnable("show", "r", step, "--reads").out)
        opened, listed = traced(root, *trace.glob(f"{step}.*"))  # one for each process
        assert opened - record["files"].keys() == set()
        assert listed - record["listings"].keys() == set()
        expected = {"shell": {"data/2.txt", "words/a", "helper.py", "conf/name"}, "python": {"own.py", "data/1.txt"}}
        assert expected[step] <= opened
