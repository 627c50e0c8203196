"""`copy` between folders and real registries: what is sent, what is not, and what a broken copy leaves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Literal

import pytest
from registry_server import (
    PASSWORD,
    USERNAME,
    Reply,
    Seen,
    Served,
    described,
    manifest_of,
    program,
    pushed,
    registry,
    serving,
    token_registry,
)

from runnable_ci.errors import (
    BlobCorruptError,
    BlobMissingError,
    ManifestNotFoundError,
    RegistryAuthError,
    StoreError,
)
from runnable_ci.store.copy import Progress, TransferSize, copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import Credentials
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor, manifest_parts, verified

Forward = Callable[[], Reply]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("plain")) as served:
        yield served


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    """An empty local store."""
    layout = Layout(tmp_path / "here")
    layout.create()
    return layout


@pytest.fixture
def there(tmp_path: Path) -> Layout:
    """Another empty local store."""
    layout = Layout(tmp_path / "there")
    layout.create()
    return layout


def contents(count: int, size: int = 300) -> list[bytes]:
    return [uuid.uuid4().bytes + os.urandom(size - 16) for _ in range(count)]


def run_in(layout: Layout, *blobs: bytes, tag: str = "run-1") -> Descriptor:
    manifest = pushed(layout, b"{}", *blobs)
    layout.tag(manifest, tag)
    return manifest


def read(target: Layout | Registry, descriptor: Descriptor) -> bytes:
    with target.fetch(descriptor) as source:
        return b"".join(verified(source, descriptor, label=target.label))


def impatient(repository: str, *, sleep: Callable[[float], None] = lambda _: None, timeout_s: float = 20) -> Registry:
    """A registry that is asked again at once."""
    return Registry(repository, environ={}, sleep=sleep, timeout_s=timeout_s)


@pytest.mark.promise
def test_a_run_travels_without_changing_a_digest(plain: Served, here: Layout, there: Layout) -> None:
    """Folder, registry, second registry repository, folder: the same bytes under the same tag."""
    blobs = contents(20) + contents(2, 700_000)
    manifest = run_in(here, *blobs)
    first, second = Registry(plain.repository(), environ={}), Registry(plain.repository(), environ={})
    copied = copy(here, "run-1", first)
    assert copied.sent == TransferSize(23, sum(map(len, blobs)) + 2)
    assert (copied.there, copied.left) == (TransferSize(), TransferSize())
    copy(first, "run-1", second)
    copy(second, "run-1", there)
    assert there.resolve("run-1").digest == manifest.digest
    assert [read(there, described(blob)) for blob in blobs] == blobs
    assert read(there, manifest) == read(here, manifest)


def test_a_digest_is_copied_without_a_tag(plain: Served, here: Layout) -> None:
    """A tag is set only where one was given or asked for."""
    manifest = run_in(here, *contents(1))
    target = Registry(plain.repository(), environ={})
    copy(here, manifest.digest, target)
    assert list(target.tags()) == []
    copy(here, manifest.digest, target, as_reference="latest")
    assert list(target.tags()) == ["latest"]


def test_equal_content_is_sent_once(plain: Served, here: Layout) -> None:
    """A manifest that names one blob many times needs one upload."""
    blob = contents(1)[0]
    run_in(here, *[blob] * 10)
    with serving(upstream=plain) as proxy:
        copied = copy(here, "run-1", Registry(proxy.repository(), environ={}))
    assert copied.sent == TransferSize(2, len(blob) + 2)
    assert proxy.count("POST") == 2


def test_publishing_again_takes_three_requests_at_most(tmp_path: Path, here: Layout) -> None:
    """With nothing changed: one request and, where the registry wants tokens, the challenge and the token."""
    run_in(here, *contents(30))
    with token_registry(tmp_path / "token") as (served, tokens, _), serving(upstream=served) as proxy:
        repository, known = proxy.repository(), Credentials(USERNAME, PASSWORD)
        copy(here, "run-1", Registry(repository, environ={}, credentials=known))
        proxy.seen.clear()
        tokens.seen.clear()
        copied = copy(here, "run-1", Registry(repository, environ={}, credentials=known))
    assert copied.sent == TransferSize()
    assert copied.there.blobs == 31
    assert len(proxy.seen) + len(tokens.seen) <= 3


def test_one_changed_file_costs_a_few_requests(plain: Served, here: Layout) -> None:
    """The manifest that the tag stood for, or a similar one, tells what the registry has."""
    blobs = contents(100)
    run_in(here, *blobs)
    run_in(here, *blobs[1:], *contents(1), tag="run-2")
    with serving(upstream=plain) as proxy:
        repository = proxy.repository()
        copy(here, "run-1", Registry(repository, environ={}))
        proxy.seen.clear()
        copied = copy(here, "run-2", Registry(repository, environ={}), base_tags=["run-1", "no-such-run"])
        assert len(proxy.seen) <= 10
    assert copied.sent.blobs == 1
    assert copied.there.blobs == 100


def test_what_an_earlier_manifest_promised_in_vain_is_sent(plain: Served, here: Layout) -> None:
    """If the registry lost blobs of a manifest that it still has, publishing a similar one mends it."""
    blobs = contents(5)
    run_in(here, *blobs)
    run_in(here, *blobs, *contents(1), tag="run-2")
    repository = plain.repository()
    target = Registry(repository, environ={})
    copy(here, "run-1", target)
    lost = described(blobs[0])
    subprocess.run(
        [
            program("curl", "curl"),
            "-sSf",
            "-X",
            "DELETE",
            f"http://{plain.host}/v2/{repository.partition('/')[2]}/blobs/{lost.digest}",
        ],
        check=True,
    )
    assert not target.exists(lost)
    assert copy(here, "run-2", target, base_tags=["run-1"]).sent.blobs == 2
    assert target.exists(lost)


def test_blobs_that_are_there_are_not_sent_again(plain: Served, here: Layout) -> None:
    """Also without any manifest that would tell."""
    blobs = contents(60)
    run_in(here, *blobs)
    target = Registry(plain.repository(), environ={})
    for blob in blobs:
        target.push(described(blob), io.BytesIO(blob))
    copied = copy(here, "run-1", target)
    assert copied.there.blobs == 60
    assert copied.sent == TransferSize(1, 2)


def test_only_what_is_wanted_is_fetched(plain: Served, here: Layout, there: Layout) -> None:
    """A layer that `only` leaves out stays behind, is counted, and comes with a later copy."""
    small, big = contents(1)[0], contents(1, 400_000)[0]
    run_in(here, small, big)
    source = Registry(plain.repository(), environ={})
    copy(here, "run-1", source)
    copied = copy(source, "run-1", there, layer_filter=lambda layer: layer.size < 1000)
    assert copied.sent == TransferSize(2, len(small) + 2)
    assert copied.left == TransferSize(1, len(big))
    assert not there.exists(described(big))
    assert copy(source, "run-1", there).sent == TransferSize(1, len(big))


def test_a_run_that_is_here_in_part_is_published_where_the_rest_is(plain: Served, here: Layout, there: Layout) -> None:
    """A retry that pulled only what it read publishes with the blobs that the registry has."""
    small, big = contents(1)[0], contents(1, 400_000)[0]
    run_in(here, small, big)
    target = Registry(plain.repository(), environ={})
    copy(here, "run-1", target)
    copy(target, "run-1", there, layer_filter=lambda layer: layer.size < 1000)
    raw = manifest_of(described(b"{}"), described(small), described(big), described(b"new"))
    there.push(described(b"new"), io.BytesIO(b"new"))
    there.push(described(raw, MANIFEST_MEDIA_TYPE), io.BytesIO(raw))
    there.tag(described(raw, MANIFEST_MEDIA_TYPE), "run-1.2")
    copy(there, "run-1.2", target, layer_filter=there.exists)
    assert target.resolve("run-1.2").digest == described(raw).digest


def test_a_broken_publish_leaves_no_tag_and_keeps_what_arrived(plain: Served, here: Layout) -> None:
    """When uploads begin to fail, the tag is not set; the next try sends the rest only."""
    blobs = contents(40, 70_000)
    run_in(here, *blobs)
    uploads = threading.Semaphore(25)

    def hook(seen: Seen, forward: Forward) -> Reply:
        return forward() if seen.method != "PUT" or uploads.acquire(blocking=False) else Reply(500)

    with serving(hook, upstream=plain) as proxy:
        repository = proxy.repository()
        with pytest.raises(StoreError, match="keeps failing"):
            copy(here, "run-1", impatient(repository))
        assert list(impatient(repository).tags()) == []
        proxy.hook = lambda _, forward: forward()
        copied = copy(here, "run-1", impatient(repository))
    assert copied.there.blobs == 25
    assert copied.sent.blobs == 16


def test_a_broken_pull_keeps_what_arrived(plain: Served, here: Layout, there: Layout) -> None:
    """A pull that is repeated fetches only the blobs that it lacks."""
    blobs = contents(40)
    run_in(here, *blobs)
    source = Registry(plain.repository(), environ={})
    copy(here, "run-1", source)
    downloads = threading.Semaphore(20)

    def hook(seen: Seen, forward: Forward) -> Reply:
        return forward() if "/blobs/" not in seen.path or downloads.acquire(blocking=False) else Reply(503)

    with serving(hook, upstream=plain) as proxy:
        through = f"{proxy.host}/{source.label.partition('/')[2]}"
        with pytest.raises(StoreError):
            copy(impatient(through), "run-1", there)
        with pytest.raises(ManifestNotFoundError):
            there.resolve("run-1")
        proxy.hook = lambda _, forward: forward()
        arrived = sum(1 for layer in [*blobs, b"{}"] if there.exists(described(layer)))
        assert arrived >= 4  # 16 at once, of which the failure ends those under way
        assert copy(impatient(through), "run-1", there).there.blobs == arrived


@pytest.mark.parametrize("how", ["closed", "reset", "silent"])
def test_a_lost_connection_is_taken_up_where_it_broke(
    plain: Served, here: Layout, there: Layout, how: Literal["closed", "reset", "silent"]
) -> None:
    """A download continues by Range, whether the server closed, reset or just left it; the digest is right."""
    big = os.urandom(3_000_000)
    run_in(here, big)
    source = Registry(plain.repository(), environ={})
    copy(here, "run-1", source)
    failures = [1, 1]

    def hook(seen: Seen, forward: Forward) -> Reply:
        reply = forward()
        broken = Reply(reply.status, reply.headers, reply.body, cut=1_200_000, how=how)
        return broken if len(reply.body) > 1_200_000 and failures and failures.pop() else reply

    with serving(hook, upstream=plain) as proxy:
        # Only silence takes as long as this.
        through = impatient(f"{proxy.host}/{source.label.partition('/')[2]}", timeout_s=0.5 if how == "silent" else 30)
        copy(through, "run-1", there)
        ranges = [seen.headers["Range"] for seen in proxy.seen if "Range" in seen.headers]
    if how == "closed":
        assert ranges == [f"bytes={start}-2999999" for start in (1_200_000, 2_400_000)]
    assert failures == []
    assert read(there, described(big)) == big


def test_a_server_without_ranges_is_read_from_the_start(plain: Served, here: Layout, there: Layout) -> None:
    """Where a Range is ignored, the part that is known already is passed over."""
    big = os.urandom(1_500_000)
    run_in(here, big)
    source = Registry(plain.repository(), environ={})
    copy(here, "run-1", source)
    cuts = [900_000]

    def hook(seen: Seen, _: Forward) -> Reply:
        plain_request = Seen(seen.method, seen.path, {k: v for k, v in seen.headers.items() if k != "Range"}, seen.body)
        reply = proxy.forward(plain_request)
        return (
            Reply(reply.status, reply.headers, reply.body, cut=cuts.pop())
            if len(reply.body) > 10**6 and cuts
            else reply
        )

    with serving(hook, upstream=plain) as proxy:
        copy(impatient(f"{proxy.host}/{source.label.partition('/')[2]}"), "run-1", there)
    assert read(there, described(big)) == big


def test_a_connection_lost_while_uploading_is_begun_anew(plain: Served, here: Layout) -> None:
    """The upload is repeated from the first byte in a new session."""
    big = os.urandom(3_000_000)
    run_in(here, big)
    failures = [1, 1]

    def hook(seen: Seen, forward: Forward) -> Reply:
        if seen.method == "PUT" and "/blobs/" in seen.path and len(seen.body) > 1000 and failures:
            failures.pop()
            return Reply(201, {"Content-Length": "10"}, b"", cut=0)
        return forward()

    with serving(hook, upstream=plain) as proxy:
        target = impatient(proxy.repository())
        copy(here, "run-1", target)
        assert read(target, described(big)) == big
        assert proxy.count("POST") == 4


def test_a_source_registry_can_be_read_again_for_a_second_upload(plain: Served, here: Layout) -> None:
    """Between two registries a failed upload fetches its blob once more."""
    big = os.urandom(1_000_000)
    run_in(here, big)
    source = Registry(plain.repository(), environ={})
    copy(here, "run-1", source)
    failures = [1]

    def hook(seen: Seen, forward: Forward) -> Reply:
        if seen.method == "PUT" and len(seen.body) > 1000 and failures:
            return Reply(502 + failures.pop())
        return forward()

    with serving(hook, upstream=plain) as proxy:
        target = impatient(proxy.repository())
        copy(source, "run-1", target)
        assert read(target, described(big)) == big


@pytest.mark.parametrize(
    ("reply", "lowest", "highest"),
    [
        (Reply(503, {"Retry-After": "7"}), 7, 7),
        (Reply(429, {"Retry-After": "3600"}), 60, 60),
        (Reply(429, {"Retry-After": formatdate(1_000_020, usegmt=True)}), 20, 20),
        (Reply(429, {"Retry-After": "soon"}), 0.5, 1),
        (Reply(429, {}, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "retry-after: 250ms"}]}'), 0.5, 1),
        (Reply(429, {}, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "retry-after: 2500ms"}]}'), 2.5, 2.5),
        (Reply(403, {}, b"You have exceeded a secondary rate limit."), 60, 60),
        (Reply(403, {"Retry-After": "9"}), 9, 9),
        (Reply(502), 0.5, 1),
        (Reply(408), 0.5, 1),
        (Reply(200, {"Content-Length": "5"}, b"", cut=0), 0.5, 1),
    ],
)
def test_a_busy_registry_is_given_the_time_that_it_asks_for(
    plain: Served, here: Layout, reply: Reply, lowest: float, highest: float
) -> None:
    """Limits and failures that pass are waited out, by seconds or date, up to a minute; never less than usual."""
    run_in(here)
    waits: list[float] = []
    replies = [reply]

    def hook(seen: Seen, forward: Forward) -> Reply:
        return replies.pop() if replies and seen.method == "POST" else forward()

    with serving(hook, upstream=plain) as proxy:
        target = Registry(proxy.repository(), environ={}, sleep=waits.append, clock=lambda: 1_000_000.0)
        copy(here, "run-1", target)
        assert target.resolve("run-1")
    assert len(waits) == 1
    assert lowest <= waits[0] <= highest


def test_a_silent_registry_is_given_up(here: Layout) -> None:
    """A server that accepts a request and says nothing ends in an error, not in waiting for ever."""
    run_in(here)
    release = threading.Event()

    def hook(_: Seen, __: Forward) -> Reply:
        release.wait(10)
        return Reply(500)

    with serving(hook) as server, pytest.raises(StoreError, match="timed out"):
        copy(here, "run-1", impatient(server.repository(), timeout_s=0.05))
    release.set()


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, RegistryAuthError, "docker login"),
        (403, RegistryAuthError, "docker login"),
        (404, StoreError, "no such repository"),
        (405, StoreError, "not supported"),
        (413, StoreError, "too large"),
        (500, StoreError, "later"),
    ],
)
def test_an_error_says_which_side_and_what_to_do(
    here: Layout, status: int, error: type[StoreError], words: str
) -> None:
    """Each status has its own words, with the blob and both stores in the message."""
    run_in(here)

    def hook(seen: Seen, _: Forward) -> Reply:
        return Reply(404 if seen.method == "HEAD" else status)

    with serving(hook) as server, pytest.raises(error, match=words) as caught:
        copy(here, "run-1", impatient(server.repository()))
    assert f"copying from {here.label} to {server.host}/" in caught.value.message


def test_a_missing_blob_names_the_side_that_lacks_it(plain: Served, here: Layout) -> None:
    """A local run whose blob is gone says so, and nothing is tagged."""
    blob = contents(1)[0]
    run_in(here, blob)
    here.path(described(blob)).unlink()
    target = Registry(plain.repository(), environ={})
    with pytest.raises(BlobMissingError, match=f"{here.label} does not hold {described(blob).digest}"):
        copy(here, "run-1", target)
    assert list(target.tags()) == []


def test_a_damaged_local_blob_is_not_published(plain: Served, here: Layout) -> None:
    """The registry finds out; the error says that the copy here is damaged."""
    blob = contents(1, 400_000)[0]
    run_in(here, blob)
    path = here.path(described(blob))
    path.chmod(0o644)
    path.write_bytes(bytes([blob[0] ^ 1]) + blob[1:])
    with pytest.raises(BlobCorruptError, match="the copy here is damaged"):
        copy(here, "run-1", Registry(plain.repository(), environ={}))


def test_progress_ends_at_the_total(plain: Served, here: Layout, there: Layout) -> None:
    """Bytes and blobs only grow, and end at what there was to do, there already or not."""
    run_in(here, *contents(10, 50_000))
    target = Registry(plain.repository(), environ={})
    for source, goal in ((here, target), (target, there), (target, there)):
        seen: list[Progress] = []
        copy(source, "run-1", goal, progress=seen.append)
        assert seen[-1].done == seen[-1].total == TransferSize(11, 500_002)
        amounts = [(step.done.size_bytes, step.done.blobs) for step in seen]
        assert amounts == sorted(amounts)


def test_progress_takes_back_what_has_to_be_sent_again(plain: Served, here: Layout) -> None:
    """A failed upload does not count twice."""
    run_in(here, os.urandom(900_000))
    failures = [1]

    def hook(seen: Seen, forward: Forward) -> Reply:
        return Reply(502 + failures.pop()) if len(seen.body) > 1000 and failures else forward()

    seen: list[Progress] = []
    with serving(hook, upstream=plain) as proxy:
        copy(here, "run-1", impatient(proxy.repository()), progress=seen.append)
    assert seen[-1].done == seen[-1].total
    assert max(step.done.size_bytes for step in seen) == 900_002


def test_an_image_index_is_refused(plain: Served, here: Layout) -> None:
    """A run is a plain manifest; an index would be copied in part by other clients."""
    media_type = "application/vnd.oci.image.index.v1+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": []}).encode()
    repository = plain.repository()
    subprocess.run(
        [
            program("curl", "curl"),
            "-sSf",
            "-X",
            "PUT",
            "-H",
            f"Content-Type: {media_type}",
            "--data-binary",
            "@-",
            f"http://{plain.host}/v2/{repository.partition('/')[2]}/manifests/multi",
        ],
        input=raw,
        check=True,
    )
    with pytest.raises(BlobCorruptError, match="image index, not one manifest"):
        copy(Registry(repository, environ={}), "multi", here)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"config": 1, "layers": []}',
        b'{"config": {"mediaType": "a", "digest": "sha256:../../x", "size": 1}, "layers": []}',
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": -1}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": true}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": 1e99}, "layers": []}' % (b"a" * 64),
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": 1%b}, "layers": []}' % (b"a" * 64, b"0" * 5000),
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": 1, "annotations": {"a": 1}}, "layers": []}'
        % (b"a" * 64),
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": 1}, "layers": "x"}' % (b"a" * 64),
        b'{"config": {"mediaType": "a", "digest": "sha256:%b", "size": 1}, "layers":'
        b' [{"mediaType": "a", "digest": "sha256:%b", "size": 2}]}' % (b"a" * 64, b"a" * 64),
        b'{"mediaType": "text/html", "config": {"mediaType": "a", "digest": "sha256:%b", "size": 1}, "layers": []}'
        % (b"a" * 64),
        b"\xff\xfe",
    ],
)
def test_a_manifest_of_another_shape_is_refused(raw: bytes) -> None:
    """Whatever JSON a registry serves, the result is a list of proper descriptors or one kind of error."""
    with pytest.raises(BlobCorruptError):
        manifest_parts(raw, described(raw, MANIFEST_MEDIA_TYPE), label="somewhere")


def test_an_independent_client_finds_the_same_bytes(plain: Served, here: Layout, tmp_path: Path) -> None:
    """skopeo, told nothing about us, copies the published run to a layout with the same blobs."""
    blobs = contents(5, 2000)
    manifest = run_in(here, *blobs)
    target = Registry(plain.repository(), environ={})
    copy(here, "run-1", target)
    subprocess.run(
        [
            program("skopeo", "skopeo"),
            "copy",
            "--src-tls-verify=false",
            f"docker://{target.label}:run-1",
            f"oci:{tmp_path / 'oci'}:x",
        ],
        check=True,
        capture_output=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    found = {path.name: path.read_bytes() for path in (tmp_path / "oci" / "blobs" / "sha256").iterdir()}
    assert found[manifest.hex] == read(here, manifest)
    assert [found[described(blob).hex] for blob in blobs] == blobs


MEMORY = """
import re, sys
from pathlib import Path
from runnable_ci.store.copy import copy
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
there = Layout(Path(sys.argv[3])); there.create()
copy(Layout(Path(sys.argv[1])), "run-1", Registry(sys.argv[2], environ={}))
copy(Registry(sys.argv[2], environ={}), "run-1", there)
print(int(re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def peak_memory(layout: Layout, repository: str, pulled: Path) -> int:
    """Return the peak memory in MB of a process that pushes and pulls the run of the layout."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(layout.folder), repository, str(pulled)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_memory_does_not_grow_with_the_blobs(plain: Served, tmp_path: Path) -> None:
    """Sixteen blobs of 24 MB instead of 3 MB, pushed and pulled, take less than a quarter of what they are more."""
    peaks = {}
    for megabytes in (3, 24):
        layout = Layout(tmp_path / f"{megabytes}-here")
        layout.create()
        block = os.urandom(1_000_000)
        run_in(layout, *[bytes([number]) + block * megabytes for number in range(16)])
        peaks[megabytes] = peak_memory(layout, plain.repository(), tmp_path / f"{megabytes}-pulled")
    assert peaks[24] - peaks[3] < 16 * (24 - 3) / 4, peaks
