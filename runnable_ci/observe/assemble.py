"""From what was seen of an attempt to what it read: contents are hashed here, after the step has ended."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from runnable_ci.observe.distributions import Distributions
from runnable_ci.observe.importer import is_explained
from runnable_ci.observe.outside import FILES_MAX, outside_digest
from runnable_ci.observe.reads import (
    FileRead,
    Grade,
    ListingRead,
    ReadSet,
    is_tool_file,
    listed_names,
)
from runnable_ci.observe.source_files import read_source
from runnable_ci.observe.trace import NAMED, Trace
from runnable_ci.observe.watcher import Event


class LoadedLibrary(NamedTuple):
    """A library for linear algebra or threads, as the run log has it."""

    name: str
    kind: str
    version: str
    threads: int


class WorkerReport(NamedTuple):
    """What a python step's own process knows of itself: exact, but blind for its children and for C libraries."""

    read: tuple[str, ...] = ()
    """Files of the workspace that it opened for reading, there or not."""
    written: frozenset[str] = frozenset()
    """Files of the workspace that it opened for writing."""
    listed: Mapping[str, bool] = MappingProxyType({})
    """Folder of the workspace → whether only the importer listed it."""
    modules: tuple[str, ...] = ()
    """Modules of the workspace that it loaded, by their paths."""
    connected: tuple[str, ...] = ()
    libraries: Mapping[str, str] = MappingProxyType({})
    """Top-level module of an installed package → a file of it."""
    outside: Mapping[str, str] = MappingProxyType({})
    """Module that is neither the workspace's nor installed → its file."""
    read_outside: tuple[str, ...] = ()
    """Files outside of the workspace that it opened for reading, without those of the environment."""
    numeric: tuple[LoadedLibrary, ...] = ()
    """What it had loaded for linear algebra and threads."""
    has_children: bool = False
    """Whether it started processes."""
    is_complete: bool = False
    """Whether nothing but its own Python code opened files: no child process, no native library."""


class AttemptView(NamedTuple):
    """What must be known beside the trace."""

    root: str
    """The workspace, without links on the way to it."""
    started_ns: int
    """When the attempt began, in nanoseconds since 1970."""
    digest_of: Callable[[str], str | None]
    """Path → sha256 of its content now; None where it is not there."""
    names_in: Callable[[str], Iterable[str]]
    """Folder → names in it that count: without what this step, later or parallel ones made."""
    before: Mapping[str, str]
    """Path → sha256 of what the step found there, of files that it then wrote to, as far as known."""
    links: Mapping[str, str]
    command: str
    around: str
    """The repository around the workspace, else the workspace."""
    named_outside: Collection[str] = ()
    """Files outside of that which the command names."""
    settled: Collection[str] = ()
    """Files that it put, or that steps before it made for it: who made them is known."""
    later: Callable[[], Iterable[Event]] = tuple
    """What happened since the attempt ended."""
    is_siblings: Callable[[str], bool] = lambda _path: False
    """Whether a path is what a step makes that runs at the same time: not read unless it is needed or gotten."""


def read_set(trace: Trace, view: AttemptView, worker: WorkerReport | None, installed: Distributions) -> ReadSet:
    """Return what an attempt read, by the events of its window and by what its own process tells."""
    read, listed = _reads_and_listings(trace, view, worker)
    files = {
        path: _file(path, grade, trace, view, worker)
        for path, grade in read.items()
        if not view.is_siblings(path) and _is_plain(path, trace, view)
    }
    names = {folder: set(view.names_in(folder)) for folder in listed if os.path.isdir(f"{view.root}/{folder}")}
    for event in view.later():
        if event.mask & NAMED:
            trace.passing.change(*event)  # these names are not those that there were when the attempt ended
    own = {*view.settled, *(worker.written if worker and worker.is_complete else ())}
    listings = {folder: _listing(folder, found, listed[folder], trace, view, own) for folder, found in names.items()}
    imports_seen = worker is not None and not worker.has_children
    worker = worker or WorkerReport()
    return ReadSet(
        files=files,
        listings=listings,
        absent={path: "seen" for path in worker.read if _is_absent(path, trace, view)},
        links=_links_taken([*files, *listings], view),
        removed=sorted(trace.removed),
        outside=_outside(worker, view),
        distributions=installed.of(worker.libraries),
        imports_seen=imports_seen,
        connected=list(worker.connected),
        asked_git=trace.asked_git,
    )


def _reads_and_listings(
    trace: Trace, view: AttemptView, worker: WorkerReport | None
) -> tuple[dict[str, Grade], dict[str, tuple[Grade, bool]]]:
    """Return files with their grades, and folders with whether names that could be modules are all that counts."""
    if worker is None:
        return trace.read, _explained_listings(trace, view)
    beside = (path for path in (*worker.read_outside, *worker.outside.values()) if _is_below(path, view.around))
    near = (os.path.relpath(path, view.root) for path in beside)
    own: dict[str, Grade] = dict.fromkeys((*worker.read, *worker.modules, *near), "seen")
    read = {path: grade for path, grade in own.items() if path not in trace.made}
    listed: dict[str, tuple[Grade, bool]] = {path: ("seen", by) for path, by in worker.listed.items()}
    if not worker.is_complete:  # what children and libraries opened is in the trace alone
        read = {**trace.read, **read}
        for folder, (grade, count) in trace.listed.items():
            if folder not in listed:
                listed[folder] = (grade, False)
            elif listed[folder][1] and count > 1 + trace.stirred[folder]:
                listed[folder] = ("seen", False)
    return read, listed


def _explained_listings(trace: Trace, view: AttemptView) -> dict[str, tuple[Grade, bool]]:
    texts = {path: read_source(f"{view.root}/{path}") for path in trace.read if path.endswith(".py")}
    command = view.command.encode(errors="surrogateescape")
    listed = {}
    for folder, (grade, count) in trace.listed.items():
        scripts = [text for path, text in texts.items() if posixpath.dirname(path) == folder]
        listed[folder] = grade, is_explained(count, trace.stirred[folder], scripts, texts.values(), command)
    return listed


def _listing(
    folder: str, found: Iterable[str], seen: tuple[Grade, bool], trace: Trace, view: AttemptView, own: Collection[str]
) -> ListingRead:
    """Return the names that counted in a folder when the step looked: also of files that it then removed.

    A name that came or went beside it counts as it was before, if it did at any look; an importer that found a new one
    has read the module.
    """
    grade, modules_only = seen
    gone = (path for path in trace.removed if posixpath.dirname(path) == folder)
    names, unsettled = {*found, *map(posixpath.basename, gone)}, set()
    if passing := trace.passing.among(_place(folder, view)):
        prefix = f"{folder}/" if folder else ""
        known = {path[len(prefix) :].partition("/")[0] for path in own if path.startswith(prefix)}
        for name in passing.keys() - known:
            was_there, is_listed = passing[name]
            names.discard(name)
            if was_there and is_listed is not False:
                names.add(name)
            if is_listed is None and not modules_only:
                unsettled.add(name)
    return ListingRead(
        names=sorted(listed_names(names, modules_only=modules_only)),
        grade=grade,
        modules_only=modules_only,
        unsettled=sorted(unsettled),
    )


def _place(folder: str, view: AttemptView) -> str:
    """Return where a folder lies whose path may lead through a link; outside of the workspace it is known by that."""
    if not view.links:
        return folder
    real = os.path.realpath(f"{view.root}/{folder}")
    return real[len(view.root) + 1 :] if real == view.root or _is_below(real, view.root) else folder


def _file(path: str, grade: Grade, trace: Trace, view: AttemptView, worker: WorkerReport | None) -> FileRead:
    if path in view.before:
        return FileRead(digest=view.before[path], grade=grade)
    digest = view.digest_of(path) or ""
    if path in trace.removed:
        return FileRead(digest="", grade=grade, left=digest)
    if path in trace.changed and _is_younger(path, view):
        # What it was is not known, nor who changed it: a person may edit a file while a long step runs.
        is_own = worker is not None and worker.is_complete and path in worker.written
        return FileRead(digest="", grade=grade, left=digest if is_own else None, changed_while_running=not is_own)
    return FileRead(digest=digest, grade=grade, changed_while_running=_is_younger(path, view))


def _is_plain(path: str, trace: Trace, view: AttemptView) -> bool:
    """Whether a path is a file that can be compared: no socket, pipe or device, and no caches of tools."""
    if any(is_tool_file(part) for part in path.split("/")):
        return False
    if path in trace.removed:
        return True
    try:
        return stat.S_ISREG(os.stat(f"{view.root}/{path}").st_mode)
    except OSError:
        return False  # gone by another's hand, or only a module's byte code is left


def _is_absent(path: str, trace: Trace, view: AttemptView) -> bool:
    if path in trace.made or path in trace.changed or path in trace.removed or path in view.before:
        return False
    return not os.path.lexists(f"{view.root}/{path}") and not any(is_tool_file(part) for part in path.split("/"))


def _is_younger(path: str, view: AttemptView) -> bool:
    try:
        return os.stat(f"{view.root}/{path}").st_ctime_ns > view.started_ns
    except OSError:
        return True


def _outside(worker: WorkerReport, view: AttemptView) -> dict[str, str]:
    paths = dict.fromkeys((*worker.outside.values(), *worker.read_outside, *view.named_outside))
    beyond = [path for path in paths if not _is_below(path, view.around)]
    return {path: digest for path in beyond[:FILES_MAX] if (digest := outside_digest(path))}


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def _links_taken(paths: Iterable[str], view: AttemptView) -> dict[str, str]:
    """Return the links of the workspace that lead to something that was read."""
    if not view.links:
        return {}
    read = {os.path.realpath(f"{view.root}/{path}") for path in paths}
    taken = {}
    for link, target in view.links.items():
        real = os.path.realpath(f"{view.root}/{link}")
        if real in read or any(path.startswith(f"{real}/") for path in read):
            taken[link] = target
    return taken
