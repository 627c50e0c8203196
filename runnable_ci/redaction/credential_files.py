"""Whether a file holds credentials, by its name and by what stands in it, and which. Pure."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

from runnable_ci.redaction.credential_names import is_code, is_named_as_credentials, suffix
from runnable_ci.redaction.environment import names_a_secret
from runnable_ci.redaction.key_formats import is_public_pem, key_file, key_in
from runnable_ci.redaction.secret_values import secret_in

_BY_NAME: Final = "a credential file by its name"
_ONE_VALUE_MAX_BYTES: Final = 4096
_PIECE_BYTES: Final = 1024 * 1024
_OVERLAP_BYTES: Final = 4096
"""What spans several lines is found within so many."""
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SCRIPT: Final = re.compile(rb"#![^\n]*\b(python|node|deno|ruby|perl|php|lua|Rscript|julia|groovy)")


def by_name(path: str) -> str:
    """Return why a file is one of credentials, whatever stands in it; empty where its name does not say so."""
    return _BY_NAME if is_named_as_credentials(path) else ""


def by_content(path: str, chunks: Iterable[bytes]) -> str:
    """Return why the content of a file is credentials; empty where it is not.

    `chunks` are all of it in order; what is not larger than the first one is judged as a whole too.
    """
    pieces = _decoded(chunks)
    first = next(pieces, b"")
    if what := key_file(first):
        return f"is {what}"
    if suffix(path) == "pem" and not is_public_pem(first):
        return _BY_NAME
    code = is_code(path) or bool(_SCRIPT.match(first))
    if not code and (name := _named_by_file(path, first)):
        return f"is a value for {name}"
    return _holds(_windows(chain([first], pieces)), code=code)


def _holds(texts: Iterable[bytes], *, code: bool) -> str:
    found = (key_in(text) or secret_in(text, code=code) for text in texts)
    what = next(filter(None, found), "")
    return f"holds {what}" if what else ""


def _named_by_file(path: str, text: bytes) -> str:
    """Return the name of a file that is one value alone, which is a secret by that name."""
    value = text.strip()
    if len(value) > _ONE_VALUE_MAX_BYTES or b"\n" in value:
        return ""
    names = filter(names_a_secret, _names(path))
    return next((name for name in names if secret_in(name.encode() + b"=" + value, code=False)), "")


def _names(path: str) -> tuple[str, str]:
    """Return a file's name as a variable's: `db_password` of `secrets/db_password.txt`, `api_key` of `api.key`."""
    name = path.rpartition("/")[2].lstrip(".")
    return re.sub(r"\W", "_", name.rpartition(".")[0] or name), re.sub(r"\W", "_", name)


def _decoded(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks, in UTF-8 where a mark says that they are in UTF-16, as Windows' programs write text."""
    decoder = None
    for at, chunk in enumerate(_pieces(chunks)):
        if not at and chunk.startswith(_UTF_16):
            decoder = codecs.getincrementaldecoder("utf-16")("replace")
        yield decoder.decode(chunk).encode() if decoder else chunk


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks in pieces that are large enough to have whole lines."""
    waiting, size_bytes = list[bytes](), 0
    for chunk in chunks:
        waiting.append(chunk)
        size_bytes += len(chunk)
        if size_bytes >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size_bytes = [], 0
    yield b"".join(waiting)


def _windows(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces with their last line put before the next one, each after the end of the one before it."""
    kept = seen = b""
    for piece in pieces:
        data = kept + piece
        end = data.rfind(b"\n") + 1 or len(data)
        window = seen + data[:end]
        yield window
        tail = window[-_OVERLAP_BYTES:]
        seen, kept = tail if tail == window else tail.partition(b"\n")[2], data[end:]
    yield seen + kept
