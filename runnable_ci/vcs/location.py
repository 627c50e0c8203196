"""Where a folder's repository is, at which commit, and how it is set up: what git is asked first, as values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runnable_ci.errors import CodeIdentityError
from runnable_ci.vcs.filters import PROGRAM_SETTINGS
from runnable_ci.vcs.git import COMMIT, clean_url, printable
from runnable_ci.vcs.objects import Format

SETTINGS: Final = (
    *("config", "-z", "--get-regexp"),
    # The last one is always there, by `SAFE_OPTIONS`: git says no where nothing matches.
    rf"^(user\.name|remote\..*\.url|branch\..*\.remote|{PROGRAM_SETTINGS}|core\.ignorecase|safe\.barerepository)$",
)
LOCATION: Final = (
    *("rev-parse", "--show-toplevel", "--show-prefix", "--git-common-dir", "--git-path", "index"),
    # Where there is no commit yet, the rest gives nothing.
    *("--show-object-format", "--revs-only", "HEAD^{commit}", "HEAD^{tree}"),
)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a folder's repository is; `prefix`, the way from the root to the folder, is "" or ends with a slash."""

    root: str
    prefix: str = ""
    common_folder: str = ""
    index: str = ""
    form: Format = "sha1"


def parsed_location(folder: str, output: str) -> tuple[Location, str, str]:
    """Return what git's answer to `LOCATION` tells, the commit and its tree; both are empty where there is none."""
    place, revisions = output.split("\n")[:5], output.split("\n")[5:-1]
    if len(place) < 5 or place[4] not in ("sha1", "sha256") or not all(map(COMMIT.fullmatch, revisions)):
        raise CodeIdentityError("the repository's folder has a line break in its name")
    root, prefix = place[:2]
    common_folder, index = (os.path.normpath(Path(folder, path)) for path in place[2:4])
    commit, tree = revisions if len(revisions) == 2 else ("", "")
    form: Format = "sha256" if place[4] == "sha256" else "sha1"
    return Location(root.rstrip("/"), prefix, common_folder, index, form), commit, tree


def parsed_settings(output: bytes) -> dict[str, list[str]]:
    """Return what git's answer to `SETTINGS` has: name → all values, the last of which counts.

    Names keep their bytes: those of filters are given back to git.
    """
    values: dict[str, list[str]] = {}
    for item in os.fsdecode(output).split("\0"):
        name, _, value = item.partition("\n")
        values.setdefault(name, []).append(value)
    return values


def ignores_case(settings: Mapping[str, list[str]]) -> bool:
    """Return whether git takes two names that differ in capital letters alone for one. Source: git-config(1)."""
    return settings.get("core.ignorecase", ["false"])[-1].lower() not in ("false", "no", "off", "0")


def tree_of(commit: str) -> str:
    """Return how git calls the tree of a commit."""
    return f"{commit}^{{tree}}"


def remote_url(settings: Mapping[str, list[str]], branch: str) -> str:
    """Return the URL of `origin`, else of the branch's remote, else of the first one, without credentials."""
    names = [name for name in settings if name.startswith("remote.")]
    upstream = settings.get(f"branch.{branch}.remote", [""])[-1]
    chosen = [name for name in ("remote.origin.url", f"remote.{upstream}.url") if name in settings] or names
    return clean_url(printable(os.fsencode(settings[chosen[0]][0]))) if chosen else ""
