"""Tests of what is run for a step in a container: values in, values out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import pytest

from runnable_ci.errors import PipelineError, StepError
from runnable_ci.pipeline.container import Container
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.runs.model import RunLog, StepAttempt, StepLog
from runnable_ci.steps.containers.apptainer import exec_command, exec_environment
from runnable_ci.steps.containers.command_line import ContainerCall, Mount, run_command, split_volume
from runnable_ci.steps.containers.engines import ContainerEngine
from runnable_ci.steps.containers.host_paths import mounts_of, on_host
from runnable_ci.steps.containers.image_names import image_of, parse_image, resolved_images
from runnable_ci.steps.containers.users import entries

DIGEST = f"sha256:{'a' * 64}"
OTHER = f"sha256:{'b' * 64}"
DOCKER = ContainerEngine("docker", "/usr/bin/docker")
PODMAN = ContainerEngine("podman", "/usr/bin/podman", is_rootless=True)
APPTAINER = ContainerEngine("apptainer", "/usr/bin/apptainer")


def container_of(value: Any) -> Container:
    """The container of a step with this in the pipeline file."""
    found = resolve({"steps": {"a": {"run": "x", "container": value}}}, file="f", default_name="n")
    container = found.steps["a"].container
    assert container is not None
    return container


def call(**more: Any) -> ContainerCall:
    """A step of a user in a workspace."""
    variables = {"HOME": "/w/home", "API_KEY": "secret", "PATH": "/opt/bin"}
    given: dict[str, Any] = {
        "container": Container("image"),
        "image": "id-of-image",
        "name": "runnable-1",
        "argv": ("sh", "-c", "x"),
        "folder": "/w/sub",
        "variables": variables,
        "mounts": (Mount("/host/w", "/w"), Mount("/lib/ours", "/lib/ours", is_read_only=True)),
        "volumes": (),
        "user": (1000, 100),
        "file": "/w/env",
    }
    return ContainerCall(**{**given, **more})


def pairs(argv: tuple[str, ...]) -> set[tuple[str, str]]:
    """Each word with the one behind it."""
    return set(pairwise(argv))


@pytest.mark.promise
def test_dockers_command() -> None:
    """The caller's user, the workspace where it is, names of variables and no value, and the image at the end."""
    argv = run_command(DOCKER, call())
    assert argv[:2] == ("/usr/bin/docker", "run")
    assert pairs(argv) >= {
        ("--user", "1000:100"),
        ("--workdir", "/w/sub"),
        ("--mount", "type=bind,source=/host/w,target=/w"),
        ("--mount", "type=bind,source=/lib/ours,target=/lib/ours,readonly"),
        ("--env", "API_KEY"),
        ("--env-file", "/w/env"),
        ("--pull", "never"),
    }
    assert argv[-5:] == ("--entrypoint", "sh", "id-of-image", "-c", "x")
    assert not any("secret" in word or "/opt/bin" in word for word in argv)
    assert ("--env", "PATH") not in pairs(argv)  # docker itself looks for programs there
    assert "--privileged" not in argv


def test_rootless_podman_maps_the_user() -> None:
    """The user keeps its number, by podman's own means; an option of the pipeline file goes first."""
    assert ("--userns", "keep-id") in pairs(run_command(PODMAN, call()))
    assert ("--user", "0:0") in pairs(run_command(DOCKER._replace(is_rootless=True), call()))
    own = call(container=container_of({"image": "i", "options": "--user 0 --memory 4g"}))
    argv = run_command(PODMAN, own)
    assert "--userns" not in argv and pairs(argv) >= {("--user", "0"), ("--memory", "4g")}


@pytest.mark.parametrize(
    ("engine", "wanted", "words"),
    [
        (DOCKER, "all", ["--gpus", "all"]),
        (DOCKER, "2", ["--gpus", "2"]),
        (PODMAN, "all", ["--device", "nvidia.com/gpu=all"]),
        (PODMAN, "2", ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"]),
        (PODMAN, "device=3,5", ["--device", "nvidia.com/gpu=3", "--device", "nvidia.com/gpu=5"]),
    ],
)
def test_gpus(engine: ContainerEngine, wanted: str, words: list[str]) -> None:
    """Each engine has its own words for them."""
    argv = run_command(engine, call(container=Container("i", gpus=wanted)))
    at = argv.index(words[0])
    assert list(argv[at : at + len(words)]) == words


def test_a_path_with_a_comma() -> None:
    """It would end a word of `--mount`."""
    argv = run_command(DOCKER, call(mounts=(Mount("/a,b", "/a,b", is_read_only=True),)))
    assert ("--volume", "/a,b:/a,b:ro") in pairs(argv)


def test_apptainers_command() -> None:
    """Only the named variables and folders, from a clean environment; the process is its child."""
    made = call(container=Container("i", gpus="all", network="none"), volumes=("/d:/d",), image="docker://i@" + DIGEST)
    argv = exec_command(APPTAINER, made)
    assert argv[:4] == ("/usr/bin/apptainer", "exec", "--containall", "--cleanenv")
    assert pairs(argv) >= {
        ("--home", "/w/home"),
        ("--bind", "/lib/ours:/lib/ours:ro"),
        ("--bind", "/d:/d"),
        ("--pwd", "/w/sub"),
        ("--network", "none"),
    }
    assert argv[-4:] == (f"docker://i@{DIGEST}", "sh", "-c", "x") and "--nv" in argv
    environ = exec_environment(made)
    assert environ["APPTAINERENV_API_KEY"] == environ["SINGULARITYENV_API_KEY"] == "secret"
    assert environ["APPTAINER_NO_EVAL"] == "1" and "PATH" not in environ


@pytest.mark.parametrize(
    ("volume", "expected"),
    [
        ("/data:/data:ro", "/data:/data:ro"),
        ("./data:/data", "/w/p/data:/data"),
        ("../data:/data", "/w/data:/data"),
        ("a/b:/data", "/w/p/a/b:/data"),
        ("cache:/data", "cache:/data"),
        (".:/data", "/w/p:/data"),
    ],
)
def test_volumes(volume: str, expected: str) -> None:
    """A path counts from the pipeline file's folder; a name is one of the engine's volumes."""
    assert split_volume(volume, "/w/p") == expected


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("python", "docker.io/library/python:latest"),
        ("python:3.12-slim", "docker.io/library/python:3.12-slim"),
        ("owner/image", "docker.io/owner/image:latest"),
        ("index.docker.io/python:3", "docker.io/library/python:3"),
        ("localhost/x:1", "localhost/x:1"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("ghcr.io/o/i:v1", "ghcr.io/o/i:v1"),
        (f"ghcr.io/o/i:v1@{DIGEST}", f"ghcr.io/o/i@{DIGEST}"),
        ("docker://ghcr.io/o/i", "ghcr.io/o/i:latest"),
    ],
)
def test_names(text: str, reference: str) -> None:
    """A name means the same whichever engine reads it: what docker makes of it."""
    assert parse_image(text).reference == reference


def test_the_digest_is_that_of_the_registry() -> None:
    """Of several the one of the repository that was named; an id is no digest, and `localhost` no registry."""
    described = {"Id": "c" * 64, "RepoDigests": [f"ghcr.io/o/i@{OTHER}", f"python@{DIGEST}"]}
    image = image_of("python:3.12", described)
    assert (image.repository, image.tag, image.digest) == ("docker.io/library/python", "3.12", DIGEST)
    assert image.is_published and image.identity().code_identifier_dependable
    assert image.reference == f"sha256:{'c' * 64}"
    here = {"Id": "c" * 64, "RepoDigests": [f"localhost/here@{OTHER}"], "RepoTags": ["localhost/here:1"]}
    built = image_of("here", here)
    assert (built.digest, built.is_published) == (f"sha256:{'c' * 64}", False)
    assert not built.identity().code_identifier_dependable


def test_a_digest_that_was_asked_for_is_the_one() -> None:
    """Also where the image has others."""
    described = {"Id": "c" * 64, "RepoDigests": [f"ghcr.io/o/i@{OTHER}", f"ghcr.io/o/i@{DIGEST}"]}
    assert image_of(f"ghcr.io/o/i@{DIGEST}", described).digest == DIGEST


def test_what_attempts_ran_in_is_known_from_the_log() -> None:
    """By the text in the pipeline file; the newest attempt counts, and an image without a digest is looked up again."""

    def attempt(number: int, text: str, described: dict[str, Any]) -> StepAttempt:
        return StepAttempt(
            invocation=number,
            definition={"run": "x", "container": {"image": text}},
            code_identities=[image_of(text, described).identity()],
        )

    first, second = ({"Id": "1", "RepoDigests": [f"ghcr.io/o/i@{one}"]} for one in (DIGEST, OTHER))
    attempts = [attempt(1, "ghcr.io/o/i", first), attempt(2, "ghcr.io/o/i", second), attempt(1, "x", {"Id": "2"})]
    log = RunLog(run_id="r", steps={"a": StepLog(name="a", internal_name="a", attempts=attempts)})
    found = resolved_images(log)
    assert {text: image.reference for text, image in found.items()} == {"ghcr.io/o/i": f"ghcr.io/o/i@{OTHER}"}
    assert found["ghcr.io/o/i"].identity() == attempts[1].code_identities[0]


def test_paths_of_the_host() -> None:
    """The nearest mount counts; what is only in this container is an error, and without mounts nothing changes."""
    mounts = mounts_of(
        {"Mounts": [{"Source": "/h/w", "Destination": "/__w"}, {"Source": "/h/x", "Destination": "/__w/x"}, {"a": 1}]}
    )
    assert on_host("/__w/a/b", mounts) == "/h/w/a/b"
    assert on_host("/__w/x/b", mounts) == "/h/x/b"
    assert on_host("/__w", mounts) == "/h/w"
    assert on_host("/other", None) == "/other"
    with pytest.raises(StepError, match="/__wide is only in this container"):
        on_host("/__wide", mounts)


def test_a_line_for_the_caller() -> None:
    """A number that is there stays as it is, and a name is given once."""
    there = b"root:x:0:0::/:/bin/sh\nrunner:x:5:5::/:/bin/sh"
    assert entries(there, "runner", 5, b":x") == there
    assert entries(there, "runner", 7, b":x:7:7").splitlines()[-1] == b"runner-7:x:7:7"
    assert entries(b"", "runner", 7, b":x:7:7") == b"runner:x:7:7\n"


@pytest.mark.parametrize(
    ("container", "says"),
    [
        ("Not An Image", "is not the name of an image"),
        ("owner/Image", "is not the name of an image"),
        ("--privileged", "is not the name of an image"),
        ({"image": "i", "volumes": ["/data"]}, "is not a volume"),
        ({"image": "i", "volumes": ["/data:relative"]}, "is not a volume"),
        ({"image": "i", "options": "--name x"}, "`--name` cannot be given"),
        ({"image": "i", "options": "-d"}, "`-d` cannot be given"),
        ({"image": "i", "options": "--env A=b"}, "`--env` cannot be given"),
        ({"image": "i", "options": "--label 'x"}, "options: No closing quotation"),
        ({"image": "i", "network": "--x"}, "is not a value for it"),
        ({"image": "i", "env": {"RUNNABLE_X": "y"}}, "is reserved"),
        ({"image": "i", "credentials": {"username": "U", "password": "a b"}}, "is not the name of an environment"),
        ({"imag": "i"}, "imag"),
    ],
)
def test_what_cannot_be_right(container: Any, says: str) -> None:
    """It is an error of the pipeline file, and never shows what may be a password."""
    with pytest.raises(PipelineError) as refused:
        container_of(container)
    assert says in str(refused.value) and "a b" not in str(refused.value)


def test_the_definition_has_the_container_where_there_is_one() -> None:
    """How an image is fetched is no part of it; a step without a container is defined as before."""
    table = {"image": "i:1", "options": "--memory 4g", "credentials": {"username": "U", "password": "P"}}
    steps = resolve(
        {"steps": {"a": {"run": "x", "container": table}, "b": {"run": "x"}, "c": {"run": "x", "container": ""}}},
        file="f",
        default_name="n",
    ).steps
    assert steps["a"].definition()["container"] == {"image": "i:1", "options": ["--memory", "4g"]}
    assert "container" not in steps["b"].definition() and steps["c"].container is None


def test_a_passed_variable() -> None:
    """By its name alone a variable of the caller's may be passed."""
    assert container_of({"image": "i", "options": "--env NAME"}).options == ("--env", "NAME")
    assert PurePosixPath(container_of("dir/x.sif").image).suffix == ".sif"
