"""Which content large files had when they were hashed last, across invocations: only one that changed is read again.

As git's index does, it trusts the numbers that a system gives of a file: inode, size, and the times of its last change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from runnable_ci.util.bounded_json import parse_own, with_check

FILE: Final = "hashes.json"
SIZE_MIN: Final = 1024 * 1024
"""Below this many bytes a file is read as fast as its entry."""
_ENTRIES_MAX: Final = 20_000
_FILE_MAX_BYTES: Final = 16 * 1024 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class HashCache:
    """The hashes of a folder's files, kept in the store. What is in there is checked: it may come from anywhere."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._known: dict[str, tuple[list[int], str]] | None = None
        self._is_changed = False

    def get(self, name: str, seen: tuple[int, ...]) -> str | None:
        """Return the sha256 of a file, by its name and its fingerprint (inode, size, times in ns); None if unknown."""
        if seen[1] < SIZE_MIN:
            return None
        known = self._entries().get(name)
        return known[1] if known and known[0] == list(seen) else None

    def put(self, name: str, seen: tuple[int, ...], digest: str) -> None:
        """Note the sha256 of a file that has not changed for long enough for its times to tell."""
        if seen[1] >= SIZE_MIN and self.get(name, seen) != digest:
            entries = self._entries()
            entries.pop(name, None)
            entries[name] = list(seen), digest
            self._is_changed = True

    def save(self, write: Callable[[Path, bytes], object]) -> None:
        """Let the next invocation know; where that cannot be written, it hashes again."""
        if self._file is None or not self._is_changed:
            return
        newest = dict(list(self._entries().items())[-_ENTRIES_MAX:])
        self._is_changed = False
        write(self._file, with_check(json.dumps({"files": newest}, separators=(",", ":")).encode()))

    def _entries(self) -> dict[str, tuple[list[int], str]]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, tuple[list[int], str]]:
        if self._file is None:
            return {}
        try:
            if self._file.is_symlink() or self._file.stat().st_size > _FILE_MAX_BYTES:
                return {}
            found: Any = parse_own(self._file.read_bytes())["files"]
            return {name: (entry[0], entry[1]) for name, entry in found.items() if _is_entry(entry)}
        except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError):
            return {}


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, list) or len(entry) != 2:
        return False
    seen, digest = entry
    is_seen = isinstance(seen, list) and len(seen) == 4 and all(type(number) is int for number in seen)
    return is_seen and isinstance(digest, str) and bool(_SHA256.fullmatch(digest))
