"""A run id in a registry belongs to one run: who publishes another one under it is refused, and nothing is changed.

Tags have no compare-and-swap, so it is looked at before anything is sent and again once both tags are written: of two
runs that are published at the same moment, at least the later writer of a tag sees the other's.
"""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.errors import UsageError
from runnable_ci.runs.artifact import TITLE
from runnable_ci.runs.command_line import http_option, of_store
from runnable_ci.runs.remote_index import Occupant, find_occupant, find_occupants
from runnable_ci.runs.run_identity import IDENTITY, describe_beginning
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry


def require_own_id(layout: Layout, registry: Registry, mine: Mapping[str, str]) -> bool:
    """Return whether the registry holds the run already, whose manifest has the annotations `mine`.

    Raises `UsageError` where its id belongs to another run, `StoreError`.
    """
    run_id = mine[TITLE]
    found = find_occupant(registry, run_id)
    others = [found] if found is not None else find_occupants(registry, run_id)
    for other in others:
        if other.identity != mine[IDENTITY]:
            raise _taken(layout, registry, mine, other)
    return found is not None


def settle(layout: Layout, registry: Registry, mine: Mapping[str, str], tag: str) -> None:
    """Withdraw a run that was published as the first of its id, where another one was at the same moment.

    The plain tag decides, as both see the same there: both have written it before either sees the other's `tag`.
    That of the run which lost it then points to the other one. Raises `UsageError` for it, `StoreError`.
    """
    run_id = mine[TITLE]
    if all(other.identity == mine[IDENTITY] for other in find_occupants(registry, run_id)):
        return
    winner = find_occupant(registry, run_id)
    if winner is not None and winner.identity != mine[IDENTITY]:
        registry.tag(winner.manifest, tag)
        raise _taken(layout, registry, mine, winner)


def _taken(layout: Layout, registry: Registry, mine: Mapping[str, str], other: Occupant) -> UsageError:
    run_id, http = mine[TITLE], http_option(registry.plain_http)
    return UsageError(
        f"`{run_id}` in {registry.label} is another run, {describe_beginning(other.annotations)}; "
        f"the one here was {describe_beginning(mine)}; nothing there was changed",
        hint=of_store(layout, "publish", run_id, "--as", "OTHER_ID", "--to", registry.label, *http),
    )
