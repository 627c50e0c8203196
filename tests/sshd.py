"""A real sshd on loopback, and what logs in without a question: keys and known hosts of a test's own."""

from __future__ import annotations

import getpass
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from registry_server import program
from support import wait_until

HOST = "node"
"""What the server is called, for whoever has the configuration."""
_START_S = 60.0
_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/sshd.pid
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PrintMotd no
AcceptEnv FAR_*
MaxStartups 200
MaxSessions 200
{more}
"""
_CLIENT = """
Host {host}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
"""


@dataclass(frozen=True)
class Ssh:
    """A running server, and how it is reached."""

    folder: Path
    config: Path
    port: int
    pid: int

    @property
    def command(self) -> str:
        """Return the command that runs another one there, as a person would write it: `{}` is its place."""
        return f"ssh -F {shlex.quote(str(self.config))} {HOST} {{}}"

    def run(self, command: str, *, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command there, which a shell reads."""
        return subprocess.run(
            ["ssh", "-F", str(self.config), HOST, command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def sessions(self) -> list[int]:
        """Return the processes of the server that are connections, each the parent of what it runs."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, IndexError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(folder.name))
        return found

    def cut(self) -> None:
        """Let all connections be gone at once, as when a network is; what they started may go on."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _key(path: Path) -> None:
    subprocess.run([program("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@contextmanager
def ssh_server(folder: Path, *, environ: dict[str, str] | None = None) -> Iterator[Ssh]:
    """Yield a server whose files are in a new folder; what it runs has the variables of `environ` too."""
    sshd = program("sshd", "openssh-server")
    program("ssh", "openssh-client")
    folder.mkdir(mode=0o700)
    for name in ("host_key", "user_key"):
        _key(folder / name)
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    more = "SetEnv " + " ".join(f'{name}="{value}"' for name, value in environ.items()) if environ else ""
    (folder / "sshd_config").write_text(_SERVER.format(folder=folder, port=port, more=more))
    config = folder / "ssh_config"
    config.write_text(_CLIENT.format(folder=folder, host=HOST, port=port, user=getpass.getuser()))
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    if os.geteuid() == 0:  # where it leaves its privileges, on Debian
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with (folder / "sshd.log").open("ab") as log:
        server = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(folder / "sshd_config")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    ssh = Ssh(folder, config, port, server.pid)
    try:
        wait_until(lambda: _answers(port) or server.poll() is not None, "sshd", timeout_s=_START_S)
        assert server.poll() is None, (folder / "sshd.log").read_text()
        yield ssh
    finally:
        ssh.cut()
        server.kill()
        server.wait(timeout=_START_S)


def _answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
