"""What changed since a step succeeded, other than its definition and its parameters: its input files and its code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from runnable_ci.errors import StepError
from runnable_ci.pipeline.model import Pipeline, Step
from runnable_ci.pipeline.patterns import matches
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.model import SUCCESS, CatalogEntry, CodeState, RunLog, StepAttempt, StepLog
from runnable_ci.runs.products.history import own_contents
from runnable_ci.steps.python import find_source
from runnable_ci.vcs.identity import Code


def changed_inputs(pipeline: Pipeline, log: RunLog, catalog: Catalog) -> dict[str, str]:
    """Return step → which of the files that it read have changed, or which its `get` matches since.

    A file that is gone does not count: the step that took it is over, and its results are in the catalog.
    """
    found: dict[str, str] = {}
    made = {e.name for step in log.steps.values() for e in _entries(step) if e.stage == "put"}
    for step in _succeeded(pipeline, log):
        taken = {entry.name: entry for entry in step.data_catalog if entry.stage == "get"}
        patterns = pipeline.steps[step.name].get or ()
        # One that was kept and that no `get` names was there when the step wrote it: it may not even have read it.
        inputs = [e for e in taken.values() if not e.source and (not e.kept or _is_named(patterns, e.name))]
        own = own_contents(step)
        now = {entry.name: catalog.hash_of(entry.name) for entry in inputs}
        known = {entry.name: {entry.data_hash, *own.get(entry.name, ())} for entry in inputs}
        changed = [name for name, digest in now.items() if digest is not None and digest not in known[name]]
        matched = catalog.files.expand(patterns)
        present = {name for names in matched.values() for name in names}
        if changed:
            found[step.name] = f"input {_listed(changed)} changed"
        elif new := sorted(present - taken.keys() - made):
            found[step.name] = f"input {_listed(new)} is new"
    return found


def changed_products(pipeline: Pipeline, log: RunLog, catalog: Catalog) -> dict[str, str]:
    """Return step → which of the files that it made a person has changed since, or another program.

    Content that some step is known to have made is no such change, nor is a file that is gone.
    """
    found: dict[str, str] = {}
    for step in _succeeded(pipeline, log):
        own = own_contents(step)
        last = {entry.name: entry for entry in step.put_entries()}
        now = {name: catalog.hash_of(name) for name in last}
        changed = [
            name
            for name, digest in now.items()
            if digest is not None and digest not in own[name] and not catalog.products.is_generated(name, digest)
        ]
        if changed:
            found[step.name] = _listed(changed)
    return found


def changed_code(pipeline: Pipeline, log: RunLog, catalog: Catalog, code: Code) -> dict[str, str]:
    """Return step → which of its code has changed since its last attempt.

    A python step knows the modules that it loaded; for a shell step all files that changed in the repository are named.
    """
    found: dict[str, str] = {}
    ranges: dict[tuple[str, str], str] = {}
    for step in _succeeded(pipeline, log):
        attempt = step.attempts[-1]
        if attempt.modules:
            changed = [name for name, then in attempt.modules.items() if catalog.files.hash_of(name) != then]
            if changed:
                same = _function_change(pipeline.steps[step.name], attempt, catalog)
                found[step.name] = f"{_listed(changed)}{same}"
        elif then := code_state_of(log, attempt):
            key = (then.commit, attempt.code_state or str(sorted(then.changes.items())))
            if key not in ranges:
                ranges[key] = _since(code, then, pipeline.file)
            if ranges[key]:
                found[step.name] = ranges[key]
    return found


def _succeeded(pipeline: Pipeline, log: RunLog) -> list[StepLog]:
    """Return steps whose last attempt succeeded, also those that a later invocation skipped."""
    return [
        step
        for name, step in log.steps.items()
        if name in pipeline.steps and step.attempts and step.attempts[-1].status == SUCCESS
    ]


def _entries(step: StepLog) -> Iterator[CatalogEntry]:
    yield from step.data_catalog
    for attempt in step.attempts:
        yield from attempt.data_catalog


def _is_named(patterns: Sequence[str], name: str) -> bool:
    return any(matches(pattern, name) for pattern in patterns)


def _function_change(step: Step, attempt: StepAttempt, catalog: Catalog) -> str:
    if not attempt.function_hash:
        return ""
    name = step.command.partition(":")[2]
    try:
        source = find_source(step, catalog.workspace)
    except StepError:
        return f" (function {name} was removed)"
    if source is None or not source.hash():
        return ""
    return f" (function {name} {'is the same' if source.hash() == attempt.function_hash else 'changed'})"


def _since(code: Code, then: CodeState, pipeline_file: str) -> str:
    """Return which files changed since a state of the code was recorded, as `plot.py (2599041)`; empty if none did.

    The pipeline file does not count: steps are compared by their definitions.
    """
    if not then.commit:
        return ""
    now = code.state()
    if (now.tree and now.tree == then.tree) or (now.commit == then.commit and dict(now.changes) == then.changes):
        return ""
    from runnable_ci.vcs.differences import changed_between  # most retries need none of it

    short = then.commit[:7]
    files = changed_between(code, then.commit, then.changes, now)
    if files is None:
        return "" if now.commit == then.commit else f"from {short}, which is not in this clone"
    own = f"{code.prefix}{PurePath(pipeline_file).name}"
    files = [file for file in files if file != own]
    commits = short if now.commit == then.commit else f"{short}..{now.commit[:7]}"
    return f"{_listed(files)} ({commits})" if files else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
