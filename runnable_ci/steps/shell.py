"""Shell steps: a script for a shell, parameters as environment variables, returns through a file."""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from runnable_ci.errors import StepError
from runnable_ci.pipeline.schema import Kind
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.validation import not_json
from runnable_ci.pipeline.values.value_reader import environment_text, read_json, read_metric, read_untyped
from runnable_ci.runs.model import Parameter
from runnable_ci.steps.base import ProcessSpec, StepContext, StepResult
from runnable_ci.util.process import check_output
from runnable_ci.util.text import decode_text, format_size

OUTPUT_FILE = "output"
VALUES_FILE = "RUNNABLE_PARAMETERS"
"""The variable with the path of all parameters as JSON."""
OUTPUT_MAX_BYTES = 16 * 1024 * 1024
_SCANNED_MAX_BYTES = 1024 * 1024
_ARGUMENT_MAX_BYTES = 64 * 1024
_VARIABLE_MAX_BYTES: Final = 128 * 1024
"""Of one argument or variable; 32 pages of Linux."""
_ARGUMENTS_MAX_BYTES: Final = 6 * 1024 * 1024
"""Of all together, however large the stack may become."""
_ARGUMENTS_LEAST_BYTES: Final = 128 * 1024
_ARGUMENTS_SPARE_BYTES: Final = 16 * 1024
"""For what is added when it starts, and for programs that it starts with more of their own."""
_BETWEEN_WORDS = re.compile(r"""[\s'"();|&<>=`]+""")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
# As GitHub Actions starts them. The one without a name is for where bash is not installed, and sh knows `pipefail`, as
# that of Alpine does.
_SHELLS = {
    "bash": ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"),
    "": ("sh", "-eo", "pipefail", "-c"),
    "sh": ("sh", "-e", "-c"),
    "python": ("python", "-c"),
    "pwsh": ("pwsh", "-command"),
}
_TEMPLATES = {
    "bash": "bash --noprofile --norc -eo pipefail {0}",
    "": "sh -eo pipefail {0}",
    "sh": "sh -e {0}",
    "python": "python {0}",
    "pwsh": "pwsh -command . '{0}'",
}
_OF_THE_IMAGE = """command -v bash >/dev/null && exec bash --noprofile --norc -eo pipefail "$@"
(set -o pipefail) 2>/dev/null && exec sh -eo pipefail "$@"
exec sh -e "$@"
"""
"""Which shell an image has is not known before something runs in it."""
_WITHOUT_BASH = {
    "": "bash is not on PATH: `sh -eo pipefail` runs this step; `shell` names another",
    "sh": "bash is not on PATH: `sh -e` runs this step; it does not see a failure within a pipe; `shell` names another",
}


def prepare(step: Step, context: StepContext) -> ProcessSpec:
    """Return the process that runs a shell step.

    It gets the full environment, the step's `env`, and every json and metric parameter in scope (or those that the step
    lists) under its own name: text as it is, everything else as JSON; all of them as JSON in a file too, which has what
    is too large for the environment. Raises `StepError` for a listed one that is not there.
    """
    values = {name: context.parameters[name].value for name in received(step, context.parameters)}
    if missing := [name for name in step.parameters or () if name not in values]:
        raise StepError(
            f"step `{step.shown}` lists the parameter `{missing[0]}`, which no parameter or earlier step provides"
        )
    if broken := [name for name, value in values.items() if isinstance(value, str) and "\0" in value]:
        hint = "list the others: parameters = […]" if step.parameters is None else ""
        raise StepError(
            f"parameter `{broken[0]}` has a NUL character: an environment variable cannot contain it", hint=hint
        )
    output, file = context.scratch / OUTPUT_FILE, context.scratch / "parameters.json"
    output.touch()
    file.write_bytes(json.dumps(values).encode())
    is_images = step.container is not None and not step.shell
    shell = step.shell or ("sh" if is_images else _default_shell({**context.environ, **step.env}, context.workspace))
    argv = _argv(shell, step.command, context.scratch)
    if is_images:
        argv = ("sh", "-c", _OF_THE_IMAGE, "sh", *argv[2:])
    ours = {"RUNNABLE_OUTPUT": str(output), "RUNNABLE_STEP": step.name, VALUES_FILE: str(file)}
    variables = {name: environment_text(value) for name, value in values.items()}
    fitting = fitting_variables(variables, argv, {**context.environ, **step.env, **ours})
    left_out = [f"{name} ({format_size(len(variables[name].encode()))})" for name in variables if name not in fitting]
    return ProcessSpec(
        argv=argv,
        cwd=context.workspace / step.working_directory,
        env={**context.environ, **fitting, **step.env, **ours},
        given=tuple(values),
        notes=(
            *([f"too large for the environment, only in ${VALUES_FILE}: {', '.join(left_out)}"] if left_out else []),
            *([] if step.shell or is_images or shell == "bash" else [_WITHOUT_BASH[shell]]),
        ),
    )


def received(step: Step, parameters: Mapping[str, Parameter]) -> list[str]:
    """Return which of the parameters in scope a shell step receives."""
    plain = [name for name, parameter in parameters.items() if parameter.kind != "object"]
    return plain if step.parameters is None else [n for n in (*step.parameters, *step.arguments) if n in plain]


def takes(step: Step, workspace: Path, values: Mapping[str, Any]) -> Collection[str]:
    """Return which of these parameters a step is known to read: those that it lists, or mentions."""
    if step.parameters is not None:
        return [*step.parameters, *step.arguments]
    return list(values) if VALUES_FILE in step.command else _mentioned(step, workspace, values)


def mentions(step: Step, workspace: Path, words: Collection[str]) -> bool:
    """Return whether the script, or a file of the workspace that it names, has one of these words."""
    return bool(_mentioned(step, workspace, dict.fromkeys(words)))


def files_named(step: Step) -> Collection[str]:
    """Return the words of the script as paths from the workspace: those that are files are the ones that it names."""
    return {posixpath.normpath(f"{step.working_directory}/{word}") for word in _BETWEEN_WORDS.split(step.command)}


def collect(step: Step, context: StepContext) -> StepResult:
    """Return what the step wrote to `$RUNNABLE_OUTPUT`; a `problem` for what it should have written and did not."""
    from runnable_ci.pipeline.values.output_file import parse_output

    output = context.scratch / OUTPUT_FILE
    size = output.stat().st_size if output.exists() else 0
    if size > OUTPUT_MAX_BYTES:
        return StepResult(problem=f"$RUNNABLE_OUTPUT has {size} bytes, more than 16 MiB; store large data in a file")
    try:
        texts = parse_output(decode_text(output.read_bytes()) if size else "")
    except (StepError, ValueError) as e:
        return StepResult(problem=f"$RUNNABLE_OUTPUT: {e.message if isinstance(e, StepError) else e}")
    values: dict[str, Any] = {}
    for name, kind in step.returns.items():
        if name not in texts:
            return StepResult(problem=f"it did not return `{name}`: no line `{name}=…` in $RUNNABLE_OUTPUT")
        try:
            values[name] = _read(texts[name], kind)
        except ValueError as e:
            what = "metric" if kind == "metric" else "return"
            return StepResult(problem=f"the {what} `{name}` {e}: {texts[name][:100]}")
    return StepResult(values=values, undeclared=tuple(name for name in texts if name not in step.returns))


def partial_output(step: Step, context: StepContext) -> dict[str, Parameter]:
    """Return what a step that did not succeed had written to `$RUNNABLE_OUTPUT` until then."""
    from runnable_ci.pipeline.values.output_file import parse_output

    output = context.scratch / OUTPUT_FILE
    if not output.is_file() or output.stat().st_size > OUTPUT_MAX_BYTES:
        return {}
    texts = parse_output(output.read_bytes().decode(errors="replace"), is_whole=False)
    found = {}
    for name, text in texts.items():
        kind = step.returns.get(name, "auto")
        try:
            found[name] = Parameter.of_json(_read(text, kind), "metric" if kind == "metric" else "json")
        except ValueError:  # it is kept as it was written
            found[name] = Parameter.of_json(text)
    return found


def _read(text: str, kind: Kind) -> Any:
    """Return what a step wrote as a value of the declared kind; `ValueError` where it is none."""
    match kind:
        case "text":
            if problem := not_json(text):
                raise ValueError(f"cannot be kept, {problem}")
            return text
        case "metric":
            return read_metric(text)
        case "json":
            return read_json(text)
        case _:
            return read_untyped(text)


def _default_shell(environ: Mapping[str, str], workspace: Path) -> str:
    """Return bash; where it is not installed, as in many containers, sh as strict as it can be: `` or `sh`."""
    if shutil.which("bash", path=environ.get("PATH")):
        return "bash"
    asked = check_output([*_SHELLS[""], ":"], cwd=workspace, env=environ, timeout_s=10)
    return "sh" if asked is None and shutil.which("sh", path=environ.get("PATH")) else ""


def _argv(shell: str, script: str, scratch: Path) -> tuple[str, ...]:
    if shell in _SHELLS and len(script.encode(errors="surrogateescape")) < _ARGUMENT_MAX_BYTES:
        return (*_SHELLS[shell], script)
    file = scratch / ("script.ps1" if shell == "pwsh" else "script")
    file.write_text(script, encoding="utf-8", newline="\n")
    template = _TEMPLATES.get(shell, shell)
    return tuple(word.replace("{0}", str(file)) for word in template.split())


def _mentioned(step: Step, workspace: Path, values: Mapping[str, Any]) -> list[str]:
    """Return the parameters that the script names, or a file of the workspace that the script names."""
    if not values:
        return []
    text = step.command.encode(errors="surrogateescape")
    words = set(_WORD.findall(text))
    folder = workspace / step.working_directory
    for token in _BETWEEN_WORDS.split(step.command):
        file = folder / token
        try:
            if ("." in token or "/" in token) and file.is_file() and file.stat().st_size <= _SCANNED_MAX_BYTES:
                words.update(_WORD.findall(file.read_bytes()))
        except (OSError, ValueError):
            continue
    return [name for name in values if name.encode() in words]


def fitting_variables(
    variables: Mapping[str, str], argv: Sequence[str], environ: Mapping[str, str]
) -> Mapping[str, str]:
    """Return those of some variables that the system lets a program have beside `argv` and `environ`, small ones first.

    Source: execve(2), limits on size of arguments and environment.
    """
    limit = os.sysconf("SC_ARG_MAX")
    room = min(limit, _ARGUMENTS_MAX_BYTES) if limit > 0 else _ARGUMENTS_LEAST_BYTES
    room -= _ARGUMENTS_SPARE_BYTES + sum(map(_argument_size, [*argv, *(f"{k}={v}" for k, v in environ.items())]))
    fitting: set[str] = set()
    for size, name in sorted((_argument_size(f"{name}={text}"), name) for name, text in variables.items()):
        if size > min(room, _VARIABLE_MAX_BYTES):
            break
        fitting.add(name)
        room -= size
    return {name: text for name, text in variables.items() if name in fitting}


def _argument_size(text: str) -> int:
    """Return the bytes that a text takes of a new program's room: itself, its end and a pointer."""
    return len(text.encode(errors="surrogateescape")) + 1 + 8
