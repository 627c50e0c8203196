"""What counts where invocations had not seen each other: finished work is kept, whatever the clocks say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.engine.planner import PlanInputs, Scope
from runnable_ci.engine.planning.plan import PlanState, plan
from runnable_ci.engine.provenance.changes import Outcome
from runnable_ci.errors import RunLogError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.runs.causality.ancestry import INVOCATIONS_MAX, Ancestry, decisions_of
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.events import AttemptSaved, Decided, Event, InvocationFinished, Started, apply
from runnable_ci.runs.model import (
    FAIL,
    PROCESSING,
    SKIPPED,
    SUCCESS,
    Invocation,
    Parameter,
    RunLog,
    RunOutcome,
    StepAttempt,
)
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.run_identity import heads, invocation_digest, is_after

CHAIN: dict[str, list[str]] = {"prep": [], "fit": ["prep"], "plot": ["fit"]}
TWO_CHAINS: dict[str, list[str]] = {"p": [], "f": ["p"], "q": [], "g": ["q"]}


def pipeline(needs: Mapping[str, Sequence[str]]) -> Pipeline:
    """A pipeline in which each step returns a value by its own name and takes those of the steps that it needs."""
    steps = {name: {"run": name, "needs": [*of], "returns": {name: "json"}} for name, of in needs.items()}
    return resolve({"steps": steps}, file="f", default_name="n")


def clock(second: int) -> str:
    """A moment, as some machine's clock has it."""
    return f"2026-11-24T03:{second // 60 % 60:02}:{second % 60:02}.000000+00:00"


@dataclass
class Retry:
    """What one invocation meets."""

    makes: Mapping[str, object] = field(default_factory=dict)
    """Step → what it returns; the others fail."""
    forced: Collection[str] = ()
    ends: RunOutcome = "failed"
    """How a step ends that fails."""
    killed_at: str = ""
    """The step that it is at when it is killed."""
    second: int = 0
    parameters: Mapping[str, object] = field(default_factory=dict)
    is_old: bool = False
    """Whether the version that made it knows nothing of what it had seen."""


class Site:
    """The random identities of invocations, and what each had seen, as it was in truth."""

    def __init__(self) -> None:
        self.seen: dict[str, set[str]] = {}

    def invoked(self, log: RunLog | None, made: Pipeline, what: Retry) -> RunLog:
        """The log after one more run or retry, by the decisions that the program makes."""
        log = log.model_copy(deep=True) if log else RunLog(run_id="r")
        identity = f"{len(self.seen):032}"
        is_known = not what.is_old or not log.invocations
        invocation = Invocation(
            number=log.invocation + 1,
            command="retry" if log.invocations else "run",
            start_time=clock(what.second),
            identity=identity if is_known else "",
            parents=heads(log.invocations) if is_known else None,
            parameters=dict(what.parameters),
        )
        self.seen[invocation_digest(invocation)] = {invocation_digest(one) for one in log.invocations}
        log = apply(log, Started(run_id="r", name="n", dag_hash="d", run_config={}, invocation=invocation))
        inputs = PlanInputs(forced=dict.fromkeys(what.forced, "--from"))
        state = PlanState(made, inputs, Scope.initial(what.parameters))
        failed = False
        for step in made.steps.values():
            decision = state.decide(step, log)
            if decision.action != "run":
                log = apply(log, Decided(step=step.name, decision=decision.record(log, step.name)))
                is_reused = decision.action == "reuse"
                result = log.steps[step.name] if is_reused else None
                state.record_outcome(step, Outcome.REUSED if is_reused else Outcome.SKIPPED, result)
                continue
            past = log.steps.get(step.name)
            attempt = StepAttempt(
                attempt_number=len(past.attempts) + 1 if past else 1,
                invocation=log.invocation,
                start_time=clock(what.second),
                definition=step.definition(),
                input_parameters=state.scope(step).values(),
                consumed=dict.fromkeys([*step.needs, *what.parameters], "seen"),
                reads="seen",
            )
            log = apply(log, AttemptSaved(step=step.name, attempt=attempt))
            if step.name == what.killed_at:
                return log
            is_made = step.name in what.makes
            attempt = attempt.model_copy(update={"end_time": clock(what.second)})
            attempt.end("succeeded" if is_made else what.ends)
            if is_made:
                attempt.output_parameters = {step.name: Parameter.of_json(what.makes[step.name])}
            failed |= not is_made
            log = apply(log, AttemptSaved(step=step.name, attempt=attempt))
            state.record_outcome(
                step, Outcome.RAN if is_made else Outcome.FAILED, log.steps[step.name] if is_made else None
            )
        over: Event = InvocationFinished.of(what.ends if failed else "succeeded", time=clock(what.second))
        return apply(log, over)


def planned(made: Pipeline, log: RunLog) -> dict[str, str]:
    """Step → what a retry would do with it."""
    initial = Scope.initial(log.invocations[-1].parameters)
    return {
        name: found.action for name, found in plan(made, log, initial=initial, inputs=PlanInputs()).decisions.items()
    }


def grouped(logs: Sequence[RunLog], random: Random) -> RunLog:
    """The merge of versions that meet two or three at a time, in any order, some of them twice."""
    waiting = [*logs, random.choice(logs)]
    while len(waiting) > 1:
        random.shuffle(waiting)
        size = random.randint(2, 3)
        waiting = [*waiting[size:], decode(encode(merge(waiting[:size])), where="copy")]
    return merge([waiting[0], *logs[:1]])


randoms = st.integers(0, 2**32).map(Random)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), randoms)
def test_each_step_that_somebody_fixed_is_kept(writers: int, random: Random) -> None:
    """Writers fix a step each; in any order of arrival, and by any clock, only what nobody has done is left."""
    made = pipeline(
        {"load": [], **{f"s{i}": ["load"] for i in range(writers)}, "all": [f"s{i}" for i in range(writers)]}
    )
    site = Site()
    base = site.invoked(None, made, Retry({"load": 1}, second=random.randint(0, 99)))
    logs = [
        site.invoked(base, made, Retry({f"s{i}": i}, second=random.randint(0, 99), is_old=random.random() < 0.3))
        for i in range(writers)
    ]
    merged = grouped(logs, random)
    assert encode(merged) == encode(merge([*logs, logs[0]]))
    assert planned(made, merged) == {name: "run" if name == "all" else "reuse" for name in made.steps}
    finished = site.invoked(merged, made, Retry({"all": 0}))
    assert (finished.status, [a.status for a in finished.steps["all"].attempts]) == (SUCCESS, [SUCCESS])
    assert [merge([finished, log]).steps for log in logs] == [finished.steps] * writers


@dataclass(frozen=True, repr=False)
class Story:
    """What several clones of a run's log have come to: each was retried, and took in what others had."""

    made: Pipeline
    site: Site
    clones: list[RunLog]
    random: Random

    def merged(self) -> RunLog:
        """All of it."""
        return merge([*self.clones, _beginning(self.clones[0])])


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """Any such story, of a pipeline of up to five steps."""
    names = ["a", "b", "c", "d", "e"][: draw(st.integers(1, 5))]
    made = pipeline({name: [n for n in names[:i] if draw(st.booleans())] for i, name in enumerate(names)})
    random = draw(randoms)
    site = Site()

    def retried(log: RunLog | None) -> RunLog:
        works = {name: random.randint(0, 2) for name in names if random.random() < 0.6}
        killed_at = random.choice(names) if random.random() < 0.1 else ""
        ends: RunOutcome = random.choice(["failed", "cancelled", "interrupted", "timed_out"])
        forced = [name for name in names if log and random.random() < 0.1]
        return site.invoked(
            log, made, Retry(works, forced=forced, ends=ends, killed_at=killed_at, second=random.randint(0, 5))
        )

    base = retried(None)
    clones = [base.model_copy(deep=True) for _ in range(draw(st.integers(2, 4)))]
    for _ in range(draw(st.integers(2, 10))):
        i, other = random.randrange(len(clones)), random.choice(clones)
        clones[i] = merge([clones[i], other]) if random.random() < 0.4 else retried(clones[i])
    return Story(made, site, clones, random)


@pytest.mark.promise
@settings(max_examples=250, deadline=None)
@given(stories())
def test_no_order_of_arrival_makes_a_difference(story: Story) -> None:
    """However the versions of a story meet, the same log comes of it, and what it knows already changes nothing."""
    merged = story.merged()
    assert merge([grouped(story.clones, story.random), _beginning(story.clones[0])]) == merged
    assert merge([merged, *story.clones]) == merged


@settings(max_examples=250, deadline=None)
@given(stories())
def test_what_counts_is_what_nothing_followed(story: Story) -> None:
    """A step has failed only where no success is left that nobody who had seen it tried again."""
    merged, made, site = story.merged(), story.made, story.site
    digests = {one.number: invocation_digest(one) for one in merged.invocations}
    for number, digest in digests.items():
        assert site.seen[digest] <= {digests[n] for n in range(1, number)}
    for step in merged.steps.values():
        by = {id(attempt): digests[attempt.invocation] for attempt in step.attempts}
        newest = [
            one for one in step.attempts if not any(by[id(one)] in site.seen[by[id(later)]] for later in step.attempts)
        ]
        if step.attempts:
            assert any(step.attempts[-1] is one for one in newest)
            assert (step.attempts[-1].status == SUCCESS) == any(one.status == SUCCESS for one in newest)
        for i, one in enumerate(step.attempts):
            assert not any(by[id(later)] in site.seen[by[id(one)]] for later in step.attempts[i + 1 :])
    assert planned(made, merged).keys() == made.steps.keys()


@pytest.mark.promise
@settings(max_examples=400, deadline=None)
@given(stories())
def test_nothing_is_repeated_that_was_made_from_what_counts(
    story: Story,
) -> None:
    """A step runs again only where nobody had finished it from the values that the steps before it have now."""
    merged, made, site = story.merged(), story.made, story.site
    digests = {one.number: invocation_digest(one) for one in merged.invocations}
    decisions = planned(made, merged)
    for name, action in decisions.items():
        needs = made.steps[name].needs
        if action != "run" or any(decisions[need] != "reuse" for need in needs) or name not in merged.steps:
            continue
        now = {need: merged.steps[need].attempts[-1].output_parameters[need].value for need in needs}
        attempts = merged.steps[name].attempts
        for one in attempts:
            is_followed = any(digests[one.invocation] in site.seen[digests[later.invocation]] for later in attempts)
            had = {need: one.input_parameters[need].value for need in needs if need in one.input_parameters}
            assert one.status != SUCCESS or is_followed or had != now


def _beginning(log: RunLog) -> RunLog:
    """What every version knows: with it a single version is merged, and not given back as it is."""
    (begun,) = (one for one in log.invocations if one.command == "run")
    blank = begun.model_copy(
        update={"status": PROCESSING, "end_time": "", "message": "", "decisions": {}, "outcome": ""}
    )
    return RunLog(run_id="r", invocations=[blank])


def states(log: RunLog) -> dict[str, str]:
    """Step → its status."""
    return {name: step.status for name, step in log.steps.items()}


@pytest.mark.promise
@pytest.mark.parametrize("ends", ["failed", "cancelled", "interrupted", "timed_out", "in flight"])
def test_only_who_had_seen_a_success_can_undo_it(ends: Any) -> None:
    """A failure, of whatever kind and by whatever clock, counts against a success only where that was seen before."""
    made, site = pipeline({"x": []}), Site()
    killed = "x" if ends == "in flight" else ""
    fails = Retry(forced=["x"], ends="failed" if killed else ends, killed_at=killed, second=90)
    base = site.invoked(None, made, Retry())
    good = site.invoked(base, made, Retry({"x": 1}, second=10))
    unseen = merge([good, site.invoked(base, made, fails)])
    assert (states(unseen), planned(made, unseen)) == ({"x": SUCCESS}, {"x": "reuse"})
    seen = merge([good, site.invoked(good, made, fails)])
    assert (seen.steps["x"].status != SUCCESS, planned(made, seen)) == (True, {"x": "run"})
    other = site.invoked(base, made, Retry({"x": 2}, second=1))
    assert states(merge([seen, other])) == {"x": SUCCESS}


def test_the_same_work_twice_is_decided_by_what_was_made_from_it() -> None:
    """Of two successes of one step the one counts from which a later step was made, in each part of a pipeline."""
    made, site = pipeline(TWO_CHAINS), Site()
    base = site.invoked(None, made, Retry())
    one = site.invoked(base, made, Retry({"p": 1, "f": 1, "q": 1}, second=90))
    two = site.invoked(base, made, Retry({"p": 2, "q": 2, "g": 2}, second=5))
    merged = merge([one, two])
    values = {name: step.attempts[-1].output_parameters[name].value for name, step in merged.steps.items()}
    assert values == {"p": 1, "f": 1, "q": 2, "g": 2}
    assert planned(made, merged) == dict.fromkeys(TWO_CHAINS, "reuse")
    assert {name: merged.parameters[name].value for name in values} == values


def test_a_step_that_two_did_with_the_same_result_is_the_same() -> None:
    """Steps that were made from equal contents fit together, and so do those after a step that passes nothing."""
    made, site = pipeline({"p": [], "f": ["p"], "g": ["p"]}), Site()
    base = site.invoked(None, made, Retry())
    for value in (7, None):
        one = site.invoked(base, made, Retry({"p": value, "f": 1}, second=90))
        two = site.invoked(base, made, Retry({"p": value, "g": 2}, second=5))
        assert planned(made, merge([one, two])) == {"p": "reuse", "f": "reuse", "g": "reuse"}
    long = pipeline({"p": [], "f": ["p"], "i": ["f"], "j": ["i"], "v": [], "g": ["p", "v"]})
    base = site.invoked(None, long, Retry())
    one = site.invoked(base, long, Retry({"p": 7, "f": 1, "i": 1, "j": 1, "v": 1}))
    two = site.invoked(base, long, Retry({"p": 7, "v": 2, "g": 2}))
    assert planned(long, merge([one, two])) == dict.fromkeys(long.steps, "reuse")


def test_a_need_that_ran_since_is_not_one_that_ran_elsewhere() -> None:
    """A step after one that passes nothing runs again where that ran later, by an invocation that had seen it."""
    made, site = pipeline({"p": [], "g": ["p"]}), Site()
    base = site.invoked(None, made, Retry())
    done = site.invoked(base, made, Retry({"p": None, "g": 1}))
    again = site.invoked(done, made, Retry({"p": None}, forced=["p", "g"], killed_at="g"))
    assert planned(made, again) == {"p": "reuse", "g": "run"}
    assert [is_after(again, *numbers) for numbers in ((3, 2), (2, 3), (2, 2), (3, 1))] == [True, False, False, True]
    unseen = merge([done, site.invoked(base, made, Retry({"p": None}))])
    assert not is_after(unseen, 3, 2)
    assert planned(made, unseen) == {"p": "reuse", "g": "reuse"}


def test_who_skips_a_step_says_nothing_of_what_it_had_not_seen() -> None:
    """A step reads as skipped only where all skipped it that decided on it since."""
    made, site = pipeline(CHAIN), Site()
    base = site.invoked(None, made, Retry({"prep": 1}))
    done = site.invoked(base, made, Retry({"fit": 1}))
    skips = Retry(forced=["prep", "fit"])
    assert states(merge([done, site.invoked(base, made, skips)]))["fit"] == SUCCESS
    skipped = site.invoked(done, made, skips)
    assert states(merge([done, skipped]))["fit"] == SKIPPED
    assert states(merge([skipped, site.invoked(base, made, Retry())]))["fit"] == SKIPPED
    assert states(merge([skipped, site.invoked(done, made, Retry())]))["fit"] == SUCCESS
    again = site.invoked(skipped, made, Retry({"prep": 1}))
    assert states(merge([skipped, again]))["fit"] == SUCCESS == states(again)["fit"]


def test_the_parameters_are_those_of_the_most_finished_work() -> None:
    """A retry resumes with what the invocation had that did most, and what counts was made with that."""
    made, site = pipeline(CHAIN), Site()
    base = site.invoked(None, made, Retry(parameters={"lr": 1}))
    for second in range(8):
        more = site.invoked(base, made, Retry({"prep": 1, "fit": 1}, second=second, parameters={"lr": 2}))
        less = site.invoked(base, made, Retry({"prep": 9}, second=90, parameters={"lr": 3}, killed_at="fit"))
        for merged in (merge([more, less]), merge([less, more])):
            assert merged.invocations[-1].parameters == {"lr": 2}
            assert {merged.parameters[name].value for name in ("prep", "fit")} == {1}
            assert planned(made, merged) == {"prep": "reuse", "fit": "reuse", "plot": "run"}
    wide = pipeline({**CHAIN, "x": [], "y": []})
    base = site.invoked(None, wide, Retry(parameters={"lr": 1}))
    more = site.invoked(base, wide, Retry({"prep": 1, "x": 1, "y": 1}, parameters={"lr": 2}))
    less = site.invoked(base, wide, Retry({"prep": 9, "fit": 9}, parameters={"lr": 3}))
    expected = {"prep": "reuse", "fit": "run", "plot": "run", "x": "reuse", "y": "reuse"}
    assert planned(wide, merge([more, less])) == expected


def test_a_run_succeeded_if_one_invocation_saw_all_that_counts() -> None:
    """What several finished together is not a success before one has looked at the whole; each step says who did it."""
    made, site = pipeline({"x": [], "y": []}), Site()
    base = site.invoked(None, made, Retry())
    one, two = site.invoked(base, made, Retry({"x": 1})), site.invoked(base, made, Retry({"y": 1}))
    merged = merge([one, two])
    assert (merged.status, merged.outcome, states(merged)) == (FAIL, "failed", {"x": SUCCESS, "y": SUCCESS})
    assert merged.message == "unfinished; 2 invocations had not seen each other"
    looked = site.invoked(merged, made, Retry())
    assert (looked.status, {d.action for d in decisions_of(looked).values()}) == (SUCCESS, {"reuse"})
    assert merge([one, looked, two]).status == SUCCESS

    whole = site.invoked(base, made, Retry({"x": 2, "y": 2}, second=1))
    assert (merge([one, whole]).status, merge([one, whole]).message) == (SUCCESS, "")
    broken = site.invoked(whole, made, Retry(forced=["y"]))
    kept = site.invoked(whole, made, Retry(second=99))
    assert (merge([kept, broken]).status, states(merge([kept, broken]))["y"]) == (FAIL, FAIL)
    assert merge([kept, broken]).message == "failed: y; 2 invocations had not seen each other"


def test_each_step_is_shown_with_what_was_done_with_it() -> None:
    """Of invocations that had not seen each other the one speaks for a step which had seen what counts of it."""
    made, site = pipeline({"x": [], "y": [], "z": ["x"], "w": ["y"]}), Site()
    base = site.invoked(None, made, Retry())
    one = site.invoked(base, made, Retry({"x": 1, "z": 1}))
    two = site.invoked(base, made, Retry({"y": 1, "w": 1}))
    assert {name: decision.action for name, decision in decisions_of(merge([one, two])).items()} == {
        "x": "run",
        "y": "run",
        "z": "run",
        "w": "run",
    }
    assert decisions_of(two) is two.invocations[-1].decisions
    assert decisions_of(RunLog(run_id="r")) == {}


def test_versions_that_record_nothing_of_it_are_taken_as_they_stand() -> None:
    """Invocations of earlier versions had seen those before them in the log, also on top of a merge."""
    made, site = pipeline({"x": [], "y": []}), Site()
    base = site.invoked(None, made, Retry(is_old=True))
    one = site.invoked(base, made, Retry({"x": 1}, second=5, is_old=True))
    two = site.invoked(base, made, Retry({"y": 1}, second=5))
    merged = merge([one, two])
    assert states(merged) == {"x": SUCCESS, "y": SUCCESS}
    old = site.invoked(merged, made, Retry(forced=["x"], second=1, is_old=True))
    assert heads(old.invocations) == [invocation_digest(old.invocations[-1])]
    assert states(merge([old, one, two])) == {"x": FAIL, "y": SUCCESS}


def test_logs_that_contradict_each_other_give_one_order_nevertheless() -> None:
    """A circle, as the clocks of earlier versions may have made one, is cut at the same place by everybody."""
    circle = {"a": ["c"], "b": ["a"], "c": ["b"], "d": ["c", "unknown"]}
    orders = {tuple(Ancestry(dict(items)).ordered({})) for items in (circle.items(), reversed(circle.items()))}
    assert orders == {("b", "c", "a", "d")}


def test_the_number_of_invocations_is_bounded() -> None:
    """A log of more than anybody makes is refused before their order is computed."""
    with pytest.raises(RunLogError, match=r"10,001 invocations, more than 10,000"):
        Ancestry({str(i): [str(i - 1)] for i in range(INVOCATIONS_MAX + 1)})
    longest = Ancestry({str(i): [str(i - 1)] for i in range(INVOCATIONS_MAX)})
    assert longest.had_seen(str(INVOCATIONS_MAX - 1), "0")


def test_the_work_of_choosing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where choosing would take too long, each step still counts as finished, and all choose the same."""
    made, site = pipeline(TWO_CHAINS), Site()
    base = site.invoked(None, made, Retry())
    one = site.invoked(base, made, Retry({"p": 1, "f": 1, "q": 1}))
    two = site.invoked(base, made, Retry({"p": 2, "q": 2, "g": 2}))
    for most in range(12):
        monkeypatch.setattr("runnable_ci.runs.causality.selection.WORK_MAX", most)
        assert merge([one, two]) == merge([two, one])
        assert states(merge([one, two])) == dict.fromkeys(TWO_CHAINS, SUCCESS)
