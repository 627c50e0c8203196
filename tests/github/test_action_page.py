"""The page of a run is kept with its workflow run, as it is: the action's steps as processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from action_steps import ActionRun, Repository
from registry_server import Served, registry

FILES = {
    "runnable.toml": 'name = "flowers"\n[steps.fit]\nrun = "echo hello from fit; test -e fixed"\n',
    ".gitignore": ".runnable\n",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real registry."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path, served: Served) -> Repository:
    """A repository with a pipeline that fails."""
    return Repository(tmp_path, served.repository(), FILES)


def pages(action: ActionRun) -> list[Path]:
    """What is kept as it is."""
    assert action.artifacts
    folder = action.artifacts.with_name(f"{action.artifacts.name}-as-they-are")
    return sorted(folder.iterdir()) if folder.exists() else []


def test_the_page_is_one_click_from_the_summary(repository: Repository) -> None:
    """Of a run that failed, and of the attempt that resumed it: each is a file of its own, with a link."""
    action, _ = repository.job()
    ran = action.all()
    assert ran.code == 1
    (page,) = pages(action)
    text = page.read_text()
    assert "hello from fit" in text
    assert "default-src 'none'" in text
    assert f"[Report of the run](https://github.com/artifacts/{page.name})" in action.summary
    again, project = repository.job(attempt=2)
    project.write({"fixed": ""})
    assert again.all().code == 0
    assert len(pages(again)) == 2


def test_no_page_where_it_is_not_wanted(repository: Repository) -> None:
    """`report: false` makes none."""
    action, _ = repository.job(given={"report": "false"})
    action.all()
    assert pages(action) == []
    assert action.outputs["finish"].get("page", "") == ""


def test_secrets_are_not_on_the_page(repository: Repository) -> None:
    """What the job masks only later is not on it."""
    action, _ = repository.job(given={"secrets": "KEY"}, variables={"KEY": "hello from"})
    action.all()
    (page,) = pages(action)
    assert "hello from fit" not in page.read_text()
