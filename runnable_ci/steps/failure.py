"""Why a step's process failed, by its exit code, and what may help: the one place that explains exit codes."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Final, NamedTuple

from runnable_ci.errors import did_you_mean
from runnable_ci.pipeline.diagnostics.expressions import expressions
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import ExceptionInfo
from runnable_ci.steps.base import StepContext

_SIGNALS: Final = 128
"""A shell adds the signal that ended a command to this. Source: POSIX.1-2017, Shell Command Language, 2.8.2."""
_OUT_OF_MEMORY: Final = "the system ended a process because memory ran out: use less of it, or a larger machine"
_OF_ENGINES: Final = {
    125: "usually the container could not be started",
    126: "a command could not be executed in the container",
    127: "a command was not found in the container",
}
"""Source: docker-run(1), podman-run(1), exit status."""
_HINTS: Final = {
    "SIGKILL": "often the memory ran out, or a job's or container's limit was reached; else another process ended it",
    "SIGPIPE": "it wrote to a command that had ended, as `yes | head -1` does, and the shell's `pipefail` counts that: "
    "read all input, or add `|| true`",
    "SIGSEGV": 'compiled code crashed; with env = { PYTHONFAULTHANDLER = "1" } Python prints where',
    "SIGABRT": "the program ended itself: its last lines say why",
    "SIGBUS": "often a full disk or /dev/shm below mapped memory, or a file that was cut meanwhile",
    "SIGILL": "compiled code is for another CPU than this one",
    "SIGFPE": "compiled code divided by zero",
    "SIGXCPU": "a limit on CPU time was reached (`ulimit -t`)",
    "SIGXFSZ": "a limit on the size of files was reached (`ulimit -f`)",
    "SIGTERM": "another process asked it to end",
    "SIGHUP": "another process, or a terminal that was closed, asked it to end",
}
_WORDS: Final = re.compile(r"""[\s'"();|&<>=`]+""")
_BETWEEN_COMMANDS: Final = re.compile(r"[\n;|&(){}`]+")
_BEFORE_COMMANDS: Final = frozenset(
    {"if", "then", "else", "elif", "while", "until", "do", "time", "!", "exec", "command"}
)
_OF_THE_SHELL: Final = frozenset(
    {"if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "in", "function"}
    | {"select", "time", "alias", "bg", "break", "builtin", "caller", "cd", "command", "compgen", "complete"}
    | {"continue", "coproc", "declare", "dirs", "disown", "echo", "enable", "eval", "exec", "exit", "export", "false"}
    | {"fc", "fg", "getopts", "hash", "help", "history", "jobs", "kill", "let", "local", "logout", "mapfile", "popd"}
    | {"printf", "pushd", "pwd", "read", "readarray", "readonly", "return", "set", "shift", "shopt", "source"}
    | {"suspend", "test", "times", "trap", "true", "type", "typeset", "ulimit", "umask", "unalias", "unset", "wait"}
)
"""Keywords and builtins, which no file on PATH has to be there for."""


class Explanation(NamedTuple):
    """Why a process failed."""

    message: str
    hint: str = ""


def explain_exit(step: Step, context: StepContext, code: int, *, is_out_of_memory: bool = False) -> Explanation:
    """Explain an exit code that is not 0; a negative one is the signal that ended the step's own process."""
    adds_signals = step.kind == "run" or step.container is not None  # as a container's engine does
    signalled = _signal_name(-code if code < 0 else code - _SIGNALS if adds_signals else 0)
    if code < 0:
        return Explanation(f"ended by {signalled or f'signal {-code}'}", _of_signal(signalled, is_out_of_memory))
    what = f"exit code {code}"
    if signalled:
        return Explanation(
            f"{what}: usually a command that was ended by {signalled}", _of_signal(signalled, is_out_of_memory)
        )
    if step.container is not None and code in _OF_ENGINES:
        return Explanation(f"{what}: {_OF_ENGINES[code]}", f"the image is {step.container.image}; its output says more")
    if step.kind != "run":
        return Explanation(what)
    match code:
        case 124 if re.search(r"\btimeout\b", step.command):
            return Explanation(f"{what}: `timeout` ended a command")
        case 126:
            return Explanation(f"{what}: a command could not be executed", _not_executable(step, context))
        case 127:
            return Explanation(f"{what}: a command was not found", _not_found(step, context))
    expression = next(expressions(step), None)
    return Explanation(what, str(expression) if expression else "")


def place_of(step: Step, exception: ExceptionInfo | None) -> str:
    """Return where an exception was raised, in brackets: the line of a file, or the cell of the step's notebook."""
    if not exception or not exception.file:
        return ""
    if exception.file == step.command:
        return f" ({exception.file}, cell {exception.cell})" if exception.cell else f" ({exception.file})"
    return f" ({exception.file}:{exception.line})"


def _of_signal(name: str, is_out_of_memory: bool) -> str:
    return _OUT_OF_MEMORY if name == "SIGKILL" and is_out_of_memory else _HINTS.get(name, "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return ""


def _not_executable(step: Step, context: StepContext) -> str:
    """Name the file that the script runs and that may not be executed."""
    for word, file in _files(step, context):
        if file.is_dir() and word in _commands(step):
            return f"`{word}` is a folder"
        if file.is_file() and not os.access(file, os.X_OK):
            return f"`{word}` is not executable: `chmod +x {word}`, or name its interpreter, such as `bash {word}`"
        if interpreter := _missing_interpreter(file):
            return interpreter
    return "a file that is not executable, or a folder, was run as a command"


def _not_found(step: Step, context: StepContext) -> str:
    """Name the command that does not exist, as far as the script tells."""
    for _, file in _files(step, context):
        if interpreter := _missing_interpreter(file):
            return interpreter
    path = {**context.environ, **step.env}.get("PATH", os.defpath)
    folder = context.workspace / step.working_directory
    defined = set(re.findall(r"(?m)^\s*(?:function\s+)?([\w-]+)\s*\(\)", step.command))
    for word in _commands(step):
        if word in _OF_THE_SHELL or word in defined:
            continue
        if "/" in word:
            if not (folder / word).exists():
                near = did_you_mean(Path(word).name, _names_in((folder / word).parent))
                return f"there is no `{word}`{near and f'; {near}'}"
        elif shutil.which(word, path=path) is None:
            installed = context.workspace / ".venv" / "bin" / word
            if installed.exists():
                return f"`{word}` is in .venv/bin, which is not on PATH: write .venv/bin/{word}, or activate .venv"
            names = [name for place in path.split(os.pathsep) for name in _names_in(Path(place))]
            return f"`{word}` is not on PATH; {did_you_mean(word, names, 'install it, or check the spelling')}"
    return "install it, or check the spelling and PATH; the step's output names it"


def _missing_interpreter(file: Path) -> str:
    """Say what is wrong with the first line of a script, if its interpreter is not there."""
    try:
        with file.open("rb") as opened:
            first = opened.readline(200)
    except OSError:
        return ""
    if not first.startswith(b"#!"):
        return ""
    if first.endswith(b"\r\n"):
        return f"`{file.name}` has the line ends of Windows: convert them, as `sed -i 's/\\r$//' {file.name}` does"
    words = first[2:].decode(errors="replace").split()
    if words and not Path(words[0]).exists():
        return f"`{file.name}` is for {words[0]}, which does not exist"
    return ""


def _files(step: Step, context: StepContext) -> Iterator[tuple[str, Path]]:
    """Yield the words of the script that are files or folders."""
    for word in _WORDS.split(step.command):
        file = context.workspace / step.working_directory / word
        try:
            if word and file.exists():
                yield word, file
        except (OSError, ValueError):
            continue


def _commands(step: Step) -> list[str]:
    """Return the first words of the script's commands, as far as it is written plainly."""
    found = []
    for piece in _BETWEEN_COMMANDS.split(step.command):
        words = dropwhile(lambda word: word in _BEFORE_COMMANDS or "=" in word, piece.split())
        word = next(words, "")
        if re.fullmatch(r"[\w./+-]*[A-Za-z_][\w./+-]*", word):
            found.append(word)
    return found


def _names_in(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
