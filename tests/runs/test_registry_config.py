"""Which registry is meant where none is named, and what is sent where: seen by servers that record it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from registry_server import Reply, Seen, serving

from runnable_ci.config import Settings
from runnable_ci.errors import RegistryAuthError, UsageError
from runnable_ci.runs.remote.registry_config import Registries, split_run
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry

JOB = {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "Owner/Repo"}
IN_ACTION = {**JOB, "RUNNABLE_CI_ACTION_COMMAND": "run"}
SECRET: Mapping[str, Any] = {"registry_username": "ada", "registry_password": "s3cret"}
LOGIN = """\
  RUNNABLE_CI_REGISTRY_USERNAME: ${{ github.actor }}
  RUNNABLE_CI_REGISTRY_PASSWORD: ${{ github.token }}"""
OTHER_SERVERS = {
    "acme.ghe.com": {"GITHUB_SERVER_URL": "https://acme.ghe.com"},
    "ghe.example.org": {
        "GITHUB_SERVER_URL": "https://ghe.example.org",
        "GITHUB_API_URL": "https://ghe.example.org/api/v3",
    },
    "codeberg.org": {"GITHUB_SERVER_URL": "https://codeberg.org", "FORGEJO_ACTIONS": "true"},
}


def none() -> str | None:
    """A pipeline file that names no registry."""
    return None


def test_which_registry_is_meant() -> None:
    """The one that is named, else the settings', else the pipeline file's, else that of the GitHub repository."""
    set_up = Registries(Settings(registry="settings.io/a"), JOB)
    plain = Registries(Settings(), JOB)
    assert set_up.named("given.io/a", in_pipeline=lambda: "file.io/a").label == "given.io/a"
    assert set_up.named(None, in_pipeline=lambda: "file.io/a").label == "settings.io/a"
    assert plain.named(None, in_pipeline=lambda: "file.io/a").label == "file.io/a"
    assert plain.named(None, in_pipeline=none).label == "ghcr.io/owner/repo/runs"
    with pytest.raises(UsageError, match="no registry is set"):
        Registries(Settings(), {}).named(None, in_pipeline=none)
    with pytest.raises(UsageError, match="is the reference of a run"):
        plain.named("h.io/a:r", in_pipeline=none)


@pytest.mark.promise
def test_runs_of_pull_requests_go_elsewhere() -> None:
    """By default no run of a pull request is where those of branches are; a registry that was set is kept."""
    for variables in ({"GITHUB_HEAD_REF": "topic"}, {"GITHUB_REF": "refs/pull/7/merge"}):
        environ = {**JOB, **variables}
        found = Registries(Settings(), environ).named(None, in_pipeline=none)
        assert found.label == "ghcr.io/owner/repo/runs/pull-requests"
    assert Registries(Settings(registry="h.io/a"), environ).named(None, in_pipeline=none).label == "h.io/a"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("r", ("", "r", "")),
        (f"r@sha256:{'1' * 64}", ("", "r", f"sha256:{'1' * 64}")),
        ("h.io:5000/a/b:r", ("h.io:5000/a/b", "r", "")),
        (f"h.io/a:r@sha256:{'1' * 64}", ("h.io/a", "r", f"sha256:{'1' * 64}")),
    ],
)
def test_a_run_with_its_registry_and_digest(text: str, parts: tuple[str, str, str]) -> None:
    """Each part may be left out but the run id."""
    assert split_run(text) == parts


@pytest.mark.parametrize("server", OTHER_SERVERS)
def test_another_server_has_no_registry_by_itself(server: str) -> None:
    """Neither a namespace of github.com's nor any other is taken for it; what to write is said."""
    environ = {**IN_ACTION, **OTHER_SERVERS[server]}
    with pytest.raises(UsageError) as caught:
        Registries(Settings(), environ).named(None, in_pipeline=none)
    assert caught.value.message == (f"no registry is set: ghcr.io is github.com's, and the server here is {server}")
    host = server if server == "codeberg.org" else f"containers.{server}"
    assert caught.value.fix == f"with:\n  registry: {host}/owner/repo/runs\nenv:\n{LOGIN}"
    named = Registries(Settings(), environ)
    assert named.named(f"{host}/owner/repo/runs", in_pipeline=none).label == f"{host}/owner/repo/runs"
    assert named.named(None, in_pipeline=lambda: "file.io/a").label == "file.io/a"


def test_a_command_in_a_job_is_told_in_its_own_words() -> None:
    """It has no inputs, but the job's variables."""
    environ = {**JOB, "GITHUB_SERVER_URL": "https://acme.ghe.com"}
    with pytest.raises(UsageError) as caught:
        Registries(Settings(), environ).named(None, in_pipeline=none)
    assert caught.value.fix == f"env:\n  RUNNABLE_CI_REGISTRY: containers.acme.ghe.com/owner/repo/runs\n{LOGIN}"


@pytest.mark.parametrize("variables", [{"GH_HOST": "acme.ghe.com"}, {"GITHUB_SERVER_URL": "https://acme.ghe.com"}])
def test_a_laptop_that_names_another_server_is_told_too(variables: Mapping[str, str]) -> None:
    """There is an example at that server."""
    with pytest.raises(UsageError) as caught:
        Registries(Settings(), variables).named(None, in_pipeline=none)
    assert str(caught.value) == (
        "error: no registry is set: ghcr.io is github.com's, and the server here is acme.ghe.com\n"
        "hint: specify one (containers.acme.ghe.com/owner/repo/runs), set RUNNABLE_CI_REGISTRY, or add it to the "
        'pipeline file: registry = "containers.acme.ghe.com/owner/repo/runs"'
    )


@pytest.mark.parametrize("name", [".github", "my-repo-", "_x", "a..b", "a___b", "___", "Big.Name"])
def test_a_repository_has_a_place_by_itself_whatever_its_name(name: str) -> None:
    """What a registry takes is the name itself, in lower case; another name gets a similar one, always the same."""
    environ = {**IN_ACTION, "GITHUB_REPOSITORY": f"Octo/{name}"}
    label = Registries(Settings(), environ).named(None, in_pipeline=none).label
    assert label == Registries(Settings(), environ).named(None, in_pipeline=none).label
    assert re.fullmatch(r"ghcr\.io/octo/([a-z0-9-]+-)?[0-9a-f]{8}/runs|ghcr\.io/octo/big\.name/runs", label)
    assert parse_reference(label).repository == label


def test_no_two_repositories_have_one_place() -> None:
    """Names that differ only in what a registry does not take differ in the digest."""
    names = ["a-b", "a--b", "a..b", "a.-b", "a-.b", "a___b", ".a-b", "a-b.", "-a-b", "_a-b", "a-b-", ".", "..", "_"]
    environs = ({**IN_ACTION, "GITHUB_REPOSITORY": f"octo/{name}"} for name in names)
    labels = {Registries(Settings(), environ).named(None, in_pipeline=none).label for environ in environs}
    assert len(labels) == len(names)
    assert {"ghcr.io/octo/a-b/runs", "ghcr.io/octo/a--b/runs"} <= labels


@pytest.mark.parametrize(
    ("repository", "example"),
    [(".github/.github", "github/github"), ("octo-/a..b", "octo/a-b"), ("-/___", "owner/repo")],
)
def test_an_owner_whose_name_no_registry_can_have_is_told(repository: str, example: str) -> None:
    """On github.com another name may be another owner's; nothing about a login, since that is not ours to know."""
    environ = {**IN_ACTION, "GITHUB_REPOSITORY": repository}
    with pytest.raises(UsageError, match=r"no registry is set: no registry takes the owner's name, .*") as caught:
        Registries(Settings(), environ).named(None, in_pipeline=none)
    assert caught.value.fix == f"with:\n  registry: HOST/{example}/runs"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("h.io:5000/octo/runs:latest", "h.io:5000/octo/runs"),
        ("https://H.io/Octo/runs:v1", "h.io/octo/runs"),
        ("h.io", "ghcr.io/owner/repo/runs"),
        ("h.io/a b", "ghcr.io/owner/repo/runs"),
        ("octo/runs", "ghcr.io/owner/repo/runs"),
    ],
)
def test_what_to_write_in_place_of_a_wrong_registry_is_told(text: str, right: str) -> None:
    """As lines for the workflow: what the text was to be, or an example."""
    with pytest.raises(UsageError) as caught:
        Registries(Settings(registry=text), IN_ACTION).named(None, in_pipeline=none)
    assert caught.value.fix == f"with:\n  registry: {right}"


Use = Callable[[Registries, str], Registry]


def given(registries: Registries, repository: str) -> Registry:
    """Named by an option."""
    return registries.named(repository, in_pipeline=none)


def by_reference(registries: Registries, repository: str) -> Registry:
    """Named by the reference of a run."""
    return registries.run(f"{repository}:r", None)[0]


def in_file(registries: Registries, repository: str) -> Registry:
    """Named by a repository's pipeline file."""
    return registries.named(None, in_pipeline=lambda: repository)


def recorded(registries: Registries, repository: str) -> Registry:
    """Named by the note of a pulled run."""
    return registries.recorded(repository)


def recorded_and_given(registries: Registries, repository: str) -> Registry:
    """Named by the note of a pulled run, and at the same host by the command."""
    return registries.recorded(repository, named=f"{repository.partition('/')[0].upper()}/other/runs")


def recorded_and_other_given(registries: Registries, repository: str) -> Registry:
    """Named by the note of a pulled run, while the command names another host."""
    return registries.recorded(repository, named="other.io/runs")


USES: list[Use] = [given, by_reference, in_file, recorded, recorded_and_given, recorded_and_other_given]
OWN_WORD = [given, by_reference, recorded_and_given]


@pytest.mark.parametrize(
    ("use", "setting"),
    # With a registry in the settings no file is asked.
    [
        (use, setting)
        for use in USES
        for setting in ("", "same host", "other host")
        if use is not in_file or not setting
    ],
)
def test_the_password_goes_only_to_a_host_that_a_person_named(use: Use, setting: str) -> None:
    """In the settings, or else by an option or a reference; what a repository or a log says is no such word."""

    def challenge(_seen: Seen, _forward: Callable[[], Reply]) -> Reply:
        return Reply(401, {"WWW-Authenticate": 'Basic realm="x"'}, b"{}")

    with serving(challenge) as server:
        registry = {"": None, "same host": f"{server.host}/quite/other", "other host": "other.io/a"}[setting]
        settings = Settings.model_validate({**SECRET, "registry": registry})
        with pytest.raises(RegistryAuthError) as caught:
            use(Registries(settings, {}), server.repository()).resolve("r")
        sent = any(seen.authorization for seen in server.seen)
    assert sent == (setting == "same host" or (setting == "" and use in OWN_WORD))
    assert caught.value.hint.startswith("docker login " if sent else "RUNNABLE_CI_REGISTRY_PASSWORD is not sent to 127")
    if not sent:
        whose = "it is for other.io" if setting else "that host was not specified by you"
        assert whose in caught.value.hint
        assert f"set RUNNABLE_CI_REGISTRY={server.host}/owner/" in caught.value.hint


def test_the_default_is_no_word_of_a_person() -> None:
    """`ghcr.io` has the job's own token; the password is another registry's until somebody says otherwise."""
    registry = Registries(Settings.model_validate(SECRET), JOB).named(None, in_pipeline=none)
    assert registry.advice
    assert registry.advice.fix == "env:\n  RUNNABLE_CI_REGISTRY: ghcr.io/owner/repo/runs"
    named = Registries(Settings.model_validate(SECRET), JOB).named("ghcr.io/owner/repo/runs", in_pipeline=none)
    assert named.advice is None


@pytest.mark.parametrize("environ", [{"GH_HOST": "acme.ghe.com"}, {**JOB, "GITHUB_SERVER_URL": "https://acme.ghe.com"}])
@pytest.mark.parametrize("where", ["settings", "GITHUB_TOKEN"])
def test_a_token_that_is_not_sent_is_told(environ: Mapping[str, str], where: str) -> None:
    """Who names ghcr.io with another server's token learns which credentials would do."""
    token = {"github_token": "ghs_x"} if where == "settings" else {}
    settings = Settings.model_validate(token)
    environ = environ if token else {**environ, "GITHUB_TOKEN": "ghs_x"}
    advice = Registries(settings, environ).open(parse_reference("ghcr.io/o/r")).advice
    assert advice
    assert advice.hint.startswith(
        "the token belongs to acme.ghe.com and is not sent to ghcr.io: `docker login ghcr.io`"
    )
    assert Registries(settings, environ).open(parse_reference("other.io/o/r")).advice is None
