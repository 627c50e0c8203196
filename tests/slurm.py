"""A real Slurm on this machine: a controller and two nodes, with a munge of their own, as whoever runs the tests."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from registry_server import program
from support import wait_until

NODES = ("n1", "n2")
CPUS = 4
"""Of each node, whatever the machine has."""
GPUS = 2
"""Of the second node; files that stand for devices."""
_START_S = 60.0
_SETTINGS = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=2
CompleteWait=0
SlurmdTimeout=20
SlurmctldTimeout=20
MinJobAge=300
MaxArraySize=1001
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs={cpus} RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs={cpus} RealMemory=4000 Gres=gpu:{gpus}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n2 MaxTime=INFINITE State=UP
"""


class Slurm:
    """A running controller and its nodes; what is called with `environ` uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.environ = {"SLURM_CONF": str(self.conf)}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __call__(self, *words: str, check: bool = True, timeout_s: float = 120.0) -> str:
        """Return what a command of Slurm prints."""
        done = self.run(*words, timeout_s=timeout_s)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stderr}\n{self.said()}"
        return done.stdout.strip()

    def run(self, *words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Return what became of a command that finds this Slurm."""
        return subprocess.run(
            words,
            env={**os.environ, **self.environ},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def said(self) -> str:
        """Return the end of what the daemons printed, for a test that failed."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log")))

    # Nodes.

    def node_states(self) -> dict[str, str]:
        """Return the state of each node, such as `idle`, `mixed`, `down*`."""
        return dict(line.split() for line in self("sinfo", "-h", "-N", "-p", "all", "-o", "%N %T").splitlines())

    def wait_for_node(self, node: str, *states: str) -> str:
        """Wait until a node has one of these states; return it."""
        return str(wait_until(lambda: next((it for it in [self.node_states()[node]] if it in states), ""),
                              f"{node}: {states}", timeout_s=_START_S, poll_s=0.1))  # fmt: skip

    def kill_slurmd(self, node: str) -> None:
        """Kill the daemon of a node; what it started goes on."""
        self._kill(f"slurmd-{node}")

    def lose_node(self, node: str) -> None:
        """Let a node be gone at once, as by a power cut: its daemon, and all that runs on it."""
        self.kill_slurmd(node)
        on_it = {"SLURMD_NODENAME": node}
        wait_until(lambda: not self._killed(on_it), f"the end of {node}", timeout_s=_START_S, poll_s=0.02)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self._daemon(f"slurmd-{node}", program("slurmd", "slurmd"), "-D", "-N", node, "-f", str(self.conf))

    def set_down(self, node: str, reason: str = "test") -> None:
        """Say of a node that it is gone: the controller ends its jobs at once."""
        self("scontrol", "update", f"NodeName={node}", "State=DOWN", f"Reason={reason}")

    def restore(self) -> None:
        """Let all be as it was at the start: no job, both nodes idle, the controller at work."""
        self.resume_controller()
        for daemon in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
            if self._daemons[daemon].poll() is not None:
                self.start_controller() if daemon == "slurmctld" else self.start_node(daemon.removeprefix("slurmd-"))
        wait_until(lambda: self.run("scontrol", "ping").returncode == 0, "slurmctld", timeout_s=_START_S, poll_s=0.1)
        if self.jobs():
            self("scancel", f"--user={getpass.getuser()}", check=False)
        deadline = time.monotonic() + _START_S
        while True:
            states = self.node_states()
            if all(state == "idle" for state in states.values()) and not self.jobs():
                return
            for node, state in states.items():
                if state.startswith(("down", "drain")):
                    self.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
            assert time.monotonic() < deadline, f"{states} {self.jobs()}\n{self.said()}"
            time.sleep(0.1)

    # The controller.

    def stop_controller(self) -> None:
        """Let the controller answer nothing until it is resumed."""
        self._daemons["slurmctld"].send_signal(signal.SIGSTOP)

    def resume_controller(self) -> None:
        """Let it go on."""
        self._daemons["slurmctld"].send_signal(signal.SIGCONT)

    def end_controller(self) -> None:
        """End the controller, which writes down what it knows; what runs goes on."""
        self._daemons["slurmctld"].terminate()
        self._daemons.pop("slurmctld").wait(timeout=_START_S)

    def start_controller(self) -> None:
        """Start the controller, with what it knew."""
        self._daemon("slurmctld", program("slurmctld", "slurmctld"), "-D", "-f", str(self.conf))

    # Jobs.

    def jobs(self) -> dict[str, str]:
        """Return the state of each job that is not over, such as `RUNNING`; elements of arrays one by one."""
        lines = self("squeue", "-h", "-r", "-o", "%i %T").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def known_jobs(self) -> list[str]:
        """Return the ids of all jobs that the controller knows, those that are over too; of arrays each element."""
        words = self("scontrol", "-o", "show", "jobs", check=False).split()
        return [word.partition("=")[2] for word in words if word.startswith("JobId=")]

    def job(self, job: str) -> dict[str, str]:
        """Return all that the controller knows of a job, also of one that is over, by its names for it."""
        words = self("scontrol", "-o", "show", "job", job).split()
        return {name: value for name, sign, value in (word.partition("=") for word in words) if sign}

    def wait_for_job(self, job: str, *states: str, timeout_s: float = _START_S) -> str:
        """Wait until a job has one of these states; return it."""
        return str(wait_until(lambda: next((it for it in [self.job(job)["JobState"]] if it in states), ""),
                              f"{job}: {states}", timeout_s=timeout_s, poll_s=0.1))  # fmt: skip

    def cancel(self, *jobs: str) -> None:
        """Cancel jobs, as a person would."""
        self("scancel", *jobs)

    def expire(self, job: str) -> None:
        """Let the time of a job be over; the controller looks every 30 s, and a limit is a minute at least."""
        self("scontrol", "update", f"JobId={job}", "EndTime=now")

    def processes(self, having: Mapping[str, str] | None = None) -> list[int]:
        """Return the processes that have the environment of this Slurm, and these variables."""
        wanted = {f"{name}={value}".encode() for name, value in {**self.environ, **(having or {})}.items()}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted <= set((folder / "environ").read_bytes().split(b"\0")):
                    found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]

    # Daemons.

    def _daemon(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                words,
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _kill(self, name: str) -> None:
        self._daemons[name].kill()
        self._daemons[name].wait(timeout=_START_S)

    def _end(self) -> None:
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait(timeout=_START_S)
        wait_until(lambda: not self._killed(), "the end of what Slurm started", timeout_s=_START_S, poll_s=0.02)

    def _killed(self, having: Mapping[str, str] | None = None) -> list[int]:
        """Kill all processes that have these variables; return those that there were."""
        found = self.processes(having)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found


def _configure(folder: Path) -> None:
    with ExitStack() as held:  # all at once: no two are the same
        sockets = [held.enter_context(closing(socket.socket())) for _ in range(1 + len(NODES))]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    values: dict[str, Any] = {"folder": folder, "host": socket.gethostname().partition(".")[0], "cpus": CPUS}
    values |= {"user": getpass.getuser(), "gpus": GPUS, **dict(zip(("controller", *NODES), ports, strict=True))}
    (folder / "slurm.conf").write_text(_SETTINGS.format(**values))
    devices = [folder / f"gpu{number}" for number in range(GPUS)]
    for device in devices:
        device.touch()
    (folder / "gres.conf").write_text("".join(f"NodeName=n2 Name=gpu File={device}\n" for device in devices))
    for name in ("state", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))


@contextmanager
def slurm_server() -> Iterator[Slurm]:
    """Yield a Slurm of this test's own; nothing of it is left afterwards."""
    munged = program("munged", "munge")
    program("srun", "slurm-client")
    # A short path: a socket's has an end.
    with TemporaryDirectory(prefix="s", dir="/tmp") as place:
        folder = Path(place)
        folder.chmod(0o755)  # munge refuses what others may write to
        _configure(folder)
        slurm = Slurm(folder)
        try:
            options = [f"--{name}={folder}/munge.{end}" for name, end in _MUNGE_FILES.items()]
            slurm._daemon("munged", munged, "--foreground", "--force", *options)
            wait_until((folder / "munge.socket").exists, "munged", timeout_s=_START_S)
            slurm.start_controller()
            for node in NODES:
                slurm.start_node(node)
            wait_until(
                lambda: slurm.run("scontrol", "ping").returncode == 0 and set(slurm.node_states().values()) == {"idle"},
                f"two nodes\n{slurm.said()}",
                timeout_s=_START_S,
                poll_s=0.05,
            )
            yield slurm
        finally:
            slurm._end()


_MUNGE_FILES = {"socket": "socket", "key-file": "key", "log-file": "log", "pid-file": "pid", "seed-file": "seed"}
