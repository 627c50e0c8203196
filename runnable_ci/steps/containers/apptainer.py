"""The command that runs a step in a container by apptainer, or singularity. Pure.

Source: apptainer(1) exec, Apptainer User Guide 1.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from runnable_ci.steps.containers.command_line import ContainerCall
from runnable_ci.steps.containers.engines import ContainerEngine


def exec_command(engine: ContainerEngine, call: ContainerCall) -> tuple[str, ...]:
    """Return the command. It runs as a child, as its caller: what ends it is what ends any other process."""
    container = call.container
    mounts = (f"{one.source}:{one.target}{':ro' if one.is_read_only else ''}" for one in call.mounts)
    return (
        *(engine.program, "exec", "--containall", "--cleanenv"),
        *("--home", call.variables["HOME"]),
        *(word for mount in (*mounts, *call.volumes) for word in ("--bind", mount)),
        *("--pwd", call.folder),
        *(("--nv",) if container.gpus else ()),
        *(("--net", "--network", container.network) if container.network not in ("", "host") else ()),
        *container.options,
        call.image,
        *call.argv,
    )


def exec_environment(call: ContainerCall) -> Mapping[str, str]:
    """Return the variables by which apptainer sets those of the container; nothing evaluates their values."""
    names = ("APPTAINER", "SINGULARITY")
    given = {f"{name}ENV_{key}": value for name in names for key, value in call.variables.items() if key != "HOME"}
    return given | {f"{name}_NO_EVAL": "1" for name in names}
