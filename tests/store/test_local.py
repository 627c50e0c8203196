"""The local store: an OCI image layout that other programs read, and that survives what is done to it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support import blobs, environment, index_of, leftovers, python, sha256

from runnable_ci.errors import BlobCorruptError, BlobMissingError, ManifestNotFoundError, StoreError
from runnable_ci.runs.artifact import ARTIFACT_TYPE, RUN_LOG_TITLE, TITLE
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.events import (
    AttemptSaved,
    InvocationFinished,
    PackStored,
    Started,
)
from runnable_ci.runs.model import SUCCESS, Invocation, StepAttempt
from runnable_ci.runs.paths import run_folder
from runnable_ci.runs.reader import load
from runnable_ci.runs.recorder import create
from runnable_ci.store.local import Layout
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor

TAGGING = """
import sys
from pathlib import Path
from runnable_ci.store.local import Layout
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE
layout = Layout(Path(sys.argv[1]))
layout.create()
for i in range(50):
    layout.tag(layout.put_bytes(f"{{{i}}}".encode(), MANIFEST_MEDIA_TYPE), f"{sys.argv[2]}-{i}")
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An empty store."""
    layout = Layout(tmp_path / ".runnable")
    layout.create()
    return layout


def path_of(layout: Layout, descriptor: Descriptor) -> Path:
    return blobs(layout.folder)[descriptor.hex]


def overwrite(path: Path, content: bytes) -> None:
    """Change a blob as a program or a disk may: same file, other bytes, same times."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def sealed_run(layout: Layout, run_id: str) -> Descriptor:
    """A run with one large and twenty small files, in the store as an artifact."""
    workspace = layout.folder.parent
    (workspace / "large.bin").write_bytes(b"large" * 100_000)
    for i in range(20):
        (workspace / f"small-{i}.txt").write_text(f"small {i}")
    invocation = Invocation(number=1, command="run", start_time="2026-01-01T00:00:00+00:00")
    started = Started(run_id=run_id, name="p", dag_hash="d", run_config={}, invocation=invocation)
    with create(layout, started) as recorder:
        catalog = Catalog(layout, workspace, run_folder(layout, run_id))
        entries, packs = catalog.put(["large.bin", *(f"small-{i}.txt" for i in range(20))])
        (recorder.outputs / "one.1.log").write_bytes(b"said\n")
        recorder.record(
            *(PackStored(digest=digest, pack=pack) for digest, pack in packs.items()),
            AttemptSaved(step="one", attempt=StepAttempt(status=SUCCESS), data_catalog=entries),
            InvocationFinished.of("succeeded", time="2026-01-01T00:00:01+00:00"),
        )
        recorder.seal(catalog)
    return layout.manifests()[run_id]


def skopeo(home: Path, *arguments: str) -> str:
    """What the real skopeo prints."""
    program = shutil.which("skopeo")
    assert program, "skopeo is not installed: apt-get install -y skopeo"
    done = subprocess.run(
        [program, "--insecure-policy", *arguments], env=environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.promise
def test_another_oci_client_reads_a_run(layout: Layout, tmp_path: Path) -> None:
    """`skopeo inspect` shows its manifest, with the artifact type, the run log and a title on each layer."""
    sealed = sealed_run(layout, "run-1")
    reference = f"oci:{layout.folder}:run-1"
    raw = skopeo(tmp_path / "home", "inspect", "--raw", reference)
    assert f"sha256:{sha256(raw.encode())}" == sealed.digest
    manifest = json.loads(raw)
    assert manifest["artifactType"] == ARTIFACT_TYPE
    titles = [layer["annotations"][TITLE] for layer in manifest["layers"]]
    assert titles[0] == RUN_LOG_TITLE
    assert "catalog/large.bin" in titles
    assert [title for title in titles if title.startswith("packs/")]


def test_another_oci_client_copies_a_run_that_reads_there(layout: Layout, tmp_path: Path) -> None:
    """`skopeo copy` to another layout keeps the digest, and the run log is read from there."""
    sealed = sealed_run(layout, "run-1")
    elsewhere = Layout(tmp_path / "elsewhere")
    skopeo(tmp_path / "home", "copy", f"oci:{layout.folder}:run-1", f"oci:{elsewhere.folder}:run-1")
    assert elsewhere.resolve("run-1").digest == sealed.digest
    log = load(elsewhere, "run-1")
    assert log.status == SUCCESS
    catalog = Catalog(elsewhere, tmp_path, run_folder(elsewhere, "run-1"), dict(log.packs))
    entries = {entry.name: entry for entry in log.steps["one"].data_catalog}
    for name in ("large.bin", "small-7.txt"):
        catalog.extract(entries[name], tmp_path / "out" / name)
        assert sha256(tmp_path / "out" / name) == entries[name].data_hash


def test_another_client_may_write_into_the_store(layout: Layout, tmp_path: Path) -> None:
    """What skopeo copies in stands beside our own tags, and ours stay."""
    sealed_run(layout, "run-1")
    skopeo(tmp_path / "home", "copy", f"oci:{layout.folder}:run-1", f"oci:{layout.folder}:run-2")
    assert list(layout.tags()) == ["run-1", "run-2"]
    layout.tag(layout.resolve("run-1"), "run-3")
    assert list(layout.tags()) == ["run-1", "run-2", "run-3"]


def test_creating_a_store_twice_changes_nothing(layout: Layout) -> None:
    """`create` on a store keeps its tags; git is told to leave it alone."""
    layout.tag(layout.put_bytes(b"{}", MANIFEST_MEDIA_TYPE), "kept")
    Layout(layout.folder).create()
    assert list(Layout(layout.folder).tags()) == ["kept"]
    assert (layout.folder / ".gitignore").read_text() == "*\n"
    assert json.loads((layout.folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_a_store_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    """A file where the folder should be is named."""
    (tmp_path / "store").touch()
    with pytest.raises(StoreError, match=str(tmp_path / "store")):
        Layout(tmp_path / "store").create()


def test_equal_content_is_stored_once(layout: Layout, tmp_path: Path) -> None:
    """Two files of the same content are one blob, whose file is not written again."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"same" * 1000)
    first = layout.put_file(tmp_path / "one")
    before = path_of(layout, first).stat()
    assert layout.put_file(tmp_path / "two") == first
    assert layout.put_bytes(b"same" * 1000, first.media_type) == first
    after = path_of(layout, first).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(blobs(layout.folder)) == 1
    assert leftovers(layout.folder) == []


def test_a_stored_file_is_left_as_it_is_and_its_blob_cannot_be_written(layout: Layout, tmp_path: Path) -> None:
    """Putting a file neither moves it nor changes its mode; the blob is read-only."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "file").chmod(0o755)
    descriptor = layout.put_file(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o755
    assert path_of(layout, descriptor).stat().st_mode & 0o777 == 0o444


def test_a_taken_file_is_moved(layout: Layout, tmp_path: Path) -> None:
    """`move_file_in` needs no second copy, and drops a file whose content is stored already."""
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"taken")
    inode = (tmp_path / "one").stat().st_ino
    descriptor = layout.move_file_in(tmp_path / "one")
    assert path_of(layout, descriptor).stat().st_ino == inode
    assert layout.move_file_in(tmp_path / "two", f"sha256:{sha256(b'taken')}") == descriptor
    assert not (tmp_path / "one").exists()
    assert not (tmp_path / "two").exists()
    assert layout.read_bytes(descriptor) == b"taken"


@pytest.mark.promise
@pytest.mark.parametrize(
    ("damaged", "says"),
    [(b"tampered", "does not match its digest"), (b"cont", "ends after 4 of 8 bytes"), (b"content and", "longer")],
)
def test_damaged_content_is_refused_by_its_digest(layout: Layout, damaged: bytes, says: str) -> None:
    """Tampered, truncated or lengthened content is named and not given out, by any way of reading."""
    descriptor = layout.put_bytes(b"content!", "text/plain")
    layout.path(descriptor)
    overwrite(path_of(layout, descriptor), damaged)
    for read in (layout.read_bytes, layout.path):
        with pytest.raises(BlobCorruptError, match=says) as caught:
            read(descriptor)
        assert descriptor.digest in str(caught.value)
    assert not layout.is_intact(descriptor)


def test_missing_content_is_named(layout: Layout) -> None:
    """The digest and the store are in the message, what to do in the hint."""
    descriptor = layout.put_bytes(b"content", "text/plain")
    path_of(layout, descriptor).unlink()
    for read in (layout.read_bytes, layout.path, layout.fetch):
        with pytest.raises(BlobMissingError) as caught:
            read(descriptor)
        assert descriptor.digest in caught.value.message
        assert str(layout.folder) in caught.value.message
        assert caught.value.hint
    assert not layout.exists(descriptor)


def test_putting_the_same_content_again_heals_a_damaged_blob(layout: Layout, tmp_path: Path) -> None:
    """Bytes, a copied file, a moved file and a pushed blob each repair what was tampered with."""
    content = b"content" * 100
    (tmp_path / "file").write_bytes(content)
    descriptor = layout.put_bytes(content, "")

    def take() -> None:
        (tmp_path / "moved").write_bytes(content)
        layout.move_file_in(tmp_path / "moved")

    for heal in (
        lambda: layout.put_bytes(content, ""),
        lambda: layout.put_file(tmp_path / "file"),
        lambda: layout.push(descriptor, io.BytesIO(content)),
        take,
    ):
        overwrite(path_of(layout, descriptor), b"x" * len(content))
        heal()
        assert layout.read_bytes(descriptor) == content
        assert Layout(layout.folder).is_intact(descriptor)


def test_pushing_refuses_bytes_that_are_not_what_they_are_said_to_be(layout: Layout) -> None:
    """Nothing stays of content that does not match its descriptor."""
    wrong = Descriptor("", f"sha256:{hashlib.sha256(b'right').hexdigest()}", 5)
    for content in (b"wrong", b"righ", b"rightly"):
        with pytest.raises(BlobCorruptError, match=wrong.digest):
            layout.push(wrong, io.BytesIO(content))
    assert blobs(layout.folder) == {}
    assert leftovers(layout.folder) == []


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha512:" + "0" * 128, "sha256:" + "A" * 64, "sha256:../../../etc/passwd", "sha256:" + "0" * 65],
)
def test_only_a_sha256_digest_is_a_digest(digest: str) -> None:
    """Anything else never reaches a path."""
    with pytest.raises(BlobCorruptError, match="is not a digest"):
        Descriptor("", digest, 0)


@pytest.mark.parametrize("tag", ["", ".hidden", "a/b", "a b", "a:b", "a" * 129, "tag\n"])
def test_only_a_tag_can_be_tagged(layout: Layout, tag: str) -> None:
    """What other clients would refuse is refused here."""
    with pytest.raises(StoreError, match="is not a tag"):
        layout.tag(layout.put_bytes(b"{}", MANIFEST_MEDIA_TYPE), tag)
    assert list(layout.tags()) == []


def test_a_tag_can_be_moved_and_resolved(layout: Layout) -> None:
    """A tag stands for one manifest, the last that it was given; a manifest is found by its digest too."""
    one, two = (layout.put_bytes(content, MANIFEST_MEDIA_TYPE) for content in (b"{}", b"[]"))
    layout.tag(one, "run")
    layout.tag(two, "run")
    assert layout.resolve("run").digest == two.digest
    assert layout.resolve(one.digest).size == 2
    assert len(index_of(layout.folder)["manifests"]) == 1
    with pytest.raises(ManifestNotFoundError) as caught:
        layout.resolve("rum")
    assert "`run`" in caught.value.hint


def test_two_processes_that_tag_at_once_lose_nothing(tmp_path: Path) -> None:
    """All hundred tags of two processes are there, and each of them in its order."""
    store = tmp_path / "store"
    processes = [subprocess.Popen([sys.executable, "-c", TAGGING, str(store), name]) for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    tags = list(Layout(store).tags())
    assert sorted(tags) == sorted(f"{name}-{i}" for name in ("a", "b") for i in range(50))
    assert [tag for tag in tags if tag.startswith("a")] == [f"a-{i}" for i in range(50)]
    assert leftovers(store) == []


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"manifests": {}}',
        b'{"manifests": null}',
        b'{"manifests": [7]}',
        b'{"manifests": [{"annotations": []}]}',
        b'{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "x"}}]}',
        b'{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": ["x"]}, "digest": "x", "size": 1}]}',
        b'{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "x"}, "digest": 7, "size": 1}]}',
        b'{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "x"}, "digest": "sha256:'
        + b"0" * 64
        + b'", "size": "much"}]}',
        b'{"manifests": ' + b"[" * 100_000,
    ],
)
def test_a_damaged_index_is_one_clear_error(layout: Layout, index: bytes) -> None:
    """Whatever stands in index.json, reading and tagging say that it is damaged, and leave it alone."""
    (layout.folder / "index.json").write_bytes(index)
    descriptor = layout.put_bytes(b"{}", MANIFEST_MEDIA_TYPE)
    with pytest.raises(StoreError, match=r"index\.json is damaged"):
        layout.manifests()
    with pytest.raises(StoreError, match=r"index\.json is damaged"):
        layout.tag(descriptor, "new")
    assert (layout.folder / "index.json").read_bytes() == index


def test_an_index_with_a_digest_that_leads_elsewhere_reads_nothing(layout: Layout, tmp_path: Path) -> None:
    """A digest that is a path is refused before any file is opened."""
    (tmp_path / "secret").write_text("{}")
    entry = {
        "mediaType": MANIFEST_MEDIA_TYPE,
        "digest": "sha256:../../../secret",
        "size": 2,
        "annotations": {"org.opencontainers.image.ref.name": "run"},
    }
    (layout.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    with pytest.raises(StoreError):
        layout.resolve("run")


def test_an_entry_that_was_changed_says_no_more_than_its_digest(layout: Layout) -> None:
    """What stands beside a digest has a check; in any order, and of another program's entry there is none."""
    descriptor = layout.put_bytes(b"{}", MANIFEST_MEDIA_TYPE)
    layout.tag(replace(descriptor, annotations={"b": "12.5", "a": "x"}), "t")
    assert layout.manifests()["t"].annotations.items() > {"a": "x", "b": "12.5"}.items()
    index = index_of(layout.folder)
    (entry,) = index["manifests"]
    entry["annotations"] = dict(sorted(entry["annotations"].items()))
    (layout.folder / "index.json").write_text(json.dumps(index))
    assert layout.manifests()["t"].annotations["b"] == "12.5"
    entry["annotations"]["b"] = "92.5"
    (layout.folder / "index.json").write_text(json.dumps(index))
    assert layout.manifests()["t"] == replace(descriptor, annotations={"org.opencontainers.image.ref.name": "t"})
    layout.tag(replace(descriptor, annotations={"b": "92.5"}), "t")
    assert layout.manifests()["t"].annotations["b"] == "92.5"


def test_entries_without_a_tag_are_passed_over_and_kept(layout: Layout) -> None:
    """An OCI index may hold manifests without a name; tagging does not drop them."""
    nameless = {"mediaType": MANIFEST_MEDIA_TYPE, "digest": "sha256:" + "0" * 64, "size": 2}
    other = {**nameless, "annotations": None}
    (layout.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [nameless, other]}))
    layout.tag(layout.put_bytes(b"{}", MANIFEST_MEDIA_TYPE), "run")
    assert list(layout.tags()) == ["run"]
    assert index_of(layout.folder)["manifests"][:2] == [nameless, other]
    layout.untag({"run"})
    assert index_of(layout.folder)["manifests"] == [nameless, other]


def test_a_manifest_that_is_not_one_is_refused(layout: Layout) -> None:
    """A tag on other content gives an error with the digest, not a traceback."""
    for content in (b"[]", b"text", b"7", b"[" * 100_000):
        layout.tag(layout.put_bytes(content, MANIFEST_MEDIA_TYPE), "run")
        with pytest.raises(BlobCorruptError, match="sha256:"):
            layout.manifest(layout.resolve("run"))


def test_a_copy_of_a_store_without_its_empty_folders_works(layout: Layout, tmp_path: Path) -> None:
    """Archives and git drop empty folders; content can be stored all the same."""
    shutil.rmtree(layout.folder / "tmp")
    shutil.rmtree(layout.folder / "blobs")
    layout.create()
    assert layout.read_bytes(layout.put_bytes(b"x", "")) == b"x"
    (tmp_path / "file").write_bytes(b"y")
    layout.put_file(tmp_path / "file")
    assert sorted(path.read_bytes() for path in blobs(layout.folder).values()) == [b"x", b"y"]


def test_memory_does_not_grow_with_a_stored_file(tmp_path: Path) -> None:
    """Storing and checking 200 MB takes a few MB of memory."""
    with (tmp_path / "large").open("wb") as file:
        file.truncate(200_000_000)
    code = (
        "import resource, sys; from pathlib import Path; from runnable_ci.store.local import Layout\n"
        "layout = Layout(Path(sys.argv[1])); layout.create()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "stored = layout.put_file(Path(sys.argv[2]))\n"
        "assert Layout(layout.folder).is_intact(stored)\n"
        "print(peak() - before)"
    )
    done = python(code, str(tmp_path / "store"), str(tmp_path / "large"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30_000
