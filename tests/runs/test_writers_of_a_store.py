"""Whose results a retry may use, whatever the store already has and whoever passed them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from published_runs import opened
from registry_server import Served, registry

from runnable_ci.store.registry import Registry

STEPS = ("a", "b", "c")
FILES = {
    "runnable.toml": "".join(
        f'[steps.{name}]\nrun = "test -e ../$WHO-{name}; echo $WHO > {name}.txt"\n'
        f'catalog = {{ put = ["{name}.txt"] }}\n'
        for name in STEPS
    ),
    ".gitignore": "*.txt\n",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def job(project: Workspace, ref: str, actor: str, run: str) -> Workspace:
    """The same clone in a job."""
    more = {"GITHUB_REF": f"refs/heads/{ref}", "GITHUB_RUN_ID": run, "GITHUB_ACTOR": actor, "WHO": actor}
    return Workspace(project.folder, {**project.environ, "GITHUB_ACTIONS": "true", **more})


def digest(remote: Registry) -> str:
    """Of the part that was published last."""
    return remote.resolve("w").digest


def writer_of(story: Story, name: str) -> str:
    """The writer's own tag of a part."""
    return next(tag for tag in story.remote.tags() if "--" in tag and is_at(story, tag, name))


def is_at(story: Story, tag: str, name: str) -> bool:
    """Whether a tag points to a part."""
    return story.remote.resolve(tag).digest == story.parts[name]


class Story:
    """Seed's run of `main`, of which `a` failed; Mallory's retry on `evil`, which made `a`; Ana's, which has both.

    Ana is on her own machine, on `main`, and made `b`; `c` is left.
    """

    def __init__(self, folder: Path, remote: Registry) -> None:
        self.remote = remote
        self.seed = workspace(folder, FILES, name="seed")
        job(self.seed, "main", "seed", "1").runnable("run", "--run-id", "w", "--to", remote.label, code=1)
        self.parts = {"seed": digest(remote)}
        mallory = self.clone(folder, "mallory")
        mallory.git("checkout", "-q", "-b", "evil")
        job(mallory, "evil", "mallory", "666").runnable(
            "retry", f"{remote.label}:w", "--writers", "*", "--publish", code=1
        )
        self.parts["mallory"] = digest(remote)
        self.ana = self.clone(folder, "ana")
        self.ana.git("config", "user.name", "Ana")
        self.ana.runnable("retry", f"{remote.label}:w", "--publish", code=1)
        self.parts["ana"] = digest(remote)

    def clone(self, folder: Path, name: str) -> Workspace:
        """Another clone of the project, where a person works."""
        for done in ("mallory-a", "ana-b", "zoe-c", *(f"main-{step}" for step in STEPS)):
            (folder / done).touch()
        found = elsewhere(self.seed, folder, name)
        return Workspace(found.folder, {**found.environ, "WHO": name})


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Story:
    """One for all tests that only read the registry."""
    return Story(tmp_path_factory.mktemp("story"), opened(served.repository()))


MALLORY = "mallory on evil in workflow run 666"


@pytest.mark.promise
def test_who_passes_results_on_does_not_vouch_for_them(tmp_path: Path, story: Story) -> None:
    """A job of `main` does not take Mallory's result from Ana's part; by its digest it does, and names who made it."""
    reference = f"{story.remote.label}:w"
    zoe = job(story.clone(tmp_path, "runner"), "main", "main", "2")
    done = zoe.runnable("retry", reference)
    said = [line for line in (done.out + done.err).splitlines() if "not used, since its writer" in line]
    assert len(said) == 2
    (of_ana,) = (line for line in said if "accepted: Ana on main" in line)
    assert f"({story.parts['ana']}), with results by " in of_ana
    assert MALLORY in of_ana
    assert [zoe.read(f"{step}.txt") for step in STEPS] == ["main\n"] * 3

    zoe = story.clone(tmp_path, "zoe")
    taken = zoe.runnable("retry", f"{reference}@{story.parts['ana']}")
    said = [line for line in (taken.out + taken.err).splitlines() if line.startswith("note: written by")]
    assert any(MALLORY in line and ", published by Ana on main" in line and line.endswith("of it: a") for line in said)
    assert any("written by Ana on main at" in line and line.endswith("of it: b") for line in said)
    assert not any("by seed" in line and "of it: a" in line for line in said)
    assert [zoe.read(f"{step}.txt") for step in STEPS] == ["mallory\n", "ana\n", "zoe\n"]
    shown = zoe.runnable("show", "w").out.splitlines()
    assert any(line.startswith("a ") and MALLORY in line and "published by Ana" in line for line in shown)


@pytest.mark.promise
@pytest.mark.parametrize("form", ["id", "reference", "digest", "--writers digest", "actor", "job", "id in a job"])
def test_what_the_store_has_already_is_restricted_too(tmp_path: Path, story: Story, form: str) -> None:
    """A store with everybody's parts gives a retry that accepts some writers nothing of the others, in any form."""
    reference, seed = f"{story.remote.label}:w", story.parts["seed"]
    clone = story.clone(tmp_path, "main")
    who = job(clone, "main", "main", "2") if "job" in form else clone
    who.runnable("pull", reference, "--writers", "*")
    forms = {
        "id": ["w", "--writers", "main"],
        "reference": [reference, "--writers", "main", "--from", "b"],
        "digest": [f"{reference}@{seed}", "--from", "b"],
        "--writers digest": [reference, "--writers", f"{seed},sha256:{'0' * 64}"],
        "actor": ["w", "--writers", "actor:seed,actor:Ana"],
        "job": [reference],
        "id in a job": ["w"],
    }
    for more in (["--dry-run"], []):
        refused = who.runnable("retry", *forms[form], *more, code=2)
        text = refused.out + refused.err
        assert "has results of writers that are not accepted (" in text
        assert f"so nothing was used: {MALLORY}" in text
        assert not list(clone.folder.glob("*.txt"))
    both = f"{story.parts['mallory']},name:{writer_of(story, 'ana')},main"
    who.runnable("retry", forms[form][0].partition("@")[0], "--writers", both)
    assert clone.log("w").status == "SUCCESS"


def test_a_part_that_is_pulled_later_has_what_an_earlier_one_had(tmp_path: Path, story: Story) -> None:
    """Results count as of each part that has them: a newer one may be accepted in place of the one that came first."""
    reference = f"{story.remote.label}:w"
    zoe = story.clone(tmp_path, "zoe")
    zoe.runnable("pull", f"{reference}@{story.parts['mallory']}")
    zoe.runnable("retry", "w", "--dry-run", "--writers", story.parts["ana"], code=2)
    done = zoe.runnable("retry", f"{reference}@{story.parts['ana']}")
    assert zoe.log("w").status == "SUCCESS", done.err
    assert [zoe.read(f"{step}.txt") for step in STEPS] == ["mallory\n", "ana\n", "zoe\n"]


def test_what_was_made_here_is_always_accepted(tmp_path: Path, served: Served) -> None:
    """A person's own attempts, before and after a pull, are nobody else's; what they used of others is not theirs."""
    story = Story(tmp_path, opened(served.repository()))
    story.seed.runnable("pull", f"{story.remote.label}:w", "--writers", "main")
    seed = Workspace(story.seed.folder, {**story.seed.environ, "WHO": "main"})
    seed.runnable("retry", "w", "--writers", "nobody-else")
    seed.runnable("publish", "w", "--to", story.remote.label)
    seed.runnable("retry", "w", "--writers", "nobody-else", "--from", "c")
    refused = story.ana.runnable("retry", "w", "--writers", "main", code=2)
    assert MALLORY in refused.err
