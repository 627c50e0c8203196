"""Random pipelines of scripts that really read, list, append and write files, and random edits of them.

The world knows what a person put there (inputs, code, parameters), and so can lay the same into a clean folder.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import textwrap
import venv
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("shell", "script", "python-script", "python")
HELPERS = ("lib/shared.sh", "lib_shared.py")
IGNORED = "ignored"
UNTRACKED = "loose"


@dataclass
class Step:
    """One step: what it reads, lists, is given and makes; `version` stands for its code."""

    name: str
    kind: str
    needs: list[str]
    reads: list[str]
    lists: list[str]
    parameters: list[str]
    taken: list[str]
    """Products of the steps that it needs."""
    uses_helper: bool
    uses_package: bool
    """Whether it imports the installed package; only what runs Python can."""
    declares: bool
    """Whether it says in `get` what it takes of others."""
    value_of: str | None
    """The step whose returned value it takes."""
    version: int = 1
    in_place: str = ""
    """A file that it gets, appends to and puts."""
    count_parameter: str = ""
    """A parameter that says how many parts it makes."""

    @property
    def product(self) -> str:
        """The file that it makes."""
        return f"out/{self.name}.txt"

    def puts(self) -> list[str]:
        """The patterns of its products."""
        parts = [f"out/{self.name}.part*"] if self.count_parameter else []
        return [self.product, *parts, *([self.in_place] if self.in_place else [])]


@dataclass
class World:
    """What a person wrote: files, steps, parameters of the file, and parameters given to the last command."""

    files: dict[str, str]
    steps: list[Step]
    parameters: dict[str, int]
    python: str
    """The interpreter of an environment of its own."""
    helper_version: int = 1
    package_version: int = 1
    given: dict[str, int] = field(default_factory=dict)
    rerun: list[str] = field(default_factory=list)
    """What the next retry is told to do again beyond what it sees."""
    reuse: str = ""
    clock_s: int = 1_000_000_000

    def lay(self, folder: Path, before: Mapping[str, str] | None = None) -> None:
        """Write into a folder all that is not as it was before: a step may have appended to a file meanwhile."""
        for path, text in self.everything().items():
            if not before or before.get(path) != text:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
                # Python knows times of modules to the second: a change within one would run as what it was.
                self.clock_s += 1
                os.utime(target, (self.clock_s, self.clock_s))

    def products_of(self, names: Collection[str]) -> list[str]:
        """Return the patterns of what these steps make."""
        return [pattern for step in self.steps if step.name in names for pattern in step.puts()]

    def everything(self) -> dict[str, str]:
        """Return all that a person wrote: path -> text."""
        return {**self.files, **self.code()}

    def code(self) -> dict[str, str]:
        """Return the pipeline file, scripts and modules."""
        files = {
            "runnable.toml": self._pipeline(),
            ".gitignore": f"{IGNORED}/\n__pycache__/\n",
            HELPERS[0]: f"shared() {{ echo shared {self.helper_version}; }}\n",
            HELPERS[1]: f"def shared():\n    return 'shared {self.helper_version}'\n",
        }
        for step in self.steps:
            if step.kind == "script":
                files[f"{step.name}.sh"] = f"{_shell(step)}\n"
            elif step.kind == "python-script":
                files[f"{step.name}_script.py"] = _python(step, as_script=True)
            elif step.kind == "python":
                files[f"{step.name}_module.py"] = _python(step, as_script=False)
        return files

    def _pipeline(self) -> str:
        reuse = [f'reuse = "{self.reuse}"'] if self.reuse else []
        lines = ['name = "random"', f'python = "{self.python}"', *reuse, "[parameters]"]
        lines += [f"{name} = {value}" for name, value in self.parameters.items()]
        for step in self.steps:
            lines.append(f"[steps.{step.name}]")
            lines.append(f"needs = {_list(step.needs)}")
            match step.kind:
                case "shell":
                    lines += ["run = '''", _shell(step), "'''"]
                case "script":
                    lines.append(f'run = "bash {step.name}.sh"')
                case "python-script":
                    lines.append(f'run = "{self.python} {step.name}_script.py"')
                case _:
                    lines.append(f'python = "{step.name}_module:step"')
            lines.append(f'returns = {{ v_{step.name} = "json" }}')
            gets = [*(step.taken if step.declares else []), *([step.in_place] if step.in_place else [])]
            get = f"get = {_list(gets)}, " if step.declares or step.in_place else ""
            if step.in_place and not step.declares:
                get = f"get = {_list([*step.taken, step.in_place])}, "
            lines.append(f"catalog = {{ {get}put = {_list(step.puts())} }}")
        return "\n".join(lines) + "\n"

    # -- edits

    def edit(self, choose: random.Random, folder: Path) -> str:
        """Do one thing that a person does between two runs, here and in the folder; what it was."""
        edits: list[Callable[[random.Random, Path], str]] = [
            self._change_file,
            self._change_file,
            self._remove_file,
            self._add_file,
            self._rename_file,
            self._change_code,
            self._change_code,
            self._change_helper,
            self._give_parameter,
            self._upgrade_package,
            self._touch_remark,
            self._change_nothing,
        ]
        self.given, self.rerun = {}, []
        before = self.everything()
        done = choose.choice(edits)(choose, folder)
        self.lay(folder, before)
        return done

    def _inputs(self) -> list[str]:
        return sorted(path for path in self.files if "/" in path)

    def _change_file(self, choose: random.Random, _folder: Path) -> str:
        path = choose.choice(self._inputs())
        self.files[path] = f"{path} {choose.random()}\n" + ("BAD\n" if choose.random() < 0.15 else "")
        return f"change {path}"

    def _remove_file(self, choose: random.Random, folder: Path) -> str:
        needed = {path for step in self.steps for path in [*step.reads, step.in_place]}
        free = [path for path in self._inputs() if path not in needed]
        if not free:
            return "nothing to remove"
        path = choose.choice(free)
        del self.files[path]
        (folder / path).unlink(missing_ok=True)
        if not any((folder / path).parent.iterdir()):  # a fresh copy has no empty folders
            (folder / path).parent.rmdir()
        return f"remove {path}"

    def _add_file(self, choose: random.Random, _folder: Path) -> str:
        place = choose.choice(["data", "data", "conf", IGNORED, UNTRACKED])
        path = f"{place}/new{choose.randrange(1000)}.txt"
        self.files[path] = f"{path} {choose.random()}\n"
        return f"add {path}"

    def _rename_file(self, choose: random.Random, folder: Path) -> str:
        needed = {path for step in self.steps for path in [*step.reads, step.in_place]}
        free = [path for path in self._inputs() if path not in needed]
        if not free:
            return "nothing to rename"
        old = choose.choice(free)
        new = f"{old.rpartition('/')[0]}/moved{choose.randrange(1000)}.txt"
        self.files[new] = self.files.pop(old)
        (folder / old).rename(folder / new)
        return f"rename {old} to {new}"

    def _change_code(self, choose: random.Random, _folder: Path) -> str:
        step = choose.choice(self.steps)
        step.version += 1
        return f"change the code of {step.name} ({step.kind})"

    def _change_helper(self, _choose: random.Random, _folder: Path) -> str:
        self.helper_version += 1
        return "change the helpers"

    def _give_parameter(self, choose: random.Random, _folder: Path) -> str:
        name = choose.choice(sorted(self.parameters))
        # A run keeps its parameters, so from now on this is what a fresh run must be given, too.
        self.parameters[name] = self.given[name] = choose.randrange(1, 5)
        return f"give {name} = {self.given[name]}"

    def _upgrade_package(self, _choose: random.Random, _folder: Path) -> str:
        self.package_version += 1
        install(self.python, self.package_version)
        self.rerun = ["packages"]  # without being asked for, another package runs nothing again
        return f"upgrade the package to {self.package_version}"

    def _touch_remark(self, choose: random.Random, _folder: Path) -> str:
        self.files["README.txt"] = f"read by nobody {choose.random()}\n"
        return "change what nobody reads"

    def _change_nothing(self, _choose: random.Random, _folder: Path) -> str:
        return "nothing"


def install(python: str, version: int) -> None:
    """Put a version of the package into the environment of an interpreter, in place of what is there."""
    [packages] = Path(python).parent.parent.glob("lib/python*/site-packages")
    for old in packages.glob("judged-*.dist-info"):
        shutil.rmtree(old)
    info = packages / f"judged-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: judged\nVersion: {version}\n")
    (info / "RECORD").write_text("judged.py,,\n")
    (packages / "judged.py").write_text(f"VERSION = 'judged {version}'\n")
    os.utime(packages / "judged.py", (version, version))  # byte code knows times to the second


def world(choose: random.Random, environment: Path) -> World:
    """Return a random world: up to six steps, each with inputs in folders that git tracks, ignores or does not know."""
    files = {f"data/d{i}.txt": f"d{i} {choose.random()}\n" for i in range(3)}
    files |= {f"conf/c{i}.txt": f"c{i} {choose.random()}\n" for i in range(2)}
    files |= {f"{IGNORED}/i0.txt": "i0\n", f"{UNTRACKED}/l0.txt": "l0\n", "README.txt": "nobody reads this\n"}
    parameters = {"alpha": choose.randrange(1, 5), "beta": choose.randrange(1, 5), "parts": choose.randrange(1, 5)}
    steps: list[Step] = []
    inputs = sorted(path for path in files if "/" in path)
    for number in range(choose.randrange(2, 7)):
        name = f"s{number}"
        earlier = [step.name for step in steps]
        needs = sorted(choose.sample(earlier, min(len(earlier), choose.choice([0, 1, 1, 2]))))
        taken = [f"out/{need}.txt" for need in needs if choose.random() < 0.7]
        steps.append(
            Step(
                name=name,
                kind=choose.choice(KINDS),
                needs=needs,
                reads=sorted(choose.sample(inputs, choose.randrange(3))),
                lists=sorted(choose.sample(["data", "conf", IGNORED, UNTRACKED], choose.choice([0, 0, 1]))),
                parameters=[p for p in ("alpha", "beta") if choose.random() < 0.3],
                taken=taken,
                uses_helper=choose.random() < 0.4,
                uses_package=choose.random() < 0.3,
                declares=choose.random() < 0.5,
                value_of=choose.choice(needs) if needs and choose.random() < 0.5 else None,
                count_parameter="parts" if choose.random() < 0.2 else "",
            )
        )
    if choose.random() < 0.4:
        files["data/db.txt"] = "db\n"
        choose.choice(steps).in_place = "data/db.txt"
        for step in steps:  # what is appended to is read by nobody else: who came first would count
            step.lists = [folder for folder in step.lists if folder != "data"]
    venv.create(environment, symlinks=True)
    python = str(environment / "bin/python")
    install(python, 1)
    return World(files, steps, parameters, python)


def _shell(step: Step) -> str:
    value = f'echo "value $v_{step.value_of}"' if step.value_of else ":"
    body = [
        f"echo {step.name} version {step.version}",
        *(f"cat {path}" for path in [*step.reads, *step.taken, *([step.in_place] if step.in_place else [])]),
        *(f"echo {folder}/*" for folder in step.lists),
        *(f'echo "{name}=${name}"' for name in step.parameters),
        *([f". {HELPERS[0]}; shared"] if step.uses_helper else []),
        value,
    ]
    lines = ["mkdir -p out", f"{{ {'; '.join(body)}; }} > {step.product}"]
    if step.count_parameter:
        lines.append(f'for i in $(seq "${step.count_parameter}"); do echo "$i" > out/{step.name}.part$i; done')
    if step.in_place:
        lines.append(f"echo more of {step.name} >> {step.in_place}")
    lines.append(f"if grep -q BAD {step.product}; then exit 3; fi")
    lines.append(f'echo "v_{step.name}=$(cksum < {step.product} | cut -d" " -f1)" >> "$RUNNABLE_OUTPUT"')
    return "\n".join(lines)


def _python(step: Step, *, as_script: bool) -> str:
    names = [*step.parameters, *([step.count_parameter] if step.count_parameter else [])]
    if step.value_of:
        names.append(f"v_{step.value_of}")
    given = [f"{name} = os.environ['{name}']" for name in names] if as_script else []
    helper = ["lines.append(lib_shared.shared())"] if step.uses_helper else []
    body = [
        *given,
        f"lines = ['{step.name} version {step.version}']",
        *(f"lines.append(open('{path}').read())" for path in [*step.reads, *step.taken]),
        *([f"lines.append(open('{step.in_place}').read())"] if step.in_place else []),
        *(f"lines.append(' '.join(sorted(os.listdir('{folder}'))))" for folder in step.lists),
        *(f"lines.append('{name}=%s' % {name})" for name in step.parameters),
        *([f"lines.append('value %s' % v_{step.value_of})"] if step.value_of else []),
        *helper,
        *(["lines.append(judged.VERSION)"] if step.uses_package else []),
        "os.makedirs('out', exist_ok=True)",
        "text = '\\n'.join(lines)",
        f"open('{step.product}', 'w').write(text)",
    ]
    if step.count_parameter:
        body += [
            f"for i in range(int({step.count_parameter})):",
            f"    open('out/{step.name}.part%d' % (i + 1), 'w').write(str(i))",
        ]
    if step.in_place:
        body.append(f"open('{step.in_place}', 'a').write('more of {step.name}\\n')")
    body += ["if 'BAD' in text:", "    raise SystemExit(3)"]
    modules = ["os", "zlib", *(["lib_shared"] if step.uses_helper else []), *(["judged"] if step.uses_package else [])]
    imports = "".join(f"import {module}\n" for module in modules)
    if as_script:
        body.append(
            f"open(os.environ['RUNNABLE_OUTPUT'], 'a').write('v_{step.name}=%d\\n' % zlib.crc32(text.encode()))"
        )
        return imports + "\n".join(body) + "\n"
    body.append("return zlib.crc32(text.encode())")
    unused = f"\n\ndef unused_{step.version}():\n    return 0\n"
    return f"{imports}\n\ndef step({', '.join(names)}):\n" + textwrap.indent("\n".join(body), "    ") + unused


def _list(items: list[str]) -> str:
    return "[" + ", ".join(f'"{item}"' for item in items) + "]"


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder but the store, git's and byte code: path → content."""
    found = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in (".git", ".runnable", "__pycache__")]
        for name in names:
            path = Path(at, name)
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def commit(folder: Path, environ: Mapping[str, str]) -> None:
    """Commit what git would track of the world; `loose/` stays untracked."""
    for arguments in (["add", "-A", ":!loose", ":!out"], ["commit", "-q", "--allow-empty", "-m", "edit"]):
        subprocess.run(["git", *arguments], cwd=folder, env=dict(environ), check=True)


def fresh_copy(made: World, folder: Path, environ: Mapping[str, str]) -> None:
    """Lay a world into a clean folder with a repository of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    made.lay(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, env=dict(environ), check=True)
    commit(folder, environ)
