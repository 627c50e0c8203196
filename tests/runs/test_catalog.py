"""Files between the workspace and the store: what globs mean, what is stored, what a get restores and refuses."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support import blobs, leftovers, python, sha256, wait_until

from runnable_ci.errors import BlobCorruptError, BlobMissingError, StepError, UnsafePathError
from runnable_ci.pipeline.patterns import matches
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.packs import PACK_MAX_BYTES, PACK_MIN_FILES, PACKED_FILE_MAX_BYTES
from runnable_ci.runs.model import CatalogEntry, Pack
from runnable_ci.store.local import Layout

MANY = PACK_MIN_FILES + 4


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """The empty catalog of a run in an empty workspace."""
    return fresh(tmp_path)


def fresh(tmp_path: Path, packs: dict[str, Pack] | None = None) -> Catalog:
    """A catalog as a new process has it, which knows the packs that were recorded."""
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    layout = Layout(workspace / ".runnable")
    layout.create()
    return Catalog(layout, workspace, layout.folder / "runs" / "run-1", dict(packs or {}))


def write(catalog: Catalog, *names: str, content: str = "content of {}") -> None:
    for name in names:
        path = catalog.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content.format(name))


def many(catalog: Catalog, count: int = MANY, folder: str = "many") -> list[str]:
    names = [f"{folder}/{i:04}.txt" for i in range(count)]
    write(catalog, *names)
    return names


def put(catalog: Catalog, patterns: Sequence[str]) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    """Store what the globs match, as an attempt does."""
    found = catalog.files.expand(patterns).values()
    return catalog.put(sorted({name for names in found for name in names}))


def by_name(entries: list[CatalogEntry]) -> dict[str, CatalogEntry]:
    return {entry.name: entry for entry in entries}


def blob(catalog: Catalog, digest: str) -> Path:
    return blobs(catalog.layout.folder)[digest]


def damage(path: Path, at: int = 0) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff\xfe")


# -- names


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a.txt", "a.txt", True),
        ("a.txt", "b/a.txt", False),
        ("./a.txt", "a.txt", True),
        ("*.txt", "a.txt", True),
        ("*.txt", "b/a.txt", False),
        ("*.txt", "a.txt.gz", False),
        ("*/a.txt", "b/a.txt", True),
        ("*/a.txt", "a.txt", False),
        ("**/a.txt", "a.txt", True),
        ("**/a.txt", "b/c/a.txt", True),
        ("b/**/a.txt", "b/a.txt", True),
        ("b/**/a.txt", "b/c/d/a.txt", True),
        ("b/**/a.txt", "c/a.txt", False),
        ("b/**", "b/c/a.txt", True),
        ("**", "b/c/a.txt", True),
        ("b", "b/a.txt", True),
        ("b/", "b/c/a.txt", True),
        ("b", "bc/a.txt", False),
        ("b/c", "b", False),
        ("*", ".hidden", True),
        ("*", "b/.hidden", True),
        ("a[12].txt", "a1.txt", True),
        ("a[!12].txt", "a1.txt", False),
        ("a?.txt", "a1.txt", True),
        ("A.txt", "a.txt", False),
    ],
)
def test_what_a_glob_means(catalog: Catalog, pattern: str, name: str, expected: bool) -> None:
    """A glob means a file or a folder above it, and the disk is searched by the same rule."""
    assert matches(pattern, name) is expected
    write(catalog, name)
    assert (name in catalog.files.expand([pattern])[pattern]) is expected


def test_names_are_sorted_and_given_in_one_form(catalog: Catalog) -> None:
    """However a glob is written, a file has one name, with forward slashes and without dots."""
    write(catalog, "b/2", "b/1", "a")
    assert catalog.files.expand(["b", "./b/*", "b/./1", "b//2", "**/*", "nothing/*"]) == {
        "b": ["b/1", "b/2"],
        "./b/*": ["b/1", "b/2"],
        "b/./1": ["b/1"],
        "b//2": ["b/2"],
        "**/*": ["a", "b/1", "b/2"],
        "nothing/*": [],
    }


@pytest.mark.promise
@pytest.mark.parametrize(
    "pattern", ["**/*", "**", "*", ".", "./*", "./.runnable", ".git", "./.git/**", "sub", "sub/.git/*"]
)
def test_the_store_and_git_are_never_matched(catalog: Catalog, pattern: str) -> None:
    """No glob reaches `.runnable` or a `.git`, at the top or in a repository below."""
    write(catalog, ".git/config", ".runnable/file", "sub/.git/config", "sub/kept", "kept")
    found = set(catalog.files.expand([pattern])[pattern])
    assert found <= {"kept", "sub/kept"}
    assert ("sub/kept" in found) is (pattern in ("**/*", "**", "*", ".", "./*", "sub"))


def test_a_link_inside_the_workspace_is_followed(catalog: Catalog) -> None:
    """A linked file and the files of a linked folder are matched under the names of the links."""
    write(catalog, "data/real")
    (catalog.workspace / "link").symlink_to("data/real")
    (catalog.workspace / "folder").symlink_to("data")
    assert catalog.files.expand(["link", "folder/*"]) == {"link": ["link"], "folder/*": ["folder/real"]}
    entries = by_name(put(catalog, ["link", "data/real"])[0])
    assert entries["link"].data_hash == entries["data/real"].data_hash


@pytest.mark.parametrize("pattern", ["file", "folder", "folder/*", "**/*"])
def test_a_link_that_leaves_the_workspace_is_refused(catalog: Catalog, tmp_path: Path, pattern: str) -> None:
    """Nothing outside of the workspace is stored by way of a link, and the link is named."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (catalog.workspace / "file").symlink_to(tmp_path / "outside" / "secret")
    (catalog.workspace / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafePathError, match="points outside the workspace"):
        put(catalog, [pattern])
    assert blobs(catalog.layout.folder) == {}


# -- put


def test_put_tells_what_it_stored(catalog: Catalog) -> None:
    """An entry has the hash of the whole file, its size, mode, media type and place."""
    write(catalog, "out/plot.png")
    (catalog.workspace / "out" / "plot.png").chmod(0o755)
    entries, packs = put(catalog, ["out/*.png"])
    assert packs == {}
    assert entries == [
        CatalogEntry(
            name="out/plot.png",
            data_hash=sha256(b"content of out/plot.png"),
            catalog_relative_path="run-1/out/plot.png",
            stage="put",
            size=23,
            media_type="image/png",
            mode=0o755,
            mtime_ns=(catalog.workspace / "out" / "plot.png").stat().st_mtime_ns,
        )
    ]
    assert blob(catalog, entries[0].data_hash).read_bytes() == b"content of out/plot.png"


def test_put_takes_empty_large_and_oddly_named_files(catalog: Catalog) -> None:
    """Emptiness, size, blanks, quotes, newlines and other scripts are no hindrance."""
    names = ["empty", "großes Bild 日本.png", "quote\"'$(x)", "new\nline", "-dash", "percent%20", "back\\slash"]
    write(catalog, *names[1:])
    (catalog.workspace / "empty").touch()
    with (catalog.workspace / "large").open("wb") as file:
        file.truncate(3 * 1024 * 1024)
    entries = by_name(put(catalog, ["*"])[0])
    assert sorted(entries) == sorted([*names, "large"])
    assert entries["large"].data_hash == sha256(catalog.workspace / "large")
    for name in names:
        (catalog.workspace / name).unlink()
    catalog.get(entries[name] for name in names)
    assert (catalog.workspace / "new\nline").read_text() == "content of new\nline"
    assert (catalog.workspace / "empty").read_bytes() == b""


def test_a_name_that_is_not_text_fails_the_step(catalog: Catalog) -> None:
    """A file name that JSON cannot hold is refused with the name made readable."""
    Path(os.fsdecode(os.fsencode(catalog.workspace) + b"/bad-\xff.txt")).touch()
    with pytest.raises(StepError, match="UTF-8") as caught:
        put(catalog, ["*.txt"])
    caught.value.message.encode()


def test_a_name_that_could_not_be_restored_fails_the_step(catalog: Catalog) -> None:
    """What a reader of the run would have to refuse is not put in the first place."""
    write(catalog, "~user")
    with pytest.raises(StepError, match="a file has a path outside the workspace") as caught:
        put(catalog, ["*"])
    assert caught.value.hint == "give it another name"


def test_files_that_come_and_go_while_they_are_put_fail_the_step_at_most(catalog: Catalog) -> None:
    """A file that another process removes in between is an error of the step, never a crash."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            write(catalog, *(f"out/{i}" for i in range(30)))
            for i in range(30):
                (catalog.workspace / "out" / str(i)).unlink()

    write(catalog, "out/stays")
    other = threading.Thread(target=come_and_go)
    other.start()
    refused = 0
    try:
        for _ in range(60):
            try:
                put(catalog, ["out"])
            except StepError as e:
                refused += 1
                assert "out/" in e.message
    finally:
        over.set()
        other.join()
    assert refused


# -- packs


def test_many_small_files_are_one_deterministic_tar(catalog: Catalog, tmp_path: Path) -> None:
    """A pack is a tar that Python reads; equal files make an equal pack, whenever and wherever."""
    names = [*many(catalog), "many/" + "long-" * 30 + "ü.txt"]
    write(catalog, names[-1])
    entries, packs = put(catalog, ["many"])
    [(digest, pack)] = packs.items()
    assert pack.size == blob(catalog, digest).stat().st_size
    with tarfile.open(blob(catalog, digest)) as tar:
        content = {member.name: tar.extractfile(member) for member in tar}
        assert {name: file.read() for name, file in content.items() if file} == {
            name: f"content of {name}".encode() for name in names
        }
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}
    assert len(blobs(catalog.layout.folder)) == 1
    for entry in entries:
        assert b"".join(catalog.read(entry.data_hash, entry.size)) == f"content of {entry.name}".encode()
    (tmp_path / "again").mkdir()
    again = fresh(tmp_path / "again")
    many(again)
    write(again, names[-1])
    os.utime(again.workspace / names[0], (1, 1))
    assert put(again, ["many"])[1].keys() == {digest}


def test_few_small_files_and_large_ones_are_stored_alone(catalog: Catalog) -> None:
    """A pack is for many small files only."""
    names = many(catalog, PACK_MIN_FILES)
    assert put(catalog, names[1:])[1] == {}
    with (catalog.workspace / "many" / "large").open("wb") as file:
        file.truncate(PACKED_FILE_MAX_BYTES + 1)
    entries, packs = put(catalog, ["many"])
    assert by_name(entries)["many/large"].data_hash in blobs(catalog.layout.folder)
    assert len(packs) == 1
    [pack] = packs.values()
    assert pack.members.keys() == {by_name(entries)[names[0]].data_hash}


def test_content_that_is_stored_already_is_not_packed_again(catalog: Catalog) -> None:
    """Loose blobs, earlier packs and doubles within a pack are found by their content."""
    names = many(catalog)
    loose = by_name(put(catalog, [names[0]])[0])[names[0]]
    write(catalog, "many/double", content=f"content of {names[1]}")
    packs = put(catalog, ["many"])[1]
    [pack] = packs.values()
    assert loose.data_hash not in pack.members
    assert len(pack.members) == MANY - 1
    before = blobs(catalog.layout.folder).keys()
    write(catalog, *(f"copy/{i}" for i in range(MANY)), content=f"content of {names[2]}")
    assert put(catalog, ["many", "copy"])[0]
    assert blobs(catalog.layout.folder).keys() == before
    many(catalog)
    put(fresh(catalog.workspace.parent, packs), ["many"])
    assert blobs(catalog.layout.folder).keys() == before


def test_an_entry_never_depends_on_a_pack_that_only_another_step_records(catalog: Catalog) -> None:
    """Where a parallel step packed the same content, its pack is given with these entries too: either may be lost."""
    names = many(catalog)
    first = put(catalog, ["many"])
    second = put(catalog, ["many"])
    assert second[1] == first[1]
    later = fresh(catalog.workspace.parent, second[1])
    for entry in second[0]:
        assert b"".join(later.read(entry.data_hash, entry.size))
    assert put(later, ["many"])[1] == {}
    assert len(names) == len(second[0])


def test_a_damaged_pack_is_written_again(catalog: Catalog) -> None:
    """Putting the files once more repairs the pack that holds them."""
    names = many(catalog)
    entries, packs = put(catalog, ["many"])
    [digest] = packs
    damage(blob(catalog, digest), 514)
    later = fresh(catalog.workspace.parent, packs)
    with pytest.raises(BlobCorruptError):
        later.extract(entries[0], catalog.workspace / "x")
    put(later, names)
    for entry in entries:
        assert sha256(b"".join(later.read(entry.data_hash, entry.size))) == entry.data_hash


def test_two_thousand_files_go_and_come_back(catalog: Catalog) -> None:
    """All of them are restored, from few blobs."""
    names = many(catalog, 2000)
    entries, packs = put(catalog, ["many"])
    assert len(blobs(catalog.layout.folder)) == len(packs) == 1
    for name in names:
        (catalog.workspace / name).unlink()
    later = fresh(catalog.workspace.parent, packs)
    taken, replaced = later.get(entries)
    assert replaced == []
    assert [entry.name for entry in taken] == names
    assert [(catalog.workspace / name).read_text() for name in names] == [f"content of {name}" for name in names]
    assert leftovers(catalog.workspace) == []


def test_a_pack_does_not_grow_without_end(catalog: Catalog) -> None:
    """More small content than fits one pack makes another."""
    count = PACK_MAX_BYTES // PACKED_FILE_MAX_BYTES + 20
    (catalog.workspace / "many").mkdir()
    for i in range(count):
        (catalog.workspace / "many" / str(i)).write_bytes(i.to_bytes(4, "big") * (PACKED_FILE_MAX_BYTES // 4))
    packs = put(catalog, ["many"])[1]
    assert len(packs) == 2
    assert sum(len(pack.members) for pack in packs.values()) == count
    assert max(pack.size for pack in packs.values()) < PACK_MAX_BYTES + 2 * PACKED_FILE_MAX_BYTES


# -- get


def test_a_file_that_is_there_is_not_touched(catalog: Catalog) -> None:
    """Its times and inode stay, and a get entry is recorded."""
    write(catalog, "file")
    entries, _ = put(catalog, ["file"])
    entries[0].source = "step"
    before = (catalog.workspace / "file").stat()
    for other in (catalog, fresh(catalog.workspace.parent)):
        taken, replaced = other.get(entries)
        assert replaced == []
        assert [(entry.name, entry.stage, entry.source) for entry in taken] == [("file", "get", "step")]
    after = (catalog.workspace / "file").stat()
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def test_restored_files_are_not_synced_one_by_one(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small files cost no wait for the disk each: the store has them, whatever happens to the machine."""
    names = many(catalog)
    entries, packs = put(catalog, ["many/*"])
    for name in names:
        (catalog.workspace / name).unlink()
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    fresh(catalog.workspace.parent, packs).get(entries)
    assert synced == []
    assert [(catalog.workspace / name).read_text() for name in names] == [f"content of {name}" for name in names]


def test_a_missing_file_is_restored_with_its_mode(catalog: Catalog) -> None:
    """Folders are made, the execute bit comes back, no other process's file mask is overruled to nothing."""
    write(catalog, "deep/er/tool.sh")
    (catalog.workspace / "deep/er/tool.sh").chmod(0o755)
    entries, _ = put(catalog, ["deep"])
    (catalog.workspace / "deep/er/tool.sh").unlink()
    (catalog.workspace / "deep/er").rmdir()
    (catalog.workspace / "deep").rmdir()
    assert catalog.get(entries)[1] == []
    restored = catalog.workspace / "deep/er/tool.sh"
    assert restored.read_text() == "content of deep/er/tool.sh"
    assert restored.stat().st_mode & 0o777 == 0o755
    restored.write_text("can be written")


def test_a_changed_file_that_is_nowhere_else_is_kept_aside(catalog: Catalog) -> None:
    """Work that the store does not hold is moved to the run's `replaced` folder, and said so."""
    write(catalog, "out/file")
    entries, _ = put(catalog, ["out"])
    write(catalog, "out/file", content="my own work")
    assert catalog.get(entries)[1] == ["out/file"]
    assert (catalog.workspace / "out/file").read_text() == "content of out/file"
    assert (catalog.run_folder / "replaced/out/file").read_text() == "my own work"


def test_a_changed_file_that_is_stored_is_just_replaced(catalog: Catalog) -> None:
    """Content that is in the store, alone or in a pack, is not kept twice."""
    names = many(catalog)
    first, _ = put(catalog, ["many"])
    write(catalog, names[0], content="second")
    put(catalog, [names[0]])
    assert catalog.get(first)[1] == []
    write(catalog, names[0], content=f"content of {names[1]}")
    assert catalog.get(first)[1] == []
    assert not (catalog.run_folder / "replaced").exists()
    assert (catalog.workspace / names[0]).read_text() == f"content of {names[0]}"


def test_both_versions_of_a_name_are_kept(catalog: Catalog) -> None:
    """Two steps that put the same name each have their content restored."""
    write(catalog, "file", content="first")
    first, _ = put(catalog, ["file"])
    write(catalog, "file", content="second")
    second, _ = put(catalog, ["file"])
    for entries, content in ((first, "first"), (second, "second"), (first, "first")):
        catalog.get(entries)
        assert (catalog.workspace / "file").read_text() == content


def test_a_change_that_keeps_size_and_times_is_seen_later(catalog: Catalog) -> None:
    """The file's status change time cannot be set back, so an edited file is never taken for the old one."""
    write(catalog, "file", content="first")
    path = catalog.workspace / "file"
    os.utime(path, ns=(0, 0))
    first = catalog.files.hash_of("file")
    assert catalog.files.hash_of("file") == first
    path.write_text("other")
    os.utime(path, ns=(0, 0))
    assert catalog.files.hash_of("file") == sha256(b"other")


@pytest.mark.parametrize("packed", [False, True])
def test_a_tampered_blob_is_named_refused_and_can_be_repaired(catalog: Catalog, packed: bool) -> None:
    """Of a damaged blob nothing reaches the workspace; the error names the blob, and putting it back is enough."""
    names = many(catalog, MANY if packed else 1)
    entries, packs = put(catalog, ["many"])
    digest = next(iter(packs)) if packed else entries[0].data_hash
    path = blob(catalog, digest)
    sound = path.read_bytes()
    damage(path, 512 if packed else 3)
    (catalog.workspace / names[0]).unlink()
    later = fresh(catalog.workspace.parent, packs)
    with pytest.raises(BlobCorruptError) as caught:
        later.get(entries)
    assert f"sha256:{digest}" in caught.value.message
    assert names[0] in caught.value.message
    assert caught.value.hint
    assert not (catalog.workspace / names[0]).exists()
    assert leftovers(catalog.workspace) == []
    path.write_bytes(sound)
    later.get(entries)
    assert (catalog.workspace / names[0]).read_text() == f"content of {names[0]}"


@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_or_missing_blob_leaves_the_workspace_as_it_was(catalog: Catalog, packed: bool) -> None:
    """Where content cannot be had, the file that is there stays."""
    names = many(catalog, MANY if packed else 1)
    entries, packs = put(catalog, ["many"])
    digest = next(iter(packs)) if packed else entries[0].data_hash
    write(catalog, names[-1], content="mine")
    path = blob(catalog, digest)
    path.chmod(0o644)
    os.truncate(path, 10)
    with pytest.raises(BlobCorruptError, match=digest):
        fresh(catalog.workspace.parent, packs).get(entries)
    assert names[-1] in {str(p.relative_to(catalog.workspace)) for p in (catalog.workspace / "many").iterdir()}
    path.unlink()
    with pytest.raises(BlobMissingError, match=digest):
        fresh(catalog.workspace.parent, packs).get(entries)
    assert (catalog.workspace / names[-1]).read_text() == "mine"


def test_a_pack_that_lies_about_its_members_is_refused(catalog: Catalog) -> None:
    """Offsets of a run log are not trusted: what is read there must have the member's hash."""
    many(catalog)
    entries, packs = put(catalog, ["many"])
    [(digest, pack)] = packs.items()
    for offset, size in ((0, 20), (10**9, 20), (512, 10**6), (-5, 20), (2**70, 20), (512, -1), (512, 2**70)):
        wrong = {**pack.members, entries[0].data_hash: (offset, size)}
        later = fresh(catalog.workspace.parent, {digest: Pack(size=pack.size, members=wrong)})
        with pytest.raises(BlobCorruptError):
            later.extract(entries[0], catalog.workspace / "x")
        assert not (catalog.workspace / "x").exists()


@pytest.mark.promise
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/absolute/x",
        "~/x",
        "",
        "a\0b",
        "C:\\x",
        "link/x",
        ".git/config",
        "./.git/config",
        ".GIT/config",
        "sub/.git/hooks/post-checkout",
        ".runnable/index.json",
        "./.runnable/index.json",
        "sub//.git/config",
    ],
)
def test_a_name_that_leaves_the_workspace_is_refused(catalog: Catalog, tmp_path: Path, name: str) -> None:
    """A run log may come from anywhere: no name in it reaches out of the workspace, the store or a repository."""
    write(catalog, "file")
    entries, _ = put(catalog, ["file"])
    (tmp_path / "outside").mkdir()
    (catalog.workspace / "link").symlink_to(tmp_path / "outside")
    index = (catalog.layout.folder / "index.json").read_bytes()
    with pytest.raises(UnsafePathError):
        catalog.get([entries[0].model_copy(update={"name": name})])
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (catalog.workspace / ".git").exists()
    assert (catalog.layout.folder / "index.json").read_bytes() == index


def test_a_link_in_a_files_place_is_replaced_and_its_target_left_alone(catalog: Catalog, tmp_path: Path) -> None:
    """Restoring never writes through a link."""
    write(catalog, "file")
    entries, _ = put(catalog, ["file"])
    (tmp_path / "outside").write_text("untouched")
    (catalog.workspace / "file").unlink()
    (catalog.workspace / "file").symlink_to(tmp_path / "outside")
    catalog.get(entries)
    assert not (catalog.workspace / "file").is_symlink()
    assert (catalog.workspace / "file").read_text() == "content of file"
    assert (tmp_path / "outside").read_text() == "untouched"


@pytest.mark.parametrize("name", ["a/b", "a"])
def test_a_file_in_a_folders_place_or_a_folder_in_a_files_is_an_error(catalog: Catalog, name: str) -> None:
    """What stands in the way is named, and stays."""
    write(catalog, "a/b" if name == "a/b" else "a")
    entries, _ = put(catalog, [name])
    (catalog.workspace / name).unlink()
    if name == "a/b":
        (catalog.workspace / "a").rmdir()
        write(catalog, "a")
    else:
        write(catalog, "a/b")
    with pytest.raises(UnsafePathError) as caught:
        catalog.get(entries)
    assert "`a" in caught.value.message
    assert (catalog.workspace / "a").exists()


def test_inputs_are_recorded_with_their_hash(catalog: Catalog) -> None:
    """A file that no step put is a get entry without a source."""
    write(catalog, "input")
    [entry] = catalog.inputs(["input"])
    assert (entry.stage, entry.source, entry.size) == ("get", "", 16)
    assert entry.data_hash == sha256(b"content of input")


def test_a_file_is_extracted_anywhere(catalog: Catalog, tmp_path: Path) -> None:
    """`extract` makes the folders of its destination and replaces what is there."""
    write(catalog, "file")
    entries, _ = put(catalog, ["file"])
    for _ in range(2):
        catalog.extract(entries[0], tmp_path / "new" / "place" / "copy")
    assert (tmp_path / "new" / "place" / "copy").read_text() == "content of file"


def test_steps_in_threads_put_and_get_at_once(catalog: Catalog) -> None:
    """Parallel steps that store the same and other content do not harm each other."""
    failures: list[Exception] = []
    for worker in range(4):
        many(catalog, folder=f"own-{worker}")
    many(catalog)

    def work(worker: int) -> None:
        try:
            for _ in range(5):
                entries, packs = put(catalog, [f"own-{worker}", "many"])
                catalog.get(entries)
                later = fresh(catalog.workspace.parent, packs)
                for entry in entries:
                    assert sha256(b"".join(later.read(entry.data_hash, entry.size))) == entry.data_hash
        except Exception as e:  # noqa: BLE001 - raised by the assertion below
            failures.append(e)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_memory_does_not_grow_with_a_file(catalog: Catalog) -> None:
    """Putting and getting 200 MB takes a few MB of memory."""
    with (catalog.workspace / "large").open("wb") as file:
        file.truncate(200_000_000)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from runnable_ci.runs.catalog import Catalog; from runnable_ci.store.local import Layout\n"
        "workspace = Path(sys.argv[1]); layout = Layout(workspace / '.runnable')\n"
        "catalog = Catalog(layout, workspace, layout.folder / 'runs' / 'r')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "entries, _ = catalog.put(['large']); (workspace / 'large').unlink(); catalog.get(entries)\n"
        "print(peak() - before)"
    )
    done = python(code, str(catalog.workspace))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 30_000
    assert (catalog.workspace / "large").stat().st_size == 200_000_000


@pytest.mark.promise
def test_a_get_shows_a_file_only_when_it_is_whole(catalog: Catalog) -> None:
    """Who looks while a large file is restored sees it absent or whole, and no other file beside it."""
    with (catalog.workspace / "large").open("wb") as file:
        file.truncate(50_000_000)
    entries, _ = put(catalog, ["large"])
    (catalog.workspace / "large").unlink()
    thread = threading.Thread(target=catalog.get, args=(entries,))
    thread.start()

    def whole() -> bool:
        assert {path.name for path in catalog.workspace.iterdir()} <= {"large", ".runnable"}
        path = catalog.workspace / "large"
        return path.exists() and path.stat().st_size == 50_000_000

    present: Callable[[], bool] = (catalog.workspace / "large").exists
    wait_until(lambda: whole() or present(), "the file", poll_s=0)
    assert whole()
    thread.join()


# -- links


def link(name: str, target: str) -> CatalogEntry:
    return CatalogEntry(name=name, kind="link", target=target, data_hash=sha256(target.encode()), stage="put")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("l", "/etc/passwd"),
        ("l", ".."),
        ("l", "../outside"),
        ("a/l", "../../outside"),
        ("a/l", "b/../../../outside"),
        ("a/b/l", "x/../y"),
        ("l", ""),
        ("l", "a\0b"),
        ("l", ".git"),
        ("l", ".git/hooks"),
        ("a/l", "../.GIT/hooks"),
        ("l", ".runnable/index.json"),
        ("l", "sub/.git"),
        ("out/l", "x"),
        ("out/l", "../x"),
        ("l", "out"),
        ("l", "hooks/pre-commit"),
        ("../l", "x"),
        (".git/l", "x"),
        ("hooks/l", "x"),
    ],
)
def test_a_link_that_leads_astray_is_not_made(catalog: Catalog, tmp_path: Path, name: str, target: str) -> None:
    """Whatever a log says: no link leads out of the workspace or into a repository, alone or by way of another."""
    write(catalog, ".git/hooks/sample", "a/b/file")
    (tmp_path / "outside").mkdir()
    (catalog.workspace / "out").symlink_to(tmp_path / "outside")
    (catalog.workspace / "hooks").symlink_to(".git/hooks")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnsafePathError):
        catalog.get([link(name, target)])
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and path.name != "a"] == []


@pytest.mark.promise
def test_links_of_one_log_lead_nowhere_together(catalog: Catalog, tmp_path: Path) -> None:
    """Whatever their order: each alone is within, and so is any chain of them; nothing is written behind one."""
    (tmp_path / "x").write_text("outside")
    up, through = link("a/b/up", "../.."), link("c/through", "../a/b/up/x")
    for entries in ([up, through], [through, up]):
        catalog.get(entries)
        assert not (catalog.workspace / "c/through").exists()
    with pytest.raises(UnsafePathError):
        catalog.get([up, link("c/l", "../a/b/up/../x")])
    file = put_file(catalog)
    with pytest.raises(UnsafePathError, match="a file behind a link of the same run: a/b/up/file"):
        catalog.get([up, file.model_copy(update={"name": "a/b/up/file"})])


def put_file(catalog: Catalog) -> CatalogEntry:
    write(catalog, "file")
    [entry], _ = put(catalog, ["file"])
    return entry


def test_nothing_is_written_into_a_repository_through_a_link_of_the_user(catalog: Catalog) -> None:
    """`hookdir` leads to git's hooks: a log with `hookdir/pre-commit` installs nothing, and a put finds nothing."""
    write(catalog, ".git/hooks/sample")
    (catalog.workspace / "hookdir").symlink_to(".git/hooks")
    with pytest.raises(UnsafePathError, match="into a repository's own folder"):
        catalog.get([put_file(catalog).model_copy(update={"name": "hookdir/pre-commit"})])
    assert [path.name for path in (catalog.workspace / ".git/hooks").iterdir()] == ["sample"]
    for pattern in ("hookdir", "hookdir/*", "**", "**/sample"):
        with pytest.raises(UnsafePathError, match="behind a link into a repository"):
            catalog.files.find([pattern])


def test_a_link_takes_the_place_of_a_file_and_never_of_its_target(catalog: Catalog) -> None:
    """What is in its place is moved aside; what a link there pointed to stays as it is."""
    write(catalog, "target", "l")
    _, replaced = catalog.get([link("l", "target")])
    assert replaced == ["l"] and (catalog.workspace / "l").readlink() == Path("target")
    assert (catalog.run_folder / "replaced/l").read_text() == "content of l"
    catalog.get([link("l", "elsewhere")])
    assert (catalog.workspace / "l").readlink() == Path("elsewhere")
    assert (catalog.workspace / "target").read_text() == "content of target"


def test_loops_end(catalog: Catalog) -> None:
    """Folders that lead into each other: each file is found once, under its own name and that of a link at most."""
    write(catalog, "a/x", "b/y")
    (catalog.workspace / "a/self").symlink_to(".")
    (catalog.workspace / "a/b").symlink_to("../b")
    (catalog.workspace / "b/a").symlink_to("../a")
    (catalog.workspace / "round").symlink_to("round")
    found = catalog.files.find(["**"])
    assert found.names["**"] == ["a/b", "a/self", "a/x", "b/a", "b/y", "round"]
    assert found.links == {"a/b": "../b", "a/self": ".", "b/a": "../a", "round": "round"}
    assert catalog.files.find(["a"]).names["a"] == ["a/b/y", "a/self", "a/x"]
    assert catalog.files.expand(["a"])["a"] == ["a/b/y", "a/x"]
    assert catalog.files.find(["**/x"]).names["**/x"] == ["a/x", "b/a/x"]
