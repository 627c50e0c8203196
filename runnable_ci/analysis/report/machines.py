"""On which machines a run's steps ran, as far as what they tell of themselves distinguishes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runnable_ci.analysis.report.pairs import Pair, pairs
from runnable_ci.runs.machines.environment_model import Environment, Machine
from runnable_ci.runs.model import RunLog
from runnable_ci.util.text import format_size, listed

KINDS_MAX: Final = 20
"""Of machines that are equal in what they tell the facts are shown once."""
_OF_A_JOB: Final = ("GITHUB_RUN_ID", "GITHUB_RUN_ATTEMPT", "GITHUB_JOB", "RUNNER_NAME")


@dataclass(frozen=True, slots=True)
class ShownMachine:
    """One of the machines on which the run's steps ran, or several that are equal."""

    name: str
    facts: list[Pair]


def machine_names(log: RunLog) -> dict[str, str]:
    """Return each environment → how its machine is called, where the run has several."""
    different = _machines(log)
    if len(different) < 2:
        return {}
    return {key: f"machine {different[_which_it_is(one)]}" for key, one in log.environments.items()}


def machines_of(log: RunLog) -> list[ShownMachine]:
    """Return the machines of a run, in the order in which they came; those that are equal together."""
    different = _machines(log)
    numbers: dict[str, list[int]] = {}
    models: dict[str, Machine] = {}
    for one in log.environments.values():
        key = repr(_what_it_is(one))
        models[key] = _what_it_is(one)
        number = different[_which_it_is(one)]
        if number not in numbers.setdefault(key, []):
            numbers[key].append(number)
    return [
        ShownMachine(_name(numbers[key], len(different)), facts)
        for key, model in [*models.items()][:KINDS_MAX]
        if (facts := _facts(model))
    ]


def where_each_ran(log: RunLog) -> dict[int, str]:
    """Return of each invocation on which machines its attempts were made, and in which job of GitHub's."""
    names = machine_names(log)
    found: dict[int, dict[str, None]] = {}
    for step in log.steps.values():
        for attempt in step.attempts:
            found.setdefault(attempt.invocation, {}).setdefault(attempt.environment)
    return {number: listed(dict.fromkeys(_places(log, keys, names)), at_most=3) for number, keys in found.items()}


def _places(log: RunLog, environments: dict[str, None], names: dict[str, str]) -> Iterator[str]:
    for key in environments:
        variables = log.environments[key].variables if key in log.environments else {}
        job = variables.get("GITHUB_JOB", "")
        if text := ", ".join(filter(None, (names.get(key, ""), job and f"job {job}"))):
            yield text


def _name(numbers: list[int], of: int) -> str:
    if of < 2:
        return "Machine"
    return f"Machine {numbers[0]}" if len(numbers) == 1 else f"Machines {listed(map(str, numbers), at_most=5)}"


def _machines(log: RunLog) -> dict[tuple[str, ...], int]:
    """Return the number of each machine."""
    found: dict[tuple[str, ...], int] = {}
    for one in log.environments.values():
        found.setdefault(_which_it_is(one), len(found) + 1)
    return found


def _which_it_is(one: Environment) -> tuple[str, ...]:
    """Return what tells machines apart: a job of GitHub's own runners has a new one, another runner has its name."""
    variables = one.variables
    names = _OF_A_JOB[-1:] if variables.get("RUNNER_ENVIRONMENT") == "self-hosted" else _OF_A_JOB
    return (repr(_what_it_is(one)), *(variables.get(name, "") for name in names))


def _what_it_is(one: Environment) -> Machine:
    """Return the machine without what is another number at each look."""
    return one.machine.model_copy(update={"disk_free": 0, "memory": one.machine.memory >> 20 << 20})


def _facts(one: Machine) -> list[Pair]:
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
