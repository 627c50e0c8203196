"""What would keep a run from being published, or from fitting on the disk: found out before it begins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runnable_ci.errors import (
    FREE_SPACE,
    ManifestNotFoundError,
    RegistryAuthError,
    RegistryProtocolError,
    RunnableError,
    StoreError,
)
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.remote.listing import branch_tag
from runnable_ci.store.reference import GITHUB_REGISTRY
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import manifest_parts, read_manifest
from runnable_ci.util.console import is_actions
from runnable_ci.util.text import format_size

LOW_BYTES = 256 * 1024 * 1024
"""Below it even a run that stores little may not fit: the programs that it starts need some space too."""
FULL_BYTES = 8 * 1024 * 1024
"""Below it not even the log of a run is sure to fit."""
SILENT_S = 10.0
"""A registry that is silent for so long is not waited for: the run is to begin."""
_LATER = "the run can begin: its registry has to answer when it has ended"
_PERMISSIONS = "permissions:\n  contents: read\n  packages: write"
_LOGIN = """\
env:
  RUNNABLE_CI_REGISTRY: {repository}
  RUNNABLE_CI_REGISTRY_USERNAME: ${{{{ vars.REGISTRY_USERNAME }}}}
  RUNNABLE_CI_REGISTRY_PASSWORD: ${{{{ secrets.REGISTRY_PASSWORD }}}}"""
_PACKAGE = (
    "if the job has `packages: write`, the package was created by someone else: on its page, under "
    '"Manage Actions access", add this repository with the role Write'
)
_MORE_ROOM = """\
steps: # before this one, on GitHub's own runners; or a larger runner, by runs-on
  - run: sudo rm -rf /usr/share/dotnet /usr/local/lib/android /opt/ghc"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found."""

    subject: str
    message: str
    problem: RunnableError | None = None
    is_fatal: bool = False
    """Whether a run that begins now would be in vain, as far as can be known."""

    @property
    def state(self) -> Literal["ok", "warning", "error"]:
        """The outcome in a word."""
        return "ok" if self.problem is None else "error" if self.is_fatal else "warning"


def check_registry(registry: Registry, environ: Mapping[str, str]) -> Finding:
    """Return whether a registry takes uploads from us now.

    It is asked just what the first upload of a run asks, once. A refusal will stay one; a registry that cannot be
    reached may be back when the run has ended.
    """
    registry.give_up_after(SILENT_S)
    try:
        registry.require_writable(tries=1)
    except RegistryAuthError as e:
        if registry.advice is None and is_actions(environ):
            is_github = registry.label.startswith(f"{GITHUB_REGISTRY}/")
            e.hint = _PACKAGE if is_github else "give the job a login for it"
            e.fix = _PERMISSIONS if is_github else _LOGIN.format(repository=registry.label)
        return Finding("registry", e.message, e, is_fatal=True)
    except RegistryProtocolError as e:
        return Finding("registry", e.message, e, is_fatal=True)
    except StoreError as e:
        return Finding("registry", e.message, StoreError(e.message, hint=_LATER))
    return Finding("registry", f"{registry.label} takes uploads")


def stored_bytes(log: RunLog) -> int:
    """Return how many bytes a run has in a store."""
    return sum({content.digest: content.size for content in layers(log).values()}.values())


def size_of_newest(registry: Registry, pipeline: str, branch: str) -> int:
    """Return how many bytes the newest run of a branch has in the registry; 0 where there is none.

    Raises `StoreError`, after one try.
    """
    registry.give_up_after(SILENT_S)
    try:
        manifest = registry.resolve(branch_tag(pipeline, branch), to_write=True, tries=1)
    except ManifestNotFoundError:
        return 0
    with registry.fetch(manifest) as source:
        raw = read_manifest(source, manifest, label=registry.label)
    return sum({part.digest: part.size for part in manifest_parts(raw, manifest, label=registry.label)}.values())


def check_space(folder: Path, run_bytes: int, environ: Mapping[str, str], *, is_fresh: bool) -> Finding:
    """Return whether a run that stores as much as the last one, `run_bytes`, has room on the disk of a folder.

    Where the workspace `is_fresh` its files come there too, beside the copies in the store.
    """
    found = os.statvfs(folder)
    free_bytes = found.f_bavail * found.f_frsize
    free = f"{format_size(free_bytes)} are free on the disk of {folder}"
    if run_bytes:
        free += f"; the last run stored {format_size(run_bytes)}"
    if is_fresh and run_bytes:
        free += ", which takes twice as much here, in the workspace and in the store"
    if free_bytes >= max(LOW_BYTES, run_bytes * (2 if is_fresh else 1)):
        return Finding("disk", free)
    is_hosted = environ.get("RUNNER_ENVIRONMENT") == "github-hosted" and environ.get("RUNNER_OS") == "Linux"
    problem = StoreError(free, hint=FREE_SPACE, fix=_MORE_ROOM if is_hosted else "")
    return Finding("disk", free, problem, is_fatal=free_bytes < FULL_BYTES)
