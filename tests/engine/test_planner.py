"""Tests of the decision: the resume rules one by one, and what holds for any pipeline and any history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.engine.planner import Evidence, PlanInputs, Scope
from runnable_ci.engine.planning.plan import Plan, PlanState, plan, unread_parameters
from runnable_ci.engine.provenance.changes import Change, Decision, Outcome, same_json
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.runs.model import FAIL, SUCCESS, CatalogEntry, Invocation, Parameter, RunLog, StepAttempt, StepLog
from runnable_ci.runs.run_identity import invocation_digest

CHAIN: dict[str, dict[str, Any]] = {"load": {"run": "load"}, "fit": {"run": "fit"}, "plot": {"run": "plot"}}


def pipeline(steps: Mapping[str, Mapping[str, Any]], **more: Any) -> Pipeline:
    """A pipeline of step tables."""
    return resolve({"steps": {name: dict(step) for name, step in steps.items()}, **more}, file="f", default_name="n")


def scope(**parameters: Any) -> Scope:
    """What a run begins with."""
    return Scope.initial(parameters)


def history(made: Pipeline, **attempts: StepAttempt | list[StepAttempt]) -> RunLog:
    """A log in which the named steps have these attempts, with the definitions that the pipeline has now."""
    log = RunLog(run_id="best-hamilton-0300")
    for name, made_so_far in attempts.items():
        listed = made_so_far if isinstance(made_so_far, list) else [made_so_far]
        step = StepLog(name=name, internal_name=name, attempts=listed)
        for attempt in step.attempts:
            if name in made.steps and not attempt.definition:
                attempt.definition = made.steps[name].definition()
        step.status = step.attempts[-1].status
        log.steps[name] = step
    last = max((a.invocation for step in log.steps.values() for a in step.attempts), default=0)
    commands = ["run", *["retry"] * (last - 1)][:last]
    log.invocations = [Invocation(number=n, command=c, start_time=str(n)) for n, c in enumerate(commands, start=1)]
    return log


def good(number: int = 1, **more: Any) -> StepAttempt:
    """An attempt that succeeded."""
    return StepAttempt(attempt_number=number, invocation=number, status=SUCCESS, **more)


def bad(number: int = 1, message: str = "exit code 1") -> StepAttempt:
    """An attempt that failed."""
    return StepAttempt(attempt_number=number, invocation=number, status=FAIL, message=message)


TENTATIVE = "`{}` runs first, reused if that changes nothing"


def decided(
    made: Pipeline, log: RunLog, inputs: PlanInputs | None = None, initial: Scope | None = None
) -> dict[str, tuple[str, str]]:
    """Step → action and reason of the plan."""
    found = plan(made, log, initial=initial or scope(), inputs=inputs or PlanInputs())
    return {name: (decision.action, decision.reason) for name, decision in found.decisions.items()}


def test_first_run() -> None:
    """On an empty log every step runs."""
    assert decided(pipeline(CHAIN), RunLog(run_id="r")) == dict.fromkeys(CHAIN, ("run", "first attempt"))


def test_finished_run() -> None:
    """On a finished log every step is reused, and nothing has to be restored."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=good(2), plot=good(2))
    found = plan(made, log, initial=scope(), inputs=PlanInputs())
    assert [d.action for d in found.decisions.values()] == ["reuse"] * 3
    assert found.decisions["fit"].reason == "unchanged since attempt 2"
    assert (found.running, found.wanted) == ([], {})


def test_failed_step_and_what_is_below_it_run() -> None:
    """A retry begins with the failed step, and says how it failed."""
    made = pipeline(CHAIN)
    assert decided(made, history(made, load=good(), fit=bad())) == {
        "load": ("reuse", "unchanged since attempt 1"),
        "fit": ("run", "attempt 1 failed: exit code 1"),
        "plot": ("run", "first attempt"),
    }


def test_reason_of_a_failure_is_one_line() -> None:
    """A message of many lines, or none, still gives a reason of one."""
    made = pipeline({"a": {"run": "x"}})
    assert decided(made, history(made, a=bad(message="ValueError: a\n  b\n")))["a"][1] == (
        "attempt 1 failed: ValueError: a b"
    )
    assert decided(made, history(made, a=bad(message="")))["a"] == ("run", "its last attempt failed")


def test_attempt_in_flight_counts_as_failed() -> None:
    """A step whose attempt never ended runs again."""
    made = pipeline({"a": {"run": "x"}})
    assert decided(made, history(made, a=StepAttempt()))["a"] == ("run", "attempt 1 has not ended")


def test_failed_steps_definition_may_be_fixed() -> None:
    """Changing the failed step, and adding steps after it, leaves the finished ones alone."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=bad())
    fixed = pipeline({**CHAIN, "fit": {"run": "fit --better"}, "report": {"run": "report"}})
    assert [action for action, _ in decided(fixed, log).values()] == ["reuse", "run", "run", "run"]


def test_changed_definition_of_a_finished_step() -> None:
    """A finished step whose definition changed is named with its keys, and runs with all below it."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=good(), plot=good())
    changed = pipeline({**CHAIN, "fit": {"run": "fit --better", "env": {"A": "1"}}})
    assert decided(changed, log) == {
        "load": ("reuse", "unchanged since attempt 1"),
        "fit": ("run", "its `run`, `env` changed"),
        "plot": ("run", TENTATIVE.format("fit")),
    }


def test_order_of_returns_is_a_change() -> None:
    """A function's tuple is matched by the order of `returns`, also after a round trip through the log."""
    then = pipeline({"a": {"python": "m:f", "returns": {"x": "json", "y": "json"}}})
    now = pipeline({"a": {"python": "m:f", "returns": {"y": "json", "x": "json"}}})
    log = RunLog.model_validate_json(history(then, a=good()).model_dump_json())
    assert decided(then, log)["a"][0] == "reuse"
    assert decided(now, log)["a"] == ("run", "its `returns` changed")


def test_removed_step() -> None:
    """A step that is not in the file any more is no trouble: what another one needs is order, not input."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=good(), plot=good())
    rest = pipeline({name: step for name, step in CHAIN.items() if name != "fit"})
    assert decided(rest, log) == {
        "load": ("reuse", "unchanged since attempt 1"),
        "plot": ("reuse", "unchanged since attempt 1"),
    }


def test_forced() -> None:
    """A forced step runs, for its reason, and what is below it too."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=good(), plot=good())
    assert decided(made, log, PlanInputs(forced={"fit": "--from fit"})) == {
        "load": ("reuse", "unchanged since attempt 1"),
        "fit": ("run", "--from fit"),
        "plot": ("run", TENTATIVE.format("fit")),
    }


def comparing(**changes: Evidence) -> PlanInputs:
    """Inputs that have this evidence of the named steps."""
    return PlanInputs(compare=lambda step, _past, _scope: changes.get(step.name, Evidence()))


def test_changed_reads() -> None:
    """A step runs if anything that it got or read is different, and what is below it is looked at again then."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=good(), plot=good())
    evidence = Evidence((Change("iris.py changed, which it read", "code"),))
    found = plan(made, log, initial=scope(), inputs=comparing(fit=evidence))
    assert found.decisions == {
        "load": Decision("reuse", "unchanged since attempt 1"),
        "fit": Decision("run", "iris.py changed, which it read", kind="code"),
        "plot": Decision("run", TENTATIVE.format("fit"), is_tentative=True),
    }


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "number": (0.3, 0.5, "parameter rate changed: 0.3 → 0.5"),
    "one is not true": (1, True, "parameter rate changed: 1 → true"),
    "one is not 1.0": (1, 1.0, "parameter rate changed: 1 → 1.0"),
    "zero is not false": ({"a": [0]}, {"a": [False]}, 'parameter rate changed: {"a": [0]} → {"a": [false]}'),
    "lines": ("a\nb", "a\nc", "parameter rate changed: a b → a c"),
    "long": ("a" * 50, "b", f"parameter rate changed: {'a' * 37}... → b"),
}


@pytest.mark.parametrize(("then", "now", "reason"), CHANGES.values(), ids=CHANGES)
def test_changed_parameter(then: Any, now: Any, reason: str) -> None:
    """A step that consumed a parameter runs when its value is another, with both values in the reason."""
    made = pipeline(CHAIN)
    attempt = good(input_parameters={"rate": Parameter.of_json(then)}, consumed={"rate": "seen"}, reads="0")
    log = history(made, load=good(), fit=attempt, plot=good())
    found = decided(made, log, initial=scope(rate=now, other=1))
    assert [action for action, _ in found.values()] == ["reuse", "run", "run"]
    assert found["fit"][1] == reason
    assert decided(made, log, initial=scope(rate=then))["fit"][0] == "reuse"


def test_parameter_that_nobody_consumed() -> None:
    """A parameter that was only set re-runs nothing."""
    made = pipeline(CHAIN)
    attempt = good(input_parameters={"rate": Parameter.of_json(1)}, reads="0")
    log = history(made, load=attempt, fit=good(), plot=good())
    assert {action for action, _ in decided(made, log, initial=scope(rate=2)).values()} == {"reuse"}


def test_parameter_of_a_log_that_does_not_tell_who_used_it() -> None:
    """A log of a version that did not look tells of a shell step only what was set: a change of that counts."""
    made = pipeline({"all": {"run": "make"}, "none": {"run": "make", "parameters": []}, "py": {"python": "m:f"}})
    log = history(made, all=good(), none=good(), py=good())
    log.invocations[0].parameters = {"rate": 1, "same": 1}
    initial = scope(rate=2, same=1)
    found = plan(made, log, initial=initial, inputs=PlanInputs()).decisions["all"]
    assert (found.action, found.reason) == ("run", "parameter rate changed, and whether it was used was not seen")
    seen = history(made, all=good(reads="0"), none=good(), py=good())
    assert {action for action, _ in decided(made, seen, initial=initial).values()} == {"reuse"}


def test_parameter_that_is_gone() -> None:
    """A step runs when a parameter that it consumed is not there any more."""
    made = pipeline(CHAIN)
    log = history(made, load=good(input_parameters={"rate": Parameter.of_json(1)}))
    assert decided(made, log)["load"] == ("run", "parameter rate was removed")


def test_parameter_where_a_default_was_used() -> None:
    """A step whose function used a default runs once that argument is given."""
    made = pipeline({"a": {"python": "m:f"}})
    log = history(made, a=good(defaulted=["rate"]))
    assert decided(made, log)["a"][0] == "reuse"
    assert decided(made, log, initial=scope(rate=2))["a"] == ("run", "parameter rate is now set: 2")


def test_object_with_other_content() -> None:
    """An object is the same only with the same pickle."""
    made = pipeline({"a": {"python": "m:f", "returns": {"x": "object"}}, "b": {"python": "m:g"}})

    def x(data_hash: str) -> dict[str, Parameter]:
        return {"x": Parameter.of_object("x", data_hash=data_hash, size=1, object_type="T")}

    same = history(made, a=good(output_parameters=x("1")), b=good(input_parameters=x("1")))
    assert decided(made, same)["b"][0] == "reuse"
    other = history(made, a=good(output_parameters=x("2")), b=good(input_parameters=x("1")))
    assert decided(made, other)["b"] == ("run", "parameter x changed: x → x")


def test_return_replaces_a_parameter_of_the_file() -> None:
    """A step sees what an earlier step returned, not the file's value of that name."""
    made = pipeline({"a": {"run": "x", "returns": ["rate"]}, "b": {"run": "x"}}, parameters={"rate": 1})
    log = history(
        made,
        a=good(output_parameters={"rate": Parameter.of_json(2)}),
        b=good(input_parameters={"rate": Parameter.of_json(2)}),
    )
    assert decided(made, log, initial=scope(rate=1))["b"][0] == "reuse"


def test_need_that_ran_in_an_invocation_that_did_not_come_further() -> None:
    """A retry was killed between a step and the next: the next is out of date, though both last attempts succeeded."""
    made = pipeline(CHAIN)
    log = history(made, load=[good(1), good(2)], fit=good(1), plot=good(1))
    assert decided(made, log) == {
        "load": ("reuse", "unchanged since attempt 2"),
        "fit": ("run", "`load` ran again"),
        "plot": ("run", TENTATIVE.format("fit")),
    }
    assert {a for a, _ in decided(made, history(made, load=good(2), fit=good(2), plot=good(3))).values()} == {"reuse"}


@pytest.mark.parametrize(
    ("passed", "expected"),
    [
        ({}, ("run", "`load` ran again")),
        ({"consumed": {"rows": "seen"}}, ("reuse", "unchanged since attempt 1")),
        ({"consumed": {"empty": "seen"}}, ("run", "`load` ran again")),
        ({"consumed": {"other": "seen"}}, ("run", "`load` ran again")),
    ],
)
def test_early_cut_off_by_values(passed: dict[str, Any], expected: tuple[str, str]) -> None:
    """A step is reused though a need ran again, if that passed it a value that is the same."""
    made = pipeline(CHAIN)
    values = {name: Parameter.of_json(value) for name, value in (("rows", 5), ("empty", ""), ("other", 1))}
    returned = {name: values[name] for name in ("rows", "empty")}
    log = history(
        made,
        load=[good(1), good(2, output_parameters=returned)],
        fit=good(1, input_parameters=values, reads="0", **passed),
    )
    state = settled_state(made, log, {"load": Outcome.RAN}, scope(other=1))
    found = state.decide(made.steps["fit"], log)
    assert (found.action, found.reason) == expected


@pytest.mark.parametrize(
    ("files", "size", "action"), [({"f"}, 1, "reuse"), ({"f"}, 0, "run"), ({"g"}, 1, "run"), (None, 1, "run")]
)
def test_early_cut_off_by_files(files: set[str] | None, size: int, action: str) -> None:
    """A step is reused though a need ran again, if it got or read a file of that which is the same, and not empty."""
    made = pipeline(CHAIN)
    log = history(made, load=[good(1), good(2)], fit=good(1, reads="0"))
    with_files(log, load=[CatalogEntry(name="f", data_hash="1", size=size, stage="put")])
    evidence = Evidence(files=None if files is None else frozenset(files))
    state = settled_state(made, log, {"load": Outcome.RAN}, inputs=comparing(fit=evidence))
    assert state.decide(made.steps["fit"], log).action == action


def settled_state(
    made: Pipeline,
    log: RunLog,
    outcomes: Mapping[str, Outcome],
    initial: Scope | None = None,
    inputs: PlanInputs | None = None,
) -> PlanState:
    """A state in which some steps are over."""
    state = PlanState(made, inputs or PlanInputs(), initial or scope())
    for name, outcome in outcomes.items():
        state.record_outcome(made.steps[name], outcome, log.steps.get(name))
    return state


@pytest.mark.parametrize(
    ("outcome", "tolerant", "expected"),
    [
        (Outcome.FAILED, False, Decision("skip", "`load` failed")),
        (Outcome.FAILED, True, Decision("run", "first attempt")),
        (Outcome.SKIPPED, False, Decision("skip", "`load` was skipped")),
        (Outcome.SKIPPED, True, Decision("skip", "`load` was skipped")),
        (Outcome.RAN, False, Decision("run", "first attempt")),
        (Outcome.REUSED, False, Decision("run", "first attempt")),
    ],
)
def test_after_a_need(outcome: Outcome, tolerant: bool, expected: Decision) -> None:
    """A step is skipped below a failure that was not allowed, and below a step that was skipped."""
    made = pipeline({"load": {"run": "x", "continue-on-error": tolerant}, "fit": {"run": "x"}})
    log = history(made, load=good())
    assert settled_state(made, log, {"load": outcome}).decide(made.steps["fit"], log) == expected


def test_skipped_although_it_succeeded_before() -> None:
    """Below a failure nothing is reused: it may have to run again."""
    made = pipeline(CHAIN)
    log = history(made, load=good(), fit=good())
    assert settled_state(made, log, {"load": Outcome.FAILED}).decide(made.steps["fit"], log).action == "skip"


def put(name: str, content: str) -> CatalogEntry:
    """A file that a step put."""
    return CatalogEntry(name=name, data_hash=content, stage="put")


def with_files(log: RunLog, **files: list[CatalogEntry]) -> RunLog:
    """The log with what the steps put."""
    for name, entries in files.items():
        log.steps[name].data_catalog = entries
    return log


DIAMOND = {
    "a": {"run": "x", "needs": []},
    "left": {"run": "x", "needs": ["a"]},
    "right": {"run": "x", "needs": ["a"]},
    "end": {"run": "x", "needs": ["left", "right"]},
}


@pytest.mark.parametrize("order", [["left", "right"], ["right", "left"]])
def test_scope_does_not_know_who_was_faster(order: list[str]) -> None:
    """Of two parallel steps that put the same file, the one further down counts, in whatever order they end."""
    made = pipeline(DIAMOND)
    log = history(made, a=good(), left=good(), right=good())
    with_files(log, a=[put("f", "0"), put("g", "0")], left=[put("f", "1")], right=[put("f", "2")])
    state = settled_state(made, log, dict.fromkeys(["a", *order], Outcome.RAN))
    seen = {name: (entry.data_hash, entry.source) for name, entry in state.scope(made.steps["end"]).entries().items()}
    assert seen == {"f": ("2", "right"), "g": ("0", "a")}


def test_wanted_files() -> None:
    """Files of reused steps are wanted by a running step that has no `get`, and only those that it can see."""
    steps = {**DIAMOND, "aside": {"run": "x", "needs": []}}
    made = pipeline(steps)
    log = history(made, a=good(), left=good(), right=bad(), aside=good())
    with_files(log, a=[put("f", "0")], left=[put("l", "1")], aside=[put("s", "2")])
    found = plan(made, log, initial=scope(), inputs=PlanInputs())
    assert {name: (e.data_hash, e.source) for name, e in found.wanted.items()} == {"f": ("0", "a"), "l": ("1", "left")}
    assert {name: e.data_hash for name, e in found.put.items()} == {"f": "0", "l": "1", "s": "2"}
    chosen = {name: {**step, "catalog": {"get": []}} for name, step in steps.items()}
    log = history(pipeline(chosen), a=good(), left=good(), right=bad())
    with_files(log, a=[put("f", "0")])
    assert plan(pipeline(chosen), log, initial=scope(), inputs=PlanInputs()).wanted == {}


def test_unread_parameters() -> None:
    """Changed parameters that no attempt consumed, or would have with a default, are told."""
    made = pipeline(CHAIN)
    attempt = good(input_parameters={"rate": Parameter.of_json(1)}, defaulted=["depth"])
    log = history(made, load=attempt, gone=good(input_parameters={"old": Parameter.of_json(1)}))
    assert unread_parameters(["rate", "depth", "old", "new"], made, log) == ["old", "new"]


def test_decision_record() -> None:
    """The log keeps action, reason and warning, and whose attempt it is that is reused."""
    log = history(pipeline(CHAIN), load=good(2))
    skipped = Decision("skip", "why").record(log, "load")
    assert skipped.model_dump(exclude_defaults=True) == {"action": "skip", "reason": "why"}
    reused = Decision("reuse", "why", "code_changed").record(log, "load")
    assert (reused.warning, reused.reused_from) == ("code_changed", invocation_digest(log.invocations[1]))


@given(st.recursive(st.integers(0, 1) | st.booleans() | st.just(1.0) | st.text(max_size=1), st.lists, max_leaves=4))
def test_same_json_is_what_json_says(value: Any) -> None:
    """A value is the same as itself, and as nothing that is written otherwise."""
    assert same_json(value, value)
    assert not same_json(value, [value])
    assert same_json(1, value) == (type(value) is int and value == 1)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Pipeline, RunLog, PlanInputs, Scope]:
    """A pipeline, what happened to it so far, and what changed since."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 7)))]
    steps = {
        name: {"run": "x", "needs": draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else []}
        for i, name in enumerate(names)
    }
    made = pipeline(steps)
    log = RunLog(run_id="r", invocations=[Invocation(number=3, command="retry", start_time="")])
    for name in names:
        attempts: list[StepAttempt] = [
            StepAttempt(
                attempt_number=number,
                invocation=number,
                status=draw(st.sampled_from([SUCCESS, SUCCESS, SUCCESS, FAIL, "PROCESSING"])),
                message=draw(st.sampled_from(["", "exit code 1", "a\nb"])),
                definition=made.steps[name].definition() if draw(st.integers(0, 9)) else {"run": "y", "needs": []},
                input_parameters={"p": Parameter.of_json(draw(st.integers(1, 2)))} if draw(st.booleans()) else {},
            )
            for number in range(1, draw(st.integers(0, 3)) + 1)
        ]
        if attempts or names.index(name) % 2:
            log.steps[name] = StepLog(name=name, internal_name=name, attempts=attempts)
    some = st.lists(st.sampled_from(names), max_size=1)
    changed = draw(some)
    evidence = Evidence((Change("input f changed", "data"),))
    inputs = PlanInputs(
        forced=dict.fromkeys(draw(some), "--from it"),
        compare=lambda step, _past, _scope: evidence if step.name in changed else Evidence(),
    )
    return made, log, inputs, scope(p=1)


def is_out_of_date(name: str, made: Pipeline, log: RunLog, inputs: PlanInputs) -> bool:
    """The resume rules for one step alone, written a second time."""
    past = log.steps.get(name)
    if past is None or not past.attempts:
        return True
    last = past.attempts[-1]
    consumed = last.input_parameters.get("p")
    return (
        last.status != SUCCESS
        or last.definition["run"] != "x"
        or (consumed is not None and consumed.value != 1)
        or name in inputs.forced
        or inputs.compare(made.steps[name], past, scope()).changes != ()
        or any(
            log.steps[need].attempts[-1].invocation > last.invocation
            for need in made.steps[name].needs
            if need in log.steps and log.steps[need].attempts
        )
    )


@given(situations())
def test_a_step_is_reused_exactly_if_nothing_before_it_changed(
    situation: tuple[Pipeline, RunLog, PlanInputs, Scope],
) -> None:
    """A step runs if it, or anything above it, is out of date; else it is reused; each with a reason of one line."""
    made, log, inputs, initial = situation
    found = plan(made, log, initial=initial, inputs=inputs)
    for name, decision in found.decisions.items():
        runs = any(is_out_of_date(n, made, log, inputs) for n in {name, *made.ancestors(name)})
        assert decision.action == ("run" if runs else "reuse")
        assert decision.reason.strip()
        assert "\n" not in decision.reason
        if decision.action == "run":
            assert made.below(name) <= set(found.running)


@given(situations(), st.data())
def test_a_history_that_was_carried_out_is_finished(
    situation: tuple[Pipeline, RunLog, PlanInputs, Scope], data: st.DataObject
) -> None:
    """Carry a plan out in any order and stop anywhere: the next plan goes on from there, then nothing is left."""
    made, log, inputs, initial = situation
    done: set[str] = set()
    for number in (4, 5):
        first = plan(made, log, initial=initial, inputs=inputs if number == 4 else PlanInputs())
        stop = data.draw(st.integers(0, len(first.running))) if number == 4 else len(first.running)
        carried_out = run_attempt(made, log, first, number, stop, lambda ready: data.draw(st.sampled_from(ready)))
        if number == 5:
            assert not carried_out & done - {n for s in carried_out - done for n in made.below(s)}
        done |= carried_out
    assert plan(made, log, initial=initial, inputs=PlanInputs()).running == []


def run_attempt(
    made: Pipeline, log: RunLog, planned: Plan, number: int, stop: int, choose: Callable[[list[str]], str]
) -> set[str]:
    """Let up to `stop` of the planned steps succeed, each after what it needs; their names."""
    done: set[str] = set()
    for _ in range(stop):
        waiting = [name for name in planned.running if name not in done]
        name = choose([n for n in waiting if not set(made.steps[n].needs) & set(waiting)])
        step = log.steps.setdefault(name, StepLog(name=name, internal_name=name))
        step.attempts.append(good(number, definition=made.steps[name].definition()))
        done.add(name)
    return done
