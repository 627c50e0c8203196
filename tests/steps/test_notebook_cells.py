"""Tests of what a notebook's text tells: its code, the parameters that it takes, and when its code has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from notebooks import code, notebook, text

from runnable_ci.errors import StepError
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.step import Step
from runnable_ci.steps.notebook.cells import as_python, parse
from runnable_ci.steps.notebook.notebook_step import digest_of, notebook_of
from runnable_ci.steps.notebook.positions import line_of
from runnable_ci.steps.reach import reach_digest


def step(**more: object) -> Step:
    """A notebook step."""
    return resolve({"steps": {"a": {"notebook": "n.ipynb", **more}}}, file="f", default_name="n").steps["a"]


def digest(folder: Path, content: str) -> str:
    """The digest of a notebook's code."""
    (folder / "n.ipynb").write_text(content)
    return digest_of(step(), folder)


@pytest.mark.parametrize(
    ("cells", "taken"),
    [
        (["df = df.dropna()\nprint(df, alpha)"], {"df", "alpha"}),
        (["alpha = 1\nprint(alpha)"], set()),
        (["alpha += 1"], {"alpha"}),
        (["for i in range(n):\n    total = i * rate"], {"n", "rate"}),
        (["def f(x):\n    return x + late\nlate = 1", "f(depth)"], {"depth"}),
        (["def f(x):\n    return x + never"], {"never"}),
        (["[a * k for a in items]"], {"k", "items"}),
        (["{a: [b for b in a] for a in items if (c := a)}", "a, b, c"], {"items", "a", "b"}),
        (["class A:\n    size = width\n    def area(self):\n        return self.size * height"], {"width", "height"}),
        (["with open(path) as file:\n    rows = file.read()"], {"path"}),
        (["import os, sys as s\nfrom m import a\nos, s, a, url"], {"url"}),
        (["%matplotlib inline\nfiles = !ls {folder}\n!cat $name\nlen?\nprint(id, x)"], {"folder", "name", "x"}),
        (["%%bash\necho {word}"], {"word"}),
        (["%%time\nfit(model)"], {"fit", "model"}),
        (["await task(queue)"], {"task", "queue"}),
        (["print(alpha", "print(beta)"], {"alpha", "beta"}),
        (["lines = 'a\\n%b'\nx = (seven\n  % three)"], {"seven", "three"}),
        ([], set()),
    ],
)
def test_parameters_by_use(cells: list[str], taken: set[str]) -> None:
    """Without a tagged cell a notebook takes what its code uses before it has set it."""
    assert set(parse(notebook(*cells)).names()) - {"print"} == taken


def test_parameters_of_the_tagged_cell() -> None:
    """A cell tagged `parameters` says which are replaced; what nothing sets is taken too."""
    found = parse(
        notebook(
            text("# Alpha"),
            code("import os\nalpha: float = [i for i in (0.1,)][0]\nname = os.sep", "parameters"),
            "print(alpha, model)",
        )
    )
    assert found.parameters == ("alpha", "name")
    assert found.names() == ("alpha", "name", "model")
    assert [cell.number for cell in found.cells] == [2, 3]


def test_injected_parameters_are_no_code() -> None:
    """What papermill has injected into a notebook that was saved again is replaced, and no code of it."""
    cells = [code("alpha = 1", "parameters"), code("alpha = 7", "injected-parameters"), code("alpha")]
    assert [cell.source for cell in parse(notebook(*cells)).cells] == ["alpha = 1", "alpha"]


def test_format_3() -> None:
    """A notebook of format 3 has its cells in worksheets, and their sources as `input`."""
    cells = [{"cell_type": "code", "input": ["x = y\n", "z"], "language": "python", "outputs": [], "metadata": {}}]
    document = {"metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [{"cells": cells}]}
    assert parse(json.dumps(document)).names() == ("y", "z")


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("x = 1  # %time", "x = 1  # %time"),
        ("if a:\n    !ls\n", "if a:\n    ('!ls',)"),
        ("y = %sql select {a}", "y = ('%sql select {a}', a,)"),
        ("%%html\n<b>", "('%%html\\n<b>',)"),
        ("def f(:", "def f(:"),
    ],
)
def test_ipython_as_python(source: str, plain: str) -> None:
    """What only IPython understands is read as text; what nobody does stays as it is."""
    assert as_python(source) == plain


PIECES = [
    "%",
    "!",
    "x",
    "= ",
    "\n",
    "    ",
    "def f(",
    "):",
    "'",
    '"',
    "?",
    "%%bash\n",
    "{y}",
    "$z",
    "\\",
    "\0",
    "\x0c",
    "\ud800",
]
PIECES += [
    "(",
    ")",
    "await ",
    "return ",
    "from a import *",
    "class A:",
    "nonlocal x",
    "f'{a}'",
    ":=",
    "#",
    "\r\n",
    "match x:",
]


@settings(max_examples=300)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=3))
def test_any_cells_can_be_read(cells: list[str]) -> None:
    """Whatever a cell holds, a digest and names come out of it."""
    found = parse(notebook(*(code(cell, "parameters") for cell in cells)))
    assert set(found.parameters or ()) <= set(found.names())
    assert reach_digest("", {"n": found.code().encode(errors="surrogatepass")})


def test_saving_is_no_change(tmp_path: Path) -> None:
    """Outputs, counts, metadata, Markdown, comments and empty cells are not the code of a notebook."""
    before = digest(tmp_path, notebook(text("# A"), code("x = f(1)\ndef f(a):\n    return a"), "y = 2"))
    output = {"name": "stdout", "output_type": "stream", "text": ["1\n"]}
    ran = code("x = f(1)\ndef f(a):  # a comment\n    return a\n", execution_count=7, outputs=[output], collapsed=True)
    saved = notebook(ran, text("# Another title"), "", "y = 2", code("# nothing"), language_info={"name": "python"})
    assert digest(tmp_path, saved) == before
    assert digest(tmp_path, json.dumps(json.loads(saved))) == before


@pytest.mark.parametrize(
    "cells", [["x = 2"], ["x = 1", "y"], ["!ls"], ["x = 1", "%%bash\nls"], ["x  =  (1"], ["x = 1\nprint(x)"]]
)
def test_a_cell_is_a_change(tmp_path: Path, cells: list[str]) -> None:
    """Editing a code cell, or adding one, is a change of the code."""
    assert digest(tmp_path, notebook("x = 1")) != digest(tmp_path, notebook(*cells))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not a notebook: Expecting value"),
        (b"[]", "it has no `nbformat`"),
        (b'{"nbformat": 2}', "its `nbformat` is 2, not 3 or 4"),
        (b'{"nbformat": 4, "cells": [1]}', "its cells are not a list of objects"),
        (b'{"nbformat": 4, "cells": []}', "it has no `metadata`"),
        (b'{"nbformat": 4, "cells": 5}', "is not a notebook"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "raw", "metadata": {}}, {}]}', "cell 2 has no `cell_type`"),
        (b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "cell 1 has no `metadata`"),
        (b'{"nbformat": 4, "cells": ["\xff"]}', "it is not UTF-8"),
        (notebook("x", kernelspec={"language": "R", "name": "ir"}).encode(), "is written in r, not in Python"),
        (None, "there is no n.ipynb"),
    ],
)
def test_no_notebook(tmp_path: Path, content: bytes | None, problem: str) -> None:
    """A file that cannot be executed is refused with what is wrong with it."""
    if content is not None:
        (tmp_path / "n.ipynb").write_bytes(content)
    with pytest.raises(StepError) as raised:
        notebook_of(step(), tmp_path)
    assert problem in raised.value.message


def test_another_language(tmp_path: Path) -> None:
    """A notebook of another language is executed by the kernel that the step names."""
    (tmp_path / "n.ipynb").write_text(notebook("x <- 1", kernelspec={"language": "R", "name": "ir"}))
    assert notebook_of(step(kernel="ir"), tmp_path).language == "r"


def test_a_line_of_a_cell(tmp_path: Path) -> None:
    """The line of a cell is found in the file, however that is laid out; 0 where it has no such cell."""
    file = tmp_path / "n.ipynb"
    content = notebook(text("y = 1"), code('x = "\\n"\ny = 1\nz'), "y = 1")
    file.write_text(content)
    lines = content.splitlines()
    assert [lines[line_of(file, 2, line) - 1].strip(' ",') for line in (1, 2, 3)] == [
        'x = \\"\\\\n\\"\\n',
        "y = 1\\n",
        "z",
    ]
    assert line_of(file, 2, 0) == line_of(file, 2, 1)
    assert line_of(file, 3, 1) > line_of(file, 2, 3)
    file.write_text(json.dumps(json.loads(content)))
    assert line_of(file, 3, 1) == 1
    assert line_of(file, 4, 1) == 0
    file.write_text("{")
    assert line_of(file, 1, 1) == 0
