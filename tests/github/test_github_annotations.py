"""Tests of a run's annotations: which there are, and where they point."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest
from example_run import attempt, events, moment, run_log, saved, started

from runnable_ci.github.annotations import SourceMap, annotations_for, source_map, step_lines
from runnable_ci.github.commands import Annotation, Level
from runnable_ci.runs.events import (
    Decided,
    InvocationFinished,
    apply,
    mark_interrupted,
)
from runnable_ci.runs.model import (
    FAIL,
    SUCCESS,
    DecisionRecord,
    ExceptionInfo,
    RunLog,
    StepAttempt,
)

AT = SourceMap(PurePath("/repo"), PurePath("/repo/sub"), PurePath("/repo/sub/runnable.toml"), {"fit": 7, "load": 3})


def log_of(step: str, finished: StepAttempt, status: str = FAIL) -> RunLog:
    """A run of one step that ended like this."""
    log = RunLog(run_id="r")
    for event in (started(1, 0), *saved(step, finished), InvocationFinished(time=moment(9), status=status)):
        log = apply(log, event)
    return log


def raised(file: str, line: int = 3, message: str = "bad\nunits") -> StepAttempt:
    """An attempt that an exception ended."""
    found = ExceptionInfo(type="ValueError", message=message, traceback="…", file=file, line=line)
    return attempt(1, 1, status=FAIL, message=f"ValueError: {message} ({file}:{line})", exception=found)


@pytest.mark.parametrize(
    ("file", "shown", "line"),
    [
        ("iris.py", "sub/iris.py", 3),
        ("src/a.py", "sub/src/a.py", 3),
        ("../lib/b.py", "lib/b.py", 3),
        ("/repo/lib/b.py", "lib/b.py", 3),
        ("/usr/lib/python3/json.py", "sub/runnable.toml", 7),
        ("../../elsewhere.py", "sub/runnable.toml", 7),
    ],
)
def test_an_exception_is_at_its_line(file: str, shown: str, line: int) -> None:
    """At the user's file, relative to the repository; what is not in it is at the step's table."""
    found = annotations_for(log_of("fit", raised(file)), AT)
    assert found == [Annotation("error", "ValueError: bad\nunits", "step fit failed", shown, line)]


def test_an_exception_in_a_notebook_has_its_cell() -> None:
    """The cell's number and source are told, at its line in the notebook's file."""
    failed = raised("n.ipynb", 12)
    assert failed.exception is not None
    failed.exception = failed.exception.model_copy(update={"cell": 3, "cell_source": "f(0)"})
    [found] = annotations_for(log_of("fit", failed), AT)
    assert (found.message, found.file, found.line) == ("ValueError: bad\nunits\ncell 3:\nf(0)", "sub/n.ipynb", 12)


def test_an_exception_without_words_is_its_type() -> None:
    """No colon that nothing follows."""
    assert annotations_for(log_of("fit", raised("a.py", message="")), AT)[0].message == "ValueError"


@pytest.mark.parametrize(
    ("outcome", "status", "level", "title"),
    [
        ("failed", FAIL, "error", "step fit failed"),
        ("timed_out", FAIL, "error", "step fit failed"),
        ("cancelled", FAIL, "warning", "step fit was cancelled"),
        ("interrupted", FAIL, "warning", "step fit was cancelled"),
        ("failed", SUCCESS, "warning", "step fit failed"),
    ],
)
@pytest.mark.parametrize("message", ["", "cancelled", "interrupted: no", "exit code 3"])
def test_a_failed_shell_step_is_at_its_table(message: str, outcome: str, status: str, level: Level, title: str) -> None:
    """An error; a warning where the run was cancelled, or went on and succeeded; whatever the words of its message."""
    failed = attempt(1, 1, status=FAIL, outcome=outcome, exit_code=3, message=message)
    assert annotations_for(log_of("fit", failed, status), AT) == [
        Annotation(level, message, title, "sub/runnable.toml", 7)
    ]


def test_a_killed_run_is_interrupted() -> None:
    """A step that nobody saw the end of is no error of the user's."""
    log = RunLog(run_id="r")
    for event in (started(1, 0), saved("fit", attempt(1, 1))[0]):
        log = apply(log, event)
    for event in mark_interrupted(log, time=moment(5)):
        log = apply(log, event)
    assert [(one.level, one.title) for one in annotations_for(log, AT)] == [("warning", "step fit was cancelled")]


def test_a_run_that_succeeded_has_none() -> None:
    """An attempt that failed in an earlier invocation is history."""
    assert annotations_for(run_log(), AT) == []


def test_the_attempt_is_told() -> None:
    """From the second attempt on the title says which it was."""
    failed = attempt(2, 1, status=FAIL, message="exit code 1")
    assert annotations_for(log_of("fit", failed), AT)[0].title == "step fit failed (attempt 2)"


def test_a_reused_step_whose_code_changed_is_noticed() -> None:
    """With the way to run it again, or whose parameters did; other reused steps are not worth a word."""
    log = RunLog(run_id="r")
    for event in [*events(), started(3, 20)]:
        log = apply(log, event)
    for step, warning in (("load", "code_changed"), ("fit", "parameters_changed"), ("plot", "")):
        decision = DecisionRecord(action="reuse", reason="because", warning=warning)
        log = apply(log, Decided(step=step, decision=decision))
    log = apply(log, InvocationFinished.of("succeeded", time=moment(21)))
    assert [(one.level, one.message, one.title, one.line) for one in annotations_for(log, AT)] == [
        ("notice", "because\nto re-run such steps: --rerun-changed", "step load was reused", 3),
        ("notice", "because\nto re-run it: --from fit", "step fit was reused", 7),
    ]


def test_tables_are_found() -> None:
    """In each form of a table, up to what is no TOML; sub-tables are not the step's beginning."""
    text = """name = "a"
[steps.load]
[steps.load.env]
  [ steps . "fit" ]   # comment
[tool.runnable-ci.steps.plot]
[steps]
inline = { run = "x" }
[steps.a'b]
"""
    assert step_lines(text) == {"load": 2, "fit": 4, "plot": 5, "inline": 7}


def test_places_are_relative_to_the_checkout(tmp_path: Path) -> None:
    """Through links too; without a checkout the pipeline's folder is the root."""
    real = tmp_path / "real"
    (real / "sub").mkdir(parents=True)
    (real / "sub" / "runnable.toml").write_text("[steps.fit]\nrun = 'x'\n")
    (tmp_path / "link").symlink_to(real)
    at = source_map(real / "sub", real / "sub" / "runnable.toml", {"GITHUB_WORKSPACE": str(tmp_path / "link")})
    assert at.of_step("fit") == ("sub/runnable.toml", 1)
    assert source_map(real / "sub", real / "sub" / "runnable.toml", {}).of_step("fit") == ("runnable.toml", 1)
    elsewhere = source_map(real / "sub", real / "sub" / "runnable.toml", {"GITHUB_WORKSPACE": str(tmp_path / "home")})
    assert elsewhere.of_step("fit")[0] == ""


def test_places_are_relative_to_the_repository_below_the_checkout(tmp_path: Path) -> None:
    """As with checkout's `path`; what lies in another repository beside it is at the step's table."""
    for repository in ("main", "lib"):
        (tmp_path / repository / ".git").mkdir(parents=True)
    pipeline = tmp_path / "main" / "flows" / "runnable.toml"
    pipeline.parent.mkdir()
    pipeline.write_text("[steps.fit]\nrun = 'x'\n")
    at = source_map(pipeline.parent, pipeline, {"GITHUB_WORKSPACE": str(tmp_path)})
    assert at.of_step("fit") == ("flows/runnable.toml", 1)
    shown = [annotations_for(log_of("fit", raised(file)), at)[0].file for file in ("a.py", "../b.py", "../../lib/c.py")]
    assert shown == ["flows/a.py", "b.py", "flows/runnable.toml"]
    (tmp_path / ".git").mkdir()
    inside = source_map(pipeline.parent, pipeline, {"GITHUB_WORKSPACE": str(pipeline.parent)})
    assert inside.of_step("fit") == ("runnable.toml", 1)
