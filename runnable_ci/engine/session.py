"""One invocation of a run: what `run` and `retry` have in common, from the project to the sealed artifact."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.code import untracked
from runnable_ci.engine.code.code_recorder import CodeRecorder
from runnable_ci.engine.options import Options, redacting_errors, redactor_of, secret_names
from runnable_ci.engine.planner import PlanInputs, PlanState, Scope
from runnable_ci.engine.provenance.reads import ReadRecorder
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.runner import Run
from runnable_ci.engine.step_output import Masks
from runnable_ci.observe.observer import Observer
from runnable_ci.pipeline import command_line
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.workspace_lock import hold_workspace
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.code_states import unpublished
from runnable_ci.runs.events import EnvironmentRecorded, Started
from runnable_ci.runs.model import SUCCESS, Environment, Invocation, RunLog
from runnable_ci.runs.products.index import ProductsIndex
from runnable_ci.runs.products.recovery import Recovery
from runnable_ci.runs.products.step_products import Products
from runnable_ci.runs.reader import catalog_of, products_of
from runnable_ci.runs.recorder import Recorder
from runnable_ci.steps.interpreter import check_interpreter, describe, key_of
from runnable_ci.util.clock import now
from runnable_ci.util.process import Supervisor
from runnable_ci.util.signals import cancelling
from runnable_ci.util.threads import start
from runnable_ci.vcs.actor import find_actor
from runnable_ci.vcs.git_files import repository_root
from runnable_ci.vcs.identity import Code
from runnable_ci.version import VERSION


@dataclass(frozen=True, slots=True)
class RunSession:
    """A project and what its pipeline runs with here."""

    project: Project
    options: Options
    interpreter: str
    """What runs the python steps."""
    code: Code
    products: ProductsIndex
    """Which files here steps made."""

    @classmethod
    def of(cls, project: Project, options: Options) -> RunSession:
        """Prepare a session. Raises `PipelineError` for an interpreter that cannot be used."""
        interpreter = check_interpreter(project.pipeline, project.workspace, options.environ)
        products = products_of(project.layout)
        return cls(project, options, interpreter, code_of(project, products, options.environ), products)

    @contextmanager
    def in_workspace(self, run_id: str, command: Literal["run", "retry"]) -> Iterator[RunSession]:
        """Keep other runs out of the workspace in the block; yield the session for it.

        Raises `UsageError` where another run works there.
        """
        options = self.options
        with hold_workspace(
            self.project.layout,
            run_id,
            command,
            environ=options.environ,
            wait_s=options.wait_s,
            say=options.printer.say,
        ) as environ:
            yield replace(self, options=replace(options, environ=environ))

    def redactor(self, parameters: Mapping[str, Any]) -> Redactor:
        """Return what knows all secrets of an invocation with these parameters."""
        return redactor_of(self.project.pipeline, parameters, self.options)

    def catalog(self, log: RunLog) -> Catalog:
        """Return the files of a run, to and from the workspace."""
        layout, workspace = self.project.layout, self.project.workspace
        return catalog_of(layout, log, workspace, is_tracked=self.code.tracks, products=self.products)

    def recover(self) -> None:
        """Undo in the workspace what processes did that were killed."""
        Recovery(self.project.pipeline, self.project.layout, self.catalog, self.options.printer.say).recover()

    def started(
        self,
        log: RunLog,
        command: Literal["run", "retry"],
        parameters: Mapping[str, Any],
        *,
        pipeline_identity: PipelineIdentity,
        run_identity: str = "",
        tag: str = "",
    ) -> Started:
        """Return the event that begins an invocation, on what the log says before it."""
        return Started(
            run_id=log.run_id,
            name=pipeline_identity.name,
            tag=tag,
            dag_hash=self.project.pipeline.dag_hash(),
            run_config={**log.run_config, **pipeline_identity.config()},
            invocation=Invocation(
                number=log.invocation + 1,
                command=command,
                start_time=now(),
                parameters=dict(parameters),
                identity=run_identity,
                actor=find_actor(self.project.workspace, self.options.environ),
            ),
        )

    def run(
        self,
        recorder: Recorder,
        catalog: Catalog,
        *,
        parameters: Mapping[str, Any],
        inputs: PlanInputs,
        products: RunProducts | None = None,
        retry_options: Sequence[str] = (),
    ) -> int:
        """Run the pipeline on an open run, seal it and say how it ended; the exit code.

        `parameters` are those of the run as they really are: the log may have masks in their place. The command that
        resumes the run needs `retry_options`.
        """
        probe = EnvironmentProbe(self.interpreter, self.project.workspace, self.options.environ)
        supervisor = Supervisor()
        workspace = self.project.workspace
        around = repository_root(workspace, self.options.environ)
        observer = Observer(workspace, recorder.scratch / "watched", around)
        catalog.files.open_file = observer.open
        reads = ReadRecorder(
            self.project.pipeline,
            observer,
            catalog,
            recorder.outputs,
            products or RunProducts(is_tracked=catalog.is_tracked),
        )
        state = PlanState(self.project.pipeline, inputs, Scope.initial(parameters))
        run = self._loop(recorder, self._context(recorder, catalog, supervisor, reads), state, probe)
        printer = self.options.printer
        with redacting_errors(recorder.redactor), closing(observer), closing(supervisor), cancelling(supervisor.cancel):
            try:
                status = run.execute()
            finally:
                printer.end()
            recorder.seal(catalog)
            catalog.remember_hashes()
        for note in untracked.notes(recorder.log, invocation=recorder.log.invocation):
            printer.say(note)
        code = recorder.log.code()
        if code and code.code_identifier_url and (warning := unpublished(recorder.log)):
            printer.say(f"warning: {warning}")
        printer.annotate(recorder.log, self.project.workspace, self.project.file)
        printer.say(*closing_lines(recorder.log, self.project, retry_options))
        if supervisor.cancelled_by:
            return 128 + supervisor.cancelled_by
        return 0 if status == SUCCESS else 1

    def _context(
        self, recorder: Recorder, catalog: Catalog, supervisor: Supervisor, reads: ReadRecorder
    ) -> ExecutionContext:
        return ExecutionContext(
            catalog=catalog,
            supervisor=supervisor,
            printer=self.options.printer,
            environ={**self.options.environ, "RUNNABLE_RUN_ID": recorder.log.run_id},
            interpreter=self.interpreter,
            outputs=recorder.outputs,
            scratch=recorder.scratch,
            processes=recorder.processes,
            command_files=self.options.command_files,
            masks=Masks(recorder.redactor, self.options.printer),
            products=Products(catalog, recorder.log.invocation, self.options.printer.say),
            reads=reads,
            secret_names={name.upper() for name in secret_names(self.project.pipeline, self.options)},
        )

    def _loop(self, recorder: Recorder, context: ExecutionContext, state: PlanState, probe: EnvironmentProbe) -> Run:
        options = self.options
        return Run(
            pipeline=self.project.pipeline,
            recorder=recorder,
            context=context,
            code=CodeRecorder(
                code=self.code,
                recorder=recorder,
                environ=options.environ,
                image=options.settings.container_image_digest,
                untracked=untracked.rule(self.project, options.settings, is_public=options.is_public),
            ),
            environment=lambda: probe.record(recorder),
            printer=options.printer,
            jobs=options.jobs or os.cpu_count() or 1,
            state=state,
        )


def code_of(project: Project, products: ProductsIndex, environ: Mapping[str, str]) -> Code:
    """Return the code of a project: what its steps made never counts as a change.

    What earlier versions called a product, though a person may have made it, is one only where git does not track it.
    """

    def is_generated(path: str, sha256: str) -> bool:
        product = products.lookup(path, sha256)
        return product is not None and (product.observed or code.tracks(path) is False)

    code = Code(project.workspace, is_generated=is_generated, environ=environ)
    return code


def closing_lines(log: RunLog, project: Project, retry_options: Sequence[str] = ()) -> list[str]:
    """Return how a run ended, and what to do next; a retry needs these options too."""
    metrics = "".join(f", {name} = {value}" for name, value in log.metrics().items())
    if log.status != SUCCESS:
        hint = command_line.retry(log.run_id, project.file, project.layout, *retry_options)
        return [f"run {log.run_id}: {log.status}, {log.message}{metrics}", f"hint: {hint}"]
    return [f"run {log.run_id}: {log.status}{metrics}"]


class EnvironmentProbe:
    """Describes the environment in a thread, where there is one: the first step need not wait for it."""

    def __init__(self, interpreter: str, workspace: Path, environ: Mapping[str, str]) -> None:
        self._environment = Environment()
        self._key = ""

        def look() -> None:
            self._environment = describe(interpreter, workspace, environ, tool_version=VERSION)

        self._thread = start(look, name="environment")
        if self._thread is None:
            look()

    def record(self, recorder: Recorder) -> str:
        """Return the key of the environment, which the run log has from now on."""
        if self._thread is not None:
            self._thread.join()
        self._key = self._key or key_of(self._environment)
        if self._key not in recorder.log.environments:
            recorder.record(EnvironmentRecorded(key=self._key, environment=self._environment))
        return self._key
