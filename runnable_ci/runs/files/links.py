"""Links among the files of the catalog: which there are, which targets are safe, what a link brings with it. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.patterns import select
from runnable_ci.pipeline.validation import is_excluded
from runnable_ci.runs.model import FOLDER, LINK, CatalogEntry, RunLog, StepLog
from runnable_ci.store.target import Descriptor

LINKS_MAX = 40
"""So many links in a row are followed, as the kernel does."""
MODE, MTIME, LINK_TARGET = "vnd.runnable.mode", "vnd.runnable.mtime", "vnd.runnable.link"
"""Annotations of files: permissions in octal, seconds since 1970, and where a link points to."""


@dataclass(frozen=True, slots=True)
class Found:
    """What globs find, by names from the folder."""

    names: dict[str, list[str]]
    """Glob → what it finds, sorted."""
    links: dict[str, str]
    """Which of these are links that are kept as such → target, as it is kept."""
    folders: frozenset[str]
    """Which of these are empty folders."""
    unfit: dict[str, RunnableError]
    """What cannot be kept → why; only where that is not raised."""

    def kind_of(self, name: str) -> str:
        """Return the kind of a name, in the words of the catalog."""
        return LINK if name in self.links else FOLDER if name in self.folders else ""

    def all_names(self) -> set[str]:
        """Return the names that any of the globs finds."""
        return {name for names in self.names.values() for name in names}


NOTHING = Found({}, {}, frozenset(), {})


def check_target(name: str, target: str, error: Callable[[str], RunnableError]) -> None:
    """Raise `error(message)` for a link whose target is not a place in the workspace.

    `..` may stand at the beginning only. So the place is known from the texts alone, whatever other links there are:
    each link leads from one place of the workspace to another one, and thereby any chain of them does.
    """
    parts = target.split("/")
    up = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
    depth = len(PurePosixPath(name).parts) - 1
    inner = parts[up:]
    if not target or "\0" in target or target.startswith("/") or up > depth or ".." in inner:
        raise error(f"a link that points outside the workspace: {name}")
    if is_excluded(target):
        raise error(f"a link into a repository or a store: {name}")


def place_of(name: str, target: str) -> str:
    """Return the place in the workspace to which a link points."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def check_entries(entries: Iterable[CatalogEntry], error: Callable[[str], RunnableError]) -> None:
    """Raise `error(message)` for links that lead astray, and for a file that would be written through one."""
    among = list(entries)
    links = {entry.name for entry in among if entry.kind == LINK}
    for entry in among:
        if entry.kind == LINK:
            check_target(entry.name, entry.target, error)
        if links and not links.isdisjoint(map(str, PurePosixPath(entry.name).parents)):
            raise error(f"a file behind a link of the same run: {entry.name}")


def selected(patterns: Sequence[str], entries: Mapping[str, CatalogEntry]) -> dict[str, CatalogEntry]:
    """Return the entries that globs mean, and those that links among these lead to, so that no link is broken."""
    return with_what_links_lead_to({name for pattern in patterns for name in select(pattern, entries)}, entries)


def with_what_links_lead_to(names: Collection[str], entries: Mapping[str, CatalogEntry]) -> dict[str, CatalogEntry]:
    """Return these entries, and those that links among them lead to."""
    found = set(names)
    links = links_of(entries)
    waiting = [name for name in found if name in links]
    while waiting:
        new = set(_led_to(waiting.pop(), links, entries)) - found
        found |= new
        waiting += [name for name in new if name in links]
    return {name: entry for name, entry in entries.items() if name in found}


def is_behind_link(name: str, entries: Mapping[str, CatalogEntry]) -> bool:
    """Return whether a name is a file of a folder to which a link among these entries leads: it is one of theirs."""
    above = map(str, PurePosixPath(name).parents)
    return any(folder in entries and entries[folder].kind == LINK for folder in above)


def selected_behind_links(pattern: str, entries: Mapping[str, CatalogEntry]) -> list[tuple[str, str]]:
    """Return what a glob finds by the names that files have behind links to folders, as `latest/f`: link and file."""
    found: dict[str, tuple[str, str]] = {}
    for link, target in links_of(entries).items():
        place = place_of(link, target)
        below = [name for name in entries if name.startswith(f"{place}/")]
        found |= {f"{link}{name.removeprefix(place)}": (link, name) for name in below}
    return [found[name] for name in select(pattern, found)]


def links_of(entries: Mapping[str, CatalogEntry]) -> dict[str, str]:
    """Return the links among entries → their targets."""
    return {name: entry.target for name, entry in entries.items() if entry.kind == LINK}


def readable(entries: Mapping[str, CatalogEntry]) -> dict[str, CatalogEntry]:
    """Return the names of entries that can be read → the file that each is, or leads to."""
    links = links_of(entries)
    files = ((name, followed(name, entries, links)) for name in entries)
    return {name: file for name, file in files if file is not None and file.kind != FOLDER}


def followed(
    name: str, entries: Mapping[str, CatalogEntry], links: Mapping[str, str] | None = None
) -> CatalogEntry | None:
    """Return the file to which a name leads through links, where they are known already through these.

    None where that is none of the entries.
    """
    links = links_of(entries) if links is None else links
    for _ in range(LINKS_MAX):
        if not links or _link_in(name, links) is None:
            return entries.get(name)
        name = _through(name, links)
    return None


def points_to(name: str, text: str, place: str) -> bool:
    """Return whether the text of a link, as it was on any machine, points to a place of the workspace."""
    if text.startswith("/"):
        return text.endswith(f"/{place}")
    return place_of(name, text) == place


def _led_to(name: str, links: Mapping[str, str], names: Collection[str]) -> Iterable[str]:
    """Yield the names at or below the place to which a link points, and the links on the way there."""
    place = place_of(name, links[name])
    for _ in range(LINKS_MAX):
        on_the_way = _link_in(place, links)
        if on_the_way is None:
            break
        yield on_the_way
        place = _through(place, links)
    yield from (other for other in names if place == "." or other == place or other.startswith(f"{place}/"))


def _link_in(place: str, links: Collection[str]) -> str | None:
    parents = [*reversed([str(parent) for parent in PurePosixPath(place).parents]), place]
    return next((parent for parent in parents if parent in links), None)


def _through(place: str, links: Mapping[str, str]) -> str:
    """Return a place with the first link on the way replaced by what that points to."""
    link = _link_in(place, links)
    if link is None:
        return place
    return posixpath.normpath(posixpath.join(place_of(link, links[link]), place[len(link) + 1 :]))


class StoredFile(NamedTuple):
    """A file of an attempt that a plain pull leaves."""

    attempt: int
    entry: CatalogEntry
    content: Descriptor


def stored_files(step: StepLog) -> Iterator[StoredFile]:
    """Yield the files that the store has of each attempt, the last attempt's first.

    A link is a file of the same content as the one that it leads to: clients of registries make no links.
    """
    for attempt in reversed(step.attempts):
        files = step.data_catalog if attempt is step.attempts[-1] else attempt.data_catalog
        kept = {entry.name: entry for entry in files if entry.stage != "get" or entry.kept}
        for entry in files:
            if entry.stage == "get" and not entry.kept:
                continue
            file = followed(entry.name, kept) if entry.kind == LINK else entry
            if file is not None and file.has_content:
                notes = {LINK_TARGET: entry.target} if entry.kind == LINK else _file_notes(entry)
                digest = f"sha256:{file.data_hash}"
                yield StoredFile(attempt.attempt_number, entry, Descriptor(file.media_type, digest, file.size, notes))


def _file_notes(entry: CatalogEntry) -> dict[str, str]:
    if not entry.mtime_ns:
        return {}
    return {MODE: f"{entry.mode & 0o777:04o}", MTIME: f"{entry.mtime_ns // 10**9}.{entry.mtime_ns % 10**9:09}"}


def put_files(log: RunLog) -> dict[str, CatalogEntry]:
    """Return the files that the steps of a run put, by their names; of a link what it leads to."""
    put = {entry.name: entry for step in log.steps.values() for entry in step.put_entries()}
    found = {name: followed(name, put) for name in put}
    return {name: entry for name, entry in found.items() if entry is not None and not entry.kind}
