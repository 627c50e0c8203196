"""The machine that steps run on, as the system tells it: the cause of many "it differs here".

Small files of `/proc` and `/sys` are read, and no program is started: `nvidia-smi` alone takes longer than most steps.
On macOS one is, for the processor's name, and what only Linux tells is left out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from runnable_ci.runs.machines.environment_model import Capacity, Machine
from runnable_ci.util.process import check_output

_READ_MAX_BYTES: Final = 64 * 1024
_CPU_BYTES: Final = 8 * 1024
"""The first processor's part of `/proc/cpuinfo`: the kernel writes each part as it is read, which takes its time."""
_LEVELS_MAX: Final = 12
"""Control groups above that of this process."""
_NUMERIC: Final = re.compile(
    r"sse4_[12]|avx\w*|fma4?|f16c|amx\w*|neon|asimd\w*|fphp|sve\w*|sme(?!p)\w*|bf16|i8mm|vfpv4|altivec|vsx|dfp|vxe?2?"
)
"""Instruction sets by which numeric libraries choose their code, as the kernel calls them."""
_NO_LIMIT: Final = 1 << 60
"""What the first version of control groups says where there is none, or more."""
_AMD: Final = "0x1002"


def describe_machine(workspace: Path, environ: Mapping[str, str], *, root: Path = Path("/")) -> Machine:
    """Describe the machine as it is now; `root` is where its file system begins."""
    cpu = _processor(root)
    gpus, driver = _graphics(root)
    cpu_limit, memory_limit = _limits(root)
    kind, size, free = _disk(workspace, root)
    return Machine(
        cpu=_cpu_name(cpu),
        cpu_id=" ".join(filter(None, (cpu.get(key, "") for key in _IDENTIFYING))),
        cpu_features=sorted({name for name in _features(cpu) if _NUMERIC.fullmatch(name)}),
        cores=_cores(),
        cpu_limit=cpu_limit,
        memory=_memory(),
        memory_limit=memory_limit,
        gpus=gpus,
        gpu_driver=driver,
        runner_image=" ".join(filter(None, (environ.get("ImageOS"), environ.get("ImageVersion")))),
        virtualisation=_virtualisation(cpu, root),
        file_system=kind,
        disk_size=size,
        disk_free=free,
    )


def capacity(environ: Mapping[str, str], *, root: Path = Path("/")) -> Capacity:
    """Return what this machine has for steps: within the limits of control groups, and with the GPUs that may be used.

    What others use of it is not known before they do.
    """
    cores, memory = _cores(), _memory()
    cpu_limit, memory_limit = _limits(root)
    cores = min(cores, int(cpu_limit)) if cpu_limit else cores
    return Capacity(max(1, cores), min(memory or memory_limit, memory_limit or memory), _visible_gpus(environ, root))


def _visible_gpus(environ: Mapping[str, str], root: Path) -> tuple[str, ...]:
    """Return the GPUs that a program of NVIDIA's would use here, by the names that it knows."""
    if (named := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        listed = [name.strip() for name in named.split(",")]
        invalid = next((i for i, name in enumerate(listed) if not name or name == "-1"), len(listed))
        return tuple(listed[:invalid])  # it sees none of those after one that is not valid
    devices = [file for file in (root / "dev").glob("nvidia[0-9]*") if file.name.removeprefix("nvidia").isdecimal()]
    return tuple(str(number) for number in range(len(devices)))


_IDENTIFYING: Final = (
    *("vendor_id", "cpu family", "model", "stepping"),
    *("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision"),
)
"""x86, ARM: which one it is where the name is that of a hypervisor's choice, or there is none."""


def _processor(root: Path) -> dict[str, str]:
    """Return what the kernel says of the first processor."""
    lines = _text(root / "proc/cpuinfo", _CPU_BYTES).partition("\n\n")[0].splitlines()
    found = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, colon, value in found if colon}


def _cpu_name(cpu: Mapping[str, str]) -> str:
    if sys.platform == "darwin":
        argv = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return (check_output(argv, cwd=Path("/"), env={}, timeout_s=5) or b"").decode(errors="replace").strip()
    named = ("model name", "Model", "cpu", "uarch", "isa")
    return next((cpu[key] for key in named if cpu.get(key)), "")


def _features(cpu: Mapping[str, str]) -> list[str]:
    return " ".join(cpu.get(key, "") for key in ("flags", "Features", "features")).split()


def _cores() -> int:
    """Return how many logical processors this program may use, as steps may."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 0


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _graphics(root: Path) -> tuple[list[str], str]:
    """Return the models of the GPUs and the version of their driver, as the kernel has them."""
    proc = root / "proc/driver/nvidia"
    version = re.search(r"\b\d{3,4}\.\d+(\.\d+)*\b", _text(proc / "version"))
    if version is not None:
        models = (re.search(r"^Model:\s*(.+)$", _text(file), re.M) for file in sorted(proc.glob("gpus/*/information")))
        return [model[1].strip() for model in models if model], f"nvidia {version[0]}"
    module = root / "sys/module/amdgpu"
    if not module.exists():
        return [], ""
    devices = sorted((root / "sys/class/drm").glob("card[0-9]*/device"))
    found = [
        _text(device / "product_name").strip() or f"AMD {_text(device / 'device').strip()}"
        for device in devices
        if _text(device / "vendor").strip() == _AMD
    ]
    return found, f"amdgpu {_text(module / 'version').strip()}".strip()


def _limits(root: Path) -> tuple[float, int]:
    """Return how many processors and how much memory its control groups leave this process; 0 for no limit."""
    cpus: list[float] = []
    memory: list[int] = []
    top = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        names = controllers.split(",")
        if not controllers:
            for group in _groups(top, path):
                quota, _, period = _text(group / "cpu.max").strip().partition(" ")
                cpus += [int(quota) / int(period)] if quota.isdecimal() and period.isdecimal() and int(period) else []
                memory += _numbers(group / "memory.max")
        if "cpu" in names:
            for group in _groups(top / "cpu", path):
                quotas, periods = _numbers(group / "cpu.cfs_quota_us"), _numbers(group / "cpu.cfs_period_us")
                cpus += [quota / period for quota, period in zip(quotas, periods, strict=False) if period]
        if "memory" in names:
            for group in _groups(top / "memory", path):
                memory += [limit for limit in _numbers(group / "memory.limit_in_bytes") if limit < _NO_LIMIT]
    return round(min(cpus, default=0.0), 2), min(memory, default=0)


def _groups(top: Path, path: str) -> Iterator[Path]:
    """Yield a control group and those above it, as far as they are there: a container may only see its own."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for length in range(min(len(parts), _LEVELS_MAX), -1, -1):
        yield top.joinpath(*parts[:length])


def _numbers(file: Path) -> list[int]:
    text = _text(file).strip()
    return [int(text)] if text.isdecimal() else []


def _virtualisation(cpu: Mapping[str, str], root: Path) -> str:
    """Return who virtualises the machine, as its firmware has it, and whether this is in a container."""
    named = [_text(root / "sys/class/dmi/id" / name).strip() for name in ("sys_vendor", "product_name")]
    is_virtual = "hypervisor" in _features(cpu) or (root / "sys/hypervisor/type").exists()
    kind = " ".join(filter(None, named)) or "unknown hypervisor" if is_virtual else ""
    docker = "docker" if (root / ".dockerenv").exists() else ""
    podman = "podman" if (root / "run/.containerenv").exists() else ""
    return ", ".join(filter(None, (kind, podman or docker)))


def _disk(workspace: Path, root: Path) -> tuple[str, int, int]:
    """Return the kind of the file system that the workspace is on, its size and what is free, in bytes."""
    try:
        found = os.statvfs(workspace)
    except OSError:
        return "", 0, 0
    return _file_system(workspace, root), found.f_frsize * found.f_blocks, found.f_frsize * found.f_bavail


def _file_system(workspace: Path, root: Path) -> str:
    path, best, kind = str(workspace), "", ""
    for line in _text(root / "proc/self/mounts").splitlines():
        _device, place, found, *_ = (*line.split(" "), "", "", "")
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place).rstrip("/")
        if (path == place or path.startswith(f"{place}/")) and len(place) >= len(best):
            best, kind = place, found
    return kind


def _text(file: Path, at_most: int = _READ_MAX_BYTES) -> str:
    """Return what is at the beginning of a file; nothing of one that is not there or says nothing."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        parts, left = [], at_most
        while left > 0 and (part := os.read(opened, min(left, 4096))):
            parts.append(part)
            left -= len(part)
            if at_most == _CPU_BYTES and b"\n\n" in part:
                break
        return b"".join(parts).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(opened)
