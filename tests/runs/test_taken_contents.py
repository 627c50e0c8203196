"""Contents of results that were taken from another run stay in its registry: published, pulled, fetched when read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from published_runs import contents, got, opened
from registry_server import Reply, Seen, Served, registry, serving
from test_reuse_in_a_registry import PIPELINE_FILE, found, run

from runnable_ci.errors import BlobMissingError
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.events import InvocationFinished, Started
from runnable_ci.runs.model import Invocation
from runnable_ci.runs.paths import HELD, is_foreign, is_pulled, run_folder
from runnable_ci.runs.reader import catalog_of, load
from runnable_ci.runs.recorder import create
from runnable_ci.runs.remote.publish import publish
from runnable_ci.runs.remote.pull import Origin, missing_blobs
from runnable_ci.runs.reuse.candidates import Candidate, IndexPlace, find_candidates, publish_entries
from runnable_ci.runs.reuse.held_contents import fetch_contents, note_held, read_held
from runnable_ci.runs.reuse.results import taking
from runnable_ci.store.local import Layout
from runnable_ci.util.bounded_json import with_check, without_check
from runnable_ci.util.clock import now


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A registry of its own, as runs are removed from it."""
    with registry(tmp_path / "registry") as served:
        yield served


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline whose first step makes a file."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE_FILE, "in.txt": "hello\n", ".gitignore": ".runnable/\n"})


def taken_run(there: Workspace, key: str, repository: str, *, run_id: str = "b") -> tuple[Layout, list[Candidate]]:
    """A run in another clone that took all that the index of main has, and fetched nothing of it."""
    layout = Layout(there.folder / ".runnable")
    candidates = find_candidates([IndexPlace(opened(repository), "main")], key)
    chosen = [them[0] for them in candidates.of_step.values()]
    config = {"pipeline_file": "runnable.toml", "pipeline_base": "repository", "pipeline_is_named": True}
    invocation = Invocation(number=1, command="run", start_time=now(), identity="b-identity")
    layout.create()
    started = Started(run_id=run_id, name="n", dag_hash="d", run_config=config, invocation=invocation)
    with create(layout, started) as recorder:
        note_held(layout, run_id, chosen)
        for candidate in chosen:
            recorder.record(*taking(candidate.entry.run_log(), run_id, recorder.log))
        recorder.record(InvocationFinished.of("succeeded", time=now()))
        recorder.seal(catalog_of(layout, recorder.log))
    return layout, chosen


@pytest.fixture
def taken(project: Workspace, served: Served, tmp_path: Path) -> tuple[Layout, list[Candidate], str]:
    """Run `b`, which took all from run `a` of a registry."""
    repository = served.repository()
    run(project, repository, "a")
    key = next(iter(found(project, repository, "main").of_step.values()))[0].entry.pipeline
    layout, chosen = taken_run(elsewhere(project, tmp_path), key, repository)
    return layout, chosen, repository


def note_held_at(layout: Layout, host: str, other: str) -> None:
    """Have the note say another host: a server before the registry."""
    note = run_folder(layout, "b") / HELD
    note.write_bytes(with_check(without_check(note.read_bytes()).replace(host.encode(), other.encode())))


Taken = tuple[Layout, list[Candidate], str]


def test_a_run_whose_contents_are_elsewhere_is_no_pulled_one(taken: Taken) -> None:
    """It was made here, and names what it took, which the store has not."""
    layout, chosen, repository = taken
    assert is_pulled(layout, "b")
    assert not is_foreign(layout, "b")
    assert read_held(layout, "b") == [Origin(repository, (chosen[0].entry.held_by[0].manifest,))]
    assert len(missing_blobs(layout, layers(load(layout, "b")).values())) == len(layers(load(layout, "b")))


def test_contents_are_fetched_when_they_are_read(taken: Taken) -> None:
    """Those that are wanted, and no others; verified, from the run that has them."""
    layout, chosen, _ = taken
    data = next(it for it in chosen if it.entry.step == "data")
    log = data.entry.run_log()
    (out,) = log.steps["data"].put_entries()
    (wanted,) = [blob for blob in layers(log).values() if blob.hex == out.data_hash]
    assert fetch_contents(layout, data, [wanted]).size_bytes == out.size == 6
    assert layout.read_bytes(wanted) == b"HELLO\n"
    assert fetch_contents(layout, data, [wanted]).blobs == 0
    assert missing_blobs(layout, layers(load(layout, "b")).values())


def test_it_is_published_without_fetching_anything(taken: Taken, tmp_path: Path) -> None:
    """The registry has all of it already; who pulls it gets all, and it outlives the run that it took from."""
    layout, _, repository = taken
    remote = opened(repository)
    sent = publish(layout, "b", remote, environ={}).sent
    assert sent is not None
    assert sent.blobs <= 2, "the log, and the empty config"
    assert missing_blobs(layout, layers(load(layout, "b")).values())
    remote.delete(remote.resolve("a"))
    there, pulled = got(tmp_path / "third", remote, "b")
    assert pulled.left.blobs == 0
    assert contents(there, "b") == {"out.txt": b"HELLO\n"}


def test_it_is_published_elsewhere_with_what_it_took(taken: Taken, served: Served, tmp_path: Path) -> None:
    """What only another registry holds is fetched first."""
    layout, _, _ = taken
    other = opened(served.repository())
    with pytest.raises(BlobMissingError):
        publish(layout, "b", other, environ={})
    publish(layout, "b", other, environ={}, open_registry=opened)
    there, pulled = got(tmp_path / "third", other, "b")
    assert pulled.left.blobs == 0
    assert contents(there, "b") == {"out.txt": b"HELLO\n"}


def test_a_pull_requests_run_takes_over_what_its_branch_has(taken: Taken, served: Served, tmp_path: Path) -> None:
    """Another repository of the same registry gives its blobs away: none comes here, and none is sent."""
    layout, _, repository = taken
    with serving(upstream=served) as front:
        other = opened(repository.replace(served.host, front.host) + "/pull-requests")
        note_held_at(layout, served.host, front.host)
        publish(layout, "b", other, environ={}, open_registry=opened)
        assert front.count("GET", "/blobs/") == 0
        assert front.count("POST", "mount=sha256") == len(layers(load(layout, "b")))
        assert front.count("POST", "/uploads/") - front.count("POST", "mount=") <= 2, "its log, and the empty config"
    assert missing_blobs(layout, layers(load(layout, "b")).values())
    there, pulled = got(tmp_path / "third", opened(f"{repository}/pull-requests"), "b")
    assert pulled.left.blobs == 0
    assert contents(there, "b") == {"out.txt": b"HELLO\n"}


@pytest.mark.parametrize("answer", [None, Reply(404), Reply(500)], ids=["an upload", "unknown", "broken"])
def test_what_a_registry_does_not_take_over_is_fetched(
    taken: Taken, served: Served, tmp_path: Path, answer: Reply | None
) -> None:
    """Some open an upload instead, some refuse the request."""
    layout, _, repository = taken

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        if "mount=" not in seen.path:
            return forward()
        return answer or Reply(202, {"Location": f"{seen.path.partition('?')[0]}some-session"})

    with serving(hook, upstream=served) as front:
        note_held_at(layout, served.host, front.host)
        where = f"{repository.replace(served.host, front.host)}/pull-requests"
        publish(layout, "b", opened(where), environ={}, open_registry=opened)
        assert front.count("POST", "mount=") > 0
        assert front.count("GET", "/blobs/") > 0
        assert front.count("DELETE", "some-session") == (0 if answer else front.count("POST", "mount="))
    there, _ = got(tmp_path / "third", opened(f"{repository}/pull-requests"), "b")
    assert contents(there, "b") == {"out.txt": b"HELLO\n"}


def test_a_result_outlives_the_run_that_made_it(taken: Taken, project: Workspace) -> None:
    """Once the run that took it is published to the index, too, it is offered from there, with its first maker."""
    layout, _, repository = taken
    remote = opened(repository)
    sent = publish(layout, "b", remote, environ={})
    job = {"GITHUB_ACTIONS": "true", "GITHUB_REF": "refs/heads/main"}
    assert publish_entries(layout, "b", remote, sent.manifest.digest, environ=job) == []
    assert project.runnable("prune", "--from", repository, "--keep", "1").out == "a\n"
    (one,) = found(project, repository, "main").of_step["data"]
    assert (one.entry.title, [held.run_id for held in one.entry.held_by]) == ("a/data.1", ["b"])
    assert one.entry.actor == "A"
    (out,) = one.entry.run_log().steps["data"].put_entries()
    (wanted,) = [blob for blob in layers(one.entry.run_log()).values() if blob.hex == out.data_hash]
    assert fetch_contents(layout, one, [wanted]).blobs == 1


def test_what_is_gone_is_an_error_that_says_so(taken: Taken) -> None:
    """A result whose runs were all removed is no result."""
    layout, chosen, repository = taken
    remote = opened(repository)
    remote.delete(remote.resolve("a"))
    wanted = list(layers(chosen[0].entry.run_log()).values())
    with pytest.raises(BlobMissingError, match="does not hold"):
        fetch_contents(layout, chosen[0], wanted)


def test_all_commands_find_what_was_taken(taken: Taken, tmp_path: Path) -> None:
    """`catalog` says how to get it, `pull` gets it, and `gc` keeps what the run refers to."""
    layout, _, repository = taken
    there = Workspace(layout.folder.parent, workspace(tmp_path, {}, git=False, name="x").environ)
    missing = there.runnable("catalog", "b", "--get", "out.txt", "--to", "got.txt", code=1)
    assert "runnable-ci pull b` downloads the whole run" in missing.err
    done = there.runnable("pull", "b")
    assert f"run b, contents of other runs from {repository}: fetched " in done.err
    assert done.out == "b\n"
    there.runnable("gc")
    there.runnable("catalog", "b", "--get", "out.txt", "--to", "got.txt")
    assert there.read("got.txt") == "HELLO\n"


def test_a_damaged_note_is_said(taken: Taken) -> None:
    """It is what says where contents are, so nothing is guessed."""
    layout, _, _ = taken
    path = run_folder(layout, "b") / HELD
    path.write_bytes(path.read_bytes().replace(b"sha256", b"sha255"))
    with pytest.raises(Exception, match="is damaged"):
        read_held(layout, "b")
