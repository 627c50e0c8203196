"""Tests of where the keys of a TOML text are written, and of the lines that errors show."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.diagnostics.place import excerpt
from runnable_ci.pipeline.diagnostics.positions import Span, key_spans
from runnable_ci.pipeline.diagnostics.syntax import syntax_error
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.schema import Place

DOCUMENT = '''# no key = "of the file"
name = "iris"  # [not.a.table]
"a key" . 'with [dots]'.x = 1979-05-27 07:32:00
text = """
[no.table]
no = 1
"""
literal = \'\'\'
key = 2\'\'\'\'
numbers = [
  1, # one
  [2, {x = 3, "y z" = { a = "}" }}],
  "]",
]
[steps.a]
run = "echo \\"needs = [\\""
catalog = { get = ["a.csv", "b.csv"], put = [] }
[[table]]
[table.below]
x = 1
[[table]]
below.x = 2
'''


def paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Each key and each item of a list, by what leads to it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, str(key))
        yield from paths(inner, (*above, str(key)))


def test_each_form_of_a_key() -> None:
    """Tables, lists of tables, dotted and quoted keys, inline tables and lists: each is found, and nothing else."""
    spans = key_spans(DOCUMENT)
    assert set(spans) == set(paths(tomllib.loads(DOCUMENT)))
    assert spans["steps", "a", "catalog", "get", "1"] == Span(17, 28, 35)
    assert spans["numbers", "1", "1", "y z", "a"].line == 12
    assert spans["table", "0", "below", "x"].line == 20
    assert (spans["table", "1"].line, spans["table", "1", "below", "x"].line) == (21, 22)


KEYS = st.text(alphabet="ab-_1.\"' #[]=é", min_size=1, max_size=5)
VALUES = st.recursive(
    st.none().map(lambda _: "x")
    | st.booleans()
    | st.integers(-9, 99)
    | st.floats(allow_nan=False)
    | st.dates()
    | st.text(alphabet="a\"'\\#[]{},=\n ", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4), st.booleans())
def test_what_a_writer_writes(table: dict[str, Any], multiline: bool) -> None:
    """Whatever is written as TOML, the keys are those that `tomllib` reads, each at its own text."""
    text = tomli_w.dumps(table, multiline_strings=multiline)
    spans = key_spans(text)
    parsed = tomllib.loads(text)
    assert set(spans) == set(paths(parsed))
    lines = text.split("\n")
    for path, span in spans.items():
        written = lines[span.line - 1][span.start : span.end]
        holder = parsed
        for key in path[:-1]:
            holder = holder[int(key)] if isinstance(holder, list) else holder[key]
        if isinstance(holder, dict):
            assert tomllib.loads(f"{written} = 1") == {path[-1]: 1}


@given(st.text(max_size=40) | st.text(alphabet="[]{}=.'\"\n steprunable1#-,", max_size=40))
def test_any_text(text: str) -> None:
    """Of a text that is no TOML there may be less, but no error."""
    spans = key_spans(text)
    assert all(1 <= span.line <= text.count("\n") + 1 and span.start < span.end for span in spans.values())


def test_an_error_shows_its_line() -> None:
    """The message has the line, the excerpt the text with a mark below; the table's where the key is not there."""
    text = "name = 'a'\n[steps.b]\n  needs = 3 # why\n"
    error = Place("p.toml", "", text).error("steps.b", "needs: wrong", "hint", key="needs")
    assert error.lines() == [
        "error: p.toml:3: [steps.b] needs: wrong",
        "  3 |   needs = 3 # why",
        "    |   ^^^^^",
        "hint: hint",
    ]
    assert Place("p.toml", "", text).error("steps.b", "no run").line == 2
    assert Place("p.toml", "", text).error("env", "wrong").lines() == ["error: p.toml: [env] wrong"]


def test_an_excerpt_of_a_long_line() -> None:
    """Of a long line what is around the mark is shown, and nothing that moves a cursor."""
    line, mark = excerpt("x" * 500 + "key\x1b[2J" + "y" * 500, Span(7, 500, 503))
    assert line.startswith("  7 | …xxx")
    assert line.endswith("yyy…")
    assert "\x1b" not in line
    assert line[mark.index("^") : mark.rindex("^") + 1] == "key"


@pytest.mark.parametrize(
    "text",
    [
        '[steps.a]\nrun = "x"\nenv = { TOKEN = "hunter2-hunter2", N = 1 }',
        '[steps.a]\nrun = "x"\n[steps.a.env]\nTOKEN = ["hunter2-hunter2"]',
        'env = { TOKEN = "hunter2-hunter2", "A=B" = "x" }\n[steps.a]\nrun = "x"',
        '[parameters]\npassword = ["hunter2-hunter2", 2026-01-01]\n[steps.a]\nrun = "x"',
        'secrets = ["hunter2-hunter2!"]\n[steps.a]\nrun = "x"',
        'secrets = "hunter2-hunter2!"\n[steps.a]\nrun = "x"',
        '[parameters]\npassword = hunter2-hunter2\n[steps.a]\nrun = "x"',
        'secrets = [\n  hunter2-hunter2,\n]\n[steps.a]\nrun = "x"',
        '[env]\nAPI_TOKEN: hunter2-hunter2\nB = "hunter2-hunter2',
    ],
)
def test_no_excerpt_shows_a_secret(text: str) -> None:
    """What may be one is left out of the lines that are shown."""
    with pytest.raises(PipelineError) as caught:
        try:
            table = tomllib.loads(text)
        except ValueError as e:
            raise syntax_error(text, "p.toml", str(e)) from e
        resolve(table, file="p.toml", default_name="p", text=text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.line > 0


SYNTAX = {
    "text without quotes": ("name = iris\n", 1, 'name = "iris"'),
    "Python's True": ("[steps.a]\ncontinue-on-error = True\n", 2, "write continue-on-error = true"),
    "a quote that is not closed": ('[steps.a]\nrun = "make\n', 2, 'run = """…"""'),
    "a single quote that is not closed": ("[steps.a]\nrun = 'make\n", 2, 'run = """…"""'),
    "YAML's colon": ("name: iris\n", 1, "name = iris"),
    "a bracket that is not closed": ("[steps.a\nrun = 'x'\n", 1, "[steps.a]"),
    "a table twice": ("[steps.a]\nrun = 'x'\n\n[steps.a]\nrun = 'y'\n", 4, "first in line 1"),
    "a key twice": ("[steps.b]\n[steps.a]\nrun = 'x'\nrun = 'y'\n", 4, "first in line 3"),
    "a list of words": ("[steps.a]\nneeds = [load, 3, fit-2]\n", 2, 'needs = ["load", 3, "fit-2"]'),
    "text of several lines that has no end": ('[steps.a]\nrun = """\nmake\n', 3, "begins in line 2 has no end"),
    "a name with a blank": ("[steps.a b]\nrun = 'x'\n", 1, "letters, digits"),
    "a name with an accent": ("[steps.é]\nrun = 'x'\n", 1, "letters, digits"),
    "a path of Windows": ('[steps.a]\nrun = "C:\\data"\n', 2, "use single quotes"),
    "JSON": ('{"steps": {}}\n', 1, "this is JSON"),
    "a value that is missing": ("[steps.a]\nrun =\n", 2, 'run = "…"'),
    "a list that is not closed": ("[steps.a]\nneeds = ['b'\n", 2, "https://toml.io"),
}


@pytest.mark.parametrize(("text", "line", "hint"), SYNTAX.values(), ids=SYNTAX)
def test_syntax_that_is_not_toml(text: str, line: int, hint: str) -> None:
    """The line is shown, and how it would be written."""
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    error = syntax_error(text, "p.toml", str(caught.value))
    assert error.line == line
    assert error.message.startswith(f"p.toml:{line} is not TOML: ")
    assert error.excerpt[0].startswith(f"  {line} | {text.splitlines()[line - 1]}")
    assert hint in error.hint, json.dumps(error.hint)
