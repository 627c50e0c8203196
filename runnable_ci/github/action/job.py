"""One use of the action in a job, and its connection to the runner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from runnable_ci.config import Settings
from runnable_ci.config import load as load_settings
from runnable_ci.config.environment import Inputs, read_inputs
from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.github import commands as workflow
from runnable_ci.github.action.use import Use, workflow_file
from runnable_ci.github.commands import Annotation
from runnable_ci.github.job import Context
from runnable_ci.pipeline.project import find_file, find_store, registry_of
from runnable_ci.redaction.environment import secrets_of
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.remote.pull import read_origin
from runnable_ci.runs.remote.registry_config import PULL_REQUESTS, REF_VARIABLES, Registries
from runnable_ci.store.local import Layout
from runnable_ci.store.opening import open_store
from runnable_ci.store.registry import Registry
from runnable_ci.util.console import console
from runnable_ci.util.shell_command import command


@dataclass(frozen=True)
class Job:
    """One use of the action in a job."""

    context: Context
    inputs: Inputs
    settings: Settings
    environ: Mapping[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Job:
        """Read the job from its environment. Raises `UsageError` outside GitHub Actions and for invalid inputs."""
        context = Context.of(environ)
        if context is None:
            raise UsageError("`action` works only in GitHub Actions", hint=f"use instead: {command('run')}")
        return cls(context, read_inputs(environ), load_settings(environ), environ)

    def with_pipeline(self, file: str) -> Job:
        """Return the same use of the action, with another pipeline file."""
        return replace(self, inputs=self.inputs.model_copy(update={"pipeline": file}))

    @cached_property
    def layout(self) -> Layout:
        """The store beside the pipeline file; where there is no such file, the one that commands use."""
        try:
            folder = find_file(Path(self.inputs.pipeline)).parent
        except PipelineError:
            return find_store(environ=self.environ)
        return open_store(folder, self.environ)

    @cached_property
    def folder(self) -> Path:
        """Where the action keeps files of its own: in the folder that the runner empties after the job."""
        folder = Path(self.environ.get("RUNNER_TEMP") or ".") / "runnable-ci"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def registry(self) -> Registry:
        """Return where the runs of this job are published."""
        pipeline = Path(self.inputs.pipeline)
        return Registries(self.settings, self.environ).named(None, in_pipeline=lambda: registry_of(pipeline))

    def branches_registry(self) -> Registry:
        """Return where the runs of branches are published, also in the job of a pull request."""
        pipeline = Path(self.inputs.pipeline)
        environ = {name: value for name, value in self.environ.items() if name not in REF_VARIABLES}
        return Registries(self.settings, environ).named(None, in_pipeline=lambda: registry_of(pipeline))

    def registry_of(self, run_id: str) -> Registry:
        """Return where a run is published: that of a pull request goes back to where those are."""
        registry, origin = self.registry(), read_origin(self.layout, run_id)
        if origin is None or origin.registry != f"{registry.label}/{PULL_REQUESTS}":
            return registry
        return Registries(self.settings, self.environ).recorded(origin.registry)

    @property
    def use(self) -> Use:
        """What tells this use of the action from all others of the workflow run."""
        given, started = self.inputs, workflow_file(self.context.workflow_ref)
        called = workflow_file(given.job_workflow_ref)
        return Use(
            github_run_id=self.context.run_id,
            workflow=started,
            called_workflow=called if called != started else "",
            job=self.context.job,
            matrix=given.matrix,
            is_matrix_given=given.matrix != given.own_matrix,
            pipeline=given.pipeline,
            working_directory=given.working_directory,
            step=given.step,
            run_id=given.run_id,
            command=given.command,
        )

    def secrets(self) -> frozenset[str]:
        """Return what must be in no log of the job."""
        return secrets_of(self.environ, self.settings.secret_names)

    def say(self, text: str) -> None:
        """Print a line in the job's log."""
        console.out(self.clean(text))

    def debug(self, text: str) -> None:
        """Print a line where the job runs with debug logging."""
        console.debug(self.clean(text))

    def say_all(self, notes: Sequence[str]) -> None:
        """Print notes in the job's log."""
        for note in notes:
            self.say(f"note: {note}")

    def warn(self, title: str, text: str) -> None:
        """Print a warning on the job's page."""
        console.commands(workflow.annotate(Annotation("warning", self.clean(text), title=title)))

    def set_outputs(self, outputs: Mapping[str, str]) -> None:
        """Set outputs of the action's step."""
        if path := self.environ.get("GITHUB_OUTPUT"):
            workflow.append(Path(path), workflow.assignments(outputs))

    def summarise(self, text: str) -> None:
        """Add to the job's summary; one that cannot be written fails nothing."""
        if not (path := self.environ.get("GITHUB_STEP_SUMMARY")):
            return
        try:
            workflow.append(Path(path), self.clean(text))
        except OSError as e:
            self.warn("There is no summary", f"it cannot be written: {e.strerror}")

    def clean(self, text: str) -> str:
        """Return the text without secrets."""
        return Redactor(self.secrets()).text(text)
