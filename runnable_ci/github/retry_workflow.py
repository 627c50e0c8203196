"""Starts the retry workflow, for who types `dispatch`, and for a job that hands its run to a further one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from runnable_ci.errors import UsageError
from runnable_ci.github.api.actions import Actions, StartedRun
from runnable_ci.github.api.errors import GitHubError, InputsUnknownError
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity

RETRY_WORKFLOW: Final = "retry.yml"
RUN_NAME: Final = "run-name: Retry ${{ inputs.run-id }}"
INPUTS_MAX_CHARACTERS: Final = 65_535
"""Source: GitHub docs, "Events that trigger workflows", `workflow_dispatch`."""
_DISPENSABLE: Final = frozenset({"pipeline", "options"})
_USUAL_FILES: Final = ("runnable.toml", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class RetryRequest:
    """What a retry workflow is asked for."""

    run: str
    """The run id, with its registry where that is not the usual one."""
    ref: str = ""
    """The code to resume with; empty for the default branch."""
    from_step: str = ""
    parameters: Mapping[str, Any] | None = None
    pipeline: str = ""
    """The pipeline file from the root of the repository, where the run cannot tell, or it is another one."""
    other_pipeline: bool = False
    options: Sequence[str] = ()
    """Options of `retry` that the workflow has no input of their own for."""
    writers: Sequence[str] = ()
    """Digests of the parts of the run that are used."""

    def inputs(self) -> dict[str, str]:
        """Return the inputs that are not empty. Raises `UsageError` for more than GitHub takes."""
        writers = ["--writers", ",".join(self.writers)] if self.writers else []
        inputs = {
            "run-id": self.run,
            "ref": self.ref,
            "from-step": self.from_step,
            "parameters": json.dumps(self.parameters, ensure_ascii=False) if self.parameters else "",
            "pipeline": self.pipeline,
            "other-pipeline": "true" if self.other_pipeline else "",
            "options": shlex.join([*self.options, *writers]),
        }
        inputs = {name: value for name, value in inputs.items() if value}
        if (length := len(json.dumps(inputs))) > INPUTS_MAX_CHARACTERS:
            raise UsageError(
                f"the inputs are {length:,} characters long; GitHub takes {INPUTS_MAX_CHARACTERS:,}",
                hint="put large values into the pipeline file, or into a file in the repository",
            )
        return inputs


def pipeline_input(identity: PipelineIdentity | None) -> str:
    """Return the pipeline file as the workflow takes it; empty where only the run itself can tell, or need not."""
    if identity is None or identity.base != "repository" or identity.file in _USUAL_FILES:
        return ""
    return identity.file


def start_retry(
    actions: Actions,
    workflow: str,
    inputs: Mapping[str, str],
    *,
    ref: str,
    default_branch: str,
    needs_options: bool,
    note: Callable[[str], None],
) -> StartedRun | None:
    """Start the workflow as it is at `ref`; None where the server does not say which run that is.

    One that does not take `pipeline` or `options` goes without, unless `needs_options`: an older one, or one that knows
    its pipeline file.
    """
    try:
        return actions.dispatch(workflow, ref=ref, inputs=inputs, default_branch=default_branch)
    except InputsUnknownError as e:
        dropped = (e.names or _DISPENSABLE) & inputs.keys()
        if not dropped or "other-pipeline" in inputs or dropped - ({"pipeline"} if needs_options else _DISPENSABLE):
            raise
        fewer = {name: value for name, value in inputs.items() if name not in dropped}
        if "options" in dropped:
            note(f"{workflow} has no input `options`, so the job decides whose parts of the run it uses")
        return actions.dispatch(workflow, ref=ref, inputs=fewer, default_branch=default_branch)


def find_started(actions: Actions, workflow: str, run_id: str, *, every_s: float) -> StartedRun:
    """Return the run of a workflow that was just started, by its title. Raises `GitHubError`."""
    found = actions.find(workflow, run_id, every_s=every_s)
    if found is None:
        raise GitHubError(
            "the workflow was started, but its run cannot be identified",
            hint=f"see {actions.workflow_page(workflow)}; `{RUN_NAME}` in the workflow makes runs identifiable",
        )
    return found
