"""Files of which no event tells: those outside of the repository, and those that a step looked for in vain.

Outside nothing is watched, and what belongs to the system or to installed programs is the environment, not an input. An
opening that fails is seen of python steps alone; of shell scripts the words tell.
"""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from runnable_ci.observe.reads import ListingRead, ReadSet
from runnable_ci.observe.source_files import read_source

HASHED_MAX_BYTES: Final = 64 * 1024 * 1024
"""A larger file is compared by its size and time."""
FILES_MAX: Final = 1000
_SYSTEM: Final = (
    *("/bin/", "/boot/", "/dev/", "/etc/", "/lib/", "/lib32/", "/lib64/"),
    *("/proc/", "/run/", "/sbin/", "/sys/", "/usr/"),
)
_WORDS: Final = re.compile(r"""[\s'"();|&<>=`,]+""")
"""A word with a `$` stays one: what it names is not known."""
_PATH: Final = re.compile(r"[A-Za-z0-9_.@+-][\w.@+*?\[\]{}-]*(?:/[\w.@+*?\[\]{}-]+)+")
_WRITTEN: Final = re.compile(r"[0-9&]?>{1,2}[|&]?\s*(?:\"[^\"]*\"|'[^']*'|[^\s;|&<>()]+)")
"""What the shell sends output to: it is not read."""
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_WILDCARD: Final = re.compile(r"[*?\[{]")
_SHELL: Final = (".sh", ".bash")


def is_environment(path: str) -> bool:
    """Whether an absolute path belongs to the system, to an installed program, or to a person's settings and caches."""
    return path.startswith(_SYSTEM) or "/." in path or "-packages/" in path or "__pycache__" in path


def outside_digest(path: str) -> str | None:
    """Return what says which content a file has: its sha256, or size and time of a large one; None if it is none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return None
            if found.st_size > HASHED_MAX_BYTES:
                return f"size {found.st_size} time {found.st_mtime_ns}"
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def expanded(word: str, environ: Mapping[str, str]) -> str:
    """Return a word of a command with its variables, and `~`, as the shell reads them; unset ones are empty."""
    return _VARIABLE.sub(lambda name: environ.get(name[1] or name[2], ""), re.sub(r"^~(?=/)", "$HOME", word))


def named_in(command: str, folder: str, around: str, environ: Mapping[str, str]) -> list[str]:
    """Return the files outside of a repository that a command names: absolute paths. It runs in `folder`.

    `~`, variables of the `environ` and wildcards are what the shell makes of them. What it sends output to is not read.
    """
    found: dict[str, None] = {}
    reading = _WRITTEN.sub(" ", command)
    unquoted = reading.replace('"', "").replace("'", "")
    for word in dict.fromkeys((*_WORDS.split(reading), *_WORDS.split(unquoted))):
        word = expanded(word, environ)  # noqa: PLW2901
        if not word.startswith("/") and "../" not in word:
            continue
        path = os.path.join(folder, word)
        paths = islice(glob.iglob(path), FILES_MAX) if _WILDCARD.search(word) else (path,)
        for path in map(os.path.realpath, paths):
            if not f"{path}/".startswith(f"{around}/") and not is_environment(path) and os.path.isfile(path):
                found[path] = None
    return list(found)[:FILES_MAX]


def with_missing(reads: ReadSet, command: str, root: str, folder: str) -> ReadSet:
    """Return the reads of a step that ran in a `folder` of the workspace, with what its script names and is not there.

    A path with a slash may have been looked for, and the folder before a wildcard listed; also in the shell's scripts
    that it read.
    """
    scripts = [read_source(f"{root}/{path}") for path in reads.files if path.endswith(_SHELL)]
    texts = [command, *(script.decode(errors="replace") for script in scripts)]
    absent, listings = {}, {}
    for word in _words(texts):
        path = posixpath.normpath(posixpath.join(folder, word))
        place = posixpath.dirname(path[: found.start()]) if (found := _WILDCARD.search(path)) else path
        if not place or place.startswith("..") or os.path.lexists(f"{root}/{place}"):
            continue
        if found:
            listings[place] = ListingRead(names=[], grade="possible")
        else:
            absent[place] = "possible"
    update = {"absent": {**absent, **reads.absent}, "listings": {**listings, **reads.listings}}
    return reads.model_copy(update=update) if absent or listings else reads


def _words(texts: Iterable[str]) -> set[str]:
    return {word for text in texts for word in _WORDS.split(text) if _PATH.fullmatch(word)}
