"""How blobs are sent to servers that take no whole ones, lose sessions, or break connections."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from deviations import CUT, UPLOAD, coded, no_whole_upload
from registry_server import Reply, Seen, Served, Server, described, registry, serving

from runnable_ci.errors import BlobCorruptError, StoreError
from runnable_ci.store import uploads
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import verified
from runnable_ci.util.responses import TRIES

Forward = Callable[[], Reply]
CHUNK = 128 * 1024
CONTENT = os.urandom(10 * CHUNK + 7)
BLOB = described(CONTENT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "CHUNK_BYTES", CHUNK)


def target_at(server: Server) -> Registry:
    return Registry(server.repository(), environ={}, sleep=lambda _: None)


def stored(target: Registry) -> bytes:
    with target.fetch(BLOB) as content:
        return b"".join(verified(content, BLOB, label="the registry"))


def chunks(server: Server) -> list[int]:
    return [len(seen.body) for seen in server.seen if seen.method == "PATCH"]


def test_a_server_that_takes_no_whole_blob_gets_chunks_from_then_on(plain: Served) -> None:
    """The refusal is met once; the next blob goes in chunks at once, and small ones too."""
    with serving(no_whole_upload(Reply(413))(), upstream=plain) as server:
        target = target_at(server)
        target.push(BLOB, io.BytesIO(CONTENT))
        assert stored(target) == CONTENT
        assert chunks(server) == [CHUNK] * 10 + [7]
        before = sum(seen.method == "PUT" and bool(seen.body) for seen in server.seen)
        other = os.urandom(1000)
        target.push(described(other), io.BytesIO(other))
        assert before == sum(seen.method == "PUT" and bool(seen.body) for seen in server.seen) == 1


def test_a_small_blob_goes_whole_where_only_large_ones_are_refused(plain: Served) -> None:
    """A server with a limit still gets what is below it by one PUT, as long as none was refused."""
    with serving(no_whole_upload(Reply(413), most_bytes=1000)(), upstream=plain) as server:
        target = target_at(server)
        target.push(described(b"small"), io.BytesIO(b"small"))
        assert chunks(server) == []


@pytest.mark.parametrize("is_stored", [True, False])
def test_an_upload_resumes_from_what_the_server_holds(plain: Served, is_stored: bool) -> None:
    """Connections that break again and again cost the chunk under way, and the upload ends however often that is."""
    cuts, unanswered = iter(range(1000)), [""]

    def hook(seen: Seen, forward: Forward) -> Reply:
        if UPLOAD in seen.path and seen.method == "PUT" and seen.body:
            return Reply(501)
        if seen.method == "PATCH" and next(cuts) % 2:
            if is_stored:
                unanswered[0] = forward().headers["Location"]
            return CUT
        if seen.method == "GET" and UPLOAD in seen.path and unanswered[0]:
            # docker-registry would end a session that holds more than its URL says, which others do not
            return server.forward(replace(seen, path=unanswered[0].partition(server.host)[2]))
        return forward()

    with serving(hook, upstream=plain) as server:
        target = target_at(server)
        target.push(BLOB, io.BytesIO(CONTENT))
        assert stored(target) == CONTENT
        assert server.count("POST") == 2  # of the whole, and one session for all chunks
        assert len(chunks(server)) > 10
        assert sum(chunks(server)) <= (1 if is_stored else 2) * len(CONTENT) + CHUNK


def test_uploads_that_always_break_go_in_ever_smaller_chunks(plain: Served) -> None:
    """A server that ends each long request ends two of a whole blob, and then a few chunks of less and less."""
    hook = no_whole_upload(CUT, most_bytes=90_000, most_chunk_bytes=90_000)()
    with serving(hook, upstream=plain) as server:
        target = target_at(server)
        target.push(BLOB, io.BytesIO(CONTENT))
        assert stored(target) == CONTENT
        assert sum(seen.method == "PUT" and bool(seen.body) for seen in server.seen) == 2
        assert chunks(server)[:2] == [CHUNK, 64 * 1024]


def test_a_server_that_wants_larger_chunks_gets_them(plain: Served) -> None:
    """Storage may have a least size for each part but the last."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        if UPLOAD in seen.path and seen.method == "PUT" and seen.body:
            return Reply(413)
        reply = forward()
        if seen.method == "POST":
            return Reply(reply.status, {**reply.headers, "OCI-Chunk-Min-Length": str(3 * CHUNK)}, reply.body)
        return reply

    with serving(hook, upstream=plain) as server:
        target_at(server).push(BLOB, io.BytesIO(CONTENT))
        assert chunks(server) == [3 * CHUNK] * 3 + [CHUNK + 7]


@pytest.mark.parametrize(
    ("chunk_reply", "words"),
    [
        (Reply(405), "too large"),
        (Reply(413), "too large"),
        (coded(404, "BLOB_UPLOAD_UNKNOWN"), "too large"),
        (CUT, "closed"),
    ],
)
def test_a_server_that_takes_neither_is_given_up(plain: Served, chunk_reply: Reply, words: str) -> None:
    """Where no chunk is taken either, the refusal of the whole is the error; and the tries are few."""

    def hook(seen: Seen, forward: Forward) -> Reply:
        if UPLOAD in seen.path and seen.method == "PUT" and seen.body:
            return Reply(413)
        return chunk_reply if seen.method == "PATCH" else forward()

    with serving(hook, upstream=plain) as server:
        with pytest.raises(StoreError, match=words):
            target_at(server).push(BLOB, io.BytesIO(CONTENT))
        assert len(server.seen) < 30


def test_a_session_that_is_lost_each_time_ends(plain: Served) -> None:
    """Progress that is lost again is no progress."""
    taken = iter(range(1000))

    def hook(seen: Seen, forward: Forward) -> Reply:
        if UPLOAD in seen.path and seen.method == "PUT" and seen.body:
            return Reply(413)
        if seen.method == "PATCH" and next(taken) % 4 == 3:
            return Reply(404)
        return forward()

    with serving(hook, upstream=plain) as server:
        with pytest.raises(StoreError):
            target_at(server).push(BLOB, io.BytesIO(CONTENT))
        assert server.count("POST") == 1 + TRIES


@pytest.mark.parametrize("fault", ["shorter", "longer", "other"])
def test_chunks_of_a_damaged_copy_are_refused(plain: Served, fault: str) -> None:
    """Chunks are of exactly the bytes that were announced, and the registry checks the digest."""
    wrong = {"shorter": CONTENT[:-1], "longer": CONTENT + b"!", "other": b"!" + CONTENT[1:]}[fault]
    with serving(no_whole_upload(Reply(413))(), upstream=plain) as server:
        target = target_at(server)
        target.push(described(b"first"), io.BytesIO(b"first"))
        with pytest.raises(BlobCorruptError):
            target.push(BLOB, io.BytesIO(wrong))
        assert not target.exists(BLOB)


def test_a_stream_that_cannot_be_read_again_is_sent_once(plain: Served, tmp_path: Path) -> None:
    """There is no second try, and so no chunk, for what cannot be read a second time."""
    read, write = os.pipe()
    os.write(write, b"once")
    os.close(write)
    with serving(no_whole_upload(Reply(413))(), upstream=plain) as server, open(read, "rb") as pipe:
        with pytest.raises(StoreError, match="too large"):
            target_at(server).push(described(b"once"), pipe)
        assert server.count("PUT") == 1
