"""Tests of storing a tree's difference from its commit, and rebuilding it, on real repositories."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.errors import CodeIdentityError, UnsafePathError, UsageError
from runnable_ci.vcs.bundle import REF, Header, contents, read_header, write_bundle
from runnable_ci.vcs.checkout.rebuild import Bundles, rebuild
from runnable_ci.vcs.differences import changed_between
from runnable_ci.vcs.identity import Code
from runnable_ci.vcs.objects import Objects
from runnable_ci.vcs.snapshot import Memory, Snapshot, snapshot

LIMIT_BYTES = 10_000_000
BINARY = bytes(range(256)) * 40
PASSWORD = "hunter2-" + "hunter2"


@pytest.fixture
def repository(tmp_path: Path, git: Callable[..., str]) -> Path:
    """A repository with text, binary, executable and linked files."""
    folder = tmp_path / "repository"
    (folder / "pkg").mkdir(parents=True)
    git(folder, "init", "-q")
    for name in ("a.py", "both.py", "gone.py", "staged-gone.py", "old name.py", "mode.sh", "pkg/c.py", "to-folder"):
        (folder / name).write_text(f"name = {name!r}\n" * 9)
    (folder / "crlf.txt").write_bytes(b"one\r\ntwo\r\n")
    (folder / "data.bin").write_bytes(BINARY)
    (folder / "link").symlink_to("a.py")
    (folder / ".gitignore").write_text("*.log\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def look(environ: Mapping[str, str]) -> Callable[[Path], Code]:
    """The code of a folder whose pipeline made `out.csv`."""
    return lambda folder: Code(folder, is_generated=lambda path, _: path == "out.csv", environ=environ)


def written(kept: Snapshot, folder: Path) -> Bundles:
    """The bundles of a snapshot as files."""
    files = {}
    for made in kept.bundles:
        files[made.header.commit] = folder / f"{made.header.commit}.bundle"
        with files[made.header.commit].open("wb") as destination:
            write_bundle(destination, made.header, made.objects)
    return Bundles(kept.commit, files)


def stored(code: Code, folder: Path, limit_bytes: int = LIMIT_BYTES) -> tuple[Bundles, tuple[str, ...]]:
    """A snapshot's files, and what it omits."""
    code.look()
    kept = snapshot(code, limit_bytes=limit_bytes)
    return written(kept, folder), tuple(kept.omitted)


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All files and links of a tree, with their executable bits and bytes."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if ".git" in path.relative_to(folder).parts or stat.S_ISDIR(mode):
            continue
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        found[str(path.relative_to(folder))] = (stat.S_IFMT(mode) | mode & stat.S_IXUSR, content)
    return found


def edit_all_ways(folder: Path, git: Callable[..., str]) -> None:
    """Makes one change of each kind."""
    (folder / "both.py").write_text("staged = 1\n")
    (folder / "data.bin").write_bytes(BINARY[::-1])
    (folder / "new-staged.py").write_text("no newline at the end")
    (folder / "new-gone.py").write_text("staged, then removed")
    (folder / "to-folder").unlink()
    (folder / "to-folder").mkdir()
    (folder / "to-folder/below.py").write_text("below")
    git(folder, "rm", "-q", "staged-gone.py")
    git(folder, "mv", "old name.py", "new name.py")
    git(folder, "add", "both.py", "data.bin", "new-staged.py", "new-gone.py", "to-folder")
    git(folder, "rm", "-q", "--cached", "pkg/c.py")
    (folder / "both.py").write_text("staged = 1\nunstaged = 2\n")
    (folder / "new-gone.py").unlink()
    (folder / "gone.py").unlink()
    (folder / "mode.sh").chmod(0o755)
    (folder / "link").unlink()
    (folder / "link").symlink_to("pkg")
    (folder / "crlf.txt").write_bytes(b"one\r\ntwo\nthree\r\n")
    (folder / "a.py").unlink()
    (folder / "a.py").symlink_to("both.py")
    (folder / "announced.py").write_text("announced\n")
    git(folder, "add", "-N", "announced.py")
    (folder / "new/deep").mkdir(parents=True)
    (folder / "new/deep/ü\n x").write_bytes(BINARY)
    (folder / os.fsdecode(b"latin\xe9.py")).write_text("x")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "dangling").symlink_to("./nowhere")


@pytest.mark.promise
def test_round_trip(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A tree with every kind of change is rebuilt: staged, unstaged and untracked, bytes and modes, on its commit."""
    edit_all_ways(repository, git)
    expected = everything(repository)
    for name in ("out.csv", "x.log", ".runnable/x", "pkg/__pycache__/c.pyc"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("not code")
    path, omitted = stored(look(repository), tmp_path)
    assert omitted == ()
    state = look(repository).look()
    copy = tmp_path / "somewhere/copy"
    assert rebuild(path, commit=state.commit, sources=[repository / "pkg"], destination=copy, environ=environ) == ()
    assert everything(copy) == expected
    assert git(copy, "rev-parse", "HEAD") == state.commit
    assert look(copy).look().tree == state.tree
    assert look(copy).look().changes.keys() == state.changes.keys()
    assert not (copy / ".git/info/attributes").exists()


def test_equal_bytes_for_equal_code(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """Two snapshots of the same code are the same bytes, whatever the times and the user's taste in diffs."""
    edit_all_ways(repository, git)
    (first,) = stored(look(repository), tmp_path)[0].files.values()
    content = first.read_bytes()
    for path in repository.glob("*.py"):
        os.utime(path, (1, 1), follow_symlinks=False)
    for name, value in (("noprefix", "true"), ("mnemonicPrefix", "true"), ("external", "false"), ("context", "1")):
        git(repository, "config", f"diff.{name}", value)
    (repository / "out.csv").write_text("made")
    (second,) = stored(look(repository), tmp_path)[0].files.values()
    assert (second, second.read_bytes()) == (first, content)


def test_no_commits(
    tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A tree without any commit can be rebuilt too; one without git cannot, and says so."""
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.py").write_text("a")
    path, _ = stored(look(plain), tmp_path)
    with pytest.raises(CodeIdentityError, match="is not a commit"):
        rebuild(path, commit="", sources=[plain], destination=tmp_path / "copy", environ=environ)
    git(plain, "init", "-q")
    git(plain, "add", ".")
    (plain / "b.py").write_text("b")
    path, _ = stored(look(plain), tmp_path)
    assert rebuild(path, commit="", sources=[], destination=tmp_path / "copy", environ=environ) == ()
    assert everything(tmp_path / "copy") == everything(plain)


def test_clean_tree_from_other_clones(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A commit is taken from a detached, shallow clone or a URL; sources without it are passed over."""
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    second = git(repository, "rev-parse", "HEAD")
    git(tmp_path, "clone", "-q", "--depth=1", repository.as_uri(), "shallow")
    shallow = tmp_path / "shallow"
    git(shallow, "checkout", "-q", "--detach")
    assert rebuild(None, commit=second, sources=[shallow], destination=tmp_path / "1", environ=environ) == ()
    sources: list[Path | str] = [tmp_path / "absent", shallow, repository.as_uri()]
    assert rebuild(None, commit=first, sources=sources, destination=tmp_path / "2", environ=environ) == ()
    assert [git(tmp_path / name, "rev-parse", "HEAD") for name in "12"] == [second, first]
    assert everything(tmp_path / "2") == everything(repository)
    with pytest.raises(CodeIdentityError, match="does not have the commit"):
        rebuild(None, commit=first, sources=[shallow], destination=tmp_path / "3", environ=environ)
    assert not (tmp_path / "3").exists()


def test_over_the_limit(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """What does not fit is left out and named, the small things are kept, and the rest can be rebuilt."""
    (repository / "a.py").write_text("small = 1\n")
    (repository / "data.bin").write_bytes(os.urandom(9_000))
    git(repository, "add", "data.bin")
    (repository / "data.bin").write_bytes(os.urandom(9_000))
    (repository / "small.txt").write_text("small")
    (repository / "large.txt").write_bytes(b"x" * 9_000)
    path, omitted = stored(look(repository), tmp_path, limit_bytes=5_000)
    assert omitted == ("data.bin", "large.txt")
    assert sum(file.stat().st_size for file in path.files.values()) < 20_000
    commit = git(repository, "rev-parse", "HEAD")
    rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert (tmp_path / "copy/data.bin").read_bytes() == BINARY
    assert not (tmp_path / "copy/large.txt").exists()
    assert (tmp_path / "copy/a.py").read_text() == "small = 1\n"
    assert (tmp_path / "copy/small.txt").exists()


def test_conflict_and_submodule(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """Files in conflict come back as they lie there."""
    shutil.copytree(repository, tmp_path / "library")
    git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a library")
    git(repository, "checkout", "-qb", "other")
    (repository / "a.py").write_text("theirs\n")
    git(repository, "rm", "-q", "gone.py")
    git(repository, "commit", "-qam", "theirs")
    git(repository, "checkout", "-q", "main")
    (repository / "a.py").write_text("ours\n")
    (repository / "gone.py").write_text("ours\n")
    git(repository, "commit", "-qam", "ours")
    with pytest.raises(subprocess.CalledProcessError):
        git(repository, "merge", "-q", "other")
    (repository / "gone.py").unlink()
    (repository / "lib/a.py").write_text("changed inside")
    path, omitted = stored(look(repository), tmp_path)
    assert omitted == ()
    state = look(repository).look()
    remarks = rebuild(path, commit=state.commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert remarks == ()
    assert (tmp_path / "copy/lib/a.py").read_text() == "changed inside"
    assert "<<<<<<<" in (tmp_path / "copy/a.py").read_text()
    assert not (tmp_path / "copy/gone.py").exists()


def test_staged_submodule_and_hidden_change(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A submodule's staged commit is rebuilt, and so is a change that a flag hid from git."""
    shutil.copytree(repository, tmp_path / "library")
    git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a library")
    git(repository / "lib", "commit", "-q", "--allow-empty", "-m", "newer")
    git(repository, "add", "lib")
    git(repository, "update-index", "--assume-unchanged", "a.py")
    (repository / "a.py").write_text("hidden")
    path, omitted = stored(look(repository), tmp_path)
    assert omitted == ()
    state = look(repository).look()
    rebuild(path, commit=state.commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert (tmp_path / "copy/a.py").read_text() == "hidden"
    assert git(repository / "lib", "rev-parse", "HEAD") == git(tmp_path / "copy/lib", "rev-parse", "HEAD")


def test_submodules(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """Submodules, nested ones too, come back at the commit that they were at, with all that differs from it."""
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    shutil.copytree(repository, inner)
    shutil.copytree(repository, outer)
    git(outer, "submodule", "add", "-q", str(inner), "deep er/inner")
    git(outer, "commit", "-qm", "with another")
    git(repository, "submodule", "add", "-q", str(outer), "lib")
    git(repository, "submodule", "update", "-q", "--init", "--recursive")
    git(repository, "commit", "-qm", "with libraries")
    for source in (inner, outer):
        shutil.rmtree(source)
    commit = git(repository, "rev-parse", "HEAD")
    assert rebuild(None, commit=commit, sources=[repository], destination=tmp_path / "clean", environ=environ) == ()
    assert everything(tmp_path / "clean") == everything(repository)
    git(repository / "lib", "submodule", "deinit", "-q", "-f", ".")  # what git keeps of it is enough
    again = tmp_path / "again"
    assert rebuild(None, commit=commit, sources=[repository], destination=again, environ=environ) == ()
    git(repository, "submodule", "update", "-q", "--init", "--recursive")

    edit_all_ways(repository / "lib", git)
    edit_all_ways(repository / "lib/deep er/inner", git)
    git(repository / "lib/deep er/inner", "commit", "-qm", "newer")
    path, omitted = stored(look(repository), tmp_path)
    assert omitted == ()
    assert rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ) == ()
    assert everything(tmp_path / "copy") == everything(repository)


def test_what_is_missing_of_submodules_is_said(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A file that was over the limit is named with its way; a commit that nobody has is, and the folder stays empty."""
    shutil.copytree(repository, tmp_path / "library")
    git(repository, "submodule", "add", "-q", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-qm", "with a library")
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "lib/large.bin").write_bytes(bytes(50_000))
    (repository / "lib/small.txt").write_text("small")
    path, omitted = stored(look(repository), tmp_path, limit_bytes=20_000)
    assert omitted == ("lib/large.bin",)
    rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert not (tmp_path / "copy/lib/large.bin").exists()
    assert (tmp_path / "copy/lib/small.txt").read_text() == "small"

    shutil.rmtree(repository / "lib")
    shutil.rmtree(repository / ".git/modules")
    (lib,) = rebuild(None, commit=commit, sources=[repository], destination=tmp_path / "none", environ=environ)
    assert lib.startswith("lib: a submodule: commit ")
    assert list((tmp_path / "none/lib").iterdir()) == []


def test_changed_meanwhile(repository: Path, tmp_path: Path, look: Callable[[Path], Code]) -> None:
    """A file that changes between the look and the snapshot is named as not stored as it was."""
    (repository / "a.py").write_text("one")
    code = look(repository)
    code.look()
    (repository / "a.py").write_text("two")
    assert snapshot(code, limit_bytes=LIMIT_BYTES).omitted == {"a.py": "changed while it was being recorded"}


def omitted_of(code: Code, folder: Path) -> dict[str, str]:
    """What a snapshot leaves out, after a look that no object of it has what was left out."""
    code.look()
    kept = snapshot(code, limit_bytes=LIMIT_BYTES)
    for file in written(kept, folder).files.values():
        with file.open("rb") as source:
            assert PASSWORD.encode() not in b"".join(contents(source))
    return kept.omitted


@pytest.mark.promise
def test_credentials_are_left_out_of_each_kind_of_change(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """Files of credentials, by name or content, are named and not kept: new, staged, changed or linked."""
    for name, content in {
        **dict.fromkeys((".env", ".npmrc", "removed.ini"), f"DB_PASSWORD={PASSWORD}\n"),
        **dict.fromkeys(("settings.ini", "staged.ini", "code.py", "blob.bin", "old.bin"), "a = 1\n"),
    }.items():
        (repository / name).write_text(content)
    (repository / "old.bin").write_bytes(BINARY + f"DB_PASSWORD={PASSWORD}\n".encode())
    git(repository, "add", "-f", ".")
    git(repository, "commit", "-qm", "second")
    (repository / ".env").write_text("short=1\n")
    (repository / ".npmrc").unlink()
    (repository / "removed.ini").unlink()
    (repository / "settings.ini").write_text(f"a = 2\ntoken = {PASSWORD}\n")
    (repository / "code.py").write_text("token = user.token_1x\n")
    (repository / "blob.bin").write_bytes(BINARY + f"DB_PASSWORD={PASSWORD}\n".encode())
    (repository / "old.bin").write_bytes(BINARY)
    (repository / "staged.ini").write_text(f"token = {PASSWORD}\n")
    (repository / "Staged.PEM").write_text("no certificate\n")
    git(repository, "add", "staged.ini", "Staged.PEM")
    (repository / "staged.ini").write_text("a = 1\n")
    (repository / "announced.netrc").write_text("x")
    (repository / ".netrc").write_text("x")
    git(repository, "add", "-N", ".netrc", "announced.netrc")
    (repository / "sub").mkdir()
    (repository / "sub/ID_RSA").write_text("x")
    (repository / "sub/id_rsa.pub").write_text("ssh-rsa AAAA bob\n")
    (repository / "sub/new.yaml").write_text(f"password: '{PASSWORD}'\n")
    (repository / "sub/.env.example").write_text("DB_PASSWORD=\n")
    (repository / "sub/link.p12").symlink_to("/elsewhere")
    (repository / "sub/way").symlink_to(f"https://bob:{PASSWORD}@example.org")
    assert omitted_of(look(repository), tmp_path) == {
        ".env": "a credential file by its name",
        ".netrc": "a credential file by its name",
        "Staged.PEM": "a credential file by its name",
        "blob.bin": "holds a value for DB_PASSWORD",
        "settings.ini": "holds a value for token",
        "sub/ID_RSA": "a credential file by its name",
        "sub/link.p12": "a credential file by its name",
        "sub/new.yaml": "holds a value for password",
        "sub/way": "holds a password in a URL",
    }


@pytest.mark.promise
def test_what_is_left_out_is_named_and_not_rebuilt(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A tree with credentials is rebuilt without them, in its submodules too, and each is named."""
    lib = tmp_path / "lib"
    shutil.copytree(repository, lib)
    git(repository, "submodule", "--quiet", "add", str(lib), "lib")
    git(repository, "commit", "-qm", "with a submodule")
    for folder in (repository, repository / "lib"):
        (folder / ".pypirc").write_text("x")
        (folder / "a.py").write_text(f"token = '{PASSWORD}'\n")
        (folder / "new.py").write_text("token = user.token\n")
    path, omitted = stored(look(repository), tmp_path)
    assert omitted == (".pypirc", "a.py", "lib/.pypirc", "lib/a.py")
    copy = tmp_path / "copy"
    commit = look(repository).look().commit
    rebuild(path, commit=commit, sources=[repository], destination=copy, environ=environ)
    assert (copy / "lib/new.py").read_text() == (copy / "new.py").read_text() == "token = user.token\n"
    assert not (copy / ".pypirc").exists()


def test_destination_must_be_empty(repository: Path, tmp_path: Path, environ: Mapping[str, str]) -> None:
    """Nothing is ever rebuilt over something."""
    with pytest.raises(UsageError):
        rebuild(None, commit="a" * 40, sources=[repository], destination=repository, environ=environ)
    (tmp_path / "link").symlink_to(tmp_path / "home")
    with pytest.raises(UsageError):
        rebuild(None, commit="a" * 40, sources=[repository], destination=tmp_path / "link", environ=environ)


@pytest.mark.parametrize(
    "source", ["ext::sh -c touch% ran", "--upload-pack=touch ran", "git://example.org/a", "-x@h:p"]
)
def test_odd_sources(repository: Path, tmp_path: Path, environ: Mapping[str, str], source: str) -> None:
    """Only plain URLs are fetched from, and only real commits."""
    for commit in ("a" * 40, "--output=x", "HEAD"):
        with pytest.raises(CodeIdentityError):
            rebuild(None, commit=commit, sources=[source], destination=tmp_path / "copy", environ=environ)
    assert not (tmp_path / "copy").exists()


def test_within_a_git_hook(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """With the variables of a git hook set, the copy is made in its folder and not in the hook's repository."""
    hook = {**environ, "GIT_DIR": str(repository / ".git"), "GIT_INDEX_FILE": str(repository / ".git/index")}
    before = (repository / ".git/index").read_bytes(), git(repository, "status", "--branch", "--porcelain")
    commit = git(repository, "rev-parse", "HEAD")
    rebuild(None, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=hook)
    assert everything(tmp_path / "copy") == everything(repository)
    assert ((repository / ".git/index").read_bytes(), git(repository, "status", "--branch", "--porcelain")) == before


def test_nothing_of_the_user_is_started(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """Neither template hooks nor hooks that the user configured run in the copy."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "post-checkout").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (hooks / "post-checkout").chmod(0o755)
    git(repository, "config", "--global", "core.hooksPath", str(hooks))
    commit = git(repository, "rev-parse", "HEAD")
    rebuild(None, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert not (tmp_path / "ran").exists()


def test_changed_between(repository: Path, git: Callable[..., str], look: Callable[[Path], Code]) -> None:
    """Only files whose content differs are named, however the difference is spread over commits and edits."""
    (repository / "a.py").write_text("edited\n")
    (repository / "gone.py").unlink()
    (repository / "new.py").write_text("new\n")
    code = look(repository)
    then = code.look()
    assert changed_between(code, then.commit, then.changes, then) == []
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "the same, committed")
    assert changed_between(code, then.commit, then.changes, code.look()) == []
    (repository / "a.py").write_text("edited again\n")
    (repository / "out.csv").write_text("made")
    (repository / "both.py").write_text("committed\n")
    git(repository, "commit", "-qam", "more")
    (repository / "new.py").write_text("newer\n")
    (repository / "pkg/c.py").write_text("edited\n")
    assert changed_between(code, then.commit, then.changes, code.look()) == ["a.py", "both.py", "new.py", "pkg/c.py"]
    git(repository, "checkout", "-q", then.commit, "--", "both.py", "pkg/c.py")
    assert changed_between(code, then.commit, then.changes, code.look()) == ["a.py", "new.py"]


def test_changed_since_an_unknown_commit(repository: Path, look: Callable[[Path], Code], tmp_path: Path) -> None:
    """Where the old commit is not in the clone, or there never was one, nothing is claimed."""
    code = look(repository)
    assert changed_between(code, "a" * 40, {}, code.look()) is None
    assert changed_between(code, "", {}, code.look()) is None
    nowhere = look(tmp_path)
    assert changed_between(nowhere, "a" * 40, {}, nowhere.look()) is None


def test_any_git_can_fetch_it(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """A bundle is git's own format: verified, fetched and checked by git alone, with the tree that was looked at."""
    edit_all_ways(repository, git)
    bundles, _ = stored(look(repository), tmp_path)
    (file,) = bundles.files.values()
    git(tmp_path, "clone", "-q", str(repository), "clone")
    clone = tmp_path / "clone"
    git(clone, "bundle", "verify", "-q", str(file))
    git(clone, "fetch", "-q", str(file), f"{REF}:refs/heads/as-it-was")
    git(clone, "fsck", "--strict", "--full")
    assert git(clone, "rev-parse", "as-it-was^{tree}") == look(repository).look().tree
    assert git(clone, "rev-parse", "as-it-was^") == git(repository, "rev-parse", "HEAD")
    git(clone, "checkout", "-q", "as-it-was")
    assert everything(clone) == everything(repository)


def test_any_git_can_fetch_a_chain(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """Bundles that build on each other are fetched one after the other; the last alone is refused by git."""
    git(tmp_path, "clone", "-q", str(repository), "clone")
    code, memory = look(repository), Memory()
    files: list[Path] = []
    for number in range(3):
        (repository / f"{number}.txt").write_text(f"{number}")
        code.look()
        files += written(snapshot(code, limit_bytes=LIMIT_BYTES, memory=memory), tmp_path).files.values()
    with pytest.raises(subprocess.CalledProcessError):
        git(tmp_path / "clone", "fetch", "-q", str(files[-1]), f"{REF}:refs/heads/last")
    for number, file in enumerate(files):
        git(tmp_path / "clone", "fetch", "-q", str(file), f"{REF}:refs/heads/b{number}")
    assert git(tmp_path / "clone", "rev-parse", "b2^{tree}") == code.last.tree


@pytest.mark.promise
def test_a_gitmodules_from_elsewhere_names_no_path_of_this_machine(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """A submodule's URL may be https or ssh; one that guesses a repository of this machine is not fetched."""
    git(tmp_path, "clone", "-q", str(repository), "private")
    private = git(tmp_path / "private", "rev-parse", "HEAD")
    (repository / ".gitmodules").write_text(f'[submodule "x"]\npath = lib\nurl = {(tmp_path / "private").as_uri()}\n')
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{private},lib")
    git(repository, "add", ".gitmodules")
    git(repository, "commit", "-qm", "with a submodule")
    git(tmp_path, "clone", "-q", "--bare", str(repository), "served")
    shutil.rmtree(repository)
    commit = git(tmp_path / "served", "rev-parse", "HEAD")
    source = (tmp_path / "served").as_uri()
    (missing,) = rebuild(None, commit=commit, sources=[source], destination=tmp_path / "copy", environ=environ)
    assert missing.startswith("lib: a submodule: ")
    assert list((tmp_path / "copy/lib").iterdir()) == []


def test_nothing_is_written_into_the_repository(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code]
) -> None:
    """The user's repository has no object, no ref and no index more after a snapshot than before."""
    edit_all_ways(repository, git)
    before = {path: path.stat().st_mtime_ns for path in (repository / ".git").rglob("*")}
    stored(look(repository), tmp_path)
    assert {path: path.stat().st_mtime_ns for path in (repository / ".git").rglob("*")} == before


def test_a_repository_with_sha256_ids(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """Bundles of such a repository are of version 3, and as good."""
    shutil.rmtree(repository / ".git")
    git(repository, "init", "-q", "--object-format=sha256")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    edit_all_ways(repository, git)
    code = look(repository)
    bundles, _ = stored(code, tmp_path)
    commit = code.last.commit
    assert len(commit) == len(code.last.tree) == 64
    copy = tmp_path / "copy"
    assert rebuild(bundles, commit=commit, sources=[repository], destination=copy, environ=environ) == ()
    assert everything(copy) == everything(repository)
    assert look(copy).look().tree == code.last.tree


def test_a_later_bundle_holds_what_is_new(
    repository: Path, tmp_path: Path, look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """With a memory of earlier ones a bundle builds on them: its size is that of the change, and all are needed."""
    code, memory = look(repository), Memory()
    files: dict[str, Path] = {}
    sizes = []
    for number in range(40):
        (repository / f"{number}.bin").write_bytes(os.urandom(10_000))
        code.look()
        kept = snapshot(code, limit_bytes=LIMIT_BYTES, memory=memory)
        new = written(kept, tmp_path).files
        files |= new
        sizes += [file.stat().st_size for file in new.values()]
    assert len(sizes) == 40
    assert max(sizes) < 14_000
    copy = tmp_path / "copy"
    whole = Bundles(kept.commit, files)
    assert rebuild(whole, commit=code.last.commit, sources=[repository], destination=copy, environ=environ) == ()
    assert everything(copy) == everything(repository)
    unchanged = snapshot(code, limit_bytes=LIMIT_BYTES, memory=memory)
    assert (unchanged.commit, unchanged.bundles) == (kept.commit, ())
    last = Bundles(kept.commit, {kept.commit: files[kept.commit]})
    with pytest.raises(CodeIdentityError, match="build on several commits"):
        rebuild(last, commit=code.last.commit, sources=[repository], destination=tmp_path / "no", environ=environ)


def test_a_new_commit_begins_anew(
    repository: Path, tmp_path: Path, git: Callable[..., str], look: Callable[[Path], Code], environ: Mapping[str, str]
) -> None:
    """A bundle builds on earlier ones of the same commit only: the other commit may be nowhere later."""
    code, memory = look(repository), Memory()
    for text in ("one", "two"):
        (repository / "a.py").write_text(text)
        code.look()
        snapshot(code, limit_bytes=LIMIT_BYTES, memory=memory)
        git(repository, "commit", "-qam", text, "--amend")
    (repository / "a.py").write_text("three")
    code.look()
    kept = snapshot(code, limit_bytes=LIMIT_BYTES, memory=memory)
    assert kept.bundles[0].header.prerequisites == (code.last.commit,)
    bundles = written(kept, tmp_path)
    copy = tmp_path / "copy"
    assert rebuild(bundles, commit=code.last.commit, sources=[repository], destination=copy, environ=environ) == ()
    assert (copy / "a.py").read_text() == "three"


def bundle_of(tmp_path: Path, parent: str, *paths: tuple[str, str, bytes]) -> Bundles:
    """A bundle of our own making: a tree with just these modes, names and contents, on a commit."""
    objects = Objects("sha1")
    tree = b""
    for mode, name, content in paths:
        tree += f"{mode} {name}".encode() + b"\0" + bytes.fromhex(objects.add("blob", content))
    commit = objects.add_commit(objects.add("tree", tree), parent)
    file = tmp_path / "hostile.bundle"
    with file.open("wb") as destination:
        write_bundle(destination, Header(commit, (parent,), "sha1"), objects.made)
    return Bundles(commit, {commit: file})


@pytest.mark.promise
@pytest.mark.parametrize(
    "paths",
    [
        [("100644", ".git", b"evil")],
        [("100644", ".GIT", b"evil")],
        [("100644", "..", b"evil")],
        [("100644", "../evil", b"evil")],
        [("100644", "a/../../evil", b"evil")],
        [("100644", ".git/hooks/post-checkout", b"evil")],
        [("120000", "out", b"../outside"), ("100644", "out/evil", b"evil")],
        [("120000", ".gitmodules", b"/etc/passwd")],
        [("100644", "a.py", b"1"), ("100644", "a.py", b"2")],
    ],
)
def test_hostile_bundle(
    repository: Path,
    tmp_path: Path,
    git: Callable[..., str],
    environ: Mapping[str, str],
    paths: list[tuple[str, str, bytes]],
) -> None:
    """A tree that would write elsewhere, or two files into one, is refused as a whole, and leaves nothing behind."""
    (tmp_path / "outside").mkdir()
    commit = git(repository, "rev-parse", "HEAD")
    bundles = bundle_of(tmp_path, commit, *paths)
    with pytest.raises((UnsafePathError, CodeIdentityError)):
        rebuild(bundles, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert not (tmp_path / "copy").exists()
    assert not any((tmp_path / "outside").iterdir())
    assert not list(tmp_path.rglob("*evil*"))


def test_damaged_bundle(repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]) -> None:
    """A bundle that is none, is cut off, changed, of another commit, or another than was asked for is a clear error."""
    commit = git(repository, "rev-parse", "HEAD")
    good = bundle_of(tmp_path, commit, ("100644", "b.py", b"b" * 5000))
    (whole,) = good.files.values()
    content = whole.read_bytes()
    bad = tmp_path / "bad.bundle"
    for damaged in (
        b"bad" * 99,
        b"",
        content[:-30],
        content[:60],
        content[:-200] + b"x" * 200,
        content.replace(b"v2", b"v9"),
    ):
        bad.write_bytes(damaged)
        with pytest.raises(CodeIdentityError):
            rebuild(
                Bundles(good.kept, {good.kept: bad}),
                commit=commit,
                sources=[repository],
                destination=tmp_path / "copy",
                environ=environ,
            )
    for other in (Bundles("b" * 40, {"b" * 40: whole}), bundle_of(tmp_path, "a" * 40, ("100644", "b.py", b"b"))):
        with pytest.raises(CodeIdentityError, match="saved changes"):
            rebuild(other, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert not (tmp_path / "copy").exists()


def test_a_bundle_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that would unpack to more than any that is stored is refused before it is unpacked."""
    bundles = bundle_of(tmp_path, "a" * 40, ("100644", "b.py", b"\0" * 5_000_000))
    (file,) = bundles.files.values()
    assert file.stat().st_size < 10_000
    monkeypatch.setattr("runnable_ci.vcs.bundle.UNPACKED_MAX_BYTES", 4_000_000)
    with file.open("rb") as source, pytest.raises(UnsafePathError):
        list(contents(source))
    with file.open("rb") as source:
        assert read_header(source).commit == bundles.kept
