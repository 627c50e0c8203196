"""What can be held in a run, so that it is the same each time, and how."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runnable_ci.analysis.reproduction.determinism.culprits import MOMENT, Culprit
from runnable_ci.pipeline.branches.expansion import ANY
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step

HELD: Final = "RUNNABLE_HELD"
"""Names what the hook holds in the interpreters of the steps."""
MOMENT_HELD: Final = "RUNNABLE_HELD_MOMENT"
HOLDABLE: Final[tuple[Culprit, ...]] = (
    *("random", "hash-order", "time", "listing-order", "completion-order", "threads", "system-random"),
    *("process-id", "path", "run-id", "address"),
)
"""In the order in which they are tried where nothing speaks for one of them."""
OF_WHOLE_RUNS: Final[frozenset[Culprit]] = frozenset({"completion-order", "path", "run-id", "address"})
"""What is held in all steps of a run or in none."""
_THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_NO_RANDOM_ADDRESSES: Final = 0x0040000
"""Source: personality(2), ADDR_NO_RANDOMIZE."""
_ASK: Final = 0xFFFFFFFF
_PROGRAMS: Final[Mapping[Culprit, Mapping[str, str]]] = {
    "time": {
        "date": 'case " $* " in *" -d"*|*" --date"*|*" -r"*|*" -f"*|*" -s"*) exec {real} "$@";; esac\n'
        'exec {real} -d @{moment} "$@"',
        "gzip": 'exec {real} -n "$@"',
        "tar": 'case "$1" in *c*) exec {real} "$@" --mtime=@{moment};; esac\nexec {real} "$@"',
    },
    "random": {
        "shuf": 'exec {real} --random-source="{folder}/bytes" "$@"',
        "sort": 'exec {real} --random-source="{folder}/bytes" "$@"',
    },
    "completion-order": {
        "xargs": 'for word do shift; case "$word" in -P) skip=1; continue;; -P*|--max-procs=*) continue;; esac\n'
        'if [ "$skip" ]; then skip=; continue; fi; set -- "$@" "$word"; done\nexec {real} "$@"',
    },
    "listing-order": {"find": 'case " $* " in *" -print0"*|*" -exec"*) exec {real} "$@";; esac\n{real} "$@" | sort'},
}
"""Programs of the shell that are asked for the same each time."""


def can_be_held(culprit: Culprit) -> bool:
    """Return whether a run with that held can be made here."""
    return culprit in HOLDABLE and (culprit != "address" or _personality(_ASK) is not None)


def holding(
    pipeline: Pipeline,
    held: Mapping[str, Collection[Culprit]],
    folder: Path,
    environ: Mapping[str, str],
    moment: int = MOMENT,
) -> Pipeline:
    """Return a pipeline in whose steps things are held, by their names in its outline, with what they need in a folder.

    What a step says of its environment counts with it: its own `PYTHONPATH` comes behind that of the hook.
    """
    places = {name: folder / str(at) for at, name in enumerate(held)}

    def with_held(step: Step, name: str) -> Step:
        body = step.branching.body if step.branching else {}
        inner = {key: with_held(one, f"{name}.{ANY}.{key}") for key, one in body.items()}
        branching = step.branching._replace(body=inner) if step.branching else None
        if not held.get(name):
            return step._replace(branching=branching)
        places[name].mkdir(exist_ok=True)
        variables = held_variables(held[name], places[name], {**environ, **step.env}, moment)
        changed = {key: value for key, value in variables.items() if environ.get(key) != value}
        return step._replace(env={**step.env, **changed}, branching=branching)

    return pipeline._replace(steps={name: with_held(step, name) for name, step in pipeline.steps.items()})


def held_variables(
    held: Collection[Culprit], folder: Path, environ: Mapping[str, str], moment: int = MOMENT
) -> dict[str, str]:
    """Return the environment of a step in which things are held, with what it needs written into a folder.

    `moment` is when a held clock begins, in seconds since 1970.
    """
    found = dict(environ)
    shutil.copyfile(Path(__file__).with_name("hook.py"), folder / "sitecustomize.py")
    found |= {HELD: ",".join(sorted(held)), MOMENT_HELD: str(moment)}
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), environ.get("PYTHONPATH", "")]))
    found["PATH"] = os.pathsep.join([str(_programs(held, folder, environ, moment)), environ.get("PATH", os.defpath)])
    if "hash-order" in held:
        found["PYTHONHASHSEED"] = "0"
    if "threads" in held:
        found |= dict.fromkeys(_THREADS, "1")
    if "completion-order" in held:
        found["LOKY_MAX_CPU_COUNT"] = "1"
    if "time" in held:
        found |= {"SOURCE_DATE_EPOCH": str(moment), "TZ": "UTC"}
    if "random" in held:
        (folder / "bash").write_text("RANDOM=42\n", encoding="utf-8")
        found["BASH_ENV"] = str(folder / "bash")
    if "path" in held:
        (folder / "tmp").mkdir()
        found["TMPDIR"] = str(folder / "tmp")
    return found


def _programs(held: Collection[Culprit], folder: Path, environ: Mapping[str, str], moment: int) -> Path:
    place = folder / "bin"
    place.mkdir()
    (folder / "bytes").write_bytes(bytes(range(256)) * 4096)
    for culprit in held:
        for name, script in _PROGRAMS.get(culprit, {}).items():
            if real := shutil.which(name, path=environ.get("PATH")):
                text = script.replace("{real}", shlex.quote(real)).replace("{folder}", str(folder))
                text = text.replace("{moment}", str(moment))
                (place / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
                (place / name).chmod(0o755)
    return place


@contextmanager
def held_addresses(held: Collection[Culprit]) -> Iterator[None]:
    """Let the processes that start in the block have the same addresses each time, where that is held."""
    before = _personality(_ASK) if "address" in held else None
    if before is None:
        yield
        return
    _personality(before | _NO_RANDOM_ADDRESSES)
    try:
        yield
    finally:
        _personality(before)


def _personality(value: int) -> int | None:
    """Set the personality of this process, and of what it starts; the one before, None where that is refused."""
    try:
        found = int(ctypes.CDLL(None, use_errno=True).personality(ctypes.c_ulong(value)))
    except (OSError, AttributeError):
        return None
    return None if found == -1 else found
