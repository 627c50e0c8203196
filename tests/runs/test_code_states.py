"""Tests of the states of the code in a run log."""

from __future__ import annotations

import json
import random

from runnable_ci.runs.code_model import CodeIdentity, CodeState
from runnable_ci.runs.code_states import code_state_of, difference, kept_untracked, states, unpublished, whole
from runnable_ci.runs.events import CodeStateRecorded, apply, decode_event, encode_event
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog
from runnable_ci.runs.remote.merge import merge


def log_of(*attempts: StepAttempt, table: dict[str, CodeState] | None = None) -> RunLog:
    """A run log with an attempt a step."""
    steps = {f"s{n}": StepLog(name=f"s{n}", internal_name=f"s{n}", attempts=[a]) for n, a in enumerate(attempts)}
    return RunLog(run_id="r", steps=steps, code_states=table or {})


def test_a_state_that_builds_on_others_is_whole_again() -> None:
    """Any chain of states, each told as its difference from the one before, reads as what was put in."""
    choose = random.Random(1)  # noqa: S311 - no secrets
    table: dict[str, CodeState] = {}
    given: dict[str, CodeState] = {}
    base = ""
    for number in range(60):
        names = choose.sample("abcdefgh", choose.randrange(8))
        changes = {name: ("modified", str(choose.randrange(3))) for name in names}
        omitted = {name: choose.choice(("large", "secret")) for name in names if choose.random() < 0.5}
        key = str(number)
        given[key] = CodeState(commit="c", changes=changes, omitted=omitted, bundles={key: (key, number)})
        table[key] = difference(given[base], base, given[key]) if base else given[key]
        base = key
    for number in range(60):
        found = whole(table, str(number))
        assert (found.changes, found.omitted) == (given[str(number)].changes, given[str(number)].omitted)
        assert found.bundles == {str(n): (str(n), n) for n in range(number + 1)}


def test_a_log_grows_by_what_is_new() -> None:
    """Four hundred states, each with a file more, take twice the bytes of two hundred."""

    def size_bytes(count: int) -> int:
        table: dict[str, CodeState] = {}
        for number in range(count):
            changes = {f"file{n:04}": ("untracked", "d" * 64) for n in range(number)}
            state = CodeState(commit="c" * 40, tree=f"{number:040}", changes=changes)
            key = f"{number:040}"
            base = f"{number - 1:040}" if number else ""
            table[key] = difference(whole(table, base), base, state) if base else state
        return sum(len(encode_event(CodeStateRecorded(key=key, state=state))) for key, state in table.items())

    assert size_bytes(400) < 2.1 * size_bytes(200)


def test_a_chain_that_bites_its_tail_ends() -> None:
    """A log from elsewhere whose states build on each other in a circle is read once round."""
    table = {"a": CodeState(base="b", changes={"x": ("modified", "1")}), "b": CodeState(base="a")}
    assert whole(table, "a").changes == {"x": ("modified", "1")}
    assert whole({"a": CodeState(base="gone")}, "a").changes == {}


def test_logs_of_earlier_versions_are_read() -> None:
    """What an earlier version said of the code with each attempt reads as a state."""
    identity = CodeIdentity(
        code_identifier="c",
        changes={"a": ("untracked", "1"), "b": ("untracked", "2"), "c": ("modified", "3")},
        snapshot="d",
        snapshot_size=9,
        snapshot_omitted=["b: over the limit: 9 bytes"],
    )
    attempt = StepAttempt(code_identities=[identity])
    state = code_state_of(log_of(attempt), attempt)
    assert state is not None
    assert (state.commit, state.snapshot, state.snapshot_size, state.changes) == ("c", "d", 9, identity.changes)
    assert state.omitted == {"b": "over the limit: 9 bytes"}
    assert kept_untracked(state) == ["a"]
    assert kept_untracked(state.model_copy(update={"untracked": ["a", "lib/x"]})) == ["a", "lib/x"]
    assert code_state_of(log_of(StepAttempt()), StepAttempt()) is None


def test_states_of_an_invocation() -> None:
    """Each state is given once, of all invocations or of one."""
    table = {"k1": CodeState(commit="1"), "k2": CodeState(commit="2", unpublished=True)}
    attempts = [StepAttempt(code_state=key, invocation=number) for key, number in (("k1", 1), ("k1", 1), ("k2", 2))]
    log = log_of(*attempts, table=table)
    assert [state.commit for state in states(log)] == ["1", "2"]
    assert [state.commit for state in states(log, invocation=1)] == ["1"]
    assert "commit 2" in unpublished(log)
    assert unpublished(log, invocation=1) == ""


def test_an_event_puts_a_state_on_record() -> None:
    """It survives the journal, and two logs of one run that are merged have the states of both."""
    state = CodeState(commit="c", tree="t", changes={"a": ("deleted", "")}, kept="k", bundles={"k": ("d", 3)})
    line = encode_event(CodeStateRecorded(key="t.1", state=state))
    assert "untracked" not in json.loads(line)["state"]
    log = apply(RunLog(run_id="r"), decode_event(line, where="here"))
    assert log.code_states == {"t.1": state}
    other = RunLog(run_id="r", code_states={"t.2": CodeState(commit="c")})
    assert merge([log, other]).code_states.keys() == {"t.1", "t.2"}
