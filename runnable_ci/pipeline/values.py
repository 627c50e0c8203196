"""A value as text: lines `name=value` as in GitHub's files, JSON where it is JSON, and a variable's text. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from runnable_ci.errors import StepError


def parse_output(text: str) -> dict[str, str]:
    """Return name → text of lines `name=value` and blocks `name<<EOF`, as in GitHub's files; a later one wins.

    Raises `StepError` with the line number for anything else.
    """
    found: dict[str, str] = {}
    # Only line feeds end a line: what else Python's `splitlines` takes for an end may stand in a value.
    lines = ((i, line.removesuffix("\r")) for i, line in enumerate(text.split("\n"), start=1))
    for number, line in lines:
        if not line.strip():
            continue
        name, equals, value = line.partition("=")
        block, heredoc, delimiter = line.partition("<<")
        if heredoc and delimiter and len(block) < len(name):
            body: list[str] = []
            for _, inner in lines:
                if inner == delimiter:
                    break
                body.append(inner)
            else:
                raise StepError(f"line {number}: the block of `{block}` has no end `{delimiter}`")
            found[block.strip()] = "\n".join(body)
        elif equals and name.strip():
            found[name.strip()] = value
        else:
            raise StepError(f"line {number}: expected `name=value` or `name<<EOF`, got `{line[:100]}`")
    return found


def parse_value(text: str) -> Any:
    """Return JSON where the text is JSON, else the text itself."""
    try:
        return json.loads(text, parse_constant=str, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _finite(digits: str) -> float | str:
    return number if math.isfinite(number := float(digits)) else digits


def environment_text(value: Any) -> str:
    """Return a parameter as an environment variable: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
