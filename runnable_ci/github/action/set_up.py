"""The action's own Python environment, made before anything else.

Runs in the job's Python, which has none of our dependencies: it and what it imports use the standard library alone.

A use of the action has the environment of its own version: another one of the same job, by another ref or Python, has
another folder. The dependencies are installed as they are pinned, whatever pip's variables and files say: only
those of its settings count that say how packages are reached, such as a mirror.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from configparser import Error as ConfigParserError
from configparser import RawConfigParser
from pathlib import Path

from runnable_ci.errors import RunnableError, StepError
from runnable_ci.github import commands as workflow
from runnable_ci.github.action.job_environment import keep
from runnable_ci.github.commands import Annotation
from runnable_ci.util.console import console
from runnable_ci.util.process import run_with_input
from runnable_ci.util.process_output import Finished

LOCK = "action-requirements.txt"
_REACHING = (
    *("index-url", "pypi-url", "extra-index-url", "find-links", "no-index", "trusted-host", "keyring-provider"),
    *("cert", "client-cert", "proxy", "timeout", "default-timeout", "retries", "cache-dir", "no-cache-dir"),
    *("use-feature", "use-deprecated"),  # which certificates are trusted
)
"""The settings of pip that say how packages are reached; every other one is set aside."""
_OPTIONS = (
    *("install", "--quiet", "--no-input", "--no-compile", "--disable-pip-version-check"),
    *("--require-hashes", "--only-binary", ":all:", "--requirement"),
)


def environment_key(action: Path) -> str:
    """Return what tells the environments apart: where the code is, its dependencies, the Python that they are for."""
    told_apart = (os.fsencode(action), (action / LOCK).read_bytes(), sys.executable.encode(), sys.version.encode())
    return hashlib.sha256(b"\0".join(told_apart)).hexdigest()[:16]


def pip_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the files that pip is configured by, there or not; what a later one says wins.

    Source: pip, "Configuration", location and precedence; `pip config list` shows one of them alone where one says
    `user = true`.
    """
    named, home = environ.get("PIP_CONFIG_FILE", ""), Path(environ.get("HOME") or "/")
    if named == os.devnull:
        return []
    system = ["/Library/Application Support", *(environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)[::-1]]
    own = [environ.get("XDG_CONFIG_HOME") or str(home / ".config"), str(home / "Library" / "Application Support")]
    files = [*(Path(folder, "pip", "pip.conf") for folder in system), Path("/etc/pip.conf")]
    if not (named and Path(named).exists()):
        files += [home / ".pip" / "pip.conf", *(Path(folder, "pip", "pip.conf") for folder in own)]
    return [*files, Path(sys.prefix, "pip.conf"), *([Path(named)] if named else [])]


def index_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings of how packages are reached, as its variables. A file that cannot be read is said."""
    configured = RawConfigParser(strict=False)
    for file in pip_files(environ):
        try:
            configured.read(file, "utf-8")
        except (ConfigParserError, OSError, UnicodeDecodeError):
            console.err(f"{file}: pip's configuration cannot be read, and does not count")
    found: dict[str, str] = {}
    for setting in _REACHING:
        variable = f"PIP_{setting.replace('-', '_').upper()}"
        in_files = (configured.get(section, setting, fallback="") for section in ("install", "global"))
        if value := next(filter(None, (environ.get(variable), *in_files)), ""):  # an empty one hides none, as with pip
            found[variable] = value
    return found


def set_up(environ: Mapping[str, str], action: Path, folder: Path) -> Path:
    """Return the interpreter of the environment, which is made where it is not there. Raises `RunnableError`."""
    home = folder / f"tool-{environment_key(action)}"
    if not home.exists():
        new = folder / f"{home.name}.{os.urandom(4).hex()}"
        console.commands(workflow.group("runnable-ci: set up its environment"))
        try:
            _make(environ, action, new)
            new.rename(home)
        except OSError:
            if not home.exists():  # else another use of the action was faster
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
            console.commands(workflow.endgroup())
    return home / "bin" / "python"


def _make(environ: Mapping[str, str], action: Path, new: Path) -> None:
    plain = {name: value for name, value in environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    plain["PIP_CONFIG_FILE"] = os.devnull  # with which pip reads no file at all
    python = new / "bin" / "python"
    here = [sys.executable, "-I", "-m"]
    if not _run([*here, "pip", "--version"], plain).code:
        _require("make an environment", [*here, "venv", "--without-pip", str(new)], plain)
        pip = [*here, "pip", "--python", str(new)]
    else:
        _require("make an environment with pip", [*here, "venv", str(new)], plain)
        pip = [str(python), "-I", "-m", "pip"]
    _require("install the dependencies", [*pip, *_OPTIONS, str(action / LOCK)], plain | index_settings(environ))
    where = {"base": str(new), "platbase": str(new)}
    packages = Path(sysconfig.get_path("purelib", "venv", where))
    (packages / "runnable_ci.pth").write_text(f"{action}\n", "utf-8")
    _require("start", [str(python), "-I", "-m", "runnable_ci", "--version"], plain)


def _run(argv: Sequence[str], env: Mapping[str, str]) -> Finished:
    return run_with_input(argv, stdin=b"", env=env)


def _require(what: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Run a program. Raises `StepError` where it fails; what it wrote is shown."""
    done = _run(argv, env)
    console.err(*(done.stdout + done.stderr).decode(errors="replace").splitlines())
    if done.code:
        raise StepError(
            f"the action cannot {what}: see the lines above", hint="see the chapter `Start` of its docs/github.md"
        )


def main() -> None:
    """Make the environment, keep that of the job, and tell both to the next steps of the action."""
    environ = os.environ
    folder = Path(environ["RUNNER_TEMP"]) / "runnable-ci"
    action = Path(environ["GITHUB_ACTION_PATH"]).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        python = set_up(environ, action, folder)
        outputs = {
            "python": str(python),
            "environment": str(keep(environ, folder)),
            # A Python of `setup-python` may not start without it.
            "library-path": environ.get("LD_LIBRARY_PATH", ""),
        }
        workflow.append(Path(environ["GITHUB_OUTPUT"]), workflow.assignments(outputs))
    except (RunnableError, OSError) as e:
        console.commands(workflow.annotate(Annotation("error", str(e), title="runnable-ci")))
        raise SystemExit(1) from e
