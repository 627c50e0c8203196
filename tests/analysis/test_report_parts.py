"""The parts of a run's page as data: where things stand, what is said of them, and how texts are made harmless."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

import pytest

from runnable_ci.analysis.report.chain import clock_offsets, parents_of
from runnable_ci.analysis.report.graph import NODE_HEIGHT, NODE_WIDTH, Graph, graph_of
from runnable_ci.analysis.report.machines import machine_names, machines_of, where_each_ran
from runnable_ci.analysis.report.metrics import metrics_of
from runnable_ci.analysis.report.output import output_html
from runnable_ci.analysis.report.plots import plot_of
from runnable_ci.analysis.report.timeline import timeline_of
from runnable_ci.analysis.report.wording import sentence, visible
from runnable_ci.analysis.states import State
from runnable_ci.runs.machines.environment_model import Environment, Machine
from runnable_ci.runs.model import Invocation, RunLog, StepAttempt, StepLog
from runnable_ci.runs.run_identity import invocation_digest

SHAPES = {
    "a chain": {"a": [], "b": ["a"], "c": ["b"], "d": ["c"]},
    "a diamond": {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
    "around one": {"a": [], "b": ["a"], "c": ["b", "a"]},
    "around three": {"a": [], "b": ["a"], "c": ["b"], "d": ["c"], "e": ["a", "d"], "f": ["a", "e", "b"]},
    "wide": {"a": [], **{f"b{at}": ["a"] for at in range(12)}, "c": [f"b{at}" for at in range(12)] + ["a"]},
    "apart": {"a": [], "b": [], "c": ["a"], "d": ["b"]},
}


def graph(needs: Mapping[str, Sequence[str]]) -> Graph:
    """The picture of a pipeline."""
    same = {name: name for name in needs}
    found = graph_of(needs, same, dict.fromkeys(needs, "succeeded"), {})
    assert found is not None
    return found


def crossed(found: Graph) -> list[str]:
    """The steps that an edge goes through: by points on each curve."""
    boxes = {node.name: (node.x + 2, node.y + 2) for node in found.nodes}
    through = []
    for edge in found.edges:
        for x, y in points(edge):
            through += [
                name
                for name, (left, top) in boxes.items()
                if left < x < left + NODE_WIDTH - 4 and top < y < top + NODE_HEIGHT - 4
            ]
    return through


def points(edge: str) -> list[tuple[float, float]]:
    """Points on a path of `M`, `C` and `H`."""
    found: list[tuple[float, float]] = []
    x = y = 0.0
    for kind, numbers in re.findall(r"([MCH])([-0-9., ]+)", edge):
        values = [float(one) for one in re.findall(r"-?[0-9.]+", numbers)]
        if kind == "M":
            x, y = values
        elif kind == "H":
            found += [(x + (values[0] - x) * at / 20, y) for at in range(21)]
            x = values[0]
        else:
            x1, y1, x2, y2, x3, y3 = values
            for at in range(21):
                t, u = at / 20, 1 - at / 20
                found.append(
                    (
                        u**3 * x + 3 * u * u * t * x1 + 3 * u * t * t * x2 + t**3 * x3,
                        u**3 * y + 3 * u * u * t * y1 + 3 * u * t * t * y2 + t**3 * y3,
                    )
                )
            x, y = x3, y3
    return found


@pytest.mark.parametrize("needs", SHAPES.values(), ids=SHAPES)
def test_edges_go_around_steps(needs: Mapping[str, Sequence[str]]) -> None:
    """Each edge is drawn, from left to right, and through no step; no two steps overlap."""
    found = graph(needs)
    assert len(found.edges) == sum(map(len, needs.values()))
    assert crossed(found) == []
    assert len({(node.x, node.y) for node in found.nodes}) == len(needs)


def test_edges_of_random_pipelines() -> None:
    """Also where many cross each other."""
    for seed in range(40):
        choose = random.Random(seed)  # noqa: S311
        names = [f"s{at}" for at in range(choose.randint(2, 25))]
        needs = {name: choose.sample(names[:at], min(at, choose.randint(0, 3))) for at, name in enumerate(names)}
        found = graph(needs)
        assert crossed(found) == [], seed
        assert all(0 <= node.x <= found.width - NODE_WIDTH for node in found.nodes)
        assert all(0 <= node.y <= found.height - NODE_HEIGHT for node in found.nodes)


def test_a_circle_is_drawn_all_the_same() -> None:
    """No pipeline has one, but a log that somebody made may."""
    assert len(graph({"a": ["b"], "b": ["a"], "c": ["c", "a", "nobody"]}).nodes) == 3


def attempt(start: str, end: str, **more: object) -> StepAttempt:
    """An attempt on one day."""
    made = StepAttempt(start_time=f"2026-01-01T{start}Z", end_time=f"2026-01-01T{end}Z")
    made.end("succeeded")
    return made.model_copy(update=more)


def run_of(**steps: Sequence[StepAttempt]) -> RunLog:
    """A log with these attempts."""
    log = RunLog(run_id="r")
    for name, attempts in steps.items():
        log.steps[name] = StepLog(name=name, internal_name=name, attempts=[*attempts])
    return log


def test_the_timeline() -> None:
    """A row a step; parallel steps overlap, a night is left out, reuse is seen, another run's result has no bar."""
    log = run_of(
        first=[attempt("01:00:00", "01:00:10")],
        second=[attempt("01:00:05", "01:00:10"), attempt("09:00:00", "09:00:10", attempt_number=2)],
        third=[attempt("01:00:00", "01:00:10", taken_from="other/third.1")],
    )
    states: dict[str, State] = {"first": "reused", "second": "succeeded", "third": "reused"}
    found = timeline_of(log, {name: name for name in log.steps}, states, {})
    assert found is not None
    first, second, third = found.rows
    assert [bar.state for bar in first.bars] == ["kept"]
    assert first.bars[0].title == "first: succeeded, reused since, 10.0 s"
    assert (first.bars[0].left, second.bars[0].left) == (0, 10)
    assert second.bars[1].left == pytest.approx(80)
    assert found.length == "50.0 s"
    assert len(found.pauses) == 1
    assert 20 < found.pauses[0] < 80
    assert (third.bars, third.note) == ([], "from other/third.1")


def test_machines_have_names_where_there_are_several() -> None:
    """Each is shown once; bars say on which one it was."""
    log = run_of(a=[attempt("01:00:00", "01:00:10", environment="x")])
    log.environments = {
        "x": Environment(machine=Machine(cpu="one", cores=2, disk_free=1)),
        "y": Environment(machine=Machine(cpu="one", cores=2, disk_free=2)),
    }
    assert machine_names(log) == {}
    assert [one.name for one in machines_of(log)] == ["Machine"]
    log.environments["z"] = Environment(machine=Machine(cpu="two"))
    assert machine_names(log) == {"x": "machine 1", "y": "machine 1", "z": "machine 2"}
    assert [one.facts[0].value for one in machines_of(log)] == ["one", "two"]
    found = timeline_of(log, {"a": "a"}, {"a": "succeeded"}, machine_names(log))
    assert found is not None
    assert [(row.label, row.is_machine) for row in found.rows] == [("machine 1", True), ("a", False)]
    assert found.rows[1].bars[0].title == "a: succeeded, 10.0 s, on machine 1"


def test_clocks_of_machines_that_differ() -> None:
    """What had seen another invocation is drawn after it, whatever its clock says; an overlap alone is no proof."""
    log = run_of(
        first=[attempt("05:00:00", "05:00:10", invocation=1)],
        second=[attempt("03:00:00", "03:00:10", invocation=2)],
        third=[attempt("03:00:20", "03:00:30", invocation=3)],
    )
    for number, (begin, end) in enumerate((("05:00:00", "05:00:10"), ("03:00:00", "03:00:10"), ("03:00:05", "")), 1):
        seen = [invocation_digest(log.invocations[-1])] if number > 1 else []
        log.invocations.append(
            Invocation(
                number=number,
                command="retry" if number > 1 else "run",
                start_time=f"2026-01-01T{begin}Z",
                end_time=f"2026-01-01T{end}Z" if end else "",
                identity=f"i{number}",
                parents=seen,
            )
        )
    assert parents_of(log) == {1: [], 2: [1], 3: [2]}
    assert clock_offsets(log) == {2: 7210.0, 3: 7215.0}
    found = timeline_of(log, {name: name for name in log.steps}, dict.fromkeys(log.steps, "succeeded"), {})
    assert found is not None
    assert [row.label for row in found.rows] == ["first", "second", "third"]
    assert [bar.left for row in found.rows for bar in row.bars] == pytest.approx([0, 100 * 10 / 45, 100 * 35 / 45])
    assert found.later.startswith("invocation 2 is drawn 2 h 00 min later")
    log.invocations[1].start_time, log.invocations[1].parents = "2026-01-01T05:00:05Z", None
    assert 2 not in clock_offsets(log)


def test_a_circle_of_invocations_ends() -> None:
    """No log of ours has one, but one that somebody made may."""
    log = run_of(a=[attempt("01:00:00", "01:00:10")])
    log.invocations = [
        Invocation(number=it, command="retry", start_time=f"2026-01-01T0{it}:00:00Z", parents=["x"]) for it in (1, 2)
    ]
    assert clock_offsets(log) == {}
    assert timeline_of(log, {"a": "a"}, {"a": "succeeded"}, {}) is not None


def test_jobs_on_equal_machines_are_several() -> None:
    """Each job of GitHub's runners has a machine of its own, a runner of somebody's the one that it is named for."""
    log = run_of(a=[attempt("01:00:00", "01:00:10", environment="x1", invocation=1)])
    for number in (1, 2):
        job = {"GITHUB_JOB": "train", "GITHUB_RUN_ID": str(number), "RUNNER_NAME": f"GitHub Actions {number}"}
        own = {**job, "RUNNER_ENVIRONMENT": "self-hosted", "RUNNER_NAME": "mine"}
        log.environments[f"x{number}"] = Environment(machine=Machine(cpu="one"), variables=job)
        log.environments[f"y{number}"] = Environment(machine=Machine(cpu="one"), variables=own)
    assert machine_names(log) == {"x1": "machine 1", "y1": "machine 2", "x2": "machine 3", "y2": "machine 2"}
    assert [one.name for one in machines_of(log)] == ["Machines 1, 2, 3"]
    assert where_each_ran(log) == {1: "machine 1, job train"}


def test_metrics() -> None:
    """A number, many, a text, an integer that no float holds, and what is not a number."""
    values = {"a": 0.123456789, "b": [1, 2, 6], "c": "good", "d": 10**400, "e": float("nan"), "f": True, "g": 12}
    shown = {one.name: (one.value[:9], one.note) for one in metrics_of(values, None, [])}
    assert shown["a"] == ("0.123457", "")
    assert shown["b"] == ("⌀ 3", "mean of 3 values: 1 to 6")
    assert shown["c"] == ("good", "")
    assert shown["d"] == ("100000000", "")
    assert shown["e"] == ("nan", "")
    assert shown["f"] == ("true", "")
    assert shown["g"] == ("12", "")
    assert plot_of("a", [], "r") is None


def test_texts_are_harmless_and_seen() -> None:
    """What is not seen stands as its number; backticks make code; both are escaped."""
    assert visible("a\u202eb\x00\ud800\U000e0041\n\té日本") == "a\\u202eb\\x00\\ud800\\U000e0041\n\té日本"
    assert sentence("`<b>` and <i> ` alone") == "<code>&lt;b&gt;</code> and &lt;i&gt; ` alone"
    assert sentence("`a\u2066`") == "<code>a\\u2066</code>"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m<red>\x1b[0m plain", '<span style="color:#ff7b72">&lt;red&gt;</span> plain\n'),
        ("10 %\r50 %\r100 %\nend\r\n", "100 %\nend\n"),
        ("\x1b]0;title\x07\x1b[2J\x1b[10;10Hx", "x"),
        ("\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b[30;40mdark on dark\x1b[0m", '<span style="color:#7d8590">dark on dark</span>\n'),
        ("\x1b[38;2;0;0;0mblack\x1b[0m", '<span style="color:#7d8590">black</span>\n'),
        ("\u202e\x07", "\\u202e\\x07"),
    ],
    ids=["colour", "progress", "cursor", "link", "background", "true colour", "unseen"],
)
def test_output(text: str, shown: str) -> None:
    """Colours are kept, legible; nothing else of what terminals do."""
    assert output_html(text) == shown
