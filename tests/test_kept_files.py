"""Tests of files as they are on disk: links, empty folders, modes, times and names, also in retries and clones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from oras.client import OrasClient
from registry_server import registry
from support import wait_until

from runnable_ci.runs.model import CatalogEntry, RunLog

TREE = """
set -e
mkdir -p out/run1 out/empty/inner
echo index > out/run1/index.txt
printf '#!/bin/sh\\necho tool\\n' > out/run1/tool; chmod 0755 out/run1/tool
echo closed > out/run1/closed; chmod 0440 out/run1/closed
ln -s run1 out/latest
ln -s run1/index.txt out/index.txt
ln -s run1 out/run2; ln -s run2/tool out/tool
ln -s nowhere out/broken
ln -s . out/self
ln -s "$PWD/out/run1/tool" out/absolute
touch -d '2001-02-03 04:05:06.789 UTC' out/run1/index.txt
touch -h -d '2002-01-01 UTC' out/latest
touch -d '2003-01-01 UTC' out/run1/tool
"""
LINKS = """
[steps.make]
run = '''bash make.sh'''
catalog = { put = ["out"] }
[steps.use]
run = '''cat out/latest/index.txt out/index.txt; out/tool; out/absolute; test -d out/empty/inner; test -e fixed'''
catalog = { get = ["out"] }
"""


def entries(log: RunLog, step: str, stage: str = "put") -> dict[str, CatalogEntry]:
    """The files of a step's last attempt."""
    return {entry.name: entry for entry in log.steps[step].data_catalog if entry.stage == stage}


def project_of(tmp_path: Path, steps: str, **files: str) -> Workspace:
    """A repository with a pipeline and some files, all committed."""
    named = {name.replace("__", "/").replace("_", "."): content for name, content in files.items()}
    return workspace(tmp_path, {"runnable.toml": steps, **named})


def tree_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that is in a folder: kind, permissions, content or target; and times, but for those of folders."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        name, at = str(path.relative_to(folder)), path.lstat()
        if path.is_symlink():
            found[name] = ("link", str(path.readlink()), at.st_mtime_ns)
        elif path.is_dir():
            found[name] = ("folder",)
        else:
            found[name] = (oct(at.st_mode), path.read_bytes(), at.st_mtime_ns)
    return found


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    """Links to files and folders, broken ones, loops, empty folders, modes and times; old clients refuse it."""
    project = project_of(tmp_path, LINKS, make_sh=TREE)
    with registry(tmp_path / "registry") as served:
        to = (f"{served.host}/o/n/runs", "--plain-http")
        project.runnable("run", "--run-id", "r", code=1)
        made = tree_of(project.folder / "out")
        assert made.pop("absolute")[:2] == ("link", f"{project.folder}/out/run1/tool")
        assert {name: entry.target for name, entry in entries(project.log("r"), "make").items() if entry.kind} == {
            "out/absolute": "run1/tool",
            "out/broken": "nowhere",
            "out/empty/inner": "",
            "out/index.txt": "run1/index.txt",
            "out/latest": "run1",
            "out/run2": "run1",
            "out/self": ".",
            "out/tool": "run2/tool",
        }
        project.runnable("publish", "r", "--to", *to)
        clone = elsewhere(project, tmp_path)
        clone.write({"fixed": ""})
        retried = clone.runnable("retry", f"{served.host}/o/n/runs:r", "--plain-http")
        assert "make | reuse: unchanged since attempt 1" in retried.err
        back = tree_of(clone.folder / "out")
        assert back.pop("absolute")[:2] == ("link", "run1/tool")
        assert back == made

        client = OrasClient(hostname=served.host, insecure=True)
        client.pull(target=f"{served.host}/o/n/runs:r", outdir=str(tmp_path / "pulled"))
    pulled = tmp_path / "pulled"
    catalog = pulled / "catalog" / "out"
    assert (catalog / "index.txt").read_text() == (catalog / "run1/index.txt").read_text() == "index\n"
    assert (catalog / "tool").read_text() == (catalog / "run1/tool").read_text()
    assert not (catalog / "broken").exists()
    document = json.loads((pulled / "run-log.json").read_text())
    assert document["schema_version"] == "2"
    [raised] = [
        line for line in (project.store / "runs/r/journal.jsonl").read_text().splitlines() if 'event":"schema' in line
    ]
    assert raised.endswith('"version":"2","event":"schema"}')


AGAIN = """
[parameters]
end = "false"
[steps.make]
run = '''
mkdir -p out/v$n/none; echo $n > out/v$n/a.txt; ln -sfn v$n out/now; ln -s v$n/a.txt out/a.txt
date >> log.txt
'''
catalog = { put = ["out", "log.txt"] }
[steps.use]
run = '''cat out/now/a.txt out/a.txt; $end'''
"""


def test_a_later_run_finds_no_links_of_an_earlier_one(tmp_path: Path) -> None:
    """They are set aside with the rest, empty folders too; a step without `get` that read through links is reused."""
    project = project_of(tmp_path, AGAIN.replace("end =", 'n = "1"\nend ='))
    project.runnable("run", "--run-id", "a", code=1)
    project.runnable("run", "--run-id", "b", "-p", "n=2", "-p", "end=true")
    assert sorted(path.name for path in (project.folder / "out").iterdir()) == ["a.txt", "now", "v2"]
    aside = project.store / "runs/b/replaced/1/make/out"
    assert (aside / "now").readlink() == Path("v1") and (aside / "v1/none").is_dir()
    assert project.read("out/now/a.txt") == "2\n"
    again = project.runnable("retry", "b", "--dry-run")
    assert [line.split()[1] for line in again.out.splitlines()[-2:]] == ["reuse", "reuse"]
    os.utime(project.folder / "out/v2/a.txt", (1, 1))
    os.utime(project.folder / "out/now", (1, 1), follow_symlinks=False)
    again = project.runnable("retry", "b", "--dry-run")
    assert [line.split()[1] for line in again.out.splitlines()[-2:]] == ["reuse", "reuse"]
    (project.folder / "out/now").unlink()
    (project.folder / "out/now").symlink_to("v2/none")
    edited = project.runnable("retry", "b", "--dry-run").out
    assert "out/now changed since attempt 1; later steps get that attempt's" in edited


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$"])
def test_links_of_a_failed_attempt_are_kept_with_it(tmp_path: Path, end: str) -> None:
    """Links, empty folders and the user's link that it replaced: kept, taken out of the workspace, and restored."""
    steps = f"""
[steps.half]
run = '''mkdir -p out/deep out/none; echo x > out/deep/x; ln -s deep out/now; ln -sfn deep mine/link; {end}'''
catalog = {{ put = ["out", "mine"] }}
"""
    project = project_of(tmp_path, steps, mine__notes_txt="n\n", mine__more_txt="m\n")
    (project.folder / "mine/link").symlink_to("notes.txt")
    project.runnable("run", "--run-id", "r", code=1)
    assert {name: (e.kind, e.target) for name, e in entries(project.log("r"), "half", "failed").items()} == {
        "mine/link": ("link", "deep"),
        "out/deep/x": ("", ""),
        "out/none": ("folder", ""),
        "out/now": ("link", "deep"),
    }
    assert not (project.folder / "out").exists()
    assert (project.folder / "mine/link").readlink() == Path("notes.txt")
    refused = project.runnable("catalog", "r", "--get", "out/now", "--to", "x", code=2)
    assert "`out/now` is a link to deep, which is no file of that attempt" in refused.err
    listed = [line.split()[:-6] for line in project.runnable("catalog", "r").out.splitlines()]
    assert listed[-3:] == [["out/deep/x"], ["out/none/"], ["out/now", "->", "deep"]]
    project.runnable("catalog", "r", "--get", "out/deep/x", "--to", "x")
    assert project.read("x") == "x\n"


def test_a_link_to_what_no_pattern_names_is_kept_as_what_it_leads_to(tmp_path: Path) -> None:
    """A clone has its content; a link to a folder that a pattern names by the link alone as well."""
    steps = """
[steps.make]
run = "mkdir -p data/v1; echo 1 > data/v1/a; ln -s data/v1 current; ln -s data/v1/a one"
catalog = { put = ["current", "one"] }
[steps.use]
run = "cat current/a one; test -e fixed"
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", code=1)
    made = entries(project.log("r"), "make")
    assert {name: entry.kind for name, entry in made.items()} == {"current/a": "", "one": ""}
    assert project.log("r").schema_version == "1"
    (project.folder / "data/v1/a").unlink()
    (project.folder / "current").unlink()
    project.write({"fixed": ""})
    project.runnable("retry", "r")
    assert project.read("current/a") == "1\n"


def test_names_with_brackets_mean_themselves(tmp_path: Path) -> None:
    """Where a file of that name is there; else they are a class of characters. Put and get by one rule."""
    steps = """
[steps.make]
run = '''
echo right > "report [1].txt"; echo wrong > "report 1.txt"
echo a > a1; echo b > a2; mkdir "d[0]"; echo d > "d[0]/f"
'''
catalog = { put = ["report [1].txt", "a[12]", "d[0]/*"] }
[steps.other]
run = "echo more > 'report 1.txt'"
catalog = { put = ["report 1.txt"] }
[steps.use]
run = 'cat report*; test -e fixed'
catalog = { get = ["report [1].txt", "a[12]", "d[[]0]"] }
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", code=1)
    assert sorted(entries(project.log("r"), "make")) == ["a1", "a2", "d[0]/f", "report [1].txt"]
    assert sorted(entries(project.log("r"), "use", "get")) == ["a1", "a2", "d[0]/f", "report [1].txt"]
    parallel = steps.replace("[steps.other]", "[steps.other]\nneeds = []")
    parallel = parallel.replace('"report 1.txt"] }', '"report [[]1].txt"] }')
    project.write({"runnable.toml": parallel})
    assert "can match the same file" in project.runnable("check", code=2).err


def test_a_socket_a_pipe_and_a_device_fail_the_put_by_name(tmp_path: Path) -> None:
    """Nothing of a folder is left out without a word; what a failed attempt left else is kept."""
    steps = """
[steps.make]
run = "mkdir out; echo x > out/x; mkfifo out/pipe"
catalog = { put = ["out"] }
"""
    project = project_of(tmp_path, steps)
    failed = project.runnable("run", "--run-id", "r", code=1)
    assert "`out/pipe` is a pipe, which cannot be stored" in failed.err
    assert sorted(entries(project.log("r"), "make", "failed")) == ["out/x"]
    (project.folder / "out/pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(project.folder / "out/s"))
        project.write({"runnable.toml": steps.replace("mkdir out;", "").replace("; mkfifo out/pipe", "")})
        assert "`out/s` is a socket, which cannot be stored" in project.runnable("run", code=1).err


def test_names_of_255_bytes_and_holes(tmp_path: Path) -> None:
    """A long name is put, replaced, set aside and restored like others; what was never written takes no room."""
    long = "é" * 127 + "x"
    steps = f"""
[parameters]
n = 1
[steps.make]
run = '''echo $n > {long}; truncate -s 30M holes; echo end >> holes'''
catalog = {{ put = ["{long}", "holes"] }}
[steps.use]
run = '''cat {long} holes | tail -c 4; test -e fixed'''
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "a", code=1)
    project.runnable("run", "--run-id", "b", "-p", "n=2", code=1)
    for content in ("user\n", "again\n"):
        project.write({long: content})
        project.runnable("retry", "b", code=1)
        assert project.read(long) == "2\n"
    kept = [path.read_text() for path in (project.store / "runs/b/replaced").rglob(long)]
    assert sorted(kept) == ["1\n", "again\n", "user\n"]
    (project.folder / "holes").unlink()
    project.write({"fixed": ""})
    project.runnable("retry", "b", "-p", "n=2")
    at = (project.folder / "holes").stat()
    assert (at.st_size, at.st_blocks * 512 < 1_000_000) == (30 * 1024**2 + 4, True)
    blob = project.store / "blobs/sha256" / entries(project.log("b"), "make")["holes"].data_hash
    assert blob.stat().st_blocks * 512 < 1_000_000


@pytest.mark.parametrize("end", ["exit 1", "sleep 60", "true"])
def test_what_a_step_returned_before_it_failed_is_kept(tmp_path: Path, end: str) -> None:
    """Failed, timed out, or without one of its values: shown with the attempt, for no other step, without secrets."""
    steps = f"""
[steps.half]
run = '''echo acc=0.7 >> $RUNNABLE_OUTPUT; echo "token=$TOKEN" >> $RUNNABLE_OUTPUT
printf 'text<<E\\na\\nb\\nE\\nlast<<E\\ntorn' >> $RUNNABLE_OUTPUT; {end}'''
returns = {{ acc = "metric", text = "json", token = "json", missing = "json" }}
continue-on-error = true
timeout-minutes = 0.02
[steps.next]
run = 'echo "acc is ${{acc-unset}}"'
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", TOKEN="s3cret-value-of-a-token")
    log = project.log("r")
    [attempt] = log.steps["half"].attempts
    kept = {name: (parameter.kind, parameter.value) for name, parameter in attempt.partial_output.items()}
    assert kept == {"acc": ("metric", 0.7), "text": ("json", "a\nb"), "token": ("json", "***")}
    assert (attempt.user_defined_metrics, attempt.output_parameters, log.metrics()) == ({}, {}, {})
    assert "next | acc is unset\n" in project.runnable("logs", "r").out
    assert "returned before: acc = 0.7" in project.runnable("show", "r").out
    assert "s3cret-value" not in (project.store / "runs/r/journal.jsonl").read_text()


UNSTORED = """
[steps.big]
run = "head -c 3000000 /dev/zero > big.bin; echo small > small.txt; echo $RANDOM > ran.txt"
catalog = { put = [{ path = "*.bin", store = false }, "*.txt"] }
[steps.use]
run = "wc -c < big.bin; test -e fixed"
catalog = { get = ["big.bin"] }
[steps.other]
needs = ["big"]
run = "cat small.txt; test -e fixed"
catalog = { get = ["small.txt"] }
"""


def test_a_hash_without_a_copy(tmp_path: Path) -> None:
    """Reused where the file is there as it was, made again where it is not and a step needs it; published without."""
    project = project_of(tmp_path, UNSTORED)
    project.runnable("run", "--run-id", "r", "-j", "1", code=1)
    made = entries(project.log("r"), "big")
    assert {name: entry.stored for name, entry in made.items()} == {
        "big.bin": False,
        "ran.txt": True,
        "small.txt": True,
    }
    assert not (project.store / "blobs/sha256" / made["big.bin"].data_hash).exists()
    assert project.runnable("catalog", "r").out.splitlines()[1].split()[:4] == ["big.bin", "(hash", "only)", "put"]
    refused = project.runnable("catalog", "r", "--get", "big.bin", "--to", "x", code=1)
    assert "`big.bin` was not stored, only its hash" in refused.err
    retried = project.runnable("retry", "r", code=1)
    assert "big | reuse" in retried.err or "big   | reuse" in retried.err
    with registry(tmp_path / "registry") as served:
        project.runnable("publish", "r", "--to", f"{served.host}/o/n/runs", "--plain-http")
        clone = elsewhere(project, tmp_path)
        reference = f"{served.host}/o/n/runs:r"
        clone.runnable("pull", reference, "--plain-http")
    ran = clone.runnable("retry", "r", "--dry-run")
    assert "big.bin, which it made, is not here as it was, and was not stored (store = false)" in ran.out
    clone.write(
        {
            "runnable.toml": UNSTORED.replace(
                'run = "wc -c < big.bin; test -e fixed"', 'run = "test -e fixed"'
            ).replace('get = ["big.bin"]', "get = []")
        }
    )
    assert "big    reuse" in clone.runnable("retry", "r", "--dry-run").out

    project.write({"big.bin": "other"})
    assert "is not here as it was" in project.runnable("retry", "r", "--dry-run").out
    project.write({"fixed": ""})
    project.runnable("retry", "r", "-j", "1")
    assert (project.folder / "big.bin").stat().st_size == 3_000_000
    project.runnable("run", "--run-id", "again", "-j", "1")
    assert (project.store / "runs/again/replaced/1/big/big.bin").stat().st_size == 3_000_000


def test_inputs_above_the_folder_are_recorded_and_never_written(tmp_path: Path) -> None:
    """A file of the repository around, or beside it: a change of it counts, in a clone too."""
    steps = """
[steps.load]
run = "cat ../shared/schema.sql ../shared/more/*"
catalog = { get = ["../shared/schema.sql", "../shared/more"] }
[steps.fail]
run = "test -e fixed"
"""
    files = {"ml/runnable.toml": steps, "shared/schema.sql": "one\n", "shared/more/a": "a\n"}
    project = workspace(tmp_path, files)
    project.runnable("run", "--run-id", "r", at="ml", code=1)
    inputs = json.loads(project.runnable("show", "r", "--json", at="ml").out)["steps"]["load"]["data_catalog"]
    assert [(entry["name"], entry["stage"]) for entry in inputs] == [
        ("../shared/more/a", "get"),
        ("../shared/schema.sql", "get"),
    ]
    assert "load  reuse" in project.runnable("retry", "r", "--dry-run", at="ml").out
    with registry(tmp_path / "registry") as served:
        to = f"{served.host}/o/n/runs"
        project.runnable("publish", "r", "--to", to, "--plain-http", at="ml")
        clone = elsewhere(project, tmp_path)
        again = clone.runnable("retry", f"{to}:r", "--plain-http", at="ml", code=1)
    assert "load | reuse" in again.err
    clone.write({"shared/schema.sql": "two\n", "shared/more/b": "new\n"})
    plan = clone.runnable("retry", "r", "--dry-run", at="ml").out
    assert "../shared/schema.sql changed" in plan and "../shared/more/b is new" in plan
    (project.folder / "shared/schema.sql").unlink()
    refused = project.runnable("retry", "r", "--dry-run", at="ml", code=2).err
    assert "get: no file matches `../shared/schema.sql`" in refused
    for key, wrong in (("put", "../x"), ("get", "/etc/passwd"), ("get", "../a/../x"), ("get", "../.git/config")):
        project.write({"ml/wrong.toml": f'[steps.a]\nrun = "true"\ncatalog = {{ {key} = ["{wrong}"] }}\n'})
        assert f"{key}: " in project.runnable("check", "wrong.toml", at="ml", code=2).err


PYTHON = """
[steps.make]
run = "mkdir -p out/v1 out/no; echo 1 > out/v1/a.txt; ln -s v1 out/now; ln -s v1/a.txt out/a.txt; ln -s . out/self"
catalog = { put = ["out"] }
[steps.read]
python = "reading:read"
returns = ["text"]
[steps.declared]
run = "cat out/a.txt"
reads = ["out/**"]
[steps.aside]
needs = []
run = "ls; ls out || true"
[steps.fail]
run = "test -e fixed"
"""
READING = """
import os
def read():
    return open("out/now/a.txt").read() + open("out/a.txt").read() + " ".join(os.listdir("out/now"))
"""


def test_what_was_read_through_links_is_compared_elsewhere(tmp_path: Path) -> None:
    """A python step that opened files and listed a folder by the names of links is reused in a clone without them."""
    project = project_of(tmp_path, PYTHON, reading_py=READING)
    project.runnable("run", "--run-id", "r", "-j", "1", code=1)
    with registry(tmp_path / "registry") as served:
        to = f"{served.host}/o/n/runs"
        project.runnable("publish", "r", "--to", to, "--plain-http")
        clone = elsewhere(project, tmp_path)
        clone.runnable("pull", f"{to}:r", "--plain-http")
    for where in (project, clone):
        plan = dict(line.split()[:2] for line in where.runnable("retry", "r", "--dry-run").out.splitlines())
        reused = dict.fromkeys(["make", "read", "declared", "aside"], "reuse")
        assert plan == {**reused, "fail": "run"}, where.runnable("retry", "r", "--dry-run").out


def test_a_cancelled_step_keeps_what_it_made_and_returned(tmp_path: Path) -> None:
    """Its files, links and values are in the log, of that attempt; the workspace is as it was."""
    steps = """
[steps.long]
run = "mkdir out; echo x > out/x; ln -s x out/l; echo n=1 >> $RUNNABLE_OUTPUT; touch ready; exec sleep 60"
catalog = { put = ["out"] }
returns = { n = "metric" }
"""
    project = project_of(tmp_path, steps)
    running = project.start("run", "--run-id", "r")
    wait_until((project.folder / "ready").exists, "the step to be at work")
    running.send_signal(signal.SIGTERM)
    running.communicate()
    log = project.log("r")
    [attempt] = log.steps["long"].attempts
    assert (attempt.outcome, attempt.partial_output["n"].value, log.metrics()) == ("cancelled", 1, {})
    assert {name: entry.target for name, entry in entries(log, "long", "failed").items()} == {"out/l": "x", "out/x": ""}
    assert not (project.folder / "out").exists()


def test_what_was_returned_counts_for_nothing_where_the_put_failed(tmp_path: Path) -> None:
    """Of a shell step and a python step alike: in the attempt, and no metric or parameter of the run."""
    steps = """
[steps.shell]
run = "echo acc=0.5 >> $RUNNABLE_OUTPUT"
returns = { acc = "metric" }
catalog = { put = ["nothing.txt"] }
continue-on-error = true
[steps.python]
python = "m:f"
returns = { loss = "metric", text = "json" }
catalog = { put = ["nothing.txt"] }
"""
    project = project_of(tmp_path, steps, m_py="def f(): return 0.25, 'some'\n")
    project.runnable("run", "--run-id", "r", code=1)
    log = project.log("r")
    kept = {name: step.attempts[-1].partial_output for name, step in log.steps.items()}
    values = {name: {key: it.value for key, it in found.items()} for name, found in kept.items()}
    assert values == {"shell": {"acc": 0.5}, "python": {"loss": 0.25, "text": "some"}}
    assert (log.metrics(), log.parameters) == ({}, {})


def test_a_file_in_place_of_a_link_is_a_change(tmp_path: Path) -> None:
    """Though its content is the text to which the link pointed."""
    steps = """
[parameters]
n = 1
[steps.make]
run = "mkdir out; if [ $n = 1 ]; then ln -s abc out/x; else printf abc > out/x; fi; echo y > out/y"
catalog = { put = ["out"] }
[steps.use]
run = "readlink out/x || cat out/x"
catalog = { get = ["out/x"] }
[steps.fail]
run = "false"
"""
    project = project_of(tmp_path, steps)
    project.runnable("run", "--run-id", "r", code=1)
    again = project.runnable("retry", "r", "-p", "n=2", code=1)
    assert [len(step.attempts) for step in project.log("r").steps.values()] == [2, 2, 2], again.err


def test_a_link_to_a_file_is_no_edit(tmp_path: Path) -> None:
    """What a step made as a link is set aside before the next run, and nobody is said to have changed it."""
    steps = '[steps.a]\nrun = "mkdir -p m; echo 1 > m/v1; ln -s v1 m/latest"\ncatalog = { put = ["m"] }\n'
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "m\n"})
    project.runnable("run")
    said = project.runnable("run").err
    assert "set aside 2 files" in said
    assert "was changed" not in said


@pytest.mark.parametrize("pattern", ["cur/f", "cur/*", "cur/**"])
def test_a_get_through_a_link_to_a_folder(tmp_path: Path, pattern: str) -> None:
    """A file that a kept link leads to is found by the name that it has there, also where neither is any more."""
    steps = f"""
[steps.make]
run = "mkdir -p v1; echo x > v1/f; ln -sfn v1 cur"
catalog = {{ put = ["v1", "cur"] }}
[steps.take]
run = "cat cur/f; test -e fixed"
catalog = {{ get = ["{pattern}"] }}
"""
    project = workspace(tmp_path, {"runnable.toml": steps, ".gitignore": "v1\ncur\n"})
    project.runnable("run", "--run-id", "r", code=1)
    taken = [entry.name for entry in project.log().steps["take"].data_catalog if entry.stage == "get"]
    assert taken == ["cur", "v1/f"]
    shutil.rmtree(project.folder / "v1")
    (project.folder / "cur").unlink()
    project.write({"fixed": ""})
    again = project.runnable("retry", "r")
    assert "make | reuse" in again.err
    assert "take | x\n" in again.out
