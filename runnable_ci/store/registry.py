"""A repository of a remote OCI registry as a `Target`. Source: OCI distribution-spec v1.1.

A registry is not trusted: sizes and digests of what it sends are checked, and where it leads to (redirects, upload
locations, next pages) is checked before going there.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, Literal, cast
from urllib.parse import urlsplit

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RegistryProtocolError,
    UsageError,
)
from runnable_ci.store.auth import Actions, Advice
from runnable_ci.store.blobs import BlobStream, Upload
from runnable_ci.store.client import Client
from runnable_ci.store.reference import Credentials, Reference, parse_reference
from runnable_ci.store.target import (
    DIGEST,
    INDEX_MEDIA_TYPES,
    MANIFEST_MAX_BYTES,
    MANIFEST_MEDIA_TYPES,
    TAG,
    Descriptor,
    read_manifest,
)
from runnable_ci.util.http import READ_TIMEOUT_S, Stream
from runnable_ci.util.responses import TRIES, Response, TransientError
from runnable_ci.util.urls import safe_url

MOST_TAGS = 100_000
TAGS_A_PAGE = 1000
TAGS_PAGE_MAX_BYTES = 16 * 1024 * 1024
# What even slow storage takes in after the last byte was sent: a registry answers a PUT only then.
STORED_BYTES_A_SECOND = 4 * 1024 * 1024
DELETE_NOT_ENABLED = (
    "enable it there (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true), or use the registry's own interface"
)
NEXT_LINK = re.compile(r"<([^<>]{1,2000})>\s*;[^,]*\brel=\"?next\"?", re.IGNORECASE)


class Registry:
    """One repository (`ghcr.io/owner/repo/runs`); safe to share between threads.

    `credentials` are for this registry only; without them docker's configuration and (for ghcr.io) `GITHUB_TOKEN` in
    `environ` are asked, at the first challenge. Proxies and certificate authorities come from `environ` too. Plain HTTP
    is used for this machine only, or with `plain_http`. A server that is silent for `timeout_s` is given up. The error
    of one that refuses us has `advice`.
    Raises `UsageError` for what is not a repository.
    """

    takes_whole_only: Literal[True] = True

    def __init__(
        self,
        repository: str | Reference,
        *,
        environ: Mapping[str, str],
        credentials: Credentials | None = None,
        plain_http: bool = False,
        connections: int = 16,
        timeout_s: float = READ_TIMEOUT_S,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        advice: Advice | None = None,
    ) -> None:
        where = repository if isinstance(repository, Reference) else parse_reference(repository)
        if isinstance(repository, str) and where.reference is not None:
            raise UsageError(f"{repository} names one manifest, not a repository", hint=f"use {where.repository}")
        self._client = Client(
            where,
            environ=environ,
            credentials=credentials,
            plain_http=plain_http,
            connections=connections,
            timeout_s=timeout_s,
            clock=clock,
            sleep=sleep,
            advice=advice,
        )
        self.plain_http = plain_http
        """Whether plain HTTP is allowed on any machine."""
        self.advice = advice
        """What to do should it refuse us, where that is not the usual."""
        self._manifest: tuple[str, bytes] | None = None

    @property
    def label(self) -> str:
        """The repository as its user writes it."""
        return self._client.label

    def resolve(self, reference: str, *, to_write: bool = False, tries: int = TRIES) -> Descriptor:
        """Return the manifest that a tag or digest points to, by one request.

        Raises `ManifestNotFoundError`, `StoreError`.

        With `to_write` the right to push is asked for at once: ghcr.io lets nobody look into a package that there is
        not yet, except who may make it.
        """
        if not TAG.fullmatch(reference) and not DIGEST.fullmatch(reference):
            raise UsageError(f"{reference[:200]!r} is neither a tag nor a sha256 digest")
        actions: Actions = "pull,push" if to_write else "pull"
        path = f"manifests/{reference}"
        response = self._client.request("HEAD", path, actions, headers=_ACCEPT_MANIFESTS, tries=tries)
        self._require_found(response, reference)
        media_type = _manifest_type(response, self.label)
        digest, size = response.headers.get("Docker-Content-Digest", ""), response.headers.get("Content-Length", "")
        if not digest or not size.isdecimal():
            digest, size = self._measured(reference)
        if DIGEST.fullmatch(reference) and digest != reference:
            raise BlobCorruptError(f"{self.label} returned {digest[:100]!r} for {reference}")
        if int(size[:20]) > MANIFEST_MAX_BYTES:
            raise BlobCorruptError(f"the manifest {reference} in {self.label} is larger than 4 MiB; it was not used")
        return Descriptor(media_type, digest, int(size))

    def tags(self) -> Iterator[str]:
        """Yield all tags, page by page; none where the repository does not exist (yet)."""
        url, seen = f"tags/list?n={TAGS_A_PAGE}", set[str]()
        while url:
            response = self._client.request("GET", url, "pull", at_most=TAGS_PAGE_MAX_BYTES)
            if response.status == 404:
                return
            self._client.require_ok(response)
            before = len(seen)
            for tag in _tags_in(response, self.label):
                if tag not in seen:
                    seen.add(tag)
                    yield tag
            url = self._next_page(response)
            if url and (len(seen) == before or len(seen) > MOST_TAGS):
                raise RegistryProtocolError(f"the tag list of {self.label} does not end ({len(seen)} tags read)")

    def exists(self, descriptor: Descriptor) -> bool:
        """Return whether the registry says that it holds the content, by one request."""
        # A registry leads to its storage only for what is there, and the storage's signed URLs may be for GET alone.
        response = self._client.request("HEAD", _path(descriptor), "pull", headers=_accept(descriptor), follow=False)
        if response.status == 404 or 300 <= response.status < 400:
            return response.status != 404
        self._client.require_ok(response)
        return response.headers.get("Content-Length", str(descriptor.size)) == str(descriptor.size)

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """Return the content as a stream that takes up a lost connection where it broke; `seek(n)` starts at byte n.

        Raises `BlobMissingError`. The bytes are unchecked: read them through `verified`.
        """
        stream = BlobStream(
            lambda start: self._opened(descriptor, start), descriptor, label=self.label, sleep=self._client.sleep
        )
        stream.open()
        return cast("BinaryIO", stream)

    def push(self, descriptor: Descriptor, content: BinaryIO) -> None:
        """Store a blob (whose digest the registry checks before it takes it in), or a manifest under its digest.

        A try that fails is repeated from where `content` stands now, if it can `seek`.
        Raises `BlobCorruptError` where `content` does not match, `StoreError`.
        """
        if descriptor.media_type in MANIFEST_MEDIA_TYPES:
            body = read_manifest(content, descriptor, label="what is to be pushed")
            self._put_manifest(descriptor, body, descriptor.digest)
            self._manifest = (descriptor.digest, body)
            return
        upload = Upload(content, descriptor)
        self._client.retry(lambda: self._upload(descriptor, upload), tries=TRIES if upload.repeatable else 1)

    def tag(self, descriptor: Descriptor, reference: str) -> None:
        """Point a tag to a stored manifest. Registries have no compare-and-swap: the last wins."""
        if not TAG.fullmatch(reference):
            raise UsageError(f"{reference[:200]!r} is not a tag", hint="letters, digits, `_`, `.`, `-`; at most 128")
        if self._manifest is None or self._manifest[0] != descriptor.digest:
            with self.fetch(descriptor) as source:
                self._manifest = (descriptor.digest, read_manifest(source, descriptor, label=self.label))
        self._put_manifest(descriptor, self._manifest[1], reference)

    def delete(self, descriptor: Descriptor) -> None:
        """Remove a manifest and every tag that points to it; its blobs go with the registry's garbage collection.

        Not all registries allow it (ghcr.io does not, but GitHub's API does): `RegistryProtocolError`. No effect where
        it is not there.
        """
        response = self._client.request("DELETE", f"manifests/{descriptor.digest}", "pull,push,delete")
        if response.status in (405, 501) or "UNSUPPORTED" in response.error_codes():
            host = self.label.partition("/")[0]
            raise RegistryProtocolError(
                f"{host} does not allow manifests to be deleted (status {response.status})",
                hint=DELETE_NOT_ENABLED,
            )
        if response.status not in (404, 410):
            self._client.require_ok(response)

    def _require_found(self, response: Response, reference: str) -> None:
        if response.status == 404:
            raise ManifestNotFoundError(f"{self.label} has no {reference}")
        self._client.require_ok(response)

    def _measured(self, reference: str) -> tuple[str, str]:
        """Return digest and size of a manifest, for a registry whose HEAD does not tell."""
        response = self._client.request(
            "GET", f"manifests/{reference}", "pull", headers=_ACCEPT_MANIFESTS, at_most=MANIFEST_MAX_BYTES + 1
        )
        self._require_found(response, reference)
        return f"sha256:{hashlib.sha256(response.body).hexdigest()}", str(len(response.body))

    def _opened(self, descriptor: Descriptor, start: int) -> Stream:
        headers = _accept(descriptor) | ({"Range": f"bytes={start}-{descriptor.size - 1}"} if start else {})
        stream = self._client.open("GET", _path(descriptor), "pull", headers=headers)
        if 200 <= stream.status < 300:
            return stream
        response = self._client.raise_if_transient(stream.response())
        if response.status == 404:
            raise BlobMissingError(
                f"{self.label} does not hold {descriptor.digest}", hint="copy it there from a store that has it"
            )
        raise self._client.unexpected(response)

    def _upload(self, descriptor: Descriptor, upload: Upload) -> None:
        """Try once. A single PUT, as some registries take no chunks and others none of more than 4 MiB."""
        stream = self._client.open("POST", "blobs/uploads/", "pull,push", headers={"Content-Length": "0"})
        begun = self._client.raise_if_transient(stream.response())
        self._client.require_ok(begun)
        if begun.status == 201:
            return
        stream = self._client.open(
            "PUT",
            self._upload_url(begun, descriptor),
            "pull,push",
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(descriptor.size)},
            body=upload.body(),
            longer_s=descriptor.size / STORED_BYTES_A_SECOND,
        )
        response = self._client.raise_if_transient(stream.response())
        if response.ok:
            return
        codes = response.error_codes()
        if codes & {"DIGEST_INVALID", "SIZE_INVALID"}:
            raise BlobCorruptError(
                f"{self.label} refuses {descriptor.digest}: the bytes sent do not match it",
                hint="the copy here is damaged: restore it from another copy",
            )
        error = self._client.unexpected(response)
        # The upload's session was lost. ghcr.io says BLOB_UNKNOWN.
        if codes & {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UNKNOWN"}:
            raise TransientError(error)
        raise error

    def _upload_url(self, begun: Response, descriptor: Descriptor) -> str:
        url = self._client.location(begun).partition("#")[0]
        if not url:
            raise RegistryProtocolError(f"{self.label} starts an upload without a location")
        return f"{url}{'&' if '?' in url else '?'}digest={descriptor.digest}"

    def _put_manifest(self, descriptor: Descriptor, body: bytes, reference: str) -> None:
        headers = {"Content-Type": descriptor.media_type}
        response = self._client.request("PUT", f"manifests/{reference}", "pull,push", headers=headers, body=body)
        if response.error_codes() & {"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"}:
            raise BlobMissingError(
                f"{self.label} lacks a blob of the manifest {descriptor.digest}", hint="copy the manifest there again"
            )
        self._client.require_ok(response)
        stored = response.headers.get("Docker-Content-Digest", descriptor.digest)
        if stored != descriptor.digest:
            raise RegistryProtocolError(f"{self.label} stored {stored[:100]!r} instead of {descriptor.digest}")

    def _next_page(self, response: Response) -> str:
        link = NEXT_LINK.search(response.headers.get("Link", "")[:8192])
        if link is None:
            return ""
        url = self._client.join(response.url, link[1])
        if not self._client.is_ours(url) or urlsplit(url).path != urlsplit(response.url).path:
            raise RegistryProtocolError(f"the tag list of {self.label} points to another server, {safe_url(url)}")
        return url


_ACCEPT_MANIFESTS = {"Accept": ", ".join((*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES))}


def _path(descriptor: Descriptor) -> str:
    return f"{'manifests' if _accept(descriptor) else 'blobs'}/{descriptor.digest}"


def _accept(descriptor: Descriptor) -> dict[str, str]:
    is_manifest = descriptor.media_type in (*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES)
    return {"Accept": descriptor.media_type} if is_manifest else {}


def _manifest_type(response: Response, label: str) -> str:
    media_type: str = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type not in (*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES):
        raise RegistryProtocolError(
            f"{label} returned {media_type[:80]!r} instead of a manifest", hint="is it an OCI registry?"
        )
    return media_type


def _tags_in(response: Response, label: str) -> list[str]:
    try:
        tags = json.loads(response.body)["tags"] or []
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegistryProtocolError(f"the tag list of {label} cannot be read", hint="is it an OCI registry?") from error
    if not isinstance(tags, list) or not all(isinstance(tag, str) and TAG.fullmatch(tag) for tag in tags):
        raise RegistryProtocolError(f"the tag list of {label} holds what is not a tag")
    return tags
