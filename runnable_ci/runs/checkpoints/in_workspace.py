"""A step's checkpoint in the workspace: put there before an attempt; afterwards it is no file of a person.

What matches the step's globs and was not there before an attempt, or has changed since, the step made. A note beside
that of its products says what was there, so that it is known of a killed attempt, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.checkpoints.contents import KeptFiles
from runnable_ci.runs.files.checkpoint_model import CheckpointFile
from runnable_ci.runs.files.links import check_target
from runnable_ci.runs.model import LINK
from runnable_ci.runs.products.index import Product, StoredContent
from runnable_ci.runs.products.undo import AsideFolder
from runnable_ci.runs.products.unfinished import NOTE
from runnable_ci.store.plain import make_folders
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import fingerprint, open_nofollow
from runnable_ci.util.text import pluralize

Say = Callable[[str], None]


def clear(catalog: Catalog, step: Step, wanted: Mapping[str, CheckpointFile], place: Path, say: Say) -> None:
    """Move to `place` what attempts at the step left and is not as it is wanted; a person's files stay."""
    found = catalog.files.find(step.checkpoint, is_strict=False)
    aside, moved = AsideFolder(catalog, place), []
    for name in sorted(found.all_names() - found.unfit.keys() - found.folders):
        kind = found.kind_of(name)
        file = wanted.get(name)
        made = catalog.products.made_at(name)
        is_own = any(_top(it.step) == _top(step.name) for it in made)
        if not (is_own or file) or catalog.is_tracked(name):
            continue
        digest = catalog.hash_of(name, kind)
        is_wanted = file is not None and (file.kind, file.data_hash) == (kind, digest)
        if not is_wanted and (file or any(it.content.sha256 == digest for it in made)):
            aside.move(name, kind)
            moved.append(name)
    if moved:
        say(f"set aside {pluralize(len(moved), 'file')} of an earlier checkpoint: {place}")


def _top(step: str) -> str:
    return step.partition(".")[0]


def restore(catalog: Catalog, contents: KeptFiles, wanted: Mapping[str, CheckpointFile]) -> None:
    """Write the files of a checkpoint that are not there as they were. Raises `RunnableError`, `OSError`."""
    for name, file in wanted.items():
        if file.kind == LINK:
            check_target(name, file.target, RunnableError)
        if catalog.hash_of(name, file.kind) != file.data_hash:
            contents.restore(name, file)


def begin(catalog: Catalog, step: Step, folder: Path, restored: Collection[str]) -> None:
    """Note what a person has among the files that the step's globs match, before the attempt of a `folder` begins."""
    found = catalog.files.find(step.checkpoint, is_strict=False)
    theirs = found.all_names() - found.unfit.keys() - found.folders - found.links.keys() - set(restored)
    before = {name: fingerprint(catalog.workspace / name) for name in sorted(theirs)}
    make_folders(folder, within=catalog.layout.folder)
    note = {"step": step.name, "patterns": step.checkpoint, "of": folder.name, "files": before}
    (folder / f"{NOTE}.new").write_bytes(with_check(json.dumps(note).encode()))
    (folder / f"{NOTE}.new").replace(folder / NOTE)


def own_files(catalog: Catalog, folder: Path, made_by: str) -> dict[str, str]:
    """Return what the attempt of a `folder` wrote of its checkpoint → sha256; the index of products has it now.

    Empty where there is no note, or it is damaged: then all there is counts as a person's.
    """
    try:
        with open(folder / NOTE, "rb", opener=open_nofollow) as file:
            note = parse_own(file.read())
        if note["of"] != folder.name:
            return {}
        patterns, before, step = [str(it) for it in note["patterns"]], dict(note["files"]), str(note["step"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    found = catalog.files.find(patterns, is_strict=False)
    own: dict[str, str] = {}
    products = []
    for name in sorted(found.all_names() - found.unfit.keys() - found.folders):
        kind = found.kind_of(name)
        with suppress(OSError, RunnableError):
            at = fingerprint(catalog.workspace / name, follow_links=not kind)
            digest = catalog.hash_of(name, kind)
            if digest is None or before.get(name) == list(at):
                continue
            own[name] = digest
            content = StoredContent(digest, at[1], kind=kind, target=found.links.get(name, ""))
            seen = None if kind else catalog.files.settled(name, digest)
            products.append(Product(name, content, step, catalog.run_folder.name, made_by, seen=seen, observed=False))
    catalog.products.record(products)
    return own


def end(folder: Path) -> None:
    """Drop the note: what became of the attempt is recorded."""
    with suppress(OSError):
        (folder / NOTE).unlink(missing_ok=True)
        folder.rmdir()
