"""Tests of files of other tools that are damaged: each is imported, or refused in one error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_import_dvc import CHAIN
from test_import_snakefile import LINEAR, WILDCARDS

from runnable_ci.cli.importers.dvc import import_dvc
from runnable_ci.cli.importers.imported import ImportedPipeline
from runnable_ci.cli.importers.snakemake import import_snakefile
from runnable_ci.errors import UsageError

FILES = {"config.yaml": "word: x\n", "settings.yaml": "i: 1\n", "params.yaml": "loops: {count: 2}\n", "data/a.fq": ""}


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """A text with lines taken out or exchanged, characters replaced, or its end missing."""
    lines = text.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 2))):
        one, other = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
        lines[one], lines[other] = lines[other], draw(st.sampled_from([lines[one], ""]))
    changed = "".join(lines)
    place = draw(st.integers(0, len(changed)))
    added: str = draw(st.sampled_from(["", *"{}[]()'\":,\\$\0\t \n-#"]))
    rest: str = draw(st.sampled_from([changed[place:], changed[place + 1 :], ""]))
    return changed[:place] + added + rest


@pytest.mark.parametrize(
    ("text", "name", "read"),
    [
        (LINEAR, "Snakefile", import_snakefile),
        (WILDCARDS, "Snakefile", import_snakefile),
        (CHAIN, "dvc.yaml", import_dvc),
    ],
    ids=["rules", "wildcards", "stages"],
)
def test_a_damaged_file(tmp_path: Path, text: str, name: str, read: Callable[[Path], ImportedPipeline]) -> None:
    """Nothing that it can become ends in a traceback, and what is imported can be written."""
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)

    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
    @given(damaged(text))
    def check(written: str) -> None:
        (tmp_path / name).write_text(written)
        try:
            assert read(tmp_path / name).text("init")
        except UsageError as e:
            assert str(tmp_path) in e.message

    check()
