"""What a step returns as text: lines `name=value` and blocks, as in GitHub's files. Pure."""

from __future__ import annotations

from runnable_ci.errors import StepError


def parse_output(text: str, *, is_whole: bool = True) -> dict[str, str]:
    """Return name → text of lines `name=value` and blocks `name<<EOF`, as in GitHub's files; a later one wins.

    Raises `StepError` with the line number for anything else. Of a text that is not whole, which a step was stopped
    while it wrote, what can be read is returned.
    """
    found: dict[str, str] = {}
    # Only line feeds end a line: what else Python's `splitlines` takes for an end may stand in a value.
    # A mark of the encoding begins each text that some programs append.
    lines = ((i, line.removesuffix("\r")) for i, line in enumerate(text.split("\n"), start=1))
    for number, line in lines:
        if not line.strip():
            continue
        name, equals, value = line.removeprefix("\ufeff").partition("=")
        if "\0" in name and is_whole:
            raise StepError(f"line {number} has a NUL character in the name; is it UTF-16?")
        block, heredoc, delimiter = line.removeprefix("\ufeff").partition("<<")
        if heredoc and delimiter and len(block) < len(name):
            body: list[str] = []
            for _, inner in lines:
                if inner == delimiter:
                    break
                body.append(inner)
            else:
                if not is_whole:
                    break
                raise StepError(f"line {number}: the block of `{block}` has no end `{delimiter}`")
            found[block.strip()] = "\n".join(body)
        elif equals and name.strip():
            found[name.strip()] = value
        elif is_whole:
            raise StepError(f"line {number}: expected `name=value` or `name<<EOF`, got `{line[:100]}`")
    return found
