"""A run's journal is what was written, or an error that names the line and the way back; what was sealed is read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli import Workspace, workspace
from hypothesis import given
from hypothesis import strategies as st
from support import index_of, write_old_journal

from runnable_ci.errors import RunLogError
from runnable_ci.runs.events import AttemptSaved, Started
from runnable_ci.runs.journal import BrokenJournalError, Chain, Seal
from runnable_ci.runs.model import SUCCESS, Invocation, StepAttempt
from runnable_ci.runs.reader import load
from runnable_ci.runs.recorder import create, ensure_sealed, reopen
from runnable_ci.runs.remote.pull import keep_as
from runnable_ci.store.local import Layout
from runnable_ci.util.bounded_json import without_check

LINES = [b'{"step":"%d","event":"decided"}\n' % number for number in range(5)]
PIPELINE = """
[steps.a]
run = "echo 12.5 > score.txt; echo score=12.5 >> $RUNNABLE_OUTPUT"
catalog = { put = ["score.txt"] }
returns = { score = "metric" }
[steps.b]
run = "test -e fixed && cat score.txt"
"""


def followed(content: bytes, seal: Seal | None = None) -> list[bytes]:
    return [without_check(line) for line in Chain().follow(content.splitlines(keepends=True), where="j", seal=seal)]


def test_lines_come_back_as_they_were() -> None:
    """Linked at once or one after the other, they read the same, and name how far they are."""
    at_once, stepwise = Chain(), Chain()
    content = at_once.link(LINES)
    assert content == b"".join(stepwise.link([line]) for line in LINES)
    assert at_once == stepwise
    assert at_once.seal().size == len(content)
    assert followed(content, at_once.seal()) == LINES
    assert all(json.loads(line)["check"] for line in content.splitlines())


@pytest.mark.promise
@given(st.data())
def test_each_changed_byte_is_found(data: st.DataObject) -> None:
    """Wherever a byte of a journal is changed, also in what marks a check: no line from there on is taken."""
    content = Chain().link(LINES)
    place = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    changed = content[:place] + bytes([other]) + content[place + 1 :]
    taken: list[bytes] = []
    try:
        taken += (without_check(line) for line in Chain().follow(changed.splitlines(keepends=True), where="j"))
    except BrokenJournalError as e:
        assert e.whole_lines == len(taken)
    assert taken == LINES[: content[:place].count(b"\n")]


@pytest.mark.promise
@given(st.permutations(range(5)), st.integers(0, 5))
def test_lines_that_were_moved_or_removed_are_found(order: list[int], count: int) -> None:
    """Any order but the true one, and any gap, is named by the first line that does not follow."""
    linked = Chain().link(LINES).splitlines(keepends=True)
    chosen = order[:count]
    right = next((place for place, number in enumerate(chosen) if place != number), len(chosen))
    if right == len(chosen):
        assert followed(b"".join(linked[number] for number in chosen)) == LINES[: len(chosen)]
    else:
        with pytest.raises(BrokenJournalError, match=f"^error: j, line {right + 1}: damaged") as caught:
            followed(b"".join(linked[number] for number in chosen))
        assert caught.value.whole_lines == right


def test_what_was_sealed_is_a_beginning() -> None:
    """A journal that ends before its seal, or leads elsewhere, is none of that run; one that went on is."""
    chain = Chain()
    content = chain.link(LINES[:3])
    seal = chain.seal()
    assert followed(content + chain.link(LINES[3:]), seal) == LINES
    with pytest.raises(BrokenJournalError, match=rf"ends after \d+ bytes, line 2: it had {seal.size} when") as caught:
        followed(b"".join(content.splitlines(keepends=True)[:2]), seal)
    assert caught.value.whole_lines == 2
    with pytest.raises(BrokenJournalError, match="line 3: damaged, it is not what it was when the run was sealed"):
        followed(Chain().link([*LINES[:2], LINES[4], LINES[3]]), seal)


@given(are_new=st.lists(st.booleans(), min_size=5, max_size=5), at=st.integers(0, 4), is_removed=st.booleans())
def test_lines_of_versions_that_alternate(are_new: list[bool], at: int, *, is_removed: bool) -> None:
    """Lines of one that knows no checks are read, and proven by the next check, wherever they are."""
    chain, written = Chain(), []
    for line, is_new in zip(LINES, are_new, strict=True):
        written.append(chain.link([line]) if is_new else b"".join(chain.follow([line], where="j")))
    assert followed(b"".join(written), chain.seal()) == LINES
    changed = [*written]
    changed[at] = b"" if is_removed else changed[at].replace(b'"step":"', b'"step":"1')
    if any(are_new[at + is_removed :]):
        with pytest.raises(BrokenJournalError, match="does not follow"):
            followed(b"".join(changed))
    with pytest.raises(BrokenJournalError):
        followed(b"".join(changed), chain.seal())


@pytest.mark.parametrize(
    "line", [b"{}\n", b"\n", b'{"chock":"1","step":"a"}\n', b'{"check":"1","step":"a"}\n', b'["step"]\n']
)
def test_a_line_that_no_version_wrote(line: bytes) -> None:
    """It has no check, and does not begin as an event either: nothing from there on is taken."""
    for content in (line, LINES[0] + line, Chain().link(LINES) + line):
        with pytest.raises(BrokenJournalError, match="does not follow") as caught:
            followed(content)
        assert caught.value.whole_lines == content.count(b"\n") - 1


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A run that failed at its second step, and was sealed."""
    made = workspace(tmp_path, {"runnable.toml": PIPELINE, ".gitignore": "*.txt\nfixed\n"})
    made.runnable("run", "--run-id", "k", code=1)
    return made


def journal(project: Workspace, run_id: str = "k") -> Path:
    return project.store / "runs" / run_id / "journal.jsonl"


def shown(project: Workspace, code: int = 0) -> str:
    return project.runnable("show", "k", "--json", code=code).out


@pytest.mark.promise
def test_a_sealed_run_is_read_from_its_sealed_log(project: Workspace) -> None:
    """A digit in the journal changes nothing that is shown; a retry, which would write on, names the way back."""
    before = shown(project)
    journal(project).write_bytes(journal(project).read_bytes().replace(b"12.5", b"92.5"))
    assert shown(project) == before
    assert "12.5" in project.runnable("runs").out
    error = project.runnable("retry", "k", code=1).err
    assert "runs/k/journal.jsonl, line " in error
    _follow(project, error)
    assert shown(project) == before
    project.write({"fixed": ""})
    assert "a | reuse" in project.runnable("retry", "k").err


def test_a_journal_that_ends_before_its_seal_is_an_error(project: Workspace) -> None:
    """Cut at a line's end it is no run that was killed there: nothing is shown or published until it is put right."""
    before = shown(project)
    lines = journal(project).read_bytes().splitlines(keepends=True)
    journal(project).write_bytes(b"".join(lines[:2]))
    for command in (["show", "k"], ["logs", "k"], ["retry", "k"], ["publish", "k", "--to", "localhost:1/r"]):
        error = project.runnable(*command, code=1).err
        assert "runs/k/journal.jsonl ends after" in error, command
    assert "DAMAGED" in project.runnable("runs").out
    _follow(project, error)
    assert shown(project) == before


def test_the_journal_of_another_run_is_no_journal_of_this_one(project: Workspace) -> None:
    """Neither of another id, nor one of the same id from another folder; also where nothing was sealed."""
    project.runnable("run", "--run-id", "m", code=1)
    other = project.store.parent / "other"
    shutil.copytree(project.store, other)
    journal(project).write_bytes(journal(project).read_bytes() * 2)
    assert "line " in project.runnable("show", "k", code=1).err
    journal(project).write_bytes(journal(project, "m").read_bytes())
    (project.store / "index.json").write_bytes(b'{"schemaVersion":2,"manifests":[]}')
    assert "is the journal of another run, m" in project.runnable("show", "k", code=1).err


def test_a_run_that_was_resumed_and_killed_leads_on_from_its_seal(project: Workspace) -> None:
    """What came after the seal counts; where it is damaged, one goes back to the lines that are whole."""
    layout = Layout(project.store)
    sealed = load(layout, "k")
    with reopen(layout, sealed) as recorder:
        invocation = Invocation(number=2, command="retry", start_time="2026-01-01T00:00:00+00:00")
        recorder.record(Started(run_id="k", name="p", dag_hash="d", run_config={}, invocation=invocation))
        recorder.record(AttemptSaved(step="b", attempt=StepAttempt(status=SUCCESS, attempt_number=2)))
    assert [len(step.attempts) for step in load(layout, "k").steps.values()] == [1, 2]
    whole = journal(project).read_bytes()
    journal(project).write_bytes(whole.replace(b'"command":"retry"', b'"command":"retrz"'))
    with pytest.raises(RunLogError, match="line") as caught:
        load(layout, "k")
    command, _, what = caught.value.hint.partition(" goes back to ")
    assert what == "the lines that are whole: what came later runs again"
    subprocess.run(["sh", "-c", command], check=True)
    assert load(layout, "k") == sealed
    journal(project).write_bytes(whole[: Seal.of(layout.manifests()["k"].annotations).size + 20])  # type: ignore[union-attr]
    assert load(layout, "k") == sealed


def test_damage_in_a_run_that_was_never_sealed_can_be_cut_off(tmp_path: Path) -> None:
    """The error says how many lines are whole, with a command that keeps them; none is left where the first is bad."""
    layout = Layout(tmp_path / ".runnable")
    invocation = Invocation(number=1, command="run", start_time="2026-01-01T00:00:00+00:00")
    with create(layout, Started(run_id="k", name="p", dag_hash="d", run_config={}, invocation=invocation)) as recorder:
        for name in ("a", "b", "c"):
            recorder.record(AttemptSaved(step=name, attempt=StepAttempt(status=SUCCESS)))
    file = layout.folder / "runs/k/journal.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"step":"c"', b'"step":"d"'))
    with pytest.raises(RunLogError, match="line 4") as caught:
        load(layout, "k")
    command, _, what = caught.value.hint.partition(" goes back to ")
    assert what == "the lines that are whole: what came later runs again"
    subprocess.run(["sh", "-c", command], check=True)
    assert load(layout, "k").steps.keys() == {"a", "b"}
    file.write_bytes(whole[40:])
    with pytest.raises(RunLogError, match="line 1") as caught:
        load(layout, "k")
    assert "rm -r " in caught.value.hint


def test_the_log_that_was_lost_is_read_from_the_journal_that_led_to_it(project: Workspace) -> None:
    """Two copies of one truth: either is enough, and where both are damaged that is said."""
    before = shown(project)
    layout = Layout(project.store)
    manifest = layout.manifest(layout.manifests()["k"])
    blob = project.store / "blobs/sha256" / manifest["layers"][0]["digest"].removeprefix("sha256:")
    blob.chmod(0o644)
    blob.write_bytes(b"{}")
    assert shown(project) == before
    journal(project).write_bytes(journal(project).read_bytes().replace(b"12.5", b"92.5"))
    assert "hint: its sealed run log is damaged as well" in project.runnable("show", "k", code=1).err


def test_a_journal_that_is_gone_begins_anew_with_what_was_sealed(project: Workspace) -> None:
    """The run is read, resumed and copied, and its new journal leads to the same seal."""
    before = shown(project)
    journal(project).unlink()
    assert shown(project) == before
    layout = Layout(project.store)
    with reopen(layout, load(layout, "k")):
        pass
    assert shown(project) == before
    assert json.loads(journal(project).read_text())["event"] == "document"
    project.write({"fixed": ""})
    assert "a | reuse" in project.runnable("retry", "k").err
    keep_as(layout, "k", "copy")
    assert load(layout, "copy").status == SUCCESS


def test_a_run_of_an_earlier_version_is_read_and_resumed(project: Workspace) -> None:
    """Its journal has no checks, and its seal none either: from the next invocation on both are proven."""
    lines = journal(project).read_text().splitlines()
    write_old_journal(project.store, "k", lines)
    assert '"check"' not in journal(project).read_text()
    layout = Layout(project.store)
    ensure_sealed(layout, "k")
    index = index_of(project.store)
    del index["manifests"][-1]["annotations"]["vnd.runnable.journal-check"]
    (project.store / "index.json").write_text(json.dumps(index))
    project.write({"fixed": ""})
    assert "a | reuse" in project.runnable("retry", "k").err
    assert "vnd.runnable.journal-check" in index_of(project.store)["manifests"][-1]["annotations"]
    before = shown(project)
    journal(project).write_bytes(journal(project).read_bytes().replace(b"12.5", b"92.5", 1))
    assert shown(project) == before
    assert "line " in project.runnable("retry", "k", code=1).err


def test_a_run_that_an_earlier_version_continued(project: Workspace) -> None:
    """Without checks, between two invocations that have them: it goes on, whether or not that version sealed it."""
    layout = Layout(project.store)
    before = journal(project).read_bytes()
    with reopen(layout, load(layout, "k")) as recorder:
        invocation = Invocation(number=2, command="retry", start_time="2026-01-01T00:00:00+00:00")
        recorder.record(
            Started(run_id="k", name=load(layout, "k").name, dag_hash="d", run_config={}, invocation=invocation)
        )
        recorder.record(AttemptSaved(step="b", attempt=StepAttempt(status=SUCCESS, attempt_number=2)))
    added = journal(project).read_bytes()[len(before) :].splitlines(keepends=True)
    journal(project).write_bytes(before + b"".join(map(without_check, added)))
    assert [len(step.attempts) for step in load(layout, "k").steps.values()] == [1, 2]
    other = project.store.parent / "other"
    shutil.copytree(project.store, other)
    ensure_sealed(Layout(other), "k")
    assert load(Layout(other), "k").steps["b"].attempts[-1].status == SUCCESS
    project.write({"fixed": ""})
    assert "a | reuse" in project.runnable("retry", "k").err
    assert load(layout, "k").status == SUCCESS


def _follow(project: Workspace, error: str) -> None:
    """Do what the hint of an error says."""
    found = re.search(r"^hint: (.+) goes back to ", error, re.MULTILINE)
    assert found, error
    subprocess.run(["sh", "-c", found[1]], check=True, cwd=project.folder)
