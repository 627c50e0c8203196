"""Draw a bar for the depth of each place."""

from pathlib import Path

rows = [line.split() for line in Path(snakemake.input[0]).read_text().splitlines()]  # noqa: F821
bars = [f"{place:>3} {'#' * int(depth)}" for place, depth in rows]
Path(snakemake.output[0]).write_text("\n".join(bars) + "\n")  # noqa: F821
