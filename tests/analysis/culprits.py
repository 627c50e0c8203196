"""Planted culprits: pipelines of which one step is not the same each time, each for one reason that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runnable_ci.analysis.reproduction.determinism.culprits import Culprit

GITIGNORE = ".runnable\n__pycache__\nout*\nparts\n"
BEFORE = '[steps.begin]\nrun = "echo 1 > out-begin.txt"\ncatalog = { put = ["out-begin.txt"] }\n'


@dataclass(frozen=True)
class Planted:
    """A pipeline, and what makes its step `it` vary."""

    files: Mapping[str, str]
    culprits: tuple[Culprit, ...]
    proved: bool = True
    needs: tuple[str, ...] = ()
    """Modules without which the step does not run."""
    variables: Mapping[str, str] = field(default_factory=dict)


def python(
    code: str, *culprits: Culprit, returns: str = '["it"]', put: str = "", needs: tuple[str, ...] = ()
) -> Planted:
    """A python step: `code` are the lines of its function, after a line of imports."""
    imports, _, body = code.partition("\n")
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    keys = f'catalog = {{ put = ["{put}"] }}\n' if put else f"returns = {returns}\n"
    return Planted(
        {
            "runnable.toml": f'{BEFORE}[steps.it]\npython = "m:f"\n{keys}',
            "m.py": f"{imports}\n\ndef f():\n{lines}",
            ".gitignore": GITIGNORE,
        },
        culprits,
        needs=needs,
    )


def shell(script: str, *culprits: Culprit, proved: bool = True, before: str = BEFORE, **files: str) -> Planted:
    """A shell step that writes `out.txt`."""
    step = f"[steps.it]\nrun = '''{script}'''\ncatalog = {{ put = [\"out.txt\"] }}\n"
    return Planted({"runnable.toml": before + step, ".gitignore": GITIGNORE, **files}, culprits, proved)


CULPRITS: dict[str, Planted] = {
    "python's random": python("import random\nreturn random.random()", "random", returns='{ it = "metric" }'),
    "numpy's old generator": python(
        "import numpy\nreturn [float(x) for x in numpy.random.rand(3)]", "random", needs=("numpy",)
    ),
    "numpy's new generator": python(
        "import numpy\nnumpy.save('out.npy', numpy.random.default_rng().normal(size=3))",
        "random",
        put="out.npy",
        needs=("numpy",),
    ),
    "a token": python("import secrets\nreturn secrets.token_hex(8)", "system-random"),
    "a uuid": python("import json, uuid\nreturn {'id': str(uuid.uuid4()), 'n': 1}", "system-random"),
    "a set's order": python(
        "import os\nopen('out.txt', 'w').write('\\n'.join({'a', 'b', 'c', 'd', 'e', 'f'}))", "hash-order", put="out.txt"
    ),
    "keys of JSON": python(
        "import json\nfound = {k: len(k) for k in {'a', 'bb', 'ccc', 'dddd', 'eeeee'}}\n"
        "open('out.json', 'w').write(json.dumps(found))",
        "hash-order",
        put="out.json",
    ),
    "a sum over a set": python(
        "import math\nnames = {f'n{i}' for i in range(200)}\n"
        "return 1.0 + sum(math.sin(int(name[1:])) * 10 ** (int(name[1:]) % 12) for name in names)",
        "hash-order",
    ),
    "a time stamp": python(
        "import datetime\nopen('out.txt', 'w').write(f'made {datetime.datetime.now().isoformat()}\\nscore 0.5\\n')",
        "time",
        put="out.txt",
    ),
    "times in a zip": python(
        "import time, zipfile\nopen('out-a.txt', 'w').write('a')\ntime.sleep(2)\n"
        "zipfile.ZipFile('out.zip', 'w').write('out-a.txt')",
        "time",
        put="out.zip",
    ),
    "the time in a gzip": python(
        "import gzip, time\ntime.sleep(1)\ngzip.open('out.gz', 'w').write(b'a' * 100)", "time", put="out.gz"
    ),
    "a text in a PNG": python(
        "from PIL import Image, PngImagePlugin\nimport datetime\ninfo = PngImagePlugin.PngInfo()\n"
        "info.add_text('Creation Time', str(datetime.datetime.now()))\n"
        "Image.new('RGB', (4, 4)).save('out.png', pnginfo=info)",
        "time",
        put="out.png",
        needs=("PIL",),
    ),
    "a date in a pickle": python(
        "import time\nreturn {'made': time.strftime('%Y-%m-%dT%H:%M:%S') + str(time.time()), 'rows': [1, 2]}",
        "time",
        returns='{ it = "object" }',
    ),
    "metadata of a parquet": python(
        "import pyarrow, pyarrow.parquet, datetime\n"
        "table = pyarrow.table({'a': [1, 2]}, metadata={'made': datetime.datetime.now().isoformat()})\n"
        "pyarrow.parquet.write_table(table, 'out.parquet', compression='none')",
        "time",
        put="out.parquet",
        needs=("pyarrow",),
    ),
    "a duration": python(
        "import time\nstart = time.perf_counter()\nsum(range(1000))\nreturn {'seconds': time.perf_counter() - start}",
        "time",
    ),
    "a seed that is the time": python("import random, time\nrandom.seed(time.time())\nreturn random.random()", "time"),
    "an address": python("import os\nreturn {'model': repr(object()), 'n': 1}", "address"),
    "threads that add": python(
        "import os, threading, time, math\nn = int(os.environ.get('OMP_NUM_THREADS') or 4)\ntotal = [1.0]\n"
        "def part(i):\n    time.sleep(int.from_bytes(os.urandom(1), 'big') / 5000)\n"
        "    for k in range(i, 300, n):\n        total[0] += math.sin(k) * 10 ** (k % 12)\n"
        "all = [threading.Thread(target=part, args=(i,)) for i in range(n)]\n"
        "[t.start() for t in all]\n[t.join() for t in all]\nreturn total[0]",
        "threads",
    ),
    "the order of a pool": python(
        "import concurrent.futures as c, os, time\ndef work(i):\n"
        "    time.sleep(int.from_bytes(os.urandom(1), 'big') / 3000)\n    return f'part {i}'\n"
        "with c.ThreadPoolExecutor(4) as pool:\n    done = c.as_completed([pool.submit(work, i) for i in range(6)])\n"
        "    open('out.txt', 'w').write('\\n'.join(f.result() for f in done))",
        "completion-order",
        put="out.txt",
    ),
    "a process id": python("import os\nopen('out.txt', 'w').write(f'pid {os.getpid()}')", "process-id", put="out.txt"),
    "a temporary name": python("import tempfile\nreturn 'kept in ' + tempfile.mkdtemp()", "path"),
    "the work folder": python("import os\nreturn os.getcwd() + '/x'", "path"),
    "the run's name": shell('echo "made by $RUNNABLE_RUN_ID" > out.txt', "run-id"),
    "a seed in a process of a script": shell("python -c 'import random; print(random.random())' > out.txt", "random"),
    "the shell's random": shell("echo $RANDOM > out.txt", "random"),
    "shuffled lines": shell("seq 20 | shuf > out.txt", "random"),
    "the shell's date": shell("{ echo score 1; date +%FT%T.%N; } > out.txt", "time"),
    "parallel processes of a shell": shell(
        "seq 6 | xargs -P 6 -I{} sh -c "
        "'sleep 0.0$(od -An -N1 -tu1 /dev/urandom | tr -d \" \"); echo part {}' > out.txt",
        "completion-order",
    ),
    "the shell's own number": shell("echo $$ > out.txt", "process-id", proved=False),
    "the kernel's uuid": shell("cat /proc/sys/kernel/random/uuid > out.txt", "system-random", proved=False),
    "two at once": python(
        "import time, uuid\nreturn {'at': time.time(), 'id': str(uuid.uuid4())}", "system-random", "time"
    ),
    "the order of a folder": shell(
        "python -c \"import os; print(*os.listdir('parts'))\" > out.txt",
        "listing-order",
        before="[steps.begin]\nrun = 'mkdir -p parts; for n in $(seq 9 | shuf); do echo $n > parts/$n; done'\n"
        'catalog = { put = ["parts/*"] }\n',
    ),
}
"""By what it is. The order of a folder varies on a file system that lists what is newest first, such as tmpfs."""
WRITTEN_OTHERWISE = frozenset({"keys of JSON", "a text in a PNG", "metadata of a parquet"})
"""The values are the same, which is within any tolerance: only how they are written varies."""
