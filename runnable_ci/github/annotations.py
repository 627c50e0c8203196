"""What a run's annotations say, and which line of which file they are at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from runnable_ci.analysis.states import state_of
from runnable_ci.github.commands import Annotation, Level
from runnable_ci.pipeline.diagnostics.positions import key_spans
from runnable_ci.runs.branches.labels import failed_steps, label_of, last_attempt
from runnable_ci.runs.causality.ancestry import decisions_of
from runnable_ci.runs.code_states import unknown_code
from runnable_ci.runs.model import SUCCESS, RunLog, StepAttempt
from runnable_ci.vcs.git_files import repository_root

_RUN_AGAIN: Mapping[str, str] = {
    "code_changed": "to re-run such steps: --rerun-changed",
    "parameters_changed": "to re-run it: --from {step}",
    "products_changed": "to re-run it: --from {step}",
}
"""What is said of a reuse with a warning."""


@dataclass(frozen=True, slots=True)
class SourceMap:
    """Where a pipeline and its repository are."""

    root: PurePath
    """The repository: what lies in it can be pointed at."""
    workspace: PurePath
    """The pipeline's folder."""
    pipeline: PurePath
    lines: Mapping[str, int] = field(default_factory=dict)
    """Step → line of its table in the pipeline file."""

    def in_repository(self, file: PurePath) -> str:
        """Return a file, relative to the repository, empty for one that is not in it."""
        path = PurePath(os.path.normpath(file))
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else ""

    def of_step(self, name: str) -> tuple[str, int]:
        """Return the pipeline file, and the line of the step's table."""
        return self.in_repository(self.pipeline), self.lines.get(name, 0)


def source_map(workspace: Path, pipeline: Path, environ: Mapping[str, str]) -> SourceMap:
    """Return the places of a pipeline in its repository: the one that git finds, else the job's `GITHUB_WORKSPACE`.

    `actions/checkout` with `path` puts the repository below that. A file of another one beside it is not in this one.
    """
    text = pipeline.read_text(encoding="utf-8", errors="replace") if pipeline.is_file() else ""
    checkout = Path(environ.get("GITHUB_WORKSPACE") or workspace).resolve()
    found = repository_root(pipeline.resolve().parent, environ)
    root = found if found and found.is_relative_to(checkout) else checkout
    return SourceMap(root, workspace.resolve(), pipeline.resolve(), step_lines(text))


def step_lines(text: str) -> dict[str, int]:
    """Return step → line of its table in the text of a pipeline file."""
    found: dict[str, int] = {}
    for path, span in key_spans(text).items():
        match path:
            case ("steps", name) | ("tool", "runnable-ci", "steps", name):
                found.setdefault(name, span.line)
    return found


def annotations_for(log: RunLog, sources: SourceMap) -> list[Annotation]:
    """Return what to show of the newest invocation: failures first, then code that is unknown or has changed."""
    return [*_failures(log, sources), *_unknown_code(log), *_changed(log, sources)]


def _failures(log: RunLog, sources: SourceMap) -> Iterator[Annotation]:
    for name in failed_steps(log):
        state = state_of(log, name)
        if state not in ("failed", "cancelled"):
            continue
        attempt = last_attempt(log.steps[name])
        file, line = _location(name, attempt, sources)
        # A run that succeeded nevertheless has `continue-on-error`.
        level: Level = "warning" if state == "cancelled" or log.status == SUCCESS else "error"
        yield Annotation(
            level, _message(attempt), f"step {label_of(log.steps, name)} {_how(attempt, state)}", file, line
        )


def _how(attempt: StepAttempt, state: str) -> str:
    times = f" (attempt {attempt.attempt_number})" if attempt.attempt_number > 1 else ""
    return f"{'was cancelled' if state == 'cancelled' else 'failed'}{times}"


def _message(attempt: StepAttempt) -> str:
    found = attempt.exception
    if found is None or attempt.outcome != "failed":
        return attempt.message  # it timed out, or was cancelled: the exception is what that led to
    text = f"{found.type}: {found.message}" if found.message else found.type
    return f"{text}\ncell {found.cell}:\n{found.cell_source}" if found.cell else text


def _location(name: str, attempt: StepAttempt, sources: SourceMap) -> tuple[str, int]:
    """Return where the exception was raised, if that is in the repository; else the step's table."""
    found = attempt.exception
    if found and found.file and found.line > 0 and (file := sources.in_repository(sources.workspace / found.file)):
        return file, found.line
    return sources.of_step(name)


def _unknown_code(log: RunLog) -> Iterator[Annotation]:
    if why := unknown_code(log):
        text = f"{why}\nno retry can tell what changed since, and `checkout` cannot rebuild it"
        yield Annotation("warning", text, "the code of this run is not known")


def _changed(log: RunLog, sources: SourceMap) -> Iterator[Annotation]:
    for name, decision in decisions_of(log).items():
        if decision.action == "reuse" and decision.warning in _RUN_AGAIN:
            text = f"{decision.reason}\n{_RUN_AGAIN[decision.warning].format(step=name)}"
            yield Annotation("notice", text, f"step {label_of(log.steps, name)} was reused", *sources.of_step(name))
