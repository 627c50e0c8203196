"""A run as its events: it failed, was fixed, retried and succeeded."""

from __future__ import annotations

import hashlib
from typing import Any

from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.events import (
    AttemptSaved,
    Decided,
    EnvironmentRecorded,
    Event,
    InvocationFinished,
    PackStored,
    Started,
    encode_event,
)
from runnable_ci.runs.events import decode_events as decode
from runnable_ci.runs.files.log_file import LogFile
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import (
    FAIL,
    SUCCESS,
    CatalogEntry,
    DecisionRecord,
    ExceptionInfo,
    Invocation,
    Pack,
    Parameter,
    RunLog,
    StepAttempt,
)

RUN_ID = "best-hamilton-0300"


def sha256(text: str) -> str:
    """The hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def moment(second: int) -> str:
    """A time of the run."""
    return f"2024-08-10T03:00:{second:02}.000000+00:00"


CLEAN = CodeIdentity(
    code_identifier="259904152753ccb326ab71804ac6b2f343ee6182",
    code_identifier_dependable=True,
    code_identifier_url="https://github.com/owner/iris.git",
    ref="main",
)
DIRTY = CLEAN.model_copy(
    update={
        "code_identifier_dependable": False,
        "code_identifier_message": "modified: iris.py",
        "changes": {"iris.py": ("modified", sha256("iris.py"))},
        "snapshot": sha256("snapshot"),
        "snapshot_size": 2048,
    }
)


def file(name: str, content: str, stage: str = "put", **more: Any) -> CatalogEntry:
    """A file of an attempt."""
    return CatalogEntry(
        name=name,
        data_hash=sha256(content),
        catalog_relative_path=f"{RUN_ID}/{name}",
        stage=stage,
        size=len(content),
        media_type="image/png" if name.endswith(".png") else "text/csv",
        **more,
    )


def pickle_of(name: str, content: str) -> dict[str, Parameter]:
    """A returned object."""
    digest = sha256(content)
    return {name: Parameter.of_object(name, data_hash=digest, size=len(content), object_type="numpy.ndarray")}


def attempt(number: int, second: int, code: CodeIdentity = CLEAN, **more: Any) -> StepAttempt:
    """An attempt that began at a second of the run; it succeeded if nothing else is said."""
    given = {"status": SUCCESS, "exit_code": 0, "end_time": moment(second + 1), "environment": "e1", **more}
    given.setdefault("outcome", "succeeded" if given["status"] == SUCCESS else "failed")
    return StepAttempt(
        attempt_number=number,
        invocation=number,
        start_time=moment(second),
        reason="first attempt",
        code_identities=[code],
        definition={"python": "iris:f", "needs": []},
        **given,
    )


def begun(finished: StepAttempt) -> StepAttempt:
    """An attempt as it was when it began."""
    kept = {"attempt_number", "invocation", "start_time", "reason", "code_identities", "definition"}
    return StepAttempt(**{name: value for name, value in finished if name in kept})


def saved(step: str, finished: StepAttempt, *entries: CatalogEntry) -> list[Event]:
    """The beginning and the end of an attempt."""
    return [
        AttemptSaved(step=step, attempt=begun(finished)),
        AttemptSaved(step=step, attempt=finished, data_catalog=list(entries)),
    ]


def started(number: int, second: int) -> Started:
    """The run is opened."""
    invocation = Invocation(
        number=number,
        command="run" if number == 1 else "retry",
        start_time=moment(second),
        parameters={"rate": 0.3},
        identity="c0ffee" if number == 1 else "",
        actor="Ada" if number == 1 else "Bob",
    )
    return Started(run_id=RUN_ID, name="iris", dag_hash="36d6", run_config={"jobs": 2}, invocation=invocation)


def events(packed: int = 3) -> list[Event]:
    """The events of the run; its first step puts that many packed files."""
    data = [file(f"data/{i:04}.csv", f"content {i}") for i in range(packed)]
    members = {entry.data_hash: (512 + 1024 * i, entry.size) for i, entry in enumerate(data)}
    rate = {"rate": Parameter.of_json(0.3)}
    output = LogFile(
        data_hash=sha256("log"), size=9, stdout_bytes=4, stderr_bytes=5, index_hash=sha256("index"), index_size=8
    )
    load = attempt(1, 1, input_parameters=rate, output_parameters=pickle_of("X", "X of load"), log=output)
    failure = ExceptionInfo(type="ValueError", message="no ünits\nat all", traceback="…", file="iris.py", line=3)
    failed = attempt(1, 3, status=FAIL, exit_code=1, message="ValueError: no ünits (iris.py:3)", exception=failure)
    again = attempt(
        2,
        11,
        DIRTY,
        input_parameters={**rate, **pickle_of("X", "X of load")},
        output_parameters=pickle_of("X", "X of fit"),
        user_defined_metrics={"score": Parameter.of_json(0.6, "metric")},
        modules={"iris.py": sha256("iris.py")},
        function_hash=sha256("f"),
        defaulted=["depth"],
    )
    plot = attempt(2, 13, DIRTY)
    return [
        started(1, 0),
        EnvironmentRecorded(key="e1", environment=Environment(os="Linux", cpu_count=2, packages={"numpy": "2.0"})),
        PackStored(digest=sha256("pack"), pack=Pack(size=1024 * packed, members=members)),
        *saved("load", load, *data),
        *saved("fit", failed, file("model.csv", "half a model")),
        Decided(step="plot", decision=DecisionRecord(action="skip", reason="`fit` failed")),
        InvocationFinished.of("failed", time=moment(5), message="failed: fit"),
        started(2, 10),
        Decided(step="load", decision=DecisionRecord(action="reuse", reason="unchanged since attempt 1")),
        *saved("fit", again, file("data/0000.csv", "content 0", "get", source="load"), file("model.csv", "a model")),
        *saved("plot", plot, file("iris_logistic.png", "pixels"), file("model.csv", "a better model")),
        InvocationFinished.of("succeeded", time=moment(15)),
    ]


def journal(packed: int = 3) -> list[bytes]:
    """The lines of the run's journal."""
    return [encode_event(event) for event in events(packed)]


def run_log(packed: int = 3) -> RunLog:
    """The run."""
    log = decode(journal(packed), where="journal")
    assert log is not None
    return log
