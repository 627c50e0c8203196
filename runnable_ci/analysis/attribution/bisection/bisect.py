"""The first commit for which a condition on metrics holds, found by runs in which only what changed runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from runnable_ci.analysis.attribution.bench import Bench, Order, earlier_runs, executed, failure_of, key_of
from runnable_ci.analysis.attribution.bisection.commits import CommitSummary, facts_of
from runnable_ci.analysis.attribution.bisection.ends import BisectionEnd, BisectionEnds
from runnable_ci.analysis.attribution.bisection.search import CommitSearch
from runnable_ci.analysis.attribution.bisection.trees import commit_tree
from runnable_ci.analysis.attribution.metric import giver_of
from runnable_ci.analysis.comparison.condition import BASE, DURATION, judge
from runnable_ci.analysis.comparison.model import CodeComparison
from runnable_ci.analysis.comparison.runs import compare
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.again import PreparedTree, left_out_until
from runnable_ci.analysis.reproduction.determinism.results import fingerprint
from runnable_ci.analysis.reproduction.left_out import is_left_out
from runnable_ci.engine.options import Options
from runnable_ci.errors import CodeIdentityError, PipelineError, RunnableError, StepError, UsageError
from runnable_ci.pipeline.expressions.expression import Expression
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.model import FAIL, SUCCESS, RunLog
from runnable_ci.runs.notes.notes_model import MadeFrom
from runnable_ci.runs.reader import load, summaries
from runnable_ci.vcs.git import Git

BISECT: Final = "bisect"
State = Literal["good", "bad", "skipped"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One commit that was looked at."""

    facts: CommitSummary
    state: State
    said: str
    """The values that decided it, or why it cannot be tried."""
    run_id: str = ""
    executed: Sequence[str] = ()
    seconds: float = 0.0
    is_earlier: bool = False
    """The run was there before."""


class BisectOptions(NamedTuple):
    """What is asked."""

    condition: Expression
    params: Sequence[str] = ()
    first_parent: bool = False


@dataclass(slots=True)
class Bisection:
    """A search, and what it needs to try a commit."""

    ends: BisectionEnds
    asked: BisectOptions
    search: CommitSearch
    git: Git
    options: Options
    bench: Bench
    trials: list[Trial] = field(default_factory=list)
    base: ComparedRun | None = None
    """The good run, to which `base` in the condition refers."""
    uncommitted: bool = False
    """Whether it is none of the commits, but what the bad run had not committed."""
    _here: dict[str, list[str]] | None = None
    count: int = 0
    """The commits among which it is."""
    at_most: int = 0
    """How many are tried at most, as it was said before the first."""

    def __post_init__(self) -> None:
        """Note how far it is."""
        self.count, self.at_most = len(self.search.left), self.most()

    def first(self) -> Iterator[str]:
        """Yield the commits that are tried before the search, as what is recorded of the ends does not tell enough."""
        good, bad = self.ends.good, self.ends.bad
        if good.must_run:
            yield good.commit
        if self.ends.base:
            yield self.ends.base
        if bad.must_run:
            yield bad.commit

    def most(self) -> int:
        """Return how many commits are tried at most, if each can be."""
        return len([*self.first()]) + self.search.most()

    def most_left(self) -> int:
        """Return how many are still tried at most."""
        tried = {one.facts.commit for one in self.trials}
        return len([commit for commit in self.first() if commit not in tried]) + self.search.most()

    def run(self, begun: Callable[[CommitSummary], None]) -> None:
        """Try commits until the first bad one is found, or none is left that can be tried.

        Raises `UsageError` where an end is not what it is said to be, and `RunInterruptedError`.
        """
        earlier = earlier_runs(self.bench.layout)
        self._check_recorded()
        good, bad = self.ends.good, self.ends.bad
        if good.must_run and self._try(good.commit, begun, earlier).state != "good":
            self._refuse(good, "good", self.trials[-1])
        if good.must_run:
            self.base = ComparedRun(self.bench.layout, load(self.bench.layout, self.trials[-1].run_id))
        if self.ends.base and self._try(self.ends.base, begun, earlier).state == "bad":
            raise UsageError(
                f"the condition holds for {self.ends.base[:12]} too, from which both began: the good commit mended it",
                hint="name a good commit that is before the bad one",
            )
        if bad.must_run:
            trial = self._try(bad.commit, begun, earlier)
            if trial.state == "good" and bad.run is not None and bad.is_dirty:
                self.uncommitted = True
                return
            if trial.state != "bad":
                self._refuse(bad, "bad", trial)
        while commit := self.search.next():
            match self._try(commit, begun, earlier).state:
                case "good":
                    self.search.good(commit)
                case "bad":
                    self.search.bad(commit)
                case "skipped":
                    self.search.skip(commit)

    def _check_recorded(self) -> None:
        """Raise `UsageError` where what is recorded of the ends says that they are not good and bad."""
        good, bad = self.ends.good, self.ends.bad
        if good.run is not None:
            self.base = good.run
            if (said := self._judged(good.run))[0]:
                raise UsageError(
                    f"the condition `{self.asked.condition}` holds for the good run, {good.label}: {said[1]}",
                    hint="it is to hold for --bad and not for --good",
                )
        can_be_judged = good.run is not None or not self._needs_base()
        if bad.run is not None and can_be_judged and not (said := self._judged(bad.run))[0]:
            raise UsageError(
                f"the condition `{self.asked.condition}` does not hold for the bad run, {bad.label}: {said[1]}",
                hint="it is to hold for --bad and not for --good",
            )

    def _needs_base(self) -> bool:
        return any(path[0] == BASE for path in self.asked.condition.references())

    def _refuse(self, end: BisectionEnd, name: str, trial: Trial) -> None:
        is_other = end.run is not None and trial.state != "skipped"
        hint = "it is to hold for --bad and not for --good"
        if is_other:
            hint = f"the run itself is {name}: it is not the commits, but values, data or packages (`why` says which)"
        elif trial.state == "skipped":
            hint = "name another commit, or a run"
        raise UsageError(
            f"the {name} commit, {trial.facts.short}, made here, is {trial.state}: {trial.said}", hint=hint
        )

    def _judged(self, run: ComparedRun) -> tuple[bool, str]:
        """Return whether the condition holds for a run, and by which values."""
        base = self.base or run
        found = judge(self.asked.condition, compare(base.read(), run.read(), CodeComparison()))
        return found.fails, found.reason

    def _try(self, commit: str, begun: Callable[[CommitSummary], None], earlier: Mapping[str, RunLog]) -> Trial:
        facts = facts_of(self.git, commit)
        begun(facts)
        start = time.monotonic()
        try:
            log, is_earlier = self._made(facts, earlier)
        except (PipelineError, UsageError, StepError, CodeIdentityError) as e:  # it cannot begin
            trial = Trial(facts, "skipped", e.message, seconds=time.monotonic() - start)
        else:
            steps = [] if is_earlier else executed(log)
            state, said = self._state(ComparedRun(self.bench.layout, log))
            trial = Trial(facts, state, said, log.run_id, steps, time.monotonic() - start, is_earlier)
        self.trials.append(trial)
        return trial

    def _state(self, run: ComparedRun) -> tuple[State, str]:
        if failure := failure_of(run.log):
            return "skipped", failure
        if self.base is None:  # the good commit, which is the first that is made
            self.base = run
        try:
            holds, said = self._judged(run)
        except UsageError as e:
            return "skipped", e.message
        return "bad" if holds else "good", said

    def _made(self, facts: CommitSummary, earlier: Mapping[str, RunLog]) -> tuple[RunLog, bool]:
        """Return the run of a commit, and whether it was there before."""
        ends, commit = self.ends, facts.commit
        with commit_tree(commit, ends.file, ends.inputs, self.bench.layout.folder.parent, self.options) as tree:
            until = self._until(tree.project.pipeline)
            made_from = self._made_from(commit, tree, until)
            if (log := self._made_before(commit, tree, until, earlier)) is not None:
                self.bench.take(ComparedRun(self.bench.layout, log))
                return log, True
            for run_id in self._runs_here().get(commit, ()):
                with suppress(RunnableError):  # damaged, or not whole any more: its steps run
                    self.bench.take(ComparedRun(self.bench.layout, load(self.bench.layout, run_id)))
            prefer = [end.run.log.run_id for end in (ends.bad, ends.good) if end.run is not None]
            run_id = self.bench.unused(f"bisect-{commit[:12]}")
            tag = f"bisect {self.asked.condition}"[:200]
            order = Order(run_id, made_from, tag, ends.values, self.asked.params, until, prefer)
            return self.bench.make(tree, order, ends.inputs), False

    def _runs_here(self) -> Mapping[str, Sequence[str]]:
        """Return the runs of the store by their commit, of which nothing is dirty: steps are taken from them too."""
        if self._here is None:
            self._here = {}
            layout = self.bench.layout
            for one in summaries(layout) if layout.folder.is_dir() else ():
                if one.dirty is False and one.status in (SUCCESS, FAIL):
                    self._here.setdefault(one.commit, []).append(one.run_id)
        return self._here

    def _until(self, pipeline: Pipeline) -> list[str]:
        """Return the steps that give what the condition names, where that is known: nothing behind them is run."""
        names = {
            ".".join(word for word in path if word not in (BASE, "metrics"))
            for path in self.asked.condition.references()
        } - {""}
        if DURATION in names:
            return []
        known = next((end.run.log for end in (self.ends.bad, self.ends.good) if end.run is not None), None)
        found: list[str] = []
        for name in sorted(names):
            giver = giver_of(known, name) if known else ""
            if giver not in pipeline.steps:
                giver = next((key for key, step in pipeline.steps.items() if name in step.returns), "")
            if not giver:
                return []
            found.append(giver)
        return [*dict.fromkeys(found)]

    def _made_before(
        self, commit: str, tree: PreparedTree, until: Sequence[str], earlier: Mapping[str, RunLog]
    ) -> RunLog | None:
        """Return a run that an earlier bisection made from the same, or a whole one of which it would be a part."""
        if (log := earlier.get(self._key(commit, tree, until, until))) is not None:
            return log
        whole = earlier.get(self._key(commit, tree, until, ()))
        return whole if whole is not None and not failure_of(whole) else None

    def _made_from(self, commit: str, tree: PreparedTree, until: Sequence[str]) -> MadeFrom:
        ends = self.ends
        return MadeFrom(
            purpose=BISECT,
            code=commit,
            data=ends.inputs.log.run_id if ends.inputs else "",
            values=ends.bad.run.log.run_id if ends.bad.run is not None and ends.values else "",
            key=self._key(commit, tree, until, until),
        )

    def _key(self, commit: str, tree: PreparedTree, needed: Sequence[str], until: Sequence[str]) -> str:
        """Return the digest of all that a run `until` some steps gives to the `needed` ones.

        It is the same whether the ends are named as runs or as commits.
        """
        ends = self.ends
        log = ends.inputs.log if ends.inputs else None
        inputs = {**tree.inputs.restored, **tree.inputs.copied}
        left_out = left_out_until(tree, needed)
        given = {key: fingerprint(log, key) for key in log.steps if is_left_out(key, left_out)} if log else {}
        parts = [commit, ends.file, inputs, given, dict(ends.values), [*until], ends.packages, self.bench.reuses]
        return key_of(parts, self.asked.params)


def needs_durations(condition: Expression) -> bool:
    """Return whether a condition is on how long a run took: then nothing may be taken from other runs."""
    return any(DURATION in path for path in condition.references())
