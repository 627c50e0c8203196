"""The page of a run in real Chromium: mouse, keyboard, dark, narrow, accessible, without network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import ENTER, TAB, Browser, chromium
from cli import Workspace, workspace

FILES = {
    "runnable.toml": """
name = "shop"
[parameters]
depth = 3
[steps.fetch]
run = "cp data/raw.csv raw.csv; printf '\\\\033[32mfetched\\\\033[0m\\\\n'"
catalog = { put = ["raw.csv"] }
[steps.clean]
needs = ["fetch"]
run = "sort raw.csv > clean.csv"
catalog = { put = ["clean.csv"] }
[steps.train]
needs = ["clean"]
python = "train:fit"
returns = { score = "metric" }
strategy = { matrix = { seed = [1, 2, 3], model = ["tree", "linear"] } }
[steps.plot]
needs = ["clean"]
run = "python plot.py"
catalog = { put = ["plot.png", "picture.svg", "note.ipynb", "read.md"] }
returns = { accuracy = "metric" }
[steps.publish]
needs = ["fetch", "train", "plot"]
python = "train:publish"
""",
    "data/raw.csv": "item,price\n" + "".join(f"item {at},{at}.5\n" for at in range(60)),
    "train.py": """
def fit(seed, model, depth):
    print("fitting", seed, model)
    return {"score": seed / 10 + depth}

def publish(depth):
    return divide(6, depth - 4)

def divide(rows, by):
    return rows / by
""",
    "plot.py": """
import base64, json, os
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
open("plot.png", "wb").write(base64.b64decode(PNG))
open("picture.svg", "w").write('<svg xmlns="http://www.w3.org/2000/svg" width="6" height="3"></svg>')
cells = [
    {"cell_type": "markdown", "source": ["# Title"]},
    {"cell_type": "code", "source": "1 / 0", "outputs": [
        {"output_type": "stream", "text": "one"},
        {"output_type": "display_data", "data": {"image/png": PNG, "text/plain": "<Figure>"}},
        {"output_type": "error", "traceback": ["\\x1b[31mZeroDivisionError\\x1b[0m: division by zero"]},
    ]},
]
json.dump({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}, open("note.ipynb", "w"))
open("read.md", "w").write("some text\\n")
open(os.environ["RUNNABLE_OUTPUT"], "a").write("accuracy=0.93\\n")
""",
    ".gitignore": ".runnable\n/*.csv\n*.png\n*.svg\n*.ipynb\n*.md\n*.html\n__pycache__\n",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run that succeeded, one that failed, and that one resumed: each with its page."""
    made = workspace(tmp_path_factory.mktemp("report"), FILES)
    made.runnable("run", "--run-id", "good")
    made.write({"train.py": FILES["train.py"] + "\n# not committed\n"})
    made.runnable("run", "--run-id", "bad", "--param", "depth=4", code=1)
    made.runnable("report", "bad", "-o", "bad.html")
    made.write({"train.py": FILES["train.py"].replace("depth - 4", "depth - 5")})
    made.runnable("retry", "bad")
    made.runnable("report", "bad", "-o", "resumed.html")
    made.runnable("report", "good", "-o", "good.html")
    return made


PAGES = ("good", "bad", "resumed")


@pytest.mark.parametrize("page", PAGES)
def test_it_needs_nothing_and_complains_of_nothing(project: Workspace, browser: Browser, page: str) -> None:
    """The file alone is asked for; the console stays empty, also of what the content security policy stops."""
    file = project.folder / f"{page}.html"
    browser.open(file)
    browser.js("for (const it of document.querySelectorAll('details')) it.open = true; scrollTo(0, 1e6)")
    assert browser.complaints() == []
    assert browser.requests() == [file.as_uri()]
    broken = browser.js("return [...document.images].filter((it) => it.loading = 'eager').map((it) => it.decode())")
    assert len(broken) == 3
    widths = browser.js("return [...document.images].map((it) => it.naturalWidth)")
    assert all(widths), widths


def test_what_is_forbidden_would_be_seen(project: Workspace, browser: Browser, tmp_path: Path) -> None:
    """A script and an image of another host that got into the page are stopped, and the console tells."""
    text = (project.folder / "good.html").read_text()
    planted = '<img src="http://127.0.0.1:9/x.png" onerror="canary = 1"><script>canary = 2</script><h2>'
    page = tmp_path / "planted.html"
    page.write_text(text.replace("<h2", planted, 1))
    browser.open(page)
    assert browser.js("return typeof canary") == "undefined"
    assert len([one for one in browser.complaints() if "Content Security Policy" in one]) >= 3
    assert browser.requests() == [page.as_uri(), "http://127.0.0.1:9/x.png"]  # wanted, and stopped


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)], ids=["wide light", "narrow dark"])
@pytest.mark.parametrize("page", PAGES)
def test_everybody_can_use_it(project: Workspace, browser: Browser, page: str, width: int, dark: bool) -> None:
    """The accessibility checker finds nothing, with all details open; the page is as wide as its window."""
    browser.open(project.folder / f"{page}.html", width=width, dark=dark)
    assert browser.accessibility() == []
    assert browser.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert browser.js("return innerWidth") == width
    background = browser.js("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")


def test_the_checker_finds_something(project: Workspace, browser: Browser) -> None:
    """Text that cannot be read and an image that says nothing."""
    browser.open(project.folder / "good.html")
    browser.js("document.body.style.color = '#eee'; document.images[0].removeAttribute('alt')")
    found = " ".join(browser.accessibility())
    assert "color-contrast" in found
    assert "image-alt" in found


def test_a_failed_run_says_first_what_failed(project: Workspace, browser: Browser) -> None:
    """The step, the message, the place, the command; the step is open, and its traceback is the first of it."""
    browser.open(project.folder / "bad.html")
    first = browser.js("return document.querySelector('main section').innerText")
    assert "publish" in first
    assert "ZeroDivisionError" in first
    assert "train.py:10" in first
    assert "runnable-ci retry bad" in first
    (step,) = browser.js("return [...document.querySelectorAll('details.step[open]')].map((it) => it.innerText)")
    assert "publish" in step[:20]
    assert step.index("Traceback") < step.index("COMMAND")


def test_of_many_failures_it_says_how_many_more(browser: Browser, tmp_path: Path) -> None:
    """Ten are shown first and the number of the others, so that all can read it; the steps have all of them."""
    pipeline = '[steps.s]\nrun = "exit $seed"\nstrategy = { fail-fast = false, matrix = { seed = [%s] } }\n'
    made = workspace(tmp_path, {"runnable.toml": pipeline % ", ".join(map(str, range(1, 14)))})
    made.runnable("run", "--run-id", "r", code=1)
    made.runnable("report", "r", "-o", "r.html")
    for dark in (False, True):
        browser.open(made.folder / "r.html", dark=dark)
        first = browser.js("return document.querySelector('main section').innerText")
        assert first.count("exit code") == 10
        assert "… and 3 more failed" in first
        assert len(browser.js("return [...document.querySelectorAll('.step.failed')].map((it) => it.id)")) == 13
        assert browser.accessibility() == []


def test_clicks(project: Workspace, browser: Browser) -> None:
    """A node of the graph opens its step; the filter shows what has the text and the state."""
    browser.open(project.folder / "resumed.html")
    shown = "return [...document.querySelectorAll('.step:not([hidden]) > summary b')].map((it) => it.textContent)"
    assert len(browser.js(shown)) == 10
    node = browser.driver.find_element("css selector", ".graph a[aria-label^='plot']")
    node.click()
    assert browser.js("return document.querySelector('.step[open] summary b').textContent") == "plot"
    assert browser.js("return document.activeElement.parentElement.querySelector('b').textContent") == "plot"
    browser.driver.find_element("id", "find").send_keys("tree")
    assert browser.js(shown) == ["train (1, tree)", "train (2, tree)", "train (3, tree)"]
    assert browser.js("return document.getElementById('count').textContent") == "3 of 10 steps"
    browser.driver.find_element("css selector", "#state option:last-child").click()
    states = browser.js("return [...document.querySelectorAll('.step:not([hidden])')].map((it) => it.dataset.state)")
    assert set(states) <= {"reused"}


def test_the_graph_has_steps_with_branches(browser: Browser, tmp_path: Path) -> None:
    """Instances, rounds and another file's steps are a node, which leads to the first of them."""
    pipeline = """
[parameters]
error = 1.0
[steps.fit]
run = "echo $seed"
strategy = { matrix = { seed = [1, 2] } }
[steps.refine]
run = "echo error=0 > $RUNNABLE_OUTPUT"
returns = ["error"]
loop = { until = "parameters.error < 1", max = 3 }
[steps.part]
uses = "./part.toml"
needs = ["fit", "refine"]
"""
    made = workspace(tmp_path, {"runnable.toml": pipeline, "part.toml": '[steps.clean]\nrun = "true"\n'})
    made.runnable("run", "--run-id", "r")
    made.runnable("report", "r", "-o", "r.html")
    browser.open(made.folder / "r.html")
    nodes = browser.js(
        "return [...document.querySelectorAll('.graph a')].map((it) => [it.textContent.trim(),"
        " document.querySelector(it.getAttribute('href')).querySelector('summary b').textContent])"
    )
    assert [(text.rpartition("✓ ")[2], step) for text, step in nodes] == [
        ("2 of fit", "fit (1)"),
        ("refine, 1 round", "refine (round 1)"),
        ("part", "part / clean"),
    ]


def test_the_keyboard_alone(project: Workspace, browser: Browser) -> None:
    """The first stop skips to the content, all of the page can be reached, and Enter opens a step."""
    browser.open(project.folder / "good.html")
    browser.press(TAB)
    assert browser.js("return document.activeElement.className") == "skip"
    assert browser.js("return document.activeElement.getBoundingClientRect().left") >= 0
    browser.press(ENTER)
    browser.press(TAB)
    assert browser.js("return document.getElementById('main').contains(document.activeElement)")
    browser.open(project.folder / "good.html", hash="#steps")
    for _ in range(30):
        browser.press(TAB)
        if browser.js("return document.activeElement.matches('.step > summary')"):
            break
    before = browser.js("return document.activeElement.parentElement.open")
    browser.press(ENTER)
    assert browser.js("return document.activeElement.parentElement.open") is not before
    outline = browser.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_what_scrolls_can_be_scrolled_by_the_keyboard(project: Workspace, browser: Browser) -> None:
    """Whatever is wider or higher than its place can have the focus, or holds what can."""
    browser.open(project.folder / "bad.html", width=390)
    browser.js("for (const it of document.querySelectorAll('details')) it.open = true")
    stuck = browser.js(
        "return [...document.querySelectorAll('main *, nav *')].filter((it) => {"
        " const style = getComputedStyle(it);"
        " const scrolls = (it.scrollWidth > it.clientWidth + 1 && /auto|scroll/.test(style.overflowX))"
        "   || (it.scrollHeight > it.clientHeight + 1 && /auto|scroll/.test(style.overflowY));"
        " return scrolls && it.clientWidth && it.tabIndex < 0 && !it.querySelector('a[href], [tabindex], button'); })"
        ".map((it) => it.outerHTML.slice(0, 200))"
    )
    assert stuck == []


def test_a_link_to_a_step_opens_it(project: Workspace, browser: Browser) -> None:
    """As from a comment or a chat."""
    browser.open(project.folder / "good.html", hash="#step-1")
    assert browser.js("return document.getElementById('step-1').open")
