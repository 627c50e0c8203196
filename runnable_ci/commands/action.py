"""What the GitHub action does around a command: `begin` decides which one, `finish` publishes and reports.

The action has a step for each: the first becomes `runnable-ci run` or `retry`, so that a cancelled job's signal reaches
the run itself; the second runs always, after the first has ended in whatever way.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runnable_ci.errors import PipelineError, RunnableError, RunNotFoundError, StoreError, UsageError
from runnable_ci.github import summary, workflow
from runnable_ci.github.context import Context
from runnable_ci.github.summary import GoingOn, Notice
from runnable_ci.github.workflow import Annotation
from runnable_ci.project import STORE_NAME, find_file, find_store, registry_of
from runnable_ci.project import load as load_project
from runnable_ci.published import keep_as_newest, newest_of_branch
from runnable_ci.redact import LEAST_CHARACTERS
from runnable_ci.registries import Registries
from runnable_ci.remote import Published, publish, pull, read_origin
from runnable_ci.runlog import FAIL, SUCCESS, RunLog
from runnable_ci.runs import Summary, load, output_of, resolve_id, run_ids
from runnable_ci.secret_names import secrets_of
from runnable_ci.settings import INPUT_PREFIX, Inputs, Settings, load_inputs
from runnable_ci.settings import load as load_settings
from runnable_ci.store.access import parse_reference
from runnable_ci.store.layout import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.transport import RegistryAuthError

JOB_MAX = 24
TAIL_BYTES = 16 * 1024
TAIL_LINES = 20
_PERMISSIONS = "permissions:\n  contents: read\n  packages: write"
_KEPT = "The run is kept as an artifact of this workflow run"


class _ForkError(RunnableError):
    """A job with a fork's code has a token that only reads."""


@dataclass(frozen=True, slots=True)
class Job:
    """One use of the action in a job."""

    context: Context
    inputs: Inputs
    settings: Settings
    environ: Mapping[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Job:
        """Raises `UsageError` outside GitHub Actions and for inputs that cannot be."""
        context = Context.of(environ)
        if context is None:
            raise UsageError("`action` is for jobs of GitHub Actions", hint="elsewhere: runnable-ci run")
        return cls(context, load_inputs(environ), load_settings(environ), environ)

    @property
    def layout(self) -> Layout:
        """The store beside the pipeline file; the current folder's where there is no such file."""
        try:
            return Layout(find_file(Path(self.inputs.pipeline)).parent / STORE_NAME)
        except PipelineError:
            return find_store()

    def registry(self) -> Registry:
        """Where the runs of this job are published."""
        workspace = self.layout.folder.parent
        return Registries(self.settings, self.environ).named(None, in_pipeline=lambda: registry_of(workspace))

    def run_id(self, nth: int) -> str:
        """The id of the run of the `nth` use of the action in the job: each attempt of the job finds the same one."""
        given = self.inputs
        told_apart = [given.matrix, given.pipeline, given.working_directory, given.parameters]
        name = (
            "".join(c if c.isalnum() and c.isascii() else "-" for c in self.context.job)[:JOB_MAX].strip("-") or "job"
        )
        words = [name, self.context.run_id or "0"]
        if any(text not in ("", ".", "null", "{}") for text in told_apart):
            words.append(hashlib.sha256(json.dumps([self.context.job, *told_apart]).encode()).hexdigest()[:6])
        if nth > 1:
            words.append(str(nth))
        return "-".join(words)


@dataclass(slots=True)
class Report:
    """What `finish` found: the outputs, and what people must be told."""

    run_id: str = ""
    log: RunLog | None = None
    published: Published | None = None
    base: Summary | None = None
    """The newest run of the base branch, to compare with."""
    notices: list[Notice] = field(default_factory=list)


def begin(environ: Mapping[str, str]) -> list[str]:
    """The arguments of the command that this step is to become; empty where all is left to `finish`.

    The output `run-id` is set before that command begins: whatever happens then, `finish` knows the run.
    """
    job = Job.of(environ)
    _mask(environ, job.settings)
    pipeline, given = job.inputs.pipeline, job.inputs
    more = [f"--param={word}" for word in parameters(given.parameters)] + _split(given.args)
    match given.command:
        case "run":
            if given.from_step:
                raise UsageError("input from-step is for command `retry`", hint="command: retry, with a run-id")
            run_id = given.run_id or job.run_id(_nth_use(job))
            _tell(environ, {"run-id": run_id})
            if given.resume == "auto" and job.context.run_attempt > 1 and _is_resumable(job, run_id):
                return _retry(job, run_id, more)
            return ["run", f"--run-id={run_id}", *more, "--", pipeline]
        case "retry":
            run_id = _pulled(job, given.run_id)
            _tell(environ, {"run-id": run_id})
            from_step = [f"--from={given.from_step}"] if given.from_step else []
            return _retry(job, run_id, [*from_step, *more])
        case "pull":
            run_id = _pulled(job, given.run_id)
            _tell(environ, {"run-id": run_id})
            return ["pull", *more, "--", run_id]
        case "publish":
            _tell(environ, {"run-id": resolve_id(job.layout, given.run_id or "latest")})
            return []


def finish(environ: Mapping[str, str], run_id: str) -> int:
    """Publish the run that `begin` named, set the outputs, write the summary; the exit code.

    The exit code tells of publishing only where that was the command: else a run's result is the run's alone.
    """
    job = Job.of(environ)
    report = Report()
    code = 0
    try:
        report.run_id = resolve_id(job.layout, run_id)
        report.log = load(job.layout, report.run_id)
    except RunnableError as e:
        if run_id:
            report.notices.append(Notice("There is no run log", str(e)))
    if report.log is not None and _is_to_be_published(job, report.log):
        try:
            _publish(job, report, report.log)
        except RunnableError as e:
            report.notices.append(_why_not(e))
            code = 1 if job.inputs.command == "publish" else 0
    _tell(environ, _outputs(job, report))
    for notice in report.notices:
        _warn(notice.title, "\n".join(filter(None, (notice.text, notice.fix))))
    if job.inputs.summary:
        _summarise(job, report)
    return code


def parameters(text: str) -> list[str]:
    """The input `parameters`, a JSON object or lines `NAME=VALUE`, as the words of `--param`."""
    if text.lstrip().startswith("{"):
        try:
            table = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise UsageError(f"input parameters is not JSON: {e}", hint='such as {"seed": 7}') from e
        return [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in table.items()]
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the command gets: the inputs are nobody's business any more."""
    return {name: value for name, value in environ.items() if not name.startswith(INPUT_PREFIX)}


def _mask(environ: Mapping[str, str], settings: Settings) -> None:
    """Have the runner show `***` in place of each secret, also where it is printed by what is none of ours."""
    for secret in sorted(secrets_of(environ, settings.secret_names)):
        if len(secret.strip()) >= LEAST_CHARACTERS:
            sys.stdout.writelines(f"{line}\n" for line in workflow.add_mask(secret))


def _split(args: str) -> list[str]:
    try:
        return shlex.split(args)
    except ValueError as e:
        raise UsageError(f"input args cannot be split into words: {e}") from e


def _retry(job: Job, run_id: str, more: Sequence[str]) -> list[str]:
    return ["retry", f"--file={job.inputs.pipeline}", f"--restore={job.inputs.restore}", *more, "--", run_id]


def _nth_use(job: Job) -> int:
    """How often the action was used for one run id in this job, this time included."""
    folder = Path(job.environ.get("RUNNER_TEMP") or ".") / "runnable-ci"
    uses = folder / f"{job.run_id(1)}.uses"
    folder.mkdir(parents=True, exist_ok=True)
    with uses.open("a") as file:
        file.write(".")
    return uses.stat().st_size


def _is_resumable(job: Job, run_id: str) -> bool:
    """Whether an earlier attempt of the job left a run; its log is here from now on."""
    attempt = f"attempt {job.context.run_attempt} of the job"
    try:
        pull(job.layout, job.registry(), run_id, only_log=True)
    except RunNotFoundError:
        _say(f"{attempt}: no earlier one published run {run_id}")
    except StoreError as e:
        _warn("An earlier attempt's run could not be looked for", f"{attempt}, run {run_id}: {e}")
    return run_id in run_ids(job.layout)


def _pulled(job: Job, run: str) -> str:
    """The id of a run whose log is here, pulled if it is not."""
    if not run:
        raise UsageError(f"command {job.inputs.command} needs the input run-id", hint="a run id, latest or a reference")
    if "/" in run:
        where = parse_reference(run)
        registry = Registries(job.settings, job.environ).open(where)
        return pull(job.layout, registry, where.reference or "latest", only_log=True).run_id
    if run in run_ids(job.layout) and read_origin(job.layout, run) is None:
        return run
    return pull(job.layout, job.registry(), run, only_log=True).run_id


def _is_to_be_published(job: Job, log: RunLog) -> bool:
    match job.inputs.command:
        case "publish":
            return True
        case "pull":
            return False
        case _:
            when = job.inputs.publish
            return when == "always" or (when == "on-failure" and log.status != SUCCESS)


def _publish(job: Job, report: Report, log: RunLog) -> None:
    """Publish, then compare: the base's run is read before this one may take its place."""
    if job.context.is_fork_pull_request:
        raise _ForkError("the pull request comes from a fork: its token may only read")
    registry = job.registry()
    report.published = publish(job.layout, report.run_id, registry, environ=job.environ)
    report.base = newest_of_branch(registry, log.name, job.context.base_branch)
    if log.status == SUCCESS and job.context.branch and _has_code_of(job.context, log):
        keep_as_newest(registry, report.published.manifest, log.name, job.context.branch)


def _has_code_of(context: Context, log: RunLog) -> bool:
    """Whether the code is the branch's, as far as known: a retry that starts on it may check out a fix."""
    code = log.code()
    commit = code.code_identifier if code and code.code_identifier_type == "git" else ""
    return commit in ("", context.sha) or not context.sha


def _why_not(error: RunnableError) -> Notice:
    """Why the run is not published, and what to write into the workflow so that it will be."""
    if isinstance(error, _ForkError):
        return Notice("Not published: the pull request comes from a fork", f"{error.message}. {_KEPT}")
    if isinstance(error, RegistryAuthError):
        return Notice("Not published: the registry refused", f"{error.message}. {_KEPT}", fix=_PERMISSIONS)
    return Notice(
        "Not published", f"{error.message}. {error.hint}. {_KEPT}" if error.hint else f"{error.message}. {_KEPT}"
    )


def _outputs(job: Job, report: Report) -> dict[str, str]:
    log, published = report.log, report.published
    if log is None:
        return {}
    reference = published.reference if published else ""
    unpublished = not published and _is_to_be_published(job, log)
    return {
        "status": log.status,
        "failed-step": ",".join(log.failed_steps()),
        "metrics": json.dumps(log.metrics()),
        "reference": reference,
        "digest": reference.rpartition("@")[2],
        "retry-command": f"runnable-ci retry {reference.partition('@')[0] or log.run_id}",
        "unpublished-store": str(job.layout.folder) if unpublished else "",
    }


def _say(text: str) -> None:
    sys.stdout.write(f"{workflow.harmless(text)}\n")
    sys.stdout.flush()


def _warn(title: str, text: str) -> None:
    sys.stdout.write(f"{workflow.annotate(Annotation('warning', text, title=title))}\n")
    sys.stdout.flush()


def _tell(environ: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Set outputs of the action's step."""
    if path := environ.get("GITHUB_OUTPUT"):
        workflow.append(Path(path), workflow.assignments(outputs))


def _summarise(job: Job, report: Report) -> None:
    """Write the job's summary; one that cannot be written fails nothing."""
    path = job.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    reference = report.published.reference if report.published else ""
    base = report.base if report.base and report.base.run_id != report.run_id else None
    text = summary.render(
        report.log or RunLog(run_id=report.run_id or "?", status=FAIL, message="the pipeline did not start"),
        needs=_needs(job),
        base=base.metrics if base else None,
        base_label=f"{base.run_id} ({job.context.base_branch})" if base else "",
        going_on=GoingOn(
            reference=reference.partition("@")[0],
            digest=reference.partition("@")[2],
            workflow=_retry_workflow(job),
            ref=job.context.branch or job.context.head_ref,
            github_run_id=job.context.run_id,
        ),
        notices=report.notices,
        tails={name: _tail(job, report.log, name) for name in report.log.failed_steps()} if report.log else {},
    )
    try:
        workflow.append(Path(path), text)
    except OSError as e:
        sys.stderr.write(f"the summary cannot be written: {e.strerror}\n")


def _needs(job: Job) -> dict[str, tuple[str, ...]] | None:
    """What each step needs: of steps that were never tried the run log does not tell. None for an unusable file."""
    try:
        pipeline = load_project(Path(job.inputs.pipeline)).pipeline
    except RunnableError:
        return None
    return {step.name: step.needs for step in pipeline.steps.values()}


def _retry_workflow(job: Job) -> str:
    """The retry workflow of the repository; empty where it has none."""
    name = "retry.yml"
    return name if (Path(job.context.workspace) / ".github" / "workflows" / name).is_file() else ""


def _tail(job: Job, log: RunLog, step: str) -> str:
    """The last lines that the step's last attempt wrote."""
    attempt = log.steps[step].attempts[-1]
    kept = bytearray()
    try:
        for _, chunk in output_of(job.layout, log, f"{step}.{attempt.attempt_number}", attempt):
            kept += chunk
            del kept[:-TAIL_BYTES]
    except StoreError:
        return ""
    lines = kept.decode(errors="replace").splitlines()
    return "\n".join(lines[-TAIL_LINES:])
