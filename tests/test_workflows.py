"""Tests of the action's workflows: what linters say, what is pinned, and what a workflow may do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
COPIED = sorted((ROOT / "workflows").glob("*.yml"))
"""What users copy."""
WORKFLOWS = [*COPIED, *sorted((ROOT / ".github" / "workflows").glob("*.yml"))]


def lint(program: str, *arguments: str | Path) -> str:
    """What a linter of the tests' environment says; it must find nothing."""
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def lint_workflows(files: list[Path]) -> None:
    """Syntax, expressions and shell scripts, security, and the schema of some workflows."""
    lint("actionlint", *files)
    audited = lint("zizmor", "--offline", "--strict-collection", "--no-progress", *files)
    assert audited.count("completed") == len(files)
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)


def parsed(file: Path) -> dict[str, Any]:
    """A workflow as values; `on` is a truth value to YAML 1.1 and is given back its name."""
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(table, dict)
    return {"on" if key is True else key: value for key, value in table.items()}


def steps(file: Path) -> list[dict[str, Any]]:
    """All steps of all jobs."""
    return [step for job in parsed(file)["jobs"].values() for step in job.get("steps", [])]


def named(file: Path) -> str:
    """A file by its path here, as the name of a test."""
    return str(file.relative_to(ROOT))


def test_linters_find_nothing() -> None:
    """actionlint, zizmor and the JSON schema have nothing to say about any workflow."""
    lint_workflows(WORKFLOWS)


def test_linters_find_something_where_there_is_something(tmp_path: Path) -> None:
    """Each linter refuses what it is there for: a wrong expression or script, an input in one, an unknown key."""
    good = COPIED[0].read_text(encoding="utf-8")
    for program, old, new in [
        ("actionlint", 'pipeline: "."', "pipeline: ${{ inputs.nothing }}"),
        ("actionlint", "      - uses: runnable", "      - run: cat $HOME\n      - uses: runnable"),  # by shellcheck
        ("zizmor", "      - uses: runnable", "      - run: echo ${{ github.head_ref }}\n      - uses: runnable"),
        ("check-jsonschema", "runs-on", "run-on"),
    ]:
        bad = tmp_path / "bad.yml"
        assert old in good
        bad.write_text(good.replace(old, new), encoding="utf-8")
        options = {
            "zizmor": ["--offline", "--no-progress"],
            "check-jsonschema": ["--builtin-schema", "vendor.github-workflows"],
        }
        with pytest.raises(AssertionError, match=re.escape(bad.name)):
            lint(program, *options.get(program, []), bad)


@pytest.mark.parametrize("file", WORKFLOWS, ids=named)
def test_what_is_used_is_pinned(file: Path) -> None:
    """Actions of others are named by commit, with the version in a comment; ours by its version, with the reason."""
    others = r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    ours = r"runnable/action@v1 # zizmor: ignore\[unpinned-uses\] .+"
    for line in re.findall(r"uses: (.*)", file.read_text(encoding="utf-8")):
        assert re.fullmatch(rf"\./\S*|{others}|{ours}", line), line


def test_one_commit_an_action() -> None:
    """All workflows use the same version of an action."""
    text = "".join(file.read_text(encoding="utf-8") for file in WORKFLOWS)
    pins = set(re.findall(r"uses: (\S+)@([0-9a-f]{40} # \S+)", text))
    assert len(pins) == len({name for name, _ in pins})


@pytest.mark.parametrize("file", WORKFLOWS, ids=named)
def test_no_expression_in_a_script(file: Path) -> None:
    """What a script needs comes as environment variables, so that no value can become code."""
    assert [step["run"] for step in steps(file) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=named)
def test_a_checkout_keeps_no_credentials(file: Path) -> None:
    """The token of the checkout is not left in the clone, where a step could read it."""
    checkouts = [step for step in steps(file) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("file", COPIED, ids=named)
def test_least_permissions(file: Path) -> None:
    """A copied workflow has no permission but reading the code and writing packages, in its one job."""
    workflow = parsed(file)
    assert workflow["permissions"] == {}
    (job,) = workflow["jobs"].values()
    assert job["permissions"] == {"contents": "read", "packages": "write"}


def test_the_retry_workflow_is_what_dispatch_starts() -> None:
    """It takes a run and a fix, waits for other retries of the run, and publishes under the same run id."""
    workflow = parsed(ROOT / "workflows" / "retry.yml")
    inputs = workflow["on"]["workflow_dispatch"]["inputs"]
    assert {name: bool(given.get("required")) for name, given in inputs.items()} == {
        "run-id": True,
        "ref": False,
        "from-step": False,
        "parameters": False,
    }
    assert "${{ inputs.run-id }}" in workflow["run-name"]
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert "${{ inputs.run-id }}" in workflow["concurrency"]["group"]
    checkout, retry = steps(ROOT / "workflows" / "retry.yml")
    assert checkout["with"]["ref"] == "${{ inputs.ref }}"
    passed = {name: f"${{{{ inputs.{name} }}}}" for name in ("run-id", "from-step", "parameters")}
    assert retry["with"] == {"command": "retry", "pipeline": ".", **passed}
