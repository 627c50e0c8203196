"""Which untracked files a run keeps with its difference from the commit, and what is said of that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from runnable_ci.config import Settings
from runnable_ci.pipeline.patterns import as_glob, may_name
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.code_states import kept_untracked, states
from runnable_ci.runs.model import RunLog
from runnable_ci.steps import files_named
from runnable_ci.util.text import pluralize, truncate

NAMED_MAX = 5
"""How many files a line names for each reason."""
REASONS_MAX = 10
_NAME_MAX = 60
_LINE_MAX = 600


def rule(project: Project, settings: Settings, *, is_public: bool) -> Callable[[str], str]:
    """Return why an untracked file (path from the pipeline file's folder) is not included; empty if it is.

    `RUNNABLE_CI_UNTRACKED` says which, or the pipeline file. Else all are, but none in a job of GitHub Actions unless
    its event says that the repository is private: what a public one publishes, or leaves as an artifact, all can read.
    """
    match settings.untracked or project.pipeline.untracked:
        case "all":
            return lambda _: ""
        case "none":
            return lambda _: 'untracked, and `untracked = "none"`'
        case "listed":
            is_listed = _listed(project)
            return lambda path: "" if is_listed(path) else "untracked, and not named in the pipeline"
        case None:
            reason = 'untracked, in a job of a public repository; `untracked = "all"` keeps them' if is_public else ""
            return lambda _: reason


def _listed(project: Project) -> Callable[[str], bool]:
    """Return whether the pipeline names a file: itself, in a step's `get`, in its command, or as a python step's
    module.
    """
    steps = project.pipeline.outlined().steps.values()
    named = {project.file.name}.union(*(files_named(step, project.workspace) for step in steps))
    named_in_part = (pattern for step in steps for pattern in step.get or () if not pattern.startswith("${{"))
    patterns = list(map(as_glob, named_in_part))
    return lambda path: path in named or any(may_name(pattern, path) for pattern in patterns)


def notes(log: RunLog, *, invocation: int | None = None) -> Iterator[str]:
    """Yield a line that names the untracked files which are with the run, and one that names what was left out,
    with why.

    Of all attempts, or of those of an invocation.
    """
    found = states(log, invocation=invocation)
    if kept := _once(name for state in found for name in kept_untracked(state)):
        files = pluralize(len(kept), "untracked file")
        yield truncate(f'kept {files} with the run: {_listing(kept)}; `untracked = "none"` leaves them out', _LINE_MAX)
        from runnable_ci.redaction.credential_names import is_named_as_credentials  # most trees are clean

        if credentials := list(filter(is_named_as_credentials, kept)):
            warning = f"warning: an earlier version stored credentials with the run: {_listing(credentials)}"
            yield truncate(warning, _LINE_MAX)
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for name, reason in dict.fromkeys(omitted for state in found for omitted in state.omitted.items()):
        reasons[reason].append(name)
    if reasons:
        shown = [
            f"{_listing(names)} ({truncate(reason, 100)})" for reason, names in list(reasons.items())[:REASONS_MAX]
        ]
        more = sum(map(len, list(reasons.values())[REASONS_MAX:]))
        yield truncate(f"left out of the run: {'; '.join(shown)}{f'; and {more} more' if more else ''}", _LINE_MAX)


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def _listing(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MAX
    return ", ".join(truncate(name, _NAME_MAX) for name in names[:NAMED_MAX]) + (
        f" and {more} more" if more > 0 else ""
    )
