"""Files of secrets: lines `NAME=value`, as `docker --env-file` and dotenv have them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from dotenv.parser import parse_stream

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.parameters import PARAMETER_PREFIX
from runnable_ci.pipeline.toml_file import names_in
from runnable_ci.util.text import decode_text


def read_env_files(paths: Iterable[Path]) -> dict[str, str]:
    """Return the variables of dotenv files, of which the later counts. Raises `UsageError`, never with a value."""
    variables: dict[str, str] = {}
    for path in paths:
        variables |= _of_file(path)
    return variables


def _of_file(path: Path) -> dict[str, str]:
    try:
        content = decode_text(path.read_bytes())
    except OSError as e:
        hint = did_you_mean(path.name, names_in(path.parent))
        raise UsageError(f"--env-file {path} cannot be read: {(e.strerror or str(e)).lower()}", hint=hint) from e
    except ValueError as e:
        raise UsageError(f"--env-file {path}: {e}", hint="save it as UTF-8") from e
    variables: dict[str, str] = {}
    for line in parse_stream(io.StringIO(content)):
        where = f"--env-file {path}: line {line.original.line}"
        if line.error or (line.key is not None and line.value is None):
            raise UsageError(f"{where} is not NAME=value", hint="put a value with line breaks in double quotes")
        if line.key is None or line.value is None:  # a comment
            continue
        if line.key.startswith("RUNNABLE_") and not line.key.startswith(PARAMETER_PREFIX):
            raise UsageError(f"{where}: {line.key} is reserved", hint=f"only {PARAMETER_PREFIX}NAME begins like that")
        if "\0" in line.key + line.value or "=" in line.key:
            raise UsageError(f"{where}: no variable can have that name or value", hint="no NUL, no `=` in the name")
        variables[line.key] = line.value
    return variables
