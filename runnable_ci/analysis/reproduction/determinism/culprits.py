"""What may make a step vary from run to run."""

from __future__ import annotations

from typing import Final, Literal

Culprit = Literal[
    "random",
    "system-random",
    "hash-order",
    "listing-order",
    "time",
    "address",
    "threads",
    "completion-order",
    "process-id",
    "path",
    "run-id",
    "network",
    "host-name",
]
MOMENT: Final = 1_577_836_800
"""When a held clock begins: 2020-01-01T00:00:00Z, in seconds."""
OTHER_MOMENT: Final = 1_612_325_106
"""2021-02-03T04:05:06Z: what comes of another moment is due to the clock."""
CULPRITS: Final[dict[Culprit, str]] = {
    "random": "random numbers without a seed (`random`, numpy)",
    "system-random": "random bytes of the system (`os.urandom`, `secrets`, `uuid`)",
    "hash-order": "the order of sets and hashes (`PYTHONHASHSEED`)",
    "listing-order": "the order in which a folder is listed",
    "time": "the clock: a time stamp, or a duration",
    "address": "memory addresses, such as `<object at 0x…>`",
    "threads": "the number of threads, and the order in which they add numbers",
    "completion-order": "the order in which parallel work ends",
    "process-id": "the number of a process",
    "path": "the path of the work folder, or the name of a temporary file",
    "run-id": "the name of the run",
    "network": "what a server answered",
    "host-name": "the name of the machine",
}
