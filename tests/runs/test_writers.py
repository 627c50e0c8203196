"""Several people write one run: whose parts are used, who is named, and what a part that is refused cannot do."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from published_runs import forge, got, opened, record, sent, store
from registry_server import Served, described, registry

from runnable_ci.errors import RunLogError, UsageError
from runnable_ci.github.job import Context
from runnable_ci.runs.document import encode
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.paths import WRITERS, run_folder
from runnable_ci.runs.reader import load
from runnable_ci.runs.remote.contributions import read_contributions
from runnable_ci.runs.remote.pull import WritersRefusedError, find, pull
from runnable_ci.runs.remote.writers import AcceptedWriters, Maker, Writer, ref_label
from runnable_ci.runs.run_identity import heads
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry

DIGEST = f"sha256:{'0' * 64}"
FILES = {
    "runnable.toml": '[steps.p1]\npython = "m:p1"\nreturns = { o = "object" }\n'
    '[steps.z]\npython = "m:z"\nreturns = ["size"]\n',
    "m.py": "import os\ndef p1():\n    return [1]\n\n"
    'def z(o):\n    assert "FIXED" in os.environ, "not fixed"\n    return len(o)\n',
    ".gitignore": "PWNED\n__pycache__\n",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def remote(served: Served) -> Registry:
    """A repository that nobody else uses."""
    return opened(served.repository())


class _Evil:
    """What runs a program when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        import os

        return os.system, ("touch PWNED",)


def job(ref: str, **more: str) -> dict[str, str]:
    """Variables of a job."""
    return {"GITHUB_ACTIONS": "true", "GITHUB_REF": ref, "GITHUB_RUN_ID": "77", "GITHUB_ACTOR": "octocat", **more}


def attack(remote: Registry, layout: Layout, run_id: str, *tags: str, ref: str = "refs/heads/other") -> str:
    """Publish the run with one attempt more of `p1`, later than all others, whose object runs a program."""
    log = load(layout, run_id)
    raw = pickle.dumps(_Evil())
    remote.push(described(raw, "application/vnd.runnable.object.v1+pickle"), io.BytesIO(raw))
    step = log.steps["p1"]
    found = step.attempts[-1].output_parameters["o"]
    evil = found.model_copy(update={"data_hash": hashlib.sha256(raw).hexdigest(), "size": len(raw)})
    last = log.invocations[-1].model_copy(
        update={"number": 2, "command": "retry", "start_time": "2099-01-01T00:00:00Z"}
    )
    seen = {"identity": "e" * 32, "parents": heads(log.invocations)}
    last = last.model_copy(update={"end_time": "2099-01-01T00:00:09Z", "actor": "mallory", "workflow_run": "", **seen})
    environment = log.environments[step.attempts[-1].environment].model_copy(update={"variables": {"GITHUB_REF": ref}})
    more = {"attempt_number": 2, "invocation": 2, "start_time": "2099-01-01T00:00:01Z", "environment": "e"}
    forged = step.attempts[-1].model_copy(
        update={**more, "end_time": "2099-01-01T00:00:02Z", "output_parameters": {"o": evil}}
    )
    altered = log.model_copy(
        deep=True,
        update={"invocations": [*log.invocations, last], "environments": {**log.environments, "e": environment}},
    )
    altered.steps["p1"].attempts.append(forged)
    digest = forge(remote, layout, encode(altered), run_id)
    for tag in tags:
        remote.tag(remote.resolve(digest), tag)
    return digest


@pytest.fixture
def victim(tmp_path: Path, remote: Registry) -> tuple[Workspace, Workspace]:
    """Where a run of `main` was made and published, its last step failed; and a clone to resume it in."""
    made = workspace(tmp_path, FILES)
    main_job = Workspace(made.folder, {**made.environ, **job("refs/heads/main")})
    main_job.runnable("run", "--run-id", "k", "--to", remote.label, code=1)
    clone = elsewhere(made, tmp_path)
    return made, Workspace(clone.folder, {**clone.environ, "FIXED": "1"})


@pytest.mark.promise
def test_a_person_is_told_whose_results_are_used_before_a_step_runs(
    victim: tuple[Workspace, Workspace], remote: Registry
) -> None:
    """The plan of a retry names the stranger with branch, time, digest and step; `--writers` keeps them out."""
    made, clone = victim
    digest = attack(remote, Layout(made.store), "k", "k--gh-999-other-branch-1-abcdef123456")
    planned = clone.runnable("retry", f"{remote.label}:k", "--dry-run")
    named = f"mallory on other with code of main at 2099-01-01 00:00:09 UTC ({digest})"
    assert f"note: written by {named}, used of it: p1" in planned.err + planned.out
    last = clone.runnable("show", "k").out.splitlines()[-1]
    assert last.split(None, 1) == ["p1", named]
    refused = clone.runnable("retry", "k", "--writers", "main", code=2)
    assert named in refused.err
    clean = clone.folder.parent / "clean"
    clone.git("clone", "-q", str(made.folder), str(clean))
    safe = Workspace(clean, clone.environ)
    done = safe.runnable("retry", f"{remote.label}:k", "--writers", "main,sha256:" + "0" * 64)
    assert f"not used, since its writer is not accepted: {named}" in done.err
    assert not (clean / "PWNED").exists()
    assert safe.log("k").steps["z"].attempts[-1].output_parameters["size"].value == 1


@pytest.mark.promise
@pytest.mark.parametrize("tags", [("k--evil",), ("k", "k--evil"), ("k",)], ids=["writer's", "both", "plain"])
def test_a_job_uses_nothing_of_another_branch(
    victim: tuple[Workspace, Workspace], remote: Registry, tags: tuple[str, ...]
) -> None:
    """A retry in a job of `main` takes the parts of `main` alone, whatever the stranger's tags are."""
    made, clone = victim
    attack(remote, Layout(made.store), "k", *tags)
    done = Workspace(clone.folder, {**clone.environ, **job("refs/heads/main")}).runnable("retry", f"{remote.label}:k")
    assert "not used, since its writer is not accepted: mallory on other" in done.out + done.err
    assert not (clone.folder / "PWNED").exists()
    assert [a.invocation for a in clone.log("k").steps["p1"].attempts] == [1]


@pytest.mark.promise
def test_a_digest_is_that_part_and_nothing_else(victim: tuple[Workspace, Workspace], remote: Registry) -> None:
    """`REF@DIGEST` and `ID@DIGEST` take one part, in a job of another branch too; one of another run is refused."""
    made, clone = victim
    honest = remote.resolve("k").digest
    attack(remote, Layout(made.store), "k", "k", "k--evil", ref="refs/heads/main")
    topic = Workspace(clone.folder, {**clone.environ, **job("refs/heads/topic"), "RUNNABLE_CI_REGISTRY": remote.label})
    for reference in (f"{remote.label}:k@{honest}", f"k@{honest}"):
        topic.runnable("pull", reference)
        assert len(clone.log("k").invocations) == 1
    done = clone.runnable("retry", f"k@{honest}", RUNNABLE_CI_REGISTRY=remote.label)
    assert not (clone.folder / "PWNED").exists()
    assert "on main in workflow run 77" in done.err
    wrong = clone.runnable("pull", f"other@{honest}", "--from", remote.label, code=1)
    assert "is run `k`, not `other`" in wrong.err


def test_a_run_by_nobody_who_is_accepted_is_refused_by_name(tmp_path: Path, remote: Registry) -> None:
    """Where no part is accepted nothing is pulled, and the error has the writer and the reference to name instead."""
    record(layout := store(tmp_path / "here"), "load", {"a.txt": b"a"})
    digest = sent(layout, remote).manifest.digest
    with pytest.raises(WritersRefusedError, match="not written by a writer that is accepted here") as refused:
        pull(store(tmp_path / "there"), remote, "r", accepted=AcceptedWriters(refs=frozenset({"main"})))
    assert digest in refused.value.message
    assert f"{remote.label}:r@sha256:DIGEST" in refused.value.hint
    assert not (tmp_path / "there" / ".runnable" / "runs").exists()
    pull(layout, remote, "r", accepted=AcceptedWriters(refs=frozenset()))  # its own is always accepted
    assert read_contributions(layout, "r").writers == {}


@pytest.mark.promise
def test_what_is_refused_never_changes_what_is_found(tmp_path: Path, remote: Registry) -> None:
    """Of any set of writers the accepted ones alone decide: the log is that of a registry which has no others."""
    base = store(tmp_path / "base")
    record(base, "load", {"load.txt": b"load"})
    sent(base, remote)
    digests = [base.resolve("r").digest]
    for i in range(3):
        layout, _ = got(tmp_path / f"writer{i}", remote, digests[0])
        record(layout, "load", {"load.txt": f"{i}".encode()})
        sent(layout, remote)
        digests.append(layout.resolve("r").digest)
    for chosen in range(1, 2 ** len(digests)):
        accepted = [digest for i, digest in enumerate(digests) if chosen >> i & 1]
        alone = opened(f"{remote.label}-{chosen}")
        for digest in accepted:
            copy_of(remote, alone, digest)
        rule = AcceptedWriters.parse(",".join(accepted))
        assert found_log(remote, rule) == found_log(alone, AcceptedWriters.parse("*"))


def test_a_damaged_note_is_noticed(tmp_path: Path, remote: Registry) -> None:
    """A changed byte or a cut in what is noted of writers is an error that names the file, or changes nothing."""
    record(layout := store(tmp_path / "here"), "load", {"a.txt": b"a"})
    sent(layout, remote)
    there, _ = got(tmp_path / "there", remote)
    path = run_folder(there, "r") / WRITERS
    whole, noted = path.read_bytes(), read_contributions(there, "r")
    assert noted.writers
    harmless = 0
    for place in range(0, len(whole) - 1, 7):
        for damaged in (whole[:place], whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]):
            path.write_bytes(damaged)
            try:
                assert read_contributions(there, "r") == noted
                harmless += 1
            except RunLogError as e:
                assert "writers.json is damaged" in e.message
    assert harmless < 10  # in the check itself


def found_log(remote: Registry, rule: AcceptedWriters) -> RunLog:
    """The log of the run that writers wrote."""
    return find(remote, "r", accepted=rule, layout=None).log


def copy_of(source: Registry, target: Registry, digest: str) -> None:
    """Publish a part elsewhere, under a tag of its own."""
    from runnable_ci.store.copy import copy

    copy(source, digest, target)
    target.tag(target.resolve(digest), f"r--{digest[-12:]}")


WRITER = Writer(DIGEST, ("gh-17-train-1-abc",), (Maker(("release/2", "topic"), "ann"),), "w")


@pytest.mark.parametrize(
    ("patterns", "accepts"),
    [
        ("*", True),
        (DIGEST, True),
        ("release/*,topic", True),
        ("release/*", False),
        ("main, ?????", False),
        ("actor:an?", True),
        ("actor:bob", False),
        ("ann", False),
        ("name:gh-17-*", True),
        ("name:w--gh-17-*", True),
        ("name:v--gh-17-*", False),
        ("gh-17-*", False),
        (f"sha256:{'1' * 64}", False),
    ],
)
def test_patterns(patterns: str, *, accepts: bool) -> None:
    """A branch counts where all that a part is of match; actors, tags and digests have prefixes that no branch has."""
    assert AcceptedWriters.parse(patterns).accepts(WRITER) is accepts


@pytest.mark.parametrize("patterns", ["", "main,", "sha256:12", "actor:"])
def test_patterns_that_match_nobody(patterns: str) -> None:
    """An empty word and a part of a digest are errors."""
    with pytest.raises(UsageError, match="matches no writer"):
        AcceptedWriters.parse(patterns)


def test_an_empty_option_is_an_error_and_an_empty_variable_is_none(tmp_path: Path) -> None:
    """`--writers ''` accepts nobody that could be meant; a workflow cannot leave out a variable that it computes."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.a]\nrun = "true"\n'})
    project.runnable("run", "--run-id", "k")
    for words in (["retry", "k"], ["pull", "127.0.0.1:1/x:k"]):
        refused = project.runnable(*words, "--writers", "", code=2)
        assert "error: --writers '': '' matches no writer" in refused.err
    project.runnable("retry", "k", RUNNABLE_CI_WRITERS="")


def test_a_part_without_a_branch_is_accepted_by_no_branch() -> None:
    """A job accepts nobody of whom it does not know the branch."""
    assert not AcceptedWriters(refs=frozenset({"main"})).accepts(Writer(DIGEST))
    assert not AcceptedWriters(refs=frozenset({"release/2"})).accepts(WRITER)
    assert AcceptedWriters(refs=frozenset({"release/2", "topic", "main"})).accepts(WRITER)


def test_jobs_that_share_a_run_accept_their_workflow_run() -> None:
    """A job of a pull request, and one that checked out a commit, has code of no branch; others stay refused."""
    own, other = (Maker(("pull:7", "HEAD detached"), "ann", run) for run in ("17", "18"))
    accepted = AcceptedWriters(refs=frozenset({"pull:7", "main"}), workflow_run="17")
    assert accepted.accepts(Writer(DIGEST, (), (own, Maker(("main",), "bob", "18"))))
    assert not accepted.accepts(Writer(DIGEST, (), (own, other)))
    assert not accepted.accepts(Writer(DIGEST, (), (other,)))
    assert accepted.accepts(Writer(DIGEST, (), (other, own)))  # it had accepted what it published
    by_digest = replace(accepted, patterns=("sha256:" + "1" * 64,))
    assert by_digest.accepts(Writer(DIGEST, (), (other, own)))
    assert not by_digest.accepts(Writer(DIGEST, (), (own, other)))


def test_a_job_that_ran_no_step_is_one_of_its_workflow_run(tmp_path: Path) -> None:
    """Its matrix has no instances, or an `if` left its steps out: its part says where it ran all the same."""
    pipeline = "[parameters]\nx = 1\n[steps.a]\nrun = 'true'\nstrategy.matrix.n = []\n"
    project = workspace(tmp_path, {"runnable.toml": pipeline})
    at_job = Workspace(project.folder, {**project.environ, **job("refs/pull/7/merge")})
    at_job.runnable("run", "--run-id", "r")
    writer = Writer.of(project.log("r"), DIGEST, ())
    accepted = AcceptedWriters(refs=frozenset({"pull:7"}), workflow_run="77")
    assert accepted.accepts(writer)
    assert not replace(accepted, workflow_run="78").accepts(writer)
    project.runnable("run", "--run-id", "here", GITHUB_RUN_ID="77")
    assert project.log("here").invocations[0].workflow_run == ""


@pytest.mark.parametrize(
    ("ref", "head", "label"),
    [
        ("refs/heads/a/b", "", "a/b"),
        ("refs/tags/v1", "", "tag:v1"),
        ("refs/pull/12/merge", "main", "pull:12"),
        ("refs/heads/main", "topic", "pull:topic"),
        ("", "", ""),
    ],
)
def test_the_label_of_a_job(ref: str, head: str, label: str) -> None:
    """A pull request and a tag are never taken for a branch of that name."""
    assert ref_label({"GITHUB_REF": ref, "GITHUB_HEAD_REF": head}) == label


def test_which_branches_a_job_accepts() -> None:
    """Its own, the default branch, what a retry checks out, a pull request's base; its head where it is no fork's."""

    def accepted(event_name: str, ref: str, head: str = "", base: str = "", **event: object) -> set[str]:
        event = {"repository": {"default_branch": "main"}, **event}
        context = Context(
            "o/r",
            "1",
            1,
            "j",
            event_name=event_name,
            ref=ref,
            head_ref=head,
            base_ref=base,
            default_branch="main",
            event=event,
        )
        return set(context.accepted_refs)

    own = {"head": {"repo": {"full_name": "O/R"}}}
    fork = {"head": {"repo": {"full_name": "eve/r"}}}
    merge = "refs/pull/5/merge"
    assert accepted("push", "refs/heads/topic") == {"topic", "main"}
    assert accepted("workflow_dispatch", "refs/heads/main", inputs={"ref": "refs/heads/fix"}) == {"main", "fix"}
    assert accepted("pull_request", merge, "topic", "dev", pull_request=own) == {"pull:5", "topic", "dev", "main"}
    assert accepted("pull_request", merge, "release", "dev", pull_request=fork) == {"pull:5", "dev", "main"}
    assert accepted("pull_request_target", "refs/heads/dev", "x", "dev", pull_request=own) == {"pull:x", "dev", "main"}
