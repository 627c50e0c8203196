"""The one writer of a run: its journal is readable up to the last whole line, whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import blobs, leftovers, python, sha256, wait_until, write_old_journal

from runnable_ci.errors import RunExistsError, RunInUseError, RunLogError, StoreError, UsageError
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.document import decode
from runnable_ci.runs.events import AttemptSaved, InvocationFinished, Started
from runnable_ci.runs.model import FAIL, PROCESSING, SUCCESS, CatalogEntry, Invocation, RunLog, StepAttempt
from runnable_ci.runs.orphans import record_pid
from runnable_ci.runs.paths import JOURNAL, is_running, run_folder
from runnable_ci.runs.reader import load, output_of, run_ids
from runnable_ci.runs.recorder import create, reopen
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now
from runnable_ci.util.process import start_time

RUN_ID = "run-1"
OUTCOMES = {SUCCESS: "succeeded", FAIL: "failed", PROCESSING: ""}
WRITER = """
import os, sys, time
from pathlib import Path
from runnable_ci.runs.recorder import create
from runnable_ci.runs.orphans import record_pid
from runnable_ci.runs.events import AttemptSaved, Started
from runnable_ci.runs.model import Invocation, StepAttempt
from runnable_ci.runs.output import AttemptOutput
from runnable_ci.store.local import Layout
invocation = Invocation(number=1, command="run", start_time="2026-01-01T00:00:00+00:00")
started = Started(run_id="run-1", name="p", dag_hash="d", run_config={}, invocation=invocation)
with create(Layout(Path(sys.argv[1])), started) as recorder:
    recorder.record(AttemptSaved(step="done", attempt=StepAttempt(status="SUCCESS")))
    recorder.record(AttemptSaved(step="flying", attempt=StepAttempt()))
    output = AttemptOutput(recorder.outputs, "flying.1")
    output.write("e", b"half a ")
    (recorder.scratch / "flying.1").mkdir(parents=True)
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A store that was not made yet."""
    return Layout(tmp_path / ".runnable")


def started(run_id: str = RUN_ID) -> Started:
    invocation = Invocation(number=1, command="run", start_time=now())
    return Started(run_id=run_id, name="p", dag_hash="d", run_config={}, invocation=invocation)


def attempt(step: str, status: str = SUCCESS, number: int = 1) -> AttemptSaved:
    return AttemptSaved(step=step, attempt=StepAttempt(status=status, outcome=OUTCOMES[status], attempt_number=number))


def ended(status: str = SUCCESS) -> InvocationFinished:
    return InvocationFinished(time=now(), status=status, outcome=OUTCOMES[status])


def with_link(step: str) -> AttemptSaved:
    entry = CatalogEntry(name="l", kind="link", target="x", data_hash=sha256(b"x"), size=1, stage="put")
    return AttemptSaved(step=step, attempt=StepAttempt(status=SUCCESS, outcome="succeeded"), data_catalog=[entry])


def journal(layout: Layout) -> Path:
    return run_folder(layout, RUN_ID) / JOURNAL


def catalog_of(layout: Layout) -> Catalog:
    return Catalog(layout, layout.folder.parent, run_folder(layout, RUN_ID))


def killed_run(layout: Layout) -> None:
    """A run whose process was killed with one attempt in flight."""
    process = writer(layout)
    process.kill()
    process.wait()


def writer(layout: Layout) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(layout.folder)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    return process


def test_each_event_is_on_disk_when_it_was_recorded(layout: Layout) -> None:
    """Another reader sees each step as soon as `record` came back."""
    with create(layout, started()) as recorder:
        assert load(layout, RUN_ID).status == PROCESSING
        recorder.record(attempt("a", PROCESSING))
        assert load(layout, RUN_ID).steps["a"].status == PROCESSING
        recorder.record(attempt("a"), attempt("b"))
        assert load(layout, RUN_ID).steps.keys() == {"a", "b"}
        recorder.record(ended())
        assert load(layout, RUN_ID) == recorder.log
    assert [json.loads(line)["event"] for line in journal(layout).read_text().splitlines()] == [
        *("started", "attempt", "attempt", "attempt", "ended")
    ]


def test_saving_costs_the_same_however_long_the_run_is(layout: Layout) -> None:
    """A line is appended; what was written is not written again."""
    with create(layout, started()) as recorder:
        sizes = []
        for i in range(300):
            before = journal(layout).stat()
            recorder.record(attempt(f"step-{i:04}"))
            after = journal(layout).stat()
            assert after.st_ino == before.st_ino
            sizes.append(after.st_size - before.st_size)
    assert len(set(sizes)) == 1


def test_a_run_id_is_used_once(layout: Layout) -> None:
    """A second run of the same id is refused, be the first one running, over, or only a sealed artifact."""
    with create(layout, started()) as recorder:
        with pytest.raises(RunExistsError, match="already a run `run-1`") as caught, create(layout, started()):
            pass
        assert caught.value.exit_code == 2
        recorder.record(ended())
        recorder.seal(catalog_of(layout))
    with pytest.raises(UsageError), create(layout, started()):
        pass
    before = load(layout, RUN_ID)
    for path in run_folder(layout, RUN_ID).iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    run_folder(layout, RUN_ID).rmdir()
    with pytest.raises(UsageError), create(layout, started()):
        pass
    assert load(layout, RUN_ID) == before


def test_two_processes_that_create_one_run_make_one(layout: Layout) -> None:
    """Of many that try at once, one has the run and all others are told so."""
    code = (
        "import sys; from pathlib import Path\n"
        "from runnable_ci.errors import UsageError; from runnable_ci.runs.recorder import create\n"
        "from runnable_ci.runs.events import Started; from runnable_ci.runs.model import Invocation\n"
        "from runnable_ci.store.local import Layout\n"
        "invocation = Invocation(number=1, command='run', start_time='2026-01-01T00:00:00+00:00')\n"
        "event = Started(run_id='run-1', name='p', dag_hash='d', run_config={}, invocation=invocation)\n"
        "sys.stdin.read()\n"
        "try:\n"
        "    with create(Layout(Path(sys.argv[1])), event): print('made')\n"
        "except UsageError: print('refused')"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(layout.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.close()
        process.stdin = None
    said = sorted(process.communicate(timeout=60)[0] for process in processes)
    assert said == [b"made\n", b"refused\n", b"refused\n", b"refused\n"]
    assert load(layout, RUN_ID).status == FAIL


def test_a_log_that_was_read_too_early(layout: Layout) -> None:
    """What was made of a log that another process has written on since is not used: the run is refused, once."""
    with create(layout, started()) as recorder:
        recorder.record(ended())
    read = load(layout, RUN_ID)
    with reopen(layout, read) as recorder:
        event = started()
        event.invocation.number = 2
        recorder.record(event, ended())
    with pytest.raises(RunInUseError, match="`run-1` was written by another process just now"), reopen(layout, read):
        pass
    with reopen(layout, load(layout, RUN_ID)) as recorder:
        assert recorder.log.invocation == 2


def test_a_reopened_run_is_redacted(layout: Layout) -> None:
    """A run that is opened again gets nothing that its redactor knows, from the first line on."""
    with create(layout, started()) as recorder:
        recorder.record(ended(FAIL))
    with reopen(layout, load(layout, RUN_ID), Redactor(["hunter2-hunter2"])) as recorder:
        recorder.record(AttemptSaved(step="a", attempt=StepAttempt(message="it says hunter2-hunter2")))
    assert b"hunter2" not in journal(layout).read_bytes()


def test_a_run_has_one_writer(layout: Layout) -> None:
    """While a process writes a run, another one is told so; once that was killed, it can go on."""
    process = writer(layout)
    assert is_running(layout, RUN_ID)
    log = load(layout, RUN_ID)
    assert log.status == PROCESSING
    with pytest.raises(RunInUseError, match="`run-1` is in use"), reopen(layout, log):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_running(layout, RUN_ID)
    with reopen(layout, log) as recorder:
        assert recorder.log.status == FAIL
        assert is_running(layout, RUN_ID)
    assert not is_running(layout, RUN_ID)


def test_two_runs_in_one_store_are_written_at_once(layout: Layout) -> None:
    """A run does not wait for another one."""
    with create(layout, started("one")) as one, create(layout, started("two")) as two:
        one.record(attempt("a"))
        two.record(attempt("b"))
    assert set(load(layout, "one").steps) == {"a"}
    assert set(load(layout, "two").steps) == {"b"}


def test_a_killed_attempt_is_a_failure_that_is_written_down(layout: Layout) -> None:
    """Reading shows it at once; reopening makes it lasting, with the output that the attempt left."""
    killed_run(layout)
    seen = load(layout, RUN_ID)
    assert seen.status == FAIL
    assert seen.steps["flying"].attempts[-1].message.startswith("interrupted")
    assert seen.steps["done"].status == SUCCESS
    with reopen(layout, seen) as recorder:
        flying = recorder.log.steps["flying"].attempts[-1]
        assert (flying.status, recorder.log.status) == (FAIL, FAIL)
        assert flying.end_time
        assert flying.log is not None
        assert flying.log.stderr_bytes == 7
        assert list(output_of(layout, recorder.log, "flying.1", flying)) == [("e", b"half a ")]
        assert not (recorder.scratch / "flying.1").exists()
    lines = journal(layout).read_bytes()
    with reopen(layout, load(layout, RUN_ID)):
        pass
    assert journal(layout).read_bytes() == lines


@pytest.mark.parametrize("torn", [b'{"step":"x","att', b"{", b"\0\0\0\0"])
def test_a_torn_last_line_does_not_count_and_is_cut(layout: Layout, torn: bytes) -> None:
    """What a crash cut off is passed over in reading, and gone before anything new is written."""
    killed_run(layout)
    with journal(layout).open("ab") as file:
        file.write(torn)
    assert set(load(layout, RUN_ID).steps) == {"done", "flying"}
    with reopen(layout, load(layout, RUN_ID)) as recorder:
        recorder.record(attempt("after"))
    assert set(load(layout, RUN_ID).steps) == {"done", "flying", "after"}
    assert torn not in journal(layout).read_bytes() or torn == b"{"
    for line in journal(layout).read_bytes().splitlines():
        json.loads(line)


@pytest.mark.promise
def test_any_cut_of_a_journal_reads(layout: Layout) -> None:
    """Wherever a journal ends, the run log is that of its whole lines."""
    with create(layout, started()) as recorder:
        for i in range(3):
            recorder.record(attempt(f"s{i}", PROCESSING))
            recorder.record(attempt(f"s{i}"))
        recorder.record(ended())
    whole = journal(layout).read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        journal(layout).write_bytes(whole[:end])
        log = load(layout, RUN_ID)
        assert log.status == FAIL
        assert len(log.steps) == (whole[:end].count(b"\n")) // 2


def test_a_damaged_line_is_an_error_that_names_it(layout: Layout) -> None:
    """Damage in the middle is not passed over, and the run can be opened once it is repaired."""
    killed_run(layout)
    sound = journal(layout).read_bytes()
    journal(layout).write_bytes(sound.replace(b'"event":"attempt"', b'"event":"att\xffmpt"', 1))
    with pytest.raises(RunLogError, match="line 2"):
        load(layout, RUN_ID)
    for _ in range(2):
        with pytest.raises(RunLogError, match="line 2"), reopen(layout, RunLog(run_id=RUN_ID)):
            pass
    assert not is_running(layout, RUN_ID)
    journal(layout).write_bytes(sound)
    with reopen(layout, load(layout, RUN_ID)) as recorder:
        assert recorder.log.steps.keys() == {"done", "flying"}


def test_a_full_disk_leaves_a_readable_journal(tmp_path: Path) -> None:
    """A line that does not fit is taken back whole, the error names the place, and the run goes on with room again."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from runnable_ci.errors import StoreError; from runnable_ci.runs.recorder import create\n"
        "from runnable_ci.runs.events import AttemptSaved, Started\n"
        "from runnable_ci.runs.model import Invocation, StepAttempt\n"
        "from runnable_ci.store.local import Layout\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))\n"
        "invocation = Invocation(number=1, command='run', start_time='2026-01-01T00:00:00+00:00')\n"
        "event = Started(run_id='run-1', name='p', dag_hash='d', run_config={}, invocation=invocation)\n"
        "with create(Layout(Path(sys.argv[1])), event) as recorder:\n"
        "    try:\n"
        "        for i in range(1000):\n"
        "            recorder.record(AttemptSaved(step=f's{i}', attempt=StepAttempt(message='x' * 100)))\n"
        "    except StoreError as e: print(i, e.message)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    recorder.record(AttemptSaved(step='after', attempt=StepAttempt(status='SUCCESS')))\n"
    )
    done = python(code, str(tmp_path / ".runnable"))
    assert done.returncode == 0, done.stderr
    written, _, message = done.stdout.partition(" ")
    assert message.startswith("cannot write ")
    log = load(Layout(tmp_path / ".runnable"), RUN_ID)
    assert set(log.steps) == {*(f"s{i}" for i in range(int(written))), "after"}


@pytest.mark.parametrize("kept", [0, 10])
def test_on_a_full_disk_a_run_reads_as_far_as_it_was_recorded(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """An event that does not fit, or in part, is an error that says what to do; with room again a retry goes on."""
    write, room = os.write, [0, kept]

    def on_a_full_disk(descriptor: int, content: bytes) -> int:
        if room[-1]:
            return write(descriptor, content[: room.pop()])
        raise OSError(errno.ENOSPC, "No space left on device")

    with create(layout, started()) as recorder:
        recorder.record(attempt("a", FAIL))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", on_a_full_disk)
            with pytest.raises(StoreError, match="no space left on the disk of") as caught:
                recorder.record(attempt("b"))
    assert caught.value.hint == "free some space, then try again"
    assert set(load(layout, RUN_ID).steps) == {"a"}
    with reopen(layout, load(layout, RUN_ID)) as recorder:
        recorder.record(attempt("b"))
    assert set(load(layout, RUN_ID).steps) == {"a", "b"}


def test_a_disk_that_is_full_from_the_start_leaves_no_run(tmp_path: Path) -> None:
    """A run whose first line could not be written is not listed, and its id is free."""
    layout = Layout(tmp_path / ".runnable")
    layout.create()
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from runnable_ci.runs.events import Started; from runnable_ci.runs.model import Invocation\n"
        "from runnable_ci.runs.recorder import create\n"
        "from runnable_ci.store.local import Layout\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "invocation = Invocation(number=1, command='run', start_time='2026-01-01T00:00:00+00:00')\n"
        "event = Started(run_id='run-1', name='p', dag_hash='d', run_config={}, invocation=invocation)\n"
        "with create(Layout(Path(sys.argv[1])), event): print('made')"
    )
    done = python(code, str(layout.folder))
    assert done.returncode == 1
    assert "made" not in done.stdout
    assert run_ids(layout) == []
    assert leftovers(tmp_path) == []
    with create(layout, started()):
        assert run_ids(layout) == [RUN_ID]


def test_sealing_makes_an_artifact_of_the_run_as_it_is(layout: Layout) -> None:
    """The tag stands for a manifest whose run log is the journal's; output has become content of the store."""
    with create(layout, started()) as recorder:
        recorder.record(attempt("a"), ended())
        (recorder.outputs / "a.1.log").write_bytes(b"said\n")
        assert not recorder.is_sealed()
        recorder.seal(catalog_of(layout))
        assert recorder.is_sealed()
        manifest = layout.manifest(layout.resolve(RUN_ID))
        document = blobs(layout.folder)[manifest["layers"][0]["digest"].removeprefix("sha256:")].read_bytes()
        assert decode(document, where="the artifact") == recorder.log
        assert list(recorder.outputs.iterdir()) == []
        assert sha256(b"said\n") in blobs(layout.folder)


def test_sealing_twice_gives_the_same_and_the_newest_takes_the_tag(layout: Layout) -> None:
    """An unchanged run keeps its digest; a changed one has a new manifest under the same tag."""
    with create(layout, started()) as recorder:
        recorder.record(attempt("a"), ended(FAIL))
        recorder.seal(catalog_of(layout))
        first = layout.resolve(RUN_ID)
        recorder.seal(catalog_of(layout))
        assert layout.resolve(RUN_ID) == first
        recorder.record(attempt("b"))
        assert not recorder.is_sealed()
        recorder.seal(catalog_of(layout))
        assert recorder.is_sealed()
        assert layout.resolve(RUN_ID).digest != first.digest
        assert list(layout.tags()) == [RUN_ID]


def test_a_run_that_ended_but_was_not_sealed_is_sealed_when_it_is_opened(layout: Layout) -> None:
    """A kill between the end of a run and its artifact costs nothing: reopening makes the artifact."""
    with create(layout, started()) as recorder:
        (recorder.outputs / "a.1.log").write_bytes(b"said\n")
        recorder.record(attempt("a"), ended())
    assert list(layout.tags()) == []
    with reopen(layout, load(layout, RUN_ID)) as recorder:
        assert recorder.is_sealed()
    assert list(layout.tags()) == [RUN_ID]


def test_a_run_that_came_as_an_artifact_is_gone_on_with(layout: Layout) -> None:
    """Without a journal the run log document is what later events build on."""
    with create(layout, started()) as recorder:
        recorder.record(attempt("a"), ended(FAIL))
        recorder.seal(catalog_of(layout))
    journal(layout).unlink()
    with reopen(layout, load(layout, RUN_ID)) as recorder:
        recorder.record(attempt("b"))
    log = load(layout, RUN_ID)
    assert set(log.steps) == {"a", "b"}
    assert json.loads(journal(layout).read_text().splitlines()[0])["event"] == "document"


def test_reopening_ends_what_a_killed_run_left_running(layout: Layout, tmp_path: Path) -> None:
    """The noted process of a step is ended; one that only has its pid is let alone."""
    killed_run(layout)
    processes = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(2)]
    orphan, other = processes
    noted = run_folder(layout, RUN_ID) / "processes"
    record_pid(noted, orphan.pid)
    with noted.open("a") as notes:
        notes.write(f"{other.pid} 1\nx y\n\n{other.pid}")
    try:
        with reopen(layout, load(layout, RUN_ID)):
            wait_until(lambda: not start_time(orphan.pid), "the orphan's end")
            assert start_time(other.pid)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_recorder_leaves_no_descriptor_open(layout: Layout) -> None:
    """However often runs are opened, refused or damaged, as many descriptors are open as before."""

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are all that is needed

    before = count()
    for i in range(5):
        with create(layout, started(f"r{i}")) as recorder:
            recorder.record(ended())
        with pytest.raises(UsageError), create(layout, started(f"r{i}")):
            pass
        with reopen(layout, load(layout, f"r{i}")):
            pass
        path = run_folder(layout, f"r{i}") / JOURNAL
        log = load(layout, f"r{i}")
        path.write_bytes(b"junk\n")
        with pytest.raises(RunLogError), reopen(layout, log):
            pass
    assert count() == before


def test_a_log_with_links_says_that_older_versions_cannot_read_it(layout: Layout, tmp_path: Path) -> None:
    """Once, before the first of them, in the journal and the document; also where the log comes to another store."""
    with create(layout, started()) as recorder:
        recorder.record(attempt("plain"))
        assert recorder.log.schema_version == "1"
        recorder.record(with_link("a"), with_link("b"), ended())
        recorder.seal(catalog_of(layout))
    kinds = [json.loads(line)["event"] for line in journal(layout).read_text().splitlines()]
    assert kinds == ["started", "attempt", "schema", "attempt", "attempt", "ended"]
    log = load(layout, RUN_ID)
    assert log.schema_version == "2"
    other = Layout(tmp_path / "other" / ".runnable")
    other.create()
    with reopen(other, log) as recorder:
        assert recorder.log.schema_version == "2"
    assert [json.loads(line)["event"] for line in journal(other).read_text().splitlines()] == ["document", "schema"]
    lines = journal(other).read_text().replace('"version":"2"', '"version":"4"')
    write_old_journal(other.folder, RUN_ID, lines.splitlines())
    with pytest.raises(RunLogError, match="has run log schema 4, this version reads 1, 2 and 3") as caught:
        load(other, RUN_ID)
    assert caught.value.hint == "upgrade runnable-ci"
