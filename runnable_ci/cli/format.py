"""How a plan is shown: one line a step, with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.engine.planner import Decision
from runnable_ci.util.console import console


def print_plan(decisions: Mapping[str, Decision]) -> None:
    """Print what would be done with each step, and why."""
    width = max(map(len, decisions))
    console.out(*(f"{name:{width}}  {decision.action:5}  {decision.reason}" for name, decision in decisions.items()))
