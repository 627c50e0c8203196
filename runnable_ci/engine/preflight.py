"""What steps need and what they are given, compared before anything runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from runnable_ci.errors import RunnableError, StepError, UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline, parameters_looked_up
from runnable_ci.pipeline.patterns import as_glob, can_overlap, globs_of
from runnable_ci.pipeline.project import Project, load
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.pipeline.toml_file import names_in
from runnable_ci.runs.files.workspace import Workspace
from runnable_ci.runs.products.unfinished import unfinished
from runnable_ci.steps import accepts, required_parameters, takes
from runnable_ci.steps.python import find_module, find_source, is_put_before


def load_project(path: Path | None) -> Project:
    """Return the project of a pipeline file, with the functions that its steps name, as `pipeline.project.load` does.

    Raises `PipelineError` too where a module is there and can have no such function, or a notebook is not there.
    """
    project = load(path)
    pipeline = project.pipeline.outlined()
    require_scripts(pipeline)
    for step in pipeline.steps.values():
        if step.kind == "notebook":
            from runnable_ci.steps.notebook.requirements import require_notebook  # few pipelines have one

            require_notebook(pipeline, project.workspace, step)
        if step.is_interpreted:
            try:
                takes(step, project.workspace)
            except StepError as e:
                if _is_made_before(pipeline, step, project.workspace):
                    continue
                raise pipeline.error(step, f"{step.kind}: {e.message}", e.hint, key=step.kind) from e
    return project


def _is_made_before(pipeline: Pipeline, step: Step, workspace: Path) -> bool:
    """Return whether an earlier step declares that it makes the module, or notebook, of a step.

    What is there now tells nothing then.
    """
    if step.kind == "notebook":
        return is_put_before(pipeline, step, step.command)
    file = find_module(step, workspace) if step.kind == "python" else None
    return file is not None and is_put_before(pipeline, step, file.relative_to(workspace).as_posix())


def missing_parameters(pipeline: Pipeline, workspace: Path, given: Collection[str]) -> Mapping[str, list[str]]:
    """Return step → the parameters that it needs and that neither an earlier step nor `given` provides."""
    found: dict[str, list[str]] = {}
    pipeline = pipeline.outlined()
    for step in pipeline.steps.values():
        if _is_made_before(pipeline, step, workspace):
            continue
        known = {*given, *step.bound, *step.defaults}
        required = [*required_parameters(step, workspace), *parameters_looked_up(step)]
        absent = [name for name in dict.fromkeys(required) if name not in known]
        if absent:  # looked for only then: the steps above each step of a long chain add up
            returned = {name for above in pipeline.ancestors(step.name) for name in pipeline.steps[above].returns}
            absent = [name for name in absent if name not in returned]
        if absent:
            found[step.name] = absent
    return found


def require(pipeline: Pipeline, workspace: Path, given: Collection[str], running: Collection[str]) -> None:
    """Raise `PipelineError` for the first of the `running` steps that lacks a parameter."""
    missing = missing_parameters(pipeline, workspace, given)
    pipeline, running = pipeline.outlined(), outlined_names(pipeline, running)
    for name, absent in missing.items():
        if name in running:
            raise pipeline.error(
                pipeline.steps[name],
                needs(pipeline, name, absent),
                _how_to_give(pipeline, workspace, pipeline.steps[name], absent[0], given),
                key="python" if pipeline.steps[name].kind == "python" else "parameters",
            )


def outlined_names(pipeline: Pipeline, names: Collection[str]) -> Collection[str]:
    """Return the names of steps in the outline of their pipeline; of those with branches, also of all in them."""
    if all(step.branching is None for step in pipeline.steps.values()):
        return names
    from runnable_ci.pipeline.branches.expansion import outlined_name  # few pipelines need it

    outlined = {outlined_name(name) for name in names}
    return {name for name in pipeline.outlined().steps if outlined.intersection([name, *groups_of(name)])}


def require_inputs(project: Project, running: Collection[str], say: Callable[[str], None]) -> None:
    """Raise `PipelineError` for a file that a `running` step gets, that is not there and that no step can make.

    What steps that come before may make without a `put` is only warned of, by `say`. Nothing is known of the files
    while killed processes have left some aside.
    """
    if unfinished(project.layout):
        return
    files = Workspace(project.workspace)
    pipeline, running = project.pipeline.outlined(), outlined_names(project.pipeline, running)
    for step in (step for step in pipeline.steps.values() if step.name in running):
        for pattern in map(as_glob, step.get or ()):
            if not any(_is_there(files, glob) for glob in globs_of(pattern)):
                _judge_input(pipeline, project.workspace, step, pattern, say)


def _is_there(files: Workspace, pattern: str) -> bool:
    try:
        return bool(files.expand([pattern])[pattern])
    except RunnableError:  # the step itself says what is wrong with it
        return True


def _judge_input(pipeline: Pipeline, workspace: Path, step: Step, pattern: str, say: Callable[[str], None]) -> None:
    from runnable_ci.steps.earlier import chance_of, misspelt  # nearly always all is there

    chance = chance_of(pipeline, workspace, step, [pattern])
    if chance in ("declared", "named"):
        return
    folder = PurePosixPath(pattern).parent
    present = [(folder / name).as_posix() for name in names_in(workspace / folder)]
    known = [*present, *(put for name in pipeline.ancestors(step.name) for put in pipeline.steps[name].put)]
    others = (other for other in pipeline.steps.values() if other.name != step.name)
    maker = next((other.name for other in others if _puts(other, pattern)), "")
    problem = f"get: no file matches `{globs_of(pattern)[0]}`, and no earlier step stores one"
    close = misspelt(pattern, known)
    is_own = _puts(step, pattern)  # what it changed or removed may be put back before it runs
    if not is_own and (chance == "none" or maker or close):
        otherwise = "add the file, or list it in `put` of the step that makes it, and that step in `needs`"
        hint = f"`{maker}` stores it: list `{maker}` in `needs`" if maker else did_you_mean(pattern, known, otherwise)
        raise pipeline.error(step, problem, hint, table="catalog", key="get")
    suggestion = did_you_mean(pattern, known, "if one makes it, list it in its `put`")
    say(f"warning: {pipeline.file}: step {step.shown}: {problem}; {suggestion}")


def _puts(step: Step, pattern: str) -> bool:
    return any(can_overlap(as_glob(put), pattern) for put in step.put)


def expression_warnings(pipeline: Pipeline) -> list[str]:
    """Return a warning for each step with an expression of GitHub's workflows, which nothing replaces here."""
    pipeline = pipeline.outlined()
    if not any("${{" in step.command for step in pipeline.steps.values()):
        return []
    from runnable_ci.pipeline.diagnostics.expressions import expressions

    found = {step.shown: expression for step in pipeline.steps.values() for expression in expressions(step)}
    return [f"warning: {pipeline.file}: step {name}: {expression}" for name, expression in found.items()]


def required_by(workspace: Path) -> Callable[[Step], Collection[str]]:
    """Return what tells the parameters without which a step cannot run, as far as is known."""

    def required(step: Step) -> Collection[str]:
        try:
            return required_parameters(step, workspace)
        except StepError:  # of a function that an earlier step is to write
            return ()

    return required


def require_scripts(pipeline: Pipeline) -> None:
    """Raise `PipelineError` for a script with an expression that its shell can only fail on."""
    for step in pipeline.steps.values():
        if "${{" in step.command:
            from runnable_ci.pipeline.diagnostics.expressions import expressions

            if wrong := next((expression for expression in expressions(step) if expression.is_fatal), None):
                message = f"run: `{wrong.text}` is not replaced in a script"
                raise pipeline.error(step, message, wrong.right_form(), key="run")


def needs(pipeline: Pipeline, step: str, absent: Collection[str]) -> str:
    """Describe parameters that a step needs and nothing provides."""
    chosen = pipeline.steps[step]
    what = f"`{chosen.command}`" if chosen.kind == "python" else "`parameters`: it"
    return f"{what} needs {', '.join(f'`{name}`' for name in absent)}, which no parameter or earlier step provides"


def parameter_warnings(
    pipeline: Pipeline,
    workspace: Path,
    given: Collection[str],
    *,
    known: Collection[str],
    typed: Collection[str] = (),
) -> Mapping[str, str]:
    """Return warnings about parameters that were set, by name: unknown ones, and those that are overwritten.

    A shell step may read any of them, so most of this is no error. Where it is unknown what a step takes, a name
    that nothing resembles is let pass. Raises `UsageError` for one that was `typed`, that no step is known to take and
    that is close to a known one.
    """
    found: dict[str, str] = {}
    pipeline = pipeline.outlined()
    taken = {name for step in pipeline.steps.values() for name in _names_taken(step, workspace)}
    for name in given:
        answers = {_accepts(step, workspace, name) for step in pipeline.steps.values()}
        suggestion = did_you_mean(name, [*known, *taken.difference(known)])
        problem = f"unknown parameter {name}: no step takes it"
        if giver := next((step.shown for step in pipeline.steps.values() if name in step.returns), None):
            found[name] = f"parameter {name} is overwritten by the return value of step `{giver}`"
        elif name in known or True in answers:
            continue
        elif suggestion and None not in answers and name in typed:
            raise UsageError(problem, hint=f"{suggestion} --allow-unused passes it as it is")
        elif suggestion or None not in answers:
            found[name] = f"{problem}{suggestion and f'; {suggestion}'}"
    return found


def _accepts(step: Step, workspace: Path, name: str) -> bool | None:
    try:
        return accepts(step, workspace, name)
    except StepError:  # a function that an earlier step is to write
        return None


def _names_taken(step: Step, workspace: Path) -> Collection[str]:
    """Return the parameters that a step names itself."""
    if step.kind != "python":
        return step.parameters or ()
    try:
        return takes(step, workspace) or ()
    except StepError:
        return ()


def _how_to_give(pipeline: Pipeline, workspace: Path, step: Step, name: str, given: Collection[str]) -> str:
    for other in pipeline.steps.values():
        if name in other.returns:
            prefix = step.name.rpartition(".")[0]
            beside = other.name.removeprefix(f"{prefix}.").partition(".")[0]  # as it is called where this one stands
            return f"`{beside}` returns it: a step that needs it lists `{beside}` in `needs`"
    if close := did_you_mean(name, given):
        return close
    before = [pipeline.steps[above] for above in pipeline.steps if above in pipeline.ancestors(step.name)]
    form = f'returns = ["{name}"]'
    maker = next((other for other in reversed(before) if _names(other, workspace, name)), None)
    if maker:
        how = (
            f"add `{name}` to its `returns`"
            if maker.returns
            else f"write {form} in [steps.{maker.name.rpartition('.')[2]}]"
        )
        return f"if `{maker.shown}` returns it: {how}"
    way = f"set it under [parameters], or with --param {name}=…"
    return f"{way}; if an earlier step returns it, write {form} there" if before else way


def _names(step: Step, workspace: Path, name: str) -> bool:
    """Return whether a step's script, or the text of its function, has a name."""
    if step.kind != "python":
        return bool(re.search(rf"\b{name}\b", step.command))
    source = find_source(step, workspace)
    return source is not None and bool(re.search(rf"\b{name}\b", source.text))
