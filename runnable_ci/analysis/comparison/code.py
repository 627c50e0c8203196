"""What differs between the code of two runs: commits and files, as far as a clone and the runs tell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from runnable_ci.analysis.comparison.model import Change, CodeComparison, RunDifference
from runnable_ci.errors import CodeIdentityError
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.model import RunLog
from runnable_ci.vcs.git import COMMIT, Git, printable
from runnable_ci.vcs.identity import is_cache

_COMMITS_MAX: Final = 1000


def compare_code(a: RunLog, b: RunLog, git: Git | None) -> CodeComparison:
    """Return what differs between the code of two runs.

    `git` is the clone that knows their commits; without it only what the runs recorded themselves is compared.
    """
    states = [_state(log) for log in (a, b)]
    identities = [log.code() or CodeIdentity() for log in (a, b)]
    commits = [state.commit for state in states]
    dirty_a, dirty_b = ("" if one.code_identifier_dependable else one.code_identifier_message for one in identities)
    files: tuple[RunDifference, ...] = ()
    not_known = ""
    ahead: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    if commits[0] != commits[1] and not (git and all(COMMIT.fullmatch(c) and git.has_commit(c) for c in commits)):
        not_known = _why_not(commits, git)
    elif states[0].tree and states[0].tree == states[1].tree:
        pass
    else:
        files = tuple(_files(states[0], states[1], git))
    if git and not not_known and commits[0] != commits[1]:
        ahead, behind = _commits(git, commits[0], commits[1]), _commits(git, commits[1], commits[0])
    return CodeComparison(commits[0], commits[1], ahead, behind, files, dirty_a, dirty_b, not_known)


def _state(log: RunLog) -> CodeState:
    newest = log.newest_with_code()
    return (code_state_of(log, newest) if newest else None) or CodeState()


def _why_not(commits: list[str], git: Git | None) -> str:
    if not all(commits):
        return "a run was made without a commit"
    if git is None:
        return "there is no clone here that has the commits"
    missing = [commit[:12] for commit in commits if not (COMMIT.fullmatch(commit) and git.has_commit(commit))]
    return f"this clone does not have {' and '.join(missing)}; `git fetch` may bring it"


def _commits(git: Git, old: str, new: str) -> tuple[str, ...]:
    try:
        output = git("log", f"--max-count={_COMMITS_MAX}", "--format=%h %s", f"{old}..{new}", "--")
    except CodeIdentityError:
        return ()
    return tuple(printable(line) for line in output.splitlines())


def _files(then: CodeState, now: CodeState, git: Git | None) -> list[RunDifference]:
    """Return the files of which the content differs."""
    differ: set[str] = set()
    if git and then.commit != now.commit:
        output = git("diff-tree", "-r", "-z", "--name-only", "--no-renames", then.commit, now.commit)
        differ = {printable(path) for path in output.split(b"\0") if path}
    found = []
    for path in sorted({*differ, *then.changes, *now.changes}):
        if is_cache(path):
            continue
        before, after = _content(path, then, git), _content(path, now, git)
        if before == after and before is not None:
            continue
        change: Change = "added" if before == "" else "removed" if after == "" else "changed"
        found.append(RunDifference("code", path, change, before or None, after or None))
    return found


def _content(path: str, state: CodeState, git: Git | None) -> str | None:
    """Return the sha256 of a file in a state of the code, empty where it has none; None where it is not known."""
    changes: Mapping[str, tuple[str, str]] = state.changes
    if path in changes:
        kind, digest = changes[path]
        return digest or ("" if kind == "deleted" else None)
    if git is None or not state.commit:
        return None
    try:
        return hashlib.sha256(git("cat-file", "blob", f"{state.commit}:{path}")).hexdigest()
    except CodeIdentityError:
        return ""
