"""Tests of the pipeline file: what it may say, and what is said of each mistake."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.errors import PipelineError
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import resolve


def pipeline(text: str) -> Pipeline:
    """The pipeline of a TOML text."""
    return resolve(tomllib.loads(text), file="runnable.toml", default_name="folder")


def mistake(table: Mapping[str, Any], prefix: str = "") -> PipelineError:
    """What is wrong with a parsed file."""
    with pytest.raises(PipelineError) as caught:
        resolve(table, file="runnable.toml", default_name="folder", prefix=prefix)
    return caught.value


MISTAKES = {
    "no steps": ("", "there is no step", "[steps.train]"),
    "empty steps": ("[steps]", "there is no step", "[steps.train]"),
    "unknown top-level key": ('nmae = "x"\nsteps.a.run = "x"', "unknown key `nmae`", "did you mean `name`?"),
    "step's key at the top": ('run = "x"', "unknown key `run`", "`run` is a key of a step: write it in its table"),
    "other tool's word": ('[jobs.a]\nrun = "x"', "unknown key `jobs`", "write [steps.NAME] with run"),
    "other tool's key": (
        'steps.a = { run = "x", depends_on = ["b"] }',
        "[steps.a] unknown key `depends_on`",
        'write needs = ["…"]',
    ),
    "catalog's key in a step": (
        'steps.a = { run = "x", put = ["a.bin"] }',
        "[steps.a] unknown key `put`",
        'write catalog = { put = ["a.bin"] }',
    ),
    "list of tables": (
        '[[steps]]\nname = "fit"',
        "steps: must be a table, not a list",
        "a table for each step: [steps.fit]",
    ),
    "words of a command": (
        'steps.a.run = ["make", "a b"]',
        "[steps.a] run: must be a string",
        "write run = \"make 'a b'\"",
    ),
    "number in quotes": (
        'steps.a = { run = "x", timeout-minutes = "5" }',
        "[steps.a] timeout-minutes: must be a number",
        "write timeout-minutes = 5",
    ),
    "no in quotes": (
        'steps.a = { run = "x", background = "no" }',
        "[steps.a] background: must be true or false",
        "write background = false",
    ),
    "path of a function": (
        'steps.a.python = "pk/m.py:f"',
        '[steps.a] python = "pk/m.py:f" is not a function',
        'write python = "pk.m:f"',
    ),
    "dotted function": ('steps.a.python = "pk.m.f"', '[steps.a] python = "pk.m.f" is not', 'write python = "pk.m:f"'),
    "unknown step key": ('steps.a.rum = "x"', "[steps.a] unknown key `rum`", "did you mean `run`?"),
    "nothing like it": ('steps.a.xyzzy = "x"', "[steps.a] unknown key `xyzzy`", "the keys of this table are: run, py"),
    "underscore for dash": (
        'steps.a = { run = "x", working_directory = "." }',
        "[steps.a] unknown key `working_directory`",
        "did you mean `working-directory`?",
    ),
    "unknown catalog key": (
        'steps.a = { run = "x", catalog = { puts = ["x"] } }',
        "[steps.a.catalog] unknown key `puts`",
        "did you mean `put`?",
    ),
    "dotted step name": ('[steps.a.b]\nrun = "x"', "[steps.a] unknown key `b`", "the keys of this table"),
    "steps not a table": (
        "steps = 3",
        "steps: must be a table, not 3",
        'write a table for each step: [steps.NAME] with run = "…"',
    ),
    "step not a table": (
        'steps.a = "make"',
        '[steps.a] must be a table, not "make"',
        'write [steps.a] with run = "make"',
    ),
    "catalog not a table": (
        'steps.a = { run = "x", catalog = [] }',
        "[steps.a] catalog: must be a table",
        'catalog = { get = ["…"]',
    ),
    "run not text": ("steps.a.run = 3", "[steps.a] run: must be a string, not 3", 'write run = "3"'),
    "needs not a list": (
        'steps.a = { run = "x", needs = "b" }',
        '[steps.a] needs: must be a list, not "b"',
        'write needs = ["b"]',
    ),
    "needs of numbers": (
        'steps.a = { run = "x", needs = [1] }',
        "[steps.a] needs.0: must be a string",
        'needs = ["1"]',
    ),
    "env of numbers": (
        'steps.a = { run = "x", env = { N = 1 } }',
        "[steps.a] env.N: must be a string, not 1",
        'write N = "1"',
    ),
    "top env of numbers": ('env = { N = true }\nsteps.a.run = "x"', "env.N: must be a string, not true", 'N = "true"'),
    "timeout zero": (
        'steps.a = { run = "x", timeout-minutes = 0 }',
        "[steps.a] timeout-minutes: must be greater than 0, not 0",
        "write timeout-minutes = 30",
    ),
    "timeout too long": (
        'steps.a = { run = "x", timeout-minutes = 1e300 }',
        "[steps.a] timeout-minutes: must be at most 527040, a year",
        "write timeout-minutes = 30",
    ),
    "timeout infinite": (
        'steps.a = { run = "x", timeout-minutes = inf }',
        "[steps.a] timeout-minutes: must be",
        "write timeout-minutes = 30",
    ),
    "timeout yes": (
        'steps.a = { run = "x", timeout-minutes = true }',
        "[steps.a] timeout-minutes: must be a number, not true",
        "write timeout-minutes = 30",
    ),
    "not a bool": (
        'steps.a = { run = "x", continue-on-error = "yes" }',
        '[steps.a] continue-on-error: must be true or false, not "yes"',
        "write continue-on-error = true",
    ),
    "unknown kind": (
        'steps.a = { python = "m:f", returns = { x = "metrics" } }',
        '[steps.a] returns.x: unknown kind "metrics"',
        "did you mean `metric`?",
    ),
    "unknown choice": (
        'untracked = "non"\nsteps.a = { run = "x" }',
        'untracked: there is no "non"',
        "did you mean `none`?",
    ),
    "choice not text": (
        'untracked = false\nsteps.a = { run = "x" }',
        "untracked: must be one of all, listed, none, not false",
        "Which untracked files",
    ),
    "kind not text": (
        'steps.a = { python = "m:f", returns = { x = 3 } }',
        "[steps.a] returns.x: must be one of auto, text, json, metric, object, not 3",
        "by name",
    ),
    "returns text": (
        'steps.a = { run = "x", returns = "x" }',
        "[steps.a] returns: must be a table, not",
        'write returns = ["x"]',
    ),
    "returns twice": (
        'steps.a = { run = "x", returns = ["x", "x"] }',
        "[steps.a] returns: lists a return value twice",
        "by name",
    ),
    "two kinds of step": (
        'steps.a = { run = "x", python = "m:f" }',
        "[steps.a] has both `run` and `python`",
        "split it into two",
    ),
    "no kind of step": (
        "steps.a.needs = []",
        "[steps.a] has no `run`, `python`, `notebook` or `uses`",
        "add one",
    ),
    "empty run": ('steps.a.run = " "', "[steps.a] `run` is empty", "write a command"),
    "NUL in run": ('steps.a.run = "a\\u0000b"', "[steps.a] `run` has a NUL character", "remove it"),
    "not a function": (
        'steps.a.python = "train.py"',
        '[steps.a] python = "train.py" is not a function',
        'write python = "train:function"',
    ),
    "shell of a function": (
        'steps.a = { python = "m:f", shell = "sh" }',
        "[steps.a] `shell` belongs to `run`",
        "by name",
    ),
    "parameters of a function": (
        'steps.a = { python = "m:f", parameters = ["x"] }',
        "[steps.a] `parameters` belongs to `run` steps",
        "takes parameters by name",
    ),
    "object from a shell": (
        'steps.a = { run = "x", returns = { x = "object" } }',
        "[steps.a] a `run` step cannot return an object",
        "catalog.put",
    ),
    "unknown shell": ('steps.a = { run = "x", shell = "zsh" }', '[steps.a] unknown shell "zsh"', "command with {0}"),
    "bad step name": ('[steps."a b"]\nrun = "x"', '[steps] "a b" is not a valid step name', "letters, digits"),
    "step name of a path": ('[steps."../a"]\nrun = "x"', '[steps] "../a" is not a valid step name', "letters, digits"),
    "bad return name": (
        'steps.a = { run = "x", returns = ["x-y"] }',
        '[steps.a.returns] "x-y" is not a valid parameter name',
        "letters, digits and `_`",
    ),
    "bad parameter name": (
        'parameters."2x" = 1\nsteps.a.run = "x"',
        '[parameters] "2x" is not a valid parameter name',
        "letters, digits and `_`",
    ),
    "parameter of a date": (
        'parameters.day = 2026-01-01\nsteps.a.run = "x"',
        "[parameters] day: a date is not a JSON value",
        "write it as a string",
    ),
    "infinite parameter": ('parameters.x = [inf]\nsteps.a.run = "x"', "[parameters] x: inf is not", "write it as a"),
    "huge parameter": (
        f'parameters.x = 0x{"f" * 6000}\nsteps.a.run = "x"',
        "[parameters] x: the number has too many digits",
        "write it as a string",
    ),
    "deep parameter": (
        f'parameters{".x" * 5000} = 1\nsteps.a.run = "x"',
        "[parameters] x: it is nested more than 64 deep",
        "write it as a string",
    ),
    "env and parameter": (
        'parameters.RATE = 1\nenv.RATE = "2"\nsteps.a.run = "x"',
        "[env] `RATE` is also a parameter",
        "both would set the same variable",
    ),
    "step's env and parameter": (
        'parameters.RATE = 1\n[steps.a]\nrun = "x"\nenv.RATE = "2"',
        "[steps.a.env] `RATE` is also a parameter",
        "both would set the same variable",
    ),
    "env and own return": (
        'steps.a = { run = "x", env = { RATE = "2" }, returns = ["RATE"] }',
        "[steps.a.env] `RATE` is also returned by step `a`",
        "both would set the same variable",
    ),
    "env and earlier return": (
        '[steps.a]\nrun = "x"\nreturns = ["RATE"]\n[steps.b]\nrun = "x"\n[steps.c]\nrun = "x"\nenv.RATE = "2"',
        "[steps.c.env] `RATE` is also returned by step `a`",
        "both would set the same variable",
    ),
    "our variable in env": (
        '[steps.a]\nrun = "x"\nenv.RUNNABLE_OUTPUT = "2"',
        "[steps.a.env] `RUNNABLE_OUTPUT` is reserved",
        "names that begin with RUNNABLE_ are used by runnable-ci",
    ),
    "env name with =": ('env."A=B" = "x"\nsteps.a.run = "x"', '[env] "A=B" cannot be set', "no `=` in the name"),
    "env value with NUL": ('env.A = "x\\u0000"\nsteps.a.run = "x"', '[env] "A" cannot be set', "no NUL"),
    "needs itself": ('steps.a = { run = "x", needs = ["a"] }', "[steps.a] needs: the step needs itself", "remove it"),
    "needs nobody": (
        '[steps.clean-data]\nrun = "x"\n[steps.train]\nrun = "x"\nneeds = ["clean"]',
        '[steps.train] step `train` needs "clean", which is not in the file',
        "did you mean `clean-data`?",
    ),
    "needs nothing like it": (
        '[steps.load]\nrun = "x"\n[steps.train]\nrun = "x"\nneeds = ["xyzzy"]',
        '[steps.train] step `train` needs "xyzzy", which is not in the file',
        "the steps are: load, train",
    ),
    "cycle": (
        '[steps.a]\nrun = "x"\nneeds = ["c"]\n[steps.b]\nrun = "x"\n[steps.c]\nrun = "x"\n[steps.d]\nrun = "x"',
        "[steps] circular dependency: a → c → b → a",
        "remove one of these needs",
    ),
    "parallel puts": (
        '[steps.a]\nrun = "x"\ncatalog.put = ["m.bin", "out"]\n[steps.b]\nrun = "x"\nneeds = []\n'
        'catalog.put = ["out/*.txt"]',
        "[steps.b.catalog] put: `out/*.txt` can match the same file as `out` of step `a`, which may run at the same",
        "write to folders of their own, or let `b` need `a`",
    ),
    "key of a table or text": (
        'steps.a = { run = "x", container = { image = "x", gpu = "all" } }',
        "[steps.a.container] unknown key `gpu`",
        "did you mean `gpus`?",
    ),
    "missing in a table or text": (
        'steps.a = { run = "x", container = { env = { A = "1" } } }',
        "[steps.a] `container` has no `image`",
        'write container = { image = "…" }',
    ),
    "neither table nor text": (
        'steps.a = { run = "x", container = 3 }',
        "[steps.a] container: must be a string or a table, not 3",
        'write container = { image = "…" }',
    ),
    "missing two tables deep": (
        'steps.a = { run = "x", container = { image = "x", credentials = { username = "U" } } }',
        "[steps.a.container] `credentials` has no `password`",
        'write credentials = { username = "USER", password = "TOKEN" }',
    ),
    "unknown two tables deep": (
        'steps.a = { run = "x", container = { image = "x", credentials = { user = "U", password = "T" } } }',
        "[steps.a.container.credentials] unknown key `user`",
        "did you mean `username`?",
    ),
    "credentials themselves": (
        'steps.a = { run = "x", container = { image = "x", credentials = "me:hunter2" } }',
        "[steps.a.container] credentials: must be a table, not a text",
        "write credentials = {",
    ),
    "key of a table around": (
        'steps.a = { run = "x", loop = { until = "true", max = 2, needs = ["b"] } }',
        "[steps.a.loop] unknown key `needs`",
        "`needs` is a key of the step: write it outside `loop`",
    ),
    "key of a table inside": (
        'steps.a = { run = "x", max-parallel = 2 }',
        "[steps.a] unknown key `max-parallel`",
        "write strategy = { max-parallel = 2 }",
    ),
    "exclude beside the matrix": (
        'steps.a = { run = "x", strategy = { matrix = { s = [1] }, exclude = [{ s = 1 }] } }',
        "[steps.a.strategy] unknown key `exclude`",
        "`exclude` belongs inside `matrix`",
    ),
    "axis beside the matrix": (
        'steps.a = { run = "x", strategy = { python = ["3.10", "3.12"] } }',
        "[steps.a.strategy] unknown key `python`",
        "`python` belongs inside `matrix`",
    ),
    "key of strategy with _": (
        'steps.a = { run = "x", strategy = { matrix = { s = [1] }, max_parallel = 2 } }',
        "[steps.a.strategy] unknown key `max_parallel`",
        "did you mean `max-parallel`?",
    ),
    "beginning of a key": (
        'steps.a = { run = "x", attempts = { max = 2, wait = 3 } }',
        "[steps.a.attempts] unknown key `wait`",
        "did you mean `wait-seconds`?",
    ),
    "key of loop": (
        'steps.a = { run = "x", loop = { unti = "true", max = 2 } }',
        "[steps.a.loop] unknown key `unti`",
        "did you mean `until`?",
    ),
    "loop without end": (
        'steps.train = { run = "x", loop = { until = "true" } }',
        "[steps.train] `loop` has no `max`",
        'write loop = { until = "…", max = 10 }',
    ),
    "attempts in quotes": (
        'steps.a = { run = "x", attempts = "4" }',
        '[steps.a] attempts: must be a number or a table, not "4"',
        "write attempts = 4",
    ),
    "no attempt": (
        'steps.a = { run = "x", attempts = 0 }',
        "[steps.a] attempts: must be from 1 to 1000, not 0",
        "",
    ),
    "too many rounds": (
        'steps.a = { run = "x", loop = { until = "true", max = 20000 } }',
        "[steps.a.loop] max: must be at most 10000, not 20000",
        "write max = 30",
    ),
    "exit code that no program has": (
        'steps.a = { run = "x", attempts = { on = [137, 256] } }',
        "[steps.a.attempts] on: no step fails by the exit code 256: they are 1 to 255",
        "",
    ),
    "end of no kind": (
        'steps.a = { run = "x", attempts = { on = [true] } }',
        "[steps.a.attempts] on.0: must be a string or a whole number, not true",
        "",
    ),
    "matrix that is a list": (
        'steps.a = { run = "x", strategy = { matrix = [1, 2] } }',
        "[steps.a.strategy] matrix: must be a table or a string, not a list",
        'write matrix = { sample = ["a", "b"] }',
    ),
    "nested table of the defaults": (
        'steps.a.run = "x"\ndefaults.container = { image = "x", gpu = "1" }',
        "[defaults.container] unknown key `gpu`",
        "did you mean `gpus`?",
    ),
    "parallel returns": (
        '[steps.a]\nrun = "x"\nreturns = ["x"]\n[steps.b]\nrun = "x"\nneeds = []\nreturns = ["x"]',
        "[steps.b.returns] `x` is also returned by step `a`, which may run at the same time",
        "let one step need the other",
    ),
}


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake(text: str, message: str, hint: str) -> None:
    """Each mistake is one error of one line that names file, table and key, with a hint, and exit code 2."""
    error = mistake(tomllib.loads(text))
    assert error.message.startswith(f"runnable.toml: {message}")
    assert hint in error.hint
    assert "\n" not in error.message
    assert error.exit_code == 2


def test_a_mistake_in_pyproject() -> None:
    """In a pyproject.toml the table is named from the file's top."""
    assert mistake({"steps": {"a": {"rum": "x"}}}, "tool.runnable-ci").message == (
        "runnable.toml: [tool.runnable-ci.steps.a] unknown key `rum`"
    )
    assert mistake({}, "tool.runnable-ci").message == "runnable.toml: [tool.runnable-ci] there is no step"


OUTSIDE = ["/etc/passwd", "a/../../x", "~/x", "..\\x", "C:\\x", "C:x", "**/..", ""]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        *((key, path) for key in ("get", "put", "working-directory") for path in OUTSIDE),
        *(("put", "../x"), ("working-directory", "../x"), ("get", "../a/../../x"), ("get", "..")),
    ],
)
def test_a_path_that_leaves_the_workspace(key: str, path: str) -> None:
    """No file or folder outside the pipeline's own folder can be named, but for what is only read."""
    more = {"working-directory": path} if key == "working-directory" else {"catalog": {key: [path]}}
    error = mistake({"steps": {"a": {"run": "x", **more}}})
    wrong = "an empty path" if path in ("", "..") else "a path outside the workspace"
    assert f"{key}: {wrong}" in error.message
    assert error.hint == "paths are relative to the pipeline file's folder, and stay in it"


def test_inputs_above_the_folder() -> None:
    """`get` may begin with `..`; nothing else may."""
    text = 'steps.a = { run = "x", catalog = { get = ["../x", "../../data/*.csv"] } }'
    step = pipeline(text).steps["a"]
    assert step.get == ("../x", "../../data/*.csv")


def test_files_without_a_copy() -> None:
    """An entry of `put` is a path or a table; how it is stored is no part of what the step does."""
    entries = '["a", { path = "*.bin", store = false }, { path = "b", store = true }]'
    step = pipeline(f'steps.a = {{ run = "x", catalog = {{ put = {entries} }} }}').steps["a"]
    assert (step.put, step.unstored) == (("a", "*.bin", "b"), ("*.bin",))
    assert step.definition() == {"run": "x", "needs": [], "put": ["a", "*.bin", "b"]}
    assert step.unstored_among(["a", "x.bin", "deep/x.bin"]) == {"x.bin"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (0, "[steps.a.catalog] put: an entry must be a path or a table, not 0"),
        ({"store": False}, "[steps.a.catalog.put] an entry has no `path`"),
        ({"path": "x", "stored": False}, "[steps.a.catalog.put] unknown key `stored`"),
        ({"path": "x", "store": "no"}, '[steps.a.catalog.put] store: must be true or false, not "no"'),
        ({"path": "../x"}, "[steps.a.catalog] put: a path outside the workspace"),
    ],
)
def test_a_wrong_entry_of_put(entry: object, message: str) -> None:
    """The table, the key and the form are named."""
    assert message in mistake({"steps": {"a": {"run": "x", "catalog": {"put": [entry]}}}}).message


@pytest.mark.parametrize("name", ["PATH", "HOME", "CI", "GITHUB_SHA", "RUNNABLE_OUTPUT", "LD_PRELOAD", "BASH_ENV", "_"])
@pytest.mark.parametrize("place", ["parameters", "returns"])
def test_a_reserved_name(place: str, name: str) -> None:
    """No parameter can replace a variable that programs rely on."""
    step = {"run": "x"} if place == "parameters" else {"run": "x", "returns": [name]}
    error = mistake({"parameters": {name: 1} if place == "parameters" else {}, "steps": {"a": step}})
    assert f"the parameter name `{name}` is reserved" in error.message
    assert f"{'parameters' if place == 'parameters' else 'steps.a.returns'}]" in error.message


@pytest.mark.parametrize("name", ["input_size", "language", "user", "github_url", "path"])
def test_a_name_that_only_looks_reserved(name: str) -> None:
    """Variables are told apart by case, so what people call their parameters is free."""
    assert pipeline(f'parameters.{name} = 1\nsteps.a.run = "x"').parameters == {name: 1}


def test_a_message_cannot_move_the_cursor() -> None:
    """Control characters of a quoted key or a value are shown, not sent to the terminal."""
    steps = {"a": {"run": "x"}}
    assert mistake({"steps": steps, "a\x1b[2J\n": 1}).message == "runnable.toml: unknown key `a\\x1b[2J\\n`"
    assert mistake({"name": ["\x1b"]}).message == "runnable.toml: name: must be a string, not a list"
    assert "\x1b" not in mistake({"steps": {"a": {"run": "x", "needs": "\x1b"}}}).message


def test_defaults() -> None:
    """A step needs the one above it, runs in bash in the workspace, and gets all parameters."""
    made = pipeline('[steps.a]\nrun = "x"\n[steps.b]\npython = "m:f"')
    a, b = made.steps.values()
    assert (made.name, made.python, a.needs, b.needs) == ("folder", None, (), ("a",))
    assert (a.kind, a.command, a.shell, a.working_directory, a.get, a.put) == ("run", "x", "", ".", None, ())
    assert (a.parameters, a.timeout_s, a.continue_on_error, a.env) == (None, None, False, {})
    assert (b.kind, b.command) == ("python", "m:f")


def test_everything_said() -> None:
    """Each key of the file reaches the step, with times in seconds and the pipeline's `env` below the step's."""
    made = pipeline("""
        name = "iris"
        python = ".venv/bin/python"
        env = { A = "1", B = "1" }
        [parameters]
        rate = 0.5
        [steps.a]
        run = "make"
        returns = { x = "metric" }
        catalog = { get = ["in/**"], put = ["out.csv"] }
        parameters = ["rate"]
        env = { B = "2" }
        shell = "perl {0}"
        working-directory = "sub//deep/"
        timeout-minutes = 0.5
        continue-on-error = true
    """)
    step = made.steps["a"]
    assert (made.name, made.python, made.parameters) == ("iris", ".venv/bin/python", {"rate": 0.5})
    assert (step.returns, step.get, step.put) == ({"x": "metric"}, ("in/**",), ("out.csv",))
    assert (step.parameters, step.env, step.shell) == (("rate",), {"A": "1", "B": "2"}, "perl {0}")
    assert (step.working_directory, step.timeout_s, step.continue_on_error) == ("sub/deep", 30.0, True)


def test_needs_empty_starts_at_once() -> None:
    """`needs = []` takes a step out of the file's chain, and the next one follows it."""
    made = pipeline('[steps.a]\nrun = "x"\n[steps.b]\nrun = "x"\nneeds = []\n[steps.c]\nrun = "x"')
    assert [step.needs for step in made.steps.values()] == [(), (), ("b",)]
    assert (sorted(made.ancestors("c")), sorted(made.below("b")), sorted(made.below("a"))) == (["b"], ["b", "c"], ["a"])


def test_returns_by_names_alone() -> None:
    """A list of returns is short for auto, in its order."""
    assert list(pipeline('steps.a = { run = "x", returns = ["y", "x"] }').steps["a"].returns.items()) == [
        ("y", "auto"),
        ("x", "auto"),
    ]


def test_order_is_the_files_where_needs_leave_it_open() -> None:
    """A step that stands before what it needs comes after it; all else keeps the order of the file."""
    made = pipeline("""
        steps.d = { run = "x", needs = ["c"] }
        steps.b = { run = "x", needs = [] }
        steps.a = { run = "x", needs = [] }
        steps.c = { run = "x", needs = ["b"] }
    """)
    assert list(made.steps) == ["b", "a", "c", "d"]


def test_the_later_of_two_returns_may_replace_the_earlier() -> None:
    """The same name may be returned twice along one path."""
    made = pipeline(
        '[steps.a]\nrun = "x"\nreturns = ["x"]\n[steps.b]\nrun = "x"\n[steps.c]\nrun = "x"\nreturns = ["x"]'
    )
    assert list(made.steps) == ["a", "b", "c"]


BASE = {"run": "make", "needs": [], "env": {"A": "1", "B": "2"}, "returns": {"x": "json", "y": "metric"}}
PLAIN = {"b": {"run": "x", "needs": ["a"]}, "c": {"run": "x", "needs": []}}


def dag_hash(step: Mapping[str, Any], **more: Any) -> str:
    """The hash of a pipeline with that step."""
    table = {"steps": {"a": dict(step), **PLAIN}, **more}
    return resolve(table, file="runnable.toml", default_name="folder").dag_hash()


@pytest.mark.parametrize(
    "change",
    [
        {"run": "make all"},
        {"needs": ["c"]},
        {"env": {"A": "1", "B": "3"}},
        {"returns": {"x": "json", "y": "json"}},
        {"returns": {"y": "metric", "x": "json"}},
        {"returns": {"x": "auto", "y": "metric"}},
        {"returns": {"x": "text", "y": "metric"}},
        {"metrics": ["m.json"]},
        {"catalog": {"get": []}},
        {"catalog": {"get": ["in"]}},
        {"catalog": {"put": ["out"]}},
        {"parameters": ["x"]},
        {"parameters": []},
        {"shell": "sh"},
        {"working-directory": "sub"},
    ],
    ids=str,
)
def test_dag_hash_changes_with_a_definition(change: Mapping[str, Any]) -> None:
    """Whatever makes a step's result is in the hash, the order of returns too: a function's tuple is matched by it."""
    assert dag_hash({**BASE, **change}) != dag_hash(BASE)


@pytest.mark.parametrize(
    ("change", "more"),
    [
        ({"timeout-minutes": 3}, {}),
        ({"continue-on-error": True}, {}),
        ({"shell": "bash", "working-directory": "."}, {}),
        ({"env": {"B": "2", "A": "1"}}, {}),
        ({"catalog": {}}, {}),
        ({}, {"name": "other", "python": "other", "parameters": {"z": 1}}),
    ],
    ids=str,
)
def test_dag_hash_stays_otherwise(change: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    """What makes no result, and what is only written otherwise, is not in the hash."""
    assert dag_hash({**BASE, **change}, **more) == dag_hash(BASE)


def test_dag_hash_does_not_know_the_order_of_the_file() -> None:
    """Steps that say what they need may change places."""
    steps = {"a": BASE, **PLAIN}
    turned = dict(reversed(steps.items()))
    assert dag_hash(BASE) == resolve({"steps": turned}, file="f", default_name="n").dag_hash()


def test_returns_of_earlier_versions_are_the_same() -> None:
    """A list of names, and JSON of a function, are defined as they were when there was one kind of JSON."""
    assert pipeline('steps.a = { run = "x", returns = ["x"] }').steps["a"].definition()["returns"] == {"x": "json"}
    kinds = '{ x = "json", y = "auto", z = "text" }'
    made = pipeline(f'steps.a = {{ python = "m:f", returns = {kinds} }}').steps["a"]
    assert made.definition()["returns"] == {"x": "json", "y": "json", "z": "text"}


METRICS = {
    "two of a name": ('metrics = ["a/m.json", "b/m.yaml"]', 'metrics: "b/m.yaml" has the same name as "a/m.json"'),
    "a return's name": ('metrics = ["x.json"]\nreturns = ["x"]', 'metrics: "x.json" has the same name as a return'),
    "a pattern": ('metrics = ["m*.json"]', 'metrics: "m*.json" is not the path of a file'),
    "outside": ('metrics = ["../m.json"]', "metrics: a path outside the workspace"),
}


@pytest.mark.parametrize(("text", "message"), METRICS.values(), ids=METRICS)
def test_metrics_files(text: str, message: str) -> None:
    """They are files of the workspace with names of their own, and stored as if `put` named them."""
    with pytest.raises(PipelineError) as caught:
        pipeline(f'[steps.a]\nrun = "x"\n{text}')
    assert message in caught.value.message
    made = pipeline('steps.a = { run = "x", metrics = ["m.json"], catalog = { put = ["out", "m.json"] } }').steps["a"]
    assert (made.metrics, made.put) == (("m.json",), ("out", "m.json"))


def test_definition_is_in_the_words_of_the_file() -> None:
    """A definition says what was written, and nothing of what was left out."""
    made = pipeline(
        'steps.a = { run = "x", timeout-minutes = 1, catalog = { get = [] } }\nsteps.b = { python = "m:f" }'
    )
    assert made.steps["a"].definition() == {"run": "x", "needs": [], "get": []}
    assert made.steps["b"].definition() == {"python": "m:f", "needs": ["a"]}


NAMES = st.sampled_from(["a", "b", "c", "train", "PATH", "x y", "", "steps", "run"]) | st.text(max_size=5)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["make", "m:f", "bash", "json", "a", "../x", date(2026, 1, 1), time(1), datetime(2026, 1, 1)])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)


def keyed(*keys: str, values: st.SearchStrategy[Any] = VALUES) -> st.SearchStrategy[dict[str, Any]]:
    """Tables that use the known keys, mostly."""
    return st.dictionaries(st.sampled_from(keys) | NAMES, values, max_size=4)


STEPS = st.fixed_dictionaries(
    {"run": st.just("make") | VALUES},
    optional={
        "needs": st.lists(NAMES, max_size=2) | VALUES,
        "returns": st.dictionaries(NAMES, st.sampled_from(["json", "metric", "object"]), max_size=2) | VALUES,
        "catalog": keyed("get", "put"),
        "env": st.dictionaries(NAMES, st.text(max_size=3), max_size=2) | VALUES,
        "timeout-minutes": SCALARS,
        "shell": st.text(max_size=4),
        "working-directory": st.text(max_size=4),
    },
)
TABLES = VALUES.filter(lambda value: isinstance(value, dict)) | st.fixed_dictionaries(
    {"steps": st.dictionaries(NAMES, STEPS | keyed("run", "python", "needs"), max_size=4)},
    optional={"parameters": st.dictionaries(NAMES, VALUES, max_size=3), "env": VALUES, "name": SCALARS},
)


@given(TABLES)
def test_any_table_is_a_pipeline_or_one_error(table: dict[str, Any]) -> None:
    """Whatever a file says, the answer is a pipeline or a `PipelineError` of one line."""
    try:
        made = resolve(table, file="runnable.toml", default_name="folder")
    except PipelineError as e:
        assert e.message.startswith("runnable.toml: ")
        assert "\n" not in e.message
        e.message.encode()
    else:
        assert made.dag_hash() == resolve(table, file="runnable.toml", default_name="folder").dag_hash()
        for value in made.parameters.values():
            assert not isinstance(value, float) or math.isfinite(value)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Step → needs, without a cycle, in any order."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 8)))]
    needs = {name: draw(st.lists(st.sampled_from(names[:i]), unique=True)) if i else [] for i, name in enumerate(names)}
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(graphs())
def test_order_respects_needs_and_the_file(needs: dict[str, list[str]]) -> None:
    """Each step comes after what it needs, and of those that may come next always the first in the file does."""
    table = {"steps": {name: {"run": "x", "needs": list(needed)} for name, needed in needs.items()}}
    order = list(resolve(table, file="f", default_name="n").steps)
    expected: list[str] = []
    while len(expected) < len(needs):
        expected.append(next(n for n in needs if n not in expected and all(other in expected for other in needs[n])))
    assert order == expected


@given(graphs())
def test_ancestors_and_below_mirror_each_other(needs: dict[str, list[str]]) -> None:
    """One step is among another's ancestors exactly if the other is below it."""
    table = {"steps": {name: {"run": "x", "needs": list(needed)} for name, needed in needs.items()}}
    made = resolve(table, file="f", default_name="n")
    for one in needs:
        for other in needs:
            assert (one in made.ancestors(other)) == (other in made.below(one) and one != other)
