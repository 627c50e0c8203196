"""Variables that one process hands to the program that it becomes, without having them in its environment.

What stands in a process's environment when it starts can be read by each process of its user, in `/proc/PID/environ`.
What it reads from a pipe is in its memory, which only its ancestors may look into where the system restricts tracing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from typing import Final

HANDED_OVER: Final = "RUNNABLE_HANDED_OVER"
"""The variable with the number of the pipe."""
_MAX_BYTES: Final = 32 * 1024
"""Less than each pipe holds."""


def hand_over(values: Mapping[str, str]) -> dict[str, str]:
    """Return the variable to start the program with, which must be by `exec`; what is too large stays a variable."""
    document = json.dumps(dict(values)).encode()
    if len(document) > _MAX_BYTES:
        return dict(values)
    reading, writing = os.pipe()
    os.write(writing, document)
    os.close(writing)
    os.set_inheritable(reading, True)
    return {HANDED_OVER: str(reading)}


def receive(environ: MutableMapping[str, str]) -> None:
    """Set what was handed over, once."""
    number = environ.pop(HANDED_OVER, "")
    try:
        with open(int(number), "rb") as pipe:
            environ.update(json.loads(pipe.read(_MAX_BYTES + 1)))
    except (OSError, ValueError):
        return
