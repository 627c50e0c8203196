"""What may be a parameter or a path in the pipeline file, and how messages show a value. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

PARAMETER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
# As they are written: `input_size` and `language` are good names, and no program takes them for its own.
RESERVED = frozenset(
    {"PATH", "HOME", "SHELL", "USER", "LOGNAME", "PWD", "OLDPWD", "IFS", "TMPDIR", "TMP", "TEMP", "LANG", "LANGUAGE"}
    | {"TERM", "CI", "ENV", "HOSTNAME", "UID", "EUID", "PPID", "SHLVL", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    | {"SYSTEMROOT", "COMSPEC", "PATHEXT", "USERPROFILE"}
    # A shell gives these a value of its own.
    | {"_", "RANDOM", "SRANDOM", "SECONDS", "LINENO", "GROUPS", "SHELLOPTS", "OPTIND", "OPTERR", "OPTARG", "HISTCMD"}
    | {"DIRSTACK", "FUNCNAME", "PIPESTATUS", "EPOCHSECONDS", "EPOCHREALTIME", "COMP_WORDBREAKS", "PS1", "PS2", "PS4"}
)
RESERVED_PREFIXES = ("RUNNABLE_", "GITHUB_", "RUNNER_", "INPUT_", "ACTIONS_", "LD_", "DYLD_", "LC_", "BASH")
_EXCLUDED = frozenset({".runnable", ".git"})
NESTED_MAX = 64
INTEGER_MAX_BITS = 4096


def check_parameter_name(name: str, error: Any) -> None:
    """Raise `error(message, hint)` for a name that no parameter may have."""
    if not PARAMETER_NAME.fullmatch(name):
        raise error(
            f"{shown(name)} is not a valid parameter name", "letters, digits and `_`, at most 100; not a digit first"
        )
    if name in RESERVED or name.startswith(RESERVED_PREFIXES):
        raise error(
            f"the parameter name `{name}` is reserved", "it would replace an environment variable that programs rely on"
        )


def check_parameters(parameters: Mapping[str, Any], error: Any) -> None:
    """Raise `error(message, hint)` for a name or value that a parameter cannot have."""
    for name, value in parameters.items():
        check_parameter_name(name, error)
        if problem := not_json(value):
            raise error(f"{name}: {problem}", "parameters are JSON values; write it as a string")


def not_json(value: Any, depth: int = 0) -> str:
    """Return why a value is not JSON that every reader takes, empty if it is."""
    if depth > NESTED_MAX:
        return f"it is nested more than {NESTED_MAX} deep"
    match value:
        case None | bool():
            return ""
        case int():
            return "" if value.bit_length() <= INTEGER_MAX_BITS else "the number has too many digits"
        case float():
            return "" if math.isfinite(value) else f"{value} is not a JSON number"
        case str():
            return "" if _is_unicode(value) else "the text has characters that are not Unicode"
        case list():
            return next(filter(None, (not_json(item, depth + 1) for item in value)), "")
        case dict():
            return next(filter(None, (not_json(item, depth + 1) for pair in value.items() for item in pair)), "")
        case _:
            return f"a {type(value).__name__} is not a JSON value"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a byte of the environment or of a file name that was not UTF-8
        return False
    return True


def check_relative(path: str, error: Any) -> None:
    """Raise `error(message)` for a path or glob that could leave the workspace."""
    parts = path.replace("\\", "/").split("/")
    if not path or "\0" in path:
        raise error("a path with a NUL character" if path else "an empty path")
    if path.startswith(("/", "~")) or PureWindowsPath(path).drive or ".." in parts:
        raise error(f"a path outside the workspace: {shown(path)}")


def check_input(path: str, error: Any) -> None:
    """Raise `error(message)` for a path or glob that is neither of the workspace nor of a folder above it."""
    parts = path.split("/")
    up = next((count for count, part in enumerate(parts) if part != ".."), len(parts))
    check_relative("/".join(parts[up:]), error)


def shown(value: Any) -> str:
    """Return a value as a message shows it: in one line, and short."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value if len(value) <= 60 else f"{value[:57]}...", ensure_ascii=False)
        case int() if value.bit_length() > INTEGER_MAX_BITS:
            return "a number of that size"
        case int() | float():
            return str(value)
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"


def is_excluded(path: str) -> bool:
    """Return whether a path is in a store or a repository's own folder; some file systems do not tell case."""
    return not _EXCLUDED.isdisjoint(path.casefold().split("/"))
