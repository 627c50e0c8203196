"""The arguments of what is not a plain function: classes, methods, partials, decorated functions, built-ins."""

from __future__ import annotations

import inspect
import sys

from .arguments import REQUIRED, resolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def inspected(function: Any) -> list[tuple[str, int, Any, Any]]:
    """As `arguments.signature` gives it; decorators that keep what they wrap (`functools.wraps`) are seen through."""
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            found = inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
        else:
            found = inspect.signature(function)
    except ValueError as error:
        from .failures import FunctionNotFoundError

        hint = "call it in a function of your own"
        raise FunctionNotFoundError("the arguments of %r are not known to Python" % function, hint=hint) from error
    return [
        (
            argument.name,
            int(argument.kind),
            REQUIRED if argument.default is argument.empty else argument.default,
            None
            if argument.annotation is argument.empty
            else resolved(argument.annotation, _namespace(function, argument.name)),
        )
        for argument in found.parameters.values()
    ]


def _namespace(function: Any, argument: str) -> dict[str, Any]:
    """Where the annotation of an argument was written: the module of the function, or of the class with the field."""
    if isinstance(function, type):
        owners = [base for base in function.__mro__ if argument in vars(base).get("__annotations__", ())]
        return vars(sys.modules[(owners or [function])[0].__module__])
    while True:
        if hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif hasattr(function, "__func__"):
            function = function.__func__
        elif hasattr(function, "func"):  # a partial
            function = function.func
        else:
            break
    return getattr(function, "__globals__", {})
