"""How the run of a job is resumed elsewhere: commands as they are typed at the root of a clone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runnable_ci.errors import PipelineError
from runnable_ci.github.action.job import Job
from runnable_ci.pipeline.command_line import file_option
from runnable_ci.pipeline.project import find_file, registry_of
from runnable_ci.util.shell_command import command, path
from runnable_ci.vcs.git_files import repository_root


@dataclass(frozen=True, slots=True)
class CloneCommands:
    """What a clone has of the job's pipeline."""

    job: Job
    file: Path | None
    """The pipeline file; None where there is none."""
    root: Path
    """What is the root in a clone."""
    is_known: bool
    """Whether the run log has the file's path from the root."""

    @classmethod
    def of(cls, job: Job) -> CloneCommands:
        """Return the place of a job's run; without a git folder the job's workspace is the root."""
        try:
            file = find_file(Path(job.inputs.pipeline))
        except PipelineError:
            file = None
        root = repository_root(file.parent) if file else None
        return cls(job, file, root or Path(job.context.workspace or ".").resolve(), root is not None)

    @property
    def file_option(self) -> list[str]:
        """What leads to the pipeline file from the root."""
        return file_option(self.file, self.root) if self.file and self.file.is_relative_to(self.root) else []

    @property
    def http_option(self) -> list[str]:
        """The options that connect to a registry as the job did."""
        return ["--plain-http"] if self.job.settings.plain_http else []

    def retry(self, reference: str) -> str:
        """Return the command that resumes the published run: which pipeline file it is of, its log says as far as
        it knows.
        """
        return command("retry", reference, *([] if self.is_known else self.file_option), *self.http_option)

    @property
    def dispatch_options(self) -> list[str]:
        """The inputs that a retry workflow needs where only the pipeline file has the run's registry."""
        only_there = self.job.settings.registry is None and self.file and registry_of(self.file)
        return self.file_option if only_there and registry_of(self.root) != only_there else []

    def kept(self, run_id: str, artifact: str) -> str:
        """Return how the run is resumed from the artifact that has its store."""
        store = path(self.job.layout.folder, self.root)
        resume = command("retry", run_id, *self.file_option)
        return (
            f"The run is kept as an artifact of this workflow run, `{artifact}`: unpack it into `{store}` at "
            f"the root of a clone and resume it with `{resume}`"
        )
