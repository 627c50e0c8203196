"""`prune` removes old runs from a registry, and nothing that another run or somebody's tag needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cli import Done, Workspace, workspace
from github_api import GitHub, Package, github
from published_runs import contents, got, opened, record, run_tags, sent, store
from registry_server import Reply, Seen, Served, collect_garbage, leading_to, registry, serving

from runnable_ci.runs.remote.listing import list_published, published, remove
from runnable_ci.runs.remote.tag_record import RECORD_TAG
from runnable_ci.store.copy import copy
from runnable_ci.store.registry import Registry

SHARED = b"s" * 300_000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry of its own, as garbage is collected in it."""
    with registry(tmp_path / "registry") as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """Somewhere to call the program from."""
    return workspace(tmp_path, {"notes.txt": ""}, git=False)


def prune(project: Workspace, repository: str, *arguments: str, code: int = 0) -> Done:
    return project.runnable("prune", "--from", repository, *arguments, code=code)


def stored(served: Served) -> set[bytes]:
    """All content that the registry has on its disk."""
    return {path.read_bytes() for path in served.folder.rglob("data") if path.is_file()}


def three_runs(tmp_path: Path, remote: Registry) -> None:
    """Runs `a`, `b` (by two writers) and `c`, the newest, which share a file."""
    here = store(tmp_path / "here")
    for run_id in "abc":
        if run_id == "c":
            other, _ = got(tmp_path / "other", remote, "b")
            record(other, "more", {"more.txt": b"more"}, run_id="b")
            sent(other, remote, "b")
        record(here, "load", {"shared.bin": SHARED, "own.txt": run_id.encode()}, run_id=run_id)
        sent(here, remote, run_id)


@pytest.mark.promise
def test_old_runs_go_and_what_stays_is_whole(tmp_path: Path, served: Served, project: Workspace) -> None:
    """With `--keep 1` the older runs are gone with every writer's tag; after the registry collected its garbage the
    newest is whole, and what only the others held is gone.
    """
    remote = opened(served.repository())
    three_runs(tmp_path, remote)
    assert {b"a", b"b", b"c", b"more", SHARED} <= stored(served)
    dry = prune(project, remote.label, "--keep", "1", "--dry-run")
    named = f"registry: {remote.label}\n"
    assert (dry.out, dry.err) == ("a\nb\n", f"{named}would remove 2 runs from {remote.label}; 1 left\n")
    assert len(published(remote)) == 3
    done = prune(project, remote.label, "--keep", "1")
    assert (done.out, done.err) == ("a\nb\n", f"{named}removed 2 runs from {remote.label}; 1 left\n")
    assert [tag.partition("--")[0] for tag in run_tags(remote)] == ["c", "c"]
    collect_garbage(served)
    assert {b"a", b"b", b"c", b"more"} & stored(served) == {b"c"}
    reader, pulled = got(tmp_path / "reader", remote, "latest")
    assert pulled.run_id == "c"
    assert contents(reader, "c") == {"shared.bin": SHARED, "own.txt": b"c"}
    assert prune(project, remote.label, "--keep", "1").out == ""


def test_what_a_tag_of_somebody_stands_for_stays(tmp_path: Path, served: Served, project: Workspace) -> None:
    """A registry removes a manifest with all its tags, so a run under another tag stays; so does what is no run."""
    remote = opened(served.repository())
    three_runs(tmp_path, remote)
    remote.tag(remote.resolve("a"), "best")
    done = prune(project, remote.label, "--keep", "0", "--older-than", "0h")
    assert done.out == "b\nc\n"
    assert "\nkept a: referenced by tag best\n" in done.err
    assert [holding.pinned_by for holding in list_published(remote)] == [["best"]]
    assert contents(got(tmp_path / "reader", remote, "a")[0], "a")["own.txt"] == b"a"


def test_a_run_that_is_written_meanwhile_stays(tmp_path: Path, served: Served) -> None:
    """What was published between the look and the removal is not removed."""
    remote = opened(served.repository())
    three_runs(tmp_path, remote)
    (holding,) = [holding for holding in list_published(remote) if holding.summary.run_id == "a"]
    here = store(tmp_path / "here")
    record(here, "again", {"new.txt": b"new"}, run_id="a")
    sent(here, remote, "a")
    assert not remove(remote, holding, remote.delete)
    assert len(published(remote)) == 3
    assert contents(got(tmp_path / "reader", remote, "a")[0], "a")["new.txt"] == b"new"


def test_a_removal_that_is_broken_off(tmp_path: Path, served: Served, project: Workspace) -> None:
    """Where the registry fails in the middle of a run, the run can be read, and the next `prune` ends the work."""
    deleted = 0

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        nonlocal deleted
        deleted += seen.method == "DELETE"
        return Reply(400) if seen.method == "DELETE" and deleted == 3 else forward()

    with serving(hook, upstream=served) as proxy:
        through = opened(proxy.repository())
        three_runs(tmp_path, through)
        broken = prune(project, through.label, "--keep", "1", code=1)
        assert broken.out == "a\n"
        reader, _ = got(tmp_path / "reader", through, "b")
        assert contents(reader, "b").keys() == {"shared.bin", "own.txt", "more.txt"}
        assert prune(project, through.label, "--keep", "1").out == "b\n"


def test_a_registry_that_deletes_nothing(tmp_path: Path, project: Workspace) -> None:
    """The message says that deletion is not enabled there, and what to do."""
    with registry(tmp_path / "registry", delete=False) as served:
        remote = opened(served.repository())
        three_runs(tmp_path, remote)
        done = prune(project, remote.label, "--keep", "1", code=1)
        assert done.out == ""
        assert f"error: {served.host} does not allow manifests to be deleted (status 405)\n" in done.err
        assert "REGISTRY_STORAGE_DELETE_ENABLED=true" in done.err
        assert len(published(remote)) == 3


def test_prune_has_to_be_told_what(project: Workspace) -> None:
    """Neither number nor age, no registry, or a reference to one run: an error before anything is asked of anybody."""
    assert "--keep N, --older-than AGE, or both" in prune(project, "h.invalid/o/r", code=2).err
    assert "is the reference of a run" in prune(project, "h.invalid/o/r:x", "--keep", "1", code=2).err
    assert "no registry is set" in project.runnable("prune", "--keep", "1", code=2).err


def test_a_tag_that_holds_another_run_than_it_says(tmp_path: Path, served: Served) -> None:
    """It is a part of neither, and keeps the run that it stands for."""
    remote = opened(served.repository())
    three_runs(tmp_path, remote)
    copy(store(tmp_path / "here"), "c", remote, as_reference="a")
    found = {holding.summary.run_id: holding for holding in list_published(remote, exact=True)}
    assert [tag.startswith("a--") for tag in found["a"].manifests] == [True]
    assert found["c"].pinned_by == ["a"]


# -- ghcr.io


@contextmanager
def ghcr(tmp_path: Path, served: Served, project: Workspace) -> Iterator[tuple[GitHub, Package, Workspace]]:
    """A registry that is `ghcr.io` to the program and deletes nothing, GitHub's API that does, and a job there."""
    repository = "owner/repo/runs"
    remote = opened(f"{served.host}/{repository}")
    three_runs(tmp_path, remote)

    def digests() -> list[str]:
        return sorted({remote.resolve(tag).digest for tag in remote.tags()})

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(405) if seen.method == "DELETE" else forward()

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with (
        serving(hook, upstream=served) as front,
        leading_to(front, authority, "ghcr.io") as proxy,
        github() as api,
    ):
        api.package = Package("repo/runs", digests, lambda digest: remote.delete(remote.resolve(digest)))
        job = {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com"}
        network = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        yield api, api.package, replace(project, environ={**project.environ, **job, **api.variables, **network})


@pytest.mark.parametrize("kind", ["orgs", "users"])
def test_runs_on_ghcr_are_removed_by_the_api(tmp_path: Path, served: Served, project: Workspace, kind: str) -> None:
    """Its registry deletes nothing, so versions of the package go by GitHub's API, of a person or an organisation."""
    with ghcr(tmp_path, served, project) as (_, package, job):
        package.kind = kind
        done = job.runnable("prune", "--from", "ghcr.io/owner/repo/runs", "--keep", "1")
        assert done.out == "a\nb\n", done.err
        assert [run.run_id for run in published(opened(f"{served.host}/owner/repo/runs"))] == ["c"]


def test_the_last_version_on_ghcr_stays(tmp_path: Path, served: Served, project: Workspace) -> None:
    """GitHub deletes it with the package only: the run is kept, named with the page to do so, and nothing fails."""
    with ghcr(tmp_path, served, project) as (_, package, job):
        earlier = opened(f"{served.host}/owner/repo/runs")  # no record of tags yet, which would be the last version
        earlier.delete(earlier.resolve(RECORD_TAG))
        done = job.runnable("prune", "--from", "ghcr.io/owner/repo/runs", "--keep", "0", "--older-than", "0h")
        assert done.out == "a\nb\n"
        assert "kept c: the package owner/repo/runs on GitHub keeps its last version; delete the package" in done.err
        assert "https://github.com/orgs/owner/packages/container/repo%2Fruns/settings" in done.err
        assert len(package.digests()) == 1


def test_a_token_that_may_not_delete(tmp_path: Path, served: Served, project: Workspace) -> None:
    """The error says which token was refused, and which scopes and permissions it must have."""
    with ghcr(tmp_path, served, project) as (api, package, job):
        package.may_delete = False
        prune_it = ("prune", "--from", "ghcr.io/owner/repo/runs", "--keep", "1")
        done = job.runnable(*prune_it, code=2)
        error = "::error title=runnable-ci::the token of GITHUB_TOKEN may not delete versions of the package owner/repo"
        assert done.out.startswith(error)
        assert "read:packages,delete:packages" in done.out
        assert "packages: write" in done.out
        assert len(published(opened(f"{served.host}/owner/repo/runs"))) == 3
        assert job.runnable(*prune_it, "--dry-run").out == "a\nb\n"
        asked = len(api.server.seen)
        refused = job.runnable(*prune_it, code=2, GITHUB_SERVER_URL="https://ghe.example.org")
        assert "is not sent there automatically" in refused.out
        assert len(api.server.seen) == asked
