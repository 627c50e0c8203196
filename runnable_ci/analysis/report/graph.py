"""The steps of a run as a graph: where each stands, in layers from left to right. Pure.

Source: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981: layers by
the longest way, order within a layer by the mean place of what a step needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

NODE_WIDTH: Final = 150
NODE_HEIGHT: Final = 34
_GAP_X: Final = 46
_GAP_Y: Final = 14
_MARGIN: Final = 8
_PASSES: Final = 4
_LABEL_MAX: Final = 20
NODES_MAX: Final = 300
"""More are neither legible nor quick to draw; the list of steps has them."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step in the picture; lengths in pixels."""

    name: str
    label: str
    """Short enough for its box."""
    title: str
    state: str
    x: int
    y: int
    place: int
    """Which of the page's steps it leads to; -1 for none."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The whole picture."""

    width: int
    height: int
    nodes: Sequence[Node]
    edges: Sequence[str]
    """Each as the `d` of an SVG path."""


def graph_of(
    needs: Mapping[str, Sequence[str]],
    labels: Mapping[str, str],
    states: Mapping[str, str],
    places: Mapping[str, int],
) -> Graph | None:
    """Return where each step stands; None where these are too many. Edges to other steps are left out."""
    if not needs or len(needs) > NODES_MAX:
        return None
    known = {name: [need for need in found if need in needs and need != name] for name, found in needs.items()}
    layers = _layers(known)
    at: dict[str, tuple[int, int]] = {}
    tallest = max(len(layer) for layer in layers)
    for column, layer in enumerate(layers):
        offset = (tallest - len(layer)) * (NODE_HEIGHT + _GAP_Y) // 2
        for row, name in enumerate(layer):
            x = _MARGIN + column * (NODE_WIDTH + _GAP_X)
            at[name] = x, _MARGIN + offset + row * (NODE_HEIGHT + _GAP_Y)
    nodes = [
        Node(name, _short(labels[name]), labels[name], states[name], *at[name], places.get(name, -1)) for name in known
    ]
    edges = [_edge(at[need], at[name]) for name, found in known.items() for need in found if at[need][0] < at[name][0]]
    width = 2 * _MARGIN + len(layers) * (NODE_WIDTH + _GAP_X) - _GAP_X
    return Graph(width, 2 * _MARGIN + tallest * (NODE_HEIGHT + _GAP_Y) - _GAP_Y, nodes, edges)


def _layers(needs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    depth: dict[str, int] = {}
    for start in needs:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            below = [need for need in needs[name] if need not in depth and need not in waiting]
            if below:
                waiting.append(below[0])
                continue
            depth[name] = max((depth[need] + 1 for need in needs[name] if need in depth), default=0)
            waiting.pop()
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in needs:
        layers[depth[name]].append(name)
    for _ in range(_PASSES):
        for above, layer in pairwise(layers):
            place = {name: row for row, name in enumerate(above)}
            layer.sort(key=lambda name: _mean([place[need] for need in needs[name] if need in place]))
    return layers


def _mean(places: Sequence[int]) -> float:
    return sum(places) / len(places) if places else 0.0


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT // 2
    to_x, to_y = end[0], end[1] + NODE_HEIGHT // 2
    half = _GAP_X // 2
    return f"M{x},{y} C{x + half},{y} {to_x - half},{to_y} {to_x},{to_y}"


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_MAX else f"{label[: _LABEL_MAX - 1]}…"
