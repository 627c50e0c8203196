"""What the user's own interpreter runs for a notebook step; it needs nbclient and ipykernel there, nothing else.

    python execute.py REQUEST.json

It starts the kernel, executes the cells once and in order, passes their output on as it comes, and leaves the executed
notebook and the step's response.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile

if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # this folder, which Python puts there for its main script

try:
    import nbformat
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, DeadKernelError
except ModuleNotFoundError as missing:
    _install = "%s -m pip install nbclient ipykernel" % sys.executable
    raise SystemExit("no module `%s`: notebooks are executed by it\nhint: %s" % (missing.name, _install)) from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_CELL_FILE = re.compile(r"\([0-9]+\.py, ")
"""The name of a cell in the message of a syntax error."""
_LITERAL_MAX = 10_000
_SOCKET_PATH_MAX = 90
"""Of the folder of a kernel's sockets: their whole path may have 107 bytes, on macOS 103. Source: unix(7)."""
_PARAMETERS, _INJECTED = "parameters", "injected-parameters"
_START = """
import sys
package = type(sys)("_runnable_ci_worker")
package.__path__ = [folder]
sys.modules[package.__name__] = package
setting, sys.dont_write_bytecode = sys.dont_write_bytecode, False
__import__(package.__name__ + ".notebook_kernel", fromlist=["begin"]).begin(request)
sys.dont_write_bytecode = setting
"""
_FINISH = "__import__('sys').modules['_runnable_ci_worker.notebook_kernel'].finish(%r, %r)"


class _StoppedError(BaseException):
    """The step is to end: it was cancelled, or its time is up."""


class _OwnKernel(KernelSpecManager):  # type: ignore[misc]
    """Knows one kernel: that of this interpreter, whether it is installed as a kernel or not."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return it, whatever the name."""
        main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernel_main.py")
        # The working directory is put on the path by `begin`.
        argv = [sys.executable, main, "--IPKernelApp.ignore_cwd=True", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class _Client(NotebookClient):  # type: ignore[misc]
    """Shows what cells write as it comes."""

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Pass on streams, then let nbclient store them."""
        if msg["msg_type"] == "stream":
            stream = sys.stderr if msg["content"]["name"] == "stderr" else sys.stdout
            stream.write(msg["content"]["text"])
            stream.flush()
        return super().process_message(msg, cell, cell_index)


class _Execution:
    """A notebook that is executed, and what becomes of it."""

    def __init__(self, request: dict[str, Any], sockets: str) -> None:
        self.request = request
        try:
            self.notebook = _read(request["notebook"])
        except Exception as error:
            raise SystemExit("%s is not a notebook: %s" % (request["name"], error)) from None
        self.place = 0
        """Of the cell that is executed."""
        self.is_dead = False
        """Whether the kernel is."""
        kernel = request["kernel"]
        self.manager = AsyncKernelManager(
            kernel_name=kernel or "python3",
            connection_file=os.path.join(sockets, "kernel.json"),
            transport="tcp" if len(sockets) > _SOCKET_PATH_MAX else "ipc",
            **({} if kernel else {"kernel_spec_manager": _OwnKernel()}),
        )
        try:
            self.is_python = self.manager.kernel_spec.language.lower() == "python"
        except NoSuchKernel:
            raise SystemExit("%s has no kernel `%s`" % (sys.executable, kernel)) from None
        self.parameters: dict[str, Any] = request["parameters"] if self.is_python else {}
        self.numbers = _prepare(self.notebook, self.parameters)
        self.client = _Client(
            self.notebook, km=self.manager, timeout=None, record_timing=False, shutdown_kernel="immediate"
        )

    def response(self) -> dict[str, Any]:
        """Return the step's response after the cells were executed, or one of them failed."""
        answer: dict[str, Any] = {}
        error: dict[str, Any] | None = None
        try:
            with self.client.setup_kernel(cleanup_kc=True):
                if self.is_python:
                    self._begin()
                error = self._execute()
                answer = self._finish(is_failed=error is not None) if self.is_python else {}
        except _StoppedError:
            error = self._error("Stopped", "it was stopped before it was done", "")
        except Exception as failure:
            message = "its kernel did not answer: %s" % failure
            error = error or _shown({"type": type(failure).__name__, "message": message})
        if error is not None:
            self._complete(error, answer)
        elif answer.get("error"):
            error = {**_shown(answer["error"]), "file": self.request["name"]}
        return {
            "status": "failed" if error else "ok",
            "exit_code": _exit_code(error),
            "consumed": list(self.parameters),
            "defaulted": self.request["defaulted"],
            "returns": answer.get("returns", {}),
            "modules": answer.get("modules", {}),
            "error": error,
            "report": answer.get("report"),
        }

    def _begin(self) -> None:
        """Prepare a kernel of Python."""
        path = os.path.join(self.request["scratch"], "kernel_request.json")
        with open(path, "w", encoding="utf-8") as file:
            names = ("name", "scratch", "workspace", "path", "parameters", "returns", "pythonpath")
            json.dump({name: self.request[name] for name in names}, file)
        self._run_silently("exec(%r, {'folder': %r, 'request': %r})" % (_START, self.request["worker"], path))

    def _execute(self) -> dict[str, Any] | None:
        """Execute the cells; return the error of the one that failed."""
        for place, cell in enumerate(list(self.notebook.cells)):
            self.place = place
            try:
                self.client.execute_cell(cell, place)
            except CellExecutionError as failed:
                if failed.ename == "SystemExit" and failed.evalue in ("", "0", "None"):
                    return None
                outputs = [output for output in cell.outputs if output.output_type == "error"]
                trace = "\n".join(outputs[-1].traceback) if outputs else failed.traceback
                return self._error(failed.ename or "Error", _CELL_FILE.sub("(", failed.evalue), _ANSI.sub("", trace))
            except DeadKernelError:
                self.is_dead = True
                return self._error("DeadKernelError", "its kernel died%s" % self._how_it_died(), "")
        return None

    def _finish(self, *, is_failed: bool) -> dict[str, Any]:
        """Return what the kernel knows of what became of its notebook; nothing where it is dead."""
        path = os.path.join(self.request["scratch"], "kernel_response.json")
        if self.is_dead:
            return {}
        self._run_silently(_FINISH % (path, is_failed))
        with open(path, encoding="utf-8") as file:
            answer: dict[str, Any] = json.load(file)
        return answer

    def _run_silently(self, code: str) -> None:
        """Execute code of which the notebook shows nothing."""
        reply = self.client.wait_for_reply(self.client.kc.execute(code, silent=True, store_history=False))
        if reply["content"]["status"] != "ok":
            raise RuntimeError(_ANSI.sub("", "\n".join(reply["content"].get("traceback", []))))

    def _how_it_died(self) -> str:
        process = getattr(self.manager.provisioner, "process", None)
        code = getattr(process, "returncode", None)
        if code is None or code >= 0:
            return ": exit code %d" % code if code else ""
        hint = ": often the memory ran out" if code == -signal.SIGKILL else ""
        return " by %s%s" % (signal.Signals(-code).name, hint)

    def _error(self, kind: str, message: str, trace: str) -> dict[str, Any]:
        """Return the error of the cell that is executed, after it was shown."""
        if not self.numbers:
            return _shown({"type": kind, "message": message})
        cell, number, name = self.notebook.cells[self.place], self.numbers[self.place], self.request["name"]
        where = "cell %d of %s" % (number, name) if number else "the cell of parameters, added to %s," % name
        source = "\n".join("    " + line for line in cell.source.splitlines())
        shown = "%s failed:\n%s\n%s\n" % (where, source, trace or "%s: %s" % (kind, message))
        sys.stderr.write(shown)
        place = {"cell": number, "cell_source": cell.source}
        return {"type": kind, "message": message, "hint": "", "traceback": shown, **place}

    def _complete(self, error: dict[str, Any], answer: dict[str, Any]) -> None:
        """Add to an error what the kernel knows of it."""
        error["file"], error["line"] = answer.get("file") or self.request["name"], answer.get("line")
        error["cell_line"] = answer.get("cell_line", 0)
        if answer.get("hint"):
            error["hint"] = answer["hint"]
            error["traceback"] += "hint: %s\n" % answer["hint"]
            sys.stderr.write("hint: %s\n" % answer["hint"])


def main(request_path: str) -> int:
    """Return the exit code of the step that the request file describes; what became of it is in the response file."""
    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    os.unlink(request_path)  # parameters may be secrets, and nobody tidies up after a process that is killed
    if canary := os.environ.get("RUNNABLE_CANARY"):  # shows that what a container opens is seen outside of it
        with contextlib.suppress(OSError):
            open(canary).close()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    sockets = tempfile.mkdtemp(prefix="kernel-", dir=_folder_of_sockets())
    os.environ["IPYTHONDIR"] = os.path.join(sockets, "ipython")  # a person's start-up files stay out of it
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # else older kernels warn of how Python is built
    try:
        execution = _Execution(request, sockets)
        response = execution.response()
        with open(request["executed"], "w", encoding="utf-8") as file:
            file.write(nbformat.writes(execution.notebook))
        with open(request["response"] + ".part", "w", encoding="utf-8") as file:
            json.dump(response, file)
        os.replace(request["response"] + ".part", request["response"])
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
    exit_code: int = response["exit_code"]
    return exit_code


def _shown(found: dict[str, Any]) -> dict[str, Any]:
    """Return an error that is none of a cell, after it was shown."""
    hint = "\nhint: %s" % found["hint"] if found.get("hint") else ""
    shown = "%s: %s%s\n" % (found["type"], found["message"], hint)
    sys.stderr.write(shown)
    return {**found, "traceback": shown}


def _exit_code(error: dict[str, Any] | None) -> int:
    if error is None:
        return 0
    left = re.fullmatch(r"[0-9]+", error["message"]) if error["type"] == "SystemExit" else None
    return (int(left[0]) & 0xFF or 1) if left else 1


def _folder_of_sockets() -> str:
    """Return the folder of temporary files, or a shorter one where it is too long for sockets."""
    usual, short = tempfile.gettempdir(), "/tmp"  # noqa: S108 - a folder of its own is made in it
    return short if len(usual) > _SOCKET_PATH_MAX - len("/kernel-12345678") and os.access(short, os.W_OK) else usual


def _stop(_number: int, _frame: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # once is enough: what follows is soon done
    raise _StoppedError


def _read(text: str) -> Any:
    """Return a notebook in format 4, whose cells have no ids drawn by lot: equal ones are to have equal results."""
    document = json.loads(text)
    if document["nbformat"] == 4 and document.get("nbformat_minor", 0) >= 5:
        for number, cell in enumerate(document["cells"], 1):
            cell.setdefault("id", "cell-%d" % number)
        return nbformat.reads(json.dumps(document), as_version=4)
    notebook = nbformat.reads(text, as_version=4)
    if document["nbformat"] < 4:
        notebook.nbformat_minor = 4
        for cell in notebook.cells:
            cell.pop("id", None)
    return notebook


def _prepare(notebook: Any, parameters: dict[str, Any]) -> list[int]:
    """Remove what an execution left, and add the cell of parameters where papermill has it.

    Returns the place of each cell in the source, 0 for the one that was added.
    """
    cells = [(number, cell) for number, cell in enumerate(notebook.cells, 1) if not _has_tag(cell, _INJECTED)]
    for _, cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    lines = list(_assignments(parameters))
    if lines:
        added = nbformat.v4.new_code_cell("\n".join(["# Parameters", *lines]), metadata={"tags": [_INJECTED]})
        added.pop("id", None)
        if notebook.nbformat_minor >= 5:
            added["id"] = _INJECTED
        tagged = [place for place, (_, cell) in enumerate(cells) if _has_tag(cell, _PARAMETERS)]
        cells.insert(tagged[0] + 1 if tagged else 0, (0, added))
    notebook.cells = [cell for _, cell in cells]
    return [number for number, _ in cells]


def _has_tag(cell: Any, tag: str) -> bool:
    return tag in (cell.metadata.get("tags") or ())


def _assignments(parameters: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that give a notebook its parameters: values that can be read, others by their import."""
    for name, source in parameters.items():
        text = repr(source["value"]) if source["kind"] == "json" else ""
        if text and len(text) <= _LITERAL_MAX:
            yield "%s = %s" % (name, text)
        else:
            yield "from runnable_parameters import %s" % name


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
