"""Packs: what is found where, and a tar that any program reads."""

from __future__ import annotations

import io
import tarfile

import pytest
from support import sha256

from runnable_ci.errors import BlobCorruptError
from runnable_ci.runs.files.packs import PACK_MAX_BYTES, PackIndex, PackWriter, Section
from runnable_ci.runs.model import Pack

CONTENTS = {
    "a.txt": b"first",
    "empty": b"",
    "block": bytes(512),
    "ordner/äöü-" + "n" * 200: b"a header of more than one block",
    "last": bytes(range(256)) * 5,
}


def packed() -> tuple[bytes, PackWriter]:
    file = io.BytesIO()
    writer = PackWriter(file)
    for name, content in CONTENTS.items():
        writer.add(name, sha256(content), content)
    writer.end()
    return file.getvalue(), writer


def test_a_pack_is_a_tar_and_its_members_lie_at_their_offsets() -> None:
    """The run log's offsets and a tar's own headers lead to the same bytes, whatever the names are."""
    raw, writer = packed()
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        read = {member.name: tar.extractfile(member) for member in tar}
        assert {name: file.read() for name, file in read.items() if file} == CONTENTS
    for content in CONTENTS.values():
        offset, size = writer.members[sha256(content)]
        with Section(io.BytesIO(raw), offset, size) as section:
            assert section.readall() == content


def test_equal_contents_make_an_equal_pack() -> None:
    """Nothing of the machine, the user or the time is in it: it is stored and sent once."""
    assert packed()[0] == packed()[0]


def test_the_index_names_the_blob_that_holds_a_content() -> None:
    """A pack where one holds it, also one that was added later; else the content's own blob."""
    first, second = map(sha256, (b"pack 1", b"pack 2"))
    inner, later, alone = map(sha256, (b"inner", b"later", b"alone"))
    index = PackIndex({first: Pack(size=2048, members={inner: (512, 5)})})
    assert index.blob_of(inner, 5).hex == first
    assert index.blob_of(inner, 5).size == 2048
    assert (index.blob_of(later, 7).hex, index.blob_of(alone, 9).size) == (later, 9)
    index.add(second, Pack(size=4096, members={later: (512, 7)}))
    assert (index.blob_of(later, 7).hex, index.section(later)) == (second, (512, 7))
    assert alone not in index


@pytest.mark.parametrize("place", [(-1, 5), (0, -5), (2040, 9), (2**70, 1), (512, 2**70)])
def test_a_place_outside_of_the_pack_is_refused(place: tuple[int, int]) -> None:
    """A run log of elsewhere may say anything: nothing is read there."""
    index = PackIndex({sha256(b"pack"): Pack(size=2048, members={sha256(b"inner"): place})})
    with pytest.raises(BlobCorruptError, match=sha256(b"inner")):
        index.section(sha256(b"inner"))


def test_a_pack_is_full_at_its_size() -> None:
    """What comes after that belongs into another one."""
    writer = PackWriter(io.BytesIO())
    writer.size_bytes = PACK_MAX_BYTES - 512
    assert not writer.is_full()
    writer.add("name", sha256(b""), b"")
    assert writer.is_full()
