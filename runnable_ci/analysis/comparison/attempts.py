"""In what two attempts at a step differ: what they were made from, and what they gave. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final

from runnable_ci.analysis.comparison.model import LISTED, NOT_REACHED, NOT_READ, POSSIBLE, Change, Kind, RunDifference
from runnable_ci.engine.provenance.changes import consumed
from runnable_ci.engine.provenance.environment_changes import normalized
from runnable_ci.engine.provenance.staleness import PROGRAMS
from runnable_ci.observe.reads import ListingRead, ReadSet, listed_names
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import SUCCESS, CatalogEntry, Parameter, StepAttempt, StepLog
from runnable_ci.util.text import listed

_RELEASE: Final = re.compile(r"\S+ \d+\.\d+(?:\.\d+)?")
_PLATFORM: Final = ("os", "architecture", "libc", "distribution")
_MACHINE: Final = ("cpu", "cpu_id", "cpu_features", "cores", "cpu_limit", "gpus", "gpu_driver", "runner_image")
"""Facts by which numbers come out different; memory and disk are none."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """The last attempt at a step in one run, with what is known around it."""

    step: StepLog
    attempt: StepAttempt
    environment: Environment = field(default_factory=Environment)
    reads: ReadSet | None = None
    """None where it was not seen, or the record is not there."""
    maker: Callable[[str], str] = lambda _path: ""
    """Path of a product → the step that made it."""
    waits_for: Callable[[str], bool] = lambda _step: True
    """Name of a step → whether this one begins only once that one is over."""
    giver: Callable[[str], str] = lambda _name: ""
    """Name of a value → the step that returned it."""
    content: Callable[[str], str | None] = lambda _path: None
    """Path → the sha256 of what the run has there, empty for nothing; None where that is not known."""
    begun_with: Mapping[str, Any] = field(default_factory=dict)
    """The run's own parameters."""

    @property
    def ended_early(self) -> bool:
        """Whether it may not have read, or reported, all that it does when it succeeds."""
        return self.attempt.status != SUCCESS


def table_differences(
    kind: Kind,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    note_of: Callable[[str], str] = lambda _name: "",
    made_by: Callable[[str], str] = lambda _name: "",
) -> Iterator[RunDifference]:
    """Yield what is not the same JSON in two tables, by name."""
    for name in sorted({*before, *after}):
        if name not in after:
            yield RunDifference(kind, name, "removed", before[name], None, made_by(name), note_of(name))
        elif name not in before:
            yield RunDifference(kind, name, "added", None, after[name], made_by(name), note_of(name))
        elif not _is_same(before[name], after[name]):
            yield RunDifference(kind, name, "changed", before[name], after[name], made_by(name), note_of(name))


def _is_same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def input_differences(a: Attempted, b: Attempted) -> tuple[RunDifference, ...]:
    """Return in what differs that two attempts were made from."""
    without_needs = [{k: v for k, v in one.attempt.definition.items() if k != "needs"} for one in (a, b)]
    return (
        *table_differences("definition", *without_needs),
        *_code(a, b),
        *_values(a, b),
        *_reads(a, b),
        *_images(a, b),
        *_interpreters(a, b),
        *_packages(a, b),
        *_without_unknown(a, b, table_differences("variable", a.attempt.variables, b.attempt.variables)),
        *environment_facts("platform", a.environment, b.environment),
        *_machines(a, b),
    )


def not_seen(a: Attempted, b: Attempted, names: tuple[str, str]) -> str:
    """Return which inputs could not be compared; empty where all could."""
    reasons = [
        f"what it read in {name} is not known ({one.attempt.not_seen or 'the record is not here'})"
        for name, one in zip(names, (a, b), strict=True)
        if one.reads is None
    ]
    if a.reads and b.reads and (paths := sorted(_perhaps_listed(a.reads, b.reads))):
        reasons.append(f"whether it listed {listed(paths)} is not known, as other steps ran beside it")
    return "; ".join(reasons)


def _code(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    """Yield the function and the modules that differ; not those that the function does not reach."""
    one, other = a.attempt, b.attempt
    reaches_same = bool(one.reach) and one.reach == other.reach
    modules = [_modules(a, b), _modules(b, a)]
    differ = table_differences("code", *modules, note_of=lambda _: NOT_REACHED * reaches_same)
    found = [*_as_far_as_read(a, b, differ)]
    yield from found
    if one.function_hash != other.function_hash and one.function_hash and other.function_hash:
        name = str(other.definition.get("python") or other.definition.get("notebook") or "the function")
        if not found:
            yield RunDifference("code", name, "changed", one.function_hash, other.function_hash)
    elif one.reach and other.reach and one.reach != other.reach and not found:
        yield RunDifference("code", "what the function reaches", "changed", one.reach, other.reach)


def _modules(of: Attempted, other: Attempted) -> dict[str, str]:
    """Return the modules of an attempt; one that was killed did not report any, but was seen to read them."""
    read = of.reads.files if of.reads else {}
    seen = {path: read[path].digest for path in other.attempt.modules if path in read} if of.ended_early else {}
    return {**seen, **of.attempt.modules}


def _as_far_as_read(a: Attempted, b: Attempted, differences: Iterable[RunDifference]) -> Iterator[RunDifference]:
    """Yield the differences in what two attempts read; what one did not read that ended early by what its run has.

    What only one may have read is none where the other one, which did not, had it too: a step beside it read it.
    """
    for found in differences:
        lacking = {"added": a, "removed": b}.get(found.change)
        if lacking is None or not (lacking.ended_early or found.note == POSSIBLE):
            yield found
            continue
        there = lacking.content(found.name)
        if not lacking.ended_early:
            if not there:
                yield found
        elif there is None:
            yield replace(found, note=NOT_READ)
        elif not there:
            yield found
        elif there != (found.after if lacking is a else found.before):
            before, after = (there, found.after) if lacking is a else (found.before, there)
            yield replace(found, change="changed", before=before, after=after, note=POSSIBLE)


def _without_unknown(a: Attempted, b: Attempted, differences: Iterable[RunDifference]) -> Iterator[RunDifference]:
    """Yield differences, but for what only one attempt reported, as the other one ended before that."""
    for found in differences:
        lacking = {"added": a, "removed": b}.get(found.change)
        if lacking is None or not lacking.ended_early:
            yield found


def _values(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    """Yield the values that differ of those that one of the attempts used, or may have used."""
    names = {name for one in (a, b) for name in consumed(one.attempt)}
    given = [_given_values(a, b, names), _given_values(b, a, names)]
    known = [{n: shown_value(p) for n, p in one.items()} for one in given]
    digests = [{n: _value_digest(p) for n, p in one.items()} for one in given]

    def note(name: str) -> str:
        grades = {one.attempt.consumed.get(name, "") for one in (a, b)} - {""}
        return POSSIBLE if grades == {"possible"} else ""

    for found in _without_unknown(a, b, table_differences("value", *digests)):
        before, after = (values.get(found.name) for values in known)
        maker = a.giver(found.name) or b.giver(found.name)
        yield RunDifference("value", found.name, found.change, before, after, maker, note(found.name))


def _given_values(of: Attempted, other: Attempted, names: Collection[str]) -> dict[str, Parameter]:
    """Return the values of an attempt; of one whose end nobody saw as the run began with them."""
    found = {name: value for name, value in of.attempt.input_parameters.items() if name in names}
    if of.ended_early:
        for name in names & other.attempt.input_parameters.keys() & of.begun_with.keys() - found.keys():
            there = other.attempt.input_parameters[name]
            is_same = not there.redacted and _is_same(there.value, of.begun_with[name])
            found[name] = there if is_same else Parameter.of_json(of.begun_with[name])
    return found


def _value_digest(parameter: Parameter) -> Any:
    """Return what tells a value from another one."""
    return parameter.data_hash or parameter.value_hash or [parameter.kind == "object", parameter.value]


def shown_value(parameter: Parameter) -> Any:
    """Return a value as people see it: of an object its type and the sha256 of its pickle."""
    if parameter.kind != "object":
        return parameter.value
    return f"{parameter.object_type or 'object'} sha256:{parameter.data_hash[:12]}"


def _reads(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    """Yield the files and listings that differ, of what both attempts were seen to read, but for code of modules."""
    if a.reads is None or b.reads is None:
        yield from _gets(a, b)
        return
    of_modules = {*a.attempt.modules, *b.attempt.modules}
    files = [
        {path: read.digest for path, read in one.reads.files.items() if path not in of_modules}
        for one in (a, b)
        if one.reads is not None
    ]
    one, other = a.reads, b.reads

    def note(path: str) -> str:
        grades = {found.grade for reads in (one, other) if (found := reads.files.get(path))}
        return POSSIBLE if grades == {"possible"} else ""

    differ = table_differences("read", *files, note_of=note, made_by=lambda path: a.maker(path) or b.maker(path))
    for found in _as_far_as_read(a, b, differ):
        if found.note == POSSIBLE and found.made_by and not any(one.waits_for(found.made_by) for one in (a, b)):
            continue  # a step beside it made it: it is that one's, or of one that waits for that
        is_code = PurePath(found.name).suffix in PROGRAMS
        yield RunDifference(
            "code" if is_code else "read",
            found.name,
            found.change,
            found.before,
            found.after,
            found.made_by,
            found.note,
        )
    yield from _as_far_as_read(a, b, table_differences("read", one.outside, other.outside))
    yield from _without_unknown(a, b, table_differences("read", one.links, other.links))
    yield from _listings(one, other, {*one.files, *other.files})


def _listings(one: ReadSet, other: ReadSet, named: set[str]) -> Iterator[RunDifference]:
    """Yield names that surely only one of two listings of a folder has."""
    uncertain = _perhaps_listed(one, other)
    for path, is_new in _listed_once(one, other):
        if path not in named and path not in uncertain:
            yield RunDifference("read", path, "added" if is_new else "removed", note=LISTED)


def _perhaps_listed(one: ReadSet, other: ReadSet) -> set[str]:
    """Return what may have been listed, or a step that ran at the same time listed it: that is no difference."""
    shared = one.listings.keys() & other.listings.keys()
    beside = {at for at in shared if one.listings[at].grade == other.listings[at].grade == "possible"}
    once = {path for path, _ in _listed_once(one, other, beside)}
    return {*one.uncertain_names(), *other.uncertain_names(), *once}


def _listed_once(one: ReadSet, other: ReadSet, folders: Collection[str] | None = None) -> Iterator[tuple[str, bool]]:
    """Yield the paths that one of two listings of a folder has, with whether the second one does."""
    for folder in sorted(one.listings.keys() & other.listings.keys() if folders is None else folders):
        listings = [reads.listings[folder] for reads in (one, other)]
        then, now = (_listed(listing, listings) for listing in listings)
        yield from ((posixpath.join(folder, name), name in now) for name in sorted(then ^ now))


def _listed(listing: ListingRead, listings: Sequence[ListingRead]) -> set[str]:
    """Return the names of a listing that can be compared: where an importer looked, those that may be modules."""
    return listed_names(listing.names, modules_only=any(one.modules_only for one in listings))


def _gets(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    """Yield the files that differ of those that were given to the attempts by name."""
    files = [{e.name: e.data_hash for e in one.step.data_catalog if e.stage == "get"} for one in (a, b)]
    yield from table_differences("read", *files, made_by=lambda path: a.maker(path) or b.maker(path))


def _images(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    then, now = (
        {
            code.code_identifier_url or "the job's container": code.code_identifier
            for code in one.attempt.code_identities
            if code.code_identifier_type == "docker"
        }
        for one in (a, b)
    )
    yield from table_differences("image", then, now)


def _interpreters(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    versions = (_RELEASE.match(one.environment.interpreter_version) for one in (a, b))
    then, now = (found[0] if found else "" for found in versions)
    if then and now and then != now:
        yield RunDifference("interpreter", "python", "changed", then, now)


def _packages(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    """Yield the distributions that differ, of those that one of the attempts imported where that was seen."""
    if "container" in b.attempt.definition:  # its packages are those of its image
        return
    then, now = a.environment.packages, b.environment.packages
    if not then or not now:
        return
    imported: set[str] | None = set()
    for one in (a, b):
        if one.reads is None or not one.reads.imports_seen:
            imported = None
            break
        imported = (imported or set()) | {normalized(name) for name in one.reads.distributions}
    for found in table_differences("package", then, now):
        if imported is None:
            yield RunDifference("package", found.name, found.change, found.before, found.after, note="may be imported")
        elif normalized(found.name) in imported:
            yield found


def environment_facts(kind: Kind, then: Environment, now: Environment) -> Iterator[RunDifference]:
    """Yield in what differs where the steps ran, but for its machine and packages."""
    facts = [{name: value for name in _PLATFORM if (value := getattr(one, name))} for one in (then, now)]
    for name in _PLATFORM:
        if name in facts[0] and name in facts[1]:
            yield from table_differences(kind, {name: facts[0][name]}, {name: facts[1][name]})


def _machines(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    yield from machine_facts(a.environment, b.environment)
    libraries = [
        {one.name: f"{one.version}, {one.threads} threads" for one in it.attempt.numeric_libraries} for it in (a, b)
    ]
    yield from _without_unknown(a, b, table_differences("machine", *libraries))


def machine_facts(then: Environment, now: Environment) -> Iterator[RunDifference]:
    """Yield in what the machines differ, as far as both are known."""
    for name in _MACHINE:
        before, after = getattr(then.machine, name), getattr(now.machine, name)
        if before and after and before != after:
            yield RunDifference("machine", name.replace("_", " "), "changed", before, after)


def output_differences(a: Attempted, b: Attempted) -> tuple[RunDifference, ...]:
    """Return in what differs that two attempts gave."""
    one, other = a.attempt, b.attempt
    return (
        *_end(one, other),
        *_files(a, b),
        *_given("result", one.output_parameters, other.output_parameters),
        *table_differences("metric", _metrics(one), _metrics(other)),
        *_printed(one, other),
    )


def _metrics(attempt: StepAttempt) -> dict[str, Any]:
    return {name: p.value for name, p in attempt.user_defined_metrics.items()} | attempt.file_metrics


def _end(one: StepAttempt, other: StepAttempt) -> Iterator[RunDifference]:
    for name in ("outcome", "exit_code"):
        before, after = getattr(one, name), getattr(other, name)
        if before != after and not (name == "exit_code" and one.outcome != other.outcome):
            yield RunDifference("ended", name.replace("_", " "), "changed", before, after)
    errors = [f"{e.type}: {e.message}" if (e := it.exception) else "" for it in (one, other)]
    if errors[0] != errors[1]:
        change: Change = "changed" if all(errors) else "added" if errors[1] else "removed"
        yield RunDifference("ended", "exception", change, errors[0] or None, errors[1] or None)


def _files(a: Attempted, b: Attempted) -> Iterator[RunDifference]:
    put = [{e.name: content_of(e) for e in one.step.data_catalog if e.stage == "put"} for one in (a, b)]
    made = [{p: h for p, h in one.attempt.made.items() if p not in put[i]} for i, one in enumerate((a, b))]
    for at, one in enumerate((a, b)):
        if one.ended_early:  # nothing was put of it
            put[at] |= {path: made[at].pop(path) for path in put[1 - at].keys() & made[at].keys()}
    yield from table_differences("file", *put)
    yield from table_differences("file", *made, note_of=lambda _: "not in its `put`")


def content_of(entry: CatalogEntry) -> str:
    """Return what tells a file's content from another one."""
    return entry.target if entry.kind == "link" else entry.kind or entry.data_hash


def _given(kind: Kind, then: Mapping[str, Parameter], now: Mapping[str, Parameter]) -> Iterator[RunDifference]:
    digests = [{name: _value_digest(p) for name, p in given.items()} for given in (then, now)]
    for found in table_differences(kind, *digests):
        before, after = (shown_value(given[found.name]) if found.name in given else None for given in (then, now))
        yield RunDifference(kind, found.name, found.change, before, after)


def _printed(one: StepAttempt, other: StepAttempt) -> Iterator[RunDifference]:
    hashes = [it.log.data_hash if it.log else "" for it in (one, other)]
    if hashes[0] != hashes[1]:
        yield RunDifference("output", "what it printed", "changed", hashes[0] or None, hashes[1] or None)
