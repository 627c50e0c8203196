"""GitHub's expressions: `parameters.toss == 'heads'`, and texts with `${{ … }}` in them. Pure; nothing runs as code.

Source: docs.github.com, "Evaluate expressions in workflows and actions". What differs is in `docs/guide.md`.
"""

from __future__ import annotations

from runnable_ci.pipeline.expressions.expression import Expression, parse
from runnable_ci.pipeline.expressions.syntax import ExpressionError
from runnable_ci.pipeline.expressions.template import Template, template

__all__ = ["Expression", "ExpressionError", "Template", "parse", "template"]
