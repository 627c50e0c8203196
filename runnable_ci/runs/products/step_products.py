"""What steps make in the workspace: what they made earlier is set aside, and what an attempt wrote is seen.

A product is a file that the step's `put` names and that its attempt was seen to create or write. What was there and was
not written is not its product, whatever its name; what an attempt wrote that did not succeed is never a product.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from runnable_ci.errors import RunnableError, StepError, UnsafePathError, did_you_mean
from runnable_ci.observe.observer import Sight
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.catalog import Catalog, step_errors
from runnable_ci.runs.files.links import Found
from runnable_ci.runs.model import FOLDER, LINK, CatalogEntry, Pack, RunLog, StepLog
from runnable_ci.runs.products.baseline import Baseline, FileBefore
from runnable_ci.runs.products.history import kept_inputs, last_products, own_contents
from runnable_ci.runs.products.index import Product, StoredContent
from runnable_ci.runs.products.undo import AsideFolder, move_back, remove_empty_folders, undo
from runnable_ci.runs.products.unfinished import set_aside_title, title_of
from runnable_ci.util.files import fingerprint
from runnable_ci.util.text import listed, pluralize


@dataclass(slots=True, eq=False, repr=False)
class Products:
    """The products of one invocation."""

    catalog: Catalog
    invocation: int
    say: Callable[..., None]
    """Shows a line, of a `step` or of all."""
    report: Callable[[str, Callable[[RunLog, list[Callable[[], None]]], list[Any]]], None] = lambda _step, _events: None
    """Takes what makes the events of an attempt that runs, and lists what is done once they are recorded."""
    keeping_s: float = 0.0
    """How long it took at most to keep what a checkpoint has at a moment."""
    edited: set[str] = field(default_factory=set)
    """Files that steps made and that a person, or another program, has changed since."""
    _set_aside: dict[str, dict[str, Path]] = field(default_factory=dict)
    """Step → its files that were moved, with their places now."""
    _marker: Baseline | None = None
    """Tells the next process that files are set aside, should this one be killed."""

    @property
    def folder(self) -> Path:
        """Where this invocation moves files to."""
        return self.catalog.run_folder / "replaced" / str(self.invocation)

    def set_aside(self, steps: Collection[Step], others: Mapping[str, Collection[str]] = MappingProxyType({})) -> bool:
        """Move what these steps made earlier out of the workspace, so that they and others do not find it there.

        What the commit has stays, and what anybody else wrote since, which is named. Where a step changed a file of the
        user, that is back. Of the `others`, which are reused, that goes which they made in other runs: all but these
        paths. Return whether files of the user are back.
        """
        shown = {step.name: step.shown for step in steps}
        names = {step.name for step in steps if step.put and not step.persist} - self._set_aside.keys()
        paths = self.catalog.products.paths_of({*names, *others}) if names or others else []
        self._name_edited(names)
        found = [product for product in map(self.product_at, paths) if product]
        moved = [it for it in found if it.step in names or it.path not in others.get(it.step, (it.path,))]
        self._set_aside |= {name: {} for name in names}
        if unknown := {product.step for product in moved} - shown.keys():
            from runnable_ci.runs.branches.labels import labels_of  # those that run know how they are shown

            shown |= labels_of({}, unknown)
        if moved:
            title = set_aside_title(self.catalog.run_folder.name)
            self._marker = Baseline.begin(self.catalog.layout, self.catalog.workspace, title)
            self._marker.save()
        aside = {product.step: AsideFolder(self.catalog, self.folder / product.step) for product in moved}
        restored = []
        for product in moved:
            try:
                place = aside[product.step].move(product.path, product.content.kind)
                if product.step in names:
                    self._set_aside[product.step][product.path] = place
                if product.was and self.catalog.holds(product.was):
                    self.catalog.restore(product.path, product.was)
                    restored.append(product.path)
            except (OSError, RunnableError) as e:
                self.say(f"{product.path}, which `{shown[product.step]}` made earlier, cannot be set aside: {e}")
        remove_empty_folders(self.catalog.workspace, {product.path: product.folder for product in moved})
        if moved:
            steps_named = listed(f"`{step}`" for step in sorted({shown[product.step] for product in moved}))
            back = f"; restored {listed(restored)} as it was before" if restored else ""
            self.say(f"set aside {pluralize(len(moved), 'file')} that {steps_named} made earlier: {self.folder}{back}")
        return bool(restored)

    def _name_edited(self, steps: Collection[str]) -> None:
        """Say which files are not as these steps left them: they stay, as a person's."""
        self.edited = {path for path in self.catalog.products.paths_of(steps) if self._is_edited(path)}
        if self.edited:
            changed = "was changed since a step wrote it: it stays, and if it is overwritten yours is"
            if len(self.edited) > 1:
                changed = "were changed since steps wrote them: they stay, and if they are overwritten yours are"
            self.say(f"{listed(sorted(self.edited))} {changed} in {self.folder}")

    def _is_edited(self, path: str) -> bool:
        """Return whether a file that a step made is now what neither a step nor the commit has given it."""
        made = self.catalog.products.made_at(path)
        kinds = self._kinds_of(path) if made and made[-1].observed else ()
        now = {digest for kind in kinds if (digest := self._digest_of(path, kind))}
        known = {content.sha256 for product in made for content in (product.content, product.was) if content}
        return bool(now and not now & known) and not (self.catalog.is_tracked(path) and self.catalog.is_committed(path))

    def _digest_of(self, path: str, kind: str = "") -> str | None:
        with suppress(OSError, UnsafePathError):  # a folder now, or closed to us
            return self.catalog.hash_of(path, kind)
        return None

    def product_at(self, path: str) -> Product | None:
        """Return the product that a file is: content of the store that a step put there, and that the commit has not.

        None where it is none. What git tracks is one only as a file of the user that a step changed in place.
        """
        products = self.catalog.products
        found = ((kind, self._digest_of(path, kind)) for kind in self._kinds_of(path))
        product = next(filter(None, (products.lookup(path, it, kind=kind) for kind, it in found if it)), None)
        if product is None or not product.observed:
            return None
        # What has `store = false` is known by its hash alone: it is moved, never replaced.
        if product.content.stored and not self.catalog.holds(product.content):
            return None
        if self.catalog.is_tracked(path):
            return product if product.was and self.catalog.is_committed(path) is False else None
        return product

    def _kinds_of(self, path: str) -> Sequence[str]:
        """Return the kinds of product that what lies at a path may be."""
        place = self.catalog.workspace / path
        if place.is_symlink():
            return (LINK, "")  # a file that is read through it
        return (FOLDER,) if place.is_dir() else ("",)

    def put_back(self, *steps: str) -> None:
        """Let steps that did not run after all have their files again, where nothing has their place."""
        for step in steps:
            move_back(self.catalog, self._set_aside.pop(step, {}))

    def finish(self, skipped: Iterable[str]) -> None:
        """Let the steps that were skipped have their files again: from now on nothing else is put back."""
        self.put_back(*skipped)
        if self._marker:
            self._marker.remove()

    def attempt(self, step: Step, number: int, past: StepLog | None) -> StepProducts:
        """Return what follows the products of one attempt; `past` is what the run knows of the step's earlier ones."""
        return StepProducts(self, step, number, past)


class KeptWork(Protocol):
    """What an attempt keeps of its own work."""

    def start(self, pid: int) -> None:
        """Keep it while the process runs."""

    def end(self, *, succeeded: bool) -> None:
        """Keep it once more, as the process has ended."""

    def forget(self) -> None:
        """Drop what is needed no more, once the attempt is recorded."""


@dataclass(slots=True, eq=False, repr=False)
class StepProducts:
    """The products of one attempt at a step."""

    of: Products
    step: Step
    number: int
    past: StepLog | None
    is_started: bool = False
    """Whether the step's process was started."""
    sight: Sight | None = None
    """What was seen of that process."""
    checkpoint: KeptWork | None = None
    """What the attempt keeps of its own work, if its step says so."""
    before: Baseline | None = None
    """What was there just before its process started."""
    _inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Inputs of the workspace, with their fingerprints before the step."""

    @property
    def title(self) -> str:
        """The attempt, as `STEP.ATTEMPT`."""
        return f"{self.step.name}.{self.number}"

    def start(self, pid: int) -> None:
        """Know that the step's process was started."""
        self.is_started = True
        if self.checkpoint:
            self.checkpoint.start(pid)

    @step_errors("put")
    def prepare(self) -> None:
        """Have the workspace as the step is to find it: its inputs as they were, its own files if they persist."""
        if not self.past or not self.step.put:
            return
        catalog = self.of.catalog
        if self.step.persist:
            made = last_products(self.past, self._run_id)
            missing = [it for it in made if it.stored and not os.path.lexists(catalog.workspace / it.name)]
            catalog.get(entry.model_copy(update={"source": self.step.name}) for entry in missing)
            return
        own = own_contents(self.past)
        for entry in kept_inputs(self.past):
            now = catalog.hash_now(entry.name, entry.kind)
            # One that is gone may be missing since the user removed it; where the step did, it finds it again.
            if now == entry.data_hash or (now is None and entry.left) or (now and now not in own[entry.name]):
                continue
            if now is not None:
                AsideFolder(catalog, self.of.folder / self.step.name).move(entry.name)
            catalog.restore(entry.name, catalog.content_of(entry))
            self._say(f"restored {entry.name} as it was before the step changed it")

    @step_errors("put")
    def look(self, taken: Iterable[CatalogEntry]) -> None:
        """Note what is there just before the step starts: what its patterns match, and what it has `taken`."""
        catalog = self.of.catalog
        self._inputs = {e.name: fingerprint(catalog.workspace / e.name) for e in taken if not e.source}
        if self.step.put:
            title = title_of(catalog.run_folder.name, self.step.name, self.number)
            self.before = before = Baseline.begin(catalog.layout, catalog.workspace, title)
            before.see_folders(self.step.put)
            found = catalog.files.find(self.step.put, is_strict=False)
            for name in sorted(found.all_names()):
                before.files[name] = self._see(before, name, found)
            before.save()
            catalog.products.begin(self.title, self.step.put, before.files)

    def _see(self, before: Baseline, name: str, found: Found) -> FileBefore:
        catalog, kind = self.of.catalog, found.kind_of(name)
        path = catalog.workspace / name
        seen = () if kind == FOLDER else fingerprint(path, follow_links=kind != LINK)
        product = self.of.product_at(name)
        if product and product.content.kind == kind and catalog.holds(product.content):
            return FileBefore(seen, product.content, "", product.made_by, product.step, product.was)
        if kind:
            [entry] = catalog.store_as({name: path}, found=found, stage="get")[0]
            copy, content = "", catalog.content_of(entry)
        else:
            copy, content = before.copy(name)
        # What is not in the store is copied, also a product.
        made_by, step = (product.made_by, product.step) if product else ("", "")
        return FileBefore(seen, content, copy, made_by, step)

    @step_errors("put")
    def succeed(self, taken: Sequence[CatalogEntry]) -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Store what the step made; the attempt's entries, with those that it has `taken`, and the packs they need.

        Raises `StepError` where a pattern of `put` names nothing that the step wrote.
        """
        if self.checkpoint:
            self.checkpoint.end(succeeded=True)
        before = self.before
        if before is None:
            return list(taken), {}
        catalog = self.of.catalog
        found = catalog.files.find(self.step.put)
        names = found.all_names()
        written = {name for name in names if before.is_written(name)}
        found_again = self._found_again(before, names - written) if self.step.persist else {}
        products = sorted(written | found_again.keys())
        _require_written(found, products, self._written_beside())
        entries, packs = catalog.put(products, found=found, unstored=self.step.unstored_among(products))
        for entry in entries:
            entry.made_by = found_again.get(entry.name, "")
        kept, more = _keep_changed(catalog, before)
        self._keep_edited(before, kept)
        self._record(before, entries, {entry.name: catalog.content_of(entry) for entry in kept})
        return [*{entry.name: entry for entry in (*taken, *kept)}.values(), *entries], packs | more

    def _keep_edited(self, before: Baseline, kept: Iterable[CatalogEntry]) -> None:
        """Lay the files where a person finds them who changed what an earlier run made, and it was overwritten."""
        aside = AsideFolder(self.of.catalog, self.of.folder / self.step.name)
        for entry in kept:
            if entry.name in self.of.edited:
                aside.add_copy(entry.name, before.folder / before.files[entry.name].copy)

    def _found_again(self, before: Baseline, untouched: Iterable[str]) -> dict[str, str]:
        """Name → who made it, of this step's own files that it did not write."""
        files = {name: before.files[name] for name in untouched}
        earlier = {e.name: e.made_by for e in last_products(self.past, self._run_id)} if self.past else {}
        return {name: earlier.get(name) or f.made_by for name, f in files.items() if f.step == self.step.name}

    def _say(self, text: str) -> None:
        self.of.say(text, step=self.step.name)

    @property
    def _run_id(self) -> str:
        return self.of.catalog.run_folder.name

    def _record(self, before: Baseline, entries: Iterable[CatalogEntry], kept: Mapping[str, StoredContent]) -> None:
        catalog = self.of.catalog
        catalog.products.record(
            Product(
                path=entry.name,
                content=catalog.content_of(entry),
                step=self.step.name,
                run=self._run_id,
                made_by=entry.made_by or f"{self._run_id}/{self.title}",
                was=kept.get(entry.name) or (before.files[entry.name].was if entry.name in before.files else None),
                folder=before.folder_of(entry.name),
                seen=catalog.files.settled(entry.name, entry.data_hash),
            )
            for entry in entries
        )

    def fail(self) -> tuple[list[CatalogEntry], dict[str, Pack]]:
        """Undo what the attempt did to files that `put` names, and keep what it made: its entries, and packs.

        Where its process was never started, the step has its earlier files again.
        """
        if self.checkpoint:
            self.checkpoint.end(succeeded=False)
        if not self.is_started:
            self.of.put_back(self.step.name)
            return [], {}
        for name in self.changed_inputs():
            self._say(f"{name} changed while the step ran, which does not put it: it is left as it is")
        if self.before is None:
            return [], {}
        undone = undo(self.of.catalog, self.before, self.step, self.of.folder / self.title, self._say)
        return undone.entries, undone.packs

    def changed_inputs(self) -> list[str]:
        """Return which inputs of the workspace are not as they were, beside those that `put` names."""
        before = self.before.files if self.before else {}
        workspace = self.of.catalog.workspace
        return [
            name for name, seen in self._inputs.items() if name not in before and _look_at(workspace / name) != seen
        ]

    def _written_beside(self) -> list[str] | None:
        """Return the workspace's files that the step wrote and its patterns do not name; None where it was not seen."""
        seen = self.sight and self.sight.trace
        if not seen:
            return None
        inside = {path for path in seen.made | seen.changed if not path.startswith("../")}
        return sorted(path for path in inside if not any(may_name(pattern, path) for pattern in self.step.put))

    def forget(self) -> None:
        """Drop what was noted before the step: what became of the attempt is recorded."""
        if self.checkpoint:
            self.checkpoint.forget()
        if self.before:
            self.of.catalog.products.end(self.title)
            self.before.remove()


def _keep_changed(catalog: Catalog, before: Baseline) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    """Store the user's files that a step changed, as they were: an entry for each, and packs."""
    written = {name: file for name, file in before.files.items() if not file.made_by and before.is_written(name)}
    copies = {name: before.folder / file.copy for name, file in written.items() if file.copy}
    entries, packs = catalog.store_as(copies, stage="get")
    entries += [catalog.entry_of(name, file.content, stage="get") for name, file in written.items() if not file.copy]
    for entry in entries:
        entry.kept, entry.left = True, catalog.hash_now(entry.name, entry.kind) or ""
    return entries, packs


def _look_at(path: Path) -> tuple[int, ...] | None:
    try:
        return fingerprint(path)
    except OSError:
        return None


def _require_written(found: Found, products: Collection[str], beside: Sequence[str] | None) -> None:
    for pattern, names in found.names.items():
        if names and all(name in found.folders for name in names):
            raise StepError(f"catalog put `{pattern}` matches empty folders only", hint="did the step write no file?")
        if not names:
            raise StepError(f"catalog put `{pattern}` matches no file", hint=_written_instead(pattern, beside))
        if not any(name in products for name in names):
            raise StepError(
                f"catalog put `{pattern}` matches only files that the step did not write",
                hint="persist = true keeps what earlier runs made",
            )


def _written_instead(pattern: str, beside: Sequence[str] | None) -> str:
    """Say what a step wrote in place of what a pattern names; None is what was not seen."""
    if beside is None:
        return "did the step write it somewhere else?"
    alike_first = sorted(beside, key=lambda path: (not did_you_mean(pattern, [path]), path))
    return f"the step wrote {listed(f'`{path}`' for path in alike_first)}" if beside else "the step wrote no other file"
