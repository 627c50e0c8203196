"""Tests of rebuilding what earlier versions stored: a tar of diffs and files."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runnable_ci.errors import CodeIdentityError, UnsafePathError
from runnable_ci.vcs.checkout.rebuild import rebuild
from runnable_ci.vcs.hashing import content_sha256


@pytest.fixture
def repository(tmp_path: Path, git: Callable[..., str]) -> Path:
    """A repository with a few files."""
    folder = tmp_path / "repository"
    (folder / "pkg").mkdir(parents=True)
    git(folder, "init", "-q")
    for name in ("a.py", "gone.py", "pkg/c.py"):
        (folder / name).write_text(f"name = {name!r}\n" * 9)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_what_an_earlier_version_stored(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """Staged and unstaged diffs and untracked files come back, and what was left out is named."""
    (repository / "a.py").write_text("staged = 1\n")
    git(repository, "add", "a.py")
    (repository / "pkg/c.py").write_text("unstaged = 1\n")
    (repository / "gone.py").unlink()
    (repository / "new.sh").write_text("new")
    (repository / "secret.env").write_text("x")

    def diff(*words: str) -> bytes:
        command = ["git", "-C", str(repository), *words, "--binary", "--full-index"]
        return subprocess.run(command, env=dict(environ), capture_output=True, check=True).stdout

    kinds = {
        "a.py": "staged",
        "pkg/c.py": "modified",
        "gone.py": "deleted",
        "new.sh": "untracked",
        "secret.env": "untracked",
    }
    changes = {name: (kind, content_sha256(str(repository / name))) for name, kind in kinds.items()}
    commit = git(repository, "rev-parse", "HEAD")
    path = hostile(
        tmp_path,
        commit,
        member("staged.diff", diff("diff-index", "--cached", "HEAD", "--patch")),
        member("unstaged.diff", diff("diff-files", "--patch")),
        member("untracked/new.sh", b"new"),
        changes=changes,
        omitted={"secret.env": "a credential file by its name"},
    )
    copy = tmp_path / "copy"
    missing = rebuild(path, commit=commit, sources=[repository], destination=copy, environ=environ)
    assert missing == ("secret.env: a credential file by its name",)
    assert (copy / "a.py").read_text() == "staged = 1\n"
    assert (copy / "pkg/c.py").read_text() == "unstaged = 1\n"
    assert (copy / "new.sh").read_text() == "new"
    assert not (copy / "gone.py").exists()
    assert git(copy, "diff", "--cached", "--name-only") == "a.py"


def test_what_does_not_come_out_as_it_was_is_named(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """A file that the state says was other than the diffs make it is named."""
    commit = git(repository, "rev-parse", "HEAD")
    path = hostile(tmp_path, commit, changes={"a.py": ("modified", "0" * 64)})
    (missing,) = rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert missing.startswith("a.py: not as it was")


def test_no_filter_is_run_for_what_an_earlier_version_stored(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """What the user set for all repositories starts nothing either: what only a filter brings is named."""
    (repository / ".gitattributes").write_text("*.py filter=kept\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "filtered")
    for key in ("clean", "smudge", "process"):
        git(repository, "config", "--global", f"filter.kept.{key}", f"touch {tmp_path}/ran; cat")
    commit = git(repository, "rev-parse", "HEAD")
    path = hostile(tmp_path, commit)
    missing = rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert [line.partition(":")[0] for line in missing] == ["a.py", "gone.py", "pkg/c.py"]
    assert not (tmp_path / "ran").exists()


def hostile(tmp_path: Path, commit: str, *members: tuple[tarfile.TarInfo, bytes], **said: object) -> Path:
    """A snapshot with the given members, and a state that says little."""
    about: dict[str, object] = {
        "commit": commit,
        "ref": "",
        "url": "",
        "digest": "x",
        "message": "",
        "changes": {},
        "omitted": {},
        **said,
    }
    state = json.dumps(about).encode()
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for member, content in ((tarfile.TarInfo("state.json"), state), *members):
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, content


EVIL_DIFF = b"diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/%s\n@@ -0,0 +1 @@\n+evil\n"


@pytest.mark.parametrize(
    "members",
    [
        [member("untracked/../evil", b"evil")],
        [member("/evil", b"evil")],
        [member("untracked//evil", b"evil")],
        [member("untracked/.git/hooks/post-checkout", b"evil")],
        [member("untracked/pkg/.GIT/config", b"evil")],
        [member("elsewhere/evil", b"evil")],
        [member("evil", b"evil")],
        [member("untracked/out", kind=tarfile.SYMTYPE, link="/var"), member("untracked/out/evil", b"evil")],
        [member("untracked/outside/evil", b"evil")],
        [member("untracked/a.py", b"overwritten")],
        [member("untracked/evil", kind=tarfile.LNKTYPE, link="/etc/passwd")],
        [member("untracked/evil", kind=tarfile.FIFOTYPE)],
        [member("staged.diff", kind=tarfile.SYMTYPE, link="/etc/passwd")],
        [member("staged.diff", EVIL_DIFF.replace(b"x", b"../evil") % b"../evil")],
        [member("staged.diff", EVIL_DIFF.replace(b"x", b".git/evil") % b".git/evil")],
        [member("unstaged.diff", EVIL_DIFF.replace(b"x", b"outside/evil") % b"outside/evil")],
        [member("state.json", b"[]")],
    ],
)
def test_hostile_snapshot(
    repository: Path,
    tmp_path: Path,
    git: Callable[..., str],
    environ: Mapping[str, str],
    members: list[tuple[tarfile.TarInfo, bytes]],
) -> None:
    """A snapshot that would write elsewhere is refused as a whole, and leaves nothing behind."""
    (tmp_path / "outside").mkdir()
    (repository / "outside").symlink_to(tmp_path / "outside")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "a link that leads out")
    commit = git(repository, "rev-parse", "HEAD")
    path = hostile(tmp_path, commit, *members)
    with pytest.raises((UnsafePathError, CodeIdentityError)):
        rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
    assert not (tmp_path / "copy").exists()
    assert not any((tmp_path / "outside").iterdir())
    assert not list(tmp_path.rglob("*evil*"))


def test_damaged_snapshot(
    repository: Path, tmp_path: Path, git: Callable[..., str], environ: Mapping[str, str]
) -> None:
    """A snapshot that is no tar, or of another commit, is a clear error."""
    commit = git(repository, "rev-parse", "HEAD")
    (tmp_path / "bad.tar").write_bytes(b"bad" * 999)
    for path in (tmp_path / "bad.tar", hostile(tmp_path, "b" * 40)):
        with pytest.raises(CodeIdentityError, match="saved changes"):
            rebuild(path, commit=commit, sources=[repository], destination=tmp_path / "copy", environ=environ)
