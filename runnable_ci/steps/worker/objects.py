"""Objects as pickles: made and loaded in the user's interpreter only."""

from __future__ import annotations

import os
import pickle

from .errors import NotPicklableError, UnreadableObjectError, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(path: str, name: str) -> Any:
    """Return the object; `UnreadableObjectError`, caused by the true error, where this interpreter cannot load it."""
    try:
        with open(path, "rb") as file:
            return pickle.load(file)
    except Exception as error:
        problem = "object `%s` cannot be loaded: %s: %s" % (name, type(error).__name__, error)
        hint = "this step's interpreter needs the modules of the step that returned `%s`" % name
        raise UnreadableObjectError(problem, hint=hint) from error


def dump(value: Any, path: str, *, name: str, function: Any, what: str) -> str:
    """Return the pickler that wrote the value: `pickle`, else `cloudpickle` or `dill` where the environment has them.

    The file appears whole or not at all; `NotPicklableError`, caused by pickle's own error, where none can write it.
    """
    temporary = "%s.%d.part" % (path, os.getpid())
    failures: dict[str, Exception] = {}
    for pickler in ("pickle", "cloudpickle", "dill"):
        if pickler == "pickle" or _installed(pickler):
            failure = _attempt(pickler, value, temporary)
            if failure is None:
                os.replace(temporary, path)
                return pickler
            failures[pickler] = failure
    os.unlink(temporary)
    problem = "%s returned `%s` of type %s, which %s cannot serialize"
    problem %= (what, name, type_name(value), " and ".join(failures))
    hint = "install cloudpickle in the environment of the step"
    if len(failures) > 1:
        hint = "return the data that the object is made from"
    raise NotPicklableError(problem, hint=hint, at=function) from failures["pickle"]


def _attempt(pickler: str, value: Any, path: str) -> Exception | None:
    """Return what the pickler has against the value, if anything."""
    module = __import__(pickler)
    try:
        with open(path, "wb") as file:
            module.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)
    except OSError:  # a full disk is no fault of the value
        raise
    except Exception as error:
        return error
    return None


def _installed(pickler: str) -> bool:
    try:
        __import__(pickler)
    except ImportError:
        return False
    return True
