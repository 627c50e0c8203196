"""Tests of telling files with credentials from others, by their names and by what stands in them."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnable_ci.redaction.credential_files import by_content, by_name

# Put together here, so that no scanner takes this file for what it tests.
VALUE = "hunter2-" + "hunter2"
BASE64 = base64.b64encode(bytes(range(60, 150))).decode()
KEY = f"-----BEGIN RSA {'PRIVATE'} KEY-----\n{BASE64[:64]}\n{BASE64[64:]}\n-----END RSA {'PRIVATE'} KEY-----\n"
CERTIFICATE = KEY.replace("RSA PRIVATE KEY", "CERTIFICATE")


CREDENTIALS = """
.env .ENV app/.env .env.local .env.production .env-prod .env_backup .env~ .env.bak .envrc prod.env deploy/Docker.ENV
.netrc _netrc .netrc.old home/.NetRC .npmrc .pypirc .git-credentials .pgpass .my.cnf id_rsa id_ed25519
keys/id_ecdsa_sk id_rsa.bak id_rsa_work id_github ID_DSA key.ppk a.p12 a.PFX a.jks release.keystore vault.kdbx
.aws/credentials x/.AWS/Credentials .aws/sso/cache/3f.json .azure/accessTokens.json .ssh/config .azure/a/b/c.bin
.config/gcloud/credentials.db .config/gcloud/legacy/a/adc.json .gnupg/trustdb.gpg gha-creds-0a1b2c.json
credentials.json credentials.json.bak Credentials.yml client_secret_1.json service-account.json
service_account_prod.json my-service-account.json serviceAccountKey.json application_default_credentials.json
.docker/config.json home/u/.docker/config.json .dockercfg .dockerconfigjson .config/containers/auth.json .kube/config
kubeconfig kubeconfig.yaml prod.kubeconfig kube-config.yml .vault-token .vault_pass.txt .htpasswd .boto .s3cfg
rclone.conf .config/rclone/rclone.conf .terraform.d/credentials.tfrc.json terraform.tfstate prod.tfstate
terraform.tfstate.backup .streamlit/secrets.toml secrets.yaml password.txt .Renviron .bash_history cookies.sqlite
key4.db logins.json kaggle.json .m2/settings.xml .cargo/credentials .cargo/credentials.toml .gem/credentials
.config/gh/hosts.yml login.keychain huggingface/token secring.gpg config/master.key rootkey.csv bob_accessKeys.csv
.databrickscfg secrets.prod.yaml app-secrets.json .subversion/auth/svn.simple/3f token.pickle
"""
OTHERS = """
.env.example .env.sample .env.template .env.dist .ENV.Example example.env .env-example credentials.example.json
secrets.toml.tmpl id_rsa.pub id_ed25519.pub .ssh/id_work.pub environment.yml .environment env.py .env.d.ts
.env/bin/python id_map.csv ids.txt identity.py credentials.py secrets.py password.go token.ts auth.py kubeconfig.go
netrc.py docs/kubeconfig-file.md config.json docker/config.json settings.xml aws/credentials.py README.md
data/passwords/readme.md tokens.txt tokenizer.json vocab.txt a.tfvars a.pem cert.crt model.bin Makefile history.csv
cookie.py kube/config gcloud/config.yaml a.key secrets.enc.yaml secrets.yaml.age secretary.json password-reset.html
reset_password.yaml
"""


@pytest.mark.parametrize("path", CREDENTIALS.split())
def test_names_of_credential_files(path: str) -> None:
    """Files that packers and scanners know are told by their names, in any folder and letter case."""
    assert by_name(path)
    assert by_name(f"sub folder/{path}")
    assert by_name(path.upper())


@pytest.mark.parametrize("path", OTHERS.split())
def test_names_of_other_files(path: str) -> None:
    """Templates, public keys, code and what only resembles a known name are left to what stands in them."""
    assert by_name(path) == ""


SECRETS = [
    ("app.ini", f"DB_PASSWORD={VALUE}"),
    ("app.ini", f"db_pass = {VALUE}"),
    ("deploy.sh", f"export API_TOKEN={VALUE}"),
    ("deploy.sh", f"export API_TOKEN='{VALUE}' # for the registry"),
    ("deploy.sh", f'A=1 MY_SECRET="{VALUE}" ./run'),
    ("deploy.sh", f"docker run -e DB_PASSWORD={VALUE} image"),
    ("deploy.sh", f"./login --token={VALUE} --user bob"),
    ("deploy.sh", f'curl -H "X-Api-Key: {VALUE}" https://example.org'),
    ("deploy.sh", f'curl -H "Authorization: Bearer {VALUE}" https://example.org'),
    ("a.properties", f"spring.datasource.password={VALUE}"),
    ("a.yaml", f"  password: {VALUE}"),
    ("a.yaml", f"password: '{VALUE}'  # the real one"),
    ("a.yaml", f"db: {{user: bob, password: {VALUE}, port: 1}}"),
    ("a.yaml", f"- name: DB_PASSWORD\n  value: {VALUE}"),
    ("a.yaml", f"      - name: API_TOKEN\n        value: '{VALUE}'"),
    ("a.json", f'{{"client_secret": "{VALUE}"}}'),
    ("a.json", f'{{"name": "DB_PASSWORD", "value": "{VALUE}"}}'),
    ("a.json", f'{{"auths": {{"ghcr.io": {{"auth": "{base64.b64encode(b"bob:hunter2").decode()}"}}}}}}'),
    ("a.json", f'{{"apiKey":"{VALUE}","b":1}}'),
    ("a.toml", f'api_key = "{VALUE}"'),
    ("a.tf", f'  password = "{VALUE}"'),
    ("a.yaml", f"token: {{{{ prefix }}}}{VALUE}"),
    ("a.xml", f"<server><password>{VALUE}</password></server>"),
    ("a.xml", f'<add key="ClearTextPassword" value="{VALUE}" />'),
    ("notes.txt", f"the registry password: {VALUE}"),
    ("notes.md", f"DB_PASSWORD={VALUE}"),
    ("a.xml", f'<Pass encoding="none">{VALUE}</Pass>'),
    ("a.yaml", f"password: |\n  {VALUE}\n"),
    ("a.yaml", f"it's the password: {VALUE}"),
    ("a.ini", "password = Xy.*92kL-q8"),
    ("a.js", f"fetch(url, {{headers: {{'X-Api-Key': '{VALUE}'}}}})"),
    ("local.settings.json", f'"Store": "AccountName=x;AccountKey={BASE64[:40]}==;EndpointSuffix=y"'),
    ("main.py", f'SECRET_KEY = "django-insecure-{VALUE}"  # noqa: S105'),
    (".gitconfig", f'[url "https://bob:{VALUE}@example.org/"]\n  insteadOf = x'),
    ("jdbc.txt", f"jdbc:postgresql://h/db?user=bob&password={VALUE}"),
    ("hosts", f"machine example.org login bob password {VALUE}"),
    ("conn.txt", f"Server=db;User Id=sa;Password={VALUE};Encrypt=true"),
    ("conn.txt", f"host=db user=bob password={VALUE}"),
    ("conn.txt", "postgres://bob:SuperSecretPw99@db.example.org/app"),
    ("a.py", 'URL = "https://ci:SuperSecretPw99@example.org/simple"'),
    ("pip.conf", "index-url = https://ci:SuperSecretPw99@example.org/simple"),
    ("a.py", f'API_KEY = "{VALUE}"'),
    ("a.py", f"password: str = '{VALUE}'"),
    ("a.py", f'connect(user="bob", password="{VALUE}")'),
    ("a.py", f'os.environ["DB_PASSWORD"] = "{VALUE}"'),
    ("a.py", f'os.environ.setdefault("DB_PASSWORD", "{VALUE}")'),
    ("a.py", f'config = {{"token": "{VALUE}"}}'),
    ("a.ipynb", f'    "API_KEY = \\"{VALUE}\\"\\n",'),
    ("a.js", f"const apiKey = `{VALUE}`;"),
    ("a.ts", f'const token: string = "{VALUE}";'),
    ("a.go", f'password := "{VALUE}"'),
    ("a.java", f'private String password = "{VALUE}";'),
    ("a.rb", f"password: '{VALUE}',"),
    ("a.php", f"define('DB_PASSWORD', '{VALUE}');"),
    ("a.php", f"'password' => '{VALUE}',"),
    ("a.R", f'Sys.setenv(API_TOKEN = "{VALUE}")'),
    ("Dockerfile", f"ENV API_TOKEN={VALUE}"),
    ("Makefile", f"API_TOKEN ?= {VALUE}"),
    ("docker-compose.yml", f"      POSTGRES_PASSWORD: ${{POSTGRES_PASSWORD:-{VALUE}}}"),
    (".env.example", f"DB_PASSWORD={VALUE}"),
    (".condarc", "channels:\n  - https://bob:SuperSecretPw99@conda.example.org/main"),
    ("a.yaml", f"client-key-data: {base64.b64encode(KEY.encode()).decode()}"),
    ("token.txt", VALUE),
    ("secrets/db_password", f"{VALUE}\n"),
    ("api.key", VALUE),
    ("wg0.conf", f"[Interface]\nPrivateKey = {BASE64[:43]}="),
    ("anything", KEY),
    ("anything", KEY.replace("\n", "\r\n")),
    ("a.py", f'KEY = """{KEY}"""'),
    ("a.json", f'{{"private_key": {KEY!r}}}'.replace("'", '"')),
    ("cut-off", KEY[:120]),
    ("a.pem", KEY),
    ("a.pem", CERTIFICATE + KEY),
    ("a.pem", "no PEM at all"),
    ("a.pem", ""),
    ("a.asc", KEY.replace("RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK").replace("-----\n", "-----\nVersion: 1\n\n", 1)),
    ("key", f"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n{BASE64}\n"),
    ("keys.txt", f"# created\nAGE-SECRET-KEY-1{'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L' * 2}\n"),
    ("jwk", f'{{"kty":"EC","crv":"P-256","d":"{"x7-_" * 11}"}}'),
    ("store", "\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1"),
    ("store", "\xce\xce\xce\xce\0\0\0\2\0\0\0\1"),
    ("jar", "# Netscape HTTP Cookie File\n.example.org\tTRUE\t/\tTRUE\t0\tsid\t1\n"),
]


@pytest.mark.parametrize(("path", "text"), SECRETS)
def test_secrets_in_files(path: str, text: str) -> None:
    """Values, keys and logins are found in the ways in which files of many kinds have them."""
    content = text.encode("latin-1")
    found = by_content(path, [content])
    assert found
    assert VALUE not in found
    more = b"x = 1\n" * 1000
    if not found.startswith("is ") and not path.endswith(".pem"):
        assert by_content(path, [more + content + b"\n" + more])
        assert by_content(path, [part for at in range(0, len(content), 7) if (part := content[at : at + 7])])


NO_SECRETS = [
    ("a.py", 'password = os.environ["DB_PASSWORD"]'),
    ("a.py", 'password = os.environ.get("DB_PASSWORD", "")'),
    ("a.py", "password = getpass.getpass('Password: ')"),
    ("a.py", "def login(user: str, password: str, token: str | None = None) -> Secret1:"),
    ("a.py", "api_key = api_key2 or settings.api_key1"),
    ("a.py", "token = tokens[0]"),
    ("a.py", 'token = ""'),
    ("a.py", "token = None"),
    ("a.py", 'password = f"{user}:{secret}"'),
    ("a.py", 'PASSWORD_PROMPT = "Your password, please 1: "'),
    ("a.py", 'TOKEN = r"[A-Za-z0-9_]{20,}"'),
    ("a.py", '_SECRET = re.compile(r"ghp_[A-Za-z0-9]{36}")'),
    ("a.py", 'if token == "2024-abc-def":'),
    ("a.py", 'eos_token = "<|im_end|>"'),
    ("a.py", 'pad_token = "[PAD]"'),
    ("a.py", 'password = "changeme"'),
    ("a.py", 'password = "changeme-123"'),
    ("a.py", 'password = "<your password 1>"'),
    ("a.py", 'token = "your-token-1"'),
    ("a.py", 'token = "sk-..."'),
    ("a.py", 'token = "xxxxxxxx-1"'),
    ("a.py", 'token = "********1"'),
    ("a.py", 'token = "abc" + suffix1'),
    ("a.py", 'token = "abc123-{}-def".format(x)'),
    ("a.py", 'url = f"postgres://{user}:{password}@{host}/db"'),
    ("a.py", 'url = "postgres://%s:%s@%s/db" % (user, password, host)'),
    ("a.py", 'url = "postgres://postgres:postgres@localhost:5432/db"'),
    ("a.py", 'MARKER = "-----BEGIN RSA PRIVATE KEY-----"'),
    ("a.py", 'for name in ("PASSWORD", "TOKEN"):'),
    ("a.py", 'url = "https://example.org/x?token="+user.token_1+"&x=1"'),
    ("a.py", 'password: SecretStr = Field("password-of-1", description="x")'),
    ("a.py", 'token: Annotated[str, Header("x-token-1")] = None'),
    ("a.py", "password=dict(required=True, no_log=True)"),
    ("a.py", 'PASSWORD = "Xy.*[a-z]+-1"'),
    ("a.py", 'token = "test-token-1"'),
    ("a.py", 'password = "x1-abc" * 20'),
    ("a.json", '{"password": "Contraseña", "secret": "Geheimwörter"}'),
    ("a.json", '{"password": "パスワードは8文字以上", "token": "Пароль-8"}'),
    ("a.html", '<token class="a">text-1 of it</token>'),
    ("package.json", '{"js-tokens": "^4.0.0", "csrf-token": "^10.20.30", "jsonwebtoken": "^9.0.0"}'),
    ("a.ts", "interface Login { user: string; password: string; token?: Token1 }"),
    ("a.ts", "const token = process.env.API_TOKEN1 ?? '';"),
    ("a.rs", 'let token = Token::from("x1y2z3-abc");'),
    ("a.tf", "  password = var.db_password1"),
    ("a.go", 'password := os.Getenv("DB_PASSWORD1")'),
    ("a.go", "token := user.Token2"),
    ("a.proto", "  string password = 12345678;"),
    ("a.sql", "password VARCHAR(255) NOT NULL"),
    ("a.html", '<input type="password" name="password" id="password1">'),
    ("a.sh", "TOKEN=$1"),
    ("a.sh", "TOKEN=$(vault read -field=token1 secret/app2)"),
    ("a.sh", "TOKEN=`cat /run/secrets/token1`"),
    ("a.sh", 'PASSWORD="${DB_PASSWORD1}"'),
    ("a.sh", "PASSWORD=${DB_PASSWORD1:-}"),
    ("a.sh", "read -s -p 'Password: ' PASSWORD"),
    ("a.sh", "TOKEN=/run/secrets/token1"),
    ("a.yaml", "password: ${{ secrets.DB_PASSWORD1 }}"),
    ("a.yaml", "password: {{ db_password1 }}"),
    ("a.yaml", 'password: "{{ .Values.db.password1 }}"'),
    ("a.yaml", "password: !vault |"),
    ("a.yaml", "password: !Ref DbPassword1"),
    ("a.yaml", "password: ENC[AES256_GCM,data:p673w7,iv:YY2,tag:UQ3,type:str]"),
    ("a.yaml", "password:"),
    ("a.yaml", "curl -H 'Authorization: Bearer $(gcloud auth print-access-token)'"),
    ("a.yaml", "secret: projects/my-project-1/secrets/my-secret/versions/1"),
    ("a.yaml", "header: 'Bearer {{ token_1 }}'"),
    ("a.yaml", "id-token: write"),
    ("a.yaml", "persist-credentials: false"),
    ("a.yaml", "secretName: my-secret-1234"),
    ("a.yaml", "password_file: secret-file-1"),
    ("a.yaml", "passwordSecretRef: app-secret-2"),
    ("a.yaml", "password: The password, at least 8 characters"),
    ("a.yaml", "- name: DB_PASSWORD\n  valueFrom:\n    secretKeyRef: {name: app-1, key: password-1}"),
    ("a.json", '{"password": "At least 8 characters, please"}'),
    ("a.json", '{"password": null, "token": 12345678, "secret": true}'),
    ("a.json", '{"max_tokens": "4096-8192x", "tokenizer": "bert-base-2x"}'),
    ("a.json", '{"eos_token": "<|endoftext|>", "token": "2024-01-02"}'),
    ("a.json", '{"NextToken": "AAMA-EFRSURBSGhX"}'),
    ("a.json", '{"author": "bob", "auth": "password"}'),
    ("a.toml", 'secrets = ["DB_PASSWORD1", "API_KEY2"]'),
    ("a.toml", 'API_TOKEN = "abc1"'),
    ("a.ini", "password = postgres"),
    ("a.ini", "password = 12345678"),
    ("a.ini", "password_encryption = scram-sha-256"),
    ("a.md", "Set `password` to the value: see https://example.org/token1"),
    ("a.md", "`scheme://user:password@host`, or `https://<user>:<password1>@host`"),
    ("a.md", "git clone https://$USER:$TOKEN1@github.com/x/y"),
    ("a.txt", "Passed: 12 tests, token count: 3.5e3-4x of all"),
    (".env.example", "DB_PASSWORD=\nAPI_KEY=your-api-key-1\nTOKEN=<token>\nURL=postgres://user:password@localhost/db"),
    ("a.pem", CERTIFICATE),
    ("a.pem", f"subject=CN=example\n{CERTIFICATE}{CERTIFICATE}"),
    ("a.pem", KEY.replace("RSA PRIVATE KEY", "PUBLIC KEY")),
    ("id_rsa.pub", f"ssh-rsa {BASE64} bob@example"),
    ("a.crt", CERTIFICATE),
    ("token.txt", "the tokens of a text 1, 2, 3"),
    ("tokens.txt", VALUE),
    ("a.bin", "\0\1\2" * 999),
    ("empty", ""),
]


@pytest.mark.parametrize(("path", "text"), NO_SECRETS)
def test_no_secrets_in_files(path: str, text: str) -> None:
    """References, expressions, placeholders, prose, public keys and empty values are no secrets."""
    assert by_content(path, [text.encode()]) == ""


def test_random_bytes_are_no_key(tmp_path: Path) -> None:
    """What only begins as DER does is not taken for a key."""
    for content in (
        b"0\x82\x01\x00" + bytes(range(256)),
        b"0\x03\x02\x01\x00",
        b"0\x80",
        b"0",
        b"\x30\x05\x02\x01\x01\x04\x00",
    ):
        assert by_content("a.bin", [content]) == ""


def keys(folder: Path) -> Iterator[tuple[str, Path]]:
    """Real keys in DER by OpenSSL, and what they are said to be."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    openssl("genrsa", "-out", "rsa.pem", "1024")
    openssl("rsa", "-in", "rsa.pem", "-outform", "DER", "-traditional", "-out", "rsa.der")
    yield "is a private key (RSA or DSA)", folder / "rsa.der"
    openssl("pkcs8", "-topk8", "-nocrypt", "-in", "rsa.pem", "-outform", "DER", "-out", "plain.p8")
    yield "is a private key (PKCS #8)", folder / "plain.p8"
    openssl("pkcs8", "-topk8", "-in", "rsa.pem", "-passout", "pass:x", "-outform", "DER", "-out", "encrypted.p8")
    yield "is an encrypted private key (PKCS #8)", folder / "encrypted.p8"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-outform", "DER", "-out", "ec.der")
    yield "is a private key (EC)", folder / "ec.der"
    openssl("genpkey", "-algorithm", "ed25519", "-outform", "DER", "-out", "ed.der")
    yield "is a private key (PKCS #8)", folder / "ed.der"
    openssl("req", "-x509", "-key", "rsa.pem", "-subj", "/CN=x", "-out", "cert.pem")
    openssl("pkcs12", "-export", "-inkey", "rsa.pem", "-in", "cert.pem", "-passout", "pass:x", "-out", "store")
    yield "is a key store (PKCS #12)", folder / "store"
    openssl("x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der")
    yield "", folder / "cert.der"
    openssl("rsa", "-in", "rsa.pem", "-pubout", "-outform", "DER", "-out", "public.der")
    yield "", folder / "public.der"
    yield "", folder / "cert.pem"
    yield "holds a private key", folder / "rsa.pem"


def test_real_keys(tmp_path: Path) -> None:
    """Private keys and key stores in DER are told from certificates, public keys and cut-off files."""
    for expected, path in keys(tmp_path):
        content = path.read_bytes()
        assert by_content("a.pem" if path.name == "cert.pem" else "data.bin", [content]) == expected, path.name
        if path.suffix != ".pem":
            assert by_content("data.bin", [content[:-1]]) == "", path.name


def test_text_of_windows() -> None:
    """Text in UTF-16 with its mark is read as such."""
    text = f"a\r\nDB_PASSWORD={VALUE}\r\n"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        mark = "" if encoding == "utf-16" else "\ufeff"
        assert by_content("a.ini", [(mark + text).encode(encoding)]) == "holds a value for DB_PASSWORD"


def test_a_script_without_suffix_is_code() -> None:
    """What the first line says is Python has expressions after its names."""
    assert by_content("tool", [b"#!/usr/bin/env python3\ntoken = user.token1_x\n"]) == ""
    assert by_content("tool", [b"#!/bin/sh\ntoken=user.token1_x\n"])


@pytest.mark.parametrize("size_bytes", [1, 3, 64, 1000, 1 << 20])
def test_wherever_the_pieces_end(size_bytes: int) -> None:
    """A secret is found in a large file wherever its pieces end, and none is made by that."""
    secret = f"DB_PASSWORD={VALUE}\n".encode()
    escape_commands = b"TOKEN=${SOME_TOKEN_1}\nPASSWORD=$(cat some-file-1)\n" * 300
    for content, found in (
        (escape_commands, ""),
        (escape_commands + secret + escape_commands, "holds a value for DB_PASSWORD"),
    ):
        pieces = [content[at : at + size_bytes] for at in range(0, len(content), size_bytes)]
        assert by_content("a.ini", pieces) == found
