"""Proving to one registry who we are: Basic, or Bearer tokens asked for by scope and renewed when they expire.

Source: distribution's "token authentication specification", RFC 9110 section 11.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlencode, urljoin

from runnable_ci.errors import RegistryAuthError, RegistryProtocolError
from runnable_ci.store.reference import GITHUB_REGISTRY, Credentials
from runnable_ci.util.responses import Response, one_line
from runnable_ci.util.urls import safe_url

Actions = Literal["pull", "pull,push", "pull,push,delete"]
Ask = Callable[[str, str, Mapping[str, str], bytes | None], Response]
"""(method, url, headers, body) → response: how the token server is asked."""

PIECE = re.compile(r"([A-Za-z0-9_-]+)(?:\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+)))?")
SCOPE = re.compile(r"(repository(?:\([a-z0-9]+\))?:[A-Za-z0-9][A-Za-z0-9._/-]{0,254}):[a-z*]+(?:,[a-z*]+)*")
TOKEN = re.compile(r"[\x21-\x7e]+")
TOKEN_LIFE_S = 60
RENEW_BEFORE_S = 10.0
_WHOLE_LOGIN = ("", True)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry asks for with a 401."""

    scheme: Literal["basic", "bearer"]
    realm: str
    service: str
    resource: str = ""
    """What the token is to be for, `repository:NAME`, where the registry says so: behind a domain or a path of its own
    its name is another one than ours."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do where a registry refuses us: a sentence, and what to write into a workflow."""

    hint: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and until when (seconds since the epoch) it is used."""

    value: str
    use_until: float

    @property
    def header(self) -> str:
        """The `Authorization` header's value."""
        return f"Bearer {self.value}"


def parse_challenge(header: str) -> Challenge | None:
    """Return the strongest challenge in a `WWW-Authenticate` header that we can answer, or None."""
    values: dict[str, dict[str, str]] = {}
    scheme = ""
    for piece in PIECE.finditer(header):
        name, quoted, bare = piece.groups()
        if "=" in piece[0]:
            values.setdefault(scheme, {}).setdefault(name.lower(), quoted or bare or "")
        else:
            scheme = name.lower()
            values.setdefault(scheme, {})
    if (bearer := values.get("bearer")) is not None:
        scope = SCOPE.fullmatch(bearer.get("scope", ""))  # some say what is none, such as ECR Public's `aws`
        return Challenge(
            "bearer", bearer.get("realm", ""), bearer.get("service", ""), resource=scope[1] if scope else ""
        )
    if (basic := values.get("basic")) is not None:
        return Challenge("basic", basic.get("realm", ""), "")
    return None


class Authorizer:
    """The `Authorization` header for one repository of one registry; safe to share between threads.

    `credentials` is asked at the first challenge only. `require_allowed(url)` raises for a realm that is not
    permitted. An error has `advice` in place of the usual hint.

    What a server refused once is not asked of it again: every thread gets the same error. So it is with credentials
    that cannot be loaded.

    Where credentials are refused, reading is tried without: they must not close what everybody may read. That takes a
    realm that gives tokens; who is asked for a password was anonymous before.
    """

    def __init__(
        self,
        *,
        host: str,
        path: str,
        credentials: Callable[[], Credentials | None],
        ask: Ask,
        require_allowed: Callable[[str], None],
        clock: Callable[[], float],
        advice: Advice | None = None,
        mounts_from: str = "",
    ) -> None:
        self._host = host
        self._path = path
        self._load_credentials = credentials
        self._ask_server = ask
        self._require_allowed = require_allowed
        self._clock = clock
        self._advice = advice
        self._also = [f"repository:{mounts_from}:pull"] if mounts_from else []
        self._lock = threading.Lock()
        self._challenge: Challenge | None = None
        self._credentials: Credentials | None = None
        self._unusable: RegistryAuthError | None = None
        self._tokens: dict[Actions, Token] = {}
        self._most: Actions = "pull"
        self._reads_anonymously = False
        self._anonymous: Token | None = None
        self._refused: dict[tuple[str, bool], Response] = {}
        """What was refused, by scope and whether credentials were sent."""

    def header(self, actions: Actions) -> str | None:
        """Return the header's value, None while the registry has not asked for one (or anonymous is what it gets)."""
        with self._lock:
            return self._header(actions)

    def challenged(self, response: Response, *, sent: str | None) -> None:
        """Process a 401 to a request that carried `sent`, so that the next `header` is a better one.

        Raises `RegistryAuthError` where there is nothing better.
        """
        with self._lock:
            if self._challenge is None:
                challenge = self._accept(response)
                self._credentials = self._load()
                self._challenge = challenge
            if self._challenge.scheme == "bearer":
                # If another thread has renewed the token meanwhile, nothing is dropped here.
                self._tokens = {granted: held for granted, held in self._tokens.items() if held.header != sent}
                if self._anonymous is not None and self._anonymous.header == sent:
                    self._anonymous = None
            elif self._credentials is None or sent is not None:
                self._look_at_login(response)
                raise self.refusal(response)

    def can_do_without(self, actions: Actions, *, sent: str | None) -> bool:
        """Return whether a request that carried `sent`, and was refused, may be let in where nobody says who we are."""
        with self._lock:
            anonymous = None if self._anonymous is None else self._anonymous.header
            is_bearer = self._challenge is not None and self._challenge.scheme == "bearer"
            return actions == "pull" and is_bearer and self._credentials is not None and sent not in (None, anonymous)

    def read_anonymously(self) -> None:
        """Read without credentials from now on."""
        with self._lock:
            self._reads_anonymously = True

    def refusal(self, response: Response) -> RegistryAuthError:
        """Return the error for a response that no better credentials can change."""
        who = "anonymous access"
        if self._credentials is not None:
            source = self._credentials.source
            who = "these credentials" + (f" ({source})" if source else "")
        if self._reads_anonymously:
            who += ", and anonymous access,"
        message = self.error_message(response)
        hint = (self._credentials.renewal if self._credentials else "") or f"docker login {self._host}"
        if self._host == GITHUB_REGISTRY:
            hint += "; in GitHub Actions set `permissions: {packages: write}` in the job and GITHUB_TOKEN in the step"
        advice = self._advice or Advice(hint)
        return RegistryAuthError(
            f"{self._host} refuses {who} to {self._path} ({response.status}{': ' + message if message else ''})",
            hint=advice.hint,
            fix=advice.fix,
        )

    def error_message(self, response: Response) -> str:
        """Return what the server says went wrong, without any of our secrets that it may echo."""
        secrets = [token.value for token in (*self._tokens.values(), self._anonymous) if token is not None]
        if self._credentials is not None:
            secrets += [self._credentials.password, self._credentials.identity_token, _basic(self._credentials)]
        message = response.error_message(max_length=len(response.body))  # a secret cut in two would not be found
        for secret in filter(None, secrets):
            message = message.replace(secret, "***")
        return one_line(message)

    def _header(self, actions: Actions) -> str | None:
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            if refused := self._refused.get(_WHOLE_LOGIN):
                raise self.refusal(refused)
            return None if self._credentials is None else f"Basic {_basic(self._credentials)}"
        without = actions == "pull" and self._reads_anonymously
        for granted, held in self._tokens.items():
            # Who may write may read, whatever became of a token for reading alone: into what there is not yet, say.
            if granted.startswith(actions) and self._clock() < held.use_until and not (without and granted == "pull"):
                return held.header
        if without:
            if self._anonymous is None or self._clock() >= self._anonymous.use_until:
                self._anonymous = self._new_token(self._challenge, "pull", None)
            return self._anonymous.header
        # A client that writes once will write again, and a token that allows it serves for reading too.
        self._most = max(self._most, actions, key=len)
        try:
            self._tokens[self._most] = self._new_token(self._challenge, self._most, self._credentials)
        except RegistryAuthError:
            if actions != "pull" or self._credentials is None:
                raise
            self._reads_anonymously = True
            return self._header(actions)
        return self._tokens[self._most].header

    def _load(self) -> Credentials | None:
        """Load the credentials, or fail as the first time: not each thread is to wait for a helper that hangs."""
        if self._unusable is not None:
            raise self._unusable
        try:
            return self._load_credentials()
        except RegistryAuthError as error:
            self._unusable = error
            raise

    def _look_at_login(self, response: Response) -> None:
        """Find out whether a password is refused as such, or only what was requested with it.

        Some registries refuse with the same 401 to show what there is not yet.
        Source: OCI distribution-spec v1.1, end-1.
        """
        if self._credentials is None or _WHOLE_LOGIN in self._refused:
            return
        headers = {"Authorization": f"Basic {_basic(self._credentials)}"}
        answer = self._ask_server("GET", urljoin(response.url, "/v2/"), headers, None)
        if answer.status == 401:
            self._refused[_WHOLE_LOGIN] = response

    def _accept(self, response: Response) -> Challenge:
        challenge = parse_challenge(response.headers.get("WWW-Authenticate", "")[:4096])
        if challenge is None:
            raise self.refusal(response)
        if challenge.scheme == "bearer":
            self._require_allowed(challenge.realm)
        return challenge

    def _new_token(self, challenge: Challenge, actions: Actions, credentials: Credentials | None) -> Token:
        asked_at = self._clock()
        scopes = [f"{challenge.resource or f'repository:{self._path}'}:{actions}", *self._also]
        asked = (scopes[0], credentials is not None)
        response = self._refused.get(asked) or self._ask(challenge, scopes, credentials)
        if response.status in (400, 401, 403, 404):
            self._refused[asked] = response
            raise self.refusal(response)
        try:
            reply = json.loads(response.body) if response.status == 200 else {}
            value = reply.get("token") or reply.get("access_token")
            life_s = min(max(int(reply.get("expires_in") or TOKEN_LIFE_S), TOKEN_LIFE_S), 24 * 3600)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            value, life_s = None, 0
        if not isinstance(value, str) or not TOKEN.fullmatch(value):
            raise RegistryProtocolError(
                f"the token server {safe_url(challenge.realm)} of {self._host} returned no token "
                f"(status {response.status})"
            )
        return Token(value, asked_at + life_s - RENEW_BEFORE_S)

    def _ask(self, challenge: Challenge, scopes: Sequence[str], credentials: Credentials | None) -> Response:
        fields = {"service": challenge.service, "scope": " ".join(scopes)}
        if credentials is not None and credentials.identity_token:
            fields |= {
                "grant_type": "refresh_token",
                "refresh_token": credentials.identity_token,
                "client_id": "runnable-ci",
            }
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._ask_server("POST", challenge.realm, form, urlencode(fields).encode())
        headers = {} if credentials is None else {"Authorization": f"Basic {_basic(credentials)}"}
        one_by_one = [("service", challenge.service), *(("scope", scope) for scope in scopes)]
        query = urlencode([(name, value) for name, value in one_by_one if value])
        joint = "&" if "?" in challenge.realm else "?"
        return self._ask_server("GET", f"{challenge.realm}{joint}{query}", headers, None)


def _basic(credentials: Credentials) -> str:
    return base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
