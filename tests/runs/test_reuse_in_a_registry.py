"""The index of results in a real registry: written by each publish, read by few requests, believed only so far."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from deviations import SWITCHES
from published_runs import opened, store
from registry_server import Reply, Seen, Served, described, registry, serving
from reuse_entries import PIPELINE, T, attempt, digest, entry, log_of, made_entries

from runnable_ci.observe.reads import FileRead, ReadSet
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.artifact import EMPTY_CONFIG
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.listing import published
from runnable_ci.runs.remote.tag_record import REUSE_PREFIX, list_tags
from runnable_ci.runs.remote.writers import EVERYBODY, AcceptedWriters
from runnable_ci.runs.reuse.candidates import Candidates, IndexPlace, find_candidates
from runnable_ci.runs.reuse.entries import ReuseEntry
from runnable_ci.runs.reuse.index import merge
from runnable_ci.runs.reuse.index_tag import StoredIndex, change_index, forget_manifests, index_tag, read_index
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE

ROUNDS = int(os.environ.get("INDEX_ROUNDS", "20"))
PIPELINE_FILE = """
name = "n"
[steps.data]
run = 'tr a-z A-Z < in.txt > out.txt'
catalog = { put = ["out.txt"] }
[steps.count]
run = 'echo "n=$(wc -c < out.txt)" >> "$RUNNABLE_OUTPUT"'
returns = ["n"]
"""
JOB = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7", "GITHUB_JOB": "j"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One registry for all tests, each of which has a repository of its own."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path) -> Workspace:
    """A pipeline of two steps whose reads are seen."""
    return workspace(tmp_path, {"runnable.toml": PIPELINE_FILE, "in.txt": "hello\n", ".gitignore": ".runnable/\n"})


def layout_of(project: Workspace) -> Layout:
    return Layout(project.folder / ".runnable")


def run(project: Workspace, repository: str, run_id: str, **variables: str) -> str:
    """Run and publish; what was said."""
    words = ["run", "--run-id", run_id, "--publish", "--to", repository]
    return replace(project, environ={**project.environ, **variables}).runnable(*words).err


def key_of(project: Workspace, run_id: str) -> str:
    log = load(layout_of(project), run_id)
    return PipelineIdentity.recorded(log.name, log.run_config).key()


def found(
    project: Workspace, repository: str, *branches: str, run_id: str = "a", accepted: AcceptedWriters = EVERYBODY
) -> Candidates:
    places = [IndexPlace(opened(repository), branch) for branch in branches]
    return find_candidates(places, key_of(project, run_id), accepted=accepted)


def titles(candidates: Candidates) -> dict[str, list[str]]:
    return {step: [it.entry.title for it in them] for step, them in sorted(candidates.of_step.items())}


def test_a_published_run_can_be_found_by_its_branch(project: Workspace, served: Served) -> None:
    """The index has the results of each step with what it read; another branch has none of them; nothing is said."""
    repository = served.repository()
    said = run(project, repository, "a")
    assert "index" not in said
    candidates = found(project, repository, "main", "other")
    assert titles(candidates) == {"count": ["a/count.1"], "data": ["a/data.1"]}
    assert candidates.notes == ()
    one = candidates.of_step["data"][0]
    reads = one.entry.read_set()
    assert reads is not None
    assert "in.txt" in reads.files
    assert [it.name for it in one.entry.run_log().steps["data"].put_entries()] == ["out.txt"]
    assert one.entry.held_by[0].manifest == layout_of(project).resolve("a").digest
    (project.folder / "in.txt").write_text("other\n")
    project.git("switch", "-qc", "feature")
    project.commit()
    run(project, repository, "b")
    assert titles(found(project, repository, "feature")) == {"count": ["b/count.1"], "data": ["b/data.1"]}
    assert titles(found(project, repository, "feature", "main"))["data"] == ["b/data.1", "a/data.1"]


def test_no_listing_takes_the_index_for_a_run(project: Workspace, served: Served) -> None:
    """Runs, the newest of them, the record of tags and prune see the runs alone."""
    repository = served.repository()
    remote = opened(repository)
    run(project, repository, "a")
    run(project, repository, "b")
    assert [tag for tag in remote.tags() if tag.startswith(REUSE_PREFIX)] == [index_tag("main")]
    assert [it.run_id for it in published(remote)] == ["a", "b"]
    assert list_tags(remote, with_record=True).unknown == []
    listed = project.runnable("runs", "--from", repository, "--json").out
    assert [it["run_id"] for it in json.loads(listed)] == ["a", "b"]
    project.runnable("prune", "--from", repository, "--keep", "1")
    assert [it.run_id for it in published(remote)] == ["b"]


def test_another_clone_finds_what_was_made_here(project: Workspace, served: Served, tmp_path: Path) -> None:
    """The folder has another name there, and the pipeline is the same."""
    repository = served.repository()
    run(project, repository, "a")
    there = elsewhere(project, tmp_path)
    run(there, served.repository(), "mine")
    assert titles(found(there, repository, "main", run_id="mine"))["data"] == ["a/data.1"]


def test_nothing_is_published_for_a_detached_head(project: Workspace, served: Served) -> None:
    """Its code is of no branch, so nobody would look there."""
    repository = served.repository()
    project.git("checkout", "-q", "--detach")
    run(project, repository, "a")
    assert [tag for tag in opened(repository).tags() if tag.startswith(REUSE_PREFIX)] == []


def test_a_pull_request_has_an_index_of_its_own(project: Workspace, served: Served) -> None:
    """Its job writes there alone, and the job of a branch believes nothing of it, wherever it stands."""
    repository = served.repository()
    remote = opened(repository)
    pull = {**JOB, "GITHUB_REF": "refs/pull/12/merge", "GITHUB_HEAD_REF": "main", "GITHUB_EVENT_NAME": "pull_request"}
    project.git("checkout", "-q", "--detach")
    run(project, repository, "a", **pull)
    assert [tag for tag in remote.tags() if tag.startswith(REUSE_PREFIX)] == [index_tag("pull:12")]
    own = AcceptedWriters(refs=frozenset({"pull:12", "main"}))
    assert titles(found(project, repository, "pull:12", "main", accepted=own))["data"] == ["a/data.1"]
    branch = AcceptedWriters(refs=frozenset({"main"}))
    assert titles(found(project, repository, "pull:12", "main", accepted=branch)) == {}
    change_index(remote, "main", lambda _: StoredIndex(read_index(remote, "pull:12")))  # as if it had written there
    assert titles(found(project, repository, "main", accepted=branch)) == {}
    assert titles(found(project, repository, "main")) == {}, "nor does a person get it as main's"


def test_what_a_job_made_with_other_code_is_for_those_who_accept_both(project: Workspace, served: Served) -> None:
    """A retry that ran as main with a fix: its results are in main's index, and the fix's jobs alone use them."""
    repository = served.repository()
    project.git("switch", "-qc", "fix")
    run(project, repository, "a", **JOB, GITHUB_REF="refs/heads/main")
    both, main = (AcceptedWriters(refs=frozenset(refs)) for refs in (("fix", "main"), ("main",)))
    assert titles(found(project, repository, "fix", "main", accepted=both))["data"] == ["a/data.1"]
    assert titles(found(project, repository, "main", accepted=main)) == {}


def test_a_hundred_steps_are_decided_on_by_two_requests(served: Served, tmp_path: Path) -> None:
    """At 40 ms for each way to the registry and back: one request for each branch, both at once, within a second."""
    remote = opened(served.repository())
    for branch, holder in (("main", "a"), ("feature", "b")):
        entries = []
        for generation in range(3):
            reads = ReadSet(files={f"src/m{n}.py": FileRead(digest=f"{n:x}{generation}" * 21) for n in range(20)})
            steps = {f"step{n}": attempt(generation, reads=f"{n}{generation}".zfill(64)) for n in range(100)}
            entries += made_entries(
                log_of(run_id=f"{holder}{generation}", ref=branch, **steps), document=reads.encode()
            )
        assert change_index(remote, branch, adding(entries)) == ""

    def slow(_: Seen, forward: Callable[[], Reply]) -> Reply:
        time.sleep(0.04)
        return forward()

    with serving(slow, upstream=served) as front:
        far = opened(remote.label.replace(served.host, front.host))
        began = time.monotonic()
        candidates = find_candidates([IndexPlace(far, "feature"), IndexPlace(far, "main")], PIPELINE)
        newest = [them[0].entry for them in candidates.of_step.values()]
        decided = [(it.run_log().status, it.read_set()) for it in newest]
        took = time.monotonic() - began
        assert len(front.seen) == 2
    assert len(decided) == 100
    assert all(len(them) == 6 for them in candidates.of_step.values())
    assert took < 1, took


def test_two_writers_at_once_lose_at_most_a_hit(served: Served) -> None:
    """Whatever order their requests come in, the index is one that can be read; who publishes again brings back his."""
    lost = 0
    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            repository = served.repository()
            opened(repository).push(EMPTY_CONFIG, io.BytesIO(b"{}"))  # as the runs do that come before
            mine = {who: [entry(f"s{n}", who, n, run=who) for n in range(3)] for who in ("a", "b")}

            writers = [partial(change_index, opened(repository), "main", adding(new)) for new in mine.values()]
            assert list(pool.map(partial.__call__, writers)) == ["", ""], number
            there = read_index(opened(repository), "main")
            assert {it.title for it in there} <= {it.title for them in mine.values() for it in them}
            assert {it.run_id for it in there} & {"a", "b"}
            lost += len(there) < 6
            for write in writers:
                write()
            assert read_index(opened(repository), "main") == merge(*mine.values())
    assert lost <= ROUNDS // 4, lost


LARGE = [entry(f"s{n}", second=n % 60).model_copy(update={"reads": {"x": os.urandom(50_000).hex()}}) for n in range(60)]
"""More than a manifest has room for."""


@pytest.mark.promise
def test_no_index_takes_more_than_a_request(served: Served) -> None:
    """What was neither made nor taken for the longest time is left out, so that three branches take three requests."""
    remote = opened(served.repository())
    used = LARGE[0].held_by[0].model_copy(update={"manifest": f"sha256:{digest(9)}", "ended": T.format(59)})
    old = LARGE[0].model_copy(update={"held_by": [used, *LARGE[0].held_by]})
    for branch in ("main", "feature", "pull:1"):
        of_branch = [it.model_copy(update={"refs": [branch]}) for it in [old, *LARGE[1:]]]
        assert change_index(remote, branch, adding(of_branch)) == ""
        assert change_index(remote, branch, adding(of_branch[30:])) == ""
    with serving(upstream=served) as front:
        far = opened(remote.label.replace(served.host, front.host))
        places = [IndexPlace(far, branch) for branch in ("main", "feature", "pull:1")]
        candidates = find_candidates(places, PIPELINE)
        assert len(front.seen) == 3
        assert {len(them) for them in candidates.of_step.values()} == {3}
        assert 30 < len(candidates.of_step) < 60
        left = sorted({it.step: it.ended for it in LARGE}, key=lambda step: (step != "s0", -int(step[1:])))
        assert set(candidates.of_step) == set(left[: len(candidates.of_step)])


@pytest.mark.parametrize("status", [400, 413])
def test_an_index_that_is_refused_as_a_manifest_is_a_blob(served: Served, tmp_path: Path, status: int) -> None:
    """It takes a second request then; where the store knows it, one again."""
    remote = opened(served.repository())

    def small_only(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        refused = seen.method == "PUT" and "/manifests/" in seen.path and len(seen.body) > 100_000
        return Reply(status, {"Content-Type": "application/json"}, b'{"errors": []}') if refused else forward()

    layout = store(tmp_path)
    layout.create()
    with serving(small_only, upstream=served) as front:
        far = opened(remote.label.replace(served.host, front.host))
        assert change_index(far, "main", adding(LARGE)) == ""
        for requests in (2, 1):
            front.seen.clear()
            candidates = find_candidates([IndexPlace(far, "main")], PIPELINE, layout=layout)
            assert 30 < len(candidates.of_step) < 60
            assert len(front.seen) == requests


@pytest.mark.parametrize("switch", [name for name in SWITCHES if name.startswith("only images")])
def test_registries_of_images_have_an_index_too(project: Workspace, served: Served, switch: str) -> None:
    """It is in the first form that the registry takes, as are the runs; so is the record, by which it is rebuilt."""
    with serving(SWITCHES[switch](), upstream=served) as front:
        repository = front.repository()
        assert "index" not in run(project, repository, "a")
        assert titles(found(project, repository, "main")) == {"count": ["a/count.1"], "data": ["a/data.1"]}
        assert change_index(opened(repository), "main", lambda _: StoredIndex()) == ""
        (project.folder / "in.txt").write_text("other\n")
        project.commit()
        assert "index" not in run(project, repository, "b")
        assert titles(found(project, repository, "main"))["data"] == ["b/data.1", "a/data.1"]


@pytest.mark.promise
@pytest.mark.parametrize("how", ["deleted", "damaged", "an earlier version's", "lost", "overwritten"])
def test_what_an_index_lost_is_found_again(project: Workspace, served: Served, how: str) -> None:
    """Whatever became of it, the next publish of any run of the branch brings the results of the others back."""
    repository = served.repository()
    remote = opened(repository)
    for run_id in ("a", "b", "c"):
        (project.folder / "in.txt").write_text(f"{run_id}\n")
        project.commit()
        if run_id == "c":
            project.git("switch", "-qc", "feature")
        run(project, repository, run_id)
    project.git("switch", "-q", "main")
    match how:
        case "deleted":
            remote.delete(remote.resolve(index_tag("main")))
        case "damaged":
            put(remote, index_tag("main"), "no base64 §")
        case "an earlier version's":
            put(remote, index_tag("main"), base64.b64encode(gzip.compress(b'{"version": 0}')).decode())
            notes = found(project, repository, "main").notes
            assert "an earlier version of runnable-ci; the next publish replaces it" in notes[0]
        case "lost":
            change_index(remote, "main", lambda _: StoredIndex())
        case "overwritten":  # by one that had read it before b, and does not look again
            there = tuple(it for it in read_index(remote, "main") if it.run_id == "a")
            change_index(remote, "main", lambda _: StoredIndex(there).with_runs([there[0].held_by[0].manifest]))
    (project.folder / "in.txt").write_text("d\n")
    project.commit()
    with serving(upstream=served) as front:
        assert "index" not in run(project, repository.replace(served.host, front.host), "d")
        first = len(front.seen)
        candidates = found(project, repository, "main")
        assert titles(candidates)["data"] == ["d/data.1", "b/data.1", "a/data.1"]
        assert all(it.entry.read_set() is not None for it in candidates.of_step["data"])
        (project.folder / "in.txt").write_text("e\n")
        project.commit()
        front.seen.clear()
        run(project, repository.replace(served.host, front.host), "e")
        assert first - len(front.seen) <= 12, "looked at once"
        assert len(front.seen) < 40, [f"{it.method} {it.path}" for it in front.seen]
    assert len(titles(found(project, repository, "main"))["data"]) == 4


def adding(found: Sequence[ReuseEntry]) -> Callable[[StoredIndex], StoredIndex]:
    return lambda there: replace(there, entries=merge(there.entries, found))


def refusing(method: str, part: str, status: int = 403) -> Callable[[Seen, Callable[[], Reply]], Reply]:
    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        refused = seen.method == method and part in seen.path
        return Reply(status, {"Content-Type": "application/json"}, b'{"errors": []}') if refused else forward()

    return hook


def test_a_registry_that_refuses_the_index_takes_the_run(project: Workspace, served: Served) -> None:
    """Why others cannot reuse it is a sentence, and the run is published."""
    with serving(refusing("PUT", REUSE_PREFIX), upstream=served) as front:
        repository = front.repository()
        said = run(project, repository, "a")
        assert "the index of results that others may reuse was not updated: " in said
        assert f"published {repository}:a@" in said
        assert project.runnable("publish", "a", "--to", repository).err.count("was not updated") == 1


def test_an_index_that_cannot_be_read_is_a_sentence(project: Workspace, served: Served) -> None:
    """A registry that is away, refuses, or has something else there: nothing is reused, and why."""
    repository = served.repository()
    run(project, repository, "a")
    with serving(refusing("GET", REUSE_PREFIX, 500), upstream=served) as front:
        far = repository.replace(served.host, front.host)
        candidates = found(project, far, "main")
        assert candidates.of_step == {}
        assert [note.startswith("nothing of main can be reused from ") for note in candidates.notes] == [True]
    candidates = found(project, "127.0.0.1:9/nobody/here", "main")
    assert len(candidates.notes) == 1
    assert found(project, served.repository(), "main") == Candidates()


@pytest.mark.parametrize(
    ("text", "is_replaced"), [("no base64 §", True), ("AAAA", True), ("", True), (None, True), ("v2", False)]
)
def test_what_stands_in_place_of_an_index(
    project: Workspace, served: Served, text: str | None, is_replaced: bool
) -> None:
    """What is damaged is replaced by the next publish; what another version wrote is left alone, which is said."""
    repository = served.repository()
    run(project, repository, "a")
    remote = opened(repository)
    written = base64.b64encode(gzip.compress(b'{"version": 2}')).decode() if text == "v2" else text
    put(remote, index_tag("main"), written)
    assert len(found(project, repository, "main").notes) == 1
    said = run(project, repository, "b")
    assert ("was written by a later version" in said) is not is_replaced
    assert (found(project, repository, "main").of_step != {}) is is_replaced


def put(remote: Registry, tag: str, text: str | None) -> None:
    """A manifest with an annotation, or none, in place of an index."""
    _, raw = remote.manifest(tag)
    parsed = json.loads(raw)
    parsed["annotations"] = {} if text is None else {"vnd.runnable.reuse": text}
    raw = json.dumps(parsed).encode()
    remote.tag(described(raw, MANIFEST_MEDIA_TYPE), tag, raw)


def test_what_is_pruned_goes_from_the_index(project: Workspace, served: Served) -> None:
    """Results that no run holds any more are not offered; those of the run that stays are."""
    repository = served.repository()
    run(project, repository, "a")
    (project.folder / "in.txt").write_text("other\n")
    project.commit()
    run(project, repository, "b")
    assert titles(found(project, repository, "main"))["data"] == ["b/data.1", "a/data.1"]
    project.runnable("prune", "--from", repository, "--keep", "1")
    assert titles(found(project, repository, "main"))["data"] == ["b/data.1"]
    assert forget_manifests(opened(repository), {"sha256:" + "0" * 64}) == []
