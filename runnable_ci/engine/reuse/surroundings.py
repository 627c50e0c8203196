"""What a step would run in now, beside what an attempt in another run ran in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runnable_ci.engine.options import job_container
from runnable_ci.engine.provenance.environment_changes import changed_packages, normalized
from runnable_ci.engine.reuse.candidate import Candidate
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import Environment, StepAttempt
from runnable_ci.steps.containers.image_names import step_image
from runnable_ci.steps.interpreter import describe
from runnable_ci.util.text import listed
from runnable_ci.version import VERSION

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers


@dataclass(slots=True, eq=False, repr=False)
class Here:
    """This machine, and the images that steps run in."""

    session: RunSession
    containers: StepContainers | None
    _environments: dict[str, Environment] = field(default_factory=dict)

    def difference(self, step: Step, found: Candidate) -> str:
        """Return in what it differs from what an attempt ran in; empty where in nothing that counts."""
        last = found.attempt
        then = found.log.environments.get(last.environment)
        if then is None:
            return "what it ran in was not recorded"
        here = self._environment()
        if (then.os.partition(" ")[0], then.architecture) != (here.os.partition(" ")[0], here.architecture):
            return f"{then.os.partition(' ')[0]} {then.architecture} → {here.os.partition(' ')[0]} {here.architecture}"
        if step.container is not None:
            return self._own_image(step, last)
        return self._whole_image(last) or _of_packages(step, found, then, here)

    def _environment(self) -> Environment:
        session = self.session
        if "" not in self._environments:
            self._environments[""] = describe(
                session.interpreter, session.project.workspace, session.options.environ, tool_version=VERSION
            )
        return self._environments[""]

    def _own_image(self, step: Step, last: StepAttempt) -> str:
        then = step_image(last.code_identities)
        if then is None or not then.code_identifier_dependable or self.containers is None or step.container is None:
            return "the digest of its image is not known"
        now = self.containers.image(step.container)
        return "" if now.digest == then.code_identifier else f"image {then.code_identifier} → {now.digest}"

    def _whole_image(self, last: StepAttempt) -> str:
        """Return in what the image differs that all steps run in."""
        images = (one.code_identifier for one in last.code_identities if one.code_identifier_type == "docker")
        container = job_container(self.session.options)
        then, now = next(images, ""), container.code_identifier if container else ""
        return "" if then == now else f"image {then or 'none'} → {now or 'none'}"


def _of_packages(step: Step, found: Candidate, then: Environment, here: Environment) -> str:
    """Return in what the interpreter and the packages differ that a step uses."""
    if then.interpreter_version != here.interpreter_version:
        return f"{then.interpreter_version or 'no python'} → {here.interpreter_version or 'no python'}"
    if not step.is_interpreted:
        if not then.interpreter_version and not then.lock_files:
            return "neither a python nor a lock file says which programs it uses"
        if changed := sorted(n for n in {*then.lock_files, *here.lock_files} if _differ(n, then, here)):
            return f"{listed(changed)} changed"
    changes: Mapping[str, str] = changed_packages(then.packages, here.packages)
    if step.is_interpreted and found.reads is not None and found.reads.imports_seen:
        used = {normalized(name) for name in found.reads.distributions}
        changes = {name: line for name, line in changes.items() if name in used}
    return listed([*changes.values()]) if changes else ""


def _differ(lock_file: str, then: Environment, here: Environment) -> bool:
    return then.lock_files.get(lock_file) != here.lock_files.get(lock_file)
