"""What a journal adds up to: a run's events, line by line, each of which proves all before it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Container, Dict, Iterable, Iterator, List, Optional, Tuple

from runnable_ci.errors import RunLogError
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import listed

Log = Dict[str, Any]
READABLE = ("1", "2", "3")
"""Schemas of run logs."""
_CHECKED = re.compile(rb'\{"check":"([0-9a-f]{16})",')
_LARGE_MAX = 1000
"""Characters of JSON up to which a value is shown whole."""


def read_journal(journal: Path, run_id: str) -> Optional[Log]:
    """Return what a journal adds up to; None where it has not one whole line. Raises `RunLogError`."""
    if not journal.exists():
        return None
    log: Optional[Log] = None
    before = b""
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):  # cut off by a crash
                break
            try:
                before = _next_check(line, before)
                log = applied(log, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as e:
                raise RunLogError(
                    f"{journal}, line {number}: damaged", hint=f"`{command('show', run_id)}` says how it can be mended"
                ) from e
    if log is not None and log.get("run_id") != run_id:
        raise RunLogError(f"{journal} is the journal of another run, {log.get('run_id')}", hint="move it away")
    return log


def _next_check(line: bytes, before: bytes) -> bytes:
    """Return the check of a line over itself and all before it. Raises `ValueError` where it states another one."""
    stated = _CHECKED.match(line)
    content = line[stated.end() :] if stated else line[1:]
    check = hashlib.sha256(before + content).hexdigest()[:16].encode()
    if stated and stated[1] != check:
        raise ValueError("it does not follow from the lines before it")
    return check


def applied(log: Optional[Log], event: Dict[str, Any]) -> Log:
    """Return a log with one event of a journal in it."""
    kind = event["event"]
    if kind == "document":
        found = event["run_log"]
        return {**found, "steps": dict(flat(found.get("steps", {}).items()))}
    if kind == "started":
        return _begun(log or {"run_id": event["run_id"], "invocations": [], "steps": {}, "parameters": {}}, event)
    if log is None:
        raise ValueError("an event before the run was started")
    if kind in ("decided", "attempt", "branches", "joined"):
        step = log["steps"].setdefault(event["step"], {"name": event["step"], "internal_name": event["step"]})
        _change_step(log, step, kind, event)
    elif kind in ("environment", "code", "packed"):
        table, key, value = _TABLES[kind]
        log.setdefault(table, {})[event[key]] = event[value]
    elif kind == "ended":
        end = {"end_time": event["time"], "status": event["status"], "message": event.get("message", "")}
        end.update({name: event.get(name, "") for name in ("outcome", "ended_by")})
        end["interrupted"] = event.get("interrupted", False)
        log.update(end)
        code = {"code_identities": event.get("code_identities", []), "code_state": event.get("code_state", "")}
        log["invocations"][-1].update(end, **code)
    elif kind == "schema":
        require_readable(event["version"], str(log.get("run_id")))
        log["schema_version"] = max(log.get("schema_version", "1"), event["version"])
    else:
        raise ValueError(f"an event of an unknown kind, {kind}")
    return log


_TABLES = {
    "environment": ("environments", "key", "environment"),
    "code": ("code_states", "key", "state"),
    "packed": ("packs", "digest", "pack"),
}


def _begun(log: Log, event: Dict[str, Any]) -> Log:
    invocation = event["invocation"]
    log.update(name=event["name"], dag_hash=event["dag_hash"], run_config=event["run_config"])
    log["tag"] = event.get("tag") or log.get("tag", "")
    log["start_time"] = log.get("start_time") or invocation["start_time"]
    log.update(status="PROCESSING", message="", end_time="", outcome="", ended_by="", interrupted=False)
    log["invocations"].append(invocation)
    redacted = invocation.get("redacted", ())
    for name, value in invocation.get("parameters", {}).items():
        log["parameters"][name] = json_parameter(value, redacted=name in redacted)
    return log


def _change_step(log: Log, step: Dict[str, Any], kind: str, event: Dict[str, Any]) -> None:
    decisions = log["invocations"][-1].setdefault("decisions", {})
    branch = "." in event["step"]
    attempts = step.setdefault("attempts", [])
    if kind == "decided":
        decisions[event["step"]] = event["decision"]
        if event["decision"]["action"] == "skip":
            step.update(status="SKIPPED", message=event["decision"]["reason"], outcome="")
        elif attempts:
            _show_attempt(step, attempts[-1])
    elif kind == "attempt":
        attempt = event["attempt"]
        if attempts and attempts[-1].get("attempt_number", 1) == attempt.get("attempt_number", 1):
            attempts[-1] = attempt
        else:
            if attempts:
                attempts[-1]["data_catalog"] = step.get("data_catalog", [])
            attempts.append(attempt)
            decisions[event["step"]] = {"action": "run", "reason": attempt.get("reason", "")}
        _show_attempt(step, attempt)
        step["data_catalog"] = event.get("data_catalog", [])
        if not branch:
            log["parameters"].update(
                {**attempt.get("output_parameters", {}), **attempt.get("user_defined_metrics", {})}
            )
    elif kind == "branches":
        step.update(step_type=event["kind"], instances=event["branches"])
        step.update(branch_steps=event["steps"], branch_returns=event["returns"])
        step.update(status="PROCESSING", message="", outcome="")
        decisions[event["step"]] = {"action": "run", "reason": "its branches are known"}
    else:
        decisions[event["step"]] = event.get("decision", {"action": "run", "reason": "its branches"})
        step["status"] = {"succeeded": "SUCCESS", "failed": "FAIL"}.get(event["outcome"], "SKIPPED")
        step.update(outcome=event["outcome"], message=event.get("message", ""))
        if event["outcome"] == "succeeded" and not branch:
            log["parameters"].update(_given(log["steps"], step))


def _show_attempt(step: Dict[str, Any], attempt: Dict[str, Any]) -> None:
    step["status"], step["message"] = attempt.get("status", "PROCESSING"), attempt.get("message", "")
    step["outcome"], step["mock"] = attempt.get("outcome", ""), attempt.get("mock", False)


def _given(steps: Dict[str, Any], step: Dict[str, Any]) -> Dict[str, Any]:
    """Return what a step gave, by its last attempt or by its branches."""
    if step.get("attempts"):
        last = step["attempts"][-1]
        return {**last.get("output_parameters", {}), **last.get("user_defined_metrics", {})}
    given: List[Dict[str, Any]] = []
    for branch in step.get("instances", ()):
        names = (f"{step['name']}.{branch['name']}.{inner}" for inner in step["branch_steps"])
        given.append({k: v for name in names if name in steps for k, v in _given(steps, steps[name]).items()})
    if step.get("step_type") != "map":
        return {k: v for one in given[-1:] for k, v in one.items() if k in step.get("branch_returns", ())}
    return {name: _listed([one.get(name) for one in given]) for name in step["branch_returns"]}


def _listed(values: List[Optional[Dict[str, Any]]]) -> Dict[str, Any]:
    """Return the list that the instances of a matrix give together; null for one that gave nothing."""
    given = [one for one in values if one is not None]
    redacted = any(one.get("redacted") for one in given)
    if any(one["kind"] == "object" for one in given):
        kept = ("data_hash", "size", "object_type")
        items: List[Dict[str, Any]] = [
            {key: (one or {}).get(key) or (0 if key == "size" else "") for key in kept} for one in values
        ]
        digest = hashlib.sha256("".join(one["data_hash"] or "-" for one in items).encode()).hexdigest()
        return {
            "kind": "object",
            "value": given[0]["value"],
            "description": f"{len(items)} pickled objects stored in catalog",
            "items": items,
            "data_hash": digest,
            "size": sum(one["size"] for one in items),
            "redacted": redacted,
        }
    metric = bool(given) and all(one["kind"] == "metric" for one in given)
    whole = [one["value"] if one else None for one in values]
    return json_parameter(whole, "metric" if metric else "json", redacted=redacted)


def json_parameter(value: Any, kind: str = "json", *, redacted: bool = False) -> Dict[str, Any]:
    """Return a value with its short form, that of a long text or a large table being how it begins."""
    text = value if isinstance(value, str) else ""
    if isinstance(value, (list, dict)) and len(json.dumps(value)) > _LARGE_MAX:
        text = json.dumps(value)
    short = f"{text[:10]}..." if len(text) > 10 else value
    return {"kind": kind, "value": value, "description": short, "redacted": redacted}


def interruption(log: Log, moment: str, elsewhere: Container[str]) -> Iterator[Dict[str, Any]]:
    """Yield the events that end a run whose process is gone: the attempts in flight and the invocation are failures.

    Those that are `elsewhere`, as `STEP.ATTEMPT`, may still run: a retry attaches to them.
    """
    invocations, steps = log.get("invocations", ()), log["steps"]
    if not invocations or invocations[-1].get("status", "PROCESSING") != "PROCESSING":
        return
    gone = {"status": "FAIL", "outcome": "interrupted", "interrupted": True}
    away = []
    for name, step in list(steps.items()):
        is_open = step.get("status", "PROCESSING") == "PROCESSING"
        last = step["attempts"][-1] if step.get("attempts") else None
        if last is not None and last.get("status", "PROCESSING") == "PROCESSING":
            if f"{name}.{last.get('attempt_number', 1)}" in elsewhere:
                away.append(name)
                continue
            ended = {**last, **gone, "end_time": moment, "message": "interrupted: the process that ran it was killed"}
            yield {"event": "attempt", "step": name, "attempt": ended, "data_catalog": step.get("data_catalog", [])}
        elif last is None and step.get("instances") and is_open:
            yield {"event": "joined", "step": name, "outcome": "failed", "message": "interrupted: the run was killed"}
    message = "interrupted: the run was killed"
    if away:
        message += f" while it had {listed(f'`{name}`' for name in away)} elsewhere; a retry attaches to that"
    yield {"event": "ended", "time": moment, "message": message, **gone}


def flat(steps: Iterable[Tuple[str, Dict[str, Any]]]) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Yield steps and those of their branches, which stand inside them, by names that say where they belong."""
    for name, step in steps:
        branches = step.get("branches") or {}
        inner = [item for branch in branches.values() for item in (branch.get("steps") or {}).items()]
        yield name, {**step, "name": name, "branches": {} if inner else branches}
        yield from flat(inner)


def require_readable(version: str, run_id: str) -> None:
    if version.split(".")[0] not in READABLE:
        raise RunLogError(f"run {run_id} has run log schema {version[:100]}", hint="upgrade runnable-ci")
