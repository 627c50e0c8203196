"""The commits between a good and a bad one, as the clone here knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from runnable_ci.analysis.attribution.bisection.search import CommitSearch
from runnable_ci.errors import CodeIdentityError, UsageError
from runnable_ci.util.shell_command import command
from runnable_ci.vcs.git import COMMIT, Git, printable

FILES_MAX = 1000
_CHANGES = {"A": "added", "D": "removed"}


class CommitSummary(NamedTuple):
    """What people know a commit by."""

    commit: str
    author: str
    date: str
    subject: str

    @property
    def short(self) -> str:
        """Return the commit and its subject, for a line."""
        return f"{self.commit[:12]} {self.subject}"


def commit_named(git: Git, word: str) -> str:
    """Return the commit that a word names in the clone; empty where it names none."""
    if not word or word.startswith("-"):
        return ""
    try:
        found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}").decode().strip()
    except CodeIdentityError:
        return ""
    return found if COMMIT.fullmatch(found) else ""


def search_between(git: Git, good: str, bad: str, *, first_parent: bool) -> CommitSearch:
    """Return the search among the commits that the bad one has and the good one has not.

    Raises `UsageError` where there is none.
    """
    if is_ancestor(git, bad, good):
        raise UsageError(
            f"the bad commit, {bad[:12]}, is older than the good one, {good[:12]}, or the same",
            hint=f"`--good` names the older one; for runs of one commit `{command('why')}` says what moved a metric",
        )
    options = ["--first-parent"] if first_parent else []
    output = git("rev-list", "--topo-order", "--reverse", "--parents", *options, bad, f"^{good}", "--").decode()
    parents = {words[0]: words[1:] for words in map(str.split, output.splitlines())}
    if first_parent:
        parents = {commit: found[:1] for commit, found in parents.items()}
    return CommitSearch([*parents], parents)


def is_ancestor(git: Git, one: str, other: str) -> bool:
    """Return whether a commit is the other one, or before it."""
    return git("rev-list", "--max-count=1", one, f"^{other}", "--").strip() == b""


def merge_base(git: Git, one: str, other: str) -> str:
    """Return the newest commit before both. Raises `UsageError` where there is none."""
    try:
        return git("merge-base", one, other).decode().split()[0]
    except (CodeIdentityError, IndexError):
        hint = "name two commits of one history; in a shallow clone `git fetch --unshallow` brings the rest"
        raise UsageError(f"{one[:12]} and {other[:12]} have no commit in common", hint=hint) from None


def facts_of(git: Git, commit: str) -> CommitSummary:
    """Return author, date and subject of a commit."""
    output = git("show", "--no-patch", "--no-show-signature", "--format=%an%x00%aI%x00%s", commit, "--")
    author, date, subject = (printable(text) for text in output.rstrip(b"\n").split(b"\0", 2))
    return CommitSummary(commit, author, date, subject)


def files_of(git: Git, commit: str) -> list[tuple[str, str]]:
    """Return the files that a commit changed, beside its first parent, each with how."""
    options = ("-r", "-z", "--root", "-m", "--first-parent", "--no-commit-id", "--name-status", "--no-renames")
    words: Sequence[bytes] = git("diff-tree", *options, commit, "--").split(b"\0")
    pairs = zip(words[::2], words[1::2], strict=False)
    return [(printable(path), _CHANGES.get(status.decode(), "changed")) for status, path in pairs][:FILES_MAX]
