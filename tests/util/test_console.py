"""Tests of the one way to stdout and stderr: nothing that others named or wrote takes effect where it is printed."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from actions_runner import Runner
from cli import Workspace, terminal, workspace
from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.errors import RunnableError
from runnable_ci.github.commands import Annotation, annotate
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.events import AttemptSaved, Decided, InvocationFinished, Started
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.model import (
    CatalogEntry,
    DecisionRecord,
    ExceptionInfo,
    Invocation,
    Parameter,
    StepAttempt,
)
from runnable_ci.runs.reader import catalog_of
from runnable_ci.runs.recorder import create
from runnable_ci.store.local import Layout
from runnable_ci.util.console import LINE_MAX_BYTES, Console, Output, line

NASTY = (
    "::error::pwned",
    "a\n::add-mask::a",
    "a\r::stop-commands::word",
    "##[error]pwned",
    "a ##[group]b",
    " \t::warning::pwned",
    ":\u200b:error::pwned",
    ":\x1b[0m:error::pwned",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b31m",
    "\u202egnp.exe",
    "\u2066a\u2069",
    "\x08\x08\x08gone",
    "\x7f",
    "\u2028::notice::pwned",
    "\ue000",
)
TEXT = "\n".join(NASTY)
JOB = {"GITHUB_ACTIONS": "true"}


def assert_harmless(text: str) -> None:
    """No character that a terminal obeys."""
    assert [c for c in text if c not in "\n\t" and not c.isprintable()] == []


def is_harmless_in_a_job(text: str) -> bool:
    """Whether the runner obeys nothing in what was printed, but to show an error of ours."""
    commands = Runner().read(text.encode()).commands
    return all(command.properties.get("title") == "runnable-ci" for command in commands)


class Stream(io.BytesIO):
    """A stream that says that it is a terminal, or not."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        """Whether it is one."""
        return self.is_terminal


class Shown:
    """A console of some place, and what was printed there to stdout."""

    def __init__(self, place: str) -> None:
        self._stream = Stream(is_terminal=place == "terminal")
        file = io.TextIOWrapper(self._stream)
        output = Output(lambda: file)
        self.console = Console(output, output, JOB if place == "job" else {})

    @property
    def text(self) -> str:
        """All of it."""
        return self._stream.getvalue().decode()


PLACES = pytest.mark.parametrize("place", ["pipe", "job", "terminal"])
PIECES = st.lists(st.sampled_from([*NASTY, *" :#[]\n\t\r", "é", "x" * 40]), max_size=12).map("".join)
EACH = settings(deadline=None)


@PLACES
@EACH
@given(lines=st.lists(PIECES | st.text(max_size=20), max_size=5))
def test_lines(place: str, lines: list[str]) -> None:
    """Each text is one line, whatever is in it, and none is a command."""
    shown = Shown(place)
    shown.console.out(*lines)
    text = shown.text
    assert text.count("\n") == len(lines)
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert Runner().read(text.encode()).commands == []


@PLACES
def test_plain_lines_stay(place: str) -> None:
    """What holds nothing of that kind is printed as it is, in any script."""
    shown = Shown(place)
    shown.console.out("a: b::c #1 [x]", "größer 日本 🙂", "")
    assert shown.text == "a: b::c #1 [x]\ngrößer 日本 🙂\n\n"


@PLACES
@EACH
@given(value=st.recursive(PIECES | st.text() | st.integers(), lambda inner: st.dictionaries(PIECES, inner, max_size=3)))
def test_json(place: str, value: object) -> None:
    """A document is the same value, and harmless, wherever it is printed; printable text in it stays readable."""
    shown = Shown(place)
    shown.console.json(json.dumps({"a": value, "b": "日本 ü"}, indent=1, ensure_ascii=False))
    text = shown.text
    assert json.loads(text) == {"a": value, "b": "日本 ü"}
    assert "日本 ü" in text
    assert all(c.isprintable() for c in text.replace("\n", ""))
    assert Runner().read(text.encode()).commands == []


@PLACES
@EACH
@given(data=st.lists(PIECES.map(str.encode) | st.binary(max_size=20), max_size=6))
def test_what_programs_wrote(place: str, data: list[bytes]) -> None:
    """To a pipe it goes byte by byte, in whatever pieces; on a terminal and in a job nothing of it takes effect."""
    shown = b"".join(Shown(place).console.quoted(data))
    if place == "pipe":
        assert shown == b"".join(data)
        return
    text = shown.decode()
    assert all(c.isprintable() or c in "\n\t" for c in text)
    assert text.count("\n") == b"".join(data).count(b"\n")
    assert Runner().read(shown).commands == []


@PLACES
def test_what_stays_readable_of_it(place: str) -> None:
    """Colours go, tabs stay, of a progress bar its last state; a line without end is shown in pieces as it comes."""
    quoted = Shown(place).console.quoted
    wrote = b"\x1b[31mred\x1b[0m\ta::b\r\n1%\r2%\r3%\n" + b"x" * 200_000
    if place == "pipe":
        assert b"".join(quoted([wrote])) == wrote
        return
    first, second, *more = b"".join(quoted([wrote])).decode().split("\n")
    assert (first, second, "".join(more)) == ("red\ta::b", "3%", "x" * 200_000)
    assert max(map(len, more)) <= LINE_MAX_BYTES


def test_an_error_is_a_line_and_its_hints() -> None:
    """What a message quotes never begins a line."""
    error = RunnableError("no `a\nhint: b`", hint="do\n  this")
    assert list(map(line, error.lines())) == ["error: no `a hint: b`", "hint: do", "  this"]


def test_an_annotation_moves_no_cursor() -> None:
    """The runner shows its message in the log, too."""
    (command,) = Runner().read(annotate(Annotation("error", TEXT, TEXT, "a.py", 3)).encode()).commands
    assert all(c.isprintable() for c in command.data.replace("\n", "") + command.properties["title"])


def record_nasty_run(project: Workspace) -> None:
    """A run in the store in which everything that can be any text is hostile: it came from somewhere."""
    layout = Layout(project.store)
    started = Started(
        run_id="r",
        name=TEXT,
        tag=TEXT,
        dag_hash=TEXT,
        run_config={TEXT: TEXT},
        invocation=Invocation(number=1, command=TEXT, start_time=TEXT, parameters={TEXT: TEXT}),
    )
    with create(layout, started) as recorder:
        log = layout.put_bytes(TEXT.encode(), "")
        code = CodeIdentity(
            code_identifier=project.git("rev-parse", "HEAD"),
            code_identifier_url=TEXT,
            code_identifier_message=TEXT,
            ref=TEXT,
            snapshot_omitted=[TEXT],
            changes={TEXT: (TEXT, "")},
        )
        value = {name: Parameter.of_json(TEXT, "metric") for name in (TEXT, "plain")}
        attempt = StepAttempt(
            message=TEXT,
            reason=TEXT,
            exception=ExceptionInfo(type=TEXT, message=TEXT, traceback=TEXT, file=TEXT),
            code_identities=[code],
            output_parameters=value,
            user_defined_metrics=value,
            log=LogFile(data_hash=log.hex, size=log.size, stdout_bytes=log.size, stderr_bytes=0),
        )
        attempt.end("failed", TEXT)
        entries = [CatalogEntry(name=TEXT, data_hash=log.hex, size=log.size, stage=stage) for stage in ("put", TEXT)]
        recorder.record(
            AttemptSaved(step=TEXT, attempt=attempt, data_catalog=entries),
            AttemptSaved(step="plain", attempt=attempt, data_catalog=entries),
            Decided(step=TEXT, decision=DecisionRecord(action="reuse", reason=TEXT, warning="code_changed")),
            InvocationFinished.of("failed", time=TEXT, message=TEXT),
        )
        recorder.seal(catalog_of(layout, recorder.log))


PIPELINE = f"""
name = {json.dumps(TEXT)}
[parameters]
note = {json.dumps(TEXT)}
[steps.plain]
run = {json.dumps("true #" + TEXT)}
"""
LOOKS = (
    *(("runs",), ("runs", "--json"), ("show", "r"), ("show", "r", "--json")),
    *(("catalog", "r"), ("catalog", "r", "--json"), ("logs", "r", "plain"), ("logs", "r"), ("logs", "r", TEXT)),
    *(
        ("show", TEXT),
        ("logs", "r", f"{TEXT}x"),
        ("catalog", "r", "--get", TEXT[:-1]),
        ("run", TEXT),
        ("run", "-f" + TEXT),
    ),
    *(("rnu" + TEXT,), ("run", "--jobs", TEXT), ("run", "--param", f"{TEXT}=1"), ("check", "nowhere" + TEXT)),
    *(("check",), ("run", "--dry-run"), ("retry", "r", "--dry-run"), ("run", "--run-id", "new")),
    *(("run", "--run-id", TEXT), ("gc", "--older-than", TEXT), ("pull", TEXT), ("publish", "r", "--to", TEXT)),
)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone and a store in which everything that can be any text is hostile."""
    folder = tmp_path_factory.mktemp("console")
    project = workspace(folder, {"runnable.toml": PIPELINE, ".gitignore": ".runnable/\n"})
    record_nasty_run(project)
    return project


def printed(project: Workspace, words: tuple[str, ...], **variables: str) -> tuple[str, str]:
    """stdout and stderr of a command, however it ends."""
    words = tuple(word.replace("\0", "") for word in words)
    with project.start(*words, **variables) as running:
        out, err = running.communicate(timeout=60)
    assert b"Traceback" not in err, err
    return out.decode(), err.decode()


@pytest.mark.parametrize("words", LOOKS, ids=lambda words: re.sub(r"\W+", "-", " ".join(words))[:40])
def test_no_command_lets_text_of_others_take_effect(nasty: Workspace, words: tuple[str, ...]) -> None:
    """Names, parameters, reasons, messages, files, output: neither a terminal nor a runner obeys any of it."""
    if words[0] != "logs":  # to a pipe it is what it was
        out, err = printed(nasty, words)
        assert out + err
        assert_harmless(out + err)
    out, err = printed(nasty, words, GITHUB_ACTIONS="true")
    assert_harmless(out + err)
    assert is_harmless_in_a_job(out)
    assert is_harmless_in_a_job(err)


def test_logs_of_a_hostile_step(nasty: Workspace) -> None:
    """A pipe gets the bytes; a terminal and a job get lines that say the same and do nothing."""
    assert nasty.runnable("logs", "r", "plain").raw == TEXT.encode()
    for shown in (terminal(nasty, "logs", "r", "plain"), terminal(nasty, "logs", "r")):
        assert_harmless(shown.replace("\r\n", "\n"))
        assert ": :error::pwned" in shown
    told = nasty.runnable("logs", "r", "plain", GITHUB_ACTIONS="true").out
    assert ": :error::pwned" in told
    assert "##\\[error]pwned" in told


def test_json_has_the_names_as_they_are(nasty: Workspace) -> None:
    """A script reads exactly what the run log holds."""
    log = json.loads(nasty.runnable("show", "r", "--json", GITHUB_ACTIONS="true").out)
    assert log["name"] == TEXT
    assert set(log["steps"]) == {TEXT, "plain"}
    assert json.loads(nasty.runnable("catalog", "r", "--json", GITHUB_ACTIONS="true").out)[0]["name"] == TEXT


def test_checkout_of_a_hostile_run(nasty: Workspace, tmp_path: Path) -> None:
    """What could not be rebuilt, and the way it differed, are named in a line each."""
    for in_job in ("false", "true"):
        done = nasty.runnable("checkout", "r", str(tmp_path / in_job), code=1, GITHUB_ACTIONS=in_job)
        assert_harmless(done.out + done.err)
        assert in_job == "false" or is_harmless_in_a_job(done.out)
        assert len(done.out.splitlines()) == 1


def test_an_error_in_a_step(tmp_path: Path) -> None:
    """What an error of ours quotes is harmless in the step's output too."""
    steps = """
[steps.a]
run = "true"
catalog = { put = ["no\\u001b[2Jthing*"] }
"""
    project = workspace(tmp_path, {"runnable.toml": steps})
    done = project.runnable("run", code=1)
    assert_harmless(done.out + done.err)
    assert "no?[2Jthing" in done.err
