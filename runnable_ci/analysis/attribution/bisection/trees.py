"""The tree of a commit, with what a run read that git does not track, ready to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runnable_ci.analysis.attribution.bench import shown_without
from runnable_ci.analysis.attribution.kinds import data_files
from runnable_ci.analysis.comparison.which import ComparedRun
from runnable_ci.analysis.reproduction.again import PreparedTree, name_author
from runnable_ci.analysis.reproduction.inputs import ProvidedInputs, provide_inputs
from runnable_ci.analysis.reproduction.left_out import NEVER_TRIED, steps_left_out
from runnable_ci.analysis.scratch import note_store, scratch_folder
from runnable_ci.engine.code.linked_environment import link_environment
from runnable_ci.engine.options import Options
from runnable_ci.engine.preflight import load_project
from runnable_ci.errors import PipelineError
from runnable_ci.vcs.checkout.rebuild import rebuild
from runnable_ci.vcs.git_files import repository_root


@contextmanager
def commit_tree(
    commit: str, file: str, inputs_of: ComparedRun | None, workspace: Path, options: Options
) -> Iterator[PreparedTree]:
    """Make a commit in a folder that is removed in the end, with the inputs of a run and the packages that are here.

    `file` is the pipeline file in the repository around the `workspace`. Raises `PipelineError` for one that cannot be
    used, `CodeIdentityError`.
    """
    clone = repository_root(workspace, options.environ) or workspace
    with scratch_folder() as folder:
        root = folder.resolve() / clone.name  # a pipeline without a name has the folder's
        missing = rebuild(None, commit=commit, sources=[workspace], destination=root, environ=options.environ)
        name_author(workspace, root, options.environ)
        place = (root / file).resolve()
        if not (place.is_file() and place.is_relative_to(root)):
            hint = "the pipeline file had another name then, or there was none"
            raise PipelineError(f"commit {commit[:12]} has no {file}", hint=hint)
        with shown_without(root):
            project = load_project(place)
        note_store(folder, project.layout.folder)
        tree = project.workspace
        inputs, left_out = ProvidedInputs(), dict[str, str]()
        if inputs_of is not None:
            read = inputs_of.read()
            data = data_files(read)
            reasons = steps_left_out(read, project.pipeline, (), ())  # a deploy is not run for each commit
            left_out = {name: why for name, why in reasons.items() if why != NEVER_TRIED}
            inputs = provide_inputs(inputs_of, workspace, tree, root, left_out)
            for provided in (inputs.copied, inputs.restored):
                for path in provided.keys() - data:  # code that was not committed is of no commit
                    (tree / path).unlink(missing_ok=True)
                    del provided[path]
        link_environment(project.pipeline, workspace, tree)
        with shown_without(root):
            yield PreparedTree(
                workspace=workspace,
                project=project.opened(options.environ),
                options=options,
                inputs=inputs,
                missing=missing,
                not_held=(),
                left_out=left_out,
                no_image={},
                images=None,
            )
