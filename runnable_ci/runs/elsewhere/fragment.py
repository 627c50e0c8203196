"""The result of one attempt that ran elsewhere: written there, whole and sealed, and read here."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from runnable_ci.errors import StoreError
from runnable_ci.runs.elsewhere.places import require_own
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import CatalogEntry, Pack, StepAttempt
from runnable_ci.util.bounded_json import Allowance, Record, RecordError, first_problem, parse_own, with_check
from runnable_ci.util.files import open_nofollow, write_whole

_MAX_BYTES: Final = 256 << 20
_BYTES_PER_FIELD: Final = 8


class Fragment(Record):
    """What the far side says of an attempt that it ran; its output and its files are in the store."""

    step: str
    attempt: StepAttempt
    data_catalog: list[CatalogEntry] = Field(default_factory=list)
    packs: dict[str, Pack] = Field(default_factory=dict)
    environment: Environment | None = None
    """That of the far machine."""
    seconds: float = 0.0
    host: str = ""
    is_started: bool = False
    """Whether the step's process was started."""
    said: list[str] = Field(default_factory=list, fail_fast=True)
    """What the program said of it there, where nobody followed it."""


def seal(fragment: Fragment, path: Path, *, through: Path) -> None:
    """Write a fragment, which proves itself by a check, whole or not at all."""
    write_whole(path, document_of(fragment), through=through)


def document_of(fragment: Fragment) -> bytes:
    """Return a fragment as a document that proves itself by a check."""
    return with_check(fragment.model_dump_json(exclude_defaults=True).encode())


def read_fragment(path: Path) -> Fragment | None:
    """Return a sealed fragment; None where there is none yet. Raises `StoreError` for one that is damaged."""
    try:
        require_own(path)
        with open(path, "rb", opener=open_nofollow) as file:
            document = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    return parse_fragment(document, str(path))


def parse_fragment(document: bytes, where: str) -> Fragment:
    """Return the fragment of a document that is `where`. Raises `StoreError` for one that is damaged."""
    allowance = Allowance()
    allowance.grow(len(document), bytes_per_field=_BYTES_PER_FIELD)
    if len(document) > _MAX_BYTES:
        raise StoreError(f"{where} has more than {_MAX_BYTES >> 20} MiB")
    try:
        return Fragment.model_validate(parse_own(document), context=allowance)
    except ValidationError as e:
        raise StoreError(f"{where} is damaged: {first_problem(e)}") from e
    except (ValueError, RecordError, RecursionError) as e:
        raise StoreError(f"{where} is damaged: {e}") from e
