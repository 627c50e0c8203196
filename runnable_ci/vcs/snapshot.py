"""What differs from the commit, kept as git objects: a commit of the work tree as it was, to be put into a bundle.

Each file is judged by the bytes that are kept. Of what is left out, the tree has the commit's version or nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from runnable_ci.errors import CodeIdentityError
from runnable_ci.redaction.credential_files import by_content, by_name
from runnable_ci.util.files import open_nofollow
from runnable_ci.vcs.bundle import Header
from runnable_ci.vcs.hashing import link_target
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.objects import LINK, SUBMODULE, Item, Kind, Objects, object_id
from runnable_ci.vcs.work_tree import Difference

ALL: Final = "the code difference"
"""What is named as left out where nothing could be kept."""
_CHUNK_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Rules:
    """What of a difference may be kept, beyond that no file of credentials is."""

    has_secret: Callable[[Iterable[bytes]], bool] = lambda _: False
    """Whether there is a known secret in the chunks."""
    untracked: Callable[[str], str] = lambda _: ""
    """Why an untracked file, by its path from the root, is not kept; empty where it is."""

    def of_entry(self, one: Difference) -> str:
        """Return why nothing of a path is kept, whatever its content."""
        if one.content is None:
            return one.unknown
        return by_name(one.name) or (self.untracked(one.path) if one.kind == "untracked" else "")

    def of_content(self, name: str, content: bytes) -> str:
        """Return why a file's content is not kept."""
        if self.has_secret(_chunks(content)):
            return "holds a secret"
        return by_content(name, _chunks(content))

    def below(self, path: str) -> Rules:
        """Return the rules in a submodule."""
        return Rules(self.has_secret, lambda inner: self.untracked(f"{path}/{inner}"))


@dataclass(slots=True)
class Memory:
    """What earlier snapshots hold and decided: a new one holds only what is new, and reads only what is."""

    tips: dict[str, tuple[str, str]] = field(default_factory=dict)
    """A repository, by its path from the root → the commit it was at, and the newest commit of its bundles."""
    ids: dict[str, set[str]] = field(default_factory=dict)
    """The same → the objects that these bundles hold."""
    verdicts: dict[tuple[str, str], str] = field(default_factory=dict)
    """A name and a blob → why it was left out; empty where it was kept."""


@dataclass(frozen=True, slots=True)
class Made:
    """A bundle that is to be written."""

    header: Header
    objects: dict[str, tuple[Kind, bytes]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`commit` has the work tree as far as it is kept; it comes with the bundles, of it and of submodules."""

    commit: str
    omitted: dict[str, str]
    """Path → why it is not kept."""
    bundles: tuple[Made, ...]


@dataclass(slots=True)
class _Room:
    left_bytes: int
    omitted: dict[str, str] = field(default_factory=dict)
    bundles: list[Made] = field(default_factory=list)


def snapshot(code: Code, *, limit_bytes: int, rules: Rules | None = None, memory: Memory | None = None) -> Snapshot:
    """Take a snapshot of what the last look at the code found.

    At most `limit_bytes` of files are kept, the smaller ones first. A file that changed since the look is left out.
    Never raises for what git says: that is why all is left out then.
    """
    room = _Room(limit_bytes)
    try:
        commit = _commit(code, "", room, rules or Rules(), memory or Memory())
    except CodeIdentityError as error:
        return Snapshot("", {ALL: error.message}, tuple(room.bundles))
    return Snapshot(commit, dict(sorted(room.omitted.items())), tuple(room.bundles))


def _commit(code: Code, place: str, room: _Room, rules: Rules, memory: Memory) -> str:
    """Return the commit that a repository's work tree is kept as."""
    state = code.last
    if not state.changes:
        return state.commit
    objects = Objects(code.form)
    differences = code.differences
    changes = dict(_items(code, differences, place, objects, room, rules, memory))
    for one in differences:
        if one.item and one.item.mode == SUBMODULE and one.path not in changes:
            below = code.submodule(one.path)
            inner = below.last
            dirty = one.item.id != inner.commit and inner.changes
            kept = _commit(below, f"{place}{one.path}/", room, rules.below(one.path), memory) if dirty else ""
            changes[one.path] = Item(SUBMODULE, kept or one.item.id)
    at, tip = memory.tips.get(place, ("", ""))
    known = memory.ids.setdefault(place, set()) if at == state.commit else set()
    commit = objects.add_commit(code.tree_with(objects, changes), state.commit)
    if commit == tip and at == state.commit:
        return commit
    needed = [state.commit] if state.commit else []
    header = Header(commit, (*needed, *([tip] if at == state.commit and tip else [])), code.form)
    new = {key: value for key, value in objects.made.items() if key not in known}
    room.bundles.append(Made(header, new))
    memory.tips[place] = (state.commit, commit)
    memory.ids[place] = known | new.keys()
    return commit


def _items(
    code: Code,
    differences: Iterable[Difference],
    place: str,
    objects: Objects,
    room: _Room,
    rules: Rules,
    memory: Memory,
) -> Iterator[tuple[str, Item | None]]:
    """Yield the paths that the tree is to have other than the commit, each with its blob among the objects."""
    files = list[tuple[int, Difference]]()
    for one in differences:
        if one.item and one.item.mode == SUBMODULE and not one.unknown:
            continue
        if reason := rules.of_entry(one):
            room.omitted[place + one.name] = reason
        elif one.content is None:
            yield one.path, None
        else:
            files.append((one.content.size, one))
    known = memory.ids.get(place, set())
    for size, one in sorted(files, key=lambda file: (file[0], os.fsencode(file[1].path))):
        if size > room.left_bytes:
            room.omitted[place + one.name] = "over the limit"
            continue
        if reason := _kept(code, one, place, objects, rules, memory, known):
            room.omitted[place + one.name] = reason
        else:
            room.left_bytes -= size
            yield one.path, one.item


def _kept(
    code: Code, one: Difference, place: str, objects: Objects, rules: Rules, memory: Memory, known: set[str]
) -> str:
    """Return why a file is not among the objects now, or of an earlier bundle."""
    if one.item is None:
        return one.unknown
    verdict = (place + one.name, one.item.id)
    known_reason = memory.verdicts.get(verdict)
    if known_reason or (known_reason is not None and one.item.id in known):
        return known_reason
    try:
        content = _read(f"{code.git.folder}/{one.path}", one)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if content is None or object_id("blob", content, code.form) != one.item.id:
        return "changed while it was being recorded"
    reason = rules.of_content(one.name, content)
    memory.verdicts[verdict] = reason
    if not reason:
        objects.add("blob", content)
    return reason


def _read(path: str, one: Difference) -> bytes | None:
    """Return what is there now, None where it is not of the same size or kind."""
    if one.item and one.item.mode == LINK:
        return link_target(path)
    size = one.content.size if one.content else 0
    with open(path, "rb", opener=open_nofollow) as file:
        content = file.read(size + 1)
    return content if len(content) == size else None


def _chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + _CHUNK_BYTES] for start in range(0, len(content), _CHUNK_BYTES))
