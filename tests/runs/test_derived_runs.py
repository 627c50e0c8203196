"""Runs as registries take them that refuse artifacts or large blobs: read back by us and by plain clients."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deviations import coded, only_images
from oras.client import OrasClient
from published_runs import contents, got, record, sent, store
from registry_server import Served, described, program, registry, serving

from runnable_ci.config import Settings
from runnable_ci.errors import BlobCorruptError, RegistryProtocolError
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.derived import derive
from runnable_ci.runs.remote.listing import published
from runnable_ci.runs.remote.manifest_forms import as_image, in_pieces, piece_sizes, wholes
from runnable_ci.runs.remote.pull import pull
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.store.copy import copy
from runnable_ci.store.local import Layout
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor, manifest_parts

MOST = 100_000
FILES = {"a.txt": b"alpha", "big.bin": os.urandom(300_007)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def parts_of(raw: bytes) -> list[Descriptor]:
    return manifest_parts(raw, described(raw, MANIFEST_MEDIA_TYPE), label="here")


def manifest_at(target: Registry, reference: str) -> tuple[Descriptor, dict[str, Any]]:
    manifest = target.resolve(reference)
    with target.fetch(manifest) as content:
        return manifest, json.loads(content.read())


def own(layout: Layout) -> tuple[Descriptor, dict[str, Any]]:
    return layout.resolve("r"), layout.manifest(layout.resolve("r"))


def copied_by_skopeo(source: str, target: str, folder: Path, *more: str) -> None:
    command = [program("skopeo", "skopeo"), "--insecure-policy", "--tmpdir", str(folder), "copy"]
    options = ["--src-tls-verify=false"] if source.startswith("docker:") else ["--dest-tls-verify=false"]
    done = subprocess.run([*command, *more, *options, source, target], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr


def pulled_by_oras(repository: str, folder: Path) -> Path:
    folder.mkdir()
    OrasClient(hostname=repository.split("/")[0], insecure=True).pull(target=f"{repository}:r", outdir=str(folder))
    return folder


@pytest.mark.parametrize("layers_too", [False, True])
def test_a_run_as_an_image_is_read_by_all(tmp_path: Path, served: Served, layers_too: bool) -> None:
    """What a registry of images alone holds is a run for us, and for plain clients the same files and bytes."""
    here = store(tmp_path / "here")
    log = record(here, "load", FILES)
    switch = only_images(coded(400, "MANIFEST_INVALID"), layers_too=layers_too)
    with serving(switch(), upstream=served) as server:
        remote = Registry(server.repository(), environ={})
        first = sent(here, remote)
        manifest, image = manifest_at(remote, "r")
        assert first.reference.endswith(manifest.digest)
        assert "digest is another one" in first.notes[0]
        assert manifest.digest != here.resolve("r").digest == image["annotations"]["vnd.runnable.derived-from"]
        assert sent(here, remote).sent is None
        there, _ = got(tmp_path / "there", remote)
        assert (load(there, "r"), contents(there)) == (log, FILES)
        assert there.resolve("r").digest == here.resolve("r").digest

        folder, direct = tmp_path / "skopeo", remote.label.replace(server.host, served.host)
        # else it packs what has the type of an image's layer
        options = ["--preserve-digests"] if layers_too else []
        copied_by_skopeo(f"docker://{direct}:r", f"oci:{folder}:r", tmp_path, *options)
        assert load(Layout(folder), "r") == log
        assert contents(Layout(folder)) == FILES
        tree = pulled_by_oras(remote.label, tmp_path / "oras")
        assert {name: (tree / "catalog" / name).read_bytes() for name in FILES} == FILES

        again = f"{direct}-again"
        copied_by_skopeo(f"oci:{folder}:r", f"docker://{again}:r", tmp_path, *options)
        assert [run.run_id for run in published(Registry(again, environ={}))] == ["r"]


def test_a_retry_of_an_image_is_merged_with_it(tmp_path: Path, served: Served) -> None:
    """Two stores that publish to a registry of images alone lose nothing of each other."""
    here = store(tmp_path / "here")
    record(here, "load", FILES)
    with serving(only_images(coded(415, "UNSUPPORTED"))(), upstream=served) as server:
        remote = Registry(server.repository(), environ={})
        sent(here, remote)
        there, _ = got(tmp_path / "there", remote)
        record(there, "more", {"b.txt": b"beta"})
        record(here, "other", {"c.txt": b"gamma"})
        sent(there, remote)
        sent(here, remote)
        pull(there, remote, "r")
        assert contents(there) == {**FILES, "b.txt": b"beta", "c.txt": b"gamma"}


def test_a_registry_that_takes_no_image_either_is_an_error(tmp_path: Path, served: Served) -> None:
    """All three forms are tried, and no tag is set."""
    here = store(tmp_path / "here")
    record(here, "load", FILES)

    def hook(seen: Any, forward: Any) -> Any:
        is_manifest = seen.method == "PUT" and "/manifests/" in seen.path
        return coded(400, "MANIFEST_INVALID", "nothing suits me") if is_manifest else forward()

    with serving(hook, upstream=served) as server:
        remote = Registry(server.repository(), environ={})
        with pytest.raises(RegistryProtocolError, match="nothing suits me"):
            sent(here, remote)
        assert server.count("PUT", "/manifests/") == 3
        assert list(remote.tags()) == []


@pytest.mark.parametrize("as_images", [False, True])
def test_large_content_goes_in_pieces(tmp_path: Path, served: Served, as_images: bool) -> None:
    """No blob is larger than the limit; we join and verify the pieces, and `cat` does after a plain pull."""
    here = store(tmp_path / "here")
    log = record(here, "load", FILES)
    switch = only_images(coded(400, "MANIFEST_INVALID")) if as_images else lambda: lambda _, forward: forward()
    with serving(switch(), upstream=served) as server:
        remote = Registry(server.repository(), environ={}, blob_max_bytes=MOST)
        sent(here, remote)
        assert max(len(seen.body) for seen in server.seen) <= MOST
        assert sent(here, remote).sent is None
        there, pulled = got(tmp_path / "there", remote)
        assert (load(there, "r"), contents(there), pulled.left.blobs) == (log, FILES, 0)
        assert pulled.fetched.size_bytes >= len(FILES["big.bin"])
        tree = pulled_by_oras(remote.label, tmp_path / "oras")
        names = sorted(path.name for path in (tree / "catalog").iterdir() if "part" in path.name)
        assert names == [f"big.bin.part-000{number}" for number in (1, 2, 3, 4)]
        assert b"".join((tree / "catalog" / name).read_bytes() for name in names) == FILES["big.bin"]


def test_pieces_are_copied_as_any_content(tmp_path: Path, served: Served) -> None:
    """A copy to a folder and from there to another registry, by us or another client, is still the run."""
    here = store(tmp_path / "here")
    record(here, "load", FILES)
    remote = Registry(served.repository(), environ={}, blob_max_bytes=MOST)
    sent(here, remote)
    for copied in ("by us", "by skopeo"):
        folder, other = Layout(tmp_path / copied), Registry(served.repository(), environ={})
        folder.create()
        if copied == "by us":
            copy(remote, "r", folder)
            copy(folder, "r", other)
        else:
            copied_by_skopeo(f"docker://{remote.label}:r", f"oci:{folder.folder}:r", tmp_path)
            copied_by_skopeo(f"oci:{folder.folder}:r", f"docker://{other.label}:r", tmp_path)
        there, _ = got(tmp_path / f"{copied}, pulled", other)
        assert contents(there) == FILES


def test_pieces_of_other_bytes_are_refused(tmp_path: Path, served: Served) -> None:
    """Pieces that are sound in themselves do not make another whole of what the run log names."""
    here = store(tmp_path / "here")
    record(here, "load", FILES)
    descriptor, manifest = own(here)
    evil = os.urandom(len(FILES["big.bin"]))
    forged = json.dumps(in_pieces(manifest, descriptor.digest, {described(FILES["big.bin"]).digest: [described(evil)]}))
    remote = Registry(served.repository(), environ={})
    copy(here, "r", remote, as_reference="whole")
    remote.push(described(evil), io.BytesIO(evil))
    raw = described(forged.encode(), MANIFEST_MEDIA_TYPE)
    remote.push(raw, io.BytesIO(forged.encode()))
    there = store(tmp_path / "there")
    with pytest.raises(BlobCorruptError, match="does not match its digest"):
        pull(there, remote, raw.digest)
    assert not there.exists(described(FILES["big.bin"]))


def whole_of(*pieces: tuple[int, int], size: int, digest: str = f"sha256:{'a' * 64}") -> Mapping[str, Any]:
    """What is read of pieces with these offsets and sizes."""
    stated = {"vnd.runnable.piece-of": digest, "vnd.runnable.whole-size": str(size)}
    return wholes(
        [
            Descriptor("x", f"sha256:{number:064}", length, {**stated, "vnd.runnable.piece-offset": str(offset)})
            for number, (offset, length) in enumerate(pieces)
        ]
    )


def test_only_pieces_that_fit_make_a_whole() -> None:
    """Gaps, overlaps, a missing end and a digest that is none are no whole; the order in the manifest is no matter."""
    assert next(iter(whole_of((0, 5), (5, 5), (10, 2), size=12).values())).blob.size == 12
    assert [piece.size for piece in next(iter(whole_of((5, 7), (0, 5), size=12).values())).pieces] == [5, 7]
    assert whole_of((0, 5), (6, 6), size=12) == {}
    assert whole_of((0, 5), (4, 8), size=12) == {}
    assert whole_of((0, 5), (5, 5), size=12) == {}
    assert whole_of((5, 7), size=12) == {}
    assert whole_of((0, 12), size=12, digest="sha256:../../x") == {}


@pytest.mark.parametrize(
    ("size", "expected"), [(0, [0]), (1, [1]), (10, [10]), (11, [10, 1]), (20, [10, 10]), (25, [10, 10, 5])]
)
def test_pieces_have_the_given_size_but_the_last(size: int, expected: list[int]) -> None:
    """Together they are the whole."""
    assert piece_sizes(size, 10) == expected


def test_a_derived_manifest_is_the_same_each_time(tmp_path: Path) -> None:
    """So what stands in a registry already is not sent again, by whichever store."""
    here = store(tmp_path / "here")
    record(here, "load", FILES)
    descriptor, manifest = own(here)
    config, image = as_image(manifest, descriptor.digest, "layers")
    assert len(json.loads(config)["rootfs"]["diff_ids"]) == len(image["layers"])
    first, second = (derive(here, descriptor, blob_max_bytes=MOST, form="config").derived for _ in range(2))
    assert first == second != descriptor
    assert derive(here, descriptor, blob_max_bytes=10**9).derived == descriptor


def test_the_size_of_a_piece_is_a_setting() -> None:
    """`RUNNABLE_CI_BLOB_MAX_MIB`, 4 GiB where nothing is set."""
    where = parse_reference("registry.test/o/r")
    assert Registries(Settings(), {}).open(where).blob_max_bytes == 4 * 1024**3
    assert Registries(Settings(blob_max_mib=2), {}).open(where).blob_max_bytes == 2 * 1024**2
