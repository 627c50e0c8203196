"""Which runs are compared: by id, word, branch or reference, here or in a registry, read with what their steps read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.analysis.scratch import scratch_folder
from runnable_ci.engine.provenance.stored_reads import reads_of
from runnable_ci.errors import RunNotFoundError, UsageError, did_you_mean
from runnable_ci.pipeline.command_line import http_option, of_store
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.listing.summary import Summary, project_runs
from runnable_ci.runs.model import PROCESSING, SUCCESS, RunLog
from runnable_ci.runs.reader import LATEST, catalog_of, load, run_ids, summaries
from runnable_ci.runs.remote.merged_listing import list_merged
from runnable_ci.runs.remote.pull import pull
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import Descriptor
from runnable_ci.util.shell_command import command, in_folder

LATEST_SUCCESS: Final = "latest-success"
WORDS: Final = f"a run id, `{LATEST}`, `{LATEST_SUCCESS}`, a branch, or HOST/REPOSITORY:RUN_ID"


@dataclass(frozen=True)
class ComparedRun:
    """A run and the store that it was read from."""

    layout: Layout
    log: RunLog
    registry: Registry | None = None
    """Where it was pulled from, into a store for this command alone."""

    @property
    def where(self) -> str:
        """The registry's name; empty for a run of the store."""
        return self.registry.label if self.registry else ""

    @property
    def reference(self) -> str:
        """How commands call it."""
        return f"{self.where}:{self.log.run_id}" if self.registry else self.log.run_id

    @property
    def catalog(self) -> Catalog:
        """Its files."""
        return catalog_of(self.layout, self.log)

    def read(self) -> RunRead:
        """Return it with what its steps read, as far as that is known; the store is asked once."""
        return self._read

    @cached_property
    def _read(self) -> RunRead:
        catalog = self.catalog
        found = {}
        for name, step in self.log.steps.items():
            for last in step.attempts[-1:]:
                reads = reads_of(catalog, f"{name}.{last.attempt_number}", last)
                if reads is not None:
                    found[name] = reads
        return RunRead(self.log, self.where, found)


def require_ended(run: ComparedRun) -> ComparedRun:
    """Return a run. Raises `UsageError` for one that is in progress, of which it is not known what it gives."""
    run_id = run.log.run_id
    if run.log.status == PROCESSING:
        show = command_on(run.layout, "show", run, "--watch")
        raise UsageError(f"run {run_id} is in progress: what it gives is not known yet", hint=f"`{show}` follows it")
    return run


def command_on(layout: Layout, *words: str | ComparedRun) -> str:
    """Return a command on runs, typed in the current folder; `layout` is the store of those of no registry."""
    runs = [word for word in words if isinstance(word, ComparedRun)]
    typed = [word.reference if isinstance(word, ComparedRun) else word for word in words]
    registry = next((run.registry for run in runs if run.registry), None)
    typed += http_option(registry.plain_http) if registry else []
    return command(*typed) if all(run.registry for run in runs) else of_store(layout, *typed)


@contextmanager
def run_finder(
    layout: Layout, registries: Registries, default: Callable[[], Registry], *, whole: bool = False
) -> Iterator[RunFinder]:
    """Open what finds runs by what a person calls them, in the store or in registries.

    Of a registry's run what its steps read comes along, and with `whole` its files, both into a folder that is removed
    in the end. `default` is the registry to look in for what is not here; it raises where there is none.
    """
    with ExitStack() as stack:
        yield RunFinder(layout, registries, default, stack, whole=whole)


@dataclass(frozen=True)
class RunFinder:
    """Finds runs by id, word, branch or reference, among those that there are when it is first asked."""

    layout: Layout
    registries: Registries
    default: Callable[[], Registry]
    stack: ExitStack
    whole: bool

    def pair(self, words: tuple[str, str | None]) -> tuple[ComparedRun, ComparedRun]:
        """Return two runs, of which a branch and `latest-success` are the newest such run that is not the other one.

        With one word it is compared with the newest run; that one itself with the last success. Raises as `run` does.
        """
        first, second = words
        if second is None:
            is_newest = first != LATEST_SUCCESS and self.knows(first) and first == _newest(self._summaries, LATEST, "")
            return self.pair((LATEST_SUCCESS, first) if is_newest or first == LATEST else (first, LATEST))
        # The word that is no description first, since a description leaves it out.
        order = (0, 1) if self._is_definite(first) else (1, 0)
        found: dict[int, ComparedRun] = {}
        for at in order:
            other = found.get(1 - at)
            found[at] = self.run((first, second)[at], other.log.run_id if other else "")
        return found[0], found[1]

    def run(self, word: str, other: str = "") -> ComparedRun:
        """Return a run that is not the `other` one. Raises `RunNotFoundError`, `RunLogError`, `StoreError`."""
        if self.knows(word):
            return self._here(word)
        if _is_reference(word):
            registry, reference = self.registries.run(word, None)
            return self.from_registry(registry, reference)
        if found := _newest(self._summaries, word, other):
            return self._here(found)
        return self._elsewhere(word, other)

    def knows(self, word: str) -> bool:
        """Return whether a word is the id of a run of the store."""
        return word in self._known

    def _is_definite(self, word: str) -> bool:
        return word == LATEST or self.knows(word) or ("/" in word and ":" in word)

    def before(self, other: ComparedRun, word: str) -> ComparedRun:
        """Return the newest run that a word describes, of the pipeline of the `other` run, before that.

        One of its branch is preferred. It is one of the store, or of the registry that the other is of. Raises
        `RunNotFoundError`, `StoreError`.
        """
        published = [run.summary for run in list_merged(other.registry, self.layout)] if other.registry else []
        everything = {one.run_id: one for one in (*published, *self._summaries)}.values()
        log = other.log
        earlier = [one for one in everything if one.name == log.name and one.start_time < log.start_time]
        earlier.sort(key=lambda one: one.start_time)
        code = log.code()
        own = [one for one in earlier if code and one.ref == code.ref]
        found = _newest(own, word, log.run_id) or _newest(earlier, word, log.run_id)
        if not found:
            raise RunNotFoundError(f"no run before {log.run_id} is `{word}`")
        if other.registry and not self.knows(found):
            return self.from_registry(other.registry, found)
        return self._here(found)

    @cached_property
    def _sealed(self) -> Mapping[str, Descriptor]:
        return self.layout.manifests()

    @cached_property
    def _known(self) -> list[str]:
        return run_ids(self.layout, self._sealed)

    @cached_property
    def _summaries(self) -> list[Summary]:
        return [*summaries(self.layout, self._sealed)]

    def _here(self, run_id: str) -> ComparedRun:
        return ComparedRun(self.layout, load(self.layout, run_id, self._sealed))

    def _elsewhere(self, word: str, other: str) -> ComparedRun:
        """Return a run of the registry that is set: by its id, as the newest, or as that of a branch."""
        nowhere = self._nowhere(word, other)
        try:
            registry = self.default()
        except UsageError:
            raise nowhere from None
        found = [run.summary for run in list_merged(registry, self.layout)]
        run_id = word if word in {one.run_id for one in found} else _newest(found, word, other)
        if not run_id:
            nowhere.message += f", nor in {registry.label}"
            raise nowhere
        return self.from_registry(registry, run_id)

    def _nowhere(self, word: str, other: str) -> RunNotFoundError:
        known, label = self._known, self.layout.label
        if not known:
            first = in_folder(self.layout.folder.parent, "run")
            return RunNotFoundError(f"no runs in {label}", hint=f"`{first}` makes the first one")
        listing = f"`{of_store(self.layout, 'runs')}` lists"
        if word == LATEST_SUCCESS:
            which = f"no run beside {other} that succeeded" if other else "no run that succeeded"
            return RunNotFoundError(f"{which} in {label}", hint=f"name a run to compare with; {listing}")
        words = [*known, *(one for one in (LATEST, LATEST_SUCCESS) if one != word)]
        return RunNotFoundError(
            f"no run is `{word}` in {label}", hint=did_you_mean(word, words, f"name {WORDS}; {listing}")
        )

    def from_registry(self, registry: Registry, reference: str) -> ComparedRun:
        """Return a run of a registry, by its id, tag or digest."""
        folder = self.stack.enter_context(scratch_folder())
        layout = Layout(folder / ".runnable")
        pulled = pull(layout, registry, reference, only_log=not self.whole)
        return ComparedRun(layout, load(layout, pulled.run_id), registry)


def _newest(found: Sequence[Summary], word: str, other: str) -> str:
    """Return the newest run that a word describes, and that is not the other one; empty where there is none.

    None is an experiment: others are not measured by it. Where there is nothing else it is `latest`.
    """
    own = project_runs(found)
    if word == LATEST:
        fitting = own or found
    elif word == LATEST_SUCCESS:
        fitting = [one for one in own if one.run_id != other and one.status == SUCCESS]
    else:
        fitting = [one for one in own if one.run_id != other and one.ref == word and one.status != PROCESSING]
    return fitting[-1].run_id if fitting else ""


def _is_reference(word: str) -> bool:
    host = word.partition("/")[0]
    return "/" in word and ("." in host or ":" in host or host == "localhost" or "@sha256:" in word)
