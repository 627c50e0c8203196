"""Which login docker's configuration has for a repository: the one that docker would take, or an error about it."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from registry_server import Reply, serving

from runnable_ci.errors import RegistryAuthError
from runnable_ci.store.docker_config import DockerLogin, find_login
from runnable_ci.store.registry import Registry


def auth(name: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:of:{name}".encode()).decode()}


def login(name: str) -> DockerLogin:
    return DockerLogin(name, f"of:{name}")


def configured(folder: Path, config: object) -> dict[str, str]:
    """An environment with this configuration of docker, and a `PATH` that has a folder for helpers in front."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:{os.defpath}"}


def helper(folder: Path, name: str, script: str) -> None:
    """A credential helper that is a shell script."""
    folder.mkdir(exist_ok=True)
    path = folder / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


WRITTEN = r"""read host; echo "{\"ServerURL\": \"$host\", \"Username\": \"ada\", \"Secret\": \"$1-for-$host\"}" """


@pytest.mark.parametrize(
    ("auths", "host", "path", "expected"),
    [
        ({"reg.test": auth("a"), "reg.test/other": auth("b")}, "reg.test", "o/r", "a"),
        ({"reg.test/other": auth("b"), "reg.test": auth("a")}, "reg.test", "o/r", "a"),
        ({"reg.test": auth("a"), "reg.test/o": auth("b"), "reg.test/o/r": auth("c")}, "reg.test", "o/r", "c"),
        ({"reg.test": auth("a"), "reg.test/o": auth("b"), "reg.test/o/r": auth("c")}, "reg.test", "o/x", "b"),
        ({"reg.test": auth("a"), "reg.test/o": auth("b")}, "reg.test", "oo/r", "a"),
        ({"reg.test/other": auth("b")}, "reg.test", "o/r", None),
        ({"reg.test/o/": auth("b")}, "reg.test", "o/r", "b"),
        ({"https://reg.test/o": auth("b")}, "reg.test", "o/r", "b"),
        ({"https://reg.test/o": auth("b")}, "reg.test", "x/r", None),
        ({"https://reg.test/v1/": auth("b")}, "reg.test", "x/r", "b"),
        ({"https://reg.test/v2/": auth("b"), "reg.test": auth("a")}, "reg.test", "x/r", "a"),
        ({"https://reg.test": auth("b"), "reg.test": {}}, "reg.test", "x/r", "b"),
        ({"https://reg.test": auth("b"), "reg.test": {"email": "x"}}, "reg.test", "x/r", "b"),
        ({"reg.test:5000": auth("a")}, "reg.test:5000", "o/r", "a"),
        ({"reg.test:5000": auth("a")}, "reg.test", "o/r", None),
        ({"Reg.Test": auth("a")}, "reg.test", "o/r", "a"),
        ({"https://index.docker.io/v1/": auth("a")}, "docker.io", "o/r", "a"),
        ({"docker.io": auth("a")}, "registry-1.docker.io", "o/r", "a"),
        ({"docker.io/o": auth("b"), "https://index.docker.io/v1/": auth("a")}, "docker.io", "o/r", "b"),
        ({"reg.test.evil": auth("a"), "evil.reg.test": auth("b")}, "reg.test", "o/r", None),
        ({}, "reg.test", "o/r", None),
        (None, "reg.test", "o/r", None),
        ({"reg.test": None}, "reg.test", "o/r", None),
    ],
)
def test_the_longest_key_that_leads_to_a_repository_counts(
    tmp_path: Path, auths: object, host: str, path: str, expected: str | None
) -> None:
    """A login for one path is not used for another, and never for another host."""
    found = find_login(host, path, configured(tmp_path, {"auths": auths}))
    assert found == (None if expected is None else login(expected))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": auth("a")["auth"] + "\n"}, login("a")),
        ({"auth": auth("a")["auth"][:3] + "\r\n" + auth("a")["auth"][3:]}, login("a")),
        ({"auth": base64.b64encode(b"a:of:a\0").decode()}, login("a")),
        ({"auth": base64.b64encode("ä:ö".encode()).decode()}, DockerLogin("ä", "ö")),
        ({"auth": "", "username": "a", "password": "of:a"}, login("a")),
        ({"identitytoken": "x", **auth("a")}, DockerLogin("", "x", is_identity_token=True)),
        ({"identitytoken": "", **auth("a")}, login("a")),
    ],
)
def test_what_docker_takes_is_taken(tmp_path: Path, entry: object, expected: DockerLogin) -> None:
    """Line breaks in base64, zero bytes, plain fields and identity tokens."""
    assert find_login("reg.test", "o/r", configured(tmp_path, {"auths": {"reg.test": entry}})) == expected


@pytest.mark.parametrize("encoded", ["!", "YQ", "YQ==", "Onh4", "/w=="])
def test_a_login_that_cannot_be_read_is_named(tmp_path: Path, encoded: str) -> None:
    """The error has the key, the file and what to do, and nothing of the secret."""
    environ = configured(tmp_path, {"auths": {"reg.test/o": {"auth": encoded}}})
    with pytest.raises(RegistryAuthError, match=r"reg\.test/o in .*config\.json cannot be used") as caught:
        find_login("reg.test", "o/r", environ)
    assert "its `auth` is not base64" in caught.value.message
    assert caught.value.hint == "docker logout reg.test/o && docker login reg.test/o"
    assert find_login("reg.test", "other", environ) is None


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "1",
        '{"auths": "x"}',
        '{"auths": ["x"]}',
        '{"credsStore": 1}',
        '{"credHelpers": {"reg.test": [1]}}',
    ],
)
def test_a_configuration_of_another_shape_is_named(tmp_path: Path, config: str) -> None:
    """Whatever the file holds, the result is a login, none, or one kind of error."""
    environ = configured(tmp_path, config)
    with pytest.raises(RegistryAuthError, match=r"config\.json cannot be used"):
        find_login("reg.test", "o/r", environ)


@pytest.mark.parametrize(
    ("config", "host", "expected"),
    [
        ({"credHelpers": {"reg.test": "one"}, "credsStore": "two"}, "reg.test", "one-for-reg.test"),
        ({"credHelpers": {"other.test": "one"}, "credsStore": "two"}, "reg.test", "two-for-reg.test"),
        ({"credHelpers": {"https://reg.test": "one"}}, "reg.test", "one-for-reg.test"),
        ({"credHelpers": {"reg.test": "one"}, "auths": {"reg.test": auth("stale")}}, "reg.test", "one-for-reg.test"),
        ({"credsStore": "two", "auths": {"reg.test": auth("stale")}}, "reg.test", "two-for-reg.test"),
        ({"credHelpers": {"docker.io": "one"}}, "docker.io", "one-for-https://index.docker.io/v1/"),
        ({"credHelpers": {"reg.test/o": "one"}, "credsStore": "two"}, "reg.test", "two-for-reg.test"),
        ({"credsStore": "two"}, "docker.io", "two-for-https://index.docker.io/v1/"),
    ],
)
def test_a_helper_goes_before_what_is_written(tmp_path: Path, config: object, host: str, expected: str) -> None:
    """The host's own helper, else the one for all; docker's own registry has a name of its own there."""
    for name in ("one", "two"):
        helper(tmp_path, name, WRITTEN.replace("$1", name))
    assert find_login(host, "o/r", configured(tmp_path, config)) == DockerLogin("ada", expected)


def test_a_host_can_do_without_the_helper_for_all(tmp_path: Path) -> None:
    """By an entry of its own that names none: its login is the written one."""
    helper(tmp_path, "two", WRITTEN.replace("$1", "two"))
    config = {"credHelpers": {"reg.test": ""}, "credsStore": "two", "auths": {"reg.test": auth("a")}}
    assert find_login("reg.test", "o/r", configured(tmp_path, config)) == login("a")


@pytest.mark.parametrize(
    "script",
    [
        "echo 'credentials not found in native keychain'; exit 1",
        """echo '{"Username": "", "Secret": ""}'""",
    ],
)
def test_a_helper_that_has_no_login_leaves_it_to_what_is_written(tmp_path: Path, script: str) -> None:
    """That is no failure: it says so."""
    helper(tmp_path, "none", script)
    config = {"credsStore": "none", "auths": {"reg.test": auth("a")}}
    assert find_login("reg.test", "o/r", configured(tmp_path, config)) == login("a")
    assert find_login("other.test", "o/r", configured(tmp_path, config)) is None


def test_a_helper_may_keep_an_identity_token(tmp_path: Path) -> None:
    """By its convention: the user is then called `<token>`."""
    helper(tmp_path, "token", """echo '{"Username": "<token>", "Secret": "x"}'""")
    found = find_login("reg.test", "o/r", configured(tmp_path, {"credsStore": "token"}))
    assert found == DockerLogin("<token>", "x", is_identity_token=True)
    assert "x" not in repr(found)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "is not installed, or not on PATH"),
        ("echo 'the keychain is locked' >&2; exit 2", "fails with exit code 2: the keychain is locked"),
        ("echo 'no\033[2J luck'; exit 1", r"fails with exit code 1: no\?\[2J luck"),
        ("kill -9 $$", "fails with exit code -9"),
        ("echo secret", "returned no login"),
        ("echo '[]'", "returned no login"),
        ("""echo '{"Username": "secret"}'""", "returned no login"),
    ],
)
def test_a_helper_that_fails_is_named(tmp_path: Path, script: str | None, words: str) -> None:
    """With the file that names it; taken for "no login" it would end in a refusal that nobody understands."""
    if script is not None:
        helper(tmp_path, "bad", script)
    environ = configured(tmp_path, {"credHelpers": {"reg.test": "bad"}})
    with pytest.raises(RegistryAuthError, match=words) as caught:
        find_login("reg.test", "o/r", environ)
    assert f"docker-credential-bad, which {tmp_path}/config.json names for reg.test," in caught.value.message
    assert "secret" not in str(caught.value)
    assert find_login("other.test", "o/r", environ) is None


def test_a_helper_that_hangs_is_named(tmp_path: Path) -> None:
    """It is not waited for, and it is ended with what it has started and holds on to its output."""
    os.mkfifo(tmp_path / "held")
    held = os.open(tmp_path / "held", os.O_RDONLY | os.O_NONBLOCK)
    helper(tmp_path, "slow", f"exec 3> {tmp_path}/held; echo begun >&3; (sleep 30; echo late >&3) & wait")
    with pytest.raises(RegistryAuthError, match=r"docker-credential-slow.* does not answer within 1\.5 s"):
        find_login("reg.test", "o/r", configured(tmp_path, {"credsStore": "slow"}), timeout_s=1.5)
    os.set_blocking(held, True)
    with open(held, encoding="ascii") as pipe:
        assert pipe.read() == "begun\n"


def test_a_helper_that_floods_is_ended(tmp_path: Path) -> None:
    """On either pipe: what it writes is not kept until it hangs the machine."""
    for name, script in {"out": "exec yes", "err": "exec yes >&2"}.items():
        helper(tmp_path, name, script)
        with pytest.raises(RegistryAuthError, match=f"docker-credential-{name}.* more than it takes to say one"):
            find_login("reg.test", "o/r", configured(tmp_path, {"credsStore": name}), timeout_s=60)


def test_a_helper_that_cannot_be_used_is_asked_once(tmp_path: Path) -> None:
    """However many threads would like to know who we are."""
    helper(tmp_path, "bad", f"echo >> {tmp_path}/asked; exit 3")
    environ = configured(tmp_path, {"credsStore": "bad"})
    with serving(lambda _, __: Reply(401, {"WWW-Authenticate": "Basic realm=x"})) as server:
        target = Registry(server.repository(), environ=environ)
        with ThreadPoolExecutor(8) as pool:
            errors = [each.exception() for each in [pool.submit(target.resolve, "x") for _ in range(8)]]
    assert {str(error) for error in errors} == {str(errors[0])}
    assert isinstance(errors[0], RegistryAuthError)
    assert (tmp_path / "asked").read_text() == "\n"


def test_the_hint_leads_to_where_the_login_is_kept(tmp_path: Path) -> None:
    """docker's login would not reach the file of podman's, nor any a variable."""
    text = json.dumps({"auths": {"reg.test": {"auth": base64.b64encode(b"nocolon").decode()}}})
    file = tmp_path / "containers" / "auth.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(RegistryAuthError, match="not base64 of USER:PASSWORD") as caught:
        find_login("reg.test", "o/r", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert f"podman login --authfile {file} reg.test" in caught.value.hint
    with serving(lambda _, __: Reply(401, {"WWW-Authenticate": "Basic realm=x"})) as server:
        file.write_text(json.dumps({"auths": {server.host: auth("a")}}))
        with pytest.raises(RegistryAuthError) as caught:
            Registry(server.repository(), environ={"XDG_RUNTIME_DIR": str(tmp_path)}).resolve("x")
    assert f"podman login --authfile {file} {server.host}" in caught.value.hint
    with pytest.raises(RegistryAuthError) as caught:
        find_login("reg.test", "o/r", {"DOCKER_AUTH_CONFIG": text})
    assert caught.value.hint == "correct DOCKER_AUTH_CONFIG"


@pytest.mark.parametrize("text", ["", " \n", "\ufeff", "\ufeff{}"])
def test_a_configuration_without_anything_is_no_login(tmp_path: Path, text: str) -> None:
    """As docker takes it; what some editors write in front is nothing."""
    assert find_login("reg.test", "o/r", configured(tmp_path, text)) is None
    marked = configured(tmp_path, "\ufeff" + json.dumps({"auths": {"reg.test": auth("a")}}))
    assert find_login("reg.test", "o/r", marked) == login("a")


def test_what_a_helper_says_is_shown_without_secrets(tmp_path: Path) -> None:
    """Neither a variable's value, nor what stands there as one."""
    said = "cannot log in\nexport AWS_SECRET_ACCESS_KEY=wJa1rXUtnFEMI7K9\nmine: pq8-Zt3kLw0v\n"
    helper(tmp_path, "bad", f"printf '{said}' >&2; exit 1")
    environ = {**configured(tmp_path, {"credsStore": "bad"}), "MY_TOKEN": "pq8-Zt3kLw0v"}
    with pytest.raises(RegistryAuthError, match=r"exit code 1: cannot log in mine: \*\*\*\nhint"):
        find_login("reg.test", "o/r", environ)
    helper(tmp_path, "bad", "echo DB_PASSWORD=wJa1rXUtnFEMI7K9; exit 1")
    with pytest.raises(RegistryAuthError, match="exit code 1: what it says may hold a secret"):
        find_login("reg.test", "o/r", environ)


def environments(home: Path) -> list[Mapping[str, str]]:
    return [{}, {"HOME": ""}, {"HOME": str(home / "nowhere")}, {"DOCKER_CONFIG": str(home / "nowhere")}]


def test_no_configuration_is_no_login(tmp_path: Path) -> None:
    """Without a home, without a folder, without a file."""
    assert [find_login("reg.test", "o/r", environ) for environ in environments(tmp_path)] == [None] * 4


def kept(file: Path, *names: str) -> None:
    """A file with these logins, each for a host of that name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"auths": {f"{name}.test": auth(f"{name}-{file.parent.name}") for name in names}}))


def test_podmans_logins_go_before_dockers(tmp_path: Path) -> None:
    """The session's, the user's, docker's: the first of them that has one for the repository."""
    kept(tmp_path / "run" / "containers" / "auth.json", "a")
    kept(tmp_path / ".config" / "containers" / "auth.json", "a", "b")
    kept(tmp_path / ".docker" / "config.json", "a", "b", "c")
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    found = [find_login(f"{name}.test", "o/r", environ) for name in "abc"]
    assert found == [login("a-containers"), login("b-containers"), login("c-.docker")]
    assert found[0] is not None
    assert found[0].source == f"`a.test` in {tmp_path}/run/containers/auth.json"
    moved = {**environ, "XDG_CONFIG_HOME": str(tmp_path / "elsewhere")}
    assert find_login("b.test", "o/r", moved) == login("b-.docker")


@pytest.mark.parametrize(("variable", "name"), [("REGISTRY_AUTH_FILE", "one.json"), ("DOCKER_CONFIG", "config.json")])
def test_a_file_that_a_variable_names_is_the_only_one(tmp_path: Path, variable: str, name: str) -> None:
    """What is in the usual places then is another identity's."""
    kept(tmp_path / ".config" / "containers" / "auth.json", "a", "b")
    kept(tmp_path / "own" / name, "a")
    value = tmp_path / "own" / (name if variable == "REGISTRY_AUTH_FILE" else "")
    environ = {"HOME": str(tmp_path), variable: str(value)}
    assert find_login("a.test", "o/r", environ) == login("a-own")
    assert find_login("b.test", "o/r", environ) is None
    first = {**environ, "REGISTRY_AUTH_FILE": str(tmp_path / ".config" / "containers" / "auth.json")}
    assert find_login("a.test", "o/r", first) == login("a-containers")


def test_a_file_that_a_variable_names_in_vain_is_an_error(tmp_path: Path) -> None:
    """It was to say who we are."""
    with pytest.raises(
        RegistryAuthError, match=r"/none\.json, which REGISTRY_AUTH_FILE names, cannot be used: there is"
    ):
        find_login("reg.test", "o/r", {"REGISTRY_AUTH_FILE": str(tmp_path / "none.json")})


def test_a_configuration_in_a_variable_goes_first(tmp_path: Path) -> None:
    """As in GitLab's jobs, and with docker; what it does not have is looked for in the files."""
    kept(tmp_path / "config.json", "a", "b")
    text = json.dumps({"auths": {"a.test/o": auth("of-variable")}})
    environ = {"DOCKER_CONFIG": str(tmp_path), "DOCKER_AUTH_CONFIG": text}
    found = find_login("a.test", "o/r", environ)
    assert found == login("of-variable")
    assert found is not None
    assert found.source == "`a.test/o` in DOCKER_AUTH_CONFIG"
    assert find_login("a.test", "x/r", environ) == login(f"a-{tmp_path.name}")
    assert find_login("b.test", "o/r", environ) == login(f"b-{tmp_path.name}")
    with pytest.raises(RegistryAuthError, match=r"DOCKER_AUTH_CONFIG cannot be used: line 1: ") as caught:
        find_login("a.test", "o/r", {"DOCKER_AUTH_CONFIG": text[:-1]})
    assert auth("of-variable")["auth"] not in str(caught.value)


def test_a_login_of_a_helper_names_it(tmp_path: Path) -> None:
    """A refusal of the login then says which program to look at."""
    helper(tmp_path, "one", WRITTEN.replace("$1", "one"))
    found = find_login("reg.test", "o/r", configured(tmp_path, {"credHelpers": {"reg.test": "one"}}))
    assert found is not None
    assert found.source == f"docker-credential-one, which {tmp_path}/config.json names for reg.test"
