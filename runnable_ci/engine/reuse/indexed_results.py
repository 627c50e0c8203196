"""The results of runs in a registry, by the indexes of branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from runnable_ci.engine.reuse.earlier_result import EarlierResult, may_be_reused
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import CodeIdentityError, RunnableError, UsageError
from runnable_ci.observe.reads import READS_MAX_BYTES, ReadSet, decode_reads
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.remote.registry_config import PULL_REQUESTS, Registries
from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters
from runnable_ci.runs.reuse.candidates import Candidate, Candidates, IndexPlace, find_candidates
from runnable_ci.runs.reuse.entries import PULL, reads_blob
from runnable_ci.runs.reuse.held_contents import fetch_contents
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import verified
from runnable_ci.vcs.git import Git


@dataclass(slots=True, eq=False, repr=False)
class IndexedResults:
    """The results of runs of some branches in the registry; the indexes are read when a step is first looked for."""

    session: RunSession
    run_id: str
    """The run that looks for them."""
    branches: Sequence[str]
    accepted: AcceptedWriters = EVERYBODY
    say: Callable[[str], None] = lambda _line: None
    _found: Candidates | None = field(default=None)

    def of(self, step: str) -> Iterator[EarlierResult]:
        """Yield the results of a step, the newest first."""
        for candidate in self._candidates().of_step.get(step, ()):
            if candidate.entry.run_id == self.run_id:
                continue
            with suppress(RunnableError, OSError):  # it is damaged, or gone: no hit
                log = candidate.entry.run_log()
                if may_be_reused(log.steps[step]):
                    yield EarlierResult(step, log, self._reads(candidate, log), candidate)

    def _candidates(self) -> Candidates:
        if self._found is None:
            self._found = Candidates()
            if places := self._places():
                session = self.session
                pipeline, layout = session.project.identity().key(), session.project.layout
                self._found = find_candidates(places, pipeline, accepted=self.accepted, layout=layout)
                for note in self._found.notes:
                    self.say(f"note: {note}")
        return self._found

    def _places(self) -> list[IndexPlace]:
        try:
            own = registry_of(self.session)
        except UsageError:
            return []
        registries = Registries(self.session.options.settings, self.session.options.environ)
        # Those of pull requests are below those of the branches, which they may read.
        whole = own.label.removesuffix(f"/{PULL_REQUESTS}")
        of_branches = own if whole == own.label else registries.open(parse_reference(whole))
        return [IndexPlace(own if one.startswith(PULL) else of_branches, one) for one in self.branches]

    def _reads(self, candidate: Candidate, log: RunLog) -> ReadSet | None:
        if (found := candidate.entry.read_set()) is not None:
            return found
        blob = reads_blob(log)
        if blob.size > READS_MAX_BYTES:
            return None
        layout = self.session.project.layout
        fetch_contents(layout, candidate, [blob])
        with layout.fetch(blob) as source:
            return decode_reads(b"".join(verified(source, blob, label=layout.label)), where="the reads of a result")


def registry_of(session: RunSession) -> Registry:
    """Return where runs of the project are published. Raises `UsageError` where that is not known."""
    registries = Registries(session.options.settings, session.options.environ)
    return registries.named(None, in_pipeline=lambda: session.project.pipeline.registry)


def branches_here(session: RunSession) -> list[str]:
    """Return the branch that is checked out, and the default one of the remote, as far as git says."""
    git = Git(str(session.project.workspace), session.options.environ)
    found = []
    for ref in ("HEAD", "refs/remotes/origin/HEAD"):
        with suppress(CodeIdentityError):
            found.append(git("symbolic-ref", "--quiet", "--short", ref).decode().strip().removeprefix("origin/"))
    return list(dict.fromkeys(filter(None, found)))
