"""Tests of redaction: what is a secret, in which forms it is met, and that pieces make no difference."""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import threading
from collections.abc import Callable
from functools import partial
from urllib.parse import quote, quote_plus
from xml.sax import saxutils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runnable_ci.redaction.environment import secrets_of
from runnable_ci.redaction.redactor import Redaction, Redactor

GITHUB = "ghp_" + "0aB" * 12
WEB_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r"
BODY = "\n".join("MIIEowIBAAKCAQEA" + "0aB/" * 12 for _ in range(20))
KEY = f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n-----END RSA PRIVATE KEY-----"
SECRET = "s3cr/t+v&lue"


def streamed(redactor: Redactor, data: bytes, sizes: list[int]) -> bytes:
    """What comes out where the data comes in pieces of these sizes, over and over."""
    redaction, given_out, position = Redaction(redactor), b"", 0
    while position < len(data):
        for size in sizes:
            given_out += redaction.feed(data[position : position + size])
            position += size
    return given_out + redaction.close()


@pytest.mark.promise
@pytest.mark.parametrize(
    "token",
    [
        GITHUB,
        *(GITHUB.replace("ghp", kind) for kind in ("gho", "ghu", "ghs", "ghr")),
        "github_pat_11ABCDEFG0abcdefghijkl_" + "x0Y" * 19,
        "AKIAIOSFODNN7EXAMPLE",
        "glpat-0aBcDeFgHiJkLmNoPqRs",
        "xoxb-123456789012-1234567890123-0aBcDeFgHiJkLmNoPqRsTuVw",
        "pypi-AgEIcHlwaS5vcmcC" + "J0a" * 20,
        "npm_" + "0aB" * 12,
        "hf_" + "aBcDe" * 7,
        "sk-" + "0aB" * 16,
        "sk-ant-api03-" + "0a-B_" * 18,
        "sk-proj-" + "0a-B_" * 18,
        "AIzaSyA-1234567890_abcdefghijklmnopqrst",
        WEB_TOKEN,
        KEY,
        KEY.replace("RSA ", ""),
        KEY.replace("RSA ", "OPENSSH ").replace("\n", "\\n"),
    ],
)
@pytest.mark.parametrize("around", ["{}", "token={}\n", '{{"token": "{}"}}', "https://u:{}@host/x", "a\n{}\nb"])
def test_well_known_formats(token: str, around: str) -> None:
    """A token of a well-known format goes, wherever it stands and whoever's it is."""
    text = around.format(token)
    assert Redactor().text(text) == around.format("***")
    assert streamed(Redactor(), text.encode(), [1]).decode() == around.format("***")


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-03T12:33:21.123Z loading model_with_a_very_long_name_of_many_words\n",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 sha256:9f86d081884c7d659a2feaa0c55ad015",
        "0f8fad5b-d9cb-469f-a165-70867728950e task-with-a-long-kebab-case-name-of-a-task",
        '<div class="sk-estimator-doc-link fitted"><div class="sk-toggleable__content-arrow">',
        "-" * 400 + "\n" + "=" * 400,
        "-----BEGIN CERTIFICATE-----\nMIIabc\n-----END CERTIFICATE-----",
        'if "-----BEGIN RSA PRIVATE KEY-----" in text:\n    pass\n',
        "npm_config_registry_and_other_long_names_of_npm github_pat_ hf_ ghp_short eyJhbGciOiJIUzI1NiJ9",
        "chunk-vendors-2f8a9b7c6d5e4f3a2b1c0d9e8f7a6b5c.js",
        "a line that ends in what begins a token: g, gh, ghp, ghp_, e, ey, eyJ, sk, sk-",
    ],
)
def test_what_only_looks_like_a_token(text: str) -> None:
    """Hashes, dates, rulers, certificates and long names stay as they are."""
    assert Redactor().text(text) == text
    assert streamed(Redactor(), text.encode(), [1]).decode() == text


def encoded(text: str) -> str:
    """The base64 of a text."""
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("write", "rest"),
    [
        (str, 0),
        (encoded, 4),
        (lambda secret: encoded(f"x-access-token:{secret}"), 20 + 4),
        (lambda secret: encoded(f"someone:{secret}"), 10 + 6),
        (lambda secret: encoded(f"me:{secret}\n"), 4 + 6),
        (lambda secret: base64.urlsafe_b64encode(f"ab{secret}".encode()).decode(), 2 + 6),
        (lambda secret: quote(secret, safe=""), 0),
        (json.dumps, 2),
        (lambda secret: json.dumps(secret, ensure_ascii=False), 2),
        (repr, 2),
        (shlex.quote, 2),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, 'quo"te\\d t\u00e4xt&more', "0123456789abcdefABCDEF~~??>>ÿÿÿ"])
def test_encodings(write: Callable[[str], str], rest: int, secret: str) -> None:
    """A known value goes in all the encodings in which it is usually met; of base64 up to three characters may stay."""
    clean = Redactor([secret]).text(f"<{write(secret)}>")
    assert "***" in clean
    assert len(clean.replace("***", "")) <= rest + 2


def in_any_spelling(safe: str) -> list[Callable[[str], str]]:
    """Encoders as programs have them; those of URLs leave some characters as they are."""
    return [
        lambda text: quote(text, safe=safe),
        lambda text: PERCENT.sub(lower, quote(text, safe=safe)),
        lambda text: quote_plus(text, safe=safe),
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: json.dumps(text).replace("/", "\\/"),
        lambda text: UNICODE.sub(lambda found: found[0].upper().replace("U", "u"), json.dumps(text)),
        lambda text: re.sub("[<>&]", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text)),
        repr,
        html.escape,
        lambda text: html.escape(text, quote=False),
        lambda text: html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;"),
        lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
        shlex.quote,
        lambda text: text.replace("'", r"'\''"),
    ]


PERCENT, UNICODE = re.compile("%[0-9A-F]{2}"), re.compile(r"\\u[0-9a-f]{4}")
CHARACTERS = st.sampled_from("aZ09_-.'\"\\/&<>%#$`!~+= :;,?@(){}[]|^*\téü\u20ac\U0001f600")
SAFE = st.text(st.sampled_from("/!~*'():@&=+$,;"), max_size=4)


def lower(found: re.Match[str]) -> str:
    """As some programs write the digits."""
    return found[0].lower()


@pytest.mark.promise
@settings(deadline=None, max_examples=200)
@given(st.text(CHARACTERS, min_size=8, max_size=20), SAFE, st.data())
def test_any_spelling_of_a_known_value(middle: str, safe: str, data: st.DataObject) -> None:
    """However a program escapes it, and another one what that wrote: nothing is left, wherever a stream is cut."""
    secret = f"s3{middle}t"
    xml: Callable[[str], str] = partial(saxutils.escape, entities={"'": "&apos;"})
    first: Callable[[str], str] = data.draw(st.sampled_from([xml, *in_any_spelling(safe)]))
    second: Callable[[str], str] = data.draw(st.sampled_from([lambda text: text, *in_any_spelling("/!~*()")]))
    written = second(first(f"<[{secret}]>")).encode()
    redactor = Redactor([secret])
    clean = redactor.data(written)
    assert clean.count(b"***") == 1, written
    assert len(clean) <= 3 + max(len(second(first(around)).encode()) for around in ("<[]>", "<['\"]>")), clean
    size = data.draw(st.integers(1, 9))
    assert streamed(redactor, written, [size]) == clean
    assert redactor.holds(written[i : i + size] for i in range(0, len(written), size))


@pytest.mark.parametrize("form", [bytes.hex, lambda data: data.hex().upper()])
def test_hex(form: Callable[[bytes], str]) -> None:
    """A known value goes where its bytes are written as digits, also among others."""
    assert Redactor([SECRET]).text(f"x00{form(SECRET.encode())}ff") == "x00***ff"


def test_quotes_in_a_row() -> None:
    """The shell dash puts them between double quotes, bash ends and begins the text at each."""
    redactor = Redactor(["it''s-a-secret"])
    assert redactor.text("export A='it'\"''\"'s-a-secret'") == "export A='***'"
    assert redactor.text(r"+ A='it'\'''\''s-a-secret'") == "+ A='***'"


def test_a_value_of_several_lines_in_one() -> None:
    """Where its line breaks are escaped, all of it goes at once."""
    secret = 'first "line"\nsecond <line>\n\tthird line'
    for write in (json.dumps, repr, quote, lambda text: quote(text).lower(), lambda text: json.dumps(json.dumps(text))):
        assert Redactor([secret]).text(f"({write(secret)})").strip("('\\\")") == "***"


def test_lines_of_a_value() -> None:
    """Of a value with several lines each goes, but for lines such as a bracket."""
    secret = '{\n  "private": "0123456789",\n  "other": "abcdefghij"\n}'
    redactor = Redactor([secret])
    assert redactor.text('x "private": "0123456789", y') == "x *** y"
    assert redactor.text(secret) == "{\n  ***\n  ***\n}"
    assert redactor.text(json.dumps(secret)) == '"***"'
    wrapped = base64.encodebytes((secret * 4).encode()).decode()
    assert Redactor([secret * 4]).text(wrapped).replace("\n", "").replace("*", "") in ("", *wrapped[-6:])


def test_lines_that_are_of_other_text_too() -> None:
    """Rulers and the borders of a PEM block stay, wherever a secret has them."""
    redactor = Redactor(["-----BEGIN CERTIFICATE-----\nMIIabcdef\n----------\n-----END CERTIFICATE-----"])
    assert redactor.text("-----BEGIN CERTIFICATE-----\nMIIabcdef\n----------\n") == (
        "-----BEGIN CERTIFICATE-----\n***\n----------\n"
    )


def test_values_that_are_too_short() -> None:
    """A value of three characters would leave nothing of a log: it stays."""
    assert Redactor(["abc", "", " \n"]).text("abc abcd") == "abc abcd"
    assert Redactor(["abcd"]).text("abc abcd") == "abc ***"


def test_overlapping_secrets() -> None:
    """Secrets that overlap go together, those that follow each other one by one."""
    redactor = Redactor(["abcabc", "bcabcx"])
    assert redactor.text("-abcabcx-") == "-***-"
    assert redactor.text("-abcabcabc-") == "-***-"
    assert redactor.text("-abcabcabcabc-abcabc") == "-***-***"


def test_json_values() -> None:
    """In JSON values texts and numbers that are secrets go, the names of a table stay."""
    value = {"a": [f"x {SECRET}", 1, None, True], "pin": 48151623, SECRET: 2.5}
    clean = Redactor([SECRET, "48151623"]).value(value)
    assert clean == {"a": ["x ***", 1, None, True], "pin": "***", SECRET: 2.5}


FRAGMENTS = [
    *("abcabc", "abd", "a", "ghp_", "A" * 36, "x" * 40, "sk-", "sk-ant-", "sk-or-v1-", "-", "--", "\n", " ", ".", "_"),
    *("-----BEGIN RSA PRIVATE KEY-----", "-----END RSA PRIVATE KEY-----", "MIIabc+/=", "eyJ", "eyJhbGciOiJI", "K", "'"),
    *("AKIA", "ABCDEFGH12345678", "AIza", "e", "g", "x", "xoxb-123456789012-abcdefghij", "glpat-", "github_pat_"),
    *(
        r"it'\''s q",
        "uoted",
        "%27s%20q",
        "it&#39;s q",
        r"it\\u0027s",
        "'",
        "\\",
        "\\\\",
        "%",
        "&#",
        SECRET.encode().hex(),
    ),
    SECRET.encode().hex(),
    *(SECRET, SECRET[:5], SECRET[5:], base64.b64encode(SECRET.encode()).decode(), "line one of two", "line two of two"),
]
REDACTOR = Redactor([SECRET, "it's quoted", "\\'q'\\", "abcabcabd", "line one of two\nline two of two", "aaaa"])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join),
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
)
def test_any_split_gives_the_same(text: str, sizes: list[int]) -> None:
    """Wherever the pieces of a stream end, the same comes out as of the whole, and no secret is left in it."""
    data = text.encode()
    whole = REDACTOR.data(data)
    assert streamed(REDACTOR, data, sizes) == whole
    assert REDACTOR.holds(data[i : i + sizes[0]] for i in range(0, len(data), sizes[0])) == (whole != data)
    for secret in (SECRET, "abcabcabd", "line one of two"):
        assert secret.encode() not in whole


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(1, 300))
def test_bytes_that_are_no_text(data: bytes, size: int) -> None:
    """Any bytes pass unchanged where there is no secret in them."""
    assert streamed(Redactor(["a secret of some length"]), data, [size]) == data


@pytest.mark.parametrize(
    "text",
    ["Continue? [y/n] ", "50% |#####     |\r", "loss=0.25", "Password: ", "step 3 of 8", "downloading foo_bar.whl"],
)
def test_a_prompt_appears_at_once(text: str) -> None:
    """A line without its end is not held back where it cannot become a secret."""
    assert Redaction(Redactor([SECRET])).feed(text.encode()) == text.encode()


def test_only_the_beginning_of_a_secret_is_held_back() -> None:
    """What may become a secret waits, and no more than that; it comes when it did not become one."""
    redaction = Redaction(Redactor([SECRET]))
    assert redaction.feed(b"value: s3cr") == b"value: "
    assert redaction.feed(b"et, token: ghp_0a") == b"s3cret, token: "
    assert redaction.feed(b"!") == b"ghp_0a!"
    assert redaction.feed(f"value: {SECRET}".encode()) == b"value: ***"
    assert redaction.close() == b""


def test_memory_is_bounded() -> None:
    """Neither a key without an end nor a token without one is kept for longer than a key or token can be."""
    redaction = Redaction(Redactor())
    given_out = redaction.feed(b"-----BEGIN RSA PRIVATE KEY-----\n")
    for _ in range(100):
        given_out += redaction.feed(b"abcdefgh " * 100)
    assert len(given_out) > 50_000
    given_out = redaction.feed(b" sk-proj-")
    for _ in range(100):
        given_out += redaction.feed(b"abcdefghi_" * 100)
    assert len(given_out) > 90_000


def test_what_is_learned_later() -> None:
    """A secret is known from then on to all streams; what had come of it by then is out."""
    redactor = Redactor([SECRET])
    one, other = Redaction(redactor), Redaction(redactor)
    assert one.feed(b"learned-later, learned-l") == b"learned-later, learned-l"
    assert other.feed(b"s3cr") == b""
    redactor.learn(["learned-later"])
    assert one.feed(b"ater, learned-later, ") == b"ater, ***, "
    assert other.feed(f"{SECRET[4:]} learned-l".encode()) == b"*** "
    assert other.close() == b"learned-l"
    assert redactor.learned == 1
    redactor.learn(["learned-later", SECRET])
    assert redactor.learned == 1
    assert Redactor([SECRET]).text("learned-later") == "learned-later"


@settings(deadline=None)
@given(st.lists(st.sampled_from([SECRET, "aaaa", "abcabc", "line one\nline two", "0123456789ab"]), max_size=5))
def test_learning_one_by_one(secrets: list[str]) -> None:
    """It is the same as to know all from the beginning."""
    learned = Redactor()
    for secret in secrets:
        learned.learn([secret])
    text = f"{SECRET} aaaaa abcabcabc line one, line two 0123456789ab {base64.b64encode(SECRET.encode()).decode()}\n"
    assert learned.data(text.encode() * 200) == Redactor(secrets).data(text.encode() * 200)


def test_learning_while_others_redact() -> None:
    """Threads that redact and threads that learn do not lose each other's secrets, whichever bytes are frequent."""
    redactor = Redactor()
    secrets = [f"s3cret-{i:03}-{chr(65 + i % 26)}x" for i in range(200)]
    noise = b"-3xcsret0125" * 5000

    def redact() -> None:
        while redactor.learned < 200:
            redactor.data(noise)

    def learn(part: list[str]) -> None:
        for secret in part:
            redactor.learn([secret])

    threads = [threading.Thread(target=redact) for _ in range(2)]
    threads += [threading.Thread(target=learn, args=(secrets[i::2],)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redactor.text(" ".join(secrets)) == " ".join("***" for _ in secrets)


def test_bytes_that_are_no_utf8() -> None:
    """A secret may be bytes that are no text, as a program writes them."""
    secret = b"caf\xe9-s3cret\xff".decode(errors="surrogateescape")
    redactor = Redactor([secret])
    assert redactor.data(b"<caf\xe9-s3cret\xff>") == b"<***>"
    assert redactor.text(f"<{secret}>") == "<***>"
    assert redactor.data(base64.b64encode(b"caf\xe9-s3cret\xff")).startswith(b"***")


def test_names_that_say_so() -> None:
    """Variables whose name says that they are secret are, where the value is no word, number, path or URL."""
    environ = {
        "MY_API_KEY": "k-1234567890",
        "HF_TOKEN": "t0ken-of-mine",
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG",
        "DATABASE_URL": "postgres://me:pa55word!@db.example.org/x",
        "SECRET_SANTA": "fr1endly-reindeer",
        "DB_PASS": "p4ss-word-of-db",
        "MYSQL_PWD": "p4ss-word-of-sql",
        "smtpPass": "p4ss-word-of-mail",
        # none of these
        "BYPASS": "host-1,host-2",
        "compass": "north-360-east",
        "PWD": "/home/me/work-1",
        "PASSWORD_POLICY": "length-12-or-more",
        "SECRET_MANAGER": "vault-1.2.3",
        "POSTGRES_PASSWORD": "postgres",
        "MAX_TOKEN": "4096000000",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/credentials-1.json",
        "SECRET_NAME": "prod-secret-17",
        "TOKEN_URL": "https://example.org/token/1234567",
        "GITHUB_SHA": "9f86d081884c7d659a2feaa0c55ad015",
        "API_KEY": "short1",
        "PROXY": "http://user:password@proxy",
        "PATH": "/usr/bin",
    }
    assert secrets_of(environ) == {
        *("k-1234567890", "t0ken-of-mine", "wJalrXUtnFEMI/K7MDENG", "pa55word!", "fr1endly-reindeer"),
        *("p4ss-word-of-db", "p4ss-word-of-sql", "p4ss-word-of-mail"),
    }


def test_named_variables_and_those_of_the_job() -> None:
    """A variable that the user names is secret whatever its value, and so are the tokens of the job."""
    environ = {"DB_USER": "admin", "GITHUB_TOKEN": "word", "gh_token": "other", "EMPTY": " ", "X": "1"}
    assert secrets_of(environ, ["DB_USER", "EMPTY", "NOT_SET"]) == {"admin", "word", "other"}


def test_logins_in_a_variable_are_secrets() -> None:
    """What GitLab and docker keep in `DOCKER_AUTH_CONFIG`, in each of its forms."""
    encoded = base64.b64encode(b"ada:correct-horse").decode()
    auths = {"a.test": {"auth": encoded, "email": "x@y.test"}, "b.test": {"identitytoken": "to-ken"}, "c.test": None}
    found = secrets_of({"DOCKER_AUTH_CONFIG": json.dumps({"auths": {**auths, "d.test": {"auth": "!"}}})})
    assert found == {encoded, "correct-horse", "to-ken", "!"}
    for text in ("", "[]", "{", '{"auths": 1}', '{"auths": [1]}'):
        assert secrets_of({"DOCKER_AUTH_CONFIG": text}) == set()
