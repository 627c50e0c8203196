"""Who published a part of a run, and whose parts are used. Pure.

All that a writer says of itself can be said by anybody who may write to the registry; what cannot be forged is the
digest of the part. So the names here are for people, and for rules that keep honest writers apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self

from runnable_ci.errors import UsageError
from runnable_ci.runs.model import RunLog
from runnable_ci.store.target import DIGEST

_ACTOR, _NAME = "actor:", "name:"
_TEXT_MAX = 100


@dataclass(frozen=True, slots=True)
class Writer:
    """Who published a part of a run, as that part says: the invocation of its log which began last."""

    digest: str
    """Of the part's manifest."""
    names: tuple[str, ...] = ()
    """What follows the run id in the tags that point to it."""
    refs: tuple[str, ...] = ()
    """Where it ran, and the branch of the code that it ran, where that is another one; as `ref_label` names them."""
    actor: str = ""
    workflow_run: str = ""
    """The number of GitHub's workflow run."""
    written: str = ""
    """When that invocation ended, or else began."""

    @classmethod
    def of(cls, log: RunLog, digest: str, names: Sequence[str]) -> Self:
        """Return the writer of a part by its log."""
        last = log.invocations[-1] if log.invocations else None
        attempts = [attempt for step in log.steps.values() for attempt in step.attempts]
        own = [attempt for attempt in attempts if last and attempt.invocation == last.number] or attempts
        newest = max(own, key=lambda attempt: attempt.start_time, default=None)
        environment = log.environments.get(newest.environment) if newest else None
        variables = environment.variables if environment else {}
        code = newest.code_identities[0].ref if newest and newest.code_identities else ""
        refs = dict.fromkeys(filter(None, (ref_label(variables), code)))
        return cls(
            digest,
            tuple(name[:_TEXT_MAX] for name in names),
            tuple(ref[:_TEXT_MAX] for ref in refs),
            (last.actor if last else "")[:_TEXT_MAX],
            variables.get("GITHUB_RUN_ID", "")[:_TEXT_MAX],
            ((last.end_time or last.start_time) if last else log.end_time)[:_TEXT_MAX],
        )

    def __str__(self) -> str:
        refs = " with code of ".join(self.refs)
        parts = [
            self.actor or "an unnamed writer",
            f"on {refs}" if refs else "on no known branch",
            f"in workflow run {self.workflow_run}" if self.workflow_run else "",
            f"at {self.written[:19].replace('T', ' ')} UTC" if self.written else "",
        ]
        return f"{' '.join(filter(None, parts))} ({self.digest})"


@dataclass(frozen=True, slots=True)
class AcceptedWriters:
    """Whose parts of a run are used; what others wrote is not even merged."""

    patterns: tuple[str, ...] = ()
    """What a person set; it counts before `refs`."""
    refs: frozenset[str] | None = None
    """What a job accepts by itself; None: everybody."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read patterns that commas part. Raises `UsageError` for one that can match nobody."""
        patterns = tuple(word.strip() for word in text.split(","))
        for pattern in patterns:
            if pattern in ("", _ACTOR, _NAME) or (pattern.startswith("sha256:") and not DIGEST.fullmatch(pattern)):
                raise UsageError(
                    f"--writers {text}: {pattern!r} matches no writer",
                    hint="a branch such as main or release/*, actor:NAME, name:TAG, or a whole digest, sha256:…",
                )
        return cls(patterns)

    def accepts(self, writer: Writer) -> bool:
        """Return whether a part is used: by its digest, names or actor, or since all its branches are accepted."""
        if self.patterns:
            return any(_is_named(pattern, writer) for pattern in self.patterns) or _all_match(self.patterns, writer)
        return self.refs is None or (bool(writer.refs) and self.refs.issuperset(writer.refs))

    def __str__(self) -> str:
        if self.patterns:
            return ", ".join(self.patterns)
        return "everybody" if self.refs is None else ", ".join(sorted(self.refs)) or "nobody"


EVERYBODY = AcceptedWriters()


def ref_label(variables: Mapping[str, str]) -> str:
    """Return for which branch a job ran, `tag:NAME`, or `pull:NUMBER` for a pull request; empty outside of a job.

    A branch's name has no colon. A pull request has its own label, since its branch may be that of a fork.
    Source: git-check-ref-format(1).
    """
    ref, head = variables.get("GITHUB_REF", ""), variables.get("GITHUB_HEAD_REF", "")
    if number := re.match(r"refs/pull/([0-9]+)/", ref):
        return f"pull:{number[1]}"
    if head:  # such as `pull_request_target`, which runs for the base branch, perhaps with the head's code
        return f"pull:{head}"
    return f"tag:{ref[10:]}" if ref.startswith("refs/tags/") else ref.removeprefix("refs/heads/")


def _is_named(pattern: str, writer: Writer) -> bool:
    if pattern in ("*", writer.digest):
        return True
    if pattern.startswith(_ACTOR):
        return fnmatchcase(writer.actor, pattern.removeprefix(_ACTOR))
    return pattern.startswith(_NAME) and any(fnmatchcase(it, pattern.removeprefix(_NAME)) for it in writer.names)


def _all_match(patterns: Sequence[str], writer: Writer) -> bool:
    matched = [any(fnmatchcase(ref, pattern) for pattern in patterns) for ref in writer.refs]
    return bool(matched) and all(matched)
