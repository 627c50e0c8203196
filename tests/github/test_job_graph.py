"""Tests of how a pipeline becomes jobs: which steps form one, what it waits for, when it begins, and its legs."""

from __future__ import annotations

import random
import textwrap
import tomllib
from collections.abc import Mapping, Sequence

import pytest

from runnable_ci.engine.spread.job import CHUNKS_MAX, parts_of_matrix
from runnable_ci.errors import PipelineError
from runnable_ci.github.job_graph.jobs import PlannedJob, asked_legs, jobs_of
from runnable_ci.github.job_graph.workflow_file import _runner
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.step import Runner


def pipeline(text: str) -> Pipeline:
    """A pipeline of steps, each as `NAME: KEYS` in a line of its own; a line of another kind stands before them."""
    head, steps = [], []
    for line in filter(None, map(str.strip, textwrap.dedent(text).splitlines())):
        name, colon, keys = line.partition(":")
        if colon and name.isidentifier():
            steps.append("\n".join([f"[steps.{name}]", 'run = "true"', *map(str.strip, keys.split(";"))]))
        else:
            head.append(line)
    written = "\n".join([*head, *steps])
    return resolve(tomllib.loads(written), file="runnable.toml", default_name="p", text=written)


def made(text: str) -> dict[str, PlannedJob]:
    """The jobs of such a pipeline, by their ids, without the one that collects."""
    *jobs, last = jobs_of(pipeline(text))
    assert last.collects
    assert not last.steps
    return {job.id: job for job in jobs}


def steps_of(jobs: Mapping[str, PlannedJob]) -> list[str]:
    """The steps of jobs, those of one in one text."""
    return [" ".join(job.steps) for job in jobs.values()]


SHORT = "timeout-minutes = 5"
MATRIX = 'strategy = { matrix = { v = ["x", "y"] } }'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\nb:\nc:", ["a b c"]),
        ("a:\nb: needs = ['a']\nc: needs = ['a']\nd: needs = ['b', 'c']", ["a", "b", "c", "d"]),
        ("a:\nb: needs = ['a']\nc: needs = ['a']\nd: needs = ['b', 'c']\ne:", ["a", "b", "c", "d e"]),
        ("a:\nb: needs = ['a']\nc: needs = ['a', 'b']", ["a b c"]),
        ("a: needs = []\nb: needs = []", ["a", "b"]),
        (f"a:\nb: needs = ['a'];{SHORT}\nc: needs = ['a'];{SHORT}\nd: needs = ['b', 'c']", ["a b c d"]),
        (f"a:\nb: needs = ['a'];{SHORT}\nc: needs = ['a']\nd: needs = ['b', 'c']", ["a", "b", "c", "d"]),
        (f"a: {SHORT}\nb: needs = ['a'];{SHORT}\nc: needs = ['a']\nd: needs = ['c']", ["a b c d"]),
        ("a:\nb: runs-on = 'gpu'\nc:", ["a", "b", "c"]),
        ("a: runs-on = ['x', 'y']\nb: runs-on = ['x', 'y']", ["a b"]),
        ("a:\nb: timeout-minutes = 300\nc: timeout-minutes = 300", ["a b", "c"]),
        (f"a:\nb: {MATRIX}\nc:", ["a", "b", "c"]),
        ("a:\nb: job = 'x'\nc:", ["a", "b", "c"]),
        (f"a: job = 'x'\nb: {MATRIX};job = 'x'\nc: needs = [];job = 'x'", ["a b c"]),
        ("\n".join(f"s{i}: needs = [];{SHORT}" for i in range(6)), ["s0 s1 s2 s3", "s4 s5"]),
        (f"a: needs = [];{SHORT}\nb: needs = [];{SHORT};runs-on = 'gpu'", ["a", "b"]),
        (f"a: needs = [];{SHORT}\nb: needs = [];{SHORT};attempts = 3", ["a", "b"]),
        ("a:\nb: strategy = { matrix = { v = [] } }", ["a b"]),
    ],
)
def test_which_steps_form_a_job(text: str, expected: list[str]) -> None:
    """Chains do, short steps side by side, and what names one job; runners, instances and long steps have their own."""
    assert steps_of(made(text)) == expected


def test_a_short_step_keeps_nothing_waiting() -> None:
    """One that waits for more than another short one is not put together with it: what follows that would wait too."""
    text = f"""
    a: needs = [];{SHORT}
    long: needs = ['a']
    slow: needs = []
    b: needs = ['a', 'slow'];{SHORT}
    """
    assert steps_of(made(text)) == ["a", "long", "slow", "b"]


def test_jobs_that_wait_for_each_other_are_refused() -> None:
    """Steps of one `job` have no step of another one between them."""
    with pytest.raises(PipelineError) as refused:
        made("a: job = 'x'\nb: job = 'y'\nc: job = 'x'")
    assert "job: a step of `x` needs a step of another job, which needs one of `x`" in str(refused.value)
    assert "hint: give the steps between them the same `job`, or divide it in two" in str(refused.value)


def test_a_job_has_one_runner() -> None:
    """Steps of one `job` that want different ones are refused, with the place."""
    with pytest.raises(PipelineError) as refused:
        made("a: job = 'x'\nb: job = 'x';runs-on = 'gpu'")
    assert "[steps.b] job: `x` is also the job of step `a`, whose `runs-on` is another" in str(refused.value)


def test_a_runner_with_windows_is_refused() -> None:
    """The action would fail there."""
    with pytest.raises(PipelineError, match=r"\[steps.b\] runs-on: the action runs on Linux and macOS alone"):
        made("a:\nb: runs-on = ['self-hosted', 'Windows']")


def test_ids_differ_whatever_their_case() -> None:
    """GitHub does not tell case: a job that a step would be called like, and the job that collects, are numbered."""
    jobs = jobs_of(pipeline("Collect: needs = []\ncollect: needs = []\na: needs = [];job = 'B'\nb: needs = []"))
    assert [job.id for job in jobs] == ["Collect", "collect-2", "B", "b-2", "collect-3"]
    with pytest.raises(PipelineError, match="`b` differs from `B` by case alone"):
        made("a: job = 'B'\nb: job = 'b'")


def test_ids_are_those_that_github_takes() -> None:
    """It reserves `__`, and takes fewer than 100 characters, with all that is put behind a step's name."""
    long, reduced = "x" * 100, f"{MATRIX};returns = {{ size = 'metric' }};reduce = 'm:f'"
    asking = 'needs = [];strategy = { matrix = { v = "${{ parameters.list }}" } }'
    jobs = made(f"parameters = {{ list = [1] }}\n{long}: needs = [];{reduced}\n{long[1:]}y: {asking}\n__a: needs = []")
    assert [*jobs][:3] == ["x" * 99, "x" * 97 + "-2", "step__a"]
    assert [*jobs][3:] == ["x" * 89 + "-instances", "x" * 92 + "-reduce"]
    assert all(len(job) <= 99 and not job.startswith("__") for job in jobs)
    assert jobs["x" * 99].steps == (long,)
    for name in ("__x", long):
        with pytest.raises(PipelineError, match=r"\[steps.a\] job: .* cannot be the id of a job"):
            made(f"a: job = '{name}'")


def test_what_a_job_waits_for() -> None:
    """For the jobs of what its steps need; the last one for all that nothing else waits for."""
    text = f"a:\nb: needs = ['a'];{MATRIX}\nc: needs = ['a'];runs-on = 'gpu'\nd: needs = ['b', 'c']\ne: needs = ['a']"
    *jobs, last = jobs_of(pipeline(text))
    needs = {job.id: list(job.needs) for job in jobs}
    assert needs == {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["a"]}
    assert (last.id, list(last.needs), last.condition) == ("collect", ["d", "e"], "always()")


def test_where_jobs_run() -> None:
    """Where the steps say, else where the defaults say; what collects runs where most steps do."""
    *jobs, last = jobs_of(pipeline("defaults = { runs-on = 'big' }\na:\nb: runs-on = ['self-hosted', 'gpu']\nc:"))
    big = Runner(("big",))
    assert [job.runs_on for job in (*jobs, last)] == [big, Runner(("self-hosted", "gpu")), big, big]
    assert jobs_of(pipeline("a:"))[-1].runs_on == Runner(("ubuntu-latest",))


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("{ group = 'large' }", {"group": "large"}),
        ("{ group = 'large', labels = 'gpu' }", {"group": "large", "labels": "gpu"}),
        ("{ group = 'large', labels = ['gpu', 'linux'] }", {"group": "large", "labels": ["gpu", "linux"]}),
        ("{ labels = ['gpu', 'linux'] }", ["gpu", "linux"]),
        ("['gpu']", "gpu"),
    ],
)
def test_a_group_of_runners(said: str, written: object) -> None:
    """Is written as GitHub has it; steps of a chain share a job where they have the same."""
    (job, _) = jobs_of(pipeline(f"a: runs-on = {said}\nb: runs-on = {said}"))
    assert (*job.steps, _runner(job.runs_on)) == ("a", "b", written)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{}", "names no label"),
        ("[]", "names no label"),
        ("' '", "is not the label of a runner"),
        ("{ group = '${{ x }}' }", "is not the group of a runner"),
        ("{ groups = 'x' }", "groups"),
        ("{ group = ['x'] }", "group"),
        ("3", "runs-on"),
    ],
)
def test_what_is_no_runner(said: str, why: str) -> None:
    """It is refused with the key that it stands at."""
    with pytest.raises(PipelineError, match=why) as refused:
        pipeline(f"a: runs-on = {said}")
    assert "runs-on" in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "condition"),
    [
        ("", "!cancelled() && !failure()"),
        ("if = \"parameters.x == 'always()'\"", "!cancelled() && !failure()"),
        ('if = "success() && true"', "!cancelled() && !failure()"),
        ('if = "failure()"', "!cancelled()"),
        ('if = "always()"', "always()"),
        ('if = "${{ cancelled() || failure() }}"', "always()"),
    ],
)
def test_when_a_job_begins(keys: str, condition: str) -> None:
    """Wherever one of its steps may run: its own condition is for the program to evaluate."""
    jobs = made(f"parameters = {{ x = 1 }}\na: runs-on = 'other'\nb: {keys}")
    assert jobs["a"].condition == ""
    assert jobs["b"].condition == condition


def test_a_job_begins_after_one_that_failed_by_a_step_it_does_not_need() -> None:
    """Of two steps of one job the other may have failed; and of a job with two such beginnings either may run."""
    jobs = made("a: needs = [];job = 'x'\nb: needs = [];job = 'x'\nc: needs = ['a']\nd: needs = ['a', 'b']")
    assert jobs["c"].condition == "!cancelled()"
    assert jobs["d"].condition == "!cancelled() && !failure()"
    jobs = made("a: needs = []\nb: needs = []\nc: needs = ['a'];job = 'x'\nd: needs = ['b'];job = 'x'")
    assert jobs["x"].condition == "!cancelled()"


def test_conditions_of_instances_count() -> None:
    """One that is evaluated for each instance is looked at as any other."""
    text = f"a:\nb: {MATRIX};if = \"failure() && matrix.v == 'x'\""
    assert made(text)["b"].condition == "!cancelled()"


def test_legs_are_named_by_keys() -> None:
    """Never by values: these may be anything."""
    jobs = made(
        'a: strategy = { matrix = { v = ["gut", "${x}", 7, "é\\n", "a b"] }, max-parallel = 2, fail-fast = false }'
    )
    found = jobs["a"].legs
    assert found is not None
    assert (found.max_parallel, found.fail_fast) == (2, False)
    assert found.known[0] == "gut"
    assert found.known[2] == "7"
    assert all(key.replace("-", "").isalnum() and key.isascii() for key in found.known)
    assert len(set(found.known)) == 5


@pytest.mark.parametrize(("count", "chunks"), [(1, 0), (256, 0), (257, 129), (300, 150), (512, 256), (513, 171)])
def test_legs_of_many_instances_are_chunks(count: int, chunks: int) -> None:
    """GitHub takes 256: more run several to a leg, in as few legs as that needs."""
    found = parts_of_matrix([f"k{i}" for i in range(count)])
    assert len(found) == (chunks or count) <= CHUNKS_MAX
    assert found == ([f"{i + 1}/{chunks}" for i in range(chunks)] if chunks else [f"k{i}" for i in range(count)])


def test_the_legs_of_a_matrix_that_a_step_makes() -> None:
    """They are asked for by the job that it waits for, where that runs once; else by one of its own."""
    matrix = 'strategy = { matrix = { v = "${{ parameters.list }}" } }'
    jobs = made(f"a: returns = ['list']\nb: {matrix}")
    assert list(jobs["a"].asks) == ["b"]
    assert jobs["b"].legs is not None
    assert jobs["b"].legs.asked_in == "a"
    asked = "fromJSON(needs.a.outputs.matrix || '{}')['b']"
    assert asked_legs(jobs["b"].legs, "b") == asked
    assert jobs["b"].condition == f"!cancelled() && !failure() && {asked}[0]"

    jobs = made(f"parameters = {{ list = [1] }}\na: {MATRIX}\nb: {matrix}\nc: needs = [];{matrix}")
    assert list(jobs) == ["a", "b", "c", "b-instances", "c-instances"]
    assert list(jobs["b-instances"].needs) == ["a"]
    assert list(jobs["b"].needs) == ["a", "b-instances"]
    assert list(jobs["c"].needs) == ["c-instances"]
    assert list(jobs["c-instances"].needs) == []


def test_what_legs_return_is_reduced_in_a_job_after_them() -> None:
    """Which all wait for that need the step; in a job that runs all instances nothing else is needed."""
    reduced = f"{MATRIX};returns = {{ size = 'metric' }};reduce = 'm:f'"
    jobs = made(f"a:\nb: {reduced}\nc:")
    assert {job.id: (list(job.steps), list(job.needs)) for job in jobs.values()} == {
        "a": (["a"], []),
        "b": (["b"], ["a"]),
        "c": (["c"], ["b-reduce"]),
        "b-reduce": (["b"], ["b"]),
    }
    assert jobs["b-reduce"].legs is None
    assert jobs["b-reduce"].condition == jobs["b"].condition == "!cancelled() && !failure()"
    assert steps_of(made(f"a:\nb: job = 'x';{reduced}\nc:")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("a: timeout-minutes = 10\nb: timeout-minutes = 2.5", 28),
        ("a: timeout-minutes = 10\nb:", None),
        ("a: timeout-minutes = 10;attempts = { max = 3, wait-seconds = 60 }", 47),
        (f"a: timeout-minutes = 10;{MATRIX}", 25),
        (f"a: timeout-minutes = 10;job = 'x';{MATRIX}", 35),
        ("a: timeout-minutes = 10;strategy = { matrix = { v = '${{ parameters.l }}' } }", None),
        ("a: timeout-minutes = 1;loop = { until = 'false', max = 10 }", 25),
    ],
)
def test_how_long_a_job_may_take(text: str, minutes: int | None) -> None:
    """As long as all its steps, one after another, and some time to set up; GitHub's own limit where one has none."""
    assert next(iter(made(f"parameters = {{ l = [1] }}\n{text}").values())).minutes == minutes


def test_the_limit_of_a_leg_is_that_of_its_instances() -> None:
    """Of three to a leg it is three times as long."""
    values = ", ".join(map(str, range(700)))
    jobs = made(f"a: timeout-minutes = 10;strategy = {{ matrix = {{ v = [{values}] }} }}")
    assert jobs["a"].minutes == 45


def test_a_pipeline_of_many_steps() -> None:
    """What becomes one job is found for all of it at once: step by step it would take minutes."""
    chains = [f"s{i}: needs = {[f's{i - 10}'] if i >= 10 else []}" for i in range(1000)]
    assert [len(job.steps) for job in made("\n".join(chains)).values()] == [100] * 10
    beside = [f"s{i}: needs = [];{SHORT}" for i in range(400)]
    assert [len(job.steps) for job in made("\n".join(beside)).values()] == [4] * 100


def random_pipeline(source: random.Random) -> str:
    """A pipeline of up to forty steps with all that decides on jobs."""
    lines: list[str] = []
    for number in range(source.randint(1, 40)):
        needs = source.sample(range(number), source.randint(0, min(number, 3)))
        keys = [f"needs = {[f's{need}' for need in needs]}"]
        if source.random() < 0.5:
            keys.append(f"timeout-minutes = {source.choice([1, 5, 60])}")
        if source.random() < 0.2:
            keys.append(f"runs-on = '{source.choice(['gpu', 'big'])}'")
        if source.random() < 0.2:
            keys.append(MATRIX)
        if source.random() < 0.2:
            keys.append(f"if = '{source.choice(['always()', 'failure()', 'true'])}'")
        if source.random() < 0.1:
            keys.append(f"job = 'named-{number}'")
        lines.append(f"s{number}: {';'.join(keys)}")
    return "\n".join(lines)


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(150))
def test_jobs_are_in_the_order_of_the_steps(seed: int) -> None:
    """Each step is in one job, after all that it needs; jobs have one runner, no circle, and all are collected."""
    found = pipeline(random_pipeline(random.Random(seed)))  # noqa: S311
    *jobs, last = jobs_of(found)
    job_of = {step: job for job in jobs for step in job.steps}
    assert sorted(job_of) == sorted(found.steps)
    assert sum(len(job.steps) for job in jobs) == len(found.steps)
    by_id = {job.id: job for job in (*jobs, last)}

    def before(job: PlannedJob, within: Sequence[str] = ()) -> set[str]:
        assert job.id not in within
        return {one for need in job.needs for one in (need, *before(by_id[need], (*within, job.id)))}

    for step in found.steps.values():
        assert job_of[step.name].runs_on == (step.runs_on or Runner(("ubuntu-latest",)))
        for need in step.needs:
            assert job_of[need] is job_of[step.name] or job_of[need].id in before(job_of[step.name])
    assert before(last) == {job.id for job in jobs}


@pytest.mark.promise
@pytest.mark.parametrize("seed", range(150))
def test_a_step_waits_only_for_what_it_needs_and_short_steps(seed: int) -> None:
    """A job begins as soon as its steps could without jobs, but for steps that take no longer than a runner's start."""
    found = pipeline(random_pipeline(random.Random(seed)))  # noqa: S311
    if any(step.job for step in found.steps.values()):
        return
    jobs = jobs_of(found)[:-1]
    job_of = {step: job for job in jobs for step in job.steps}
    for step in found.steps.values():
        together = job_of[step.name].steps
        waits_for = {one for need in found.ancestors(step.name) for one in job_of[need].steps} - set(together)
        more = waits_for - found.ancestors(step.name)
        assert all((found.steps[one].timeout_s or 1e9) <= 300 for one in more), (step.name, more)
