"""What the page of a run needs beside its log, read from the store: output, files, what was read, earlier runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from markupsafe import Markup

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.runs import compare
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.report.output import output_html
from runnable_ci.analysis.report.page import FoundForPage
from runnable_ci.analysis.report.plots import Plot, plot_of
from runnable_ci.analysis.report.previews import Preview, can_preview, is_text, preview
from runnable_ci.analysis.scratch import scratch_folder
from runnable_ci.engine.code.recorded_tree import dirty_difference, newest_with_code
from runnable_ci.errors import BlobMissingError, RunnableError, StoreError
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.branches.metrics import instance_metrics
from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.listing.summary import by_shown_name
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import output_of, summaries
from runnable_ci.store.local import Layout
from runnable_ci.util.text import listed
from runnable_ci.vcs.git import Git

OUTPUT_HEAD_BYTES: Final = 8 * 1024
OUTPUT_TAIL_BYTES: Final = 24 * 1024
OUTPUT_ALL_CHARACTERS: Final = 2 * 1024 * 1024
"""Of HTML, of all steps together; of those that come later the page has none."""
PREVIEWS_ALL_CHARACTERS: Final = 8 * 1024 * 1024
PLOTS_MAX: Final = 24
DIRTY_MAX: Final = 200_000
"""Characters of the difference from the commit."""
OMITTED_MAX: Final = 20


def collect(
    run: ComparedRun,
    other: ComparedRun | None,
    git: Git | None,
    *,
    environ: Mapping[str, str],
    redactor: Redactor,
    other_note: str = "",
) -> FoundForPage:
    """Return what is there of a run, to be shown; `other` is the run that it is compared with.

    What the store does not have is left out. Secrets in files and in what differed from the commit are masked: a page
    is shared more easily than a run.
    """
    log = run.log
    dirty, dirty_note = _dirty(run, environ)
    read = run.read()
    return FoundForPage(
        outputs=_outputs(run.layout, log),
        reads={f"{name}.{log.steps[name].attempts[-1].attempt_number}": reads for name, reads in read.reads.items()},
        previews=_previews(run, redactor),
        plots=_plots(run.layout, log),
        dirty=redactor.text(dirty),
        dirty_note=dirty_note,
        comparison=compare(other.read(), read, compare_code(other.log, log, git)) if other else None,
        other_note=other_note,
    )


def _outputs(layout: Layout, log: RunLog) -> dict[str, tuple[Markup, str]]:
    found: dict[str, tuple[Markup, str]] = {}
    left = OUTPUT_ALL_CHARACTERS
    failed = set(log.failed_steps())
    for name in sorted(log.steps, key=lambda name: name not in failed):  # what failed is shown in any case
        for attempt in reversed(log.steps[name].attempts):
            title = f"{name}.{attempt.attempt_number}"
            if left <= 0:
                found[title] = Markup(""), "left out: the page is large enough"
                continue
            try:
                head, tail, more = _ends(chunk for _, chunk in output_of(layout, log, title, attempt))
            except (StoreError, BlobMissingError):
                continue
            text = head.decode(errors="replace")
            if more:
                text += f"\n… {more:,} bytes left out …\n"
            text += tail.decode(errors="replace")
            if text:
                shown = output_html(text)
                left -= len(shown)
                found[title] = shown, f"{more:,} bytes are left out" if more else ""
    return found


def _ends(chunks: Iterable[bytes]) -> tuple[bytes, bytes, int]:
    head, tail, total = bytearray(), bytearray(), 0
    for chunk in chunks:
        total += len(chunk)
        room = OUTPUT_HEAD_BYTES - len(head)
        head += chunk[: max(0, room)]
        tail += chunk[max(0, room) :]
        if len(tail) > 2 * OUTPUT_TAIL_BYTES:
            del tail[:-OUTPUT_TAIL_BYTES]
    del tail[:-OUTPUT_TAIL_BYTES]
    return bytes(head), bytes(tail), total - len(head) - len(tail)


def _previews(run: ComparedRun, redactor: Redactor) -> dict[tuple[str, str], Preview]:
    found = {}
    left = PREVIEWS_ALL_CHARACTERS
    catalog = run.catalog
    for name, step in run.log.steps.items():
        for entry in step.put_entries():
            if not entry.has_content or entry.size > left or not can_preview(entry.name, entry.size):
                continue
            try:
                content = b"".join(catalog.read(entry.data_hash, entry.size))
            except (StoreError, BlobMissingError, FileNotFoundError):
                continue
            if is_text(entry.name):
                content = redactor.data(content)
            if (shown := preview(entry.name, content)) is not None and shown.size <= left:
                left -= shown.size
                found[name, entry.name] = shown
    return found


def _plots(layout: Layout, log: RunLog) -> list[Plot]:
    """Return how the run's metrics were in the runs of its pipeline, in the order in which these began.

    Of experiments it is the run itself at most.
    """
    earlier = (one for one in summaries(layout) if one.name == log.name and one.start_time <= log.start_time)
    shown = (one for one in earlier if one.run_id == log.run_id or not one.made_for)
    runs = sorted(shown, key=lambda one: one.start_time)
    found = (plot_of(name, runs, log.run_id) for name in (*log.metrics(), *by_shown_name(instance_metrics(log))))
    return [plot for plot in found if plot is not None][:PLOTS_MAX]


def _dirty(run: ComparedRun, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the difference of the work tree from its commit, and what is to be said of it."""
    code = run.log.code()
    if code is None or code.code_identifier_dependable:
        return "", ""
    with scratch_folder() as folder:
        try:
            text = dirty_difference(run.layout, run.log, Path(folder) / "code", environ=environ)
        except (RunnableError, OSError) as e:
            return "", f"What differed from the commit cannot be shown: {e}"
    notes = []
    if state := code_state_of(run.log, newest_with_code(run.log)):
        omitted = listed((f"`{name}` ({reason})" for name, reason in state.omitted.items()), at_most=OMITTED_MAX)
        notes += [f"Of what differed from the commit this was not kept: {omitted}."] * bool(omitted)
    if len(text) > DIRTY_MAX:
        notes.append(f"Shown are the first {DIRTY_MAX:,} of {len(text):,} characters of what differed from the commit.")
    return text[:DIRTY_MAX], " ".join(notes)
