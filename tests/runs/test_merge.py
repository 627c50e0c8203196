"""Merging versions of a run's log: no order, no repetition and no grouping of them makes a difference."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.errors import RunLogError
from runnable_ci.runs.branches.branch_model import BranchRecord
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.events import (
    AttemptSaved,
    BranchesBegun,
    BranchesEnded,
    Decided,
    EnvironmentRecorded,
    Event,
    InvocationFinished,
    PackStored,
    Started,
    apply,
    mark_interrupted,
)
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import (
    FAIL,
    PROCESSING,
    SKIPPED,
    SUCCESS,
    CatalogEntry,
    DecisionRecord,
    Invocation,
    Pack,
    Parameter,
    RunLog,
    StepAttempt,
)
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.run_identity import run_identity

STEPS = ("load", "fit", "report")


def time(second: float) -> str:
    """A moment of the run."""
    return f"2026-11-24T03:{int(second) // 60:02}:{second % 60:09.6f}+00:00"


def started(second: float, number: int = 1, identity: str = "", **parameters: object) -> Started:
    """An invocation begins; the one at the run's first moment is the `run`, which may have given it an identity."""
    command = "retry" if second else "run"
    invocation = Invocation(
        number=number, command=command, start_time=time(second), parameters=parameters, identity=identity
    )
    return Started(run_id="r", name="n", dag_hash="d", run_config={}, invocation=invocation)


def attempt(step: str, begun: float, number: int, invocation: int, status: str = SUCCESS, ended: float = 0) -> Event:
    """An attempt, in flight or over; one that succeeded put a file and returned a value."""
    over = status != PROCESSING
    entry = CatalogEntry(name=f"{step}.txt", data_hash=f"{begun:064.0f}", stage="put")
    return AttemptSaved(
        step=step,
        attempt=StepAttempt(
            attempt_number=number,
            start_time=time(begun),
            end_time=time(ended or begun + 0.5) if over else "",
            status=status,
            outcome={SUCCESS: "succeeded", FAIL: "failed"}.get(status, ""),
            message="exit code 1" if status == FAIL else "",
            invocation=invocation,
            mock=begun % 2 > 0,
            taken_from="" if invocation else f"earlier/{step}.{number}",
            output_parameters={step: Parameter.of_json(begun)} if status == SUCCESS else {},
        ),
        data_catalog=[entry] if status == SUCCESS else [],
    )


def played(*events: Event) -> RunLog:
    """The log that these events make."""
    log = RunLog(run_id="r")
    for event in events:
        log = apply(log.model_copy(deep=True), event.model_copy(deep=True))
    return log


@dataclass(frozen=True)
class Invoked:
    """What one invocation did, as it would be with no other before it."""

    second: int
    outcomes: tuple[tuple[str, str], ...]
    """(step, how it came out)."""
    identity: str = ""
    takes: tuple[str, ...] = ()
    """Steps whose attempts it took from another run."""

    def events(self, log: RunLog) -> list[Event]:
        """Its events on top of a log."""
        number = log.invocation + 1
        happened: list[Event] = [
            started(self.second, number, identity=self.identity, seed=self.second),
            EnvironmentRecorded(key=f"e{self.second % 2}", environment=Environment(os="linux")),
        ]
        for step in self.takes:
            happened.append(attempt(step, self.second, 1, 0))
            happened.append(Decided(step=step, decision=DecisionRecord(action="reuse", reason="taken")))
        for i, (step, outcome) in enumerate(self.outcomes):
            begun = self.second + 1 + i
            tries = len(log.steps[step].attempts) if step in log.steps else int(step in self.takes)
            if outcome in (SUCCESS, FAIL):
                happened.append(attempt(step, begun, tries + 1, number, PROCESSING))
                happened.append(attempt(step, begun, tries + 1, number, outcome))
                happened.append(PackStored(digest=f"{begun:064}", pack=Pack(size=1, members={})))
            else:
                happened.append(Decided(step=step, decision=DecisionRecord(action=outcome, reason=f"because {begun}")))
        failed = any(outcome == FAIL for _, outcome in self.outcomes)
        happened.append(InvocationFinished.of("failed" if failed else "succeeded", time=time(self.second + 9)))
        return happened


@st.composite
def versions(draw: st.DrawFn) -> list[RunLog]:
    """Versions of one run: each knows its beginning and some of its retries, the last perhaps only up to a kill."""
    outcome = st.sampled_from([SUCCESS, FAIL, "skip", "reuse"])
    identity = draw(st.sampled_from(["", "ab12"]))
    taken = tuple(draw(st.sets(st.sampled_from(STEPS))))
    history = [
        Invoked(
            10 * i,
            tuple((step, draw(outcome)) for step in draw(st.permutations(STEPS))),
            "" if i else identity,
            () if i else taken,
        )
        for i in range(draw(st.integers(1, 4)))
    ]
    logs = []
    for _ in range(draw(st.integers(1, 4))):
        log = RunLog(run_id="r")
        known = [history[0], *(invoked for invoked in history[1:] if draw(st.booleans()))]
        for invoked in known:
            events = invoked.events(log)
            end = draw(st.integers(1, len(events))) if invoked is known[-1] else len(events)
            for event in events[:end]:
                log = apply(log, event)
        if draw(st.booleans()):
            for event in mark_interrupted(log, time=time(draw(st.integers(50, 59)))):
                log = apply(log, event)
        logs.append(log)
    return logs


@settings(max_examples=300, deadline=None)
@given(versions(), st.randoms())
def test_order_and_repetition_make_no_difference(logs: list[RunLog], random: object) -> None:
    """Any order of the versions, and any of them twice, gives the same document, byte by byte."""
    merged = merge(logs)
    shuffled = [*logs, *logs[:2]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert encode(merge(shuffled)) == encode(merged)
    assert merge([merged]) == merge([merged, merged]) == merged


@pytest.mark.promise
@settings(max_examples=300, deadline=None)
@given(versions(), st.integers(0, 4))
def test_grouping_makes_no_difference(logs: list[RunLog], cut: int) -> None:
    """What was merged before merges to the same, also with its own parts again."""
    merged = merge(logs)
    parts = [part for part in (logs[:cut], logs[cut:]) if part]
    assert canonical(merge([merge(part) for part in parts])) == canonical(merged)
    assert canonical(merge([merged, *logs])) == canonical(merged)


def canonical(log: RunLog) -> RunLog:
    """A log as a merge with something that it knows already leaves it: one version alone is given back as it is."""
    begun = log.invocations[0].model_copy(update={"status": PROCESSING, "end_time": "", "message": "", "decisions": {}})
    return merge([log, RunLog(run_id="r", invocations=[begun])])


@pytest.mark.promise
@settings(max_examples=300, deadline=None)
@given(versions())
def test_nothing_is_lost(logs: list[RunLog]) -> None:
    """Each attempt of each version is there with its files, its invocation, and a result if any version had one."""
    merged = merge(logs)
    for log in logs:
        assert log.environments.items() <= merged.environments.items()
        assert log.packs.items() <= merged.packs.items()
        for name, step in log.steps.items():
            for one in step.attempts:
                (found,) = [a for a in merged.steps[name].attempts if a.start_time == one.start_time]
                own = {i.number: i.start_time for i in log.invocations}
                assert {i.number: i.start_time for i in merged.invocations}.get(found.invocation) == own.get(
                    one.invocation
                )
                assert (found.mock, found.taken_from) == (one.mock, one.taken_from)
                if one.status == SUCCESS:
                    assert found.output_parameters == one.output_parameters
                    is_last = found is merged.steps[name].attempts[-1]
                    files = merged.steps[name].data_catalog if is_last else found.data_catalog
                    assert [entry.data_hash for entry in files] == [f"{one.output_parameters[name].value:064}"]
    assert all(step.mock == step.attempts[-1].mock for step in merged.steps.values() if step.attempts)
    numbers = [[a.attempt_number for a in step.attempts] for step in merged.steps.values()]
    assert all(found == list(range(1, len(found) + 1)) for found in numbers)


def test_two_machines_retried_the_same_run() -> None:
    """Retries of two machines are both there, in the order in which they began, and the later one's state counts."""
    first = [
        started(0, seed=1),
        attempt("fit", 1, 1, 1, FAIL),
        InvocationFinished.of("failed", time=time(2), message="failed: fit"),
    ]
    one = played(
        *first, started(10, 2, seed=1), attempt("fit", 11, 2, 2), InvocationFinished.of("succeeded", time=time(12))
    )
    other = played(
        *first,
        started(5, 2, seed=2),
        attempt("fit", 6, 2, 2, FAIL),
        InvocationFinished.of("failed", time=time(7), message="failed: fit"),
    )
    merged = merge([one, other])
    fit = merged.steps["fit"]
    assert [(a.attempt_number, a.start_time, a.invocation, a.status) for a in fit.attempts] == [
        (1, time(1), 1, FAIL),
        (2, time(6), 2, FAIL),
        (3, time(11), 3, SUCCESS),
    ]
    assert (fit.status, [entry.name for entry in fit.data_catalog]) == (SUCCESS, ["fit.txt"])
    assert (merged.status, merged.message, merged.end_time) == (SUCCESS, "", time(12))
    assert {name: p.value for name, p in merged.parameters.items()} == {"seed": 1, "fit": 11}


def test_two_machines_began_a_step_at_the_same_moment() -> None:
    """Attempts of one step that began in the same microsecond, each in its own invocation, are both there."""
    first = [
        started(0),
        attempt("fit", 1, 1, 1, FAIL),
        InvocationFinished.of("failed", time=time(2), message="failed: fit"),
    ]
    one = played(*first, started(5, 2), attempt("fit", 9, 2, 2))
    other = played(*first, started(6, 2), attempt("fit", 9, 2, 2, FAIL))
    for logs in ([one, other], [other, one, merge([one, other])]):
        fit = merge(logs).steps["fit"]
        assert [(a.attempt_number, a.invocation, a.status) for a in fit.attempts] == [
            (1, 1, FAIL),
            (2, 2, FAIL),
            (3, 3, SUCCESS),
        ]
        assert [entry.name for entry in fit.data_catalog] == ["fit.txt"]


def test_a_result_counts_more_than_a_mark_of_interruption() -> None:
    """A copy taken in mid-flight, and marked as killed where it was read, does not undo what its writer saw."""
    in_flight = [started(0), attempt("fit", 1, 1, 1, PROCESSING)]
    marked = played(*in_flight, *mark_interrupted(played(*in_flight), time=time(59)))
    over = played(*in_flight, attempt("fit", 1, 1, 1), InvocationFinished.of("succeeded", time=time(3)))
    for logs in ([marked, over], [over, marked], [played(*in_flight), marked, over]):
        merged = merge(logs)
        assert (merged.status, merged.end_time, merged.steps["fit"].status) == (SUCCESS, time(3), SUCCESS)
    merged = merge([played(*in_flight), marked])
    assert (merged.outcome, merged.interrupted) == ("interrupted", True)
    assert (merged.steps["fit"].outcome, merged.steps["fit"].attempts[0].interrupted) == ("interrupted", True)


def test_a_step_that_a_later_invocation_skipped_reads_as_skipped() -> None:
    """A step keeps its attempts but has the state that the newest invocation gave it."""
    skip = DecisionRecord(action="skip", reason="`load` failed")
    one = played(started(0), attempt("fit", 1, 1, 1), InvocationFinished.of("succeeded", time=time(2)))
    other = played(
        started(0),
        attempt("fit", 1, 1, 1),
        InvocationFinished.of("succeeded", time=time(2)),
        started(5, 2),
        Decided(step="fit", decision=skip),
        InvocationFinished.of("failed", time=time(6), message="failed: load"),
    )
    fit = merge([one, other]).steps["fit"]
    assert (fit.status, fit.message, len(fit.attempts)) == (SKIPPED, "`load` failed", 1)


def test_a_single_version_is_given_back_as_it_is() -> None:
    """Reading what one machine wrote changes no byte of it."""
    log = played(started(0), attempt("fit", 1, 1, 1), InvocationFinished.of("succeeded", time=time(2)))
    assert merge([log, log.model_copy(deep=True)]) is log


def test_logs_of_two_runs_are_refused() -> None:
    """Two runs never become one."""
    with pytest.raises(RunLogError, match="`a` and `b` are not of the same run"):
        merge([RunLog(run_id="a"), RunLog(run_id="b")])


@settings(max_examples=200, deadline=None)
@given(versions(), st.data())
def test_two_runs_of_one_id_are_refused(logs: list[RunLog], data: st.DataObject) -> None:
    """Whatever the logs know, one that begins otherwise is of another run, and so is what a mix of both has become."""
    change: dict[str, object] = data.draw(
        st.sampled_from(
            [{"identity": "cd34"}, {"identity": "", "start_time": time(0.5)}, {"identity": "", "parameters": {"x": 1}}]
        )
    )
    other = data.draw(st.sampled_from(logs)).model_copy(deep=True)
    other.invocations[0] = other.invocations[0].model_copy(update=change)
    mixed = logs[0].model_copy(update={"invocations": [*logs[0].invocations, other.invocations[0]]})
    for stranger in (other, mixed):
        assert run_identity(stranger) not in {run_identity(log) for log in logs}
        order = data.draw(st.permutations([*logs, stranger]))
        with pytest.raises(RunLogError, match="two runs have the id `r`"):
            merge(order)


@settings(max_examples=200, deadline=None)
@given(versions())
def test_a_run_keeps_its_identity(logs: list[RunLog]) -> None:
    """Neither a retry, a merge, a mark of interruption nor a copy through JSON makes another run of a run."""
    (identity,) = {run_identity(log) for log in logs}
    assert run_identity(merge(logs)) == identity
    assert run_identity(decode(encode(merge(logs)), where="copy")) == identity
    earlier = logs[0].model_copy(deep=True)  # a retry on a machine whose clock is behind sorts before the beginning
    earlier.invocations.append(Invocation(number=9, command="retry", start_time="2020-01-01T00:00:00+00:00"))
    assert run_identity(merge([*logs, earlier])) == identity


def matrix_log(second: float, ended: dict[str, int]) -> RunLog:
    """A run of a matrix of a and b in which one invocation finished some instances, and then was ended or killed."""
    branches = [BranchRecord(name=key, label=key, values={"x": key}) for key in "ab"]
    begun = BranchesBegun(step="q", kind="map", branches=branches, steps=["q"], returns=["count"])
    events: list[Event] = [started(0, identity="i"), begun]
    if second:
        events = [*events, InvocationFinished.of("failed", time=time(1)), started(second, 2), begun]
    for place, (key, value) in enumerate(ended.items()):
        saved = attempt(f"q.{key}.q", second + 2 + place, 1, 2 if second else 1, ended=second + 3 + place)
        assert isinstance(saved, AttemptSaved)
        saved.attempt.output_parameters = {"count": Parameter.of_json(value)}
        events.append(saved)
    if len(ended) == 2:
        events += [BranchesEnded(step="q", outcome="succeeded"), InvocationFinished.of("succeeded", time=time(99))]
    log = played(*events)
    for event in mark_interrupted(log, time=time(second + 50)):
        apply(log, event)
    return log


def test_a_matrix_is_merged_by_its_instances() -> None:
    """What each writer finished is there together, lists have the values of all, and one log alone stays as it is."""
    whole, first, second = matrix_log(0, {"a": 1, "b": 2}), matrix_log(10, {"a": 3}), matrix_log(20, {"b": 4})
    assert merge([whole]) == whole
    assert merge([first]) == first
    merged = merge([first, second])
    assert merge([second, first]) == merged
    assert merge([merged, first]) == merged
    assert merged.steps["q"].status == SUCCESS
    assert [merged.steps[f"q.{key}.q"].status for key in "ab"] == [SUCCESS, SUCCESS]
    assert merged.parameters["count"].value == [3, 4]
    assert decode(encode(merged), where="log") == merged
