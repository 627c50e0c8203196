"""`[executors.NAME]` and `executor` in the pipeline file: what they may be, and what they make of steps."""

from __future__ import annotations

import tomllib

import pytest

from runnable_ci.errors import PipelineError, UsageError
from runnable_ci.pipeline.keys.executor_choice import on_executor
from runnable_ci.pipeline.keys.executors import Executor, Slurm
from runnable_ci.pipeline.model import Pipeline
from runnable_ci.pipeline.resolve import UsedFile, resolve
from runnable_ci.pipeline.schema import Place

STEP = '[steps.a]\nrun = "true"\n'
NODE = '[executors.node]\ncommand = "ssh node {}"\n'


def pipeline(text: str, **parts: str) -> Pipeline:
    """The pipeline of a file, and of those that its steps use."""

    def read(path: str, place: Place, table: str) -> UsedFile:
        part = parts[path.removesuffix(".toml")]
        return UsedFile(tomllib.loads(part), Place(path, text=part))

    return resolve(tomllib.loads(text), file="runnable.toml", default_name="p", text=text, read_part=read)


def executor(table: str) -> Executor:
    """The one executor of a file."""
    [found] = pipeline(f"[executors.x]\n{table}\n{STEP}").executors.values()
    return found


def test_slurm_has_its_own_options() -> None:
    """They are passed on by their names, whatever they are; `true` is one without a value."""
    table = 'slurm = { partition = "gpu", gres = "gpu:1", nice = 100, exclusive = true, requeue = false }'
    found = executor(table)
    assert found == Executor("x", Slurm({"partition": "gpu", "gres": "gpu:1", "nice": "100", "exclusive": ""}))
    assert found.slurm
    assert found.slurm.words() == ["--partition=gpu", "--gres=gpu:1", "--nice=100", "--exclusive"]
    assert executor("slurm = { arrays = false }").slurm == Slurm({}, arrays=False)
    assert executor("slurm = {}").slurm == Slurm()


@pytest.mark.parametrize(
    ("written", "time"),
    [
        ('"4h"', "4:00:00"),
        ('"90m"', "1:30:00"),
        ('"30s"', "0:00:30"),
        ('"2d"', "48:00:00"),
        ("30", "30"),
        ('"1-12:00:00"', "1-12:00:00"),
        ('"10:00"', "10:00"),
        ('"UNLIMITED"', "UNLIMITED"),
    ],
)
def test_a_time_limit_as_people_write_it(written: str, time: str) -> None:
    """Slurm knows no `4h`, and would refuse it when the step is to start."""
    assert executor(f"slurm = {{ time = {written} }}").slurm == Slurm({"time": time})


def test_a_command_starts_ours_as_one_word() -> None:
    """It is one argument, as the shell on the other side reads it: spaces in it part nothing here."""
    assert executor("command = \"ssh -p 22 'my node' {}\"").launch(["runnable-ci", "attempt", "a b"]) == [
        *("ssh", "-p", "22", "my node"),
        "runnable-ci attempt 'a b'",
    ]
    within = executor("""command = ["ssh", "node", "cd $HOME/x && {}"]""")
    assert within.launch(["true"]) == ["ssh", "node", "cd $HOME/x && true"]


@pytest.mark.parametrize(
    "word",
    [
        "${CPU}",
        "${gpu}",
        "{{cpu}}",
        '{"cpu":1}',
        '{"spec":{"cpu":2}}',
        "{a,b}",
        "{print}",
        "{user}",
        "{1}",
    ],
)
def test_other_braces_are_not_ours(word: str) -> None:
    """Of shells, templates and JSON: they come to the program as they are."""
    assert executor(f"command = ['run', '{word}', '{{}}']").launch(["true"]) == ["run", word, "true"]


def test_how_it_is_called_there() -> None:
    """A path or a command; and how many steps there are at a time."""
    assert executor('command = "ssh node {}"').program == ()
    found = executor('command = "ssh node {}"\nprogram = "uv run runnable-ci"\nmax-parallel = 3')
    assert (found.program, found.max_parallel) == (("uv", "run", "runnable-ci"), 3)


def test_a_step_names_one() -> None:
    """By itself or by default; `local` is this machine, and what makes a result is the same anywhere."""
    text = f'{NODE}[defaults]\nexecutor = "node"\n{STEP}[steps.b]\nrun = "true"\nexecutor = "local"\n'
    steps = pipeline(text).steps
    assert [step.executor for step in steps.values()] == ["node", ""]
    assert steps["a"].definition() == pipeline(STEP).steps["a"].definition()


def test_instances_have_that_of_their_step() -> None:
    """What comes after them has a process only where it reduces what they return."""
    keys = 'executor = "node"\nstrategy = { matrix = { x = [1, 2] } }\n'
    assert {n: it.executor for n, it in pipeline(NODE + STEP + keys).outlined().steps.items()} == {
        "a.0.a": "node",
        "a": "",
    }
    reduced = pipeline(f'{NODE}{STEP}{keys}returns = ["y"]\nreduce = "m:f"\n').outlined()
    assert {name: it.executor for name, it in reduced.steps.items()} == {"a.0.a": "node", "a": "node"}


def test_one_for_all() -> None:
    """`--executor` counts before what steps say, in branches too; `local` brings all of them here."""
    text = f'{NODE}{STEP}[steps.b]\nrun = "true"\nexecutor = "node"\nstrategy = {{ matrix = {{ x = [1] }} }}\n'
    there, here = (on_executor(pipeline(text), name).outlined() for name in ("node", "local"))
    assert {name: step.executor for name, step in there.steps.items()} == {"a": "node", "b.0.b": "node", "b": ""}
    assert {step.executor for step in here.steps.values()} == {""}


@pytest.mark.parametrize(
    ("name", "file", "hint"),
    [
        ("nod", NODE + STEP, "did you mean `node`?"),
        ("x", NODE + STEP, "the executors are: local, node"),
        ("x", STEP, "the file has none"),
    ],
)
def test_one_for_all_that_is_not_there(name: str, file: str, hint: str) -> None:
    """The hint says which there are."""
    with pytest.raises(UsageError, match="has no executor") as raised:
        on_executor(pipeline(file), name)
    assert hint in (raised.value.hint or "")


def test_files_that_are_used_have_executors_too() -> None:
    """Where the file that is run has one of the same name, it counts."""
    part = f'[executors.node]\ncommand = "ssh other {{}}"\n[executors.own]\nslurm = {{}}\n{STEP}executor = "own"\n'
    found = pipeline(f'{NODE}[steps.all]\nuses = "part.toml"\n', part=part)
    assert {name: one.command for name, one in found.executors.items()} == {"node": ("ssh", "node", "{}"), "own": ()}
    assert found.outlined().steps["all.0.a"].executor == "own"
    two = '[steps.one]\nuses = "part.toml"\n[steps.two]\nuses = "other.toml"\n'
    with pytest.raises(PipelineError, match="another file has another `node`"):
        pipeline(two, part=part, other=NODE + STEP)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (f'{NODE}{STEP}executor = "nodes"', 'there is no "nodes"', "did you mean `node`?"),
        (f'{STEP}executor = "gpu"', 'there is no "gpu"', "the file has none"),
        (f'[executors.local]\ncommand = "ssh node {{}}"\n{STEP}', "`local` is this machine", "another name"),
        (f'[executors."a b"]\ncommand = "ssh node {{}}"\n{STEP}', "is not a valid name", "letters"),
        (f"[executors.x]\n{STEP}", "has neither `slurm` nor `command`", "slurm = {"),
        (f'[executors.x]\nslurm = {{}}\ncommand = "ssh n {{}}"\n{STEP}', "has both", "write one"),
        (f'[executors.x]\ncommand = "ssh node"\n{STEP}', "has no `{}`", "ssh node {}"),
        (f'[executors.x]\ncommand = "ssh {{}} {{}}"\n{STEP}', "more than once", "ssh node {}"),
        (f'[executors.x]\ncommand = "{{}} node"\n{STEP}', "begins with `{}`", "ssh node {}"),
        (f'[executors.x]\ncommand = ""\n{STEP}', "names no program", "ssh node {}"),
        (f'[executors.x]\ncommand = "ssh $NODE {{}}"\n{STEP}', "`$NODE` has no meaning here", "sh -c"),
        (f'[executors.x]\ncommand = "ssh n {{}} | cat"\n{STEP}', "`|` has no meaning here", "sh -c"),
        (f"[executors.x]\ncommand = \"ssh 'n {{}}\"\n{STEP}", "no closing quotation", "close the quotation mark"),
        (f'[executors.x]\ncommand = "srun -c {{cpu}} {{}}"\n{STEP}', "`{cpu}` is no part", "did you mean `cpus`?"),
        (f'[executors.x]\ncommand = ["srun", "{{MEMORY}}", "{{}}"]\n{STEP}', "`{MEMORY}`", "did you mean `memory`?"),
        (f'[executors.x]\nslurm = {{ partition = "" }}\n{STEP}', "must be a text or a number", ""),
        (f'[executors.x]\nslurm = {{ partition = ["a"] }}\n{STEP}', "must be a text or a number, not a list", ""),
        (f'[executors.x]\nslurm = {{ "--mem" = "1G" }}\n{STEP}', "is not an option of Slurm", "without its dashes"),
        (f'[executors.x]\nslurm = {{ time = "soon" }}\n{STEP}', "is not a length of time", '"4h"'),
        (f'[executors.x]\nslurm = {{ output = "x" }}\n{STEP}', "`output` cannot be given", "run log"),
        (f'[executors.x]\nslurm = {{ arrays = "yes" }}\n{STEP}', "arrays: must be true or false", "arrays"),
        (f"[executors.x]\nslurm = {{}}\nmax-parallel = 0\n{STEP}", "max-parallel: must be", ""),
        (f'[executors.x]\nslrum = {{}}\n{STEP}', "unknown key `slrum`", "did you mean `slurm`?"),
        (f'[steps.a]\nuses = "part.toml"\nexecutor = "node"\n{NODE}', "does not go with `uses`", "steps of that file"),
    ],
)  # fmt: skip
def test_what_cannot_be_right(text: str, message: str, hint: str) -> None:
    """One clear error, with a hint."""
    with pytest.raises(PipelineError) as raised:
        pipeline(text, part=STEP)
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")
