"""What this process opens and lists, known before it happens, in any thread, by Python's audit events (PEP 578)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_EVENTS: Final = frozenset({"open", "os.listdir", "os.scandir"})
_listeners: list[Callable[[bytes], object]] = []
_hooks: list[object] = []


def listen(listener: Callable[[bytes], object]) -> None:
    """Call with the absolute path of each file and folder that is opened. It must be safe in an audit hook."""
    if not _hooks:  # it cannot be taken away again
        sys.addaudithook(_hear)
        _hooks.append(_hear)
    _listeners.append(listener)


def unlisten(listener: Callable[[bytes], object]) -> None:
    """Call it no more."""
    _listeners[:] = [one for one in _listeners if one != listener]


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if not _listeners or event not in _EVENTS or not isinstance(opened := arguments[0], str | bytes | os.PathLike):
        return
    path = os.fsencode(opened)
    if not path.startswith(b"/"):
        if event == "open" and arguments[1] is None:
            return  # by `os.open`, perhaps in another folder than this process is in
        with suppress(OSError):  # that folder is gone
            path = os.path.normpath(os.path.join(os.getcwdb(), path))
    for listener in _listeners:
        listener(path)
