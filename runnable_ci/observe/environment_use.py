"""Which environment variables a command may use, by the texts that it is made of. Pure.

A variable is left out only where its name occurs in none of the texts, and none of them takes the whole environment.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import cache
from itertools import chain
from typing import Final

from runnable_ci.observe.reads import Grade

_PROGRAM_MAX_BYTES: Final = 1024 * 1024
"""What is larger is data, or names its variables too."""
_LITERAL: Final = rb"\s*[rbuRBU]*['\"]"
_TAKES_ALL: Final = (
    rb"\b(?:envsubst|printenv|gomplate|confd)\b"
    # `env` that prints: before another program's name it only starts that
    rb"|(?:^|[\s;|&({`$'\"/])env[ \t]*(?:-0|--null)?[ \t]*(?=$|[;|&)}`>'\"\],])"
    rb"|\b(?:export|declare|typeset|set)\s*(?:-[px]+\s*)?(?=$|[;|&>)\n])|\bcompgen\s+-[ve]"
    rb"|\$\{!|\beval\b|\bindirect\b"
    # an import of it takes nothing yet
    rb"|\benvirons?b?\b(?!(?<=import environ)[ \t]*$)"
    rb"(?!\s*\[" + _LITERAL + rb"|\s*\.\s*(?:get|pop|setdefault)\s*\(" + _LITERAL + rb")"
    rb"|\bgetenvb?\s*\((?!" + _LITERAL + rb")|\bSys\.getenv\s*\((?!" + _LITERAL + rb")"
    rb"|\bprocess\.env\b(?!\s*\.\s*[A-Za-z_]|\s*\[" + _LITERAL + rb")"
    rb"|\bENV\b(?!\s*[\[{]" + _LITERAL + rb"|\s*\.\s*fetch\s*\(" + _LITERAL + rb"|\s*[A-Za-z_]+\s*=)"
    rb"|\bBaseSettings\b|\bauto_envvar_prefix\b|\bRUNNABLE_PARAMETERS\b"
)


_MAY_TAKE_ALL: Final = re.compile(
    rb"(?i:env)|eval|indirect|gomplate|confd|export|declare|typeset|\bset\b|compgen|\$\{!|BaseSettings"
)
"""Is in whatever `_TAKES_ALL` finds, and prepared in no time."""


def variables_used(names: Collection[str], command: str, sources: Iterable[bytes]) -> dict[str, Grade]:
    """Return which of these variables a command uses (`seen`: it names them) or may use.

    `sources` are the contents of the files that it read. Names are compared without regard to case, as some libraries
    look for them.
    """
    left = {name: re.compile(rb"(?<![a-z0-9_])%b(?![a-z0-9_])" % re.escape(name.lower().encode())) for name in names}
    used: dict[str, Grade] = {}
    takes_all = False
    texts = chain([command.encode(errors="surrogateescape")], sources)
    grade: Grade = "seen"
    for text in texts:
        lower = text.lower()
        for name in [name for name, pattern in left.items() if pattern.search(lower)]:
            used[name] = grade
            del left[name]
        takes_all = takes_all or (len(text) <= _PROGRAM_MAX_BYTES and bool(_takes_all().search(text)))
        if not left or takes_all:
            break
        grade = "possible"
    if takes_all:
        used |= dict.fromkeys(left, "possible")
    return {name: used[name] for name in names if name in used}


def takes_all(command: str) -> bool:
    """Return whether a command may read variables that it does not name."""
    text = command.replace("RUNNABLE_PARAMETERS", "").encode(errors="surrogateescape")
    return bool(_MAY_TAKE_ALL.search(text) and _takes_all().search(text))


@cache
def _takes_all() -> re.Pattern[bytes]:
    return re.compile(_TAKES_ALL, re.MULTILINE)  # takes as long as a short step: only where there are parameters
