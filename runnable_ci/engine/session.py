"""What `run` and `retry` have in common before any step runs: the project, its code, and the start of an invocation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from runnable_ci.config import LOG_LEVEL, LogLevel
from runnable_ci.engine.code.generated import code_of
from runnable_ci.engine.options import Options, redactor_of
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.workspace_lock import hold_workspace
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import Started
from runnable_ci.runs.model import Invocation, RunLog
from runnable_ci.runs.paths import ELSEWHERE
from runnable_ci.runs.products.index import ProductsIndex
from runnable_ci.runs.products.unfinished import unfinished
from runnable_ci.runs.reader import catalog_of, products_of
from runnable_ci.runs.run_identity import heads
from runnable_ci.steps.interpreter import check_interpreter
from runnable_ci.util.clock import now
from runnable_ci.util.console import is_actions
from runnable_ci.vcs.actor import find_actor
from runnable_ci.vcs.identity import Code

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RunSession:
    """A project and what its pipeline runs with here."""

    project: Project
    options: Options
    interpreter: str
    """What runs the python steps."""
    code: Code
    products: ProductsIndex
    """Which files here steps made."""
    is_elsewhere: bool = False
    """Whether the workspace is a fresh clone: files that git does not track may only not have come along."""

    @classmethod
    def of(cls, project: Project, options: Options) -> RunSession:
        """Prepare a session. Raises `PipelineError` for an interpreter that cannot be used.

        `UsageError` for an executor that the pipeline does not have.
        """
        if options.executor is not None:
            from runnable_ci.pipeline.keys.executor_choice import on_executor  # most runs leave it to the steps

            project = replace(project, pipeline=on_executor(project.pipeline, options.executor))
        interpreter = check_interpreter(project.pipeline, project.workspace, options.environ, options.printer.say)
        products = products_of(project.layout)
        return cls(project, options, interpreter, code_of(project, products, options.environ), products)

    def with_pipeline(self, pipeline: Pipeline) -> RunSession:
        """Return the session with another pipeline in the project, such as a part of its own."""
        if pipeline is self.project.pipeline:
            return self
        return replace(self, project=replace(self.project, pipeline=pipeline))

    @contextmanager
    def at_commit(self, commit: str) -> Iterator[RunSession]:
        """Yield the session with the project as a commit has it, as on another machine: to plan in the block.

        Raises `CodeIdentityError` where that is not known here.
        """
        from runnable_ci.engine.code.at_commit import project_at  # nothing but `dispatch` needs it

        environ = self.options.environ
        with project_at(self.project, commit, environ) as project:
            code = code_of(project, self.products, environ)
            yield replace(self, project=project, code=code, is_elsewhere=True)

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
            is_outermost = environ is not options.environ  # else a step of the run that holds it began this one
            if is_outermost and (self.project.layout.folder / ELSEWHERE).is_dir():
                from runnable_ci.runs.elsewhere.left_there import require_free_of_others  # few projects have such steps

                require_free_of_others(self.project.layout, run_id)
            yield replace(self, options=replace(options, environ=environ))

    def redactor(self, parameters: Mapping[str, Any]) -> Redactor:
        """Return what knows all secrets of an invocation with these parameters."""
        return redactor_of(self.project.pipeline, parameters, self.options)

    def catalog(self, log: RunLog) -> Catalog:
        """Return the files of a run, to and from the workspace."""
        return catalog_of(
            self.project.layout,
            log,
            self.project.workspace,
            is_tracked=self.code.tracked.tracks,
            is_committed=self.code.tracked.is_committed,
            products=self.products,
        )

    def containers(self, log: RunLog, *, look_again: bool = False) -> StepContainers | None:
        """Return what runs the steps that have a container, None where none has; nothing is looked for yet."""
        if not any(step.container for step in self.project.pipeline.outlined().steps.values()):
            return None
        from runnable_ci.engine.code.container_images import open_containers  # few pipelines need it

        return open_containers(self.project, self.options, log, look_again=look_again)

    def recover(self) -> bool:
        """Undo in the workspace what processes did that were killed; whether there was something to undo."""
        if not unfinished(self.project.layout):
            return False
        from runnable_ci.runs.products.recovery import Recovery  # nearly always there is nothing to recover

        Recovery(self.project.pipeline, self.project.layout, self.catalog, self.options.printer.say).recover()
        return True

    def started(
        self,
        log: RunLog,
        command: Literal["run", "retry"],
        parameters: Mapping[str, Any],
        *,
        pipeline_identity: PipelineIdentity,
        tag: str = "",
    ) -> Started:
        """Return the event that begins an invocation, on what the log says before it."""
        environ = self.options.environ
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
                log_level=self._log_level(log),
                identity=os.urandom(16).hex(),
                parents=heads(log.invocations),
                actor=find_actor(environ, self.code.user_name),
                workflow_run=environ.get("GITHUB_RUN_ID", "") if is_actions(environ) else "",
            ),
        )

    def _log_level(self, log: RunLog) -> str:
        """Return what steps are asked to log: by the option, else as before, by the file, or by the environment."""
        places = [
            self.options.log_level,
            log.invocations[-1].log_level if log.invocations else "",
            self.project.pipeline.log_level,
            self.options.environ.get(LOG_LEVEL, "").lower(),
        ]
        return next((level for level in places if level in get_args(LogLevel)), "") or ""
