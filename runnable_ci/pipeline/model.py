"""The pipeline: the resolved steps that the rest of the house works with. Pure; `resolve.py` makes it of a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runnable_ci.config import LogLevel, Untracked
from runnable_ci.pipeline.inputs import Input
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.schema import (
    Kind,
    Place,
    StepKind,
)
from runnable_ci.pipeline.values.value_reader import Declared
from runnable_ci.redaction.environment import names_a_secret

if TYPE_CHECKING:
    from runnable_ci.pipeline.container import Container


class Step(NamedTuple):
    """A step, resolved: defaults filled in, checked against the others."""

    name: str
    kind: StepKind
    command: str
    """The shell script, `module:function`, or the path of a notebook."""
    needs: tuple[str, ...]
    returns: Mapping[str, Kind]
    get: tuple[str, ...] | None
    """None: not declared, the step may read any file that came before it."""
    put: tuple[str, ...]
    persist: bool
    """Whether the step finds what it made before."""
    parameters: tuple[str, ...] | None
    env: Mapping[str, str]
    shell: str
    """Empty for the default: bash, and where there is none the system's own."""
    working_directory: str
    timeout_s: float | None
    continue_on_error: bool
    background: bool = False
    """Whether what the step leaves running may stay."""
    reads: tuple[str, ...] | None = None
    """Globs of all that counts as read, beside `get`; None: what the step was seen to read."""
    ignore_reads: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """Files with numbers that are metrics; `put` has them too."""
    unstored: tuple[str, ...] = ()
    """Those of `put` whose files are not copied into the store: their hash is recorded."""
    kernel: str = ""
    """The installed kernel of a notebook; empty for one of the pipeline's interpreter."""
    executed: str = ""
    """Where the executed notebook of a notebook step is stored; `put` has it too."""
    container: Container | None = None
    mock: Literal["", "nothing", "patch"] = ""
    """What is run in its place: nothing, or another command or function; empty where it is the step itself."""

    def unstored_among(self, names: Iterable[str]) -> set[str]:
        """Return which of these files are not copied into the store."""
        return {name for name in names if any(may_name(pattern, name) for pattern in self.unstored)}

    def counts(self, path: str) -> bool:
        """Return whether a path that the step read is an input: by its `reads` and `ignore-reads`.

        Its own notebook is none: the code in it is compared, and not how Jupyter saved it.
        """
        if self.kind == "notebook" and path == self.command:
            return False
        is_named = self.reads is None or any(may_name(pattern, path) for pattern in self.reads)
        return is_named and not any(may_name(pattern, path) for pattern in self.ignore_reads)

    def definition(self) -> dict[str, Any]:
        """Return what makes this step's result, as plain JSON in the words of the file.

        Time-outs and the like do not, nor does what counts as read: it says how results are compared.
        """
        definition: dict[str, Any] = {self.kind: self.command, "needs": sorted(self.needs)}
        optional = {
            "returns": {name: self._defined_kind(kind) for name, kind in self.returns.items()},
            "get": None if self.get is None else list(self.get),
            "put": list(self.put),
            "persist": self.persist,
            "metrics": list(self.metrics),
            "parameters": None if self.parameters is None else list(self.parameters),
            "env": dict(sorted(self.env.items())),
            "shell": self.shell if self.kind == "run" and self.shell != "bash" else "",
            "kernel": self.kernel,
            "mock": self.mock,
            "working-directory": "" if self.working_directory == "." else self.working_directory,
            "container": self.container and self.container.definition(),
        }
        return definition | {key: v for key, v in optional.items() if v or (key in ("get", "parameters") and v == [])}

    def _defined_kind(self, kind: Kind) -> str:
        """Return a kind as definitions have it: those of versions that had one kind of JSON are still the same."""
        return "strict json" if kind == "json" and self.kind == "run" else "json" if kind == "auto" else kind


class Pipeline(NamedTuple):
    """A checked pipeline; `steps` are in an order in which each comes after what it needs."""

    name: str
    file: str
    """How messages name the pipeline file."""
    python: str | None
    parameters: Mapping[str, Any]
    steps: Mapping[str, Step]
    registry: str | None = None
    secrets: tuple[str, ...] = ()
    """Names of environment variables."""
    untracked: Untracked | None = None
    log_level: LogLevel | None = None
    is_named: bool = True
    """Whether the file gives the name."""
    place: Place = Place("")
    """The pipeline file, for errors that are found later."""
    inputs: Mapping[str, Input] = MappingProxyType({})
    """Parameters of which the file says more than a value; `parameters` has those with a default too."""

    def declared(self) -> dict[str, Declared]:
        """Return what the file says of the types of parameters."""
        by_value = {name: Declared.by_value(value, self.file) for name, value in self.parameters.items()}
        declared = by_value | {name: one.declared for name, one in self.inputs.items()}
        secrets = {name.upper() for name in self.secrets}
        return {n: one.hidden() if n.upper() in secrets or names_a_secret(n) else one for n, one in declared.items()}

    def dag_hash(self) -> str:
        """Return sha1 of all definitions, as the reference system's run log has it.

        The order of returns is part of them.
        """
        definitions = {name: self.steps[name].definition() for name in sorted(self.steps)}
        return hashlib.sha1(json.dumps(definitions).encode(), usedforsecurity=False).hexdigest()

    def ancestors(self, name: str) -> frozenset[str]:
        """Return all steps that must be over before this one starts."""
        found: set[str] = set()
        waiting = list(self.steps[name].needs)
        while waiting:
            step = waiting.pop()
            if step not in found:
                found.add(step)
                waiting.extend(self.steps[step].needs)
        return frozenset(found)

    def below(self, name: str) -> frozenset[str]:
        """Return the step and all that need it, directly or not."""
        found = {name}
        for step in self.steps.values():
            if found.intersection(step.needs):
                found.add(step.name)
        return frozenset(found)
