"""What one side writes for a worker, and what the other refuses to read."""

from __future__ import annotations

import pickle
import subprocess
from pathlib import Path
from types import MappingProxyType

import pytest

from runnable_ci.engine.elsewhere.tickets import Setting, Ticket, environ_there, read_private, unpacked, write_private
from runnable_ci.errors import StoreError
from runnable_ci.runs.elsewhere.fragment import Fragment, read_fragment, seal
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.model import StepAttempt

SETTING = Setting(
    run_id="r",
    invocation=1,
    workspace=Path("/w"),
    store=Path("/w/.runnable"),
    interpreter="python",
    environ=MappingProxyType({"API_KEY": "sesame"}),
    secrets=frozenset({"sesame"}),
    secret_names=frozenset(),
    reuse_key="",
    around="",
)


@pytest.mark.promise
def test_only_its_user_reads_and_writes_a_ticket(tmp_path: Path) -> None:
    """A ticket is closed to others, and one that others could write is not read: it would be run."""
    path = tmp_path / "setting"
    write_private(path, SETTING)
    assert path.stat().st_mode & 0o077 == 0
    assert read_private(path, Setting) == SETTING
    path.chmod(0o666)
    with pytest.raises(StoreError, match="another user"):
        read_private(path, Setting)
    link = tmp_path / "link"
    path.chmod(0o600)
    link.symlink_to(path)
    with pytest.raises(StoreError, match="another user"):
        read_private(link, Setting)


def test_what_is_no_ticket(tmp_path: Path) -> None:
    """Another version's ticket, another kind of one, and what is none are errors with a hint."""
    path = tmp_path / "setting"
    write_private(path, SETTING._replace(version="0.0.1"))
    with pytest.raises(StoreError, match="another version"):
        read_private(path, Setting)
    write_private(path, SETTING)
    with pytest.raises(StoreError, match="another version"):
        read_private(path, Ticket)
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match="cannot be read"):
        read_private(path, Setting)


@pytest.mark.promise
@pytest.mark.parametrize("foreign", [print, subprocess.Popen, Path.unlink, write_private])
def test_what_has_no_place_in_a_ticket(foreign: object) -> None:
    """Nothing but plain values and objects of the program's own classes is made of what is read."""
    with pytest.raises(StoreError, match="has no place in it"):
        unpacked(pickle.dumps(foreign), Setting, "a test")


@pytest.mark.promise
def test_a_fragment_proves_itself(tmp_path: Path) -> None:
    """A fragment is read whole, as it was sealed, or it is an error: no changed byte of it counts."""
    path = tmp_path / "fragment"
    assert read_fragment(path) is None
    attempt = StepAttempt(attempt_number=2, message="done")
    attempt.end("succeeded")
    seal(Fragment(step="a", attempt=attempt, seconds=1.5), path, through=tmp_path)
    found = read_fragment(path)
    assert found is not None
    assert (found.step, found.attempt.outcome, found.seconds) == ("a", "succeeded", 1.5)
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StoreError):
            read_fragment(path)


def test_one_side_ends_an_attempt(tmp_path: Path) -> None:
    """Of two sides that say that an attempt is over, the first one counts."""
    folder = AttemptFolder(tmp_path)
    assert folder.ended_by() == ""
    assert folder.end("near")
    assert not folder.end("far")
    assert folder.ended_by() == "near"


def test_what_describes_a_machine_comes_from_there() -> None:
    """Variables of a machine and of a scheduler's job are those of the far machine, all others those of this one."""
    here = {"PATH": "/here", "SLURM_JOB_ID": "1", "HOSTNAME": "here", "KEY": "v", "CUDA_VISIBLE_DEVICES": "0"}
    there = {"PATH": "/there", "SLURM_JOB_ID": "2", "HOSTNAME": "there", "OWN": "x"}
    assert environ_there(here, there) == {"PATH": "/here", "SLURM_JOB_ID": "2", "HOSTNAME": "there", "KEY": "v"}
