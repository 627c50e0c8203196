"""Which pipeline a run is of, as its log says it: the pipeline file's path, and its name. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from runnable_ci.util.text import unicode_of

SELECTED_STEPS, UNTIL_STEPS = "selected_steps", "until_steps"
"""What a log's `run_config` has beside it, of a run of some steps."""
Base = Literal["repository", "folder", ""]


@dataclass(frozen=True, slots=True)
class PipelineIdentity:
    """What distinguishes a pipeline from others."""

    name: str
    """The name that its file gives; else the name of its folder, which another clone may call otherwise."""
    is_named: bool
    """Whether its file gives the name."""
    file: str
    """The path of its file, with `/`; empty where a log does not say."""
    base: Base
    """What the path begins at: the repository's root, the pipeline's own folder, or a place that nobody noted."""

    @classmethod
    def recorded(cls, name: str, run_config: Mapping[str, Any]) -> PipelineIdentity:
        """Return the pipeline of a run. Older logs have a path from the folder where the command was typed."""
        file, base = run_config.get("pipeline_file"), run_config.get("pipeline_base")
        known: Base = base if base in ("repository", "folder") else ""
        is_named = run_config.get("pipeline_is_named") is not False
        return cls(name, is_named, file if isinstance(file, str) else "", known)

    def resuming(self, run: PipelineIdentity) -> PipelineIdentity:
        """Return what the log of a run of this pipeline says once it is resumed here: nothing that is known gets
        lost.
        """
        if run.base == "repository" != self.base:
            return run
        return self if self.is_named or run.is_named else replace(self, name=run.name)

    def config(self) -> dict[str, Any]:
        """Return the entries of a log's `run_config`."""
        return {
            "pipeline_file": unicode_of(self.file),
            "pipeline_base": self.base,
            "pipeline_is_named": self.is_named,
        }

    def is_same(self, run: PipelineIdentity, *, is_known_here: bool) -> bool:
        """Return whether a run is of this pipeline, as far as is known.

        `is_known_here` says that the run was made in this store, or from a commit of this repository: only then does
        one file identify one pipeline whatever the folder is called.
        """
        has_its_name = self.name == run.name
        if self.base and self.base == run.base:
            may_differ = is_known_here and not self.is_named and not run.is_named
            return unicode_of(self.file) == run.file and (has_its_name or may_differ)
        return has_its_name and (not run.file or run.file in tails(self.file) or self.file in tails(run.file))

    def key(self) -> str:
        """Return what runs of one pipeline share wherever they were made; empty where too little is known for that.

        In a repository the file's path, and its name if it has one: the folder may be called anything in a clone.
        """
        if not self.base or not self.file:
            return ""
        name = self.name if self.is_named or self.base != "repository" else ""
        return hashlib.sha256(json.dumps([name, unicode_of(self.file), self.base]).encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return f"`{self.name}`" + (f" ({self.file})" if self.file else "")


def tails(file: str) -> Iterator[str]:
    """Yield the paths that a noted one may be from another folder, the longest first.

    None for one that could lead out.
    """
    parts = [part for part in PurePosixPath(file).parts if part != "/"]
    if ".." not in parts and "\0" not in file:
        yield from ("/".join(parts[start:]) for start in range(len(parts)))
