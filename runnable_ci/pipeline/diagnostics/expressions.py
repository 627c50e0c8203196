"""GitHub's `${{ … }}` in a script, where nothing replaces it, and what to write in its place. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from runnable_ci.pipeline.step import Step

_EXPRESSION: Final = re.compile(r"\$\{\{\s*(?P<inner>[^{}\n]*?)\s*\}\}")
_NAME: Final = re.compile(
    r"(?P<context>parameters|params|inputs|env|vars|secrets|github|matrix|steps|needs|outputs)"
    r"(?:\.[\w-]+\.outputs)?\.(?P<name>[A-Za-z_]\w*)(?:\.\w+)*"
)


_LOOKED_UP: Final = re.compile(r"[!(]*(parameters|params|inputs|matrix|steps|needs|outputs)\b\s*[.\[]")
"""A value of the pipeline."""


class ScriptExpression(NamedTuple):
    """An expression in a step's script."""

    text: str
    variable: str
    """The name of the variable that has the value; empty where the expression is more than a name."""
    shell: str
    is_fatal: bool
    """Whether the shell can only fail on it: it is a value of the pipeline, in no quotes that leave it as it is."""

    def __str__(self) -> str:
        """Say what is wrong, and what is right."""
        return f"run: `{self.text}` is not replaced in a script: {self.right_form()}"

    def right_form(self) -> str:
        """Return what to write in place of the expression."""
        if not self.variable:
            return "parameters are variables of the script, such as $depth; of any other value `with` makes one"
        forms = {"python": f'os.environ["{self.variable}"]', "pwsh": f"$env:{self.variable}"}
        return f"write {forms.get(self.shell, f'${self.variable}')}"


def expressions(step: Step) -> Iterator[ScriptExpression]:
    """Yield the expressions in a step's script."""
    if step.kind != "run":
        return
    for found in _EXPRESSION.finditer(step.command):
        named = _NAME.fullmatch(found["inner"])
        name = named["name"] if named else ""
        if named and named["context"] == "github":
            name = f"GITHUB_{name.upper()}"
        before = step.command[: found.start()]
        is_bare = "<<" not in before and before.count("'") % 2 == 0 and step.shell in ("", "bash", "sh")
        is_fatal = is_bare and _LOOKED_UP.match(found["inner"]) is not None
        yield ScriptExpression(found[0], name, step.shell, is_fatal)
