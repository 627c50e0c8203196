"""Tests of what instances put, compared before anything runs."""

from __future__ import annotations

import tomllib

import pytest

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.resolve import resolve

TWO = """
[steps.each]
needs = []
strategy = {{ matrix = {matrix} }}
run = "x"
catalog = {{ put = ["{path}"] }}
[steps.other]
needs = []
run = "x"
catalog = {{ put = ["{other}"] }}
"""
FILE = "${{ matrix.file }}"


def pipeline(matrix: str, path: str, other: str) -> None:
    """Resolve a step with a matrix, and one that may run at the same time."""
    text = TWO.format(matrix=matrix, path=path, other=other)
    resolve(tomllib.loads(text), file="p.toml", default_name="p", text=text)


@pytest.mark.parametrize(
    ("matrix", "path", "other"),
    [
        ('{ file = ["a.txt", "d/b.txt"] }', FILE, "c.txt"),
        ('{ file = ["a.txt"] }', FILE, "d/a.txt"),
        ('{ include = [{ file = "a" }, { file = "b" }] }', FILE, "c"),
        ('{ n = [1, 2], file = ["a"] }', "${{ matrix.n }}" + FILE, "3a"),
        ('{ file = ["[a]", "b*"] }', FILE, "a"),
        ('{ file = ["a", "b"], exclude = [{ file = "b" }] }', FILE, "b"),
        ("{ file = [1.5, true] }", FILE, "1"),
    ],
)
def test_instances_that_are_known_put_their_own_paths(matrix: str, path: str, other: str) -> None:
    """Beside them, others may put what none of them does."""
    pipeline(matrix, path, other)


@pytest.mark.parametrize(
    ("matrix", "path", "other"),
    [
        ('{ file = ["a.txt", "d/b.txt"] }', FILE, "d/*"),
        ('{ file = ["a", "b*"] }', FILE, "b*"),
        ('{ file = "${{ parameters.files }}" }', FILE, "a"),
        (f"{{ file = [{', '.join(map(str, range(101)))}] }}", FILE, "200"),
        ('{ file = ["a"] }', FILE + "/${{ parameters.x }}", "a/b"),
        ("{ file = [1, true] }", FILE, "true"),
    ],
)
def test_what_may_be_the_same_file_is_refused(matrix: str, path: str, other: str) -> None:
    """Of a value that is known the same path, of one that is not any."""
    with pytest.raises(PipelineError, match="can match the same file"):
        pipeline(matrix, path, other)
