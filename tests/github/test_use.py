"""What tells one use of the action from all others: values in, names out."""

from __future__ import annotations

from typing import Any

import pytest

from runnable_ci.github.action.use import Use, workflow_file

PLAIN = Use("1000", "", "", "train", "null", False, ".", ".", "", "")
CI = "octo/flowers/.github/workflows/ci.yml"


def test_what_nothing_tells_apart_has_a_plain_name() -> None:
    """The job and the workflow run are the id; a key that no id can be has a digest too."""
    assert PLAIN.name == "train-1000"
    assert PLAIN._replace(job="").name.startswith("job-1000-")
    assert PLAIN._replace(job="tränen_1").name.startswith("tr-nen-1-1000-")


@pytest.mark.promise
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("workflow", [CI, "octo/flowers/.github/workflows/nightly.yml"]),
        ("called_workflow", ["", "octo/flowers/.github/workflows/a.yml", "octo/flowers/.github/workflows/b.yml"]),
        ("job", ["build", "build_", "build-"]),
        ("matrix", ["null", '{"leg": "a"}', '{"leg": "b"}']),
        ("pipeline", [".", "a", "b"]),
        ("working_directory", [".", "a", "b"]),
        ("step", ["small", "big", "__runnable_action", "__runnable_action_2"]),
        ("github_run_id", ["1000", "1001"]),
        ("run_id", ["", "mine", "yours"]),
    ],
)
def test_what_differs_has_another_name(field: str, values: list[Any]) -> None:
    """Each of the facts alone tells two uses apart, in their runs and in the files that they leave."""
    uses = [PLAIN._replace(**{"workflow": CI, field: value}) for value in values]
    assert len({use.name for use in uses}) == len({use.key for use in uses}) == len(values)


def test_the_ref_of_a_workflow_tells_nothing() -> None:
    """A branch may move between two attempts."""
    assert workflow_file(f"{CI}@refs/heads/main") == workflow_file(f"{CI}@{'1' * 40}") == CI
    assert workflow_file("") == ""


@pytest.mark.parametrize(
    ("first", "second"), [("", "__run_2"), ("__runnable_action", "__runnable_action_2"), ("0", "3")]
)
def test_names_that_the_runner_counts_do_not_tell_two_steps_apart(first: str, second: str) -> None:
    """Of two steps without an id the job says so at once; one with an id is told from both."""
    one, other, named = (PLAIN._replace(step=step) for step in (first, second, "big"))
    assert one.place == other.place != named.place
    assert one._replace(pipeline="a").place != other.place


def test_what_a_called_workflow_does_not_see() -> None:
    """Which job called it; its caller may tell, by the input `matrix` or `run-id`."""
    called = PLAIN._replace(called_workflow=CI)
    assert PLAIN.is_told_apart
    assert not called.is_told_apart
    assert not called._replace(matrix='{"of": "the called job"}').is_told_apart
    assert called._replace(is_matrix_given=True).is_told_apart
    assert called._replace(run_id="mine").is_told_apart
