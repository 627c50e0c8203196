"""Registries that deviate a little, each by one switch: hooks for `serving` before a real registry.

A switch is made anew for each server, as some deviate only once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

from registry_server import Hook, Reply, Seen

Forward = Callable[[], Reply]
Switch = Callable[[], Hook]


def changed(method: str, part: str, change: Callable[[Reply], Reply]) -> Switch:
    """Answers successful requests of a kind otherwise than the registry behind."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        reply = forward()
        fits = re.fullmatch(method, seen.method) and part in seen.path and reply.status < 300
        return change(reply) if fits else reply

    return lambda: hook


def refusing(method: str, part: str, reply: Reply, *, times: int = 1_000_000) -> Switch:
    """Refuses requests of a kind, perhaps only the first ones."""

    def made() -> Hook:
        left = [times]

        def hook(seen: Seen, forward: Forward) -> Reply:
            if re.fullmatch(method, seen.method) and part in seen.path and left[0]:
                left[0] -= 1
                return reply
            return forward()

        return hook

    return made


def headers(**values: str | None) -> Callable[[Reply], Reply]:
    """Other headers; None takes one away."""
    named = {name.replace("_", "-"): value for name, value in values.items()}

    def change(reply: Reply) -> Reply:
        kept = {name: value for name, value in reply.headers.items() if name.title() not in named}
        return replace(reply, headers={**kept, **{name: value for name, value in named.items() if value is not None}})

    return change


def coded(status: int, code: str, message: str = "no") -> Reply:
    """A registry's error."""
    return Reply(status, {"Content-Type": "application/json"}, error(code, message))


def error(code: str, message: str = "no") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def broken_ranges(answer: Callable[[bytes, Reply], Reply]) -> Switch:
    """Breaks each first download of a large blob; the request for its rest is answered by `answer(whole, usual)`."""

    def made() -> Hook:
        broken: dict[str, bytes] = {}

        def hook(seen: Seen, forward: Forward) -> Reply:
            reply = forward()
            if seen.method != "GET" or "/blobs/sha256:" not in seen.path or len(reply.body) < 100_000:
                return reply
            if "Range" in seen.headers:
                return answer(broken[seen.path], reply)
            if seen.path not in broken:
                broken[seen.path] = reply.body
                return replace(reply, cut=50_000)
            return reply

        return hook

    return made


def paged(link: str) -> Switch:
    """Lists two tags a page; the link to the next one is written as `link`, of `{path}`, `{query}` and `{host}`."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        reply = forward()
        if "/tags/list" not in seen.path or reply.status != 200:
            return reply
        parts = urlsplit(seen.path)
        last = parse_qs(parts.query).get("last", [""])[0]
        tags = sorted(json.loads(reply.body)["tags"] or [])
        rest = [tag for tag in tags if tag > last]
        page = Reply(200, {"Content-Type": "application/json"}, json.dumps({"tags": rest[:2]}).encode())
        if len(rest) <= 2:
            return page
        host = seen.headers["Host"]
        where = link.format(path=parts.path, query=f"n=2&last={rest[1]}", host=host)
        return replace(page, headers={"Link": f'<{where}>; rel="next"'})

    return lambda: hook


def immutable_tags(status: int) -> Switch:
    """Lets no tag be moved."""

    def made() -> Hook:
        points_to: dict[str, bytes] = {}

        def hook(seen: Seen, forward: Forward) -> Reply:
            is_tag = "/manifests/" in seen.path and "sha256:" not in seen.path
            if seen.method == "PUT" and is_tag and points_to.setdefault(seen.path, seen.body) != seen.body:
                return coded(status, "TAG_INVALID", "the tag is immutable")
            return forward()

        return hook

    return made


def no_whole_upload(answer: Reply, *, most_bytes: int = 0, most_chunk_bytes: int = 1 << 30) -> Switch:
    """Takes no PUT of more than so many bytes, and no PATCH of more than so many."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        most = {"PUT": most_bytes, "PATCH": most_chunk_bytes}.get(seen.method, 1 << 30)
        return answer if UPLOAD in seen.path and len(seen.body) > most else forward()

    return lambda: hook


def breaking_chunks(answer: Reply, *, when_stored: bool) -> Switch:
    """Takes no PUT of a whole, and answers the first PATCH of each session so, perhaps with its bytes stored."""

    def made() -> Hook:
        begun: set[str] = set()

        def hook(seen: Seen, forward: Forward) -> Reply:
            session = urlsplit(seen.path).path
            if UPLOAD in seen.path and seen.method == "PUT" and seen.body:
                return Reply(413)
            if seen.method == "PATCH" and len(begun) < 3 and session not in begun:
                begun.add(session)
                if when_stored:
                    forward()
                return answer
            return forward()

        return hook

    return made


def only_images(answer: Reply, *, layers_too: bool = False) -> Switch:
    """Takes no manifest but of an image: of its config's type, perhaps of its layers' types too."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        if seen.method == "PUT" and MANIFEST in seen.path:
            manifest = json.loads(seen.body)
            types = {layer["mediaType"] for layer in manifest["layers"]} if layers_too else set[str]()
            is_image = "image.config" in manifest["config"]["mediaType"] and "artifactType" not in manifest
            if not is_image or not types <= {"application/vnd.oci.image.layer.v1.tar"}:
                return answer
        return forward()

    return lambda: hook


def _removed_but_listed() -> Hook:
    """Lists a tag, and resolves it, whose manifest is gone."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        gone = "sha256:" + "9" * 64
        if seen.method == "HEAD" and seen.path.endswith("/manifests/gone"):
            known = {"Content-Type": "application/vnd.oci.image.manifest.v1+json", "Docker-Content-Digest": gone}
            return Reply(200, {**known, "Content-Length": "700"})
        if TAGS in seen.path:
            tags = json.loads(forward().body).get("tags") or []
            return Reply(200, {"Content-Type": "application/json"}, json.dumps({"tags": ["gone", *tags]}).encode())
        return forward()

    return hook


def redirected_puts() -> Hook:
    """Sends each upload on to another address of the same server."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        if seen.method == "PUT" and "/blobs/" in seen.path and "again" not in seen.path:
            return Reply(307, {"Location": f"{seen.path}&again=1"})
        return forward()

    return hook


def redirected_blobs() -> Hook:
    """Sends each look at a blob on to another address of the same server, before it is known whether it is there."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        if seen.method in ("HEAD", "GET") and BLOB in seen.path and "again" not in seen.path:
            return Reply(308, {"Location": f"{seen.path}?again=1"})
        return forward()

    return hook


def late_manifests() -> Hook:
    """Answers the first GET of each manifest that was written by its absence."""
    looked: set[str] = set()

    def hook(seen: Seen, forward: Forward) -> Reply:
        if seen.method == "GET" and f"{MANIFEST}sha256:" in seen.path and seen.path not in looked:
            looked.add(seen.path)
            return coded(404, "MANIFEST_UNKNOWN")
        return forward()

    return hook


def _foreign(reply: Reply) -> Reply:
    tags = json.loads(reply.body)["tags"] or []
    return replace(
        reply,
        headers={"Content-Type": "application/json"},
        body=json.dumps({"tags": ["what/ever", *tags, "..", ""]}).encode(),
    )


def _status(status: int) -> Callable[[Reply], Reply]:
    return lambda reply: replace(reply, status=status)


MANIFEST, BLOB, UPLOAD, TAGS = "/manifests/", "/blobs/sha256:", "/blobs/uploads/", "/tags/list"
CUT = Reply(200, {}, b"x", cut=0)
PAGE = Reply(404, {"Content-Type": "text/html"}, b"<h1>Not Found</h1>")

SWITCHES: Mapping[str, Switch] = {
    "a HEAD of length 0": changed("HEAD", MANIFEST, headers(Content_Length="0")),
    "a HEAD of a blob of length 0": changed("HEAD", BLOB, headers(Content_Length="0")),
    "a HEAD of length 1": changed("HEAD", "/v2/", headers(Content_Length="1")),
    "a GET answered by 206": changed("GET", "/v2/", _status(206)),
    "blobs redirected, there or not": redirected_blobs,
    "each HEAD of a blob led to storage": refusing("HEAD", BLOB, Reply(307, {"Location": "http://127.0.0.1:1/x"})),
    "a HEAD without a digest": changed("HEAD", MANIFEST, headers(Docker_Content_Digest=None)),
    "a sha512 digest in each header": changed(
        "HEAD|GET|PUT", MANIFEST, headers(Docker_Content_Digest=f"sha512:{'0' * 128}")
    ),
    "manifests as application/json": changed("HEAD|GET", MANIFEST, headers(Content_Type="application/json")),
    "manifests as text/plain": changed("HEAD|GET", MANIFEST, headers(Content_Type="text/plain; charset=utf-8")),
    "no HEAD: 405": refusing("HEAD", "/v2/", Reply(405)),
    "no HEAD: 400": refusing("HEAD", "/v2/", Reply(400, {"Docker-Distribution-Api-Version": "registry/2.0"})),
    "no HEAD: 403": refusing("HEAD", "/v2/", Reply(403)),
    "no HEAD: a page": refusing("HEAD", "/v2/", PAGE),
    **{
        f"every success is {status}": changed("PUT|DELETE|PATCH", "/v2/", _status(status))
        for status in (200, 202, 203, 204)
    },
    "an upload begins with 200": changed("POST", UPLOAD, _status(200)),
    **{
        f"ranges answered {status}": broken_ranges(lambda _whole, _reply, status=status: Reply(status))  # type: ignore[misc]
        for status in (400, 403, 416, 501)
    },
    "ranges answered by the whole": broken_ranges(lambda whole, _: Reply(200, {}, whole)),
    "ranges without Content-Range": broken_ranges(lambda _, reply: headers(Content_Range=None)(reply)),
    "ranges of another place": broken_ranges(lambda _, reply: headers(Content_Range="bytes 0-9/300000")(reply)),
    **{
        f"an upload lost: {status} {code}": refusing("PUT", UPLOAD, coded(status, code), times=1)
        for status, code in [(404, "BLOB_UNKNOWN"), (404, "BLOB_UPLOAD_UNKNOWN"), (404, "X"), (410, "X"), (416, "X")]
    },
    "only images: 400": only_images(coded(400, "MANIFEST_INVALID", "manifest invalid")),
    "only images: 415": only_images(Reply(415)),
    "only images: 403": only_images(coded(403, "DENIED", "the config media type is not in the list")),
    "only images and their layers": only_images(coded(400, "MANIFEST_INVALID", "unknown media type"), layers_too=True),
    "uploads sent on by 307": redirected_puts,
    **{f"no upload by one PUT: {status}": no_whole_upload(Reply(status)) for status in (405, 411, 413, 501)},
    "uploads cut beyond 64 KiB": no_whole_upload(CUT, most_bytes=65536, most_chunk_bytes=65536),
    "no chunk over 80 kB: 416": no_whole_upload(Reply(416), most_chunk_bytes=80_000),
    "no chunk over 80 kB: 413": no_whole_upload(Reply(413), most_chunk_bytes=80_000),
    "chunks cut before they are stored": breaking_chunks(CUT, when_stored=False),
    "chunks cut after they are stored": breaking_chunks(CUT, when_stored=True),
    "a session of chunks is lost": breaking_chunks(coded(404, "BLOB_UPLOAD_UNKNOWN"), when_stored=False),
    "a tag of what was removed": _removed_but_listed,
    "a foreign tag": changed("GET", TAGS, _foreign),
    "pages by https": paged("https://{host}{path}?{query}"),
    "pages on another host": paged("http://inside.invalid:5000{path}?{query}"),
    "pages on another path": paged("/artifactory/api/docker{path}?{query}"),
    "pages with a slash": paged("{path}/?{query}"),
    "pages without a query": paged("{path}"),
    **{f"immutable tags: {status}": immutable_tags(status) for status in (400, 403, 405, 409, 412)},
    **{
        f"no list of tags: {status}": refusing("GET", TAGS, coded(status, "DENIED"))
        for status in (401, 403, 404, 405, 501)
    },
    "a manifest is not there at once": late_manifests,
    "409 for a manifest that was stored": changed("PUT", MANIFEST, _status(409)),
}
