"""What attempts read, as the store has it: their documents, and the values in them."""

from __future__ import annotations

import hashlib
from contextlib import suppress

from runnable_ci.errors import BlobMissingError
from runnable_ci.observe.reads import READS_MAX_BYTES, ReadSet, decode_reads
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import StepAttempt
from runnable_ci.runs.paths import OUTPUTS, READS_SUFFIX


def reads_of(catalog: Catalog, title: str, attempt: StepAttempt) -> ReadSet | None:
    """Return what an attempt read; None where that was not seen, or is not in this store. `title` is `STEP.ATTEMPT`.

    Raises `RunLogError` for a document that is none, `BlobCorruptError`.
    """
    if not attempt.reads or attempt.reads_size > READS_MAX_BYTES:
        return None
    document = reads_document(catalog, title, attempt)
    return None if document is None else decode_reads(document, where=f"what {title} read")


def reads_document(catalog: Catalog, title: str, attempt: StepAttempt) -> bytes | None:
    """Return the document of what an attempt read, None where this store does not have it."""
    with suppress(FileNotFoundError):
        document = (catalog.run_folder / OUTPUTS / f"{title}{READS_SUFFIX}").read_bytes()
        if hashlib.sha256(document).hexdigest() == attempt.reads:  # else torn by a crash of the machine
            return document
    try:
        return b"".join(catalog.read(attempt.reads, attempt.reads_size))
    except (BlobMissingError, FileNotFoundError):
        return None
