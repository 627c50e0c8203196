"""What steps made in the work tree is no change of the code; which files of the user they changed in place may be."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from runnable_ci.errors import RunnableError
from runnable_ci.pipeline.project import Project
from runnable_ci.runs.files.packs import open_stored
from runnable_ci.runs.products.index import ProductsIndex, StoredContent
from runnable_ci.store.local import Layout
from runnable_ci.vcs.hashing import content_sha256, git_mode
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.objects import Format, Item, format_of, new_hash

_CHUNK_BYTES = 1 << 20
_SMALL_BYTES = 1 << 20


def code_of(project: Project, products: ProductsIndex, environ: Mapping[str, str]) -> Code:
    """Return the code of a project: what its steps made never counts as a change.

    What earlier versions called a product, though a person may have made it, is one only where git does not track it.
    A file of the user that a step changed in place counts as what the user had: a change, if the commit has not that.
    """
    item_of = cache(lambda content, form: _stored_item(project.layout, content, form))

    def is_generated(path: str, sha256: str) -> bool:
        if products.is_being_made(path):
            return True
        product = products.lookup(path, sha256)
        return product is not None and (product.observed or code.tracked.tracks(path) is False)

    def hides_change(path: str, sha256: str, head: Item | None) -> bool:
        product = products.lookup(path, sha256)
        if product is None or product.was is None:
            return False
        return head is None or item_of(product.was, format_of(head.id)) != head

    def hash_made(path: str) -> str | None:
        file = project.workspace / path
        if digest := products.hash_seen(path, file):
            return digest
        sizes = {product.content.size for product in products.made_at(path)}
        return content_sha256(str(file)) if _size_of_small(file) in sizes else None

    code = Code(
        project.workspace,
        is_generated=is_generated,
        hides_change=hides_change,
        hash_made=hash_made,
        environ=environ,
    )
    return code


def _size_of_small(file: Path) -> int | None:
    """Return the size of a file that is read in less time than git takes to start, None for any other."""
    try:
        found = file.lstat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) and found.st_size <= _SMALL_BYTES else None


def _stored_item(layout: Layout, content: StoredContent, form: Format) -> Item | None:
    """Return what git would call content of the store, None where that is not there any more."""
    found = new_hash("blob", content.size, form)
    try:
        with open_stored(layout, content) as stored:
            while chunk := stored.read(_CHUNK_BYTES):
                found.update(chunk)
    except (RunnableError, OSError):
        return None
    return Item(git_mode(content.mode), found.hexdigest())
