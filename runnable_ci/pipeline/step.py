"""A step as the rest of the house works with it, and what it becomes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from runnable_ci.pipeline.keys.tables import Attempts, Reuse
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.schema import Kind, Place, StepKind

if TYPE_CHECKING:
    from runnable_ci.pipeline.branches.matrix import Loop, Matrix
    from runnable_ci.pipeline.container import Container
    from runnable_ci.pipeline.keys.resources import Resources


class Branching(NamedTuple):
    """How a step becomes branches: the instances of a matrix, the rounds of a loop, or the steps of another file."""

    body: Mapping[str, Step]
    """The steps of one branch, by their own names, each after those that it needs."""
    matrix: Matrix | None = None
    loop: Loop | None = None
    max_parallel: int | None = None
    """Branches at a time."""
    fail_fast: bool = True
    """Begin no further instance once one has failed."""
    label: str = ""
    """What names an instance in place of its axis values: text with expressions."""
    reduce: str = ""
    """`module:function`: makes the step's values of the lists of those of its instances."""
    follows: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Steps of the same matrix, of which the instance with the same values suffices to begin → what ends one."""

    def last(self) -> tuple[str, ...]:
        """Return the steps that end a branch, by their own names."""
        needed = {need for step in self.body.values() for need in step.needs}
        return tuple(name for name in self.body if name not in needed)


class Runner(NamedTuple):
    """Where GitHub runs a job."""

    labels: tuple[str, ...] = ()
    """Those that the runner must all have."""
    group: str = ""
    """The group that it must be in; empty for any."""


class Step(NamedTuple):
    """A step, resolved: defaults filled in, checked against the others."""

    name: str
    kind: StepKind
    command: str
    """The shell script, `module:function`, or the path of a notebook; empty for branches."""
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
    label: str = ""
    """How people know a step of a branch; empty for any other."""
    bound: Mapping[str, Any] = MappingProxyType({})
    """Values that it finds as parameters, whatever the steps before it return: those of its branch."""
    defaults: Mapping[str, Any] = MappingProxyType({})
    """Values of parameters that nothing else gives: those of the file that the step was taken from."""
    in_matrix: bool = False
    """Whether what it returns becomes an item of a list."""
    branching: Branching | None = None
    """What it becomes; the step itself is then the end of all its branches."""
    place: Place | None = None
    """The file that it was taken from, where that is not the pipeline's own."""
    condition: str = ""
    """When the step runs, as an expression; empty for: when all before it succeeded."""
    arguments: Mapping[str, Any] = MappingProxyType({})
    """Parameters that the step has by names of its own, with expressions in their texts."""
    attempts: Attempts = Attempts()
    checkpoint: tuple[str, ...] = ()
    """Globs of the files in which it keeps its own work; they are no products."""
    checkpoint_s: float = 300.0
    """How often these are kept."""
    reuse: Reuse | None = None
    """Whose results may take its place, where its file or it says so."""
    max_age_s: float | None = None
    """How old those of other runs may be; None: as old as they like, for a step whose inputs are all known."""
    env_read: tuple[str, ...] | None = None
    """Environment variables that it says it reads; None: it does not say."""
    resources: Resources | None = None
    """What it takes while it runs; None: it does not say."""
    runs_on: Runner | None = None
    """The runner of its job, where a run is spread over jobs; None for the usual one."""
    job: str = ""
    """Its job there; empty where that follows from the pipeline."""
    executor: str = ""
    """Where it runs, as an executor of the pipeline; empty for this machine."""

    def has_expressions(self) -> bool:
        """Return whether there is one in a text in which a value is to take its place."""
        paths = (*(self.get or ()), *self.put, *(self.reads or ()), *self.ignore_reads, *self.checkpoint)
        notebook = self.command if self.kind == "notebook" else ""
        matrix = self.branching.matrix if self.branching else None
        axes = str(matrix.definition()) if matrix else ""
        inside = (text for _, text in self.container.texts()) if self.container else ()
        texts = (*paths, *self.env.values(), self.working_directory, notebook, axes, *inside)
        return any("${{" in text for text in texts)

    @property
    def shown(self) -> str:
        """How messages name it."""
        return self.label or self.name

    @property
    def runs_elsewhere(self) -> bool:
        """Whether an executor runs it."""
        return bool(self.executor) and self.mock != "nothing"

    @property
    def is_interpreted(self) -> bool:
        """Whether it runs in the pipeline's interpreter."""
        return self.kind in ("python", "notebook")

    def unstored_among(self, names: Iterable[str]) -> set[str]:
        """Return which of these files are not copied into the store."""
        return {name for name in names if any(may_name(pattern, name) for pattern in self.unstored)}

    def counts(self, path: str) -> bool:
        """Return whether a path that the step read is an input: by its `reads` and `ignore-reads`; no checkpoint is.

        Its own notebook is none: the code in it is compared, and not how Jupyter saved it.
        """
        if self.kind == "notebook" and path == self.command:
            return False
        is_named = self.reads is None or any(may_name(pattern, path) for pattern in self.reads)
        return is_named and not any(may_name(pattern, path) for pattern in (*self.ignore_reads, *self.checkpoint))

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
        defined = definition | {k: v for k, v in optional.items() if v or (k in ("get", "parameters") and v == [])}
        return defined if self.branching is None else defined | self._branches_defined(self.branching)

    def _branches_defined(self, branching: Branching) -> dict[str, Any]:
        loop = branching.loop and {"until": branching.loop.until, "max": branching.loop.most}
        parts = {
            "strategy": branching.matrix and branching.matrix.definition(),
            "loop": loop,
            "reduce": branching.reduce,
            "branch": {name: step.definition() for name, step in branching.body.items()},
        }
        return {key: value for key, value in parts.items() if value}

    def _defined_kind(self, kind: Kind) -> str:
        """Return a kind as definitions have it: those of versions that had one kind of JSON are still the same."""
        return "strict json" if kind == "json" and self.kind == "run" else "json" if kind == "auto" else kind


def groups_of(name: str) -> Iterator[str]:
    """Yield the steps in whose branches a step is, the innermost first."""
    parts = name.split(".")
    for end in range(len(parts) - 2, 0, -2):
        yield ".".join(parts[:end])
