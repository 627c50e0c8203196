"""In what the environment differs from that in which reused steps ran: it is named, and re-runs nothing by itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import listed

_NAMED_MAX = 5
_RELEASE = re.compile(r"\S+ \d+\.\d+")


class EnvironmentNow(NamedTuple):
    """Where the steps that run in this invocation run."""

    of: Callable[[str, Environment], Environment]
    """Returns that of a step, to compare it with one that was recorded."""
    image: str
    """The container image, `NAME@DIGEST` or a digest; empty where there is none."""
    images: Mapping[str, str] = MappingProxyType({})
    """Step → the digest of its own container's image, where that was looked for again."""


@dataclass(slots=True)
class EnvironmentChanges:
    """What differs for some steps: a line (`numpy 1.26 → 2.0`) → the steps for which it does, or may."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return listed((f"{line} ({', '.join(steps)})" for line, steps in self.lines.items()), at_most=_NAMED_MAX)

    def of(self, steps: Collection[str]) -> EnvironmentChanges:
        """Return what differs for these steps."""
        named = {line: [step for step in those if step in steps] for line, those in self.lines.items()}
        return EnvironmentChanges({line: those for line, those in named.items() if those})

    def reasons(self) -> dict[str, str]:
        """Return each step for which something differs → what, in one line."""
        found: dict[str, list[str]] = {}
        for line, steps in self.lines.items():
            for step in steps:
                found.setdefault(step, []).append(line)
        return {step: listed(lines, at_most=_NAMED_MAX) for step, lines in found.items()}


def environment_changes(
    steps: Iterable[str], log: RunLog, now: EnvironmentNow, reads_of: Callable[[str, StepAttempt], ReadSet | None]
) -> EnvironmentChanges:
    """Return in what the environment differs from that of the last attempts at these steps.

    A step whose imports were not seen, such as a command, may have imported all packages, and used the interpreter.
    """
    found = EnvironmentChanges()
    pairs = [(name, log.steps[name].attempts[-1]) for name in steps]
    ran = [
        (name, last, log.environments[last.environment]) for name, last in pairs if last.environment in log.environments
    ]
    for name, last, then in ran:  # first, since few lines are shown
        is_own = _has_container(last)
        for line in _own_image(last, now.images.get(name, "")) if is_own else _whole(then, last, now, name):
            found.lines.setdefault(line, []).append(name)
    for name, last, then in ran:
        if _has_container(last):  # the packages there are those of its image
            continue
        changed = _changed_packages(then.packages, now.of(name, then).packages)
        if not changed:
            continue
        reads = reads_of(f"{name}.{last.attempt_number}", last)
        imported = {normalized(package) for package in reads.distributions} if reads and reads.imports_seen else None
        for package, line in changed.items():
            if imported is None or package in imported:
                found.lines.setdefault(line, []).append(name)
    return found


def _has_container(last: StepAttempt) -> bool:
    return "container" in last.definition


def _own_image(last: StepAttempt, now: str) -> Iterator[str]:
    from runnable_ci.steps.containers.image_names import step_image  # few pipelines need it

    then = step_image(last.code_identities)
    if now and then and then.code_identifier != now:
        yield f"image {then.code_identifier_url} {then.code_identifier} → {now}"


def _whole(then: Environment, last: StepAttempt, now: EnvironmentNow, name: str) -> Iterator[str]:
    before = _RELEASE.match(then.interpreter_version)
    after = _RELEASE.match(now.of(name, then).interpreter_version)
    if before and after and before[0] != after[0]:
        yield f"{before[0]} → {after[0]}"
    if differs := whole_image_difference(last, now.image):
        yield differs


def whole_image_difference(last: StepAttempt, now: str) -> str:
    """Return in what the image differs that all steps run in, `NAME@DIGEST` or a digest; empty where in nothing."""
    images = (code.code_identifier for code in last.code_identities if code.code_identifier_type == "docker")
    then, now = next(images, ""), now.rpartition("@")[2]
    return "" if then == now else f"image {then or 'none'} → {now or 'none'}"


def _changed_packages(then: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return package → the line that names it, of those of which the version differs."""
    if not then or not now:  # a version of this program, or a program of that name, which said nothing
        return {}
    return {
        name: f"{name} {then.get(name, 'not installed')} → {now.get(name, 'not installed')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    }


def normalized(name: str) -> str:
    """Return a distribution's name as environments have it. Source: PyPA, "Names and normalization"."""
    return re.sub(r"[-_.]+", "-", name).lower()
