"""The files that a step gets: from the catalog, else from the workspace."""

from __future__ import annotations

from collections.abc import Callable

from runnable_ci.engine.planner import Scope
from runnable_ci.errors import StepError
from runnable_ci.pipeline.patterns import select
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.files.links import is_behind_link, selected_behind_links, with_what_links_lead_to
from runnable_ci.runs.model import CatalogEntry


def receive_files(step: Step, scope: Scope, catalog: Catalog, say: Callable[[str], None]) -> list[CatalogEntry]:
    """Restore the files that the step gets into the workspace; return their entries."""
    wanted: dict[str, CatalogEntry] = {}
    inputs: set[str] = set()
    visible = scope.entries()
    for pattern in step.get or ():
        found = catalog.files.expand([pattern])[pattern]
        present = [name for name in found if name not in visible and not is_behind_link(name, visible)]
        chosen = select(pattern, [*visible, *present])
        behind = {name for names in selected_behind_links(pattern, visible) for name in names}
        if not chosen and not behind:
            raise StepError(
                f"catalog get `{pattern}` matches no file that an earlier step stored, and none in the workspace",
                hint="add the step that stores it to `needs`, or add the file to the workspace",
            )
        wanted |= with_what_links_lead_to(visible.keys() & chosen, visible) | {name: visible[name] for name in behind}
        inputs.update(name for name in chosen if name not in visible)
    taken, replaced = catalog.get(wanted[name] for name in sorted(wanted))
    for name in replaced:
        say(catalog.describe_replaced(name))
    return [*taken, *catalog.inputs(sorted(inputs))]
