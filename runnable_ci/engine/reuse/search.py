"""Where results of other runs are looked for, and what is decided by what is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from runnable_ci.engine.parts.source import usable_runs
from runnable_ci.engine.planner import Scope
from runnable_ci.engine.provenance.changes import Decision, one_line
from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.engine.reuse.earlier_result import EarlierResult, may_be_reused
from runnable_ci.engine.reuse.proof import Proof
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunnableError
from runnable_ci.observe.reads import ReadSet
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import RunLog, StepAttempt

RUNS_MAX: Final = 20
"""Of this store so many runs of the pipeline are looked at, the newest ones."""
CANDIDATES_MAX: Final = 5
"""So many results are compared with what a step would see."""


class ResultSource(Protocol):
    """Where there are results of other runs."""

    def of(self, step: str) -> Iterator[EarlierResult]:
        """Yield the results of a step, the newest first."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Elsewhere:
    """Decides whether a result of another run takes the place of running a step."""

    proof: Proof
    sources: Sequence[ResultSource]
    is_for_all: bool
    """Whether it is for all steps of which the pipeline file says nothing; else for those with `any-run`."""
    say: Callable[..., None] = lambda _line, **_of: None
    """Says of a `step` why it runs though there are results of it."""

    def decide(self, step: Step, scope: Scope, ran: Sequence[Step] | None, decision: Decision) -> Decision:
        """Return what to do with a step that would run by a `decision`.

        `ran` are the steps before it that ran; None where that is not known yet: then it is said when it is looked for.
        """
        if step.mock or not (step.reuse == "any-run" or (step.reuse is None and self.is_for_all)):
            return decision
        if ran is None:
            return self._later(step, decision)
        nearest, farthest = "", -1
        found = (candidate for source in self.sources for candidate in source.of(step.name))
        for candidate in islice(found, max(CANDIDATES_MAX, len(self.sources))):
            place, difference = self.proof.first_difference(step, candidate, scope, ran)
            if not (difference := difference or self._lost(candidate)):
                return Decision("reuse", one_line(str(candidate)), found=candidate)
            if place > farthest:  # of several equally near ones the newest
                nearest, farthest = f"not that of run {candidate.log.run_id}: {difference}", place
        if not nearest:
            return decision
        self.say(nearest, step=step.shown)
        return decision._replace(reason=one_line(f"{decision.reason}; {nearest}"))

    def _later(self, step: Step, decision: Decision) -> Decision:
        refused = ""
        found = (candidate for source in self.sources for candidate in source.of(step.name))
        for candidate in islice(found, CANDIDATES_MAX):
            if not (reason := self.proof.refusal(step, candidate)):
                may = "reused if another run got the same from the steps before it"
                return decision._replace(reason=f"{decision.reason}; {may}")
            refused = refused or f"not that of run {candidate.log.run_id}: {reason}"
        return decision._replace(reason=one_line(f"{decision.reason}; {refused}")) if refused else decision

    def _lost(self, found: EarlierResult) -> str:
        """Return that a result of this store is not whole any more; empty where it is."""
        if found.indexed is not None:  # its contents are fetched when they are read
            return ""
        layout = self.proof.catalog.layout
        whole = all(layout.exists(blob) for blob in layers(found.results()).values())
        return "" if whole else "its files are not in the store any more"


@dataclass(slots=True, eq=False, repr=False)
class RunsHere:
    """The results of the runs in this store that it made itself."""

    session: RunSession
    run_id: str
    """The run that looks for them."""
    only: str | None = None
    """The one run that is looked at."""
    _seen: list[tuple[RunLog, Catalog, PackIndex]] = field(default_factory=list)
    _rest: Iterator[RunLog] | None = None

    def of(self, step: str) -> Iterator[EarlierResult]:
        """Yield the results of a step, the newest first."""
        for log, catalog, packs in self._runs():
            if step in log.steps and may_be_reused(log.steps[step]):
                attempt = log.steps[step].attempts[-1]
                yield EarlierResult(step, log, _reads(catalog, step, attempt), packs=packs)

    def _runs(self) -> Iterator[tuple[RunLog, Catalog, PackIndex]]:
        yield from self._seen
        if self._rest is None:
            session = self.session
            found = usable_runs(session.project, environ=session.options.environ, from_run=self.only)
            self._rest = islice((log for log in found if log.run_id != self.run_id), RUNS_MAX)
        for log in self._rest:
            self._seen.append((log, self.session.catalog(log), PackIndex(log.packs)))
            yield self._seen[-1]


def _reads(catalog: Catalog, step: str, attempt: StepAttempt) -> ReadSet | None:
    with suppress(RunnableError, OSError):  # damaged: nothing is proved by it
        return reads_of(catalog, f"{step}.{attempt.attempt_number}", attempt)
    return None
