"""The results of runs in a registry, by the indexes of branches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from runnable_ci.engine.provenance.changes import one_line
from runnable_ci.engine.reuse.earlier_result import EarlierResult, may_be_reused
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunnableError
from runnable_ci.observe.reads import READS_MAX_BYTES, ReadSet, decode_reads
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters
from runnable_ci.runs.reuse.candidates import Candidate, Candidates, IndexPlace, find_candidates
from runnable_ci.runs.reuse.entries import reads_blob
from runnable_ci.runs.reuse.held_contents import fetch_contents
from runnable_ci.store.target import verified
from runnable_ci.util.text import listed


@dataclass(slots=True, eq=False, repr=False)
class IndexedResults:
    """The results of runs of some branches in the registry; the indexes are read when a step is first looked for."""

    session: RunSession
    run_id: str
    """The run that looks for them."""
    places: Sequence[IndexPlace]
    accepted: AcceptedWriters | None = None
    """Whose results are used; None: everybody's."""
    say: Callable[[str], None] = lambda _line: None
    is_asked_for: bool = False
    """Whether a person named the branch: then it is said where nothing is there."""
    _found: Candidates | None = field(default=None)
    _said: set[str] = field(default_factory=set)

    def of(self, step: str) -> Iterator[EarlierResult]:
        """Yield the results of a step, the newest first."""
        for candidate in self._candidates().of_step.get(step, ()):
            if candidate.entry.run_id == self.run_id:
                continue
            try:
                log = candidate.entry.run_log()
                found = EarlierResult(step, log, self._reads(candidate, log), candidate)
            except (RunnableError, OSError) as e:  # it is damaged, or gone: no hit
                self._say_once(f"note: a result of {candidate.branch} cannot be used: {one_line(str(e))}")
                continue
            if may_be_reused(log.steps[step]):
                yield found

    def _say_once(self, note: str) -> None:
        if note not in self._said:
            self._said.add(note)
            self.say(note)

    def _candidates(self) -> Candidates:
        if self._found is None:
            pipeline, layout = self.session.project.identity().key(), self.session.project.layout
            accepted = self.accepted or EVERYBODY
            self._found = find_candidates(self.places, pipeline, accepted=accepted, layout=layout)
            for note in self._found.notes:
                self.say(f"note: {note}")
            if self.is_asked_for and not self._found.notes and not self._found.of_step:
                named = listed(dict.fromkeys(f"`{place.branch}`" for place in self.places))
                self.say(f"note: {self.places[0].registry.label} has no results of {named} that can be reused")
        return self._found

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
