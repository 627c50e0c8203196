"""What an attempt read, used and made beside its products: from what was seen of it to its record."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci.engine.planner import Scope
from runnable_ci.engine.provenance.pending_reads import NOT_HASHED, OPEN_MAX, KeptReads, PendingReads
from runnable_ci.engine.provenance.step_variables import VariableRecorder
from runnable_ci.engine.provenance.workspace_view import RunProducts, files_matching, names_in
from runnable_ci.observe.assemble import AttemptView, WorkerReport, read_set
from runnable_ci.observe.distributions import Distributions
from runnable_ci.observe.environment_use import variables_used
from runnable_ci.observe.observer import Observer, Sight
from runnable_ci.observe.outside import named_in, with_missing
from runnable_ci.observe.reads import READS_MAX_BYTES, READS_MAX_ENTRIES, FileRead, ReadSet
from runnable_ci.observe.source_files import read_source
from runnable_ci.observe.trace import Trace
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.links import readable
from runnable_ci.runs.files.workspace import UnhashedFile
from runnable_ci.runs.machines.environment_model import NumericLibrary
from runnable_ci.runs.model import CatalogEntry, StepAttempt
from runnable_ci.runs.paths import READS_SUFFIX
from runnable_ci.runs.products.index import Product, StoredContent

if TYPE_CHECKING:
    from runnable_ci.engine.provenance.foreign_code import ForeignModule

MADE_MAX = 1_000


@dataclass(slots=True, eq=False, repr=False)
class ReadRecorder:
    """Records the reads of an invocation's attempts. Used by the attempts' threads, each for its own attempt."""

    pipeline: Pipeline
    observer: Observer
    catalog: Catalog
    folder: Path
    """Where the documents lie until the run is sealed, as `STEP.ATTEMPT.reads`."""
    variables: VariableRecorder
    products: RunProducts = field(default_factory=RunProducts)
    installed: Distributions = field(default_factory=Distributions)
    foreign: set[ForeignModule] = field(default_factory=set)
    """What was said of code that ran from elsewhere."""
    may_open: threading.Semaphore = field(default_factory=partial(threading.Semaphore, OPEN_MAX))
    """For files that are hashed later."""

    def declared(self, step: Step, scope: Scope) -> dict[str, str]:
        """Return the files of a step's `reads`, as it will find them: name → sha256."""
        if not step.reads:
            return {}
        visible = scope.entries()
        files, made = self.catalog.files, readable(visible)
        names = files_matching(files, step.reads, hidden=self.products.hidden_from(visible), visible=made)
        found = {name: made[name].data_hash if name in made else files.hash_of(name) for name in names}
        return {name: digest for name, digest in found.items() if digest}

    def record(
        self,
        step: Step,
        attempt: StepAttempt,
        entries: Collection[CatalogEntry],
        scope: Scope,
        sight: Sight,
        worker: WorkerReport | None,
        redactor: Redactor,
        declared: Mapping[str, str],
    ) -> PendingReads | None:
        """Note in an attempt what was seen of it; `entries` are its files, `declared` those of its `reads`.

        Returns what is still to be hashed. What cannot be recorded counts as not seen: it stops no run.
        """
        try:
            return self._record(step, attempt, entries, scope, sight, worker, redactor, declared)
        except OSError as e:
            attempt.reads, attempt.not_seen = "", e.strerror or str(e)
            return None
        finally:
            sight.later()  # nor is more of it kept
            self.variables.record(step, attempt)
            if worker is not None:
                attempt.numeric_libraries = [NumericLibrary(**one._asdict()) for one in worker.numeric]

    def _record(
        self,
        step: Step,
        attempt: StepAttempt,
        entries: Collection[CatalogEntry],
        scope: Scope,
        sight: Sight,
        worker: WorkerReport | None,
        redactor: Redactor,
        declared: Mapping[str, str],
    ) -> PendingReads | None:
        def keep(reads: ReadSet) -> KeptReads:
            return self._keep(f"{step.name}.{attempt.attempt_number}", reads, redactor)

        if sight.trace is None:
            attempt.not_seen = sight.reason
            if step.kind == "run":
                attempt.consumed = _parameters_used(step, attempt, None, self.observer.root)
            if step.reads is not None:
                kept = keep(self._with_declared(ReadSet(), step, declared, sight.trace))
                attempt.reads, attempt.reads_size = kept.reads, kept.reads_size
                attempt.not_seen = kept.not_seen or attempt.not_seen
            return None
        put = {entry.name for entry in entries if entry.stage == "put"}
        unhashed: dict[str, UnhashedFile] = {}
        view = self._view(step, entries, put, scope, sight, unhashed)
        reads = read_set(sight.trace, view, worker, self.installed)
        if step.kind == "run":
            attempt.consumed = _parameters_used(step, attempt, reads, self.observer.root)
            reads = with_missing(reads, step.command, self.observer.root, step.working_directory)
        if step.checkpoint:
            from runnable_ci.engine.checkpoints.own_reads import without_checkpoint  # few steps keep any

            reads = without_checkpoint(reads, step)
        self._note_made(step, attempt, sight.trace, put, view)
        if worker is not None and not worker.has_children:
            from runnable_ci.engine.provenance.code_reach import reach_of  # only python steps need it

            attempt.reach = reach_of(step, attempt.modules, self.observer.root)
        if step.reads is not None:
            theirs = {name: digest for name, digest in declared.items() if not view.is_siblings(name)}
            reads = self._with_declared(reads, step, theirs, sight.trace)
        if unhashed:
            attempt.not_seen = NOT_HASHED  # until it is: a program that is killed before leaves that
            return PendingReads(reads, unhashed, self._hash_opened, keep)
        kept = keep(reads)
        attempt.reads, attempt.reads_size, attempt.not_seen = kept.reads, kept.reads_size, kept.not_seen
        return None

    def _hash_opened(self, unhashed: UnhashedFile) -> str | None:
        try:
            return self.catalog.files.hash_opened(unhashed)
        finally:
            self.may_open.release()

    def _with_declared(self, reads: ReadSet, step: Step, declared: Mapping[str, str], trace: Trace | None) -> ReadSet:
        """Return the reads with the files that the step's `reads` names, as they were before it ran."""
        own = trace.made | trace.changed | trace.removed if trace else ()
        files = {}
        for name, digest in declared.items():
            is_others = name not in own and self.catalog.files.hash_of(name) not in (digest, None)
            files[name] = FileRead(digest=digest, changed_while_running=is_others)
        return reads.model_copy(update={"files": {**reads.files, **files}, "declared": list(step.reads or ())})

    def _view(
        self,
        step: Step,
        entries: Collection[CatalogEntry],
        put: Collection[str],
        scope: Scope,
        sight: Sight,
        unhashed: dict[str, UnhashedFile],
    ) -> AttemptView:
        assert sight.trace is not None  # noqa: S101 - for the type checker
        files, altered = self.catalog.files, sight.trace.changed | sight.trace.removed
        above = self.pipeline.ancestors(step.name) if sight.overlapping else ()
        foreign = [
            pattern
            for name in sight.overlapping
            if name in self.pipeline.steps and name not in above
            for pattern in (*self.pipeline.steps[name].put, *self.pipeline.steps[name].checkpoint)
        ]
        visible = scope.files
        hidden = self.products.hidden_from(visible).union(put, sight.trace.made)

        def is_siblings(path: str) -> bool:
            return path not in visible and path not in put and any(may_name(pattern, path) for pattern in foreign)

        def names(folder: str) -> set[str]:
            found = names_in(self.observer.root, folder, hidden=hidden, visible=visible)
            return {name for name in found if not is_siblings(f"{folder}/{name}" if folder else name)}

        def digest_of(path: str) -> str | None:
            if path not in altered and self.may_open.acquire(blocking=False):
                if later := files.open_unhashed(path, since_ns=sight.started_ns):
                    unhashed[path] = later
                    return None
                self.may_open.release()
            return files.hash_of_read(path)

        return AttemptView(
            root=self.observer.root,
            started_ns=sight.started_ns,
            digest_of=digest_of,
            names_in=names,
            before={entry.name: entry.data_hash for entry in entries if entry.stage == "get" and not entry.kind},
            links=sight.links,
            command=step.command,
            around=self.observer.around,
            named_outside=self._named_outside(step),
            settled={*put, *visible},
            later=sight.later,
            is_siblings=is_siblings,
        )

    def _named_outside(self, step: Step) -> list[str]:
        folder = f"{self.observer.root}/{step.working_directory}"
        environ = {**self.variables.environ, **step.env}
        return named_in(step.command, folder, self.observer.around, environ) if step.kind == "run" else []

    def _note_made(
        self, step: Step, attempt: StepAttempt, trace: Trace, put: Collection[str], view: AttemptView
    ) -> None:
        """Note what the attempt wrote and its `put` does not name."""
        mine = trace.made | trace.changed
        written = sorted(path for path in mine if not (path in put or path.startswith("../") or view.is_siblings(path)))
        files = self.catalog.files
        hashes = {path: files.hash_of(path) for path in written[:MADE_MAX] if not (files.path / path).is_dir()}
        digests = {path: digest for path, digest in hashes.items() if digest is not None}
        attempt.made, attempt.made_more = digests, max(0, len(written) - MADE_MAX)
        self.catalog.products.record(
            Product(
                path=path,
                content=StoredContent(digest, (self.catalog.workspace / path).stat().st_size),
                step=step.name,
                run=self.catalog.run_folder.name,
                made_by=f"{self.catalog.run_folder.name}/{step.name}.{attempt.attempt_number}",
                seen=self.catalog.files.settled(path, digest),
                observed=False,  # it is no product: one that git tracks stays a change of the code
            )
            for path, digest in digests.items()
        )

    def _keep(self, title: str, reads: ReadSet, redactor: Redactor) -> KeptReads:
        if len(reads.files) + len(reads.listings) + len(reads.absent) > READS_MAX_ENTRIES:
            return KeptReads(not_seen=f"it read more than {READS_MAX_ENTRIES} files")
        document = redactor.text(reads.encode().decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if len(document) > READS_MAX_BYTES:
            return KeptReads(not_seen=f"the list of what it read is larger than {READS_MAX_BYTES >> 20} MiB")
        (self.folder / f"{title}{READS_SUFFIX}").write_bytes(document)
        return KeptReads(hashlib.sha256(document).hexdigest(), len(document))


def _parameters_used(step: Step, attempt: StepAttempt, reads: ReadSet | None, root: str) -> dict[str, str]:
    """Return which of the parameters that a shell step had in its environment it used, or may have used."""
    if step.parameters is not None:
        return dict.fromkeys(attempt.input_parameters, "seen")
    bound = {name: "seen" for name in step.arguments if name in attempt.input_parameters}
    if reads is None:
        return dict.fromkeys(attempt.input_parameters, "possible") | bound
    names = [name for name in attempt.input_parameters if name not in bound]
    if not names:
        return bound
    paths = [f"{root}/{path}" for path in reads.files]
    return {**variables_used(names, step.command, map(read_source, paths)), **bound}
