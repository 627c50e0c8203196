"""Notes on a run written into its log, which is sealed again: they travel with it."""

from __future__ import annotations

from typing import Any

from runnable_ci.redaction.redactor import Redactor
from runnable_ci.runs.events import LogImported
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import catalog_of, load
from runnable_ci.runs.recorder import reopen
from runnable_ci.store.local import Layout
from runnable_ci.util.clock import now


def note(layout: Layout, run_id: str, *, by: str, redactor: Redactor, **changed: Any) -> RunLog:
    """Change some notes on a run: `tag`, `description`, `pinned`; return its log.

    Raises `RunInUseError` while the run is being written, `StoreError`.
    """
    with reopen(layout, load(layout, run_id), redactor) as recorder:
        recorder.seal(catalog_of(layout, recorder.log))
        notes = recorder.log.notes.model_copy(update={**changed, "noted": now(), "by": by})
        updated = recorder.log.model_copy(
            update={"notes": notes, "tag": recorder.log.tag if notes.tag is None else notes.tag}
        )
        recorder.record(LogImported(run_log=updated))
        recorder.seal(catalog_of(layout, recorder.log))
        return recorder.log
