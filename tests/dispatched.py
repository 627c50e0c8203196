"""What GitHub does with a dispatch: each one that the stand-in of its API is sent becomes a run of the workflow by act.

following = Following(runner, clone=project.folder)
with github(on_dispatch=following) as server:
    following.serve(server, bare)
    first = runner.run("push", ".github/workflows/ci.yml", clone=project.folder)
    server.wait()  # also for the runs that these runs started
following.ran
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

from act import ACT_TOKEN, REPOSITORY, Ran, Runner
from github_api import GitHub, Run


@dataclass
class Following:
    """Runs what is dispatched, one after another: `concurrency` of the retry workflow has each wait for the last."""

    runner: Runner
    clone: Path
    ran: list[Ran] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def serve(self, server: GitHub, bare: Path) -> None:
        """Have jobs of the runner reach the server, which knows the branches of a bare repository."""
        server.owner, server.name = REPOSITORY.split("/")
        server.token, server.git = ACT_TOKEN, bare
        self.runner.variables |= {"GITHUB_API_URL": server.base}

    def __call__(self, asked: Run) -> str:
        """Run a workflow to its end, as GitHub does; its conclusion."""
        with self._turn:
            ran = self.start(asked)
            self.ran.append(ran)
        return "success" if ran.code == 0 else "failure"

    def start(self, asked: Run) -> Ran:
        """Run the workflow that was asked for."""
        return self.runner.run(
            "workflow_dispatch",
            f".github/workflows/{asked.workflow}",
            clone=self.clone,
            payload={
                "inputs": dict(asked.inputs),
                "ref": f"refs/heads/{asked.ref}",
                "repository": {"default_branch": "main"},
            },
            run_id=asked.id,
        )
