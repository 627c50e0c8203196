"""Tests of the house: which module may import which, and which one door each effect has."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support import python

PACKAGE = Path(__file__).parent.parent / "runnable_ci"
ORDER: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("github",),
    ("api",),
    ("analysis",),
    ("engine",),
    ("steps",),
    ("runs",),
    ("pipeline",),
    ("store",),
    ("vcs",),
    ("observe",),
    ("redaction",),
    ("config",),
    ("util",),
    ("errors", "version", "runnable_ci"),
)
"""The packages and modules at the top; each imports only what stands below it, those of a line not each other."""
PURE: tuple[str, ...] = (
    *(
        "pipeline.model",
        "pipeline.step",
        "pipeline.resolve",
        "pipeline.schema",
        "pipeline.validation",
        "pipeline.diagnostics",
        "pipeline.container",
        "steps.containers.command_line",
        "steps.containers.apptainer",
        "steps.containers.image_names",
        "pipeline.definition.toml_writer",
        "pipeline.expressions",
        "engine.planner",
        "engine.planning.plan",
        "engine.planning.branches",
        "engine.planning.schedule",
        "engine.planning.room",
        "engine.planning.preparing",
        "engine.planning.seen",
        "engine.planning.gate",
        "engine.planning.arguments",
        "pipeline.branches",
        "pipeline.keys",
        "runs.branches",
        "runs.code_model",
        "engine.provenance.changes",
        "engine.planning.consent",
        "engine.parts.step_selection",
        "engine.parts.sweep",
        "engine.spread.job",
        "engine.spread.left",
        "engine.spread.settling",
        "engine.spread.collecting",
        "engine.spread.lost",
    ),
    *("pipeline.patterns", "pipeline.overlaps", "runs.products.history"),
    *("pipeline.inputs", "pipeline.values.value_reader", "pipeline.values.output_file"),
    *(
        "runs.model",
        "runs.document",
        "runs.events",
        "runs.causality",
        "runs.remote.merge",
        "runs.artifact",
        "runs.files.links",
        "runs.retention",
        "runs.event_redaction",
        "runs.reuse.results",
        "runs.reuse.entries",
        "runs.reuse.index",
    ),
    *(
        "github.action.use",
        "github.action.relay.chain",
        "github.action.relay.job_limit",
        "github.api.answers",
        "github.action.earlier",
        "github.job_graph.conditions",
        "github.job_graph.durations",
        "github.job_graph.grouping",
        "github.job_graph.instances",
        "github.job_graph.jobs",
        "github.job_graph.yaml_text",
        "runs.run_identity",
        "pipeline.pipeline_identity",
        "store.target",
        "redaction",
        "util.text",
        "util.threads",
        "errors",
    ),
)
DOORS: dict[str, tuple[str, ...]] = {
    "git": ("vcs.clone",),
    "oras": ("store",),
    "requests": ("util.http",),
    "urllib3": ("util.http",),
    "subprocess": ("util.process", "api.stores"),
    "fcntl": ("util.files", "api.stores"),
    "ctypes": (
        *("observe.inotify", "util.leftovers", "steps.worker.numeric"),
        "analysis.reproduction.determinism.holds",
    ),
    "pydantic_settings": ("config",),
    "typer": ("cli",),
    "yaml": ("pipeline.values.yaml_document",),
    **dict.fromkeys(("nbclient", "nbformat", "jupyter_client"), ("steps.notebook.execute",)),
    "ipykernel": ("steps.notebook.kernel_main",),
    "dotenv": ("pipeline.values.env_file",),
}
# Stops a module of the core from being more than values in, values out.
EFFECTS = {"os", "io", "shutil", "tempfile", "subprocess", "socket", "glob", "logging", "requests", "urllib", "sqlite3"}
EFFECT_CALLS = {"open", "print", "input", "exec", "eval", "breakpoint"}
# Newer than some interpreter that the tests run in.
NEW_IN_THE_LIBRARY = {"annotationlib"}


def name_of(path: Path) -> str:
    """A module by its path, without the package's own name: `store.layout`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "runnable_ci"


PACKAGES = {name_of(path) for path in PACKAGE.rglob("__init__.py")}
TREES = {name_of(path): (path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The full names of what a module imports, at its top and within its functions."""
    path, tree = TREES[module]
    package = ["runnable_ci", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def ours(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for full in imported(module):
        if full.split(".")[0] == "runnable_ci":
            name = full.removeprefix("runnable_ci").removeprefix(".")
            found.add(name if name in TREES else name.rpartition(".")[0] or "runnable_ci")
    return found


def is_one_of(module: str, doors: tuple[str, ...]) -> bool:
    """Whether a module is one of these or in one of these packages."""
    return any(module == door or module.startswith(f"{door}.") for door in doors)


def rank(module: str) -> int:
    """Where a module stands in the order; every module is in a named package."""
    top = module.split(".")[0]
    return next(place for place, names in enumerate(ORDER) if top in names)


def goes_up(module: str, other: str) -> bool:
    """Whether one module must not import the other."""
    same_package = module.split(".")[0] == other.split(".")[0]
    return rank(other) < rank(module) or (rank(other) == rank(module) and not same_package)


def test_imports_go_down() -> None:
    """No module imports one of a package above its own, or beside it."""
    assert [
        f"{module} -> {other}"
        for module in TREES
        if module != "runnable_ci"
        for other in ours(module)
        if goes_up(module, other)
    ] == []


def test_the_top_is_a_table_of_contents() -> None:
    """At most 15 packages and modules beside the dunder files, and 16 modules in a package."""
    top = {module.split(".")[0] for module in TREES} - {"__main__", "runnable_ci", "version"}
    assert len(top) <= 15
    packages = Counter(module.rpartition(".")[0] for module in TREES if "." in module and module not in PACKAGES)
    assert {package: count for package, count in packages.items() if count > 16} == {}


def test_modules_and_functions_can_be_taken_in() -> None:
    """At most 400 lines in a module and 60 in a function."""
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, (path, _) in TREES.items()}
    assert {module: count for module, count in lines.items() if count > 400} == {}
    functions = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module, (_, tree) in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {function: count for function, count in functions.items() if count > 60} == {}


def test_one_class_has_a_name() -> None:
    """No two classes at the top of modules have the same name: a reader looks for one and finds one."""
    classes = Counter(node.name for _, tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef))
    assert {name: count for name, count in classes.items() if count > 1} == {}


def test_no_circle() -> None:
    """No modules import each other in a circle, not even within functions."""
    graph = {module: ours(module) - {module} for module in TREES}
    TopologicalSorter(graph).prepare()


def test_reading_runs_needs_no_writer() -> None:
    """What reads the runs of a store does not import what writes one, not even by another module."""
    reached, following = set(), {"runs.reader"}
    while following:
        reached |= following
        following = {other for module in following for other in ours(module)} - reached
    assert "runs.paths" in reached
    assert not reached & {"runs.recorder", "runs.orphans", "runs.remote"}


def test_the_store_knows_no_runs() -> None:
    """It raises nothing that is about a run: what a missing manifest means is for the caller to say."""
    raised = {
        full.rpartition(".")[2]
        for module in TREES
        if is_one_of(module, ("store",))
        for full in imported(module)
        if full.startswith("runnable_ci.errors.")
    }
    assert "ManifestNotFoundError" in raised
    assert {name for name in raised if name.startswith("Run")} == set()


def test_every_named_module_is_there() -> None:
    """A place or a door of a module that is gone would hold nothing."""
    named = {name for names in (*ORDER, PURE, *DOORS.values()) for name in names}
    assert named <= TREES.keys()


@pytest.mark.parametrize("library", DOORS)
def test_one_door(library: str) -> None:
    """Each library with an effect, or with a cost, is imported in one place only."""
    importers = [m for m in TREES if any(full.split(".")[0] == library for full in imported(m))]
    assert [module for module in importers if not is_one_of(module, DOORS[library])] == []
    assert importers


@pytest.mark.parametrize("module", [module for module in TREES if is_one_of(module, PURE)])
def test_core_is_pure(module: str) -> None:
    """The core reads no file, environment or clock, and starts nothing: values in, values out."""
    full = list(imported(module))
    assert not {name.split(".")[0] for name in full} & EFFECTS
    assert not {name for name in full if name.startswith("pathlib.")} - {
        "pathlib.PurePosixPath",
        "pathlib.PureWindowsPath",
    }
    calls = [node.func for node in ast.walk(TREES[module][1]) if isinstance(node, ast.Call)]
    assert not {call.id for call in calls if isinstance(call, ast.Name)} & EFFECT_CALLS
    assert not {call.attr for call in calls if isinstance(call, ast.Attribute)} & {"now", "utcnow", "today", "time"}


READING = ("api", "errors", "util.text", "util.shell_command", "runs.listing")
"""What the user's interpreter imports to read runs."""


@pytest.mark.parametrize("module", [module for module in TREES if is_one_of(module, ("steps.worker", *READING))])
def test_what_the_user_s_interpreter_runs_needs_nothing_installed(module: str) -> None:
    """What it runs, or imports, imports the standard library and itself, and nothing of the tool's."""
    outside = {full.split(".")[0] for full in imported(module)} - sys.stdlib_module_names - NEW_IN_THE_LIBRARY
    assert outside <= {"runnable_ci"}
    own = ("steps.worker",) if is_one_of(module, ("steps.worker",)) else READING
    assert all(is_one_of(other, own) for other in ours(module))


STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
TERMINALS = {"/dev/stdout", "/dev/stderr", "/dev/tty", "/dev/fd/1", "/dev/fd/2", "/proc/self/fd/1", "/proc/self/fd/2"}
PRINTING = {"print", "pprint", "pp", "echo", "echo_via_pager", "secho", "print_exc", "print_exception", "print_stack"}


def prints(node: ast.AST) -> bool:
    """Whether a part of a program reaches for stdout or stderr, or calls what writes to them."""
    match node:
        case ast.Attribute(value=ast.Name(id="sys"), attr=name):
            return name in STREAMS
        case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id="sys"), *_]):
            return True
        case ast.ImportFrom(module="sys", names=names):
            return any(alias.name in STREAMS | {"*"} for alias in names)
        case ast.ImportFrom(module="logging" | "rich") | ast.Constant(value="CONOUT$"):
            return True
        case ast.Import(names=names):
            return any(alias.name.split(".")[0] in ("logging", "rich") for alias in names)
        case ast.Constant(value=str(text)):
            return text in TERMINALS
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in PRINTING:
            return True
        case ast.Call(func=ast.Attribute(attr="write" | "writev" | "fdopen") | ast.Name(id="open"), args=[file, *_]):
            return isinstance(file, ast.Constant) and file.value in (1, 2)
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="sys"), attr="exit") | ast.Name(id="SystemExit"), args=[word]
        ):
            return isinstance(word, ast.JoinedStr) or (isinstance(word, ast.Constant) and isinstance(word.value, str))
        case _:
            return False


def test_one_way_to_stdout_and_stderr() -> None:
    """What others named is made harmless in one place, so nothing else prints; the worker's output is the step's."""
    found = [
        f"{module}:{node.lineno}"
        for module, (_, tree) in TREES.items()
        for node in ast.walk(tree)
        if prints(node) and isinstance(node, ast.expr | ast.stmt)
    ]
    theirs = ("steps.worker", "steps.notebook.execute", "analysis.comparison.contents.worker")
    allowed = ("util.console", "__main__", *theirs)  # the entry point, before any of it can be imported
    assert [place for place in found if not is_one_of(place.split(":")[0], allowed)] == []
    assert any(place.startswith("util.console:") for place in found)


@pytest.mark.parametrize("name", ["stdout", "stderr", "commands", "copy"])
def test_who_may_print_without_making_harmless(name: str) -> None:
    """Bytes as they are come from the printers, which know what they print, and from what the console quoted itself."""
    users = {
        module
        for module, (_, tree) in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == name and ast.unparse(node.value) == "console"
    }
    printers = {"cli.terminal", "util.line_printer", "github.log", "cli.show.output", "cli.show.follow"}
    allowed = {
        "stdout": printers,
        "stderr": printers,
        "commands": {
            "cli.errors",
            *(f"github.action.{name}" for name in ("begin", "job", "job_environment", "set_up")),
        },
        "copy": {"cli.show.output", "cli.show.follow"},
    }
    assert users <= allowed[name]
    assert users


@pytest.mark.parametrize(
    "code",
    [
        'print("a")',
        'sys.stdout.write("a")',
        'sys.stderr.buffer.write(b"a")',
        "terminal = sys.__stdout__",
        "from sys import stderr",
        'getattr(sys, "stdout")',
        'os.write(1, b"a")',
        'os.write(2, b"a")',
        "os.fdopen(1)",
        'open(1, "w")',
        'open("/dev/tty", "w")',
        'click.echo("a")',
        'typer.secho("a")',
        "traceback.print_exc()",
        "pprint.pprint(a)",
        'sys.exit("a")',
        'raise SystemExit(f"{a}")',
        "import logging",
    ],
)
def test_what_prints_is_found(code: str) -> None:
    """In each form in which it may be written."""
    assert any(map(prints, ast.walk(ast.parse(code))))


@pytest.mark.parametrize("code", ["os.write(journal, b'')", "sys.exit(1)", "file.write('a')", "printer.say('a')"])
def test_what_prints_nothing_is_not_found(code: str) -> None:
    """Files are nobody's terminal."""
    assert not any(map(prints, ast.walk(ast.parse(code))))


# What people read; nothing may depend on its words.
WORDS = {"message", "reason", "hint"}
ERRORS = {"e", "error", "again"}
LOOKING = {"startswith", "endswith", "find", "rfind", "index", "rindex", "count"}
MATCHING = {"match", "fullmatch", "search", "findall", "finditer", "split"}
READERS = {
    # The messages of versions that had no field for it.
    "runs.document.with_outcomes": "old logs",
    "runs.document._outcome_of": "old logs",
    # Others' words, where they give nothing else: each becomes an error of ours at once.
    "github.api.actions": "GitHub's answers",
    "github.api.packages": "GitHub's answers",
    "util.responses": "servers' rate limits",
}


def is_words(node: ast.expr) -> bool:
    """Whether an expression is a text for people, or made from one."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name) if name in WORDS:
            return True
        case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]):
            return name in ERRORS
        case ast.Call(func=ast.Attribute() as called):
            return is_words(called) or is_words(called.value)
        case ast.Subscript(value=inner):
            return is_words(inner)
        case _:
            return False


def decides_by_words(node: ast.AST) -> bool:
    """Whether a part of a program looks into a text for people."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            by_value = any(not isinstance(op, ast.Is | ast.IsNot) for op in ops)
            return by_value and any(map(is_words, (left, *others)))
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=args):
            return (name in LOOKING and is_words(value)) or (name in MATCHING and any(map(is_words, args)))
        case ast.Match(subject=subject):
            return is_words(subject)
        case _:
            return False


def functions(tree: ast.AST, module: str) -> Iterator[tuple[str, ast.AST]]:
    """Each node of a module, with the name of the outermost function or class that it is in."""
    for outer in ast.iter_child_nodes(tree):
        name = f"{module}.{outer.name}" if isinstance(outer, ast.FunctionDef | ast.ClassDef) else module
        yield from ((name, node) for node in ast.walk(outer))


def test_no_decision_reads_a_message() -> None:
    """What became of something is a field: no message or reason is compared with anything, or searched."""
    found = [
        f"{name}:{node.lineno}"
        for module, (_, tree) in TREES.items()
        for name, node in functions(tree, module)
        if decides_by_words(node) and isinstance(node, ast.expr | ast.stmt)
    ]
    assert [place for place in found if not any(place.startswith((f"{r}:", f"{r}.")) for r in READERS)] == []
    assert [
        reader for reader in READERS if not any(place.startswith((f"{reader}:", f"{reader}.")) for place in found)
    ] == []


@pytest.mark.parametrize(
    "code",
    [
        'log.message.startswith("failed")',
        '"cancelled" in log.message',
        'message == "cancelled"',
        "error.message != NO_REPOSITORY",
        '"limit" in answer.message().lower()',
        'decision.reason[:7] == "reused,"',
        're.match("a", reason)',
        "PATTERN.search(step.message)",
        '"x" in str(e)',
        'match log.message:\n case "a": pass',
    ],
)
def test_a_decision_that_reads_a_message_is_found(code: str) -> None:
    """In each form in which one may be written."""
    assert any(map(decides_by_words, ast.walk(ast.parse(code))))


@pytest.mark.parametrize("code", ['f"{e.message}"', "message or reason", "e.hint is None", 'status == "FAIL"'])
def test_a_message_that_is_only_shown_is_none(code: str) -> None:
    """It may be written, and be there or not."""
    assert not any(map(decides_by_words, ast.walk(ast.parse(code))))


LIGHT = (
    *("cli.app", "cli.errors", "cli.context", "cli.options"),
    *("cli.compare", "cli.compare.app", "cli.compare.history"),
)
"""What only reads the command line."""
HEAVY = (
    "git",
    "oras",
    "requests",
    "urllib3",
    "pydantic",
    "pydantic_settings",
    "rich",
    "asyncio",
    *(f"runnable_ci.{module}" for module in TREES if module.startswith("cli.") and module not in LIGHT),
)
LOADED = "import sys, importlib; importlib.import_module(sys.argv[1]); print(*sys.modules)"


@pytest.mark.parametrize("module", ["runnable_ci", "runnable_ci.cli.app"])
def test_nothing_heavy_is_loaded_before_it_is_needed(module: str) -> None:
    """`--help` pays for the command line alone: no library of a command, and no command."""
    done = python(LOADED, module)
    assert done.returncode == 0, done.stderr
    assert [name for name in done.stdout.split() if is_one_of(name, HEAVY)] == []


def test_the_map_names_each_package_once() -> None:
    """All packages have one row in the documentation's table, in their order, and no other name has one."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert rows == [name for line in ORDER for name in line if name not in ("__main__", "version", "runnable_ci")]


def test_an_hour_s_reading() -> None:
    """What the documentation calls an hour's reading is there, names each module once and has at most 4,000 lines."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    chapter = text.partition("## An hour's reading\n")[2].partition("\n## ")[0]
    modules = re.findall(r"`([a-z_]+/[a-z_]+\.py)`", chapter)
    assert len(modules) == len(set(modules))
    assert {"engine/runner.py", "engine/planner.py", "pipeline/step.py", "runs/model.py", "store/copy.py"} < {*modules}
    assert sum(len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) for module in modules) <= 4000
