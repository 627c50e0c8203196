"""GitHub's own description of its REST API, cut to our paths: what is sent and answered is held to it.

`python tests/github_description.py` takes it from npm (`@octokit/openapi`, 13 MB a server) into `.cache/`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

PACKAGE = "@octokit/openapi@23.0.2"
SHA512 = "pV8M7L9GY23AybNvTmo2nyjmpmnt6+2sRE/tqr0ZLQcPS4lnw7u5eZGNmwRNkBC3D7gZXbFx5AHzLUVRBXGDhg=="
ORIGIN = "http://github.test"
REPOSITORY = "/repos/{owner}/{repo}"
PACKAGES = "/packages/{package_type}/{package_name}/versions"
VERSION = "/{package_version_id}"
VERBS = ("get", "post", "patch", "delete", "parameters")
PATHS = (
    *(f"{owner}{PACKAGES}{version}" for owner in ("/orgs/{org}", "/users/{username}") for version in ("", VERSION)),
    *(
        REPOSITORY + path
        for path in (
            "",
            "/actions/runs/{run_id}",
            "/actions/runs/{run_id}/jobs",
            "/actions/runs/{run_id}/rerun-failed-jobs",
            "/actions/workflows/{workflow_id}/dispatches",
            "/actions/workflows/{workflow_id}/runs",
            "/branches/{branch}",
            "/check-runs",
            "/commits/{ref}",
            "/issues/comments/{comment_id}",
            "/issues/{issue_number}/comments",
        )
    ),
)
# One for each cut, as the cache outlives a change of what is cut.
FOLDER = (
    Path(__file__).parent.parent
    / ".cache"
    / "github-description"
    / f"23.0.2-{hashlib.sha256(repr((PATHS, VERBS)).encode()).hexdigest()[:8]}"
)
Server = Literal["api.github.com", "ghes-3.17"]
SERVERS: tuple[Server, ...] = ("api.github.com", "ghes-3.17")


class DescriptionError(AssertionError):
    """A request or an answer that GitHub's description does not know."""


@cache
def description(server: Server = "api.github.com") -> dict[str, Any]:
    """The description of one kind of server. Fails where it was not taken from npm."""
    file = FOLDER / f"{server}.json"
    assert file.exists(), f"there is no {file}: tests/run.sh takes it from npm"
    parsed = json.loads(file.read_bytes())
    assert isinstance(parsed, dict)
    return parsed


def example(name: str) -> Any:
    """A copy of one of the description's own examples."""
    return json.loads(json.dumps(description()["components"]["examples"][name]["value"]))


def check(
    server: Server,
    method: str,
    path: str,
    *,
    query: Mapping[str, str],
    body: bytes,
    status: int | None = None,
    answer: bytes = b"",
) -> None:
    """Raise `DescriptionError` for a request that is not in the description, or for an answer that is not.

    The description names few of the refusals: any of 400 and above may be one of its "basic errors".
    """
    # Imported late: half a second that only some tests pay.
    from openapi_core.exceptions import OpenAPIError
    from openapi_core.testing import MockRequest, MockResponse

    json_type = "application/json"
    request = MockRequest(ORIGIN, method.lower(), path, args=dict(query), data=body, content_type=json_type)
    try:
        if status is None:
            _described(server).validate_request(request)
        elif status >= 400:
            _check_refusal(json.loads(answer))
        else:
            response = MockResponse(answer, status_code=status, content_type=json_type)
            _described(server).validate_response(request, response)
    except OpenAPIError as e:
        details = getattr(e.__cause__, "schema_errors", None) or getattr(e, "schema_errors", [])
        reasons = "; ".join(str(getattr(detail, "message", detail)) for detail in details)
        raise DescriptionError(f"{method} {path} {status or ''}: {str(e)[:300]} {reasons}") from e


@cache
def _described(server: Server) -> Any:
    from openapi_core import OpenAPI

    return OpenAPI.from_dict(description(server))


def _check_refusal(answer: object) -> None:
    schema = description()["components"]["schemas"]["basic-error"]
    if not isinstance(answer, dict) or not answer.keys() <= schema["properties"].keys():
        raise DescriptionError(f"not one of GitHub's errors: {answer}")
    if not all(isinstance(value, str) for value in answer.values()):
        raise DescriptionError(f"not one of GitHub's errors: {answer}")


def cut(whole: Mapping[str, Any]) -> dict[str, Any]:
    """Our paths of a description, and all that they refer to."""
    paths = {path: {verb: found for verb, found in whole["paths"][path].items() if verb in VERBS} for path in PATHS}
    components: dict[str, dict[str, Any]] = {}
    left = [*_references(paths), "#/components/schemas/basic-error"]
    while left:
        _, _, kind, name = left.pop().split("/")
        if name not in components.setdefault(kind, {}):
            components[kind][name] = whole["components"][kind][name]
            left += _references(components[kind][name])
    _let_null_be_null(components)
    return {
        "openapi": whole["openapi"],
        "info": whole["info"],
        "servers": [{"url": ORIGIN}],
        "paths": paths,
        "components": components,
    }


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/components/"):
            yield reference
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _references(child)


def _let_null_be_null(node: object) -> None:
    """GitHub leaves null out of the choices of what it says may be null, such as the conclusion of a job that runs.

    Source: OpenAPI 3.0.3, proposal 2019-10-31 "Clarify Semantics of nullable": such a choice would never be null.
    """
    if isinstance(node, dict) and node.get("nullable") is True and "enum" in node and None not in node["enum"]:
        node["enum"] = [*node["enum"], None]
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _let_null_be_null(child)


def take() -> None:
    """Have the descriptions in the cache folder."""
    if all((FOLDER / f"{server}.json").exists() for server in SERVERS):
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER) as scratch:
        command = ["npm", "pack", "--silent", PACKAGE]
        name = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True).stdout.strip()
        archive = Path(scratch, name)
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        assert found == SHA512, f"{PACKAGE} has the digest {found}"
        with tarfile.open(archive) as packed:
            for server in SERVERS:
                member = packed.extractfile(f"package/generated/{server}.json")
                assert member is not None
                new = Path(scratch, server)
                new.write_text(json.dumps(cut(json.load(member))), encoding="utf-8")
                new.replace(FOLDER / f"{server}.json")


if __name__ == "__main__":
    take()
