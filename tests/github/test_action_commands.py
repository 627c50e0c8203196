"""The action's own steps as the runner starts them, with a real registry: what they run, put out, publish and say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from action_steps import PIPELINE, Repository
from cli import Workspace, elsewhere, workspace
from registry_server import Reply, Seen, Served, password_registry, registry, serving
from support import wait_until

from runnable_ci.errors import UsageError
from runnable_ci.github.action.begin import parameters

SLOW = """
[steps.quick]
run = "echo done > quick.txt"
catalog = { put = ["quick.txt"] }
[steps.slow]
run = "trap '' INT; echo started; sleep 60"
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path, served: Served) -> Repository:
    return Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE})


def test_a_failed_run_is_published_and_told(repository: Repository) -> None:
    """The step's exit code is the pipeline's; outputs and summary say what happened and how to go on."""
    action, project = repository.job()
    ran = action.all()
    assert ran.code == 1
    outputs = action.outputs["finish"]
    assert action.outputs["run"] == {"run-id": "train-1000"}
    assert (outputs["status"], outputs["failed-step"]) == ("FAIL", "fit")
    assert json.loads(outputs["metrics"]) == {"rows": 3}
    assert outputs["reference"] == f"{repository.registry}:train-1000@{outputs['digest']}"
    assert outputs["retry-command"] == f"runnable-ci retry {outputs['reference']}"
    assert outputs["unpublished-store"] == ""
    assert outputs["retry-command"] in action.summary
    assert project.runnable("runs", "--from", repository.registry).out.count("train-1000") == 1


def test_the_graph_has_steps_that_were_never_tried(repository: Repository) -> None:
    """A skipped step hangs on the one that failed, though the run log has no attempt of it."""
    pipeline = PIPELINE + '[steps.report]\nneeds = ["fit"]\nrun = "true"\n'
    action, _ = repository.job(files={"runnable.toml": pipeline})
    assert action.all().code == 1
    assert 's2["report"]:::skipped\ns0 --> s1\ns1 --> s2\n' in action.summary


def test_a_native_re_run_resumes_the_job(repository: Repository) -> None:
    """Attempt 2 finds the run of attempt 1 by itself, runs only what failed, and has all files for later steps."""
    action, first = repository.job()
    assert action.all().code == 1
    again, second = repository.job(attempt=2, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert second.read("data.txt") == first.read("data.txt") != ""
    log = second.log("train-1000")
    assert [len(step.attempts) for step in log.steps.values()] == [1, 2]
    assert again.outputs["finish"]["status"] == "SUCCESS"


READING = """
[steps.rows]
needs = []
run = "wc -l < data/rows.csv > rows.txt"
catalog = { put = ["rows.txt"] }
[steps.words]
needs = []
python = "words:count"
returns = ["words"]
[steps.list]
needs = []
run = "ls pages"
[steps.report]
needs = ["rows", "words"]
run = "cat rows.txt; cat notes.md; echo $words"
[steps.deploy]
needs = ["report"]
run = 'test -n "$FIXED"'
"""
WORDS = "from pathlib import Path\n\ndef count():\n    return len(Path('words.txt').read_text().split())\n"


def checkout(origin: Workspace, tmp_path: Path, name: str) -> Workspace:
    """What `actions/checkout` gives on another machine: one commit, of a repository that another folder has."""
    made = elsewhere(origin, tmp_path, name)
    made.git("remote", "set-url", "origin", "https://github.com/octo/flowers")
    return made


def attempts(project: Workspace) -> list[int]:
    """How many attempts each step had in the job's run."""
    return [len(step.attempts) for step in project.log("train-1000").steps.values()]


def test_a_native_re_run_decides_by_what_was_read(repository: Repository, tmp_path: Path) -> None:
    """On a fresh checkout what attempt 1 read, as published, says which steps run; the summary has the reasons."""
    files = {
        "runnable.toml": READING,
        "words.py": WORDS,
        "words.txt": "a b\n",
        "data/rows.csv": "1\n2\n",
        "pages/a.md": "",
        "notes.md": "1\n",
        ".gitignore": ".runnable/\n__pycache__/\nrows.txt\n",
    }
    origin = workspace(tmp_path, files, name="origin")

    def job(attempt: int, *, code: int, **variables: str) -> tuple[str, Workspace]:
        at = checkout(origin, tmp_path, f"machine-{attempt}")
        action, machine = repository.job(attempt=attempt, at=at, variables=variables, args="--jobs 1")
        ran = action.all()
        assert ran.code == code, ran.text
        return action.summary, machine

    _, machine = job(1, code=1)
    assert attempts(machine) == [1, 1, 1, 1, 1]
    unchanged = [f"| ♻️ `{name}` | reused |" for name in ("rows", "words", "list", "report")]

    summary, machine = job(2, code=1)
    assert attempts(machine) == [1, 1, 1, 1, 2]
    assert [row for row in unchanged if row not in summary] == []
    assert summary.count("| unchanged since attempt 1 |") == 4
    assert "data/rows.csv" in machine.runnable("show", "train-1000", "rows", "--reads").out

    origin.write({"README.md": "nobody reads this\n", "data/unread.csv": "1\n"})  # the branch moved
    origin.commit()
    summary, machine = job(3, code=1)
    assert attempts(machine) == [1, 1, 1, 1, 3]
    assert summary.count("| unchanged since attempt 1 |") == 4
    assert "attempt 2 failed" in summary

    origin.write({"words.txt": "a b c\n", "pages/b.md": ""})
    origin.commit()
    summary, machine = job(4, code=0, FIXED="1")
    assert attempts(machine) == [1, 2, 2, 2, 4]
    rows = [line.replace("\\", "") for line in summary.splitlines() if line.startswith(("| ♻️", "| ✅"))]
    assert [row.split(" | ")[-1].removesuffix(" |") for row in rows] == [
        "unchanged since attempt 1",
        "words.txt changed, which it read",
        "b.md is new in pages, which it listed",
        "parameter words changed: 2 → 3",
        "attempt 3 failed: exit code 1",
    ]


def test_a_job_that_shall_not_resume_starts_again(repository: Repository) -> None:
    """With `resume: never` attempt 2 runs all steps, as a run of its own, also where the store was kept."""
    first, project = repository.job(resume="never")
    assert first.all().code == 1
    project.write({"fixed": ""})
    again, _ = repository.job(attempt=2, resume="never", at=project)
    assert again.all().code == 0
    assert again.outputs["run"]["run-id"] == "train-1000-attempt2"
    assert [len(step.attempts) for step in project.log("train-1000-attempt2").steps.values()] == [1, 1]


def test_legs_of_a_matrix_have_runs_of_their_own(repository: Repository) -> None:
    """Each leg's run id is its own, and the same one in the next attempt."""
    legs = [{"python": "3.11"}, {"python": "3.12"}]
    ids = []
    for attempt in (1, 2):
        for leg in legs:
            action, _ = repository.job(attempt=attempt, matrix=leg)
            action.all()
            ids.append(action.outputs["run"]["run-id"])
    assert ids[:2] == ids[2:]
    assert len(set(ids)) == 2


def test_a_retry_with_a_fix(repository: Repository) -> None:
    """The retry job pulls the run, resumes it with changed parameters, and publishes under the same id."""
    action, first = repository.job()
    assert action.all().code == 1
    retry, second = repository.job(
        files={"fixed": ""}, command="retry", run_id="train-1000", parameters='{"rate": 5}', args="--jobs 1"
    )
    retry.environ["GITHUB_RUN_ID"] = "1001"
    ran = retry.all()
    assert ran.code == 0, ran.text
    assert "rate 5" in ran.text
    assert retry.outputs["run"] == {"run-id": "train-1000"}
    assert second.read("data.txt") == first.read("data.txt")
    forced, third = repository.job(files={"fixed": ""}, command="retry", run_id="latest", from_step="load")
    assert forced.all().code == 0
    assert third.read("data.txt") != first.read("data.txt")


def test_a_run_is_published_when_it_is_wanted(repository: Repository) -> None:
    """`never` publishes nothing; `on-failure` only what failed."""
    never, project = repository.job(publish="never", run_id="a1")
    assert never.all().code == 1
    assert never.outputs["finish"]["reference"] == never.outputs["finish"]["unpublished-store"] == ""
    good, _ = repository.job(publish="on-failure", run_id="a2", files={"fixed": ""})
    assert good.all().code == 0
    assert good.outputs["finish"]["reference"] == ""
    bad, _ = repository.job(publish="on-failure", run_id="a3")
    assert bad.all().code == 1
    assert bad.outputs["finish"]["reference"]
    later, _ = repository.job(at=project, command="publish", run_id="a1")
    assert later.all().code == 0
    assert later.outputs["finish"]["reference"].startswith(f"{repository.registry}:a1@")


def test_a_run_can_be_pulled(repository: Repository) -> None:
    """A job that only pulls has the run here and its outputs, and publishes nothing."""
    assert repository.job()[0].all().code == 1
    pulling, project = repository.job(command="pull", run_id="train-1000")
    assert pulling.all().code == 0
    assert pulling.outputs["finish"]["status"] == "FAIL"
    assert "read" in project.runnable("logs", "train-1000", "load").out


def test_a_pull_request_from_a_fork(repository: Repository) -> None:
    """The pipeline runs and decides the exit code; nothing is published, and the run is kept another way."""
    event = {"pull_request": {"head": {"repo": {"full_name": "someone/flowers"}, "sha": "1" * 40}}}
    variables = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge"}
    action, project = repository.job(files={"fixed": ""}, event=event, variables=variables, run_id="fork-1")
    ran = action.all()
    assert ran.code == 0
    assert "::warning title=Not published%3A the pull request comes from a fork::" in ran.text
    assert "comes from a fork" in action.summary
    assert action.outputs["finish"]["unpublished-store"] == str(project.store)
    assert "fork-1" not in project.runnable("runs", "--from", repository.registry).out


def test_a_checkout_of_another_user_is_known(repository: Repository) -> None:
    """As in a container job: its code is recorded, with nothing configured."""
    action, project = repository.job(variables={"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}, files={"fixed": ""})
    ran = action.all()
    assert ran.code == 0, ran.text
    assert "the code of this run is not known" not in ran.text
    code = project.log().code()
    assert code
    assert code.code_identifier == project.git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"GIT_CONFIG_PARAMETERS": "no setting"}, "git rev-parse failed: "),
        ({"GIT_CEILING_DIRECTORIES": "/"}, ""),
        ({"GIT_DIR": "/nowhere"}, ""),
    ],
)
def test_code_that_is_not_known_is_a_warning(repository: Repository, variables: dict[str, str], why: str) -> None:
    """Where git refuses, log, annotations and summary say why; a repository that is only oddly configured is known."""
    action, _ = repository.job(variables=variables, files={"fixed": ""})
    ran = action.all()
    assert ran.code == 0, ran.text
    assert ("::warning title=the code of this run is not known::" in ran.text) == bool(why)
    assert ("Code: **not known**" in action.summary) == bool(why)
    assert why in action.summary.replace("\\", "")
    assert "uncommitted" not in action.summary


def test_more_metrics_than_an_output_holds(tmp_path: Path, served: Served) -> None:
    """The output has those that fit, the log's last line the first ones; what is left out is said, and where it is."""
    pipeline = """
name = "flowers"
[steps.measure]
run = '''
echo "loss=0.5" >> "$RUNNABLE_OUTPUT"
echo "matrix={$(seq -f '"k%.0f": 0.5' -s ', ' 60000)}" >> "$RUNNABLE_OUTPUT"
'''
returns = { matrix = "metric", loss = "metric" }
"""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": pipeline})
    action, _ = repository.job()
    ran = action.all()
    assert ran.code == 0, ran.text[:2000]
    outputs = action.outputs["finish"]
    assert json.loads(outputs["metrics"])["loss"] == 0.5
    assert sum(map(len, outputs.values())) < 200_000
    assert max(map(len, ran.text.splitlines())) < 8_000
    assert "::warning title=The output `metrics` is not complete" in ran.text
    assert f"`runnable-ci show {outputs['run-id']} --json`" in ran.text


def test_a_workspace_without_git_is_a_warning(tmp_path: Path, served: Served) -> None:
    """Where git is not installed actions/checkout unpacks an archive."""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE, "fixed": ""})
    action, project = repository.job()
    shutil.rmtree(project.folder / ".git")
    ran = action.all()
    assert ran.code == 0, ran.text
    assert "::warning title=the code of this run is not known::not a git repository" in ran.text
    assert "Code: **not known**" in action.summary


def test_a_registry_that_refuses_at_the_end_only(tmp_path: Path) -> None:
    """A right that was lost in between is a warning with the YAML that grants it; the exit code is the pipeline's."""
    with (
        password_registry(tmp_path / "registry") as closed,
        registry(tmp_path / "open") as served,
        serving(upstream=served) as server,
    ):
        repository = Repository(tmp_path, server.repository(), {"runnable.toml": PIPELINE, "fixed": ""})
        action, project = repository.job()
        assert action.step("run").code == 0
        server.upstream = closed.host
        ran = action.step("finish")
    assert ran.code == 0, ran.text
    assert "packages: write" in action.summary
    assert "packages: write" in ran.text
    assert action.outputs["finish"]["unpublished-store"] == str(project.store)


def test_a_registry_that_is_down(tmp_path: Path) -> None:
    """The pipeline runs; why nothing was published is said."""
    repository = Repository(tmp_path, "127.0.0.1:9/octo/flowers", {"runnable.toml": PIPELINE, "fixed": ""})
    action, _ = repository.job()
    ran = action.all()
    assert ran.code == 0, ran.text
    assert "Not published" in action.summary


def test_a_step_that_is_named_like_an_outcome(tmp_path: Path, served: Served) -> None:
    """A run that failed at a step named `cancelled_orders` is one that failed."""
    pipeline = "name = 'flowers'\n[steps.cancelled_orders]\nrun = 'exit 3'\n"
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": pipeline})
    action, project = repository.job()
    assert action.all().code == 1
    assert action.summary.startswith("## ❌ `flowers` failed at `cancelled_orders`\n")
    assert project.log().outcome == "failed"


def test_a_cancelled_job(tmp_path: Path, served: Served) -> None:
    """Of a job that is cancelled while a step ignores the signal the run log is whole and published in time."""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": SLOW})
    action, project = repository.job()
    process = action.start("run")
    said = project.store / "runs/train-1000/logs/slow.1.log"
    wait_until(lambda: said.exists() and "started" in said.read_text(), "the step")
    ended, by = action.cancel("run", process)
    assert by.name == "SIGINT", ended.text
    assert ended.code == 130
    assert action.step("finish").code == 0
    assert action.outputs["finish"]["status"] == "FAIL"
    assert action.outputs["finish"]["reference"]
    log = project.log("train-1000")
    assert (log.outcome, log.message) == ("cancelled", "cancelled by SIGINT")
    assert [step.outcome for step in log.steps.values()] == ["succeeded", "cancelled"]
    assert " was cancelled\n" in action.summary
    action.upload()
    again, _ = repository.job(attempt=2, files={"runnable.toml": PIPELINE})
    again.all()
    assert "attempt 2 resumes run `train-1000`" in again.summary.replace("\\", "")
    assert "the run of attempt 1 was cancelled" in again.summary


def test_a_killed_job(tmp_path: Path, served: Served) -> None:
    """Of a run that was killed outright, the log says so, and it is published."""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": SLOW})
    action, project = repository.job()
    process = action.start("run")
    said = project.store / "runs/train-1000/logs/slow.1.log"
    wait_until(lambda: said.exists() and "started" in said.read_text(), "the step")
    process.kill()
    process.communicate(timeout=30)
    action.outputs["run"] = {"run-id": "train-1000"}
    assert action.step("finish").code == 0
    log = project.log("train-1000")
    assert (log.outcome, log.interrupted) == ("interrupted", True)
    assert action.outputs["finish"]["reference"]


def test_a_pipeline_that_cannot_be_used(repository: Repository) -> None:
    """A mistake in the pipeline file is the step's error, exit code 2; the summary says that nothing ran."""
    action, _ = repository.job(files={"runnable.toml": "[steps.a]\nrum = 'x'"})
    ran = action.all()
    assert ran.code == 2
    (said,) = [line for line in ran.text.splitlines() if line.startswith("::error ")]
    assert said.startswith(
        "::error file=runnable.toml,line=2,title=runnable-ci::runnable.toml:2: [steps.a] unknown key `rum`%0A"
    )
    assert "did not start" in action.summary
    assert "unknown key" in action.summary
    assert action.outputs["finish"] == {"status": "FAIL"}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"command": "retyr"}, "input command"),
        ({"resume": "sometimes"}, "input resume"),
        ({"command": "retry"}, "run-id"),
        ({"from_step": "fit"}, "from-step"),
        ({"parameters": '{"rate": '}, "input parameters"),
        ({"parameters": "rate"}, "name=value"),
        ({"args": "--jobs '"}, "input args"),
        ({"container_image_digest": "python:3.11"}, "CONTAINER_IMAGE_DIGEST"),
        ({"command": "retry", "run_id": "no-such-run"}, "no-such-run"),
        ({"command": "retry", "run_id": "--help"}, "--help"),
    ],
)
def test_wrong_inputs(repository: Repository, inputs: dict[str, str], said: str) -> None:
    """Each is an error that names the input, with exit code 2, and nothing runs."""
    action, project = repository.job(given=inputs)
    ran = action.all()
    assert ran.code == 2, ran.text
    assert said in ran.text
    assert "Traceback" not in ran.text
    assert not project.read("data.txt")


def test_the_container_is_recorded(repository: Repository) -> None:
    """In a container's job each attempt names the image beside the commit."""
    image = f"ghcr.io/octo/tools@sha256:{'a' * 64}"
    action, project = repository.job(files={"fixed": ""}, container_image_digest=image)
    assert action.all().code == 0
    git, docker = project.log("train-1000").steps["fit"].attempts[0].code_identities
    assert (git.code_identifier_type, docker.code_identifier_type) == ("git", "docker")
    assert (docker.code_identifier, docker.code_identifier_url) == (f"sha256:{'a' * 64}", "ghcr.io/octo/tools")


def test_metrics_are_compared_with_the_base_branch(repository: Repository) -> None:
    """The summary of a pull request shows how its metrics differ from the last run on the base branch."""
    assert repository.job(files={"fixed": ""}, run_id="on-main")[0].all().code == 0
    event = {"pull_request": {"head": {"repo": {"full_name": "octo/flowers"}, "sha": "1" * 40}}}
    variables = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge", "GITHUB_BASE_REF": "main"}
    files = {"fixed": "", "runnable.toml": PIPELINE.replace("rows=3", "rows=5")}
    action, project = repository.job(files=files, event=event, variables=variables, run_id="on-branch")
    assert action.all().code == 0
    assert "on-main" in action.summary
    assert "+2" in action.summary
    assert project.runnable("runs", "--from", repository.registry).out.count("\n") == 3


def test_a_fix_from_elsewhere_is_not_the_branchs_newest_run(repository: Repository) -> None:
    """A retry that starts on main and checks out another commit does not become what main's runs are compared with."""
    first, project = repository.job(files={"fixed": ""}, run_id="on-main")
    first.environ["GITHUB_SHA"] = project.git("rev-parse", "HEAD")
    assert first.all().code == 0
    files = {"fixed": "", "runnable.toml": PIPELINE.replace("rows=3", "rows=5")}
    fix, _ = repository.job(files=files, variables={"GITHUB_SHA": first.environ["GITHUB_SHA"]}, run_id="the-fix")
    assert fix.all().code == 0
    last, _ = repository.job(files={"fixed": ""}, run_id="last")
    assert last.all().code == 0
    assert "on-main" in last.summary
    assert "the-fix" not in last.summary


@pytest.mark.promise
def test_steps_get_nothing_of_the_action(repository: Repository) -> None:
    """Neither the token nor an input is in a step's environment."""
    pipeline = "[steps.look]\nrun = 'env | sort'"
    action, _ = repository.job(files={"runnable.toml": pipeline}, parameters="seed=7")
    ran = action.all()
    assert ran.code == 0, ran.text
    shown = "".join(line for line in ran.text.splitlines() if not line.startswith("::add-mask::"))
    assert "t0K3n" not in shown
    assert "RUNNABLE_CI_ACTION" not in shown
    assert "seed=7" in shown


@pytest.mark.promise
def test_secrets_are_masked_and_stored_nowhere(repository: Repository) -> None:
    """A named variable's value is told to the runner before anything else; neither log, summary nor store has it."""
    pipeline = "[steps.leak]\nrun = 'echo \"it is $DEPLOY_WORD\"; exit 3'"
    variables = {"DEPLOY_WORD": "first-l1ne\nsecond-l1ne"}
    action, project = repository.job(
        files={"runnable.toml": pipeline}, variables=variables, given={"secrets": "GITHUB_TOKEN, DEPLOY_WORD"}
    )
    ran = action.all()
    assert ran.code == 1, ran.text
    shown = ran.text.splitlines()
    masks = [line for line in shown if line.startswith("::add-mask::")]
    assert {"::add-mask::first-l1ne", "::add-mask::second-l1ne"} <= set(masks)
    assert shown[: len(masks)] == masks
    assert "l1ne" not in "".join(shown[len(masks) :]) + action.summary + json.dumps(action.outputs)
    assert not [path for path in project.store.rglob("*") if path.is_file() and b"l1ne" in path.read_bytes()]


def test_what_a_step_masks_is_stored_nowhere(repository: Repository) -> None:
    """The runner gets the mask; neither log, summary, outputs nor store has the value, of whichever step."""
    pipeline = """
[steps.login]
run = '''
T=$(printf 'dyn-%s-SECRETX' 7f3a9c21)
echo "early $T"; sleep 0.05; echo "::add-mask::$T"; echo "logged in with $T"; echo "tok=$T" >> $RUNNABLE_OUTPUT
'''
returns = ["tok"]
[steps.use]
run = 'echo "using $tok" >&2; echo "::error::$tok"; exit 3'
"""
    action, project = repository.job(files={"runnable.toml": pipeline})
    ran = action.step("run")
    assert ran.code == 1, ran.text
    finished = action.step("finish")
    value = "dyn-7f3a9c21-SECRETX"
    lines = ran.text.splitlines()
    mask = lines.index(f"::add-mask::{value}")
    assert value not in "".join(lines[mask + 1 :]) + finished.text + action.summary + json.dumps(action.outputs)
    assert "using ***" in action.summary
    assert not [path for path in project.store.rglob("*") if path.is_file() and value.encode() in path.read_bytes()]
    assert action.outputs["finish"]["reference"]


@pytest.mark.parametrize("command", ["run", "publish"])
@pytest.mark.parametrize(
    ("secrets", "right"),
    [
        ("DB_CON", "did you mean `DB_CONN`?"),
        ("$DB_CONN", "write DB_CONN: names alone"),
        ("secrets.DB_CONN", "write DB_CONN: names alone"),
        ("DB_CONN;PATH", "write DB_CONN, PATH: names alone"),
        ("hunter2-hunter2", "this is the value of `DB_CONN`"),
        ("correct-horse-42", "entry 1 names no variable"),
    ],
)
def test_a_secret_that_is_none_is_an_error(repository: Repository, secrets: str, right: str, command: str) -> None:
    """Before a step runs, and with the right spelling; what may be the secret itself is not shown."""
    action, project = repository.job(
        files={"runnable.toml": "[steps.leak]\nrun = 'touch ran; echo $DB_CONN'"},
        variables={"DB_CONN": "hunter2-hunter2"},
        given={"secrets": secrets, "command": command},
    )
    ran = action.step("run")
    assert ran.code == 2, ran.text
    assert right in ran.text
    assert not (project.folder / "ran").exists()
    shown = "".join(line for line in ran.text.splitlines() if not line.startswith("::add-mask::"))
    assert "hunter2" not in shown
    assert "correct-horse" not in shown


def test_a_secret_that_is_empty_is_none(repository: Repository) -> None:
    """In a pull request from a fork the variable is set, and holds nothing."""
    action, _ = repository.job(variables={"DB_CONN": ""}, given={"secrets": "DB_CONN"}, files={"fixed": ""})
    assert action.step("run").code == 0


def test_parameters_are_json_or_lines() -> None:
    """JSON is values of their types; a line is as on the command line."""
    assert parameters('{"a": 1, "b": "x y", "c": [1, null], "version": "1.10"}') == (
        {"a": 1, "b": "x y", "c": [1, None], "version": "1.10"},
        [],
    )
    assert parameters("a=1\r\n# not this\n\n  b=x\u2028y\n") == ({}, ["a=1", "b=x\u2028y"])
    assert parameters("") == parameters("{}") == ({}, [])
    for wrong in ("{", '{"a=b": 1}', "{" * 100_000):
        with pytest.raises(UsageError, match="input parameters"):
            parameters(wrong)


def test_parameters_arrive_as_they_were_given(repository: Repository) -> None:
    """Whatever is in a text, its type stays; they count before variables, and beside a parameter file of the user's."""
    values = {"rate": 5, "text": "1.10", "quote": "a\"b'c $d `e` é\n=", "list": [1, {"x": None}]}
    action, project = repository.job(
        files={"fixed": "", "mine.toml": "rate = 1\nmine = 2"},
        parameters=json.dumps(values),
        args="--params-file mine.toml",
        variables={"RUNNABLE_PRM_rate": "9", "RUNNABLE_PRM_other": "3"},
    )
    ran = action.all()
    assert ran.code == 0, ran.text
    assert "rate 5" in ran.text
    log = json.loads(project.runnable("show", "latest", "--json").out)
    assert log["invocations"][0]["parameters"] == {**values, "mine": 2, "other": 3}


def test_jobs_of_one_workflow_have_runs_of_their_own(repository: Repository) -> None:
    """Also where their names differ only in what is cut, or in what no run id may have."""
    names = ("train", "train-a", "train_a", "integration-tests-linux-x86-64", "integration-tests-linux-arm64")
    ids = []
    for name in names:
        action, _ = repository.job(variables={"GITHUB_JOB": name})
        action.step("run")
        ids.append(action.outputs["run"]["run-id"])
    assert ids[:2] == ["train-1000", "train-a-1000"]
    assert len(set(ids)) == len(names)


def test_the_registry_is_that_of_the_pipeline_file(repository: Repository) -> None:
    """Of several pipelines in one folder each has its own."""
    files = {
        "train.toml": f'registry = "{repository.registry}"\n{PIPELINE}',
        "runnable.toml": f'registry = "127.0.0.1:9/another/one"\n{PIPELINE}',
    }
    action, _ = repository.job(files=files, pipeline="train.toml", given={"registry": ""})
    assert action.all().code == 1
    assert action.outputs["finish"]["reference"].startswith(f"{repository.registry}:")


def test_a_secret_in_a_notice_is_in_no_summary(tmp_path: Path) -> None:
    """Markdown's escapes do not hide it from what takes secrets out."""
    repository = Repository(tmp_path, "127.0.0.1:9/my-s3cret_host.x9/runs", {"runnable.toml": PIPELINE, "fixed": ""})
    action, _ = repository.job(variables={"PLACE": "my-s3cret_host.x9"}, secrets="PLACE")
    assert action.all().code == 0
    assert "Not published" in action.summary
    assert "s3cret" not in action.summary


def test_a_branch_that_cannot_be_marked(tmp_path: Path, served: Served) -> None:
    """A run that is published is not said to be not published, though its branch's tag is refused."""

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        return Reply(403) if seen.method == "PUT" and "_branch" in seen.path else forward()

    with serving(hook, upstream=served) as server:
        repository = Repository(tmp_path, server.repository(), {"runnable.toml": PIPELINE, "fixed": ""})
        action, _ = repository.job()
        assert action.all().code == 0
    assert action.outputs["finish"]["reference"]
    assert "Not published" not in action.summary
    assert "not compared" in action.summary


def test_a_run_that_did_not_start_is_not_shown_as_running(repository: Repository) -> None:
    """The summary of a job whose run cannot be pulled says that it failed, and draws no step at work."""
    action, _ = repository.job(command="retry", run_id="no-such-run")
    assert action.all().code == 2
    assert "## ❌ `run` failed" in action.summary
    assert "has not ended" not in action.summary
    assert ":::running" not in action.summary


def test_args_serve_a_run_and_its_re_run(repository: Repository) -> None:
    """What only `run` or only `retry` knows is left away where the job does the other."""
    given = {"args": "--jobs 1 --rerun-changed --tag nightly"}
    assert repository.job(given=given)[0].all().code == 1
    again, project = repository.job(attempt=2, files={"fixed": ""}, given=given)
    ran = again.all()
    assert ran.code == 0, ran.text
    assert project.log("train-1000").tag == "nightly"


def test_args_do_not_replace_inputs(repository: Repository) -> None:
    """What the action itself decides is refused there, with the input's name."""
    action, _ = repository.job(args="--run-id=other")
    ran = action.all()
    assert ran.code == 2
    assert "use the input run-id" in ran.text


def test_a_command_that_never_began_has_no_success(repository: Repository) -> None:
    """A retry of a finished run that is refused is a failure, in the outputs and in the summary, with its reason."""
    assert repository.job(files={"fixed": ""})[0].all().code == 0
    action, _ = repository.job(files={"fixed": ""}, command="retry", run_id="train-1000", from_step="nope")
    assert action.all().code == 2
    assert action.outputs["finish"] == {"status": "FAIL"}
    assert "has no such step" in action.summary
    assert "succeeded" not in action.summary


def test_a_pull_that_is_forbidden(tmp_path: Path) -> None:
    """A retry without the permission to pull fails with the YAML that grants it, in the summary too."""
    with password_registry(tmp_path / "registry") as closed:
        repository = Repository(tmp_path, closed.repository(), {"runnable.toml": PIPELINE})
        action, _ = repository.job(command="retry", run_id="train-1000")
        assert action.all().code == 1
    assert "packages: write" in action.summary
    assert action.outputs["finish"]["status"] == "FAIL"


def test_a_re_run_of_a_retry_goes_on(repository: Repository) -> None:
    """`from-step` counts once: what the job's first attempt has run from there is not run again."""
    assert repository.job()[0].all().code == 1
    for attempt, fixed in ((1, {}), (2, {"fixed": ""})):
        retry, project = repository.job(
            attempt=attempt, files=fixed, command="retry", run_id="train-1000", from_step="load"
        )
        retry.environ["GITHUB_RUN_ID"] = "1001"
        assert retry.all().code == (0 if fixed else 1)
    assert [len(step.attempts) for step in project.log("train-1000").steps.values()] == [2, 3]


def test_a_run_has_no_token(repository: Repository) -> None:
    """A step that looks into the process that started it finds no token there."""
    look = '[steps.look]\nrun = \'tr "\\0" "\\n" < /proc/$PPID/environ | sed s/t0K3n/found/\''
    action, _ = repository.job(files={"runnable.toml": look})
    action.is_quick = False
    ran = action.all()
    assert ran.code == 0, ran.text
    assert "GITHUB_JOB=train" in ran.text
    assert "found" not in ran.text


NIGHTLY = PIPELINE.replace("flowers", "nightly")
TWO = {"runnable.toml": 'name = "main"\n[steps.deploy]\nrun = "touch deployed"\n', "ml/nightly.toml": NIGHTLY}


def test_a_retry_is_of_the_run_s_own_pipeline_file(repository: Repository) -> None:
    """A dispatched retry knows its file from the run alone, publishes from that file's store, and shows its graph."""
    first, _ = repository.job(files=TWO, pipeline="ml/nightly.toml", run_id="n1")
    assert first.all().code == 1
    retried, project = repository.job(files={**TWO, "ml/fixed": ""}, command="retry", run_id="n1")
    ran = retried.all()
    assert ran.code == 0, ran.text
    assert not (project.folder / "deployed").exists()
    assert retried.outputs["run"] == {"run-id": "n1", "pipeline": "ml/nightly.toml"}
    assert retried.outputs["finish"]["reference"].startswith(f"{repository.registry}:n1@")
    assert json.loads(project.runnable("show", "n1", "--json", "--store", "ml").out)["name"] == "nightly"
    assert 's1["fit"]' in retried.summary


@pytest.mark.parametrize("pipeline", ["runnable.toml", "nowhere.toml"])
def test_a_retry_refuses_another_pipeline_file(repository: Repository, pipeline: str) -> None:
    """A file that is named and is not the run's own is an error before anything runs; a renamed one is let pass."""
    first, _ = repository.job(files=TWO, pipeline="ml/nightly.toml", run_id="n1")
    assert first.all().code == 1
    given = {"command": "retry", "run_id": "n1", "pipeline": pipeline}
    refused, project = repository.job(files=TWO, given=given)
    ran = refused.step("run")
    assert ran.code == 2, ran.text
    wrong = "belongs to the pipeline `nightly` (ml/nightly.toml), not to `main` (runnable.toml)"
    assert (wrong if pipeline == "runnable.toml" else "there is no nowhere.toml") in ran.text
    assert not (project.folder / "deployed").exists()
    renamed = {"weekly.toml": NIGHTLY, "fixed": ""}
    allowed, project = repository.job(
        files=renamed, command="retry", run_id="n1", pipeline="weekly.toml", args="--other-pipeline"
    )
    assert allowed.all().code == 0


def test_the_newest_run_of_a_pipeline_file(repository: Repository) -> None:
    """`latest` is the newest published run; with a pipeline file, the newest of that one."""
    for run_id, files, pipeline in (("a1", TWO, "ml/nightly.toml"), ("b1", TWO, "runnable.toml")):
        repository.job(files=files, pipeline=pipeline, run_id=run_id)[0].all()
    files = {**TWO, "ml/fixed": ""}
    for pipeline, run_id in ((".", "b1"), ("ml/nightly.toml", "a1")):
        action, _ = repository.job(files=files, command="retry", run_id="latest", pipeline=pipeline)
        assert action.step("run").code == 0
        assert action.outputs["run"]["run-id"] == run_id


def test_a_pull_goes_where_the_pipeline_is(repository: Repository) -> None:
    """The run is in the store beside the pipeline file, from which the outputs are read."""
    first, _ = repository.job(files=TWO, pipeline="ml/nightly.toml", run_id="n1")
    assert first.all().code == 1
    pulling, project = repository.job(files=TWO, command="pull", run_id="n1", pipeline="ml/nightly.toml")
    assert pulling.all().code == 0
    assert pulling.outputs["finish"]["failed-step"] == "fit"
    assert project.runnable("logs", "n1", "fit", "--store", "ml").out.startswith("read ")
