"""A run that is published while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runnable_ci.runs.live.publisher import LivePublisher
from runnable_ci.runs.recorder import Recorder
from runnable_ci.store.local import Layout
from runnable_ci.util.process import Supervisor

CANCELLED_WAIT_S = 0.5
"""How long a publish under way may take where a person or a runner wants the run to end."""


@contextmanager
def published_live(
    recorder: Recorder,
    supervisor: Supervisor,
    *,
    make: Callable[[Layout, str, Callable[[str], None]], LivePublisher],
    say: Callable[[str], None],
) -> Iterator[Callable[[], float]]:
    """Publish the run while the block runs; nothing of it is under way after the block.

    Yields what returns how long the last publish took. `make` returns what publishes a run of a store, and says what
    is in the way.
    """
    publisher = make(recorder.layout, recorder.log.run_id, lambda text: say(recorder.redactor.text(text)))
    recorder.changed = publisher.changed
    publisher.start()
    try:
        yield lambda: publisher.last_took_s
    finally:
        publisher.close(is_urgent=lambda: supervisor.cancelled_by is not None, urgent_s=CANCELLED_WAIT_S)
