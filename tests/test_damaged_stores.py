"""Tests of damaged stores: whatever is changed, cut or exchanged in a file is noticed, or makes no difference."""

from __future__ import annotations

import difflib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from preloaded import runnable
from random_pipelines import contents
from registry_server import registry

DAMAGES = int(os.environ.get("DAMAGES", "24"))
"""How many are tried; thousands by `tests/run.sh --long`."""
SEED = os.environ.get("DAMAGES_SEED", "1")
PARTS = 4
FILE = '''
name = "damages"
[parameters]
rate = 0.5
[steps.make]
run = """
cksum < big.bin > data.txt
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do mkdir -p many; echo $i > many/$i.txt; done
echo more >> notes.txt
echo score=12.5 >> "$RUNNABLE_OUTPUT"
echo out
echo error >&2
"""
returns = { score = "metric" }
catalog = { get = ["big.bin"], put = ["data.txt", "many/*.txt", "notes.txt"] }
[steps.report]
run = """
echo half > report.txt
echo half >> diary.txt
echo begun
if test -e die; then kill -9 $PPID; sleep 0.2; exit 1; fi
test -e gate
cat data.txt many/1.txt notes.txt > report.txt
echo $score >> report.txt
"""
catalog = { get = ["data.txt", "many/1.txt"], put = ["report.txt", "diary.txt"] }
'''
RUNS = ("done", "failed", "killed")
CHANGES = ("flip", "digit", "no text", "cut", "cut line", "empty", "delete line", "swap lines", "exchange", "remove")


@dataclass(frozen=True)
class Damage:
    """A file of a store, and what happens to it."""

    file: str
    change: str
    seed: int

    def inflict(self, store: Path) -> bool:
        """Damage a store; return whether that changed a byte of it."""
        path, choose = store / self.file, random.Random(self.seed)  # noqa: S311 - damage that can be repeated
        before = path.read_bytes()
        after = self._changed(before, choose, store)
        if after == before:
            return False
        times = [(p, (p.stat().st_atime_ns, p.stat().st_mtime_ns)) for p in (path, path.parent)]
        path.chmod(0o644)
        if after is None:
            path.unlink()
        else:
            path.write_bytes(after)
        for changed, ns in times:  # a disk that forgets a bit sets no time
            if changed.exists():
                os.utime(changed, ns=ns)
        return True

    def is_like_a_kill(self, before: Path, after: Path) -> bool:
        """Whether the run that was never sealed has the journal that it had a while before."""
        file = after / self.file
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        earlier = (before / self.file).read_bytes().splitlines(keepends=True)
        return self.file == "runs/killed/journal.jsonl" and whole == earlier[: len(whole)]

    def _changed(self, content: bytes, choose: random.Random, store: Path) -> bytes | None:
        lines = content.splitlines(keepends=True)
        place = choose.randrange(len(content) or 1)
        match self.change:
            case "flip" if content:
                return content[:place] + bytes([content[place] ^ 1 << choose.randrange(8)]) + content[place + 1 :]
            case "digit" if found := list(re.finditer(rb"[0-9a-f]", content)):
                start = choose.choice(found).start()
                other = choose.choice([b for b in b"0123456789" if b != content[start]])
                return content[:start] + bytes([other]) + content[start + 1 :]
            case "no text" if content:
                return content[:place] + b"\xff" + content[place + 1 :]
            case "cut":
                return content[:place]
            case "cut line" if len(lines) > 1:
                return b"".join(lines[: choose.randrange(1, len(lines))])
            case "empty":
                return b""
            case "delete line" if len(lines) > 1:
                del lines[choose.randrange(len(lines))]
                return b"".join(lines)
            case "swap lines" if len(lines) > 1:
                one, other = choose.sample(range(len(lines)), 2)
                lines[one], lines[other] = lines[other], lines[one]
                return b"".join(lines)
            case "exchange":
                same = [f for f in store.rglob("*") if f.is_file() and _kind(f.relative_to(store)) == self.kind]
                return choose.choice(same).read_bytes()
            case "remove":
                return None
        return content

    @property
    def kind(self) -> str:
        """Which sort of file it is."""
        return _kind(Path(self.file))


def _kind(path: Path) -> str:
    parts = path.parts
    if parts[0] == "runs":
        return f"runs/{parts[2]}/{path.suffix if parts[2] == 'logs' else ''}" if len(parts) > 3 else f"runs/{path.name}"
    if parts[0] == "unfinished":
        return f"unfinished/{path.name}"
    return parts[0]


@dataclass(frozen=True)
class Made:
    """A project with runs that succeeded, failed and were killed, and what each command says of them."""

    folder: Path
    scratch: Path
    environ: Mapping[str, str]
    repository: str
    expected: Mapping[tuple[str, ...], Any]

    def give(self, folder: Path, *words: str) -> tuple[int, str]:
        """Give a command in a folder: its exit code, and what it says without what differs from folder to folder."""
        code, said = runnable(folder, *words, environ=self.environ)
        for name, word in ((str(folder.resolve()), "FOLDER"), (str(folder), "FOLDER")):
            said = said.replace(name, word)
        return code, re.sub(r"\b[0-9.]+ s\b", "N s", said)

    def copied(self, name: str) -> Path:
        """A copy of the project."""
        folder = self.scratch / name / "project"
        shutil.copytree(self.folder, folder, symlinks=True)
        return folder

    def outcome(self, folder: Path, command: tuple[str, ...]) -> Any:
        """What comes of a command: all that a person has from it."""
        code, said = self.give(folder, *command)
        match command:
            case ("retry", _, "--dry-run"):
                return code, frozenset(re.findall(r"^(\S+) +reuse ", said, re.MULTILINE)), said if code else ""
            case ("retry", run, *_):
                return code, visible(folder), self.run(folder, run), said if code else ""
            case ("publish", run, *_):
                if code:
                    return code, said
                other = folder.parent / "other"
                other.mkdir()
                done, more = self.give(other, "pull", f"{command[-1]}:{run}")
                return code, done, self.run(other, run), more if done else ""
            case ("catalog", _, "--get", name, "--to", to):
                file = folder / to / name
                return code, file.read_bytes() if file.exists() else said
        return code, said

    def run(self, folder: Path, run: str) -> Any:
        """What a run came to, but for what no two runs share."""
        code, said = self.give(folder, "show", run, "--json")
        if code:
            return said
        log = json.loads(said)
        values = {
            name: [(a["status"], {n: p["value"] for n, p in a["output_parameters"].items()}) for a in step["attempts"]]
            for name, step in log["steps"].items()
        }
        files = {name: {e["name"]: e["data_hash"] for e in step["data_catalog"]} for name, step in log["steps"].items()}
        return log["status"], values, files

    def problem(self, damage: Damage, commands: Sequence[tuple[str, ...]], name: str) -> str:
        """What a command on a damaged store does that it should not; empty where there is nothing."""
        folder = self.copied(name)
        try:
            if not damage.inflict(folder / ".runnable"):
                return ""
            if damage.is_like_a_kill(self.folder / ".runnable", folder / ".runnable"):
                commands = [command for command in commands if command[0] == "retry"]
            for command in commands:
                found, expected = self.outcome(folder, command), self.expected[command]
                if not is_harmless(command, found, expected) and not is_noticed(found):
                    return f"{damage}: {' '.join(command)}: {_difference(found, expected)}"
        finally:
            shutil.rmtree(folder.parent)
        return ""


def _difference(found: Any, expected: Any) -> str:
    texts = [[part if isinstance(part, str) else repr(part) for part in it] for it in (found, expected)]
    lines = ["\n".join(parts).splitlines() for parts in texts]
    return "\n".join(line[:300] for line in difflib.unified_diff(lines[1], lines[0], lineterm="", n=0))


def visible(folder: Path) -> dict[str, bytes]:
    """The files of a project that people see."""
    return {name: content for name, content in contents(folder).items() if not name.startswith("got")}


def is_harmless(command: tuple[str, ...], found: Any, expected: Any) -> bool:
    """Whether a command gives what it should; a retry may do more than it need."""
    if command[0] == "retry" and command[-1] == "--dry-run":
        return bool(found[0] == expected[0] and found[1] <= expected[1])
    if command[0] == "retry" and found[0] == expected[0] == 0:
        return bool(found[1] == expected[1] and _last(found[2]) == _last(expected[2]))
    return bool(found == expected)


def _last(run: Any) -> Any:
    status, values, files = run
    return status, {name: attempts[-1] for name, attempts in values.items()}, files


def is_noticed(found: Any) -> bool:
    """Whether a command ended with an error of ours, or says which run is damaged."""
    code, *_, said = found
    text = said if isinstance(said, str) else ""
    return (code in (1, 2) and "error: " in text and "Traceback" not in text) or (code == 0 and "DAMAGED" in text)


def commands_on(run: str, repository: str) -> list[tuple[str, ...]]:
    """Those that only look, then those that write."""
    return [
        ("runs", "--json"),
        ("show", run, "--json"),
        ("show", run),
        ("logs", run),
        ("catalog", run, "--get", "data.txt", "--to", "got"),
        ("retry", run, "--dry-run"),
        ("publish", run, "--to", repository),
        ("retry", run),
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The project as it is copied for each damage."""
    top = tmp_path_factory.mktemp("damages")
    home, folder, scratch = top / "home", top / "first" / "project", top / "scratch"
    for path in (home, folder, scratch):
        path.mkdir(parents=True)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {"HOME": str(home), "PATH": programs, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": str(top)}
    (folder / "runnable.toml").write_text(FILE)
    for name in ("notes.txt", "diary.txt"):
        (folder / name).write_text("mine\n")
    (folder / "big.bin").write_bytes(bytes(range(256)) * 4300)
    (folder / ".gitignore").write_text("data.txt\nmany/\nreport.txt\ngate\ndie\ngot*\n")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "work"]):
        subprocess.run(["git", *words], cwd=folder, env=environ, check=True)
    with registry(top / "registry") as served:
        repository = served.repository()
        first = Made(folder, scratch, environ, repository, {})
        (folder / "gate").touch()
        assert first.give(folder, "run", "--run-id", "done")[0] == 0
        assert first.give(folder, "publish", "done", "--to", repository)[0] == 0
        assert first.give(folder, "pull", f"{repository}:done")[0] == 0
        (folder / "gate").unlink()
        assert first.give(folder, "run", "--run-id", "failed")[0] == 1
        (folder / "die").touch()
        assert first.give(folder, "run", "--run-id", "killed")[0] == -9
        (folder / "die").unlink()
        (folder / "gate").touch()
        expected: dict[tuple[str, ...], Any] = {}
        for run in RUNS:
            for command in commands_on(run, repository):
                copy = first.copied("expected")
                expected[command] = first.outcome(copy, command)
                shutil.rmtree(copy.parent)
        yield replace(first, expected=expected)


def damages(made: Made, choose: random.Random) -> Iterator[tuple[Damage, list[tuple[str, ...]]]]:
    """Yield without end what may happen, each sort of file as often as any other, and the commands given then."""
    store = made.folder / ".runnable"
    kinds: dict[str, list[str]] = {}
    for path in sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file()):
        kinds.setdefault(_kind(path), []).append(str(path))
    while True:
        file = choose.choice(kinds[choose.choice(sorted(kinds))])
        run = next((run for run in RUNS if f"/{run}/" in f"/{file}" or f"/{run}." in file), choose.choice(RUNS))
        commands = commands_on(run, made.repository)
        looking, writing = commands[:-2], commands[-2:]
        chosen = [*choose.sample(looking, 3), choose.choice(writing)]
        yield Damage(file, choose.choice(CHANGES), choose.randrange(1 << 30)), chosen


@pytest.mark.promise
@pytest.mark.parametrize("part", range(PARTS))
def test_damage_is_noticed_or_makes_no_difference(made: Made, part: int) -> None:
    """Each command gives what it would without it, or an error; a retry may run more steps than it needed to."""
    source = damages(made, random.Random(f"{SEED} {part}"))  # noqa: S311 - damage that can be repeated
    problems = [made.problem(*next(source), f"{part}-{number}") for number in range(DAMAGES // PARTS)]
    assert not (found := [problem for problem in problems if problem]), "\n".join(found)


def test_what_another_attempt_found_is_not_put_back(made: Made) -> None:
    """What one attempt noted of a person's files, in the place of what another did, is noticed; nothing is lost."""
    folder = made.copied("another")
    try:
        unfinished = folder / ".runnable" / "unfinished"
        shutil.copyfile(
            unfinished / "killed.set-aside" / "baseline.json", unfinished / "killed.report.1" / "baseline.json"
        )
        found = made.outcome(folder, ("retry", "killed"))
        assert is_noticed(found)
        assert "report.1 is damaged: it has what a killed attempt found" in str(found)
        assert (folder / "diary.txt").read_text() == "mine\nhalf\n"
    finally:
        shutil.rmtree(folder.parent)


@pytest.mark.promise
@pytest.mark.parametrize(
    ("file", "old", "new", "words", "says"),
    [
        ("index.json", b"12.5", b"92.5", ("runs", "--json"), ""),
        ("runs/done/journal.jsonl", b"12.5", b"92.5", ("show", "done", "--json"), ""),
        ("runs/done/journal.jsonl", b"12.5", b"92.5", ("retry", "done"), "journal.jsonl, line "),
        ("runs/killed/journal.jsonl", b"12.5", b"92.5", ("show", "killed"), "does not follow from the lines before"),
        ("runs/killed/logs/make.1.log", b"out", b"Out", ("logs", "killed"), "does not match its digest"),
        ("runs/killed/logs/make.1.idx", b"4", b"3", ("logs", "killed"), "does not match its digest"),
        ("runs/done/origin", b"127.0.0.1", b"127.0.0.2", ("retry", "done", "--dry-run"), ""),
        ("unfinished/killed.report.1/baseline.json", b"r", b"R", ("retry", "killed"), "report.1 is damaged: it has"),
        ("unfinished/killed.report.1/0", b"mine", b"mime", ("retry", "killed"), "report.1 is damaged: it has"),
        ("products.jsonl", b"report.txt", b"Report.txt", ("retry", "killed"), ""),
    ],
    ids=str,
)
def test_one_damage(made: Made, file: str, old: bytes, new: bytes, words: tuple[str, ...], says: str) -> None:
    """Of each sort of file one: with `says` it is noticed, else it makes no difference."""
    folder = made.copied("one")
    try:
        path = folder / ".runnable" / file
        before = path.read_bytes()
        assert old in before
        path.write_bytes(before.replace(old, new, 1))
        found = made.outcome(folder, words)
        if says:
            assert is_noticed(found)
            assert says in str(found)
        else:
            assert is_harmless(words, found, made.expected[words])
    finally:
        shutil.rmtree(folder.parent)
