from __future__ import annotations

import ast
import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import runnable_ci.steps.worker

WORKER = Path(runnable_ci.steps.worker.__file__).parent
MAIN = WORKER / "python_step.py"
SOURCES = sorted(WORKER.glob("*.py"))


def _interpreters() -> dict[str, str]:
    """One interpreter for each version that a user may have and this machine does."""
    supported = [f"3.{minor}" for minor in range(8, 15)]
    found = [shutil.which(f"python{version}") for version in supported]
    candidates = [sys.executable, *filter(None, found), *map(str, Path.home().glob(".pyenv/versions/3.*/bin/python"))]
    by_version: dict[str, str] = {}
    for candidate in candidates:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        answer = subprocess.run([candidate, "-c", code], capture_output=True, text=True)
        version = answer.stdout.strip()  # a shim of a version manager may stand for nothing
        if version in supported:
            by_version.setdefault(version, candidate)
    return dict(sorted(by_version.items(), key=lambda item: supported.index(item[0])))


INTERPRETERS = _interpreters()


@dataclass(frozen=True)
class Outcome:
    exit_code: int
    response: dict[str, Any]
    stdout: str
    stderr: str

    @property
    def values(self) -> dict[str, Any]:
        """The JSON and metric returns of a step that must have succeeded."""
        assert self.response["status"] == "ok", self.response["error"]
        assert (self.exit_code, self.response["exit_code"], self.response["error"]) == (0, 0, None)
        return {name: returned["value"] for name, returned in self.response["returns"].items() if "value" in returned}

    @property
    def error(self) -> dict[str, Any]:
        """The error of a step that must have failed."""
        assert self.response["status"] == "failed"
        assert self.response["returns"] == {}
        assert self.exit_code == self.response["exit_code"] != 0
        error: dict[str, Any] = self.response["error"]
        return error


@dataclass(frozen=True)
class Worker:
    """A workspace of the user's and an interpreter to run its functions with."""

    workspace: Path
    interpreter: str
    main: Path = MAIN
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, code: str, name: str = "steps.py") -> Path:
        file = self.workspace / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(code), encoding="utf-8")
        return file

    @property
    def objects(self) -> Path:
        return self.workspace.parent / "objects"

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        """The interpreter in the workspace, without the settings that the tests themselves run under."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [self.interpreter, *arguments],
            cwd=self.workspace,
            env={**env, **self.env},
            capture_output=True,
            timeout=60,
        )

    def run(
        self,
        function: str,
        parameters: Mapping[str, Any] | None = None,
        returns: Sequence[str] = (),
        *,
        sources: Mapping[str, Any] | None = None,
    ) -> Outcome:
        """Parameters are JSON values, `sources` those of other kinds; a return is `name` or `name:kind`."""
        self.objects.mkdir(exist_ok=True)
        json_sources = {name: {"kind": "json", "value": value} for name, value in (parameters or {}).items()}
        request = {
            "function": function,
            "path": [str(self.workspace)],
            "workspace": str(self.workspace),
            "parameters": {**json_sources, **(sources or {})},
            "returns": [[name, kind or "json"] for name, _, kind in (entry.partition(":") for entry in returns)],
            "objects": str(self.objects),
        }
        request_path, response_path = (self.workspace.parent / name for name in ("request.json", "response.json"))
        request_path.write_text(json.dumps(request), encoding="utf-8")
        response_path.unlink(missing_ok=True)
        done = self.python(self.main, request_path, response_path)
        assert list(response_path.parent.glob("*.part")) == []
        response = json.loads(response_path.read_text(encoding="utf-8"))
        return Outcome(done.returncode, response, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """A worker in the interpreter of the tests, which has pydantic and cloudpickle."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    return Worker(workspace, sys.executable)


@pytest.fixture(params=INTERPRETERS)
def any_worker(request: pytest.FixtureRequest, worker: Worker) -> Worker:
    """A worker in each supported interpreter of this machine."""
    return Worker(worker.workspace, INTERPRETERS[request.param])


# --- in every interpreter ---------------------------------------------------------------------------------------------


def test_arguments_are_filled_by_name(any_worker: Worker) -> None:
    """Each kind of argument gets the parameter of its name, and only what was passed counts as consumed."""
    any_worker.write("""
        def step(first, second=2, /, third=3, *args, fourth, fifth=5, **rest):
            return [first, second, third, list(args), fourth, fifth, rest]

        def few(third, missing="default"):
            return [third, missing]
    """)
    parameters = {"third": 30, "first": 10, "fourth": [40], "more": "x"}
    blob = {"kind": "object", "path": "/nowhere/never-read.pickle"}

    outcome = any_worker.run("steps:step", parameters, ["all"], sources={"model": blob})
    assert outcome.values == {"all": [10, 2, 30, [], [40], 5, {"more": "x"}]}
    assert outcome.response["consumed"] == ["first", "third", "fourth", "more"]

    outcome = any_worker.run("steps:few", parameters, ["all"], sources={"model": blob})
    assert outcome.values == {"all": [30, "default"]}
    assert outcome.response["consumed"] == ["third"]


TYPES = """
    import argparse, datetime, decimal, enum, os, pathlib, uuid
    from dataclasses import dataclass
    from typing import Any, Dict, FrozenSet, List, NamedTuple, NewType, Optional, Sequence, Set, Tuple, TypeVar, Union

    try:
        from typing import Literal, TypedDict
    except ImportError:
        pass

    class Color(enum.Enum):
        RED = "red"
        GREEN = "g"
        ONE = 1

    class Level(enum.IntEnum):
        LOW = 3

    class Real(float):  # as numpy.float64
        pass

    class Name(str):
        pass

    @dataclass
    class Item:
        path: pathlib.Path
        n: int = 0

    class Pair(NamedTuple):
        x: float
        y: Optional[int] = None

    class Table(TypedDict):
        a: pathlib.Path

    class Frame:
        pass

    Id = NewType("Id", int)
    T = TypeVar("T")

    def step(x: {annotation}, y: "Nowhere" = None):
        return [type(x).__name__, str(x)]
"""
BUILT: list[tuple[str, Any, str, str]] = [
    ("int", 7, "int", "7"),
    ("int", "7", "int", "7"),
    ("int", " -7 ", "int", "-7"),
    ("int", 7.0, "int", "7"),
    ("int", "1e3", "int", "1000"),
    ("float", 7, "float", "7.0"),
    ("float", "1e-3", "float", "0.001"),
    ("float", "-inf", "float", "-inf"),
    ("bool", "no", "bool", "False"),
    ("bool", 1, "bool", "True"),
    ("str", 7, "str", "7"),
    ("str", "7", "str", "7"),
    ("str", 0.5, "str", "0.5"),
    ("str", True, "str", "true"),
    ("complex", 2, "complex", "(2+0j)"),
    ("Real", "0.5", "Real", "0.5"),
    ("Name", 1, "Name", "1"),
    ("decimal.Decimal", "0.10", "Decimal", "0.10"),
    ("decimal.Decimal", 0.1, "Decimal", "0.1"),
    ("Id", "7", "int", "7"),
    ("T", "7", "str", "7"),
    ("Any", "7", "str", "7"),
    ("object", [1], "list", "[1]"),
    ("pathlib.Path", "a/b", "PosixPath", "a/b"),
    ("os.PathLike", "a/b", "PosixPath", "a/b"),
    ("pathlib.PurePosixPath", "a", "PurePosixPath", "a"),
    ("uuid.UUID", "12345678123456781234567812345678", "UUID", "12345678-1234-5678-1234-567812345678"),
    ("Color", "red", "Color", "Color.RED"),
    ("Color", "GREEN", "Color", "Color.GREEN"),
    ("Color", "1", "Color", "Color.ONE"),
    ("Color", 1, "Color", "Color.ONE"),
    ("Literal['a', 3]", "a", "str", "a"),
    ("Literal['a', 3]", "3", "int", "3"),
    ("datetime.date", "2026-01-31", "date", "2026-01-31"),
    ("datetime.datetime", "2026-01-31T12:00", "datetime", "2026-01-31 12:00:00"),
    ("datetime.datetime", "2026-01-31T12:00:00Z", "datetime", "2026-01-31 12:00:00+00:00"),
    ("datetime.datetime", "2026-01-31", "datetime", "2026-01-31 00:00:00"),
    ("datetime.time", "12:30", "time", "12:30:00"),
    ("Optional[int]", None, "NoneType", "None"),
    ("Optional[int]", "7", "int", "7"),
    ("Optional[Color]", "red", "Color", "Color.RED"),
    ("Union[int, str]", "7", "str", "7"),
    ("Union[int, str]", 7, "int", "7"),
    ("Union[float, str]", 7, "float", "7.0"),
    ("Union[int, float]", "7", "int", "7"),
    ("Union[int, float, None]", "0.5", "float", "0.5"),
    ("Union[pathlib.Path, int]", "a", "PosixPath", "a"),
    ("Union[pathlib.Path, int]", 3, "int", "3"),
    ("Union[datetime.date, bool]", "2026-01-31", "date", "2026-01-31"),
    ("Union[Item, int]", {"path": "a"}, "Item", "Item(path=PosixPath('a'), n=0)"),
    ("Union[str, List[str]]", ["a"], "list", "['a']"),
    ("Union[int, 'Nowhere']", "x", "str", "x"),
    ("List[int]", ["1", 2.0], "list", "[1, 2]"),
    ("List[List[pathlib.Path]]", [["a"]], "list", "[[PosixPath('a')]]"),
    ("Sequence[float]", [1], "list", "[1.0]"),
    ("Tuple[int, str]", ["1", 2], "tuple", "(1, '2')"),
    ("Tuple[float, ...]", [1, 2], "tuple", "(1.0, 2.0)"),
    ("tuple", [1, "a"], "tuple", "(1, 'a')"),
    ("list", [1], "list", "[1]"),
    ("dict", {"a": 1}, "dict", "{'a': 1}"),
    ("Set[int]", ["1", 1], "set", "{1}"),
    ("FrozenSet[int]", [1], "frozenset", "frozenset({1})"),
    ("Dict[str, float]", {"a": 1}, "dict", "{'a': 1.0}"),
    ("Dict[int, Color]", {"1": "red"}, "dict", "{1: <Color.RED: 'red'>}"),
    ("Item", {"path": "a/b", "n": "3"}, "Item", "Item(path=PosixPath('a/b'), n=3)"),
    ("Pair", [1, "2"], "Pair", "Pair(x=1.0, y=2)"),
    ("Pair", {"x": "1"}, "Pair", "Pair(x=1.0, y=None)"),
    ("Table", {"a": "b"}, "dict", "{'a': PosixPath('b')}"),
    ("argparse.Namespace", {"a": 1}, "Namespace", "Namespace(a=1)"),
]


@pytest.mark.parametrize(
    ("annotation", "value", "kind", "text"), BUILT, ids=[f"{annotation}-{value}" for annotation, value, *_ in BUILT]
)
def test_arguments_are_built(worker: Worker, annotation: str, value: Any, kind: str, text: str) -> None:
    """An argument is what its annotation says, made of the value."""
    worker.write(TYPES.replace("{annotation}", annotation))
    assert worker.run("steps:step", {"x": value}, ["it"]).values == {"it": [kind, text]}


REFUSED: list[tuple[str, Any, str]] = [
    ("int", "abc", '`x` is "abc", not an int'),
    ("int", 1.5, "`x` is 1.5, not an int"),
    ("int", True, "`x` is true, not an int"),
    ("int", None, "`x` is null, not an int"),
    ("int", [1], "`x` is a list, not an int"),
    ("float", "1,5", '`x` is "1,5", not a float'),
    ("float", "1_000", '`x` is "1_000", not a float'),
    ("float", False, "`x` is false, not a float"),
    ("bool", "maybe", '`x` is "maybe", not a bool'),
    ("bool", 2, "`x` is 2, not a bool"),
    ("str", None, "`x` is null, not a str"),
    ("str", {"a": 1}, "`x` is a table, not a str"),
    ("pathlib.Path", 3, "`x` is 3, not a path"),
    ("Color", "blue", '`x` is "blue", not one of red, g, 1 (Color)'),
    ("Level", "high", '`x` is "high", not one of 3 (Level)'),
    ("Literal['x', 'y']", "z", "`x` is \"z\", not one of 'x', 'y'"),
    ("Literal[1]", True, "`x` is true, not one of 1"),
    ("datetime.date", "31.1.2026", '`x` is "31.1.2026", not a date such as 2026-01-31'),
    ("datetime.date", "2026-01-31T10:00", '`x` is "2026-01-31T10:00", not a date such as 2026-01-31'),
    ("datetime.date", "2026-02-31", '`x` is "2026-02-31", not a date such as 2026-01-31'),
    ("datetime.datetime", 1700000000, "`x` is 1700000000, not a datetime such as 2026-01-31T12:00"),
    ("Optional[int]", "abc", '`x` is "abc", not an int'),
    ("Union[int, bool]", "1", '`x` is "1", which can be bool or int'),
    ("Union[int, str]", 1.5, "`x` is 1.5, not one of int, str"),
    ("Union[datetime.date, datetime.datetime]", "2026-01-31", "which can be datetime.date or datetime.datetime"),
    ("List[int]", ["1", "b"], '`x[1]` is "b", not an int'),
    ("List[int]", "1", "`x` is of type str, not the list that its annotation asks for"),
    ("Sequence[str]", "abc", "`x` is of type str, not the list that its annotation asks for"),
    ("list", {"a": 1}, "`x` is of type dict, not the list that its annotation asks for"),
    ("Dict[str, int]", {"a": {}}, '`x["a"]` is a table, not an int'),
    ("Tuple[int, int]", [1], "`x` has 1 items, its annotation 2"),
    ("Item", {"path": "a", "n": "many"}, '`x.n` is "many", not an int'),
    ("Table", {}, "`x` has no `a`, which `Table` needs"),
    ("Frame", [1], "`x` is a list, not a Frame"),
    ("bytes", "a", '`x` is "a", not a bytes'),
]


@pytest.mark.parametrize(
    ("annotation", "value", "message"), REFUSED, ids=[f"{annotation}-{value}" for annotation, value, _ in REFUSED]
)
def test_arguments_of_another_type_are_refused(worker: Worker, annotation: str, value: Any, message: str) -> None:
    """The error names the parameter, what it is, and what the annotation asks for."""
    worker.write(TYPES.replace("{annotation}", annotation))
    error = worker.run("steps:step", {"x": value}, ["it"]).error
    assert error["type"] == "WrongParameterError"
    assert message in error["message"]
    assert (error["file"], error["line"]) == ("steps.py", TYPES[: TYPES.index("def step")].count("\n") + 1)


def test_arguments_in_every_interpreter(any_worker: Worker) -> None:
    """Annotations are the same in each version of Python; what they leave open, a default and an object stay."""
    any_worker.write("""
        import datetime, enum, pathlib
        from typing import Dict, List, Optional, Union

        class Color(enum.Enum):
            RED = "red"

        def step(
            flag: bool, n: int, items: List[int], path: "pathlib.Path", color: Color, when: datetime.datetime,
            either: Union[int, str], perhaps: Optional[Dict[str, float]] = None, no: int = None, default: int = "x",
            unknown: "Nowhere" = None, **more: float
        ):
            return [str(x) for x in (flag, n, items, path, color, when, either, perhaps, no, default, unknown, more)]

        def of_object(model: int):
            return model
    """)
    parameters = json.loads("""{
        "flag": "false", "n": "7", "items": ["1"], "path": "a", "color": "red", "when": "2026-01-31T10:00:00Z",
        "either": 5, "perhaps": {"a": 1}, "no": null, "unknown": {"a": 1}, "extra": "2"
    }""")
    assert any_worker.run("steps:step", parameters, ["all"]).values["all"] == [
        *("False", "7", "[1]", "a", "Color.RED", "2026-01-31 10:00:00+00:00", "5", "{'a': 1.0}", "None", "x"),
        *("{'a': 1}", "{'extra': 2.0}"),
    ]
    (any_worker.workspace / "o.pickle").write_bytes(pickle.dumps("text"))
    blob = {"kind": "object", "path": str(any_worker.workspace / "o.pickle")}
    assert any_worker.run("steps:of_object", {}, ["it"], sources={"model": blob}).values == {"it": "text"}


def test_a_namespace_has_all_parameters(any_worker: Worker) -> None:
    """An argument that is what `argparse` gives has every value, and all of them count as consumed."""
    any_worker.write("""
        import argparse
        from typing import Optional

        def main(args: argparse.Namespace, rate: float = 0):
            return [args.depth, args.rate, rate, hasattr(args, "model")]

        def perhaps(args: Optional[argparse.Namespace] = None):
            return args.depth
    """)
    blob = {"kind": "object", "path": "/nowhere/never-read.pickle"}
    outcome = any_worker.run("steps:main", {"depth": 3, "rate": "0.5"}, ["it"], sources={"model": blob})
    assert outcome.values == {"it": [3, "0.5", 0.5, False]}
    assert sorted(outcome.response["consumed"]) == ["depth", "rate"]
    assert any_worker.run("steps:perhaps", {"depth": 3}, ["it"]).values == {"it": 3}
    assert any_worker.run("steps:perhaps", {"args": {"depth": 4}}, ["it"]).values == {"it": 4}


def test_dataclasses_are_built(any_worker: Worker) -> None:
    """A dataclass is built from the table of its name or from its fields, nested ones and string annotations too."""
    any_worker.write(
        """
        from __future__ import annotations
        from dataclasses import dataclass

        @dataclass
        class Layer:
            size: int

        @dataclass
        class Network:
            layer: Layer
        """,
        "layers.py",
    )
    any_worker.write("""
        from __future__ import annotations
        from dataclasses import dataclass, field
        from typing import TYPE_CHECKING, Optional
        from layers import Network

        if TYPE_CHECKING:
            from nowhere import Frame

        @dataclass
        class Options(Network):
            rate: float
            last: Optional[Network] = None
            tags: list = field(default_factory=list)

        @dataclass
        class Size:
            rows: int = 1

        @dataclass
        class Split:
            test_size: float
            seed: int = 0

        def step(options: Options, split: Split, frame: Frame, other: Optional[Split] = None, no: Split = Split(9)):
            assert isinstance(options, Options), options
            return [options.rate, options.layer.size, options.last.layer.size, options.tags, split, frame, other, no]

        def sizes(given: Size, default: Size = Size(5)):
            return given, default

        def again(given: Size):
            return given.rows
    """)
    options = {"rate": 0.1, "layer": {"size": 2}, "last": {"layer": {"size": 3}}}
    outcome = any_worker.run(
        "steps:step", {"options": options, "test_size": 0.5, "frame": 1, "other": None, "no": {"test_size": 1}}, ["all"]
    )
    split = {"test_size": 0.5, "seed": 0}
    assert outcome.values == {"all": [0.1, 2, 3, [], split, 1, None, {"test_size": 1, "seed": 0}]}
    assert outcome.response["consumed"] == ["options", "test_size", "frame", "other", "no"]

    outcome = any_worker.run("steps:sizes", {}, ["given:object", "default"])
    assert outcome.values == {"default": {"rows": 5}}
    blob = {"kind": "object", "path": str(any_worker.objects / "given.pickle")}
    assert any_worker.run("steps:again", {}, ["rows"], sources={"given": blob}).values == {"rows": 1}

    error = any_worker.run("steps:step", {"options": {**options, "rte": 1}, "test_size": 1, "frame": 1}).error
    assert (error["type"], error["hint"]) == ("WrongParameterError", "did you mean `rate`?")
    assert error["message"] == "`options` has `rte`, which is no field of dataclass `Options`"

    error = any_worker.run("steps:step", {"options": "fast", "test_size": 1, "frame": 1}).error
    assert error["message"] == "`options` is of type str, not the table that dataclass `Options` is built from"

    error = any_worker.run("steps:step", {"options": {"rate": 1}, "test_size": 1, "frame": 1}).error
    assert error["message"] == "dataclass `Options` needs `layer`, which no key of `options` provides"


def test_returns_of_every_kind_reach_the_next_step(any_worker: Worker) -> None:
    """JSON comes back equal, a metric keeps NaN and infinity, an object is pickled here and loaded by the next step."""
    any_worker.write("""
        from collections import namedtuple

        class Model:
            def __init__(self, weight):
                self.weight = weight

        Result = namedtuple("Result", "model data score")

        def fit():
            return Result(Model(3), {"a": [1, 2.5, None, True, "é"], "b": (1, 2)}, [float("nan"), -float("inf"), 0.5])

        def use(model, data, score):
            assert isinstance(model, Model)
            return [model.weight, data, str(score)]
    """)
    outcome = any_worker.run("steps:fit", {}, ["model:object", "data", "score:metric"])
    assert outcome.values == {
        "data": {"a": [1, 2.5, None, True, "é"], "b": [1, 2]},
        "score": ["NaN", "-Infinity", 0.5],
    }
    assert outcome.response["returns"]["model"] == {
        "kind": "object",
        "file": "model.pickle",
        "type": "steps.Model",
        "pickler": "pickle",
    }
    assert [path.name for path in any_worker.objects.iterdir()] == ["model.pickle"]

    sources = {
        "model": {"kind": "object", "path": str(any_worker.objects / "model.pickle")},
        "score": {"kind": "metric", "value": ["NaN", "-Infinity", 0.5]},
    }
    outcome = any_worker.run("steps:use", {"data": {"b": 1}}, ["all"], sources=sources)
    assert outcome.values == {"all": [3, {"b": 1}, "[nan, -inf, 0.5]"]}


def test_a_failing_function_leaves_its_own_traceback(any_worker: Worker) -> None:
    """Type, message, place and the whole chain of causes are kept, as Python prints them and without our frames."""
    file = any_worker.write("""
        import helper

        def step(x):
            try:
                helper.look({}, x)
            except KeyError as error:
                raise ValueError("no é here") from error
    """)
    any_worker.write("def look(table, key):\n    return table[key]\n", "helper.py")
    outcome = any_worker.run("steps:step", {"x": "gone"})
    error = outcome.error
    assert (error["type"], error["message"], error["file"], error["line"]) == ("ValueError", "no é here", "steps.py", 8)
    assert error["traceback"] == outcome.stderr
    assert "KeyError: 'gone'\n\nThe above exception was the direct cause of the following" in error["traceback"]
    assert f'File "{file}", line 8, in step' in error["traceback"]
    assert error["traceback"].startswith("Traceback (most recent call last):\n")
    assert error["traceback"].endswith("ValueError: no é here\n")
    assert str(WORKER) not in error["traceback"]
    assert "importlib" not in error["traceback"]
    assert outcome.exit_code == 1
    assert outcome.response["consumed"] == ["x"]


def test_an_error_in_code_without_a_file_is_placed_in_the_users_file(any_worker: Worker) -> None:
    """The place is the innermost line that the user can open."""
    any_worker.write("""
        import json

        def step():
            exec("1 / 0")

        def library():
            json.loads("{")

        def wrong_code():
            compile("1 +", "<string>", "exec")
    """)
    for function, line in (("step", 5), ("library", 8), ("wrong_code", 11)):
        error = any_worker.run(f"steps:{function}").error
        assert (error["file"], error["line"]) == ("steps.py", line)


def test_an_import_that_fails_keeps_its_true_traceback(any_worker: Worker) -> None:
    """A package that the user's module misses is Python's own error, placed at the user's import."""
    any_worker.write("import os\nimport package_that_is_missing\n")
    error = any_worker.run("steps:step").error
    assert (error["type"], error["file"], error["line"]) == ("ModuleNotFoundError", "steps.py", 2)
    assert error["message"] == "No module named 'package_that_is_missing'"
    assert "import package_that_is_missing" in error["traceback"]
    assert str(WORKER) not in error["traceback"]


def test_a_syntax_error_is_placed_in_its_file(any_worker: Worker) -> None:
    """Code that does not compile is shown as Python shows it, with the file and line of the mistake."""
    any_worker.write("def step():\n    return 1 +\n")
    outcome = any_worker.run("steps:step")
    error = outcome.error
    assert (error["type"], error["file"], error["line"]) == ("SyntaxError", "steps.py", 2)
    assert error["traceback"].startswith('  File "')
    assert outcome.stderr == error["traceback"]


@pytest.mark.parametrize(
    ("call", "returns", "status", "exit_code", "stderr"),
    [
        ("sys.exit()", [], "ok", 0, ""),
        ("sys.exit(0)", [], "ok", 0, ""),
        ("sys.exit(3)", [], "failed", 3, ""),
        ("sys.exit(256)", [], "failed", 1, ""),
        ("sys.exit('good bye')", [], "failed", 1, "good bye\n"),
    ],
)
def test_sys_exit_means_what_it_says(
    worker: Worker, call: str, returns: list[str], status: str, exit_code: int, stderr: str
) -> None:
    """`sys.exit(0)` ends a step well, any other code fails it with that code, as in a script."""
    worker.write(f"import sys\ndef step():\n    {call}\n")
    outcome = worker.run("steps:step", {}, returns)
    assert (outcome.response["status"], outcome.exit_code, outcome.stderr) == (status, exit_code, stderr)
    assert outcome.response["exit_code"] == exit_code
    if status == "failed":
        assert (outcome.error["type"], outcome.error["file"], outcome.error["line"]) == ("SystemExit", "steps.py", 3)


def test_sys_exit_before_the_returns_fails(any_worker: Worker) -> None:
    """A step that leaves by `sys.exit(0)` without what it should return has failed, at that line."""
    any_worker.write("import sys\ndef step():\n    sys.exit(0)\n")
    error = any_worker.run("steps:step", {}, ["X", "Y"]).error
    assert error["message"] == "function `steps:step` called sys.exit(0) before it returned X, Y"
    assert (error["file"], error["line"]) == ("steps.py", 3)


def test_sys_exit_of_the_module_fails(worker: Worker) -> None:
    """A module that leaves while it is imported never ran the step's function."""
    worker.write("import sys\nsys.exit(0)\n")
    error = worker.run("steps:step").error
    assert error["message"] == "module `steps` called sys.exit(0) during import"
    assert (error["file"], error["line"]) == ("steps.py", 2)


def test_an_interrupt_ends_the_process_by_its_signal(any_worker: Worker) -> None:
    """Ctrl-C leaves a response and one traceback, and the process dies as the shell expects it to."""
    any_worker.write("def step():\n    raise KeyboardInterrupt\n")
    outcome = any_worker.run("steps:step")
    assert outcome.exit_code == -2
    assert outcome.response["exit_code"] == 130
    assert outcome.response["error"]["type"] == "KeyboardInterrupt"
    assert outcome.stderr == outcome.response["error"]["traceback"]


def test_the_function_sees_what_a_script_sees(any_worker: Worker) -> None:
    """`sys.path` is a script's, `sys.argv` names the function, and nothing of ours can be imported by accident."""
    script = any_worker.write("import sys; print(sys.path)", "script.py")
    plain = any_worker.python(script).stdout.decode()
    any_worker.write("def mark():\n    return 'the user'\n", "arguments.py")
    any_worker.write("from arguments import mark\n", "returns.py")
    any_worker.write("""
        import sys
        from returns import mark

        def step():
            ours = []
            for name in ("python_step", "annotations", "failures", "workspace"):
                try:
                    __import__(name)
                except ImportError:
                    continue
                ours.append(name)
            return sys.path, sys.argv, ours, mark()
    """)
    outcome = any_worker.run("steps:step", {}, ["path", "argv", "ours", "mark"])
    assert outcome.values == {
        "path": ast.literal_eval(plain),
        "argv": ["steps:step"],
        "ours": [],
        "mark": "the user",
    }


def test_the_log_level_of_the_run(any_worker: Worker) -> None:
    """The root logger has it, and messages are shown where no handler is set up; another word is ignored."""
    any_worker.write("""
        import logging

        def step():
            logging.getLogger("mine").debug("hidden")
            logging.getLogger("mine").info("shown")
            return logging.getLogger().level
    """)
    asking = Worker(any_worker.workspace, any_worker.interpreter, env={"RUNNABLE_LOG_LEVEL": "INFO"})
    outcome = asking.run("steps:step", {}, ["it"])
    assert (outcome.values, outcome.stderr) == ({"it": 20}, "shown\n")
    other = Worker(any_worker.workspace, any_worker.interpreter, env={"RUNNABLE_LOG_LEVEL": "loud"})
    assert other.run("steps:step", {}, ["it"]).values == {"it": 30}


def test_what_few_steps_need_is_not_imported_for_others(any_worker: Worker) -> None:
    """A plain step loads neither picklers nor what only a coroutine or a failure takes."""
    any_worker.write("""
        import sys

        def step(x: int, y: "float" = 1.5):
            return sorted(sys.modules)
    """)
    bare = any_worker.python("-c", "import sys; print(*sys.modules)").stdout.decode().split()
    ours = set(any_worker.run("steps:step", {"x": 1}, ["modules"]).values["modules"]) - set(bare)
    assert "_runnable_ci_worker.step" in ours
    assert not ours & {"_runnable_ci_worker.objects", "pickle", "asyncio", "difflib", "traceback", "logging", "typing"}


def test_the_modules_of_the_workspace_are_reported(any_worker: Worker) -> None:
    """Each loaded module of the user's is named with the time and size that it had when it was imported."""
    any_worker.write("X = 1\n", "package/__init__.py")
    late = any_worker.write("Y = 1\n", "package/late.py")
    any_worker.write("Z = 1\n", "lib/site-packages/installed.py")
    any_worker.write("W = 1\n", "unused.py")
    relative = any_worker.write("V = 1\n", "src/relative.py")
    steps = any_worker.write("""
        import sys
        sys.path += ["lib/site-packages", "src"]
        import installed, package, json

        def step():
            import os
            import relative
            from package import late
            with open("steps.py", "a") as file:
                file.write("# changed while it runs")
            os.chdir("/")
    """)
    before = steps.stat()
    modules = any_worker.run("steps:step").response["modules"]
    assert modules == {
        "steps.py": [before.st_mtime_ns, before.st_size],
        "package/__init__.py": [(any_worker.workspace / "package/__init__.py").stat().st_mtime_ns, 6],
        "src/relative.py": [relative.stat().st_mtime_ns, 6],
        "package/late.py": [late.stat().st_mtime_ns, 6],
    }


def test_an_environment_inside_the_workspace_is_not_the_users_code(worker: Worker) -> None:
    """What the interpreter loads of its own environment is not reported, wherever that is."""
    venv.create(worker.workspace / ".venv", symlinks=True)
    worker.write("", ".venv/tool.py")
    worker.write("import json, tool\ndef step(): pass\n")
    inner = Worker(
        worker.workspace,
        str(worker.workspace / ".venv/bin/python"),
        env={"PYTHONPATH": str(worker.workspace / ".venv")},
    )
    assert list(inner.run("steps:step").response["modules"]) == ["steps.py"]


def test_modules_reached_by_a_link_are_reported(worker: Worker, tmp_path: Path) -> None:
    """A module is the user's by where its file is, whatever way `sys.path` takes to it."""
    worker.write("", "src/linked.py")
    (tmp_path / "link").symlink_to(worker.workspace / "src")
    worker.write("import linked\ndef step(): pass\n")
    linked = Worker(worker.workspace, worker.interpreter, env={"PYTHONPATH": str(tmp_path / "link")})
    assert set(linked.run("steps:step").response["modules"]) == {"steps.py", "src/linked.py"}


def test_coroutines_are_run(any_worker: Worker) -> None:
    """An async function returns what it would if awaited."""
    any_worker.write("""
        import asyncio

        async def step(x):
            await asyncio.sleep(0)
            return x + 1
    """)
    assert any_worker.run("steps:step", {"x": 1}, ["y"]).values == {"y": 2}


CONTAINERS = """
    from dataclasses import dataclass
    from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

    @dataclass
    class Item:
        a: int
        more: "Optional[List[Item]]" = None

    @dataclass
    class Config:
        items: List[Item]
        named: Dict[str, List["Item"]]
        pair: Tuple[Item, int]
        any_many: Tuple[Item, ...] = ()
        perhaps: Optional[Sequence[Item]] = None
        either: Union[Item, int] = 0
        plain: Tuple[int, int] = (0, 0)

    def step(c: Config, alone: List[Item]):
        first = c.items[0]
        assert isinstance(first, Item) and isinstance(first.more[0], Item) and isinstance(c.named["x"][0], Item), c
        assert isinstance(c.pair, tuple) and c.pair == (Item(2), 3) and c.any_many == (Item(4), Item(5)), c
        assert c.either == Item(6) and c.plain == (1, 2) and c.perhaps is None and alone == [Item(7)], c
        return True

    def one(c: Config):
        return c
"""


def test_containers_of_dataclasses_are_built(any_worker: Worker) -> None:
    """Lists, dicts, tuples and optional ones are built at any depth."""
    any_worker.write(CONTAINERS)
    c = {
        "items": [{"a": 1, "more": [{"a": 1}]}],
        "named": {"x": [{"a": 1}]},
        "pair": [{"a": 2}, 3],
        "any_many": [{"a": 4}, {"a": 5}],
        "perhaps": None,
        "either": {"a": 6},
        "plain": [1, 2],
    }
    assert any_worker.run("steps:step", {"c": c, "alone": [{"a": 7}]}, ["it"]).values == {"it": True}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"items": {"a": 1}}, "`c.items` is of type dict, not the list that its annotation asks for"),
        ({"items": [{"a": 1}, 2]}, "`c.items[1]` is of type int, not the table that dataclass `Item` is built from"),
        ({"items": [{"b": 1}]}, "`c.items[0]` has `b`, which is no field of dataclass `Item`"),
        ({"named": [1]}, "`c.named` is of type list, not the table that its annotation asks for"),
        ({"named": {"x": [{}]}}, 'dataclass `Item` needs `a`, which no key of `c.named["x"][0]` provides'),
        ({"pair": [{"a": 1}]}, "`c.pair` has 1 items, its annotation 2"),
    ],
)
def test_a_container_of_the_wrong_shape_is_named(worker: Worker, wrong: dict[str, Any], message: str) -> None:
    """The error says which field, at which place in it, is of which shape."""
    worker.write(CONTAINERS)
    c = {"items": [], "named": {}, "pair": [{"a": 1}, 1], **wrong}
    error = worker.run("steps:one", {"c": c}, ["it"]).error
    assert (error["type"], error["message"]) in [(t, message) for t in ("WrongParameterError", "MissingParameterError")]


def test_other_callables_are_filled_by_their_signature(any_worker: Worker) -> None:
    """Decorated functions, classes, methods, partials and built-ins get their arguments as `inspect` sees them."""
    any_worker.write("""
        import functools, math
        from dataclasses import dataclass

        def logged(function):
            @functools.wraps(function)
            def wrapper(*args, **kwargs):
                return ["logged", function(*args, **kwargs)]
            return wrapper

        @dataclass
        class Point:
            x: int

        @logged
        def decorated(x, point: "Point", /, y=2):
            return [x, point, y]

        class Model:
            def fit(self, x):
                return x + 1

        model = Model()
        half = functools.partial(lambda x, y, z: [x, y, z], y=20)
        power = math.pow
    """)
    parameters = {"x": 3, "z": 4, "point": {"x": 1}}

    def returned(function: str, **more: float) -> Any:
        return any_worker.run(f"steps:{function}", {**parameters, **more}, ["it"]).values["it"]

    assert returned("decorated") == ["logged", [3, {"x": 1}, 2]]
    assert returned("Point") == {"x": 3}
    assert returned("model.fit") == 4
    assert returned("half") == [3, 20, 4]
    assert returned("power", y=2) == 9


# --- what JSON and metrics hold ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kind", "problem"),
    [
        ('{"a": [1, 2, {3}]}', "json", '`score["a"][2]` is of type set'),
        ("[b'x']", "json", "`score[0]` is of type bytes"),
        ('{"a": {1: 2}}', "json", '`score["a"]` has a key that is not a string but 1'),
        ('(1, float("nan"))', "json", "`score[1]` is NaN"),
        ('-float("inf")', "json", "`score` is -Infinity"),
        ("pathlib.Path('x')", "json", "`score` is of type pathlib.PosixPath"),
        ("Color.RED", "json", "`score` is of type steps.Color"),
        ("loop", "json", "is nested deeper than 100 levels, or contains itself"),
        ("10 ** 5000", "json", "`score` is an integer of more than 4200 digits"),
        ("'\\udc80'", "json", "`score` is not valid Unicode text: '\\udc80'"),
        ("3j", "json", "`score` is of type complex"),
        ("Array()", "json", "`score` is of type steps.Array"),
        ("True", "metric", "`score` is not a number but True"),
        ("None", "metric", "`score` is not a number but None"),
        ('{"a": "0.5"}', "metric", "`score[\"a\"]` is not a number but '0.5'"),
    ],
)
def test_what_json_cannot_hold_is_refused(worker: Worker, value: str, kind: str, problem: str) -> None:
    """Nothing is changed to fit: the error names the place inside the value, the function and a way out."""
    worker.write(f"""
        import enum, pathlib

        class Color(enum.Enum):
            RED = 1

        class Array:
            shape = (2,)
            def item(self):
                raise ValueError

        loop = []
        loop.append(loop)

        def step():
            return {value}
    """)
    error = worker.run("steps:step", {}, [f"score:{kind}"]).error
    assert error["type"] == "WrongReturnsError"
    holder = "JSON" if kind == "json" else "a metric"
    assert error["message"].startswith(f"function `steps:step` returned what {holder} cannot hold: `score")
    assert problem in error["message"]
    assert error["hint"]
    assert (error["file"], error["line"]) == ("steps.py", 15)


def test_text_is_declared(worker: Worker) -> None:
    """What a step declares as text is the text that its function returns, and nothing else."""
    worker.write("def step(x):\n    return x\n")
    assert worker.run("steps:step", {"x": "007"}, ["sha:text"]).response["returns"] == {
        "sha": {"kind": "json", "value": "007"}
    }
    error = worker.run("steps:step", {"x": 7}, ["sha:text"]).error
    assert error["message"] == "function `steps:step` returned what text cannot hold: `sha` is of type int"
    assert error["hint"] == "return str(…), or declare another kind"


def test_values_that_say_what_they_are_in_json_are_taken(worker: Worker) -> None:
    """Models, dataclasses, scalars of number libraries, and enums that are strings or numbers become plain JSON."""
    worker.write("""
        import enum, datetime
        from dataclasses import dataclass
        from pydantic import BaseModel
        from pydantic.v1 import BaseModel as OldModel

        class Float(float):  # as numpy.float64
            def __repr__(self):
                return "Float(0.5)"

        class Int:  # as numpy.int64
            shape = ()
            def item(self):
                return 7

        class Kind(str, enum.Enum):
            TREE = "tree"

        class Size(enum.IntEnum):
            BIG = 3

        class Model(BaseModel):
            when: datetime.date = datetime.date(2024, 1, 2)

        class Old(OldModel):
            when: datetime.date = datetime.date(2024, 1, 2)

        @dataclass
        class Holder:
            inner: object

        def step():
            return [Float(0.5), Int(), Kind.TREE, Size.BIG, Model(), Old(), Holder({"a": Holder(Int())})], Int()
    """)
    when = {"when": "2024-01-02"}
    assert worker.run("steps:step", {}, ["all", "n:metric"]).values == {
        "all": [0.5, 7, "tree", 3, when, when, {"inner": {"a": {"inner": 7}}}],
        "n": 7,
    }


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("1, 2, 3", "3 values"),
        ("[1]", "1 value"),
        ("None", "nothing"),
        ("'ab'", "one value of type str"),
        ("{'X': 1, 'Z': 2}", "a dict with the keys X, Z"),
    ],
)
def test_a_wrong_number_of_returns_is_refused(worker: Worker, value: str, got: str) -> None:
    """The error says what came back and what the step names."""
    worker.write(f"def step():\n    return {value}\n")
    error = worker.run("steps:step", {}, ["X", "Y"]).error
    assert error["message"] == f"function `steps:step` returned {got}, the step's `returns` names 2 (X, Y)"
    assert (error["file"], error["line"]) == ("steps.py", 1)


def test_returns_are_matched(worker: Worker) -> None:
    """One return is the whole value, several are a tuple in order or a dict of their names, none is ignored."""
    worker.write("""
        def pair():
            return 1, 2

        def table():
            return {"Y": 2, "X": 1}

        def anything():
            return object()
    """)
    assert worker.run("steps:pair", {}, ["both"]).values == {"both": [1, 2]}
    assert worker.run("steps:pair", {}, ["X", "Y"]).values == {"X": 1, "Y": 2}
    assert worker.run("steps:table", {}, ["X", "Y"]).values == {"X": 1, "Y": 2}
    assert worker.run("steps:anything").values == {}


def test_a_generator_is_refused(worker: Worker) -> None:
    """A function that yields has not run, so it has not succeeded."""
    worker.write("def step():\n    yield 1\n")
    error = worker.run("steps:step").error
    assert error["message"] == "function `steps:step` is a generator: it was not run"


# --- objects ----------------------------------------------------------------------------------------------------------


def test_cloudpickle_of_the_user_takes_over(worker: Worker) -> None:
    """What pickle cannot write is written by the cloudpickle of the user's environment, and loaded by the next step."""
    worker.write("""
        def make():
            return lambda: 42

        def use(answer):
            return answer()
    """)
    outcome = worker.run("steps:make", {}, ["answer:object"])
    assert outcome.response["returns"]["answer"]["pickler"] == "cloudpickle"
    blob = {"kind": "object", "path": str(worker.objects / "answer.pickle")}
    assert worker.run("steps:use", {}, ["it"], sources={"answer": blob}).values == {"it": 42}


def test_an_object_that_cannot_be_pickled(worker: Worker, tmp_path: Path) -> None:
    """Without cloudpickle the error names return and type, keeps pickle's own words, and says what to install."""
    venv.create(tmp_path / "bare", symlinks=True)
    bare = Worker(worker.workspace, str(tmp_path / "bare/bin/python"))
    bare.write("def make():\n    return lambda: 42\n")
    error = bare.run("steps:make", {}, ["answer:object"]).error
    assert error["type"] == "NotPicklableError"
    assert error["message"] == "function `steps:make` returned `answer` of type function, which pickle cannot serialize"
    assert error["hint"] == "install cloudpickle in the environment of the step"
    assert "<lambda>" in error["traceback"]
    assert list(bare.objects.iterdir()) == []


def test_an_object_that_cannot_be_loaded(worker: Worker) -> None:
    """The error names the parameter and keeps the true cause."""
    worker.write("def use(model):\n    return 1\n")
    blob = worker.workspace / "model.pickle"
    blob.write_bytes(b"cmissing_module\nModel\n.")
    error = worker.run("steps:use", sources={"model": {"kind": "object", "path": str(blob)}}).error
    assert error["type"] == "UnreadableObjectError"
    assert "object `model` cannot be loaded: ModuleNotFoundError: No module named 'missing_module'" in error["message"]
    assert "direct cause" in error["traceback"]
    assert str(WORKER) not in error["traceback"]


def test_objects_use_the_highest_protocol(worker: Worker) -> None:
    """The pickle is of the interpreter's highest protocol."""
    worker.write("def make():\n    return [1, 2]\n")
    worker.run("steps:make", {}, ["X:object"])
    content = (worker.objects / "X.pickle").read_bytes()
    assert pickle.loads(content) == [1, 2]  # noqa: S301  # made by the line above
    assert content == pickle.dumps([1, 2], protocol=pickle.HIGHEST_PROTOCOL)


# --- pydantic ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["pydantic", "pydantic.v1"])
def test_pydantic_models_are_built(worker: Worker, package: str) -> None:
    """A model of either version is built from the table of its name or from its fields, and passed through if built."""
    worker.write(f"""
        from typing import Optional
        from {package} import BaseModel, Field

        class Options(BaseModel):
            rate: float
            depth: int = Field(3, alias="max_depth")

        def by_name(options: Options):
            return isinstance(options, Options), options.rate, options.depth

        def by_fields(options: "Options", other: Optional[Options] = None):
            return isinstance(options, Options), options.rate, options.depth

        def optional(options: Optional[Options]):
            return options is None, 0, 0

        def make():
            return Options(rate=9)
    """)
    names = ["is_model", "rate", "depth"]
    parameters = {"options": {"rate": "0.5", "max_depth": 4}, "rate": 1}
    outcome = worker.run("steps:by_name", parameters, names)
    assert (outcome.values, outcome.response["consumed"]) == ({"is_model": True, "rate": 0.5, "depth": 4}, ["options"])

    outcome = worker.run("steps:by_fields", {"rate": 2, "max_depth": 5, "more": 1}, names)
    assert outcome.values == {"is_model": True, "rate": 2, "depth": 5}
    assert outcome.response["consumed"] == ["rate", "max_depth"]

    assert worker.run("steps:optional", {"options": None}, names).values["is_model"] is True

    worker.run("steps:make", {}, ["options:object"])
    blob = {"kind": "object", "path": str(worker.objects / "options.pickle")}
    outcome = worker.run("steps:by_name", {}, names, sources={"options": blob})
    assert outcome.values == {"is_model": True, "rate": 9, "depth": 3}


def test_what_pydantic_says_is_the_error(worker: Worker) -> None:
    """A value that the model refuses fails the step with pydantic's own words; so does null unless it is optional."""
    worker.write("""
        from pydantic import BaseModel

        class Options(BaseModel):
            rate: float

        def step(options: Options):
            pass
    """)
    error = worker.run("steps:step", {"options": {"rate": "fast"}}).error
    assert error["type"] == "pydantic_core._pydantic_core.ValidationError"
    assert "1 validation error for Options\nrate\n" in error["message"]
    assert error["message"] in error["traceback"]
    assert "validation error for Options" in worker.run("steps:step", {"options": None}).error["message"]

    error = worker.run("steps:step", {"other": 1}).error
    assert error["message"] == "function `steps:step` needs `options`, which no parameter or earlier step provides"
    assert error["hint"] == "specify `options`, or the missing fields of Options: `rate`"


# --- mistakes between step and function -------------------------------------------------------------------------------


def test_a_missing_parameter_is_named(worker: Worker) -> None:
    """The error names all that is missing, suggests the parameter that was meant, and points at the function."""
    worker.write("\n\ndef fit(X_train, y, z=1):\n    pass\n")
    error = worker.run("steps:fit", {"x_train": 1}).error
    assert error["type"] == "MissingParameterError"
    assert error["message"] == "function `steps:fit` needs `X_train`, `y`, which no parameter or earlier step provides"
    assert error["hint"] == "did you mean `x_train`?"
    assert (error["file"], error["line"]) == ("steps.py", 3)
    assert error["traceback"] == f"MissingParameterError: {error['message']}\nhint: {error['hint']}\n"


@pytest.mark.parametrize(
    ("function", "message", "hint"),
    [
        ("stepz:load", "no module `stepz` in {workspace}", "did you mean `steps`?"),
        ("package.modul:load", "no module `package.modul` in {workspace}", "did you mean `module`?"),
        ("steps.inner:load", "no module `steps.inner` in {workspace}", ""),
        ("steps:laod", "no `laod` in module steps ({workspace}/steps.py)", "did you mean `load`?"),
        ("steps:Model.fti", "no `Model.fti` in module steps ({workspace}/steps.py)", "did you mean `fit`?"),
        ("steps:VALUE", "`steps:VALUE` is not a function but of type int", ""),
    ],
)
def test_a_function_that_is_not_there(worker: Worker, function: str, message: str, hint: str) -> None:
    """The error says which part of `module:function` stands for nothing, and what was meant."""
    worker.write("VALUE = 1\ndef load(): pass\nclass Model:\n    def fit(self): pass\n")
    worker.write("", "package/module.py")
    error = worker.run(function).error
    assert error["message"] == message.format(workspace=worker.workspace)
    assert (error["type"], error["hint"]) == ("FunctionNotFoundError", hint)


# --- the process ------------------------------------------------------------------------------------------------------


def test_output_is_the_users_alone(worker: Worker) -> None:
    """A step that succeeds writes what its function writes and nothing else, bytes included."""
    worker.write("""
        import sys

        def step():
            print("out")
            sys.stdout.flush()
            sys.stdout.buffer.write(b"raw")
            print("err", file=sys.stderr)
    """)
    outcome = worker.run("steps:step")
    assert (outcome.stdout, outcome.stderr) == ("out\nraw", "err\n")


def test_closed_output_does_not_cost_the_response(worker: Worker) -> None:
    """A function that closes its output and fails still leaves its error."""
    worker.write("""
        import sys

        def step():
            sys.stdout.close()
            sys.stderr.close()
            raise ValueError("heard")
    """)
    assert worker.run("steps:step").error["message"] == "heard"


def test_an_error_that_cannot_be_printed(worker: Worker) -> None:
    """An exception whose own text fails, or is no valid Unicode, leaves a response all the same."""
    worker.write("""
        class Silent(Exception):
            def __str__(self):
                raise RuntimeError

        def silent():
            raise Silent

        def undecodable():
            raise ValueError("\\udc80")
    """)
    error = worker.run("steps:silent").error
    assert (error["type"], error["message"]) == ("steps.Silent", "<exception str() failed>")
    assert worker.run("steps:undecodable").error["message"] == "\\udc80"


def test_a_forked_child_leaves_the_response_alone(worker: Worker) -> None:
    """Of a function that forks and comes back twice, only the step's own process answers."""
    worker.write("""
        import os, time

        def step():
            child = os.fork()
            if child:
                return "parent"
            time.sleep(0.2)
            return "child"
    """)
    assert worker.run("steps:step", {}, ["who"]).values == {"who": "parent"}


def test_processes_can_be_spawned(worker: Worker) -> None:
    """A function may use multiprocessing, whose children import the main script anew."""
    worker.write("""
        import multiprocessing

        def double(x):
            return 2 * x

        def step():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.map(double, [1, 2])
    """)
    assert worker.run("steps:step", {}, ["it"]).values == {"it": [2, 4]}


def test_a_read_only_installation_works(worker: Worker, tmp_path: Path) -> None:
    """Where nothing can be cached beside the worker, a step still runs."""
    shutil.copytree(WORKER, tmp_path / "installed", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "installed/__pycache__").touch()  # a folder that even root cannot write to
    worker.write("def step():\n    return 1\n")
    installed = Worker(worker.workspace, worker.interpreter, main=tmp_path / "installed/python_step.py")
    assert installed.run("steps:step", {}, ["it"]).values == {"it": 1}


def test_only_our_own_modules_are_cached_against_the_users_wish(worker: Worker, tmp_path: Path) -> None:
    """`PYTHONDONTWRITEBYTECODE` holds in the workspace; beside the worker it would cost each step its start."""
    shutil.copytree(WORKER, tmp_path / "installed", ignore=shutil.ignore_patterns("__pycache__"))
    worker.write("import sys\ndef step():\n    return sys.dont_write_bytecode\n")
    installed = Worker(
        worker.workspace,
        worker.interpreter,
        main=tmp_path / "installed/python_step.py",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert installed.run("steps:step", {}, ["it"]).values == {"it": True}
    assert not (worker.workspace / "__pycache__").exists()
    assert any(path.name.startswith("step.") for path in (tmp_path / "installed/__pycache__").iterdir())


def test_a_safe_path_is_respected(worker: Worker) -> None:
    """Under `PYTHONSAFEPATH`, where Python adds no folder of its own, none of the user's is lost."""
    extra = worker.workspace.parent / "extra"
    extra.mkdir()
    worker.write("import sys\ndef step():\n    return sys.path[:2]\n")
    safe = Worker(worker.workspace, worker.interpreter, env={"PYTHONSAFEPATH": "1", "PYTHONPATH": str(extra)})
    assert safe.run("steps:step", {}, ["path"]).values == {"path": [str(worker.workspace), str(extra)]}


def test_an_interpreter_without_the_c_half_of_json_works(worker: Worker) -> None:
    """Where there is no `_json` (other interpreters than CPython), the `json` module does its work."""
    worker.write("import sys\nsys.modules['_json'] = None\n", "site/sitecustomize.py")
    worker.write("import sys\ndef step(x):\n    return x, 'json' in sys.modules\n")
    other = Worker(worker.workspace, worker.interpreter, env={"PYTHONPATH": str(worker.workspace / "site")})
    assert other.run("steps:step", {"x": ["é", 1.5]}, ["x", "json"]).values == {"x": ["é", 1.5], "json": True}


def test_numbers_come_and_go_unchanged(worker: Worker) -> None:
    """Integers of any size and floats of full precision are the same in the function and in the response."""
    numbers = [0, -1, 2**200, 0.1, 1e308, 5e-324, math.pi, -0.0]
    worker.write("def step(numbers):\n    return numbers\n")
    assert repr(worker.run("steps:step", {"numbers": numbers}, ["numbers"]).values["numbers"]) == repr(numbers)


# --- the source -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_worker_is_python_3_8(source: Path) -> None:
    """The worker's files are in the grammar of the oldest supported interpreter and import only what it has."""
    tree = ast.parse(source.read_text(encoding="utf-8"), feature_version=(3, 8))
    ours = {path.stem for path in SOURCES}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1
            assert node.module in ours
        elif isinstance(node, ast.ImportFrom):
            assert node.module in sys.stdlib_module_names or node.module == "collections.abc"
        elif isinstance(node, ast.Import):
            assert {name.name for name in node.names} <= {*sys.stdlib_module_names, "annotationlib"}
