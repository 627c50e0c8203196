"""The run log, in the reference system's structure with more fields; readers keep unknown ones of newer versions."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from runnable_ci.runs.branches.branch_model import BranchRecord
from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.files.checkpoint_model import Checkpoint, CheckpointUse
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.machines.environment_model import Environment, GivenResources, NumericLibrary
from runnable_ci.runs.notes.notes_model import MadeFrom, Reproduction, RunNotes
from runnable_ci.util.bounded_json import LARGE_TABLE, Record
from runnable_ci.util.text import flattened, seconds_between, shortened

SCHEMA_VERSION, LINKS_SCHEMA_VERSION = "1", "2"
"""The second of a log with links, empty folders, files without a copy: versions before would take these for lost."""
BRANCHES_SCHEMA_VERSION = "3"
"""Of a log with branches: versions before would take a step of many instances for one that has nothing."""
BYTES_PER_FIELD = 10
"""At least: each field of a record is written, with its name. With less a log would grow where it is written again."""
SUCCESS, FAIL, PROCESSING, SKIPPED = "SUCCESS", "FAIL", "PROCESSING", "SKIPPED"
TIME_BUDGET, JOB, LINK, FOLDER = "time-budget", "job", "link", "folder"
RunOutcome = Literal["succeeded", "failed", "cancelled", "timed_out", "interrupted"]
"""How a run, an invocation or an attempt ended; `interrupted`: nobody saw the end, its process is gone."""
Warn = Literal["code_changed", "parameters_changed", "products_changed"]


class StoredObject(Record):
    """The pickle of an object."""

    data_hash: str = ""
    """sha256 of the pickle."""
    size: int = 0
    """Its size in bytes."""
    object_type: str = ""


class Parameter(Record):
    """A named value that steps take and give."""

    kind: Literal["json", "metric", "object"]
    value: Any
    """The value itself; for an object its name in the catalog."""
    description: Any = ""
    reduced: bool = True
    data_hash: str = ""
    """sha256 of the pickle, for objects; of several `items`, of their hashes."""
    size: int | None = None
    """Size of the pickle in bytes, for objects."""
    object_type: str = ""
    """Qualified type name, for objects, as the step's interpreter saw it."""
    redacted: bool = False
    """The value was a secret, or had one in it, for which `***` stands now."""
    value_hash: str = ""
    """Of a large input that is not repeated: sha256 of its JSON, as a step returned it or the run was given it."""
    items: list[StoredObject] = Field(default_factory=list)
    """Of objects that the instances of a matrix returned: each of them, empty where one returned none."""

    @classmethod
    def of_json(cls, value: Any, kind: Literal["json", "metric"] = "json", *, redacted: bool = False) -> Self:
        """Return a json or metric parameter that describes itself, long text and large values shortened."""
        return cls(kind=kind, value=value, description=shortened(value), redacted=redacted)

    @classmethod
    def of_object(cls, name: str, *, data_hash: str, size: int, object_type: str) -> Self:
        """Return an object parameter: `name` is its name, the pickle is found by its sha256."""
        made = {"data_hash": data_hash, "size": size, "object_type": object_type}
        return cls(kind="object", value=name, description=f"Pickled object stored in catalog as: {name}", **made)


class CatalogEntry(Record):
    """A file that a step took from the catalog or the workspace (get), or gave to the catalog (put)."""

    name: str
    """Path relative to the workspace, with forward slashes."""
    data_hash: str = ""
    """sha256 of the whole file; of a link's `target`."""
    catalog_relative_path: str = ""
    catalog_handler_location: str = ".runnable"
    stage: str = ""
    """`get`, `put`, or `failed`: what an attempt made that did not succeed, which is never an input."""
    size: int = 0
    media_type: str = "application/octet-stream"
    mode: int = 0o644
    source: str = ""
    """The step that put the file which a `get` took; empty where it was an input from the workspace."""
    kept: bool = False
    """For `get`: the attempt changed the file, so the store has it as it was before."""
    left: str = ""
    """sha256 of what the attempt made of a kept file; empty where it removed it."""
    made_by: str = ""
    """For `put`: the attempt that wrote the file, `RUN_ID/STEP.ATTEMPT`, where this one only found it and kept it."""
    kind: str = ""
    """`link` or `folder`, an empty one, neither of which has a content in the store; empty for a file."""
    target: str = ""
    """Of a link: where it points to, from its own folder."""
    mtime_ns: int = 0
    """When a file that was put was written, since 1970; 0 where that is not known."""
    sparse: bool = False
    """It takes less room on disk than its size: parts of it were never written."""
    stored: bool = True
    """False: its `put` has `store = false`, so that the hash is all there is of it."""

    @property
    def is_input(self) -> bool:
        """Whether it is a file that no step made: it is compared, and never written."""
        return self.stage == "get" and not self.source and not self.kept

    @property
    def has_content(self) -> bool:
        """Whether the store has something of it."""
        return self.stored and not self.kind


class ExceptionInfo(Record):
    """The exception that ended a python or notebook step."""

    type: str
    message: str
    traceback: str
    file: str = ""
    line: int = 0
    cell: int = 0
    cell_source: str = ""


class StepAttempt(Record):
    """One try at a step. It has one writer and is never changed after its end."""

    attempt_number: int = 1
    start_time: str = ""
    end_time: str = ""
    status: str = PROCESSING
    message: str = ""
    input_parameters: dict[str, Parameter] = Field(default_factory=dict)
    """All that were set when the step began; in logs of versions without `consumed`, those that it used."""
    output_parameters: dict[str, Parameter] = Field(default_factory=dict)
    user_defined_metrics: dict[str, Parameter] = Field(default_factory=dict)
    file_metrics: Annotated[dict[str, Any], LARGE_TABLE] = Field(default_factory=dict)
    """The numbers in the files that the step's `metrics` names, by the file's name without its suffix."""
    retry_indicator: str = ""
    code_identities: list[CodeIdentity] = Field(default_factory=list)
    invocation: int = 1
    """Which of the run's invocations made this attempt, counted from 1; 0: another run's, see `taken_from`."""
    reason: str = ""
    """Why the step ran, in one line."""
    exit_code: int | None = None
    """Of the process; negative: the signal that ended it."""
    definition: dict[str, Any] = Field(default_factory=dict)
    """The step as it was defined, resolved."""
    environment: str = ""
    """Key into the run's `environments`."""
    numeric_libraries: list[NumericLibrary] = Field(default_factory=list, fail_fast=True)
    """Of a python or notebook step; those of the processes that it started are not known."""
    variables: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Environment variables that count for the step → sha256 of the value, empty where it was not set. Of a secret
    `hmac:` and an HMAC by the person's key, or `secret`. `*`: it may have read any."""
    secret_values: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Of what is in `consumed` the secret values → `hmac:` and an HMAC of the JSON; only where there is a key."""
    code_state: str = ""
    """Key into the run's `code_states`; empty in logs of earlier versions."""
    executor: str = ""
    """Where it ran, by the name of an executor in the pipeline file; empty for the run's own machine."""
    waited_s: float = 0
    """Of its seconds those in which it waited for a worker."""
    resources: GivenResources | None = None
    """What it had to run with; nothing where its step does not say what it takes."""
    code_seen: str = ""
    """When the look at the work tree began that `code_state` is from."""
    log: LogFile | None = None
    exception: ExceptionInfo | None = None
    modules: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Workspace modules that a python step loaded → sha256; empty where the file changed while it was running."""
    function_hash: str = ""
    """Digest of the source of a step's function, or of the code of its notebook."""
    defaulted: list[str] = Field(default_factory=list, fail_fast=True)
    """Arguments of a python step's function that no parameter filled."""
    outcome: str = ""
    """`succeeded`, `failed`, `cancelled`, `timed_out` or `interrupted`; empty while the attempt runs."""
    interrupted: bool = False
    """Nobody saw its end: it was concluded later, since the process that ran it was gone."""
    consumed: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Of the input parameters those that the step was seen to use (`seen`), or may have used (`possible`)."""
    reads: str = ""
    """sha256 of the document of what the attempt read; empty where that was not seen."""
    reads_size: int = 0
    not_seen: str = ""
    """Why it was not seen what the attempt read; empty also in logs of versions that did not look."""
    reach: str = ""
    """Digest of the workspace's code that a python step's function reaches."""
    made: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Files that the attempt wrote and that its `put` does not name → sha256."""
    made_more: int = 0
    """How many more there were."""
    partial_output: dict[str, Parameter] = Field(default_factory=dict)
    """What an attempt that did not succeed had written to `$RUNNABLE_OUTPUT`: no step receives it."""
    data_catalog: list[CatalogEntry] = Field(default_factory=list)
    """The attempt's files, once a later attempt has taken their place in the step."""
    mock: bool = False
    """Nothing was run in place of the step, or something else."""
    taken_from: str = ""
    """`RUN_ID/STEP.ATTEMPT` where another run made what it gives: it was taken as it is, or a mock gave it again."""
    checkpoint: Checkpoint | None = None
    """What it kept of its own work, as its step's `checkpoint` says; nothing once it has succeeded."""
    checkpoint_used: CheckpointUse | None = None
    """What an earlier attempt had kept and this one resumed from."""
    taken_by: str = ""
    """Who started that run, as far as it is known."""
    checkpoint_dropped: bool = False
    """It started over: what attempts before it had kept counts no more."""

    @property
    def seconds(self) -> float | None:
        """How long it took, without what it waited for a worker; None while it runs, or where that is not known."""
        return seconds_between(self.start_time, self.end_time, self.waited_s)

    @property
    def was_observed(self) -> bool:
        """Whether what it read was watched, or why not is recorded: earlier versions did neither."""
        return bool(self.reads or self.not_seen)

    def end(self, outcome: RunOutcome, message: str = "") -> None:
        """Record how the attempt ended."""
        self.status, self.outcome, self.message = status_of(outcome), outcome, message


class StepLog(Record):
    """A step and its attempts; `data_catalog` holds the files of the last one."""

    name: str
    internal_name: str
    status: str = PROCESSING
    step_type: str = "task"
    message: str = ""
    mock: bool = False
    attempts: list[StepAttempt] = Field(default_factory=list)
    data_catalog: list[CatalogEntry] = Field(default_factory=list)
    branches: dict[str, Any] = Field(default_factory=dict)
    outcome: str = ""
    """How its last attempt ended; empty where that runs, or where the newest invocation skipped the step."""
    instances: list[BranchRecord] = Field(default_factory=list)
    """Its branches, in order; `step_type` tells what they are, and their steps are in the run log like any other."""
    branch_steps: list[str] = Field(default_factory=list)
    """The names of the steps in each of them."""
    branch_returns: list[str] = Field(default_factory=list)
    """The names of what they give together."""

    def put_entries(self) -> list[CatalogEntry]:
        """Return the files that the last attempt gave to the catalog."""
        return [entry for entry in self.data_catalog if entry.stage == "put"]


class DecisionRecord(Record):
    """What an invocation did with a step, and why."""

    action: str
    """`run`, `reuse` or `skip`."""
    reason: str
    warning: str = ""
    """What speaks against a reuse: `code_changed`, `parameters_changed`, `products_changed`; empty for nothing."""
    reused_from: str = ""
    """Of a reuse: the digest of the invocation that made the attempt; unknown in earlier versions."""
    taken_from: str = ""
    """`RUN_ID/STEP.ATTEMPT` of another run, whose result took the place of running the step."""
    taken_branch: str = ""
    """The branch among whose runs it was found; empty for a run of the same store."""
    accepted_by: str = ""
    """Who accepted that something differs, for `accepted_reason`: GitHub's actor in a job, else git's user."""
    accepted_reason: str = ""
    accepted_changes: list[str] = Field(default_factory=list, fail_fast=True)
    """Digests of what differed."""


class Invocation(Record):
    """One `run` or `retry` of the run."""

    number: int
    command: str
    start_time: str
    end_time: str = ""
    status: str = PROCESSING
    message: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The run's own parameters at this invocation, before any step gave one."""
    redacted: list[str] = Field(default_factory=list, fail_fast=True)
    """Which of them were secrets, or had one in them, for which `***` stands now."""
    identity: str = ""
    """Random. Of the invocation that began the run it is what tells this run from another one of the same id."""
    parents: Annotated[list[str], Field(fail_fast=True)] | None = None
    """Digests of the newest invocations that it had seen; none where it began the run, unknown in earlier versions."""
    actor: str = ""
    """Who started it: GitHub's actor in a job, else the `user.name` of git."""
    workflow_run: str = ""
    """The number of GitHub's workflow run whose job it was; empty elsewhere, and in earlier versions."""
    log_level: str = ""
    """What steps were asked to log: `debug`, `info`, `warning`, `error` or `critical`; empty where nothing was said."""
    decisions: dict[str, DecisionRecord] = Field(default_factory=dict)
    job_steps: list[str] = Field(default_factory=list, fail_fast=True)
    """Of a job that shares the run with others: the steps that were its own; none where it was of the whole run."""
    outcome: str = ""
    """`succeeded`, `failed`, `cancelled` or `interrupted`; empty while it runs."""
    ended_by: str = ""
    """`time-budget`: it was cancelled by nobody, its time was over. `job`: its steps are done, others are left."""
    interrupted: bool = False
    """Nobody saw its end: it was concluded later, since its process was gone."""
    code_identities: list[CodeIdentity] = Field(default_factory=list)
    """Its code and state, where it took results and ran no step; else those of its attempts count."""
    code_state: str = ""


class Pack(Record):
    """A tar of many small contents; each is found by its sha256 at an offset."""

    size: int
    members: Annotated[dict[str, tuple[int, int]], LARGE_TABLE]
    """sha256 → (offset, size) in bytes."""


class RunLog(Record):
    """One run, whole."""

    run_id: str
    dag_hash: str = ""
    tag: str = ""
    status: str = PROCESSING
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    run_config: dict[str, Any] = Field(default_factory=dict)
    """`pipeline_file` begins at `pipeline_base`: the `repository`'s root, or the pipeline's own `folder`."""
    steps: dict[str, StepLog] = Field(default_factory=dict)
    schema_version: str = SCHEMA_VERSION
    name: str = ""
    message: str = ""
    start_time: str = ""
    end_time: str = ""
    invocations: list[Invocation] = Field(default_factory=list)
    environments: dict[str, Environment] = Field(default_factory=dict)
    code_states: dict[str, CodeState] = Field(default_factory=dict)
    """What the code was, beyond its commit; the key begins with the tree's id."""
    packs: dict[str, Pack] = Field(default_factory=dict)
    """sha256 of the pack → what is in it."""
    outcome: str = ""
    """How the newest invocation ended: `succeeded`, `failed`, `cancelled` or `interrupted`; empty while it runs."""
    ended_by: str = ""
    """`time-budget`, where that invocation ended since its time was over."""
    interrupted: bool = False
    """Nobody saw that end: it was concluded later, since the process was gone."""
    reproduction: Reproduction | None = None
    """Which run it makes again, and whether that came out."""
    made_from: MadeFrom | None = None
    """What it was put together from, where it was made to find what moved a metric."""
    notes: RunNotes = Field(default_factory=RunNotes)

    @property
    def invocation(self) -> int:
        """Return the number of the current or last invocation, 0 before the first."""
        return self.invocations[-1].number if self.invocations else 0

    def seconds(self) -> float | None:
        """Return how long the invocations took together, not what lies between them; None where one is not over."""
        known = [s for one in self.invocations if (s := seconds_between(one.start_time, one.end_time)) is not None]
        return sum(known) if known and len(known) == len(self.invocations) else None

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of the steps' last attempts, the later step winning; of tables each number, `m.r2`."""
        last = [step.attempts[-1] for name, step in self.steps.items() if step.attempts and "." not in name]
        given = [{name: p.value for name, p in one.user_defined_metrics.items()} | one.file_metrics for one in last]
        of_steps = {name: value for one in given for name, value in one.items()}
        joined = {name: self.parameters.get(name) for step in self.steps.values() for name in step.branch_returns}
        return flattened(of_steps | {name: p.value for name, p in joined.items() if p and p.kind == "metric"})

    def failed_steps(self) -> list[str]:
        """Return the steps whose last attempt failed; not those that are in the pipeline no more."""
        decided = self.invocations[-1].decisions if self.invocations and self.end_time else self.steps
        return [name for name, step in self.steps.items() if step.status == FAIL and step.attempts and name in decided]

    def code(self) -> CodeIdentity | None:
        """Return the code identity of the run."""
        return newest.code_identities[0] if (newest := self.newest_with_code()) else None

    def newest_with_code(self) -> StepAttempt | Invocation | None:
        """Return what has the code of the run: its newest own attempt, or a newer invocation that only took results."""
        own, took = self.newest_attempt(own=True), [one for one in self.invocations if one.code_identities]
        is_newer = took and (own is None or took[-1].number > own.invocation)
        return took[-1] if is_newer else own or self.newest_attempt()  # which is all that an earlier version knew

    def newest_attempt(self, *, own: bool = False) -> StepAttempt | None:
        """Return the newest attempt of which the code is known, or of those that no other run made."""
        attempts = (a for step in self.steps.values() for a in step.attempts)
        counting = (a for a in attempts if a.code_identities and not (own and a.taken_from))
        return max(counting, key=lambda a: (a.invocation, a.start_time), default=None)


def status_of(outcome: RunOutcome) -> str:
    """Return the reference system's word for an outcome."""
    return SUCCESS if outcome == "succeeded" else FAIL
