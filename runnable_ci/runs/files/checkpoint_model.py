"""Checkpoints in the run log: what an attempt kept of its own work, and which one it resumed from. Pure."""

from typing import Annotated

from pydantic import Field

from runnable_ci.util.bounded_json import LARGE_TABLE, Record


class CheckpointFile(Record):
    """A file of a checkpoint."""

    data_hash: str
    """sha256 of the whole file; of a link's `target`."""
    size: int = 0
    mode: int = 0o644
    mtime_ns: int = 0
    """When it was written, since 1970."""
    kind: str = ""
    """`link` for a link, which has no content in the store; empty for a file."""
    target: str = ""
    """Of a link: where it points to, from its own folder."""


class Checkpoint(Record):
    """The files that match a step's `checkpoint`, as they were at one moment: whole, none of them open for writing."""

    generation: int
    """Which of the attempt's it is, counted from 1; only the newest whole one is kept."""
    time: str
    """When it was whole."""
    files: Annotated[dict[str, CheckpointFile], LARGE_TABLE] = Field(default_factory=dict)
    """Path relative to the workspace → the file."""


class CheckpointUse(Record):
    """The checkpoint that an attempt resumed from: an earlier one of its step, in the same run, had kept it."""

    attempt: int
    """Whose it was."""
    generation: int
    is_foreign: bool = False
    """Other code or other values made it, or what it was itself resumed from."""
    differs: list[str] = Field(default_factory=list, fail_fast=True)
    """What was other then, in words: `definition`, `values`, `code`, `data`; empty also where only an earlier one is
    foreign."""
    not_seen: bool = False
    """What its attempt read is not known, as that was killed: nobody can tell whether it was the same. Neither this nor
    a foreign one is proof for anything outside of the run."""
