"""Which steps of a run are not run when it is made again, and why. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from runnable_ci.analysis.comparison.runs import RunRead
from runnable_ci.engine.reuse.rules import is_loopback, words_that_connect
from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.observe.reads import ReadSet
from runnable_ci.runs.model import RunLog, StepAttempt
from runnable_ci.util.text import listed

NEVER_TRIED = "the run did not come to it"
"""Of a step that the first run has no attempt at: there is nothing to compare, so it is not tried now either."""


def require_known(option: str, names: Collection[str], steps: Collection[str]) -> None:
    """Raise `UsageError` where an option names a step that the pipeline does not have."""
    for name in names:
        if name not in steps:
            hint = did_you_mean(name, steps, f"the steps are: {', '.join(steps)}")
            raise UsageError(f"{option} {name}: there is no such step", hint=hint)


def steps_left_out(
    run: RunRead, steps: Collection[str], skip: Collection[str], include: Collection[str]
) -> dict[str, str]:
    """Return which of the pipeline's `steps` are not run, with why; those to `skip` are not, those to `include` are.

    What the first run mocked is mocked again. What gave nothing that could be compared did what it does elsewhere, as a
    deploy does: it is run only where it was seen not to have connected to another machine.
    """
    found = {name: why for name in steps if (why := _why_not(run, name))}
    found |= dict.fromkeys(skip, "`--skip`")
    return {name: why for name, why in found.items() if name not in include or name in skip}


def _why_not(run: RunRead, name: str) -> str:
    attempts = {key: step.attempts[-1] for key, step in run.log.steps.items() if _is_in(key, name) and step.attempts}
    if not attempts:
        return NEVER_TRIED
    if any(last.mock for last in attempts.values()):
        return "it was mocked"
    return next((why for key, last in attempts.items() if (why := _acts_elsewhere(last, run.reads.get(key)))), "")


def _acts_elsewhere(last: StepAttempt, reads: ReadSet | None) -> str:
    """Return what speaks for a step that does something to another machine; empty for one that gives something."""
    if any(last.definition.get(key) for key in ("put", "returns", "metrics")) or last.made or last.checkpoint:
        return ""
    nothing = "it gives nothing that could be compared"
    if found := connections(last, reads):
        return f"{nothing}, and {found}"
    is_seen = "python" in last.definition and reads is not None and reads.imports_seen and not last.not_seen
    return "" if is_seen else f"{nothing}, and whether it connects to other machines is not seen"


def connections(last: StepAttempt, reads: ReadSet | None) -> str:
    """Return to what other machines a step connected, or may have by its words; empty where nothing is known."""
    if reads and (others := [address for address in reads.connected if not is_loopback(address)]):
        return f"connected to {listed(others)}"
    word = words_that_connect(str(last.definition.get("run", "")), _texts(last))
    return f"may connect to other machines (`{word}`)" if word else ""


def _texts(last: StepAttempt) -> Iterator[str]:
    values = (last.input_parameters[name].value for name in last.consumed if name in last.input_parameters)
    return (value for value in values if isinstance(value, str))


def _is_in(key: str, name: str) -> bool:
    """Return whether a step of a log is that of the pipeline, or in one of its branches."""
    return key.partition(".")[0] == name


def of_log(log: RunLog, left_out: Mapping[str, str]) -> dict[str, str]:
    """Return each step of a log that was left out, those of branches too, with why."""
    return {key: left_out[name] for key in log.steps if (name := key.partition(".")[0]) in left_out}


def lines(left_out: Mapping[str, str], skip: Sequence[str]) -> Iterator[str]:
    """Yield for people what is left out, and how it is run nevertheless; what they asked for needs no hint."""
    for name, why in left_out.items():
        if why != NEVER_TRIED:
            yield f"left out: `{name}`: {why}" + ("" if name in skip else f"; `--include {name}` runs it")
