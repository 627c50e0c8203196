"""Which steps this machine has room for: they are packed by cores, memory and GPUs, and none waits for ever. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from runnable_ci.engine.provenance.changes import Decision
from runnable_ci.pipeline.keys.resources import Share, share_of
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.machines.environment_model import Capacity, GivenResources
from runnable_ci.util.text import format_size

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class Taken(NamedTuple):
    """What a step has that runs, or is about to."""

    share: Share
    gpus: tuple[str, ...] = ()
    """Which ones."""


@dataclass(slots=True, eq=False, repr=False)
class Room:
    """What the steps that run leave of this machine.

    A step that there is no room for waits, and the first one that waits reserves: what begins after it began to wait
    leaves room for it beside. So it begins at the latest when those have ended that ran by then. A step that takes
    more than the machine has runs alone.
    """

    capacity: Capacity
    jobs: int
    """Steps at a time, which the loop counts: where these are more than cores, steps that say nothing may have them."""
    _taken: dict[str, Taken] = field(default_factory=dict)
    _waiting: dict[str, Share | None] = field(default_factory=dict)
    """Steps that there was no room for, the first one first → what they take, None where they do not say."""
    _late: set[str] = field(default_factory=set)
    """Those that began since the first one of these waits."""
    _promised: set[str] = field(default_factory=set)
    """Steps that have waited, and there is room for now."""
    _is_changed: bool = False
    """Whether a step has ended since the waiting ones were looked at."""

    @property
    def is_full(self) -> bool:
        """Whether there is room for no other step, whatever it takes."""
        return not self._promised and self._sum(self._taken).cpus >= max(self.capacity.cpus, self.jobs)

    def placed(self, step: Step, decision: Decision, number: int, say: Callable[..., None]) -> Decision | None:
        """Return the decision on a step, which takes its room if it runs; None where there is none: it waits.

        A step that can never run here is refused.
        """
        if decision.action == "run" and not decision.refusal:
            decision = decision._replace(refusal=self.refusal(step, number))
            if not decision.refusal and not self.admit(step, number):
                return None
            if note := self.note(step, number):
                say(note, step=step.shown)
        if decision.action != "run" or decision.refusal:
            self.leave(step.name)
        return decision

    def refusal(self, step: Step, number: int) -> str:
        """Return why a try of a step cannot run here at all; empty where it can."""
        wanted, there = share_of(step.resources, number).gpus, len(self.capacity.gpus)
        return f"it takes {_counted(wanted, 'GPU')}, and this machine has {there or 'none'}" if wanted > there else ""

    def admit(self, step: Step, number: int) -> bool:
        """Return whether there is room for a try of a step, which takes it; else it waits, to be `due`."""
        if step.mock == "nothing":
            return True
        if step.name in self._taken:
            self._promised.discard(step.name)
            return True
        share = share_of(step.resources, number) if step.resources else None
        if is_admitted := self._fits(step.name, share):
            self._take(step.name, share)
        else:
            self._waiting[step.name] = share
        return is_admitted

    def due(self) -> list[str]:
        """Return the steps that have waited, and that there is room for now: it is theirs until they leave."""
        if not self._is_changed:
            return []
        self._is_changed = False
        found: list[str] = []
        too_large: set[Share | None] = set()
        for name, share in list(self._waiting.items()):
            if share in too_large or not self._fits(name, share):
                too_large.add(share)
                continue
            is_first = name == next(iter(self._waiting))
            del self._waiting[name]
            self._take(name, share)
            if is_first:
                self._late.clear()
            found.append(name)
        self._promised.update(found)
        return found

    def leave(self, step: str) -> None:
        """Give back what a step had, which has ended, or does not run after all."""
        self._is_changed |= self._taken.pop(step, None) is not None
        self._promised.discard(step)
        self._late.discard(step)

    def gpus(self, step: str) -> tuple[str, ...]:
        """Return which GPUs a step has."""
        return self._taken[step].gpus if step in self._taken else ()

    def environ(self, step: str, environ: Mapping[str, str]) -> Mapping[str, str]:
        """Return the environment of a step, which sees its own GPUs where it said how many it takes."""
        gpus = self.gpus(step)
        return {**environ, _VISIBLE: ",".join(gpus)} if gpus else environ

    def given(self, step: Step, decision: Decision, number: int) -> GivenResources | None:
        """Return what a try of a step has to run with; None where it does not say what it takes, or does not begin."""
        if step.resources is None or step.mock == "nothing" or decision.refusal:
            return None
        return GivenResources(**share_of(step.resources, number)._asdict())

    def note(self, step: Step, number: int) -> str:
        """Return what to say of a try of a step that runs alone since it takes more than there is; empty for others."""
        share, there = share_of(step.resources, number), self.capacity
        over = []
        if share.cpus > there.cpus:
            over.append(f"{share.cpus} cores, and this machine has {there.cpus}")
        if there.memory and share.memory > there.memory:
            over.append(f"{format_size(share.memory)} of memory, and this machine has {format_size(there.memory)}")
        return f"note: it takes {'; '.join(over)}: it runs alone" if over else ""

    def _take(self, name: str, share: Share | None) -> None:
        held = {gpu for taken in self._taken.values() for gpu in taken.gpus}
        free = [gpu for gpu in self.capacity.gpus if gpu not in held]
        share = share or Share()
        self._taken[name] = Taken(share, tuple(free[: share.gpus]))
        if self._waiting:
            self._late.add(name)

    def _fits(self, name: str, share: Share | None) -> bool:
        """Return whether a step may begin, by what is taken and by what the first one that waits takes."""
        first = next(iter(self._waiting), name)
        if not self._taken and first == name:
            return True
        own, taken = share or Share(), self._sum(self._taken)
        if not self._has(_sum([taken, own]), self._cores(share)):
            return False
        reserved = self._waiting.get(first)
        late = self._sum(self._late)
        return first == name or self._has(_sum([late, own, reserved or Share()]), self._cores(reserved))

    def _cores(self, share: Share | None) -> int:
        """Return of how many cores a step may be one; one that says nothing may be one of as many as `--jobs` has."""
        return self.capacity.cpus if share else max(self.capacity.cpus, self.jobs)

    def _has(self, share: Share, cores: int) -> bool:
        memory = self.capacity.memory
        return share.cpus <= cores and (not memory or share.memory <= memory) and share.gpus <= len(self.capacity.gpus)

    def _sum(self, names: Iterable[str]) -> Share:
        return _sum([self._taken[name].share for name in names])


def _sum(shares: Sequence[Share]) -> Share:
    return Share(*(sum(values) for values in zip(*shares, strict=True))) if shares else Share(0, 0, 0)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
