"""Who made what is in a published part of a run, who published it, and whose parts are used. Pure.

All that a part says of its makers can be said by anybody who may write to the registry; what cannot be forged is the
digest of the part. So the names here are for people, and for rules that keep honest writers apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Self

from runnable_ci.errors import UsageError
from runnable_ci.runs.model import Invocation, RunLog, StepAttempt
from runnable_ci.store.target import DIGEST

_ACTOR, _NAME = "actor:", "name:"
_TEXT_MAX = 100
_MAKERS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class Maker:
    """Who made results of a run, as was recorded with them: its invocations by one actor, for the same branches."""

    refs: tuple[str, ...] = ()
    """Where it ran, and the branch of the code that it ran, where that is another one; as `ref_label` names them."""
    actor: str = ""
    workflow_run: str = ""
    """The number of GitHub's workflow run."""
    written: str = ""
    """When the newest of these invocations ended, or else began."""

    @classmethod
    def of(cls, log: RunLog, invocation: Invocation | None, attempts: Sequence[StepAttempt]) -> Self:
        """Return the maker of an invocation, by the attempts that it made: only these say for which branch it ran."""
        newest_first = sorted(attempts, key=lambda attempt: attempt.start_time, reverse=True)
        known = [(log.environments.get(attempt.environment), attempt) for attempt in newest_first]
        variables = [environment.variables for environment, _ in known if environment]
        places = [ref_label(each) for each in variables]
        codes = [attempt.code_identities[0].ref for attempt in newest_first if attempt.code_identities]
        own = invocation.workflow_run if invocation else ""
        workflow_runs = filter(None, (own, *(each.get("GITHUB_RUN_ID", "") for each in variables)))
        return cls(
            tuple(ref[:_TEXT_MAX] for ref in dict.fromkeys(filter(None, (*places, *codes)))),
            (invocation.actor if invocation else "")[:_TEXT_MAX],
            next(workflow_runs, "")[:_TEXT_MAX],
            ((invocation.end_time or invocation.start_time) if invocation else "")[:_TEXT_MAX],
        )

    @property
    def source(self) -> Maker:
        """What tells it from other makers: all but the time."""
        return replace(self, written="")

    def __str__(self) -> str:
        refs = " with code of ".join(self.refs)
        parts = [
            self.actor or "an unnamed writer",
            f"on {refs}" if refs else "on no known branch",
            f"in workflow run {self.workflow_run}" if self.workflow_run else "",
            f"at {self.written[:19].replace('T', ' ')} UTC" if self.written else "",
        ]
        return " ".join(filter(None, parts))


@dataclass(frozen=True, slots=True)
class Writer:
    """Who published a part of a run, and who made what is in it."""

    digest: str
    """Of the part's manifest."""
    names: tuple[str, ...] = ()
    """What follows the run id in the tags that point to it."""
    makers: tuple[Maker, ...] = ()
    """Everybody who made something in it; the last one published it, as far as it says."""
    run_id: str = ""

    @classmethod
    def of(cls, log: RunLog, digest: str, names: Sequence[str]) -> Self:
        """Return the writer of a part by its log."""
        makers: dict[Maker, Maker] = {}
        for maker in _makers(log):
            makers.pop(maker.source, None)  # so that the newest comes last
            makers[maker.source] = maker
        return cls(digest, tuple(name[:_TEXT_MAX] for name in names), tuple(makers.values()), log.run_id)

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Self:
        """Read what `asdict` made of a writer."""
        makers = tuple(Maker(**{**it, "refs": tuple(it["refs"])}) for it in raw["makers"])
        return cls(**{**raw, "names": tuple(raw["names"]), "makers": makers})

    @property
    def publisher(self) -> Maker:
        """Who published it: who made the newest invocation in it."""
        return self.makers[-1] if self.makers else Maker()

    def with_results_of(self, maker: Maker) -> str:
        """Return how results in it are named: by their maker, and by who published them, where that is another one."""
        is_own = maker.source == self.publisher.source
        return f"{maker} ({self.digest})" if is_own else f"{maker}, published by {self}"

    def __str__(self) -> str:
        return f"{self.publisher} ({self.digest})"

    def with_makers(self) -> str:
        """Return the writer with everybody else whose results are in its part."""
        others = [str(maker) for maker in self.makers[:-1]]
        more = [f"{len(others) - _MAKERS_SHOWN_MAX} more"] if len(others) > _MAKERS_SHOWN_MAX else []
        listed = "; ".join([*others[:_MAKERS_SHOWN_MAX], *more])
        return f"{self}, with results by {listed}" if others else str(self)


@dataclass(frozen=True, slots=True)
class AcceptedWriters:
    """Whose parts of a run are used; what others wrote is not even merged."""

    patterns: tuple[str, ...] = ()
    """What a person set; it counts before `refs`."""
    refs: frozenset[str] | None = None
    """What a job accepts by itself; None: everybody."""
    workflow_run: str = ""
    """The workflow run of jobs that share a run: what they made is accepted too, whatever they checked out, and what
    they published, which they had made or accepted."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read patterns that commas part. Raises `UsageError` for one that can match nobody."""
        patterns = tuple(word.strip() for word in text.split(","))
        for pattern in patterns:
            if pattern in ("", _ACTOR, _NAME) or (pattern.startswith("sha256:") and not DIGEST.fullmatch(pattern)):
                raise UsageError(
                    f"--writers {text or repr(text)}: {pattern!r} matches no writer",
                    hint="a branch such as main or release/*, actor:NAME, name:WRITER, a digest, sha256:…, or `*`",
                )
        return cls(patterns)

    @classmethod
    def named_by(cls, reference: str) -> Self | None:
        """Return who is accepted by the digest in a reference, which is all that it holds; None where it has none."""
        digest = reference.rpartition("@")[2]
        return cls((digest,)) if DIGEST.fullmatch(digest) else None

    def accepts(self, writer: Writer) -> bool:
        """Return whether a part is used: it is named itself, or everybody is accepted who made something in it.

        Results count as those of who made them: to publish them again changes nothing.
        """
        if self == EVERYBODY or any(_is_named(pattern, writer) for pattern in self.patterns):
            return True
        if self._is_own(writer.publisher):
            return True
        return bool(writer.makers) and all(map(self._accepts_maker, writer.makers))

    def _accepts_maker(self, maker: Maker) -> bool:
        if self._is_own(maker):
            return True
        if not self.patterns:
            return self.refs is not None and bool(maker.refs) and self.refs.issuperset(maker.refs)
        actors = [it.removeprefix(_ACTOR) for it in self.patterns if it.startswith(_ACTOR)]
        return any(fnmatchcase(maker.actor, actor) for actor in actors) or _all_match(self.patterns, maker.refs)

    def _is_own(self, maker: Maker) -> bool:
        return bool(self.workflow_run) and maker.workflow_run == self.workflow_run

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


def makers_by_invocation(log: RunLog) -> dict[int, Maker]:
    """Return the number of an invocation → who made what it gave."""
    made: dict[int, list[StepAttempt]] = {}
    for step in log.steps.values():
        for attempt in step.attempts:
            made.setdefault(attempt.invocation, []).append(attempt)
    known = {invocation.number: invocation for invocation in log.invocations}
    return {number: Maker.of(log, known.get(number), made.get(number, [])) for number in sorted({*made, *known})}


def _makers(log: RunLog) -> Iterator[Maker]:
    """Yield who made something: an attempt, new parameters, or the decision that something is accepted."""
    tried = {attempt.invocation for step in log.steps.values() for attempt in step.attempts}
    deciding: set[int] = set()
    parameters: Mapping[str, Any] = {}
    for invocation in log.invocations:
        accepted = any(decision.accepted_by for decision in invocation.decisions.values())
        if accepted or invocation.parameters != parameters:
            deciding.add(invocation.number)
        parameters = invocation.parameters
    for number, maker in makers_by_invocation(log).items():
        if number in tried or number in deciding:
            yield maker


def _is_named(pattern: str, writer: Writer) -> bool:
    """Return whether a pattern names the part itself."""
    if pattern in ("*", writer.digest):
        return True
    tags = [tag for name in writer.names for tag in (name, f"{writer.run_id}--{name}")]
    return pattern.startswith(_NAME) and any(fnmatchcase(tag, pattern.removeprefix(_NAME)) for tag in tags)


def _all_match(patterns: Sequence[str], refs: Sequence[str]) -> bool:
    matched = [any(fnmatchcase(ref, pattern) for pattern in patterns) for ref in refs]
    return bool(matched) and all(matched)
