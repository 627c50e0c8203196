"""Which variables of an environment hold secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

OF_THE_JOB: Final = frozenset(
    {"GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GH_ENTERPRISE_TOKEN"}
    | {"RUNNABLE_CI_GITHUB_TOKEN", "RUNNABLE_CI_REGISTRY_PASSWORD"}
)
GUESSED_LEAST_CHARACTERS: Final = 8
_SAYS_SO: Final = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|(TOKEN|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)$", re.IGNORECASE
)
_SAYS_WHERE: Final = re.compile(r"(NAME|ID|ARN|FILE|PATH|DIR|URL|URI|HOST|VERSION|TYPE|SECRETS)$", re.IGNORECASE)
_WORDS: Final = re.compile(r"[A-Za-z]+([-_.:/ ][A-Za-z]+)*")
_NUMBER: Final = re.compile(r"[-+]?[0-9.,_]+")
_PLACE: Final = re.compile(r"~?/|\.\.?/|[A-Za-z]:\\|[A-Za-z][A-Za-z0-9+.-]*://")
_LOGIN: Final = re.compile(r"://[^\s/?#:@]*:([^\s/?#@]+)@")


def secrets_of(environ: Mapping[str, str], named: Iterable[str] = ()) -> frozenset[str]:
    """The values that are secret: of the variables `named` and of the job's own tokens, whatever they are.

    And of those whose name says so (`…TOKEN`, `…SECRET…`, `…PASSWORD…`, `…API_KEY`, `…CREDENTIALS` …), and passwords
    in URLs, where that is no plain word, number, path or URL, and has eight characters or more.
    """
    certain = OF_THE_JOB.union(name.upper() for name in named)
    return frozenset(
        secret
        for name, value in environ.items()
        for secret in ([value] if name.upper() in certain else _guessed(name, value))
        if secret.strip()
    )


def _guessed(name: str, value: str) -> Iterator[str]:
    if _SAYS_SO.search(name) and not _SAYS_WHERE.search(name) and _is_telling(value.strip()):
        yield value
    if "://" in value:
        yield from (password for password in _LOGIN.findall(value) if _is_telling(password))


def _is_telling(value: str) -> bool:
    """Whether a value is likely to be met only where the secret itself is."""
    plain = _WORDS.fullmatch(value) or _NUMBER.fullmatch(value) or _PLACE.match(value)
    return len(value) >= GUESSED_LEAST_CHARACTERS and not plain
