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
from tempfile import TemporaryDirectory

from pydantic import BaseModel

from runnable_ci.config.handed_over import HANDED_OVER

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


_STAND_IN = """#!{python} -IS
import os, socket, sys
from json import dumps

words, environ = sys.argv[1:], dict(os.environ)
taken = {{name for name in environ if environ[name] and name.startswith({of_python}) and not name.startswith("PYTHON")}}
handed = environ.get({handed_over!r})
if words[:2] == ["-I", "-m"] and taken == {{*{at_start}}}:
    request = {{"module": words[2], "arguments": words[3:], "folder": os.getcwd(), "environ": environ}}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect({address!r})
        streams = [1, 2, *([int(handed)] if handed else [])]
        socket.send_fds(server, [dumps({{**request, "executable": sys.argv[0]}}).encode()], streams)
        pid, code = int(server.recv(64)), int(server.recv(64) or b"-9")
    os.kill(os.getpid(), -code) if code < 0 else os._exit(code)
os.execv({python!r}, [{python!r}, *words])
"""


@cache
def stand_in() -> str:
    """A program that does what this interpreter does with `-I -m` and a module of the program, in a fork.

    What runs in it is no child of what called it, and no signal to that reaches it.
    """
    folder = TemporaryDirectory(prefix="stand-in-")
    atexit.register(folder.cleanup)
    address, program = str(Path(folder.name) / "socket"), Path(folder.name) / "python"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    values = {"python": sys.executable, "of_python": _OF_PYTHON, "at_start": [*_AT_START]}
    program.write_text(_STAND_IN.format(**values, handed_over=HANDED_OVER, address=address))
    program.chmod(0o700)
    threading.Thread(target=_pass_on, args=(listener,), daemon=True).start()
    return str(program)


def _pass_on(listener: socket.socket) -> None:
    """Have the server do what is asked for, and answer itself."""
    while True:
        connection, _ = listener.accept()
        with connection:
            request, streams, _, _ = socket.recv_fds(connection, _REQUEST_BYTES, 3)
            if request:
                _server().send(request, [connection.fileno(), *streams])
            for stream in streams:
                os.close(stream)


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


def serve(requests: socket.socket) -> str:
    """Run what is asked for, each in a child; return the module to run in the child."""
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == requests.fileno():
                    request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 4)
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
                        return become(**json.loads(request), streams=descriptors[1:])
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


def become(
    folder: str,
    environ: Mapping[str, str],
    arguments: Sequence[str],
    streams: Sequence[int],
    module: str = "runnable_ci",
    executable: str = "",
) -> str:
    """Make this child of a process that has loaded the program one that starts it in a folder, with these streams.

    The third stream is what was handed over. Return the module that is started. A step of the action becomes the
    program by this executable.
    """
    for number, stream in enumerate(streams[:2], 1):
        os.dup2(stream, number)
    for stream in {*streams[:2]}:
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    if streams[2:]:
        os.environ[HANDED_OVER] = str(streams[2])
    if module != "runnable_ci" or arguments[:1] == ["action"]:
        sys.executable = executable or sys.executable
    sys.argv = [PROGRAM, *arguments]
    importlib.reload(importlib.import_module("runnable_ci.util.clock"))  # which counts from when its process began
    return module


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
    name = serve(asked)
    _end(importlib.import_module(f"{name}.__main__" if name == "runnable_ci" else name).main)
