"""What an attempt read, as a document that is stored beside the run log, and its comparison with what is there now.

An attempt is a verifying trace: it may be reused where everything that it read compares equal.
"""

import json
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runnable_ci.errors import RunLogError

READS_MAX_BYTES: Final = 32 * 1024 * 1024
READS_MAX_ENTRIES: Final = 200_000
"""Above this an attempt has not been seen: what it read is not compared entry by entry."""
GIT: Final = ".git"
"""The path of every look at a repository's own folder: one fact, "asked git"."""
MODULE_SUFFIXES: Final = (".py", ".pyc", ".so", ".pyd", ".zip", ".egg-link")

Grade = Literal["seen", "possible"]
"""`seen`: by this attempt. `possible`: by it, or by another one that ran at the same time."""


class _Part(BaseModel):
    """A part of the document; fields of a newer version are ignored."""

    model_config = ConfigDict(extra="ignore", defer_build=True, frozen=True)


class FileRead(_Part):
    """A file whose content was read; `digest` is its sha256 as the attempt found it, "" where that is not known."""

    digest: str
    grade: Grade = "seen"
    changed_while_running: bool = False
    """It was written to meanwhile, and not by the step: it compares equal to nothing.

    Nor does a file without a digest, which was written to by another step before it was hashed.
    """
    left: str | None = None
    """sha256 of what the step itself left there, "" where it removed the file, if what it found is not known."""


class ListingRead(_Part):
    """A folder whose names were read: those of the workspace's own, and those that steps before this one made there."""

    names: list[str]
    grade: Grade = "seen"
    modules_only: bool = False
    """Only an importer looked: names that could be modules are all that counts."""
    unsettled: list[str] = Field(default_factory=list)
    """Names that came or went while other steps ran, and that it was shown, or may have been.

    They are in `names` too where they surely were there before.
    """


class ReadSet(_Part):
    """What one attempt read. Paths are relative to the workspace, posix; `""` is the workspace itself."""

    version: Literal[1] = 1
    files: dict[str, FileRead] = Field(default_factory=dict)
    listings: dict[str, ListingRead] = Field(default_factory=dict)
    absent: dict[str, Grade] = Field(default_factory=dict)
    """Files that were looked for, and were not there."""
    links: dict[str, str] = Field(default_factory=dict)
    """Symbolic link through which something was read → where it pointed to."""
    removed: list[str] = Field(default_factory=list)
    """Files that the attempt itself removed."""
    outside: dict[str, str] = Field(default_factory=dict)
    """Modules from outside the repository that are no distribution's, and other files there: absolute path → sha256."""
    distributions: dict[str, str] = Field(default_factory=dict)
    """Imported: name → version."""
    imports_seen: bool = False
    """Whether `distributions` has all that were imported: by a python step that started no other process."""
    connected: list[str] = Field(default_factory=list)
    """Network addresses that the step connected to."""
    asked_git: Grade | None = None
    declared: list[str] | None = None
    """The step's `reads`: all files that these globs matched are in `files`, opened or not."""

    def uncertain_names(self, counts: Callable[[str], bool] = lambda _path: True) -> list[str]:
        """Return the paths of which only chance says whether they were listed, of those that count."""
        paths = (posixpath.join(at, name) for at, listing in self.listings.items() for name in listing.unsettled)
        return [path for path in paths if counts(path)]

    def encode(self) -> bytes:
        """Return the document; the same for the same reads."""
        return json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":")).encode()


def decode_reads(document: bytes, *, where: str) -> ReadSet:
    """Return the read set of a document. Raises `RunLogError` where it is none."""
    try:
        return ReadSet.model_validate_json(document)
    except ValidationError as e:
        raise RunLogError(f"{where} is not a record of reads: {e.errors()[0]['msg']}") from e


class Present(NamedTuple):
    """What is there now, as a step would find it: products of the steps before it count as they will be restored."""

    digest_of: Callable[[str], str | None]
    """Path → sha256 of the file's content; None where there is no such file."""
    names_in: Callable[[str], Iterable[str]]
    """Folder → the names in it, without what later or parallel steps made."""
    link_of: Callable[[str], str]
    """Path → where that symbolic link points to; "" where it is none."""


class ReadDifference(NamedTuple):
    """One read that does not compare equal: `what` is such as `changed`, `is gone`, `changed while the step ran`."""

    path: str
    what: str
    how: str = "it read"
    """What the step did with it, as the end of a sentence."""
    folder: str | None = None
    """The folder that was listed, where the name alone is read."""

    def __str__(self) -> str:
        return f"{self.path or '.'} {self.what}"


def differences(reads: ReadSet, present: Present, *, ignore: Callable[[str], bool]) -> Iterator[ReadDifference]:
    """Yield what differs between a read set and what is there now; paths that `ignore` names are left out."""
    for path, read in reads.files.items():
        if ignore(path):
            continue
        if what := _difference(read, present.digest_of(path)):
            yield ReadDifference(path, what, "it read" if read.grade == "seen" else "it may have read")
    for folder, listing in reads.listings.items():
        yield from _listed(folder, listing, present, {*reads.files, *reads.removed}, ignore)
    for path, digest in reads.outside.items():
        now = present.digest_of(path)
        if now != digest and not ignore(path):
            yield ReadDifference(path, "is gone" if now is None else "changed")
    for path in reads.absent:
        if not ignore(path) and present.digest_of(path) is not None:
            yield ReadDifference(path, "is new", "it looked for")
    for path, target in reads.links.items():
        if not ignore(path) and present.link_of(path) != target:
            yield ReadDifference(path, "points elsewhere")


def _difference(read: FileRead, now: str | None) -> str:
    """Return what is different about a file, whose sha256 is `now` this; empty where nothing is."""
    if read.left is not None:
        return "changed" if (now or "") != read.left else ""
    if now is None:
        return "is gone"
    if read.changed_while_running:
        return "changed while the step ran"
    if not read.digest:
        return "changed before it was hashed"
    return "changed" if now != read.digest else ""


def _listed(
    folder: str,
    listing: ListingRead,
    present: Present,
    named: Collection[str],
    ignore: Callable[[str], bool],
) -> Iterator[ReadDifference]:
    now = listed_names(present.names_in(folder), modules_only=listing.modules_only)
    for name in sorted(now ^ set(listing.names)):
        path = posixpath.join(folder, name)
        if not ignore(path) and path not in named:  # a file that was read is named already, one that it removed is not
            is_sure = listing.grade == "seen" and name not in listing.unsettled
            how = "it listed" if is_sure else "it may have listed"
            yield ReadDifference(path, "is new" if name in now else "is gone", how, folder)


def listed_names(names: Iterable[str], *, modules_only: bool) -> set[str]:
    """Return the names of a listing that count: no caches, no editors' files; for an importer what could be modules."""
    kept = {name for name in names if not is_tool_file(name)}
    if modules_only:  # a folder without a dot may be a package
        return {name for name in kept if name.endswith(MODULE_SUFFIXES) or "." not in name}
    return kept


_TOOL_NAMES: Final = frozenset({GIT, ".runnable", "__pycache__", ".DS_Store", "4913", ".ipynb_checkpoints"}) | {
    *(".mypy_cache", ".pytest_cache", ".ruff_cache", ".tox", ".nox", ".hypothesis")
}


def is_tool_file(name: str) -> bool:
    """Whether a name is that of a cache, or of an editor's own file: no step has to do with it."""
    if name in _TOOL_NAMES or name.endswith(("~", ".pyc")):
        return True
    is_swap = name.startswith(".") and len(name) > 4 and name[-4:-1] == ".sw"
    return is_swap or (name.startswith("#") and name.endswith("#")) or name.startswith(".#")
