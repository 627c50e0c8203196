"""What a killed process leaves of the temporary is where the next one sweeps, whatever the moment of the kill."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from support import environment

KILL_POINTS = Path(__file__).parent / "kill_points.py"
# Twenty small files make a pack; output on both streams makes an index; the last step fails, so that a retry has work.
PIPELINE = """
[steps.make]
run = "mkdir -p d; for i in $(seq 20); do echo $i > d/$i; done; echo out; echo err >&2"
catalog = { put = ["d"] }
[steps.lose]
run = "rm -r d; echo x=1 > $RUNNABLE_OUTPUT"
returns = ["x"]
[steps.take]
run = "cat d/1; echo err >&2; exit 3"
catalog = { get = ["d/1"] }
"""
LASTING = re.compile(
    r"\.gitignore|oci-layout|index\.json|index\.lock|store\.lock|writer|tmp|runs|blobs|blobs/sha256"
    r"|blobs/sha256/[0-9a-f]{64}|runs/[^/]+"
    r"|runs/[^/]+/(journal\.jsonl|lock|processes|logs|logs/[a-z]+\.\d+\.(log|idx))"
)


def test_a_kill_before_any_change_in_the_store_leaves_what_lasts_and_what_is_swept(tmp_path: Path) -> None:
    """Whatever is temporary lies in `tmp` of the store, and the next command leaves nothing of it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "runnable.toml").write_text(PIPELINE)
    done = subprocess.run(
        [sys.executable, KILL_POINTS, tmp_path / "project", "run", "--run-id", "killed-{}", "--", "retry", "latest"],
        env=environment(tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    times = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(times) > 40
    assert [time["code"] for time in times if not time["place"]] == [1, 1], done.stderr
    assert any(name.startswith("tmp/") for time in times for name in time["names"])
    for time in times:
        assert [name for name in time["names"] if not LASTING.fullmatch(name) and not name.startswith("tmp/")] == []
    assert [name for name in times[-1]["names"] if name.startswith("tmp/")] == []
