"""Resume a run in GitHub Actions: `runnable-ci dispatch` with a fix, `rerun-failed` as GitHub itself does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runnable_ci.cli.context import make_options
from runnable_ci.cli.terminal import SilentPrinter
from runnable_ci.cli.watch import show_link, watch
from runnable_ci.config import Settings
from runnable_ci.engine.code.generated import code_of
from runnable_ci.engine.options import RetryOptions, redacting_errors
from runnable_ci.engine.planning.consent import acceptances, finished_seconds
from runnable_ci.engine.preflight import load_project
from runnable_ci.engine.resume import look_ahead, require_consent
from runnable_ci.engine.run_project import newest_run, project_of, require_same
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import PipelineError, RunnableError, RunNotFoundError, UsageError, did_you_mean
from runnable_ci.github.api.actions import StartedRun
from runnable_ci.github.api.connection import Connection, connect
from runnable_ci.github.api.errors import RefusedError
from runnable_ci.github.retry_workflow import RetryRequest, find_started, pipeline_input, start_retry
from runnable_ci.pipeline.command_line import http_option, of_store
from runnable_ci.pipeline.parameters import KnownParameters, parse_param_options
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.project import Project, find_store, registry_of
from runnable_ci.pipeline.schema import STEP_NAME
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import LATEST, products_of, resolve_id
from runnable_ci.runs.reader import load as load_log
from runnable_ci.runs.remote.contributions import read_contributions
from runnable_ci.runs.remote.pull import read_origin, seen_manifests
from runnable_ci.runs.remote.registry_config import Registries, split_run
from runnable_ci.store.local import Layout
from runnable_ci.store.target import TAG
from runnable_ci.util.console import console
from runnable_ci.util.shell_command import command
from runnable_ci.util.text import pluralize
from runnable_ci.vcs.clone import Clone
from runnable_ci.vcs.identity import Code


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """What a dispatch is asked for beyond the run."""

    workflow: str
    workflow_ref: str | None
    ref: str | None
    from_step: str | None
    params: list[str]
    repo: str | None
    watching: bool
    every_s: float
    file: Path | None = None
    other_pipeline: bool = False
    rerun_changed: bool = False
    drops_checkpoints: bool = False
    accept: Sequence[str] = ()
    reason: str = ""
    typed: Sequence[str] = ()
    """The command as it was typed, for messages."""
    writers: Sequence[str] = ()
    """Digests of the parts of the run that are used."""

    def retry_options(self, run_id: str) -> RetryOptions:
        """Return what the retry is asked for, as far as it decides which steps run."""
        return RetryOptions(
            [self.from_step] if self.from_step else [],
            self.params,
            rerun_changed=self.rerun_changed,
            accept=self.accept,
            reason=self.reason,
            typed=[run_id if word == LATEST else word for word in self.typed],
        )

    def further(self) -> list[str]:
        """Return options of `retry` that the workflow takes as further ones."""
        accept = [word for step in self.accept for word in ("--accept", step)]
        reason = ["--reason", self.reason] if self.reason else []
        drop = ["--checkpoint", "drop"] if self.drops_checkpoints else []
        return [*(["--rerun-changed"] if self.rerun_changed else []), *drop, *accept, *reason]


@dataclass(frozen=True, slots=True)
class DispatchTarget:
    """What is known here of a run that is, perhaps, only in a registry."""

    layout: Layout
    run_id: str
    log: RunLog | None
    project: Project | None
    """That of the run's own pipeline file; while its log is not here, that of the folder."""
    is_own: bool

    @property
    def pipeline(self) -> str:
        """The pipeline file from the root of the repository; empty where only the run itself can tell, or need not."""
        log = PipelineIdentity.recorded(self.log.name, self.log.run_config) if self.log else None
        here = self.project.identity() if self.project and self.is_own else None
        return pipeline_input(here or log)


def dispatch(run: str, options: DispatchOptions, *, settings: Settings, environ: Mapping[str, str]) -> int:
    """Start the retry workflow; the URL of its run is printed. The exit code is the run's where it is watched."""
    registry, run_id, digest = split_run(run)
    target = _find_target(run_id, options, environ)
    options = _seen(target, options, digest)
    published_as = f"{registry}:{target.run_id}" if registry else target.run_id
    parameters = _parameters(target, options.params)
    _check_step(target, options)
    workflow = options.workflow.removeprefix(".github/workflows/")
    if not workflow or "/" in workflow:
        raise UsageError(f"--workflow {options.workflow}: not a file in .github/workflows", hint="such as retry.yml")
    connection = connect(options.repo, settings=settings, environ=environ)
    actions = connection.actions
    default_branch = actions.default_branch()
    ref, commit = _ref(target, connection, options.ref, environ)
    request = RetryRequest(
        run=published_as,
        ref=ref,
        from_step=options.from_step or "",
        parameters=parameters,
        pipeline=target.pipeline,
        other_pipeline=options.other_pipeline,
        options=options.further(),
        writers=options.writers,
    )
    inputs = request.inputs()
    if commit:
        _require_consent(target, options, commit)
    started = start_retry(
        actions,
        workflow,
        inputs,
        ref=options.workflow_ref or default_branch,
        default_branch=default_branch,
        needs_options=bool(request.options),
        note=_note,
    )

    def find() -> StartedRun:
        if started is not None:
            return started
        found = find_started(actions, workflow, target.run_id, every_s=min(1.0, options.every_s))
        show_link(found.url)
        return found

    if started is not None:
        show_link(started.url)
    if not options.watching:
        find()
        return 0
    source = http_option(settings.plain_http) if registry else _pull_source(target, connection, settings, environ)
    offer = None if source is None else of_store(target.layout, "pull", published_as, *source)
    return watch(
        actions,
        find,
        every_s=options.every_s,
        after_attempt=0,
        offer=offer,
        next_of=lambda run: actions.next_of(run, workflow, target.run_id),
    )


def _require_consent(target: DispatchTarget, options: DispatchOptions, commit: str) -> None:
    """Ask before a job is started that would repeat hours of finished work at a commit, or stop for them.

    What cannot be planned here is said, and left to the job, which asks by itself.
    """
    if target.log is None or target.project is None or not target.is_own:
        return
    retry = options.retry_options(target.run_id)
    acceptances(retry.accept, retry.reason, by="", pipeline=target.project.pipeline, log=target.log, forced={})
    shown = make_options(None, quiet=True, plain_http=False)
    if finished_seconds(target.log) <= shown.settings.ask_minutes * 60:
        return
    try:
        project = replace(target.project, layout=target.layout)
        here = RunSession.of(project, replace(shown, printer=SilentPrinter.of_process()))
        with here.at_commit(commit) as session:
            planned = look_ahead(session, target.run_id, retry)
    except RunnableError as e:
        _note(f"what would run again at {commit[:12]} is not known here, so the job asks by itself: {e.message}")
        return
    with redacting_errors(session.redactor(planned.parameters)):
        require_consent(replace(session, options=shown), planned, retry)


def _seen(target: DispatchTarget, options: DispatchOptions, digest: str) -> DispatchOptions:
    """Have the job use just those parts of the run that were looked at here, and say whose they are."""
    for writer in read_contributions(target.layout, target.run_id).writers.values():
        _note(f"written by {writer}")
    seen = [digest] if digest else seen_manifests(target.layout, target.run_id)
    return replace(options, writers=seen)


def _find_target(run: str, options: DispatchOptions, environ: Mapping[str, str]) -> DispatchTarget:
    chosen = load_project(options.file).opened(environ) if options.file is not None else None
    if options.other_pipeline and chosen is None:
        raise UsageError("--other-pipeline needs the pipeline file", hint="name it with -f FILE")
    if chosen is not None and chosen.identity().base != "repository":
        raise UsageError(f"{chosen.file} is not in a git repository", hint="the workflow checks one out")
    layout = chosen.layout if chosen else find_store(environ=environ)
    if chosen and run == LATEST and not options.other_pipeline:
        run_id = newest_run(chosen, environ=environ)
    else:
        run_id = _run_id(layout, run)
    try:
        log = load_log(layout, run_id)
    except RunnableError:  # it may well be in a registry only
        log = None
    typed = ["dispatch", run_id]
    if chosen is not None:
        if log is not None and not options.other_pipeline:
            require_same(chosen, log, typed=typed, environ=environ, layout=layout)
        return DispatchTarget(layout, run_id, log, chosen, is_own=True)
    project = None
    try:
        if log is not None:
            project = project_of(log, layout.folder.parent, typed=typed, environ=environ, layout=layout)
        else:
            project = load_project(None)
    except PipelineError:  # what counts is the file of the code that the run is resumed with
        pass
    except UsageError:
        if options.ref is None:
            raise
    return DispatchTarget(layout, run_id, log, project, is_own=log is not None)


def _run_id(layout: Layout, run: str) -> str:
    try:
        run_id = resolve_id(layout, run)
    except RunNotFoundError:
        if run == LATEST:
            raise
        run_id = run
    if not TAG.fullmatch(run_id):
        raise UsageError(f"`{run}` is not a run id", hint=f"`{of_store(layout, 'runs')}` lists them")
    return run_id


def _parameters(target: DispatchTarget, params: list[str]) -> dict[str, object]:
    """Parse `--param` values: their types are those of the pipeline file, else those of the run."""
    invocations = target.log.invocations if target.log else ()
    original, redacted = (invocations[-1].parameters, invocations[-1].redacted) if invocations else ({}, [])
    known = KnownParameters.of(target.project.pipeline if target.project else None)
    readable = {name: value for name, value in original.items() if name not in redacted}
    parameters = parse_param_options(params, known.after(readable, f"run {target.run_id}"))
    for name in parameters.keys() - original.keys() - known.values.keys() if invocations else ():
        _note(f"run {target.run_id} has no parameter {name}; {did_you_mean(name, original, 'it is new')}")
    return parameters


def _check_step(target: DispatchTarget, options: DispatchOptions) -> None:
    """Raise for an invalid step name, or for a step that the current code does not have if that code is used."""
    step = options.from_step
    if step is None:
        return
    steps = [*(target.project.pipeline.steps if target.project else ()), *(target.log.steps if target.log else ())]
    is_unknown = steps and step not in steps and options.ref is None
    if is_unknown or not STEP_NAME.fullmatch(step):
        hint = did_you_mean(step, steps, f"the steps are: {', '.join(steps)}" if steps else "")
        if not target.is_own and not target.log:
            hint += "; a run of another pipeline file than the folder's: name it with -f FILE"
        raise UsageError(f"--from {step}: no such step", hint=hint)


def _ref(
    target: DispatchTarget, connection: Connection, ref: str | None, environ: Mapping[str, str]
) -> tuple[str, str]:
    """Return the code to resume with: `ref`, else the current branch, which must be on the server; and its commit.

    "" leaves it. The commit is "" where this folder is no clone of the repository.

    Raises `RefusedError`.
    """
    actions, repository = connection.actions, connection.repository
    if ref is not None:
        commit = actions.commit_of(ref)
        if commit is None:
            raise RefusedError(f"{repository} has no branch, tag or commit {ref}", hint="is it pushed?")
        return ref, commit if connection.is_local else ""
    if not connection.is_local:
        _note(f"this folder is not a clone of {repository}: its default branch is used (--ref selects another)")
        return "", ""
    clone = Clone.around(Path.cwd(), environ)
    head, branch = clone.head(), clone.branch()
    if not head:
        raise RefusedError("there is no commit to resume with", hint="commit and push, or name a --ref")
    project = target.project
    code = code_of(project, products_of(project.layout), environ) if project else _code_here(environ)
    if (state := code.state()).changes:
        _note(f"uncommitted changes are not included: {state.message}")
    if not branch:
        if actions.commit_of(head) is None:
            raise RefusedError(f"commit {head[:12]} is not on {repository}", hint="push it, or name a --ref")
        return head, head
    there = actions.commit_of_branch(branch)
    if there is None:
        raise RefusedError(f"the branch {branch} is not on {repository}", hint=f"git push -u origin {branch}")
    if there != head:
        unpushed = clone.commits_between(there, head)
        if unpushed or actions.commit_of(head) is None:
            ahead = f", {pluralize(unpushed, 'commit')} ahead," if unpushed else ""
            raise RefusedError(
                f"{branch} is at {head[:12]} here{ahead} and at {there[:12]} on {repository}",
                hint=f"git push; or --ref {branch} uses the commit there",
            )
        _note(f"{branch} is at {there[:12]} on {repository}, which is used; here it is at {head[:12]}")
    return branch, there


def _code_here(environ: Mapping[str, str]) -> Code:
    return Code(Path.cwd(), environ=environ)


def _pull_source(
    target: DispatchTarget, connection: Connection, settings: Settings, environ: Mapping[str, str]
) -> list[str] | None:
    """Return the option that `pull` needs to find the run; None where it is unknown."""
    http = http_option(settings.plain_http)
    own = target.project.pipeline.registry if target.project and target.is_own else None
    default = Registries(settings, environ).default(in_pipeline=lambda: registry_of(target.layout.folder.parent))
    if read_origin(target.layout, target.run_id) or (default and own in (None, default)):
        return http
    registry = settings.registry or own or connection.repository.registry
    return ["--from", registry, *http] if registry else None


def _note(text: str) -> None:
    console.err(f"note: {text}")


_LINK = re.compile(r"(https?://[^/\s]+/[^/\s]+/[^/\s]+)/actions/runs/([0-9]+)(?:[/?#].*)?")


def rerun_failed(
    github_run_id: str,
    *,
    repo: str | None,
    watching: bool,
    every_s: float,
    settings: Settings,
    environ: Mapping[str, str],
) -> int:
    """Run the failed jobs of a workflow run again, given its number or its URL; the URL is printed."""
    link = _LINK.fullmatch(github_run_id)
    number = link[2] if link else github_run_id
    if not re.fullmatch(r"[1-9][0-9]{0,18}", number):
        at = ["--repo", repo] if repo else []
        other = (
            f"; a run id of runnable-ci is for `{command('dispatch', github_run_id, *at)}`"
            if TAG.fullmatch(github_run_id)
            else ""
        )
        raise UsageError(
            f"`{github_run_id}` is not the number of a workflow run",
            hint=f"it is the number at the end of a run's URL{other}",
        )
    connection = connect(repo or (link[1] if link else None), settings=settings, environ=environ)
    actions = connection.actions
    run = actions.run(int(number))
    actions.rerun_failed(run)
    url = actions.link_of(run)
    show_link(url)
    if not watching:
        return 0
    started = StartedRun(run.id, url)
    return watch(actions, lambda: started, every_s=every_s, after_attempt=run.run_attempt, offer=None)
