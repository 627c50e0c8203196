"""Which of the loaded modules are the user's own."""

from __future__ import annotations

import os
import sys
import time

_RACY_S = 2.0
_OUTSIDE_MAX = 1000


class WorkspaceFolder:
    """The user's folder, without what is installed in it: `site-packages`, the interpreter, its environment."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._root = _folder(root)
        self._real_root = _folder(os.path.realpath(root))
        library = os.path.dirname(os.__file__)
        self._library = _folder(library)
        roots = (self._root, self._real_root)
        environments = [prefix for prefix in (sys.prefix, sys.base_prefix) if prefix.startswith(roots)]
        self._foreign = tuple(_folder(folder) for folder in [library, *environments])

    def relative(self, file: str) -> str | None:
        """Return the path of a file of the user's below the workspace, with `/`, or None for any other file."""
        if not os.path.isabs(file):  # the `<string>` of code without a file
            return None
        path, root = os.path.normpath(file), self._root
        if not path.startswith(root):
            if "-packages/" in path or path.startswith(self._foreign):
                return None  # most modules: spares them the links on their path
            path, root = os.path.realpath(path), self._real_root
        inner = path[len(root) :]
        if not path.startswith(root) or path.startswith(self._foreign):
            return None
        return None if "site-packages/" in inner or "dist-packages/" in inner else inner

    def _forget_cache(self, module: object, changed: float) -> None:
        """Remove the byte code of a module that was changed within seconds: Python knows times to the second only.

        A fix of the same size within the same second would otherwise run as the mistake that it fixes.
        """
        cached = getattr(module, "__cached__", None)
        if isinstance(cached, str) and abs(time.time() - changed) < _RACY_S:
            try:
                os.unlink(cached)
            except OSError:  # not written, or not ours to remove: then it is not ours that is stale
                return

    def foreign(self) -> tuple[dict[str, str], dict[str, str], bool]:
        """Return what was loaded that is neither the user's nor Python's own.

        Top-level module of an installed package → a file of it; other module → its file; and whether one of them is
        compiled, and so may open files that Python does not tell of.
        """
        libraries: dict[str, str] = {}
        outside: dict[str, str] = {}
        is_compiled = False
        for name, module in list(sys.modules.items()):
            try:
                file = object.__getattribute__(module, "__dict__").get("__file__")
            except AttributeError:
                continue
            if not isinstance(file, str) or not os.path.isabs(file) or name.startswith("_runnable_ci_worker"):
                continue
            if "-packages/" in file:
                libraries.setdefault(name.partition(".")[0], file)
            elif file.startswith(self._library) or name == "__main__" or self.relative(file) is not None:
                continue
            elif len(outside) < _OUTSIDE_MAX:
                outside[name] = file
            is_compiled = is_compiled or file.endswith(".so")
        return libraries, outside, is_compiled

    def note(self, modules: dict[str, list[int]]) -> None:
        """Add the modification time (ns) and size (bytes) of each loaded module of the user's not yet in `modules`."""
        for name, module in list(sys.modules.items()):
            if name == "__main__" or name.startswith("_runnable_ci_worker"):
                continue
            try:
                # Asking a lazy module itself would load it.
                file = object.__getattribute__(module, "__dict__").get("__file__")
            except AttributeError:  # anything may stand in sys.modules
                continue
            path = self.relative(file) if isinstance(file, str) else None
            if path is None or path in modules:
                continue
            try:
                state = os.stat(file)
            except OSError:  # gone since, or inside a zip file
                continue
            modules[path] = [state.st_mtime_ns, state.st_size]
            self._forget_cache(module, state.st_mtime)


def _folder(path: str) -> str:
    return os.path.join(path, "")
