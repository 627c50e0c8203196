"""Runs the program in forks of a process that has loaded it, which takes a tenth of the time of a start.

Each is a process of its own, with a folder, an environment and streams of its own; what is held in common are the
loaded modules alone. What Python itself takes of the environment when it starts is that of the server.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from pydantic import BaseModel

PROGRAM = str(Path(sys.executable).with_name("runnable-ci"))
_OF_PYTHON = ("PYTHON", "LC_", "LANG", "TZ", "LD_", "MALLOC_", "COVERAGE_")
"""How variables begin that a process takes when it starts."""
_AT_START = {"LANG": "C.UTF-8"}
_STARTING = threading.Lock()
_REQUEST_BYTES = 1 << 20
_NOT_LOADED = ("__main__", "notebook.execute", "notebook.kernel_main")
"""Modules that only the user's interpreter runs, which change its process."""


@cache
def load_all() -> None:
    """Load every module of the program, for all children."""
    import runnable_ci

    for module in pkgutil.walk_packages(runnable_ci.__path__, "runnable_ci."):
        if not module.name.endswith(_NOT_LOADED):
            importlib.import_module(module.name)
    _build(BaseModel)
    gc.freeze()  # children need not look at what they share


def _build(model: type[BaseModel]) -> None:
    """Have the models of the program ready that are else built when they are first needed."""
    for one in model.__subclasses__():
        if one.__module__.startswith("runnable_ci."):
            one.model_rebuild(raise_errors=False)
        _build(one)


def run_program(
    arguments: Sequence[str], *, folder: Path, environ: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end in a folder, with nothing to read and its output kept, as `subprocess.run` does."""
    if {name: value for name, value in environ.items() if name.startswith(_OF_PYTHON)} != _AT_START:
        command = [PROGRAM, *arguments]
        return subprocess.run(
            command, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s
        )
    streams = [os.pipe(), os.pipe()]
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = json.dumps({"arguments": [*arguments], "folder": str(folder), "environ": dict(environ)}).encode()
    with own, other:
        _server().send(request, [other.fileno(), *(write for _, write in streams)])
        other.close()
        for _, write in streams:
            os.close(write)
        written = _read_all([read for read, _ in streams], own, timeout_s, arguments)
        code = int(own.recv(64) or b"-9")
    return subprocess.CompletedProcess([PROGRAM, *arguments], code, *written)


def _read_all(streams: list[int], answers: socket.socket, timeout_s: float, arguments: Sequence[str]) -> list[bytes]:
    """Return what was written until nobody can write more; a process that takes too long is killed."""
    pid, until, found = int(answers.recv(64)), time.monotonic() + timeout_s, dict.fromkeys(streams, b"")
    with selectors.DefaultSelector() as selector:
        for read in streams:
            selector.register(read, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired([PROGRAM, *arguments], timeout_s, *found.values())
            for key, _ in ready:
                read = key.fd
                more = os.read(read, 1 << 16)
                found[read] += more
                if not more:
                    selector.unregister(read)
                    os.close(read)
    return [*found.values()]


class _Server:
    """The process that has loaded the program."""

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES)
        self._lock = threading.Lock()
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_OF_PYTHON)} | _AT_START
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environ)

    def send(self, request: bytes, descriptors: list[int]) -> None:
        """Ask for a run, whose streams and answers are these."""
        with self._lock:
            socket.send_fds(self._requests, [request], descriptors)


@cache
def _started() -> _Server:
    return _Server()


def _server() -> _Server:
    """Return the server of this process, started when it is first asked for."""
    with _STARTING:
        return _started()


def serve(requests: socket.socket) -> None:
    """Run what is asked for, each in a child; return in the child, and in the server once nobody can ask."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == requests.fileno():
                    request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
                    if not request:
                        os._exit(0)
                    pid = os.fork()
                    if not pid:
                        selector.close()
                        for descriptor, (_, answers) in running.items():
                            os.close(descriptor)
                            os.close(answers)
                        requests.close()
                        os.close(descriptors[0])
                        become(**json.loads(request), streams=descriptors[1:])
                        return
                    os.write(descriptors[0], str(pid).encode())
                    for descriptor in descriptors[1:]:
                        os.close(descriptor)
                    ended = os.pidfd_open(pid)
                    running[ended] = (pid, descriptors[0])
                    selector.register(ended, selectors.EVENT_READ)
                else:
                    pid, answers = running.pop(key.fd)
                    _, status = os.waitpid(pid, 0)
                    with suppress(BrokenPipeError):
                        os.write(answers, str(os.waitstatus_to_exitcode(status)).encode())
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    os.close(answers)


def become(folder: str, environ: Mapping[str, str], arguments: Sequence[str], streams: Sequence[int]) -> None:
    """Make this child of a process that has loaded the program one that starts it in a folder, with these streams."""
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    for stream in {*streams}:
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [PROGRAM, *arguments]
    importlib.reload(importlib.import_module("runnable_ci.util.clock"))  # which counts from when its process began


def _end(main: Callable[[], object]) -> None:
    """Call this, and end as the interpreter would: but for taking apart what was loaded, which takes half the time."""
    try:
        main()
        code = 0
    except SystemExit as left:
        if not isinstance(left.code, int):
            raise
        code = left.code
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    sys.path[0] = str(Path(PROGRAM).parent)
    asked = socket.socket(fileno=int(sys.argv[1]))
    load_all()
    serve(asked)
    from runnable_ci.__main__ import main

    _end(main)
