"""Which of code, data, values and packages moved a metric from one run to another, by runs put together from both."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from runnable_ci.analysis.attribution.bench import (
    Bench,
    Order,
    earlier_runs,
    executed,
    failure_of,
    key_of,
    shown_without,
)
from runnable_ci.analysis.attribution.effects import KINDS, Attribution, Hybrid, Kind, Side, attribute, planned
from runnable_ci.analysis.attribution.kinds import (
    KindDifference,
    code_names,
    data_files,
    data_names,
    other_differences,
    package_names,
    value_names,
    values_of,
)
from runnable_ci.analysis.attribution.metric import giver_of, metric_of
from runnable_ci.analysis.attribution.packages import (
    Packages,
    difference_here,
    environment_folder,
    may_use,
    packages_digest,
)
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.facts import is_number, newest_environment
from runnable_ci.analysis.reproduction.again import PreparedTree, ReproduceOptions, prepared_tree
from runnable_ci.analysis.reproduction.inputs import read_here
from runnable_ci.analysis.reproduction.left_out import NEVER_TRIED
from runnable_ci.analysis.scratch import scratch_folder
from runnable_ci.engine.options import Options
from runnable_ci.errors import PipelineError, RunnableError, StepError, UsageError
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.branches.metrics import instance_metrics
from runnable_ci.runs.listing.summary import by_shown_name
from runnable_ci.runs.notes.notes_model import MadeFrom
from runnable_ci.runs.run_identity import run_identity
from runnable_ci.store.local import Layout
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import listed
from runnable_ci.vcs.git_files import repository_root

WHY: Final = "why"
SIDES: Final[tuple[Side, Side]] = ("A", "B")


@dataclass(frozen=True, slots=True)
class WhyOptions:
    """What is asked."""

    metric: str
    params: Sequence[str] = ()
    """`NAME=VALUE`, for secrets, which no run has."""


@dataclass(frozen=True, slots=True)
class MadeHybrid:
    """A run that was put together from two others."""

    hybrid: Hybrid
    run_id: str
    """Empty where it could not begin."""
    value: float | None
    failure: str = ""
    """Why it has no value."""
    executed: Sequence[str] = ()
    """The steps that ran, and were not taken from an earlier run."""
    seconds: float = 0.0
    is_earlier: bool = False
    """It was made by an earlier call, and is not made again."""


@dataclass(frozen=True, slots=True)
class _Side:
    read: RunRead
    run: ComparedRun
    tree: PreparedTree
    packages_here: str
    """In what the packages here differ from its own; empty for nothing."""


@dataclass(slots=True)
class WhyPlan:
    """What two runs differ in, and which runs are to be made."""

    options: Options
    asked: WhyOptions
    compared: RunComparison
    a: float
    b: float
    differences: Sequence[KindDifference]
    others: Sequence[str]
    """What differs beside the kinds, and is the same in all runs that are made."""
    hybrids: Sequence[Hybrid]
    sides: Mapping[Side, _Side]
    packages: Mapping[Side, bool]
    """Whether a side's recorded packages are made; else those here are used."""
    data: frozenset[str]
    data_of: Side | None
    """The one side whose data all runs get, where the other's are not all here."""
    packages_here: str
    """Digest of those that are here."""
    bench: Bench
    made_packages: Packages
    made: list[MadeHybrid] = field(default_factory=list)

    @property
    def kinds(self) -> list[Kind]:
        """The kinds that are taken from one run for the other."""
        return [one.kind for one in self.differences if one.is_swapped]

    def attribution(self) -> Attribution:
        """Return what the runs say."""
        return attribute(self.kinds, self.a, self.b, {one.hybrid: one.value for one in self.made})

    def make(self, begun: Callable[[Hybrid], None]) -> Iterator[MadeHybrid]:
        """Make the runs, and yield each. Raises `RunInterruptedError`, `StoreError`."""
        earlier = earlier_runs(self.bench.layout)
        for hybrid in self.hybrids:
            begun(hybrid)
            if (log := earlier.get(self._made_from(hybrid).key)) is not None:
                self.bench.take(ComparedRun(self.bench.layout, log))
                one = MadeHybrid(
                    hybrid, log.run_id, metric_of(log, self.asked.metric), failure_of(log), is_earlier=True
                )
            else:
                one = self._make(hybrid)
            self.made.append(one)
            yield one

    def _make(self, hybrid: Hybrid) -> MadeHybrid:
        start = time.monotonic()
        run_id = self.bench.unused(self._name(hybrid))
        try:
            with self._tree(hybrid) as tree:
                prefer = [self.sides[side].run.log.run_id for side in (hybrid.base, hybrid.other)]
                order = Order(
                    run_id,
                    self._made_from(hybrid),
                    hybrid.label(*(self.sides[side].run.log.run_id for side in SIDES)),
                    values_of(self.sides[hybrid.side("values")].run.log),
                    self.asked.params,
                    self._until(hybrid),
                    prefer,
                )
                log = self.bench.make(tree, order, self.sides[hybrid.side("code")].run)
                elsewhere = read_here(ComparedRun(self.bench.layout, log), tree.workspace, tree.project.workspace)
        except (PipelineError, UsageError, StepError) as e:  # it cannot begin: that is what is known of it
            return MadeHybrid(hybrid, "", None, e.message, seconds=time.monotonic() - start)
        value = metric_of(log, self.asked.metric)
        failure = failure_of(log) or next(iter(elsewhere.values()), "")
        if not failure and not is_number(value):
            failure = f"it has no number `{self.asked.metric}`"
        value = value if is_number(value) and not failure else None
        return MadeHybrid(hybrid, log.run_id, value, failure, executed(log), time.monotonic() - start)

    def _until(self, hybrid: Hybrid) -> list[str]:
        """Return the step that gives the metric: nothing behind it is run."""
        name = giver_of(self.sides[hybrid.side("code")].run.log, self.asked.metric)
        return [name] if name else []

    def _name(self, hybrid: Hybrid) -> str:
        base, other = (self.sides[side].run.log.run_id[:45] for side in (hybrid.base, hybrid.other))
        kinds = "-".join(kind for kind in KINDS if kind in hybrid.taken)
        return f"{base}-{kinds}-of-{other}" if kinds else f"{base}-here"

    def _made_from(self, hybrid: Hybrid) -> MadeFrom:
        of = {kind: self.sides[hybrid.side(kind)].run.log for kind in KINDS}
        packages = of["packages"].run_id if self.packages[hybrid.side("packages")] else ""
        identities = [run_identity(of[kind]) for kind in ("code", "data", "values")]
        parts = [*identities, packages, hybrid.base, self._until(hybrid), self.packages_here]
        return MadeFrom(
            purpose=WHY,
            code=of["code"].run_id,
            data=of["data"].run_id,
            values=of["values"].run_id,
            packages=packages,
            key=key_of(parts, self.asked.params),
        )

    @contextmanager
    def _tree(self, hybrid: Hybrid) -> Iterator[PreparedTree]:
        code, packages = self.sides[hybrid.side("code")], self.sides[hybrid.side("packages")]
        data = self.sides[self.data_of or hybrid.side("data")]
        with prepared_tree(code.run, code.tree.workspace, self.options, ReproduceOptions()) as tree:
            # A step that the run skipped by its condition may run with other values.
            left_out = {name: why for name, why in tree.left_out.items() if why != NEVER_TRIED}
            narrowed = replace(tree, left_out=left_out)
            _bring_data(self.data, data.tree.project.workspace, tree)
            with shown_without(tree.project.workspace):
                if self.packages[hybrid.side("packages")]:
                    log = packages.run.log
                    yield self.made_packages.given(narrowed, log.run_id, newest_environment(log))
                else:
                    yield narrowed


@contextmanager
def opened_plan(
    a: ComparedRun, b: ComparedRun, compared: RunComparison, layout: Layout, options: Options, asked: WhyOptions
) -> Iterator[WhyPlan]:
    """Look at two runs and prepare what can be made of both, in folders that are removed in the end.

    Raises `UsageError`, `CodeIdentityError`, `StepError`.
    """
    first, last = require_comparable(a, b, asked.metric)
    workspace = layout.folder.parent
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder()).resolve()
        sides: dict[Side, _Side] = {}
        for side, run in zip(SIDES, (a, b), strict=True):
            tree = stack.enter_context(prepared_tree(run, workspace, options, ReproduceOptions()))
            read = run.read()
            sides[side] = _Side(read, run, tree, difference_here(read, tree, list(run.log.steps)))
        data = data_files(sides["A"].read) | data_files(sides["B"].read)
        prefix = _prefix(sides["A"].tree.project.workspace)
        here = packages_digest(sides["A"].tree)
        packages, bench = Packages(folder, options.environ), Bench(layout, folder)
        of_data, data_of = _data_difference(sides, data)
        of_packages, made_packages = _package_difference(compared, sides, packages)
        differences = [
            KindDifference("code", code_names(compared, data, prefix, [sides[side].read for side in SIDES])),
            of_data,
            KindDifference("values", value_names(compared, a.log, b.log)),
            of_packages,
        ]
        is_held = all(not sides[side].packages_here or made_packages[side] for side in SIDES)
        not_whole = [
            f"the results of {run.log.run_id} cannot be taken: {why}" for run in (a, b) if (why := bench.take(run))
        ]
        _take_earlier(bench, {a.log.run_id, b.log.run_id})
        yield WhyPlan(
            options=options,
            asked=asked,
            compared=compared,
            a=first,
            b=last,
            differences=differences,
            others=[*other_differences(compared, a.log, b.log), *not_whole, *_left_out(packages, made_packages)],
            hybrids=planned(
                [one.kind for one in differences if one.is_swapped], ends_too=data_of is not None or not is_held
            ),
            sides=sides,
            packages=made_packages,
            data=data,
            data_of=data_of,
            packages_here=here,
            bench=bench,
            made_packages=packages,
        )


def _take_earlier(bench: Bench, both: set[str]) -> None:
    """Have what was made of both runs before, for another metric, ready to be taken."""
    for log in earlier_runs(bench.layout).values():
        if (made := log.made_from) and made.purpose == WHY and {made.code, made.data, made.values} <= both:
            bench.take(ComparedRun(bench.layout, log))


def _prefix(workspace: Path) -> str:
    root = repository_root(workspace) or workspace
    return "" if root == workspace else f"{workspace.relative_to(root).as_posix()}/"


def require_comparable(a: ComparedRun, b: ComparedRun, metric: str) -> tuple[float, float]:
    """Return the metric of two runs. Raises `UsageError` where nothing can be said of it."""
    if run_identity(a.log) == run_identity(b.log):
        raise UsageError(f"A and B are the same run, {a.log.run_id}", hint="name two runs: `runs` lists them")
    one, other = (PipelineIdentity.recorded(run.log.name, run.log.run_config) for run in (a, b))
    if not one.is_same(other, is_known_here=True):
        raise UsageError(
            f"the runs are of different pipelines: {one} and {other}", hint="name two runs of one pipeline"
        )
    values = [metric_of(run.log, metric, required=True) for run in (a, b)]
    for run, value in zip((a, b), values, strict=True):
        if not is_number(value):
            instances = [
                f"`{name}`" for name in by_shown_name(instance_metrics(run.log)) if name.startswith(f"{metric}: ")
            ]
            hint = f"name one of {listed(instances, at_most=5)}" if instances else "name another metric"
            raise UsageError(f"`{metric}` of run {run.log.run_id} is no number: {value!r}", hint=hint)
    if values[0] == values[1]:
        raise UsageError(
            f"`{metric}` is {values[0]:.6g} in both runs: nothing moved it",
            hint=f"`{command('diff', a.log.run_id, b.log.run_id)}` says what else differs",
        )
    return values[0], values[1]


def _data_difference(sides: Mapping[Side, _Side], data: frozenset[str]) -> tuple[KindDifference, Side | None]:
    """Return how data differ, and whose all runs get where the other's are not here. Raises `UsageError`."""
    missing = {side: next(iter(sides[side].tree.inputs.missing.values()), "") for side in SIDES}
    if all(missing.values()):
        raise UsageError(
            f"the data of neither run are available: {missing['A']}; {missing['B']}",
            hint="bring the files of one of the runs back to where its steps read them",
        )
    places = [sides[side].tree.project.workspace for side in SIDES]
    contents = {path: (_sha256(places[0] / path), _sha256(places[1] / path)) for path in data}
    lacking = next((side for side in SIDES if missing[side]), None)
    why = f"those of {lacking} are not here: {missing[lacking]}" if lacking else ""
    names = data_names(data, contents) or ((missing[lacking],) if lacking else ())
    return KindDifference("data", names, why), None if lacking is None else "B" if lacking == "A" else "A"


def _package_difference(
    compared: RunComparison, sides: Mapping[Side, _Side], packages: Packages
) -> tuple[KindDifference, dict[Side, bool]]:
    """Return how packages differ, and of which side the recorded ones are made, as others are here."""
    names = package_names(compared)
    needed: dict[Side, bool] = {side: bool(sides[side].packages_here) for side in SIDES}
    refused = next((why for side in SIDES if needed[side] and (why := _refused(sides[side], packages))), "")
    if refused:
        return KindDifference("packages", names, refused if names else ""), {"A": False, "B": False}
    return KindDifference("packages", names), needed


def _left_out(packages: Packages, made: Mapping[Side, bool]) -> list[str]:
    """Return which packages are not in those that are made: no step is known to use them."""
    lacking = packages.lacking.values() if any(made.values()) else ()
    return list(dict.fromkeys(f"{why}: it is left out" for one in lacking for why in one.values()))


def _refused(side: _Side, packages: Packages) -> str:
    """Return why the packages of a run cannot be made here; empty where they were."""
    try:
        environment_folder(side.tree.project.pipeline)
        packages.given(side.tree, side.run.log.run_id, newest_environment(side.run.log))
    except (RunnableError, OSError) as e:
        return str(e)
    lacking = packages.lacking.get(side.run.log.run_id, {})
    return next((why for name, why in lacking.items() if may_use(side.read, name)), "")


def _bring_data(paths: frozenset[str], source: Path, tree: PreparedTree) -> None:
    """Have the files in a tree as they are in another one.

    A file that git does not track, and that only the run of the code read, stays: the other run says nothing of it.
    """
    into, provided = tree.project.workspace, {*tree.inputs.copied, *tree.inputs.restored}
    for path in paths:
        here, there = into / path, source / path
        if not (here.parent.resolve().is_relative_to(into) and there.resolve().is_relative_to(source)):
            continue  # it lies in a folder above, or leads there
        if there.is_file():
            if here.is_symlink() or here.exists():
                here.unlink()
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(there, here)
        elif here.is_file() and path not in provided:
            here.unlink()


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
