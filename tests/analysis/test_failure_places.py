"""The place of a failure is the innermost line of the project's own code, whichever way a language lists its calls."""

from __future__ import annotations

import pytest

from runnable_ci.analysis.explanation.places import error_in, place_in

PYTHON = """Traceback (most recent call last):
  File "main.py", line 9, in <module>
    load("jp")
  File "load.py", line 3, in load
    return known[name]
           ~~~~~^^^^^^
  File "/usr/lib/python3.11/other.py", line 1, in get
KeyError: 'jp'
"""
NODE = """/work/agg.js:3
    throw new Error("boom");
    ^

Error: boom
    at other (node:internal/x:1:1)
    at inner (/work/agg.js:3:9)
    at /work/agg.js:7:30
    at Object.<anonymous> (file:///work/agg.js:4:1)
    at node:internal/main:1:1

Node.js v20.0.0
"""
OUTPUTS = {
    "python": (PYTHON, ("load.py", 3)),
    "the last of two": (
        f"{PYTHON}\nDuring handling, another one:\n\n{PYTHON.replace('3, in', '5, in')}",
        ("load.py", 5),
    ),
    "python without a head": ('  File "main.py", line 2\n    x = = 1\n        ^\nSyntaxError: invalid', ("main.py", 2)),
    "node": (NODE, ("/work/agg.js", 3)),
    "node twice": (f"{NODE}{NODE.replace('agg.js:3', 'agg.js:5')}", ("/work/agg.js", 5)),
    "a module of node": ("Error: x\n    at file:///work/a.mjs:3:9\n    at file:///work/a.mjs:8:1", ("/work/a.mjs", 3)),
    "ruby": ("a.rb:3:in `f': x (Err)\n\tfrom a.rb:7:in `g'\n\tfrom a.rb:9:in `<main>'", ("a.rb", 3)),
    "java": ("Error: x\n\tat a.B.f(B.java:4)\n\tat a.B.main(B.java:9)", ("B.java", 4)),
    "go": ("main.f(...)\n\t/p/a.go:4\nmain.main()\n\t/p/a.go:8 +0x1d\nexit status 2", ("/p/a.go", 4)),
    "perl": ("no x at prep.pl line 5.", ("prep.pl", 5)),
    "perl with a file open": ("no x at prep.pl line 5, <$in> line 3.", ("prep.pl", 5)),
    "perl's syntax": ('syntax error at prep.pl line 6, near "x y"', ("prep.pl", 6)),
    "perl's calls": ("no x at a.pl line 5.\n\tmain::f(1) called at a.pl line 9", ("a.pl", 5)),
    "two warnings": ("odd at a.pl line 5.\nno x at a.pl line 9.", ("a.pl", 9)),
    "nothing": ("it was 3: no more", None),
}


@pytest.mark.parametrize(("output", "place"), OUTPUTS.values(), ids=OUTPUTS)
def test_the_innermost_own_place(output: str, place: tuple[str, int] | None) -> None:
    """Of the last calls that are named."""
    assert place_in(output, lambda file: "" if "lib" in file or "node:" in file else file) == place


def test_what_was_raised() -> None:
    """The last line of the last traceback, whatever is printed behind it."""
    assert error_in(f"{PYTHON}and more\n") == "KeyError: 'jp'"
    assert error_in('  File "main.py", line 2\n    x = = 1\n\nSyntaxError: invalid') == ""
    assert (
        error_in('  File "main.py", line 2\n    x = = 1\nSyntaxError: invalid syntax') == "SyntaxError: invalid syntax"
    )
    assert error_in('Traceback:\n  File "main.py", line 2, in f\n    assert x\nAssertionError') == "AssertionError"
    assert error_in('Traceback:\n  File "main.py", line 2, in f\nx.y.Error: a\nmore') == "x.y.Error: a"
    assert error_in(NODE) == ""
