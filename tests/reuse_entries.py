"""Runs and entries of an index of results, made without the program."""

from __future__ import annotations

from typing import Any

from runnable_ci.observe.reads import FileRead, ReadSet
from runnable_ci.pipeline.pipeline_identity import PipelineIdentity
from runnable_ci.runs.machines.environment_model import Environment
from runnable_ci.runs.model import SUCCESS, CatalogEntry, Invocation, RunLog, StepAttempt, StepLog
from runnable_ci.runs.reuse.entries import ResultHolder, ReuseEntry, entries_of

CONFIG = {"pipeline_file": "runnable.toml", "pipeline_base": "repository", "pipeline_is_named": True}
PIPELINE = PipelineIdentity.recorded("n", CONFIG).key()
READS = ReadSet(files={"a.txt": FileRead(digest="0" * 64)})
MANIFEST = f"sha256:{'a' * 64}"
T = "2026-01-01T00:00:{:02}+00:00"


def digest(number: int) -> str:
    return f"{number:064x}"


def attempt(second: int = 1, **fields: Any) -> StepAttempt:
    made = {
        "status": SUCCESS,
        "outcome": "succeeded",
        "start_time": T.format(0),
        "end_time": T.format(second),
        "reads": digest(7),
        "reads_size": len(READS.encode()),
        "environment": "e",
        "definition": {"run": "x"},
    }
    return StepAttempt(**{**made, **fields})


def log_of(*, run_id: str = "r", ref: str = "main", **steps: StepAttempt) -> RunLog:
    """A run on a branch, whose steps each put a file."""
    return RunLog(
        run_id=run_id,
        name="n",
        run_config=CONFIG,
        end_time=T.format(59),
        steps={
            key.replace("_in_", "."): StepLog(
                name=key.replace("_in_", "."),
                internal_name=key.replace("_in_", "."),
                status=it.status,
                outcome=it.outcome,
                attempts=[it],
                data_catalog=[CatalogEntry(name=f"{key}.bin", data_hash=digest(len(key)), stage="put", size=3)],
            )
            for key, it in steps.items()
        },
        invocations=[Invocation(number=1, command="run", start_time=T.format(0), identity=f"id-{run_id}", actor="ada")],
        environments={"e": Environment(os="Linux", variables={"GITHUB_REF": f"refs/heads/{ref}"})},
    )


def made_entries(log: RunLog, manifest: str = MANIFEST, document: bytes | None = READS.encode()) -> list[ReuseEntry]:
    return list(entries_of(log, manifest=manifest, reads_of=lambda _: document))


def entry(step: str = "s", inputs: str = "i", second: int = 0, *, run: str = "r", holder: int = 1) -> ReuseEntry:
    return ReuseEntry(
        pipeline=PIPELINE,
        step=step,
        run_id=run,
        identity=f"id-{run}",
        ended=T.format(second),
        inputs=inputs,
        refs=["main"],
        held_by=[ResultHolder(manifest=f"sha256:{digest(holder)}", run_id=run, ended=T.format(second))],
        reads={"version": 1},
        log={"run_id": run, "environments": {"e": {"os": "Linux"}}, "steps": {}},
    )
