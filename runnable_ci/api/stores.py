"""The store on disk, for reading: which runs it has, and contents that are what their digests say.

Source: OCI image-spec v1.1.1, image-layout.md and descriptor.md.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, BinaryIO, Dict, FrozenSet, Iterable, Iterator, NamedTuple, Optional

from runnable_ci.errors import BlobCorruptError, BlobMissingError, StoreError

STORE_NAME = ".runnable"
JOURNAL, LOCK = "journal.jsonl", "lock"
SAFE_STORES = "RUNNABLE_CI_SAFE_STORES"
_PIPELINE_FILE = "runnable.toml"
_REF_NAME, _CHECK = "org.opencontainers.image.ref.name", "vnd.runnable.check"
_HEX = re.compile(r"[0-9a-f]{64}")
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_CHUNK_BYTES = 1 << 20


class Sealed(NamedTuple):
    """What the index has of a run."""

    sha256: str
    """Of its manifest."""
    size: int
    annotations: Dict[str, str]


class Store:
    """A store that may be read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"

    def sealed(self) -> Dict[str, Sealed]:
        """Return run id → what the index has of it, the oldest first. Raises `StoreError` where it is damaged.

        Of an entry that was damaged since it was written only the digest is known, which proves the rest.
        """
        try:
            entries = json.loads((self.folder / "index.json").read_bytes())["manifests"]
            found = [(e.get("annotations") or {}, e) for e in entries]
            return {
                notes[_REF_NAME]: Sealed(e["digest"][7:], e["size"], notes if _is_as_written(notes, e) else {})
                for notes, e in found
                if _RUN_ID.fullmatch(notes.get(_REF_NAME, ""))
            }
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            hint = "restore it, or remove it: only tags are lost"
            raise StoreError(f"{self.folder / 'index.json'} is damaged", hint=hint) from e

    def run_folders(self) -> Dict[str, Path]:
        """Return run id → folder with what is known of a run beside the contents."""
        runs = self.folder / "runs"
        if not runs.is_dir():
            return {}
        return {entry.name: entry for entry in sorted(runs.iterdir()) if _RUN_ID.fullmatch(entry.name)}

    def run_folder(self, run_id: str) -> Path:
        """Return that folder of one run, which need not be there. Raises `StoreError` for a link."""
        folder = self.folder / "runs" / run_id
        _require_no_links(folder, folder / JOURNAL, folder / LOCK, folder / "logs")
        return folder

    def is_written(self, run_id: str) -> bool:
        """Return whether a process is writing the run at this moment."""
        try:
            with open(self.run_folder(run_id) / LOCK, "rb", opener=_nofollow) as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def in_flight(self, run_id: str) -> FrozenSet[str]:
        """Return the attempts of a run that other machines have and whose end is not recorded, as `STEP.ATTEMPT`."""
        folder = self.folder / "elsewhere" / run_id / "attempts"
        if not os.path.lexists(folder):
            return frozenset()
        _require_no_links(folder.parent.parent, folder.parent, folder)
        return frozenset(path.name for path in folder.iterdir())

    def is_partial(self, run_id: str) -> bool:
        """Return whether what the store has not of a run may be in a registry."""
        folder = self.run_folder(run_id)
        return (folder / "origin").exists() or (folder / "held.json").exists()

    def read(self, sha256: str, size: int) -> bytes:
        """Return a whole content. Raises `BlobMissingError`, `BlobCorruptError`."""
        return b"".join(self.chunks(sha256, size))

    def chunks(self, sha256: str, size: int, *, blob: Optional[str] = None, offset: int = 0) -> Iterator[bytes]:
        """Yield a content, which may lie in a larger blob; nothing of it counts before the end, which proves it."""
        if not _HEX.fullmatch(sha256) or not _HEX.fullmatch(blob or sha256) or offset < 0 or size < 0:
            raise BlobCorruptError(f"{sha256[:100]!r} is not a sha256 of a content")
        try:
            with open(self._blobs / (blob or sha256), "rb", opener=_nofollow) as file:
                file.seek(offset)
                yield from proven(_limited(file, size), sha256, size, where=str(self.folder))
        except FileNotFoundError as e:
            hint = "copy it from another store that has it"
            raise BlobMissingError(f"{self.folder} does not hold sha256:{sha256}", hint=hint) from e


def proven(chunks: Iterable[bytes], sha256: str, size: int, *, where: str) -> Iterator[bytes]:
    """Yield chunks; after the last, raise `BlobCorruptError` where they are not the content."""
    digest, left = hashlib.sha256(), size
    for chunk in chunks:
        digest.update(chunk)
        left -= len(chunk)
        yield chunk
    if left or digest.hexdigest() != sha256:
        hint = "restore the file from another copy"
        raise BlobCorruptError(f"sha256:{sha256} in {where} does not match its digest", hint=hint)


def find_store(folder: Optional[Path]) -> Store:
    """Return the store in a folder, by default that of the nearest pipeline file, as for all commands.

    Raises `StoreError` for one that git tracks, whose content came with the clone; one of another user; one with links.
    """
    place = _project_folder(Path.cwd()) if folder is None else folder.resolve()
    store = place if place.name == STORE_NAME else place / STORE_NAME
    _require_no_links(store, store / "index.json", store / "runs", store / "blobs", store / "blobs" / "sha256")
    if store.exists():
        _require_own(store)
        _require_untracked(store)
    return Store(store)


def _project_folder(here: Path) -> Path:
    places = [here, *here.parents]
    root = next((i for i, place in enumerate(places) if (place / ".git").exists()), 0)
    return next((place for place in places[: root + 1] if _has_pipeline(place)), here)


def _has_pipeline(folder: Path) -> bool:
    if (folder / _PIPELINE_FILE).is_file():
        return True
    try:
        lines = (folder / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any(re.match(r"\s*\[\s*tool\s*\.\s*[\"']?runnable-ci[\"']?\s*[.\]]", line) for line in lines)


def _require_own(store: Path) -> None:
    owner = store.lstat().st_uid
    safe = os.environ.get(SAFE_STORES, "")
    places = {os.path.realpath(place) for place in safe.split(os.pathsep) if place}
    if owner == os.geteuid() or safe == "*" or places & {os.path.realpath(store), os.path.realpath(store.parent)}:
        return
    raise StoreError(
        f"the store {store} belongs to another user, number {owner}: its content would be trusted like your own",
        hint=f"if you trust that user: {SAFE_STORES}={store.parent} in the environment",
    )


def _require_untracked(store: Path) -> None:
    if not any((place / ".git").exists() for place in store.parents):
        return
    command = ["git", "-C", str(store.parent), "ls-files", "-z", "--", STORE_NAME]
    try:
        tracked = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as e:
        raise StoreError(f"cannot tell whether git tracks {store}", hint="see what `git status` says there") from e
    if tracked:
        raise StoreError(
            f"the store {store} is tracked by git: it came with the repository, from an unknown author",
            hint=f"git rm -r --cached {STORE_NAME}, commit, and move the folder away if it is not yours",
        )


def _require_no_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise StoreError(f"{path} is a link: a store has real folders and files only", hint="move it away")


def _is_as_written(annotations: Dict[str, str], entry: Dict[str, Any]) -> bool:
    """Return whether an entry has the check that it was written with, if any."""
    if _CHECK not in annotations:
        return True
    texts = [text for item in sorted(annotations.items()) if item[0] != _CHECK for text in item]
    checked = "\0".join([str(entry.get("mediaType")), entry["digest"], str(entry["size"]), *texts])
    return hashlib.sha256(checked.encode(errors="surrogatepass")).hexdigest()[:16] == annotations[_CHECK]


def _limited(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (chunk := file.read(min(_CHUNK_BYTES, size))):
        size -= len(chunk)
        yield chunk


def _nofollow(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
