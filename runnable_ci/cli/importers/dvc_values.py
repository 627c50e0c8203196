"""The `${…}` of a dvc.yaml: what it names, and what it becomes in a command and in a path. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from runnable_ci.cli.importers.script import Part, Variable, shell_script
from runnable_ci.errors import UsageError
from runnable_ci.pipeline.validation import RESERVED, RESERVED_PREFIXES

_PLACE: Final = re.compile(r"\\?\$\{\s*([^{}]*?)\s*\}")
_NAME_PART: Final = re.compile(r"[^.\[\]]+")


@dataclass
class DvcValues:
    """What can be named within `${…}`, and the parameters that this made."""

    source: str
    known: dict[str, Any]
    parameters: dict[str, Any] = field(default_factory=dict)
    """Those that a command uses, by the name that they have here."""

    def merge(self, more: Mapping[str, Any]) -> None:
        """Know more values; a table is merged key by key."""
        _merge(self.known, more)

    def whole(self, text: Any, axes: Mapping[str, Any]) -> Any:
        """Return the value of a text that is one `${…}`, of any type; another value as it is."""
        match = _PLACE.fullmatch(text) if isinstance(text, str) and not text.startswith("\\") else None
        return text if match is None else self._value(match[1], axes)

    def text(self, text: str, axes: Mapping[str, Any]) -> str:
        """Return a text with the values in it, for one instance."""
        return "".join(part if isinstance(part, str) else _plain(self._value(part.name, axes)) for part in _parts(text))

    def path(self, text: str, axes: Mapping[str, Any]) -> str:
        """Return a path with expressions for the axes in it, and the values of everything else."""
        return "".join(
            part
            if isinstance(part, str)
            else f"${{{{ matrix.{_flat(part.name)} }}}}"
            if _is_axis(part.name)
            else _plain(self._value(part.name, axes))
            for part in _parts(text)
        )

    def command(self, text: str, axes: Mapping[str, Any]) -> str:
        """Return a script in which the shell puts the values: those of axes and, as parameters, all others."""
        parts = [*_parts(text)]
        own = "".join(part for part in parts if isinstance(part, str))
        return shell_script(made for part in parts for made in self._in_command(part, axes, own))

    def _in_command(self, part: Part, axes: Mapping[str, Any], own: str) -> Iterator[Part]:
        if isinstance(part, str):
            yield part
            return
        value = self._value(part.name, axes)
        if isinstance(value, Mapping):  # a table becomes options of a command line, texts of it in quotes
            for key, inner in value.items():
                if inner is False or inner is None:
                    continue
                yield f"--{key} " if inner is not True else f"--{key}"
                if inner is not True:
                    quote = '"' if isinstance(inner, str) else ""
                    yield quote
                    yield from self._in_command(Variable(f"{part.name}.{key}"), axes, own)
                    yield quote
                yield " "
        elif isinstance(value, list):
            yield " ".join(map(_plain, value))
        elif _is_axis(part.name):
            yield Variable(_flat(part.name))
        else:
            yield Variable(self._parameter(part.name, value, own))

    def _parameter(self, name: str, value: Any, own: str) -> str:
        """Return the name of the parameter for a value; it is none of a variable that the script has itself."""
        flat = _flat(name)
        is_own = re.search(rf"\b(?:for|read|local|export)\s+{flat}\b|(?<![\w$-]){flat}=|\$\{{?{flat}\b", own)
        if is_own or flat in RESERVED or flat.startswith(RESERVED_PREFIXES) or not re.match("[A-Za-z_]", flat):
            flat = f"value_{flat}"
        self.parameters[flat] = _plain(value) if isinstance(value, str) or value is None else value
        return flat

    def _value(self, name: str, axes: Mapping[str, Any]) -> Any:
        if _is_axis(name) and _flat(name) in axes:
            return axes[_flat(name)]
        value: Any = self.known
        for part in _NAME_PART.findall(name):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
                value = value[int(part)]
            else:
                hint = "its values come from `vars`, params.yaml, `foreach` and `matrix`"
                raise UsageError(f"{self.source}: ${{{name}}} is not known", hint=hint)
        return value


def flat_axes(name: str, value: Any) -> dict[str, Any]:
    """Return an item of `foreach` or `matrix` as axes of single values: `item.lr` is `item_lr`."""
    if isinstance(value, Mapping):
        return {key: it for inner, one in value.items() for key, it in flat_axes(f"{name}.{inner}", one).items()}
    return {_flat(name): value}


def _is_axis(name: str) -> bool:
    return name == "key" or re.match(r"item\b", name) is not None


def _flat(name: str) -> str:
    """Return the name of a parameter or an axis for what `${…}` names."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", name.removeprefix("item.")).strip("_")


def _parts(text: str) -> Iterator[Part]:
    at = 0
    for match in _PLACE.finditer(text):
        yield text[at : match.start()]
        yield match[0][1:] if match[0].startswith("\\") else Variable(match[1])
        at = match.end()
    yield text[at:]


def _plain(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return ""
        case _:
            return str(value)


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, Mapping):
            _merge(there, value)
        else:
            into[key] = value
