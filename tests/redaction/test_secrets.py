"""Tests that no secret reaches a store or a terminal, by the real program: it fails, is killed, is resumed."""

from __future__ import annotations

import base64
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli import Done, Workspace, workspace
from support import wait_until

from runnable_ci.runs.code_states import states
from runnable_ci.runs.model import FAIL, SUCCESS

KEY = "k3y-of-mine/0123+abc"
NAMED = "some plain words"
TOKEN = "ghp_" + "0aB" * 12
ENVIRONMENT: dict[str, Any] = {"MY_API_KEY": KEY, "PLAIN": NAMED, "GITHUB_TOKEN": "ghs_" + "x1Y" * 12}
SECRETS = [KEY, NAMED, TOKEN, ENVIRONMENT["GITHUB_TOKEN"]]

PIPELINE = """
name = "secrets"
secrets = ["PLAIN"]
env = { SERVICE = "https://me:k3y-of-mine/0123+abc@example.org" }

[parameters]
note = "nothing"

[steps.show]
run = '''
printf 'key %s, words %s\\n' "$MY_API_KEY" "$PLAIN"
printf 'header %s\\n' "$(printf 'x-access-token:%s' "$GITHUB_TOKEN" | base64 -w0)" >&2
printf 'slowly '
for part in ghp_0aB0aB 0aB0aB0aB0aB 0aB0aB0aB0aB 0aB0aB; do printf %s "$part"; sleep 0.05; done
echo .
echo "token=$PLAIN" >> "$RUNNABLE_OUTPUT"
echo "note was $note"
'''
returns = ["token"]

[steps.call]
python = "calls:call"

[steps.put]
run = "echo done > result.txt"
catalog = { put = ["result.txt"] }
"""
CALLS = """
import os

def call(token, note):
    print("got", token, note)
    if os.environ.get("FAIL"):
        raise ValueError(f"cannot log in with {os.environ['MY_API_KEY']} and {token}")
"""


def assert_clean(at: Workspace, *done: Done, secrets: list[str] = SECRETS) -> None:
    """No secret is in the store, nor in base64, nor in what was printed."""
    forms = [form for secret in secrets for form in (secret.encode(), base64.b64encode(secret.encode())[:-4])]
    files = [path for path in at.store.rglob("*") if path.is_file()]
    assert files
    for form in forms:
        assert [str(path) for path in files if form in path.read_bytes()] == []
        for program in done:
            assert form.decode() not in program.out + program.err


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline that knows secrets, and tells them."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE, "calls.py": CALLS, ".gitignore": "__pycache__\n"})


def test_a_run_that_succeeds(project: Workspace) -> None:
    """Output, parameters, definitions and descriptions have a mask where a secret was; the steps have the secret."""
    done = project.runnable("run", "--run-id", "r", "--param", f"note={TOKEN}", **ENVIRONMENT)
    assert_clean(project, done)
    assert done.out.splitlines() == [
        "show | key ***, words ***",
        "show | slowly ***.",
        "show | note was ***",
        "call | got *** ***",
    ]
    assert "show | header eC1hY2Nlc3MtdG9rZW46***" in done.err
    log = project.log("r")
    assert log.status == SUCCESS
    (shown,), (called,) = log.steps["show"].attempts, log.steps["call"].attempts
    assert (shown.output_parameters["token"].value, shown.output_parameters["token"].redacted) == ("***", True)
    assert {name: p.value for name, p in called.input_parameters.items()} == {"token": "***", "note": "***"}
    assert log.parameters["note"].redacted
    assert log.invocations[0].redacted == ["note"]
    assert shown.definition["env"] == {"SERVICE": "https://me:***@example.org"}
    assert shown.log is not None
    assert shown.log.stdout_bytes == len("key ***, words ***\nslowly ***.\nnote was ***\n")
    assert_clean(project, project.runnable("show", "r"), project.runnable("logs", "r"))


@pytest.mark.promise
def test_a_run_that_fails_and_is_resumed(project: Workspace) -> None:
    """Message, traceback and reasons are clean; a retry wants the secrets again, never runs with masks."""
    failed = project.runnable("run", "--run-id", "r", code=1, **ENVIRONMENT, FAIL="1", RUNNABLE_PRM_note=TOKEN)
    assert_clean(project, failed)
    (attempt,) = project.log("r").steps["call"].attempts
    assert attempt.message == "ValueError: cannot log in with *** and *** (calls.py:7)"
    assert attempt.exception is not None
    assert "*** and ***" in attempt.exception.traceback

    without = project.runnable("retry", "r", code=2, **ENVIRONMENT)
    assert "error: parameter note is a secret: its value is not in the run log\n" in without.err
    assert "hint: specify it again: --param note=…, or RUNNABLE_PRM_note in the environment" in without.err
    lost = project.runnable("retry", "r", code=2, **ENVIRONMENT, RUNNABLE_PRM_note=TOKEN)
    assert "step `call` takes `token`, which `show` returned: it is a secret" in lost.err
    assert "hint: --from show re-runs that step" in lost.err
    assert len(project.log("r").invocations) == 1

    again = project.runnable("retry", "r", "--from", "show", "--param", f"note={TOKEN}", **ENVIRONMENT)
    assert "call | got *** ***" in again.out
    assert_clean(project, without, lost, again)
    log = project.log("r")
    assert [a.status for a in log.steps["call"].attempts] == [FAIL, SUCCESS]
    assert log.steps["call"].attempts[1].input_parameters["note"].redacted
    last = project.runnable("retry", "r", "--param", "note=other than that", **ENVIRONMENT, code=0)
    assert_clean(project, last)


def test_what_was_redacted_counts_as_unchanged(tmp_path: Path) -> None:
    """A secret that is given again, the same or another, does not run what is done a second time."""
    at = workspace(
        tmp_path,
        {
            "runnable.toml": '[parameters]\napi_key = ""\n'
            '[steps.one]\nrun = "echo $api_key"\n[steps.two]\nneeds = ["one"]\nrun = "test -e fixed"\n'
        },
    )
    at.runnable("run", "--run-id", "r", "-p", "api_key=first-0123456", code=1)
    at.write({"fixed": ""})
    done = at.runnable("retry", "r", RUNNABLE_PRM_api_key="second-0123456")
    assert "one | reuse: " in done.err
    assert_clean(at, done, secrets=["first-0123456", "second-0123456"])


def test_a_run_that_is_killed(project: Workspace) -> None:
    """What a killed process leaves is clean at once, and the run can be resumed."""
    project.write(
        {
            "calls.py": "import os, sys, time\n\ndef call(token, note):\n"
            "    sys.stdout.write(os.environ['MY_API_KEY'][:9] + 'x' + os.environ['MY_API_KEY'] + '\\n')\n"
            "    sys.stdout.write(os.environ['MY_API_KEY'][:9])\n    sys.stdout.flush()\n"
            "    open('started', 'w').close()\n    time.sleep(60)\n"
        }
    )
    with project.start("run", "--run-id", "r", "-p", f"note={TOKEN}", **ENVIRONMENT) as process:
        wait_until((project.folder / "started").exists, "the step")
        wait_until(
            lambda: b"k3y-of-mix***" in b"".join(p.read_bytes() for p in project.store.glob("runs/r/logs/call*")),
            "output",
        )
        process.send_signal(signal.SIGKILL)
    assert_clean(project)
    project.write({"calls.py": CALLS})
    done = project.runnable("retry", "r", "--from", "show", "-p", f"note={TOKEN}", **ENVIRONMENT)
    assert_clean(project, done)
    assert project.log("r").status == SUCCESS


def test_the_difference_from_the_commit(project: Workspace) -> None:
    """A changed or untracked file with a secret is not stored, and it is said why; the other changes are."""
    project.write({"tracked.txt": "a\n", "other.txt": "a\n", "binary.bin": "\0"})
    project.commit()
    project.write(
        {
            "tracked.txt": f"a\n{KEY}\n",
            "other.txt": "a\nb\n",
            ".env": f"TOKEN={TOKEN}\n",
            "new.txt": "new\n",
            "binary.bin": f"\0{KEY}",
        }
    )
    (project.folder / "link").symlink_to(f"/{KEY}")
    done = project.runnable("run", "--run-id", "r", **ENVIRONMENT)
    assert_clean(project, done)
    (code,) = states(project.log("r"))
    names = (".env", "binary.bin", "link", "tracked.txt")
    why = {".env": "a credential file by its name"}
    assert code.omitted == {name: why.get(name, "holds a secret") for name in names}
    rebuilt = project.runnable("checkout", "r", "copy", code=1)
    assert "note: not rebuilt: .env: a credential file by its name\n" in rebuilt.err
    assert "note: not rebuilt: tracked.txt: holds a secret\n" in rebuilt.err
    assert project.read("copy/other.txt") == "a\nb\n"
    assert project.read("copy/new.txt") == "new\n"
    assert project.read("copy/tracked.txt") == "a\n"


def test_named_by_a_setting(tmp_path: Path) -> None:
    """`RUNNABLE_CI_SECRETS` names variables, by commas or line breaks; the password of the registry is one anyway."""
    at = workspace(tmp_path, {"runnable.toml": '[steps.one]\nrun = "echo $ONE, $TWO; echo hunter22"\n'})
    done = at.runnable(
        "run",
        ONE="word",
        TWO="other",
        RUNNABLE_CI_SECRETS="ONE,\nTWO",
        RUNNABLE_CI_REGISTRY_PASSWORD="hunter22",
    )
    assert done.out == "one | ***, ***\none | ***\n"


def test_errors(project: Workspace) -> None:
    """What the program itself says against an argument has no secret in it."""
    project.runnable("run", **ENVIRONMENT)
    assert "error: --param ***: expected name=value" in project.runnable("run", "-p", TOKEN, code=2).err
    for arguments in (
        ["run", "--param", TOKEN],
        ["run", "--params-file", f"/{KEY}"],
        ["retry", TOKEN],
        ["show", KEY],
        ["run", f"{TOKEN}.toml"],
    ):
        done = project.runnable(*arguments, code=2, **ENVIRONMENT)
        assert KEY not in done.err
        assert TOKEN not in done.err


def test_a_value_in_place_of_a_name(tmp_path: Path) -> None:
    """A secret that somebody writes where its variable's name belongs is refused, and not shown."""
    at = workspace(tmp_path, {"runnable.toml": f'secrets = ["{KEY}"]\n[steps.one]\nrun = "true"\n'})
    done = at.runnable("check", code=2)
    assert "secrets: an entry is not the name of an environment variable" in done.err
    assert KEY not in done.err


@pytest.mark.parametrize(
    ("entry", "right"),
    [("$DB_CONN", '"DB_CONN"'), ("${{ secrets.DB_CONN }}", '"DB_CONN"'), ("DB_CONN;MY_KEY", '"DB_CONN", "MY_KEY"')],
)
def test_a_name_with_more_than_a_name(tmp_path: Path, entry: str, right: str) -> None:
    """What is written around a name, as an expression has it, is taken off in the hint."""
    at = workspace(tmp_path, {"runnable.toml": f'secrets = ["{entry}"]\n[steps.one]\nrun = "true"\n'})
    assert f"secrets = [{right}]" in at.runnable("check", code=2).err


@pytest.mark.parametrize("command", [["run"], ["run", "--dry-run"], ["retry", "r"]])
def test_a_name_that_no_variable_has(tmp_path: Path, command: list[str]) -> None:
    """It would protect nothing: nothing runs, and the name that is near is offered. A parameter is a variable too."""
    at = workspace(tmp_path, {"runnable.toml": '[steps.one]\nrun = "touch ran; echo $DB_CONN $pin; false"\n'})
    at.runnable("run", "--run-id", "r", code=1)
    (at.folder / "ran").unlink()
    at.write({"runnable.toml": 'secrets = ["DB_CONN"]\n' + at.read("runnable.toml")})
    missing_parameters = at.runnable(*command, code=2)
    assert (
        "error: runnable.toml: secrets: there is no variable `DB_CONN`\nhint: set the variable"
        in missing_parameters.err
    )
    near = at.runnable(*command, code=2, DB_CON="hunter2-hunter2")
    assert "hint: did you mean `DB_CON`?" in near.err
    named = at.runnable(*command, code=2, DB_CONN="x", RUNNABLE_CI_SECRETS="DB_CONN dB_cONNS")
    assert "error: RUNNABLE_CI_SECRETS (the action's input secrets): entry 2 names no variable" in named.err
    assert not (at.folder / "ran").exists()
    at.runnable(*command, code=0 if "--dry-run" in command else 1, DB_CONN="")


def test_a_parameter_that_is_no_text(tmp_path: Path) -> None:
    """A number or a table that is named as a secret is one, like a text."""
    at = workspace(
        tmp_path,
        {
            "runnable.toml": 'secrets = ["pin", "login"]\n[parameters]\npin = 48151623\n'
            'login = { name = "al", word = "w0rd-1" }\n'
            "[steps.one]\nrun = 'echo $pin $login'\n"
        },
    )
    assert at.runnable("run", "--run-id", "r").out == 'one | *** {"name": "al", "word": "***"}\n'
    assert_clean(at, secrets=["48151623", "w0rd-1"])


def test_the_journal_and_the_document_agree(project: Workspace) -> None:
    """What is shown while a run lives, from its journal, is what is sealed in the end."""
    project.runnable("run", "--run-id", "r", "-p", f"note={TOKEN}", **ENVIRONMENT)
    sealed = json.loads(project.runnable("show", "r", "--json").raw)
    (journal,) = project.store.glob("runs/r/journal.jsonl")
    assert b'"redacted":["note"]' in journal.read_bytes()
    assert sealed["parameters"]["note"] == {**sealed["parameters"]["note"], "value": "***", "redacted": True}
