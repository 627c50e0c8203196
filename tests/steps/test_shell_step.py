"""Tests of shell steps: what their process gets, and what is taken from the file that it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnable_ci.errors import StepError
from runnable_ci.pipeline.resolve import resolve
from runnable_ci.pipeline.step import Step
from runnable_ci.pipeline.values.output_file import parse_output
from runnable_ci.runs.model import Parameter
from runnable_ci.steps import collect, prepare, shell
from runnable_ci.steps.base import ProcessSpec, StepContext, StepResult
from runnable_ci.steps.shell import OUTPUT_MAX_BYTES


def step(run: str, **more: Any) -> Step:
    """A shell step."""
    return resolve({"steps": {"a": {"run": run, **more}}}, file="f", default_name="n").steps["a"]


@pytest.fixture
def around(tmp_path: Path, environ: Mapping[str, str]) -> StepContext:
    """A workspace with nothing in it, and parameters of all kinds."""
    for name in ("workspace", "scratch"):
        (tmp_path / name).mkdir()
    return StepContext(
        workspace=tmp_path / "workspace",
        scratch=tmp_path / "scratch",
        environ=environ,
        interpreter=sys.executable,
        parameters={
            "rate": Parameter.of_json(0.5),
            "name": Parameter.of_json("text of it"),
            "flags": Parameter.of_json({"a": [True, None]}),
            "score": Parameter.of_json(3, "metric"),
            "X": Parameter.of_object("X", data_hash="0" * 64, size=1, object_type="T"),
        },
        blob=lambda _: Path(),
    )


def run(launch: ProcessSpec) -> subprocess.CompletedProcess[str]:
    """The finished process."""
    return subprocess.run(launch.argv, cwd=launch.cwd, env=launch.env, capture_output=True, text=True, check=False)


def returned(step: Step, around: StepContext, output: bytes) -> StepResult:
    """What comes back of a step that left this in its output file."""
    prepare(step, around)
    (around.scratch / "output").write_bytes(output)
    return collect(step, around)


OUTPUTS = {
    "nothing": ("", {}),
    "lines": ("a=1\nb=two words\n", {"a": "1", "b": "two words"}),
    "no last newline": ("a=1", {"a": "1"}),
    "empty lines": ("\n \na=1\n\n", {"a": "1"}),
    "empty value": ("a=\n", {"a": ""}),
    "more equal signs": ("a=b=c\n", {"a": "b=c"}),
    "a later one wins": ("a=1\na=2\n", {"a": "2"}),
    "spaces around a name": (" a =1\n", {"a": "1"}),
    "spaces in a value": ("a= 1 \n", {"a": " 1 "}),
    "block": ("a<<EOF\none\ntwo=2\n\nEOF\nb=1\n", {"a": "one\ntwo=2\n", "b": "1"}),
    "empty block": ("a<<EOF\nEOF\n", {"a": ""}),
    "block with another's end": ("a<<END OF IT\nEOF\n END OF IT\nEND OF IT\n", {"a": "EOF\n END OF IT"}),
    "<< in a value": ("a=1<<2\n", {"a": "1<<2"}),
    "= in a delimiter": ("a<<E=F\nx\nE=F\n", {"a": "x"}),
    "CR LF line ends": ("a=1\r\nb<<EOF\r\nx\r\ny\r\nEOF\r\n", {"a": "1", "b": "x\ny"}),
    "other ends of lines": ("a=x\u2028y\x0cz\x85\x1d!\n", {"a": "x\u2028y\x0cz\x85\x1d!"}),
    "carriage return within": ("a=10%\r20%\n", {"a": "10%\r20%"}),
    "byte order marks": ("\ufeffa=1\n\ufeffb<<E\n\ufeffx\nE\n", {"a": "1", "b": "\ufeffx"}),
    "not ASCII": ("größe=ä\n", {"größe": "ä"}),
}


@pytest.mark.parametrize(("text", "found"), OUTPUTS.values(), ids=OUTPUTS)
def test_output(text: str, found: Mapping[str, str]) -> None:
    """Lines and blocks are read as GitHub reads them; only line feeds end a line."""
    assert parse_output(text) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\nhello\n", "line 2: expected `name=value` or `name<<EOF`, got `hello`"),
        ("=1\n", "line 1: expected `name=value`"),
        ("a<<\n", "line 1: expected `name=value`"),
        ("\n\na<<EOF\nb=1\n", "line 3: the block of `a` has no end `EOF`"),
        ("a=1\na\0=\0", "line 2 has a NUL character in the name; is it UTF-16?"),
        ("x" * 5000, "line 1: expected `name=value` or `name<<EOF`, got `" + "x" * 100 + "`"),
    ],
)
def test_bad_output(text: str, message: str) -> None:
    """Anything else is an error that names the line."""
    with pytest.raises(StepError) as caught:
        parse_output(text)
    assert message in caught.value.message
    assert len(caught.value.message) < 200


@given(st.dictionaries(st.from_regex("[a-z_]{1,5}", fullmatch=True), st.text().filter(lambda t: "\r" not in t)))
def test_blocks_carry_any_text(texts: dict[str, str]) -> None:
    """Whatever text stands in a block with an end of its own comes back as it was."""
    texts = {name: text for name, text in texts.items() if "#END" not in text.split("\n")}
    assert parse_output("".join(f"{name}<<#END\n{text}\n#END\n" for name, text in texts.items())) == texts


def test_environment(around: StepContext) -> None:
    """A step gets the full environment, its parameters as text or JSON, its own variables above, and where to write."""
    launch = prepare(step('printf "%s|" "$rate" "$name" "$flags" "$score" "$A" "$HOME"', env={"A": "1"}), around)
    assert run(launch).stdout == f'0.5|text of it|{{"a": [true, null]}}|3|1|{around.environ["HOME"]}|'
    assert "X" not in launch.env
    values = json.loads(Path(launch.env["RUNNABLE_PARAMETERS"]).read_text())
    assert values == {"rate": 0.5, "name": "text of it", "flags": {"a": [True, None]}, "score": 3}
    assert (launch.env["RUNNABLE_STEP"], launch.env["RUNNABLE_OUTPUT"]) == ("a", str(around.scratch / "output"))


def test_step_writes_and_is_read(around: StepContext) -> None:
    """What a real shell appends to `$RUNNABLE_OUTPUT` comes back with the kinds that were declared."""
    script = (
        'echo "doubled=$((score * 2))" >> "$RUNNABLE_OUTPUT"; printf "text<<E\\na\\nb\\nE\\n" >> "$RUNNABLE_OUTPUT"'
    )
    declared = step(script, returns={"doubled": "metric", "text": "auto"})
    assert run(prepare(declared, around)).returncode == 0
    assert collect(declared, around) == StepResult(values={"doubled": 6, "text": "a\nb"})


def test_what_is_not_declared_is_named(around: StepContext) -> None:
    """A name that `returns` does not have is not kept, and is told of."""
    (around.scratch / "output").write_text("x=1\ny=2\nz=3\n")
    assert collect(step("x", returns={"x": "json"}), around) == StepResult(values={"x": 1}, undeclared=("y", "z"))


@pytest.mark.parametrize(
    ("script", "code"),
    [("false; true", 1), ("false | true", 1), ("exit 3", 3), ("set +e; false; true", 0), ("true", 0)],
)
def test_bash_stops_at_the_first_failure(around: StepContext, script: str, code: int) -> None:
    """The default shell is bash as GitHub Actions starts it."""
    assert run(prepare(step(script), around)).returncode == code


@pytest.mark.parametrize("padding", ["", "#" * 70_000])
def test_without_bash_the_system_s_shell_stops_at_the_first_failure(around: StepContext, padding: str) -> None:
    """As in Alpine: it notices failures in pipes too, where it can; a note says which shell it is, and whether."""
    programs = around.workspace / "bin"
    programs.mkdir()
    for name, program in (("sh", "bash"), ("true", "true"), ("grep", "grep")):
        (programs / name).symlink_to(str(shutil.which(program)))
    bare = around._replace(environ={**around.environ, "PATH": str(programs)})
    for script, code in (("false | true", 1), ("false; true", 1), ("true", 0)):
        prepared = prepare(step(f"{script}\n{padding}"), bare)
        assert run(prepared).returncode == code
        assert "bash is not on PATH" in prepared.notes[0]
    assert run(prepare(step("echo $0"), bare)).stdout == "sh\n"
    for named in ("bash", "sh"):
        prepared = prepare(step("true", shell=named), bare)
        assert (prepared.argv[0], prepared.notes) == (named, ())
    assert prepare(step("true"), around).notes == ()
    (programs / "sh").unlink()
    (programs / "sh").symlink_to(str(shutil.which("dash")))
    for script, code in (("false | true", 0), ("false; true", 1)):
        prepared = prepare(step(f"{script}\n{padding}"), bare)
        assert run(prepared).returncode == code
        assert "does not see a failure within a pipe" in prepared.notes[0]


def test_the_default_shell_is_no_other_definition_than_bash() -> None:
    """A step that names it is what it was, so a retry reuses it."""
    named = "bash"
    assert step("ls").definition() == step("ls", shell=named).definition()


@pytest.mark.parametrize(
    ("shell", "script", "out"),
    [
        ("sh", "echo $0 | grep -o sh; false; echo no", "sh\n"),
        (f"{sys.executable} {{0}}", "print(1 + 1)", "2\n"),
        (f"{sys.executable} -c print('it',__import__('sys').argv[1][-6:]) {{0}}", "anything", "it script\n"),
    ],
)
def test_shells(around: StepContext, shell: str, script: str, out: str) -> None:
    """Another shell can be named, or any program that takes a file."""
    assert run(prepare(step(script, shell=shell), around)).stdout == out


@pytest.mark.parametrize("text", ["x" * 200_000, "€" * 60_000])
def test_long_script(around: StepContext, text: str) -> None:
    """A script that is too long for an argument, in bytes, runs all the same."""
    assert run(prepare(step(f"echo ok # {text}"), around)).stdout == "ok\n"


def test_working_directory(around: StepContext) -> None:
    """A step runs in its working directory."""
    (around.workspace / "sub").mkdir()
    assert run(prepare(step("pwd", **{"working-directory": "sub"}), around)).stdout == f"{around.workspace / 'sub'}\n"


@pytest.mark.parametrize(
    ("script", "consumed"),
    [
        ("echo $rate ${name}", ["rate", "name"]),
        ("echo rate-limit", ["rate"]),
        ("echo generate", []),
        ("python train.py", ["score"]),
        ("python 'train.py'; true", ["score"]),
        ("bin/train --config=conf/a.ini", ["rate", "flags"]),
        ("python missing.py", []),
        ("jq . $RUNNABLE_PARAMETERS", ["rate", "name", "flags", "score"]),
        ("python big.py", []),
        (f"cat {'long/' * 2000}x.py", []),
        ("echo X", []),
    ],
)
def test_mentioned(around: StepContext, script: str, consumed: list[str]) -> None:
    """A step is expected to read what its script, or a small file that the script names, mentions as a word."""
    for name, text in {"train.py": "os.environ['score']", "bin/train": "$rate", "conf/a.ini": "x=%(flags)s"}.items():
        (around.workspace / name).parent.mkdir(exist_ok=True)
        (around.workspace / name).write_text(text)
    (around.workspace / "big.py").write_bytes(b"rate " * 300_000)
    values = {name: p.value for name, p in around.parameters.items() if p.kind != "object"}
    assert list(shell.takes(step(script), around.workspace, values)) == consumed


def test_listed_parameters(around: StepContext) -> None:
    """A step that lists its parameters gets and consumes these and no others."""
    launch = prepare(step("echo $rate", parameters=["name"]), around)
    assert (launch.given, launch.env["name"]) == (("name",), "text of it")
    assert "rate" not in launch.env
    assert prepare(step("echo $rate", parameters=[]), around).given == ()


def test_listed_parameter_that_is_missing(around: StepContext) -> None:
    """A listed parameter that nothing gives is an error that names it."""
    with pytest.raises(
        StepError, match="step `a` lists the parameter `depth`, which no parameter or earlier step provides"
    ):
        prepare(step("true", parameters=["rate", "depth"]), around)


@pytest.mark.parametrize(("count", "size", "left_out"), [(1, 200_000, True), (100, 100_000, True), (3, 100_000, False)])
def test_what_is_too_large_for_the_environment(around: StepContext, count: int, size: int, left_out: bool) -> None:
    """It is left out with a note, small ones first in, the program starts, and the file of values has them all."""
    values = {f"v{i}": Parameter.of_json("x" * size) for i in range(count)} | {"small": Parameter.of_json(1)}
    launch = prepare(
        step('echo "$small ${v0:+there}"; wc -c < "$RUNNABLE_PARAMETERS"'),
        around._replace(parameters=values),
    )
    done = run(launch)
    assert done.stdout.startswith("1 there\n" if count > 1 else "1 \n"), done.stderr
    assert int(done.stdout.split()[-1]) > count * size
    assert launch.given == tuple(values)
    assert bool(launch.notes) is left_out
    assert all("only in $RUNNABLE_PARAMETERS: v" in note for note in launch.notes)


def test_parameter_with_a_nul(around: StepContext) -> None:
    """Text that no environment variable can hold is an error that names the parameter."""
    parameters = {"name": Parameter.of_json("a\0b")}
    with pytest.raises(StepError, match="parameter `name` has a NUL character"):
        prepare(step("true"), around._replace(parameters=parameters))


PROBLEMS = {
    "not returned": (b"b=1\n", "it did not return `a`: no line `a=\u2026` in $RUNNABLE_OUTPUT"),
    "not a line": (b"a=1\nhello\n", "$RUNNABLE_OUTPUT: line 2: expected"),
    "not text": (b"a=1\nb=\xff\n", "$RUNNABLE_OUTPUT: line 2 is not UTF-8 text"),
    "half of UTF-16": (b"\xff\xfea\x00=\x00\n\x00\xd8\xd8", "$RUNNABLE_OUTPUT: line 2 is not UTF-16 text"),
    "not a number": (b"a=high\n", "the metric `a` is not a number: high"),
    "a bool": (b"a=true\n", "the metric `a` is not a number: true"),
    "beyond numbers": (b"a=1e999\n", "the metric `a` is too large: inf is not a JSON number: 1e999"),
    "text in a table": (b'a={"r2": {"x": [1, "high"]}}\n', "the metric `a` is not a number at `r2.x[1]`"),
    "too large": (b"a=" + b"1" * OUTPUT_MAX_BYTES, f"has {OUTPUT_MAX_BYTES + 2} bytes, more than 16 MiB"),
    "half a character": (b'a=["\\udcff"]\n', "the metric `a` is not a number"),
}


@pytest.mark.parametrize(("output", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_problem(around: StepContext, output: bytes, problem: str) -> None:
    """What a step should have returned and did not is a problem, in one line that says what was found."""
    found = returned(step("x", returns={"a": "metric"}), around, output)
    assert problem in found.problem
    assert found.values == {}


KINDS = {
    "a hash that looks like a number": ("auto", "6063e25", "6063e25"),
    "a version": ("auto", "1.10", "1.10"),
    "a number": ("auto", "1e-5", 1e-5),
    "quotes": ("auto", '"x"', '"x"'),
    "a list": ("auto", "[1.10, 2]", [1.1, 2]),
    "digits as text": ("text", "1234567", "1234567"),
    "any text": ("text", " true", " true"),
    "a table": ("json", '{"a": "x"}', {"a": "x"}),
    "text in quotes": ("json", '"x"', "x"),
    "a number of JSON": ("json", "1.10", 1.1),
    "a metric": ("metric", " .50", 0.5),
    "a metric of a table": ("metric", '{"r2": NaN, "n": [1]}', {"r2": "NaN", "n": [1]}),
}


@pytest.mark.parametrize(("kind", "text", "value"), KINDS.values(), ids=KINDS)
def test_kinds(around: StepContext, kind: str, text: str, value: Any) -> None:
    """What is written is read as its declared kind has it, and keeps its text where none is declared."""
    found = returned(step("x", returns={"a": kind}), around, f"a={text}".encode())
    assert (found.problem, json.dumps(found.values["a"])) == ("", json.dumps(value))


@pytest.mark.parametrize("text", ["hello", "True", "01", "NaN", "1e999", "{'a': 1}", "", "[1,]"])
def test_json_is_strict(around: StepContext, text: str) -> None:
    """What is declared as JSON and is none fails the step, with what is wrong."""
    found = returned(step("x", returns={"a": "json"}), around, f"a={text}".encode())
    assert found.problem.startswith("the return `a` is not JSON: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(around: StepContext, encoding: str) -> None:
    """UTF-8 and, by its mark, UTF-16 are read, with the line ends of Windows too."""
    found = returned(step("x", returns={"a": "text", "b": "auto"}), around, "a=größe\r\nb=1\r\n".encode(encoding))
    assert found == StepResult(values={"a": "größe", "b": 1})


def test_no_output_file(around: StepContext) -> None:
    """A step that removed its output file returned nothing."""
    prepare(step("x"), around)
    (around.scratch / "output").unlink()
    assert collect(step("x"), around) == StepResult()
