"""Tests of the container that a whole job runs in: asked of a real service with docker's API, that of podman."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from podman import IMAGE, Podman, podman_with_image
from support import wait_until

from runnable_ci.cli.terminal import SilentPrinter
from runnable_ci.config import Settings
from runnable_ci.engine.code.job_container import find_job_container
from runnable_ci.engine.options import Options, job_container


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Podman with the image and a container of it that runs."""
    with podman_with_image() as found:
        found("run", "--detach", "--name", "job", IMAGE, "sleep", "1000")
        yield found
        found("rm", "--force", "--time", "0", "job")


def test_the_docker_that_started_the_job_knows_it(tmp_path: Path, podman: Podman) -> None:
    """By the id that the container's mounts name, or by its host name; any other answer leaves it unknown."""
    mark, mounts, socket = tmp_path / ".dockerenv", tmp_path / "mountinfo", tmp_path / "docker.sock"
    environ = {"DOCKER_HOST": f"unix://{socket}", "HOSTNAME": "job"}
    assert find_job_container(environ, marks=(mark,), mounts=mounts) is None
    mark.touch()
    unknown = find_job_container(environ, marks=(mark,), mounts=mounts)
    assert unknown is not None and not unknown.code_identifier
    assert unknown.code_identifier_message == "the job runs in a container whose image is not known"
    command = ["podman", "system", "service", "--time", "0", f"unix://{socket}"]
    with subprocess.Popen(command, env={**os.environ, **podman.environ}, stderr=subprocess.DEVNULL) as service:
        try:
            wait_until(socket.exists, "the service")
            by_name = find_job_container(environ, marks=(mark,), mounts=mounts)
            assert by_name is not None
            assert by_name.code_identifier == f"sha256:{podman('image', 'inspect', '--format', '{{.Id}}', IMAGE)}"
            assert by_name.code_identifier_message.startswith("container of the job: no registry")
            number = podman("container", "inspect", "--format", "{{.Id}}", "job")
            mounts.write_text(f"1 2 8:1 /var/lib/docker/containers/{number}/hostname /etc/hostname rw - ext4 /dev rw\n")
            assert find_job_container({**environ, "HOSTNAME": "none"}, marks=(mark,), mounts=mounts) == by_name
            mounts.write_text("")
            assert find_job_container({**environ, "HOSTNAME": "none"}, marks=(mark,), mounts=mounts) == unknown
        finally:
            service.terminate()


def test_an_image_that_is_named_is_not_looked_for() -> None:
    """By the action's input; and outside of a job nothing is looked for."""
    digest = f"sha256:{'a' * 64}"
    settings = Settings(container_image_digest=f"ghcr.io/o/i@{digest}")
    named = job_container(Options(None, {"GITHUB_ACTIONS": "true"}, SilentPrinter.of_process(), settings=settings))
    assert named is not None and (named.code_identifier_url, named.code_identifier) == (
        "ghcr.io/o/i",
        f"sha256:{'a' * 64}",
    )
    assert job_container(Options(None, {}, SilentPrinter.of_process())) is None
