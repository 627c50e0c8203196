"""Which distribution a loaded module belongs to, by what lies beside it.

Source: PyPA specifications, "Recording installed projects".
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path


class Distributions:
    """Looks each folder of installed packages through once."""

    def of(self, libraries: Mapping[str, str]) -> dict[str, str]:
        """Return name → version of the distributions of modules (top-level name → a file of it).

        A module of which no distribution tells has itself for a name, and no version.
        """
        found: dict[str, str] = {}
        for module, file in libraries.items():
            name, version = _installed_in(_folder(file)).get(module, (module, ""))
            found[name] = version
        return dict(sorted(found.items()))


def _folder(file: str) -> str:
    parts = file.split("/")
    last = max((i for i, part in enumerate(parts) if part.endswith("-packages")), default=len(parts) - 2)
    return "/".join(parts[: last + 1])


@cache
def _installed_in(folder: str) -> dict[str, tuple[str, str]]:
    """Top-level module → name and version of the distribution that brought it."""
    found: dict[str, tuple[str, str]] = {}
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.endswith((".dist-info", ".egg-info"))]
    except OSError:
        return found
    for entry in sorted(entries, key=lambda entry: entry.name):
        name, _, version = entry.name.rpartition(".")[0].partition("-")
        for module in _top_level(Path(entry.path)):
            found.setdefault(module, (name, version.partition("-")[0]))
    return found


def _top_level(info: Path) -> Iterator[str]:
    if (named := _text(info / "top_level.txt")) is not None:
        yield from named.split()
        return
    for path in {line.partition(",")[0] for line in (_text(info / "RECORD") or "").splitlines()}:
        first, slash, _ = path.partition("/")
        if first.endswith((".dist-info", ".data")) or first == "..":
            continue
        if slash or first.endswith((".py", ".so")):
            yield first.partition(".")[0]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
