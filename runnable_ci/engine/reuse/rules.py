"""What a result must be, and must not have done, to take the place of running a step in another run. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import PurePath
from typing import Final

from runnable_ci.engine.provenance.staleness import PROGRAMS
from runnable_ci.observe.reads import GIT, ReadSet
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import StepAttempt, StepLog
from runnable_ci.util.text import format_duration, listed

_ADDRESS: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://(?P<host>\[[0-9a-f:]+\]|[^\s/:'\"@]+)", re.IGNORECASE)
_CONNECTING: Final = re.compile(
    r"(?<![\w./-])(?:curl|wget|ssh|scp|sftp|rsync|nc|aria2c|aws|gsutil|gcloud|az|kubectl|psql|mysql|mongo|redis-cli|gh"
    r"|git\s+(?:clone|fetch|pull|ls-remote)|docker\s+pull|(?:pip3?|uv|npm|conda|apt-get)\s+(?:\w+\s+)?install)(?![\w-])"
)


def reason_against(step: Step, found: StepLog, reads: ReadSet | None, age_s: float) -> str:
    """Return why a result is not reused across runs, whatever is equal; empty where it may be."""
    last = found.attempts[-1]
    if reads is None or (last.not_seen and step.reads is None):
        return f"what it read was not seen ({last.not_seen or 'it is not in this store'})"
    if step.persist:
        return "it builds on what it made before (`persist`)"
    if (used := last.checkpoint_used) and used.is_foreign:
        return "it resumed from a checkpoint that other code or values made"
    if used and used.not_seen:
        return "it resumed from a checkpoint, and it is not known what made that"
    own = [path for path in last.made if not any(may_name(pattern, path) for pattern in step.checkpoint)]
    if own or last.made_more:
        more = f" and {last.made_more} more" if last.made_more else ""
        return f"it also wrote {listed(own or [*last.made])}{more}, which its `put` does not name"
    if unknown := [path for path, read in reads.files.items() if read.left is not None and step.counts(path)]:
        return f"what it found in {listed(unknown)} is not known"
    if reads.removed:
        return f"it removed {listed(reads.removed)}"
    if uncertain := reads.uncertain_names(step.counts):
        return f"whether it listed {listed(uncertain)} is not known, as other steps ran beside it"
    given = (last.output_parameters | last.user_defined_metrics).items()
    if secret := next((name for name, value in given if value.redacted), ""):
        return f"`{secret}`, which it returned, was a secret, and is not in the run log"
    if step.max_age_s is None:
        unproved = _unproved(step, found, reads)
        return unproved and f"{unproved}: `max-age` says for how long its result is good"
    if age_s > step.max_age_s:
        return f"it is {format_duration(age_s)} old, `max-age` is {format_duration(step.max_age_s)}"
    return ""


def _unproved(step: Step, found: StepLog, reads: ReadSet) -> str:
    """Return what makes that equal inputs do not prove an equal result; empty where nothing is known."""
    last = found.attempts[-1]
    if not (step.put or step.returns):
        return "it has neither `put` nor `returns`"
    if elsewhere := [address for address in reads.connected if not is_loopback(address)]:
        return f"it connected to {listed(elsewhere)}"
    if step.kind == "run" and (reaching := words_that_connect(step.command, _texts_taken(last))):
        return f"it may connect to other machines (`{reaching}`)"
    if reads.asked_git and step.counts(GIT):
        return "it asked git, which may answer differently"
    if not last.consumed and not _has_data(step, found, reads, last.modules):
        if any(read.grade == "possible" for read in reads.files.values()):
            return "whether it reads data of the workspace is not known, as other steps ran beside it"
        return "it reads no data of the workspace, and takes no value"
    return ""


def _texts_taken(last: StepAttempt) -> list[str]:
    values = (last.input_parameters[name].value for name in last.consumed if name in last.input_parameters)
    return [value for value in values if isinstance(value, str)]


def words_that_connect(command: str, values: Iterable[str]) -> str:
    """Return a word by which a command may connect to another machine; empty where it has none.

    What a command's processes connect to is not seen. Its words, and values that it takes, tell of the usual ways.
    """
    for text in (command, *values):
        for found in _ADDRESS.finditer(text):
            if not is_loopback(f"{found['host']}:0"):
                return found[0]
    named = _CONNECTING.search(command)
    return named[0] if named else ""


def _has_data(step: Step, found: StepLog, reads: ReadSet, modules: Mapping[str, str]) -> bool:
    """Return whether an attempt got a file that is not code, was seen to read it, or may have and names it."""
    put = {entry.name for entry in found.put_entries()}
    seen = (
        path for path, read in reads.files.items() if read.grade == "seen" or (path not in put and is_named(path, step))
    )
    read = (path for path in seen if path not in modules and PurePath(path).suffix not in PROGRAMS)
    got = (e for e in found.data_catalog if e.stage == "get" and e.name not in put)  # else what lay in its place
    return any(got) or any(map(step.counts, read))


def is_named(path: str, step: Step) -> bool:
    """Return whether a command names a file of the workspace, which it may have read beside other steps that ran."""
    return step.kind == "run" and bool(re.search(rf"(?<![\w./-]){re.escape(path)}(?![\w/-]|\.\w)", step.command))


def is_loopback(address: str) -> bool:
    """Return whether an address, as `HOST:PORT` or `unix:PATH`, is of this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
