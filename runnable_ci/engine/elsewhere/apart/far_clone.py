"""One attempt on a machine that shares no folder with that of its run: in a tree of the recorded code, made of a clone.

The clone gives git's objects, the project's environment, and a store in which what was fetched stays for the next
attempt. Its work tree is not touched, so several attempts may run beside each other, and beside a person.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from runnable_ci import steps
from runnable_ci.engine.code.linked_environment import link_environment
from runnable_ci.engine.code.recorded_tree import rebuild_recorded
from runnable_ci.engine.elsewhere.apart.letters import files_for
from runnable_ci.engine.elsewhere.far_attempt import Repeating, environments_of, run_far
from runnable_ci.engine.elsewhere.guard import Guard
from runnable_ci.engine.elsewhere.tickets import ContainerSetting, Letter, Setting, Ticket, unpacked
from runnable_ci.engine.options import Options, redactor_of
from runnable_ci.engine.planner import Scope
from runnable_ci.errors import CodeIdentityError, RegistryAuthError, RunnableError, StepError, StoreError, UsageError
from runnable_ci.pipeline.parameters import PARAMETER_PREFIX, KnownParameters, environment_parameters
from runnable_ci.pipeline.project import Project
from runnable_ci.pipeline.project import load as load_project
from runnable_ci.redaction.environment import secrets_of
from runnable_ci.redaction.redactor import Redactor, texts
from runnable_ci.runs.artifact import layers
from runnable_ci.runs.checkpoints.contents import KeptFiles
from runnable_ci.runs.elsewhere.fragment import Fragment, document_of, read_fragment
from runnable_ci.runs.elsewhere.parcels import find_parcel, post, sealed
from runnable_ci.runs.elsewhere.places import AttemptFolder
from runnable_ci.runs.event_redaction import cleaned
from runnable_ci.runs.events import AttemptSaved
from runnable_ci.runs.model import Parameter, RunLog, StepLog
from runnable_ci.runs.paths import OUTPUTS, READS_SUFFIX, run_folder, shared
from runnable_ci.runs.reader import catalog_of
from runnable_ci.runs.remote.registry_config import Registries
from runnable_ci.steps.interpreter import find_interpreter
from runnable_ci.store.local import Layout
from runnable_ci.store.opening import open_store
from runnable_ci.store.reference import parse_reference
from runnable_ci.store.registry import Registry
from runnable_ci.store.target import DIGEST, Descriptor
from runnable_ci.util.bounded_json import parse_own
from runnable_ci.util.console import console
from runnable_ci.util.files import temporary_folder
from runnable_ci.util.process import Supervisor
from runnable_ci.util.signals import cancelling
from runnable_ci.vcs.git_files import repository_root

_ORPHAN_LOOK_S: Final = 1.0
_ANSWER_S: Final = 900.0
"""How long the registry may be out of reach when a step has ended."""
_ANSWER_PAUSE_S: Final = 2.0
_ANSWER_PAUSE_MAX_S: Final = 60.0


class Address(NamedTuple):
    """Where a letter is, and what its worker proves by that it has read it."""

    registry: str
    digest: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read what a launcher was given. Raises `UsageError`."""
        reference, _, key = text.partition("#")
        registry, _, digest = reference.rpartition("@")
        if not registry or not DIGEST.fullmatch(digest) or not key:
            raise UsageError("no attempt has this address", hint="a run starts this command itself, by an executor")
        return cls(registry, digest, key)


class AttemptPlace(NamedTuple):
    """What one attempt has on this machine for as long as it runs."""

    project: Project
    """In a tree of the recorded code."""
    layout: Layout
    """A store of its own."""
    folder: AttemptFolder


def run_apart(address: Address, clone: Path, options: Options) -> int:
    """Run an attempt that another machine sent, and send back what it gave; the exit code of the worker.

    Raises `RunnableError` where nothing can be sent back.
    """
    with closing(Guard()) as guard:
        return _run_guarded(address, clone, options, guard)


def _run_guarded(address: Address, clone: Path, options: Options, guard: Guard) -> int:
    registries = Registries(options.settings, options.environ)
    # The pipeline file of the run may have named it, so the settings' password is for it only where they name it too.
    registry = registries.open(parse_reference(address.registry), is_named=False)
    parcel = find_parcel(registry, address.digest)
    if parcel is None:
        raise StoreError(f"{registry.label} has no attempt {address.digest}")
    letter = unpacked(parcel.document, Letter, f"an attempt in {registry.label}")
    supervisor = Supervisor()
    orphan = Orphan(supervisor)
    looking = Repeating(orphan.look, every_s=_ORPHAN_LOOK_S)
    with closing(supervisor), cancelling(supervisor.cancel), looking, _store_of(clone, options) as store:
        contents = [Descriptor.of_hash(*content) for content in letter.contents]
        parcel.bring(store, contents)
        with temporary_folder(store.temporaries) as scratch:
            own = Layout(scratch / "store")
            own.create()
            (run_folder(own, letter.run_id) / OUTPUTS).mkdir(parents=True)
            _link(contents, store, own)
            folder = AttemptFolder(scratch / "attempt")
            folder.path.mkdir()
            with guard.over(folder.processes):
                fragment = _run(letter, clone, options, own, folder, scratch, supervisor)
            return _answered(lambda: _answer(letter, fragment, registry, own, address.key), orphan)


def _answered(answer: Callable[[], None], orphan: Orphan) -> int:
    """Send an answer back, as often as it takes: it may be the work of hours. The exit code of the worker.

    Nothing is sent once the run has given the attempt up. Raises `StoreError` after a while.
    """
    until, pause_s = time.monotonic() + _ANSWER_S, _ANSWER_PAUSE_S
    while not orphan.is_one:
        try:
            answer()
        except RegistryAuthError:
            raise
        except StoreError as e:
            if time.monotonic() > until:
                raise
            console.err(f"note: cannot send it back yet: {e.message}")
            time.sleep(pause_s)
            pause_s = min(_ANSWER_PAUSE_MAX_S, 2 * pause_s)
        else:
            return 0
    return 1


@contextmanager
def _store_of(clone: Path, options: Options) -> Iterator[Layout]:
    """Yield the clone's store, from which nothing is removed meanwhile. Raises `UsageError` where there is no clone."""
    root = repository_root(clone, options.environ) if clone.is_dir() else None
    if root is None:
        raise UsageError(
            f"{clone} on {socket.gethostname()} is no clone of the project",
            hint="clone it there, and name that folder in the executor's `project`",
        )
    store = open_store(root, options.environ)
    store.create()
    store.sweep()
    with shared(store):
        yield store


def _link(contents: Iterable[Descriptor], store: Layout, own: Layout) -> None:
    """Have contents in an attempt's own store: the files in both do not change."""
    for blob in contents:
        source, there = store.path(blob), own.folder / "blobs" / "sha256" / blob.hex
        with suppress(FileExistsError):
            os.link(source, there)


def _run(
    letter: Letter,
    clone: Path,
    options: Options,
    own: Layout,
    folder: AttemptFolder,
    scratch: Path,
    supervisor: Supervisor,
) -> Fragment:
    """Return what an attempt gave; one that cannot begin has failed by why."""
    ticket = letter.ticket
    redactor = _knowing_secrets(letter, options)
    try:
        project, omitted = _project(letter, clone, own, scratch / "code", options)
        place = AttemptPlace(project, own, folder)
        given = _withheld(letter, project, options.environ)
        redactor = redactor_of(
            project.pipeline, given, replace(options, redactor=redactor.knowing(texts([*given.values()])))
        )
        ticket = ticket._replace(scope=_with(ticket.scope, given), beside=None)  # nothing else runs in this tree
        _require_secrets(letter, ticket, project)
        setting = _setting(letter, place, options, redactor)
        _bring_files(letter.run_id, ticket, place)
        environments = environments_of(setting, options.environ)
        end = partial(folder.end, "far")
        run_far(setting, ticket, folder, supervisor, options.environ, environments, end=end, is_shared=False)
        fragment = read_fragment(folder.fragment)
        if fragment is None:
            raise StoreError("it left no result")
        fragment.said = [*omitted, *_said(folder.messages)]
    except (RunnableError, OSError) as e:
        attempt = ticket.attempt.model_copy()
        message = e.message if isinstance(e, RunnableError) else str(e)
        attempt.end("failed", redactor.text(message))
        hint = e.hint if isinstance(e, RunnableError) else ""
        said = [redactor.text(hint)] if hint else []
        fragment = Fragment(step=ticket.step.name, attempt=attempt, host=socket.gethostname(), said=said)
    return _redacted(fragment, redactor)


def _knowing_secrets(letter: Letter, options: Options) -> Redactor:
    """Return what knows the secrets of this machine's environment, by what the run's own calls so too."""
    environ = options.environ
    withheld = [environ[name] for name in (f"{PARAMETER_PREFIX}{it}" for it in letter.withheld) if name in environ]
    return options.redactor.knowing([*withheld, *secrets_of(environ, letter.secret_names)])


def _redacted(fragment: Fragment, redactor: Redactor) -> Fragment:
    event = AttemptSaved(step=fragment.step, attempt=fragment.attempt, data_catalog=fragment.data_catalog)
    clean = cleaned(event, redactor)
    assert isinstance(clean, AttemptSaved)  # noqa: S101 - for the type checker
    said = [redactor.text(line) for line in fragment.said]
    return fragment.model_copy(update={"attempt": clean.attempt, "data_catalog": clean.data_catalog, "said": said})


def _project(letter: Letter, clone: Path, own: Layout, root: Path, options: Options) -> tuple[Project, list[str]]:
    """Return the project in a new tree of the recorded code, and what of that could not be made."""
    log = RunLog(run_id=letter.run_id, code_states=dict(letter.codes))
    attempt = letter.ticket.attempt
    try:
        missing = rebuild_recorded(own, log, attempt, root, environ=options.environ, clone=clone)
    except CodeIdentityError as e:
        why = " ".join(e.message.split())
        raise StepError(
            f"the code of the run cannot be made from {clone} on {socket.gethostname()}: {why}",
            hint="push the commit, so that the clone there can fetch it",
        ) from e
    file = (root / letter.file).resolve()
    if not file.is_file() or not file.is_relative_to(root.resolve()):
        raise StepError(f"the pipeline file {letter.file} is not in the recorded code")
    project = replace(load_project(file), layout=own)
    around = repository_root(clone, options.environ) or clone
    link_environment(project.pipeline, around / Path(letter.file).parent, project.workspace)
    return project, [f"note: not as in the run's own folder: {line}" for line in missing]


def _withheld(letter: Letter, project: Project, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters that came without a value, as far as this machine gives them one."""
    known = KnownParameters.of(project.pipeline)
    return environment_parameters(environ, known, only=letter.withheld)


def _with(scope: Scope, given: Mapping[str, Any]) -> Scope:
    parameters = {
        name: one._replace(item=Parameter.of_json(given[name])) if name in given else one
        for name, one in scope.parameters.items()
    }
    return scope._replace(parameters=parameters)


def _require_secrets(letter: Letter, ticket: Ticket, project: Project) -> None:
    lost = steps.missing_secret(ticket.step, project.workspace, ticket.scope.values())
    if lost in letter.withheld:
        raise StepError(
            f"parameter `{lost}` is a secret, which no registry gets, and it is not set on {socket.gethostname()}",
            hint=f"set {PARAMETER_PREFIX}{lost} in the environment there",
        )


def _setting(letter: Letter, place: AttemptPlace, options: Options, redactor: Redactor) -> Setting:
    project = place.project
    root = repository_root(project.workspace, options.environ)
    key = options.settings.reuse_key
    pipeline = project.pipeline
    return Setting(
        run_id=letter.run_id,
        invocation=letter.invocation,
        workspace=project.workspace,
        store=place.layout.folder,
        interpreter=find_interpreter(pipeline, project.workspace, options.environ),
        environ={**options.environ, **letter.variables},
        secrets=redactor.known,
        secret_names=frozenset(name.upper() for name in letter.secret_names),
        reuse_key=key.get_secret_value() if key else "",
        around=str(root) if root else "",
        containers=ContainerSetting(
            (root or project.workspace, place.layout.folder),
            frozenset(pipeline.secrets),
            pipeline.python,
            options.settings.container_engine,
        ),
    )


def _bring_files(run_id: str, ticket: Ticket, place: AttemptPlace) -> None:
    """Have in the tree what a step may read of earlier ones, where it does not say what it gets."""
    if ticket.step.get is not None:
        return
    log = RunLog(run_id=run_id, packs=dict(ticket.packs))
    catalog = catalog_of(place.layout, log, place.project.workspace)
    visible = ticket.scope.entries().values()
    catalog.get(entry for entry in files_for(ticket) if entry in visible and (entry.stored or entry.kind))


def _answer(letter: Letter, fragment: Fragment, registry: Registry, own: Layout, key: str) -> None:
    """Send back what an attempt gave, with all that it names."""
    title = f"{fragment.step}.{fragment.attempt.attempt_number}"
    attempt = fragment.attempt.model_copy(update={"code_identities": []})
    step = StepLog(
        name=fragment.step, internal_name=fragment.step, attempts=[attempt], data_catalog=fragment.data_catalog
    )
    log = RunLog(run_id=letter.run_id, steps={fragment.step: step}, packs=fragment.packs)
    outputs = run_folder(own, letter.run_id) / OUTPUTS
    files = {}
    if attempt.log:
        files[f"sha256:{attempt.log.data_hash}"] = outputs / f"{title}.log"
        files[f"sha256:{attempt.log.index_hash}"] = outputs / f"{title}.idx"
    files[f"sha256:{attempt.reads}"] = outputs / f"{title}{READS_SUFFIX}"
    if attempt.checkpoint:
        kept = KeptFiles(catalog_of(own, log, own.folder), fragment.step)
        files |= {f"sha256:{it.data_hash}": kept.place_of(it) for it in attempt.checkpoint.files.values()}
    blobs = layers(log).values()
    post(own, registry, letter.answer, sealed(document_of(fragment), key), blobs, files=files)


def _said(messages: Path) -> list[str]:
    """Return what was said of an attempt while it ran."""
    lines: list[str] = []
    with suppress(OSError):
        for line in messages.read_bytes().splitlines():
            with suppress(ValueError):
                said = parse_own(line)
                if isinstance(said, dict) and said.get("kind") == "say":
                    lines += map(str, said["lines"])
    return lines


class Orphan:
    """Ends what a supervisor runs once what started this process is gone: for its run the attempt is lost then."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor, self._parent = supervisor, os.getppid()
        self.is_one = False

    def look(self) -> None:
        """Look at the parent."""
        if not self.is_one and os.getppid() != self._parent:
            self.is_one = True
            self._supervisor.cancel(signal.SIGTERM)
