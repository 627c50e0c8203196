"""A run of a random pipeline that failed and was resumed equals one that did not fail, but for times and attempts.

The pipelines have matrices (written out, and of lists that steps return), chains of them, loops, steps of other files,
conditions and tries. `RANDOM_RUNS` says how many of them are run, `RANDOM_SEED` from which seed on.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli import Workspace, workspace

from runnable_ci.runs.model import RunLog

RUNS = int(os.environ.get("RANDOM_RUNS", "4"))
SEED = int(os.environ.get("RANDOM_SEED", "0"))
TRIES = float(os.environ.get("RANDOM_TRIES", "0.25"))
SCRIPT = """
here="NAME-${axis:-}-${RUNNABLE_STEP:-}"
[ ! -e "$BROKEN/NAME" ] && [ ! -e "$BROKEN/NAME-${axis:-}" ] || exit 5
FLAKY
sum=$(printf '%s' "TAKEN ${axis:-}" | cksum | cut -d ' ' -f 1)
echo "v_NAME=$sum" >> "$RUNNABLE_OUTPUT"
LIST
FILE
"""


@dataclass
class Generator:
    """A random pipeline as TOML, with what may be broken in it."""

    random: random.Random
    files: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    """Step → the value that it returns."""
    lists: dict[str, str] = field(default_factory=dict)
    needs: dict[str, list[str]] = field(default_factory=dict)
    matrices: dict[str, str] = field(default_factory=dict)
    breakable: list[str] = field(default_factory=list)

    def pipeline(self) -> str:
        """Return the text of a pipeline of three to six steps."""
        steps = [self._step(f"s{i}") for i in range(self.random.randint(3, 6))]
        return "[parameters]\nseed = 4\n" + "".join(steps)

    def _above(self, name: str) -> set[str]:
        return {above for need in self.needs[name] for above in (need, *self._above(need))}

    def _step(self, name: str) -> str:
        chance = self.random.random
        earlier = list(self.values)
        self.needs[name] = self.random.sample(earlier, min(len(earlier), self.random.randint(0, 2)))
        above = sorted(self._above(name))
        taken = [self.values[one] for one in above if chance() < 0.5]
        lines = [f"[steps.{name}]", f"needs = {json.dumps(self.needs[name])}"]
        matrix = self._matrix(above)
        if chance() < 0.15:
            lines.append(f'if = "{self.random.choice(["parameters.seed > 3", "parameters.seed > 9", "always()"])}"')
        if matrix:
            self.matrices[name] = matrix
            lines.append(f"strategy = {{ matrix = {{ axis = {matrix} }}, fail-fast = {json.dumps(chance() < 0.5)} }}")
        flaky = chance() < TRIES
        loops = not matrix and chance() < 0.2
        script = self._script(name, taken, flaky=flaky)
        if loops:
            script += f'echo "c_{name}=$((${{c_{name}:-0}} + 1))" >> "$RUNNABLE_OUTPUT"\n'
            lines.append(f'loop = {{ until = "parameters.c_{name} >= 2", max = 4 }}')
        self.breakable += [name, *(f"{name}-{axis}" for axis in ("p", "q", "r") if matrix)]
        self.values[name] = f"v_{name}"
        if not loops and chance() < 0.15:
            part = f"part-{name}.toml"
            self.files[part] = f"[steps.inner]\nrun = '''{script}'''\nreturns = [\"v_{name}\"]\n" + (
                "attempts = 2\n" if flaky else ""
            )
            return "\n".join([*lines, f'uses = "{part}"', ""])
        returns = [f"v_{name}", *([f"c_{name}"] if loops else [])]
        if not matrix and "l_" in script:
            self.lists[name] = f"l_{name}"
            returns.append(f"l_{name}")
        if flaky:
            lines.append("attempts = 2")
        put = f"out/{name}/${{{{ matrix.axis }}}}.txt" if matrix else f"out/{name}.txt"
        lines += [f"returns = {json.dumps(returns)}", f'catalog = {{ put = ["{put}"] }}', f"run = '''{script}'''", ""]
        return "\n".join(lines)

    def _matrix(self, above: list[str]) -> str:
        chance = self.random.random()
        if (lists := [self.lists[one] for one in above if one in self.lists]) and chance < 0.5:
            return f'"${{{{ parameters.{self.random.choice(lists)} }}}}"'
        if (shared := [self.matrices[one] for one in above if one in self.matrices]) and chance < 0.6:
            return self.random.choice(shared)
        return json.dumps(self.random.sample(["p", "q", "r"], self.random.randint(0, 3))) if chance > 0.75 else ""

    def _script(self, name: str, taken: list[str], *, flaky: bool) -> str:
        tried = f'[ -e "$TRIED/{name}-${{axis:-}}" ] || {{ touch "$TRIED/{name}-${{axis:-}}"; exit 7; }}'
        names = '[\\"p\\", \\"q\\"]' if self.random.random() < 0.5 else '[\\"q\\", \\"r\\", \\"p\\"]'
        gives_list = self.random.random() < 0.5
        parts = {
            "FLAKY": tried if flaky else "",
            "TAKEN": " ".join(f"${{{one}:-none}}" for one in taken),
            "LIST": f'echo "l_{name}={names}" >> "$RUNNABLE_OUTPUT"' if gives_list else "",
            "FILE": f'mkdir -p out/{name}; echo "$sum" | tee "out/{name}.txt" > "out/{name}/${{axis:-none}}.txt"',
            "NAME": name,
        }
        text = SCRIPT
        for word, meaning in parts.items():
            text = text.replace(word, meaning)
        return text


def outline(log: RunLog) -> dict[str, Any]:
    """Return what must be the same: what each step became, its values and files, and the values of the run."""
    steps = {
        name: [
            step.status,
            step.step_type,
            [one.name for one in step.instances],
            {n: p.value for n, p in step.attempts[-1].output_parameters.items()} if step.attempts else {},
            {entry.name: entry.data_hash for entry in step.put_entries()},
        ]
        for name, step in log.steps.items()
    }
    return {
        "status": log.status,
        "steps": dict(sorted(steps.items())),
        "values": {name: parameter.value for name, parameter in sorted(log.parameters.items())},
    }


def unbroken(tmp_path: Path, name: str, files: dict[str, str]) -> tuple[Workspace, dict[str, str]]:
    """Return a project and the folders outside of it that say what is broken, and what was tried."""
    (tmp_path / name).mkdir()
    project = workspace(tmp_path / name, {**files, ".gitignore": "out/\n"})
    folders = {"BROKEN": tmp_path / name / "broken", "TRIED": tmp_path / name / "tried"}
    for folder in folders.values():
        folder.mkdir()
    return project, {variable: str(folder) for variable, folder in folders.items()}


@pytest.mark.parametrize("seed", range(SEED, SEED + RUNS))
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, seed: int) -> None:
    """Whatever was broken, and however often it was resumed."""
    generator = Generator(random.Random(seed))  # noqa: S311 - to repeat it
    files = {"runnable.toml": generator.pipeline(), **generator.files}
    project, places = unbroken(tmp_path, "whole", files)
    whole = project.start("run", "--run-id", "r", "--jobs", "2", **places)
    whole.communicate()
    assert whole.returncode == 0, files["runnable.toml"]
    expected = outline(project.log("r"))
    other, places = unbroken(tmp_path, "broken", files)
    for broken in generator.random.sample(generator.breakable, min(2, len(generator.breakable))):
        (Path(places["BROKEN"]) / broken).touch()
    command = ["run", "--run-id", "r", "--jobs", "2"]
    for attempt in range(4):
        left = sorted(Path(places["BROKEN"]).iterdir())
        process = other.start(*command, **places)
        process.communicate()
        assert process.returncode in (0, 1), files["runnable.toml"]
        if not left:
            break
        command = ["retry", "r", "--jobs", "2"]
        left[attempt % len(left)].unlink()
    assert outline(other.log("r")) == expected, files["runnable.toml"]
