"""A run made several times, each in a fresh tree: what is not the same each time, and which culprit makes it so."""

from __future__ import annotations

import shutil
import socket
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.analysis.comparison.contents.compare import Reader
from runnable_ci.analysis.comparison.model import RunComparison, StepComparison
from runnable_ci.analysis.comparison.runs import waits_for
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.comparison.wording import noun_of
from runnable_ci.analysis.reproduction.again import (
    PreparedTree,
    Reproduced,
    ReproduceOptions,
    checkpoints_of,
    compare_results,
    make_again,
    prepared_tree,
    run_again,
)
from runnable_ci.analysis.reproduction.determinism.culprits import MOMENT, Culprit
from runnable_ci.analysis.reproduction.determinism.evidence import ContentHint, evidence
from runnable_ci.analysis.reproduction.determinism.holds import (
    HOLDABLE,
    OF_WHOLE_RUNS,
    can_be_held,
    held_addresses,
    holding,
)
from runnable_ci.analysis.reproduction.determinism.proof import (
    STEP_RUNS_MAX,
    CulpritProof,
    Held,
    RunsLeft,
    times_needed,
)
from runnable_ci.analysis.reproduction.determinism.results import contents_of, fingerprint, of_definition, programs_of
from runnable_ci.analysis.reproduction.determinism.silence import Silence
from runnable_ci.analysis.reproduction.verdicts import ORDER, is_own_variable, whole_verdict
from runnable_ci.analysis.scratch import scratch_folder
from runnable_ci.engine.options import Options
from runnable_ci.pipeline.branches.expansion import outlined_name
from runnable_ci.runs.notes.notes_model import Reproduction, StepVerdict, Variation
from runnable_ci.util.text import listed, pluralize

_LISTED_MAX: Final = 6
_OF_NO_RECORD: Final = (
    "it differs from the run by what is not recorded, such as the date, or a variable that `env-read` does not name"
)


class Repeated(NamedTuple):
    """What is repeated: a run, where, with what."""

    found: ComparedRun
    workspace: Path
    options: Options
    asked: ReproduceOptions


@dataclass(slots=True)
class _Varying:
    """A step that gave something else from the same, as far as it is known."""

    label: str
    outputs: dict[str, None] = field(default_factory=dict)
    evidence: dict[ContentHint, None] = field(default_factory=dict)
    outcomes: set[str] = field(default_factory=set)
    results: Counter[str] = field(default_factory=Counter)
    """How often it gave each result."""
    connected: list[str] = field(default_factory=list)
    programs: Sequence[str] = ()
    """Those it starts in which nothing is held."""
    is_in_container: bool = False
    only_follows: bool = True
    """Whenever it gave something else, a step before it did."""


def repeat(it: Repeated, first: Reproduced, reader: Reader, run_ids: Sequence[str]) -> Reproduction:
    """Make a run again as often as it was asked for, the `first` time being done; the verdict on all of them.

    Of each step the worst verdict counts. Raises as `make_again`.
    """
    steps = dict(first.record.steps)
    varying: dict[str, _Varying] = {}
    results: dict[str, Counter[str]] = {name: Counter() for name in steps}
    quiet = replace(it.options, printer=Silence())
    for number, run_id in enumerate(run_ids, start=2):
        it.options.printer.say(f"made again, {number} of {it.asked.times}")
        with prepared_tree(it.found, it.workspace, quiet, it.asked) as tree:
            pipeline = tree.project.pipeline
            if number == 2:
                for name in steps:
                    results[name][fingerprint(first.run.log, name, checkpoints_of(pipeline, name))] += 1
            again = make_again(it.found, tree, run_id, it.asked, reader)
            for name, verdict in again.record.steps.items():
                results.setdefault(name, Counter())[
                    fingerprint(again.run.log, name, checkpoints_of(pipeline, name))
                ] += 1
                steps[name] = _worse(steps.get(name), verdict, number)
            compared = compare_results(first.run, again.run, pipeline)
            _note_variations(varying, compared, first.run, again.run)
    for name, one in varying.items():
        one.results = results[name]
    order = [*first.run.log.steps]
    varies = _Explanations(it, dict(sorted(varying.items(), key=lambda one: order.index(one[0]))), first.run).all()
    for name, said in steps.items():
        if said.verdict == "different" and not said.follows and name not in varying:
            varies[name] = Variation(distinct=1, not_tried=_OF_NO_RECORD)
    whole = whole_verdict(steps, first.record.left_out)
    update = {"steps": steps, "verdict": whole, "times": it.asked.times, "varies": varies}
    return first.record.model_copy(update=update)


def _worse(before: StepVerdict | None, now: StepVerdict, number: int) -> StepVerdict:
    if before is None or ORDER.index(now.verdict) > ORDER.index(before.verdict):
        return now.model_copy(update={"reason": f"when it was made for the {number}. time: {now.reason}"})
    return before


def _note_variations(
    varying: dict[str, _Varying], compared: RunComparison, one: ComparedRun, other: ComparedRun
) -> None:
    """Note each step that gave something else from the same, and what its contents tell."""
    diverged: set[str] = set()
    for step in compared.steps:
        if step.in_a in ("", "skipped") or step.in_b in ("", "skipped") or not step.diverges:
            continue
        given = [it for it in step.inputs if it.counts and it.kind != "machine" and not is_own_variable(it)]
        may_follow = bool(step.not_seen) and any(map(waits_for(other.log, step.name), diverged))
        diverged.add(step.name)
        if any(not it.made_by for it in given):
            continue  # its verdict says that it was given something else
        found = varying.setdefault(step.name, _Varying(step.label))
        found.only_follows &= bool(given) or may_follow
        found.outcomes |= {step.in_a, step.in_b}
        last = other.log.steps[step.name].attempts[-1]
        found.is_in_container = "container" in last.definition
        found.programs = programs_of(last)
        for difference in step.outputs:
            if difference.kind != "output":
                found.outputs[noun_of(difference)] = None
        found.evidence |= dict.fromkeys(_evidence_of(step, one, other))
        reads = other.read().reads.get(step.name)
        found.connected = list(reads.connected) if reads else []


def _evidence_of(step: StepComparison, one: ComparedRun, other: ComparedRun) -> Iterator[ContentHint]:
    ids = {one.log.run_id, other.log.run_id}
    for difference in step.outputs:
        contents = [contents_of(run, step.name, difference) for run in (one, other)]
        if contents[0] and contents[1]:
            for found in evidence(*contents[0], contents[1][1], ids=ids, host=socket.gethostname()):
                yield found._replace(says=f"{difference.name}: {found.says}")
    yield from of_definition(other.log.steps[step.name].attempts[-1])


@dataclass(slots=True)
class _Explanations:
    """Names what makes each step vary, in an order in which those before it are held in its runs."""

    it: Repeated
    varying: Mapping[str, _Varying]
    """In the order of the run."""
    run: ComparedRun
    base: dict[str, Held] = field(default_factory=dict)
    """What was proved of the steps so far, by their names in the outline."""
    left: RunsLeft = field(default_factory=RunsLeft)
    follows: set[str] = field(default_factory=set)
    """Steps that are the same once those before them are."""
    tried_with: dict[str, Held] = field(default_factory=dict)

    def all(self) -> dict[str, Variation]:
        """Return what is to be said of each; nothing of those that were seen to have no cause of their own."""
        varies: dict[str, Variation] = {}
        for name, one in self.varying.items():
            waits = waits_for(self.run.log, name)
            unheld = [self.varying[it].label for it, said in varies.items() if not said.proved and waits(it)]
            if one.only_follows and unheld:
                why = f"what varies before it, in {listed(unheld)}, is not held: a cause of its own was not looked for"
                varies[name] = Variation(outputs=[*one.outputs], distinct=len(one.results), not_tried=why)
                continue
            if one.only_follows and self._is_same_after(name):
                continue
            varies[name] = said = _explain(self.it, name, one, self.base, self.left)
            if said.proved:
                own = frozenset(culprit for culprit in HOLDABLE if culprit in said.culprits)
                self.base[outlined_name(name)] = self.base.get(outlined_name(name), frozenset()) | own
        return varies

    def _is_same_after(self, name: str) -> bool:
        """Return whether a step is the same with what was proved so far; all that follow are tried together."""
        if self.tried_with != self.base:
            self.tried_with = dict(self.base)
            names = [it for it, one in self.varying.items() if one.only_follows and it not in self.follows]
            times = max(times_needed(self.varying[it].results) for it in names)
            if times <= min(STEP_RUNS_MAX, self.left.number):
                self.left.number -= times
                labels = listed(f"`{self.varying[it].label}`" for it in names)
                self.it.options.printer.say(f"whether {labels} only follows is looked for, with what is before it held")
                with scratch_folder() as folder:
                    outcomes = {it: self.varying[it].outcomes for it in names}
                    runs = _HeldRuns(self.it, outcomes, self.base, folder.resolve())
                    made = [runs.run({}) for _ in range(times)]
                self.follows |= {it for it in names if made[0][it] and len({one[it] for one in made}) == 1}
        return name in self.follows


def _explain(it: Repeated, step: str, one: _Varying, base: Mapping[str, Held], left: RunsLeft) -> Variation:
    """Name what makes a step vary, proved where that can be; `base` is what is proved of the steps before it."""
    ranked = sorted(one.evidence, key=lambda found: -found.weight)
    likely = [*dict.fromkeys(culprit for found in ranked for culprit in found.culprits)]
    if one.connected:
        likely.append("network")
    found = Variation(
        outputs=[*one.outputs],
        distinct=len(one.results),
        culprits=[*likely],
        evidence=[found.says for found in ranked] + [f"it connected to {listed(one.connected)}"] * bool(one.connected),
    )
    if one.is_in_container:
        found.not_tried = "it runs in a container, where nothing is held"
        return found
    say = it.options.printer.say
    say(f"`{one.label}` varies: what makes it so is looked for, with one thing held at a time")
    with scratch_folder() as folder:
        above = {name: held for name, held in base.items() if name != outlined_name(step)}
        runs = _HeldRuns(it, {step: one.outcomes}, above, folder.resolve())

        def make(held: Held, moment: int) -> str:
            return runs.run({outlined_name(step): held}, moment)[step]

        proof = CulpritProof(make, times_needed(one.results), left)
        holdable = [culprit for culprit in HOLDABLE if can_be_held(culprit)]
        suspects = [culprit for culprit in likely if culprit in holdable][:_LISTED_MAX]
        others = [culprit for culprit in holdable if culprit not in suspects]
        needed = proof.find(suspects, others, varies_above=bool(above))
    found.refuted, found.not_tried = [*proof.refuted], proof.cut_short
    together = OF_WHOLE_RUNS.intersection(suspects) & frozenset[Culprit]().union(*above.values())
    if needed is not None and not needed:
        found.culprits, found.not_tried = [], "it is the same once the steps before it are"
    elif needed and together - needed:
        found.not_tried = f"{listed(sorted(together - needed))} cannot be held in a step before it and not in this one"
    elif needed:
        found.culprits = [*dict.fromkeys(culprit for culprit in (*likely, *HOLDABLE) if culprit in needed)]
        found.proved, found.held_times = True, proof.times
    elif not proof.cut_short:
        lacking = f", but nothing is in {listed(f'`{program}`' for program in one.programs)}" * bool(one.programs)
        found.not_tried = f"it varies with all held that can be{lacking}"
    say(f"`{one.label}`: {pluralize(proof.runs, 'run')} with something held")
    return found


@dataclass(slots=True)
class _HeldRuns:
    """Makes runs until some steps, in which something is held; nothing of them is kept."""

    it: Repeated
    outcomes: Mapping[str, Collection[str]]
    """How each of the steps ends."""
    above: Mapping[str, Held]
    """What is held in the steps before them, by their names in the outline."""
    folder: Path
    count: int = 0

    def run(self, held: Mapping[str, Held], moment: int = MOMENT) -> dict[str, str]:
        """Return what each step gave; empty where it ended as it never does."""
        of_steps = {**self.above, **held}
        whole = OF_WHOLE_RUNS.intersection(frozenset[Culprit]().union(*of_steps.values()))
        self.count += 1
        with self._tree(of_steps, whole, moment) as tree, held_addresses(whole):
            run_id = "held" if "run-id" in whole else f"held-{self.count}"
            until = [*dict.fromkeys(step.partition(".")[0] for step in self.outcomes)]
            log = run_again(self.it.found, tree, run_id, self.it.asked.params, until=until).log
            ended = {step: log.steps[step].outcome if step in log.steps else "" for step in self.outcomes}
            return {
                step: fingerprint(log, step, checkpoints_of(tree.project.pipeline, step)) * (ended[step] in outcomes)
                for step, outcomes in self.outcomes.items()
            }

    @contextmanager
    def _tree(self, of_steps: Mapping[str, Held], whole: Held, moment: int) -> Iterator[PreparedTree]:
        place = self.folder / ("again" if "path" in whole else f"again-{self.count}")
        for name in ("tree", "held"):
            (place / name).mkdir(parents=True)
        try:
            options = replace(self.it.options, printer=Silence())
            if "completion-order" in whole:
                options = replace(options, jobs=1)
            with prepared_tree(self.it.found, self.it.workspace, options, self.it.asked, at=place / "tree") as tree:
                held = holding(tree.project.pipeline, of_steps, place / "held", tree.options.environ, moment)
                yield replace(tree, project=replace(tree.project, pipeline=held))
        finally:
            shutil.rmtree(place, ignore_errors=True)
