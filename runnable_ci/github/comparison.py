"""A comparison of two runs in GitHub's Markdown, for a summary or a comment. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from runnable_ci.analysis.comparison.blocks import Block, blocks, facts_line, headlines, same_line
from runnable_ci.analysis.comparison.condition import Judgement
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.comparison.requested import Requested
from runnable_ci.analysis.comparison.text import content_lines
from runnable_ci.github.markdown import code, code_cell, escaped, escaped_cell, fence, table

_RIGHT = frozenset({"A", "B", "CHANGE"})


def markdown(found: RunComparison, judgements: Sequence[Judgement] = (), contents: Sequence[Requested] = ()) -> str:
    """Return a comparison, what matters most first; nothing that the runs hold is taken for Markdown."""
    runs = table(("", "Run"), [("A", escaped_cell(facts_line(found.a))), ("B", escaped_cell(facts_line(found.b)))])
    judged = [f"{'❌' if one.fails else '✅'} {code(one.condition)} {escaped(one.reason)}" for one in judgements]
    parts = [
        runs,
        *_headlines(found),
        *judged,
        *map(_block, blocks(found)),
        escaped(same_line(found)),
        *map(_content, contents),
    ]
    return "\n\n".join(parts) + "\n"


def _headlines(found: RunComparison) -> list[str]:
    first, *others = headlines(found)
    return [f"**{escaped(first)}**", *map(escaped, others)]


def _block(block: Block) -> str:
    numbers = block.title in ("metrics", "durations")
    head = [
        f"{word.capitalize() if len(word) > 1 else word}{':' if numbers and word in _RIGHT else ''}"
        for word in block.head
    ]
    rows = [[code_cell(cell) or " " for cell in row] for row in block.rows]
    more = f"\n\n… and {block.left_out} more" if block.left_out else ""
    return table(head, rows) + more


def _content(one: Requested) -> str:
    first, *lines = content_lines(one)
    body = fence("\n".join(line.removeprefix("  ") for line in lines), "diff") if lines else ""
    return f"{escaped(first)}\n\n{body}".rstrip()
