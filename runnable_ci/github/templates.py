"""The workflows that `init --github` writes: the ones that users copy, filled in for a repository."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final, Literal

from runnable_ci.errors import NotARepositoryError, UsageError

Name = Literal["ci", "retry"]
ACTION: Final = "runnable/action"
DEFAULT_REF: Final = "v1"
FOLDER: Final = PurePosixPath(".github/workflows")
"""Where GitHub looks for workflows, from the repository's root."""


@dataclass(frozen=True, slots=True)
class LocalRepository:
    """A git repository: the root of its work tree, and its default branch on GitHub, as far as is known here."""

    root: Path
    default_branch: str


def repository_of(folder: Path, environ: Mapping[str, str]) -> LocalRepository:
    """Return the repository around a folder.

    Raises `UsageError` where there is none, `CodeIdentityError` where git refuses it.
    """
    from runnable_ci.vcs.clone import Clone  # late: it loads GitPython

    try:
        clone = Clone.around(folder, environ)
    except NotARepositoryError as e:
        raise UsageError(
            f"{folder} is not in a git repository, and workflows belong to a repository",
            hint="run `git init` first, or init without --github",
        ) from e
    return LocalRepository(clone.root, clone.default_branch())


def workflow(name: Name, *, action_ref: str, default_branch: str, pipeline: str) -> str:
    """Return a workflow's text.

    `action_ref` is a version, branch or commit of the action; `pipeline` the way from the repository's root to the
    pipeline's folder. Raises `UsageError` for what cannot stand in a workflow.
    """
    if not pipeline.isprintable() or "${{" in pipeline or "}}" in pipeline:
        raise UsageError(f"the folder {pipeline!r} cannot be used in a workflow", hint="rename it")
    text = (files("runnable_ci.github") / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    text = _put(text, r"(?<=uses: )runnable/action@.*", _use(action_ref))
    text = _put(text, r'(?<= pipeline: )"\."', _quoted(pipeline))
    if pipeline != ".":
        text = _put(
            text, r"(?<= pipeline: )\$\{\{ .* \}\}", _quoted(f"${{{{ inputs.pipeline || {_literal_text(pipeline)} }}}}")
        )
    return _put(text, r"(?<=branches: )\[.*\]", f"[{_quoted(_literal(default_branch))}]")


def _put(text: str, pattern: str, value: str) -> str:
    """Return a text with a value in each place that matches."""
    return re.sub(pattern, lambda _: value, text)


def _use(ref: str) -> str:
    """Return the action at a version, with the comment that the linters of workflows, and readers, want to see."""
    return " # ".join(used_action(ref, option="--action-ref", pin="`init --github --action-ref COMMIT`"))


def used_action(ref: str, *, option: str, pin: str) -> tuple[str, str]:
    """Return the action at a version that an `option` gives, and the comment behind it; `pin` is what gives a commit.

    Raises `UsageError` for what is no version, branch or commit.
    """
    if ref == DEFAULT_REF:
        return f"{ACTION}@{ref}", f"zizmor: ignore[unpinned-uses] {DEFAULT_REF} gets fixes; {pin} pins"
    if re.fullmatch(r"[0-9a-fA-F]{40}", ref):
        return f"{ACTION}@{ref.lower()}", "a commit never changes"
    if re.fullmatch(r"(?=[0-9]*[a-f])[0-9a-f]{7,64}", ref):
        raise UsageError(f"{option} {ref} looks like a part of a commit", hint="GitHub requires all 40 digits")
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z._+-]*(/[0-9A-Za-z][0-9A-Za-z._+-]*)*", ref) or ".." in ref:
        raise UsageError(
            f"{option} {ref!r} is not a version, branch or commit",
            hint=f"such as {DEFAULT_REF}, or a 40-digit commit",
        )
    return f"{ACTION}@{ref}", f"zizmor: ignore[unpinned-uses] set by {option}; only a commit never changes"


def pinned(action: str) -> tuple[str, str]:
    """Return another's action as the workflows that users copy pin it, and the comment behind it: its version."""
    text = (files("runnable_ci.github") / "workflows" / "ci.yml").read_text(encoding="utf-8")
    found = re.search(rf"uses: ({re.escape(action)}@[0-9a-f]{{40}}) # (v[0-9.]+)", text)
    if found is None:
        raise LookupError(action)
    return found[1], found[2]


def _literal(branch: str) -> str:
    r"""Return a branch as a pattern of `on.push.branches` that matches nothing else.

    Git forbids `*?[\` in names and allows `+!]`. Source: GitHub docs, workflow syntax, filter pattern cheat sheet.
    """
    return re.sub(r"[+!\]]", r"\\\g<0>", branch)


def _literal_text(text: str) -> str:
    """Return a string of GitHub's expressions. Source: GitHub docs, "Evaluate expressions", literals."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _quoted(text: str) -> str:
    """Return a YAML string: JSON's are."""
    return json.dumps(text, ensure_ascii=False)
