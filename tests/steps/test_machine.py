"""Tests of what is recorded of the machine that attempts ran on, and of the libraries that they computed with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cli import workspace
from support import python

from runnable_ci.cli.show.machine import libraries_line, machine_line
from runnable_ci.runs.machines.environment_model import Capacity, Environment, Machine, NumericLibrary
from runnable_ci.steps.interpreter import key_of
from runnable_ci.steps.machine import capacity, describe_machine

WORKER = Path(__file__).parents[2] / "runnable_ci" / "steps"
X86 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC 7763 64-Core Processor
stepping\t: 1
flags\t\t: fpu sse sse2 sse4_1 sse4_2 fma f16c avx avx2 smep smap hypervisor sha_ni

processor\t: 1
model name\t: another
flags\t\t: avx512f
"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes asimdhp sve sve2 i8mm bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd49
CPU revision\t: 0

processor\t: 1
"""
NVIDIA = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
GCC version:  gcc version 11.4.0
"""
LIMIT_OF_NONE = "9223372036854771712"


def machine_of(folder: Path, files: Mapping[str, str], **environ: str) -> Machine:
    """What is said of a machine with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return describe_machine(folder, environ, root=folder)


def test_a_virtual_machine_of_github_with_a_gpu(tmp_path: Path) -> None:
    """The first processor is what counts; of each GPU its model."""
    gpu = "proc/driver/nvidia/gpus/0000:0{}:00.0/information"
    machine = machine_of(
        tmp_path,
        {
            "proc/cpuinfo": X86,
            "proc/driver/nvidia/version": NVIDIA,
            gpu.format(1): "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 37\n",
            gpu.format(2): "Model: \t\t NVIDIA A100-SXM4-40GB\n",
            "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
            "sys/class/dmi/id/product_name": "Virtual Machine\n",
            "proc/self/mounts": f"/dev/root / ext4 rw 0 0\n/dev/sdb1 {tmp_path.parent} xfs rw 0 0\nnone /x tmpfs rw\n",
        },
        ImageOS="ubuntu24",
        ImageVersion="20261102.1",
    )
    assert (machine.cpu, machine.cpu_id) == ("AMD EPYC 7763 64-Core Processor", "AuthenticAMD 25 1 1")
    assert machine.cpu_features == ["avx", "avx2", "f16c", "fma", "sse4_1", "sse4_2"]
    assert (machine.gpus, machine.gpu_driver) == (["NVIDIA A100-SXM4-40GB"] * 2, "nvidia 535.104.05")
    assert machine.virtualisation == "Microsoft Corporation Virtual Machine"
    assert machine.runner_image == "ubuntu24 20261102.1"
    assert machine.file_system == "xfs"
    assert machine.disk_size > machine.disk_free > 0
    assert machine.memory > 0
    assert machine.cores == len(os.sched_getaffinity(0))


def test_an_arm_machine_with_an_amd_gpu(tmp_path: Path) -> None:
    """It has numbers in place of a name."""
    device = "sys/class/drm/card{}/device/{}"
    files = {"proc/cpuinfo": ARM, "sys/module/amdgpu/version": "6.8.5\n", ".dockerenv": ""}
    files |= {device.format(0, "vendor"): "0x1a03\n", device.format(1, "vendor"): "0x1002\n"}
    machine = machine_of(tmp_path, {**files, device.format(1, "device"): "0x740f\n"})
    assert (machine.cpu, machine.cpu_id) == ("", "0x41 8 0x0 0xd49 0")
    assert machine.cpu_features == ["asimd", "asimdhp", "bf16", "i8mm", "sve", "sve2"]
    assert (machine.gpus, machine.gpu_driver) == (["AMD 0x740f"], "amdgpu 6.8.5")
    assert machine.virtualisation == "docker"


@pytest.mark.parametrize(
    ("files", "cpus", "memory"),
    [
        ({}, 0, 0),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 0, 0),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/memory.max": "4096\n",
            },
            1.5,
            4096,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/k\n4:memory:/k\n0::/\nbroken\n",
                "sys/fs/cgroup/cpu/k/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/k/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/k/memory.limit_in_bytes": "8192\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": LIMIT_OF_NONE,
            },
            0.5,
            8192,
        ),
        ({"proc/self/cgroup": "0::/../../k\n", "sys/fs/cgroup/k/cpu.max": "200000 0\n"}, 0, 0),
    ],
)
def test_what_control_groups_leave(tmp_path: Path, files: Mapping[str, str], cpus: float, memory: int) -> None:
    """The narrowest of this process's own and those above it, in both versions of them."""
    machine = machine_of(tmp_path, files)
    assert (machine.cpu_limit, machine.memory_limit) == (cpus, memory)


def test_what_there_is_for_steps(tmp_path: Path) -> None:
    """Control groups and `CUDA_VISIBLE_DEVICES` limit it; without the latter, GPUs are counted."""
    limits = {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"}
    devices = {f"dev/{name}": "" for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm")}
    machine_of(tmp_path, {**limits, "sys/fs/cgroup/job/memory.max": "1073741824\n", **devices})
    assert capacity({}, root=tmp_path) == Capacity(1, 1024**3, ("0", "1"))
    named = ("", "1", "0,-1,1", "a, b")
    seen = [capacity({"CUDA_VISIBLE_DEVICES": one}, root=tmp_path).gpus for one in named]
    assert seen == [(), ("1",), ("0",), ("a", "b")]


def test_files_that_say_nothing_are_no_error(tmp_path: Path) -> None:
    """Where nothing is known nothing is said."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").symlink_to(tmp_path / "pipe")
    machine = machine_of(tmp_path, {"sys/fs/cgroup/cpu.max": "1\n", "proc/self/mounts": "\n\xff\n/dev\n"})
    assert (machine.cpu, machine.gpus, machine.virtualisation, machine.file_system) == ("", [], "", "")


COUNTED = """
import os, sys
from pathlib import Path
from runnable_ci.steps.machine import describe_machine
describe_machine(Path.cwd(), {})  # what is prepared once is no part of it
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event))
describe_machine(Path.cwd(), os.environ)
starting = ("subprocess", "os.posix_spawn", "os.fork", "os.exec", "os.system", "socket")
print(seen.count("open"), [event for event in seen if event.startswith(starting)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks sysctl there")
def test_it_costs_a_few_files(tmp_path: Path) -> None:
    """Some dozen small files and no program: 0.5 ms, which is counted here since the clock of a busy machine varies."""
    opened, _, programs = python(COUNTED, cwd=tmp_path).stdout.strip().partition(" ")
    assert programs == "[]"
    assert 5 < int(opened) <= 40


def test_a_fuller_disk_is_no_other_environment() -> None:
    """The attempts of a retry share the record with those before them; another processor is another one."""
    one = Environment(machine=Machine(cpu="a", disk_free=1))
    assert key_of(one) == key_of(Environment(machine=Machine(cpu="a", disk_free=2)))
    assert key_of(one) != key_of(Environment(machine=Machine(cpu="b", disk_free=1)))


def test_a_line_for_people() -> None:
    """Nothing where nothing is known; control characters of a pulled log do nothing."""
    assert machine_line(Machine()) == ""
    machine = Machine(
        cpu="AMD\x1b EPYC",
        cpu_features=["avx2", "f16c", "fma"],
        cores=4,
        cpu_limit=1.5,
        memory=16 << 30,
        memory_limit=2 << 30,
        gpus=["T4", "T4"],
        gpu_driver="nvidia 535",
        runner_image="ubuntu24 1",
    )
    line = machine_line(machine)
    assert "\x1b" not in line
    assert line.endswith(
        "EPYC (avx2 fma), 4 cores, limited to 1.5, 16.0 GiB, limited to 2.0 GiB, 2 x T4, nvidia 535, ubuntu24 1"
    )
    libraries = [NumericLibrary(name="libgomp.so.1", kind="openmp", threads=1), NumericLibrary(name="b", version="B 1")]
    assert libraries_line(libraries) == "libgomp.so.1, 1 thread; B 1"


ASKED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    __import__(name)
before = set(sys.modules)
from worker.numeric import numeric_libraries
found = numeric_libraries()
print(json.dumps([found, sorted(set(sys.modules) - before)]))
"""


def asked(interpreter: str, *modules: str, **environ: str) -> tuple[list[dict[str, object]], list[str]]:
    """What a process says that has loaded these modules, and what it loaded to say it."""
    argv = [interpreter, "-c", ASKED, str(WORKER), *modules]
    done = subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
    found, loaded = json.loads(done.stdout)
    return found, loaded


def test_the_libraries_that_numpy_brings_and_how_they_are_set() -> None:
    """What was loaded, and no more: they are asked, not loaded."""
    pytest.importorskip("numpy")
    found, loaded = asked(sys.executable, "numpy", OPENBLAS_NUM_THREADS="1")
    blas = [one for one in found if one["kind"] == "openblas"]
    assert [(one["threads"], str(one["version"])[:9]) for one in blas] == [(1, "OpenBLAS ")]
    assert {"worker", "worker.numeric"} <= set(loaded)
    assert not any(name.startswith("numpy") for name in loaded)


def test_a_step_without_numbers_loads_nothing_to_say_so() -> None:
    """No `ctypes`, which takes longer than the whole look."""
    assert asked(sys.executable) == ([], ["__future__", "worker", "worker.numeric"])


def test_an_attempt_has_machine_and_libraries(tmp_path: Path) -> None:
    """Recorded once for all, and shown; also for a step that fails."""
    pytest.importorskip("numpy")
    code = "def plain(): pass\ndef bad():\n    import numpy\n    raise ValueError(numpy.ones(2))\n"
    steps = '[steps.plain]\npython = "m:plain"\n[steps.bad]\npython = "m:bad"\n'
    project = workspace(tmp_path, {"runnable.toml": f'python = "{sys.executable}"\n{steps}', "m.py": code})
    project.runnable("run", "--run-id", "r", code=1, ImageOS="ubuntu24", ImageVersion="1", OPENBLAS_NUM_THREADS="1")
    log = project.log("r")
    [environment] = log.environments.values()
    assert environment.machine.memory > 0
    assert environment.machine.runner_image == "ubuntu24 1"
    assert [step.attempts[0].numeric_libraries == [] for step in log.steps.values()] == [True, False]
    assert "\nmachine      " in project.runnable("show", "r").out
    shown = project.runnable("show", "r", "bad").out
    assert "  machine   " in shown
    assert ", 1 thread" in shown.partition("  numeric   ")[2].partition("\n")[0]
    assert json.loads(project.runnable("show", "r", "--json").out)["environments"]
