"""Commands on runs with odd numbers, odd files, few runs or none, and odd words: an answer, or one clear error."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

from runnable_ci.analysis.facts import is_number, share_of

FILES = {
    "runnable.toml": """
name = "odd"
[parameters]
kind = "plain"
[steps.make]
run = "python make.py"
catalog = { put = ["out/*"] }
[steps.score]
python = "score:score"
returns = { score = "metric", other = "metric" }
""",
    "make.py": "import os\nkind = os.environ['kind']\nos.makedirs('out', exist_ok=True)\n"
    "for name, content in {\n"
    "    'latin.txt': b'caf\\xe9 ' + kind.encode(), 'bytes.bin': b'\\0' + kind.encode(),\n"
    "    'bad.json': b'{' + kind.encode(),\n"
    "    'bad.npy': b'\\x93NUMPY' + kind.encode(), 'bad.parquet': b'PAR1' + kind.encode(),\n"
    "    'empty.csv': b'' if kind == 'plain' else b'a,b\\n1,2\\n',\n"
    "    'huge.csv': b'a,b\\n1e400,' + (b'9' if kind == 'plain' else b'8') * 390,\n"
    "}.items():\n    open('out/' + name, 'wb').write(content)\n",
    "score.py": "NUMBERS = {'plain': (0.5, 1), 'nan': (float('nan'), float('inf')), 'huge': (10**400, -10**400),\n"
    "           'large': (17 * 10**307, -17 * 10**307), 'small': (-17 * 10**307, 17 * 10**307)}\n"
    "def score(kind):\n    return NUMBERS[kind]\n",
    ".gitignore": ".runnable\nout\n*.html\n__pycache__\n",
}
KINDS = ("plain", "nan", "huge", "large", "small")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run for each kind of number."""
    made = workspace(tmp_path_factory.mktemp("odd"), FILES)
    for kind in KINDS:
        made.runnable("run", "--run-id", kind, "--param", f"kind={kind}")
    return made


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, True), (0.5, True), (10**308, True), (10**400, False), (-(10**400), False)]
    + [(value, False) for value in (float("nan"), float("inf"), True, "1", None, [1])],
)
def test_what_is_a_number(value: Any, expected: bool) -> None:
    """What can be calculated with and drawn: an integer that no float holds is none."""
    assert is_number(value) is expected


def test_shares_of_the_largest_numbers() -> None:
    """They are farther apart than any number is large."""
    assert share_of(0.0, -1.7e308, 1.7e308) == 0.5
    assert [share_of(value, 1.0, 3.0) for value in (1.0, 2.0, 3.0)] == [0.0, 0.5, 1.0]


def strict(text: str) -> Any:
    """A document in which there are only numbers that JSON has."""

    def refused(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refused)


def test_odd_numbers_everywhere(project: Workspace) -> None:
    """NaN, infinite and huge ones are listed, compared, drawn where that can be, and JSON for all readers."""
    for words in (
        ("runs", "--json"),
        ("metrics", "--json"),
        ("diff", "large", "small", "--json"),
        ("explain", "--json"),
    ):
        strict(project.runnable(*words).out)
    shown = project.runnable("metrics", "score")
    assert [line.split()[0] for line in shown.out.splitlines()[1:]] == ["plain", "large", "small"]
    assert "score: no number in nan, huge\n" in shown.err
    assert len(project.runnable("runs", "--csv").out.splitlines()) == 1 + len(KINDS)
    for one, other in pairwise(KINDS):
        for form in ((), ("--markdown",), ("--html",)):
            project.runnable("diff", one, other, *form)
        project.runnable("report", other, "--against", one)


def test_odd_files(project: Workspace) -> None:
    """What cannot be compared by what is in it is said, with why."""
    out = project.runnable("diff", "plain", "large", "--file", "out/*").out
    for said in (
        "not compared line by line: line 1 is not UTF-8 text",
        "out/huge.csv: 1 of 2 values differ",
        "0 rows in A, 1 in B",
        "out/bad.json: 2 lines added or removed",
    ):
        assert said in out


REFUSED = {
    ("diff", "plan", "nan"): "did you mean `plain`?",
    ("diff", "", "nan"): "name a run id",
    ("diff", "plain", "huge", "--fail-if", "score * 1.5 > 1"): "a number is too large for multiply",
    ("diff", "plain", "huge", "--file", "none.txt"): "neither run has a file `none.txt`",
    ("diff", "plain", "huge", "--logs", "none"): "the steps are: make, score",
    ("runs", "--where", "score * 1.5 > 1"): "compare it as it is",
    ("runs", "--json", "--csv"): "two forms of one answer",
    ("tag", "plain", "a\nb"): "`describe` takes longer texts",
    ("tag", "plain", "a" * 201): "at most 200 characters",
    ("report", "plain", "-o", "."): "is a folder",
    ("report", "plain", "-o", "none/x.html"): "there is no folder none",
    ("rm", "plain", "none"): "no run `none`",
    ("metrics", "scor"): "did you mean `score`?",
}


@pytest.mark.parametrize(("words", "said"), REFUSED.items())
def test_odd_words(project: Workspace, words: tuple[str, ...], said: str) -> None:
    """One error that says what would be right, and nothing is done."""
    err = project.runnable(*words, code=2).err
    assert said in err
    assert err.startswith("error: ")
    assert "\nhint: " in err
    assert "Traceback" not in err


def test_a_huge_metric_is_compared_as_it_is(project: Workspace) -> None:
    """A condition that holds fails, and one that does not passes."""
    project.runnable("diff", "plain", "huge", "--fail-if", "score > base", code=1)
    project.runnable("diff", "plain", "huge", "--fail-if", "score < base")


@pytest.mark.parametrize(
    "words", [("diff",), ("explain",), ("report",), ("reproduce",), ("pin", "latest"), ("rm", "x")]
)
def test_no_run_at_all(tmp_path: Path, words: tuple[str, ...]) -> None:
    """The command that makes the first one is named."""
    made = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n'})
    err = made.runnable(*words, code=2).err
    assert err.startswith("error: no runs in ")
    assert "hint: `runnable-ci run` makes the first one\n" in err


def test_one_run_alone(tmp_path: Path) -> None:
    """There is nothing to compare it with, and it is said which run that is."""
    made = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n', ".gitignore": ".runnable\n*.html\n"})
    made.runnable("run", "--run-id", "one")
    assert "error: no run beside one that succeeded in " in made.runnable("diff", code=2).err
    assert "nothing differs that was recorded" in made.runnable("diff", "one", "one").out
    made.runnable("explain")
    made.runnable("report")
