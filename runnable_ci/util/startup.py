"""Start-up and exit without the garbage collector: nothing that loads is garbage, and the search takes long."""

from __future__ import annotations

import gc


def begin() -> None:
    """Collect nothing for now."""
    gc.disable()


def done() -> None:
    """Collect from now on, as work that takes long needs it, but never look again at what was loaded."""
    gc.freeze()
    gc.enable()


def end() -> None:
    """Leave everything to the system: the interpreter looks through all that is not frozen before it exits."""
    gc.freeze()
