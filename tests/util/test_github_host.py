"""Whose a token in the environment is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from runnable_ci.util.github_host import github_host

JOB = {"GITHUB_ACTIONS": "true"}


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({}, "github.com"),
        (JOB, "github.com"),
        ({"GITHUB_SERVER_URL": "https://github.com"}, "github.com"),
        ({"GITHUB_SERVER_URL": "https://github.com/"}, "github.com"),
        ({"GITHUB_SERVER_URL": "HTTPS://GitHub.com"}, "github.com"),
        ({"GITHUB_SERVER_URL": "", "GH_HOST": " "}, "github.com"),
        ({"GH_HOST": "github.com"}, "github.com"),
        ({"GITHUB_API_URL": "https://api.github.com"}, "github.com"),
        ({"GITHUB_SERVER_URL": "https://acme.ghe.com"}, "acme.ghe.com"),
        ({"GITHUB_API_URL": "https://api.acme.ghe.com"}, "acme.ghe.com"),
        ({"GH_HOST": "acme.ghe.com"}, "acme.ghe.com"),
        ({"GITHUB_SERVER_URL": "https://ghe.example.org:8443/"}, "ghe.example.org:8443"),
        ({"GITHUB_API_URL": "https://ghe.example.org/api/v3"}, "ghe.example.org"),
        ({"GITHUB_SERVER_URL": "https://codeberg.org", **JOB}, "codeberg.org"),
        ({"GITHUB_SERVER_URL": "http://127.0.0.1:3000", **JOB}, "127.0.0.1:3000"),
        # Whoever looks like it is not it.
        ({"GH_HOST": "github.com.evil.test"}, "github.com.evil.test"),
        ({"GH_HOST": "evilgithub.com"}, "evilgithub.com"),
        ({"GITHUB_SERVER_URL": "https://github.com@evil.test/"}, "evil.test"),
        ({"GITHUB_SERVER_URL": "https://evil.test/github.com"}, "evil.test"),
        ({"GITHUB_SERVER_URL": "https://evil.test?github.com"}, "evil.test"),
        ({"GITHUB_SERVER_URL": "https://[::1"}, "[::1"),
        ({"GITHUB_SERVER_URL": "https://"}, ""),
        # Of two that a person's variables name, the other one: the token may be that one's.
        ({"GH_HOST": "ghe.example.org", "GITHUB_SERVER_URL": "https://github.com"}, "ghe.example.org"),
        ({"GH_HOST": "github.com", "GITHUB_SERVER_URL": "https://ghe.example.org"}, "ghe.example.org"),
        # In a job the runner tells, and what a step's own programs are told does not change whose its token is.
        ({"GH_HOST": "ghe.example.org", "GITHUB_SERVER_URL": "https://github.com", **JOB}, "github.com"),
        ({"GH_HOST": "github.com", "GITHUB_SERVER_URL": "https://ghe.example.org", **JOB}, "ghe.example.org"),
    ],
)
def test_the_server_that_an_environment_is_about(environ: Mapping[str, str], host: str) -> None:
    """github.com only where nothing names another one."""
    assert github_host(environ) == host
