"""What is read of GitHub's answers, checked. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ApiAnswer(BaseModel):
    """What is read of an answer; GitHub adds to them as it likes."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class WorkflowRun(ApiAnswer):
    """A run of a workflow."""

    id: int = Field(ge=1)
    display_title: str = ""
    name: str | None = None
    status: str | None
    conclusion: str | None
    run_attempt: int = 1
    created_at: str
    updated_at: str = ""
    html_url: str


class JobStep(ApiAnswer):
    """A step of a job."""

    number: int
    name: str
    status: str
    conclusion: str | None
    started_at: str | None = None
    completed_at: str | None = None


class WorkflowJob(ApiAnswer):
    """A job of a run."""

    id: int
    name: str
    run_attempt: int = 1
    status: str
    conclusion: str | None
    started_at: str | None = None
    completed_at: str | None = None
    steps: tuple[JobStep, ...] | None = None


class JobsAnswer(ApiAnswer):
    """A page of jobs."""

    total_count: int
    jobs: tuple[WorkflowJob, ...]


class RunsAnswer(ApiAnswer):
    """A page of runs."""

    workflow_runs: tuple[WorkflowRun, ...]


class RepositoryAnswer(ApiAnswer):
    """A repository."""

    default_branch: str
    html_url: str


class CommitAnswer(ApiAnswer):
    """A commit."""

    sha: str = Field(pattern=r"^[0-9a-f]{40,64}$")


class BranchAnswer(ApiAnswer):
    """A branch."""

    commit: CommitAnswer


class DispatchAnswer(ApiAnswer):
    """The run that was started."""

    workflow_run_id: int = Field(ge=1)
    html_url: str
