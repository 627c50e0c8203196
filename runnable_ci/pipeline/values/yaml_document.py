"""YAML as JSON's values: what versions 1.1 and 1.2 of it read alike is taken as that.

They differ in plain words: `no` is false by version 1.1 (PyYAML) and text by 1.2, `012` is ten or twelve. Only a
declared type says which of them is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from runnable_ci.pipeline.validation import NESTED_MAX, shown
from runnable_ci.pipeline.values.value_reader import AmbiguousText

_ELEMENTS_MAX: Final = 1_000_000
_CORE: Final = "tag:yaml.org,2002:"
_PLAIN: Final = "!plain"
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,4000})")
_DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)?\.[0-9]*(?:[eE][-+]?[0-9]+)?")
# Without a point it is a number for version 1.2 only; one digit before the exponent is how numbers are written so.
_SCIENTIFIC: Final = re.compile(r"[-+]?[0-9][eE][-+]?[0-9]+")
_EITHER: Final = re.compile(
    r"(?:y|n|yes|no|on|off)|[-+]?0[0-9_]+|[-+]?0[xob][0-9a-f_]+|[-+]?[0-9][0-9_]*_[0-9_.]*|[-+]?[0-9]+(?::[0-5]?[0-9])+"
    r"|[-+]?\.(?:inf|nan)",
    re.IGNORECASE,
)


class _Loader(yaml.SafeLoader):
    """Reads what stands where; what a plain word is, is decided here and not by version 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as the library has it


_Loader.add_implicit_resolver(_PLAIN, re.compile(r".*", re.DOTALL), None)


def read_yaml(content: str) -> Any:
    """Return the value of a YAML document. Raises `ValueError` with the line of what cannot be read."""
    try:
        root = _Loader(content).get_single_node()
    except yaml.reader.ReaderError as e:
        line = content.count("\n", 0, e.position) + 1
        raise ValueError(f"line {line}: {e.reason}") from e
    except yaml.MarkedYAMLError as e:
        line = e.problem_mark.line + 1 if e.problem_mark else 1
        raise ValueError(f"line {line}: {e.problem or e.context}") from e
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(f"it is not YAML: {e}".splitlines()[0]) from e
    return None if root is None else _Values().of(root, 0)


class _Values:
    """Makes values of nodes. An alias repeats what it names, so what they become together is bounded."""

    def __init__(self) -> None:
        self._elements = 0

    def of(self, node: yaml.Node, depth: int) -> Any:
        self._elements += 1
        if self._elements > _ELEMENTS_MAX or depth > NESTED_MAX:
            raise _problem(node, "too much is nested, or repeated by aliases")
        match node:
            case yaml.ScalarNode():
                return _scalar(node)
            case yaml.SequenceNode(tag=tag) if tag == f"{_CORE}seq":
                return [self.of(item, depth + 1) for item in node.value]
            case yaml.MappingNode(tag=tag) if tag == f"{_CORE}map":
                return self._table(node, depth)
            case _:
                raise _problem(node, f"the tag {shown(node.tag)} is not JSON")

    def _table(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        table: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, item in node.value:
            if key_node.tag == _PLAIN and key_node.value == "<<":
                for other in self._merged_with(item, depth):
                    merged = {**other, **merged}
                continue
            key = _scalar(key_node, is_key=True) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise _problem(key_node, "a key is not text")
            if key in table:
                raise _problem(key_node, f"the key {shown(key)} is there twice")
            table[key] = self.of(item, depth + 1)
        return {**merged, **table}

    def _merged_with(self, node: yaml.Node, depth: int) -> Iterator[dict[str, Any]]:
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            table = self.of(one, depth + 1)
            if not isinstance(table, dict):
                raise _problem(node, "`<<` needs a table")
            yield table


def _scalar(node: yaml.ScalarNode, *, is_key: bool = False) -> Any:
    text: str = node.value
    if node.tag == f"{_CORE}str" or (is_key and node.tag == _PLAIN):
        return text
    if node.tag != _PLAIN:
        raise _problem(node, f"the tag {shown(node.tag)} is not JSON")
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if (_DECIMAL.fullmatch(text) and text.strip("+-.")) or _SCIENTIFIC.fullmatch(text):
        return float(text)
    return AmbiguousText(text) if _EITHER.fullmatch(text) else text


def _problem(node: yaml.Node, message: str) -> ValueError:
    return ValueError(f"line {node.start_mark.line + 1}: {message}")
