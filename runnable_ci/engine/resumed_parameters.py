"""The parameters of a retry: the run's own, what the pipeline file has new, what is given now, and secrets again."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from runnable_ci.engine.log_grants import refused_log, undeclared_parameters
from runnable_ci.engine.options import require_secret_names
from runnable_ci.engine.planning.plan import unread_parameters
from runnable_ci.engine.preflight import parameter_warnings
from runnable_ci.engine.provenance.changes import same_json
from runnable_ci.engine.session import RunSession
from runnable_ci.errors import RunLogError, UsageError
from runnable_ci.pipeline.parameters import (
    PARAMETER_PREFIX,
    KnownParameters,
    ParameterSource,
    assemble_parameters,
    environment_parameters,
    parse_param_options,
    read_params_files,
)
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.model import RunLog
from runnable_ci.runs.reader import given_here
from runnable_ci.util.text import listed, truncate

_NAMED_MAX = 5


class ResumedParameters(NamedTuple):
    """What a retry runs with."""

    values: Mapping[str, Any]
    """As they really are."""
    redactor: Redactor
    """Knows all secrets of the invocation."""
    notes: Sequence[str]
    """What a person should know about them."""


def resume_parameters(
    session: RunSession,
    log: RunLog,
    options: Sequence[str],
    *,
    files: Sequence[Path] = (),
    typed: Collection[str] = (),
) -> ResumedParameters:
    """Return the parameters of a retry, of which some are given in `files` and, as `NAME=VALUE`, by `options`.

    Of `typed` ones that no step takes, those that are close to a known name are refused.

    Raises `UsageError`, and `RunLogError` for a log that gives what no parameter may be: it may come from anywhere.
    """
    pipeline = session.project.pipeline
    last = log.invocations[-1].parameters if log.invocations else {}
    recorded = ParameterSource(refused_log(log), last, RunLogError).values
    redacted = log.invocations[-1].redacted if log.invocations else []
    readable = {name: value for name, value in recorded.items() if name not in redacted}
    known = KnownParameters.of(pipeline).after(readable, f"run {log.run_id}")
    in_files = read_params_files(files, known)
    given = in_files | parse_param_options(options, known.after(in_files, "--params-file"))
    again = _given_again(session, log, given)
    redactor = session.redactor({**pipeline.parameters, **given}).knowing(texts(list(again.values())))
    original = {**recorded, **again}
    added = {name: value for name, value in pipeline.parameters.items() if name not in original and name not in given}
    values = assemble_parameters(pipeline, original, added, given)
    require_secret_names(pipeline, values, session.options)
    notes = [
        *_differences(pipeline.parameters, recorded, added, {*given, *again}, pipeline.file, redactor),
        *_ignored_variables(session, values, {*given, *again}, redactor),
        *_doubts(session, log, original, given, typed),
    ]
    return ResumedParameters(values, redactor, notes)


def _differences(
    in_file: Mapping[str, Any],
    recorded: Mapping[str, Any],
    added: Mapping[str, Any],
    replaced: set[str],
    file: str,
    redactor: Redactor,
) -> Iterator[str]:
    """Yield what the pipeline file says otherwise than the run log."""
    for name, value in added.items():
        yield f"parameter {name} = {_shown(value, redactor)} is new in {file}"
    for name, value in in_file.items():
        if name in recorded and name not in replaced and not same_json(recorded[name], value):
            yield (
                f"parameter {name} is {_shown(value, redactor)} in {file}; "
                f"the run keeps its {_shown(recorded[name], redactor)} (--param {name}=… changes it)"
            )


def _ignored_variables(
    session: RunSession, values: Mapping[str, Any], taken: set[str], redactor: Redactor
) -> Iterator[str]:
    """Yield the variables that would set a parameter of a new run, and not one of a resumed run."""
    environ = session.options.environ
    known = KnownParameters.of(session.project.pipeline).after(values, "the run")
    for variable in sorted(filter(_is_parameter, environ)):
        name = variable.removeprefix(PARAMETER_PREFIX).partition(".")[0]
        set_there: dict[str, Any] = {}
        with suppress(UsageError):  # what no parameter may be
            set_there = environment_parameters({variable: environ[variable]}, known)
        if not set_there or name in taken or (name in values and same_json(values[name], set_there[name])):
            continue
        keeps = f"keeps {name} = {_shown(values[name], redactor)}" if name in values else f"has no parameter {name}"
        yield f"{variable} is for new runs: this one {keeps} (--param {name}=… changes that)"


def _is_parameter(variable: str) -> bool:
    return variable.startswith(PARAMETER_PREFIX)


def _shown(value: Any, redactor: Redactor) -> str:
    return truncate(json.dumps(redactor.value(value), ensure_ascii=False))


def _doubts(
    session: RunSession, log: RunLog, original: Mapping[str, Any], given: Mapping[str, Any], typed: Collection[str]
) -> Iterator[str]:
    """Yield what is odd about the parameters that are given: nobody may read them."""
    pipeline, workspace = session.project.pipeline, session.project.workspace
    changed = [name for name, value in given.items() if name not in original or not same_json(original[name], value)]
    warnings = parameter_warnings(pipeline, workspace, given, known={**pipeline.declared(), **original}, typed=typed)
    yield from warnings.values()
    for name in unread_parameters(changed, pipeline, log):
        if name not in warnings:
            yield f"no completed step reads {name}: none is re-run for it (--from STEP does)"


def _given_again(session: RunSession, log: RunLog, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's parameters that its log cannot give, as they are given again.

    Those are secrets, of which it has masks, and what the pipeline file does not declare. The file gives a secret only
    where that too is one: else the run had another value. Raises `UsageError`.
    """
    pipeline = session.project.pipeline
    redacted = log.invocations[-1].redacted if log.invocations else []
    parameters = log.invocations[-1].parameters if log.invocations else {}
    recorded = {name: value for name, value in parameters.items() if name not in redacted}
    undeclared = undeclared_parameters(recorded, pipeline, given_here(session.project.layout, log.run_id))
    redactor = session.redactor(pipeline.parameters)
    secrets = {name: value for name, value in pipeline.parameters.items() if redactor.value(value) != value}
    needed = [*redacted, *undeclared]
    in_environment = environment_parameters(session.options.environ, KnownParameters.of(pipeline), only=needed)
    places = {**secrets, **in_environment, **given}
    again = {name: places[name] for name in needed if name in places}
    if missing := [name for name in redacted if name not in again]:
        raise UsageError(
            f"parameter {missing[0]} is a secret: its value is not in the run log",
            hint=f"specify it again: --param {missing[0]}=…, or {PARAMETER_PREFIX}{missing[0]} in the environment",
        )
    if missing := [name for name in undeclared if name not in again]:
        raise _undeclared(log, pipeline.file, {name: redactor.value(recorded[name]) for name in missing})
    return again


def _undeclared(log: RunLog, file: str, values: Mapping[str, Any]) -> UsageError:
    listing = listed((f"{truncate(name)} = {truncate(value)}" for name, value in values.items()), at_most=_NAMED_MAX)
    options = " ".join(f"--param {truncate(name)}=…" for name in list(values)[:_NAMED_MAX])
    return UsageError(
        f"run `{log.run_id}` has a parameter that {file} does not declare, and that was not specified here: {listing}",
        hint=f"specify `{options}` again, or declare it under [parameters]",
    )
