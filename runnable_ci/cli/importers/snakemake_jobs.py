"""Which jobs of a Snakefile make the files that are wanted: Snakemake's own search, from the targets back. Pure."""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from runnable_ci.cli.importers.evaluator import Deferred, Evaluator, NamedValues, NotDeclarativeError
from runnable_ci.cli.importers.imported import ImportedPipeline, Values
from runnable_ci.cli.importers.snakefile import Rule
from runnable_ci.cli.importers.wildcards import filled, names_in, values_in

_INSTANCES_MAX: Final = 10_000


@dataclass
class DirectiveValues:
    """What a directive lists: values, some of which have names."""

    values: list[Any] = field(default_factory=list)
    names: dict[str, tuple[int, int | None]] = field(default_factory=dict)
    """A name → where its values begin and end; no end: a single value."""

    def add(self, name: str | None, values: list[Any], *, is_list: bool) -> None:
        """Add the values of an argument, which may have a name."""
        start = len(self.values)
        self.values += values
        if name is not None:
            self.names[name] = (start, len(self.values) if is_list else None)

    def arguments(self) -> Iterator[tuple[str | None, list[Any], bool]]:
        """Yield the arguments: the name, the values, and whether they are a list of the name."""
        at = 0
        named = {start: (name, end) for name, (start, end) in self.names.items() if end != start}
        while at < len(self.values):
            name, end = named.get(at, (None, None))
            stop = at + 1 if end is None else end
            yield name, self.values[at:stop], end is not None
            at = stop

    def named(self, name: str) -> list[Any]:
        """Return the values of a name. Raises `KeyError`."""
        start, end = self.names[name]
        return self.values[start : start + 1 if end is None else end]


@dataclass
class ReadRule:
    """A rule whose directives were read, and its jobs."""

    rule: Rule
    items: Mapping[str, DirectiveValues]
    """Those of `input`, `output`, `log` and `params`."""
    constraints: Mapping[str, str]
    marked: Sequence[tuple[str, Any]]
    jobs: list[dict[str, str]] = field(default_factory=list)
    """The wildcards of each."""

    @property
    def name(self) -> str:
        """The rule's name."""
        return self.rule.name

    @property
    def wildcards(self) -> list[str]:
        """The names of its wildcards, in the order of its outputs."""
        return list(dict.fromkeys(name for text in self.items["output"].values for name in names_in(text)))


def read_rule(imported: ImportedPipeline, rule: Rule, evaluator: Evaluator, constraints: Mapping[str, str]) -> ReadRule:
    """Return a rule with the values of its directives; what has none is noted."""
    evaluator.marked.clear()
    items = {key: _items(imported, rule, key, evaluator) for key in ("input", "output", "log", "params")}
    evaluator.variables["rules"][rule.name] = {key: NamedValues(it.values, it.names) for key, it in items.items()}
    own = rule.directives.get("wildcard_constraints")
    return ReadRule(
        rule,
        items,
        constraints={**constraints, **(constraints_of(imported, own, evaluator) if own else {})},
        marked=[*evaluator.marked],
    )


def constraints_of(imported: ImportedPipeline, call: ast.Call, evaluator: Evaluator) -> dict[str, str]:
    """Return the regular expressions of `wildcard_constraints`; one that is not known, or is none, is noted."""
    found = {}
    for keyword in call.keywords:
        try:
            text = str(evaluator.value(keyword.value))
            re.compile(text)
        except (NotDeclarativeError, re.error):
            imported.note(f"wildcard_constraints: {keyword.arg} is not a declaration")
        else:
            found[str(keyword.arg)] = text
    return found


def _items(imported: ImportedPipeline, rule: Rule, key: str, evaluator: Evaluator) -> DirectiveValues:
    items = DirectiveValues()
    call = rule.directives.get(key)
    if call is None:
        return items
    for name, node in [*((None, it) for it in call.args), *((it.arg, it.value) for it in call.keywords)]:
        try:
            value = evaluator.value(node.value if isinstance(node, ast.Starred) else node)
        except NotDeclarativeError:
            imported.note(f"{key}: {ast.unparse(node)} is not a declaration: add what it is", step=rule.name)
            continue
        if isinstance(value, dict) and key != "params":
            value = list(value.values())
        items.add(name, value if isinstance(value, list) else [value], is_list=isinstance(value, list))
    return items


def find_jobs(imported: ImportedPipeline, rules: Sequence[ReadRule], evaluator: Evaluator) -> None:
    """Give each rule the jobs by which the files of the first rule are made.

    A queue instead of recursion: chains of rules may be long. It keeps the jobs in the order in which files are wanted.
    Raises `NotDeclarativeError` where it is not known which files these are.
    """
    if not rules:
        return
    if rules[0].wildcards:
        raise NotDeclarativeError(f"rule {rules[0].name} has wildcards, and is the first")
    known: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    waiting = deque([(rules[0], dict[str, str]())])
    while waiting:
        rule, wildcards = waiting.popleft()
        job = (rule.name, tuple(wildcards.items()))
        if job in known:
            continue
        known.add(job)
        if len(known) > _INSTANCES_MAX:
            imported.note(f"more than {_INSTANCES_MAX:,} jobs: the others are left out")
            return
        rule.jobs.append(wildcards)
        for path in files_of(rule.items["input"], wildcards, evaluator):
            makers = [(it, found) for it in rules if (found := _made(it, path)) is not None]
            if len(makers) > 1:
                others = ", ".join(it.name for it, _ in makers[1:])
                imported.note(f"{path} is made by {makers[0][0].name}, and could be by {others}")
            waiting += makers[:1]


def files_of(items: DirectiveValues, wildcards: Values, evaluator: Evaluator) -> Iterator[str]:
    """Yield the files of a directive as they are for a job."""
    for value in items.values:
        made = (
            evaluator.result(value, {key: str(it) for key, it in wildcards.items()}) if _is_function(value) else value
        )
        for path in made if isinstance(made, list) else [made]:
            yield filled(str(path), wildcards)


def _is_function(value: Any) -> bool:
    return isinstance(value, Deferred)


def _made(rule: ReadRule, path: str) -> dict[str, str] | None:
    for pattern in rule.items["output"].values:
        found = values_in(str(pattern), path, rule.constraints)
        if found is not None and found.keys() >= {*rule.wildcards}:
            return found
    return None
