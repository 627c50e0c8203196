"""Tests of the executed notebook as it is kept: without secrets, equal where its outputs are equal."""

from __future__ import annotations

import json
from typing import Any

from notebooks import code, notebook

from runnable_ci.steps.notebook.executed import comparable


def kept(*outputs: dict[str, Any], hidden: str = "-", **more: Any) -> list[dict[str, Any]]:
    """The outputs of a cell as they are kept."""
    document = json.loads(notebook(code("f()", outputs=list(outputs), **more)))
    [cell] = comparable(document, lambda text: text.replace(hidden, "***"))["cells"]
    found: list[dict[str, Any]] = cell["outputs"]
    return found


def stream(name: str, content: str) -> dict[str, Any]:
    """What was written to a stream, in one piece."""
    return {"name": name, "output_type": "stream", "text": content}


def shown(**data: Any) -> dict[str, Any]:
    """What a cell displays."""
    return {"data": {kind.replace("_", "/", 1): it for kind, it in data.items()}, "output_type": "display_data"}


def test_streams_are_whole() -> None:
    """However its pieces came, what was written between two displays is one text for each stream."""
    one = kept(stream("stdout", "a"), stream("stderr", "x\n"), stream("stdout", "b\n"), shown(text_plain="p"))
    other = kept(stream("stderr", "x\n"), stream("stdout", "ab\n"), shown(text_plain=["p"]))
    assert one == other
    assert [output.get("text") for output in one] == [["ab\n"], ["x\n"], None]


def test_a_huge_stream_is_cut() -> None:
    """Of a stream the first 8 MiB are kept, and how much more there was."""
    [found] = kept(stream("stdout", "x" * (8 * 1024 * 1024 + 5)))
    assert found["text"][-1] == "… and 5 more characters, in the step's log\n"


def test_what_differs_each_time() -> None:
    """Names of temporary files, addresses and colours are not in it, nor times."""
    warned = stream("stderr", "/var/x-1/ipykernel_4711/123.py:1: UserWarning: old\n")
    error = {
        "output_type": "error",
        "ename": "E",
        "evalue": "",
        "traceback": ["\x1b[0;31mE\x1b[0m at <f at 0x7f3a2b1c>"],
    }
    figure = shown(text_plain="<Figure at 0x7f3a2b1c>", image_png="iVBOR 0x7f3a2b1c>\n")
    times = {"tags": ["a"], "execution": {"iopub.status.busy": "2026-01-01T00:00:00Z"}}
    found = kept(warned, error, figure, metadata=times)
    assert found[0]["text"] == ["123.py:1: UserWarning: old\n"]
    assert found[1]["traceback"] == ["E at <f at 0x…>"]
    assert found[2]["data"] == {"text/plain": ["<Figure at 0x…>"], "image/png": ["iVBOR 0x7f3a2b1c>\n"]}
    assert "2026" not in json.dumps(comparable(json.loads(notebook(code("", metadata=times))), str))


def test_widgets_are_not_kept() -> None:
    """The view of a widget has an id drawn by lot, and shows nothing without its kernel."""
    widget = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "5f"}}}
    widget["data"]["text/plain"] = "0it"  # type: ignore[index]
    assert kept(widget)[0]["data"] == {"text/plain": ["0it"]}


def test_secrets_of_several_lines() -> None:
    """A secret is found in every text, also where the file has it in lines, and in keys."""
    secret = "BEGIN\nEND"
    found = kept(
        {"output_type": "stream", "name": "stdout", "text": ["BEGIN\n", "END\n"]},
        {
            "output_type": "display_data",
            "data": {"text/html": ["<b>BEGIN\n", "END"], "application/json": {secret: [secret]}},
        },
        {"output_type": "error", "ename": secret, "evalue": secret, "traceback": ["BEGIN", "END"]},
        hidden=secret,
    )
    assert "BEGIN" not in json.dumps(found)
    assert json.dumps(found).count("***") == 7
