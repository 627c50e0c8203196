"""A comparison for a terminal, as plain aligned text. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from runnable_ci.analysis.comparison.blocks import blocks, facts_line, headlines, same_line
from runnable_ci.analysis.comparison.model import RunComparison
from runnable_ci.analysis.comparison.requested import Requested
from runnable_ci.analysis.comparison.wording import shown
from runnable_ci.util.text import printable, table


def lines_of(found: RunComparison) -> Iterator[str]:
    """Yield the lines of a comparison, what matters most first."""
    yield f"A  {printable(facts_line(found.a))}"
    yield f"B  {printable(facts_line(found.b))}"
    yield ""
    yield from map(printable, headlines(found))
    for block in blocks(found):
        yield ""
        yield from table(block.head, block.rows)
        if block.left_out:
            yield f"… and {block.left_out} more; --json has all"
    yield ""
    yield same_line(found)


def content_lines(one: Requested) -> Iterator[str]:
    """Yield how a file, or what a step printed, differs."""
    yield printable(f"{one.name}: {one.said or content_summary(one)}")
    if one.content is None:
        return
    yield from (f"  {printable(note)}" for note in one.content.notes)
    if one.content.places:
        rows = [(where, *_sides(then, now)) for where, then, now in one.content.places]
        yield from (f"  {line}" for line in table(("WHERE", "A", "B"), rows))
        if one.content.form != "image" and (more := one.content.different - len(rows)) > 0:
            yield f"  … and {more} more"
    yield from (f"  {printable(line)}" for line in one.content.lines)


def content_summary(one: Requested) -> str:
    """Return how much of a file differs, in a few words."""
    content = one.content
    if content is None:
        return one.said
    what = {"text": "lines", "image": "pixels"}.get(content.form, "values")
    if content.form == "bytes":
        return "differs"
    if content.form == "text":
        return f"{content.different} lines added or removed"
    if not content.different and not content.is_same:
        return f"differs, though none of the {content.compared} {what} in both does" if content.compared else "differs"
    parts = [f"{content.different} of {content.compared} {what} differ"]
    if content.largest:
        relative = f" ({content.largest_relative:.2%})" if content.largest_relative else ""
        parts.append(f"the largest change is {content.largest:.6g}{relative}")
    if content.near:
        parts.append(f"{content.near} of them within the tolerance")
    return ", ".join(parts)


def _sides(then: object, now: object) -> tuple[str, str]:
    return ("", "") if then is None and now is None else (shown(then), shown(now))
