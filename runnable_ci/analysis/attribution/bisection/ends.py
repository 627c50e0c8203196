"""The good and the bad end of a bisection: runs or commits, and what all runs in between have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runnable_ci.analysis.attribution.bisection.commits import commit_named, is_ancestor, merge_base
from runnable_ci.analysis.attribution.bisection.trees import commit_tree
from runnable_ci.analysis.attribution.kinds import values_of
from runnable_ci.analysis.attribution.packages import difference_here, packages_digest
from runnable_ci.analysis.comparison.which import LATEST_SUCCESS, ComparedRun, RunFinder, require_ended
from runnable_ci.engine.options import Options
from runnable_ci.errors import RunnableError, UsageError
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.reader import LATEST
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import format_pairs
from runnable_ci.vcs.git import Git


@dataclass(frozen=True, slots=True)
class BisectionEnd:
    """One of the two."""

    word: str
    commit: str
    run: ComparedRun | None = None
    must_run: bool = True
    """Whether its commit is made here, since no run of it says what it gives here."""

    @property
    def label(self) -> str:
        """Return how people know it."""
        return self.run.log.run_id if self.run is not None else self.commit[:12]

    @property
    def is_dirty(self) -> bool:
        """Whether the run had more than its commit."""
        code = self.run.log.code() if self.run is not None else None
        return code is not None and not code.code_identifier_dependable


@dataclass(frozen=True, slots=True)
class BisectionEnds:
    """Both, and what is the same for each commit."""

    good: BisectionEnd
    bad: BisectionEnd
    base: str
    """The commit from which both began, where the good one is not before the bad one; else empty."""
    file: str
    """The pipeline file, in the repository."""
    inputs: ComparedRun | None
    """The run whose data are used, of what git does not track."""
    values: Mapping[str, Any]
    """The parameters with which all begin, beside those of each commit's own file."""
    packages: str
    """Digest of those that are here."""
    notes: tuple[str, ...] = ()
    """What is not as it was in the runs."""


def find_end(finder: RunFinder, git: Git, word: str, option: str) -> BisectionEnd:
    """Return the run or the commit that a word names. Raises `UsageError`, `RunNotFoundError`."""
    is_run = word in (LATEST, LATEST_SUCCESS) or finder.knows(word)
    if not is_run and (commit := commit_named(git, word)):
        return BisectionEnd(word, commit)
    try:
        run = finder.run(word)
    except RunnableError as e:
        e.message = f"{option} {word}: neither a commit nor a run: {e.message}"
        raise
    require_ended(run)
    code = run.log.code()
    if code is None or code.code_identifier_type != "git" or not code.code_identifier:
        raise UsageError(f"{option}: run {run.log.run_id} has no commit", hint="name a commit instead")
    commit = code.code_identifier
    if not git.has_commit(commit):
        hint = "`git fetch` may bring it; in a shallow clone `git fetch --unshallow`"
        raise UsageError(f"{option}: this clone does not have {commit[:12]}, the commit of {run.log.run_id}", hint=hint)
    return BisectionEnd(word, commit, run)


def joined(
    good: BisectionEnd, bad: BisectionEnd, git: Git, project: Project | None, workspace: Path, options: Options
) -> BisectionEnds:
    """Return both ends with what is the same for each commit. Raises `UsageError`, `CodeIdentityError`."""
    file = _pipeline_file(good, bad, project)
    if good.commit == bad.commit:
        hint = f"of one commit `{command('why', 'A', 'B', '--metric', 'NAME')}` says what moved a metric"
        raise UsageError(f"both ends are of the commit {good.commit[:12]}", hint=hint)
    base = "" if is_ancestor(git, good.commit, bad.commit) else merge_base(git, good.commit, bad.commit)
    notes: list[str] = []
    values: list[dict[str, Any]] = []
    ends: list[BisectionEnd] = []
    packages = ""
    for end in (good, bad):
        with commit_tree(end.commit, file, end.run, workspace, options) as tree:
            own = tree.project.pipeline.parameters
            if end.run is None:
                values.append({})
                ends.append(end)
            else:
                found = values_of(end.run.log)
                values.append({name: value for name, value in found.items() if name not in own or own[name] != value})
                difference = difference_here(end.run.read(), tree, list(end.run.log.steps))
                lacking = next(iter(tree.inputs.missing.values()), "")
                notes += [f"not as in run {end.label}: {why}" for why in (difference, lacking) if why]
                is_known = not (difference or lacking or end.is_dirty)
                ends.append(BisectionEnd(end.word, end.commit, end.run, must_run=not is_known))
            packages = packages_digest(tree)
    if values[0] != values[1] and good.run is not None and bad.run is not None:
        said = format_pairs(values[1]) or "those of each commit's file"
        notes.append(f"the runs began with other values: all begin with those of {bad.label}: {said}")
        ends[0] = BisectionEnd(good.word, good.commit, good.run)
    inputs = bad.run if bad.run is not None else good.run
    given = values[1] if bad.run is not None else values[0]
    return BisectionEnds(ends[0], ends[1], base, file, inputs, given, packages, tuple(notes))


def _pipeline_file(good: BisectionEnd, bad: BisectionEnd, project: Project | None) -> str:
    runs = [end.run for end in (good, bad) if end.run is not None]
    known = [PipelineIdentity.recorded(run.log.name, run.log.run_config) for run in runs]
    if len(known) == 2 and not known[0].is_same(known[1], is_known_here=True):
        raise UsageError(
            f"the runs are of different pipelines: {known[0]} and {known[1]}", hint="name two of one pipeline"
        )
    known += [project.identity()] if project is not None else []
    for one in known:
        if one.base == "repository" and one.file:
            return one.file
    raise UsageError("there is no pipeline file in a repository here", hint="cd to its folder, or name it with --store")
