"""Runs the steps of `action.yml` as GitHub's runner does: the same scripts and environment, pipes, real signals.

Artifacts of the workflow run are folders, whose names are taken once.

Source: actions/runner, ScriptHandler.cs (the shell), ProcessInvoker.cs (SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL, to the
entry process alone).
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cli import Workspace, workspace
from program_server import stand_in

from runnable_ci.github.action.job_environment import keep

ACTION: dict[str, Any] = yaml.safe_load((Path(__file__).parent.parent / "action.yml").read_text(encoding="utf-8"))
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}
GRACE_S = ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5), (signal.SIGKILL, 30.0))
PIPELINE = """
name = "flowers"
[parameters]
rate = 2
[steps.load]
run = '''
echo "read $RANDOM$RANDOM" | tee data.txt
echo "rows=3" >> "$RUNNABLE_OUTPUT"
'''
returns = { rows = "metric" }
catalog = { put = ["data.txt"] }
[steps.fit]
run = "cat data.txt; echo rate $rate; test -e fixed"
catalog = { get = ["data.txt"] }
"""
_EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")


@dataclass(frozen=True)
class Stepped:
    """How a step ended."""

    code: int
    text: str
    """stdout and stderr together, as the log has them."""


@dataclass
class ActionRun:
    """One use of the action in a job; every step sees what the earlier ones put out."""

    workspace: Path
    temp: Path
    environ: dict[str, str]
    inputs: dict[str, str]
    matrix: Any = None
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """What steps wrote to `GITHUB_ENV`; and what to `GITHUB_PATH`."""
    paths: list[str] = field(default_factory=list)
    summary: str = ""
    outcomes: dict[str, str] = field(default_factory=dict)
    """How each step ended."""
    artifacts: Path | None = None
    """Where the workflow run has its artifacts; None on a server that takes none."""
    is_page_refused: bool = False
    """Whether the upload of the run's page fails."""
    context: dict[str, str] = field(default_factory=dict)
    """What expressions such as `github.action` and `job.check_run_id` are in this job."""
    is_quick: bool = True
    """Whether a step that runs to its end may be a fork of a process that has loaded the program; none after one that
    set a variable for it.
    """

    def all(self) -> Stepped:
        """All steps of the action; the exit code is the one that the job sees."""
        text = self.download()
        ran = self.step("run")
        finished = self.step("finish")
        told = self.upload() + self.comment()
        return Stepped(ran.code or finished.code, text + ran.text + finished.text + told)

    def download(self) -> str:
        """Bring what earlier attempts left, or other jobs, where the action looks for it; what its own step said."""
        is_again = (
            int(self.environ["GITHUB_RUN_ATTEMPT"]) > 1
            and self._evaluate("${{ inputs.command }}") in ("run", "retry")
            and self._evaluate("${{ inputs.resume }}") != "never"
        )
        shared = (self._evaluate(f"${{{{ inputs.{name} }}}}") for name in ("steps", "matrix-of", "collect"))
        if not is_again and not any(given not in ("", "false") for given in shared):
            self.outcomes["download"] = "skipped"
            return ""
        found = self.step("earlier")
        assert found.code == 0, found.text
        outputs = self.outputs["earlier"]
        if "pattern" not in outputs:
            self.outcomes["download"] = "skipped"
            return found.text
        self.outcomes["download"] = "success" if self.artifacts else "failure"
        names = (
            fnmatch.filter([path.name for path in self.artifacts.iterdir()], outputs["pattern"])
            if self.artifacts
            else []
        )
        for name in names:
            assert self.artifacts
            target = Path(outputs["path"]) / (name if len(names) > 1 else "")  # as actions/download-artifact has it
            shutil.copytree(self.artifacts / name, target, dirs_exist_ok=True)
        return found.text

    def upload(self) -> str:
        """Keep what the action leaves, and return what it says of that; the server refuses a name that it has."""
        outputs = self.outputs["finish"]
        shown = self._upload_page(outputs.get("page", ""))
        if not outputs.get("artifact"):
            return shown
        if self.artifacts:
            shutil.copytree(outputs["artifact-path"], self.artifacts / outputs["artifact"])
        self.outcomes["upload"] = "success" if self.artifacts else "failure"
        reported = self.step("report")
        assert reported.code == 0, reported.text
        return reported.text + shown

    def _upload_page(self, page: str) -> str:
        """Keep the page of the run as it is, under its own name."""
        if not (page and self.artifacts) or self.is_page_refused:
            return ""
        name = Path(page).name
        kept = self.artifacts.with_name(f"{self.artifacts.name}-as-they-are")
        kept.mkdir(exist_ok=True)
        shutil.copy(page, kept)
        self.outputs["page"] = {"artifact-url": f"https://github.com/artifacts/{name}"}
        linked = self.step("page-link")
        assert linked.code == 0, linked.text
        return linked.text

    def comment(self) -> str:
        """Write on the pull request what the action has prepared, and return what it says of that."""
        if not self.outputs["finish"].get("message"):
            return ""
        written = self.step("comment")
        assert written.code == 0, written.text
        return written.text

    def step(self, name: str) -> Stepped:
        """Run a step to its end."""
        process = self.start(name, is_quick=self.is_quick and not self.variables and not self.paths)
        text, _ = process.communicate(timeout=60)
        return self._ended(name, process.returncode, text)

    def cancel(self, name: str, process: subprocess.Popen[bytes]) -> tuple[Stepped, signal.Signals]:
        """Cancel a step as the runner does; how it ended, and by which signal."""
        for number, wait_s in GRACE_S:
            process.send_signal(number)
            try:
                text, _ = process.communicate(timeout=wait_s)
            except subprocess.TimeoutExpired:
                continue
            return self._ended(name, process.returncode, text), number
        raise AssertionError("the step outlived SIGKILL")

    def start(self, name: str, *, is_quick: bool = False) -> subprocess.Popen[bytes]:
        """Start a step."""
        step = STEPS[name]
        if "setup" not in self.outputs:
            self.outputs["setup"] = self._set_up()
        self.outputs["setup"]["python"] = stand_in() if is_quick else sys.executable
        script = self.temp / f"{name}.sh"
        script.write_text(step["run"])
        for file in ("output", "summary", "env", "path", "state"):
            (self.temp / f"{name}.{file}").write_text("")
        return subprocess.Popen(
            shlex.split(step["shell"].replace("{0}", str(script))),
            cwd=self.workspace / self._evaluate(step.get("working-directory", ".")),
            env=self.environment(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _set_up(self) -> dict[str, str]:
        """What the set-up puts out where this Python has everything already."""
        folder = self.temp / "runnable-ci"
        folder.mkdir(parents=True, exist_ok=True)
        return {
            "python": sys.executable,
            "environment": str(keep(self.environment("setup"), folder)),
            "library-path": self.environ.get("LD_LIBRARY_PATH", ""),
        }

    def environment(self, name: str) -> dict[str, str]:
        """A step's environment: what the step says goes first, then what earlier ones wrote for it."""
        said = {key: self._evaluate(str(value)) for key, value in STEPS.get(name, {"env": {}})["env"].items()}
        environ = self.environ | self.variables
        path = os.pathsep.join([*reversed(self.paths), environ["PATH"]])
        runner = {
            "PATH": path,
            "GITHUB_ACTIONS": "true",
            "CI": "true",
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_OUTPUT": str(self.temp / f"{name}.output"),
            "GITHUB_STEP_SUMMARY": str(self.temp / f"{name}.summary"),
            "GITHUB_ENV": str(self.temp / f"{name}.env"),
            "GITHUB_PATH": str(self.temp / f"{name}.path"),
            "GITHUB_STATE": str(self.temp / f"{name}.state"),
            "GITHUB_WORKSPACE": str(self.workspace),
        }
        return environ | said | runner

    def _ended(self, name: str, code: int, text: bytes) -> Stepped:
        self.outcomes[name] = "failure" if code else "success"
        self.outputs[name] = assigned((self.temp / f"{name}.output").read_text())
        self.variables |= assigned((self.temp / f"{name}.env").read_text())
        self.paths += (self.temp / f"{name}.path").read_text().splitlines()
        self.summary += (self.temp / f"{name}.summary").read_text()
        return Stepped(code, text.decode())

    def _evaluate(self, value: str) -> str:
        def term(word: str) -> str:
            kind, _, rest = word.strip().partition(".")
            match kind:
                case "inputs":
                    default = str(ACTION["inputs"][rest].get("default", ""))
                    return self.inputs[rest] if rest in self.inputs else self._evaluate(default)
                case "github" | "job":
                    return self.context.get(word.strip(), "")
                case "env":
                    return self.environ.get(rest, "")
                case "steps":
                    if rest.endswith(".outcome"):
                        return self.outcomes.get(rest.removesuffix(".outcome"), "")
                    step, _, output = rest.partition(".outputs.")
                    return self.outputs.get(step, {}).get(output, "")
                case "toJSON(matrix)":
                    return json.dumps(self.matrix, indent=2)
            raise AssertionError(f"no such expression here: {word}")

        return _EXPRESSION.sub(lambda found: next(filter(None, map(term, found[1].split("||"))), ""), value)


class Repository:
    """A repository whose jobs use the action."""

    def __init__(self, tmp_path: Path, registry: str, files: Mapping[str, str], *, is_quick: bool = True) -> None:
        self.tmp_path = tmp_path
        self.registry = registry
        self.files = files
        self.is_quick = is_quick
        self.jobs = 0
        self.artifacts = tmp_path / "artifacts"
        self.artifacts.mkdir()

    def job(
        self,
        *,
        attempt: int = 1,
        files: Mapping[str, str] | None = None,
        event: Mapping[str, object] | None = None,
        variables: Mapping[str, str] | None = None,
        matrix: object = None,
        context: Mapping[str, str] | None = None,
        at: Workspace | None = None,
        given: Mapping[str, str] | None = None,
        **inputs: str,
    ) -> tuple[ActionRun, Workspace]:
        """A job in a workspace of its own, on, so to say, a new machine."""
        self.jobs += 1
        folder = self.tmp_path / f"job-{self.jobs}"
        folder.mkdir()
        project = at or workspace(folder, {**self.files, **(files or {})})
        (folder / "event.json").write_text(json.dumps(event or {}))
        environ = {
            **project.environ,
            "GITHUB_REPOSITORY": "octo/flowers",
            "GITHUB_RUN_ID": "1000",
            "GITHUB_RUN_ATTEMPT": str(attempt),
            "GITHUB_JOB": "train",
            "GITHUB_REF": "refs/heads/main",
            "GITHUB_SHA": project.git("rev-parse", "HEAD"),
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_EVENT_PATH": str(folder / "event.json"),
            **(variables or {}),
        }
        wanted = {"registry": self.registry, "token": "ghs_" + "t0K3n" * 8, **inputs, **(given or {})}
        named = {name.replace("_", "-"): value for name, value in wanted.items()}
        found = ActionRun(project.folder, folder / "temp", environ, named, matrix=matrix, artifacts=self.artifacts)
        found.context = dict(context or {})
        found.is_quick = self.is_quick
        return found, project


def assigned(text: str) -> dict[str, str]:
    """What a file of the runner's assigns; anything that the runner would refuse is a failure.

    Source: actions/runner, FileCommandManager.cs, `EnvFileKeyValuePairs`.
    """
    found: dict[str, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            found[line[:equals]] = line[equals + 1 :]
            continue
        assert heredoc > 0, f"the runner refuses {line!r}"
        name, end = line[:heredoc], line[heredoc + 2 :]
        value = []
        for inner in lines:
            if inner == end:
                break
            value.append(inner)
        else:
            raise AssertionError(f"{name} has no end")
        found[name] = "\n".join(value)
    return found
