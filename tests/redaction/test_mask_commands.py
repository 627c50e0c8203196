"""Tests that a value which a step asks to be masked reaches no store, terminal or job log, by the real program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from actions_runner import Runner
from cli import Done, Workspace, workspace
from support import WAIT_S

from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.model import SUCCESS

VALUE = "dyn-7f3a9c21-SECRETX"
MAKE = "T=$(printf 'dyn-%s-SECRETX' 7f3a9c21)\n"
"""A secret that only the step itself knows."""


def pipeline(tmp_path: Path, text: str, **files: str) -> Workspace:
    """A folder with a pipeline file."""
    return workspace(tmp_path, {"runnable.toml": text, ".gitignore": "*.flag\n__pycache__\n", **files})


def toml(step: Mapping[str, object]) -> str:
    """A step's keys as TOML, which takes JSON's values."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in step.items())


def assert_clean(at: Workspace, *done: Done, value: str = VALUE) -> None:
    """The value is in no file of the store, and in nothing that was printed."""
    files = [path for path in at.store.rglob("*") if path.is_file()]
    assert files
    assert [str(path) for path in files if value.encode() in path.read_bytes()] == []
    for program in done:
        shown = "".join(line for line in program.out.splitlines() if not line.startswith("::add-mask::"))
        assert value not in shown + program.err


LOGIN = f"""
[steps.login]
run = '''
{MAKE}echo "::add-mask::$T"; echo "logged in with $T"
echo "tok=$T" >> $RUNNABLE_OUTPUT
'''
returns = ["tok"]

[steps.use]
run = 'echo using $tok >&2; test -e fixed.flag'
"""


def test_a_masked_value_is_a_secret(tmp_path: Path) -> None:
    """The command is not shown; what follows has a mask, in all steps; a retry needs it returned again."""
    at = pipeline(tmp_path, LOGIN)
    done = at.runnable("run", "--run-id", "r", code=1)
    assert done.out == "login | logged in with ***\n"
    assert "use   | using ***\n" in done.err
    assert_clean(at, done, at.runnable("show", "r"), at.runnable("logs", "r"))
    assert at.log("r").steps["login"].attempts[0].output_parameters["tok"].redacted

    at.write({"fixed.flag": ""})
    lost = at.runnable("retry", "r", code=2)
    assert "step `use` takes `tok`, which `login` returned: it is a secret" in lost.err
    again = at.runnable("retry", "r", "--from", "login")
    assert again.out == "login | logged in with ***\n"
    assert_clean(at, lost, again)
    assert at.log("r").status == SUCCESS


SCRIPTS = {
    "stderr": 'echo "::add-mask::$T" >&2; echo "$T"; echo "$T" >&2',
    "legacy": 'echo "at 12:00 ##[add-mask]$T"; echo "$T"',
    "carriage returns": r"printf '50%%\r  ::add-mask::%s\r\n%s\r\n' $T $T",
    "in pieces": "printf ::add-m; sleep 0.05; printf ask::%s $T; sleep 0.05; echo; echo $T",
    "a file": 'printf %s "$T" > $RUNNABLE_MASK; echo "$T"; echo "x=$T" >> $RUNNABLE_OUTPUT',
    "a block": r"printf '<<X\n{\n%s\nX\n' $T >> $RUNNABLE_MASK; echo $T; echo $T >&2",
    "late": 'echo "$T"; echo "::add-mask::$T"',
    "late and without a line end": 'echo "$T" >&2; printf ::add-mask::%s "$T"',
}
WAYS = {
    **{way: {"run": MAKE + script} for way, script in SCRIPTS.items()},
    "python": {"python": "work:mask"},
    "a file in python": {"python": "work:write"},
    "an exception": {"python": "work:fail"},
}
WORK = """
import os

T = "-".join(("dyn", "7f3a9c21", "SECRETX"))

def mask():
    print("before")
    print(f"::add-mask::{T}")
    print(T)

def write():
    with open(os.environ["RUNNABLE_MASK"], "a") as file:
        file.write(f"{T}\\n")
    print(T)

def fail():
    print(f"::add-mask::{T}")
    raise ValueError(f"no {T}")
"""


@pytest.mark.parametrize("way", WAYS)
def test_ways_to_mask(tmp_path: Path, way: str) -> None:
    """On either stream, in pieces, by a file: no step of any kind shows what it masks, once it is masked."""
    at = pipeline(tmp_path, f"[steps.one]\n{toml(WAYS[way])}", **{"work.py": WORK})
    done = at.runnable("run", "--run-id", "r", code=int(way == "an exception"))
    assert "add-mask" not in done.out + done.err
    assert "***" in at.runnable("logs", "r", "one").out + at.runnable("logs", "r", "one").err
    assert_clean(at, *([] if way.startswith("late") else [done]))


def test_a_value_on_the_other_stream(tmp_path: Path) -> None:
    """What a step prints after its command is masked, also on the stream that the command is not on."""
    script = """
import os
for i in range(300):
    value, one, other = f"dyn-{i:03}-SECRETX", 1 + i % 2, 2 - i % 2
    os.write(other, b"%d\\n" % i)
    os.write(one, f"::add-mask::{value}\\n".encode())
    os.write(other, f"{value}\\n".encode())
"""
    at = pipeline(tmp_path, '[steps.one]\nrun = "python crossing.py"\n', **{"crossing.py": script})
    done = at.runnable("run")
    assert (done.out + done.err).count("***") == 300
    assert_clean(at, done, value="SECRETX")


def test_what_was_kept_before_is_cleaned(tmp_path: Path) -> None:
    """Of the attempt itself, with its two streams; of an earlier step; of parameters, definitions and the journal."""
    at = pipeline(
        tmp_path,
        """
[parameters]
word = "nothing"

[steps.early]
run = '''echo "early $word"; echo "got=$word" >> $RUNNABLE_OUTPUT'''
returns = ["got"]

[steps.mask]
run = '''
echo "out ${word%SECRETX}, $word"; echo "err $word" >&2; sleep 0.05; echo "::add-mask::$word"
echo after >&2; test -e fixed.flag
'''
""",
    )
    done = at.runnable("run", "--run-id", "r", "--param", f"word={VALUE}", code=1)
    assert_clean(at)
    assert at.runnable("logs", "r", "early").out == "early ***\n"
    assert at.runnable("logs", "r", "mask").out == "out dyn-7f3a9c21-, ***\nerr ***\nafter\n"
    log = at.log("r")
    kept = log.steps["mask"].attempts[0].log
    assert kept is not None
    assert (kept.stdout_bytes, kept.stderr_bytes) == (len("out dyn-7f3a9c21-, ***\n"), len("err ***\nafter\n"))
    assert log.invocations[0].redacted == ["word"]
    assert log.steps["early"].attempts[0].output_parameters["got"].redacted
    assert "early dyn" in done.out
    again = at.runnable("retry", "r", code=2)
    assert "parameter word is a secret" in again.err


def test_the_difference_from_the_commit(tmp_path: Path) -> None:
    """Stored before a step begins, it is stored anew without a file that has a value which the step masks."""
    at = pipeline(
        tmp_path,
        """
[steps.one]
run = 'echo "::add-mask::$(cat word.txt)"'
[steps.two]
run = "touch more.txt; test -e fixed.flag"
""",
    )
    at.write({"word.txt": VALUE, "other.txt": "other", "runnable.toml": at.read("runnable.toml") + f"# {VALUE}\n"})
    done = at.runnable("run", "--run-id", "r", code=1)
    log = at.log("r")
    state = code_state_of(log, log.steps["one"].attempts[0])
    assert state
    assert state.omitted == {"runnable.toml": "holds a secret", "word.txt": "holds a secret"}
    at.runnable("gc", "--keep", "1")
    assert_clean(at, done)
    at.runnable("checkout", "r", "copy", code=1)
    assert at.read("copy/other.txt") == "other"


def test_steps_side_by_side(tmp_path: Path) -> None:
    """A value is known to all steps at once, also where its own step has only written it into its file."""
    at = pipeline(
        tmp_path,
        f"""
[steps.one]
needs = []
run = '''
{MAKE}until test -e ready.flag; do sleep 0.01; done
echo "$T" >> $RUNNABLE_MASK; touch masked.flag
until test -e over.flag; do sleep 0.01; done
'''
[steps.two]
needs = []
run = '''
{MAKE}echo "two begins with $T"; touch ready.flag
until test -e masked.flag; do sleep 0.01; done
echo "two says $T"; touch over.flag
'''
""",
    )
    done = at.runnable("run", "--run-id", "r", "--jobs", "2")
    assert "two | two says ***\n" in done.out
    assert_clean(at)


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_the_runner_gets_the_mask(tmp_path: Path, quiet: list[str]) -> None:
    """In a job, where commands are stopped while a step writes; of several lines each that is long enough."""
    at = pipeline(
        tmp_path,
        f"""
[steps.one]
run = '''
{MAKE}echo shown
printf '::add-mask::{{%%0A"key": "%s",%%0A--%%0A}}\\n' "$T"
printf '"key": "%s",\\n' "$T"
echo "::set-output name=a::b"
'''
""",
    )
    done = at.runnable("run", *quiet, GITHUB_ACTIONS="true")
    runner = Runner().read(done.raw)
    masks = [command.data for command in runner.of("add-mask")]
    assert f'"key": "{VALUE}",' in masks
    assert not {"{", "}", "--"}.intersection(masks)
    assert runner.of("set-output") == []
    assert runner.stop_token == ""
    assert_clean(at, done)
    assert quiet or [title for title, _ in runner.groups()] == ["one"]


def test_what_is_too_short_is_said(tmp_path: Path) -> None:
    """A value that would leave nothing of a log stays, is not shown as a command, and a note says so; empty is fine."""
    at = pipeline(
        tmp_path, "[steps.one]\nrun = \"for v in a ab {{ }} '***' '' ' '; do echo ::add-mask::$v; done; echo cab\"\n"
    )
    done = at.runnable("run", GITHUB_ACTIONS="true")
    assert Runner().read(done.raw).of("add-mask") == []
    assert done.out.count("note: a mask is ignored: it is too short") == 1
    assert "one | cab\n" in done.out
    at.write({"runnable.toml": '[steps.one]\nrun = "echo ::add-mask::$NOT_SET"\n'})
    assert "note" not in at.runnable("run").err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("rm $RUNNABLE_MASK; ln -s /etc/hostname $RUNNABLE_MASK; echo a", "$RUNNABLE_MASK cannot be read"),
        ("rm $RUNNABLE_MASK; mkfifo $RUNNABLE_MASK", "$RUNNABLE_MASK is no longer a file"),
        ("head -c 1100000 /dev/zero | tr '\\0' x > $RUNNABLE_MASK; echo a; sleep 60", "holds more than 1 MiB"),
        ("printf ::add-mask::; head -c 1100000 /dev/zero | tr '\\0' x; sleep 60", "has more than 1 MiB"),
    ],
)
def test_masks_that_cannot_be(tmp_path: Path, command: str, message: str) -> None:
    """What cannot be masked fails its step at once, and nothing of it is shown; the other steps go on."""
    steps: dict[str, dict[str, object]] = {"one": {"run": command}, "two": {"needs": [], "run": "echo two"}}
    at = pipeline(tmp_path, "".join(f"[steps.{name}]\n{toml(step)}" for name, step in steps.items()))
    done = at.runnable("run", "--run-id", "r", code=1)
    assert message in done.err
    assert "xxxxxxxx" not in done.out + done.err
    assert message in at.log("r").steps["one"].attempts[0].message
    assert at.log("r").steps["two"].status == SUCCESS


def test_a_run_whose_output_nobody_reads(tmp_path: Path) -> None:
    """Also where nobody reads its output any more, what it has recorded is cleaned."""
    at = pipeline(
        tmp_path,
        """
[parameters]
word = "nothing"
[steps.one]
run = '''
echo "$word"; until test -e closed.flag; do sleep 0.01; done
echo "::add-mask::$word"; for i in $(seq 1000); do echo "$i $word"; sleep 0.01; done
'''
""",
    )
    with at.start("run", "--run-id", "r", "--param", f"word={VALUE}") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"one | {VALUE}\n".encode()
        process.stdout.close()
        (at.folder / "closed.flag").touch()
        assert process.wait(WAIT_S) == 0
    assert_clean(at)


def test_a_return_that_is_named_as_a_secret(tmp_path: Path) -> None:
    """A name in `secrets` may be that of what a step returns: its value is one from then on."""
    at = pipeline(
        tmp_path,
        f"""secrets = ["tok"]
[steps.login]
run = '''{MAKE}echo "tok=$T" >> $RUNNABLE_OUTPUT'''
returns = ["tok"]
[steps.use]
run = "echo using $tok"
""",
    )
    done = at.runnable("run", "--run-id", "r")
    assert done.out == "use   | using ***\n"
    assert_clean(at, done)
