"""Parameter files: what people keep their parameters in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from runnable_ci.errors import UsageError, did_you_mean
from runnable_ci.pipeline.toml_file import names_in, parse_toml
from runnable_ci.pipeline.values.value_reader import read_json
from runnable_ci.util.text import decode_text

_SUFFIXES: Final = (".json", ".yaml", ".yml")
_HINT: Final = "a file of TOML, or with the suffix .json, .yaml or .yml"


def read_params_file(path: Path) -> dict[str, Any]:
    """Return the table of a file: TOML, with or without a table `[parameters]`, JSON or YAML.

    Raises `UsageError`, and `PipelineError` for what is not TOML.
    """
    try:
        parsed = read_file(path)
    except OSError as e:
        hint = did_you_mean(path.name, names_in(path.parent), _HINT)
        raise UsageError(f"--params-file {path} cannot be read: {(e.strerror or str(e)).lower()}", hint=hint) from e
    except ValueError as e:
        raise UsageError(f"--params-file {path}: {e}", hint=_HINT) from e
    if path.suffix not in _SUFFIXES and isinstance(parsed, dict):
        parsed = parsed.get("parameters", parsed)
    if parsed is None and path.suffix != ".json":
        return {}  # of YAML that has only comments
    if not isinstance(parsed, dict):
        raise UsageError(f"--params-file {path} is not a table of parameters", hint=_HINT)
    return parsed


def read_file(path: Path) -> Any:
    """Return what a file of JSON or YAML has, by its suffix, else of TOML.

    Raises `OSError`, `ValueError` with what is wrong and where, and `PipelineError` for what is not TOML.
    """
    content = decode_text(path.read_bytes())
    if path.suffix == ".json":
        return read_json(content)
    if path.suffix in _SUFFIXES:
        from runnable_ci.pipeline.values.yaml_document import read_yaml  # few runs have such files

        return read_yaml(content)
    return parse_toml(content, str(path))
