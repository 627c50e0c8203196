"""Which code attempts run: looked at when they begin, recorded once for each state, kept with the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runnable_ci.pipeline.step import Step
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.code_states import difference
from runnable_ci.runs.events import CodeStateRecorded, Event, InvocationFinished
from runnable_ci.runs.recorder import Recorder
from runnable_ci.store.target import Descriptor
from runnable_ci.vcs.actor import pull_request_head
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.work_tree import WorkTree

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers
    from runnable_ci.vcs.snapshot import Made, Memory

SNAPSHOT_MAX_BYTES: Final = 64 * 1024 * 1024
_ALL: Final = "the code difference"
_MASKED_LATER: Final = "it contained a value that was masked later"


@dataclass(slots=True, eq=False, repr=False)
class CodeRecorder:
    """Records the code of the attempts of one invocation."""

    code: Code
    recorder: Recorder
    environ: Mapping[str, str]
    container: CodeIdentity | None
    """The image that all of this runs in; None where it runs in no container."""
    untracked: Callable[[str], str]
    """Why an untracked file, by its path from the workspace, is not kept; empty where it is."""
    containers: StepContainers | None = None
    """What runs the steps that have a container."""
    changed: Callable[[], Collection[str] | None] = lambda: None
    """The paths from the workspace that were changed since it was asked last; None where they are not known."""
    key: str = ""
    """Of the state that was recorded last; empty where nothing is known of the code."""
    _memory: Memory | None = None
    _states: dict[str, CodeState] = field(default_factory=dict)
    """What this invocation recorded, in that order; a state builds on the one before it, if that has its commit."""
    _newest: tuple[str, CodeState] | None = None
    """The key and the whole of the last one, on which the next one may build; None before the first."""
    _bundles: dict[str, list[Descriptor]] = field(default_factory=dict)
    """The same states → the bundles that were made for each."""

    def ended(self, end: InvocationFinished) -> list[Event]:
        """Return the events of an invocation's end, with the code where no attempt of its own has it."""
        log = self.recorder.log
        newest = log.invocations[-1]
        attempts = (a for step in log.steps.values() for a in step.attempts if a.invocation == newest.number)
        has_own = any(attempt.code_identities and not attempt.taken_from for attempt in attempts)
        if has_own or not any(decision.taken_from for decision in newest.decisions.values()):
            return [end]
        looked = self.look()
        return [*looked, end.model_copy(update={"code_identities": self.identities(), "code_state": self.key})]

    def look(self) -> list[Event]:
        """Know the code as it is now. The events put a new state on record."""
        state = self.code.look_again(self.changed())
        key = state.key
        events = list[Event]()
        if key and key not in self.recorder.log.code_states and key not in self._states:
            newest, record = self._newest, self._recorded(state)
            if newest and newest[1].commit == state.commit:
                base, earlier = newest
                self._states[key] = difference(earlier, base, record)
            else:
                self._states[key] = record
            self._newest = key, record
            events.append(CodeStateRecorded(key=key, state=self._states[key]))
        self.key = key
        return events

    def identities(self, step: Step | None = None) -> list[CodeIdentity]:
        """Return what the last look found; on a pull request also its head, and the images of job and step, if any."""
        state = self.code.last
        found = [
            CodeIdentity(
                code_identifier=state.commit,
                code_identifier_dependable=state.dependable,
                code_identifier_url=state.url,
                code_identifier_message=state.message,
                ref=state.ref,
            )
        ]
        if head := pull_request_head(self.environ):
            message = "head of the pull request; the attempt ran its merge commit"
            found.append(
                CodeIdentity(
                    code_identifier=head, code_identifier_url=state.url, code_identifier_message=message, ref="head"
                )
            )
        if self.container is not None:
            found.append(self.container)
        if self.containers is not None and step is not None:
            found += self.containers.identities(step)
        return found

    def redact(self) -> dict[str, CodeState]:
        """Replace the states in whose bundles a value is that was masked only since: key → what is said of it now.

        Those that build on such a bundle lack it then, so they are replaced too; the last look is kept again.
        """
        if self._memory:
            self._memory.verdicts.clear()
        keys = list(self._bundles)
        tainted = [key for key in keys if any(map(self._holds_secret, self._bundles[key]))]
        if not tainted:
            return {}
        gone = keys[keys.index(tainted[0]) :]
        nothing = {"kept": "", "bundles": {}, "omitted": {_ALL: _MASKED_LATER}}
        replaced = {key: self._states.pop(key).model_copy(update=nothing) for key in gone}
        for key in gone:
            del self._bundles[key]
        self._memory = self._newest = None
        if (key := self.code.last.key) in gone:
            self._states[key] = replaced[key] = self._recorded(self.code.last)
            self._newest = key, self._states[key]
        return replaced

    def _recorded(self, state: WorkTree) -> CodeState:
        record = CodeState(
            commit=state.commit,
            tree=state.tree,
            changes=dict(state.changes),
            unknown=dict(state.unknown),
            unpublished=state.unpublished,
        )
        self._bundles[state.key] = []
        return self._kept(record) if state.changes else record

    def _kept(self, record: CodeState) -> CodeState:
        # It takes as long to load as a step, and most trees are clean.
        from runnable_ci.vcs.snapshot import Memory, Rules, snapshot

        self._memory = self._memory or Memory()
        rules = Rules(self.recorder.redactor.holds, lambda path: self.untracked(self.code.path_within(path)))
        kept = snapshot(self.code, limit_bytes=SNAPSHOT_MAX_BYTES, rules=rules, memory=self._memory)
        stored = {made.header.commit: self._store(made) for made in kept.bundles}
        self._bundles[self.code.last.key] = list(stored.values())
        bundles = {commit: (descriptor.hex, descriptor.size) for commit, descriptor in stored.items()}
        return record.model_copy(update={"kept": kept.commit, "bundles": bundles, "omitted": kept.omitted})

    def _store(self, made: Made) -> Descriptor:
        from runnable_ci.vcs.bundle import write_bundle

        path = Path(self.recorder.folder) / f"code.{time.monotonic_ns()}.bundle"
        with path.open("wb") as file:
            write_bundle(file, made.header, made.objects)
        return self.recorder.layout.move_file_in(path)

    def _holds_secret(self, bundle: Descriptor) -> bool:
        from runnable_ci.vcs.bundle import contents

        with self.recorder.layout.path(bundle).open("rb") as file:
            return self.recorder.redactor.holds(contents(file))
