"""`runnable-ci reproduce`: does a run come out again?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from runnable_ci.analysis.comparison.contents.compare import Reader
from runnable_ci.analysis.comparison.which import ComparedRun, require_ended
from runnable_ci.analysis.reproduction.adopt import adopt
from runnable_ci.analysis.reproduction.again import (
    PreparedTree,
    Reproduced,
    ReproduceOptions,
    make_again,
    prepared_tree,
)
from runnable_ci.analysis.reproduction.left_out import lines
from runnable_ci.analysis.scratch import sweep_scratch
from runnable_ci.cli.compare.diff import opened_finder, reader_of
from runnable_ci.cli.registry import publish_known
from runnable_ci.engine.options import Options
from runnable_ci.errors import PipelineError, RunnableError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.branches.labels import label_of
from runnable_ci.runs.notes.notes_model import Reproduction
from runnable_ci.runs.reader import run_ids
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.signals import unwinding
from runnable_ci.util.text import listed, table

EXIT_CODES: Final[Mapping[str, int]] = {
    "reproduced": 0,
    "within tolerance": 0,
    "different": 1,
    "other hardware or packages": 3,
    "not comparable": 4,
}
"""By verdict."""


class Publication(NamedTuple):
    """Whether the run that was made is published, and where."""

    is_asked: bool = False
    to: str | None = None
    """None: to the registry that the first one was read from, else to the default one."""


def reproduce(
    layout: Layout,
    run: str,
    options: Options,
    asked: ReproduceOptions,
    publication: Publication,
    *,
    as_json: bool,
) -> int:
    """Make a run again from what is recorded of it, compare, and keep that as a run of its own; the exit code."""
    sweep_scratch()
    with unwinding(), opened_finder(layout, options.settings, options.environ, whole=True) as finder:
        found = require_ended(finder.run(run))
        with prepared_tree(found, layout.folder.parent, options, asked) as tree:
            options.printer.say(*_before(found, tree, asked.skip))
            run_id = _unused(layout, found.log.run_id, is_published=publication.is_asked)
            reader = reader_of(tree.project.workspace, tree.options.environ)
            try:
                again = make_again(found, tree, run_id, asked, reader)
            except (PipelineError, UsageError) as e:
                if not tree.inputs.missing:
                    raise
                return _not_begun(found, tree, e, as_json=as_json)
            if asked.times > 1:
                again = _repeated(found, again, layout, options, asked, reader)
            log = again.run.log.model_copy(update={"reproduction": again.record})
            adopt(again.run.layout, layout, log)
        reference = ""
        if publication.is_asked:
            to = publication.to or found.where or None
            reference = publish_known(layout, run_id, to, options.settings, options.environ)
    if as_json:
        published = {"published": reference} if reference else {}
        console.json(json.dumps({"kept_as": run_id, **published, **again.record.model_dump()}, indent=1))
    else:
        console.out(*_lines(layout, again, run_id))
        if reference:
            console.out(f"published as {reference}")
    return EXIT_CODES.get(again.record.verdict, 1)


def _not_begun(found: ComparedRun, tree: PreparedTree, error: RunnableError, *, as_json: bool) -> int:
    """Say the verdict on a run that cannot even begin, since an input of it is not available."""
    steps = {name: {"verdict": "not comparable", "reason": why} for name, why in tree.inputs.missing.items()}
    if as_json:
        verdict = {"run_id": found.log.run_id, "verdict": "not comparable", "steps": steps, "error": error.message}
        console.json(json.dumps(verdict, indent=1))
    else:
        console.err(f"it cannot begin: {error.message}")
        console.out(f"run {found.log.run_id}: not comparable")
    return EXIT_CODES["not comparable"]


def _repeated(
    found: ComparedRun,
    first: Reproduced,
    layout: Layout,
    options: Options,
    asked: ReproduceOptions,
    reader: Reader,
) -> Reproduced:
    """Make it some more times; the first one, with the verdict on all."""
    from runnable_ci.analysis.reproduction.determinism.vary import Repeated, repeat  # one run is enough for most

    it = Repeated(found, layout.folder.parent, options, asked)
    run_ids = [f"{first.run.log.run_id}.{number}" for number in range(2, asked.times + 1)]
    return replace(first, record=repeat(it, first, reader, run_ids))


def _unused(layout: Layout, of: str, *, is_published: bool) -> str:
    """Return an id for the run; of one that is published with the moment, as other machines make some too."""
    known = set(run_ids(layout)) if layout.folder.is_dir() else set()
    moment = datetime.now(UTC).strftime("-%Y%m%dt%H%M%S") if is_published else ""
    base = f"{of[:100]}-again{moment}"
    if is_published and base not in known:
        return base
    return next(name for number in range(1, 10_000) if (name := f"{base}-{number}") not in known)


def _before(found: ComparedRun, tree: PreparedTree, skip: Sequence[str]) -> Iterator[str]:
    """Yield what is known before anything runs."""
    yield f"run {found.log.run_id} is made again from its recorded code, parameters and inputs"
    yield from (f"not held equal: {line}" for line in tree.not_held)
    yield from (f"not rebuilt: {line}" for line in tree.missing)
    yield from lines(tree.left_out, skip)
    for step, why in tree.inputs.missing.items():
        yield f"not comparable: `{label_of(found.log.steps, step)}`: {why}"
    for step, why in tree.no_image.items():
        yield f"not comparable: `{step}`: {why}"


def _lines(layout: Layout, again: Reproduced, run_id: str) -> Iterator[str]:
    record = again.record
    steps = again.compared.steps
    labels = {step.name: step.label for step in steps}
    rows = []
    for name, one in record.steps.items():
        follows = f" (follows from {labels.get(one.follows, one.follows)})" if one.follows else ""
        rows.append((labels.get(name, name), one.verdict, f"{one.reason}{follows}"))
    yield ""
    yield from table(("STEP", "VERDICT", "WHY"), rows)
    if record.varies:
        from runnable_ci.analysis.reproduction.determinism.report import lines_of

        yield ""
        yield from lines_of(record.varies, labels)
    yield ""
    yield verdict_line(record, labels)
    yield f"kept as run {run_id}: `{of_store(layout, 'diff', record.run_id, run_id)}` compares both"


def verdict_line(record: Reproduction, labels: Mapping[str, str]) -> str:
    """Return the verdict on a run in one line."""
    near = f" (rtol {record.rtol:g}, atol {record.atol:g})" if record.rtol or record.atol else ""
    times = f", made {record.times} times" if record.times > 1 else ""
    names = listed(f"`{labels.get(name, name)}`" for name in record.left_out)
    left_out = f"; left out: {names}" if names else ""
    return f"run {record.run_id}: {record.verdict}{near}{times}{left_out}"
