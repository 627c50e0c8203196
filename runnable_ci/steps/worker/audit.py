"""What the step's own process does, by Python's audit events: files opened, folders listed, addresses connected to.

More exact than a watched file system: it shows who opened a file, and files that were not there. It knows nothing of
what child processes open, or a C library; it only reports that there were some.

Source: PEP 578, Python's table of audit events.
"""

from __future__ import annotations

import os
import resource  # here, before the workspace is on the path: it may have a module of that name
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .workspace import WorkspaceFolder

_CHILDREN = frozenset(
    ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.startfile", "os.system")
)
_IMPORTER = "<frozen importlib._bootstrap_external>"
_OPENING = frozenset(("_dbm", "_gdbm"))
"""Python's own modules that open files themselves, of which no event tells."""
_CONNECTED_MAX = 1000
_READ_MAX = 200_000
_OUTSIDE_MAX = 10_000


class Audit:
    """Records from `begin` on; the hook of Python cannot be taken away again."""

    def __init__(self, workspace: str) -> None:
        self._written_outside: dict[str, None] = {}
        folders = {sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), os.path.dirname(__file__)}
        self._python = tuple(os.path.join(folder, "") for folder in folders)
        self._roots = tuple({os.path.abspath(workspace) + os.sep, os.path.realpath(workspace) + os.sep})
        prefixes = (sys.prefix, sys.base_prefix)
        self._environments = tuple(
            os.path.join(folder, "") for prefix in prefixes for folder in (prefix, os.path.realpath(prefix))
        )
        self.read: dict[str, None] = {}
        """Files of the workspace that were opened for reading, there or not."""
        self.read_outside: dict[str, None] = {}
        """Other files that were opened for reading, but those that were written before, and Python's own."""
        self.written: dict[str, None] = {}
        self.listed: dict[str, bool] = {}
        """Folder of the workspace → whether only the importer listed it."""
        self.connected: dict[str, None] = {}
        self._waited_for = _children_waited_for()
        self.children = False
        """Whether processes were started, of which nothing is known here."""
        self.native = False
        """Whether a library was loaded by hand, which may open files itself."""

    def begin(self) -> None:
        """Record from now on."""
        sys.addaudithook(self._note)

    def report(self, workspace: WorkspaceFolder) -> dict[str, Any]:
        """Return what was recorded, as the response has it."""
        libraries, outside, is_compiled = workspace.foreign()
        return {
            "read": list(self.read)[:_READ_MAX],
            "written": list(self.written)[:_READ_MAX],
            "listed": dict(self.listed),
            "connected": list(self.connected),
            "children": self.children or len(self.read) > _READ_MAX or self._had_children(),
            "native": self.native or is_compiled or not _OPENING.isdisjoint(sys.modules),
            "libraries": libraries,
            "outside": outside,
            "read_outside": list(self.read_outside),
        }

    def _had_children(self) -> bool:
        """Whether there were child processes, as the system knows: multiprocessing and C libraries tell of none."""
        if _children_waited_for() != self._waited_for:
            return True
        waitid = getattr(os, "waitid", None)
        if waitid is None:  # macOS
            return True
        try:
            waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True  # one that runs, or that nobody has waited for

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        try:
            if event == "open":
                self._note_open(*arguments)
            elif event == "os.listdir" or event == "os.scandir":
                self._note_listing(arguments[0])
            elif event in _CHILDREN:
                self.children = True
            elif event == "socket.connect":
                if len(self.connected) < _CONNECTED_MAX:
                    self.connected[_address(arguments[1])] = None
            elif event == "ctypes.dlopen" or event == "sqlite3.connect":
                self.native = True
        except Exception:  # an error in here would be the user's: better to know less
            self.children = True

    def _note_open(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        if mode is None and not os.path.isabs(path):
            self.native = True  # by `os.open`, perhaps from another folder: which one is not said
        full = os.path.abspath(os.fsdecode(path))
        if full.endswith(".pyc"):
            return  # the modules themselves are known
        if (name := self._inner(full)) is None:
            self._note_outside(full, flags)
            return
        way = flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        if way != os.O_WRONLY and name not in self.written:
            self.read[name] = None
        if way != os.O_RDONLY:
            self.written[name] = None

    def _note_outside(self, full: str, flags: Any) -> None:
        if full.startswith(self._python) or full in self._written_outside:
            return
        if flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR) != os.O_RDONLY:
            self._written_outside[full] = None
        elif len(self.read_outside) < _OUTSIDE_MAX:
            self.read_outside[full] = None

    def _note_listing(self, path: Any) -> None:
        if (name := self._inner("." if path is None else path)) is None:
            return
        by_importer = sys._getframe(2).f_code.co_filename == _IMPORTER
        self.listed[name] = by_importer and self.listed.get(name, True)

    def _inner(self, path: Any) -> str | None:
        """Return a path's name in the workspace, None for one outside or a descriptor.

        An environment in it is outside: what it holds is known by its distributions.
        """
        if isinstance(path, int):
            return None
        full = os.path.abspath(os.fsdecode(path))
        if full.startswith(self._environments) or "/site-packages" in full or "/dist-packages" in full:
            return None
        for root in self._roots:
            if full.startswith(root):
                return full[len(root) :]
            if full + os.sep == root:
                return ""
        return None


def _children_waited_for() -> object:
    """Return what is different once another child was waited for: the memory that all of them touched."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)[:8]


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        return "%s:%s" % address[:2]
    return "unix:%s" % os.fsdecode(address) if isinstance(address, (str, bytes)) else "unknown"
