"""What several test files need: real processes of the tool, and a look at a store that trusts nothing of ours."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

WAIT_S = 90.0
CEILING = "GIT_CEILING_DIRECTORIES"
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.(tmp|dir|near)")


def environment(home: Path, **more: str) -> dict[str, str]:
    """An environment with a home of its own and nothing of the machine's settings."""
    home.mkdir(exist_ok=True)
    names = ("PATH", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", CEILING)
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", **more}


def start(folder: Path, *arguments: str, environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process of the tool in a folder; what it says is appended to `log`."""
    with log.open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "runnable_ci", *arguments],
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )


def wait_until(condition: Callable[[], Any], what: str, *, timeout_s: float = WAIT_S, poll_s: float = 0.002) -> Any:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(poll_s)
    return found


def python(
    code: str, *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """A finished process of this interpreter that ran `code`."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=None if environ is None else dict(environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def blobs(store: Path) -> dict[str, Path]:
    """The blobs of a layout by the hex digest that their name says."""
    folder = store / "blobs" / "sha256"
    return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else {}


def leftovers(folder: Path) -> list[str]:
    """What is temporary of ours below a folder."""
    found = [Path(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)]
    return sorted(str(path.relative_to(folder)) for path in found if TEMPORARY.fullmatch(path.name))


def sha256(content: bytes | Path) -> str:
    """The hex digest of some bytes, or of a file."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def index_of(store: Path) -> dict[str, Any]:
    """The parsed `index.json` of a layout."""
    parsed = json.loads((store / "index.json").read_bytes())
    assert isinstance(parsed, dict)
    return parsed


def write_old_journal(store: Path, run_id: str, lines: Iterable[str]) -> None:
    """Let a run have these lines for its journal, as the first versions wrote it, and not be sealed."""
    unchecked = (re.sub(r'^\{"check":"[0-9a-f]{16}",', "{", line.rstrip("\n")) for line in lines)
    (store / "runs" / run_id / "journal.jsonl").write_text("".join(f"{line}\n" for line in unchecked))
    index = index_of(store)
    names = "org.opencontainers.image.ref.name"
    index["manifests"] = [entry for entry in index["manifests"] if entry["annotations"].get(names) != run_id]
    (store / "index.json").write_text(json.dumps(index))


def guards(worker: int) -> list[int]:
    """Return the processes that a worker parted from itself: they have its command."""
    command = Path(f"/proc/{worker}/cmdline").read_bytes()
    children = Path(f"/proc/{worker}/task/{worker}/children").read_text().split()
    return [int(it) for it in children if Path(f"/proc/{it}/cmdline").read_bytes() == command]
