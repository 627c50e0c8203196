"""The steps of a run as a graph: where each stands, in layers from left to right. Pure.

Source: Sugiyama, Tagawa, Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981: layers by
the longest way, order within a layer by the mean place of what stands beside; an edge over several layers has a place
of its own in each, so that it goes around what stands there.
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
_PASSES: Final = 8
_PLACES_MAX: Final = 3000
"""With more, long edges go straight, whatever stands there."""
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
    layers, links = _with_ways(_layers(known), known)
    _order(layers, links)
    heights = {item: NODE_HEIGHT if isinstance(item, str) else 0 for layer in layers for item in layer}
    whole = max(sum(heights[item] for item in layer) + _GAP_Y * (len(layer) - 1) for layer in layers)
    at: dict[_Item, tuple[int, int]] = {}
    for column, layer in enumerate(layers):
        used = sum(heights[item] for item in layer) + _GAP_Y * (len(layer) - 1)
        y = _MARGIN + (whole - used) // 2
        for item in layer:
            at[item] = _MARGIN + column * (NODE_WIDTH + _GAP_X), y
            y += heights[item] + _GAP_Y
    nodes = [
        Node(name, _short(labels[name]), labels[name], states[name], *at[name], places.get(name, -1)) for name in known
    ]
    width = 2 * _MARGIN + len(layers) * (NODE_WIDTH + _GAP_X) - _GAP_X
    return Graph(width, 2 * _MARGIN + whole, nodes, [_edge([at[item] for item in way]) for way in links])


_Item = str | tuple[str, str, int]
"""A step, or a place on the way from one step to another, in a layer between them."""


def _with_ways(
    found: Sequence[Sequence[str]], needs: Mapping[str, Sequence[str]]
) -> tuple[list[list[_Item]], list[list[_Item]]]:
    """Return the layers with the places of long edges in them, and each edge as all that it goes through."""
    layer_of = {name: column for column, layer in enumerate(found) for name in layer}
    layers: list[list[_Item]] = [[*layer] for layer in found]
    links: list[list[_Item]] = []
    for name, wanted in needs.items():
        for need in dict.fromkeys(wanted):
            start, end = layer_of[need], layer_of[name]
            if start >= end:  # of a circle, which no pipeline has
                continue
            between: list[_Item] = []
            if sum(map(len, layers)) < _PLACES_MAX:
                between = [(need, name, column) for column in range(start + 1, end)]
            for column, item in enumerate(between, start + 1):
                layers[column].append(item)
            links.append([need, *between, name])
    return layers, links


def _order(layers: list[list[_Item]], links: Sequence[Sequence[_Item]]) -> None:
    """Sort each layer by the mean place of what stands beside: to the left, then to the right, some times."""
    left: dict[_Item, list[_Item]] = {}
    right: dict[_Item, list[_Item]] = {}
    for link in links:
        for one, other in pairwise(link):
            left.setdefault(other, []).append(one)
            right.setdefault(one, []).append(other)
    for turn in range(_PASSES):
        beside, order = (left, layers[1:]) if turn % 2 == 0 else (right, layers[-2::-1])
        places = {item: row / len(layer) for layer in layers for row, item in enumerate(layer)}
        for layer in order:
            means = {item: _mean([places[it] for it in beside.get(item, ())], places[item]) for item in layer}
            layer.sort(key=means.__getitem__)
            places |= {item: row / len(layer) for row, item in enumerate(layer)}


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
    return layers


def _mean(places: Sequence[float], otherwise: float) -> float:
    return sum(places) / len(places) if places else otherwise


def _edge(way: Sequence[tuple[int, int]]) -> str:
    """Return a line from the right of the first step to the left of the last one, straight past what it goes around."""
    parts = []
    for at, ((x, y), (to_x, to_y)) in enumerate(pairwise(way)):
        is_first, is_last = at == 0, at == len(way) - 2
        start_y, end_y = y + NODE_HEIGHT // 2 * is_first, to_y + NODE_HEIGHT // 2 * is_last
        if is_first:
            parts.append(f"M{x + NODE_WIDTH},{start_y}")
        half = _GAP_X // 2
        left = x + NODE_WIDTH
        parts.append(f"C{left + half},{start_y} {to_x - half},{end_y} {to_x},{end_y}")
        if not is_last:
            parts.append(f"H{to_x + NODE_WIDTH}")
    return " ".join(parts)


def _short(label: str) -> str:
    return label if len(label) <= _LABEL_MAX else f"{label[: _LABEL_MAX - 1]}…"
