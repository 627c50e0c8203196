"""A run made again from what is recorded of it, and compared with it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.contents.compare import ContentComparison, Reader, Tolerance
from runnable_ci.analysis.comparison.model import RunComparison, StepComparison
from runnable_ci.analysis.comparison.requested import compare_put_file
from runnable_ci.analysis.comparison.runs import compare
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.adopt import bring
from runnable_ci.analysis.reproduction.determinism.results import is_checkpoint
from runnable_ci.analysis.reproduction.environments import activated, make_environment
from runnable_ci.analysis.reproduction.images import find_images
from runnable_ci.analysis.reproduction.inputs import ProvidedInputs, provide_inputs, read_here
from runnable_ci.analysis.reproduction.left_out import is_left_out, of_log, require_known, steps_left_out
from runnable_ci.analysis.reproduction.not_held import not_held_equal
from runnable_ci.analysis.reproduction.verdicts import step_verdicts, whole_verdict
from runnable_ci.analysis.scratch import note_store, scratch_folder
from runnable_ci.engine.code.linked_environment import link_environment
from runnable_ci.engine.code.recorded_tree import newest_with_code, rebuild_recorded
from runnable_ci.engine.new_run import prepare_run
from runnable_ci.engine.options import Options, ReuseOptions, RunOptions
from runnable_ci.engine.parts.mock_options import MockOptions
from runnable_ci.engine.parts.step_selection import PartialOptions, StepSelection
from runnable_ci.engine.preflight import load_project
from runnable_ci.engine.provenance.step_environments import StepEnvironments
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import CodeIdentityError, RunnableError, SystemCallError, UsageError
from runnable_ci.pipeline.branches.expansion import outlined_name
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.step import groups_of
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.runs.notes.notes_model import Reproduction
from runnable_ci.runs.paths import shared
from runnable_ci.runs.reader import load, suggest_pull
from runnable_ci.runs.reuse.results import results_of
from runnable_ci.runs.run_identity import run_identity
from runnable_ci.steps.interpreter import find_interpreter
from runnable_ci.vcs.git import Git

EnvironmentChoice = Literal["here", "recorded"]
_SIGNALLED: Final = 128
"""Exit codes above are of a signal that ended the run."""
LITTLE: Final = 1024 * 1024
"""Bytes; where less is free, a step may fail for want of space."""
PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
CONTENTS_MAX: Final = 200
"""Files that differ of which the contents are compared."""


class ReproduceOptions(NamedTuple):
    """What a reproduction is asked for."""

    environment: EnvironmentChoice = "here"
    tolerance: Tolerance = Tolerance()
    params: Sequence[str] = ()
    """`NAME=VALUE`, for parameters that the run log does not have, as they were secrets."""
    times: int = 1
    """How often it is made, to find what does not come out the same twice."""
    skip: Sequence[str] = ()
    """Steps that are not run."""
    include: Sequence[str] = ()
    """Steps that are run though they would be left out."""


class RunInterruptedError(RunnableError):
    """A run was cancelled while it was made again: nothing of it is kept."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("cancelled: nothing is kept of the reproduction")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class PreparedTree:
    """The code of a run made again in a folder, with its inputs, ready to run."""

    workspace: Path
    """The folder of the pipeline here, from which it was made."""
    project: Project
    options: Options
    inputs: ProvidedInputs
    missing: Sequence[str]
    """What of the code could not be rebuilt."""
    not_held: Sequence[str]
    """What cannot be held equal, a line each."""
    left_out: Mapping[str, str]
    """The steps that are not run, with why."""
    no_image: Mapping[str, str]
    """Those that cannot run, since their image is not here."""
    images: RunLog | None
    """The run in whose images they run; None: in what these are called now."""


@dataclass(frozen=True, slots=True)
class Reproduced:
    """A run that was made again."""

    run: ComparedRun
    """In a store of its own, which is gone when the tree is."""
    compared: RunComparison
    contents: Mapping[tuple[str, str], ContentComparison]
    record: Reproduction
    """The verdicts."""


@contextmanager
def prepared_tree(
    found: ComparedRun, workspace: Path, options: Options, asked: ReproduceOptions, *, at: Path | None = None
) -> Iterator[PreparedTree]:
    """Make the code of a run again in a folder that is removed in the end, with its inputs and its environment.

    `workspace` is the folder of the pipeline here, `at` an empty folder to do it in. Raises
    `CodeIdentityError`, `StepError`, `UsageError`.
    """
    log = found.log
    attempt = newest_with_code(log)
    if not attempt.code_identities[0].code_identifier:
        raise CodeIdentityError(f"run {log.run_id} was made outside of a repository: its code is not recorded")
    with ExitStack() as stack:
        folder = at or stack.enter_context(scratch_folder())
        root = folder.resolve() / _folder_name(log)
        missing = rebuild_recorded(found.layout, log, attempt, root, environ=options.environ, clone=workspace)
        name_author(workspace, root, options.environ)
        file = _pipeline_file(log, root)
        project = load_project(file)
        note_store(folder, project.layout.folder)
        tree = project.workspace
        require_known("--skip", asked.skip, project.pipeline)
        require_known("--include", asked.include, project.pipeline)
        left_out = steps_left_out(found.read(), project.pipeline, asked.skip, asked.include)
        inputs = provide_inputs(found, workspace, tree, root, left_out)
        held, lacking = asked.environment == "recorded", {}
        if held and (outside := _newest_outside_of_containers(log)):
            recorded = log.environments.get(outside.environment, Environment())
            lacking = make_environment(recorded, project.pipeline, tree, options.environ)
            environ = activated(project.pipeline, tree, options.environ)
            options = replace(options, environ=environ)
        elif not held:
            link_environment(project.pipeline, workspace, tree)
        now = _environment_of(
            project, next((name for name, step in log.steps.items() if attempt in step.attempts), ""), options.environ
        )
        images = find_images(project, options, log, left_out, is_recorded=held)
        not_held = [*not_held_equal(found.read(), now, attempt, left_out, holds_packages=held), *images.others]
        not_held += [f"{why}: it is left out" for why in lacking.values()]
        opened = project.opened(options.environ)
        yield PreparedTree(
            workspace, opened, options, inputs, missing, not_held, left_out, images.missing, log if held else None
        )


def _folder_name(log: RunLog) -> str:
    """Return how the tree's folder is called: a pipeline without a name in its file has that of its folder."""
    is_plain = PLAIN_NAME.fullmatch(log.name) is not None
    return log.name if is_plain else "code"


def name_author(workspace: Path, root: Path, environ: Mapping[str, str]) -> None:
    """Let git in the tree know the person that it knows in the workspace here, who runs this."""
    here, tree = Git(str(workspace), environ), Git(str(root), environ)
    for key in ("user.name", "user.email"):
        with suppress(CodeIdentityError):  # it knows none
            tree("config", key, here("config", "--get", key).decode(errors="surrogateescape").rstrip("\n"))


def _newest_outside_of_containers(log: RunLog) -> StepAttempt | None:
    """Return the newest attempt in the project's own environment; those in containers have their image's."""
    attempts = [it for step in log.steps.values() for it in step.attempts if "container" not in it.definition]
    return max(attempts, key=lambda it: it.start_time, default=None)


def _environment_of(project: Project, step: str, environ: Mapping[str, str]) -> Environment | None:
    """Return in what a step would run now; None where that cannot be seen, or the pipeline file has no such step."""
    steps = project.pipeline.outlined().steps
    if step not in steps or steps[step].container is not None:
        return None
    with suppress(OSError, RunnableError):
        interpreter = find_interpreter(project.pipeline, project.workspace, environ)
        return StepEnvironments(interpreter, project.workspace, environ, with_machine=True).of(steps[step])
    return None


def _pipeline_file(log: RunLog, root: Path) -> Path:
    run = PipelineIdentity.recorded(log.name, log.run_config)
    names = [run.file] if run.base == "repository" else []
    for name in names:
        file = (root / name).resolve()
        if file.is_file() and file.is_relative_to(root):
            return file
    raise UsageError(
        f"the pipeline file of run {log.run_id}, {run.file or 'which it does not name'}, is not in the recorded code",
        hint="only runs whose pipeline file is in a repository can be made again",
    )


def make_again(
    found: ComparedRun, tree: PreparedTree, run_id: str, asked: ReproduceOptions, reader: Reader
) -> Reproduced:
    """Run a pipeline once more in a prepared tree, without reuse, and compare the runs.

    Raises what a run raises before its first step, and `RunInterruptedError`.
    """
    again = run_again(found, tree, run_id, asked.params)
    log = found.log
    _require_space(log, again.log, tree.project.workspace)
    compared = compare_results(found, again, tree.project.pipeline)
    contents = _contents(found, again, compared, asked.tolerance, reader)
    left_out = of_log(log, tree.left_out)
    elsewhere = read_here(again, tree.workspace, tree.project.workspace)
    mocked = {name: "it was mocked" for name, step in log.steps.items() if step.attempts and step.attempts[-1].mock}
    skipped = {key: f"left out: {why}" for key, why in left_out.items()}
    blocked = {**elsewhere, **tree.inputs.missing, **mocked, **of_log(log, tree.no_image), **skipped}
    verdicts = step_verdicts(compared, contents, blocked, asked.tolerance, _begun_from(log))
    record = Reproduction(
        run_id=log.run_id,
        identity=run_identity(log),
        verdict=whole_verdict(verdicts, left_out),
        steps=verdicts,
        left_out=[key for key in left_out if key in verdicts],
        rtol=asked.tolerance.relative,
        atol=asked.tolerance.absolute,
        not_held=[*tree.not_held, *(f"not rebuilt: {line}" for line in tree.missing)],
    )
    return Reproduced(again, compared, contents, record)


def _require_space(then: RunLog, now: RunLog, folder: Path) -> None:
    """Raise `SystemCallError` where a step failed that had succeeded, and the disk is full: that says nothing of it."""
    ended = [
        {name: step.attempts[-1].outcome for name, step in log.steps.items() if step.attempts} for log in (then, now)
    ]
    is_worse = any(outcome == "failed" and ended[0].get(name) == "succeeded" for name, outcome in ended[1].items())
    if is_worse and shutil.disk_usage(folder).free < LITTLE:
        raise SystemCallError(
            f"hardly any space is left on the disk of {folder}, where a step failed",
            hint="free some space, or name a folder on another disk in the variable TMPDIR",
        )


def compare_results(a: ComparedRun, b: ComparedRun, pipeline: Pipeline) -> RunComparison:
    """Compare two runs of a pipeline; what they wrote as checkpoints is no result."""
    compared = compare(a.read(), b.read(), compare_code(a.log, b.log, None))
    steps = tuple(_without_checkpoints(step, checkpoints_of(pipeline, step.name)) for step in compared.steps)
    return replace(compared, steps=steps)


def _without_checkpoints(step: StepComparison, patterns: Sequence[str]) -> StepComparison:
    if not patterns:
        return step
    outputs = (one for one in step.outputs if one.kind != "file" or not is_checkpoint(one.name, patterns))
    return replace(step, outputs=tuple(outputs))


def checkpoints_of(pipeline: Pipeline, step: str) -> Sequence[str]:
    """Return the patterns of a step's checkpoint, by the name that it has in a log."""
    found = pipeline.outlined().steps.get(outlined_name(step))
    return found.checkpoint if found else ()


def run_again(
    found: ComparedRun, tree: PreparedTree, run_id: str, params: Sequence[str], *, until: Sequence[str] = ()
) -> ComparedRun:
    """Run a pipeline in a prepared tree with the parameters of a run, all of it or `until` some steps.

    Raises what a run raises before its first step, and `RunInterruptedError`.
    """
    tag, mocks = f"reproduces {found.log.run_id}", stand_ins(found, tree, until)
    return run_in_tree(tree, run_id, _begun_with(found.log), params, tag=tag, until=until, mocks=mocks)


def run_in_tree(
    tree: PreparedTree,
    run_id: str,
    values: Mapping[str, Any],
    params: Sequence[str],
    *,
    tag: str,
    until: Sequence[str] = (),
    mocks: MockOptions | None = None,
    reuse: ReuseOptions = ReuseOptions("never"),  # noqa: B008 - it does not change
) -> ComparedRun:
    """Run a pipeline in a prepared tree with these parameters, all of it or `until` some steps.

    Raises what a run raises before its first step, and `RunInterruptedError`.
    """
    with scratch_folder() as folder:
        file = folder / "parameters.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        run_options = RunOptions(
            run_id,
            mocks=mocks,
            images=tree.images,
            is_kept=False,
            tag=tag,
            params_files=[file],
            params=params,
            allow_unused=True,
            part=PartialOptions(StepSelection(until=until)) if until else None,
            reuse=reuse,
        )
        _, code = prepare_run(RunSession.of(tree.project, tree.options), run_options).execute()
    layout = tree.project.layout
    log = load(layout, run_id)
    if log.outcome == "cancelled" or code > _SIGNALLED:
        raise RunInterruptedError(code)
    return ComparedRun(layout, log)


def stand_ins(found: ComparedRun, tree: PreparedTree, until: Sequence[str] = ()) -> MockOptions | None:
    """Have what is left out give what it gave in the first run, of which the contents are brought into the tree.

    None where nothing is left out of what runs.
    """
    log, layout = found.log, tree.project.layout
    left_out = left_out_until(tree, until)
    if not left_out:
        return None
    keys = [key for key in log.steps if is_left_out(key, left_out)]
    around = {group for key in keys for group in groups_of(key)}
    results = results_of(log, [key for key in log.steps if key in around or key in keys])
    layout.create()
    with shared(layout), suggest_pull(found.layout, log.run_id):
        bring(found.layout, layout, layers(results).values())
    return MockOptions(left_out, results=results)


def left_out_until(tree: PreparedTree, until: Sequence[str]) -> list[str]:
    """Return the steps that are not run of those that a run `until` some steps has; of all where none are named."""
    running = StepSelection(until=until).part_of(tree.project.pipeline).steps
    return [name for name in {**tree.left_out, **tree.no_image} if name.partition(".")[0] in running]


def _begun_from(log: RunLog) -> dict[str, str]:
    """Return the steps that began from what an earlier run or attempt left, with what that was."""
    found = {}
    for name, step in log.steps.items():
        for last in step.attempts[-1:]:
            if last.definition.get("persist"):
                found[name] = "it extends what an earlier run left (`persist`)"
            elif last.checkpoint_used is not None:
                found[name] = "it resumed from a checkpoint then, and started over now"
    return found


def _begun_with(log: RunLog) -> dict[str, Any]:
    """Return the parameters with which the run began; not those that were secrets."""
    last = log.invocations[-1] if log.invocations else None
    return {name: value for name, value in last.parameters.items() if name not in last.redacted} if last else {}


def _contents(
    a: ComparedRun, b: ComparedRun, compared: RunComparison, tolerance: Tolerance, reader: Reader
) -> dict[tuple[str, str], ContentComparison]:
    found: dict[tuple[str, str], ContentComparison] = {}
    for step in compared.steps:
        for one in step.outputs:
            if one.kind == "file" and one.change == "changed" and len(found) < CONTENTS_MAX:
                content = compare_put_file(step.name, one.name, a, b, reader, tolerance)
                if content is not None:
                    found[step.name, one.name] = content
    return found
