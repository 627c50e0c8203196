"""Runs in fresh trees that take what stays the same from the runs before them, and are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.adopt import adopt
from runnable_ci.analysis.reproduction.again import PreparedTree, RunInterruptedError, run_in_tree, stand_ins
from runnable_ci.engine.options import ReuseOptions
from runnable_ci.engine.run_project import is_of
from runnable_ci.errors import RunnableError
from runnable_ci.runs.branches.labels import is_only_branches
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.notes.notes_model import MadeFrom
from runnable_ci.runs.reader import experiments, load, run_ids
from runnable_ci.store.local import Layout


@dataclass(frozen=True, slots=True)
class Order:
    """One run that is to be made."""

    run_id: str
    made_from: MadeFrom
    tag: str
    values: Mapping[str, Any]
    params: Sequence[str] = ()
    """`NAME=VALUE`; they count before the values."""
    until: Sequence[str] = ()
    """Steps below which nothing is needed."""
    prefer: Sequence[str] = ()
    """Runs whose results are taken first."""


@dataclass(slots=True)
class Bench:
    """A store that goes from tree to tree with what was made so far, and the one here in which runs are kept.

    What a run in a tree leaves in its store is then found by the next one, as in a workspace, without being copied.
    """

    layout: Layout
    """The store here."""
    folder: Path
    """An empty one, removed by its maker."""
    reuses: bool = True
    """Whether steps are taken from earlier runs: not where it counts how long they take."""
    taken: dict[str, RunLog] = field(default_factory=dict)
    """The runs whose results are ready to be taken."""

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    def take(self, run: ComparedRun) -> str:
        """Have the results of a run ready to be taken; return why they cannot be, empty where they are."""
        if run.log.run_id in self.taken:
            return ""
        try:
            adopt(run.layout, Layout(self._store), run.log)
        except RunnableError as e:  # its content is gone: its steps run
            return e.message
        self.taken[run.log.run_id] = run.log
        return ""

    def make(self, tree: PreparedTree, order: Order, found: ComparedRun | None = None) -> RunLog:
        """Make a run in a prepared tree, and keep it; `found` is the run of its code, whose deploys are not run again.

        Raises as `run_in_tree`.
        """
        own = tree.project.layout.folder
        if self._store.exists():
            self._store.rename(own)
        names = [*order.prefer, *reversed(self.taken)]
        known = [self.taken[name] for name in dict.fromkeys(names) if name in self.taken]
        environ, layout = tree.options.environ, tree.project.layout
        usable = [log.run_id for log in known if is_of(tree.project, log, environ=environ, layout=layout)]
        said, *also = (self.reuses and usable) or ["never"]
        try:
            made = run_in_tree(
                tree,
                order.run_id,
                order.values,
                order.params,
                tag=order.tag,
                until=order.until,
                mocks=stand_ins(found, tree, order.until) if found else None,
                reuse=ReuseOptions(said, also=also),
            )
            log = made.log.model_copy(update={"made_from": order.made_from})
            adopt(made.layout, self.layout, log)
        except RunInterruptedError as e:
            e.message = "cancelled; the runs that were made are kept, and taken when this is asked again"
            raise
        finally:
            if own.exists():
                own.rename(self._store)
        self.taken[order.run_id] = log
        return log

    def unused(self, base: str) -> str:
        """Return an id for a run that none has."""
        known = {*self.taken, *(run_ids(self.layout) if self.layout.folder.is_dir() else ())}
        names = [base, *(f"{base}-{number}" for number in range(2, 1000))]
        return next(name for name in names if name not in known)


@contextmanager
def shown_without(folder: Path) -> Iterator[None]:
    """Let errors in the block name files as they are in a folder, which is gone when a person reads them."""
    try:
        yield
    except RunnableError as e:
        e.message, e.hint = (text.replace(f"{folder}{os.sep}", "") for text in (e.message, e.hint))
        raise


def earlier_runs(layout: Layout) -> dict[str, RunLog]:
    """Return the runs of a store that were made to find what moved a metric, by what they were made from."""
    found: dict[str, RunLog] = {}
    sealed = layout.manifests() if layout.folder.is_dir() else {}
    for run_id in experiments(sealed):
        try:
            log = load(layout, run_id, sealed)
        except RunnableError:  # damaged
            continue
        if log.made_from is not None and log.made_from.key and log.outcome in ("succeeded", "failed"):
            found[log.made_from.key] = log
    return found


def key_of(parts: Sequence[Any], params: Sequence[str]) -> str:
    """Return the digest of what a run is made from.

    Empty where parameters were given for this alone: they may be secrets, which a digest of them could betray.
    """
    return "" if params else hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def executed(log: RunLog) -> list[str]:
    """Return the steps that ran: they were not taken from another run, nor left out."""
    decisions = log.invocations[-1].decisions if log.invocations else {}
    ran = (name for name, one in decisions.items() if one.action == "run")
    steps = {name: log.steps[name] for name in ran if name in log.steps}
    return [
        name
        for name, step in steps.items()
        if not is_only_branches(step) and not any(last.mock for last in step.attempts[-1:])
    ]


def failure_of(log: RunLog) -> str:
    """Return why a run gave nothing, in one line; empty where it succeeded."""
    if log.outcome == "succeeded":
        return ""
    failed = [name for name, step in log.steps.items() if step.outcome == "failed"]
    said = next((log.steps[name].attempts[-1].message for name in failed if log.steps[name].attempts), log.message)
    return f"`{failed[0]}` failed: {said}" if failed else log.message or log.outcome
