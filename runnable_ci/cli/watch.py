"""Follow a workflow run to its end: one line where a job waits, begins or ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

from runnable_ci.cli.terminal import Printer
from runnable_ci.github.api.actions import Actions, StartedRun
from runnable_ci.github.api.answers import WorkflowJob, WorkflowRun
from runnable_ci.github.api.errors import GitHubError, GitHubUnavailableError, RateLimitError
from runnable_ci.util.console import console
from runnable_ci.util.text import duration

_EAGER_S = 120.0
_LATER_TIMES = 3.0
"""After two minutes looks are this much rarer: a job's token has a thousand requests an hour."""
_FAILURES = 20
_CHAIN_MAX = 100
_LOOKS = 3
INTERRUPTED = 130
_SUCCESSFUL = frozenset({"success", "neutral"})
"""The conclusions that are no failure; `skipped` is one for a job, not for a run that was to do something."""
_WAITING: Mapping[str, str] = {
    "pending": "pending: it waits for others of its concurrency group",
    "waiting": "waiting for approval, or for another rule of its environment",
    "action_required": "waiting for approval",
}
"""What a run or a job waits for that has not begun. Source: GitHub docs, REST API, workflow runs, `status`."""


def watch(
    actions: Actions,
    find: Callable[[], StartedRun],
    *,
    every_s: float,
    after_attempt: int,
    offer: str | None,
    next_of: Callable[[WorkflowRun], StartedRun | None] = lambda _: None,
) -> int:
    """Follow a run to its end, and the one that was started to continue it; Ctrl-C ends the following, not the run.

    The exit code is the result of the last one. `next_of` says which one continues a failed one.
    """
    printer = Printer.of_process(no_colour="NO_COLOR" in os.environ)
    url = ""
    try:
        started = find()
        for number in range(_CHAIN_MAX):
            url = started.url
            follower = RunWatcher(actions, started.run, url, printer=printer, every_s=every_s)
            run = follower.follow(after_attempt=0 if number else after_attempt)
            printer.say(final_line(run, url))
            following = _continued(run, next_of, printer, every_s=every_s)
            if following is None:
                break
            started = following
            printer = Printer.of_process(no_colour="NO_COLOR" in os.environ)
            printer.say(f"another job continues it: {started.url}")
    except KeyboardInterrupt:
        printer.say(f"stopped watching; the run continues: {url}" if url else "stopped watching; the run continues")
        return INTERRUPTED
    if offer:
        printer.say(f"download the results: {offer}")
    return exit_code(run)


def _continued(
    run: WorkflowRun, next_of: Callable[[WorkflowRun], StartedRun | None], printer: Printer, *, every_s: float
) -> StartedRun | None:
    """Return the run that a failed one started to be continued, which may take a moment to be seen in the list."""
    if run.conclusion != "failure":
        return None
    for look in range(_LOOKS):
        if look:
            time.sleep(every_s)
        try:
            if found := next_of(run):
                return found
        except GitHubError as e:
            printer.say(f"whether another job continues the run is not known: {e.message}")
            return None
    return None


def show_link(url: str) -> None:
    """Print a link as the command's output, at once: a watch may follow."""
    console.out(url)


class RunWatcher:
    """Follows one run; `every_s` is the time between two looks."""

    def __init__(
        self,
        actions: Actions,
        run: int,
        url: str,
        *,
        printer: Printer,
        every_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._actions = actions
        self._run = run
        self._url = url
        self._printer = printer
        self._every_s = every_s
        self._sleep = sleep
        self._clock = clock
        self._jobs: dict[int, WorkflowJob] = {}
        self._has_begun = False
        self._said = ""
        """What was last said of the run itself, which has no jobs while it waits."""

    def follow(self, *, after_attempt: int = 0) -> WorkflowRun:
        """Return the run when it is over; `after_attempt` is an attempt to ignore. Raises `GitHubError`."""
        began_s, failures = self._clock(), 0
        try:
            while True:
                try:
                    if run := self._look(after_attempt):
                        return run
                    failures = 0
                except RateLimitError as e:
                    self._printer.say(f"{e.message}: polling continues then")
                    self._sleep(max(0.0, e.until_s - self._clock()))
                except GitHubUnavailableError as e:
                    failures += 1
                    if failures == _FAILURES:
                        raise self._lost(e) from e
                    self._printer.say(f"{e.message}: polling continues")
                except GitHubError as e:
                    raise self._lost(e) from e
                is_early = self._clock() - began_s < _EAGER_S
                self._sleep(self._every_s * (1.0 if is_early else _LATER_TIMES))
        finally:
            self._printer.end()

    def _look(self, after_attempt: int) -> WorkflowRun | None:
        """Return the run if it is over, after saying what is new about its jobs."""
        # Asked before its jobs: those of a run that was over then do not change any more.
        run = None
        if all(job.status == "completed" for job in self._jobs.values()):
            run = self._actions.run(self._run)
            if run.run_attempt <= after_attempt:
                return None
        jobs = self._actions.jobs(self._run)
        if run and not jobs and (text := _WAITING.get(run.status or "", "")) != self._said:
            self._said = text
            if text:
                self._printer.say(f"workflow run {run.id}: {text}")
        if jobs and not self._has_begun:
            self._printer.begin([job.name for job in jobs], len(jobs))
            self._has_begun = True
        self._printer.expect(len(jobs))  # more are known once what they need is over
        for job in jobs:
            self._show(job, self._jobs.get(job.id))
        self._jobs = {job.id: job for job in jobs}
        return run if run and run.status == "completed" else None

    def _show(self, job: WorkflowJob, before: WorkflowJob | None) -> None:
        """Say what has become of a job since the last look."""
        if before is not None and before.status == job.status:
            return
        match job.status:
            case "in_progress":
                self._printer.started(job.name)
                self._printer.say("started", step=job.name)
            case "completed":
                failed = job.conclusion not in (*_SUCCESSFUL, "skipped")
                self._printer.finished(job.name, _result(job), failed=failed)
            case _:
                self._printer.say(_WAITING.get(job.status) or _words(job.status), step=job.name)

    def _lost(self, error: GitHubError) -> GitHubError:
        return GitHubError(f"the run can no longer be watched: {error.message}", hint=f"it continues: {self._url}")


def exit_code(run: WorkflowRun) -> int:
    """Return 0 if a finished run succeeded, else 1."""
    return 0 if run.conclusion in _SUCCESSFUL else 1


def final_line(run: WorkflowRun, url: str) -> str:
    """Return how a run ended, in one line."""
    attempt = f" (attempt {run.run_attempt})" if run.run_attempt > 1 else ""
    return f"workflow run {run.id}{attempt}: {_words(run.conclusion)}: {url}"


def _result(job: WorkflowJob) -> str:
    """Return how a job ended, how long it took, and at which of its steps it failed."""
    failed = [step.name for step in job.steps or () if step.conclusion == "failure"]
    taken = duration(job.started_at or "", job.completed_at or "")
    where = f": {', '.join(failed)}" if failed else ""
    return f"{_words(job.conclusion)}{f' in {taken}' if taken else ''}{where}"


def _words(conclusion: str | None) -> str:
    return (conclusion or "no conclusion").replace("_", " ")
