"""`runnable-ci bisect`: the first commit for which a condition on metrics holds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from runnable_ci.analysis.attribution.bench import Bench
from runnable_ci.analysis.attribution.bisection.bisect import Bisection, BisectOptions, Trial, needs_durations
from runnable_ci.analysis.attribution.bisection.commits import CommitSummary, facts_of, files_of, search_between
from runnable_ci.analysis.attribution.bisection.ends import BisectionEnd, find_end, joined
from runnable_ci.analysis.scratch import scratch_folder, sweep_scratch
from runnable_ci.cli.compare.diff import clone_around, opened_finder
from runnable_ci.engine.options import Options
from runnable_ci.errors import NotARepositoryError, PipelineError
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.store.local import Layout
from runnable_ci.util.console import console
from runnable_ci.util.signals import unwinding
from runnable_ci.util.text import format_duration, listed, pluralize, table

NOT_FOUND: Final = 4
"""Exit code where commits that could not be tried hide which one it is."""
_FILES_MAX: Final = 10


def bisect(
    layout: Layout, good: str, bad: str, options: Options, asked: BisectOptions, *, is_dry: bool, as_json: bool
) -> int:
    """Print the first commit for which a condition holds; the exit code."""
    began = time.monotonic()
    workspace = layout.folder.parent
    git = clone_around(workspace, options.environ)
    if git is None:
        raise NotARepositoryError(f"{workspace} is in no git repository", hint="cd to the clone of the pipeline")
    sweep_scratch()
    with unwinding(), opened_finder(layout, options.settings, options.environ, whole=True) as finder:
        ends = [find_end(finder, git, word, option) for word, option in ((good, "--good"), (bad, "--bad"))]
        both = joined(ends[0], ends[1], git, _project(workspace), workspace, options)
        search = search_between(git, both.good.commit, both.bad.commit, first_parent=asked.first_parent)
        with scratch_folder() as folder:
            bench = Bench(layout, folder.resolve(), reuses=not needs_durations(asked.condition))
            found = Bisection(both, asked, search, git, options, bench)
            before = [*_before(found)]
            if is_dry:
                console.json(json.dumps(_planned(found), indent=1)) if as_json else console.out(*before)
                return 0
            options.printer.say(*before)
            for end in (both.good, both.bad):
                if end.run is not None:
                    bench.take(end.run)
            found.run(lambda facts: options.printer.say(f"{_place(found)}: {facts.short}"))
    seconds = time.monotonic() - began
    if as_json:
        console.json(json.dumps(_document(found, seconds), indent=1))
    else:
        console.out(*_lines(found, seconds))
    return 0 if found.uncommitted or found.search.first_bad else NOT_FOUND


def _project(workspace: Path) -> Project | None:
    try:
        return load_project(workspace)
    except PipelineError:  # the runs say which file it is
        return None


def _place(found: Bisection) -> str:
    return f"commit {len(found.trials) + 1} of at most {len(found.trials) + found.most_left()}"


def _before(found: Bisection) -> Iterator[str]:
    """Yield what is known before anything runs."""
    ends = found.ends
    yield f"good is {_end(ends.good)}"
    yield f"bad is {_end(ends.bad)}"
    yield from ends.notes
    commits, most = pluralize(found.count, "commit"), pluralize(found.at_most, "run")
    yield f"{commits} may be the first for which `{found.asked.condition}` holds"
    yield f"at most {most}, and more where a commit cannot be tried; only what changed runs"
    if first := [*found.first()]:
        yield f"first these, as no run says what they give here: {listed((commit[:12] for commit in first), at_most=3)}"


def _end(end: BisectionEnd) -> str:
    if end.run is None:
        return f"commit {end.commit[:12]}"
    return f"run {end.run.log.run_id}, commit {end.commit[:12]}{' and what was not committed' * end.is_dirty}"


def _lines(found: Bisection, seconds: float) -> Iterator[str]:
    yield ""
    rows = [
        (one.facts.commit[:12], one.state, one.said, one.facts.subject, one.run_id or "none") for one in found.trials
    ]
    if rows:
        yield from table(("COMMIT", "STATE", "VALUES", "SUBJECT", "RUN"), rows)
        yield ""
    if found.uncommitted:
        bad = found.ends.bad
        yield f"it is no commit: {bad.commit[:12]} is good, and what run {bad.label} had not committed makes it bad"
    elif first := found.search.first_bad:
        yield from _commit_lines(found, facts_of(found.git, first))
    else:
        yield "the first bad commit is one of these, of which all but the last could not be tried:"
        for commit in found.search.left:
            yield f"  {facts_of(found.git, commit).short}"
    yield _counted(found, seconds)


def _commit_lines(found: Bisection, facts: CommitSummary) -> Iterator[str]:
    yield f"first bad commit: {facts.commit}"
    yield f"author   {facts.author}"
    yield f"date     {facts.date}"
    yield f"subject  {facts.subject}"
    files = files_of(found.git, facts.commit)
    for path, change in files[:_FILES_MAX]:
        yield f"{change:8} {path}"
    if len(files) > _FILES_MAX:
        yield f"and {len(files) - _FILES_MAX} more files"


def _counted(found: Bisection, seconds: float) -> str:
    steps = sum(len(one.executed) for one in found.trials)
    earlier = sum(one.is_earlier for one in found.trials)
    again = f" ({earlier} by an earlier bisection)" if earlier else ""
    tried = f"{pluralize(len(found.trials), 'commit')} tried{again}"
    return f"{tried}, {pluralize(steps, 'step')} executed, {format_duration(seconds)}"


def _planned(found: Bisection) -> dict[str, Any]:
    ends = found.ends
    return {
        "condition": str(found.asked.condition),
        "good": {"commit": ends.good.commit, "run_id": ends.good.run.log.run_id if ends.good.run else ""},
        "bad": {"commit": ends.bad.commit, "run_id": ends.bad.run.log.run_id if ends.bad.run else ""},
        "notes": list(ends.notes),
        "commits": found.count,
        "at_most": found.at_most,
    }


def _document(found: Bisection, seconds: float) -> dict[str, Any]:
    first = "" if found.uncommitted else found.search.first_bad
    facts: dict[str, Any] | None = None
    if first:
        files = [{"path": path, "change": change} for path, change in files_of(found.git, first)]
        facts = {**facts_of(found.git, first)._asdict(), "files": files}
    return {
        **_planned(found),
        "first_bad": facts,
        "uncommitted": found.uncommitted,
        "candidates": [] if found.uncommitted else found.search.left,
        "tried": [_trial(one) for one in found.trials],
        "executed": sum(len(one.executed) for one in found.trials),
        "seconds": round(seconds, 3),
    }


def _trial(one: Trial) -> dict[str, Any]:
    return {
        "commit": one.facts.commit,
        "subject": one.facts.subject,
        "state": one.state,
        "said": one.said,
        "run_id": one.run_id,
        "executed": list(one.executed),
        "made_before": one.is_earlier,
        "seconds": round(one.seconds, 3),
    }
