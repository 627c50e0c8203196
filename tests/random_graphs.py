"""Random pipelines of short scripts with matrices, loops, conditions and tries, of which some steps can be broken.

All files that they write are in their `put`: of parallel steps nobody knows which wrote what none declares.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

SCRIPT = """
READS
[ ! -e "${BROKEN:-../broken}/NAME" ] && [ ! -e "${BROKEN:-../broken}/NAME-${axis:-}" ] || exit 5
FLAKY
sum=$(printf '%s' "TAKEN ${axis:-}" | cksum | cut -d ' ' -f 1)
echo "v_NAME=$sum" >> "$RUNNABLE_OUTPUT"
LIST
"""


DATA = {"data/a": "a\n", "data/b": "b\n", "data/more/c": "c\n", "data/more/d": "d\n"}
"""Files of the project, of which steps read some."""


@dataclass
class Generator:
    """A random pipeline as TOML, with what may be broken in it."""

    random: random.Random
    files: dict[str, str] = field(default_factory=lambda: dict(DATA))
    values: dict[str, str] = field(default_factory=dict)
    """Step → the value that it returns."""
    lists: dict[str, str] = field(default_factory=dict)
    needs: dict[str, list[str]] = field(default_factory=dict)
    matrices: dict[str, str] = field(default_factory=dict)
    breakable: list[str] = field(default_factory=list)
    tries: float = 0.25
    """How likely a step fails the first time that it is tried."""
    fails_fast: bool = True
    """Whether matrices may stop at the first failure, where chance says how far the others come."""

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
            fails_fast = json.dumps(self.fails_fast and chance() < 0.5)
            lines.append(f"strategy = {{ matrix = {{ axis = {matrix} }}, fail-fast = {fails_fast} }}")
        flaky = chance() < self.tries
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
        place = put.replace("${{ matrix.axis }}", "$axis")
        script += f'mkdir -p "$(dirname "{place}")"; echo "$sum" > "{place}"\n'
        lines += [f"returns = {json.dumps(returns)}", f'catalog = {{ put = ["{put}"] }}', f"run = '''{script}'''", ""]
        return "\n".join(lines)

    def edits(self) -> dict[str, str]:
        """Return files that a person writes before a retry, of which steps may have read one, or listed its folder."""
        files = {"data/a": "another\n", "data/more/e": "new\n", "data/none": ""}
        return dict([self.random.choice([*files.items()])])

    def _reads(self, name: str) -> Iterator[str]:
        """Yield lines that read files, look for one, list a folder, and read what steps before made."""
        lines = ["cat data/a", "cat data/a data/b > /dev/null", "ls data/more > /dev/null", "ls data | wc -l"]
        lines += ["cat data/more/* > /dev/null", "[ ! -e data/none ] || cat data/none"]
        yield from self.random.sample(lines, self.random.randint(0, 2))
        for above in sorted(self._above(name)):
            if self.random.random() < 0.3:
                yield f"cat out/{above}.txt out/{above}/*.txt 2> /dev/null || true"

    def _matrix(self, above: list[str]) -> str:
        chance = self.random.random()
        if (lists := [self.lists[one] for one in above if one in self.lists]) and chance < 0.5:
            return f'"${{{{ parameters.{self.random.choice(lists)} }}}}"'
        if (shared := [self.matrices[one] for one in above if one in self.matrices]) and chance < 0.6:
            return self.random.choice(shared)
        return json.dumps(self.random.sample(["p", "q", "r"], self.random.randint(0, 3))) if chance > 0.75 else ""

    def _script(self, name: str, taken: list[str], *, flaky: bool) -> str:
        tried = f"${{TRIED:-../tried}}/{name}-${{axis:-}}"
        flaky_line = f'[ -e "{tried}" ] || {{ touch "{tried}"; exit 7; }}'
        names = '[\\"p\\", \\"q\\"]' if self.random.random() < 0.5 else '[\\"q\\", \\"r\\", \\"p\\"]'
        gives_list = self.random.random() < 0.5
        parts = {
            "FLAKY": flaky_line if flaky else "",
            "TAKEN": " ".join(f"${{{one}:-none}}" for one in taken),
            "READS": "\n".join(self._reads(name)),
            "LIST": f'echo "l_{name}={names}" >> "$RUNNABLE_OUTPUT"' if gives_list else "",
            "NAME": name,
        }
        text = SCRIPT
        for word, meaning in parts.items():
            text = text.replace(word, meaning)
        return text
