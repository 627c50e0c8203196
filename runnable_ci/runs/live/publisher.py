"""Publishes a run while it is being written: in a thread of its own, from its journal, as seldom as it must.

The run never waits for it, and what it cannot send it leaves to the publish at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Final

from runnable_ci.errors import (
    BlobMissingError,
    ManifestRefusedError,
    RegistryAuthError,
    RunnableError,
    UsageError,
    system_errors,
)
from runnable_ci.runs.artifact import manifest_annotations
from runnable_ci.runs.live.life_sign import LifeSign, renewed_after_s
from runnable_ci.runs.live.segments import LiveRun, LiveSource
from runnable_ci.runs.remote.derived import DerivedRun, derive
from runnable_ci.runs.remote.manifest_forms import FORMS
from runnable_ci.runs.remote.publish import (
    held_there,
    moved,
    one_publisher,
    require_own_id,
    withdraw_later,
    writers_tag,
)
from runnable_ci.runs.remote.tag_record import note_tags
from runnable_ci.store.copy import Progress, copy
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import Descriptor
from runnable_ci.util.threads import start

FIRST_AFTER_S: Final = 1.0
"""A run that ends before is published once, at its end."""
LEAST_PAUSE_S: Final = 2.0
_PAUSE_OF_WORK: Final = 40.0
"""After a publish nothing is done for so many times the processor time that it took: at most 2.5 % of the run's."""
_PAUSE_MAX_S: Final = 60.0
_FAILED_PAUSE_S: Final = 30.0
_FAILED_PAUSE_MAX_S: Final = 600.0
_STUCK_S: Final = 5.0
_TICK_S: Final = 0.05


class _NotNeededError(Exception):
    """The run is over: it is published by who comes next."""


@dataclass(slots=True, eq=False, repr=False)
class LivePublisher:
    """Publishes one run after each step, and gives signs of life in between. Use `close` before the run is sealed."""

    layout: Layout
    run_id: str
    registry: Registry
    """Nobody else's: another thread uses it."""
    environ: Mapping[str, str]
    say: Callable[[str], None]
    elsewhere: Callable[[str], Registry] | None = None
    """Opens registries that hold what the run took from others."""
    first_after_s: float = FIRST_AFTER_S
    least_pause_s: float = LEAST_PAUSE_S
    last_took_s: float = 0.0
    """How long the last publish took."""
    _stop: Event = field(default_factory=Event)
    _wake: Event = field(default_factory=Event)
    _thread: Thread | None = None
    _live: LiveRun = field(init=False)
    _sent: set[str] = field(default_factory=set)
    """Digests of blobs that the registry has."""
    _bases: set[str] = field(default_factory=set)
    """Digests of manifests there that hold what the run took from others, and all of whose blobs are in `_sent`."""
    _pieces: dict[str, list[Descriptor]] = field(default_factory=dict)
    _form: int = 0
    _published_at_s: float = 0.0
    _sign_at_s: float = 0.0
    _failures: int = 0
    _moved_at_s: float = 0.0
    _is_given_up: bool = False

    def start(self) -> None:
        """Begin; where no thread is available the run is published at its end alone."""
        self.registry.be_silent()
        self._live = LiveRun(self.layout, self.run_id)
        self._thread = start(self._work, name="publish")
        if self._thread is None:
            self.say("note: the run is published at its end only: the system allows no thread for it")

    def changed(self) -> None:
        """Take note that something was recorded."""
        self._wake.set()

    def close(self, *, is_urgent: Callable[[], bool] = lambda: False, urgent_s: float = 0.0) -> None:
        """End. A publish under way is waited for as long as it moves, or `urgent_s` seconds; then it changes nothing.

        What it sends need not be sent by who publishes the run next.
        """
        self._stop.set()
        self._wake.set()
        if self._thread is None:
            return
        self._moved_at_s = begin_s = time.monotonic()
        while self._thread.is_alive() and not self._failures:
            now_s = time.monotonic()
            if now_s > (begin_s + urgent_s if is_urgent() else self._moved_at_s + _STUCK_S):
                break
            self._thread.join(_TICK_S)
        self._is_given_up = True

    def _work(self) -> None:
        self._stop.wait(self.first_after_s)
        while not self._stop.is_set():
            self._wake.clear()
            begin_s, worked_s = time.monotonic(), time.process_time()
            try:
                with system_errors():
                    self._publish()
            except _NotNeededError:
                return
            except (UsageError, RegistryAuthError) as e:  # these it will not be rid of
                self._tell(e)
                return
            except RunnableError as e:
                self._tell(e)
                self._failures += 1
                pause_s = min(_FAILED_PAUSE_S * 2 ** (self._failures - 1), _FAILED_PAUSE_MAX_S)
            else:
                self._failures = 0
                self.last_took_s = time.monotonic() - begin_s
                work_s = min(time.process_time() - worked_s, self.last_took_s)
                pause_s = max(self.least_pause_s, self.last_took_s, min(_PAUSE_OF_WORK * work_s, _PAUSE_MAX_S))
            self._stop.wait(pause_s)
            self._wake.wait(max(0.0, self._sign_at_s - time.monotonic()))

    def _tell(self, error: RunnableError) -> None:
        if not self._failures:
            self.say(f"note: not published as it goes, but at its end: {error.message}")

    def _publish(self) -> None:
        """Publish what is new; where nothing is, give a sign of life if one is due."""
        now_s = time.monotonic()
        is_new, is_first = self._live.look(), not self._published_at_s
        if not is_new and not is_first and now_s < self._sign_at_s and not self._failures:
            return
        silent_s = 0.0 if is_new or is_first else now_s - self._published_at_s
        sign = LifeSign.next_after(silent_s, now_s=self.registry.now_s())
        source = self._live.manifest(sign)
        tag = writers_tag(self.layout, self.run_id, self.environ)
        with one_publisher(self.layout, self.run_id):
            self._require_running()
            if is_first:
                self._publish_first(source, tag)
            else:
                to_send = is_new or self._failures
                self._move(self._send(source) if to_send else self._derived(source), (self.run_id, tag))
        if is_new or is_first or self._failures:
            self._live.forget_sent()
            self._published_at_s = time.monotonic()
        self._sign_at_s = time.monotonic() + renewed_after_s(silent_s)

    def _publish_first(self, source: LiveSource, tag: str) -> None:
        """Publish what is there of the run for the first time; the record of tags is to ask for it while it moves."""
        mine = manifest_annotations(self._live.log)
        is_known = require_own_id(self.layout, self.registry, mine)
        derived = self._send(source, [self.run_id, tag])
        note_tags(self.registry, {self.run_id: None, tag: None}, learn=False)
        self._move(derived, (self.run_id, tag))
        if not is_known:
            withdraw_later(self.layout, self.registry, mine, tag)

    def _send(self, source: LiveSource, base_tags: Sequence[str] = ()) -> DerivedRun:
        """Copy what the registry does not have, in the first form that it takes."""
        held = held_there(self.layout, self._live.log, self.registry, self.elsewhere, self._sent)
        base_tags = [*base_tags, *(manifest for manifest in held.manifests if manifest not in self._bases)]
        while True:
            derived = self._derived(source)
            try:
                copied = copy(
                    derived,
                    derived.derived.digest,
                    self.registry,
                    base_tags=base_tags,
                    there=held.blobs,
                    layer_filter=lambda layer: layer.digest not in self._sent,
                    progress=self._watch,
                )
            except ManifestRefusedError:
                if self._form == len(FORMS) - 1:
                    raise
                self._form += 1
            except BlobMissingError:  # perhaps what was sent before: it is sent again at the next publish
                self._sent.clear()
                self._bases.clear()
                raise
            else:
                raw = derived.manifest(copied.manifest)
                self._sent.update(str(layer["digest"]) for layer in raw["layers"])
                self._bases.update(held.manifests)
                return derived

    def _derived(self, source: LiveSource) -> DerivedRun:
        most, form = self.registry.blob_max_bytes, FORMS[self._form]
        return derive(source, source.own, blob_max_bytes=most, form=form, pieces=self._pieces)

    def _move(self, derived: DerivedRun, tags: tuple[str, ...]) -> None:
        manifest = derived.derived
        with derived.fetch(manifest) as file:
            raw = file.read()
        for tag in tags:
            self._require_running()
            if not moved(self.registry, manifest, tag, raw):
                raise UsageError(f"{self.registry.label} lets no tag be moved")

    def _watch(self, _progress: Progress) -> None:
        """Note that something was sent, or break off what nobody waits for any more."""
        self._moved_at_s = time.monotonic()
        if self._is_given_up:
            raise _NotNeededError

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise _NotNeededError
