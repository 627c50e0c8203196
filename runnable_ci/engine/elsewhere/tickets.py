"""What a worker needs to run an attempt, as one side writes it and the other reads it.

A pickle, since it has the very values that a thread of this machine would get. It is read only where nobody but its
user can have written it, by the same version of the program.
"""

from __future__ import annotations

import copyreg
import os
import pickle
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from runnable_ci.engine.planner import Scope
from runnable_ci.errors import StoreError
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.code_model import CodeState
from runnable_ci.runs.elsewhere.places import require_own
from runnable_ci.runs.model import Pack, StepAttempt, StepLog
from runnable_ci.steps.containers.image_names import ContainerImage
from runnable_ci.util.files import open_nofollow
from runnable_ci.version import VERSION

_Kind = TypeVar("_Kind", bound="Setting | Ticket | Letter")
_OWN: Final = __name__.partition(".")[0]
_PLAIN: Final = frozenset(
    {("builtins", "set"), ("builtins", "frozenset"), ("pathlib", "PosixPath"), ("collections", "OrderedDict")}
)
"""What else values are made of."""
_OF_THE_MACHINE: Final = (
    *("HOSTNAME", "HOST", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_SESSION_ID", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY"),
    *("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
"""Variables that say something of a machine, or of what a scheduler gave there."""
_OF_SCHEDULERS: Final = ("SLURM_", "SLURMD_", "SRUN_", "SSH_", "PMI_", "PMIX_")


class ContainerSetting(NamedTuple):
    """What runs steps in containers, but for what each machine has of its own."""

    shared: tuple[Path, ...]
    secrets: frozenset[str]
    python: str | None
    chosen: str | None


class Setting(NamedTuple):
    """What all attempts of one invocation share."""

    run_id: str
    invocation: int
    workspace: Path
    store: Path
    interpreter: str
    environ: Mapping[str, str]
    """That of the steps here."""
    secrets: frozenset[str]
    """What is removed from all records."""
    secret_names: frozenset[str]
    reuse_key: str
    around: str
    """The repository around the workspace, else empty."""
    containers: ContainerSetting | None = None
    version: str = VERSION


class Ticket(NamedTuple):
    """What one attempt needs beside."""

    step: Step
    attempt: StepAttempt
    """As it was begun."""
    scope: Scope
    past: StepLog | None
    packs: Mapping[str, Pack]
    """Those with contents that it may need."""
    secrets: frozenset[str]
    """What was masked since the invocation began."""
    beside: tuple[str, ...] | None
    """Globs of what steps make that may run at the same time; None where none does."""
    hidden: frozenset[str]
    """Files that other steps made and that this one does not see."""
    images: Mapping[str, ContainerImage]
    """Image, as the pipeline file names it → what the run resolved it to."""
    edited: frozenset[str]
    """Files that steps made and a person changed."""
    version: str = VERSION


class Letter(NamedTuple):
    """What a machine needs that shares no folder with this one: no secret is in it."""

    ticket: Ticket
    run_id: str
    invocation: int
    file: str
    """The pipeline file, in its repository."""
    codes: Mapping[str, CodeState]
    """The state of the code that it runs, by its key."""
    variables: Mapping[str, str]
    """Those of the step that it names, and what this program sets."""
    withheld: frozenset[str]
    """Parameters of which the values are secrets."""
    secret_names: frozenset[str]
    answer: str
    """The tag of what comes back."""
    contents: tuple[tuple[str, int], ...]
    """sha256 and size of the blobs that belong to it."""
    version: str = VERSION


def write_private(path: Path, value: Setting | Ticket) -> None:
    """Write a setting or a ticket for this user alone, whole or not at all."""
    content = packed(value)
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(file, "wb") as opened:
        opened.write(content)
    new.replace(path)


def read_private(path: Path, kind: type[_Kind]) -> _Kind:
    """Return a setting or a ticket. Raises `StoreError` for one of another user or version."""
    require_own(path)
    with open(path, "rb", opener=open_nofollow) as file:
        content = file.read()
    return unpacked(content, kind, str(path))


def packed(value: NamedTuple) -> bytes:
    """Return values that `unpacked` reads on another machine."""
    buffer = BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, MappingProxyType: _as_dict}
    pickler.dump(value)
    return buffer.getvalue()


def unpacked(content: bytes, kind: type[_Kind], where: str) -> _Kind:
    """Return values whose writer is known to be this user; beside plain ones they are classes of this program.

    Raises `StoreError` for those of another version.
    """
    try:
        value = _Unpickler(BytesIO(content)).load()
    except Exception as e:
        raise StoreError(f"{where} cannot be read: {e}", hint="is this the version that began the run?") from e
    if not isinstance(value, kind) or value.version != VERSION:
        raise StoreError(
            f"{where} was written by another version of runnable-ci than {VERSION}", hint="install the same one there"
        )
    return value


class _Unpickler(pickle.Unpickler):
    """Makes nothing but plain values and objects of this program's own classes."""

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        is_own = module.partition(".")[0] == _OWN and (isinstance(found, type) or found is _read_only)
        if not is_own and (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in it")
        return found


def environ_there(here: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of steps on another machine: that of this one, but what each machine says of itself."""
    kept = {name: value for name, value in here.items() if not _is_of_a_machine(name)}
    return kept | {name: value for name, value in there.items() if _is_of_a_machine(name)}


def _is_of_a_machine(name: str) -> bool:
    return name in _OF_THE_MACHINE or name.startswith(_OF_SCHEDULERS)


def _as_dict(proxy: Mapping[Any, Any]) -> tuple[Any, ...]:
    return _read_only, (dict(proxy),)


def _read_only(values: dict[Any, Any]) -> Mapping[Any, Any]:
    """Return what a pickle cannot name itself."""
    return MappingProxyType(values)
