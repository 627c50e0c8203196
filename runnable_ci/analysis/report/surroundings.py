"""In what a run's steps ran: code, interpreter, packages, machines. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from runnable_ci.analysis.report.pairs import Pair, pairs
from runnable_ci.runs.machines.environment_model import Environment, Machine
from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import format_size, listed

_DIRTY = "not clean"


@dataclass(frozen=True, slots=True)
class ShownMachine:
    """One of the machines on which the run's steps ran."""

    name: str
    facts: list[Pair]


def code_of(log: RunLog) -> list[Pair]:
    """Return which code ran."""
    code = log.code()
    if code is None:
        return []
    return pairs(
        {
            "Commit": code.code_identifier,
            "Branch or tag": code.ref,
            "Repository": code.code_identifier_url,
            "Work tree": "clean" if code.code_identifier_dependable else code.code_identifier_message or _DIRTY,
        }
    )


def environment_of(one: Environment) -> list[Pair]:
    """Return the interpreter and the system."""
    return pairs(
        {
            "Python": one.interpreter_version,
            "Interpreter": one.interpreter,
            "System": " ".join(filter(None, (one.os, one.architecture, one.distribution))),
            "C library": one.libc,
            "runnable-ci": one.tool_version,
        }
    )


def machine_names(log: RunLog) -> dict[str, str]:
    """Return each environment → how its machine is called, where the run has several."""
    different = _machines(log)
    if len(different) < 2:
        return {}
    return {key: f"machine {different.index(_what_it_is(one)) + 1}" for key, one in log.environments.items()}


def machines_of(log: RunLog) -> list[ShownMachine]:
    """Return the machines of a run, in the order in which they came."""
    different = _machines(log)
    return [
        ShownMachine(f"Machine {at}" if len(different) > 1 else "Machine", facts)
        for at, one in enumerate(different, 1)
        if (facts := _machine(one))
    ]


def _machines(log: RunLog) -> list[Machine]:
    found: list[Machine] = []
    for one in log.environments.values():
        if (machine := _what_it_is(one)) not in found:
            found.append(machine)
    return found


def _what_it_is(one: Environment) -> Machine:
    """Return the machine without what is another number at each look."""
    return one.machine.model_copy(update={"disk_free": 0, "memory": one.machine.memory >> 20 << 20})


def _machine(one: Machine) -> list[Pair]:
    return pairs(
        {
            "Processor": one.cpu or one.cpu_id,
            "Instruction sets": listed(one.cpu_features, at_most=12),
            "Cores": f"{one.cores}" if one.cores else "",
            "Memory": format_size(one.memory) if one.memory else "",
            "GPUs": listed(one.gpus),
            "GPU driver": one.gpu_driver,
            "Runner image": one.runner_image,
            "Virtualised by": one.virtualisation,
        }
    )
