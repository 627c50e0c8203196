"""Results of a run that other runs may take, as entries of an index: all that it needs to decide on one. Pure.

An entry says what an attempt read and gave, and which manifests hold its contents. A writer of the registry may write
any entry, so it is checked before it is used, and whether its result is taken is a matter of proof.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticSerializationError

from runnable_ci.errors import RunLogError
from runnable_ci.observe.reads import ReadSet, decode_reads
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.document import decode
from runnable_ci.runs.files.packs import PackIndex
from runnable_ci.runs.model import SUCCESS, Invocation, Parameter, RunLog, StepAttempt, StepLog
from runnable_ci.runs.remote.sound_log import require_sound
from runnable_ci.runs.remote.writers import Maker, makers_by_invocation
from runnable_ci.runs.reuse.results import results_of
from runnable_ci.runs.run_identity import run_identity
from runnable_ci.store.target import Descriptor
from runnable_ci.util.bounded_json import Record
from runnable_ci.util.text import unicode_of

ENTRY_MAX_BYTES = 256 * 1024
"""Of an entry without its reads; a larger one is left out, as it would take the room of hundreds."""
READS_MAX_BYTES = 256 * 1024
"""Of the reads in an entry; a larger document is fetched by who needs it."""
KEPT_BYTES = 16 * 1024 * 1024
"""Of all entries of an index; the oldest go first."""
HOLDERS_MAX = 3
PULL = "pull:"
DETACHED = "HEAD detached"
"""For the branch of code that was checked out without one: a job of a pull request has that."""
_PIPELINE_KEYS = ("pipeline_file", "pipeline_base", "pipeline_is_named")

ReadsOf = Callable[[StepAttempt], bytes | None]
"""Attempt → the document of what it read; None where that is not here."""
_Text = Annotated[str, Field(max_length=200)]


class ResultHolder(Record):
    """A published run that has the contents of a result."""

    manifest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    run_id: _Text = ""
    ended: Annotated[str, Field(pattern=r"^[0-9T:.+Z-]{0,40}$")] = ""


class ReuseEntry(Record):
    """The result of an attempt: what decides whether it may be taken, and where it is."""

    pipeline: _Text
    """Key of the pipeline, by `PipelineIdentity.key`."""
    step: Annotated[str, Field(max_length=1000)]
    """`STEP`, or `STEP.BRANCH.STEP`."""
    run_id: _Text
    """The run that made it first."""
    identity: _Text = ""
    """What tells that run from another one of its id."""
    attempt: int = 1
    ended: Annotated[str, Field(pattern=r"^[0-9T:.+Z-]{1,40}$")]
    inputs: _Text = ""
    """Digest of what it was made from: of results that were made from the same the newest is enough."""
    refs: list[_Text] = Field(default_factory=list, max_length=4)
    """Of its `maker`."""
    actor: _Text = ""
    workflow_run: _Text = ""
    held_by: list[ResultHolder] = Field(default_factory=list, max_length=HOLDERS_MAX)
    """Published runs that have its contents, the newest first."""
    reads: dict[str, Any] | None = None
    """The document of what the attempt read; None where it is too large to be here."""
    log: dict[str, Any] = Field(default_factory=dict)
    """The run's log with this attempt alone, unchecked: read it by `run_log`."""

    @property
    def maker(self) -> Maker:
        """Who made it, as far as is known."""
        return Maker(tuple(self.refs), self.actor, self.workflow_run, self.ended)

    @property
    def title(self) -> str:
        """`RUN_ID/STEP.ATTEMPT`: what a run that takes it records."""
        return f"{self.run_id}/{self.step}.{self.attempt}"

    def run_log(self) -> RunLog:
        """Return the log, checked as any that comes from elsewhere. Raises `RunLogError`."""
        where = f"the indexed result of {self.step[:100]}"
        log = decode(json.dumps(self.log).encode(), where=where)
        require_sound(log, {}, where)
        attempts = [attempt for step in log.steps.values() for attempt in step.attempts]
        if list(log.steps) != [self.step] or log.run_id != self.run_id or len(attempts) != 1:
            raise RunLogError(f"{where} is not one attempt at this step; it was not used")
        if attempts[0].taken_from != self.title or attempts[0].attempt_number != self.attempt:
            raise RunLogError(f"{where} is another attempt than it says; it was not used")
        return log

    def read_set(self) -> ReadSet | None:
        """Return what the attempt read; None where it is not here: `reads_blob` says where it is.

        Raises `RunLogError`.
        """
        if self.reads is None:
            return None
        return decode_reads(
            json.dumps(self.reads).encode(), where=f"in the indexed result of {self.step[:100]} `reads`"
        )


def reads_blob(log: RunLog) -> Descriptor:
    """Return what holds the reads of the one attempt in a log."""
    attempt = next(iter(log.steps.values())).attempts[-1]
    return PackIndex(log.packs).blob_of(attempt.reads, attempt.reads_size)


def entries_of(log: RunLog, *, manifest: str, reads_of: ReadsOf, is_here: bool = True) -> Iterator[ReuseEntry]:
    """Yield what other runs may take from a run that a manifest holds, the newest first, as much as an index keeps.

    These are results that were observed, and that the run made itself. Not those with a secret among them, nor with a
    file that was not stored, which nobody else could get. Of a run that `is_here` nor those whose reads are lost: where
    they are elsewhere, who looks at the result gets them from there.
    """
    pipeline = PipelineIdentity.recorded(log.name, log.run_config).key()
    mine = [key for key, step in log.steps.items() if _is_for_others(step)] if pipeline else []
    if not mine:
        return
    makers, packs, identity = makers_by_invocation(log), PackIndex(log.packs), run_identity(log)
    holder = ResultHolder(manifest=manifest, run_id=log.run_id, ended=log.end_time)
    left = KEPT_BYTES
    for key in sorted(mine, key=lambda key: log.steps[key].attempts[-1].end_time, reverse=True):
        attempt = log.steps[key].attempts[-1]
        document = reads_of(attempt)
        mini = _mini_log(log, key, packs)
        raw = _dumped(mini)
        size = len(json.dumps(raw))
        if (document is None and is_here) or size > ENTRY_MAX_BYTES:
            continue
        maker = makers.get(attempt.invocation, Maker())
        yield ReuseEntry(
            pipeline=pipeline,
            step=key,
            run_id=log.run_id,
            identity=identity,
            attempt=attempt.attempt_number,
            ended=attempt.end_time,
            inputs=_inputs(mini, attempt),
            refs=list(maker.refs),
            actor=maker.actor,
            workflow_run=maker.workflow_run,
            held_by=[holder],
            reads=json.loads(document) if document and len(document) <= READS_MAX_BYTES else None,
            log=raw,
        )
        left -= size
        if left < 0:
            return


def taken_by(log: RunLog) -> dict[str, str]:
    """Return step → `RUN_ID/STEP.ATTEMPT` of the results that a run took from others as they are."""
    last = {key: step.attempts[-1] for key, step in log.steps.items() if step.attempts and not step.mock}
    return {key: it.taken_from for key, it in last.items() if it.taken_from and not it.mock and it.status == SUCCESS}


def branch_of(refs: Sequence[str]) -> str:
    """Return in which branch's index a result belongs, by its maker's refs: where it ran; its pull request, if any.

    Whose code it was is for those to weigh who find it there. Empty for none: a tag, or code of no known branch.
    """
    pulls = [ref for ref in refs if ref.startswith(PULL)]
    if pulls or not refs:
        return pulls[0] if pulls else ""
    return "" if DETACHED in refs or refs[0].startswith("tag:") else refs[0]


def publishing_branch(log: RunLog, own: str) -> str:
    """Return to which branch's index a run is published; empty for none.

    `own` is the `ref_label` of the job that publishes it, empty outside of jobs: a job writes for itself alone.
    """
    refs = makers_by_invocation(log).get(log.invocation, Maker()).refs
    if own.startswith((PULL, "tag:")) or not refs:
        return own if not own.startswith("tag:") else ""
    found = branch_of(refs)
    if own:
        return own if found == own else ""
    return "" if found.startswith(PULL) else found


def _is_for_others(step: StepLog) -> bool:
    if step.mock or not step.attempts:
        return False
    last = step.attempts[-1]
    given = [*last.output_parameters.values(), *last.user_defined_metrics.values()]
    is_own = last.status == SUCCESS and not last.mock and not last.taken_from and bool(last.end_time)
    is_proof = not (use := last.checkpoint_used) or not (use.is_foreign or use.not_seen)
    is_whole = all(entry.has_content or entry.kind for entry in step.put_entries())
    is_secret = any(it.redacted for it in given)
    return is_own and bool(last.reads) and is_proof and is_whole and not is_secret


def _mini_log(log: RunLog, key: str, packs: PackIndex) -> RunLog:
    results = results_of(log, [key], packs)
    attempt = results.steps[key].attempts[-1]
    made_by = [it for it in log.invocations if it.number == attempt.invocation]
    return results.model_copy(
        update={
            "parameters": {},
            "run_config": {name: log.run_config[name] for name in _PIPELINE_KEYS if name in log.run_config},
            "invocations": [_slim(it) for it in made_by],
        }
    )


def _dumped(log: RunLog) -> dict[str, Any]:
    try:
        return log.model_dump(mode="json", exclude_defaults=True)
    except PydanticSerializationError:  # a file's name that is no text
        found: dict[str, Any] = unicode_of(log.model_dump(exclude_defaults=True))
        return found


def _slim(invocation: Invocation) -> Invocation:
    """Return an invocation as far as it says who made something, and when."""
    return invocation.model_copy(update={"decisions": {}, "parameters": {}, "redacted": [], "parents": None})


def _inputs(log: RunLog, attempt: StepAttempt) -> str:
    """Return a digest of what an attempt was made from: equal ones need no second place in an index."""
    machine = log.environments.get(attempt.environment)
    used = {name: _given(attempt.input_parameters.get(name)) for name in sorted(attempt.consumed)}
    where = [machine.os, machine.architecture, machine.interpreter_version] if machine else []
    made_from = [attempt.definition, attempt.function_hash, attempt.reach, attempt.reads, used, where]
    return hashlib.sha256(json.dumps(made_from, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _given(parameter: Parameter | None) -> Mapping[str, Any] | None:
    if parameter is None:
        return None
    return {"kind": parameter.kind, "value": parameter.data_hash or parameter.value_hash or parameter.value}
