"""Which environment variables count for a step, and what is recorded of their values: digests, never the values. Pure.

Recorded when an attempt has ended, and computed by the same functions for a step that has not run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from runnable_ci.observe.environment_use import takes_all
from runnable_ci.pipeline.step import Step
from runnable_ci.redaction.environment import OF_THE_JOB, names_a_secret
from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.model import Parameter, StepAttempt
from runnable_ci.steps.shell import received

ALWAYS: Final = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
    *("PYTHONHASHSEED", "PYTHONPATH", "R_LIBS", "LC_ALL", "TZ"),
)
"""Count for each step, where they are set: what makes results differ without being named."""
ANY: Final = "*"
"""All variables, of a command that may read any."""
SECRET: Final = "secret"  # noqa: S105 - it stands where none is
"""In place of a digest that could be guessed from: equal to nothing."""
_COMPARED_OF_OURS: Final = frozenset({"RUNNABLE_RUN_ID", "RUNNABLE_LOG_LEVEL"})
"""What else we set are files of the attempt, and its step's name."""
_OF_THE_ATTEMPT: Final = frozenset(
    {"GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITHUB_STATE", "GITHUB_ARTIFACTS"}
)
"""Each attempt has files of its own by these."""
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE: Final = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


class ValueDigests(NamedTuple):
    """Makes of a value what is recorded in its place."""

    redactor: Redactor
    """Knows the secrets."""
    secret_names: Collection[str]
    """Names that were declared secret, in capital letters."""
    key: str = ""
    """A secret of the person's own, by which secrets are compared; empty where there is none."""

    def of(self, name: str, value: str) -> str:
        """Return what is recorded of a variable: a sha256, of a secret what only the key's owner can make."""
        if self.is_secret(name, value):
            return self.of_secret(value) or SECRET
        return hashlib.sha256(_bytes(value)).hexdigest()

    def of_secret(self, value: str) -> str:
        """Return the HMAC of a secret; empty where there is no key."""
        return f"hmac:{hmac.new(_bytes(self.key), _bytes(value), hashlib.sha256).hexdigest()}" if self.key else ""

    def is_secret(self, name: str, value: Any) -> bool:
        """Return whether a value is a secret, has one in it, or is called one."""
        capitals = name.upper()
        if capitals in self.secret_names or capitals in OF_THE_JOB or (names_a_secret(name) and name != "PWD"):
            return True
        return bool(self.redactor.value(value) != value)


def variables_of(
    step: Step, environ: Mapping[str, str], digests: ValueDigests, *, parameters: Collection[str], folder: Path
) -> dict[str, str]:
    """Return the variables that count for a step → digest of the value, empty where they are not set.

    `environ` is what its process has (`process_environ`), `parameters` are those that a command receives: they are
    compared as values. `folder` is the step's own.
    """
    parameters = parameters if step.kind == "run" else ()
    names = dict.fromkeys(name for name in ALWAYS if name in environ)
    names |= dict.fromkeys(step.env_read or ())
    if step.kind == "run":
        names |= dict.fromkeys(_named(step, environ))
        if "PWD" in names:  # a shell sets its own
            environ = {**environ, "PWD": str(folder)}
    counted = [name for name in names if name not in parameters]
    found = {name: digests.of(name, environ[name]) if name in environ else "" for name in counted}
    # The definition, which has what the step's own table says, has a mask in place of a secret.
    own = {**(step.container.env if step.container else {}), **step.env}
    found |= {name: digests.of(name, value) for name, value in own.items() if digests.is_secret(name, value)}
    if step.kind == "run" and step.env_read is None and takes_all(step.command):
        found[ANY] = SECRET
    return dict(sorted(found.items()))


def secret_values_of(names: Iterable[str], values: Mapping[str, Parameter], digests: ValueDigests) -> dict[str, str]:
    """Return the parameters among these names that are secret → HMAC of the value; nothing where there is no key."""
    if not digests.key:
        return {}
    return {
        name: digests.of_secret(json.dumps(parameter.value, sort_keys=True))
        for name in sorted(names)
        if (parameter := values.get(name)) and parameter.kind != "object" and not parameter.redacted
        if digests.is_secret(name, parameter.value)
    }


def process_environ(
    step: Step, environ: Mapping[str, str], passed: Callable[[Mapping[str, str]], Mapping[str, str]] | None
) -> Mapping[str, str]:
    """Return the variables of a step's process, but for its parameters; `passed` are those that a container gets."""
    if step.container is not None and passed is not None:
        return {**passed(environ), **step.container.env, **step.env}
    return {**environ, **step.env} if step.env else environ


class VariableRecorder(NamedTuple):
    """Records the variables of an invocation's attempts, and tells what they are for a step that has not run."""

    environ: Mapping[str, str]
    """That of the steps."""
    workspace: Path
    digests: ValueDigests
    passed: Callable[[Mapping[str, str]], Mapping[str, str]] | None = None
    """Returns what of it containers get."""

    def record(self, step: Step, attempt: StepAttempt) -> None:
        """Note in an attempt that is over which variables counted for it."""
        attempt.variables = self.now(step, attempt.input_parameters)
        attempt.secret_values = secret_values_of(attempt.consumed, attempt.input_parameters, self.digests)

    def now(self, step: Step, parameters: Mapping[str, Parameter]) -> dict[str, str]:
        """Return the variables that count for a step, as they are now; `parameters` are those in scope."""
        return variables_of(
            step,
            process_environ(step, self.environ, self.passed),
            self.digests,
            parameters=received(step, parameters) if step.kind == "run" else (),
            folder=self.workspace / step.working_directory,
        )


def _named(step: Step, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the variables that a command names: those that are set, and those that a shell would look up."""
    referred = set(_REFERENCE.findall(step.command))
    for name in dict.fromkeys(_WORD.findall(step.command)):
        if name in step.env or name in _OF_THE_ATTEMPT:
            continue
        if name.startswith("RUNNABLE_") and name not in _COMPARED_OF_OURS:
            continue
        if name in environ or name in referred:
            yield name


def _bytes(value: str) -> bytes:
    return value.encode(errors="surrogateescape")
