"""What tells one use of the action in a workflow run from all others, in each attempt of its job. Pure.

Only what is the same in every attempt counts: uses are not counted, since a step may be skipped, and parameters do not
count, since they may have a date.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import NamedTuple

JOB_MAX = 24
KEY_MAX = 60
_NOTHING = ("", ".", "null", "{}")


class Use(NamedTuple):
    """One use of the action, as far as the runner tells."""

    github_run_id: str
    workflow: str
    """The file of the workflow that was started, with its repository."""
    called_workflow: str
    """The file that the job is written in, where that is another one: a workflow that the first one calls."""
    job: str
    """The job's key in its file."""
    matrix: str
    is_matrix_given: bool
    """Whether the input `matrix` was set, rather than left to the runner."""
    pipeline: str
    working_directory: str
    step: str
    """The step's `id`, or what the runner calls a step without one."""
    run_id: str
    """The input `run-id`."""
    command: str = "run"

    @property
    def name(self) -> str:
        """The id of the run that its first attempt begins."""
        if self.run_id:
            return self.run_id
        word = re.sub(r"[^A-Za-z0-9]", "-", self.job)[:JOB_MAX].strip("-") or "job"
        words = [word, self.github_run_id or "0"]
        facts = [*self._place(), self.step]
        if word != self.job or any(fact not in _NOTHING for fact in facts):
            words.append(_digest([self.job, *facts]))
        return "-".join(words)

    @property
    def key(self) -> str:
        """What the files of this use are called that one attempt leaves for the next."""
        if not self.run_id:
            return self.name
        word = re.sub(r"[^A-Za-z0-9._-]", "-", self.run_id)[:KEY_MAX]
        return f"{word}-{_digest([self.command, self.run_id, self.job, *self._place(), self.step])}"

    @property
    def place(self) -> str:
        """What two uses in one job share that only the runner's own names for their steps tell apart.

        Such names count the steps of a file, which tells nothing of a file that may be another one at the next attempt.
        """
        has_id = bool(self.step) and not self.step.startswith("__") and not self.step.isdecimal()
        return _digest([self.job, *self._place(), self.step if has_id else ""])

    @property
    def is_told_apart(self) -> bool:
        """Whether no other job of the workflow run can look the same.

        A called workflow sees neither which job called it nor the matrix of that job.
        """
        return not self.called_workflow or self.is_matrix_given or bool(self.run_id)

    def _place(self) -> list[str]:
        return [self.workflow, self.called_workflow, self.matrix, self.pipeline, self.working_directory]


def workflow_file(reference: str) -> str:
    """Return the file of `OWNER/REPOSITORY/.github/workflows/FILE@REF`, whichever the ref."""
    return reference.partition("@")[0]


def _digest(facts: list[str]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
