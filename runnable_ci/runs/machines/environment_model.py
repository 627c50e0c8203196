"""In what attempts ran, as the run log has it."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from runnable_ci.util.bounded_json import LARGE_TABLE, Record
from runnable_ci.util.text import format_size, pluralize

Origin = Literal["editable", "folder", "file", "url", "git", "repository"]
"""From what a package was installed that no index gave; `repository` is one that is none of git."""


class Capacity(NamedTuple):
    """What a machine has for steps."""

    cpus: int
    memory: int = 0
    """Bytes; 0 where it is not known."""
    gpus: tuple[str, ...] = ()
    """As `CUDA_VISIBLE_DEVICES` names them."""


class GivenResources(Record):
    """What an attempt had of its machine to run with, as its step's `resources` say for that try."""

    cpus: int
    memory: int = 0
    """Bytes; 0: the step does not say."""
    gpus: int = 0

    def __str__(self) -> str:
        """Return it for people."""
        memory = f"{format_size(self.memory)} of memory" if self.memory else ""
        gpus = pluralize(self.gpus, "GPU") if self.gpus else ""
        return ", ".join(filter(None, (pluralize(self.cpus, "core"), memory, gpus)))


class Machine(Record):
    """The machine on which steps ran, as its system tells it; what it does not tell is empty or 0."""

    cpu: str = ""
    """The processor's name."""
    cpu_id: str = ""
    """Maker, family, model and stepping, or what ARM has in their place, by their numbers."""
    cpu_features: list[str] = Field(default_factory=list, fail_fast=True)
    """Instruction sets by which numeric libraries choose their code: `avx2`, `fma`, `asimd` …"""
    cores: int = 0
    """Logical processors that the program may use."""
    cpu_limit: float = 0
    """How many of them its control groups allow; 0: no limit."""
    memory: int = 0
    """In bytes."""
    memory_limit: int = 0
    """Of its control groups, in bytes; 0: no limit."""
    gpus: list[str] = Field(default_factory=list, fail_fast=True)
    gpu_driver: str = ""
    """`nvidia` or `amdgpu`, and its version."""
    runner_image: str = ""
    """The image of GitHub's runner and its version."""
    virtualisation: str = ""
    """Who virtualises the machine, as its firmware says, and `docker` or `podman` where this was in a container."""
    file_system: str = ""
    """The kind of that of the workspace."""
    disk_size: int = 0
    """Of that file system, in bytes."""
    disk_free: int = 0
    """As the invocation began that recorded it."""


class NumericLibrary(Record):
    """A library for linear algebra or threads that a step's process had loaded when it ended."""

    name: str
    """Of its file."""
    kind: str = ""
    """`openblas`, `mkl`, `blis`, `blas`, `openmp` or `accelerate`."""
    version: str = ""
    """As the library says it, with how it was built."""
    threads: int = 0
    """How many it would use at most; 0 where it does not say."""


class Environment(Record):
    """Where steps ran: recorded once for all attempts that share it."""

    tool_version: str = ""
    os: str = ""
    libc: str = ""
    """The system's C library and its version."""
    distribution: str = ""
    """The system's name and version, as its `os-release` has them."""
    architecture: str = ""
    cpu_count: int = 0
    interpreter: str = ""
    """Path of the interpreter that runs python steps; of commands, of the `python` that they find on their PATH."""
    interpreter_version: str = ""
    packages: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Installed in that interpreter: name → version."""
    origins: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Of those that came from no index, from what: `editable`, `folder`, `file`, `url`, `git` or `repository`.

    Never from where: that may hold secrets. Earlier versions recorded none.
    """
    lock_files: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Lock and requirement files of the workspace → sha256."""
    variables: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Environment variables, by an allow-list only."""
    machine: Machine = Field(default_factory=Machine)
