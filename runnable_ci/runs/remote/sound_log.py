"""Whether a run log that came from elsewhere is fit to be used: no name or digest in it leads anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from runnable_ci.errors import RunLogError
from runnable_ci.pipeline.validation import check_input, check_relative, is_excluded
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.files.checkpoint_model import Checkpoint
from runnable_ci.runs.files.links import check_entries, check_target
from runnable_ci.runs.model import LINK, RunLog
from runnable_ci.runs.reader import LATEST
from runnable_ci.store.target import TAG, Descriptor

_STEP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,999}")


def require_sound(log: RunLog, sizes: Mapping[str, int], where: str) -> None:
    """Raise for a run log with a name or a digest that could lead anywhere, or that its manifest contradicts."""
    if not TAG.fullmatch(log.run_id) or log.run_id == LATEST:
        raise RunLogError(f"{where} has the invalid run id {log.run_id[:100]!r}; it was not used")

    def unsafe(message: str) -> RunLogError:
        return RunLogError(f"{where} names a file with {message}; it was not used")

    for name, step in log.steps.items():
        if name != step.name or not _STEP.fullmatch(name) or not _STEP.fullmatch(step.internal_name):
            raise RunLogError(f"{where} has the invalid step name {name[:100]!r}; it was not used")
        for entries in [step.data_catalog, *(attempt.data_catalog for attempt in step.attempts)]:
            for entry in entries:
                (check_input if entry.is_input else check_relative)(entry.name, unsafe)
            check_entries(entries, lambda message: RunLogError(f"{where} has {message}; it was not used"))
        for attempt in step.attempts:
            if attempt.checkpoint is not None:
                _check_checkpoint(attempt.checkpoint, unsafe)
    for title, layer in layers(log).items():  # raises for a digest that is none
        if sizes.get(layer.digest, layer.size) != layer.size:
            raise RunLogError(
                f"the run log of {where} records another size for {title} than its manifest; it was not used"
            )


def _check_checkpoint(checkpoint: Checkpoint, error: Callable[[str], RunLogError]) -> None:
    for name, file in checkpoint.files.items():
        check_relative(name, error)
        if is_excluded(name) or file.kind not in ("", LINK):
            raise error(f"a place that no checkpoint has: {name}")
        Descriptor.of_hash(file.data_hash, file.size)  # raises for a digest that is none
        if file.kind == LINK:
            check_target(name, file.target, error)
