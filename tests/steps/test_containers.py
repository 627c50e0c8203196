"""Tests of steps in containers: real podman, real images, a real registry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from notebooks import notebook
from podman import IMAGE, Podman, docker_shim, podman_with_image, python_volumes
from registry_server import PASSWORD, USERNAME, Served, password_registry, registry
from support import sha256, wait_until

from runnable_ci.errors import StepError
from runnable_ci.pipeline.container import Container
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.model import RunLog
from runnable_ci.steps.containers.canary import ContainerCanary
from runnable_ci.steps.containers.engines import ContainerEngine, find_engine
from runnable_ci.steps.containers.host_paths import mounts_of, on_host, own_container
from runnable_ci.steps.containers.images import resolve_image
from runnable_ci.steps.containers.users import passwd_files


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Podman with the image, once for all tests."""
    with podman_with_image() as found:
        yield found


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A registry of this machine."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def project_of(tmp_path: Path, podman: Podman, pipeline: str, **files: str) -> Workspace:
    """A project with this pipeline whose containers podman runs."""
    made = workspace(tmp_path, {"runnable.toml": pipeline, ".gitignore": ".runnable\n", **files})
    made.environ.update(podman.environ, RUNNABLE_CI_CONTAINER_ENGINE="podman")
    return made


def image_in(log: RunLog, step: str = "a") -> CodeIdentity:
    """The image of a step's last attempt, beside git's identity."""
    git, image = log.steps[step].attempts[-1].code_identities
    assert (git.code_identifier_type, image.code_identifier_type) == ("git", "docker")
    return image


def pushed(podman: Podman, served: Served, content: str = "") -> str:
    """Push the image with one more variable in it to a registry; its name there."""
    podman.allow(served.host)
    name = f"{served.repository()}:v1"
    push_as(podman, name, content)
    return name


def push_as(podman: Podman, name: str, content: str, *options: str) -> None:
    """Let a tag of a registry be the image with this content in it; nothing of that stays here."""
    file = podman.folder / "next"
    file.write_text(f"FROM {IMAGE}\nENV CONTENT={content}\n")
    podman("build", "--quiet", "--file", str(file), "--tag", name, str(podman.folder / "context"))
    podman("push", "--quiet", *options, name)
    podman("rmi", name)


def test_a_step_in_a_container(tmp_path: Path, podman: Podman) -> None:
    """It has the image's programs and the workspace, gets parameters, returns values, and its reads are seen."""
    project = project_of(
        tmp_path,
        podman,
        f"""
[parameters]
depth = 3
[steps.a]
container = "{IMAGE}"
run = '''
test "$FROM_IMAGE$PATH" = yes/bin
test "$(id -u):$(id -g)" = {os.getuid()}:{os.getgid()}
cat data.txt > made.txt
mkdir -p "$HOME" "$XDG_CACHE_HOME" "$MPLCONFIGDIR"
echo "twice=$((depth * 2))" >> "$RUNNABLE_OUTPUT"
echo out; echo err >&2
'''
returns = ["twice"]
catalog = {{ put = ["made.txt"] }}
[steps.b]
run = 'test "$twice $(cat made.txt)" = "6 data"'
""",
        **{"data.txt": "data"},
    )
    project.runnable("run")
    log = project.log()
    attempt = log.steps["a"].attempts[0]
    image = image_in(log)
    assert image.code_identifier == f"sha256:{podman('image', 'inspect', '--format', '{{.Id}}', IMAGE)}"
    assert (image.code_identifier_url, image.code_identifier_dependable) == (IMAGE, False)
    assert attempt.consumed == {"depth": "seen"}
    assert attempt.log is not None and (attempt.log.stdout_bytes, attempt.log.stderr_bytes) == (4, 4)
    reads = json.loads(project.runnable("show", "latest", "--reads", "a").out)
    assert set(reads["files"]) == {"data.txt"}
    assert podman.containers() == []
    assert f"\nimage        {IMAGE}@{image.code_identifier[:19]} (a)\n" in project.runnable("show", "latest").out
    project.write({"data.txt": "changed"})
    assert "data.txt changed, which it read" in project.runnable("retry", "latest", "-n").out


def test_python_in_a_container(tmp_path: Path, podman: Podman) -> None:
    """A function runs in the image's Python, from nothing but the standard library there, objects in and out."""
    volumes = json.dumps(python_volumes())
    interpreter = os.path.realpath(sys.executable)
    project = project_of(
        tmp_path,
        podman,
        f"""
python = "{interpreter}"
[steps.a]
python = "work:make"
returns = {{ thing = "object", size = "json" }}
container = {{ image = "{IMAGE}", volumes = {volumes}, env = {{ LD_LIBRARY_PATH = "{sys.base_prefix}/lib" }} }}
[steps.b]
python = "work:use"
returns = ["total"]
container = {{ image = "{IMAGE}", volumes = {volumes}, env = {{ LD_LIBRARY_PATH = "{sys.base_prefix}/lib" }} }}
""",
        **{
            "work.py": "import os\n"
            "def make():\n    assert os.environ['FROM_IMAGE'] == 'yes'\n    return {1, 2, 3}, 3\n"
            "def use(thing, size):\n    print(open('data.txt').read())\n    return sum(thing) + size\n",
            "data.txt": "data",
        },
    )
    project.runnable("run")
    log = project.log()
    last = log.steps["b"].attempts[0]
    assert last.output_parameters["total"].value == 9
    assert set(last.modules) == {"work.py"}
    environment = log.environments[last.environment]
    assert environment.interpreter_version.endswith(".".join(map(str, sys.version_info[:3])))
    assert "runnable-ci" not in environment.packages  # which the interpreter of the tests has
    reads = json.loads(project.runnable("show", "latest", "--reads", "b").out)
    assert set(reads["files"]) >= {"data.txt", "work.py"}
    assert not any(path.startswith("/") for path in reads.get("outside", {}))


def test_a_notebook_in_a_container(tmp_path: Path, podman: Podman) -> None:
    """A kernel of the image's Python executes it; what it reads is seen, and the executed notebook is kept."""
    volumes = json.dumps([*python_volumes(), f"{sys.prefix}:{sys.prefix}:ro"])
    container = f'{{ image = "{IMAGE}", volumes = {volumes}, env = {{ LD_LIBRARY_PATH = "{sys.base_prefix}/lib" }} }}'
    cells = ["import os, work\nassert os.environ['FROM_IMAGE'] == 'yes'", "total = work.twice(depth)", "print(total)"]
    project = project_of(
        tmp_path,
        podman,
        f"""
python = "{sys.executable}"
[parameters]
depth = 3
[steps.a]
notebook = "n.ipynb"
returns = ["total"]
container = {container}
""",
        **{"n.ipynb": notebook(*cells), "work.py": "def twice(x):\n    return 2 * x\n"},
    )
    assert "a | 6\n" in project.runnable("run").out
    log = project.log()
    attempt = log.steps["a"].attempts[0]
    assert (attempt.output_parameters["total"].value, set(attempt.modules)) == (6, {"work.py"})
    assert [entry.name for entry in log.steps["a"].put_entries()] == ["executed/a.ipynb"]
    assert image_in(log)


def test_a_failure_in_python_is_that_of_the_function(tmp_path: Path, podman: Podman) -> None:
    """The exception, its file and its line are recorded as without a container."""
    project = project_of(
        tmp_path,
        podman,
        f"""
python = "{os.path.realpath(sys.executable)}"
[steps.a]
python = "work:fail"
container = {{ image = "{IMAGE}", volumes = {json.dumps(python_volumes())} }}
""",
        **{"work.py": "def fail():\n    raise KeyError('x')\n"},
    )
    project.runnable("run", code=1)
    attempt = project.log().steps["a"].attempts[0]
    assert attempt.exception is not None
    assert (attempt.exception.type, attempt.exception.file, attempt.exception.line) == ("KeyError", "work.py", 2)


def test_a_tag_is_resolved_once_a_run(tmp_path: Path, podman: Podman, served: Served) -> None:
    """What the tag was when the run began is what a retry runs in, here and elsewhere; `--rerun packages` looks."""
    name = pushed(podman, served, "first")
    runs = f"{served.repository()}"
    project = project_of(
        tmp_path,
        podman,
        f"""
[steps.done]
container = "{name}"
run = "true"
[steps.a]
container = "{name}"
run = "echo $CONTENT; test -e go"
""",
    )
    assert f"pulling {name}" in project.runnable("run", "--run-id", "first", code=1).err
    first = image_in(project.log())
    assert first.code_identifier_dependable
    assert (first.code_identifier_url, first.ref) == (name.rpartition(":")[0], "v1")
    push_as(podman, name, "second")
    project.runnable("publish", "first", "--to", runs)
    project.runnable("retry", "first", code=1)
    assert image_in(project.log("first")).code_identifier == first.code_identifier

    other = elsewhere(project, tmp_path)
    machine = podman.another()
    machine.allow(served.host)
    other.environ.update(machine.environ, RUNNABLE_CI_CONTAINER_ENGINE="podman")
    other.runnable("pull", f"{runs}:first")
    other.write({"go": ""})
    done = other.runnable("retry", "first")
    assert f"pulling {first.code_identifier_url}@{first.code_identifier}" in done.err
    assert image_in(other.log("first")).code_identifier == first.code_identifier
    assert other.runnable("logs", "first", "a").out == "first\n"
    machine("rmi", "--all", "--force")

    # The one that the tag was is still here.
    project.runnable("retry", "first", "--rerun", "packages", code=1)
    log = project.log("first")
    second = image_in(log).code_identifier
    assert second != first.code_identifier
    assert [len(log.steps[step].attempts) for step in ("done", "a")] == [2, 3]
    assert (
        f"image {first.code_identifier_url} {first.code_identifier} → {second}" in log.steps["done"].attempts[1].reason
    )
    project.runnable("retry", "first", code=1)
    log = project.log("first")
    assert image_in(log).code_identifier == second and len(log.steps["done"].attempts) == 2


def test_an_image_that_was_only_built_here_has_no_digest(tmp_path: Path, podman: Podman, served: Served) -> None:
    """Though podman gives it one in the registry of its name; what was pulled from there has it, by anyone."""
    podman.allow(served.host)
    name = f"{served.repository()}:v1"
    podman("tag", IMAGE, name)
    try:
        project = project_of(tmp_path, podman, f'[steps.a]\ncontainer = "{name}"\nrun = "true"\n')
        project.runnable("run")
        built = image_in(project.log())
        assert not built.code_identifier_dependable
        assert built.code_identifier == f"sha256:{podman('image', 'inspect', '--format', '{{.Id}}', name)}"
        podman("push", "--quiet", name)
        podman("rmi", name)
        podman("pull", "--quiet", name)
        project.runnable("run")
        assert image_in(project.log()).code_identifier_dependable
        assert len(list(Path(project.environ["HOME"], ".cache/runnable-ci/images").iterdir())) == 1
    finally:
        podman("rmi", name)


@pytest.mark.parametrize(
    ("image", "says"),
    [("localhost/none", "is not here"), ("127.0.0.1:1/none", "cannot be pulled")],
)
def test_an_image_that_cannot_be_pulled(tmp_path: Path, podman: Podman, image: str, says: str) -> None:
    """One error with the place in the file, before anything runs, and no run of it."""
    project = project_of(
        tmp_path, podman, f'[steps.a]\nrun = "touch ran"\n[steps.b]\ncontainer = "{image}"\nrun = "true"\n'
    )
    done = project.runnable("run", code=2)
    assert "runnable.toml:4" in done.err and says in done.err
    assert not (project.folder / "ran").exists()
    assert project.runnable("runs", "--json").out.strip() == "[]"


def test_no_engine(tmp_path: Path, podman: Podman) -> None:
    """Where nothing runs containers the run does not begin."""
    project = project_of(tmp_path, podman, f'[steps.a]\ncontainer = "{IMAGE}"\nrun = "true"\n')
    done = project.runnable("run", code=2, RUNNABLE_CI_CONTAINER_ENGINE="apptainer")
    assert "`apptainer` is not on PATH" in done.err and "install a container engine" in done.err
    looked = project.runnable("preflight", code=1, RUNNABLE_CI_CONTAINER_ENGINE="apptainer").out
    assert "error    engine    `apptainer` is not on PATH" in looked
    assert f"podman runs {IMAGE}" in project.runnable("preflight").out


def test_an_image_that_an_earlier_step_builds(tmp_path: Path, podman: Podman) -> None:
    """It is looked for when its step begins."""
    project = project_of(
        tmp_path,
        podman,
        f"""
[steps.build]
run = "podman tag {IMAGE} localhost/built"
[steps.a]
container = "localhost/built"
run = "true"
""",
    )
    try:
        project.runnable("run")
        assert image_in(project.log()).code_identifier_url in ("localhost/built", IMAGE)
    finally:
        podman("rmi", "localhost/built")


@pytest.mark.promise
def test_credentials(tmp_path: Path, podman: Podman) -> None:
    """An image is pulled with them, and neither log nor output has the password, nor a command line."""
    with password_registry(tmp_path / "registry") as served:
        podman.allow(served.host)
        name = f"{served.repository()}:v1"
        push_as(podman, name, "x", "--creds", f"{USERNAME}:{PASSWORD}")
        table = f'container = {{ image = "{name}", credentials = {{ username = "WHO", password = "WORD" }} }}'
        project = project_of(tmp_path, podman, f'[steps.a]\n{table}\nrun = "test -z \\"$WORD\\"; echo $CONTENT"\n')
        unset = project.runnable("run", code=2)
        assert "the environment variable that `username` names is not set" in unset.err
        wrong = project.runnable("run", code=2, WHO=USERNAME, WORD="not the password")
        assert "cannot be pulled" in wrong.err and "not the password" not in wrong.err
        done = project.runnable("run", WHO=USERNAME, WORD=PASSWORD)
        assert PASSWORD not in done.err + project.runnable("show", "--json", "latest").out
        assert image_in(project.log()).code_identifier_dependable


@pytest.mark.promise
def test_secrets_are_on_no_command_line(tmp_path: Path, podman: Podman) -> None:
    """A declared secret reaches the container, and neither the log nor any command line has it."""
    project = project_of(
        tmp_path,
        podman,
        f"""
secrets = ["API_KEY"]
[steps.a]
container = {{ image = "{IMAGE}", env = {{ PATH = "/bin:/other" }} }}
run = '''
test "${{#API_KEY}}" = 16
test "${{PATH#/bin:}}" = /other
test -z "$NOT_PASSED"
'''
""",
    )
    project.environ["PATH"] = f"{docker_shim(tmp_path / 'shim')}:{project.environ['PATH']}"
    project.environ.update(RUNNABLE_CI_CONTAINER_ENGINE="docker", DOCKER_CALLS=str(tmp_path / "calls"))
    done = project.runnable("run", API_KEY="a-secret-value-1", NOT_PASSED="x")
    assert "a-secret-value-1" not in done.err + project.runnable("show", "--json", "latest").out
    calls = (tmp_path / "calls").read_text()
    assert "--env API_KEY " in calls and "a-secret-value-1" not in calls and "/bin:/other" not in calls


@pytest.mark.parametrize("ending", ["timeout", "cancel"])
def test_the_container_ends_with_the_step(tmp_path: Path, podman: Podman, ending: str) -> None:
    """On a time limit and on a cancellation, though the first process of a container ignores signals."""
    limit = "timeout-minutes = 0.02\n" if ending == "timeout" else ""
    project = project_of(
        tmp_path, podman, f'[steps.a]\n{limit}container = "{IMAGE}"\nrun = "touch began; sleep 1000"\n'
    )
    if ending == "timeout":
        project.runnable("run", code=1)
    else:
        with project.start("run") as running:
            wait_until((project.folder / "began").exists, "the step")
            running.send_signal(signal.SIGTERM)
            assert running.wait() == 128 + signal.SIGTERM
    outcome = {"timeout": "timed_out", "cancel": "cancelled"}
    assert project.log().steps["a"].attempts[0].outcome == outcome[ending]
    assert podman.containers() == []


def test_a_killed_run_leaves_no_container_to_its_retry(tmp_path: Path, podman: Podman) -> None:
    """What a run that was killed left running is ended when the run is resumed."""
    project = project_of(
        tmp_path, podman, f'[steps.a]\ncontainer = "{IMAGE}"\nrun = "test -e began || {{ touch began; sleep 1000; }}"\n'
    )
    with project.start("run", "--run-id", "first") as running:
        wait_until((project.folder / "began").exists, "the step")
        running.kill()
    assert len(podman.containers()) == 1
    project.runnable("retry", "first")
    assert podman.containers() == []


def test_docker(tmp_path: Path, podman: Podman) -> None:
    """docker's own command line runs the step: the image by its id, with a name, as the caller."""
    shim = docker_shim(tmp_path / "shim")
    project = project_of(tmp_path, podman, f'[steps.a]\ncontainer = "{IMAGE}"\nrun = "id"\n')
    project.environ.update({"PATH": f"{shim}:{project.environ['PATH']}", "DOCKER_CALLS": str(tmp_path / "calls")})
    project.runnable("run", RUNNABLE_CI_CONTAINER_ENGINE="docker")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0].startswith("version") and calls[1].strip() == f"image inspect {IMAGE}"
    assert f"--user {os.getuid()}:{os.getgid()}" in calls[-1]
    assert project.log().status == "SUCCESS"


def test_what_is_opened_elsewhere_is_not_seen(tmp_path: Path) -> None:
    """Without an event of the canary nothing is known of a container's reads; any process here that opens it is one."""
    canary = ContainerCanary(tmp_path / "canary")
    assert canary.not_seen() == "what its container opened is not seen from here"
    canary = ContainerCanary(tmp_path / "canary")
    subprocess.run(["cat", str(tmp_path / "canary")], check=True)
    assert canary.not_seen() == ""
    assert ContainerCanary(tmp_path / "none" / "canary").not_seen()


def test_a_container_whose_files_are_not_seen(tmp_path: Path, podman: Podman) -> None:
    """Its reads are unknown, which is recorded, and its products are kept."""
    project = project_of(
        tmp_path,
        podman,
        f"""
[steps.a]
container = "{IMAGE}"
shell = "/bin/busybox sh {{0}}"
run = "cat data.txt > made.txt"
catalog = {{ put = ["made.txt"] }}
""",
        **{"data.txt": "data"},
    )
    project.runnable("run")
    attempt = project.log().steps["a"].attempts[0]
    assert (attempt.reads, attempt.not_seen) == ("", "what its container opened is not seen from here")
    assert [entry.name for entry in project.log().steps["a"].put_entries()] == ["made.txt"]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("no-such-command", "exit code 127: a command was not found in the container"),
        ("sleep 9 & kill -9 $!; wait $!", "usually a command that was ended by SIGKILL"),
        ("exit 3", "exit code 3"),
    ],
)
def test_exit_codes(tmp_path: Path, podman: Podman, run: str, says: str) -> None:
    """They are those of the command; what they say is about the image, not about this machine."""
    project = project_of(tmp_path, podman, f"[steps.a]\ncontainer = \"{IMAGE}\"\nrun = '{run}'\n")
    done = project.runnable("run", code=1)
    assert says in project.log().steps["a"].attempts[0].message
    assert "is not on PATH" not in done.err


def test_a_shell_as_strict_as_it_can_be(tmp_path: Path, podman: Podman) -> None:
    """Without bash the image's sh runs the step, and sees a failure, also within a pipe where it knows that."""
    table = f'container = "{IMAGE}"\n'
    project = project_of(
        tmp_path,
        podman,
        f'[steps.a]\n{table}run = "false; echo after"\ncontinue-on-error = true\n'
        f'[steps.b]\n{table}run = "false | true; echo after"\ncontinue-on-error = true\n',
    )
    project.runnable("run")
    log = project.log()
    assert [log.steps[name].attempts[0].exit_code for name in "ab"] == [1, 1]


def test_a_long_script(tmp_path: Path, podman: Podman) -> None:
    """One that is too long for a command line is read from a file."""
    project = project_of(
        tmp_path, podman, f"[steps.a]\ncontainer = \"{IMAGE}\"\nrun = '''\necho {'x' * 70_000} | wc -c\n'''\n"
    )
    project.runnable("run")
    assert project.runnable("logs", "latest", "a").out == "70001\n"


def test_the_caller_has_a_name_in_dockers_containers(tmp_path: Path, podman: Podman) -> None:
    """Beside the users that the image has; podman and root need none."""
    shim = docker_shim(tmp_path / "shim")
    environ = {**os.environ, **podman.environ}
    docker = ContainerEngine("docker", str(shim / "docker"))
    files = passwd_files(docker, IMAGE, environ, 1234, 70)
    assert files["passwd"].splitlines()[-2:] == [
        b"service:x:70:70::/:/bin/sh",
        b"runner:x:1234:70::/:/bin/sh",
    ]
    assert files["group"].splitlines()[-1] == b"runner:x:70:"
    assert passwd_files(docker, IMAGE, environ, 0, 0) == {}
    assert passwd_files(docker._replace(kind="podman"), IMAGE, environ, 1234, 70) == {}
    assert podman.containers() == []


def test_an_engine_that_does_not_answer_is_passed_over(tmp_path: Path, podman: Podman) -> None:
    """Such as docker's client without its daemon; the error of none says what is wrong with each."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text("#!/bin/sh\necho 'Cannot connect to the daemon' >&2\nexit 1\n")
    (folder / "docker").chmod(0o755)
    found = find_engine({"PATH": f"{folder}:{os.environ['PATH']}"})
    assert found.kind == "podman"
    with pytest.raises(StepError, match="docker does not answer: Cannot connect to the daemon"):
        find_engine({"PATH": str(folder)})
    with pytest.raises(StepError, match="neither docker nor podman nor apptainer is on PATH"):
        find_engine({"PATH": str(tmp_path)})


def test_apptainer_asks_the_registry_for_the_digest(tmp_path: Path, podman: Podman, served: Served) -> None:
    """It has no images of its own that could be asked; then it is that digest that runs."""
    name = pushed(podman, served)
    apptainer = ContainerEngine("apptainer", "apptainer")
    resolved = partial(
        resolve_image, apptainer, workspace=tmp_path, environ={}, temporaries=tmp_path, say=lambda _: None
    )
    image = resolved(Container(name), None)
    assert image.reference == f"docker://{name.rpartition(':')[0]}@{image.digest}" and image.is_published
    assert resolved(Container(name), image).reference == image.reference
    with pytest.raises(StepError, match="cannot be found"):
        resolved(Container(f"{name}-not"), None)
    (tmp_path / "x.sif").write_bytes(b"image")
    of_file = resolved(Container("x.sif"), None)
    assert of_file.digest == f"sha256:{sha256(b'image')}" and not of_file.is_published


def test_paths_of_a_host_whose_docker_runs_the_step(tmp_path: Path, podman: Podman) -> None:
    """In a container with docker's socket the mounts are those of the host; this container is known by its name."""
    (tmp_path / ".dockerenv").touch()
    docker = ContainerEngine("docker", str(docker_shim(tmp_path / "shim") / "docker"))
    environ = {**os.environ, **podman.environ, "HOSTNAME": "job-of-github"}
    podman("run", "--detach", "--name", "job-of-github", "--volume", f"{tmp_path}:/__w", IMAGE, "sleep", "1000")
    try:
        described = own_container(docker, environ, tmp_path / ".dockerenv")
        assert on_host("/__w/project", mounts_of(described)) == f"{tmp_path}/project"
        assert own_container(docker, {**environ, "HOSTNAME": "another"}, tmp_path / ".dockerenv") is None
        assert own_container(docker, environ, tmp_path / "none") is None
    finally:
        podman("rm", "--force", "--time", "0", "job-of-github")


def test_a_matrix_of_images(tmp_path: Path, podman: Podman) -> None:
    """Each instance runs in its own; a name that turns out to be none fails that instance, before anything is asked."""
    image = 'image = "${{ parameters.base }}/${{ matrix.image }}"'
    more = 'env = { N = "n ${{ matrix.n }}" }, volumes = ["./d${{ matrix.n }}:/d"]'
    project = project_of(
        tmp_path,
        podman,
        f"""
[parameters]
base = "localhost"
[steps.a]
strategy = {{ matrix = {{ image = ["busybox", "busybox:latest", "Not one"], n = [1] }} }}
container = {{ {image}, {more} }}
run = 'test "$N $(cat /d/file)" = "n 1 text"'
""",
        **{"d1/file": "text"},
    )
    done = project.runnable("run", code=1)
    log = project.log()
    ran = {step.attempts[0].message: step for name, step in log.steps.items() if step.attempts and name != "a"}
    assert [message for message in ran if message] == ['container: "localhost/Not one" is not the name of an image']
    assert "pulling" not in done.err
    outcomes = [step.attempts[0].outcome for name, step in log.steps.items() if name.startswith("a.")]
    assert sorted(outcomes) == ["failed", "succeeded", "succeeded"]


def test_a_part_in_a_container(tmp_path: Path, podman: Podman) -> None:
    """A step of another file has its own, whose absence is known before anything runs, at its place in that file."""
    project = project_of(
        tmp_path,
        podman,
        '[steps.first]\nrun = "touch ran"\n[steps.a]\nuses = "./part.toml"\n',
        **{"part.toml": '[steps.b]\ncontainer = "localhost/none"\nrun = "echo $FROM_IMAGE"\n'},
    )
    done = project.runnable("run", code=2)
    assert "part.toml:2: [steps.b] the image localhost/none is not here" in done.err
    assert not (project.folder / "ran").exists()
    project.write({"part.toml": f'[steps.b]\ncontainer = "{IMAGE}"\nrun = "echo $FROM_IMAGE"\n'})
    project.runnable("run")
    assert "image        localhost/busybox@sha256:" in project.runnable("show", "latest").out
