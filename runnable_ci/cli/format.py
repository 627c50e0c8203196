"""How a plan and its outcome are shown: one line a step, with its reason, and one line a run."""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.engine.planner import Decision
from runnable_ci.pipeline import command_line
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.model import SUCCESS, RunLog
from runnable_ci.util.console import console


def print_plan(decisions: Mapping[str, Decision]) -> None:
    """Print what would be done with each step, and why."""
    width = max(map(len, decisions))
    console.out(*(f"{name:{width}}  {decision.action:5}  {decision.reason}" for name, decision in decisions.items()))


def closing(log: RunLog, project: Project, *options: str) -> list[str]:
    """How a run ended, and what to do next; a retry needs these `options` too."""
    metrics = "".join(f", {name} = {value}" for name, value in log.metrics().items())
    if log.status != SUCCESS:
        hint = command_line.retry(log.run_id, project.file, project.layout, *options)
        return [f"run {log.run_id}: {log.status}, {log.message}{metrics}", f"hint: {hint}"]
    return [f"run {log.run_id}: {log.status}{metrics}"]
