"""A place in the pipeline file, as messages name and show it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.diagnostics.positions import Span, key_spans
from runnable_ci.util.shell_command import command

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HIDDEN = frozenset({"env", "parameters", "secrets", "registry", "credentials"})
"""Keys whose values may be secrets: an excerpt has only the key."""
_SHOWN_MAX = 120
_BEFORE_MAX = 60


def error_at(
    place: tuple[str, str, str], table: str, message: str, hint: str, key: str | Sequence[str]
) -> PipelineError:
    """Return the error of a table, or of a key in it; `place` is the file, the pipeline's table in it, and its text."""
    file, prefix, content = place
    full = ".".join(part for part in (prefix, table) if part)
    keys = [key] if isinstance(key, str) else list(key)
    path = [*(full.split(".") if full else []), *keys]
    spans = key_spans(content)
    known = next((path[:end] for end in range(len(path), 0, -1) if tuple(path[:end]) in spans), None)
    span = spans[tuple(known)] if known else None
    where = f"{file}:{span.line}" if span else file
    text = f"{where}: {f'[{full}] ' if full else ''}{message}"
    return PipelineError(
        # A quoted key may hold anything, also what would move a terminal's cursor.
        _CONTROL.sub(lambda found: repr(found[0])[1:-1], text),
        hint=hint,
        excerpt=_excerpt_of(content, known, spans) if known else (),
        file=file,
        line=span.line if span else 0,
    )


def _excerpt_of(content: str, path: Sequence[str], spans: dict[tuple[str, ...], Span]) -> tuple[str, ...]:
    at = next((at for at, key in enumerate(path) if key in _HIDDEN), None)
    is_list_of_names = at is not None and path[at] == "parameters" and "steps" in path[:at]
    hidden = None if at is None or is_list_of_names else spans.get(tuple(path[: at + 1]))
    span = spans[tuple(path)]
    text = content.split("\n")[span.line - 1]
    if hidden is None:
        return excerpt(text, span)
    if hidden.line == span.line:
        return excerpt(f"{text[: hidden.end]} = …", hidden)
    return excerpt(f"{text[: span.end]} = …", span)


def excerpt(text: str, span: Span) -> tuple[str, ...]:
    """Return a line of a file with its number, and below it the mark of a span; of a long line what is around that."""
    text = _HARMFUL.sub("\N{REPLACEMENT CHARACTER}", text)
    cut = max(span.start - _BEFORE_MAX, 0) if len(text) > _SHOWN_MAX else 0
    shown = f"{'…' if cut else ''}{text[cut : cut + _SHOWN_MAX]}{'…' if len(text) > cut + _SHOWN_MAX else ''}"
    number = f"  {span.line} | "
    before = " " * bool(cut) + re.sub(r"[^\t]", " ", text[cut : span.start])
    width = max(min(span.end, cut + _SHOWN_MAX, len(text)) - span.start, 1)
    return (f"{number}{shown.rstrip()}", f"{' ' * (len(number) - 2)}| {before}{'^' * width}")


def other_format(file: PurePosixPath) -> str:
    """Return a hint for a pipeline file that is of another format by its name; empty for any other."""
    match file.suffix:
        case ".py":
            return f'a pipeline is a TOML file with a step for it: [steps.{file.stem}] with run = "python {file.name}"'
        case ".yml" | ".yaml" | ".json" | ".ipynb" | ".sh":
            return f"a pipeline is a TOML file: `{command('init')}` writes one to begin with"
        case _:
            return ""
