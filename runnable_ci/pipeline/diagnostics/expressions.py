"""GitHub's `${{ … }}`, which nothing replaces in a pipeline file, and what to write in its place. Pure."""

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


class ScriptExpression(NamedTuple):
    """An expression in a step, and where."""

    text: str
    key: str
    """`run`, or `env`."""
    variable: str
    """The name of the variable that has the value; empty where the expression is more than a name."""
    shell: str

    def __str__(self) -> str:
        """Say what is wrong, and what is right."""
        what = f"{self.key}: `{self.text}` is not replaced in a pipeline"
        if self.key == "env":
            return f"{what}: set the variable itself, outside or as a parameter"
        return f"{what}: {self.right_form()}"

    def right_form(self) -> str:
        """Return what to write in place of the expression."""
        if not self.variable:
            return "parameters are variables of the script, such as $depth"
        forms = {"python": f'os.environ["{self.variable}"]', "pwsh": f"$env:{self.variable}"}
        return f"write {forms.get(self.shell, f'${self.variable}')}"


def expressions(step: Step) -> Iterator[ScriptExpression]:
    """Yield the expressions in a step's script and in its variables."""
    places = [("run", step.command)] if step.kind == "run" else []
    for key, text in [*places, *(("env", value) for value in step.env.values())]:
        for found in _EXPRESSION.finditer(text):
            named = _NAME.fullmatch(found["inner"])
            name = named["name"] if named else ""
            if named and named["context"] == "github":
                name = f"GITHUB_{name.upper()}"
            yield ScriptExpression(found[0], key, name, step.shell)
