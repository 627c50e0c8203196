"""The page of a run, or of a comparison, as one HTML document.

No network, no file beside it, and nothing of a run takes effect in it.

All text is escaped by the template engine; a content security policy allows our one script, by its hash, and images
from the document itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from runnable_ci.analysis.comparison.blocks import blocks, facts_line, headlines, same_line
from runnable_ci.analysis.comparison.condition import Judgement
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.comparison.requested import Requested
from runnable_ci.analysis.comparison.text import content_lines
from runnable_ci.analysis.report.output import output_html
from runnable_ci.analysis.report.page import MARKS, Page
from runnable_ci.analysis.report.wording import finalized, sentence

_ASSETS: Final = files("runnable_ci.analysis.report") / "assets"


def html(page: Page) -> str:
    """Return the document."""
    script = _asset("report.js")
    return _rendered(
        "report.html",
        title=f"{page.mark} {page.title}",
        page=page,
        marks=MARKS,
        sections=[*_sections(page)],
        headlines=headlines(page.comparison) if page.comparison else [],
        blocks=[*blocks(page.comparison)] if page.comparison else [],
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def comparison_html(
    found: RunComparison,
    judgements: Sequence[Judgement] = (),
    contents: Sequence[Requested] = (),
    *,
    redacted: Callable[[str], str] = lambda text: text,
) -> str:
    """Return a comparison of two runs as a document of its own; what files hold goes through `redacted`."""
    lines = [[redacted(line).removeprefix("  ") for line in content_lines(one)] for one in contents]
    return _rendered(
        "diff.html",
        title=f"{found.a.run_id} and {found.b.run_id}",
        runs=[("A", facts_line(found.a)), ("B", facts_line(found.b))],
        headlines=headlines(found),
        blocks=[*blocks(found)],
        same=same_line(found),
        judgements=judgements,
        contents=[(first, rest) for first, *rest in lines],
        script="",
    )


def _rendered(template: str, **context: Any) -> str:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalized,
        trim_blocks=True,
        loader=FunctionLoader(_asset),
    )
    environment.filters |= {"terminal": output_html, "line_kind": _line_kind, "sentence": sentence, "grouped": _grouped}
    style = Markup(_asset("report.css"))  # noqa: S704 - our own file
    return environment.get_template(template).render(style=style, **context)


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _sections(page: Page) -> Iterator[tuple[str, str]]:
    if page.failures:
        yield "failures", "What failed"
    if page.comparison or page.other_note:
        yield "comparison", "What changed"
    if page.metrics:
        yield "metrics", "Metrics"
    if page.graph:
        yield "graph", "Graph"
    if page.timeline:
        yield "timeline", "Timeline"
    yield "steps", "Steps"
    if page.parameters:
        yield "values", "Values"
    yield from (("code", "Code"), ("environment", "Environment"), ("invocations", "Invocations"))


def _grouped(rows: Sequence[Sequence[str]]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield rows with how many of them share the first cell with this one, which has it for all; 0 for those after."""
    for at, row in enumerate(rows):
        if at and rows[at - 1][0] == row[0]:
            yield 0, row
            continue
        same = next((n for n, other in enumerate(rows[at:]) if other[0] != row[0]), len(rows) - at)
        yield same, row


def _line_kind(line: str) -> str:
    return {"+": "add", "-": "remove", "@": "place"}.get(line[:1], "same")
