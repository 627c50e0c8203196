"""Tests of what steps make: the real program, in real repositories, sees who wrote which file of the workspace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from registry_server import registry
from support import wait_until

from runnable_ci.runs.model import SUCCESS, CatalogEntry, RunLog

IGNORED = ".runnable\n"


def entries(log: RunLog, step: str, stage: str = "put") -> dict[str, CatalogEntry]:
    """The files of a step's last attempt."""
    return {entry.name: entry for entry in log.steps[step].data_catalog if entry.stage == stage}


def project_of(tmp_path: Path, steps: str, **files: str) -> Workspace:
    """A repository with a pipeline and some files, all committed."""
    named = {name.replace("__", "/").replace("_", "."): content for name, content in files.items()}
    return workspace(tmp_path, {"runnable.toml": steps, **named})


SHRINKING = """
[parameters]
n = 4
fails = "yes"
[steps.write]
run = 'mkdir -p parts/deep; for i in $(seq $n); do echo $i > parts/deep/$i.txt; done; [ $fails = no ]'
catalog = { put = ["parts"] }
[steps.list]
run = 'echo "names=$(cd parts && find . -type f | sort | tr "\\n" " ")" >> "$RUNNABLE_OUTPUT"'
returns = ["names"]
"""


@pytest.mark.promise
def test_nothing_of_an_earlier_attempt_or_run_is_in_a_later_one(tmp_path: Path) -> None:
    """Two attempts, a new run in the same folder and a clone come to the same, and have no other files."""
    project = project_of(tmp_path, SHRINKING)
    project.runnable("run", "--run-id", "a", code=1)
    assert not (project.folder / "parts").exists()
    project.runnable("retry", "a", "-p", "n=2", "-p", "fails=no")
    project.runnable("run", "--run-id", "b", "-p", "n=3", "-p", "fails=no")
    again = project.runnable("run", "--run-id", "c", "-p", "n=2", "-p", "fails=no")
    assert f"set aside 3 files that `write` made earlier: {project.store}/runs/c/replaced/1\n" in again.err
    clone = elsewhere(project, tmp_path)
    clone.runnable("run", "--run-id", "c", "-p", "n=2", "-p", "fails=no")
    for log in (project.log("a"), project.log("c"), clone.log("c")):
        assert log.steps["list"].attempts[-1].output_parameters["names"].value == "./deep/1.txt ./deep/2.txt "
        assert list(entries(log, "write")) == ["parts/deep/1.txt", "parts/deep/2.txt"]
    assert len(entries(project.log("b"), "write")) == 3
    assert (project.store / "runs/c/replaced/1/write/parts/deep/3.txt").read_text() == "3\n"


FORGETFUL = """
[parameters]
write = "yes"
[steps.fit]
run = 'if [ $write = yes ]; then echo $RANDOM > fit.bin; fi'
catalog = { put = ["fit.bin"] }
"""


@pytest.mark.promise
@pytest.mark.parametrize("committed", [False, True])
def test_a_step_that_writes_nothing_does_not_succeed_with_what_is_there(tmp_path: Path, committed: bool) -> None:
    """A product of an earlier run is set aside, one that git tracks stays: neither is this run's."""
    project = project_of(tmp_path, FORGETFUL)
    project.runnable("run", "--run-id", "a")
    if committed:
        project.commit()
    failed = project.runnable("run", "--run-id", "b", "-p", "write=no", code=1)
    wrong = "matches only files that the step did not write" if committed else "matches no file"
    assert f"catalog put `fit.bin` {wrong}\n" in failed.err
    assert ("hint: persist = true keeps what earlier runs made" in failed.err) is committed
    assert entries(project.log("b"), "fit") == {}
    assert (project.folder / "fit.bin").exists() is committed


def test_a_product_of_another_name_is_named(tmp_path: Path) -> None:
    """Who mistypes `put` is told what the step wrote in its place, what looks most like it first."""
    project = project_of(tmp_path, "[steps.fit]\nrun = 'touch a.log b.log modle.txt z'\ncatalog.put = ['model.txt']\n")
    failed = project.runnable("run", code=1)
    assert "hint: the step wrote `modle.txt`, `a.log`, `b.log` and 1 more\n" in failed.err


@pytest.mark.promise
def test_files_of_the_user_are_never_products(tmp_path: Path) -> None:
    """Tracked or not, whatever a pattern says; what the step wrote is all that there is of it."""
    steps = """
[steps.sort]
run = "sort in.csv > out.csv"
catalog = { put = ["*.csv", "notes/**"] }
"""
    project = project_of(tmp_path, steps.replace(', "notes/**"', ""), in_csv="2\n1\n")
    project.write({"mine.csv": "untracked\n"})
    project.runnable("run", "--run-id", "a")
    assert list(entries(project.log("a"), "sort")) == ["out.csv"]
    project.write({"out.csv": "edited\n"})
    second = project.runnable("run", "--run-id", "b")
    assert "set aside" not in second.err
    assert [(e.name, e.stage, e.kept) for e in project.log("b").steps["sort"].data_catalog] == [
        ("out.csv", "get", True),
        ("out.csv", "put", False),
    ]
    assert project.read("mine.csv") == "untracked\n"


def test_a_step_that_could_not_start_has_its_files_again(tmp_path: Path) -> None:
    """Refused before its process: what was set aside for it is back, also of the steps that were skipped for it."""
    steps = """
[steps.make]
run = "echo 1 > one.txt"
catalog = { put = ["one.txt"] }
[steps.more]
run = "mkdir -p deep/er; echo 2 > deep/er/two.txt"
catalog = { put = ["deep"] }
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "a")
    refused = steps.replace('run = "echo 1 > one.txt"', 'run = "echo 1 > one.txt"\nshell = "no-such-shell {0}"')
    project.write({"runnable.toml": refused})
    project.runnable("run", "--run-id", "b", code=1)
    assert (project.read("one.txt"), project.read("deep/er/two.txt")) == ("1\n", "2\n")
    assert not any((project.store / "unfinished").iterdir())


PARTIAL = """
[steps.half]
run = "mkdir -p out; echo half > out/half.txt; echo $RANDOM >> mine.txt; {}"
catalog = {{ put = ["out/*", "mine.txt"] }}
continue-on-error = true
timeout-minutes = 0.01
[steps.next]
run = "cat out/half.txt"
catalog = {{ get = ["out/*"] }}
"""


@pytest.mark.parametrize("end", ["exit 1", "sleep 60", "kill -9 $$"])
def test_what_a_failed_attempt_made_is_kept_and_nobodys_input(tmp_path: Path, end: str) -> None:
    """The next step does not find it, the file of the user is as it was, and `catalog` has what the attempt made."""
    project = project_of(tmp_path, PARTIAL.format(end), mine_txt="mine\n")
    failed = project.runnable("run", "--run-id", "r", code=1)
    assert "catalog get `out/*` matches no file that an earlier step stored, and none in the workspace" in failed.err
    assert "half | restored mine.txt as it was before the attempt\n" in failed.err
    assert (project.read("mine.txt"), project.read("out/half.txt")) == ("mine\n", "")
    assert list(entries(project.log("r"), "half", "failed")) == ["mine.txt", "out/half.txt"]
    assert entries(project.log("r"), "half") == {}
    shown = project.runnable("catalog", "r").out
    assert [line.split()[:3] for line in shown.splitlines()[1:]] == [
        ["mine.txt", "failed", "half"],
        ["out/half.txt", "failed", "half"],
    ]
    project.runnable("catalog", "r", "--get", "out/half.txt", "--to", "got.txt")
    assert project.read("got.txt") == "half\n"
    project.runnable("gc")
    project.runnable("catalog", "r", "--get", "mine.txt", "--to", "changed.txt")
    assert project.read("changed.txt").startswith("mine\n")


def test_what_a_failed_attempt_made_travels_with_the_run(tmp_path: Path) -> None:
    """Published and pulled elsewhere it is there to be looked at, and no step of a retry gets it."""
    project = project_of(tmp_path, PARTIAL.format("exit 1"), mine_txt="mine\n")
    project.runnable("run", "--run-id", "r", code=1)
    with registry(tmp_path / "registry") as served:
        project.runnable("publish", "r", "--to", f"{served.host}/o/r")
        other = elsewhere(project, tmp_path)
        other.runnable("pull", f"{served.host}/o/r:r")
    other.runnable("catalog", "r", "--get", "out/half.txt", "--to", "half.txt")
    assert other.read("half.txt") == "half\n"
    other.write({"runnable.toml": PARTIAL.format("true").replace("echo half", "echo whole")})
    assert other.runnable("retry", "r").out == "next | whole\n"
    assert [line.split()[:4] for line in other.runnable("catalog", "r").out.splitlines()[1:]] == [
        ["mine.txt", "failed", "half", "1"],
        ["out/half.txt", "failed", "half", "1"],
        ["mine.txt", "get", "half", "2"],
        ["mine.txt", "put", "half", "2"],
        ["out/half.txt", "put", "half", "2"],
        ["out/half.txt", "get", "next", "2"],
    ]


IN_PLACE = """
[steps.add]
run = "echo more >> base.txt"
catalog = { get = ["base.txt"], put = ["base.txt"] }
[steps.use]
run = "wc -l < base.txt; test -e go"
"""


def test_a_step_that_changes_its_input_is_not_done_twice(tmp_path: Path) -> None:
    """Its own product is no change of its input; where it runs again, the input is first as it was."""
    project = project_of(tmp_path, IN_PLACE, base_txt="one\n")
    project.runnable("run", "--run-id", "r", code=1)
    kept = [entry for entry in project.log("r").steps["add"].data_catalog if entry.kept]
    assert [(entry.name, entry.size) for entry in kept] == [("base.txt", 4)]
    project.write({"go": ""})
    done = project.runnable("retry", "r")
    assert project.log("r").invocations[-1].decisions["add"].action == "reuse"
    assert done.out == "use | 2\n"
    again = project.runnable("retry", "r", "--from", "add")
    assert "set aside 1 file that `add` made earlier: " in again.err
    assert "; restored base.txt as it was before\n" in again.err
    assert project.read("base.txt") == "one\nmore\n"
    clone = elsewhere(project, tmp_path)
    shutil.copytree(project.store, clone.store)
    clone.runnable("retry", "r", "--from", "add", code=1)
    assert clone.read("base.txt") == "one\nmore\n"


def test_what_the_user_has_put_there_since_is_an_input(tmp_path: Path) -> None:
    """An edit of a file that a step changes in place is a change like any other, and stays."""
    project = project_of(tmp_path, IN_PLACE, base_txt="one\n")
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"base.txt": "mine\n", "go": ""})
    project.runnable("retry", "r")
    assert project.log("r").steps["add"].attempts[-1].reason == "input base.txt changed"
    assert project.read("base.txt") == "mine\nmore\n"


def test_a_new_run_begins_with_what_the_user_had(tmp_path: Path) -> None:
    """A file that git does not track and a step changed in place is for the next run what it was for the first."""
    project = project_of(tmp_path, IN_PLACE.replace("; test -e go", ""))
    project.write({"base.txt": "one\n"})
    for _ in range(3):
        done = project.runnable("run")
        assert done.out == "use | 2\n"
    project.write({"base.txt": "one\ntwo\n"})
    assert project.runnable("run").out == "use | 3\n"


def identities(log: RunLog) -> list[str]:
    """What is said of the code of each step's last attempt; of a clean one nothing."""
    codes = [step.attempts[-1].code_identities[0] for step in log.steps.values()]
    assert all(code.code_identifier_dependable is not code.code_identifier_message.startswith("mod") for code in codes)
    return [code.code_identifier_message for code in codes]


CHAINED = """
[steps.add]
run = "echo more >> base.txt"
catalog = { get = ["base.txt"], put = ["base.txt"] }
[steps.sort]
run = "sort -o base.txt base.txt; echo sorted >> base.txt; test ! -e wait || { touch asleep; sleep 60; }"
catalog = { get = ["base.txt"], put = ["base.txt"] }
[steps.use]
run = "tr '\\n' ' ' < base.txt"
"""
CHAINED_RESULT = "use  | more one sorted "


def test_a_new_run_begins_with_what_git_tracks(tmp_path: Path) -> None:
    """Where several steps changed a tracked file in place, each run begins with the user's, and says so once."""
    project = project_of(tmp_path, CHAINED, base_txt="one\n", _gitignore="wait\nasleep\n")
    for run_id in ("a", "b"):
        done = project.runnable("run", "--run-id", run_id)
        assert done.out.rstrip("\n") == CHAINED_RESULT
        assert identities(project.log(run_id)) == ["", "", ""]
    assert done.err.count("restored base.txt as it was before\n") == 1
    assert (project.store / "runs/b/replaced/1/sort/base.txt").read_text() == "more\none\nsorted\n"
    project.runnable("retry", "b", "--from", "sort")
    assert project.read("base.txt") == "more\none\nsorted\n"
    clone = elsewhere(project, tmp_path)
    assert clone.runnable("run", "--run-id", "c").out.rstrip("\n") == CHAINED_RESULT


def test_a_new_run_begins_with_what_git_tracks_after_a_kill(tmp_path: Path) -> None:
    """Killed while the second of two steps changes it, the file is the user's again for the run after that."""
    project = project_of(tmp_path, CHAINED, base_txt="one\n", _gitignore="wait\nasleep\n")
    project.runnable("run", "--run-id", "a")
    project.write({"wait": ""})
    for command in (["run", "--run-id", "b"], ["retry", "b"]):
        with project.start(*command) as running:
            wait_until((project.folder / "asleep").exists, "the step")
            running.kill()
        assert project.read("base.txt") == "more\none\nsorted\n"
        (project.folder / "asleep").unlink()
    (project.folder / "wait").unlink()
    assert project.runnable("run", "--run-id", "c").out.rstrip("\n") == CHAINED_RESULT
    assert identities(project.log("c")) == ["", "", ""]
    project.git("checkout", "base.txt")
    assert project.runnable("run", "--run-id", "d").err.count("base.txt") == 0


def test_what_a_person_made_of_a_tracked_file_stays(tmp_path: Path) -> None:
    """It is named as the change that it is, in each attempt, and is what each run begins with until it is committed."""
    project = project_of(tmp_path, CHAINED, base_txt="one\n", _gitignore="wait\nasleep\n")
    project.runnable("run", "--run-id", "a")
    project.write({"base.txt": "mine\n"})
    for run_id in ("b", "c"):
        done = project.runnable("run", "--run-id", run_id)
        assert done.out.strip() == "use  | mine more sorted"
        assert identities(project.log(run_id)) == ["modified: base.txt"] * 3
        note = "base.txt was changed since a step wrote it: it stays, and if it is overwritten yours is in "
        assert (f"{note}{project.store}/runs/b/replaced/1\n" in done.err) is (run_id == "b")
    assert (project.store / "runs/b/replaced/1/add/base.txt").read_text() == "mine\n"
    project.commit()
    done = project.runnable("run", "--run-id", "d")
    assert done.out.strip() == "use  | mine more more sorted sorted"
    assert identities(project.log("d")) == ["", "", ""]
    assert project.runnable("run", "--run-id", "e").out == done.out


GROWING = """
[parameters]
day = 1
[steps.collect]
run = "mkdir -p days; echo $day > days/$day.txt; test ! -e fails"
catalog = { put = ["days/*"], persist = true }
[steps.count]
run = 'echo "total=$(ls days | wc -l)" >> "$RUNNABLE_OUTPUT"'
returns = { total = "metric" }
"""


def test_what_is_built_up_persists(tmp_path: Path) -> None:
    """With `persist` the step finds its files, those that it left are recorded with who made them, also in a clone."""
    project = project_of(tmp_path, GROWING)
    project.write({"days/mine.md": "untracked, of the user\n"})
    for day in (1, 2, 3):
        project.runnable("run", "--run-id", f"r{day}", "-p", f"day={day}")
    log = project.log("r3")
    assert {name: entry.made_by for name, entry in entries(log, "collect").items()} == {
        "days/1.txt": "r1/collect.1",
        "days/2.txt": "r2/collect.1",
        "days/3.txt": "",
    }
    assert log.metrics() == {"total": 4}
    clone = elsewhere(project, tmp_path)
    shutil.copytree(project.store, clone.store)
    (clone.store / "products.jsonl").unlink()
    clone.runnable("retry", "r3", "-p", "day=4")
    made = {name: entry.made_by for name, entry in entries(clone.log("r3"), "collect").items()}
    assert made == {
        "days/1.txt": "r1/collect.1",
        "days/2.txt": "r2/collect.1",
        "days/3.txt": "r3/collect.1",
        "days/4.txt": "",
    }


def test_what_persists_is_fetched_with_what_a_retry_needs(tmp_path: Path) -> None:
    """A run that is pulled in part brings what its steps find again."""
    project = project_of(tmp_path, GROWING)
    project.runnable("run", "--run-id", "r")
    with registry(tmp_path / "registry") as served:
        project.runnable("publish", "r", "--to", f"{served.host}/o/r")
        other = elsewhere(project, tmp_path)
        other.runnable("retry", f"{served.host}/o/r:r", "-p", "day=2")
    assert other.log("r").metrics() == {"total": 2}
    assert (other.read("days/1.txt"), other.read("days/2.txt")) == ("1\n", "2\n")


def test_what_a_failed_attempt_did_to_what_persists_is_undone(tmp_path: Path) -> None:
    """Its files are as the attempt found them."""
    project = project_of(tmp_path, GROWING.replace("echo $day > days/$day.txt", "echo $day >> days/all.txt"))
    project.runnable("run", "--run-id", "a")
    project.write({"fails": ""})
    project.runnable("run", "--run-id", "b", code=1)
    assert project.read("days/all.txt") == "1\n"
    (project.folder / "fails").unlink()
    project.runnable("retry", "b")
    assert project.read("days/all.txt") == "1\n1\n"


EDITED = """
[steps.table]
run = "printf '1\\\\n' > table.csv; echo x > other.csv"
catalog = { put = ["*.csv"] }
[steps.use]
run = "cat table.csv; test -e go"
catalog = { get = ["table.csv"] }
"""


def test_an_edited_product_is_the_user_s_and_named(tmp_path: Path) -> None:
    """A retry says that later steps get the recorded one, and keeps the edited one; a new run keeps it too."""
    project = project_of(tmp_path, EDITED, _gitignore="go\n")
    project.runnable("run", "--run-id", "r", code=1)
    project.write({"table.csv": "my own\n", "go": ""})
    planned = project.runnable("retry", "r", "--dry-run").out
    assert "table.csv changed since attempt 1; later steps get that attempt's" in planned
    done = project.runnable("retry", "r")
    assert done.out == "use   | 1\n"
    assert "replaced table.csv by the run's" in done.err
    assert project.log("r").invocations[-1].decisions["table"].warning == "products_changed"
    assert (project.store / "runs/r/replaced/table.csv").read_text() == "my own\n"
    project.write({"table.csv": "my own\n"})
    assert project.runnable("run", "--run-id", "s").out == "use   | 1\n"
    assert [e.size for e in project.log("s").steps["table"].data_catalog if e.kept] == [7]


def test_products_are_no_change_of_the_code_and_edits_are(tmp_path: Path) -> None:
    """By path and content: what a step made leaves the tree clean, in the next run too; an edit does not."""
    project = project_of(tmp_path, EDITED.replace("; test -e go", ""))
    for edited in ({}, {}, {"mine.csv": "x\n"}, {"other.csv": "edited\n"}):
        project.write(edited)
        project.runnable("run")
        identities = [step.attempts[-1].code_identities[0] for step in project.log().steps.values()]
        assert [identity.code_identifier_dependable for identity in identities] == [not edited] * 2
        project.git("clean", "-qxf", "mine.csv")


def test_an_input_that_changes_while_a_step_runs_is_said(tmp_path: Path) -> None:
    """Its `put` does not name it, so the step did not say that it writes it: it may be an edit, and stays."""
    steps = """
[steps.read]
run = "echo x >> in.txt; exit 1"
catalog = { get = ["in.txt"] }
"""
    project = project_of(tmp_path, steps, in_txt="in\n")
    failed = project.runnable("run", "--run-id", "r", code=1)
    assert "read | in.txt changed while the step ran, which does not put it: it is left as it is\n" in failed.err
    assert project.read("in.txt") == "in\nx\n"


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    """Of the folders above what is set aside those go that the step made, and no other."""
    steps = """
[steps.make]
run = "mkdir -p there/new; echo 1 > there/new/one.txt; echo 2 > there/two.txt; test ! -e fails"
catalog = { put = ["there/**"] }
"""
    project = project_of(tmp_path, steps)
    (project.folder / "there").mkdir()
    project.runnable("run")
    project.write({"fails": ""})
    project.runnable("run", code=1)
    assert [path.name for path in (project.folder / "there").iterdir()] == []


def test_what_a_retry_restored_is_a_product_too(tmp_path: Path) -> None:
    """In a clone the next run sets aside what a retry brought, whether a step took it or `--restore all`."""
    steps = """
[steps.one]
run = "echo 1 > one.txt; echo 2 > two.txt"
catalog = { put = ["one.txt", "two.txt"] }
[steps.use]
run = "cat one.txt; test -e go"
catalog = { get = ["one.txt"] }
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", code=1)
    clone = elsewhere(project, tmp_path)
    shutil.copytree(project.store, clone.store, ignore=shutil.ignore_patterns("products.*"))
    clone.write({"go": ""})
    clone.runnable("retry", "r", "--restore", "all")
    assert "set aside 2 files that `one` made earlier" in clone.runnable("run").err


KILLED = """
[steps.make]
run = "echo part > made.txt; echo part >> base.txt; {}"
catalog = {{ put = ["made.txt", "base.txt"] }}
[steps.last]
run = "cat base.txt; cat made.txt; echo last > last.txt"
catalog = {{ put = ["last.txt"] }}
"""


@pytest.mark.parametrize("command", ["retry", "run"])
def test_what_a_killed_attempt_made_is_undone_by_the_next_command(tmp_path: Path, command: str) -> None:
    """A retry, or another run, finds the user's file as it was and nothing half made; the log has what was made."""
    project = project_of(tmp_path, KILLED.format("sleep 60"), base_txt="base\n")
    with project.start("run", "--run-id", "r") as running:
        wait_until(lambda: "part" in project.read("base.txt"), "the step")
        running.kill()
    project.write({"runnable.toml": KILLED.format("true")})
    done = project.runnable(command, *(["r"] if command == "retry" else ["--run-id", "s"]))
    assert "restored base.txt as it was before the attempt" in done.err
    assert done.out == "last | base\nlast | part\nlast | part\n"
    attempts = project.log("r").steps["make"].attempts
    files = attempts[0].data_catalog if command == "retry" else project.log("r").steps["make"].data_catalog
    assert [(entry.name, entry.stage) for entry in files] == [("base.txt", "failed"), ("made.txt", "failed")]
    assert attempts[0].outcome == "interrupted"
    assert not any((project.store / "unfinished").iterdir())
    project.runnable("run", "--run-id", "t")
    assert project.log("t").status == SUCCESS


def test_what_a_person_wrote_after_a_kill_is_named(tmp_path: Path) -> None:
    """Nobody can tell it from what the attempt made: it goes too, and the line names it and its place."""
    step = '[steps.make]\nrun = "for i in $(seq 5); do echo $i > out/$i.txt; done; touch asleep; {}"\n'
    step += 'catalog = {{ put = ["out/*"] }}\n'
    project = project_of(tmp_path, step.format("sleep 60"), out__keep="", _gitignore="asleep\n")
    with project.start("run", "--run-id", "r") as running:
        wait_until((project.folder / "asleep").exists, "the step")
        running.kill()
    project.write({"out/thesis.txt": "mine\n", "runnable.toml": step.format("true")})
    done = project.runnable("retry", "r")
    place = project.store / "runs/r/replaced/1/make.1"
    assert f"moved to {place} what was written since it began: out/thesis.txt, out/" in done.err
    assert "and 3 more\n" in done.err
    assert (place / "out/thesis.txt").read_text() == "mine\n"
    assert (
        project.runnable("catalog", "r", "--get", "out/thesis.txt", "--attempt", "1", "--to", "t.txt").out == "t.txt\n"
    )


def test_files_set_aside_for_a_killed_run_are_put_back(tmp_path: Path) -> None:
    """What the killed invocation had no time to make again is there for the next command."""
    project = project_of(tmp_path, KILLED.format("test ! -e wait || sleep 60"), base_txt="base\n")
    project.runnable("run", "--run-id", "a")
    project.write({"wait": ""})
    with project.start("retry", "a", "--from", "make") as running:
        wait_until(lambda: not (project.folder / "last.txt").exists(), "the files to be set aside")
        wait_until(lambda: "part" in project.read("made.txt"), "the step")
        running.kill()
    (project.folder / "wait").unlink()
    done = project.runnable("retry", "a")
    assert "set aside 3 files" in done.err
    assert (project.read("last.txt"), project.read("base.txt")) == ("last\n", "base\npart\n")


def test_an_earlier_product_is_nothing_that_a_killed_attempt_wrote(tmp_path: Path) -> None:
    """It was set aside before that attempt, and is put back: the line names no file of another run."""
    step = '[steps.train]\nrun = "test ! -e wait || { touch asleep; sleep 60; }; echo made > made.txt"\n'
    project = project_of(tmp_path, f'{step}catalog = {{ put = ["*.txt"] }}\n', _gitignore="wait\nasleep\n")
    project.runnable("run", "--run-id", "a")
    project.write({"wait": ""})
    with project.start("run", "--run-id", "b") as running:
        wait_until((project.folder / "asleep").exists, "the step")
        running.kill()
    (project.folder / "wait").unlink()
    done = project.runnable("retry", "b")
    assert "attempt 1 at `train` was killed: it left no files\n" in done.err
    assert "set aside 1 file that `train` made earlier" in done.err
    assert (project.store / "runs/b/replaced/2").is_dir()


def test_the_index_may_be_lost_torn_or_hostile(tmp_path: Path) -> None:
    """What it cannot say is not believed: files then stay where they are, and no name leads anywhere."""
    project = project_of(tmp_path, FORGETFUL)
    project.write({"../outside.txt": "outside\n"})
    project.runnable("run", "--run-id", "a")
    index = project.store / "products.jsonl"
    line = json.loads(index.read_text())
    index.unlink()
    assert "set aside" not in project.runnable("run", "--run-id", "b").err
    hostile = [{**line, "path": "../outside.txt"}, {**line, "sha256": "../../x"}, {"path": 7}, [], {**line, "size": -1}]
    with index.open("a") as file:
        file.writelines(f"{json.dumps(one)}\n" for one in hostile)
        file.write('{"path":"torn')
    assert "set aside 1 file " in project.runnable("run", "--run-id", "c").err
    assert "set aside 1 file " in project.runnable("run", "--run-id", "d").err
    assert project.read("../outside.txt") == "outside\n"


def test_what_another_step_is_making_is_no_change_of_the_code(tmp_path: Path) -> None:
    """A step that begins meanwhile sees it in the work tree; what a person writes there is a change nevertheless."""
    pipeline = """
[steps.slow]
needs = []
run = "echo 1 > slow.txt; sleep 0.6"
catalog = { put = ["slow.txt"] }
[steps.quick]
needs = []
run = "sleep 0.2"
[steps.after]
run = "true"
needs = ["quick"]
"""
    project = workspace(tmp_path, {"runnable.toml": pipeline})
    project.runnable("run", "--run-id", "r", "-j", "2")
    identity = project.log("r").steps["after"].attempts[0].code_identities[0]
    assert (identity.code_identifier_dependable, identity.code_identifier_message) == (True, "")
    (project.folder / "slow.txt").write_text("mine")
    project.runnable("run", "--run-id", "mine", "-j", "2")
    assert "slow.txt" in project.log("mine").steps["quick"].attempts[0].code_identities[0].code_identifier_message
