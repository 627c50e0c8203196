"""In what attempts ran, as the run log has it."""

from typing import Annotated

from pydantic import Field

from runnable_ci.util.bounded_json import LARGE_TABLE, Record


class Environment(Record):
    """Where steps ran: recorded once for all attempts that share it."""

    tool_version: str = ""
    os: str = ""
    libc: str = ""
    """The system's C library and its version."""
    distribution: str = ""
    """The system's name and version, as its `os-release` has them."""
    architecture: str = ""
    cpu_count: int = 0
    interpreter: str = ""
    """Path of the interpreter that runs python steps; of commands, of the `python` that they find on their PATH."""
    interpreter_version: str = ""
    packages: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Installed in that interpreter: name → version."""
    lock_files: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Lock and requirement files of the workspace → sha256."""
    variables: Annotated[dict[str, str], LARGE_TABLE] = Field(default_factory=dict)
    """Environment variables, by an allow-list only."""
