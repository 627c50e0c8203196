"""What a step gave in a run: distinguished from other results, and its contents to look into."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Final

from runnable_ci.analysis.comparison.attempts import content_of
from runnable_ci.analysis.comparison.model import RunDifference
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.determinism.culprits import Culprit
from runnable_ci.analysis.reproduction.determinism.evidence import ContentHint
from runnable_ci.errors import BlobMissingError, StoreError
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.runs.model import RunLog, StepAttempt

CONTENT_MAX: Final = 16 * 1024 * 1024
"""Larger contents are not looked into beyond that."""
_IN_SCRIPTS: Final[Sequence[tuple[Culprit, str, re.Pattern[str]]]] = (
    ("process-id", "the number of a process", re.compile(r"\$\$|\$\{?(?:BASHPID|PPID)\b")),
    ("path", "`mktemp`", re.compile(r"\bmktemp\b")),
    ("system-random", "random bytes", re.compile(r"/dev/u?random\b|\buuidgen\b|\bopenssl rand\b|/random/uuid\b")),
    ("random", "random numbers", re.compile(r"\$\{?RANDOM\b|\bshuf\b|\bsort (?:-\w*R|--random-sort)|\bs?rand\(")),
    ("time", "the clock", re.compile(r"\bdate\b|\$\{?(?:EPOCHSECONDS|EPOCHREALTIME|SECONDS)\b|\bls -\w*l")),
    (
        "time",
        "times of files",
        re.compile(r"\bstat\b(?:(?! -c| --?(?:format|printf))[^|;&\n])*(?=$|[|;&\n])|\bstat\b[^|;&\n]*%[wWxXyYzZ]"),
    ),
    ("path", "the path of the work folder", re.compile(r"\bpwd\b|\$\{?PWD\b")),
    (
        "completion-order",
        "parallel processes",
        re.compile(r"\bxargs\b.*-P|\bparallel\b|&\s*(?:$|\bwait\b)", re.MULTILINE),
    ),
    ("listing-order", "a listing that is not sorted", re.compile(r"\bfind \S|\bls -\w*[Uf]")),
    ("run-id", "the name of the run", re.compile(r"RUNNABLE_RUN_ID")),
    ("host-name", "the name of the machine", re.compile(r"\bhostname\b|\buname -\w*[na]")),
    ("network", "a server", re.compile(r"\bcurl\b|\bwget\b")),
)
_PROGRAMS: Final = re.compile(
    r"(?:^|[\s;&|(`])(node|deno|bun|perl|ruby|php|Rscript|julia|java|openssl|[gm]?awk)(?=\s)", re.MULTILINE
)
"""Programs with a chance and a clock of their own, which nothing here holds."""


def is_checkpoint(path: str, patterns: Sequence[str]) -> bool:
    """Return whether a file is a part of a checkpoint, by the patterns of that."""
    return any(may_name(pattern, path) for pattern in patterns)


def fingerprint(log: RunLog, step: str, checkpoint: Sequence[str] = ()) -> str:
    """Return what tells all that a step gave from other results of it; empty where it did not run.

    Files of its `checkpoint` are none.
    """
    found = log.steps.get(step)
    if found is None or not found.attempts:
        return ""
    last = found.attempts[-1]
    given = {
        "ended": [last.outcome, last.exit_code, last.exception and [last.exception.type, last.exception.message]],
        "files": {entry.name: content_of(entry) for entry in found.data_catalog if entry.stage == "put"},
        "made": {path: content for path, content in last.made.items() if not is_checkpoint(path, checkpoint)},
        "results": {name: [p.data_hash, p.value_hash, p.value] for name, p in last.output_parameters.items()},
        "metrics": {name: p.value for name, p in last.user_defined_metrics.items()} | last.file_metrics,
    }
    return json.dumps(given, sort_keys=True, default=str)


def contents_of(run: ComparedRun, step: str, one: RunDifference) -> tuple[str, bytes] | None:
    """Return the name and the content of an output of a step, as bytes; None where it has none."""
    found = run.log.steps[step]
    last = found.attempts[-1]
    if one.kind == "ended":
        return one.name, (last.exception.message if last.exception else "").encode()
    if one.kind == "metric":
        values = {name: p.value for name, p in last.user_defined_metrics.items()} | last.file_metrics
        return f"{one.name}", f"{one.name} {json.dumps(values.get(one.name))}".encode()
    if one.kind == "result" and one.name in last.output_parameters:
        value = last.output_parameters[one.name]
        if value.kind != "object":
            return one.name, f"{one.name} {json.dumps(value.value)}".encode()
        return _read(run, one.name, value.data_hash, value.size or 0)
    if one.kind == "file":
        entry = next((it for it in found.put_entries() if it.name == one.name and it.has_content), None)
        return _read(run, one.name, entry.data_hash, entry.size) if entry else None
    return None


def _read(run: ComparedRun, name: str, data_hash: str, size: int) -> tuple[str, bytes] | None:
    found = bytearray()
    try:
        for chunk in run.catalog.read(data_hash, size):
            found += chunk
            if len(found) > CONTENT_MAX:
                break
    except (BlobMissingError, StoreError):
        return None
    return name, bytes(found[:CONTENT_MAX])


def of_definition(attempt: StepAttempt) -> Iterator[ContentHint]:
    """Yield what a step's script tells of why it varies."""
    script = str(attempt.definition.get("run", ""))
    for culprit, what, pattern in _IN_SCRIPTS:
        if pattern.search(script):
            yield ContentHint((culprit,), f"its script uses {what}")


def programs_of(attempt: StepAttempt) -> list[str]:
    """Return the programs in a step's script in which nothing can be held."""
    return [*dict.fromkeys(_PROGRAMS.findall(str(attempt.definition.get("run", ""))))]
