"""What a reproduction cannot hold equal, as far as it is known before anything runs. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator

from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.analysis.reproduction.left_out import connections, is_left_out, option_name
from runnable_ci.runs.branches.labels import labels_of
from runnable_ci.runs.code_states import CodeHolder
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import StepAttempt
from runnable_ci.util.text import listed


def not_held_equal(
    run: RunRead, now: Environment | None, code: CodeHolder, left_out: Container[str], *, holds_packages: bool
) -> Iterator[str]:
    """Yield what cannot be held equal, a line each.

    `now` is where the steps would run, where that is known; `code` has the code that is made again.
    Nothing is said of steps that are `left_out`.
    """
    log = run.log
    recorded = log.environments.get(newest.environment) if (newest := log.newest_attempt()) else None
    if recorded and now:
        yield from _machine(recorded, now)
        if not holds_packages:
            yield from _packages(recorded, now)
    labels = labels_of(log.steps)
    for name, step in log.steps.items():
        if is_left_out(name, left_out):
            continue
        label, reads = labels[name], run.reads.get(name)
        for last in step.attempts[-1:]:
            if found := connections(last, reads):
                yield f"`{label}` {found}; `--skip {option_name(name)}` leaves it out"
            if reads and (outside := list(reads.outside)):
                yield f"`{label}` read files outside of the repository: {listed(outside)}"
            if last.code_identities and _is_other(last, code):
                yield f"`{label}` ran other code, {_commit(last)}; all is made again from {_commit(code)}"
            if last.mock:
                yield f"`{label}` was mocked"
            if last.not_seen:
                yield f"what `{label}` read was not seen: {last.not_seen}"
            if last.checkpoint_used is not None:
                yield f"`{label}` resumed from a checkpoint; it starts over"
            if secret := [key for key, value in last.input_parameters.items() if value.redacted]:
                yield f"`{label}` was given secrets, which the run log does not have: {listed(secret)}"


def _is_other(one: StepAttempt, other: CodeHolder) -> bool:
    return one.code_state != other.code_state or _commit(one) != _commit(other)


def _commit(holder: CodeHolder) -> str:
    code = holder.code_identities[0]
    return code.code_identifier[:12] + ("" if code.code_identifier_dependable else " with uncommitted changes")


def _machine(then: Environment, now: Environment) -> Iterator[str]:
    for name in ("cpu", "gpus", "gpu_driver"):
        before, after = getattr(then.machine, name), getattr(now.machine, name)
        if before and before != after:
            yield f"{name.replace('_', ' ')}: {before} then, {after or 'none'} now"
    for name in ("os", "architecture", "libc"):
        before, after = getattr(then, name), getattr(now, name)
        if before and after and before != after:
            yield f"{name}: {before} then, {after} now"


def _packages(then: Environment, now: Environment) -> Iterator[str]:
    if then.interpreter_version and now.interpreter_version and then.interpreter_version != now.interpreter_version:
        yield f"python: {then.interpreter_version} then, {now.interpreter_version} now"
    if then.packages and now.packages:
        differ = [
            f"{name} {then.packages.get(name, 'none')} → {now.packages.get(name, 'none')}"
            for name in sorted({*then.packages, *now.packages})
            if then.packages.get(name) != now.packages.get(name)
        ]
        if differ:
            yield f"packages: {listed(differ, at_most=5)}"
