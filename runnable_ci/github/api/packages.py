"""Versions of a container package: `ghcr.io` lets nobody delete a manifest, but GitHub's API deletes a version.

A version is a manifest: its name is the manifest's digest. Source: GitHub docs, "REST API endpoints for packages".
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, RootModel

from runnable_ci.github.api.client import Rest, described, error_message, read_as, segment
from runnable_ci.github.api.errors import GitHubError, RefusedError
from runnable_ci.util.responses import Response

PAGE: Final = 100
MOST_PAGES: Final = 1000
SCOPES: Final = "read:packages,delete:packages"


class LastVersionError(RefusedError):
    """GitHub deletes the last version of a package only with the package."""


class _Version(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: int = Field(ge=1)
    name: str


class _Versions(RootModel[tuple[_Version, ...]]):
    """A page of them."""


class Package:
    """A container package of a person or an organisation."""

    def __init__(self, rest: Rest, owner: str, name: str) -> None:
        self._rest = rest
        self._owner = owner
        self._name = name
        self._kind = "orgs"

    def delete(self, digest: str) -> None:
        """Delete the version that is a manifest.

        Raises `LastVersionError`, `RefusedError` where the token may not, `GitHubError`.
        """
        found = self._versions.get(digest)
        if found is None:
            raise GitHubError(f"{self} has no version {digest}", hint="if it has just been published, try again later")
        response = self._rest.delete(f"{self._path}/versions/{found}")
        if not response.ok and response.status != 404:
            raise self._refused(response)

    def __str__(self) -> str:
        return f"the package {self._owner}/{self._name} on GitHub"

    @property
    def page(self) -> str:
        """Where a browser shows it."""
        return f"https://github.com/{self._kind}/{self._owner}/packages/container/{segment(self._name)}/settings"

    @property
    def _path(self) -> str:
        return f"/{self._kind}/{segment(self._owner)}/packages/container/{segment(self._name)}"

    @cached_property
    def _versions(self) -> dict[str, int]:
        """Digest → number of each version."""
        found: dict[str, int] = {}
        for page in range(1, MOST_PAGES + 1):
            response = self._page_of_versions(page)
            if response.status == 404 and page == 1:  # GitHub does not say of whom a package is
                self._kind = "users"
                response = self._page_of_versions(page)
            if not response.ok:
                raise self._refused(response)
            read = read_as(response, _Versions).root
            found |= {version.name: version.id for version in read}
            if len(read) < PAGE:
                break
        return found

    def _page_of_versions(self, page: int) -> Response:
        return self._rest.get(f"{self._path}/versions", per_page=PAGE, page=page)

    def _refused(self, response: Response) -> GitHubError:
        message = error_message(response)
        if response.status in (400, 422) and "last" in message and "version" in message:
            return LastVersionError(f"{self} keeps its last version", hint=f"delete the package itself: {self.page}")
        if response.status not in (401, 403, 404):
            return GitHubError(f"{self} was not changed: {described(response)}")
        return RefusedError(
            f"the token of {self._rest.token_source} may not delete versions of {self}: {described(response)}",
            hint=f"it must be a personal access token (classic) with {SCOPES}, or be of a job with `packages: write` "
            f"in a repository that is an admin of the package ({self.page}); gh: `gh auth refresh --scopes {SCOPES}`",
        )
