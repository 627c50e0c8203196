"""Which code an attempt ran, as the run log has it."""

from typing import Annotated

from pydantic import Field

from runnable_ci.util.bounded_json import LARGE_TABLE, Record


class CodeIdentity(Record):
    """Which code an attempt ran."""

    code_identifier: str = ""
    """Commit sha (git) or image digest (docker)."""
    code_identifier_type: str = "git"
    code_identifier_dependable: bool = False
    """True only if nothing in the work tree differs from that commit."""
    code_identifier_url: str = ""
    """The remote, without credentials."""
    code_identifier_message: str = ""
    """The files that differ, or why the identity is not known."""
    ref: str = ""
    changes: Annotated[dict[str, tuple[str, str]], LARGE_TABLE] = Field(default_factory=dict)
    """As in `CodeState`; this and the following fields are in logs of earlier versions."""
    snapshot: str = ""
    """sha256 of the archive of the difference, for a tree that is not dependable."""
    snapshot_size: int = 0
    snapshot_omitted: list[str] = Field(default_factory=list, fail_fast=True)
    """Files that were left out of the archive, each with its reason."""
    snapshot_untracked: list[str] | None = None
    """Untracked files that are in the archive; unknown in logs of earlier versions."""


class CodeState(Record):
    """A work tree as it was when attempts began: recorded once for all attempts that share it."""

    commit: str = ""
    tree: str = ""
    """git's id of a tree of just these bytes, with no filter; empty where it is not known."""
    base: str = ""
    """Key of the state that this one builds on: it says only what is different from that."""
    changes: Annotated[dict[str, tuple[str, str]], LARGE_TABLE] = Field(default_factory=dict)
    """Path → (modified, untracked …, sha256 of its content or empty); of a submodule its commit."""
    unknown: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Path → what is not known of it, or why it was not compared with the commit."""
    unpublished: bool = False
    """No branch of a remote was known to have the commit."""
    kept: str = ""
    """A commit on `commit` with the tree as far as it is kept; empty where nothing is."""
    bundles: Annotated[dict[str, tuple[str, int]], LARGE_TABLE] = Field(default_factory=dict)
    """Commit → (sha256, size) of the git bundle that brings it: `kept`, those of submodules."""
    omitted: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Path → why it is not kept."""
    snapshot: str = ""
    """sha256 of an archive of the difference, in the format of earlier versions."""
    snapshot_size: int = 0
    untracked: list[str] | None = None
    """Untracked files that are in that archive, where it says so."""
