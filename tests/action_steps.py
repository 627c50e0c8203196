"""Runs the steps of `action.yml` as GitHub's runner does: the same scripts and environment, pipes, real signals.

Source: actions/runner, ScriptHandler.cs (the shell), ProcessInvoker.cs (SIGINT, 7.5 s, SIGTERM, 2.5 s, SIGKILL, to the
entry process alone).
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from runnable_ci.github.action.job_environment import keep

ACTION: dict[str, Any] = yaml.safe_load((Path(__file__).parent.parent / "action.yml").read_text(encoding="utf-8"))
STEPS: dict[str, dict[str, Any]] = {step["id"]: step for step in ACTION["runs"]["steps"] if "id" in step}
GRACE_S = ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5), (signal.SIGKILL, 30.0))
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
    outcome: str = ""
    """How the step `run` ended."""

    def all(self) -> Stepped:
        """Both steps of the action; the exit code is the one that the job sees."""
        ran = self.step("run")
        finished = self.step("finish")
        return Stepped(ran.code or finished.code, ran.text + finished.text)

    def step(self, name: str) -> Stepped:
        """Run a step to its end."""
        process = self.start(name)
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

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start a step."""
        step = STEPS[name]
        if "setup" not in self.outputs:
            self.outputs["setup"] = self._set_up()
        script = self.temp / f"{name}.sh"
        script.write_text(step["run"])
        for file in ("output", "summary", "env", "path", "state"):
            (self.temp / f"{name}.{file}").write_text("")
        return subprocess.Popen(
            shlex.split(step["shell"].replace("{0}", str(script))),
            cwd=self.workspace / self._evaluate(step["working-directory"]),
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
        if name == "run":
            self.outcome = "failure" if code else "success"
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
                case "github":
                    return ""
                case "env":
                    return self.environ.get(rest, "")
                case "steps":
                    if rest == "run.outcome":
                        return self.outcome
                    step, _, output = rest.partition(".outputs.")
                    return self.outputs.get(step, {}).get(output, "")
                case "toJSON(matrix)":
                    return json.dumps(self.matrix, indent=2)
            raise AssertionError(f"no such expression here: {word}")

        return _EXPRESSION.sub(lambda found: next(filter(None, map(term, found[1].split("||"))), ""), value)


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
