"""Whether a step would give now what it gave in another run: all that it was made from is compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runnable_ci.engine.planner import Scope
from runnable_ci.engine.provenance.changes import changed_definition, changed_parameters
from runnable_ci.engine.provenance.staleness import Comparison
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.reuse.earlier_result import EarlierResult
from runnable_ci.engine.reuse.rules import reason_against
from runnable_ci.engine.reuse.surroundings import Surroundings
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.catalog import Catalog
from runnable_ci.util.clock import now
from runnable_ci.util.text import listed, seconds_between
from runnable_ci.vcs.identity import Code


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Proof:
    """Compares results of other runs with what steps of this one would see."""

    pipeline: Pipeline
    catalog: Catalog
    code: Code
    products: RunProducts
    """What the steps of this run made: it grows."""
    surroundings: Surroundings
    mask: Callable[[Any], Any]

    def first_difference(self, step: Step, found: EarlierResult, scope: Scope, ran: Sequence[Step]) -> tuple[int, str]:
        """Return the first thing that speaks against reusing a result; empty where all is proved to be equal.

        The number is greater the more was equal before it. `ran` are the steps before it that ran in this run.
        """
        named = ((place, reason) for place, reason in self._differences(step, found, scope, ran) if reason)
        return next(named, (0, ""))

    def refusal(self, step: Step, found: EarlierResult) -> str:
        """Return what speaks against a result whatever the steps before it give; empty where nothing does."""
        definition = step.definition()
        is_known = "${{" not in json.dumps(definition, default=str)
        changed = changed_definition(found.attempt.definition, self.mask(definition)) if is_known else ""
        return changed or _against(step, found)

    def _differences(
        self, step: Step, found: EarlierResult, scope: Scope, ran: Sequence[Step]
    ) -> Iterator[tuple[int, str]]:
        """Yield what differs, with how far the comparison had come: definition, values, rules, reads, environment."""
        last, log = found.attempt, found.log
        definition = step.definition()
        masked = self.mask(definition)
        yield 0, changed_definition(last.definition, masked)
        if _without_variables(masked) != _without_variables(definition):
            yield 0, "its definition has a secret in it"
        begun = {name: visible.item for name, visible in scope.parameters.items() if not visible.position}
        for _, reason in changed_parameters(step, last, scope.values(), begun, log, self.mask):
            yield 1, reason
        yield 2, _against(step, found)
        asserted = found.asserted()
        comparison = Comparison(
            self.pipeline, log, self.catalog, self.code, self.products, lambda _title, _attempt: found.reads
        )
        evidence = comparison.evidence(step, asserted, scope)
        for change in evidence.changes:
            yield 3, change.reason
        yield 4, _silent(ran, last.consumed, evidence.files or (), scope)
        yield 5, self.surroundings.difference(step, found, scope)


def _against(step: Step, found: EarlierResult) -> str:
    age_s = seconds_between(found.attempt.end_time, now())
    return reason_against(step, found.step, found.reads, float("inf") if age_s is None else age_s)


def _without_variables(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition without its own variables, which are compared by their digests."""
    container = definition.get("container")
    inner = {**container, "env": {}} if isinstance(container, Mapping) else container
    return {**definition, "env": {}, "container": inner}


def _silent(ran: Sequence[Step], consumed: Sequence[str] | Any, files: Any, scope: Scope) -> str:
    """Return which steps before it ran and pass it nothing that could be compared; empty where there is none."""
    givers = {scope.parameters[name].giver for name in consumed if name in scope.parameters}
    got = [scope.files[name].item for name in files if name in scope.files]
    givers |= {giver for entry in got for giver in (entry.source, *groups_of(entry.source))}
    silent = [f"`{step.shown}`" for step in ran if step.name not in givers]
    return f"{listed(silent)} ran, and passes nothing to it that could be compared" if silent else ""
