"""Divide posts into those to learn from and those to test with."""

import random
import sys
from pathlib import Path
from xml.etree import ElementTree

import yaml

source, folder = sys.argv[1], Path(sys.argv[2])
params = yaml.safe_load(Path("params.yaml").read_text())["prepare"]
draw = random.Random(params["seed"])  # noqa: S311 - it is no secret
rows = {"train": [], "test": []}
for post in ElementTree.parse(source).getroot():  # noqa: S314 - a file of this repository
    label = int("r" in post.get("Tags").split())
    rows["test" if draw.random() < params["split"] else "train"].append(f"{label}\t{post.get('Title')}\n")
folder.mkdir(parents=True)
for name, lines in rows.items():
    (folder / f"{name}.tsv").write_text("".join(lines))
