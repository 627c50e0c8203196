"""What differs between two runs, as data: all that show it show the same. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal[
    "step",
    "needs",
    "definition",
    "code",
    "value",
    "read",
    "image",
    "interpreter",
    "package",
    "variable",
    "platform",
    "machine",
    "file",
    "result",
    "metric",
    "ended",
    "output",
]
Change = Literal["changed", "added", "removed"]
INPUT_KINDS: tuple[Kind, ...] = (
    *("definition", "code", "value", "read", "image", "interpreter", "package", "variable", "platform", "machine"),
)
"""What a step is made from, the likeliest cause of another result first."""


@dataclass(frozen=True, slots=True)
class RunDifference:
    """One thing that is not the same in two runs, A and B."""

    kind: Kind
    name: str
    change: Change = "changed"
    before: Any = None
    """What A has, as JSON: a value, a version, a sha256; None where it has nothing, or that is not known."""
    after: Any = None
    """What B has."""
    made_by: str = ""
    """The step that made it in both runs: the difference follows from one of that step."""
    note: str = ""
    """What weakens it: `may have been read`, `not reached by the function`."""

    @property
    def counts(self) -> bool:
        """Whether it can be the cause of another result, as far as that is known."""
        return self.note not in (NOT_REACHED, NOT_READ)


NOT_REACHED = "not reached by the function"
NOT_READ = "not read before the end"
"""Of what only one attempt read, as the other one ended early: whether it is the same there is not known."""
POSSIBLE = "may have been read"
LISTED = "listed"
"""Of a name that only one of two listings of a folder has: nothing was read."""


RUNNING: Final = "running"
"""In place of how a step ended, of one that has not."""
A_AND_B: Final = ("A", "B")
"""How sentences call the two runs, where it is said which these are."""


@dataclass(frozen=True, slots=True)
class StepComparison:
    """One step in two runs, by the last attempt in each."""

    name: str
    label: str
    """How people know it."""
    in_a: str
    """How it ended in A: `succeeded`, `failed`, `skipped` …; empty where A does not have it."""
    in_b: str
    is_same_attempt: bool = False
    """One run took the attempt of the other one, or both that of a third."""
    inputs: tuple[RunDifference, ...] = ()
    outputs: tuple[RunDifference, ...] = ()
    not_seen: str = ""
    """What of its inputs was not observed in one of the runs, so that it could not be compared."""
    seconds_a: float | None = None
    seconds_b: float | None = None
    why_a: str = ""
    """Why it did not succeed in A: the exception with its line, the signal, the exit code, the step before it that
    failed; empty where it succeeded.
    """
    why_b: str = ""

    @property
    def diverges(self) -> bool:
        """Whether it ended in another way or gave something else; another text on its output alone is none."""
        return self.in_a != self.in_b or any(one.kind != "output" for one in self.outputs)

    @property
    def differs(self) -> bool:
        """Whether anything of it is different but how long it took."""
        return self.in_a != self.in_b or bool(self.inputs or self.outputs)


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A metric in two runs."""

    name: str
    before: Any
    after: Any
    change: float | None = None
    """B's less A's, where both are numbers."""
    relative: float | None = None
    """That, divided by A's absolute value."""
    instance: str = ""
    """The instance of a matrix, or another step in a branch, that gave it; empty for a run's own."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first step that gives something else, and why, as far as the runs tell."""

    step: str
    label: str
    causes: tuple[RunDifference, ...]
    """What of its inputs differs and no step before it made; the likeliest first."""
    explanation: str
    """In one sentence."""


@dataclass(frozen=True, slots=True)
class CodeComparison:
    """The code of two runs."""

    commit_a: str = ""
    commit_b: str = ""
    commits: tuple[str, ...] = ()
    """Those that B has and A has not, `SHA SUBJECT`, the newest first; as far as this clone knows them."""
    commits_back: tuple[str, ...] = ()
    """Those that A has and B has not."""
    files: tuple[RunDifference, ...] = ()
    """Files whose content differs: sha256, where it is known."""
    dirty_a: str = ""
    """What of A's work tree differed from its commit; empty for nothing."""
    dirty_b: str = ""
    not_known: str = ""
    """Why the files could not be compared."""

    @property
    def differs(self) -> bool:
        """Whether the code is known to be different, or cannot be known to be the same."""
        return bool(self.commit_a != self.commit_b or self.files or self.not_known)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Which run is compared."""

    run_id: str
    name: str
    status: str
    outcome: str
    start_time: str
    seconds: float | None
    commit: str
    ref: str
    dirty: bool
    actor: str
    tag: str
    where: str = ""
    """The registry it was read from; empty for the store here."""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Two runs compared: A, the earlier one or the one that worked, and B."""

    a: RunFacts
    b: RunFacts
    first: Divergence | None
    further: tuple[Divergence, ...]
    """Later steps that give something else for a reason of their own."""
    code: CodeComparison
    pipeline: tuple[RunDifference, ...] = ()
    """Steps that only one has, and what waits for other steps."""
    parameters: tuple[RunDifference, ...] = ()
    """The runs' own, before any step gave one."""
    environment: tuple[RunDifference, ...] = ()
    """Of the newest attempts: packages, interpreter, platform, machine."""
    steps: tuple[StepComparison, ...] = ()
    """All of both, in B's order, those that only A has behind."""
    metrics: tuple[MetricChange, ...] = field(default=())
    """Those that differ."""
    all_metrics: tuple[MetricChange, ...] = field(default=())
    instance_metrics: tuple[MetricChange, ...] = field(default=())
    """Those of steps in branches, in B's order, those that only A has behind: each beside the same one of the other."""
    names: tuple[str, str] = A_AND_B
    """How its sentences call the runs."""

    @property
    def differs(self) -> bool:
        """Whether the runs are made from something else, or give something else.

        Machines, times and what steps printed do not count.
        """
        return bool(
            self.pipeline
            or self.parameters
            or self.metrics
            or any(
                step.in_a != step.in_b
                or any(one.kind != "machine" for one in step.inputs)
                or any(one.kind != "output" for one in step.outputs)
                for step in self.steps
            )
        )
