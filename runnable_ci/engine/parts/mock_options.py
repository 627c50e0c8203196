"""Steps in whose place nothing is run, or something else: `--mock` and `--patch`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from runnable_ci.errors import StepError, UsageError, did_you_mean
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import RunLog
from runnable_ci.steps.python import find_source

ALL = "all"
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


class MockOptions(NamedTuple):
    """What is mocked."""

    mock: Sequence[str] = ()
    """Steps that are not run at all, or `all`."""
    patch: Sequence[str] = ()
    """`STEP=module:function` or `STEP=command`: what is run in place of the step."""
    from_run: str | None = None
    """The run whose results mocked steps give; None: the newest with a result of each."""
    results: RunLog | None = None
    """What mocked steps give, where that is known; the store has its contents. No other run is looked at then, and
    `STEP.INNER` is one within a step."""

    def words(self) -> list[str]:
        """Return the options of a command that mocks the same."""
        pairs = [*(("--mock", name) for name in self.mock), *(("--patch", text) for text in self.patch)]
        return [word for pair in pairs for word in pair]

    def applied(self, pipeline: Pipeline, workspace: Path) -> Pipeline:
        """Return the pipeline with mocked steps. Raises `UsageError` for a step or function that is not there."""
        patches = dict(self._parsed(pipeline))
        inner = [name for name in self.mock if "." in name and self.results is not None]
        for name in self.mock:
            if name != ALL and name not in inner:
                _require_step(f"--mock {name}", name, pipeline)
            if name in patches:
                raise UsageError(f"`{name}` is given to --mock and --patch", hint="give one of the two")
        names = pipeline.steps.keys() if ALL in self.mock else self.mock
        steps = {name: _stubbed(step) if name in names else step for name, step in pipeline.steps.items()}
        for name in inner:
            top, *path = name.split(".")
            steps[top] = _stubbed_within(steps[top], path)
        steps |= {name: _patched(pipeline.steps[name], code, workspace) for name, code in patches.items()}
        return pipeline._replace(steps=steps)

    def _parsed(self, pipeline: Pipeline) -> Iterator[tuple[str, str]]:
        seen = set[str]()
        for text in self.patch:
            name, equals, code = text.partition("=")
            if not equals or not code.strip():
                hint = "such as --patch train=mocks:train, or --patch 'train=touch model.bin'"
                raise UsageError(f"--patch {text}: expected STEP=module:function or STEP=command", hint=hint)
            _require_step(f"--patch {text}", name, pipeline)
            if name in seen:
                raise UsageError(f"--patch: `{name}` is patched twice", hint="give one of the two")
            seen.add(name)
            yield name, code


def _require_step(option: str, name: str, pipeline: Pipeline) -> None:
    if name not in pipeline.steps:
        hint = did_you_mean(name, pipeline.steps, f"the steps of this run are: {', '.join(pipeline.steps)}")
        raise UsageError(f"{option}: there is no such step", hint=hint)


def _stubbed(step: Step) -> Step:
    """Return a step that needs nothing and runs nothing; of one with branches these do, and no round is repeated."""
    if step.branching is not None:
        body = {name: _stubbed(inner) for name, inner in step.branching.body.items()}
        return step._replace(branching=step.branching._replace(body=body, loop=None), mock="nothing")
    plain = _without_notebook(step)
    return plain._replace(
        kind="run",
        command="",
        get=(),
        parameters=(),
        reads=None,
        ignore_reads=(),
        checkpoint=(),
        env={},
        arguments={},
        shell="",
        container=None,
        mock="nothing",
    )


def _stubbed_within(step: Step, path: Sequence[str]) -> Step:
    """Return a step of which one in its branches needs nothing and runs nothing."""
    if step.branching is None or not path:
        return _stubbed(step)
    body = {
        name: _stubbed_within(inner, path[1:]) if name == path[0] else inner
        for name, inner in step.branching.body.items()
    }
    return step._replace(branching=step.branching._replace(body=body))


def _without_notebook(step: Step) -> Step:
    """Return a step that executes no notebook, whose output nothing puts."""
    put = tuple(pattern for pattern in step.put if pattern != step.executed)
    return step._replace(put=put, kernel="", executed="")


def _patched(step: Step, code: str, workspace: Path) -> Step:
    if step.branching is not None:
        if [*step.branching.body] != [step.name]:
            raise UsageError(
                f"--patch {step.name}: it uses another file, whose steps would have to be patched",
                hint=f"mock it: --mock {step.name}",
            )
        inner = _patched(step.branching.body[step.name], code, workspace)
        return step._replace(branching=step.branching._replace(body={step.name: inner}), mock="patch")
    is_function = _FUNCTION.fullmatch(code) is not None
    if not is_function and (objects := [name for name, kind in step.returns.items() if kind == "object"]):
        raise UsageError(
            f"--patch {step.name}: a command cannot return `{objects[0]}`, which is an object",
            hint=f"patch it by a function: --patch {step.name}=module:function",
        )
    patched = _without_notebook(step)._replace(
        kind="python" if is_function else "run", command=code, shell="", mock="patch", checkpoint=()
    )
    if is_function:
        try:
            find_source(patched, workspace)
        except StepError as e:
            raise UsageError(f"--patch {step.name}={code}: {e.message}", hint=e.hint) from e
    return patched
