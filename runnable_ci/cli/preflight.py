"""`runnable-ci preflight`: what could stop a run, or keep it from being published, found out before any of it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from runnable_ci.config import Settings
from runnable_ci.engine.preflight import load_project, require_inputs
from runnable_ci.errors import RunnableError, StoreError, UsageError
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.reader import load, resolve_id
from runnable_ci.runs.remote.readiness import Finding, check_registry, check_space, stored_bytes
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.steps.interpreter import check_interpreter
from runnable_ci.util.console import console, is_actions
from runnable_ci.util.text import listed, pluralize
from runnable_ci.vcs.identity import Code


def preflight(
    file: Path | None, *, to: str | None, settings: Settings, environ: Mapping[str, str], as_json: bool
) -> int:
    """Print what was found; the exit code is that of the first error, 0 where there is none."""
    findings = list(_findings(file, to, settings, environ))
    if as_json:
        console.json(json.dumps([_as_values(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            console.out(f"{finding.state:7}  {finding.subject:8}  {finding.message}")
            console.out(*(f"{'':19}{line}" for line in (finding.problem.lines()[1:] if finding.problem else ())))
    return next((it.problem.exit_code for it in findings if it.problem and it.is_fatal), 0)


def _findings(file: Path | None, to: str | None, settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    registries = Registries(settings, environ)
    try:
        project = load_project(file).opened(environ)
    except RunnableError as e:
        yield Finding("pipeline", e.message, e, is_fatal=True)
        return
    steps = pluralize(len(project.pipeline.steps), "step")
    yield Finding("pipeline", f"{project.pipeline.file}: {project.pipeline.name}, {steps}")
    yield from _inputs(project)
    if any(step.is_interpreted and not step.container for step in project.pipeline.outlined().steps.values()):
        yield _interpreter(project, environ)
    yield from _engine(project, settings, environ)
    yield _code(project, environ)
    yield _registry(project, to, registries, environ)
    yield check_space(project.workspace, _size_of_last(project), environ, is_fresh=False)


def _inputs(project: Project) -> Iterator[Finding]:
    """Yield what is wrong with the files that steps get."""
    warnings: list[str] = []
    try:
        require_inputs(project, project.pipeline.steps, warnings.append)
    except RunnableError as e:
        yield Finding("files", e.message, e, is_fatal=True)
    for warning in warnings:
        text = warning.removeprefix("warning: ")
        yield Finding("files", text, UsageError(text))


def _interpreter(project: Project, environ: Mapping[str, str]) -> Finding:
    warnings: list[str] = []
    try:
        interpreter = check_interpreter(project.pipeline, project.workspace, environ, warnings.append)
    except RunnableError as e:
        return Finding("python", e.message, e, is_fatal=True)
    if warnings:
        text = listed(warning.removeprefix("warning: ") for warning in warnings)
        return Finding("python", text, UsageError(text))
    return Finding("python", f"python steps run in {interpreter}")


def _engine(project: Project, settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what runs the steps that have a container, if there are any, and with which credentials."""
    containers = [step.container for step in project.pipeline.outlined().steps.values() if step.container]
    if not containers:
        return
    from runnable_ci.steps.containers.engines import find_engine  # few pipelines need it
    from runnable_ci.steps.containers.images import require_credentials

    try:
        engine = find_engine(environ, settings.container_engine)
        for container in containers:
            require_credentials(container, environ)
    except RunnableError as e:
        yield Finding("engine", e.message, e, is_fatal=True)
        return
    images = listed(dict.fromkeys(container.image for container in containers), at_most=3)
    yield Finding("engine", f"{engine.program} runs {images}")


def _code(project: Project, environ: Mapping[str, str]) -> Finding:
    """Return whether the code of a run will be known: a run without is possible, and cannot be rebuilt."""
    state = Code(project.workspace, environ=environ).look()
    if not state.commit:
        text = f"the code of a run is not known: {state.message}"
        return Finding("git", text, UsageError(text, hint="by its commit the code of a run is compared and rebuilt"))
    differs = "" if state.dependable else ", with uncommitted changes"
    return Finding("git", f"{state.ref} at {state.commit[:7]}{differs}")


def _registry(project: Project, to: str | None, registries: Registries, environ: Mapping[str, str]) -> Finding:
    """Return whether runs can be published; where no registry is set, they are not to be, but in a job they are."""
    named = to or registries.default(in_pipeline=lambda: project.pipeline.registry)
    if named is None and not is_actions(environ):
        return Finding("registry", "none is set: runs stay on this machine")
    try:
        registry = registries.named(to, in_pipeline=lambda: project.pipeline.registry)
    except UsageError as e:
        return Finding("registry", e.message, e, is_fatal=True)
    return check_registry(registry, environ)


def _size_of_last(project: Project) -> int:
    try:
        return stored_bytes(load(project.layout, resolve_id(project.layout, "latest")))
    except RunnableError:  # there is none, or it cannot be read
        return 0


def _as_values(finding: Finding) -> dict[str, str]:
    problem = finding.problem or StoreError("")
    return {
        "subject": finding.subject,
        "state": finding.state,
        "message": finding.message,
        "hint": problem.hint,
        "fix": problem.fix,
    }
