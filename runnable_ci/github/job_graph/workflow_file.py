"""The workflow that spreads a run over jobs, as the text of a file. Pure, but for the pins of packaged workflows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from runnable_ci.errors import UsageError
from runnable_ci.github.job_graph.durations import JOB_MINUTES_MAX
from runnable_ci.github.job_graph.jobs import MATRIX_OUTPUT, PlannedJob, asked_legs, jobs_of
from runnable_ci.github.job_graph.yaml_text import Commented, GitHubExpression, expression, yaml_lines
from runnable_ci.github.templates import DEFAULT_REF, pinned, used_action
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Runner
from runnable_ci.pipeline.validation import shown

MARK: Final = "# Written by runnable-ci from the pipeline file: do not edit it, but change that and write it again."
"""The first line: what has it may be replaced."""
BYTES_MAX: Final = 500_000
"""Source: GitHub docs, "Workflow syntax": a workflow file of more than 500 KB is not run."""
_HOSTED: Final = ("ubuntu-", "macos-", "windows-")
"""How the labels of GitHub's own runners begin, which end a job in time whatever it says; the action looks at that."""
_TAKEN: Final = re.compile(r"GITHUB_(?!TOKEN$).*", re.IGNORECASE)
"""Names that GitHub gives no secret. Source: GitHub docs, "Secrets reference", naming your secrets."""
_SLUG_MAX: Final = 40
_NAMED_MAX: Final = 3
"""Steps in the name of a job."""
_GROUPING: Final = """\
# A chain of steps with one runner is a job, and so are short steps: those with a `timeout-minutes` of at most 5, as
# many as take 20 together. Instances of a matrix have jobs. `job = "NAME"` in the pipeline file decides otherwise."""
_EVENTS: Final = {"push": {"branches": ["main"]}, "pull_request": {}}


class WorkflowSource(NamedTuple):
    """What a workflow is made from."""

    pipeline: Pipeline
    file: str
    """The pipeline file, or its folder where it is the usual one there, from the root of the repository."""

    @property
    def slug(self) -> str:
        """What file and runs are called: by the pipeline's name, where the file gives it, else by its place."""
        named = self.pipeline.name if self.pipeline.is_named else self.file.removesuffix(".toml")
        return re.sub(r"[^A-Za-z0-9]+", "-", named).strip("-")[:_SLUG_MAX].strip("-").lower() or "pipeline"


def workflow_text(source: WorkflowSource) -> str:
    """Return the file. Raises `PipelineError` for a pipeline that cannot be spread, `UsageError` for a name that cannot
    stand in a workflow.
    """
    if not source.file.isprintable():
        raise UsageError(f"the path {shown(source.file)} cannot be used in a workflow", hint="rename it")
    jobs = jobs_of(source.pipeline)
    document = {
        "name": _display(source.pipeline.name) if source.pipeline.is_named else source.slug,
        "run-name": GitHubExpression("${{ inputs.run-id && format('Retry {0}', inputs.run-id) || '' }}"),
        "on": _events(source.pipeline),
        "permissions": {},
        "concurrency": {
            "group": _group(source.slug),
            "cancel-in-progress": expression("github.event_name == 'pull_request'"),
        },
    }
    lines = [MARK, *yaml_lines(document), "", *_GROUPING.splitlines(), "jobs:"]
    for job in jobs:
        lines += [*yaml_lines({job.id: _job(job, source)}, 2), ""]
    text = "\n".join(lines[:-1]) + "\n"
    if (size := len(text.encode())) > BYTES_MAX:
        message = f"the workflow would have {size:,} bytes in {len(jobs)} jobs; GitHub takes {BYTES_MAX:,}"
        hint = "give steps that belong together the same `job`, or short ones a `timeout-minutes` of at most 5"
        raise source.pipeline.place.error("steps", message, hint)
    return text


def _group(slug: str) -> GitHubExpression:
    """Return what runs one at a time: what resumes a run, and a pull request. Groups are the whole repository's."""
    pull = f"github.event_name == 'pull_request' && format('{slug}-pull-{{0}}', github.event.number)"
    return expression(f"inputs.run-id || {pull} || format('{slug}-{{0}}', github.run_id)")


def _display(text: str) -> str:
    """Return a text for people, in which nothing is an expression."""
    return text.replace("${{", "$ {{")


def _events(pipeline: Pipeline) -> dict[str, Any]:
    """Return what starts the workflow: what the file says, and always a person or `dispatch`."""
    said = pipeline.workflow.on if pipeline.workflow else None
    if said is not None and "workflow_call" in said:
        message = "on: a workflow that others call has no inputs `run-id` and `parameters`"
        raise pipeline.place.error("workflow", message, "remove `workflow_call`", key="on")
    if said is not None and said.get("workflow_dispatch"):
        message = "on: `workflow_dispatch` has the inputs that resume a run, and no others"
        raise pipeline.place.error("workflow", message, "leave it out: it always starts the workflow", key="on")
    if "${{" in str(said):
        message = "on: GitHub evaluates no expression there"
        raise pipeline.place.error("workflow", message, "write the value itself", key="on")
    others = {name: event for name, event in (_EVENTS if said is None else said).items() if name != "workflow_dispatch"}
    inputs = {
        "run-id": "The run to resume, with RUN_ID@DIGEST exactly that one",
        "ref": "Branch, tag or commit with the fix, if not the branch chosen above",
        "parameters": "Parameters, as a JSON object or NAME=VALUE",
        "options": "Further options of each job, such as --accept STEP --reason TEXT",
    }
    described = {name: {"description": text, "type": "string"} for name, text in inputs.items()}
    return {**others, "workflow_dispatch": {"inputs": described}}


def _job(job: PlannedJob, source: WorkflowSource) -> dict[str, Any]:
    table: dict[str, Any] = {"name": _name(job)} if len(job.steps) != 1 else {}
    if job.needs:
        table["needs"] = list(job.needs)
    if job.condition:
        table["if"] = expression(job.condition)
    table["runs-on"] = _runner(job.runs_on)
    if job.minutes is not None:
        is_hosted = any(label.startswith(_HOSTED) for label in job.runs_on.labels)
        table["timeout-minutes"] = min(job.minutes, JOB_MINUTES_MAX) if is_hosted else job.minutes
    table["permissions"] = _permissions(source.pipeline)
    if job.asks:
        table["outputs"] = {MATRIX_OUTPUT: expression(f"steps.runnable.outputs.{MATRIX_OUTPUT}")}
    if job.legs is not None:
        table["strategy"] = _strategy(job)
    return {**table, "steps": [*_set_up(source.pipeline), _action(job, source)]}


def _runner(runner: Runner) -> str | list[str] | dict[str, Any]:
    labels = runner.labels[0] if len(runner.labels) == 1 else list(runner.labels)
    if not runner.group:
        return labels
    return {"group": runner.group, "labels": labels} if labels else {"group": runner.group}


def _name(job: PlannedJob) -> str:
    if job.collects:
        return "Collect the run"
    if not job.steps:
        return f"The instances of {', '.join(job.asks)}"
    shown_steps, more = job.steps[:_NAMED_MAX], len(job.steps) - _NAMED_MAX
    return ", ".join(shown_steps) + (f" and {more} more" if more > 0 else "")


def _permissions(pipeline: Pipeline) -> dict[str, Any]:
    if _is_ghcr(pipeline):
        return {"contents": "read", "packages": Commented(("write", "to publish its part of the run"))}
    return {"contents": "read"}


def _is_ghcr(pipeline: Pipeline) -> bool:
    """Return whether the job's token is what publishes."""
    return pipeline.registry is None or pipeline.registry.split("://")[-1].lower().startswith("ghcr.io/")


def _strategy(job: PlannedJob) -> dict[str, Any]:
    assert job.legs is not None  # noqa: S101 - for the type checker
    legs = job.legs
    listed = list(legs.known) or expression(asked_legs(legs, job.steps[0]))
    parallel = {} if legs.max_parallel is None else {"max-parallel": legs.max_parallel}
    return {"fail-fast": legs.fail_fast, **parallel, "matrix": {"instance": listed}}


def _set_up(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """Yield the steps before the program's own."""
    checkout = {"ref": expression("inputs.ref"), "persist-credentials": False}
    yield {"uses": Commented(pinned("actions/checkout")), "with": checkout}
    said = pipeline.workflow
    if said and said.setup_action:
        why = "zizmor: ignore[self-repository] as it is in what was checked out"
        yield {"uses": Commented((said.setup_action, why))}
    if said and said.setup.strip():
        yield {"shell": "bash", "env": {"SETUP": said.setup}, "run": 'bash -euo pipefail -c "$SETUP"'}


def _action(job: PlannedJob, source: WorkflowSource) -> dict[str, Any]:
    said = source.pipeline.workflow
    given: dict[str, Any] = {
        "pipeline": source.file,
        "run-id": expression(f"inputs.run-id || format('{source.slug}-{{0}}', github.run_id)"),
        "resume": expression("inputs.run-id && 'always' || 'auto'"),
        "parameters": expression("inputs.parameters"),
        "args": expression("inputs.options"),
    }
    if job.steps:
        given["steps"] = ", ".join(job.steps)
    if job.legs is not None:
        given["instances"] = expression("matrix.instance")
    if job.asks:
        given["matrix-of"] = ", ".join(job.asks)
    if job.collects:
        given["collect"] = "true"
    if said and said.python_version:
        given["python-version"] = said.python_version
    ref = said.action_ref if said else DEFAULT_REF
    used = Commented(used_action(ref, option="[workflow] action-ref", pin="a commit as `action-ref`"))
    env = {name: expression(f"secrets.{name}") for name in _secrets(source.pipeline)}
    return {"id": "runnable", "uses": used, "with": given, **({"env": env} if env else {})}


def _secrets(pipeline: Pipeline) -> list[str]:
    """Return the names of the secrets that steps may need, and what publishes where the job's token does not."""
    images = [step.container for step in pipeline.outlined().steps.values() if step.container]
    names = [*pipeline.secrets, *(name for one in images for name in (one.username, one.password) if name)]
    if taken := next(filter(_TAKEN.match, names), ""):
        message = f"GitHub keeps no secret `{taken}`: names that begin with `GITHUB_` are its own"
        raise pipeline.place.error("", message, "give the variable another name", key="secrets")
    own = [] if _is_ghcr(pipeline) else ["RUNNABLE_CI_REGISTRY_USERNAME", "RUNNABLE_CI_REGISTRY_PASSWORD"]
    return [*dict.fromkeys([*names, *own])]
