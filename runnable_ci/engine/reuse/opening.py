"""How an invocation begins to look for results of other runs, and whether it does at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from runnable_ci.engine.planner import PlanInputs
from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.engine.reuse.proof import Proof
from runnable_ci.engine.reuse.search import RunsHere, Search, Source
from runnable_ci.engine.reuse.surroundings import Here
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.products.step_products import Products

if TYPE_CHECKING:
    from runnable_ci.steps.containers.step_containers import StepContainers

NEVER = "never"


def _silent(_line: str, **_of: str) -> None:
    """Say nothing."""


def looking_elsewhere(
    inputs: PlanInputs,
    session: RunSession,
    run_id: str,
    catalog: Catalog,
    products: RunProducts,
    containers: StepContainers | None,
    mask: Callable[[Any], Any],
    *,
    reuse: str | None,
    say: Callable[..., None] = _silent,
) -> PlanInputs:
    """Return inputs by which steps that would run are looked for in other runs, where the pipeline or `reuse` says so.

    `reuse` is what a person said: `never`, or the run whose results are to be reused; `say` says why a step runs
    though there are results of it.
    """
    steps = session.project.pipeline.outlined().steps.values()
    if reuse == NEVER or not (reuse or any(step.reuse == "any-run" for step in steps)):
        return inputs
    proof = Proof(session.project.pipeline, catalog, session.code, products, Here(session, containers), mask)
    sources: Sequence[Source] = [RunsHere(session, run_id, reuse)]
    return inputs._replace(elsewhere=Search(proof, sources, is_for_all=reuse is not None, say=say).decide)


def without_products(pipeline: Pipeline, catalog: Catalog) -> RunProducts:
    """Return what steps made earlier that a run would set aside before it begins: a plan looks before that."""
    found = RunProducts(is_tracked=catalog.is_tracked)
    products = Products(catalog, 0, _silent)
    steps = {step.name for step in pipeline.steps.values() if not step.persist}
    names = {name for name in catalog.products.steps() if name.partition(".")[0] in steps}
    for path in catalog.products.paths_of(names):
        if product := products.product_at(path):
            found.by_step.setdefault(product.step, {})[path] = product.content.sha256
            if product.was:
                found.before.setdefault(product.step, {})[path] = product.was.sha256
    return found
