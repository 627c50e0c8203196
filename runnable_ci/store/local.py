"""The local store: a folder that is an OCI image layout, readable by any OCI client.

Source: OCI image-spec v1.1.1, image-layout.md. Blobs appear whole or not at all; `index.json` changes under a lock.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    StoreError,
    SystemCallError,
    did_you_mean,
)
from runnable_ci.store.plain import require_plain
from runnable_ci.store.target import (
    BLOB_MEDIA_TYPE,
    DIGEST,
    MANIFEST_ELEMENTS_MAX,
    MANIFEST_MEDIA_TYPE,
    TAG,
    Descriptor,
    read_manifest,
    verified,
)
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.util.files import (
    copy_and_hash,
    fingerprint,
    is_sparse,
    locked,
    open_nofollow,
    replacing,
    sweep,
    sync_file,
    temporary,
    write_whole,
)

REF_NAME = "org.opencontainers.image.ref.name"
CHECK = "vnd.runnable.check"
"""Of an entry of the index that we wrote: what stands beside a digest is covered by no other hash."""
INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
_GITIGNORE = b"*\n"


class Layout:
    """A `Target` in a folder. Safe for many processes and threads at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._temporaries = folder / "tmp"
        self._own_folders: set[Path] = set()
        self._checked: dict[str, tuple[int, ...]] = {}

    @property
    def label(self) -> str:
        """How an error message names this side."""
        return str(self.folder)

    def inspect(self) -> None:
        """Raise `StoreError` where the store's own folders and files, as far as they are there, are not real ones."""
        for folder in (self.folder, self._blobs.parent):
            require_plain(folder)

    def own_folder(self, *parts: str) -> Path:
        """Return a folder beside the content, for what a program keeps about it; it need not be there yet.

        Raises `StoreError` where it, or something right in it, is a link. That is looked at once.
        """
        folder = self.folder.joinpath(*parts)
        if folder not in self._own_folders:
            require_plain(folder)
            self._own_folders.add(folder)
        return folder

    def create(self) -> None:
        """Make the folder a layout; no effect on one that is."""
        self.inspect()
        try:
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._temporaries.mkdir(exist_ok=True)
            if (self.folder / "index.json").exists():
                return
            write_whole(self.folder / ".gitignore", _GITIGNORE, through=self._temporaries)
            write_whole(self.folder / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}', through=self._temporaries)
            with locked(self.folder / "index.lock"):
                if not (self.folder / "index.json").exists():
                    self._write_index([])
        except OSError as e:
            hint = SystemCallError.of(e).hint
            raise StoreError(f"cannot make the store {self.folder}: {e.strerror}", hint=hint) from e

    # -- Target

    def resolve(self, reference: str) -> Descriptor:
        """Return the manifest that a tag or digest points to; `ManifestNotFoundError` where there is none."""
        entries = self.manifests()
        for tag, descriptor in entries.items():
            if reference in (tag, descriptor.digest):
                return descriptor
        if DIGEST.fullmatch(reference) and (path := self._path(reference)).exists():
            return Descriptor(MANIFEST_MEDIA_TYPE, reference, path.stat().st_size)
        raise ManifestNotFoundError(f"no `{reference}` in {self.label}", hint=did_you_mean(reference, entries))

    def tags(self) -> Iterator[str]:
        """Yield all tags, oldest first."""
        yield from self.manifests()

    def exists(self, descriptor: Descriptor) -> bool:
        """Return whether the content is there (its bytes are not checked)."""
        return self._path(descriptor.digest).exists()

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """Return the stored bytes, unchecked: read them through `verified`."""
        try:
            return open(self._path(descriptor.digest), "rb", buffering=0, opener=open_nofollow)
        except FileNotFoundError as e:
            raise self._missing(descriptor) from e
        except OSError as e:
            if e.errno not in (errno.ELOOP, errno.EISDIR):
                raise
            raise BlobCorruptError(f"{descriptor.digest} in {self.label} is not a file", hint="move it away") from e

    def push(self, descriptor: Descriptor, content: BinaryIO) -> None:
        """Store content, refusing bytes that do not match the descriptor."""
        path = self._path(descriptor.digest)
        if path.exists() and self.is_intact(descriptor):
            return
        with replacing(path, mode=0o444, through=self.temporaries) as file:
            for chunk in verified(content, descriptor, label="the source"):
                file.write(chunk)

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Point a tag to a manifest, replacing its target."""
        if not TAG.fullmatch(reference):
            raise StoreError(f"{reference!r} is not a tag")
        entry: dict[str, Any] = {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
            "annotations": {**descriptor.annotations, REF_NAME: reference},
        }
        entry["annotations"][CHECK] = _entry_check(entry)
        with locked(self.folder / "index.lock"):
            others = [e for e in self._index() if _tag(e) != reference]
            self._write_index([*others, entry])

    # -- what only a folder can do

    def untag(self, references: AbstractSet[str]) -> None:
        """Remove these tags."""
        with locked(self.folder / "index.lock"):
            entries = self._index()
            left = [entry for entry in entries if _tag(entry) not in references]
            if left != entries:
                self._write_index(left)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Yield digest and size in bytes of all content: the regular files whose name is a digest, and nothing else."""
        if not self._blobs.is_dir():
            return
        with os.scandir(self._blobs) as entries:
            for entry in entries:
                digest = f"sha256:{entry.name}"
                if DIGEST.fullmatch(digest) and entry.is_file(follow_symlinks=False):
                    yield digest, entry.stat(follow_symlinks=False).st_size

    def remove(self, digest: str) -> None:
        """Remove content, by its digest."""
        self._path(digest).unlink(missing_ok=True)

    @property
    def temporaries(self) -> Path:
        """Where files are written before they have a name, so that nobody meets one in its place half-written."""
        self._temporaries.mkdir(parents=True, exist_ok=True)  # a copy of a store may lack its empty folders
        return self._temporaries

    def sweep(self) -> None:
        """Remove what killed processes left half-written."""
        sweep(self._temporaries)

    def path(self, descriptor: Descriptor) -> Path:
        """Return the verified blob as a file, for programs that read files. It must not be written to.

        A blob is read in full the first time; later its file's stat is enough. Raises `BlobMissingError` and
        `BlobCorruptError`.
        """
        path = self._path(descriptor.digest)
        try:
            stat = fingerprint(path, follow_links=False)
            if self._checked.get(descriptor.digest) != stat:
                with self.fetch(descriptor) as file:
                    for _ in verified(file, descriptor, label=self.label):
                        pass
                self._checked[descriptor.digest] = stat
        except FileNotFoundError as e:
            raise self._missing(descriptor) from e
        return path

    def is_intact(self, descriptor: Descriptor) -> bool:
        """Return whether the blob is there with the right bytes."""
        try:
            self.path(descriptor)
        except (BlobMissingError, BlobCorruptError):
            return False
        return True

    def put_bytes(self, content: bytes, media_type: str) -> Descriptor:
        """Store small content."""
        descriptor = Descriptor.of_hash(hashlib.sha256(content).hexdigest(), len(content), media_type)
        if not self.is_intact(descriptor):
            with replacing(self._path(descriptor.digest), mode=0o444, through=self.temporaries) as file:
                file.write(content)
        return descriptor

    def read_bytes(self, descriptor: Descriptor) -> bytes:
        """Read small content, verified."""
        with self.fetch(descriptor) as file:
            return b"".join(verified(file, descriptor, label=self.label))

    def put_file(self, source: Path) -> Descriptor:
        """Store a file's content, hashing the copy while it is made; the file is left alone."""
        with source.open("rb", buffering=0) as opened, temporary(self.temporaries, mode=0o444) as new:
            digest, size = copy_and_hash(opened, new.file, sparse=is_sparse(os.fstat(opened.fileno())))
            descriptor = Descriptor.of_hash(digest, size)
            if not self.is_intact(descriptor):
                new.keep_as(self._path(descriptor.digest))
                self._checked[descriptor.digest] = fingerprint(self._path(descriptor.digest), follow_links=False)
        return descriptor

    def move_file_in(self, source: Path, digest: str | None = None) -> Descriptor:
        """Store a file by moving it; `digest` is its known `sha256:…`, else it is read."""
        if digest is None:
            with source.open("rb", buffering=0) as file:
                digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        descriptor = Descriptor(BLOB_MEDIA_TYPE, digest, source.stat().st_size)
        if self.is_intact(descriptor):
            source.unlink()
        else:
            sync_file(source)
            source.chmod(0o444)
            source.replace(self._path(digest))
            self._checked[digest] = fingerprint(self._path(digest), follow_links=False)
        return descriptor

    def manifests(self) -> dict[str, Descriptor]:
        """Tag → manifest, oldest first, with the manifest's annotations as the index has them.

        Of an entry that was damaged since we wrote it only tag and manifest are known: the manifest proves itself.
        """
        found: dict[str, Descriptor] = {}
        for entry in self._index():
            annotations = entry.get("annotations") or {}
            if tag := annotations.get(REF_NAME):
                if annotations.get(CHECK) not in (None, _entry_check(entry)):
                    annotations = {REF_NAME: tag}
                found[tag] = Descriptor(str(entry.get("mediaType", "")), entry["digest"], entry["size"], annotations)
        return found

    def manifest(self, descriptor: Descriptor) -> dict[str, Any]:
        """Return a manifest's JSON, verified."""
        with self.fetch(descriptor) as file:
            raw = read_manifest(file, descriptor, label=self.label)
        try:
            parsed = parse_json(raw, elements_max=MANIFEST_ELEMENTS_MAX)
        except ValueError as e:
            raise BlobCorruptError(f"{descriptor.digest} in {self.label} is not a manifest") from e
        if not isinstance(parsed, dict):
            raise BlobCorruptError(f"{descriptor.digest} in {self.label} is not a manifest")
        return parsed

    def _missing(self, descriptor: Descriptor) -> BlobMissingError:
        return BlobMissingError(
            f"{self.label} does not hold {descriptor.digest}", hint="copy it from another store that has it"
        )

    def _path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def _index(self) -> list[dict[str, Any]]:
        path = self.folder / "index.json"
        try:
            entries = json.loads(path.read_bytes())["manifests"]
            sound = isinstance(entries, list) and all(map(_is_entry, entries))
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise _damaged(path) from e
        if not sound:
            raise _damaged(path)
        return cast("list[dict[str, Any]]", entries)

    def _write_index(self, entries: Sequence[Mapping[str, Any]]) -> None:
        index = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": entries}
        content = json.dumps(index, separators=(",", ":")).encode()
        write_whole(self.folder / "index.json", content, through=self.temporaries)


def _is_entry(entry: Any) -> bool:
    """Return whether that is a descriptor, as far as its types tell. Source: OCI image-spec v1.1.1, descriptor.md."""
    if not isinstance(entry, dict):
        return False
    annotations = entry.get("annotations") or {}
    return (
        isinstance(entry.get("digest"), str)
        and type(entry.get("size")) is int
        and isinstance(annotations, dict)
        and all(isinstance(text, str) for text in annotations.values())
    )


def _entry_check(entry: Mapping[str, Any]) -> str:
    """Return the check of an entry, in whatever order another program writes what is in it."""
    annotations = sorted(item for item in (entry.get("annotations") or {}).items() if item[0] != CHECK)
    text = "\0".join([str(entry.get("mediaType")), entry["digest"], str(entry["size"]), *chain(*annotations)])
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def _tag(entry: Mapping[str, Any]) -> str | None:
    return cast("str | None", (entry.get("annotations") or {}).get(REF_NAME))


def _damaged(path: Path) -> StoreError:
    return StoreError(f"{path} is damaged", hint="restore it, or remove it: only tags are lost")
