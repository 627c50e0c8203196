"""Whether an invocation has steps that run elsewhere, and what it needs for them."""

from __future__ import annotations

from runnable_ci.engine.attempt import ExecutionContext
from runnable_ci.engine.elsewhere.near_side import AttemptsElsewhere, Tell
from runnable_ci.engine.elsewhere.tickets import ContainerSetting, Setting
from runnable_ci.engine.session import RunSession
from runnable_ci.runs.elsewhere.places import ElsewhereFolder
from runnable_ci.runs.recorder import Recorder


def open_executors(session: RunSession, recorder: Recorder, context: ExecutionContext, tell: Tell) -> AttemptsElsewhere:
    """Return what runs the steps of an invocation that have an executor."""
    key, containers = session.options.settings.reuse_key, context.containers
    setting = Setting(
        run_id=recorder.log.run_id,
        invocation=recorder.log.invocation,
        workspace=session.project.workspace,
        store=session.project.layout.folder.resolve(),
        interpreter=context.interpreter,
        environ=dict(context.environ),
        secrets=recorder.redactor.known,
        secret_names=frozenset(context.secret_names),
        reuse_key=key.get_secret_value() if key else "",
        around=context.reads.observer.around,
        containers=None
        if containers is None
        else ContainerSetting(containers.shared, frozenset(containers.secrets), containers.python, containers.chosen),
    )
    folder = ElsewhereFolder.of(session.project.layout, recorder.log.run_id)
    found = AttemptsElsewhere(context, folder, session.project.pipeline.executors, setting, tell)
    if any(executor.project for executor in found.executors.values()):
        from runnable_ci.engine.elsewhere.apart.carrier import Carrier  # most machines share their folders

        found.carrier = Carrier(session.project, session.options, recorder, context)
    return found
