"""Files are whole or absent, hashes are those of what was written, locks hold between processes."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import BinaryIO, cast

import pytest
from support import leftovers, python, wait_until

from runnable_ci.errors import StoreError
from runnable_ci.util.files import (
    copy_and_hash,
    is_sparse,
    locked,
    locked_alone,
    replacing,
    share_lock,
    sweep,
    temporary,
    temporary_folder,
    try_lock,
    write_whole,
)

MIB = 1024 * 1024
HOLD = """
import sys, time
from pathlib import Path
from runnable_ci.util.files import locked, temporary, temporary_folder
if sys.argv[1] == "lock":
    with locked(Path(sys.argv[2])):
        print("held", flush=True)
        time.sleep(60)
if sys.argv[1] == "folder":
    with temporary_folder(Path(sys.argv[2])) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "file").write_bytes(b"part")
        print("held", flush=True)
        time.sleep(60)
with temporary(Path(sys.argv[2])) as new:
    new.file.write(b"part")
    new.file.flush()
    print("held", flush=True)
    time.sleep(60)
"""


def holder(what: str, path: Path) -> subprocess.Popen[bytes]:
    """A process that holds a lock, a temporary file or a temporary folder, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, what, str(path)], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def test_a_replaced_file_has_the_new_content_and_its_mode(tmp_path: Path) -> None:
    """The old content is there until the block ends, the new one after it."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path, mode=0o444) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o444
    assert leftovers(tmp_path) == []


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """Whatever the block raises, neither a part nor a temporary file stays."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_temporary_file_that_is_not_kept_is_gone(tmp_path: Path) -> None:
    """Nothing stays of it after its block, although nothing failed."""
    with temporary(tmp_path) as new:
        new.file.write(b"x")
        assert new.path.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_file_goes_through_another_folder_of_the_same_disk(tmp_path: Path) -> None:
    """Until it is whole the file is only in the folder that is named."""
    (tmp_path / "aside").mkdir()
    (tmp_path / "place").mkdir()
    with replacing(tmp_path / "place" / "file", through=tmp_path / "aside") as file:
        file.write(b"x")
        assert list((tmp_path / "place").iterdir()) == []
    assert leftovers(tmp_path) == []
    write_whole(tmp_path / "place" / "file", b"y", through=tmp_path / "aside")
    assert (tmp_path / "place" / "file").read_bytes() == b"y"


def test_a_file_that_goes_to_another_mount_arrives_whole_with_its_mode(tmp_path: Path) -> None:
    """Where a rename is not possible the content is copied, and appears at once all the same."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere, temporary(tmp_path) as new:
        assert Path(elsewhere).stat().st_dev != tmp_path.stat().st_dev
        new.file.write(b"content" * 1000)
        new.path.chmod(0o750)
        new.keep_as(Path(elsewhere) / "file")
        assert (Path(elsewhere) / "file").read_bytes() == b"content" * 1000
        assert (Path(elsewhere) / "file").stat().st_mode & 0o777 == 0o750
        assert leftovers(Path(elsewhere)) == []
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_what_a_killed_process_left_and_only_that(tmp_path: Path) -> None:
    """Temporary files of living processes stay, and so do files of other names."""
    (tmp_path / "file").touch()
    killed, alive = holder("temporary", tmp_path), holder("temporary", tmp_path)
    with temporary(tmp_path, mode=0o444) as ours:
        killed.kill()
        killed.wait()
        assert len(leftovers(tmp_path)) == 3
        sweep(tmp_path)
        assert len(leftovers(tmp_path)) == 2
        assert ours.path.exists()
    alive.kill()
    alive.wait()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    sweep(tmp_path / "absent")


def test_a_sweep_takes_the_folder_of_a_killed_process_and_only_that(tmp_path: Path) -> None:
    """A temporary folder goes with all that is in it, once its process is gone; one that is not killed removes it."""
    killed, alive = holder("folder", tmp_path), holder("folder", tmp_path)
    with temporary_folder(tmp_path) as ours:
        assert ours.stat().st_mode & 0o777 == 0o700
        killed.kill()
        killed.wait()
        sweep(tmp_path)
        assert len(list(tmp_path.glob("*/below/file"))) == 1
        assert ours.exists()
    assert not ours.exists()
    alive.kill()
    alive.wait()
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_takes_the_copy_that_a_killed_process_left_on_another_mount(tmp_path: Path) -> None:
    """What a rename could not bring to its place is noted before it is copied, and found by that note."""
    code = (
        "import os, sys; from pathlib import Path; from runnable_ci.util.files import temporary\n"
        "def watch(event, words):\n"
        "    if event == 'os.rename' and os.fsdecode(words[0]).startswith('/dev/shm'): os.kill(os.getpid(), 9)\n"
        "sys.addaudithook(watch)\n"
        "with temporary(Path(sys.argv[1])) as new:\n"
        "    new.file.write(b'content')\n"
        "    new.keep_as(Path(sys.argv[2]) / 'file')\n"
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (Path(elsewhere) / "other").touch()
        assert python(code, str(tmp_path), elsewhere).returncode == -signal.SIGKILL
        assert len(leftovers(Path(elsewhere))) == 1
        sweep(tmp_path)
        assert [path.name for path in Path(elsewhere).iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_leaves_what_it_did_not_make(tmp_path: Path) -> None:
    """Links, pipes and notes that lead elsewhere have nothing removed but what has a name of ours."""
    (tmp_path / "victim").write_text("dear")
    folder = tmp_path / "tmp"
    folder.mkdir()
    (folder / ".0123456789abcdef.tmp").symlink_to(tmp_path / "victim")
    (folder / ".1123456789abcdef.dir").symlink_to(tmp_path)
    (folder / ".2123456789abcdef.near").write_bytes(os.fsencode(tmp_path / "victim"))
    (folder / ".3123456789abcdef.near").write_bytes(b"/\0/x")
    os.mkfifo(folder / ".4123456789abcdef.tmp")
    (folder / ".mine.tmp").touch()
    sweep(folder)
    assert (tmp_path / "victim").read_text() == "dear"
    assert (folder / ".mine.tmp").exists()


def test_sweeping_never_takes_a_file_from_under_its_writer(tmp_path: Path) -> None:
    """A process that sweeps all the time does not disturb one that writes all the time."""
    over = threading.Event()

    def keep_sweeping() -> None:
        while not over.is_set():
            sweep(tmp_path)

    sweeper = threading.Thread(target=keep_sweeping)
    sweeper.start()
    try:
        for i in range(300):
            write_whole(tmp_path / str(i), b"x")
    finally:
        over.set()
        sweeper.join()
    assert len(list(tmp_path.iterdir())) == 300


@pytest.mark.parametrize("size", [0, 1, 1000, MIB - 1, MIB, MIB + 1, 5 * MIB, 5 * MIB + 7])
def test_a_copy_has_the_bytes_the_hash_and_the_size(tmp_path: Path, size: int) -> None:
    """Whatever its size, a file is copied and hashed in full."""
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb", buffering=0) as source, (tmp_path / "copy").open("w+b") as copy:
        assert copy_and_hash(source, copy) == (hashlib.sha256(content).hexdigest(), size)
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, MIB, 5 * MIB + 7])
def test_a_copy_of_a_sparse_file_is_sparse(tmp_path: Path, size: int) -> None:
    """Zeros at the beginning, between and at the end take no room; the bytes, the hash and the size are the same."""
    content = bytearray(size)
    for place in range(MIB, size, 2 * MIB):
        content[place : place + 3] = b"abc"
    (tmp_path / "source").write_bytes(content)
    with (tmp_path / "source").open("rb", buffering=0) as source, (tmp_path / "copy").open("w+b") as copy:
        assert copy_and_hash(source, copy, sparse=True) == (hashlib.sha256(content).hexdigest(), size)
    assert (tmp_path / "copy").read_bytes() == content
    at = (tmp_path / "copy").stat()
    assert at.st_blocks * 512 <= 64 * 1024 * (size // MIB)
    assert is_sparse(at) == (size >= MIB)
    assert not is_sparse((tmp_path / "source").stat())


def test_a_source_that_gives_little_at_a_time_is_copied_whole(tmp_path: Path) -> None:
    """Short reads, as a pipe gives them, are not the end of the content."""
    content = os.urandom(3 * MIB)
    read, write = os.pipe()

    def feed() -> None:
        with open(write, "wb") as file:
            for at in range(0, len(content), 10_001):
                file.write(content[at : at + 10_001])
                file.flush()

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open(read, "rb", buffering=0) as source, (tmp_path / "copy").open("w+b") as copy:
        assert copy_and_hash(source, copy) == (hashlib.sha256(content).hexdigest(), len(content))
    feeder.join()
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("size", [100, 20 * MIB])
def test_a_full_disk_is_an_error_with_a_hint_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    """ENOSPC while copying, small or large, is a StoreError that says what to do; no thread is left waiting."""
    (tmp_path / "source").write_bytes(bytes(size))
    threads = threading.active_count()
    with (
        pytest.raises(StoreError, match="no space left") as caught,
        (tmp_path / "source").open("rb", buffering=0) as source,
        temporary(tmp_path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        copy_and_hash(source, cast("BinaryIO", full))
    assert caught.value.hint
    assert threading.active_count() == threads
    assert leftovers(tmp_path) == []


def test_a_source_that_fails_in_the_middle_is_the_callers_error(tmp_path: Path) -> None:
    """An error while reading a large source is raised, and the writing thread ends."""

    class Failing(io.RawIOBase):
        reads = 0

        def readinto(self, _buffer: object) -> int:
            self.reads += 1
            if self.reads > 3:
                raise OSError(errno.EIO, "bad sector")
            return MIB

    threads = threading.active_count()
    with (tmp_path / "copy").open("w+b") as copy, pytest.raises(OSError, match="bad sector"):
        copy_and_hash(Failing(), copy)
    assert threading.active_count() == threads


def test_a_lock_of_another_process_is_seen_and_ends_with_it(tmp_path: Path) -> None:
    """try_lock gives None while a process holds the lock, a descriptor once that process was killed."""
    path = tmp_path / "lock"
    process = holder("lock", path)
    assert try_lock(path) is None
    with locked_alone(path) as held:
        assert not held
    process.send_signal(signal.SIGKILL)
    process.wait()
    descriptor = try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_a_process_waits_for_a_lock(tmp_path: Path) -> None:
    """A second holder gets the lock after the first one, not at the same time."""
    path, order = tmp_path / "lock", tmp_path / "order"
    code = (
        "import sys; from pathlib import Path; from runnable_ci.util.files import locked\n"
        "print('ready', flush=True)\n"
        "with locked(Path(sys.argv[1])): print(Path(sys.argv[2]).read_text())"
    )
    with locked(path):
        second = subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(order)], stdout=subprocess.PIPE, text=True
        )
        assert second.stdout
        assert second.stdout.readline() == "ready\n"
        order.write_text("first is done")
    assert second.communicate(timeout=20)[0] == "first is done\n"


def test_shared_locks_stand_together_and_against_a_single_one(tmp_path: Path) -> None:
    """Two share a lock; nobody has it alone before both are gone."""
    path = tmp_path / "lock"
    one, two = share_lock(path), share_lock(path)
    with locked_alone(path) as held:
        assert not held
    os.close(one)
    os.close(two)
    with locked_alone(path) as held:
        assert held


@pytest.mark.promise
def test_many_processes_that_replace_one_file_never_show_a_part(tmp_path: Path) -> None:
    """A reader always sees one writer's content in full."""
    path = tmp_path / "file"
    write_whole(path, b"0" * 100_000)
    code = (
        "import sys; from pathlib import Path; from runnable_ci.util.files import write_whole\n"
        "for _ in range(40): write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 100_000)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), letter]) for letter in "ab"]

    def whole() -> bool:
        content = path.read_bytes()
        assert len(content) == 100_000
        assert len(set(content)) == 1
        return all(writer.poll() is not None for writer in writers)

    wait_until(whole, "the writers")
    assert [writer.returncode for writer in writers] == [0, 0]


def test_a_file_larger_than_the_limit_of_the_process_leaves_nothing(tmp_path: Path) -> None:
    """A write that the system refuses in the middle leaves neither the file nor a temporary one."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from runnable_ci.util.files import write_whole\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_whole(Path(sys.argv[1]), bytes(5000))"
    )
    done = python(code, str(tmp_path / "file"))
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []
