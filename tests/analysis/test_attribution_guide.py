"""The commands of the guide's section on what moved a metric, as they stand there, give what stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from cli import Workspace, workspace

GUIDE = Path(__file__).parent.parent.parent / "docs" / "guide.md"
FILES = {
    "runnable.toml": 'name = "shop"\n[steps.clean]\nrun = "sort data/raw.csv > clean.csv"\n'
    'catalog = { put = ["clean.csv"] }\n[steps.train]\npython = "scale:fit"\nreturns = { score = "metric" }\n',
    "data/raw.csv": "b\na\n",
    "scale.py": "def fit():\n    return 0.91 if open('clean.csv').read() else 0\n",
    ".gitignore": ".runnable\nclean.csv\n__pycache__\n",
}


def commands(section: str) -> list[tuple[list[str], list[str]]]:
    """The commands of a section, each with the lines that it prints, without those that are left out."""
    text = GUIDE.read_text(encoding="utf-8")
    whole = re.split(r"^#+ ", text.partition(section)[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = []
    for block in re.findall(r"```console\n(.*?)```", whole, re.DOTALL):
        for part in block.split("$ runnable-ci ")[1:]:
            command, *lines = part.rstrip().split("\n")
            found.append((shlex.split(command), [line for line in lines if line != "…"]))
    return found


def prepared(tmp_path: Path) -> Workspace:
    """The two runs of the guide, with twelve commits between them."""
    made = workspace(tmp_path, FILES)
    made.runnable("run", "--run-id", "tuned")
    made.git("config", "user.name", "Ada")
    for number in range(1, 13):
        files = {"README.md": f"{number}\n"}
        if number == 5:
            files = {"scale.py": FILES["scale.py"].replace("0.91", "0.87")}
        if number == 9:
            files = {"data/raw.csv": "b\na\nc\n"}
        made.write(files)
        made.git("add", ".")
        subjects = {4: "Read the data once", 5: "Scale before sorting"}
        made.git("commit", "-qm", subjects.get(number, f"change {number}"))
    made.runnable("run", "--run-id", "nightly")
    return made


def shown(line: str) -> str:
    """A line without what is another one each time: commits, times and the spaces of a table."""
    return " ".join(re.sub(r"\b[0-9a-f]{12,40}\b|\d{4}-\d\d-\d\dT\S+", "X", line).split())


def test_its_commands(tmp_path: Path) -> None:
    """Each line that the guide shows is printed, but for names of commits and times."""
    made = prepared(tmp_path)
    sections = commands("## Which change moved the metric?") + commands("### The commit that did it")
    assert [words[0] for words, _ in sections] == ["why", "bisect"]
    for words, lines in sections:
        done = made.runnable(*words)
        printed = {shown(line) for line in (done.out + done.err).split("\n")}
        assert [line for line in map(shown, lines) if line not in printed] == []
