"""Publish and pull against curl, skopeo and the oras package, in one run: `python benchmarks/transfer.py [--quick]`.

Prints markdown. Needs curl, openssl, skopeo and docker-registry on the PATH. Every figure is of a whole process,
start-up included; the tools take turns within each round, figures are medians, ratios medians of the rounds' own
ratios. We and skopeo write an OCI layout, curl and oras plain files; only we sync to disk. curl verifies by `openssl
dgst`, oras does not verify. Where skopeo and oras take minutes they are measured once. On a machine that does
other work too, `--first` (as root, on Linux) lets what is measured go before it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import measure

from runnable_ci.store.local import Layout
from runnable_ci.store.target import MANIFEST_MEDIA_TYPE, Descriptor

JOBS = 16
MIB = 1024 * 1024
ROUND_TRIP_S = 0.04
TAG = "bench"

OURS = """
import sys
from pathlib import Path
from runnable_ci.store import copy as transfer
from runnable_ci.store.local import Layout
from runnable_ci.store.registry import Registry
verb, folder, repository, jobs = sys.argv[1:]
layout, registry = Layout(Path(folder)), Registry(repository, environ={})
transfer.JOBS = int(jobs)
if verb == "push":
    transfer.copy(layout, "bench", registry)
else:
    layout.create()
    transfer.copy(registry, "bench", layout)
"""

ORAS = """
import os, sys
from pathlib import Path
from oras.client import OrasClient
verb, folder, repository = sys.argv[1:]
client = OrasClient(insecure=True)
os.chdir(folder)
if verb == "push":
    client.push(target=f"{repository}:oras", files=sorted(os.listdir()))
else:
    client.pull(target=f"{repository}:oras", outdir=folder)
"""


PIPELINE = """
[parameters]
changed = "none"
[steps.make]
run = "rm -rf out; cp -r ../seed out; echo $changed >> out/first"
catalog = { put = ["out/"] }
"""
PROGRAM = str(Path(sys.executable).with_name("runnable-ci"))
OURS_NAME, PRODUCT = "copy", "runnable-ci"


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    seconds: float
    peak_mb: int
    requests: int


@dataclass(frozen=True)
class Run:
    """A run of `count` files, as a layout and as plain files."""

    layout: Path
    files: Path
    blobs: tuple[Descriptor, ...]


class Bench:
    """A registry, a folder for everything, and what was measured."""

    def __init__(self, folder: Path, host: str, log: Path) -> None:
        self.folder = folder
        self.host = host
        self._log = log
        self._log_end = 0
        self.costs: dict[tuple[str, str], list[Cost]] = {}

    def measure(self, work: str, tool: str, command: list[str], *, cwd: Path | None = None) -> None:
        """Run the command and keep its cost."""
        self._requests()
        cost = measure.run(command, cwd=cwd or self.folder, output=self.folder / "output", env=self.environ)
        self.costs.setdefault((work, tool), []).append(Cost(cost.seconds, cost.peak_mb, self._requests()))
        print(f"{work}: {tool} {cost.seconds:.2f} s", file=sys.stderr)

    def ratio(self, work: str, tool: str, other: str) -> float:
        """How long a tool took, of another's time: the median over the rounds in which both did the work."""
        pairs = zip(self.costs[work, tool], self.costs[work, other], strict=False)
        return statistics.median(one.seconds / two.seconds for one, two in pairs)

    @property
    def environ(self) -> dict[str, str]:
        """Nothing of the user's."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LANG": "C.UTF-8"}

    def repository(self, host: str | None = None) -> str:
        """One that holds nothing yet."""
        return f"{host or self.host}/bench/r{uuid.uuid4().hex[:12]}"

    def fresh(self, name: str) -> Path:
        """An empty folder."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def _requests(self) -> int:
        """How many requests the registry has logged since the last call."""
        time.sleep(0.02)
        with self._log.open("rb") as log:
            log.seek(self._log_end)
            lines = log.readlines()
            self._log_end = log.tell()
        return sum(b' HTTP/1.1" ' in line for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; on a disk, not in memory")
    parser.add_argument("--first", action="store_true", help="go before all other processes (SCHED_RR)")
    options = parser.parse_args()
    if options.first:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    rounds = 1 if options.quick else options.rounds
    large, many, far = (4 * MIB, 10, 3) if options.quick else (1024 * MIB, 1000, 200)
    for program in ("curl", "openssl", "skopeo", "docker-registry"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install curl openssl skopeo docker-registry")
    with tempfile.TemporaryDirectory(prefix="transfer-", dir=options.folder) as name, serving(Path(name)) as bench:
        one, small = f"{large // MIB} MiB file", f"{many:,} x 10 KiB"
        both_ways(bench, one, count=1, size=large, rounds=rounds, host=bench.host)
        both_ways(bench, small, count=many, size=10 * 1024, rounds=rounds, host=bench.host)
        product(bench, one, count=1, size=large, rounds=rounds)
        product(bench, small, count=many, size=10 * 1024, rounds=rounds)
        with delaying(bench.host) as host:
            distant = f"{far} x 10 KiB at {ROUND_TRIP_S * 1000:.0f} ms"
            both_ways(bench, distant, count=far, size=10 * 1024, rounds=rounds, host=host)
        print(f"{targets(bench, one, small)}\n\n{table(bench)}")


def both_ways(bench: Bench, name: str, *, count: int, size: int, rounds: int, host: str) -> None:
    """Push to an empty repository and pull from it, each tool in turn with files that are new to the registry."""
    push, pull = f"push {name}", f"pull {name}"
    for number in range(rounds):
        with new_run(bench, count, size) as run:
            repository = bench.repository(host)
            bench.measure(push, OURS_NAME, ours("push", run.layout, repository))
            bench.measure(pull, OURS_NAME, ours("pull", bench.fresh("pulled") / "x", repository))
        with new_run(bench, count, size) as run:
            posts, puts, gets = curl_lists(bench, run, bench.repository(host))
            bench.measure(push, "curl", ["bash", "-c", f"{posts} && {puts}"])
            bench.fresh("pulled")
            check = "find pulled -type f -exec openssl dgst -sha256 {} +"
            bench.measure(pull, "curl", ["bash", "-c", f"{gets} && {check}"])
        if number and (count > 100 or host != bench.host):
            continue
        with new_run(bench, count, size) as run:
            there = f"docker://{bench.repository(host)}:{TAG}"
            skopeo = ["skopeo", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
            bench.measure(push, "skopeo", [*skopeo, f"oci:{run.layout}:{TAG}", there])
            bench.fresh("pulled")
            bench.measure(pull, "skopeo", [*skopeo, there, f"oci:pulled:{TAG}"])
        with new_run(bench, count, size) as run:
            repository = bench.repository(host)
            bench.measure(push, "oras", [sys.executable, "-c", ORAS, "push", str(run.files), repository])
            bench.measure(pull, "oras", [sys.executable, "-c", ORAS, "pull", str(bench.fresh("pulled")), repository])


def product(bench: Bench, name: str, *, count: int, size: int, rounds: int) -> None:
    """A run of ours whose step puts such files: published, pulled, published again, and after a retry that changed one.

    oras pushes and pulls the same files, and pushes them again each time.
    """
    works = [f"{word} a run of {name}" for word in ("publish", "pull", "publish again", "publish one file changed of")]
    publish, pull, unchanged, changed = works
    for _ in range(rounds):
        seed, project = bench.fresh("seed"), bench.fresh("project")
        with new_run(bench, count, size) as made:
            for number, path in enumerate(sorted(made.files.iterdir())):
                path.rename(seed / ("first" if not number else path.name))
        (project / "runnable.toml").write_text(PIPELINE)
        repository, theirs = bench.repository(), bench.repository()
        publishing = [PROGRAM, "publish", "r", "--to", repository]
        pushing = [sys.executable, "-c", ORAS, "push", str(project / "out"), theirs]
        subprocess.run([PROGRAM, "run", "-q", "--run-id", "r"], cwd=project, env=bench.environ, check=True)
        os.sync()
        bench.measure(publish, PRODUCT, publishing, cwd=project)
        bench.measure(publish, "oras", pushing)
        elsewhere = bench.fresh("elsewhere")
        bench.measure(pull, PRODUCT, [PROGRAM, "pull", f"{repository}:r"], cwd=elsewhere)
        bench.measure(pull, "oras", [sys.executable, "-c", ORAS, "pull", str(bench.fresh("pulled")), theirs])
        if count == 1:
            continue
        bench.measure(unchanged, PRODUCT, publishing, cwd=project)
        bench.measure(unchanged, "oras", pushing)
        retry = [PROGRAM, "retry", "r", "-q", "--param", "changed=one"]
        subprocess.run(retry, cwd=project, env=bench.environ, check=True)
        bench.measure(changed, PRODUCT, publishing, cwd=project)
        bench.measure(changed, "oras", pushing)


def ours(verb: str, layout: Path, repository: str) -> list[str]:
    return [sys.executable, "-c", OURS, verb, str(layout), repository, str(JOBS)]


def curl_lists(bench: Bench, run: Run, repository: str) -> tuple[str, str, str]:
    """Shell commands of curl that open an upload for each blob, send them, and get them."""
    host, _, path = repository.partition("/")
    base = f"http://{host}/v2/{path}/blobs"
    digests = [(run.layout / "blobs" / "sha256" / blob.hex, blob.digest) for blob in run.blobs]
    _write(bench.folder / "posts", [f'url = "{base}/uploads/"\noutput = "/dev/null"' for _ in digests])
    _write(bench.folder / "files", [f'upload-file = "{path}"\noutput = "/dev/null"' for path, _ in digests])
    _write(bench.folder / "digests", [digest for _, digest in digests])
    _write(
        bench.folder / "gets",
        [f'url = "{base}/{digest}"\noutput = "pulled/{digest[7:]}"' for _, digest in digests],
    )
    parallel = f"curl -sSf --parallel --parallel-immediate --parallel-max {JOBS}"
    post = f"{parallel} -X POST -H 'Content-Length: 0' -w '%header{{location}}\\n' -K posts"
    posts = f"{post} 2> progress | grep ^http > places"
    # Each place with its digest becomes the URL that goes with the file of the same number.
    puts = (
        "paste -d '&' places <(sed 's/^/digest=/' digests) | sed 's/.*/url = \"&\"/' > urls"
        f" && paste -d '\\n' urls <(grep upload files) <(grep output files) > puts && {parallel} -K puts 2> progress"
    )
    return posts, puts, f"{parallel} -K gets 2> progress"


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def new_run(bench: Bench, count: int, size: int) -> Iterator[Run]:
    """Files that no other run has, the same in a layout and in a folder; gone afterwards."""
    folder = bench.fresh("run")
    files, layout = folder / "files", Layout(folder / "layout")
    files.mkdir()
    layout.create()
    blobs, block = [], os.urandom(MIB)
    for number in range(count):
        path = files / f"file-{number:04}"
        with path.open("wb") as file:
            file.write(os.urandom(16))
            for start in range(16, size, MIB):
                file.write(block[: size - start])
        blobs.append(layout.put_file(path))
    tag_run(layout, blobs)
    yield Run(layout.folder, files, tuple(blobs))
    shutil.rmtree(folder)
    os.sync()


def tag_run(layout: Layout, blobs: list[Descriptor]) -> None:
    """Let the tag stand for an image manifest with these layers."""
    config = layout.put_bytes(b"{}", "application/vnd.oci.empty.v1+json")
    entries = [
        # skopeo copies only layers that have the media type of one
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": blob.digest, "size": blob.size}
        for blob in blobs
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_MEDIA_TYPE,
        "config": {"mediaType": config.media_type, "digest": config.digest, "size": config.size},
        "layers": entries,
    }
    raw = json.dumps(manifest).encode()
    layout.tag(layout.put_bytes(raw, MANIFEST_MEDIA_TYPE), TAG)


@contextmanager
def serving(folder: Path) -> Iterator[Bench]:
    """A plain docker-registry on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "cache": {"blobdescriptor": "inmemory"}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(folder / "config.yml")], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        wait_for(host)
        yield Bench(folder, host, folder / "log")
    finally:
        process.terminate()
        process.wait()


@contextmanager
def delaying(upstream: str) -> Iterator[str]:
    """A TCP proxy that adds a round trip to the connection and to everything after."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_delay, args=(port, upstream), daemon=True)
    process.start()
    try:
        wait_for(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def wait_for(host: str) -> None:
    """Return when something listens there."""
    address, _, port = host.partition(":")
    for _ in range(500):
        with suppress(OSError), socket.create_connection((address, int(port)), timeout=1):
            return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on {host}")


def _delay(port: int, upstream: str) -> None:
    asyncio.run(_delaying_proxy(port, upstream))


async def _delaying_proxy(port: int, upstream: str) -> None:
    address, _, upstream_port = upstream.partition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ROUND_TRIP_S)
        their_reader, their_writer = await asyncio.open_connection(address, int(upstream_port))
        await asyncio.gather(_carry(reader, their_writer), _carry(their_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=256)
    await server.serve_forever()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, each piece half a round trip after it came."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def send() -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    sender = asyncio.create_task(send())
    while True:
        piece = await reader.read(256 * 1024)
        pieces.put_nowait((time.monotonic() + ROUND_TRIP_S / 2, piece))
        if not piece:
            break
    await sender


def targets(bench: Bench, one: str, small: str) -> str:
    """What is to be reached, and whether it is."""
    push, pull = f"push {one}", f"pull {one}"
    push_many, pull_many = f"push {small}", f"pull {small}"
    ours = [costs for (_, tool), costs in bench.costs.items() if tool in (OURS_NAME, PRODUCT)]
    rows = [
        (f"{push}, of curl's", 1.15, bench.ratio(push, OURS_NAME, "curl")),
        (f"{pull}, verified, of curl's with openssl", 1.15, bench.ratio(pull, OURS_NAME, "curl")),
        (f"{push_many}, of curl's, parallel", 1.5, bench.ratio(push_many, OURS_NAME, "curl")),
        (f"{pull_many}, of curl's, parallel", 1.5, bench.ratio(pull_many, OURS_NAME, "curl")),
        (f"publish a run of {small}, of oras's", 0.1, bench.ratio(f"publish a run of {small}", PRODUCT, "oras")),
        (f"pull a run of {small}, of oras's", 0.1, bench.ratio(f"pull a run of {small}", PRODUCT, "oras")),
        ("requests of an unchanged publish", 3, bench.costs[f"publish again a run of {small}", PRODUCT][0].requests),
        ("peak memory, MB", 80, max(cost.peak_mb for costs in ours for cost in costs)),
    ]
    lines = ["| Target | At most | Measured | |", "|---|---:|---:|---|"]
    for name, most, value in rows:
        lines.append(f"| {name} | {most:g} | {value:.3g} | {'reached' if value <= most else 'missed'} |")
    return "\n".join(lines)


def table(bench: Bench) -> str:
    """Seconds, peak memory and requests in markdown: a work a row, a tool a column."""
    works, tools = (list(dict.fromkeys(key[i] for key in bench.costs)) for i in (0, 1))
    lines = [f"| Seconds (MB, requests) | {' | '.join(tools)} |", f"|---|{'---:|' * len(tools)}"]
    for work in works:
        cells = [_cell(bench.costs[work, tool]) if (work, tool) in bench.costs else "" for tool in tools]
        lines.append(f"| {work} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(costs: list[Cost]) -> str:
    seconds = statistics.median(cost.seconds for cost in costs)
    return f"{seconds:.2f} ({max(cost.peak_mb for cost in costs)}, {costs[0].requests})"


if __name__ == "__main__":
    main()
