"""Sends attempts to machines that share no folder with this one, and takes what comes back, which nobody trusts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.elsewhere.apart.letters import letter_of
from runnable_ci.engine.elsewhere.messages import MessageReporter
from runnable_ci.engine.elsewhere.tickets import Ticket, read_private
from runnable_ci.engine.options import Options, secret_names
from runnable_ci.engine.provenance.step_variables import secret_values_of
from runnable_ci.errors import RunnableError, StoreError
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.elsewhere.fragment import Fragment, parse_fragment, seal
from runnable_ci.runs.elsewhere.parcels import Parcel, find_parcel, post, tags_of, unsealed
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.model import SUCCESS, RunLog, StepAttempt, StepLog
from runnable_ci.runs.output import split
from runnable_ci.runs.paths import READS_SUFFIX
from runnable_ci.runs.products.history import products_of
from runnable_ci.runs.recorder import Recorder
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.runs.remote.sound_log import require_sound
from runnable_ci.store.registry import Registry
from runnable_ci.util.files import temporary
from runnable_ci.util.process_output import Stream
from runnable_ci.util.text import printable

_CHUNK_BYTES: Final = 1 << 20


class Sent(NamedTuple):
    """An attempt that is on its way, as its folder has it."""

    letter: str
    """Its tag."""
    answer: str
    """The tag of what comes back."""
    key: str
    """What its worker proves by that it was it."""
    digest: str = ""
    """Of the letter's manifest, once it is in the registry."""

    @classmethod
    def read(cls, folder: AttemptFolder) -> Sent | None:
        """Return what was noted in an attempt's folder; None where nothing was."""
        noted = folder.noted("sent")
        found = [noted.get(name) for name in cls._fields]
        return cls(*map(str, found)) if None not in found else None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Carrier:
    """Carries the attempts of an invocation. Used by several threads, each for its own attempt."""

    project: Project
    options: Options
    recorder: Recorder
    context: ExecutionContext

    def registry(self) -> Registry:
        """Return the run's registry, for one thread. Raises `UsageError` where none is set."""
        return run_registry(self.project, self.options)

    def send(self, folder: AttemptFolder, worker: str, key: str) -> str:
        """Send the ticket in an attempt's folder; the address for its worker. Raises `RunnableError`."""
        registry, log = self.registry(), self.recorder.log
        ticket = read_private(folder.ticket, Ticket)
        letter, answer = tags_of(log.run_id, worker)
        names = secret_names(self.project.pipeline, self.options)
        file = self.project.identity().file
        document, contents = letter_of(ticket, log, self.context, file=file, secret_names=names, answer=answer)
        layout, blobs = self.context.catalog.layout, contents.blobs.values()
        manifest = post(layout, registry, letter, document, blobs, files=contents.files)
        folder.note("sent", **Sent(letter, answer, key, manifest.digest)._asdict())
        return f"{registry.label}@{manifest.digest}#{key}"

    def take(self, folder: AttemptFolder) -> bool:
        """Take what a worker sent back, as if it had been written here; False where there is nothing yet.

        Raises `RunnableError` for what cannot be used.
        """
        sent = Sent.read(folder)
        registry = self.registry()
        registry.be_silent()  # it is asked again and again
        parcel = find_parcel(registry, sent.answer) if sent else None
        if sent is None or parcel is None:
            return False
        where = f"{registry.label}:{sent.answer}"
        ticket = read_private(folder.ticket, Ticket)
        fragment = parse_fragment(unsealed(parcel.document, sent.key, where), where)
        self._take(ticket, fragment, parcel, folder, where)
        if folder.end("far"):
            seal(fragment, folder.fragment, through=self.context.catalog.layout.temporaries)
        self.tidy(sent)
        return True

    def tidy(self, sent: Sent) -> None:
        """Remove from the registry what nobody needs any more, where it allows that."""
        registry = self.registry()
        registry.be_silent()
        for tag in (sent.letter, sent.answer):
            with suppress(RunnableError):
                if parcel := find_parcel(registry, tag):
                    registry.delete(parcel.manifest)

    def _take(self, ticket: Ticket, fragment: Fragment, parcel: Parcel, folder: AttemptFolder, where: str) -> None:
        step, begun, catalog = ticket.step, ticket.attempt, self.context.catalog
        attempt = fragment.attempt
        if (fragment.step, attempt.attempt_number) != (step.name, begun.attempt_number):
            raise StoreError(f"{where} is of another attempt; it was not used")
        # What this side knows of it is not asked of the other.
        attempt.code_identities, attempt.code_state, attempt.taken_from = begun.code_identities, "", ""
        attempt.variables = self.context.reads.variables.now(step, ticket.scope.values())
        digests = self.context.reads.variables.digests
        attempt.secret_values = secret_values_of(attempt.consumed, ticket.scope.values(), digests)
        log = RunLog(run_id=self.recorder.log.run_id, packs=fragment.packs, steps={step.name: log_of(fragment)})
        require_sound(log, parcel.sizes, where)
        parcel.bring(catalog.layout, layers(log).values())
        catalog.know(fragment.packs)
        title = f"{step.name}.{attempt.attempt_number}"
        self._lay_out(attempt, title)
        with closing(MessageReporter(folder.messages)) as said:
            said.say(*map(printable, fragment.said), step=step.shown)
            for stream, chunk in self._output(attempt, title):
                said.output(step.shown, stream, chunk)

    def _lay_out(self, attempt: StepAttempt, title: str) -> None:
        """Have what an attempt wrote and read where the run keeps it until it is sealed."""
        found: dict[str, tuple[str, int]] = {}
        if attempt.log:
            found[f"{title}.log"] = (attempt.log.data_hash, attempt.log.size)
            if attempt.log.index_hash:
                found[f"{title}.idx"] = (attempt.log.index_hash, attempt.log.index_size)
        if attempt.reads:
            found[f"{title}{READS_SUFFIX}"] = (attempt.reads, attempt.reads_size)
        catalog = self.context.catalog
        for name, (digest, size) in found.items():
            self.context.outputs.mkdir(parents=True, exist_ok=True)
            with temporary(catalog.layout.temporaries) as new:
                for chunk in catalog.read(digest, size):
                    new.file.write(chunk)
                new.file.flush()
                new.keep_as(self.context.outputs / name, synced=False)

    def _output(self, attempt: StepAttempt, title: str) -> Iterator[tuple[Stream, bytes]]:
        if attempt.log is None:
            return
        path, index = (self.context.outputs / f"{title}.{kind}" for kind in ("log", "idx"))
        with path.open("rb") as file:
            chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
            only: Stream = "o" if attempt.log.stdout_bytes else "e"
            yield from split(chunks, index.read_bytes() if index.exists() else b"", only_stream=only)

    def land(self, fragment: Fragment) -> None:
        """Have in the workspace what an attempt made that ended well elsewhere."""
        catalog, log = self.context.catalog, log_of(fragment)
        catalog.know(fragment.packs)
        if fragment.attempt.status == SUCCESS:
            for name in catalog.get(it for it in products_of(log) if it.stored)[1]:
                self.context.printer.say(catalog.describe_replaced(name))


def log_of(fragment: Fragment) -> StepLog:
    """Return a fragment as a run log has it."""
    entries = fragment.data_catalog
    return StepLog(name=fragment.step, internal_name=fragment.step, attempts=[fragment.attempt], data_catalog=entries)


def run_registry(project: Project, options: Options) -> Registry:
    """Return the registry of a run, by the settings or the pipeline file. Raises `UsageError` where there is none."""
    registries = Registries(options.settings, options.environ)
    return registries.named(None, in_pipeline=lambda: project.pipeline.registry)
