"""A Snakemake rule's `shell` or `script` as the script of a step. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from textwrap import dedent
from typing import Any, Final

from runnable_ci.cli.importers.evaluator import NotDeclarativeError
from runnable_ci.cli.importers.script import Part, Variable, shell_script
from runnable_ci.cli.importers.snakemake_jobs import DirectiveValues
from runnable_ci.cli.importers.wildcards import parts_of

_KEY: Final = re.compile(r"\.(\w+)|\[([^\]]*)\]")


@dataclass
class RuleValues:
    """What a rule's script can name, with texts as patterns of wildcards."""

    items: Mapping[str, DirectiveValues]
    """`input`, `output`, `log` and `params`."""
    variables: Mapping[str, str]
    """Wildcards → the axes that have them."""
    numbers: Mapping[str, Any]
    """`threads`, `resources`, and the variables of the Snakefile, such as `config`."""
    rule: str
    made: Sequence[str]
    """The files, as patterns, whose folders are made before."""
    touched: Sequence[str] = ()


def of_shell(text: str, values: RuleValues) -> str:
    """Return the step's script. Raises `NotDeclarativeError` for what is named in it and not known."""
    parts: list[Part] = []
    try:
        pieces = [*Formatter().parse(dedent(text))]
    except ValueError as e:
        raise NotDeclarativeError(str(e)) from e
    for literal, name, spec, conversion in pieces:
        parts.append(literal)
        if name is None:
            continue
        if conversion or spec not in ("", "q"):
            raise NotDeclarativeError(f"{{{name}!{conversion}:{spec}}}" if conversion else f"{{{name}:{spec}}}")
        parts += _quoted(_named(name, values)) if spec == "q" else _named(name, values)
    script = shell_script(parts).strip("\n").rstrip()
    folders = _folders(values)
    before = [f"mkdir -p {' '.join(_word(folder, values) for folder in folders)}"] if folders else []
    after = [f"touch {' '.join(_word(path, values) for path in values.touched)}"] if values.touched else []
    lines = [*before, script, *after]
    return "\n".join([*lines, ""]) if len(lines) > 1 or "\n" in script else script


def _named(name: str, values: RuleValues) -> Iterator[Part]:
    """Yield what a `{…}` of a shell command stands at."""
    first, keys = re.match(r"\w*", name)[0], [a or b for a, b in _KEY.findall(name)]  # type: ignore[index]
    if first == "wildcards" and len(keys) == 1 and keys[0] in values.variables:
        yield Variable(values.variables[keys[0]])
    elif first in values.items:
        for i, value in enumerate(_selected(values.items[first], keys, name)):
            yield " " if i else ""
            yield from parts_of(_plain(value), values.variables)
    elif first in values.numbers or first == "rule":
        value = values.rule if first == "rule" else values.numbers[first]
        for key in keys:
            try:
                value = value[int(key) if isinstance(value, list) else key]
            except (LookupError, TypeError, ValueError) as e:
                raise NotDeclarativeError(f"{{{name}}}") from e
        yield " ".join(map(_plain, value)) if isinstance(value, list) else _plain(value)
    else:
        raise NotDeclarativeError(f"{{{name}}}")


def _selected(items: DirectiveValues, keys: Sequence[str], name: str) -> list[Any]:
    if not keys:
        return items.values
    found = items.values
    try:
        for key in keys:
            found = [found[int(key)]] if key.isdigit() else items.named(key)
    except LookupError as e:
        raise NotDeclarativeError(f"{{{name}}}") from e
    return found


def _quoted(parts: Iterator[Part]) -> list[Part]:
    return ['"', *parts, '"']


def _word(pattern: str, values: RuleValues) -> str:
    """Return a path as a word of a shell."""
    parts = [*parts_of(pattern, values.variables)]
    is_plain = all(isinstance(part, str) and not re.search(r"[^\w./@%+=:,-]", part) for part in parts)
    return shell_script(parts) if is_plain else shell_script(_quoted(iter(parts)))


def _folders(values: RuleValues) -> list[str]:
    return list(dict.fromkeys(filter(None, (posixpath.dirname(path) for path in values.made))))


def of_python_script(path: str, values: RuleValues) -> str:
    """Return a Python script that runs a rule's own, with the object `snakemake` that it expects."""
    axes = {f"axis_{axis}": axis for axis in values.variables.values()}
    lines = [
        "import os, sys",
        "from runpy import run_path",
        "from types import SimpleNamespace",
        *(f"{name} = os.environ[{axis!r}]" for name, axis in axes.items()),
        "",
        "class Items(list):",
        "    def __init__(self, items, names):",
        "        super().__init__(items)",
        "        for name, (start, end) in names.items():",
        "            setattr(self, name, self[start] if end is None else self[start:end])",
        "",
        f"for folder in [{', '.join(_literal(it, values) for it in _folders(values))}]:",
        "    os.makedirs(folder, exist_ok=True)",
        f"sys.path.insert(0, {posixpath.dirname(path)!r})",
        f"run_path({path!r}, {{'snakemake': SimpleNamespace(",
        *(f"    {name}={_items(items, values)}," for name, items in values.items.items()),
        f"    wildcards=SimpleNamespace({', '.join(f'{k}=axis_{v}' for k, v in values.variables.items())}),",
        f"    threads={values.numbers.get('threads', 1)}, rule={values.rule!r},",
        f"    resources=SimpleNamespace(**{values.numbers.get('resources', {})!r}),",
        f"    config={json.loads(json.dumps(values.numbers.get('config', {})))!r},",
        ")}, '__main__')",
    ]
    return "\n".join([*lines, ""])


def _items(items: DirectiveValues, values: RuleValues) -> str:
    return f"Items([{', '.join(_literal(it, values) for it in items.values)}], {items.names!r})"


def _literal(value: Any, values: RuleValues) -> str:
    """Return a value in Python; of a text, the wildcards are variables."""
    if not isinstance(value, str):
        return repr(value)
    parts = [*parts_of(value, values.variables)]
    if all(isinstance(part, str) for part in parts):
        return repr("".join(map(str, parts)))
    return " + ".join(repr(part) if isinstance(part, str) else f"axis_{part.name}" for part in parts if part)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        raise NotDeclarativeError("a table in a command")
    return str(value)
