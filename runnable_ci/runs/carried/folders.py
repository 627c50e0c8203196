"""Parts of a run in folders: OCI image layouts, each with what one job or several left. Nothing in them is trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from runnable_ci.errors import BlobCorruptError, RunInUseError, UsageError
from runnable_ci.runs.document import encode
from runnable_ci.runs.paths import CARRIED, is_running, run_folder, shared
from runnable_ci.runs.recorder import ensure_sealed
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.remote.publish import writers_tag
from runnable_ci.runs.remote.published_content import LOG_SLACK_BYTES, WriterManifest, may_be_of, read_part
from runnable_ci.runs.remote.pull import import_log, require_same_run
from runnable_ci.store.copy import CopyResult, TransferSize, copy
from runnable_ci.store.local import Layout
from runnable_ci.store.plain import require_plain
from runnable_ci.store.target import Descriptor, read_manifest

_INDEX: Final = "index.json"
_FOLDERS_MAX: Final = 10_000


def layouts_in(folders: Sequence[Path]) -> list[Layout]:
    """Return the image layouts that folders are, or have: artifacts are downloaded into a folder each.

    Raises `UsageError` for a folder that is not there, `StoreError` for one with links in it.
    """
    found: list[Layout] = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--from {folder}: there is no such folder", hint="name the folder that other jobs left")
        inner = [folder] if (folder / _INDEX).exists() else [one for one in _folders(folder) if (one / _INDEX).exists()]
        found += map(Layout, inner)
    for layout in found:
        layout.inspect()
        require_plain(layout.folder / "blobs" / "sha256")
    return found


def _folders(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    if len(names) > _FOLDERS_MAX:
        raise UsageError(f"--from {folder}: more than {_FOLDERS_MAX:,} folders", hint="name the one of this run alone")
    return (folder / name for name in names)


def bring(layout: Layout, sources: Sequence[Layout], run_id: str) -> int:
    """Merge into the store what folders have of a run; return how many parts that are.

    Raises `RunInUseError`, `UsageError` where another run here has the id, `RunLogError`, `StoreError`.
    """
    found = [(source, part) for source in sources for part in _parts(source, run_id)]
    if not found:
        return 0
    parts = [part for _, part in {part.manifest.digest: (source, part) for source, part in found}.values()]
    log = merge([part.log for part in parts])
    require_same_run(layout, log, ", ".join(sorted({source.label for source, _ in found})))
    came_bytes = sum(part.size_bytes for part in parts)
    if len(encode(log)) > 2 * came_bytes + LOG_SLACK_BYTES:
        raise BlobCorruptError(f"the run log of `{run_id}` would need more than twice the space of what was carried")
    if is_running(layout, run_id):
        raise RunInUseError(f"run `{run_id}` is in use by another process", hint="wait until it has finished")
    layout.create()
    with shared(layout):
        for source, part in found:
            copy(source, part.manifest.digest, layout, layer_filter=source.exists)
        import_log(layout, log, parts, conclude=True)
        (run_folder(layout, run_id) / CARRIED).touch()
    return len(parts)


def leave(
    layout: Layout, run_id: str, folder: Path, sources: Sequence[Layout], environ: Mapping[str, str]
) -> TransferSize:
    """Write a run's log into a folder, with all contents that neither the folder nor one of `sources` has.

    Raises `RunInUseError`, `StoreError`.
    """
    target = Layout(folder)
    target.create()
    with shared(layout):
        ensure_sealed(layout, run_id)
        own = layout.resolve(run_id)

        def is_left(blob: Descriptor) -> bool:
            return layout.exists(blob) and not any(source.exists(blob) for source in sources)

        copied: CopyResult = copy(
            layout, own.digest, target, as_reference=writers_tag(layout, run_id, environ), layer_filter=is_left
        )
    return copied.sent


def _parts(source: Layout, run_id: str) -> Iterator[WriterManifest]:
    """Yield what a folder has of a run, each verified; what is of other runs is left alone."""

    def read(descriptor: Descriptor) -> bytes:
        if descriptor == manifest:
            with source.fetch(descriptor) as file:
                return read_manifest(file, descriptor, label=source.label)
        return source.read_bytes(descriptor)

    for tag, manifest in source.manifests().items():
        if may_be_of(tag, run_id):
            part = read_part(manifest, read, label=source.label, hint="name a folder that such a job left")
            if part.log.run_id == run_id:
                yield replace(part, names=[tag.partition("--")[2]] if "--" in tag else [])
