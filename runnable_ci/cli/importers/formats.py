"""Which tool's pipeline a file is, by its name."""

from __future__ import annotations

from pathlib import Path

from runnable_ci.cli.importers.imported import ImportedPipeline
from runnable_ci.errors import UsageError


def import_pipeline(file: Path) -> ImportedPipeline:
    """Return the pipeline of a dvc.yaml or a Snakefile.

    Raises `UsageError` for a file that is not there, or not of a known tool.
    """
    if not file.is_file():
        raise UsageError(f"there is no file {file}", hint="name a dvc.yaml or a Snakefile")
    if file.suffix in (".yaml", ".yml"):
        from runnable_ci.cli.importers.dvc import import_dvc

        return import_dvc(file)
    if file.name == "Snakefile" or file.suffix == ".smk":
        from runnable_ci.cli.importers.snakemake import import_snakefile

        return import_snakefile(file)
    raise UsageError(f"{file}: it is not known which tool this is of", hint="name a dvc.yaml or a Snakefile")
