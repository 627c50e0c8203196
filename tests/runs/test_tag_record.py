"""What tags point to is recorded beside them: few requests for many runs, and never an answer that is wrong for it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_runs import opened, record, run_tags, sent, store
from registry_server import Reply, Seen, Served, Server, described, registry, serving

from runnable_ci.runs.artifact import ARTIFACT_TYPE, EMPTY_CONFIG
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.listing import list_published, published
from runnable_ci.runs.remote.pull import find, find_newest
from runnable_ci.runs.remote.tag_record import (
    RECORD_MAX_BYTES,
    RECORD_TAG,
    RecordedTag,
    format_record,
    note_tags,
    parse_record,
    read_record,
)
from runnable_ci.runs.remote.writers import EVERYBODY
from runnable_ci.store.content_cache import CONTENT_MAX_BYTES, ContentCache
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE

MANY = 1000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One registry for all tests, each of which has a repository of its own."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def earlier_run(remote: Registry, run_id: str, ended: str) -> tuple[str, RecordedTag]:
    """A run that a version without a record published: its manifest under its two tags."""
    empty = {"mediaType": EMPTY_CONFIG.media_type, "digest": EMPTY_CONFIG.digest, "size": 2}
    notes = {"org.opencontainers.image.title": run_id, "vnd.runnable.ended": ended, "vnd.runnable.identity": run_id}
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": empty,
            "layers": [empty],
            "annotations": notes,
        }
    ).encode()
    manifest = described(raw, MANIFEST_MEDIA_TYPE)
    for tag in (run_id, f"{run_id}--old"):
        remote.tag(manifest, tag, raw)
    return run_id, RecordedTag.of(manifest, notes)


@pytest.fixture(scope="module")
def many(served: Served, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A repository with a thousand runs, all but the newest of an earlier version, and a record of them."""
    remote = opened(served.repository())
    remote.push(EMPTY_CONFIG, io.BytesIO(b"{}"))
    days = [f"2020-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}+00:00" for n in range(MANY - 1)]
    with ThreadPoolExecutor(16) as pool:
        remotes = [opened(remote.label) for _ in range(16)]
        jobs = [pool.submit(earlier_run, remotes[n % 16], f"run-{n:04}", day) for n, day in enumerate(days)]
        entries = dict(job.result() for job in jobs)
    note_tags(remote, {tag: e for name, e in entries.items() for tag in (name, f"{name}--old")}, learn=False)
    here = store(tmp_path_factory.mktemp("newest"))
    record(here, "load", {"a.txt": b"a"}, run_id="newest")
    sent(here, remote, "newest")
    return remote.label


def in_pages(seen: Seen, forward: Callable[[], Reply]) -> Reply:
    """A registry that refuses pages of more than a thousand tags. Source: GitLab docs, "Container Registry API"."""
    if "/tags/list" not in seen.path:
        return forward()
    query = dict(parse_qsl(urlsplit(seen.path).query))
    size = int(query["n"])
    if size > 1000:
        return Reply(400, {}, b'{"errors": [{"code": "PAGINATION_NUMBER_INVALID", "message": "invalid"}]}')
    tags = sorted(json.loads(forward().body)["tags"])
    rest = [tag for tag in tags if tag > query.get("last", "")]
    path = seen.path.partition("?")[0]
    more = {"Link": f'<{path}?n={size}&last={rest[size - 1]}>; rel="next"'} if len(rest) > size else {}
    return Reply(200, more, json.dumps({"name": "r", "tags": rest[:size]}).encode())


def through(front: Server, served: Served, label: str) -> Registry:
    return opened(label.replace(served.host, front.host))


def test_the_newest_of_a_thousand_runs_takes_five_requests(served: Served, many: str, tmp_path: Path) -> None:
    """The tags, the record, the plain tag with its manifest, and the run log; where all is known here, no content."""
    with serving(in_pages, upstream=served) as front:
        remote = through(front, served, many)
        assert find(remote, "latest").log.run_id == "newest"
        assert len(front.seen) == 3 + 4, "a page of ten thousand tags was refused, then three came"
    with serving(upstream=served) as front:
        remote = through(front, served, many)
        layout = store(tmp_path)
        layout.create()
        for asked in (4, 3):
            front.seen.clear()
            assert find(remote, "latest", layout=layout).log.run_id == "newest"
            assert len(front.seen) == asked, [seen.path for seen in front.seen]
        front.seen.clear()
        newest = find_newest(remote, layout, lambda log: log.name == "n", accepted=EVERYBODY)
        assert newest is not None
        assert newest.log.run_id == "newest"
        assert len(front.seen) == 3


def test_a_listing_asks_only_for_what_is_new(served: Served, many: str, tmp_path: Path) -> None:
    """What is known here is not fetched again: the second listing of a thousand runs takes the tags and the record."""
    layout = store(tmp_path)
    layout.create()
    with serving(upstream=served) as front:
        remote = through(front, served, many)
        assert len(list_published(remote, layout)) == MANY
        assert len(front.seen) == MANY + 2
        front.seen.clear()
        assert [run.summary.run_id for run in list_published(remote, layout)][-2:] == ["run-0998", "newest"]
        assert len(front.seen) == 2


def test_a_record_that_lost_updates_is_no_wrong_answer(served: Served, tmp_path: Path) -> None:
    """What others wrote over, or earlier versions published without it, is asked for; the next publish records it."""
    remote = opened(served.repository())
    layout = store(tmp_path)
    for run_id in ("a", "b", "c"):
        record(layout, "load", {"a.txt": run_id.encode()}, run_id=run_id)
        sent(layout, remote, run_id)
        if run_id == "a":
            first = remote.manifest(RECORD_TAG)
    assert {entry.run_id for entry in read_record(remote).values()} == {"a", "b", "c"}
    remote.tag(first[0], RECORD_TAG, first[1])  # as if that of another publish had come last
    assert [run.run_id for run in published(remote)] == ["a", "b", "c"]
    assert find(remote, "latest").log.run_id == "c"
    record(layout, "load", {"a.txt": b"d"}, run_id="d")
    sent(layout, remote, "d")
    assert read_record(remote).keys() == set(run_tags(remote))
    remote.delete(remote.resolve(RECORD_TAG))
    assert find(remote, "latest").log.run_id == "d"


def test_a_tag_that_moved_without_the_record_is_noticed(served: Served, tmp_path: Path) -> None:
    """Who reads the newest run asks for its plain tag; a run that another one has overtaken since is not the newest."""
    remote = opened(served.repository())
    layout = store(tmp_path)
    for run_id in ("a", "b"):
        record(layout, "load", {"a.txt": run_id.encode()}, run_id=run_id)
        sent(layout, remote, run_id)
    kept = remote.manifest(RECORD_TAG)
    record(layout, "again", {"b.txt": b"b"}, run_id="b")
    sent(layout, remote, "b")
    assert {entry.digest for entry in read_record(remote).values() if entry.run_id == "b"} == {
        layout.resolve("b").digest
    }
    remote.tag(kept[0], RECORD_TAG, kept[1])
    assert find(remote, "latest").log == load(layout, "b")
    claims = {tag: replace(entry, written="9999") for tag, entry in read_record(remote).items() if entry.run_id == "a"}
    note_tags(remote, claims, learn=False)
    assert find(remote, "latest").log.run_id == "b"


def test_a_manifest_that_is_gone_is_not_believed(served: Served, tmp_path: Path) -> None:
    """Where a recorded manifest was removed, each tag is asked for."""
    remote = opened(served.repository())
    layout = store(tmp_path)
    record(layout, "load", {"a.txt": b"a"}, run_id="a")
    sent(layout, remote, "a")
    gone = replace(next(iter(read_record(remote).values())), digest=f"sha256:{'0' * 64}", written="9999")
    note_tags(remote, dict.fromkeys(run_tags(remote), gone), learn=False)
    assert [run.run_id for run in published(remote)] == ["a"]
    assert find(remote, "latest").log.run_id == "a"


def test_a_publish_goes_on_without_a_record(served: Served, tmp_path: Path) -> None:
    """A registry that refuses its tag, such as one with immutable tags, takes runs all the same."""

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(409) if seen.method == "PUT" and RECORD_TAG in seen.path else forward()

    with serving(hook, upstream=served) as front:
        remote = opened(front.repository())
        layout = store(tmp_path)
        record(layout, "load", {"a.txt": b"a"}, run_id="a")
        sent(layout, remote, "a")
        assert RECORD_TAG not in set(remote.tags())
        assert find(remote, "latest").log.run_id == "a"


def test_a_cached_content_is_verified(tmp_path: Path, served: Served) -> None:
    """A file of the cache that was changed is fetched again; what is large is not kept, what is old goes first."""
    layout = store(tmp_path)
    layout.create()
    cache = ContentCache.of(layout)
    assert cache is not None
    one, two = described(b"one"), described(b"two!")
    for content in (b"one", b"two!"):
        cache.keep(described(content), content)
    assert (cache.read(one), cache.read(two)) == (b"one", b"two!")
    (layout.folder / "seen" / one.hex).write_bytes(b"0ne")
    assert cache.read(one) is None
    assert not (layout.folder / "seen" / one.hex).exists()
    large = b"l" * (CONTENT_MAX_BYTES + 1)
    cache.keep(described(large), large)
    assert cache.read(described(large)) is None
    cache.keep(one, b"one")
    cache.trim(at_most=6)
    assert (cache.read(two), cache.read(one)) == (None, b"one")
    assert ContentCache.of(store(tmp_path / "none")) is None


NAMES = st.from_regex(r"[a-z0-9_][a-z0-9._]{0,20}", fullmatch=True)
TAGS = st.builds(
    RecordedTag,
    written=st.from_regex(r"20[0-9]{2}-[01][0-9]-01T00:00:00\+00:00|-", fullmatch=True),
    run_id=NAMES,
    digest=st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
    size=st.integers(0, 4_000_000),
)


@given(st.lists(st.tuples(TAGS, st.sampled_from(["", "--w", "--gh-1-job-1-abc"])), max_size=6))
def test_a_record_is_read_as_it_was_written(found: list[tuple[RecordedTag, str]]) -> None:
    """Lines and tags are two forms of one thing."""
    tags = {f"{entry.run_id}{suffix}": entry for entry, suffix in found}
    assert parse_record(format_record(tags)) == tags


@given(st.text(alphabet="0af -,.:TZ+\n\x00é", max_size=300))
def test_what_is_no_record_is_refused(text: str) -> None:
    """Any text is a record, or a `ValueError`."""
    try:
        found = parse_record(text)
    except ValueError:
        return
    assert parse_record(format_record(found)) == found


def test_a_record_that_grows_too_large_leaves_out_the_oldest() -> None:
    """It stays below the limit of a manifest; the runs that it leaves out are asked for."""
    tags = {
        f"r{n}": RecordedTag(f"{2000 + n // 12}-{n % 12 + 1:02}-01T00:00:00+00:00", f"r{n}", f"sha256:{n:064x}", 1)
        for n in range(40_000)
    }
    text = format_record(tags)
    assert len(text) < RECORD_MAX_BYTES
    kept = parse_record(text)
    assert 20_000 < len(kept) < 40_000
    assert min(kept.values()) > max(entry for tag, entry in tags.items() if tag not in kept)
