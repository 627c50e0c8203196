"""How a blob is sent: whole by one PUT, in chunks where that is refused or keeps breaking.

Some registries take no chunks (Google's), some none over 4 MiB (ghcr.io), and proxies limit the size or the time of a
request. So the one PUT goes first, and what a server does with it decides.
Source: OCI distribution-spec v1.1, "Pushing blobs".
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Collection
from contextlib import suppress
from typing import BinaryIO, cast

from runnable_ci.errors import BlobCorruptError, RegistryProtocolError, StoreError
from runnable_ci.store.blobs import ExactReader
from runnable_ci.store.client import Client
from runnable_ci.store.target import BLOB_MEDIA_TYPE, Descriptor
from runnable_ci.util.http import SEND_BYTES
from runnable_ci.util.responses import TRIES, Response, TransientError
from runnable_ci.util.threads import map_all

CHUNK_BYTES = 4 * 1024 * 1024
LEAST_CHUNK_BYTES = 64 * 1024
MOST_CHUNK_BYTES = 64 * 1024 * 1024
# What even slow storage takes in after the last byte was sent: a registry answers a PUT only then.
STORED_BYTES_A_SECOND = 4 * 1024 * 1024
# A PUT that broke so often will break again: a limit of time stands in its way.
BROKEN_PUTS = 2
_NOT_WHOLE = (405, 411, 413, 501)
_SESSION_LOST = (404, 410, 416)
_LOST_CODES = {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UNKNOWN"}  # ghcr.io says BLOB_UNKNOWN
_HELD = re.compile(r"(?:bytes=)?0-(\d{1,18})")


class Uploads:
    """Sends blobs to one repository; safe to share between threads."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._in_chunks = False

    def require_allowed(self, *, tries: int) -> None:
        """Raise what the first blob would find: open a session, and cancel it."""
        nothing = Descriptor(BLOB_MEDIA_TYPE, f"sha256:{hashlib.sha256().hexdigest()}", 0)
        upload = _Upload(self._client, nothing, io.BytesIO(), in_chunks=False)
        self._client.retry(upload.open_and_cancel, tries=tries)

    def mount(self, blobs: Collection[Descriptor], source: str) -> list[Descriptor]:
        """Have the registry take blobs over from another of its repositories; return those that it took.

        A login of its own may read that one, too, and may be refused. Source: OCI distribution-spec v1.1, "Mounting a
        blob from another repository".
        """
        try:
            mounted = map_all(lambda blob: self._mount(blob, source), blobs, jobs=16, name="registry")
        except StoreError:
            return []
        return [blob for blob, is_there in zip(blobs, mounted, strict=True) if is_there]

    def _mount(self, blob: Descriptor, source: str) -> bool:
        path = f"blobs/uploads/?mount={blob.digest}&from={source}"
        begun = self._client.request("POST", path, "pull,push", headers={"Content-Length": "0"}, tries=1)
        if begun.status == 202 and (session := self._client.location(begun)):  # it has opened an upload instead
            with suppress(StoreError):
                self._client.request("DELETE", session, "pull,push", tries=1)
        return begun.status == 201

    def send(self, descriptor: Descriptor, content: BinaryIO) -> None:
        """Send a blob from where `content` stands now.

        What breaks is sent again, if `content` can `seek`: a PUT from its start, chunks from what the server holds. A
        try that got further than all before counts as the first, and chunks have tries of their own.
        Raises `BlobCorruptError` where `content` does not match, `StoreError`.
        """
        upload = _Upload(self._client, descriptor, content, in_chunks=self._in_chunks)
        failures, furthest = 0, 0
        while True:
            in_chunks = upload.in_chunks
            try:
                upload.send_rest()
            except TransientError as failure:
                failures = 1 if upload.held > furthest else 0 if upload.in_chunks != in_chunks else failures + 1
                furthest = max(furthest, upload.held)
                if not content.seekable() or failures >= min(TRIES, failure.tries):
                    raise failure.error from failure
                self._client.sleep(failure.wait_s(max(failures, 1)))
            else:
                self._in_chunks = self._in_chunks or upload.whole_is_refused
                return


class _Upload:
    """One blob on its way, through as many sessions as it takes."""

    def __init__(self, client: Client, descriptor: Descriptor, content: BinaryIO, *, in_chunks: bool) -> None:
        self._client = client
        self._descriptor = descriptor
        self._reader = ExactReader(content, descriptor)
        self._may_chunk = content.seekable() and descriptor.size > 0
        self.in_chunks = in_chunks and self._may_chunk
        self._chunk_bytes = min(CHUNK_BYTES, max(descriptor.size, LEAST_CHUNK_BYTES))
        self._refusal: StoreError | None = None
        self._broken = 0
        self._session = ""
        self.held = 0
        """How many bytes the open session holds."""

    @property
    def whole_is_refused(self) -> bool:
        """Whether the server takes no blob like this by one PUT."""
        return self._refusal is not None

    def send_rest(self) -> None:
        """Send what is missing. Raises `TransientError` where the next call may get further."""
        if not self.in_chunks:
            self._send_whole()
            return
        if self._session:
            self._ask_what_is_held()
        elif not self._begin():
            return
        while self.held < self._descriptor.size:
            self._send_chunk()
        self._finish(self._put(b""))

    def open_and_cancel(self) -> None:
        """Open a session and cancel it; where that is not possible it expires."""
        if self._begin():
            with suppress(StoreError):
                self._client.request("DELETE", self._session, "pull,push", tries=1)

    def _begin(self) -> bool:
        """Open a session; False where the server had the blob all along."""
        self._session, self.held = "", 0
        stream = self._client.open("POST", "blobs/uploads/", "pull,push", headers={"Content-Length": "0"})
        begun = self._client.raise_if_transient(stream.response())
        self._client.require_ok(begun)
        if begun.status == 201:
            return False
        self._session = self._client.location(begun).partition("#")[0]
        if not self._session:
            raise RegistryProtocolError(f"{self._client.label} starts an upload without a location")
        least = begun.headers.get("OCI-Chunk-Min-Length", "")
        if least.isdecimal() and len(least) < 10:
            self._chunk_bytes = max(self._chunk_bytes, min(int(least), MOST_CHUNK_BYTES))
        return True

    def _send_whole(self) -> None:
        if not self._begin():
            return
        if self._reader.seekable():
            self._reader.seek(0)
        small = self._descriptor.size <= SEND_BYTES
        try:
            response = self._put(self._reader.read() if small else self._reader)
            self._finish(response)
        except TransientError as failure:
            self._broken += _is_broken(failure)
            if self._may_chunk and self._broken >= BROKEN_PUTS:
                self.in_chunks, self._session = True, ""
            raise

    def _put(self, body: bytes | ExactReader) -> Response:
        joint = "&" if "?" in self._session else "?"
        stream = self._client.open(
            "PUT",
            f"{self._session}{joint}digest={self._descriptor.digest}",
            "pull,push",
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(len(body))},
            body=body if isinstance(body, bytes) else cast("BinaryIO", body),
            longer_s=self._descriptor.size / STORED_BYTES_A_SECOND,
        )
        return self._client.raise_if_transient(stream.response())

    def _finish(self, response: Response) -> None:
        if not response.ok:
            raise self._failed(response)

    def _send_chunk(self) -> None:
        begin, end = self.held, min(self.held + self._chunk_bytes, self._descriptor.size)
        self._reader.seek(begin)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{begin}-{end - 1}"}
        try:
            chunk = self._reader.read(end - begin)
            stream = self._client.open("PATCH", self._session, "pull,push", headers=headers, body=chunk)
            response = self._client.raise_if_transient(stream.response())
        except TransientError as failure:
            if _is_broken(failure):
                self._make_chunks_smaller(4)
            raise
        if response.ok:
            self._continue_at(response, otherwise=end)
        elif response.status in (413, 416) and self._make_chunks_smaller(2):
            self._ask_what_is_held()
        else:
            raise self._failed(response)

    def _make_chunks_smaller(self, divisor: int) -> bool:
        smaller = max(self._chunk_bytes // divisor, LEAST_CHUNK_BYTES)
        self._chunk_bytes, before = smaller, self._chunk_bytes
        return smaller < before

    def _ask_what_is_held(self) -> None:
        stream = self._client.open("GET", self._session, "pull,push")
        response = self._client.raise_if_transient(stream.response())
        if not response.ok:
            raise self._lost(response)
        self._continue_at(response, otherwise=self.held)

    def _continue_at(self, response: Response, *, otherwise: int) -> None:
        """Take over what the server says that it holds, and where the next request of the session goes."""
        self._session = self._client.location(response).partition("#")[0] or self._session
        held = _HELD.fullmatch(response.headers.get("Range", "").strip())
        # Servers say `0-0` for nothing too; if it was one byte, the next chunk is refused and another session begins.
        self.held = otherwise if held is None else int(held[1]) + 1 if int(held[1]) else 0
        if self.held > self._descriptor.size:
            raise self._lost(response)

    def _failed(self, response: Response) -> StoreError | TransientError:
        codes = response.error_codes()
        if codes & {"DIGEST_INVALID", "SIZE_INVALID"}:
            return BlobCorruptError(
                f"{self._client.label} refuses {self._descriptor.digest}: the bytes sent do not match it",
                hint="the copy here is damaged: restore it from another copy",
            )
        if response.status in _SESSION_LOST or codes & _LOST_CODES:
            return self._lost(response)
        if response.status in _NOT_WHOLE and self._may_chunk and not self.in_chunks:
            self._refusal, self._broken = self._client.unexpected(response), BROKEN_PUTS
            return TransientError(self._refusal, delay_s=0.0)
        return self._refusal or self._client.unexpected(response)

    def _lost(self, response: Response) -> TransientError:
        self._session, self.held = "", 0
        return TransientError(self._refusal or self._client.unexpected(response))


def _is_broken(failure: TransientError) -> bool:
    """Return whether a request broke, not just came at the wrong time: such a failure says when to come again."""
    return failure.asked_s is None and failure.delay_s is None
