"""JSON of strangers: memory and disk in proportion to what came; honest logs are read, large ones too."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace
from example_run import events, run_log
from hypothesis import given, settings
from hypothesis import strategies as st
from published_runs import forge, opened, record, sent, store
from pydantic import BaseModel
from registry_server import Served, described, registry
from support import write_old_journal

from runnable_ci.errors import BlobCorruptError, CodeIdentityError, RunLogError, StepError
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.events import LogImported, decode_events, encode_event
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.model import (
    BYTES_PER_FIELD,
    CatalogEntry,
    DecisionRecord,
    Invocation,
    Parameter,
    RunLog,
    StepAttempt,
    StepLog,
)
from runnable_ci.steps import collect
from runnable_ci.steps.base import StepContext
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, manifest_parts
from runnable_ci.util.bounded_json import Allowance, RecordError, indentation, parse_json
from runnable_ci.vcs.checkout.rebuild import rebuild

MEMORY_BYTES = 900 * 1024 * 1024
"""Of address space: what the program itself takes, threads and all, is about half of that."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def many(text: str, number: int, around: str = "[]") -> str:
    """The text that often; each `#` in it counts."""
    return around[0] + ",".join(text.replace("#", f"{i:x}") for i in range(number)) + around[1]


def step(**fields: str) -> str:
    """A step's entry, with these fields as JSON."""
    inner = "".join(f',"{name}":{value}' for name, value in fields.items())
    return f'"load":{{"name":"load","internal_name":"load"{inner}}}'


def log_with(steps: str = "", **fields: str) -> bytes:
    """A run log with these steps, and these fields as JSON."""
    inner = "".join(f',"{name}":{value}' for name, value in fields.items())
    invocation = '{"number":1,"command":"run","start_time":"2026-11-24T03:00:00+00:00"}'
    return f'{{"run_id":"r","invocations":[{invocation}],"steps":{{{steps}}}{inner}}}'.encode()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "attempts": lambda: log_with(step(attempts=many("{}", 1_500_000))),
    "padded attempts": lambda: log_with(step(attempts=many('{"message":"aaaaaaaaaaaa"}', 250_000))),
    "wrong attempts": lambda: log_with(step(attempts=many('{"attempt_number":"x"}', 300_000))),
    "steps": lambda: log_with(many('"#":{"name":"#","internal_name":"#"}', 150_000, "  ")),
    "files": lambda: log_with(step(data_catalog=many('{"name":"a"}', 450_000))),
    "identities": lambda: log_with(step(attempts=f'[{{"code_identities":{many("{}", 2_000_000)}}}]')),
    "environments": lambda: log_with(environments=many('"#":{}', 500_000, "{}")),
    "wrong packages": lambda: log_with(
        environments=f'{{"e":{{"packages":{many(chr(34) + "#" + chr(34) + ":1", 700_000, "{}")}}}}}'
    ),
    "wrong packages in many": lambda: log_with(
        environments=many(f'"#":{{"packages":{many(chr(34) + "#" + chr(34) + ":1", 900, "{}")}}}', 600, "{}")
    ),
    "wrong names": lambda: log_with(step(attempts=f'[{{"defaulted":{many("0", 3_000_000)}}}]')),
    "wrong members": lambda: log_with(
        packs=f'{{"p":{{"size":1,"members":{many(chr(34) + "#" + chr(34) + ":[]", 600_000, "{}")}}}}}'
    ),
    "wrong parameters": lambda: log_with(parameters=many('"#":[]', 600_000, "{}")),
    "decisions": lambda: log_with().replace(
        b'"number"', f'"decisions":{many(chr(34) + "#" + chr(34) + ":" + "{}", 600_000, "{}")},"number"'.encode()
    ),
    "deep and wide": lambda: log_with(
        parameters='{"x":{"kind":"json","value":' + "[" * 150 + many("0", 2_000_000, "  ") + "]" * 150 + "}}"
    ),
    "deep": lambda: log_with(x="[" * 3_000_000 + "]" * 3_000_000),
    "elements": lambda: log_with(x=many("0", 17_000_000)),
}


ALWAYS = {"attempts", "steps", "files", "wrong packages", "deep"}
OTHERS = pytest.mark.long("it writes and reads megabytes; the other kinds hold the rule")


@pytest.mark.promise
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=() if kind in ALWAYS else OTHERS) for kind in HOSTILE])
def test_a_small_log_takes_little_memory_and_no_disk(tmp_path: Path, served: Served, kind: str) -> None:
    """A log of a few megabytes that would become gigabytes is refused by pull and retry, with what is wrong with it."""
    here = store(tmp_path / "here")
    record(here, "load", {"a.txt": b"a"})
    remote = opened(served.repository())
    document = HOSTILE[kind]()
    digest = forge(remote, here, document)
    assert len(document) < 40_000_000
    project = workspace(tmp_path, {"runnable.toml": '[steps.load]\nrun = "true"\n'}, git=False)
    for command in ("pull", "retry"):
        done = bounded(project, command, f"{remote.label}@{digest}")
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("error: "), done.stderr
        assert len(done.stderr) < 2000
    assert sum(path.stat().st_size for path in project.store.rglob("*") if path.is_file()) < 10_000


def bounded(project: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, with so much memory and no more."""
    code = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'runnable_ci', *sys.argv[1:]])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=project.folder,
        env=project.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", ["journal.jsonl", "document"])
def test_a_store_from_elsewhere_is_read_within_bounds(tmp_path: Path, name: str) -> None:
    """A copied store whose journal, or whose log, would become gigabytes: `show`, `runs` and `retry` say what it is."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.load]\nrun = "true"\n'}, git=False)
    project.runnable("run", "--run-id", "r")
    journal = project.store / "runs/r/journal.jsonl"
    hostile = HOSTILE["attempts"]()
    if name == "document":
        log = '{"event":"document","run_log":' + hostile.decode() + "}"
        write_old_journal(project.store, "r", [log])
    else:
        begun = journal.read_text().splitlines()[0]
        line = '{"step":"load","attempt":{"attempt_number":%d},"event":"attempt"}'
        write_old_journal(project.store, "r", [begun, *(line % i for i in range(200_000))])
    for command in (["show", "r"], ["retry", "r"], ["logs", "r"]):
        done = bounded(project, *command)
        assert done.returncode in (1, 2), done.stderr
        assert "more records than its size allows" in done.stderr
    assert "DAMAGED" in bounded(project, "runs").stdout


def fields(value: Any) -> int:
    """How many fields the records of a value have."""
    match value:
        case BaseModel():
            return len(type(value).model_fields) + sum(fields(item) for _, item in value)
        case dict():
            return sum(map(fields, value.values()))
        case list() | tuple():
            return sum(map(fields, value))
        case _:
            return 0


def large(steps: int, attempts: int) -> RunLog:
    """An honest log: so many steps, each tried so often, in as many invocations, from a dirty tree."""

    def tried(number: int) -> StepAttempt:
        return StepAttempt(
            attempt_number=number,
            start_time="2026-11-24T03:00:00.000000+00:00",
            end_time="2026-11-24T03:00:01.000000+00:00",
            status="SUCCESS",
            outcome="succeeded",
            reason="first attempt",
            exit_code=0,
            invocation=number,
            environment="e1",
            definition={"run": "true", "needs": []},
            code_identities=[CodeIdentity(code_identifier="a" * 40, changes={"a.py": ("modified", "b" * 64)})],
            input_parameters={"rate": Parameter.of_json(0.3)},
            output_parameters={"n": Parameter.of_json(1), "pairs": Parameter.of_json([[1, 2], [3, 4], [5, 6]])},
            log=LogFile(data_hash="c" * 64, size=5, stdout_bytes=5, stderr_bytes=0),
            data_catalog=[CatalogEntry(name="a.txt", data_hash="d" * 64, stage="put", size=1)],
        )

    names = [f"s{i}" for i in range(steps)]
    decisions = {name: DecisionRecord(action="run", reason="x") for name in names}
    return RunLog(
        run_id="r",
        invocations=[
            Invocation(
                number=i + 1, command="retry" if i else "run", start_time=f"2026-11-24T03:{i:02}", decisions=decisions
            )
            for i in range(attempts)
        ],
        steps={
            name: StepLog(name=name, internal_name=name, attempts=[tried(i + 1) for i in range(attempts)])
            for name in names
        },
    )


@pytest.mark.parametrize(("steps", "attempts"), [(1, 1), (1, 2000), (2000, 1), (300, 20)])
def test_honest_logs_are_read(steps: int, attempts: int) -> None:
    """Few attempts of many steps, and many of few: read whole as a document and as a journal, with room to spare."""
    log = large(steps, attempts)
    document, line = encode(log), encode_event(LogImported(run_log=log))
    assert decode(document, where="x") == log
    assert decode_events([line], where="x") == log
    assert fields(log) * BYTES_PER_FIELD * 2 < len(document)
    assert indentation(parse_json(document)) < len(document)


@pytest.mark.parametrize("written", ["with line breaks", "in one line", "by an earlier version"])
def test_logs_that_are_written_otherwise_are_read(written: str) -> None:
    """Without indentation, or without the fields that came later, an honest log is read too."""
    document = json.loads(encode(large(50, 20)))
    new = {"outcome", "interrupted", "warning", "identity", "actor"} if written == "by an earlier version" else set()

    def without(value: Any) -> Any:
        match value:
            case dict():
                return {name: without(item) for name, item in value.items() if name not in new}
            case list():
                return [without(item) for item in value]
            case _:
                return value

    text = json.dumps(without(document), indent=1 if written == "with line breaks" else None, separators=(",", ":"))
    assert len(decode(text.encode(), where="x").steps["s3"].attempts) == 20
    assert decode(encode(run_log()), where="x") == run_log()
    assert decode_events([encode_event(event) for event in events()], where="x") == run_log()


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    )
)
def test_indentation_is_what_is_written(value: object) -> None:
    """One space for each level, before each entry: those that close an object or a list are not counted."""
    text = json.dumps(value, indent=1, ensure_ascii=True)
    lines = [line for line in text.split("\n") if line.strip() and line.strip().rstrip(",") not in ("}", "]")]
    assert indentation(value) == sum(len(line) - len(line.lstrip(" ")) for line in lines)


def test_marks_are_counted_before_anything_is_parsed() -> None:
    """As many elements as are allowed are read, one more is not, and depth is bounded as well."""
    assert parse_json(b"[1,2,3]", elements_max=3) == [1, 2, 3]
    for document in (b"[1,2,3,4]", b'{"a":[{}]}', b'"[,[,"', b"[,,,,"):
        with pytest.raises(ValueError, match="more than 2 elements"):
            parse_json(document, elements_max=2)
    with pytest.raises(ValueError, match="recursion limit"):
        parse_json(b"[" * 300 + b"]" * 300)
    allowance = Allowance(fields=5)
    allowance.grow(40, bytes_per_field=10)
    allowance.spend(9)
    with pytest.raises(RecordError):
        allowance.spend(1)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    """The first mistake of a log or a line is told with its record and field."""
    with pytest.raises(
        RunLogError, match="x is not a run log: StepAttempt: attempt_number: Input should be a valid integer"
    ):
        decode(log_with(step(attempts='[{"attempt_number":"one"}]')), where="x")
    with pytest.raises(RunLogError, match=r"line 1: not an event of a run log .Invocation: number: Field required"):
        decode_events(
            [b'{"run_id":"r","name":"","dag_hash":"","run_config":{},"invocation":{},"event":"started"}\n'], where="x"
        )


def test_a_manifest_is_read_within_bounds(tmp_path: Path) -> None:
    """Four megabytes of the smallest elements are no manifest, and are not parsed to find that out."""
    raw = b'{"schemaVersion":2,"config":' + many("{}", 1_300_000).encode() + b',"layers":[]}'
    with pytest.raises(BlobCorruptError, match="more than 300,000 elements"):
        manifest_parts(raw, described(raw, MANIFEST_MEDIA_TYPE), label="x")
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"})
    with pytest.raises(BlobCorruptError, match="is not a manifest"):
        layout.manifest(layout.put_bytes(raw, MANIFEST_MEDIA_TYPE))


def test_an_answer_of_a_step_is_read_within_bounds(tmp_path: Path) -> None:
    """What a python step returned has a number of elements that any reader of the run will take."""
    table = {"steps": {"a": {"python": "m:f", "returns": ["x"]}}}
    python_step = resolve(table, file="f", default_name="n").steps["a"]
    around = StepContext(
        workspace=tmp_path, scratch=tmp_path, environ={}, interpreter="", parameters={}, blob=lambda _: tmp_path
    )
    (tmp_path / "response.json").write_text('{"returns":{"x":{"value":' + many("0", 4_000_001) + "}}}")
    with pytest.raises(StepError, match=r"the result of `m:f` cannot be read .it has more than 4,000,000 elements"):
        collect(python_step, around)


def test_the_state_of_a_difference_is_read_within_bounds(tmp_path: Path) -> None:
    """A difference whose state would become gigabytes is refused."""
    state = (
        b'{"commit":"","ref":"","url":"","digest":"","message":"","changes":{},"omitted":'
        + many('"#":0', 900_000, "{}").encode()
        + b"}"
    )
    with tarfile.open(tmp_path / "snapshot.tar", "w") as tar:
        info = tarfile.TarInfo("state.json")
        info.size = len(state)
        tar.addfile(info, io.BytesIO(state))
    with pytest.raises(CodeIdentityError, match=r"state\.json of the saved changes was not written by runnable-ci"):
        rebuild(
            tmp_path / "snapshot.tar", commit="", sources=[], destination=tmp_path / "out", environ=dict(os.environ)
        )


def test_what_is_stored_is_in_proportion_to_what_came(tmp_path: Path, served: Served) -> None:
    """A pulled run takes about as much as its log; one that would take far more is refused, though it could be read."""
    here = store(tmp_path / "here")
    record(here, "load", {"a.txt": b"a"})
    remote = opened(served.repository())
    sent(here, remote)
    project = workspace(tmp_path, {"x": ""}, git=False)
    project.runnable("pull", f"{remote.label}:r", "--only", "log")
    thin = log_with(step(attempts=many('{"message":"%s"}' % ("a" * 500), 20_000)))
    digest = forge(remote, here, thin)
    other = elsewhere_without_git(project, tmp_path)
    refused = other.runnable("pull", f"{remote.label}@{digest}", "--only", "log", code=1)
    assert "would need more than twice the space of the download" in refused.err
    assert not (other.store / "runs").exists()
    full = large(20, 20).model_copy(update={"invocations": decode(thin, where="x").invocations})
    digest = forge(remote, here, encode(full))
    other.runnable("pull", f"{remote.label}@{digest}", "--only", "log")
    size = sum(path.stat().st_size for path in other.store.rglob("*") if path.is_file())
    assert size < 2 * len(encode(full)) + 10_000


def elsewhere_without_git(project: Workspace, tmp_path: Path) -> Workspace:
    """Another folder of the same user."""
    (tmp_path / "other").mkdir()
    return Workspace(tmp_path / "other", project.environ)
