"""The `{wildcards}` of Snakemake's file names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from runnable_ci.cli.importers.script import Part, Variable

_WILDCARD: Final = re.compile(r"\{\s*(?P<name>\w+)\s*(?:,\s*(?P<constraint>(?:[^{}]+|\{\d+(?:,\d+)?\})*))?\}")


def names_in(pattern: str) -> list[str]:
    """Return the wildcards of a pattern, each once."""
    return list(dict.fromkeys(match["name"] for match in _WILDCARD.finditer(pattern)))


def values_in(pattern: str, path: str, constraints: Mapping[str, str]) -> dict[str, str] | None:
    """Return the values with which a pattern is this path, None if there are none.

    Raises `ValueError` for a pattern of which a constraint is no regular expression.
    """
    match = _expression(pattern, constraints).fullmatch(path)
    return None if match is None else match.groupdict()


def filled(pattern: str, values: Mapping[str, object]) -> str:
    """Return a pattern with values in it; a wildcard without one stays."""
    return _WILDCARD.sub(lambda m: str(values[m["name"]]) if m["name"] in values else m[0], pattern)


def parts_of(pattern: str, variables: Mapping[str, str]) -> Iterator[Part]:
    """Yield a pattern as parts of a script, in which variables have the values of the wildcards."""
    at = 0
    for match in _WILDCARD.finditer(pattern):
        yield pattern[at : match.start()]
        yield Variable(variables[match["name"]]) if match["name"] in variables else match[0]
        at = match.end()
    yield pattern[at:]


def as_expression(pattern: str, variables: Mapping[str, str]) -> str:
    """Return a pattern as a path of the pipeline file: a wildcard is an axis of the matrix."""
    return "".join(
        part if isinstance(part, str) else f"${{{{ matrix.{part.name} }}}}" for part in parts_of(pattern, variables)
    )


def found_in(pattern: str, paths: Iterable[str]) -> dict[str, list[str]]:
    """Return, for each wildcard, its values in the paths that a pattern matches, in their order."""
    found: dict[str, list[str]] = {name: [] for name in names_in(pattern)}
    for path in sorted(paths):
        values = values_in(pattern, path, {})
        for name, value in (values or {}).items():
            found[name].append(value)
    return found


def _expression(pattern: str, constraints: Mapping[str, str]) -> re.Pattern[str]:
    text, at, known = "", 0, set[str]()
    for match in _WILDCARD.finditer(pattern):
        name = match["name"]
        constraint = match["constraint"] or constraints.get(name, ".+")
        text += re.escape(pattern[at : match.start()])
        text += f"(?P={name})" if name in known else f"(?P<{name}>{constraint})"
        known.add(name)
        at = match.end()
    try:
        return re.compile(text + re.escape(pattern[at:]))
    except re.error as e:
        raise ValueError(f"{pattern} has a wildcard whose regular expression is none: {e}") from e
