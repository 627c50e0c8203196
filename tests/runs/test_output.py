"""An attempt's output: byte for byte, in order, stdout and stderr apart, and what a killed run leaves of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import python, sha256

from runnable_ci.errors import StoreError
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.output import AttemptOutput, parse_index, recover, split
from runnable_ci.util.process_output import Stream

BINARY = bytes(range(256))


def chunks_of(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def read_back(folder: Path, log: LogFile, *, chunk_bytes: int = 7) -> list[tuple[Stream, bytes]]:
    """The output in order, neighbours of one stream joined."""
    index = folder / "step.1.idx"
    only: Stream = "e" if not log.stdout_bytes else "o"
    parts = split(
        chunks_of((folder / "step.1.log").read_bytes(), chunk_bytes),
        index.read_bytes() if index.exists() else b"",
        only_stream=only,
    )
    return joined(list(parts))


def joined(parts: list[tuple[Stream, bytes]]) -> list[tuple[Stream, bytes]]:
    merged: list[tuple[Stream, bytes]] = []
    for stream, chunk in parts:
        if merged and merged[-1][0] == stream:
            merged[-1] = (stream, merged[-1][1] + chunk)
        elif chunk:
            merged.append((stream, chunk))
    return merged


def test_both_streams_are_kept_apart_and_in_order(tmp_path: Path) -> None:
    """What was written comes back, byte for byte, with the stream that wrote it."""
    written: list[tuple[Stream, bytes]] = [("o", b"one\n"), ("e", BINARY), ("o", b"\r\n\0"), ("o", b"two"), ("e", b"!")]
    output = AttemptOutput(tmp_path, "step.1")
    for stream, chunk in written:
        output.write(stream, chunk)
    log = output.close()
    assert read_back(tmp_path, log) == joined(written)
    assert (log.stdout_bytes, log.stderr_bytes, log.size) == (10, 257, 267)
    assert log.data_hash == sha256(tmp_path / "step.1.log")
    assert log.index_hash == sha256(tmp_path / "step.1.idx")
    assert log.index_size == (tmp_path / "step.1.idx").stat().st_size


@pytest.mark.parametrize("stream", ["o", "e"])
def test_output_of_one_stream_needs_no_index(tmp_path: Path, stream: Stream) -> None:
    """The counts tell which stream it was."""
    output = AttemptOutput(tmp_path, "step.1")
    output.write(stream, b"one")
    output.write(stream, b"two")
    log = output.close()
    assert log.index_hash == ""
    assert [path.name for path in tmp_path.iterdir()] == ["step.1.log"]
    assert read_back(tmp_path, log) == [(stream, b"onetwo")]


def test_a_step_that_says_nothing_leaves_no_file(tmp_path: Path) -> None:
    """Silence takes no room."""
    output = AttemptOutput(tmp_path, "step.1")
    assert list(tmp_path.iterdir()) == []
    assert output.close().size == 0
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made_again_for_the_first_output(tmp_path: Path) -> None:
    """A step may remove the store before it says anything."""
    output = AttemptOutput(tmp_path / "logs", "step.1")
    output.write("e", b"one")
    assert read_back(tmp_path / "logs", output.close()) == [("e", b"one")]


@given(
    st.lists(st.tuples(st.sampled_from(["o", "e"]), st.binary(min_size=1, max_size=50)), max_size=30),
    st.integers(1, 60),
)
def test_splitting_gives_back_what_was_written(written: list[tuple[Stream, bytes]], chunk_bytes: int) -> None:
    """However output came and however it is read, each byte keeps its stream and its place."""
    merged = joined(written)
    index = "".join(f"{stream} {len(chunk)}\n" for stream, chunk in merged).encode()
    content = b"".join(chunk for _, chunk in merged)
    parts = list(split(chunks_of(content, chunk_bytes), index, only_stream="o"))
    assert joined(parts) == merged


@pytest.mark.parametrize("index", [b"", b"\n", b"x 3\n", b"o\n", b"o -1\n", b"o many\n", b"\xff\n", b"o 3"])
def test_a_damaged_index_loses_no_output(index: bytes) -> None:
    """Lines that cannot be read are passed over; all bytes are given out."""
    parts = list(split(iter([b"abc", b"def"]), index, only_stream="e"))
    assert b"".join(chunk for _, chunk in parts) == b"abcdef"


def test_an_index_that_is_too_long_or_has_empty_runs_does_no_harm() -> None:
    """More lines than bytes, or runs of no bytes, are no output."""
    assert list(parse_index(b"o 0\ne 2\n")) == [("o", 0), ("e", 2)]
    assert joined(list(split(iter([b"ab"]), b"o 0\ne 1\no 0\ne 9\no 4\n", only_stream="o"))) == [("e", b"ab")]


KILLED = """
import os, sys
from pathlib import Path
from runnable_ci.runs.output import AttemptOutput
output = AttemptOutput(Path(sys.argv[1]), "step.1")
for word in sys.argv[2:]:
    output.write(word[0], word[1:].encode())
os.kill(os.getpid(), 9)
"""


def killed_after(folder: Path, *words: str) -> LogFile:
    """What is recovered after a process that had written these was killed."""
    assert subprocess.run([sys.executable, "-c", KILLED, str(folder), *words]).returncode == -9
    log = recover(folder, "step.1", through=folder)
    assert log is not None
    assert log.data_hash == sha256(folder / "step.1.log")
    assert log.size == log.stdout_bytes + log.stderr_bytes == (folder / "step.1.log").stat().st_size
    if log.index_hash:
        assert log.index_hash == sha256(folder / "step.1.idx")
        assert log.index_size == (folder / "step.1.idx").stat().st_size
    return log


@pytest.mark.parametrize(
    "words",
    [("oout",), ("eerr",), ("oone", "etwo", "othree"), ("eone", "otwo"), ("oone", "etwo", "emore"), ("eone", "emore")],
)
def test_what_a_killed_run_wrote_is_recovered_with_its_streams(tmp_path: Path, words: tuple[str, ...]) -> None:
    """All output up to the kill is there, each byte with the stream that wrote it."""
    log = killed_after(tmp_path, *words)
    written: list[tuple[Stream, bytes]] = [("o" if word[0] == "o" else "e", word[1:].encode()) for word in words]
    assert read_back(tmp_path, log) == joined(written)
    assert log.stderr_bytes == sum(len(chunk) for stream, chunk in written if stream == "e")


def test_recovering_twice_gives_the_same(tmp_path: Path) -> None:
    """A retry that is killed after it recovered output does not spoil it."""
    log = killed_after(tmp_path, "oone", "etwo", "othree")
    assert recover(tmp_path, "step.1", through=tmp_path) == log


def test_a_torn_index_is_cut_where_it_is_sound(tmp_path: Path) -> None:
    """After a crash of the machine the index may lack its end; no byte of the output is lost."""
    (tmp_path / "step.1.log").write_bytes(b"one-two-three")
    (tmp_path / "step.1.idx").write_bytes(b"o 4\ne 4\no")
    log = recover(tmp_path, "step.1", through=tmp_path)
    assert log is not None
    assert read_back(tmp_path, log) == [("o", b"one-"), ("e", b"two-"), ("o", b"three")]


def test_an_attempt_that_had_no_output_has_nothing_to_recover(tmp_path: Path) -> None:
    """Without a file there is no log."""
    assert recover(tmp_path, "step.1", through=tmp_path) is None


def test_memory_does_not_grow_with_the_output(tmp_path: Path) -> None:
    """300 MB of both streams, written, closed and read again, take a few MB."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from runnable_ci.runs.output import AttemptOutput, split\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "folder = Path(sys.argv[1]); output = AttemptOutput(folder, 's'); chunk = bytes(65536); before = peak()\n"
        "for i in range(4600): output.write('oe'[i % 2], chunk)\n"
        "log = output.close(); index = (folder / 's.idx').read_bytes()\n"
        "with (folder / 's.log').open('rb') as file:\n"
        "    parts = split(iter(lambda: file.read(1 << 20), b''), index, only_stream='o')\n"
        "    assert sum(len(part) for _, part in parts) == log.size == 4600 * 65536\n"
        "print(peak() - before)"
    )
    done = python(code, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 15_000
    (tmp_path / "s.log").unlink()


@pytest.mark.parametrize(("full", "kept"), [("log", b""), ("idx", b"kept")])
def test_a_full_disk_is_one_error_and_what_was_kept_is_whole(tmp_path: Path, full: str, kept: bytes) -> None:
    """The error says what to do; what comes after it is not kept, and what is kept is told as it is."""
    (tmp_path / f"step.1.{full}").symlink_to("/dev/full")
    output = AttemptOutput(tmp_path, "step.1")
    with pytest.raises(StoreError, match="no space left on the disk of") as caught:
        for stream, chunk in [("o", b"kept"), ("e", b"lost")]:
            output.write("o" if stream == "o" else "e", chunk)
    output.write("o", b"not kept either")
    log = output.close()
    assert "free some space" in caught.value.hint
    assert (log.size, log.stdout_bytes, log.index_size) == (len(kept), len(kept), 0)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([kept] if kept else [])
    if kept:
        assert log.data_hash == sha256(kept)
