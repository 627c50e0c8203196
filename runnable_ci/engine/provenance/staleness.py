"""What is different for a finished step, in what it got and read: contents are compared, not events.

Where it was not seen what an attempt read, anything that changed in the repository may have been read.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from runnable_ci.engine.planner import Evidence, Scope
from runnable_ci.engine.provenance.changes import Change, Kind
from runnable_ci.engine.provenance.workspace_view import (
    RunProducts,
    files_found,
    files_matching,
    may_hold_modules,
    names_in,
)
from runnable_ci.observe.environment_use import variables_used
from runnable_ci.observe.outside import is_environment, outside_digest
from runnable_ci.observe.reads import GIT, Present, ReadDifference, ReadSet, differences
from runnable_ci.observe.source_files import read_source
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.patterns import may_name, select
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.code_model import CodeState
from runnable_ci.runs.code_states import code_state_of
from runnable_ci.runs.files.links import followed, is_behind_link, links_of, place_of, points_to, readable
from runnable_ci.runs.model import CatalogEntry, RunLog, StepAttempt, StepLog
from runnable_ci.runs.products.history import own_contents
from runnable_ci.util.text import listed
from runnable_ci.vcs.identity import Code

_ENDINGS = (
    "py pyx pyi ipynb sh bash zsh r R Rmd jl js ts mjs pl rb java scala go rs c h cpp hpp sql lua mk cmake m awk sed"
)
PROGRAMS = frozenset(f".{ending}" for ending in _ENDINGS.split())
"""By their endings what is called code in a reason: it changes nothing but how one speaks of it."""
_PLURALS = {"is new": "are new", "is gone": "are gone", "points elsewhere": "point elsewhere"}


@dataclass(slots=True, eq=False, repr=False)
class Comparison:
    """Compares what finished steps of a run got and read with what they would find now."""

    pipeline: Pipeline
    log: RunLog
    """As it was before the invocation: attempts are compared that it has."""
    catalog: Catalog
    code: Code
    products: RunProducts
    reads_of: Callable[[str, StepAttempt], ReadSet | None]
    """`STEP.ATTEMPT` and the attempt → what it read, None where that is not known here."""
    is_elsewhere: bool = False
    """Whether the run came from another machine: files that git does not track may all be missing here."""
    _since: dict[str, tuple[list[str] | None, str]] = field(default_factory=dict)

    def evidence(self, step: Step, past: StepLog, scope: Scope) -> Evidence:
        """Return what is different for a finished step that would see `scope`."""
        if step.mock == "nothing":  # it reads nothing
            return Evidence()
        last = past.attempts[-1]
        visible = scope.entries()
        # One that was kept and that no `get` names was there when the step wrote it: it may not even have read it.
        got = {
            entry.name: entry
            for entry in past.data_catalog
            if entry.stage == "get" and (not entry.kept or _is_named(step.get or (), entry.name))
        }
        changes: list[Change] = []
        if differing := list(self._received(step, past, got, visible)):
            now = [
                (name, visible[name].data_hash if name in visible else self._hash_of(step, name, entry))
                for name, entry in got.items()
            ]
            reason = f"input {_described(differing, say_how=False)}"
            changes.append(Change(reason, "data", [list(map(str, differing)), now]))
        changes.extend(self._notebook_changed(step, last, visible))
        reads = self.reads_of(f"{step.name}.{last.attempt_number}", last)
        if reads is None or (last.not_seen and step.reads is None):
            return Evidence((*changes, *self._cautious(step, past)), None, self._edited(past))
        if change := self._new_variable(step, last, scope, reads):
            changes.append(Change(change, "data", change))
        missing = self._missing_elsewhere(last, got, reads, visible)
        hidden = self.products.hidden_from(visible)
        view = _View(self, past, visible, reads, missing, _own_contents(past), hidden, links_of(visible))
        ignored = {*got, *self._unchanged_modules(step, last)}

        def is_no_input(path: str) -> bool:
            return path in ignored or not step.counts(path)

        found = [
            *differences(reads, view.present(), ignore=is_no_input),
            *self._new_declared(step, reads, visible),
        ]
        changes.extend(_changes_of(found, last, view))
        if reads.asked_git and step.counts(GIT) and (since := self._code_since(step, last)):
            changes.append(Change(f"it asked git, and {since} changed", "code", self._code_now()))
        files = frozenset((*got, *filter(step.counts, reads.files)))
        return Evidence(tuple(changes), files, self._edited(past))

    def _notebook_changed(self, step: Step, last: StepAttempt, visible: Mapping[str, CatalogEntry]) -> Iterator[Change]:
        """Yield the change of a notebook's code, if there is any: how it was saved, and its outputs, are none.

        One that an earlier step made, and that is not there yet, is what that step left.
        """
        if step.kind != "notebook" or not last.function_hash:
            return
        from runnable_ci.steps.notebook.notebook_step import digest_of, is_there  # few pipelines have one

        if not is_there(step, self.catalog.workspace):
            if step.command not in visible:
                yield Change(f"{step.command} is gone", "code", "")
            return
        now = digest_of(step, self.catalog.workspace)
        if now != last.function_hash:
            yield Change(f"{step.command} changed", "code", now)

    def files(self, pattern: str, scope: Scope) -> list[str]:
        """Return the files that a pattern matches for a step that sees `scope`."""
        hidden = self.products.hidden_from(scope.files)
        return files_found(self.catalog.files, pattern, hidden=hidden, visible=scope.files)

    def _hash_of(self, step: Step, name: str, entry: CatalogEntry) -> str | None:
        """Return the sha256 of a file that a log names, above the workspace only where the step's `get` does too."""
        if entry.is_input and any(may_name(pattern, name) for pattern in step.get or ()):
            return self.catalog.hash_of_input(name)
        return self.catalog.hash_of(name, entry.kind)

    def _received(
        self, step: Step, past: StepLog, got: Mapping[str, CatalogEntry], visible: Mapping[str, CatalogEntry]
    ) -> Iterator[ReadDifference]:
        """Yield the files that a step gets which are different, gone or new."""
        own = own_contents(past)
        missing = self._missing_elsewhere(past.attempts[-1], got, ReadSet(), visible)
        hidden = self.products.hidden_from(visible)
        for name, entry in got.items():
            # What a step made that the pipeline has no more is not there in a fresh clone, but for what git tracks.
            is_gone = bool(entry.source) and name in hidden and not self.catalog.is_tracked(name)
            now = visible[name].data_hash if name in visible else None if is_gone else self._hash_of(step, name, entry)
            now = now and (self.products.unchanged(name, now, visible) or now)
            if now is None:
                if name not in missing:
                    yield ReadDifference(name, "is gone")
                continue
            is_other_kind = name in visible and visible[name].kind != entry.kind
            if is_other_kind or (now != entry.data_hash and now not in own.get(name, ())):
                yield ReadDifference(name, "changed")
        for pattern in step.get or ():
            found = self.catalog.files.expand([pattern])[pattern]
            present = [name for name in found if name not in hidden and not is_behind_link(name, visible)]
            for name in sorted(set(select(pattern, [*visible, *present])) - got.keys()):
                yield ReadDifference(name, "is new")

    def _new_declared(
        self, step: Step, reads: ReadSet, visible: Mapping[str, CatalogEntry]
    ) -> Iterator[ReadDifference]:
        """Yield the files that the step's `reads` matches now, and then would have matched if they had been there."""
        if step.reads and reads.declared:
            hidden = self.products.hidden_from(visible)
            made = readable(visible)
            for name in sorted(files_matching(self.catalog.files, step.reads, hidden=hidden, visible=made)):
                if _is_named(reads.declared, name) and name not in reads.files and step.counts(name):
                    yield ReadDifference(name, "is new", "its `reads` names")

    def _cautious(self, step: Step, past: StepLog) -> Iterator[Change]:
        """Yield what may be different where it was not seen what an attempt read."""
        last = past.attempts[-1]
        modules = {name: then for name, then in last.modules.items() if step.counts(name)}
        since = listed([name for name, then in modules.items() if self.catalog.hash_of(name) != then])
        since = since or self._code_since(step, last)
        if not since:
            return
        why = last.not_seen or ("what it read is not in this store" if last.reads else "a version that did not look")
        yield Change(f"{since} changed, and what it read was not seen ({why})", "code", self._code_now())

    def _code_now(self) -> list[Any]:
        """Return what tells the code's state from others."""
        state = self.code.state()
        return [state.commit, sorted(state.changes.items())]

    def _edited(self, past: StepLog) -> str:
        """Return which of the files that a step made a person has changed since, or another program.

        Content that some step is known to have made is no such change, nor is a file that is gone.
        """
        own = own_contents(past)
        now = {entry.name: self.catalog.hash_of(entry.name, entry.kind) for entry in past.put_entries()}
        edited = [
            name
            for name, digest in now.items()
            if digest is not None and digest not in own[name] and not self.catalog.products.is_generated(name, digest)
        ]
        return listed(edited) if edited else ""

    def _changed_since(self, last: StepAttempt) -> tuple[list[str] | None, str]:
        then = code_state_of(self.log, last)
        if then is None:
            return None, ""
        key = last.code_state or f"{then.commit} {sorted(then.changes.items())}"
        if key not in self._since:
            self._since[key] = _since(self.code, then, self.pipeline.file)
        return self._since[key]

    def may_stay_away(self, path: str, last: StepAttempt) -> bool:
        """Return whether a path that is gone may only not have come along, since git never tracked it."""
        if not self.is_elsewhere or self.catalog.is_tracked(path):
            return False
        files, unknown = self._changed_since(last)
        if files is None:
            return not unknown
        full, then = f"{self.code.prefix}{path}", code_state_of(self.log, last)
        if then and then.changes.get(full, ("",))[0] == "untracked":
            return True
        return not any(file == full or file.startswith(f"{full}/") for file in files)

    def _code_since(self, step: Step, last: StepAttempt) -> str:
        """Return which files that may count for a step changed in the repository, as `plot.py (2599041)`."""
        files, commits = self._changed_since(last)
        if files is None:
            return commits
        counting = [file for file in files if step.counts(posixpath.relpath(file, self.code.prefix or "."))]
        return f"{listed(counting)} ({commits})" if counting else ""

    def _new_variable(self, step: Step, last: StepAttempt, scope: Scope, reads: ReadSet) -> str:
        """Return which parameter is there now that was not set then, and that the step may use."""
        if step.kind != "run" or step.parameters is not None:
            return ""
        # An object is never set in a command's environment.
        set_now = [name for name, parameter in scope.values().items() if parameter.kind != "object"]
        new = [name for name in set_now if name not in last.input_parameters]
        if not new:
            return ""
        if last.not_seen:  # nor which programs read it
            return f"parameter {new[0]} is set now"
        texts = (read_source(str(self.catalog.workspace / path)) for path in reads.files)
        used = variables_used(new, step.command, texts)
        return f"parameter {next(iter(used))} is set now" if used else ""

    def _unchanged_modules(self, step: Step, last: StepAttempt) -> Collection[str]:
        """Return the modules of a python step of which all that its function reaches is the same."""
        if not last.reach:
            return ()
        from runnable_ci.engine.provenance.code_reach import reach_of  # only python steps need it

        now = {path: self.catalog.hash_of(path) or "" for path in last.modules}
        return last.modules if reach_of(step, now, str(self.catalog.workspace)) == last.reach else ()

    def _missing_elsewhere(
        self,
        last: StepAttempt,
        got: Mapping[str, CatalogEntry],
        reads: ReadSet,
        visible: Mapping[str, CatalogEntry],
    ) -> frozenset[str]:
        """Return the files that git does not track, where the run came from elsewhere and none of them came along."""
        if not self.is_elsewhere:
            return frozenset()
        own = {name for name, entry in got.items() if not entry.source}
        data = frozenset(
            name
            for name in {*own, *reads.files} - visible.keys()
            if not self.catalog.is_tracked(name) and self.products.digest_of(name) is None
        )
        if any(self.catalog.hash_of(name) for name in data):
            return frozenset()
        return frozenset(name for name in data if self.may_stay_away(name, last))


@dataclass(slots=True, eq=False, repr=False)
class _View:
    """What is there now, for one step."""

    comparison: Comparison
    past: StepLog
    visible: Mapping[str, CatalogEntry]
    reads: ReadSet
    missing: frozenset[str]
    own: Mapping[str, Collection[str]]
    """What the step itself left in files."""
    hidden: Collection[str]
    """Paths of products that the step does not see."""
    links: Mapping[str, str]
    """Which of the visible files are links → their targets."""

    def present(self) -> Present:
        return Present(self.digest_of, self.names_in, self.link_of)

    def digest_of(self, path: str) -> str | None:
        if (file := followed(path, self.visible, self.links)) is not None:
            return file.data_hash
        catalog = self.comparison.catalog
        if path.startswith("../"):
            return catalog.files.hash_of_read(path)
        if path.startswith("/"):
            now = None if is_environment(path) else outside_digest(path)
            return self.reads.outside.get(path) if now is None and self.comparison.is_elsewhere else now
        now = None if (catalog.workspace / path).is_dir() else catalog.hash_of(path)
        read = self.reads.files.get(path)
        if now is not None:
            now = self.comparison.products.unchanged(path, now, self.visible) or now
            is_own = read is not None and now in self.own.get(path, ())
            return read.digest if is_own and read is not None and read.left is None else now
        if path in self.missing and read is not None:
            return read.digest
        return self.comparison.products.digest_of(path)  # it need not be in the workspace to be there

    def names_in(self, folder: str) -> Iterable[str]:
        root = str(self.comparison.catalog.workspace)
        found = names_in(root, folder, hidden=self.hidden, visible=self.visible)
        listing = self.reads.listings[folder]
        # What a parallel step had made already when the names were recorded, and is known as its own only since.
        found |= {name for name in listing.names if posixpath.join(folder, name) in self.hidden}
        if not found and self.comparison.is_elsewhere and not Path(root, folder).is_dir():
            return listing.names
        gone, last = set(listing.names) - found, self.past.attempts[-1]
        if not listing.modules_only:
            return found
        # Such as a folder of data or documentation, beside the modules: no import finds anything in it.
        new = found.difference(listing.names)
        found = found - {name for name in new if not may_hold_modules(Path(root, folder, name))}
        if self.comparison.is_elsewhere:
            found |= {name for name in gone if self.comparison.may_stay_away(posixpath.join(folder, name), last)}
        return found

    def link_of(self, path: str) -> str:
        then = self.reads.links.get(path, "")
        if path in self.links:
            return then if points_to(path, then, place_of(path, self.links[path])) else self.links[path]
        place = self.comparison.catalog.workspace / path
        if self.comparison.is_elsewhere and not os.path.lexists(place):
            return then  # what was read through it is compared by itself
        return str(place.readlink()) if place.is_symlink() else ""


def _own_contents(past: StepLog) -> dict[str, set[str]]:
    """Return for each path the sha256 of what attempts at a step left there."""
    found = {path: set(digests) for path, digests in own_contents(past).items()}
    for attempt in past.attempts:
        for path, digest in attempt.made.items():
            found.setdefault(path, set()).add(digest)
    return found


def _is_named(patterns: Iterable[str], name: str) -> bool:
    return any(may_name(pattern, name) for pattern in patterns)


def _changes_of(found: Sequence[ReadDifference], last: StepAttempt, view: _View) -> Iterator[Change]:
    """Yield what was read and is different: code, and data."""
    kinds: dict[Kind, list[ReadDifference]] = {}
    for difference in found:
        path = difference.path
        is_code = path in last.modules or PurePath(path).suffix in PROGRAMS
        kinds.setdefault("code" if is_code else "data", []).append(difference)
    for kind, differing in kinds.items():
        now = [[it.path, it.what, view.digest_of(it.path), view.link_of(it.path)] for it in differing]
        yield Change(_described(differing), kind, now)


def _since(code: Code, then: CodeState, pipeline_file: str) -> tuple[list[str] | None, str]:
    """Return which files changed since a state of the code was recorded, and the commits, as `2599041..ab34cd5`.

    Without the files where they cannot be known: then the text says so, or is empty where nothing did. The pipeline
    file does not count: steps are compared by their definitions.
    """
    if not then.commit:
        return None, ""
    now = code.state()
    if (now.tree and now.tree == then.tree) or (now.commit == then.commit and dict(now.changes) == then.changes):
        return None, ""
    from runnable_ci.vcs.differences import changed_between  # most retries need none of it

    short = then.commit[:7]
    files = changed_between(code, then.commit, then.changes, now)
    if files is None:
        return None, "" if now.commit == then.commit else f"from {short}, which is not in this clone"
    own = f"{code.prefix}{PurePath(pipeline_file).name}"
    commits = short if now.commit == then.commit else f"{short}..{now.commit[:7]}"
    return [file for file in files if file != own], commits


def _described(found: Iterable[ReadDifference], *, say_how: bool = True) -> str:
    """Return differences in a line, as `a.csv, b.csv changed, which it read; c.csv is new in data, which it listed`."""
    alike: dict[tuple[str, str, str | None], list[str]] = {}
    for difference in found:
        alike.setdefault((difference.what, difference.how, difference.folder), []).append(difference.path or ".")
    parts = []
    for (what, how, folder), paths in alike.items():
        names = paths if folder is None else [posixpath.basename(path) for path in paths]
        verb = _PLURALS.get(what, what) if len(names) > 1 else what
        place = "" if folder is None else f" in {folder or 'the folder of the pipeline file'}"
        parts.append(f"{listed(names)} {verb}{place}" + (f", which {how}" if say_how else ""))
    return "; ".join(parts)
