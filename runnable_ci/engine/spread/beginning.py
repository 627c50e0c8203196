"""How a run begins that several jobs share: each that finds none begins the same one."""

from __future__ import annotations

import hashlib
import os
from typing import Final

from runnable_ci.engine.new_run import prepare_run
from runnable_ci.engine.options import RetryOptions, RunOptions, redacting_errors
from runnable_ci.engine.parts.step_selection import PartialOptions, StepSelection
from runnable_ci.engine.resume import carry_on
from runnable_ci.engine.resumed_parameters import ResumedParameters
from runnable_ci.engine.session import RunSession
from runnable_ci.engine.spread.job import JobSteps
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.recorder import create

_IDENTITY_LENGTH: Final = 32


def begin_here(session: RunSession, run_id: str, options: RunOptions, retry: RetryOptions, job: JobSteps) -> int:
    """Begin a run and do what is the job's, in a session that keeps others out of the workspace; the exit code.

    Raises as `prepare_run` does.
    """
    project = session.project
    part = PartialOptions(StepSelection(job.names))
    parameters = prepare_run(session, options._replace(run_id=run_id, part=part)).parameters
    redactor = session.redactor(parameters)
    session.recover()
    log = RunLog(run_id=run_id, run_config={"executor": "local"})
    started = session.started(log, "run", parameters, pipeline_identity=project.identity(), tag=options.tag)
    # All jobs that begin the run give it one identity, so what tells their invocations apart is what each had seen: it
    # names one that nobody else has.
    own = {"identity": shared_identity(run_id, project), "parents": [os.urandom(32).hex()]}
    started = started.model_copy(update={"invocation": started.invocation.model_copy(update=own)})
    opening = create(project.layout, job.begun(started, project.pipeline.dag_hash()), redactor)
    with redacting_errors(redactor):
        return carry_on(session, log, ResumedParameters(parameters, redactor, ()), retry, opening)


def shared_identity(run_id: str, project: Project) -> str:
    """Return the identity of the run that all jobs begin which name this id: none of them knows of the others."""
    identity = project.identity()
    facts = f"{run_id}\0{identity.key() or identity}"
    return hashlib.sha256(facts.encode(errors="surrogatepass")).hexdigest()[:_IDENTITY_LENGTH]
