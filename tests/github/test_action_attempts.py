"""Attempts of a job and what they resume: the action's steps, a real registry, artifacts that are really kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from action_steps import PIPELINE, ActionRun, Repository
from cli import Workspace, workspace
from deviations import coded, only_images
from github_api import github
from registry_server import Served, registry, serving

from runnable_ci.runs.model import RunLog

LEG = """
name = "legs"
[steps.data]
run = "echo data of $LEG > data.txt; echo one more >> made.txt"
catalog = { put = ["data.txt"] }
[steps.fit]
run = "cat data.txt; test -e fixed"
"""
INNER = "octo/flowers/.github/workflows/inner.yml@refs/heads/main"
FORK = {"pull_request": {"head": {"repo": {"full_name": "someone/flowers"}, "sha": "1" * 40}}}
OF_FORK = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_REF": "refs/pull/1/merge"}
CI = {"GITHUB_WORKFLOW_REF": "octo/flowers/.github/workflows/ci.yml@refs/heads/main"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def repository(tmp_path: Path, served: Served) -> Repository:
    return Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE})


@pytest.fixture
def legs(tmp_path: Path, served: Served) -> Repository:
    """Jobs whose runs differ in a variable alone, which the action does not see."""
    return Repository(tmp_path, served.repository(), {"runnable.toml": LEG})


def log_of(action: ActionRun, project: Workspace) -> RunLog:
    """The log of the use's run."""
    return project.log(action.outputs["finish"]["run-id"])


def attempts(action: ActionRun, project: Workspace) -> list[int]:
    """How many attempts each step of the use's run had."""
    return [len(step.attempts) for step in log_of(action, project).steps.values()]


def test_a_finished_run_is_not_resumed(repository: Repository) -> None:
    """To re-run all jobs is to begin anew; `resume: always` uses the finished run, for later steps of the job."""
    first, project = repository.job(files={"fixed": ""})
    assert first.all().code == 0
    again, _ = repository.job(attempt=2, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert again.outputs["finish"]["run-id"] == "train-1000-attempt2"
    said = "attempt 2 begins a run of its own: the run of attempt 1 succeeded"
    assert said in ran.text
    assert said in again.summary.replace("\\", "")
    always, same = repository.job(attempt=3, files={"fixed": ""}, resume="always")
    ran = always.all()
    assert "attempt 3 resumes run `train-1000-attempt2`" in ran.text
    assert ran.code == 0, ran.text
    assert same.read("data.txt") != project.read("data.txt")


def test_the_job_s_conclusion_decides(tmp_path: Path, served: Served) -> None:
    """Where GitHub tells: a job that failed after its run resumes the finished run; one that succeeded does not."""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE, "fixed": ""})
    with github() as server:
        run = server.add_run(id=1000)
        job = run.job("train")
        variables = {**server.variables, "GITHUB_REPOSITORY": "owner/repo"}

        def attempt(number: int) -> ActionRun:
            context = {"job.check_run_id": str(run.jobs[-1]["id"]), "github.token": server.token}
            action, _ = repository.job(attempt=number, variables=variables, context=context)
            ran = action.all()
            assert ran.code == 0, ran.text
            return action

        attempt(1)
        for number, conclusion, expected in (
            (2, "failure", "train-1000"),
            (3, "success", "train-1000-attempt3"),
            (4, "cancelled", "train-1000-attempt3"),
        ):
            run.end(job, conclusion)
            run.attempt = number
            job = run.job("train")
            action = attempt(number)
            assert action.outputs["finish"]["run-id"] == expected
            assert f"the job ended with {conclusion}" in action.summary.replace("\\", "")
        run.end(job, "success")


def test_a_token_that_may_not_ask_is_no_obstacle(tmp_path: Path, served: Served) -> None:
    """Without `actions: read` the run's own status decides, and that is said."""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": PIPELINE})
    with github() as server:
        variables = {**server.variables, "GITHUB_REPOSITORY": "owner/repo"}
        context = {"job.check_run_id": "7", "github.token": "ghs_anOtherT0ken"}
        assert repository.job(variables=variables, context=context)[0].all().code == 1
        again, project = repository.job(attempt=2, variables=variables, context=context, files={"fixed": ""})
        ran = again.all()
    assert ran.code == 0, ran.text
    assert "how the earlier attempts of the job ended is not known" in ran.text
    assert attempts(again, project) == [1, 2]


def test_a_registry_of_images_alone_is_resumed_from(tmp_path: Path, served: Served) -> None:
    """What such a registry holds of a run has another digest than the job's own store; the next attempt finds it."""
    switch = only_images(coded(400, "MANIFEST_INVALID"))
    with serving(switch(), upstream=served) as server:
        repository = Repository(tmp_path, server.repository(), {"runnable.toml": PIPELINE})
        ran = repository.job()[0].all()
        assert "another one there" in ran.text
        again, project = repository.job(attempt=2, files={"fixed": ""})
        ran = again.all()
        assert ran.code == 0, ran.text
        assert "attempt 2 resumes run `train-1000`" in ran.text
        assert attempts(again, project) == [1, 2]


@pytest.mark.promise
def test_legs_that_look_the_same_have_runs_of_their_own(legs: Repository) -> None:
    """The second to publish gets an id of its own, which is said; no leg resumes, and the way out is named."""
    runs = {}
    for leg in ("alpha", "beta"):
        action, project = legs.job(variables={"LEG": leg})
        ran = action.all()
        assert ran.code == 1
        outputs = action.outputs["finish"]
        assert project.runnable("catalog", outputs["run-id"], "--get", "data.txt", "--to", "got").code == 0
        assert project.read("got") == f"data of {leg}\n"
        assert outputs["reference"].startswith(f"{legs.registry}:{outputs['run-id']}@")
        runs[leg] = outputs["run-id"]
    assert runs["alpha"] == "train-1000"
    assert runs["beta"].startswith("train-1000-")
    assert "Published under another run id" in ran.text
    assert f"`{runs['beta']}`" in action.summary
    for leg in ("beta", "alpha"):
        again, project = legs.job(attempt=2, variables={"LEG": leg}, files={"fixed": ""})
        ran = again.all()
        assert ran.code == 0, ran.text
        assert "look the same to the action" in ran.text
        assert "set the input run-id" in ran.text
        assert project.read("data.txt") == f"data of {leg}\n"
        assert attempts(again, project) == [1, 1]
        runs[f"{leg} again"] = again.outputs["finish"]["run-id"]
    assert len(set(runs.values())) == 4
    listed = json.loads(legs.job()[1].runnable("runs", "--from", legs.registry, "--json").out)
    assert {run["run_id"] for run in listed} == set(runs.values())


def test_legs_that_github_tells_apart_resume_their_own(tmp_path: Path, served: Served) -> None:
    """With the jobs' names from the API each leg of a called workflow finds its own run."""
    repository = Repository(tmp_path, served.repository(), {"runnable.toml": LEG})
    with github() as server:
        run = server.add_run(id=1000)
        called = {"job.workflow_ref": INNER, "github.token": server.token}
        for attempt in (1, 2):
            run.attempt = attempt
            for leg in ("alpha", "beta") if attempt == 1 else ("beta", "alpha"):
                job = run.job(f"call ({leg}) / train")
                variables = {**CI, **server.variables, "GITHUB_REPOSITORY": "owner/repo", "LEG": leg}
                action, project = repository.job(
                    attempt=attempt,
                    variables=variables,
                    context={**called, "job.check_run_id": str(job["id"])},
                    files={"fixed": ""} if attempt == 2 else {},
                )
                ran = action.all()
                assert ran.code == 2 - attempt, ran.text
                run.end(job, "failure" if attempt == 1 else "success")
                assert project.read("data.txt") == f"data of {leg}\n"
                assert attempts(action, project) == [1, attempt]


def test_a_called_workflow_resumes_where_its_caller_is_known(repository: Repository) -> None:
    """Where the runner says that others call it: by the input `matrix` only, as a leg that never began left no note."""
    for matrix, expected in (({}, [1, 1]), ({"matrix": '{"call": "a"}'}, [1, 2])):
        context = {"job.workflow_ref": INNER}
        assert repository.job(variables=CI, context=context, given=matrix)[0].all().code == 1
        again, project = repository.job(
            attempt=2, variables=CI, context=context, given=matrix, files={"fixed": ""}, matrix=None
        )
        ran = again.all()
        assert ran.code == 0, ran.text
        assert attempts(again, project) == expected
        assert ("of a called workflow" in ran.text) is not bool(matrix)


def test_called_workflows_with_a_job_of_one_name(repository: Repository) -> None:
    """Two workflow files with a job `train` that one workflow calls have ids of their own."""
    ids = set()
    for file in ("a.yml", "b.yml"):
        context = {"job.workflow_ref": f"octo/flowers/.github/workflows/{file}@refs/heads/main"}
        action, _ = repository.job(variables=CI, context=context)
        action.step("run")
        ids.add(action.outputs["run"]["run-id"])
    assert len(ids) == 2


def test_a_second_use_without_an_id_is_an_error(legs: Repository) -> None:
    """Before anything runs; with an `id:` on the step, or a run-id, it is another run."""
    first, project = legs.job(files={"fixed": ""}, variables={"LEG": "small"})
    first.context["github.action"] = "__runnable_action"
    assert first.all().code == 0
    for context, given, code in (
        ("__runnable_action_2", {}, 2),
        ("__runnable_action_2", {"parameters": "rate=3"}, 2),
        ("big", {}, 0),
        ("__runnable_action_3", {"run_id": "mine"}, 0),
    ):
        second, _ = legs.job(at=project, variables={"LEG": "big"}, given=given)
        second.temp, second.context = first.temp, {"github.action": context}
        ran = second.all()
        assert ran.code == code, ran.text
        assert ("give both steps an `id:`" in ran.text) is (code == 2)
    assert project.read("made.txt").count("one more") == 3


def test_a_skipped_step_leaves_its_run_alone(legs: Repository) -> None:
    """Of two uses the next attempt skips the first: the second resumes its own run, not the other one's."""
    first, project = legs.job(variables={"LEG": "small"}, context={"github.action": "small"}, files={"fixed": ""})
    assert first.all().code == 0
    (project.folder / "fixed").unlink()
    second, _ = legs.job(at=project, variables={"LEG": "big"}, context={"github.action": "big"})
    second.temp = first.temp
    assert second.all().code == 1
    again, other = legs.job(attempt=2, variables={"LEG": "big"}, context={"github.action": "big"}, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert again.outputs["finish"]["run-id"] == second.outputs["finish"]["run-id"]
    assert other.read("data.txt") == "data of big\n"
    assert attempts(again, other) == [1, 2]


@pytest.mark.promise
def test_what_others_publish_is_not_resumed(repository: Repository, tmp_path: Path) -> None:
    """Another writer's version of the run has nothing to say: the next attempt takes the one of its own job."""
    action, first = repository.job()
    assert action.all().code == 1
    other = workspace(tmp_path, {"runnable.toml": PIPELINE, "fixed": ""}, name="other")
    other.runnable("retry", f"{repository.registry}:train-1000", "--from", "load")
    other.runnable("publish", "train-1000", "--to", repository.registry)
    again, second = repository.job(attempt=2, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert second.read("data.txt") == first.read("data.txt") != other.read("data.txt")
    assert attempts(again, second) == [1, 2]
    assert action.outputs["finish"]["digest"] in ran.text


def test_a_re_run_of_a_retry_takes_what_the_retry_published(repository: Repository, tmp_path: Path) -> None:
    """Not what others have published under the run's id since then."""
    first, origin = repository.job()
    assert first.all().code == 1
    retry, _ = repository.job(command="retry", run_id="train-1000", variables={"GITHUB_RUN_ID": "1001"})
    assert retry.all().code == 1
    other = workspace(tmp_path, {"runnable.toml": PIPELINE, "fixed": ""}, name="other")
    other.runnable("retry", f"{repository.registry}:train-1000", "--from", "load")
    other.runnable("publish", "train-1000", "--to", repository.registry)
    again, project = repository.job(
        attempt=2,
        command="retry",
        run_id="train-1000",
        variables={"GITHUB_RUN_ID": "1001"},
        files={"fixed": ""},
    )
    ran = again.all()
    assert ran.code == 0, ran.text
    assert retry.outputs["finish"]["digest"] in again.summary.replace("\\", "")
    assert project.read("data.txt") == origin.read("data.txt") != other.read("data.txt")
    assert attempts(again, project) == [1, 3]


def test_a_parameter_with_a_date_does_not_prevent_a_resume(repository: Repository) -> None:
    """What the parameter was is the run's to know: the steps that read it run again, with the reason."""
    pipeline = PIPELINE.replace("rate = 2", 'rate = 2\nstarted = ""').replace(
        "echo rate", "echo at $started; echo rate"
    )
    files = {"runnable.toml": pipeline}
    assert repository.job(files=files, parameters="started=monday")[0].all().code == 1
    again, project = repository.job(attempt=2, files={**files, "fixed": ""}, parameters="started=tuesday")
    ran = again.all()
    assert ran.code == 0, ran.text
    assert "at tuesday" in ran.text
    assert again.outputs["finish"]["run-id"] == "train-1000"
    assert attempts(again, project) == [1, 2]


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_registry_that_is_down_at_the_next_attempt(repository: Repository, mode: str) -> None:
    """The work of hours waits there: the job begins anew and warns or, where its input insists, fails."""
    assert repository.job()[0].all().code == 1
    away = {"registry": "127.0.0.1:9/octo/flowers"}
    again, project = repository.job(attempt=2, files={"fixed": ""}, resume=mode, given=away)
    ran = again.all()
    assert ran.code == (0 if mode == "auto" else 1), ran.text
    assert (project.folder / "data.txt").exists() is (mode == "auto")
    if mode == "auto":
        assert "::warning title=The run of an earlier attempt cannot be resumed::" in ran.text
        assert again.outputs["finish"]["run-id"] == "train-1000-attempt2"


@pytest.mark.parametrize("mode", ["auto", "always"])
def test_a_server_without_artifacts(repository: Repository, mode: str) -> None:
    """Nothing is resumed by its name alone: who else writes to the registry is not known."""
    first, _ = repository.job()
    first.artifacts = None
    assert first.all().code == 1
    again, project = repository.job(attempt=2, files={"fixed": ""}, resume=mode)
    again.artifacts = None
    ran = again.all()
    assert ran.code == (0 if mode == "auto" else 1), ran.text
    assert "could not be downloaded" in ran.text
    assert (project.folder / "data.txt").exists() is (mode == "auto")


def test_an_enterprise_server_has_no_failing_step(repository: Repository) -> None:
    """Where GitHub's actions for artifacts only fail, they are not started; that nothing is resumed is said."""
    server = {"GITHUB_SERVER_URL": "https://github.acme.example"}
    first, _ = repository.job(variables=server)
    assert first.all().code == 1
    assert first.outputs["finish"]["reference"]
    assert "artifact" not in first.outputs["finish"]
    again, project = repository.job(attempt=2, variables=server, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    assert again.outcomes["download"] == "skipped"
    assert "github.acme.example keeps no artifacts" in ran.text
    assert attempts(again, project) == [1, 1]


def test_a_run_that_was_not_published_is_resumed_from_its_artifact(repository: Repository) -> None:
    """A fork's pull request: attempt by attempt, from what the last one left whole."""
    first, origin = repository.job(event=FORK, variables=OF_FORK)
    assert first.all().code == 1
    for attempt, fixed in ((2, {}), (3, {"fixed": ""})):
        again, project = repository.job(attempt=attempt, files=fixed, event=FORK, variables=OF_FORK)
        ran = again.all()
        assert ran.code == 3 - attempt if attempt == 3 else 1, ran.text
        assert f"attempt {attempt} resumes run `train-1000`" in ran.text
        assert project.read("data.txt") == origin.read("data.txt")
        assert attempts(again, project) == [1, attempt]
    assert len(list(repository.artifacts.iterdir())) == 3


def test_what_is_kept_is_said_after_the_upload(repository: Repository) -> None:
    """By the name of the artifact that is there, in log and summary, and nowhere before."""
    action, project = repository.job(event=FORK, variables=OF_FORK)
    ran, finished = action.step("run"), action.step("finish")
    assert "kept" not in ran.text + finished.text + action.summary
    told = action.upload()
    (kept,) = repository.artifacts.iterdir()
    assert f"The run is kept as an artifact of this workflow run, `{kept.name}`: unpack it into `.runnable`" in told
    assert f"`{kept.name}`" in action.summary
    there = workspace(project.folder.parent, repository.files, name="clone")
    shutil.copytree(kept, there.store)
    assert "fit" in there.runnable("retry", action.outputs["finish"]["run-id"], code=1).out


@pytest.mark.parametrize(
    ("machine", "title"), [("github-hosted", "The run is lost"), ("self-hosted", "The run is not kept"), ("", "")]
)
def test_an_upload_that_fails_is_a_run_that_is_lost(repository: Repository, machine: str, title: str) -> None:
    """A full quota, a server that takes none: said where the run is, how long, and what keeps the next one."""
    action, _ = repository.job(event=FORK, variables={**OF_FORK, "RUNNER_ENVIRONMENT": machine})
    action.artifacts = None
    ran = action.all()
    assert f"::warning title={title or 'The run is not kept'}::The upload of the artifact `runnable-" in ran.text
    assert "It is only in `.runnable` on this runner" in ran.text
    assert "The run is kept" not in ran.text + action.summary
    assert action.summary.count("[!IMPORTANT]") == 2
    assert "registry: HOST/OWNER/REPO/runs" not in action.summary  # there is one
    assert "keep `.runnable` in a step of your own" in ran.text


def test_a_run_that_is_lost_without_a_registry_says_how_to_have_one(repository: Repository) -> None:
    """Where none is set, one is what keeps the next run."""
    action, _ = repository.job(event=FORK, variables=OF_FORK, given={"registry": ""})
    action.artifacts = None
    action.all()
    assert "registry: HOST/OWNER/REPO/runs" in action.summary


def test_a_note_that_is_not_uploaded_is_said(repository: Repository) -> None:
    """The run itself is published: how it is resumed without the note."""
    action, _ = repository.job()
    action.artifacts = None
    ran = action.all()
    reference = action.outputs["finish"]["reference"]
    assert "::warning title=The next attempt of this job cannot resume the run::" in ran.text
    assert f"`runnable-ci retry {reference}" in ran.text
    kept, _ = repository.job()
    assert "cannot resume the run" not in kept.all().text


def test_a_server_without_artifacts_loses_what_is_not_published(tmp_path: Path) -> None:
    """No upload is tried there, as it would fail: the run is said to be lost at once."""
    repository = Repository(tmp_path, "127.0.0.1:9/octo/flowers", {"runnable.toml": PIPELINE})
    action, project = repository.job(variables={"GITHUB_SERVER_URL": "https://git.acme.example"})
    ran = action.all()
    assert "artifact" not in action.outputs["finish"]
    assert "::warning title=The run is not kept::https://git.acme.example takes no artifact of the action" in ran.text
    assert "kept as an artifact" not in ran.text + action.summary
    assert project.log().run_id


def test_debug_logging_shows_requests_and_decisions(repository: Repository) -> None:
    """Each request with its status and time, each decision with its reason; without it none of that."""
    first, _ = repository.job()
    assert "debug: " not in first.all().text
    again, _ = repository.job(attempt=2, variables={"RUNNER_DEBUG": "1"}, files={"fixed": ""})
    ran = again.all()
    assert ran.code == 0, ran.text
    lines = [line for line in ran.text.splitlines() if line.startswith("debug: ")]
    host, _, name = repository.registry.partition("/")
    api = re.escape(f"{host}/v2/{name}")
    manifest = rf"debug: GET {api}/manifests/sha256:\w+: status 200 in \d+ ms"
    assert any(re.fullmatch(manifest, line) for line in lines)
    assert any(
        re.match(rf"debug: PUT {re.escape(f'{host}/v2/{name}/blobs/uploads/')}[^?]+: status 201", x) for x in lines
    )
    assert any("an earlier attempt left Note(" in line for line in lines)
    assert any(line.startswith("debug: fit: run: ") for line in lines)
    assert not any("?" in line or "uthorization" in line for line in lines)


def test_a_run_number_that_is_always_the_same(repository: Repository) -> None:
    """`act` calls each of its runs 1: one in a workspace that has an earlier run is a run of its own."""
    _, project = repository.job()
    found = []
    for _ in range(3):
        action, _ = repository.job(at=project, variables={"GITHUB_RUN_ID": "1"}, publish="never")
        ran = action.all()
        assert ran.code == 1, ran.text
        found.append(action.outputs["finish"]["run-id"])
    assert found == ["train-1", "train-1-2", "train-1-3"]
    assert [len(project.log(run).invocations) for run in found] == [1, 1, 1]
    named, _ = repository.job(at=project, run_id="train-1")
    assert "there is already a run `train-1`" in named.all().text


def test_artifacts_are_never_of_one_name(legs: Repository) -> None:
    """Legs that look the same each leave their own, in each attempt."""
    for attempt in (1, 2):
        for leg in ("a", "b"):
            legs.job(attempt=attempt, variables={"LEG": leg})[0].all()
    assert len({path.name for path in legs.artifacts.iterdir()}) == 4


def test_a_run_id_that_cannot_be_published_is_said_at_once(repository: Repository) -> None:
    """Before anything runs; where nothing is published it is good enough."""
    action, project = repository.job(run_id="a" * 110)
    ran = action.all()
    assert ran.code == 2
    assert "too long to be published" in ran.text
    assert not (project.folder / "data.txt").exists()
    unpublished, _ = repository.job(run_id="a" * 110, publish="never", files={"fixed": ""})
    assert unpublished.all().code == 0


def test_an_id_of_the_user_s_is_kept_for_as_long_as_it_is_free(repository: Repository) -> None:
    """A run-id of the workflow's own is resumed as well; a fresh start under it is another run's."""
    assert repository.job(run_id="mine")[0].all().code == 1
    again, project = repository.job(attempt=2, run_id="mine", files={"fixed": ""})
    assert again.all().code == 0
    assert again.outputs["finish"]["run-id"] == "mine"
    assert attempts(again, project) == [1, 2]
    anew, _ = repository.job(attempt=3, run_id="mine", files={"fixed": ""})
    assert anew.all().code == 0
    assert anew.outputs["finish"]["run-id"] == "mine-attempt3"


@pytest.mark.parametrize("other", [{"GITHUB_RUN_ID": "1001"}, {"GITHUB_JOB": "evaluate"}])
def test_an_id_that_another_run_has_is_no_obstacle_to_resume(repository: Repository, other: dict[str, str]) -> None:
    """One of last night's, or of another job: this job's own run has an id of its own and goes on under it."""
    assert repository.job(run_id="nightly")[0].all().code == 1
    if "GITHUB_RUN_ID" in other:
        repository.artifacts = repository.tmp_path / "next"  # another workflow run has none of the first one's
        repository.artifacts.mkdir()
    first, origin = repository.job(run_id="nightly", variables=other)
    ran = first.all()
    own = first.outputs["finish"]["run-id"]
    assert own.startswith("nightly-")
    assert "Published under another run id" in ran.text
    for attempt, files in ((2, {}), (3, {"fixed": ""})):
        again, project = repository.job(attempt=attempt, run_id="nightly", variables=other, files=files)
        ran = again.all()
        assert f"attempt {attempt} resumes run `{own}`" in ran.text
        assert again.outputs["finish"]["run-id"] == own
        assert project.read("data.txt") == origin.read("data.txt")
        assert attempts(again, project) == [1, attempt]
