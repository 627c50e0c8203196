"""What an interpreter says of itself and of its packages: asked once, and kept while nothing of that changes.

The answer is kept in the user's cache folder, a file for each interpreter. It holds as long as the interpreter's file,
its `pyvenv.cfg`, the variables that Python reads, the folders of its packages and their `.pth` files are as they were:
installing, updating or removing a package changes the time of the folder that it is in.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runnable_ci.errors import StoreError
from runnable_ci.runs.machines.environment_model import Origin
from runnable_ci.util.files import open_nofollow, sweep, write_whole
from runnable_ci.util.process import check_output

TIMEOUT_S: Final = 30
_KEPT_MAX_BYTES: Final = 4 * 1024 * 1024
SETTLED_NS: Final = 2_000_000_000
"""How old the last change must be for any later one to show: file systems may count whole seconds."""
_TICK_NS: Final = 20_000_000
"""Clocks of file systems may be as late as this."""
_LIBRARY_PATHS: Final = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FRAMEWORK_PATH")

# The workspace, which `-c` puts first, has no say: a `json.py` in it is not Python's.
SCRIPT: Final = """
import sys
sys.path[:] = [place for place in sys.path if place]
import json, os, re, site
packages, places, editable, origins = {}, list(sys.path), [], {}
if getattr(site, "ENABLE_USER_SITE", None) and isinstance(site.USER_SITE, str):
    places.append(site.USER_SITE)
for folder in filter(os.path.isdir, sys.path):
    places += [os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".pth")]
try:
    from importlib.metadata import distributions
except ImportError:
    distributions = list
for found in distributions():
    try:
        name, version = found.metadata["Name"], found.version
    except Exception:
        continue
    key = re.sub("[-_.]+", "-", name).lower() if name and version else ""
    is_first = key and key not in packages
    if is_first:
        packages[key] = version
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        if origin.get("dir_info", {}).get("editable"):
            editable.append(origin["url"])
        if not is_first or not origin or (found.read_text("INSTALLER") or "").strip() == "conda":
            continue  # conda leaves there where it built a package
        if "dir_info" in origin:
            origins[key] = "editable" if origin["dir_info"].get("editable") else "folder"
        elif "vcs_info" in origin:
            origins[key] = "git" if origin["vcs_info"].get("vcs") == "git" else "repository"
        else:
            origins[key] = "file" if origin["url"].startswith("file:") else "url"
    except Exception:
        continue
version = sys.implementation.name + " " + sys.version.split()[0]
answer = {"version": version, "executable": sys.executable or "", "packages": packages, "places": places}
answer["editable"], answer["origins"] = editable, origins
sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))
"""

_INSTALLED: Final = re.compile(r"/(?:site|dist)-packages(?:/|$)|/python[0-9.]+(?:/lib-dynload)?/?$")
"""Where Python, or an installer, has put modules: these are known by its version, and by theirs."""

_State = tuple[int, int, int, int]
"""Times of modification and of change (ns), inode, size."""


class Answer(BaseModel):
    """What an interpreter says; all is empty where it said nothing."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)

    version: str = ""
    executable: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    """Name, normalized → version, of what it can import."""
    places: list[str] = Field(default_factory=list)
    """Files and folders, there or not, that decide about the packages."""
    editable: list[str] = Field(default_factory=list)
    """URLs of the projects that are imported from where they are developed."""

    origins: dict[str, Origin] = Field(default_factory=dict)
    """Package → from what it was installed, of those that came from no index."""

    def linked(self) -> list[str]:
        """Return the folders that it imports from beside its own, and those where packages are installed."""
        own = (place for place in self.places if not place.endswith((".pth", ".zip")) and not _INSTALLED.search(place))
        return [*(unquote(urlsplit(url).path) for url in self.editable), *own]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", defer_build=True)

    key: str
    answer: Answer
    states: dict[str, _State | None]


def ask(interpreter: str, workspace: Path, environ: Mapping[str, str], *, settled_ns: int = SETTLED_NS) -> Answer:
    """Ask an interpreter, or look up what it said when nothing was different.

    An answer is kept where the last change was at least `settled_ns` before it.
    """
    file, key = _file(interpreter, environ), _key(interpreter, workspace, environ)
    if file is not None and (kept := _read(file, key)):
        return kept
    began_ns = time.time_ns()
    answer = answer_of(check_output([interpreter, "-c", SCRIPT], cwd=workspace, env=environ, timeout_s=TIMEOUT_S))
    # A launcher, such as pyenv's, decides by other things which interpreter it starts.
    is_direct = os.path.realpath(answer.executable) == os.path.realpath(interpreter)
    if file is not None and is_direct:
        _keep(file, key, answer, before_ns=began_ns - settled_ns)
    return answer if answer.executable else Answer(executable=interpreter)


class LastAnswers:
    """What interpreters said last: the same as long as nothing changes, which is looked up each time."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._last: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Answer, dict[str, _State | None]]] = {}
        self._silent = Answer()
        self._environ: Mapping[str, str] = {}
        self._decisive: tuple[tuple[str, str], ...] = ()

    def of(self, interpreter: str, environ: Mapping[str, str]) -> Answer:
        """Return what an interpreter says now, the same object while that is the same; empty where there is none."""
        if not interpreter or not os.access(interpreter, os.X_OK):
            return self._silent
        if environ is not self._environ:  # most steps have the same one
            self._environ, self._decisive = environ, tuple(sorted(_decisive(environ).items()))
        key = interpreter, self._decisive
        last = self._last.get(key)
        if last is not None and _states(last[1]) == last[1]:
            return last[0]
        before_ns = time.time_ns() - _TICK_NS
        answer = ask(interpreter, self._workspace, environ)
        states = _states([interpreter, *answer.places])
        self._last.pop(key, None)
        if last is not None and last[0] == answer:
            answer = last[0]
        if not any(state and max(state[:2]) >= before_ns for state in states.values()):
            self._last[key] = answer, states
        return answer


def _decisive(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which an interpreter finds its packages."""
    return {n: value for n, value in environ.items() if n.startswith("PYTHON") or n in ("HOME", *_LIBRARY_PATHS)}


def answer_of(output: bytes | None) -> Answer:
    """Return what `SCRIPT` printed; nothing where it did not run, or in a program of that name which is no Python."""
    try:
        return Answer.model_validate_json(output or b"{}")
    except ValidationError:
        return Answer()


def _file(interpreter: str, environ: Mapping[str, str]) -> Path | None:
    """Return where the answer is kept; None where the user has no cache folder."""
    cache = Path(environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # Source: XDG Base Directory Specification 0.8
        cache = Path(environ.get("HOME", ""), ".cache")
    if not cache.is_absolute():
        return None
    name = hashlib.sha256(os.fsencode(os.path.abspath(interpreter))).hexdigest()[:32]  # noqa: PTH100 - links count
    return cache / "runnable-ci" / "interpreters" / f"{name}.json"


def _key(interpreter: str, workspace: Path, environ: Mapping[str, str]) -> str:
    """Return what is known before the interpreter is asked, and makes another answer possible."""
    path = os.path.abspath(interpreter)  # noqa: PTH100 - the links to it count: a virtual environment is one
    real = os.path.realpath(path)
    folder = os.path.dirname(path)  # noqa: PTH120
    settings = [os.path.join(folder, *above, "pyvenv.cfg") for above in ([], [os.pardir])]  # noqa: PTH118
    known = [SCRIPT, path, real, *map(_state, [real, *settings]), _decisive(environ)]
    if "PYTHONPATH" in environ:  # it may be relative
        known.append(str(workspace))
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _state(path: str) -> _State | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - for each step, and a path takes as long as the look
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size


def _states(places: Iterable[str]) -> dict[str, _State | None]:
    return {place: _state(place) for place in places}


def _read(file: Path, key: str) -> Answer | None:
    """Return the answer that is kept, if it was written by this program and is still valid; None for anything else."""
    try:
        with open(file, "rb", opener=open_nofollow) as opened:
            about = os.fstat(opened.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid() or about.st_size > _KEPT_MAX_BYTES:
                return None
            kept = _Kept.model_validate_json(opened.read())
    except (OSError, ValidationError):
        return None
    holds = kept.key == key and set(kept.answer.places) == kept.states.keys() == _states(kept.states).keys()
    return kept.answer if holds and _states(kept.states) == kept.states else None


def _keep(file: Path, key: str, answer: Answer, *, before_ns: int) -> None:
    """Keep an answer, unless something changed so recently that a change after it might not show."""
    states = _states(answer.places)
    if any(state and max(state[:2]) >= before_ns for state in states.values()):
        return
    content = _Kept(key=key, answer=answer, states=states).model_dump_json().encode()
    with suppress(OSError, StoreError):  # a home that is read-only or full
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        sweep(file.parent)
        ignore = file.parents[1] / ".gitignore"
        if not ignore.exists():  # the workspace may be the home
            write_whole(ignore, b"*\n")
        write_whole(file, content)
