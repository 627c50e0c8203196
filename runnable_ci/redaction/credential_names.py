"""Which files hold credentials by their names, as packers and secret scanners know them. Pure."""

from __future__ import annotations

import re
from fnmatch import translate
from functools import cache
from typing import Final

_CODE_SUFFIXES: Final = frozenset(
    [
        *(
            "bas",
            "c",
            "cc",
            "cjs",
            "clj",
            "cpp",
            "cs",
            "css",
            "cxx",
            "d",
            "dart",
            "elm",
            "erl",
            "ex",
            "exs",
            "f90",
            "fs",
        ),
        *(
            "go",
            "gradle",
            "graphql",
            "groovy",
            "h",
            "hcl",
            "hpp",
            "hs",
            "htm",
            "html",
            "ipynb",
            "java",
            "jl",
            "js",
            "jsx",
        ),
        *("kt", "kts", "lua", "m", "mjs", "ml", "mm", "mts", "nim", "nix", "php", "pl", "pm", "proto", "ps1", "psm1"),
        *("pxd", "py", "pyi", "pyx", "qmd", "r", "rb", "rmd", "rs", "sass", "scala", "scss", "sol", "sql", "svelte"),
        *("swift", "tf", "ts", "tsx", "vb", "vue", "zig"),
    ]
)
_DOCUMENT_SUFFIXES: Final = frozenset(["adoc", "md", "rst", "tex"])
_TEMPLATE: Final = re.compile(
    r"(^|[._-])(examples?|samples?|template|tmpl|tpl)($|[._-])|\.(defaults?|dist|enc|age|sops)($|\.)"
)
"""Of a file that has no values, or encrypted ones."""
_BACKUP: Final = re.compile(r"(~|\.(bak|backup|old|orig|save|copy|tmp|sw[a-p]))+$")

# By the last part of the path. A dotenv file may be called `.env.local` or `.env-prod`, but `.environment` is none.
_FILES: Final = (
    *(".env", ".env[!a-z]*", ".envrc*", "*.env"),
    *(".netrc", "_netrc", ".npmrc", ".pypirc", ".git-credentials", ".pgpass", "pgpass.conf", ".my.cnf", ".mylogin.cnf"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "id_ed448*", "id_xmss*", "*.ppk"),
    *("*.p12", "*.pfx", "*.pkcs12", "*.jks", "*.jceks", "*.bks", "*.keystore", "*.kdb", "*.kdbx"),
    *("*.keychain", "*.keychain-db", "secring.*", "master.key"),
    *("credentials", ".credentials", "*.credentials", "client_secret*.json", "*accesskeys.csv", "rootkey.csv"),
    *("service[-_]account*.json", "serviceaccount*.json", "*[-_]service[-_]account.json", "credentials.tfrc.json"),
    *(
        "gha-creds-*.json",
        "application_default_credentials.json",
        "kaggle.json",
        "auth.json",
        "access_tokens.db",
        "credentials.db",
        "token.pickle",
    ),
    *(".secrets", "*.secret", "*.secrets", ".vault-token", ".vault[-_]pass*", ".htpasswd", "htpasswd", ".htdigest"),
    *(".dockercfg", ".dockerconfigjson", "kubeconfig", "kubeconfig[._-]*", "kube[._-]config*", "*[._-]kubeconfig"),
    *("*.tfstate", "*.tfstate.*", ".boto", ".s3cfg", ".passwd-s3fs", "rclone.conf", ".databrickscfg", ".renviron"),
    *("cookies", "cookies.txt", "cookies.sqlite", "login data", "key3.db", "key4.db", "logins.json", "signons.sqlite"),
    ".*_history",
    *(
        form.format(stem=stem, kind=kind)
        for form in ("{stem}.{kind}", "{stem}.*.{kind}", "*[.-]{stem}.{kind}")
        for stem in ("credentials", "secret", "secrets", "password", "passwords")
        for kind in ("json", "y*ml", "toml", "ini", "cfg", "conf", "properties", "txt", "csv", "xml")
    ),
)
# By the last parts of the path; a folder matches everything in it.
_PATHS: Final = (
    *(".aws/credentials", ".aws/sso/*", ".aws/cli/*", ".azure/*", ".config/gcloud/*", ".gnupg/*", ".ssh/*"),
    *(".docker/config.json", "containers/auth.json", ".kube/config", ".kube/cache/*", ".config/gh/hosts.yml"),
    *(".cargo/credentials*", ".gem/credentials", ".m2/settings.xml", ".m2/settings-security.xml", "huggingface/token"),
    *(".subversion/auth/*", ".config/hub", ".streamlit/secrets.toml", ".terraform.d/credentials.tfrc.json"),
)
# A key that was given a name of its own (`id_github`); `id_map.csv` is none.
_OTHER_KEY: Final = re.compile(r"id_[a-z0-9_@-]+")


def is_named_as_credentials(path: str) -> bool:
    """Return whether a path, in any folder and letter case, is that of a credential file.

    Code, documents, templates (`.env.example`) and public keys (`id_rsa.pub`) are no such files by their names.
    """
    *folders, name = path.lower().split("/")
    name = _BACKUP.sub("", name)
    if suffix(name) in ("pub", *_CODE_SUFFIXES, *_DOCUMENT_SUFFIXES) or _TEMPLATE.search(name):
        return False
    full = "/".join(["", *folders, name])
    return bool(_any_of(_FILES).match(name) or _any_of(_PATHS).match(full) or _OTHER_KEY.fullmatch(name))


def is_code(path: str) -> bool:
    """Return whether a file is a program's text, by its name."""
    return suffix(path) in _CODE_SUFFIXES


def suffix(path: str) -> str:
    """Return what follows the last dot of a file's name, in lower case; empty where there is none."""
    return path.rpartition("/")[2].rpartition(".")[2].lower() if "." in path.rpartition("/")[2] else ""


@cache
def _any_of(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return what matches one of these patterns; those of `_PATHS` in any folder."""
    return re.compile("|".join(translate(f"*/{pattern}" if "/" in pattern else pattern) for pattern in patterns))
