"""Workers as job steps and jobs of Slurm: `srun` for the first of a queue, a job array for more at once."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.engine.elsewhere.launchers import CommandLauncher, Handle, worker_command
from runnable_ci.errors import StepError
from runnable_ci.pipeline.keys.executors import Slurm
from runnable_ci.pipeline.keys.resources import Share
from runnable_ci.util.process import run_bounded
from runnable_ci.util.text import printable

_MIB: Final = 1 << 20
_ANSWER_S: Final = 30.0
_ANSWER_BYTES: Final = 16 << 20
_LOOK_S: Final = 2.0
_OVER: Final = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
        *("TIMEOUT", "REVOKED", "SPECIAL_EXIT"),
    }
)
"""States of a job that is over. Source: squeue(1), JOB STATE CODES."""
_SUBMITTED: Final = re.compile(r"([0-9]+)(;[^;\s]+)?\s*")
_FIELD: Final = re.compile(r"\b(JobState|Reason|NodeList)=(\S+)")
_GOES_ON: Final = frozenset({"", "PENDING", "CONFIGURING", "RUNNING", "COMPLETING"})
_NODE: Final = re.compile(r"NodeName=(\S+) .*?\bState=([^\s*]+)(\*?)")
_NODE_GONE: Final = frozenset({"DOWN", "NOT_RESPONDING", "FAIL", "ERROR", "POWERED_DOWN", "POWERING_DOWN"})
"""States of a node on which nothing runs; some versions say by a star that it does not respond. Source: sinfo(1)."""
_NOTICE_S: Final = 25.0
"""How long Slurm may take to find out that a node is gone: it asks that in vain, for `MessageTimeout` (10 s)."""
_REASON_LOOK_S: Final = 1.0


@dataclass(slots=True, eq=False, repr=False)
class SlurmLauncher(CommandLauncher):
    """Starts workers by Slurm. In an allocation they are steps of it; outside, `srun` makes one for the run."""

    look_s: float = 0.5
    _asked_s: float = 0.0
    _withdrawn: set[str] = field(default_factory=set)
    _alone: set[str] = field(default_factory=set)
    """Workers to which no `srun` here leads: nothing gives their allocation back."""
    _jobs: dict[str, str] = field(default_factory=dict)
    """Worker → its job, or task of an array."""
    _nodes: dict[str, str] = field(default_factory=dict)
    """Worker → the node on which it found itself."""
    _lost: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Worker → when it was first asked why it is lost, and when last."""

    @property
    def slurm(self) -> Slurm:
        """What the executor asks for."""
        assert self.executor.slurm is not None  # noqa: S101 - for the type checker
        return self.executor.slurm

    @property
    def is_inside(self) -> bool:
        """Whether this program runs in an allocation of its own."""
        return "SLURM_JOB_ID" in self.environ

    @property
    def starts_many(self) -> bool:
        """Whether workers are submitted as job arrays."""
        return self.slurm.arrays and not self.is_inside

    def start(self, queue: Path | str, workers: Sequence[str], share: Share, *, stays: bool) -> list[Handle]:
        """Start workers: each by `srun`, several at once outside of an allocation by one array."""
        if len(workers) > 1 and self.starts_many:
            return self._start_array(queue, workers, share, stays=stays)
        return [
            self.start_process(
                [
                    *("srun", "--nodes=1", "--ntasks=1", f"--job-name={_job_name(worker)}", "--kill-on-bad-exit=0"),
                    *("--input=none", "--exact", *_asked(share), *self._options()),
                    *worker_command(self.executor, queue, worker, stays=stays),
                ],
                worker,
            )
            for worker in workers
        ]

    def _options(self) -> list[str]:
        """Return the executor's options; in an allocation those that ask for one have no meaning."""
        if not self.is_inside:
            return self.slurm.words()
        of_steps = {name: value for name, value in self.slurm.options.items() if name in _OF_STEPS}
        return Slurm(of_steps).words()

    def _start_array(self, queue: Path | str, workers: Sequence[str], share: Share, *, stays: bool) -> list[Handle]:
        name = workers[0]
        commands = (shlex.join(worker_command(self.executor, queue, worker, stays=stays)) for worker in workers)
        cases = "\n".join(f"{number}) exec {command};;" for number, command in enumerate(commands))
        script = f'#!/bin/sh\ncase "$SLURM_ARRAY_TASK_ID" in\n{cases}\nesac\n'
        argv = [
            *("sbatch", "--parsable", "--nodes=1", "--ntasks=1", f"--job-name={_job_name(name)}", "--no-requeue"),
            *(f"--array=0-{len(workers) - 1}", "--open-mode=append", f"--output={self.folder.output(name)}"),
            *(*_asked(share), *self.slurm.words()),
        ]
        answer = self._ask(argv, stdin=script.encode())
        submitted = _SUBMITTED.fullmatch(answer) if answer else None
        if submitted is None:
            raise StepError(f"sbatch did not take a job array: {self._refusal or 'it gave no number of a job'}")
        return [
            Handle(worker, self.executor.name, job=f"{submitted[1]}_{number}", host=self.host)
            for number, worker in enumerate(workers)
        ]

    _refusal: str = ""

    def _ask(self, argv: Sequence[str], *, stdin: bytes = b"") -> str | None:
        """Return what a command of Slurm prints; None where it fails, as when the controller does not answer."""
        try:
            done = run_bounded(argv, stdin=stdin, env=self.environ, timeout_s=_ANSWER_S, most=_ANSWER_BYTES)
        except FileNotFoundError as e:
            raise StepError(f"`{argv[0]}` is not installed, or not on PATH", hint="Slurm's commands start steps") from e
        except (OSError, TimeoutError, OverflowError, MemoryError) as e:
            self._refusal = str(e) or type(e).__name__
            return None
        self._refusal = printable(done.stderr.decode(errors="replace").strip()) if done.code else ""
        return done.stdout.decode(errors="replace") if done.code == 0 else None

    def alive(self, handles: Collection[Handle]) -> Mapping[str, str]:
        """Return the workers of which neither a process here nor Slurm knows any more, and what that says of it."""
        self.supervisor.reap()
        unsure = [it for it in handles if not self.runs(it)]
        left = {it.worker: "" for it in unsure if self.folder.has_left(it.worker)}
        if standing := [it for it in unsure if it.worker in left and it.worker in self._alone]:
            self.stop(standing)
        self._alone.update(it.worker for it in unsure if it.worker not in left and not it.job)
        if len(left) == len(unsure) or time.monotonic() - self._asked_s < _LOOK_S:
            return left
        self._asked_s = time.monotonic()
        if (listed := self._listed()) is None:
            return left  # what the controller does not say is no reason to give work up
        # A worker is a task of an array or a job step: an allocation that only stands is none.
        running = {it.name if it.is_step else it.job for it in listed if it.state not in _OVER}
        gone = [it for it in unsure if it.worker not in left and not {it.job, _job_name(it.worker)} & running]
        kept = {it.name: it.job for it in listed if not it.is_step and it.state not in _OVER}
        return left | {it.worker: "" if it.worker in self._withdrawn else self._why(it, kept) for it in gone}

    def _why(self, handle: Handle, kept: Mapping[str, str]) -> str:
        """Return why a worker is gone, as Slurm and its own process say."""
        described = self._described(handle.job or self._job_of(handle.worker))
        if not described and not handle.job and (job := kept.get(_job_name(handle.worker))):
            described = f"Slurm says that job {job} stands without its step"
        return "; ".join(filter(None, (described, self.last_lines(handle.worker))))

    def reason(self, worker: str) -> str | None:
        """Return what Slurm says of a worker's job that did not end by itself; empty where it says nothing."""
        job = self._job_of(worker)
        return self._described(job) or self._node_described(self._nodes.get(worker) or self._facts(job).get("NodeList"))

    def last_reason(self, worker: str) -> str | None:
        """Return what Slurm says of the job or the node of a lost worker, once it has found out; None until then."""
        moment = time.monotonic()
        since_s, asked_s = self._lost.get(worker, (moment, 0.0))
        if moment - asked_s < _REASON_LOOK_S:
            return None
        self._lost[worker] = since_s, moment
        if why := self.reason(worker):
            return why
        goes_on = self._facts(self._job_of(worker)).get("JobState", "") in _GOES_ON
        return None if goes_on and moment - since_s < _NOTICE_S else ""

    def _job_of(self, worker: str) -> str:
        """Return a worker's job: as it said itself, else the one that has its name."""
        if not self._jobs.get(worker):
            asked = ["squeue", "--me", "--noheader", "--states=all", f"--name={_job_name(worker)}", "--format=%A"]
            if found := (self._ask(asked) or "").split():
                self._jobs[worker] = found[0]
        return self._jobs.get(worker, "")

    def _described(self, job: str) -> str:
        facts = self._facts(job)
        state = facts.get("JobState", "")
        if state in _GOES_ON or state == "COMPLETED":
            return ""
        reason = "" if facts.get("Reason", "None") == "None" else f" ({facts['Reason']})"
        return f"Slurm says {state}{reason} of job {job}"

    def _facts(self, job: str) -> dict[str, str]:
        described = self._ask(["scontrol", "--oneliner", "show", "job", job]) if job else None
        return dict(_FIELD.findall((described or "").partition("\n")[0]))

    def _node_described(self, nodes: str | None) -> str:
        """Return what Slurm says of a node that is gone, among these; empty where it says of none that it is."""
        described = self._ask(["scontrol", "--oneliner", "show", "node", nodes]) if nodes else None
        for name, state, star in _NODE.findall(described or ""):
            if gone := sorted(_NODE_GONE.intersection([*state.split("+"), *(["NOT_RESPONDING"] if star else [])])):
                return f"Slurm says {'+'.join(gone)} of node {name}"
        return ""

    def know_job(self, worker: str, job: Mapping[str, str]) -> None:
        """Know the job in which a worker found itself."""
        self._jobs[worker] = job.get("SLURM_JOB_ID", "")
        self._nodes[worker] = job.get("SLURMD_NODENAME", "")

    def awaited(self, handles: Sequence[Handle]) -> str:
        """Return the first job that is pending, and why; within an allocation what `srun` says of its step."""
        known = {it.job for it in handles if it.job} | {_job_name(it.worker) for it in handles}
        for listed in self._listed() or ():
            if listed.state == "PENDING" and {listed.job, listed.name} & known:
                return f"Slurm: job {listed.job} PENDING ({listed.reason})"
        said = self.last_lines(handles[0].worker) if self.is_inside else ""
        return f"Slurm: {said}" if said else ""

    def withdraw(self, handles: Collection[Handle]) -> None:
        """Cancel jobs that are pending."""
        if jobs := [it.job for it in handles if it.job]:
            self._withdrawn.update(it.worker for it in handles)
            self._ask(["scancel", "--state=PENDING", *jobs])

    def stop(self, handles: Collection[Handle]) -> None:
        """Cancel the jobs and job steps of workers, and end the processes that lead to them."""
        names = {_job_name(it.worker) for it in handles if not it.job}  # an array has the name of its first task
        jobs = [it.job for it in handles if it.job]
        jobs += [it.job for it in self._listed() or () if it.name in names]
        if jobs:
            self._ask(["scancel", *dict.fromkeys(jobs)])
        super(SlurmLauncher, self).stop(handles)  # a class with slots has no cell for the short form

    def _listed(self) -> list[_Listed] | None:
        """Return the user's jobs and their steps; None where Slurm does not say."""
        listed = self._ask(["squeue", "--me", "--noheader", "--array", "--format=%i %T %r|%j"])
        steps = self._ask(["squeue", "--me", "--noheader", "--steps", "--format=%i RUNNING |%j"])
        if listed is None or steps is None:
            return None
        found = [(_LISTED.fullmatch(line), False) for line in listed.splitlines()]
        found += [(_LISTED.fullmatch(line), True) for line in steps.splitlines()]
        return [_Listed(line[1], line[2], line[3], line[4], is_step) for line, is_step in found if line]


class _Listed(NamedTuple):
    """What `squeue` says of a job, a task of an array, or a job step."""

    job: str
    state: str
    reason: str
    name: str
    is_step: bool


_LISTED: Final = re.compile(r"(\S+) (\S+) ([^|]*)\|(.*)")
_OF_STEPS: Final = frozenset({"gres", "gpus", "cpu-bind", "constraint", "exclusive", "mpi", "export", "label"})
"""Options that a step in an allocation takes as well. Source: srun(1)."""


def _asked(share: Share) -> list[str]:
    """Return the options for the resources of a share."""
    options = [f"--cpus-per-task={share.cpus}"]
    if share.memory:
        options.append(f"--mem={-(-share.memory // _MIB)}M")
    if share.gpus:
        options.append(f"--gpus={share.gpus}")
    return options


def _job_name(worker: str) -> str:
    return f"runnable-{worker}"
