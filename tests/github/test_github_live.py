"""Tests of the live log in a job: groups, who streams, and that no output is ever taken for a command."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from act import ACT
from actions_runner import COMMANDS, Command, Runner
from cli import PROGRAM, Workspace, workspace
from hypothesis import given, settings
from hypothesis import strategies as st
from support import WAIT_S, wait_until

from runnable_ci.github.commands import Annotation
from runnable_ci.github.log import ActionsPrinter
from runnable_ci.util.process_output import Stream

STEPS = ["load", "fit", "plot"]
PIECES = [
    *(b"::", b"##[", b"]", b"set-output name=x", b"add-mask", b"group", b"endgroup", b"stop-commands", b"error"),
    *(b"::add-mask::x\n", b"##[set-output name=a]b\n", b"\r::debug::x\n", b"::stop-commands::pause-logging\n"),
    *(b"\n", b"\r", b"\r\n", b" ", b"\xc2\xa0", b"\xff", b"\xe2\x80\xa8", b"\xc2", b"\0", b"\x1b[0m", b"%0A", b"word"),
]
# A step's name and a chunk of its output, or None for its end.
ACTS = st.lists(
    st.tuples(st.sampled_from(STEPS), st.sampled_from("oe"), st.lists(st.sampled_from(PIECES), max_size=5) | st.none()),
    max_size=40,
)


class Log(io.BytesIO):
    """What was printed, readable by another thread at any time."""

    def runner(self) -> Runner:
        """What the runner makes of it."""
        return Runner().read(self.getvalue())


@pytest.fixture
def log() -> Log:
    """The log of a job."""
    return Log()


def printer_to(log: Log, *, quiet: bool = False) -> Iterator[ActionsPrinter]:
    """A printer that has begun."""
    printer = ActionsPrinter(log, quiet=quiet)
    printer.begin(STEPS, len(STEPS))
    yield printer
    printer.end()


@pytest.fixture
def printer(log: Log) -> Iterator[ActionsPrinter]:
    """A printer that writes to it."""
    yield from printer_to(log)


def lines_of(runner: Runner, step: str) -> list[str]:
    """What the log shows of a step within groups, whichever they are."""
    return [
        line.partition("| ")[2]
        for title, lines in runner.groups()
        if title.split(" ")[0] == step
        for line in lines
        if "| " in line
    ]


@settings(deadline=None)
@given(ACTS)
def test_no_output_is_taken_for_a_command(acts: list[tuple[str, Stream, list[bytes] | None]]) -> None:
    """Whatever steps write, in whatever pieces and order: groups are all that the runner obeys, and nothing is lost."""
    log = Log()
    printer = ActionsPrinter(log, quiet=False)
    written = dict.fromkeys(STEPS, 0)
    begun, ended = set[str](), set[str]()
    for number, (step, stream, pieces) in enumerate(acts):
        if step in ended:
            continue
        if step not in begun:
            begun.add(step)
            printer.started(step)
        if pieces is None:
            ended.add(step)
            printer.finished(step, f"::error::{step} ##[error]x", failed=number % 2 == 0)
        else:
            printer.output(step, stream, b"".join(pieces) + b"\nmarker\n")
            written[step] += 1
    for step in STEPS:
        printer.finish_lines(step)
    printer.end()
    runner = log.runner()
    assert {command.name for command in runner.commands} <= {"group", "endgroup"}
    assert not runner.stop_token
    assert {step: lines_of(runner, step).count("marker") for step in STEPS} == written


def test_a_step_has_a_group(log: Log, printer: ActionsPrinter) -> None:
    """Its lines, of both streams in their order, each with its name; how it ended stands after the group."""
    printer.output("fit", "o", b"one\nha")
    printer.output("fit", "e", b"two\n")
    printer.output("fit", "o", b"lf")
    printer.finished("fit", "1.0 s", failed=False)
    runner = log.runner()
    assert [title for title, _ in runner.groups()] == ["fit"]
    assert lines_of(runner, "fit") == ["one", "two", "half"]
    assert runner.outside() == ["fit  | ✓ 1.0 s"]


def test_a_silent_step_has_no_group(log: Log, printer: ActionsPrinter) -> None:
    """A step that wrote nothing is one line."""
    printer.finished("fit", "1.0 s", failed=False)
    assert log.getvalue().decode() == "fit  | ✓ 1.0 s\n"


def shown(log: Log) -> list[str]:
    """The titles of the groups so far, the open one included."""
    lines = log.runner().shown
    return [line.removeprefix("##[group]") for line in lines if line.startswith("##[group]")]


def test_steps_side_by_side_do_not_mix(log: Log, printer: ActionsPrinter) -> None:
    """The one that was alone streams on; each of the others is one group when it ends, or when it is alone."""
    printer.started("load")
    printer.output("load", "o", b"load 1\n")
    for step in ("fit", "plot"):
        printer.started(step)
        printer.output(step, "o", f"{step} 1\n".encode())
    printer.output("load", "o", b"load 2\n")
    assert b"load 2" in log.getvalue()
    assert shown(log) == ["load"]
    printer.output("plot", "o", b"plot 2\n")
    printer.finished("plot", "failed", failed=True)
    assert lines_of(log.runner(), "plot") == ["plot 1", "plot 2"]
    assert log.runner().outside() == ["plot | ✗ failed"]
    printer.output("load", "o", b"load 3\n")
    assert b"fit 1" not in log.getvalue()
    printer.finished("load", "1 s", failed=False)
    assert b"fit 1" in log.getvalue()
    printer.output("fit", "o", b"fit 2\n")
    assert b"fit 2" in log.getvalue()
    printer.finished("fit", "1 s", failed=False)
    assert shown(log) == ["load", "plot", "load (continued)", "fit"]
    assert lines_of(log.runner(), "load") == ["load 1", "load 2", "load 3"]
    assert lines_of(log.runner(), "fit") == ["fit 1", "fit 2"]


def test_parallel_steps_are_a_group_each(log: Log, printer: ActionsPrinter) -> None:
    """Of steps that begin together none is in front: in the order in which they end, none in parts."""
    for step in STEPS:
        printer.started(step)
    for i in range(3):
        for step in STEPS:
            printer.output(step, "o", f"{step} {i}\n".encode())
    assert log.getvalue() == b""
    for step in ("plot", "load"):
        printer.finished(step, "1 s", failed=False)
    printer.output("fit", "o", b"fit 3\n")
    assert b"fit 3" in log.getvalue()
    printer.finished("fit", "1 s", failed=False)
    assert shown(log) == ["plot", "load", "fit"]
    assert lines_of(log.runner(), "load") == ["load 0", "load 1", "load 2"]


def test_steps_one_after_another_stream(log: Log, printer: ActionsPrinter) -> None:
    """Also where nobody says when one ends, as in a log that is shown again."""
    for step in STEPS:
        printer.output(step, "o", f"{step} 1\n".encode())
        assert f"{step} 1".encode() in log.getvalue()
    assert shown(log) == STEPS


def test_what_waits_is_not_in_memory(log: Log, printer: ActionsPrinter) -> None:
    """A step that writes twenty megabytes while another streams costs a few hundred kilobytes."""
    chunk = b"x" * 1023 + b"\n"
    printer.started("load")
    printer.output("load", "o", b"load 1\n")
    printer.started("fit")
    tracemalloc.start()
    try:
        for _ in range(20_000):
            printer.output("fit", "o", chunk)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 2_000_000
    printer.finished("fit", "1 s", failed=False)
    assert len(lines_of(log.runner(), "fit")) == 20_000


def test_quiet_shows_no_output(log: Log) -> None:
    """With --quiet the log has how steps ended, and no group."""
    for printer in printer_to(log, quiet=True):
        printer.output("fit", "o", b"one\n")
        printer.finished("fit", "1 s", failed=False)
    assert log.getvalue().decode() == "fit  | ✓ 1 s\n"


def test_end_shows_what_waits(log: Log, printer: ActionsPrinter) -> None:
    """A run that breaks off loses no line, and commands are on after it."""
    printer.started("load")
    printer.output("load", "o", b"load 1\n")
    printer.started("fit")
    printer.output("fit", "o", b"fit 1\n")
    printer.end()
    printer.print_annotations([Annotation("error", "m", "t", "a.py", 3)])
    assert lines_of(log.runner(), "fit") == ["fit 1"]
    assert log.runner().of("error") == [Command("error", "m", {"title": "t", "file": "a.py", "line": "3"})]


def test_many_threads(log: Log, printer: ActionsPrinter) -> None:
    """Steps that write from threads of their own lose nothing, and their groups hold."""

    def work(step: str) -> None:
        printer.started(step)
        for i in range(300):
            printer.output(step, "o", f"{step} {i}\n".encode())
        printer.finished(step, "1 s", failed=False)

    threads = [threading.Thread(target=work, args=(step,)) for step in STEPS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    printer.end()
    for step in STEPS:
        assert lines_of(log.runner(), step) == [f"{step} {i}" for i in range(300)]


HOSTILE = r"""
[steps.hostile]
needs = []
run = '''
echo "::set-output name=a::b"
echo "   ::add-mask::visible"
echo "text ##[set-output name=a]b"
printf 'bar 10%%\r::save-state name=a::b\n'
printf 'bar\r\r\n'
echo "::stop-commands::mine"
echo "::error file=a.py::from stderr" >&2
echo "::endgroup::"; echo "##[endgroup]"; echo "##[group]mine"
head -c 300 /dev/urandom
python3 -c "print('x' * 70000 + '::warning::long')"
printf '::warning::no line end'
'''

[steps.failing]
python = "work:fail"
needs = []
"""
FAILING = """def fail():
    raise ValueError("::set-output name=a::b\\n##[error]second line")
"""


@pytest.fixture
def at(tmp_path: Path) -> Workspace:
    """A job whose pipeline is in a folder of the repository."""
    made = workspace(tmp_path, {"sub/runnable.toml": HOSTILE, "sub/work.py": FAILING})
    variables = {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": str(made.folder)}
    return Workspace(made.folder, {**made.environ, **variables})


@pytest.mark.promise
def test_a_hostile_run_commands_nothing(at: Workspace) -> None:
    """With the real program: groups, one annotation at the line that raised, and what was masked; all on stdout."""
    done = at.runnable("run", at="sub", code=1)
    runner = Runner().read(done.raw)
    assert done.err == ""
    assert [command for command in runner.commands if command.name not in ("group", "endgroup")] == [
        Command("add-mask", "visible"),
        Command(
            "error",
            "ValueError: ::set-output name=a::b\n##[error]second line",
            {"file": "sub/work.py", "line": "2", "title": "step failing failed"},
        ),
    ]
    assert not runner.stop_token
    assert {title.split(" ")[0] for title, _ in runner.groups()} == {"hostile", "failing"}
    assert "failing | ✗ failed after" in "\n".join(runner.outside())


def test_nothing_changes_outside_of_a_job(at: Workspace) -> None:
    """On a laptop there are no commands in the output."""
    done = at.runnable("run", at="sub", code=1, GITHUB_ACTIONS="")
    assert "::group::" not in done.out + done.err


def test_an_error_of_ours_commands_nothing(at: Workspace) -> None:
    """It is an annotation; what its message quotes of a file is no command."""
    at.write({"bad.toml": '"a ##[add-mask]b\\n::add-mask::c" = 1\n[steps.a]\nrun = "true"\n'})
    done = at.runnable("run", "bad.toml", code=2)
    (command,) = Runner().read(done.raw + done.err.encode()).commands
    assert (command.name, command.properties) == ("error", {"file": "bad.toml", "line": "1", "title": "runnable-ci"})
    assert "##[add-mask]b" in command.data


@pytest.mark.promise
def test_looking_at_a_hostile_run_commands_nothing(at: Workspace) -> None:
    """Its traceback, reasons and output are quoted by `show`, the plan and `logs`: still no command."""
    at.runnable("run", at="sub", code=1)
    words = (["show", "latest"], ["retry", "latest", "-n"], ["logs", "latest"])
    shown = b"".join(at.runnable(*command, at="sub").raw for command in words)
    assert b"set-output" in shown
    assert Runner().read(shown).commands == []


WORKFLOW = """on: workflow_dispatch
jobs:
  job:
    runs-on: ubuntu-latest
    steps:
      - continue-on-error: true
        run: {program} run {pipeline}
      - run: echo "::notice::after"
"""


def test_act_obeys_nothing_of_a_hostile_run(at: Workspace) -> None:
    """A real workflow runner sees groups and the annotation, and takes the next step's commands again."""
    at.write({".github/workflows/ci.yml": WORKFLOW.format(program=PROGRAM, pipeline=at.folder / "sub")})
    at.commit()
    command = [ACT, "workflow_dispatch", "-P", "ubuntu-latest=-self-hosted", "--no-cache-server", "--rm", "--json"]
    done = subprocess.run(command, cwd=at.folder, env=at.environ, stdin=subprocess.DEVNULL, capture_output=True)
    events = [json.loads(line) for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("{")]
    commands = [(event["command"], event.get("arg")) for event in events if event.get("command")]
    names = [name for name, _ in commands if name in COMMANDS]
    assert {name for name, _ in commands} - {*COMMANDS} == {arg for name, arg in commands if name == "stop-commands"}
    assert set(names) == {"group", "stop-commands", "endgroup", "error", "notice", "add-mask"}
    assert names.count("error") == 1
    assert commands[-1] == ("notice", "after")
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_leaves_commands_on(at: Workspace, number: signal.Signals) -> None:
    """Ended in the middle of its output, the run closes its group and starts commands again."""
    at.write({"sub/runnable.toml": "[steps.chatty]\nrun = 'while true; do echo ::debug::x; sleep 0.01; done'\n"})
    output = bytearray()
    with at.start("run", "sub") as process:
        assert process.stdout

        def read() -> None:
            assert process.stdout
            while chunk := process.stdout.read1(65536):  # type: ignore[attr-defined]  # it is buffered
                output.extend(chunk)

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: output.count(b"::debug::") > 3, "output")
        process.send_signal(number)
        assert process.wait(WAIT_S) == 128 + number
        reader.join()
    runner = Runner().read(bytes(output) + b"::notice::after\n")
    assert not runner.stop_token
    assert runner.of("debug") == []
    assert runner.of("notice") == [Command("notice", "after")]
    assert [command.properties["title"] for command in runner.of("warning")] == ["step chatty was cancelled"]
    assert runner.groups()


BREAKING = """
[steps.chatty]
needs = []
run = "while true; do echo ::debug::x; sleep 0.01; done"
[steps.breaking]
needs = []
run = "sleep 0.3; rm -rf .runnable; touch .runnable"
[steps.next]
needs = ["breaking"]
run = "echo hi"
"""


def test_a_run_that_breaks_off_leaves_commands_on(at: Workspace) -> None:
    """Where we cannot go on ourselves, the group that was open is closed all the same."""
    at.write({"sub/runnable.toml": BREAKING})
    with at.start("run", "-j", "2", "sub") as process:
        output, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1
    runner = Runner().read(output + b"::notice::after\n")
    assert lines_of(runner, "chatty")
    assert runner.commands[-1] == Command("notice", "after")
