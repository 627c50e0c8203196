"""Tests of the workflow that spreads a run over jobs: what GitHub reads in it, whatever a pipeline has."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support import python
from test_workflows import lint_workflows, parsed, steps

from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.github.job_graph.grouping import SHORT_S, SHORT_TOGETHER_S
from runnable_ci.github.job_graph.workflow_file import BYTES_MAX, MARK, WorkflowSource, workflow_text
from runnable_ci.github.job_graph.yaml_text import GitHubExpression, yaml_lines
from runnable_ci.pipeline.resolve import resolve

EVERYTHING = """
name = "iris"
secrets = ["API_KEY"]
[workflow]
setup = "pip install --user -r requirements.txt"
setup-action = "./.github/actions/setup"
python-version = "3.13"
on = { push = { branches = ["main", "release/**"] }, schedule = [{ cron = "0 4 * * 1" }], pull_request = {} }
[parameters]
sizes = [1, 2]
[steps.load]
run = "true"
returns = ["samples"]
[steps.clean]
run = "true"
timeout-minutes = 20
[steps.count]
run = "true"
strategy = { matrix = { kind = ["a", "b c", 3] }, max-parallel = 2 }
timeout-minutes = 10
[steps.each]
run = "true"
needs = ["clean"]
strategy = { matrix = { sample = "${{ parameters.samples }}" }, fail-fast = false }
[steps.first]
run = "true"
needs = []
strategy = { matrix = { size = "${{ parameters.sizes }}" } }
[steps.train]
run = "true"
needs = ["count", "each", "first"]
runs-on = ["self-hosted", "linux"]
[steps.report]
run = "true"
if = "always()"
[steps.boxed]
run = "true"
job = "box"
needs = ["load"]
container = { image = "alpine:3", credentials = { username = "BOX_USER", password = "BOX_TOKEN" } }
"""
STEP = '[steps.a]\nrun = "true"\n'
FOREIGN = f'registry = "registry.example.org/team/runs"\n{STEP}'
MANY = f"""
[steps.a]
run = "true"
strategy = {{ matrix = {{ v = {list(range(300))} }} }}
"""


def source_of(text: str, file: str = ".") -> WorkflowSource:
    """What a workflow is made from."""
    pipeline = resolve(tomllib.loads(text), file="runnable.toml", default_name="folder", text=text)
    return WorkflowSource(pipeline, file)


def written(tmp_path: Path, text: str, file: str = ".") -> Path:
    """The workflow of a pipeline, as a file."""
    path = tmp_path / "flow.yml"
    path.write_text(workflow_text(source_of(text, file)), encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [EVERYTHING, FOREIGN, MANY], ids=["everything", "registry", "many"])
def test_linters_find_nothing(tmp_path: Path, text: str) -> None:
    """actionlint, zizmor and GitHub's schema have nothing to say."""
    lint_workflows([written(tmp_path, text, 'my "data"/é')])


def test_jobs_have_what_they_need_and_no_more(tmp_path: Path) -> None:
    """Only jobs whose token publishes may write packages; secrets are given to the action alone."""
    file = written(tmp_path, EVERYTHING)
    table = parsed(file)
    assert table["permissions"] == {}
    assert {str(job["permissions"]) for job in table["jobs"].values()} == {"{'contents': 'read', 'packages': 'write'}"}
    secrets = {name: f"${{{{ secrets.{name} }}}}" for name in ("API_KEY", "BOX_USER", "BOX_TOKEN")}
    for step in steps(file):
        is_action = step.get("uses", "").startswith("runnable/action@")
        assert ("secrets." in str(step)) == is_action
        if is_action:
            assert step["env"] == secrets

    file = written(tmp_path, FOREIGN)
    for job in parsed(file)["jobs"].values():
        assert job["permissions"] == {"contents": "read"}
        names = ("RUNNABLE_CI_REGISTRY_USERNAME", "RUNNABLE_CI_REGISTRY_PASSWORD")
        assert job["steps"][-1]["env"] == {name: f"${{{{ secrets.{name} }}}}" for name in names}


def test_a_secret_that_github_would_not_keep_is_refused(tmp_path: Path) -> None:
    """A workflow would never have it; the job's own token is one that it has."""
    with pytest.raises(PipelineError, match="GitHub keeps no secret `GITHUB_PAT`: names that begin with `GITHUB_`"):
        written(tmp_path, f'secrets = ["KEY", "GITHUB_PAT"]\n{STEP}')
    job = parsed(written(tmp_path, f'secrets = ["GITHUB_TOKEN"]\n{STEP}'))["jobs"]["a"]
    assert job["steps"][-1]["env"] == {"GITHUB_TOKEN": "${{ secrets.GITHUB_TOKEN }}"}


def test_what_starts_it(tmp_path: Path) -> None:
    """What the file says, or pushes to main and pull requests; a person or `dispatch` always can."""
    assert list(parsed(written(tmp_path, EVERYTHING))["on"]) == [
        "push",
        "schedule",
        "pull_request",
        "workflow_dispatch",
    ]
    plain = parsed(written(tmp_path, FOREIGN))["on"]
    assert plain["push"] == {"branches": ["main"]}
    assert list(plain) == ["push", "pull_request", "workflow_dispatch"]
    assert list(plain["workflow_dispatch"]["inputs"]) == ["run-id", "ref", "parameters", "options"]
    assert parsed(written(tmp_path, f"[workflow]\non = {{ workflow_dispatch = {{}} }}\n{STEP}"))["on"] == {
        "workflow_dispatch": plain["workflow_dispatch"]
    }
    own = "{ workflow_dispatch = { inputs = { x = {} } } }"
    for wrong in (own, "{ workflow_call = {} }", '{ push = { branches = ["${{ github.ref }}"] } }'):
        with pytest.raises(PipelineError, match=r"\[workflow\] on: "):
            written(tmp_path, f"[workflow]\non = {wrong}\n{STEP}")


def test_runs_of_other_workflows_are_not_cancelled(tmp_path: Path) -> None:
    """A group is one of the whole repository: it has the workflow's name, and a pull request's number."""
    for name in ("iris", "tulips"):
        group = parsed(written(tmp_path, f"name = '{name}'\n{STEP}"))["concurrency"]["group"]
        pull = f"github.event_name == 'pull_request' && format('{name}-pull-{{0}}', github.event.number)"
        assert group == f"${{{{ inputs.run-id || {pull} || format('{name}-{{0}}', github.run_id) }}}}"


def test_a_job_has_the_time_that_its_runner_gives(tmp_path: Path) -> None:
    """GitHub's own runners end it after six hours, whatever it says; the action ends a run in time by what it says."""
    long = f"{STEP}timeout-minutes = 600\n"
    assert parsed(written(tmp_path, long))["jobs"]["a"]["timeout-minutes"] == 360
    own = parsed(written(tmp_path, f"{long}runs-on = ['self-hosted', 'gpu']\n"))["jobs"]["a"]
    assert own["timeout-minutes"] == 615


def test_the_file_says_which_steps_form_a_job(tmp_path: Path) -> None:
    """With the limits that the program has."""
    text = " ".join(written(tmp_path, STEP).read_text().replace("\n#", "").split())
    assert (
        f"`timeout-minutes` of at most {SHORT_S / 60:.0f}, as many as take {SHORT_TOGETHER_S / 60:.0f} together" in text
    )


def test_instances_are_chunks_where_they_are_many(tmp_path: Path) -> None:
    """More than GitHub takes run several to a leg."""
    job = parsed(written(tmp_path, MANY))["jobs"]["a"]
    assert job["strategy"]["matrix"]["instance"] == [f"{number}/150" for number in range(1, 151)]
    assert job["steps"][-1]["with"]["instances"] == "${{ matrix.instance }}"


def test_a_file_that_github_would_not_read_is_refused(tmp_path: Path) -> None:
    """With what helps: fewer jobs."""
    lines = [f'[steps.s{i}]\nrun = "true"\nneeds = []\n' for i in range(900)]
    with pytest.raises(PipelineError) as refused:
        written(tmp_path, "".join(lines))
    assert re.search(r"the workflow would have [\d,]+ bytes in 901 jobs; GitHub takes 500,000", str(refused.value))
    assert "hint: give steps that belong together the same `job`, or short ones a `timeout-minutes`" in str(
        refused.value
    )
    named = "".join(f'{line}job = "j{i % 9}"\n' for i, line in enumerate(lines))
    assert written(tmp_path, named).stat().st_size < BYTES_MAX


def test_a_path_that_cannot_stand_in_a_workflow_is_refused(tmp_path: Path) -> None:
    """One with a line break."""
    with pytest.raises(UsageError, match="cannot be used in a workflow"):
        written(tmp_path, FOREIGN, "a\nb")


@pytest.mark.parametrize(
    ("name", "file", "slug"),
    [
        ("iris", ".", "iris"),
        ("My Größe / x", ".", "my-gr-e-x"),
        ("${{ x }}", ".", "x"),
        ("é", ".", "pipeline"),
        (None, ".", "pipeline"),
        (None, "data/Iris", "data-iris"),
        (None, "data/nightly.toml", "data-nightly"),
        ("x" * 99, ".", "x" * 40),
    ],
)
def test_what_it_is_called(name: str | None, file: str, slug: str) -> None:
    """By the pipeline's name or place, which each clone has alike, in letters that file names and run ids take."""
    named = tomli_w.dumps({} if name is None else {"name": name})
    source = source_of(f'{named}[steps.a]\nrun = "true"\n', file)
    assert source.slug == slug
    run_id = yaml.safe_load(workflow_text(source))["jobs"]["a"]["steps"][-1]["with"]["run-id"]
    assert run_id == f"${{{{ inputs.run-id || format('{slug}-{{0}}', github.run_id) }}}}"


@pytest.mark.promise
def test_the_same_pipeline_gives_the_same_bytes() -> None:
    """Whatever the order of Python's sets is, and whoever makes it."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from test_workflow_file import EVERYTHING, source_of, workflow_text
sys.stdout.write(workflow_text(source_of(EVERYTHING)))
"""
    made = {python(code, environ={"PYTHONHASHSEED": str(seed), "PATH": "/usr/bin"}).stdout for seed in range(4)}
    assert made == {workflow_text(source_of(EVERYTHING))}


OUR_EXPRESSIONS = re.compile(
    r"github\.(run_id|ref_name|event_name == 'pull_request')|inputs\.(ref|parameters|options)"
    r"|matrix\.instance|always\(\)"
    r"|inputs\.run-id && 'always' \|\| 'auto'"
    r"|inputs\.run-id && format\('Retry \{0\}', inputs\.run-id\) \|\| ''"
    r"|inputs\.run-id \|\| (github\.event_name == 'pull_request' && format\('[a-z0-9-]+-pull-\{0\}', "
    r"github\.event\.number\) \|\| )?format\('[a-z0-9-]+-\{0\}', github\.run_id\)"
    r"|!cancelled\(\)( && !failure\(\))?|secrets\.\w+|'\$\{\{'"
)


def expressions(value: Any) -> Iterator[str]:
    """The expressions in the texts of a value, as GitHub finds them: quoted texts in them may have any sign."""
    match value:
        case dict():
            for key, item in value.items():
                assert "${{" not in str(key)
                yield from expressions(item)
        case list():
            for item in value:
                yield from expressions(item)
        case str():
            yield from (found.strip() for found in re.findall(r"\$\{\{((?:'(?:[^']|'')*'|[^'}]|\}(?!\}))*)\}\}", value))


def seen(text: str) -> str:
    """A text as GitHub gives it to a step."""
    return text.replace("${{ '${{' }}", "${{")


hostile = st.text(
    st.one_of(
        st.sampled_from(
            ["${{ github.token }}", "${{", "}}", "'", '"', "\n", "\r\n", "- run: evil", ": ", " #", "\t"]
        ).flatmap(st.sampled_from),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    min_size=1,
    max_size=30,
) | st.sampled_from(
    [
        "${{ github.token }}",
        "a: b",
        "x # y",
        "'\"\n  - run: evil",
        "\u2028\u0085\ufeff\x7f\x1b[0m",
        "!!python/object",
        "&a *a",
        "${${{ x }}{{ y }}",
        "on",
        "null",
        "1e3",
        "0x1F",
        "",
    ]
)


@pytest.mark.promise
@settings(max_examples=60, deadline=None)
@given(name=hostile, setup=hostile, value=hostile, folder=hostile, branch=hostile, version=hostile)
def test_nothing_in_a_pipeline_is_taken_for_yaml_or_an_expression(
    name: str, setup: str, value: str, folder: str, branch: str, version: str
) -> None:
    """Each text is just that text in the file; the only expressions are ours, and values of a matrix are not in it."""
    table = {
        "name": name,
        "parameters": {"p": value},
        "workflow": {
            "setup": setup,
            "python-version": version,
            "on": {"push": {"branches": [branch.replace("${{", "")]}},
        },
        "steps": {
            "a": {"run": f"echo {value.replace('${{', '')}", "env": {"V": value.replace("${{", "")}},
            "b": {"run": "true", "strategy": {"matrix": {"v": ["first", value.replace("${{", "")]}}},
        },
    }
    file = "".join(filter(str.isprintable, folder)) or "."
    text = workflow_text(source_of(tomli_w.dumps(table), file))
    assert text.startswith(f"{MARK}\n")
    found = yaml.load(text, yaml.CSafeLoader)
    assert {key for key in found if key is not True} | {"on"} == {
        *("name", "run-name", "on", "permissions", "concurrency", "jobs"),
    }
    assert list(found["jobs"]) == ["a", "b", "collect"]
    assert found["name"] == name.replace("${{", "$ {{") or not name
    assert found[True]["push"]["branches"] == [branch.replace("${{", "")]
    for job in found["jobs"].values():
        *before, action = job["steps"]
        assert seen(action["with"]["pipeline"]) == file
        assert seen(action["with"].get("python-version", "")) == version
        scripts = [step for step in before if "run" in step]
        assert [seen(step["env"]["SETUP"]) for step in scripts] == ([setup] if setup.strip() else [])
        assert all(step["run"] == 'bash -euo pipefail -c "$SETUP"' for step in scripts)
    assert [one for one in expressions(found) if not OUR_EXPRESSIONS.fullmatch(one)] == []


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        hostile | st.booleans() | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile, inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_reads_back(value: Any) -> None:
    """Any value is just that value to a reader of YAML."""
    lines = "\n".join(yaml_lines({"key": value}))
    assert yaml.load(lines, yaml.CSafeLoader) == {"key": escaped(value)}


def escaped(value: Any) -> Any:
    """A value as it is in the file: GitHub would find an expression otherwise."""
    match value:
        case dict():
            return {key: escaped(item) for key, item in value.items()}
        case list():
            return [escaped(item) for item in value]
        case str():
            return value.replace("${{", "${{ '${{' }}")
        case _:
            return value


def test_an_expression_of_ours_stays_one() -> None:
    """It is quoted where YAML would read something else."""
    lines = "\n".join(yaml_lines({"a": GitHubExpression("${{ x }}"), "b": GitHubExpression("${{ x != ':' }}")}))
    assert lines == "a: ${{ x }}\nb: \"${{ x != ':' }}\""
