"""A run between stores and a real registry: many writers, killed writers, foreign readers, hostile tags."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from oras.client import OrasClient
from published_runs import contents, forge, got, opened, record, run_tags, sent, store
from registry_server import (
    PASSWORD,
    USERNAME,
    Reply,
    Seen,
    Served,
    described,
    program,
    registry,
    serving,
    token_registry,
)

from runnable_ci.analysis.history.query import Query
from runnable_ci.cli.show.listing import runs_of_registry
from runnable_ci.config import Settings
from runnable_ci.errors import BlobMissingError, RunLogError, RunNotFoundError, StoreError, UsageError
from runnable_ci.pipeline.command_line import of_store
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.model import SUCCESS
from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.reader import catalog_of, load
from runnable_ci.runs.remote.listing import published
from runnable_ci.runs.remote.publish import publish
from runnable_ci.runs.remote.pull import fetch, pull, read_origin
from runnable_ci.runs.remote.remote_index import find_manifests
from runnable_ci.store.copy import copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import Credentials
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def remote(served: Served) -> Registry:
    """A repository that nobody else uses."""
    return opened(served.repository())


def test_a_run_arrives_as_it_was(tmp_path: Path, remote: Registry) -> None:
    """A pulled run has the same log, the same files and the same digest as where it was made."""
    here = store(tmp_path / "here")
    files = {"a.txt": b"alpha", "big.bin": os.urandom(300_000)}
    log = record(here, "load", files)
    reference = sent(here, remote).reference
    there, pulled = got(tmp_path / "there", remote)
    assert reference == f"{remote.label}:r@{here.resolve('r').digest}"
    assert there.resolve("r").digest == here.resolve("r").digest
    assert (load(there, "r"), contents(there)) == (log, files)
    assert (pulled.run_id, pulled.writers, pulled.left.blobs) == ("r", 1, 0)


@pytest.mark.promise
def test_eight_writers_at_once_lose_nothing(tmp_path: Path, remote: Registry) -> None:
    """Eight stores that went on with one run publish at the same moment; a reader finds all attempts and files."""
    base = store(tmp_path / "base")
    record(base, "load", {"load.txt": b"load"})
    sent(base, remote)
    barrier = threading.Barrier(8)
    writers = [got(tmp_path / f"writer{i}", remote)[0] for i in range(8)]
    for i, layout in enumerate(writers):
        record(layout, f"part{i}", {f"part{i}.txt": f"{i}".encode()})
        record(layout, "load", {"load.txt": f"again {i}".encode()})

    def write(layout: Layout) -> None:
        barrier.wait()
        sent(layout, remote)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, writers))
    reader, pulled = got(tmp_path / "reader", remote)
    log = load(reader, "r")
    assert pulled.writers == 9
    assert [log.steps[f"part{i}"].status for i in range(8)] == [SUCCESS] * 8
    assert [attempt.attempt_number for attempt in log.steps["load"].attempts] == list(range(1, 10))
    files = contents(reader)
    assert [files[f"part{i}.txt"] for i in range(8)] == [f"{i}".encode() for i in range(8)]
    catalog = catalog_of(reader, log)
    earlier = [entry for attempt in log.steps["load"].attempts[:-1] for entry in attempt.data_catalog]
    again = {b"".join(catalog.read(entry.data_hash, entry.size)) for entry in earlier} | {files["load.txt"]}
    assert again == {b"load", *(f"again {i}".encode() for i in range(8))}


def test_pulling_loses_no_attempt_of_this_store(tmp_path: Path, remote: Registry) -> None:
    """Where a run went on both here and there, a pull leaves both, and publishing that is read by the other."""
    one = store(tmp_path / "one")
    record(one, "load", {"a.txt": b"1"})
    sent(one, remote)
    other, _ = got(tmp_path / "other", remote)
    record(other, "load", {"a.txt": b"2"})
    record(one, "load", {"a.txt": b"3"})
    sent(other, remote)
    pull(one, remote, "r")
    assert [attempt.invocation for attempt in load(one, "r").steps["load"].attempts] == [1, 2, 3]
    assert contents(one) in ({"a.txt": b"2"}, {"a.txt": b"3"})
    sent(one, remote)
    pull(other, remote, "latest")
    assert contents(other) == contents(one)
    assert load(other, "r") == load(one, "r")


def test_an_unchanged_publish_is_one_request(tmp_path: Path, served: Served) -> None:
    """Publishing again what stands there costs a single request; after a change only what is new is sent."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.bin": os.urandom(300_000)})
    with serving(upstream=served) as proxy:
        remote = opened(proxy.repository())
        sent(layout, remote)
        proxy.seen.clear()
        assert sent(layout, remote).sent is None
        assert [seen.method for seen in proxy.seen] == ["HEAD"]
        record(layout, "next", {"b.bin": b"new"})
        changed = sent(layout, remote).sent
        assert changed is not None
        assert (changed.blobs, changed.size_bytes < 100_000) == (2, True)


def test_two_publishes_of_one_store_end_with_what_is_newest(tmp_path: Path, served: Served) -> None:
    """A publish that is slow does not put its older state over that of a later one."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.bin": b"first"})
    slow, go_on = threading.Event(), threading.Event()

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        if seen.method == "PUT" and "/manifests/" in seen.path and not slow.is_set():
            slow.set()
            go_on.wait(20)
        return forward()

    with serving(hook, upstream=served) as proxy, ThreadPoolExecutor(2) as pool:
        repository = proxy.repository()
        first = pool.submit(sent, layout, opened(repository))
        assert slow.wait(20)
        record(layout, "load", {"a.bin": b"second"})
        second = pool.submit(sent, layout, opened(repository))
        time.sleep(0.3)  # time enough for the second to be done, if nothing holds it
        go_on.set()
        first.result()
        second.result()
        direct = opened(repository.replace(proxy.host, served.host))
    assert contents(got(tmp_path / "reader", direct)[0]) == {"a.bin": b"second"}
    assert {direct.resolve(tag).digest for tag in run_tags(direct)} == {layout.resolve("r").digest}


PUBLISH = """
import sys
from pathlib import Path
from runnable_ci.runs.remote.publish import (publish)
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
publish(Layout(Path(sys.argv[1])), "r", Registry(sys.argv[2], environ={}), environ={})
"""


@pytest.mark.promise
def test_a_publish_killed_at_any_moment_leaves_a_readable_run(tmp_path: Path, served: Served) -> None:
    """Killed after its first, second … last request that writes, a publish leaves the former state or the new one."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.bin": b"first"})
    former = layout.resolve("r")
    record(layout, "load", {"a.bin": b"second"})
    running: list[subprocess.Popen[bytes]] = []
    fatal, count = 0, 0

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        nonlocal count
        reply = forward()
        count += seen.method in ("POST", "PUT")
        if running and count == fatal:
            running[-1].kill()
        return reply

    with serving(hook, upstream=served) as proxy:
        probe = opened(proxy.repository())
        sent(layout, probe)
        tag = next(tag for tag in run_tags(probe) if tag != "r")
        states: list[tuple[int, bytes]] = []
        codes: list[int] = []
        while not codes or codes[-1] != 0:
            fatal += 1
            repository = proxy.repository()
            direct = opened(repository.replace(proxy.host, served.host))
            copy(layout, former.digest, direct, as_reference="r")
            direct.tag(former, tag)
            count = 0
            running.append(subprocess.Popen([sys.executable, "-c", PUBLISH, str(layout.folder), repository]))
            codes.append(running[-1].wait())
            reader, _ = got(tmp_path / f"reader{fatal}", direct)
            states.append((len(load(reader, "r").steps["load"].attempts), contents(reader)["a.bin"]))
    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) > 5
    assert states == sorted(states)
    assert (states[0], states[-1]) == ((1, b"first"), (2, b"second"))


def test_a_publish_killed_at_random_moments_leaves_a_readable_run(tmp_path: Path, served: Served) -> None:
    """Killed in the middle of whatever it does, with uploads under way, a publish leaves the former state or the new
    one whole, and the next one brings the new.
    """
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.bin": b"first"})
    former = layout.resolve("r")
    new = {f"{i}.bin": os.urandom(300_000) for i in range(20)} | {"a.bin": b"second"}
    record(layout, "load", new)
    command = [sys.executable, "-c", PUBLISH, str(layout.folder)]
    begin = time.monotonic()
    subprocess.run([*command, served.repository()], check=True)
    longest_s, killed = time.monotonic() - begin, 0
    for number in range(5):
        remote = opened(served.repository())
        copy(layout, former.digest, remote, as_reference="r")
        with subprocess.Popen([*command, remote.label]) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(longest_s * random.uniform(0.4, 1.0))  # noqa: S311 - no secret
            process.kill()
        if process.returncode == -signal.SIGKILL:
            killed += 1
        else:
            longest_s *= 0.7  # the machine is quicker than it was
        reader, _ = got(tmp_path / f"reader{number}", remote)
        assert contents(reader) in ({"a.bin": b"first"}, new)
        sent(layout, remote)
        assert contents(got(tmp_path / f"later{number}", remote)[0]) == new
    assert killed


def test_publishing_into_a_package_that_there_is_not_yet(tmp_path: Path) -> None:
    """Who may only read is not let in where nothing is, as in ghcr.io; a publish asks for one token, to push."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"})
    with token_registry(tmp_path / "registry") as (served, tokens, issuer):
        tokens.hook = lambda seen, forward: (
            issuer.hook(seen, forward) if "push" in seen.path else Reply(403, {}, b'{"errors": [{"code": "DENIED"}]}')
        )
        remote = Registry(served.repository(), environ={}, credentials=Credentials(USERNAME, PASSWORD))
        sent(layout, remote)
        assert remote.resolve("r").digest == layout.resolve("r").digest
        assert tokens.count("GET") == 1
        refused = 0

        def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
            nonlocal refused
            missing = seen.method == "HEAD" and forward().status == 404
            refused += missing and "/manifests/" in seen.path
            return Reply(403) if missing and "/manifests/" in seen.path else forward()

        with serving(hook, upstream=served) as proxy:
            remote = Registry(proxy.repository(), environ={}, credentials=Credentials(USERNAME, PASSWORD))
            sent(layout, remote)
            assert remote.resolve("r").digest == layout.resolve("r").digest
        assert refused


def test_two_thousand_files_make_a_small_manifest(tmp_path: Path, remote: Registry) -> None:
    """Two thousand files travel in a manifest of less than 1 MiB, and each comes out as it went in."""
    here = store(tmp_path / "here")
    files = {f"data/{i:04}.txt": f"file {i}".encode() * 20 for i in range(2000)}
    record(here, "load", files)
    sent(here, remote)
    assert remote.resolve("r").size < 1024 * 1024
    there, pulled = got(tmp_path / "there", remote)
    assert contents(there) == files
    assert pulled.fetched.blobs < 10


def test_other_clients_find_the_same_bytes(tmp_path: Path, remote: Registry) -> None:
    """skopeo copies the artifact to a layout with all blobs; the oras package's pull leaves the titled tree."""
    here = store(tmp_path / "here")
    files = {"a.txt": b"alpha", "plots/b.bin": os.urandom(300_000)}
    log = record(here, "load", files)
    sent(here, remote)
    folder = tmp_path / "skopeo"
    source, target = f"docker://{remote.label}:r", f"oci:{folder}:r"
    command = [program("skopeo", "skopeo"), "--insecure-policy", "--tmpdir", str(tmp_path), "copy"]
    subprocess.run([*command, "--src-tls-verify=false", source, target], check=True, capture_output=True)
    for descriptor in layers(log).values():
        name = f"blobs/sha256/{descriptor.hex}"
        assert (folder / name).read_bytes() == (here.folder / name).read_bytes()
    tree = tmp_path / "oras"
    tree.mkdir()
    OrasClient(hostname=remote.label.split("/")[0], insecure=True).pull(target=f"{remote.label}:r", outdir=str(tree))
    assert {name: (tree / "catalog" / name).read_bytes() for name in files} == files
    assert json.loads((tree / "run-log.json").read_bytes())["run_id"] == "r"


def test_a_tag_with_another_run_is_refused(tmp_path: Path, remote: Registry) -> None:
    """Neither the plain tag nor a writer's tag of a run may hold another run; nothing is pulled then."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"})
    record(layout, "load", {"a.txt": b"b"}, run_id="other")
    sent(layout, remote)
    for tag in ("r", "r--intruder"):
        copy(layout, "other", remote, as_reference=tag)
        there = store(tmp_path / f"there-{tag}")
        with pytest.raises(RunLogError, match=f"the tag {tag} in .* holds run `other`, not `r`"):
            pull(there, remote, "r")
        assert not there.folder.exists()
        copy(layout, "r", remote, as_reference=tag)
    assert got(tmp_path / "there", remote)[1].run_id == "r"


def test_a_run_whose_id_looks_like_a_writers_tag_is_another_run(tmp_path: Path, remote: Registry) -> None:
    """Runs `r` and `r--b` live in one repository and are read apart."""
    layout = store(tmp_path / "here")
    for run_id in ("r", "r--b"):
        record(layout, "load", {"a.txt": run_id.encode()}, run_id=run_id)
        sent(layout, remote, run_id)
    for run_id in ("r", "r--b"):
        there, pulled = got(tmp_path / run_id, remote, run_id)
        assert (pulled.run_id, pulled.writers) == (run_id, 1)
        assert contents(there, run_id) == {"a.txt": run_id.encode()}


def renamed(step: str, internal: str) -> Callable[[dict[str, Any]], None]:
    """Gives the step of a run log another name."""

    def change(log: dict[str, Any]) -> None:
        log["steps"] = {step: {**log["steps"]["load"], "name": step, "internal_name": internal}}

    return change


def in_entry(earlier: bool = False, **fields: object) -> Callable[[dict[str, Any]], None]:
    """Changes the file of a run log, or makes it one of an earlier attempt and changes that."""

    def change(log: dict[str, Any]) -> None:
        step = log["steps"]["load"]
        step["data_catalog"][0].update(fields)
        if earlier:
            step["attempts"][0]["data_catalog"] = step["data_catalog"]
            step["attempts"].append({**step["attempts"][0], "attempt_number": 2, "data_catalog": []})
            step["data_catalog"] = []

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda log: log.update(run_id="../../evil"), "invalid run id"),
        (lambda log: log.update(run_id="latest"), "invalid run id"),
        (lambda log: log.update(run_id="a\nb"), "invalid run id"),
        (renamed("../evil", "../evil"), "invalid step name"),
        (renamed("load", "../../evil"), "invalid step name"),
        (in_entry(data_hash="../../evil"), "is not a digest"),
        (in_entry(data_hash=""), "is not a digest"),
        (in_entry(size=-1), "invalid size"),
        (in_entry(size=2**70), "than its manifest"),
        (in_entry(name="../../evil"), "names a file with a path outside"),
        (in_entry(name="/etc/evil"), "names a file with a path outside"),
        (in_entry(name="a\\..\\..\\evil"), "names a file with a path outside"),
        (in_entry(name="C:\\evil"), "names a file with a path outside"),
        (in_entry(name="a\0b"), "names a file with a path with a NUL"),
        (in_entry(earlier=True, name="../evil"), "names a file with a path outside"),
        (in_entry(kind="link", target="../evil"), "has a link that points outside the workspace: a.bin"),
        (in_entry(kind="link", target="/etc/evil"), "has a link that points outside"),
        (in_entry(kind="link", target=".git/hooks"), "has a link into a repository or a store: a.bin"),
        (in_entry(earlier=True, kind="link", target="a/../../evil"), "has a link that points outside"),
        (in_entry(stage="get", name="../../a/../../evil"), "names a file with a path outside"),
        (in_entry(stage="get", kept=True, name="../evil"), "names a file with a path outside"),
        (lambda log: log.update(packs={"../evil": {"size": 1, "members": {}}}), "is not a digest"),
        (lambda log: log.update(schema_version="99"), "upgrade runnable-ci|schema 99"),
        (lambda log: log.update(steps="none"), "is not a run log"),
        (lambda log: log.update(parameters=nested(5000)), "is not a run log"),
    ],
)
def test_a_hostile_run_log_is_refused(
    tmp_path: Path, remote: Registry, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    """A log whose id, names, digests or sizes would lead out of the store is not used, though asked for by digest."""
    layout = store(tmp_path / "here")
    document = record(layout, "load", {"a.bin": os.urandom(300)}).model_dump()
    change(document)
    digest = forge(remote, layout, encoded(document))
    there = store(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((RunLogError, StoreError), match=complaint):
        pull(there, remote, digest)
    assert sorted(tmp_path.rglob("*")) == before


def nested(depth: int) -> dict[str, Any]:
    """A parameter whose value is so many lists in each other."""
    return {"deep": {"kind": "json", "value": f"@{depth}@"}}


def encoded(document: dict[str, Any]) -> bytes:
    """A run log as JSON, also one nested deeper than the encoder goes."""
    text = json.dumps(document)
    return re.sub(r'"@(\d+)@"', lambda m: "[" * int(m[1]) + "]" * int(m[1]), text).encode()


def test_only_the_log_comes_first_and_the_rest_later(tmp_path: Path, remote: Registry) -> None:
    """A pulled log knows where its content is: a part of it is fetched by digest, and another pull brings the rest."""
    here = store(tmp_path / "here")
    log = record(here, "load", {"a.bin": os.urandom(300_000), "b.bin": os.urandom(400_000)})
    sent(here, remote)
    there = store(tmp_path / "there")
    pulled = pull(there, remote, "r", only_log=True)
    assert (pulled.fetched.blobs, pulled.left.blobs, pulled.left.size_bytes) == (0, 2, 700_000)
    with pytest.raises(BlobMissingError):
        contents(there)
    origin = read_origin(there, "r")
    assert origin is not None
    wanted = [d for title, d in layers(log).items() if title == "catalog/a.bin"]
    assert fetch(there, remote, origin, wanted).size_bytes == 300_000
    assert pull(there, remote, "r").fetched.size_bytes == 400_000
    assert contents(there) == contents(here)


def test_a_run_of_which_only_the_log_is_here_can_be_published_back(tmp_path: Path, remote: Registry) -> None:
    """A retry that fetched nothing publishes to where its content is; to another registry it says what to do."""
    here = store(tmp_path / "here")
    record(here, "load", {"a.bin": os.urandom(300_000)})
    sent(here, remote)
    there = store(tmp_path / "there")
    pull(there, remote, "r", only_log=True)
    record(there, "next", {"b.txt": b"b"})
    sent(there, remote)
    reader, _ = got(tmp_path / "reader", remote)
    assert contents(reader).keys() == {"a.bin", "b.txt"}
    with pytest.raises(BlobMissingError) as raised:
        sent(there, opened(f"{remote.label}-other"))
    assert raised.value.hint == f"`{of_store(there, 'pull', 'r')}` downloads the whole run"


@pytest.mark.parametrize("note", ["", "[]", '{"registry": "x"}', '{"registry": "h.io/r", "manifests": ["../x"]}'])
def test_a_damaged_origin_is_named(tmp_path: Path, note: str) -> None:
    """What is not a repository and digests is refused with the way out."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"})
    (run_folder(layout, "r") / "origin").write_text(note)
    with pytest.raises(RunLogError, match="origin is damaged"):
        read_origin(layout, "r")


def test_a_copy_of_a_store_is_another_writer(tmp_path: Path, remote: Registry) -> None:
    """Two machines with copies of one `.runnable` go on with a run and publish: no attempt is lost."""
    one = store(tmp_path / "one")
    record(one, "load", {"a.txt": b"a"})
    sent(one, remote)
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    for name in ("one", "other"):
        layout = store(tmp_path / name)
        record(layout, "load", {"a.txt": name.encode()})
        sent(layout, remote)
    reader, _ = got(tmp_path / "reader", remote)
    assert len(load(reader, "r").steps["load"].attempts) == 3


def test_jobs_of_github_have_readable_tags(tmp_path: Path, remote: Registry) -> None:
    """In GitHub Actions a writer's tag names workflow run, job and attempt, and differs between jobs of a matrix."""
    github = {"GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "42", "GITHUB_JOB": "test (3.11) ✓", "GITHUB_RUN_ATTEMPT": "2"}
    one = store(tmp_path / "one")
    record(one, "load", {"a.txt": b"a"})
    sent(one, remote, **github)
    other, _ = got(tmp_path / "other", remote)
    record(other, "load", {"a.txt": b"b"})
    sent(other, remote, **github)
    tags = [tag for tag in run_tags(remote) if tag != "r"]
    assert len(tags) == 2
    assert all(tag.startswith("r--gh-42-test-3.11-") for tag in tags)


def test_a_run_id_that_leaves_no_room_is_refused(tmp_path: Path, remote: Registry) -> None:
    """A run id of 128 characters cannot be published, and nothing is sent."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"}, run_id="r" * 128)
    with pytest.raises(UsageError, match="too long to be published"):
        sent(layout, remote, "r" * 128)
    assert list(remote.tags()) == []


def test_references_and_the_listing(tmp_path: Path, remote: Registry) -> None:
    """`latest` is the run written last, a writer's tag or a digest one part; other artifacts are left out."""
    layout = store(tmp_path / "here")
    for run_id in ("first", "second"):
        record(layout, "load", {"a.txt": run_id.encode()}, run_id=run_id)
        sent(layout, remote, run_id)
    other = b"{}"
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": {"mediaType": "application/json", "digest": described(other).digest, "size": 2},
            "layers": [],
        }
    ).encode()
    remote.push(described(other), io.BytesIO(other))
    remote.push(described(raw, MANIFEST_MEDIA_TYPE), io.BytesIO(raw))
    remote.tag(described(raw, MANIFEST_MEDIA_TYPE), "image")
    assert [summary.run_id for summary in published(remote)] == ["first", "second"]
    assert find_manifests(remote, "latest")[0].log.run_id == "second"
    record(layout, "load", {"a.txt": b"more"}, run_id="first")
    earlier = remote.resolve("first").digest
    sent(layout, remote, "first")
    assert [(summary.run_id, summary.attempts) for summary in published(remote)] == [("second", 1), ("first", 2)]
    assert find_manifests(remote, "latest")[0].log.run_id == "first"
    assert len(find_manifests(remote, earlier)[0].log.invocations) == 1
    tag = next(tag for tag in remote.tags() if tag.startswith("first--"))
    assert len(find_manifests(remote, tag)[0].log.invocations) == 2
    with pytest.raises(RunLogError, match="is not a run"):
        find_manifests(remote, "image")
    with pytest.raises(RunNotFoundError) as raised:
        find_manifests(remote, "frist")
    assert raised.value.hint == "did you mean `first`?"
    with pytest.raises(RunNotFoundError, match="has no sha256:00") as raised:
        find_manifests(remote, f"sha256:{'0' * 64}")
    assert raised.value.exit_code == 2
    assert f"runnable-ci runs --from {remote.label}" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vnd.runnable.metrics", "[" * 100_000),
        ("vnd.runnable.metrics", "7"),
        ("vnd.runnable.parameters", "[7"),
        ("vnd.runnable.metrics", '{"a": NaN}'),
        ("vnd.runnable.attempts", "²"),
        ("vnd.runnable.attempts", "9" * 5000),
        ("vnd.runnable.ended", "x" * 100_000),
        ("org.opencontainers.image.created", "\x1b[2J"),
        ("vnd.runnable.status", "\n"),
    ],
)
def test_a_listing_bears_what_annotations_may_hold(
    tmp_path: Path, remote: Registry, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    """Whatever a manifest says of itself, the line of its run is shown, and on one line."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"})
    sent(layout, remote)
    with remote.fetch(remote.resolve("r")) as content:
        manifest = json.loads(content.read())
    manifest["annotations"][name] = value
    raw = json.dumps(manifest).encode()
    remote.push(described(raw, MANIFEST_MEDIA_TYPE), io.BytesIO(raw))
    for tag in list(remote.tags()):
        remote.tag(described(raw, MANIFEST_MEDIA_TYPE), tag)
    for as_json in (False, True):
        runs_of_registry(remote.label, Query(), settings=Settings(), environ={}, form="json" if as_json else "table")
    listed = capsys.readouterr().out
    assert "\x1b" not in listed
    head, line, *document = listed.splitlines()
    assert (head[:3], line[:1]) == ("RUN", "r")
    assert json.loads("\n".join(document))[0]["run_id"] == "r"


def test_a_listing_reads_no_blob(tmp_path: Path, served: Served) -> None:
    """Listing published runs asks for tags and manifests alone."""
    layout = store(tmp_path / "here")
    record(layout, "load", {"a.txt": b"a"})
    with serving(upstream=served) as proxy:
        remote = opened(proxy.repository())
        sent(layout, remote)
        proxy.seen.clear()
        assert [summary.status for summary in published(remote)] == [SUCCESS]
        assert proxy.count("GET", "/blobs/") == 0


def test_a_publish_of_a_cancelled_job_is_given_up_in_time(tmp_path: Path) -> None:
    """A registry that lets us wait is left, and the run stays whole here."""
    here = store(tmp_path / "here")
    record(here, "load", {"a.txt": b"alpha"})
    over = threading.Event()

    def silent(_: Seen, __: Callable[[], Reply]) -> Reply:
        over.wait(20)
        return Reply(503)

    with serving(silent) as server:
        with pytest.raises(
            StoreError, match=r"did not take the run within 0 s, all that a cancelled job has"
        ) as caught:
            publish(here, "r", opened(server.repository()), environ={}, limit_s=0.2)
        over.set()
    assert "sends the rest" in caught.value.hint
    assert load(here, "r").run_id == "r"
