"""Runs and steps as rows of a table, by a run log. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Container, Dict, Iterator, List, Mapping, Optional, Tuple

from runnable_ci.runs.listing.summary import Summary, experiment
from runnable_ci.util.text import flattened, seconds_between

Row = Dict[str, Any]
_VALUE_MAX, _ALL_MAX = 300, 4000
"""Characters of JSON of a parameter in a row, and of all of them."""


def row_of_log(log: Mapping[str, Any]) -> Row:
    """Return what `runnable-ci runs --json` has of a run, one that the index of a store does not know as it stands."""
    code = code_of(log) or {}
    steps, invocations = log["steps"], log["invocations"]
    newest = [(name, step) for name, step in steps.items() if step["attempts"]]
    decided = invocations[-1]["decisions"] if invocations and log["end_time"] else steps
    made_again, seconds = log["reproduction"], seconds_of(log)
    return {
        **asdict(Summary.of(log["run_id"], {})),
        **{name: log[name] for name in ("name", "tag", "status", "start_time", "end_time", "ended_by")},
        "seconds": None if seconds is None else round(seconds, 3),
        "commit": code.get("code_identifier", ""),
        "ref": code.get("ref", ""),
        "dirty": not code["code_identifier_dependable"] if code else None,
        "attempts": invocations[-1]["number"] if invocations else 0,
        "failed": ",".join(name for name, step in newest if step["status"] == "FAIL" and name in decided),
        "parameters": _short({name: value for one in invocations for name, value in one["parameters"].items()}),
        "metrics": metrics_of(log),
        "instance_metrics": _instance_metrics(steps, decided),
        "identity": next((one["identity"] for one in invocations if one["command"] == "run"), ""),
        "mocked": ",".join(dict.fromkeys(name.partition(".")[0] for name, step in steps.items() if step["mock"])),
        "reused": str(sum(bool(step["attempts"][-1]["taken_from"]) for _, step in newest) or ""),
        "description": log["notes"]["description"],
        "pinned": log["notes"]["pinned"],
        "reproduces": f"{made_again['run_id']}: {made_again['verdict']}" if made_again else "",
        "made_for": _made_for(log),
    }


def step_rows(log: Mapping[str, Any]) -> List[Row]:
    """Return the steps of a run, those of branches by their labels, in the order in which the log has them."""
    return [
        {
            "name": name,
            "label": label,
            "status": step["status"],
            "outcome": last["outcome"] if last else step["outcome"],
            "attempts": len(step["attempts"]),
            "start_time": last["start_time"] if last else "",
            "seconds": seconds_between(last["start_time"], last["end_time"], last.get("waited_s", 0.0))
            if last
            else None,
            "executor": last.get("executor", "") if last else "",
            "resources": last.get("resources") if last else None,
            "exit_code": last["exit_code"] if last else None,
            "message": step["message"],
            "reason": last["reason"] if last else "",
            "mock": step["mock"],
            "taken_from": last["taken_from"] if last else "",
            "metrics": flattened(_metrics_of_attempt(last)) if last else {},
            "files": [entry["name"] for entry in step["data_catalog"] if entry["stage"] == "put"],
        }
        for name, label in labels(log["steps"])
        for step in [log["steps"][name]]
        for last in [step["attempts"][-1] if step["attempts"] else None]
    ]


def labels(steps: Mapping[str, Any]) -> Iterator[Tuple[str, str]]:
    """Yield each step with how people know it: `quant (gut)`, `train (round 2)`, `prepare / clean`, or its name."""
    for name in steps:
        parts = name.split(".")
        text, last = parts[0], parts[0]
        for end in range(1, len(parts) - 1, 2):
            group, key, inner = ".".join(parts[:end]), parts[end], parts[end + 1]
            branches = steps[group]["instances"] if group in steps else []
            found = next((one["label"] for one in branches if one["name"] == key), key)
            text += (f" ({found})" if found else "") + ("" if inner == last else f" / {inner}")
            last = inner
        yield name, text


def metrics_of(log: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the metrics of the steps' last attempts, the later step winning; of tables each number, `m.r2`."""
    steps, found = log["steps"], {}
    for name, step in steps.items():
        if step["attempts"] and "." not in name:
            found.update(_metrics_of_attempt(step["attempts"][-1]))
    for name in [name for step in steps.values() for name in step["branch_returns"]]:
        parameter = log["parameters"].get(name)
        if parameter and parameter["kind"] == "metric":
            found[name] = parameter["value"]
    return flattened(found)


def code_of(log: Mapping[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the code identity of a run: of its newest own attempt, or of a newer invocation that only took results."""
    attempts = [a for step in log["steps"].values() for a in step["attempts"] if a["code_identities"]]
    known = [(a["invocation"], a["start_time"], a["code_identities"][0]) for a in attempts if not a["taken_from"]]
    for one in log["invocations"]:
        known += [(one["number"], one["start_time"], code) for code in one["code_identities"][:1]]
    if not known:  # an earlier version only took: all that is known
        known = [(a["invocation"], a["start_time"], a["code_identities"][0]) for a in attempts]
    newest = max(known, key=lambda one: one[:2], default=None)
    return newest[2] if newest else None


def seconds_of(log: Mapping[str, Any]) -> Optional[float]:
    """Return how long the invocations took together; None where one is not over."""
    each = [seconds_between(one["start_time"], one["end_time"]) for one in log["invocations"]]
    known = [seconds for seconds in each if seconds is not None]
    return sum(known) if known and len(known) == len(each) else None


def _made_for(log: Mapping[str, Any]) -> str:
    if log["made_from"]:
        return experiment(log["made_from"])
    return f"reproduce {log['reproduction']['run_id']}" if log["reproduction"] else ""


def _instance_metrics(steps: Mapping[str, Any], decided: Container[str]) -> Dict[str, Dict[str, Any]]:
    """Return metric → label of a step in a branch → the value that its last attempt gave."""
    found: Dict[str, Dict[str, Any]] = {}
    for name, label in labels(steps):
        if "." in name and steps[name]["attempts"] and name in decided:
            for metric, value in flattened(_metrics_of_attempt(steps[name]["attempts"][-1])).items():
                found.setdefault(metric, {})[label] = value
    return found


def _metrics_of_attempt(attempt: Mapping[str, Any]) -> Dict[str, Any]:
    given = {name: parameter["value"] for name, parameter in attempt["user_defined_metrics"].items()}
    return {**given, **attempt["file_metrics"]}


def _short(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Return those that are as short as the index of a store has them."""
    found, left = {}, _ALL_MAX
    for name, value in values.items():
        size = len(json.dumps({name: value}))
        if size <= min(left, _VALUE_MAX):
            found[name] = value
            left -= size
    return found
