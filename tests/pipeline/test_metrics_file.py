"""Tests of metrics in files: which numbers are taken, and what is no metrics file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runnable_ci.errors import StepError
from runnable_ci.pipeline.values.metrics_file import read_metrics_file

FILES: dict[str, tuple[str, str, Any, list[str]]] = {
    "JSON": ("m.json", '{"acc": 0.9, "n": 3, "deep": {"f1": 1.0}}', {"acc": 0.9, "n": 3, "deep": {"f1": 1.0}}, []),
    "what JSON lacks": ("m.json", '{"a": NaN, "b": -Infinity}', {"a": "NaN", "b": "-Infinity"}, []),
    "no numbers": (
        "m.json",
        '{"a": 1, "b": "rf", "c": {"d": [1], "e": true}, "f": null}',
        {"a": 1},
        list("b"),
    ),
    "a number alone": ("m.json", "0.5", 0.5, []),
    "YAML": ("m.yaml", "auc: .5\nloss: .nan\nbest: -.inf\n", {"auc": 0.5, "loss": "NaN", "best": "-Infinity"}, []),
    "TOML": ("m.toml", "[a]\nb = 1\nc = inf\n", {"a": {"b": 1, "c": "Infinity"}}, []),
}
FILES["no numbers"] = (*FILES["no numbers"][:3], ["b", "c.d", "c.e", "f"])


@pytest.mark.parametrize(("name", "text", "numbers", "left_out"), FILES.values(), ids=FILES)
def test_numbers(tmp_path: Path, name: str, text: str, numbers: Any, left_out: list[str]) -> None:
    """Numbers are taken at any depth, what is none is named."""
    (tmp_path / name).write_text(text)
    assert read_metrics_file(tmp_path / name, name) == (numbers, left_out)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", b"{", "the metrics in m.json cannot be read: "),
        ("m.json", b'{"a": "x"}', "m.json has no number"),
        ("m.json", b"[1, 2]", "m.json has no number"),
        ("m.yaml", b"a: 1\nb: [", "the metrics in m.yaml cannot be read: line 2: "),
        ("m.yaml", b"a: 1\n\xff", "the metrics in m.yaml cannot be read: line 2 is not UTF-8 text"),
        ("m.toml", b"a", "the metrics in m.toml cannot be read: "),
        ("m.json", b" " * (1 << 24) + b"1", "m.json is larger than 16 MiB"),
    ],
    ids=range(7),
)
def test_mistakes(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A file that cannot be read, or has no number, fails the step that made it."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StepError) as caught:
        read_metrics_file(tmp_path / name, name)
    assert caught.value.message.startswith(message)
