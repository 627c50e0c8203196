"""Tests of `runnable-ci init --from Snakefile`: read as text, never executed."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cli import workspace

from runnable_ci.cli.importers.snakemake import import_snakefile
from runnable_ci.errors import UsageError

LINEAR = """
configfile: "config.yaml"
import os
PARTS = ["one", "two"]

rule all:
    input: "out/report.txt", touched="done"

rule split:
    '''Cut the text
    into parts.'''
    input: "text.txt"
    output:
        one="parts/one.txt",
        rest=["parts/two.txt", "parts/three.txt"]
    params: lines=1, word=config["word"]
    log: "logs/split.log"
    threads: 4
    shell:
        "head -n {params.lines} {input} > {output.one}; "
        "tail -n {threads} {input} | awk '{{print $1 \\"{params.word}\\"}}' > {output.rest[0]}; "
        "touch {output[2]:q} {log}"

rule report:
    input: expand("parts/{part}.txt", part=PARTS), "parts/three.txt"
    output: "out/report.txt"
    params: [1, 2], title="it's"
    script: "scripts/report.py"

rule mark:
    input: "out/report.txt"
    output: touch("done")

rule never:
    output: "never.txt"
    shell: "exit 1"
"""
REPORT = """
import helper
text = "".join(map(helper.read, snakemake.input))
more = f"{snakemake.params.title} {snakemake.params[0]} {snakemake.config['word']} {snakemake.rule} {snakemake.threads}"
open(snakemake.output[0], "w").write(text + more)
"""


def test_rules_become_steps_that_run(tmp_path: Path) -> None:
    """Files, folders, parameters, a script with its object, marks; what is not wanted is said."""
    project = workspace(
        tmp_path,
        {
            "Snakefile": LINEAR,
            "config.yaml": "word: x\n",
            "text.txt": "a b\nc d\n",
            "scripts/report.py": REPORT,
            "scripts/helper.py": "def read(name):\n    return open(name).read()\n",
        },
    )
    project.runnable("init", "--from", "Snakefile")
    project.runnable("check")
    table = tomllib.loads(project.read("runnable.toml"))
    assert {name: step["needs"] for name, step in table["steps"].items()} == {
        "split": [],
        "report": ["split"],
        "mark": ["report"],
    }
    assert table["steps"]["split"]["catalog"]["put"][-1] == "logs/split.log"
    text = project.read("runnable.toml")
    assert "# Cut the text\n# into parts.\n[steps.split]\n" in text
    assert "# rules that make nothing that rule all wants: never\n" in text
    project.runnable("run")
    assert project.read("out/report.txt") == "a b\nax\ncx\nit's 1 x report 1"
    assert "done" in project.runnable("catalog", "latest").out


WILDCARDS = """
SAMPLES, = glob_wildcards("data/{sample}.fq")
wildcard_constraints: sample="[A-Za-z]+"
rule all:
    input: expand("sorted/{sample}.{kind}", sample=SAMPLES, kind=["bam", "sam"]), "all.txt"
rule map:
    input: lambda wildcards: "data/" + wildcards.sample + ".fq"
    output: temp("mapped/{sample}.bam")
    params: rg="@ID:{sample}"
    shell: "echo '{params.rg} {{}}' {wildcards.sample} > {output}; cat {input} >> {output}"
rule sort:
    input: "mapped/{sample}.bam"
    output: "sorted/{sample}.{kind,[bs]am}"
    shell: "sort {input} > {output}"
rule collect:
    input: [f"mapped/{it}.bam" for it in SAMPLES]
    output: "all.txt"
    shell: "cat {input} > {output}"
"""


def table_of(tmp_path: Path, text: str, *paths: str) -> dict[str, Any]:
    """The steps of a Snakefile, with these files beside it."""
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "Snakefile").write_text(text)
    imported = import_snakefile(tmp_path / "Snakefile")
    parsed = tomllib.loads(imported.text("init"))
    assert parsed == imported.table
    steps: dict[str, Any] = parsed["steps"]
    return steps


def test_wildcards_are_a_matrix(tmp_path: Path) -> None:
    """The jobs are those that the first rule's files need: by sample, by two wildcards, and one for all."""
    steps = table_of(tmp_path, WILDCARDS, "data/b.fq", "data/a.fq", "data/notes.txt")
    assert steps["sort"]["strategy"] == {"matrix": {"sample": ["a", "b"], "kind": ["bam", "sam"]}}
    assert steps["sort"]["catalog"] == {
        "get": ["mapped/${{ matrix.sample }}.bam"],
        "put": ["sorted/${{ matrix.sample }}.${{ matrix.kind }}"],
    }
    assert steps["map"]["strategy"]["matrix"]["include"] == [
        {"sample": "a", "input_0": "data/a.fq"},
        {"sample": "b", "input_0": "data/b.fq"},
    ]
    assert steps["collect"]["catalog"]["get"] == ["mapped/a.bam", "mapped/b.bam"]
    assert {name: step["needs"] for name, step in steps.items()} == {"map": [], "sort": ["map"], "collect": ["map"]}
    (tmp_path / "x.fq").write_text("read\n")
    environ = {"sample": "a", "input_0": "x.fq", "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-ec", steps["map"]["run"]], env=environ, cwd=tmp_path, check=True)
    assert (tmp_path / "mapped" / "a.bam").read_text() == "@ID:a {} a\nread\n"


def test_files_of_other_rules(tmp_path: Path) -> None:
    """`rules.NAME.output`, by name and by place, also of a rule that is included; named functions name their axes."""
    (tmp_path / "more.smk").write_text("rule b:\n    output: one='b1', two=['b2', 'b3']\n    shell: 'touch {output}'\n")
    steps = table_of(
        tmp_path,
        """
include: "more.smk"
rule all:
    input: rules.b.output.one, "c/x", "c/y"
rule c:
    input: rules.b.output.two[1], rules.b.output[1]
    output: "c/{n}"
    params: word=lambda wildcards: wildcards.n + "!"
    shell:
        '''
        echo {params.word} > {output}
          cat {rules.b.output} >> {output}
        '''
""",
    )
    assert steps["c"]["catalog"]["get"] == ["b3", "b2"]
    assert steps["c"]["run"] == "mkdir -p c\necho $params_word > c/$n\n  cat b1 b2 b3 >> c/$n\n"
    assert steps["c"]["strategy"]["matrix"]["include"][0] == {"n": "x", "params_word": "x!"}
    assert steps["c"]["needs"] == ["b"]


def test_jobs_that_are_no_product_of_axes(tmp_path: Path) -> None:
    """Where only some combinations are wanted, just those are included; a rule of a rule's own folder is found."""
    steps = table_of(
        tmp_path,
        """
rule all:
    input: "out/a/1.txt", "out/b/2.txt", *expand("{x}-{y}.z", zip, x=["p", "q"], y=[1, 2])
rule one:
    output: "out/{dir}/{PATH}.txt"
    shell: "echo {wildcards.PATH} > {output}"
rule two:
    output: "{x}-{y}.z"
    shell: "touch {output}"
""",
    )
    assert steps["one"]["strategy"]["matrix"] == {
        "include": [{"dir": "a", "wildcard_PATH": "1"}, {"dir": "b", "wildcard_PATH": "2"}]
    }
    assert steps["one"]["run"] == 'mkdir -p "out/$dir"\necho $wildcard_PATH > out/$dir/$wildcard_PATH.txt\n'
    assert steps["two"]["strategy"]["matrix"]["include"] == [{"x": "p", "y": "1"}, {"x": "q", "y": "2"}]


def test_what_is_no_declaration_is_a_comment(tmp_path: Path) -> None:
    """Code of Python, environments, unknown directives: named where they stand; a step without a script fails."""
    (tmp_path / "Snakefile").write_text("""
import sys
if sys.argv:
    X = open("x").read()
onsuccess:
    print("done")
localrules: all
rule all:
    input: "a", "b", "c", "d"
rule first:
    input: branch("x"), unpack(f)
    output: "a"
    conda: "env.yaml"
    shell: "touch {output} {nothing}"
rule second:
    output: "b"
    resources: mem_mb=100
    run:
        for line in input:
            open(output[0], "w").write(line)
rule third:
    output: "c"
    wrapper: "0.2.0/bio/bwa"
rule fourth:
    output: "d"
    priority: 3
    script: "plot.R"
""")
    imported = import_snakefile(tmp_path / "Snakefile")
    text = imported.text("init")
    for said in (
        "# Snakefile, line 3: if sys.argv: not read",
        "# Snakefile, line 5: onsuccess: not a declaration",
        "# input: branch('x') is not a declaration: add what it is",
        "# conda: activate the environment",
        "# {nothing}: write what the step does in place of `exit 1`\n",
        "#     for line in input:\n#         open(output[0]",
        "# wrapper: write what the step does",
        "# priority: has no counterpart",
        "# the script plot.R: only Python's are run",
    ):
        assert said in text, said
    for name in ("first", "second", "third", "fourth"):
        done = subprocess.run(["bash", "-c", imported.table["steps"][name]["run"]], capture_output=True, text=True)
        assert (done.returncode, done.stderr[:14]) == (1, "not imported: ")


def test_containers(tmp_path: Path) -> None:
    """The image of a rule, else that of all rules; what is no image of a registry is a comment."""
    (tmp_path / "Snakefile").write_text("""
container: "docker://alpine:3.20"
rule all:
    input: "a", "b", "c"
rule a:
    output: "a"
    shell: "touch {output}"
rule b:
    output: "b"
    container: "docker://ghcr.io/o/tools@sha256:12"
    shell: "touch {output}"
rule c:
    output: "c"
    singularity: "tools.sif"
    shell: "touch {output}"
""")
    imported = import_snakefile(tmp_path / "Snakefile")
    steps = imported.table["steps"]
    assert [step.get("container") for step in steps.values()] == ["alpine:3.20", "ghcr.io/o/tools@sha256:12", None]
    assert "# container: tools.sif is no image of a registry\n[steps.c]" in imported.text("init")


def test_retries(tmp_path: Path) -> None:
    """A rule that may be tried twice more is a step with three attempts."""
    text = "rule a:\n    output: 'a'\n    retries: 2\n"
    text += "    shell: 'echo x >> tries; [ $(wc -l < tries) = 3 ]; touch {output}'\n"
    project = workspace(tmp_path, {"Snakefile": text}, git=False)
    project.runnable("init", "--from", "Snakefile")
    project.runnable("run")
    assert len(project.log().steps["a"].attempts) == 3


def test_files_of_a_workflow_folder(tmp_path: Path) -> None:
    """Paths begin above `workflow/`, scripts beside their file; an included rule is not what is wanted."""
    project = workspace(
        tmp_path,
        {
            "workflow/Snakefile": 'include: "rules/a.smk"\nrule last:\n    input: "b.txt"\n    output: "c.txt"\n'
            '    shell: "cp {input} {output}"\n',
            "workflow/rules/a.smk": 'rule not_wanted:\n    output: "d.txt"\nrule b:\n    output: "b.txt"\n'
            '    script: "../scripts/b.py"\n',
            "workflow/scripts/b.py": "open(snakemake.output[0], 'w').write('b')\n",
        },
    )
    project.runnable("init", "--from", "workflow/Snakefile")
    project.runnable("run")
    assert project.read("c.txt") == "b"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("rule a:\n  output: (\n", "Snakefile:"),
        ("rule a:\n    output: 'x' 'y' z w\n", "Snakefile:2 cannot be read: output: 'x' 'y' z w"),
        ("rule a:\n    open('x')\n", "Snakefile:2 is no directive of rule a"),
        ("X = 1\n", "has no rules that would run"),
        ("configfile: 'no.yaml'\nrule a:\n    output: 'x'\n", "no.yaml cannot be read"),
        ("rule a:\n    input: wanted('x')\n", "rules that would run; input: wanted('x') is not a declaration"),
        ("rule a:\n    input: 'x'\nrule b:\n    output: '{x,[}'\n", "whose regular expression is none"),
        ("rule a:\n    input: " + "-" * 9_000 + "1\n", "Snakefile:2 cannot be read: input: ---"),
        ("rule a:\n    resources\n    output: 'x'\n", "Snakefile:2 is no directive of rule a"),
        ("rule a:\n    'text' x\n    output: 'x'\n", "Snakefile:2 is no directive of rule a"),
        ("rule a:\n    output: 'x/{y}'\n    shell: 'x'\n", "rule a has wildcards, and is the first"),
        ("include: 'Snakefile'\n", "Snakefile includes itself"),
        ("rule a:\n    output: 'x'\nrule a:\n    output: 'y'\n", "two rules have the name a"),
        ("rule a:\n    input: lambda wildcards: f(wildcards)\n    output: 'x'\n", "which files are wanted"),
    ],
)
def test_what_cannot_be_imported(tmp_path: Path, text: str, error: str) -> None:
    """It is one error with the line, or what is missing."""
    (tmp_path / "Snakefile").write_text(text)
    with pytest.raises(UsageError) as refused:
        import_snakefile(tmp_path / "Snakefile")
    assert error in str(refused.value)


@pytest.mark.parametrize(
    "expression",
    [
        *('"a" + 1', "sorted([1, 'a'])", '"".join([1])', "int('x')", "range('a')", "NO['x']", "X.y", "X[9]", "[*1]"),
        *("{**X}", "expand('{a}', zip, zip)", "expand()", "glob_wildcards()", "f'{X:>3}'", "[i for i in X if i]"),
    ],
)
def test_an_expression_that_has_no_value(tmp_path: Path, expression: str) -> None:
    """What Python would refuse, or only Python would know, is a comment wherever it stands."""
    (tmp_path / "Snakefile").write_text(
        f"X = ['a']\nY = {expression}\nwildcard_constraints: a={expression}\nrule all:\n    input: 'b', {expression}\n"
        f"rule b:\n    output: 'b'\n    params: x={expression}\n    threads: {expression}\n"
        f"    container: {expression}\n    shell: 'true'\n"
    )
    imported = import_snakefile(tmp_path / "Snakefile")
    assert imported.table["steps"]["b"]["run"] == "true"
    assert sum(map(len, imported.notes.values())) >= 4


def test_nothing_is_executed(tmp_path: Path) -> None:
    """Whatever stands in a Snakefile: not even what would be harmless."""
    (tmp_path / "Snakefile").write_text(f"""
X = open({str(tmp_path / "made")!r}, "w")
Y = [open({str(tmp_path / "made")!r}, "w") for i in "a"]
Z = "".__class__.__mro__
rule all:
    input: str(open({str(tmp_path / "made")!r}, "w")), f"{{print(1)}}", "a"
rule a:
    output: "a"
    shell: "echo {{output.__class__}} {{Z}}"
""")
    imported = import_snakefile(tmp_path / "Snakefile")
    assert "exit 1" in imported.table["steps"]["a"]["run"]
    assert not (tmp_path / "made").exists()
