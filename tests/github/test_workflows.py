"""Tests of the action and of workflows: what linters say, what is pinned, what a workflow may do, and what is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli import workspace
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
COPIED = sorted((ROOT / "workflows").glob("*.yml"))
"""What users copy."""
ACTION = ROOT / "action.yml"
REUSABLE = ROOT / ".github" / "workflows" / "pipeline.yml"
SELFTEST = ROOT / ".github" / "workflows" / "selftest.yml"
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
    """All steps of all jobs, or of the action."""
    if file == ACTION:
        found = parsed(file)["runs"]["steps"]
        assert isinstance(found, list)
        return found
    return [step for job in parsed(file)["jobs"].values() for step in job.get("steps", [])]


def named(file: Path) -> str:
    """A file by its path here, as the name of a test."""
    return str(file.relative_to(ROOT))


def uses_action(step: Mapping[str, Any]) -> bool:
    """Whether a step uses our action."""
    used = str(step.get("uses", ""))
    return used == "./" or used.startswith("runnable/action@")


def test_linters_find_nothing() -> None:
    """actionlint, zizmor and the JSON schema have nothing to say about any workflow."""
    lint_workflows(WORKFLOWS)


def test_linters_find_nothing_in_the_action() -> None:
    """zizmor, the JSON schema, and shellcheck for its scripts, which actionlint does not look at."""
    assert "completed" in lint("zizmor", "--offline", "--strict-collection", "--no-progress", ACTION)
    lint("check-jsonschema", "--builtin-schema", "vendor.github-actions", ACTION)
    scripts = [step["run"] for step in steps(ACTION) if "run" in step]
    scripts.append((ROOT / ".github" / "selftest.sh").read_text(encoding="utf-8"))
    for script in scripts:
        done = subprocess.run(["shellcheck", "--shell=bash", "-"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


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


@pytest.mark.parametrize("file", [ACTION, *WORKFLOWS], ids=named)
def test_what_is_used_is_pinned(file: Path) -> None:
    """Actions of others are named by commit, with the version in a comment; ours by its version, with the reason."""
    others = r"[\w-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
    ours = r"runnable/action@v1 # zizmor: ignore\[unpinned-uses\] .+"
    for line in re.findall(r"(?m)^ +(?:# )?(?:- )?uses: (.*)", file.read_text(encoding="utf-8")):
        assert re.fullmatch(rf"\./\S*|{others}|{ours}", line), line


def tracked() -> list[Path]:
    """All files of the repository that have text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if Path(name).suffix in (".md", ".py", ".sh", ".toml", ".yml")]


def test_one_version_of_an_action() -> None:
    """Whatever names an action of others, code, pages and templates, names the same commit, or that one's version."""
    text = "".join(file.read_text(encoding="utf-8") for file in tracked())
    pins = dict(re.findall(r"uses: (actions/\S+)@([0-9a-f]{40} # v\d+\.\d+\.\d+)", text))
    assert pins.keys() >= {"actions/checkout", "actions/upload-artifact", "actions/download-artifact"}
    assert set(re.findall(r"uses: (\S+)@([0-9a-f]{40} # \S+)", text)) == set(pins.items())
    major = {name: pin.partition(" # ")[2].partition(".")[0] for name, pin in pins.items()}
    assert {(name, major.get(name)) for name, _ in re.findall(r"uses: (actions/\S+)@(v\d+)", text)} == set(
        re.findall(r"uses: (actions/\S+)@(v\d+)", text)
    )


def test_a_bot_updates_all_that_is_pinned() -> None:
    """It looks into each folder with actions or requirements, waits some days, and makes one change of each kind."""
    file = ROOT / ".github" / "dependabot.yml"
    lint("check-jsonschema", "--builtin-schema", "vendor.dependabot", file)
    lint("zizmor", "--offline", "--strict-collection", "--no-progress", file)
    actions, packages = parsed(file)["updates"]
    assert (actions["package-ecosystem"], packages["package-ecosystem"]) == ("github-actions", "pip")
    using = {path.parent for path in tracked() if path.suffix == ".yml" and "tests" not in path.parts}
    folders = {"/" + folder.relative_to(ROOT).as_posix().removeprefix(".") for folder in using}
    # In `/` it looks for action.yml and into .github/workflows; .github itself has only the settings of tools.
    assert set(actions["directories"]) == (folders - {"/github", "/github/workflows"}) | {"/"}
    assert packages["directory"] == "/"
    assert all(it["groups"] and it["cooldown"]["default-days"] == 7 for it in (actions, packages))


def test_what_the_action_installs_is_what_it_needs() -> None:
    """Each requirement of the project is in the list with the hashes, in a version that it allows, as all others."""
    lines = (ROOT / "action-requirements.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"(?m)^([a-z0-9-]+)==(\S+) \\$", lines))
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
    assert all("--hash=sha256:" in part for part in re.split(r"(?m)^(?=\S)", lines) if part)


@pytest.mark.parametrize("file", [ACTION, *WORKFLOWS], ids=named)
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
    """A copied workflow reads the code and writes packages, in its one job; a retry may start the next one, too."""
    workflow = parsed(file)
    assert workflow["permissions"] == {}
    (job,) = workflow["jobs"].values()
    more = {"actions": "write"} if file.name == "retry.yml" else {}
    assert job["permissions"] == {"contents": "read", "packages": "write", **more}


def test_the_retry_workflow_is_what_dispatch_starts() -> None:
    """It takes a run and a fix, waits for other retries of the run, and publishes under the same run id."""
    workflow = parsed(ROOT / "workflows" / "retry.yml")
    inputs = workflow["on"]["workflow_dispatch"]["inputs"]
    assert {name: bool(given.get("required")) for name, given in inputs.items()} == {
        "run-id": True,
        "ref": False,
        "from-step": False,
        "parameters": False,
        "pipeline": False,
        "other-pipeline": False,
        "checkpoint": False,
        "options": False,
    }
    assert "${{ inputs.run-id }}" in workflow["run-name"]
    assert workflow["concurrency"]["cancel-in-progress"] is False
    assert "${{ inputs.run-id }}" in workflow["concurrency"]["group"]
    checkout, retry = steps(ROOT / "workflows" / "retry.yml")
    assert checkout["with"]["ref"] == "${{ inputs.ref }}"
    passed = {name: f"${{{{ inputs.{name} }}}}" for name in ("run-id", "from-step", "parameters")}
    passed["pipeline"] = "${{ inputs.pipeline || '.' }}"
    passed["args"] = (
        "${{ inputs.other-pipeline && '--other-pipeline' || '' }} "
        "${{ inputs.checkpoint == 'drop' && '--checkpoint drop' || '' }} ${{ inputs.options }}"
    )
    assert retry["with"] == {"command": "retry", **passed}


def test_the_weekly_workflow_reproduces() -> None:
    """It makes the run of its branch again with the program of the action, never with what a run's name may hold."""
    file = ROOT / "workflows" / "reproduce.yml"
    _, action, again = steps(file)
    assert set(parsed(file)["on"]) == {"schedule", "workflow_dispatch"}
    assert again["env"]["PYTHON"] == f"${{{{ steps.{action['id']}.outputs.python }}}}"
    assert again["run"] == 'exec "$PYTHON" -I -m runnable_ci reproduce --times 3 --publish "$BRANCH"'


@pytest.mark.parametrize("file", WORKFLOWS, ids=named)
def test_the_action_gets_what_it_knows(file: Path) -> None:
    """Each workflow uses the action by inputs that it has."""
    used = [step for step in steps(file) if uses_action(step)]
    assert used
    for step in used:
        assert step["with"].keys() <= parsed(ACTION)["inputs"].keys()


def test_the_reusable_workflow_is_the_action() -> None:
    """It has the action's inputs, with the same defaults, and its outputs, and passes all of them on."""
    action, workflow = parsed(ACTION), parsed(REUSABLE)
    call = workflow["on"]["workflow_call"]
    own = {"runs-on", "ref", "setup"}
    # The token is a secret of the workflow, and no environment variable comes in that could hold another.
    # The step that uses the action is the called workflow's own.
    # Jobs that share a run use the action themselves, in the workflow that `runnable-ci workflow` writes.
    passed = action["inputs"].keys() - {"token", "secrets", "step", "steps", "instances", "matrix-of", "collect"}
    assert call["inputs"].keys() == passed | own
    defaults = {name: given.get("default") for name, given in action["inputs"].items() if name in passed}
    # The calling job's matrix is not to be had in a called workflow.
    assert {name: call["inputs"][name].get("default") for name in passed} == {**defaults, "matrix": None}
    (step,) = (step for step in steps(REUSABLE) if uses_action(step))
    inputs = {name: f"${{{{ inputs.{name} }}}}" for name in passed}
    # GITHUB_JOB is the called workflow's: what the callers give is all that tells their runs apart.
    inputs["matrix"] = "${{ toJSON(inputs) }}"
    assert step["with"] == {**inputs, "token": "${{ secrets.token || github.token }}"}
    # A path of the called workflow's machine, and what only jobs that share a run need.
    outputs = action["outputs"].keys() - {"python", "matrix"}
    assert workflow["jobs"]["pipeline"]["outputs"] == {n: f"${{{{ steps.run.outputs.{n} }}}}" for n in outputs}
    assert {n: given["value"] for n, given in call["outputs"].items()} == {
        n: f"${{{{ jobs.pipeline.outputs.{n} }}}}" for n in outputs
    }


def tables(page: Path, kind: str) -> list[list[list[str]]]:
    """The tables of a page whose first column is called so, each as its rows' cells, without the head."""
    found: list[list[list[str]]] = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        if line.startswith(f"| {kind} |"):
            inside = True
            found.append([])
        elif not line.startswith("|"):
            inside = False
        elif inside and set(line) - set("|- "):
            found[-1].append(cells)
    return found


@pytest.mark.parametrize("kind", ["input", "output"])
def test_the_tables_are_those_of_the_action(kind: str) -> None:
    """The reference page names every input with its default, and every output; no page names another."""
    known = parsed(ACTION)[f"{kind}s"]
    (reference,) = tables(ROOT / "docs" / "reference" / "action.md", kind)
    assert [row[0] for row in reference] == list(known)
    if kind == "input":
        defaults = [str(given.get("default", "")).removeprefix("${{ ").removesuffix(" }}") for given in known.values()]
        assert [row[-1] for row in reference] == defaults
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for table in tables(page, kind):
            assert {row[0] for row in table} <= known.keys(), page.name


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))], ids=named)
def test_what_pages_show_is_right(page: Path) -> None:
    """Each YAML block of a page can be read, and uses the action and the reusable workflow by inputs that they have."""
    reusable = parsed(REUSABLE)["on"]["workflow_call"]["inputs"]
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        shown = [yaml.safe_load(textwrap.dedent(block))]
        while shown:
            match shown.pop():
                case {"uses": str(used), "with": dict(given)} if used.startswith("runnable/action/"):
                    assert given.keys() <= reusable.keys()
                case {"uses": str(used), "with": dict(given)} if used.startswith("runnable/action@"):
                    assert given.keys() <= parsed(ACTION)["inputs"].keys()
                case dict(table):
                    shown += table.values()
                case list(items):
                    shown += items


def results_of(results: Mapping[str, str], tmp_path: Path) -> tuple[int, str]:
    """The exit code and the summary of the self-test's last job, where the others ended so."""
    (step,) = parsed(SELFTEST)["jobs"]["results"]["steps"]
    needs = json.dumps({job: {"result": result, "outputs": {}} for job, result in results.items()})
    summary = tmp_path / "summary.md"
    environ = {"PATH": os.environ["PATH"], "NEEDS": needs, "GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], env=environ, capture_output=True, timeout=30)
    return done.returncode, summary.read_text(encoding="utf-8")


def test_the_self_test_says_in_one_table_what_passed(tmp_path: Path) -> None:
    """Its last job waits for all others, also for those that fail, and fails with one that did not succeed."""
    jobs = parsed(SELFTEST)["jobs"]
    last = jobs["results"]
    assert last["if"].startswith("always() &&")
    assert set(last["needs"]) == jobs.keys() - {"results", "part"}
    assert results_of(dict.fromkeys(last["needs"], "success"), tmp_path)[0] == 0
    for result in ("failure", "cancelled", "skipped"):
        folder = tmp_path / result
        folder.mkdir()
        code, summary = results_of({**dict.fromkeys(last["needs"], "success"), "prune": result}, folder)
        assert code == 1
        assert summary.startswith("| part | result |\n| --- | --- |\n| publish | success |\n")
        assert f"| prune | {result} |\n" in summary


def test_the_self_test_fails_and_resumes(tmp_path: Path) -> None:
    """The pipeline of the self-test fails at the attempt that it is told, and its first step is not run again."""
    folder = ROOT / "tests" / "pipelines" / "selftest"
    files = {name: (folder / name).read_text(encoding="utf-8") for name in ("runnable.toml", "objects.py")}
    project = workspace(tmp_path, files)
    project.runnable("run", "-p", "fails_at_attempt=1", code=1, GITHUB_RUN_ATTEMPT="1", GITHUB_JOB="publish")
    project.runnable("retry", "latest", GITHUB_RUN_ATTEMPT="2", GITHUB_JOB="publish")
    assert project.read("made.txt") == "attempt 1 of publish\n"
