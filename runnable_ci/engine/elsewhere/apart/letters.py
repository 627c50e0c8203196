"""What goes into the letter to a machine that shares no folder with this one: a ticket without any secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.elsewhere.tickets import Letter, Ticket, packed
from runnable_ci.engine.planner import Scope, Visible
from runnable_ci.engine.provenance.step_variables import SECRET, VariableRecorder, process_environ
from runnable_ci.errors import StepError
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.redactor import MASK
from runnable_ci.runs.checkpoints.contents import KeptFiles
from runnable_ci.runs.code_states import whole
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import CatalogEntry, Parameter, RunLog, StepLog
from runnable_ci.runs.products.history import kept_inputs, last_products
from runnable_ci.store.target import Descriptor

_OF_A_MACHINE: Final = frozenset(
    {
        *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "PWD", "OLDPWD", "MAIL", "TMPDIR", "TEMP", "TMP", "HOSTNAME"),
        *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "R_LIBS", "XDG_RUNTIME_DIR"),
        "CUDA_VISIBLE_DEVICES",
    }
)
"""Variables that say something of one machine, also where a step names them."""
_OURS: Final = ("RUNNABLE_RUN_ID", "RUNNABLE_LOG_LEVEL")


class LetterContents(NamedTuple):
    """The blobs that belong to a letter."""

    blobs: Mapping[str, Descriptor]
    """By their digests."""
    files: Mapping[str, Path]
    """Where those are that the store does not have as blobs."""


def letter_of(
    ticket: Ticket, log: RunLog, context: ExecutionContext, *, file: str, secret_names: Iterable[str], answer: str
) -> tuple[bytes, LetterContents]:
    """Return a letter with a ticket, and what belongs to it. Raises `StepError` where it would have a secret."""
    step, attempt = ticket.step, ticket.attempt
    withheld = frozenset(name for name, one in ticket.scope.values().items() if _is_secret(name, one, context))
    contents = contents_of(ticket, log, context)
    letter = Letter(
        ticket=ticket._replace(scope=_without(ticket.scope, withheld), secrets=frozenset()),
        run_id=log.run_id,
        invocation=log.invocation,
        file=file,
        codes={attempt.code_state: whole(log.code_states, attempt.code_state)} if attempt.code_state else {},
        variables=variables_of_letter(step, ticket.scope, context.reads.variables),
        withheld=withheld,
        secret_names=frozenset(secret_names),
        answer=answer,
        contents=tuple((blob.hex, blob.size) for blob in contents.blobs.values()),
    )
    document = packed(letter)
    if context.redactor.holds([document]):
        raise StepError(
            f"step `{step.shown}` has a secret in what is written of it, and no registry gets any",
            hint="let it read a variable that is set there",
        )
    return document, contents


def _is_secret(name: str, one: Parameter, context: ExecutionContext) -> bool:
    """Return whether the value of a parameter is masked in the run log too."""
    if one.kind == "object":
        return False
    return one.redacted or name.upper() in context.secret_names or bool(context.redactor.value(one.value) != one.value)


def variables_of_letter(step: Step, scope: Scope, recorder: VariableRecorder) -> dict[str, str]:
    """Return the variables of a step that it names, without secrets and what says something of this machine."""
    environ = process_environ(step, recorder.environ, recorder.passed)
    counted = {
        name: environ[name]
        for name, digest in recorder.now(step, scope.values()).items()
        if name in environ and name not in _OF_A_MACHINE and digest != SECRET and not digest.startswith("hmac:")
    }
    return counted | {name: recorder.environ[name] for name in _OURS if name in recorder.environ}


def _without(scope: Scope, withheld: frozenset[str]) -> Scope:
    """Return a scope without the values of these parameters."""
    hidden = Parameter.of_json(MASK, redacted=True)
    parameters = {
        name: Visible(one.position, hidden, one.giver) if name in withheld else one
        for name, one in scope.parameters.items()
    }
    return scope._replace(parameters=parameters)


def contents_of(ticket: Ticket, log: RunLog, context: ExecutionContext) -> LetterContents:
    """Return the contents that an attempt may read: files, objects, checkpoints, and what differs from the commit."""
    catalog, packs = context.catalog, PackIndex(ticket.packs)
    blobs: dict[str, Descriptor] = {}
    files: dict[str, Path] = {}
    for entry in files_for(ticket):
        if entry.has_content:
            blob = packs.blob_of(entry.data_hash, entry.size)
            blobs[blob.digest] = blob
    for digest, size in _objects(ticket.scope):
        blob = Descriptor.of_hash(digest, size)
        blobs[blob.digest] = blob
    kept = KeptFiles(catalog, ticket.step.name)
    for attempt in ticket.past.attempts if ticket.past else ():
        for file in attempt.checkpoint.files.values() if attempt.checkpoint else ():
            if not file.kind:
                blob = packs.blob_of(file.data_hash, file.size)
                place = kept.place_of(file)
                if place.exists():
                    blob = Descriptor.of_hash(file.data_hash, file.size)
                    files[blob.digest] = place
                if place.exists() or catalog.layout.exists(blob):
                    blobs[blob.digest] = blob
    if (key := ticket.attempt.code_state) in log.code_states:
        for digest, size in whole(log.code_states, key).bundles.values():
            blob = Descriptor.of_hash(digest, size)
            blobs[blob.digest] = blob
    return LetterContents(blobs, files)


def files_for(ticket: Ticket) -> list[CatalogEntry]:
    """Return the files of a ticket that its step may read: those that it gets, all where it does not say."""
    step, past = ticket.step, ticket.past
    visible = ticket.scope.entries().values()
    found = [
        it
        for it in visible
        if step.get is None
        or it.kind
        or any(may_name(pattern, it.name) for pattern in (*step.get, *(step.reads or ())))
    ]
    return [*found, *(_own_files(step, past) if past else ())]


def _own_files(step: Step, past: StepLog) -> Iterator[CatalogEntry]:
    """Yield what of its earlier attempts a step finds again."""
    if step.persist:
        yield from last_products(past)
    yield from kept_inputs(past)


def _objects(scope: Scope) -> Iterator[tuple[str, int]]:
    for one in scope.values().values():
        if one.kind == "object" and not one.items:
            yield one.data_hash, one.size or 0
        for item in one.items:
            if item.data_hash:
                yield item.data_hash, item.size
