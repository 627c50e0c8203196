"""A step with values in the place of the `${{ … }}` in its texts. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.container import Container
from runnable_ci.pipeline.expressions import ExpressionError, Template, template
from runnable_ci.pipeline.expressions.lookups import texts_in
from runnable_ci.pipeline.expressions.template import OPEN
from runnable_ci.pipeline.expressions.values import text as text_of
from runnable_ci.pipeline.schema import Place
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import check_input, check_relative, is_excluded, shown

_WILDCARD: Final = re.compile(r"[*?\[]")
_OUTSIDE: Final = "paths are relative to the pipeline file's folder, and stay in it"


def texts_of(step: Step) -> Iterator[tuple[str, str, str]]:
    """Yield the texts of a step in which expressions have values: the key, the name in the table of that key, and
    the text.
    """
    for name, value in step.arguments.items():
        yield from (("with", name, text) for text in texts_in(value))
    for name, text in step.env.items():
        yield "env", name, text
    patterns = (("get", step.get), ("put", step.put), ("reads", step.reads), ("ignore-reads", step.ignore_reads))
    for key, paths in (*patterns, ("checkpoint", step.checkpoint)):
        yield from ((key, "", path) for path in paths or ())
    yield "working-directory", "", step.working_directory
    if step.container is not None:
        yield from (("container", "", text) for _, text in step.container.texts())
    if step.kind == "notebook":
        yield "notebook", "", step.command


def located(place: Place, table: str, key: str, name: str, text: str, e: ExpressionError) -> PipelineError:
    """Return the error of an expression in a text of a step's table."""
    where = f"{table}.catalog" if key in ("get", "put") else table
    keys = [key] if not name else [key, name]
    at = f" in {shown(text)}" if text != "" else ""
    return place.error(where, f"{'.'.join(keys)}: {e.message}{at}", e.hint, key=keys)


def rendered(step: Step, contexts: Mapping[str, Any]) -> Step:
    """Return a step with the values of these contexts in its texts; `with` stays as it is, since it may be any value.

    A text that needs others stays, with what is known in it. Raises `ExpressionError`, also for a path or a variable
    that cannot be.
    """
    if not step.has_expressions():
        return step
    folder = _file("working-directory", step.working_directory, contexts)
    return step._replace(
        env={name: _variable(name, text, contexts) for name, text in step.env.items()},
        get=None if step.get is None else _globs("get", step.get, contexts),
        put=_globs("put", step.put, contexts),
        unstored=_globs("put", step.unstored, contexts),
        reads=None if step.reads is None else _globs("reads", step.reads, contexts),
        ignore_reads=_globs("ignore-reads", step.ignore_reads, contexts),
        checkpoint=_globs("checkpoint", step.checkpoint, contexts),
        metrics=tuple(_metrics_file(path, contexts) for path in step.metrics),
        executed=_file("executed", step.executed, contexts),
        command=_file("notebook", step.command, contexts) if step.kind == "notebook" else step.command,
        working_directory=folder if OPEN in folder else str(PurePosixPath(folder)),
        container=step.container and _container(step.container, contexts),
    )


def value_of(written: Any, contexts: Mapping[str, Any]) -> Any:
    """Return a value of `with`, with values in place of the expressions in its texts. Raises `ExpressionError`."""
    match written:
        case str():
            return template(written).value(contexts)
        case Mapping():
            return {key: value_of(item, contexts) for key, item in written.items()}
        case list() | tuple():
            return [value_of(item, contexts) for item in written]
        case _:
            return written


def _container(container: Container, contexts: Mapping[str, Any]) -> Container:
    found = container.with_values(lambda text: _variable("container", text, contexts))
    if problem := found.problem():
        raise ExpressionError(f"container: {problem}")
    return found


def _is_known(text: str, contexts: Mapping[str, Any]) -> bool:
    return all(path[0] in contexts for path in template(text).references())


def _variable(name: str, text: str, contexts: Mapping[str, Any]) -> str:
    if OPEN not in text:
        return text
    if not _is_known(text, contexts):
        return template(text).bound(contexts)
    value = template(text).render(contexts)
    if "\0" in value:
        raise ExpressionError(f"env: the value of {name} has a NUL character")
    return value


def _globs(key: str, paths: tuple[str, ...], contexts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_glob(key, path, contexts) for path in paths))


def _glob(key: str, text: str, contexts: Mapping[str, Any]) -> str:
    if OPEN not in text:
        return text
    if not _is_known(text, contexts):
        return template(text).bound(contexts, _escaped)
    path = _path(key, template(text), contexts, _escaped)
    _check(path, key, check_input if key == "get" else check_relative)
    return path


def _file(key: str, text: str, contexts: Mapping[str, Any]) -> str:
    if OPEN not in text:
        return text
    if not _is_known(text, contexts):
        return template(text).bound(contexts)
    path = _path(key, template(text), contexts, str)
    _check(path, key, check_relative)
    return path


def _metrics_file(text: str, contexts: Mapping[str, Any]) -> str:
    path = _file("metrics", text, contexts)
    if path != text and OPEN not in path and _WILDCARD.search(path):
        raise ExpressionError(f"metrics: {shown(path)} is not the path of a file")
    return path


def _check(path: str, key: str, check: Callable[[str, Callable[[str], Exception]], None]) -> None:
    check(path, lambda message: ExpressionError(f"{key}: {message}", hint=_OUTSIDE))
    if is_excluded(path):
        raise ExpressionError(f"{key}: {shown(path)} is never stored")


def _path(key: str, path: Template, contexts: Mapping[str, Any], escape: Callable[[str], str]) -> str:
    """Return a path with values in it, which may have a `/`; one that is empty is refused."""
    texts = [part if isinstance(part, str) else text_of(part.evaluate(contexts)) for part in path.parts]
    for part, text in zip(path.parts, texts, strict=True):
        if not isinstance(part, str) and not text:
            raise ExpressionError(f"{key}: `{part}` is empty in {shown(path.text)}")
    pairs = zip(path.parts, texts, strict=True)
    return "".join(text if isinstance(part, str) else escape(text) for part, text in pairs)


def _escaped(text: str) -> str:
    """Return text as a glob has it that means nothing else."""
    return _WILDCARD.sub(lambda found: f"[{found[0]}]", text)
