"""Every command that the README shows is run here, in its order, as a new user would."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from registry_server import registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


def clean_environment(home: Path) -> dict[str, str]:
    """What a new user's shell has, with this test's interpreter and tools first on PATH."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "REQUESTS_"))}
    return {**kept, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what git tracks here, as it is in the work tree."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / "clone" / name)
    return tmp_path / "clone"


def test_the_blocks_are_the_demo_the_tests_and_the_walk_through() -> None:
    """The README has exactly the command blocks that the other tests of this file know."""
    assert len(BLOCKS) == 4
    assert BLOCKS[0].strip() == "bash examples/iris/demo.sh"


def test_ci_passes_the_tests_by_the_command_of_the_readme() -> None:
    """The second command is what `.ci/run` calls."""
    assert BLOCKS[1].strip() in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_demo_fails_is_fixed_and_resumes(clone: Path, tmp_path: Path) -> None:
    """The first command installs everything from nothing and resumes the iris pipeline from its second step."""
    done = subprocess.run(
        ["bash", "-c", f"{BLOCKS[0].strip()} {tmp_path / 'iris'}"],
        cwd=clone,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    told = done.stderr
    assert "NameError: name 'train_y' is not defined" in told
    assert "load     | reuse: unchanged since attempt 1" in told
    assert "SUCCESS, score = 0.7" in told
    assert "fit       SUCCESS  2 " in done.stdout
    assert (tmp_path / "iris" / "iris_logistic.png").read_bytes().startswith(b"\x89PNG")


def test_the_walk_through_works_as_written(tmp_path: Path) -> None:
    """Each command of the third block succeeds in an empty git repository, and then those with a registry."""
    project = tmp_path / "project"
    project.mkdir()
    environment = clean_environment(tmp_path)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True, env=environment)

    def run(block: str) -> None:
        for line in block.strip().splitlines():
            done = subprocess.run(["bash", "-c", line], cwd=project, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}: {done.stderr}"

    run(BLOCKS[2])
    assert (project / "hi.txt").read_text() == "hi\n"
    with registry(tmp_path / "registry") as served:
        environment["RUNNABLE_CI_REGISTRY"] = served.repository()
        run(BLOCKS[3])


def test_every_verb_that_the_readme_names_is_there() -> None:
    """Each `runnable-ci VERB` and each option of one, in a block or in a sentence, is one of the program's."""
    named = {words for text in re.findall(r"runnable-ci ([^\n`]*)", README) if (words := tuple(text.split()))}
    assert len(named) > 12
    for verb, *rest in named:
        done = subprocess.run([sys.executable, "-m", "runnable_ci", verb, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, verb
        for option in [word.partition("=")[0] for word in rest if word.startswith("--")]:
            assert option in done.stdout, f"{verb} {option}"


def test_the_file_in_the_readme_is_the_file_of_the_example() -> None:
    """The TOML block is the example's pipeline file but for comments and spacing."""
    block = re.findall(r"```toml\n(.*?)```", README, flags=re.DOTALL)[0]
    plain = [re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines()]
    example = (ROOT / "examples" / "iris" / "runnable.toml").read_text().splitlines()
    assert list(filter(None, plain)) == list(filter(None, map(str.strip, example)))


def test_the_links_of_all_pages_lead_somewhere() -> None:
    """No relative link of the README or the docs is dead."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
