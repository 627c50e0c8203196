"""Tests of our own settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from runnable_ci.config import Settings, load
from runnable_ci.config.environment import Inputs, read_inputs
from runnable_ci.errors import UsageError


def test_nothing_set() -> None:
    """Without a variable of ours there is no limit of our own."""
    assert load({"PATH": "/bin", "JOBS": "3"}).jobs is None


@pytest.mark.parametrize("name", ["RUNNABLE_CI_JOBS", "runnable_ci_jobs"])
def test_jobs(name: str) -> None:
    """The number of jobs is taken from the environment that was passed, not from the process's own."""
    assert load({name: "3"}).jobs == 3


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", " "])
def test_bad_jobs(text: str) -> None:
    """A number of jobs that makes no sense is an error that names the variable."""
    with pytest.raises(UsageError, match="RUNNABLE_CI_JOBS: ") as caught:
        load({"RUNNABLE_CI_JOBS": text})
    assert caught.value.exit_code == 2


def test_another_variable_of_ours() -> None:
    """A variable that this version does not know is no trouble: a newer one may."""
    assert load({"RUNNABLE_CI_NEWER": "1"}).jobs is None


def test_an_empty_variable_is_not_set() -> None:
    """A workflow cannot leave a variable away, only empty: that is as good as not set."""
    assert load({"RUNNABLE_CI_JOBS": "", "RUNNABLE_CI_REGISTRY": ""}) == load({})


@pytest.mark.parametrize("image", [f"sha256:{'a' * 64}", f"ghcr.io/o/r:1@sha256:{'0' * 64}", ""])
def test_the_image_of_a_container(image: str) -> None:
    """An image is known by its digest."""
    assert load({"RUNNABLE_CI_CONTAINER_IMAGE_DIGEST": image}).container_image_digest == image


@pytest.mark.parametrize("image", ["python:3.11", "sha256:abc", f"a b@sha256:{'0' * 64}", f"sha256:{'0' * 64}\n"])
def test_an_image_without_a_digest(image: str) -> None:
    """A name alone says nothing about what ran."""
    with pytest.raises(UsageError, match="RUNNABLE_CI_CONTAINER_IMAGE_DIGEST"):
        load({"RUNNABLE_CI_CONTAINER_IMAGE_DIGEST": image})


def test_which_untracked_files() -> None:
    """One of three words, as in the pipeline file."""
    assert load({"RUNNABLE_CI_UNTRACKED": "listed"}).untracked == "listed"
    assert load({"PATH": "/bin"}).untracked is None
    with pytest.raises(UsageError, match="RUNNABLE_CI_UNTRACKED: "):
        load({"RUNNABLE_CI_UNTRACKED": "some"})


def test_a_setting_that_there_is_not() -> None:
    """In code a wrong name is an error."""
    with pytest.raises(ValidationError):
        Settings.model_validate({"job": 1})


def test_nothing_but_what_is_handed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the process's own environment nor a `.env` file in the folder sets anything."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("RUNNABLE_CI_JOBS=5\nRUNNABLE_CI_ACTION_RUN_ID=b\n")
    monkeypatch.setenv("RUNNABLE_CI_JOBS", "3")
    monkeypatch.setenv("RUNNABLE_CI_ACTION_RUN_ID", "a")
    assert load({"RUNNABLE_CI_REGISTRY": "localhost/r"}).jobs is None
    assert read_inputs({"RUNNABLE_CI_ACTION_COMMAND": " retry "}) == Inputs(command="retry")


def test_an_input_that_makes_no_sense() -> None:
    """The error names the input as a workflow does, and what is like what was given."""
    with pytest.raises(UsageError) as caught:
        read_inputs({"RUNNABLE_CI_ACTION_RESUME": "nevr"})
    assert caught.value.message == "input resume: Input should be 'auto', 'always' or 'never'"
    assert caught.value.hint == "did you mean `never`?"
