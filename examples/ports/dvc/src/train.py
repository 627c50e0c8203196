"""Learn a weight for each word: how much more often it is in posts with the label."""

import json
import sys
from pathlib import Path

import yaml

features, model = map(Path, sys.argv[1:])
weight = yaml.safe_load(Path("params.yaml").read_text())["train"]["weight"]
rows = json.loads((features / "train.json").read_text())
signs = [2 * label - 1 for label, *_ in rows]
columns = list(zip(*(counts for _, *counts in rows)))
model.write_text(json.dumps([weight * sum(s * n for s, n in zip(signs, column)) for column in columns]))
