"""In which branches' indexes a run looks for results that it may reuse: those whose writers have its own rights.

A job reads the index of its own branch or pull request, and those of the branches whose runs it would resume, too: who
pushes there decides anyway what runs here. So a pull request finds what the default branch has made, and no branch
finds what a pull request has. On a person's machine it is the branch that is checked out, and the default one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from runnable_ci.config import Settings
from runnable_ci.errors import CodeIdentityError, UsageError
from runnable_ci.github.accepted_writers import accepted_writers
from runnable_ci.github.job import Context
from runnable_ci.runs.remote.registry_config import REF_VARIABLES, Registries
from runnable_ci.runs.remote.writers import AcceptedWriters, ref_label
from runnable_ci.runs.reuse.candidates import IndexPlace
from runnable_ci.runs.reuse.entries import PULL
from runnable_ci.vcs.git import Git

PLACES_MAX = 3
"""Each takes a request before the first step runs."""
_USUAL = ("main", "master")
InPipeline = Callable[[], str | None]
"""Gives the registry that the pipeline file names."""


class ReusePlaces(NamedTuple):
    """Where results are looked for, and whose are used."""

    indexes: tuple[IndexPlace, ...] = ()
    accepted: AcceptedWriters = AcceptedWriters()


def reuse_places(
    settings: Settings, environ: Mapping[str, str], *, in_pipeline: InPipeline, workspace: Path, named: str = ""
) -> ReusePlaces:
    """Return where this run looks; `named` is a branch that a person named, which is looked at alone.

    Nowhere, where no registry is set. Raises `UsageError` for the name of what is no branch.
    """
    accepted, context = accepted_writers(settings, environ), Context.of(environ)
    own = ref_label({"GITHUB_REF": context.ref, "GITHUB_HEAD_REF": context.head_ref}) if context else ""
    if named.startswith((PULL, "tag:")) and named != own:
        raise UsageError(f"--reuse {named}: not a branch", hint="only a pull request's own job reuses what it made")
    try:
        registries = _Registries.of(settings, environ, in_pipeline)
    except UsageError:  # without one nothing can be found, and publishing says how to set it
        return ReusePlaces()
    if named:
        if accepted.refs is not None:
            accepted = replace(accepted, refs=accepted.refs | {named})
        return ReusePlaces((registries.place(named),), accepted)
    branches = _of_job(context, own) if context else _of_clone(workspace, environ)
    return ReusePlaces(tuple(registries.place(it) for it in dict.fromkeys(branches))[:PLACES_MAX], accepted)


class _Registries(NamedTuple):
    """Where runs of branches are, and those of the job's own pull request."""

    branches: Callable[[str], IndexPlace]
    pull_request: Callable[[str], IndexPlace]

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str], in_pipeline: InPipeline) -> _Registries:
        of_branch = {name: value for name, value in environ.items() if name not in REF_VARIABLES}
        one, other = (Registries(settings, it).named(None, in_pipeline=in_pipeline) for it in (of_branch, environ))
        return cls(lambda branch: IndexPlace(one, branch), lambda branch: IndexPlace(other, branch))

    def place(self, branch: str) -> IndexPlace:
        return self.pull_request(branch) if branch.startswith(PULL) else self.branches(branch)


def _of_job(context: Context, own: str) -> Iterator[str]:
    """Yield branches in the order in which they count: a fork's pull request has no index, nor has a tag."""
    if own and not own.startswith("tag:") and not context.is_fork_pull_request:
        yield own
    first = (context.base_ref, context.default_branch, context.fix_ref, context.head_ref)
    yield from (ref for ref in first if ref in context.accepted_refs)
    yield from sorted(ref for ref in context.accepted_refs if ":" not in ref)


def _of_clone(workspace: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the branch that is checked out, and what a remote calls its HEAD, `origin` first; else a usual name."""
    asked = ("refs/heads", "refs/remotes/*/HEAD", *(f"refs/remotes/origin/{name}" for name in _USUAL))
    try:
        listed = Git(str(workspace), environ)("for-each-ref", "--format=%(refname) %(HEAD)%(symref)", *asked)
    except CodeIdentityError:
        return
    lines = (line.partition(" ") for line in listed.decode(errors="replace").splitlines())
    refs = {name: rest for name, _, rest in lines}
    yield from (name.removeprefix("refs/heads/") for name, rest in refs.items() if rest.startswith("*"))
    heads = [name for name in refs if name.startswith("refs/remotes/") and name.endswith("/HEAD")]
    for head in sorted(heads, key=lambda name: name != "refs/remotes/origin/HEAD"):
        prefix, target = head.removesuffix("HEAD"), refs[head][1:]
        if target.startswith(prefix):
            yield target.removeprefix(prefix)
            return
    for name in _USUAL:
        if not refs.keys().isdisjoint((f"refs/heads/{name}", f"refs/remotes/origin/{name}")):
            yield name
            return
