"""Every command that is printed is whole: each is run here from the place where it was printed, in every set-up.

A set-up is where something is not what commands take by themselves: the pipeline file, the folder, the store, the
registry. Beside it lies a pipeline, `deploy`, that no printed command may run.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from action_steps import ActionRun
from cli import Workspace, elsewhere, workspace
from github_api import github
from published_runs import forge, opened
from registry_server import AUTHORIZATION, PASSWORD, USERNAME, Served, password_registry, registry

from runnable_ci.cli.app import app
from runnable_ci.runs.document import encode
from runnable_ci.runs.reader import load
from runnable_ci.store.local import Layout

PACKAGE = Path(__file__).parent.parent / "runnable_ci"
DEPLOY = 'name = "main"\n[steps.deploy]\nrun = "touch $ROOT/deployed"\n'
TRAIN = """\
name = "nightly"
[steps.fetch]
run = "echo fetched > data.txt"
catalog = { put = ["data.txt"] }
[steps.train]
run = "touch $ROOT/trained; test -e $ROOT/fixed"
"""
PRINTED = re.compile(r"`(runnable-ci [^`]+)`|(?:^|: |# .*\n)(runnable-ci .+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@dataclass(frozen=True)
class Place:
    """Where commands are typed."""

    project: Workspace
    at: str = "."

    def run(self, *arguments: str, code: int = 0, **variables: str) -> str:
        """What a command of the program says."""
        done = self.project.runnable(*arguments, code=code, at=self.at, **variables)
        return done.out + done.err

    def type(self, command: str, code: int = 1, **variables: str) -> str:
        """Type a printed command into a shell; what it says."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.project.folder / self.at,
            env={**self.project.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def resumes(self, command: str, **variables: str) -> str:
        """Type a command that resumes the failed run of `TRAIN`: it runs `train` again, and nothing else."""
        trained, root = self.root / "trained", self.root
        trained.unlink(missing_ok=True)
        said = self.type(command, 1, **variables)
        assert trained.exists(), f"{command}\n{said}"
        assert not (root / "deployed").exists(), command
        return said

    @property
    def root(self) -> Path:
        """Where steps leave their marks."""
        return Path(self.project.environ["ROOT"])


def printed(text: str) -> list[str]:
    """The commands in a text for people, in their order."""
    return [found[1] or found[2] for found in PRINTED.finditer(text.replace("%0A", "\n"))]


def one(text: str, verb: str = "") -> str:
    """The only command of a text."""
    (command,) = printed(text)
    assert command.startswith(f"runnable-ci {verb}"), command
    return command


def place(tmp_path: Path, files: Mapping[str, str], at: str = ".", *, git: bool = True) -> Place:
    """A project with the decoy and these files, and a folder `docs`."""
    made = workspace(tmp_path, {"runnable.toml": DEPLOY, "docs/x": "", ".gitignore": "*.txt\n", **files}, git=git)
    return Place(Workspace(made.folder, {**made.environ, "ROOT": str(tmp_path)}), at)


def clone_of(here: Place, tmp_path: Path, at: str = ".", name: str = "elsewhere") -> Place:
    """A clone on another machine."""
    made = elsewhere(here.project, tmp_path, name)
    return Place(Workspace(made.folder, {**made.environ, "ROOT": str(tmp_path)}), at)


TABLE = "[tool.runnable-ci]\n" + TRAIN.replace("[steps.", "[tool.runnable-ci.steps.")
RUNS = {
    "another file": ({"nightly.toml": TRAIN}, ".", "nightly.toml"),
    "another file without git": ({"nightly.toml": TRAIN}, ".", "nightly.toml"),
    "a folder": ({"ml/runnable.toml": TRAIN}, ".", "ml"),
    "a folder without git": ({"ml/runnable.toml": TRAIN}, ".", "ml"),
    "a file in a folder": ({"ml/runnable.toml": DEPLOY, "ml/n.toml": TRAIN}, ".", "ml/n.toml"),
    "pyproject": ({"ml/pyproject.toml": TABLE}, ".", "ml"),
    "a path to be quoted": ({"a 'b'/-$n.toml": TRAIN}, ".", "a 'b'/-$n.toml"),
    "a dash": ({"-n.toml": TRAIN}, ".", "./-n.toml"),
    "from below": ({"nightly.toml": TRAIN}, "docs", "../nightly.toml"),
    "from beside": ({"ml/runnable.toml": TRAIN}, "docs", "../ml"),
    "the default": ({"runnable.toml": TRAIN}, ".", "."),
    "the default from below": ({"runnable.toml": TRAIN}, "docs", ".."),
}
"""Files, the folder where commands are typed, the pipeline as it is named there."""


@pytest.mark.parametrize("setup", RUNS)
def test_after_a_failure(tmp_path: Path, setup: str) -> None:
    """The retry that a failed run, a failed retry, and a second run of the id offer resumes that run."""
    files, at, pipeline = RUNS[setup]
    here = place(tmp_path, files, at, git="without git" not in setup)
    hint = one(here.run("run", "--run-id", "n1", "--", pipeline, code=1), "retry n1")
    again = one(here.resumes(hint), "retry n1")
    here.resumes(again)
    taken = one(here.run("run", "--run-id", "n1", "--", pipeline, code=2), "retry n1")
    here.resumes(taken)


@pytest.mark.parametrize("setup", RUNS)
def test_a_run_of_one_step(tmp_path: Path, setup: str) -> None:
    """What is offered where the step has no input, or an old one, runs the step and what it needs."""
    files, at, pipeline = RUNS[setup]
    here = place(tmp_path, files, at, git="without git" not in setup)
    here.resumes(one(here.run("run", "--run-id", "n1", "--", pipeline, "train", code=2), "run --run-id n1"))
    [name] = [name for name in files if name != "ml/runnable.toml" or len(files) == 1]
    here.project.write({name: files[name].replace("echo fetched", "echo fetched again")})
    here.resumes(one(here.run("run", "--run-id", "n2", "--", pipeline, "train", code=2), "run --run-id n2"))
    assert (here.project.folder / name).parent.joinpath("data.txt").read_text() == "fetched again\n"


def test_from_outside_of_the_repository(tmp_path: Path) -> None:
    """A pipeline that is named by a path from anywhere is named so again."""
    here = place(tmp_path, {"ml/n.toml": TRAIN})
    outside = Place(here.project, str(tmp_path))
    hint = one(outside.run("run", str(here.project.folder / "ml/n.toml"), "--run-id", "n1", code=1))
    outside.resumes(hint)


def test_the_refusal_of_another_file(tmp_path: Path) -> None:
    """Both ways out can be typed: the run's own file, and the one that was given, as a renamed one."""
    here = place(tmp_path, {"ml/a.toml": TRAIN, "ml/b c.toml": TRAIN.replace("nightly", "other")}, "docs")
    here.run("run", "../ml/a.toml", "--run-id", "n1", code=1)
    own, renamed = printed(here.run("retry", "n1", "-f", "../ml/b c.toml", code=2))
    here.resumes(own)
    here.resumes(renamed)
    (here.project.folder / "ml/b c.toml").rename(here.project.folder / "ml/d.toml")
    here.resumes(one(here.run("retry", "n1", "-f", "../ml/d.toml", code=2), "retry n1"))


def test_a_store_elsewhere(tmp_path: Path, served: Served) -> None:
    """What looks into a store that is not the folder's own says which one, and the pull goes there too."""
    here = place(tmp_path, {"n.toml": TRAIN})
    runs = served.repository()
    here.run("run", "n.toml", "--run-id", "n1", "--publish", "--to", runs, code=1)
    other = clone_of(here, tmp_path)
    (other.project.folder / "my store").mkdir()
    given = ("--store", "my store")
    other.run("pull", f"{runs}:n1", "--only", "log", *given, code=0)
    assert "n1" in other.type(one(other.run("show", "unheard-of", *given, code=2), "runs"), code=0)
    assert "data.txt" in other.type(one(other.run("catalog", "n1", "--get", "zzz", *given, code=2), "catalog"), code=0)
    other.type(one(other.run("catalog", "n1", "--get", "data.txt", *given, code=1), "pull n1"), code=0)
    other.run("catalog", "n1", "--get", "data.txt", *given, code=0)
    assert not other.project.store.exists()


def test_a_registry_that_does_not_know(tmp_path: Path, served: Served) -> None:
    """What is listed is the registry that was asked, as it was asked."""
    here = place(tmp_path, {"n.toml": TRAIN})
    runs = served.repository()
    here.run("run", "n.toml", "--run-id", "n1", "--publish", "--to", runs, code=1)
    for arguments in (
        ["pull", f"{runs}:unheard-of"],
        ["pull", "unheard-of", "--from", runs, "--plain-http"],
        ["retry", f"{runs}:unheard-of"],
        ["retry", f"{runs}:latest", "-f", "runnable.toml"],
        ["pull", runs],
        ["retry", runs],
    ):
        listing = one(here.run(*arguments, code=2), f"runs --from {runs}")
        assert ("--plain-http" in arguments) == ("--plain-http" in listing)
        assert "n1" in here.type(listing, code=0)


def login(project: Workspace, host: str) -> None:
    """Let the user's docker know the password of a registry."""
    folder = Path(project.environ["HOME"]) / ".docker"
    folder.mkdir()
    auth = AUTHORIZATION.removeprefix("Basic ")
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


@pytest.mark.parametrize("named", ["by option", "by variable", "by the pipeline file"])
def test_a_publish_that_failed(tmp_path: Path, named: str) -> None:
    """The publish that is offered goes where the first one did, from the store that has the run."""
    with password_registry(tmp_path / "locked") as locked:
        runs = locked.repository()
        files = {"ml/n.toml": (f'registry = "{runs}"\n' if named == "by the pipeline file" else "") + TRAIN}
        here = place(tmp_path, files)
        variables = {"RUNNABLE_CI_REGISTRY": runs} if named == "by variable" else {}
        option = ["--to", runs] if named == "by option" else []
        said = here.run("run", "ml/n.toml", "--run-id", "n1", "--publish", *option, code=1, **variables)
        retry, publish = printed(said)
        login(here.project, locked.host)
        assert f"{runs}:n1@" in here.type(publish, code=0, **variables)
        here.resumes(retry, **variables)


@pytest.mark.parametrize("at", [".", "docs"])
def test_a_pulled_run(tmp_path: Path, served: Served, at: str) -> None:
    """A run of a clone, pulled or retried by reference, is resumed by what is printed, from any folder."""
    here = place(tmp_path, {"ml/n.toml": TRAIN})
    runs = served.repository()
    here.run("run", "ml/n.toml", "--run-id", "n1", "--publish", "--to", runs, code=1)
    other = clone_of(here, tmp_path, at)
    hint = one(other.run("retry", f"{runs}:n1", code=1), "retry n1")
    other.resumes(one(other.resumes(hint)))
    third = clone_of(here, tmp_path, at, "third")
    third.run("pull", f"{runs}:n1", code=0)
    third.resumes(one(third.run("retry", "n1", "--plain-http", code=1), "retry n1"))


def test_a_password_of_the_settings(tmp_path: Path) -> None:
    """A run whose files are in a registry that only the person may name is resumed by naming it again."""
    password = {"RUNNABLE_CI_REGISTRY_USERNAME": USERNAME, "RUNNABLE_CI_REGISTRY_PASSWORD": PASSWORD}
    with password_registry(tmp_path / "locked") as locked:
        runs = locked.repository()
        reads = TRAIN.replace("touch $ROOT/trained", "cat data.txt; touch $ROOT/trained")
        here = place(
            tmp_path, {"n.toml": reads.replace("[steps.train]", "[steps.late]\nrun = 'exit 3'\n[steps.train]")}
        )
        here.run("run", "n.toml", "--run-id", "n1", "--publish", "--to", runs, code=1, **password)
        other = clone_of(here, tmp_path)
        hint = one(other.run("retry", f"{runs}:n1", code=1, **password))
        (other.project.folder / "data.txt").unlink()
        shutil.rmtree(other.project.store / "blobs")
        (other.project.store / "blobs" / "sha256").mkdir(parents=True)
        text = (other.project.folder / "n.toml").read_text()
        (other.project.folder / "n.toml").write_text(text.replace("exit 3", "true"))
        other.resumes(hint, **password)


def test_several_runs_of_one_id(tmp_path: Path, served: Served) -> None:
    """Each way out names one run by its digest, with the store and the file that were named."""
    here = place(tmp_path, {"ml/n.toml": TRAIN, "ml/runnable.toml": DEPLOY})
    remote = opened(served.repository())
    for writer in ("a", "b"):
        shutil.rmtree(here.project.folder / "ml" / ".runnable", ignore_errors=True)
        here.run("run", "ml/n.toml", "--run-id", "n1", code=1)
        layout = Layout(here.project.folder / "ml" / ".runnable")
        manifest = remote.resolve(forge(remote, layout, encode(load(layout, "n1")), "n1"))
        for tag in ("n1", f"n1--{writer}"):
            remote.tag(manifest, tag)
    other = clone_of(here, tmp_path)
    other.resumes(one(other.run("retry", f"{remote.label}:n1", code=1), "retry"))
    shutil.rmtree(other.project.folder / "ml" / ".runnable")
    other.resumes(one(other.run("retry", f"{remote.label}:n1", "-f", "ml/n.toml", code=1), "retry"))
    (other.project.folder / "my store").mkdir()
    pull = one(other.run("pull", f"{remote.label}:n1", "--store", "my store", "--only", "log", code=1), "pull")
    other.type(pull, code=0)
    assert "n1" in other.run("runs", "--store", "my store", code=0)


def test_an_id_that_is_taken(tmp_path: Path, served: Served) -> None:
    """The publish under another id goes to the registry that was named, from the store that was."""
    here = place(tmp_path, {"n.toml": TRAIN})
    runs = served.repository()
    here.run("run", "n.toml", "--run-id", "n1", "--publish", "--to", runs, code=1)
    other = clone_of(here, tmp_path)
    other.run("run", "n.toml", "--run-id", "n1", code=1)
    outside = Place(other.project, "docs")
    refused = outside.run("publish", "n1", "--to", runs, "--store", "..", code=2)
    assert f"{runs}:n2@" in outside.type(one(refused, "publish").replace("OTHER_ID", "n2"), code=0)


def test_starting(tmp_path: Path) -> None:
    """What `init` and a folder without a pipeline say next leads to the folder that was named."""
    made = workspace(tmp_path, {"a b/x": "", "docs/x": ""})
    here = Place(Workspace(made.folder, {**made.environ, "ROOT": str(tmp_path)}), "docs")
    start = one(here.run("run", "../a b", code=2), "init")
    said = here.type(start, code=0)
    here.type(one(said, "run"), code=0)
    here.type(one(here.run("init", "../a b", code=2), "check"), code=0)


def test_the_workflows_of_a_folder(tmp_path: Path) -> None:
    """The other workflow alone is written for the same folder, by the same version of the action."""
    here = place(tmp_path, {"m l/runnable.toml": TRAIN, ".github/workflows/ci.yml": "on: push\n"}, "docs")
    told = here.run("init", "--github", "../m l", "--action-ref", "v1.2.3", code=2)
    said = here.type(one(told, "init"), code=0)
    retry = here.project.read(".github/workflows/retry.yml")
    assert "runnable/action@v1.2.3" in retry
    assert "m l" in retry
    assert "RUN_ID" in one(said, "dispatch")


def test_the_workflow_that_is_stale(tmp_path: Path) -> None:
    """The command writes just the one that was looked at, also where another file is there."""
    here = place(tmp_path, {"m l/night.toml": TRAIN, "docs/a b/flow.yml": "on: push\n"}, "docs")
    for output in ("a b/flow.yml", "new.yml"):
        words = ("workflow", "../m l/night.toml", "-o", output)
        here.type(one(here.run(*words, "--check", code=1), "workflow"), code=0)
        here.run(*words, "--check")


def job(here: Place, tmp_path: Path, runs: str, **inputs: str) -> ActionRun:
    """A use of the action in a checkout of the repository."""
    environ = {
        **here.project.environ,
        "GITHUB_REPOSITORY": "owner/repo",
        "GITHUB_RUN_ID": "16000000002",
        "GITHUB_RUN_ATTEMPT": "1",
        "GITHUB_JOB": "train",
        "GITHUB_REF": "refs/heads/main",
        "GITHUB_EVENT_NAME": "push",
    }
    given = {"registry": runs, "run-id": "n1", "token": "", **inputs}
    return ActionRun(here.project.folder, tmp_path / "temp", environ, given)


JOBS = {
    "another file": ("n.toml", ".", "by input"),
    "another file that alone knows the registry": ("ml/n x.toml", ".", "by the pipeline file"),
    "a folder": ("ml", ".", "by input"),
    "a working directory": ("n.toml", "ml", "by input"),
}


@pytest.mark.parametrize("setup", JOBS)
def test_the_page_of_a_job(tmp_path: Path, served: Served, setup: str) -> None:
    """The summary's commands and the output `retry-command`, typed in a clone, and the job's log in the job."""
    pipeline, folder, named = JOBS[setup]
    registry_in_file = named == "by the pipeline file"
    runs = served.repository()
    train = (f'registry = "{runs}"\n' if registry_in_file else "") + TRAIN
    names = ("n.toml", "ml/runnable.toml", "ml/n x.toml", "ml/n.toml")
    retry = ".github/workflows/retry.yml"
    workflow = (PACKAGE / "github" / "workflows" / "retry.yml").read_text()
    here = place(tmp_path, {**dict.fromkeys(names, train), retry: workflow})
    inputs = {"pipeline": pipeline, "working-directory": folder}
    used = job(here, tmp_path, "" if registry_in_file else runs, **inputs)
    ran = used.step("run")
    used.step("finish")
    Place(here.project, folder).resumes(one(ran.text))
    output = used.outputs["finish"]["retry-command"]
    other = clone_of(here, tmp_path, "docs")
    other.project.git("remote", "set-url", "origin", "git@github.com:owner/repo.git")
    resume, dispatch, rerun, pull = printed(used.summary)
    assert output == resume
    other.resumes(resume)
    at_root = Place(clone_of(here, tmp_path, name="third").project)
    at_root.type(pull, code=0)
    assert "n1" in at_root.run("runs", code=0)
    with github() as server:
        server.git = here.project.folder
        at_root.type(dispatch, code=0, **server.variables)
        sent = server.dispatched[0]["inputs"]
        failed = server.add_run(status="completed", conclusion="failure")
        assert f"/actions/runs/{failed.id}" in at_root.type(rerun, code=0, **server.variables)
    retried = job(here, tmp_path, "" if registry_in_file else runs, command="retry", **{"run-id": sent["run-id"]})
    retried.inputs["pipeline"] = sent.get("pipeline") or "."
    (here.root / "trained").unlink(missing_ok=True)
    retried.all()
    assert (here.root / "trained").exists()
    assert not (here.root / "deployed").exists()


def test_an_artifact_of_a_job(tmp_path: Path) -> None:
    """A run that could not be published is resumed from where the notice says to unpack it."""
    here = place(tmp_path, {"m l/n.toml": TRAIN})
    used = job(here, tmp_path, "127.0.0.1:9/owner/repo", pipeline="m l/n.toml")
    used.artifacts = tmp_path / "artifacts"
    used.artifacts.mkdir()
    used.all()
    store = used.outputs["finish"]["unpublished-store"]
    other = clone_of(here, tmp_path)
    notice = next(line for line in used.summary.splitlines() if "unpack it into" in line)
    folder = re.search(r"unpack it into (?:`|<code>)(.*?)(?:`|</code>) at", notice)
    assert folder, notice
    shutil.copytree(store, other.project.folder / folder[1])
    other.resumes(re.findall(r"(?:`|<code>)(runnable-ci .*?)(?:`|</code>)", notice)[0])


def test_what_a_watch_offers(tmp_path: Path, served: Served) -> None:
    """After a dispatched retry the pull that is offered fetches the run from where its pipeline file has it."""
    runs = served.repository()
    here = place(tmp_path, {"n.toml": f'registry = "{runs}"\n{TRAIN}'})
    here.run("run", "n.toml", "--run-id", "n1", "--publish", code=1)
    here.project.git("remote", "add", "origin", "git@github.com:owner/repo.git")
    with github() as server:
        server.git = here.project.folder
        said = here.run("dispatch", "n1", "--watch", "--interval", "0.1", code=0, **server.variables)
    assert "run n1 from" in here.type(one(said, "pull"), code=0)


def test_commands_have_one_source() -> None:
    """No message has a command in its text: all are made, whole and quoted, by `shell_command`."""
    groups = [app, *(group.typer_instance for group in app.registered_groups if group.typer_instance)]
    known = [command for group in groups for command in group.registered_commands]
    names = "|".join(command.name or command.callback.__name__ for command in known if command.callback)
    assert "why" in names.split("|")
    found = []
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            is_shown = isinstance(text, str) and id(node) not in docstrings
            if is_shown and re.search(rf"\brunnable-ci ({names})\b", str(text)):
                found.append(f"{file.relative_to(PACKAGE)}: {text!r}")
    assert [line for line in found if not line.startswith(("cli/init.py", "vcs/checkout/old_format.py"))] == []
