"""A repository of a remote OCI registry as a `Target`. Source: OCI distribution-spec v1.1.

A registry is not trusted: sizes and digests of what it sends are checked, and where it leads to (redirects, upload
locations) is checked before going there.

Nor are two registries alike, so one rule: any 2xx is success, a header that is missing, zero or odd is measured, and
where an optimisation is refused (a HEAD, a range) the plain request is made.
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import BinaryIO, Literal, cast

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    ManifestRefusedError,
    RegistryProtocolError,
    StoreError,
    UsageError,
)
from runnable_ci.store.auth import Actions, Advice
from runnable_ci.store.blobs import BlobStream, begins_at
from runnable_ci.store.client import API_HEADER, Client
from runnable_ci.store.reference import Credentials, Reference, parse_reference
from runnable_ci.store.tag_pages import TAGS_A_PAGE, listed_in, next_page
from runnable_ci.store.target import (
    DIGEST,
    INDEX_MEDIA_TYPES,
    MANIFEST_ELEMENTS_MAX,
    MANIFEST_MAX_BYTES,
    MANIFEST_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPES,
    TAG,
    Descriptor,
    read_manifest,
)
from runnable_ci.store.uploads import Uploads
from runnable_ci.util.bounded_json import parse_json
from runnable_ci.util.http import MOST_REDIRECTS, READ_TIMEOUT_S, Stream
from runnable_ci.util.network.waiting import Waiting
from runnable_ci.util.responses import TRIES, Response

MOST_TAGS = 100_000
SMALLER_PAGE = 1000
"""For registries that refuse more, such as GitLab's; others send as many as they like."""
TAGS_PAGE_MAX_BYTES = 16 * 1024 * 1024
DELETE_NOT_ENABLED = (
    "enable it there (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true), or use the registry's own interface"
)
MISSING = "copy it there from a store that has it"
WRITTEN_IS_THERE_S = 1.0
BLOB_MAX_BYTES = 4 * 1024**3
KINDS = re.compile(r"(media|artifact|config)[ _-]?type|UNSUPPORTED", re.IGNORECASE)


class Registry:
    """One repository (`ghcr.io/owner/repo/runs`); safe to share between threads.

    `credentials` are for this registry only; without them docker's configuration and (for ghcr.io) `GITHUB_TOKEN` in
    `environ` are asked, at the first challenge. Proxies and certificate authorities come from `environ` too. Plain HTTP
    is used for this machine only, or with `plain_http`. A server that is silent for `timeout_s` is given up; before
    that `waiting` says for whom we wait, by default on stderr. The error of one that refuses us has `advice`.
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
        waiting: Waiting | None = None,
        blob_max_bytes: int = BLOB_MAX_BYTES,
    ) -> None:
        where = repository if isinstance(repository, Reference) else parse_reference(repository)
        if isinstance(repository, str) and where.reference is not None:
            raise UsageError(f"{repository} names one manifest, not a repository", hint=f"use {where.repository}")
        login = partial(Client, where, environ=environ, credentials=credentials, plain_http=plain_http, advice=advice)
        self._connect = partial(
            login, connections=connections, timeout_s=timeout_s, clock=clock, sleep=sleep, waiting=waiting
        )
        self._client = self._connect()
        self.plain_http = plain_http
        """Whether plain HTTP is allowed on any machine."""
        self.advice = advice
        """What to do should it refuse us, where that is not the usual."""
        self.blob_max_bytes = blob_max_bytes
        """A larger blob is to be sent in pieces."""
        self._uploads = Uploads(self._client)
        self._manifest: tuple[str, bytes] | None = None

    @property
    def label(self) -> str:
        """The repository as its user writes it."""
        return self._client.label

    def resolve(self, reference: str, *, to_write: bool = False, tries: int = TRIES) -> Descriptor:
        """Return the manifest that a tag or digest points to, by one request, or two where HEAD does not tell.

        Raises `ManifestNotFoundError`, `StoreError`.

        With `to_write` the right to push is asked for at once: ghcr.io lets nobody look into a package that there is
        not yet, except who may make it.
        """
        if not TAG.fullmatch(reference) and not DIGEST.fullmatch(reference):
            raise UsageError(f"{reference[:200]!r} is neither a tag nor a sha256 digest")
        actions: Actions = "pull,push" if to_write else "pull"
        path = f"manifests/{reference}"
        response = self._client.request("HEAD", path, actions, headers=_ACCEPT_MANIFESTS, tries=tries)
        if response.status == 401 or (response.status == 404 and _is_of_registry(response)):
            self._require_found(response, reference)
        found = _announced(response) or self.manifest(reference, actions=actions, tries=tries)[0]
        if DIGEST.fullmatch(reference) and found.digest != reference:
            raise BlobCorruptError(f"{self.label} returned {found.digest} for {reference}")
        if found.size > MANIFEST_MAX_BYTES:
            raise _too_large(reference, self.label)
        return found

    def manifest(self, reference: str, *, actions: Actions = "pull", tries: int = TRIES) -> tuple[Descriptor, bytes]:
        """Return the manifest that a tag or digest points to, and its bytes, by one request; raises as `resolve`."""
        response = self._client.request(
            "GET",
            f"manifests/{reference}",
            actions,
            headers=_ACCEPT_MANIFESTS,
            at_most=MANIFEST_MAX_BYTES + 1,
            tries=tries,
        )
        self._require_found(response, reference)
        digest, size = hashlib.sha256(response.body).hexdigest(), len(response.body)
        if size > MANIFEST_MAX_BYTES:
            raise _too_large(reference, self.label)
        return Descriptor.of_hash(digest, size, _measured_type(response, self.label)), response.body

    def tags(self) -> Iterator[str]:
        """Yield all tags, page by page; none where the repository does not exist (yet). What is no tag is left out."""
        path, seen = f"tags/list?n={TAGS_A_PAGE}", set[str]()
        while path:
            response = self._client.request("GET", path, "pull", at_most=TAGS_PAGE_MAX_BYTES)
            if response.status == 400 and path == f"tags/list?n={TAGS_A_PAGE}":
                path = f"tags/list?n={SMALLER_PAGE}"
                continue
            if response.status == 404:
                return
            if response.status in (405, 501):
                raise RegistryProtocolError(
                    f"{self.label} does not list its tags (status {response.status})",
                    hint="name the run by its id, its writer's tag or its digest",
                )
            self._client.require_ok(response)
            before, listed = len(seen), listed_in(response, self.label)
            for tag in listed:
                if tag not in seen:
                    seen.add(tag)
                    if TAG.fullmatch(tag):
                        yield tag
            path = next_page(response, listed[-1] if listed else "")
            if path and (len(seen) == before or len(seen) > MOST_TAGS):
                raise RegistryProtocolError(f"the tag list of {self.label} does not end ({len(seen)} tags read)")

    def exists(self, descriptor: Descriptor) -> bool:
        """Return whether the registry says that it holds the content, by one request.

        Where HEAD is refused it is False: content that is sent again does no harm.
        """
        # A registry leads to its storage only for what is there, and the storage's signed URLs may be for GET alone.
        response = self._client.request("HEAD", _path(descriptor), "pull", headers=_accept(descriptor), follow=False)
        for _ in range(MOST_REDIRECTS):  # a gateway before the registry may lead on to it, for what is absent too
            if not 300 <= response.status < 400 or not self._client.is_ours(where := self._client.location(response)):
                break
            response = self._client.request("HEAD", where, "pull", headers=_accept(descriptor), follow=False)
        if not response.ok:
            return 300 <= response.status < 400
        if response.headers.get("Content-Length", "") == str(descriptor.size):
            return True
        return self._client.retry(lambda: self._measured_size(descriptor)) == str(descriptor.size)

    def fetch(self, descriptor: Descriptor) -> BinaryIO:
        """Return the content as a stream that takes up a lost connection where it broke; `seek(n)` starts at byte n.

        Raises `BlobMissingError`. The bytes are unchecked: read them through `verified`, those of a manifest through
        `read_manifest`, as they come whole whatever size was announced.
        """
        if _accept(descriptor):
            return io.BytesIO(self._manifest_bytes(descriptor))
        stream = BlobStream(
            lambda start: self._opened(descriptor, start), descriptor, label=self.label, sleep=self._client.sleep
        )
        stream.open()
        return cast("BinaryIO", stream)

    def push(self, descriptor: Descriptor, content: BinaryIO) -> None:
        """Store a blob (whose digest the registry checks before it takes it in), or a manifest under its digest.

        A try that fails is repeated if `content` can `seek`.
        Raises `BlobCorruptError` where `content` does not match, `StoreError`.
        """
        if descriptor.media_type in MANIFEST_MEDIA_TYPES:
            body = read_manifest(content, descriptor, label="what is to be pushed")
            self._put_manifest(descriptor, body, descriptor.digest)
            self._manifest = (descriptor.digest, body)
            return
        self._uploads.send(descriptor, content)

    def tag(self, descriptor: Descriptor, reference: str, manifest: bytes | None = None) -> None:
        """Point a tag to a stored manifest, or to the one that is given. No compare-and-swap: the last wins."""
        if not TAG.fullmatch(reference):
            raise UsageError(f"{reference[:200]!r} is not a tag", hint="letters, digits, `_`, `.`, `-`; at most 128")
        if manifest is not None:
            self._manifest = (descriptor.digest, manifest)
        elif self._manifest is None or self._manifest[0] != descriptor.digest:
            with self.fetch(descriptor) as source:
                self._manifest = (descriptor.digest, read_manifest(source, descriptor, label=self.label))
        self._put_manifest(descriptor, self._manifest[1], reference)

    def now_s(self) -> float:
        """Return the registry's clock, as far as its last answer tells; in seconds since 1970."""
        return self._client.server_now_s()

    def be_silent(self) -> None:
        """Say nothing from now on of waiting for the registry."""
        self._client.be_silent()

    def mount(self, blobs: Collection[Descriptor], source: Reference) -> list[Descriptor]:
        """Have blobs taken over from another repository of this registry; return those for which that was possible."""
        return Uploads(self._connect(mounts_from=source.path)).mount(blobs, source.path)

    def give_up_after(self, silent_s: float) -> None:
        """From now on give a server up that is silent for so long."""
        self._client.give_up_after(silent_s)

    def require_writable(self, *, tries: int = TRIES) -> None:
        """Raise what the first `push` of a blob would, before there is one."""
        self._uploads.require_allowed(tries=tries)

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

    def _measured_size(self, descriptor: Descriptor) -> str:
        """Return how long a download announces to be; as long as expected where it does not say, nothing if refused."""
        with closing(self._client.open("GET", _path(descriptor), "pull", headers=_accept(descriptor))) as stream:
            if 200 <= stream.status < 300:
                return stream.headers.get("Content-Length", "") or str(descriptor.size)
            return ""

    def _manifest_bytes(self, descriptor: Descriptor) -> bytes:
        def ask() -> Response:
            headers, path = _accept(descriptor), _path(descriptor)
            return self._client.request("GET", path, "pull", headers=headers, at_most=MANIFEST_MAX_BYTES + 1)

        response = ask()
        if response.status == 404:  # where copies of a registry agree late, what was just written is there in a moment
            self._client.sleep(WRITTEN_IS_THERE_S)
            response = ask()
        if response.status == 404:
            raise BlobMissingError(f"{self.label} does not hold {descriptor.digest}", hint=MISSING)
        self._client.require_ok(response)
        return response.body

    def _opened(self, descriptor: Descriptor, start: int) -> Stream:
        if start:
            headers = {"Range": f"bytes={start}-{descriptor.size - 1}"}
            stream = self._client.open("GET", _path(descriptor), "pull", headers=_accept(descriptor) | headers)
            if 200 <= stream.status < 300 and begins_at(stream) == (start if stream.status == 206 else 0):
                return stream
            self._client.raise_if_transient(stream.response())
        stream = self._client.open("GET", _path(descriptor), "pull", headers=_accept(descriptor))
        if 200 <= stream.status < 300:
            return stream
        response = self._client.raise_if_transient(stream.response())
        if response.status == 404:
            raise BlobMissingError(f"{self.label} does not hold {descriptor.digest}", hint=MISSING)
        raise self._client.unexpected(response)

    def _points_to(self, reference: str, digest: str) -> bool:
        """Return whether a manifest was stored, whatever was answered to its PUT."""
        try:
            return self.manifest(reference, actions="pull,push")[0].digest == digest
        except StoreError:
            return False

    def _put_manifest(self, descriptor: Descriptor, body: bytes, reference: str) -> None:
        headers = {"Content-Type": descriptor.media_type}
        response = self._client.request("PUT", f"manifests/{reference}", "pull,push", headers=headers, body=body)
        if response.error_codes() & {"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"}:
            raise BlobMissingError(
                f"{self.label} lacks a blob of the manifest {descriptor.digest}", hint="copy the manifest there again"
            )
        if _refuses_kind(response):
            error = self._client.unexpected(response)
            raise ManifestRefusedError(error.message, hint="it takes no artifacts of this kind: ask its operator")
        if response.status != 409 or not self._points_to(reference, descriptor.digest):
            self._client.require_ok(response)
        stored = response.headers.get("Docker-Content-Digest", "")
        if DIGEST.fullmatch(stored) and stored != descriptor.digest:  # in another algorithm it says nothing to us
            raise RegistryProtocolError(f"{self.label} stored {stored} instead of {descriptor.digest}")


_ACCEPT_MANIFESTS = {"Accept": ", ".join((*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES))}


def _too_large(reference: str, label: str) -> BlobCorruptError:
    return BlobCorruptError(f"the manifest {reference} in {label} is larger than 4 MiB; it was not used")


def _path(descriptor: Descriptor) -> str:
    return f"{'manifests' if _accept(descriptor) else 'blobs'}/{descriptor.digest}"


def _accept(descriptor: Descriptor) -> dict[str, str]:
    is_manifest = descriptor.media_type in (*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES)
    return {"Accept": descriptor.media_type} if is_manifest else {}


def _is_of_registry(response: Response) -> bool:
    """Return whether an error may be a registry's own, not the page of a server before it which knows no HEAD."""
    media_type = response.headers.get("Content-Type", "json")
    return "json" in media_type or API_HEADER in response.headers


def _refuses_kind(response: Response) -> bool:
    """Return whether a manifest was refused for what it is: some registries take only the types that they know."""
    if response.status not in (400, 403, 415, 422):
        return False
    said = response.body[:10_000].decode("utf-8", "replace")
    return response.status == 415 or "MANIFEST_INVALID" in response.error_codes() or bool(KINDS.search(said))


def _is_size(text: str) -> bool:
    return text.isdecimal() and len(text) < 20 and int(text) > 0


def _media_type(response: Response) -> str:
    media_type: str = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type if media_type in (*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES) else ""


def _announced(response: Response) -> Descriptor | None:
    """Return the manifest that a HEAD tells of, None where it tells not enough or what cannot be."""
    digest, size = response.headers.get("Docker-Content-Digest", ""), response.headers.get("Content-Length", "")
    media_type = _media_type(response)
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    if not response.ok or not media_type or not DIGEST.fullmatch(digest) or not _is_size(size) or encoded:
        return None
    return Descriptor(media_type, digest, int(size))


def _measured_type(response: Response, label: str) -> str:
    """Return the type of a manifest: what it says itself, else what the header says, else what its fields tell."""
    try:
        parsed = parse_json(response.body, elements_max=MANIFEST_ELEMENTS_MAX)
        own = parsed.get("mediaType") or _media_type(response)
        if not own and "config" in parsed and "layers" in parsed:
            own = MANIFEST_MEDIA_TYPE
    except (ValueError, AttributeError):
        own = _media_type(response)
    if own not in (*MANIFEST_MEDIA_TYPES, *INDEX_MEDIA_TYPES):
        stated = own or response.headers.get("Content-Type", "")
        raise RegistryProtocolError(
            f"{label} returned {str(stated)[:80]!r} instead of a manifest", hint="is it an OCI registry?"
        )
    return str(own)
