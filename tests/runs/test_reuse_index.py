"""The index of results that other runs may take: what becomes an entry, and that no order of writers matters."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reuse_entries import MANIFEST, PIPELINE, READS, T, attempt, digest, entry, log_of, made_entries

from runnable_ci.errors import RunLogError
from runnable_ci.observe.reads import FileRead, ReadSet
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.files.checkpoint_model import CheckpointUse
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import (
    FAIL,
    Pack,
    Parameter,
    RunLog,
)
from runnable_ci.runs.reuse import entries as entries_module
from runnable_ci.runs.reuse.entries import ResultHolder, ReuseEntry, branch_of, publishing_branch, taken_by
from runnable_ci.runs.reuse.index import (
    INDEX_MAX_BYTES,
    KEPT_OF_STEP,
    PACKED_MAX_BYTES,
    Index,
    OtherIndexVersionError,
    decode,
    encode,
    held_also,
    merge,
    of_pipeline,
    without,
)
from runnable_ci.runs.reuse.results import of_steps, results_of, taking


def test_an_entry_has_all_that_decides_on_it() -> None:
    """The log of the one attempt, what it read, who made it where, and which manifest has its contents."""
    log = log_of(load=attempt(1), fit=attempt(2))
    found = {it.step: it for it in made_entries(log)}
    assert list(found) == ["fit", "load"], "the newest first"
    one = found["load"]
    assert (one.pipeline, one.run_id, one.title) == (PIPELINE, "r", "r/load.1")
    assert (one.refs, one.actor, one.held_by[0].manifest) == (["main"], "ada", MANIFEST)
    assert one.read_set() == READS
    mini = one.run_log()
    assert list(mini.steps) == ["load"]
    assert mini.steps["load"].attempts[0].taken_from == "r/load.1"
    assert mini.environments == log.environments
    assert mini.steps["load"].data_catalog[0].made_by == "r/load.1"


@pytest.mark.parametrize(
    "fields",
    [
        {"status": FAIL, "outcome": "failed"},
        {"reads": "", "reads_size": 0},
        {"reads": "", "not_seen": "it could not be watched"},
        {"mock": True},
        {"taken_from": "other/load.1"},
        {"end_time": ""},
        {"checkpoint_used": CheckpointUse(attempt=1, generation=1, is_foreign=True)},
        {"checkpoint_used": CheckpointUse(attempt=1, generation=1, not_seen=True)},
        {"output_parameters": {"token": Parameter.of_json("***", redacted=True)}},
        {"user_defined_metrics": {"m": Parameter.of_json("***", "metric", redacted=True)}},
    ],
    ids=str,
)
def test_what_cannot_be_proven_or_given_is_no_entry(fields: dict[str, Any]) -> None:
    """What failed, was not observed, was mocked, is another run's, resumed foreign work, or gave a secret."""
    assert [it.step for it in made_entries(log_of(load=attempt(), other=attempt(**fields)))] == ["load"]


def test_what_nobody_else_could_get_is_no_entry() -> None:
    """A file whose hash alone was recorded, a run of an unknown pipeline, reads that are lost; too large an attempt."""
    log = log_of(load=attempt())
    assert made_entries(log, document=None) == []
    log.steps["load"].data_catalog[0].stored = False
    assert made_entries(log) == []
    assert made_entries(log_of(load=attempt()).model_copy(update={"run_config": {}})) == []
    assert made_entries(log_of(load=attempt(definition={"run": "x" * entries_module.ENTRY_MAX_BYTES}))) == []


def test_reads_that_are_too_large_stay_where_they_are() -> None:
    """The entry is there without them, and says by the attempt which content they are."""
    large = ReadSet(files={f"{n}.txt": FileRead(digest=digest(n)) for n in range(4000)}).encode()
    (one,) = made_entries(log_of(load=attempt()), document=large)
    assert one.read_set() is None
    assert entries_module.reads_blob(one.run_log()).hex == digest(7)


def test_a_branch_has_its_own_step_and_a_pack_what_it_holds() -> None:
    """The steps of branches are entries by their keys; a pack is there whole where a content is in it."""
    log = log_of(each=attempt(), each_in_a_in_fit=attempt())
    log.packs = {digest(100): Pack(size=10, members={digest(len("each_in_a_in_fit")): (0, 3)})}
    found = {it.step: it for it in made_entries(log)}
    assert set(found) == {"each", "each.a.fit"}
    assert found["each.a.fit"].run_log().packs == log.packs
    assert found["each"].run_log().packs == {}
    assert of_steps(log, ["each"]) == ["each", "each.a.fit"]


def test_what_a_run_knows_already_is_not_replaced_by_what_it_takes() -> None:
    """Results may come from anybody: an environment of the same key stays what it was."""
    results = results_of(log_of(load=attempt()), ["load"])
    known = RunLog(run_id="n", environments={"e": Environment(os="mine")})
    kinds = [event.event for event in taking(results, "n", known)]
    assert "environment" not in "".join(kinds)
    assert [event.event for event in taking(results, "n")] != kinds


def test_the_pipeline_is_known_by_its_file_and_its_own_name() -> None:
    """A copy of the file elsewhere is another pipeline; a clone in a folder of another name is the same."""

    def key(name: str, file: str = "runnable.toml", base: str = "repository", *, named: bool = False) -> str:
        config = {"pipeline_file": file, "pipeline_base": base, "pipeline_is_named": named}
        return PipelineIdentity.recorded(name, config).key()

    assert key("clone-1") == key("clone-2") != key("clone-1", "copy/runnable.toml")
    assert key("a", named=True) != key("b", named=True)
    assert key("a", base="folder") != key("b", base="folder")
    assert key("a", base="") == ""


@pytest.mark.parametrize(
    ("refs", "branch"),
    [
        (("main",), "main"),
        (("main", "fix"), "main"),
        (("pull:12", "HEAD detached"), "pull:12"),
        (("pull:12", "main"), "pull:12"),
        (("main", "HEAD detached"), ""),
        (("tag:v1", "v1"), ""),
        ((), ""),
    ],
)
def test_a_result_belongs_to_the_branch_where_it_was_made(refs: tuple[str, ...], branch: str) -> None:
    """What a pull request's job made is the pull request's, whatever its code is."""
    assert branch_of(refs) == branch


@pytest.mark.parametrize(
    ("ref", "own", "branch"),
    [
        ("main", "main", "main"),
        ("main", "", "main"),
        ("main", "feature", ""),
        ("main", "pull:3", "pull:3"),
        ("main", "tag:v1", ""),
    ],
)
def test_a_job_writes_for_its_own_branch_alone(ref: str, own: str, branch: str) -> None:
    """Who publishes a run of another branch again does not write into that one's index; a pull request never does."""
    assert publishing_branch(log_of(ref=ref, load=attempt()), own) == branch


ENTRIES = st.builds(
    entry,
    step=st.sampled_from(["s", "t"]),
    inputs=st.sampled_from("abcdefgh"),
    second=st.integers(0, 9),
    run=st.sampled_from(["r", "q"]),
    holder=st.integers(1, 6),
)


@given(st.lists(ENTRIES, max_size=12), st.lists(ENTRIES, max_size=12), st.lists(ENTRIES, max_size=12))
def test_merging_knows_no_order(one: list[ReuseEntry], two: list[ReuseEntry], three: list[ReuseEntry]) -> None:
    """Whoever writes first, and however often: the same index."""
    assert merge(one, two) == merge(two, one)
    assert merge(merge(one, two)) == merge(one, two)
    assert merge(merge(one, two), three) == merge(one, merge(two, three)) == merge(three, two, one)
    assert decode(encode(merge(one, two)), where="it") == merge(one, two)
    assert encode(merge(one, two)) == encode(merge(two, one))


@given(st.lists(ENTRIES, max_size=40))
def test_the_newest_of_what_is_different_is_kept(found: list[ReuseEntry]) -> None:
    """Of results that were made from the same the newest is enough; of a step some different ones stay."""
    index = merge(found)
    for step in ("s", "t"):
        newest: dict[str, str] = {}
        for it in sorted((it for it in found if it.step == step), key=lambda it: it.ended):
            newest[it.inputs] = it.ended
        kept = {it.inputs: it.ended for it in index if it.step == step}
        assert len(kept) == min(KEPT_OF_STEP, len(newest))
        assert kept.items() <= newest.items()
        assert sorted(kept.values()) == sorted(newest.values())[-len(kept) :][: len(kept)] or not kept


def test_the_oldest_go_where_there_is_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of an index is bounded; what many entries share counts once."""
    from runnable_ci.runs.reuse import index as index_module

    found = [entry(f"s{n}", second=n) for n in range(20)]
    monkeypatch.setattr(index_module, "KEPT_BYTES", 4000)
    kept = merge(found)
    assert 5 < len(kept) < 20
    assert [it.ended for it in kept] == sorted((it.ended for it in found), reverse=True)[: len(kept)]
    assert merge(kept) == kept


def test_two_writers_at_once_lose_hits_and_never_make_one(rounds: int = 20) -> None:
    """Of two that read the same index the later one wins; whoever publishes again brings back what was lost."""
    for seed in range(rounds):
        chance = random.Random(seed)  # noqa: S311 - it must repeat itself
        there: Index = ()
        mine: list[Sequence[ReuseEntry]] = [
            [entry(f"s{n}", f"{who}{chance.randrange(3)}", chance.randrange(60), run=who) for n in range(4)]
            for who in ("a", "b")
        ]
        read = [there, there]
        for who in chance.sample([0, 0, 1, 1, 0, 1], 6):
            if chance.random() < 0.5:
                read[who] = there
            else:
                there = merge(read[who], mine[who])
        assert {it.title for it in there} <= {it.title for entries in mine for it in entries}
        for who in (0, 1):
            there = merge(there, mine[who])
        assert there == merge(*mine)


def test_a_run_that_took_a_result_holds_it_too() -> None:
    """So it outlives the run that made it; a run that merely claims a step does not."""
    index = merge([entry("s", run="a", holder=1), entry("t", run="a", holder=1)])
    log = log_of(run_id="b", s=attempt(taken_from="a/s.1"), t=attempt())
    assert taken_by(log) == {"s": "a/s.1"}
    also = held_also(index, PIPELINE, taken_by(log), ResultHolder(manifest=MANIFEST, run_id="b", ended=T.format(50)))
    assert {it.step: len(it.held_by) for it in also} == {"s": 2, "t": 1}
    left = without(also, {f"sha256:{digest(1)}"})
    assert [(it.step, [held.run_id for held in it.held_by]) for it in left] == [("s", ["b"])]
    assert of_pipeline(left, "other") == {}


def _packed(document: Any) -> bytes:
    return gzip.compress(json.dumps(document).encode())


BASE = {"version": 1, "environments": {}, "code_states": {}, "packs": {}}


UNUSABLE: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "cut short"),
    (lambda: b"no gzip at all", "cannot be read"),
    (lambda: _packed({"version": 1})[:-9], "cut short"),
    (lambda: _packed([]), "cannot be read"),
    (lambda: _packed({"entries": []}), "cannot be read"),
    (lambda: _packed({"version": "1", "entries": []}), "no version"),
    (lambda: _packed({**BASE, "entries": [{}]}), "cannot be read"),
    (lambda: _packed({**BASE, "entries": [{"log": {"environments": {"e": "missing"}}}]}), "cannot be read"),
    (lambda: _packed({**BASE, "entries": [{"pipeline": "p" * 201, "log": {}}]}), "at most 200 characters"),
    (lambda: _packed({**BASE, "entries": [{"log": {}}] * 200_000}), "cannot be read"),
    (lambda: _packed({**BASE, "x": [0] * 4_000_001, "entries": []}), "elements"),
    (lambda: gzip.compress(b" " * (INDEX_MAX_BYTES + 1)), "larger than 32 MiB"),
    (lambda: b"\0" * (PACKED_MAX_BYTES + 1), "larger than 8 MiB"),
]


@pytest.mark.parametrize(("packed", "said"), UNUSABLE, ids=range(len(UNUSABLE)))
def test_what_is_no_index_is_refused(packed: Callable[[], bytes], said: str) -> None:
    """Whoever may write to the registry may write anything: it costs no more than a sentence."""
    with pytest.raises(RunLogError, match=said):
        decode(packed(), where="the index")


def test_an_index_of_another_version_is_said_to_be_one() -> None:
    """That of a later one is neither read nor replaced; that of an earlier one is replaced."""
    with pytest.raises(OtherIndexVersionError, match="a later version of runnable-ci"):
        decode(_packed({"version": 2, "what": "ever"}), where="the index")
    with pytest.raises(RunLogError, match="an earlier version of runnable-ci; the next publish replaces it") as found:
        decode(_packed({"version": 0}), where="the index")
    assert not isinstance(found.value, OtherIndexVersionError)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": {}},
        {"run_id": "other"},
        {"schema_version": "99"},
        {"steps": {"load": {"name": "load", "internal_name": "load"}}},
        {"steps": {"../x": {"name": "../x", "internal_name": "x", "attempts": [{}]}}},
    ],
    ids=str,
)
def test_a_log_in_an_entry_is_checked_before_it_is_used(change: dict[str, Any]) -> None:
    """It is that of one attempt, of the run and step that the entry names, and leads nowhere."""
    (one,) = made_entries(log_of(load=attempt()))
    with pytest.raises(RunLogError):
        one.model_copy(update={"log": {**one.log, **change}}).run_log()


def test_an_entry_cannot_lead_out_of_the_workspace() -> None:
    """A file with a name that leads out is refused, as in any log that comes from elsewhere."""
    log = log_of(load=attempt())
    log.steps["load"].data_catalog[0].name = "../../etc/passwd"
    (one,) = made_entries(log)
    with pytest.raises(RunLogError, match="names a file"):
        one.run_log()


def test_fields_of_a_newer_version_are_kept() -> None:
    """A writer of this version does not take away what a newer one added to an entry."""
    (one,) = made_entries(log_of(load=attempt()))
    newer = one.model_copy(update={"log": {**one.log, "new": 1}})
    object.__setattr__(newer, "__pydantic_extra__", {"later": [1]})
    (back,) = decode(encode(merge([newer])), where="it")
    assert back.model_extra == {"later": [1]}
    assert back.log["new"] == 1
