"""A metric over runs, as a line that SVG draws. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from runnable_ci.analysis.facts import is_number, share_of
from runnable_ci.runs.listing.summary import Summary

WIDTH: Final = 260
HEIGHT: Final = 64
_MARGIN: Final = 7
RUNS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Point:
    """A run's value; places in pixels."""

    x: float
    y: float
    title: str
    is_this: bool


@dataclass(frozen=True, slots=True)
class Plot:
    """A metric over the runs of a pipeline, the oldest first."""

    name: str
    points: Sequence[Point]
    line: str
    """The `points` of an SVG polyline."""
    least: str
    most: str
    first: str
    """The oldest run."""


def plot_of(name: str, runs: Iterable[Summary], this: str) -> Plot | None:
    """Return the plot of a metric; None where fewer than two runs have a number."""
    values = ((run.run_id, run.all_metrics().get(name)) for run in runs)
    found = [(run_id, float(value)) for run_id, value in values if is_number(value)][-RUNS_MAX:]
    if len(found) < 2:
        return None
    least, most = min(value for _, value in found), max(value for _, value in found)
    points = []
    for at, (run_id, value) in enumerate(found):
        x = _MARGIN + at * (WIDTH - 2 * _MARGIN) / (len(found) - 1)
        share = share_of(value, least, most) if most > least else 0.5
        y = HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN)
        points.append(Point(round(x, 1), round(y, 1), f"{run_id}: {value:.6g}", run_id == this))
    line = " ".join(f"{point.x},{point.y}" for point in points)
    return Plot(name, points, line, f"{least:.6g}", f"{most:.6g}", found[0][0])
