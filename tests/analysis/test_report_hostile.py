"""Whatever a run is called, printed or made: its page has no element, attribute or script but our own."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, chromium
from cli import Workspace, workspace

from runnable_ci.analysis.comparison.code import compare_code
from runnable_ci.analysis.comparison.runs import RunRead, compare
from runnable_ci.analysis.report.html import html
from runnable_ci.analysis.report.output import output_html
from runnable_ci.analysis.report.page import FoundForPage, page_of
from runnable_ci.analysis.report.plots import Plot, Point
from runnable_ci.analysis.report.previews import preview
from runnable_ci.observe.reads import FileRead, ReadSet
from runnable_ci.runs.model import RunLog

TURN = "\u202e\u2066\u200f"
INJECTIONS = (
    "<script>canary = 1</script>",
    "</script><script>canary = 2</script>",
    "</style><img src=x onerror=canary=3>",
    "<svg onload=canary=4>",
    "\"'><img src=http://127.0.0.1:9/x onerror=canary=5>",
    "javascript:canary=6",
    "{{ 7 * 7 }}{% raw %}",
    "`<b onclick=canary=8>`",
    "]]><!--",
    f"{TURN}gpj.exe\x00\x1b]8;;javascript:canary=9\x1b\\link\x1b]8;;\x1b\\\x1b[31m<i>red</i>\x1b[0m\ud800",
)
HOSTILE = "".join(INJECTIONS)
ELEMENTS = {
    *("a", "b", "body", "caption", "circle", "code", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "h1"),
    *("h2", "h3", "h4", "head", "header", "html", "img", "input", "label", "li", "main", "meta", "nav", "ol", "option"),
    *(
        "p",
        "path",
        "polyline",
        "pre",
        "rect",
        "script",
        "section",
        "select",
        "span",
        "style",
        "summary",
        "svg",
        "table",
    ),
    *("tbody", "td", "text", "th", "thead", "title", "tr", "ul"),
}
ATTRIBUTES = {
    *("aria-hidden", "aria-label", "aria-labelledby", "class", "id", "role", "scope", "style", "tabindex", "title"),
    *("alt", "src", "href", "loading", "decoding", "open", "hidden", "data-state", "rowspan", "autocomplete", "type"),
    *("charset", "content", "http-equiv", "lang", "name", "d", "cx", "cy", "r", "x", "y", "rx", "width", "height"),
    *("viewBox", "points"),
}
WALK = """
const found = {elements: {}, attributes: {}, links: [], styles: [], classes: [], canary: typeof canary};
for (const it of document.querySelectorAll("*")) {
  found.elements[it.localName] = (found.elements[it.localName] || 0) + 1;
  for (const one of it.attributes) {
    found.attributes[one.name] = 1;
    if (one.name === "href" || one.name === "src") found.links.push(one.value.slice(0, 30));
    if (one.name === "style") found.styles.push(one.value);
    if (one.name === "class") found.classes.push(one.value);
  }
}
return found;
"""
LINK = re.compile(r"#[a-z]+(-[0-9]+)?|data:image/(png|jpeg|gif|webp|svg\+xml);base64,[A-Za-z0-9+/=]*")
STYLE = re.compile(
    r"left:[0-9.]+%(;width:max\(3px,[0-9.]+%\))?"
    r"|(color:#[0-9a-f]{6}|font-weight:bold|font-style:italic|text-decoration:underline|;)+"
)
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20" onload="parent.canary = 1">'
    "<script>parent.canary = 2; top.canary = 3</script>"
    '<image href="http://127.0.0.1:9/svg.png" width="9" height="9"/>'
    '<foreignObject><p xmlns="http://www.w3.org/1999/xhtml"><script>parent.canary = 4</script></p></foreignObject>'
    '<a href="javascript:parent.canary = 5"><rect width="40" height="20"/></a></svg>'
)
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "source": ["[x](javascript:canary=1) ", HOSTILE, "![x](http://127.0.0.1:9/md.png)"]},
        {
            "cell_type": "code",
            "source": HOSTILE,
            "outputs": [
                {"output_type": "display_data", "data": {"text/html": HOSTILE, "text/plain": HOSTILE}},
                {"output_type": "display_data", "data": {"application/javascript": "canary = 1"}},
                {"output_type": "display_data", "data": {"image/svg+xml": SVG, "text/plain": "an SVG"}},
                {"output_type": "display_data", "data": {"image/png": base64.b64encode(SVG.encode()).decode()}},
                {"output_type": "stream", "text": HOSTILE},
                {"output_type": "error", "traceback": [HOSTILE, "\x1b[31m</pre><script>canary=1</script>"]},
            ],
        },
    ]
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as found:
        yield found


def check(browser: Browser, page: Path, scripts: int = 1) -> None:
    """Open a page, look at all of it, and hold it to what our template makes."""
    browser.open(page)
    browser.js("for (const it of document.querySelectorAll('details')) it.open = true")
    browser.js("for (const it of document.images) it.loading = 'eager'")
    for link in range(min(20, len(browser.driver.find_elements("css selector", "main a, nav a")))):
        browser.js(
            "[...document.querySelectorAll('main a, nav a')][arguments[0]].dispatchEvent(new Event('click'))", link
        )
    found = browser.js(WALK)
    assert found["canary"] == "undefined"
    assert {*found["elements"]} <= ELEMENTS
    assert (found["elements"].get("script", 0), found["elements"]["style"]) == (scripts, 1)
    assert {*found["attributes"]} <= ATTRIBUTES
    assert [one for one in found["links"] if not LINK.match(one)] == []
    assert [one for one in found["styles"] if not STYLE.fullmatch(one)] == []
    assert browser.complaints() == []
    assert browser.requests() == [page.as_uri()]
    shown = browser.js("return document.body.textContent")
    assert not any(mark in shown for mark in (*TURN, "\x1b", "\x00"))


def spoiled(value: Any, key: str = "") -> Any:
    """A document in which each text and each name that is not a time, digest or word of ours is hostile."""
    if isinstance(value, dict):
        return {name if name in FIELDS else f"{name}{HOSTILE}": spoiled(found, name) for name, found in value.items()}
    if isinstance(value, list):
        return [spoiled(found, key) for found in value]
    if not isinstance(value, str) or key in KEPT or re.fullmatch(r"[0-9a-f]{40,64}|\d{4}-\d\d-\d\dT.*", value):
        return value
    return f"{value}{HOSTILE}"


KEPT = {"status", "kind", "action", "outcome", "schema_version"}
FIELDS: set[str] = set()


def names_of_fields(schema: Any) -> set[str]:
    """All names of fields that a JSON schema has."""
    if isinstance(schema, dict):
        own = {*schema.get("properties", {})}
        return own.union(*map(names_of_fields, schema.values()))
    return set().union(*map(names_of_fields, schema)) if isinstance(schema, list) else set()


def hostile_steps(log: RunLog) -> RunLog:
    """The log with each text spoiled, and its steps still the ones that its decisions name."""
    FIELDS.update(names_of_fields(RunLog.model_json_schema()))
    return RunLog.model_validate(spoiled(json.loads(log.model_dump_json())))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A pipeline whose files, values, messages and output are hostile, as far as a pipeline can have them."""
    bad = json.dumps(HOSTILE.replace("\x00", "").replace("\ud800", ""))
    made = workspace(
        tmp_path_factory.mktemp("hostile"),
        {
            "runnable.toml": f"""
name = "shop"
[parameters]
word = {bad}
[steps.make]
run = "python make.py"
returns = ["made"]
catalog = {{ put = ["*.svg", "*.csv", "*.ipynb", "*.html", "*.md", "*.png"] }}
[steps.train]
needs = ["make"]
python = "train:fit"
returns = {{ score = "metric" }}
strategy = {{ matrix = {{ model = ["a", "<img src=x onerror=canary=1>"] }} }}
[steps.last]
needs = ["train"]
python = "train:last"
""",
            "make.py": f"""
import json, os
bad = {bad}
print(bad)
open("<img src=x onerror=canary=1>.svg", "w").write({SVG!r})
open("x.png", "w").write({SVG!r})
open("</script>.csv".replace("/", "_"), "w").write(bad.replace("\\n", " ") + ",2\\n" + bad + ",3\\n")
open("n.ipynb", "w").write({json.dumps(NOTEBOOK)!r})
open("x.html", "w").write(bad)
open("x.md", "w").write("[x](javascript:canary=1) " + bad)
open(os.environ["RUNNABLE_OUTPUT"], "a").write("made=" + json.dumps(bad) + "\\n")
""",
            "train.py": f"""
bad = {bad}
def fit(word, model, made):
    print(word, model)
    return {{bad: 0.5, "b": 1}}
def last(word, score):
    raise ValueError(word + bad)
""",
            ".gitignore": ".runnable\n*.svg\n*.csv\n*.ipynb\n*.html\n*.md\n*.png\n__pycache__\n",
        },
    )
    made.git("checkout", "-q", "-b", "<svg/onload=canary=1>")
    made.runnable("run", "--run-id", "first", code=1)
    made.write(
        {
            "train.py": made.read("train.py").replace("raise ValueError(word + bad)", "return")
            + f"# {''.join(INJECTIONS[:9])}\n"
        }
    )
    made.runnable("run", "--run-id", "second", "--param", f"word=x{HOSTILE[:200]}", "--tag", "tag")
    return made


@pytest.mark.parametrize(("run", "other"), [("first", "second"), ("second", "first")])
def test_a_hostile_pipeline(project: Workspace, browser: Browser, run: str, other: str) -> None:
    """Its page, compared with another of its runs: names, values, products, output and the dirty difference."""
    project.runnable("report", run, "-o", f"{run}.page", "--against", other)
    page = project.folder / f"{run}.page.html"
    (project.folder / f"{run}.page").rename(page)
    check(browser, page)
    text = browser.js("return document.body.textContent")
    for part in ("<script>canary = 1</script>", "<svg onload=canary=4>", "\\u202e"):
        assert part in text
    assert browser.js("return [...document.images].length") >= 1


def test_a_hostile_comparison(project: Workspace, browser: Browser, tmp_path: Path) -> None:
    """Its page has no script at all; names, values, files and output are text."""
    options = ("--logs", "all", "--file", "*")
    page = tmp_path / "diff.html"
    page.write_text(project.runnable("diff", "first", "second", "--html", *options).out)
    check(browser, page, scripts=0)
    assert "<svg onload=canary=4>" in browser.js("return document.body.textContent")


def test_a_hostile_log(project: Workspace, browser: Browser, tmp_path: Path) -> None:
    """Every text and name of a log that a registry gave, and all that is shown beside it."""
    log = hostile_steps(project.log("second"))
    other = hostile_steps(project.log("first"))
    assert HOSTILE in log.name
    names = [f"{name}.{step.attempts[-1].attempt_number}" for name, step in log.steps.items() if step.attempts]
    shown = {
        (name, f"{kind}{HOSTILE}.{kind}"): preview(f"x.{kind}", content)
        for name in log.steps
        for kind, content in {
            "svg": SVG.encode(),
            "csv": HOSTILE.encode(errors="replace"),
            "ipynb": json.dumps(NOTEBOOK).encode(),
            "txt": HOSTILE.encode(errors="replace"),
        }.items()
    }
    assert all(shown.values())
    for (name, file), _ in [*shown.items()]:
        log.steps[name].data_catalog.append(
            log.steps["make" + HOSTILE].data_catalog[0].model_copy(update={"name": file, "stage": "put"})
        )
    reads = ReadSet(
        files={HOSTILE: FileRead(digest="0" * 64)},
        absent={HOSTILE: "seen"},
        outside={HOSTILE: ""},
        distributions={HOSTILE: HOSTILE},
        connected=[HOSTILE],
    )
    plots = [Plot(name, [Point(1, 2, HOSTILE, True)] * 2, "1,2 1,2", "1", "2", HOSTILE) for name in log.metrics()]
    found = FoundForPage(
        outputs={name: (output_html(HOSTILE), HOSTILE) for name in names},
        reads=dict.fromkeys(names, reads),
        previews={key: one for key, one in shown.items() if one},
        plots=plots,
        dirty=f"+{HOSTILE}\n-{HOSTILE}\n@@ {HOSTILE}",
        dirty_note=HOSTILE,
        comparison=compare(RunRead(other, HOSTILE), RunRead(log), compare_code(other, log, None)),
    )
    needs: dict[str, Sequence[str]] = {name: [] for name in log.steps}
    page = tmp_path / "page.html"
    page.write_text(html(page_of(log, found, needs)), encoding="utf-8")
    check(browser, page)
    assert page.read_text(encoding="utf-8").count("&lt;script&gt;canary = 1") > 50


def test_the_walk_finds_what_is_injected(browser: Browser, tmp_path: Path) -> None:
    """An element, an attribute or a link that is not ours fails."""
    for planted in ("<marquee>", "<p onclick=x>", '<a href="http://x/">x</a>', '<b style="position:fixed">'):
        page = tmp_path / "page.html"
        page.write_text(f"<!doctype html><style></style><main>{planted}</main><script></script>")
        with pytest.raises(AssertionError):
            check(browser, page)
