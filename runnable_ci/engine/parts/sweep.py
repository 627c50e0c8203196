"""One run for each value of a parameter: `--sweep depth=3,5,7`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Final, NamedTuple

from runnable_ci.errors import UsageError

RUNS_MAX: Final = 100
_OPENING, _CLOSING, _QUOTES = "[{(", "]})", "\"'"


class SweptRun(NamedTuple):
    """One of the runs of a sweep."""

    run_id: str
    params: Sequence[str]
    """Its own values, each as `NAME=VALUE`."""

    def __str__(self) -> str:
        return ", ".join(" = ".join(text.partition("=")[::2]) for text in self.params)


def swept_runs(sweeps: Sequence[str], params: Sequence[str], base_id: str) -> list[SweptRun]:
    """Return a run for each combination of the values of `sweeps`, each `NAME=VALUE,VALUE,…`.

    `params` are the other values that were given. Raises `UsageError` for a sweep that cannot be read, a parameter that
    is given twice, and for too many runs.
    """
    taken = {text.partition("=")[0] for text in params}
    axes: dict[str, list[str]] = {}
    for text in sweeps:
        name, equals, values = text.partition("=")
        found = [value.strip() for value in split_values(values)]
        if not equals or not name or "" in found:
            raise UsageError(f"--sweep {text}: expected NAME=VALUE,VALUE,…", hint="such as --sweep depth=3,5,7")
        if len(set(found)) < len(found):
            raise UsageError(f"--sweep {text}: a value is given twice", hint="give each value once")
        if name in axes:
            raise UsageError(f"--sweep: `{name}` is given twice", hint=f"write it as one: --sweep {name}=…,…")
        if name in taken:
            raise UsageError(f"`{name}` is given to --sweep and --param", hint="give one of the two")
        axes[name] = found
    combinations = 1
    for found in axes.values():
        combinations *= len(found)
    if combinations > RUNS_MAX:
        raise UsageError(f"--sweep: {combinations} runs, more than {RUNS_MAX}", hint="sweep over fewer values")
    named = [[f"{name}={value}" for value in found] for name, found in axes.items()]
    width = len(str(combinations))
    return [SweptRun(f"{base_id}-{i:0{width}}", values) for i, values in enumerate(product(*named), start=1)]


def split_values(text: str) -> Iterator[str]:
    """Yield the values of a list with commas, of which those within brackets and quotes are parts of a value."""
    depth, quote, begin = 0, "", 0
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        elif letter in _OPENING:
            depth += 1
        elif letter in _CLOSING:
            depth -= 1
        elif letter == "," and depth <= 0:
            yield text[begin:at]
            begin = at + 1
    yield text[begin:]
