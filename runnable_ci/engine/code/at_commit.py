"""A project as another commit has it, to look at and not to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from runnable_ci.engine.preflight import load_project
from runnable_ci.errors import CodeIdentityError, NotARepositoryError, PipelineError
from runnable_ci.pipeline.project import Project
from runnable_ci.vcs.checkout.shared import check_out_shared
from runnable_ci.vcs.git_files import repository_root


@contextmanager
def project_at(project: Project, commit: str, environ: Mapping[str, str]) -> Iterator[Project]:
    """Yield a project as a commit of its repository has it, in a folder of its own in the block; the store is the same.

    Raises `CodeIdentityError` where that is not known here.
    """
    root = repository_root(project.workspace, environ)
    if root is None:
        raise NotARepositoryError("not a git repository")
    with TemporaryDirectory(prefix="runnable-ci-") as folder:
        copy = Path(folder).resolve() / root.name  # a pipeline without a name has the folder's
        copy.mkdir()
        check_out_shared(commit, source=root, destination=copy, environ=environ)
        file = project.file.relative_to(root)
        try:
            there = load_project(copy / file)
        except PipelineError as e:
            raise CodeIdentityError(f"its {file} is missing or cannot be used") from e
        yield replace(there, layout=project.layout)
