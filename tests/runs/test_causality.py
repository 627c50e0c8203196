"""What counts where invocations had not seen each other: finished work is kept, whatever the clocks say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.engine.planner import Outcome, PlanInputs, PlanState, Scope, plan
from runnable_ci.pipeline.model import Pipeline, resolve
from runnable_ci.runs.document import decode, encode
from runnable_ci.runs.events import AttemptSaved, Decided, Event, InvocationFinished, Started, apply
from runnable_ci.runs.model import (
    PROCESSING,
    SUCCESS,
    Invocation,
    Parameter,
    RunLog,
    RunOutcome,
    StepAttempt,
)
from runnable_ci.runs.remote.merge import merge
from runnable_ci.runs.run_identity import heads, invocation_digest

CHAIN = {"prep": [], "fit": ["prep"], "plot": ["fit"]}
TWO_CHAINS = {"p": [], "f": ["p"], "q": [], "g": ["q"]}


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
