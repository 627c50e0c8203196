"""Why a run ended as it did: the failing steps, what differs from the last success, and what to do. Pure.

The document is for an agent or a colleague who has nothing else: bounded, and without secrets, as is all of a run log.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from runnable_ci.analysis.comparison.blocks import headlines
from runnable_ci.analysis.comparison.causes import ranked
from runnable_ci.analysis.comparison.endings import why_not_succeeded
from runnable_ci.analysis.comparison.model import A_AND_B, RunComparison, RunDifference, StepComparison
from runnable_ci.analysis.comparison.wording import in_words
from runnable_ci.analysis.explanation.places import error_in, place_in
from runnable_ci.analysis.facts import command_of
from runnable_ci.analysis.history.query import shown_status
from runnable_ci.analysis.states import state_of
from runnable_ci.runs.branches.labels import failed_steps, is_only_branches, label_of
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.model import FAIL, RunLog
from runnable_ci.util.text import truncate

VERSION: Final = 1
LIMIT_BYTES: Final = 32 * 1024
_LEVELS: Final = ((40, 60, 30, 8000), (20, 25, 15, 3000), (8, 10, 6, 1200), (3, 4, 3, 400), (1, 1, 1, 100))
"""Steps, last lines of output, differences, and characters of a text: as much as fits."""


def explanation(
    log: RunLog,
    compared: RunComparison | None,
    *,
    outputs: Mapping[str, str],
    own_name: Callable[[str, str], str],
    not_compared: str,
    commands: Mapping[str, str],
    redacted: Callable[[str], str] = lambda text: text,
) -> dict[str, Any]:
    """Return the document of a run, at most `LIMIT_BYTES` as JSON.

    `compared` is the comparison with the last run that succeeded (A), `not_compared` why there is none,
    `outputs` the last that failed steps wrote by name, `own_name` returns for a step, and a file that its output
    names, the name of one of the project's own files, else nothing, `commands` are those to continue with, by what
    they do.
    """
    for steps, lines, differences, characters in _LEVELS:
        cut = _Cut(steps, lines, differences, characters, redacted)
        document = {
            "version": VERSION,
            "run": _run(log, cut),
            "failures": [
                _failure(log, name, compared, outputs.get(name, ""), own_name, cut) for name in _failed(log)[:steps]
            ],
            "not_compared": not_compared,
            "changed": _changed(compared, cut),
            "steps": _by_state(log, steps),
            "commands": dict(commands),
        }
        if len(as_json(document).encode()) <= LIMIT_BYTES:
            return document
    return {
        "version": VERSION,
        "run": {"run_id": log.run_id, "status": shown_status(log.status)},
        "commands": dict(commands),
    }


def as_json(document: Mapping[str, Any]) -> str:
    """Return the document as it is printed."""
    return json.dumps(document, indent=1, ensure_ascii=False, default=str)


class _Cut:
    """How much is shown."""

    def __init__(
        self, steps: int, lines: int, differences: int, characters: int, redacted: Callable[[str], str]
    ) -> None:
        self.steps, self.lines, self.differences, self.characters = steps, lines, differences, characters
        self._redacted = redacted

    def text(self, text: str) -> str:
        """Return a text, its end where it is long: a traceback's last lines say most."""
        clean = self._redacted(text)
        return clean if len(clean) <= self.characters else f"…{clean[-self.characters :]}"


def _failed(log: RunLog) -> list[str]:
    own = log.failed_steps()
    return own or [name for name in failed_steps(log) if log.steps[name].status == FAIL]


def _run(log: RunLog, cut: _Cut) -> dict[str, Any]:
    code = log.code()
    return {
        "run_id": log.run_id,
        "pipeline": log.name,
        "status": shown_status(log.status),
        "outcome": log.outcome or "running",
        "message": cut.text(log.message),
        "started": log.start_time,
        "seconds": log.seconds(),
        "invocations": len(log.invocations),
        "branch": code.ref if code else "",
        "commit": code.code_identifier if code and code.code_identifier_type == "git" else "",
        "uncommitted": cut.text(code.code_identifier_message) if code and not code.code_identifier_dependable else "",
        "metrics": {name: truncate(value, 100) for name, value in [*log.metrics().items()][:50]},
    }


def _failure(
    log: RunLog, name: str, compared: RunComparison | None, output: str, own_name: Callable[[str, str], str], cut: _Cut
) -> dict[str, Any]:
    step = log.steps[name]
    if is_only_branches(step) or not step.attempts:
        return {"step": name, "label": label_of(log.steps, name), "message": cut.text(step.message)}
    last = step.attempts[-1]
    exception = last.exception
    differs = _own_differences(compared, name)
    place = place_in(exception.traceback if exception else output, partial(own_name, name))
    changed = next((one.name for one in differs if one.kind == "code"), "")
    file, line = (exception.file, exception.line) if exception and exception.file else (place or (changed, 0))
    lines = output.splitlines()[-cut.lines :]
    cause = why_not_succeeded(log, name)
    found = {
        "step": name,
        "label": label_of(log.steps, name),
        "attempt": last.attempt_number,
        "outcome": last.outcome,
        "message": cut.text(cause),
        "exit_code": last.exit_code,
        "seconds": last.seconds,
        "command": cut.text(command_of(last)),
        "file": file,
        "line": line,
        "cell": exception.cell if exception and exception.cell else None,
        "exception": f"{exception.type}: {cut.text(exception.message)}" if exception else cut.text(error_in(output)),
        "traceback": cut.text(exception.traceback) if exception else "",
        "last_lines": [cut.text(text)[:400] for text in lines],
        "given": {
            key: truncate(last.input_parameters[key].value, 100)
            for key in last.consumed
            if key in last.input_parameters
        },
        "differs": [_difference(one, compared.names if compared else A_AND_B) for one in differs[: cut.differences]],
    }
    return {key: value for key, value in found.items() if value not in ("", None, [], {}) or key in ("file", "line")}


def _own_differences(compared: RunComparison | None, name: str) -> Sequence[RunDifference]:
    """Return in what the step's inputs differ from those in the run that succeeded, the likeliest cause first."""
    step: StepComparison | None = next((one for one in compared.steps if one.name == name), None) if compared else None
    return ranked(one for one in step.inputs if one.counts) if step else []


def _difference(one: RunDifference, names: tuple[str, str]) -> dict[str, Any]:
    found = {key: value for key, value in asdict(one).items() if value not in ("", None)}
    found |= {key: truncate(found[key], 200) for key in ("before", "after") if key in found}
    return {"says": in_words(one, names), **found}


def _changed(compared: RunComparison | None, cut: _Cut) -> dict[str, Any] | None:
    if compared is None:
        return None
    code, since = compared.code, compared.a
    return {
        "since": {
            "run_id": since.run_id,
            "started": since.start_time,
            "commit": since.commit,
            **({"of_branch": since.ref} if since.ref != compared.b.ref else {}),
        },
        "says": [cut.text(line) for line in headlines(compared)],
        "commits": list(code.commits[: cut.differences]),
        "files": [f"{one.name} {one.change}" for one in code.files[: cut.differences]],
        "files_not_compared": code.not_known,
        "values": [_difference(one, compared.names) for one in compared.parameters[: cut.differences]],
        "environment": [_difference(one, compared.names) for one in compared.environment[: cut.differences]],
        "pipeline": [_difference(one, compared.names) for one in compared.pipeline[: cut.differences]],
        "metrics": [asdict(one) for one in compared.metrics[: cut.differences]],
    }


def changed_parameters(compared: RunComparison | None) -> dict[str, Any]:
    """Return the parameters that were other in the run that succeeded (A), with their values there.

    Empty where anything else differs that a step was made from and no step before it made.
    """
    if compared is None:
        return {}
    before = {one.name: one.before for one in compared.parameters if one.change == "changed"}
    inputs = (one for step in compared.steps for one in step.inputs if one.counts and not one.made_by)
    is_all = all(one.kind == "machine" or (one.kind == "value" and one.name in before) for one in inputs)
    return before if is_all else {}


def _by_state(log: RunLog, most: int) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for name, step in log.steps.items():
        if not is_only_branches(step):
            found.setdefault(state_of(log, name), []).append(label_of(log.steps, name))
    reasons = {
        label_of(log.steps, name): truncate(decision.reason, 200)
        for name, decision in decisions_of(log).items()
        if decision.action == "reuse"
    }
    counted: dict[str, Any] = {state: {"number": len(names), "names": names[:most]} for state, names in found.items()}
    if reasons:
        counted["reused_because"] = dict([*reasons.items()][:most])
    if "skipped" in found:
        whys = {label_of(log.steps, name): why_not_succeeded(log, name) for name in _skipped(log)[:most]}
        counted["skipped_because"] = {label: truncate(why, 200) for label, why in whys.items() if why}
    return counted


def _skipped(log: RunLog) -> list[str]:
    return [n for n, step in log.steps.items() if not is_only_branches(step) and state_of(log, n) == "skipped"]
