"""Publishing, pulling and resuming elsewhere by the real program, with a real registry between the machines."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest
from cli import Workspace, elsewhere, workspace
from published_runs import forge
from registry_server import PASSWORD, USERNAME, Reply, Seen, Served, password_registry, registry, serving
from support import wait_until

from runnable_ci.runs.model import FAIL, SUCCESS
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry

PIPELINE = """
[parameters]
rate = 2
[steps.load]
python = "flowers:load"
returns = { X = "object", big = "object" }
[steps.picture]
run = "head -c 400000 /dev/zero | tr '\\\\0' x > big.bin; echo small > small.txt"
catalog = { put = ["big.bin", "small.txt"] }
[steps.fit]
python = "flowers:fit"
returns = { score = "metric" }
catalog = { get = [] }
[steps.report]
run = "cat small.txt"
catalog = { get = ["*.txt"] }
"""
FLOWERS = """
def load():
    return [1, 2, 3], "x" * 500_000

def fit(X, rate):
    print("fitting")
    return sum(X) * rates
"""
FIXED = FLOWERS.replace("rates", "rate")
SHELL = """
[steps.one]
run = "echo one > one.txt; echo said"
catalog = { put = ["one.txt"] }
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


def test_a_failed_run_is_resumed_on_another_machine(tmp_path: Path) -> None:
    """A run fails and is published; another user fixes the code, resumes from the registry alone, publishes again.

    Only what the steps that run read is fetched. The first user then has both attempts, also without the registry.
    """
    project = workspace(
        tmp_path, {"runnable.toml": PIPELINE, "flowers.py": FLOWERS, ".gitignore": "*.bin\n*.txt\n__pycache__\n"}
    )
    with registry(tmp_path / "registry") as served:
        repository = served.repository()
        done = project.runnable("run", "--run-id", "r", "--to", repository, "--quiet", code=1)
        assert f"published {repository}:r@sha256:" in done.err

        other = elsewhere(project, tmp_path)
        other.write({"flowers.py": FIXED})
        planned = other.runnable("retry", f"{repository}:r", "--dry-run").out
        assert [line.split()[:2] for line in planned.splitlines()] == [
            ["load", "reuse"],
            ["picture", "reuse"],
            ["fit", "run"],
            ["report", "run"],
        ]
        done = other.runnable("retry", f"{repository}:r", "--publish")
        assert re.search(r"fetched \d+ B from .*, 87\d\.\d KiB not downloaded\n", done.err)
        assert done.out == "fit     | fitting\nreport  | small\n"
        assert not (other.folder / "big.bin").exists()
        assert other.log().metrics() == {"score": 12}

        pulled = project.runnable("pull", "r", "--from", repository)
        assert "merged from 2 writers" in pulled.err
        assert pulled.out == "r\n"
    log = project.log("r")
    assert (log.status, [i.status for i in log.invocations]) == (SUCCESS, [FAIL, SUCCESS])
    assert [a.status for a in log.steps["fit"].attempts] == [FAIL, SUCCESS]
    assert project.runnable("logs", "r", "fit").out == "fitting\n"
    assert "NameError" in project.runnable("logs", "r", "fit", "--attempt", "1").out
    planned = project.runnable("retry", "r", "--dry-run").out
    assert "flowers.py changed, which it read" in planned  # the fix is not here yet
    project.write({"flowers.py": FIXED})
    assert project.runnable("retry", "r").err.startswith("run r: nothing to do")
    project.runnable("catalog", "r", "--get", "small.txt", "--to", "copy.txt")
    assert project.read("copy.txt") == "small\n"


def test_only_the_log_then_show_and_the_way_to_the_rest(tmp_path: Path, served: Served) -> None:
    """With the log alone `show` works; what needs content says how to get it, and that works by the run id alone."""
    project = workspace(tmp_path, {"runnable.toml": SHELL, ".gitignore": "*.txt\n"})
    repository = served.repository()
    project.runnable("run", "--run-id", "r", "--publish", RUNNABLE_CI_REGISTRY=repository)
    other = elsewhere(project, tmp_path)
    done = other.runnable("pull", f"{repository}:r", "--only", "log")
    assert re.search(r"fetched \d+ B, 9 B not downloaded\n$", done.err)
    shown, _, writers = other.runnable("show", "r").out.partition("\nWRITTEN ")
    assert shown == project.runnable("show", "r").out
    assert "A on main" in writers
    for command in (["logs", "r", "one"], ["catalog", "r", "--get", "one.txt", "--to", "x"]):
        failed = other.runnable(*command, code=1)
        assert failed.err.endswith("hint: `runnable-ci pull r` downloads the whole run\n")
    other.runnable("pull", "r")
    assert other.runnable("logs", "r", "one").out == "said\n"


def test_retry_by_run_id_fetches_what_is_missing(tmp_path: Path, served: Served) -> None:
    """A run of which only the log was pulled is resumed by its id, from where it came."""
    registry_line = f'registry = "{served.repository()}"\n'
    project = workspace(
        tmp_path, {"runnable.toml": registry_line + PIPELINE, "flowers.py": FLOWERS, ".gitignore": "*.bin\n*.txt\n"}
    )
    project.runnable("run", "--run-id", "r", "--publish", code=1)
    other = elsewhere(project, tmp_path)
    other.write({"flowers.py": FIXED})
    other.runnable("pull", "latest", "--only", "log")
    assert re.search(r"fetched \d+ B from .*, 87\d\.\d KiB not downloaded\n", other.runnable("retry", "r").err)
    assert (other.folder / "small.txt").exists()
    assert not (other.folder / "big.bin").exists()
    done = other.runnable("retry", "r", "--restore", "all")
    assert "fetched 390.6 KiB from" in done.err
    assert "nothing to do" in done.err
    assert (other.folder / "big.bin").stat().st_size == 400_000
    nameless = other.runnable("retry", registry_line.split('"')[1], code=2)
    assert "does not specify a run\nhint: " in nameless.err
    again = elsewhere(project, tmp_path, "again")
    again.write({"flowers.py": FIXED})
    again.runnable("retry", "latest", "--from-registry", registry_line.split('"')[1])
    assert again.log("r").status == SUCCESS


def test_references_and_the_listing(tmp_path: Path, served: Served) -> None:
    """Tag, digest and `latest` are taken; `runs --from` lists what is published, for people and as JSON."""
    project = workspace(tmp_path, {"runnable.toml": SHELL, ".gitignore": "*.txt\n"})
    repository = served.repository()
    references = {}
    for run_id in ("first", "second"):
        project.runnable("run", "--run-id", run_id)
        references[run_id] = project.runnable("publish", run_id, "--to", repository).out.strip()
    assert [line.split()[0] for line in project.runnable("runs", "--from", repository).out.splitlines()] == [
        "RUN",
        "first",
        "second",
    ]
    listed = json.loads(project.runnable("runs", "--from", repository, "--json").out)
    assert [(run["run_id"], run["status"]) for run in listed] == [("first", SUCCESS), ("second", SUCCESS)]
    digest = references["first"].partition("@")[2]
    for i, (arguments, run_id) in enumerate(
        [
            ([references["first"]], "first"),
            ([f"{repository}@{digest}"], "first"),
            ([digest, "--from", repository], "first"),
            ([f"{repository}:second"], "second"),
            ([f"{repository}:latest"], "second"),
            (["latest", "--from", repository], "second"),
        ]
    ):
        other = elsewhere(project, tmp_path, f"other{i}")
        assert other.runnable("pull", *arguments).out == f"{run_id}\n"
        assert other.runnable("logs", run_id).out == "one | said\n"
    again = project.runnable("publish", "second", "--to", repository)
    assert (again.out.strip(), again.err) == (references["second"], "already up to date\n")


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("parameters", "the parameter name `LD_PRELOAD` is reserved"),
        ("outputs", "the parameter name `PATH` is reserved"),
        ("modules", ""),
        ("invocations", ""),
    ],
)
def test_a_forged_run_log_gets_no_further_than_an_error(
    tmp_path: Path, served: Served, place: str, complaint: str
) -> None:
    """Names that would take the place of a program's variables end a retry before a step; odd ones do no harm."""
    project = workspace(
        tmp_path, {"runnable.toml": SHELL + '[steps.two]\nrun = "[ -e go ]"\n', ".gitignore": "*.txt\n"}
    )
    project.runnable("run", "--run-id", "r", code=1)
    document = json.loads(project.runnable("show", "r", "--json").out)
    attempt = document["steps"]["one"]["attempts"][0]
    match place:
        case "parameters":
            document["invocations"][0]["parameters"]["LD_PRELOAD"] = "/evil.so"
        case "outputs":
            attempt["output_parameters"]["PATH"] = {"kind": "json", "value": "/evil"}
        case "modules":
            attempt["modules"] = {"a\0b": "00", "../../../etc/passwd": "00"}
        case _:
            document |= {"invocations": [], "end_time": "never"}
            document["steps"]["two"]["attempts"] = []
    repository = served.repository()
    digest = forge(Registry(repository, environ={}), Layout(project.store), json.dumps(document).encode())
    other = elsewhere(project, tmp_path)
    other.write({"go": ""})
    other.runnable("pull", f"{repository}@{digest}")
    for command in (["show"], ["logs"], ["catalog"], ["runs"]):
        other.runnable(*command, *([] if command == ["runs"] else ["r"]))
    done = other.runnable("retry", "r", code=1 if complaint else 0)
    assert complaint in done.err
    assert (len(other.log().invocations) > 1) is (place == "modules")


@pytest.mark.long("test_http.py holds it for each fault")
def test_a_bad_network_is_borne(tmp_path: Path, served: Served) -> None:
    """Through a proxy where every third request fails in some way, publish and pull come to their end."""
    project = workspace(tmp_path, {"runnable.toml": PIPELINE, "flowers.py": FIXED, ".gitignore": "*.bin\n*.txt\n"})
    faults = cycle(
        [
            Reply(503, {"Retry-After": "0"}),
            Reply(429, {"Retry-After": "0"}),
            Reply(200, {"Content-Length": "100"}, b"", cut=0, how="reset"),
            Reply(500),
            Reply(403, {"Retry-After": "0"}, b"secondary rate limit"),
            Reply(200, {"Content-Length": "100"}, b"", cut=0),
        ]
    )
    lock = threading.Lock()

    def hook(seen: Seen, forward: Callable[[], Reply]) -> Reply:
        with lock:
            fails = len(proxy.seen) % 3 == 0
            fault = next(faults) if fails else None
        if fault and fault.cut is not None and seen.method == "HEAD":
            return Reply(502)  # a head alone cannot be cut
        if fault and fault.cut is not None and seen.method == "GET":
            whole = forward()
            return Reply(whole.status, whole.headers, whole.body, cut=len(whole.body) // 2, how=fault.how)
        return fault or forward()

    with serving(hook, upstream=served) as proxy:
        repository = proxy.repository()
        project.runnable("run", "--run-id", "r", "--to", repository)
        other = elsewhere(project, tmp_path)
        other.runnable("pull", f"{repository}:r")
        assert len(proxy.seen) > 20
    assert other.runnable("logs", "r").out == project.runnable("logs", "r").out
    assert other.log() == project.log()


def test_plain_http_to_another_machine_has_to_be_asked_for(tmp_path: Path, served: Served) -> None:
    """A registry elsewhere is spoken to by https alone, unless `--plain-http` is said; each command knows it."""
    project = workspace(tmp_path, {"runnable.toml": SHELL, ".gitignore": "*.txt\n"})
    repository = served.repository().replace("127.0.0.1", "127.1")  # not known to be this machine
    refused = project.runnable("run", "--run-id", "r", "--to", repository, code=1)
    assert "run r is in the local store" in refused.err
    assert f"no trusted TLS connection to https://{repository.partition('/')[0]}" in refused.err
    assert "if the server uses plain HTTP and the network is trusted: --plain-http\n" in refused.err
    project.runnable("publish", "r", "--to", repository, code=1)
    project.runnable("publish", "r", "--to", repository, "--plain-http")
    project.runnable("run", "--run-id", "s", "--to", repository, "--plain-http")
    project.runnable("runs", "--from", repository, code=1)
    assert len(project.runnable("runs", "--from", repository, "--plain-http").out.splitlines()) == 3
    other = elsewhere(project, tmp_path)
    other.runnable("pull", f"{repository}:r", code=1)
    other.runnable("pull", f"{repository}:r", "--plain-http", "--only", "log")
    other.runnable("retry", f"{repository}:r", "--from", "one", "--publish", "--plain-http")
    listed = project.runnable("runs", "--from", repository, "--json", RUNNABLE_CI_PLAIN_HTTP="1").out
    assert [(run["run_id"], run["attempts"], run["ref"]) for run in json.loads(listed)] == [
        ("s", 1, "main"),
        ("r", 2, "main"),
    ]


def test_a_cancelled_run_is_published(tmp_path: Path, served: Served) -> None:
    """After SIGTERM the run ends, is published as what it is, and the exit code is the signal's."""
    project = workspace(
        tmp_path, {"runnable.toml": '[steps.slow]\nrun = "touch begun; sleep 60"\n', ".gitignore": "begun\n"}
    )
    repository = served.repository()
    with project.start("run", "--run-id", "r", "--to", repository) as process:
        wait_until((project.folder / "begun").exists, "the step")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 143, err
    other = elsewhere(project, tmp_path)
    other.runnable("pull", f"{repository}:r")
    assert (other.log().status, other.log().message) == (FAIL, "cancelled by SIGTERM")


def test_a_cancelled_job_gives_up_a_silent_registry_in_time(tmp_path: Path) -> None:
    """Before the runner kills it, the run's end and the way to publish it are said."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.slow]\nrun = "touch begun; sleep 60"\n'})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        repository = f"127.0.0.1:{silent.getsockname()[1]}/o/r"
        with project.start("run", "--to", repository, GITHUB_ACTIONS="true") as process:
            wait_until((project.folder / "begun").exists, "the step")
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=40)
    assert process.returncode == 130, said
    assert f"error: {repository} did not take the run within".encode() in said
    assert re.search(rb"is in the local store; to try again: runnable-ci publish \S+ --to " + repository.encode(), said)


def test_a_killed_run_is_published_as_the_failure_that_it_is(tmp_path: Path, served: Served) -> None:
    """`publish` of a run that was killed seals it first; while it still runs, it is refused."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.slow]\nrun = "echo said; touch begun; sleep 60"\n'})
    repository = served.repository()
    with project.start("run", "--run-id", "r") as process:
        wait_until((project.folder / "begun").exists, "the step")
        busy = project.runnable("publish", "r", "--to", repository, code=1)
        assert busy.err.startswith("error: run `r` is in use by another process")
        process.kill()
    project.runnable("publish", "r", "--to", repository)
    other = elsewhere(project, tmp_path)
    other.runnable("pull", f"{repository}:r")
    assert other.log().steps["slow"].message.startswith("interrupted: ")
    assert other.runnable("logs", "r", "slow").out == "said\n"


def test_an_id_without_room_for_a_writer_is_refused_before_any_work(tmp_path: Path, served: Served) -> None:
    """A run id may be as long as a tag, and a published one needs more: a run and a retry that publish say so first."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.one]\nrun = "touch ran; false"\n'})
    long = "x" * 125
    refused = project.runnable("run", "--run-id", long, "--to", served.repository(), code=2)
    assert "is too long to be published: it has 125 characters" in refused.err
    assert not (project.folder / "ran").exists()
    project.runnable("run", "--run-id", long, code=1)
    (project.folder / "ran").unlink()
    assert "too long" in project.runnable("retry", long, "--to", served.repository(), code=2).err
    assert not (project.folder / "ran").exists()


def test_a_publish_that_fails_keeps_the_run(tmp_path: Path, served: Served) -> None:
    """Where the registry cannot be reached a run that succeeded exits 1, a failed one as it failed; both stay here."""
    toml = SHELL + '[steps.two]\nrun = "exit $code"\n[parameters]\ncode = 0\n'
    project = workspace(tmp_path, {"runnable.toml": toml, ".gitignore": "*.txt\n"})
    nowhere = served.repository().replace("/owner/", "/-owner/")
    refused = project.runnable("run", "--run-id", "x", "--to", nowhere, code=2)
    assert "is not a repository name" in refused.err
    assert not project.store.exists()
    with password_registry(tmp_path / "locked") as locked:
        repository = locked.repository()
        for code in ("0", "3"):
            run_id = f"r{code}"
            done = project.runnable("run", "--run-id", run_id, "-p", f"code={code}", "--to", repository, code=1)
            assert (
                f"run {run_id} is in the local store; to try again: runnable-ci publish {run_id} --to {repository}\n"
                in done.err
            )
            assert project.log(run_id).status == (SUCCESS if code == "0" else FAIL)


def test_without_a_registry_nothing_runs(tmp_path: Path) -> None:
    """`--publish` without any known registry is an error before the first step, as is a wrong one in the file."""
    project = workspace(tmp_path, {"runnable.toml": SHELL})
    done = project.runnable("run", "--publish", code=2)
    assert done.err.startswith("error: no registry is set\nhint: specify one (ghcr.io/owner/repo/runs)")
    project.write({"runnable.toml": 'registry = "https://ghcr.io"\n' + SHELL})
    done = project.runnable("run", "--publish", code=2)
    assert 'runnable.toml:1: registry: "https://ghcr.io" is not a repository' in done.err
    assert not (project.folder / "one.txt").exists()
    project.runnable("pull", "nothing", code=2)


@pytest.mark.parametrize("spelled", ["oci://{}", "https://{}/", "{}"])
def test_the_registry_of_the_file_may_be_written_as_other_tools_do(
    tmp_path: Path, served: Served, spelled: str
) -> None:
    """The run is published where that leads, under the name that it has there."""
    repository = served.repository()
    text = spelled.format(repository.replace("/owner/", "/Owner/"))
    project = workspace(tmp_path, {"runnable.toml": f'registry = "{text}"\n[steps.one]\nrun = "true"\n'})
    done = project.runnable("run", "--run-id", "x", "--publish")
    assert f"published {repository}:x@sha256:" in done.err


def test_the_password_is_used_and_never_shown(tmp_path: Path) -> None:
    """The settings' password opens the registry; no step sees it, and neither output, log nor store has it."""
    project = workspace(tmp_path, {"runnable.toml": '[steps.one]\nrun = "env"\n'})
    with password_registry(tmp_path / "locked") as locked:
        variables = {
            "RUNNABLE_CI_REGISTRY": locked.repository(),
            "RUNNABLE_CI_REGISTRY_USERNAME": USERNAME,
            "RUNNABLE_CI_REGISTRY_PASSWORD": PASSWORD,
        }
        known = Workspace(project.folder, project.environ | variables)
        denied = Workspace(project.folder, known.environ | {"RUNNABLE_CI_REGISTRY_PASSWORD": f"{PASSWORD}x"})
        done = known.runnable("run", "--run-id", "r", "--publish")
        assert "published " in done.err
        assert "RUNNABLE_RUN_ID=r" in done.out
        wrong = denied.runnable("runs", "--from", locked.repository(), code=1)
    assert all(PASSWORD not in text for text in (done.out, done.err, wrong.out, wrong.err))
    written = [path for path in project.store.rglob("*") if path.is_file()]
    assert written
    assert all(PASSWORD.encode() not in path.read_bytes() for path in written)


LARGE = """
[steps.make]
run = "head -c 20000000 /dev/urandom > large.bin; for i in $(seq 40); do echo $i > $i.txt; done"
catalog = { put = ["large.bin", "*.txt"] }
[steps.check]
run = "exit 1"
"""


@pytest.mark.parametrize("refused", ["0-", "1-", "0", "1", "7"])
def test_transfers_do_with_the_threads_that_there_are(tmp_path: Path, served: Served, refused: str) -> None:
    """A limit on threads fails nothing that can do without: storing, publishing, listing, pulling, restoring."""
    project = workspace(tmp_path, {"runnable.toml": LARGE, ".gitignore": "*.bin\n*.txt\n"})
    repository = served.repository()
    project.with_threads(refused, "run", "--run-id", "t", "--to", repository, code=1)
    other = elsewhere(project, tmp_path)
    assert "t " in other.with_threads(refused, "runs", "--from", repository).out
    other.with_threads(refused, "pull", f"{repository}:t")
    other.write({"runnable.toml": LARGE.replace("exit 1", "cat large.bin *.txt | wc -c")})
    other.with_threads(refused, "retry", "t")
    for name in ("large.bin", "7.txt"):
        assert (other.folder / name).read_bytes() == (project.folder / name).read_bytes()
