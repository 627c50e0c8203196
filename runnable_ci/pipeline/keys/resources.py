"""`resources`: what a step takes while it runs, for each of its tries. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runnable_ci.pipeline.validation import shown

if TYPE_CHECKING:
    from runnable_ci.pipeline.keys.tables import ResourcesConfig
    from runnable_ci.pipeline.schema import Place

_MEMORY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT])(?:iB|B)?", re.IGNORECASE)
_UNITS: Final = {unit: 1024**power for power, unit in enumerate("KMGT", start=1)}
_MOST: Final = 1_000_000
"""Cores or GPUs: more are a mistake."""
_LEAST_BYTES: Final = 1024**2


class Share(NamedTuple):
    """What one try of a step takes."""

    cpus: int = 1
    memory: int = 0
    """Bytes; 0: it does not say."""
    gpus: int = 0


class Resources(NamedTuple):
    """What the tries of a step take; the last value of each holds for further tries."""

    cpus: tuple[int, ...] = (1,)
    memory: tuple[int, ...] = (0,)
    gpus: tuple[int, ...] = (0,)

    def of_try(self, number: int) -> Share:
        """Return what a try takes; the first one of an invocation has the number 1."""
        return Share(*(values[min(number, len(values)) - 1] for values in self))


def share_of(resources: Resources | None, number: int = 1) -> Share:
    """Return what a try of a step takes, also of one that does not say."""
    return resources.of_try(number) if resources else Share()


def resolve_resources(place: Place, table: str, config: ResourcesConfig, tries: int) -> Resources:
    """Return what a step's table says, which is tried at most so often. Raises `PipelineError`."""
    where = f"{table}.resources"

    def values(key: str, otherwise: int) -> tuple[int, ...]:
        written: Any = getattr(config, key)
        if written is None:
            return (otherwise,)
        listed = written if isinstance(written, list) else [written]
        if not listed:
            raise place.error(where, f"{key}: the list is empty", "give a value for each try", key=key)
        if len(listed) > tries:
            times = "once" if tries == 1 else f"{tries} times at most"
            hint = f"add attempts = {len(listed)} to the step, or remove a value"
            raise place.error(where, f"{key} has {len(listed)} values, but the step is tried {times}", hint, key=key)
        return tuple(_bytes(place, where, one) if key == "memory" else _count(place, where, key, one) for one in listed)

    return Resources(values("cpus", 1), values("memory", 0), values("gpus", 0))


def _count(place: Place, where: str, key: str, value: int) -> int:
    least = 1 if key == "cpus" else 0
    if not least <= value <= _MOST:
        raise place.error(where, f"{key}: must be from {least} to {_MOST:,}, not {shown(value)}", "such as 4", key=key)
    return value


def _bytes(place: Place, where: str, text: str) -> int:
    found = _MEMORY.fullmatch(text.strip())
    if found is None:
        hint = 'a number and its unit: memory = "500M" or "32G"'
        raise place.error(where, f"memory: {shown(text)} is not an amount of memory", hint, key="memory")
    size = float(found[1]) * _UNITS[found[2].upper()]
    if not _LEAST_BYTES <= size <= _MOST * _UNITS["T"]:
        raise place.error(where, f"memory: {shown(text)} is no step's memory", 'from "1M" on', key="memory")
    return int(size)
