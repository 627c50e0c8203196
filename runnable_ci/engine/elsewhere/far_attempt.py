"""One attempt on the far machine: the same worker and the same recorder as here, and a sealed fragment at its end."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from runnable_ci.engine.attempt import AttemptResult, ExecutionContext, run_attempt
from runnable_ci.engine.elsewhere.guard import end_earlier, set_aside_since, with_mark
from runnable_ci.engine.elsewhere.messages import MessageReporter
from runnable_ci.engine.elsewhere.tickets import Setting, Ticket, environ_there
from runnable_ci.engine.provenance.reads import ReadRecorder
from runnable_ci.engine.provenance.step_environments import StepEnvironments
from runnable_ci.engine.provenance.step_variables import ValueDigests, VariableRecorder
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.reporter import NoCommandFiles
from runnable_ci.engine.step_output import Masks
from runnable_ci.observe.observer import Observer
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.elsewhere.fragment import Fragment, seal
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.events import AttemptSaved, Event
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import CatalogEntry, Pack, RunLog, StepAttempt, StepLog
from runnable_ci.runs.paths import OUTPUTS, run_folder
from runnable_ci.runs.products.index import ProductsIndex
from runnable_ci.runs.products.step_products import Products, StepProducts
from runnable_ci.runs.reader import catalog_of
from runnable_ci.steps.containers.step_containers import StepContainers
from runnable_ci.store.local import Layout
from runnable_ci.util.files import temporary_folder
from runnable_ci.util.process import Supervisor
from runnable_ci.vcs.identity import Code

BESIDE: Final = "beside"
"""In place of the steps that run at the same time as one elsewhere: nobody there sees which these are."""
_RECORDED_LOOK_S: Final = 0.5
_Recorded = Callable[[], None]


class FarCheckpoints:
    """Has the checkpoints of an attempt recorded by the other side, and lets go of older ones once they are."""

    def __init__(self, folder: AttemptFolder, reporter: MessageReporter, attempt: StepAttempt) -> None:
        self._folder, self._reporter, self._attempt = folder, reporter, attempt
        self._waiting: dict[int, list[_Recorded]] = {}
        self._lock = threading.Lock()
        self._sent = 0

    def report(self, step: str, events: Callable[[RunLog, list[_Recorded]], list[Event]]) -> None:
        """Send what is to be recorded of an attempt that runs."""
        attempt = self._attempt.model_copy()
        log = RunLog(run_id="", steps={step: StepLog(name=step, internal_name=step, attempts=[attempt])})
        done: list[_Recorded] = []
        for event in events(log, done):
            if isinstance(event, AttemptSaved) and event.attempt.checkpoint:
                with self._lock:
                    self._sent += 1
                    self._waiting[self._sent] = done
                made = event.attempt.checkpoint.model_dump(mode="json")
                self._reporter.send("checkpoint", checkpoint=made, number=self._sent)

    def look(self) -> None:
        """Let go of what is needed no more since the other side has recorded it."""
        recorded = self._folder.noted("recorded").get("number", 0)
        with self._lock:
            done = [each for number, them in self._waiting.items() if number <= recorded for each in them]
            self._waiting = {number: them for number, them in self._waiting.items() if number > recorded}
        for each in done:
            each()


def environments_of(setting: Setting, environ: Mapping[str, str]) -> StepEnvironments:
    """Return what describes the environments of steps on this machine: it asks each interpreter once."""
    there = environ_there(setting.environ, environ)
    return StepEnvironments(setting.interpreter, setting.workspace, there, with_machine=True)


def run_far(
    setting: Setting,
    ticket: Ticket,
    folder: AttemptFolder,
    supervisor: Supervisor,
    environ: Mapping[str, str],
    environments: StepEnvironments,
    *,
    end: Callable[[], bool],
    is_shared: bool = True,
) -> None:
    """Run an attempt, and seal its fragment, unless the other side has given it up meanwhile.

    `environ` are the variables of this machine; `end` says that the attempt is over, and returns whether it counts. The
    workspace is that of earlier attempts where it `is_shared`.
    """
    left_since = end_earlier(setting.run_id, ticket)
    layout, reporter = Layout(setting.store), MessageReporter(folder.messages)
    with closing(reporter), temporary_folder(layout.temporaries) as scratch:
        redactor = Redactor(setting.secrets | ticket.secrets)
        there = environ_there(setting.environ, environ)
        log = RunLog(run_id=setting.run_id, packs=dict(ticket.packs))
        around = Path(setting.around) if setting.around else None
        with closing(Observer(setting.workspace, scratch / "watched", around)) as observer:
            catalog = _catalog(setting, layout, log, there)
            containers = _containers(setting, ticket, layout, there, reporter)
            reads = _reads(setting, ticket, catalog, observer, redactor, containers)
            marked = with_mark(there, setting.run_id, ticket)
            context = _context(setting, catalog, supervisor, reporter, reads, redactor, marked, scratch, folder)
            context = replace(context, containers=containers)
            checkpoints = FarCheckpoints(folder, reporter, ticket.attempt)
            context.products.report = checkpoints.report
            context.products.edited = set(ticket.edited)
            products = context.products.attempt(ticket.step, ticket.attempt.attempt_number, ticket.past)
            if left_since and is_shared:
                set_aside_since(products, left_since)
            if ticket.beside is not None:
                observer.begin(BESIDE)
            with Repeating(checkpoints.look, every_s=_RECORDED_LOOK_S):
                result = run_attempt(products, ticket.attempt, ticket.scope, context)
            if result.pending:
                result.attempt = result.attempt.model_copy(update=result.pending.finish()._asdict())
            environment = None
            with suppress(OSError):  # what cannot be recorded stops no run
                # Within the block, so that attempts beside this one hear what is looked at for it.
                environment = environments.of(ticket.step, containers)
        if end():
            seal(_fragment(result, environment), folder.fragment, through=layout.temporaries)


def _catalog(setting: Setting, layout: Layout, log: RunLog, environ: Mapping[str, str]) -> Catalog:
    tracked = Code(setting.workspace, environ=environ).tracked

    return catalog_of(
        layout,
        log,
        setting.workspace,
        is_tracked=tracked.tracks,
        is_committed=tracked.is_committed,
        products=ProductsIndex(layout),
    )


def _fragment(result: AttemptResult, environment: Environment | None) -> Fragment:
    return Fragment(
        step=result.step.name,
        attempt=result.attempt,
        data_catalog=result.entries,
        packs=result.packs,
        environment=environment,
        seconds=result.seconds,
        host=socket.gethostname(),
        is_started=result.products.is_started,
    )


def _context(
    setting: Setting,
    catalog: Catalog,
    supervisor: Supervisor,
    reporter: MessageReporter,
    reads: ReadRecorder,
    redactor: Redactor,
    environ: Mapping[str, str],
    scratch: Path,
    folder: AttemptFolder,
) -> ExecutionContext:
    return ExecutionContext(
        catalog=catalog,
        supervisor=supervisor,
        printer=reporter,
        environ=environ,
        interpreter=setting.interpreter,
        outputs=reads.folder,
        scratch=scratch,
        processes=folder.processes,
        command_files=NoCommandFiles(),
        masks=Masks(redactor, reporter),
        products=Products(catalog, setting.invocation, reporter.say),
        reads=reads,
        secret_names=setting.secret_names,
        restore=lambda: None,
        stand_in=_no_stand_in,
    )


def _reads(
    setting: Setting,
    ticket: Ticket,
    catalog: Catalog,
    observer: Observer,
    redactor: Redactor,
    containers: StepContainers | None,
) -> ReadRecorder:
    step = ticket.step._replace(needs=())
    steps = {step.name: step}
    if ticket.beside is not None:
        steps[BESIDE] = step._replace(name=BESIDE, put=ticket.beside, checkpoint=())
    digests = ValueDigests(redactor, setting.secret_names, setting.reuse_key)
    # Variables count as the run's own machine has them: what a scheduler sets for a job differs each time.
    passed = containers.passed if containers else None
    variables = VariableRecorder(setting.environ, setting.workspace, digests, passed)
    return ReadRecorder(
        Pipeline(name="", file="", python=None, parameters={}, steps=steps),
        observer,
        catalog,
        run_folder(catalog.layout, setting.run_id) / OUTPUTS,
        variables,
        RunProducts({BESIDE: dict.fromkeys(ticket.hidden, "")}, is_tracked=catalog.is_tracked),
    )


def _containers(
    setting: Setting, ticket: Ticket, layout: Layout, environ: Mapping[str, str], reporter: MessageReporter
) -> StepContainers | None:
    known = setting.containers
    if ticket.step.container is None or known is None:
        return None
    return StepContainers(
        workspace=setting.workspace,
        shared=known.shared,
        temporaries=layout.temporaries,
        environ=environ,
        secrets=known.secrets,
        python=known.python,
        say=reporter.say,
        chosen=known.chosen,
        resolved=dict(ticket.images),
    )


def _no_stand_in(_products: StepProducts, _attempt: StepAttempt) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    raise AssertionError  # what is mocked is not sent elsewhere


class Repeating:
    """Calls something each moment, in a thread of its own, while the block runs."""

    def __init__(self, look: Callable[[], None], *, every_s: float) -> None:
        self._look, self._every_s = look, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="look", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._over.wait(self._every_s):
            self._look()
