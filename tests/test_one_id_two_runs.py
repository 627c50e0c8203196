"""Two runs of one id: never merged, wherever they meet; each command says whose they are and changes neither."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from action_steps import ActionRun
from cli import Workspace, elsewhere, workspace
from published_runs import contents, forge, got, opened, record, run_tags, sent, store
from registry_server import Reply, Seen, Served, described, registry, serving

from runnable_ci.errors import UsageError
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.pull import keep_as, pull
from runnable_ci.runs.remote.remote_index import find_manifests
from runnable_ci.runs.run_identity import run_identity
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor

PIPELINE = """
[parameters]
lr = 1
[steps.prep]
run = "echo $lr > data.txt; echo ran >> ../RAN"
catalog = { put = ["data.txt"] }
[steps.fit]
run = "test -e fixed; cp data.txt model.txt"
catalog = { put = ["model.txt"] }
"""
FILES = {"runnable.toml": PIPELINE, ".gitignore": "*.txt\nfixed\n"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def remote(served: Served) -> Registry:
    """A repository that nobody else uses."""
    return opened(served.repository())


def ann_and_bob(tmp_path: Path) -> tuple[Workspace, Workspace]:
    """Two clones of one project, each with a user of its own."""
    ann = workspace(tmp_path, FILES, name="ann")
    bob = elsewhere(ann, tmp_path, "bob")
    for project, name in ((ann, "Ann Lee"), (bob, "Bob Ray")):
        project.git("config", "user.name", name)
    return ann, bob


def state(remote: Registry) -> dict[str, str]:
    """Tag → digest."""
    return {tag: remote.resolve(tag).digest for tag in run_tags(remote)}


def files(folder: Path) -> dict[str, bytes]:
    """All files below a store's folder, but for what a look at a registry leaves."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "seen"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.promise
def test_publishing_another_run_of_that_id_is_refused(tmp_path: Path, remote: Registry) -> None:
    """Bob's run of Ann's id is refused by name, time and code, and `--as` publishes it beside hers."""
    ann, bob = ann_and_bob(tmp_path)
    (ann.folder / "fixed").touch()
    ann.runnable("run", "--run-id", "first", "--to", remote.label, "--param", "lr=7")
    bob.runnable("run", "--run-id", "first", "--param", "lr=3", code=1)
    before = state(remote)
    refused = bob.runnable("publish", "first", "--to", remote.label, code=2)
    when = r"at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC with code [0-9a-f]{7}"
    assert re.search(
        rf"error: `first` in \S+ is another run, begun by Ann Lee {when}; the one here was begun by Bob Ray {when}",
        refused.err,
    )
    assert "hint: runnable-ci publish first --as OTHER_ID" in refused.err
    assert state(remote) == before

    assert bob.runnable("publish", "first", "--as", "second", "--to", remote.label).out.startswith(
        f"{remote.label}:sec"
    )
    assert {tag: state(remote)[tag] for tag in before} == before
    eve = elsewhere(ann, tmp_path, "eve")
    for run_id, lr, status in (("first", 7, "SUCCESS"), ("second", 3, "FAIL")):
        eve.runnable("pull", f"{remote.label}:{run_id}")
        log = eve.log(run_id)
        assert (log.run_id, log.status, log.parameters["lr"].value) == (run_id, status, lr)
        eve.runnable("catalog", run_id, "--get", "data.txt", "--to", f"{run_id}.txt")
        assert eve.read(f"{run_id}.txt") == f"{lr}\n"
    (eve.folder / "fixed").touch()
    eve.runnable("retry", "second", "--publish", "--to", remote.label)
    bob.runnable("pull", f"{remote.label}:second")
    assert (bob.log("second").status, bob.log("first").status) == ("SUCCESS", "FAIL")
    again = bob.runnable("publish", "first", "--as", "second", "--to", remote.label)
    assert len(bob.log("second").invocations) == 2, again.err


def test_a_run_that_will_be_published_asks_before_its_work(tmp_path: Path, served: Served) -> None:
    """`run --publish` under a taken id starts no step; where the registry cannot be asked, it runs."""
    ann, bob = ann_and_bob(tmp_path)
    with serving(upstream=served) as proxy:
        repository = proxy.repository()
        ann.runnable("run", "--run-id", "first", "--to", repository, code=1)
        (tmp_path / "RAN").unlink()
        proxy.seen.clear()
        refused = bob.runnable("run", "--run-id", "first", "--publish", "--to", repository, code=2)
        assert f"error: there is already a run `first` in {repository}, begun by Ann Lee at " in refused.err
        assert not (tmp_path / "RAN").exists()
        assert not (bob.store / "runs" / "first").exists()
        assert len(proxy.seen) == 2
    gone = bob.runnable("run", "--run-id", "first", "--publish", "--to", repository, code=1)
    assert "note: cannot check whether" in gone.err
    assert (tmp_path / "RAN").exists()


@pytest.mark.promise
def test_pulling_over_another_run_is_refused(tmp_path: Path, remote: Registry) -> None:
    """A pull, a retry by reference and a pull by digest leave a run of one's own as it is, to the byte."""
    ann, bob = ann_and_bob(tmp_path)
    reference = ann.runnable("run", "--run-id", "k", "--to", remote.label, code=1).err
    digest = next(word for word in reference.split() if "@sha256:" in word).rstrip(":").partition("@")[2]
    bob.runnable("run", "--run-id", "k", "--param", "lr=3", code=1)
    before, there = files(bob.store), state(remote)
    for command in (
        ["pull", f"{remote.label}:k"],
        ["pull", f"{remote.label}@{digest}"],
        ["pull", "k", "--from", remote.label, "--only", "log"],
        ["retry", f"{remote.label}:k"],
        ["retry", "k", "--from-registry", remote.label, "--dry-run"],
    ):
        refused = bob.runnable(*command, code=2)
        assert "is another run, begun by Bob Ray at" in refused.err
        assert "was begun by Ann Lee at" in refused.err
    assert files(bob.store) == before
    assert state(remote) == there
    aside = tmp_path / "aside"
    aside.mkdir()
    bob.runnable("pull", f"{remote.label}:k", "--store", str(aside))
    assert bob.runnable("show", "k", "--store", str(aside)).out != bob.runnable("show", "k").out


def test_two_runs_that_are_there_already_are_not_merged_on_reading(tmp_path: Path, remote: Registry) -> None:
    """What an earlier version let happen: each is listed, by whom, none is pulled by the id, each by its digest."""
    ann, bob = ann_and_bob(tmp_path)
    layouts = []
    for project, lr in ((ann, 7), (bob, 3)):
        project.runnable("run", "--run-id", "baseline", "--param", f"lr={lr}", code=1)
        layout = Layout(project.store)
        layouts.append(layout)
        digest = forge(remote, layout, encode(load(layout, "baseline")), "baseline")
        manifest = remote.resolve(digest)
        for tag in ("baseline", f"baseline--{project.folder.name}"):
            remote.tag(manifest, tag)
    eve = elsewhere(ann, tmp_path, "eve")
    for command in (
        ["pull", f"{remote.label}:baseline"],
        ["pull", f"{remote.label}:baseline", "--only", "log"],
        ["retry", f"{remote.label}:baseline"],
    ):
        refused = eve.runnable(*command, code=1)
        assert "holds 2 runs with the id `baseline`, nothing was used: one begun by Ann Lee at" in refused.err
        assert "; one begun by Bob Ray at" in refused.err
        assert not (eve.store / "runs" / "baseline").exists()
    taken = bob.runnable("publish", "baseline", "--to", remote.label)  # the plain tag is his
    assert taken.out.startswith(remote.label)
    assert "another run, begun by Bob Ray" in ann.runnable("publish", "baseline", "--to", remote.label, code=2).err
    digest = remote.resolve("baseline--ann").digest
    eve.runnable("pull", f"{remote.label}@{digest}")
    assert eve.log("baseline") == ann.log("baseline")


def two_runs(tmp_path: Path, remote: Registry, *, annotated: bool) -> tuple[Layout, Layout]:
    """Two runs `r`, of which the later one took the plain tag; perhaps as an earlier version annotates them."""
    layouts = store(tmp_path / "one"), store(tmp_path / "two")
    for layout in layouts:
        record(layout, "load", {"a.txt": layout.folder.parent.name.encode()})
        aside = opened(f"{remote.label}-{layout.folder.parent.name}")
        sent(layout, aside)
        manifest = layout.manifest(layout.resolve("r"))
        if not annotated:
            del manifest["annotations"]["vnd.runnable.identity"]
        for blob in (manifest["config"], *manifest["layers"]):
            with aside.fetch(described_as(blob)) as content:
                remote.push(described_as(blob), io.BytesIO(content.read()))
        raw = json.dumps(manifest).encode()
        remote.push(described(raw, MANIFEST_MEDIA_TYPE), io.BytesIO(raw))
        for tag in ("r", f"r--{layout.folder.parent.name}"):
            remote.tag(described(raw, MANIFEST_MEDIA_TYPE), tag)
    return layouts


def described_as(blob: dict[str, object]) -> Descriptor:
    """The descriptor that a manifest has of a blob."""
    return Descriptor(str(blob["mediaType"]), str(blob["digest"]), int(str(blob["size"])))


@pytest.mark.parametrize("annotated", [True, False])
def test_a_listing_shows_both_runs(tmp_path: Path, remote: Registry, *, annotated: bool) -> None:
    """`runs --from` has a line for each, and a note how to pull one; `prune` removes the older one alone."""
    one, two = two_runs(tmp_path, remote, annotated=annotated)
    project = workspace(tmp_path, {"x": ""}, git=False)
    listed = project.runnable("runs", "--from", remote.label)
    assert [line.split()[0] for line in listed.out.splitlines()] == ["RUN", "r", "r"]
    notes = listed.err.splitlines()
    assert [note.partition(";")[0] for note in notes] == ["note: 2 runs have the id `r`"] * 2
    digests = [re.search(r"@(sha256:\w+)", note)[1] for note in notes]  # type: ignore[index]
    assert digests == [remote.resolve(f"r--{name}").digest for name in ("one", "two")]
    assert len(json.loads(project.runnable("runs", "--from", remote.label, "--json").out)) == 2
    assert project.runnable("prune", "--from", remote.label, "--keep", "1").out == "r\n"
    assert sorted(run_tags(remote)) == ["r", "r--two"]
    assert contents(got(tmp_path / "reader", remote)[0]) == contents(two)
    with pytest.raises(UsageError, match="is another run"):
        sent(one, remote)


def test_the_log_tells_runs_of_earlier_versions_apart(tmp_path: Path, remote: Registry) -> None:
    """A manifest without an identity, and one without annotations at all, is the run that its log is of."""
    one, two = two_runs(tmp_path, remote, annotated=False)
    with pytest.raises(UsageError, match=r"`r` in .* is another run, begun at"):
        sent(one, remote)
    record(two, "more", {"b.txt": b"b"})
    sent(two, remote)
    bare = opened(f"{remote.label}-bare")
    bare.tag(bare.resolve(forge(bare, two, encode(load(two, "r")))), "r")
    with pytest.raises(UsageError, match="is another run"):
        sent(one, bare)
    sent(two, bare)


def test_two_clones_of_one_run_still_merge(tmp_path: Path, remote: Registry) -> None:
    """A run that two clones retried and published at the same moment is one run with the attempts of both."""
    ann, bob = ann_and_bob(tmp_path)
    ann.runnable("run", "--run-id", "k", "--to", remote.label, code=1)
    bob.runnable("pull", f"{remote.label}:k")
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(p.runnable, "retry", "k", "--publish", "--to", remote.label, code=1) for p in (ann, bob)]
        for job in jobs:
            job.result()
    eve = elsewhere(ann, tmp_path, "eve")
    assert "merged from 2 writers" in eve.runnable("pull", f"{remote.label}:k").err
    assert [invocation.command for invocation in eve.log("k").invocations] == ["run", "retry", "retry"]
    first, *later = [invocation.actor for invocation in eve.log("k").invocations]
    assert (first, sorted(later)) == ("Ann Lee", ["Ann Lee", "Bob Ray"])


@pytest.mark.promise
def test_of_two_runs_published_at_once_one_has_the_id(tmp_path: Path, served: Served) -> None:
    """Both found the id free; whoever's plain tag was replaced is told, withdraws, and can publish under another id."""
    for number in range(3):
        layouts = [store(tmp_path / f"{name}{number}") for name in ("one", "two")]
        for layout in layouts:
            record(layout, "load", {"a.txt": layout.folder.parent.name.encode()})
        meeting = threading.Barrier(2, timeout=20)
        met = threading.local()

        def hook(
            seen: Seen, forward: Callable[[], Reply], meeting: threading.Barrier = meeting, met: threading.local = met
        ) -> Reply:
            if seen.method == "PUT" and seen.path.endswith("/manifests/r") and not getattr(met, "before", False):
                met.before = True
                meeting.wait()  # neither writes a tag before the other has found none
            return forward()

        with serving(hook, upstream=served) as proxy, ThreadPoolExecutor(2) as pool:
            repository = proxy.repository()
            jobs = [pool.submit(sent, layout, opened(repository)) for layout in layouts]
            failures = [job.exception() for job in jobs]
        assert sorted(type(failure).__name__ for failure in failures) == ["IdTakenError", "NoneType"], failures
        (winner,) = [layout for layout, failure in zip(layouts, failures, strict=True) if failure is None]
        (loser,) = [layout for layout in layouts if layout is not winner]
        direct = opened(repository.replace(proxy.host, served.host))
        assert set(state(direct).values()) == {winner.resolve("r").digest}
        assert contents(got(tmp_path / f"reader{number}", direct)[0]) == contents(winner)
        keep_as(loser, "r", "other")
        sent(loser, direct, "other")
        assert contents(got(tmp_path / f"other{number}", direct, "other")[0], "other") == contents(loser)


def test_a_run_that_came_while_another_was_sent_keeps_the_id(tmp_path: Path, served: Served) -> None:
    """Looked at again before the tags are written: the slower publish writes none."""
    slow, quick = store(tmp_path / "slow"), store(tmp_path / "quick")
    for layout in (slow, quick):
        record(layout, "load", {"a.txt": layout.folder.parent.name.encode()})
    once: list[bool] = []

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        if seen.method == "PUT" and "/manifests/sha256:" in seen.path and not once:
            once.append(True)
            sent(quick, direct)
        return forward()

    with serving(hook, upstream=served) as proxy:
        repository = proxy.repository()
        direct = opened(repository.replace(proxy.host, served.host))
        with pytest.raises(UsageError, match="is another run"):
            sent(slow, opened(repository))
    assert once
    assert set(state(direct).values()) == {quick.resolve("r").digest}


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_job_resumes_neither_of_two_runs(tmp_path: Path, remote: Registry, attempt: int) -> None:
    """Where two runs have its id the job resumes none, changes none, and publishes under an id of its own."""
    logs = []
    for number in range(2):
        folder = tmp_path / f"job{number}"
        folder.mkdir()
        project = workspace(folder, FILES)
        project.runnable("run", "--run-id", "train-1000", code=1)
        layout = Layout(project.store)
        logs.append(load(layout, "train-1000"))
        manifest = remote.resolve(forge(remote, layout, encode(logs[-1]), "train-1000"))
        for tag in ("train-1000", f"train-1000--leg{number}"):
            remote.tag(manifest, tag)
    before = state(remote)
    folder = tmp_path / "again"
    folder.mkdir()
    project = workspace(folder, FILES)
    environ = {
        **project.environ,
        "GITHUB_REPOSITORY": "octo/flowers",
        "GITHUB_RUN_ID": "1000",
        "GITHUB_RUN_ATTEMPT": str(attempt),
        "GITHUB_JOB": "train",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "push",
    }
    action = ActionRun(project.folder, folder / "temp", environ, {"registry": remote.label, "token": "t0k3n" * 8})
    ran = action.all()
    assert ran.code == 1
    run_id = action.outputs["finish"]["run-id"]
    assert run_id.startswith("train-1000-")
    assert [invocation.command for invocation in project.log(run_id).invocations] == ["run"]
    assert run_identity(project.log(run_id)) not in {run_identity(log) for log in logs}
    assert ("is another run" in ran.text) is (attempt == 1)
    assert action.outputs["finish"]["reference"].startswith(f"{remote.label}:{run_id}@")
    assert state(remote).items() > before.items()


def test_an_id_that_cannot_be_is_refused_for_a_copy(tmp_path: Path) -> None:
    """`--as` takes what `--run-id` takes, and no id of another run here."""
    layout = store(tmp_path / "here")
    for run_id in ("r", "s"):
        record(layout, "load", {"a.txt": run_id.encode()}, run_id=run_id)
    before = files(layout.folder)
    for other, complaint in (("latest", "cannot be a run id"), ("../x", "cannot be a run id"), ("s", "another run")):
        with pytest.raises(UsageError, match=complaint):
            keep_as(layout, "r", other)
    assert files(layout.folder) == before


def test_a_copy_that_is_refused_leaves_nothing(tmp_path: Path, remote: Registry) -> None:
    """`publish --as` under an id that another run has, there or here, keeps no copy; the hint names another command."""
    ann, bob = ann_and_bob(tmp_path)
    ann.runnable("run", "--run-id", "taken", "--to", remote.label, code=1)
    for run_id in ("own", "other"):
        bob.runnable("run", "--run-id", run_id, code=1)
    before = {**files(bob.store), **state(remote)}
    for run_id, more in (("taken", ["--to", remote.label]), ("other", ["--to", remote.label])):
        refused = bob.runnable("publish", "own", "--as", run_id, *more, code=2)
        assert f"`{run_id}` in " in refused.err
        assert "runnable-ci publish own --as OTHER_ID" in refused.err.splitlines()[-1]
    assert bob.runnable("publish", "own", "--as", "x" * 120, "--to", remote.label, code=2).err
    after = files(bob.store)
    assert {path for path in after if "index" not in path} - before.keys() <= {
        path for path in after if path.startswith("blobs/") or path.endswith("publish.lock")
    }
    assert sorted(Layout(bob.store).manifests()) == ["other", "own"]
    assert not (bob.store / "runs" / "taken").exists()
    assert {tag: before[tag] for tag in state(remote)} == state(remote)
    bob.runnable("publish", "own", "--as", "free", "--to", remote.label)
    bob.runnable("publish", "own", "--as", "free", "--to", remote.label)
    assert bob.log("free").run_id == "free"


def test_a_retry_that_will_be_published_asks_before_its_work(tmp_path: Path, remote: Registry) -> None:
    """`retry --publish` of a run whose id is another's there starts no step; its own id or a free one is fine."""
    ann, bob = ann_and_bob(tmp_path)
    ann.runnable("run", "--run-id", "first", "--to", remote.label, code=1)
    bob.runnable("run", "--run-id", "first", code=1)
    (tmp_path / "RAN").unlink()
    refused = bob.runnable("retry", "first", "--from", "prep", "--publish", "--to", remote.label, code=2)
    assert f"there is another run `first` in {remote.label}, begun by Ann Lee at " in refused.err
    assert not (tmp_path / "RAN").exists()
    assert f"runnable-ci publish first --as OTHER_ID --to {remote.label}" in refused.err
    bob.runnable("publish", "first", "--as", "second", "--to", remote.label)
    for project, run_id in ((ann, "first"), (bob, "second")):
        (project.folder / "fixed").touch()
        project.runnable("retry", run_id, "--publish", "--to", remote.label)
        assert project.log(run_id).status == "SUCCESS"


def test_whoever_reads_meets_no_mix(tmp_path: Path, remote: Registry) -> None:
    """A log that was mixed of two runs before has the identity of neither, and goes into neither."""
    one, two = store(tmp_path / "one"), store(tmp_path / "two")
    logs = [record(layout, "load", {"a.txt": b"a"}) for layout in (one, two)]
    mixed = logs[0].model_copy(update={"invocations": [*logs[0].invocations, *logs[1].invocations]})
    remote.tag(remote.resolve(forge(remote, one, encode(mixed))), "r--mixed")
    with pytest.raises(UsageError, match="is another run"):
        pull(one, remote, "r--mixed")
    (part,) = find_manifests(remote, "r")
    assert decode(encode(part.log), where="copy") == mixed
    with pytest.raises(UsageError, match="is another run"):
        pull(two, remote, "r--mixed")
    assert {run_identity(load(layout, "r")) for layout in (one, two)} == {run_identity(log) for log in logs}
