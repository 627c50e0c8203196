"""`[executors.NAME]`: where steps run beside this machine. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.keys.resources import Share
from runnable_ci.pipeline.validation import shown
from runnable_ci.util.text import duration_s

if TYPE_CHECKING:
    from runnable_ci.pipeline.keys.tables import ExecutorConfig
    from runnable_ci.pipeline.schema import PipelineConfig, Place

LOCAL: Final = "local"
"""How a step says that it runs on this machine."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_OPTION: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_OURS: Final = {
    **dict.fromkeys(("array", "job-name", "parsable", "wait", "wrap", "hold"), "runnable-ci sets it itself"),
    **dict.fromkeys(("output", "error", "input"), "what a step prints is in the run log"),
    **dict.fromkeys(("help", "usage", "version", "test-only"), "no step runs with it"),
}
"""Options that an executor cannot have, and why."""
_SLURM_TIME: Final = re.compile(r"[0-9]+(:[0-9]{1,2}){0,2}|[0-9]+-[0-9]{1,2}(:[0-9]{1,2}){0,2}")
"""Source: `man sbatch`, --time."""
_SHELL_WORDS: Final = frozenset({"|", "||", "&&", "&", ";", "<", ">", ">>", "2>&1"})
PLACE_OF_COMMAND: Final = "{}"
# `${NAME}` is for a shell, `{{name}}` for a template.
_PLACE_OF_SHARE: Final = re.compile(r"(?<![${])\{([A-Za-z]+)\}(?!\})")


class Slurm(NamedTuple):
    """What jobs and job steps of Slurm are asked for."""

    options: Mapping[str, str] = MappingProxyType({})
    """Long name → value; empty for an option without one."""
    arrays: bool = True
    """Whether instances of a matrix are submitted as job arrays."""

    def words(self) -> list[str]:
        """Return the options as `sbatch` and `srun` take them."""
        return [f"--{name}={value}" if value else f"--{name}" for name, value in self.options.items()]


class Executor(NamedTuple):
    """Where steps run: Slurm, or wherever a command starts them."""

    name: str
    slurm: Slurm | None = None
    command: tuple[str, ...] = ()
    """The words of what starts a command elsewhere: one of them has `{}` in its place. Empty with `slurm`."""
    program: tuple[str, ...] = ()
    """How runnable-ci is called there; empty: as it runs here."""
    max_parallel: int | None = None
    """Steps at a time; None: as many as may run."""
    project: str = ""
    """A clone of the project there, where the machines share no folder; empty: they do."""

    def launch(self, command: Sequence[str]) -> list[str]:
        """Return the words that start a command elsewhere, by `command`: it is one word there, as a shell reads it."""
        return [word.replace(PLACE_OF_COMMAND, shlex.join(command)) for word in self.command]


def resolve_executors(files: Sequence[tuple[Place, PipelineConfig]]) -> dict[str, Executor]:
    """Return the executors of a pipeline's files, by name: the first file, which is run, counts before the others.

    Raises `PipelineError`.
    """
    found: dict[str, Executor] = {}
    main, first = files[0]
    for place, file in files:
        for name, config in file.executors.items():
            executor = _resolved(place, name, config)
            if found.setdefault(name, executor) != executor and name not in first.executors:
                hint = f"write [executors.{name}] in {main.file}: that one counts for all files"
                raise place.error("executors", f"another file has another `{name}`", hint, key=name)
    return found


def _resolved(place: Place, name: str, config: ExecutorConfig) -> Executor:
    table = f"executors.{name}"
    if not _NAME.fullmatch(name):
        hint = "letters, digits, `_` and `-`, at most 100; not a digit first"
        raise place.error("executors", f"{shown(name)} is not a valid name of an executor", hint, key=name)
    if name == LOCAL:
        raise place.error("executors", f"`{LOCAL}` is this machine", "give the executor another name", key=name)
    if (config.slurm is None) == (config.command is None):
        has = "has neither `slurm` nor `command`" if config.slurm is None else "has both `slurm` and `command`"
        raise place.error(table, has, 'write one: slurm = { partition = "gpu" } or command = "ssh node {}"')
    return Executor(
        name,
        None if config.slurm is None else _slurm(place, table, config.slurm),
        () if config.command is None else _command(place, table, config.command),
        () if config.program is None else tuple(_words(place, table, "program", config.program)),
        config.max_parallel,
        "" if config.project is None else _project(place, table, config.project),
    )


def _project(place: Place, table: str, written: str) -> str:
    if not written.startswith(("/", "~")) or "\0" in written or "\n" in written:
        hint = 'such as project = "~/work/shop"'
        raise place.error(table, f"project: {shown(written)} is not an absolute path", hint, key="project")
    return written


def _slurm(place: Place, table: str, written: Mapping[str, Any]) -> Slurm:
    where = f"{table}.slurm"
    arrays = written.get("arrays", True)
    if not isinstance(arrays, bool):
        raise place.error(where, f"arrays: must be true or false, not {shown(arrays)}", "arrays = false", key="arrays")
    options: dict[str, str] = {}
    for name, value in written.items():
        if name == "arrays" or value is False:
            continue
        if not _OPTION.fullmatch(name):
            hint = "write the long name of an option without its dashes, such as partition"
            raise place.error(where, f"{shown(name)} is not an option of Slurm", hint, key=name)
        if name in _OURS:
            raise place.error(where, f"`{name}` cannot be given", _OURS[name], key=name)
        if not isinstance(value, str | int | float) or value == "" or "\0" in str(value) or "\n" in str(value):
            raise place.error(where, f"{name}: must be a text or a number, not {shown(value)}", "", key=name)
        options[name] = "" if value is True else _time(place, where, value) if name == "time" else str(value)
    return Slurm(options, arrays)


def _time(place: Place, where: str, value: str | float) -> str:
    """Return a time limit as Slurm takes it, which knows no `4h`; a number alone is minutes, as it is there."""
    text = str(value)
    if _SLURM_TIME.fullmatch(text) or text.upper() in ("INFINITE", "UNLIMITED"):
        return text
    seconds = duration_s(text)
    if not seconds:
        hint = 'such as "4h", "90m", or as Slurm has it: "1-12:00:00"'
        raise place.error(where, f"time: {shown(value)} is not a length of time", hint, key="time")
    minutes, seconds_left = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds_left:02}"


def _command(place: Place, table: str, written: str | list[str]) -> tuple[str, ...]:
    words = _words(place, table, "command", written)
    count = sum(word.count(PLACE_OF_COMMAND) for word in words)
    if count != 1 or PLACE_OF_COMMAND in words[0]:
        hint = 'such as command = "ssh node {}"'
        said = {0: "has no `{}`, where the command of a step is put", 1: "begins with `{}`"}
        raise place.error(table, f"command: {said.get(count, 'has `{}` more than once')}", hint, key="command")
    for name in (name for word in words for name in _PLACE_OF_SHARE.findall(word) if name not in Share._fields):
        if hint := did_you_mean(name.lower(), Share._fields):  # any other may be for the program that is started
            raise place.error(table, f"command: `{{{name}}}` is no part of `resources`", hint, key="command")
    return tuple(words)


def _words(place: Place, table: str, key: str, written: str | list[str]) -> list[str]:
    """Return a command's words. Raises for one that only a shell would understand."""
    if isinstance(written, str):
        try:
            words = shlex.split(written)
        except ValueError as e:
            raise place.error(table, f"{key}: {str(e).lower()}", "close the quotation mark", key=key) from e
        if shell_word := next((it for it in words if it in _SHELL_WORDS or it.startswith(("$", "~/"))), None):
            hint = "no shell reads it: write its value, or let one read it, as in sh -c '… {}'"
            raise place.error(table, f"{key}: `{shell_word}` has no meaning here", hint, key=key)
    else:
        words = written
    if not words or not words[0] or any("\0" in word for word in words):
        raise place.error(table, f"{key}: names no program", 'such as "ssh node {}"', key=key)
    return words
