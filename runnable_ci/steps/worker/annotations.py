"""The arguments of the user's function, and the types of their annotations."""

from __future__ import annotations

import inspect
import sys

from .errors import FunctionNotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def signature(function: Any) -> list[inspect.Parameter]:
    """Return the arguments of anything that can be called, in order, with their annotations resolved, or None
    where unknown.

    Decorators that keep what they wrap (`functools.wraps`) are seen through.
    """
    try:
        if sys.version_info >= (3, 14):
            import annotationlib

            # Also where Python cannot evaluate one of them.
            found = inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
        else:
            found = inspect.signature(function)
    except ValueError as error:
        hint = "call it from a function of your own"
        raise FunctionNotFoundError("the arguments of %r are not known to Python" % function, hint=hint) from error
    return [
        argument
        if argument.annotation is argument.empty
        else argument.replace(annotation=resolved(argument.annotation, _namespace(function, argument.name)))
        for argument in found.parameters.values()
    ]


def _namespace(function: Any, argument: str) -> dict[str, Any]:
    """Return where the annotation of an argument was written: the module of the function, or of the class with
    the field.
    """
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


def resolved(annotation: Any, namespace: dict[str, Any]) -> Any:
    """Return the type of an annotation that is a string, None where that cannot be known.

    One at a time, unlike `typing.get_type_hints`, which gives none of them where one name is imported for type
    checkers only.
    """
    annotation = getattr(annotation, "__forward_arg__", annotation)
    if not isinstance(annotation, str):
        return _resolved_inside(annotation, namespace)
    try:
        found = eval(annotation, namespace)  # noqa: S307  # the user's own source, as `typing` evaluates it
    except Exception:
        return None
    return found if isinstance(found, str) else _resolved_inside(found, namespace)


def _resolved_inside(annotation: Any, namespace: dict[str, Any]) -> Any:
    """Resolve `List["Item"]` to `List[Item]`: the members that are strings, where they can be known."""
    inner = members(annotation)
    found = tuple(
        member if isinstance(member, str) or (known := resolved(member, namespace)) is None else known
        for member in inner
    )
    if all(new is old for new, old in zip(found, inner)):
        return annotation
    if is_union(annotation):  # has no `copy_with` since Python 3.14
        return sys.modules["typing"].Union[found]
    copy = getattr(annotation, "copy_with", None)  # of what `typing` made; `list[…]` has none
    return annotation if copy is None else copy(found)


def members(annotation: Any) -> tuple[Any, ...]:
    """Return what stands in the brackets of an annotation, or between the bars of a union."""
    inner = getattr(annotation, "__args__", ())
    return inner if isinstance(inner, tuple) else ()


def is_union(annotation: Any) -> bool:
    """Return whether an annotation is `Union[…]`, `Optional[…]` or `… | …`."""
    typing = sys.modules.get("typing")
    union = getattr(annotation, "__origin__", None) is typing.Union if typing else False
    return union or type(annotation).__name__ == "UnionType"


def is_namespace(annotation: Any) -> bool:
    """Return whether an annotation is `argparse.Namespace`, also an optional one."""
    kinds = [kind for kind in members(annotation) if kind is not type(None)] if is_union(annotation) else [annotation]
    namespace = getattr(sys.modules.get("argparse"), "Namespace", None)
    return namespace is not None and kinds == [namespace]


def model_of(annotation: Any) -> tuple[Any, bool]:
    """Return the pydantic model (known by its methods) or dataclass of an annotation, or None.

    Whether it is optional.
    """
    if is_union(annotation):
        others = [member for member in members(annotation) if member is not type(None)]
        return (model_of(others[0])[0], True) if len(others) == 1 else (None, False)
    marks = ("model_validate", "parse_obj", "__dataclass_fields__", "__attrs_attrs__")
    is_model = isinstance(annotation, type) and any(hasattr(annotation, mark) for mark in marks)
    return (annotation if is_model else None), False
