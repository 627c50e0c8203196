"""Tests of looking at sparse, partial, damaged and hostile repositories, and at files that filters keep."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.snapshot import ALL, snapshot

LIMIT_BYTES = 1_000_000


@pytest.fixture
def source(tmp_path: Path, git: Callable[..., str]) -> Path:
    """A repository with files in two folders, which gives parts of itself."""
    folder = tmp_path / "source"
    git(tmp_path, "init", "-q", "source")
    for name in ("data/1", "data/deep/2", "other/3", "top"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name}\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    git(folder, "config", "uploadpack.allowFilter", "true")
    return folder


@pytest.fixture
def look(environ: Mapping[str, str]) -> Callable[[Path], Code]:
    """The code of a folder after a look."""

    def looked(folder: Path) -> Code:
        code = Code(folder, environ=environ)
        code.look()
        return code

    return looked


@pytest.mark.parametrize("kept", ["blob:none", "tree:0"])
def test_partial_and_sparse(
    source: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], kept: str
) -> None:
    """A partial, sparse clone whose remote is gone is looked at and kept, as far as it is there."""
    git(tmp_path, "clone", "-q", f"--filter={kept}", "--sparse", source.as_uri(), "clone")
    clone = tmp_path / "clone"
    git(clone, "sparse-checkout", "set", "other")
    source.rename(tmp_path / "gone")
    assert look(clone).last.dependable
    (clone / "data").mkdir()
    (clone / "data/1").write_text("new\n")
    (clone / "other/3").write_text("changed\n")
    code = look(clone)
    assert code.last.changes.keys() == {"data/1", "other/3"}
    assert code.last.commit == git(clone, "rev-parse", "HEAD")
    kept_now = snapshot(code, limit_bytes=LIMIT_BYTES)
    assert (kept_now.omitted, len(kept_now.bundles), len(code.last.tree)) == ({}, 1, 40)


@pytest.mark.parametrize("what", ["blob", "tree", "commit", "index", "head"])
def test_damaged(source: Path, git: Callable[..., str], look: Callable[[Path], Code], what: str) -> None:
    """Whatever is damaged, a look says what is known and why not all is; nothing is raised."""
    (source / "data/1").write_text("changed\n")
    commit = git(source, "rev-parse", "HEAD")
    named = {"blob": "HEAD:data/1", "tree": "HEAD:data", "commit": "HEAD"}
    if what in named:
        found = git(source, "rev-parse", named[what])
        path = source / ".git/objects" / found[:2] / found[2:]
    else:
        path = source / ".git" / {"index": "index", "head": "HEAD"}[what]
    path.chmod(0o644)
    path.write_bytes(b"")
    code = look(source)
    state = code.last
    assert not state.dependable
    assert snapshot(code, limit_bytes=LIMIT_BYTES).omitted.keys() <= {ALL}
    match what:
        case "blob":
            assert state.commit == commit
            assert state.changes.keys() == {"data/1"}
            assert state.tree
        case "tree" | "index":
            assert state.commit == commit
            assert state.message
        case _:
            assert state.message


def filtered(folder: Path, git: Callable[..., str], program: str) -> None:
    """Have a file kept by a filter: `keep.bin` in the tree, what the program made of it in the commit."""
    (folder / ".gitattributes").write_text("*.bin filter=kept\n")
    git(folder, "config", "filter.kept.clean", program)
    git(folder, "config", "filter.kept.required", "true")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "filtered")


def pointer(content: bytes) -> str:
    """What git-lfs has in the commit for a file."""
    digest = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"


def test_filters_are_not_run(
    source: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """A filter's program is never started, required or missing: its files are kept, and said not to be compared."""
    (source / "keep.bin").write_text("content")
    filtered(source, git, "tr a-z A-Z")
    git(source, "config", "filter.kept.clean", f"touch {tmp_path}/ran; exit 1")
    os.utime(source / "keep.bin", (1, 1))
    code = look(source)
    assert not (tmp_path / "ran").exists()
    assert code.last.changes == {"keep.bin": ("filtered", hashlib.sha256(b"content").hexdigest())}
    assert "filter `kept` was not run" in code.last.unknown["keep.bin"]
    assert "1 not compared" in code.last.message
    assert snapshot(code, limit_bytes=LIMIT_BYTES).omitted == {}
    assert not (tmp_path / "ran").exists()


def test_files_of_git_lfs_are_known_by_their_digest(
    source: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """A touched file that the pointer in the commit describes is unchanged; an edited one is a change."""
    (source / "keep.bin").write_text("content")
    (source / "pointer").write_text(pointer(b"content"))
    filtered(source, git, f"cat {source}/pointer")
    git(source, "config", "filter.kept.clean", "no-such-program-lfs")
    os.utime(source / "keep.bin", (1, 1))
    assert look(source).last.dependable
    (source / "keep.bin").write_text("edited")
    assert look(source).last.changes.keys() == {"keep.bin"}


def test_a_filter_of_a_submodule_is_not_run(
    source: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """A submodule's own settings start nothing either."""
    git(tmp_path, "clone", "-q", str(source), "library")
    git(source, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    (source / "lib/keep.bin").write_text("content")
    filtered(source / "lib", git, "cat")
    git(source, "add", ".")
    git(source, "commit", "-qm", "with a library")
    git(source / "lib", "config", "filter.kept.clean", f"touch {tmp_path}/ran; cat")
    (source / "lib/keep.bin").write_text("another")
    assert look(source).last.changes.keys() == {"lib", "lib/keep.bin"}
    assert not (tmp_path / "ran").exists()


def test_line_ends_and_encodings_are_kept_as_they_are(
    source: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """Where git would change bytes on their way in, the tree still has those of the file."""
    (source / ".gitattributes").write_text("*.txt text eol=crlf\n*.u16 working-tree-encoding=UTF-16LE\n")
    (source / "a.txt").write_bytes(b"1\r\n")
    git(source, "add", ".")
    git(source, "commit", "-qm", "attributes")
    assert look(source).last.dependable
    (source / "a.txt").write_bytes(b"2\r\n")
    (source / "b.u16").write_bytes("x\n".encode("utf-16-le"))
    code = look(source)
    kept = snapshot(code, limit_bytes=LIMIT_BYTES)
    blobs = [content for kind, content in kept.bundles[0].objects.values() if kind == "blob"]
    assert sorted(blobs) == sorted([b"2\r\n", "x\n".encode("utf-16-le")])


def test_an_unpublished_commit_is_known(
    source: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """A commit that no branch of a remote has is said to be so, until it is pushed; a job's own commit never is."""
    git(tmp_path, "clone", "-q", str(source), "clone")
    clone = tmp_path / "clone"
    assert not Code(clone, environ=environ).look().unpublished
    git(clone, "commit", "-q", "--allow-empty", "-m", "mine")
    assert Code(clone, environ=environ).look().unpublished
    job = {**environ, "GITHUB_SHA": git(clone, "rev-parse", "HEAD")}
    assert not Code(clone, environ=job).look().unpublished
    git(clone, "push", "-q", "origin", "HEAD:refs/heads/mine")
    assert not Code(clone, environ=environ).look().unpublished
