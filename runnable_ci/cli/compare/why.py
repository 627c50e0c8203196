"""`runnable-ci why`: which of code, data, values and packages moved a metric."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

from runnable_ci.analysis.attribution.effects import Attribution, Hybrid, in_words
from runnable_ci.analysis.attribution.kinds import KindDifference
from runnable_ci.analysis.attribution.why import MadeHybrid, WhyOptions, WhyPlan, opened_plan, require_comparable
from runnable_ci.analysis.comparison.which import require_ended
from runnable_ci.analysis.scratch import sweep_scratch
from runnable_ci.cli.compare.diff import compared, opened_finder
from runnable_ci.engine.options import Options
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.signals import unwinding
from runnable_ci.util.text import as_pair, distinct, format_duration, listed, pluralize, table

NOT_EXPLAINED: Final = 1
"""Exit code where nothing that can be taken from a run moved the metric."""
NOT_COMPARABLE: Final = 4
"""Exit code where it could not be seen for each kind."""
_NAMED_MAX: Final = 3


def why(
    layout: Layout, words: tuple[str, str], options: Options, asked: WhyOptions, *, is_dry: bool, as_json: bool
) -> int:
    """Print what moved a metric from one run to another; the exit code."""
    began = time.monotonic()
    sweep_scratch()
    with unwinding(), opened_finder(layout, options.settings, options.environ, whole=True) as finder:
        a, b = map(require_ended, finder.pair(words))
        require_comparable(a, b, asked.metric)
        found = compared(a, b, layout.folder.parent, options.environ)
        with opened_plan(a, b, found, layout, options, asked) as plan:
            before = [*_before(plan)]
            if is_dry:
                console.json(json.dumps(_planned(plan), indent=1)) if as_json else console.out(*before)
                return 0
            options.printer.say(*before)
            for _ in plan.make(lambda hybrid: options.printer.say(f"made: {hybrid.label()}")):
                pass
            attribution, seconds = plan.attribution(), time.monotonic() - began
            if as_json:
                console.json(json.dumps(_document(plan, attribution, seconds), indent=1))
            else:
                console.out(*_lines(layout, plan, attribution, seconds))
    if any(one.not_comparable for one in plan.differences) or attribution.unknown:
        return NOT_COMPARABLE
    return 0 if attribution.moved_by else NOT_EXPLAINED


def _before(plan: WhyPlan) -> Iterator[str]:
    """Yield what is known before anything runs."""
    names = {side: plan.sides[side].run.log.run_id for side in plan.sides}
    a, b = as_pair(plan.a, plan.b)
    yield f"A is run {names['A']}: {plan.asked.metric} = {a}"
    yield f"B is run {names['B']}: {plan.asked.metric} = {b}"
    same = [one.kind for one in plan.differences if not one.names]
    for one in plan.differences:
        if one.names:
            refused = f"; not comparable: {one.not_comparable}" if one.not_comparable else ""
            verb = "differs" if one.kind == "code" else "differ"
            yield f"{one.kind} {verb}: {_named(one)}{refused}"
    if same:
        yield f"the same in both: {in_words(same)}"
    yield from (f"not held equal: {line}" for line in plan.others)
    if plan.hybrids:
        labels = "; ".join(hybrid.label() for hybrid in plan.hybrids)
        yield f"{pluralize(len(plan.hybrids), 'run')}, in which only what changed runs: {labels}"


def _named(one: KindDifference) -> str:
    return listed(one.names, at_most=_NAMED_MAX)


def _lines(layout: Layout, plan: WhyPlan, found: Attribution, seconds: float) -> Iterator[str]:
    yield ""
    if found.effects:
        rows = [
            (one.kind, _change(one.from_a), _change(one.from_b), _ROLES[one.role], _named(difference))
            for one in found.effects
            for difference in plan.differences
            if difference.kind == one.kind
        ]
        yield from table(("KIND", "IN A, FROM B", "IN B, AGAINST A", "MOVED IT", "WHAT DIFFERS"), rows)
        yield ""
    yield verdict_line(plan, found)
    known = [one.value for one in plan.made if one.value is not None]
    texts = dict(zip(known, distinct([plan.a, plan.b, *known])[2:], strict=False))
    for one in plan.made:
        yield _run_line(one, "" if one.value is None else texts[one.value])
    for difference in plan.differences:
        if difference.not_comparable:
            yield f"not comparable: {difference.kind}: {difference.not_comparable}"
    if found.has_rest:
        yield f"not explained by these: {_change(found.rest)}, by chance or by what is not held"
        a = plan.sides["A"].run.log.run_id
        yield f"`{of_store(layout, 'reproduce', a, '--times', '5')}` finds what does not come out the same twice"
    steps = sum(len(one.executed) for one in plan.made)
    yield f"{pluralize(len(plan.made), 'run')}, {pluralize(steps, 'step')} executed, {format_duration(seconds)}"


_ROLES = {"alone": "yes", "together": "with others", "none": "no", "unknown": "not known"}


def _run_line(one: MadeHybrid, value: str) -> str:
    label = one.hybrid.label()
    if not one.run_id:
        return f"{label}: it cannot begin: {one.failure}"
    earlier = ", made before" if one.is_earlier else ""
    return f"{label}: {value or f'no value: {one.failure}'} (run {one.run_id}{earlier})"


def verdict_line(plan: WhyPlan, found: Attribution) -> str:
    """Return what moved the metric, in one line."""
    whole = f"`{plan.asked.metric}` {' → '.join(as_pair(plan.a, plan.b))} ({_change(plan.b - plan.a)})"
    alone = [f"{one.kind} ({_change(one.from_a)})" for one in found.effects if one.role == "alone"]
    parts = []
    if alone:
        parts.append(f"moved by {listed(alone, at_most=4)}")
    if len(found.together) > 1:
        parts.append(f"{in_words(found.together)} act together")
    elif found.together:
        parts.append(f"{found.together[0]} acts together with what could not be distinguished")
    if found.unknown:
        parts.append(f"not known: {in_words(found.unknown)}")
    return f"{whole}: {'; '.join(parts) or 'none of code, data, values and packages moved it'}"


def _change(value: float | None) -> str:
    return "?" if value is None else f"{value:+.6g}" if value else "0"


def _planned(plan: WhyPlan) -> dict[str, Any]:
    return {
        "metric": plan.asked.metric,
        "a": {"run_id": plan.sides["A"].run.log.run_id, "value": plan.a},
        "b": {"run_id": plan.sides["B"].run.log.run_id, "value": plan.b},
        "change": plan.b - plan.a,
        "kinds": [_kind(one) for one in plan.differences],
        "not_held": list(plan.others),
        "runs": [_hybrid(one) for one in plan.hybrids],
    }


def _kind(one: KindDifference) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "differs": bool(one.names),
        "what": list(one.names),
        "not_comparable": one.not_comparable,
    }


def _hybrid(one: Hybrid) -> dict[str, Any]:
    return {"base": one.base, "taken": sorted(one.taken), "label": one.label()}


def _document(plan: WhyPlan, found: Attribution, seconds: float) -> dict[str, Any]:
    effects = {one.kind: {"from_a": one.from_a, "from_b": one.from_b, "moved": one.role} for one in found.effects}
    runs = [
        _hybrid(one.hybrid)
        | {
            "run_id": one.run_id,
            "value": one.value,
            "failure": one.failure,
            "executed": list(one.executed),
            "made_before": one.is_earlier,
            "seconds": round(one.seconds, 3),
        }
        for one in plan.made
    ]
    return {
        **_planned(plan),
        "kinds": [_kind(one) | effects.get(one.kind, {}) for one in plan.differences],
        "moved_by": found.moved_by,
        "together": found.together,
        "not_known": found.unknown,
        "rest": found.rest if found.has_rest else 0.0,
        "runs": runs,
        "executed": sum(len(one.executed) for one in plan.made),
        "seconds": round(seconds, 3),
    }
