"""The steps of a run as a flowchart that GitHub draws. Source: mermaid's documentation, flowcharts syntax."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from runnable_ci.analysis.states import State
from runnable_ci.github.markdown import cut
from runnable_ci.util.text import printable

GRAPH_MAX_STEPS = 100
"""More are neither legible, nor does mermaid draw more than 500 edges or 50,000 characters."""
_MAX_EDGES = 400
_LABEL_MAX_CHARACTERS = 40
# Of GitHub's own colours, with text that can be read on them in its dark theme too.
_STYLES: Mapping[State, str] = {
    "succeeded": "fill:#dafbe1,stroke:#1a7f37,color:#1f2328",
    "reused": "fill:#ddf4ff,stroke:#0969da,color:#1f2328",
    "failed": "fill:#ffebe9,stroke:#cf222e,color:#1f2328,stroke-width:3px",
    "cancelled": "fill:#fff8c5,stroke:#9a6700,color:#1f2328",
    "skipped": "fill:#f6f8fa,stroke:#8c959f,color:#59636e,stroke-dasharray:4",
    "running": "fill:#fff8c5,stroke:#9a6700,color:#1f2328",
    "removed": "fill:#f6f8fa,stroke:#8c959f,color:#59636e",
}


def flowchart(needs: Mapping[str, Sequence[str]], states: Mapping[str, State]) -> str:
    """Return a flowchart of these steps, each in the colour of its state; edges to other steps are left out."""
    keys = {name: f"s{i}" for i, name in enumerate(needs)}
    edges = [f"{keys[need]} --> {keys[name]}" for name, found in needs.items() for need in found if need in keys]
    used = sorted(set(states.values()))
    lines = [
        f"flowchart {'LR' if _depth(needs) <= 6 else 'TD'}",
        *(f'{key}["{_label(name)}"]:::{states[name]}' for name, key in keys.items()),
        *edges[:_MAX_EDGES],
        *(f"classDef {state} {_STYLES[state]}" for state in used),
    ]
    return "\n".join(lines)


def _label(name: str) -> str:
    """Return a name that mermaid shows as it is: all but letters and digits as numbered characters."""
    return "".join(
        c if c.isalnum() or c in "_-" else f"#{ord(c)};" for c in cut(printable(name), _LABEL_MAX_CHARACTERS)
    )


def _depth(needs: Mapping[str, Iterable[str]]) -> int:
    """Return how many steps follow each other on the longest way.

    Steps of a circle, which no pipeline has, count once.
    """
    depths: dict[str, int] = {}
    for start in needs:
        waiting = [start]
        while waiting:
            name = waiting[-1]
            below = [need for need in needs[name] if need in needs and need not in depths and need not in waiting]
            if below:
                waiting.append(below[0])
                continue
            waiting.pop()
            depths[name] = 1 + max((depths.get(need, 0) for need in needs[name]), default=0)
    return max(depths.values(), default=0)
