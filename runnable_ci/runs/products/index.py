"""Which files of the workspace steps made: `products.jsonl` in the store, a line for each time that one was made.

A file is a product by its path and its content together, never by its name alone: once a person or another program
wrote it, it is theirs. The index repeats what the run logs of the store say; where it is missing, it is read from them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.validation import check_relative, is_excluded
from runnable_ci.runs.model import FOLDER, LINK
from runnable_ci.store.local import Layout
from runnable_ci.util.bounded_json import parse_own, with_check
from runnable_ci.util.files import fingerprint, locked, open_nofollow, write_whole

FILE = "products.jsonl"
LOCK = "products.lock"
_LINE_MAX_BYTES = 64 * 1024
_SPARE_LINES = 1_000
_LINES_PER_PRODUCT = 4
"""Above this the index is written again without the lines that no longer count."""
_CONTENTS_MAX = 4
"""So many contents of a path are known: what a killed or restored run left need not be what was made last."""
_TEXTS = ("step", "run", "made_by", "folder")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A file as the store holds it, and how to find it without the log of the run that stored it."""

    sha256: str
    size: int
    mode: int = 0o644
    pack: tuple[str, int, int] | None = None
    """The pack that holds it, with that one's size and the offset in bytes; None for a blob of its own."""
    kind: str = ""
    """`link` or `folder`: what is no content of the store."""
    target: str = ""
    mtime_ns: int = 0
    sparse: bool = False
    stored: bool = True
    """Whether the store has, or had, its bytes."""

    @property
    def blob(self) -> str:
        """sha256 of the blob that holds it."""
        return self.pack[0] if self.pack else self.sha256


@dataclass(frozen=True, slots=True)
class Product:
    """A file that a step made."""

    path: str
    """From the workspace, with forward slashes."""
    content: StoredContent
    step: str
    run: str
    made_by: str = ""
    """`RUN_ID/STEP.ATTEMPT` of who wrote it: not who found it there and kept it."""
    was: StoredContent | None = None
    """What the user had in its place."""
    folder: str = ""
    """The folder that was there before the step: those between it and the file are gone with the file."""
    seen: tuple[int, ...] | None = None
    """Its fingerprint, where that tells that the content is still the same."""
    observed: bool = True
    """Whether the step was seen to write it; versions before that took whatever `put` matched."""


class ProductsIndex:
    """The products of a store. Safe for many threads and processes; what others add meanwhile is not seen."""

    def __init__(self, layout: Layout, logged: Callable[[], Iterable[Product]] = lambda: ()) -> None:
        self._layout = layout
        self._logged = logged
        """What the run logs tell: asked only where there is no index yet."""
        self._file = layout.folder / FILE
        self._products: dict[str, tuple[Product, ...]] | None = None
        """Path → what was made there, the newest last, one for each content."""
        self._being_made: dict[str, tuple[Collection[str], Collection[str]]] = {}
        """Attempt in flight → its `put`, and the paths that were there before it."""
        self._seen = (0, 0)
        """Which file was read, by its inode, and how much of it."""

    def lookup(self, path: str, sha256: str | None = None, *, kind: str | None = None) -> Product | None:
        """Return what was made under a path with this content, or last, whether or not it is still there."""
        made = self._known().get(path, ())
        found = (it for it in reversed(made) if sha256 in (None, it.content.sha256))
        return next((it for it in found if kind in (None, it.content.kind)), None)

    def made_at(self, path: str) -> tuple[Product, ...]:
        """Return what was made under a path, the newest last."""
        return self._known().get(path, ())

    def hash_seen(self, path: str, file: Path) -> str | None:
        """Return the sha256 of a file that is as it was when it was recorded, None where it may have changed."""
        if self._products is None and not self._file.exists():
            return None  # the run logs have seen no file
        made = self._known().get(path, ())
        try:
            now = fingerprint(file) if made else None
        except OSError:
            return None
        return next((product.content.sha256 for product in made if now and product.seen == now), None)

    def is_generated(self, path: str, sha256: str) -> bool:
        """Return whether this content under this path is what a step was seen to make."""
        product = self.lookup(path, sha256)
        return product is not None and product.observed

    def begin(self, title: str, patterns: Collection[str], before: Collection[str]) -> None:
        """Know that an attempt makes what these patterns match, but for what was there before it."""
        self._being_made[title] = (patterns, before)

    def end(self, title: str) -> None:
        """Know that an attempt is over: what it made is recorded, or undone."""
        self._being_made.pop(title, None)

    def is_being_made(self, path: str) -> bool:
        """Return whether an attempt in flight made a path, by its `put`: it was not there before."""
        attempts = list(self._being_made.values())
        return any(path not in before and any(may_name(pattern, path) for pattern in put) for put, before in attempts)

    def paths_of(self, steps: Collection[str]) -> list[str]:
        """Return the paths under which these steps made something, in any run."""
        return [path for path, made in list(self._known().items()) if any(product.step in steps for product in made)]

    def steps(self) -> set[str]:
        """Return the steps that made something, in any run."""
        return {product.step for made in self._known().values() for product in made}

    def contents(self) -> Iterator[StoredContent]:
        """Yield what steps were seen to make, in any run."""
        return (product.content for made in self._known().values() for product in made if product.observed)

    def record(self, products: Iterable[Product]) -> None:
        """Note what was made."""
        new = list(products)
        if not new:
            return
        known = self._known()
        with locked(self._layout.folder / LOCK):
            if self._file.exists():
                self._append(new)
            else:
                self._write([*chain.from_iterable(known.values()), *new])
        _add(known, new)

    def catch_up(self) -> None:
        """Know what other processes have added since the index was read."""
        if self._products is None or not self._file.exists():
            return
        with open(self._file, "rb", opener=open_nofollow) as file:
            inode, position = self._seen
            if os.fstat(file.fileno()).st_ino == inode:
                file.seek(position)
                lines = list(_lines(file))
                _add(self._products, filter(None, map(_decode, lines)))
                self._seen = inode, position + sum(map(len, lines))
                return
        self._products = self._read()

    def _append(self, products: Iterable[Product]) -> None:
        lines = b"".join(map(_encode, products))
        with open(self._file, "r+b", opener=open_nofollow) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # its writer was killed: the rest of that line is lost
                    lines = b"\n" + lines
            file.write(lines)

    def _write(self, products: Iterable[Product]) -> None:
        write_whole(self._file, b"".join(map(_encode, products)), through=self._layout.temporaries)

    def _known(self) -> dict[str, tuple[Product, ...]]:
        if self._products is None:
            self._products = self._read()
        return self._products

    def _read(self) -> dict[str, tuple[Product, ...]]:
        known: dict[str, tuple[Product, ...]] = {}
        try:
            with open(self._file, "rb", opener=open_nofollow) as file:
                lines = list(_lines(file))
                self._seen = os.fstat(file.fileno()).st_ino, sum(map(len, lines))
        except FileNotFoundError:
            _add(known, (replace(product, observed=False) for product in self._logged()))
            return known
        _add(known, filter(None, map(_decode, lines)))
        if len(lines) > _SPARE_LINES + _LINES_PER_PRODUCT * sum(map(len, known.values())):
            self._compact()
        return known

    def _compact(self) -> None:
        known: dict[str, tuple[Product, ...]] = {}
        with locked(self._layout.folder / LOCK), open(self._file, "rb", opener=open_nofollow) as file:
            _add(known, filter(None, map(_decode, _lines(file))))
            self._write(chain.from_iterable(known.values()))


def _add(known: dict[str, tuple[Product, ...]], products: Iterable[Product]) -> None:
    """Make products the newest of their paths."""
    for new in products:
        others = (old for old in known.get(new.path, ()) if old.content.sha256 != new.content.sha256)
        known[new.path] = (*others, new)[-_CONTENTS_MAX:]


def _lines(file: Iterable[bytes]) -> Iterator[bytes]:
    return (line for line in file if line.endswith(b"\n"))


def _encode(product: Product) -> bytes:
    fields: dict[str, Any] = {
        "path": product.path,
        **_encode_content(product.content),
        "step": product.step,
        "run": product.run,
        "made_by": product.made_by,
        "folder": product.folder,
    }
    optional = {
        "was": product.was and _encode_content(product.was),
        "seen": product.seen,
        "observed": None if product.observed else False,
    }
    line = fields | {name: value for name, value in optional.items() if value is not None}
    return with_check(f"{json.dumps(line, separators=(',', ':'))}\n".encode())


def _encode_content(content: StoredContent) -> dict[str, Any]:
    fields: dict[str, Any] = {"sha256": content.sha256, "size": content.size, "mode": content.mode}
    optional = {
        "pack": content.pack,
        "kind": content.kind,
        "target": content.target,
        "mtime_ns": content.mtime_ns,
        "sparse": content.sparse,
        "unstored": not content.stored,
    }
    return fields | {name: value for name, value in optional.items() if value}


def _decode(line: bytes) -> Product | None:
    """Return the product of a line, None for what is none: the file may have come with a store from anywhere."""
    if len(line) > _LINE_MAX_BYTES:
        return None
    try:
        found = parse_own(line)
        check_relative(found["path"], ValueError)
        seen = found.get("seen")
        if is_excluded(found["path"]) or not all(isinstance(found[name], str) for name in _TEXTS):
            return None
        return Product(
            path=found["path"],
            content=decode_content(found),
            step=found["step"],
            run=found["run"],
            made_by=found["made_by"],
            folder=found["folder"],
            was=decode_content(found["was"]) if "was" in found else None,
            seen=_numbers(seen, 4) if seen is not None else None,
            observed=found.get("observed") is not False,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def decode_content(fields: Mapping[str, Any]) -> StoredContent:
    pack = fields.get("pack")
    size, mode = _numbers([fields["size"], fields["mode"]], 2)
    digests = [fields["sha256"], *([pack[0]] if pack else [])]
    if not all(isinstance(digest, str) and _SHA256.fullmatch(digest) for digest in digests):
        raise ValueError("not a sha256")
    kind, target, mtime_ns = fields.get("kind", ""), fields.get("target", ""), fields.get("mtime_ns", 0)
    if kind not in ("", LINK, FOLDER) or not isinstance(target, str) or type(mtime_ns) is not int:
        raise ValueError("not such a file")
    return StoredContent(
        sha256=fields["sha256"],
        size=size,
        mode=mode & 0o777,
        pack=(pack[0], *_numbers(pack[1:], 2)) if pack else None,
        kind=kind,
        target=target,
        mtime_ns=mtime_ns,
        sparse=fields.get("sparse") is True,
        stored=fields.get("stored") is not False and fields.get("unstored") is not True,
    )


def _numbers(values: Any, count: int) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) != count or not all(type(v) is int and v >= 0 for v in values):
        raise ValueError("not such numbers")
    return tuple(values)
