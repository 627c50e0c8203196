"""Which steps of a run are not run when it is made again, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence

from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.engine.reuse.rules import is_loopback, words_that_connect
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.observe.reads import ReadSet
from runnable_ci.pipeline.branches.expansion import outlined_name
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import listed

NEVER_TRIED = "the run did not come to it"
"""Of a step that the first run has no attempt at: there is nothing to compare, so it is not tried now either."""


def require_known(option: str, names: Collection[str], pipeline: Pipeline) -> None:
    """Raise `UsageError` where an option names a step that the pipeline does not have."""
    known = dict.fromkeys([*pipeline.steps, *map(_path, _leaves(pipeline))])
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, f"the steps are: {', '.join(known)}")
            raise UsageError(f"{option} {name}: there is no such step", hint=hint)


def steps_left_out(run: RunRead, pipeline: Pipeline, skip: Collection[str], include: Collection[str]) -> dict[str, str]:
    """Return which of the pipeline's steps are not run, with why; those to `skip` are not, those to `include` are.

    One within a step of another file, or of a matrix of such, is `STEP.INNER`. What the first run mocked is mocked
    again. What gave nothing that could be compared did what it does elsewhere, as a deploy does: it is run only where
    it was seen not to have connected to another machine.
    """
    found: dict[str, str] = {}
    for name in pipeline.steps:
        inner = [leaf for leaf in _leaves(pipeline) if leaf.partition(".")[0] == name]
        reasons = {_path(leaf): why for leaf in inner if (why := _why_not(run, leaf))}
        if len(reasons) == len({*map(_path, inner)}) and reasons:
            said = [why for why in reasons.values() if why != NEVER_TRIED]
            reasons = {name: next(iter(said), NEVER_TRIED)}
        found |= reasons
    found = {name: why for name, why in found.items() if name not in include and _top(name) not in include}
    return found | dict.fromkeys(skip, "`--skip`")


def _leaves(pipeline: Pipeline) -> list[str]:
    """Return the steps that run something, by their names in the outline."""
    return [name for name, step in pipeline.outlined().steps.items() if step.kind != "branches"]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _path(key: str) -> str:
    """Return the name of a step with those around it, without what tells branches apart."""
    return ".".join(key.split(".")[::2])


def option_name(key: str) -> str:
    """Return how options name a step of a log: `STEP`, or `STEP.INNER` for one of another file."""
    path = _path(key)
    return _top(key) if {*path.split(".")} == {_top(key)} else path


def is_left_out(key: str, left_out: Container[str]) -> bool:
    """Return whether a step of a log is left out, by its key there."""
    return _top(key) in left_out or _path(key) in left_out


def _why_not(run: RunRead, leaf: str) -> str:
    of_leaf = {key: step for key, step in run.log.steps.items() if outlined_name(key) == leaf}
    attempts = {key: step.attempts[-1] for key, step in of_leaf.items() if step.attempts}
    if not attempts:
        return NEVER_TRIED
    if any(last.mock for last in attempts.values()):
        return "it was mocked"
    return next((why for key, last in attempts.items() if (why := _acts_elsewhere(last, run.reads.get(key)))), "")


def _acts_elsewhere(last: StepAttempt, reads: ReadSet | None) -> str:
    """Return what speaks for a step that does something to another machine; empty for one that gives something."""
    if any(last.definition.get(key) for key in ("put", "returns", "metrics")) or last.checkpoint:
        return ""
    nothing = "it has no `put` or `returns`" if last.made else "it gives nothing that could be compared"
    if found := connections(last, reads):
        return f"{nothing}, and {found}"
    is_seen = "python" in last.definition and reads is not None and reads.imports_seen and not last.not_seen
    return "" if is_seen or last.made else f"{nothing}, and whether it connects to other machines is not seen"


def connections(last: StepAttempt, reads: ReadSet | None) -> str:
    """Return to what other machines a step connected, or may have by its words; empty where nothing is known."""
    if reads and (others := [address for address in reads.connected if not is_loopback(address)]):
        return f"connected to {listed(others)}"
    word = words_that_connect(str(last.definition.get("run", "")), _texts(last))
    return f"may connect to other machines (`{word}`)" if word else ""


def _texts(last: StepAttempt) -> Iterator[str]:
    values = (last.input_parameters[name].value for name in last.consumed if name in last.input_parameters)
    return (value for value in values if isinstance(value, str))


def of_log(log: RunLog, left_out: Mapping[str, str]) -> dict[str, str]:
    """Return each step of a log that was left out, those of branches too, with why."""
    return {key: left_out.get(_top(key)) or left_out[_path(key)] for key in log.steps if is_left_out(key, left_out)}


def lines(left_out: Mapping[str, str], skip: Sequence[str]) -> Iterator[str]:
    """Yield for people what is left out, and how it is run nevertheless; what they asked for needs no hint."""
    for name, why in left_out.items():
        if why != NEVER_TRIED:
            yield f"left out: `{name}`: {why}" + ("" if name in skip else f"; `--include {name}` runs it")
