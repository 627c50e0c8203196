"""The metrics of a run, each with what it was in the other run and in earlier ones. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runnable_ci.analysis.comparison.blocks import metric_row, shown_name
from runnable_ci.analysis.comparison.model import MetricChange, RunComparison
from runnable_ci.analysis.facts import is_number
from runnable_ci.analysis.report.plots import Plot
from runnable_ci.util.text import truncate

METRICS_MAX: Final = 200
_SHOWN_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str
    value: str
    note: str
    """Of several values: how many, and their range."""
    change: str
    """From the run that is compared with; empty where it is the same, or not known."""
    plot: Plot | None


def metrics_of(found: Mapping[str, Any], comparison: RunComparison | None, plots: Sequence[Plot]) -> list[Metric]:
    """Return the metrics, those that changed first."""
    known = (*comparison.metrics, *comparison.instance_metrics) if comparison else ()
    changed = {shown_name(one): one for one in known if one.before != one.after}
    drawn = {plot.name: plot for plot in plots}
    names = sorted(found, key=lambda name: name not in changed)[:METRICS_MAX]
    return [Metric(name, *_shown(found[name]), _change(changed.get(name)), drawn.get(name)) for name in names]


def _change(one: MetricChange | None) -> str:
    if one is None or one.before is None:
        return "new" if one else ""
    before, _ = _shown(one.before)
    change = metric_row(one)[-1]
    return f"{change} from {before}" if change else f"was {before}"


def _shown(value: Any) -> tuple[str, str]:
    """Return a value, and of several numbers their mean with their number and range."""
    if is_number(value):
        return number(value), ""
    if isinstance(value, list) and len(value) > 1 and all(map(is_number, value)):
        mean = sum(one / len(value) for one in value)
        return f"⌀ {number(mean)}", f"mean of {len(value)} values: {number(min(value))} to {number(max(value))}"
    return truncate(value, _SHOWN_MAX), ""


def number(value: float) -> str:
    """Return a number as people read it: whole ones whole, others with six digits."""
    return str(value) if isinstance(value, int) and abs(value) < 10**12 else f"{value:.6g}"
