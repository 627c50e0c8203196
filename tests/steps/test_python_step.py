"""Tests of python steps: where a function is written, what is asked of the worker, what is made of its answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from runnable_ci.errors import StepError
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.model import ExceptionInfo, Parameter, StoredObject
from runnable_ci.steps import collect, prepare
from runnable_ci.steps.base import StepContext
from runnable_ci.steps.python import Source, find_source

FUNCTIONS = Path(__file__).parents[1] / "pipelines" / "functions"


def step(function: str, **more: Any) -> Step:
    """A python step."""
    return resolve({"steps": {"a": {"python": function, **more}}}, file="f", default_name="n").steps["a"]


def found(function: str, workspace: Path = FUNCTIONS, **more: Any) -> Source:
    """Where a function is written."""
    source = find_source(step(function, **more), workspace)
    assert source is not None
    return source


def test_plain_function() -> None:
    """A function is found with its own text and the names of its arguments."""
    source = found("module:plain")
    assert (source.file, source.arguments) == (FUNCTIONS / "module.py", ("rate", "depth"))
    assert source.text.startswith("def plain(rate, *, depth=3):")
    assert source.text.endswith("return rate * depth")


def test_decorated_function() -> None:
    """Decorators are part of a function's text, and what they make of its arguments is not known."""
    source = found("module:decorated")
    assert source.text.startswith("@functools.cache\ndef decorated(rate):")
    assert source.arguments is None


def test_function_that_is_awaited() -> None:
    """An async function is one too, also with positional-only arguments."""
    assert found("module:later").arguments == ("rate", "depth")


@pytest.mark.parametrize("name", ["in_else", "in_if", "in_except_star", "in_match"])
def test_function_in_a_block(name: str) -> None:
    """A function is found wherever a module's own code defines it."""
    assert found(f"module:{name}").text.strip().startswith(f"def {name}")


@pytest.mark.parametrize(
    "name",
    [
        *("imported", "functools", "made", "Model", "Model.fit", "tomllib", "first", "second", "annotated"),
        *("in_for", "in_with", "in_walrus"),
    ],
)
def test_callable_that_is_not_a_plain_function(name: str) -> None:
    """What a module binds by other means may be callable; its text is not known, and neither is a hash of it."""
    source = found(f"module:{name}")
    assert (source.text, source.arguments, source.hash()) == ("", None, "")


@pytest.mark.parametrize(
    ("name", "hint"), [("plane", "did you mean `plain`?"), ("rate", "did you mean"), ("xyzzy", ""), ("plain_", "plain")]
)
def test_function_that_is_missing(name: str, hint: str) -> None:
    """A module of the workspace without that function is an error, with the closest name that there is."""
    with pytest.raises(StepError, match=f"module.py has no function `{name}`") as caught:
        found(f"module:{name}")
    assert hint in caught.value.hint


def test_package() -> None:
    """Modules are found in packages, with or without an `__init__.py`, and packages themselves."""
    assert found("package.inner.deep:nested").file == FUNCTIONS / "package/inner/deep.py"
    with pytest.raises(StepError, match=r"__init__\.py has no function `nested`"):
        found("package:nested")


@pytest.mark.parametrize(
    "text",
    [
        "from json import *\n",
        "def __getattr__(name):\n    return print\n",
        "def f():\n    a syntax of tomorrow\n",
        "\0",
    ],
    ids=["star import", "getattr", "newer syntax", "not Python"],
)
def test_what_reading_cannot_tell(tmp_path: Path, text: str) -> None:
    """Behind a star import, a module's `__getattr__` or a syntax that is newer than ours any function may be."""
    (tmp_path / "m.py").write_text(text)
    source = found("m:anything", tmp_path)
    assert (source.text, source.arguments, source.required, source.takes_more) == ("", None, (), True)


def test_module_from_elsewhere() -> None:
    """A module that is not in the workspace is the interpreter's to find."""
    assert find_source(step("json:dumps"), FUNCTIONS) is None


def test_working_directory_first(tmp_path: Path) -> None:
    """A module in the working directory goes before one in the workspace, as for the interpreter."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "m.py").write_text("def f(above): ...\n")
    assert found("m:f", tmp_path, **{"working-directory": "sub"}).arguments == ("above",)
    (tmp_path / "sub/m.py").write_text("def f(below): ...\n")
    assert found("m:f", tmp_path, **{"working-directory": "sub"}).arguments == ("below",)
    assert found("m:f", tmp_path).arguments == ("above",)


SOURCE = "import os\n\n@cache\ndef f(x):\n    # why\n    return x\n\ndef g(): ...\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("import os\n", "import os, sys  # more\n\n\n"),
        ("def g(): ...", "def g(): return 2"),
        ("\n@cache", "\n# about f\n@cache"),
        ("\n\ndef g", "\n# after f\n\ndef g"),
        ("\n", "\r\n"),
        ("import os\n", 'import os\nTEXT = "\u2028"\n\x0c\n'),
    ],
    ids=["import", "another function", "comment above", "comment below", "line ends", "odd characters"],
)
def test_hash_stays(tmp_path: Path, old: str, new: str) -> None:
    """Edits elsewhere in the file, comments outside the function and line ends do not change a function's hash."""
    (tmp_path / "m.py").write_bytes(SOURCE.encode())
    before = found("m:f", tmp_path).hash()
    (tmp_path / "m.py").write_bytes(SOURCE.replace(old, new).encode())
    assert found("m:f", tmp_path).hash() == before != ""


@pytest.mark.parametrize(("old", "new"), [("return x", "return 2 * x"), ("f(x)", "f(x, y)"), ("@cache", "@lru_cache")])
def test_hash_changes(tmp_path: Path, old: str, new: str) -> None:
    """A change within the function, its arguments or its decorators does."""
    (tmp_path / "m.py").write_text(SOURCE)
    before = found("m:f", tmp_path).hash()
    (tmp_path / "m.py").write_text(SOURCE.replace(old, new))
    assert found("m:f", tmp_path).hash() != before


@pytest.mark.parametrize(
    "above", ['X = "\\d"\n', "X = " + " + ".join(["'a'"] * 900) + "\n"], ids=["odd escape", "long expression"]
)
def test_source_that_gives_warnings(tmp_path: Path, above: str) -> None:
    """What a newer Python would warn of, or a deep expression, keeps no function from being found."""
    (tmp_path / "m.py").write_text(above + "def f(x): ...\n")
    assert found("m:f", tmp_path).arguments == ("x",)


def test_later_definition_counts(tmp_path: Path) -> None:
    """Of two definitions of a name the later one is the function, as it is when the module is run."""
    (tmp_path / "m.py").write_text("def f(one): ...\ndef f(two): ...\n")
    assert found("m:f", tmp_path).arguments == ("two",)


@pytest.fixture
def around(tmp_path: Path, environ: Mapping[str, str]) -> StepContext:
    """A workspace with functions in it."""
    (tmp_path / "scratch").mkdir()

    def blob(parameter: Parameter | StoredObject) -> Path:
        return tmp_path / parameter.data_hash[:3]

    return StepContext(
        workspace=FUNCTIONS,
        scratch=tmp_path / "scratch",
        environ={**environ, "PYTHONDONTWRITEBYTECODE": "1"},
        interpreter=sys.executable,
        parameters={
            "rate": Parameter.of_json(0.5),
            "score": Parameter.of_json(3, "metric"),
            "X": Parameter.of_object("X", data_hash="a" * 64, size=1, object_type="T"),
            "Y": Parameter.of_object("Y", data_hash="b" * 64, size=1, object_type="T"),
        },
        blob=blob,
    )


def request(made: Step, around: StepContext) -> dict[str, Any]:
    """What the worker is asked."""
    prepare(made, around)
    asked = json.loads((around.scratch / "request.json").read_bytes())
    assert isinstance(asked, dict)
    return asked


def test_process(around: StepContext) -> None:
    """The worker runs in the user's interpreter, in the step's folder, with the full environment and the step's own."""
    launch = prepare(step("module:plain", env={"A": "1"}), around)
    assert (launch.argv[0], launch.cwd) == (sys.executable, FUNCTIONS)
    assert launch.env == {**around.environ, "A": "1", "RUNNABLE_STEP": "a"}


def test_request(around: StepContext) -> None:
    """The worker is told the function, where to look for it, the values in scope, and the returns in their order."""
    asked = request(step("module:plain", returns={"y": "object", "x": "json"}), around)
    assert (asked["function"], asked["path"]) == ("module:plain", [str(FUNCTIONS)])
    assert asked["returns"] == [["y", "object"], ["x", "json"]]
    assert asked["parameters"]["rate"] == {"kind": "json", "value": 0.5}
    assert asked["parameters"]["score"] == {"kind": "metric", "value": 3}


@pytest.mark.parametrize(
    ("text", "objects"),
    [
        ("def f(rate): ...", set()),
        ("def f(rate, X): ...", {"X"}),
        ("def f(rate, *, Y): ...", {"Y"}),
        ("def f(rate, other=1): ...", {"X", "Y"}),
        ("@wraps\ndef f(rate): ...", {"X", "Y"}),
        ("f = lambda: 1", {"X", "Y"}),
        ("def f(**everything): ...", set()),
    ],
)
def test_objects_that_may_be_taken(around: StepContext, tmp_path: Path, text: str, objects: set[str]) -> None:
    """Only objects that the function may ask for are fetched: those it names, or all where that is not known."""
    (tmp_path / "m.py").write_text(text)
    moved = around._replace(workspace=tmp_path)
    asked = request(step("m:f"), moved)["parameters"]
    assert {name for name, given in asked.items() if given["kind"] == "object"} == objects
    assert asked.get("X", {"path": str(tmp_path / "aaa")})["path"] == str(tmp_path / "aaa")


def run(made: Step, around: StepContext) -> int:
    """Run the worker; its exit code."""
    launch = prepare(made, around)
    return subprocess.run(launch.argv, cwd=launch.cwd, env=launch.env, capture_output=True, check=False).returncode


def test_function_is_called(around: StepContext) -> None:
    """A real call gives the values, what was consumed and what was left to its default, and the modules it loaded."""
    made = step("module:plain", returns=["product"])
    run(made, around)
    back = collect(made, around)
    assert (back.values, back.consumed, back.defaulted) == ({"product": 1.5}, ("rate",), ("depth",))
    stat = (FUNCTIONS / "module.py").stat()
    assert dict(back.modules) == {"module.py": (stat.st_mtime_ns, stat.st_size)}
    assert (back.problem, back.exception, back.exit_code) == ("", None, 0)


ANSWER: dict[str, Any] = {"returns": {}, "error": None, "consumed": [], "defaulted": [], "modules": {}, "exit_code": 0}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"returns": {}}',
        b"\xff" * 9,
        b"[" * 100_000,
        *(
            json.dumps({**ANSWER, **more}).encode()
            for more in (
                {"returns": 3},
                {"more": 1},
                {"error": {"type": "E", "message": "m", "traceback": "t", "more": "secret"}},
                {"returns": {"x": {"kind": "json", "value": 1, "more": 1}}},
                {"modules": {"a.py": [1]}},
            )
        ),
    ],
)
def test_answer_that_cannot_be_read(around: StepContext, answer: bytes) -> None:
    """Something else than the worker wrote the answer, or more than it does: the step fails, the program does not."""
    (around.scratch / "response.json").write_bytes(answer)
    with pytest.raises(StepError, match="the result of `module:plain` cannot be read"):
        collect(step("module:plain"), around)


def test_exception_is_recorded_by_its_own_fields(around: StepContext) -> None:
    """The log has of a failure what its format names, and no place where there is none."""
    error = {"type": "E", "message": "m", "hint": "h", "traceback": "t", "file": None, "line": None}
    (around.scratch / "response.json").write_text(json.dumps({**ANSWER, "exit_code": 1, "error": error}))
    back = collect(step("module:plain"), around)
    assert back.exception == ExceptionInfo(type="E", message="m", traceback="t")
    assert back.problem == "E: m"


def test_no_answer(around: StepContext) -> None:
    """Where the interpreter died there is no answer, and that is said."""
    with pytest.raises(StepError, match="the interpreter exited before `module:plain` returned"):
        collect(step("module:plain"), around)


def test_return_that_no_log_can_hold(around: StepContext) -> None:
    """Text with half a character in it is a problem of the step, named by the return."""
    answer = {**ANSWER, "returns": {"x": {"kind": "json", "value": ["\udcff"]}}}
    (around.scratch / "response.json").write_text(json.dumps(answer))
    back = collect(step("module:plain", returns=["x"]), around)
    assert back.problem == "the return `x`: the text has characters that are not Unicode"


def test_object_stays_in_the_scratch_folder(around: StepContext) -> None:
    """A worker that names a file elsewhere gets nothing from there."""
    answer = {**ANSWER, "returns": {"x": {"kind": "object", "file": "../../etc/passwd", "type": "T"}}}
    (around.scratch / "response.json").write_text(json.dumps(answer))
    back = collect(step("module:plain", returns={"x": "object"}), around)
    assert dict(back.objects) == {"x": (around.scratch / "passwd", "T")}


@pytest.mark.parametrize(
    ("annotation", "is_plain"),
    [
        *(("int", True), ("list[int]", True), ("dict[str, Model]", True), ("None", True), ("Any", True)),
        *(("Path", True), ("pathlib.Path", True), ("datetime.date", True), ("Literal['a', 'b']", True)),
        *(("Colour", True), ("int | None", True), ("Optional[Path]", True), ("Union[int, Colour]", True)),
        *(("Model", False), ("Model | None", False), ("Optional[Model]", False), ("Union[int, Model]", False)),
        *(("Imported", False), ("module.Thing", False), ("'Model'", False), ("argparse.Namespace", False)),
    ],
)
def test_whether_other_parameters_are_taken(tmp_path: Path, annotation: str, is_plain: bool) -> None:
    """An argument of a model may take parameters of other names; of a number, path, date or enumeration never."""
    head = "import enum\nclass Colour(enum.Enum):\n    RED = 1\nclass Model(Base):\n    x: int\n"
    (tmp_path / "m.py").write_text(f"{head}def f(given: {annotation}): ...\n")
    source = found("m:f", tmp_path)
    assert (source.takes_more, source.required) == (not is_plain, ("given",) if is_plain else ())
