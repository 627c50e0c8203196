"""What earlier runs left in the workspace and a run sets aside before it begins: a plan looks before that."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from runnable_ci.engine.provenance.workspace_view import RunProducts
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.products.step_products import Products


def left_products(steps: Iterable[Step], catalog: Catalog, made: Collection[str] = ()) -> RunProducts:
    """Return what these steps made in any run that lies there now, but for those that have `made` something in this."""
    found = RunProducts(is_tracked=catalog.is_tracked)
    products = Products(catalog, 0, lambda _line, **_of: None)
    tops = {step.name for step in steps if not step.persist}
    names = {name for name in catalog.products.steps() if name.partition(".")[0] in tops and name not in made}
    for path in catalog.products.paths_of(names):
        if (product := products.product_at(path)) and product.step in names:
            found.by_step.setdefault(product.step, {})[path] = product.content.sha256
            if product.was:
                found.before.setdefault(product.step, {})[path] = product.was.sha256
    return found
