"""Tests of looking at sparse, partial, damaged and hostile repositories, and at files that filters keep."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.vcs.bundle import write_bundle
from runnable_ci.vcs.checkout.rebuild import Bundles, rebuild
from runnable_ci.vcs.filters import switched_off
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.snapshot import ALL, snapshot
from runnable_ci.vcs.status import Tracked

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


@pytest.mark.promise
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


@pytest.mark.promise
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
    source: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A touched file that the pointer in the commit describes is unchanged; an edited one is a change."""
    (source / "keep.bin").write_text("content")
    (source / "pointer").write_text(pointer(b"content"))
    filtered(source, git, f"cat {source}/pointer")
    git(source, "config", "filter.kept.clean", "no-such-program-lfs")
    os.utime(source / "keep.bin", (1, 1))
    assert look(source).last.dependable
    tracked = Tracked(str(source), environ)
    assert tracked.is_committed("keep.bin")
    (source / "keep.bin").write_text("edited")
    code = look(source)
    assert code.last.changes == {"keep.bin": ("modified", hashlib.sha256(b"edited").hexdigest())}
    assert (code.last.unknown, tracked.is_committed("keep.bin")) == ({}, False)
    (kept,) = snapshot(code, limit_bytes=LIMIT_BYTES).bundles
    assert ("blob", b"edited") in kept.objects.values()
    (source / "keep.bin").write_text("content")
    (source / "keep.bin").chmod(0o755)
    assert look(source).last.changes.keys() == {"keep.bin"}


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_a_file_that_git_has_seen_is_known_by_its_times(
    source: Path, git: Callable[..., str], look: Callable[[Path], Code], version: str
) -> None:
    """Also one that was written in the second of the index, which git reads again; not where the index is packed."""
    for name in ("keep.bin", "a/other.bin"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("content")
    filtered(source, git, "tr a-z A-Z")
    if version == "3":
        (source / "later").touch()
        git(source, "add", "--intent-to-add", "later")
    git(source, "update-index", "--force-write-index", "--index-version", max(version, "2"))
    seen = source.joinpath("keep.bin").stat().st_mtime_ns
    index = source / ".git/index"
    os.utime(index, ns=(seen, seen + 1))  # as if it had been written a moment later
    expected = {"keep.bin", "a/other.bin"} if version == "4" else set()
    assert look(source).last.unknown.keys() - {"a/other.bin"} == expected - {"a/other.bin"}
    os.utime(index, ns=(seen, seen))
    assert "keep.bin" in look(source).last.unknown
    os.utime(index, ns=(seen, seen + 1))
    os.utime(source / "keep.bin", ns=(seen, seen))  # its time of change is another one
    assert "keep.bin" in look(source).last.unknown


def test_filters_are_switched_off_by_the_names_that_they_have(
    source: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """A filter's name may have any bytes, and newer gits start hooks that settings name: both are told not to."""
    (source / ".gitattributes").write_bytes(b"*.bin filter=\xff\xfe\n")
    (source / "keep.bin").write_text("content")
    git(source, "add", ".")
    git(source, "commit", "-qm", "filtered")
    own = source / ".git/config"
    own.write_bytes(own.read_bytes() + b'[filter "\xff\xfe"]\nclean = touch %s/ran\n' % bytes(tmp_path))
    (source / "keep.bin").write_text("edited")
    (why,) = look(source).last.unknown.values()
    assert why.startswith(r"git's filter `\xff\xfe` was not run")
    assert not (tmp_path / "ran").exists()
    off = switched_off(["filter.a=b.c.clean", "hook.x.command", "hook.x.event", "user.name"], {"GIT_CONFIG_COUNT": "2"})
    pairs = {off[f"GIT_CONFIG_KEY_{at}"]: off[f"GIT_CONFIG_VALUE_{at}"] for at in range(2, 7)}
    assert pairs == {
        "filter.a=b.c.clean": "",
        "filter.a=b.c.process": "",
        "filter.a=b.c.required": "false",
        "filter.a=b.c.smudge": "",
        "hook.x.enabled": "false",
    }
    assert off["GIT_CONFIG_COUNT"] == "7"


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


@pytest.mark.parametrize("git_folder", ["", "gitdir: nowhere\n"])
def test_a_submodule_without_a_repository(
    source: Path, git: Callable[..., str], look: Callable[[Path], Code], git_folder: str
) -> None:
    """Where a submodule's `.git` is none, its state is unknown; it is not taken for the repository around it."""
    commit = git(source, "rev-parse", "HEAD")
    git(source, "update-index", "--add", "--cacheinfo", f"160000,{commit},lib")
    git(source, "commit", "-qm", "with a submodule")
    (source / "lib").mkdir()
    if git_folder:
        (source / "lib/.git").write_text(git_folder)
    else:
        (source / "lib/.git").mkdir()
    code = look(source)
    assert code.last.changes == {"lib": ("submodule", commit)}
    assert code.last.unknown["lib"]
    assert snapshot(code, limit_bytes=LIMIT_BYTES).omitted.keys() == {"lib"}


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


def test_a_file_of_a_filter_is_named_when_it_is_rebuilt(
    source: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """No filter is run to rebuild: an untouched file is what the commit has, and named; an edited one is whole."""
    for name in ("keep.bin", "edit.bin"):
        (source / name).write_text("content")
        os.utime(source / name, (1, 1))  # else git would doubt its index, and compare the content
    filtered(source, git, "tr a-z A-Z")
    for key in ("clean", "smudge"):
        git(source, "config", "--global", f"filter.kept.{key}", f"touch {tmp_path}/ran; cat")
    (source / "edit.bin").write_text("edited")
    code = look(source)
    kept = snapshot(code, limit_bytes=LIMIT_BYTES)
    (made,) = kept.bundles
    file = tmp_path / "code.bundle"
    with file.open("wb") as destination:
        write_bundle(destination, made.header, made.objects)
    copy = tmp_path / "copy"
    bundles = Bundles(kept.commit, {kept.commit: file})
    missing = rebuild(bundles, commit=code.last.commit, sources=[source], destination=copy, environ=environ)
    assert [line.partition(":")[0] for line in missing] == ["keep.bin"]
    assert ((copy / "edit.bin").read_text(), (copy / "keep.bin").read_text()) == ("edited", "CONTENT")
    assert not (tmp_path / "ran").exists()


EDITS = ("write", "add", "remove", "mode", "link", "rename", "folder", "ignore", "stage", "commit", "unstage")


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(2))
def test_the_tree_is_gits_own_after_any_edits(
    source: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str], seed: int
) -> None:
    """After each of many random edits a look, also a second one of a `Code`, finds the tree that git makes."""
    choose = random.Random(seed)  # noqa: S311 - edits are no secrets
    code = Code(source, environ=environ)
    for _ in range(25):
        edit(source, choose, git)
        shutil.copy(source / ".git/index", tmp_path / "index")
        own = {**environ, "GIT_INDEX_FILE": str(tmp_path / "index")}
        for words in (["add", "-A"], ["write-tree"]):
            done = subprocess.run(
                ["git", "-C", str(source), *words], env=own, check=True, capture_output=True, text=True
            )
        state = code.look()
        assert state.tree == done.stdout.strip()
        assert state == Code(source, environ=environ).look()
        assert state.dependable == (state.tree == git(source, "rev-parse", "HEAD^{tree}"))


def edit(folder: Path, choose: random.Random, git: Callable[..., str]) -> None:
    """Do something to a work tree or its index."""
    files = sorted(path for path in folder.rglob("*") if ".git" not in path.parts and not path.is_dir())
    path = choose.choice(files or [folder / "new"])
    new = folder / choose.choice(("", "data", "other/deep")) / f"{choose.randrange(9)}{choose.choice(('.py', '.log'))}"
    match choose.choice(EDITS):
        case "write" if not path.is_symlink():
            path.write_bytes(bytes(choose.choice(b"xyz") for _ in range(9)))
        case "remove":
            path.unlink(missing_ok=True)
        case "mode" if path.exists() and not path.is_symlink():
            path.chmod(path.stat().st_mode ^ 0o111)
        case "link":
            path.unlink(missing_ok=True)
            path.symlink_to(choose.choice(("top", "nowhere")))
        case "rename" if files:
            path.rename(folder / f"renamed{choose.randrange(4)}")
        case "folder" if files:
            path.unlink()
            (path / "below").mkdir(parents=True)
            (path / "below/file").write_text("x")
        case "ignore":
            (folder / ".gitignore").write_text(choose.choice(("*.log\n", "*.py\n", "new*/\n")))
        case "stage":
            git(folder, "add", "-A")
        case "commit":
            git(folder, "add", "-A")
            git(folder, "commit", "-q", "--allow-empty", "-m", "x")
        case "unstage":
            git(folder, "reset", "-q")
        case _:
            if not new.parent.exists() or new.parent.is_dir():
                new.parent.mkdir(parents=True, exist_ok=True)
                new.write_text("new")
