"""Runs real workflows with `act` in host mode: the real action, real git over HTTP, a registry of the caller's.

GitHub's own actions are JavaScript that is not to be had here; small composite actions stand in for the four that
workflows and our action use (`tests/actions/`): a checkout by git, the runner's Python, copies for up- and download.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from compileall import compile_dir
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from py_compile import PycInvalidationMode
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
ACT = str(Path(sys.executable).with_name("act"))
REPOSITORY = "octo/flowers"
ACT_TIMEOUT_S = 600
ACT_TOKEN = "ghs_0123456789abcdefghijklmnopqrstuvwxyzA"
"""What `github.token` is."""


_NAMESPACE = ("unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child", "--mount-proc")


class _GitOverHttp(BaseHTTPRequestHandler):
    """`git http-backend` behind HTTP, as a git host has it."""

    protocol_version = "HTTP/1.0"

    def _answer(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(self.server.root),  # type: ignore[attr-defined]
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_NOSYSTEM": "1",
                "HOME": "/nonexistent",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_USER": "octocat",
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        """Say nothing."""


@contextmanager
def git_host(folder: Path) -> Iterator[str]:
    """Serve the bare repositories below a folder; the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _GitOverHttp)
    server.root = folder  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class Ran:
    """A workflow run: its exit code, log lines, outputs and summaries."""

    code: int
    events: list[dict[str, Any]]
    summary: str
    outputs: dict[str, str]
    text: str

    def lines(self) -> list[str]:
        """What the steps printed, as the log shows it."""
        return [str(event["msg"]).rstrip("\r\n") for event in self.events if event.get("raw_output")]


@dataclass(frozen=True)
class Machine:
    """A machine that runs a workflow."""

    process: subprocess.Popen[bytes]
    home: Path
    is_alone: bool
    """Whether its processes are those of one namespace, and end at once with the first one."""

    def ended(self) -> Ran:
        """Wait for the workflow's end."""
        self.process.wait(timeout=ACT_TIMEOUT_S)
        return self.seen()

    def seen(self) -> Ran:
        """What is known of the workflow by now."""
        code = self.process.poll()
        out, err = (self.home / "out").read_bytes(), (self.home / "err").read_bytes()
        return _parsed(-1 if code is None else code, out, err)

    def is_over(self) -> bool:
        """Whether the workflow has ended."""
        return self.process.poll() is not None

    def wait(self, timeout_s: float) -> None:
        """Wait for the workflow's end, and no longer than this."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=timeout_s)

    def first(self) -> int:
        """Return the first process of its namespace; 0 where it has ended."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while self.process.poll() is None:
            with suppress(OSError):
                if found := children.read_text().split():
                    return int(found[0])
            time.sleep(0.01)
        return 0

    def lose(self) -> None:
        """End all that runs on it, at once and without a word."""
        if first := self.first() if self.is_alone else self.process.pid:
            with suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
        self.process.wait(timeout=60)  # it waits for the first one, which waits for all others


@dataclass
class Runner:
    """A machine that runs workflows of one repository."""

    folder: Path
    server: str
    wheels: Path
    variables: dict[str, str] = field(default_factory=dict)
    is_prepared: bool = False
    """Whether the action's dependencies are installed once for all jobs, which takes most of a short one's time: for
    all tests but those of the set-up itself.
    """

    def run(
        self,
        event: str,
        workflow: str,
        *,
        clone: Path,
        payload: Mapping[str, Any] | None = None,
        run_id: int = 1000,
        attempt: int = 1,
        job: str = "",
        **variables: str,
    ) -> Ran:
        """Run a workflow file of a clone to its end, or one job of it, in a workspace and a home of its own."""
        given = (event, workflow, clone, payload, run_id, attempt, job, variables)
        with self._started(*given, alone=()) as machine:
            return machine.ended()

    def start(
        self,
        event: str,
        workflow: str,
        *,
        clone: Path,
        payload: Mapping[str, Any] | None = None,
        run_id: int = 1000,
        attempt: int = 1,
        **variables: str,
    ) -> AbstractContextManager[Machine]:
        """Start a workflow as `run` does, on a machine of its own, which is lost after the block."""
        return self._started(event, workflow, clone, payload, run_id, attempt, "", variables, alone=_NAMESPACE)

    @contextmanager
    def _started(
        self,
        event: str,
        workflow: str,
        clone: Path,
        payload: Mapping[str, Any] | None,
        run_id: int,
        attempt: int,
        job: str,
        variables: Mapping[str, str],
        *,
        alone: Sequence[str],
    ) -> Iterator[Machine]:
        home = self.folder / f"runner-{run_id}-{attempt}-{len(list(self.folder.glob('runner-*')))}"
        home.mkdir(parents=True)
        (home / "event.json").write_text(json.dumps(payload or {}))
        environ = {
            "PATH": os.environ["PATH"].replace(f"{Path(sys.executable).parent}{os.pathsep}", ""),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "XDG_CACHE_HOME": str(home / "cache"),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        given = {
            "GITHUB_SERVER_URL": self.server,
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_RUN_ID": str(run_id),
            "GITHUB_RUN_ATTEMPT": str(attempt),
            "GITHUB_WORKFLOW_REF": f"{REPOSITORY}/.github/workflows/{Path(workflow).name}@refs/heads/main",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "ARTIFACTS": str(self.folder / "artifacts"),
            **self.variables,
            **variables,
        }
        command = [
            ACT,
            event,
            "-W",
            workflow,
            "-P",
            "ubuntu-latest=-self-hosted",
            "--no-cache-server",
            "--rm",
            "--json",
        ]
        command += ["-j", job] if job else []
        command += ["--action-cache-path", str(home / "actions"), "-e", str(home / "event.json")]
        command += ["-s", f"GITHUB_TOKEN={ACT_TOKEN}"]
        for name, path in {"runnable/action@v1": self._action(), **_actions()}.items():
            command += ["--local-repository", f"{name}={path}"]
        for name, value in given.items():
            command += ["--env", f"{name}={value}"]
        with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
            process = subprocess.Popen(
                [*alone, *command], cwd=clone, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        machine = Machine(process, home, is_alone=bool(alone))
        try:
            yield machine
        finally:
            machine.lose()

    def _action(self) -> Path:
        """The files of the action alone: act copies a local repository whole, again and again."""
        folder = self.folder / "action"
        if not folder.exists():
            if self.is_prepared:
                shutil.copytree(_prepared(self.wheels), folder)
            else:
                _copy_action(folder)
        return folder


def _copy_action(folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copytree(ROOT / "runnable_ci", folder / "runnable_ci", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("action.yml", "action-requirements.txt"):
        shutil.copy(ROOT / name, folder)


@cache
def _prepared(wheels: Path) -> Path:
    """The action for all tests of this process, whose set-up finds the dependencies; all of it is compiled."""
    temporary = TemporaryDirectory(prefix="prepared-action-")
    atexit.register(temporary.cleanup)
    action = Path(temporary.name) / "action"
    _copy_action(action)
    file = action / "runnable_ci" / "github" / "action" / "set_up.py"
    installing, with_packages = '_require("install the dependencies", [*pip', 'f"{action}\\n"'
    code = file.read_text(encoding="utf-8")
    (line,) = (line for line in code.splitlines() if line.strip().startswith(installing))
    assert with_packages in code
    code = code.replace(line, "    del pip").replace(with_packages, f'f"{{action}}\\n{_packages(wheels)}\\n"')
    file.write_text(code, encoding="utf-8")
    _compile(action / "runnable_ci")
    return action


def _packages(wheels: Path) -> Path:
    """The dependencies of the action, installed and compiled beside their wheels, once for each state of their list."""
    folder = wheels.with_name(f"{wheels.name}-installed")

    def install(partial: Path) -> None:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", str(wheels)]
        command += ["--require-hashes", "--only-binary", ":all:", "--target", str(partial)]
        subprocess.run([*command, "-r", str(ROOT / "action-requirements.txt")], check=True, capture_output=True)
        _compile(partial)

    return _made_once(folder, install)


def _compile(folder: Path) -> None:
    compile_dir(
        folder, quiet=1, force=True, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
    )  # copies differ in time


def _actions() -> dict[str, Path]:
    """What stands for each action that is used, by the reference that the workflows have."""
    found = {}
    for file in [ROOT / "action.yml", *ROOT.glob("workflows/*.yml"), *ROOT.glob(".github/workflows/*.yml")]:
        for line in file.read_text(encoding="utf-8").splitlines():
            words = line.strip().removeprefix("- ").split()
            if words[:1] == ["uses:"] and words[1].startswith("actions/"):
                found[words[1]] = ROOT / "tests" / "actions" / words[1].partition("@")[0].partition("/")[2]
    return found


def _parsed(code: int, out: bytes, err: bytes) -> Ran:
    events: list[dict[str, Any]] = []
    for line in out.decode(errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    summaries = [str(e["content"]) for e in events if e.get("command") == "summary"]
    outputs = {str(e["name"]): str(e["arg"]) for e in events if e.get("command") == "set-output"}
    text = out.decode(errors="replace") + err.decode(errors="replace")
    return Ran(code, events, "\n".join(dict.fromkeys(summaries)), outputs, text)


def wheelhouse(cache: Path) -> Path:
    """A folder with the wheels that the action pins, fetched once for each state of its list."""
    import hashlib

    lock = ROOT / "action-requirements.txt"

    def fetch(partial: Path) -> None:
        command = [sys.executable, "-m", "pip", "download", "-q", "--require-hashes", "--only-binary", ":all:"]
        subprocess.run([*command, "-d", str(partial), "-r", str(lock)], check=True, capture_output=True)

    return _made_once(cache / f"wheels-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}", fetch)


def _made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder, which is there whole or not at all, whichever workers make it."""
    if not folder.exists():
        partial = folder.with_suffix(f".{os.getpid()}.tmp")
        make(partial)
        try:
            partial.rename(folder)
        except OSError:  # another worker was first
            shutil.rmtree(partial)
    return folder
