"""Parameter files: what people keep their parameters in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.toml_file import names_in, parse_toml
from runnable_ci.pipeline.values.value_reader import read_json
from runnable_ci.util.text import decode_text

_HINT: Final = "a file of TOML, or of JSON with the suffix .json"


def read_params_file(path: Path) -> dict[str, Any]:
    """Return the table of a file: TOML, with or without a table `[parameters]`, or JSON.

    Raises `UsageError`, and `PipelineError` for what is not TOML.
    """
    if path.suffix in (".yaml", ".yml"):
        raise UsageError(f"--params-file {path} is YAML", hint=_HINT)
    try:
        content = decode_text(path.read_bytes())
        parsed = read_json(content) if path.suffix == ".json" else None
    except OSError as e:
        hint = did_you_mean(path.name, names_in(path.parent), _HINT)
        raise UsageError(f"--params-file {path} cannot be read: {(e.strerror or str(e)).lower()}", hint=hint) from e
    except ValueError as e:
        raise UsageError(f"--params-file {path}: {e}", hint=_HINT) from e
    if path.suffix != ".json":
        table = parse_toml(content, str(path))
        parsed = table.get("parameters", table)
    if not isinstance(parsed, dict):
        raise UsageError(f"--params-file {path} is not a table of parameters", hint=_HINT)
    return parsed
