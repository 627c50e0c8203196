"""GitHub's runner as far as it reads what a step writes: its rules for lines and files, in the words of its source.

Source: actions/runner, src/Runner.Common/ActionCommand.cs (`TryParseV2`, `TryParse`),
src/Runner.Worker/ActionCommandManager.cs (`TryProcessCommand`), FileCommandManager.cs (`EnvFileKeyValuePairs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

COMMANDS = (
    *("add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "notice"),
    *("remove-matcher", "save-state", "set-env", "set-output", "stop-commands", "warning"),
)
# .NET compares these texts by culture, which passes over such characters: here a line is a command if it is one with or
# without them.
PASSED_OVER = re.compile("[\0\u00ad\u200b-\u200f\u2060\ufeff]")


@dataclass(frozen=True)
class Command:
    """A line that was taken for a command."""

    name: str
    data: str
    properties: dict[str, str] = field(default_factory=dict)


@dataclass
class Runner:
    """What the runner makes of a step's output: the commands that it obeys, and the lines that it shows."""

    commands: list[Command] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    """The log; a group's beginning and end stand in it as the web page expects them."""
    stop_token: str = ""
    stops: int = 0
    _names: set[str] = field(default_factory=lambda: set(COMMANDS))

    def read(self, output: bytes) -> Runner:
        """Read a whole stream, line by line as .NET's StreamReader splits it."""
        lines = re.split("\r\n|\r|\n", output.decode("utf-8", "replace"))
        for line in lines if lines[-1] else lines[:-1]:
            self._line(line)
        return self

    def of(self, *names: str) -> list[Command]:
        """The commands of these names."""
        return [command for command in self.commands if command.name in names]

    def groups(self) -> list[tuple[str, list[str]]]:
        """The groups in order, and the lines in each; groups that begin or end within one are an error."""
        found: list[tuple[str, list[str]]] = []
        inside = False
        for line in self.shown:
            if line.startswith("##[group]"):
                assert not inside, f"a group in a group: {line}"
                found.append((line.removeprefix("##[group]"), []))
                inside = True
            elif line.startswith("##[endgroup]"):
                assert inside, "an end without a group"
                inside = False
            elif inside:
                found[-1][1].append(line)
        assert not inside, "a group without an end"
        return found

    def outside(self) -> list[str]:
        """The lines that are in no group."""
        found, inside = [], False
        for line in self.shown:
            inside = line.startswith("##[group]") or (inside and not line.startswith("##[endgroup]"))
            if not inside and not line.startswith("##[endgroup]"):
                found.append(line)
        return found

    def _line(self, line: str) -> None:
        found = self._parsed(line)
        if found is None:
            self.shown.append(line)
        elif self.stop_token:
            if found.name.lower() == self.stop_token.lower():
                self._names.discard(self.stop_token.lower())
                self.stop_token = ""
            self.shown.append(line)
        elif found.name.lower() == "stop-commands":
            assert found.data, "the runner refuses an empty token"
            assert found.data.lower() not in self._names, "the runner refuses a command's name for a token"
            self.stop_token = found.data
            self.stops += 1
            self._names.add(found.data.lower())
            self.shown.append(line)
        else:
            self.commands.append(found)
            if found.name.lower() in ("group", "endgroup", "error", "warning", "notice"):
                self.shown.extend(f"##[{found.name.lower()}]{found.data}".split("\n"))

    def _parsed(self, line: str) -> Command | None:
        bare = PASSED_OVER.sub("", line)
        return self._new_form(line) or self._old_form(line) or self._new_form(bare) or self._old_form(bare)

    def _new_form(self, line: str) -> Command | None:
        line = line.lstrip()
        end = line.find("::", 2)
        if not line.startswith("::") or end < 0:
            return None
        return self._command(line[2:end], line[end + 2 :], ",", "\r\n:,%")

    def _old_form(self, line: str) -> Command | None:
        start = line.find("##[")
        end = line.find("]", start)
        if start < 0 or end < 0:
            return None
        return self._command(line[start + 3 : end], line[end + 1 :], ";", ";\r\n]%")

    def _command(self, info: str, data: str, separator: str, escaped: str) -> Command | None:
        name, _, rest = info.partition(" ")
        if name.lower() not in self._names:
            return None
        pairs = (pair.split("=", 1) for pair in rest.strip().split(separator) if "=" in pair)
        in_data = "\r\n%" if separator == "," else escaped
        return Command(name, unescaped(data, in_data), {key: unescaped(text, escaped) for key, text in pairs})


def unescaped(text: str, characters: str) -> str:
    """A text with the escapes of these characters undone, the per cent sign last."""
    for character in characters:
        text = text.replace(f"%{ord(character):02X}", character)
    return text


def variables(text: str) -> Iterator[tuple[str, str]]:
    """The pairs in a file as `GITHUB_ENV` and `GITHUB_OUTPUT`. Raises `ValueError` where the runner fails the step."""
    lines = text.split("\n")
    ended = lines.pop() == "" if text else True
    if not ended:
        lines = text.split("\n")
    waiting = iter(lines)
    for line in waiting:
        equals, block = line.find("="), line.find("<<")
        if not line:
            continue
        if equals >= 0 and (block < 0 or equals < block):
            name, value = line.split("=", 1)
            yield name, value
        elif block >= 0:
            name, delimiter = line.split("<<", 1)
            if not name or not delimiter:
                raise ValueError(line)
            body = []
            for inner in waiting:
                if inner == delimiter:
                    break
                body.append(inner)
            else:
                raise ValueError(f"no end {delimiter}")
            yield name, "\n".join(body)
        else:
            raise ValueError(line)
