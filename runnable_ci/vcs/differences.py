"""What changed between an earlier state of the code and now, by the contents of files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from runnable_ci.vcs.git import COMMIT, PATHS_PER_CALL, Git, printable
from runnable_ci.vcs.hashing import content_of, content_sha256
from runnable_ci.vcs.identity import Code, is_cache
from runnable_ci.vcs.objects import Item, format_of
from runnable_ci.vcs.work_tree import WorkTree


def changed_between(code: Code, commit: str, changes: Mapping[str, tuple[str, str]], now: WorkTree) -> list[str] | None:
    """Return paths from the repository's root whose content differs between an earlier code state and `now`, sorted.

    `commit` and `changes` are the earlier state's, `now` is what the last look gave. None where that is not known: one
    of the commits is unknown, or not in this clone. What steps made is left out, also where it was committed, and so
    are bytecode caches and the store.
    """
    if not now.commit or not COMMIT.fullmatch(commit) or not code.git.has_commit(commit):
        return None
    output = code.git("diff-tree", "-r", "-z", "--name-only", "--no-renames", commit, now.commit)
    differ = {printable(path) for path in output.split(b"\0") if path} - changes.keys() - now.changes.keys()
    for name in changes.keys() & now.changes.keys():
        if changes[name][1] != now.changes[name][1] or (not changes[name][1] and changes[name][0] != "deleted"):
            differ.add(name)
    root = code.git.folder
    differ |= {
        name for name in changes.keys() - now.changes.keys() if changes[name][1] != content_sha256(f"{root}/{name}")
    }
    differ |= set(_differing(code.git, commit, sorted(now.changes.keys() - changes.keys())))
    made = (name for name in differ if is_cache(name) or code.was_made(name, content_sha256(f"{root}/{name}")))
    return sorted(differ - set(made))


def _differing(git: Git, commit: str, names: Sequence[str]) -> Iterator[str]:
    """Yield which files differ from what they are in the commit."""
    for start in range(0, len(names), PATHS_PER_CALL):
        some = names[start : start + PATHS_PER_CALL]
        committed = {}
        for record in git("ls-tree", "-z", commit, "--", *some).split(b"\0")[:-1]:
            about, _, path = record.partition(b"\t")
            mode, _, found = about.decode().split(" ")
            committed[printable(path)] = Item(mode, found)
        for name in some:
            try:
                present = content_of(f"{git.folder}/{name}", format_of(commit)).item
            except OSError:
                present = None
            gone = present is None and not os.path.lexists(f"{git.folder}/{name}")
            if committed.get(name) != present or (present is None and not gone):
                yield name
