"""Which named values are secrets, of variables, parameters and files; and whether names are names of some. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Final

from runnable_ci.errors import UsageError

OF_THE_JOB: Final = frozenset(
    {"GITHUB_TOKEN", "GH_TOKEN", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "GH_ENTERPRISE_TOKEN"}
    | {"RUNNABLE_CI_GITHUB_TOKEN", "RUNNABLE_CI_REGISTRY_PASSWORD", "RUNNABLE_CI_REUSE_KEY"}
)
_LOGINS: Final = "DOCKER_AUTH_CONFIG"
"""Holds a configuration of docker, with logins."""
_PROVING: Final = frozenset({"auth", "password", "identitytoken", "registrytoken"})
GUESSED_LEAST_CHARACTERS: Final = 8
_SAYS_SO: Final = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE"
    r"|(TOKEN|(API|ACCESS|ACCOUNT|PRIVATE)[_.-]?KEY|CREDENTIALS?|(?<![A-Z])(PASS|PWD)|(?-i:[a-z](Pass|Pwd)))$",
    re.IGNORECASE,
)
_SAYS_ELSE: Final = re.compile(
    r"(NAME|ID|ARN|FILE|PATH|DIR|URL|URI|HOST|VERSION|TYPE|SECRETS"
    r"|METHOD|ALGORITHM|ENCRYPTION|POLICY|LENGTH|PROMPT|LABEL|FIELD|FORMAT|PATTERN|REGEX|REF|MANAGER"
    r"|(NEXT|PAGE|CONTINUATION|PUBLIC[_-]?KEY)[_-]?TOKEN)$",
    re.IGNORECASE,
)
_WORDS: Final = re.compile(r"[^\W\d_]+([-_.:/ ][^\W\d_]+)*")
_NUMBER: Final = re.compile(r"[-+]?[0-9.,_]+")
_PLACE: Final = re.compile(r"~?/|\.\.?/|[A-Za-z]:\\|[A-Za-z][A-Za-z0-9+.-]*://")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SURELY_A_NAME: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_CONTEXTS: Final = frozenset({"secrets", "env", "vars"})
"""What stands before a name in an expression of a workflow."""
_OURS: Final = ("RUNNABLE_CI_", "INPUT_")
"""Variables that may hold what was given for a name."""
_LOGIN: Final = re.compile(r"://[^\s/?#:@]*:([^\s/?#@]+)@")


def secrets_of(environ: Mapping[str, str], named: Iterable[str] = ()) -> frozenset[str]:
    """Return the secret values: those of the variables `named` and the job's own tokens.

    And the logins in `DOCKER_AUTH_CONFIG`, and what `is_secret` and `passwords_in_urls` find among the others.
    """
    certain = OF_THE_JOB.union(name.upper() for name in named)
    return frozenset(
        secret
        for name, value in environ.items()
        for secret in ([value] if name.upper() in certain else _guessed(name, value))
        if secret.strip()
    )


def require_variables(named: Iterable[str], variables: Mapping[str, str], *, where: str) -> None:
    """Raise `UsageError` for the first name that no variable has: it would protect nothing, without a word.

    What was given in its place may be the secret itself: it is shown only where its form is that of a name.
    """
    known = {name.upper(): name for name in (*OF_THE_JOB, *variables)}
    for position, text in enumerate(named, start=1):
        if text.upper() in known:
            continue
        what = f"there is no variable `{text}`" if is_surely_a_name(text) else f"entry {position} names no variable"
        unset = (
            "set the variable, empty where there is no secret (as in pull requests from forks), or take the name out"
        )
        raise UsageError(f"{where}: {what}", hint=_right_spelling(text, variables, known) or unset)


def spelled(text: str) -> list[str]:
    """Return the names in something like `$DB_PASSWORD` or `secrets.DB_PASSWORD`.

    Empty where that may be a secret itself.
    """
    names = [name for name in _NAME.findall(text) if name not in _CONTEXTS]
    return names if all(map(is_surely_a_name, names)) else []


def is_surely_a_name(text: str) -> bool:
    """Return whether a text has the form that people give to variables, and to no secret."""
    return bool(_SURELY_A_NAME.fullmatch(text))


def _right_spelling(text: str, variables: Mapping[str, str], known: Mapping[str, str]) -> str:
    for name, value in variables.items():
        if not name.startswith(_OURS) and (text == value.strip() or text in value.replace(",", " ").split()):
            return f"this is the value of `{name}`, or a part of it: write the name"
    words = [word for word in _NAME.findall(text) if word not in _CONTEXTS]
    if names := list(dict.fromkeys(known[word.upper()] for word in words if word.upper() in known)):
        return f"write {', '.join(names)}: names alone, separated by commas"
    close = [known[found] for word in words for found in get_close_matches(word.upper(), known, n=1, cutoff=0.75)]
    return f"did you mean `{close[0]}`?" if close else ""


def _guessed(name: str, value: str) -> Iterator[str]:
    if is_secret(name, value):
        yield value
    if name == _LOGINS:
        yield from _logins_in(value)
    yield from passwords_in_urls(value)


def _logins_in(configuration: str) -> Iterator[str]:
    """Yield what proves each login of a docker configuration, encoded and plain; nothing where it is none."""
    try:
        entries = [entry for entry in json.loads(configuration)["auths"].values() if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    for entry in entries:
        yield from (text for name, text in entry.items() if name in _PROVING and isinstance(text, str))
        with suppress(ValueError, TypeError):
            yield base64.b64decode(entry.get("auth", "")).decode().partition(":")[2]


def is_secret(name: str, value: str) -> bool:
    """Return whether a value is a secret by its name (`…TOKEN`, `…SECRET…`, `…PASSWORD…`, `…API_KEY`,
    `…CREDENTIALS` …).

    No plain word, number, path or URL is one, and nothing that is shorter than eight characters.
    """
    return names_a_secret(name) and is_telling(value.strip())


def names_a_secret(name: str) -> bool:
    """Return whether a name says that its value is secret."""
    return bool(_SAYS_SO.search(name)) and not _SAYS_ELSE.search(name)


def passwords_in_urls(text: str) -> Iterator[str]:
    """Yield the passwords of `scheme://user:password@host` that are no plain words or numbers and not short."""
    if "://" in text:
        yield from (password for password in _LOGIN.findall(text) if is_telling(password))


def is_telling(value: str) -> bool:
    """Return whether a value is likely to be met only where the secret itself is."""
    plain = _WORDS.fullmatch(value) or _NUMBER.fullmatch(value) or _PLACE.match(value)
    return len(value) >= GUESSED_LEAST_CHARACTERS and not plain
