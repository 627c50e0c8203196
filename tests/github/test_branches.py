"""What belongs to a branch in a registry: its base for comparisons, and not the runs of pull requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from action_steps import PIPELINE, Repository
from published_runs import opened
from registry_server import Served, registry

from runnable_ci.runs.remote.tag_record import REUSE_PREFIX
from runnable_ci.runs.reuse.index_tag import index_tag


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path, served: Served) -> Repository:
    return Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE, "fixed": ""})


def has_base(repository: Repository) -> bool:
    """Whether a branch has a run to compare with."""
    return any(tag.startswith("_branch--") for tag in opened(repository.registry).tags())


def test_known_and_clean_code_of_a_branch_is_its_base(repository: Repository) -> None:
    """A run of the commit that the branch is at."""
    assert repository.job()[0].all().code == 0
    assert has_base(repository)


@pytest.mark.promise
@pytest.mark.parametrize(
    ("variables", "changed"),
    [
        ({}, True),
        ({"GIT_CONFIG_PARAMETERS": "no setting"}, False),  # git refuses to start
        ({"GITHUB_EVENT_NAME": "pull_request_target", "GITHUB_HEAD_REF": "topic", "GITHUB_BASE_REF": "main"}, False),
        ({"GITHUB_SHA": "1" * 40}, False),
        ({"GITHUB_SHA": ""}, False),
        ({"GITHUB_REF": "refs/tags/v1"}, False),
    ],
    ids=["dirty", "unknown", "pull_request_target", "another commit", "no commit", "tag"],
)
def test_other_code_is_no_base(repository: Repository, variables: dict[str, str], *, changed: bool) -> None:
    """A run with code that is changed, unknown or of something else is published, and moves no base."""
    action, project = repository.job(variables=variables)
    if changed:
        project.write({"runnable.toml": PIPELINE.replace("rows=3", "rows=5")})
    ran = action.all()
    assert ran.code == 0, ran.text
    assert action.outputs["finish"]["reference"]
    assert not has_base(repository)


def test_a_step_that_was_reused_from_other_code_makes_no_base(repository: Repository) -> None:
    """A retry whose last step has the branch's code, on results of a changed tree, moves no base."""
    first, project = repository.job()
    project.write({"more.txt": ""})
    (project.folder / "fixed").unlink()
    assert first.all().code == 1
    retry, _ = repository.job(command="retry", run_id="train-1000")
    ran = retry.all()
    assert ran.code == 0, ran.text
    assert not has_base(repository)


def test_a_pull_request_s_run_goes_back_where_it_was(repository: Repository) -> None:
    """A retry that names a run of a pull request by its registry publishes it there, and not among the branches'."""
    apart = f"{repository.registry}/pull-requests"
    event = {"pull_request": {"head": {"repo": {"full_name": "octo/flowers"}}}}
    variables = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge", "GITHUB_HEAD_REF": "topic"}
    first, project = repository.job(event=event, variables=variables, registry=apart)
    (project.folder / "fixed").unlink()
    assert first.all().code == 1
    digest = first.outputs["finish"]["digest"]
    refused, _ = repository.job(command="retry", run_id=f"{apart}:train-1000")
    ran = refused.all()
    assert ran.code == 2
    assert "was not written by a writer that is accepted here (main)" in ran.text
    assert digest in ran.text
    assert f"{apart}:train-1000@sha256:DIGEST" in ran.text
    retry, _ = repository.job(command="retry", run_id=f"{apart}:train-1000", args=f"--writers {digest}")
    ran = retry.all()
    assert ran.code == 0, ran.text
    assert retry.outputs["finish"]["reference"].startswith(f"{apart}:train-1000@")
    assert len([tag for tag in opened(apart).tags() if tag.startswith("train-1000")]) == 3


@pytest.mark.parametrize(
    ("variables", "branch"),
    [
        ({}, "main"),
        ({"GITHUB_REF": "refs/pull/7/merge", "GITHUB_HEAD_REF": "topic", "GITHUB_BASE_REF": "main"}, "pull:7"),
        ({"GITHUB_REF": "refs/tags/v1"}, ""),
        ({"GITHUB_REF": "refs/heads/other"}, "other"),
    ],
    ids=["branch", "pull request", "tag", "another branch's code"],
)
def test_a_job_leaves_an_index_of_its_own_branch(
    repository: Repository, variables: dict[str, str], branch: str
) -> None:
    """What other runs may reuse of it is found there, and nowhere else, whichever branch's code it checked out."""
    action, _ = repository.job(variables=variables)
    assert action.all().code == 0
    found = [tag for tag in opened(repository.registry).tags() if tag.startswith(REUSE_PREFIX)]
    assert found == ([index_tag(branch)] if branch else [])
