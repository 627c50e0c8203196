"""The containers of an invocation: the engine is looked for once, an image is resolved once, then steps run in it."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runnable_ci.errors import StepError
from runnable_ci.pipeline.container import OPEN, Container
from runnable_ci.pipeline.step import Step
from runnable_ci.runs.code_model import CodeIdentity
from runnable_ci.runs.orphans import end_container
from runnable_ci.steps.base import ProcessSpec, StepContext
from runnable_ci.steps.containers import host_paths
from runnable_ci.steps.containers.apptainer import exec_command, exec_environment
from runnable_ci.steps.containers.canary import VARIABLE as CANARY
from runnable_ci.steps.containers.canary import ContainerCanary
from runnable_ci.steps.containers.command_line import ContainerCall, Mount, is_of_client, run_command, split_volume
from runnable_ci.steps.containers.engines import ContainerEngine, find_engine
from runnable_ci.steps.containers.image_names import ContainerImage
from runnable_ci.steps.containers.images import Say, require_credentials, resolve_image
from runnable_ci.steps.containers.users import passwd_files
from runnable_ci.steps.probe import SCRIPT, TIMEOUT_S, Answer, answer_of
from runnable_ci.util.files import temporary_folder
from runnable_ci.util.process import check_output
from runnable_ci.util.threads import start

PACKAGE: Final = Path(__file__).parents[2]
"""This program, which python steps need: nothing is installed in their image."""
_PASSED: Final = ("GITHUB_", "RUNNER_", "RUNNABLE_")
_OF_THE_MACHINE: Final = frozenset({"RUNNER_TEMP", "RUNNER_TOOL_CACHE", "RUNNER_WORKSPACE"})
"""Folders that the container does not have."""
_OPEN: Final = f'(: <"${CANARY}") 2>/dev/null'
_FIND_PYTHON: Final = f'{_OPEN}; command -v python >/dev/null && exec python "$@"; exec python3 "$@"'


@dataclass(slots=True, eq=False, repr=False)
class StepContainers:
    """Runs steps of an invocation in containers. Safe in threads."""

    workspace: Path
    shared: tuple[Path, ...]
    """Folders that are mounted where they are: the workspace, or the repository that it is in, and the store."""
    temporaries: Path
    environ: Mapping[str, str]
    """The full environment, for the engine's own program."""
    secrets: Collection[str]
    """The variables that the pipeline declares secret: a container gets them as other steps do."""
    python: str | None
    """What the pipeline names for python steps."""
    say: Say
    chosen: str | None = None
    """The engine that was chosen."""
    resolved: dict[str, ContainerImage] = field(default_factory=dict)
    """Image, as the pipeline file names it → what earlier attempts of the run ran in."""
    is_looking_again: bool = False
    """Whether the registry is asked what a tag is now, though the image of that name is here."""
    user: tuple[int, int] = field(default_factory=lambda: (os.geteuid(), os.getegid()))
    """The numbers of the caller and its group."""
    _images: dict[str, ContainerImage] = field(default_factory=dict)
    _engine: ContainerEngine | None = None
    _mounts: Sequence[Mount] | None = None
    _looking: dict[str, tuple[threading.Thread | None, list[Answer]]] = field(default_factory=dict)
    """Container → who asks its interpreter, and what that says."""
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def engine(self) -> ContainerEngine:
        """What runs the containers. Raises `StepError` where there is nothing."""
        with self._lock:
            if self._engine is None:
                self._engine = find_engine(self.environ, self.chosen)
                around = host_paths.own_container(self._engine, self.environ)
                self._mounts = None if around is None else host_paths.mounts_of(around)
            return self._engine

    @property
    def images(self) -> Mapping[str, ContainerImage]:
        """Image, as the pipeline file names it → what it is in this run, as far as that is known."""
        return {**self.resolved, **self._images}

    def image(self, container: Container) -> ContainerImage:
        """Return the image of a container, the same one for all steps that name it. Raises `StepError`."""
        with self._lock:
            if container.image not in self._images:
                require_credentials(container, self.environ)
                self._images[container.image] = resolve_image(
                    self.engine,
                    container,
                    self.resolved.get(container.image),
                    workspace=self.workspace,
                    environ=self.environ,
                    temporaries=self.temporaries,
                    say=self.say,
                    is_looking_again=self.is_looking_again,
                )
            return self._images[container.image]

    def identities(self, step: Step) -> list[CodeIdentity]:
        """Return the image of a step as its attempt records it; nothing for one that fails for want of it."""
        if step.container is None or OPEN in step.container.image:
            return []
        try:
            return [self.image(step.container).identity()]
        except StepError:
            return []

    def context(self, step: Step, context: StepContext) -> StepContext:
        """Return what a step in a container runs in: the variables that are passed, and the image's interpreter."""
        assert step.container is not None  # noqa: S101 - for the type checker
        home = context.scratch / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        own = {"HOME": home, "XDG_CACHE_HOME": home / ".cache", "MPLCONFIGDIR": home / ".config" / "matplotlib"}
        environ = {
            **self.passed(context.environ),
            **{name: str(path) for name, path in own.items()},
            **step.container.env,
        }
        return context._replace(environ=environ, interpreter=self._interpreter())

    def passed(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the variables of the machine that a container gets."""
        return {name: value for name, value in environ.items() if self._is_passed(name)}

    def wrap(self, step: Step, spec: ProcessSpec, context: StepContext) -> ProcessSpec:
        """Return the process that runs a step's process in its container. Raises `StepError`."""
        container = step.container
        assert container is not None  # noqa: S101 - for the type checker
        canary_file = context.scratch / "canary"
        spec = spec._replace(argv=_opening(spec.argv), env={**spec.env, CANARY: str(canary_file)})
        if step.kind != "run":
            self._look_into(container, spec.env)
        made = self._process(container, spec, context.scratch)
        return made._replace(not_seen=ContainerCanary(canary_file).not_seen) if made.container else made

    def environment(self, container: Container) -> Answer:
        """Return what the interpreter in a container says of itself, once something ran in it; waits for that."""
        with self._lock:
            looking = self._looking.get(repr(container))
        if looking is None:
            return Answer()
        thread, answers = looking
        if thread is not None:
            thread.join(TIMEOUT_S)
        return answers[0] if answers else Answer()

    def _look_into(self, container: Container, variables: Mapping[str, str]) -> None:
        """Ask the interpreter in a container what it is, beside the first step that runs in it."""
        key, answers = repr(container), list[Answer]()
        argv = _opening((self._interpreter(), "-c", SCRIPT))

        def ask() -> None:
            with temporary_folder(self.temporaries) as scratch, suppress(StepError, OSError):
                env = {**variables, "HOME": str(scratch), CANARY: "/dev/null"}
                process = self._process(container, ProcessSpec(argv, self.workspace, env), scratch)
                output = check_output(process.argv, cwd=self.workspace, env=process.env, timeout_s=TIMEOUT_S)
                answers.append(answer_of(output))
                if output is None:
                    end_container(process.container, None, environ=process.env)

        with self._lock:
            if key in self._looking:
                return
            self._looking[key] = None, answers
            if thread := start(ask, name="image"):
                self._looking[key] = thread, answers
                return
        ask()

    def _process(self, container: Container, spec: ProcessSpec, scratch: Path) -> ProcessSpec:
        image, file = self.image(container), scratch / "container.env"
        call = ContainerCall(
            container=container,
            image=image.reference,
            name=f"runnable-{secrets.token_hex(8)}",
            argv=spec.argv,
            folder=str(spec.cwd),
            variables=spec.env,
            mounts=tuple(self._all_mounts(scratch, image)),
            volumes=tuple(self._volume(volume) for volume in container.volumes),
            user=self.user,
            file=str(file),
        )
        if self.engine.kind == "apptainer":
            return spec._replace(argv=exec_command(self.engine, call), env={**self.environ, **exec_environment(call)})
        _write_variables(file, spec.env)
        own = {name: value for name, value in spec.env.items() if not is_of_client(name)}
        return spec._replace(
            argv=run_command(self.engine, call), env={**self.environ, **own}, container=(self.engine.kind, call.name)
        )

    def _interpreter(self) -> str:
        named = self.python or ""
        return named if named and ("/" not in named or named.startswith("/")) else ""

    def _is_passed(self, name: str) -> bool:
        if name in _OF_THE_MACHINE:
            return False
        return name == "CI" or name.startswith(_PASSED) or name in self.secrets

    def _all_mounts(self, scratch: Path, image: ContainerImage) -> Iterable[Mount]:
        for folder in dict.fromkeys(map(str, (*self.shared, scratch))):
            if not any(folder.startswith(f"{other}/") for other in map(str, self.shared)):
                yield Mount(self._on_host(folder), folder)
        yield Mount(self._on_host(str(PACKAGE)), str(PACKAGE), is_read_only=True)
        for name, content in passwd_files(self.engine, image.reference, self.environ, *self.user).items():
            made = scratch / name
            made.write_bytes(content)
            yield Mount(self._on_host(str(made)), f"/etc/{name}", is_read_only=True)

    def _volume(self, volume: str) -> str:
        found = split_volume(volume, str(self.workspace))
        source, colon, rest = found.partition(":")
        return f"{self._on_host(source)}{colon}{rest}" if source.startswith("/") else found

    def _on_host(self, path: str) -> str:
        return host_paths.on_host(path, self._mounts)


def _opening(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command that opens the canary first, if it can.

    One whose first word is empty gets the image's Python, by whichever name it has that.
    """
    match argv[0]:
        case "":
            return ("sh", "-c", _FIND_PYTHON, "sh", *argv[1:])
        case "sh" | "bash":
            return ("sh", "-c", f'{_OPEN}; exec "$@"', "sh", *argv)
    return argv  # there may be no shell in the image: this program opens the canary in Python itself


def _write_variables(file: Path, variables: Mapping[str, str]) -> None:
    """Write what the engine's own program would read too: it must not get it as its own."""
    own = {name: value for name, value in variables.items() if is_of_client(name)}
    if broken := [name for name, value in own.items() if "\n" in value]:
        raise StepError(f"the variable {broken[0]} has a line break, which cannot be passed into a container")
    file.touch(mode=0o600)
    file.write_text("".join(f"{name}={value}\n" for name, value in own.items()), encoding="utf-8")
