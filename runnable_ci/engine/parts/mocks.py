"""What mocked steps give: what they gave in an earlier run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from runnable_ci.engine.parts.mock_options import MockOptions
from runnable_ci.engine.parts.source import has_result, require_content, usable_runs
from runnable_ci.engine.session import RunSession
from runnable_ci.pipeline.branches.matrix import ONLY_KEY
from runnable_ci.pipeline.patterns import may_name
from runnable_ci.pipeline.step import Step, groups_of
from runnable_ci.runs.catalog import Catalog
from runnable_ci.runs.model import CatalogEntry, Pack, Parameter, RunLog, StepAttempt
from runnable_ci.runs.products.history import products_of
from runnable_ci.runs.products.step_products import StepProducts
from runnable_ci.runs.reuse.results import of_steps, results_of
from runnable_ci.util.text import listed


class MockedResult(NamedTuple):
    """What a step gave in an earlier run, which a mock of it gives again."""

    attempt: StepAttempt
    files: Sequence[CatalogEntry]
    packs: Mapping[str, Pack]


def results_of_mocks(session: RunSession, options: MockOptions, *, is_dry: bool = False) -> dict[str, MockedResult]:
    """Return for each step that is not run what it gave last; nothing for those of which no run here has a result.

    Unless it `is_dry`, all of that is in the store then. What is mocked by what is said.
    """
    if options.results is not None:
        return dict(_given(_without_records(options.results)))
    say = session.options.printer.say
    waiting = {step.name for step in session.project.pipeline.steps.values() if step.mock == "nothing"}
    found: dict[str, MockedResult] = {}
    for log in usable_runs(session.project, environ=session.options.environ, from_run=options.from_run):
        if not waiting:
            break
        if names := {name for name in waiting if has_result(log, name, session.project.pipeline)}:
            waiting -= names
            results = _without_records(results_of(log, of_steps(log, names)))
            say(f"note: mocked by what run {log.run_id} has: {listed(f'`{name}`' for name in sorted(names))}")
            if not is_dry:
                require_content(session, results)
            found |= dict(_given(results))
    if waiting:
        what = listed(f"`{name}`" for name in sorted(waiting))
        say(f"note: mocked, and no run here has a result, so that nothing is returned or put: {what}")
    return found


def _given(results: RunLog) -> Iterator[tuple[str, MockedResult]]:
    """Yield what each step gave, also those of branches; a loop is mocked by its last round."""
    for key, step in results.steps.items():
        if step.attempts:
            result = MockedResult(step.attempts[-1], products_of(step), results.packs)
            yield key, result
            for group in groups_of(key):
                if results.steps[group].step_type == "loop":
                    within = key.removeprefix(f"{group}.").partition(".")[2]
                    yield f"{group}.{ONLY_KEY}.{within}", result


def _without_records(results: RunLog) -> RunLog:
    """Return results without what was recorded of how they came about: a mock gives values and files."""
    no_records: dict[str, Any] = {"log": None, "reads": "", "code_identities": []}
    steps = {
        key: step.model_copy(update={"attempts": [it.model_copy(update=no_records) for it in step.attempts]})
        for key, step in results.steps.items()
    }
    return results.model_copy(update={"steps": steps, "code_states": {}})


def stand_in(
    products: StepProducts, attempt: StepAttempt, result: MockedResult | None, catalog: Catalog
) -> tuple[list[CatalogEntry], dict[str, Pack]]:
    """Let an attempt that runs nothing give what the step gave in an earlier run; its files, and their packs.

    What the step does not declare is not given, whatever the earlier log has. Without a result the step has the files
    again that it made earlier.
    """
    step = products.step
    files: list[CatalogEntry] = []
    packs: dict[str, Pack] = {}
    if result is not None:
        attempt.taken_from = result.attempt.taken_from
        attempt.output_parameters = _declared(result.attempt.output_parameters, step)
        attempt.user_defined_metrics = _declared(result.attempt.user_defined_metrics, step)
        attempt.file_metrics = result.attempt.file_metrics if step.metrics else {}
        files = [it for it in result.files if any(may_name(pattern, it.name) for pattern in step.put)]
        packs = dict(result.packs)
        catalog.know(packs)
        catalog.get(files)
    else:
        products.of.put_back(step.name)
        if next(groups_of(step.name), ""):
            products.of.say("note: mocked, and no run here has a result of this branch", step=step.shown)
    attempt.end("succeeded")
    place = catalog.run_folder.name
    return [it.model_copy(update={"source": "", "catalog_relative_path": f"{place}/{it.name}"}) for it in files], packs


def _declared(given: Mapping[str, Parameter], step: Step) -> dict[str, Parameter]:
    return {name: it for name, it in given.items() if name in step.returns}
