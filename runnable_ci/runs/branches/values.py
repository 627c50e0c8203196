"""What the branches of a step give together. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from runnable_ci.runs.branches.branch_model import BranchKind
from runnable_ci.runs.model import Parameter, StepLog, StoredObject


def joined(
    kind: BranchKind, names: Collection[str], outputs: Sequence[Mapping[str, Parameter]]
) -> dict[str, Parameter]:
    """Return the values of these names that a step gives, by those of its branches, in their order.

    Of a matrix it is a list, with null for an instance that gave none; of a loop, what its last round gave.
    """
    if kind == "map":
        return {name: _list_of([one.get(name) for one in outputs]) for name in names}
    return {name: value for one in outputs[-1:] for name, value in one.items() if name in names}


def _list_of(values: Sequence[Parameter | None]) -> Parameter:
    given = [one for one in values if one is not None]
    redacted = any(one.redacted for one in given)
    if any(one.kind == "object" for one in given):
        items = [_stored(one) for one in values]
        digest = hashlib.sha256("".join(one.data_hash or "-" for one in items).encode()).hexdigest()
        text = f"{len(items)} pickled objects stored in catalog"
        return Parameter(
            kind="object",
            value=given[0].value,
            description=text,
            items=items,
            data_hash=digest,
            size=sum(one.size for one in items),
            redacted=redacted,
        )
    kind: Literal["json", "metric"] = "metric" if given and all(one.kind == "metric" for one in given) else "json"
    return Parameter.of_json([one.value if one else None for one in values], kind, redacted=redacted)


def _stored(value: Parameter | None) -> StoredObject:
    if value is None:
        return StoredObject()
    return StoredObject(data_hash=value.data_hash, size=value.size or 0, object_type=value.object_type)


def outputs_of_step(log: Mapping[str, StepLog], step: StepLog) -> dict[str, Parameter]:
    """Return what a step gave, by its last attempt or by its branches."""
    if step.attempts:
        last = step.attempts[-1]
        return last.output_parameters | last.user_defined_metrics
    if step.step_type not in ("map", "loop", "dag"):
        return {}
    branches = [
        {
            name: parameter
            for inner in step.branch_steps
            if (found := log.get(f"{step.name}.{one.name}.{inner}")) is not None
            for name, parameter in outputs_of_step(log, found).items()
        }
        for one in step.instances
    ]
    return joined(_kind(step), step.branch_returns, branches)


def _kind(step: StepLog) -> BranchKind:
    match step.step_type:
        case "map" | "loop" as kind:
            return kind
        case _:
            return "dag"
