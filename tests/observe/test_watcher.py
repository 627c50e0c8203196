"""Tests of watching a workspace, with real processes."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest

from runnable_ci.observe.trace import Trace, Window, trace
from runnable_ci.observe.watcher import Watcher


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with some data and a script."""
    made = tmp_path / "work"
    (made / "data").mkdir(parents=True)
    (made / "data" / "x.csv").write_text("1\n")
    (made / "conf.json").write_text("{}")
    (made / ".runnable").mkdir()
    return made


@pytest.fixture
def watcher(workspace: Path) -> Iterator[Watcher]:
    """A watcher of that workspace."""
    made = Watcher(workspace, workspace / ".runnable" / "watch")
    assert made.reason == ""
    yield made
    made.close()


def seen(watcher: Watcher, command: str | list[str], **environ: str) -> Trace:
    """Run a command in the workspace, watched."""
    start = watcher.mark()
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    words = ["sh", "-c", command] if isinstance(command, str) else command
    subprocess.run(words, cwd=watcher.root, check=True, env={**plain, **environ})
    end = watcher.mark()
    events = watcher.between(start, end)
    assert events is not None
    return trace(events, Window(start, end))


def test_opened_and_listed(watcher: Watcher) -> None:
    """A file that a command reads and a folder that it lists are seen, with nothing beside them."""
    found = seen(watcher, "cat conf.json; ls data")
    assert (set(found.read), set(found.listed)) == ({"conf.json"}, {"data"})


def test_made_changed_and_removed(watcher: Watcher) -> None:
    """New, overwritten, appended and removed files are told apart; a temporary file is none of them."""
    found = seen(watcher, "echo 1 > new; echo 2 >> conf.json; rm data/x.csv; echo t > tmp; rm tmp")
    assert (found.made, found.changed, found.removed) == ({"new"}, {"conf.json"}, {"data/x.csv"})


def test_read_after_own_write_is_no_input(watcher: Watcher) -> None:
    """What a step made itself it does not read from anywhere."""
    assert seen(watcher, "echo 1 > new; cat new").read == {}


def test_writing_alone_reads_nothing(watcher: Watcher) -> None:
    """To overwrite or append to a file depends on nothing in it; to change it in place does."""
    assert seen(watcher, "echo 1 >> conf.json; echo 2 > data/x.csv").read == {}
    assert set(seen(watcher, "sed -i s/1/2/ conf.json; dd if=data/x.csv of=data/x.csv status=none").read) == {
        "conf.json",
        "data/x.csv",
    }


def test_new_folder(watcher: Watcher) -> None:
    """What is made in folders that a step makes is seen, however fast it is."""
    found = seen(watcher, "mkdir -p a/b/c; for i in 1 2 3; do echo $i > a/b/c/$i; done")
    assert found.made == {"a/b/c/1", "a/b/c/2", "a/b/c/3"}


def test_byte_code_is_its_source(watcher: Watcher, workspace: Path) -> None:
    """A module whose valid byte code is loaded counts as read, though only that is opened."""
    (workspace / "helper.py").write_text("VALUE = 1\n")
    (workspace / "main.py").write_text("import helper\n")
    os.utime(workspace / "helper.py", (1, 1))
    first = seen(watcher, [sys.executable, "main.py"])
    second = seen(watcher, [sys.executable, "main.py"])
    assert "helper.py" in first.read
    assert set(second.read) == {"main.py", "helper.py"}


def test_git_is_one_fact(watcher: Watcher, workspace: Path) -> None:
    """A step that asks git has asked git, and has read no file of its folder."""
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    found = seen(watcher, "git log -1 2>/dev/null || true")
    assert found.asked_git == "seen"
    assert not any(path.startswith(".git") for path in found.read)


@pytest.mark.parametrize("words", ["rev-parse HEAD", "status", "ls-files", "diff --stat", "describe --always", "add ."])
def test_each_git_is_seen_and_who_looks_at_its_index_is_none(watcher: Watcher, workspace: Path, words: str) -> None:
    """Every command of this program looks there, whether the store is tracked, also in another terminal."""
    for setup in ("init -q", "add conf.json", "-c user.name=A -c user.email=a@b commit -qm one"):
        subprocess.run(["git", *setup.split()], cwd=workspace, check=True)
    assert seen(watcher, "true").asked_git is None
    assert seen(watcher, "cat .git/index > /dev/null; ls .git > /dev/null").asked_git is None
    assert seen(watcher, f"git {words} > /dev/null").asked_git == "seen"


def test_link_to_outside(tmp_path: Path, workspace: Path) -> None:
    """A read through a link that leads out of the workspace is seen under the name in the workspace."""
    outside = tmp_path / "mnt"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "y.csv").write_text("2")
    (workspace / "linked").symlink_to(outside)
    watcher = Watcher(workspace, workspace / ".runnable" / "watch")
    found = seen(watcher, "cat linked/deep/y.csv")
    watcher.close()
    assert set(found.read) == {"linked/deep/y.csv"}
    assert watcher.links == {"linked": str(outside)}


def open_all(root: str) -> None:
    """Read and list the workspace in the ways of the standard library."""
    folder = Path(root)
    with open(f"{root}/conf.json", "rb") as file, FileIO(f"{root}/data/x.csv") as other:
        file.read()
        other.read()
    (folder / "conf.json").read_text()
    shutil.copyfile(folder / "data/x.csv", folder / ".runnable/copy")
    assert glob.glob("**/*.csv", root_dir=folder, recursive=True) == ["data/x.csv"]  # noqa: PTH207 - as it is
    assert os.listdir(folder)  # noqa: PTH208 - as it is
    assert list(folder.iterdir())
    assert list(os.walk(root))


def test_own_looks_are_left_out(watcher: Watcher) -> None:
    """What the program itself opens and lists, in any thread, is no step's; what another process opens then is."""
    start = watcher.mark()
    open_all(watcher.root)
    thread = threading.Thread(target=open_all, args=[watcher.root])
    thread.start()
    thread.join()
    end = watcher.mark()
    events = watcher.between(start, end)
    assert events is not None
    assert trace(events, Window(start, end)) == Trace()
    start = end
    open_all(watcher.root)
    subprocess.run(["sh", "-c", "cat conf.json; ls data"], cwd=watcher.root, check=True)
    open_all(watcher.root)
    events = watcher.between(start, watcher.mark())
    assert events is not None
    found = trace(events, Window(start, start + len(events)))
    assert (set(found.read), set(found.listed)) == ({"conf.json"}, {"data"})


def test_looks_into_folders_that_were_made_just_before(watcher: Watcher, workspace: Path) -> None:
    """As they are by files that are restored for a step: the program's look into them is over when the step begins."""
    for number in range(30):
        (workspace / f"new{number}" / "deep" / "er").mkdir(parents=True)
        (workspace / f"new{number}" / "deep" / "file.txt").write_text("")
        found = seen(watcher, f"cat new{number}/deep/file.txt")
        assert (set(found.read), found.listed) == ({f"new{number}/deep/file.txt"}, {})


def test_a_look_that_fails_hides_nothing(watcher: Watcher, workspace: Path) -> None:
    """Of a file that was not there when the program looked, a step's read in a later window is seen."""
    with pytest.raises(FileNotFoundError):
        (workspace / "later.txt").read_text()
    watcher.mark()
    (workspace / "later.txt").write_text("1")
    assert set(seen(watcher, "cat later.txt").read) == {"later.txt"}


def test_overlapping_windows_are_possible(watcher: Watcher) -> None:
    """What happens while another attempt runs may be of either."""
    start = watcher.mark()
    subprocess.run(["cat", "conf.json"], cwd=watcher.root, check=True)
    middle = watcher.mark()
    subprocess.run(["cat", "data/x.csv"], cwd=watcher.root, check=True)
    end = watcher.mark()
    events = watcher.between(start, end)
    assert events is not None
    found = trace(events, Window(start, end), [Window(start, middle)])
    assert found.read == {"conf.json": "possible", "data/x.csv": "seen"}


def test_environments_are_not_watched(workspace: Path) -> None:
    """A virtual environment and node_modules are known otherwise: no watch is spent on them."""
    for folder in ("env", "node_modules"):
        (workspace / folder / "deep").mkdir(parents=True)
    (workspace / "env" / "pyvenv.cfg").write_text("home = /usr\n")
    watcher = Watcher(workspace, workspace / ".runnable" / "watch")
    found = seen(watcher, "ls env/deep node_modules; echo 1 > env/deep/x")
    watcher.close()
    assert (found.read, found.listed, found.made) == ({}, {}, set())


def test_lost_events_are_told(watcher: Watcher) -> None:
    """Where the queue overflowed nothing is claimed to have been seen; what is new is watched from then on."""
    start = watcher.mark()
    loop = "i=0; while [ $i -lt 17000 ]; do : < conf.json; i=$((i+1)); : < data/x.csv; done"
    with watcher._lock:  # keeps the queue from being emptied
        subprocess.run(["sh", "-c", f"{loop}; mkdir -p new/er; echo 1 > new/er/x"], cwd=watcher.root, check=True)
    assert watcher.between(start, watcher.mark()) is None
    later = watcher.mark()
    assert watcher.between(later, watcher.mark()) == []
    assert [watcher.take_changed(), watcher.take_changed()] == [None, set()]
    assert set(seen(watcher, "cat new/er/x").read) == {"new/er/x"}
    subprocess.run(["sh", "-c", "echo 2 > new/er/x"], cwd=watcher.root, check=True)
    assert watcher.take_changed() == {"new/er/x"}


@pytest.mark.parametrize(
    ("command", "changed"),
    [
        ("cat conf.json; ls data; python3 -c 'import os; os.stat(\"conf.json\")'", set()),
        ("echo 1 >> conf.json", {"conf.json"}),
        ("echo 1 > new; rm new", {"new"}),
        ("chmod +x conf.json", {"conf.json"}),
        ("mv data other", {"data", "other"}),
        ("mkdir -p deep/er; sleep 0.05; echo 1 > deep/er/x", {"deep", "deep/er", "deep/er/x"}),
        ("mkdir node_modules; echo 1 > node_modules/x", {"node_modules"}),
        ("echo 1 > .runnable/x", set()),
        ("git rev-parse HEAD", {".git"}),
        ("git -c user.name=a -c user.email=a@b.c commit -qm work --allow-empty", {".git"}),
    ],
)
def test_what_changed(workspace: Path, command: str, changed: set[str]) -> None:
    """What a command writes, makes, renames, removes or gives another mode is named, and nothing that it reads."""
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=workspace, check=True)
    watcher = Watcher(workspace, workspace / ".runnable" / "watch")
    assert watcher.take_changed() is None
    subprocess.run(["sh", "-c", command], cwd=workspace, check=True, stdout=subprocess.DEVNULL)
    found = watcher.take_changed()
    assert found is not None
    assert found - {"deep/er", "deep/er/x"} == changed - {"deep/er", "deep/er/x"}  # named with the folder, if not alone
    assert watcher.take_changed() == set()
    watcher.close()
    assert watcher.take_changed() is None


def test_who_only_asked_git_can_be_left_out(workspace: Path) -> None:
    """What the program itself asks git is no change; what another git writes meanwhile is."""
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    watcher = Watcher(workspace, workspace / ".runnable" / "watch")
    watcher.take_changed()
    for command, changed in ((["status"], set()), (["add", "conf.json"], {".git"})):
        subprocess.run(["git", *command], cwd=workspace, check=True, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"})
        watcher.mark()
        watcher.forget_git()
        assert watcher.take_changed() == changed, command
    watcher.close()


def test_file_system_without_events(workspace: Path, tmp_path: Path) -> None:
    """Where the canary's opening is not told, nothing counts as watched."""
    watcher = Watcher(workspace, workspace / ".runnable" / "watch")
    (workspace / ".runnable" / "watch" / "canary").unlink()
    (workspace / ".runnable" / "watch" / "canary").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    (workspace / ".runnable" / "watch").rename(tmp_path / "gone")
    (workspace / ".runnable" / "watch").symlink_to(tmp_path / "gone2")
    (tmp_path / "gone2").mkdir()
    (tmp_path / "gone2" / "canary").touch()
    start = watcher.mark()
    assert watcher.between(start, start) is None
    assert "without an event" in watcher.reason
    watcher.close()
