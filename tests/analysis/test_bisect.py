"""`bisect` finds the first commit for which a condition on metrics holds, and runs only what changed."""

from __future__ import annotations

import json
import math
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.analysis.attribution.bisection.search import CommitSearch

PIPELINE = """
name = "shop"
[parameters]
rate = 0.5
[steps.clean]
run = "sort data/raw.csv > clean.csv"
catalog = { put = ["clean.csv"] }
[steps.train]
python = "train:fit"
returns = { score = "metric" }
[steps.deploy]
run = "echo deployed >> $DEPLOYED"
"""
FILES = {
    "runnable.toml": PIPELINE,
    "data/raw.csv": "c\nb\na\n",
    ".gitignore": ".runnable\nclean.csv\n__pycache__\nlarge\n",
}


def train(factor: str) -> dict[str, str]:
    """Code that gives 1.5 times a factor."""
    return {"train.py": f"def fit(rate):\n    return {factor} * rate * len(open('clean.csv').read().split())\n"}


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that was run once, as `a`, with a score of 6."""
    made = workspace(tmp_path, FILES | train("4"))
    made.environ["DEPLOYED"] = str(tmp_path / "deployed")
    made.runnable("run", "-j", "1", "--run-id", "a")
    return made


def commit(project: Workspace, files: dict[str, str], subject: str) -> str:
    """Commit files; the commit."""
    project.write(files)
    project.git("add", ".")
    project.git("commit", "-qm", subject)
    return project.git("rev-parse", "HEAD")


def bisect(project: Workspace, *words: str, code: int = 0) -> dict[str, Any]:
    """What `bisect --if 'score < 5' --json` prints."""
    done = project.runnable("bisect", *words, "--if", "score < 5", "--json", "-j", "1", code=code)
    found: dict[str, Any] = json.loads(done.out)
    return found


ENDS = ("--good", "a", "--bad", "b")


def test_twelve_commits_one_of_them_broken(project: Workspace) -> None:
    """A failing commit, and one that does nothing to the step, are no obstacle; what is the same does not run."""
    commits = []
    for number in range(1, 13):
        files = {8: train("1"), 6: {"train.py": "def fit(rate):\n    raise ValueError('broken')\n"}, 7: train("4")}
        commits.append(commit(project, files.get(number, {"README.md": f"{number}\n"}), f"change {number}"))
    project.runnable("run", "-j", "1", "--run-id", "b")
    deployed = Path(project.environ["DEPLOYED"]).read_text()
    found = bisect(project, *ENDS)
    assert found["first_bad"]["commit"] == commits[7]
    assert (found["first_bad"]["author"], found["first_bad"]["subject"]) == ("A", "change 8")
    assert found["first_bad"]["files"] == [{"path": "train.py", "change": "changed"}]
    assert (found["commits"], found["at_most"]) == (12, 4)
    states = {one["subject"]: one["state"] for one in found["tried"]}
    assert (states["change 6"], states["change 8"]) == ("skipped", "bad")
    assert len(found["tried"]) <= found["at_most"] + 2
    broken = next(one for one in found["tried"] if one["state"] == "skipped")
    assert "`train` failed: ValueError: broken" in broken["said"]
    assert found["executed"] == sum(len(one["executed"]) for one in found["tried"]) == 1, "the failing one alone"
    assert Path(project.environ["DEPLOYED"]).read_text() == deployed, "nothing behind the metric runs"
    made = project.log(found["tried"][0]["run_id"]).made_from
    assert made is not None
    assert (made.purpose, made.code) == ("bisect", found["tried"][0]["commit"])
    again = bisect(project, *ENDS)
    assert all(one["made_before"] for one in again["tried"])
    assert again["first_bad"] == found["first_bad"]
    text = project.runnable("bisect", *ENDS, "--if", "score < 5").out
    assert f"first bad commit: {commits[7]}" in text
    assert "changed  train.py" in text


def test_a_merge(project: Workspace) -> None:
    """The commit on the branch that was merged is found; with `--first-parent` it is the merge."""
    commit(project, {"README.md": "1\n"}, "main 1")
    project.git("checkout", "-qb", "side")
    commit(project, {"side.txt": "1\n"}, "side 1")
    wrong = commit(project, train("1"), "side 2")
    commit(project, {"side.txt": "2\n"}, "side 3")
    project.git("checkout", "-q", "main")
    commit(project, {"README.md": "2\n"}, "main 2")
    project.git("merge", "-q", "--no-edit", "side")
    merge = project.git("rev-parse", "HEAD")
    commit(project, {"README.md": "3\n"}, "main 3")
    project.runnable("run", "-j", "1", "--run-id", "b")
    assert bisect(project, *ENDS)["first_bad"]["commit"] == wrong
    assert bisect(project, *ENDS, "--first-parent")["first_bad"]["commit"] == merge


def test_commits_for_which_nothing_ran(project: Workspace) -> None:
    """Commits are ends too: they are made here first; data and a default in the file belong to a commit."""
    first = project.git("rev-parse", "HEAD")
    commit(project, {"README.md": "1\n"}, "one")
    wrong = commit(project, {"data/raw.csv": "a\n"}, "two")
    commit(project, {"runnable.toml": PIPELINE.replace("0.5", "0.6")}, "three")
    project.write({"other.toml": PIPELINE.replace("shop", "other").replace("fit", "other")})
    project.write({"train.py": project.read("train.py") + "def other(rate):\n    return 7\n"})
    commit(project, {}, "four")
    project.runnable("run", "-f", "other.toml", "-j", "1", "--run-id", "o")
    found = bisect(project, "--good", first, "--bad", "main")
    assert found["first_bad"]["commit"] == wrong
    assert [one["state"] for one in found["tried"][:2]] == ["good", "bad"]
    assert found["tried"][0]["executed"] == [], "run `a` has it all"


def test_what_was_made_is_found_however_the_ends_are_named(project: Workspace) -> None:
    """A commit that was made with commits as ends is not made again with runs as ends, nor the other way round."""
    good = project.git("rev-parse", "HEAD")
    for number in (1, 2):
        commit(project, {"README.md": f"{number}\n"}, f"change {number}")
    wrong = commit(project, train("1"), "change 3")
    commit(project, {"README.md": "4\n"}, "change 4")
    project.runnable("run", "-j", "1", "--run-id", "b")
    first = bisect(project, "--good", good, "--bad", "main")
    assert not any(one["made_before"] for one in first["tried"])
    names = runs(project)
    for ends in (ENDS, ("--good", "a", "--bad", "main"), ("--good", good, "--bad", "b")):
        found = bisect(project, *ends)
        assert found["first_bad"]["commit"] == wrong
        assert all(one["made_before"] for one in found["tried"]), ends
    assert runs(project) == names
    project.runnable("run", "-j", "1", "--run-id", "c", "--param", "rate=0.6")
    found = bisect(project, "--good", "a", "--bad", "c")
    assert not any(one["made_before"] for one in found["tried"]), "with other values they are other runs"


def test_what_was_not_committed(project: Workspace) -> None:
    """A dirty run whose commit is good: it is no commit."""
    commit(project, {"README.md": "1\n"}, "one")
    project.write(train("1"))
    project.runnable("run", "-j", "1", "--run-id", "b")
    found = bisect(project, *ENDS)
    assert (found["uncommitted"], found["first_bad"]) == (True, None)


def test_only_commits_that_fail_are_left(project: Workspace) -> None:
    """The range is said, with an exit code of its own."""
    commit(project, {"README.md": "1\n"}, "one")
    broken = commit(project, {"train.py": "def fit(rate):\n    raise ValueError\n"}, "two")
    bad = commit(project, train("1"), "three")
    project.runnable("run", "-j", "1", "--run-id", "b")
    found = bisect(project, *ENDS, code=4)
    assert (found["first_bad"], found["candidates"]) == (None, [broken, bad])
    assert "the first bad commit is one of these" in project.runnable("bisect", *ENDS, "--if", "score < 5", code=4).out


def test_ignored_data_and_values_are_those_of_the_bad_run(project: Workspace) -> None:
    """What git does not track comes from here; values that the command line gave are given to each commit."""
    files = {"runnable.toml": PIPELINE.replace("data/raw.csv", "large/raw.csv")}
    project.write({"large/raw.csv": "a\nb\nc\n"})
    commit(project, files, "one")
    project.runnable("run", "-j", "1", "--run-id", "a2", "--param", "rate=1.0")
    commit(project, {"README.md": "1\n"}, "two")
    wrong = commit(project, train("0.5"), "three")
    commit(project, {"README.md": "2\n"}, "four")
    project.runnable("run", "-j", "1", "--run-id", "b", "--param", "rate=1.0")
    found = bisect(project, "--good", "a2", "--bad", "b")
    assert found["first_bad"]["commit"] == wrong
    assert {one["said"] for one in found["tried"]} == {"score = 12", "score = 1.5"}
    deployed = Path(project.environ["DEPLOYED"]).read_text()
    words = ("bisect", "--good", "a2", "--bad", "b", "--if", "score < 5 && duration >= 0", "--json", "-j", "1")
    found = json.loads(project.runnable(*words).out)
    assert found["first_bad"]["commit"] == wrong
    assert all(one["executed"] == ["clean", "train"] for one in found["tried"]), "it counts how long they take"
    assert Path(project.environ["DEPLOYED"]).read_text() == deployed, "a deploy is not run for each commit"


def test_killed_and_started_again(project: Workspace) -> None:
    """After `kill -9` in the middle the runs that are there count, and the store is whole."""
    slow = "import time\ntime.sleep(1)\n"
    for number in range(1, 13):
        text = train(f"(0 * {number} + {1 if number > 4 else 4})")["train.py"]
        commit(project, {"train.py": slow + text}, f"change {number}")
    project.runnable("run", "-j", "1", "--run-id", "b")
    words = ("bisect", *ENDS, "--if", "score < 5", "--json", "-j", "1")
    with project.start(*words) as process:
        until = time.monotonic() + 60
        while len(tried := [name for name in runs(project) if name.startswith("bisect-")]) < 2:
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    found = json.loads(project.runnable(*words).out)
    assert found["first_bad"]["subject"] == "change 5"
    assert {one["run_id"] for one in found["tried"] if one["made_before"]} >= set(tried)
    assert found["executed"] == len(found["tried"]) - sum(one["made_before"] for one in found["tried"])


def runs(project: Workspace) -> list[str]:
    """The runs that the store has."""
    return [one["run_id"] for one in json.loads(project.runnable("runs", "--json", "--experiments").out)]


def test_bad_input(project: Workspace) -> None:
    """One clear error with a hint, before anything is made."""
    good = project.git("rev-parse", "HEAD")
    commit(project, train("1"), "one")
    project.runnable("run", "-j", "1", "--run-id", "b")
    commit(project, {"README.md": "1\n"}, "two")

    def error(*words: str) -> str:
        return project.runnable("bisect", *words, code=2).err

    condition = ("--if", "score < 5")
    assert "neither a commit nor a run" in error("--good", "x", "--bad", "b", *condition)
    assert "holds for the good run, b: score = 1.5" in error("--good", "b", "--bad", "main", *condition)
    assert "is older than the good one" in error("--good", "b", "--bad", good, "--if", "score > 5")
    assert "both ends are of the commit" in error("--good", "a", "--bad", good, *condition)
    assert "does not hold for the bad run, b" in error("--good", "a", "--bad", "b", "--if", "score > 9")
    assert "has no metric `scor`" in error("--good", "a", "--bad", "b", "--if", "scor > 9")
    assert "the condition `score <`" in error("--good", "a", "--bad", "b", "--if", "score <")
    names = runs(project)
    done = project.runnable("bisect", "--good", "a", "--bad", "b", *condition, "-n")
    assert "1 commit may be the first" in done.out
    assert runs(project) == names


History = tuple[list[str], dict[str, list[str]]]


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Commits, each with one or two parents before it; the last one reaches all."""
    count = draw(st.integers(1, 24))
    parents: dict[str, list[str]] = {}
    for number in range(count):
        known = sorted(parents)
        found = draw(st.lists(st.sampled_from(known), min_size=1, max_size=2, unique=True)) if known else []
        parents[f"{number:02}"] = found
    tips = sorted(parents.keys() - {parent for found in parents.values() for parent in found})
    if len(tips) > 1:
        parents["99"] = tips
    return list(parents), parents


@settings(deadline=None)
@given(histories(), st.data())
def test_the_search_finds_it_in_any_history(
    history: tuple[list[str], dict[str, list[str]]], data: st.DataObject
) -> None:
    """Whichever commit did it is found within the number that was said; where some fail it is among those left."""
    commits, parents = history

    def ancestors(one: str) -> set[str]:
        return {one}.union(*(ancestors(parent) for parent in parents[one]))

    culprit = data.draw(st.sampled_from(commits))
    failing = data.draw(st.sets(st.sampled_from(commits))) - {commits[-1]}
    for broken in (set[str](), failing):
        search, tried = CommitSearch(commits, parents), 0
        most = search.most()
        while one := search.next():
            tried += 1
            if one in broken:
                search.skip(one)
            elif culprit in ancestors(one):
                search.bad(one)
            else:
                search.good(one)
        assert culprit in search.left
        assert set(search.left) - broken - {search.left[-1]} == set(), "nothing that can be tried is left"
        if not broken:
            assert search.first_bad == culprit
            assert tried <= most


def test_a_line_takes_its_logarithm() -> None:
    """Of 1,000 commits in a row ten are tried."""
    commits = [str(number) for number in range(1000)]
    parents = {one: [str(int(one) - 1)] for one in commits}
    assert CommitSearch(commits, parents).most() == math.ceil(math.log2(1000))
