"""The machine of an attempt, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from runnable_ci.runs.machines.environment_model import Machine, NumericLibrary
from runnable_ci.util.text import format_size, pluralize, printable

_SHOWN: Final = ("avx", "avx2", "fma", "avx512f", "amx_tile", "neon", "asimd", "sve", "sve2")
"""Of the instruction sets; the run log has the others too."""


def machine_line(machine: Machine) -> str:
    """Return a machine in one line; empty where nothing was recorded of it."""
    features = [name for name in _SHOWN if name in machine.cpu_features]
    of_cpu = f"{machine.cpu or machine.cpu_id}{f' ({chr(32).join(features)})' if features else ''}"
    cores = pluralize(machine.cores, "core") if machine.cores else ""
    cores += f", limited to {machine.cpu_limit:g}" if machine.cpu_limit else ""
    memory = format_size(machine.memory) if machine.memory else ""
    memory += f", limited to {format_size(machine.memory_limit)}" if machine.memory_limit else ""
    counted = Counter(machine.gpus)
    gpus = ", ".join(f"{number} x {name}" if number > 1 else name for name, number in counted.items())
    disk = f"{machine.file_system} with {format_size(machine.disk_free)} free" if machine.disk_size else ""
    parts = [of_cpu, cores, memory, gpus, machine.gpu_driver, machine.virtualisation, machine.runner_image, disk]
    return printable(", ".join(filter(None, parts)))


def libraries_line(libraries: Sequence[NumericLibrary]) -> str:
    """Return the libraries for linear algebra and threads in one line."""
    return printable("; ".join(map(_library, libraries)))


def _library(library: NumericLibrary) -> str:
    threads = f", {pluralize(library.threads, 'thread')}" if library.threads else ""
    return f"{library.version or library.name}{threads}"
