"""The reference pages are what the command line and the models generate."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
assert _spec and _spec.loader
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("name", generate.pages())
def test_a_generated_file_is_up_to_date(name: str) -> None:
    """`python docs/generate.py` would change nothing."""
    assert (DOCS / name).read_text(encoding="utf-8") == generate.pages()[name]
