"""What lay where a step may write, just before its process started: what differs afterwards the step wrote.

A folder `unfinished/RUN_ID.STEP.ATTEMPT` of the store has it until the attempt is recorded, with copies of the user's
files, so that what a killed attempt did can still be undone.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runnable_ci.errors import BlobCorruptError, StoreError
from runnable_ci.pipeline.patterns import literal_prefix
from runnable_ci.runs.model import FOLDER, LINK
from runnable_ci.runs.products.index import StoredContent, decode_content
from runnable_ci.runs.products.unfinished import UNFINISHED
from runnable_ci.store.local import Layout
from runnable_ci.store.plain import make_folders
from runnable_ci.store.target import Descriptor, verified
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import copy_and_hash, fingerprint, is_sparse, open_nofollow
from runnable_ci.util.shell_command import path as typed

_FILE = "baseline.json"
_NEW = "baseline.new"
_TICK_NS = 20_000_000
"""Clocks of file systems tick every 1 to 10 ms: what is changed within one tick has one time."""
_WHOLE_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class FileBefore:
    """A file that was there before the step began."""

    seen: tuple[int, ...]
    """Its fingerprint; of a link its own, of a folder none."""
    content: StoredContent
    copy: str = ""
    """The name of its copy in the baseline's folder; empty where the store has the content, or nobody."""
    made_by: str = ""
    """`RUN_ID/STEP.ATTEMPT` of the step that made it; empty for a file of the user."""
    step: str = ""
    """The step that made it."""
    was: StoredContent | None = None
    """What the user had in its place, where it is a product."""


@dataclass(slots=True)
class Baseline:
    """The files that a step's patterns match, and its inputs, before it ran."""

    folder: Path
    workspace: Path
    files: dict[str, FileBefore] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    """The folders that the patterns name and that were there."""

    @classmethod
    def begin(cls, layout: Layout, workspace: Path, title: str) -> Baseline:
        """Return the empty baseline of an attempt, whose folder is made."""
        folder = layout.folder / UNFINISHED / title
        shutil.rmtree(folder, ignore_errors=True)
        make_folders(folder, within=layout.folder)
        return cls(folder, workspace)

    def copy(self, name: str) -> tuple[str, StoredContent]:
        """Copy a file of the workspace into the folder: the copy's name, and its content."""
        source, number = self.workspace / name, str(len(self.files))
        found = source.stat()
        sparse = is_sparse(found)
        with source.open("rb", buffering=0) as opened, (self.folder / number).open("x+b") as copy:
            digest, size = copy_and_hash(opened, copy, sparse=sparse)
        os.utime(self.folder / number, ns=(found.st_atime_ns, found.st_mtime_ns))
        (self.folder / number).chmod(found.st_mode & 0o777)
        mode = found.st_mode & 0o777
        return number, StoredContent(digest, size, mode, mtime_ns=found.st_mtime_ns, sparse=sparse)

    def see_folders(self, patterns: Iterable[str]) -> None:
        """Note which of the folders that the globs name are there."""
        heads = {head for pattern in patterns for head in _heads(pattern)}
        self.folders = tuple(sorted(head for head in heads if (self.workspace / head).is_dir()))

    def folder_of(self, name: str) -> str:
        """Return the folder above a file that was there before."""
        return max((head for head in self.folders if name.startswith(f"{head}/")), key=len, default="")

    def save(self) -> None:
        """Write it down; from now on each change of a file shows."""
        newest = max((max(before.seen[2:]) for before in self.files.values() if before.seen), default=0)
        wait_ns = newest + _TICK_NS - time.time_ns()
        if 0 < wait_ns <= _TICK_NS:
            time.sleep(wait_ns / 1e9)
        document = {
            "of": self.folder.name,
            "folders": self.folders,
            "files": {name: asdict(before) for name, before in self.files.items()},
        }
        written = self.folder / _NEW
        written.write_bytes(with_check(json.dumps(document).encode()))
        written.replace(self.folder / _FILE)

    @classmethod
    def load(cls, folder: Path, workspace: Path) -> Baseline | None:
        """Return what was written down in a folder; None where nothing was: the process was never started.

        Raises `StoreError` for what is damaged: nobody can tell what the attempt wrote.
        """
        try:
            with open(folder / _FILE, "rb", opener=open_nofollow) as file:
                document = file.read()
        except FileNotFoundError:
            return None
        try:
            found = parse_own(document)
            _check_attempt(folder, found)
            files = {str(name): _decode(before) for name, before in found["files"].items()}
            for before in files.values():
                _check_copy(folder, before)
            return cls(folder, workspace, files, tuple(str(head) for head in found["folders"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, BlobCorruptError) as e:
            raise StoreError(
                f"{folder} is damaged: it has what a killed attempt found in {workspace}, to be put back",
                hint=f"look at the files there, then: rm -r {shlex.quote(typed(folder))}",
            ) from e

    def remove(self) -> None:
        """Forget it: what became of the attempt is recorded."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_written(self, name: str) -> bool:
        """Return whether a file is new, was written or is gone since."""
        before = self.files.get(name)
        if before is None:
            return True
        if before.content.kind == FOLDER:
            return not (self.workspace / name).is_dir()
        now = None
        with suppress(OSError):
            now = fingerprint(self.workspace / name, follow_links=before.content.kind != LINK)
        if now != before.seen:
            return True
        # A clock of whole seconds: only the content tells whether it was written within the one in which it was seen.
        is_coarse = before.seen[3] % _WHOLE_SECOND_NS == 0
        return is_coarse and bool(before.copy) and not _same_bytes(self.workspace / name, self.folder / before.copy)


def _heads(pattern: str) -> Iterable[str]:
    """Yield the folders that a glob names."""
    parts = literal_prefix(pattern).split("/")[:-1]
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while (chunk := first.read(1 << 20)) == second.read(1 << 20):
            if not chunk:
                return True
    return False


def _check_attempt(folder: Path, found: Mapping[str, Any]) -> None:
    """Raise for what another attempt wrote down; an earlier version did not say whose it is."""
    if found.get("of", folder.name) != folder.name:
        raise ValueError("it is another attempt's")


def _check_copy(folder: Path, before: FileBefore) -> None:
    """Raise `BlobCorruptError` for a copy that is not what it was, `OSError` where it is gone."""
    if before.copy:
        with open(folder / before.copy, "rb", opener=open_nofollow) as file:
            for _ in verified(file, Descriptor.of_hash(before.content.sha256, before.content.size), label=f"{folder}"):
                pass


def _decode(fields: Mapping[str, Any]) -> FileBefore:
    copy, was = fields["copy"], fields["was"]
    if copy and not (isinstance(copy, str) and copy.isdecimal()):
        raise ValueError("not the name of a copy")
    return FileBefore(
        seen=tuple(map(int, fields["seen"])),
        content=decode_content(fields["content"]),
        copy=copy,
        made_by=str(fields["made_by"]),
        step=str(fields["step"]),
        was=None if was is None else decode_content(was),
    )
