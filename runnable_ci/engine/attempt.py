"""One attempt at a step: its files, its process, what it returned. Runs in a thread of its own, records nothing."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runnable_ci import steps
from runnable_ci.engine.planner import Scope
from runnable_ci.engine.provenance.pending_reads import PendingReads
from runnable_ci.engine.provenance.reads import ReadRecorder
from runnable_ci.engine.reporter import CommandFiles, Reporter
from runnable_ci.engine.step_output import VARIABLE, Masks, StepOutput, failing
from runnable_ci.errors import StepError
from runnable_ci.observe.observer import BYTECODE_ELSEWHERE, Sight
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import Event
from runnable_ci.runs.model import SUCCESS, CatalogEntry, Pack, Parameter, RunOutcome, StepAttempt
from runnable_ci.runs.orphans import end_container, new_mark, record_container, record_pid
from runnable_ci.runs.products.step_products import Products, StepProducts
from runnable_ci.steps.base import ProcessSpec, StepContext, StepResult
from runnable_ci.store.target import Descriptor
from runnable_ci.util.clock import now
from runnable_ci.util.leftovers import VARIABLE as MARKS
from runnable_ci.util.process import Exit, Supervisor, oom_kills
from runnable_ci.util.text import printable

if TYPE_CHECKING:
    from runnable_ci.engine.outliving.time_budget import TimeBudget
    from runnable_ci.engine.reuse.taken_results import TakenResults
    from runnable_ci.steps.containers.step_containers import StepContainers


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ExecutionContext:
    """What all attempts of an invocation share."""

    catalog: Catalog
    supervisor: Supervisor
    printer: Reporter
    environ: Mapping[str, str]
    interpreter: str
    outputs: Path
    """The folder that keeps the attempts' output until the run is sealed."""
    scratch: Path
    """A folder for the attempts' own folders."""
    processes: Path
    """Where the steps' processes are noted."""
    command_files: CommandFiles
    """What the steps write for GitHub's runner."""
    masks: Masks
    products: Products
    """What the steps made before, and make."""
    reads: ReadRecorder
    """Sees what the attempts read."""
    secret_names: Collection[str]
    """Parameters that are secret whatever their value, in capital letters."""
    restore: Callable[[], list[str] | None]
    """Makes a store again that was removed; None where it was not, else what steps stored and is lost."""
    stand_in: Callable[[StepProducts, StepAttempt], tuple[list[CatalogEntry], dict[str, Pack]]]
    """Gives what a mocked step gives, without running anything."""
    containers: StepContainers | None = None
    """Runs the steps that have a container."""
    taken: TakenResults | None = None
    """Has what steps gave in other runs."""
    budget: TimeBudget | None = None
    """The time that all of it may take."""
    is_cancelled: bool = False
    """Whether the run was cancelled before: what begins nevertheless runs until a second signal."""

    @property
    def redactor(self) -> Redactor:
        """Knows all secrets, also those that were masked since."""
        return self.masks.redactor


@dataclass(slots=True, eq=False, repr=False)
class AttemptResult:
    """A finished attempt, to be recorded."""

    step: Step
    attempt: StepAttempt
    products: StepProducts
    entries: list[CatalogEntry] = field(default_factory=list)
    packs: dict[str, Pack] = field(default_factory=dict)
    seconds: float = 0.0
    learned: int = 0
    """How much the redactor had learned when the output was kept."""
    pending: PendingReads | None = None
    """What it read that is still to be hashed."""
    oom_kills: int = 0  # of the system, when it began
    is_refused: bool = False
    """It failed before it began, and would again."""
    events: list[Event] = field(default_factory=list)
    """What is to be recorded before it."""
    is_attached: bool = False
    """An earlier invocation began it, elsewhere: what it is worth is decided once it is recorded."""
    forget: Callable[[], None] = lambda: None
    """Drops what was kept of it until it is recorded."""


def run_attempt(
    products: StepProducts,
    begun: StepAttempt,
    scope: Scope,
    context: ExecutionContext,
    *,
    refusal: StepError | None = None,
) -> AttemptResult:
    """Do what a step says. A failure of the step is a finished attempt too; only our own failures raise.

    With a `refusal` the attempt fails by that, and nothing is done.
    """
    start_s = time.monotonic()
    done = AttemptResult(products.step, begun.model_copy(), products, is_refused=refusal is not None)
    attempt, scratch = done.attempt, context.scratch / products.title
    show = partial(context.printer.output, done.step.shown)
    with failing(attempt, context.redactor, show):
        if products.step.mock == "nothing":
            done.entries, done.packs = context.stand_in(products, attempt)
        else:
            _run_with_output(done, scope, scratch, context, refusal)
    if attempt.status != SUCCESS:
        with failing(attempt, context.redactor, show):
            failed, packs = products.fail()
            done.entries, done.packs = [*done.entries, *failed], done.packs | packs
    clean = context.redactor.text
    for note in context.command_files.forward(scratch, succeeded=attempt.status == SUCCESS, clean=clean):
        context.printer.say(f"note: {note}", step=done.step.shown)
    shutil.rmtree(scratch, ignore_errors=True)
    attempt.end_time = now()
    done.seconds = time.monotonic() - start_s
    return done


def _run_with_output(
    done: AttemptResult, scope: Scope, scratch: Path, context: ExecutionContext, refusal: StepError | None
) -> None:
    """Run the step in its folder, and keep what it writes."""
    step, title = done.step, done.products.title
    scratch.mkdir(mode=0o700)
    output = StepOutput(
        step.shown, title, folder=context.outputs, scratch=scratch, masks=context.masks, printer=context.printer
    )
    step_context = _step_context(scope, scratch, output, context)
    try:
        with failing(done.attempt, context.redactor, output.write):
            if refusal is not None:
                raise refusal
            _execute(done, scope, step_context, output, context)
    finally:
        done.attempt.log = output.close()
        done.learned = output.learned
    if done.attempt.status != SUCCESS and done.products.is_started:
        from runnable_ci.engine.attempts.failed import keep_partial_output

        keep_partial_output(step, done.attempt, step_context, context.masks, context.secret_names)


def _step_context(scope: Scope, scratch: Path, output: StepOutput, context: ExecutionContext) -> StepContext:
    return StepContext(
        workspace=context.catalog.workspace,
        scratch=scratch,
        environ={**context.environ, **context.command_files.create(scratch), VARIABLE: str(output.mask_file)},
        interpreter=context.interpreter,
        parameters={name: parameter for name, parameter in scope.values().items() if not parameter.redacted},
        blob=lambda p: context.catalog.layout.path(Descriptor.of_hash(p.data_hash, p.size or 0)),
        containers=context.containers,
    )


def _execute(
    done: AttemptResult, scope: Scope, step_context: StepContext, output: StepOutput, context: ExecutionContext
) -> None:
    """Run the step and fill in the attempt; `StepError` where it cannot run, or has not done what it declares."""
    step, products = done.step, done.products
    if lost := steps.missing_secret(step, context.catalog.workspace, scope.values()):
        raise StepError(
            f"parameter `{lost}` is a secret: its value is not in the run log",
            hint="it is known where the step that returns it runs in the same invocation",
        )
    if context.taken is not None:
        context.taken.bring(step, scope)
    products.prepare()
    if step.get:
        from runnable_ci.engine.provenance.received_files import receive_files  # many steps get none

        done.entries = receive_files(step, scope, context.catalog, context.printer.say)
    done.attempt.function_hash = steps.code_hash(step, context.catalog.workspace)
    process = steps.prepare(step, step_context)
    done.attempt.input_parameters = {name: step_context.parameters[name] for name in process.given}
    for note in process.notes:
        context.printer.say(f"note: {note}", step=step.shown)
    declared = context.reads.declared(step, scope)
    for pattern in step.reads or ():
        if not any(may_name(pattern, name) for name in declared):
            context.printer.say(f"note: `reads` has {pattern}, which matches no file", step=step.shown)
    products.look(done.entries)
    if step.checkpoint:
        from runnable_ci.engine.checkpoints.step_checkpoint import begin_checkpoint  # few steps keep any

        products.checkpoint = begin_checkpoint(products, done.attempt, context.supervisor)
    done.oom_kills = oom_kills()
    ended, sight = _run_process(process, products, output, context)
    result = StepResult()
    try:
        result = _collect(step, ended, step_context)
        _take_results(done, result, ended, step_context, context)
    finally:
        if process.env.get(BYTECODE_ELSEWHERE) and not (result.report and result.report.is_complete):
            sight = sight._replace(trace=None, reason=f"{BYTECODE_ELSEWHERE} hides which modules Python loads")
        done.pending = context.reads.record(
            step, done.attempt, done.entries, scope, sight, result.report, context.redactor, declared
        )
        if result.report is not None:
            from runnable_ci.engine.provenance.foreign_code import note_foreign_code

            if note := note_foreign_code(
                done.attempt,
                step,
                result.report,
                context.catalog,
                context.environ,
                context.reads.foreign,
                context.redactor,
            ):
                context.printer.say(note, step=step.shown)


def _run_process(
    process: ProcessSpec, products: StepProducts, output: StepOutput, context: ExecutionContext
) -> tuple[Exit, Sight]:
    """Run a step's process to its end, and take all that it writes; how it ended, and what was seen of it."""

    def started(pid: int) -> None:
        products.start(pid)
        record_pid(context.processes, pid)

    step, observer = products.step, context.reads.observer
    # What runs in a container ends with it; what its engine leaves to tidy up after it must not be ended.
    mark = "" if step.background or process.container else new_mark(context.processes)
    marks = [*filter(None, [process.env.get(MARKS), mark])]
    record_container(context.processes, process.container)
    observer.begin(step.name)
    ended = None
    try:
        ended = context.supervisor.run(
            process.argv,
            cwd=process.cwd,
            env={**process.env, MARKS: ",".join(marks)} if marks else process.env,
            output=output.write,
            settle=output.settle,
            started=started,
            timeout_s=step.timeout_s,
            mark=mark,
            though_cancelled=context.is_cancelled,
        )
        lost = context.restore()  # what follows must be kept, also where the step removed the store
        (context.scratch / products.title).mkdir(mode=0o700, exist_ok=True)
        if lost is not None:
            from runnable_ci.runs.products.lost import require_no_loss, restored_note

            require_no_loss(lost, context.catalog.layout)
            context.printer.say(restored_note(context.catalog.layout), step=step.shown)
        output.flush()
    finally:
        end_container(process.container, ended, environ=process.env)
        sight = observer.end(step.name)
        if reason := process.not_seen():
            sight = sight._replace(trace=None, reason=reason)
        products.sight = sight
    if names := [f"`{context.redactor.text(printable(process.name))}`" for process in ended.ended]:
        context.printer.say(f"ended {', '.join(dict.fromkeys(names))}, which step `{step.shown}` left running")
    return ended, sight


def _collect(step: Step, ended: Exit, step_context: StepContext) -> StepResult:
    """Return the result of a step; an empty one where it failed before it could leave one."""
    if step.kind == "run" and ended.code:
        return StepResult()
    try:
        return steps.collect(step, step_context)
    except StepError:
        if _outcome(ended) == "succeeded":
            raise
        return StepResult()


def _take_results(
    done: AttemptResult, returned: StepResult, ended: Exit, step_context: StepContext, context: ExecutionContext
) -> None:
    """Fill in the attempt from how its process ended and what it left."""
    step, attempt = done.step, done.attempt
    attempt.exit_code = ended.code
    outcome = _outcome(ended)
    secret = [value for name, value in returned.values.items() if name.upper() in context.secret_names]
    context.masks.learn(texts(secret))
    if step.kind == "notebook":
        from runnable_ci.steps.notebook.executed import keep_executed

        keep_executed(step, step_context, context.redactor.text)
    attempt.consumed = dict.fromkeys(returned.consumed, "seen")
    attempt.defaulted = list(returned.defaulted)
    attempt.modules = {
        name: context.catalog.files.hash_of_loaded(name, seen) for name, seen in returned.modules.items()
    }
    if returned.exception:
        from runnable_ci.runs.event_redaction import redact_exception

        attempt.exception = redact_exception(returned.exception, context.redactor)
    match outcome:
        case "cancelled":
            is_in_time = context.budget is not None and context.budget.is_ending
            attempt.end(outcome, f"cancelled: {context.budget} was over" if is_in_time else "cancelled")
            return
        case "timed_out":
            attempt.end(outcome, f"timed out after {(step.timeout_s or 0) / 60:g} min")
            return
        case _ if returned.problem or ended.code:
            from runnable_ci.engine.attempts.failed import fail

            lacked = oom_kills() > done.oom_kills
            fail(step, attempt, returned, ended, step_context, context.masks, is_out_of_memory=lacked)
            return
    if returned.undeclared:
        names = context.redactor.text(", ".join(f"`{name}`" for name in returned.undeclared))
        context.printer.say(f"note: ignored, `returns` does not declare it: {names}", step=step.shown)
    for name, kind in step.returns.items():
        if kind == "object":
            path, object_type = returned.objects[name]
            stored = context.catalog.layout.move_file_in(path)
            attempt.output_parameters[name] = Parameter.of_object(
                name, data_hash=stored.hex, size=stored.size, object_type=object_type
            )
        elif kind == "metric":
            attempt.user_defined_metrics[name] = Parameter.of_json(returned.values[name], "metric")
        else:
            attempt.output_parameters[name] = Parameter.of_json(returned.values[name])
    if step.in_matrix:
        for parameter in (attempt.output_parameters | attempt.user_defined_metrics).values():
            parameter.reduced = False  # what the reference system says of an item of a list
    if step.metrics:
        from runnable_ci.pipeline.values.metrics_file import take_metrics

        for note in take_metrics(step.metrics, context.catalog.workspace, attempt.file_metrics):
            context.printer.say(context.redactor.text(note), step=step.shown)
    done.entries, done.packs = done.products.succeed(done.entries)
    attempt.end("succeeded")


def _outcome(ended: Exit) -> RunOutcome:
    """Return how an attempt ended, as far as its process tells."""
    if ended.cancelled:
        return "cancelled"
    if ended.timed_out:
        return "timed_out"
    return "failed" if ended.code else "succeeded"
