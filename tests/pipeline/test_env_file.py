"""Tests of dotenv files: which variables they give, and that no error shows a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnable_ci.errors import UsageError
from runnable_ci.pipeline.values.env_file import read_env_files


def test_variables(tmp_path: Path) -> None:
    """Quotes, comments, `export` and line breaks are as dotenv has them, nothing is replaced, the later file counts."""
    one, other = tmp_path / "one.env", tmp_path / "two.env"
    one.write_bytes(b"\xef\xbb\xbf# c\r\nA=1\r\nexport B=\"x\\ny\"\nC='a b' # c\nD=\nE=${A}\nRUNNABLE_PRM_rate=0.5\n")
    other.write_text('A=2\nF="two\nlines"\n')
    assert read_env_files([one, other]) == {
        "A": "2",
        "B": "x\ny",
        "C": "a b",
        "D": "",
        "E": "${A}",
        "F": "two\nlines",
        "RUNNABLE_PRM_rate": "0.5",
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"A=1\nhunter2 hunter2", "line 2 is not NAME=value"),
        (b"A=1\nhunter2", "line 2 is not NAME=value"),
        (b'A=1\nB="hunter2', "line 2 is not NAME=value"),
        (b"RUNNABLE_RUN_ID=hunter2", "line 1: RUNNABLE_RUN_ID is reserved"),
        (b"A=1\nB=hunter2\xff", "line 2 is not UTF-8 text"),
        (b"B=hunter2\0", "line 1: no variable can have that name or value"),
    ],
    ids=["two words", "a word", "no end", "reserved", "bytes", "a NUL"],
)
def test_mistakes(tmp_path: Path, content: bytes, message: str) -> None:
    """The line is named, and nothing of what is in it."""
    (tmp_path / "s.env").write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_env_files([tmp_path / "s.env"])
    assert message in caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.hint


def test_missing(tmp_path: Path) -> None:
    """A file that is not there is named, with one that is nearly called so."""
    (tmp_path / ".env").touch()
    with pytest.raises(UsageError, match=r"--env-file .*\.evn cannot be read: no such file") as caught:
        read_env_files([tmp_path / ".evn"])
    assert caught.value.hint == "did you mean `.env`?"
