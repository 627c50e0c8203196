"""Runs the real program as a process of its own, in a fresh git repository, with a clean environment."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from program_server import PROGRAM as PROGRAM
from program_server import run_program
from support import WAIT_S, environment

from runnable_ci.runs.document import decode
from runnable_ci.runs.model import RunLog

PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""On it `python` is the one that runs the tests."""
PROGRAM_THERE = f"env PATH={PATH} LANG=C.UTF-8 {sys.executable} -P -m runnable_ci"
"""The command of the program on a machine which, so to say, has the same in its environment."""
REFUSING_THREADS = """
import sys, threading
first, dash, _ = sys.argv.pop(1).partition("-")
count, start = 0, threading.Thread.start
def limited(thread):
    global count
    count += 1
    if count - 1 == int(first) or (dash and count > int(first)):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = limited
from runnable_ci.__main__ import main
main()
"""


@dataclass(frozen=True)
class Done:
    """How a program ended, and what it wrote."""

    code: int
    out: str
    err: str
    raw: bytes
    """stdout as bytes."""


@dataclass(frozen=True)
class Workspace:
    """A folder to run the program in, and the environment that it gets."""

    folder: Path
    environ: dict[str, str]

    def runnable(self, *arguments: str, code: int = 0, at: str = ".", **variables: str) -> Done:
        """Run `runnable-ci` to its end, which must be with this exit code and without a traceback of its own."""
        environ = {**self.environ, **variables}
        done = run_program(arguments, folder=self.folder / at, environ=environ, timeout_s=WAIT_S)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == code, f"exit code {done.returncode}\n{out}\n{err}"
        assert "runnable_ci/" not in err, err
        return Done(done.returncode, out, err, done.stdout)

    def with_threads(self, refused: str, *arguments: str, code: int = 0) -> Done:
        """As `runnable`, where the system refuses some threads: `2` the third only, `2-` all from the third on."""
        done = subprocess.run(
            [sys.executable, "-c", REFUSING_THREADS, refused, *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=WAIT_S,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        assert done.returncode == code, f"exit code {done.returncode}\n{out}\n{err}"
        assert "Traceback" not in err, err
        return Done(done.returncode, out, err, done.stdout)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start `runnable-ci`; use as a context."""
        return subprocess.Popen(
            [PROGRAM, *arguments],
            cwd=self.folder,
            env={**self.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def git(self, *arguments: str) -> str:
        """The output of a git command."""
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=self.environ, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self) -> str:
        """Commit everything; the commit."""
        self.git("add", ".")
        self.git("commit", "-qm", "work")
        return self.git("rev-parse", "HEAD")

    def replace(self, name: str, old: str, new: str) -> None:
        """Write a file again with another text in it, which must have been there."""
        assert old in self.read(name)
        self.write({name: self.read(name).replace(old, new)})

    def write(self, files: Mapping[str, str]) -> None:
        """Write text files, by name."""
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def read(self, name: str) -> str:
        """A file's text, empty where it is not there."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    def log(self, run: str = "latest") -> RunLog:
        """A run's log, as `show --json` prints it."""
        return decode(self.runnable("show", run, "--json").raw, where="show")

    @property
    def store(self) -> Path:
        """The store of the folder."""
        return self.folder / ".runnable"


def workspace(tmp_path: Path, files: Mapping[str, str], *, git: bool = True, name: str = "project") -> Workspace:
    """A folder of its own, by default a git repository whose one commit has these files."""
    home = tmp_path / "home"
    environ = environment(home, PATH=PATH, LANG="C.UTF-8")
    (home / ".gitconfig").write_text("[user]\nname = A\nemail = a@example.org\n[init]\ndefaultBranch = main\n")
    made = Workspace(tmp_path / name, environ)
    made.folder.mkdir()
    made.write(files)
    if git:
        made.git("init", "-q")
        made.commit()
    return made


def elsewhere(project: Workspace, tmp_path: Path, name: str = "elsewhere") -> Workspace:
    """Another user's clone on, so to say, another machine: another home, no store."""
    home = tmp_path / f"home-{name}"
    environ = environment(home, PATH=project.environ["PATH"], LANG="C.UTF-8")
    shutil.copy(Path(project.environ["HOME"]) / ".gitconfig", home)
    project.git("clone", "-q", str(project.folder), str(tmp_path / name))
    return Workspace(tmp_path / name, environ)


def terminal(project: Workspace, *arguments: str, columns: int = 80, code: int = 0, **variables: str) -> str:
    """All that the program writes to a terminal of its own."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environ = {**project.environ, "TERM": "xterm", **variables}
    with subprocess.Popen(
        [PROGRAM, *arguments], cwd=project.folder, env=environ, stdin=slave, stdout=slave, stderr=slave
    ) as running:
        os.close(slave)
        written = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:  # Linux says so when the last writer has gone
                break
            if not chunk:
                break
            written += chunk
        os.close(master)
        assert running.wait() == code
    return written.decode()


class Terminal:
    """A terminal of the program's own, and all that was written to it by now."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self.master = master
        self.process = process
        self.written = ""

    def read(self) -> bool:
        """Read what comes next; whether there was anything."""
        try:
            data = os.read(self.master, 4096)
        except OSError:  # Linux says so when the last writer has gone
            return False
        self.written += data.decode()
        return bool(data)

    def read_until(self, pattern: str) -> None:
        """Read until this was written."""
        while not re.search(pattern, self.written):
            assert self.read(), self.written

    def rest(self) -> str:
        """All of it, once the program has ended."""
        while self.read():
            pass
        return self.written


@contextmanager
def on_terminal(project: Workspace, *arguments: str) -> Iterator[Terminal]:
    """Start the program on a terminal that is its own, with Ctrl-C and all."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def own() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(slave), os.O_RDWR))

    environ = {**project.environ, "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=project.folder,
        env=environ,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        preexec_fn=own,  # noqa: PLW1509 - no thread is running
    ) as process:
        os.close(slave)
        try:
            yield Terminal(master, process)
        finally:
            process.kill()
            os.close(master)


def screen(written: str) -> list[str]:
    """The lines that a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[JKC]|\x1b\[\d+A|\r|\n|[^\x1b\r\n]+", written):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif part == "\x1b[K":
            lines[row] = lines[row][:column]
        elif part == "\x1b[C":
            column += 1
        elif part.startswith("\x1b"):
            row -= int(part[2:-1])
        else:
            lines[row] = f"{lines[row][:column]:{column}}{part}{lines[row][column + len(part) :]}"
            column += len(part)
    return lines


def is_alive(pid: str) -> bool:
    """Whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{int(pid)}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
