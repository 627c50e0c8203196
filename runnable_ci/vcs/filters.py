"""Files that git keeps in another form than they have in the tree, by a program that a filter names (git-lfs).

Such a program is never started to look: a clone of a stranger's may name any. What git-lfs keeps is a text with the
file's sha256, which is read here; of other filters only a file that has the times of git's index is known.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from runnable_ci.vcs.git import Git, printable
from runnable_ci.vcs.hashing import Content
from runnable_ci.vcs.objects import Item
from runnable_ci.vcs.tracked import unchanged

PROGRAM_SETTINGS: Final = r"filter\..*\.(clean|smudge|process|required)|hook\..*\.(command|event)"
"""What names programs that can be switched off only one by one, by the names that a repository gave them."""
_OFF: Final = {
    "filter": {"clean": "", "smudge": "", "process": "", "required": "false"},
    "hook": {"enabled": "false"},
}
_POINTER: Final = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\n(?:[^\n]+\n)*oid sha256:([0-9a-f]{64})\n")
_POINTER_MAX_BYTES: Final = 1024
"""Source: git-lfs, docs/spec.md, "The Pointer"."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What is known, without running a program, of files that may differ from a commit and that have a filter."""

    names: Mapping[str, str]
    """Path → filter."""
    _pointers: Mapping[str, str]
    _unchanged: frozenset[str]

    @classmethod
    def of(cls, git: Git, heads: Mapping[str, Item], settings: Iterable[str], index: str) -> Filters:
        """Look at these paths, with what the commit has there; `index` is the file that git compares with."""
        known = filters_of(settings)
        names = {path: name for path, name in filtered(git, heads).items() if name in known} if known else {}
        pointers = kept_by_lfs(git, (heads[path].id for path in names))
        others = {path: heads[path].id for path in names if heads[path].id not in pointers}
        return cls(names, pointers, unchanged(index, git.folder, others) if others else frozenset())

    def is_unchanged(self, path: str, head: Item, content: Content) -> bool | None:
        """Return whether a file with a filter is as the commit has it; None where that is not known."""
        if content.item.mode != head.mode:
            return False
        if path in self._unchanged:
            return True
        kept = self._pointers.get(head.id)
        return None if kept is None else kept == content.sha256

    def unknown(self, path: str) -> str:
        """Return why it is not known."""
        return f"git's filter `{printable(os.fsencode(self.names[path]))}` was not run to compare it with the commit"


def filters_of(settings: Iterable[str]) -> set[str]:
    """Return the filters that git's settings name."""
    return {name.removeprefix("filter.").rpartition(".")[0] for name in settings if name.startswith("filter.")}


def switched_off(settings: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that adds to git's settings that none of the programs in `settings` is started.

    Source: git-config(1), `GIT_CONFIG_COUNT`; git-hook(1) of git 2.54, before which git had no such hooks.
    """
    given = environ.get("GIT_CONFIG_COUNT", "")
    first = int(given) if given.isdigit() else 0
    named = sorted({name.rpartition(".")[0] for name in settings if name.startswith(("filter.", "hook."))})
    pairs = [(f"{name}.{key}", value) for name in named for key, value in _OFF[name.partition(".")[0]].items()]
    found = {"GIT_CONFIG_COUNT": str(first + len(pairs))}
    for number, (key, value) in enumerate(pairs, start=first):
        found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return found if pairs else {}


def filtered(git: Git, paths: Iterable[str], *options: str) -> dict[str, str]:
    """Return path → the filter that git would use for it, of those that have one. A name may have any bytes."""
    asked = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if not asked:
        return {}
    answer = [
        os.fsdecode(part) for part in git("check-attr", *options, "-z", "--stdin", "filter", stdin=asked).split(b"\0")
    ]
    found = zip(answer[::3], answer[2::3], strict=False)
    return {path: name for path, name in found if name not in ("unspecified", "unset", "set")}


def not_rebuilt(git: Git, paths: Iterable[str]) -> dict[str, str]:
    """Return path → why it is not as it was, of those that only a filter's program brings from their commit."""
    why = "git's filter `{}` was not run: here is what the commit has in its place"
    return {path: why.format(printable(os.fsencode(name))) for path, name in filtered(git, paths, "--cached").items()}


def kept_by_lfs(git: Git, blobs: Iterable[str]) -> dict[str, str]:
    """Return blob → the sha256 of the file that git-lfs has for it; blobs of other kinds are left out."""
    asked = "".join(f"{blob}\n" for blob in blobs).encode()
    if not asked:
        return {}
    sizes = [line.split(b" ") for line in git("cat-file", "--batch-check", stdin=asked).splitlines()]
    small = [line[0] for line in sizes if line[1:2] == [b"blob"] and int(line[2]) <= _POINTER_MAX_BYTES]
    found = {}
    for blob in small:
        if pointer := _POINTER.match(git("cat-file", "blob", blob.decode())):
            found[blob.decode()] = pointer[1].decode()
    return found
