"""A second real registry, Pulp's container plugin from PyPI on PostgreSQL: for tests that take minutes.

Much is otherwise than in docker-registry: no connection is kept, a download is a redirect to another server, and a
removal is accepted for later.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from runnable_ci.store.reference import Credentials

VERSION = "2.30.0"
ADMIN = Credentials("admin", "correct-horse")
CACHE = Path(__file__).parent.parent / ".cache" / f"pulp-container-{VERSION}"
SETTINGS = """
SECRET_KEY = "not one"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "pulp", "USER": "pulp",
                         "HOST": "{folder}/sockets", "PORT": "5432"}}}}
CONTENT_ORIGIN = "http://127.0.0.1:{content}"
TOKEN_AUTH_DISABLED = True
MEDIA_ROOT = "{folder}/media"
WORKING_DIRECTORY = FILE_UPLOAD_TEMP_DIR = "{folder}/work"
STATIC_ROOT = "{folder}/static"
DB_ENCRYPTION_KEY = "{folder}/key"
CACHE_ENABLED = ANALYTICS = FLATPAK_INDEX = False
"""


@contextmanager
def pulp_registry(_: Path) -> Iterator[str]:
    """The host of a Pulp; `ADMIN` may do all.

    Its data is outside of pytest's folders: each pytest that starts closes them to all other users, PostgreSQL's too.
    """
    with tempfile.TemporaryDirectory(prefix="pulp-") as name:
        yield from _served(Path(name))


def _served(folder: Path) -> Iterator[str]:
    programs = _installed()
    folder.chmod(0o755)
    api, content = _free_port(), _free_port()
    for name in ("media", "work", "static", "sockets", "database"):
        (folder / name).mkdir(parents=True)
    (folder / "key").write_bytes(base64.b64encode(os.urandom(32)))
    (folder / "settings.py").write_text(SETTINGS.format(folder=folder, content=content))
    environ = {**os.environ, "PULP_SETTINGS": str(folder / "settings.py")}
    environ["DJANGO_SETTINGS_MODULE"] = "pulpcore.app.settings"
    with ExitStack() as running, (folder / "log").open("wb") as log:
        running.enter_context(_database(folder))

        def manage(*words: str) -> None:
            subprocess.run([programs / "pulpcore-manager", *words], env=environ, check=True, stdout=log, stderr=log)

        manage("migrate", "--noinput")
        manage("reset-admin-password", "--password", ADMIN.password)
        for words in (
            ["pulpcore-api", "-b", f"127.0.0.1:{api}", "-w", "2", "--timeout", "300"],
            ["pulpcore-content", "-b", f"127.0.0.1:{content}", "-w", "1"],
            ["pulpcore-worker"],
        ):
            process = subprocess.Popen([programs / words[0], *words[1:]], env=environ, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.terminate)
        _wait_for(api, content)
        yield f"127.0.0.1:{api}"


def _installed() -> Path:
    """Install Pulp once, into the cache of the tests; the folder of its programs."""
    if not (CACHE / "bin" / "pulpcore-manager").exists():
        subprocess.run([sys.executable, "-m", "venv", str(CACHE)], check=True)
        words = ["-m", "pip", "install", "--quiet", f"pulp-container=={VERSION}"]
        subprocess.run([CACHE / "bin" / "python", *words], check=True)
    return CACHE / "bin"


@contextmanager
def _database(folder: Path) -> Iterator[None]:
    """A PostgreSQL that only `folder` leads to, as a user who is not root: it runs as no other."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    data, sockets = folder / "database", folder / "sockets"
    as_user: list[str] = []
    if os.geteuid() == 0:
        as_user = ["runuser", "-u", "postgres", "--"]
        subprocess.run(["chown", "postgres", str(data), str(sockets)], check=True)

    def run(program: str, *words: str) -> None:
        subprocess.run([*as_user, str(programs / program), *words], check=True, cwd="/", stdout=subprocess.DEVNULL)

    run("initdb", "-A", "trust", "-N", "-D", str(data))
    options = f"-k {sockets} -c listen_addresses= -F"
    run("pg_ctl", "-D", str(data), "-l", str(data / "log"), "-o", options, "-w", "start")
    try:
        run("createuser", "-s", "-h", str(sockets), "pulp")
        run("createdb", "-h", str(sockets), "-O", "pulp", "pulp")
        yield
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(*ports: int) -> None:
    deadline = time.monotonic() + 120
    waiting = set(ports)
    while waiting and time.monotonic() < deadline:
        for port in list(waiting):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                waiting.discard(port)
        time.sleep(0.1)
    if waiting:
        raise RuntimeError(f"Pulp does not start: nothing listens on {waiting}")
