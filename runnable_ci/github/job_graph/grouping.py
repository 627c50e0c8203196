"""Which steps form a job. Pure, and by the pipeline file alone: the same file gives the same jobs everywhere.

To start a runner takes longer than most steps, and a job that waits for another one waits for all of its steps. So a
chain is one job, as nothing in it could start earlier; of steps side by side only short ones share a job, since they
would wait for each other's end; and instances of a matrix have jobs of their own. `job` in the file decides otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from math import inf
from operator import or_
from typing import Final

from runnable_ci.github.job_graph.durations import JOB_MINUTES_MAX, SET_UP_MINUTES, longest_s, total_s
from runnable_ci.github.job_graph.instances import literal_keys
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.step import Runner, Step

SHORT_S: Final = 5 * 60.0
"""By `timeout-minutes` a step is short that takes no longer."""
SHORT_TOGETHER_S: Final = 20 * 60.0
"""What short steps of one job may take together."""
_CHAIN_S: Final = (JOB_MINUTES_MAX - SET_UP_MINUTES) * 60.0


def is_spread(step: Step) -> bool:
    """Return whether each instance of a step is a leg of its job."""
    matrix = step.branching.matrix if step.branching else None
    return matrix is not None and not step.job and literal_keys(matrix) != []


def grouped(pipeline: Pipeline) -> list[tuple[str, ...]]:
    """Return the steps of each job, in the order of the pipeline. Raises `PipelineError` for a `job` that cannot be."""
    groups = _Groups(pipeline.steps)
    _merge_named(pipeline, groups)
    while merged := _next_merges(groups):
        for together in merged:
            groups.merge(*together)
    return groups.all()


def _merge_named(pipeline: Pipeline, groups: _Groups) -> None:
    named: dict[str, str] = {}
    for step in pipeline.steps.values():
        if step.job:
            first = named.setdefault(step.job, step.name)
            if pipeline.steps[first].runs_on != step.runs_on:
                message = f"job: `{step.job}` is also the job of step `{first}`, whose `runs-on` is another"
                raise pipeline.error(step, message, "a job has one runner: give them the same `runs-on`", key="job")
            groups.merge(first, step.name)
    try:
        TopologicalSorter(groups.needs()).prepare()
    except CycleError as e:
        # A circle goes through a job of several steps: a step alone waits for nothing that waits for it.
        step = next(steps[0] for steps in map(groups.members, e.args[1]) if len(steps) > 1)
        message = f"job: a step of `{step.job}` needs a step of another job, which needs one of `{step.job}`"
        hint = "give the steps between them the same `job`, or divide it in two"
        raise pipeline.error(step, message, hint, key="job") from e


class _Groups:
    """Steps in groups, each group by the first of its steps."""

    def __init__(self, steps: Mapping[str, Step]) -> None:
        self.steps = steps
        self._order = {name: at for at, name in enumerate(steps)}
        self._members = {name: [name] for name in steps}
        self._group_of = {name: name for name in steps}

    def all(self) -> list[tuple[str, ...]]:
        return [tuple(names) for _, names in sorted(self._members.items(), key=lambda it: self._order[it[0]])]

    def members(self, group: str) -> list[Step]:
        return [self.steps[name] for name in self._members[group]]

    def members_of(self, groups: Iterable[str]) -> list[Step]:
        return [step for group in groups for step in self.members(group)]

    def merge(self, *steps: str) -> None:
        """Put the groups of these steps together."""
        groups = {self._group_of[step] for step in steps}
        names = sorted((name for group in groups for name in self._members.pop(group)), key=self._order.__getitem__)
        self._members[names[0]] = names
        self._group_of |= dict.fromkeys(names, names[0])

    def needs(self) -> dict[str, set[str]]:
        """Return which groups each one waits for."""
        return {
            group: {self._group_of[need] for name in names for need in self.steps[name].needs} - {group}
            for group, names in self._members.items()
        }

    def direct_needs(self) -> dict[str, frozenset[str]]:
        """Return the needs without those that another need waits for; each group after those that it needs."""
        needs = self.needs()
        bit = {group: 1 << at for at, group in enumerate(needs)}
        above: dict[str, int] = {}  # groups as bits: a thousand steps have half a million pairs
        found: dict[str, frozenset[str]] = {}
        for group in TopologicalSorter(needs).static_order():
            further = _any_of(above[need] for need in needs[group])
            above[group] = further | _any_of(bit[need] for need in needs[group])
            found[group] = frozenset(need for need in needs[group] if not bit[need] & further)
        return found


def _any_of(bits: Iterable[int]) -> int:
    return reduce(or_, bits, 0)


def _next_merges(groups: _Groups) -> list[list[str]]:
    """Return which groups become one job, as far as that is known at once: none has anything to do with another."""
    needs = groups.direct_needs()
    waiting = Counter(need for needed in needs.values() for need in needed)
    chained: dict[str, list[str]] = {}
    beside: dict[tuple[frozenset[str], Runner | None], list[list[str]]] = {}
    for group in (names[0] for names in groups.all()):
        steps = groups.members(group)
        if not _is_free(steps):
            continue
        is_short = _is_short(steps)
        if len(needs[group]) == 1:
            (above,) = needs[group]
            chain = chained.get(above, [above])
            before = groups.members_of(chain)
            is_tail = chain[-1] == above and _is_free(before) and before[0].runs_on == steps[0].runs_on
            is_chain = all(waiting[one] == 1 for one in chain) and _is_in_time([*before, *steps])
            if is_tail and (is_chain or (is_short and _is_short(before) and _fit([*before, *steps]))):
                chain.append(group)
                chained |= {above: chain, group: chain}
                continue
        if is_short:
            bins = beside.setdefault((needs[group], steps[0].runs_on), [])
            fitting = (one for one in bins if _fit([*groups.members_of(one), *steps]))
            if (found := next(fitting, None)) is not None:
                found.append(group)
            else:
                bins.append([group])
    alone = [[one for one in together if one not in chained] for bins in beside.values() for together in bins]
    distinct = {id(chain): chain for chain in chained.values()}
    return [*distinct.values(), *(together for together in alone if len(together) > 1)]


def _is_free(steps: Sequence[Step]) -> bool:
    """Return whether nothing but the rules here decides on the job of these steps."""
    return not any(step.job or is_spread(step) for step in steps)


def _is_in_time(chain: Sequence[Step]) -> bool:
    return sum(longest_s(step) or 0 for step in chain) <= _CHAIN_S


def _is_short(steps: Sequence[Step]) -> bool:
    return all((longest_s(step) or inf) <= SHORT_S for step in steps) and _fit(steps)


def _fit(steps: Sequence[Step]) -> bool:
    return (total_s(steps) or inf) <= SHORT_TOGETHER_S
