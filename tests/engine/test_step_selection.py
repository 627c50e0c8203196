"""Tests of the selection of steps: what runs, what is kept of a pipeline, and what a log says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.engine.parts.step_selection import StepSelection
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve


def pipeline_of(needs: Mapping[str, Sequence[str]]) -> Pipeline:
    """A pipeline of steps that do nothing."""
    steps = {name: {"run": "true", "needs": list(above)} for name, above in needs.items()}
    return resolve({"steps": steps}, file="runnable.toml", default_name="p")


DIAMOND = pipeline_of({"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"]})


@pytest.mark.parametrize(
    ("steps", "until", "running", "kept"),
    [
        ([], [], "abcde", "abcde"),
        (["b"], [], "b", "ab"),
        (["d"], [], "d", "abcd"),
        (["b", "e"], [], "be", "abcde"),
        ([], ["b"], "ab", "ab"),
        ([], ["b", "c"], "abc", "abc"),
        (["e"], ["c"], "ace", "abcde"),
    ],
)
def test_what_runs_and_what_is_kept(steps: list[str], until: list[str], running: str, kept: str) -> None:
    """Named steps run; of the pipeline stays what they need, also where that does not run."""
    selection = StepSelection(steps, until)
    assert selection.running(DIAMOND) == set(running)
    assert list(selection.part_of(DIAMOND).steps) == list(kept)


@given(st.data())
def test_a_part_is_a_pipeline(data: st.DataObject) -> None:
    """Whatever is selected of whatever graph: each step has its needs, in order, and a log gives the same part."""
    names = [f"s{i}" for i in range(data.draw(st.integers(1, 8)))]
    needs = {
        name: sorted(data.draw(st.sets(st.sampled_from(names[:i])) if i else st.just(set())))
        for i, name in enumerate(names)
    }
    whole = pipeline_of(needs)
    some = st.lists(st.sampled_from(names), unique=True, max_size=3)
    selection = StepSelection(data.draw(some), data.draw(some))
    part = selection.part_of(whole)
    before: set[str] = set()
    for step in part.steps.values():
        assert before.issuperset(step.needs)
        before.add(step.name)
    assert selection.running(whole) <= part.steps.keys()
    assert StepSelection.recorded(selection.config(), whole) == selection
    assert selection.part_of(part) == part
    assert {name for name in part.steps if name not in selection.running(whole)}.isdisjoint(selection.until)


def test_a_step_that_is_gone_is_not_selected() -> None:
    """A retry with a changed file resumes what is left; a log of another version has no selection."""
    config = {"selected_steps": ["b", "gone"], "until_steps": 3, "executor": "local"}
    assert StepSelection.recorded(config, DIAMOND) == StepSelection(["b"], [])
    assert not StepSelection.recorded({}, DIAMOND)


def test_an_unknown_step_is_refused() -> None:
    """With what it may be."""
    with pytest.raises(UsageError, match="has no step `f`"):
        StepSelection(["f"]).require_known(DIAMOND)
    with pytest.raises(UsageError, match=r"--until: .* has no step `dd`"):
        StepSelection([], ["dd"]).require_known(DIAMOND)
